//! The distribution-sensitive two-stage estimator: steepening with a floor under what can still
//! learn.

use super::estimator::{Elements, Entry, Estimator, Steepening, Tanh};
use std::sync::Arc;

/// When an element counts as one that can still be updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Its slope is at least this number ("rule A").
    Absolute(f32),
    /// Its slope is at least this share of the slope at zero ("rule B").
    Relative(f32),
}

/// The distribution-sensitive two-stage estimator: steepens like [`Ede`](super::Ede), but for each
/// tensor only as far as a share `eps` of its elements can still learn.
///
/// ```text
/// soft    k · tanh(t·x),  k = max(1/t, 1),  t = min(t_i, t_eps)
/// slope   k · t · (1 - tanh²(t·x))              start ‾‾‾‾‾‾‾    end ___.-'-.___
/// ```
///
/// `t_i` grows from `t_min` to `t_max` by [`Steepening`]: stage one (`t` < 1) keeps the slope at
/// zero at 1 and narrows the curve, stage two narrows and steepens it. `t_eps` is the steepest
/// curve at which at least a share `eps` of the elements has a slope that counts, by [`Bound`].
/// With the quantile `q` of `|x|` at `eps`:
///
/// - relative, slope ≥ rho · slope(0):  `t_eps = arccosh(1/√rho) / q`;
/// - absolute, slope ≥ tau:  the largest `t` with `arccosh(√(k·t/tau)) / t ≥ q`. Where no `t`
///   satisfies it (`tau` = 1 and `q` > 0.4477), the `t` that reaches furthest (1.724 for `tau` = 1).
///
/// So by the relative rule a share `eps` can learn at any moment; by the absolute one from
/// `t` = 1.724·tau on (below 1.724·tau the slope of hardly any element reaches `tau`), unless no `t`
/// satisfies it.
///
/// The quantile is taken of the elements that [`fit`](Estimator::fit) is shown, of which the rule holds
/// exactly. Of a large tensor those are `n` = 2,700 to 8,200, and of the whole it holds with a
/// standard error of `√(eps·(1-eps)/n)`: at most 0.006 for `eps` = 0.1. With `scope=channel` each channel has a
/// curve of its own (output channels of weights, axis 1 of activations) from at least 1,024 of its
/// elements, if it has them: 0.009. If the quantile is zero (a share `eps` of the elements is), nothing
/// bounds `t`, since the slope at zero is the largest there is.
///
/// | x             |  -1.5 |  -0.3 | 0 |   0.3 |   1.5 |
/// | ------------- | ----- | ----- | - | ----- | ----- |
/// | slope, start  | 0.978 | 0.999 | 1 | 0.999 | 0.978 |
/// | slope, halfway| 0.181 | 0.915 | 1 | 0.915 | 0.181 |
///
/// Qin et al., 2022 (DIR-Net), arXiv 2109.12338. The bound in this form is this project's reading of
/// the paper; every choice in it is a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dte {
    /// The schedule of `t_i`.
    pub steepening: Steepening,
    /// The share of elements that must stay updatable.
    pub eps: f32,
    /// Which elements count as updatable.
    pub bound: Bound,
    /// Whether each channel has a curve of its own.
    pub by_channel: bool,
}

impl Default for Dte {
    fn default() -> Self {
        Dte {
            steepening: Steepening::default(),
            eps: 0.1,
            bound: Bound::Relative(0.1),
            by_channel: false,
        }
    }
}

impl Dte {
    /// The steepest curve that leaves a share `eps` of these elements updatable; infinite if
    /// nothing bounds it.
    pub fn steepest(&self, x: &[f32]) -> f32 {
        let q = quantile_of_size(x, self.eps);
        if q <= f32::MIN_POSITIVE {
            return f32::INFINITY;
        }
        match self.bound {
            Bound::Relative(rho) => (1.0 / rho.sqrt()).acosh() / q,
            Bound::Absolute(tau) => steepest_absolute(q, tau),
        }
    }
}

impl Estimator for Dte {
    fn name(&self) -> &str {
        "dte"
    }
    fn soft(&self, x: f32) -> f32 {
        Tanh::steep(self.steepening.t_min).soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        Tanh::steep(self.steepening.t_min).slope(x)
    }
    fn fit(&self, x: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        // An infinite quantile leaves no steepness at all, and 1/0 is no half range.
        let t = self.steepening.at(progress).min(self.steepest(x)).max(f32::MIN_POSITIVE);
        Some(Arc::new(Tanh::steep(t)))
    }
    fn by_channel(&self) -> bool {
        self.by_channel
    }
}

