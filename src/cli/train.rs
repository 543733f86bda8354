//! `dirnet train`

use super::output::{Output, peak_rss_mb, table};
use super::{DataDir, open_data, parse};
use crate::Error;
use crate::models::ARCHS;
use crate::train::{Config, Epoch, Event, Handover, Layer, Run, Trainer, weights_sha256};
use clap::Args;
use dirnet_datasets::Dataset;
use indicatif::ProgressBar;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a checkpoint is written within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Train a network.
///
/// A flag beats the file, the file beats the default.
#[derive(Args, Debug)]
pub(super) struct Train {
    /// A file of settings
    config: Option<PathBuf>,
    /// Set any key of the configuration; stage.2.lr is that of the second stage
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse::setting)]
    sets: Vec<(String, String)>,
    /// Data set: a name of `dirnet data list`, npz:FILE or folder:DIR
    #[arg(long)]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Architecture, with options as in "resnet20(shortcut=bireal)"; --help lists them
    #[arg(long, value_parser = parse::arch, long_help = archs())]
    arch: Option<String>,
    /// Method: fp32, or one that binarizes: bnn, xnor-net, xnor-net++, dorefa, bi-real, ir-net, rbnn, reactnet,
    /// recu, reste, fda, adabin, dir-net, or FILE.toml; +1w32a keeps activations in float, +32w1a weights
    #[arg(long, value_parser = parse::method)]
    method: Option<String>,
    /// Another estimator for the signs: E, or weights=E activations=E; a name, or as in "soft=tanh(t*x)/t; t=0.1..10"
    #[arg(long, value_name = "E", num_args = 1.., value_parser = parse::estimator)]
    estimator: Vec<String>,
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images a step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Learning rate, before its schedule
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// What everything random comes from [default: 0]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Use only so many training images
    #[arg(long, value_name = "N")]
    limit_train: Option<usize>,
    /// Use only so many test images
    #[arg(long, value_name = "N")]
    limit_test: Option<usize>,
    /// Start from the parameters of a run, or of a file .npz or .safetensors, ours or PyTorch's
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Parameters that --init leaves as they begin: those called NAME, and NAME.weight and so on
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "init")]
    init_except: Vec<String>,
    /// Learn from this full-precision run of the same architecture, or its model as .npz or .safetensors
    ///
    /// Blocks' outputs are compared (RBD) unless the method or the key `distill` says otherwise. The
    /// teacher is copied into the run. Where a method asks for a teacher, as dir-net(rbd=on) and
    /// reactnet do, and none is named, it is trained first, into OUT/teacher; `--set distill=off`
    /// does without.
    #[arg(long, value_name = "RUN")]
    teacher: Option<PathBuf>,
    /// Folder of the run [default: runs/DATA-ARCH-METHOD-SEED]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Begin anew in a folder that exists
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Go on with a run that was stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "sets", "data", "arch", "method",
        "estimator", "epochs", "batch", "lr", "seed", "limit_train", "limit_test", "init", "teacher", "out"])]
    resume: Option<PathBuf>,
}

/// The object that `--json` ends with.
#[derive(Serialize)]
struct Done<'a> {
    command: &'static str,
    data: &'a str,
    arch: &'a str,
    method: &'a str,
    estimator: String,
    seed: u64,
    epochs: usize,
    train_samples: usize,
    test_samples: usize,
    train_loss: f64,
    test_loss: f64,
    test_accuracy: f64,
    best_accuracy: f64,
    seconds: f64,
    ms_per_step: f64,
    peak_rss_mb: f64,
    threads: usize,
    weights_sha256: String,
    out: String,
}

#[derive(Serialize)]
struct EpochEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    epoch: &'a Epoch,
}

#[derive(Serialize)]
struct StageEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    handover: &'a Handover,
}

#[derive(Serialize)]
struct LayerEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    layer: &'a Layer,
}

/// The architectures and their options.
fn archs() -> String {
    let mut text =
        String::from("Architecture, with options as in \"resnet20(shortcut=bireal)\":\n");
    for (name, about) in ARCHS {
        let _ = write!(text, "\n- {name}: {about}");
    }
    text
}

