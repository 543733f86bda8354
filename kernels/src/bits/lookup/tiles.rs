//! The lookup by vectors of bytes, as long as the machine has them.

use super::{BYTE, Sum, UNIT, WORD, Walk};

/// A vector: a byte for each of some pixels, or 16 bits for each of half as many.
///
/// Its functions, and what is generic over it, are inlined into functions that are compiled for the
/// instructions it stands for, and called nowhere else.
pub(in crate::bits) trait Vector: Copy {
    /// Pixels of a vector; it is aligned to as many bytes.
    const LEN: usize = size_of::<Self>();

    fn zero() -> Self;

    /// The row of the table for `w`, as often as it fits.
    fn row(w: u8) -> Self;

    /// `row[x]` for bytes `x` below 16, 0 for `0x80`.
    fn find(row: Self, x: Self) -> Self;

    /// Sums of bytes.
    fn add_bytes(self, b: Self) -> Self;

    /// Sums of 16 bits.
    fn add(self, b: Self) -> Self;

    /// `(x >> 4)` of 16 bits.
    fn over_16(self) -> Self;

    /// The higher byte of 16 bits.
    fn high(self) -> Self;

    /// The lower byte of `self - 16·b`, of 16 bits.
    fn minus_16(self, b: Self) -> Self;

    /// As [`Sum::write`].
    ///
    /// # Safety
    /// As [`Sum::write`] asks.
    unsafe fn write_integers(even: Self, odd: Self, from: *const i16, y: *mut i16);

    /// As [`Sum::write`].
    ///
    /// # Safety
    /// As [`Sum::write`] asks.
    unsafe fn write_floats(even: Self, odd: Self, from: *const f32, y: *mut f32);
}

/// What every tile needs to know.
#[derive(Clone, Copy)]
pub(super) struct Job<'a, T> {
    pub walk: &'a Walk<'a, T>,
    pub w: *const u8,
    pub channels: usize,
    pub stride: usize,
    pub y: *mut T,
    /// Sums in the making: one for each pair of channels and vector of the tile, if there is more
    /// than one block of lookups.
    pub kept: *mut u8,
}

/// Differences of a vector of pixels from two filters, in 16 bits each: even and odd pixels from the
/// first, then from the second.
type Sums<V> = [V; 4];

/// The pixels of a vector: of one image, or of the end of one and the beginning of the next.
#[derive(Clone, Copy)]
struct Place {
    /// The first pixel, over all images.
    pixel: usize,
    /// Its place in channel 0 of `y`.
    at: usize,
    /// Whether all stand side by side there.
    whole: bool,
}

/// All channels of all pixels, four vectors of them at a time.
///
/// # Safety
/// The machine has what `V` stands for. The lengths of `job` are those that the door asserts, and
/// `kept` is aligned as vectors are.
#[inline(always)]
pub(super) unsafe fn all<V: Vector, T: Sum>(job: Job<'_, T>) {
    let pixels = job.walk.images * job.walk.area;
    for first in (0..pixels).step_by(4 * V::LEN) {
        // SAFETY: the tile begins inside the images, and has as many vectors as reach their end.
        unsafe {
            match (pixels - first).div_ceil(V::LEN) {
                1 => tile::<V, T, 2, 1>(job, first),
                2 => tile::<V, T, 2, 2>(job, first),
                3 => tile::<V, T, 1, 3>(job, first),
                _ => tile::<V, T, 1, 4>(job, first),
            }
        }
    }
}

