//! The logarithm of the softmax, the last step before a cross entropy.

use crate::channels::row_sum;
use crate::elementwise::rows as each_row;
use crate::math::exp;
use crate::reduce::largest;
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
    each_row(y, cols, |i, y| {
        let x = &x[i * cols..][..cols];
        let max = largest(level, x, |x| x);
        let total = row_sum(level, x, x, |x, _| exp(x - max) as f64);
        subtract(level, x, [max, total.ln() as f32], y);
    });
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
        let total = row_sum(level, dy, dy, |dy, _| dy as f64) as f32;
        log_softmax_dx_row(level, y, dy, total, dx);
    });
}

per_level! {
    fn subtract[](x: &[f32], by: [f32; 2], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - by[0]) - by[1];
        }
    }
    fn log_softmax_dx_row[](y: &[f32], dy: &[f32], total: f32, dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = dy - exp(y) * total;
        }
    }
}
