//! Images laid out for a convolution: each tap of a pixel beside the same tap of the pixel before.
//!
//! A tap `(u, v)` of all output pixels is a window of the image: `x[i·stride + y0, j·stride + x0]` with
//! `y0 = u·dilation - pad`, `x0 = v·dilation - pad`. Laid out without gaps between rows of `OW` bytes,
//! 32 neighbours always hold the same tap of 32 output pixels, however narrow the image and whatever
//! the stride, and what pads the image is one more byte value. Taps whose windows are a whole number
//! of vectors apart share one taller window; all others begin their own, so that no load is ever
//! split between cache lines. Small images follow one another in a window, so that vectors fill.

use super::lookup::{self, UNIT};
use super::pack::Pad;
use crate::ConvGeom;
use crate::simd::{Level, per_level};

/// How a few images of one geometry are laid out: `[C/groups/4][windows][images][rows][OW]`.
#[derive(Debug)]
pub(super) struct Stage {
    g: ConvGeom,
    /// Images laid out together.
    pub images: usize,
    /// What a pixel outside is, for all quads of channels but the last, and for the last.
    outside: [u8; 2],
    windows: Vec<Window>,
    /// Bytes of one window.
    size: usize,
    /// Rows of one window of one image.
    rows: usize,
    /// Where each tap begins within the windows of a quad.
    taps: Vec<usize>,
    /// For each column of the filter, the pixels of an image that it meets, if pixels of a window
    /// are neighbours in the image: set bytes where they lie inside.
    masks: Vec<Vec<u8>>,
}

/// What a window shows of one image; all else in it is padding.
#[derive(Debug)]
struct Window {
    /// Place in the window, and in the image, of the first pixel shown.
    to: usize,
    from: usize,
    /// Rows shown, and pixels of each.
    rows: usize,
    columns: usize,
    /// Column of the filter.
    v: usize,
}

impl Stage {
    pub fn new(g: &ConvGeom, pad: Pad, images: usize, aligned: usize) -> Stage {
        let (stride, dilation) = (g.how.stride, g.how.dilation);
        // The window that taps (u, v) share, and how many rows in they begin.
        let mut shared: Vec<(usize, usize)> = Vec::new();
        let mut starts = Vec::with_capacity(g.kh);
        for u in 0..g.kh {
            let found = shared.iter().enumerate().find_map(|(i, &(first, _))| {
                let apart = (u - first) * dilation;
                let rows = apart / stride;
                let fits = images == 1
                    && apart.is_multiple_of(stride)
                    && (rows * g.ow).is_multiple_of(aligned);
                fits.then_some((i, rows))
            });
            let (i, rows) = found.unwrap_or_else(|| {
                shared.push((u, 0));
                (shared.len() - 1, 0)
            });
            shared[i].1 = rows;
            starts.push((i, rows));
        }
        let rows = g.oh + shared.iter().map(|s| s.1).max().unwrap_or(0);
        let size = lookup::apart(images * rows * g.ow);
        let flat = stride == 1 && g.ow == g.w;
        let window = |u: usize, v: usize| {
            let at = u * dilation;
            let first = g.how.pad.saturating_sub(at).div_ceil(stride).min(rows);
            let end = (g.h + g.how.pad).saturating_sub(at).div_ceil(stride).clamp(first, rows);
            let inside = g.inside_x(v);
            if first == end || inside.is_empty() {
                return Window { to: 0, from: 0, rows: 0, columns: 0, v };
            }
            Window {
                to: first * g.ow + inside.start,
                from: (first * stride + at - g.how.pad) * g.w
                    + (inside.start * stride + v * dilation - g.how.pad),
                rows: end - first,
                columns: inside.len(),
                v,
            }
        };
        let taps = starts
            .iter()
            .flat_map(|&(i, rows)| (0..g.kw).map(move |v| (i * g.kw + v) * size + rows * g.ow));
        let mask = |v| {
            let mut row = vec![0; g.w];
            row[..g.inside_x(v).len()].fill(0xFF);
            row.repeat(g.h)
        };
        Stage {
            g: *g,
            images,
            outside: [pad.byte(4), pad.byte((g.group_c() - 1) % 4 + 1)],
            size,
            rows,
            taps: taps.collect(),
            masks: (0..if flat { g.kw } else { 0 }).map(mask).collect(),
            windows: shared.iter().flat_map(|s| (0..g.kw).map(|v| window(s.0, v))).collect(),
        }
    }

    fn quads(&self) -> usize {
        self.g.group_c().div_ceil(4)
    }

    /// Bytes needed to lay out one group of channels.
    pub fn len(&self) -> usize {
        self.quads() * self.windows.len() * self.size + 64
    }

    /// Bytes of memory that its tables hold.
    pub fn bytes(&self) -> usize {
        let masks: usize = self.masks.iter().map(Vec::len).sum();
        masks + size_of_val(&self.windows[..]) + size_of_val(&self.taps[..])
    }

    /// `len` bytes of the scratch, beginning with a cache line.
    pub fn aligned(scratch: &mut [f32], len: usize) -> &mut [u8] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(scratch);
        let skip = bytes.as_ptr().align_offset(64);
        &mut bytes[skip..][..len]
    }

    /// Where each quad of channels and tap begins, in the order of a filter's bytes.
    pub fn offsets(&self) -> Vec<u32> {
        let quad = self.windows.len() * self.size;
        let offset = |at| u32::try_from(at).expect("an image of less than 4 GiB");
        (0..self.quads())
            .flat_map(|q| self.taps.iter().map(move |tap| offset(q * quad + tap)))
            .collect()
    }

    /// Lays out one group of the image whose planes are `x` as the `b`-th of the images.
    pub fn fill(&self, level: Level, b: usize, x: &[u8], staged: &mut [u8]) {
        fill(level, self, b, x, staged)
    }
}

