//! The definitions of the +-1 kernels, as loops that need no explanation. Slow, and meant to be.
//!
//! `x` and `w` hold +-1.0; sums of them are taken in integers, gradients in `f64`.

use crate::ConvGeom;
use crate::bits::Pad;

/// Calls `f(y, x, w)` for each term of each output of a convolution: the places in the three
/// tensors, with no place in `x` where the tap is outside the image.
fn terms(g: &ConvGeom, mut f: impl FnMut(usize, Option<usize>, usize)) {
    let (how, oc, cc) = (g.how, g.group_o(), g.group_c());
    for n in 0..g.n {
        for o in 0..g.o {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    for c in 0..cc {
                        for u in 0..g.kh {
                            for v in 0..g.kw {
                                let y = (i * how.stride + u * how.dilation).checked_sub(how.pad);
                                let x = (j * how.stride + v * how.dilation).checked_sub(how.pad);
                                let at = match (y, x) {
                                    (Some(y), Some(x)) if y < g.h && x < g.w => {
                                        Some(((n * g.c + o / oc * cc + c) * g.h + y) * g.w + x)
                                    }
                                    _ => None,
                                };
                                f(
                                    ((n * g.o + o) * g.oh + i) * g.ow + j,
                                    at,
                                    ((o * cc + c) * g.kh + u) * g.kw + v,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `y = Σ x·w`, with `x` outside the image as `pad` says.
pub fn conv2d(g: &ConvGeom, x: &[f32], w: &[f32], pad: Pad) -> Vec<i64> {
    let mut y = vec![0; g.y_len()];
    terms(g, |iy, ix, iw| y[iy] += (ix.map_or(pad.value(), |i| x[i]) * w[iw]) as i64);
    y
}

/// `dx = Σ dy·w`, for each pixel inside the image.
pub fn conv2d_dx(g: &ConvGeom, w: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; g.x_len()];
    terms(g, |iy, ix, iw| {
        if let Some(ix) = ix {
            dx[ix] += f64::from(dy[iy]) * f64::from(w[iw]);
        }
    });
    dx
}

/// `dw = Σ dy·x`, with `x` outside the image as `pad` says.
pub fn conv2d_dw(g: &ConvGeom, x: &[f32], pad: Pad, dy: &[f32]) -> Vec<f64> {
    let mut dw = vec![0.0; g.w_len()];
    terms(g, |iy, ix, iw| {
        dw[iw] += f64::from(dy[iy]) * f64::from(ix.map_or(pad.value(), |i| x[i]))
    });
    dw
}

/// `y[i,j] = Σ_k x[i,k]·w[j,k]`.
pub fn dense(m: usize, k: usize, n: usize, x: &[f32], w: &[f32]) -> Vec<i64> {
    let mut y = vec![0; m * n];
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                y[i * n + j] += (x[i * k + l] * w[j * k + l]) as i64;
            }
        }
    }
    y
}

/// `dx[i,k] = Σ_j dy[i,j]·w[j,k]`.
pub fn dense_dx(m: usize, k: usize, n: usize, w: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; m * k];
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                dx[i * k + l] += f64::from(dy[i * n + j]) * f64::from(w[j * k + l]);
            }
        }
    }
    dx
}

/// `dw[j,k] = Σ_i dy[i,j]·x[i,k]`.
pub fn dense_dw(m: usize, k: usize, n: usize, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut dw = vec![0.0; n * k];
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                dw[j * k + l] += f64::from(dy[i * n + j]) * f64::from(x[i * k + l]);
            }
        }
    }
    dw
}
