//! What stands between two convolutions, in one pass over memory: batch normalisation, what is added
//! to it, and the function around both. The way back takes two passes, since its sums come first.
//!
//! To the bit the same as [`norm::batch_norm`](crate::norm::batch_norm), an addition and a map, one
//! after the other. Images are `[n, c, h, w]`.

use crate::bits::Image;
use crate::lanes::{EIGHT, Lanes, Plain, Stored};
use crate::pages::zeroed;
use crate::par;
use crate::pixels::{Sums, add_up, get, padded, put};
use crate::simd::{level, per_level};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Numbers that a pass reads.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// As they are.
    Floats(&'a [f32]),
    /// `scale[c]·z`: the sums of a binary convolution, half as long to read.
    Integers {
        /// The integers.
        z: &'a [i16],
        /// One number a channel.
        scale: &'a [f32],
        /// `[Σ z, Σ z²]` a channel, where they are known.
        sums: Option<&'a [[i64; 2]]>,
    },
}

impl Numbers<'_> {
    fn len(self) -> usize {
        match self {
            Numbers::Floats(x) => x.len(),
            Numbers::Integers { z, .. } => z.len(),
        }
    }
}

/// The function around a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// None.
    Identity,
    /// `max(x, 0)`; slope 1 where `x > 0`, else 0.
    Relu,
    /// `clamp(x, -1, 1)`; slope 1 where `|x| < 1`, else 0.
    Hardtanh,
}

/// `y = act((x - mean)·scale + shift + residual)`, with one mean, scale and shift a channel.
#[derive(Clone, Copy, Debug)]
pub struct NormAct<'a> {
    /// `N C H W`.
    pub size: [usize; 4],
    /// What is normalised.
    pub x: Numbers<'a>,
    /// The mean of each channel.
    pub mean: &'a [f32],
    /// What each channel is multiplied with.
    pub scale: &'a [f32],
    /// What is added to each channel.
    pub shift: &'a [f32],
    /// What is applied at the end.
    pub act: Activation,
}

/// Where the slope of [`Activation`] is 1, one bit an element; each channel of an image begins a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside(Vec<u8>);

impl Inside {
    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.0.capacity()
    }
}

/// Over images and pixels: the mean of each channel, and its biased variance.
///
/// The sums are taken about the channel's first pixel, so that a constant channel has a variance of
/// exactly zero: as floats over a stretch of pixels, in double precision over stretches. Integers whose
/// sums are known need no pass, and no rounding before the last.
///
/// # Panics
/// If a length does not fit, here as in all of this file, or there are no pixels.
#[track_caller]
pub fn moments(size: [usize; 4], x: Numbers<'_>, mean: &mut [f32], var: &mut [f32]) {
    let [n, c, h, w] = size;
    let hw = h * w;
    assert_eq!(x.len(), n * c * hw, "moments: x of {size:?}");
    assert!(mean.len() == c && var.len() == c, "moments: one mean and variance a channel");
    assert!(n * hw > 0, "moments: of no pixels at all");
    let m = (n * hw) as f64;
    if let Numbers::Integers { scale, sums: Some(sums), .. } = x {
        assert!(scale.len() == c && sums.len() == c, "moments: one scale and sum a channel");
        for (at, &[sum, squares]) in sums.iter().enumerate() {
            let (scale, centre) = (f64::from(scale[at]), sum as f64 / m);
            mean[at] = (scale * centre) as f32;
            var[at] = (scale * scale * (squares as f64 / m - centre * centre).max(0.0)) as f32;
        }
        return;
    }
    let level = level();
    let first: Vec<f32> = (0..c).map(|at| number(x, at, at * hw)).collect();
    let sums = add_up(n, c, hw, &mut [], |from, images, _, sums| match x {
        Numbers::Floats(x) => {
            moment_sums(level, &x[from..], &[], &first, [images, c, hw], sums);
        }
        Numbers::Integers { z, scale, .. } => {
            moment_sums(level, &z[from..], scale, &first, [images, c, hw], sums);
        }
    });
    for (at, [sum, squares]) in sums.into_iter().enumerate() {
        let offset = sum / m;
        mean[at] = (first[at] as f64 + offset) as f32;
        var[at] = (squares / m - offset * offset).max(0.0) as f32;
    }
}

