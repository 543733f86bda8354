//! A convolution of +-1 images with +-1 filters, planned once and run again and again.
//!
//! A run lays out images as [`conv2d`](super::conv2d) does and looks up the same sums, but only of a few
//! channels and pixels at a time, and transforms them before it goes on: sums never see memory, and
//! nothing is allocated.

use super::conv::{counts, together};
use super::lookup::{self, Offsets, Sum, TILE, UNIT, Walk};
use super::stage::Stage;
use super::transform::{Block, Number, Out, Transform};
use super::{Filters, Pad};
use crate::ConvGeom;
use crate::par;
use crate::simd::{self, Level};
use std::ops::Range;

/// Channels whose sums are transformed together: so few that the first cache holds those of a tile.
const CHANNELS: usize = 64;

/// The convolution of one geometry with its filters, and all that can be known before the images are.
#[derive(Debug)]
pub struct Prepared {
    g: ConvGeom,
    filters: Filters,
    plans: Plans,
}

/// In 16 bits where they hold every sum.
#[derive(Debug)]
enum Plans {
    Short(Both<i16>),
    Wide(Both<f32>),
}

/// For a lone image, and for as many together as fill vectors where one does not.
#[derive(Debug)]
struct Both<Z> {
    lone: Plan<Z>,
    many: Option<Plan<Z>>,
}

#[derive(Debug)]
struct Plan<Z> {
    stage: Stage,
    offsets: Offsets,
    counts: Vec<Z>,
}

impl<Z: Sum> Plan<Z> {
    fn new(g: &ConvGeom, pad: Pad, images: usize) -> Plan<Z> {
        let stage = Stage::new(g, pad, images, UNIT);
        let (offsets, counts) = (Offsets::new(stage.offsets()), counts(g, pad, images));
        Plan { stage, offsets, counts }
    }

    fn bytes(&self) -> usize {
        self.stage.bytes() + self.offsets.bytes() + size_of_val(&self.counts[..])
    }
}

impl<Z: Sum> Both<Z> {
    fn new(g: &ConvGeom, pad: Pad) -> Both<Z> {
        let images = together(g, g.n);
        let many = (images > 1).then(|| Plan::new(g, pad, images));
        Both { lone: Plan::new(g, pad, 1), many }
    }

    fn bytes(&self) -> usize {
        self.lone.bytes() + self.many.as_ref().map_or(0, Plan::bytes)
    }
}

impl Prepared {
    /// For at most `g.n` images a run; outside of them `x` is what `pad` says.
    ///
    /// # Panics
    /// If `w` was packed for another geometry, or a sum has 2^24 terms or more, which `f32` does not
    /// count.
    #[track_caller]
    pub fn new(g: &ConvGeom, pad: Pad, w: &Filters) -> Prepared {
        const OP: &str = "bits::Prepared::new";
        w.check(OP, g);
        assert!(g.taps() < 1 << 24, "{OP}: sums of {} terms are not exact", g.taps());
        let plans = if g.taps() <= i16::MAX as usize {
            Plans::Short(Both::new(g, pad))
        } else {
            Plans::Wide(Both::new(g, pad))
        };
        Prepared { g: *g, filters: w.clone(), plans }
    }

    /// Its geometry; `n` is the most images of one run.
    pub fn geom(&self) -> &ConvGeom {
        &self.g
    }

    /// Bytes of memory it holds: a bit a weight, and the tables of the plan.
    pub fn bytes(&self) -> usize {
        let plans = match &self.plans {
            Plans::Short(both) => both.bytes(),
            Plans::Wide(both) => both.bytes(),
        };
        self.filters.bytes() + plans
    }

    /// Bytes of the planes of `n` images: `[n][groups][C/groups/4][H][W]`.
    pub fn x_len(&self, n: usize) -> usize {
        n * self.g.how.groups * self.g.group_c().div_ceil(4) * self.g.h * self.g.w
    }

    /// Bytes of the planes of the signs of `n` outputs: `[n][O/4][OH][OW]`.
    pub fn signs_len(&self, n: usize) -> usize {
        n * self.g.o.div_ceil(4) * self.g.oh * self.g.ow
    }

