//! Single planes of images, laid out so that a tap of a window shows all outputs a contiguous piece.
//!
//! A plane is copied with its padding into a slab. The outputs of a whole plane are then one line, rows
//! end to end, and what a tap shows to them is a piece of the slab as long as the line. The ends of
//! the line's rows, where taps see beyond the row, mean nothing and are left out when it is copied.

use crate::par::{GRAIN, chunks, scratch};
use crate::simd::{Level, per_level};

/// Pixels of a line that are computed together; lines are whole strips.
pub(crate) const STRIP: usize = 32;

/// How a plane lies in its slab: with padding, and cut into `split` by `split` smaller planes, each
/// of every `split`-th row and column.
#[derive(Debug)]
pub(crate) struct Slab {
    pub h: usize,
    pub w: usize,
    /// Padding above and to the left.
    pub top: usize,
    pub left: usize,
    pub split: usize,
    /// Rows of a smaller plane, and elements of each.
    pub rows: usize,
    pub pitch: usize,
    /// Elements of the slab, with a strip to spare at its end.
    pub len: usize,
}

impl Slab {
    /// Planes of `h` by `w` with `pad` pixels on each side, for taps at the multiples of `split`.
    pub fn padded([h, w]: [usize; 2], pad: usize, split: usize) -> Slab {
        let (rows, pitch) = ((h + 2 * pad).div_ceil(split), (w + 2 * pad).div_ceil(split));
        let len = split * split * rows * pitch + STRIP;
        Slab { h, w, top: pad, left: pad, split, rows, pitch, len }
    }

    /// Where the taps of the filter find what they show to the first output.
    pub fn taps(&self, [kh, kw]: [usize; 2], dilation: usize) -> impl Iterator<Item = usize> {
        let (d, s) = (dilation, self.split);
        (0..kh * kw).map(move |tap| {
            let (p, q) = (tap / kw * d, tap % kw * d);
            ((p % s * s + q % s) * self.rows + p / s) * self.pitch + q / s
        })
    }

    /// Elements of a line that holds `rows` by `cols` outputs.
    pub fn line(&self, rows: usize, cols: usize) -> usize {
        ((rows - 1) * self.pitch + cols).next_multiple_of(STRIP)
    }

    /// How outputs lie in a line.
    pub fn grid(&self) -> Grid {
        Grid::dense(self.pitch)
    }

    /// Copies a plane into a slab that was all zeros before its first plane.
    pub fn fill(&self, level: Level, plane: &[f32], slab: &mut [f32]) {
        let s = self.split;
        // Of the padded rows (or columns) a, a + s, …: how many are padding, the first that is
        // not, and how many there are from it on.
        let part = |a: usize, before: usize, size: usize| {
            let padding = before.saturating_sub(a).div_ceil(s);
            let first = a + padding * s - before;
            (padding, first, size.saturating_sub(first).div_ceil(s))
        };
        for a in 0..s {
            for b in 0..s {
                let ((top, p, rows), (left, q, cols)) =
                    (part(a, self.top, self.h), part(b, self.left, self.w));
                if rows > 0 && cols > 0 {
                    let slab = &mut slab[((a * s + b) * self.rows + top) * self.pitch + left..];
                    let from = Grid { stride: s * self.w, step: s };
                    copy(level, [rows, cols], &plane[p * self.w + q..], from, slab, self.grid());
                }
            }
        }
    }
}

/// `f(plane, out[plane], slab, line)` for each plane of `out`, with a slab that was all `padding`
/// before the first of several planes, and a line of anything.
pub(crate) fn each_plane(
    out: &mut [f32],
    size: usize,
    [slab, line]: [usize; 2],
    padding: f32,
    f: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    let planes = (GRAIN / size).max(1);
    chunks(out, planes * size, |at, out| {
        scratch(slab + line, |buffer| {
            let (slab, line) = buffer.split_at_mut(slab);
            slab.fill(padding);
            for (i, out) in out.chunks_exact_mut(size).enumerate() {
                f(at * planes + i, out, slab, line);
            }
        });
    });
}

