//! Signs of floats into bytes and back: the images and filters of a convolution.

use super::bit;
use super::words::{PIECE, gather};
use crate::simd::{self, Level, per_level};
use crate::{ConvGeom, par};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What stands outside a +-1 image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pad {
    /// Nothing: a tap outside the image is left out of the sum.
    #[default]
    Zero,
    /// -1 everywhere.
    Minus,
    /// +1 everywhere.
    Plus,
}

impl Pad {
    /// The number that a tap outside the image meets.
    pub const fn value(self) -> f32 {
        match self {
            Pad::Zero => 0.0,
            Pad::Minus => -1.0,
            Pad::Plus => 1.0,
        }
    }

    /// The byte of a pixel outside whose first `channels` channels exist.
    pub(super) fn byte(self, channels: usize) -> u8 {
        match self {
            Pad::Zero => 0x80,
            Pad::Minus => 0,
            Pad::Plus => 0xF >> 4usize.saturating_sub(channels),
        }
    }
}

/// The signs of `x`, of `shape` `N C H W`, in planes of nibbles: `[N][groups][C/groups/4][H][W]`; whether
/// a NaN was among them (as +1). It allocates nothing.
///
/// ```
/// use dirnet_kernels::bits::pack_planes;
/// let mut planes = [0; 2];
/// let nan = pack_planes([1, 3, 1, 2], 1, &[1.0, -1.0, -2.0, -2.0, 0.0, 3.0], &mut planes);
/// assert_eq!((planes, nan), ([0b101, 0b100], false));
/// ```
///
/// # Panics
/// If the groups do not divide the channels, or a length does not fit.
#[track_caller]
pub fn pack_planes(shape: [usize; 4], groups: usize, x: &[f32], planes: &mut [u8]) -> bool {
    const OP: &str = "bits::pack_planes";
    let [n, c, h, w] = shape;
    assert!(groups > 0 && c.is_multiple_of(groups), "{OP}: {groups} groups of {c} channels");
    let (level, area, group_c) = (simd::level(), h * w, c / groups);
    let quads = group_c.div_ceil(4);
    assert_eq!(x.len(), n * c * area, "{OP}: x of {shape:?}");
    assert_eq!(planes.len(), n * groups * quads * area, "{OP}: planes of {shape:?}");
    let nan = AtomicBool::new(false);
    let some = (par::GRAIN / (4 * area).max(1)).max(1);
    par::chunks(planes, some * area, |i, planes| {
        for (j, plane) in planes.chunks_mut(area).enumerate() {
            let (group, quad) = ((i * some + j) / quads, (i * some + j) % quads);
            let end = (group + 1) * group_c;
            let first = group * group_c + 4 * quad;
            if pack_plane(level, &x[first * area..], end.min(first + 4) - first, plane) {
                nan.store(true, Relaxed);
            }
        }
    });
    nan.into_inner()
}

/// A batch of +-1 images, ready for the convolution of one [`ConvGeom`]: two bits a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    shape: [usize; 4],
    groups: usize,
    nan: bool,
    /// `[N][groups][C/groups/4][H][W]` nibbles.
    bytes: Vec<u8>,
}

impl Image {
    /// The signs of `x`, of shape `N C H W`.
    ///
    /// # Panics
    /// If `x` is not as long as `g` says.
    #[track_caller]
    pub fn pack(g: &ConvGeom, x: &[f32]) -> Image {
        assert_eq!(x.len(), g.x_len(), "bits::Image::pack: x of {:?}", g.x());
        let quads = g.group_c().div_ceil(4);
        let mut bytes = vec![0; g.n * g.how.groups * quads * g.h * g.w];
        let nan = pack_planes(g.x(), g.how.groups, x, &mut bytes);
        Image { shape: g.x(), groups: g.how.groups, nan, bytes }
    }

    /// Images whose planes of nibbles are made already, as of one group.
    pub(crate) fn of_planes(shape: [usize; 4], nan: bool, bytes: Vec<u8>) -> Image {
        let [n, c, h, w] = shape;
        assert_eq!(bytes.len(), n * c.div_ceil(4) * h * w);
        Image { shape, groups: 1, nan, bytes }
    }

