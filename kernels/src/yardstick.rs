//! What this machine can do at most, to hold kernels against, in the same run: fused multiply-adds
//! from registers alone, and the bare matrix product of `matrixmultiply`.

use crate::gemm::blocks;
use crate::par;
#[cfg(target_arch = "x86_64")]
use crate::simd;

/// Multiply-adds a second of 32-bit floats of all [`par::threads`] together, reading and writing
/// registers only: the quickest of what fits in a fifth of a second. `None` where that is not known:
/// on machines without AVX2.
pub fn peak() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if simd::available().contains(&simd::Level::Avx2) {
        // SAFETY: the level says that the machine has both features.
        return Some(unsafe { avx2::peak() });
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use crate::par;
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    pub const LANES: usize = 8;
    /// So many that none waits for itself, so few that all stay in registers.
    pub const CHAINS: usize = 12;

    /// # Safety
    /// The machine has AVX2 and FMA.
    pub unsafe fn peak() -> f64 {
        const TIMES: usize = 200_000;
        let threads = par::threads();
        let time = || {
            let start = Instant::now();
            // SAFETY: the caller's promise.
            black_box(par::map(threads, |_| unsafe { chains(TIMES) }));
            start.elapsed().as_secs_f64()
        };
        let (began, mut best) = (Instant::now(), f64::INFINITY);
        while began.elapsed() < Duration::from_millis(200) {
            best = best.min(time());
        }
        (threads * TIMES * CHAINS * LANES) as f64 / best
    }

    /// Sums of `s = s/2 + 1/2`, so many times from 1/2 on.
    #[target_feature(enable = "avx2,fma")]
    pub fn chains(times: usize) -> f32 {
        let half = _mm256_set1_ps(black_box(0.5));
        let mut sums = [half; CHAINS];
        for _ in 0..times {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, half, half);
            }
        }
        let zero = _mm256_setzero_ps();
        let sum = sums.into_iter().fold(zero, |all, sum| _mm256_add_ps(all, sum));
        LANES as f32 * _mm256_cvtss_f32(sum)
    }
}

/// [`gemm`](crate::gemm::gemm) by one call of `matrixmultiply` a thread, for an equal share of the
/// rows: its own speed and nothing else. It may be quicker for the transposed product, `yᵀ = bᵀ·aᵀ`.
///
/// # Panics
/// If a length does not fit.
#[track_caller]
pub fn sgemm(
    m: usize,
    k: usize,
    n: usize,
    a: &[f32],
    ta: bool,
    b: &[f32],
    tb: bool,
    y: &mut [f32],
) {
    blocks(m.div_ceil(par::threads()), m, k, n, a, ta, b, tb, y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_chains_add_up() {
        if !simd::available().contains(&simd::Level::Avx2) {
            return;
        }
        for (times, sum) in [(0, 0.5), (1, 0.75), (100, 1.0)] {
            // SAFETY: the level says that the machine has both features.
            let sums = unsafe { avx2::chains(times) };
            assert_eq!(sums, sum * (avx2::CHAINS * avx2::LANES) as f32);
        }
    }

    #[test]
    fn both_orders_give_the_same_product() {
        let (m, k, n) = (5, 3, 4);
        let a: Vec<f32> = (0..m * k).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..k * n).map(|i| i as f32 - 5.0).collect();
        let (mut want, mut y, mut turned) = (vec![0.0; m * n], vec![0.0; m * n], vec![0.0; m * n]);
        crate::naive::gemm(m, k, n, &a, false, &b, false, &mut want);
        for threads in [1, 3] {
            par::with_threads(threads, || {
                sgemm(m, k, n, &a, false, &b, false, &mut y);
                sgemm(n, k, m, &b, true, &a, true, &mut turned);
            })
            .unwrap();
            assert_eq!(y, want);
            for (i, y) in y.iter().enumerate() {
                assert_eq!(turned[i % n * m + i / n], *y);
            }
        }
    }
}
