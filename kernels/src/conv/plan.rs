//! How a pass of direct convolution is cut up: which pixels are computed at a time, which rows of
//! the source they read, and with what filter taps.
//!
//! Work goes by chunks: a few small images, or a few rows of a large one. Their source, with its
//! padding, is copied into a slab that fits the second cache; from there on padding is no concern.
//! A slab is channels by images by rows by columns.

use super::dots::{OUTPUTS, TAPS};
use super::gather::{Row, Steps, index};
use super::lines::RUN;
use crate::geom::ConvGeom;
use crate::pages::LINE;
use crate::par::scratch;
use crate::planes::{Grid, copy, unweave};
use crate::simd::Level;
use std::ops::Range;

/// Outputs of a chunk, at most, unless a row of them is longer.
const PIXELS: usize = 1024;
/// Elements of a slab, at most, unless for [`FEW`] outputs.
const SLAB: usize = 3 << 15;
/// The same where a sum goes through all channels: more pages than these hold have no room among the
/// addresses that the processor remembers.
const SLAB_ACROSS: usize = SLAB / 2;
/// Elements of a source that is read in place, at most: of larger ones each channel is in a page of its own.
const IN_PLACE: usize = 3 << 15;
/// Outputs that filters are worth reading for.
const FEW: usize = 128;
/// Steps, about, after which a long sum rests in memory, lest its vectors fill the second cache.
const PART: usize = 2048;
/// The same for single taps, each of which reads lines of its own: the first cache is to hold them, and the
/// vectors, from one tile to the next.
const PART_OF_ONE_TAP: usize = 128;
/// Elements of the sums of the filters' gradient, at most, where each is eight lanes.
const SUMS: usize = 1 << 18;
/// Pixels of a panel.
const PANEL: usize = 2 * RUN;

/// A pass that computes planes of pixels from padded planes of another size.
#[derive(Debug)]
pub(super) struct Plan {
    /// Images in the batch; a group of an image counts as one.
    pub n: usize,
    /// Image `i` belongs to group `i` modulo these.
    pub groups: usize,
    source: Source,
    /// Outputs are `lanes` planes of `out_h` by `out_w`.
    pub lanes: usize,
    pub out_h: usize,
    pub out_w: usize,
    /// Images and rows of outputs in a chunk; more than one image only with all their rows.
    pub images: usize,
    pub rows: usize,
    /// The chunk of rows from `r` on reads padded rows from `r·down.0/down.1 + down.2` on.
    down: (usize, usize, usize),
    /// Elements between two padded rows, two images and two channels of a slab.
    pitch: usize,
    image: usize,
    pub plane: usize,
    /// Whether the slab is panels of [`PANEL`] pixels of all channels, since no pixel is seen by two
    /// taps: the order in which a tile reads them.
    pub panels: bool,
    /// Whether no slab is needed: the source itself is as good.
    pub in_place: bool,
    /// Outputs that see the same taps. Together they are all outputs.
    pub phases: Vec<Phase>,
}

/// The planes that a pass reads.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Channels of an image.
    channels: usize,
    h: usize,
    w: usize,
    /// Every how manieth row and column is ever read; the slab has only those.
    keep: usize,
    /// Into how many parts a row of the slab is cut, each of every so manieth column; 1 unless all are kept.
    split: usize,
    /// Rows and columns of padding before it.
    top: usize,
    left: usize,
}

/// Outputs of a chunk that see the same taps of the filter.
#[derive(Debug)]
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

impl Plan {
    /// `y` from `x`.
    pub(super) fn forward(g: &ConvGeom) -> Self {
        Plan::of_x(g, g.c, across(g))
    }

    /// What `channels` of the channels of `x` show to `dy`.
    pub(super) fn dw(g: &ConvGeom, channels: usize) -> Self {
        Plan::of_x(g, channels, SLAB)
    }

