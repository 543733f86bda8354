//! Convolutions, float and binary.

use super::{Kernel, Module};
use crate::binarize::{Inputs, Method};
use crate::ops::Conv;
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};
use dirnet_kernels::ConvGeom;

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
                ..LayerNote::default()
            }
        });
        x.conv2d(&weight, self.how)
    }
}

/// A convolution whose weights are signs, or its inputs, or both, as the method has it.
#[derive(Clone, Debug)]
pub struct BinConv2d {
    name: String,
    weight: Kernel,
    inputs: Option<Inputs>,
    gain: Option<[ParamId; 3]>,
    how: Conv,
}

impl BinConv2d {
    /// Adds `NAME.weight` (`OUT IN/groups K K`; latent, if its signs are taken) and what the method's
    /// parts learn to `params`. `input` are height and width of the images.
    ///
    /// # Panics
    /// If the method binarizes nothing.
    #[track_caller]
    pub fn new(
        params: &mut Params,
        name: &str,
        filter: Filter,
        how: Conv,
        input: [usize; 2],
        method: &Method,
        rng: &mut Rng,
    ) -> Self {
        let [from, to, _] = filter;
        let weight = Kernel::new(params, name, kaiming(filter, how, rng), method);
        let shape = [from, input[0], input[1]];
        let inputs = method.activations.as_ref().map(|a| Inputs::new(params, name, &shape, a));
        let gain = method.outer_gain.then(|| {
            let g = ConvGeom::new(&[1, from, input[0], input[1]], weight.shape(params), how);
            [("channels", to), ("rows", g.oh), ("columns", g.ow)].map(|(what, n)| {
                params.add(format!("{name}.gain.{what}"), Role::Weight, Tensor::full([n], 1.0))
            })
        });
        BinConv2d { name: name.into(), weight, inputs, gain, how }
    }
}

impl Module for BinConv2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let _layer = tape.layer(&self.name, || {
            let params = tape.params();
            let g = ConvGeom::new(x.shape(), self.weight.shape(params), self.how);
            let gain: usize = self.gain.iter().flatten().map(|&id| params[id].value.len()).sum();
            let binary = self.weight.is_binary() && self.inputs.is_some();
            LayerNote {
                kind: "binary conv",
                output: g.y()[1..].to_vec(),
                binary_conv: binary.then_some(g),
                ..self.weight.note(params, self.inputs.as_ref(), gain, g.macs() / g.n)
            }
        });
        let y = match (&self.weight, &self.inputs) {
            (Kernel::Signs(w), Some(inputs)) => inputs.conv2d(x, &w.ready(tape), self.how),
            (Kernel::Signs(w), None) => x.conv2d(&w.ready(tape).binarized(), self.how),
            (Kernel::Float(w), Some(inputs)) => inputs.conv2d_float(x, &tape.param(*w), self.how),
            (Kernel::Float(w), None) => x.conv2d(&tape.param(*w), self.how),
        };
        let Some(gain) = self.gain else { return y };
        let &[n, o, h, w] = y.shape() else { unreachable!("a convolution's output") };
        let [channels, rows, columns] = gain.map(|id| tape.param(id));
        let outer = channels.reshape([o, 1]).matmul(&rows.reshape([1, h]));
        let outer = outer.reshape([o * h, 1]).matmul(&columns.reshape([1, w]));
        let size = o * h * w;
        y.reshape([n, size]).mul_channels(&outer.reshape([size])).reshape([n, o, h, w])
    }
}

/// The hidden convolution of a method: binary, or a float one where everything stays float. `input`
/// are height and width of the images.
pub fn conv2d(
    params: &mut Params,
    name: &str,
    filter: Filter,
    how: Conv,
    input: [usize; 2],
    method: &Method,
    rng: &mut Rng,
) -> Box<dyn Module> {
    match method.is_float() {
        true => Box::new(Conv2d::new(params, name, filter, how, rng)),
        false => Box::new(BinConv2d::new(params, name, filter, how, input, method, rng)),
    }
}
