//! Moved numbers against loops that say where each one goes.

use dirnet_kernels::shape::{subsample, subsample_dx};
use dirnet_kernels::simd;

#[test]
fn pixels_of_a_coarser_grid() {
    let grid = [(1, 1), (2, 3), (5, 4), (7, 7), (8, 8), (9, 16), (28, 28), (33, 32)];
    for &level in simd::available() {
        simd::with_level(level, || {
            for (h, w) in grid {
                for (start, step) in [(0, 1), (0, 2), (0, 3), (1, 2), (2, 2), (3, 4), (40, 2)] {
                    for planes in [1, 3, 70] {
                        judge([h, w], start, step, planes);
                    }
                }
            }
        });
    }
}

fn judge([h, w]: [usize; 2], start: usize, step: usize, planes: usize) {
    let case = format!("{planes} planes of {h}x{w}, {step} apart from {start}");
    let (oh, ow) = (h.div_ceil(step), w.div_ceil(step));
    let number = |i: usize| ((i * 7919) % 1009) as f32 - 500.0;
    let x: Vec<f32> = (0..planes * h * w).map(number).collect();
    let dy: Vec<f32> = (0..planes * oh * ow).map(number).collect();
    let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
    subsample([h, w], start, step, &x, &mut y);
    subsample_dx([h, w], start, step, &dy, &mut dx);

    let (mut y2, mut dx2) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    for plane in 0..planes {
        for i in 0..oh {
            for j in 0..ow {
                let [r, s] = [(i, h), (j, w)].map(|(i, size)| (start + i * step).min(size - 1));
                let (fine, coarse) = ((plane * h + r) * w + s, (plane * oh + i) * ow + j);
                y2[coarse] = x[fine];
                dx2[fine] += dy[coarse];
            }
        }
    }
    assert_eq!(y, y2, "{case}");
    assert_eq!(dx, dx2, "{case}, the way back");
}
