//! Convolutions, float and binary.

use super::Module;
use crate::binarize::{Estimator, Method, Pad, WeightRule};
use crate::ops::Conv;
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};
use dirnet_kernels::ConvGeom;
use std::sync::Arc;

/// Channels in and out, and the side of the filter.
pub type Filter = [usize; 3];

/// Filters drawn from a normal distribution of variance `2/fan-in` (He et al., 2015, arXiv
/// 1502.01852).
fn kaiming([from, to, k]: Filter, how: Conv, rng: &mut Rng) -> Tensor {
    let shape = [to, from / how.groups, k, k];
    let fan_in = shape[1..].iter().product::<usize>();
    Tensor::randn(shape, (2.0 / fan_in as f32).sqrt(), rng)
}

/// A convolution without a bias: a batch norm follows.
#[derive(Clone, Debug)]
pub struct Conv2d {
    name: String,
    weight: ParamId,
    how: Conv,
}

impl Conv2d {
    /// Adds `NAME.weight` (`OUT IN/groups K K`) to `params`.
    pub fn new(params: &mut Params, name: &str, filter: Filter, how: Conv, rng: &mut Rng) -> Self {
        let weight = kaiming(filter, how, rng);
        let weight = params.add(format!("{name}.weight"), Role::Weight, weight);
        Conv2d { name: name.into(), weight, how }
    }
}

impl Module for Conv2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let weight = tape.param(self.weight);
        let _layer = tape.layer(&self.name, || {
            let g = ConvGeom::new(x.shape(), weight.shape(), self.how);
            LayerNote {
                kind: "conv",
                output: g.y()[1..].to_vec(),
                params_32bit: g.w_len(),
                macs_32bit: g.macs() / g.n,
                bytes_packed: 4 * g.w_len(),
                ..LayerNote::default()
            }
        });
        x.conv2d(&weight, self.how)
    }
}

/// A convolution whose weights are signs, and its inputs too unless they stay float.
#[derive(Clone, Debug)]
pub struct BinConv2d {
    name: String,
    weight: ParamId,
    how: Conv,
    rule: WeightRule,
    activations: Option<Arc<dyn Estimator>>,
}

impl BinConv2d {
    /// Adds `NAME.weight` (`OUT IN/groups K K`, latent) to `params`.
    pub fn new(
        params: &mut Params,
        name: &str,
        filter: Filter,
        how: Conv,
        rule: WeightRule,
        activations: Option<Arc<dyn Estimator>>,
        rng: &mut Rng,
    ) -> Self {
        let weight = kaiming(filter, how, rng);
        let weight = params.add(format!("{name}.weight"), Role::Latent, weight);
        BinConv2d { name: name.into(), weight, how, rule, activations }
    }
}

impl Module for BinConv2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let weight = tape.param(self.weight);
        let _layer = tape.layer(&self.name, || {
            let g = ConvGeom::new(x.shape(), weight.shape(), self.how);
            let macs = g.macs() / g.n;
            let (macs_1bit, macs_32bit) =
                if self.activations.is_some() { (macs, 0) } else { (0, macs) };
            LayerNote {
                kind: "binary conv",
                output: g.y()[1..].to_vec(),
                params_1bit: g.w_len(),
                macs_1bit,
                macs_32bit,
                bytes_packed: g.o * g.taps().div_ceil(8),
                binary_conv: self.activations.is_some().then_some(g),
                ..LayerNote::default()
            }
        });
        match &self.activations {
            Some(e) => x.bin_conv2d(&weight, self.how, Pad::Zero, &self.rule, e),
            None => x.conv2d(&weight.binarize_weights(&self.rule), self.how),
        }
    }
}

/// The hidden convolution of a method: binary, or a float one where weights stay float.
pub fn conv2d(
    params: &mut Params,
    name: &str,
    filter: Filter,
    how: Conv,
    method: &Method,
    rng: &mut Rng,
) -> Box<dyn Module> {
    match &method.weights {
        None => Box::new(Conv2d::new(params, name, filter, how, rng)),
        Some(rule) => {
            let (rule, activations) = (rule.clone(), method.activations.clone());
            Box::new(BinConv2d::new(params, name, filter, how, rule, activations, rng))
        }
    }
}
