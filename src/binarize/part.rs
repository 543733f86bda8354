//! What happens to numbers before their sign is taken: named parts, one after the other.

use crate::{ParamId, Params, Role, Tape, Tensor, Var};
use std::fmt::Debug;
use std::sync::Arc;

/// One step on the way to a sign, for weights and activations alike.
///
/// It is made of operations on the tape, so its way back is the tape's. The axis that comes first
/// is told apart: each output channel of weights, each image of a batch.
///
/// A part of one's own:
///
/// ```
/// use dirnet::binarize::Part;
/// use dirnet::{ParamId, Var};
///
/// /// `tanh(x)`
/// #[derive(Debug)]
/// struct Squash;
///
/// impl Part for Squash {
///     fn name(&self) -> &str { "squash" }
///     fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> { x.tanh() }
/// }
/// ```
pub trait Part: Debug + Send + Sync + 'static {
    /// As it is chosen and printed, and as its learned numbers are named.
    fn name(&self) -> &str;

    /// What it learns: of weights of this shape, or of activations that are `C`, or `C H W`, for
    /// one sample.
    fn learned(&self, shape: &[usize]) -> Vec<Learned> {
        let _ = shape;
        Vec::new()
    }

    /// The prepared numbers, of the same shape: as they come, unless a part says otherwise. `learned`
    /// names what [`Part::learned`] asked for, in that order.
    fn forward<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Var<'t> {
        let _ = learned;
        x.clone()
    }

    /// What is added to the signs, if anything: of the numbers as they come to this part.
    fn beside<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Option<Var<'t>> {
        let _ = (x, learned);
        None
    }

    /// `[a, b]`, one number each, if the signs of activations stand for `a · (sign + b)`, else
    /// `None`: the signs stand for themselves.
    fn levels<'t>(&self, tape: &'t Tape<'t>, learned: &[ParamId]) -> Option<[Var<'t>; 2]> {
        let _ = (tape, learned);
        None
    }
}

/// Numbers that a [`Part`] learns.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Their name within the part.
    pub name: &'static str,
    /// What they are to training.
    pub role: Role,
    /// Where they start.
    pub value: Tensor,
}

/// Parts in order, with the parameters of one layer.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    links: Vec<(Arc<dyn Part>, Vec<ParamId>)>,
}

impl Chain {
    /// Adds `NAME.PART.LEARNED` to `params` for all that the parts learn.
    pub fn new(params: &mut Params, name: &str, parts: &[Arc<dyn Part>], shape: &[usize]) -> Self {
        let mut link = |part: &Arc<dyn Part>| {
            let learned = part.learned(shape).into_iter();
            let ids = learned
                .map(|l| params.add(format!("{name}.{}.{}", part.name(), l.name), l.role, l.value));
            (part.clone(), ids.collect())
        };
        Chain { links: parts.iter().map(&mut link).collect() }
    }

    /// All parts, one after the other.
    pub fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        self.prepare(x).0
    }

    /// The same, and the sum of what they add to the signs, if any does.
    pub fn prepare<'t>(&self, x: &Var<'t>) -> (Var<'t>, Option<Var<'t>>) {
        let (mut x, mut sum) = (x.clone(), None::<Var<'t>>);
        for (part, learned) in &self.links {
            if let Some(more) = part.beside(&x, learned) {
                sum = Some(sum.map_or(more.clone(), |sum| sum + &more));
            }
            x = part.forward(&x, learned);
        }
        (x, sum)
    }

    /// The levels of the last part that has any.
    pub fn levels<'t>(&self, tape: &'t Tape<'t>) -> Option<[Var<'t>; 2]> {
        self.links.iter().rev().find_map(|(part, learned)| part.levels(tape, learned))
    }

    /// How many numbers it learns.
    pub fn count(&self, params: &Params) -> usize {
        let all = self.links.iter().flat_map(|(_, ids)| ids.iter().map(|&id| &params[id]));
        all.filter(|p| p.role != Role::Buffer).map(|p| p.value.len()).sum()
    }
}

/// Centre and divide by the unbiased standard deviation, each channel of weights, each image of a
/// batch: [`Var::standardize`] (IMB; Qin et al., 2020, arXiv 1909.10788).
#[derive(Clone, Copy, Debug)]
pub struct Standardize;

impl Part for Standardize {
    fn name(&self) -> &str {
        "standardize"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        x.standardize()
    }
}

/// Centre and divide by the standard deviation of the numbers themselves, `√(Σ (x - mean)² / n)`,
/// each channel of weights, each image of a batch (AdaBin, Tu et al., 2022, arXiv 2208.08084).
#[derive(Clone, Copy, Debug)]
pub struct Normalize;

