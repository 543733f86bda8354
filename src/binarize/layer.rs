//! One binary layer: latent weights and inputs, each with its recipe, and their product.
//!
//! With inputs `a · (s + b)` and weights `scale · t + offset`, where `s` and `t` are signs, the
//! product is a sum of binary ones and small corrections:
//!
//! ```text
//! x ⊛ w = a · [ scale · (s ⊛ t) + offset · (s ⊛ 1) + b · (1 ⊛ (scale · t + offset)) ]
//! ```
//!
//! `s ⊛ 1` is a binary convolution with one filter of ones a group, and the last term is the same
//! for all images of a batch. A padded tap adds to none of the three.

use super::part::{Chain, Part, row_means};
use super::{Estimator, Pad, Scale};
use crate::ops::Conv;
use crate::watch::Binarized;
use crate::{ParamId, Params, Role, Tape, Tensor, Var};
use dirnet_kernels::bits::Mask;
use std::sync::Arc;

/// Images of a batch that are enough to tell what becomes of activations.
const ENOUGH: usize = 64;

/// What becomes of weights: a recipe.
///
/// ```text
/// y = prepare(w),   binary weights = scale · sign(y) + offset
/// ```
#[derive(Clone, Debug)]
pub struct Weights {
    /// What happens before the sign, in order.
    pub prepare: Vec<Arc<dyn Part>>,
    /// What multiplies the signs.
    pub scale: Scale,
    /// Whether the mean of the latent weights of a filter is added to its two levels (AdaBin).
    pub offset: bool,
    /// What stands in for the derivative of the sign.
    pub estimator: Arc<dyn Estimator>,
}

/// What becomes of the inputs of a layer: a recipe.
#[derive(Clone, Debug)]
pub struct Activations {
    /// What happens before the sign, in order.
    pub prepare: Vec<Arc<dyn Part>>,
    /// What stands in for the derivative of the sign.
    pub estimator: Arc<dyn Estimator>,
    /// Whether each pixel of a convolution's output is multiplied by the mean of `|x|` under the
    /// filter (the `K` of XNOR-Net, Rastegari et al., 2016, arXiv 1603.05279).
    pub pixel_scale: bool,
}

/// The latent weights of one layer.
#[derive(Clone, Debug)]
pub struct Latent {
    weight: ParamId,
    chain: Chain,
    scale: Option<ParamId>,
    recipe: Weights,
}

impl Latent {
    /// Adds `NAME.weight` (latent), `NAME.scale` if it is learned, and what the parts learn, as
    /// `NAME.weights.PART.…`.
    pub fn new(params: &mut Params, name: &str, start: Tensor, recipe: &Weights) -> Self {
        let shape = start.shape().to_vec();
        let weight = params.add(format!("{name}.weight"), Role::Latent, start);
        // Of the weights as they are in the table, which may have begun with others.
        let scale =
            (recipe.scale == Scale::Learned).then(|| super::scale::mean_abs(&params[weight].value));
        Latent {
            weight,
            scale: scale.map(|s| params.add(format!("{name}.scale"), Role::Weight, s)),
            chain: Chain::new(params, &format!("{name}.weights"), &recipe.prepare, &shape),
            recipe: recipe.clone(),
        }
    }

    /// Their shape.
    pub fn shape<'p>(&self, params: &'p Params) -> &'p [usize] {
        params[self.weight].value.shape()
    }

    /// Learned numbers beside the weights.
    pub fn extra(&self, params: &Params) -> usize {
        self.chain.count(params) + self.scale.map_or(0, |id| params[id].value.len())
    }

    /// Ready for their sign.
    pub fn ready<'t>(&self, tape: &'t Tape<'t>) -> Ready<'t> {
        let w = tape.param(self.weight);
        let (y, beside) = self.chain.prepare(&w);
        let scale = match self.scale {
            Some(id) => tape.param(id),
            None => self.recipe.scale.of(&w, &y),
        };
        // Of a filter of a single weight the mean is all there is, and its sign would not count.
        let single = w.value().len() <= w.shape()[0];
        let offset = (self.recipe.offset && !single).then(|| row_means(&w));
        let ready = Ready { y, beside, scale, offset, estimator: self.recipe.estimator.clone() };
        tape.note_signs(|note| {
            note.signs = Some(Mask::signs(ready.y.value()));
            if !tape.is_training() {
                // With an offset the levels are those of the weights as they were.
                let meant = if ready.offset.is_some() { &w } else { &ready.y };
                let (y, q) = (ready.y.value(), ready.binarized());
                note.weights = Some(Binarized::of(y, 0, meant.value(), q.value()));
            }
        });
        ready
    }
}

/// Weights ready for their sign.
#[derive(Clone, Debug)]
pub struct Ready<'t> {
    /// What the signs are taken of.
    pub y: Var<'t>,
    /// What is added to the signs, if anything, of the same shape.
    pub beside: Option<Var<'t>>,
    /// One a filter.
    pub scale: Var<'t>,
    /// One a filter, if any: added to both levels.
    pub offset: Option<Var<'t>>,
    /// What stands in for the derivative of the sign.
    pub estimator: Arc<dyn Estimator>,
}