per_level! {
    fn fill[](stage: &Stage, b: usize, x: &[u8], staged: &mut [u8]) {
        let g = &stage.g;
        let [outside, outside_last] = stage.outside;
        let quad = stage.windows.len() * stage.size;
        let last = (stage.quads() - 1) * quad;
        if b == 0 {
            staged[..last].fill(outside);
            staged[last..].fill(outside_last);
        }
        for (i, window) in stage.windows.iter().enumerate() {
            if window.rows == 0 {
                continue;
            }
            let to = i * stage.size + b * stage.rows * g.ow + window.to;
            let quads = x.chunks_exact(g.h * g.w).zip(staged[to..].chunks_mut(quad));
            if let Some(mask) = stage.masks.get(window.v) {
                let len = (window.rows - 1) * g.w + window.columns;
                let mask = &mask[..len];
                for (q, (x, to)) in quads.enumerate() {
                    let outside = if q * quad == last { outside_last } else { outside };
                    blend(&x[window.from..][..len], mask, outside, &mut to[..len]);
                }
            } else {
                for (x, to) in quads {
                    let x = &x[window.from..];
                    match g.how.stride {
                        1 => thin::<1>(g, window, x, to),
                        2 => thin::<2>(g, window, x, to),
                        3 => thin::<3>(g, window, x, to),
                        _ => thin::<0>(g, window, x, to),
                    }
                }
            }
        }
    }
}

/// `to = x` where the mask is set, `outside` elsewhere, as far as `to` goes.
#[inline(always)]
fn blend(x: &[u8], mask: &[u8], outside: u8, to: &mut [u8]) {
    let len = to.len();
    let (x, mask) = (&x[..len], &mask[..len]);
    if len < UNIT {
        for i in 0..len {
            to[i] = (x[i] & mask[i]) | (outside & !mask[i]);
        }
        return;
    }
    let mut from = 0;
    while from < len {
        // The last piece overlaps the one before rather than fall short of a vector.
        let at = from.min(len - UNIT);
        let (x, mask, to) = (&x[at..][..UNIT], &mask[at..][..UNIT], &mut to[at..][..UNIT]);
        for i in 0..UNIT {
            to[i] = (x[i] & mask[i]) | (outside & !mask[i]);
        }
        from += UNIT;
    }
}

/// `to[i, j] = x[i·stride, j·stride]`, for a stride of `S` if that is not 0.
#[inline(always)]
fn thin<const S: usize>(g: &ConvGeom, window: &Window, x: &[u8], to: &mut [u8]) {
    const WIDE: usize = 8;
    let s = if S == 0 { g.how.stride } else { S };
    let columns = window.columns;
    for i in 0..window.rows {
        let (x, to) = (&x[i * s * g.w..], &mut to[i * g.ow..][..columns]);
        if columns >= WIDE && x.len() >= s * columns {
            let mut from = 0;
            while from < columns {
                // The last piece overlaps the one before rather than fall short.
                let at = from.min(columns - WIDE);
                let (x, to) = (&x[s * at..][..s * WIDE], &mut to[at..][..WIDE]);
                if S == 2 {
                    // The compiler narrows words in vectors, which it would not see in bytes.
                    for (to, &two) in to.iter_mut().zip(x.as_chunks::<2>().0) {
                        *to = u16::from_le_bytes(two) as u8;
                    }
                } else {
                    for j in 0..WIDE {
                        to[j] = x[s * j];
                    }
                }
                from += WIDE;
            }
        } else {
            for (j, to) in to.iter_mut().enumerate() {
                *to = x[s * j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Conv;

    #[test]
    fn each_tap_of_a_pixel_is_where_the_offsets_say() {
        for (size, k, how) in [
            (8, 3, Conv::same(3)),
            (5, 3, Conv::same(3).stride(2)),
            (16, 3, Conv::same(3).stride(2)),
            (32, 5, Conv::same(5)),
            (9, 2, Conv::valid().pad(3).dilation(2)),
            (40, 3, Conv::valid().stride(3).pad(2)),
            (3, 7, Conv::same(7)),
        ] {
            let g = ConvGeom::new(&[2, 7, size, size + 1], &[1, 7, k, k], how);
            let area = g.h * g.w;
            let image = |b: usize| (0..2 * area).map(move |i| ((i * 7 + b * 5) % 13) as u8);
            for (images, aligned) in [(1, UNIT), (1, 4), (2, UNIT)] {
                let stage = Stage::new(&g, Pad::Plus, images, aligned);
                let mut staged = vec![0xEE; stage.len()];
                for b in 0..images {
                    let planes: Vec<_> = image(b).collect();
                    stage.fill(crate::simd::level(), b, &planes, &mut staged);
                }
                for (k, &offset) in stage.offsets().iter().enumerate() {
                    let (q, u, v) = (k / (g.kh * g.kw), k / g.kw % g.kh, k % g.kw);
                    for pixel in 0..images * g.oh * g.ow {
                        let (b, i, j) = (pixel / (g.oh * g.ow), pixel / g.ow % g.oh, pixel % g.ow);
                        let y = (i * how.stride + u * how.dilation).wrapping_sub(how.pad);
                        let x = (j * how.stride + v * how.dilation).wrapping_sub(how.pad);
                        let want = if y < g.h && x < g.w {
                            image(b).nth(q * area + y * g.w + x)
                        } else {
                            Some([0xF, 0x7][q])
                        };
                        let got = staged[offset as usize + pixel];
                        assert_eq!(Some(got), want, "{g:?}: tap {u}, {v}, image {b}, {i}, {j}");
                    }
                }
            }
        }
    }
}
