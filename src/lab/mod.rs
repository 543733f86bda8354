//! The study of methods and estimators: runs that differ in one thing only, and what can be said of
//! the difference.
//!
//! [`Contest`] says which runs there are, [`Results`] keeps what came out of each, a line a run, and
//! [`Contest::summary`] compares them, seed by seed. Training itself is [`train`](mod@crate::train)'s.

mod contest;
mod paired;
mod results;

pub use contest::{Contest, Entry, Summary, VARIANTS};
pub use paired::{Paired, mean, std, student_t};
pub use results::{Line, Results};
