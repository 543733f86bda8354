//! dirnet
#![forbid(unsafe_code)]

pub mod binarize;
pub mod cli;
mod error;
mod files;
mod gradcheck;
pub mod models;
pub mod nn;
mod npz;
pub mod ops;
pub mod optim;
mod params;
mod spec;
mod tape;
pub mod train;
pub mod tensor;
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
