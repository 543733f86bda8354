//! Binary convolution: the fast twin of `x.binarize(&e).conv2d(&w.binarize_weights(&rule), how)`.

use super::imb::Latent;
use super::sign::Slope;
use super::{Estimator, Pad, WeightRule};
use crate::ops::Conv;
use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_kernels::bits::{self, Filters, Image};
use dirnet_kernels::{ConvGeom, elementwise::scale_channels};
use std::sync::Arc;

impl<'t> Var<'t> {
    /// Convolution of the signs of an `N C H W` batch with the signs of latent `O C/groups K K`
    /// weights, computed from the bits: an exact integer, times a scale for each output channel.
    ///
    /// ```text
    /// forward    z = sign(x) ⊛ sign(y),  out = scale(y) · z,   y = weights made ready by the rule
    /// backward   dz = scale · dout,
    ///            dx = slope(x) · (filters' signs spread dz back),
    ///            dw = rule's way back of slope(y) · (patches of x's signs against dz)
    /// ```
    ///
    /// Saved: the bits of `x`, the bits of the weights, and of `x` itself what the estimator needs,
    /// which is one more bit an element for one with a [`window`](Estimator::window). `pad` is what
    /// stands outside the image: nothing at all by default, so that a padded tap adds no term.
    ///
    /// # Panics
    /// If the channels differ, or the filter is larger than the padded image.
    #[track_caller]
    pub fn bin_conv2d(
        &self,
        w: &Var<'t>,
        how: Conv,
        pad: Pad,
        rule: &WeightRule,
        estimator: &Arc<dyn Estimator>,
    ) -> Var<'t> {
        let g = ConvGeom::new(self.shape(), w.shape(), how);
        let latent = Latent::of(w, rule);
        let (ready, scale) = latent.ready();
        let filters = Filters::pack(&g, &ready);
        let image = signs(&g, self.value());
        let y = if g.taps() <= i16::MAX as usize {
            Tensor::integers(g.y(), scale.clone(), |z| {
                bits::conv2d_i16(&g, &image, &filters, pad, z);
            })
        } else {
            let z = Tensor::build(g.y(), |z| bits::conv2d(&g, &image, &filters, pad, z));
            Tensor::build(g.y(), |y| scale_channels(g.n, g.o, g.oh * g.ow, &z, &scale, y))
        };

        let slope = Slope::save(estimator, self);
        let filters = Held::by(filters, Filters::bytes);
        self.tape().record("bin_conv2d", y, [self, w], move |dy, wanted| {
            let finish = |first, dx: &mut [f32]| slope.apply(first, dx);
            let mut dw = Tensor::zeros(g.filters());
            let dx = wanted[0].then(|| {
                Tensor::build(g.x(), |dx| match wanted[1] {
                    true => {
                        let dw = dw.data_mut();
                        bits::conv2d_backward(
                            &g, &image, &filters, &scale, pad, &dy, dx, dw, finish,
                        );
                    }
                    false => bits::scaled_conv2d_dx(&g, &filters, &scale, &dy, dx, finish),
                })
            });
            if wanted == [false, true] {
                bits::conv2d_dw(&g, &image, pad, &dy, dw.data_mut());
            }
            let dw = wanted[1].then(|| {
                for (dw, scale) in dw.data_mut().chunks_mut(g.taps()).zip(&*scale) {
                    dw.iter_mut().for_each(|dw| *dw *= scale);
                }
                latent.backward(dw)
            });
            [dx, dw]
        })
    }
}