/// Element `i`, of channel `at`.
fn number(x: Numbers<'_>, at: usize, i: usize) -> f32 {
    match x {
        Numbers::Floats(x) => x[i],
        Numbers::Integers { z, scale, .. } => f32::from(z[i]) * scale[at],
    }
}

impl NormAct<'_> {
    #[track_caller]
    fn check(&self, op: &str) {
        let [n, c, h, w] = self.size;
        assert_eq!(self.x.len(), n * c * h * w, "{op}: x of {:?}", self.size);
        let mut numbers = [self.mean, self.scale, self.shift].into_iter();
        assert!(numbers.all(|numbers| numbers.len() == c), "{op}: one number a channel");
        if let Numbers::Integers { scale, .. } = self.x {
            assert_eq!(scale.len(), c, "{op}: one scale a channel");
        }
    }

    /// Writes `y` where that is asked for, and takes its signs if `signs` says so. What it returns
    /// first is empty where the slope is 1 everywhere, or if `inside` says that nobody will ask.
    #[track_caller]
    pub fn forward(
        &self,
        residual: Option<&[f32]>,
        y: Option<&mut [f32]>,
        signs: bool,
        inside: bool,
    ) -> (Inside, Option<Image>) {
        const OP: &str = "norm_act";
        self.check(OP);
        let [n, c, h, w] = self.size;
        let (hw, len) = (h * w, self.x.len());
        assert!(residual.is_none_or(|r| r.len() == len), "{OP}: as many to add as in x");
        assert!(y.as_ref().is_none_or(|y| y.len() == len), "{OP}: y of {:?}", self.size);
        let none = self.act == Activation::Identity || !inside;
        let words = if none { 0 } else { c * hw.div_ceil(EIGHT) };
        let plane_bytes = if signs { c.div_ceil(4) * hw } else { 0 };
        // Zeroed image by image, by the thread that goes on with it.
        let [mut inside, mut planes] =
            [words, plane_bytes].map(|each| Vec::with_capacity(n * each));
        let mut y = y.map(|y| y.chunks_mut(c * hw));
        let mut rest = (inside.spare_capacity_mut(), planes.spare_capacity_mut());
        let mut images: Vec<_> = (0..n)
            .map(|_| OneImage {
                y: y.as_mut().and_then(Iterator::next),
                inside: rest.0.split_off_mut(..words).expect("words of each image"),
                planes: rest.1.split_off_mut(..plane_bytes).expect("planes of each image"),
            })
            .collect();
        let (level, nan) = (level(), AtomicBool::new(false));
        let some = (par::GRAIN / (c * hw).max(1)).max(1);
        par::chunks(&mut images, some, |i, images| {
            for (j, image) in images.iter_mut().enumerate() {
                let OneImage { y, inside, planes } = image;
                let mut image = OneImage {
                    y: y.as_deref_mut(),
                    inside: zeroed(inside),
                    planes: zeroed(planes),
                };
                let from = (i * some + j) * c * hw;
                let residual = residual.map(|r| &r[from..][..c * hw]);
                let odd = match self.x {
                    Numbers::Floats(x) => {
                        forward(level, self, &x[from..], &[], residual, &mut image)
                    }
                    Numbers::Integers { z, scale, .. } => {
                        forward(level, self, &z[from..], scale, residual, &mut image)
                    }
                };
                if odd {
                    nan.store(true, Relaxed);
                }
            }
        });
        drop(images);
        // SAFETY: each image was zeroed, and there are `n`.
        unsafe {
            inside.set_len(n * words);
            planes.set_len(n * plane_bytes);
        }
        let image = signs.then(|| Image::of_planes(self.size, nan.into_inner(), planes));
        (Inside(inside), image)
    }

    /// Writes `y`, of elements from `first` on, where nothing was added.
    #[track_caller]
    pub fn values(&self, first: usize, y: &mut [f32]) {
        let (level, [_, c, h, w]) = (level(), self.size);
        let hw = h * w;
        let mut done = 0;
        while done < y.len() {
            let at = first + done;
            let len = (hw - at % hw).min(y.len() - done);
            let to = &mut y[done..done + len];
            match self.x {
                Numbers::Floats(x) => values(level, self, at / hw % c, &x[at..][..len], &[], to),
                Numbers::Integers { z, scale, .. } => {
                    values(level, self, at / hw % c, &z[at..][..len], scale, to);
                }
            }
            done += len;
        }
    }

    /// Element `i` of `y`, where nothing was added.
    pub fn value(&self, i: usize) -> f32 {
        let at = i / (self.size[2] * self.size[3]) % self.size[1];
        self.act.of((number(self.x, at, i) - self.mean[at]) * self.scale[at] + self.shift[at])
    }

    /// Of the gradient of the sum, `d`, which is `dy`, but zero where [`forward`](Self::forward) was not
    /// inside: for each channel, the sums `Σ d` and `Σ d·(x - mean)`. Writes `d` where that is asked for.
    #[track_caller]
    pub fn gate(&self, inside: &Inside, dy: &[f32], d: Option<&mut [f32]>) -> Vec<[f64; 2]> {
        self.check("norm_act gate");
        let [n, c, h, w] = self.size;
        let hw = h * w;
        assert_eq!(dy.len(), self.x.len(), "norm_act gate: dy of {:?}", self.size);
        let wanted = d.as_ref().is_none_or(|d| d.len() == dy.len());
        assert!(wanted, "norm_act gate: d of {:?}", self.size);
        let words = self.words("norm_act gate", inside);
        let level = level();
        add_up(n, c, hw, d.unwrap_or_default(), |from, images, d, sums| {
            let inside = &inside.0[from / (c * hw).max(1) * words..][..images * words];
            let dy = &dy[from..][..images * c * hw];
            match self.x {
                Numbers::Floats(x) => gate(level, self, &x[from..], &[], inside, dy, d, sums),
                Numbers::Integers { z, scale, .. } => {
                    gate(level, self, &z[from..], scale, inside, dy, d, sums);
                }
            }
        })
    }

    /// Bytes of an image that say where it was inside.
    #[track_caller]
    fn words(&self, op: &str, inside: &Inside) -> usize {
        let [n, c, h, w] = self.size;
        let words = if self.act == Activation::Identity { 0 } else { c * (h * w).div_ceil(EIGHT) };
        assert_eq!(inside.0.len(), n * words, "{op}: of another forward pass");
        words
    }

    /// `dy` becomes the gradient of `x`, by way of that of the sum, `d`, whose own [sums](Self::gate) are
    /// `sums`; `mean` and `inv_std` being those of `x`, and `scale = gamma·inv_std`:
    ///
    /// ```text
    /// dx = scale·(d - Σd/m - (x - mean)·inv_std²·Σ d·(x - mean)/m)      dbeta = Σ d
    /// m = n·hw                                                          dgamma = inv_std·Σ d·(x - mean)
    /// ```
    #[track_caller]
    pub fn dx(&self, inv_std: &[f32], sums: &[[f64; 2]], inside: &Inside, dy: &mut [f32]) {
        self.check("norm_act dx");
        let [n, c, h, w] = self.size;
        let hw = h * w;
        assert_eq!(dy.len(), n * c * hw, "norm_act dx: dy of {:?}", self.size);
        assert!(inv_std.len() == c && sums.len() == c, "norm_act dx: one number a channel");
        let words = self.words("norm_act dx", inside);
        let m = (n * hw) as f64;
        let numbers: Vec<[f32; 2]> = sums
            .iter()
            .zip(inv_std)
            .map(|([sum, along], &inv_std)| {
                [(sum / m) as f32, (along / m * inv_std as f64 * inv_std as f64) as f32]
            })
            .collect();
        let level = level();
        let some = (par::GRAIN / (c * hw).max(1)).max(1);
        par::chunks(dy, some * c * hw, |i, dy| {
            let (from, inside) = (i * some * c * hw, &inside.0[i * some * words..]);
            match self.x {
                Numbers::Floats(x) => back(level, self, &x[from..], &[], &numbers, inside, dy),
                Numbers::Integers { z, scale, .. } => {
                    back(level, self, &z[from..], scale, &numbers, inside, dy);
                }
            }
        });
    }
}

