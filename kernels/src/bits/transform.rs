//! What becomes of the numbers of a layer: the last step of a prepared kernel, taken while the cache
//! still holds its sums.

use super::words::{PIECE, compare, gather};
use crate::lanes::{EIGHT, Lanes, Plain, Stored};
use crate::norm_act::Activation;
use crate::par::{self, Cut};
use crate::simd::{self, Level, per_level};

/// From a number `z` of channel `c` to `y` and to its sign.
#[derive(Clone, Copy, Debug)]
pub enum Transform<'a> {
    /// `y = act(a[c]·(scale[c]·z) + b[c] + residual)`, each step rounded: to the bit what
    /// [`NormAct`](crate::norm_act::NormAct) computes where the mean is 0.
    Affine {
        /// What a number is worth.
        scale: &'a [f32],
        /// What that is multiplied with.
        a: &'a [f32],
        /// What is added to it.
        b: &'a [f32],
        /// What is applied at the end.
        act: Activation,
    },
    /// `y = scale[c]·z`
    Scale {
        /// One number a channel.
        scale: &'a [f32],
    },
    /// Signs only, without a float between.
    Threshold(&'a Thresholds),
}

/// From which number on the sign of each channel is +1, or where `flip` says so, -1:
/// `(z >= at[c]) xor flip[c]`. A channel at -∞ has the same sign always.
///
/// ```
/// use dirnet_kernels::bits::Thresholds;
/// let always = f32::NEG_INFINITY;
/// let signs = Thresholds::new(&[0.5, 3.0, always, always], &[false, true, false, true]);
/// let plus: Vec<bool> = (0..4).map(|c| signs.plus(c, 2.0)).collect();
/// assert_eq!(plus, [true, true, true, false]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    at: Vec<f32>,
    flip: Vec<bool>,
}

impl Thresholds {
    /// One pair a channel.
    ///
    /// # Panics
    /// If there are not as many of both, or a threshold is NaN.
    #[track_caller]
    pub fn new(at: &[f32], flip: &[bool]) -> Thresholds {
        assert_eq!(at.len(), flip.len(), "bits::Thresholds: one of each a channel");
        assert!(!at.iter().any(|at| at.is_nan()), "bits::Thresholds: a threshold is NaN");
        Thresholds { at: at.to_vec(), flip: flip.to_vec() }
    }

    /// Whether `z` of channel `c` becomes +1.
    pub fn plus(&self, c: usize, z: f32) -> bool {
        (z >= self.at[c]) ^ self.flip[c]
    }

    /// Bytes of memory they hold.
    pub fn bytes(&self) -> usize {
        4 * self.at.capacity() + self.flip.capacity()
    }
}

/// A number that a transform begins with.
pub(super) trait Number: Stored + PartialOrd + bytemuck::Pod {
    /// Limit and flip that say the same of such numbers.
    fn limit(at: f32, flip: bool) -> (Self, bool);

    fn is_nan(self) -> bool;

    /// Sets bit `b` of each byte whose number is at least the limit, or where `flip` says so, below it.
    #[inline(always)]
    fn compare<const AVX2: bool>(
        z: &[Self; PIECE],
        limit: Self,
        flip: bool,
        b: u32,
        y: &mut [u8; PIECE],
    ) {
        for (y, z) in y.iter_mut().zip(z) {
            *y |= u8::from((*z >= limit) ^ flip) << b;
        }
    }
}

