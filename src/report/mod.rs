//! What was found, for the eye: pictures as SVG, which any browser shows.

mod plot;

pub use plot::{Chart, Ink, Line, Panel, Plot};