/// The size that a share `eps` of the elements does not exceed.
fn quantile_of_size(x: &[f32], eps: f32) -> f32 {
    let mut sizes: Vec<f32> = x.iter().map(|x| x.abs()).collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let rank = ((sizes.len() as f32 * eps).ceil() as usize).clamp(1, sizes.len()) - 1;
    *sizes.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// The largest `t` at which the slope `k·t·sech²(t·x)` is still at least `tau` at `x = q`.
fn steepest_absolute(q: f32, tau: f32) -> f32 {
    let (q, tau) = (f64::from(q), f64::from(tau));
    let half_width = |t: f64| {
        let peak = t.max(1.0); // k·t
        if peak < tau { 0.0 } else { (peak / tau).sqrt().acosh() / t }
    };
    // For t ≥ 1, arccosh(√s)/s with s = t/tau has its one maximum at s = 1.7235.
    let top = (1.723_538 * tau).max(1.0);
    if half_width(top) < q {
        // Below t = 1 the peak is 1 and the half-width falls like 1/t.
        return if tau < 1.0 { ((1.0 / tau).sqrt().acosh() / q) as f32 } else { top as f32 };
    }
    let (mut low, mut high) = (top, 2.0 * top);
    while half_width(high) >= q {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if half_width(middle) >= q { low = middle } else { high = middle }
    }
    low as f32
}

/// The estimator of this file.
pub(super) const ENTRIES: &[Entry] = &[Entry {
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
            by_channel: options.word("scope", false, &[("tensor", false), ("channel", true)])?,
        }))
    },
    known: &[(0.0, 0.0, 1.0), (0.0, 1.5, 0.977_83), (0.5, 0.3, 0.915_137)],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, Tensor};

    /// Shapes of what stands before a sign: name and draws.
    fn distributions() -> Vec<(&'static str, Vec<f32>)> {
        let mut rng = Rng::seed(3);
        let mut draw = |f: &dyn Fn(&mut Rng) -> f32| (0..20_000).map(|_| f(&mut rng)).collect();
        let two_sided = |rng: &mut Rng, size: f32| if rng.uniform() < 0.5 { -size } else { size };
        vec![
            ("normal", draw(&|rng| rng.normal())),
            (
                "Laplace",
                draw(&|rng| {
                    let size = -(1.0 - rng.uniform()).ln() / 2f32.sqrt();
                    two_sided(rng, size)
                }),
            ),
            (
                "bimodal",
                draw(&|rng| {
                    let size = 1.0 + 0.1 * rng.normal();
                    two_sided(rng, size)
                }),
            ),
            ("Cauchy", draw(&|rng| (std::f32::consts::PI * (rng.uniform() - 0.5)).tan())),
        ]
    }

    /// The share of elements whose slope counts, but for the last place of floats.
    fn updatable(curve: &dyn Estimator, bound: Bound, x: &[f32]) -> f64 {
        let least = match bound {
            Bound::Absolute(tau) => tau,
            Bound::Relative(rho) => rho * curve.slope(0.0),
        };
        let count = x.iter().filter(|&&x| curve.slope(x) >= least * (1.0 - 1e-4)).count();
        count as f64 / x.len() as f64
    }

    const EPS: [f32; 3] = [0.05, 0.1, 0.3];

    #[test]
    fn a_share_of_eps_of_the_fitted_elements_can_always_learn() {
        for (name, x) in distributions() {
            for eps in EPS {
                for rho in [0.02, 0.1, 0.5] {
                    let dte = Dte { eps, bound: Bound::Relative(rho), ..Dte::default() };
                    for step in 0..=20 {
                        let curve = dte.fit(&Elements::from(&x), step as f32 / 20.0).unwrap();
                        let share = updatable(&*curve, dte.bound, &x);
                        let least = (f64::from(eps) * x.len() as f64 - 1e-3) / x.len() as f64;
                        assert!(share >= least, "{name}, eps {eps}, step {step}: {share}");
                    }
                }
            }
        }
    }

    #[test]
    fn by_rule_a_it_can_wherever_there_is_a_solution() {
        let mut solved = 0;
        for (name, x) in distributions() {
            for (eps, tau) in EPS.into_iter().flat_map(|eps| [(eps, 1.0), (eps, 0.7)]) {
                let dte = Dte { eps, bound: Bound::Absolute(tau), ..Dte::default() };
                // Of tau = 1 the widest reach is 0.4477.
                // Below 1 a curve wide enough is always found.
                let solvable = tau < 1.0 || quantile_of_size(&x, eps) <= 0.4477;
                for step in 0..=20 {
                    let progress = step as f32 / 20.0;
                    let curve = dte.fit(&Elements::from(&x), progress).unwrap();
                    let late = dte.steepening.at(progress) >= 1.724 * tau;
                    if late && solvable {
                        let share = updatable(&*curve, dte.bound, &x);
                        assert!(share >= f64::from(eps) - 1e-7, "{name}, {dte:?}: {share}");
                        solved += 1;
                    } else if late {
                        let widest = Tanh::steep(1.723_538 * tau);
                        assert_eq!(curve.slope(0.3), widest.slope(0.3), "{name}, {dte:?}");
                    }
                }
            }
        }
        assert!(solved > 50, "{solved}");
    }

    #[test]
    fn of_a_large_tensor_it_holds_within_the_error_of_the_sample() {
        let dte = Dte::default();
        for (name, x) in distributions() {
            let x = Tensor::new([x.len()], x);
            let sample = x.sample();
            assert!((2700..x.len() / 3).contains(&sample.len()), "{}", sample.len());
            let error = (0.1 * 0.9 / sample.len() as f64).sqrt();
            for step in 0..=20 {
                let curve = dte.fit(&Elements::from(&sample), step as f32 / 20.0).unwrap();
                let share = updatable(&*curve, dte.bound, &x);
                assert!(share >= 0.1 - 4.0 * error, "{name}, step {step}: {share}");
            }
        }
    }

    #[test]
    fn without_the_bound_some_tensors_starve() {
        let ede = super::super::Ede::default();
        let starved = distributions().into_iter().any(|(_, x)| {
            let curve = ede.fit(&Elements::from(&x), 1.0).unwrap();
            updatable(&*curve, Bound::Relative(0.1), &x) < 0.1
        });
        assert!(starved);
    }

    #[test]
    fn the_bound_agrees_with_its_formulas_for_a_normal_tensor() {
        let (_, x) = distributions().swap_remove(0);
        // eps, rule A (tau 1), rule A (tau 0.1), rule B (rho 0.1), for exact quantiles.
        for (eps, a, a_low, b) in
            [(0.1, 16.6, 27.9, 14.5), (0.2, 6.15, 12.2, 7.18), (0.3, 2.95, 7.37, 4.72)]
        {
            for (bound, expected) in [
                (Bound::Absolute(1.0), a),
                (Bound::Absolute(0.1), a_low),
                (Bound::Relative(0.1), b),
            ] {
                let t = Dte { eps, bound, ..Dte::default() }.steepest(&x);
                assert!((t / expected - 1.0).abs() < 0.1, "{bound:?} eps {eps}: {t}, {expected}");
            }
        }
    }

    #[test]
    fn where_no_steepness_satisfies_rule_a_the_widest_is_taken() {
        let x = [1.0, -1.0, 1.0, -1.0];
        let dte = Dte { bound: Bound::Absolute(1.0), ..Dte::default() };
        assert!((dte.steepest(&x) - 1.724).abs() < 1e-3);
        let low = Dte { bound: Bound::Absolute(0.3), ..Dte::default() };
        let curve = Tanh::steep(low.steepest(&x));
        assert!((curve.slope(1.0) - 0.3).abs() < 1e-3, "{curve:?}");
    }

    #[test]
    fn zeros_and_nothing_at_all_do_not_bound() {
        assert_eq!(Dte::default().steepest(&[0.0; 100]), f32::INFINITY);
        assert_eq!(Dte::default().steepest(&[]), f32::INFINITY);
        assert_eq!(Dte::default().fit(&Elements::from(&[0.0; 100]), 1.0).unwrap().slope(0.0), 10.0);
        // Mostly large, but a tenth of them zero: those have the whole slope.
        let x: Vec<f32> = (0..100).map(|i| if i < 10 { 0.0 } else { 5.0 }).collect();
        assert_eq!(Dte::default().steepest(&x), f32::INFINITY);
        let infinite = Dte::default().fit(&Elements::from(&[f32::INFINITY; 4]), 1.0).unwrap();
        assert_eq!(infinite.slope(1e30), 1.0);
    }
}
