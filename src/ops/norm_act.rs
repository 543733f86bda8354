//! Batch normalisation, a sum and an activation as one operation: the fast twin of three.

use super::Moments;
use crate::tensor::{Compact, Held};
use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::elementwise;
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

        let (y, inside) = normed.forward(residual, true);
        let inside = Held::by(inside, norm_act::Inside::bytes);
        let mut parents = vec![self, gamma, beta];
        parents.extend(residual);
        let back = move |mut dy: Tensor, wanted: &[bool]| {
            let job = normed.job();
            let (sums, d) = match wanted.get(3) {
                Some(true) => {
                    let (sums, d) = gate(&job, &inside, &dy);
                    (sums, Some(d))
                }
                _ => (job.gate(&inside, &dy, None), None),
            };
            let dgamma = each(c, |at| sums[at][1] * f64::from(inv_std[at]));
            let dbeta = each(c, |at| sums[at][0]);
            job.dx(&inv_std, &sums, &inside, dy.data_mut());
            let mut gradients = vec![Some(dy), Some(dgamma), Some(dbeta)];
            gradients.extend((wanted.len() > 3).then_some(d));
            gradients
        };
        (self.tape().record_many("norm_act", y, &parents, back), moments)
    }

    /// `activation(a · x + b + residual)` with one `a` and `b` a channel of an `N C H W` batch: what
    /// [`Var::norm_act`] becomes once training is over. To the bit the same as
    /// [`Var::channel_affine`], an addition and the activation, in one pass over memory.
    ///
    /// ```text
    /// forward    s = a · x + b + residual,  y = act(s)
    /// backward   ds = dy where the slope of act is 1, else 0;
    ///            dresidual = ds;  dx = a·ds,  da = Σ ds·x,  db = Σ ds
    /// ```
    ///
    /// # Panics
    /// As for [`Var::norm_act`].
    #[track_caller]
    pub fn affine_act(
        &self,
        a: &Var<'t>,
        b: &Var<'t>,
        residual: Option<&Var<'t>>,
        activation: Activation,
    ) -> Var<'t> {
        let &[_, c, _, _] = self.shape() else {
            panic!("affine_act: no batch of images: {:?}", self.shape())
        };
        super::norm::channels("affine_act", self.shape(), a.shape());
        super::norm::channels("affine_act", self.shape(), b.shape());
        if let Some(residual) = residual {
            assert_eq!(self.shape(), residual.shape(), "affine_act: shapes of x and the residual");
        }
        let [x, scale, shift] = [self, a, b].map(|v| v.value().clone());
        let normed = Normed { x, mean: Tensor::zeros([c]), scale, shift, activation };
        let (y, inside) = normed.forward(residual, self.tape().is_training());
        let inside = Held::by(inside, norm_act::Inside::bytes);
        let mut parents = vec![self, a, b];
        parents.extend(residual);
        let back = move |dy: Tensor, wanted: &[bool]| {
            let (sums, d) = gate(&normed.job(), &inside, &dy);
            let dx = wanted[0].then(|| {
                let [n, c, h, w] = normed.job().size;
                Tensor::build(d.shape(), |dx| {
                    elementwise::scale_channels(n, c, h * w, &d, &normed.scale, dx);
                })
            });
            let [da, db] = [1, 0].map(|which| Some(each(c, |at| sums[at][which])));
            let mut gradients = vec![dx, da, db];
            gradients.extend((wanted.len() > 3).then_some(Some(d)));
            gradients
        };
        self.tape().describe(|| Op::Affine { act: activation });
        self.tape().record_many("affine_act", y, &parents, back)
    }
}

/// The sums a channel of the gradient of the sum, and that gradient.
fn gate(job: &NormAct<'_>, inside: &norm_act::Inside, dy: &Tensor) -> (Vec<[f64; 2]>, Tensor) {
    let mut sums = Vec::new();
    let d = Tensor::build(dy.shape(), |d| sums = job.gate(inside, dy, Some(d)));
    (sums, d)
}

/// One number a channel.
fn each(channels: usize, f: impl Fn(usize) -> f64) -> Tensor {
    Tensor::build([channels], |y| (0..channels).for_each(|at| y[at] = f(at) as f32))
}

