//! Vectors of AVX2.

use super::tiles::{self, Job, Vector};
use super::{Sum, TABLE};
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX2, FMA, BMI2 and POPCNT; `job` is as [`tiles::all`] asks.
#[target_feature(enable = "avx2,fma,bmi2,popcnt")]
pub(super) unsafe fn all<T: Sum>(job: Job<'_, T>) {
    // SAFETY: the caller's promise.
    unsafe { tiles::all::<Avx, T>(job) }
}

#[derive(Clone, Copy)]
struct Avx(__m256i);

// SAFETY of this whole block: its functions are inlined into `all`, which is called only where
// `simd::available` has found AVX2 and FMA; a row of the table is 16 bytes, aligned, and there is one
// for each byte. Whoever writes vouches for the places.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Avx {
    #[inline(always)]
    fn zero() -> Self {
        Avx(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    fn row(w: u8) -> Self {
        Avx(unsafe {
            let row = TABLE.as_ptr().add(usize::from(w)).cast();
            _mm256_broadcastsi128_si256(_mm_load_si128(row))
        })
    }
    #[inline(always)]
    fn find(row: Self, x: Self) -> Self {
        Avx(unsafe { _mm256_shuffle_epi8(row.0, x.0) })
    }
    #[inline(always)]
    fn add_bytes(self, b: Self) -> Self {
        Avx(unsafe { _mm256_add_epi8(self.0, b.0) })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Avx(unsafe { _mm256_add_epi16(self.0, b.0) })
    }
    #[inline(always)]
    fn over_16(self) -> Self {
        Avx(unsafe { _mm256_srli_epi16::<4>(self.0) })
    }
    #[inline(always)]
    fn high(self) -> Self {
        Avx(unsafe { _mm256_srli_epi16::<8>(self.0) })
    }
    #[inline(always)]
    fn minus_16(self, b: Self) -> Self {
        Avx(unsafe {
            let less = _mm256_sub_epi16(self.0, _mm256_slli_epi16::<4>(b.0));
            _mm256_and_si256(less, _mm256_set1_epi16(0xFF))
        })
    }
    #[inline(always)]
    unsafe fn write_integers(even: Self, odd: Self, from: *const i16, y: *mut i16) {
        unsafe {
            let low = _mm256_unpacklo_epi16(even.0, odd.0);
            let high = _mm256_unpackhi_epi16(even.0, odd.0);
            let [early, late] = [
                _mm256_permute2x128_si256::<0x20>(low, high),
                _mm256_permute2x128_si256::<0x31>(low, high),
            ];
            let (first, second) =
                (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast()));
            _mm256_storeu_si256(y.cast(), _mm256_sub_epi16(first, _mm256_slli_epi16::<1>(early)));
            _mm256_storeu_si256(
                y.add(16).cast(),
                _mm256_sub_epi16(second, _mm256_slli_epi16::<1>(late)),
            );
        }
    }
    #[inline(always)]
    unsafe fn write_floats(even: Self, odd: Self, from: *const f32, y: *mut f32) {
        unsafe {
            let low = _mm256_unpacklo_epi16(even.0, odd.0);
            let high = _mm256_unpackhi_epi16(even.0, odd.0);
            let sums = [
                _mm256_castsi256_si128(low),
                _mm256_castsi256_si128(high),
                _mm256_extracti128_si256::<1>(low),
                _mm256_extracti128_si256::<1>(high),
            ];
            for (i, sums) in sums.into_iter().enumerate() {
                let sums = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums));
                let from = _mm256_loadu_ps(from.add(8 * i));
                let less = _mm256_fnmadd_ps(_mm256_set1_ps(2.0), sums, from);
                _mm256_storeu_ps(y.add(8 * i), less);
            }
        }
    }
}
