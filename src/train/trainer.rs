//! One run of training, step by step.

use super::config::{Config, of_stage};
use super::evaluate::{Score, evaluate, evaluate_first};
use super::layers::{Flips, Layer, Signs};
use super::teacher::{Teacher, keeping};
use crate::binarize::Distill;
use crate::models::{Card, Model, with_estimators};
use crate::nn::Module;
use crate::optim::Optimize;
use crate::watch::{NotFinite, SignNote, Watch};
use crate::{Error, Method, Param, Params, Rng, Tape, Tensor, Var};
use dirnet_datasets::{Augment, Batch, Batches, Dataset, Split};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// What an epoch came to: a row of `metrics.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// The learning rate in it.
    pub lr: f32,
    /// Mean loss of its training batches: the cross-entropy, with that of [heads](Var::head) beside the
    /// network, or what [`Distill`] makes of it.
    pub train_loss: f64,
    /// Mean cross-entropy of the test images after it.
    pub test_loss: f64,
    /// Share of the test images told right after it.
    pub test_accuracy: f64,
    /// Time it took, evaluation included.
    pub seconds: f64,
    /// The stage it belongs to, from 1, if training has stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<usize>,
}

/// What a stage takes over from the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handover {
    /// The stage that begins, from 1.
    pub stage: usize,
    /// Its method.
    pub method: String,
    /// Parameters that begin as the method has it, since the stage before had none of that name and
    /// shape.
    pub new: Vec<String>,
    /// Parameters of the stage before that are of no use any more.
    pub left: Vec<String>,
}

/// What a trainer tells while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was taken.
    Step {
        /// The epoch it belongs to, from 0.
        epoch: usize,
        /// Its place there, from 0.
        step: usize,
        /// The loss of its batch.
        loss: f32,
    },
    /// An epoch ended.
    Epoch(&'a Epoch),
    /// A stage begins, other than the first.
    Stage(&'a Handover),
}

/// A run: a model on its way, and where it stands.
pub struct Trainer {
    /// What decides it.
    pub config: Config,
    /// What the model says of itself.
    pub card: Card,
    /// The model.
    pub model: Model,
    /// Its numbers.
    pub params: Params,
    stages: Vec<Config>,
    pub(super) optimizer: Box<dyn Optimize>,
    distill: Option<Distill>,
    teacher: Option<Teacher>,
    train: Split,
    test: Split,
    augment: Augment,
    workers: usize,
    pub(super) signs: Signs,
    pub(super) at: Position,
}

/// Where a run stands: everything that is neither configured nor in the parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The stage whose parameters these are, from 0.
    #[serde(default)]
    pub stage: usize,
    /// Epochs done.
    pub epoch: usize,
    /// Steps done in the epoch that has begun.
    pub step: usize,
    /// Sum of their losses.
    pub loss_sum: f64,
    /// Seconds spent in that epoch.
    pub epoch_seconds: f64,
    /// Seconds spent in steps, in all.
    pub step_seconds: f64,
    /// Epochs done.
    pub history: Vec<Epoch>,
    /// What happened inside their binary layers.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// Flips in the epoch that has begun, in a checkpoint.
    #[serde(default)]
    pub flips: Vec<Flips>,
}

impl Trainer {
    /// A new run of a configuration on its data.
    ///
    /// Shapes are checked for the whole net before the first step: the model is made for the data's
    /// images, and makers refuse what does not fit.
    ///
    /// # Errors
    /// If the configuration names something unknown or out of range, or there are fewer training
    /// images than one batch takes.
    pub fn new(config: Config, data: &Dataset) -> Result<Self, Error> {
        config.check()?;
        let config = config.with_recipes()?;
        let stages = config.stages()?;
        for (i, stage) in stages.iter().enumerate().skip(1) {
            // What is wrong with a later stage is said before the first one begins.
            let method = with_estimators(stage.method.parse()?, &stage.estimator);
            let fits = method.and_then(|m| Ok((stage.optimizer(Some(&m))?, stage.distill(&m)?)));
            fits.map_err(|e| of_stage(i + 1, e))?;
        }
        let all = |n: usize| if n == 0 { usize::MAX } else { n };
        let mut kept = data.limit(all(config.limit_train), usize::MAX);
        if config.holdout > 0.0 {
            // Which images are held out does not depend on the seed of the run.
            kept = kept.holdout(config.holdout.into(), 0);
        }
        let Dataset { train, test, .. } = kept.limit(usize::MAX, all(config.limit_test));
        if train.len() < config.batch {
            return Err(Error::Setting(format!(
                "key \"batch\" is {}, but there are only {} training images",
                config.batch,
                train.len()
            )));
        }
        let card = Card {
            version: env!("CARGO_PKG_VERSION").into(),
            arch: config.arch.clone(),
            method: String::new(),
            estimator: String::new(),
            data: config.data.clone(),
            input: data.train.shape(),
            classes: data.classes.clone(),
            mean: data.mean.clone(),
            std: data.std.clone(),
        };
        let first = Stage::begin(&stages, 0, &card, Params::new())?;
        let workers = usize::from(dirnet_kernels::par::threads() > 1);
        let Stage { card, model, params, optimizer, distill } = first;
        Ok(Trainer {
            config,
            card,
            model,
            params,
            stages,
            optimizer,
            distill,
            teacher: None,
            train,
            test,
            augment: data.augment,
            workers,
            signs: Signs::default(),
            at: Position::default(),
        })
    }

