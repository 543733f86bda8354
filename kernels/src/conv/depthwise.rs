//! Convolution where each channel has filters of its own and sees no other channel.
//!
//! Nothing is shared between channels, so each tap is a pass over a plane that stays in the first
//! cache.

use super::line::{Line, for_each_line};
use crate::geom::ConvGeom;
use crate::par::chunks;
use crate::simd::{level, per_level};

/// Whether these kernels know the geometry.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.is_depthwise()
}

pub(super) fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let level = level();
    let (hw, taps) = (g.h * g.w, g.taps());
    chunks(y, g.oh * g.ow, |at, y| {
        // An output plane counts over images and outputs; its input plane over images and channels.
        let x = &x[at / g.group_o() * hw..][..hw];
        let w = &w[at % g.o * taps..][..taps];
        y.fill(0.0);
        for_each_line(g, |tap, i, line| {
            let Some(Line { pixel, outputs }) = line else { return };
            let y = &mut y[i * g.ow..][..g.ow][outputs];
            add_scaled_every(level, w[tap], &x[pixel..], g.how.stride, y);
        });
    });
}

pub(super) fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let level = level();
    let (ohw, taps, filters) = (g.oh * g.ow, g.taps(), g.group_o());
    chunks(dx, g.h * g.w, |at, dx| {
        dx.fill(0.0);
        for filter in 0..filters {
            let dy = &dy[(at * filters + filter) * ohw..][..ohw];
            let w = &w[(at % g.c * filters + filter) * taps..][..taps];
            for_each_line(g, |tap, i, line| {
                let Some(Line { pixel, outputs }) = line else { return };
                let dy = &dy[i * g.ow..][..g.ow][outputs];
                add_scaled_to_every(level, w[tap], dy, g.how.stride, &mut dx[pixel..]);
            });
        }
    });
}

pub(super) fn dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let level = level();
    let (hw, ohw, taps) = (g.h * g.w, g.oh * g.ow, g.taps());
    chunks(dw, taps, |o, dw| {
        let mut sums = vec![0f64; taps];
        for n in 0..g.n {
            let x = &x[(n * g.c + o / g.group_o()) * hw..][..hw];
            let dy = &dy[(n * g.o + o) * ohw..][..ohw];
            for_each_line(g, |tap, i, line| {
                let Some(Line { pixel, outputs }) = line else { return };
                let dy = &dy[i * g.ow..][..g.ow][outputs];
                sums[tap] += dot_every(level, dy, &x[pixel..], g.how.stride) as f64;
            });
        }
        dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = sum as f32);
    });
}

per_level! {
    /// `y[j] += s · x[j·stride]`
    fn add_scaled_every[](s: f32, x: &[f32], stride: usize, y: &mut [f32]) {
        if stride == 1 {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += s * x);
        } else {
            y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, x)| *y += s * x);
        }
    }
    /// `y[j·stride] += s · x[j]`
    fn add_scaled_to_every[](s: f32, x: &[f32], stride: usize, y: &mut [f32]) {
        if stride == 1 {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += s * x);
        } else {
            y.iter_mut().step_by(stride).zip(x).for_each(|(y, x)| *y += s * x);
        }
    }
    /// `Σ_j a[j] · b[j·stride]`
    fn dot_every[](a: &[f32], b: &[f32], stride: usize) -> f32 {
        const LANES: usize = 8;
        let mut lanes = [0f32; LANES];
        if stride == 1 {
            let b = &b[..a.len()];
            let (whole_a, rest_a) = a.as_chunks::<LANES>();
            let (whole_b, rest_b) = b.as_chunks::<LANES>();
            for (a, b) in whole_a.iter().zip(whole_b) {
                for l in 0..LANES {
                    lanes[l] += a[l] * b[l];
                }
            }
            for (l, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
                lanes[l] += a * b;
            }
        } else {
            for (j, (a, b)) in a.iter().zip(b.iter().step_by(stride)).enumerate() {
                lanes[j % LANES] += a * b;
            }
        }
        lanes.iter().sum()
    }
}
