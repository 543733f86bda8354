//! How a pass of direct convolution is cut up: which pixels are computed at a time, which rows of
//! the source they read, and with what filter taps.
//!
//! Work goes by chunks: a few small images, or a few rows of a large one. Their source, with its
//! padding, is copied into a slab that fits the second cache; from there on padding is no concern.

use super::gather::{Row, Steps, index};
use crate::geom::ConvGeom;
use crate::simd::{Level, per_level};
use std::ops::Range;

/// Outputs of a chunk, about.
const PIXELS: usize = 512;

/// A pass that computes planes of pixels from padded planes of another size.
pub(super) struct Plan {
    /// Images in the batch.
    pub n: usize,
    /// Channels of the source, its height and width.
    all: usize,
    h: usize,
    w: usize,
    /// Rows and columns of padding before the source.
    top: usize,
    left: usize,
    /// Elements of a padded row.
    pitch: usize,
    /// Outputs are `lanes` planes of `out_h` by `out_w`.
    pub lanes: usize,
    pub out_h: usize,
    pub out_w: usize,
    /// Images and rows of outputs in a chunk; more than one image only with all their rows.
    pub images: usize,
    pub rows: usize,
    /// The chunk of rows from `r` on reads padded rows from `r·down.0/down.1 + down.2` on.
    down: (usize, usize, usize),
    slab_rows: usize,
    /// No padding: the source serves as its own slab.
    in_place: bool,
    /// Elements between two channels and between two images of a slab.
    pub plane: usize,
    pub image: usize,
    /// Outputs that see the same taps. Together they are all outputs.
    pub phases: Vec<Phase>,
}

/// Outputs of a chunk that see the same taps of the filter.
pub(super) struct Phase {
    /// The taps, as places in a filter's plane.
    pub taps: Vec<usize>,
    /// Where each lies in the slab.
    offsets: Vec<usize>,
    /// The same for as many channels as are taken together, again and again.
    table: Vec<u32>,
    repeats: usize,
    advance: usize,
    pixels: Vec<Row>,
}

/// Where one output row or column finds its source, before the padding is known.
struct Axis {
    /// Padding before the source, and the padded size.
    before: usize,
    size: usize,
    /// Padded place of the first source that output 0 reads.
    first: usize,
}

