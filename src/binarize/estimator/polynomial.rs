//! Parabolas of compact support: ApproxSign and RBNN's.

use super::{Elements, Entry, Estimator, Steepening};
use std::sync::Arc;

/// Two parabolas that meet at zero: steep where the sign is in doubt, flat where it is not.
///
/// ```text
/// soft    2x + x² for -1 ≤ x < 0,  2x - x² for 0 ≤ x ≤ 1,  ±1 beyond
/// slope   2 - 2|x| where |x| ≤ 1, else 0        ____/\____
/// ```
///
/// | x     | -1.5 | -0.3 | 0 | 0.3 | 1.5 |
/// | ----- | ---- | ---- | - | --- | --- |
/// | slope |    0 |  1.4 | 2 | 1.4 |   0 |
///
/// Liu et al., 2018 (Bi-Real Net), arXiv 1808.00278.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApproxSign;

impl Estimator for ApproxSign {
    fn name(&self) -> &str {
        "approx-sign"
    }
    fn soft(&self, x: f32) -> f32 {
        let x = x.clamp(-1.0, 1.0);
        x * (2.0 - x.abs())
    }
    fn slope(&self, x: f32) -> f32 {
        (2.0 - 2.0 * x.abs()).max(0.0)
    }
}

/// Two parabolas that meet at zero and end at `|x| = √2/t`: what [`Rbnn`] is at one moment.
///
/// ```text
/// soft    k · (√2·t·x - t²·x·|x|/2) where |x| ≤ √2/t, else ±k
/// slope   k · max(√2·t - t²·|x|, 0)             ____/\____
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Parabola {
    /// Steepness.
    pub t: f32,
    /// Half the range.
    pub k: f32,
}

impl Estimator for Parabola {
    fn name(&self) -> &str {
        "parabola"
    }
    fn soft(&self, x: f32) -> f32 {
        let end = std::f32::consts::SQRT_2;
        let u = (self.t * x).clamp(-end, end);
        self.k * u * (end - 0.5 * u.abs())
    }
    #[inline]
    fn slope(&self, x: f32) -> f32 {
        self.k * self.t * (std::f32::consts::SQRT_2 - self.t * x.abs()).max(0.0)
    }
}

/// The training-aware estimator of rotated binary networks: parabolas that steepen in training.
///
/// ```text
/// soft    k · (√2·t·x - t²·x·|x|/2) where |x| ≤ √2/t, else ±k
/// slope   k · max(√2·t - t²·|x|, 0)             start ‾‾‾‾‾‾‾    end ____/\____
/// ```
///
/// `t` grows from `t_min` to `t_max` by [`Steepening`], from 0.01 to 10 as published. `part=weights`
/// (the default) has `k = max(1/t, 1)`; `part=activations` has `k = 1` and `max(t, 1)` in place of `t`.
///
/// | x              |  -1.5 |  -0.3 |     0 |   0.3 |   1.5 |
/// | -------------- | ----- | ----- | ----- | ----- | ----- |
/// | slope, start   | 1.399 | 1.411 | 1.414 | 1.411 | 1.399 |
/// | slope, halfway | 0.940 | 1.319 | 1.414 | 1.319 | 0.940 |
///
/// Lin et al., 2020 (RBNN), arXiv 2009.13055.
#[derive(Clone, Copy, Debug)]
pub struct Rbnn {
    /// The schedule of `t`.
    pub steepening: Steepening,
    /// Whether it stands behind the sign of activations, not of weights.
    pub activations: bool,
}

impl Default for Rbnn {
    fn default() -> Self {
        Rbnn { steepening: Steepening { t_min: 1e-2, t_max: 10.0 }, activations: false }
    }
}

impl Rbnn {
    fn at(&self, progress: f32) -> Parabola {
        let t = self.steepening.at(progress);
        match self.activations {
            true => Parabola { t: t.max(1.0), k: 1.0 },
            false => Parabola { t, k: (1.0 / t).max(1.0) },
        }
    }
}

impl Estimator for Rbnn {
    fn name(&self) -> &str {
        "rbnn"
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
        name: "approx-sign",
        make: |_| Ok(Arc::new(ApproxSign)),
        known: &[(0.0, -1.5, 0.0), (0.0, -0.3, 1.4), (0.0, 0.0, 2.0), (1.0, 0.75, 0.5)],
    },
    Entry {
        name: "rbnn",
        make: |options| {
            let parts = [("weights", false), ("activations", true)];
            Ok(Arc::new(Rbnn {
                steepening: Steepening {
                    t_min: options.number("t_min", 1e-2, 1e-6..=1e3)?,
                    t_max: options.number("t_max", 10.0, 1e-6..=1e3)?,
                },
                activations: options.word("part", false, &parts)?,
            }))
        },
        known: &[
            (0.0, 0.0, std::f32::consts::SQRT_2),
            (0.0, -0.3, 1.411_214),
            (0.5, 0.3, 1.319_345),
            (1.0, 0.05, 9.142_136),
            (1.0, 0.95, 0.0),
            (0.0, 1.6, 1.398_214),
        ],
    },
];
