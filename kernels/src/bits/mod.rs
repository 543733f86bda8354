//! The world of +-1: one bit a number, and the kernels that compute with them.
//!
//! **The bit.** [`sign`] gives -1 below zero and +1 elsewhere; a set bit is +1, a clear one -1.
//!
//! **Nibbles.** Four neighbouring channels of a pixel share the low half of a byte, channel `4q + b`
//! in bit `b`. What is missing to a multiple of four is clear, in images and filters alike, so that
//! it never tells the two apart.
//!
//! **Images** ([`Image`]) are planes of such bytes, `[N][groups][C/groups/4][H][W]`. Who runs a
//! [`Prepared`] convolution owns the planes: [`pack_planes`], [`transform`] and [`max_pool`] write them, and so
//! does the run before, as of one group.
//!
//! **Filters** ([`Filters`]) put two output channels in a byte, the even one below, the odd one
//! above: `[groups][O/groups/2][C/groups/4][KH][KW]`. A row of the lookup table belongs to each
//! such byte.
//!
//! **Matrices** ([`Rows`]) and masks ([`Mask`]) are words of 64 bits, first number in lowest bit; a
//! matrix begins each row with a new word. What such a word has beyond the last column is clear. Who
//! runs a [`PreparedDense`] layer owns the words; [`pack_rows`] writes them, and so does the run before.
//!
//! **Padding** ([`Pad`]) is true zero padding unless asked otherwise: what lies outside the image
//! contributes nothing. Where pixels are laid out for a convolution, one outside is the byte `0x80`, to
//! which every table answers 0.
//!
//! **The true count.** A sum of `k` products of +-1 is `k - 2·(how often the signs differ)`, where
//! `k` counts the taps inside the image and the channels that exist, nothing else. Such sums are
//! exact: integers below 2^24, held by `f32`.
//!
//! Two ideas carry the rest. Forward, `lookup` finds how often four signs of a pixel differ from those
//! of two filters by one shuffle of bytes; [`Transform`] says what a prepared kernel makes of the sums while
//! the cache holds them. Backward, where one operand is a float, `sums` finds the
//! sum of four products by one load.

mod conv;
mod dense;
mod grad;
mod grad_w;
mod grad_x;
mod lookup;
mod mask;
mod pack;
mod paths;
mod pool;
mod prepared;
mod prepared_dense;
mod stage;
mod sums;
mod transform;
mod words;

pub use conv::{conv2d, conv2d_i16, conv2d_i16_moments};
pub use dense::{Rows, dense, dense_dw, dense_dx};
pub use grad::{conv2d_backward, conv2d_dw, conv2d_dx, scaled_conv2d_dx};
pub use mask::{Mask, masked, masked_in_place};
pub use pack::{Filters, Image, Pad, pack_planes};
pub use paths::{fast_dw, fast_dx};
pub use pool::max_pool;
pub use prepared::Prepared;
pub use prepared_dense::{PreparedDense, pack_rows};
pub use transform::{Thresholds, Transform, transform};

/// -1 where `x < 0`, +1 elsewhere: zeros of both signs give +1.
///
/// So does NaN, which no sign can hold; packing tells of it with `has_nan`.
///
/// ```
/// use dirnet_kernels::bits::sign;
/// assert_eq!([-2.0, -0.0, 0.0, 0.5].map(sign), [-1.0, 1.0, 1.0, 1.0]);
/// ```
#[inline]
pub fn sign(x: f32) -> f32 {
    if x < 0.0 { -1.0 } else { 1.0 }
}

/// The bit of `sign(x)`.
#[inline(always)]
fn bit(x: f32) -> u8 {
    1 - u8::from(x < 0.0)
}
