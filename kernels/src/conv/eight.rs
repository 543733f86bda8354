//! A vector register of eight floats.

use crate::simd;

/// Eight floats that stay in registers; spelled out, since the compiler left to itself may take
/// the floats of an array one by one.
///
/// # Safety
/// Every method asks for a machine that knows the instructions; pointers, for eight floats there,
/// or for one where it says so.
pub(super) trait Eight: Copy {
    unsafe fn zero() -> Self;
    /// Eight times the one float there.
    unsafe fn splat(one: *const f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    /// The floats of both in turn, first the first of `self`.
    unsafe fn weave(self, other: Self) -> (Self, Self);
    /// `self·a + b`
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
}

impl Eight for [f32; 8] {
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 8]
    }
    #[inline(always)]
    unsafe fn splat(one: *const f32) -> Self {
        // SAFETY: as the trait asks.
        [unsafe { *one }; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait asks.
        unsafe { *from.cast() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the trait asks.
        unsafe { *to.cast() = self }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] + other[l])
    }
    #[inline(always)]
    unsafe fn weave(self, other: Self) -> (Self, Self) {
        let from = |at: usize| if at.is_multiple_of(2) { self[at / 2] } else { other[at / 2] };
        (std::array::from_fn(from), std::array::from_fn(|l| from(l + 8)))
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|l| simd::mul_add::<{ simd::PORTABLE_FUSED }>(self[l], a[l], b[l]))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use super::Eight;
    use std::arch::x86_64::*;

    impl Eight for __m256 {
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the trait asks, here and below.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(one: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_broadcast_ss(&*one) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn weave(self, other: Self) -> (Self, Self) {
            // SAFETY: as above.
            unsafe {
                // Of each half the first floats, and the last.
                let (first, last) =
                    (_mm256_unpacklo_ps(self, other), _mm256_unpackhi_ps(self, other));
                let low = _mm256_permute2f128_ps::<0x20>(first, last);
                (low, _mm256_permute2f128_ps::<0x31>(first, last))
            }
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(self, a, b) }
        }
    }
}
