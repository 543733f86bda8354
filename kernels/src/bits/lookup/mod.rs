//! Counting differing signs by table: the inner loop of the forward convolution.
//!
//! A byte of filters, two channels of four signs, chooses a row of 16 bytes; four signs of a pixel
//! choose the byte, which holds in its two halves how often the pixel differs from each channel.
//! Three such bytes add up without touching one another (3·4 < 16); then the halves part.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
#[cfg(target_arch = "x86_64")]
mod sse4;
mod tiles;

use crate::par;
use crate::simd::Level;
use tiles::{Job, Vector};

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Row([u8; 16]);

/// Differences of the low and high four signs of `w` from those of `x`, in the low and high half:
/// `TABLE[w][x]`.
static TABLE: [Row; 256] = {
    let mut table = [Row([0; 16]); 256];
    let mut w = 0;
    while w < 256 {
        let mut x = 0;
        while x < 16 {
            let differ = w ^ (x | x << 4);
            table[w].0[x] = ((differ & 15).count_ones() | (differ >> 4).count_ones() << 4) as u8;
            x += 1;
        }
        w += 1;
    }
    table
};

/// Pixels of the longest vector.
pub(super) const UNIT: usize = 32;

/// Pixels best looked up together.
pub(super) const TILE: usize = 4 * UNIT;

/// How far apart to lay out `len` bytes for each lookup: an odd number of cache lines, so that the
/// lines of many lookups do not want the same place in the cache.
pub(super) fn apart(len: usize) -> usize {
    len.next_multiple_of(64) | 64
}

/// Lookups that a byte can count: each gives at most 4.
const BYTE: usize = 63;

/// Full bytes that 16 bits can count.
const WORD: usize = 65535 / (4 * BYTE);

/// What sums are written as.
pub(super) trait Sum: Copy + Default + Send + Sync {
    /// How many products a sum has.
    fn count(products: usize) -> Self;

    /// `self - 2·differences`
    fn less(self, differences: u32) -> Self;

    /// `y = from - 2·sum` for a vector of pixels, whose sums are given apart: the even pixels', the
    /// odd ones'.
    ///
    /// # Safety
    /// The machine has what `V` stands for; `V::LEN` numbers can be read at `from` and written at `y`.
    unsafe fn write<V: Vector>(even: V, odd: V, from: *const Self, y: *mut Self);
}

/// Exact below 2^24.
impl Sum for f32 {
    fn count(products: usize) -> f32 {
        products as f32
    }
    #[inline(always)]
    fn less(self, differences: u32) -> f32 {
        self - 2.0 * differences as f32
    }
    #[inline(always)]
    unsafe fn write<V: Vector>(even: V, odd: V, from: *const f32, y: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { V::write_floats(even, odd, from, y) }
    }
}

/// Exact for sums of at most [`i16::MAX`] terms: what wraps on the way is back in place at the end.
impl Sum for i16 {
    fn count(products: usize) -> i16 {
        products as i16
    }
    #[inline(always)]
    fn less(self, differences: u32) -> i16 {
        self.wrapping_sub((2 * differences) as i16)
    }
    #[inline(always)]
    unsafe fn write<V: Vector>(even: V, odd: V, from: *const i16, y: *mut i16) {
        // SAFETY: the caller's promise.
        unsafe { V::write_integers(even, odd, from, y) }
    }
}

/// Where the pixels of each lookup begin: whole vectors apart.
#[derive(Debug)]
pub(super) struct Offsets {
    at: Vec<u32>,
    last: usize,
}

impl Offsets {
    pub fn new(at: Vec<u32>) -> Offsets {
        assert!(at.iter().all(|at| (*at as usize).is_multiple_of(UNIT)), "whole vectors apart");
        Offsets { last: at.iter().max().map_or(0, |&last| last as usize), at }
    }

    /// Bytes of memory they hold.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.at[..])
    }

    /// Lookups of a sum.
    pub fn len(&self) -> usize {
        self.at.len()
    }
}

