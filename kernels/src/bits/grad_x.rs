//! The gradient to a +-1 image: signed sums of `dy` over four output channels, lanes of pixels.
//!
//! A row of `dx` gathers from the rows of `dy` that rows of the filter bring to it. Each input channel
//! is a stream of signs along the output channels and the rows of the filter, for one column of the
//! filter at a time, since columns move the lanes.

use super::pack::Filters;
use super::sums::{self, HALF, Table, Target, Term, WORD};
use super::words::word;
#[cfg(target_arch = "x86_64")]
use crate::lanes::Avx;
use crate::lanes::{Lanes, Plain};
use crate::planes::{self, Grid};
use crate::simd::{self, Level, per_level};
use crate::{ConvGeom, par};
use std::ops::Range;

/// Tables used at once: more than the first cache holds, but the more, the more seldom are sums, far
/// apart as rows of channels are, loaded and stored.
const TABLES: usize = 3 * WORD;

/// The geometry's part in the work, shared by all who do it.
pub(super) struct Plan<'a> {
    g: &'a ConvGeom,
    level: Level,
    /// One number for each filter.
    scale: &'a [f32],
    /// Images worked on together, so that units come in pairs: eight pixels of `dy` side by side, or
    /// fewer at the end of a row.
    pub images: usize,
    /// Units of one row of one image.
    units: usize,
    /// Quads of output channels summed up in one pass.
    quads: usize,
    /// Rows of `dy` that one row of `dx` needs at once.
    ring: usize,
    /// Pixels of `dx` that neighbours of `dy` meet lie a stride apart: those with the same remainder
    /// make a phase of their row. Floats of a phase, and those before its first pixel.
    pitch: usize,
    margin: usize,
    /// For each row of `dx`, what it gathers.
    rows: Vec<Row>,
    /// For each column of the filter, where in the phases of a row it puts the first pixel of `dy`.
    columns: Vec<usize>,
    /// The signs of the filters, a nibble for a quad: `[groups][passes][KH][KW][C/groups]`.
    words: Vec<u64>,
}

struct Row {
    /// How many rows of `dy` have tables by then.
    ready: usize,
    /// For each row of `dy` that a row of the filter brings here: its tables, and that row's words.
    terms: Vec<Term>,
}

/// Whether tables are used often enough to pay for making them, and lanes are not mostly idle.
pub(super) fn suits(g: &ConvGeom) -> bool {
    let many = g.kh * g.kw > 1 || g.group_c() >= 128;
    g.taps() >= 12 && g.group_o() >= 3 && g.ow >= 3 && many
}

/// As [`super::scaled_conv2d_dx`], for a geometry that [`suits`].
pub(super) fn dx(
    g: &ConvGeom,
    w: &Filters,
    scale: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    finish: &impl Finish,
) {
    let plan = Plan::new(g, w, scale);
    let (area, c) = (g.h * g.w, g.group_c());
    let image = g.c * area;
    // A lone image is shared out by channels: the sums of each are its own.
    let block = c.div_ceil(par::threads().div_ceil(g.n));
    par::chunks(dx, plan.images * image, |i, dx| {
        if plan.images > 1 || block == c {
            return plan.write_images(i * plan.images, dy, dx, finish);
        }
        for group in 0..g.how.groups {
            let first = group * c * area;
            par::chunks(&mut dx[first..][..c * area], block * area, |j, dx| {
                let channels = j * block..c.min((j + 1) * block);
                plan.part(i, group, channels, dy, dx, finish);
            });
        }
    });
}

/// What is done to a piece of `dx`, of elements from `i` on, while the cache holds it.
pub(super) trait Finish: Fn(usize, &mut [f32]) + Sync {}
impl<F: Fn(usize, &mut [f32]) + Sync> Finish for F {}

