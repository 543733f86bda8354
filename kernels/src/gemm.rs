//! The matrix product, checked at the door; the inner loops are those of `matrixmultiply`, but for
//! vectors, which would wait for the packing of a matrix that serves only once.

use crate::par::{GRAIN, chunks};
use crate::simd::{level, mul_add, per_level};

/// Rows of the output that one thread computes at a time.
const ROWS: usize = 64;
/// Columns of a matrix that a vector is multiplied with at a time.
const COLUMNS: usize = 512;

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
    if k == 0 {
        return y.fill(0.0);
    }
    if k == 1 {
        let rows = GRAIN.div_ceil(n.max(1));
        return chunks(y, rows * n, |at, y| {
            for (y, a) in y.chunks_exact_mut(n).zip(&a[at * rows..]) {
                y.iter_mut().zip(b).for_each(|(y, b)| *y = a * b);
            }
        });
    }
    if m == 1 || n == 1 {
        // The one output row, or column, is a vector times a matrix, stored by outputs or by terms.
        let (x, matrix, by_outputs) = if m == 1 { (a, b, tb) } else { (b, a, !ta) };
        return if by_outputs { dots(x, matrix, y) } else { combine(x, matrix, y) };
    }
    let a = if ta { Matrix::columns(a, m) } else { Matrix::rows(a, k) };
    let b = if tb { Matrix::columns(b, k) } else { Matrix::rows(b, n) };
    chunks(y, block * n, |i, y| {
        let rows = y.len() / n;
        product(rows, k, n, a.skip_rows(i * block), b, Write::Over, y, n);
    });
}

/// `y[i,j] = Σ_l x[i,l] · w[j,l]`: rows `x`, `n` by `k`, against rows `w`, `o` by `k`. Each sum is taken in the
/// same order whatever `n`, and nothing is allocated: a product for evaluation.
///
/// ```
/// use dirnet_kernels::gemm::dense;
/// let mut y = [0.0; 4];
/// dense(2, 2, 2, &[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 1.0, 1.0], &mut y);
/// assert_eq!(y, [1.0, 3.0, 3.0, 7.0]);
/// ```
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn dense(n: usize, k: usize, o: usize, x: &[f32], w: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), n * k, "dense: length of x for [{n}, {k}] x [{o}, {k}]");
    assert_eq!(w.len(), o * k, "dense: length of w for [{n}, {k}] x [{o}, {k}]");
    assert_eq!(y.len(), n * o, "dense: length of y for [{n}, {k}] x [{o}, {k}]");
    if k == 0 {
        return y.fill(0.0);
    }
    if n == 1 {
        return dots(x, w, y);
    }
    let level = level();
    chunks(y, SHARED * o, |at, y| {
        // A few rows of w serve all of these rows of x while the first cache holds them.
        for (block, w) in w.chunks(FEW * k).enumerate() {
            for (y, x) in y.chunks_mut(o).zip(x[at * SHARED * k..].chunks(k)) {
                some_dots(level, x, w, &mut y[block * FEW..][..w.len() / k]);
            }
        }
    });
}

/// Rows of `x` that [`dense`] takes together, and rows of `w`.
const SHARED: usize = 16;
const FEW: usize = 16;

/// `y[i] = Σ_l x[l] · matrix[i,l]`
fn dots(x: &[f32], matrix: &[f32], y: &mut [f32]) {
    let (level, k) = (level(), x.len());
    chunks(y, ROWS, |block, y| {
        let matrix = &matrix[block * ROWS * k..][..y.len() * k];
        some_dots(level, x, matrix, y);
    });
}

/// `y[j] = Σ_l x[l] · matrix[l,j]`
fn combine(x: &[f32], matrix: &[f32], y: &mut [f32]) {
    let (level, n) = (level(), y.len());
    chunks(y, COLUMNS, |block, y| add_rows(level, x, matrix, n, block * COLUMNS, y));
}

per_level! {
    fn some_dots[](x: &[f32], matrix: &[f32], y: &mut [f32]) {
        let (fours, rest) = y.as_chunks_mut::<4>();
        let (of_fours, of_rest) = matrix.split_at(fours.len() * 4 * x.len());
        for (y, rows) in fours.iter_mut().zip(of_fours.chunks_exact(4 * x.len())) {
            *y = dots_of::<4, FUSED>(x, rows);
        }
        for (y, row) in rest.iter_mut().zip(of_rest.chunks_exact(x.len())) {
            [*y] = dots_of::<1, FUSED>(x, row);
        }
    }

    /// `y[j] = Σ_l x[l] · matrix[l, first + j]`, for rows of `n`.
    fn add_rows[](x: &[f32], matrix: &[f32], n: usize, first: usize, y: &mut [f32]) {
        let row = |l: usize| &matrix[l * n + first..][..y.len()];
        let (fours, rest) = x.as_chunks::<4>();
        let mut sums = [0f32; COLUMNS];
        let sums = &mut sums[..y.len()];
        for (i, x) in fours.iter().enumerate() {
            let [a, b, c, d] = [row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3)];
            for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let two = mul_add::<FUSED>(x[1], *b, mul_add::<FUSED>(x[0], *a, *sum));
                *sum = mul_add::<FUSED>(x[3], *d, mul_add::<FUSED>(x[2], *c, two));
            }
        }
        for (i, x) in rest.iter().enumerate() {
            let row = row(4 * fours.len() + i);
            sums.iter_mut().zip(row).for_each(|(sum, a)| *sum = mul_add::<FUSED>(*x, *a, *sum));
        }
        y.copy_from_slice(sums);
    }
}

/// The products of `x` with `R` rows; each the same whatever `R`.
#[inline(always)]
fn dots_of<const R: usize, const FUSED: bool>(x: &[f32], rows: &[f32]) -> [f32; R] {
    const LANES: usize = 16;
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * x.len()..][..x.len()]);
    let mut lanes = [[0f32; LANES]; R];
    let (strips, rest) = x.as_chunks::<LANES>();
    for (at, strip) in strips.iter().enumerate() {
        for r in 0..R {
            let row: &[f32; LANES] = rows[r][at * LANES..].first_chunk().unwrap();
            for l in 0..LANES {
                lanes[r][l] = mul_add::<FUSED>(strip[l], row[l], lanes[r][l]);
            }
        }
    }
    for r in 0..R {
        let row = &rows[r][strips.len() * LANES..];
        for l in 0..rest.len() {
            lanes[r][l] = mul_add::<FUSED>(rest[l], row[l], lanes[r][l]);
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
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
