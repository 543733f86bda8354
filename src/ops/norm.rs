//! Batch normalisation, and the affine map a channel that it becomes once training is over.

use crate::{Tensor, Var};
use dirnet_kernels::{elementwise, norm, reduce};

/// Mean and variance of each channel of a batch.
#[derive(Clone, Debug)]
pub struct Moments {
    /// One mean a channel.
    pub mean: Tensor,
    /// One variance a channel, divided by the count (biased).
    pub var: Tensor,
    /// Numbers that each was taken over.
    pub count: usize,
}

/// `N C …` seen as `n` times `c` channels of `hw` numbers.
#[track_caller]
pub(super) fn channels(name: &str, x: &[usize], per_channel: &[usize]) -> (usize, usize, usize) {
    let &[n, c, ref inner @ ..] = x else { panic!("{name}: no channels in shape {x:?}") };
    assert_eq!(per_channel, [c], "{name}: one number a channel of {x:?}");
    (n, c, inner.iter().product())
}

impl<'t> Var<'t> {
    /// Batch normalisation over all but the channels of `N C …`, by the moments of this batch,
    /// which it also returns (Ioffe and Szegedy, 2015, arXiv 1502.03167).
    ///
    /// ```text
    /// forward    x̂ = (x - mean) / √(var + eps),  y = gamma · x̂ + beta
    /// backward   dbeta = Σ dy,  dgamma = Σ dy·x̂,
    ///            dx = gamma / √(var + eps) · (dy - mean(dy) - x̂ · mean(dy·x̂))
    /// ```
    ///
    /// # Panics
    /// If `gamma` or `beta` have not one number a channel.
    #[track_caller]
    pub fn batch_norm(&self, gamma: &Var<'t>, beta: &Var<'t>, eps: f32) -> (Var<'t>, Moments) {
        let (n, c, hw) = channels("batch_norm", self.shape(), gamma.shape());
        channels("batch_norm", self.shape(), beta.shape());
        let x = self.value().clone();
        let mut mean = Tensor::zeros([c]);
        let mut var = Tensor::zeros([c]);
        norm::batch_moments(n, c, hw, &x, mean.data_mut(), var.data_mut());
        let inv_std = var.clone().map(|var| 1.0 / (var + eps).sqrt());
        let (g, b) = (gamma.value().clone(), beta.value());
        let y = Tensor::build(self.shape(), |y| {
            norm::batch_norm(n, c, hw, &x, &mean, &inv_std, &g, b, y);
        });
        let moments = Moments { mean: mean.clone(), var, count: n * hw };
        let y = self.tape().record("batch_norm", y, [self, gamma, beta], move |dy, _| {
            let mut dgamma = Tensor::zeros([c]);
            let mut dbeta = Tensor::zeros([c]);
            let dx = Tensor::build(x.shape(), |dx| {
                let (dgamma, dbeta) = (dgamma.data_mut(), dbeta.data_mut());
                norm::batch_norm_backward(
                    n, c, hw, &x, &mean, &inv_std, &g, &dy, dx, dgamma, dbeta,
                );
            });
            [Some(dx), Some(dgamma), Some(dbeta)]
        });
        (y, moments)
    }

    /// `y = a · x + b` with one `a` and `b` a channel of `N C …`: multiply, then add.
    ///
    /// ```text
    /// backward   dx = a·dy,  da = Σ dy·x,  db = Σ dy
    /// ```
    ///
    /// # Panics
    /// If `a` or `b` have not one number a channel.
    #[track_caller]
    pub fn channel_affine(&self, a: &Var<'t>, b: &Var<'t>) -> Var<'t> {
        let (n, c, hw) = channels("channel_affine", self.shape(), a.shape());
        channels("channel_affine", self.shape(), b.shape());
        let (x, a_) = (self.value().clone(), a.value().clone());
        let y = Tensor::build(self.shape(), |y| {
            norm::channel_affine(n, c, hw, &x, &a_, b.value(), y);
        });
        self.tape().record("channel_affine", y, [self, a, b], move |dy, wanted| {
            let sum = |f: &dyn Fn(&mut [f32])| Tensor::build([c], |y| f(y));
            [
                wanted[0].then(|| {
                    Tensor::build(dy.shape(), |dx| {
                        elementwise::scale_channels(n, c, hw, &dy, &a_, dx);
                    })
                }),
                wanted[1].then(|| sum(&|da| reduce::dot_channels(n, c, hw, &dy, &x, da))),
                wanted[2].then(|| sum(&|db| reduce::sum_channels(n, c, hw, &dy, db))),
            ]
        })
    }

    /// Adds one number a channel to `N C …`: a bias.
    ///
    /// ```text
    /// backward   dx = dy,  db = Σ dy
    /// ```
    ///
    /// # Panics
    /// If `b` has not one number a channel.
    #[track_caller]
    pub fn add_channels(&self, b: &Var<'t>) -> Var<'t> {
        let (n, c, hw) = channels("add_channels", self.shape(), b.shape());
        let y = Tensor::build(self.shape(), |y| {
            elementwise::add_channels(n, c, hw, self.value(), b.value(), y);
        });
        self.tape().record("add_channels", y, [self, b], move |dy, wanted| {
            let db =
                wanted[1].then(|| Tensor::build([c], |db| reduce::sum_channels(n, c, hw, &dy, db)));
            [Some(dy), db]
        })
    }

    /// Multiplies `N C …` by one number a channel: a scale.
    ///
    /// ```text
    /// backward   dx = a·dy,  da = Σ dy·x
    /// ```
    ///
    /// # Panics
    /// If `a` has not one number a channel.
    #[track_caller]
    pub fn mul_channels(&self, a: &Var<'t>) -> Var<'t> {
        let (n, c, hw) = channels("mul_channels", self.shape(), a.shape());
        let (x, a_) = (self.value().clone(), a.value().clone());
        let scaled = move |x: &[f32], a: &[f32], shape: &[usize]| {
            Tensor::build(shape, |y| elementwise::scale_channels(n, c, hw, x, a, y))
        };
        let y = scaled(&x, &a_, self.shape());
        self.tape().record("mul_channels", y, [self, a], move |dy, wanted| {
            let da = wanted[1]
                .then(|| Tensor::build([c], |da| reduce::dot_channels(n, c, hw, &dy, &x, da)));
            [wanted[0].then(|| scaled(&dy, &a_, dy.shape())), da]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck;

    #[test]
    fn batch_norm() {
        gradcheck([&[3, 2, 4, 3], &[2], &[2]], |[x, gamma, beta]| {
            x.batch_norm(&gamma, &beta, 1e-5).0
        });
        gradcheck([&[6, 3], &[3], &[3]], |[x, gamma, beta]| x.batch_norm(&gamma, &beta, 1e-5).0);
    }
    #[test]
    fn channel_affine() {
        gradcheck([&[3, 2, 4, 3], &[2], &[2]], |[x, a, b]| x.channel_affine(&a, &b));
    }
    #[test]
    fn add_channels() {
        gradcheck([&[3, 2, 4, 3], &[2]], |[x, b]| x.add_channels(&b));
    }
    #[test]
    fn mul_channels() {
        gradcheck([&[3, 2, 4, 3], &[2]], |[x, a]| x.mul_channels(&a));
    }
}