impl Part for Normalize {
    fn name(&self) -> &str {
        "normalize"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        x.standardize() * (1.0 / biased(x))
    }
}

/// Less the mean, each channel of weights, each image of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Centre;

impl Part for Centre {
    fn name(&self) -> &str {
        "centre"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        let rows = x.reshape([1, x.shape()[0], x.value().len() / x.shape()[0]]);
        rows.add_channels(&-row_means(x)).reshape(x.shape())
    }
}

/// The rectified clamp unit: revives weights far from zero by clamping them (Xu et al., 2021, arXiv
/// 2103.12369). It follows [`Standardize`].
///
/// ```text
/// y = clamp(2√2 · x, -Q, Q),  Q = -b · ln(2 - 2·tau),  b = mean |2√2 · x| over the layer
/// ```
///
/// `tau` grows from 0.85 to 0.99 as `A·exp(progress) + B`. `Q` is a constant to the way back.
#[derive(Clone, Copy, Debug)]
pub struct Rectify {
    /// `tau` at the start.
    pub from: f32,
    /// `tau` at the end.
    pub to: f32,
}

impl Default for Rectify {
    fn default() -> Self {
        Rectify { from: 0.85, to: 0.99 }
    }
}

impl Rectify {
    /// At a moment of training, from 0 to 1.
    pub fn tau(&self, progress: f32) -> f32 {
        let a = (self.to - self.from) / (std::f32::consts::E - 1.0);
        a * progress.exp() + self.from - a
    }
}

impl Part for Rectify {
    fn name(&self) -> &str {
        "rectify"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        let wide = x * 8f32.sqrt();
        let b = wide.detach().abs().mean().value().item();
        let q = -b * (2.0 - 2.0 * self.tau(x.tape().progress())).ln();
        wide.clamp(-q, q)
    }
}

/// `x + b` with a learned number a channel: the place of the sign's step (RSign of ReActNet, Liu et
/// al., 2020, arXiv 2003.03488).
#[derive(Clone, Copy, Debug)]
pub struct Shift;

impl Part for Shift {
    fn name(&self) -> &str {
        "shift"
    }
    fn learned(&self, shape: &[usize]) -> Vec<Learned> {
        vec![Learned { name: "b", role: Role::Weight, value: Tensor::zeros([shape[0]]) }]
    }
    fn forward<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Var<'t> {
        x.add_channels(&x.tape().param(learned[0]))
    }
}

/// Divided by the standard deviation of each image, while training only: it moves no sign, but
/// where the estimator is looked at (ReCU, Xu et al., 2021, arXiv 2103.12369, as its published code
/// has it).
///
/// ```text
/// y = x / √(std(x)² + 1e-5)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spread;

impl Part for Spread {
    fn name(&self) -> &str {
        "spread"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        if x.tape().is_training() { spread(x) } else { x.clone() }
    }
}

/// `2x - 1`, so that the step stands at one half and the signs stand for 0 and 1: one-bit
/// activations of DoReFa-Net (Zhou et al., 2016, arXiv 1606.06160).
///
/// With a straight-through estimator clipped at 1 the slope of the whole is 1 between 0 and 1, that
/// of a rounded `clamp(x, 0, 1)`.
#[derive(Clone, Copy, Debug)]
pub struct Threshold;

impl Part for Threshold {
    fn name(&self) -> &str {
        "threshold"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        x * 2.0 - 1.0
    }
    fn levels<'t>(&self, tape: &'t Tape<'t>, _: &[ParamId]) -> Option<[Var<'t>; 2]> {
        Some([tape.constant([0.5]), tape.constant([1.0])])
    }
}

/// Two learned levels for the activations of a layer (AdaBin, Tu et al., 2022, arXiv 2208.08084).
///
/// ```text
/// y = (x - beta) / alpha,   the signs of y stand for alpha · sign + beta
/// ```
///
/// An `alpha` nearer to 0 than 1e-4, as it may be on its way to another sign, counts as ±1e-4.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adapt {
    /// As the published code has it, `alpha · (sign + beta)`.
    pub factored: bool,
}

impl Part for Adapt {
    fn name(&self) -> &str {
        if self.factored { "adapt-factored" } else { "adapt" }
    }
    fn learned(&self, _: &[usize]) -> Vec<Learned> {
        let one = |name, x| Learned { name, role: Role::Weight, value: Tensor::from([x]) };
        vec![one("alpha", 1.0), one("beta", 0.0)]
    }
    fn forward<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Var<'t> {
        let tape = x.tape();
        let [alpha, beta] = levels(tape, learned);
        let inverse = tape.constant([1.0]) / alpha;
        let flat = x.reshape([1, 1, x.value().len()]);
        flat.add_channels(&-beta).mul_channels(&inverse).reshape(x.shape())
    }
    fn levels<'t>(&self, tape: &'t Tape<'t>, learned: &[ParamId]) -> Option<[Var<'t>; 2]> {
        let [alpha, beta] = levels(tape, learned);
        let beta = if self.factored { beta } else { beta / &alpha };
        Some([alpha, beta])
    }
}