/// The numbers of a tensor as the kernels read them.
fn numbers(x: &Tensor) -> Numbers<'_> {
    x.as_integers().unwrap_or_else(|| Numbers::Floats(x))
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

    /// The value, with its signs where a sign may follow, and where the slope is 1 if there is a way
    /// back.
    fn forward(&self, residual: Option<&Var<'_>>, back: bool) -> (Tensor, norm_act::Inside) {
        let (job, shape) = (self.job(), self.x.shape());
        let before_sign = self.activation == Activation::Hardtanh;
        if before_sign && residual.is_none() {
            let (inside, signs) = job.forward(None, None, true, back);
            let y = Tensor::compact(shape, self.clone());
            return (y.with_signs(signs.expect("asked")), inside);
        }
        let mut found = None;
        let y = Tensor::build(shape, |y| {
            let residual = residual.map(|r| &**r.value());
            found = Some(job.forward(residual, Some(y), before_sign, back));
        });
        let (inside, signs) = found.expect("the tensor was built");
        match signs {
            Some(signs) => (y.with_signs(signs), inside),
            None => (y, inside),
        }
    }
}

impl Compact for Normed {
    fn write(&self, first: usize, y: &mut [f32]) {
        self.job().values(first, y);
    }
    fn gather(&self, places: &mut dyn Iterator<Item = usize>) -> Vec<f32> {
        let job = self.job();
        places.map(|i| job.value(i)).collect()
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

    #[test]
    fn affine_act() {
        let shapes: [&[usize]; 4] = [&[3, 2, 4, 3], &[2], &[2], &[3, 2, 4, 3]];
        gradcheck(shapes, |[x, a, b, r]| x.affine_act(&a, &b, Some(&r), Activation::Identity));
        gradcheck([&[3, 2, 4, 3], &[2], &[2]], |[x, a, b]| {
            x.affine_act(&a, &b, None, Activation::Identity)
        });
    }

    #[test]
    fn an_affine_map_is_three_operations_in_one_to_the_bit() {
        let (params, mut rng) = (Params::new(), Rng::seed(4));
        let shape = [3, 3, 5, 7];
        let mut normal = |shape: &[usize]| Tensor::randn(shape, 1.0, &mut rng);
        let [x, r, covector] = [(); 3].map(|()| normal(&shape));
        let [a, b] = [(); 2].map(|()| normal(&[3]));
        let integers = Tensor::integers(shape, Tensor::from([0.5, 0.3, 2.0]), |z| {
            z.iter_mut().zip(&*x).for_each(|(z, x)| *z = (10.0 * x) as i16);
            None
        });
        for (x, activation) in [&x, &integers].into_iter().flat_map(|x| {
            [Activation::Identity, Activation::Relu, Activation::Hardtanh].map(|act| (x, act))
        }) {
            for added in [false, true] {
                let run = |fused: bool| {
                    let tape = Tape::train(&params);
                    let [x, r, a, b] = [x, &r, &a, &b].map(|v| tape.variable(v));
                    let y = if fused {
                        x.affine_act(&a, &b, added.then_some(&r), activation)
                    } else {
                        let y = x.channel_affine(&a, &b);
                        let y = if added { y + &r } else { y };
                        match activation {
                            Activation::Identity => y,
                            Activation::Relu => y.relu(),
                            Activation::Hardtanh => y.hardtanh(),
                        }
                    };
                    let grads = (&y * tape.constant(&covector)).sum().backward();
                    let value = y.value().clone();
                    (value, [&x, &a, &b, &r].map(|v| grads.wrt(v).cloned()))
                };
                let ((fused, dfused), (chain, dchain)) = (run(true), run(false));
                assert_eq!(*fused, *chain, "{activation:?}, {added}");
                for (d, e) in dfused.iter().zip(&dchain) {
                    let near = |d: &Tensor, e: &Tensor| {
                        d.iter().zip(&**e).all(|(d, e)| (d - e).abs() < 1e-5 * (1.0 + e.abs()))
                    };
                    assert!(match (d, e) {
                        (Some(d), Some(e)) => near(d, e),
                        (d, e) => d.is_none() && e.is_none(),
                    });
                }
            }
        }
    }

    /// Around a kink differences tell nothing, but the chain of three operations does.
    #[test]
    fn it_is_three_operations_in_one() {
        let (params, mut rng) = (Params::new(), Rng::seed(3));
        let x = Tensor::randn([4, 3, 5, 7], 2.0, &mut rng);
        let integers = Tensor::integers([4, 3, 5, 7], Tensor::from([0.5, 0.3, 2.0]), |z| {
            z.iter_mut().for_each(|z| *z = (10.0 * rng.normal()) as i16);
            None
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
            None
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
