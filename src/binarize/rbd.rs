//! Representations of a full-precision teacher for a binary student (representation-align
//! binarization-aware distillation, RBD): the loss of one block.

use crate::{Tensor, Var};
use dirnet_kernels::{elementwise, par, reduce};

/// Added to the sum of fourth powers under the root, so that a sample of zeros stays zeros.
const EPS: f64 = 1e-12;

/// A distance whose direction is lost in the rounding of `f32`.
const NEAR: f64 = 1e-5;

impl<'t> Var<'t> {
    /// How far a student's representation is from its teacher's, each sample's squares brought to
    /// length 1: the mean over the `N` samples of the distance. The teacher gets no gradient.
    ///
    /// ```text
    /// forward    s = x² / |x²|,  t = teacher² / |teacher²|,  y = 1/N Σ_n |s[n] - t[n]|,
    ///            lengths over all of a sample, |x²| = √(Σ x⁴ + 1e-12)
    /// backward   dx = 2·x/|x²| · (u - s · Σ u·s),  u = dy/N · (s - t)/|s - t|;  0 where |s - t| < 1e-5
    /// ```
    ///
    /// A sample's loss lies between 0 and √2 whatever the sizes of the two, and does not depend on
    /// the other samples. This is our reading of Qin et al., 2022 (DIR-Net), arXiv 2109.12338.
    ///
    /// # Panics
    /// If the shapes differ, or there is no sample.
    #[track_caller]
    pub fn rbd(&self, teacher: &Var<'t>) -> Var<'t> {
        let shape = self.shape().to_vec();
        assert!(
            shape == teacher.shape(),
            "rbd: shapes differ: {shape:?} and {:?}",
            teacher.shape()
        );
        let n = shape.first().copied().unwrap_or(0);
        assert!(n > 0 && !self.value().is_empty(), "rbd: no sample in {shape:?}");
        let (x, t) = (self.value().clone(), teacher.value().clone());
        let size = x.len() / n;
        // The student's numbers may be in a smaller form; there, a sample's are made when they are wanted.
        let samples = par::map(n, |i| {
            let t = &t[i * size..][..size];
            x.lend(i * size, size, |x| Sample::of(x, t))
        });
        let y = samples.iter().map(|s| s.distance).sum::<f64>() / n as f64;
        self.tape().record("rbd", Tensor::scalar(y as f32), [self], move |dy, _| {
            let each = f64::from(dy.item()) / n as f64;
            [Some(Tensor::build(&shape, |dx| {
                par::chunks(dx, size, |i, dx| {
                    let t = &t[i * size..][..size];
                    x.lend(i * size, size, |x| samples[i].gradient(each, x, t, dx));
                });
            }))]
        })
    }
}

/// What one sample's distance and gradient are made of.
struct Sample {
    /// One over the length of the squares, the student's and the teacher's.
    inverse: [f64; 2],
    /// `Σ s·(s - t)`
    along: f64,
    distance: f64,
}

impl Sample {
    fn of(x: &[f32], t: &[f32]) -> Self {
        let [xx, xt, tt] = reduce::dots_of_squares(x, t);
        let [a, b] = [xx, tt].map(|sum| 1.0 / (sum + EPS).sqrt());
        let (ss, st, tt) = (xx * a * a, xt * a * b, tt * b * b);
        Sample { inverse: [a, b], along: ss - st, distance: (ss - 2.0 * st + tt).max(0.0).sqrt() }
    }

    fn gradient(&self, each: f64, x: &[f32], t: &[f32], dx: &mut [f32]) {
        if self.distance < NEAR {
            return dx.fill(0.0);
        }
        let [a, b] = self.inverse;
        let factor = (2.0 * each * a / self.distance) as f32;
        let (own, others) = ((a * (1.0 - self.along)) as f32, b as f32);
        elementwise::zip(x, t, dx, |x, t| factor * x * (own * x * x - others * t * t));
    }
}

#[cfg(test)]
mod tests {
    use crate::{Params, Rng, Tape, Tensor, gradcheck};

    #[test]
    fn rbd() {
        gradcheck([&[3, 2, 3, 3]], |[x]| {
            let teacher = Tensor::randn([3, 2, 3, 3], 1.0, &mut Rng::seed(4));
            x.rbd(&x.tape().constant(teacher))
        });
        gradcheck([&[2, 5]], |[x]| x.rbd(&x.tape().constant(Tensor::full([2, 5], 0.5))));
    }

    #[test]
    fn the_formula_by_hand_and_samples_on_their_own() {
        let params = Params::new();
        let tape = Tape::train(&params);
        // Squares (1, 0) and (0, 4): at right angles, √2 apart. The second sample is the teacher's
        // twice as large: nothing apart.
        let x = tape.variable(Tensor::new([2, 2], vec![1.0, 0.0, 2.0, -2.0]));
        let t = tape.constant(Tensor::new([2, 2], vec![0.0, 2.0, -1.0, 1.0]));
        let y = x.rbd(&t);
        assert!((y.value().item() - 2f32.sqrt() / 2.0).abs() < 1e-6, "{y:?}");
        assert_eq!(y.backward().wrt(&x).unwrap()[2..], [0.0; 2]);
    }

    #[test]
    fn zeros_harm_nobody() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let x = tape.variable(Tensor::zeros([2, 3]));
        let y = x.rbd(&tape.constant(Tensor::full([2, 3], 1.0)));
        assert!((y.value().item() - 1.0).abs() < 1e-6);
        assert_eq!(&**y.backward().wrt(&x).unwrap(), [0.0; 6]);
    }
}