impl Plan {
    /// `y` from `channels` of the channels of `x`: output `(i,j)` sees the taps at
    /// `(i·stride + u·dilation, j·stride + v·dilation)` of a padded plane.
    pub(super) fn forward(g: &ConvGeom, channels: usize) -> Self {
        let (s, d, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let reach = (g.kh - 1) * d + 1;
        let axis = |size: usize| Axis { before: pad, size: size + 2 * pad, first: 0 };
        let mut plan = Plan::cut(
            g.n,
            [g.c, g.h, g.w],
            channels,
            [g.o, g.oh, g.ow],
            [axis(g.h), axis(g.w)],
            1,
            (s, 1),
            |rows| (rows - 1) * s + reach,
        );
        let (pitch, plane) = (plan.pitch, plan.plane);
        let taps = (0..g.kh * g.kw).collect::<Vec<_>>();
        let offsets = taps.iter().map(|t| t / g.kw * d * pitch + t % g.kw * d).collect();
        let pixels = plan.pixels(|i, j| Some(i * s * pitch + j * s));
        plan.phases = vec![Phase::new(taps, offsets, channels, plane, pixels)];
        plan
    }

    /// `dx` from `dy`, for pixel `p` of either axis: tap `u` reaches it from output `i` where
    /// `i·s + u·d - pad = p`.
    ///
    /// Let `m = ⌊(p + pad) / s⌋` and `a = (p + pad) mod s`. The taps that reach `p` are those with
    /// `u·d mod s = a`, and then `i = m - ⌊u·d / s⌋`. So pixels of equal `a` in both axes see the
    /// same taps, and see them at stride 1.
    pub(super) fn dx(g: &ConvGeom) -> Self {
        let (s, d, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let m = |p: usize| (p + pad) / s;
        let back = |k: usize| (k - 1) * d / s; // the largest ⌊u·d / s⌋
        let axis = |size: usize, out: usize, k: usize| {
            let before = back(k).saturating_sub(m(0));
            let size = before + out.max(m(size - 1) + 1);
            Axis { before, size, first: m(0).saturating_sub(back(k)) }
        };
        let (back_y, back_x) = (back(g.kh), back(g.kw));
        let mut plan = Plan::cut(
            g.n,
            [g.o, g.oh, g.ow],
            g.o,
            [g.c, g.h, g.w],
            [axis(g.h, g.oh, g.kh), axis(g.w, g.ow, g.kw)],
            s,
            (1, s),
            |rows| m(rows - 1) - m(0) + back_y + 1,
        );
        let (pitch, plane) = (plan.pitch, plan.plane);
        let first_x = m(0).saturating_sub(back_x);
        let phases = (0..s * s).map(|phase| {
            let (a, b) = (phase / s, phase % s);
            let sees = |t: &usize| t / g.kw * d % s == a && t % g.kw * d % s == b;
            let taps = (0..g.kh * g.kw).filter(sees).collect::<Vec<_>>();
            let place = |t: &usize| {
                let (u, v) = (t / g.kw, t % g.kw);
                (back_y - u * d / s) * pitch + back_x - v * d / s
            };
            let offsets = taps.iter().map(place).collect();
            let pixels = plan.pixels(|p, q| {
                let here = (p + pad) % s == a && (q + pad) % s == b;
                here.then(|| (m(p) - m(0)) * pitch + m(q) - m(0) + first_x)
            });
            Phase::new(taps, offsets, g.o, plane, pixels)
        });
        plan.phases = phases.collect();
        plan
    }

    /// Everything but the phases. Chunks have a multiple of `whole` rows.
    fn cut(
        n: usize,
        [all, h, w]: [usize; 3],
        channels: usize,
        [lanes, out_h, out_w]: [usize; 3],
        [y, x]: [Axis; 2],
        whole: usize,
        (multiply, divide): (usize, usize),
        slab_rows: impl Fn(usize) -> usize,
    ) -> Self {
        let chunks = (out_h * out_w).div_ceil(PIXELS).min(out_h.div_ceil(whole));
        let rows = out_h.div_ceil(chunks).next_multiple_of(whole).min(out_h);
        let images = if rows == out_h { (PIXELS / (out_h * out_w)).clamp(1, n) } else { 1 };
        let (slab_rows, in_place) = (slab_rows(rows), y.size == h && x.size == w);
        let plane = if in_place { h * w } else { slab_rows * x.size };
        Plan {
            n,
            all,
            h,
            w,
            top: y.before,
            left: x.before,
            pitch: x.size,
            lanes,
            out_h,
            out_w,
            images,
            rows,
            down: (multiply, divide, y.first),
            slab_rows,
            in_place,
            plane,
            image: if in_place { all } else { channels } * plane,
            phases: Vec::new(),
        }
    }

    /// A row for each output of a chunk that `base`, its place within an image of the slab, wants.
    fn pixels(&self, base: impl Fn(usize, usize) -> Option<usize>) -> Vec<Row> {
        let mut pixels = Vec::new();
        for slot in 0..self.images * self.rows * self.out_w {
            let (j, i) = (slot % self.out_w, slot / self.out_w);
            let (i, image) = (i % self.rows, i / self.rows);
            if let Some(base) = base(i, j) {
                pixels.push(Row { base: index(image * self.image + base), slot: index(slot) });
            }
        }
        pixels
    }

    /// The slab for outputs from row `r` on of `images` images, the first of which starts in
    /// `source`; copied into `buffer`, which was all zeros at first, unless they serve in place.
    pub(super) fn slab<'a>(
        &self,
        level: Level,
        source: &'a [f32],
        images: usize,
        r: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let (multiply, divide, add) = self.down;
        let first = r * multiply / divide + add;
        if self.in_place {
            return &source[first * self.pitch..];
        }
        // Rows of the slab that show the source; those above and below are padding.
        let start = self.top.saturating_sub(first).min(self.slab_rows);
        let end = (self.top + self.h).saturating_sub(first).clamp(start, self.slab_rows);
        let shown = (first + start).saturating_sub(self.top) * self.w;
        for (image, slab) in buffer.chunks_exact_mut(self.image).take(images).enumerate() {
            let source = source[image * self.source()..].chunks_exact(self.h * self.w);
            for (slab, source) in slab.chunks_exact_mut(self.plane).zip(source) {
                slab[..start * self.pitch].fill(0.0);
                slab[end * self.pitch..].fill(0.0);
                let slab = &mut slab[start * self.pitch + self.left..];
                copy_rows(level, end - start, self.w, &source[shown..], self.w, slab, self.pitch);
            }
        }
        buffer
    }

    /// Elements between two images of the source.
    pub(super) fn source(&self) -> usize {
        self.all * self.h * self.w
    }

    /// Elements that [`slab`](Self::slab) wants of its buffer for so many images.
    pub(super) fn slab_len(&self, images: usize) -> usize {
        if self.in_place { 0 } else { images * self.image }
    }
}

impl Phase {
    fn new(
        taps: Vec<usize>,
        offsets: Vec<usize>,
        channels: usize,
        plane: usize,
        pixels: Vec<Row>,
    ) -> Self {
        // A table long enough that turning to its next repetition costs nothing.
        const LONGEST: usize = 256;
        let fits = |n: &usize| channels.is_multiple_of(*n) && n * taps.len() <= LONGEST;
        let together = (1..=channels.min(LONGEST)).rev().find(fits).unwrap_or(1);
        let table = (0..together).flat_map(|c| offsets.iter().map(move |at| index(c * plane + at)));
        let (table, repeats) = (table.collect(), channels / together);
        Phase { taps, table, repeats, advance: together * plane, offsets, pixels }
    }

