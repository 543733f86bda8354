//! What estimators look like: their curves as training goes on, and how many elements of a tensor
//! they leave able to learn.

use crate::binarize::Elements;
use crate::error::unknown;
use crate::{Error, Estimator, Rng};
use serde::Serialize;

/// An estimator at one moment of training, over `x` from -2 to 2.
///
/// ```
/// use dirnet::{binarize::Ste, lab::Curve};
/// let curve = Curve::of(&Ste::default(), 0.0);
/// let at = curve.x.iter().position(|&x| x == 0.5).unwrap();
/// assert_eq!((curve.soft[at], curve.slope[at]), (0.5, 1.0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Its name.
    pub estimator: String,
    /// The moment, from 0 to 1.
    pub progress: f32,
    /// 201 numbers, evenly spaced, 0 among them.
    pub x: Vec<f32>,
    /// The soft curve there.
    pub soft: Vec<f32>,
    /// Its slope there.
    pub slope: Vec<f32>,
}

impl Curve {
    /// Of an estimator that, if it looks at the elements, is shown standard normal ones.
    pub fn of(estimator: &dyn Estimator, progress: f32) -> Self {
        let fitted = estimator.fit(&Elements::from(&DISTRIBUTIONS[0].elements()), progress);
        let curve = fitted.as_deref().unwrap_or(estimator);
        let x: Vec<f32> = grid().collect();
        Curve {
            estimator: estimator.name().to_string(),
            progress,
            soft: x.iter().map(|&x| curve.soft(x)).collect(),
            slope: x.iter().map(|&x| curve.slope(x)).collect(),
            x,
        }
    }
}

fn grid() -> impl Iterator<Item = f32> {
    (-100..=100).map(|i| i as f32 / 50.0)
}

/// The share of elements that can still learn at a moment of training: those where the slope of the
/// curve fitted to them is at least `rho` of the largest slope over [-2, 2].
///
/// That is when [`Bound::Relative`](crate::binarize::Bound::Relative) counts an element as updatable. The last
/// places of floats are forgiven, for the elements that decide a bound stand right on it.
///
/// ```
/// use dirnet::{binarize::Ste, lab::updatable};
/// assert_eq!(updatable(&Ste::default(), &[0.5, -0.9, 1.5, -3.0], 0.0, 0.1), 0.5);
/// ```
pub fn updatable(estimator: &dyn Estimator, x: &[f32], progress: f32, rho: f32) -> f64 {
    let fitted = estimator.fit(&Elements::from(x), progress);
    let curve = fitted.as_deref().unwrap_or(estimator);
    let peak = grid().map(|x| curve.slope(x)).fold(0.0, f32::max);
    let least = (rho * peak * (1.0 - 1e-4)).max(f32::MIN_POSITIVE);
    let count = x.iter().filter(|&&x| curve.slope(x) >= least).count();
    count as f64 / x.len().max(1) as f64
}

/// A shape that the numbers before a sign may have.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// As it is chosen.
    pub name: &'static str,
    /// One number of it.
    pub draw: fn(&mut Rng) -> f32,
}