impl<'t> Ready<'t> {
    /// The binary weights in floats.
    pub fn binarized(&self) -> Var<'t> {
        let shape = [1, self.y.shape()[0], self.y.value().len() / self.y.shape()[0]];
        let y = match &self.beside {
            None => self.y.binarize_weights(&self.scale, &self.estimator),
            Some(beside) => {
                let y = self.y.binarize(&self.estimator) + beside;
                y.reshape(shape).mul_channels(&self.scale).reshape(y.shape())
            }
        };
        let Some(offset) = &self.offset else { return y };
        y.reshape(shape).add_channels(offset).reshape(y.shape())
    }
}

/// The inputs of one layer on their way to signs.
#[derive(Clone, Debug)]
pub struct Inputs {
    chain: Chain,
    recipe: Activations,
}

impl Inputs {
    /// Adds what the parts learn as `NAME.activations.PART.…`; `shape` is that of one sample.
    pub fn new(params: &mut Params, name: &str, shape: &[usize], recipe: &Activations) -> Self {
        let chain = Chain::new(params, &format!("{name}.activations"), &recipe.prepare, shape);
        Inputs { chain, recipe: recipe.clone() }
    }

    /// Numbers that it learns.
    pub fn extra(&self, params: &Params) -> usize {
        self.chain.count(params)
    }

    /// The binary inputs in floats.
    pub fn binarized<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let (x, beside) = self.prepare(x);
        self.levelled(&x, beside)
    }

    /// Ready for their sign, and what is added to the signs.
    fn prepare<'t>(&self, x: &Var<'t>) -> (Var<'t>, Option<Var<'t>>) {
        let (prepared, beside) = self.chain.prepare(x);
        x.tape().note_signs(|note| {
            if !x.tape().is_training() {
                let y = first_images(&prepared);
                // With levels the signs stand for the inputs as they came.
                let meant = match self.chain.levels(x.tape()) {
                    Some(_) => first_images(x),
                    None => y.clone(),
                };
                let q = self.levelled(&y, None);
                note.activations = Some(Binarized::of(y.value(), 1, meant.value(), q.value()));
            }
        });
        (prepared, beside)
    }

    fn levelled<'t>(&self, prepared: &Var<'t>, beside: Option<Var<'t>>) -> Var<'t> {
        let mut signs = prepared.binarize(&self.recipe.estimator);
        if let Some(beside) = beside {
            signs = signs + beside;
        }
        let Some([a, b]) = self.chain.levels(prepared.tape()) else { return signs };
        let flat = signs.reshape([1, 1, signs.value().len()]);
        flat.add_channels(&b).mul_channels(&a).reshape(signs.shape())
    }

    /// Convolution of the binary inputs with binary weights, from the bits: see the head of this
    /// file. Its readable twin is `binarized(x).conv2d(w.binarized())`, which takes its place where
    /// something is added to the signs, since that leaves no bits to compute from.
    #[track_caller]
    pub fn conv2d<'t>(&self, x: &Var<'t>, w: &Ready<'t>, how: Conv) -> Var<'t> {
        let (prepared, beside) = self.prepare(x);
        let y = match beside.is_some() || w.beside.is_some() {
            true => self.levelled(&prepared, beside).conv2d(&w.binarized(), how),
            false => self.convolved(&prepared, w, how),
        };
        self.by_pixel(x, y, w.y.shape(), how)
    }

    /// Convolution of the binary inputs with float weights.
    #[track_caller]
    pub fn conv2d_float<'t>(&self, x: &Var<'t>, w: &Var<'t>, how: Conv) -> Var<'t> {
        self.by_pixel(x, self.binarized(x).conv2d(w, how), w.shape(), how)
    }

    /// The output, times the mean of `|x|` under the filter where the recipe says so.
    fn by_pixel<'t>(&self, x: &Var<'t>, y: Var<'t>, filters: &[usize], how: Conv) -> Var<'t> {
        if !self.recipe.pixel_scale {
            return y;
        }
        let &[_, c, kh, kw] = filters else { unreachable!("the convolution has looked") };
        let c = c * how.groups;
        let mean = Tensor::full([1, c, kh, kw], 1.0 / (c * kh * kw) as f32);
        let mean = x.tape().constant(mean);
        y.mul_pixels(&x.abs().conv2d(&mean, how.groups(1)))
    }

    fn convolved<'t>(&self, prepared: &Var<'t>, w: &Ready<'t>, how: Conv) -> Var<'t> {
        let tape = prepared.tape();
        let e = &self.recipe.estimator;
        let signs = [&w.estimator, e];
        let mut y = prepared.bin_conv2d(&w.y, &w.scale, how, Pad::Zero, signs);
        let (o, groups) = (w.y.shape()[0], how.groups);
        if let Some(offset) = &w.offset {
            let mut filters = w.y.shape().to_vec();
            filters[0] = groups;
            let ones = tape.constant(Tensor::full(filters, 1.0));
            let unit = tape.constant(Tensor::full([groups], 1.0));
            let sums = prepared.bin_conv2d(&ones, &unit, how, Pad::Zero, signs);
            y = y + sums.conv2d(&offset.reshape([o, 1, 1, 1]), Conv::valid().groups(groups));
        }
        let Some([a, b]) = self.chain.levels(tape) else { return y };
        let shape = y.shape().to_vec();
        let mut one = prepared.shape().to_vec();
        one[0] = 1;
        let map = tape.constant(Tensor::full(one, 1.0)).conv2d(&w.binarized(), how);
        let size = map.value().len();
        let map = map.reshape([1, 1, size]).mul_channels(&b).reshape([size]);
        let y = y.reshape([shape[0], size]).add_channels(&map);
        y.reshape([1, 1, shape[0] * size]).mul_channels(&a).reshape(shape)
    }

    /// The dense product of `N IN` binary inputs with `OUT IN` binary weights, from the bits.
    #[track_caller]
    pub fn linear<'t>(&self, x: &Var<'t>, w: &Ready<'t>) -> Var<'t> {
        let (prepared, beside) = self.prepare(x);
        if beside.is_some() || w.beside.is_some() {
            return self.levelled(&prepared, beside).linear(&w.binarized());
        }
        if w.offset.is_none() && self.chain.levels(x.tape()).is_none() {
            let signs = [&w.estimator, &self.recipe.estimator];
            return prepared.bin_linear(&w.y, &w.scale, signs);
        }
        let (&[n, k], &[o, _]) = (x.shape(), w.y.shape()) else {
            panic!("linear: not two matrices: {:?} x {:?}", x.shape(), w.y.shape())
        };
        let w = Ready { y: w.y.reshape([o, k, 1, 1]), ..w.clone() };
        self.convolved(&prepared.reshape([n, k, 1, 1]), &w, Conv::valid()).reshape([n, o])
    }
}

