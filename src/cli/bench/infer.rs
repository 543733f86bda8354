//! `dirnet bench infer`

use super::median;
use crate::cli::output::{Output, bytes, peak_rss_mb, rss_mb};
use crate::cli::parse;
use crate::deploy::{self, Floats, Net, Packed};
use crate::models::{Card, Task};
use crate::{Error, Rng, Tensor};
use clap::Args;
use serde::Serialize;
use std::time::Instant;

/// A packed network and the same architecture in float, run by the same engine.
///
/// Images and parameters are made up. Passes of the two take turns; medians count.
///
/// With --json: arch, method, batch, input, threads, ms_packed, ms_float, speedup, bytes_packed (of the file),
/// bytes_float (of all parameters and running statistics in 32 bits), saving, peak_rss_mb (above the start,
/// while the file's content is read and run, before the float network is made).
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
        let (file, bytes_float) = self.packed(&self.method)?;
        let images = Tensor::randn([self.batch * len(self.input)], 1.0, &mut Rng::seed(1));
        let before = rss_mb();
        let mut packed = self.net(&file)?;
        let bytes_packed = file.len();
        drop(file);
        warm_up(&mut packed, &images);
        let peak = peak_rss_mb() - before;
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
        let float = params.iter().map(|(_, p)| 4 * p.value.len()).sum();
        Ok((packed.to_bytes(), float))
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
