//! Everything that decides a run, by key; what a run's `config.toml` holds.

use crate::binarize::{Distill, Scale, recipe};
use crate::error::{near_miss, unknown};
use crate::optim::{Adam, Bop, Optimize, Optimizer, Rule, Schedule, Sgd};
use crate::{Error, Method, files, models};
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
    /// `sgd`, `adam`, `adamw`, or one that flips the weights behind a sign, [`bop`](crate::optim::Bop)
    /// or its second-order form `bop2`, and moves all others as `adam` does.
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
    /// How fast the running mean of `bop` and `bop2` forgets.
    pub bop_gamma: f32,
    /// How strong it must be to flip a weight.
    pub bop_threshold: f32,
    /// The course of `bop_gamma`: `constant`, `cosine`, or `step` as of `schedule`.
    pub bop_schedule: String,
    /// How fast the mean of squares of `bop2` forgets.
    pub bop_sigma: f32,
    /// Whether `bop2` corrects both means for having started at zero.
    pub bop_unbiased: bool,
    /// Latent weights are clipped to this size after each step; 0 does as the method has it, `inf`
    /// does not clip.
    pub latent_clip: f32,
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
    /// Stages of training, one after the other: in each, the keys that differ from the ones above.
    pub stage: Vec<Table>,
}

