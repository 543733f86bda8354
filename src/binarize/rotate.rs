//! Weights turned before their sign, so that less of them is lost with it (RBNN).

use super::part::{Learned, Part};
use crate::{ParamId, Rng, Role, Tensor, Var};
use dirnet_kernels::bits::sign;
use std::f32::consts::FRAC_PI_2;

/// Rounds of a refit: signs, then one rotation, then the other.
const ROUNDS: usize = 3;

/// How much of the rotation before is left in what the next one is found from. It settles the
/// directions that the weights say nothing of.
const NUDGE: f64 = 1e-6;

/// Moves each filter of weights towards a rotated one, which lies nearer to a corner of the cube
/// that signs are the corners of (RBNN, Lin et al., 2020, arXiv 2009.13055). It follows
/// [`Standardize`](super::Standardize).
///
/// ```text
/// y = x + |sin θ| · (R1ᵀ X R2 - x),   X the filter as an a x b matrix, a the largest divisor of
///                                     its n weights that is at most √n
/// ```
///
/// `θ` is learned, one a filter. The rotated filter is a constant to the way back, as in the
/// published code: `dx = (1 - |sin θ|) · dy`. The rotations are buffers, shared by the filters of a
/// layer. They start at random, by the filters' sizes alone, and are refitted on a training tape
/// whenever its progress is another than at the last refit: once an epoch, at its first step, where
/// progress goes by epochs. A refit alternates three times between the signs `B` of `R1ᵀ X R2` and
/// the rotations that bring the filters nearest to them; no step of it increases the distance. It
/// is serial, in `f64`, and the new rotations travel as a batch norm's statistics do.
///
/// A filter of one weight stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Rotate;

impl Part for Rotate {
    fn name(&self) -> &str {
        "rotate"
    }
    fn learned(&self, shape: &[usize]) -> Vec<Learned> {
        let (o, n) = (shape[0], shape[1..].iter().product::<usize>());
        if n <= 1 {
            return Vec::new();
        }
        let rng = &mut Rng::keyed(0, "rotate", &[o as u64, n as u64]);
        let theta = Tensor::build([o], |theta| {
            theta.iter_mut().for_each(|theta| *theta = FRAC_PI_2 * rng.uniform());
        });
        let buffer = |name, value| Learned { name, role: Role::Buffer, value };
        let [r1, r2] = sides(n).map(|side| random_rotation(side, rng));
        vec![
            Learned { name: "theta", role: Role::Weight, value: theta },
            buffer("r1", r1),
            buffer("r2", r2),
            buffer("fitted_at", Tensor::from([-1.0])),
        ]
    }
    fn forward<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Var<'t> {
        let &[theta, r1, r2, fitted_at] = learned else { return x.clone() };
        let tape = x.tape();
        let value = |id: ParamId| &tape.params()[id].value;
        let mut turn = Turn::new(value(r1), value(r2));
        if tape.is_training() && value(fitted_at)[0] != tape.progress() {
            turn.fit(x.value());
            let [a, b] = turn.sides;
            tape.update(r1, single(&turn.r1, [a, a]));
            tape.update(r2, single(&turn.r2, [b, b]));
            tape.update(fitted_at, Tensor::from([tape.progress()]));
        }
        let rows = [1, x.shape()[0], turn.sides[0] * turn.sides[1]];
        let way = (tape.constant(turn.of(x.value())) - x).reshape(rows);
        x + way.mul_channels(&abs_sine(&tape.param(theta))).reshape(x.shape())
    }
}

/// `|sin x|`
fn abs_sine<'t>(x: &Var<'t>) -> Var<'t> {
    let slope = |x: f32| if x.sin() == 0.0 { 0.0 } else { x.cos() * x.sin().signum() };
    x.map_from_input("abs_sine", |x| x.sin().abs(), slope)
}

/// The sides of the matrix that `n` weights are written as, the smaller first.
fn sides(n: usize) -> [usize; 2] {
    let a = (1..=n.isqrt()).rev().find(|a| n.is_multiple_of(*a)).unwrap_or(1);
    [a, n / a]
}

fn random_rotation(side: usize, rng: &mut Rng) -> Tensor {
    let normal: Vec<f64> = (0..side * side).map(|_| f64::from(rng.normal())).collect();
    let mut identity = vec![0.0; side * side];
    (0..side).for_each(|i| identity[i * side + i] = 1.0);
    single(&polar(&normal, &identity, side), [side, side])
}

/// Two rotations, row major.
struct Turn {
    sides: [usize; 2],
    r1: Vec<f64>,
    r2: Vec<f64>,
}

impl Turn {
    fn new(r1: &Tensor, r2: &Tensor) -> Self {
        Turn { sides: [r1.shape()[0], r2.shape()[0]], r1: double(r1), r2: double(r2) }
    }

