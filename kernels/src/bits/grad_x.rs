//! The gradient to a +-1 image: signed sums of `dy` over four output channels, lanes of pixels.
//!
//! A row of `dx` gathers from the rows of `dy` that rows of the filter bring to it. Each input channel
//! is a stream of signs along the output channels and the rows of the filter, for one column of the
//! filter at a time, since columns move the lanes.
//!
//! Rows of few pixels would leave most lanes idle. They are laid end to end instead: the image becomes
//! one row, and the filter one row of columns that lie further apart.

use super::pack::Filters;
use super::sums::{self, Four, HALF, Target, Term};
use super::words::word;
use crate::ahead::{Ahead, Memory};
#[cfg(target_arch = "x86_64")]
use crate::lanes::Avx;
use crate::lanes::{Lanes, Plain};
use crate::planes::{self, Grid};
use crate::simd::{self, Level, per_level};
use crate::{Conv, ConvGeom, par};
use std::ops::Range;

/// Tables used at once: more than the first cache holds, but the more, the more seldom are sums, far
/// apart as rows of channels are, loaded and stored.
const TABLES: usize = 3 * Four::WORD;

/// The geometry's part in the work, shared by all who do it.
pub(super) struct Plan<'a> {
    whole: &'a ConvGeom,
    /// The same, or its rows laid end to end.
    g: ConvGeom,
    line: Option<Line>,
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
    /// Stretches of signs of the filters, a nibble for a quad: `[groups][passes][stretches][KW][C/groups]`.
    words: Vec<u64>,
    stretches: usize,
}

/// A group's channels of some images.
struct Images<'a> {
    dy: &'a [f32],
    many: usize,
    /// Floats from an image to the next, and from a channel to the next.
    apart: usize,
    area: usize,
}

struct Row {
    /// How many rows of `dy` have tables by then.
    ready: usize,
    /// The tables of all rows of `dy` that rows of the filter bring here, and where the words of the
    /// filter's first column begin.
    terms: Vec<Term>,
}

/// Rows of the filter whose signs share words, those of the first in the lowest nibbles.
type Stretch = Vec<usize>;

/// Rows laid end to end, each so far behind the last that what the columns of the filter put beside a
/// row falls between two of them.
#[derive(Clone, Copy)]
struct Line {
    pitch: usize,
}

impl Line {
    /// Where that takes less time than rows of their own do.
    fn of(g: &ConvGeom) -> Option<Line> {
        if g.kh * g.kw == 1 && g.how.pad == 0 {
            return Some(Line { pitch: g.ow });
        }
        let line = Line { pitch: g.ow.max(g.w + g.how.pad) };
        let pairs = |length: usize| (g.n * length.div_ceil(HALF)).div_ceil(2);
        // For each pair and column of the filter a channel adds up rows of tables, and what came of
        // them to its target, which takes as long as four of them. In a line all taps are columns.
        let quads = g.group_o().div_ceil(4).min(Four::WORD);
        let in_rows = g.oh * pairs(g.ow) * g.kw * (g.kh * quads + 4);
        let in_line = pairs(line.length(g)) * g.kh * g.kw * (quads + 4);
        (g.how.stride == 1 && in_line < in_rows).then_some(line)
    }

    /// Floats from the first pixel of `dy` to the last.
    fn length(self, g: &ConvGeom) -> usize {
        (g.oh - 1) * self.pitch + g.ow
    }

    /// The geometry of a single row.
    fn flatten(self, g: &ConvGeom) -> ConvGeom {
        let how = Conv { stride: 1, dilation: 1, pad: 0, ..g.how };
        let ow = self.length(g);
        ConvGeom { h: 1, w: ow, kh: 1, kw: g.kh * g.kw, oh: 1, ow, how, ..*g }
    }
}

