//! All that a run needs to go on, in one file that is either whole or the one before.

use super::config::Config;
use super::layers::Signs;
use super::trainer::{Position, Trainer};
use crate::{Error, Params, Tensor, archive};
use dirnet_datasets::Dataset;
use std::collections::HashMap;
use std::path::Path;

const POSITION: &str = "position.json";
const PARAMS: &str = "params/";
const OPTIMIZER: &str = "optimizer/";
const SIGNS: &str = "signs/";

impl Trainer {
    /// Writes parameters, optimiser and position. Randomness needs no state: every draw is keyed
    /// by seed, epoch and step.
    ///
    /// # Errors
    /// If it can't be written, or a parameter is not finite: the file before is then kept.
    pub fn save_checkpoint(&self, path: &Path) -> Result<(), Error> {
        let state = self.optimizer.state(&self.params);
        let params = self.params.iter().map(|(_, p)| (format!("{PARAMS}{}", p.name), &p.value));
        let state = state.iter().map(|(name, x)| (format!("{OPTIMIZER}{name}"), x));
        let (flips, signs) = self.signs.state();
        let signs = signs.iter().map(|(name, x)| (format!("{SIGNS}{name}"), x));
        let arrays: Vec<(String, &Tensor)> = params.chain(state).chain(signs).collect();
        for (name, x) in &arrays {
            if dirnet_kernels::reduce::first_non_finite(x).is_some() {
                return Err(Error::Training(format!(
                    "epoch {}, step {}: {name} is not finite; a smaller learning rate may help",
                    self.at.epoch + 1,
                    self.at.step,
                )));
            }
        }
        let at = Position { flips, ..self.at.clone() };
        let position = serde_json::to_string(&at).expect("numbers");
        let arrays = arrays.iter().map(|(name, x)| (name.as_str(), *x));
        archive::save(path, arrays, &[(POSITION, &position)])
    }

    /// Takes a run up where its checkpoint left it.
    ///
    /// # Errors
    /// If the file can't be read, or is of another configuration: what does not fit is named.
    pub fn resume(config: Config, data: &Dataset, path: &Path) -> Result<Self, Error> {
        let mut trainer = Trainer::new(config, data)?;
        let contents = archive::load(path)?;
        let position = contents
            .texts
            .get(POSITION)
            .ok_or_else(|| Error::file(path, format!("no entry {POSITION}: not a checkpoint")))?;
        let position: Position = serde_json::from_str(position)
            .map_err(|e| Error::file(path, format!("entry {POSITION}: {e}")))?;
        let (mut params, mut optimizer, mut signs) =
            (HashMap::new(), HashMap::new(), HashMap::new());
        for (name, x) in contents.arrays {
            if let Some(name) = name.strip_prefix(PARAMS) {
                params.insert(name.to_string(), x);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                optimizer.insert(name.to_string(), x);
            } else if let Some(name) = name.strip_prefix(SIGNS) {
                signs.insert(name.to_string(), x);
            } else {
                return Err(Error::file(path, format!("unknown entry {name}")));
            }
        }
        let (_, stages) = trainer.stage();
        if position.stage >= stages {
            let stage = position.stage + 1;
            return Err(Error::file(path, format!("stands in stage {stage}, expected {stages}")));
        }
        if position.epoch > trainer.epochs() || position.step > trainer.steps() {
            return Err(Error::file(
                path,
                format!(
                    "stands at epoch {}, step {}, beyond {} epochs of {} steps",
                    position.epoch,
                    position.step,
                    trainer.epochs(),
                    trainer.steps()
                ),
            ));
        }
        if position.stage > 0 {
            trainer.enter(position.stage, Params::new())?;
        }
        trainer.params.assign(params, &[]).map_err(|wrong| Error::file(path, wrong))?;
        trainer
            .optimizer
            .restore(&trainer.params, optimizer)
            .map_err(|e| Error::file(path, e.to_string()))?;
        trainer.signs =
            Signs::restore(&position.flips, signs).map_err(|e| Error::file(path, e.to_string()))?;
        trainer.at = position;
        Ok(trainer)
    }
}
