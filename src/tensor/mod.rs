//! Numbers and a shape: the value that operations pass around. No gradient in sight.

mod buffer;
mod compact;

pub use buffer::{Held, live_bytes, peak_bytes, reset_peak};
pub(crate) use compact::Compact;

use crate::Rng;
use buffer::Buffer;
use compact::Integers;
use dirnet_kernels::{bits::Image, norm_act, par};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// An array of `f32`, contiguous and row major.
///
/// A clone shares the numbers, so saving a tensor for later costs a counter, not a copy; who writes
/// to a shared tensor gets a copy of its own first. A tensor reads as a slice:
///
/// ```
/// use dirnet::Tensor;
/// let x = Tensor::new([2, 2], vec![1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(x.shape(), [2, 2]);
/// assert_eq!(x[3], 4.0);
/// assert_eq!(x.iter().sum::<f32>(), 10.0);
/// ```
///
/// Between two binary layers an operation may leave its numbers in a form that takes less memory; they
/// become floats when somebody first reads them.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    numbers: Arc<Numbers>,
}

/// What the tensors that share it have in common.
struct Numbers {
    /// Made of the smaller form when first read, if there is one.
    floats: OnceLock<Buffer>,
    compact: Option<Arc<dyn Compact>>,
    /// Their signs, where somebody had them at hand.
    signs: Option<Arc<Held<Image>>>,
}

impl Numbers {
    fn new(floats: Buffer) -> Arc<Numbers> {
        Arc::new(Numbers { floats: OnceLock::from(floats), compact: None, signs: None })
    }
}

