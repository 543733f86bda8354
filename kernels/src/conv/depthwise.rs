//! Convolution where each channel has filters of its own and sees no other channel.
//!
//! Nothing is shared between channels, so it goes plane by plane. A plane is copied with its padding
//! into a slab, where the pixels that one tap shows to all outputs are contiguous; so the outputs of
//! a whole plane are one line, rows end to end, to which each tap adds a piece of the slab times a
//! number. The ends of the line's rows, where taps see beyond the row, are dropped in the end.

use super::copy::{Grid, copy};
use crate::geom::ConvGeom;
use crate::par::{GRAIN, chunks, scratch};
use crate::simd::{Level, level, mul_add, per_level};

/// Pixels of a line that are computed together.
const STRIP: usize = 32;

/// Whether these kernels know the geometry.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.is_depthwise()
}

/// What a tap adds to a line: a piece of the slab, from `place` on, times `w[tap]`.
struct Term {
    tap: usize,
    place: usize,
}

pub(super) fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (level, slabs) = (level(), Slab::of_x(g));
    let (hw, ohw, taps) = (g.h * g.w, g.oh * g.ow, g.taps());
    let terms = slabs.taps(g).enumerate().map(|(tap, place)| Term { tap, place });
    let terms: Vec<_> = terms.collect();
    each_plane(y, ohw, slabs.len, slabs.line(g.oh, g.ow), |at, y, slab, line| {
        // An output plane counts over images and outputs; its input plane over images and channels.
        slabs.fill(level, &x[at / g.group_o() * hw..][..hw], slab);
        correlate(level, slab, &w[at % g.o * taps..][..taps], &terms, line);
        copy(level, [g.oh, g.ow], line, slabs.grid(), y, Grid { stride: g.ow, step: 1 });
    });
}

pub(super) fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (level, slabs, phases) = (level(), Slab::of_dy(g), Phase::all(g));
    let (hw, ohw, taps, filters) = (g.h * g.w, g.oh * g.ow, g.taps(), g.group_o());
    let (line, to) =
        (slabs.line(g.h, g.w), Grid { stride: g.how.stride * g.w, step: g.how.stride });
    each_plane(dx, hw, filters * slabs.len, line, |at, dx, slab, line| {
        for (filter, slab) in slab.chunks_exact_mut(slabs.len).enumerate() {
            slabs.fill(level, &dy[(at * filters + filter) * ohw..][..ohw], slab);
        }
        let w = &w[at % g.c * filters * taps..][..filters * taps];
        for phase in &phases {
            let line = &mut line[..slabs.line(phase.size[0], phase.size[1])];
            correlate(level, slab, w, &phase.terms, line);
            copy(level, phase.size, line, slabs.grid(), &mut dx[phase.first..], to);
        }
    });
}

/// Pixels of `x` that are reached by the same taps: every stride-th in both axes.
///
/// Which output a tap spreads to which pixel is told at [`Plan::dx`](super::plan::Plan::dx).
struct Phase {
    /// Place of the first pixel, and how many rows and columns follow it.
    first: usize,
    size: [usize; 2],
    /// What they get from the slabs of `dy`, one after the other for each filter of the channel.
    terms: Vec<Term>,
}

impl Phase {
    fn all(g: &ConvGeom) -> Vec<Phase> {
        let (s, d, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let slabs = Slab::of_dy(g);
        let starts = |size: usize| 0..s.min(size);
        let mut phases = Vec::new();
        for p in starts(g.h) {
            for q in starts(g.w) {
                let term = |tap: usize| {
                    let (filter, u, v) = (tap / g.taps(), tap % g.taps() / g.kw, tap % g.kw);
                    let seen = u * d % s == (p + pad) % s && v * d % s == (q + pad) % s;
                    seen.then(|| {
                        let row = (p + pad) / s + slabs.top - u * d / s;
                        let col = (q + pad) / s + slabs.left - v * d / s;
                        Term { tap, place: filter * slabs.len + row * slabs.pitch + col }
                    })
                };
                phases.push(Phase {
                    first: p * g.w + q,
                    size: [(g.h - p).div_ceil(s), (g.w - q).div_ceil(s)],
                    terms: (0..g.group_o() * g.taps()).filter_map(term).collect(),
                });
            }
        }
        phases
    }
}

pub(super) fn dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (level, slabs) = (level(), Slab::of_x(g));
    let (hw, ohw, taps) = (g.h * g.w, g.oh * g.ow, g.taps());
    let places: Vec<usize> = slabs.taps(g).collect();
    chunks(dw, taps, |o, dw| {
        scratch(slabs.len + slabs.line(g.oh, g.ow), |buffer| {
            buffer.fill(0.0);
            let (slab, line) = buffer.split_at_mut(slabs.len);
            let mut sums = vec![0f64; taps];
            for n in 0..g.n {
                slabs.fill(level, &x[(n * g.c + o / g.group_o()) * hw..][..hw], slab);
                let dy = &dy[(n * g.o + o) * ohw..][..ohw];
                let from = Grid { stride: g.ow, step: 1 };
                copy(level, [g.oh, g.ow], dy, from, line, slabs.grid());
                add_dots(level, slab, &places, line, &mut sums);
            }
            dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = sum as f32);
        });
    });
}

/// `f(plane, out[plane], slab, line)` for each plane of `out`, with a slab that was all zeros before
/// the first of several planes, and a line of anything.
fn each_plane(
    out: &mut [f32],
    size: usize,
    slab: usize,
    line: usize,
    f: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    let planes = (GRAIN / size).max(1);
    chunks(out, planes * size, |at, out| {
        scratch(slab + line, |buffer| {
            let (slab, line) = buffer.split_at_mut(slab);
            slab.fill(0.0);
            for (i, out) in out.chunks_exact_mut(size).enumerate() {
                f(at * planes + i, out, slab, line);
            }
        });
    });
}

