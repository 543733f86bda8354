//! Which runs a comparison is made of, and what it comes to.

use super::paired::{Paired, mean, std};
use super::results::Line;
use crate::train::Config;
use crate::{Error, Method};
use serde::Serialize;

/// The steps from plain signs to DIR-Net: what `dirnet lab ablate` trains, each beside the one before.
///
/// | name | weights before the sign | estimator | teacher |
/// | --- | --- | --- | --- |
/// | `plain` | as they are | `ste`, clipped at 1 | |
/// | `+imb` | `standardize` | `ste`, clipped at 1 | |
/// | `+dte` | `standardize` | `dte` | |
/// | `+rbd` | `standardize` | `dte` | blocks' outputs, weight 0.01 |
///
/// All four take the same scale a filter, `shift`, which is `2^round(log2(mean |y|))` of what the signs
/// are taken of; so plain signs are not held back by their size, and IMB adds balance and
/// standardisation alone. The estimator stands behind weights and activations alike, activations are
/// used as they are, and a hardtanh stands between layers. `+dte` is `dir-net`, `+rbd` is
/// `dir-net(rbd=on)`.
pub const VARIANTS: &[(&str, &str)] = &[
    (
        "plain",
        "plain{ weights = { scale = \"shift\", estimator = \"ste\" }, activations = { estimator = \"ste\" } }",
    ),
    (
        "+imb",
        "imb{ weights = { parts = [\"standardize\"], scale = \"shift\", estimator = \"ste\" }, activations = { estimator = \"ste\" } }",
    ),
    ("+dte", "dir-net"),
    ("+rbd", "dir-net(rbd=on)"),
];

/// A method that is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As the tables call it.
    pub name: String,
    /// Its recipe; the seed is to be set.
    recipe: Config,
}

impl Entry {
    /// Its run with this seed.
    pub fn run(&self, seed: u64) -> Config {
        Config { seed, ..self.recipe.clone() }
    }
}

/// Methods, each to be trained with each seed: the same data, architecture and optimiser, the same
/// first weights where they have the same parameters, the same batches in the same order.
///
/// ```
/// use dirnet::{lab::Contest, train::Config};
/// let methods = ["fp32", "bnn"].map(|m| (m.to_string(), m.to_string()));
/// let contest = Contest::new(&Config::default(), methods, vec![0, 1, 2], None)?;
/// assert_eq!(contest.entries.len(), 2);
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Contest {
    /// What is compared.
    pub entries: Vec<Entry>,
    /// The seeds of each.
    pub seeds: Vec<u64>,
    /// The place of the one that the others are held against.
    pub baseline: usize,
}

/// What a method came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// As the tables call it.
    pub name: String,
    /// Runs of it.
    pub runs: usize,
    /// Mean test accuracy over the seeds.
    pub test_accuracy: f64,
    /// Its standard deviation; `None` for one seed.
    pub std: Option<f64>,
    /// The method it is held against.
    pub baseline: String,
    /// Mean difference in test accuracy to the baseline, over the seeds.
    pub difference: f64,
    /// The 95 % interval of that difference; `None` for one seed.
    pub interval: Option<[f64; 2]>,
    /// Mean time of a step, in milliseconds.
    pub ms_per_step: f64,
}

