//! Passes and sums over images in which every channel has numbers of its own; images are seen as
//! `n` by `c` by `hw`.
//!
//! Where `hw` is small, and 1 in a dense layer, channels are taken side by side, else one by one.

use crate::par::{GRAIN, chunks};
use crate::simd::{Level, level, per_level};

/// Sums that are taken side by side.
const LANES: usize = 64;
/// The same where the sums stay in registers.
const FEW: usize = 16;
/// Channels whose sums are taken side by side: some, whose pixels make a stretch, but not many, whose
/// lanes would fill the first cache.
const MANY: usize = 16;
const STRETCH: usize = 4096;
/// Images whose rows are added one after the other.
const IMAGES: usize = 8;

/// `y[n,c,p] = f(a[n,c,p], b[n,c,p], [one number of the channel from each of numbers])`
pub(crate) fn pass<const P: usize>(
    [c, hw]: [usize; 2],
    a: &[f32],
    b: &[f32],
    numbers: [&[f32]; P],
    y: &mut [f32],
    f: impl Fn(f32, f32, [f32; P]) -> f32 + Sync,
) {
    let level = level();
    assert!(a.len() == y.len() && b.len() == y.len());
    assert!(numbers.iter().all(|numbers| numbers.len() == c));
    // Whole images where a row is a single pixel, else whole rows.
    let row = if hw == 1 { c } else { hw };
    let rows = (GRAIN / row.max(1)).max(1);
    chunks(y, rows * row, |at, y| {
        let from = at * rows * row;
        let (a, b) = (&a[from..][..y.len()], &b[from..][..y.len()]);
        if hw == 1 {
            pass_images(level, c, a, b, numbers, y, &f);
        } else {
            pass_rows(level, at * rows, c, hw, a, b, numbers, y, &f);
        }
    });
}

per_level! {
    fn pass_images[const P: usize, F: Fn(f32, f32, [f32; P]) -> f32]
        (c: usize, a: &[f32], b: &[f32], numbers: [&[f32]; P], y: &mut [f32], f: &F) {
        let numbers = numbers.map(|numbers| &numbers[..c]);
        for ((y, a), b) in y.chunks_exact_mut(c).zip(a.chunks_exact(c)).zip(b.chunks_exact(c)) {
            for j in 0..c {
                y[j] = f(a[j], b[j], numbers.map(|numbers| numbers[j]));
            }
        }
    }
    fn pass_rows[const P: usize, F: Fn(f32, f32, [f32; P]) -> f32](
        first: usize,
        c: usize,
        hw: usize,
        a: &[f32],
        b: &[f32],
        numbers: [&[f32]; P],
        y: &mut [f32],
        f: &F,
    ) {
        let rows = y.chunks_exact_mut(hw).zip(a.chunks_exact(hw)).zip(b.chunks_exact(hw));
        for (i, ((y, a), b)) in rows.enumerate() {
            let numbers = numbers.map(|numbers| numbers[(first + i) % c]);
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f(a, b, numbers);
            }
        }
    }
}

/// For each channel `Σ_{n,p} term(a[n,c,p], b[n,c,p])`.
pub(crate) fn sums(
    size: [usize; 3],
    a: &[f32],
    b: &[f32],
    term: impl Fn(f32, f32) -> f64 + Sync,
) -> Vec<f64> {
    let add = |level, rows, a: &[f32], b: &[f32], _: &_, [lanes]: &mut [_; 1]| {
        add_terms(level, rows, a, b, &term, lanes);
    };
    sums_of(size, a, b, |_| [0.0; 2], add).into_iter().map(|[sum]| sum).collect()
}

/// For each channel, with `[s, t] = centres(c)`, the sums over `n` and `p` of `a - s` and of
/// `(a - s)·(b - t)`.
pub(crate) fn centred_sums(
    size: [usize; 3],
    a: &[f32],
    b: &[f32],
    centres: impl Fn(usize) -> [f32; 2] + Sync,
) -> Vec<[f64; 2]> {
    let apart = together(size) > 1;
    sums_of(size, a, b, centres, |level, rows, a, b, centres, lanes| {
        add_centred(level, rows, a, b, apart, centres, lanes);
    })
}

/// Channels whose rows are so short that they stand side by side, each pixel in a lane of its own.
fn together([_, c, hw]: [usize; 3]) -> usize {
    (LANES / hw.max(1)).clamp(1, c.max(1))
}

