//! `dirnet eval`

use super::loaded::load;
use super::output::Output;
use super::{DataDir, open_data};
use crate::Error;
use crate::models::Card;
use crate::train::score;
use clap::Args;
use dirnet_datasets::Dataset;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Accuracy and loss of a trained model on the test images.
#[derive(Args, Debug)]
pub(super) struct Eval {
    /// Folder of a run, its model as .npz or .safetensors, or a packed .dirnet
    model: PathBuf,
    /// Another data set than the one it was trained on
    #[arg(long)]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Use only so many test images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit_test: Option<u32>,
}

#[derive(Serialize)]
struct Evaluated {
    command: &'static str,
    model: String,
    data: String,
    samples: usize,
    loss: f64,
    accuracy: f64,
    seconds: f64,
}

impl Eval {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (mut model, card) = load(&self.model)?;
        let name = self.data.as_ref().unwrap_or(&card.data);
        let data = open_data(name, &self.data_dir)?;
        fits(&data, name, &card)?;
        let test = match self.limit_test {
            Some(n) => data.test.take(n as usize),
            None => data.test,
        };
        let began = Instant::now();
        let batches = test.batches(250).normalise(&card.mean, &card.std);
        let score = score(batches, |images| model.logits(images));
        out.line(&format!(
            "accuracy {:.2} %, loss {:.4}, on {} images of {name}",
            100.0 * score.accuracy,
            score.loss,
            score.samples
        ));
        out.object(&Evaluated {
            command: "eval",
            model: self.model.display().to_string(),
            data: name.clone(),
            samples: score.samples,
            loss: score.loss,
            accuracy: score.accuracy,
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(())
    }
}

/// Looks whether a data set is one that a model can be asked about.
pub(super) fn fits(data: &Dataset, name: &str, card: &Card) -> Result<(), Error> {
    if data.shape() != card.input {
        return Err(Error::Setting(format!(
            "{name}: images are {:?} (channels, height, width), the model expects {:?}",
            data.shape(),
            card.input
        )));
    }
    if data.classes.len() != card.classes.len() {
        return Err(Error::Setting(format!(
            "{name}: {} classes, the model tells {} apart",
            data.classes.len(),
            card.classes.len()
        )));
    }
    Ok(())
}
