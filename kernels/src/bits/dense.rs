//! Products of +-1 matrices, and their gradients.

use super::bit;
use super::pack::value;
use crate::gemm::{Matrix, Write, product};
use crate::par;
use crate::simd::{self, per_level};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A +-1 matrix, one bit a number.
#[derive(Clone, Debug)]
pub struct Rows {
    rows: usize,
    cols: usize,
    nan: bool,
    words: Vec<u64>,
}

impl Rows {
    /// The signs of `x`, `rows` by `cols`, row by row.
    ///
    /// # Panics
    /// If `x` has another length, or a size is zero.
    #[track_caller]
    pub fn pack(rows: usize, cols: usize, x: &[f32]) -> Rows {
        assert!(rows > 0 && cols > 0, "bits::Rows::pack: {rows} by {cols}");
        assert_eq!(x.len(), rows * cols, "bits::Rows::pack: x of {rows} by {cols}");
        let (level, width) = (simd::level(), cols.div_ceil(64));
        let nan = AtomicBool::new(false);
        let mut words = vec![0; rows * width];
        let some = (par::GRAIN / cols).max(1);
        par::chunks(&mut words, some * width, |i, words| {
            for (j, words) in words.chunks_mut(width).enumerate() {
                if pack_row(level, &x[(i * some + j) * cols..][..cols], words) {
                    nan.store(true, Relaxed);
                }
            }
        });
        Rows { rows, cols, nan: nan.into_inner(), words }
    }

    /// Writes +-1.0, row by row.
    ///
    /// # Panics
    /// If `y` has another length.
    #[track_caller]
    pub fn unpack(&self, y: &mut [f32]) {
        let (rows, cols) = (self.rows, self.cols);
        assert_eq!(y.len(), rows * cols, "bits::Rows::unpack: y of {rows} by {cols}");
        par::chunks(y, cols, |i, y| self.expand(i, 0, y));
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Whether a NaN was packed (as +1).
    pub fn has_nan(&self) -> bool {
        self.nan
    }

    fn row(&self, i: usize) -> &[u64] {
        let width = self.cols.div_ceil(64);
        &self.words[i * width..][..width]
    }

    /// Writes row `i` from column `from` (a multiple of 64) on as floats.
    fn expand(&self, i: usize, from: usize, y: &mut [f32]) {
        for (y, word) in y.chunks_mut(64).zip(&self.row(i)[from / 64..]) {
            for (b, y) in y.iter_mut().enumerate() {
                *y = value((word >> b) as u8);
            }
        }
    }

    #[track_caller]
    fn check(&self, op: &str, name: &str, rows: usize, cols: usize) {
        assert_eq!((self.rows, self.cols), (rows, cols), "{op}: {name} packed for another shape");
    }
}

/// `y[i,j] = Σ_k x[i,k]·w[j,k]` over +-1 matrices, exactly; `x` is `m` by `k`, `w` `n` by `k`, `y` `m` by `n`.
///
/// # Panics
/// If a size differs from these.
#[track_caller]
pub fn dense(m: usize, k: usize, n: usize, x: &Rows, w: &Rows, y: &mut [f32]) {
    const OP: &str = "bits::dense";
    x.check(OP, "x", m, k);
    w.check(OP, "w", n, k);
    assert_eq!(y.len(), m * n, "{OP}: y of {m} by {n}");
    let level = simd::level();
    par::chunks(y, n, |i, y| row_sums(level, k, x.row(i), &w.words, y));
}

/// Columns of a +-1 matrix expanded to floats at a time.
const COLUMNS: usize = 512;
/// Rows of a gradient computed at a time.
const ROWS: usize = 64;

/// `dx[i,k] = Σ_j dy[i,j]·w[j,k]`: the gradient to the +-1 matrix `x` of [`dense`].
///
/// # Panics
/// If a size differs from those of [`dense`].
#[track_caller]
pub fn dense_dx(m: usize, k: usize, n: usize, w: &Rows, dy: &[f32], dx: &mut [f32]) {
    const OP: &str = "bits::dense_dx";
    w.check(OP, "w", n, k);
    assert_eq!(dy.len(), m * n, "{OP}: dy of {m} by {n}");
    assert_eq!(dx.len(), m * k, "{OP}: dx of {m} by {k}");
    par::chunks(dx, ROWS * k, |i, dx| {
        times_signs(Matrix::rows(&dy[i * ROWS * n..], n), n, w, dx);
    });
}

/// `dw[j,k] = Σ_i dy[i,j]·x[i,k]`: the gradient to the +-1 matrix `w` of [`dense`].
///
/// # Panics
/// If a size differs from those of [`dense`].
#[track_caller]
pub fn dense_dw(m: usize, k: usize, n: usize, x: &Rows, dy: &[f32], dw: &mut [f32]) {
    const OP: &str = "bits::dense_dw";
    x.check(OP, "x", m, k);
    assert_eq!(dy.len(), m * n, "{OP}: dy of {m} by {n}");
    assert_eq!(dw.len(), n * k, "{OP}: dw of {n} by {k}");
    par::chunks(dw, ROWS * k, |i, dw| {
        times_signs(Matrix::columns(&dy[i * ROWS..], n), m, x, dw);
    });
}

/// `c = a·b` for +-1 `b` of `inner` rows, a strip of its columns expanded at a time.
fn times_signs(a: Matrix<'_>, inner: usize, b: &Rows, c: &mut [f32]) {
    let (k, m) = (b.cols, c.len() / b.cols);
    par::scratch(inner * COLUMNS.min(k), |signs| {
        for from in (0..k).step_by(COLUMNS) {
            let len = COLUMNS.min(k - from);
            for (i, signs) in signs.chunks_exact_mut(len).take(inner).enumerate() {
                b.expand(i, from, signs);
            }
            product(m, inner, len, a, Matrix::rows(signs, len), Write::Over, &mut c[from..], k);
        }
    });
}

per_level! {
    fn pack_row[](x: &[f32], words: &mut [u64]) -> bool {
        let mut nan = false;
        for (word, x) in words.iter_mut().zip(x.chunks(64)) {
            *word = 0;
            for (i, &x) in x.iter().enumerate() {
                *word |= u64::from(bit(x)) << i;
                nan |= x.is_nan();
            }
        }
        nan
    }

    fn row_sums[](k: usize, x: &[u64], w: &[u64], y: &mut [f32]) {
        for (y, w) in y.iter_mut().zip(w.chunks_exact(x.len())) {
            let differ: u32 = x.iter().zip(w).map(|(x, w)| (x ^ w).count_ones()).sum();
            *y = k as f32 - 2.0 * differ as f32;
        }
    }
}