    /// Whether they are what [`Image::pack`] makes for `g`.
    pub fn suits(&self, g: &ConvGeom) -> bool {
        (self.shape, self.groups) == (g.x(), g.how.groups)
    }

    /// Writes +-1.0 in the shape `N C H W`.
    ///
    /// # Panics
    /// If `y` has another length.
    #[track_caller]
    pub fn unpack(&self, y: &mut [f32]) {
        let [n, c, h, w] = self.shape;
        assert_eq!(y.len(), n * c * h * w, "bits::Image::unpack: y of {:?}", self.shape);
        let (level, channels) = (simd::level(), (par::GRAIN / (h * w)).max(1));
        par::chunks(y, channels * h * w, |i, y| {
            for (j, y) in y.chunks_mut(h * w).enumerate() {
                self.expand(level, i * channels + j, y, w);
            }
        });
    }

    /// Writes plane `i` of all `N·C` as floats, rows `pitch` apart.
    pub(super) fn expand(&self, level: Level, i: usize, y: &mut [f32], pitch: usize) {
        let [_, c, h, w] = self.shape;
        let group_c = c / self.groups;
        let (group, c) = (i / group_c, i % group_c);
        let plane = group * group_c.div_ceil(4) + c / 4;
        let x = &self.bytes[plane * h * w..][..h * w];
        for (x, y) in x.chunks_exact(w).zip(y.chunks_mut(pitch)) {
            unpack_row(level, x, (c % 4) as u32, &mut y[..w]);
        }
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether a NaN was packed (as +1).
    pub fn has_nan(&self) -> bool {
        self.nan
    }

    /// Planes of image `n` and group `group`.
    pub(super) fn planes(&self, n: usize, group: usize) -> &[u8] {
        let size = self.bytes.len() / (self.shape[0] * self.groups);
        &self.bytes[(n * self.groups + group) * size..][..size]
    }

    #[track_caller]
    pub(super) fn check(&self, op: &str, g: &ConvGeom) {
        let mine = (self.shape, self.groups);
        assert_eq!(mine, (g.x(), g.how.groups), "{op}: image packed for another shape or groups");
    }
}

/// The +-1 filters of one [`ConvGeom`]: one bit a number.
#[derive(Clone, Debug)]
pub struct Filters {
    shape: [usize; 4],
    groups: usize,
    /// `[groups][O/groups/2][C/groups/4][KH][KW]` pairs of nibbles.
    bytes: Vec<u8>,
}

impl Filters {
    /// The signs of `w`, of shape `O C/groups KH KW`.
    ///
    /// # Panics
    /// If `w` is not as long as `g` says.
    #[track_caller]
    pub fn pack(g: &ConvGeom, w: &[f32]) -> Filters {
        assert_eq!(w.len(), g.w_len(), "bits::Filters::pack: w of {:?}", g.filters());
        Filters::of(g, |i| bit(w[i]))
    }

    /// Filters whose `i`-th number, in the order of `O C/groups KH KW`, is +1 where `plus(i)` says so.
    pub fn of_signs(g: &ConvGeom, plus: impl Fn(usize) -> bool + Sync) -> Filters {
        Filters::of(g, |i| u8::from(plus(i)))
    }

    #[inline]
    fn of(g: &ConvGeom, bit: impl Fn(usize) -> u8 + Sync) -> Filters {
        let taps = g.kh * g.kw;
        let (pairs, quads) = (g.group_o().div_ceil(2), g.group_c().div_ceil(4));
        let mut bytes = vec![0; g.how.groups * pairs * quads * taps];
        par::chunks(&mut bytes, quads * taps, |i, bytes| {
            let (group, pair) = (i / pairs, i % pairs);
            for o in 2 * pair..g.group_o().min(2 * pair + 2) {
                let first = (group * g.group_o() + o) * g.taps();
                for c in 0..g.group_c() {
                    let shift = 4 * (o % 2) + c % 4;
                    let from = first + c * taps;
                    for (tap, byte) in bytes[c / 4 * taps..][..taps].iter_mut().enumerate() {
                        *byte |= bit(from + tap) << shift;
                    }
                }
            }
        });
        Filters { shape: g.filters(), groups: g.how.groups, bytes }
    }

