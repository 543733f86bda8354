//! Counting differing signs by table: the inner loop of the forward convolution.
//!
//! A byte of filters, two channels of four signs, chooses a row of 16 bytes; four signs of a pixel
//! choose the byte, which holds in its two halves how often the pixel differs from each channel.
//! Three such bytes add up without touching one another (3·4 < 16); then the halves part.

use crate::simd::Level;

/// Differences of the low and high four signs of `w` from those of `x`, in the low and high half:
/// `TABLE[w][x]`.
static TABLE: [[u8; 16]; 256] = {
    let mut table = [[0; 16]; 256];
    let mut w = 0;
    while w < 256 {
        let mut x = 0;
        while x < 16 {
            let differ = w ^ (x | x << 4);
            table[w][x] = ((differ & 15).count_ones() | (differ >> 4).count_ones() << 4) as u8;
            x += 1;
        }
        w += 1;
    }
    table
};

/// Elements that may be read, not used, beyond the last pixel of a plane.
pub(super) const SLACK: usize = 64;

/// Lookups that a byte can count: each gives at most 4.
const BYTE: usize = 63;

/// Lookups that 16 bits can count, in whole bytes full.
const WORD: usize = 65535 / (4 * BYTE) * BYTE;

/// Planes of nibbles, and where in them the pixels of each byte of filters begin.
pub(super) struct Taps<'a> {
    pub x: &'a [u8],
    pub offsets: &'a [usize],
}

/// `y[o][i] = counts[i] - 2·Σ_k (differences of filter o's k-th four signs from x[offsets[k] + i])`
/// for `i < area`, with the filters of `w` in pairs of `offsets.len()` bytes.
pub(super) fn sums(
    level: Level,
    taps: &Taps<'_>,
    w: &[u8],
    counts: &[f32],
    area: usize,
    y: &mut [f32],
) {
    let last = taps.offsets.iter().max().expect("a filter has taps");
    assert!(taps.x.len() >= last + area + SLACK && counts.len() >= area + SLACK);
    assert!(w.len() >= (y.len() / area).div_ceil(2) * taps.offsets.len());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level tells that the machine has the features; the lengths are checked above.
        Level::Avx2 => unsafe { avx2::sums(taps, w, counts, area, y) },
        _ => sums_portable(taps, w, counts, area, y),
    }
}

