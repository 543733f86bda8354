//! A dense layer of signs, prepared once and run again and again.

use super::Rows;
use super::dense::{pack_row, row_sums};
use super::transform::Transform;
use super::words::{PIECE, gather, word};
use crate::lanes::{EIGHT, Lanes, Plain};
use crate::norm_act::Activation;
use crate::par::{self, Cut};
use crate::simd::{self, per_level};
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
#[derive(Clone, Debug)]
pub struct PreparedDense {
    w: Rows,
}

impl PreparedDense {
    /// With the weights `w`.
    ///
    /// # Panics
    /// If a sum has 2^24 terms or more, which `f32` does not count.
    #[track_caller]
    pub fn new(w: &Rows) -> PreparedDense {
        let [_, k] = w.size();
        assert!(k < 1 << 24, "bits::PreparedDense: sums of {k} terms are not exact");
        PreparedDense { w: w.clone() }
    }

    /// Rows and columns of the weights.
    pub fn size(&self) -> [usize; 2] {
        self.w.size()
    }

    /// Bytes of memory it holds: a bit a weight, each row in whole words.
    pub fn bytes(&self) -> usize {
        self.w.bytes()
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
        let level = simd::level();
        // Whole rows where they are short, else some words of outputs of each.
        let some = (par::GRAIN / (64 * width)).clamp(1, signs_width);
        let rows = if some < signs_width { 1 } else { (par::GRAIN / (o * width)).clamp(1, n) };
        let sizes = [rows * o, rows * signs_width];
        par::any_piece(n.div_ceil(rows), Out { y, signs, sizes }, &|i, mut out| {
            let mut nan = false;
            for row in i * rows..n.min((i + 1) * rows) {
                out.sizes = [o, signs_width];
                let (mut here, rest) = out.cut(1);
                here.sizes = [64 * some, some];
                out = rest;
                nan |= par::any_piece(signs_width.div_ceil(some), here, &|j, out| {
                    let first = 64 * some * j;
                    let x = &x[row * width..][..width];
                    let residual = residual.map(|r| &r[row * o..][..o]);
                    outputs(
                        level,
                        &self.w,
                        first,
                        (64 * some).min(o - first),
                        x,
                        then,
                        residual,
                        out,
                    )
                });
            }
            nan
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

/// Outputs from `first` on of one row, 64 at a time.
fn outputs(
    level: simd::Level,
    w: &Rows,
    first: usize,
    many: usize,
    x: &[u64],
    then: &Transform<'_>,
    residual: Option<&[f32]>,
    mut out: Out<'_>,
) -> bool {
    let (mut nan, [_, k]) = (false, w.size());
    for at in (0..many).step_by(64) {
        let (c, len) = (first + at, 64.min(many - at));
        let mut z = [0f32; 64];
        row_sums(level, k, x, w.words_from(c), &mut z[..len]);
        let set = match *then {
            Transform::Threshold(t) => {
                (0..len).fold(0, |set, i| set | u64::from(t.plus(c + i, z[i])) << i)
            }
            Transform::Scale { scale } => {
                floats(level, &mut z, [&scale[c..c + len]; 1], None, Activation::Identity, &mut nan)
            }
            Transform::Affine { scale, a, b, act } => {
                let numbers = [scale, a, b].map(|numbers| &numbers[c..c + len]);
                let residual = residual.map(|r| &r[c..c + len]);
                floats(level, &mut z, numbers, residual, act, &mut nan)
            }
        };
        if let Some(y) = &mut out.y {
            y[at..at + len].copy_from_slice(&z[..len]);
        }
        if let Some(signs) = &mut out.signs {
            signs[at / 64] = set & (u64::MAX >> (64 - len));
        }
    }
    nan
}

per_level! {
    /// `z` becomes `act(a·(scale·z) + b + residual)`, or with one kind of numbers `scale·z`; its signs.
    fn floats[const P: usize](
        z: &mut [f32; 64],
        numbers: [&[f32]; P],
        residual: Option<&[f32]>,
        act: Activation,
        nan: &mut bool,
    ) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return floats_of::<crate::lanes::Avx, P, FUSED>(z, numbers, residual, act, nan);
        }
        floats_of::<Plain, P, FUSED>(z, numbers, residual, act, nan)
    }
}

#[inline(always)]
fn floats_of<L: Lanes, const P: usize, const AVX2: bool>(
    z: &mut [f32; 64],
    numbers: [&[f32]; P],
    residual: Option<&[f32]>,
    act: Activation,
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
    z[len..].fill(0.0);
    let mut bytes = [0; 64];
    for (bytes, z) in bytes.as_chunks_mut().0.iter_mut().zip(z.as_chunks::<PIECE>().0) {
        *nan |= gather::<AVX2>(z, 0, bytes);
    }
    word::<AVX2>(&bytes, 0)
}
