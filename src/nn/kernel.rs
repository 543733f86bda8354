//! The weights of a layer of which something is binary: signs, or floats against binary inputs.

use crate::binarize::{Inputs, Latent, Method};
use crate::watch::LayerNote;
use crate::{ParamId, Params, Role, Tensor};

#[derive(Clone, Debug)]
pub(super) enum Kernel {
    /// Their signs are what counts.
    Signs(Latent),
    /// They are used as they are.
    Float(ParamId),
}

impl Kernel {
    #[track_caller]
    pub(super) fn new(params: &mut Params, name: &str, start: Tensor, method: &Method) -> Self {
        assert!(!method.is_float(), "a binary layer {name}: {method} binarizes nothing");
        match &method.weights {
            Some(recipe) => Kernel::Signs(Latent::new(params, name, start, recipe)),
            None => Kernel::Float(params.add(format!("{name}.weight"), Role::Weight, start)),
        }
    }

    pub(super) fn is_binary(&self) -> bool {
        matches!(self, Kernel::Signs(_))
    }

    pub(super) fn shape<'p>(&self, params: &'p Params) -> &'p [usize] {
        match self {
            Kernel::Signs(latent) => latent.shape(params),
            Kernel::Float(id) => params[*id].value.shape(),
        }
    }

    /// Parameters and multiply-adds of the layer; `gain` is how many numbers multiply
    /// its output.
    pub(super) fn note(
        &self,
        params: &Params,
        inputs: Option<&Inputs>,
        gain: usize,
        macs: usize,
    ) -> LayerNote {
        let shape = self.shape(params);
        let (o, taps) = (shape[0], shape[1..].iter().product::<usize>());
        let (params_1bit, params_32bit) = match self {
            Kernel::Signs(latent) => (o * taps, latent.extra(params)),
            Kernel::Float(_) => (0, o * taps),
        };
        let of_inputs = inputs.map_or(0, |inputs| inputs.extra(params));
        let binary = self.is_binary() && inputs.is_some();
        let (macs_1bit, macs_32bit) = if binary { (macs, 0) } else { (0, macs) };
        LayerNote {
            params_1bit,
            params_32bit: params_32bit + of_inputs + gain,
            macs_1bit,
            macs_32bit,
            ..LayerNote::default()
        }
    }
}
