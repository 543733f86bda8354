//! The study of methods and estimators: runs that differ in one thing only, and what can be said of
//! the difference; what the curves look like, and how much of a tensor they leave able to learn.
//!
//! [`Contest`] says which runs there are, [`Results`] keeps what came out of each, a line a run, and
//! [`Contest::summary`] compares them, seed by seed. Training itself is [`train`](mod@crate::train)'s.
//! [`Curve`] is an estimator at one moment, [`updatable`] the share of a tensor that still learns by it.

mod contest;
mod curves;
mod paired;
mod results;

pub use contest::{Contest, Entry, Summary, VARIANTS};
pub use curves::{Curve, DISTRIBUTIONS, Distribution, updatable};
pub use paired::{Paired, mean, std, student_t};
pub use results::{Line, Results};
