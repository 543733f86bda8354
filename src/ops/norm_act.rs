//! Batch normalisation, a sum and an activation as one operation: the fast twin of three.

use super::Moments;
use crate::tensor::{Compact, Held};
use crate::{Tensor, Var};
use dirnet_kernels::norm_act::{self, Activation, NormAct, Numbers};

impl<'t> Var<'t> {
    /// Batch normalisation of an `N C H W` batch, what is added to it, and the activation around
    /// both: `(x.batch_norm(gamma, beta) + residual).hardtanh()` with fewer passes over memory.
    ///
    /// ```text
    /// forward    s = batch_norm(x) + residual,  y = act(s)
    /// backward   ds = dy where the slope of act is 1, else 0;  dresidual = ds;
    ///            dx, dgamma and dbeta from ds as in batch_norm
    /// ```
    ///
    /// Saved: `x`, which stays integers if it is the sums of a binary convolution, and one bit an
    /// element. Where nothing is added before a [`Activation::Hardtanh`], the value is made of `x`
    /// when somebody reads it; a binary convolution that follows needs its signs alone, which come
    /// with it.
    ///
    /// # Panics
    /// If `x` is no batch of images, `gamma` or `beta` have not one number a channel, or the residual
    /// has another shape.
    #[track_caller]
    pub fn norm_act(
        &self,
        gamma: &Var<'t>,
        beta: &Var<'t>,
        eps: f32,
        residual: Option<&Var<'t>>,
        activation: Activation,
    ) -> (Var<'t>, Moments) {
        let &[n, c, h, w] = self.shape() else {
            panic!("norm_act: no batch of images: {:?}", self.shape())
        };
        super::norm::channels("norm_act", self.shape(), gamma.shape());
        super::norm::channels("norm_act", self.shape(), beta.shape());
        if let Some(residual) = residual {
            assert_eq!(self.shape(), residual.shape(), "norm_act: shapes of x and the residual");
        }
        let x = self.value().clone();
        let (mut mean, mut var) = (Tensor::zeros([c]), Tensor::zeros([c]));
        norm_act::moments([n, c, h, w], numbers(&x), mean.data_mut(), var.data_mut());
        let inv_std = var.clone().map(|var| 1.0 / (var + eps).sqrt());
        let scale = Tensor::build([c], |scale| {
            let each = scale.iter_mut().zip(inv_std.iter().zip(&**gamma.value()));
            each.for_each(|(scale, (inv_std, gamma))| *scale = inv_std * gamma);
        });
        let moments = Moments { mean: mean.clone(), var, count: n * h * w };
        let shift = beta.value().clone();
        let normed = Normed { x, mean, scale, shift, activation };

        let before_sign = activation == Activation::Hardtanh;
        let job = normed.job();
        let (y, inside) = if before_sign && residual.is_none() {
            let (inside, signs) = job.forward(None, None, true);
            (
                Tensor::compact(self.shape(), normed.clone()).with_signs(signs.expect("asked")),
                inside,
            )
        } else {
            let mut found = None;
            let y = Tensor::build(self.shape(), |y| {
                let residual = residual.map(|r| &**r.value());
                found = Some(job.forward(residual, Some(y), before_sign));
            });
            let (inside, signs) = found.expect("the tensor was built");
            match signs {
                Some(signs) => (y.with_signs(signs), inside),
                None => (y, inside),
            }
        };
        let inside = Held::by(inside, norm_act::Inside::bytes);
        let mut parents = vec![self, gamma, beta];
        parents.extend(residual);
        let back = move |dy: Tensor, wanted: &[bool]| {
            let job = normed.job();
            let mut d = dy;
            let sums = job.gate(&inside, d.data_mut());
            let per_channel = |f: &dyn Fn(usize) -> f64| {
                Tensor::build([c], |y| (0..c).for_each(|at| y[at] = f(at) as f32))
            };
            let dgamma = per_channel(&|at| sums[at][1] * f64::from(inv_std[at]));
            let dbeta = per_channel(&|at| sums[at][0]);
            let mut gradients = Vec::new();
            if wanted.get(3) == Some(&true) {
                let dx = Tensor::build(d.shape(), |dx| job.dx(&inv_std, &sums, Some(&d), dx));
                gradients.extend([Some(dx), Some(dgamma), Some(dbeta), Some(d)]);
            } else {
                job.dx(&inv_std, &sums, None, d.data_mut());
                gradients.extend([Some(d), Some(dgamma), Some(dbeta)]);
                gradients.resize_with(wanted.len(), || None);
            }
            gradients
        };
        (self.tape().record_many("norm_act", y, &parents, back), moments)
    }
}