impl Number for f32 {
    fn limit(at: f32, flip: bool) -> (f32, bool) {
        (at, flip)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Number for i16 {
    fn limit(at: f32, flip: bool) -> (i16, bool) {
        // Beyond the largest of them is nothing, just as from the smallest on is all.
        if at > f32::from(i16::MAX) { (i16::MIN, !flip) } else { (at.ceil() as i16, flip) }
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
    #[inline(always)]
    fn compare<const AVX2: bool>(
        z: &[i16; PIECE],
        limit: i16,
        flip: bool,
        b: u32,
        y: &mut [u8; PIECE],
    ) {
        compare::<AVX2>(z, limit, flip, b, y);
    }
}

/// Numbers of some channels at neighbouring pixels of an image.
pub(super) struct Block<'a, Z> {
    /// `[channels][pitch]`, of which the first `pixels` count.
    pub z: &'a [Z],
    pub pitch: usize,
    pub pixels: usize,
    pub channels: usize,
    /// The first of them, by which the transform knows it.
    pub first: usize,
    /// Where it is in the outputs: a channel, a pixel, and pixels from one channel to the next.
    pub channel: usize,
    pub pixel: usize,
    pub area: usize,
}

/// Images, or channels of one image, and where their outputs begin.
pub(super) struct Out<'a> {
    pub y: Option<&'a mut [f32]>,
    pub signs: Option<&'a mut [u8]>,
    /// Elements of each in a piece.
    pub sizes: [usize; 2],
}

impl Cut for Out<'_> {
    fn cut(self, pieces: usize) -> (Self, Self) {
        let sizes = self.sizes;
        let (y, y_rest) = self.y.map(|y| y.split_at_mut(y.len().min(pieces * sizes[0]))).unzip();
        let (signs, signs_rest) =
            self.signs.map(|s| s.split_at_mut(s.len().min(pieces * sizes[1]))).unzip();
        (Out { y, signs, sizes }, Out { y: y_rest, signs: signs_rest, sizes })
    }
}

impl Transform<'_> {
    /// Checks that there are numbers for `channels`, and that it can give what is asked for.
    #[track_caller]
    pub(crate) fn check(&self, op: &str, channels: usize, residual: bool, y: bool) {
        let enough = match self {
            Transform::Affine { scale, a, b, .. } => {
                [scale, a, b].iter().all(|s| s.len() == channels)
            }
            Transform::Scale { scale } => scale.len() == channels,
            Transform::Threshold(t) => t.at.len() == channels,
        };
        assert!(enough, "{op}: numbers of the transform for each of {channels} channels");
        assert!(!residual || matches!(self, Transform::Affine { .. }), "{op}: only an affine adds");
        assert!(
            !y || !matches!(self, Transform::Threshold(_)),
            "{op}: a threshold gives signs only"
        );
    }

    /// Writes `y` of one channel.
    pub(crate) fn plane(&self, level: Level, c: usize, x: &[f32], y: &mut [f32]) {
        let (pitch, pixels) = (x.len(), x.len());
        let block = Block {
            z: x,
            pitch,
            pixels,
            channels: 1,
            first: c,
            channel: 0,
            pixel: 0,
            area: pixels,
        };
        self.apply(level, &block, None, Some(y), None);
    }

    /// Writes `y` and the planes of signs where they are asked for; whether the sign of a NaN was.
    /// The first channel of a plane overwrites it, the others join.
    pub(super) fn apply<Z: Number>(
        &self,
        level: Level,
        block: &Block<'_, Z>,
        residual: Option<&[f32]>,
        y: Option<&mut [f32]>,
        signs: Option<&mut [u8]>,
    ) -> bool {
        let (last, pixels) = (block.channel + block.channels - 1, block.pixels);
        let (end, plane_end) =
            (last * block.area + block.pixel, last / 4 * block.area + block.pixel);
        assert!(block.z.len() >= (block.channels - 1) * block.pitch + pixels);
        assert!(residual.is_none_or(|r| r.len() >= end + pixels));
        assert!(y.as_ref().is_none_or(|y| y.len() >= end + pixels));
        assert!(signs.as_ref().is_none_or(|s| s.len() >= plane_end + pixels));
        apply(level, self, block, residual, y, signs)
    }
}

