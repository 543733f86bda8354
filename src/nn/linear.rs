//! Dense layers, float and binary.

use super::Module;
use crate::binarize::{Inputs, Latent, Method};
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};

/// A dense layer with a bias: `y = x · wᵀ + b`.
///
/// Starts as PyTorch does, with both uniform in `±1/√in`.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: ParamId,
    bias: ParamId,
}

impl Linear {
    /// Adds `NAME.weight` (`OUT IN`) and `NAME.bias` to `params`.
    pub fn new(params: &mut Params, name: &str, from: usize, to: usize, rng: &mut Rng) -> Self {
        let limit = (from as f32).sqrt().recip();
        let weight = Tensor::uniform([to, from], limit, rng);
        let bias = Tensor::uniform([to], limit, rng);
        Linear {
            name: name.into(),
            weight: params.add(format!("{name}.weight"), Role::Weight, weight),
            bias: params.add(format!("{name}.bias"), Role::Weight, bias),
        }
    }
}

impl Module for Linear {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let (weight, bias) = (tape.param(self.weight), tape.param(self.bias));
        let (to, numbers) = (bias.value().len(), weight.value().len());
        let _layer = tape.layer(&self.name, || LayerNote {
            kind: "linear",
            output: vec![to],
            params_32bit: numbers + to,
            macs_32bit: numbers,
            bytes_packed: 4 * (numbers + to),
            ..LayerNote::default()
        });
        x.linear(&weight).add_channels(&bias)
    }
}

/// A dense layer whose weights are signs, and its inputs too unless they stay float. No bias: a
/// batch norm follows.
#[derive(Clone, Debug)]
pub struct BinLinear {
    name: String,
    weight: Latent,
    inputs: Option<Inputs>,
    gain: Option<ParamId>,
}

impl BinLinear {
    /// Adds `NAME.weight` (`OUT IN`, latent) and what the method's parts learn to `params`; the
    /// weights start normal, with variance `2/IN`.
    ///
    /// # Panics
    /// If the method has no binary weights.
    #[track_caller]
    pub fn new(
        params: &mut Params,
        name: &str,
        [from, to]: [usize; 2],
        method: &Method,
        rng: &mut Rng,
    ) -> Self {
        let recipe = method.weights.as_ref().expect("BinLinear: a method with binary weights");
        let start = Tensor::randn([to, from], (2.0 / from as f32).sqrt(), rng);
        let weight = Latent::new(params, name, start, recipe);
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
            let numbers = to * from;
            let (macs_1bit, macs_32bit) =
                if self.inputs.is_some() { (numbers, 0) } else { (0, numbers) };
            let extra = self.gain.map_or(0, |_| to)
                + self.weight.extra(params)
                + self.inputs.as_ref().map_or(0, |inputs| inputs.extra(params));
            LayerNote {
                kind: "binary linear",
                output: vec![to],
                params_1bit: numbers,
                params_32bit: extra,
                macs_1bit,
                macs_32bit,
                bytes_packed: to * from.div_ceil(8) + 4 * extra,
                ..LayerNote::default()
            }
        });
        let weight = self.weight.ready(tape);
        let y = match &self.inputs {
            Some(inputs) => inputs.linear(x, &weight),
            None => x.linear(&weight.binarized()),
        };
        self.gain.map_or(y.clone(), |gain| y.mul_channels(&tape.param(gain)))
    }
}

/// The hidden dense layer of a method: binary, or a float one where weights stay float.
pub fn linear(
    params: &mut Params,
    name: &str,
    sizes: [usize; 2],
    method: &Method,
    rng: &mut Rng,
) -> Box<dyn Module> {
    match &method.weights {
        None => Box::new(Linear::new(params, name, sizes[0], sizes[1], rng)),
        Some(_) => Box::new(BinLinear::new(params, name, sizes, method, rng)),
    }
}