/// Where the pixels of an image lie: row after row, column after column.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// Elements between two rows.
    pub stride: usize,
    /// Elements between two columns.
    pub step: usize,
}

impl Grid {
    /// Columns side by side.
    pub fn dense(stride: usize) -> Grid {
        Grid { stride, step: 1 }
    }
}

per_level! {
    /// Copies `rows` by `cols` pixels of `x` to `y`.
    pub(crate) fn copy[](size: [usize; 2], x: &[f32], from: Grid, y: &mut [f32], to: Grid) {
        let [rows, cols] = size;
        match (from.step, to.step) {
            (1, 1) => {}
            (2, 1) => {
                match cols {
                    8.. => every_second::<8, 16>(size, x, from.stride, y, to.stride),
                    4.. => every_second::<4, 8>(size, x, from.stride, y, to.stride),
                    1.. => every_second::<1, 2>(size, x, from.stride, y, to.stride),
                    0 => {}
                }
                return;
            }
            // With a step that it knows the compiler does better than below.
            (1, 2) => {
                for i in 0..rows {
                    let (x, y) = (&x[i * from.stride..][..cols], &mut y[i * to.stride..]);
                    let y = &mut y[..2 * cols - 1];
                    (0..cols).for_each(|j| y[2 * j] = x[j]);
                }
                return;
            }
            _ => {
                for i in 0..rows {
                    let x = x[i * from.stride..].iter().step_by(from.step);
                    let y = y[i * to.stride..].iter_mut().step_by(to.step);
                    y.zip(x).take(cols).for_each(|(y, x)| *y = *x);
                }
                return;
            }
        }
        // In strips of fixed widths, since a call to copy a short row takes longer than the row.
        let mut j = 0;
        while j < cols {
            let (x, y) = (&x[j..], &mut y[j..]);
            j += match cols - j {
                32.. => strip::<32>(rows, x, from, y, to),
                16.. => strip::<16>(rows, x, from, y, to),
                8.. => strip::<8>(rows, x, from, y, to),
                4.. => strip::<4>(rows, x, from, y, to),
                _ => strip::<1>(rows, x, from, y, to),
            };
        }
    }
}

per_level! {
    /// Spreads the pixels of `few`, in rows of `cols`, over rows of `wide`, a `step` apart either way, and
    /// zeros between them.
    pub(crate) fn spread[](few: &[f32], cols: usize, step: usize, wide: usize, out: &mut [f32]) {
        for (i, row) in out.chunks_exact_mut(wide).enumerate() {
            if i % step > 0 {
                zeros(row);
                continue;
            }
            let few = &few[i / step * cols..][..cols];
            if step == 2 {
                match cols {
                    8.. if wide == 2 * cols => with_zeros::<8, 16>(few, row),
                    4.. if wide == 2 * cols => with_zeros::<4, 8>(few, row),
                    _ => {
                        let (pairs, last) = row.as_chunks_mut::<2>();
                        pairs.iter_mut().zip(few).for_each(|(pair, few)| *pair = [*few, 0.0]);
                        last.iter_mut().zip(&few[pairs.len().min(cols)..]).for_each(|(y, few)| *y = *few);
                    }
                }
                continue;
            }
            row.fill(0.0);
            row.iter_mut().step_by(step).zip(few).for_each(|(y, few)| *y = *few);
        }
    }
}

per_level! {
    /// Copies `rows` by `cols` pixels of `x`, rows a `stride` apart, to rows of `y` a `pitch` apart: the
    /// even columns of each from the first place `at` on, the odd ones from the second.
    pub(crate) fn unweave[](
        size: [usize; 2],
        x: &[f32],
        stride: usize,
        y: &mut [f32],
        pitch: usize,
        at: [usize; 2],
    ) {
        let [rows, cols] = size;
        for i in 0..rows {
            let (x, y) = (&x[i * stride..][..cols], &mut y[i * pitch..]);
            let (pairs, last) = x.as_chunks::<2>();
            match pairs.len() {
                8.. => part_pairs::<8>(pairs, y, at),
                4.. => part_pairs::<4>(pairs, y, at),
                _ => {
                    for (j, pair) in pairs.iter().enumerate() {
                        (y[at[0] + j], y[at[1] + j]) = (pair[0], pair[1]);
                    }
                }
            }
            if let [last] = last {
                y[at[0] + pairs.len()] = *last;
            }
        }
    }
}