    /// `R1ᵀ X R2` for each filter.
    fn of(&self, x: &Tensor) -> Tensor {
        let [a, b] = self.sides;
        let back = transposed(&self.r1, [a, a]);
        Tensor::build(x.shape(), |y| {
            for (y, x) in y.chunks_mut(a * b).zip(x.chunks(a * b)) {
                let turned = product(&back, &product(&double(x), &self.r2, [a, b, b]), [a, a, b]);
                y.iter_mut().zip(turned).for_each(|(y, turned)| *y = turned as f32);
            }
        })
    }

    /// The rotations that bring these filters nearer to their signs: `Σ |R1ᵀ X R2|` grows.
    fn fit(&mut self, x: &Tensor) {
        let [a, b] = self.sides;
        let filters: Vec<Vec<f64>> = x.chunks(a * b).map(double).collect();
        for _ in 0..ROUNDS {
            // R1 is the orthogonal matrix nearest to Σ X R2 Bᵀ, then R2 that nearest to Σ Xᵀ R1 B.
            let back = transposed(&self.r1, [a, a]);
            let (mut first, mut second) = (vec![0.0; a * a], vec![0.0; b * b]);
            let mut all_signs = Vec::with_capacity(filters.len());
            for x in &filters {
                let half = product(x, &self.r2, [a, b, b]);
                let signs: Vec<f64> = product(&back, &half, [a, a, b])
                    .iter()
                    .map(|&v| f64::from(sign(v as f32)))
                    .collect();
                add(&mut first, &product(&half, &transposed(&signs, [a, b]), [a, b, a]));
                all_signs.push(signs);
            }
            self.r1 = polar(&first, &self.r1, a);
            for (x, signs) in filters.iter().zip(&all_signs) {
                let half = product(&self.r1, signs, [a, a, b]);
                add(&mut second, &product(&transposed(x, [a, b]), &half, [b, a, b]));
            }
            self.r2 = polar(&second, &self.r2, b);
        }
    }
}

/// The orthogonal matrix nearest to a square one: `U Vᵀ` of its singular value decomposition
/// `U S Vᵀ`. Where that leaves a choice, the one nearest to `near`.
///
/// By the iteration of Newton and Schulz, `Q ← Q (3 - QᵀQ) / 2`, which takes each singular value `s`
/// to `s (3 - s²) / 2`, from anything in (0, √3) to 1. Where it does not converge, `near` stays.
fn polar(m: &[f64], near: &[f64], n: usize) -> Vec<f64> {
    let size = m.iter().map(|x| x * x).sum::<f64>().sqrt();
    if size == 0.0 || !size.is_finite() {
        return near.to_vec();
    }
    let mut q: Vec<f64> = m.iter().zip(near).map(|(m, near)| m / size + NUDGE * near).collect();
    for _ in 0..100 {
        let mut step = product(&transposed(&q, [n, n]), &q, [n, n, n]);
        let mut off = 0f64;
        for (i, g) in step.iter_mut().enumerate() {
            let identity = f64::from(u8::from(i % (n + 1) == 0));
            off = off.max((*g - identity).abs());
            *g = 0.5 * (3.0 * identity - *g);
        }
        if off < 1e-12 {
            return q;
        }
        q = product(&q, &step, [n, n, n]);
    }
    near.to_vec()
}

/// The product of an `n x k` and a `k x m` matrix.
fn product(a: &[f64], b: &[f64], [n, k, m]: [usize; 3]) -> Vec<f64> {
    let mut y = vec![0.0; n * m];
    for (y, a) in y.chunks_mut(m).zip(a.chunks(k)) {
        for (a, b) in a.iter().zip(b.chunks(m)) {
            y.iter_mut().zip(b).for_each(|(y, b)| *y += a * b);
        }
    }
    y
}

fn transposed(a: &[f64], [n, m]: [usize; 2]) -> Vec<f64> {
    (0..n * m).map(|i| a[i % n * m + i / n]).collect()
}