/// All channels of `Q` vectors of pixels, mostly `P` pairs of them at a time.
///
/// # Safety
/// `job` is as [`all`] asks, and each vector begins inside the images.
#[inline(always)]
unsafe fn tile<V: Vector, T: Sum, const P: usize, const Q: usize>(job: Job<'_, T>, first: usize) {
    let Walk { x, area, .. } = *job.walk;
    let offsets = &job.walk.offsets.at[..];
    let places: [Place; Q] = std::array::from_fn(|q| {
        let pixel = first + q * V::LEN;
        let at = pixel / area * job.stride + pixel % area;
        Place { pixel, at, whole: pixel % area + V::LEN <= area }
    });
    let pairs = job.channels.div_ceil(2);
    let last = (offsets.len() - 1) / BYTE;
    for (block, now) in offsets.chunks(BYTE).enumerate() {
        let part = Part {
            begins: block % WORD == 0,
            ends: block == last || (block + 1) % WORD == 0,
            again: block >= WORD,
        };
        let mut pair = 0;
        while pair < pairs {
            // SAFETY: the door asserts that the vectors of each offset can be read, and that there is
            // a row of bytes for each pair.
            unsafe {
                let x = x.as_ptr().add(first);
                let w = job.w.add(pair * offsets.len() + block * BYTE);
                if pair + P <= pairs {
                    let found = count::<V, P, Q>(x, now, w, offsets.len());
                    collect(&found, job, part, pair, &places);
                    pair += P;
                } else {
                    let found = count::<V, 1, Q>(x, now, w, offsets.len());
                    collect(&found, job, part, pair, &places);
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

/// Sums of at most [`BYTE`] lookups in bytes, for each pair of filters and vector of pixels: of what was
/// found, and of that shifted right by four.
///
/// A half of a byte holds three lookups (3·4 < 16). The shift is one of 16 bits, and is not masked: it
/// leaves the second filter's count, in even bytes below the first filter's count of the odd
/// neighbour. [`halves`] takes them apart.
///
/// # Safety
/// `Q` vectors can be read at each offset from `x`, aligned; `w` has `P` rows `k` bytes apart, each with
/// a byte for each offset.
#[inline(always)]
unsafe fn count<V: Vector, const P: usize, const Q: usize>(
    x: *const u8,
    offsets: &[u32],
    w: *const u8,
    k: usize,
) -> [[[V; 2]; Q]; P] {
    let mut sums = [[[V::zero(); 2]; Q]; P];
    // SAFETY: the caller vouches for what `x` and `w` point to.
    unsafe {
        let (threes, rest) = offsets.as_chunks::<3>();
        for (j, offsets) in threes.iter().enumerate() {
            let x = offsets.map(|offset| x.add(offset as usize).cast::<V>());
            for p in 0..P {
                let w = w.add(p * k + 3 * j);
                let rows = [V::row(*w), V::row(*w.add(1)), V::row(*w.add(2))];
                for q in 0..Q {
                    let two =
                        V::find(rows[0], *x[0].add(q)).add_bytes(V::find(rows[1], *x[1].add(q)));
                    let three = two.add_bytes(V::find(rows[2], *x[2].add(q)));
                    let [found, high] = &mut sums[p][q];
                    *found = found.add_bytes(three);
                    *high = high.add_bytes(three.over_16());
                }
            }
        }
        for (j, &offset) in rest.iter().enumerate() {
            let x = x.add(offset as usize).cast::<V>();
            for p in 0..P {
                let row = V::row(*w.add(p * k + 3 * threes.len() + j));
                for q in 0..Q {
                    let one = V::find(row, *x.add(q));
                    let [found, high] = &mut sums[p][q];
                    *found = found.add_bytes(one);
                    *high = high.add_bytes(one.over_16());
                }
            }
        }
    }
    sums
}

/// Takes apart what [`count`] found.
///
/// With counts `a` of the first and `b` of the second filter, each below 256, the bytes are
/// `found = a + 16·b` and `high = b` at odd pixels, `high = b + 16·a'` at even ones, where `a'` is the
/// odd neighbour's; all modulo 256.
#[inline(always)]
fn halves<V: Vector>([found, high]: [V; 2]) -> Sums<V> {
    let b_odd = high.high();
    let a_odd = found.high().minus_16(b_odd);
    let b_even = high.minus_16(a_odd);
    let a_even = found.minus_16(b_even);
    [a_even, a_odd, b_even, b_odd]
}

/// Adds a block's sums to those kept, and writes `y` when they are complete.
///
/// # Safety
/// `job` is as [`all`] asks; the pairs exist, and the places are inside the images.
#[inline(always)]
unsafe fn collect<V: Vector, T: Sum, const P: usize, const Q: usize>(
    found: &[[[V; 2]; Q]; P],
    job: Job<'_, T>,
    part: Part,
    pair: usize,
    places: &[Place; Q],
) {
    for p in 0..P {
        for q in 0..Q {
            let channel = 2 * (pair + p);
            let mut sums = halves(found[p][q]);
            // SAFETY: there are sums for each pair and vector, aligned, unless there is one block only;
            // a whole vector of both channels can be written where it stands in `y`, and read where
            // it stands in the counts.
            unsafe {
                let kept = job.kept.cast::<Sums<V>>().wrapping_add(4 * (pair + p) + q);
                if !part.begins {
                    let ([a, b, c, d], kept) = (sums, *kept);
                    sums = [a.add(kept[0]), b.add(kept[1]), c.add(kept[2]), d.add(kept[3])];
                }
                let [a, b, c, d] = sums;
                let counts = job.walk.counts.as_ptr().add(places[q].pixel);
                if !part.ends {
                    *kept = sums;
                } else if places[q].whole && !part.again && channel + 1 < job.channels {
                    let y = job.y.add(places[q].at + channel * job.walk.area);
                    T::write(a, b, counts, y);
                    T::write(c, d, counts, y.add(job.walk.area));
                } else {
                    // A copy, so that sums need no place in memory elsewhere.
                    let lanes = [a, b, c, d];
                    let lanes = std::slice::from_raw_parts(lanes.as_ptr().cast(), 2 * V::LEN);
                    write_pieces(lanes, job, part.again, channel, places[q].pixel);
                }
            }
        }
    }
}

/// The same for pixels of several images or fewer than a vector, for one channel or two, with what `y`
/// holds in place of the counts if `again`; `sums` are the lanes of [`Sums`].
///
/// # Safety
/// `job` is as [`all`] asks, and the channel and the first pixel exist.
#[cold]
#[inline(never)]
unsafe fn write_pieces<T: Sum>(
    sums: &[u16],
    job: Job<'_, T>,
    again: bool,
    channel: usize,
    first: usize,
) {
    let Walk { area, images, counts, .. } = *job.walk;
    let len = sums.len() / 2;
    let end = (images * area).min(first + len);
    for (channel, sums) in (channel..job.channels).zip(sums.chunks_exact(len)) {
        let mut line = [0; UNIT];
        let (even, odd) = sums.split_at(len / 2);
        for (two, (&even, &odd)) in line.as_chunks_mut().0.iter_mut().zip(even.iter().zip(odd)) {
            *two = [even, odd];
        }
        // Of whole vectors, which are quicker than pieces.
        let mut whole = [T::default(); UNIT];
        for (whole, (count, &sum)) in whole.iter_mut().zip(counts[first..].iter().zip(&line)) {
            *whole = count.less(sum.into());
        }
        let mut pixel = first;
        while pixel < end {
            let (image, at) = (pixel / area, pixel % area);
            let some = (area - at).min(end - pixel);
            let at = image * job.stride + channel * area + at;
            // SAFETY: the door asserts `y` to hold every channel of every image, with which the piece ends.
            let y = unsafe { std::slice::from_raw_parts_mut(job.y.add(at), some) };
            if again {
                let sums = line[pixel - first..].iter();
                y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = y.less(sum.into()));
            } else {
                y.copy_from_slice(&whole[pixel - first..][..some]);
            }
            pixel += some;
        }
    }
}
