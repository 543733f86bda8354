//! `dirnet bench`

mod train;

use super::output::Output;
use crate::Error;
use clap::{Args, Subcommand};

/// Time this machine.
#[derive(Args, Debug)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One training step: where its time goes, and what it holds for its way back
    Train(train::TrainBench),
}

impl Bench {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        match self.what {
            What::Train(bench) => bench.run(out),
        }
    }
}