/// `K` sums a channel of what `add` adds to the lanes.
fn sums_of<const K: usize>(
    [n, c, hw]: [usize; 3],
    a: &[f32],
    b: &[f32],
    centres: impl Fn(usize) -> [f32; 2] + Sync,
    add: impl Fn(Level, Rows, &[f32], &[f32], &[[f32; LANES]; 2], &mut [[f64; LANES]; K]) + Sync,
) -> Vec<[f64; K]> {
    let level = level();
    assert!(a.len() == n * c * hw && b.len() == a.len());
    let together = together([n, c, hw]);
    // A few images at a time through some neighbouring channels, since memory likes to be read in
    // long stretches, and the lanes not to be fetched for every row.
    let each = (STRETCH / hw.max(1)).clamp(1, MANY).next_multiple_of(together);
    let mut out = vec![[0f64; K]; c];
    chunks(&mut out, each, |at, out| {
        let units = out.len().div_ceil(together);
        let first = |unit: usize| at * each + unit * together;
        let mut lanes = vec![[[0f64; LANES]; K]; units];
        let mut centre_lanes = vec![[[0f32; LANES]; 2]; units];
        for (unit, [s, t]) in centre_lanes.iter_mut().enumerate() {
            for l in 0..LANES {
                let channel = if together == 1 { 0 } else { l / hw };
                [s[l], t[l]] = centres((first(unit) + channel).min(c - 1));
            }
        }
        for image in (0..n).step_by(IMAGES) {
            for (unit, lanes) in lanes.iter_mut().enumerate() {
                let width = together.min(out.len() - unit * together) * hw;
                let rows = Rows { many: IMAGES.min(n - image), stride: c * hw, width };
                let from = (image * c + first(unit)) * hw;
                add(level, rows, &a[from..], &b[from..], &centre_lanes[unit], lanes);
            }
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = lanes[i / together].each_ref().map(|lanes| match together {
                1 => total(lanes),
                _ => lanes[i % together * hw..][..hw].iter().sum(),
            });
        }
    });
    out
}

/// `Σ_i term(a[i], b[i])`
pub(crate) fn row_sum(level: Level, a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0f64; LANES];
    add_terms(level, Rows::one(a), a, b, &term, &mut lanes);
    total(&lanes)
}

/// `Σ_i (x[i] - centre)` and `Σ_i (x[i] - centre)²`
pub(crate) fn row_moments(level: Level, x: &[f32], centre: f32) -> [f64; 2] {
    let mut lanes = [[0f64; LANES]; 2];
    add_centred(level, Rows::one(x), x, x, false, &[[centre; LANES]; 2], &mut lanes);
    lanes.each_ref().map(|lanes| total::<FEW>(lanes.first_chunk().expect("more lanes than few")))
}

/// The sum of the lanes, a power of two: the upper half is added to the lower until one is left.
fn total<const N: usize>(lanes: &[f64; N]) -> f64 {
    let mut lanes = *lanes;
    let mut half = N / 2;
    while half > 0 {
        let (lower, upper) = lanes.split_at_mut(half);
        lower.iter_mut().zip(upper).for_each(|(lower, upper)| *lower += *upper);
        half /= 2;
    }
    lanes[0]
}

/// Which elements of a slice to take: some of each row.
#[derive(Clone, Copy)]
struct Rows {
    many: usize,
    stride: usize,
    width: usize,
}

impl Rows {
    /// The whole of it.
    fn one(x: &[f32]) -> Rows {
        Rows { many: 1, stride: x.len(), width: x.len() }
    }

    /// Row `i`, as often as the lanes go into it, and the rest.
    #[inline(always)]
    fn row(self, i: usize, x: &[f32]) -> (&[[f32; LANES]], &[f32]) {
        x[i * self.stride..][..self.width].as_chunks()
    }
}

