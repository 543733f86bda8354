//! What stands in for the derivative of `sign` on the way back: one curve under the other.
//!
//! The derivative of `sign` is zero wherever it exists, so nothing would ever learn. An estimator
//! puts the slope of a soft curve in its place. All built-in curves follow, each with the same
//! page; [`ALL`], at the foot, lists them with rows of known values. To add one, write its page and
//! its entry in `ALL`; to bring one's own, implement [`Estimator`] anywhere.

use super::dte::{Bound, Dte};
use crate::error::unknown;
use crate::{Error, Spec, spec::Options};
use dirnet_kernels::{elementwise, math};
use std::fmt::Debug;
use std::sync::Arc;

/// What stands in for `sign` on the way back.
///
/// A curve of one's own, in full:
///
/// ```
/// use dirnet::{Estimator, check_estimator};
/// use std::f32::consts::FRAC_PI_2;
///
/// #[derive(Debug)]
/// struct HalfCosine;
///
/// impl Estimator for HalfCosine {
///     fn name(&self) -> &str { "half-cosine" }
///     fn soft(&self, x: f32) -> f32 { (FRAC_PI_2 * x.clamp(-1.0, 1.0)).sin() }
///     fn slope(&self, x: f32) -> f32 {
///         if x.abs() <= 1.0 { FRAC_PI_2 * (FRAC_PI_2 * x).cos() } else { 0.0 }
///     }
/// }
///
/// check_estimator(&HalfCosine); // the slope is the derivative of the soft curve
/// ```
pub trait Estimator: Debug + Send + Sync + 'static {
    /// As it is chosen and printed.
    fn name(&self) -> &str;

    /// The smooth curve that is meant.
    fn soft(&self, x: f32) -> f32;

    /// Its derivative: what the gradient of the sign is multiplied with.
    fn slope(&self, x: f32) -> f32;

    /// The curve for a tensor with these elements at this point of training, from 0 to 1; `None`
    /// means this very one. For schedules, and for curves that look at the distribution. Of a large
    /// tensor it is shown some four thousand elements, evenly spaced.
    fn fit(&self, x: &[f32], progress: f32) -> Option<Arc<dyn Estimator>> {
        let _ = (x, progress);
        None
    }

    /// `Some((limit, slope))` where the slope is that constant for `|x| <= limit` and zero beyond:
    /// then one bit an element is all that need be saved, and none if the limit is infinite.
    fn window(&self) -> Option<(f32, f32)> {
        None
    }

    /// `dy` becomes `slope(x) · dy`; provided, and compiled anew for each curve, so that the call into
    /// it is paid once for many elements.
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        elementwise::zip_in_place(dy, x, |dy, x| self.slope(x) * dy);
    }
}

impl Estimator for Arc<dyn Estimator> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn soft(&self, x: f32) -> f32 {
        (**self).soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        (**self).slope(x)
    }
    fn fit(&self, x: &[f32], progress: f32) -> Option<Arc<dyn Estimator>> {
        (**self).fit(x, progress)
    }
    fn window(&self) -> Option<(f32, f32)> {
        (**self).window()
    }
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        (**self).backward(x, dy);
    }
}

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

/// A hyperbolic tangent of steepness `t`: what [`Ede`] and [`Dte`] are at one moment.
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
        self.k * self.t * math::sech2(self.t * x)
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
    fn parse(options: &mut Options<'_>) -> Result<Self, Error> {
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
    fn fit(&self, _: &[f32], progress: f32) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(Tanh::steep(self.steepening.at(progress))))
    }
}

/// A built-in estimator: its name, how to make it, and rows of known values.
#[derive(Debug)]
pub struct Entry {
    /// As it is chosen.
    pub name: &'static str,
    /// Makes one from options such as `clip=1`.
    pub make: fn(&mut Options<'_>) -> Result<Arc<dyn Estimator>, Error>,
    /// Progress of training, input, and the slope there at the default options.
    pub known: &'static [(f32, f32, f32)],
}

/// All built-in estimators. Tests, the command's names and its curves walk this list.
pub static ALL: &[Entry] = &[
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
    Entry {
        name: "approx-sign",
        make: |_| Ok(Arc::new(ApproxSign)),
        known: &[(0.0, -1.5, 0.0), (0.0, -0.3, 1.4), (0.0, 0.0, 2.0), (1.0, 0.75, 0.5)],
    },
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
        name: "dte",
        make: |options| {
            let bound = options.word("rule", 'b', &[("a", 'a'), ("b", 'b')])?;
            Ok(Arc::new(Dte {
                steepening: Steepening::parse(options)?,
                eps: options.number("eps", Dte::default().eps, 0.0..=0.99)?,
                bound: match bound {
                    'a' => Bound::Absolute(options.number("tau", 1.0, 1e-3..=1e3)?),
                    _ => Bound::Relative(options.number("rho", 0.1, 1e-3..=0.999)?),
                },
            }))
        },
        known: &[(0.0, 0.0, 1.0), (0.0, 1.5, 0.977_83), (0.5, 0.3, 0.915_137)],
    },
];

