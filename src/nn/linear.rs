//! Dense layers, float and binary.

use super::{Kernel, Module};
use crate::binarize::{Inputs, Method};
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};

/// A dense layer, with a bias unless a batch norm follows: `y = x · wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: ParamId,
    bias: Option<ParamId>,
}

/// Weights drawn from a normal distribution of variance `2/from` (He et al., 2015, arXiv 1502.01852).
fn kaiming([from, to]: [usize; 2], rng: &mut Rng) -> Tensor {
    Tensor::randn([to, from], (2.0 / from as f32).sqrt(), rng)
}

impl Linear {
    /// Adds `NAME.weight` (`OUT IN`) and `NAME.bias` to `params`. They start as PyTorch does, both
    /// uniform in `±1/√in`.
    pub fn new(params: &mut Params, name: &str, from: usize, to: usize, rng: &mut Rng) -> Self {
        let limit = (from as f32).sqrt().recip();
        let weight = Tensor::uniform([to, from], limit, rng);
        let bias = Tensor::uniform([to], limit, rng);
        Linear {
            name: name.into(),
            weight: params.add(format!("{name}.weight"), Role::Weight, weight),
            bias: Some(params.add(format!("{name}.bias"), Role::Weight, bias)),
        }
    }

    /// One without a bias: a batch norm follows. Adds `NAME.weight` to `params`, which starts as that
    /// of a [`BinLinear`] does, so that float and binary networks begin alike.
    pub fn hidden(params: &mut Params, name: &str, sizes: [usize; 2], rng: &mut Rng) -> Self {
        let weight = kaiming(sizes, rng);
        let weight = params.add(format!("{name}.weight"), Role::Weight, weight);
        Linear { name: name.into(), weight, bias: None }
    }
}

impl Module for Linear {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let (weight, bias) = (tape.param(self.weight), self.bias.map(|id| tape.param(id)));
        let (to, macs) = (weight.shape()[0], weight.value().len());
        let numbers = macs + bias.as_ref().map_or(0, |bias| bias.value().len());
        let _layer = tape.layer(&self.name, || LayerNote {
            kind: "linear",
            output: vec![to],
            params_32bit: numbers,
            macs_32bit: macs,
            ..LayerNote::default()
        });
        let y = x.linear(&weight);
        bias.map_or(y.clone(), |bias| y.add_channels(&bias))
    }
}

/// A dense layer whose weights are signs, or its inputs, or both, as the method has it. No bias: a
/// batch norm follows.
#[derive(Clone, Debug)]
pub struct BinLinear {
    name: String,
    weight: Kernel,
    inputs: Option<Inputs>,
    gain: Option<ParamId>,
}

impl BinLinear {
    /// Adds `NAME.weight` (`OUT IN`; latent, if its signs are taken) and what the method's parts learn
    /// to `params`; the weights start normal, with variance `2/IN`.
    ///
    /// # Panics
    /// If the method binarizes nothing.
    #[track_caller]
    pub fn new(
        params: &mut Params,
        name: &str,
        [from, to]: [usize; 2],
        method: &Method,
        rng: &mut Rng,
    ) -> Self {
        let start = kaiming([from, to], rng);
        let weight = Kernel::new(params, name, start, method);
        let inputs = method.activations.as_ref().map(|a| Inputs::new(params, name, &[from], a));
        let gain = method.outer_gain.then(|| {
            params.add(format!("{name}.gain.channels"), Role::Weight, Tensor::full([to], 1.0))
        });
        BinLinear { name: name.into(), weight, inputs, gain }
    }
}

impl Module for BinLinear {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let _layer = tape.layer(&self.name, || {
            let params = tape.params();
            let &[to, from] = self.weight.shape(params) else { unreachable!("made of two sizes") };
            let gain = self.gain.map_or(0, |_| to);
            LayerNote {
                kind: "binary linear",
                output: vec![to],
                ..self.weight.note(params, self.inputs.as_ref(), gain, to * from)
            }
        });
        let y = match (&self.weight, &self.inputs) {
            (Kernel::Signs(w), Some(inputs)) => inputs.linear(x, &w.ready(tape)),
            (Kernel::Signs(w), None) => x.linear(&w.ready(tape).binarized()),
            (Kernel::Float(w), Some(inputs)) => inputs.binarized(x).linear(&tape.param(*w)),
            (Kernel::Float(w), None) => x.linear(&tape.param(*w)),
        };
        self.gain.map_or(y.clone(), |gain| y.mul_channels(&tape.param(gain)))
    }
}

/// The hidden dense layer of a method: binary, or a float one where everything stays float.
pub fn linear(
    params: &mut Params,
    name: &str,
    sizes: [usize; 2],
    method: &Method,
    rng: &mut Rng,
) -> Box<dyn Module> {
    match method.is_float() {
        true => Box::new(Linear::hidden(params, name, sizes, rng)),
        false => Box::new(BinLinear::new(params, name, sizes, method, rng)),
    }
}
