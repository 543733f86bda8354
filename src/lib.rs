//! Binary neural networks from scratch, on a CPU: a tape, operations with their way back under their
//! way there, and kernels that train with the bits.
//!
//! In a binary network weights and activations are +1 or -1. The forward pass is then a matter of
//! `xnor` and counting, the derivative of the sign is zero, and the art lies in what stands in for it.
//! This crate makes that art visible: an [`Estimator`] is two scalar functions and a name, an
//! operation is read on one screen, and the same seed gives the same bits.
//!
//! # A training loop
//!
//! ```
//! use dirnet::{Params, Rng, Tape, binarize::Dte, datasets, models, train};
//! use dirnet::{nn::Module, optim::Sgd};
//! # fn main() {
//! const EPOCHS: u64 = 10;
//! let data = datasets::digits();
//! let mut rng = Rng::seed(7);
//! let mut params = Params::new();
//! let net = models::bin_mlp(&mut params, &[64, 256, 10], Dte::default(), &mut rng);
//! let mut opt = Sgd::new(0.05).momentum(0.9).cosine();
//!
//! for epoch in 0..EPOCHS {
//!     for batch in data.train_batches(64).seed(7).epoch(epoch) {
//!         let tape = Tape::train(&params).at(epoch as f32 / EPOCHS as f32);
//!         let logits = net.forward(&tape.constant(&batch));
//!         let loss = logits.cross_entropy(batch.labels());
//!         let grads = loss.backward();          // walks the tape once, freeing as it goes
//!         opt.step(&mut params, &grads);        // the only line that changes the model
//!     }
//! }
//! let score = train::evaluate(&net, &params, data.test_batches(450));
//! assert!(score.accuracy > 0.9, "{score:?}");
//! # }
//! ```
//!
//! Numbers live in [`Params`], one step lives on a [`Tape`], and a [`Var`] is a value on it. Gradients
//! are a value of their own, [`Grads`]: nothing is stored in the parameters, nothing has to be reset.
//! The tape borrows the parameters, so nothing can change under a running step.
//!
//! # Your own estimator
//!
//! ```
//! use dirnet::{Estimator, Params, Rng, check_estimator, models};
//!
//! #[derive(Debug)]
//! struct Triangle;
//!
//! impl Estimator for Triangle {
//!     fn name(&self) -> &str { "triangle" }
//!     fn soft(&self, x: f32) -> f32 { let x = x.clamp(-2.0, 2.0); x - x * x.abs() / 4.0 }
//!     fn slope(&self, x: f32) -> f32 { (1.0 - x.abs() / 2.0).max(0.0) }
//! }
//!
//! # fn main() {
//! check_estimator(&Triangle);       // the slope is the derivative of the soft curve
//! let mut params = Params::new();
//! let net = models::bin_mlp(&mut params, &[64, 256, 10], Triangle, &mut Rng::seed(7));
//! # use dirnet::{Tape, datasets, nn::Module};
//! # let tape = Tape::train(&params);
//! # let batch = datasets::digits().train_batches(8).into_iter().next().unwrap();
//! # net.forward(&tape.constant(&batch)).cross_entropy(&batch.labels).backward();
//! # }
//! ```
//!
//! An operation of your own takes one call of [`Tape::record`], and [`gradcheck`] tells whether its
//! way back is right.
//!
//! # The floors
//!
//! Each floor stands on those below it and knows nothing of those above; a test keeps it so.
//!
//! | floor | what lives there |
//! | --- | --- |
//! | 0 | the crates `dirnet-kernels` (slices in, slices out; all the `unsafe`), [`datasets`], and `dirnet-engine` (the packed network and what runs it) |
//! | 1 | [`Tensor`], [`Error`], [`Spec`] (things chosen by name), [`watch`] (what a tape can note) |
//! | 2 | [`Params`] |
//! | 3 | [`Tape`], [`Var`], [`Grads`], [`gradcheck`](fn@gradcheck) |
//! | 4 | [`ops`]: the operations |
//! | 5 | [`binarize`]: signs, [estimators](mod@binarize::estimator), [`Dte`](binarize::Dte), IMB weights, [`Method`] |
//! | 6 | [`nn`]: layers; [`optim`]: optimisers and schedules |
//! | 7 | [`models`] |
//! | 8 | [`train`](mod@train): configuration, the loop, checkpoints, run folders |
//! | 9 | [`deploy`]: from a trained network to a packed one, and to ONNX |
//! | 10 | [`lab`]: comparisons of methods over seeds, curves of estimators |
//! | 11 | [`report`]: pictures |
//! | 12 | [`cli`]: the command |
//!
//! # What can be relied on
//!
//! - The same seed gives the same bits at any number of threads, and a run that was stopped and
//!   resumed ends with the same bits as one that was not. Between machines with other instruction
//!   sets sameness is promised for signs and integers, not for the last place of float sums.
//! - `sign(0)` is +1, of either zero. Padding of a ±1 image is true zero padding.
//! - Wrong shapes are bugs: they panic at the caller's line with the operation, both shapes and the
//!   rule. What the world supplies, files and settings, comes back as an [`Error`].
#![forbid(unsafe_code)]

mod archive;
pub mod binarize;
pub mod cli;
pub mod deploy;
mod error;
mod files;
mod gradcheck;
pub mod lab;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
mod params;
pub mod report;
mod spec;
mod tape;
pub mod tensor;
pub mod train;
pub mod watch;

pub use binarize::{Estimator, Method, check_estimator};
pub use dirnet_datasets::{self as datasets, Rng};
pub use error::Error;
pub use gradcheck::{gradcheck, gradcheck_at};
pub use ops::Conv;
pub use params::{Param, ParamId, Params, Role};
pub use spec::{Options, Spec};
pub use tape::{Grads, LayerGuard, Saved, Tape, Var};
pub use tensor::Tensor;
