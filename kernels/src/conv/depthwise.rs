//! Convolution where each channel has filters of its own and sees no other channel.
//!
//! Nothing is shared between channels, so it goes plane by plane, and all outputs of a plane are one
//! line, to which each tap adds a piece of a [`Slab`] times a number.

use crate::geom::ConvGeom;
use crate::par::{chunks, scratch};
use crate::planes::{Grid, STRIP, Slab, copy, each_plane};
use crate::simd::{level, mul_add, per_level};

/// Whether these kernels know the geometry.
pub(super) fn suits(g: &ConvGeom) -> bool {
    g.is_depthwise()
}

/// What a tap adds to a line: a piece of the slab, from `place` on, times `w[tap]`.
#[derive(Debug)]
struct Term {
    tap: usize,
    place: usize,
}

pub(crate) fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    Prepared::new(g).run(x, w, y);
}

/// [`forward`], with its places known.
#[derive(Debug)]
pub(super) struct Prepared {
    g: ConvGeom,
    slabs: Slab,
    terms: Vec<Term>,
}

impl Prepared {
    pub fn new(g: &ConvGeom) -> Prepared {
        let slabs = slab_of_x(g);
        let terms = slabs
            .taps([g.kh, g.kw], g.how.dilation)
            .enumerate()
            .map(|(tap, place)| Term { tap, place });
        Prepared { g: *g, terms: terms.collect(), slabs }
    }

    /// Of as many images as there are.
    pub fn run(&self, x: &[f32], w: &[f32], y: &mut [f32]) {
        let Prepared { g, slabs, terms } = self;
        let (level, hw, ohw, taps) = (level(), g.h * g.w, g.oh * g.ow, g.taps());
        each_plane(y, ohw, [slabs.len, slabs.line(g.oh, g.ow)], 0.0, |at, y, slab, line| {
            // An output plane counts over images and outputs; its input plane over images and channels.
            slabs.fill(level, &x[at / g.group_o() * hw..][..hw], slab);
            correlate(level, slab, &w[at % g.o * taps..][..taps], terms, line);
            copy(level, [g.oh, g.ow], line, slabs.grid(), y, Grid::dense(g.ow));
        });
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.terms[..])
    }
}

pub(crate) fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (level, slabs, phases) = (level(), slab_of_dy(g), Phase::all(g));
    let (hw, ohw, taps, filters) = (g.h * g.w, g.oh * g.ow, g.taps(), g.group_o());
    let (line, to) =
        (slabs.line(g.h, g.w), Grid { stride: g.how.stride * g.w, step: g.how.stride });
    each_plane(dx, hw, [filters * slabs.len, line], 0.0, |at, dx, slab, line| {
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

/// Planes of `x`, for the taps at the multiples of the stride.
fn slab_of_x(g: &ConvGeom) -> Slab {
    Slab::padded([g.h, g.w], g.how.pad, g.how.stride)
}

/// Planes of `dy`, with as much padding as the pixels of `x` may look for.
fn slab_of_dy(g: &ConvGeom) -> Slab {
    let (s, d, pad) = (g.how.stride, g.how.dilation, g.how.pad);
    let before = |k: usize| ((k - 1) * d / s).saturating_sub(pad / s);
    let after = |size: usize, out: usize| out.max((size - 1 + pad) / s + 1);
    let (top, left) = (before(g.kh), before(g.kw));
    let (rows, pitch) = (top + after(g.h, g.oh), left + after(g.w, g.ow));
    Slab { h: g.oh, w: g.ow, top, left, split: 1, rows, pitch, len: rows * pitch + STRIP }
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
        let slabs = slab_of_dy(g);
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
    let (level, slabs) = (level(), slab_of_x(g));
    let (hw, ohw, taps) = (g.h * g.w, g.oh * g.ow, g.taps());
    let places: Vec<usize> = slabs.taps([g.kh, g.kw], g.how.dilation).collect();
    chunks(dw, taps, |o, dw| {
        scratch(slabs.len + slabs.line(g.oh, g.ow), |buffer| {
            buffer.fill(0.0);
            let (slab, line) = buffer.split_at_mut(slabs.len);
            let mut sums = vec![0f64; taps];
            for n in 0..g.n {
                slabs.fill(level, &x[(n * g.c + o / g.group_o()) * hw..][..hw], slab);
                let dy = &dy[(n * g.o + o) * ohw..][..ohw];
                let from = Grid::dense(g.ow);
                copy(level, [g.oh, g.ow], dy, from, line, slabs.grid());
                add_dots(level, slab, &places, line, &mut sums);
            }
            dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = sum as f32);
        });
    });
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
