//! Methods by name: which weight rule, which estimator, which latent clip go together.

use super::estimator::{Estimator, estimator};
use super::{Scale, WeightRule};
use crate::error::unknown;
use crate::{Error, Spec};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How a network is binarized: a recipe of named parts.
///
/// ```
/// use dirnet::Method;
/// let method: Method = "dir-net(eps=0.2)+1w32a".parse()?;
/// assert!(method.weights.is_some() && method.activations.is_none());
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Method {
    /// As it was chosen.
    pub spec: Spec,
    /// What becomes of the weights; `None` keeps them in float.
    pub weights: Option<WeightRule>,
    /// The estimator behind the sign of the activations; `None` keeps them in float.
    pub activations: Option<Arc<dyn Estimator>>,
    /// Latent weights are clipped to this size after each step.
    pub latent_clip: Option<f32>,
}

/// The methods there are, and what each is made of.
pub static METHODS: &[(&str, &str)] = &[
    ("fp32", "everything in float: the yardstick"),
    (
        "bnn",
        "plain signs, clipped straight-through, latent weights clipped to ±1 (Courbariaux et al., 2016, arXiv 1602.02830)",
    ),
    (
        "ir-net",
        "IMB weights with a power-of-two scale, EDE for weights and activations (Qin et al., 2020, arXiv 1909.10788)",
    ),
    (
        "dir-net",
        "IMB weights with a power-of-two scale, DTE for weights and activations (Qin et al., 2022, arXiv 2109.12338)",
    ),
];

impl FromStr for Method {
    type Err = Error;

    /// Options in brackets go to the method's estimator; `+1w32a` keeps activations in float.
    fn from_str(text: &str) -> Result<Self, Error> {
        let spec: Spec = text.parse()?;
        let named = |name: &str| {
            estimator(&Spec { name: name.into(), plus: vec![], ..spec.clone() }.to_string())
        };
        let plain =
            |e: Arc<dyn Estimator>| WeightRule { balance: false, scale: Scale::None, estimator: e };
        let imb =
            |e: Arc<dyn Estimator>| WeightRule { balance: true, scale: Scale::Shift, estimator: e };
        let (weights, activations, latent_clip) = match spec.name.as_str() {
            "fp32" => {
                crate::spec::Options::of(&spec).finish()?;
                (None, None, None)
            }
            "bnn" => (Some(plain(named("ste")?)), Some(named("ste")?), Some(1.0)),
            "ir-net" => (Some(imb(named("ede")?)), Some(named("ede")?), None),
            "dir-net" => (Some(imb(named("dte")?)), Some(named("dte")?), None),
            other => {
                let names: Vec<_> = METHODS.iter().map(|(name, _)| *name).collect();
                return Err(unknown("method", other, &names));
            }
        };
        let mut method = Method { spec: spec.clone(), weights, activations, latent_clip };
        for plus in &spec.plus {
            match plus.as_str() {
                "1w32a" if method.weights.is_some() => method.activations = None,
                "1w32a" => {
                    return Err(Error::Setting("fp32 has no one-bit weights: +1w32a".into()));
                }
                other => return Err(unknown("addition to a method", other, &["1w32a"])),
            }
        }
        Ok(method)
    }
}

impl Method {
    /// The estimators in use: one name, or one for the weights and one for the activations; empty
    /// where nothing is binarized.
    pub fn estimators(&self) -> String {
        let weights = self.weights.as_ref().map(|rule| rule.estimator.name());
        let activations = self.activations.as_ref().map(|e| e.name());
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
        if let Some(activations) = &mut self.activations {
            *activations = e.clone();
        }
        self
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_made_by_its_name() {
        for (name, _) in METHODS {
            assert_eq!(name.parse::<Method>().unwrap().to_string(), *name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("dirnet", "did you mean \"dir-net\"?"),
            ("dir-net(epz=0.1)", "did you mean \"eps\"?"),
            ("dir-net+2w32a", "did you mean \"1w32a\"?"),
            ("fp32+1w32a", "no one-bit weights"),
            ("fp32(eps=1)", "has no options"),
        ] {
            let message = text.parse::<Method>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
