//! Training by configuration: what `dirnet train` does, as a library.
//!
//! A [`Config`] says everything about a run; a [`Trainer`] is one, and can be stopped and taken up
//! again at any step without changing a bit of the result; a [`Run`] is its folder.

mod checkpoint;
mod config;
mod evaluate;
mod layers;
mod run;
mod search;
mod teacher;
mod trainer;

pub use config::Config;
pub use evaluate::{Score, evaluate, score};
pub use layers::Layer;
pub(crate) use run::default_name;
pub use run::{Run, weights_sha256};
pub use search::{Search, SearchConfig, SearchEpoch, SearchEvent};
pub(crate) use teacher::{Answer, keeping, teachers_tape};
pub use trainer::{Epoch, Event, Handover, Trainer};

use crate::Tensor;
use dirnet_datasets::Batch;

impl From<&Batch> for Tensor {
    /// The images of a batch, `N C H W`.
    fn from(batch: &Batch) -> Tensor {
        Tensor::build(batch.shape, |y| y.copy_from_slice(&batch.images))
    }
}
