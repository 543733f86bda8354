//! What binarization is: numbers become +1 or -1 on the way there, and something stands in for the
//! derivative of that on the way back.
//!
//! | part | where |
//! | --- | --- |
//! | the sign of activations: `x.binarize(&estimator)` | `sign` |
//! | the curves whose slope replaces the derivative of the sign | [`estimator`](mod@estimator), [`Dte`] in `dte` |
//! | what happens before a sign: [`Part`], and all built-in ones | `part`, [`Rotate`] in `rotate`; `standardize` (IMB) in `imb` |
//! | what stands for a sign while it learns: parts as well | [`Noise`] in `noise`, [`Stochastic`] in `stochastic`, [`Progressive`] in `progressive` |
//! | the scale that goes with the sign of weights | [`Scale`] in `scale` |
//! | convolution and dense layer computed from the bits | `conv`, `dense` |
//! | one layer: weights, inputs, the levels that signs stand for | [`Weights`], [`Activations`] in `layer` |
//! | which of these a published method uses | [`Method`] in `method`, [`METHODS`] in `methods` |
//! | a method of one's own, written down | [`recipe`] |
//! | the distance of a representation from a full-precision teacher's: `x.rbd(&teacher)` | `rbd` |
//! | what a teacher counts in the loss: [`Distill`] | `distill` |
//!
//! There are two doors to a binary layer, and they mean the same: the readable one,
//! `x.binarize(&a).conv2d(&w.binarize_weights(&scale, &b), how)`, and its fast twin
//! `x.bin_conv2d(&w, &scale, how, pad, [&b, &a])`, which computes from bits and saves bits.

mod conv;
mod dense;
mod distill;
mod dte;
pub mod estimator;
mod imb;
mod layer;
mod method;
mod methods;
mod noise;
mod part;
mod progressive;
mod rbd;
pub mod recipe;
mod rotate;
mod scale;
mod sign;
mod stochastic;

pub use dirnet_kernels::bits::{Pad, sign};
pub use distill::Distill;
pub use dte::{Bound, Dte};
pub use estimator::{
    ApproxSign, Dsq, Ede, Elements, Estimator, Expression, Fda, FourierSum, Gaussian, HalfCosine,
    Identity, Parabola, Power, Rbnn, Reste, Ste, Steepening, SwishSign, Tanh, check_estimator,
    estimator,
};
pub use layer::{Activations, Inputs, Latent, Ready, Weights};
pub use method::{Between, Method};
pub use methods::{METHODS, MethodEntry};
pub use noise::Noise;
pub use part::{
    Adapt, Centre, Chain, Learned, Normalize, Part, Rectify, Shift, SignAndMean, Spread,
    Standardize, Threshold,
};
pub use progressive::Progressive;
pub use rotate::Rotate;
pub use scale::Scale;
pub use stochastic::Stochastic;