/// The estimator that a text such as `ste(clip=1)` names.
///
/// ```
/// let e = dirnet::binarize::estimator("ste(clip=0.5)")?;
/// assert_eq!((e.slope(0.4), e.slope(0.6)), (1.0, 0.0));
/// # Ok::<(), dirnet::Error>(())
/// ```
///
/// # Errors
/// If there is none of that name, or an option is unknown or of a wrong value.
pub fn estimator(text: &str) -> Result<Arc<dyn Estimator>, Error> {
    let spec: Spec = text.parse()?;
    let Some(entry) = ALL.iter().find(|entry| entry.name == spec.name) else {
        let names: Vec<_> = ALL.iter().map(|entry| entry.name).collect();
        return Err(unknown("estimator", &spec.name, &names));
    };
    let mut options = Options::of(&spec);
    let made = (entry.make)(&mut options)?;
    options.finish()?;
    Ok(made)
}

/// Checks that `slope` is the derivative of `soft`, at many points and through all of training.
///
/// # Panics
/// If it is not, or if a [`window`](Estimator::window) says otherwise than the slope; the message
/// names the point and both numbers.
#[track_caller]
pub fn check_estimator(estimator: &(impl Estimator + ?Sized)) {
    const H: f32 = 1e-3;
    // Offset, so that no point stands on a kink at a round number.
    let points: Vec<f32> = (-300..300).map(|i| i as f32 / 100.0 + 0.004_3).collect();
    for progress in [0.0, 0.25, 0.5, 0.75, 0.99] {
        let fitted = estimator.fit(&points, progress);
        let soft = |x| fitted.as_ref().map_or_else(|| estimator.soft(x), |e| e.soft(x));
        let slope = |x| fitted.as_ref().map_or_else(|| estimator.slope(x), |e| e.slope(x));
        let steepest = points.iter().map(|&x| slope(x).abs()).fold(0.0, f32::max);
        for &x in &points {
            let there = (soft(x + H) - soft(x - H)) / (2.0 * H);
            let error = (there - slope(x)).abs();
            assert!(
                error <= 5e-3 * steepest.max(1.0),
                "{}: at x = {x}, progress {progress}, soft rises by {there} but slope is {}",
                estimator.name(),
                slope(x)
            );
        }
        let window = fitted.as_ref().map_or_else(|| estimator.window(), |e| e.window());
        if let Some((limit, inside)) = window {
            for &x in &points {
                let expected = if x.abs() <= limit { inside } else { 0.0 };
                assert_eq!(slope(x), expected, "{}: window at x = {x}", estimator.name());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slope_is_the_derivative_of_its_curve() {
        for entry in ALL {
            check_estimator(&estimator(entry.name).unwrap());
        }
        check_estimator(&Tanh::steep(3.0));
    }

    #[test]
    fn known_values_hold() {
        // Spread out enough that the distribution-sensitive bound does not bind here.
        let elements: Vec<f32> = (0..1000).map(|i| i as f32 / 500.0 - 1.0).collect();
        for entry in ALL {
            let estimator = estimator(entry.name).unwrap();
            for &(progress, x, slope) in entry.known {
                let found = match estimator.fit(&elements, progress) {
                    Some(fitted) => fitted.slope(x),
                    None => estimator.slope(x),
                };
                assert!(
                    (found - slope).abs() <= 1e-4 * slope.max(1.0),
                    "{} at {x}, progress {progress}: {found}, expected {slope}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn names_are_their_own() {
        for entry in ALL {
            assert_eq!(estimator(entry.name).unwrap().name(), entry.name);
        }
    }

    #[test]
    fn unknown_names_and_options_are_refused_with_a_suggestion() {
        let message = estimator("stee").unwrap_err().to_string();
        assert!(message.contains("did you mean \"ste\"?"), "{message}");
        let message = estimator("ste(clop=1)").unwrap_err().to_string();
        assert!(message.contains("did you mean \"clip\"?"), "{message}");
        let message = estimator("dte(rule=c)").unwrap_err().to_string();
        assert!(message.contains("known: a, b"), "{message}");
    }

    #[test]
    #[should_panic(expected = "crooked: at x =")]
    fn a_slope_that_is_not_the_derivative_is_caught() {
        #[derive(Debug)]
        struct Crooked;
        impl Estimator for Crooked {
            fn name(&self) -> &str {
                "crooked"
            }
            fn soft(&self, x: f32) -> f32 {
                x.clamp(-1.0, 1.0)
            }
            fn slope(&self, x: f32) -> f32 {
                if x.abs() <= 1.0 { 1.1 } else { 0.0 }
            }
        }
        check_estimator(&Crooked);
    }
}