    /// Output `(i,j)` sees the taps at `(i·stride + u·dilation, j·stride + v·dilation)` of a padded
    /// plane. Each row of the slab has every `stride`-th column first, then those one further on, and so
    /// on, so that a tap shows neighbouring columns to neighbouring outputs.
    fn of_x(g: &ConvGeom, channels: usize, slab: usize) -> Self {
        let (d, pad) = (g.how.dilation, g.how.pad);
        // A filter of one tap sees only the pixels at multiples of the stride.
        let one = g.kh * g.kw == 1 && pad == 0;
        let (s, keep) = if one { (1, g.how.stride) } else { (g.how.stride, 1) };
        let source = Source { channels: g.c, h: g.h, w: g.w, keep, split: s, top: pad, left: pad };
        let slab_rows = |rows: usize| (rows - 1) * s + (g.kh - 1) * d + 1;
        let part = (g.w.div_ceil(keep) + 2 * pad).div_ceil(s);
        let pitch = s * part;
        let mut plan = Plan::cut(g.n, source, [g.o, g.oh, g.ow], 1, pitch, slab_rows, slab);
        plan.down = (s, 1, 0);
        let taps = (0..g.kh * g.kw).collect::<Vec<_>>();
        let place = |t: &usize| {
            let (p, q) = (t / g.kw * d, t % g.kw * d);
            p * pitch + q % s * part + q / s
        };
        let offsets = taps.iter().map(place).collect();
        let pixels = plan.pixels(|i| Some(i * s * pitch), Some);
        plan.phases = vec![Phase::new(taps, offsets, channels, plan.plane, pixels)];
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
        // The largest ⌊u·d / s⌋; where it exceeds m(0), the first pixels read padding.
        let (back_y, back_x) = ((g.kh - 1) * d / s, (g.kw - 1) * d / s);
        let before = |back: usize| back.saturating_sub(m(0));
        let first = |back: usize| m(0).saturating_sub(back);
        let (top, left) = (before(back_y), before(back_x));
        let source = Source { channels: g.o, h: g.oh, w: g.ow, keep: 1, split: 1, top, left };
        let slab_rows = |rows: usize| m(rows - 1) - m(0) + back_y + 1;
        let pitch = left + g.ow.max(m(g.w - 1) + 1);
        let mut plan = Plan::cut(g.n, source, [g.c, g.h, g.w], s, pitch, slab_rows, across(g));
        plan.down = (1, s, first(back_y));
        let phase = |(a, b): (usize, usize)| {
            let sees = |t: &usize| t / g.kw * d % s == a && t % g.kw * d % s == b;
            let taps = (0..g.kh * g.kw).filter(sees).collect::<Vec<_>>();
            let place = |t: &usize| {
                let (u, v) = (t / g.kw, t % g.kw);
                (back_y - u * d / s) * pitch + back_x - v * d / s
            };
            let offsets = taps.iter().map(place).collect();
            let pixels = plan.pixels(
                |p| ((p + pad) % s == a).then(|| (m(p) - m(0)) * pitch),
                |q| ((q + pad) % s == b).then(|| m(q) - m(0) + first(back_x)),
            );
            Phase::new(taps, offsets, g.o, plan.plane, pixels)
        };
        // In the order of their first pixels.
        plan.phases =
            (0..s * s).map(|at| phase(((at / s + pad) % s, (at % s + pad) % s))).collect();
        plan
    }