    /// The sums of `n` images, transformed: as `y`, `n O OH OW`, and as planes of signs, where they are
    /// asked for; whether a NaN was among the numbers whose signs were (as +1).
    ///
    /// Nothing is allocated on a worker thread of [`par::with_threads`], once
    /// its [`par::scratch`] has grown.
    ///
    /// ```
    /// use dirnet_kernels::bits::{Filters, Pad, Prepared, Transform, pack_planes};
    /// use dirnet_kernels::{Conv, ConvGeom};
    /// let g = ConvGeom::new(&[1, 1, 1, 3], &[1, 1, 1, 3], Conv::same(1).pad(0));
    /// let w = Filters::pack(&g, &[1.0, 1.0, 1.0]);
    /// let prepared = Prepared::new(&g, Pad::Zero, &w);
    /// let (mut x, mut y) = ([0; 3], [0.0]);
    /// pack_planes(g.x(), 1, &[0.5, -2.0, 3.0], &mut x);
    /// prepared.run(1, &x, &Transform::Scale { scale: &[0.5] }, None, Some(&mut y), None);
    /// assert_eq!(y, [0.5]); // (1 - 1 + 1) / 2
    /// ```
    ///
    /// # Panics
    /// If there are more images than it was made for, a length does not fit, the transform has not
    /// one number of each kind a channel, or cannot give what is asked for.
    #[track_caller]
    pub fn run(
        &self,
        n: usize,
        x: &[u8],
        then: &Transform<'_>,
        residual: Option<&[f32]>,
        y: Option<&mut [f32]>,
        signs: Option<&mut [u8]>,
    ) -> bool {
        const OP: &str = "bits::Prepared";
        let g = &self.g;
        let len = n * g.o * g.oh * g.ow;
        assert!((1..=g.n).contains(&n), "{OP}: {n} images where {} are the most", g.n);
        assert_eq!(x.len(), self.x_len(n), "{OP}: planes of {n} images of {:?}", g.x());
        then.check(OP, g.o, residual.is_some(), y.is_some());
        assert!(residual.is_none_or(|r| r.len() == len), "{OP}: as many to add as in y");
        assert!(y.as_ref().is_none_or(|y| y.len() == len), "{OP}: y of {n} times {:?}", g.y());
        let planes = self.signs_len(n);
        assert!(signs.as_ref().is_none_or(|s| s.len() == planes), "{OP}: planes of the signs");
        let job = Job { g, w: &self.filters, level: simd::level(), x, then, residual };
        match &self.plans {
            Plans::Short(both) => job.run(both, n, y, signs),
            Plans::Wide(both) => job.run(both, n, y, signs),
        }
    }
}

/// What all pieces of a run share.
struct Job<'a> {
    g: &'a ConvGeom,
    w: &'a Filters,
    level: Level,
    x: &'a [u8],
    then: &'a Transform<'a>,
    residual: Option<&'a [f32]>,
}