/// How a plane lies in its slab: with padding, and cut into `split` by `split` smaller planes, each
/// of every `split`-th row and column.
struct Slab {
    h: usize,
    w: usize,
    /// Padding above and to the left.
    top: usize,
    left: usize,
    split: usize,
    /// Rows of a smaller plane, and elements of each.
    rows: usize,
    pitch: usize,
    /// Elements of the slab, with a strip to spare at its end.
    len: usize,
}

impl Slab {
    /// Planes of `x`, for the taps at the multiples of a stride.
    fn of_x(g: &ConvGeom) -> Slab {
        let (pad, split) = (g.how.pad, g.how.stride);
        let (rows, pitch) = ((g.h + 2 * pad).div_ceil(split), (g.w + 2 * pad).div_ceil(split));
        let len = split * split * rows * pitch + STRIP;
        Slab { h: g.h, w: g.w, top: pad, left: pad, split, rows, pitch, len }
    }

    /// Planes of `dy`, with as much padding as the pixels of `x` may look for.
    fn of_dy(g: &ConvGeom) -> Slab {
        let (s, d, pad) = (g.how.stride, g.how.dilation, g.how.pad);
        let before = |k: usize| ((k - 1) * d / s).saturating_sub(pad / s);
        let after = |size: usize, out: usize| out.max((size - 1 + pad) / s + 1);
        let (top, left) = (before(g.kh), before(g.kw));
        let (rows, pitch) = (top + after(g.h, g.oh), left + after(g.w, g.ow));
        Slab { h: g.oh, w: g.ow, top, left, split: 1, rows, pitch, len: rows * pitch + STRIP }
    }

    /// Where the taps of the filter find what they show to the first output.
    fn taps(&self, g: &ConvGeom) -> impl Iterator<Item = usize> {
        let (d, s) = (g.how.dilation, self.split);
        (0..g.kh * g.kw).map(move |tap| {
            let (p, q) = (tap / g.kw * d, tap % g.kw * d);
            ((p % s * s + q % s) * self.rows + p / s) * self.pitch + q / s
        })
    }

    /// Elements of a line that holds `rows` by `cols` outputs.
    fn line(&self, rows: usize, cols: usize) -> usize {
        ((rows - 1) * self.pitch + cols).next_multiple_of(STRIP)
    }

    /// How outputs lie in a line.
    fn grid(&self) -> Grid {
        Grid { stride: self.pitch, step: 1 }
    }

    /// Copies a plane into a slab that was all zeros before its first plane.
    fn fill(&self, level: Level, plane: &[f32], slab: &mut [f32]) {
        let s = self.split;
        // Of the padded rows (or columns) a, a + s, …: how many are padding, the first that is
        // not, and how many there are from it on.
        let part = |a: usize, before: usize, size: usize| {
            let padding = before.saturating_sub(a).div_ceil(s);
            let first = a + padding * s - before;
            (padding, first, size.saturating_sub(first).div_ceil(s))
        };
        for a in 0..s {
            for b in 0..s {
                let ((top, p, rows), (left, q, cols)) =
                    (part(a, self.top, self.h), part(b, self.left, self.w));
                if rows > 0 && cols > 0 {
                    let slab = &mut slab[((a * s + b) * self.rows + top) * self.pitch + left..];
                    let from = Grid { stride: s * self.w, step: s };
                    copy(level, [rows, cols], &plane[p * self.w + q..], from, slab, self.grid());
                }
            }
        }
    }
}

per_level! {
    /// `line[i] = Σ w[tap] · slab[i + place]` over the terms.
    fn correlate[](slab: &[f32], w: &[f32], terms: &[Term], line: &mut [f32]) {
        for (at, strip) in line.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
            let mut sums = [0f32; STRIP];
            for term in terms {
                let w = w[term.tap];
                let x: &[f32; STRIP] = slab[at * STRIP + term.place..].first_chunk().unwrap();
                for l in 0..STRIP {
                    sums[l] = mul_add::<FUSED>(w, x[l], sums[l]);
                }
            }
            *strip = sums;
        }
    }

    /// `sums[t] += Σ_i line[i] · slab[i + places[t]]`
    fn add_dots[](slab: &[f32], places: &[usize], line: &[f32], sums: &mut [f64]) {
        let (places, rest) = places.as_chunks::<4>();
        let (sums, sums_rest) = sums.as_chunks_mut::<4>();
        for (places, sums) in places.iter().zip(sums) {
            add_some_dots::<4, FUSED>(slab, places, line, sums);
        }
        for (place, sum) in rest.iter().zip(sums_rest) {
            add_some_dots::<1, FUSED>(slab, &[*place], line, std::array::from_mut(sum));
        }
    }
}

#[inline(always)]
fn add_some_dots<const T: usize, const FUSED: bool>(
    slab: &[f32],
    places: &[usize; T],
    line: &[f32],
    sums: &mut [f64; T],
) {
    const LANES: usize = STRIP / 2;
    let mut lanes = [[0f32; LANES]; T];
    for (at, strip) in line.as_chunks::<LANES>().0.iter().enumerate() {
        for t in 0..T {
            let x: &[f32; LANES] = slab[at * LANES + places[t]..].first_chunk().unwrap();
            for l in 0..LANES {
                lanes[t][l] = mul_add::<FUSED>(strip[l], x[l], lanes[t][l]);
            }
        }
    }
    for t in 0..T {
        sums[t] += lanes[t].iter().map(|&sum| sum as f64).sum::<f64>();
    }
}
