//! Convolution without a matrix of patches: each pass is a product over slabs.
//!
//! Where neighbouring outputs see neighbouring pixels, eight of them are the lanes of
//! [`line_product`], channels by blocks of six. Elsewhere, and for the filter's gradient, the lanes
//! are channels of the output (of `dx`: the input), 16 or at last 8, in [`gather_product`]; for the gradient
//! of filters of few taps they are pixels, in [`dot_product`].
//! The order of an output's sum depends on the geometry of the layer alone; so neither chunks, nor
//! images, nor threads can change it. The filter's gradient sums chunk by chunk, parts
//! of the images in order.

use super::dots::{self, dot_product};
use super::gather::{Row, Steps, Write, gather_product, portions};
use super::lines::{CHANNELS, Numbers, RUN, line_product};
use super::plan::{Phase, Plan};
use crate::ahead::{Ahead, Memory};
use crate::elementwise::add_assign;
use crate::geom::ConvGeom;
use crate::par::{GRAIN, chunks, scratch, threads};
use crate::planes::{Grid, copy, spread};
use crate::simd::{Level, level};
use crate::transpose::{transpose, transpose_many};
use std::ops::Range;

/// Lanes of a full block.
const WIDTH: usize = 16;
/// Lanes of a last block that needs no more.
const HALF: usize = WIDTH / 2;

/// Pixels of a tile, about.
const TILE: usize = 16;

/// Filters of a lone image, in floats, that the second cache may hold: they are not asked for ahead.
const FEW: usize = 1 << 18;

/// Parts of the images, at most, whose sums for the gradient to small filters are computed each by one thread,
/// from images that it has at hand: a core that reads what another has written waits for it, longest where they
/// share no cache.
const PARTS: usize = 8;
/// Images, at least, of such a part.
const TOGETHER: usize = 16;
/// Floats, at most, of such filters.
const SMALL: usize = 1 << 16;

/// Channels, at most, of filters whose rows a product of channels reads as they lie.
const NEAR: usize = 256;

/// Whether `dx` is quicker so. The channels of an image, often one or three, may fill few lanes; the
/// matrix of patches has a row for each of their taps.
pub(super) fn suits_dx(g: &ConvGeom) -> bool {
    let by_runs = g.how.stride == 1 && g.w >= HALF && g.group_c() > 1;
    by_runs || g.group_c() > 3 || g.group_o() < HALF
}

/// The geometry of one group of one image, if there are several.
fn group(g: &ConvGeom) -> ConvGeom {
    let one = ConvGeom { n: 1, c: g.group_c(), o: g.group_o(), how: g.how.groups(1), ..*g };
    if g.how.groups == 1 { *g } else { one }
}

pub(super) fn forward(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (level, k, one) = (level(), g.taps(), group(g));
    let pass = Pass::new(Plan::forward(&one).of_one_tap().of(g));
    let of_block = |group: usize, block: &Block| &w[(group * one.o + block.first) * k..];
    let pack = |group: usize, block: &Block, v: &mut [f32]| {
        block.interleave(level, of_block(group, block), k, v);
    };
    let lie =
        |group: usize, block: &Block| Numbers { data: of_block(group, block), step: 1, channel: k };
    let memory = |block: &Block| Memory::whole(&of_block(0, block)[..block.used * k]);
    let lie: Lie<'_> = &lie;
    pass.run(x, y, &pack, pass.by_runs.then_some(lie), &memory);
}

/// [`forward`] with its filters at hand.
#[derive(Debug)]
pub(super) struct Prepared {
    pass: Pass,
    filters: Vec<f32>,
}

impl Prepared {
    pub fn new(g: &ConvGeom, w: &[f32]) -> Prepared {
        let (level, k, one) = (level(), g.taps(), group(g));
        let pass = Pass::new(Plan::forward(&one).of_one_tap().of(g));
        let mut filters = vec![0.0; pass.filters_len()];
        pass.pack(&mut filters, &|group, block, v| {
            block.interleave(level, &w[(group * one.o + block.first) * k..], k, v);
        });
        Prepared { pass, filters }
    }

    /// Of as many images as there are.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        self.pass.run_packed(x, &self.filters, y);
    }

    pub fn bytes(&self) -> usize {
        let Pass { plan, blocks, runs, .. } = &self.pass;
        let runs: usize = runs.iter().flatten().map(|runs| size_of_val(&runs[..])).sum();
        size_of_val(&self.filters[..]) + plan.bytes() + size_of_val(&blocks[..]) + runs
    }
}

