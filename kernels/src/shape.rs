//! What moves numbers and computes none: channels from one batch to another, pixels of a coarser grid.

use crate::par::{GRAIN, chunks};
use crate::planes::{self, Grid};
use crate::simd::level;

/// Copies `len` channels of `area` numbers for each image of `x` to the images of `y`. Either batch is
/// given as its number of channels, and the first one concerned.
///
/// ```
/// use dirnet_kernels::shape::copy_channels;
/// let (x, mut y) = ([1.0, 2.0, 3.0, 4.0], [0.0; 6]);
/// // Of two images with two channels the second ones, to the first of three.
/// copy_channels(&x, [2, 1], &mut y, [3, 0], 1, 1);
/// assert_eq!(y, [2.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// If channels reach beyond their batch.
#[track_caller]
pub fn copy_channels(
    x: &[f32],
    [x_channels, from]: [usize; 2],
    y: &mut [f32],
    [y_channels, to]: [usize; 2],
    len: usize,
    area: usize,
) {
    if len * area == 0 {
        return;
    }
    chunks(y, y_channels * area, |i, y| {
        let x = &x[(i * x_channels + from) * area..][..len * area];
        y[to * area..][..len * area].copy_from_slice(x);
    });
}

/// Every `step`-th pixel of planes of `size`, from pixel `start` on, in both directions; where that reaches
/// beyond a plane, its last pixel takes the place, so that as many come out whatever the start.
///
/// ```
/// use dirnet_kernels::shape::subsample;
/// let (x, mut y) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0; 2]);
/// subsample([2, 3], 0, 2, &x, &mut y);
/// assert_eq!(y, [1.0, 3.0]);
/// ```
///
/// # Panics
/// If a length does not fit, or the step is zero.
#[track_caller]
pub fn subsample(size: [usize; 2], start: usize, step: usize, x: &[f32], y: &mut [f32]) {
    let grid = Coarse::new("subsample", size, start, step, x.len(), y.len());
    let Coarse { h, w, oh, ow, .. } = grid;
    let (level, some) = (level(), grid.planes_together());
    chunks(y, some * oh * ow, |i, y| {
        let planes = x[i * some * h * w..].chunks(h * w).zip(y.chunks_mut(oh * ow));
        for (x, y) in planes {
            if grid.inside() {
                let from = Grid { stride: step * w, step };
                planes::copy(level, [oh, ow], &x[start * w + start..], from, y, Grid::dense(ow));
                continue;
            }
            for (i, row) in y.chunks_mut(ow).enumerate() {
                let from = &x[grid.at(i, h) * w..][..w];
                row.iter_mut().enumerate().for_each(|(j, y)| *y = from[grid.at(j, w)]);
            }
        }
    });
}

/// The way back of [`subsample`]: `dx = dy` at those pixels, zero elsewhere.
///
/// # Panics
/// As for [`subsample`].
#[track_caller]
pub fn subsample_dx(size: [usize; 2], start: usize, step: usize, dy: &[f32], dx: &mut [f32]) {
    let grid = Coarse::new("subsample_dx", size, start, step, dx.len(), dy.len());
    let Coarse { h, w, oh, ow, .. } = grid;
    let (level, some) = (level(), grid.planes_together());
    chunks(dx, some * h * w, |i, dx| {
        let planes = dy[i * some * oh * ow..].chunks(oh * ow).zip(dx.chunks_mut(h * w));
        for (dy, dx) in planes {
            if start == 0 {
                planes::spread(level, dy, ow, step, w, dx);
                continue;
            }
            dx.fill(0.0);
            for (i, row) in dy.chunks(ow).enumerate() {
                let to = &mut dx[grid.at(i, h) * w..][..w];
                row.iter().enumerate().for_each(|(j, dy)| to[grid.at(j, w)] += dy);
            }
        }
    });
}

#[derive(Clone, Copy)]
struct Coarse {
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    start: usize,
    step: usize,
}

impl Coarse {
    #[track_caller]
    fn new(
        op: &str,
        [h, w]: [usize; 2],
        start: usize,
        step: usize,
        fine: usize,
        coarse: usize,
    ) -> Coarse {
        assert!(step > 0, "{op}: every pixel is step 1");
        let (oh, ow) = (h.div_ceil(step), w.div_ceil(step));
        assert!(
            h * w > 0 && fine.is_multiple_of(h * w),
            "{op}: {fine} numbers in planes of {h}x{w}"
        );
        assert_eq!(fine / (h * w) * oh * ow, coarse, "{op}: pixels of {oh}x{ow} planes");
        Coarse { h, w, oh, ow, start, step }
    }

    /// The pixel of a side of `size` that becomes pixel `i`.
    fn at(self, i: usize, size: usize) -> usize {
        (self.start + i * self.step).min(size - 1)
    }

    /// Whether no pixel lies beyond the plane.
    fn inside(self) -> bool {
        self.start + (self.oh - 1) * self.step < self.h
            && self.start + (self.ow - 1) * self.step < self.w
    }

    fn planes_together(self) -> usize {
        (GRAIN / (self.h * self.w)).max(1)
    }
}
