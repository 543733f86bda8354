//! Bits between bytes, words and floats.

use super::bit;

/// Floats whose bits go into bytes at once.
pub(super) const PIECE: usize = 32;

/// The same for at most as many numbers; the other bytes are set as for zeros.
#[inline(always)]
pub(super) fn gather<const AVX2: bool>(x: &[f32], b: u32, y: &mut [u8; PIECE]) -> bool {
    if let Some(x) = x.first_chunk() {
        return gather_piece::<AVX2>(x, b, y);
    }
    let mut piece = [0.0; PIECE];
    piece[..x.len()].copy_from_slice(x);
    gather_piece::<AVX2>(&piece, b, y)
}

/// Sets bit `b` of each byte whose number's sign is +1; whether a NaN is among the numbers.
#[inline(always)]
fn gather_piece<const AVX2: bool>(x: &[f32; PIECE], b: u32, y: &mut [u8; PIECE]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: `AVX2` is true only where the machine has it.
        return unsafe { gather_avx2(x, b, y) };
    }
    let mut odd = 0;
    for (y, x) in y.iter_mut().zip(x) {
        *y |= bit(*x) << b;
        odd |= u32::from(x.is_nan());
    }
    odd != 0
}

/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn gather_avx2(x: &[f32; PIECE], b: u32, y: &mut [u8; PIECE]) -> bool {
    use std::arch::x86_64::*;
    // SAFETY: four times eight of the 32 floats.
    let x = [0, 8, 16, 24].map(|i| unsafe { _mm256_loadu_ps(x[i..].as_ptr()) });
    let below = x.map(|x| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps())));
    let below = _mm256_packs_epi16(
        _mm256_packs_epi32(below[0], below[1]),
        _mm256_packs_epi32(below[2], below[3]),
    );
    // Packing goes by halves of a vector; this puts the fours in their order.
    let below = _mm256_permutevar8x32_epi32(below, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let bits = _mm256_andnot_si256(below, _mm256_set1_epi8(1 << b));
    // SAFETY: the 32 bytes of `y`.
    unsafe {
        let y = y.as_mut_ptr().cast();
        _mm256_storeu_si256(y, _mm256_or_si256(_mm256_loadu_si256(y), bits));
    }
    let odd = |a, b| _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b);
    _mm256_movemask_ps(_mm256_or_ps(odd(x[0], x[1]), odd(x[2], x[3]))) != 0
}

/// Sets bit `b` of each byte whose number is at least `limit`, or where `flip` says so, below it.
#[inline(always)]
pub(super) fn compare<const AVX2: bool>(
    x: &[i16; PIECE],
    limit: i16,
    flip: bool,
    b: u32,
    y: &mut [u8; PIECE],
) {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: `AVX2` is true only where the machine has it.
        return unsafe { compare_avx2(x, limit, flip, b, y) };
    }
    for (y, x) in y.iter_mut().zip(x) {
        *y |= u8::from((*x >= limit) ^ flip) << b;
    }
}

/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn compare_avx2(x: &[i16; PIECE], limit: i16, flip: bool, b: u32, y: &mut [u8; PIECE]) {
    use std::arch::x86_64::*;
    // SAFETY: twice sixteen of the 32 numbers.
    let x = [0, 16].map(|i| unsafe { _mm256_loadu_si256(x[i..].as_ptr().cast()) });
    let below = x.map(|x| _mm256_cmpgt_epi16(_mm256_set1_epi16(limit), x));
    // Packing goes by halves of a vector; this puts the eights in their order.
    let below = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(below[0], below[1]));
    let wanted = _mm256_xor_si256(below, _mm256_set1_epi8(if flip { 0 } else { -1 }));
    let bits = _mm256_and_si256(wanted, _mm256_set1_epi8(1 << b));
    // SAFETY: the 32 bytes of `y`.
    unsafe {
        let y = y.as_mut_ptr().cast();
        _mm256_storeu_si256(y, _mm256_or_si256(_mm256_loadu_si256(y), bits));
    }
}

/// Bit `b` of each of 64 bytes, the first in the lowest place.
#[inline(always)]
pub(super) fn word<const AVX2: bool>(x: &[u8; 64], b: u32) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: `AVX2` is true only where the machine has it.
        return unsafe { word_avx2(x, b) };
    }
    let mut word = 0;
    for (i, eight) in x.as_chunks::<8>().0.iter().enumerate() {
        // One bit of each byte, eight apart; the product gathers them in the highest byte.
        let bits = u64::from_le_bytes(*eight) >> b & 0x0101_0101_0101_0101;
        word |= bits.wrapping_mul(0x0102_0408_1020_4080) >> 56 << (8 * i);
    }
    word
}

