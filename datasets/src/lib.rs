//! Image sets for `dirnet`: bytes, labels and seeded order. This crate knows no tensor and no kernel.
//!
//! ```
//! let data = dirnet_datasets::digits();
//! assert_eq!((data.train.len(), data.test.len()), (1347, 450));
//! for batch in data.train_batches(64).seed(7).epoch(0) {
//!     let [n, _, _, _] = batch.shape;
//!     assert_eq!((batch.images.len(), batch.labels.len()), (n * 8 * 8, n));
//! }
//! ```
#![forbid(unsafe_code)]

mod augment;
mod batches;
pub mod cifar;
mod dataset;
mod digits;
mod error;
mod fashion;
#[cfg(feature = "fetch")]
mod fetch;
mod files;
pub mod folder;
pub mod idx;
mod image;
pub mod npz;
mod open;
mod rng;

pub use augment::Augment;
pub use batches::{Batch, BatchIter, Batches};
pub use dataset::{Dataset, Split};
pub use digits::digits;
pub use error::Error;
pub use fashion::fashion_mini;
#[cfg(feature = "fetch")]
pub use fetch::{Progress, fetch};
pub use image::Image;
pub use open::{Info, home, list, open};
pub use rng::Rng;
