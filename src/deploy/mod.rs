//! From a trained network to a packed one, and the proof that nothing changed.
//!
//! | step | where |
//! | --- | --- |
//! | write down what an evaluating tape computes, as a [`Graph`] | `trace` |
//! | join what follows a binary convolution to it, as far as no bit changes | `fold` |
//! | store each array in the smallest form that says exactly what it is | [`pack`] |
//! | run both side by side and compare every number | [`verify`] |
//! | write it for other runtimes | [`onnx`] |
//!
//! The packed network itself, its file and what runs it are the crate [`dirnet_engine`], which needs
//! nothing of this one.

mod fold;
pub mod onnx;
mod pack;
mod trace;
mod verify;

pub use dirnet_engine::{Graph, Net, Packed};
pub(crate) use pack::laid_out;
pub use pack::{FloatLayer, Floats, Report, card, pack};
pub use trace::trace;
pub use verify::{Difference, verify};