pub(super) fn dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (level, taps, filters) = (level(), g.kh * g.kw, w);
    if taps == 1 && g.how.pad == 0 && g.how.stride > 1 {
        // The one tap reaches only the pixels at multiples of the stride; zeros lie between them.
        let reached = ConvGeom { h: g.oh, w: g.ow, how: g.how.stride(1), ..*g };
        return scratch(reached.x_len(), |sums| {
            self::dx(&reached, w, dy, sums);
            let (few, plane) = (g.oh * g.ow, g.h * g.w);
            let many = (GRAIN / plane).max(1);
            chunks(dx, many * plane, |at, dx| {
                let sums = sums[at * many * few..].chunks_exact(few);
                let planes = dx.chunks_exact_mut(plane).zip(sums);
                planes.for_each(|(dx, sums)| spread(level, sums, g.ow, g.how.stride, g.w, dx));
            });
        });
    }
    let (all, g) = (g, &group(g));
    let pass = Pass::new(Plan::dx(g).of_one_tap().of(all));
    let plan = &pass.plan;
    let pack = |group: usize, block: &Block, v: &mut [f32]| {
        let w = &filters[group * g.w_len()..][..g.w_len()];
        let width = block.width;
        if taps == 1 {
            // Such filters are rows of lanes already.
            let (lanes, from) = (width.min(g.c - block.first), Grid::dense(g.c));
            let to = Grid::dense(width);
            return copy(level, [g.o, lanes], &w[block.first..], from, v, to);
        }
        let (far, w) = (g.c * taps, &w[block.first * taps..]);
        if let [_] = plan.phases[..] {
            return block.interleave_many(level, [far, taps], w, v);
        }
        let mut filters = vec![0f32; g.o * taps * width];
        block.interleave_many(level, [far, taps], w, &mut filters);
        let mut v = &mut v[..];
        for phase in &plan.phases {
            let (now, later) = v.split_at_mut(phase.steps().len() * width);
            let mut vectors = now.chunks_exact_mut(width);
            for filter in filters.chunks_exact(taps * width) {
                for (tap, v) in phase.taps.iter().zip(&mut vectors) {
                    v.copy_from_slice(&filter[tap * width..][..width]);
                }
            }
            v = later;
        }
    };
    let memory =
        |block: &Block| Memory::rows(&filters[block.first * taps..], block.used * taps, g.c * taps);
    // So they may also stay where they are, if none ends within a vector; unless they are long, or come from
    // memory: then those that one tile reads crowd each other out of the first cache.
    let lie: Lie<'_> = &|group, block| Numbers {
        data: &filters[group * g.w_len()..][..g.w_len()][block.first..],
        step: g.c,
        channel: 1,
    };
    let near = g.c.is_multiple_of(HALF) && g.c <= NEAR && pass.filters_len() <= FEW;
    pass.run(dy, dx, &pack, (taps == 1 && !pass.by_runs && near).then_some(lie), &memory);
}

/// A pass, and what it knows before its numbers.
#[derive(Debug)]
struct Pass {
    plan: Plan,
    /// Whether the lanes are pixels; else they are channels.
    by_runs: bool,
    /// The channels of the output, mostly `size` together.
    blocks: Vec<Block>,
    size: usize,
    /// Steps of all phases.
    steps: usize,
    /// Runs of each phase, of a full chunk and of the last of an image.
    runs: [Vec<Vec<Row>>; 2],
}

impl Pass {
    fn new(plan: Plan) -> Pass {
        let by_runs = plan.by_runs();
        let size = if by_runs { CHANNELS } else { WIDTH };
        let blocks = Block::all(plan.lanes, size);
        let steps = plan.phases.iter().map(|phase| phase.steps().len()).sum();
        let runs = if by_runs { plan.all_runs() } else { Default::default() };
        Pass { plan, by_runs, blocks, size, steps, runs }
    }

    /// Elements of all filters, packed.
    fn filters_len(&self) -> usize {
        self.plan.groups * self.blocks.len() * self.block_len()
    }

    /// The same of a block.
    fn block_len(&self) -> usize {
        self.steps * self.blocks[0].width
    }