/// `alpha`, kept away from 0, and `beta`.
fn levels<'t>(tape: &'t Tape<'t>, learned: &[ParamId]) -> [Var<'t>; 2] {
    const LEAST: f32 = 1e-4;
    let [alpha, beta] = [0, 1].map(|i| tape.param(learned[i]));
    let a = alpha.value()[0];
    let missing = if a.abs() < LEAST { LEAST.copysign(a) - a } else { 0.0 };
    [alpha + missing, beta]
}

/// Leaves weights as they are and gives them the gradient that XNOR-Net's paper states for
/// `mean|w| · sign(w)` (Rastegari et al., 2016, arXiv 1603.05279). Its estimator is `identity`, its
/// scale [`Scale::MeanAbs`](super::Scale::MeanAbs).
///
/// ```text
/// dw = (1/n + m · 1[|w| ≤ 1]) · dq,   m = mean|w|, dq the gradient of the binary weights
/// ```
///
/// The authors' code (allenai/XNOR-Net, `util.lua`) has this times `n·(1 - 1/C)`, with `C` the input
/// channels. It also takes the mean over the channels from the latent weights and clips them to ±1
/// before each step, which is no part of the paper's formulas and not done here.
#[derive(Clone, Copy, Debug)]
pub struct SignAndMean;

impl Part for SignAndMean {
    fn name(&self) -> &str {
        "sign-and-mean"
    }
    fn forward<'t>(&self, x: &Var<'t>, _: &[ParamId]) -> Var<'t> {
        let w = x.value().clone();
        let (o, n) = (w.shape()[0], w.len() / w.shape()[0]);
        let scale = super::Scale::MeanAbs.of(x, x).value().clone();
        x.tape().record("sign_and_mean", w.clone(), [x], move |mut dy, _| {
            // What arrives has the scale in it already. A scale too small to divide by has lost it.
            for c in 0..o {
                let usable = scale[c] >= f32::MIN_POSITIVE;
                let by_mean = if usable { 1.0 / (n as f32 * scale[c]) } else { 0.0 };
                let (dy, w) = (&mut dy.data_mut()[c * n..][..n], &w[c * n..][..n]);
                for (dy, w) in dy.iter_mut().zip(w) {
                    *dy *= by_mean + f32::from(u8::from(w.abs() <= 1.0));
                }
            }
            [Some(dy)]
        })
    }
}

fn spread<'t>(x: &Var<'t>) -> Var<'t> {
    let (tape, n) = (x.tape(), x.shape()[0]);
    // Wide rows are narrowed first, by a constant: no square is infinite then, here and on the way
    // back.
    let narrow = row_stds(&x.detach()).value().clone().map(|std| 1.0 / std.max(1.0));
    let least = tape.constant(narrow.clone().map(|narrow| 1e-5 * narrow * narrow));
    let rows = x.reshape([1, n, x.value().len() / n]).mul_channels(&tape.constant(narrow));
    let stds = (row_stds(&rows.reshape([n, x.value().len() / n])).square() + least).sqrt();
    let inverse = tape.constant(Tensor::full([n], 1.0)) / stds;
    rows.mul_channels(&inverse).reshape(x.shape())
}

/// The mean of each row, the first axis against all others.
pub(super) fn row_means<'t>(x: &Var<'t>) -> Var<'t> {
    let (o, n) = (x.shape()[0], x.value().len() / x.shape()[0].max(1));
    let weights = x.tape().constant(Tensor::full([1, n], 1.0 / n as f32));
    x.reshape([o, n]).linear(&weights).reshape([o])
}

/// What the standard deviation of a row's own numbers is to the unbiased one, `√((n-1)/n)`; 1 for a
/// single number.
pub(super) fn biased(x: &Var<'_>) -> f32 {
    let n = (x.value().len() / x.shape()[0].max(1)) as f32;
    if n <= 1.0 { 1.0 } else { ((n - 1.0) / n).sqrt() }
}

