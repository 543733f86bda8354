//! Batch normalisation and standardisation; images seen as `n` by `c` by `hw`.

use crate::channels::{self, row_moments, row_sum};
use crate::elementwise::rows as each_row;
use crate::par::map;
use crate::simd::{level, per_level};

/// Over images and pixels: `mean[c] = Σ_{n,p} x[n,c,p] / m` and the biased
/// `var[c] = Σ_{n,p} (x[n,c,p] - mean[c])² / m`, with `m = n·hw`.
///
/// Both sums are taken in double precision about the channel's first pixel, so that a constant
/// channel has a variance of exactly zero.
///
/// # Panics
/// If a length does not fit, here as in all of this file.
#[track_caller]
pub fn batch_moments(n: usize, c: usize, hw: usize, x: &[f32], mean: &mut [f32], var: &mut [f32]) {
    assert_eq!(x.len(), n * c * hw, "batch_moments: length of x");
    assert!(mean.len() == c && var.len() == c, "batch_moments: one mean and variance a channel");
    assert!(n * hw > 0, "batch_moments: of no pixels at all");
    let m = (n * hw) as f64;
    let first = |at: usize| x[at * hw];
    let sums = channels::centred_sums([n, c, hw], x, x, |at| [first(at); 2]);
    for (at, [sum, squares]) in sums.into_iter().enumerate() {
        let offset = sum / m;
        mean[at] = (first(at) as f64 + offset) as f32;
        var[at] = (squares / m - offset * offset).max(0.0) as f32;
    }
}

/// `y = (x - mean)·(inv_std·gamma) + beta`, a value of each a channel.
#[track_caller]
pub fn batch_norm(
    n: usize,
    c: usize,
    hw: usize,
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
) {
    assert!(x.len() == n * c * hw && y.len() == x.len(), "batch_norm: lengths of x and y");
    let per_channel = [mean, inv_std, gamma, beta];
    assert!(per_channel.iter().all(|v| v.len() == c), "batch_norm: one value a channel");
    let scale: Vec<f32> = inv_std.iter().zip(gamma).map(|(s, g)| s * g).collect();
    let numbers = [mean, &scale, beta];
    channels::pass([c, hw], x, x, numbers, y, |x, _, [m, s, b]| (x - m) * s + b);
}

/// The gradients of [`batch_norm`] whose `mean` and `inv_std` are those of `x` itself.
///
/// With `z = (x - mean)·inv_std` and `m = n·hw`:
///
/// ```text
/// dbeta = Σ dy      dgamma = Σ dy·z      dx = gamma·inv_std·(dy - dbeta/m - z·dgamma/m)
/// ```
#[track_caller]
pub fn batch_norm_backward(
    n: usize,
    c: usize,
    hw: usize,
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let len = n * c * hw;
    assert!(
        x.len() == len && dy.len() == len && dx.len() == len,
        "batch_norm_backward: lengths of x, dy and dx"
    );
    assert!(
        [mean, inv_std, gamma, dgamma, dbeta].iter().all(|v| v.len() == c),
        "batch_norm_backward: one value a channel"
    );
    let sums = channels::centred_sums([n, c, hw], dy, x, |at| [0.0, mean[at]]);
    let m = (n * hw) as f64;
    let mut numbers = [(); 3].map(|()| vec![0f32; c]);
    for (at, [sum, along]) in sums.into_iter().enumerate() {
        let inv_std = inv_std[at] as f64;
        (dbeta[at], dgamma[at]) = (sum as f32, (along * inv_std) as f32);
        // dx = scale·(dy - offset - (x - mean)·slope)
        numbers[0][at] = (gamma[at] as f64 * inv_std) as f32;
        numbers[1][at] = (sum / m) as f32;
        numbers[2][at] = (along / m * inv_std * inv_std) as f32;
    }
    let [scale, offset, slope] = &numbers;
    let numbers = [mean, &scale[..], &offset[..], &slope[..]];
    channels::pass([c, hw], dy, x, numbers, dx, |dy, x, [mean, scale, offset, slope]| {
        scale * (dy - offset - (x - mean) * slope)
    });
}