    /// Goes over to a stage, whose parameters begin with the numbers that `start` has for them.
    pub(super) fn enter(&mut self, stage: usize, start: Params) -> Result<(), Error> {
        let next = Stage::begin(&self.stages, stage, &self.card, start)?;
        Stage {
            card: self.card,
            model: self.model,
            params: self.params,
            optimizer: self.optimizer,
            distill: self.distill,
        } = next;
        self.signs = Signs::default();
        self.at.stage = stage;
        Ok(())
    }

    fn next_stage(&mut self) -> Result<Handover, Error> {
        let before = self.params.clone();
        self.enter(self.at.stage + 1, Params::starting_from(&before))?;
        // Whatever lies in one of two tables only, by name or by shape.
        let missing = |of: &Params, here: &Params| -> Vec<String> {
            let lacks = |p: &&Param| {
                let there = of.id(&p.name).map(|id| &of[id]);
                there.is_none_or(|other| other.value.shape() != p.value.shape())
            };
            here.iter().map(|(_, p)| p).filter(lacks).map(|p| p.name.clone()).collect()
        };
        Ok(Handover {
            stage: self.at.stage + 1,
            method: self.card.method.clone(),
            new: missing(&before, &self.params),
            left: missing(&self.params, &before),
        })
    }

    /// Takes over the parameters of a file, by name, with or without a card; those that are excepted
    /// begin as they would without it, and are named. See [`Params::load_except`].
    ///
    /// # Errors
    /// If it can't be read, or its parameters are not those of this model: all that differs is
    /// named, and nothing is changed.
    pub fn start_from(
        &mut self,
        file: &Path,
        except: &[impl AsRef<str>],
    ) -> Result<Vec<String>, Error> {
        let stay = self.params.load_except(file, except)?;
        self.optimizer.begin(&mut self.params);
        Ok(stay)
    }

