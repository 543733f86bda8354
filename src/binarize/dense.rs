//! Binary dense layer: the fast twin of `x.binarize(&e).linear(&w.binarize_weights(&scale, &e))`.

use super::Estimator;
use super::conv::Latent;
use super::sign::Slope;
use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_kernels::bits::{self, Rows};
use dirnet_kernels::elementwise::scale_channels;
use std::sync::Arc;

impl<'t> Var<'t> {
    /// The product of the signs of `N IN` rows with the signs of prepared `OUT IN` weights, computed
    /// from the bits: an exact integer, times a scale for each output.
    ///
    /// ```text
    /// forward    z = sign(x) · sign(w)ᵀ,  y = scale · z
    /// backward   dz = scale · dy,  G = dyᵀ · sign(x),  dx = slope(x) · (dz · sign(w)),
    ///            dw = slope(w) · scale · G,  dscale = Σ sign(w) · G
    /// ```
    ///
    /// Of the two estimators the first is that of the weights.
    ///
    /// # Panics
    /// If either is no matrix, the inner sizes differ, or there is not one scale an output.
    #[track_caller]
    pub fn bin_linear(
        &self,
        w: &Var<'t>,
        scale: &Var<'t>,
        [of_weights, of_inputs]: [&Arc<dyn Estimator>; 2],
    ) -> Var<'t> {
        let (&[n, k], &[o, inner]) = (self.shape(), w.shape()) else {
            panic!("bin_linear: not two matrices: {:?} x {:?}", self.shape(), w.shape())
        };
        assert_eq!(k, inner, "bin_linear: inner sizes differ: [{n}, {k}] x [{o}, {inner}]");
        assert_eq!(scale.shape(), [o], "bin_linear: one scale an output of [{o}, {inner}]");
        let (x, signs) = (Rows::pack(n, k, self.value()), Rows::pack(o, k, w.value()));
        let scaled = move |z: &Tensor, scale: &Tensor| {
            Tensor::build([n, o], |y| scale_channels(n, o, 1, z, scale, y))
        };
        let z = Tensor::build([n, o], |z| bits::dense(n, k, o, &x, &signs, z));
        let factor = scale.value().clone();
        let y = scaled(&z, &factor);

        let slope = Slope::save(of_inputs, self, 1);
        let latent = Latent::save(w, scale, of_weights);
        let (x, signs) = (Held::by(x, Rows::bytes), Held::by(signs, Rows::bytes));
        self.tape().record("bin_linear", y, [self, w, scale], move |dy, wanted| {
            let dx = wanted[0].then(|| {
                let dz = scaled(&dy, &factor);
                slope.times(Tensor::build([n, k], |dx| bits::dense_dx(n, k, o, &signs, &dz, dx)))
            });
            if !wanted[1] && !wanted[2] {
                return [dx, None, None];
            }
            let dw = Tensor::build([o, k], |dw| bits::dense_dw(n, k, o, &x, &dy, dw));
            let [dw, dscale] = latent.backward(dw, [wanted[1], wanted[2]]);
            [dx, dw, dscale]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::binarize::estimator::estimator;
    use crate::{Params, Rng, Tape, Tensor};

    #[test]
    fn bin_linear() {
        let mut rng = Rng::seed(21);
        let params = Params::new();
        let (x, w) = (Tensor::randn([5, 37], 1.0, &mut rng), Tensor::randn([6, 37], 1.0, &mut rng));
        let scale = Tensor::uniform([6], 1.0, &mut rng);
        for (of_weights, of_inputs) in [
            ("ste", "ste"),
            ("ede", "approx-sign"),
            ("dte", "dte"),
            ("dte(scope=channel)", "dte(scope=channel)"),
        ] {
            let e = [of_weights, of_inputs].map(|e| estimator(e).unwrap());
            let run = |fast: bool| {
                let tape = Tape::train(&params).at(0.3);
                let [x, w, scale] = [&x, &w, &scale].map(|v| tape.variable(v));
                let y = match fast {
                    true => x.bin_linear(&w, &scale, [&e[0], &e[1]]),
                    false => x.binarize(&e[1]).linear(&w.binarize_weights(&scale, &e[0])),
                };
                let grads = y.square().sum().backward();
                let grad = |x| grads.wrt(x).unwrap().clone();
                [y.value().clone(), grad(&x), grad(&w), grad(&scale)]
            };
            for (a, b) in run(true).iter().zip(&run(false)) {
                let size = b.iter().fold(0f32, |m, b| m.max(b.abs()));
                assert!(a.iter().zip(&**b).all(|(a, b)| (a - b).abs() <= 1e-5 * size));
            }
        }
    }
}
