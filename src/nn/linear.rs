//! Dense layers, float and binary.

use super::Module;
use crate::binarize::{Estimator, Method, WeightRule};
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};
use std::sync::Arc;

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
    weight: ParamId,
    rule: WeightRule,
    activations: Option<Arc<dyn Estimator>>,
}

impl BinLinear {
    /// Adds `NAME.weight` (`OUT IN`, latent) to `params`; it starts normal, with variance `2/IN`.
    pub fn new(
        params: &mut Params,
        name: &str,
        [from, to]: [usize; 2],
        rule: WeightRule,
        activations: Option<Arc<dyn Estimator>>,
        rng: &mut Rng,
    ) -> Self {
        let weight = Tensor::randn([to, from], (2.0 / from as f32).sqrt(), rng);
        let weight = params.add(format!("{name}.weight"), Role::Latent, weight);
        BinLinear { name: name.into(), weight, rule, activations }
    }
}

impl Module for BinLinear {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let weight = tape.param(self.weight);
        let _layer = tape.layer(&self.name, || {
            let (to, numbers) = (weight.shape()[0], weight.value().len());
            let (macs_1bit, macs_32bit) =
                if self.activations.is_some() { (numbers, 0) } else { (0, numbers) };
            LayerNote {
                kind: "binary linear",
                output: vec![to],
                params_1bit: numbers,
                macs_1bit,
                macs_32bit,
                bytes_packed: to * weight.shape()[1].div_ceil(8),
                ..LayerNote::default()
            }
        });
        match &self.activations {
            Some(estimator) => x.bin_linear(&weight, &self.rule, estimator),
            None => x.linear(&weight.binarize_weights(&self.rule)),
        }
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
        Some(rule) => {
            let (rule, activations) = (rule.clone(), method.activations.clone());
            Box::new(BinLinear::new(params, name, sizes, rule, activations, rng))
        }
    }
}
