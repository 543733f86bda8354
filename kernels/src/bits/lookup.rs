//! Counting differing signs by table: the inner loop of the forward convolution.
//!
//! A byte of filters, two channels of four signs, chooses a row of 16 bytes; four signs of a pixel
//! choose the byte, which holds in its two halves how often the pixel differs from each channel.
//! Three such bytes add up without touching one another (3·4 < 16); then the halves part.

use crate::simd::Level;

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

/// Pixels of one vector.
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

    /// `y = from - 2·sum` for 32 pixels, whose sums are given apart: the even pixels', the odd ones'.
    ///
    /// # Safety
    /// The machine has AVX2 and FMA; 32 numbers can be read at `from` and written at `y`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn write(
        even: std::arch::x86_64::__m256i,
        odd: std::arch::x86_64::__m256i,
        from: *const Self,
        y: *mut Self,
    );
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
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn write(
        even: std::arch::x86_64::__m256i,
        odd: std::arch::x86_64::__m256i,
        from: *const f32,
        y: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe { avx2::write_floats(even, odd, from, y) }
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
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn write(
        even: std::arch::x86_64::__m256i,
        odd: std::arch::x86_64::__m256i,
        from: *const i16,
        y: *mut i16,
    ) {
        // SAFETY: the caller's promise.
        unsafe { avx2::write_integers(even, odd, from, y) }
    }
}

/// The pixels of a few images, laid out one after another for each lookup.
pub(super) struct Walk<'a, T> {
    /// Nibbles of pixels; whole vectors, aligned, can be read up to the last pixel.
    pub x: &'a [u8],
    /// Where in `x` the pixels of each lookup begin: whole vectors apart.
    pub offsets: &'a [u32],
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
    let last = walk.offsets.iter().max().map_or(0, |&last| last as usize);
    let any = walk.offsets.iter().fold(0, |any, offset| any | offset) as usize;
    assert!(walk.x.as_ptr().align_offset(UNIT) == 0 && any.is_multiple_of(UNIT));
    assert!(walk.x.len() >= last + read && walk.counts.len() >= read);
    assert!(w.len() >= channels.div_ceil(2) * walk.offsets.len());
    assert!(y.len() >= (walk.images - 1) * stride + channels * walk.area);
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level tells that the machine has the features; the lengths are checked above.
        Level::Avx2 => unsafe { avx2::sums(walk, w, channels, stride, y) },
        _ => sums_portable(walk, w, channels, stride, y),
    }
}

