//! `dirnet export`

use super::model_file;
use super::output::{Output, bytes, thousands};
use crate::Error;
use crate::models::Card;
use crate::train::weights_sha256;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model for other programs: its parameters by PyTorch's names, in 32-bit floats.
///
/// What the model says of itself goes along (architecture, method, classes, size and preprocessing of the
/// images, data set), so that eval, predict, summary and train --init take the file as they take a run. It
/// is a text in JSON: the entry card.json of a safetensors file's __metadata__; in an npz file, the array
/// of bytes card.json.
///
/// Python reads such files with safetensors.torch.load_file(FILE), or numpy.load(FILE).
///
/// With --json: command ("export"), model, file, format ("safetensors" or "npz"), arrays (how many),
/// params (learned numbers), bytes (of the file), weights_sha256 (as train gives it).
#[derive(Args, Debug)]
pub(super) struct Export {
    /// Folder of a run, or its model as .npz or .safetensors
    #[arg(value_name = "RUN")]
    model: PathBuf,
    #[command(flatten)]
    file: Target,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// Write a safetensors file
    #[arg(long, value_name = "FILE", value_parser = |name: &str| named(name, "safetensors"))]
    safetensors: Option<PathBuf>,
    /// Write a file for NumPy
    #[arg(long, value_name = "FILE", value_parser = |name: &str| named(name, "npz"))]
    npz: Option<PathBuf>,
}

/// A file of that form, which its name must say for whoever reads it.
fn named(name: &str, form: &str) -> Result<PathBuf, String> {
    match Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case(form)) {
        true => Ok(name.into()),
        false => Err(format!("expected a name that ends in .{form}")),
    }
}

#[derive(Serialize)]
struct Exported {
    command: &'static str,
    model: String,
    file: String,
    format: &'static str,
    arrays: usize,
    params: usize,
    bytes: u64,
    weights_sha256: String,
}

impl Export {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (params, _, card) = Card::load(&model_file(&self.model)?)?;
        let (format, file) = match (self.file.safetensors, self.file.npz) {
            (Some(file), _) => ("safetensors", file),
            (None, file) => ("npz", file.unwrap_or_default()),
        };
        card.save(&params, &file)?;
        let size = file.metadata().map_err(|e| Error::io(&file, e))?.len();
        out.line(&format!(
            "{}: {} parameters and running statistics in {} arrays, {}",
            file.display(),
            thousands(params.iter().map(|(_, p)| p.value.len()).sum()),
            params.len(),
            bytes(size as usize)
        ));
        out.object(&Exported {
            command: "export",
            model: self.model.display().to_string(),
            file: file.display().to_string(),
            format,
            arrays: params.len(),
            params: params.count(),
            bytes: size,
            weights_sha256: weights_sha256(&params),
        });
        Ok(())
    }
}
