//! `dirnet bench train`

use super::{build, median};
use crate::binarize::Distill;
use crate::cli::output::{Output, bytes, peak_rss_mb, rss_mb, table};
use crate::cli::parse;
use crate::cli::summary::layers;
use crate::models::Model;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::train::{Answer, keeping, teachers_tape};
use crate::watch::{Cost, Watch};
use crate::{Error, Params, Rng, Saved, Tape, Tensor, Var};
use clap::Args;
use dirnet_kernels::bits;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// One training step: where its time goes, and what it holds for its way back.
///
/// Images are made up, and training is half way through. Steps whose operations are timed take turns
/// with steps that nobody looks into; the median of the latter counts, and the operations of a usual
/// one of the former add up to it.
///
/// A method that learns from a teacher, as dir-net(rbd=on) does, is timed with an untrained one of the
/// same shapes, whose operations are named `teacher ...`.
///
/// A `slow path` is a binary layer whose gradients are computed from floats, because it is too small
/// for the kernels that compute them from bits.
///
/// With --json: arch, method, batch, input, threads, ms_per_step, images_per_s, peak_rss_mb (above the
/// start), saved_mb (held for the way back), ms_per_step_fp32, parts (milliseconds by operation), saved
/// (bytes by layer), slow_layers.
#[derive(Args, Debug)]
pub(super) struct TrainBench {
    /// Architecture
    #[arg(long, default_value = "resnet20", value_parser = parse::arch)]
    arch: String,
    /// How it is binarized
    #[arg(long, default_value = "dir-net", value_parser = parse::method)]
    method: String,
    /// Images a step
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch: usize,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "3x32x32", value_parser = parse::input)]
    input: [usize; 3],
    /// Steps that are timed; the median counts
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: usize,
}

#[derive(Serialize)]
struct Timed {
    arch: String,
    method: String,
    batch: usize,
    input: String,
    threads: usize,
    ms_per_step: f64,
    images_per_s: f64,
    peak_rss_mb: f64,
    saved_mb: f64,
    ms_per_step_fp32: f64,
    parts: BTreeMap<String, f64>,
    saved: Vec<SavedLayer>,
    slow_layers: Vec<String>,
}

#[derive(Clone, Serialize)]
struct SavedLayer {
    layer: String,
    bytes: usize,
}

impl TrainBench {
    pub fn run(&self, out: &Output) -> Result<(), Error> {
        if self.batch == 0 || self.steps == 0 {
            return Err(Error::Setting("--batch and --steps are at least 1".into()));
        }
        let before = rss_mb();
        let mut step = Step::new(&self.arch, &self.method, self.batch, self.input)?;
        let (ms, parts) = step.parts(self.steps);
        let peak = peak_rss_mb() - before;
        let saved = step.saved();
        let saved_bytes: usize = saved.iter().map(|s| s.bytes).sum();
        let mut layers: Vec<SavedLayer> = Vec::new();
        for Saved { layer, bytes, operation } in saved {
            let layer = if layer.is_empty() { operation.to_string() } else { layer };
            match layers.iter_mut().find(|l| l.layer == layer) {
                Some(l) => l.bytes += bytes,
                None => layers.push(SavedLayer { layer, bytes }),
            }
        }
        let slow = slow_layers(&step.params, &step.model);
        let mut float = Step::new(&self.arch, "fp32", self.batch, self.input)?;
        let ms_fp32 = float.median_ms(self.steps);

        let rows = parts.iter().map(|(name, ms_part)| {
            vec![name.clone(), format!("{ms_part:.2}"), format!("{:.1} %", 100.0 * ms_part / ms)]
        });
        out.line(&table(&["operation", "ms", "share"], 1, rows));
        let rows = layers.iter().filter(|l| l.bytes > 0);
        let rows = rows.map(|l| vec![l.layer.clone(), bytes(l.bytes)]);
        out.line(&table(&["layer", "held for the way back"], 1, rows));
        for (layer, why) in &slow {
            out.line(&format!("slow path: {layer} ({why})"));
        }
        out.line(&format!(
            "{ms:.1} ms a step, {:.0} images/s, {} held for the way back; fp32: {ms_fp32:.1} ms",
            1e3 * self.batch as f64 / ms,
            bytes(saved_bytes)
        ));
        out.object(&Timed {
            arch: self.arch.clone(),
            method: self.method.clone(),
            batch: self.batch,
            input: self.input.map(|n| n.to_string()).join("x"),
            threads: dirnet_kernels::par::threads(),
            ms_per_step: ms,
            images_per_s: 1e3 * self.batch as f64 / ms,
            peak_rss_mb: peak,
            saved_mb: saved_bytes as f64 / 1e6,
            ms_per_step_fp32: ms_fp32,
            parts,
            saved: layers,
            slow_layers: slow.into_iter().map(|(layer, _)| layer).collect(),
        });
        Ok(())
    }
}

/// A training step on made-up images, to be taken again and again.
struct Step {
    params: Params,
    model: Model,
    optimizer: Sgd,
    images: Tensor,
    labels: Vec<u32>,
    teacher: Option<Teacher>,
}

/// Whom the step learns from, and how much.
struct Teacher {
    distill: Distill,
    params: Params,
    model: Model,
}

impl Step {
    fn new(arch: &str, method: &str, batch: usize, input: [usize; 3]) -> Result<Self, Error> {
        let mut rng = Rng::seed(0);
        let (params, model) = build(arch, method, input, &mut rng)?;
        let [c, h, w] = input;
        let teacher = model.method.distill.map(|distill| {
            let (params, model) = build(arch, "fp32", input, &mut rng)?;
            Ok::<_, Error>(Teacher { distill, params, model })
        });
        Ok(Step {
            params,
            model,
            optimizer: Sgd::new(0.01).momentum(0.9).decay(1e-4),
            images: Tensor::randn([batch, c, h, w], 1.0, &mut rng),
            labels: (0..batch as u32).map(|i| i % 10).collect(),
            teacher: teacher.transpose()?,
        })
    }

