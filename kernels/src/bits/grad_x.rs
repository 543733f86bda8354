//! The gradient to a +-1 image: signed sums of `dy` over four output channels, lanes of pixels.

use super::pack::Filters;
use super::sums::{self, HALF, LANES, TABLES, Table, Target, Term};
use crate::simd::{self, Level, per_level};
use crate::{ConvGeom, par};

struct Plan<'a> {
    g: &'a ConvGeom,
    level: Level,
    /// Images worked on together, so that units of a row come in pairs.
    images: usize,
    pairs: usize,
    /// Tables of one row of `dy`: quads of output channels.
    quads: usize,
    /// Rows of `dy` that one row of `dx` needs at once.
    ring: usize,
    /// Floats of a row of one phase, and what precedes the first pixel.
    pitch: usize,
    margin: usize,
    /// For each row of `dx`, what it gathers.
    rows: Vec<Row>,
    /// For each column of the filter, where its pixels go in the phases of a row.
    columns: Vec<usize>,
    /// `[groups][passes][KH][KW][C/groups]`
    words: Vec<u64>,
}

/// What a row of `dx` gathers.
struct Row {
    /// Rows of `dy` that have to have tables.
    ready: usize,
    /// The tables of each row of `dy` that a row of the filter brings here, and that row's words.
    terms: Vec<Term>,
}

/// Whether tables are used often enough to pay for making them, and lanes are not mostly idle.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.taps() >= 12 && g.group_o() >= 3 && g.ow >= 3
}

/// As [`super::conv2d_dx`], for a geometry that [`suits`].
pub(super) fn dx(g: &ConvGeom, w: &Filters, dy: &[f32], dx: &mut [f32]) {
    let how = g.how;
    let units = g.ow.div_ceil(HALF);
    let ring = (g.kh - 1) * how.dilation / how.stride + 1;
    let all = g.group_o().div_ceil(4);
    let quads = all.div_ceil(all.div_ceil((TABLES / ring).max(1)));
    let margin = how.pad.div_ceil(how.stride);
    let reach = ((g.kw - 1) * how.dilation).saturating_sub(how.pad) / how.stride;
    let row = |y: usize| {
        // Rows i of dy with i·stride + u·dilation - pad = y.
        let meets = |u: usize| {
            let at = (y + how.pad).checked_sub(u * how.dilation)?;
            let i = at / how.stride;
            (at % how.stride == 0 && i < g.oh).then_some((i, u))
        };
        let rows = (0..g.kh).filter_map(meets);
        Row {
            ready: rows.clone().map(|(i, _)| i + 1).max().unwrap_or(0),
            terms: rows.map(|(i, u)| [i % ring * quads, u * g.kw * g.group_c()]).collect(),
        }
    };
    // Column j of dy meets column j·stride + v·dilation - pad: its phase, and its place in there.
    let pitch = margin + units * HALF + reach;
    let column = |v: usize| {
        let at = v * how.dilation + margin * how.stride - how.pad;
        at % how.stride * pitch + at / how.stride
    };
    let plan = Plan {
        rows: (0..g.h).map(row).collect(),
        columns: (0..g.kw).map(column).collect(),
        g,
        level: simd::level(),
        images: 1 + units % 2,
        pairs: (1 + units % 2) * units / 2,
        quads,
        ring,
        pitch,
        margin,
        words: words(g, w, quads),
    };
    let area = g.h * g.w;
    let block = g.group_c().div_ceil(par::threads().div_ceil(g.n));
    par::chunks(dx, plan.images * g.c * area, |i, dx| {
        let n = i * plan.images;
        for group in 0..how.groups {
            if plan.images == 1 {
                let dx = &mut dx[group * g.group_c() * area..][..g.group_c() * area];
                par::chunks(dx, block * area, |i, dx| {
                    plan.part(n, group, i * block, dx.len() / area, dy, dx)
                });
            } else {
                plan.part(n, group, 0, g.group_c(), dy, dx);
            }
        }
    });
}

/// The signs of the filters, a nibble for four output channels: `[groups][passes][KH][KW][C/groups]`.
fn words(g: &ConvGeom, w: &Filters, quads: usize) -> Vec<u64> {
    let (taps, c) = (g.kh * g.kw, g.group_c());
    let passes = g.group_o().div_ceil(4 * quads);
    let mut words = vec![0u64; g.how.groups * passes * taps * c];
    par::chunks(&mut words, taps * c, |i, words| {
        let (group, pass) = (i / passes, i % passes);
        let pairs = w.pairs(group).chunks_exact(c.div_ceil(4) * taps);
        for (j, pair) in pairs.skip(2 * quads * pass).take(2 * quads).enumerate() {
            for (k, &byte) in pair.iter().enumerate() {
                let (tap, first) = (k % taps, k / taps * 4);
                for (b, word) in words[tap * c..][..c][first..].iter_mut().take(4).enumerate() {
                    let both = byte >> b & 1 | byte >> (b + 3) & 2;
                    *word |= u64::from(both) << (2 * j);
                }
            }
        }
    });
    words
}

