//! Signs by chance while they learn.

use super::part::Part;
use crate::{ParamId, Tensor, Var};
use dirnet_kernels::bits::sign;
use dirnet_kernels::par;

/// In training a sign is +1 by chance, the more likely the greater the number; in evaluation it is the
/// sign (Hubara et al., 2016, arXiv 1602.02830, equation 2). It changes nothing before the sign.
///
/// ```text
/// P(+1) = clamp((x + 1) / 2, 0, 1)
/// ```
///
/// So the mean of what is drawn is `clamp(x, -1, 1)`, and `ste`, whose curve that is, is its estimator. What
/// is drawn depends on what [`Tape::drawing`](crate::Tape::drawing) said, on the layer, and on nothing
/// else. It takes the place of the sign as something that is added to it, so products are computed in
/// float while it trains.
#[derive(Clone, Copy, Debug)]
pub struct Stochastic {
    /// Whether the signs are those of weights, not of activations.
    pub of_weights: bool,
}

impl Part for Stochastic {
    fn name(&self) -> &str {
        "stochastic"
    }
    fn beside<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Option<Var<'t>> {
        let tape = x.tape();
        if !tape.is_training() {
            return None;
        }
        let side = if self.of_weights { "weights" } else { "activations" };
        let streams = tape.draws(&format!("stochastic {side}"));
        Some(tape.constant(Tensor::build(x.shape(), |y| {
            x.value().read(0, y);
            par::chunks(y, par::GRAIN, |i, y| {
                let mut rng = streams(i as u64);
                for y in y {
                    let drawn = if rng.uniform() < (*y + 1.0) / 2.0 { 1.0 } else { -1.0 };
                    *y = drawn - sign(*y);
                }
            });
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::{Activations, Inputs, estimator};
    use crate::{Params, Tape};
    use std::sync::Arc;

    fn inputs() -> Inputs {
        let part: Arc<dyn Part> = Arc::new(Stochastic { of_weights: false });
        let estimator = estimator("ste").unwrap();
        let recipe = Activations { prepare: vec![part], estimator, pixel_scale: false };
        Inputs::new(&mut Params::new(), "a", &[1], &recipe)
    }

    #[test]
    fn the_mean_of_what_is_drawn_is_the_clipped_number() {
        let params = Params::new();
        for x in [-2.0f32, -1.0, -0.5, 0.0, 0.3, 1.0, 7.0] {
            let numbers = Tensor::full([1, 40_000], x);
            let tape = Tape::train(&params).drawing(3, [1, 2]);
            let x_ = tape.variable(&numbers);
            let y = inputs().binarized(&x_);
            assert!(y.value().iter().all(|y| y.abs() == 1.0), "at {x}");
            let mean = y.value().iter().map(|&y| f64::from(y)).sum::<f64>() / 40_000.0;
            assert!((mean - f64::from(x.clamp(-1.0, 1.0))).abs() < 0.02, "{mean} at {x}");
            let slope = if x.abs() <= 1.0 { 3.0 } else { 0.0 };
            let grads = (y * 3.0).sum().backward();
            assert!(grads.wrt(&x_).unwrap().iter().all(|&dx| dx == slope), "at {x}");
            let tape = Tape::eval(&params);
            let y = inputs().binarized(&tape.constant(&numbers));
            assert!(y.value().iter().all(|&y| y == sign(x)), "evaluated at {x}");
        }
    }

    #[test]
    fn seed_epoch_step_and_layer_decide_and_threads_do_not() {
        let params = Params::new();
        let draw = |seed, at, layer: &str, threads| {
            par::with_threads(threads, || {
                let tape = Tape::train(&params).drawing(seed, at);
                let _layer = tape.layer(layer, Default::default);
                inputs().binarized(&tape.constant(Tensor::zeros([3, 50_000]))).value().clone()
            })
            .unwrap()
        };
        let first = draw(1, [0, 0], "a", 1);
        assert_eq!(first, draw(1, [0, 0], "a", 2));
        for other in [
            draw(2, [0, 0], "a", 1),
            draw(1, [1, 0], "a", 1),
            draw(1, [0, 1], "a", 1),
            draw(1, [0, 0], "b", 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