/// The same without tables: exclusive or, then bits counted within each half of a byte.
fn sums_portable(taps: &Taps<'_>, w: &[u8], counts: &[f32], area: usize, y: &mut [f32]) {
    const TILE: usize = 64;
    let k = taps.offsets.len();
    for i in (0..area).step_by(TILE) {
        let len = TILE.min(area - i);
        for (w, y) in w.chunks_exact(k).zip(y.chunks_mut(2 * area)) {
            let mut sums = [[0u32; TILE]; 2];
            for (w, offsets) in w.chunks(BYTE).zip(taps.offsets.chunks(BYTE)) {
                let mut bytes = [[0u8; TILE]; 2];
                for (&w, offset) in w.iter().zip(offsets) {
                    let x: &[u8; TILE] =
                        taps.x[offset + i..][..TILE].try_into().expect("of this length");
                    for j in 0..TILE {
                        let inside = (x[j] >> 7).wrapping_sub(1);
                        let differ = (w ^ ((x[j] & 15) * 17)) & inside;
                        let twos = differ - (differ >> 1 & 0x55);
                        let fours = (twos & 0x33) + (twos >> 2 & 0x33);
                        bytes[0][j] += fours & 15;
                        bytes[1][j] += fours >> 4;
                    }
                }
                for (sums, bytes) in sums.iter_mut().zip(&bytes) {
                    for (sum, &byte) in sums.iter_mut().zip(bytes) {
                        *sum += u32::from(byte);
                    }
                }
            }
            for (y, sums) in y.chunks_mut(area).zip(&sums) {
                for ((y, count), &sum) in y[i..][..len].iter_mut().zip(&counts[i..]).zip(sums) {
                    *y = count - 2.0 * sum as f32;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BYTE, TABLE, Taps, WORD};
    use std::arch::x86_64::*;

    /// Halves of 32 bytes, widened to 16 bits: `[even bytes, odd bytes]`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    fn widen(bytes: __m256i) -> [__m256i; 2] {
        [_mm256_and_si256(bytes, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16::<8>(bytes)]
    }

    /// # Safety
    /// The machine has AVX2 and FMA, and the lengths are those that the caller's door asserts.
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    pub unsafe fn sums(taps: &Taps<'_>, w: &[u8], counts: &[f32], area: usize, y: &mut [f32]) {
        let k = taps.offsets.len();
        for i in (0..area).step_by(32) {
            for (w, y) in w.chunks_exact(k).zip(y.chunks_mut(2 * area)) {
                for (part, (w, offsets)) in
                    w.chunks(WORD).zip(taps.offsets.chunks(WORD)).enumerate()
                {
                    // SAFETY: 32 pixels from i on lie within the planes and their slack.
                    let sums = unsafe { differences(taps.x.as_ptr().add(i), w, offsets) };
                    for (y, [even, odd]) in y.chunks_mut(area).zip(sums) {
                        let len = 32.min(area - i);
                        let y = &mut y[i..][..len];
                        let mut out = [0.0f32; 32];
                        out[..len].copy_from_slice(if part == 0 { &counts[i..][..len] } else { y });
                        subtract_twice(even, odd, &mut out);
                        y.copy_from_slice(&out[..len]);
                    }
                }
            }
        }
    }

    /// Differences of 32 pixels from a pair of filters: `[even pixels, odd pixels]` for each.
    ///
    /// # Safety
    /// 32 bytes from each offset on can be read, and there are at most `WORD` of them.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    unsafe fn differences(x: *const u8, w: &[u8], offsets: &[usize]) -> [[__m256i; 2]; 2] {
        let low = _mm256_set1_epi8(15);
        let mut sums = [[_mm256_setzero_si256(); 2]; 2];
        for (w, offsets) in w.chunks(BYTE).zip(offsets.chunks(BYTE)) {
            let mut bytes = [_mm256_setzero_si256(); 2];
            for (w, offsets) in w.chunks(3).zip(offsets.chunks(3)) {
                let mut both = _mm256_setzero_si256();
                for (&w, &offset) in w.iter().zip(offsets) {
                    // SAFETY: a row of the table has 16 bytes, and the caller vouches for the pixels.
                    let (row, x) = unsafe {
                        let row = TABLE[usize::from(w)].as_ptr();
                        (_mm_loadu_si128(row.cast()), _mm256_loadu_si256(x.add(offset).cast()))
                    };
                    let found = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(row), x);
                    both = _mm256_add_epi8(both, found);
                }
                bytes[0] = _mm256_add_epi8(bytes[0], _mm256_and_si256(both, low));
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
                bytes[1] = _mm256_add_epi8(bytes[1], high);
            }
            for (sums, bytes) in sums.iter_mut().zip(bytes) {
                let [even, odd] = widen(bytes);
                sums[0] = _mm256_add_epi16(sums[0], even);
                sums[1] = _mm256_add_epi16(sums[1], odd);
            }
        }
        sums
    }

    /// `out -= 2·sum` for 32 sums of 16 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    fn subtract_twice(even: __m256i, odd: __m256i, out: &mut [f32; 32]) {
        let low = _mm256_unpacklo_epi16(even, odd);
        let high = _mm256_unpackhi_epi16(even, odd);
        let eights = [
            _mm256_castsi256_si128(low),
            _mm256_castsi256_si128(high),
            _mm256_extracti128_si256::<1>(low),
            _mm256_extracti128_si256::<1>(high),
        ];
        for (out, eight) in out.chunks_exact_mut(8).zip(eights) {
            let sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(eight));
            // SAFETY: each chunk has eight elements.
            unsafe {
                let y = _mm256_fnmadd_ps(_mm256_set1_ps(2.0), sum, _mm256_loadu_ps(out.as_ptr()));
                _mm256_storeu_ps(out.as_mut_ptr(), y);
            }
        }
    }
}