impl Contest {
    /// Of methods, by name and recipe, that share everything else. The first is the baseline unless
    /// another one is named.
    ///
    /// A full-precision method learns from labels alone, whatever the others learn from: it is the
    /// teacher of those that want one.
    ///
    /// # Errors
    /// If a method is unknown, a name or a seed stands twice, the baseline is not among the methods,
    /// or a setting is out of range.
    pub fn new(
        shared: &Config,
        methods: impl IntoIterator<Item = (String, String)>,
        seeds: Vec<u64>,
        baseline: Option<&str>,
    ) -> Result<Self, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        for (name, method) in methods {
            let method: Method = method.parse()?;
            let recipe = Config { method: method.to_string(), ..shared.clone() };
            let recipe = if method.is_float() { recipe.of_teacher() } else { recipe };
            recipe.check()?;
            if entries.iter().any(|e| e.name == name || e.recipe == recipe) {
                return Err(Error::Setting(format!("the method {name} stands twice")));
            }
            entries.push(Entry { name, recipe });
        }
        if let Some(seed) = (1..seeds.len()).find(|&i| seeds[..i].contains(&seeds[i])) {
            return Err(Error::Setting(format!("the seed {} stands twice", seeds[seed])));
        }
        if entries.is_empty() || seeds.is_empty() {
            return Err(Error::Setting("no method or no seed, expected at least one".into()));
        }
        let at = baseline.map_or(Some(0), |name| entries.iter().position(|e| e.name == name));
        let baseline = at.ok_or_else(|| {
            let names: Vec<_> = entries.iter().map(|e| e.name.as_str()).collect();
            crate::error::unknown("baseline", baseline.unwrap_or_default(), &names)
        })?;
        Ok(Contest { entries, seeds, baseline })
    }

    /// Every run, with the place of its method: seed by seed, so that what stands there first can be
    /// compared already.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Config)> {
        let of = |&seed| self.entries.iter().enumerate().map(move |(i, e)| (i, e.run(seed)));
        self.seeds.iter().flat_map(of)
    }

    /// What each method came to, given its lines in the order of the seeds.
    ///
    /// # Panics
    /// If a line is missing.
    #[track_caller]
    pub fn summary(&self, lines: &[Vec<Line>]) -> Vec<Summary> {
        assert_eq!(lines.len(), self.entries.len(), "summary: a list of lines for each method");
        let accuracies: Vec<Vec<f64>> =
            lines.iter().map(|l| l.iter().map(|l| l.test_accuracy).collect()).collect();
        let against = &accuracies[self.baseline];
        let each = self.entries.iter().zip(lines).zip(&accuracies);
        each.map(|((entry, lines), accuracy)| {
            let Paired { difference, interval } = Paired::of(accuracy, against);
            Summary {
                name: entry.name.clone(),
                runs: lines.len(),
                test_accuracy: mean(accuracy),
                std: std(accuracy),
                baseline: self.entries[self.baseline].name.clone(),
                difference,
                interval,
                ms_per_step: mean(&lines.iter().map(|l| l.ms_per_step).collect::<Vec<_>>()),
            }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::{Distill, Scale};

    fn contest(methods: &[&str], seeds: &[u64], baseline: Option<&str>) -> Result<Contest, Error> {
        let shared = Config { estimator: "ede".into(), ..Config::default() };
        let methods = methods.iter().map(|m| (m.to_string(), m.to_string()));
        Contest::new(&shared, methods, seeds.to_vec(), baseline)
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        for (methods, seeds, baseline, expected) in [
            (&["bnn", "bnn"][..], &[0][..], None, "the method bnn stands twice"),
            (&["bnn"], &[0, 1, 0], None, "the seed 0 stands twice"),
            (&["bnn", "ir-net"], &[0], Some("irnet"), "did you mean \"ir-net\"?"),
            (&["bnnn"], &[0], None, "did you mean \"bnn\"?"),
            (&[], &[0], None, "expected at least one"),
        ] {
            let message = contest(methods, seeds, baseline).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_teacher_is_the_run_of_fp32() {
        let contest = contest(&["dir-net(rbd=on)", "fp32"], &[4, 5], None).unwrap();
        let runs: Vec<_> = contest.runs().map(|(i, config)| (i, config.seed)).collect();
        assert_eq!(runs, [(0, 4), (1, 4), (0, 5), (1, 5)]);
        let [student, teacher] = [0, 1].map(|i| contest.entries[i].run(5));
        assert_eq!(student.of_teacher(), teacher);
    }

    /// Each variant has what the one before has, and one part more.
    #[test]
    fn variants_add_one_part_each() {
        let of = |i: usize| VARIANTS[i].1.parse::<Method>().unwrap();
        let parts = |m: &Method| {
            let (w, a) = (m.weights.clone().unwrap(), m.activations.clone().unwrap());
            assert_eq!((w.scale, w.offset, a.prepare.len()), (Scale::Shift, false, 0), "{m}");
            let (prepare, estimator) = (format!("{:?}", w.prepare), m.estimators());
            (prepare, estimator, m.distill, m.between, m.latent_clip)
        };
        let [plain, imb, dte, rbd] = [0, 1, 2, 3].map(|i| parts(&of(i)));
        let (straight, dte_name) = ("ste".to_string(), "dte".to_string());
        assert_eq!((plain.0.as_str(), &plain.1, plain.2), ("[]", &straight, None));
        assert_eq!((imb.0.as_str(), &imb.1, imb.2), ("[Standardize]", &straight, None));
        assert_eq!((&dte.0, &dte.1, dte.2), (&imb.0, &dte_name, None));
        assert_eq!((&rbd.0, &rbd.1, rbd.2), (&dte.0, &dte_name, Some(Distill::default())));
        assert!([&imb, &dte, &rbd].iter().all(|v| (v.3, v.4) == (plain.3, plain.4)));
    }
}
