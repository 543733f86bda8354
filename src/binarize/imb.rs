//! Weights centred and standardised before their sign, so that the signs carry as much information
//! as they can (information maximized binarization, IMB), and signs with a scale in floats.

use super::Estimator;
use crate::{Tensor, Var};
use dirnet_kernels::norm;
use std::sync::Arc;

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
    ///
    /// Half of the signs are then +1, where the entropy of a bit is largest (Qin et al., 2020,
    /// IR-Net, arXiv 1909.10788; Qin et al., 2022, DIR-Net, arXiv 2109.12338).
    pub fn standardize(&self) -> Var<'t> {
        let w = self.value();
        let o = w.shape()[0];
        let n = w.len() / o.max(1);
        if n <= 1 {
            return self.clone();
        }
        let mut inv_std = Tensor::zeros([o]);
        let y =
            Tensor::build(w.shape(), |y| norm::standardize_rows(o, n, w, y, inv_std.data_mut()));
        let saved = y.clone();
        self.tape().record("standardize", y, [self], move |dy, _| {
            [Some(Tensor::build(dy.shape(), |dw| {
                norm::standardize_rows_dx(o, n, &saved, &inv_std, &dy, dw);
            }))]
        })
    }

    /// Prepared `O …` weights as signs with a scale for each output channel, in floats:
    /// `scale · sign(y)`.
    pub fn binarize_weights(&self, scale: &Var<'t>, estimator: &Arc<dyn Estimator>) -> Var<'t> {
        let o = self.shape()[0];
        let signs = self.binarize_along(0, estimator).reshape([1, o, self.value().len() / o]);
        signs.mul_channels(scale).reshape(self.shape())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::Scale;
    use crate::binarize::estimator::estimator;
    use crate::{Params, Tape, gradcheck};

    fn imb<'t>(w: &Var<'t>, e: &str) -> Var<'t> {
        let y = w.standardize();
        y.binarize_weights(&Scale::Shift.of(w, &y), &estimator(e).unwrap())
    }

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
        assert_eq!(&**imb(&w, "ede").value(), [-1.0, -1.0, 1.0, 1.0]);
    }

    #[test]
    fn constant_and_single_weights_stay_finite() {
        for w in [Tensor::full([2, 3], 0.7), Tensor::new([2, 1], vec![0.0, -3.0])] {
            let params = Params::new();
            let tape = Tape::train(&params);
            let w = tape.variable(w);
            let y = imb(&w, "ede");
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
        let x = tape.variable(Tensor::new([1, 5], w.to_vec()));
        let y = imb(&x, "ste");
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