impl Train {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (run, mut trainer, data) = match &self.resume {
            Some(dir) => {
                let run = Run::open(dir)?;
                let data = open_data(&run.config()?.data, &self.data_dir)?;
                let mut trainer = resumed(&run, &data)?;
                named_teacher(&mut trainer, &run)?;
                (run, trainer, data)
            }
            None => {
                let config = self.resolve()?;
                config.check()?;
                let data = open_data(&config.data, &self.data_dir)?;
                let mut trainer = Trainer::new(config, &data)?;
                if let Some(path) = &self.init {
                    let stay = trainer.start_from(&super::model_file(path)?, &self.init_except)?;
                    if !stay.is_empty() {
                        out.note(&format!(
                            "not taken from {}: {}",
                            path.display(),
                            stay.join(", ")
                        ));
                    }
                }
                if !trainer.config.teacher.is_empty() {
                    // Before there is a folder, so that a refused one leaves none.
                    trainer.teach(&teacher_file(&trainer.config.teacher)?)?;
                }
                let run = Run::create(self.out.as_deref(), &trainer.config, self.overwrite)?;
                // Whatever happens first, a resume starts from these parameters.
                trainer.save_checkpoint(&run.checkpoint())?;
                if !trainer.config.teacher.is_empty() {
                    run.save_teacher(&trainer)?;
                }
                (run, trainer, data)
            }
        };
        let resume = format!("dirnet train --resume {}", run.dir().display());
        let work = Work { go_on: resume, stop: stop_on_ctrl_c(out) };
        let of_teacher = match trainer.wants_teacher() && trainer.config.teacher.is_empty() {
            true => own_teacher(&mut trainer, &run, &data, &work, out)?,
            false => 0.0,
        };
        if !trainer.is_done() {
            train(&mut trainer, &run, &work, out)?;
        }
        report(&trainer, &run, of_teacher, out);
        Ok(())
    }

    /// A flag beats the file, the file beats the default. It does not reach a stage that says otherwise,
    /// so there it is refused.
    fn resolve(&self) -> Result<Config, Error> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let flags = [
            ("method", self.method.is_some()),
            ("estimator", !self.estimator.is_empty()),
            ("epochs", self.epochs.is_some()),
            ("lr", self.lr.is_some()),
        ];
        let flags = flags.iter().filter(|(_, given)| *given).map(|(key, _)| *key);
        for key in self.sets.iter().map(|(key, _)| key.as_str()).chain(flags) {
            if let Some(i) = config.stage.iter().position(|stage| stage.contains_key(key)) {
                let number = i + 1;
                return Err(Error::Setting(format!(
                    "\"{key}\" is given, but stage {number} has its own; to change that one: \
                     --set stage.{number}.{key}=..."
                )));
            }
        }
        for (key, value) in &self.sets {
            config = config.with(key, value)?;
        }
        fn put<T: Clone>(key: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                key.clone_from(value);
            }
        }
        put(&mut config.data, &self.data);
        put(&mut config.arch, &self.arch);
        put(&mut config.method, &self.method);
        put(&mut config.epochs, &self.epochs);
        put(&mut config.batch, &self.batch);
        put(&mut config.lr, &self.lr);
        put(&mut config.seed, &self.seed);
        put(&mut config.limit_train, &self.limit_train);
        put(&mut config.limit_test, &self.limit_test);
        if let Some(teacher) = &self.teacher {
            config.teacher = teacher.display().to_string();
        }
        settle_teacher(&mut config)?;
        if !self.estimator.is_empty() {
            config.estimator = self.estimator.join(" ");
        }
        Ok(config)
    }
}

fn teacher_file(named: &str) -> Result<PathBuf, Error> {
    super::model_file(Path::new(named))
}

/// Names a teacher so that it is the same place for whoever reads it from elsewhere.
pub(super) fn settle_teacher(config: &mut Config) -> Result<(), Error> {
    if !config.teacher.is_empty() {
        let path = Path::new(&config.teacher);
        let path = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
        config.teacher = path.display().to_string();
    }
    Ok(())
}