impl Activation {
    /// `act(x)`
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Activation::Identity => x,
            Activation::Relu => x.max(0.0),
            Activation::Hardtanh => x.clamp(-1.0, 1.0),
        }
    }
}

/// What becomes of one image.
struct OneImage<'a, Byte = u8> {
    y: Option<&'a mut [f32]>,
    inside: &'a mut [Byte],
    planes: &'a mut [Byte],
}

/// The bits of how many pixels there are from `p` on, of eight.
#[inline(always)]
fn whole(hw: usize, p: usize) -> u8 {
    if p + EIGHT <= hw { u8::MAX } else { u8::MAX >> (EIGHT - (hw - p)) }
}

/// Bit `i` as the lowest bit of byte `i`.
static SPREAD: [u64; 256] = {
    let mut spread = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let mut i = 0;
        while i < 8 {
            spread[bits] |= ((bits >> i & 1) as u64) << (8 * i);
            i += 1;
        }
        bits += 1;
    }
    spread
};

/// Eights of pixels of a channel, with what is asked for: the NaNs among their lanes, if signs are.
#[inline(always)]
fn eights<L: Lanes, X: Stored>(
    x: &[[X; EIGHT]],
    residual: &[[f32; EIGHT]],
    y: &mut [[f32; EIGHT]],
    inside: &mut [u8],
    plane: &mut [[u8; EIGHT]],
    bit: usize,
    sum: impl Fn(L) -> L,
    act: impl Fn(L) -> (L, u8),
) -> u8 {
    let n = x.len();
    let fits = |len: usize| len == n || len == 0;
    assert!(fits(residual.len()) && fits(y.len()) && fits(inside.len()) && fits(plane.len()));
    let (has_residual, has_y) = (residual.len() == n, y.len() == n);
    let (has_inside, has_plane) = (inside.len() == n, plane.len() == n);
    let mut nan = 0;
    for i in 0..n {
        let mut value = sum(X::load(&x[i]));
        if has_residual {
            value = value.add(L::load(&residual[i]));
        }
        let (value, slope) = act(value);
        if has_inside {
            inside[i] = slope;
        }
        if has_y {
            value.store(&mut y[i]);
        }
        if has_plane {
            nan |= value.nan_bits();
            let bits = SPREAD[usize::from(value.sign_bits())] << bit;
            plane[i] = (u64::from_le_bytes(plane[i]) | bits).to_le_bytes();
        }
    }
    nan
}

