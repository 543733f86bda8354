//! What a binary student learns from a full-precision teacher, and how much each part counts.

use crate::spec::Options;
use crate::{Error, Spec, Var};
use std::fmt;

/// How much a teacher counts in the loss of its student.
///
/// ```text
/// loss = labels · cross_entropy + features · Σ_blocks rbd + logits · kl_div at the temperature
/// ```
///
/// See [`Var::rbd`] and [`Var::kl_div`]. By default blocks alone are compared, which is RBD
/// (Qin et al., 2022, arXiv 2109.12338). The weight of it, 0.01, is that of a later work of the same
/// first author (BiFSMN, Qin et al., 2022, arXiv 2202.06483); the paper does not give its own.
///
/// ```
/// use dirnet::binarize::Distill;
/// let both = Distill::default().with("logits=1 temperature=4")?;
/// assert_eq!(both.to_string(), "features=0.01 logits=1 labels=1 temperature=4");
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distill {
    /// What the distances of all blocks' outputs count: the `alpha` of RBD.
    pub features: f32,
    /// What the divergence of the logits counts.
    pub logits: f32,
    /// What the loss of the labels counts.
    pub labels: f32,
    /// What both sides' logits are divided by.
    pub temperature: f32,
}

impl Default for Distill {
    fn default() -> Self {
        Distill { features: 0.01, logits: 0.0, labels: 1.0, temperature: 1.0 }
    }
}

impl Distill {
    /// The teacher's logits in the place of labels (ReActNet, Liu et al., 2020, arXiv 2003.03488).
    pub fn by_logits() -> Self {
        Distill { features: 0.0, logits: 1.0, labels: 0.0, temperature: 1.0 }
    }

    /// The same with some of the numbers replaced: `features=0.02 logits=1`.
    ///
    /// # Errors
    /// If a name is unknown, a number is none or out of range, or the teacher counts for nothing.
    pub fn with(self, choice: &str) -> Result<Self, Error> {
        let option = |part: &str| {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::Setting(format!("distill: \"{part}\" has no value, expected key=value"))
            })?;
            Ok((key.to_string(), value.to_string()))
        };
        let options = choice.split_whitespace().map(option).collect::<Result<_, Error>>()?;
        let spec = Spec { name: "distill".into(), options, plus: vec![] };
        let mut options = Options::of(&spec);
        let found = Distill {
            features: options.number("features", self.features, 0.0..=1e6)?,
            logits: options.number("logits", self.logits, 0.0..=1e6)?,
            labels: options.number("labels", self.labels, 0.0..=1e6)?,
            temperature: options.number("temperature", self.temperature, 0.01..=1e3)?,
        };
        options.finish()?;
        if found.features + found.logits == 0.0 {
            return Err(Error::Setting(format!(
                "distill: {found} asks nothing of a teacher, expected features or logits above 0"
            )));
        }
        Ok(found)
    }

    /// Takes `rbd=on|off` and its `alpha=` out of a method's options. `alpha=` alone means on.
    pub(super) fn taken_from(spec: &Spec) -> Result<(Option<Self>, Spec), Error> {
        let ours = |(key, _): &(String, String)| key == "rbd" || key == "alpha";
        let (options, others) = spec.options.iter().cloned().partition(ours);
        let chosen = Spec { options, ..spec.clone() };
        let mut options = Options::of(&chosen);
        let on = chosen.options.iter().any(|(key, _)| key == "alpha");
        let on = options.word("rbd", on, &[("on", true), ("off", false)])?;
        let features = options.number("alpha", Distill::default().features, 0.0..=1e6)?;
        let distill = on.then_some(Distill { features, ..Distill::default() });
        Ok((distill, Spec { options: others, ..spec.clone() }))
    }

    /// A student's loss, given that of its labels, the blocks' outputs of both and the logits of
    /// both. What counts nothing is not computed; `labels` is asked for its loss only if it counts.
    ///
    /// # Panics
    /// If the two have not the same blocks, or nothing counts: no labels, no logits, and no block.
    #[track_caller]
    pub fn loss<'t>(
        &self,
        labels: impl FnOnce() -> Var<'t>,
        blocks: [&[Var<'t>]; 2],
        logits: [&Var<'t>; 2],
    ) -> Var<'t> {
        let mut terms = Vec::new();
        if self.labels > 0.0 {
            terms.push(labels() * self.labels);
        }
        if self.features > 0.0 {
            let [student, teacher] = blocks;
            assert_eq!(student.len(), teacher.len(), "distill: blocks of student and teacher");
            let apart = student.iter().zip(teacher).map(|(x, t)| x.rbd(t));
            terms.extend(apart.reduce(|sum, next| sum + next).map(|sum| sum * self.features));
        }
        if self.logits > 0.0 {
            let [student, teacher] = logits;
            terms.push(student.kl_div(teacher, self.temperature) * self.logits);
        }
        let sum = terms.into_iter().reduce(|sum, next| sum + next);
        sum.expect("distill: nothing counts")
    }
}

