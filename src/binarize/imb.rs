//! Weights on their way to a sign: centred and standardised first, so that the signs carry as much
//! information as they can (information maximized binarization, IMB).

use super::sign::Slope;
use super::{Estimator, Scale};
use crate::{Tensor, Var};
use dirnet_kernels::norm;
use std::sync::Arc;

/// How latent, real-valued weights become signs and a scale.
///
/// ```text
/// y   = (w - mean(w)) / std(w)    each output channel for itself, where `balance` says so
/// Q_w = scale(y) · sign(y)
/// ```
///
/// The way back goes through the estimator at `y` and through mean and standard deviation; only the
/// scale is a constant to it. Half of the signs are then +1, where the entropy of a bit is largest.
///
/// Qin et al., 2020 (IR-Net), arXiv 1909.10788; Qin et al., 2022 (DIR-Net), arXiv 2109.12338.
#[derive(Clone, Debug)]
pub struct WeightRule {
    /// Centre and standardise first: IMB.
    pub balance: bool,
    /// What multiplies the signs.
    pub scale: Scale,
    /// What stands in for the derivative of the sign.
    pub estimator: Arc<dyn Estimator>,
}

impl<'t> Var<'t> {
    /// Each output channel of `O …` weights, less its mean, over its standard deviation (unbiased:
    /// the sum of squares is divided by `n - 1`).
    ///
    /// ```text
    /// forward    y = (w - mean) / std
    /// backward   dw = (dy - mean(dy) - y · Σ dy·y / (n-1)) / std
    /// ```
    ///
    /// A channel whose weights are all the same has no standard deviation: it becomes zeros, and
    /// gets no gradient. Of a single weight a channel (a 1x1 depthwise filter) there is nothing to
    /// standardise: it stays as it is.
    pub fn standardize(&self) -> Var<'t> {
        let ready = Ready::standardized(self.value());
        let y = ready.y.clone();
        self.tape().record("standardize", y, [self], move |dy, _| [Some(ready.backward(dy))])
    }

    /// Latent weights as a rule makes signs of them, written out in floats: `scale · sign(y)`.
    pub fn binarize_weights(&self, rule: &WeightRule) -> Var<'t> {
        let y = if rule.balance { self.standardize() } else { self.clone() };
        let o = self.shape()[0];
        let scale = self.tape().constant(rule.scale.of(y.value()));
        let signs = y.binarize(&rule.estimator).reshape([1, o, self.value().len() / o]);
        signs.mul_channels(&scale).reshape(self.shape())
    }
}

/// Latent weights whose signs a layer uses, and the way back to them. It holds the weights
/// themselves, shared with the table they come from: what follows from them is computed anew on the
/// way back, which is cheap for weights.
pub(super) struct Latent {
    w: Tensor,
    rule: WeightRule,
    progress: f32,
}

impl Latent {
    pub(super) fn of(w: &Var<'_>, rule: &WeightRule) -> Self {
        Latent { w: w.value().clone(), rule: rule.clone(), progress: w.tape().progress() }
    }

    /// What the signs are taken of, and the scale of each output channel.
    pub(super) fn ready(&self) -> (Tensor, Tensor) {
        let y = Ready::of(&self.rule, &self.w).y;
        let scale = self.rule.scale.of(&y);
        (y, scale)
    }

    /// From the gradient of the signs to that of the weights.
    pub(super) fn backward(&self, dsigns: Tensor) -> Tensor {
        let ready = Ready::of(&self.rule, &self.w);
        let slope = Slope::at(&self.rule.estimator, &ready.y, self.progress);
        ready.backward(slope.times(dsigns))
    }
}

/// Weights ready for their sign, and the way back from there.
struct Ready {
    y: Tensor,
    /// One a channel; none if nothing was standardised.
    inv_std: Option<Tensor>,
}

impl Ready {
    fn of(rule: &WeightRule, w: &Tensor) -> Self {
        match rule.balance {
            true => Ready::standardized(w),
            false => Ready { y: w.clone(), inv_std: None },
        }
    }

