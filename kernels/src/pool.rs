//! Maximum and average over square windows of an image.

use crate::bits::Transform;
use crate::conv::depthwise;
use crate::elementwise::{map, rows, scale};
use crate::geom::{Conv, ConvGeom, PoolGeom};
use crate::par::{GRAIN, chunks, chunks2, scratch};
use crate::planes::{Grid, STRIP, Slab, copy};
use crate::reduce::sum_rows;
use crate::simd::{level, per_level};

/// `y[n,c,i,j] = max_{u,v} x[n, c, i·stride + u - pad, j·stride + v - pad]`, and which tap it was:
/// `winner = u·size + v`.
///
/// Padding never wins. Of equal values the first in row-major order wins; a NaN beats every number.
///
/// # Panics
/// If a length does not fit the geometry, here as in all of this file.
#[track_caller]
pub fn max_pool2d(g: &PoolGeom, x: &[f32], y: &mut [f32], winner: &mut [u8]) {
    assert_eq!(x.len(), g.x_len(), "max_pool2d: length of x for {g:?}");
    assert_eq!(y.len(), g.y_len(), "max_pool2d: length of y for {g:?}");
    assert_eq!(winner.len(), g.y_len(), "max_pool2d: length of winner for {g:?}");
    let level = level();
    let (hw, ohw) = (g.h * g.w, g.oh * g.ow);
    let planes = (GRAIN / hw).max(1);
    if (g.size, g.stride, g.pad) == (2, 2, 0) {
        return chunks2(y, planes * ohw, winner, planes * ohw, |at, y, winner| {
            scratch(4 * ohw, |taps| {
                let outputs = y.chunks_exact_mut(ohw).zip(winner.chunks_exact_mut(ohw));
                for (i, (y, winner)) in outputs.enumerate() {
                    let x = &x[(at * planes + i) * hw..][..hw];
                    max_of_four(level, x, g.w, g.ow, taps, y, winner);
                }
            });
        });
    }
    let slabs = Slab::padded([g.h, g.w], g.pad, g.stride);
    let places: Vec<usize> = slabs.taps([g.size, g.size], 1).collect();
    let len = slabs.line(g.oh, g.ow);
    let first = first_taps(g, slabs.pitch, len);
    chunks2(y, planes * ohw, winner, planes * ohw, |at, y, winner| {
        scratch(slabs.len + 2 * len, |buffer| {
            let (slab, lines) = buffer.split_at_mut(slabs.len);
            let (best, wins) = lines.split_at_mut(len);
            slab.fill(f32::NEG_INFINITY);
            let outputs = y.chunks_exact_mut(ohw).zip(winner.chunks_exact_mut(ohw));
            for (i, (y, winner)) in outputs.enumerate() {
                slabs.fill(level, &x[(at * planes + i) * hw..][..hw], slab);
                tournament(level, slab, &places, &first, best, wins);
                copy(level, [g.oh, g.ow], best, slabs.grid(), y, Grid::dense(g.ow));
                for (wins, winner) in wins.chunks(slabs.pitch).zip(winner.chunks_exact_mut(g.ow)) {
                    to_bytes(level, &wins[..g.ow], winner);
                }
            }
        });
    });
}

/// The maximum of [`max_pool2d`] over what the transform makes of each pixel, or over the pixels
/// themselves: for a prepared net, which asks for no winners. It allocates nothing on a worker thread, once
/// its [`par::scratch`](crate::par::scratch) has grown.
///
/// ```
/// use dirnet_kernels::{PoolGeom, bits::Transform, pool::max_pool2d_of};
/// let (g, then) = (PoolGeom::new(&[1, 1, 2, 2], 2, 2, 0), Transform::Scale { scale: &[-2.0] });
/// let mut y = [0.0];
/// max_pool2d_of(&g, &[1.0, 2.0, -3.0, 4.0], Some(&then), &mut y);
/// assert_eq!(y, [6.0]);
/// ```
///
/// # Panics
/// Or the transform is a threshold, or has not one number of each kind a channel.
#[track_caller]
pub fn max_pool2d_of(g: &PoolGeom, x: &[f32], then: Option<&Transform<'_>>, y: &mut [f32]) {
    const OP: &str = "max_pool2d_of";
    assert_eq!(x.len(), g.x_len(), "{OP}: length of x for {g:?}");
    assert_eq!(y.len(), g.y_len(), "{OP}: length of y for {g:?}");
    if let Some(then) = then {
        then.check(OP, g.c, false, true);
    }
    let (level, hw, ohw) = (level(), g.h * g.w, g.oh * g.ow);
    let planes = (GRAIN / hw).max(1);
    chunks(y, planes * ohw, |at, y| {
        scratch(hw + g.h * g.ow, |buffer| {
            let (made, rows) = buffer.split_at_mut(hw);
            for (i, y) in y.chunks_exact_mut(ohw).enumerate() {
                let plane = at * planes + i;
                let mut x = &x[plane * hw..][..hw];
                if let Some(then) = then {
                    then.plane(level, plane % g.c, x, made);
                    x = made;
                }
                largest(level, g, x, rows, y);
            }
        });
    });
}

