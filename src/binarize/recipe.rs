//! Methods written down: a TOML file that names parts.
//!
//! `--method mine.toml` takes such a file, and everything that is said of a run or a model afterwards
//! has the recipe in it, so the file itself is not needed again.
//!
//! ```toml
//! name = "mine"                # else the name of the file
//! between = "hardtanh"         # hardtanh (the default), rprelu, maxout
//! latent_clip = 1.0            # clip latent weights to this size after each step; else not
//! gain = false                 # a learned number for each output channel, row and column
//!
//! [weights]                    # without it, weights stay float
//! parts = ["standardize"]      # what happens before the sign, in order; none by default
//! scale = "shift"              # what multiplies the signs; none by default
//! offset = false               # whether the mean of a filter is added to its two levels
//! estimator = "dte(eps=0.1)"
//!
//! [activations]                # without it, activations stay float
//! parts = []
//! estimator = "dte(eps=0.1)"
//! pixel_scale = false          # the output times the mean of |x| under the filter
//! ```
//!
//! Parts are in [`PARTS`], scales in [`Scale::ALL`], estimators in [`estimator::all`]; a part of one's
//! own, in Rust, goes with a method put together in code, [`Method::of`].

use super::estimator::{self, Estimator};
use super::layer::{Activations, Weights};
use super::method::{Between, Method};
use super::part::{
    Adapt, Centre, Normalize, Part, Rectify, Shift, SignAndMean, Spread, Standardize, Threshold,
};
use super::{Noise, Progressive, Rotate, Scale, Stochastic};
use crate::error::unknown;
use crate::spec::Options;
use crate::{Error, Spec, files};
use std::path::Path;
use std::sync::Arc;
use toml::{Table, Value};

/// A built-in part.
#[derive(Debug)]
pub struct PartEntry {
    /// As a recipe names it.
    pub name: &'static str,
    /// Makes it for weights, if they can have it.
    weights: Option<Make>,
    /// Makes it for activations, if they can have it.
    activations: Option<Make>,
}

type Make = fn(&mut Options<'_>) -> Result<Arc<dyn Part>, Error>;

/// All built-in parts. Options have `rectify`, `from=0.85` and `to=0.99`, and `progressive`, `alpha=4` and
/// `beta=10`.
pub static PARTS: &[PartEntry] = &[
    both("standardize", |_| Ok(Arc::new(Standardize))),
    both("normalize", |_| Ok(Arc::new(Normalize))),
    both("centre", |_| Ok(Arc::new(Centre))),
    of_weights("rectify", |options| {
        let Rectify { from, to } = Rectify::default();
        Ok(Arc::new(Rectify {
            from: options.number("from", from, 0.5..=0.999)?,
            to: options.number("to", to, 0.5..=0.999)?,
        }))
    }),
    of_weights("rotate", |_| Ok(Arc::new(Rotate))),
    of_weights("sign-and-mean", |_| Ok(Arc::new(SignAndMean))),
    PartEntry {
        name: "noise",
        weights: Some(|_| Ok(Arc::new(Noise { of_weights: true }))),
        activations: Some(|_| Ok(Arc::new(Noise { of_weights: false }))),
    },
    PartEntry {
        name: "stochastic",
        weights: Some(|_| Ok(Arc::new(Stochastic { of_weights: true }))),
        activations: Some(|_| Ok(Arc::new(Stochastic { of_weights: false }))),
    },
    both("progressive", |options| {
        let Progressive { alpha, beta } = Progressive::default();
        Ok(Arc::new(Progressive {
            alpha: options.number("alpha", alpha, 1.0..=100.0)?,
            beta: options.number("beta", beta, 0.0..=100.0)?,
        }))
    }),
    of_activations("shift", |_| Ok(Arc::new(Shift))),
    of_activations("spread", |_| Ok(Arc::new(Spread))),
    of_activations("threshold", |_| Ok(Arc::new(Threshold))),
    of_activations("adapt", |_| Ok(Arc::new(Adapt { factored: false }))),
    of_activations("adapt-factored", |_| Ok(Arc::new(Adapt { factored: true }))),
];

const fn both(name: &'static str, make: Make) -> PartEntry {
    PartEntry { name, weights: Some(make), activations: Some(make) }
}
const fn of_weights(name: &'static str, make: Make) -> PartEntry {
    PartEntry { name, weights: Some(make), activations: None }
}
const fn of_activations(name: &'static str, make: Make) -> PartEntry {
    PartEntry { name, weights: None, activations: Some(make) }
}

/// The method of a file.
///
/// # Errors
/// If it can't be read, or says something unknown: the file and the key are named.
pub fn read(path: &Path) -> Result<Method, Error> {
    let text = files::read_text(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let table = text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        Error::file(path, format!("line {line}: {}", e.message()))
    })?;
    method(&name, table).map_err(|e| Error::file(path, e.to_string()))
}

