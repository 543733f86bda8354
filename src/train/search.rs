//! A search for cells: alphas and weights in turn, each on their half of the training images.

use super::evaluate::classes;
use crate::models::{Genotype, Operation, Supernet, Task};
use crate::nn::Module;
use crate::optim::{Adam, Sgd};
use crate::watch::Watch;
use crate::{Error, Method, Params, Rng, Tape, Tensor, Var, files};
use dirnet_datasets::{Augment, Batch, Batches, Dataset, Split};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// What decides a search. By itself it is smaller than the paper's, which has 16 channels, 8 cells and 50 epochs
/// of batches of 64.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchConfig {
    /// The data set, by name.
    pub data: String,
    /// How the network is binarized while it is searched.
    pub method: String,
    /// Passes over each half of the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Channels at first.
    pub channels: usize,
    /// Cells of the network.
    pub cells: usize,
    /// Decides everything random: first weights and alphas, order of the images, augmentation.
    pub seed: u64,
    /// Use only so many training images; 0 uses all.
    pub limit_train: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        SearchConfig {
            data: "fashion-mini".into(),
            method: "fp32".into(),
            epochs: 30,
            batch: 32,
            channels: 8,
            cells: 5,
            seed: 0,
            limit_train: 0,
        }
    }
}

/// What an epoch of a search came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchEpoch {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// Mean loss of the steps for the weights.
    pub train_loss: f64,
    /// Mean loss of the steps for the alphas, before each.
    pub search_loss: f64,
    /// Share of the images told right in them.
    pub search_accuracy: f64,
    /// Time it took.
    pub seconds: f64,
    /// What the alphas stand for after it.
    pub genotype: String,
}

/// What a search tells while it works.
#[derive(Debug)]
pub enum SearchEvent<'a> {
    /// A step was taken, for the alphas and for the weights.
    Step {
        /// The loss of the weights' batch.
        loss: f32,
    },
    /// An epoch ended.
    Epoch(&'a SearchEpoch),
}

/// A differentiable search of first order (Liu et al., 2019, arXiv 1806.09055, algorithm 1 with `ξ = 0`). A step
/// is two: one for the alphas of a [`Supernet`], on a batch of one half of the training images, and one for its
/// weights, on a batch of the other half.
///
/// | | optimiser, as in the paper |
/// | --- | --- |
/// | weights | SGD, rate 0.025 along half a cosine to 0, momentum 0.9, decay 3e-4, gradients of length 5 at most |
/// | alphas | Adam, rate 3e-4, betas 0.5 and 0.999, decay 1e-3 |
///
/// The same seed gives the same alphas, to the last bit, at any number of threads.
///
/// ```
/// use dirnet::{datasets, train::{Search, SearchConfig}};
/// let small = SearchConfig { epochs: 1, batch: 16, channels: 2, cells: 1, ..SearchConfig::default() };
/// let mut search = Search::new(SearchConfig { limit_train: 32, ..small }, &datasets::digits())?;
/// assert!(search.run(|_, _| true)?);
/// assert_eq!(search.genotype("found").normal.len(), 8);
/// # Ok::<(), dirnet::Error>(())
/// ```
pub struct Search {
    /// What decides it.
    pub config: SearchConfig,
    /// Weights and alphas.
    pub params: Params,
    net: Supernet,
    weights: Sgd,
    alphas: Adam,
    /// The images of the weights, and those of the alphas.
    halves: [Split; 2],
    mean: Vec<f32>,
    std: Vec<f32>,
    augment: Augment,
    workers: usize,
    epoch: usize,
    step: usize,
}

