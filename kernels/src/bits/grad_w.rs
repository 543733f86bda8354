//! The gradient to +-1 filters: signed sums of `dy` over four or five pixels, lanes of output channels.
//!
//! Each input channel and tap is a stream of signs along the pixels; a stream's sums belong to 16
//! output channels at once. What pads the image has no bit of its own and is taken as -1; for true zero
//! padding the `dy` that met it is added again.

use super::pack::{Image, Pad};
use super::stage::Stage;
use super::sums::{Five, Four, LANES, SIGNS, products};
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
pub(super) struct Plan<'a> {
    g: &'a ConvGeom,
    level: Level,
    stage: Stage,
    /// Where each quad of channels and tap begins in what was laid out.
    offsets: Vec<u32>,
    /// Images that one part sums up, and of them those that are laid out together.
    pub images: usize,
    pub together: usize,
    /// Pixels whose sums a table holds.
    terms: usize,
    /// Pixels of one pass; the last has fewer.
    pass: usize,
    /// Pixel and tap of all that true zero padding left out.
    outside: Vec<(usize, usize)>,
}

/// As [`super::conv2d_dw`], for a geometry that [`suits`].
pub(super) fn dw(g: &ConvGeom, x: &Image, pad: Pad, dy: &[f32], dw: &mut [f32]) {
    let plan = Plan::new(g, pad);
    let blocks = plan.blocks();
    if g.how.groups == 1 && g.n <= plan.together {
        // Sums that nothing is added to later need not be kept until all are there.
        let some = blocks.div_ceil(PARTS);
        return par::chunks(dw, some * LANES * g.taps(), |i, dw| {
            plan.at_once(x, dy, i * some..blocks.min((i + 1) * some), dw);
        });
    }
    let by_images = g.n.div_ceil(plan.images);
    // Where there are few parts of images, parts of output channels.
    let some = blocks.div_ceil((PARTS / by_images).max(1));
    let by_blocks = blocks.div_ceil(some);
    let size = plan.sums(some);
    par::scratch(by_images * by_blocks * size, |sums| {
        par::chunks(sums, size, |i, sums| {
            let (first, n) = (i % by_blocks * some, i / by_blocks * plan.images);
            let mut part = plan.part(first..blocks.min(first + some), sums);
            part.add(x, dy, n..g.n.min(n + plan.images));
            part.close();
        });
        plan.write(sums, some, dw);
    });
}

/// How many parts to compute at once, as the geometry says, whatever the threads.
const PARTS: usize = 16;

impl<'a> Plan<'a> {
    pub fn new(g: &'a ConvGeom, pad: Pad) -> Self {
        // Tables of five take longer to make; many streams must use them.
        let five = g.taps() >= 256;
        let terms = if five { Five::TERMS } else { Four::TERMS };
        let together = SIGNS.div_ceil(g.oh * g.ow).min(g.n);
        let pad_bit = if pad == Pad::Plus { Pad::Plus } else { Pad::Minus };
        let stage = Stage::new(g, pad_bit, together, 4);
        // Passes of equal size.
        let pixels = together * g.oh * g.ow;
        let pass = pixels.div_ceil(pixels.div_ceil(SIGNS)).next_multiple_of(terms).min(SIGNS);
        let outside = if pad == Pad::Zero { outside(g, together) } else { Vec::new() };
        // Large filters are summed up in fewer parts.
        let size = g.o.next_multiple_of(LANES) * g.taps();
        let images = g.n.div_ceil(((1 << 22) / size).clamp(1, PARTS).min(g.n));
        let (level, offsets) = (simd::level(), stage.offsets());
        Plan { g, level, stage, offsets, images, together, terms, pass, outside }
    }

    /// All there is to some blocks of output channels, if there are no groups and all images are laid
    /// out together.
    fn at_once(&self, x: &Image, dy: &[f32], blocks: Range<usize>, dw: &mut [f32]) {
        let (taps, streams) = (self.g.kh * self.g.kw, self.g.taps());
        let Part { mut words, mut tables, .. } = self.part(0..0, &mut []);
        self.read(x, 0..self.g.n, 0, &mut words);
        par::scratch((streams + taps) * LANES, |sums| {
            let (sums, edges) = sums.split_at_mut(streams * LANES);
            for (block, dw) in blocks.zip(dw.chunks_mut(LANES * streams)) {
                sums.fill(0.0);
                edges.fill(0.0);
                self.block(block, dy, self.g.n, &words, &mut tables, sums, edges);
                sums.chunks_mut(taps * LANES).for_each(|sums| add(sums, edges));
                transpose(self.level, [streams, dw.len() / streams], sums, LANES, dw, streams);
            }
        });
    }

    /// Blocks of output channels, over all groups.
    pub fn blocks(&self) -> usize {
        self.g.how.groups * self.g.group_o().div_ceil(LANES)
    }

    /// Floats that a part with so many blocks adds up in.
    pub fn sums(&self, blocks: usize) -> usize {
        blocks * (self.g.taps() + self.g.kh * self.g.kw) * LANES
    }

    /// The beginning of a sum for some blocks, in `sums`.
    pub fn part<'b>(&'b self, blocks: Range<usize>, sums: &'b mut [f32]) -> Part<'b> {
        let (area, streams) = (self.g.oh * self.g.ow, self.g.taps());
        let passes = (self.together * area).div_ceil(self.pass);
        sums.fill(0.0);
        let (sums, edges) = sums.split_at_mut(blocks.len() * streams * LANES);
        Part {
            plan: self,
            sums,
            edges,
            words: vec![0; passes * streams],
            tables: vec![0.0; Four::floats(Four::WORD).max(Five::floats(Five::WORD))],
            blocks,
        }
    }

