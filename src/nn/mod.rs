//! Layers: the names of some parameters, and a few operations.

mod between;
mod conv;
mod kernel;
mod linear;
mod norm;
mod squeeze;

pub use between::Between;
pub use conv::{BinConv2d, Conv2d, conv2d};
use kernel::Kernel;
pub use linear::{BinLinear, Linear, linear};
pub use norm::BatchNorm;
pub use squeeze::SqueezeExcitation;

use crate::Var;

/// Anything with a forward pass. It holds no numbers of its own, those are in
/// [`Params`](crate::Params), and changes nothing when it runs.
///
/// ```
/// use dirnet::{Params, Rng, Tape, Tensor, Var, nn::{Linear, Module}};
///
/// struct Net { hidden: Linear, out: Linear }
///
/// impl Module for Net {
///     fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
///         self.out.forward(&self.hidden.forward(x).relu())
///     }
/// }
///
/// let (mut params, mut rng) = (Params::new(), Rng::seed(0));
/// let net = Net {
///     hidden: Linear::new(&mut params, "hidden", 4, 8, &mut rng),
///     out: Linear::new(&mut params, "out", 8, 3, &mut rng),
/// };
/// let tape = Tape::eval(&params);
/// assert_eq!(net.forward(&tape.constant(Tensor::zeros([2, 4]))).shape(), [2, 3]);
/// ```
pub trait Module {
    /// The output for a batch.
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t>;
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        (**self).forward(x)
    }
}

/// What stands between two layers: [`Relu`](Activation::Relu) in nets whose activations stay float;
/// [`Hardtanh`](Activation::Hardtanh) before a sign, where a `Relu` would leave nothing but +1.
pub use crate::ops::Activation;

impl Module for Activation {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        match self {
            Activation::Identity => x.clone(),
            Activation::Relu => x.relu(),
            Activation::Hardtanh => x.hardtanh(),
        }
    }
}
