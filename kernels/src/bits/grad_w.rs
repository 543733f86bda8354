//! The gradient to +-1 filters: signed sums of `dy` over four pixels, lanes of output channels.
//!
//! Each input channel and tap is a stream of signs along the pixels; a stream's sums belong to 16
//! output channels at once. What pads the image has no bit of its own and is taken as -1; for true zero
//! padding the `dy` that met it is added again.

use super::pack::{Image, Pad};
use super::stage::Stage;
use super::sums::{LANES, TERMS, Table, WORD, products};
use super::words::word;
use crate::simd::{self, Level, per_level};
use crate::transpose::transpose;
use crate::{ConvGeom, par};

/// The geometry's part in the work, shared by all who do it.
struct Plan<'a> {
    g: &'a ConvGeom,
    level: Level,
    stage: Stage,
    /// Where each quad of channels and tap begins in what was laid out.
    offsets: Vec<u32>,
    /// Pixels of one pass; the last has fewer.
    pass: usize,
    /// Pixel and tap of all that true zero padding left out.
    outside: Vec<(usize, usize)>,
}

/// Whether tables are used often enough to pay for making them, and lanes are not mostly idle.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.taps() >= 32 && g.group_o() >= 4
}

/// As [`super::conv2d_dw`], for a geometry that [`suits`].
pub(super) fn dw(g: &ConvGeom, x: &Image, pad: Pad, dy: &[f32], dw: &mut [f32]) {
    let area = g.oh * g.ow;
    let images = TERMS.div_ceil(area).min(g.n);
    let as_bits = if pad == Pad::Plus { Pad::Plus } else { Pad::Minus };
    let stage = Stage::new(g, as_bits, images, 4);
    let groups = (images * area).div_ceil(4);
    let plan = Plan {
        g,
        level: simd::level(),
        offsets: stage.offsets(),
        stage,
        pass: 4 * groups.div_ceil(groups.div_ceil(WORD)),
        outside: if pad == Pad::Zero { outside(g, images) } else { Vec::new() },
    };
    // Few parts if they are large, cut by channels then: as the geometry says, not the threads.
    let blocks = g.how.groups * g.group_o().div_ceil(LANES);
    let part = g.taps() * LANES;
    let cuts = ((1 << 22) / (part * blocks)).clamp(1, 8).min(g.n);
    let cut = g.n.div_ceil(cuts);
    let cuts = g.n.div_ceil(cut);
    let range = blocks.div_ceil((8 / cuts).max(1));
    let ranges = blocks.div_ceil(range);
    let mut parts = par::map(cuts * ranges, |i| {
        let first = i % ranges * range;
        let images = i / ranges * cut..g.n.min((i / ranges + 1) * cut);
        plan.part(x, dy, images, first..blocks.min(first + range))
    });
    let (sums, rest) = parts.split_at_mut(ranges);
    for rest in rest.chunks(ranges) {
        for (sum, part) in sums.iter_mut().zip(rest) {
            crate::elementwise::add_assign(sum, part);
        }
    }
    let per_group = g.group_o().div_ceil(LANES);
    for block in 0..blocks {
        let o = block % per_group * LANES;
        let rows = LANES.min(g.group_o() - o);
        let first = block / per_group * g.group_o() + o;
        let sum = &sums[block / range][block % range * part..][..part];
        transpose(plan.level, [g.taps(), rows], sum, LANES, &mut dw[first * g.taps()..], g.taps());
    }
}

/// The pixels and taps of `images` images where the tap is outside the image.
fn outside(g: &ConvGeom, images: usize) -> Vec<(usize, usize)> {
    let mut outside = Vec::new();
    for i in 0..images * g.oh {
        for j in 0..g.ow {
            for u in 0..g.kh {
                for v in 0..g.kw {
                    if !g.inside_y(u).contains(&(i % g.oh)) || !g.inside_x(v).contains(&j) {
                        outside.push((i * g.ow + j, u * g.kw + v));
                    }
                }
            }
        }
    }
    outside
}

