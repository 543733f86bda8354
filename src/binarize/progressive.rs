//! Signs that begin as a slope and steepen.

use super::part::Part;
use crate::{ParamId, Tensor, Var};
use dirnet_kernels::bits::sign;
use dirnet_kernels::par;

/// In training a clipped slope stands for the sign, steeper and steeper; in evaluation it is the sign.
/// It changes nothing before the sign. The `ProgressiveSign` of bitorch (hpi-xnor/bitorch,
/// `quantizations/progressive_sign.py`), whose scale is here the progress of training.
///
/// ```text
/// clamp(x / width, -1, 1),   width = max(alpha^(-beta · progress), 1e-7)
/// ```
///
/// With `alpha = 4` and `beta = 10` the width is 1 at first, 1/1000 at half the training. In bitorch the
/// gradient passes unchanged: its estimator is `identity`. It takes the place of the sign as something
/// that is added to it, so products are computed in float while it trains; where evaluation differs
/// from training in the first epochs, that is meant.
#[derive(Clone, Copy, Debug)]
pub struct Progressive {
    /// The base of the width.
    pub alpha: f32,
    /// The factor in its exponent.
    pub beta: f32,
}

impl Default for Progressive {
    fn default() -> Self {
        Progressive { alpha: 4.0, beta: 10.0 }
    }
}

impl Progressive {
    /// Half the breadth of the slope at a moment of training, from 0 to 1.
    pub fn width(&self, progress: f32) -> f32 {
        self.alpha.powf(-self.beta * progress).max(1e-7)
    }
}

impl Part for Progressive {
    fn name(&self) -> &str {
        "progressive"
    }
    fn beside<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Option<Var<'t>> {
        let tape = x.tape();
        if !tape.is_training() {
            return None;
        }
        let width = self.width(tape.progress());
        Some(tape.constant(Tensor::build(x.shape(), |y| {
            x.value().read(0, y);
            par::chunks(y, par::GRAIN, |_, y| {
                y.iter_mut().for_each(|y| *y = (*y / width).clamp(-1.0, 1.0) - sign(*y));
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

    #[test]
    fn the_slope_steepens_to_a_sign_and_the_gradient_passes() {
        let part: Arc<dyn Part> = Arc::new(Progressive::default());
        let estimator = estimator("identity").unwrap();
        let recipe = Activations { prepare: vec![part], estimator, pixel_scale: false };
        let params = Params::new();
        let inputs = Inputs::new(&mut Params::new(), "a", &[1], &recipe);
        let x = [-3.0f32, -0.6, -1e-3, 0.0, 0.2, 0.9, 1e30];
        // 4^0, 4^-1, 4^-5, 4^-10
        for (progress, width) in
            [(0.0, 1.0), (0.1, 0.25), (0.5, 1.0 / 1024.0), (1.0, 1.0 / 1048576.0)]
        {
            let tape = Tape::train(&params).at(progress);
            let x_ = tape.variable(Tensor::new([1, 7], x.to_vec()));
            let y = inputs.binarized(&x_);
            for (&y, x) in y.value().iter().zip(x) {
                let expected = (x / width).clamp(-1.0, 1.0);
                assert!((y - expected).abs() < 1e-6, "{y}, not {expected}, at {x} and {progress}");
            }
            let grads = (y * 3.0).sum().backward();
            assert!(grads.wrt(&x_).unwrap().iter().all(|&dx| dx == 3.0));
        }
        let tape = Tape::eval(&params);
        let y = inputs.binarized(&tape.constant(Tensor::new([1, 7], x.to_vec())));
        assert!(y.value().iter().zip(x).all(|(&y, x)| y == sign(x)));
    }
}
