//! `dirnet pack`

use super::loaded::{is_packed, load};
use super::output::{Output, bytes, table};
use super::summary::float_bytes;
use super::{DataDir, model_file, open_data};
use crate::deploy::{self, Floats, Packed};
use crate::files::write_whole;
use crate::models::Card;
use crate::train::{Score, score};
use crate::{Error, Tensor};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Pack a trained network: one bit a binary weight, in a file that needs nothing else.
///
/// What follows a binary layer, its scale, batch norm and the next sign, is folded into thresholds or
/// factors wherever that changes no bit of any result. Layers that the method leaves in float, such as
/// stem and head, stay so and are listed; --floats rounds them, and then tells what that costs on the test
/// images. A layer that the method calls binary and that bits do not hold is refused by name.
///
/// With --json: file, bytes, layers_packed and layers_float (how many), saving (bytes of all parameters and
/// running statistics in 32 bits, to those of the file); with --floats f16 or i8 also accuracy_trained and
/// accuracy_packed.
#[derive(Args, Debug)]
pub(super) struct Pack {
    /// Folder of a run, or its model as .npz or .safetensors
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE.dirnet", value_parser = named)]
    output: PathBuf,
    /// A binary layer that may stay float; may be given again
    #[arg(long, value_name = "LAYER")]
    allow_float: Vec<String>,
    /// How weights that stay floats are stored
    #[arg(long, value_name = "FORM", default_value = "f32", value_parser = form)]
    floats: Form,
    #[command(flatten)]
    data_dir: DataDir,
}

type Form = (&'static str, Floats);

fn form(text: &str) -> Result<Form, String> {
    let forms = [("f32", Floats::F32), ("f16", Floats::F16), ("i8", Floats::I8)];
    let known = forms.into_iter().find(|(name, _)| *name == text);
    known.ok_or_else(|| "expected f32, f16 or i8".to_string())
}

fn named(name: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(name);
    match is_packed(&path) {
        true => Ok(path),
        false => Err("expected a name that ends in .dirnet, and is no folder".to_string()),
    }
}

#[derive(Serialize)]
struct Done {
    file: String,
    bytes: usize,
    layers_packed: usize,
    layers_float: usize,
    saving: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_trained: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_packed: Option<f64>,
}

impl Pack {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (params, model, card) = Card::load(&model_file(&self.model)?)?;
        let (packed, report) =
            deploy::pack(&params, &model, &card, self.floats.1, &self.allow_float)?;
        let file = packed.to_bytes();
        // What a reader refuses, such as a network of too many operations, is no file to leave behind.
        Packed::from_bytes(&file).map_err(|e| Error::Setting(format!("the packed network {e}")))?;
        // What is lost is told on these; without them nothing is written.
        let test = match self.floats.1 {
            Floats::F32 => None,
            Floats::F16 | Floats::I8 => Some(open_data(&card.data, &self.data_dir)?.test),
        };
        write_whole(&self.output, |out| out.write_all(&file))?;
        let float_bytes = float_bytes(&params, &model);
        let saving = float_bytes as f64 / file.len() as f64;
        let layers_float: Vec<_> = report.float.into_iter().map(|layer| layer.name).collect();
        out.line(&layers(&packed));
        out.line(&format!(
            "{}: {}, {saving:.1} times smaller than {} in 32 bits; {} layers in bits, {} in floats ({})",
            self.output.display(),
            bytes(file.len()),
            bytes(float_bytes),
            report.packed.len(),
            layers_float.len(),
            layers_float.join(", "),
        ));
        let mut done = Done {
            file: self.output.display().to_string(),
            bytes: file.len(),
            layers_packed: report.packed.len(),
            layers_float: layers_float.len(),
            saving,
            accuracy_trained: None,
            accuracy_packed: None,
        };
        if let Some(test) = test {
            let of = |path: &PathBuf| -> Result<Score, Error> {
                let (mut model, card) = load(path)?;
                let batches = test.batches(250).normalise(&card.mean, &card.std);
                Ok(score(batches, |images: &Tensor| model.logits(images)))
            };
            let [trained, rounded] = [of(&self.model)?, of(&self.output)?].map(|s| s.accuracy);
            out.line(&format!(
                "accuracy {:.2} % with floats as {}, {:.2} % as trained, on the test images of {}",
                100.0 * rounded,
                self.floats.0,
                100.0 * trained,
                card.data
            ));
            (done.accuracy_trained, done.accuracy_packed) = (Some(trained), Some(rounded));
        }
        out.object(&done);
        Ok(())
    }
}

/// Each array of the file: its form and size.
fn layers(packed: &Packed) -> String {
    let row = |n: &dirnet_engine::Numbers| {
        let shape: Vec<_> = n.shape.iter().map(usize::to_string).collect();
        vec![n.name.clone(), shape.join("x"), n.form().to_string(), bytes(n.bytes())]
    };
    let rows: Vec<Vec<String>> = packed.graph.numbers.iter().map(row).collect();
    table(&["array", "shape", "form", "bytes"], 3, rows)
}
