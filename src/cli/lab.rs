//! `dirnet lab`

use super::curves::Curves;
use super::output::{Output, table};
use super::train::{Work, named_teacher, resumed, settle_teacher, stop_on_ctrl_c, train};
use super::{DataDir, open_data, parse};
use crate::lab::{Contest, Line, Results, Summary, VARIANTS};
use crate::train::{Config, Run, Trainer};
use crate::{Error, Method};
use clap::{Args, Subcommand};
use dirnet_datasets::Dataset;
use serde::Serialize;
use std::path::PathBuf;

/// Study methods and estimators.
#[derive(Args, Debug)]
pub(super) struct Lab {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Compare(Compare),
    Ablate(Ablate),
    Curves(Curves),
}

/// Train several methods with the same seeds, and compare their test accuracy.
///
/// All have the same data, optimiser, first weights (where they have the same parameters) and batches,
/// so differences are taken seed by seed; their 95 % interval is Student's. Everything that is not
/// named here is as in `dirnet train`, and `--set` changes it for all methods.
///
/// Each finished run is a line of OUT/results.jsonl and is not run again; an unfinished one goes on
/// from its checkpoint in OUT/runs. Lines of other recipes may stand in the same file. Where methods
/// want a teacher, it is trained once for each seed and shared; fp32 under the same recipe is that
/// teacher.
///
/// With --json, for each run: event ("run"), name, method, seed, test_accuracy, best_accuracy,
/// train_loss, test_loss, seconds (without its teacher's), ms_per_step, threads, weights_sha256, simd,
/// version, config (all keys that decided it). These but the first two are those of results.jsonl. Then
/// for each method: event ("method"), name, runs, test_accuracy (mean), std, baseline, difference
/// (mean), interval (low and high, 95 %), ms_per_step (mean). std and interval are null for one seed.
#[derive(Args, Debug)]
struct Compare {
    /// Methods, as in `dirnet train --method`
    #[arg(long, value_name = "M", num_args = 1.., required = true, value_parser = parse::method)]
    methods: Vec<String>,
    /// The method that the others are held against [default: the first]
    #[arg(long, value_name = "M")]
    baseline: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

/// Train DIR-Net part by part: plain signs, then with IMB, then with DTE, then with RBD.
///
/// plain: weights as they are, scaled by 2^round(log2(mean abs)) a filter; straight-through, clipped at
/// 1, for weights and activations. +imb: weights standardised a filter before the sign and the scale;
/// straight-through. +dte: the same with DTE for weights and activations, which is dir-net. +rbd:
/// dir-net(rbd=on), with a teacher that is trained first. Each is also held against plain.
///
/// Everything else, JSON keys included, is as in `dirnet lab compare`.
#[derive(Args, Debug)]
struct Ablate {
    #[command(flatten)]
    shared: Shared,
}

/// What all runs of a comparison share, and where they are kept.
#[derive(Args, Debug)]
struct Shared {
    /// Architecture
    #[arg(long, value_parser = parse::arch)]
    arch: Option<String>,
    /// Data set
    #[arg(long)]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// The seeds that each method is trained with
    #[arg(long, value_name = "S", num_args = 1.., default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Set any other key of the configuration, for all runs
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse::setting)]
    sets: Vec<(String, String)>,
    /// Hold a tenth of the training images out, and test on them instead of the test images: for
    /// choosing between recipes. `--set holdout=X` holds out another share
    #[arg(long)]
    holdout: bool,
    /// Where results and unfinished runs are kept
    #[arg(long, value_name = "DIR", default_value = "runs/lab")]
    out: PathBuf,
    /// Keep the folders of finished runs; else only those of fp32 stay, since they may teach others
    #[arg(long)]
    keep: bool,
}

#[derive(Serialize)]
struct RunEvent<'a> {
    event: &'static str,
    name: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

#[derive(Serialize)]
struct MethodEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl Lab {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        match self.what {
            What::Compare(Compare { methods, baseline, shared }) => {
                let config = shared.config(&["method", "seed"])?;
                let named = methods.into_iter().map(|method| {
                    // Of a recipe, its name.
                    let name = method.parse::<Method>()?.spec.to_string();
                    Ok((name, method))
                });
                let named = named.collect::<Result<Vec<_>, Error>>()?;
                let seeds = shared.seeds.clone();
                shared.hold(&Contest::new(&config, named, seeds, baseline.as_deref())?, out)
            }
            What::Ablate(Ablate { shared }) => {
                let varied = ["method", "seed", "estimator", "distill", "teacher"];
                let config = shared.config(&varied)?;
                let named =
                    VARIANTS.iter().map(|(name, method)| (name.to_string(), method.to_string()));
                shared.hold(&Contest::new(&config, named, shared.seeds.clone(), None)?, out)
            }
            What::Curves(curves) => curves.run(out),
        }
    }
}