impl Job<'_> {
    fn run<Z: Sum + Number>(
        &self,
        both: &Both<Z>,
        n: usize,
        y: Option<&mut [f32]>,
        signs: Option<&mut [u8]>,
    ) -> bool {
        let (g, threads) = (self.g, par::threads());
        let area = g.oh * g.ow;
        let sizes = [g.o * area, g.o.div_ceil(4) * area];
        // Threads share images, unless there are too few of them.
        let plan = both.many.as_ref().filter(|_| n > threads).unwrap_or(&both.lone);
        if n >= threads {
            let each = plan.stage.images.min(n.div_ceil(threads));
            let out = Out { y, signs, sizes: sizes.map(|size| each * size) };
            return par::any_piece(n.div_ceil(each), out, &|i, out| {
                self.piece(plan, i * each..n.min((i + 1) * each), 0..g.o, out)
            });
        }
        // Then they share the channels of an image, whole groups and whole planes of signs. Each lays out
        // the image for itself: that takes less time than to wait for the other's half and fetch it.
        let whole = if g.how.groups == 1 { 4 } else { least_common(4, g.group_o()) };
        let each = g.o.div_ceil(threads.div_ceil(n)).next_multiple_of(whole).min(g.o);
        par::any_piece(n, Out { y, signs, sizes }, &|image, mut out| {
            out.sizes = [each * area, each.div_ceil(4) * area];
            par::any_piece(g.o.div_ceil(each), out, &|i, out| {
                let channels = i * each..g.o.min((i + 1) * each);
                self.piece(plan, image..image + 1, channels, out)
            })
        })
    }

    /// Planes of a group of an image.
    fn planes(&self, image: usize, group: usize) -> &[u8] {
        let size = self.g.group_c().div_ceil(4) * self.g.h * self.g.w;
        &self.x[(image * self.g.how.groups + group) * size..][..size]
    }

    /// Some channels of some images, of whole groups or of the one there is.
    fn piece<Z: Sum + Number>(
        &self,
        plan: &Plan<Z>,
        images: Range<usize>,
        channels: Range<usize>,
        mut out: Out<'_>,
    ) -> bool {
        let (g, area, stage) = (self.g, self.g.oh * self.g.ow, &plan.stage);
        let (group_o, pixels) = (g.group_o(), images.len() * area);
        par::scratch(stage.len() / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, stage.len());
            let mut nan = false;
            for group in channels.start / group_o..channels.end.div_ceil(group_o) {
                for (b, image) in images.clone().enumerate() {
                    stage.fill(self.level, b, self.planes(image, group), staged);
                }
                let all = group * group_o;
                let here = all.max(channels.start)..(all + group_o).min(channels.end);
                for first in here.clone().step_by(CHANNELS) {
                    let some = first..here.end.min(first + CHANNELS);
                    let w = &self.w.pairs(group)[(first - all) / 2 * plan.offsets.len()..];
                    for pixel in (0..pixels).step_by(TILE) {
                        let tile = pixel..pixels.min(pixel + TILE);
                        nan |=
                            self.tile(plan, staged, w, &images, &channels, &some, tile, &mut out);
                    }
                }
            }
            nan
        })
    }

    /// Some channels of some pixels, counted over the images.
    fn tile<Z: Sum + Number>(
        &self,
        plan: &Plan<Z>,
        staged: &[u8],
        w: &[u8],
        images: &Range<usize>,
        channels: &Range<usize>,
        some: &Range<usize>,
        pixels: Range<usize>,
        out: &mut Out<'_>,
    ) -> bool {
        let (g, area) = (self.g, self.g.oh * self.g.ow);
        let pitch = pixels.len().next_multiple_of(UNIT);
        let len = some.len() * pitch;
        par::scratch(len * size_of::<Z>() / 4, |z| {
            let z: &mut [Z] = &mut bytemuck::cast_slice_mut(z)[..len];
            let walk = Walk {
                x: &staged[pixels.start..],
                offsets: &plan.offsets,
                counts: &plan.counts[pixels.start..],
                area: pitch,
                images: 1,
            };
            lookup::sums(self.level, &walk, w, some.len(), 0, z);
            let (mut from, mut nan) = (pixels.start, false);
            while from < pixels.end {
                let (image, pixel) = (from / area, from % area);
                let count = (area - pixel).min(pixels.end - from);
                let block = Block {
                    z: &z[from - pixels.start..],
                    pitch,
                    pixels: count,
                    channels: some.len(),
                    first: some.start,
                    channel: some.start - channels.start,
                    pixel,
                    area,
                };
                let at = image * g.o * area;
                let residual = self.residual.map(|r| {
                    let first = (images.start * g.o + channels.start) * area + at;
                    &r[first..]
                });
                let y = out.y.as_deref_mut().map(|y| &mut y[at..]);
                let signs = out.signs.as_deref_mut();
                let signs = signs.map(|s| &mut s[image * g.o.div_ceil(4) * area..]);
                nan |= self.then.apply(self.level, &block, residual, y, signs);
                from += count;
            }
            nan
        })
    }
}

/// The least number that both divide.
fn least_common(a: usize, b: usize) -> usize {
    (1..=a).map(|times| times * b).find(|n| n.is_multiple_of(a)).unwrap_or(a * b)
}
