//! The maximum of signs.

use crate::simd::{self, per_level};
use crate::{PoolGeom, par};

/// The maximum over each window of +-1 images in planes of nibbles, `[N][C/4][H][W]` to `[N][C/4][OH][OW]`:
/// +1 where one of its pixels is. Padding never wins. It allocates nothing.
///
/// ```
/// use dirnet_kernels::{PoolGeom, bits::max_pool};
/// let mut y = [0];
/// max_pool(&PoolGeom::new(&[1, 4, 2, 2], 2, 2, 0), &[0b0001, 0b1000, 0b0000, 0b0001], &mut y);
/// assert_eq!(y, [0b1001]);
/// ```
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn max_pool(g: &PoolGeom, x: &[u8], y: &mut [u8]) {
    let quads = g.n * g.c.div_ceil(4);
    assert_eq!(x.len(), quads * g.h * g.w, "bits::max_pool: planes of x for {g:?}");
    assert_eq!(y.len(), quads * g.oh * g.ow, "bits::max_pool: planes of y for {g:?}");
    let (level, area) = (simd::level(), g.oh * g.ow);
    let some = (par::GRAIN / (g.h * g.w)).max(1);
    par::chunks(y, some * area, |i, y| {
        par::scratch(g.w.div_ceil(4), |row| {
            let row = &mut bytemuck::cast_slice_mut(row)[..g.w];
            let planes = x[i * some * g.h * g.w..].chunks_exact(g.h * g.w);
            for (x, y) in planes.zip(y.chunks_exact_mut(area)) {
                plane(level, g, x, row, y);
            }
        });
    });
}

per_level! {
    /// The rows of a window into one, and then its columns.
    fn plane[](g: &PoolGeom, x: &[u8], row: &mut [u8], y: &mut [u8]) {
        for (i, y) in y.chunks_exact_mut(g.ow).enumerate() {
            let (top, end) = (i * g.stride, (i * g.stride + g.size).min(g.h + g.pad));
            row.fill(0);
            for r in top.max(g.pad)..end {
                let x = &x[(r - g.pad) * g.w..][..g.w];
                row.iter_mut().zip(x).for_each(|(row, x)| *row |= x);
            }
            if (g.size, g.stride, g.pad) == (2, 2, 0) {
                // As words, which the compiler narrows in vectors.
                for (y, &two) in y.iter_mut().zip(row.as_chunks::<2>().0) {
                    let two = u16::from_le_bytes(two);
                    *y = (two | two >> 8) as u8;
                }
                continue;
            }
            for (j, y) in y.iter_mut().enumerate() {
                let (left, end) = (j * g.stride, (j * g.stride + g.size).min(g.w + g.pad));
                let window = &row[left.max(g.pad) - g.pad..end - g.pad];
                *y = window.iter().fold(0, |all, x| all | x);
            }
        }
    }
}
