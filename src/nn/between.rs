//! What stands between two layers: a fixed activation, or a learned one.

use super::{Activation, BatchNorm, Module};
use crate::binarize::{self, Method};
use crate::watch::LayerNote;
use crate::{ParamId, Params, Role, Tensor, Var};

/// What stands between two layers, as a method has it: a `Hardtanh`, `RPReLU` or maxout where a sign
/// follows, a `Relu` or swish where activations stay float.
#[derive(Clone, Debug)]
pub struct Between {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Fixed(Activation),
    Swish,
    Rprelu { before: ParamId, slope: ParamId, behind: ParamId },
    Maxout { above: ParamId, below: ParamId },
}

impl Between {
    /// What is learned is added to `params`, a number a channel each: `NAME.before` (zeros),
    /// `NAME.slope` (a quarter) and `NAME.behind` (zeros), or `NAME.above` (ones) and `NAME.below` (a
    /// quarter).
    pub fn new(params: &mut Params, name: &str, channels: usize, method: &Method) -> Self {
        let mut add = |what: &str, x| {
            params.add(format!("{name}.{what}"), Role::Weight, Tensor::full([channels], x))
        };
        let kind = match (&method.activations, method.between) {
            (None, _) => Kind::Fixed(Activation::Relu),
            (Some(_), binarize::Between::Hardtanh) => Kind::Fixed(Activation::Hardtanh),
            (Some(_), binarize::Between::Rprelu) => Kind::Rprelu {
                before: add("before", 0.0),
                slope: add("slope", 0.25),
                behind: add("behind", 0.0),
            },
            (Some(_), binarize::Between::Maxout) => {
                Kind::Maxout { above: add("above", 1.0), below: add("below", 0.25) }
            }
        };
        Between { name: name.into(), kind }
    }

    /// The same with a swish in place of the `Relu` (Ramachandran et al., 2017, arXiv 1710.05941). Before
    /// a sign it changes nothing.
    pub fn or_swish(self) -> Self {
        match self.kind {
            Kind::Fixed(Activation::Relu) => Between { kind: Kind::Swish, ..self },
            _ => self,
        }
    }

    /// It behind a batch norm and a sum, in fewer passes over memory where it is fixed.
    pub fn behind<'t>(&self, norm: &BatchNorm, x: &Var<'t>, residual: Option<&Var<'t>>) -> Var<'t> {
        match self.kind {
            Kind::Fixed(activation) => norm.forward_act(x, residual, activation),
            Kind::Swish | Kind::Rprelu { .. } | Kind::Maxout { .. } => {
                self.forward(&norm.forward_act(x, residual, Activation::Identity))
            }
        }
    }
}

impl Module for Between {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let layer = |kind, a_channel: usize| {
            let numbers = a_channel * x.shape()[1];
            tape.layer(&self.name, || LayerNote {
                kind,
                output: x.shape()[1..].to_vec(),
                params_32bit: numbers,
                ..LayerNote::default()
            })
        };
        match self.kind {
            Kind::Fixed(activation) => activation.forward(x),
            Kind::Swish => x.swish(),
            Kind::Rprelu { before, slope, behind } => {
                let _layer = layer("rprelu", 3);
                x.rprelu(&tape.param(before), &tape.param(slope), &tape.param(behind))
            }
            Kind::Maxout { above, below } => {
                let _layer = layer("maxout", 2);
                x.maxout(&tape.param(above), &tape.param(below))
            }
        }
    }
}
