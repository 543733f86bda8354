//! `dirnet bench`

mod infer;
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
    Infer(infer::InferBench),
    Kernels(kernels::KernelBench),
    Train(train::TrainBench),
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Bench {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        match self.what {
            What::Infer(bench) => bench.run(out),
            What::Kernels(bench) => bench.run(out),
            What::Train(bench) => bench.run(out),
        }
    }
}
