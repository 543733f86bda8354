//! Stochastic gradient descent.

use super::{Moment, Optimizer, Rule};
use crate::{Role, Tensor};

/// Stochastic gradient descent with momentum, as in PyTorch.
///
/// ```text
/// g = dw + decay · w
/// v ← momentum · v + g
/// w ← w - lr · v                       Nesterov: w - lr · (g + momentum · v)
/// ```
pub type Sgd = Optimizer<SgdRule>;

/// The rule of [`Sgd`].
#[derive(Clone, Copy, Debug)]
pub struct SgdRule {
    momentum: f32,
    nesterov: bool,
}

impl Sgd {
    /// With this learning rate, no momentum and no decay.
    pub fn new(lr: f32) -> Self {
        Optimizer::with_rule(SgdRule { momentum: 0.0, nesterov: false }, lr)
    }
    /// The share of the velocity that stays from step to step.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.rule.momentum = momentum;
        self
    }
    /// Looks one step of momentum ahead (Sutskever et al., 2013).
    pub fn nesterov(mut self) -> Self {
        self.rule.nesterov = true;
        self
    }
}

impl Rule for SgdRule {
    fn states(&self, _: Role) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["velocity"] }
    }

    fn update(&self, at: Moment, w: &mut [f32], dw: &[f32], state: &mut [Tensor]) {
        let SgdRule { momentum, nesterov } = *self;
        let Some(velocity) = state.first_mut() else {
            for (w, dw) in w.iter_mut().zip(dw) {
                *w -= at.lr * (dw + at.decay * *w);
            }
            return;
        };
        for ((w, dw), v) in w.iter_mut().zip(dw).zip(velocity.data_mut()) {
            let g = dw + at.decay * *w;
            *v = momentum * *v + g;
            *w -= at.lr * if nesterov { g + momentum * *v } else { *v };
        }
    }
}