    /// The chunks of a plan, which have a multiple of `whole` rows, and their slab.
    fn cut(
        n: usize,
        source: Source,
        [lanes, out_h, out_w]: [usize; 3],
        whole: usize,
        pitch: usize,
        slab_rows: impl Fn(usize) -> usize,
        slab: usize,
    ) -> Self {
        let elements = |rows: usize| source.channels * slab_rows(rows) * pitch;
        let rows_of = |chunks: usize| out_h.div_ceil(chunks).next_multiple_of(whole).min(out_h);
        let fits = |rows: usize| {
            let pixels = rows * out_w;
            pixels <= PIXELS && (elements(rows) <= slab || pixels <= FEW)
        };
        let most = out_h.div_ceil(whole);
        let rows = (1..most).map(rows_of).find(|&rows| fits(rows)).unwrap_or(rows_of(most));
        let image = slab_rows(rows) * pitch;
        let fit = (PIXELS / (rows * out_w)).min(slab / elements(rows)).clamp(1, n);
        let images = if rows == out_h { fit } else { 1 };
        // An odd number of cache lines, so that the planes spread over all sets of the cache.
        let plane = (images * image).div_ceil(LINE) | 1;
        Plan {
            n,
            groups: 1,
            source,
            lanes,
            out_h,
            out_w,
            images,
            rows,
            down: (1, 1, 0),
            pitch,
            image,
            plane: plane * LINE,
            panels: false,
            in_place: false,
            phases: Vec::new(),
        }
    }

    /// A row for each output of a chunk whose row and column are known to lie somewhere in an image
    /// of the slab.
    fn pixels(
        &self,
        row: impl Fn(usize) -> Option<usize>,
        col: impl Fn(usize) -> Option<usize>,
    ) -> Vec<Row> {
        let known = |i: usize, place: Option<usize>| place.map(|place| (i, place));
        let rows: Vec<_> = (0..self.rows).filter_map(|i| known(i, row(i))).collect();
        let cols: Vec<_> = (0..self.out_w).filter_map(|j| known(j, col(j))).collect();
        let mut pixels = Vec::with_capacity(self.images * rows.len() * cols.len());
        for image in 0..self.images {
            for (i, row) in &rows {
                let (base, slot) = (image * self.image + row, (image * self.rows + i) * self.out_w);
                pixels.extend(
                    cols.iter()
                        .map(|(j, col)| Row { base: index(base + col), slot: index(slot + j) }),
                );
            }
        }
        pixels
    }

    /// The same for all groups and images of `g`, where it was made for one of them.
    pub(super) fn of(self, g: &ConvGeom) -> Self {
        Plan { n: g.n * g.how.groups, groups: g.how.groups, ..self }
    }

    /// The same for filters of a single tap, which need no slab, or one of panels.
    pub(super) fn of_one_tap(mut self) -> Self {
        let Source { channels, h, w, keep, top, .. } = self.source;
        let flat = self.pitch == self.out_w && top == 0;
        let one_tap = matches!(&self.phases[..], [phase] if phase.offsets[..] == [0]);
        if !flat || !one_tap {
            return self;
        }
        if keep == 1 && channels * h * w <= IN_PLACE && !(h * w).is_multiple_of(8 * LINE) {
            self.in_place = true;
            (self.plane, self.image) = (h * w, channels * h * w);
            let pixels = self.pixels(|i| Some(i * w), Some);
            self.phases = vec![Phase::new(vec![0], vec![0], channels, h * w, pixels)];
        } else if self.shortest_line() >= PANEL && self.by_runs() {
            (self.panels, self.plane) = (true, PANEL);
            self.image = self.line().div_ceil(PANEL) * self.panel();
            self.phases = vec![Phase::new(vec![0], vec![0], channels, PANEL, vec![])];
        }
        self
    }

    /// Elements between two panels: an odd number of cache lines, as between planes.
    fn panel(&self) -> usize {
        (self.source.channels | 1) * PANEL
    }

    /// Whether outputs side by side see pixels side by side.
    fn neighbours(&self) -> bool {
        let [phase] = &self.phases[..] else { return false };
        phase.pixels.get(1).is_some_and(|one| one.base == phase.pixels[0].base + 1)
    }