/// The method of `FILE.toml` or `NAME{…}`, its additions noted but not yet heeded; `None` if the text
/// is neither.
pub(super) fn parse(text: &str) -> Result<Option<Method>, Error> {
    let text = text.trim();
    let (found, rest) = if let (Some(start), Some(end)) = (text.find('{'), text.rfind('}')) {
        let broken = |why: &str| Error::Setting(format!("method \"{text}\": {why}"));
        let inside = text.get(start..=end).ok_or_else(|| broken("the brace is not closed"))?;
        let table = format!("recipe = {inside}").parse::<Table>();
        let Ok(Some(Value::Table(recipe))) = table.map(|mut table| table.remove("recipe")) else {
            return Err(broken("expected NAME{ key = value, … }, an inline TOML table"));
        };
        (method(text[..start].trim(), recipe)?, &text[end + 1..])
    } else {
        match text.rfind(".toml").map(|at| text.split_at(at + ".toml".len())) {
            Some((path, rest)) if rest.is_empty() || rest.starts_with('+') => {
                (read(Path::new(path))?, rest)
            }
            _ => return Ok(None),
        }
    };
    let mut found = found;
    let plus = rest.split('+').map(str::trim).filter(|p| !p.is_empty());
    found.spec.plus = plus.map(String::from).collect();
    Ok(Some(found))
}

/// The method of a table; `name` is its name unless the table says another.
pub(crate) fn method(name: &str, mut table: Table) -> Result<Method, Error> {
    let name = match table.remove("name") {
        None => name.to_string(),
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong("name", &other, "a text")),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "-_. ".contains(c)) {
        let message = format!("name is \"{name}\", expected letters, digits, -, _ and .");
        return Err(Error::Setting(message));
    }
    let text = Value::Table(table.clone()).to_string();
    let mut keys = Keys { at: "", table, asked: vec!["name"] };
    let (weights, activations) = (keys.table("weights")?, keys.table("activations")?);
    if weights.is_none() && activations.is_none() {
        let message = "neither \"weights\" nor \"activations\": nothing is binarized";
        return Err(Error::Setting(message.into()));
    }
    let between = keys.word("between", Between::Hardtanh, Between::ALL)?;
    let latent_clip = keys.number("latent_clip")?;
    let outer_gain = keys.flag("gain")?;
    keys.finish()?;
    Ok(Method {
        recipe: Some(text),
        weights: weights.map(weights_of).transpose()?,
        activations: activations.map(activations_of).transpose()?,
        outer_gain,
        between,
        latent_clip,
        ..Method::float(&name)
    })
}

fn weights_of(mut keys: Keys) -> Result<Weights, Error> {
    let recipe = Weights {
        prepare: keys.parts(|entry| entry.weights)?,
        scale: keys.word("scale", Scale::None, Scale::ALL)?,
        offset: keys.flag("offset")?,
        estimator: keys.estimator()?,
    };
    keys.finish().map(|()| recipe)
}

