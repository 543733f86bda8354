//! Convolution without a matrix of patches: each pass is a [`gather_product`] over slabs.
//!
//! Output channels (of `dx`: input channels) go by blocks of 16 lanes, the last one of 8 or 16.
//! Each output is one sum over all its terms, in an order that only the filter's size sets; so
//! neither chunks, nor images, nor threads can change it. The filter's gradient sums chunk by
//! chunk, images in order.

use super::gather::{Row, Steps, Write, gather_product};
use super::plan::Plan;
use crate::geom::ConvGeom;
use crate::par::{chunks, scratch, threads};
use crate::simd::{Level, level};
use crate::transpose::transpose;
use std::ops::Range;

/// Lanes of a full block.
const WIDTH: usize = 16;
/// Lanes of a last block that needs no more.
const HALF: usize = WIDTH / 2;
/// Elements of a slab, about, where several images could share it.
const SLAB: usize = 1 << 16;

/// Whether these kernels know the geometry; `lanes` are the output channels of the pass.
pub(super) fn suits(g: &ConvGeom, lanes: usize) -> bool {
    g.how.groups == 1 && lanes > 2
}

pub(super) fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (level, k) = (level(), g.taps());
    run(&Plan::forward(g, g.c), x, y, |_, block, v| {
        block.interleave(level, &w[block.first * k..], k, v);
    });
}

pub(super) fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (level, all) = (level(), g.kh * g.kw);
    run(&Plan::dx(g), dy, dx, |taps, block, v| {
        for (o, v) in v.chunks_exact_mut(taps.len() * block.width).enumerate() {
            let filters = &w[(o * g.c + block.first) * all..];
            if taps.len() == all {
                block.interleave(level, filters, all, v);
                continue;
            }
            v.fill(0.0);
            for (v, tap) in v.chunks_exact_mut(block.width).zip(taps) {
                for l in 0..block.used {
                    v[l] = filters[l * all + tap];
                }
            }
        }
    });
}

/// `out` from `source`, with the vectors of one phase and block, `steps` by `block.width`, from
/// `pack(taps of the phase, block, v)`.
fn run(
    plan: &Plan,
    source: &[f32],
    out: &mut [f32],
    pack: impl Fn(&[usize], &Block, &mut [f32]) + Sync,
) {
    let level = level();
    let blocks = Block::all(plan.lanes);
    let lanes: usize = blocks.iter().map(|block| block.width).sum();
    let steps: usize = plan.phases.iter().map(|phase| phase.steps().len()).sum();
    let pixels = plan.out_h * plan.out_w;
    scratch(steps * lanes, |v| {
        chunks(v, steps * WIDTH, |at, mut v| {
            for phase in plan.phases.iter().filter(|phase| !phase.taps.is_empty()) {
                let (now, later) = v.split_at_mut(phase.steps().len() * blocks[at].width);
                pack(&phase.taps, &blocks[at], now);
                v = later;
            }
        });
        if plan.n >= threads() {
            // Pieces of several chunks, and yet some pieces for each thread.
            let together = (SLAB / plan.image).clamp(1, plan.images);
            let images = plan.n.div_ceil(8 * threads()).next_multiple_of(together);
            chunks(out, images * plan.lanes * pixels, |at, out| {
                let source = &source[at * images * plan.source()..];
                compute(level, plan, source, together, &blocks, v, out);
            });
        } else {
            let each = blocks.len().div_ceil(threads());
            let sources = source.chunks_exact(plan.source());
            for (out, source) in out.chunks_exact_mut(plan.lanes * pixels).zip(sources) {
                chunks(out, each * WIDTH * pixels, |at, out| {
                    let blocks = &blocks[at * each..blocks.len().min((at + 1) * each)];
                    compute(level, plan, source, 1, blocks, &v[at * each * steps * WIDTH..], out);
                });
            }
        }
    });
}

/// Some blocks of lanes of some images, taking so many images `together`.
fn compute(
    level: Level,
    plan: &Plan,
    source: &[f32],
    together: usize,
    blocks: &[Block],
    v: &[f32],
    out: &mut [f32],
) {
    let plane = plan.out_h * plan.out_w;
    let lanes: usize = blocks.iter().map(|block| block.used).sum();
    scratch(plan.slab_len(together), |slab| {
        slab.fill(0.0);
        scratch(together * plan.rows * plan.out_w * WIDTH, |tile| {
            for (at, out) in out.chunks_mut(together * lanes * plane).enumerate() {
                let (images, source) =
                    (out.len() / (lanes * plane), &source[at * together * plan.source()..]);
                for r in (0..plan.out_h).step_by(plan.rows) {
                    let pixels = plan.rows.min(plan.out_h - r) * plan.out_w;
                    let slab = plan.slab(level, source, images, r, &mut *slab);
                    let mut v = v;
                    for block in blocks {
                        for phase in &plan.phases {
                            let (now, later) = v.split_at(phase.steps().len() * block.width);
                            let rows = phase.pixels(images * pixels);
                            block.product(level, slab, rows, phase.steps(), now, Write::Over, tile);
                            v = later;
                        }
                        let tiles = tile.chunks_exact(pixels * block.width);
                        for (tile, out) in tiles.zip(out.chunks_exact_mut(lanes * plane)) {
                            let at = (block.first - blocks[0].first) * plane + r * plan.out_w;
                            block.deinterleave(level, tile, plane, &mut out[at..]);
                        }
                    }
                }
            }
        });
    });
}

