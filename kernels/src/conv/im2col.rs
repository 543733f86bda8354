//! Convolution as a matrix product: patches of the image become columns.
//!
//! Column `(i,j)` of the matrix holds the pixels that output `(i,j)` sees, one row a tap `(c,u,v)`;
//! the filters, as rows, times that matrix are the outputs. It serves every geometry.

use crate::elementwise::add_assign;
use crate::gemm::{Matrix, Write, product};
use crate::geom::ConvGeom;
use crate::par::{chunks, map, scratch, threads};
use crate::planes::spread;
use crate::simd::level;
use std::ops::Range;

/// Whether patches are the quicker way: they are the image itself, and so many channels of it become
/// so few that rearranging them is most of what another way does beside its sums.
pub(super) fn suits(g: &ConvGeom) -> bool {
    is_its_own_matrix(g) && g.how.groups == 1 && g.c >= 4 * g.o && g.o >= 64
}

/// Whether they are for `dx`: a single tap that sees only some of the pixels, so that the columns are
/// those pixels; but not where these are so few that direct convolution takes channels side by side.
pub(super) fn suits_dx(g: &ConvGeom) -> bool {
    let few = g.oh * g.ow < 64;
    g.kh * g.kw == 1 && g.how.pad == 0 && g.how.stride > 1 && !few
}

fn is_its_own_matrix(g: &ConvGeom) -> bool {
    g.kh * g.kw == 1 && g.how.stride == 1 && g.how.pad == 0
}

pub fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (pixels, taps) = (g.oh * g.ow, g.taps());
    let some = |at: usize, first: usize, y: &mut [f32]| {
        let (first, rows) = (at % g.how.groups * g.group_o() + first, y.len() / pixels);
        let w = Matrix::rows(&w[first * taps..][..rows * taps], taps);
        with_columns(g, group_image(g, x, at), |columns| {
            let columns = Matrix::rows(columns, pixels);
            product(rows, taps, pixels, w, columns, Write::Over, y, pixels);
        });
    };
    // Outputs of one group of one image lie together, so such blocks are the pieces of work.
    let block = g.group_o() * pixels;
    if g.n * g.how.groups >= threads() {
        return chunks(y, block, |at, y| some(at, 0, y));
    }
    let rows = g.group_o().div_ceil(threads());
    for (at, y) in y.chunks_exact_mut(block).enumerate() {
        chunks(y, rows * pixels, |piece, y| some(at, piece * rows, y));
    }
}

pub fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (pixels, taps) = (g.oh * g.ow, g.taps());
    let some = |at: usize, first: usize, dx: &mut [f32]| {
        let some = ConvGeom { c: dx.len() / (g.h * g.w), how: g.how.groups(1), ..*g };
        let w = &w[at % g.how.groups * g.group_o() * taps..][..g.group_o() * taps];
        let w = Matrix::columns(&w[first * g.kh * g.kw..], taps);
        let dy = Matrix::rows(&dy[at * g.group_o() * pixels..][..g.group_o() * pixels], pixels);
        scratch(some.taps() * pixels, |columns| {
            product(some.taps(), g.group_o(), pixels, w, dy, Write::Over, columns, pixels);
            add_columns(&some, columns, dx);
        });
    };
    let (block, plane) = (g.group_c() * g.h * g.w, g.h * g.w);
    if g.n * g.how.groups >= threads() {
        return chunks(dx, block, |at, dx| some(at, 0, dx));
    }
    let channels = g.group_c().div_ceil(threads());
    for (at, dx) in dx.chunks_exact_mut(block).enumerate() {
        chunks(dx, channels * plane, |piece, dx| some(at, piece * channels, dx));
    }
}

pub fn dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (pixels, taps) = (g.oh * g.ow, g.taps());
    let images = images_a_part(g);
    let parts = map(g.n.div_ceil(images), |part| {
        let mut dw = vec![0f32; g.w_len()];
        for n in part * images..g.n.min((part + 1) * images) {
            for (group, dw) in dw.chunks_exact_mut(g.group_o() * taps).enumerate() {
                let at = n * g.how.groups + group;
                let dy = &dy[at * g.group_o() * pixels..][..g.group_o() * pixels];
                with_columns(g, group_image(g, x, at), |columns| {
                    let (dy, columns) =
                        (Matrix::rows(dy, pixels), Matrix::columns(columns, pixels));
                    product(g.group_o(), pixels, taps, dy, columns, Write::Add, dw, taps);
                });
            }
        }
        dw
    });
    add_parts(&parts, dw);
}

