//! The convolution of +-1 images with +-1 filters.

use super::lookup::{self, Offsets, Sum, Walk};
use super::stage::Stage;
use super::{Filters, Image, Pad};
use crate::simd::{self, per_level};
use crate::{ConvGeom, par};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// `y[n,o,i,j] = Σ_{c,u,v} x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad] · w[o,c,u,v]`
/// over +-1 images and filters, exactly; outside the image `x` is what `pad` says.
///
/// ```
/// use dirnet_kernels::bits::{Filters, Image, Pad, conv2d};
/// use dirnet_kernels::{Conv, ConvGeom};
/// let g = ConvGeom::new(&[1, 1, 1, 3], &[1, 1, 1, 3], Conv::valid());
/// let (x, w) = (Image::pack(&g, &[0.5, -2.0, 3.0]), Filters::pack(&g, &[1.0, 1.0, 1.0]));
/// let mut y = [0.0];
/// conv2d(&g, &x, &w, Pad::Zero, &mut y);
/// assert_eq!(y, [1.0]); // 1 - 1 + 1
/// ```
///
/// # Panics
/// If `x` or `w` was packed for another geometry, `y` has another length, or a sum has 2^24 terms or
/// more, which `f32` does not count.
#[track_caller]
pub fn conv2d(g: &ConvGeom, x: &Image, w: &Filters, pad: Pad, y: &mut [f32]) {
    assert!(g.taps() < 1 << 24, "bits::conv2d: sums of {} terms are not exact", g.taps());
    sums("bits::conv2d", g, x, w, pad, y, |_| ());
}

/// [`conv2d`] in integers of 16 bits, which are half as long to write and to read again.
///
/// # Panics
/// As [`conv2d`], and if a sum has more than [`i16::MAX`] terms.
#[track_caller]
pub fn conv2d_i16(g: &ConvGeom, x: &Image, w: &Filters, pad: Pad, y: &mut [i16]) {
    const OP: &str = "bits::conv2d_i16";
    assert!(g.taps() <= i16::MAX as usize, "{OP}: sums of {} terms do not fit", g.taps());
    sums(OP, g, x, w, pad, y, |_| ());
}

/// [`conv2d_i16`], and for each output channel `[Σ y, Σ y²]` over images and pixels: what a batch norm
/// needs to know of it, taken while the cache still holds it. Integers, so their order does not show.
///
/// # Panics
/// As [`conv2d_i16`].
#[track_caller]
pub fn conv2d_i16_moments(
    g: &ConvGeom,
    x: &Image,
    w: &Filters,
    pad: Pad,
    y: &mut [i16],
) -> Vec<[i64; 2]> {
    const OP: &str = "bits::conv2d_i16_moments";
    assert!(g.taps() <= i16::MAX as usize, "{OP}: sums of {} terms do not fit", g.taps());
    let (level, area) = (simd::level(), g.oh * g.ow);
    let moments: Vec<_> = (0..g.o).map(|_| [0, 0].map(AtomicI64::new)).collect();
    sums(OP, g, x, w, pad, y, |images| {
        for image in images.chunks_exact(g.o * area) {
            for (y, moments) in image.chunks_exact(area).zip(&moments) {
                let found = plane_moments(level, y, g.taps() as i32);
                moments.iter().zip(found).for_each(|(all, some)| _ = all.fetch_add(some, Relaxed));
            }
        }
    });
    moments.into_iter().map(|pair| pair.map(AtomicI64::into_inner)).collect()
}

per_level! {
    /// The sum of some numbers of at most `size`, and of their squares.
    fn plane_moments[](y: &[i16], size: i32) -> [i64; 2] {
        let mut moments = [0, 0];
        // So few that 32 bits hold the sum of their squares.
        for some in y.chunks(((i32::MAX / size) / size).max(1) as usize) {
            let (mut sum, mut squares) = (0, 0);
            for y in some.iter().map(|&y| i32::from(y)) {
                sum += y;
                squares += y * y;
            }
            moments[0] += i64::from(sum);
            moments[1] += i64::from(squares);
        }
        moments
    }
}

