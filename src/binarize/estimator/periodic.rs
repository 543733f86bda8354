//! Sines and cosines: half a wave, and the Fourier series of the sign.

use super::{Elements, Entry, Estimator};
use dirnet_kernels::{elementwise, math};
use std::f32::consts::{FRAC_2_PI, FRAC_PI_2};
use std::sync::Arc;

/// Half a sine wave: rounder than a straight line, and flat at the ends.
///
/// ```text
/// soft    sin(π/2 · clamp(x, -1, 1))            ____.-'‾‾‾
/// slope   π/2 · cos(π/2 · x) where |x| ≤ 1, else 0      ____.-'-.____
/// ```
///
/// | x     | -1.5 |  -0.3 |     0 |   0.3 | 1.5 |
/// | ----- | ---- | ----- | ----- | ----- | --- |
/// | slope |    0 | 1.400 | 1.571 | 1.400 |   0 |
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfCosine;

impl Estimator for HalfCosine {
    fn name(&self) -> &str {
        "half-cosine"
    }
    fn soft(&self, x: f32) -> f32 {
        (FRAC_PI_2 * x.clamp(-1.0, 1.0)).sin()
    }
    fn slope(&self, x: f32) -> f32 {
        FRAC_PI_2 * math::cos(FRAC_PI_2 * x.clamp(-1.0, 1.0)) * f32::from(u8::from(x.abs() <= 1.0))
    }
}

/// The first terms of the Fourier series of a square wave: what [`Fda`] is at one moment.
///
/// ```text
/// soft    4/π · Σ_{i=0..last} sin((2i+1)·omega·x) / (2i+1),  x clamped to [-1, 1]
/// slope   4·omega/π · Σ_{i=0..last} cos((2i+1)·omega·x) where |x| ≤ 1, else 0
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FourierSum {
    /// Index of the last term; there is one term more.
    pub last: u32,
    /// Angular frequency of the square wave, at most π/2.
    pub omega: f32,
}

impl Estimator for FourierSum {
    fn name(&self) -> &str {
        "fourier"
    }
    fn soft(&self, x: f32) -> f32 {
        let angle = f64::from(self.omega * x.clamp(-1.0, 1.0));
        let odd = (0..=self.last).map(|i| f64::from(2 * i + 1));
        (2.0 * f64::from(FRAC_2_PI) * odd.map(|m| (m * angle).sin() / m).sum::<f64>()) as f32
    }
    fn slope(&self, x: f32) -> f32 {
        self.above(x) / self.below(x)
    }
    // One after the other, for the compiler puts into its loop only what is short.
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        elementwise::zip_in_place(dy, x, |dy, x| dy * self.above(x));
        elementwise::zip_in_place(dy, x, |dy, x| dy / self.below(x));
    }
}

/// The sum of cos((2i+1)·a) for i ≤ n is sin(2·(n+1)·a) / (2·sin a), and n+1 at zero.
impl FourierSum {
    #[inline]
    fn above(&self, x: f32) -> f32 {
        let terms = 2.0 * (self.last + 1) as f32;
        let inside = f32::from(u8::from(x.abs() <= 1.0));
        inside * 2.0 * FRAC_2_PI * self.omega * math::sin(terms * self.angle(x))
    }
    #[inline]
    fn below(&self, x: f32) -> f32 {
        2.0 * math::sin(self.angle(x))
    }
    #[inline]
    fn angle(&self, x: f32) -> f32 {
        let angle = self.omega * x.clamp(-1.0, 1.0).abs();
        if angle < 1e-6 { 1e-6 } else { angle }
    }
}

/// Frequency domain approximation: the Fourier series of the sign, with more terms as training goes on.
///
/// ```text
/// soft    4/π · Σ_{i=0..n} sin((2i+1)·omega·x) / (2i+1),  x clamped to [-1, 1]
/// slope   4·omega/π · Σ_{i=0..n} cos((2i+1)·omega·x) where |x| ≤ 1, else 0    ____|.-'-.|____
/// ```
///
/// `n` grows evenly from `first` to `last`, rounded to a whole number. At n = 18 the slope is
/// negative near the ends. The published noise, a small network, is a part of its own: [`Noise`](crate::binarize::Noise).
///
/// | x            | -1.5 |  -0.3 |     0 |   0.3 | 1.5 |
/// | ------------ | ---- | ----- | ----- | ----- | --- |
/// | slope, start |    0 | 1.198 | 1.273 | 1.198 |   0 |
///
/// Xu et al., 2021 (FDA-BNN), arXiv 2103.00841.
#[derive(Clone, Copy, Debug)]
pub struct Fda {
    /// `n` at the start.
    pub first: u32,
    /// `n` at the end.
    pub last: u32,
    /// Angular frequency.
    pub omega: f32,
}

impl Default for Fda {
    fn default() -> Self {
        Fda { first: 9, last: 18, omega: 0.1 }
    }
}

impl Fda {
    fn at(&self, progress: f32) -> FourierSum {
        let (first, last) = (self.first as f32, self.last as f32);
        let last = (first + (last - first) * progress).round() as u32;
        FourierSum { last, omega: self.omega }
    }
}

impl Estimator for Fda {
    fn name(&self) -> &str {
        "fda"
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
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "half-cosine",
        make: |_| Ok(Arc::new(HalfCosine)),
        known: &[
            (0.0, 0.0, FRAC_PI_2),
            (0.0, -0.3, 1.399_59),
            (0.5, 0.3, 1.399_59),
            (1.0, 0.05, 1.565_954),
            (1.0, 0.95, 0.123_243),
            (0.0, 1.6, 0.0),
        ],
    },
    Entry {
        name: "fda",
        make: |options| {
            let Fda { first, last, omega } = Fda::default();
            Ok(Arc::new(Fda {
                first: options.number("first", first as f32, 0.0..=100.0)? as u32,
                last: options.number("last", last as f32, 0.0..=100.0)? as u32,
                omega: options.number("omega", omega, 1e-4..=1.5)?,
            }))
        },
        known: &[
            (0.0, 0.0, 1.273_24),
            (0.0, -0.3, 1.198_388),
            (0.5, 0.3, 1.662_521),
            (1.0, 0.05, 2.404_636),
            (1.0, 0.95, -0.302_995),
            (0.0, 1.6, 0.0),
        ],
    },
];