    /// `pack` writes the filters of a block of a group, `steps` by `block.width` for each phase in turn.
    fn pack(&self, filters: &mut [f32], pack: &(dyn Fn(usize, &Block, &mut [f32]) + Sync)) {
        let (blocks, steps) = (&self.blocks, self.steps);
        chunks(filters, self.block_len(), |at, v| {
            let (group, block) = (at / blocks.len(), &blocks[at % blocks.len()]);
            pack(group, block, &mut v[..steps * block.width]);
        });
    }

    /// `out` from `source`, with filters that `pack` packs, or that a product may read as they lie: then `lie`
    /// finds them. Those of a lone image's block lie in `memory`.
    fn run(
        &self,
        source: &[f32],
        out: &mut [f32],
        pack: &(dyn Fn(usize, &Block, &mut [f32]) + Sync),
        lie: Option<Lie<'_>>,
        memory: &(dyn Fn(&Block) -> Memory + Sync),
    ) {
        let Pass { plan, blocks, size, steps, .. } = self;
        let pixels = plan.out_h * plan.out_w;
        if plan.n == 1 && plan.rows == plan.out_h {
            // A block's filters serve only once, so they are best read where they lie, or packed when they
            // are needed.
            let (level, each) = (level(), self.blocks_each(1));
            return chunks(out, each * size * pixels, |at, out| {
                let blocks = &blocks[at * each..blocks.len().min((at + 1) * each)];
                let next = |block: &Block| {
                    let next = blocks.get((block.first - blocks[0].first) / size + 1);
                    next.filter(|_| self.filters_len() > FEW).map_or(Memory::NONE, memory)
                };
                if let Some(lie) = lie {
                    return self.compute(level, source, 0, blocks, out, |group, block, product| {
                        product(lie(group, block), next(block));
                    });
                }
                scratch(steps * WIDTH, |v| {
                    self.compute(level, source, 0, blocks, out, |group, block, product| {
                        let v = &mut v[..steps * block.width];
                        pack(group, block, v);
                        product(block.packed(v), next(block));
                    });
                });
            });
        }
        scratch(self.filters_len(), |v| {
            self.pack(v, pack);
            self.run_packed(source, v, out);
        });
    }

    /// Fewer images than threads: these share the blocks of each.
    fn blocks_each(&self, images: usize) -> usize {
        let blocks = self.blocks.len();
        if images < threads() { blocks.div_ceil(threads()) } else { blocks }
    }

