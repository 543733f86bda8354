//! `dirnet predict`

use super::loaded::load;
use super::output::{Output, table};
use crate::models::Card;
use crate::{Error, Params, Tape, Tensor};
use clap::Args;
use dirnet_datasets::Image;
use serde::Serialize;
use std::path::PathBuf;

/// Classes, with their probabilities, of PNG and JPEG files.
#[derive(Args, Debug)]
pub(super) struct Predict {
    /// Folder of a run, its model as .npz or .safetensors, or a packed .dirnet
    model: PathBuf,
    /// Pictures; brought to the model's size and channels
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// So many of the most probable classes
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
}

#[derive(Serialize)]
struct Predicted {
    image: String,
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    name: String,
    probability: f32,
}

impl Predict {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (mut model, card) = load(&self.model)?;
        let [c, h, w] = card.input;
        if c != 1 && c != 3 {
            return Err(Error::file(
                &self.model,
                format!("takes {c} channels, no picture has that"),
            ));
        }
        let nothing = Params::new();
        let mut rows = Vec::new();
        for path in &self.images {
            let picture = Image::open(path)?.with_channels(c).resize(h, w);
            let mut pixels = Tensor::zeros([1, c, h, w]);
            let Card { mean, std, .. } = &card;
            dirnet_engine::normalise(mean, std, &picture.pixels, pixels.data_mut());
            let tape = Tape::eval(&nothing);
            let p = tape.constant(model.logits(&pixels)).softmax();
            let mut classes: Vec<Class> = card
                .classes
                .iter()
                .zip(p.value().iter())
                .map(|(name, &probability)| Class { name: name.clone(), probability })
                .collect();
            classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
            classes.truncate(self.top.max(1));
            let image = path.display().to_string();
            for (i, class) in classes.iter().enumerate() {
                let image = if i == 0 { image.clone() } else { String::new() };
                let probability = format!("{:.1} %", 100.0 * class.probability);
                rows.push(vec![image, class.name.clone(), probability]);
            }
            out.object(&Predicted { image, classes });
        }
        out.line(&table(&["image", "class", "probability"], 2, rows));
        Ok(())
    }
}
