//! Hyperbolic tangents: standing still, steepening (EDE), and cut at the interval (DSQ).

use super::{Elements, Entry, Estimator};
use crate::{Error, spec::Options};
use dirnet_kernels::math;
use std::sync::Arc;

/// A hyperbolic tangent of steepness `t`: what [`Ede`] and [`Dte`](crate::binarize::Dte) are at one moment.
///
/// ```text
/// soft    k · tanh(t·x),  k = max(1/t, 1)       ___.-'‾‾
/// slope   k · t · (1 - tanh²(t·x))              __.-'-.__
/// ```
///
/// At `t` below 1 the slope at zero is 1 and the curve wide; above, the range is ±1 and the slope
/// at zero is `t`. The slope is computed by the kernels' own `tanh`, whose error is stated there.
///
/// | x         |  -1.5 |  -0.3 | 0 |   0.3 |   1.5 |
/// | --------- | ----- | ----- | - | ----- | ----- |
/// | slope t=2 | 0.020 | 1.423 | 2 | 1.423 | 0.020 |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tanh {
    /// Steepness.
    pub t: f32,
    /// Half the range.
    pub k: f32,
}

impl Tanh {
    /// Of steepness `t`, with `k = max(1/t, 1)`.
    pub fn steep(t: f32) -> Self {
        Tanh { t, k: (1.0 / t).max(1.0) }
    }
}

impl Estimator for Tanh {
    fn name(&self) -> &str {
        "tanh"
    }
    fn soft(&self, x: f32) -> f32 {
        self.k * math::tanh(self.t * x)
    }
    #[inline]
    fn slope(&self, x: f32) -> f32 {
        math::bell(self.k * self.t, self.t, x)
    }
}

/// How a steepness grows in the course of training: `t_min · (t_max/t_min)^progress`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steepening {
    /// At the start.
    pub t_min: f32,
    /// At the end.
    pub t_max: f32,
}

impl Default for Steepening {
    /// From 0.1 to 10, as published for VGG-Small.
    fn default() -> Self {
        Steepening { t_min: 0.1, t_max: 10.0 }
    }
}

impl Steepening {
    /// The steepness at a moment of training, from 0 to 1.
    pub fn at(&self, progress: f32) -> f32 {
        self.t_min * (self.t_max / self.t_min).powf(progress)
    }
    pub(in crate::binarize) fn parse(options: &mut Options<'_>) -> Result<Self, Error> {
        let Steepening { t_min, t_max } = Steepening::default();
        Ok(Steepening {
            t_min: options.number("t_min", t_min, 1e-6..=1e3)?,
            t_max: options.number("t_max", t_max, 1e-6..=1e3)?,
        })
    }
}

/// The error decay estimator: wide at first so that everything may move, ever closer to the sign.
///
/// ```text
/// soft    k · tanh(t·x),  k = max(1/t, 1)       start ___.-'‾‾   end ____|‾‾‾‾
/// slope   k · t · (1 - tanh²(t·x))              start ‾‾‾‾‾‾‾    end ____/\____
/// ```
///
/// `t` grows from `t_min` to `t_max` by [`Steepening`], the same for all tensors.
///
/// | x             |  -1.5 |  -0.3 | 0 |   0.3 |   1.5 |
/// | ------------- | ----- | ----- | - | ----- | ----- |
/// | slope, start  | 0.978 | 0.999 | 1 | 0.999 | 0.978 |
/// | slope, halfway| 0.181 | 0.915 | 1 | 0.915 | 0.181 |
///
/// Qin et al., 2020 (IR-Net), arXiv 1909.10788.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ede {
    /// The schedule of `t`.
    pub steepening: Steepening,
}

impl Estimator for Ede {
    fn name(&self) -> &str {
        "ede"
    }
    fn soft(&self, x: f32) -> f32 {
        Tanh::steep(self.steepening.t_min).soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        Tanh::steep(self.steepening.t_min).slope(x)
    }
    fn fit(&self, _: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(Tanh::steep(self.steepening.at(progress))))
    }
}

/// Differentiable soft quantization: a hyperbolic tangent stretched to meet ±1 at the ends of [-1, 1].
///
/// ```text
/// soft    tanh(K·x) / tanh(K) where |x| ≤ 1, else ±1,  K = ln(2/alpha - 1) / 2
/// slope   K · (1 - tanh²(K·x)) / (1 - alpha) inside, else 0      ____.-'-.____
/// ```
///
/// `alpha`: how far from ±1 the tangent ends before it is stretched. Small: close to the sign.
/// Published with a learned `alpha`; here it is constant.
///
/// | x               | -1.5 |  -0.3 |     0 |   0.3 | 1.5 |
/// | --------------- | ---- | ----- | ----- | ----- | --- |
/// | slope, alpha=0.2 |    0 | 1.234 | 1.373 | 1.234 |   0 |
///
/// Gong et al., 2019, arXiv 1908.05033.
#[derive(Clone, Copy, Debug)]
pub struct Dsq {
    /// One minus the tangent at the end of the interval.
    pub alpha: f32,
}

impl Default for Dsq {
    fn default() -> Self {
        Dsq { alpha: 0.2 }
    }
}

impl Dsq {
    fn steepness(&self) -> f32 {
        (2.0 / self.alpha - 1.0).ln() / 2.0
    }
}

impl Estimator for Dsq {
    fn name(&self) -> &str {
        "dsq"
    }
    fn soft(&self, x: f32) -> f32 {
        math::tanh(self.steepness() * x.clamp(-1.0, 1.0)) / (1.0 - self.alpha)
    }
    fn slope(&self, x: f32) -> f32 {
        let t = self.steepness();
        let inside = f32::from(u8::from(x.abs() <= 1.0));
        inside * math::bell(t / (1.0 - self.alpha), t, x)
    }
}

/// The estimators of this file.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "ede",
        make: |options| Ok(Arc::new(Ede { steepening: Steepening::parse(options)? })),
        known: &[
            (0.0, 0.0, 1.0),
            (0.0, 1.5, 0.977_83),
            (0.5, 0.3, 0.915_137),
            (0.5, -1.5, 0.180_707),
            (1.0, 0.1, 4.199_743),
        ],
    },
    Entry {
        name: "dsq",
        make: |options| Ok(Arc::new(Dsq { alpha: options.number("alpha", 0.2, 1e-4..=0.9)? })),
        known: &[
            (0.0, 0.0, 1.373_265),
            (0.0, -0.3, 1.234_267),
            (0.5, 0.3, 1.234_267),
            (1.0, 0.05, 1.369_13),
            (1.0, 0.95, 0.539_189),
            (0.0, 1.6, 0.0),
        ],
    },
];
