//! What binarization is: numbers become +1 or -1 on the way there, and something stands in for the
//! derivative of that on the way back.
//!
//! | part | where |
//! | --- | --- |
//! | the sign of activations: `x.binarize(&estimator)` | `sign` |
//! | the curves whose slope replaces the derivative of the sign | [`estimator`](mod@estimator), [`Dte`] in `dte` |
//! | weights made ready for their sign: centred, standardised (IMB) | `imb` |
//! | the scale that goes with the sign of weights | [`Scale`] in `scale` |
//! | convolution and dense layer computed from the bits | `conv`, `dense` |
//! | the distance of a representation from a full-precision teacher's: `x.rbd(&teacher)` | `rbd` |
//! | which of these a published method uses | [`Method`] in `method` |
//!
//! There are two doors to a binary layer, and they mean the same: the readable one,
//! `x.binarize(&e).conv2d(&w.binarize_weights(&rule), how)`, and its fast twin
//! `x.bin_conv2d(&w, how, pad, &rule, &e)`, which computes from bits and saves bits.

mod conv;
mod dense;
mod dte;
pub mod estimator;
mod imb;
mod method;
mod rbd;
mod scale;
mod sign;

pub use dirnet_kernels::bits::{Pad, sign};
pub use dte::{Bound, Dte};
pub use estimator::{
    ApproxSign, Ede, Estimator, Identity, Ste, Steepening, Tanh, check_estimator, estimator,
};
pub use imb::WeightRule;
pub use method::{METHODS, Method};
pub use scale::Scale;