    /// The same of packed filters, and of as many images as there are in `source`.
    fn run_packed(&self, source: &[f32], filters: &[f32], out: &mut [f32]) {
        let Pass { plan, blocks, size, .. } = self;
        let (level, pixels, size) = (level(), plan.out_h * plan.out_w, *size);
        let images = source.len() / plan.source_len();
        let packed = |group: usize, block: &Block, product: Product<'_>| {
            let at = group * blocks.len() + block.first / size;
            let v = &filters[at * self.block_len()..][..self.steps * block.width];
            product(block.packed(v), Memory::NONE);
        };
        if images >= threads() {
            // Pieces of several chunks, and yet some pieces for each thread.
            let some = images.div_ceil(8 * threads()).next_multiple_of(plan.images);
            return chunks(out, some * plan.lanes * pixels, |at, out| {
                let source = &source[at * some * plan.source_len()..];
                self.compute(level, source, at * some, blocks, out, packed);
            });
        }
        let each = self.blocks_each(images);
        let sources = source.chunks_exact(plan.source_len());
        for (n, (out, source)) in out.chunks_exact_mut(plan.lanes * pixels).zip(sources).enumerate()
        {
            chunks(out, each * size * pixels, |at, out| {
                let blocks = &blocks[at * each..blocks.len().min((at + 1) * each)];
                self.compute(level, source, n, blocks, out, packed);
            });
        }
    }

    /// Some blocks of channels of the images from `first` on; `vectors` hands the filters of a block
    /// of a group to what it is given.
    fn compute(
        &self,
        level: Level,
        source: &[f32],
        first: usize,
        blocks: &[Block],
        out: &mut [f32],
        mut vectors: impl FnMut(usize, &Block, Product<'_>),
    ) {
        let plan = &self.plan;
        let plane = plan.out_h * plan.out_w;
        let image = blocks.iter().map(|block| block.used).sum::<usize>() * plane;
        scratch(plan.slab_len(), |slab| {
            if !plan.panels {
                slab.fill(0.0);
            }
            for (at, out) in out.chunks_mut(plan.images * image).enumerate() {
                let source = &source[at * plan.images * plan.source_len()..];
                let images = out.len() / image;
                let group = (first + at * plan.images) % plan.groups;
                let now = if plan.rows == plan.out_h { images * plan.source_len() } else { 0 };
                let portions = blocks.len() * self.portions(images);
                let mut ahead = Ahead::new([following(source, now), Memory::NONE], portions);
                for r in (0..plan.out_h).step_by(plan.rows) {
                    let pixels = plan.rows.min(plan.out_h - r) * plan.out_w;
                    let slab = if plan.in_place {
                        &source[r * plan.out_w..]
                    } else {
                        plan.fill(level, source, images, r, slab);
                        &*slab
                    };
                    let full = plan.rows * plan.out_w;
                    let runs = &self.runs[usize::from(pixels < full)];
                    // Image after image, should there be fewer than in a full chunk.
                    let all = if pixels < full { 1 } else { plan.images };
                    for block in blocks {
                        let at = (block.first - blocks[0].first) * plane + r * plan.out_w;
                        vectors(group, block, &mut |v, next| {
                            let out = &mut out[at..];
                            // After a lone image come none, but other filters.
                            if plan.n == 1 {
                                ahead = Ahead::new([next, Memory::NONE], self.portions(images));
                            }
                            let ahead = &mut ahead;
                            if self.by_runs
                                && let [runs] = &runs[..]
                            {
                                let (steps, many) = (plan.phases[0].steps(), block.used);
                                let runs = &runs[..runs.len() / all * images];
                                line_product(
                                    level, slab, runs, steps, v, many, None, out, plane, ahead,
                                );
                            } else if self.by_runs {
                                let images = [images, all];
                                self.by_phases(level, block, slab, v, runs, images, out, ahead);
                            } else {
                                self.by_channels(
                                    level, block, slab, v, images, pixels, out, image, ahead,
                                );
                            }
                        });
                    }
                }
            }
        });
    }

    /// How often the product of a block with a chunk of `images` asks for memory ahead, about.
    fn portions(&self, images: usize) -> usize {
        let plan = &self.plan;
        let pixels = images * plan.rows * plan.out_w;
        if self.by_runs {
            return pixels / TILE;
        }
        let asked = |phase: &Phase| portions(phase.pixels(pixels).len(), phase.steps());
        plan.phases.iter().map(asked).sum()
    }

    /// What a block writes of an image, which is best fetched before.
    fn written(&self, block: &Block, out: &[f32]) -> Memory {
        Memory::whole(&out[..out.len().min(block.used * self.plan.out_h * self.plan.out_w)])
    }

    /// One block of a chunk of `images` of `all`, whose `runs` are of several phases.
    fn by_phases(
        &self,
        level: Level,
        block: &Block,
        slab: &[f32],
        mut v: Numbers<'_>,
        runs: &[Vec<Row>],
        [images, all]: [usize; 2],
        out: &mut [f32],
        ahead: &mut Ahead,
    ) {
        let plan = &self.plan;
        let plane = plan.out_h * plan.out_w;
        // The next block's outputs, since this one writes all of its own from early on.
        ahead.beside(self.written(block, out).beyond(), self.portions(images));
        let mut product =
            |phase: &Phase, runs: &[Row], evens: Option<&[f32]>, out: &mut [f32], plane| {
                let runs = &runs[..runs.len() / all * images];
                let steps = phase.steps();
                line_product(level, slab, runs, steps, v, block.used, evens, out, plane, ahead);
                v.data = &v.data[steps.len() * v.step..];
            };
        // Rows of even columns, and then those of odd ones in between.
        for (phases, runs) in plan.phases.chunks_exact(2).zip(runs.chunks_exact(2)) {
            let many = runs[0].len() / all * images * RUN;
            scratch(many * block.used, |evens| {
                product(&phases[0], &runs[0], None, evens, many);
                product(&phases[1], &runs[1], Some(evens), out, plane);
            });
        }
    }

    /// One block of a chunk of `images` by `pixels`, from one image to the next `image` elements.
    fn by_channels(
        &self,
        level: Level,
        block: &Block,
        slab: &[f32],
        mut v: Numbers<'_>,
        images: usize,
        pixels: usize,
        out: &mut [f32],
        image: usize,
        ahead: &mut Ahead,
    ) {
        let plan = &self.plan;
        scratch(images * pixels * block.width, |tile| {
            ahead.beside(self.written(block, out), self.portions(images));
            for phase in &plan.phases {
                let (rows, mut write) = (phase.pixels(images * pixels), Write::Over);
                for (at, steps) in phase.parts() {
                    block.product(level, &slab[at..], rows, steps, v, write, tile, ahead);
                    v.data = &v.data[(steps.len() * v.step).min(v.data.len())..];
                    write = Write::Add;
                }
            }
            let tiles = tile.chunks_exact(pixels * block.width);
            for (tile, out) in tiles.zip(out.chunks_mut(image)) {
                block.deinterleave(level, tile, plan.out_h * plan.out_w, out);
            }
        });
    }
}

