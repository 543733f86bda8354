//! The convolution of +-1 images with +-1 filters.

use super::lookup::{self, Taps};
use super::{Filters, Image, Pad};
use crate::{ConvGeom, par, simd};

/// `y[n,o,i,j] = Σ_{c,u,v} x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad] · w[o,c,u,v]`
/// over +-1 images and filters, exactly; outside the image `x` is what `pad` says.
///
/// ```
/// use dirnet_kernels::bits::{Filters, Image, Pad, conv2d};
/// use dirnet_kernels::{Conv, ConvGeom};
/// let g = ConvGeom::new(&[1, 1, 1, 3], &[1, 1, 1, 3], Conv::valid());
/// let (x, w) = (Image::pack(&g, &[0.5, -2.0, 3.0]), Filters::pack(&g, &[1.0, 1.0, 1.0]));
/// let mut y = [0.0];
/// conv2d(&g, &x, &w, Pad::Zero, &mut y);
/// assert_eq!(y, [1.0]); // 1 - 1 + 1
/// ```
///
/// # Panics
/// If `x` or `w` was packed for another geometry, or `y` has another length.
#[track_caller]
pub fn conv2d(g: &ConvGeom, x: &Image, w: &Filters, pad: Pad, y: &mut [f32]) {
    const OP: &str = "bits::conv2d";
    x.check(OP, g);
    w.check(OP, g);
    assert_eq!(y.len(), g.y_len(), "{OP}: y of {:?}", g.y());
    let (level, area) = (simd::level(), g.oh * g.ow);
    let stage = Stage::new(g);
    let counts = counts(g, pad);
    // A lone image is shared out by channels; the sums are exact, so how does not show.
    let block = 4 * g.group_o().div_ceil(4 * par::threads().div_ceil(g.n));
    par::chunks(y, g.o * area, |n, y| {
        for (group, y) in y.chunks_mut(g.group_o() * area).enumerate() {
            par::scratch(stage.len.div_ceil(4), |scratch| {
                let staged = &mut bytemuck::cast_slice_mut(scratch)[..stage.len];
                stage.fill(g, x.planes(n, group), pad, staged);
                let taps = Taps { x: staged, offsets: &stage.offsets };
                let w = w.pairs(group);
                let pair = w.len() / g.group_o().div_ceil(2);
                par::chunks(y, block * area, |i, y| {
                    lookup::sums(level, &taps, &w[i * block / 2 * pair..], &counts, area, y)
                });
            });
        }
    });
}

/// For each output pixel, how many products its sum has: the `k` of `k - 2·differences`.
fn counts(g: &ConvGeom, pad: Pad) -> Vec<f32> {
    let zero = pad == Pad::Zero;
    let rows = |i: usize| (0..g.kh).filter(|&u| !zero || g.inside_y(u).contains(&i)).count();
    let columns = |j: usize| (0..g.kw).filter(|&v| !zero || g.inside_x(v).contains(&j)).count();
    let columns: Vec<_> = (0..g.ow).map(columns).collect();
    let mut counts = Vec::with_capacity(g.oh * g.ow + lookup::SLACK);
    for i in 0..g.oh {
        let row = rows(i) * g.group_c();
        counts.extend(columns.iter().map(|column| (row * column) as f32));
    }
    counts.resize(g.oh * g.ow + lookup::SLACK, 0.0);
    counts
}

/// An image laid out so that each tap of each output pixel is a neighbour of the same tap of the
/// pixel before: `[C/4][KW][stride][rows][OW]`.
///
/// For each `v` there is a copy of the rows that holds what column `v` of the filter meets, padding
/// included; rows that a stride never meets in one walk lie apart.
struct Stage {
    /// Bytes needed.
    len: usize,
    /// Where each quad of channels and tap of the filter begins, in the order of a filter's bytes.
    offsets: Vec<usize>,
    rows: usize,
    plane: usize,
}

impl Stage {
    fn new(g: &ConvGeom) -> Stage {
        let (stride, dilation) = (g.how.stride, g.how.dilation);
        let rows = g.oh + (g.kh - 1) * dilation / stride;
        let plane = stride * rows * g.ow;
        let quads = g.group_c().div_ceil(4);
        let mut offsets = Vec::with_capacity(quads * g.kh * g.kw);
        for q in 0..quads {
            for u in 0..g.kh {
                let at = u * dilation;
                let row = at % stride * rows + at / stride;
                offsets.extend((0..g.kw).map(|v| (q * g.kw + v) * plane + row * g.ow));
            }
        }
        Stage { len: quads * g.kw * plane + lookup::SLACK, offsets, rows, plane }
    }

    fn fill(&self, g: &ConvGeom, x: &[u8], pad: Pad, staged: &mut [u8]) {
        let stride = g.how.stride;
        let planes = x.chunks_exact(g.h * g.w);
        for (q, (x, staged)) in planes.zip(staged.chunks_mut(g.kw * self.plane)).enumerate() {
            let outside = pad.byte(g.group_c() - 4 * q);
            for (v, staged) in staged.chunks_exact_mut(self.plane).enumerate() {
                let inside = g.inside_x(v);
                for (slot, staged) in staged.chunks_exact_mut(g.ow).enumerate() {
                    // The row of the padded image is slot % rows · stride + slot / rows.
                    let row = slot % self.rows * stride + slot / self.rows;
                    if row < g.how.pad || row >= g.how.pad + g.h || inside.is_empty() {
                        staged.fill(outside);
                        continue;
                    }
                    let x = &x[(row - g.how.pad) * g.w..][..g.w];
                    let from = inside.start * stride + v * g.how.dilation - g.how.pad;
                    staged[..inside.start].fill(outside);
                    staged[inside.end..].fill(outside);
                    let middle = &mut staged[inside.clone()];
                    for (to, from) in middle.iter_mut().zip(x[from..].iter().step_by(stride)) {
                        *to = *from;
                    }
                }
            }
        }
    }
}