    /// What a teacher counts in this stage, where the configuration asks for one.
    pub fn distill(&self) -> Option<&Distill> {
        self.distill.as_ref()
    }
    /// Whether this stage or a later one asks for a teacher: [`Trainer::teach`] brings it.
    pub fn wants_teacher(&self) -> bool {
        let asks = |stage: &Config| {
            let method = stage.method.parse::<Method>();
            method.and_then(|m| stage.distill(&m)).is_ok_and(|distill| distill.is_some())
        };
        self.stages[self.at.stage..].iter().any(asks)
    }
    /// Takes the network of a `model.npz` for its teacher.
    ///
    /// # Errors
    /// If it can't be read, or is not the same architecture under `fp32`, for the same images and
    /// classes: all that differs is named.
    pub fn teach(&mut self, model: &Path) -> Result<(), Error> {
        self.teacher = Some(Teacher::load(model, &self.card)?);
        Ok(())
    }
    /// Writes its teacher to a file of its own, if it has one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save_teacher(&self, path: &Path) -> Result<(), Error> {
        self.teacher.as_ref().map_or(Ok(()), |teacher| teacher.save(path))
    }

    /// Training images, test images.
    pub fn samples(&self) -> [usize; 2] {
        [self.train.len(), self.test.len()]
    }
    /// Steps in an epoch: a last batch that is not full is left out.
    pub fn steps(&self) -> usize {
        self.train.len() / self.config.batch
    }
    /// Epochs done.
    pub fn history(&self) -> &[Epoch] {
        &self.at.history
    }
    /// What happened inside binary layers in the epochs done, a row an epoch and layer.
    pub fn layers(&self) -> &[Layer] {
        &self.at.layers
    }
    /// Epochs done, and steps done in the one that has begun.
    pub fn position(&self) -> (usize, usize) {
        (self.at.epoch, self.at.step)
    }
    /// The present stage, from 1, and how many there are; 1 and 1 if nothing is said of stages.
    pub fn stage(&self) -> (usize, usize) {
        (self.at.stage + 1, self.stages.len())
    }
    /// Epochs of all stages.
    pub fn epochs(&self) -> usize {
        self.epochs_of(self.stages.len())
    }
    fn epochs_of(&self, first: usize) -> usize {
        self.stages[..first].iter().map(|stage| stage.epochs).sum()
    }
    /// What decides the present stage.
    fn here(&self) -> &Config {
        &self.stages[self.at.stage]
    }
    /// Whether all epochs are done.
    pub fn is_done(&self) -> bool {
        self.at.epoch >= self.epochs()
    }
    /// Mean time of a step, in milliseconds.
    pub fn ms_per_step(&self) -> f64 {
        let steps = self.at.epoch * self.steps() + self.at.step;
        1e3 * self.at.step_seconds / steps.max(1) as f64
    }

    /// Trains until `tell` says stop (by `false`), or to the end. Says whether the end was reached.
    ///
    /// # Errors
    /// If a loss or gradient is not finite: the message names epoch, step, and the first operation
    /// whose value it was. The parameters are then those before that step. If a teacher is asked
    /// for and there is none.
    pub fn run(&mut self, mut tell: impl FnMut(&Self, Event<'_>) -> bool) -> Result<bool, Error> {
        while !self.is_done() {
            if self.at.epoch >= self.epochs_of(self.at.stage + 1) {
                let handover = self.next_stage()?;
                if !tell(self, Event::Stage(&handover)) {
                    return Ok(false);
                }
            }
            if let (Some(distill), None) = (&self.distill, &self.teacher) {
                return Err(Error::Setting(format!(
                    "{} with {distill} wants a teacher, and has none",
                    self.card.method
                )));
            }
            let began = Instant::now();
            let before = self.at.epoch_seconds;
            let epoch = self.at.epoch;
            let batches = self
                .train
                .batches(self.config.batch)
                .normalise(&self.card.mean, &self.card.std)
                .shuffle(true)
                .drop_last(true)
                .augment(if self.here().augment { self.augment } else { Augment::default() })
                .seed(self.config.seed)
                .epoch(epoch as u64)
                .from(self.at.step)
                .workers(self.workers);
            for batch in batches {
                let step_began = Instant::now();
                let loss = self.step(&batch)?;
                self.at.loss_sum += f64::from(loss);
                self.at.step += 1;
                self.at.step_seconds += step_began.elapsed().as_secs_f64();
                self.at.epoch_seconds = before + began.elapsed().as_secs_f64();
                if !tell(self, Event::Step { epoch, step: self.at.step - 1, loss }) {
                    return Ok(false);
                }
            }
            let (score, notes) = self.evaluate_with_signs();
            let rows = self.signs.end_epoch(epoch + 1, self.steps(), &notes);
            self.at.layers.extend(rows);
            let done = Epoch {
                epoch: epoch + 1,
                lr: self.optimizer.lr_at(self.progress()),
                train_loss: self.at.loss_sum / self.steps() as f64,
                test_loss: score.loss,
                test_accuracy: score.accuracy,
                seconds: before + began.elapsed().as_secs_f64(),
                stage: (!self.config.stage.is_empty()).then_some(self.at.stage + 1),
            };
            self.at.history.push(done.clone());
            self.at.epoch += 1;
            (self.at.step, self.at.loss_sum, self.at.epoch_seconds) = (0, 0.0, 0.0);
            if !tell(self, Event::Epoch(&done)) {
                return Ok(self.is_done());
            }
        }
        Ok(true)
    }

    /// The score on the test images, or on those held out.
    pub fn evaluate(&self) -> Score {
        evaluate(&self.model, &self.params, self.test_batches())
    }

    /// The same, and what becomes of the first images in binary layers.
    fn evaluate_with_signs(&self) -> (Score, Vec<SignNote>) {
        let first = Tape::eval(&self.params).at(self.progress()).watching(Watch::signs());
        let (score, noted) = evaluate_first(&self.model, &self.params, self.test_batches(), first);
        (score, noted.into_signs())
    }

    fn test_batches(&self) -> Batches {
        let batches = self.test.batches(250).normalise(&self.card.mean, &self.card.std);
        batches.workers(self.workers)
    }

    /// From 0 to 1 in each stage, constant through an epoch, as in the published schedules.
    fn progress(&self) -> f32 {
        let done = self.at.epoch - self.epochs_of(self.at.stage);
        done as f32 / self.here().epochs as f32
    }

    fn tape(&self) -> Tape<'_> {
        let at = [self.at.epoch as u64, self.at.step as u64];
        let tape =
            Tape::train(&self.params).at(self.progress()).drawing(self.config.seed, at).quick();
        match &self.distill {
            Some(distill) => keeping(distill, tape),
            None => tape,
        }
    }

    fn loss<'t>(&self, tape: &'t Tape<'t>, batch: &Batch) -> Var<'t> {
        let images = Tensor::from(batch);
        let of_labels = |logits: &Var<'t>| {
            let smoothing = self.here().label_smoothing;
            logits.loss_with_heads(|x| x.cross_entropy_smoothed(&batch.labels, smoothing))
        };
        match (&self.distill, &self.teacher) {
            (Some(distill), Some(teacher)) => {
                // First, so that what it computes on the way is gone before the student keeps its own.
                let answer = teacher.answer(distill, &images);
                answer.loss(distill, tape, &images, &self.model, of_labels)
            }
            _ => of_labels(&self.model.forward(&tape.constant(images))),
        }
    }

    /// The only lines of training where something is computed.
    fn step(&mut self, batch: &Batch) -> Result<f32, Error> {
        let tape = self.tape().watching(Watch::signs());
        let (value, grads) = {
            let loss = self.loss(&tape, batch);
            let value = loss.value().item();
            if !value.is_finite() {
                return Err(self.blame(batch, value));
            }
            (value, loss.backward())
        };
        if !grads.norm().is_finite() {
            return Err(self.blame(batch, value));
        }
        let notes = tape.into_watched().into_signs();
        self.optimizer.step(&mut self.params, &grads);
        self.signs.step(&notes);
        Ok(value)
    }

    /// Takes the step once more, with an eye on every value, to name the first one that went wrong.
    fn blame(&self, batch: &Batch, loss: f32) -> Error {
        let tape = self.tape().watching(Watch::finite());
        let again = self.loss(&tape, batch);
        if again.value().item().is_finite() {
            again.backward();
        }
        let first: Option<NotFinite> = match tape.watched() {
            Watch::Finite(first) => first.borrow().clone(),
            _ => None,
        };
        let what = first.map_or_else(|| format!("the loss is {loss}"), |first| first.to_string());
        Error::Training(format!(
            "epoch {}, step {}: {what}; the learning rate is {}, a smaller one may help",
            self.at.epoch + 1,
            self.at.step + 1,
            self.optimizer.lr_at(self.progress()),
        ))
    }
}

/// What a stage begins with.
struct Stage {
    card: Card,
    model: Model,
    params: Params,
    optimizer: Box<dyn Optimize>,
    distill: Option<Distill>,
}

impl Stage {
    /// The stage of this number, from 0. New parameters are drawn for each stage anew.
    fn begin(stages: &[Config], number: usize, card: &Card, start: Params) -> Result<Self, Error> {
        let config = &stages[number];
        let (method, estimator) = (config.method.clone(), config.estimator.clone());
        let card = Card { method, estimator, ..card.clone() };
        let key: &[u64] = if number == 0 { &[] } else { &[number as u64] };
        let rng = &mut Rng::keyed(config.seed, "first weights", key);
        let begin = || {
            let (mut params, model) = card.build_in(start, rng)?;
            let optimizer = config.optimizer(Some(&model.method))?;
            optimizer.begin(&mut params);
            let distill = config.distill(&model.method)?;
            Ok(Stage { card: card.clone(), model, params, optimizer, distill })
        };
        begin().map_err(|e| if stages.len() > 1 { of_stage(number + 1, e) } else { e })
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trainer({:?} at {:?})", self.config, self.at)
    }
}