fn activations_of(mut keys: Keys) -> Result<Activations, Error> {
    let recipe = Activations {
        prepare: keys.parts(|entry| entry.activations)?,
        estimator: keys.estimator()?,
        pixel_scale: keys.flag("pixel_scale")?,
    };
    keys.finish().map(|()| recipe)
}

fn wrong(key: &str, found: &Value, expected: &str) -> Error {
    Error::Setting(format!("{key} is {found}, expected {expected}"))
}

/// A table that is asked key by key; what nobody asked for is refused at the end.
struct Keys {
    /// The table's own key.
    at: &'static str,
    table: Table,
    asked: Vec<&'static str>,
}

impl Keys {
    fn take(&mut self, key: &'static str) -> (String, Option<Value>) {
        self.asked.push(key);
        let path = if self.at.is_empty() { key.into() } else { format!("{}.{key}", self.at) };
        (path, self.table.remove(key))
    }

    fn table(&mut self, key: &'static str) -> Result<Option<Keys>, Error> {
        match self.take(key) {
            (_, None) => Ok(None),
            (_, Some(Value::Table(table))) => Ok(Some(Keys { at: key, table, asked: vec![] })),
            (path, Some(other)) => Err(wrong(&path, &other, "a table")),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, Error> {
        match self.take(key) {
            (_, None) => Ok(false),
            (_, Some(Value::Boolean(flag))) => Ok(flag),
            (path, Some(other)) => Err(wrong(&path, &other, "true or false")),
        }
    }

    fn number(&mut self, key: &'static str) -> Result<Option<f32>, Error> {
        let (path, value) = self.take(key);
        let Some(value) = value else { return Ok(None) };
        let number = value.as_float().or(value.as_integer().map(|i| i as f64));
        match number.map(|x| x as f32).filter(|x| *x > 0.0 && x.is_finite()) {
            None => Err(wrong(&path, &value, "a number above 0")),
            number => Ok(number),
        }
    }

    fn word<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, Error> {
        match self.take(key) {
            (_, None) => Ok(default),
            (path, Some(Value::String(word))) => {
                let found = words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
                let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
                found.ok_or_else(|| unknown(&path, &word, &names))
            }
            (path, Some(other)) => Err(wrong(&path, &other, "a name")),
        }
    }

    fn estimator(&mut self) -> Result<Arc<dyn Estimator>, Error> {
        match self.take("estimator") {
            (path, None) => Err(Error::Setting(format!("{path} is missing"))),
            (path, Some(Value::String(text))) => {
                estimator::estimator(&text).map_err(|e| Error::Setting(format!("{path}: {e}")))
            }
            (path, Some(other)) => Err(wrong(&path, &other, "an estimator such as \"ste\"")),
        }
    }

    fn parts(&mut self, side: fn(&PartEntry) -> Option<Make>) -> Result<Vec<Arc<dyn Part>>, Error> {
        let (path, value) = self.take("parts");
        let list = match value {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(wrong(&path, &other, "a list of parts")),
        };
        let mut made = Vec::new();
        for value in &list {
            let text = value.as_str().ok_or_else(|| wrong(&path, value, "names of parts"))?;
            let spec: Spec = text.parse()?;
            let fitting = PARTS.iter().filter_map(|entry| Some((entry.name, side(entry)?)));
            let Some((_, make)) = fitting.clone().find(|(name, _)| *name == spec.name) else {
                let names: Vec<_> = fitting.map(|(name, _)| name).collect();
                return Err(unknown(&format!("part in {path}"), &spec.name, &names));
            };
            let mut options = Options::of(&spec);
            let part = make(&mut options)?;
            options.finish()?;
            // What a part learns is named after it, once.
            if made.iter().any(|other: &Arc<dyn Part>| other.name() == part.name()) {
                return Err(Error::Setting(format!("{path} has \"{}\" twice", part.name())));
            }
            made.push(part);
        }
        Ok(made)
    }

    fn finish(self) -> Result<(), Error> {
        let Some(key) = self.table.keys().next() else { return Ok(()) };
        let what = if self.at.is_empty() { "key".into() } else { format!("key in {}", self.at) };
        Err(unknown(&what, key, &self.asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IR_NET: &str = r#"
        [weights]
        parts = ["standardize"]
        scale = "shift"
        estimator = "ede"
        [activations]
        estimator = "ede"
    "#;

    fn of(text: &str) -> Result<Method, Error> {
        method("mine", text.parse::<Table>().unwrap())
    }

    #[test]
    fn a_recipe_is_printed_as_it_can_be_read() {
        let clip = "latent_clip = 1\nbetween = \"maxout\"\ngain = true\n";
        for (text, plus) in [(IR_NET.to_string(), ""), (clip.to_string() + IR_NET, "+1w32a")] {
            let written = format!("{}{plus}", of(&text).unwrap());
            let read: Method = written.parse().unwrap();
            assert_eq!(read.to_string(), written);
            assert_eq!(read.spec.to_string(), format!("mine{plus}"));
            assert_eq!(read.activations.is_none(), plus == "+1w32a");
            assert_eq!(read.latent_clip, (plus == "+1w32a").then_some(1.0));
            assert_eq!(read.weights.unwrap().prepare[0].name(), "standardize");
        }
    }

    #[test]
    fn every_part_is_made_by_its_name() {
        for entry in PARTS {
            assert!(entry.weights.is_some() || entry.activations.is_some(), "{}", entry.name);
            for make in [entry.weights, entry.activations].into_iter().flatten() {
                let spec: Spec = entry.name.parse().unwrap();
                assert_eq!(make(&mut Options::of(&spec)).unwrap().name(), entry.name);
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let with = |from: &str, to: &str| IR_NET.replacen(from, to, 1);
        for (text, expected) in [
            (with("parts", "part"), "unknown key in weights \"part\"; did you mean \"parts\"?"),
            (with("\"standardize\"", "\"standardise\""), "did you mean \"standardize\"?"),
            (with("\"standardize\"", "\"shift\""), "unknown part in weights.parts \"shift\""),
            (with("\"standardize\"", "\"centre\", \"centre\""), "has \"centre\" twice"),
            (with("\"standardize\"", "\"rectify(form=0.9)\""), "did you mean \"from\"?"),
            (with("\"shift\"", "\"shif\""), "did you mean \"shift\"?"),
            (with("\"ede\"", "\"edee\""), "weights.estimator: unknown estimator \"edee\""),
            (with("estimator = \"ede\"", ""), "weights.estimator is missing"),
            (with("\"shift\"", "3"), "weights.scale is 3, expected a name"),
            ("latent_clip = -1\n".to_string() + IR_NET, "expected a number above 0"),
            ("betwen = \"rprelu\"\n".to_string() + IR_NET, "did you mean \"between\"?"),
            ("name = \"a{\"\n".to_string() + IR_NET, "expected letters"),
            (String::new(), "nothing is binarized"),
        ] {
            let message = of(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let message = "mine{weights = }".parse::<Method>().unwrap_err().to_string();
        assert!(message.contains("an inline TOML table"), "{message}");
    }

    #[test]
    fn a_file_is_named_where_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let read = || path.to_str().unwrap().parse::<Method>();
        assert!(read().unwrap_err().to_string().contains("mine.toml: "));
        std::fs::write(&path, "[weights]\nscal = 1").unwrap();
        let message = read().unwrap_err().to_string();
        assert!(message.contains("mine.toml: ") && message.contains("weights"), "{message}");
        std::fs::write(&path, "between = \"hardtanh\"\n[weights").unwrap();
        assert!(read().unwrap_err().to_string().contains("mine.toml: line 2"));
        std::fs::write(&path, IR_NET).unwrap();
        assert_eq!(read().unwrap().spec.name, "mine");
    }
}