/// The first and the second number of some pairs, each to places of its own, in vectors of `N`. The last
/// may overlap the one before.
#[inline(always)]
fn part_pairs<const N: usize>(pairs: &[[f32; 2]], y: &mut [f32], at: [usize; 2]) {
    let [first, second] = if cfg!(target_endian = "little") { [0, 32] } else { [32, 0] };
    let last = pairs.len() - N;
    let mut j = 0;
    loop {
        let pairs: &[[f32; 2]; N] = pairs[j..].first_chunk().expect("N pairs from there on");
        // As numbers of 64 bits, of eight of which at a time compilers know how to take halves; spelled out,
        // since in a loop over both halves they take one by one.
        let mut both = [0u64; N];
        for l in 0..N {
            // SAFETY: both types are 64 bits, any of which are a number.
            both[l] = unsafe { std::mem::transmute::<[f32; 2], u64>(pairs[l]) };
        }
        let to = &mut y[at[0] + j..][..N];
        for l in 0..N {
            to[l] = f32::from_bits((both[l] >> first) as u32);
        }
        let to = &mut y[at[1] + j..][..N];
        for l in 0..N {
            to[l] = f32::from_bits((both[l] >> second) as u32);
        }
        if j == last {
            return;
        }
        j = (j + N).min(last);
    }
}

#[inline(always)]
fn strip<const N: usize>(rows: usize, x: &[f32], from: Grid, y: &mut [f32], to: Grid) -> usize {
    for i in 0..rows {
        y[i * to.stride..][..N].copy_from_slice(&x[i * from.stride..][..N]);
    }
    N
}

/// Every second number of rows of `x` to `y`, in vectors of `N`, which are `TWICE` of `x`. The last of a row may
/// overlap the one before.
#[inline(always)]
fn every_second<const N: usize, const TWICE: usize>(
    [rows, cols]: [usize; 2],
    x: &[f32],
    stride: usize,
    y: &mut [f32],
    pitch: usize,
) {
    let last = cols - N;
    for i in 0..rows {
        let (x, y) = (&x[i * stride..], &mut y[i * pitch..][..cols]);
        if x.len() < 2 * cols {
            y.iter_mut().zip(x.iter().step_by(2)).for_each(|(y, x)| *y = *x);
            continue;
        }
        let mut j = 0;
        loop {
            let (x, y) = (&x[2 * j..][..TWICE], &mut y[j..][..N]);
            for l in 0..N {
                y[l] = x[2 * l];
            }
            if j == last {
                break;
            }
            j = (j + N).min(last);
        }
    }
}

/// A row of zeros, without a call, which takes as long as a short row.
#[inline(always)]
fn zeros(y: &mut [f32]) {
    const STRIP: usize = 16;
    let Some(last) = y.len().checked_sub(STRIP) else { return y.fill(0.0) };
    let mut j = 0;
    loop {
        y[j..][..STRIP].fill(0.0);
        if j == last {
            return;
        }
        j = (j + STRIP).min(last);
    }
}

/// The way back of [`every_second`], with zeros between.
#[inline(always)]
fn with_zeros<const N: usize, const TWICE: usize>(few: &[f32], y: &mut [f32]) {
    let last = few.len() - N;
    let mut j = 0;
    loop {
        let (few, y) = (&few[j..][..N], &mut y[2 * j..][..TWICE]);
        for l in 0..TWICE {
            y[l] = if l % 2 == 0 { few[l / 2] } else { 0.0 };
        }
        if j == last {
            return;
        }
        j = (j + N).min(last);
    }
}
