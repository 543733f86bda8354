//! The sign of activations, and what has to be saved for its way back.

use super::Estimator;
use crate::tensor::{Compact, Held};
use crate::{Tensor, Var};
use dirnet_kernels::bits::{self, Mask};
use dirnet_kernels::{elementwise, par};
use std::sync::Arc;

impl<'t> Var<'t> {
    /// The sign of each element, -1 where `x < 0` and else +1, with an estimator on the way back.
    ///
    /// ```text
    /// forward    y = sign(x)
    /// backward   dx = slope(x) · dy
    /// ```
    ///
    /// ```
    /// # use dirnet::{Params, Tape, binarize::{Estimator, Ste}};
    /// # use std::sync::Arc;
    /// # let params = Params::new();
    /// let tape = Tape::train(&params);
    /// let ste: Arc<dyn Estimator> = Arc::new(Ste::default());
    /// let x = tape.variable([-2.0, -0.5, 0.0, 0.5]);
    /// let y = x.binarize(&ste);
    /// assert_eq!(&**y.value(), [-1.0, -1.0, 1.0, 1.0]);
    /// assert_eq!(&**y.sum().backward().wrt(&x).unwrap(), [0.0, 1.0, 1.0, 1.0]);
    /// ```
    pub fn binarize(&self, estimator: &Arc<dyn Estimator>) -> Var<'t> {
        let y = Tensor::build(self.shape(), |y| {
            elementwise::map(self.value(), y, bits::sign);
        });
        let slope = Slope::save(estimator, self);
        self.tape().record("binarize", y, [self], move |dy, _| [Some(slope.times(dy))])
    }
}

/// The slope of an estimator at the elements of a tensor, saved as compactly as it allows.
pub(super) enum Slope {
    /// The same everywhere: nothing to save.
    Constant(f32),
    /// The same within a window: one bit an element.
    Window(Held<Mask>, f32),
    /// A curve: the elements themselves, shared with whoever made them.
    Curve(Arc<dyn Estimator>, Tensor),
    /// The same, in the smaller form that they have.
    Compact(Arc<dyn Estimator>, Arc<dyn Compact>),
    /// On a tape that does not record.
    Nowhere,
}

impl Slope {
    /// At the elements of `x`, at the tape's moment of training.
    pub(super) fn save(estimator: &Arc<dyn Estimator>, x: &Var<'_>) -> Self {
        match x.wants_grad() {
            true => Slope::at(estimator, x.value(), x.tape().progress()),
            false => Slope::Nowhere,
        }
    }

    pub(super) fn at(estimator: &Arc<dyn Estimator>, x: &Tensor, progress: f32) -> Self {
        let fitted = estimator.fit(&x.sample(), progress).unwrap_or_else(|| estimator.clone());
        match (fitted.window(), x.as_compact()) {
            (Some((limit, slope)), _) if limit.is_infinite() => Slope::Constant(slope),
            (_, Some(compact)) => Slope::Compact(fitted, compact.clone()),
            (Some((limit, slope)), None) => {
                Slope::Window(Held::by(Mask::within(x, limit), Mask::bytes), slope)
            }
            (None, None) => Slope::Curve(fitted, x.clone()),
        }
    }

    /// `slope · dy`
    pub(super) fn times(&self, mut dy: Tensor) -> Tensor {
        self.apply(0, dy.data_mut());
        dy
    }

    /// `dy`, of elements from `first` on, becomes `slope · dy`.
    pub(super) fn apply(&self, first: usize, dy: &mut [f32]) {
        match self {
            Slope::Constant(slope) if *slope == 1.0 => {}
            Slope::Constant(slope) => elementwise::scale(dy, *slope),
            Slope::Window(mask, slope) => bits::masked_in_place(mask, first, *slope, dy),
            Slope::Curve(estimator, x) => estimator.backward(&x[first..first + dy.len()], dy),
            Slope::Compact(estimator, x) => par::chunks(dy, par::GRAIN, |i, dy| {
                par::scratch(dy.len(), |here| {
                    x.write(first + i * par::GRAIN, here);
                    estimator.backward(here, dy);
                });
            }),
            Slope::Nowhere => unreachable!("a gradient reached what was recorded as a constant"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::binarize::estimator::{all, estimator};
    use crate::{Params, Rng, Tape, Tensor};

    #[test]
    fn binarize() {
        let params = Params::new();
        let x = Tensor::randn([4, 100], 1.0, &mut Rng::seed(5));
        for entry in all() {
            let e = estimator(entry.name).unwrap();
            let tape = Tape::train(&params).at(0.6);
            let x = tape.variable(&x);
            let y = x.binarize(&e);
            assert!(
                y.value()
                    .iter()
                    .zip(&**x.value())
                    .all(|(&y, &x)| y == if x < 0.0 { -1.0 } else { 1.0 })
            );
            let grads = (y * 3.0).sum().backward();
            let fitted = e.fit(x.value(), 0.6).unwrap_or(e);
            for (&dx, &x) in grads.wrt(&x).unwrap().iter().zip(&**x.value()) {
                let expected = 3.0 * fitted.slope(x);
                assert!((dx - expected).abs() <= 1e-6 * expected.abs(), "{} at {x}", entry.name);
            }
        }
    }

    #[test]
    fn zero_of_either_sign_is_plus_one() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        let y = tape.constant([0.0, -0.0]).binarize(&estimator("ste").unwrap());
        assert_eq!(&**y.value(), [1.0, 1.0]);
    }
}
