//! Convolution with 3x3 filters by fewer products: Winograd's F(4x4, 3x3) (Lavin and Gray, 2015, arXiv
//! 1509.09308).
//!
//! ```text
//! a tile of 4x4 outputs, which sees 6x6 pixels d:   y = Aᵀ [ Σ_c (G w Gᵀ) ∘ (Bᵀ d B) ] A
//! ```
//!
//! That is 36 products a tile, filter and channel in place of 144. Each of the 36 places is a matrix
//! product, tiles by channels of `x` by channels of `y`. Numbers differ from those of
//! [`conv2d`](super::conv2d) by rounding, some 5e-6 of the largest. `dx` is the same sum over filters that
//! are turned by half and change their channels for their outputs.
//!
//! Lanes are channels throughout: images are turned to channels last, computed on, and turned back.

use super::gather::{Row, Steps, Write, gather_product, index};
use crate::ahead::{Ahead, Memory};
use crate::geom::ConvGeom;
use crate::lanes::{EIGHT, Lanes, Plain};
use crate::par::{chunks, scratch};
use crate::simd::{Level, level, per_level};
use crate::transpose::{transpose, transpose_many};

/// Rows and columns of outputs in a tile.
const OUT: usize = 4;
/// Rows and columns of pixels that a tile sees.
const SEEN: usize = OUT + 2;
/// Taps of a filter.
const TAPS: usize = 9;
/// Products of a tile.
const PLACES: usize = SEEN * SEEN;
/// Tiles computed together, at most.
const TILES: usize = 64;
/// The same times channels, so that the second cache holds them at all places.
const NUMBERS: usize = 2048;
/// Floats between what belongs to two places, so that the places do not share sets of the cache.
const APART: usize = 16;

/// Whether this convolution and its `dx` can be computed so, and are quicker by it.
pub fn suits(g: &ConvGeom) -> bool {
    let how = g.how;
    let plain = (how.stride, how.dilation, how.groups) == (1, 1, 1) && (g.kh, g.kw) == (3, 3);
    let whole = [g.c, g.o].iter().all(|n| n.is_multiple_of(EIGHT) && *n >= 2 * EIGHT);
    // Tiles reach beyond small images.
    let few = |h: usize, w: usize| 3 * PLACES * h.div_ceil(OUT) * w.div_ceil(OUT) <= 2 * 9 * h * w;
    // The numbers of many filters are written to memory and read again, which few tiles do not repay.
    let tiles = g.n * g.oh.div_ceil(OUT) * g.ow.div_ceil(OUT);
    let used = tiles >= 16 || PLACES * g.c * g.o <= 1 << 18;
    plain && how.pad <= 2 && whole && few(g.oh, g.ow) && few(g.h, g.w) && used
}

/// [`conv2d`](super::conv2d) so.
///
/// # Panics
/// If a length does not fit the geometry, or it does not [`suits`].
#[track_caller]
pub fn conv2d(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    super::check("conv2d by winograd", g, x, w, y);
    assert!(suits(g), "conv2d by winograd: not a case for it: {g:?}");
    let level = level();
    run(g, x, false, y, |first, width, taps| {
        let row = g.c * TAPS;
        transpose(level, [width, row], &w[first * row..], row, taps, width);
    });
}

/// [`conv2d_dx`](super::conv2d_dx) so.
///
/// # Panics
/// If a length does not fit the geometry, or it does not [`suits`].
#[track_caller]
pub fn conv2d_dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    super::check("conv2d_dx by winograd", g, dx, w, dy);
    assert!(suits(g), "conv2d_dx by winograd: not a case for it: {g:?}");
    let how = g.how.pad(2 - g.how.pad);
    let back = ConvGeom::new(&[g.n, g.o, g.oh, g.ow], &[g.c, g.o, 3, 3], how);
    let level = level();
    run(&back, dy, true, dx, |first, width, taps| {
        let (from, to) = ([g.c * TAPS, TAPS], [TAPS * width, width]);
        transpose_many(level, g.o, [width, TAPS], &w[first * TAPS..], from, taps, to);
    });
}