/// One number of a channel, or 1 for all.
#[inline(always)]
fn of_channel(scales: &[f32], at: usize) -> f32 {
    if scales.is_empty() { 1.0 } else { scales[at] }
}

impl NormAct<'_> {
    /// An image; whether a NaN came out.
    #[inline(always)]
    fn forward_image<L: Lanes, X: Stored>(
        &self,
        x: &[X],
        scales: &[f32],
        residual: Option<&[f32]>,
        image: &mut OneImage<'_>,
    ) -> bool {
        // A loop for each, so that nothing is chosen within.
        match self.act {
            Activation::Identity => self.rows::<L, X>(x, scales, residual, image, |y| (y, u8::MAX)),
            Activation::Relu => {
                self.rows::<L, X>(x, scales, residual, image, |y| (y.relu(), y.above_zero()))
            }
            Activation::Hardtanh => {
                self.rows::<L, X>(x, scales, residual, image, |y| (y.hardtanh(), y.within_one()))
            }
        }
    }

    /// The same, with `act` giving the value, and where the slope is 1.
    #[inline(always)]
    fn rows<L: Lanes, X: Stored>(
        &self,
        x: &[X],
        scales: &[f32],
        residual: Option<&[f32]>,
        image: &mut OneImage<'_>,
        act: impl Fn(L) -> (L, u8),
    ) -> bool {
        let [_, c, h, w] = self.size;
        let (hw, mut nan) = (h * w, 0);
        let row_bytes = hw.div_ceil(EIGHT);
        for at in 0..c {
            let [s, mean, scale, shift] =
                [of_channel(scales, at), self.mean[at], self.scale[at], self.shift[at]]
                    .map(L::splat);
            let sum = |x: L| x.mul(s).sub(mean).mul(scale).add(shift);
            let row = at * hw..(at + 1) * hw;
            let (x, last) = x[row.clone()].as_chunks();
            let residual = residual.map_or(&[][..], |residual| &residual[row.clone()]);
            let y = image.y.as_mut().map_or(&mut [][..], |y| &mut y[row]);
            let inside = image.inside.get_mut(at * row_bytes..(at + 1) * row_bytes);
            let inside = inside.unwrap_or_default();
            let plane = image.planes.get_mut(at / 4 * hw..(at / 4 + 1) * hw).unwrap_or_default();
            let (residual, last_residual) = residual.as_chunks();
            let (y, last_y) = y.as_chunks_mut();
            let (plane, last_plane) = plane.as_chunks_mut();
            let (inside, last_inside) = inside.split_at_mut(x.len().min(inside.len()));
            nan |= eights(x, residual, y, inside, plane, at % 4, sum, &act);
            if !last.is_empty() {
                // A whole eight of which the first few count.
                let (x, residual) = ([padded(last)], [padded(last_residual)]);
                let residual = &residual[..last_residual.len().min(1)];
                let (mut y, mut bits, mut pixels) = ([[0.0; EIGHT]], [0], [[0; EIGHT]]);
                let all = eights(&x, residual, &mut y, &mut bits, &mut pixels, at % 4, sum, &act);
                let whole = whole(last.len(), 0);
                nan |= all & whole;
                last_y.copy_from_slice(&y[0][..last_y.len()]);
                last_inside.fill(bits[0] & whole);
                last_plane.iter_mut().zip(pixels[0]).for_each(|(to, bit)| *to |= bit);
            }
        }
        nan != 0
    }

    #[inline(always)]
    fn gate_images<L: Lanes, X: Stored>(
        &self,
        x: &[X],
        scales: &[f32],
        inside: &[u8],
        dy: &[f32],
        d: &mut [f32],
        sums: &mut [[f64; 2]],
    ) {
        let [_, c, h, w] = self.size;
        let hw = h * w;
        let row_bytes = if inside.is_empty() { 0 } else { hw.div_ceil(EIGHT) };
        for (at, sums) in sums.iter_mut().enumerate() {
            let [s, mean] = [of_channel(scales, at), self.mean[at]].map(L::splat);
            let mut lanes = Sums::<L, 2>::new();
            for image in 0..dy.len() / (c * hw) {
                let row = image * c + at;
                let inside = &inside[row * row_bytes..][..row_bytes];
                let (x, last_x) = x[row * hw..][..hw].as_chunks();
                let (dy, last_dy) = dy[row * hw..][..hw].as_chunks();
                let d = d.get_mut(row * hw..(row + 1) * hw).unwrap_or_default();
                let (d, last_d) = d.as_chunks_mut();
                let (n, gated, wanted) = (x.len(), !inside.is_empty(), !d.is_empty());
                assert!(
                    dy.len() == n && (!gated || inside.len() >= n) && (!wanted || d.len() == n)
                );
                let mut i = 0;
                while i < n {
                    let end = n.min(i + lanes.room());
                    let [mut sum, mut sum_along] = lanes.parts;
                    for i in i..end {
                        let mut kept = L::load(&dy[i]);
                        if gated {
                            kept = kept.keep(inside[i]);
                        }
                        if wanted {
                            kept.store(&mut d[i]);
                        }
                        let along = X::load::<L>(&x[i]).mul(s).sub(mean);
                        sum = sum.add(kept);
                        sum_along = sum_along.add(kept.mul(along));
                    }
                    lanes.count([sum, sum_along], end - i, sums);
                    i = end;
                }
                if !last_dy.is_empty() {
                    let kept = get::<L, f32>(last_dy, 0).keep(*inside.last().unwrap_or(&u8::MAX));
                    if !last_d.is_empty() {
                        put(kept, last_d, 0);
                    }
                    let along = get::<L, X>(last_x, 0).mul(s).sub(mean);
                    lanes.add([kept, kept.mul(along)], sums);
                }
            }
            lanes.flush(sums);
        }
    }

    #[inline(always)]
    fn dx_rows<L: Lanes, X: Stored>(
        &self,
        x: &[X],
        scales: &[f32],
        numbers: &[[f32; 2]],
        inside: &[u8],
        dy: &mut [f32],
    ) {
        let [_, c, h, w] = self.size;
        let hw = (h * w).max(1);
        let row_bytes = if inside.is_empty() { 0 } else { hw.div_ceil(EIGHT) };
        for (row, dy) in dy.chunks_exact_mut(hw).enumerate() {
            let at = row % c;
            let [s, mean, scale, offset, slope] = [
                of_channel(scales, at),
                self.mean[at],
                self.scale[at],
                numbers[at][0],
                numbers[at][1],
            ]
            .map(L::splat);
            let inside = &inside[row * row_bytes..][..row_bytes];
            let (x, last_x) = x[row * hw..][..hw].as_chunks();
            let (dy, last) = dy.as_chunks_mut();
            let (n, gated) = (x.len(), !inside.is_empty());
            assert!(dy.len() == n && (!gated || inside.len() >= n));
            let back = |d: L, x: L| scale.mul(d.sub(offset).sub(x.mul(s).sub(mean).mul(slope)));
            for i in 0..n {
                let d = L::load(&dy[i]);
                let d = if gated { d.keep(inside[i]) } else { d };
                back(d, X::load(&x[i])).store(&mut dy[i]);
            }
            if !last.is_empty() {
                let d = get::<L, f32>(last, 0).keep(*inside.last().unwrap_or(&u8::MAX));
                put(back(d, get(last_x, 0)), last, 0);
            }
        }
    }
}