    fn standardized(w: &Tensor) -> Self {
        let o = w.shape()[0];
        let n = w.len() / o.max(1);
        if n <= 1 {
            return Ready { y: w.clone(), inv_std: None };
        }
        let mut inv_std = Tensor::zeros([o]);
        let y = Tensor::build(w.shape(), |y| {
            norm::standardize_rows(o, n, w, y, inv_std.data_mut());
        });
        Ready { y, inv_std: Some(inv_std) }
    }

    /// From the gradient of `y` to that of the weights.
    fn backward(&self, dy: Tensor) -> Tensor {
        let Some(inv_std) = &self.inv_std else { return dy };
        let o = inv_std.len();
        Tensor::build(dy.shape(), |dw| {
            norm::standardize_rows_dx(o, dy.len() / o, &self.y, inv_std, &dy, dw);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::estimator::estimator;
    use crate::{Params, Tape, gradcheck};

    #[test]
    fn standardize() {
        gradcheck([&[3, 2, 2, 2]], |[w]| w.standardize());
        gradcheck([&[4, 1, 1, 1]], |[w]| w.standardize());
    }

    #[test]
    fn half_of_the_signs_are_positive_and_scales_are_powers_of_two() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        // A channel far off centre: its plain signs would all be +1.
        let w = tape.constant(Tensor::new([1, 4], vec![5.0, 6.0, 7.0, 8.0]));
        let e = estimator("ede").unwrap();
        let rule = WeightRule { balance: true, scale: Scale::Shift, estimator: e };
        assert_eq!(&**w.binarize_weights(&rule).value(), [-1.0, -1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_constant_filter_and_a_single_weight_give_no_nan() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let e = estimator("ede").unwrap();
        let rule = WeightRule { balance: true, scale: Scale::Shift, estimator: e };
        for w in [Tensor::full([2, 9], 0.3), Tensor::new([2, 1], vec![-0.3, 0.3])] {
            let tape = Tape::train(tape.params());
            let w = tape.variable(w);
            let y = w.binarize_weights(&rule);
            assert!(y.value().iter().all(|y| y.is_finite()), "{y:?}");
            let grads = y.sum().backward();
            assert!(grads.wrt(&w).unwrap().iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn the_way_back_follows_the_closed_form() {
        // dL/dw_i = (G_i - mean(G) - y_i Σ_j G_j y_j / (n-1)) / std, with G = dL/dQ · 2^s · slope(y).
        let params = Params::new();
        let tape = Tape::train(&params);
        let w = [0.3f32, -0.7, 1.1, 0.2, -0.4];
        let dq = [1.0f32, -2.0, 0.5, 3.0, 1.5];
        let ste = estimator("ste").unwrap();
        let rule = WeightRule { balance: true, scale: Scale::Shift, estimator: ste };
        let x = tape.variable(Tensor::new([1, 5], w.to_vec()));
        let y = x.binarize_weights(&rule);
        let grads = (y * tape.constant(Tensor::new([1, 5], dq.to_vec()))).sum().backward();

        let n = w.len() as f32;
        let mean = w.iter().sum::<f32>() / n;
        let std = (w.iter().map(|w| (w - mean).powi(2)).sum::<f32>() / (n - 1.0)).sqrt();
        let y: Vec<f32> = w.iter().map(|w| (w - mean) / std).collect();
        let s = (y.iter().map(|y| y.abs()).sum::<f32>() / n).log2().round().exp2();
        let g: Vec<f32> =
            y.iter().zip(dq).map(|(y, dq)| if y.abs() <= 1.0 { dq * s } else { 0.0 }).collect();
        let g_mean = g.iter().sum::<f32>() / n;
        let gy: f32 = g.iter().zip(&y).map(|(g, y)| g * y).sum();
        for ((g, y), found) in g.iter().zip(&y).zip(grads.wrt(&x).unwrap().iter()) {
            let expected = (g - g_mean - y * gy / (n - 1.0)) / std;
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
