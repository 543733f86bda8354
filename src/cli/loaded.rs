//! A model as a file has it: trained, or packed.

use super::model_file;
use crate::deploy::{self, Net, Packed};
use crate::models::{Card, Model};
use crate::nn::Module;
use crate::{Error, Params, Tape, Tensor};
use std::path::Path;

/// Images that a packed network is laid out for at once.
const BATCH: usize = 50;

/// Something that makes logits of images.
pub(super) enum Loaded {
    /// From a run, `.npz` or `.safetensors`.
    Trained(Box<(Params, Model)>),
    /// From `.dirnet`.
    Packed(Box<Net>),
}

/// The model of a run's folder or of a file, and what it says of itself.
pub(super) fn load(path: &Path) -> Result<(Loaded, Card), Error> {
    if is_packed(path) {
        let packed = read_packed(path)?;
        let card = deploy::card(&packed);
        let net = Net::new(packed.graph, BATCH).map_err(|e| Error::file(path, e.to_string()))?;
        return Ok((Loaded::Packed(Box::new(net)), card));
    }
    let (params, model, card) = Card::load(&model_file(path)?)?;
    Ok((Loaded::Trained(Box::new((params, model))), card))
}

/// Whether a file's name says that it is packed.
pub(super) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("dirnet")) && !path.is_dir()
}

pub(super) fn read_packed(path: &Path) -> Result<Packed, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    Packed::from_bytes(&bytes).map_err(|e| Error::file(path, e.to_string()))
}

impl Loaded {
    /// The logits of a batch of images.
    pub fn logits(&mut self, images: &Tensor) -> Tensor {
        match self {
            Loaded::Trained(trained) => {
                let tape = Tape::eval(&trained.0);
                trained.1.forward(&tape.constant(images)).value().clone()
            }
            Loaded::Packed(net) => {
                let n = images.shape()[0];
                let size = images.len() / n.max(1);
                let outputs = net.outputs();
                Tensor::build([n, outputs], |y| {
                    let batches =
                        images.chunks(size * net.batch()).zip(y.chunks_mut(outputs * BATCH));
                    batches.for_each(|(images, y)| y.copy_from_slice(net.run(images)));
                })
            }
        }
    }
}
