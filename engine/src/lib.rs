//! Runs packed binary networks: no tape, no trainer, no allocation after the first image.

mod compute;
mod file;
mod graph;
mod limits;
mod net;
mod numbers;
mod op;
mod shape;

pub use file::{Broken, Card, MAGIC, Packed};
pub use graph::{Graph, Node, Source};
pub use limits::Load;
pub use net::{Net, Planes, Seen};
pub use numbers::{Bits, Form, Numbers, Threshold, Values};
pub use op::{Op, Then};
