//! A dense layer of signs, prepared once and run again and again.

use super::Rows;
use super::dense::{MANY, pack_row, pair, plane_offsets, row_sums, spread};
use super::lookup::{self, Offsets, TILE, UNIT, Walk};
use super::stage::Stage;
use super::transform::Transform;
use super::words::{PIECE, gather, word};
use crate::lanes::{EIGHT, Lanes, Plain};
use crate::norm_act::Activation;
use crate::par::{self, Cut};
use crate::simd::{self, Level, per_level};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The signs of `x`, rows of `cols` numbers, as the words of [`Rows`]; whether a NaN was among them (as
/// +1). It allocates nothing.
///
/// ```
/// use dirnet_kernels::bits::pack_rows;
/// let mut words = [0; 2];
/// let nan = pack_rows(3, &[1.0, -1.0, 2.0, -1.0, -1.0, 0.0], &mut words);
/// assert_eq!((words, nan), ([0b101, 0b100], false));
/// ```
///
/// # Panics
/// If the rows are no whole ones, or there are not `cols / 64` words, rounded up, for each.
#[track_caller]
pub fn pack_rows(cols: usize, x: &[f32], words: &mut [u64]) -> bool {
    const OP: &str = "bits::pack_rows";
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{OP}: {} numbers by {cols}", x.len());
    let (level, width) = (simd::level(), cols.div_ceil(64));
    assert_eq!(words.len(), x.len() / cols * width, "{OP}: words of {} rows", x.len() / cols);
    let nan = AtomicBool::new(false);
    let some = (par::GRAIN / cols).max(1);
    par::chunks(words, some * width, |i, words| {
        for (j, words) in words.chunks_mut(width).enumerate() {
            if pack_row(level, &x[(i * some + j) * cols..][..cols], words) {
                nan.store(true, Relaxed);
            }
        }
    });
    nan.into_inner()
}

/// Rows of signs times the weights `O K` of a dense layer, and what becomes of them.
///
/// ```
/// use dirnet_kernels::bits::{PreparedDense, Rows, Transform, pack_rows};
/// let dense = PreparedDense::new(&Rows::pack(2, 3, &[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]));
/// let (mut x, mut y) = ([0], [0.0; 2]);
/// pack_rows(3, &[0.5, -2.0, 3.0], &mut x);
/// dense.run(1, &x, &Transform::Scale { scale: &[1.0, 0.5] }, None, Some(&mut y), None);
/// assert_eq!(y, [1.0, -0.5]);
/// ```
#[derive(Debug)]
pub struct PreparedDense {
    w: Rows,
    many: Option<Many>,
}

/// What it takes to look up the sums of many rows.
#[derive(Debug)]
struct Many {
    offsets: Offsets,
    counts: Vec<f32>,
}

/// Rows whose sums are looked up together.
const ROWS: usize = 64;

impl PreparedDense {
    /// With the weights `w`.
    ///
    /// # Panics
    /// If a sum has 2^24 terms or more, which `f32` does not count.
    #[track_caller]
    pub fn new(w: &Rows) -> PreparedDense {
        let [o, k] = w.size();
        assert!(k < 1 << 24, "bits::PreparedDense: sums of {k} terms are not exact");
        let many = (o >= MANY).then(|| Many {
            offsets: plane_offsets(k, o),
            counts: vec![k as f32; lookup::apart(o)],
        });
        PreparedDense { w: w.clone(), many }
    }

    /// Rows and columns of the weights.
    pub fn size(&self) -> [usize; 2] {
        self.w.size()
    }

    /// Bytes of memory it holds: a bit a weight, each row in whole words, and four for each row and
    /// for each four columns.
    pub fn bytes(&self) -> usize {
        let many = self.many.as_ref();
        self.w.bytes() + many.map_or(0, |many| many.offsets.bytes() + size_of_val(&many.counts[..]))
    }

    /// The sums of `n` rows `x`, the words of [`Rows`], transformed: as `y`, `n` by `O`, and as words of
    /// their signs, where they are asked for; whether a NaN was among the numbers whose signs were
    /// (as +1). It allocates nothing on a worker thread.
    ///
    /// # Panics
    /// If a length does not fit, the transform has not one number of each kind an output, or cannot give
    /// what is asked for.
    #[track_caller]
    pub fn run(
        &self,
        n: usize,
        x: &[u64],
        then: &Transform<'_>,
        residual: Option<&[f32]>,
        y: Option<&mut [f32]>,
        signs: Option<&mut [u64]>,
    ) -> bool {
        const OP: &str = "bits::PreparedDense";
        let [o, k] = self.w.size();
        let (width, signs_width) = (k.div_ceil(64), o.div_ceil(64));
        assert!(n > 0 && x.len() == n * width, "{OP}: words of {n} rows of {k}");
        then.check(OP, o, residual.is_some(), y.is_some());
        assert!(residual.is_none_or(|r| r.len() == n * o), "{OP}: as many to add as in y");
        assert!(y.as_ref().is_none_or(|y| y.len() == n * o), "{OP}: y of {n} by {o}");
        let enough = signs.as_ref().is_none_or(|s| s.len() == n * signs_width);
        assert!(enough, "{OP}: words of the signs of {n} rows of {o}");
        let (level, out) = (simd::level(), Out { y, signs, sizes: [o, signs_width] });
        if let Some(many) = self.many.as_ref().filter(|_| n >= MANY) {
            return self.run_many(level, many, x, then, residual, n, out);
        }
        // Whole rows where they are short, else some words of outputs of each.
        let some = (par::GRAIN / (64 * width)).clamp(1, signs_width);
        let rows = if some < signs_width { 1 } else { (par::GRAIN / (o * width)).clamp(1, n) };
        let out = Out { sizes: [rows * o, rows * signs_width], ..out };
        par::any_piece(n.div_ceil(rows), out, &|i, mut out| {
            let mut nan = false;
            for row in i * rows..n.min((i + 1) * rows) {
                out.sizes = [o, signs_width];
                let (mut here, rest) = out.cut(1);
                here.sizes = [64 * some, some];
                out = rest;
                nan |= par::any_piece(signs_width.div_ceil(some), here, &|j, out| {
                    let x = &x[row * width..][..width];
                    let residual = residual.map(|r| &r[row * o..][..o]);
                    let (first, mut out, mut nan) = (64 * some * j, out, false);
                    for c in (first..o.min(first + 64 * some)).step_by(64) {
                        let (at, mut z) = (c - first, [0f32; 64]);
                        let z = &mut z[..64.min(o - c)];
                        row_sums(level, k, x, self.w.words_from(c), z);
                        let y = out.y.as_mut().map(|y| &mut y[at..at + z.len()]);
                        let signs = out.signs.as_mut().map(|signs| &mut signs[at / 64]);
                        nan |= finish(level, z, c, then, residual, y, signs);
                    }
                    nan
                });
            }
            nan
        })
    }

    /// As [`dense`](super::dense) does for many rows: weights as pixels of four-channel bytes, rows as
    /// filters.
    fn run_many(
        &self,
        level: Level,
        many: &Many,
        x: &[u64],
        then: &Transform<'_>,
        residual: Option<&[f32]>,
        n: usize,
        out: Out<'_>,
    ) -> bool {
        let [o, k] = self.w.size();
        let (width, quads, plane) = (k.div_ceil(64), k.div_ceil(4), lookup::apart(o));
        let len = 16 * width * plane;
        let rows = ROWS.min(2 * n.div_ceil(2 * par::threads()));
        let signs_width = o.div_ceil(64);
        let out = Out { sizes: [rows * o, rows * signs_width], ..out };
        par::scratch(len / 4 + 16, |scratch| {
            let staged = Stage::aligned(scratch, len);
            let words = self.w.words_from(0);
            par::chunks(staged, 16 * plane, |i, planes| spread(&words[i..], width, planes, plane));
            par::any_piece(n.div_ceil(rows), out, &|i, mut out| {
                let first = i * rows;
                let some = rows.min(n - first);
                let bytes = some.div_ceil(2) * quads;
                par::scratch(bytes.div_ceil(4) + ROWS * TILE, |scratch| {
                    let (z, pairs) = scratch.split_at_mut(ROWS * TILE);
                    let pairs: &mut [u8] = &mut bytemuck::cast_slice_mut(pairs)[..bytes];
                    for (j, pairs) in pairs.chunks_exact_mut(quads).enumerate() {
                        let row = |r: usize| &x[(first + r) * width..][..width];
                        let second = if 2 * j + 1 < some { row(2 * j + 1) } else { &[] };
                        pair(row(2 * j), second, pairs);
                    }
                    let mut nan = false;
                    for tile in (0..o).step_by(TILE) {
                        let pitch = TILE.min(o - tile).next_multiple_of(UNIT);
                        let walk = Walk {
                            x: &staged[tile..],
                            offsets: &many.offsets,
                            counts: &many.counts[tile..],
                            area: pitch,
                            images: 1,
                        };
                        lookup::sums(level, &walk, pairs, some, 0, z);
                        for r in 0..some {
                            let residual = residual.map(|all| &all[(first + r) * o..][..o]);
                            for c in (tile..o.min(tile + TILE)).step_by(64) {
                                let z = &z[r * pitch + c - tile..][..64.min(o - c)];
                                let at = r * o + c;
                                let y = out.y.as_mut().map(|y| &mut y[at..at + z.len()]);
                                let at = r * signs_width + c / 64;
                                let signs = out.signs.as_mut().map(|signs| &mut signs[at]);
                                nan |= finish(level, z, c, then, residual, y, signs);
                            }
                        }
                    }
                    nan
                })
            })
        })
    }
}

/// Rows, or some outputs of one.
struct Out<'a> {
    y: Option<&'a mut [f32]>,
    signs: Option<&'a mut [u64]>,
    sizes: [usize; 2],
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

/// What becomes of the sums `z`, at most 64, of outputs from `c` on of a row.
fn finish(
    level: Level,
    z: &[f32],
    c: usize,
    then: &Transform<'_>,
    residual: Option<&[f32]>,
    y: Option<&mut [f32]>,
    signs: Option<&mut u64>,
) -> bool {
    let (len, mut nan) = (z.len(), false);
    let mut made = [0f32; 64];
    made[..len].copy_from_slice(z);
    let set = match *then {
        Transform::Threshold(t) => {
            (0..len).fold(0, |set, i| set | u64::from(t.plus(c + i, z[i])) << i)
        }
        Transform::Scale { scale } => {
            let (numbers, act) = ([&scale[c..c + len]], Activation::Identity);
            floats(level, &mut made, numbers, None, act, signs.is_some(), &mut nan)
        }
        Transform::Affine { scale, a, b, act } => {
            let numbers = [scale, a, b].map(|numbers| &numbers[c..c + len]);
            let residual = residual.map(|r| &r[c..c + len]);
            floats(level, &mut made, numbers, residual, act, signs.is_some(), &mut nan)
        }
    };
    if let Some(y) = y {
        y.copy_from_slice(&made[..len]);
    }
    if let Some(signs) = signs {
        *signs = set & (u64::MAX >> (64 - len));
    }
    nan
}

per_level! {
    /// `z` becomes `act(a·(scale·z) + b + residual)`, or with one kind of numbers `scale·z`; its signs,
    /// if they are asked for.
    fn floats[const P: usize](
        z: &mut [f32; 64],
        numbers: [&[f32]; P],
        residual: Option<&[f32]>,
        act: Activation,
        signs: bool,
        nan: &mut bool,
    ) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return floats_of::<crate::lanes::Avx, P, FUSED>(z, numbers, residual, act, signs, nan);
        }
        floats_of::<Plain, P, FUSED>(z, numbers, residual, act, signs, nan)
    }
}

