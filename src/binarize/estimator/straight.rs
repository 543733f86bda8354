//! Straight lines: identity, clipped.

use super::{Entry, Estimator};
use std::sync::Arc;

/// The straight-through estimator: the gradient passes as if there were no sign.
///
/// ```text
/// soft    x                                     ___/‾‾‾   without end
/// slope   1                                     ‾‾‾‾‾‾‾
/// ```
///
/// | x     | -1.5 | -0.3 | 0 | 0.3 | 1.5 |
/// | ----- | ---- | ---- | - | --- | --- |
/// | slope |    1 |    1 | 1 |   1 |   1 |
///
/// Bengio et al., 2013, arXiv 1308.3432.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Estimator for Identity {
    fn name(&self) -> &str {
        "identity"
    }
    fn soft(&self, x: f32) -> f32 {
        x
    }
    fn slope(&self, _: f32) -> f32 {
        1.0
    }
    fn window(&self) -> Option<(f32, f32)> {
        Some((f32::INFINITY, 1.0))
    }
}

/// The clipped straight-through estimator: a straight line near zero, nothing beyond.
///
/// ```text
/// soft    clamp(x, -clip, clip)                 ______/‾‾‾‾‾‾   (clip = 1)
/// slope   1 where |x| ≤ clip, else 0            ____|‾‾|____
/// ```
///
/// `clip`: how far from zero a value may still move. Large: noisy gradients. Small: values starve.
///
/// | x     | -1.5 | -0.3 | 0 | 0.3 | 1.5 |
/// | ----- | ---- | ---- | - | --- | --- |
/// | slope |    0 |    1 | 1 |   1 |   0 |
///
/// Courbariaux et al., 2016, arXiv 1602.02830.
#[derive(Clone, Copy, Debug)]
pub struct Ste {
    /// Half the width of the window.
    pub clip: f32,
}

impl Default for Ste {
    fn default() -> Self {
        Ste { clip: 1.0 }
    }
}

impl Estimator for Ste {
    fn name(&self) -> &str {
        "ste"
    }
    fn soft(&self, x: f32) -> f32 {
        x.clamp(-self.clip, self.clip)
    }
    fn slope(&self, x: f32) -> f32 {
        f32::from(u8::from(x.abs() <= self.clip))
    }
    fn window(&self) -> Option<(f32, f32)> {
        Some((self.clip, 1.0))
    }
}

/// The estimators of this file.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "identity",
        make: |_| Ok(Arc::new(Identity)),
        known: &[(0.0, -1.5, 1.0), (0.0, 0.0, 1.0), (1.0, 0.3, 1.0)],
    },
    Entry {
        name: "ste",
        make: |options| Ok(Arc::new(Ste { clip: options.number("clip", 1.0, 0.0..=1e6)? })),
        known: &[(0.0, -1.5, 0.0), (0.0, -0.3, 1.0), (0.0, 1.0, 1.0), (1.0, 1.001, 0.0)],
    },
];
