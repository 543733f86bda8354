//! Maximum and average over square windows of an image.

use crate::elementwise::rows;
use crate::geom::PoolGeom;
use crate::par::{chunks2, scratch};
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
    chunks2(y, ohw, winner, ohw, |plane, y, winner| {
        let x = &x[plane * hw..][..hw];
        if (g.size, g.stride, g.pad) == (2, 2, 0) {
            return scratch(4 * ohw, |taps| max_of_four(level, x, g.w, g.ow, taps, y, winner));
        }
        for i in 0..g.oh {
            let (y, winner) = (&mut y[i * g.ow..][..g.ow], &mut winner[i * g.ow..][..g.ow]);
            // The first tap inside the image wins where nothing is larger than -∞.
            y.fill(f32::NEG_INFINITY);
            let first_row = g.pad.saturating_sub(i * g.stride);
            for (j, winner) in winner.iter_mut().enumerate() {
                *winner = (first_row * g.size + g.pad.saturating_sub(j * g.stride)) as u8;
            }
            for u in (0..g.size).filter(|&u| g.inside_y(u).contains(&i)) {
                let x = &x[(i * g.stride + u - g.pad) * g.w..][..g.w];
                for v in 0..g.size {
                    let at = g.inside_x(v);
                    let x = &x[(at.start * g.stride + v).saturating_sub(g.pad)..];
                    let tap = (u * g.size + v) as u8;
                    max_tap(level, x, g.stride, tap, &mut y[at.clone()], &mut winner[at]);
                }
            }
        }
    });
}

/// The gradient of [`max_pool2d`]: each `dy` goes to the pixel that won.
///
/// # Panics
/// Also if a winner is no tap of its window.
#[track_caller]
pub fn max_pool2d_dx(g: &PoolGeom, winner: &[u8], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(winner.len(), g.y_len(), "max_pool2d_dx: length of winner for {g:?}");
    assert_eq!(dy.len(), g.y_len(), "max_pool2d_dx: length of dy for {g:?}");
    assert_eq!(dx.len(), g.x_len(), "max_pool2d_dx: length of dx for {g:?}");
    let ohw = g.oh * g.ow;
    let offsets: Vec<(usize, usize)> =
        (0..g.size * g.size).map(|tap| (tap / g.size, tap % g.size)).collect();
    rows(dx, g.h * g.w, |plane, dx| {
        dx.fill(0.0);
        let (winner, dy) = (&winner[plane * ohw..][..ohw], &dy[plane * ohw..][..ohw]);
        for (i, (winner, dy)) in winner.chunks_exact(g.ow).zip(dy.chunks_exact(g.ow)).enumerate() {
            for (j, (&tap, dy)) in winner.iter().zip(dy).enumerate() {
                let (u, v) = offsets[tap as usize];
                dx[(i * g.stride + u - g.pad) * g.w + (j * g.stride + v - g.pad)] += dy;
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
    let level = level();
    let hw = g.h * g.w;
    rows(y, g.oh * g.ow, |plane, y| {
        let x = &x[plane * hw..][..hw];
        for (i, y) in y.chunks_exact_mut(g.ow).enumerate() {
            y.fill(0.0);
            for u in (0..g.size).filter(|&u| g.inside_y(u).contains(&i)) {
                let x = &x[(i * g.stride + u - g.pad) * g.w..][..g.w];
                for v in 0..g.size {
                    let at = g.inside_x(v);
                    let x = &x[(at.start * g.stride + v).saturating_sub(g.pad)..];
                    add_tap(level, x, g.stride, &mut y[at]);
                }
            }
            let area = (g.size * g.size) as f32;
            y.iter_mut().for_each(|y| *y /= area);
        }
    });
}

/// The gradient of [`avg_pool2d`]: each `dy` is shared out evenly over its window.
#[track_caller]
pub fn avg_pool2d_dx(g: &PoolGeom, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), g.y_len(), "avg_pool2d_dx: length of dy for {g:?}");
    assert_eq!(dx.len(), g.x_len(), "avg_pool2d_dx: length of dx for {g:?}");
    let (ohw, area) = (g.oh * g.ow, (g.size * g.size) as f32);
    rows(dx, g.h * g.w, |plane, dx| {
        dx.fill(0.0);
        for (i, dy) in dy[plane * ohw..][..ohw].chunks_exact(g.ow).enumerate() {
            for u in (0..g.size).filter(|&u| g.inside_y(u).contains(&i)) {
                let dx = &mut dx[(i * g.stride + u - g.pad) * g.w..][..g.w];
                for v in 0..g.size {
                    for j in g.inside_x(v) {
                        dx[j * g.stride + v - g.pad] += dy[j];
                    }
                }
            }
        }
        dx.iter_mut().for_each(|dx| *dx /= area);
    });
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
    fn max_tap[](x: &[f32], stride: usize, tap: u8, y: &mut [f32], winner: &mut [u8]) {
        let pixels = x.chunks(stride).map(|x| x[0]);
        for ((y, winner), x) in y.iter_mut().zip(winner).zip(pixels) {
            let wins = x > *y || x.is_nan();
            *y = if wins { x } else { *y };
            *winner = if wins { tap } else { *winner };
        }
    }
    fn add_tap[](x: &[f32], stride: usize, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x.chunks(stride)) {
            *y += x[0];
        }
    }
}