/// The first images of a batch, as a constant.
fn first_images<'t>(x: &Var<'t>) -> Var<'t> {
    let mut shape = x.shape().to_vec();
    shape[0] = shape[0].min(ENOUGH);
    x.tape().constant(Tensor::build(shape, |y| x.value().read(0, y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::Method;
    use crate::{Params, Rng};

    fn close(a: &Tensor, b: &Tensor, what: &str) {
        assert_eq!(a.shape(), b.shape(), "{what}");
        let size = b.iter().fold(0f32, |m, b| m.max(b.abs()));
        for (a, b) in a.iter().zip(&**b) {
            assert!((a - b).abs() <= 3e-5 * size, "{what}: {a} and {b}");
        }
    }

    /// A layer with all its parameters away from where they start.
    fn layer(method: &Method, x: &[usize], w: &[usize], rng: &mut Rng) -> (Params, Latent, Inputs) {
        let mut params = Params::new();
        let (weights, inputs) =
            (method.weights.as_ref().unwrap(), method.activations.as_ref().unwrap());
        let latent = Latent::new(&mut params, "a", Tensor::randn(w, 0.7, rng), weights);
        let inputs = Inputs::new(&mut params, "a", &x[1..], inputs);
        let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
        for id in ids {
            if params[id].role != Role::Buffer {
                let moved = params[id].value.clone().map(|x| x + 0.3);
                params.set(id, moved);
            }
        }
        (params, latent, inputs)
    }

    #[test]
    fn two_levels_from_bits_are_two_levels_in_floats() {
        let mut rng = Rng::seed(31);
        for method in [
            "adabin",
            "adabin(variant=code)",
            "dorefa",
            "reactnet",
            "recu",
            "ir-net",
            "rbnn",
            "fda",
        ] {
            let method: Method = method.parse().unwrap();
            for (x, w, how) in [
                ([2, 3, 6, 5], [4, 3, 3, 3], Conv::same(3)),
                ([3, 8, 7, 7], [6, 4, 3, 3], Conv::same(3).stride(2).groups(2)),
            ] {
                let (params, latent, inputs) = layer(&method, &x, &w, &mut rng);
                let x = Tensor::randn(x, 1.0, &mut rng);
                let run = |fast: bool| {
                    let tape = Tape::train(&params).at(0.4);
                    let x = tape.variable(&x);
                    let ready = latent.ready(&tape);
                    let y = match fast {
                        true => inputs.conv2d(&x, &ready, how),
                        false => inputs.binarized(&x).conv2d(&ready.binarized(), how),
                    };
                    let grads = y.square().sum().backward();
                    let mut all = vec![y.value().clone(), grads.wrt(&x).unwrap().clone()];
                    all.extend(grads.iter().map(|(_, g)| g.clone()));
                    all
                };
                let (fast, readable) = (run(true), run(false));
                assert_eq!(fast.len(), readable.len());
                for (a, b) in fast.iter().zip(&readable) {
                    close(a, b, &method.to_string());
                }
            }
            let (params, latent, inputs) = layer(&method, &[4, 9], &[5, 9], &mut rng);
            let tape = Tape::train(&params);
            let x = tape.constant(Tensor::randn([4, 9], 1.0, &mut rng));
            let ready = latent.ready(&tape);
            let readable = inputs.binarized(&x).linear(&ready.binarized());
            close(inputs.linear(&x, &ready).value(), readable.value(), "dense");
        }
    }
}
