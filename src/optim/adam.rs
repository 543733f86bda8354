//! Adam, and Adam with decoupled weight decay.

use super::{Moment, Optimizer, Rule};
use crate::{Role, Tensor};

/// Adam (Kingma and Ba, 2014, arXiv 1412.6980), as in PyTorch.
///
/// ```text
/// g = dw + decay · w                    AdamW: g = dw,  w ← w - lr · decay · w first
/// m ← β1 · m + (1 - β1) · g
/// v ← β2 · v + (1 - β2) · g²
/// w ← w - lr · m / (1 - β1ⁿ) / (√(v / (1 - β2ⁿ)) + eps)
/// ```
pub type Adam = Optimizer<AdamRule>;

/// The rule of [`Adam`].
#[derive(Clone, Copy, Debug)]
pub struct AdamRule {
    betas: [f32; 2],
    eps: f32,
    decoupled: bool,
}

impl Adam {
    /// With this learning rate, betas 0.9 and 0.999, eps 1e-8 and no decay.
    pub fn new(lr: f32) -> Self {
        Optimizer::with_rule(AdamRule { betas: [0.9, 0.999], eps: 1e-8, decoupled: false }, lr)
    }
    /// AdamW: the decay acts on the weights themselves, not through the gradient (Loshchilov and
    /// Hutter, 2017, arXiv 1711.05101).
    pub fn decoupled(mut self) -> Self {
        self.rule.decoupled = true;
        self
    }
    /// How slowly the two running means forget.
    pub fn betas(mut self, first: f32, second: f32) -> Self {
        self.rule.betas = [first, second];
        self
    }
    /// What keeps the division away from zero.
    pub fn eps(mut self, eps: f32) -> Self {
        self.rule.eps = eps;
        self
    }
}

impl Rule for AdamRule {
    fn states(&self, _: Role) -> &'static [&'static str] {
        &["mean", "square"]
    }

    fn update(&self, at: Moment, w: &mut [f32], dw: &[f32], state: &mut [Tensor]) {
        let AdamRule { betas: [b1, b2], eps, decoupled } = *self;
        let unbias = |beta: f32| (1.0 - f64::from(beta).powi(at.step as i32)) as f32;
        let (step, root) = (at.lr / unbias(b1), unbias(b2).sqrt());
        let (through, direct) = if decoupled { (0.0, at.decay) } else { (at.decay, 0.0) };
        let [mean, square] = state else { unreachable!("two tensors a parameter") };
        let moments = mean.data_mut().iter_mut().zip(square.data_mut());
        for ((w, dw), (m, v)) in w.iter_mut().zip(dw).zip(moments) {
            let g = dw + through * *w;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *w -= at.lr * direct * *w;
            *w -= step * *m / (v.sqrt() / root + eps);
        }
    }
}