/// `y` from `x`; `pack(first, width, taps)` writes `taps[c, tap, lane]` of the filters to channels `first`
/// on, and `turned` says whether the last tap comes first.
fn run(
    g: &ConvGeom,
    x: &[f32],
    turned: bool,
    y: &mut [f32],
    pack: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let level = level();
    let across = g.ow.div_ceil(OUT);
    let tiles = g.oh.div_ceil(OUT) * across;
    let together = TILES.min((NUMBERS / g.c).max(2 * EIGHT));
    let images = (together / tiles).max(1);
    let width = lanes(g.o);
    let block = PLACES * (g.c * width + APART);
    scratch(g.o / width * block, |u| {
        // By blocks of channels of y, then place, then channel of x.
        chunks(u, block, |block, u| {
            scratch(g.c * TAPS * width, |taps| {
                pack(block * width, width, taps);
                filters(level, taps, width, turned, u);
            });
        });
        let u = &*u;
        chunks(y, images * g.o * g.oh * g.ow, |at, y| {
            let job = Job { level, g, across, tiles, together };
            let first = at * images * g.c * g.h * g.w;
            job.compute(&x[first..], u, y);
        });
    });
}

/// Lanes of a block of `channels`.
fn lanes(channels: usize) -> usize {
    if channels.is_multiple_of(2 * EIGHT) { 2 * EIGHT } else { EIGHT }
}

struct Job<'a> {
    level: Level,
    g: &'a ConvGeom,
    /// Tiles in a row, and in an image.
    across: usize,
    tiles: usize,
    /// Tiles computed together, at most.
    together: usize,
}

impl Job<'_> {
    /// Some images: of all of them together, some tiles at a time.
    fn compute(&self, x: &[f32], u: &[f32], y: &mut [f32]) {
        let Job { level, g, across, tiles, together } = *self;
        let (plane, width) = (g.oh * g.ow, lanes(g.o));
        let images = y.len() / (g.o * plane);
        let (blocks, all) = (g.o / width, images * tiles);
        let padded = [tiles / across * OUT + 2, across * OUT + 2];
        let image = padded[0] * padded[1] * g.c;
        let (seen, found) = (together * g.c + APART, together * width + APART);
        let steps: Vec<u32> = (0..g.c).map(index).collect();
        let steps = Steps { table: &steps, repeats: 1, advance: 0 };
        let row = |t: usize| Row { base: index(t * g.c), slot: index(t) };
        let rows: Vec<Row> = (0..together.min(all)).map(row).collect();
        let lengths =
            [images * image, PLACES * seen, PLACES * found, blocks * images * plane * width];
        scratch(lengths.iter().sum(), |buffer| {
            let (pixels, buffer) = buffer.split_at_mut(lengths[0]);
            let (v, buffer) = buffer.split_at_mut(lengths[1]);
            let (m, last) = buffer.split_at_mut(lengths[2]);
            pixels.fill(0.0);
            for (x, pixels) in x.chunks(g.c * g.h * g.w).zip(pixels.chunks_exact_mut(image)) {
                self.channels_last(x, padded[1], pixels);
            }
            for first in (0..all).step_by(together) {
                let many = together.min(all - first);
                let place = |t: usize| {
                    let (image, tile) = ((first + t) / tiles, (first + t) % tiles);
                    [image, tile / across * OUT, tile % across * OUT]
                };
                for t in 0..many {
                    let [i, r, s] = place(t);
                    let pixels = &pixels[i * image + (r * padded[1] + s) * g.c..];
                    tile_in(level, pixels, [padded[1] * g.c, g.c], &mut v[t * g.c..], seen);
                }
                let far = g.c * width + APART;
                for (block, u) in u.chunks_exact(PLACES * far).enumerate() {
                    for (p, u) in u.chunks_exact(far).enumerate() {
                        let u = &u[..g.c * width];
                        let (v, rows) = (&v[p * seen..][..many * g.c], &rows[..many]);
                        let m = &mut m[p * found..][..many * width];
                        product(level, v, rows, steps, u, width, m);
                    }
                    let last = &mut last[block * images * plane * width..];
                    for t in 0..many {
                        let [i, r, s] = place(t);
                        let out = &mut last[i * plane * width..][..plane * width];
                        tile_out(level, &m[t * width..], found, width, out, [r, s], [g.oh, g.ow]);
                    }
                }
            }
            let outputs = last.chunks_exact(images * plane * width).enumerate();
            for (block, last) in outputs {
                for (i, last) in last.chunks_exact(plane * width).enumerate() {
                    let y = &mut y[(i * g.o + block * width) * plane..];
                    transpose(level, [plane, width], last, width, y, plane);
                }
            }
        });
    }

    /// An image with its channels last, within its padding.
    fn channels_last(&self, x: &[f32], columns: usize, pixels: &mut [f32]) {
        let Job { level, g, .. } = *self;
        let plane = g.h * g.w;
        scratch(plane * g.c, |turned| {
            transpose(level, [g.c, plane], x, plane, turned, g.c);
            // What lies beyond the last tile is seen by nobody.
            let (down, across) = (pixels.len() / (columns * g.c), columns);
            let used = g.w.min(across.saturating_sub(g.how.pad));
            for (r, row) in turned.chunks_exact(g.w * g.c).enumerate() {
                let r = r + g.how.pad;
                if r < down {
                    let at = (r * columns + g.how.pad) * g.c;
                    pixels[at..][..used * g.c].copy_from_slice(&row[..used * g.c]);
                }
            }
        });
    }
}