/// The pixels of a few images, laid out one after another for each lookup.
pub(super) struct Walk<'a, T> {
    /// Nibbles of pixels; whole vectors, aligned, can be read up to the last pixel.
    pub x: &'a [u8],
    /// Where in `x` they are.
    pub offsets: &'a Offsets,
    /// How many products the sum of each pixel has, for whole vectors.
    pub counts: &'a [T],
    /// Pixels of an image.
    pub area: usize,
    pub images: usize,
}

/// For each image, channel `o` and pixel: `count - 2·Σ_k (differences of filter o's k-th four signs from
/// the pixel's)`, written to `y[image·stride + o·area + pixel]`. Filters come in pairs of
/// `offsets.len()` bytes.
pub(super) fn sums<T: Sum>(
    level: Level,
    walk: &Walk<'_, T>,
    w: &[u8],
    channels: usize,
    stride: usize,
    y: &mut [T],
) {
    let pixels = walk.images * walk.area;
    let read = pixels.next_multiple_of(UNIT);
    assert!(walk.x.as_ptr().align_offset(UNIT) == 0);
    assert!(walk.x.len() >= walk.offsets.last + read && walk.counts.len() >= read);
    assert!(w.len() >= channels.div_ceil(2) * walk.offsets.len());
    assert!(y.len() >= (walk.images - 1) * stride + channels * walk.area);
    if level == Level::Portable {
        return sums_portable(walk, w, channels, stride, y);
    }
    // Sums of four vectors, for each pair of channels, are as many bytes as a tile of floats.
    let kept = if walk.offsets.len() > BYTE { channels.div_ceil(2) * TILE } else { 0 };
    par::scratch(kept + UNIT / size_of::<f32>(), |kept| {
        let kept = kept.as_mut_ptr();
        let kept = kept.wrapping_add(kept.align_offset(UNIT)).cast();
        let job = Job { walk, w: w.as_ptr(), channels, stride, y: y.as_mut_ptr(), kept };
        // SAFETY: the level tells that the machine has the features; the lengths are checked above.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Sse4 => sse4::all(job),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2::all(job),
                #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
                Level::Neon => neon::all(job),
                _ => unreachable!("{level:?} is of other machines"),
            }
        }
    });
}

/// The same without tables: exclusive or, then bits counted within each half of a byte.
fn sums_portable<T: Sum>(
    walk: &Walk<'_, T>,
    w: &[u8],
    channels: usize,
    stride: usize,
    y: &mut [T],
) {
    let Walk { x, counts, area, images, .. } = *walk;
    let offsets = &walk.offsets.at[..];
    for from in (0..images * area).step_by(UNIT) {
        for (pair, w) in w.chunks_exact(offsets.len()).enumerate().take(channels.div_ceil(2)) {
            let mut sums = [[0u32; UNIT]; 2];
            for (w, offsets) in w.chunks(BYTE).zip(offsets.chunks(BYTE)) {
                let mut bytes = [[0u8; UNIT]; 2];
                for (&w, &offset) in w.iter().zip(offsets) {
                    let x = &x[offset as usize + from..][..UNIT];
                    for i in 0..UNIT {
                        let inside = (x[i] >> 7).wrapping_sub(1);
                        let differ = (w ^ ((x[i] & 15) * 17)) & inside;
                        let twos = differ - (differ >> 1 & 0x55);
                        let fours = (twos & 0x33) + (twos >> 2 & 0x33);
                        bytes[0][i] += fours & 15;
                        bytes[1][i] += fours >> 4;
                    }
                }
                for (sums, bytes) in sums.iter_mut().zip(&bytes) {
                    for (sum, &byte) in sums.iter_mut().zip(bytes) {
                        *sum += u32::from(byte);
                    }
                }
            }
            for (half, sums) in sums.iter().enumerate().take(channels - 2 * pair) {
                let pixels = from..(images * area).min(from + UNIT);
                for (pixel, &sum) in pixels.zip(sums) {
                    let at = pixel / area * stride + (2 * pair + half) * area + pixel % area;
                    y[at] = counts[pixel].less(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_differences() {
        for w in 0..256usize {
            for x in 0..16usize {
                let [low, high] = [w & 15, w >> 4].map(|four| (four ^ x).count_ones());
                assert_eq!(u32::from(TABLE[w].0[x]), low + 16 * high, "{w}, {x}");
            }
        }
    }
}