    /// Whether runs of neighbouring pixels are quicker than single pixels of many channels side by
    /// side.
    pub(super) fn by_runs(&self) -> bool {
        // What an output costs beside its sum, in steps; the lanes that hold no channel and the
        // pixels that two runs share come on top.
        const BY_RUNS: usize = 5;
        const BY_PHASES: usize = 13;
        const BY_CHANNELS: usize = 17;
        if let [phase] = &self.phases[..] {
            let (line, steps) = (self.line(), phase.steps().len());
            // Filters and pixels of a tile, where there are many of both, crowd the first cache.
            let crowded = steps > 512 && phase.offsets.len() > 1;
            let steps_by_runs = if crowded { steps + steps / 16 } else { steps };
            let by_runs = (steps_by_runs + BY_RUNS) * self.lanes * line.next_multiple_of(RUN);
            let by_channels = (steps + BY_CHANNELS) * self.lanes.next_multiple_of(8) * line;
            let runs = self.neighbours() && self.shortest_line() >= RUN;
            return self.panels || runs && by_runs <= by_channels;
        }
        // Phases of every second column, woven together as they are stored. They are as large, but for a
        // row.
        let two = self.down.1 == 2 && self.out_w.is_multiple_of(2);
        let (cols, phases) = (self.out_w / 2, self.phases.len());
        let steps = self.phases.iter().map(|phase| phase.steps().len()).sum::<usize>();
        let by_runs = (steps + phases * BY_PHASES) * self.lanes * cols.next_multiple_of(RUN);
        let by_channels = (steps + phases * BY_CHANNELS) * self.lanes.next_multiple_of(8) * cols;
        two && cols >= PANEL && by_runs <= by_channels
    }

    /// Whether the filters' gradient is quicker with pixels as the lanes than with channels: `dy` need not be
    /// turned first, which counts where it meets few taps, and no lanes are left without a channel.
    pub(super) fn by_dots(&self, g: &ConvGeom) -> bool {
        // What turning `dy` costs, in steps.
        const TURN: usize = 6;
        let (o, k) = (g.group_o(), g.taps());
        // Vectors multiplied for a pixel, times 32. The six sums of half a block wait for one another.
        let last = match o % 16 {
            0 => 0,
            1..=8 => 43,
            _ => 64,
        };
        let by_channels = (o / 16 * 64 + last) * (k + TURN);
        let by_dots = 51 * o.div_ceil(OUTPUTS) * k.div_ceil(TAPS);
        let whole = [self.line(), self.shortest_line()].iter().all(|line| line.is_multiple_of(RUN));
        // Taps side by side see pixels that lie side by side, and so are mostly in the first cache.
        let near = g.kw > 1 && g.how.stride == 1;
        near && whole && o * k * RUN <= SUMS && by_dots <= by_channels
    }

    /// Neighbouring pixels of a full chunk: a row, or all of an image where there is no padding
    /// between rows.
    fn line(&self) -> usize {
        if self.pitch == self.out_w { self.rows * self.out_w } else { self.out_w }
    }

    /// The same of the last chunk of an image, which may have fewer rows.
    fn shortest_line(&self) -> usize {
        let rows = (self.out_h - 1) % self.rows + 1;
        if self.pitch == self.out_w { rows * self.out_w } else { self.out_w }
    }

    /// Runs of each phase, of a full chunk and of the last of an image.
    pub(super) fn all_runs(&self) -> [Vec<Vec<Row>>; 2] {
        let last = (self.out_h - 1) % self.rows + 1;
        [(self.images, self.rows), (1, last)]
            .map(|(images, rows)| self.runs(images, rows * self.out_w))
    }

    /// The outputs of a chunk by runs for each phase. Where there are several phases, those of even columns
    /// have their runs end to end, and those of odd ones their slots where these come in between.
    fn runs(&self, images: usize, pixels: usize) -> Vec<Vec<Row>> {
        if self.panels {
            return vec![self.runs_of_panels(images, pixels)];
        }
        // Where an output of a full chunk lies among the images.
        let slot = |at: usize| {
            let full = self.rows * self.out_w;
            at / full * self.lanes * self.out_h * self.out_w + at % full
        };
        let [phase] = &self.phases[..] else {
            let cols = self.out_w / 2;
            let runs = |(at, phase): (usize, &Phase)| {
                let pixels = phase.pixels(images * pixels);
                let places = |first| starts(cols, RUN).map(move |j| first + j);
                let places = (0..pixels.len()).step_by(cols).flat_map(places);
                let run = |(run, place): (usize, usize)| {
                    let Row { base, slot: odd } = pixels[place];
                    let slot = if at % 2 == 0 { run * RUN } else { slot(odd as usize - 1) };
                    Row { base, slot: index(slot) }
                };
                places.enumerate().map(run).collect()
            };
            return self.phases.iter().enumerate().map(runs).collect();
        };
        let line = self.line().min(pixels);
        let mut runs = Vec::new();
        for image in 0..images {
            for first in (0..pixels).step_by(line) {
                let places = starts(line, RUN).map(|j| image * self.rows * self.out_w + first + j);
                runs.extend(
                    places.map(|at| Row { base: phase.pixels[at].base, slot: index(slot(at)) }),
                );
            }
        }
        vec![runs]
    }