pub(super) fn dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let each = g.n.div_ceil(PARTS).max(TOGETHER);
    let parts = g.n.div_ceil(each);
    if g.how.groups > 1 || parts == 1 || dw.len() > SMALL {
        return dw_of_blocks(g, x, dy, dw);
    }
    let (k, blocks) = (g.taps(), Block::all(g.o, WIDTH));
    let job = FilterSums::new(level(), g, 0..k, x, dy);
    scratch(parts * dw.len(), |sums| {
        chunks(sums, dw.len(), |part, dw| {
            let images = part * each..g.n.min((part + 1) * each);
            job.add_up(images, 0, &blocks, |block, sums| {
                block.deinterleave(job.level, sums, k, &mut dw[block.first * k..]);
            });
        });
        let (first, others) = sums.split_at(dw.len());
        dw.copy_from_slice(first);
        others.chunks(dw.len()).for_each(|part| add_assign(dw, part));
    });
}

/// The same with the images in one part, and pieces of the filters for the threads.
fn dw_of_blocks(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (level, k) = (level(), g.taps());
    let blocks = Block::all(g.group_o(), WIDTH);
    let each = blocks.len().div_ceil(threads());
    // Where there are fewer blocks than threads, the threads share the taps of each.
    let rows = k.div_ceil(threads().div_ceil(blocks.len() * g.how.groups));
    let of_group = |group: usize, dw: &mut [f32]| {
        chunks(dw, each * WIDTH * k, |piece, dw| {
            let blocks = &blocks[piece * each..blocks.len().min((piece + 1) * each)];
            let mut finish = |block: &Block, sums: &[f32]| {
                let dw = &mut dw[(block.first - blocks[0].first) * k..];
                block.deinterleave(level, sums, k, dw);
            };
            if rows == k {
                let job = FilterSums::new(level, g, 0..k, x, dy);
                return job.add_up(0..g.n, group, blocks, finish);
            }
            let [block] = blocks else {
                unreachable!("a piece is a block where threads share them")
            };
            scratch(k * block.width, |sums| {
                chunks(sums, rows * block.width, |part, sums| {
                    let rows = part * rows..k.min((part + 1) * rows);
                    let copy = |_: &Block, some: &[f32]| sums.copy_from_slice(some);
                    let job = FilterSums::new(level, g, rows, x, dy);
                    job.add_up(0..g.n, group, blocks, copy);
                });
                finish(block, sums);
            });
        });
    };
    chunks(dw, g.group_o() * k, of_group);
}

/// The gradient to some taps of filters, and what it knows before its images.
struct FilterSums<'a> {
    g: &'a ConvGeom,
    level: Level,
    x: &'a [f32],
    dy: &'a [f32],
    plan: Plan,
    /// Among the taps `(c,u,v)`, and the channels that they see.
    rows: Range<usize>,
    channels: Range<usize>,
    /// Where each of the rows and each pixel of a chunk has its numbers.
    tap_rows: Vec<Row>,
    table: Vec<u32>,
    /// Whether pixels are the lanes, and their runs, of a full chunk and of the last of an image.
    by_dots: bool,
    runs: [Vec<Vec<Row>>; 2],
}

