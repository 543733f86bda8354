//! Rows to columns, in squares of eight by eight that stay in registers.

use crate::simd::{Level, fetch, per_level};

/// `y[j·y_stride + i] = x[i·x_stride + j]` for `i < rows` and `j < cols`.
///
/// # Panics
/// If a place lies outside `x` or `y`.
pub(crate) fn transpose(
    level: Level,
    size: [usize; 2],
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
) {
    transpose_many(level, 1, size, x, [0, x_stride], y, [0, y_stride]);
}

/// The same for `many` matrices, each as far from the one before as the first strides say.
///
/// # Panics
/// If a place lies outside `x` or `y`.
pub(crate) fn transpose_many(
    level: Level,
    many: usize,
    [rows, cols]: [usize; 2],
    x: &[f32],
    [x_far, x_stride]: [usize; 2],
    y: &mut [f32],
    [y_far, y_stride]: [usize; 2],
) {
    if many == 0 || rows == 0 || cols == 0 {
        return;
    }
    let (x_last, y_last) = ((many - 1) * x_far, (many - 1) * y_far);
    assert!(x_last + (rows - 1) * x_stride + cols <= x.len(), "transpose: x is too short");
    assert!(y_last + (cols - 1) * y_stride + rows <= y.len(), "transpose: y is too short");
    squares(level, many, [rows, cols], x, [x_far, x_stride], y, [y_far, y_stride]);
}

/// Squares of a long matrix side by side, so that the first cache holds the lines of `y` that the next
/// rows of `x` go to as well.
const STRIP: usize = 8;
/// Matrices that are fetched before they are needed.
const AHEAD: usize = 24;

per_level! {
    fn squares[](
        many: usize,
        size: [usize; 2],
        x: &[f32],
        x_strides: [usize; 2],
        y: &mut [f32],
        y_strides: [usize; 2],
    ) {
        match (size, x_strides[1], y_strides[1]) {
            // The taps of 3x3 filters for a full block of lanes: sizes that are known spare more
            // time than the moves take.
            ([16, 9], 9, 16) => {
                matrices::<FUSED>(many, [16, 9], x, [x_strides[0], 9], y, [y_strides[0], 16]);
            }
            _ => matrices::<FUSED>(many, size, x, x_strides, y, y_strides),
        }
    }
}

#[inline(always)]
fn matrices<const FUSED: bool>(
    many: usize,
    [rows, cols]: [usize; 2],
    x: &[f32],
    [x_far, x_stride]: [usize; 2],
    y: &mut [f32],
    [y_far, y_stride]: [usize; 2],
) {
    let len = (rows - 1) * x_stride + cols;
    let fetch_matrix = |m: usize| {
        if m < many && many > 1 {
            fetch(&x[m * x_far..][..len]);
        }
    };
    (0..AHEAD).for_each(fetch_matrix);
    for m in 0..many {
        fetch_matrix(m + AHEAD);
        let (x, y) = (&x[m * x_far..], &mut y[m * y_far..]);
        matrix::<FUSED>([rows, cols], x, x_stride, y, y_stride);
    }
}

/// One matrix.
#[inline(always)]
fn matrix<const FUSED: bool>(
    [rows, cols]: [usize; 2],
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
) {
    if rows < 8 || cols < 8 {
        for j in 0..cols {
            for i in 0..rows {
                y[j * y_stride + i] = x[i * x_stride + j];
            }
        }
        return;
    }
    let mut line = |[i, j]: [usize; 2], many: usize, [down, right]: [usize; 2]| {
        let (x, y) = (&x[i * x_stride + j..], &mut y[j * y_stride + i..]);
        let steps = [8 * (down * x_stride + right), 8 * (right * y_stride + down)];
        squares_in_line::<FUSED>(many, x, x_stride, y, y_stride, steps);
    };
    // Where eight do not divide the size, the last square overlaps the one before, unless it
    // would do so for a single row or column.
    let last = |size: usize| (size % 8 > 1).then(|| size - 8);
    let starts = |size: usize| (0..size / 8).map(|at| at * 8).chain(last(size));
    // The long way inside: eight rows far apart may have to share one set of the cache, which
    // holds eight lines and no more.
    if rows < cols {
        let whole = cols / 8;
        for strip in (0..whole).step_by(STRIP) {
            starts(rows).for_each(|i| line([i, strip * 8], STRIP.min(whole - strip), [0, 1]));
        }
        if let Some(j) = last(cols) {
            starts(rows).for_each(|i| line([i, j], 1, [0, 1]));
        }
    } else {
        for j in starts(cols) {
            line([0, j], rows / 8, [1, 0]);
            last(rows).into_iter().for_each(|i| line([i, j], 1, [1, 0]));
        }
    }
    if cols % 8 == 1 {
        let y = &mut y[(cols - 1) * y_stride..][..rows];
        for i in starts(rows) {
            column::<FUSED>(&x[i * x_stride + cols - 4..], x_stride, &mut y[i..]);
        }
        if rows % 8 == 1 {
            y[rows - 1] = x[(rows - 1) * x_stride + cols - 1];
        }
    }
    if rows % 8 == 1 {
        let column = y[rows - 1..].iter_mut().step_by(y_stride);
        column.zip(&x[(rows - 1) * x_stride..][..cols]).for_each(|(y, x)| *y = *x);
    }
}

