//! The one source of randomness: keyed streams of ChaCha8, the same numbers on every machine, for ever.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers, told by a seed, a purpose and some counters.
///
/// Two streams with different keys have nothing to do with each other, so what one consumer draws
/// never shifts what another one sees: the order of batches in epoch 5 does not depend on whether
/// the images were augmented, on the number of threads, or on where training was resumed.
///
/// The key of the cipher is `SHA-256(seed, length of purpose, purpose, parts...)`, each number as eight
/// little-endian bytes and the purpose as its UTF-8 bytes; the stream is ChaCha8 with nonce and
/// counter at zero. All functions below are plain arithmetic on that stream.
///
/// ```
/// use dirnet_datasets::Rng;
/// let mut a = Rng::keyed(7, "augment", &[3, 120]);   // seed 7, epoch 3, image 120
/// let mut b = Rng::keyed(7, "augment", &[3, 120]);
/// assert_eq!(a.uniform(), b.uniform());
/// ```
///
/// D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of a bare seed: `keyed(seed, "", &[])`.
    pub fn seed(seed: u64) -> Rng {
        Rng::keyed(seed, "", &[])
    }

    /// The stream of a seed for one purpose and, say, one epoch and step.
    pub fn keyed(seed: u64, purpose: &str, parts: &[u64]) -> Rng {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update((purpose.len() as u64).to_le_bytes());
        hash.update(purpose);
        for part in parts {
            hash.update(part.to_le_bytes());
        }
        Rng(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// A number in `[0, 1)`: a multiple of `2⁻²⁴`, each equally likely.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// A number in `[start, end)`.
    ///
    /// # Panics
    /// If `start < end` does not hold.
    #[track_caller]
    pub fn range(&mut self, range: Range<f32>) -> f32 {
        let Range { start, end } = range;
        assert!(start < end, "range: {start}..{end} is empty");
        // Rounding can reach `end`, which is not part of the range.
        (start + (end - start) * self.uniform()).min(end.next_down())
    }

    /// A whole number below `n`, each equally likely.
    ///
    /// # Panics
    /// If `n` is zero.
    #[track_caller]
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below: there is no number below 0");
        let n = n as u64;
        // The high half of a product maps 2⁶⁴ values onto n; the few that would make some results
        // more frequent than others are drawn again (Lemire 2019, arXiv 1805.10941).
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= unfair {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number of the standard normal distribution, by Box and Muller (1958):
    ///
    /// `√(-2 ln u) · cos(2π v)` with `u` in `(0, 1]`, `v` in `[0, 1)`, in f64.
    ///
    /// The logarithm and cosine are our own build's, not the system's, so every machine agrees.
    pub fn normal(&mut self) -> f32 {
        let scale = 1.0 / (1u64 << 53) as f64;
        let u = ((self.0.next_u64() >> 11) + 1) as f64 * scale;
        let v = (self.0.next_u64() >> 11) as f64 * scale;
        ((-2.0 * libm::log(u)).sqrt() * libm::cos(std::f64::consts::TAU * v)) as f32
    }

    /// `1.0` or `-1.0`.
    pub fn sign(&mut self) -> f32 {
        if self.0.next_u32() >> 31 == 0 { 1.0 } else { -1.0 }
    }

    /// Fills a slice with numbers of the standard normal distribution.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for x in out {
            *x = self.normal();
        }
    }

    /// Puts a slice in random order, each order equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of a second program, written from the words above in another language.
    #[test]
    fn the_stream_is_pinned() {
        let mut rng = Rng::seed(7);
        let uniform = [(); 4].map(|()| rng.uniform() * (1 << 24) as f32);
        assert_eq!(uniform, [3_911_505.0, 13_691_627.0, 10_529_421.0, 13_504_597.0]);

        let mut rng = Rng::keyed(7, "order", &[3]);
        assert_eq!([rng.below(1000), rng.below(1000), rng.below(7)], [859, 535, 3]);
        assert_eq!([rng.normal(), rng.normal()], [-0.326_367_36, -1.256_391_9]);
        assert_eq!(rng.range(-2.0..3.0), 2.104_095);
        let mut items: Vec<u8> = (0..8).collect();
        rng.shuffle(&mut items);
        assert_eq!(items, [5, 7, 4, 1, 3, 2, 6, 0]);
        assert_eq!([(); 4].map(|()| rng.sign()), [1.0, -1.0, 1.0, 1.0]);
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        let first = |mut rng: Rng| rng.0.next_u64();
        let keys = [
            first(Rng::seed(1)),
            first(Rng::seed(2)),
            first(Rng::keyed(1, "a", &[])),
            first(Rng::keyed(1, "", &[97])),
            first(Rng::keyed(1, "a", &[0])),
            first(Rng::keyed(1, "a", &[0, 0])),
            first(Rng::keyed(1, "a", &[1])),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "key {i} repeats an earlier one");
        }
    }

    #[test]
    fn numbers_are_spread_as_promised() {
        const N: usize = 40_000;
        let mut rng = Rng::seed(0);
        let mut x = vec![0.0; N];
        rng.fill_normal(&mut x);
        let mean = |f: fn(f64) -> f64| x.iter().map(|&x| f(x.into())).sum::<f64>() / N as f64;
        assert!(mean(|x| x).abs() < 0.02);
        assert!((mean(|x| x * x) - 1.0).abs() < 0.03);
        assert!((mean(|x| x * x * x * x) - 3.0).abs() < 0.2);

        let mut counts = [0usize; 6];
        (0..N).for_each(|_| counts[rng.below(6)] += 1);
        assert!(counts.iter().all(|&n| n.abs_diff(N / 6) < 400), "{counts:?}");
        assert!((0..N).map(|_| rng.uniform()).all(|u| (0.0..1.0).contains(&u)));
        // So narrow that rounding would often give the excluded end.
        let (low, high) = (1.0f32, 1.0f32.next_up());
        assert!((0..100).all(|_| rng.range(low..high) == low));
        assert!(((0..N).map(|_| rng.sign()).sum::<f32>() / N as f32).abs() < 0.02);
    }
}