impl<'a> FilterSums<'a> {
    fn new(level: Level, g: &'a ConvGeom, rows: Range<usize>, x: &'a [f32], dy: &'a [f32]) -> Self {
        let taps = g.kh * g.kw;
        let channels = rows.start / taps..(rows.end - 1) / taps + 1;
        let plan = Plan::dw(g, channels.len());
        let [phase] = &plan.phases[..] else { unreachable!("forward sees all taps everywhere") };
        let table = phase.pixels(plan.chunk_len()).iter().map(|pixel| pixel.base).collect();
        let skipped = channels.start * taps;
        let tap_rows = phase.tap_rows(rows.start - skipped..rows.end - skipped, plan.plane);
        let by_dots = plan.by_dots(g);
        let runs = if by_dots { plan.all_runs() } else { Default::default() };
        FilterSums { g, level, x, dy, plan, rows, channels, tap_rows, table, by_dots, runs }
    }

    /// `sums[row, lane] = Σ_{n,i,j} (what the row's tap sees of x at n, i, j) · dy[n, lane, i, j]`,
    /// for some images and each block in turn of a group.
    fn add_up(
        &self,
        images: Range<usize>,
        group: usize,
        blocks: &[Block],
        mut finish: impl FnMut(&Block, &[f32]),
    ) {
        let FilterSums { g, level, plan, rows, channels, table, by_dots, .. } = self;
        let image = g.c * g.h * g.w;
        // Where pixels are the lanes, each sum is as many.
        let lanes = if *by_dots { RUN } else { 1 };
        // Sums of one block stay in the second cache, but the slab is worth filling for many.
        let one_chunk = plan.images >= images.len() && plan.rows == g.oh;
        let together = if one_chunk { 1 } else { blocks.len() };
        let mut filled = None;
        scratch(channels.len() * plan.plane, |slab| {
            slab.fill(0.0);
            scratch(rows.len() * WIDTH * lanes * together, |sums| {
                scratch(if *by_dots { 0 } else { table.len() * WIDTH }, |v| {
                    for blocks in blocks.chunks(together) {
                        let sums_of = rows.len() * blocks[0].width * lanes;
                        let mut write = Write::Over;
                        for n in images.clone().step_by(plan.images) {
                            let images = plan.images.min(images.end - n);
                            for r in (0..g.oh).step_by(plan.rows) {
                                if filled != Some((n, r)) {
                                    let first = group * g.group_c() + channels.start;
                                    let x = &self.x[n * image + first * g.h * g.w..];
                                    plan.fill(*level, x, images, r, slab);
                                    filled = Some((n, r));
                                }
                                let pixels = plan.rows.min(g.oh - r) * g.ow;
                                let chunk = Chunk { group, n, images, r, pixels };
                                let sums = sums.chunks_mut(sums_of);
                                self.add_chunk(chunk, blocks, slab, v, write, sums);
                                write = Write::Add;
                            }
                        }
                        for (block, sums) in blocks.iter().zip(sums.chunks_mut(sums_of)) {
                            let sums = &mut sums[..rows.len() * block.width * lanes];
                            finish(block, if *by_dots { dots::fold(sums) } else { sums });
                        }
                    }
                });
            });
        });
    }

    /// What the pixels of a chunk, whose images the slab holds, have to the sums of some blocks.
    fn add_chunk<'b>(
        &self,
        chunk: Chunk,
        blocks: &[Block],
        slab: &[f32],
        v: &mut [f32],
        write: Write,
        sums: impl Iterator<Item = &'b mut [f32]>,
    ) {
        let FilterSums { g, level, plan, rows, .. } = self;
        let Chunk { group, n, images, r, pixels } = chunk;
        let (image, plane) = (g.c * g.h * g.w, g.oh * g.ow);
        let (x, dy) = (&self.x[n * image..], &self.dy[n * g.o * plane..]);
        let whole = plan.rows == g.oh && g.how.groups == 1;
        let whole = if whole { images } else { 0 };
        let steps = Steps { table: &self.table[..images * pixels], repeats: 1, advance: 0 };
        let many_runs = images * pixels / RUN;
        let asked = |block: &Block| match self.by_dots {
            true => dots::portions(rows.len(), many_runs, block.used),
            false => portions(rows.len(), steps),
        };
        let many = blocks.iter().map(asked).sum();
        let soon = [(x, image), (dy, g.o * plane)].map(|(x, len)| following(x, whole * len));
        let mut ahead = Ahead::new(soon, many);
        for (block, sums) in blocks.iter().zip(sums) {
            let first = group * g.group_o() + block.first;
            let dy = &dy[first * plane + r * g.ow..];
            if self.by_dots {
                let [runs] = &self.runs[usize::from(pixels < plan.rows * g.ow)][..] else {
                    unreachable!("forward sees all taps everywhere")
                };
                let sums = sums[..rows.len() * block.width * RUN].as_chunks_mut().0;
                let (runs, width) = (&runs[..many_runs], block.width);
                dot_product(
                    *level,
                    slab,
                    &self.tap_rows,
                    runs,
                    dy,
                    plane,
                    block.used,
                    write,
                    sums,
                    width,
                    &mut ahead,
                );
                continue;
            }
            let sums = &mut sums[..rows.len() * block.width];
            let v = &mut v[..images * pixels * block.width];
            for (image, v) in v.chunks_exact_mut(pixels * block.width).enumerate() {
                block.interleave(*level, &dy[image * g.o * plane..], plane, v);
            }
            let v = block.packed(v);
            block.product(*level, slab, &self.tap_rows, steps, v, write, sums, &mut ahead);
        }
    }
}