/// Keys that are the same in all stages.
const COMMON: &[&str] = &[
    "data",
    "arch",
    "teacher",
    "batch",
    "seed",
    "limit_train",
    "limit_test",
    "holdout",
    "version",
    "stage",
];

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
            bop_gamma: 1e-4,
            bop_threshold: 1e-8,
            bop_schedule: "constant".into(),
            bop_sigma: 1e-3,
            bop_unbiased: false,
            latent_clip: 0.0,
            clip_norm: 0.0,
            label_smoothing: 0.0,
            augment: true,
            limit_train: 0,
            limit_test: 0,
            holdout: 0.0,
            version: env!("CARGO_PKG_VERSION").into(),
            stage: vec![],
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

    /// The same with one key set, as `--set key=value` does: a TOML value, or a bare word. `stage.2.lr` is
    /// the `lr` of the second stage.
    ///
    /// # Errors
    /// If there is no such key or stage, or the value is of a wrong type.
    pub fn with(self, key: &str, value: &str) -> Result<Self, Error> {
        let parsed = format!("x = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("x"));
        self.with_value(key, parsed.unwrap_or_else(|| Value::String(value.into())))
    }

    /// `2` and `lr` of `stage.2.lr`.
    pub(crate) fn in_stage(key: &str) -> Option<(usize, &str)> {
        let (number, key) = key.strip_prefix("stage.")?.split_once('.')?;
        Some((number.parse().ok()?, key))
    }

    fn with_value(&self, key: &str, value: Value) -> Result<Self, Error> {
        if let Some((number, inner)) = Config::in_stage(key) {
            let mut config = self.clone();
            let count = config.stage.len();
            let stage = number.checked_sub(1).and_then(|i| config.stage.get_mut(i));
            let none = || Error::Setting(format!("key \"{key}\": the number of stages is {count}"));
            let stage = stage.ok_or_else(none)?;
            stage.insert(inner.into(), value);
            *stage = stage_keys(number, stage.clone())?;
            return Ok(config);
        }
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
            (_, Value::Array(stages)) if key == "stage" => {
                let keys = |(i, stage)| match stage {
                    Value::Table(keys) => stage_keys(i + 1, keys).map(Value::Table),
                    other => {
                        Err(Error::Setting(format!("stage {} is {other}, expected keys", i + 1)))
                    }
                };
                Value::Array(stages.into_iter().enumerate().map(keys).collect::<Result<_, _>>()?)
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

    /// The configuration of each stage: this one itself, if there are none. A stage whose `distill` is off
    /// has no teacher.
    ///
    /// # Errors
    /// If a key is wrong, named with its stage.
    pub fn stages(&self) -> Result<Vec<Config>, Error> {
        if self.stage.is_empty() {
            return Ok(vec![self.clone()]);
        }
        let stages = self.stage.iter().enumerate().map(|(i, keys)| {
            let mut config = Config { stage: vec![], ..self.clone() };
            for (key, value) in stage_keys(i + 1, keys.clone())? {
                config = config.with_value(&key, value)?;
            }
            if keys.contains_key("distill") && config.distill == "off" {
                config.teacher.clear();
            }
            Ok(config)
        });
        stages.collect()
    }

    /// The same with architecture and methods as they are kept: of a genotype's or a recipe's file, what it
    /// says.
    pub(super) fn with_recipes(mut self) -> Result<Self, Error> {
        self.arch = models::settled(&self.arch)?;
        self.method = self.method.parse::<Method>()?.to_string();
        for (i, stage) in self.stage.iter_mut().enumerate() {
            if let Some(Value::String(text)) = stage.get_mut("method") {
                let method = text.parse::<Method>().map_err(|e| of_stage(i + 1, e))?;
                *text = method.to_string();
            }
        }
        Ok(self)
    }

    /// Checks what can be checked before data is read.
    ///
    /// # Errors
    /// If a value is out of range, named by its key.
    pub fn check(&self) -> Result<(), Error> {
        if !self.stage.is_empty() {
            for (i, config) in self.stages()?.iter().enumerate() {
                config.check().map_err(|e| of_stage(i + 1, e))?;
            }
        }
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
        let (gamma, sigma) = (self.bop_gamma, self.bop_sigma);
        range("bop_gamma", &gamma, gamma > 0.0 && gamma <= 1.0, "above 0 to 1")?;
        range("bop_sigma", &sigma, sigma > 0.0 && sigma <= 1.0, "above 0 to 1")?;
        let threshold = self.bop_threshold;
        range("bop_threshold", &threshold, threshold >= 0.0, "0 or more")?;
        range("latent_clip", &self.latent_clip, self.latent_clip >= 0.0, "0 or more")?;
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

    /// The same recipe in full precision, for a teacher of one's own. Where bits were flipped there are
    /// none: it learns by `adam`.
    pub fn of_teacher(&self) -> Config {
        let flips = ["bop", "bop2"].contains(&self.optimizer.as_str());
        let optimizer = if flips { "adam".into() } else { self.optimizer.clone() };
        Config {
            optimizer,
            method: "fp32".into(),
            estimator: String::new(),
            teacher: String::new(),
            distill: "off".into(),
            stage: vec![],
            ..self.clone()
        }
    }

    /// The optimiser that it asks for.
    pub(super) fn optimizer(&self, method: Option<&Method>) -> Result<Box<dyn Optimize>, Error> {
        let schedule = self.curve("schedule", &self.schedule)?.warmup(self.warmup);
        let latent_clip = match self.latent_clip {
            0.0 => method.and_then(|m| m.latent_clip),
            limit => Some(limit),
        };
        Ok(match self.optimizer.as_str() {
            "sgd" => {
                let sgd = Sgd::new(self.lr).momentum(self.momentum);
                let sgd = if self.nesterov { sgd.nesterov() } else { sgd };
                self.finish(sgd, schedule, latent_clip)
            }
            "adam" => self.finish(Adam::new(self.lr), schedule, latent_clip),
            "adamw" => self.finish(Adam::new(self.lr).decoupled(), schedule, latent_clip),
            name @ ("bop" | "bop2") => {
                if let Some(why) = method.and_then(keeps_from_flipping) {
                    return Err(Error::Setting(format!("optimizer \"{name}\" flips bits: {why}")));
                }
                let bop = Bop::new(self.lr).gamma(self.bop_gamma).threshold(self.bop_threshold);
                let bop = bop.gamma_schedule(self.curve("bop_schedule", &self.bop_schedule)?);
                let bop = match name {
                    "bop" => bop,
                    _ => bop.second_order(self.bop_sigma, self.bop_unbiased),
                };
                self.finish(bop, schedule, latent_clip)
            }
            other => {
                let known = ["sgd", "adam", "adamw", "bop", "bop2"];
                return Err(unknown("optimizer", other, &known));
            }
        })
    }

    fn curve(&self, key: &str, name: &str) -> Result<Schedule, Error> {
        match name {
            "cosine" => Ok(Schedule::cosine()),
            "constant" => Ok(Schedule::constant()),
            "step" => Ok(Schedule::steps(self.step_at.clone(), self.step_factor)),
            other => Err(unknown(key, other, &["cosine", "constant", "step"])),
        }
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

/// The keys of a stage, each checked on its own.
fn stage_keys(number: usize, keys: Table) -> Result<Table, Error> {
    let mut checked = Table::new();
    for (key, value) in keys {
        if COMMON.contains(&key.as_str()) {
            let why = format!("key \"{key}\" is the same in all stages; it stands above them");
            return Err(of_stage(number, Error::Setting(why)));
        }
        let with = Config::default().with_value(&key, value).map_err(|e| of_stage(number, e))?;
        checked.extend(with.to_table().remove(&key).map(|value| (key, value)));
    }
    Ok(checked)
}

pub(super) fn of_stage(number: usize, e: Error) -> Error {
    Error::Setting(format!("stage {number}: {e}"))
}

/// Why a method's weights can't be bits that are flipped one by one by their gradient, if so.
fn keeps_from_flipping(method: &Method) -> Option<String> {
    let Some(weights) = &method.weights else {
        return Some(format!("the weights of {method} are floats"));
    };
    if !weights.prepare.is_empty() {
        let parts: Vec<&str> = weights.prepare.iter().map(|part| part.name()).collect();
        let parts = parts.join(", ");
        return Some(format!("{method} prepares its weights ({parts}), which wants them real"));
    }
    let through = [Scale::MeanAbsThrough, Scale::LayerMeanThrough, Scale::Std];
    if weights.offset || through.contains(&weights.scale) {
        return Some(format!("the scale of {method} has a gradient of its own for real weights"));
    }
    let constant = weights.estimator.window().is_some_and(|(limit, _)| limit >= 1.0);
    (!constant).then(|| {
        let estimator = weights.estimator.name();
        format!(
            "the slope of {estimator} is made for real weights; \"weights=identity\" as the estimator \
             passes on the gradient of a bit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::with_estimators;

    #[test]
    fn a_stage_is_the_rest_with_some_keys_of_its_own() {
        let text = "epochs = 7\nteacher = \"t\"\n[[stage]]\nmethod = \"bnn+32w1a\"\nlr = 1\n\
            distill = \"off\"\n[[stage]]\nepochs = 3\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
        let config = config.with("stage.2.method", "bnn").unwrap().with("seed", "9").unwrap();
        let stages = config.stages().unwrap();
        let of = |c: &Config| (c.method.clone(), c.epochs, c.lr, c.seed, c.teacher.clone());
        assert_eq!(of(&stages[0]), ("bnn+32w1a".into(), 7, 1.0, 9, "".into()));
        assert_eq!(of(&stages[1]), ("bnn".into(), 3, Config::default().lr, 9, "t".into()));
        let message = config.with("stage.3.lr", "1").unwrap_err().to_string();
        assert!(message.contains("the number of stages is 2"), "{message}");
    }

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
            ("bop_gamma", "0", "expected above 0 to 1"),
            ("latent_clip", "-1", "expected 0 or more"),
            ("schedule", "cosin", "did you mean \"cosine\"?"),
            ("warmup", "1.5", "expected 0 to below 1"),
            ("decay", "-0.5", "expected 0 to 1"),
        ] {
            let config = Config::default().with(key, value).unwrap();
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{key}={value}: {message}");
        }
        for (text, expected) in [
            ("[[stage]]\n[[stage]]\nlrr = 1", "stage 2: unknown key \"lrr\"; did you mean \"lr\"?"),
            ("[[stage]]\nseed = 1", "stage 1: key \"seed\" is the same in all stages"),
            ("[[stage]]\nepochs = \"x\"", "stage 1: key \"epochs\""),
            ("stage = 3", "key \"stage\" is 3"),
            ("stage = [3]", "stage 1 is 3, expected keys"),
            ("[stage]\nlr = 1", "key \"stage\""),
        ] {
            let message = Config::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        for (text, expected) in [
            ("[[stage]]\n[[stage]]\nlr = -1", "stage 2: key \"lr\" is -1"),
            ("[[stage]]\noptimizer = \"x\"", "stage 1: unknown optimizer \"x\""),
        ] {
            let message = Config::parse(text).unwrap().check().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let bop = Config { optimizer: "bop".into(), ..Config::default() };
        let why = |method: &str, estimator: &str| {
            let method = with_estimators(method.parse().unwrap(), estimator).unwrap();
            bop.optimizer(Some(&method)).err().map(|e| e.to_string())
        };
        for (method, estimator, expected) in [
            ("dir-net", "", "dir-net prepares its weights (standardize)"),
            ("bnn+32w1a", "", "the weights of bnn+32w1a are floats"),
            ("reste", "", "the scale of reste"),
            ("bnn", "ede", "the slope of ede"),
        ] {
            let message = why(method, estimator).unwrap();
            assert!(message.contains(expected), "{method}: {message}");
        }
        for method in
            ["bnn", "xnor-net(variant=code)", "xnor-net++", "dorefa", "bi-real", "reactnet"]
        {
            assert_eq!(why(method, ""), None, "{method}");
        }
        assert_eq!(bop.of_teacher().optimizer, "adam");
        let config = Config { seed: u64::MAX, ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("key \"seed\""));
    }
}
