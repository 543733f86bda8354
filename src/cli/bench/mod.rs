//! `dirnet bench`

mod kernels;
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
    Kernels(kernels::KernelBench),
    Train(train::TrainBench),
}

impl Bench {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        match self.what {
            What::Kernels(bench) => bench.run(out),
            What::Train(bench) => bench.run(out),
        }
    }
}