/// The numbers of a tensor as the kernels read them.
fn numbers(x: &Tensor) -> Numbers<'_> {
    match x.as_integers() {
        Some((z, scale)) => Numbers::Integers { z, scale },
        None => Numbers::Floats(x),
    }
}

/// What was normalised, and how: enough to compute the value again.
#[derive(Clone)]
struct Normed {
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    shift: Tensor,
    activation: Activation,
}

impl Normed {
    fn job(&self) -> NormAct<'_> {
        let size = self.x.shape().try_into().expect("the operation has looked");
        NormAct {
            size,
            x: numbers(&self.x),
            mean: &self.mean,
            scale: &self.scale,
            shift: &self.shift,
            act: self.activation,
        }
    }
}

impl Compact for Normed {
    fn write(&self, first: usize, y: &mut [f32]) {
        self.job().values(first, y);
    }
    fn at(&self, i: usize) -> f32 {
        self.job().value(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Rng, Tape, gradcheck};

    #[test]
    fn norm_act() {
        let shapes: [&[usize]; 4] = [&[3, 2, 4, 3], &[2], &[2], &[3, 2, 4, 3]];
        gradcheck(shapes, |[x, gamma, beta, r]| {
            x.norm_act(&gamma, &beta, 1e-5, Some(&r), Activation::Identity).0
        });
        gradcheck([&[3, 2, 4, 3], &[2], &[2]], |[x, gamma, beta]| {
            x.norm_act(&gamma, &beta, 1e-5, None, Activation::Identity).0
        });
    }

    /// Around a kink differences tell nothing, but the chain of three operations does.
    #[test]
    fn it_is_three_operations_in_one() {
        let (params, mut rng) = (Params::new(), Rng::seed(3));
        let x = Tensor::randn([4, 3, 5, 7], 2.0, &mut rng);
        let integers = Tensor::integers([4, 3, 5, 7], Tensor::from([0.5, 0.3, 2.0]), |z| {
            z.iter_mut().for_each(|z| *z = (10.0 * rng.normal()) as i16);
        });
        let r = Tensor::randn([4, 3, 5, 7], 1.0, &mut rng);
        let covector = Tensor::randn([4, 3, 5, 7], 1.0, &mut rng);
        let gamma = Tensor::randn([3], 1.0, &mut rng);
        let beta = Tensor::randn([3], 0.5, &mut rng);
        for x in [&x, &integers] {
            for activation in [Activation::Identity, Activation::Relu, Activation::Hardtanh] {
                for added in [false, true] {
                    let run = |fused: bool| {
                        let tape = Tape::train(&params);
                        let x = tape.variable(x);
                        let [r, gamma, beta] = [&r, &gamma, &beta].map(|v| tape.variable(v));
                        let y = if fused {
                            x.norm_act(&gamma, &beta, 1e-5, added.then_some(&r), activation).0
                        } else {
                            let y = x.batch_norm(&gamma, &beta, 1e-5).0;
                            let y = if added { y + &r } else { y };
                            match activation {
                                Activation::Identity => y,
                                Activation::Relu => y.relu(),
                                Activation::Hardtanh => y.hardtanh(),
                            }
                        };
                        let grads = (&y * tape.constant(&covector)).sum().backward();
                        let of = |v| grads.wrt(v).cloned();
                        [Some(y.value().clone()), of(&x), of(&gamma), of(&beta), of(&r)]
                    };
                    for (fused, chain) in run(true).iter().zip(&run(false)) {
                        let (Some(fused), Some(chain)) = (fused, chain) else {
                            assert!(fused.is_none() && chain.is_none() && !added);
                            continue;
                        };
                        let size = chain.iter().fold(0f32, |m, x| m.max(x.abs()));
                        for (a, b) in fused.iter().zip(&**chain) {
                            assert!((a - b).abs() <= 2e-5 * size, "{activation:?}: {a} and {b}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn before_a_sign_no_floats_are_made() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let one = tape.constant([1.0, 1.0]);
        let x = tape.variable(Tensor::integers([2, 2, 8, 8], Tensor::from([1.0, 1.0]), |z| {
            z.iter_mut().enumerate().for_each(|(i, z)| *z = i as i16 % 7 - 3);
        }));
        let y = x.norm_act(&one, &one, 1e-5, None, Activation::Hardtanh).0;
        assert!(x.value().floats().is_none() && y.value().floats().is_none());
        let mut signs = [0.0; 256];
        y.value().signs().expect("they come with it").unpack(&mut signs);
        for (i, &y) in y.value().iter().enumerate() {
            assert_eq!(signs[i], if y < 0.0 { -1.0 } else { 1.0 });
        }
    }
}