/// The unbiased standard deviation of each row: `Σ x·y / (n-1)` with `y` the standardised row, whose
/// own gradient is `y / (n-1)`, so `y` may be a constant. 0 for a constant row, |x| for a single
/// number.
pub(super) fn row_stds<'t>(x: &Var<'t>) -> Var<'t> {
    let n = x.value().len() / x.shape()[0].max(1);
    if n <= 1 {
        return x.abs().reshape([x.shape()[0]]);
    }
    row_means(&(x * x.detach().standardize())) * (n as f32 / (n as f32 - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, gradcheck};

    fn check(part: impl Part, shape: &[usize]) {
        let mut params = Params::new();
        let parts: Vec<Arc<dyn Part>> = vec![Arc::new(part)];
        let chain = Chain::new(&mut params, "a", &parts, &shape[1..]);
        let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
        // The gradient with respect to x, through operations that know of no parameter.
        gradcheck([shape], |[x]| chain.links.iter().fold(x, |x, (p, _)| p.forward(&x, &ids)));
    }

    #[test]
    fn parts_without_parameters_pass_the_gradient_check() {
        check(Standardize, &[3, 2, 4, 3]);
        check(Normalize, &[3, 2, 4, 3]);
        check(Centre, &[3, 2, 4, 3]);
        check(Threshold, &[3, 7]);
    }

    #[test]
    fn spread() {
        gradcheck([&[3, 2, 4, 3]], |[x]| super::spread(&x));
        // So large that its square is infinite.
        let params = Params::new();
        let tape = Tape::train(&params);
        let y = super::spread(&tape.constant(Tensor::new([1, 2], vec![1e30, -1e30])));
        assert!((y.value()[0] - 0.5f32.sqrt()).abs() < 1e-6, "{:?}", y.value());
    }

    #[test]
    fn an_alpha_of_zero_divides_nothing_by_zero_and_can_leave() {
        let mut params = Params::new();
        let parts: Vec<Arc<dyn Part>> = vec![Arc::new(Adapt::default())];
        let chain = Chain::new(&mut params, "a", &parts, &[3]);
        let alpha = params.id("a.adapt.alpha").unwrap();
        params.set(alpha, Tensor::from([0.0]));
        let tape = Tape::train(&params);
        let y = chain.forward(&tape.constant(Tensor::new([1, 3], vec![2.0, 0.0, -1.0])));
        assert!(y.value().iter().all(|y| y.is_finite()), "{:?}", y.value());
        let [a, b] = chain.levels(&tape).unwrap();
        let grads = (y.sum() * 1e-6 + a.sum() + b.sum()).backward();
        let slope = grads.get(alpha).unwrap()[0];
        assert!(slope.is_finite() && slope != 0.0, "{slope}");
    }

    #[test]
    fn sign_and_mean() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let w = tape.variable(Tensor::new([2, 2], vec![0.5, -1.5, 0.0, 0.0]));
        let y = SignAndMean.forward(&w, &[]);
        let grads = (&y * &tape.constant(Tensor::full([2, 2], 3.0))).sum().backward();
        // m = 1, n = 2: 1/2 + 1 inside, 1/2 outside; a row of zeros has no mean to learn.
        assert_eq!(&**grads.wrt(&w).unwrap(), [4.5, 1.5, 3.0, 3.0]);
    }

    #[test]
    fn a_rows_standard_deviation_is_that_of_the_textbook() {
        gradcheck([&[3, 5]], |[x]| row_stds(&x));
        let params = Params::new();
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::new([2, 3], vec![1.0, 2.0, 4.0, 5.0, 5.0, 5.0]));
        let std = row_stds(&x);
        assert!((std.value()[0] - (7.0f32 / 3.0).sqrt()).abs() < 1e-6 && std.value()[1] == 0.0);
    }

    #[test]
    fn clamping_is_milder_at_the_end() {
        let rectify = Rectify::default();
        assert!((rectify.tau(0.0) - 0.85).abs() < 1e-6 && (rectify.tau(1.0) - 0.99).abs() < 1e-6);
        let (params, x) = (Params::new(), Tensor::randn([4, 50], 1.0, &mut Rng::seed(1)));
        let largest = |progress| {
            let tape = Tape::train(&params).at(progress);
            let y = rectify.forward(&tape.constant(&x), &[]);
            y.value().iter().fold(0f32, |m, y| m.max(y.abs()))
        };
        assert!(largest(0.0) < largest(1.0));
    }

    #[test]
    fn levels_are_what_the_signs_stand_for() {
        let mut params = Params::new();
        let parts: Vec<Arc<dyn Part>> = vec![Arc::new(Adapt::default())];
        let chain = Chain::new(&mut params, "a", &parts, &[3]);
        params.set(params.id("a.adapt.alpha").unwrap(), Tensor::from([2.0]));
        params.set(params.id("a.adapt.beta").unwrap(), Tensor::from([1.0]));
        let tape = Tape::eval(&params);
        assert_eq!(&**chain.forward(&tape.constant([5.0, 1.0, -1.0])).value(), [2.0, 0.0, -1.0]);
        let [a, b] = chain.levels(&tape).unwrap();
        assert_eq!((a.value()[0], b.value()[0]), (2.0, 0.5));
        assert_eq!(chain.count(&params), 2);
    }
}
