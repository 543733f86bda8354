//! `dirnet eval`

use super::output::Output;
use super::{DataDir, model_file, open_data};
use crate::Error;
use crate::models::Card;
use crate::train::evaluate;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Accuracy and loss of a trained model on the test images.
#[derive(Args, Debug)]
pub(super) struct Eval {
    /// Folder of a run, or its model as .npz or .safetensors
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
        let (params, model, card) = Card::load(&model_file(&self.model)?)?;
        let name = self.data.as_ref().unwrap_or(&card.data);
        let data = open_data(name, &self.data_dir)?;
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
        let test = match self.limit_test {
            Some(n) => data.test.take(n as usize),
            None => data.test,
        };
        let began = Instant::now();
        let score = evaluate(&model, &params, test.batches(250).normalise(&card.mean, &card.std));
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