impl Search {
    /// A search on the training images of some data.
    ///
    /// # Errors
    /// If something is out of range or unknown, the images are too small, or a half of them does not
    /// fill a batch.
    pub fn new(config: SearchConfig, data: &Dataset) -> Result<Self, Error> {
        let SearchConfig { epochs, batch, channels, cells, seed, limit_train, .. } = config;
        let whole = [("epochs", epochs), ("batch", batch), ("cells", cells)];
        if let Some((key, n)) =
            whole.into_iter().find(|(key, n)| *n == 0 || (*key == "cells" && *n > 64))
        {
            let expected = if key == "cells" { "1 to 64" } else { "at least 1" };
            return Err(Error::Setting(format!("{key} is {n}, expected {expected}")));
        }
        let limit = if limit_train == 0 { usize::MAX } else { limit_train };
        // Which images are whose does not depend on the seed.
        let Dataset { train, test, .. } = data.limit(limit, usize::MAX).holdout(0.5, 0);
        let least = train.len().min(test.len());
        if least < batch {
            return Err(Error::Setting(format!(
                "batch is {batch}, but a half of the training images are only {least}"
            )));
        }
        let method: Method = config.method.parse()?;
        let task = Task { input: data.train.shape(), classes: data.classes.len() };
        let (mut params, rng) = (Params::new(), &mut Rng::keyed(seed, "first weights", &[]));
        let net = Supernet::new(&mut params, [channels, cells], &method, &task, rng)?;
        let weights = Sgd::new(0.025).momentum(0.9).decay(3e-4).clip_norm(5.0).cosine();
        let weights = match method.latent_clip {
            Some(limit) => weights.latent_clip(limit),
            None => weights,
        };
        Ok(Search {
            config: SearchConfig { method: method.to_string(), ..config },
            params,
            net,
            weights,
            alphas: Adam::new(3e-4).betas(0.5, 0.999).decay(1e-3),
            halves: [train, test],
            mean: data.mean.clone(),
            std: data.std.clone(),
            augment: data.augment,
            workers: usize::from(dirnet_kernels::par::threads() > 1),
            epoch: 0,
            step: 0,
        })
    }

    /// Images of the weights, images of the alphas.
    pub fn samples(&self) -> [usize; 2] {
        [self.halves[0].len(), self.halves[1].len()]
    }
    /// Steps in an epoch: a last batch that is not full is left out.
    pub fn steps(&self) -> usize {
        let [train, search] = self.samples();
        train.min(search) / self.config.batch
    }
    /// Epochs done, and steps done in the one that has begun.
    pub fn position(&self) -> (usize, usize) {
        (self.epoch, self.step)
    }
    /// A row an edge, a column an operation, `none` first; of cells that keep the size of the images, and of
    /// those that halve it.
    pub fn alphas(&self) -> [&Tensor; 2] {
        self.net.alphas(&self.params)
    }
    /// What the alphas stand for.
    pub fn genotype(&self, name: &str) -> Genotype {
        self.net.genotype(&self.params, name)
    }