pub(super) fn dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (level, k) = (level(), g.taps());
    let blocks = Block::all(g.o);
    let each = blocks.len().div_ceil(threads());
    // Where there are fewer blocks than threads, the threads share the taps of each.
    let share = threads().div_ceil(blocks.len());
    chunks(dw, each * WIDTH * k, |piece, dw| {
        let blocks = &blocks[piece * each..blocks.len().min((piece + 1) * each)];
        let lanes: usize = blocks.iter().map(|block| block.width).sum();
        scratch(k * lanes, |sums| {
            let rows = k.div_ceil(share);
            chunks(sums, rows * lanes, |part, sums| {
                let rows = part * rows..k.min((part + 1) * rows);
                filter_sums(level, g, blocks, rows, x, dy, sums);
            });
            let mut sums = &*sums;
            for block in blocks {
                let (now, later) = sums.split_at(k * block.width);
                block.deinterleave(level, now, k, &mut dw[(block.first - blocks[0].first) * k..]);
                sums = later;
            }
        });
    });
}

/// `sums[block][row, lane] = Σ_{n,i,j} (what the row's tap sees of x at n, i, j) · dy[n, lane, i, j]`,
/// for `rows` among the taps `(c,u,v)`.
fn filter_sums(
    level: Level,
    g: &ConvGeom,
    blocks: &[Block],
    rows: Range<usize>,
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
) {
    let taps = g.kh * g.kw;
    let channels = rows.start / taps..(rows.end - 1) / taps + 1;
    let plan = &Plan::forward(g, channels.len());
    let phase = &plan.phases[0];
    let plane = g.oh * g.ow;
    let table: Vec<u32> = phase.pixels(usize::MAX).iter().map(|pixel| pixel.base).collect();
    let tap_rows = phase
        .tap_rows(rows.start - channels.start * taps..rows.end - channels.start * taps, plan.plane);
    sums.fill(0.0);
    scratch(plan.slab_len(plan.images), |slab| {
        slab.fill(0.0);
        scratch(table.len() * WIDTH, |v| {
            for n in (0..g.n).step_by(plan.images) {
                let images = plan.images.min(g.n - n);
                for r in (0..g.oh).step_by(plan.rows) {
                    let pixels = plan.rows.min(g.oh - r) * g.ow;
                    let source = &x[(n * g.c + channels.start) * g.h * g.w..];
                    let slab = plan.slab(level, source, images, r, &mut *slab);
                    let steps = Steps { table: &table[..images * pixels], repeats: 1, advance: 0 };
                    let mut at = 0;
                    for block in blocks {
                        let v = &mut v[..images * pixels * block.width];
                        for (image, v) in v.chunks_exact_mut(pixels * block.width).enumerate() {
                            let dy = &dy[((n + image) * g.o + block.first) * plane + r * g.ow..];
                            block.interleave(level, dy, plane, v);
                        }
                        let sums = &mut sums[at..][..rows.len() * block.width];
                        block.product(level, slab, &tap_rows, steps, v, Write::Add, sums);
                        at += sums.len();
                    }
                }
            }
        });
    });
}

/// Channels that are computed side by side.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    /// Channels there are.
    used: usize,
    /// Lanes they take.
    width: usize,
}

impl Block {
    fn all(channels: usize) -> Vec<Block> {
        let block = |first| {
            let used = WIDTH.min(channels - first);
            Block { first, used, width: if used <= HALF { HALF } else { WIDTH } }
        };
        (0..channels).step_by(WIDTH).map(block).collect()
    }

    /// Some elements of the planes, `stride` apart, of this block's channels to vectors of lanes.
    fn interleave(&self, level: Level, planes: &[f32], stride: usize, v: &mut [f32]) {
        if self.used < self.width {
            v.fill(0.0);
        }
        transpose(level, [self.used, v.len() / self.width], planes, stride, v, self.width);
    }

    /// The way back.
    fn deinterleave(&self, level: Level, v: &[f32], stride: usize, planes: &mut [f32]) {
        transpose(level, [v.len() / self.width, self.used], v, self.width, planes, stride);
    }

    /// [`gather_product`] for vectors of this block's width.
    fn product(
        &self,
        level: Level,
        x: &[f32],
        rows: &[Row],
        steps: Steps<'_>,
        v: &[f32],
        write: Write,
        out: &mut [f32],
    ) {
        if self.width == WIDTH {
            let (v, out) = (v.as_chunks().0, out.as_chunks_mut().0);
            gather_product::<WIDTH>(level, x, rows, steps, v, write, out);
        } else {
            let (v, out) = (v.as_chunks().0, out.as_chunks_mut().0);
            gather_product::<HALF>(level, x, rows, steps, v, write, out);
        }
    }
}