/// Tiles by channels of `x`, times these by a block of channels of `y`.
fn product(
    level: Level,
    v: &[f32],
    rows: &[Row],
    steps: Steps<'_>,
    u: &[f32],
    width: usize,
    m: &mut [f32],
) {
    let ahead = &mut Ahead::new([Memory::NONE; 2], 1);
    if width == EIGHT {
        let m = m.as_chunks_mut().0;
        gather_product::<EIGHT>(level, v, rows, steps, u, EIGHT, Write::Over, m, ahead);
    } else {
        let m = m.as_chunks_mut().0;
        gather_product::<{ 2 * EIGHT }>(level, v, rows, steps, u, 2 * EIGHT, Write::Over, m, ahead);
    }
}

per_level! {
    /// `u[place, c, lane] = G w Gᵀ` of a block of filters.
    fn filters[](taps: &[f32], width: usize, turned: bool, u: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return spread_filters::<crate::lanes::Avx>(taps, width, turned, u);
        }
        spread_filters::<Plain>(taps, width, turned, u);
    }

    /// `v[place] = Bᵀ d B` of one tile, all channels; pixels a row and a column apart, places `far`.
    fn tile_in[](pixels: &[f32], apart: [usize; 2], v: &mut [f32], far: usize) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return seen::<crate::lanes::Avx>(pixels, apart, v, far);
        }
        seen::<Plain>(pixels, apart, v, far);
    }

    /// `y = Aᵀ m A` of one tile, `width` channels, as far as it lies within the image.
    fn tile_out[](
        m: &[f32],
        far: usize,
        width: usize,
        y: &mut [f32],
        at: [usize; 2],
        size: [usize; 2],
    ) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return found::<crate::lanes::Avx>(m, far, width, y, at, size);
        }
        found::<Plain>(m, far, width, y, at, size);
    }
}

/// Eight numbers from a place on.
///
/// # Safety
/// They lie inside `x`.
#[inline(always)]
unsafe fn load<L: Lanes>(x: &[f32], at: usize) -> L {
    // SAFETY: as asked for; an array of floats lies wherever its first one may.
    L::load(unsafe { &*x.as_ptr().add(at).cast() })
}

/// The same to there.
///
/// # Safety
/// They lie inside `y`.
#[inline(always)]
unsafe fn store<L: Lanes>(x: L, y: &mut [f32], at: usize) {
    // SAFETY: as asked for.
    x.store(unsafe { &mut *y.as_mut_ptr().add(at).cast() });
}

#[inline(always)]
fn spread_filters<L: Lanes>(taps: &[f32], width: usize, turned: bool, u: &mut [f32]) {
    let far = taps.len() / TAPS + APART;
    assert!(width.is_multiple_of(EIGHT) && taps.len().is_multiple_of(TAPS * width), "filters");
    assert!(PLACES * far <= u.len(), "filters: places of a block");
    for (c, filter) in taps.chunks_exact(TAPS * width).enumerate() {
        for part in (0..width).step_by(EIGHT) {
            // SAFETY: a tap is below TAPS and `part` + 8 at most `width`: see the asserts.
            let tap = |at: usize| unsafe { load(filter, at * width + part) };
            let tap = |at| tap(if turned { TAPS - 1 - at } else { at });
            let rows: [[L; SEEN]; 3] =
                std::array::from_fn(|r| spread_filter(std::array::from_fn(|s| tap(3 * r + s))));
            for s in 0..SEEN {
                let column = spread_filter::<L>(std::array::from_fn(|r| rows[r][s]));
                for r in 0..SEEN {
                    // SAFETY: the place is below PLACES, and what belongs to one is `far` long.
                    unsafe { store(column[r], u, (r * SEEN + s) * far + c * width + part) };
                }
            }
        }
    }
}

