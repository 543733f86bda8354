//! The logarithm of the softmax, the last step before a cross entropy.

use crate::elementwise::rows as each_row;
use crate::math::exp;
use crate::reduce::sum_of;
use crate::simd::{level, per_level};

/// `y[i,j] = x[i,j] - max_k x[i,k] - ln Σ_k exp(x[i,k] - max)`
///
/// The softmax itself is `exp(y)`; see [`exp`].
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn log_softmax(rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    assert!(x.len() == rows * cols && y.len() == x.len(), "log_softmax: lengths of x and y");
    let level = level();
    each_row(y, cols, |i, y| log_softmax_row(level, &x[i * cols..][..cols], y));
}

/// The gradient of [`log_softmax`] from its output: `dx = dy - exp(y)·Σ_k dy[i,k]`
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn log_softmax_dx(rows: usize, cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n = rows * cols;
    assert!(y.len() == n && dy.len() == n && dx.len() == n, "log_softmax_dx: lengths");
    let level = level();
    each_row(dx, cols, |i, dx| {
        let (y, dy) = (&y[i * cols..][..cols], &dy[i * cols..][..cols]);
        let total = sum_of(level, dy, dy, |dy, _| dy as f64) as f32;
        log_softmax_dx_row(level, y, dy, total, dx);
    });
}

per_level! {
    fn log_softmax_row[](x: &[f32], y: &mut [f32]) {
        let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x - max;
        }
        let mut total = 0f64;
        for &y in y.iter() {
            total += exp(y) as f64;
        }
        let log = total.ln() as f32;
        for y in y {
            *y -= log;
        }
    }
    fn log_softmax_dx_row[](y: &[f32], dy: &[f32], total: f32, dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = dy - exp(y) * total;
        }
    }
}
