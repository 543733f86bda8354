//! Short rows from one place to another.

use crate::simd::per_level;

/// Where the pixels of an image lie: row after row, column after column.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Elements between two rows.
    pub stride: usize,
    /// Elements between two columns.
    pub step: usize,
}

per_level! {
    /// Copies `rows` by `cols` pixels of `x` to `y`.
    pub(super) fn copy[](size: [usize; 2], x: &[f32], from: Grid, y: &mut [f32], to: Grid) {
        let [rows, cols] = size;
        if from.step > 1 || to.step > 1 {
            for i in 0..rows {
                let x = x[i * from.stride..].iter().step_by(from.step);
                let y = y[i * to.stride..].iter_mut().step_by(to.step);
                y.zip(x).take(cols).for_each(|(y, x)| *y = *x);
            }
            return;
        }
        // In strips of fixed widths, since a call to copy a short row takes longer than the row.
        let mut j = 0;
        while j < cols {
            let (x, y) = (&x[j..], &mut y[j..]);
            j += match cols - j {
                32.. => strip::<32>(rows, x, from, y, to),
                16.. => strip::<16>(rows, x, from, y, to),
                8.. => strip::<8>(rows, x, from, y, to),
                4.. => strip::<4>(rows, x, from, y, to),
                _ => strip::<1>(rows, x, from, y, to),
            };
        }
    }
}

#[inline(always)]
fn strip<const N: usize>(rows: usize, x: &[f32], from: Grid, y: &mut [f32], to: Grid) -> usize {
    for i in 0..rows {
        y[i * to.stride..][..N].copy_from_slice(&x[i * from.stride..][..N]);
    }
    N
}
