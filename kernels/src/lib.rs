//! The kernels of `dirnet`: slices and sizes in, slices out; no tensor, no tape, no model.
//!
//! Conventions, everywhere:
//! - images are `N C H W`, filters `O C/groups KH KW`, matrices row major;
//! - arguments come as geometry, inputs, output last;
//! - outputs are overwritten, never added to, whatever they held before;
//! - gradients are kernels of their own, ending in `_dx` and `_dw`;
//! - every length is checked at the door, so that the inside may rely on it;
//! - the order of a sum depends on the geometry alone, never on threads.

pub mod bend;
pub mod bits;
pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod math;
#[doc(hidden)]
pub mod naive;
#[doc(hidden)]
pub mod naive_bits;
pub mod norm;
pub mod norm_act;
pub mod pages;
pub mod par;
pub mod pool;
pub mod reduce;
pub mod shape;
pub mod simd;
pub mod softmax;
pub mod yardstick;

mod ahead;
mod channels;
mod geom;
mod lanes;
mod pixels;
mod planes;
mod transpose;

pub use geom::{Conv, ConvGeom, PoolGeom, ShapeError};