impl<'a> Plan<'a> {
    pub fn new(g: &'a ConvGeom, w: &Filters, scale: &'a [f32]) -> Self {
        let (stride, dilation, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let units = g.ow.div_ceil(HALF);
        let ring = (g.kh - 1) * dilation / stride + 1;
        // Passes of equal size, as few as their tables allow.
        let quads = g.group_o().div_ceil(4);
        let quads = quads.div_ceil(quads.div_ceil((TABLES / ring).clamp(1, WORD)));
        let margin = pad.div_ceil(stride);
        let pitch = margin + units * HALF + ((g.kw - 1) * dilation).saturating_sub(pad) / stride;
        // Column j of dy meets column j·stride + v·dilation - pad of dx.
        let column = |v: usize| {
            let at = v * dilation + margin * stride - pad;
            at % stride * pitch + at / stride
        };
        Plan {
            g,
            scale,
            level: simd::level(),
            images: 1 + units % 2,
            units,
            quads,
            ring,
            pitch,
            margin,
            rows: (0..g.h).map(|y| Row::new(g, y, ring, quads)).collect(),
            columns: (0..g.kw).map(column).collect(),
            words: words(simd::level(), g, w, quads),
        }
    }

    fn pairs(&self) -> usize {
        self.images * self.units / 2
    }

    /// The gradient to as many images from `n` on as are worked on together.
    pub fn write_images(&self, n: usize, dy: &[f32], dx: &mut [f32], finish: &impl Finish) {
        let c = self.g.group_c();
        for group in 0..self.g.how.groups {
            let dx = &mut dx[group * c * self.g.h * self.g.w..];
            self.part(n, group, 0..c, dy, dx, finish);
        }
    }

    /// The gradient to some channels of these images, `C·H·W` apart in `dx`.
    fn part(
        &self,
        n: usize,
        group: usize,
        channels: Range<usize>,
        dy: &[f32],
        dx: &mut [f32],
        finish: &impl Finish,
    ) {
        let (g, level, stride) = (self.g, self.level, self.g.how.stride);
        let tables = self.ring * self.quads;
        let (area, row) = (g.h * g.w, stride * self.pitch);
        let image = channels.len() * g.h * row;
        // Channels that make a piece which the first cache holds.
        let some = (1024 / area).max(1);
        par::scratch(Table::floats(tables) + self.images * image, |scratch| {
            let (tables, sums) = Table::split(scratch, tables);
            sums.fill(0.0);
            walk(level, self, n, group, channels.clone(), dy, tables, sums);
            let images = sums.chunks_exact(image).zip(dx.chunks_mut(g.c * area));
            for (i, (sums, dx)) in images.enumerate() {
                let mut first = ((n + i) * g.c + group * g.group_c() + channels.start) * area;
                let dx = dx[..channels.len() * area].chunks_mut(some * area);
                for (sums, dx) in sums.chunks(some * g.h * row).zip(dx) {
                    self.gather(sums, dx);
                    finish(first, dx);
                    first += dx.len();
                }
            }
        });
    }

    /// Where in `dy` the units of a pair begin, in the first row of a group's first channel, and how many
    /// pixels they have: none beyond the last image.
    fn units(&self, n: usize, group: usize, pair: usize) -> [[usize; 2]; 2] {
        let (g, area) = (self.g, self.g.oh * self.g.ow);
        let units = [2 * pair, 2 * pair + 1].map(|unit| {
            let (image, column) = (n + unit / self.units, unit % self.units * HALF);
            let first = (image * g.o + group * g.group_o()) * area + column;
            if image < g.n { [first, HALF.min(g.ow - column)] } else { [0, 0] }
        });
        [[units[0][0], units[1][0]], [units[0][1], units[1][1]]]
    }

    /// Takes rows of pixels out of the places where they were summed up.
    fn gather(&self, sums: &[f32], dx: &mut [f32]) {
        let (w, stride, sums) = (self.g.w, self.g.how.stride, &sums[self.margin..]);
        if stride == 1 {
            let (from, to) = (Grid { stride: self.pitch, step: 1 }, Grid { stride: w, step: 1 });
            return planes::copy(self.level, [dx.len() / w, w], sums, from, dx, to);
        }
        if stride == 2 && w % 2 == 0 {
            return weave(self.level, w / 2, self.pitch, sums, dx);
        }
        for (i, dx) in dx.chunks_exact_mut(w).enumerate() {
            let row = &sums[i * stride * self.pitch..];
            for (phase, row) in row.chunks(self.pitch).enumerate().take(stride.min(w)) {
                let dx = dx[phase..].iter_mut().step_by(stride);
                dx.zip(row).for_each(|(dx, sum)| *dx = *sum);
            }
        }
    }
}

impl Row {
    /// What row `y` of `dx` gathers, from rows of `dy` that take turns on `tables` tables each.
    fn new(g: &ConvGeom, y: usize, ring: usize, tables: usize) -> Row {
        let mut row = Row { ready: 0, terms: Vec::new() };
        for u in 0..g.kh {
            // Row i of dy meets row i·stride + u·dilation - pad of dx.
            let Some(at) = (y + g.how.pad).checked_sub(u * g.how.dilation) else { break };
            let i = at / g.how.stride;
            if at % g.how.stride == 0 && i < g.oh {
                row.ready = row.ready.max(i + 1);
                row.terms.push([i % ring * tables, u * g.kw * g.group_c()]);
            }
        }
        row
    }
}

/// The signs of the filters for passes of `quads` quads.
fn words(level: Level, g: &ConvGeom, w: &Filters, quads: usize) -> Vec<u64> {
    let (taps, c) = (g.kh * g.kw, g.group_c());
    let passes = g.group_o().div_ceil(4 * quads);
    let mut words = vec![0u64; g.how.groups * passes * taps * c];
    par::chunks(&mut words, taps * c, |i, words| {
        let (group, pass) = (i / passes, i % passes);
        let size = c.div_ceil(4) * taps;
        let pairs = &w.pairs(group)[2 * quads * pass * size..];
        let many = (2 * quads).min(pairs.len() / size);
        gather_words(level, &pairs[..many * size], size, taps, c, words);
    });
    words
}

/// Bit `i` as bit `2i`.
#[inline(always)]
fn spread(bits: u32) -> u64 {
    let mut x = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        x = (x | x << shift) & mask;
    }
    x
}

