//! Batch normalisation with running statistics.

use super::{Activation, Module};
use crate::ops::Moments;
use crate::watch::LayerNote;
use crate::{LayerGuard, ParamId, Params, Role, Tensor, Var};

/// Batch normalisation of `N C …` (Ioffe and Szegedy, 2015, arXiv 1502.03167), as in PyTorch.
///
/// Training: by the moments of the batch, `y = gamma · (x - mean) / √(var + 1e-5) + beta`, and the
/// running statistics move a tenth of the way to the batch's (its unbiased variance). They travel
/// with the gradients, and the optimiser's step writes them.
///
/// Evaluating: one multiply and one add a channel, `a·x + b` with `a = gamma / √(running var + 1e-5)`
/// and `b = beta - running mean · a`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    gamma: ParamId,
    beta: ParamId,
    mean: ParamId,
    var: ParamId,
}

const EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

impl BatchNorm {
    /// Adds `NAME.weight` (ones), `NAME.bias` (zeros), `NAME.running_mean` (zeros) and
    /// `NAME.running_var` (ones) to `params`.
    pub fn new(params: &mut Params, name: &str, channels: usize) -> Self {
        BatchNorm::with(params, name, channels, Role::Weight)
    }

    /// One that only normalises: the same entries, but `NAME.weight` and `NAME.bias` are buffers, so
    /// that they stay ones and zeros.
    pub fn fixed(params: &mut Params, name: &str, channels: usize) -> Self {
        BatchNorm::with(params, name, channels, Role::Buffer)
    }

    fn with(params: &mut Params, name: &str, channels: usize, affine: Role) -> Self {
        let mut add = |what: &str, role, x| {
            params.add(format!("{name}.{what}"), role, Tensor::full([channels], x))
        };
        BatchNorm {
            name: name.into(),
            gamma: add("weight", affine, 1.0),
            beta: add("bias", affine, 0.0),
            mean: add("running_mean", Role::Buffer, 0.0),
            var: add("running_var", Role::Buffer, 1.0),
        }
    }

    /// The `a` and `b` of each channel that it is once training is over: `y = a·x + b`.
    pub fn folded(&self, params: &Params) -> (Tensor, Tensor) {
        let [gamma, beta, mean, var] =
            [self.gamma, self.beta, self.mean, self.var].map(|id| &params[id].value);
        let each = |f: &dyn Fn(usize) -> f32| {
            Tensor::build(gamma.shape(), |y| y.iter_mut().enumerate().for_each(|(c, y)| *y = f(c)))
        };
        let a = each(&|c| gamma[c] / (var[c] + EPS).sqrt());
        let b = each(&|c| beta[c] - mean[c] * a[c]);
        (a, b)
    }

    /// `activation(norm(x) + residual)`, in fewer passes over memory where `x` are images.
    pub fn forward_act<'t>(
        &self,
        x: &Var<'t>,
        residual: Option<&Var<'t>>,
        activation: Activation,
    ) -> Var<'t> {
        if x.shape().len() == 4 {
            if x.tape().is_training() {
                return self
                    .train(x, |gamma, beta| x.norm_act(gamma, beta, EPS, residual, activation));
            }
            let _layer = self.layer(x);
            let (a, b) = self.folded(x.tape().params());
            let [a, b] = [a, b].map(|v| x.tape().constant(v));
            return x.affine_act(&a, &b, residual, activation);
        }
        let y = self.forward(x);
        activation.forward(&residual.map_or(y.clone(), |residual| y + residual))
    }

    /// Normalises by the batch's moments, and has the running statistics follow them.
    fn train<'t>(
        &self,
        x: &Var<'t>,
        normalize: impl FnOnce(&Var<'t>, &Var<'t>) -> (Var<'t>, Moments),
    ) -> Var<'t> {
        let tape = x.tape();
        let _layer = self.layer(x);
        let (y, batch) = normalize(&tape.param(self.gamma), &tape.param(self.beta));
        let unbiased = batch.count as f32 / (batch.count as f32 - 1.0).max(1.0);
        for (id, new, factor) in [(self.mean, batch.mean, 1.0), (self.var, batch.var, unbiased)] {
            let old = &tape.params()[id].value;
            let moved = Tensor::build(old.shape(), |y| {
                dirnet_kernels::elementwise::zip(old, &new, y, |old, new| {
                    (1.0 - MOMENTUM) * old + MOMENTUM * factor * new
                });
            });
            tape.update(id, moved);
        }
        y
    }

    fn layer<'t>(&self, x: &Var<'t>) -> LayerGuard<'t> {
        x.tape().layer(&self.name, || {
            let channels = x.shape()[1];
            LayerNote {
                kind: "batch norm",
                output: x.shape()[1..].to_vec(),
                params_32bit: 2 * channels,
                ..LayerNote::default()
            }
        })
    }
}

impl Module for BatchNorm {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        if tape.is_training() {
            return self.train(x, |gamma, beta| x.batch_norm(gamma, beta, EPS));
        }
        let _layer = self.layer(x);
        let (a, b) = self.folded(tape.params());
        x.channel_affine(&tape.constant(a), &tape.constant(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, Tape};

    #[test]
    fn evaluating_is_training_once_the_statistics_have_settled() {
        let mut params = Params::new();
        let norm = BatchNorm::new(&mut params, "bn", 3);
        let x = Tensor::randn([16, 3, 4, 4], 2.0, &mut Rng::seed(1));
        for _ in 0..200 {
            let tape = Tape::train(&params);
            let y = norm.forward(&tape.variable(&x)).sum();
            for (id, value) in y.backward().updates() {
                params.set(*id, value.clone());
            }
        }
        let train = Tape::train(&params);
        let eval = Tape::eval(&params);
        let (a, b) = (norm.forward(&train.constant(&x)), norm.forward(&eval.constant(&x)));
        // The running variance is the unbiased one: 256/255 of the batch's.
        assert!(a.value().iter().zip(&**b.value()).all(|(a, b)| (a - b).abs() < 1e-2));
    }
}
