//! `dirnet bench infer`

use super::{build, median};
use crate::cli::output::{Output, bytes, peak_rss_mb, rss_mb};
use crate::cli::parse;
use crate::cli::summary::layers;
use crate::models::Model;
use crate::nn::Module;
use crate::watch::LayerNote;
use crate::{Error, Params, Rng, Tape, Tensor};
use clap::Args;
use serde::Serialize;
use std::time::Instant;

/// The forward pass of a network that is trained, from its bits and all in float.
///
/// Images and parameters are made up. The network runs on a tape that evaluates: binary layers compute
/// from bits, which they pack anew each time, weights included. It takes turns with the same
/// architecture under fp32; medians count.
///
/// With --json: arch, method, batch, input, threads, ms_packed, ms_float, speedup, bytes_packed,
/// bytes_float, saving, peak_rss_mb (above the start, read before the float network is made).
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
        let before = rss_mb();
        let packed = Net::new(&self.arch, &self.method, self.input)?;
        let [c, h, w] = self.input;
        let images = Tensor::randn([self.batch, c, h, w], 1.0, &mut Rng::seed(1));
        packed.warm_up(&images);
        let peak = peak_rss_mb() - before;
        let float = Net::new(&self.arch, "fp32", self.input)?;
        float.warm_up(&images);
        let both = |_| (packed.ms(&images), float.ms(&images));
        let (packed_ms, float_ms) = (0..self.passes).map(both).unzip();
        let (ms_packed, ms_float) = (median(packed_ms), median(float_ms));

        let layers = layers(&packed.params, &packed.model);
        let bytes_float = layers.iter().map(LayerNote::bytes_float).sum();
        let bytes_packed = layers.iter().map(|l| l.bytes_packed).sum();
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
            "{ms_packed:.2} ms from bits, {ms_float:.2} ms in float: {:.1} times as fast; {} packed, \
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

struct Net {
    params: Params,
    model: Model,
}

impl Net {
    fn new(arch: &str, method: &str, input: [usize; 3]) -> Result<Self, Error> {
        let (params, model) = build(arch, method, input, &mut Rng::seed(0))?;
        Ok(Net { params, model })
    }

    fn warm_up(&self, images: &Tensor) {
        for _ in 0..2 {
            self.ms(images);
        }
    }

    fn ms(&self, images: &Tensor) -> f64 {
        let began = Instant::now();
        let tape = Tape::eval(&self.params);
        let logits = self.model.forward(&tape.constant(images));
        std::hint::black_box(logits.value().first());
        1e3 * began.elapsed().as_secs_f64()
    }
}