impl Plan<'_> {
    /// The sums over some images for some blocks of output channels: `[blocks][C/groups][KH][KW][LANES]`.
    fn part(
        &self,
        x: &Image,
        dy: &[f32],
        images: std::ops::Range<usize>,
        blocks: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let (g, stage) = (self.g, &self.stage);
        let (area, taps, streams) = (g.oh * g.ow, g.kh * g.kw, g.taps());
        let per_group = g.group_o().div_ceil(LANES);
        let mut sums = vec![0.0; blocks.len() * streams * LANES];
        let mut edges =
            vec![0.0; if self.outside.is_empty() { 0 } else { blocks.len() * taps * LANES }];
        let mut words = vec![0; (stage.images * area).div_ceil(self.pass) * streams];
        let mut tables = [Table::ZERO; WORD];
        let mut lanes = [[0.0; LANES]; TERMS];
        par::scratch(stage.len() / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, stage.len());
            for n in images.clone().step_by(stage.images) {
                let some = stage.images.min(images.end - n);
                for group in blocks.start / per_group..(blocks.end - 1) / per_group + 1 {
                    for b in 0..some {
                        stage.fill(self.level, b, x.planes(n + b, group), staged);
                    }
                    read(self.level, self, staged, some * area, &mut words);
                    let mine = group * per_group..(group + 1) * per_group;
                    for block in blocks.start.max(mine.start)..blocks.end.min(mine.end) {
                        let o = block % per_group * LANES;
                        let rows = LANES.min(g.group_o() - o);
                        let dy = &dy[(n * g.o + group * g.group_o() + o) * area..];
                        let at = block - blocks.start;
                        let sums = &mut sums[at * streams * LANES..][..streams * LANES];
                        let edges = if edges.is_empty() {
                            &mut [][..]
                        } else {
                            &mut edges[at * taps * LANES..][..taps * LANES]
                        };
                        for (words, first) in
                            words.chunks(streams).zip((0..some * area).step_by(self.pass))
                        {
                            let len = self.pass.min(some * area - first);
                            if rows < LANES || !len.is_multiple_of(4) {
                                lanes.as_flattened_mut().fill(0.0);
                            }
                            self.gather(dy, rows, first, len, &mut lanes);
                            products(
                                self.level,
                                &lanes[..len.next_multiple_of(4)],
                                words,
                                &mut tables,
                                sums,
                            );
                            let from = self.outside.partition_point(|o| o.0 < first);
                            for &(pixel, tap) in
                                self.outside[from..].iter().take_while(|o| o.0 < first + len)
                            {
                                let edge = &mut edges[tap * LANES..][..LANES];
                                for (edge, dy) in edge.iter_mut().zip(&lanes[pixel - first]) {
                                    *edge += dy;
                                }
                            }
                        }
                    }
                }
            }
        });
        if !edges.is_empty() {
            for (sums, edges) in sums.chunks_mut(streams * LANES).zip(edges.chunks(taps * LANES)) {
                for sums in sums.chunks_mut(taps * LANES) {
                    for (sum, edge) in sums.iter_mut().zip(edges) {
                        *sum += edge;
                    }
                }
            }
        }
        sums
    }

    /// `lanes[pixel][channel]` for `len` pixels of `rows` channels, over images `g.o·area` apart.
    fn gather(
        &self,
        dy: &[f32],
        rows: usize,
        first: usize,
        len: usize,
        lanes: &mut [[f32; LANES]; TERMS],
    ) {
        let area = self.g.oh * self.g.ow;
        let lanes = lanes.as_flattened_mut();
        let mut pixel = first;
        while pixel < first + len {
            let (image, at) = (pixel / area, pixel % area);
            let some = (area - at).min(first + len - pixel);
            let dy = &dy[image * self.g.o * area + at..];
            transpose(
                self.level,
                [rows, some],
                dy,
                area,
                &mut lanes[(pixel - first) * LANES..],
                LANES,
            );
            pixel += some;
        }
    }
}

per_level! {
    /// The signs of each pass and stream, a bit a pixel: `[passes][C/groups][KH][KW]`.
    fn read[](plan: &Plan<'_>, staged: &[u8], pixels: usize, words: &mut [u64]) {
        let (taps, streams) = (plan.g.kh * plan.g.kw, plan.g.taps());
        for (words, first) in words.chunks_mut(streams).zip((0..pixels).step_by(plan.pass)) {
            let quads = words.chunks_mut(4 * taps).zip(plan.offsets.chunks(taps));
            for (words, offsets) in quads {
                for (tap, &offset) in offsets.iter().enumerate() {
                    let x = staged[offset as usize + first..].first_chunk().expect("slack");
                    for (b, to) in words[tap..].iter_mut().step_by(taps).enumerate() {
                        *to = word::<FUSED>(x, b as u32);
                    }
                }
            }
        }
    }
}
