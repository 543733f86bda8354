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

    /// Parameters, multiply-adds and packed bytes of the layer; `gain` is how many numbers multiply
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
        let (params_1bit, float, bytes, [learned, needed]) = match self {
            Kernel::Signs(latent) => (o * taps, 0, o * taps.div_ceil(8), latent.extra(params)),
            Kernel::Float(_) => (0, o * taps, 4 * o * taps, [0, 0]),
        };
        let [of_inputs, needed_of_inputs] = inputs.map_or([0, 0], |inputs| inputs.extra(params));
        let binary = self.is_binary() && inputs.is_some();
        let (macs_1bit, macs_32bit) = if binary { (macs, 0) } else { (0, macs) };
        LayerNote {
            params_1bit,
            params_32bit: float + learned + of_inputs + gain,
            macs_1bit,
            macs_32bit,
            bytes_packed: bytes + 4 * (needed + needed_of_inputs + gain),
            ..LayerNote::default()
        }
    }
}
