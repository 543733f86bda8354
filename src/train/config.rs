//! Everything that decides a run, by key; what a run's `config.toml` holds.

use crate::binarize::{Distill, recipe};
use crate::error::near_miss;
use crate::optim::{Adam, Optimize, Optimizer, Rule, Schedule, Sgd};
use crate::{Error, Method, files};
use serde::{Deserialize, Serialize};
use std::path::Path;
use toml::{Table, Value};

/// What decides a run. Every key has a default; a file needs to say only what differs.
///
/// ```
/// use dirnet::train::Config;
/// let config = Config::default().with("lr", "0.01")?.with("arch", "mlp")?;
/// assert_eq!((config.lr, config.arch.as_str()), (0.01, "mlp"));
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data set, by name.
    pub data: String,
    /// The architecture, with its options.
    pub arch: String,
    /// How it is binarized.
    pub method: String,
    /// Estimators other than the method's own: `E`, or `weights=E activations=E`.
    pub estimator: String,
    /// A trained teacher: the folder of a run, or its `model.npz`. Empty if there is none, or the run
    /// trains its own first, as it does where a method or `distill` asks for one.
    pub teacher: String,
    /// What a teacher counts in the loss, as in [`Distill::with`]: `features=0.02 logits=1`. What is
    /// not named is as the method has it; `off` does without a teacher.
    pub distill: String,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Decides everything random: first weights, order of the images, augmentation.
    pub seed: u64,
    /// `sgd`, `adam` or `adamw`.
    pub optimizer: String,
    /// The learning rate, before its schedule.
    pub lr: f32,
    /// Momentum of `sgd`.
    pub momentum: f32,
    /// Nesterov's form of it.
    pub nesterov: bool,
    /// Weight decay.
    pub decay: f32,
    /// `cosine`, `constant` or `step`: the latter at the moments of `step_at`.
    pub schedule: String,
    /// Moments of training, from 0 to 1, at which `step` multiplies the learning rate.
    pub step_at: Vec<f32>,
    /// What it multiplies it with.
    pub step_factor: f32,
    /// Share of training in which the learning rate rises from zero.
    pub warmup: f32,
    /// The gradients' common length is clipped to this; 0 does not clip.
    pub clip_norm: f32,
    /// Share of a label that is spread over all classes.
    pub label_smoothing: f32,
    /// Vary the training images as suits the data set: shifts, flips.
    pub augment: bool,
    /// Use only so many training images; 0 uses all.
    pub limit_train: usize,
    /// Use only so many test images; 0 uses all.
    pub limit_test: usize,
    /// Hold this share of the training images out, and test on them instead of the test images:
    /// for choosing a recipe.
    pub holdout: f32,
    /// The version of this crate, in the `config.toml` of a run.
    pub version: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: "fashion-mini".into(),
            arch: "vgg-small(width=0.25)".into(),
            method: "dir-net".into(),
            estimator: String::new(),
            teacher: String::new(),
            distill: String::new(),
            epochs: 20,
            batch: 128,
            seed: 0,
            optimizer: "adam".into(),
            lr: 4e-3,
            momentum: 0.9,
            nesterov: false,
            decay: 0.0,
            schedule: "cosine".into(),
            step_at: vec![0.5, 0.75],
            step_factor: 0.1,
            warmup: 0.0,
            clip_norm: 0.0,
            label_smoothing: 0.0,
            augment: true,
            limit_train: 0,
            limit_test: 0,
            holdout: 0.0,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