/// The first tap of each output of a line that is a pixel: it wins where nothing is larger than -∞.
fn first_taps(g: &PoolGeom, pitch: usize, len: usize) -> Vec<f32> {
    let first = |out: usize| g.pad.saturating_sub(out * g.stride);
    (0..len).map(|at| (first(at / pitch) * g.size + first(at % pitch)) as f32).collect()
}

per_level! {
    /// A plane under the most common window, 2x2 without overlap. The four taps are sorted into
    /// slices of their own first, since rows are too short to fill vectors.
    fn max_of_four[](
        x: &[f32],
        w: usize,
        ow: usize,
        taps: &mut [f32],
        y: &mut [f32],
        winner: &mut [u8],
    ) {
        let n = y.len();
        let (a, rest) = taps.split_at_mut(n);
        let (b, rest) = rest.split_at_mut(n);
        let (c, d) = rest.split_at_mut(n);
        for (i, rows) in x.chunks_exact(2 * w).enumerate() {
            for (row, even, odd) in [(&rows[..w], &mut *a, &mut *b), (&rows[w..], &mut *c, &mut *d)] {
                let to = even[i * ow..][..ow].iter_mut().zip(&mut odd[i * ow..][..ow]);
                for ((even, odd), pair) in to.zip(row.chunks_exact(2)) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
            }
        }
        let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
        let winner = &mut winner[..n];
        for j in 0..n {
            let (mut best, mut tap) = (a[j], 0u32);
            for (x, at) in [(b[j], 1), (c[j], 2), (d[j], 3)] {
                let wins = (x > best) | x.is_nan();
                best = if wins { x } else { best };
                tap = if wins { at } else { tap };
            }
            y[j] = best;
            winner[j] = tap as u8;
        }
    }

    /// `best[i] = max slab[i + place]` over the places of all taps, and `wins[i]`, which tap it was.
    fn tournament[]
        (slab: &[f32], places: &[usize], first: &[f32], best: &mut [f32], wins: &mut [f32]) {
        let (best, wins) = (best.as_chunks_mut::<STRIP>().0, wins.as_chunks_mut::<STRIP>().0);
        let first = first.as_chunks::<STRIP>().0;
        for (at, ((best, wins), first)) in best.iter_mut().zip(wins).zip(first).enumerate() {
            let (mut held, mut taps) = ([f32::NEG_INFINITY; STRIP], *first);
            for (tap, place) in places.iter().enumerate() {
                let x = slab[at * STRIP + place..].first_chunk::<STRIP>();
                let (x, tap) = (x.expect("a strip to spare"), tap as f32);
                for l in 0..STRIP {
                    let larger = (x[l] > held[l]) | x[l].is_nan();
                    held[l] = if larger { x[l] } else { held[l] };
                    // Taps only grow; a plain choice would become a masked store, which is slow.
                    taps[l] = taps[l].max(if larger { tap } else { 0.0 });
                }
            }
            (*best, *wins) = (held, taps);
        }
    }
    /// A plane's windows by the columns of each row, then by rows: of equal numbers the first in row-major
    /// order is still the one that stays.
    fn largest[](g: &PoolGeom, x: &[f32], rows: &mut [f32], y: &mut [f32]) {
        for (x, row) in x.chunks_exact(g.w).zip(rows.chunks_exact_mut(g.ow)) {
            match g.stride {
                1 => largest_of_row::<1>(g, x, row),
                2 => largest_of_row::<2>(g, x, row),
                _ => largest_of_row::<0>(g, x, row),
            }
        }
        for (i, y) in y.chunks_exact_mut(g.ow).enumerate() {
            let (top, end) = (i * g.stride, (i * g.stride + g.size).min(g.h + g.pad));
            let seen = &rows[(top.max(g.pad) - g.pad) * g.ow..(end - g.pad) * g.ow];
            for from in (0..g.ow).step_by(SOME) {
                let at = from.min(g.ow.saturating_sub(SOME));
                if let Some(y) = y[at..].first_chunk_mut::<SOME>() {
                    let mut held = [f32::NEG_INFINITY; SOME];
                    for row in seen.chunks_exact(g.ow) {
                        let row = &row[at..][..SOME];
                        for l in 0..SOME {
                            held[l] = larger(held[l], row[l]);
                        }
                    }
                    *y = held;
                } else {
                    y.fill(f32::NEG_INFINITY);
                    for row in seen.chunks_exact(g.ow) {
                        y.iter_mut().zip(row).for_each(|(y, x)| *y = larger(*y, *x));
                    }
                }
            }
        }
    }
    fn to_bytes[](x: &[f32], y: &mut [u8]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x as u8);
    }
}

/// What beats `held`, if `x` does.
#[inline(always)]
fn larger(held: f32, x: f32) -> f32 {
    if (x > held) | x.is_nan() { x } else { held }
}

