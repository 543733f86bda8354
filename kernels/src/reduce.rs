//! Many numbers to one: sums in double precision and in an order fixed by the sizes alone.
//!
//! A long sum is cut into pieces of [`GRAIN`] elements, each piece into interleaved sums that a vector
//! unit can carry side by side; then these lanes, then the pieces are added in order.

use crate::channels;
use crate::par::{GRAIN, chunks, map};
use crate::simd::{level, per_level};

per_level! {
    /// The largest `of(x[i])`, a NaN before all; `-∞` of nothing.
    pub(crate) fn largest[F: Fn(f32) -> f32](x: &[f32], of: F) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 32];
        let (whole, rest) = x.as_chunks::<32>();
        for x in whole {
            for l in 0..32 {
                lanes[l] = larger(lanes[l], of(x[l]));
            }
        }
        rest.iter().map(|&x| of(x)).chain(lanes).fold(f32::NEG_INFINITY, larger)
    }

    fn all_finite[](x: &[f32]) -> bool {
        // An exponent of all ones is infinite or NaN; a shift makes it the sign of an integer.
        let bad = x.iter().fold(0, |bad, x| bad | ((x.to_bits() & 0x7fff_ffff) + 0x0080_0000));
        bad >> 31 == 0
    }
}

/// The larger of two, a NaN before all.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if (b > a) | b.is_nan() { b } else { a }
}

/// `Σ_i x[i]`
pub fn sum(x: &[f32]) -> f32 {
    let level = level();
    let parts = map(x.len().div_ceil(GRAIN), |i| {
        let x = &x[i * GRAIN..x.len().min((i + 1) * GRAIN)];
        channels::row_sum(level, x, x, |x, _| x as f64)
    });
    parts.iter().sum::<f64>() as f32
}

/// `Σ_i a[i]·b[i]`
///
/// # Panics
/// If a length does not fit, here as in all of this file.
#[track_caller]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "dot: lengths of a and b");
    let level = level();
    let parts = map(a.len().div_ceil(GRAIN), |i| {
        let at = i * GRAIN..a.len().min((i + 1) * GRAIN);
        channels::row_sum(level, &a[at.clone()], &b[at], product)
    });
    parts.iter().sum()
}

/// `[Σ a⁴, Σ a²b², Σ b⁴]`: lengths and product of two vectors of squares, in one pass over both.
#[track_caller]
pub fn dots_of_squares(a: &[f32], b: &[f32]) -> [f64; 3] {
    assert_eq!(a.len(), b.len(), "dots_of_squares: lengths of a and b");
    let level = level();
    let parts = map(a.len().div_ceil(GRAIN), |i| {
        let at = i * GRAIN..a.len().min((i + 1) * GRAIN);
        some_squares(level, &a[at.clone()], &b[at])
    });
    parts.into_iter().fold([0.0; 3], |sum, part| std::array::from_fn(|i| sum[i] + part[i]))
}

/// Numbers whose sums are kept apart.
const LANES: usize = 8;

/// Adds to `[Σ a⁴, Σ a²b², Σ b⁴]`, lane by lane.
#[inline(always)]
fn add_squares(sums: &mut [[f64; LANES]; 3], a: &[f32; LANES], b: &[f32; LANES]) {
    let [a, b] = [a, b].map(|x| x.map(|x| f64::from(x) * f64::from(x)));
    for (sums, [a, b]) in sums.iter_mut().zip([[a, a], [a, b], [b, b]]) {
        for l in 0..LANES {
            sums[l] += a[l] * b[l];
        }
    }
}

per_level! {
    fn some_squares[](a: &[f32], b: &[f32]) -> [f64; 3] {
        let mut sums = [[0.0; LANES]; 3];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
        for (a, b) in a.iter().zip(b) {
            add_squares(&mut sums, a, b);
        }
        let mut rest = [[0.0; LANES]; 2];
        rest[0][..a_rest.len()].copy_from_slice(a_rest);
        rest[1][..b_rest.len()].copy_from_slice(b_rest);
        add_squares(&mut sums, &rest[0], &rest[1]);
        sums.map(|lanes| lanes.iter().sum())
    }
}

#[inline(always)]
fn product(a: f32, b: f32) -> f64 {
    a as f64 * b as f64
}

/// `out[c] = Σ_{n,p} x[n,c,p]`, the gradient of a bias.
#[track_caller]
pub fn sum_channels(n: usize, c: usize, hw: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), n * c * hw, "sum_channels: length of x");
    assert_eq!(out.len(), c, "sum_channels: one sum a channel");
    let sums = channels::sums([n, c, hw], x, x, |x, _| x as f64);
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
}

