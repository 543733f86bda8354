//! The command `dirnet`: what its words mean, and how results reach people and scripts.
//!
//! Exit status: 0 done; 1 failed, with one `error:` line; 2 a wrong command line; 130 stopped by
//! Ctrl-C, with everything saved.

mod bench;
mod curves;
mod data;
mod eval;
mod export;
mod lab;
mod loaded;
mod output;
mod pack;
mod predict;
mod search;
mod summary;
mod train;
mod verify;

use crate::Error;
use clap::{Args, Parser, Subcommand};
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

/// Binary neural networks from scratch: train with the bits, run with the bits.
#[derive(Debug, Parser)]
#[command(name = "dirnet", version, arg_required_else_help = true, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

/// What every verb understands.
#[derive(Args, Debug)]
#[command(next_help_heading = "Common options")]
struct Common {
    /// One JSON object a result on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Results only, no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Tell more
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Worker threads [default: all cores]; the numbers do not depend on them
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train a network; with no argument at all, a DIR-Net on the embedded Fashion-MNIST images
    Train(Box<train::Train>),
    /// Accuracy and loss of a trained model on the test images
    Eval(eval::Eval),
    /// Classes, with their probabilities, of PNG and JPEG files
    Predict(predict::Predict),
    /// A table of a network's layers: parameters, multiply-adds, bytes
    Summary(summary::Summary),
    Pack(pack::Pack),
    Verify(verify::Verify),
    Export(export::Export),
    /// Data sets: what is here, what is in one, download one
    Data(data::Data),
    /// Time this machine
    Bench(bench::Bench),
    /// The study of methods and estimators: comparisons over several seeds, curves
    Lab(Box<lab::Lab>),
    /// Search for the cells of a network
    Search(search::Search),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let out = Output::new(command.common.json, command.common.quiet, command.common.verbose);
    let threads = command
        .common
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let run = || dispatch(command.verb, &out);
    let result = match dirnet_kernels::simd::choice() {
        Err(e) => Err(Error::Setting(e)),
        Ok(_) => dirnet_kernels::par::with_threads(threads, run)
            .unwrap_or_else(|e| Err(Error::Setting(format!("{threads} threads: {e}")))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted(message)) => {
            out.note(&message);
            ExitCode::from(130)
        }
        Err(e) => {
            out.error(&e);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb, out: &Output) -> Result<(), Error> {
    match verb {
        Verb::Train(args) => args.run(out),
        Verb::Eval(args) => args.run(out),
        Verb::Predict(args) => args.run(out),
        Verb::Summary(args) => args.run(out),
        Verb::Pack(args) => args.run(out),
        Verb::Verify(args) => args.run(out),
        Verb::Export(args) => args.run(out),
        Verb::Data(args) => args.run(out),
        Verb::Bench(args) => args.run(out),
        Verb::Lab(args) => args.run(out),
        Verb::Search(args) => args.run(out),
    }
}

/// Where data sets that are not embedded are looked for.
#[derive(Args, Debug, Clone)]
struct DataDir {
    /// Folder of the data sets that are not embedded [default: $DIRNET_DATA, or the user's cache]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// A data set by name.
fn open_data(name: &str, dir: &DataDir) -> Result<dirnet_datasets::Dataset, Error> {
    Ok(dirnet_datasets::open(name, dir.data_dir.as_deref())?)
}

/// A trained model by its file, or by the folder of its run.
fn model_file(path: &std::path::Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let model = crate::train::Run::open(path)?.model();
    if !model.is_file() {
        let why = "no epoch of this run is done yet, so there is no model.npz";
        return Err(Error::file(path, why));
    }
    Ok(model)
}

/// Parsers for arguments that name things, so that a wrong one is a wrong command line.
mod parse {
    use crate::train::Config;
    use crate::{Method, Spec};

    pub(super) fn method(text: &str) -> Result<String, String> {
        // A recipe's file is read now, and not needed again.
        text.parse::<Method>().map(|method| method.to_string()).map_err(|e| e.to_string())
    }
    pub(super) fn arch(text: &str) -> Result<String, String> {
        let spec: Spec = text.parse().map_err(|e: crate::Error| e.to_string())?;
        let names: Vec<_> = crate::models::ARCHS.iter().map(|(name, _)| *name).collect();
        match names.contains(&spec.name.as_str()) {
            // As that of a recipe, the file of a genotype is not needed again.
            true => crate::models::settled(text).map_err(|e| e.to_string()),
            false => Err(crate::error::unknown("architecture", &spec.name, &names).to_string()),
        }
    }
    pub(super) fn estimator(text: &str) -> Result<String, String> {
        let e = text.split_once('=').filter(|(part, _)| ["weights", "activations"].contains(part));
        let name = e.map_or(text, |(_, e)| e);
        crate::binarize::estimator(name).map(|_| text.to_string()).map_err(|e| e.to_string())
    }
    pub(super) fn setting(text: &str) -> Result<(String, String), String> {
        let (key, value) = text.split_once('=').ok_or("expected key=value")?;
        // Whether there is such a stage, the file knows.
        let inner = Config::in_stage(key).map_or(key, |(_, key)| key);
        Config::default().with(inner, value).map_err(|e| e.to_string())?;
        Ok((key.to_string(), value.to_string()))
    }
    /// `CxHxW`
    pub(super) fn input(text: &str) -> Result<[usize; 3], String> {
        let sizes: Vec<usize> =
            text.split('x').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
        match <[usize; 3]>::try_from(sizes) {
            Ok(sizes) if sizes.iter().all(|&n| (1..=1024).contains(&n)) => Ok(sizes),
            _ => Err("expected CxHxW, such as 3x32x32, each at most 1024".to_string()),
        }
    }
}
