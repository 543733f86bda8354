//! Dense layers, one after the other.

use super::maker::Maker;
use crate::binarize::{Activations, Estimator, Method, Part, Scale, Standardize, Weights};
use crate::nn::{self, BatchNorm, Between, BinLinear, Linear, Module};
use crate::spec::Options;
use crate::{Error, Params, Rng, Var};
use std::sync::Arc;

/// Dense layers with a batch norm and an activation behind each but the last.
pub struct Mlp {
    layers: Vec<(Box<dyn Module>, BatchNorm, Between)>,
    head: Box<dyn Module>,
}

impl Mlp {
    /// `mlp(hidden=256, depth=2)`: first and last layer in float, those between by the method.
    pub(super) fn of(options: &mut Options<'_>, mut maker: Maker<'_>) -> Result<Self, Error> {
        let hidden = options.get("hidden", 256usize)?;
        let depth = options.get("depth", 2usize)?;
        if !(1..=65_536).contains(&hidden) || !(1..=64).contains(&depth) {
            return Err(Error::Setting(format!(
                "mlp: hidden is {hidden} and depth {depth}, expected 1 to 65536 and 1 to 64"
            )));
        }
        let from = maker.task.input.iter().product();
        let mut layers = Vec::new();
        for i in 0..depth {
            let name = format!("layer{}", i + 1);
            let dense: Box<dyn Module> = match i {
                0 => Box::new(Linear::new(maker.params, &name, from, hidden, maker.rng)),
                _ => nn::linear(maker.params, &name, [hidden; 2], maker.method, maker.rng),
            };
            let norm = maker.norm(&format!("bn{}", i + 1), hidden);
            let between = maker.between(&format!("act{}", i + 1), hidden);
            layers.push((dense, norm, between));
        }
        let head = Box::new(maker.head("fc", hidden));
        Ok(Mlp { layers, head })
    }
}

impl Module for Mlp {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = x.flatten();
        for (dense, norm, between) in &self.layers {
            x = between.behind(norm, &dense.forward(&x), None);
            x.representation();
        }
        self.head.forward(&x)
    }
}

/// A dense network that is binary throughout: every weight is a sign, and so is every input but
/// the first; `sizes` go from the input to the classes. A batch norm follows each layer, and the
/// last one gives the logits (Courbariaux et al., 2016, arXiv 1602.02830). Weights are balanced
/// and standardised, and share the activations' estimator.
///
/// ```
/// use dirnet::{Params, Rng, Tape, Tensor, binarize::Ste, models::bin_mlp, nn::Module};
/// let mut params = Params::new();
/// let net = bin_mlp(&mut params, &[64, 256, 10], Ste::default(), &mut Rng::seed(7));
/// let tape = Tape::eval(&params);
/// assert_eq!(net.forward(&tape.constant(Tensor::zeros([5, 64]))).shape(), [5, 10]);
/// ```
///
/// # Panics
/// If there are fewer than two sizes.
#[track_caller]
pub fn bin_mlp(
    params: &mut Params,
    sizes: &[usize],
    estimator: impl Estimator,
    rng: &mut Rng,
) -> BinMlp {
    assert!(sizes.len() >= 2, "bin_mlp: an input and an output size, found {sizes:?}");
    let estimator: Arc<dyn Estimator> = Arc::new(estimator);
    let prepare: Vec<Arc<dyn Part>> = vec![Arc::new(Standardize)];
    let weights =
        Weights { prepare, scale: Scale::Shift, offset: false, estimator: estimator.clone() };
    let activations = Activations { prepare: vec![], estimator, pixel_scale: false };
    let hidden = Method::of("bin-mlp", weights, activations);
    let first = Method { activations: None, ..hidden.clone() };
    let layers = sizes.windows(2).enumerate().map(|(i, pair)| {
        let (name, method) = (format!("layer{}", i + 1), if i > 0 { &hidden } else { &first });
        let dense = BinLinear::new(params, &name, [pair[0], pair[1]], method, rng);
        (dense, BatchNorm::new(params, &format!("bn{}", i + 1), pair[1]))
    });
    BinMlp { layers: layers.collect() }
}

/// See [`bin_mlp`].
pub struct BinMlp {
    layers: Vec<(BinLinear, BatchNorm)>,
}

impl Module for BinMlp {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = x.flatten();
        for (i, (dense, norm)) in self.layers.iter().enumerate() {
            // The sign of a hardtanh is the sign; its slope keeps gradients where they count.
            let input = if i == 0 { x } else { x.hardtanh() };
            x = norm.forward(&dense.forward(&input));
        }
        x
    }
}