/// `finish` is called once for some images at a time, while the cache holds them.
#[track_caller]
fn sums<T: Sum>(
    op: &str,
    g: &ConvGeom,
    x: &Image,
    w: &Filters,
    pad: Pad,
    y: &mut [T],
    finish: impl Fn(&[T]) + Sync,
) {
    x.check(op, g);
    w.check(op, g);
    assert_eq!(y.len(), g.y_len(), "{op}: y of {:?}", g.y());
    let (level, area) = (simd::level(), g.oh * g.ow);
    let images = together(g, g.n.div_ceil(par::threads()));
    let stage = Stage::new(g, pad, images, lookup::UNIT);
    let offsets = Offsets::new(stage.offsets());
    let counts = counts(g, pad, stage.images);
    // A lone image is shared out by channels; the sums are exact, so how does not show.
    let block = 4 * g.group_o().div_ceil(4 * par::threads().div_ceil(g.n));
    par::chunks(y, stage.images * g.o * area, |i, y| {
        let images = y.len() / (g.o * area);
        par::scratch(stage.len() / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, stage.len());
            for group in 0..g.how.groups {
                for b in 0..images {
                    stage.fill(level, b, x.planes(i * stage.images + b, group), staged);
                }
                let (w, y) = (w.pairs(group), &mut y[group * g.group_o() * area..]);
                let walk = Walk { x: staged, offsets: &offsets, counts: &counts, area, images };
                if images > 1 {
                    lookup::sums(level, &walk, w, g.group_o(), g.o * area, y);
                } else {
                    par::chunks(&mut y[..g.group_o() * area], block * area, |i, y| {
                        let w = &w[i * block / 2 * offsets.len()..];
                        lookup::sums(level, &walk, w, y.len() / area, 0, y);
                    });
                }
            }
        });
        finish(y);
    });
}

/// How many of `most` images to lay out together: the fewest that leave hardly any vector of a tile idle.
pub(super) fn together(g: &ConvGeom, most: usize) -> usize {
    let area = g.oh * g.ow;
    let waste = |n: usize| {
        let pixels = (n * area).next_multiple_of(lookup::TILE);
        (pixels - n * area) as f32 / pixels as f32
    };
    let most = (16 * lookup::TILE / area).clamp(1, most);
    let few = (1..=most).find(|&n| waste(n) < 0.1);
    few.unwrap_or_else(|| (1..=most).min_by(|&a, &b| waste(a).total_cmp(&waste(b))).unwrap_or(1))
}

/// For each output pixel, how many products its sum has: the `k` of `k - 2·differences`.
pub(super) fn counts<T: Sum>(g: &ConvGeom, pad: Pad, images: usize) -> Vec<T> {
    let tally = |outputs: usize, taps: usize, inside: &dyn Fn(usize) -> Range<usize>| {
        let mut counts = vec![0; outputs];
        for tap in 0..taps {
            let met = if pad == Pad::Zero { inside(tap) } else { 0..outputs };
            counts[met].iter_mut().for_each(|count| *count += 1);
        }
        counts
    };
    let rows = tally(g.oh, g.kh, &|u| g.inside_y(u));
    let columns = tally(g.ow, g.kw, &|v| g.inside_x(v));
    let pixels = images * g.oh * g.ow;
    let mut counts = Vec::with_capacity(pixels.next_multiple_of(lookup::UNIT));
    for row in rows {
        counts.extend(columns.iter().map(|column| T::count(row * column * g.group_c())));
    }
    for _ in 1..images {
        counts.extend_from_within(..g.oh * g.ow);
    }
    counts.resize(counts.capacity(), T::default());
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_do_not_overflow() {
        for &level in simd::available() {
            for (y, len) in [(-i16::MAX, 100_000), (i16::MAX, 65_537), (181, 40_000), (-1, 3)] {
                let (n, wide) = (len as i64, i64::from(y));
                let moments = plane_moments(level, &vec![y; len], wide.abs() as i32);
                assert_eq!(moments, [n * wide, n * wide * wide], "{level:?}: {len} times {y}");
            }
        }
    }
}
