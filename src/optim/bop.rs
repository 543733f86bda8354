//! Optimisers that flip bits.

use super::adam::AdamRule;
use super::{Adam, Moment, Optimizer, Rule, Schedule};
use crate::{Role, Tensor};
use dirnet_kernels::bits::sign;

/// Bop, the binary optimiser (Helwegen et al., 2019, arXiv 1906.02107): there are no latent weights,
/// only bits, and a running mean of the gradient that says when to flip one.
///
/// ```text
/// m ← (1 - γ) · m + γ · dw
/// w ← -w  where  w · m > τ,  else w                 w is +1 or -1
/// ```
///
/// Parameters behind a sign ([`Role::Latent`]) are bits to it: [`Optimize::begin`](super::Optimize::begin)
/// makes them ±1 by their signs. All others move by [`Adam`], to which learning rate and decay belong.
/// `γ` is how fast the mean forgets, and has a schedule of its own; it takes the place of the learning
/// rate. `τ` keeps a bit from flipping back and forth.
///
/// The second-order form (Suarez-Ramirez et al., 2021, arXiv 2104.05124) weighs the mean by the size
/// that gradients have there:
///
/// ```text
/// v ← (1 - σ) · v + σ · dw²
/// w ← -w  where  w · m / (√v + 1e-10) > τ
/// unbiased:      m / (1 - (1 - γ)ⁿ) for m,  v / (1 - (1 - σ)ⁿ) for v,  at step n
/// ```
///
/// The small number is that of its authors' code (CuauSuarez/Bop2ndOrder).
///
/// ```
/// use dirnet::{Params, Role, Tape, Tensor, optim::Bop};
/// let mut params = Params::new();
/// let w = params.add("w", Role::Latent, Tensor::from([0.3, -0.2]));
/// let mut bop = Bop::new(0.01).gamma(0.1).threshold(0.05);
/// bop.begin(&mut params);
/// assert_eq!(&*params[w].value, [1.0, -1.0]);
/// let tape = Tape::train(&params);
/// let grads = tape.param(w).sum().backward();      // a gradient of 1 for both
/// bop.step(&mut params, &grads);
/// assert_eq!(&*params[w].value, [-1.0, -1.0]);     // only the first was in its way
/// ```
pub type Bop = Optimizer<BopRule>;

/// The rule of [`Bop`].
#[derive(Clone, Debug)]
pub struct BopRule {
    gamma: f32,
    threshold: f32,
    schedule: Schedule,
    second: Option<Second>,
    others: AdamRule,
}

#[derive(Clone, Copy, Debug)]
struct Second {
    sigma: f32,
    unbiased: bool,
}

impl Bop {
    /// With `γ = 1e-4` and `τ = 1e-8`, as in Larq, and this learning rate for what is no bit.
    pub fn new(lr: f32) -> Self {
        let rule = BopRule {
            gamma: 1e-4,
            threshold: 1e-8,
            schedule: Schedule::constant(),
            second: None,
            others: Adam::new(lr).rule,
        };
        Optimizer::with_rule(rule, lr)
    }
    /// How fast the running mean forgets: `γ`.
    pub fn gamma(mut self, gamma: f32) -> Self {
        self.rule.gamma = gamma;
        self
    }
    /// How strong the mean must be to flip a bit: `τ`.
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.rule.threshold = threshold;
        self
    }
    /// How `γ` changes in the course of training.
    pub fn gamma_schedule(mut self, schedule: Schedule) -> Self {
        self.rule.schedule = schedule;
        self
    }
    /// The second-order form, whose mean of squares forgets as fast as `σ` says.
    pub fn second_order(mut self, sigma: f32, unbiased: bool) -> Self {
        self.rule.second = Some(Second { sigma, unbiased });
        self
    }
}

impl Rule for BopRule {
    fn states(&self, role: Role) -> &'static [&'static str] {
        match (role, self.second) {
            (Role::Latent, None) => &["mean"],
            (Role::Latent, Some(_)) => &["mean", "square"],
            _ => self.others.states(role),
        }
    }

    fn start(&self, role: Role, w: &mut [f32]) {
        if role == Role::Latent {
            w.iter_mut().for_each(|w| *w = sign(*w));
        }
    }

    fn update(&self, at: Moment, w: &mut [f32], dw: &[f32], state: &mut [Tensor]) {
        if at.role != Role::Latent {
            return self.others.update(at, w, dw, state);
        }
        let gamma = self.gamma * self.schedule.factor(at.progress);
        let unbias = |rate: f32| (1.0 - (1.0 - f64::from(rate)).powi(at.step as i32)) as f32;
        let forget = |mean: &mut f32, rate: f32, x: f32| *mean = (1.0 - rate) * *mean + rate * x;
        match (state, self.second) {
            ([mean], None) => {
                for ((w, &dw), m) in w.iter_mut().zip(dw).zip(mean.data_mut()) {
                    forget(m, gamma, dw);
                    flip(w, *m, self.threshold);
                }
            }
            ([mean, square], Some(Second { sigma, unbiased })) => {
                let (by, root) = match unbiased {
                    true => (unbias(gamma), unbias(sigma).sqrt()),
                    false => (1.0, 1.0),
                };
                let moments = mean.data_mut().iter_mut().zip(square.data_mut());
                for ((w, &dw), (m, v)) in w.iter_mut().zip(dw).zip(moments) {
                    forget(m, gamma, dw);
                    forget(v, sigma, dw * dw);
                    flip(w, *m / by / (v.sqrt() / root + 1e-10), self.threshold);
                }
            }
            _ => unreachable!("as many tensors as states"),
        }
    }
}

fn flip(w: &mut f32, signal: f32, threshold: f32) {
    if *w * signal > threshold {
        *w = -*w;
    }
}
