//! Roots: ReSTE.

use super::{Elements, Entry, Estimator};
use dirnet_kernels::math;
use std::sync::Arc;

/// Inside this the root, whose slope has no end at zero, is a straight line.
const INSIDE: f32 = 0.1;
/// Beyond this nothing moves.
const BEYOND: f32 = 1.5;

/// A root of degree `o`, straight near zero and flat far out: what [`Reste`] is at one moment.
///
/// ```text
/// soft    sign(x) · |x|^(1/o) for 0.1 < |x| ≤ 1.5, straight inside, constant beyond
/// slope   |x|^(1/o - 1) / o there, 0.1^(1/o - 1) inside, 0 beyond
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// Degree of the root, from 1.
    pub o: f32,
}

impl Estimator for Power {
    fn name(&self) -> &str {
        "power"
    }
    fn soft(&self, x: f32) -> f32 {
        let size = x.abs().min(BEYOND);
        let root = if size <= INSIDE {
            size * INSIDE.powf(1.0 / self.o - 1.0)
        } else {
            size.powf(1.0 / self.o)
        };
        root.copysign(x)
    }
    fn slope(&self, x: f32) -> f32 {
        let (size, degree) = (x.abs(), 1.0 / self.o - 1.0);
        let power = math::exp(degree * math::ln(size.clamp(INSIDE, BEYOND)));
        let slope = if size <= INSIDE { power } else { power / self.o };
        if size <= BEYOND { slope } else { 0.0 }
    }
}

/// The rectified straight-through estimator: from the identity to a root, closer to the sign.
///
/// ```text
/// soft    sign(x) · |x|^(1/o) for 0.1 < |x| ≤ 1.5, straight inside, constant beyond
/// slope   |x|^(1/o - 1) / o there, 0.1^(1/o - 1) inside, 0 beyond       __.-|‾|-.__
/// ```
///
/// `o = 1 + (1 - cos(π/2 · progress)) · (o_max - 1)`: 1 at the start, `o_max` at the end.
///
/// | x            | -1.5 |  -0.3 |     0 |   0.3 |  1.5 |
/// | ------------ | ---- | ----- | ----- | ----- | ---- |
/// | slope, start |    1 |     1 |     1 |     1 |    1 |
/// | slope, end   | 0.254 | 0.744 | 4.642 | 0.744 | 0.254 |
///
/// Wu et al., 2023 (ReSTE), arXiv 2308.06689.
#[derive(Clone, Copy, Debug)]
pub struct Reste {
    /// Degree of the root at the end of training.
    pub o_max: f32,
}

impl Default for Reste {
    fn default() -> Self {
        Reste { o_max: 3.0 }
    }
}

impl Reste {
    fn at(&self, progress: f32) -> Power {
        let grown = 1.0 - (std::f32::consts::FRAC_PI_2 * progress).cos();
        Power { o: 1.0 + grown * (self.o_max - 1.0) }
    }
}

impl Estimator for Reste {
    fn name(&self) -> &str {
        "reste"
    }
    fn soft(&self, x: f32) -> f32 {
        self.at(0.0).soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        self.at(0.0).slope(x)
    }
    fn fit(&self, _: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(self.at(progress)))
    }
}

/// The estimators of this file.
pub(super) const ENTRIES: &[Entry] = &[Entry {
    name: "reste",
    make: |options| Ok(Arc::new(Reste { o_max: options.number("o_max", 3.0, 1.0..=100.0)? })),
    known: &[
        (0.0, 0.0, 1.0),
        (0.0, -0.3, 1.0),
        (0.5, 0.3, 0.983_797),
        (1.0, 0.05, 4.641_589),
        (1.0, 0.95, 0.344_929),
        (0.0, 1.6, 0.0),
    ],
}];