/// `y[n,c,p] = a[c]·x[n,c,p] + b[c]`: multiply, round, add, round; never fused.
///
/// A trained batch normalisation is this, on a tape that evaluates as in a packed net; so both
/// come out the same to the bit.
#[track_caller]
pub fn channel_affine(
    n: usize,
    c: usize,
    hw: usize,
    x: &[f32],
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
) {
    assert!(x.len() == n * c * hw && y.len() == x.len(), "channel_affine: lengths of x and y");
    assert!(a.len() == c && b.len() == c, "channel_affine: one value a channel");
    channels::pass([c, hw], x, x, [a, b], y, |x, _, [a, b]| a * x + b);
}

per_level! {
    fn normalise[](x: &[f32], mean: f32, scale: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - mean) * scale;
        }
    }
    fn standardize_dx_row[]
        (y: &[f32], dy: &[f32], scale: f32, offset: f32, slope: f32, dx: &mut [f32]) {
        for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = scale * (dy - offset - y * slope);
        }
    }
}

/// Smallest standard deviation that a row is divided by.
const LEAST_STD: f64 = f32::MIN_POSITIVE as f64;

/// `y = (x - mean) / std` for each row, with the unbiased `std² = Σ (x - mean)² / (cols - 1)`, and
/// `inv_std = 1 / std`: what IR-Net and DIR-Net do to a filter before its sign.
///
/// A row that has no spread (all its values are equal, or it has only one) becomes zeros with an
/// `inv_std` of zero, in place of a division by zero. A NaN makes its row NaN.
#[track_caller]
pub fn standardize_rows(rows: usize, cols: usize, x: &[f32], y: &mut [f32], inv_std: &mut [f32]) {
    assert!(x.len() == rows * cols && y.len() == x.len(), "standardize_rows: lengths of x and y");
    assert_eq!(inv_std.len(), rows, "standardize_rows: one inv_std a row");
    let level = level();
    let statistics = map(rows, |i| {
        let x = &x[i * cols..][..cols];
        let first = x[0];
        let [sum, squares] = row_moments(level, x, first);
        let offset = sum / cols as f64;
        let std = ((squares - sum * offset).max(0.0) / (cols as f64 - 1.0)).sqrt();
        let inv_std = if cols == 1 || std <= LEAST_STD { 0.0 } else { 1.0 / std };
        ((first as f64 + offset) as f32, inv_std as f32)
    });
    for (inv_std, statistics) in inv_std.iter_mut().zip(&statistics) {
        *inv_std = statistics.1;
    }
    each_row(y, cols, |i, y| {
        let (mean, inv_std) = statistics[i];
        normalise(level, &x[i * cols..][..cols], mean, inv_std, y);
    });
}

/// The gradient of [`standardize_rows`] from its output:
/// `dx = inv_std·(dy - Σ dy / cols - y·Σ dy·y / (cols - 1))`
#[track_caller]
pub fn standardize_rows_dx(
    rows: usize,
    cols: usize,
    y: &[f32],
    inv_std: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let len = rows * cols;
    assert!(
        y.len() == len && dy.len() == len && dx.len() == len,
        "standardize_rows_dx: lengths of y, dy and dx"
    );
    assert_eq!(inv_std.len(), rows, "standardize_rows_dx: one inv_std a row");
    let level = level();
    each_row(dx, cols, |i, dx| {
        let (y, dy) = (&y[i * cols..][..cols], &dy[i * cols..][..cols]);
        let offset = row_sum(level, dy, dy, |dy, _| dy as f64) / cols as f64;
        let along = row_sum(level, dy, y, |dy, y| dy as f64 * y as f64);
        // A single column has no spread, and its inv_std of zero settles it.
        let slope = along / (cols as f64 - 1.0).max(1.0);
        standardize_dx_row(level, y, dy, inv_std[i], offset as f32, slope as f32, dx);
    });
}
