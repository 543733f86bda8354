//! Runs packed binary networks: no tape, no trainer, no allocation after the first image.
//!
//! A [`Packed`] network is one file: a bit for each binary weight, thresholds or factors for what follows a
//! binary layer, floats for the rest, and what it says of itself. [`Net`] lays it out for a number of images
//! at once, and runs it. `dirnet pack` writes such files; `docs/format.md` has them byte by byte.
//!
//! ```no_run
//! use dirnet_engine::{Net, Packed};
//!
//! let Packed { card, graph } = Packed::from_bytes(&std::fs::read("net.dirnet")?)?;
//! let mut net = Net::new(graph, 1)?;
//! let pixels = [0u8; 28 * 28]; // C H W
//! let mut image = [0.0; 28 * 28];
//! card.normalise(&pixels, &mut image);
//! println!("{:?}", net.run(&image)); // a number for each of card.classes
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a file says is looked at before anything is believed: see [`Graph::check`] and [`Load`].
#![forbid(unsafe_code)]

mod compute;
mod file;
mod graph;
mod limits;
mod net;
mod numbers;
mod op;
mod plan;
mod shape;

pub use file::{Broken, Card, MAGIC, Packed, normalise};
pub use graph::{Graph, Node, Source};
pub use limits::Load;
pub use net::{Net, Planes, Seen};
pub use numbers::{Bits, Form, Numbers, Threshold, Values};
pub use op::{Op, Then};
