//! `dirnet export`

use super::model_file;
use super::output::{Output, bytes, thousands};
use crate::Error;
use crate::deploy::onnx::{Unpack, export};
use crate::models::Card;
use crate::train::weights_sha256;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model for other programs: as ONNX, which other runtimes run, or its parameters alone.
///
/// An ONNX file computes logits of images (N C H W; pixels from 0 to 1, less mean, divided by std). It has
/// standard operators only, and binary weights as bits, which a function within the file unpacks. Its
/// metadata_props say what the model says of itself. How to run it in Python: docs/onnx.md.
///
/// The other files have the parameters by PyTorch's names, in 32-bit floats. What the model says of itself
/// goes along (architecture, method, classes, size and preprocessing of the images, data set), so that eval,
/// predict, summary and train --init take the file as they take a run. It is a text in JSON: the entry
/// card.json of a safetensors file's __metadata__; in an npz file, the array of bytes card.json. Python reads
/// such files with safetensors.torch.load_file(FILE), or numpy.load(FILE).
///
/// With --json: command ("export"), model, file, format ("onnx", "safetensors" or "npz"), arrays (how many),
/// params (learned numbers), bytes (of the file), weights_sha256 (as train gives it).
#[derive(Args, Debug)]
pub(super) struct Export {
    /// Folder of a run, or its model as .npz or .safetensors
    #[arg(value_name = "RUN")]
    model: PathBuf,
    #[command(flatten)]
    file: Target,
    /// In an ONNX file, put the nodes that unpack bits at every place, for runtimes that expand no functions
    #[arg(long, conflicts_with_all = ["safetensors", "npz"])]
    inline: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// Write an ONNX file
    #[arg(long, value_name = "FILE", value_parser = |name: &str| named(name, "onnx"))]
    onnx: Option<PathBuf>,
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
        let (params, model, card) = Card::load(&model_file(&self.model)?)?;
        let (format, file, arrays, what) = match self.file {
            Target { onnx: Some(file), .. } => {
                let unpack = if self.inline { Unpack::Inline } else { Unpack::Function };
                let network = export(&params, &model, &card, unpack)?;
                network.save(&file)?;
                let [nodes, arrays] =
                    network.graph.map_or([0; 2], |g| [g.node.len(), g.initializer.len()]);
                ("onnx", file, arrays, format!("{nodes} nodes and {arrays} arrays"))
            }
            Target { safetensors, npz, .. } => {
                let format = if safetensors.is_some() { "safetensors" } else { "npz" };
                let file = safetensors.or(npz).unwrap_or_default();
                card.save(&params, &file)?;
                let numbers = thousands(params.iter().map(|(_, p)| p.value.len()).sum());
                let arrays = params.len();
                let what =
                    format!("{numbers} parameters and running statistics in {arrays} arrays");
                (format, file, arrays, what)
            }
        };
        let size = file.metadata().map_err(|e| Error::io(&file, e))?.len();
        out.line(&format!("{}: {what}, {}", file.display(), bytes(size as usize)));
        out.object(&Exported {
            command: "export",
            model: self.model.display().to_string(),
            file: file.display().to_string(),
            format,
            arrays,
            params: params.count(),
            bytes: size,
            weights_sha256: weights_sha256(&params),
        });
        Ok(())
    }
}
