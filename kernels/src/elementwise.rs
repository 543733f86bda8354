//! Each output from the inputs at its own place, or at its own channel: one pass over memory.
//!
//! The function handed in is compiled into the loop for every instruction set. An output depends on
//! its own inputs alone, so threads and pieces cannot change it.

use crate::par::{GRAIN, chunks};
use crate::simd::{level, per_level};
use crate::transpose::transpose as blocks;

/// `y[i] = f(x[i])`
///
/// ```
/// let mut y = [0.0; 3];
/// dirnet_kernels::elementwise::map(&[-1.0, 0.0, 2.0], &mut y, |x| x.max(0.0));
/// assert_eq!(y, [0.0, 0.0, 2.0]);
/// ```
///
/// # Panics
/// If the lengths differ, here as in all of this file.
#[track_caller]
pub fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    assert_eq!(x.len(), y.len(), "map: lengths of x and y");
    let level = level();
    chunks(y, GRAIN, |i, y| map_piece(level, &x[i * GRAIN..][..y.len()], y, &f));
}

/// `y[i] = f(y[i])`
pub fn map_in_place(y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    let level = level();
    chunks(y, GRAIN, |_, y| map_in_place_piece(level, y, &f));
}

/// `y[i] = f(a[i], b[i])`
#[track_caller]
pub fn zip(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    assert!(a.len() == y.len() && b.len() == y.len(), "zip: lengths of a, b and y");
    let level = level();
    chunks(y, GRAIN, |i, y| {
        let (a, b) = (&a[i * GRAIN..][..y.len()], &b[i * GRAIN..][..y.len()]);
        zip_piece(level, a, b, y, &f);
    });
}

/// `y[i] = f(y[i], b[i])`
#[track_caller]
pub fn zip_in_place(y: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    assert_eq!(b.len(), y.len(), "zip_in_place: lengths of b and y");
    let level = level();
    chunks(y, GRAIN, |i, y| zip_in_place_piece(level, &b[i * GRAIN..][..y.len()], y, &f));
}

/// `y[i] = f(a[i], b[i], c[i])`
#[track_caller]
pub fn zip3(
    a: &[f32],
    b: &[f32],
    c: &[f32],
    y: &mut [f32],
    f: impl Fn(f32, f32, f32) -> f32 + Sync,
) {
    let n = y.len();
    assert!(a.len() == n && b.len() == n && c.len() == n, "zip3: lengths of a, b, c and y");
    let level = level();
    chunks(y, GRAIN, |i, y| {
        let at = i * GRAIN..i * GRAIN + y.len();
        zip3_piece(level, &a[at.clone()], &b[at.clone()], &c[at], y, &f);
    });
}

per_level! {
    fn map_piece[F: Fn(f32) -> f32](x: &[f32], y: &mut [f32], f: &F) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f(x);
        }
    }
    fn map_in_place_piece[F: Fn(f32) -> f32](y: &mut [f32], f: &F) {
        for y in y {
            *y = f(*y);
        }
    }
    fn zip_piece[F: Fn(f32, f32) -> f32](a: &[f32], b: &[f32], y: &mut [f32], f: &F) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = f(a, b);
        }
    }
    fn zip_in_place_piece[F: Fn(f32, f32) -> f32](b: &[f32], y: &mut [f32], f: &F) {
        for (y, &b) in y.iter_mut().zip(b) {
            *y = f(*y, b);
        }
    }
    fn zip3_piece[F: Fn(f32, f32, f32) -> f32]
        (a: &[f32], b: &[f32], c: &[f32], y: &mut [f32], f: &F) {
        for (((y, &a), &b), &c) in y.iter_mut().zip(a).zip(b).zip(c) {
            *y = f(a, b, c);
        }
    }
}

/// `y[i] = y[i] + x[i]`
#[track_caller]
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    zip_in_place(y, x, |y, x| y + x);
}

/// `y[i] = s · y[i]`
pub fn scale(y: &mut [f32], s: f32) {
    map_in_place(y, |y| s * y);
}

/// `y[i] = value`
pub fn fill(y: &mut [f32], value: f32) {
    chunks(y, GRAIN, |_, y| y.fill(value));
}

/// `y[n,c,p] = x[n,c,p] + b[c]`, the bias of a convolution; with `hw = 1`, of a dense layer.
#[track_caller]
pub fn add_channels(n: usize, c: usize, hw: usize, x: &[f32], b: &[f32], y: &mut [f32]) {
    channels("add_channels", [n, c, hw], x, b, y, |x, b| x + b);
}

/// `y[n,c,p] = a[c] · x[n,c,p]`
#[track_caller]
pub fn scale_channels(n: usize, c: usize, hw: usize, x: &[f32], a: &[f32], y: &mut [f32]) {
    channels("scale_channels", [n, c, hw], x, a, y, |x, a| a * x);
}

#[track_caller]
fn channels(
    op: &str,
    [n, c, hw]: [usize; 3],
    x: &[f32],
    b: &[f32],
    y: &mut [f32],
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    assert!(x.len() == n * c * hw && y.len() == x.len(), "{op}: lengths of x and y");
    assert_eq!(b.len(), c, "{op}: one value a channel");
    crate::channels::pass([c, hw], x, x, [b], y, |x, _, [b]| f(x, b));
}

/// `f(row, y[row])` for each row of `cols` elements, several rows to a piece of work.
pub(crate) fn rows<T: Send>(y: &mut [T], cols: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let cols = cols.max(1);
    let rows = (GRAIN / cols).max(1);
    chunks(y, rows * cols, |at, y| {
        for (i, y) in y.chunks_mut(cols).enumerate() {
            f(at * rows + i, y);
        }
    });
}

/// `y[j,i] = x[i,j]` for `x` of `rows` by `cols`.
#[track_caller]
pub fn transpose(rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    assert!(x.len() == rows * cols && y.len() == x.len(), "transpose: lengths of x and y");
    let level = level();
    let each = (GRAIN / rows.max(1)).next_multiple_of(8);
    chunks(y, each * rows, |at, y| {
        let cols_here = y.len() / rows;
        blocks(level, [rows, cols_here], &x[at * each..], cols, y, rows);
    });
}