/// Brings a run the teacher that it names, if it names one: the copy in its folder, made first if
/// there is none.
pub(super) fn named_teacher(trainer: &mut Trainer, run: &Run) -> Result<(), Error> {
    let (copy, named) = (run.teacher().model(), trainer.config.teacher.clone());
    if named.is_empty() || trainer.is_done() {
        return Ok(());
    }
    let copied = copy.is_file();
    trainer.teach(&if copied { copy } else { teacher_file(&named)? })?;
    if copied { Ok(()) } else { run.save_teacher(trainer) }
}

/// A run as its last checkpoint left it.
pub(super) fn resumed(run: &Run, data: &Dataset) -> Result<Trainer, Error> {
    let (config, checkpoint) = (run.config()?, run.checkpoint());
    match checkpoint.is_file() {
        true => Trainer::resume(config, data, &checkpoint),
        false => Trainer::new(config, data),
    }
}

/// Brings a run the teacher that it trains itself: the same recipe in full precision, in a folder
/// within the run's. Says how long that took, in seconds.
fn own_teacher(
    trainer: &mut Trainer,
    run: &Run,
    data: &Dataset,
    work: &Work,
    out: &Output,
) -> Result<f64, Error> {
    let home = run.teacher();
    let begun = Run::open(home.dir()).is_ok();
    if trainer.is_done() && !begun {
        return Ok(0.0);
    }
    let (home, mut teacher) = match begun {
        true => (home.clone(), resumed(&home, data)?),
        false => {
            let config = trainer.config.of_teacher();
            (Run::create(Some(home.dir()), &config, true)?, Trainer::new(config, data)?)
        }
    };
    if !teacher.is_done() {
        out.note("first the teacher:");
        train(&mut teacher, &home, work, &out.progress_only())?;
    }
    if !trainer.is_done() {
        trainer.teach(&home.model())?;
    }
    Ok(seconds(&teacher))
}

fn seconds(trainer: &Trainer) -> f64 {
    trainer.history().iter().map(|e| e.seconds).sum()
}

/// What the trainings of a command share.
pub(super) struct Work {
    /// What the user does to go on after a stop.
    pub go_on: String,
    /// Set when the user wants to stop.
    pub stop: Arc<AtomicBool>,
}

pub(super) fn stop_on_ctrl_c(out: &Output) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // Asked once, the step is finished and everything saved; asked twice, there is no waiting.
    let handler = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    if let Err(e) = handler {
        out.note(&format!("Ctrl-C will not save a checkpoint: {e}"));
    }
    stop
}