impl Tensor {
    /// A tensor of these numbers.
    ///
    /// # Panics
    /// If their count is not the product of the shape.
    #[track_caller]
    pub fn new(shape: impl AsRef<[usize]>, data: Vec<f32>) -> Self {
        let shape = shape.as_ref();
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "tensor: shape {shape:?} does not hold {} numbers",
            data.len()
        );
        Tensor { shape: shape.to_vec(), numbers: Numbers::new(Buffer::of(data)) }
    }

    /// A tensor written by `fill`, which must write every element: what it finds there is left
    /// over from earlier tensors.
    pub fn build(shape: impl AsRef<[usize]>, fill: impl FnOnce(&mut [f32])) -> Self {
        let shape = shape.as_ref().to_vec();
        let mut buffer = Buffer::take(shape.iter().product());
        fill(buffer.data_mut());
        Tensor { shape, numbers: Numbers::new(buffer) }
    }

    /// A tensor whose floats are made when somebody reads them.
    pub(crate) fn compact(shape: impl AsRef<[usize]>, numbers: impl Compact + 'static) -> Self {
        let compact = Some(Arc::new(numbers) as Arc<dyn Compact>);
        let numbers = Numbers { floats: OnceLock::new(), compact, signs: None };
        Tensor { shape: shape.as_ref().to_vec(), numbers: Arc::new(numbers) }
    }

    /// `scale[c]·z` of shape `N C ...`, for integers written by `fill`, which must write them all, and
    /// may say what `[Σ z, Σ z²]` are of each channel.
    pub(crate) fn integers(
        shape: impl AsRef<[usize]>,
        scale: Tensor,
        fill: impl FnOnce(&mut [i16]) -> Option<Vec<[i64; 2]>>,
    ) -> Self {
        let shape = shape.as_ref();
        Tensor::compact(shape, Integers::build(shape, scale, fill))
    }

    /// The same tensor, with its signs at hand.
    pub(crate) fn with_signs(mut self, signs: Image) -> Self {
        if let Some(numbers) = Arc::get_mut(&mut self.numbers) {
            numbers.signs = Some(Arc::new(Held::by(signs, Image::bytes)));
        }
        self
    }

    /// A single number, of rank 0.
    pub fn scalar(x: f32) -> Self {
        Tensor::build([], |y| y[0] = x)
    }
    /// The same number everywhere.
    pub fn full(shape: impl AsRef<[usize]>, x: f32) -> Self {
        Tensor::build(shape, |y| y.fill(x))
    }
    /// Zeros.
    pub fn zeros(shape: impl AsRef<[usize]>) -> Self {
        Tensor::full(shape, 0.0)
    }
    /// Draws from a normal distribution of mean 0 and standard deviation `std`.
    pub fn randn(shape: impl AsRef<[usize]>, std: f32, rng: &mut Rng) -> Self {
        Tensor::build(shape, |y| y.iter_mut().for_each(|y| *y = std * rng.normal()))
    }
    /// Draws from a uniform distribution over `[-limit, limit)`.
    pub fn uniform(shape: impl AsRef<[usize]>, limit: f32, rng: &mut Rng) -> Self {
        Tensor::build(shape, |y| {
            y.iter_mut().for_each(|y| *y = limit * (2.0 * rng.uniform() - 1.0))
        })
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// How many sizes there are.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The numbers, to be changed in place; copied first if another tensor shares them.
    pub fn data_mut(&mut self) -> &mut [f32] {
        if Arc::get_mut(&mut self.numbers).is_none_or(|n| n.floats.get().is_none()) {
            *self = Tensor::build(&self.shape, |y| self.read(0, y));
        }
        let numbers = Arc::get_mut(&mut self.numbers).expect("just made its own");
        (numbers.compact, numbers.signs) = (None, None);
        numbers.floats.get_mut().expect("looked for above").data_mut()
    }
    /// Whether another tensor shares the numbers.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.numbers) > 1
    }
    /// The floats, unless they still have to be made.
    pub(crate) fn floats(&self) -> Option<&[f32]> {
        self.numbers.floats.get().map(Buffer::data)
    }
    /// The smaller form, if there is one; who holds it does not hold the floats.
    pub(crate) fn as_compact(&self) -> Option<&Arc<dyn Compact>> {
        self.numbers.compact.as_ref()
    }
    /// Integers with a scale a channel, where that is what the numbers are.
    pub(crate) fn as_integers(&self) -> Option<norm_act::Numbers<'_>> {
        self.as_compact()?.integers()
    }
    /// The signs, where somebody had them at hand; who holds them does not hold the numbers.
    pub(crate) fn signs(&self) -> Option<&Arc<Held<Image>>> {
        self.numbers.signs.as_ref()
    }
    /// Copies the numbers from element `first` on, without making floats of all.
    pub(crate) fn read(&self, first: usize, y: &mut [f32]) {
        match (self.floats(), self.as_compact()) {
            (Some(x), _) => y.copy_from_slice(&x[first..first + y.len()]),
            (None, Some(compact)) => par::chunks(y, par::GRAIN, |i, y| {
                compact.write(first + i * par::GRAIN, y);
            }),
            (None, None) => unreachable!("a tensor has floats or a smaller form of them"),
        }
    }
    /// Lends `len` numbers from element `first` on, without making floats of all.
    pub(crate) fn lend<R>(&self, first: usize, len: usize, f: impl FnOnce(&[f32]) -> R) -> R {
        match self.floats() {
            Some(x) => f(&x[first..first + len]),
            None => par::scratch(len, |x| {
                self.read(first, x);
                f(x)
            }),
        }
    }
    /// At most some thousand of the numbers, evenly spaced: all of them if they are few.
    pub(crate) fn sample(&self) -> Vec<f32> {
        const ENOUGH: usize = 4096;
        // An odd step does not fall into step with channels or rows.
        self.gather((0..self.len()).step_by((self.len() / ENOUGH).max(1) | 1))
    }
    /// The numbers at these places, without making floats of all.
    pub(crate) fn gather(&self, mut places: impl Iterator<Item = usize>) -> Vec<f32> {
        match (self.floats(), self.as_compact()) {
            (None, Some(compact)) => compact.gather(&mut places),
            _ => places.map(|i| self[i]).collect(),
        }
    }
    /// The one number of a tensor that has just one.
    ///
    /// # Panics
    /// If it has more, or none.
    #[track_caller]
    pub fn item(&self) -> f32 {
        assert_eq!(self.len(), 1, "item: a tensor of shape {:?} is not one number", self.shape);
        self[0]
    }
    /// The same numbers under another shape.
    ///
    /// # Panics
    /// If the counts differ.
    #[track_caller]
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Self {
        let shape = shape.as_ref();
        assert_eq!(
            shape.iter().product::<usize>(),
            self.len(),
            "reshape: {:?} does not fit {shape:?}",
            self.shape
        );
        Tensor { shape: shape.to_vec(), numbers: self.numbers.clone() }
    }
    /// `f` of every element; in place where nobody shares the numbers.
    pub fn map(mut self, f: impl Fn(f32) -> f32 + Sync) -> Self {
        if self.is_shared() {
            Tensor::build(&self.shape, |y| dirnet_kernels::elementwise::map(&self, y, f))
        } else {
            dirnet_kernels::elementwise::map_in_place(self.data_mut(), f);
            self
        }
    }
    /// Adds `other` in place.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn add_assign(&mut self, other: &Tensor) {
        assert_eq!(self.shape, other.shape, "add_assign: shapes differ");
        dirnet_kernels::elementwise::add_assign(self.data_mut(), other);
    }
}