impl Shared {
    /// The recipe; `varied` are the keys that are not for the user to set.
    fn config(&self, varied: &[&str]) -> Result<Config, Error> {
        let mut config = Config::default();
        for (key, value) in &self.sets {
            if varied.contains(&key.as_str()) {
                return Err(Error::Setting(format!("--set {key}: the runs differ in it")));
            }
            config = config.with(key, value)?;
        }
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        if let Some(arch) = &self.arch {
            config.arch.clone_from(arch);
        }
        config.epochs = self.epochs.unwrap_or(config.epochs);
        if self.holdout && config.holdout == 0.0 {
            config.holdout = 0.1;
        }
        settle_teacher(&mut config)?;
        Ok(config)
    }

    fn hold(&self, contest: &Contest, out: &Output) -> Result<(), Error> {
        let (_, first) = contest.runs().next().expect("a contest has a run");
        let data = open_data(&first.data, &self.data_dir)?;
        let results = Results::open(&self.out.join("results.jsonl"))?;
        if let Some(dropped) = &results.dropped {
            out.note(dropped);
        }
        let work = Work { go_on: "the same command again".into(), stop: stop_on_ctrl_c(out) };
        let mut bench = Workbench { results, data, work, out, keep: self.keep };
        let mut lines = vec![Vec::new(); contest.entries.len()];
        let total = contest.entries.len() * contest.seeds.len();
        for (done, (i, config)) in contest.runs().enumerate() {
            let name = &contest.entries[i].name;
            out.note(&format!("run {} of {total}: {name}, seed {}", done + 1, config.seed));
            let line = bench.line(&config).map_err(|e| match e {
                Error::Training(why) => {
                    Error::Training(format!("{name}, seed {}: {why}", config.seed))
                }
                other => other,
            })?;
            out.note(&format!("test accuracy {:.2} %", 100.0 * line.test_accuracy));
            out.object(&RunEvent { event: "run", name, line: &line });
            lines[i].push(line);
        }
        tell(&contest.summary(&lines), out);
        Ok(())
    }
}

fn tell(methods: &[Summary], out: &Output) {
    let percent = |x: f64| format!("{:.2}", 100.0 * x);
    let signed = |x: f64| format!("{:+.2}", 100.0 * x);
    let rows = methods.iter().map(|m| {
        let own = m.name == m.baseline;
        let interval = m.interval.map(|[low, high]| format!("{} to {}", signed(low), signed(high)));
        vec![
            m.name.clone(),
            percent(m.test_accuracy),
            m.std.map(percent).unwrap_or_default(),
            if own { String::new() } else { signed(m.difference) },
            interval.filter(|_| !own).unwrap_or_default(),
            format!("{:.1}", m.ms_per_step),
        ]
    });
    let against = methods.first().map_or(String::new(), |m| format!("to {}", m.baseline));
    let head = ["method", "test accuracy %", "std", &against, "95 % interval", "ms a step"];
    out.line(&table(&head, 1, rows));
    for summary in methods {
        out.object(&MethodEvent { event: "method", summary });
    }
}

/// Where runs are made.
struct Workbench<'a> {
    results: Results,
    data: Dataset,
    work: Work,
    out: &'a Output,
    keep: bool,
}

impl Workbench<'_> {
    /// What a run comes to: read where it stands already, else trained, or trained on.
    fn line(&mut self, config: &Config) -> Result<Line, Error> {
        let teaches = *config == config.of_teacher();
        let folder = self.results.folder(config);
        if self.results.find(config).is_none() {
            self.results.lock()?;
        }
        let line = match self.results.find(config) {
            Some(line) => line.clone(),
            None => {
                self.trained(config)?;
                let other = || Error::file(&folder, "its checkpoint is that of another run");
                self.results.find(config).ok_or_else(other)?.clone()
            }
        };
        if let (false, Ok(run)) = (self.keep || teaches, Run::open(&folder)) {
            run.remove()?;
        }
        Ok(line)
    }

    /// Trains a run to its end in its folder, and adds its line where it is not there yet.
    fn trained(&mut self, config: &Config) -> Result<Run, Error> {
        let folder = self.results.folder(config);
        let run = match Run::open(&folder) {
            Ok(run) if run.config()? == *config => run,
            _ => Run::create(Some(&folder), config, true)?,
        };
        let mut trainer = resumed(&run, &self.data)?;
        named_teacher(&mut trainer, &run)?;
        if !trainer.is_done() {
            if trainer.wants_teacher() && config.teacher.is_empty() {
                self.teach(&mut trainer)?;
            }
            train(&mut trainer, &run, &self.work, &self.out.progress_only())?;
        }
        if self.results.find(config).is_none() {
            let none = || Error::file(&run.checkpoint(), "says it is done, but holds no epoch");
            self.results.add(Line::of(&trainer).ok_or_else(none)?)?;
        }
        Ok(run)
    }

    /// Brings a run the teacher that it shares with others, trained first if need be.
    fn teach(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        let config = trainer.config.of_teacher();
        let kept = Run::open(&self.results.folder(&config)).ok();
        let run = match kept
            .filter(|run| self.results.find(&config).is_some() && run.model().is_file())
        {
            Some(run) => run,
            None => {
                self.out.note("first the teacher:");
                self.trained(&config)?
            }
        };
        trainer.teach(&run.model())
    }
}
