//! What a saved model says of itself, so that its file is all one needs to run it.

use super::{Model, Task};
use crate::binarize::{Method, estimator};
use crate::{Error, Params, Rng, archive};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name under which the card lies in a model's file.
const CARD: &str = "card.json";

/// Architecture, method, classes and preprocessing of a saved model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The version of this crate that wrote it.
    pub version: String,
    /// As in [`Model::arch`].
    pub arch: String,
    /// As in [`Model::method`].
    pub method: String,
    /// Estimators other than the method's own: `E`, or `weights=E activations=E`; empty if none.
    pub estimator: String,
    /// The data set it was trained on.
    pub data: String,
    /// Channels, height and width of an image.
    pub input: [usize; 3],
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Subtracted from each channel of an image whose pixels lie in [0, 1].
    pub mean: Vec<f32>,
    /// Divides each channel then.
    pub std: Vec<f32>,
}

impl Card {
    /// That of a model which has seen no data: its classes are numbers, its images taken as they are.
    pub fn untrained(arch: &str, method: &str, task: &Task) -> Self {
        Card {
            version: env!("CARGO_PKG_VERSION").into(),
            arch: arch.into(),
            method: method.into(),
            estimator: String::new(),
            data: String::new(),
            input: task.input,
            classes: (0..task.classes).map(|i| i.to_string()).collect(),
            mean: vec![0.0; task.input[0]],
            std: vec![1.0; task.input[0]],
        }
    }

    /// A model as described, with fresh parameters drawn from `rng`.
    ///
    /// # Errors
    /// If a name or option is unknown, or the images are too small.
    pub fn build(&self, rng: &mut Rng) -> Result<(Params, Model), Error> {
        self.build_in(Params::new(), rng)
    }

    /// The same with parameters in a table that is empty, but may have numbers to begin with.
    pub(crate) fn build_in(
        &self,
        mut params: Params,
        rng: &mut Rng,
    ) -> Result<(Params, Model), Error> {
        let arch = self.arch.parse()?;
        let method = with_estimators(self.method.parse()?, &self.estimator)?;
        let task = Task { input: self.input, classes: self.classes.len() };
        let model = Model::new(&mut params, &arch, &method, &task, rng)?;
        Ok((params, model))
    }

    /// Writes parameters and card to a file, whole or not at all: `.npz`, where the card is an array of
    /// bytes `card.json`, or `.safetensors`, where it is the entry `card.json` of `__metadata__`.
    ///
    /// # Errors
    /// If the file's name ends otherwise, or it can't be written.
    pub fn save(&self, params: &Params, path: &Path) -> Result<(), Error> {
        let arrays = params.iter().map(|(_, p)| (p.name.as_str(), &p.value));
        archive::save(path, arrays, &[(CARD, &self.to_json())])
    }

    /// The model of such a file, its parameters and its card.
    ///
    /// # Errors
    /// If the file can't be read, has no card, or its parameters are not those of the model.
    pub fn load(path: &Path) -> Result<(Params, Model, Card), Error> {
        let contents = archive::load(path)?;
        let card = contents.texts.get(CARD).ok_or_else(|| {
            let what = "says nothing of its model, expected an entry";
            Error::file(path, format!("{what} {CARD}; it may serve as a start (train --init)"))
        })?;
        let card: Card = serde_json::from_str(card)
            .map_err(|e| Error::file(path, format!("entry {CARD}: {e}")))?;
        let (mut params, model) = card
            .build(&mut Rng::seed(0))
            .map_err(|e| Error::file(path, format!("entry {CARD}: {e}")))?;
        params.assign(contents.arrays, &[]).map_err(|wrong| Error::file(path, wrong))?;
        Ok((params, model, card))
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers")
    }
}

/// A method with its estimators replaced as `E`, or as `weights=E activations=E`, says. Blanks within
/// an estimator are its own.
///
/// # Errors
/// If an estimator is unknown.
pub fn with_estimators(mut method: Method, choice: &str) -> Result<Method, Error> {
    // Blanks stand within expressions too.
    let (mut rest, mut parts) = (choice.trim(), Vec::new());
    while let Some(at) = rest.match_indices(['w', 'a']).map(|(at, _)| at).rfind(|&at| {
        let starts = at == 0 || rest[..at].ends_with(char::is_whitespace);
        starts && ["weights=", "activations="].iter().any(|part| rest[at..].starts_with(part))
    }) {
        parts.push(&rest[at..]);
        rest = rest[..at].trim_end();
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    for part in parts.into_iter().rev() {
        method = match part.split_once('=') {
            Some(("weights", e)) => method.with_weights_estimator(&estimator(e)?),
            Some(("activations", e)) => method.with_activations_estimator(&estimator(e)?),
            _ => method.with_estimator(&estimator(part)?),
        };
    }
    Ok(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            version: "0.1.0".into(),
            arch: "mlp(hidden=8)".into(),
            method: "dir-net".into(),
            estimator: "weights=ste(clip=2) activations=ede".into(),
            data: "digits".into(),
            input: [1, 8, 8],
            classes: (0..10).map(|i| i.to_string()).collect(),
            mean: vec![0.3],
            std: vec![0.4],
        }
    }

    #[test]
    fn a_saved_model_comes_back_with_all_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let (params, _) = card().build(&mut Rng::seed(3)).unwrap();
        for file in ["model.npz", "model.safetensors"] {
            let path = dir.path().join(file);
            card().save(&params, &path).unwrap();
            let (loaded, model, read) = Card::load(&path).unwrap();
            assert_eq!(read, card());
            assert_eq!(model.method.weights.as_ref().unwrap().estimator.name(), "ste(clip=2)");
            for ((_, a), (_, b)) in params.iter().zip(loaded.iter()) {
                assert_eq!((&a.name, &a.value), (&b.name, &b.value));
            }
        }
    }

    #[test]
    fn expressions_may_have_blanks() {
        let typed = "soft = tanh(t * x) / t; t = 0.1..10";
        for (choice, names) in [
            (typed.to_string(), [typed, typed]),
            (format!("weights={typed} activations=ste"), [typed, "ste"]),
            (format!("  activations={typed}  weights=approx-sign "), ["approx-sign", typed]),
            ("weights=ste(clip=2)".to_string(), ["ste(clip=2)", "dte"]),
            (String::new(), ["dte", "dte"]),
        ] {
            let method = with_estimators("dir-net".parse().unwrap(), &choice).unwrap();
            let (weights, activations) = (method.weights.unwrap(), method.activations.unwrap());
            let found = [weights.estimator.name(), activations.estimator.name()];
            assert_eq!(found, names.map(|n| n.replace(' ', "")), "{choice}");
        }
        assert!(with_estimators("dir-net".parse().unwrap(), "ste ede").is_err());
    }

    #[test]
    fn a_file_without_a_card_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.npz");
        card().build(&mut Rng::seed(3)).unwrap().0.save(&path).unwrap();
        let message = Card::load(&path).unwrap_err().to_string();
        assert!(message.contains("says nothing of its model"), "{message}");
    }
}