/// Rows from `r` on, `pixels` in each, of some images of a group.
struct Chunk {
    group: usize,
    n: usize,
    images: usize,
    r: usize,
    pixels: usize,
}

/// What follows the first `now` elements, as many again.
fn following(data: &[f32], now: usize) -> Memory {
    let later = &data[now.min(data.len())..];
    Memory::whole(&later[..now.min(later.len())])
}

/// What uses the filters of a block, and knows where those of the next lie if they come from memory.
type Product<'a> = &'a mut dyn FnMut(Numbers<'_>, Memory);

/// Finds the filters of a block of a group where they lie.
type Lie<'a> = &'a (dyn Fn(usize, &Block) -> Numbers<'a> + Sync);

/// Channels that are computed side by side.
#[derive(Clone, Copy, Debug)]
struct Block {
    first: usize,
    /// Channels there are.
    used: usize,
    /// Lanes they take.
    width: usize,
}

impl Block {
    /// All `channels`, by `size`.
    fn all(channels: usize, size: usize) -> Vec<Block> {
        let block = |first| {
            let used = size.min(channels - first);
            Block { first, used, width: if used <= HALF { HALF } else { WIDTH } }
        };
        (0..channels).step_by(size).map(block).collect()
    }

    /// Filters that are packed as its vectors.
    fn packed<'a>(&self, v: &'a [f32]) -> Numbers<'a> {
        Numbers { data: v, step: self.width, channel: 1 }
    }

    /// Some elements of the planes, `stride` apart, of this block's channels to vectors of lanes.
    /// Lanes beyond the block hold whatever follows in `planes`, for whole vectors are quicker.
    fn interleave(&self, level: Level, planes: &[f32], stride: usize, v: &mut [f32]) {
        let elements = v.len() / self.width;
        let there = (planes.len() - elements) / stride + 1;
        if there < self.width {
            v.fill(0.0);
        }
        transpose(level, [self.width.min(there), elements], planes, stride, v, self.width);
    }

    /// The same for planes of `stride` elements that are all there is of a channel, and for the channels
    /// of all filters, `far` elements from one to the next.
    fn interleave_many(
        &self,
        level: Level,
        [far, stride]: [usize; 2],
        planes: &[f32],
        v: &mut [f32],
    ) {
        let size = stride * self.width;
        let many = v.len() / size;
        let last = (many - 1) * far;
        let there = (planes.len() - last) / stride;
        let lanes = self.width.min(there);
        if lanes < self.width {
            v.fill(0.0);
        }
        let (from, to) = ([far, stride], [size, self.width]);
        transpose_many(level, many, [lanes, stride], planes, from, v, to);
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
        v: Numbers<'_>,
        write: Write,
        out: &mut [f32],
        ahead: &mut Ahead,
    ) {
        if self.width == WIDTH {
            let out = out.as_chunks_mut().0;
            gather_product::<WIDTH>(level, x, rows, steps, v.data, v.step, write, out, ahead);
        } else {
            let out = out.as_chunks_mut().0;
            gather_product::<HALF>(level, x, rows, steps, v.data, v.step, write, out, ahead);
        }
    }
}