impl Plan<'_> {
    /// The gradient to `channels` channels from `c` on, of the images from `n` on.
    fn part(&self, n: usize, group: usize, c: usize, channels: usize, dy: &[f32], dx: &mut [f32]) {
        let (g, s) = (self.g, self.g.how.stride);
        let image = channels * g.h * s * self.pitch;
        let lanes = g.oh * self.pairs * g.group_o().next_multiple_of(4);
        par::scratch(lanes * LANES + self.images * image, |scratch| {
            let (lanes, sums) = scratch.split_at_mut(lanes * LANES);
            let lanes = lanes.as_chunks_mut().0;
            self.lay_out(n, group, dy, lanes);
            sums.fill(0.0);
            walk(self.level, self, group, c, channels, lanes, sums);
            let area = g.h * g.w;
            for b in 0..self.images.min(g.n - n) {
                let first =
                    if self.images == 1 { 0 } else { (b * g.c + group * g.group_c()) * area };
                let dx = &mut dx[first..][..channels * area];
                let rows = sums[b * image..].chunks_exact(s * self.pitch);
                for (dx, row) in dx.chunks_exact_mut(g.w).zip(rows) {
                    if s == 1 {
                        dx.copy_from_slice(&row[self.margin..][..g.w]);
                        continue;
                    }
                    for (phase, row) in row.chunks_exact(self.pitch).enumerate().take(g.w) {
                        let dx = dx[phase..].iter_mut().step_by(s);
                        dx.zip(&row[self.margin..]).for_each(|(dx, x)| *dx = *x);
                    }
                }
            }
        });
    }

    /// `dy` of one group in pairs of units, `[OH][pairs][O/groups][LANES]`, zero where there is none.
    fn lay_out(&self, n: usize, group: usize, dy: &[f32], lanes: &mut [[f32; LANES]]) {
        let g = self.g;
        let channels = g.group_o().next_multiple_of(4);
        let units = g.ow.div_ceil(HALF);
        let images = self.images.min(g.n - n);
        if channels > g.group_o() || !g.ow.is_multiple_of(HALF) || images < self.images {
            lanes.as_flattened_mut().fill(0.0);
        }
        for image in 0..images {
            for o in 0..g.group_o() {
                let plane = ((n + image) * g.o + group * g.group_o() + o) * g.oh * g.ow;
                let rows = dy[plane..][..g.oh * g.ow].chunks_exact(g.ow);
                for (i, row) in rows.enumerate() {
                    for (unit, dy) in row.chunks(HALF).enumerate() {
                        let (pair, half) = ((image * units + unit) / 2, (image * units + unit) % 2);
                        let lanes = &mut lanes[(i * self.pairs + pair) * channels + o];
                        let lanes = &mut lanes[half * HALF..][..HALF];
                        match dy.first_chunk::<HALF>() {
                            Some(dy) => lanes.copy_from_slice(dy),
                            None => lanes[..dy.len()].copy_from_slice(dy),
                        }
                    }
                }
            }
        }
    }
}

per_level! {
    fn walk[](
        plan: &Plan<'_>,
        group: usize,
        c: usize,
        channels: usize,
        dy: &[[f32; LANES]],
        dx: &mut [f32],
    ) {
        let g = plan.g;
        let (s, taps, all) = (g.how.stride, g.kh * g.kw, g.group_o().next_multiple_of(4));
        let units = g.ow.div_ceil(HALF);
        let plane = g.h * s * plan.pitch;
        let passes = g.group_o().div_ceil(4 * plan.quads);
        let mut tables = vec![Table::ZERO; plan.ring * plan.quads];
        for pass in 0..passes {
            let o = pass * 4 * plan.quads;
            let quads = plan.quads.min((g.group_o() - o).div_ceil(4));
            let words = &plan.words[(group * passes + pass) * taps * g.group_c() + c..];
            for pair in 0..plan.pairs {
                let start = [2 * pair, 2 * pair + 1]
                    .map(|unit| unit / units * channels * plane + unit % units * HALF);
                let mut ready = 0;
                for (y, row) in plan.rows.iter().enumerate() {
                    while ready < row.ready {
                        let lanes = dy[(ready * plan.pairs + pair) * all + o..].as_chunks::<4>().0;
                        let slot = &mut tables[ready % plan.ring * plan.quads..][..quads];
                        for (table, lanes) in slot.iter_mut().zip(lanes) {
                            table.fill(lanes);
                        }
                        ready += 1;
                    }
                    for (v, place) in plan.columns.iter().enumerate() {
                        let place = y * s * plan.pitch + place;
                        let target = Target { at: start.map(|at| at + place), stride: plane };
                        let words = &words[v * g.group_c()..];
                        sums::add::<FUSED>(&tables, words, &row.terms, quads, channels, dx, target);
                    }
                }
            }
        }
    }
}
