//! Bells: SwishSign and the normal density.

use super::{Entry, Estimator};
use dirnet_kernels::math;
use std::f32::consts::{FRAC_2_PI, SQRT_2};
use std::sync::Arc;

/// The derivative of a swish made symmetric: steep at zero, slightly negative further out.
///
/// ```text
/// soft    tanh(h) + h · (1 - tanh²(h)),  h = beta·x/2
/// slope   beta · (1 - tanh²(h)) · (1 - h·tanh(h))      ___.-'-.___  dips below zero
/// ```
///
/// `beta`: steepness. Large: close to the sign, and narrow.
///
/// | x             |   -1.5 |  -0.3 | 0 |   0.3 |    1.5 |
/// | ------------- | ------ | ----- | - | ----- | ------ |
/// | slope, beta=5 | -0.030 | 1.562 | 5 | 1.562 | -0.030 |
///
/// Darabi et al., 2018 (BNN+), arXiv 1812.11800.
#[derive(Clone, Copy, Debug)]
pub struct SwishSign {
    /// Steepness: the slope at zero.
    pub beta: f32,
}

impl Default for SwishSign {
    fn default() -> Self {
        SwishSign { beta: 5.0 }
    }
}

impl SwishSign {
    /// Beyond 60 the slope is zero in any float, and `h` times zero stays a number.
    #[inline(always)]
    fn half(&self, x: f32) -> f32 {
        (0.5 * self.beta * x).clamp(-60.0, 60.0)
    }
}

impl Estimator for SwishSign {
    fn name(&self) -> &str {
        "swish-sign"
    }
    fn soft(&self, x: f32) -> f32 {
        let h = self.half(x);
        math::tanh(h) + h * math::sech2(h)
    }
    fn slope(&self, x: f32) -> f32 {
        let h = self.half(x);
        self.beta * math::sech2(h) * (1.0 - h * math::tanh(h))
    }
}

/// A normal density, scaled so that its integral runs from -1 to 1.
///
/// ```text
/// soft    erf(x / (√2·sigma))                   ___.-'‾‾
/// slope   √(2/π) / sigma · exp(-x² / (2·sigma²))      ___.-'-.___
/// ```
///
/// `sigma`: width. Small: close to the sign.
///
/// | x                |  -1.5 |  -0.3 |     0 |   0.3 |   1.5 |
/// | ---------------- | ----- | ----- | ----- | ----- | ----- |
/// | slope, sigma=0.5 | 0.018 | 1.333 | 1.596 | 1.333 | 0.018 |
#[derive(Clone, Copy, Debug)]
pub struct Gaussian {
    /// Standard deviation.
    pub sigma: f32,
}

impl Default for Gaussian {
    fn default() -> Self {
        Gaussian { sigma: 0.5 }
    }
}

impl Estimator for Gaussian {
    fn name(&self) -> &str {
        "gaussian"
    }
    fn soft(&self, x: f32) -> f32 {
        math::erf(x / (SQRT_2 * self.sigma))
    }
    fn slope(&self, x: f32) -> f32 {
        let u = x / self.sigma;
        FRAC_2_PI.sqrt() / self.sigma * math::exp(-0.5 * u * u)
    }
}

/// The estimators of this file.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "swish-sign",
        make: |options| Ok(Arc::new(SwishSign { beta: options.number("beta", 5.0, 1e-3..=1e3)? })),
        known: &[
            (0.0, 0.0, 5.0),
            (0.0, -0.3, 1.561_976),
            (0.5, 0.3, 1.561_976),
            (1.0, 0.05, 4.846_163),
            (1.0, 0.95, -0.226_928),
            (0.0, 1.6, -0.020_096),
        ],
    },
    Entry {
        name: "gaussian",
        make: |options| Ok(Arc::new(Gaussian { sigma: options.number("sigma", 0.5, 1e-3..=1e3)? })),
        known: &[
            (0.0, 0.0, 1.595_769),
            (0.0, -0.3, 1.332_898),
            (0.5, 0.3, 1.332_898),
            (1.0, 0.05, 1.587_81),
            (1.0, 0.95, 0.262_463),
            (0.0, 1.6, 0.009_536),
        ],
    },
];
