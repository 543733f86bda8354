//! The gradient to +-1 filters: signed sums of `dy` over four pixels, lanes of output channels.
//!
//! Each input channel and tap is a stream of signs along the pixels; a stream's sums belong to 16
//! output channels at once. What pads the image has no bit of its own and is taken as -1; for true zero
//! padding the `dy` that met it is added again.

use super::pack::{Image, Pad};
use super::stage::Stage;
use super::sums::{LANES, TERMS, Table, WORD, products};
use super::words::word;
use crate::elementwise::add_assign;
use crate::simd::{self, Level, per_level};
use crate::transpose::transpose;
use crate::{ConvGeom, par};
use std::ops::Range;

/// Whether tables are used often enough to pay for making them, and lanes are not mostly idle.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.group_c() >= 4 && g.taps() >= 12 && g.group_o() >= 4
}

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

/// As [`super::conv2d_dw`], for a geometry that [`suits`].
pub(super) fn dw(g: &ConvGeom, x: &Image, pad: Pad, dy: &[f32], dw: &mut [f32]) {
    let plan = Plan::new(g, pad);
    let (streams, per_group) = (g.taps(), g.group_o().div_ceil(LANES));
    let blocks = g.how.groups * per_group;
    // Parts to compute at once: eight at most, cut by images, by blocks of output channels where
    // filters are large; as the geometry says, whatever the threads.
    let by_images = ((1 << 22) / (blocks * streams * LANES)).clamp(1, 8).min(g.n);
    let images = g.n.div_ceil(by_images);
    let by_images = g.n.div_ceil(images);
    let some = blocks.div_ceil((8 / by_images).max(1));
    let by_blocks = blocks.div_ceil(some);
    let mut parts = par::map(by_images * by_blocks, |i| {
        let (first, n) = (i % by_blocks * some, i / by_blocks * images);
        plan.part(x, dy, n..g.n.min(n + images), first..blocks.min(first + some))
    });
    let (sums, rest) = parts.split_at_mut(by_blocks);
    for parts in rest.chunks(by_blocks) {
        sums.iter_mut().zip(parts).for_each(|(sum, part)| add_assign(sum, part));
    }
    for block in 0..blocks {
        let (o, rows) = plan.channels(block);
        let sums = &sums[block / some][block % some * streams * LANES..];
        transpose(plan.level, [streams, rows], sums, LANES, &mut dw[o * streams..], streams);
    }
}

impl<'a> Plan<'a> {
    fn new(g: &'a ConvGeom, pad: Pad) -> Self {
        let images = TERMS.div_ceil(g.oh * g.ow).min(g.n);
        let pad_bit = if pad == Pad::Plus { Pad::Plus } else { Pad::Minus };
        let stage = Stage::new(g, pad_bit, images, 4);
        // Passes of equal size.
        let tables = (images * g.oh * g.ow).div_ceil(4);
        let pass = 4 * tables.div_ceil(tables.div_ceil(WORD));
        let outside = if pad == Pad::Zero { outside(g, images) } else { Vec::new() };
        Plan { g, level: simd::level(), offsets: stage.offsets(), stage, pass, outside }
    }

    /// The first output channel of a block, over all groups, and how many it has.
    fn channels(&self, block: usize) -> (usize, usize) {
        let (per_group, all) = (self.g.group_o().div_ceil(LANES), self.g.group_o());
        let o = block % per_group * LANES;
        (block / per_group * all + o, LANES.min(all - o))
    }

