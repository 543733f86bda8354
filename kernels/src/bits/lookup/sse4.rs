//! Vectors of SSE, whose bytes SSSE3 can shuffle.

use super::tiles::{self, Job, Vector};
use super::{Sum, TABLE};
use std::arch::x86_64::*;

/// # Safety
/// The machine has SSSE3, SSE4.1 and POPCNT; `job` is as [`tiles::all`] asks.
#[target_feature(enable = "ssse3,sse4.1,popcnt")]
pub(super) unsafe fn all<T: Sum>(job: Job<'_, T>) {
    // SAFETY: the caller's promise.
    unsafe { tiles::all::<Sse, T>(job) }
}

#[derive(Clone, Copy)]
struct Sse(__m128i);

// SAFETY of this whole block: its functions are inlined into `all`, which is called only where
// `simd::available` has found SSSE3 and SSE4.1; a row of the table is 16 bytes, aligned, and there is
// one for each byte. Whoever writes vouches for the places.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Sse {
    #[inline(always)]
    fn zero() -> Self {
        Sse(unsafe { _mm_setzero_si128() })
    }
    #[inline(always)]
    fn row(w: u8) -> Self {
        Sse(unsafe { _mm_load_si128(TABLE.as_ptr().add(usize::from(w)).cast()) })
    }
    #[inline(always)]
    fn find(row: Self, x: Self) -> Self {
        Sse(unsafe { _mm_shuffle_epi8(row.0, x.0) })
    }
    #[inline(always)]
    fn add_bytes(self, b: Self) -> Self {
        Sse(unsafe { _mm_add_epi8(self.0, b.0) })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Sse(unsafe { _mm_add_epi16(self.0, b.0) })
    }
    #[inline(always)]
    fn over_16(self) -> Self {
        Sse(unsafe { _mm_srli_epi16::<4>(self.0) })
    }
    #[inline(always)]
    fn high(self) -> Self {
        Sse(unsafe { _mm_srli_epi16::<8>(self.0) })
    }
    #[inline(always)]
    fn minus_16(self, b: Self) -> Self {
        Sse(unsafe {
            let less = _mm_sub_epi16(self.0, _mm_slli_epi16::<4>(b.0));
            _mm_and_si128(less, _mm_set1_epi16(0xFF))
        })
    }
    #[inline(always)]
    unsafe fn write_integers(even: Self, odd: Self, from: *const i16, y: *mut i16) {
        unsafe {
            let sums = [_mm_unpacklo_epi16(even.0, odd.0), _mm_unpackhi_epi16(even.0, odd.0)];
            for (i, sums) in sums.into_iter().enumerate() {
                let from = _mm_loadu_si128(from.add(8 * i).cast());
                let less = _mm_sub_epi16(from, _mm_slli_epi16::<1>(sums));
                _mm_storeu_si128(y.add(8 * i).cast(), less);
            }
        }
    }
    #[inline(always)]
    unsafe fn write_floats(even: Self, odd: Self, from: *const f32, y: *mut f32) {
        unsafe {
            let low = _mm_unpacklo_epi16(even.0, odd.0);
            let high = _mm_unpackhi_epi16(even.0, odd.0);
            let sums = [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)];
            for (i, sums) in sums.into_iter().enumerate() {
                let sums = _mm_cvtepi32_ps(_mm_cvtepu16_epi32(sums));
                let less = _mm_sub_ps(_mm_loadu_ps(from.add(4 * i)), _mm_add_ps(sums, sums));
                _mm_storeu_ps(y.add(4 * i), less);
            }
        }
    }
}
