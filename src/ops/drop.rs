//! Numbers left out by chance in training.

use crate::{Tape, Tensor, Var};
use dirnet_kernels::{elementwise, par};

impl<'t> Var<'t> {
    /// Each number is 0 with probability `p` in training, and the others grow so that the mean
    /// stays (Srivastava et al., 2014, JMLR 15). In evaluation nothing happens.
    ///
    /// ```text
    /// forward    y = x · m,  m = 0 with probability p, else 1/(1-p)
    /// backward   dx = dy · m
    /// ```
    ///
    /// What is drawn depends on what [`Tape::drawing`] said, on the layer and on `purpose`, which
    /// tells apart what is dropped at two places.
    ///
    /// ```
    /// # use dirnet::{Params, Tape, Tensor};
    /// # let params = Params::new();
    /// let tape = Tape::train(&params).drawing(7, [0, 3]);
    /// let y = tape.constant(Tensor::full([100], 1.0)).dropout(0.5, "before the head");
    /// assert!(y.value().iter().all(|&y| y == 0.0 || y == 2.0));
    /// ```
    ///
    /// # Panics
    /// If `p` does not lie in `[0, 1)`.
    #[track_caller]
    pub fn dropout(&self, p: f32, purpose: &str) -> Var<'t> {
        let Some(keep) = kept(self.tape(), p, purpose, self.value().len()) else {
            return self.clone();
        };
        let times = move |x: &[f32], shape: &[usize]| {
            Tensor::build(shape, |y| elementwise::zip(x, &keep, y, |x, keep| x * keep))
        };
        let y = times(self.value(), self.shape());
        self.tape().record("dropout", y, [self], move |dy, _| [Some(times(&dy, dy.shape()))])
    }

    /// The same for whole images of a batch `N …`: each is 0 with probability `p`. Of a residual
    /// branch that makes the network shallower by chance (stochastic depth, Huang et al., 2016, arXiv
    /// 1603.09382; "drop connect" in EfficientNet's code).
    ///
    /// # Panics
    /// If `p` does not lie in `[0, 1)`, or there is no batch dimension.
    #[track_caller]
    pub fn drop_images(&self, p: f32, purpose: &str) -> Var<'t> {
        let &[n, ..] = self.shape() else { panic!("drop_images: no batch in a scalar") };
        let Some(keep) = kept(self.tape(), p, purpose, n) else { return self.clone() };
        let size = self.value().len() / n.max(1);
        let times = move |x: &[f32], shape: &[usize]| {
            Tensor::build(shape, |y| elementwise::scale_channels(1, n, size, x, &keep, y))
        };
        let y = times(self.value(), self.shape());
        self.tape().record("drop_images", y, [self], move |dy, _| [Some(times(&dy, dy.shape()))])
    }
}

/// What each of `n` is multiplied with; `None` where nothing is dropped.
#[track_caller]
fn kept(tape: &Tape<'_>, p: f32, purpose: &str, n: usize) -> Option<Tensor> {
    assert!((0.0..1.0).contains(&p), "{purpose}: dropped with probability {p}, expected 0 to 1");
    if !tape.is_training() || p == 0.0 {
        return None;
    }
    let streams = tape.draws(purpose);
    Some(Tensor::build([n], |keep| {
        par::chunks(keep, par::GRAIN, |i, keep| {
            let mut rng = streams(i as u64);
            let grown = 1.0 / (1.0 - p);
            keep.iter_mut().for_each(|keep| *keep = if rng.uniform() < p { 0.0 } else { grown });
        });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Rng};

    /// Of ones what is left is the factor of each, and that is the slope too. Differences are no help
    /// here: they are taken on evaluating tapes.
    fn check(drop: impl for<'t> Fn(&Var<'t>) -> Var<'t>) -> Tensor {
        let (params, shape) = (Params::new(), [9, 2, 3]);
        let tape = Tape::train(&params);
        let x = tape.variable(Tensor::full(shape, 1.0));
        let covector = Tensor::randn(shape, 1.0, &mut Rng::seed(1));
        let y = drop(&x);
        let factors = y.value().clone();
        let grads = (y * tape.constant(&covector)).sum().backward();
        for (dx, (c, m)) in grads.wrt(&x).unwrap().iter().zip(covector.iter().zip(&*factors)) {
            assert_eq!(*dx, c * m);
        }
        assert!(factors.contains(&0.0) && factors.iter().any(|&m| m > 1.0));
        factors
    }

    #[test]
    fn dropout() {
        check(|x| x.dropout(0.3, "a"));
    }
    #[test]
    fn drop_images() {
        let factors = check(|x| x.drop_images(0.3, "a"));
        assert!(factors.chunks(6).all(|image| image.iter().all(|m| *m == image[0])));
    }

    #[test]
    fn the_share_that_is_left_out_is_p_and_the_mean_stays() {
        let params = Params::new();
        let tape = Tape::train(&params).drawing(5, [2, 3]);
        let x = tape.constant(Tensor::full([30_000, 1], 1.0));
        for y in [x.dropout(0.2, "a"), x.drop_images(0.2, "a")] {
            let dropped = y.value().iter().filter(|&&y| y == 0.0).count();
            assert!((dropped as f32 / 30_000.0 - 0.2).abs() < 0.01, "{dropped}");
            assert!(y.value().iter().all(|&y| y == 0.0 || y == 1.25));
        }
        assert!((x.dropout(0.0, "a").value() == x.value()) && !x.dropout(0.5, "a").wants_grad());
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::full([9], 1.0));
        assert_eq!(x.dropout(0.5, "a").value(), x.value());
    }

    #[test]
    fn seed_epoch_step_and_purpose_decide_and_threads_do_not() {
        let params = Params::new();
        let draw = |seed, at, purpose: &str, threads| {
            par::with_threads(threads, || {
                let tape = Tape::train(&params).drawing(seed, at);
                tape.constant(Tensor::full([3, 50_000], 1.0)).dropout(0.5, purpose).value().clone()
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