/// Rows of G: 1/4 0 0;  -1/6 ∓1/6 -1/6;  1/24 ±1/12 1/6;  0 0 1.
#[inline(always)]
fn spread_filter<L: Lanes>([a, b, c]: [L; 3]) -> [L; SEEN] {
    let [quarter, sixth, twelfth] = [0.25, 1.0 / 6.0, 1.0 / 12.0].map(L::splat);
    let (ends, middle) = (sixth.mul(a.add(c)), sixth.mul(b));
    let (wide, far) = (L::splat(1.0 / 24.0).mul(a).add(sixth.mul(c)), twelfth.mul(b));
    [quarter.mul(a), ends.add(middle).neg(), middle.sub(ends), wide.add(far), wide.sub(far), c]
}

#[inline(always)]
fn seen<L: Lanes>(pixels: &[f32], [down, across]: [usize; 2], v: &mut [f32], far: usize) {
    assert!(across.is_multiple_of(EIGHT), "tile_in: {across} channels");
    assert!((SEEN - 1) * down + SEEN * across <= pixels.len(), "tile_in: pixels of a tile");
    assert!((PLACES - 1) * far + across <= v.len(), "tile_in: places of a tile");
    for c in (0..across).step_by(EIGHT) {
        let mut rows = [[L::splat(0.0); SEEN]; SEEN];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: r and s are below SEEN, and c + 8 at most `across`: see the asserts.
            let at = |s: usize| unsafe { load(pixels, r * down + s * across + c) };
            *row = spread(std::array::from_fn(at));
        }
        for s in 0..SEEN {
            let column = spread(std::array::from_fn(|r| rows[r][s]));
            for r in 0..SEEN {
                // SAFETY: the place is below PLACES, and c + 8 at most `across`.
                unsafe { store(column[r], v, (r * SEEN + s) * far + c) };
            }
        }
    }
}

#[inline(always)]
fn found<L: Lanes>(
    m: &[f32],
    far: usize,
    width: usize,
    y: &mut [f32],
    [top, left]: [usize; 2],
    [h, w]: [usize; 2],
) {
    assert!(width.is_multiple_of(EIGHT), "tile_out: {width} channels");
    assert!((PLACES - 1) * far + width <= m.len(), "tile_out: places of a tile");
    assert!(top < h && left < w && h * w * width <= y.len(), "tile_out: an image");
    for c in (0..width).step_by(EIGHT) {
        let mut columns = [[L::splat(0.0); OUT]; SEEN];
        for (s, column) in columns.iter_mut().enumerate() {
            // SAFETY: the place is below PLACES, and c + 8 at most `width`: see the asserts.
            let at = |r: usize| unsafe { load(m, (r * SEEN + s) * far + c) };
            *column = gather(std::array::from_fn(at));
        }
        for r in 0..OUT.min(h - top) {
            let row = gather::<L>(std::array::from_fn(|s| columns[s][r]));
            for s in 0..OUT.min(w - left) {
                // SAFETY: the row is below h, the column below w, and c + 8 at most `width`.
                unsafe { store(row[s], y, ((top + r) * w + left + s) * width + c) };
            }
        }
    }
}

/// Rows of Bᵀ: 4 0 -5 0 1 0;  0 ∓4 -4 ±1 1 0;  0 ∓2 -1 ±2 1 0;  0 4 0 -5 0 1.
#[inline(always)]
fn spread<L: Lanes>([a, b, c, d, e, f]: [L; SEEN]) -> [L; SEEN] {
    let [two, four, five] = [2.0, 4.0, 5.0].map(L::splat);
    let (outer, inner) = (e.sub(four.mul(c)), d.sub(four.mul(b)));
    let (near, far) = (e.sub(c), two.mul(d.sub(b)));
    [
        four.mul(a).sub(five.mul(c)).add(e),
        outer.add(inner),
        outer.sub(inner),
        near.add(far),
        near.sub(far),
        four.mul(b).sub(five.mul(d)).add(f),
    ]
}

/// Rows of Aᵀ: 1 1 1 1 1 0;  0 1 -1 2 -2 0;  0 1 1 4 4 0;  0 1 -1 8 -8 1.
#[inline(always)]
fn gather<L: Lanes>([a, b, c, d, e, f]: [L; SEEN]) -> [L; OUT] {
    let [two, four, eight] = [2.0, 4.0, 8.0].map(L::splat);
    let (sum, apart) = (b.add(c), b.sub(c));
    let (wide_sum, wide) = (d.add(e), d.sub(e));
    [
        a.add(sum).add(wide_sum),
        apart.add(two.mul(wide)),
        sum.add(four.mul(wide_sum)),
        apart.add(eight.mul(wide)).add(f),
    ]
}