    /// Writes +-1.0 in the shape `O C/groups KH KW`.
    ///
    /// # Panics
    /// If `w` has another length.
    #[track_caller]
    pub fn unpack(&self, w: &mut [f32]) {
        let [o, c, kh, kw] = self.shape;
        assert_eq!(w.len(), o * c * kh * kw, "bits::Filters::unpack: w of {:?}", self.shape);
        let (taps, group_o) = (kh * kw, o / self.groups);
        let some = (par::GRAIN / (c * taps)).max(1);
        par::chunks(w, some * c * taps, |i, w| {
            for (j, w) in w.chunks_mut(c * taps).enumerate() {
                let (group, o) = ((i * some + j) / group_o, (i * some + j) % group_o);
                let pair = group * group_o.div_ceil(2) + o / 2;
                let bytes = &self.bytes[pair * c.div_ceil(4) * taps..];
                if taps == 1 {
                    let four = |byte: u8| &FOUR[usize::from(byte >> (4 * (o % 2)) & 15)];
                    let (fours, rest) = w.as_chunks_mut();
                    fours.iter_mut().zip(bytes).for_each(|(w, byte)| *w = *four(*byte));
                    if !rest.is_empty() {
                        rest.copy_from_slice(&four(bytes[fours.len()])[..rest.len()]);
                    }
                    continue;
                }
                for (c, w) in w.chunks_mut(taps).enumerate() {
                    let shift = 4 * (o % 2) + c % 4;
                    for (w, byte) in w.iter_mut().zip(&bytes[c / 4 * taps..]) {
                        *w = value(byte >> shift);
                    }
                }
            }
        });
    }

    /// Bytes of memory they hold.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Pairs of nibbles of `group`: `[O/groups/2][C/groups/4][KH][KW]`.
    pub(super) fn pairs(&self, group: usize) -> &[u8] {
        let size = self.bytes.len() / self.groups;
        &self.bytes[group * size..][..size]
    }

    #[track_caller]
    pub(super) fn check(&self, op: &str, g: &ConvGeom) {
        let mine = (self.shape, self.groups);
        assert_eq!(
            mine,
            (g.filters(), g.how.groups),
            "{op}: filters packed for another shape or groups"
        );
    }
}

/// +1.0 or -1.0, as the lowest bit says.
#[inline(always)]
pub(super) const fn value(bits: u8) -> f32 {
    if bits & 1 == 1 { 1.0 } else { -1.0 }
}

/// The four numbers of each nibble.
const FOUR: [[f32; 4]; 16] = {
    let mut four = [[0.0; 4]; 16];
    let mut i = 0;
    while i < 64 {
        four[i / 4][i % 4] = value(((i / 4) >> (i % 4)) as u8);
        i += 1;
    }
    four
};

per_level! {
    /// The first few planes of floats into one of nibbles; whether a NaN was among them, or among
    /// some that follow.
    fn pack_plane[](x: &[f32], channels: usize, plane: &mut [u8]) -> bool {
        let (area, mut nan) = (plane.len(), false);
        for (i, plane) in plane.chunks_mut(PIECE).enumerate() {
            let mut bytes = [0; PIECE];
            for b in 0..channels {
                // Bits of what follows are dropped; whole pieces are quicker.
                nan |= gather::<FUSED>(&x[b * area + i * PIECE..], b as u32, &mut bytes);
            }
            plane.copy_from_slice(&bytes[..plane.len()]);
        }
        nan
    }

    fn unpack_row[](x: &[u8], b: u32, y: &mut [f32]) {
        for (y, byte) in y.iter_mut().zip(x) {
            *y = value(byte >> b);
        }
    }
}