/// Trains to the end, or until the user wants to stop, and keeps everything in the run's folder.
pub(super) fn train(
    trainer: &mut Trainer,
    run: &Run,
    work: &Work,
    out: &Output,
) -> Result<(), Error> {
    let (Config { data, arch, .. }, epochs) = (trainer.config.clone(), trainer.epochs());
    let method = &trainer.card.method;
    let [train, test] = trainer.samples();
    out.note(&format!("{method} {arch} on {data}: {train} training and {test} test images"));
    let (stage, stages) = trainer.stage();
    if stages > 1 {
        out.note(&format!("stage {stage} of {stages}"));
    }
    if let Some(distill) = trainer.distill() {
        let own = trainer.model.method.distill.is_some() || !trainer.config.distill.is_empty();
        let by = if own { "with a teacher" } else { "with a teacher, so RBD is on" };
        out.note(&format!("{by}: {distill}"));
    }
    let (epoch, step) = trainer.position();
    if (epoch, step) != (0, 0) {
        out.note(&format!("resumed at epoch {}, step {}", epoch + 1, step + 1));
    }
    let steps = trainer.steps() as u64;
    let bar = out.bar(epochs as u64 * steps, "steps");
    bar.set_position(epoch as u64 * steps + step as u64);
    bar.reset_eta();
    bar.set_prefix(format!("epoch {}/{epochs}", epoch + 1));

    let mut trouble = None;
    let mut saved = Instant::now();
    let ended = trainer.run(|trainer, event| {
        let stopping = work.stop.load(Ordering::SeqCst);
        let result = match event {
            Event::Step { loss, .. } => {
                bar.inc(1);
                bar.set_message(format!("loss {loss:.3}"));
                if stopping || saved.elapsed() > CHECKPOINT_EVERY {
                    saved = Instant::now();
                    trainer.save_checkpoint(&run.checkpoint())
                } else {
                    Ok(())
                }
            }
            Event::Stage(handover) => {
                tell_stage(trainer, handover, &bar, out);
                run.log(&StageEvent { event: "stage", handover })
            }
            Event::Epoch(done) => tell_epoch(trainer, done, &bar, out)
                .and_then(|()| run.save(trainer))
                .and_then(|()| trainer.save_checkpoint(&run.checkpoint()))
                .and_then(|()| run.log(&EpochEvent { event: "epoch", epoch: done }))
                .and_then(|()| {
                    let mut events = layer_events(trainer, done.epoch);
                    events.try_for_each(|event| run.log(&event))
                }),
        };
        trouble = result.err();
        trouble.is_none() && !stopping
    });
    bar.finish_and_clear();
    let failed = match (trouble, ended) {
        (Some(e), _) | (None, Err(e)) => e,
        (None, Ok(true)) => return Ok(()),
        (None, Ok(false)) => {
            return Err(Error::Interrupted(format!("stopped; to go on: {}", work.go_on)));
        }
    };
    if run.checkpoint().is_file() {
        out.note(&format!("the last good checkpoint is kept: {}", run.checkpoint().display()));
    }
    Err(failed)
}

fn tell_stage(trainer: &Trainer, handover: &Handover, bar: &ProgressBar, out: &Output) {
    let some = |what: &str, names: &[String]| match names.len() {
        0 => String::new(),
        n if n <= 6 => format!("; {what}: {}", names.join(", ")),
        n => format!("; {what}: {}, and {} more", names[..6].join(", "), n - 6),
    };
    let Handover { stage, method, new, left } = handover;
    let (_, stages) = trainer.stage();
    let more = some("new", new) + &some("left behind", left);
    let line = format!("stage {stage} of {stages}: {method}{more}");
    if out.shows_bar() {
        bar.println(line);
    } else {
        out.note(&line);
    }
    if out.verbose {
        out.object(&StageEvent { event: "stage", handover });
    }
}

fn tell_epoch(
    trainer: &Trainer,
    done: &Epoch,
    bar: &ProgressBar,
    out: &Output,
) -> Result<(), Error> {
    let epochs = trainer.epochs();
    bar.set_prefix(format!("epoch {}/{epochs}", (done.epoch + 1).min(epochs)));
    let Epoch { epoch, train_loss, test_accuracy, seconds, .. } = done;
    let line = format!(
        "epoch {epoch:>3}  train loss {train_loss:.3}  test accuracy {:.2} %  {seconds:.1} s",
        100.0 * test_accuracy
    );
    if out.shows_bar() {
        bar.println(line);
    } else {
        out.note(&line);
    }
    if out.verbose {
        out.object(&EpochEvent { event: "epoch", epoch: done });
        layer_events(trainer, done.epoch).for_each(|event| out.object(&event));
    }
    Ok(())
}

/// What happened inside binary layers in an epoch.
fn layer_events(trainer: &Trainer, epoch: usize) -> impl Iterator<Item = LayerEvent<'_>> {
    let rows = trainer.layers().iter().filter(move |row| row.epoch == epoch);
    rows.map(|layer| LayerEvent { event: "layer", layer })
}