impl Deref for Tensor {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let make = || {
            let mut floats = Buffer::take(self.len());
            self.read(0, floats.data_mut());
            floats
        };
        self.numbers.floats.get_or_init(make).data()
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && **self == **other
    }
}

impl From<f32> for Tensor {
    fn from(x: f32) -> Self {
        Tensor::scalar(x)
    }
}

impl From<Vec<f32>> for Tensor {
    fn from(data: Vec<f32>) -> Self {
        Tensor::new([data.len()], data)
    }
}

impl<const N: usize> From<[f32; N]> for Tensor {
    fn from(data: [f32; N]) -> Self {
        Tensor::new([N], data.to_vec())
    }
}

impl From<&Tensor> for Tensor {
    fn from(x: &Tensor) -> Self {
        x.clone()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self[..self.len().min(8)];
        let dots = if shown.len() < self.len() { ", …" } else { "" };
        let numbers: Vec<String> = shown.iter().map(|x| format!("{x}")).collect();
        write!(f, "Tensor{:?}[{}{dots}]", self.shape, numbers.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_to_a_shared_tensor_copies_it() {
        let a = Tensor::from([1.0, 2.0]);
        let mut b = a.clone();
        assert!(a.is_shared());
        b.data_mut()[0] = 5.0;
        assert_eq!((a[0], b[0]), (1.0, 5.0));
        assert!(!a.is_shared());
    }

    #[test]
    fn buffers_come_back() {
        // An odd size, so that no other test of this thread has left one behind.
        let x = Tensor::zeros([12_347]);
        let at = x.as_ptr();
        drop(x);
        assert_eq!(Tensor::zeros([12_347]).as_ptr(), at);
    }

    #[test]
    fn what_is_built_begins_with_a_cache_line() {
        // Each length twice: anew, and from the pool if it is long enough for it.
        for len in [1, 15, 16, 1023, 1025, 70_001].into_iter().flat_map(|len| [len; 2]) {
            let (x, y) = (Tensor::zeros([len]), Tensor::full([len], 1.0));
            assert_eq!((x.len(), x.as_ptr().addr() % 64), (len, 0));
            assert_eq!((y.len(), y.as_ptr().addr() % 64), (len, 0));
            assert!(x.iter().all(|&x| x == 0.0) && y.iter().all(|&y| y == 1.0));
        }
    }

    #[test]
    fn what_comes_from_outside_stays_where_it_is_and_is_not_kept() {
        let (len, before) = (5_003, live_bytes());
        let data = vec![2.0; len];
        let at = data.as_ptr();
        let x = Tensor::new([len], data);
        assert_eq!((x.as_ptr(), live_bytes() - before), (at, 4 * len));
        drop(x);
        assert_eq!(live_bytes(), before);
        assert_eq!(Tensor::zeros([len]).as_ptr().addr() % 64, 0);
    }

    #[test]
    fn integers_read_as_floats() {
        let scale = Tensor::from([0.5, 2.0]);
        let make = || {
            Tensor::integers([3, 2, 3], scale.clone(), |z| {
                z.iter_mut().enumerate().for_each(|(i, z)| *z = i as i16 - 9);
                None
            })
        };
        let want: Vec<f32> = (0..18).map(|i| (i as f32 - 9.0) * [0.5, 2.0][i / 3 % 2]).collect();
        let x = make();
        let before = live_bytes();
        let mut some = [0.0; 7];
        x.read(4, &mut some);
        assert_eq!(some, want[4..11]);
        assert_eq!((x.len(), x.sample()), (18, want.clone()));
        assert!(x.floats().is_none() && live_bytes() == before);
        assert_eq!(&*x, want);
        assert_eq!(live_bytes() - before, 4 * 18);
        // Who writes gets floats of its own, and no more integers.
        let mut y = make();
        y.data_mut()[0] = 7.0;
        assert!(y.as_integers().is_none());
        assert_eq!(&y[1..], &want[1..]);
        let mut z = x.clone();
        z.data_mut()[0] = 7.0;
        assert_eq!((x[0], z[0], z[1]), (want[0], 7.0, want[1]));
        assert!(x.as_integers().is_some());
    }

    #[test]
    fn live_bytes_count_what_is_held() {
        let before = live_bytes();
        let x = Tensor::zeros([1000]);
        let y = x.clone();
        assert_eq!(live_bytes() - before, 4000);
        drop((x, y));
        assert_eq!(live_bytes(), before);
    }

    #[test]
    #[should_panic(expected = "reshape: [2, 3] does not fit [7]")]
    fn reshape_names_both_shapes() {
        Tensor::zeros([2, 3]).reshape([7]);
    }
}