/// Whether tables are used often enough to pay for making them, and lanes are not mostly idle.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.taps() >= 12 && g.group_o() >= 3 && (g.ow >= 3 || Line::of(g).is_some())
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
    pub fn new(whole: &'a ConvGeom, w: &Filters, scale: &'a [f32]) -> Self {
        let line = Line::of(whole);
        let g = line.map_or(*whole, |line| line.flatten(whole));
        let (stride, dilation, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let units = g.ow.div_ceil(HALF);
        let ring = (g.kh - 1) * dilation / stride + 1;
        // Passes of equal size, as few as their tables allow.
        let quads = g.group_o().div_ceil(4);
        let quads = quads.div_ceil(quads.div_ceil((TABLES / ring).clamp(1, Four::WORD)));
        let margin = match line {
            Some(line) => whole.how.pad * (line.pitch + 1),
            None => pad.div_ceil(stride),
        };
        // Where column v of the filter brings column 0 of dy, from the margin's begin on.
        let place = |v: usize| match line {
            Some(line) => (v / whole.kw * line.pitch + v % whole.kw) * whole.how.dilation,
            // Column j of dy meets column j·stride + v·dilation - pad of dx.
            None => v * dilation + margin * stride - pad,
        };
        let pitch = units * HALF + (place(g.kw - 1) / stride).max(margin);
        let column = |v: usize| place(v) % stride * pitch + place(v) / stride;
        let mut stretches: Vec<Stretch> = Vec::new();
        let rows = (0..g.h).map(|y| Row::new(&g, y, ring, quads, &mut stretches)).collect();
        Plan {
            whole,
            line,
            scale,
            level: simd::level(),
            images: 1 + units % 2,
            units,
            quads,
            ring,
            pitch,
            margin,
            rows,
            columns: (0..g.kw).map(column).collect(),
            words: words(simd::level(), &g, w, quads, &stretches),
            stretches: stretches.len(),
            g,
        }
    }

    fn pairs(&self) -> usize {
        self.images * self.units / 2
    }

    /// The gradient to as many images from `n` on as are worked on together.
    pub fn write_images(&self, n: usize, dy: &[f32], dx: &mut [f32], finish: &impl Finish) {
        let c = self.g.group_c();
        for group in 0..self.g.how.groups {
            let dx = &mut dx[group * c * self.whole.h * self.whole.w..];
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
        let (g, level, stride) = (&self.g, self.level, self.g.how.stride);
        let tables = self.ring * self.quads;
        let (area, row) = (self.whole.h * self.whole.w, stride * self.pitch);
        let image = channels.len() * g.h * row;
        // Channels that make a piece which the first cache holds.
        let some = (1024 / area).max(1);
        self.with_images(n, group, dy, |images| {
            par::scratch(Four::floats(tables) + self.images * image, |scratch| {
                let (tables, sums) = Four::split(scratch, tables);
                sums.fill(0.0);
                // What is written at the end, and what is read next.
                let soon = [&*dx, self.following(n, dy)];
                walk(level, self, &images, group, channels.clone(), tables, sums, soon);
                let sums = sums.chunks_exact(image).zip(dx.chunks_mut(g.c * area));
                for (i, (sums, dx)) in sums.enumerate() {
                    let mut first = ((n + i) * g.c + group * g.group_c() + channels.start) * area;
                    let dx = dx[..channels.len() * area].chunks_mut(some * area);
                    for (sums, dx) in sums.chunks(some * g.h * row).zip(dx) {
                        self.gather(sums, dx);
                        finish(first, dx);
                        first += dx.len();
                    }
                }
            });
        });
    }

    /// Lends a group's channels of these images of `dy`, as the geometry has them.
    fn with_images(&self, n: usize, group: usize, dy: &[f32], f: impl FnOnce(Images<'_>)) {
        let (whole, o) = (self.whole, self.g.group_o());
        let many = self.images.min(whole.n - n);
        let area = whole.oh * whole.ow;
        let apart = whole.o * area;
        let dy = &dy[(n * whole.o + group * o) * area..];
        let Some(line) = self.line.filter(|line| line.pitch > whole.ow) else {
            return f(Images { dy, many, apart, area });
        };
        let spaced = whole.oh * line.pitch;
        par::scratch(many * o * spaced, |lines| {
            lines.fill(0.0);
            for (lines, dy) in lines.chunks_exact_mut(o * spaced).zip(dy.chunks(apart)) {
                let (from, to) = (Grid::dense(whole.ow), Grid::dense(line.pitch));
                planes::copy(self.level, [o * whole.oh, whole.ow], dy, from, lines, to);
            }
            f(Images { dy: lines, many, apart: o * spaced, area: spaced });
        });
    }

    /// `dy` of the images after these, unless they have several groups.
    fn following<'b>(&self, n: usize, dy: &'b [f32]) -> &'b [f32] {
        let (g, next) = (self.whole, n + self.images);
        let at = |n: usize| n.min(g.n) * g.o * g.oh * g.ow;
        if g.how.groups == 1 { &dy[at(next)..at(next + self.images)] } else { &[] }
    }

    /// Where in `dy` the units of a pair begin, in the first row of the first channel, and how many
    /// pixels they have: none beyond the last image.
    fn units(&self, images: &Images<'_>, pair: usize) -> [[usize; 2]; 2] {
        let units = [2 * pair, 2 * pair + 1].map(|unit| {
            let (image, column) = (unit / self.units, unit % self.units * HALF);
            let len = HALF.min(self.g.ow - column);
            if image < images.many { [image * images.apart + column, len] } else { [0, 0] }
        });
        [[units[0][0], units[1][0]], [units[0][1], units[1][1]]]
    }

    /// Takes rows of pixels out of the places where they were summed up.
    fn gather(&self, sums: &[f32], dx: &mut [f32]) {
        let (h, w, stride) = (self.whole.h, self.whole.w, self.whole.how.stride);
        let sums = &sums[self.margin..];
        if let Some(line) = self.line {
            for (dx, sums) in dx.chunks_exact_mut(h * w).zip(sums.chunks(self.pitch)) {
                if stride == 1 {
                    let (from, to) = (Grid::dense(line.pitch), Grid::dense(w));
                    planes::copy(self.level, [h, w], sums, from, dx, to);
                } else {
                    // A filter of a single tap: no pixel is seen twice, and some are never seen.
                    planes::spread(self.level, sums, line.pitch, stride, w, dx);
                }
            }
            return;
        }
        if stride == 1 {
            let (from, to) = (Grid::dense(self.pitch), Grid::dense(w));
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
    /// What row `y` of `dx` gathers, from rows of `dy` that take turns on `quads` tables each.
    fn new(g: &ConvGeom, y: usize, ring: usize, quads: usize, stretches: &mut Vec<Stretch>) -> Row {
        // Row i of dy meets row i·stride + u·dilation - pad of dx.
        let met = |u: usize| {
            let at = (y + g.how.pad).checked_sub(u * g.how.dilation)?;
            let i = at / g.how.stride;
            (at % g.how.stride == 0 && i < g.oh).then_some((i, u))
        };
        let met: Vec<_> = (0..g.kh).filter_map(met).collect();
        let mut turns: Vec<_> = met.iter().map(|&(i, u)| (i % ring, u)).collect();
        turns.sort_unstable();
        // Rows of few quads share words where their tables are neighbours.
        let together = Four::WORD / quads;
        let mut terms = Vec::new();
        for some in turns.chunk_by(|a, b| a.0 + 1 == b.0) {
            let equal = some.len().div_ceil(some.len().div_ceil(together));
            for some in some.chunks(equal) {
                let stretch = some.iter().map(|turn| turn.1).collect();
                let known = stretches.iter().position(|other| *other == stretch);
                let word = known.unwrap_or_else(|| {
                    stretches.push(stretch);
                    stretches.len() - 1
                }) * g.kw
                    * g.group_c();
                terms.push(Term { table: some[0].0 * quads, tables: some.len() * quads, word });
            }
        }
        Row { ready: met.iter().map(|(i, _)| i + 1).max().unwrap_or(0), terms }
    }
}

/// The signs of the filters for passes of `quads` quads.
fn words(level: Level, g: &ConvGeom, w: &Filters, quads: usize, stretches: &[Stretch]) -> Vec<u64> {
    let (taps, c) = (g.kh * g.kw, g.group_c());
    let row = g.kw * c;
    let passes = g.group_o().div_ceil(4 * quads);
    let mut words = vec![0u64; g.how.groups * passes * stretches.len() * row];
    par::chunks(&mut words, stretches.len() * row, |i, words| {
        let (group, pass) = (i / passes, i % passes);
        let size = c.div_ceil(4) * taps;
        let pairs = &w.pairs(group)[2 * quads * pass * size..];
        let many = (2 * quads).min(pairs.len() / size);
        let mut rows = vec![0; taps * c];
        gather_words(level, &pairs[..many * size], size, taps, c, &mut rows);
        for (words, stretch) in words.chunks_exact_mut(row).zip(stretches) {
            for (at, u) in stretch.iter().enumerate() {
                let from = rows[u * row..][..row].iter();
                words.iter_mut().zip(from).for_each(|(to, from)| *to |= from << (4 * quads * at));
            }
        }
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

/// Fills a table with `scale·dy` of four channels, `area` apart, in two units of so many pixels; zero
/// beyond them.
#[inline(always)]
fn fill<L: Lanes>(
    table: &mut Four,
    dy: &[f32],
    units: [usize; 2],
    lens: [usize; 2],
    area: usize,
    scale: &[f32; 4],
) {
    for (half, (at, len)) in units.into_iter().zip(lens).enumerate() {
        // Loops and not closures, which the compiler may leave outside of what is compiled for the level.
        let mut four = [L::splat(0.0); 4];
        for (o, four) in four.iter_mut().enumerate() {
            let dy = &dy[at + o * area..];
            *four = match dy.first_chunk() {
                Some(eight) => L::load(eight),
                None => L::load(&some(&dy[..len])),
            }
            .mul(L::splat(scale[o]));
        }
        if len < HALF {
            // What follows in memory are other pixels.
            for four in &mut four {
                *four = four.keep((1 << len) - 1);
            }
        }
        table.fill(half, |o| four[o]);
    }
}

/// The same for less than four channels.
#[inline(never)]
fn fill_partly(
    table: &mut Four,
    dy: &[f32],
    units: [usize; 2],
    lens: [usize; 2],
    area: usize,
    scale: &[f32],
) {
    for half in 0..2 {
        table.fill(half, |o| match scale.get(o) {
            Some(&scale) => Plain::load(&some(&dy[units[half] + o * area..][..lens[half]]))
                .mul(Plain::splat(scale)),
            None => Plain::splat(0.0),
        });
    }
}

/// Less than eight floats, and zeros.
#[inline(always)]
fn some(few: &[f32]) -> [f32; HALF] {
    let mut eight = [0.0; HALF];
    eight[..few.len()].copy_from_slice(few);
    eight
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
        images: &Images<'_>,
        group: usize,
        channels: Range<usize>,
        tables: &mut [Four],
        sums: &mut [f32],
        soon: [&[f32]; 2],
    ) {
        let (g, dy) = (&plan.g, images.dy);
        let (c, all, streams) = (g.group_c(), g.group_o().next_multiple_of(4), channels.len());
        let (pairs, passes) = (plan.pairs(), all.div_ceil(4 * plan.quads));
        let (row, area) = (g.how.stride * plan.pitch, images.area);
        let portions = passes * pairs * plan.rows.len() * plan.columns.len();
        let mut ahead = Ahead::new(soon.map(Memory::whole), portions);
        for pass in 0..passes {
            let o = pass * 4 * plan.quads;
            let words = &plan.words[(group * passes + pass) * plan.stretches * g.kw * c..];
            for pair in 0..pairs {
                let start = [2 * pair, 2 * pair + 1].map(|unit| {
                    unit / plan.units * streams * g.h * row + unit % plan.units * HALF
                });
                let [units, lens] = plan.units(images, pair);
                if lens == [0, 0] {
                    continue;
                }
                let mut ready = 0;
                for (y, gathers) in plan.rows.iter().enumerate() {
                    while ready < gathers.ready {
                        let slot = &mut tables[ready % plan.ring * plan.quads..][..plan.quads];
                        let scale = &plan.scale[group * g.group_o()..][..g.group_o()][o..];
                        // The last pass may have fewer quads; their signs meet zeros.
                        slot[scale.len().div_ceil(4).min(plan.quads)..].fill(Four::ZERO);
                        let tables = slot.iter_mut().zip(scale.chunks(4)).enumerate();
                        for (i, (table, scale)) in tables {
                            let units = units.map(|at| at + (o + 4 * i) * area + ready * g.ow);
                            match scale.first_chunk() {
                                #[cfg(target_arch = "x86_64")]
                                Some(scale) if FUSED => {
                                    fill::<Avx>(table, dy, units, lens, area, scale);
                                }
                                Some(scale) => {
                                    fill::<Plain>(table, dy, units, lens, area, scale);
                                }
                                None => fill_partly(table, dy, units, lens, area, scale),
                            }
                        }
                        ready += 1;
                    }
                    if gathers.terms.is_empty() {
                        continue;
                    }
                    for (v, place) in plan.columns.iter().enumerate() {
                        let words = &words[v * c + channels.start..];
                        let at = start.map(|at| at + y * row + place);
                        let target = Target { at, stride: g.h * row };
                        let terms = &gathers.terms;
                        ahead.fetch();
                        sums::add::<FUSED, 8, 16>(tables, words, terms, streams, sums, target);
                    }
                }
            }
        }
    }
}