/// The shapes that can be chosen by name.
///
/// - `normal`: of mean 0 and deviation 1.
/// - `laplace`: of mean 0 and deviation 1; more at zero and far from it.
/// - `bimodal`: ±1, plus normal noise of deviation 0.1: what weights tend to that have made up
///   their mind.
/// - `heavy-tailed`: Student's `t` with 2 degrees of freedom, whose deviation is infinite.
pub const DISTRIBUTIONS: [Distribution; 4] = [
    Distribution { name: "normal", draw: |rng| rng.normal() },
    Distribution {
        name: "laplace",
        draw: |rng| {
            // Of the size, a share 1 - exp(-√2·s) is below s.
            let sign = rng.sign();
            (f64::from(sign) * -between(rng).ln() / 2f64.sqrt()) as f32
        },
    },
    Distribution { name: "bimodal", draw: |rng| rng.sign() + 0.1 * rng.normal() },
    Distribution {
        name: "heavy-tailed",
        draw: |rng| {
            // A share p is below (2p - 1) / √(2p(1 - p)).
            let p = between(rng);
            ((2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt()) as f32
        },
    },
];

/// A number between 0 and 1, and neither.
fn between(rng: &mut Rng) -> f64 {
    f64::from(rng.uniform()) + 2f64.powi(-25)
}

impl Distribution {
    /// The one of a name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self, Error> {
        let names = DISTRIBUTIONS.map(|d| d.name);
        let found = DISTRIBUTIONS.into_iter().find(|d| d.name == name);
        found.ok_or_else(|| unknown("distribution", name, &names))
    }

    /// A tensor of it: 4,096 numbers, the same ones each time.
    pub fn elements(&self) -> Vec<f32> {
        let mut rng = Rng::keyed(0, self.name, &[]);
        (0..4096).map(|_| (self.draw)(&mut rng)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::estimator;

    /// At share `p` of the sizes, by the distributions' own formulas.
    #[test]
    fn distributions_have_their_quantiles() {
        let sizes = |name: &str| {
            let mut x = Distribution::named(name).unwrap().elements();
            x.iter_mut().for_each(|x| *x = x.abs());
            x.sort_by(f32::total_cmp);
            [x[409], x[2048], x[3686]]
        };
        for (name, expected) in [
            ("normal", [0.1257, 0.6745, 1.6449]),
            ("laplace", [0.0745, 0.4901, 1.6282]),
            ("bimodal", [0.8718, 1.0, 1.1282]),
            ("heavy-tailed", [0.1421, 0.8165, 2.9200]),
        ] {
            for (found, expected) in sizes(name).into_iter().zip(expected) {
                assert!((found / expected - 1.0).abs() < 0.1, "{name}: {found}, {expected}");
            }
        }
        for d in DISTRIBUTIONS {
            let above = d.elements().iter().filter(|&&x| x > 0.0).count();
            assert!(above.abs_diff(2048) < 130, "{}: {above}", d.name);
        }
        let message = Distribution::named("laplac").unwrap_err().to_string();
        assert!(message.contains("did you mean \"laplace\"?"), "{message}");
    }

    /// Of standard normal numbers `tanh(t·x)` leaves those within arccosh(√10)/t; the shares are
    /// those of the normal distribution within 1.8184/t.
    #[test]
    fn shares_are_those_of_the_normal_distribution() {
        let x = DISTRIBUTIONS[0].elements();
        for (t, share) in [(1.0, 0.931), (2.0, 0.637), (5.0, 0.284), (10.0, 0.144)] {
            let fixed = estimator(&format!("ede(t_min={t},t_max={t})")).unwrap();
            let found = updatable(&*fixed, &x, 0.5, 0.1);
            assert!((found - share).abs() < 0.025, "t = {t}: {found}, expected {share}");
        }
    }

    /// A slope that is nowhere above zero lets nothing learn, and nothing at all has no share.
    #[test]
    fn nothing_learns_from_no_slope() {
        #[derive(Debug)]
        struct Flat;
        impl Estimator for Flat {
            fn name(&self) -> &str {
                "flat"
            }
            fn soft(&self, _: f32) -> f32 {
                1.0
            }
            fn slope(&self, _: f32) -> f32 {
                0.0
            }
        }
        assert_eq!(updatable(&Flat, &[0.0, 1.0], 0.0, 0.1), 0.0);
        assert_eq!(updatable(&Flat, &[], 0.0, 0.1), 0.0);
    }

    /// The curves are those that training would use: slopes are the rise of the soft curve.
    #[test]
    fn curves_follow_the_schedule() {
        for entry in estimator::all() {
            let made = estimator(entry.name).unwrap();
            for progress in [0.0, 0.5, 1.0] {
                let curve = Curve::of(&*made, progress);
                assert_eq!((curve.estimator.as_str(), curve.x.len()), (entry.name, 201));
                assert_eq!((curve.x[0], curve.x[100], curve.x[200]), (-2.0, 0.0, 2.0));
                let rise = curve.soft[200] - curve.soft[0];
                let sum: f32 = curve.slope.iter().sum::<f32>() * 0.02;
                assert!((rise - sum).abs() < 0.03 * (1.0 + rise), "{}: {rise}, {sum}", entry.name);
            }
        }
        let peak = |progress| Curve::of(&*estimator("ede").unwrap(), progress).slope[100];
        assert!((peak(0.0) - 1.0).abs() < 1e-6 && (peak(1.0) - 10.0).abs() < 1e-4);
    }
}