/// Floats `x` of `shape` `N C H W`, transformed as the sums of a
/// [`Prepared`](super::Prepared) convolution are: as `y` and as planes of signs,
/// `[N][C/4][H][W]`, where they are asked for; whether a NaN was among the numbers whose signs were. It
/// allocates nothing.
///
/// ```
/// use dirnet_kernels::bits::{Thresholds, Transform, transform};
/// let then = Thresholds::new(&[0.5, -1.0], &[false, true]);
/// let mut signs = [0; 2];
/// transform([1, 2, 1, 2], &[0.0, 1.0, 0.0, -2.0], &Transform::Threshold(&then), None, None, Some(&mut signs));
/// assert_eq!(signs, [0b00, 0b11]);
/// ```
///
/// # Panics
/// If a length does not fit, the transform has not one number of each kind a channel, or cannot give what
/// is asked for.
#[track_caller]
pub fn transform(
    shape: [usize; 4],
    x: &[f32],
    then: &Transform<'_>,
    residual: Option<&[f32]>,
    y: Option<&mut [f32]>,
    signs: Option<&mut [u8]>,
) -> bool {
    const OP: &str = "bits::transform";
    let [n, c, h, w] = shape;
    let (area, quads) = (h * w, c.div_ceil(4));
    let len = n * c * area;
    assert!(len > 0, "{OP}: x of {shape:?}");
    assert_eq!(x.len(), len, "{OP}: x of {shape:?}");
    then.check(OP, c, residual.is_some(), y.is_some());
    assert!(residual.is_none_or(|r| r.len() == len), "{OP}: as many to add as in x");
    assert!(y.as_ref().is_none_or(|y| y.len() == len), "{OP}: y of {shape:?}");
    assert!(
        signs.as_ref().is_none_or(|s| s.len() == n * quads * area),
        "{OP}: planes of {shape:?}"
    );
    let level = simd::level();
    // Whole images, or channels of each where an image is many pieces.
    let some = (par::GRAIN / (4 * area)).clamp(1, quads);
    let images = if some < quads { 1 } else { (par::GRAIN / (c * area)).clamp(1, n) };
    let sizes = [c * area, quads * area].map(|size| images * size);
    par::any_piece(n.div_ceil(images), Out { y, signs, sizes }, &|i, mut out| {
        let mut nan = false;
        for image in i * images..n.min((i + 1) * images) {
            out.sizes = [c * area, quads * area];
            let (mut here, rest) = out.cut(1);
            here.sizes = [4 * some * area, some * area];
            out = rest;
            nan |= par::any_piece(quads.div_ceil(some), here, &|j, out| {
                let first = 4 * some * j;
                let from = (image * c + first) * area;
                let block = Block {
                    z: &x[from..],
                    pitch: area,
                    pixels: area,
                    channels: (4 * some).min(c - first),
                    first,
                    channel: 0,
                    pixel: 0,
                    area,
                };
                then.apply(level, &block, residual.map(|r| &r[from..]), out.y, out.signs)
            });
        }
        nan
    })
}

per_level! {
    fn apply[Z: Number](
        then: &Transform<'_>,
        block: &Block<'_, Z>,
        residual: Option<&[f32]>,
        y: Option<&mut [f32]>,
        signs: Option<&mut [u8]>,
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return rows::<crate::lanes::Avx, Z, FUSED>(then, block, residual, y, signs);
        }
        rows::<Plain, Z, FUSED>(then, block, residual, y, signs)
    }
}

/// Channel after channel.
#[inline(always)]
fn rows<L: Lanes, Z: Number, const AVX2: bool>(
    then: &Transform<'_>,
    block: &Block<'_, Z>,
    residual: Option<&[f32]>,
    mut y: Option<&mut [f32]>,
    mut signs: Option<&mut [u8]>,
) -> bool {
    let mut nan = false;
    for i in 0..block.channels {
        let (c, channel) = (block.first + i, block.channel + i);
        let at = channel * block.area + block.pixel;
        let plane_at = channel / 4 * block.area + block.pixel;
        let z = &block.z[i * block.pitch..][..block.pixels];
        let residual = residual.map(|r| &r[at..][..block.pixels]);
        let mut row = Row {
            y: y.as_mut().map(|y| &mut y[at..][..block.pixels]),
            plane: signs.as_mut().map(|s| &mut s[plane_at..][..block.pixels]),
            bit: (channel % 4) as u32,
        };
        match *then {
            Transform::Affine { scale, a, b, act } => {
                let [scale, a, b] = [scale[c], a[c], b[c]].map(L::splat);
                let line = |z: L| z.mul(scale).mul(a).add(b);
                nan |= match act {
                    Activation::Identity => row.floats::<L, Z, AVX2>(z, line, residual, |y| y),
                    Activation::Relu => row.floats::<L, Z, AVX2>(z, line, residual, L::relu),
                    Activation::Hardtanh => {
                        row.floats::<L, Z, AVX2>(z, line, residual, L::hardtanh)
                    }
                };
            }
            Transform::Scale { scale } => {
                let scale = L::splat(scale[c]);
                nan |= row.floats::<L, Z, AVX2>(z, |z: L| z.mul(scale), None, |y| y);
            }
            Transform::Threshold(t) => {
                nan |= row.compare::<Z, AVX2>(z, Z::limit(t.at[c], t.flip[c]))
            }
        }
    }
    nan
}

