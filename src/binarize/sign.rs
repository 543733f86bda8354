//! The sign of activations, and what has to be saved for its way back.

use super::{Elements, Estimator};
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
        self.binarize_along(1, estimator)
    }

    /// The same with channels along an axis: 0 of weights, 1 of activations.
    pub(super) fn binarize_along(&self, axis: usize, estimator: &Arc<dyn Estimator>) -> Var<'t> {
        let y = Tensor::build(self.shape(), |y| {
            elementwise::map(self.value(), y, bits::sign);
        });
        let slope = Slope::save(estimator, self, axis);
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
    /// A curve for each channel, of so many elements at a time.
    Channels(Vec<Arc<dyn Estimator>>, usize, Tensor),
    /// On a tape that does not record.
    Nowhere,
}

impl Slope {
    /// At the elements of `x`, whose channels lie along `axis`, at the tape's moment of training.
    pub(super) fn save(estimator: &Arc<dyn Estimator>, x: &Var<'_>, axis: usize) -> Self {
        let progress = x.tape().progress();
        match x.wants_grad() {
            true if estimator.by_channel() && axis < x.shape().len() && !x.value().is_empty() => {
                Slope::by_channel(estimator, x.value(), axis, progress)
            }
            true => Slope::at(estimator, x.value(), progress),
            false => Slope::Nowhere,
        }
    }

    fn by_channel(e: &Arc<dyn Estimator>, x: &Tensor, axis: usize, progress: f32) -> Self {
        const ENOUGH: usize = 1024;
        let (channels, area) = (x.shape()[axis], x.shape()[axis + 1..].iter().product());
        let of_each = x.len() / channels;
        let fit = |channel: usize| {
            // An odd step does not fall into step with rows.
            let places = (0..of_each).step_by((of_each / ENOUGH).saturating_sub(1) | 1);
            let place = |i: usize| (i / area * channels + channel) * area + i % area;
            let sample = Elements::when_seen(|| x.gather(places.map(place)));
            e.fit(&sample, progress).unwrap_or_else(|| e.clone())
        };
        Slope::Channels(par::map(channels, fit), area, x.clone())
    }

    pub(super) fn at(estimator: &Arc<dyn Estimator>, x: &Tensor, progress: f32) -> Self {
        let sample = Elements::when_seen(|| x.sample());
        let fitted = estimator.fit(&sample, progress).unwrap_or_else(|| estimator.clone());
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
            Slope::Channels(curves, area, x) => par::chunks(dy, par::GRAIN, |i, dy| {
                let first = first + i * par::GRAIN;
                for (channel, curve) in curves.iter().enumerate() {
                    by_channel_piece(&**curve, channel, [curves.len(), *area, first], x, dy);
                }
            }),
            Slope::Nowhere => unreachable!("a gradient reached what was recorded as a constant"),
        }
    }
}

/// The elements of one channel among `dy`, which starts at element `first`, become `slope · dy`. They are
/// gathered, so that the curve is called once however few of them lie side by side.
fn by_channel_piece(
    curve: &dyn Estimator,
    channel: usize,
    [channels, area, first]: [usize; 3],
    x: &Tensor,
    dy: &mut [f32],
) {
    let (period, end) = (channels * area, first + dy.len());
    let runs = || {
        let starts = (first / period..).map(move |n| n * period + channel * area);
        let runs = starts.take_while(move |&start| start < end);
        runs.map(move |start| start.max(first)..(start + area).min(end)).filter(|r| !r.is_empty())
    };
    let count = runs().map(|run| run.len()).sum();
    par::scratch(2 * count, |both| {
        let (here, slopes) = both.split_at_mut(count);
        let mut at = 0;
        for run in runs() {
            let piece = at..at + run.len();
            x.read(run.start, &mut here[piece.clone()]);
            slopes[piece].copy_from_slice(&dy[run.start - first..run.end - first]);
            at += run.len();
        }
        curve.backward(here, slopes);
        let mut at = 0;
        for run in runs() {
            dy[run.start - first..run.end - first].copy_from_slice(&slopes[at..at + run.len()]);
            at += run.len();
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::binarize::Elements;
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
            let fitted = e.fit(&Elements::from(&x.value()[..]), 0.6).unwrap_or(e);
            for (&dx, &x) in grads.wrt(&x).unwrap().iter().zip(&**x.value()) {
                let expected = 3.0 * fitted.slope(x);
                assert!((dx - expected).abs() <= 1e-6 * expected.abs(), "{} at {x}", entry.name);
            }
        }
    }

    #[test]
    fn each_channel_may_have_a_curve_of_its_own() {
        let params = Params::new();
        let mut rng = Rng::seed(6);
        let e = estimator("dte(scope=channel,t_max=50)").unwrap();
        let whole = estimator("dte(t_max=50)").unwrap();
        // Runs that lie across pieces of the work, single elements, and a channel of zeros.
        for shape in [vec![3, 4, 60, 61], vec![50, 7], vec![2, 5, 3]] {
            for axis in [0, 1] {
                let area: usize = shape[axis + 1..].iter().product();
                let channel = |i: usize| i / area % shape[axis];
                let mut x = Tensor::randn(&shape, 1.0, &mut rng);
                for (i, x) in x.data_mut().iter_mut().enumerate() {
                    *x *= channel(i) as f32;
                }
                let run = || {
                    let tape = Tape::train(&params).at(1.0);
                    let x = tape.variable(&x);
                    let y = x.binarize_along(axis, &e);
                    (y * 2.0).sum().backward().wrt(&x).unwrap().clone()
                };
                let dx = run();
                for c in 0..shape[axis] {
                    let places: Vec<usize> = (0..x.len()).filter(|&i| channel(i) == c).collect();
                    let here: Vec<f32> = places.iter().map(|&i| x[i]).collect();
                    if here.len() > 2048 {
                        continue; // a sample of it is fitted
                    }
                    let curve = whole.fit(&Elements::from(&here), 1.0).unwrap();
                    for &i in &places {
                        let expected = 2.0 * curve.slope(x[i]);
                        assert!(
                            (dx[i] - expected).abs() <= 1e-6 * expected,
                            "{shape:?} {axis} {c}"
                        );
                    }
                }
                let alone = dirnet_kernels::par::with_threads(1, run).unwrap();
                assert_eq!(dx, alone);
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