    /// [`runs`](Plan::runs) of panels.
    fn runs_of_panels(&self, images: usize, pixels: usize) -> Vec<Row> {
        let line = self.line().min(pixels);
        let mut runs = Vec::new();
        for image in 0..images {
            for (panel, at) in starts(line, PANEL).enumerate() {
                let slot = image * self.lanes * self.out_h * self.out_w + at;
                let base = image * self.image + panel * self.panel();
                let run = |i: usize| Row { base: index(base + i), slot: index(slot + i) };
                // The last panel may show the pixels of its first run again.
                let again = panel * PANEL - at;
                runs.extend((again < RUN).then(|| run(0)).into_iter().chain([run(RUN)]));
            }
        }
        runs
    }

    /// Bytes of memory that its tables hold.
    pub(super) fn bytes(&self) -> usize {
        self.phases.iter().map(Phase::bytes).sum()
    }

    /// Elements between two images of the source.
    pub(super) fn source_len(&self) -> usize {
        self.source.channels * self.source.h * self.source.w
    }

    /// Elements of a slab of all channels.
    pub(super) fn slab_len(&self) -> usize {
        match (self.in_place, self.panels) {
            (true, _) => 0,
            (_, true) => self.images * self.image,
            _ => self.source.channels * self.plane,
        }
    }

    /// Outputs of a full chunk.
    pub(super) fn chunk_len(&self) -> usize {
        self.images * self.rows * self.out_w
    }

    /// Fills a slab, which was all zeros at first, for the outputs from row `r` on of `images`
    /// images: with as many channels as it has planes, the first of which starts in `source`.
    pub(super) fn fill(
        &self,
        level: Level,
        source: &[f32],
        images: usize,
        r: usize,
        slab: &mut [f32],
    ) {
        let Source { h, w, keep, split, top, left, .. } = self.source;
        if self.panels {
            return self.fill_panels(level, source, images, r, slab);
        }
        let (kept_h, kept_w) = (h.div_ceil(keep), w.div_ceil(keep));
        // Rows of the slab that show the source; those above and below are padding.
        let first = r * self.down.0 / self.down.1 + self.down.2;
        let rows = self.image / self.pitch;
        let start = top.saturating_sub(first).min(rows);
        let end = (top + kept_h).saturating_sub(first).clamp(start, rows);
        let shown = (first + start).saturating_sub(top) * keep * w;
        for image in 0..images {
            let planes = source[image * self.source_len()..].chunks_exact(h * w);
            for (slab, plane) in slab.chunks_exact_mut(self.plane).zip(planes) {
                let slab = &mut slab[image * self.image..][..self.image];
                slab[..start * self.pitch].fill(0.0);
                slab[end * self.pitch..].fill(0.0);
                if start == end {
                    continue;
                }
                // Where the columns of each part go, which are every `split`-th.
                let place =
                    |q: usize| (left + q) % split * (self.pitch / split) + (left + q) / split;
                let (slab, rows) = (&mut slab[start * self.pitch..], end - start);
                // Both parts in one pass over the plane.
                if split == 2 {
                    let at = [place(0), place(1)];
                    unweave(level, [rows, w], &plane[shown..], w, slab, self.pitch, at);
                    continue;
                }
                for q in 0..split.min(kept_w) {
                    let from = Grid { stride: keep * w, step: keep * split };
                    let (to, cols) = (Grid::dense(self.pitch), (kept_w - q).div_ceil(split));
                    let plane = &plane[shown + q * keep..];
                    copy(level, [rows, cols], plane, from, &mut slab[place(q)..], to);
                }
            }
        }
    }

