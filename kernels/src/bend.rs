//! A line with a bend, one for each channel: what learned activations of binary networks are.

use crate::lanes::{EIGHT, Lanes, Plain};
use crate::par;
use crate::pixels::{Sums, add_up, get, put};
use crate::simd::{level, per_level};

/// `y = slope·(x - at) + by`, with a slope for `x` above `at` and another one from there down; one of each
/// number a channel.
///
/// ```
/// use dirnet_kernels::bend::Bend;
/// let bend = Bend { size: [1, 1, 3], at: &[1.0], above: &[1.0], below: &[0.5], by: &[2.0] };
/// let mut y = [0.0; 3];
/// bend.forward(&[-1.0, 1.0, 3.0], &mut y);
/// assert_eq!(y, [1.0, 2.0, 4.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bend<'a> {
    /// Images, channels and pixels.
    pub size: [usize; 3],
    /// Where it bends.
    pub at: &'a [f32],
    /// The slope above.
    pub above: &'a [f32],
    /// The slope below.
    pub below: &'a [f32],
    /// What is added.
    pub by: &'a [f32],
}

/// One number of [`Bend::forward`], of `[at, above, below, by]`.
#[inline(always)]
pub fn bend(x: f32, [at, above, below, by]: [f32; 4]) -> f32 {
    let x = x - at;
    (if x > 0.0 { above } else { below }) * x + by
}

impl Bend<'_> {
    #[track_caller]
    fn check(&self, x: &[f32], y: &[f32]) {
        let [n, c, hw] = self.size;
        assert!([x.len(), y.len()] == [n * c * hw; 2], "bend: lengths for {:?}", self.size);
        let mut numbers = [self.at, self.above, self.below, self.by].into_iter();
        assert!(numbers.all(|numbers| numbers.len() == c), "bend: one number a channel");
    }

    /// The values.
    ///
    /// # Panics
    /// If a length does not fit, here as below.
    #[track_caller]
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        self.check(x, y);
        let [_, c, hw] = self.size;
        let some = (par::GRAIN / (c * hw).max(1)).max(1) * c * hw;
        let level = level();
        par::chunks(y, some, |i, y| forward(level, self, &x[i * some..][..y.len()], y));
    }

    /// `dy` becomes the gradient of `x`: times `above` where `x > at`, else times `below`. What it returns are,
    /// for each channel, `[Σ dy, Σ dx, Σ dy·max(x - at, 0), Σ dy·min(x - at, 0)]`, as floats over a stretch of
    /// pixels and in double precision over stretches: the gradients of `by`, `-at`, `above` and `below`.
    #[track_caller]
    pub fn backward(&self, x: &[f32], dy: &mut [f32]) -> Vec<[f64; 4]> {
        self.check(x, dy);
        let [n, c, hw] = self.size;
        let level = level();
        if dy.is_empty() {
            return vec![[0.0; 4]; c];
        }
        add_up(n, c, hw, dy, |from, _, dy, sums| {
            backward(level, self, &x[from..][..dy.len()], dy, sums);
        })
    }

    #[inline(always)]
    fn forward_rows<L: Lanes>(&self, x: &[f32], y: &mut [f32]) {
        let [_, c, hw] = self.size;
        for (row, (x, y)) in x.chunks_exact(hw).zip(y.chunks_exact_mut(hw)).enumerate() {
            let [at, above, below, by] = self.numbers(row % c);
            for p in (0..hw).step_by(EIGHT) {
                let x = get::<L, f32>(x, p).sub(at);
                put(x.choose(above, below).mul(x).add(by), y, p);
            }
        }
    }

    #[inline(always)]
    fn backward_rows<L: Lanes>(&self, x: &[f32], dy: &mut [f32], sums: &mut [[f64; 4]]) {
        let [_, c, hw] = self.size;
        let zero = L::splat(0.0);
        for (channel, sums) in sums.iter_mut().enumerate() {
            let [at, above, below, _] = self.numbers(channel);
            let mut lanes = Sums::<L, 4>::new();
            for image in 0..dy.len() / (c * hw) {
                let row = (image * c + channel) * hw;
                let (x, dy) = (&x[row..][..hw], &mut dy[row..][..hw]);
                for p in (0..hw).step_by(EIGHT) {
                    let x = get::<L, f32>(x, p).sub(at);
                    let d = get::<L, f32>(dy, p);
                    let (dx, along) = (x.choose(above, below).mul(d), x.mul(d));
                    put(dx, dy, p);
                    lanes.add([d, dx, x.choose(along, zero), x.choose(zero, along)], sums);
                }
            }
            lanes.flush(sums);
        }
    }

    #[inline(always)]
    fn numbers<L: Lanes>(&self, channel: usize) -> [L; 4] {
        [self.at, self.above, self.below, self.by].map(|numbers| L::splat(numbers[channel]))
    }
}

per_level! {
    fn forward[](job: &Bend<'_>, x: &[f32], y: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return job.forward_rows::<crate::lanes::Avx>(x, y);
        }
        job.forward_rows::<Plain>(x, y)
    }

    fn backward[](job: &Bend<'_>, x: &[f32], dy: &mut [f32], sums: &mut [[f64; 4]]) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            return job.backward_rows::<crate::lanes::Avx>(x, dy, sums);
        }
        job.backward_rows::<Plain>(x, dy, sums)
    }
}
