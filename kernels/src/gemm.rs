//! The matrix product, checked at the door; the inner loops are those of `matrixmultiply`.

use crate::par::chunks;

/// Rows of the output that one thread computes at a time.
const ROWS: usize = 64;

/// `y[m,n] = op(a)[m,k] · op(b)[k,n]`; with `ta`, `a` is stored `k` by `m`, and with `tb`, `b` is
/// stored `n` by `k`.
///
/// ```
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0]);
/// let mut y = [0.0; 2];
/// dirnet_kernels::gemm::gemm(2, 2, 1, &a, false, &b, false, &mut y);
/// assert_eq!(y, [17.0, 39.0]);
/// ```
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn gemm(m: usize, k: usize, n: usize, a: &[f32], ta: bool, b: &[f32], tb: bool, y: &mut [f32]) {
    blocks(ROWS, m, k, n, a, ta, b, tb, y);
}

/// [`gemm`] with so many rows of the output for one call of `matrixmultiply`.
#[track_caller]
pub(crate) fn blocks(
    block: usize,
    m: usize,
    k: usize,
    n: usize,
    a: &[f32],
    ta: bool,
    b: &[f32],
    tb: bool,
    y: &mut [f32],
) {
    assert_eq!(a.len(), m * k, "gemm: length of a for [{m}, {k}] x [{k}, {n}]");
    assert_eq!(b.len(), k * n, "gemm: length of b for [{m}, {k}] x [{k}, {n}]");
    assert_eq!(y.len(), m * n, "gemm: length of y for [{m}, {k}] x [{k}, {n}]");
    let a = if ta { Matrix::columns(a, m) } else { Matrix::rows(a, k) };
    let b = if tb { Matrix::columns(b, k) } else { Matrix::rows(b, n) };
    chunks(y, block * n, |i, y| {
        let rows = y.len() / n;
        product(rows, k, n, a.skip_rows(i * block), b, Write::Over, y, n);
    });
}

/// A matrix seen through a slice: element `(i, j)` at `i·down + j·right`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    down: usize,
    right: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `stride` elements one after the other.
    pub(crate) fn rows(data: &'a [f32], stride: usize) -> Self {
        Matrix { data, down: stride, right: 1 }
    }
    /// Columns of `stride` elements one after the other.
    pub(crate) fn columns(data: &'a [f32], stride: usize) -> Self {
        Matrix { data, down: 1, right: stride }
    }
    fn skip_rows(self, rows: usize) -> Self {
        Matrix { data: &self.data[rows * self.down..], ..self }
    }
    /// Elements that a corner of `rows` by `cols` reaches.
    fn reach(self, rows: usize, cols: usize) -> usize {
        if rows == 0 || cols == 0 {
            0
        } else {
            (rows - 1) * self.down + (cols - 1) * self.right + 1
        }
    }
}

/// What becomes of the old content of an output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is not even read.
    Over,
    /// The product is added to it.
    Add,
}

/// `y[i·stride + j] = Σ_l a[i,l]·b[l,j]` (or adds it) on this thread, for `i < m` and `j < n`.
pub(crate) fn product(
    m: usize,
    k: usize,
    n: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    write: Write,
    y: &mut [f32],
    stride: usize,
) {
    assert!(a.reach(m, k) <= a.data.len(), "product: a is too short");
    assert!(b.reach(k, n) <= b.data.len(), "product: b is too short");
    assert!(
        n <= stride && Matrix::rows(y, stride).reach(m, n) <= y.len(),
        "product: y is too short"
    );
    let beta = if write == Write::Add { 1.0 } else { 0.0 };
    // SAFETY: the three asserts above put every element that the sizes and strides reach inside its
    // slice; distinct (i, j) are distinct places in y, since n <= stride; and y, borrowed mutably,
    // overlaps neither a nor b. With beta = 0 the old content of y is not read.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            a.down as isize,
            a.right as isize,
            b.data.as_ptr(),
            b.down as isize,
            b.right as isize,
            beta,
            y.as_mut_ptr(),
            stride as isize,
            1,
        );
    }
}
