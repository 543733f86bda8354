//! `dirnet verify`

use super::loaded::read_packed;
use super::output::Output;
use super::{DataDir, model_file, open_data};
use crate::models::Card;
use crate::{Error, Params, Tape, Tensor, deploy};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Run a packed network and the trained one side by side, and compare every number between their layers.
///
/// Floats must be equal to the bit, and where only signs are read, signs. It stops at the first
/// difference and names layer, channel and pixel.
///
/// With --json: images, layers (operations compared for each image), equal, and if it is false image,
/// layer, channel, pixel (row and column), trained, packed.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The packed network
    #[arg(value_name = "FILE.dirnet")]
    file: PathBuf,
    /// Folder of the run it was packed from, or its model as .npz or .safetensors
    #[arg(value_name = "RUN")]
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
struct Verified {
    images: usize,
    layers: usize,
    equal: bool,
    #[serde(flatten)]
    difference: Option<Differs>,
}

#[derive(Serialize)]
struct Differs {
    image: usize,
    layer: String,
    channel: usize,
    pixel: [usize; 2],
    trained: f32,
    packed: f32,
}

/// Images of a batch.
const BATCH: usize = 50;

impl Verify {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let packed = read_packed(&self.file)?;
        let (params, model, card) = Card::load(&model_file(&self.model)?)?;
        let name = self.data.as_ref().unwrap_or(&card.data);
        let data = open_data(name, &self.data_dir)?;
        super::eval::fits(&data, name, &card)?;
        let test = match self.limit_test {
            Some(n) => data.test.take(n as usize),
            None => data.test,
        };
        let images = test.len();
        let bar = out.bar(images as u64, "images");
        let nothing = Params::new();
        let batches = test.batches(BATCH).normalise(&card.mean, &card.std).into_iter();
        let batches = batches.map(|batch| -> Tensor {
            bar.inc(batch.labels.len() as u64);
            Tape::eval(&nothing).constant(&batch).value().clone()
        });
        let found = deploy::verify(&params, &model, &packed, batches)?;
        bar.finish_and_clear();
        let layers = packed.graph.nodes.len();
        let mut verified = Verified { images, layers, equal: found.is_none(), difference: None };
        let Some(found) = found else {
            out.line(&format!(
                "equal: {layers} operations on each of {images} images of {name}, floats to the bit"
            ));
            out.object(&verified);
            return Ok(());
        };
        let (layer, channel, [row, column]) = (&found.layer, found.channel, found.pixel);
        let message = format!(
            "{}: differs from {} first in {layer}, channel {channel}, pixel {row}, {column} of image {}: \
             {} packed, {} trained",
            self.file.display(),
            self.model.display(),
            found.image,
            found.packed,
            found.trained
        );
        verified.difference = Some(Differs {
            image: found.image,
            layer: found.layer,
            channel,
            pixel: found.pixel,
            trained: found.trained,
            packed: found.packed,
        });
        out.object(&verified);
        Err(Error::Setting(message))
    }
}