    /// Half way through training, where both stages of the estimators have been.
    fn tape(&self) -> Tape<'_> {
        let tape = Tape::train(&self.params).at(0.5).quick();
        match &self.teacher {
            Some(teacher) => keeping(&teacher.distill, tape),
            None => tape,
        }
    }

    /// What the teacher says, and its time by operation if that is asked for.
    fn answer(&self, watch: Watch) -> (Option<Answer>, Vec<Cost>) {
        let Some(Teacher { distill, params, model }) = &self.teacher else {
            return (None, Vec::new());
        };
        let tape = teachers_tape(distill, params).watching(watch);
        let answer = Answer::of(model, &tape, &self.images);
        let costs = match tape.watched() {
            Watch::Costs(costs) => costs.borrow().operations.clone(),
            _ => Vec::new(),
        };
        (Some(answer), costs)
    }

    fn loss<'t>(&self, answer: Option<Answer>, tape: &'t Tape<'t>) -> Var<'t> {
        let labels = |logits: &Var<'t>| logits.loss_with_heads(|x| x.cross_entropy(&self.labels));
        match (&self.teacher, answer) {
            (Some(Teacher { distill, .. }), Some(answer)) => {
                answer.loss(distill, tape, &self.images, &self.model, labels)
            }
            _ => labels(&self.model.forward(&tape.constant(&self.images))),
        }
    }

    fn take(&mut self) {
        let (answer, _) = self.answer(Watch::Nothing);
        let tape = self.tape();
        let grads = self.loss(answer, &tape).backward();
        self.optimizer.step(&mut self.params, &grads);
    }

    fn warm_up(&mut self) {
        (0..2).for_each(|_| self.take());
    }

    fn ms(&mut self) -> f64 {
        let began = Instant::now();
        self.take();
        1e3 * began.elapsed().as_secs_f64()
    }

    fn median_ms(&mut self, steps: usize) -> f64 {
        self.warm_up();
        median((0..steps).map(|_| self.ms()).collect())
    }

    /// The median step in milliseconds, and a usual step's by operation, there and back: the mean of
    /// the watched steps that are neither quick nor slow. Watched steps take turns with the others,
    /// so that what disturbs the machine disturbs both.
    fn parts(&mut self, steps: usize) -> (f64, BTreeMap<String, f64>) {
        self.warm_up();
        let (times, mut watched): (Vec<_>, Vec<_>) =
            (0..steps).map(|_| (self.ms(), self.watched_step())).unzip();
        let total = |parts: &BTreeMap<String, f64>| parts.values().sum::<f64>();
        watched.sort_by(|a, b| total(a).total_cmp(&total(b)));
        let usual = &watched[steps / 4..steps - steps / 4];
        let mut parts = BTreeMap::new();
        for (name, ms) in usual.iter().flatten() {
            *parts.entry(name.clone()).or_insert(0.0) += ms / usual.len() as f64;
        }
        (median(times), parts)
    }

    /// Milliseconds of one step by operation; together they are the whole of it.
    fn watched_step(&mut self) -> BTreeMap<String, f64> {
        let began = Instant::now();
        let mut parts = BTreeMap::new();
        let mut add =
            |name: String, seconds: f64| *parts.entry(name).or_insert(0.0) += 1e3 * seconds;
        let mut named = 0.0;
        let (answer, costs) = self.answer(Watch::costs());
        for cost in costs {
            let seconds = cost.forward.as_secs_f64();
            add(format!("teacher {}", cost.operation), seconds);
            named += seconds;
        }
        let tape = self.tape().watching(Watch::costs());
        let loss = self.loss(answer, &tape);
        let grads = loss.backward();
        if let Watch::Costs(costs) = tape.watched() {
            for cost in &costs.borrow().operations {
                let (there, back) = (cost.forward.as_secs_f64(), cost.backward.as_secs_f64());
                add(format!("{} forward", cost.operation), there);
                add(format!("{} backward", cost.operation), back);
                named += there + back;
            }
        }
        drop(loss);
        drop(tape);
        let updating = Instant::now();
        self.optimizer.step(&mut self.params, &grads);
        let updated = updating.elapsed().as_secs_f64();
        drop(grads);
        add("optimizer".into(), updated);
        add("tape".into(), began.elapsed().as_secs_f64() - named - updated);
        parts
    }

    fn saved(&self) -> Vec<Saved> {
        let (answer, _) = self.answer(Watch::Nothing);
        let tape = self.tape();
        self.loss(answer, &tape);
        tape.into_saved()
    }
}

/// Binary convolutions that compute a gradient from floats, and why.
fn slow_layers(params: &Params, model: &Model) -> Vec<(String, String)> {
    let mut slow = Vec::new();
    for note in layers(params, model) {
        let Some(g) = note.binary_conv else { continue };
        let mut gradients = Vec::new();
        if !bits::fast_dx(&g) {
            gradients.push("dx");
        }
        if !bits::fast_dw(&g) {
            gradients.push("dw");
        }
        if gradients.is_empty() {
            continue;
        }
        let ([_, c, h, w], [_, o, oh, ow], groups) = (g.x(), g.y(), g.how.groups);
        let grouped = if groups > 1 { format!(" in {groups} groups") } else { String::new() };
        let why = format!(
            "{} from floats: {c}x{h}x{w} to {o}x{oh}x{ow}{grouped} is too small for sums by table",
            gradients.join(" and ")
        );
        slow.push((note.name, why));
    }
    slow
}
