//! Binary convolution: the fast twin of `x.binarize(&e).conv2d(&w.binarize_weights(&scale, &e), how)`.

use super::sign::Slope;
use super::{Estimator, Pad};
use crate::ops::Conv;
use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_engine::{Op, Then};
use dirnet_kernels::bits::{self, Filters, Image};
use dirnet_kernels::{
    ConvGeom,
    elementwise::{add_assign, scale_channels},
    reduce::sum_rows_by_signs,
};
use std::sync::Arc;

impl<'t> Var<'t> {
    /// Convolution of the signs of an `N C H W` batch with the signs of prepared `O C/groups K K`
    /// weights, computed from the bits: an exact integer, times a scale for each output channel.
    ///
    /// ```text
    /// forward    z = sign(x) ⊛ sign(w),  y = scale · z
    /// backward   dz = scale · dy,  G = patches of x's signs against dy,
    ///            dx = slope(x) · (filters' signs spread dz back),
    ///            dw = slope(w) · scale · G,  dscale = Σ sign(w) · G
    /// ```
    ///
    /// So the gradient of the scale costs no pass over activations. Saved: the bits of `x`, the bits
    /// of the weights and the prepared weights, and of `x` itself what the estimator needs, which is
    /// one more bit an element for one with a [`window`](Estimator::window). `pad` is what stands
    /// outside the image: nothing at all by default, so that a padded tap adds no term. Of the two
    /// estimators the first is that of the weights.
    ///
    /// # Panics
    /// If the channels differ, the filter is larger than the padded image, or there is not one scale
    /// a filter.
    #[track_caller]
    pub fn bin_conv2d(
        &self,
        w: &Var<'t>,
        scale: &Var<'t>,
        how: Conv,
        pad: Pad,
        [of_weights, of_inputs]: [&Arc<dyn Estimator>; 2],
    ) -> Var<'t> {
        let g = ConvGeom::new(self.shape(), w.shape(), how);
        assert_eq!(scale.shape(), [g.o], "bin_conv2d: one scale a filter of {:?}", w.shape());
        let filters = Filters::pack(&g, w.value());
        let image = signs(&g, self.value());
        let factor = scale.value().clone();
        let y = if g.taps() <= i16::MAX as usize {
            // What follows in training is a batch norm, which wants the sums.
            let is_training = self.tape().is_training();
            Tensor::integers(g.y(), factor.clone(), |z| match is_training {
                true => Some(bits::conv2d_i16_moments(&g, &image, &filters, pad, z)),
                false => {
                    bits::conv2d_i16(&g, &image, &filters, pad, z);
                    None
                }
            })
        } else {
            let z = Tensor::build(g.y(), |z| bits::conv2d(&g, &image, &filters, pad, z));
            Tensor::build(g.y(), |y| scale_channels(g.n, g.o, g.oh * g.ow, &z, &factor, y))
        };

        let slope = Slope::save(of_inputs, self, 1);
        let latent = Latent::save(w, scale, of_weights);
        let filters = Held::by(filters, Filters::bytes);
        self.tape().describe(|| Op::BinConv2d { how, pad, then: Then::Scale });
        self.tape().record_adding("bin_conv2d", y, [self, w, scale], move |dy, others, wanted| {
            // While the cache holds it.
            let finish = |first, dx: &mut [f32]| {
                slope.apply(first, dx);
                if let Some(others) = &others {
                    add_assign(dx, &others[first..first + dx.len()]);
                }
            };
            let of_weights = wanted[1] || wanted[2];
            let mut dw = Tensor::zeros(g.filters());
            let dx = wanted[0].then(|| {
                Tensor::build(g.x(), |dx| match of_weights {
                    true => {
                        let dw = dw.data_mut();
                        bits::conv2d_backward(
                            &g, &image, &filters, &factor, pad, &dy, dx, dw, finish,
                        );
                    }
                    false => bits::scaled_conv2d_dx(&g, &filters, &factor, &dy, dx, finish),
                })
            });
            if !wanted[0] && of_weights {
                bits::conv2d_dw(&g, &image, pad, &dy, dw.data_mut());
            }
            let [dw, dscale] = latent.backward(dw, [wanted[1], wanted[2]]);
            [dx, dw, dscale]
        })
    }
}

