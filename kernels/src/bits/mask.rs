//! One bit an element: where a gradient passes.

use super::words;
use crate::par;
use crate::simd::{self, per_level};

/// Which elements of a tensor hold, one bit an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    len: usize,
    words: Vec<u64>,
}

/// Elements for one task, a whole number of words.
const PIECE: usize = par::GRAIN.next_multiple_of(64);

impl Mask {
    /// The elements of `x` for which `f` holds.
    pub fn of(x: &[f32], f: impl Fn(f32) -> bool + Sync) -> Mask {
        let level = simd::level();
        let mut words = vec![0; x.len().div_ceil(64)];
        par::chunks(&mut words, PIECE / 64, |i, words| {
            let x = &x[i * PIECE..x.len().min((i + 1) * PIECE)];
            gather(level, x, &f, words);
        });
        Mask { len: x.len(), words }
    }

    /// The elements with `|x| <= limit`; a NaN is not among them.
    ///
    /// ```
    /// use dirnet_kernels::bits::{Mask, masked};
    /// let mask = Mask::within(&[0.5, -3.0, -1.0], 1.0);
    /// let mut dx = [0.0; 3];
    /// masked(&mask, 2.0, &[1.0, 1.0, 1.0], &mut dx);
    /// assert_eq!(dx, [2.0, 0.0, 2.0]);
    /// ```
    pub fn within(x: &[f32], limit: f32) -> Mask {
        Mask::of(x, |x| x.abs() <= limit)
    }

    /// The elements whose sign is +1.
    pub fn signs(x: &[f32]) -> Mask {
        Mask::of(x, |x| super::sign(x) > 0.0)
    }

    /// How many elements are set in one of two masks only.
    ///
    /// # Panics
    /// If they are not masks of equally many elements.
    ///
    /// ```
    /// use dirnet_kernels::bits::Mask;
    /// let (before, after) = (Mask::signs(&[0.5, -3.0, 0.0]), Mask::signs(&[-0.5, -1.0, 2.0]));
    /// assert_eq!(before.differing(&after), 1);
    /// ```
    pub fn differing(&self, other: &Mask) -> usize {
        assert_eq!(self.len, other.len, "masks of equally many elements");
        let words = self.words.iter().zip(&other.words);
        words.map(|(a, b)| (a ^ b).count_ones() as usize).sum()
    }

    /// Its bits, 64 a word, the first element lowest; what lies beyond the last element is not set.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The mask of these [`Mask::words`], if there are as many as `len` elements take and nothing is
    /// set beyond them.
    pub fn from_words(len: usize, words: Vec<u64>) -> Option<Mask> {
        let inside = match len % 64 {
            0 => u64::MAX,
            rest => (1 << rest) - 1,
        };
        let whole = words.last().is_none_or(|last| last & !inside == 0);
        (words.len() == len.div_ceil(64) && whole).then_some(Mask { len, words })
    }

    /// Elements, set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is the mask of nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

/// `dx = slope·dy` where the mask is set, 0 elsewhere, whatever `dy` is there.
///
/// # Panics
/// If the three lengths differ.
#[track_caller]
pub fn masked(mask: &Mask, slope: f32, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), mask.len, "bits::masked: dy and the mask");
    assert_eq!(dx.len(), mask.len, "bits::masked: dx and the mask");
    let level = simd::level();
    par::chunks(dx, PIECE, |i, dx| {
        let dy = &dy[i * PIECE..][..dx.len()];
        pass(level, &mask.words[i * PIECE / 64..], slope, dy, dx);
    });
}

/// `dy`, of elements from `first` on, becomes `slope·dy` where the mask is set, 0 elsewhere.
///
/// # Panics
/// If the mask does not go as far.
#[track_caller]
pub fn masked_in_place(mask: &Mask, first: usize, slope: f32, dy: &mut [f32]) {
    assert!(first + dy.len() <= mask.len, "bits::masked_in_place: dy and the mask");
    let level = simd::level();
    let (before, dy) = dy.split_at_mut((first.next_multiple_of(64) - first).min(dy.len()));
    for (i, dy) in before.iter_mut().enumerate() {
        *dy = select(mask.words[first / 64] >> ((first + i) % 64), slope * *dy);
    }
    let words = &mask.words[first.div_ceil(64)..];
    par::chunks(dy, PIECE, |i, dy| pass_in_place(level, &words[i * PIECE / 64..], slope, dy));
}

#[inline(always)]
fn select(set: u64, x: f32) -> f32 {
    f32::from_bits(x.to_bits() & (set as u32 & 1).wrapping_neg())
}

per_level! {
    fn gather[F: Fn(f32) -> bool](x: &[f32], f: &F, mask: &mut [u64]) {
        for (word, x) in mask.iter_mut().zip(x.chunks(64)) {
            let mut bytes = [0; 64];
            for (byte, &x) in bytes.iter_mut().zip(x) {
                *byte = u8::from(f(x));
            }
            *word = words::word::<FUSED>(&bytes, 0);
        }
    }

    fn pass[](words: &[u64], slope: f32, dy: &[f32], dx: &mut [f32]) {
        for ((word, dy), dx) in words.iter().zip(dy.chunks(64)).zip(dx.chunks_mut(64)) {
            for (i, (dx, dy)) in dx.iter_mut().zip(dy).enumerate() {
                *dx = select(word >> i, slope * dy);
            }
        }
    }

    fn pass_in_place[](words: &[u64], slope: f32, dy: &mut [f32]) {
        for (word, dy) in words.iter().zip(dy.chunks_mut(64)) {
            for (i, dy) in dy.iter_mut().enumerate() {
                *dy = select(word >> i, slope * *dy);
            }
        }
    }
}
