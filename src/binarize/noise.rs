//! A small network whose output is added to signs while they learn, and fades away (FDA-BNN).

use super::part::{Learned, Part};
use crate::ops::Conv;
use crate::{ParamId, Rng, Role, Tensor, Var};
use dirnet_kernels::math;
use std::f32::consts::PI;

/// Beyond this no weight or activation is meant; so the noise of any number is finite.
const LARGE: f32 = 1e3;

/// Noise beside the signs, while training: what a Fourier sum misses of the sign, learned (FDA-BNN,
/// Xu et al., 2021, arXiv 2103.00841). It changes nothing before the sign.
///
/// ```text
/// sign(x) + a · (W2 · relu(W1 · x) + 0.1 · sin x),   a = 0.05 · (1 + cos(π · progress))
/// ```
///
/// `x` is a filter of `d` weights, or the `d` channels of a pixel; `W1` is `h x d` and `W2` is `d x h`,
/// with `h = d/64`, or `d/4` where `d < 64`, at least 1. They start uniform in `±1/√d` and `±1/√h`,
/// by their sizes alone. The noise enters the forward pass and has its own gradient, as in BiBench
/// (Qin et al., 2023, arXiv 2301.11233). In evaluation there is none, so the trained network is
/// binary. BiBench counts `progress` at an epoch's end, this crate at its beginning. Numbers beyond
/// ±1000 make no more noise than that.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Whether it goes beside the signs of weights, not of activations.
    pub of_weights: bool,
}

impl Part for Noise {
    fn name(&self) -> &str {
        "noise"
    }
    fn learned(&self, shape: &[usize]) -> Vec<Learned> {
        let d = if self.of_weights { shape[1..].iter().product() } else { shape[0] };
        let h = if d >= 64 { d / 64 } else { (d / 4).max(1) };
        let rng = &mut Rng::keyed(0, "noise", &[d as u64]);
        [("w1", [h, d]), ("w2", [d, h])]
            .map(|(name, [to, from])| {
                let value = Tensor::uniform([to, from], (from as f32).sqrt().recip(), rng);
                Learned { name, role: Role::Weight, value }
            })
            .into()
    }
    fn beside<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Option<Var<'t>> {
        let tape = x.tape();
        let amount = 0.05 * (1.0 + (PI * tape.progress()).cos());
        if !tape.is_training() || amount == 0.0 {
            return None;
        }
        let x = x.clamp(-LARGE, LARGE);
        let [w1, w2] = [0, 1].map(|i| tape.param(learned[i]));
        let net = if self.of_weights || x.shape().len() == 2 {
            let rows = x.reshape([x.shape()[0], x.value().len() / x.shape()[0]]);
            rows.linear(&w1).relu().linear(&w2).reshape(x.shape())
        } else {
            let filter = |w: Var<'t>| w.reshape([w.shape()[0], w.shape()[1], 1, 1]);
            let hidden = x.conv2d(&filter(w1), Conv::valid()).relu();
            hidden.conv2d(&filter(w2), Conv::valid())
        };
        Some((net + sine(&x) * 0.1) * amount)
    }
}

fn sine<'t>(x: &Var<'t>) -> Var<'t> {
    x.map_from_input("sine", math::sin, math::cos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Tape, gradcheck};

    #[test]
    fn sine() {
        gradcheck([&[3, 4]], |[x]| super::sine(&x));
    }

    #[test]
    fn it_fades_and_is_gone_in_evaluation() {
        let noise = Noise { of_weights: false };
        let mut params = Params::new();
        let learned = noise.learned(&[8, 3, 3]).into_iter();
        let ids: Vec<_> = learned.map(|l| params.add(l.name, l.role, l.value)).collect();
        let x = Tensor::randn([2, 8, 3, 3], 1.0, &mut Rng::seed(4));
        let size = |tape: Tape<'_>| {
            let beside = noise.beside(&tape.constant(&x), &ids);
            beside.map_or(0.0, |y| y.abs().mean().value().item())
        };
        let at = |progress| size(Tape::train(&params).at(progress));
        assert!(at(0.0) > at(0.5) && at(0.5) > at(0.9) && at(1.0) < 1e-6);
        assert!((at(0.5) / at(0.0) - 0.5).abs() < 1e-5);
        assert_eq!(size(Tape::eval(&params)), 0.0);
    }
}