per_level! {
    /// `lanes[j mod LANES] += term(a[i,j], b[i,j])`
    fn add_terms[F: Fn(f32, f32) -> f64]
        (rows: Rows, a: &[f32], b: &[f32], term: &F, lanes: &mut [f64; LANES]) {
        // So many lanes that they stay in memory, and the compiler makes vectors of a plain loop
        // over them; few it would unroll and take apart.
        for i in 0..rows.many {
            let ((whole_a, rest_a), (whole_b, rest_b)) = (rows.row(i, a), rows.row(i, b));
            for (a, b) in whole_a.iter().zip(whole_b) {
                for l in 0..LANES {
                    lanes[l] += term(a[l], b[l]);
                }
            }
            for l in 0..rest_a.len() {
                lanes[l] += term(rest_a[l], rest_b[l]);
            }
        }
    }

    /// `lanes[0][l] += a - s[l]` and `lanes[1][l] += (a - s[l])·(b - t[l])` for the elements of each
    /// row, with `l` counting up to the row's width if it has many centres, else up to [`FEW`].
    fn add_centred[](
        rows: Rows,
        a: &[f32],
        b: &[f32],
        many_centres: bool,
        centres: &[[f32; LANES]; 2],
        lanes: &mut [[f64; LANES]; 2],
    ) {
        for i in 0..rows.many {
            let row = i * rows.stride..i * rows.stride + rows.width;
            let (a, b) = (&a[row.clone()], &b[row]);
            if many_centres {
                add_centred_few(a, b, centres, lanes);
                continue;
            }
            let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks(), b.as_chunks());
            #[cfg(target_arch = "x86_64")]
            if FUSED {
                // SAFETY: on x86-64 `FUSED` says that FMA is there, which implies AVX.
                unsafe { add_centred_avx(whole_a, whole_b, centres, lanes) };
                add_centred_few(rest_a, rest_b, centres, lanes);
                continue;
            }
            for (a, b) in whole_a.iter().zip(whole_b) {
                let (a, b): (&[f32; FEW], &[f32; FEW]) = (a, b);
                add_centred_few(a, b, centres, lanes);
            }
            add_centred_few(rest_a, rest_b, centres, lanes);
        }
    }
}

/// The sums above for no more elements than lanes.
#[inline(always)]
fn add_centred_few(
    a: &[f32],
    b: &[f32],
    [s, t]: &[[f32; LANES]; 2],
    [first, second]: &mut [[f64; LANES]; 2],
) {
    let n = a.len();
    let (s, t, b) = (&s[..n], &t[..n], &b[..n]);
    let (first, second) = (&mut first[..n], &mut second[..n]);
    for l in 0..n {
        let a = a[l] as f64 - s[l] as f64;
        first[l] += a;
        second[l] += a * (b[l] as f64 - t[l] as f64);
    }
}

/// The sums above about one pair of centres, in [`FEW`] lanes; to the bit those of
/// [`add_centred_few`], which the compiler would take apart here.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
fn add_centred_avx(
    a: &[[f32; FEW]],
    b: &[[f32; FEW]],
    [s, t]: &[[f32; LANES]; 2],
    [first, second]: &mut [[f64; LANES]; 2],
) {
    use std::arch::x86_64::*;
    const REGISTERS: usize = FEW / 4;
    let (s, t) = (_mm256_set1_pd(s[0] as f64), _mm256_set1_pd(t[0] as f64));
    let load = |lanes: &[f64; LANES]| -> [__m256d; REGISTERS] {
        // SAFETY: FEW lanes, of which there are more, are REGISTERS times four.
        std::array::from_fn(|q| unsafe { _mm256_loadu_pd(lanes.as_ptr().add(4 * q)) })
    };
    let (mut sums, mut products) = (load(first), load(second));
    for (a, b) in a.iter().zip(b) {
        for q in 0..REGISTERS {
            // SAFETY: a row of FEW is REGISTERS times four.
            let (a, b) = unsafe {
                (_mm_loadu_ps(a.as_ptr().add(4 * q)), _mm_loadu_ps(b.as_ptr().add(4 * q)))
            };
            let a = _mm256_sub_pd(_mm256_cvtps_pd(a), s);
            let b = _mm256_sub_pd(_mm256_cvtps_pd(b), t);
            sums[q] = _mm256_add_pd(sums[q], a);
            products[q] = _mm256_add_pd(products[q], _mm256_mul_pd(a, b));
        }
    }
    for q in 0..REGISTERS {
        // SAFETY: as for load.
        unsafe {
            _mm256_storeu_pd(first.as_mut_ptr().add(4 * q), sums[q]);
            _mm256_storeu_pd(second.as_mut_ptr().add(4 * q), products[q]);
        }
    }
}
