//! The operations of a tape: each is one method of [`Var`](crate::Var), with its formula, its
//! forward pass and, under it, its way back.
//!
//! | file | operations |
//! | --- | --- |
//! | `elementwise` | `relu` `hardtanh` `sigmoid` `tanh` `swish` `exp` `ln` `sqrt` `square` `abs` `clamp` … |
//! | `bend` | `prelu` `rprelu` `maxout` |
//! | `arith` | `+ - * /` of two values of one shape, or with a number |
//! | `matmul` | `matmul` `linear` |
//! | `conv` | `conv2d` |
//! | `pool` | `max_pool2d` `avg_pool2d` `global_avg_pool` |
//! | `pixels` | `mul_pixels` |
//! | `drop` | `dropout` `drop_images` |
//! | `norm` | `batch_norm` `channel_affine` `add_channels` `mul_channels` |
//! | `norm_act` | `norm_act`: batch norm, a sum and an activation in one |
//! | `mix` | `mix`: a sum weighted by values |
//! | `reduce` | `sum` `mean` |
//! | `shape` | `reshape` `flatten` `transpose` `concat` `narrow` `pad_channels` `subsample` |
//! | `loss` | `log_softmax` `softmax` `cross_entropy` `mse` `smooth_l1` `kl_div` |
//!
//! To write another one, inside the crate or outside, see [`Tape::record`](crate::Tape::record).

mod arith;
mod bend;
mod conv;
mod drop;
mod elementwise;
mod loss;
mod matmul;
mod mix;
mod norm;
mod norm_act;
mod pixels;
mod pool;
mod reduce;
mod shape;

pub use dirnet_kernels::Conv;
pub use dirnet_kernels::norm_act::Activation;
pub use mix::mix;
pub use norm::Moments;
pub use shape::concat;