/// `Σ (x - first)` and `Σ (x - first)²` for each channel.
#[inline(always)]
fn moments_of_images<L: Lanes, X: Stored>(
    x: &[X],
    scales: &[f32],
    first: &[f32],
    [images, c, hw]: [usize; 3],
    sums: &mut [[f64; 2]],
) {
    for at in 0..c {
        let [s, first] = [of_channel(scales, at), first[at]].map(L::splat);
        let mut lanes = Sums::<L, 2>::new();
        for image in 0..images {
            let x = &x[(image * c + at) * hw..][..hw];
            for p in (0..hw).step_by(EIGHT) {
                let x = get::<L, X>(x, p).mul(s).sub(first).keep(whole(hw, p));
                lanes.add([x, x.mul(x)], &mut sums[at]);
            }
        }
        lanes.flush(&mut sums[at]);
    }
}

/// Calls with the lanes of the level.
macro_rules! with_lanes {
    ($fused:expr, $X:ident, $call:ident$(.$method:ident)? ($($arg:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if $fused {
            return $call$(.$method)?::<crate::lanes::Avx, $X>($($arg),*);
        }
        $call$(.$method)?::<Plain, $X>($($arg),*)
    }};
}

per_level! {
    fn forward[X: Stored](
        job: &NormAct<'_>,
        x: &[X],
        scales: &[f32],
        residual: Option<&[f32]>,
        image: &mut OneImage<'_>,
    ) -> bool {
        with_lanes!(FUSED, X, job.forward_image(x, scales, residual, image))
    }

    fn values[X: Stored](
        job: &NormAct<'_>,
        at: usize,
        x: &[X],
        scales: &[f32],
        y: &mut [f32],
    ) {
        let (mean, scale, shift) = (job.mean[at], job.scale[at], job.shift[at]);
        let s = of_channel(scales, at);
        for (y, x) in y.iter_mut().zip(x) {
            *y = job.act.of((x.float() * s - mean) * scale + shift);
        }
    }

    fn moment_sums[X: Stored](
        x: &[X],
        scales: &[f32],
        first: &[f32],
        size: [usize; 3],
        sums: &mut [[f64; 2]],
    ) {
        with_lanes!(FUSED, X, moments_of_images(x, scales, first, size, sums))
    }

    fn gate[X: Stored](
        job: &NormAct<'_>,
        x: &[X],
        scales: &[f32],
        inside: &[u8],
        dy: &[f32],
        d: &mut [f32],
        sums: &mut [[f64; 2]],
    ) {
        with_lanes!(FUSED, X, job.gate_images(x, scales, inside, dy, d, sums))
    }

    fn back[X: Stored](
        job: &NormAct<'_>,
        x: &[X],
        scales: &[f32],
        numbers: &[[f32; 2]],
        inside: &[u8],
        dy: &mut [f32],
    ) {
        with_lanes!(FUSED, X, job.dx_rows(x, scales, numbers, inside, dy))
    }
}