    /// The same where the slab is panels.
    fn fill_panels(&self, level: Level, source: &[f32], images: usize, r: usize, slab: &mut [f32]) {
        let Source { h, w, keep, channels, .. } = self.source;
        let rows = self.rows.min(self.out_h - r);
        let pixels = rows * self.out_w;
        scratch(pixels, |kept| {
            for image in 0..images {
                let planes = source[image * self.source_len()..].chunks_exact(h * w);
                for (c, plane) in planes.take(channels).enumerate() {
                    let plane = &plane[r * keep * w..];
                    let line = if keep == 1 {
                        &plane[..pixels]
                    } else {
                        let from = Grid { stride: keep * w, step: keep };
                        let to = Grid::dense(self.out_w);
                        copy(level, [rows, self.out_w], plane, from, kept, to);
                        &*kept
                    };
                    let slab = &mut slab[image * self.image + c * PANEL..];
                    for (panel, at) in starts(pixels, PANEL).enumerate() {
                        slab[panel * self.panel()..][..PANEL].copy_from_slice(&line[at..][..PANEL]);
                    }
                }
            }
        });
    }
}

/// Elements of a slab, at most, where sums go through all channels; panels lie together.
fn across(g: &ConvGeom) -> usize {
    if g.kh * g.kw == 1 { SLAB } else { SLAB_ACROSS }
}

/// Where pieces of `size` start that cover a line: where they do not divide it, the last overlaps
/// the one before.
fn starts(line: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..line.div_ceil(size)).map(move |at| (at * size).min(line - size))
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
        const LONGEST: usize = 128;
        let fits = |n: &usize| channels.is_multiple_of(*n) && n * taps.len() <= LONGEST;
        let together = (1..=channels.min(LONGEST)).rev().find(fits).unwrap_or(1);
        let table = (0..together).flat_map(|c| offsets.iter().map(move |at| index(c * plane + at)));
        let (table, repeats) = (table.collect(), channels / together);
        Phase { taps, table, repeats, advance: together * plane, offsets, pixels }
    }

    fn bytes(&self) -> usize {
        let places = size_of_val(&self.taps[..]) + size_of_val(&self.offsets[..]);
        places + size_of_val(&self.table[..]) + size_of_val(&self.pixels[..])
    }

    /// The taps of one channel after the other.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps { table: &self.table, repeats: self.repeats, advance: self.advance }
    }

    /// The same in parts of about [`PART`] steps, or [`PART_OF_ONE_TAP`], and where in the slab each part starts.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, Steps<'_>)> {
        let all = self.steps();
        let part = if self.offsets.len() == 1 { PART_OF_ONE_TAP } else { PART };
        let parts = all.len().div_ceil(part).max(1);
        let each = all.repeats.div_ceil(parts).max(1);
        (0..all.repeats).step_by(each).map(move |first| {
            let repeats = each.min(all.repeats - first);
            (first * all.advance, Steps { repeats, ..all })
        })
    }

    /// The pixels among the first `many` outputs of a chunk.
    pub(super) fn pixels(&self, many: usize) -> &[Row] {
        &self.pixels[..self.pixels.partition_point(|pixel| (pixel.slot as usize) < many)]
    }

    /// The taps `which`, counted over the channels of planes `plane` apart, as rows, not as steps.
    pub(super) fn tap_rows(&self, which: Range<usize>, plane: usize) -> Vec<Row> {
        let taps = self.offsets.len();
        let base = |at: usize| index(at / taps * plane + self.offsets[at % taps]);
        which.clone().map(|at| Row { base: base(at), slot: index(at - which.start) }).collect()
    }
}