/// Where the outputs of a channel go.
struct Row<'a> {
    y: Option<&'a mut [f32]>,
    plane: Option<&'a mut [u8]>,
    bit: u32,
}

impl Row<'_> {
    #[inline(always)]
    fn floats<L: Lanes, Z: Number, const AVX2: bool>(
        &mut self,
        z: &[Z],
        line: impl Fn(L) -> L,
        residual: Option<&[f32]>,
        act: impl Fn(L) -> L,
    ) -> bool {
        let mut nan = false;
        for from in (0..z.len()).step_by(PIECE) {
            // The last piece overlaps the one before rather than fall short.
            let at = from.min(z.len().saturating_sub(PIECE));
            let len = PIECE.min(z.len());
            let mut piece = [0f32; PIECE];
            match (z[at..].first_chunk::<PIECE>(), residual) {
                (Some(z), None) => {
                    for (z, y) in z.as_chunks::<EIGHT>().0.iter().zip(piece.as_chunks_mut().0) {
                        act(line(Z::load(z))).store(y);
                    }
                }
                (Some(z), Some(residual)) => {
                    let r = residual[at..][..PIECE].as_chunks::<EIGHT>().0;
                    let eights = z.as_chunks::<EIGHT>().0.iter().zip(r);
                    for ((z, r), y) in eights.zip(piece.as_chunks_mut().0) {
                        act(line(Z::load(z)).add(L::load(r))).store(y);
                    }
                }
                (None, _) => {
                    let mut some = [Z::default(); PIECE];
                    some[..len].copy_from_slice(z);
                    let mut r = [0f32; PIECE];
                    if let Some(residual) = residual {
                        r[..len].copy_from_slice(residual);
                    }
                    for i in (0..len).step_by(EIGHT) {
                        let z = some[i..].first_chunk().expect("eight of a piece");
                        let r = r[i..].first_chunk().expect("eight of a piece");
                        let y = piece[i..].first_chunk_mut().expect("eight of a piece");
                        let sum = line(Z::load(z));
                        // Where there is no residual, not a zero either: it would make +0 of -0.
                        act(if residual.is_some() { sum.add(L::load(r)) } else { sum }).store(y);
                    }
                    piece[len..].fill(0.0);
                }
            }
            if let Some(y) = &mut self.y {
                match y[at..].first_chunk_mut::<PIECE>() {
                    Some(y) => *y = piece,
                    None => y.copy_from_slice(&piece[..len]),
                }
            }
            if let Some(plane) = &mut self.plane {
                nan |= join(&mut plane[at..], self.bit, |bytes| {
                    gather::<AVX2>(&piece, self.bit, bytes)
                });
            }
        }
        nan
    }

    #[inline(always)]
    fn compare<Z: Number, const AVX2: bool>(&mut self, z: &[Z], (limit, flip): (Z, bool)) -> bool {
        let Some(plane) = &mut self.plane else { return false };
        for from in (0..z.len()).step_by(PIECE) {
            let at = from.min(z.len().saturating_sub(PIECE));
            join(&mut plane[at..], self.bit, |bytes| match z[at..].first_chunk::<PIECE>() {
                Some(z) => Z::compare::<AVX2>(z, limit, flip, self.bit, bytes),
                None => {
                    let mut some = [Z::default(); PIECE];
                    some[..z.len()].copy_from_slice(z);
                    Z::compare::<AVX2>(&some, limit, flip, self.bit, bytes);
                }
            });
        }
        z.iter().any(|z| z.is_nan())
    }
}

/// Hands a piece of a plane to what adds the bits of a channel: of the first one, to no others.
#[inline(always)]
fn join<R>(plane: &mut [u8], bit: u32, add: impl FnOnce(&mut [u8; PIECE]) -> R) -> R {
    if let Some(plane) = plane.first_chunk_mut() {
        if bit == 0 {
            *plane = [0; PIECE];
        }
        return add(plane);
    }
    let mut bytes = [0; PIECE];
    if bit > 0 {
        bytes[..plane.len()].copy_from_slice(plane);
    }
    let result = add(&mut bytes);
    plane.copy_from_slice(&bytes[..plane.len()]);
    result
}
