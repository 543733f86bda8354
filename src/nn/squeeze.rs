//! Squeeze and excitation: a gate for each channel, told from the whole image.

use super::Module;
use crate::watch::LayerNote;
use crate::{ParamId, Params, Rng, Role, Tensor, Var};

/// Each channel of each image times a number between 0 and 1, which two small layers make of the
/// means of all channels (Hu et al., 2018, arXiv 1709.01507), in float, with the swish between them that
/// EfficientNet has.
///
/// ```text
/// y[n,c] = x[n,c] · sigmoid(W2 · swish(W1 · m[n] + b1) + b2)[c],   m[n,c] = mean x[n,c]
/// ```
#[derive(Clone, Debug)]
pub struct SqueezeExcitation {
    name: String,
    fc1: [ParamId; 2],
    fc2: [ParamId; 2],
}

impl SqueezeExcitation {
    /// Adds `NAME.fc1.weight` (`S C 1 1`), `NAME.fc1.bias`, `NAME.fc2.weight` (`C S 1 1`) and
    /// `NAME.fc2.bias` to `params`, for `C` channels squeezed to `S`: weights normal with variance
    /// `2/fan-in`, no bias.
    pub fn new(
        params: &mut Params,
        name: &str,
        [channels, squeezed]: [usize; 2],
        rng: &mut Rng,
    ) -> Self {
        let mut dense = |layer: &str, from: usize, to: usize| {
            let start = Tensor::randn([to, from, 1, 1], (2.0 / from as f32).sqrt(), rng);
            let mut add =
                |what: &str, x| params.add(format!("{name}.{layer}.{what}"), Role::Weight, x);
            [add("weight", start), add("bias", Tensor::zeros([to]))]
        };
        let (fc1, fc2) = (dense("fc1", channels, squeezed), dense("fc2", squeezed, channels));
        SqueezeExcitation { name: name.into(), fc1, fc2 }
    }
}

impl Module for SqueezeExcitation {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let &[n, c, h, w] = x.shape() else {
            panic!("squeeze and excitation: images are N C H W, not {:?}", x.shape())
        };
        let _layer = tape.layer(&self.name, || {
            let squeezed = tape.params()[self.fc1[1]].value.len();
            let (weights, biases) = (2 * c * squeezed, c + squeezed);
            LayerNote {
                kind: "squeeze-excitation",
                output: vec![c, h, w],
                params_32bit: weights + biases,
                macs_32bit: weights,
                ..LayerNote::default()
            }
        });
        let dense = |x: &Var<'t>, [weight, bias]: [ParamId; 2]| {
            let weight = tape.param(weight);
            let matrix = weight.reshape(&weight.shape()[..2]);
            x.linear(&matrix).add_channels(&tape.param(bias))
        };
        let gate = dense(&dense(&x.global_avg_pool(), self.fc1).swish(), self.fc2).sigmoid();
        // The images' channels side by side, as if of one image.
        let gated = x.reshape([1, n * c, h, w]).mul_channels(&gate.reshape([n * c]));
        gated.reshape([n, c, h, w])
    }
}