/// The maxima of a row, a stride of `S` apart if that is not 0.
#[inline(always)]
fn largest_of_row<const S: usize>(g: &PoolGeom, x: &[f32], y: &mut [f32]) {
    let s = if S == 0 { g.stride } else { S };
    // Outputs that see pixels only.
    let first = g.pad.div_ceil(s).min(g.ow);
    let end = ((g.w + g.pad).saturating_sub(g.size) / s + 1).clamp(first, g.ow);
    for j in (0..first).chain(end..g.ow) {
        let window = (j * s).max(g.pad) - g.pad..(j * s + g.size).min(g.w + g.pad) - g.pad;
        y[j] = x[window].iter().fold(f32::NEG_INFINITY, |held, &x| larger(held, x));
    }
    let (inner, mut from) = (&mut y[first..end], 0);
    while from < inner.len() {
        // The last strip overlaps the one before rather than fall short.
        let at = from.min(inner.len().saturating_sub(SOME));
        let x = &x[(first + at) * s - g.pad..];
        if let Some(y) = inner[at..].first_chunk_mut::<SOME>() {
            let mut held = [f32::NEG_INFINITY; SOME];
            for v in 0..g.size {
                let x = &x[v..][..(SOME - 1) * s + 1];
                for l in 0..SOME {
                    held[l] = larger(held[l], x[l * s]);
                }
            }
            *y = held;
        } else {
            for (l, y) in inner.iter_mut().enumerate() {
                let window = &x[l * s..][..g.size];
                *y = window.iter().fold(f32::NEG_INFINITY, |held, &x| larger(held, x));
            }
        }
        from += SOME;
    }
}

/// Outputs whose maxima are held in registers.
const SOME: usize = 16;

/// The gradient of [`max_pool2d`]: each `dy` goes to the pixel that won.
///
/// # Panics
/// Or a winner is no tap of a window.
#[track_caller]
pub fn max_pool2d_dx(g: &PoolGeom, winner: &[u8], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(winner.len(), g.y_len(), "max_pool2d_dx: length of winner for {g:?}");
    assert_eq!(dy.len(), g.y_len(), "max_pool2d_dx: length of dy for {g:?}");
    assert_eq!(dx.len(), g.x_len(), "max_pool2d_dx: length of dx for {g:?}");
    let ohw = g.oh * g.ow;
    // Each tap's pixel in the window of output 0, which may begin in the padding.
    let places: Vec<usize> =
        (0..g.size * g.size).map(|tap| tap / g.size * g.w + tap % g.size).collect();
    let before = g.pad * g.w + g.pad;
    rows(dx, g.h * g.w, |plane, dx| {
        dx.fill(0.0);
        let (winner, dy) = (&winner[plane * ohw..][..ohw], &dy[plane * ohw..][..ohw]);
        let outputs = winner.chunks_exact(g.ow).zip(dy.chunks_exact(g.ow));
        for (i, (winner, dy)) in outputs.enumerate() {
            for (j, (&winner, dy)) in winner.iter().zip(dy).enumerate() {
                let at = i * g.stride * g.w + j * g.stride + places[winner as usize] - before;
                dx[at] += dy;
            }
        }
    });
}

/// `y[n,c,i,j] = Σ_{u,v} x[n, c, i·stride + u - pad, j·stride + v - pad] / size²`, with padding
/// counted as zeros.
#[track_caller]
pub fn avg_pool2d(g: &PoolGeom, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), g.x_len(), "avg_pool2d: length of x for {g:?}");
    assert_eq!(y.len(), g.y_len(), "avg_pool2d: length of y for {g:?}");
    if is_global(g) {
        sum_rows(g.n * g.c, g.h * g.w, x, y);
    } else {
        let (g, ones) = as_depthwise(g);
        depthwise::forward(&g, x, &ones, y);
    }
    scale(y, 1.0 / area(g));
}

/// The gradient of [`avg_pool2d`]: each `dy` is shared out evenly over its window.
#[track_caller]
pub fn avg_pool2d_dx(g: &PoolGeom, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), g.y_len(), "avg_pool2d_dx: length of dy for {g:?}");
    assert_eq!(dx.len(), g.x_len(), "avg_pool2d_dx: length of dx for {g:?}");
    let share = 1.0 / area(g);
    if is_global(g) {
        return rows(dx, g.h * g.w, |plane, dx| dx.fill(dy[plane] * share));
    }
    scratch(dy.len(), |shares| {
        map(dy, shares, |dy| dy * share);
        let (g, ones) = as_depthwise(g);
        depthwise::dx(&g, &ones, shares, dx);
    });
}

fn area(g: &PoolGeom) -> f32 {
    (g.size * g.size) as f32
}

/// Whether one window holds the whole image and nothing else.
fn is_global(g: &PoolGeom) -> bool {
    (g.h, g.w, g.pad) == (g.size, g.size, 0)
}

/// The convolution that sums over the windows, and its filters of ones.
fn as_depthwise(g: &PoolGeom) -> (ConvGeom, Vec<f32>) {
    let how = Conv { stride: g.stride, pad: g.pad, dilation: 1, groups: g.c };
    let g = ConvGeom::new(&g.x(), &[g.c, 1, g.size, g.size], how);
    (g, vec![1.0; g.w_len()])
}
