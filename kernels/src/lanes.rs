//! Eight floats at a time, for loops whose vectors the compiler would not find by itself.
//!
//! A loop written over [`Lanes`] is compiled with [`Plain`] for any machine and with `Avx` for those
//! that have it, inside of a `per_level!` function. Both give the same bits.

/// Floats taken together.
pub(crate) const EIGHT: usize = 8;

/// Eight floats.
pub(crate) trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; EIGHT]) -> Self;
    fn load_i16(x: &[i16; EIGHT]) -> Self;
    fn store(self, y: &mut [f32; EIGHT]);
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn neg(self) -> Self;
    /// `max(x, 0)`; 0 for NaN.
    fn relu(self) -> Self;
    /// `clamp(x, -1, 1)`; NaN for NaN.
    fn hardtanh(self) -> Self;
    /// `above` where `x > 0`, else `below`.
    fn choose(self, above: Self, below: Self) -> Self;
    /// Where `x > 0`.
    fn above_zero(self) -> u8;
    /// Where `|x| < 1`.
    fn within_one(self) -> u8;
    /// Where not `x < 0`.
    fn sign_bits(self) -> u8;
    /// Where `x` is NaN.
    fn nan_bits(self) -> u8;
    /// The floats whose bit is set, zeros elsewhere.
    fn keep(self, bits: u8) -> Self;
}

/// A number as it is stored.
pub(crate) trait Stored: Copy + Default + Send + Sync {
    fn float(self) -> f32;
    fn load<L: Lanes>(x: &[Self; EIGHT]) -> L;
}

impl Stored for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
    #[inline(always)]
    fn load<L: Lanes>(x: &[f32; EIGHT]) -> L {
        L::load(x)
    }
}

impl Stored for i16 {
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn load<L: Lanes>(x: &[i16; EIGHT]) -> L {
        L::load_i16(x)
    }
}

/// For any machine.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; EIGHT]);

impl Plain {
    #[inline(always)]
    fn bits(self, holds: impl Fn(f32) -> bool) -> u8 {
        self.0.iter().enumerate().fold(0, |bits, (i, &x)| bits | u8::from(holds(x)) << i)
    }
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Lanes for Plain {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Plain([x; EIGHT])
    }
    #[inline(always)]
    fn load(x: &[f32; EIGHT]) -> Self {
        Plain(*x)
    }
    #[inline(always)]
    fn load_i16(x: &[i16; EIGHT]) -> Self {
        Plain(x.map(f32::from))
    }
    #[inline(always)]
    fn store(self, y: &mut [f32; EIGHT]) {
        *y = self.0;
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        Plain(self.0.map(|x| -x))
    }
    #[inline(always)]
    fn relu(self) -> Self {
        Plain(self.0.map(|x| if x > 0.0 { x } else { 0.0 }))
    }
    #[inline(always)]
    fn hardtanh(self) -> Self {
        Plain(self.0.map(|x| x.clamp(-1.0, 1.0)))
    }
    #[inline(always)]
    fn choose(self, above: Self, below: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] > 0.0 { above.0[i] } else { below.0[i] }))
    }
    #[inline(always)]
    fn above_zero(self) -> u8 {
        self.bits(|x| x > 0.0)
    }
    #[inline(always)]
    fn within_one(self) -> u8 {
        self.bits(|x| x.abs() < 1.0)
    }
    #[inline(always)]
    fn sign_bits(self) -> u8 {
        !self.bits(|x| x < 0.0)
    }
    #[inline(always)]
    fn nan_bits(self) -> u8 {
        self.bits(f32::is_nan)
    }
    #[inline(always)]
    fn keep(self, bits: u8) -> Self {
        let mask = |i: usize| (u32::from(bits) >> i & 1).wrapping_neg();
        Plain(std::array::from_fn(|i| f32::from_bits(self.0[i].to_bits() & mask(i))))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx::Avx;

#[cfg(target_arch = "x86_64")]
mod avx {
    use super::{EIGHT, Lanes};
    use std::arch::x86_64::*;

    /// For machines with AVX2, inside of functions that are compiled for it; to be made nowhere else.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx(__m256);

    // SAFETY of this whole block: its functions are inlined into functions compiled for AVX2, which
    // run only where `simd::available` has found it; arrays of eight are as long as what is read or
    // written.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            Avx(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        fn load(x: &[f32; EIGHT]) -> Self {
            Avx(unsafe { _mm256_loadu_ps(x.as_ptr()) })
        }
        #[inline(always)]
        fn load_i16(x: &[i16; EIGHT]) -> Self {
            Avx(unsafe {
                let x = _mm_loadu_si128(x.as_ptr().cast());
                _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(x))
            })
        }
        #[inline(always)]
        fn store(self, y: &mut [f32; EIGHT]) {
            unsafe { _mm256_storeu_ps(y.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            Avx(unsafe { _mm256_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            Avx(unsafe { _mm256_sub_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            Avx(unsafe { _mm256_mul_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn neg(self) -> Self {
            Avx(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
        }
        #[inline(always)]
        fn relu(self) -> Self {
            // Of a NaN and a number the second operand comes out.
            Avx(unsafe { _mm256_max_ps(self.0, _mm256_setzero_ps()) })
        }
        #[inline(always)]
        fn hardtanh(self) -> Self {
            Avx(unsafe {
                let low = _mm256_max_ps(_mm256_set1_ps(-1.0), self.0);
                _mm256_min_ps(_mm256_set1_ps(1.0), low)
            })
        }
        #[inline(always)]
        fn choose(self, above: Self, below: Self) -> Self {
            Avx(unsafe {
                let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
                _mm256_blendv_ps(below.0, above.0, positive)
            })
        }
        #[inline(always)]
        fn above_zero(self) -> u8 {
            unsafe {
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps())) as u8
            }
        }
        #[inline(always)]
        fn within_one(self) -> u8 {
            unsafe {
                let size = _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0);
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(size, _mm256_set1_ps(1.0))) as u8
            }
        }
        #[inline(always)]
        fn sign_bits(self) -> u8 {
            unsafe {
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, _mm256_setzero_ps())) as u8
            }
        }
        #[inline(always)]
        fn nan_bits(self) -> u8 {
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)) as u8 }
        }
        #[inline(always)]
        fn keep(self, bits: u8) -> Self {
            Avx(unsafe {
                let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let bits = _mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), each);
                let mask = _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, each));
                _mm256_and_ps(self.0, mask)
            })
        }
    }
}