    /// Searches until `tell` says stop (by `false`), or to the end. Says whether the end was reached.
    ///
    /// # Errors
    /// If a loss or gradient is not finite: the message names epoch, step, and the first operation whose
    /// value it was.
    pub fn run(
        &mut self,
        mut tell: impl FnMut(&Self, SearchEvent<'_>) -> bool,
    ) -> Result<bool, Error> {
        while self.epoch < self.config.epochs {
            let began = Instant::now();
            let [train, search] = [0, 1].map(|half| self.batches(half));
            let (mut train_loss, mut search_loss, mut right) = (0.0, 0.0, 0);
            for (of_weights, of_alphas) in train.into_iter().zip(search) {
                let (loss, found) = self.step_alphas(&of_alphas)?;
                search_loss += f64::from(loss);
                right += found;
                let loss = self.step_weights(&of_weights)?;
                train_loss += f64::from(loss);
                self.step += 1;
                if !tell(self, SearchEvent::Step { loss }) {
                    return Ok(false);
                }
            }
            let steps = self.steps() as f64;
            (self.epoch, self.step) = (self.epoch + 1, 0);
            let done = SearchEpoch {
                epoch: self.epoch,
                train_loss: train_loss / steps,
                search_loss: search_loss / steps,
                search_accuracy: right as f64 / (steps * self.config.batch as f64),
                seconds: began.elapsed().as_secs_f64(),
                genotype: self.genotype("found").to_string(),
            };
            if !tell(self, SearchEvent::Epoch(&done)) {
                return Ok(self.epoch == self.config.epochs);
            }
        }
        Ok(true)
    }

    fn batches(&self, half: usize) -> Batches {
        // Each half has an order of its own.
        self.halves[half]
            .batches(self.config.batch)
            .normalise(&self.mean, &self.std)
            .shuffle(true)
            .drop_last(true)
            .augment(self.augment)
            .seed(self.config.seed)
            .epoch(2 * self.epoch as u64 + half as u64)
            .workers(self.workers)
    }

    /// The loss before the step, and how many images were told right.
    fn step_alphas(&mut self, batch: &Batch) -> Result<(f32, usize), Error> {
        self.params.freeze("");
        self.params.unfreeze("alphas");
        let tape = self.tape();
        let (loss, right, grads) = {
            let logits = self.net.forward(&tape.constant(batch));
            let loss = logits.cross_entropy(&batch.labels);
            let found = classes(logits.value());
            let right = found.iter().zip(&batch.labels).filter(|(a, b)| a == b).count();
            (loss.value().item(), right, loss.backward())
        };
        if !loss.is_finite() || !grads.norm().is_finite() {
            return Err(self.blame(batch, loss));
        }
        self.alphas.step(&mut self.params, &grads);
        Ok((loss, right))
    }

    fn step_weights(&mut self, batch: &Batch) -> Result<f32, Error> {
        self.params.unfreeze("");
        self.params.freeze("alphas");
        let tape = self.tape();
        let (loss, grads) = {
            let loss = self.loss(&tape, batch);
            (loss.value().item(), loss.backward())
        };
        if !loss.is_finite() || !grads.norm().is_finite() {
            return Err(self.blame(batch, loss));
        }
        self.weights.step(&mut self.params, &grads);
        Ok(loss)
    }

    fn tape(&self) -> Tape<'_> {
        let at = [self.epoch as u64, self.step as u64];
        let progress = self.epoch as f32 / self.config.epochs as f32;
        Tape::train(&self.params).at(progress).drawing(self.config.seed, at).quick()
    }

    fn loss<'t>(&self, tape: &'t Tape<'t>, batch: &Batch) -> Var<'t> {
        self.net.forward(&tape.constant(batch)).cross_entropy(&batch.labels)
    }

    /// Takes the step once more, with an eye on every value.
    fn blame(&self, batch: &Batch, loss: f32) -> Error {
        let tape = self.tape().watching(Watch::finite());
        let again = self.loss(&tape, batch);
        if again.value().item().is_finite() {
            again.backward();
        }
        let first = match tape.watched() {
            Watch::Finite(first) => first.borrow().clone(),
            _ => None,
        };
        let what = first.map_or_else(|| format!("the loss is {loss}"), |first| first.to_string());
        Error::Training(format!("epoch {}, step {}: {what}", self.epoch + 1, self.step + 1))
    }

