//! Vectors of NEON.

use super::tiles::{self, Job, Vector};
use super::{Sum, TABLE};
use std::arch::aarch64::*;

/// # Safety
/// `job` is as [`tiles::all`] asks.
pub(super) unsafe fn all<T: Sum>(job: Job<'_, T>) {
    // SAFETY: the caller's promise; all machines of the target have NEON.
    unsafe { tiles::all::<Neon, T>(job) }
}

#[derive(Clone, Copy)]
struct Neon(uint8x16_t);

impl Neon {
    #[inline(always)]
    fn map(self, f: impl Fn(uint16x8_t) -> uint16x8_t) -> Self {
        self.zip(self, |a, _| f(a))
    }
    /// Of 16 bits each.
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(uint16x8_t, uint16x8_t) -> uint16x8_t) -> Self {
        // SAFETY: all machines of the target have NEON.
        unsafe {
            let sums = f(vreinterpretq_u16_u8(self.0), vreinterpretq_u16_u8(b.0));
            Neon(vreinterpretq_u8_u16(sums))
        }
    }
}

// SAFETY of this whole block: all machines of the target have NEON; a row of the table is 16 bytes, and
// there is one for each byte. Whoever writes vouches for the places.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Neon {
    #[inline(always)]
    fn zero() -> Self {
        Neon(unsafe { vdupq_n_u8(0) })
    }
    #[inline(always)]
    fn row(w: u8) -> Self {
        Neon(unsafe { vld1q_u8(TABLE[usize::from(w)].0.as_ptr()) })
    }
    #[inline(always)]
    fn find(row: Self, x: Self) -> Self {
        Neon(unsafe { vqtbl1q_u8(row.0, x.0) })
    }
    #[inline(always)]
    fn add_bytes(self, b: Self) -> Self {
        Neon(unsafe { vaddq_u8(self.0, b.0) })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| unsafe { vaddq_u16(a, b) })
    }
    #[inline(always)]
    fn over_16(self) -> Self {
        self.map(|a| unsafe { vshrq_n_u16::<4>(a) })
    }
    #[inline(always)]
    fn high(self) -> Self {
        self.map(|a| unsafe { vshrq_n_u16::<8>(a) })
    }
    #[inline(always)]
    fn minus_16(self, b: Self) -> Self {
        self.zip(b, |a, b| unsafe {
            vandq_u16(vsubq_u16(a, vshlq_n_u16::<4>(b)), vdupq_n_u16(0xFF))
        })
    }
    #[inline(always)]
    unsafe fn write_integers(even: Self, odd: Self, from: *const i16, y: *mut i16) {
        unsafe {
            for (i, sums) in side_by_side(even, odd).into_iter().enumerate() {
                let less = vsubq_u16(vld1q_u16(from.add(8 * i).cast()), vshlq_n_u16::<1>(sums));
                vst1q_u16(y.add(8 * i).cast(), less);
            }
        }
    }
    #[inline(always)]
    unsafe fn write_floats(even: Self, odd: Self, from: *const f32, y: *mut f32) {
        unsafe {
            let [low, high] = side_by_side(even, odd);
            let sums = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ];
            for (i, sums) in sums.into_iter().enumerate() {
                let sums = vcvtq_f32_u32(sums);
                let less = vsubq_f32(vld1q_f32(from.add(4 * i)), vaddq_f32(sums, sums));
                vst1q_f32(y.add(4 * i), less);
            }
        }
    }
}

/// The sums of a vector's pixels in their order.
#[inline(always)]
fn side_by_side(even: Neon, odd: Neon) -> [uint16x8_t; 2] {
    // SAFETY: all machines of the target have NEON.
    unsafe {
        let (even, odd) = (vreinterpretq_u16_u8(even.0), vreinterpretq_u16_u8(odd.0));
        [vzip1q_u16(even, odd), vzip2q_u16(even, odd)]
    }
}
