//! A method: a recipe of parts for the weights, the activations, and what stands between layers.

use super::distill::Distill;
use super::estimator::{Estimator, estimator};
use super::layer::{Activations, Weights};
use super::methods::METHODS;
use super::recipe;
use crate::error::unknown;
use crate::spec::Options;
use crate::{Error, Spec};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How a network is binarized.
///
/// ```
/// use dirnet::Method;
/// let method: Method = "dir-net(eps=0.2)+1w32a".parse()?;
/// assert!(method.weights.is_some() && method.activations.is_none());
/// # Ok::<(), dirnet::Error>(())
/// ```
///
/// One of one's own is the same put together by hand; see [`Method::of`].
#[derive(Clone, Debug)]
pub struct Method {
    /// As it was chosen: its name, its options, what was added.
    pub spec: Spec,
    /// What a recipe that was written down says, as an inline TOML table; `None` for a published
    /// method and one put together in code.
    pub recipe: Option<String>,
    /// What becomes of the weights; `None` keeps them in float.
    pub weights: Option<Weights>,
    /// What becomes of the activations; `None` keeps them in float.
    pub activations: Option<Activations>,
    /// Whether the output of a convolution is multiplied by a learned number for each channel, row
    /// and column: their outer product (XNOR-Net++, Bulat and Tzimiropoulos, 2019, arXiv 1909.13863).
    pub outer_gain: bool,
    /// What stands between layers where activations are signs.
    pub between: Between,
    /// Latent weights are clipped to this size after each step.
    pub latent_clip: Option<f32>,
    /// What it learns from a full-precision teacher, if it has one by default.
    pub distill: Option<Distill>,
}

/// What stands between layers, before a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// `clamp(x, -1, 1)`
    Hardtanh,
    /// `prelu(x - g) + z`, with `g`, `z` and the slope below learned for each channel (ReActNet, Liu
    /// et al., 2020, arXiv 2003.03488).
    Rprelu,
    /// `p · max(x, 0) + q · min(x, 0)`, with `p` and `q` learned for each channel (AdaBin, Tu et al.,
    /// 2022, arXiv 2208.08084).
    Maxout,
}

impl Between {
    /// All of them, by name.
    pub const ALL: &[(&str, Between)] = &[
        ("hardtanh", Between::Hardtanh),
        ("rprelu", Between::Rprelu),
        ("maxout", Between::Maxout),
    ];
}

impl Method {
    /// A method of these weights and activations, with nothing beside.
    ///
    /// ```
    /// use dirnet::{Method, binarize::{Activations, Scale, Standardize, Weights, estimator}};
    /// use std::sync::Arc;
    /// let ste = estimator("ste")?;
    /// let method = Method::of("mine", Weights {
    ///     prepare: vec![Arc::new(Standardize)],
    ///     scale: Scale::MeanAbsThrough,
    ///     offset: false,
    ///     estimator: ste.clone(),
    /// }, Activations { prepare: vec![], estimator: ste, pixel_scale: false });
    /// assert_eq!(method.to_string(), "mine");
    /// # Ok::<(), dirnet::Error>(())
    /// ```
    pub fn of(name: &str, weights: Weights, activations: Activations) -> Self {
        let (weights, activations) = (Some(weights), Some(activations));
        Method { weights, activations, ..Method::float(name) }
    }

    /// All in float.
    pub(super) fn float(name: &str) -> Self {
        Method {
            spec: Spec { name: name.into(), options: vec![], plus: vec![] },
            recipe: None,
            weights: None,
            activations: None,
            outer_gain: false,
            between: Between::Hardtanh,
            latent_clip: None,
            distill: None,
        }
    }

    /// Whether nothing is binarized.
    pub fn is_float(&self) -> bool {
        self.weights.is_none() && self.activations.is_none()
    }

    /// The estimators in use: one name, or one for the weights and one for the activations; empty
    /// where nothing is binarized.
    pub fn estimators(&self) -> String {
        let weights = self.weights.as_ref().map(|rule| rule.estimator.name());
        let activations = self.activations.as_ref().map(|rule| rule.estimator.name());
        match (weights, activations) {
            (Some(w), Some(a)) if w != a => format!("weights={w} activations={a}"),
            (Some(e), _) | (None, Some(e)) => e.to_string(),
            (None, None) => String::new(),
        }
    }
    /// The same with another estimator for weights and activations, where they are binarized.
    pub fn with_estimator(self, e: &Arc<dyn Estimator>) -> Self {
        self.with_weights_estimator(e).with_activations_estimator(e)
    }
    /// The same with another estimator for the weights, where they are binarized.
    pub fn with_weights_estimator(mut self, e: &Arc<dyn Estimator>) -> Self {
        if let Some(rule) = &mut self.weights {
            rule.estimator = e.clone();
        }
        self
    }
    /// The same with another estimator for the activations, where they are binarized.
    pub fn with_activations_estimator(mut self, e: &Arc<dyn Estimator>) -> Self {
        if let Some(rule) = &mut self.activations {
            rule.estimator = e.clone();
        }
        self
    }
}