/// The same without tables: exclusive or, then bits counted within each half of a byte.
fn sums_portable<T: Sum>(
    walk: &Walk<'_, T>,
    w: &[u8],
    channels: usize,
    stride: usize,
    y: &mut [T],
) {
    let Walk { x, offsets, counts, area, images } = *walk;
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BYTE, Sum, TABLE, TILE, UNIT, WORD, Walk};
    use crate::par;
    use std::arch::x86_64::*;

    /// What every tile needs to know.
    #[derive(Clone, Copy)]
    struct Job<'a, T> {
        walk: &'a Walk<'a, T>,
        w: *const u8,
        channels: usize,
        stride: usize,
        y: *mut T,
        /// Sums in the making: one for each pair of channels and vector of the tile.
        kept: *mut Sums,
    }

    /// Differences of 32 pixels from two filters, in 16 bits each: even and odd pixels from the
    /// first, then from the second.
    type Sums = [__m256i; 4];

    /// 32 pixels of one image, or of the end of one and the beginning of the next.
    #[derive(Clone, Copy)]
    struct Place {
        /// The first pixel, over all images.
        pixel: usize,
        /// Its place in channel 0 of `y`.
        at: usize,
        /// Whether all 32 stand side by side there.
        whole: bool,
    }

    /// # Safety
    /// The machine has AVX2, FMA, BMI2 and POPCNT; the lengths are those that the door asserts.
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    pub unsafe fn sums<T: Sum>(
        walk: &Walk<'_, T>,
        w: &[u8],
        channels: usize,
        stride: usize,
        y: &mut [T],
    ) {
        let pixels = walk.images * walk.area;
        // Sums of four vectors, for each pair of channels, are as many bytes as a tile of floats.
        let kept = if walk.offsets.len() > BYTE { channels.div_ceil(2) * TILE } else { 0 };
        par::scratch(kept + 8, |kept| {
            let kept = kept.as_mut_ptr();
            let kept = kept.wrapping_add(kept.align_offset(32)).cast();
            let (w, y) = (w.as_ptr(), y.as_mut_ptr());
            let job = Job { walk, w, channels, stride, y, kept };
            for first in (0..pixels).step_by(TILE) {
                // SAFETY: the tile begins inside the images, and has as many vectors as reach
                // their end.
                unsafe {
                    match (pixels - first).div_ceil(UNIT) {
                        1 => tile::<T, 2, 1>(job, first),
                        2 => tile::<T, 2, 2>(job, first),
                        3 => tile::<T, 1, 3>(job, first),
                        _ => tile::<T, 1, 4>(job, first),
                    }
                }
            }
        });
    }

    /// All channels of `Q` vectors of pixels, mostly `P` pairs of them at a time.
    ///
    /// # Safety
    /// `job` is as [`sums`] makes it, and each vector begins inside the images.
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    unsafe fn tile<T: Sum, const P: usize, const Q: usize>(job: Job<'_, T>, first: usize) {
        let Walk { x, offsets, area, .. } = *job.walk;
        let places: [Place; Q] = std::array::from_fn(|q| {
            let pixel = first + q * UNIT;
            let at = pixel / area * job.stride + pixel % area;
            Place { pixel, at, whole: pixel % area + UNIT <= area }
        });
        let pairs = job.channels.div_ceil(2);
        let last = (offsets.len() - 1) / BYTE;
        for (block, now) in offsets.chunks(BYTE).enumerate() {
            let stage = Part {
                begins: block % WORD == 0,
                ends: block == last || (block + 1) % WORD == 0,
                again: block >= WORD,
            };
            let mut pair = 0;
            while pair < pairs {
                // SAFETY: the door asserts that the vectors of each offset can be read, and that
                // there is a row of bytes for each pair.
                unsafe {
                    let x = x.as_ptr().add(first);
                    let w = job.w.add(pair * offsets.len() + block * BYTE);
                    if pair + P <= pairs {
                        let found = count::<P, Q>(x, now, w, offsets.len());
                        collect(&found, job, stage, pair, &places);
                        pair += P;
                    } else {
                        let found = count::<1, Q>(x, now, w, offsets.len());
                        collect(&found, job, stage, pair, &places);
                        pair += 1;
                    }
                }
            }
        }
    }

    /// Where in a sum of many lookups a block of them stands.
    #[derive(Clone, Copy)]
    struct Part {
        /// The sum begins with it, in 16 bits.
        begins: bool,
        /// The sum ends with it, or 16 bits may not hold more.
        ends: bool,
        /// `y` holds what earlier sums left.
        again: bool,
    }

    /// Sums of at most [`BYTE`] lookups in bytes, for each pair of filters and vector of pixels: of
    /// what was found, and of that shifted right by four.
    ///
    /// A half of a byte holds three lookups (3·4 < 16). The shift is one of 16 bits, and is not
    /// masked: it leaves the second filter's count, in even bytes below the first filter's count of
    /// the odd neighbour. [`halves`] takes them apart.
    ///
    /// # Safety
    /// `Q` vectors can be read at each offset from `x`, aligned; `w` has `P` rows `k` bytes apart,
    /// each with a byte for each offset.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    unsafe fn count<const P: usize, const Q: usize>(
        x: *const u8,
        offsets: &[u32],
        w: *const u8,
        k: usize,
    ) -> [[[__m256i; 2]; Q]; P] {
        let mut sums = [[[_mm256_setzero_si256(); 2]; Q]; P];
        // SAFETY: the caller vouches for what `x` and `w` point to; there is a row of the table for
        // each byte, and its type is aligned.
        unsafe {
            let row = |w: *const u8| {
                let row = TABLE.as_ptr().add(usize::from(*w));
                _mm256_broadcastsi128_si256(_mm_load_si128(row.cast()))
            };
            let (threes, rest) = offsets.as_chunks::<3>();
            for (j, offsets) in threes.iter().enumerate() {
                let x = offsets.map(|offset| x.add(offset as usize));
                for p in 0..P {
                    let w = w.add(p * k + 3 * j);
                    let rows = [row(w), row(w.add(1)), row(w.add(2))];
                    for q in 0..Q {
                        let find = |t: usize| {
                            let x = _mm256_load_si256(x[t].add(q * UNIT).cast());
                            _mm256_shuffle_epi8(rows[t], x)
                        };
                        let three = _mm256_add_epi8(_mm256_add_epi8(find(0), find(1)), find(2));
                        let [found, high] = &mut sums[p][q];
                        *found = _mm256_add_epi8(*found, three);
                        *high = _mm256_add_epi8(*high, _mm256_srli_epi16::<4>(three));
                    }
                }
            }
            for (j, &offset) in rest.iter().enumerate() {
                for p in 0..P {
                    let row = row(w.add(p * k + 3 * threes.len() + j));
                    for q in 0..Q {
                        let x = _mm256_load_si256(x.add(offset as usize + q * UNIT).cast());
                        let one = _mm256_shuffle_epi8(row, x);
                        let [found, high] = &mut sums[p][q];
                        *found = _mm256_add_epi8(*found, one);
                        *high = _mm256_add_epi8(*high, _mm256_srli_epi16::<4>(one));
                    }
                }
            }
        }
        sums
    }

    /// Takes apart what [`count`] found.
    ///
    /// With counts `a` of the first and `b` of the second filter, each below 256, the bytes are
    /// `found = a + 16·b` and `high = b` at odd pixels, `high = b + 16·a'` at even ones, where `a'`
    /// is the odd neighbour's; all modulo 256.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    fn halves([found, high]: [__m256i; 2]) -> Sums {
        let byte = _mm256_set1_epi16(0xFF);
        let minus = |x, y| _mm256_and_si256(_mm256_sub_epi16(x, _mm256_slli_epi16::<4>(y)), byte);
        let b_odd = _mm256_srli_epi16::<8>(high);
        let a_odd = minus(_mm256_srli_epi16::<8>(found), b_odd);
        let b_even = minus(high, a_odd);
        let a_even = minus(found, b_even);
        [a_even, a_odd, b_even, b_odd]
    }

    /// Adds a block's sums to those kept, and writes `y` when they are complete.
    ///
    /// # Safety
    /// `job` is as [`sums`] makes it; the pairs exist, and the places are inside the images.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    unsafe fn collect<T: Sum, const P: usize, const Q: usize>(
        found: &[[[__m256i; 2]; Q]; P],
        job: Job<'_, T>,
        part: Part,
        pair: usize,
        places: &[Place; Q],
    ) {
        for p in 0..P {
            for q in 0..Q {
                let channel = 2 * (pair + p);
                let [mut a, mut b, mut c, mut d] = halves(found[p][q]);
                // SAFETY: there are four sums for each pair, aligned, unless there is one block only;
                // a whole vector of both channels can be written where it stands in `y`.
                unsafe {
                    let kept = job.kept.add(4 * (pair + p) + q).cast::<__m256i>();
                    if !part.begins {
                        a = _mm256_add_epi16(a, _mm256_load_si256(kept));
                        b = _mm256_add_epi16(b, _mm256_load_si256(kept.add(1)));
                        c = _mm256_add_epi16(c, _mm256_load_si256(kept.add(2)));
                        d = _mm256_add_epi16(d, _mm256_load_si256(kept.add(3)));
                    }
                    if !part.ends {
                        _mm256_store_si256(kept, a);
                        _mm256_store_si256(kept.add(1), b);
                        _mm256_store_si256(kept.add(2), c);
                        _mm256_store_si256(kept.add(3), d);
                    } else if places[q].whole && !part.again && channel + 1 < job.channels {
                        let y = job.y.add(places[q].at + channel * job.walk.area);
                        let counts = job.walk.counts.as_ptr().add(places[q].pixel);
                        T::write(a, b, counts, y);
                        T::write(c, d, counts, y.add(job.walk.area));
                    } else {
                        write_pieces([a, b, c, d], job, part.again, channel, places[q].pixel);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Sum::write`] asks.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    pub(super) unsafe fn write_integers(
        even: __m256i,
        odd: __m256i,
        from: *const i16,
        y: *mut i16,
    ) {
        let low = _mm256_unpacklo_epi16(even, odd);
        let high = _mm256_unpackhi_epi16(even, odd);
        let write = |i: usize, sums: __m256i| {
            // SAFETY: the caller vouches for the 32 numbers of which these are 16.
            unsafe {
                let from = _mm256_loadu_si256(from.add(i).cast());
                let y = y.add(i).cast();
                _mm256_storeu_si256(y, _mm256_sub_epi16(from, _mm256_slli_epi16::<1>(sums)));
            }
        };
        write(0, _mm256_permute2x128_si256::<0x20>(low, high));
        write(16, _mm256_permute2x128_si256::<0x31>(low, high));
    }

    /// # Safety
    /// As [`Sum::write`] asks.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    pub(super) unsafe fn write_floats(even: __m256i, odd: __m256i, from: *const f32, y: *mut f32) {
        let low = _mm256_unpacklo_epi16(even, odd);
        let high = _mm256_unpackhi_epi16(even, odd);
        let write = |i: usize, sums: __m128i| {
            let sums = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums));
            // SAFETY: the caller vouches for the 32 floats of which these are eight.
            unsafe {
                let from = _mm256_loadu_ps(from.add(i));
                _mm256_storeu_ps(y.add(i), _mm256_fnmadd_ps(_mm256_set1_ps(2.0), sums, from));
            }
        };
        write(0, _mm256_castsi256_si128(low));
        write(8, _mm256_castsi256_si128(high));
        write(16, _mm256_extracti128_si256::<1>(low));
        write(24, _mm256_extracti128_si256::<1>(high));
    }

    /// The same for pixels of several images or fewer than 32, for one channel or two, with what
    /// `y` holds in place of the counts if `again`.
    ///
    /// # Safety
    /// `job` is as [`sums`] makes it, and the channel and the first pixel exist.
    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
    unsafe fn write_pieces<T: Sum>(
        sums: Sums,
        job: Job<'_, T>,
        again: bool,
        channel: usize,
        first: usize,
    ) {
        let Walk { area, images, counts, .. } = *job.walk;
        let end = (images * area).min(first + UNIT);
        for half in 0..2.min(job.channels - channel) {
            let mut line = [T::default(); UNIT];
            // SAFETY: the door asserts `y` to hold every channel of every image, and counts for
            // whole vectors; pieces end with their image, and with the line.
            unsafe {
                let pieces = |f: &mut dyn FnMut(*mut T, usize, usize)| {
                    let mut pixel = first;
                    while pixel < end {
                        let (image, at) = (pixel / area, pixel % area);
                        let len = (area - at).min(end - pixel);
                        let y = job.y.add(image * job.stride + (channel + half) * area + at);
                        f(y, pixel - first, len);
                        pixel += len;
                    }
                };
                if again {
                    pieces(&mut |y, i, len| {
                        line[i..][..len].copy_from_slice(std::slice::from_raw_parts(y, len))
                    });
                } else {
                    line.copy_from_slice(&counts[first..][..UNIT]);
                }
                let to = line.as_mut_ptr();
                T::write(sums[2 * half], sums[2 * half + 1], to, to);
                pieces(&mut |y, i, len| y.copy_from_nonoverlapping(line[i..][..len].as_ptr(), len));
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