fn add(sum: &mut [f64], x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

fn double(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn single(x: &[f64], shape: [usize; 2]) -> Tensor {
    Tensor::new(shape, x.iter().map(|&x| x as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::part::Chain;
    use crate::{Params, Tape, gradcheck};
    use std::sync::Arc;

    fn layer(shape: &[usize]) -> (Params, Chain) {
        let mut params = Params::new();
        let parts: Vec<Arc<dyn Part>> = vec![Arc::new(Rotate)];
        let chain = Chain::new(&mut params, "a", &parts, shape);
        (params, chain)
    }

    fn orthogonal(r: &[f64], n: usize) -> bool {
        let gram = product(&transposed(r, [n, n]), r, [n, n, n]);
        let off = |(i, g): (usize, &f64)| (g - f64::from(u8::from(i % (n + 1) == 0))).abs();
        gram.iter().enumerate().map(off).fold(0.0, f64::max) < 1e-6
    }

    #[test]
    fn abs_sine() {
        // Clear of 0, where it has a kink.
        gradcheck([&[5]], |[x]| super::abs_sine(&(x.sigmoid() * 1.4 + 0.1)));
    }

    #[test]
    fn weights_are_written_as_nearly_square_matrices() {
        assert_eq!([2, 7, 9, 144, 576, 4608].map(sides).map(|[a, _]| a), [1, 1, 3, 12, 24, 64]);
    }

    #[test]
    fn the_polar_factor_is_orthogonal_and_makes_the_product_symmetric_and_positive() {
        let mut rng = Rng::seed(3);
        for n in [1, 2, 7, 24] {
            let m: Vec<f64> = (0..n * n).map(|_| f64::from(rng.normal())).collect();
            let near = double(&random_rotation(n, &mut rng));
            let q = polar(&m, &near, n);
            assert!(orthogonal(&q, n), "{n}");
            // M = Q H, with H = QᵀM symmetric: no other orthogonal matrix has a larger trace.
            let h = product(&transposed(&q, [n, n]), &m, [n, n, n]);
            let trace: f64 = (0..n).map(|i| h[i * n + i]).sum();
            let other = product(&transposed(&near, [n, n]), &m, [n, n, n]);
            assert!(trace >= (0..n).map(|i| other[i * n + i]).sum::<f64>(), "{n}");
            for (h, mirrored) in h.iter().zip(transposed(&h, [n, n])) {
                assert!((h - mirrored).abs() < 1e-4 * trace, "{n}: {h} and {mirrored}");
            }
        }
        // What says nothing changes nothing.
        let near = double(&random_rotation(3, &mut rng));
        assert_eq!(polar(&[0.0; 9], &near, 3), near);
        // One direction alone: the other ones come from the rotation before.
        let one = [4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let q = polar(&one, &near, 3);
        assert!(orthogonal(&q, 3) && (q[0] - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_refit_brings_the_filters_nearer_to_their_signs() {
        for shape in [[8, 3, 3, 3], [2, 16, 3, 3], [1, 5, 1, 1], [16, 1, 1, 7]] {
            let x = Tensor::randn(shape, 1.0, &mut Rng::seed(5));
            let n: usize = shape[1..].iter().product();
            let rng = &mut Rng::seed(6);
            let [r1, r2] = sides(n).map(|side| random_rotation(side, rng));
            let mut turn = Turn::new(&r1, &r2);
            // The distance of a filter of length l to its signs is n + l² - 2 Σ |v|, and rotations
            // keep its length; the angle's cosine is Σ |v| / (√n · l).
            let near = |turn: &Turn| turn.of(&x).iter().map(|v| f64::from(v.abs())).sum::<f64>();
            let length = |x: &Tensor| x.iter().map(|&x| f64::from(x * x)).sum::<f64>();
            let mut before = near(&turn);
            let start = before;
            for _ in 0..4 {
                turn.fit(&x);
                let now = near(&turn);
                assert!(now >= before * (1.0 - 1e-6), "{shape:?}: {before} became {now}");
                before = now;
            }
            assert!(before > start, "{shape:?}: {start} stayed");
            assert!((length(&turn.of(&x)) / length(&x) - 1.0).abs() < 1e-5);
            assert!(orthogonal(&turn.r1, sides(n)[0]) && orthogonal(&turn.r2, sides(n)[1]));
        }
    }

    #[test]
    fn rotations_are_refitted_once_for_each_moment_and_only_in_training() {
        let (mut params, chain) = layer(&[4, 3, 3, 3]);
        let x = Tensor::randn([4, 3, 3, 3], 1.0, &mut Rng::seed(7));
        let mut refits = |training: bool, progress: f32| {
            let tape = if training { Tape::train(&params) } else { Tape::eval(&params) };
            let tape = tape.at(progress);
            let y = chain.forward(&tape.variable(&x));
            if !training {
                return 0;
            }
            let updates = y.sum().backward().updates().to_vec();
            updates.iter().for_each(|(id, value)| params.set(*id, value.clone()));
            updates.len()
        };
        let moments = [(true, 0.0), (true, 0.0), (false, 0.5), (true, 0.5), (true, 0.5)];
        assert_eq!(moments.map(|(training, at)| refits(training, at)), [3, 0, 0, 3, 0]);
    }

    #[test]
    fn a_single_weight_and_a_layer_of_zeros_stay_as_they_are() {
        let (params, chain) = layer(&[4, 1, 1, 1]);
        assert!(params.is_empty());
        let tape = Tape::train(&params);
        let x = Tensor::full([4, 1, 1, 1], 1e30);
        assert_eq!(chain.forward(&tape.constant(&x)).value(), &x);
        let (params, chain) = layer(&[2, 3, 3, 3]);
        let tape = Tape::train(&params);
        let y = chain.forward(&tape.variable(Tensor::zeros([2, 3, 3, 3])));
        assert!(y.value().iter().all(|&y| y == 0.0));
    }
}