/// The options behind a method's name, handed out to its parts.
#[derive(Debug)]
pub struct Choice<'a> {
    pub(super) spec: &'a Spec,
}

impl Choice<'_> {
    /// An estimator that gets the options, all but `variant`.
    pub(super) fn estimator(&self, name: &str) -> Result<Arc<dyn Estimator>, Error> {
        let own = |(key, _): &&(String, String)| key != "variant";
        let options = self.spec.options.iter().filter(own).cloned().collect();
        estimator(&Spec { name: name.into(), options, plus: vec![] }.to_string())
    }

    /// The same with options of the method's own before those that were given.
    pub(super) fn estimator_with(
        &self,
        name: &str,
        own: &[(&str, &str)],
    ) -> Result<Arc<dyn Estimator>, Error> {
        let own = own.iter().map(|&(key, value)| (key.to_string(), value.to_string()));
        let options = own.chain(self.spec.options.iter().cloned()).collect();
        estimator(&Spec { name: name.into(), options, plus: vec![] }.to_string())
    }

    /// An estimator as it is by default, for whoever gets no options.
    pub(super) fn fixed(&self, name: &str) -> Result<Arc<dyn Estimator>, Error> {
        estimator(name)
    }

    /// Refuses all options.
    pub(super) fn none(&self) -> Result<(), Error> {
        Options::of(self.spec).finish()
    }

    /// Whether `variant=code` is chosen, of `paper` (the default) and `code`.
    pub(super) fn as_in_code(&self) -> Result<bool, Error> {
        Options::of(self.spec).word("variant", false, &[("paper", false), ("code", true)])
    }
}

impl FromStr for Method {
    type Err = Error;

    /// A published method, `NAME` or `NAME(key=value, …)`: options go to its estimator, `variant=` to
    /// the method. Or a recipe, as in [`recipe`](super::recipe): a path that ends in `.toml`, or
    /// `NAME{…}` with the recipe itself, which is how a method made of a file is printed.
    ///
    /// Behind either, `+1w32a` keeps activations in float, and `+32w1a` the weights.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut method = match recipe::parse(text)? {
            Some(method) => method,
            None => published(text.parse()?)?,
        };
        for plus in method.spec.plus.clone() {
            let lacking = match plus.as_str() {
                "1w32a" => {
                    method.activations = None;
                    method.weights.is_none().then_some("weights")
                }
                "32w1a" => {
                    method.weights = None;
                    method.activations.is_none().then_some("activations")
                }
                other => return Err(unknown("addition to a method", other, &["1w32a", "32w1a"])),
            };
            if let Some(what) = lacking {
                let name = &method.spec.name;
                return Err(Error::Setting(format!("{name} has no one-bit {what}: +{plus}")));
            }
        }
        Ok(method)
    }
}

fn published(spec: Spec) -> Result<Method, Error> {
    let Some(entry) = METHODS.iter().find(|entry| entry.name == spec.name) else {
        let names: Vec<_> = METHODS.iter().map(|entry| entry.name).collect();
        return Err(unknown("method", &spec.name, &names));
    };
    if !entry.variants && spec.options.iter().any(|(key, _)| key == "variant") {
        return Err(Error::Setting(format!("{} has no variants", spec.name)));
    }
    Ok(Method { spec: spec.clone(), ..(entry.make)(&Choice { spec: &spec })? })
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(recipe) = &self.recipe else { return self.spec.fmt(f) };
        write!(f, "{}{recipe}", self.spec.name)?;
        self.spec.plus.iter().try_for_each(|plus| write!(f, "+{plus}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_made_by_its_name() {
        for entry in METHODS {
            assert_eq!(entry.name.parse::<Method>().unwrap().to_string(), entry.name);
            let variant = format!("{}(variant=code)", entry.name).parse::<Method>();
            assert_eq!(variant.is_ok(), entry.variants, "{}", entry.name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("dirnet", "did you mean \"dir-net\"?"),
            ("dir-net(epz=0.1)", "did you mean \"eps\"?"),
            ("dir-net+2w32a", "did you mean \"1w32a\"?"),
            ("fp32+1w32a", "no one-bit weights"),
            ("fp32+32w1a", "no one-bit activations"),
            ("bnn+32w1a+1w32a", "no one-bit weights"),
            ("fda(part=weights)", "has no option \"part\""),
            ("fp32(eps=1)", "has no options"),
            ("dorefa(variant=codes)", "did you mean \"code\"?"),
            ("ir-net(variant=code)", "has no variants"),
        ] {
            let message = text.parse::<Method>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