    /// The sums over some images for some blocks of output channels: `[blocks][C/groups][KH][KW][LANES]`.
    fn part(&self, x: &Image, dy: &[f32], images: Range<usize>, blocks: Range<usize>) -> Vec<f32> {
        let (g, stage) = (self.g, &self.stage);
        let (area, taps, streams) = (g.oh * g.ow, g.kh * g.kw, g.taps());
        let per_group = g.group_o().div_ceil(LANES);
        let mut sums = vec![0.0; blocks.len() * streams * LANES];
        let mut edges = vec![0.0; blocks.len() * taps * LANES];
        let mut words = vec![0; (stage.images * area).div_ceil(self.pass) * streams];
        let mut tables = [Table::ZERO; WORD];
        par::scratch(stage.len() / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, stage.len());
            for n in images.clone().step_by(stage.images) {
                let some = stage.images.min(images.end - n);
                let dy = &dy[n * g.o * area..];
                for group in blocks.start / per_group..blocks.end.div_ceil(per_group) {
                    for b in 0..some {
                        stage.fill(self.level, b, x.planes(n + b, group), staged);
                    }
                    read(self.level, self, staged, some * area, &mut words);
                    let mine = blocks.start.max(group * per_group)
                        ..blocks.end.min((group + 1) * per_group);
                    for block in mine {
                        let i = block - blocks.start;
                        let sums = &mut sums[i * streams * LANES..][..streams * LANES];
                        let edges = &mut edges[i * taps * LANES..][..taps * LANES];
                        self.block(block, dy, some * area, &words, &mut tables, sums, edges);
                    }
                }
            }
        });
        // What met the padding was subtracted as if it had met -1.
        for (sums, edges) in sums.chunks_mut(streams * LANES).zip(edges.chunks(taps * LANES)) {
            sums.chunks_mut(taps * LANES).for_each(|sums| add(sums, edges));
        }
        sums
    }

    /// Adds some images' sums for a block of output channels, and apart those of `dy` that met padding.
    fn block(
        &self,
        block: usize,
        dy: &[f32],
        pixels: usize,
        words: &[u64],
        tables: &mut [Table; WORD],
        sums: &mut [f32],
        edges: &mut [f32],
    ) {
        let area = self.g.oh * self.g.ow;
        let (o, rows) = self.channels(block);
        let mut lanes = [[0.0; LANES]; TERMS];
        let passes = (0..pixels).step_by(self.pass);
        for (words, first) in words.chunks(self.g.taps()).zip(passes) {
            let end = pixels.min(first + self.pass);
            let whole = (end - first).next_multiple_of(4);
            if rows < LANES || end - first < whole {
                lanes.as_flattened_mut().fill(0.0);
            }
            let mut pixel = first;
            while pixel < end {
                let (image, at) = (pixel / area, pixel % area);
                let some = (area - at).min(end - pixel);
                let dy = &dy[(image * self.g.o + o) * area + at..];
                let lanes = lanes[pixel - first..].as_flattened_mut();
                transpose(self.level, [rows, some], dy, area, lanes, LANES);
                pixel += some;
            }
            // The next pass's rows are far apart, where the machine would not look by itself.
            for pixel in (end..end + self.pass).step_by(64 / size_of::<f32>()) {
                let first = (pixel / area * self.g.o + o) * area + pixel % area;
                let ahead = dy.get(first..).unwrap_or_default().iter();
                ahead.step_by(area).take(rows).for_each(simd::prefetch);
            }
            products(self.level, &lanes[..whole], words, tables, sums);
            let outside = &self.outside[self.outside.partition_point(|o| o.0 < first)..];
            for &(pixel, tap) in outside.iter().take_while(|o| o.0 < end) {
                add(&mut edges[tap * LANES..][..LANES], &lanes[pixel - first]);
            }
        }
    }
}

/// `y += x`, for few.
fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// The pixels and taps of `images` images where the tap is outside the image.
fn outside(g: &ConvGeom, images: usize) -> Vec<(usize, usize)> {
    let rows: Vec<_> = (0..g.kh).map(|u| g.inside_y(u)).collect();
    let columns: Vec<_> = (0..g.kw).map(|v| g.inside_x(v)).collect();
    let mut outside = Vec::new();
    for pixel in 0..images * g.oh * g.ow {
        let (i, j) = (pixel / g.ow % g.oh, pixel % g.ow);
        for (u, rows) in rows.iter().enumerate() {
            for (v, columns) in columns.iter().enumerate() {
                if !rows.contains(&i) || !columns.contains(&j) {
                    outside.push((pixel, u * g.kw + v));
                }
            }
        }
    }
    outside
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