#[inline(always)]
fn floats_of<L: Lanes, const P: usize, const AVX2: bool>(
    z: &mut [f32; 64],
    numbers: [&[f32]; P],
    residual: Option<&[f32]>,
    act: Activation,
    signs: bool,
    nan: &mut bool,
) -> u64 {
    let len = numbers[0].len();
    let eight = |x: &[f32], at: usize| match x[at..].first_chunk() {
        Some(x) => L::load(x),
        None => {
            let mut eight = [0.0; EIGHT];
            eight[..x.len() - at].copy_from_slice(&x[at..]);
            L::load(&eight)
        }
    };
    for (i, z) in z.as_chunks_mut::<EIGHT>().0.iter_mut().enumerate() {
        let at = i * EIGHT;
        if at >= len {
            break;
        }
        let mut y = L::load(z).mul(eight(numbers[0], at));
        if P == 3 {
            y = y.mul(eight(numbers[1], at)).add(eight(numbers[2], at));
        }
        if let Some(residual) = residual {
            y = y.add(eight(residual, at));
        }
        match act {
            Activation::Identity => y,
            Activation::Relu => y.relu(),
            Activation::Hardtanh => y.hardtanh(),
        }
        .store(z);
    }
    if !signs {
        return 0;
    }
    z[len..].fill(0.0);
    let mut bytes = [0; 64];
    for (bytes, z) in bytes.as_chunks_mut().0.iter_mut().zip(z.as_chunks::<PIECE>().0) {
        *nan |= gather::<AVX2>(z, 0, bytes);
    }
    word::<AVX2>(&bytes, 0)
}