/// `out[c] = Σ_{n,p} a[n,c,p]·b[n,c,p]`, the gradient of a scale.
#[track_caller]
pub fn dot_channels(n: usize, c: usize, hw: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == n * c * hw && b.len() == a.len(), "dot_channels: lengths of a and b");
    assert_eq!(out.len(), c, "dot_channels: one sum a channel");
    let sums = channels::sums([n, c, hw], a, b, product);
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
}

/// `f(i, out[i])`, where each takes a pass over `work` elements.
fn rows_of_work(out: &mut [f32], work: usize, f: impl Fn(usize, &mut f32) + Sync) {
    let size = (GRAIN / work.max(1)).max(1);
    chunks(out, size, |piece, out| {
        for (i, out) in out.iter_mut().enumerate() {
            f(piece * size + i, out);
        }
    });
}

/// `out[i] = Σ_j x[i,j]`
#[track_caller]
pub fn sum_rows(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    per_row("sum_rows", rows, cols, x, out, |x| x as f64, 1.0);
}

/// `out[i] = Σ_j |x[i,j]| / cols`, the scale that serves a filter's signs best (XNOR-Net, 2016).
#[track_caller]
pub fn mean_abs_rows(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    per_row("mean_abs_rows", rows, cols, x, out, |x| x.abs() as f64, cols as f64);
}

#[track_caller]
fn per_row(
    op: &str,
    rows: usize,
    cols: usize,
    x: &[f32],
    out: &mut [f32],
    term: impl Fn(f32) -> f64 + Sync,
    divisor: f64,
) {
    assert_eq!(x.len(), rows * cols, "{op}: length of x");
    assert_eq!(out.len(), rows, "{op}: one value a row");
    let level = level();
    rows_of_work(out, cols, |i, out| {
        let x = &x[i * cols..][..cols];
        *out = (channels::row_sum(level, x, x, |x, _| term(x)) / divisor) as f32;
    });
}

/// `out[i] = Σ_j sign(w[i,j])·x[i,j]`, the gradient of a binary filter's scale. The sign of zero is 1.
#[track_caller]
pub fn sum_rows_by_signs(rows: usize, cols: usize, w: &[f32], x: &[f32], out: &mut [f32]) {
    let fits = x.len() == rows * cols && w.len() == x.len();
    assert!(fits, "sum_rows_by_signs: lengths of w and x");
    assert_eq!(out.len(), rows, "sum_rows_by_signs: one value a row");
    let level = level();
    rows_of_work(out, cols, |i, out| {
        let row = i * cols..(i + 1) * cols;
        let term = |w, x: f32| f64::from(if w < 0.0 { -x } else { x });
        *out = channels::row_sum(level, &w[row.clone()], &x[row], term) as f32;
    });
}

/// `out[j] = Σ_i x[i,j]`
#[track_caller]
pub fn sum_cols(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), rows * cols, "sum_cols: length of x");
    assert_eq!(out.len(), cols, "sum_cols: one sum a column");
    let level = level();
    // A strip of columns at a time, whose sums stay in the first cache.
    const STRIP: usize = 256;
    chunks(out, STRIP, |strip, out| {
        let mut sums = [0f64; STRIP];
        for x in x.chunks_exact(cols) {
            add_row(level, &x[strip * STRIP..][..out.len()], &mut sums[..out.len()]);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    });
}

per_level! {
    fn add_row[](x: &[f32], sums: &mut [f64]) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += x as f64;
        }
    }
}

/// `max_i |x[i]|`, 0 of nothing; NaN where one is among them.
pub fn max_abs(x: &[f32]) -> f32 {
    let level = level();
    let parts = map(x.len().div_ceil(GRAIN), |i| {
        largest(level, &x[i * GRAIN..x.len().min((i + 1) * GRAIN)], f32::abs)
    });
    parts.into_iter().fold(0.0, larger)
}

/// Where the first infinity or NaN stands.
///
/// ```
/// use dirnet_kernels::reduce::first_non_finite;
/// assert_eq!(first_non_finite(&[1.0, f32::NAN, f32::INFINITY]), Some(1));
/// assert_eq!(first_non_finite(&[1.0, f32::MAX]), None);
/// ```
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    let level = level();
    let pieces = map(x.len().div_ceil(GRAIN), |i| {
        let x = &x[i * GRAIN..x.len().min((i + 1) * GRAIN)];
        if all_finite(level, x) { None } else { x.iter().position(|x| !x.is_finite()) }
    });
    pieces.iter().enumerate().find_map(|(i, at)| at.map(|at| i * GRAIN + at))
}
