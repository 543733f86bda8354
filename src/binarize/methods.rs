//! The published methods, each as a recipe of parts. To add one, add its entry to [`METHODS`].

use super::distill::Distill;
use super::layer::{Activations, Weights};
use super::method::{Between, Choice, Method};
use super::part::{
    Adapt, Normalize, Part, Rectify, Shift, SignAndMean, Spread, Standardize, Threshold,
};
use super::{Estimator, Noise, Rotate, Scale};
use crate::Error;
use std::sync::Arc;

/// A method by name.
#[derive(Debug)]
pub struct MethodEntry {
    /// As it is chosen.
    pub name: &'static str,
    /// What it is made of, and where it comes from.
    pub about: &'static str,
    /// Whether `variant=code` says otherwise than `variant=paper`.
    pub variants: bool,
    /// Makes it of parts.
    pub(super) make: fn(&Choice<'_>) -> Result<Method, Error>,
}

type Curve = Arc<dyn Estimator>;

fn weights(prepare: Vec<Arc<dyn Part>>, scale: Scale, estimator: Curve) -> Weights {
    Weights { prepare, scale, offset: false, estimator }
}

fn activations(prepare: Vec<Arc<dyn Part>>, estimator: Curve) -> Activations {
    Activations { prepare, estimator, pixel_scale: false }
}

/// The methods there are. What `variant=code` changes is said where there is something to choose.
pub static METHODS: &[MethodEntry] = &[
    MethodEntry {
        name: "fp32",
        about: "everything in float: the yardstick",
        variants: false,
        make: |choice| choice.none().map(|()| Method::float("fp32")),
    },
    MethodEntry {
        name: "bnn",
        about: "plain signs, clipped straight-through, latent weights clipped to ±1 (Courbariaux et al., 2016, arXiv 1602.02830)",
        variants: false,
        make: |choice| {
            let ste = choice.estimator("ste")?;
            let bits =
                Method::of("", weights(vec![], Scale::None, ste.clone()), activations(vec![], ste));
            Ok(Method { latent_clip: Some(1.0), ..bits })
        },
    },
    MethodEntry {
        name: "xnor-net",
        about: "a mean-abs scale a filter with the paper's gradient, inputs scaled by the mean under the filter (Rastegari et al., 2016, arXiv 1603.05279); variant=code: a constant scale, inputs unscaled, as in later code",
        variants: true,
        make: |choice| {
            let ste = choice.estimator("ste")?;
            Ok(match choice.as_in_code()? {
                true => Method::of(
                    "",
                    weights(vec![], Scale::MeanAbs, ste.clone()),
                    activations(vec![], ste),
                ),
                false => Method::of(
                    "",
                    weights(vec![Arc::new(SignAndMean)], Scale::MeanAbs, choice.fixed("identity")?),
                    Activations { pixel_scale: true, ..activations(vec![], ste) },
                ),
            })
        },
    },
    MethodEntry {
        name: "xnor-net++",
        about: "a learned factor a channel, row and column of each output (Bulat and Tzimiropoulos, 2019, arXiv 1909.13863)",
        variants: false,
        make: |choice| {
            let ste = choice.estimator("ste")?;
            let bits =
                Method::of("", weights(vec![], Scale::None, ste.clone()), activations(vec![], ste));
            Ok(Method { outer_gain: true, ..bits })
        },
    },
    MethodEntry {
        name: "dorefa",
        about: "one mean-abs scale a layer, gradients straight through, activations 0 or 1 (Zhou et al., 2016, arXiv 1606.06160); variant=code: a scale a filter, clipped straight-through, as in later code",
        variants: true,
        make: |choice| {
            let (scale, curve) = match choice.as_in_code()? {
                true => (Scale::MeanAbs, "ste"),
                false => (Scale::LayerMean, "identity"),
            };
            Ok(Method::of(
                "",
                weights(vec![], scale, choice.fixed(curve)?),
                activations(vec![Arc::new(Threshold)], choice.estimator("ste")?),
            ))
        },
    },
    MethodEntry {
        name: "bi-real",
        about: "a constant mean-abs scale, two parabolas for activations; wants shortcut=bireal (Liu et al., 2018, arXiv 1808.00278)",
        variants: false,
        make: |choice| {
            Ok(Method::of(
                "",
                weights(vec![], Scale::MeanAbs, choice.fixed("ste")?),
                activations(vec![], choice.estimator("approx-sign")?),
            ))
        },
    },
    MethodEntry {
        name: "ir-net",
        about: "IMB weights with a power-of-two scale, EDE for weights and activations (Qin et al., 2020, arXiv 1909.10788)",
        variants: false,
        make: |choice| Ok(imb(choice.estimator("ede")?)),
    },
    MethodEntry {
        name: "rbnn",
        about: "standardised weights turned by two rotations, refitted each epoch, a learned scale a channel, standardised activations, parabolas that steepen; as in the published code for CIFAR-10 (Lin et al., 2020, arXiv 2009.13055)",
        variants: false,
        make: |choice| {
            let prepare: Vec<Arc<dyn Part>> = vec![Arc::new(Standardize), Arc::new(Rotate)];
            let of_weights = choice.estimator_with("rbnn", &[])?;
            let of_activations = choice.estimator_with("rbnn", &[("part", "activations")])?;
            Ok(Method::of(
                "",
                weights(prepare, Scale::Learned, of_weights),
                activations(vec![Arc::new(Standardize)], of_activations),
            ))
        },
    },
    MethodEntry {
        name: "reactnet",
        about: "a constant mean-abs scale, learned steps for activations, a shifted PReLU between layers, a teacher's logits for labels (Liu et al., 2020, arXiv 2003.03488)",
        variants: false,
        make: |choice| {
            let bits = Method::of(
                "",
                weights(vec![], Scale::MeanAbs, choice.fixed("ste")?),
                activations(vec![Arc::new(Shift)], choice.estimator("approx-sign")?),
            );
            Ok(Method { between: Between::Rprelu, distill: Some(Distill::by_logits()), ..bits })
        },
    },
    MethodEntry {
        name: "recu",
        about: "standardised and clamped weights, gradients straight through, a learned scale a channel, activations divided by their spread in training (Xu et al., 2021, arXiv 2103.12369)",
        variants: false,
        make: |choice| {
            let prepare: Vec<Arc<dyn Part>> =
                vec![Arc::new(Standardize), Arc::new(Rectify::default())];
            Ok(Method::of(
                "",
                weights(prepare, Scale::Learned, choice.fixed("identity")?),
                activations(vec![Arc::new(Spread)], choice.estimator("approx-sign")?),
            ))
        },
    },
    MethodEntry {
        name: "reste",
        about: "a mean-abs scale for the layer with its gradient, as in the published code, a power of |x| for weights and activations (Wu et al., 2023, arXiv 2308.06689)",
        variants: false,
        make: |choice| {
            let curve = choice.estimator("reste")?;
            let of_weights = weights(vec![], Scale::LayerMeanThrough, curve.clone());
            Ok(Method::of("", of_weights, activations(vec![], curve)))
        },
    },
    MethodEntry {
        name: "fda",
        about: "a constant mean-abs scale, a Fourier sum for weights and activations, learned noise that fades in training, as in BiBench (Xu et al., 2021, arXiv 2103.00841)",
        variants: false,
        make: |choice| {
            let curve = choice.estimator("fda")?;
            let noise = |of_weights| -> Vec<Arc<dyn Part>> { vec![Arc::new(Noise { of_weights })] };
            let of_weights = weights(noise(true), Scale::MeanAbs, curve.clone());
            Ok(Method::of("", of_weights, activations(noise(false), curve)))
        },
    },
    MethodEntry {
        name: "adabin",
        about: "two levels a filter by mean and deviation with EDE, two learned levels a layer for activations, a learned maxout between layers (Tu et al., 2022, arXiv 2208.08084); variant=code: levels alpha · (sign + beta)",
        variants: true,
        make: |choice| {
            let adapt = Adapt { factored: choice.as_in_code()? };
            let of_weights =
                weights(vec![Arc::new(Normalize)], Scale::Std, choice.estimator("ede")?);
            let bits = Method::of(
                "",
                Weights { offset: true, ..of_weights },
                activations(vec![Arc::new(adapt)], choice.fixed("approx-sign")?),
            );
            Ok(Method { between: Between::Maxout, ..bits })
        },
    },
    MethodEntry {
        name: "dir-net",
        about: "IMB weights with a power-of-two scale, DTE for weights and activations; rbd=on, alpha=0.01: blocks' outputs near a teacher's (Qin et al., 2022, arXiv 2109.12338)",
        variants: false,
        make: |choice| {
            let (distill, spec) = Distill::taken_from(choice.spec)?;
            Ok(Method { distill, ..imb(Choice { spec: &spec }.estimator("dte")?) })
        },
    },
];

fn imb(curve: Curve) -> Method {
    let of_weights = weights(vec![Arc::new(Standardize)], Scale::Shift, curve.clone());
    Method::of("", of_weights, activations(vec![], curve))
}