/// Layer by layer, how it stands after the last epoch.
fn inside(trainer: &Trainer, epoch: usize) -> String {
    let rows = trainer.layers().iter().filter(|row| row.epoch == epoch).map(|row| {
        let number = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.3}"));
        let percent = |x: Option<f64>| x.map_or(String::new(), |x| format!("{:.2} %", 100.0 * x));
        vec![
            row.layer.clone(),
            percent(row.flip_ratio),
            percent(row.flip_ratio_step),
            number(row.weight_entropy_channel),
            number(row.weight_error),
            number(row.activation_entropy_channel),
            number(row.activation_error),
        ]
    });
    let head = [
        "binary layer",
        "flips",
        "a step",
        "weight bits",
        "weight error",
        "activation bits",
        "activation error",
    ];
    table(&head, 1, rows)
}

/// Class by class, what the model tells right and what it takes for something else.
fn learned(trainer: &Trainer) -> String {
    let names = &trainer.card.classes;
    let confusion = trainer.evaluate().confusion;
    let rows = confusion.iter().zip(names).enumerate().map(|(class, (row, name))| {
        let all: usize = row.iter().sum();
        let percent = |n: usize| format!("{:.1} %", 100.0 * n as f64 / all.max(1) as f64);
        let others = row.iter().enumerate().filter(|&(other, &n)| other != class && n > 0);
        let worst = others.max_by_key(|&(other, &n)| (n, std::cmp::Reverse(other)));
        let (taken, how_often) = match worst {
            Some((other, &n)) => (names[other].clone(), percent(n)),
            None => (String::new(), String::new()),
        };
        // The first twenty will do for a screen.
        (class < 20).then(|| vec![name.clone(), taken, percent(row[class]), how_often])
    });
    table(&["class", "most often taken for", "right", "so often"], 2, rows.flatten())
}

/// The table at the end, and the JSON object; a teacher trained first counts in its seconds.
fn report(trainer: &Trainer, run: &Run, of_teacher: f64, out: &Output) {
    let history = trainer.history();
    let Some(last) = history.last() else { return };
    // Some twenty rows are enough to see the course; the first and the last are among them.
    let every = history.len().div_ceil(20);
    let shown = |e: &&Epoch| e.epoch == 1 || (history.len() - e.epoch).is_multiple_of(every);
    let rows = history.iter().filter(shown);
    let rows = rows.map(|e| {
        vec![
            e.epoch.to_string(),
            format!("{:.2e}", e.lr),
            format!("{:.4}", e.train_loss),
            format!("{:.4}", e.test_loss),
            format!("{:.2} %", 100.0 * e.test_accuracy),
            format!("{:.1}", e.seconds),
        ]
    });
    out.line(&table(&["epoch", "rate", "train loss", "test loss", "test accuracy", "s"], 0, rows));
    if !out.json && !out.quiet {
        out.line(&learned(trainer));
    }
    if out.verbose && trainer.layers().iter().any(|row| row.epoch == last.epoch) {
        out.line(&inside(trainer, last.epoch));
    }
    let seconds = of_teacher + seconds(trainer);
    // Another stage's network is another one.
    let same = history.iter().filter(|e| e.stage == last.stage);
    let best = same.map(|e| e.test_accuracy).fold(0.0, f64::max);
    let dir = run.dir().display();
    out.line(&format!(
        "test accuracy {:.2} % after epoch {}, {seconds:.0} s\nthe run lies in {dir}",
        100.0 * last.test_accuracy,
        last.epoch,
    ));
    if !out.quiet {
        out.line(&format!("look at it: dirnet eval {dir}, dirnet summary {dir}"));
    }
    let config = &trainer.config;
    let [train_samples, test_samples] = trainer.samples();
    out.object(&Done {
        command: "train",
        data: &config.data,
        arch: &config.arch,
        method: &trainer.card.method,
        estimator: trainer.model.method.estimators(),
        seed: config.seed,
        epochs: trainer.epochs(),
        train_samples,
        test_samples,
        train_loss: last.train_loss,
        test_loss: last.test_loss,
        test_accuracy: last.test_accuracy,
        best_accuracy: best,
        seconds,
        ms_per_step: trainer.ms_per_step(),
        peak_rss_mb: peak_rss_mb(),
        threads: dirnet_kernels::par::threads(),
        weights_sha256: weights_sha256(&trainer.params),
        out: dir.to_string(),
    });
}