/// Images whose filter gradients are summed up before the parts are: as many as leave some parts
/// to share among threads, but not more memory in parts than 64 MB.
fn images_a_part(g: &ConvGeom) -> usize {
    let parts = ((1 << 24) / g.w_len()).clamp(1, 16);
    g.n.div_ceil(parts)
}

/// Adds up partial results in their order.
fn add_parts(parts: &[Vec<f32>], sum: &mut [f32]) {
    let Some((first, rest)) = parts.split_first() else { return sum.fill(0.0) };
    sum.copy_from_slice(first);
    for part in rest {
        add_assign(sum, part);
    }
}

/// The channels of one group of one image; `at` counts groups over all images.
fn group_image<'a>(g: &ConvGeom, x: &'a [f32], at: usize) -> &'a [f32] {
    let size = g.group_c() * g.h * g.w;
    &x[at * size..][..size]
}

/// Lends the matrix of patches of one group's channels `x`, `taps` by `oh·ow`.
fn with_columns<R>(g: &ConvGeom, x: &[f32], f: impl FnOnce(&[f32]) -> R) -> R {
    if is_its_own_matrix(g) {
        return f(x);
    }
    scratch(g.taps() * g.oh * g.ow, |columns| {
        for_each_line(g, |tap, i, line| {
            let columns = &mut columns[(tap * g.oh + i) * g.ow..][..g.ow];
            let Some(Line { pixel, outputs }) = line else { return columns.fill(0.0) };
            columns[..outputs.start].fill(0.0);
            columns[outputs.end..].fill(0.0);
            let columns = &mut columns[outputs];
            if g.how.stride == 1 {
                columns.copy_from_slice(&x[pixel..][..columns.len()]);
            } else {
                let pixels = x[pixel..].iter().step_by(g.how.stride);
                columns.iter_mut().zip(pixels).for_each(|(column, pixel)| *column = *pixel);
            }
        });
        f(columns)
    })
}

/// The way back: `dx` is the sum of the patches in `columns`.
fn add_columns(g: &ConvGeom, columns: &[f32], dx: &mut [f32]) {
    if g.kh * g.kw == 1 && g.how.pad == 0 {
        // No pixel is seen twice.
        let planes = dx.chunks_exact_mut(g.h * g.w).zip(columns.chunks_exact(g.oh * g.ow));
        planes.for_each(|(dx, few)| spread(level(), few, g.ow, g.how.stride, g.w, dx));
        return;
    }
    dx.fill(0.0);
    for_each_line(g, |tap, i, line| {
        let Some(Line { pixel, outputs }) = line else { return };
        let columns = &columns[(tap * g.oh + i) * g.ow..][..g.ow][outputs];
        if g.how.stride == 1 {
            let pixels = &mut dx[pixel..][..columns.len()];
            pixels.iter_mut().zip(columns).for_each(|(pixel, column)| *pixel += column);
        } else {
            let pixels = dx[pixel..].iter_mut().step_by(g.how.stride);
            pixels.zip(columns).for_each(|(pixel, column)| *pixel += column);
        }
    });
}

/// What one tap sees of the image along one row of outputs.
struct Line {
    /// Where the first pixel lies among the group's channels; the next are a stride apart.
    pixel: usize,
    /// The outputs that see pixels; the others see padding.
    outputs: Range<usize>,
}

/// `f(tap, i, line)` for every tap `(c,u,v)` and row of outputs `i`; no line where all is padding.
fn for_each_line(g: &ConvGeom, mut f: impl FnMut(usize, usize, Option<Line>)) {
    let how = g.how;
    let mut tap = 0;
    for c in 0..g.group_c() {
        for u in 0..g.kh {
            let rows = g.inside_y(u);
            for v in 0..g.kw {
                let outputs = g.inside_x(v);
                for i in 0..g.oh {
                    let line = (rows.contains(&i) && !outputs.is_empty()).then(|| {
                        let p = i * how.stride + u * how.dilation - how.pad;
                        let q = outputs.start * how.stride + v * how.dilation - how.pad;
                        Line { pixel: (c * g.h + p) * g.w + q, outputs: outputs.clone() }
                    });
                    f(tap, i, line);
                }
                tap += 1;
            }
        }
    }
}