    /// The taps of one channel after the other.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps { table: &self.table, repeats: self.repeats, advance: self.advance }
    }

    /// The pixels of a chunk of which only the first `many` outputs are wanted.
    pub(super) fn pixels(&self, many: usize) -> &[Row] {
        &self.pixels[..self.pixels.partition_point(|pixel| (pixel.slot as usize) < many)]
    }

    /// The taps of channel after channel, as rows rather than as steps.
    pub(super) fn tap_rows(&self, which: Range<usize>, plane: usize) -> Vec<Row> {
        let taps = self.offsets.len();
        let first = which.start / taps;
        let row = |at: usize| (at / taps - first) * plane + self.offsets[at % taps];
        which
            .clone()
            .map(|at| Row { base: index(row(at)), slot: index(at - which.start) })
            .collect()
    }
}

per_level! {
    /// `y[i·y_stride + j] = x[i·x_stride + j]` for `i < rows` and `j < cols`.
    fn copy_rows[](
        rows: usize,
        cols: usize,
        x: &[f32],
        x_stride: usize,
        y: &mut [f32],
        y_stride: usize,
    ) {
        // In strips of fixed widths, since a call to copy a short row takes longer than the row.
        let mut j = 0;
        while j < cols {
            let (x, y) = (&x[j..], &mut y[j..]);
            j += match cols - j {
                32.. => copy_strip::<32>(rows, x, x_stride, y, y_stride),
                16.. => copy_strip::<16>(rows, x, x_stride, y, y_stride),
                8.. => copy_strip::<8>(rows, x, x_stride, y, y_stride),
                4.. => copy_strip::<4>(rows, x, x_stride, y, y_stride),
                _ => copy_strip::<1>(rows, x, x_stride, y, y_stride),
            };
        }
    }
}

#[inline(always)]
fn copy_strip<const N: usize>(
    rows: usize,
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
) -> usize {
    for i in 0..rows {
        y[i * y_stride..][..N].copy_from_slice(&x[i * x_stride..][..N]);
    }
    N
}