impl fmt::Display for Distill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Distill { features, logits, labels, temperature } = self;
        write!(f, "features={features} logits={logits} labels={labels} temperature={temperature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, Params, Rng, Tape, Tensor};

    #[test]
    fn a_method_brings_its_own_and_words_replace_numbers() {
        let of = |text: &str| text.parse::<Method>().map(|method| method.distill);
        assert_eq!(of("dir-net").unwrap(), None);
        assert_eq!(of("dir-net(rbd=off,eps=0.2)").unwrap(), None);
        assert_eq!(of("dir-net(rbd=on,eps=0.2)").unwrap(), Some(Distill::default()));
        assert_eq!(of("dir-net(alpha=0.5)+1w32a").unwrap().unwrap().features, 0.5);
        assert_eq!(of("reactnet").unwrap(), Some(Distill::by_logits()));
        assert_eq!(Distill::default().with("").unwrap(), Distill::default());
        let all = "features=1 logits=2 labels=0.5 temperature=3";
        assert_eq!(Distill::default().with(all).unwrap().to_string(), all);
        for (text, expected) in [
            ("dir-net(rbd=yes)", "known: on, off"),
            ("dir-net(alpha=-1)", "alpha is -1, expected 0 to"),
            ("ir-net(rbd=on)", "no option \"rbd\""),
        ] {
            let message = of(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        for (text, expected) in [
            ("feature=1", "did you mean \"features\"?"),
            ("features", "expected key=value"),
            ("temperature=0", "expected 0.01 to"),
            ("features=0", "asks nothing of a teacher"),
        ] {
            let message = Distill::default().with(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn each_part_counts_as_much_as_it_is_said_to() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let mut rng = Rng::seed(8);
        let mut values = |shape: &[usize]| tape.constant(Tensor::randn(shape, 1.0, &mut rng));
        let [x, t] = [values(&[4, 3]), values(&[4, 3])];
        let blocks = [values(&[4, 2, 5]), values(&[4, 2, 5]), values(&[4, 7]), values(&[4, 7])];
        let [a, b, c, d] = &blocks;
        let none = Distill { features: 0.0, labels: 0.0, ..Distill::default() };
        let of = |distill: Distill| {
            let (student, teacher) = ([a.clone(), c.clone()], [b.clone(), d.clone()]);
            let labels = || x.cross_entropy(&[0, 2, 1, 1]);
            distill.loss(labels, [&student, &teacher], [&x, &t]).value().item()
        };
        let labels = of(Distill { labels: 1.0, ..none });
        assert_eq!(labels, x.cross_entropy(&[0, 2, 1, 1]).value().item());
        let features = of(Distill { features: 1.0, ..none });
        assert_eq!(features, a.rbd(b).value().item() + c.rbd(d).value().item());
        let logits = of(Distill { logits: 1.0, temperature: 2.0, ..none });
        assert_eq!(logits, x.kl_div(&t, 2.0).value().item());
        let all = of(Distill { features: 2.0, logits: 3.0, labels: 0.5, temperature: 2.0 });
        assert!((all - (0.5 * labels + 2.0 * features + 3.0 * logits)).abs() < 1e-5);
    }
}