/// Fills a table with `scale·dy` of four channels, `area` apart, in two whole units.
#[inline(always)]
fn fill<L: Lanes>(table: &mut Table, dy: &[f32], units: [usize; 2], area: usize, scale: &[f32; 4]) {
    for (half, at) in units.into_iter().enumerate() {
        let load = |o: usize| {
            let eight = dy[at + o * area..].first_chunk().expect("a whole unit");
            L::load(eight).mul(L::splat(scale[o]))
        };
        table.fill(half, [load(0), load(1), load(2), load(3)]);
    }
}

/// The same for a few channels and units of a few pixels; zero where there is none.
#[inline(never)]
fn fill_partly(
    table: &mut Table,
    dy: &[f32],
    units: [usize; 2],
    lens: [usize; 2],
    area: usize,
    scale: &[f32],
) {
    for half in 0..2 {
        let mut four = [[0.0; HALF]; 4];
        for (o, (eight, scale)) in four.iter_mut().zip(scale).enumerate() {
            let dy = &dy[units[half] + o * area..][..lens[half]];
            eight.iter_mut().zip(dy).for_each(|(eight, dy)| *eight = scale * dy);
        }
        table.fill(half, four.each_ref().map(Plain::load));
    }
}

per_level! {
    /// For each tap and channel, `[taps][c]`, the signs of at most 32 pairs of filters of `size` bytes.
    fn gather_words[](pairs: &[u8], size: usize, taps: usize, c: usize, words: &mut [u64]) {
        let mut bytes = [0; 64];
        for k in 0..size {
            for (byte, pair) in bytes.iter_mut().zip(pairs.chunks_exact(size)) {
                *byte = pair[k];
            }
            let (tap, first) = (k % taps, k / taps * 4);
            for (b, to) in words[tap * c..][..c][first..].iter_mut().take(4).enumerate() {
                let [low, high] = [b, b + 4].map(|b| word::<FUSED>(&bytes, b as u32) as u32);
                *to = spread(low) | spread(high) << 1;
            }
        }
    }

    /// Rows of two phases, which take turns.
    fn weave[](half: usize, pitch: usize, sums: &[f32], dx: &mut [f32]) {
        for (i, dx) in dx.chunks_exact_mut(2 * half).enumerate() {
            let even = &sums[2 * i * pitch..][..half];
            let odd = &sums[(2 * i + 1) * pitch..][..half];
            for j in 0..half {
                dx[2 * j] = even[j];
                dx[2 * j + 1] = odd[j];
            }
        }
    }

    /// Adds to the rows of some channels, `[images][channels][H][stride][pitch]`, what they gather.
    fn walk[](
        plan: &Plan<'_>,
        n: usize,
        group: usize,
        channels: Range<usize>,
        dy: &[f32],
        tables: &mut [Table],
        sums: &mut [f32],
    ) {
        let g = plan.g;
        let (c, all, streams) = (g.group_c(), g.group_o().next_multiple_of(4), channels.len());
        let (pairs, passes) = (plan.pairs(), all.div_ceil(4 * plan.quads));
        let (row, area) = (g.how.stride * plan.pitch, g.oh * g.ow);
        for pass in 0..passes {
            let o = pass * 4 * plan.quads;
            let quads = plan.quads.min((all - o) / 4);
            let words = &plan.words[(group * passes + pass) * g.kh * g.kw * c..];
            for pair in 0..pairs {
                let start = [2 * pair, 2 * pair + 1].map(|unit| {
                    unit / plan.units * streams * g.h * row + unit % plan.units * HALF
                });
                let [units, lens] = plan.units(n, group, pair);
                let mut ready = 0;
                for (y, gathers) in plan.rows.iter().enumerate() {
                    while ready < gathers.ready {
                        let slot = &mut tables[ready % plan.ring * plan.quads..][..quads];
                        let scale = &plan.scale[group * g.group_o()..][..g.group_o()][o..];
                        let tables = slot.iter_mut().zip(scale.chunks(4)).enumerate();
                        for (i, (table, scale)) in tables {
                            let units = units.map(|at| at + (o + 4 * i) * area + ready * g.ow);
                            match scale.first_chunk() {
                                #[cfg(target_arch = "x86_64")]
                                Some(scale) if lens == [HALF; 2] && FUSED => {
                                    fill::<Avx>(table, dy, units, area, scale);
                                }
                                Some(scale) if lens == [HALF; 2] => {
                                    fill::<Plain>(table, dy, units, area, scale);
                                }
                                _ => fill_partly(table, dy, units, lens, area, scale),
                            }
                        }
                        ready += 1;
                    }
                    for (v, place) in plan.columns.iter().enumerate() {
                        let words = &words[v * c + channels.start..];
                        let at = start.map(|at| at + y * row + place);
                        let target = Target { at, stride: g.h * row };
                        let terms = &gathers.terms;
                        sums::add::<FUSED>(tables, words, terms, quads, streams, sums, target);
                    }
                }
            }
        }
    }
}
