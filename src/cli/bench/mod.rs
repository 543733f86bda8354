//! `dirnet bench`

mod infer;
mod kernels;
mod train;

use super::output::Output;
use crate::models::{Model, Task};
use crate::{Error, Params, Rng};
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

/// A network with fresh parameters, for ten classes.
fn build(
    arch: &str,
    method: &str,
    input: [usize; 3],
    rng: &mut Rng,
) -> Result<(Params, Model), Error> {
    let mut params = Params::new();
    let task = Task { input, classes: 10 };
    let model = Model::new(&mut params, &arch.parse()?, &method.parse()?, &task, rng)?;
    Ok((params, model))
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
