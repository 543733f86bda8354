//! The definitions, as loops that need no explanation.
//!
//! Every kernel is held to its twin here, which has the same name and arguments, computes in double
//! precision and rounds at the end. Nothing here is fast, parallel or clever.

mod conv;
mod dense;
mod norm;
mod pool;

pub use conv::{conv2d, conv2d_dw, conv2d_dx};
pub use dense::{gemm, log_softmax, log_softmax_dx};
pub use norm::{
    batch_moments, batch_norm, batch_norm_backward, standardize_rows, standardize_rows_dx,
};
pub use pool::{avg_pool2d, avg_pool2d_dx, max_pool2d, max_pool2d_dx};
