//! `dirnet bench infer`

use super::median;
use crate::cli::output::{Output, bytes, peak_rss_mb, rss_mb};
use crate::cli::parse;
use crate::cli::summary::float_bytes;
use crate::deploy::{self, Floats, Net, Packed};
use crate::models::{Card, Task};
use crate::{Error, Rng, Tensor};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A packed network and the same architecture in float, run by the same engine.
///
/// Images and parameters are made up. Passes of the two take turns; medians count.
///
/// With --json: arch, method, batch, input, threads, ms_packed, ms_float, speedup, bytes_packed (of the file),
/// bytes_float (of parameters and running statistics in 32 bits), saving, peak_rss_mb (of a process of its
/// own that reads the packed file and runs it, above its start).
#[derive(Args, Debug)]
pub(super) struct InferBench {
    /// Architecture
    #[arg(long, default_value = "resnet20", value_parser = parse::arch)]
    arch: String,
    /// How it is binarized
    #[arg(long, default_value = "dir-net", value_parser = parse::method)]
    method: String,
    /// Images a pass
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "3x32x32", value_parser = parse::input)]
    input: [usize; 3],
    /// Classes to tell apart
    #[arg(long, value_name = "N", default_value_t = 10)]
    classes: usize,
    /// Passes that are timed; the median counts
    #[arg(long, value_name = "N", default_value_t = 30)]
    passes: usize,
    /// Run this file and print the megabytes that it took
    #[arg(long, value_name = "FILE", hide = true)]
    memory_of: Option<PathBuf>,
}

#[derive(Serialize)]
struct Timed {
    arch: String,
    method: String,
    batch: usize,
    input: String,
    threads: usize,
    ms_packed: f64,
    ms_float: f64,
    speedup: f64,
    bytes_packed: usize,
    bytes_float: usize,
    saving: f64,
    peak_rss_mb: f64,
}

impl InferBench {
    pub fn run(&self, out: &Output) -> Result<(), Error> {
        if self.batch == 0 || self.passes == 0 {
            return Err(Error::Setting("--batch and --passes are at least 1".into()));
        }
        if let Some(file) = &self.memory_of {
            return self.memory_of(file, out);
        }
        let (file, bytes_float) = self.packed(&self.method)?;
        let images = Tensor::randn([self.batch * len(self.input)], 1.0, &mut Rng::seed(1));
        let peak = self.memory(&file)?;
        let mut packed = self.net(&file)?;
        let bytes_packed = file.len();
        warm_up(&mut packed, &images);
        let mut float = self.net(&self.packed("fp32")?.0)?;
        warm_up(&mut float, &images);
        let both = |_| (ms(&mut packed, &images), ms(&mut float, &images));
        let (packed_ms, float_ms) = (0..self.passes).map(both).unzip();
        let (ms_packed, ms_float) = (median(packed_ms), median(float_ms));

        let timed = Timed {
            arch: self.arch.clone(),
            method: self.method.clone(),
            batch: self.batch,
            input: self.input.map(|n| n.to_string()).join("x"),
            threads: dirnet_kernels::par::threads(),
            ms_packed,
            ms_float,
            speedup: ms_float / ms_packed,
            bytes_packed,
            bytes_float,
            saving: bytes_float as f64 / bytes_packed as f64,
            peak_rss_mb: peak,
        };
        out.line(&format!(
            "{ms_packed:.2} ms packed, {ms_float:.2} ms in float: {:.1} times as fast; {} packed, \
             {} in float: {:.1} times smaller",
            timed.speedup,
            bytes(bytes_packed),
            bytes(bytes_float),
            timed.saving
        ));
        out.object(&timed);
        Ok(())
    }
}

impl InferBench {
    /// The file of an untrained network, and its bytes in 32 bits.
    fn packed(&self, method: &str) -> Result<(Vec<u8>, usize), Error> {
        let task = Task { input: self.input, classes: self.classes };
        let card = Card::untrained(&self.arch, method, &task);
        let (params, model) = card.build(&mut Rng::seed(0))?;
        let (packed, _) = deploy::laid_out(&params, &model, &card, Floats::F32)?;
        Ok((packed.to_bytes(), float_bytes(&params, &model)))
    }

    /// Megabytes that a process takes to read and run a packed file: this one has made the network, and
    /// what that took can't be told apart.
    fn memory(&self, file: &[u8]) -> Result<f64, Error> {
        let path = std::env::temp_dir().join(format!("dirnet-bench-{}.dirnet", std::process::id()));
        let failed = |e: std::io::Error| Error::io(&path, e);
        std::fs::write(&path, file).map_err(failed)?;
        let input = self.input.map(|n| n.to_string()).join("x");
        let child = std::env::current_exe().and_then(|exe| {
            let mut child = Command::new(exe);
            child.args(["bench", "infer", "--input", &input, "--batch", &self.batch.to_string()]);
            child.args(["--threads", &dirnet_kernels::par::threads().to_string(), "--memory-of"]);
            child.arg(&path).output()
        });
        // Best effort: it is the system's folder for what need not last.
        let _ = std::fs::remove_file(&path);
        let child = child.map_err(failed)?;
        let said = String::from_utf8_lossy(&child.stdout);
        said.trim().parse().map_err(|_| {
            Error::Setting(format!("memory: {}", String::from_utf8_lossy(&child.stderr).trim()))
        })
    }

    fn memory_of(&self, file: &Path, out: &Output) -> Result<(), Error> {
        let before = rss_mb();
        let failed = |e: dirnet_engine::Broken| Error::file(file, e.to_string());
        let packed = {
            let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
            Packed::from_bytes(&bytes).map_err(failed)?
        };
        let mut net = Net::new(packed.graph, self.batch).map_err(failed)?;
        warm_up(&mut net, &vec![0.5; self.batch * len(self.input)]);
        out.line(&format!("{:.3}", peak_rss_mb() - before));
        Ok(())
    }

    fn net(&self, file: &[u8]) -> Result<Net, Error> {
        let failed = |e: dirnet_engine::Broken| Error::Setting(e.to_string());
        Net::new(Packed::from_bytes(file).map_err(failed)?.graph, self.batch).map_err(failed)
    }
}

fn len(input: [usize; 3]) -> usize {
    input.iter().product()
}

fn warm_up(net: &mut Net, images: &[f32]) {
    for _ in 0..2 {
        ms(net, images);
    }
}

fn ms(net: &mut Net, images: &[f32]) -> f64 {
    let began = Instant::now();
    std::hint::black_box(net.run(images).first());
    1e3 * began.elapsed().as_secs_f64()
}