/// Squares of eight by eight, from one to the next so many elements of `x` and of `y`.
#[inline(always)]
fn squares_in_line<const FUSED: bool>(
    many: usize,
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
    [x_step, y_step]: [usize; 2],
) {
    let last = many - 1;
    assert!(last * x_step + 7 * x_stride + 8 <= x.len());
    assert!(last * y_step + 7 * y_stride + 8 <= y.len());
    #[cfg(target_arch = "x86_64")]
    if FUSED {
        for at in 0..many {
            // SAFETY: on x86-64 `FUSED` says that FMA is there, which implies AVX; and the asserts above
            // put eight rows of eight inside each slice, for the last square as well.
            unsafe {
                let (x, y) = (x.as_ptr().add(at * x_step), y.as_mut_ptr().add(at * y_step));
                square_avx(x, x_stride, y, y_stride);
            }
        }
        return;
    }
    for at in 0..many {
        for j in 0..8 {
            for i in 0..8 {
                y[at * y_step + j * y_stride + i] = x[at * x_step + i * x_stride + j];
            }
        }
    }
}

/// One square by exchanges between registers; the compiler would take the numbers one by one.
///
/// # Safety
/// Eight rows of eight, their strides apart, lie at `x` and at `y`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn square_avx(x: *const f32, x_stride: usize, y: *mut f32, y_stride: usize) {
    use std::arch::x86_64::*;
    // Row i of the upper half beside row i + 4, first four columns or last four: so that the
    // exchanges across halves are loads.
    let load = |i: usize, j: usize| {
        // SAFETY: rows i and i + 4, columns j to j + 4 lie inside the square.
        unsafe {
            let upper = _mm_loadu_ps(x.add(i * x_stride + j));
            let lower = _mm_loadu_ps(x.add((i + 4) * x_stride + j));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(upper), lower)
        }
    };
    for j in [0, 4] {
        let [a, b, c, d] = [load(0, j), load(1, j), load(2, j), load(3, j)];
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let columns = [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ];
        for (k, column) in columns.into_iter().enumerate() {
            // SAFETY: row j + k of the result lies inside the square.
            unsafe { _mm256_storeu_ps(y.add((j + k) * y_stride), column) };
        }
    }
}

/// Of eight rows of four the last column.
#[inline(always)]
fn column<const FUSED: bool>(x: &[f32], x_stride: usize, y: &mut [f32]) {
    assert!(7 * x_stride + 4 <= x.len() && 8 <= y.len());
    #[cfg(target_arch = "x86_64")]
    if FUSED {
        // SAFETY: on x86-64 `FUSED` says that FMA is there, which implies AVX; and the assert above
        // puts eight rows of four inside `x` and eight numbers inside `y`.
        return unsafe { column_avx(x.as_ptr(), x_stride, y.as_mut_ptr()) };
    }
    for i in 0..8 {
        y[i] = x[i * x_stride + 3];
    }
}

/// The same in registers.
///
/// # Safety
/// Eight rows of four, `x_stride` apart, lie at `x`, and eight numbers at `y`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn column_avx(x: *const f32, x_stride: usize, y: *mut f32) {
    use std::arch::x86_64::*;
    let load = |i: usize| {
        // SAFETY: rows i and i + 4 are among the eight.
        unsafe {
            let upper = _mm_loadu_ps(x.add(i * x_stride));
            let lower = _mm_loadu_ps(x.add((i + 4) * x_stride));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(upper), lower)
        }
    };
    let ab = _mm256_unpackhi_ps(load(0), load(1));
    let cd = _mm256_unpackhi_ps(load(2), load(3));
    // SAFETY: there is room for eight.
    unsafe { _mm256_storeu_ps(y, _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_transposes() {
        for (rows, cols) in [
            (1, 1),
            (9, 8),
            (8, 9),
            (9, 9),
            (16, 9),
            (25, 17),
            (3, 8),
            (8, 8),
            (8, 5),
            (17, 9),
            (16, 40),
            (23, 24),
        ] {
            let (x_stride, y_stride) = (cols + 3, rows + 1);
            let x: Vec<f32> = (0..rows * x_stride).map(|i| i as f32).collect();
            for &level in crate::simd::available() {
                let mut y = vec![-1.0; cols * y_stride];
                transpose(level, [rows, cols], &x, x_stride, &mut y, y_stride);
                for (at, &got) in y.iter().enumerate() {
                    let (i, j) = (at % y_stride, at / y_stride);
                    let want = if i < rows { x[i * x_stride + j] } else { -1.0 };
                    assert_eq!(got, want, "{level:?}: {i}, {j} of {rows} by {cols}");
                }
            }
        }
    }
}