/// The signs of an image: those that came with it, or packed here.
fn signs(g: &ConvGeom, x: &Tensor) -> Arc<Held<Image>> {
    match x.signs() {
        Some(signs) if signs.suits(g) => signs.clone(),
        _ => Arc::new(Held::by(Image::pack(g, x), Image::bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::estimator::estimator;
    use crate::binarize::{Method, Scale};
    use crate::{Params, Rng, Role, Tape};

    fn close(a: &Tensor, b: &Tensor, what: &str) {
        assert_eq!(a.shape(), b.shape(), "{what}");
        let size = b.iter().fold(0f32, |m, b| m.max(b.abs()));
        for (a, b) in a.iter().zip(&**b) {
            assert!((a - b).abs() <= 1e-5 * size, "{what}: {a} and {b}");
        }
    }

    #[test]
    fn bin_conv2d() {
        let mut rng = Rng::seed(11);
        let params = Params::new();
        for (x, w, how) in [
            ([2, 3, 6, 5], [4, 3, 3, 3], Conv::same(3)),
            ([1, 8, 7, 7], [6, 4, 3, 3], Conv::same(3).stride(2).groups(2)),
            ([3, 5, 4, 4], [5, 1, 1, 1], Conv::valid().groups(5)),
            ([2, 16, 8, 8], [8, 16, 5, 5], Conv::same(5).dilation(2).pad(4)),
        ] {
            let (x, w) = (Tensor::randn(x, 1.0, &mut rng), Tensor::randn(w, 0.5, &mut rng));
            for method in ["bnn", "ir-net", "dir-net"] {
                let method: Method = method.parse().unwrap();
                let (rule, e) = (method.weights.unwrap(), method.activations.unwrap());
                let run = |fast: bool| {
                    let tape = Tape::train(&params).at(0.7);
                    let (x, w) = (tape.variable(&x), tape.variable(&w));
                    let y = match fast {
                        true => x.bin_conv2d(&w, how, Pad::Zero, &rule, &e),
                        false => x.binarize(&e).conv2d(&w.binarize_weights(&rule), how),
                    };
                    let grads = y.square().sum().backward();
                    let grad = |x| grads.wrt(x).unwrap().clone();
                    (y.value().clone(), grad(&x), grad(&w))
                };
                let (fast, readable) = (run(true), run(false));
                assert_eq!(fast.0, readable.0, "{:?} forward", method.spec);
                close(&fast.1, &readable.1, "dx");
                close(&fast.2, &readable.2, "dw");
            }
        }
    }

    #[test]
    fn a_mean_scale_agrees_with_the_readable_chain() {
        let mut rng = Rng::seed(12);
        let params = Params::new();
        let e = estimator("ste").unwrap();
        let rule = WeightRule { balance: false, scale: Scale::MeanAbs, estimator: e.clone() };
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::randn([2, 4, 5, 5], 1.0, &mut rng));
        let w = tape.constant(Tensor::randn([3, 4, 3, 3], 1.0, &mut rng));
        let fast = x.bin_conv2d(&w, Conv::same(3), Pad::Zero, &rule, &e);
        let readable = x.binarize(&e).conv2d(&w.binarize_weights(&rule), Conv::same(3));
        close(fast.value(), readable.value(), "forward");
    }

    #[test]
    fn a_straight_through_layer_keeps_bits_and_no_floats() {
        let mut rng = Rng::seed(13);
        let mut params = Params::new();
        let w = Tensor::randn([16, 16, 3, 3], 0.5, &mut rng);
        let w = params.add("w", Role::Latent, w);
        let method: Method = "bnn".parse().unwrap();
        let (rule, e) = (method.weights.unwrap(), method.activations.unwrap());
        let tape = Tape::train(&params);
        let image = Tensor::randn([8, 16, 32, 32], 1.0, &mut rng);
        let elements = image.len();
        {
            let x = tape.variable(&image);
            x.bin_conv2d(&tape.param(w), Conv::same(3), Pad::Zero, &rule, &e);
        }
        assert!(!image.is_shared(), "the tape holds on to the layer's input");
        let saved = tape.into_saved();
        let layer = saved.iter().find(|s| s.operation == "bin_conv2d").unwrap();
        // Signs and the window's mask; the signs' layout may take up to two bits an element and a
        // border of padding. In floats it would be 4 bytes.
        assert!(layer.bytes >= elements / 4, "{} bytes are less than the bits", layer.bytes);
        assert!(layer.bytes <= elements / 2, "{} bytes for {elements} elements", layer.bytes);
    }
}
