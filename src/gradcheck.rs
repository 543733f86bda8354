//! Is the way back the derivative of the way there? One random number tells.

use crate::{Params, Rng, Tape, Tensor, Var};

/// Checks an operation at random inputs of these shapes.
///
/// For a random direction `v` and a random covector `u`, the one number `u·J·v` is computed twice,
/// by the backward pass and by a central difference of the forward pass; for each input alone, so
/// that a small gradient cannot hide behind a large one. Inputs lie between 0.1 and about 1 in
/// size, on either side of zero, out of the way of most kinks; [`gradcheck_at`] takes others.
///
/// ```
/// use dirnet::gradcheck;
/// gradcheck([&[2, 3], &[3, 4]], |[x, w]| x.matmul(&w));
/// ```
///
/// # Panics
/// If the two numbers disagree. The message names the input and both numbers.
#[track_caller]
pub fn gradcheck<const N: usize>(
    shapes: [&[usize]; N],
    f: impl for<'t> Fn([Var<'t>; N]) -> Var<'t>,
) {
    let mut rng = Rng::seed(1);
    let inputs = shapes.map(|shape| {
        Tensor::build(shape, |x| {
            for x in x {
                let size = 0.1 + 0.9 * rng.uniform();
                *x = if rng.uniform() < 0.5 { -size } else { size };
            }
        })
    });
    gradcheck_at(inputs, f);
}

/// The same at inputs of one's choice, for operations with a domain or with kinks: the difference
/// reaches 0.01 to either side of each number.
///
/// # Panics
/// If the two numbers disagree.
#[track_caller]
pub fn gradcheck_at<const N: usize>(
    inputs: [Tensor; N],
    f: impl for<'t> Fn([Var<'t>; N]) -> Var<'t>,
) {
    const STEP: f64 = 5e-3;
    let params = Params::new();
    let mut rng = Rng::seed(2);

    let tape = Tape::train(&params);
    let x = inputs.each_ref().map(|x| tape.variable(x));
    let y = f(x.clone());
    let u = Tensor::randn(y.shape(), 1.0, &mut rng);
    let grads = (y * tape.constant(&u)).sum().backward();

    // u · f(inputs), in f64 since a difference of it follows.
    let along = |inputs: [Tensor; N]| -> f64 {
        let tape = Tape::eval(&params);
        let y = f(inputs.map(|x| tape.constant(x)));
        y.value().iter().zip(&*u).map(|(&y, &u)| f64::from(y) * f64::from(u)).sum()
    };
    for i in 0..N {
        let v = Tensor::uniform(inputs[i].shape(), 1.0, &mut rng);
        let moved = |step: f64| {
            let mut inputs = inputs.clone();
            let x = inputs[i].data_mut();
            x.iter_mut().zip(&*v).for_each(|(x, v)| *x += step as f32 * v);
            along(inputs)
        };
        // Two step sizes cancel the third derivative (Richardson).
        let slope = |h: f64| (moved(h) - moved(-h)) / (2.0 * h);
        let there = (4.0 * slope(STEP) - slope(2.0 * STEP)) / 3.0;
        let back = match grads.wrt(&x[i]) {
            Some(g) => g.iter().zip(&*v).map(|(&g, &v)| f64::from(g) * f64::from(v)).sum(),
            None => 0.0,
        };
        // The scale of what was added up, since the sum itself may come out near zero.
        let scale = grads.wrt(&x[i]).map_or(0.0, |g| dirnet_kernels::reduce::dot(g, g).sqrt());
        let error = (there - back).abs();
        assert!(
            error <= 2e-3 * (scale + there.abs()) + 1e-4,
            "gradcheck: input {i} of shape {:?}: there {there:.6}, back {back:.6}",
            inputs[i].shape()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x²` whose way back is off by a factor.
    fn crooked_square<'t>(x: &Var<'t>, factor: f32) -> Var<'t> {
        let saved = x.value().clone();
        x.tape().record("square", saved.clone().map(|x| x * x), [x], move |dy, _| {
            [Some(Tensor::build(dy.shape(), |dx| {
                for ((dx, dy), x) in dx.iter_mut().zip(&*dy).zip(&*saved) {
                    *dx = factor * 2.0 * x * dy;
                }
            }))]
        })
    }

    #[test]
    fn a_right_operation_passes() {
        gradcheck([&[3, 4]], |[x]| crooked_square(&x, 1.0));
    }

    #[test]
    #[should_panic(expected = "gradcheck: input 0")]
    fn a_wrong_factor_is_caught() {
        gradcheck([&[3, 4]], |[x]| crooked_square(&x, 1.05));
    }

    #[test]
    #[should_panic(expected = "gradcheck: input 1")]
    fn a_forgotten_parent_is_caught() {
        gradcheck([&[3, 4], &[3, 4]], |[x, w]| &x + &w.detach());
    }
}