/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn word_avx2(x: &[u8; 64], b: u32) -> u64 {
    use std::arch::x86_64::*;
    let half = |from: usize| {
        // SAFETY: 32 of the 64 bytes from 0 or from 32 on.
        let x = unsafe { _mm256_loadu_si256(x[from..].as_ptr().cast()) };
        // A shift of 16 bits: what strays from byte to byte does not reach the highest bit.
        let highest = _mm256_sll_epi16(x, _mm_cvtsi32_si128(7 - b as i32));
        u64::from(_mm256_movemask_epi8(highest) as u32)
    };
    half(0) | half(32) << 32
}

/// +1.0 or -1.0 for each bit of a word, as far as `y` goes.
#[inline(always)]
pub(super) fn expand(word: u64, y: &mut [f32]) {
    for (y, half) in y.chunks_mut(32).zip([word as u32, (word >> 32) as u32]) {
        for (i, y) in y.iter_mut().enumerate() {
            // A clear bit becomes the sign.
            *y = f32::from_bits(1f32.to_bits() | (!half >> i) << 31);
        }
    }
}

/// Bit `j` of word `i` becomes bit `i` of word `j`.
pub(super) fn transpose(x: &mut [u64; 64]) {
    // Halves of halves change places: squares of 32, of 16, down to single bits.
    let mut size = 32;
    let mut low = u64::from(u32::MAX);
    while size > 0 {
        for i in (0..64).filter(|i| i & size == 0) {
            let swap = (x[i] >> size ^ x[i + size]) & low;
            x[i] ^= swap << size;
            x[i + size] ^= swap;
        }
        size /= 2;
        low ^= low << size;
    }
}

/// Byte `j` of word `i` becomes byte `i` of word `j`.
#[inline(always)]
pub(super) fn transpose_bytes(x: &mut [u64; 8]) {
    for (size, low) in
        [(4, 0x0000_0000_FFFF_FFFF), (2, 0x0000_FFFF_0000_FFFF), (1, 0x00FF_00FF_00FF_00FF)]
    {
        for i in (0..8).filter(|i| i & size == 0) {
            let swap = (x[i] >> (8 * size) ^ x[i + size]) & low;
            x[i] ^= swap << (8 * size);
            x[i + size] ^= swap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, per_level};

    fn random(i: u64) -> u64 {
        (i + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29)
            .wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    per_level! {
        fn word_here[](x: &[u8; 64], b: u32) -> u64 {
            word::<FUSED>(x, b)
        }
    }

    #[test]
    fn words_gather_one_bit_of_each_byte() {
        let x: [u8; 64] = std::array::from_fn(|i| random(i as u64) as u8);
        for &level in simd::available() {
            for b in 0..4 {
                let want = (0..64).fold(0, |word, i| word | u64::from(x[i] >> b & 1) << i);
                assert_eq!(word_here(level, &x, b), want, "{level:?}: bit {b}");
            }
        }
    }

    #[test]
    fn words_expand_to_signs() {
        let word = random(7);
        for len in [1, 31, 32, 33, 64] {
            let mut y = [0.0; 64];
            expand(word, &mut y[..len]);
            for (i, y) in y.into_iter().enumerate() {
                let sign = if word >> i & 1 == 1 { 1.0 } else { -1.0 };
                assert_eq!(y, if i < len { sign } else { 0.0 });
            }
        }
    }

    #[test]
    fn transposes_exchange_places() {
        let x: [u64; 64] = std::array::from_fn(|i| random(i as u64));
        let mut y = x;
        transpose(&mut y);
        for i in 0..64 {
            for j in 0..64 {
                assert_eq!(x[i] >> j & 1, y[j] >> i & 1, "bit {j} of word {i}");
            }
        }
        let x: [u64; 8] = std::array::from_fn(|i| random(i as u64));
        let mut y = x;
        transpose_bytes(&mut y);
        for i in 0..8 {
            for j in 0..8 {
                assert_eq!(x[i] >> (8 * j) & 0xFF, y[j] >> (8 * i) & 0xFF, "byte {j} of word {i}");
            }
        }
    }
}