/// What the way back to prepared weights and their scale needs: both, shared with the tape.
pub(super) struct Latent {
    w: Tensor,
    scale: Tensor,
    slope: Slope,
}

impl Latent {
    pub(super) fn save(w: &Var<'_>, scale: &Var<'_>, estimator: &Arc<dyn Estimator>) -> Self {
        let (w_, scale) = (w.value().clone(), scale.value().clone());
        Latent { slope: Slope::save(estimator, w, 0), w: w_, scale }
    }

    /// From the gradient of `sign(w)` times 1 to those of `w` and of the scale.
    pub(super) fn backward(&self, mut dsigns: Tensor, wanted: [bool; 2]) -> [Option<Tensor>; 2] {
        let o = self.scale.len();
        let n = self.w.len() / o.max(1);
        let dscale = wanted[1].then(|| {
            Tensor::build([o], |dscale| sum_rows_by_signs(o, n, &self.w, &dsigns, dscale))
        });
        let dw = wanted[0].then(|| {
            for (d, scale) in dsigns.data_mut().chunks_mut(n.max(1)).zip(&*self.scale) {
                d.iter_mut().for_each(|d| *d *= scale);
            }
            self.slope.times(dsigns)
        });
        [dw, dscale]
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
    use crate::binarize::Scale;
    use crate::binarize::estimator::estimator;
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
            let scale = Tensor::uniform([w.shape()[0]], 1.0, &mut rng);
            for (of_weights, of_inputs) in [
                ("ste", "ste"),
                ("ede", "approx-sign"),
                ("dte", "dte"),
                ("dte(scope=channel)", "dte(scope=channel)"),
            ] {
                let e = [of_weights, of_inputs].map(|e| estimator(e).unwrap());
                let run = |fast: bool| {
                    let tape = Tape::train(&params).at(0.7);
                    let [x, w, scale] = [&x, &w, &scale].map(|v| tape.variable(v));
                    let y = match fast {
                        true => x.bin_conv2d(&w, &scale, how, Pad::Zero, [&e[0], &e[1]]),
                        false => x.binarize(&e[1]).conv2d(&w.binarize_weights(&scale, &e[0]), how),
                    };
                    // What is recorded later sends its gradient first.
                    let grads = (y.square().sum() + x.square().sum() * 3.0).backward();
                    let grad = |x| grads.wrt(x).unwrap().clone();
                    [y.value().clone(), grad(&x), grad(&w), grad(&scale)]
                };
                let names = ["y", "dx", "dw", "dscale"];
                for ((fast, readable), name) in run(true).iter().zip(&run(false)).zip(names) {
                    close(fast, readable, name);
                }
            }
        }
    }

    #[test]
    fn with_a_power_of_two_for_a_scale_it_equals_the_readable_chain() {
        let mut rng = Rng::seed(12);
        let params = Params::new();
        let e = estimator("ste").unwrap();
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::randn([2, 4, 5, 5], 1.0, &mut rng));
        let w = tape.constant(Tensor::randn([3, 4, 3, 3], 1.0, &mut rng));
        let scale = Scale::Shift.of(&w, &w);
        let fast = x.bin_conv2d(&w, &scale, Conv::same(3), Pad::Zero, [&e, &e]);
        let readable = x.binarize(&e).conv2d(&w.binarize_weights(&scale, &e), Conv::same(3));
        assert_eq!(fast.value(), readable.value());
    }

    #[test]
    fn a_straight_through_layer_keeps_bits_and_no_floats() {
        let mut rng = Rng::seed(13);
        let mut params = Params::new();
        let w = Tensor::randn([16, 16, 3, 3], 0.5, &mut rng);
        let w = params.add("w", Role::Latent, w);
        let e = estimator("ste").unwrap();
        let tape = Tape::train(&params);
        let image = Tensor::randn([8, 16, 32, 32], 1.0, &mut rng);
        let elements = image.len();
        {
            let (x, w) = (tape.variable(&image), tape.param(w));
            x.bin_conv2d(&w, &Scale::None.of(&w, &w), Conv::same(3), Pad::Zero, [&e, &e]);
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