    /// Writes what was found, and what from, to a file that `darts(genotype=FILE)` takes.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let genotype = self.genotype("found").to_toml();
        let text = |text: &str| toml::Value::from(text).to_string();
        let SearchConfig { data, method, epochs, batch, channels, cells, seed, .. } = &self.config;
        let [train, search] = self.samples();
        files::write_whole(path, |out| {
            writeln!(
                out,
                "# Found by a search: dirnet train --arch \"darts(genotype=FILE)\" takes it."
            )?;
            write!(out, "{genotype}")?;
            writeln!(out, "\n[search]")?;
            writeln!(out, "version = {}", text(env!("CARGO_PKG_VERSION")))?;
            writeln!(out, "data = {}\nmethod = {}", text(data), text(method))?;
            writeln!(out, "seed = {seed}\nepochs = {epochs}\nbatch = {batch}")?;
            writeln!(out, "channels = {channels}\ncells = {cells}")?;
            writeln!(out, "train_samples = {train}\nsearch_samples = {search}")?;
            let names = Operation::ALL.map(|operation| text(operation.name())).join(", ");
            writeln!(out, "operations = [\"none\", {names}]")?;
            writeln!(out, "# A row an edge: those of the first node, of the second, and so on.")?;
            for (kind, alphas) in ["normal", "reduce"].iter().zip(self.alphas()) {
                writeln!(out, "alphas_{kind} = [")?;
                for row in alphas.chunks(alphas.shape()[1]) {
                    writeln!(out, "    {row:?},")?;
                }
                writeln!(out, "]")?;
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Search({:?} at {}, {})", self.config, self.epoch, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> SearchConfig {
        SearchConfig {
            data: "digits".into(),
            epochs: 2,
            batch: 16,
            channels: 2,
            cells: 2,
            seed,
            limit_train: 64,
            ..SearchConfig::default()
        }
    }

    fn alphas(config: SearchConfig, threads: usize) -> [Tensor; 2] {
        let data = dirnet_datasets::digits();
        dirnet_kernels::par::with_threads(threads, || {
            let mut search = Search::new(config, &data).unwrap();
            assert!(search.run(|_, _| true).unwrap());
            search.alphas().map(Clone::clone)
        })
        .unwrap()
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let first = alphas(small(1), 1);
        assert_eq!(first, alphas(small(1), 2));
        assert_ne!(first, alphas(small(2), 1));
        let method = "dir-net".to_string();
        assert_ne!(first, alphas(SearchConfig { method, ..small(1) }, 1));
    }

    #[test]
    fn both_halves_are_learned_from_and_the_file_says_what_was_found() {
        let data = dirnet_datasets::digits();
        let mut search = Search::new(SearchConfig { cells: 3, ..small(1) }, &data).unwrap();
        assert_eq!((search.samples(), search.steps()), ([32, 32], 2));
        let before = search.alphas().map(Clone::clone);
        let mut epochs = Vec::new();
        let ended = search.run(|_, event| {
            if let SearchEvent::Epoch(epoch) = event {
                epochs.push(epoch.clone());
            }
            true
        });
        assert!(ended.unwrap());
        assert_eq!(epochs.len(), 2);
        assert!(epochs.iter().all(|e| e.train_loss > 0.0 && e.search_loss > 0.0));
        for (before, after) in before.iter().zip(search.alphas()) {
            // Adam's step is never far from its rate, and there were four.
            let moved = before.iter().zip(&**after).map(|(a, b)| (a - b).abs());
            let moved: Vec<f32> = moved.collect();
            assert!(moved.iter().all(|&m| m > 0.0 && m < 4.0 * 4e-4), "{moved:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("found.toml");
        search.save(&path).unwrap();
        assert_eq!(Genotype::read(&path).unwrap(), search.genotype("found"));
        let table: toml::Table = files::read_text(&path).unwrap().parse().unwrap();
        let alpha = |row: usize, column: usize| {
            table["search"]["alphas_reduce"][row][column].as_float().unwrap() as f32
        };
        assert_eq!(alpha(13, 7), search.alphas()[1][13 * 8 + 7]);
    }

    #[test]
    fn what_can_not_be_searched_is_named() {
        let data = dirnet_datasets::digits();
        for (config, expected) in [
            (SearchConfig { batch: 33, ..small(0) }, "batch is 33, but a half"),
            (SearchConfig { epochs: 0, ..small(0) }, "epochs is 0, expected at least 1"),
            (SearchConfig { cells: 65, ..small(0) }, "cells is 65, expected 1 to 64"),
            (SearchConfig { channels: 3, ..small(0) }, "channels is 3, expected an even number"),
        ] {
            let message = Search::new(config, &data).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