    /// Adds up the sums of parts, those of `some` blocks next to one another, as `dw`.
    pub fn write(&self, sums: &mut [f32], some: usize, dw: &mut [f32]) {
        let (streams, blocks, size) = (self.g.taps(), self.blocks(), self.sums(some));
        let (sums, parts) = sums.split_at_mut(blocks.div_ceil(some) * size);
        for part in parts.chunks(sums.len()) {
            add_assign(sums, part);
        }
        for block in 0..blocks {
            let (o, rows) = self.channels(block);
            let sums = &sums[block / some * size + block % some * streams * LANES..];
            let dw = &mut dw[o * streams..];
            transpose(self.level, [streams, rows], sums, LANES, dw, streams);
        }
    }

    /// The first output channel of a block, over all groups, and how many it has.
    fn channels(&self, block: usize) -> (usize, usize) {
        let (per_group, all) = (self.g.group_o().div_ceil(LANES), self.g.group_o());
        let o = block % per_group * LANES;
        (block / per_group * all + o, LANES.min(all - o))
    }
}

/// The sums over some images for some blocks of output channels, in the making.
pub(super) struct Part<'a> {
    plan: &'a Plan<'a>,
    blocks: Range<usize>,
    /// `[blocks][C/groups][KH][KW][LANES]`
    sums: &'a mut [f32],
    /// Sums of the `dy` that met padding: `[blocks][KH][KW][LANES]`.
    edges: &'a mut [f32],
    /// The signs of images at hand, and tables to choose from.
    words: Vec<u64>,
    tables: Vec<f32>,
}

impl Part<'_> {
    /// Adds some images.
    pub fn add(&mut self, x: &Image, dy: &[f32], images: Range<usize>) {
        let Part { plan, blocks, sums, edges, words, tables } = self;
        let g = plan.g;
        let (taps, streams) = (g.kh * g.kw, g.taps());
        let per_group = g.group_o().div_ceil(LANES);
        for n in images.clone().step_by(plan.together) {
            let some = plan.together.min(images.end - n);
            let dy = &dy[n * g.o * g.oh * g.ow..];
            for group in blocks.start / per_group..blocks.end.div_ceil(per_group) {
                plan.read(x, n..n + some, group, words);
                let mine =
                    blocks.start.max(group * per_group)..blocks.end.min((group + 1) * per_group);
                for block in mine {
                    let i = block - blocks.start;
                    let sums = &mut sums[i * streams * LANES..][..streams * LANES];
                    let edges = &mut edges[i * taps * LANES..][..taps * LANES];
                    plan.block(block, dy, some, words, tables, sums, edges);
                }
            }
        }
    }

    /// Makes whole the sums of the images that were added.
    pub fn close(self) {
        let (taps, streams) = (self.plan.g.kh * self.plan.g.kw, self.plan.g.taps());
        // What met the padding was subtracted as if it had met -1.
        let blocks = self.sums.chunks_mut(streams * LANES);
        for (sums, edges) in blocks.zip(self.edges.chunks(taps * LANES)) {
            sums.chunks_mut(taps * LANES).for_each(|sums| add(sums, edges));
        }
    }
}

impl Plan<'_> {
    /// The signs of a group of some images, as many as are laid out together.
    fn read(&self, x: &Image, images: Range<usize>, group: usize, words: &mut [u64]) {
        par::scratch(self.stage.len() / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, self.stage.len());
            let pixels = images.len() * self.g.oh * self.g.ow;
            for (b, n) in images.enumerate() {
                self.stage.fill(self.level, b, x.planes(n, group), staged);
            }
            read(self.level, self, staged, pixels, words);
        });
    }

    /// Adds some images' sums for a block of output channels, and apart those of `dy` that met padding.
    fn block(
        &self,
        block: usize,
        dy: &[f32],
        images: usize,
        words: &[u64],
        tables: &mut [f32],
        sums: &mut [f32],
        edges: &mut [f32],
    ) {
        let area = self.g.oh * self.g.ow;
        let pixels = images * area;
        let (o, rows) = self.channels(block);
        let mut lanes = [[0.0; LANES]; SIGNS + 1];
        let passes = (0..pixels).step_by(self.pass);
        for (words, first) in words.chunks(self.g.taps()).zip(passes) {
            let end = pixels.min(first + self.pass);
            let whole = (end - first).next_multiple_of(self.terms);
            lanes[end - first..whole].as_flattened_mut().fill(0.0);
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
                ahead.step_by(area).take(rows).for_each(|x| simd::fetch_line(x));
            }
            let terms = &lanes[..whole];
            if self.terms == Five::TERMS {
                let (tables, _) = Five::split(tables, Five::WORD);
                products(self.level, terms, words, tables, sums);
            } else {
                let (tables, _) = Four::split(tables, Four::WORD);
                products(self.level, terms, words, tables, sums);
            }
            let outside = |end| self.outside.partition_point(|o| o.0 < end);
            let outside = &self.outside[outside(first)..outside(end)];
            add_outside(self.level, outside, first, &lanes, edges.as_chunks_mut().0);
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
    /// Adds what pixels from `first` on have to the sums of the taps that are outside there.
    fn add_outside[](
        outside: &[(usize, usize)],
        first: usize,
        lanes: &[[f32; LANES]],
        edges: &mut [[f32; LANES]],
    ) {
        for &(pixel, tap) in outside {
            let (edges, lanes) = (&mut edges[tap], &lanes[pixel - first]);
            for l in 0..LANES {
                edges[l] += lanes[l];
            }
        }
    }

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
