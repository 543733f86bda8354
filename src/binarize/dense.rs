//! Binary dense layer: the fast twin of `x.binarize(&e).linear(&w.binarize_weights(&rule))`.

use super::imb::Latent;
use super::sign::Slope;
use super::{Estimator, WeightRule};
use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_kernels::bits::{self, Rows};
use dirnet_kernels::elementwise::scale_channels;
use std::sync::Arc;

impl<'t> Var<'t> {
    /// The product of the signs of `N IN` rows with the signs of latent `OUT IN` weights, computed
    /// from the bits: an exact integer, times a scale for each output.
    ///
    /// ```text
    /// forward    z = sign(x) · sign(y)ᵀ,  out = scale(y) · z,   y = weights made ready by the rule
    /// backward   dz = scale · dout,  dx = slope(x) · (dz · sign(y)),
    ///            dw = rule's way back of slope(y) · (dzᵀ · sign(x))
    /// ```
    ///
    /// # Panics
    /// If either is no matrix, or the inner sizes differ.
    #[track_caller]
    pub fn bin_linear(
        &self,
        w: &Var<'t>,
        rule: &WeightRule,
        estimator: &Arc<dyn Estimator>,
    ) -> Var<'t> {
        let (&[n, k], &[o, inner]) = (self.shape(), w.shape()) else {
            panic!("bin_linear: not two matrices: {:?} x {:?}", self.shape(), w.shape())
        };
        assert_eq!(k, inner, "bin_linear: inner sizes differ: [{n}, {k}] x [{o}, {inner}]");
        let latent = Latent::of(w, rule);
        let (ready, scale) = latent.ready();
        let (x, signs) = (Rows::pack(n, k, self.value()), Rows::pack(o, k, &ready));
        let scaled = move |z: Tensor, scale: &Tensor| {
            Tensor::build([n, o], |y| scale_channels(n, o, 1, &z, scale, y))
        };
        let z = Tensor::build([n, o], |z| bits::dense(n, k, o, &x, &signs, z));
        let y = scaled(z, &scale);

        let slope = Slope::save(estimator, self);
        let (x, signs) = (Held::by(x, Rows::bytes), Held::by(signs, Rows::bytes));
        self.tape().record("bin_linear", y, [self, w], move |dy, wanted| {
            let dz = scaled(dy, &scale);
            let dx = wanted[0].then(|| {
                slope.times(Tensor::build([n, k], |dx| bits::dense_dx(n, k, o, &signs, &dz, dx)))
            });
            let dw = wanted[1].then(|| {
                let dw = Tensor::build([o, k], |dw| bits::dense_dw(n, k, o, &x, &dz, dw));
                latent.backward(dw)
            });
            [dx, dw]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::binarize::Method;
    use crate::{Params, Rng, Tape, Tensor};

    #[test]
    fn bin_linear() {
        let mut rng = Rng::seed(21);
        let params = Params::new();
        let (x, w) = (Tensor::randn([5, 37], 1.0, &mut rng), Tensor::randn([6, 37], 1.0, &mut rng));
        for method in ["bnn", "ir-net", "dir-net"] {
            let method: Method = method.parse().unwrap();
            let (rule, e) = (method.weights.unwrap(), method.activations.unwrap());
            let run = |fast: bool| {
                let tape = Tape::train(&params).at(0.3);
                let (x, w) = (tape.variable(&x), tape.variable(&w));
                let y = match fast {
                    true => x.bin_linear(&w, &rule, &e),
                    false => x.binarize(&e).linear(&w.binarize_weights(&rule)),
                };
                let grads = y.square().sum().backward();
                (y.value().clone(), grads.wrt(&x).unwrap().clone(), grads.wrt(&w).unwrap().clone())
            };
            let (fast, readable) = (run(true), run(false));
            assert_eq!(fast.0, readable.0);
            for (a, b) in [(&fast.1, &readable.1), (&fast.2, &readable.2)] {
                let size = b.iter().fold(0f32, |m, b| m.max(b.abs()));
                assert!(a.iter().zip(&**b).all(|(a, b)| (a - b).abs() <= 1e-5 * size));
            }
        }
    }
}