impl Config {
    /// Reads a TOML file over the defaults.
    ///
    /// # Errors
    /// If it can't be read, a key is unknown (a near miss is suggested), or a value is of a wrong
    /// type or out of range: file and key are named.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = files::read_text(path)?;
        Config::parse(&text).map_err(|e| Error::file(path, e.to_string()))
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            Error::Setting(format!("line {line}: {}", e.message()))
        })?;
        let mut config = Config::default();
        for (key, value) in table {
            config = config.with_value(&key, value)?;
        }
        Ok(config)
    }

    /// The same with one key set, as `--set key=value` does: a TOML value, or a bare word.
    ///
    /// # Errors
    /// If there is no such key, or the value is of a wrong type.
    pub fn with(self, key: &str, value: &str) -> Result<Self, Error> {
        let parsed = format!("x = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("x"));
        self.with_value(key, parsed.unwrap_or_else(|| Value::String(value.into())))
    }

    fn with_value(&self, key: &str, value: Value) -> Result<Self, Error> {
        let mut table = self.to_table();
        if !table.contains_key(key) {
            let known: Vec<&str> = table.keys().map(String::as_str).collect();
            let hint = near_miss(key, known.iter().copied())
                .map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
            return Err(Error::Setting(format!(
                "unknown key \"{key}\"{hint} (known: {})",
                known.join(", ")
            )));
        }
        // A whole number will do where a float is asked for.
        let value = match (&table[key], value) {
            (Value::Float(_), Value::Integer(i)) => Value::Float(i as f64),
            // A method may be written out as a table.
            (_, Value::Table(recipe)) if key == "method" => {
                Value::String(recipe::method("own", recipe)?.to_string())
            }
            (_, value) => value,
        };
        let found = value.to_string();
        table.insert(key.into(), value);
        table.try_into().map_err(|e: toml::de::Error| {
            let why = e.message().lines().next().unwrap_or_default().to_string();
            Error::Setting(format!("key \"{key}\" is {found}: {why}"))
        })
    }

    fn to_table(&self) -> Table {
        Table::try_from(self).expect("strings, numbers and lists of them")
    }

    /// The text of a run's `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.to_table()).expect("strings, numbers and lists of them")
    }

    /// Checks what can be checked before data is read.
    ///
    /// # Errors
    /// If a value is out of range, named by its key.
    pub fn check(&self) -> Result<(), Error> {
        let range = |key: &str, found: &dyn std::fmt::Display, ok: bool, expected: &str| {
            let message = || format!("key \"{key}\" is {found}, expected {expected}");
            if ok { Ok(()) } else { Err(Error::Setting(message())) }
        };
        let share = |x: f32| (0.0..1.0).contains(&x);
        let whole = [self.epochs, self.batch, self.limit_train, self.limit_test];
        let keys = ["epochs", "batch", "limit_train", "limit_test", "seed"];
        for (key, n) in keys.iter().zip(whole.map(|n| n as u64).into_iter().chain([self.seed])) {
            range(key, &n, n <= i64::MAX as u64, "at most 2^63 - 1, as TOML has it")?;
        }
        range("epochs", &self.epochs, self.epochs > 0, "at least 1")?;
        range("batch", &self.batch, self.batch > 0, "at least 1")?;
        range("lr", &self.lr, self.lr > 0.0 && self.lr.is_finite(), "a number above 0")?;
        range("momentum", &self.momentum, share(self.momentum), "0 to below 1")?;
        range("decay", &self.decay, (0.0..=1.0).contains(&self.decay), "0 to 1")?;
        range("warmup", &self.warmup, share(self.warmup), "0 to below 1")?;
        range("clip_norm", &self.clip_norm, self.clip_norm >= 0.0, "0 or more")?;
        let smoothing = self.label_smoothing;
        range("label_smoothing", &smoothing, share(smoothing), "0 to below 1")?;
        range("holdout", &self.holdout, share(self.holdout), "0 to below 1")?;
        let factor = self.step_factor;
        range("step_factor", &factor, factor > 0.0 && factor <= 1.0, "above 0 to 1")?;
        let at = format!("{:?}", self.step_at);
        let inside = self.step_at.iter().all(|x| (0.0..=1.0).contains(x));
        range("step_at", &at, inside, "moments from 0 to 1")?;
        self.optimizer(None)?;
        Ok(())
    }

    /// What a teacher counts, if there is to be one.
    pub(super) fn distill(&self, method: &Method) -> Result<Option<Distill>, Error> {
        match (self.distill.trim(), self.teacher.as_str()) {
            ("off", "") => Ok(None),
            ("off", teacher) => Err(Error::Setting(format!(
                "key \"distill\" is off, but key \"teacher\" is \"{teacher}\""
            ))),
            ("", "") => Ok(method.distill),
            (choice, _) => method.distill.unwrap_or_default().with(choice).map(Some),
        }
    }

    /// The same recipe in full precision, for a teacher of one's own.
    pub fn of_teacher(&self) -> Config {
        Config {
            method: "fp32".into(),
            estimator: String::new(),
            teacher: String::new(),
            distill: "off".into(),
            ..self.clone()
        }
    }

    /// The optimiser that it asks for.
    pub(super) fn optimizer(&self, method: Option<&Method>) -> Result<Box<dyn Optimize>, Error> {
        let schedule = match self.schedule.as_str() {
            "cosine" => Schedule::cosine(),
            "constant" => Schedule::constant(),
            "step" => Schedule::steps(self.step_at.clone(), self.step_factor),
            other => {
                return Err(crate::error::unknown(
                    "schedule",
                    other,
                    &["cosine", "constant", "step"],
                ));
            }
        };
        let schedule = schedule.warmup(self.warmup);
        let latent_clip = method.and_then(|m| m.latent_clip);
        Ok(match self.optimizer.as_str() {
            "sgd" => {
                let sgd = Sgd::new(self.lr).momentum(self.momentum);
                let sgd = if self.nesterov { sgd.nesterov() } else { sgd };
                self.finish(sgd, schedule, latent_clip)
            }
            "adam" => self.finish(Adam::new(self.lr), schedule, latent_clip),
            "adamw" => self.finish(Adam::new(self.lr).decoupled(), schedule, latent_clip),
            other => {
                return Err(crate::error::unknown("optimizer", other, &["sgd", "adam", "adamw"]));
            }
        })
    }

    fn finish<R: Rule + 'static>(
        &self,
        mut optimizer: Optimizer<R>,
        schedule: Schedule,
        latent_clip: Option<f32>,
    ) -> Box<dyn Optimize> {
        optimizer = optimizer.decay(self.decay).schedule(schedule);
        if self.clip_norm > 0.0 {
            optimizer = optimizer.clip_norm(self.clip_norm.into());
        }
        if let Some(limit) = latent_clip {
            optimizer = optimizer.latent_clip(limit);
        }
        Box::new(optimizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let config = Config { lr: 0.125, seed: 9, ..Config::default() };
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn a_wrong_key_type_or_value_is_named() {
        for (text, expected) in [
            ("lrr = 0.1", "unknown key \"lrr\"; did you mean \"lr\"?"),
            ("epochs = \"ten\"", "key \"epochs\" is \"ten\": invalid type: string"),
            ("lr = 0.1\nepochs 3", "line 2"),
            ("epochs = -3", "key \"epochs\" is -3"),
        ] {
            let message = Config::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        for (key, value, expected) in [
            ("lr", "-1", "key \"lr\" is -1, expected a number above 0"),
            ("epochs", "0", "expected at least 1"),
            ("optimizer", "adamm", "did you mean \"adam\"?"),
            ("schedule", "cosin", "did you mean \"cosine\"?"),
            ("warmup", "1.5", "expected 0 to below 1"),
            ("decay", "-0.5", "expected 0 to 1"),
        ] {
            let config = Config::default().with(key, value).unwrap();
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{key}={value}: {message}");
        }
        let config = Config { seed: u64::MAX, ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("key \"seed\""));
    }
}
