//! `dirnet search`

use super::output::{Output, peak_rss_mb};
use super::train::stop_on_ctrl_c;
use super::{DataDir, open_data, parse};
use crate::Error;
use crate::train::{Search as Searcher, SearchConfig, SearchEpoch, SearchEvent};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Search for the cells of a network: DARTS, of first order.
///
/// A network that has all eight operations on each edge of its cells, each by its weight, learns on one half of
/// the training images, and the weights of the operations on the other half. The strongest two edges of each node
/// make the genotype; `dirnet train --arch "darts(genotype=FILE)"` trains a network of such cells.
///
/// A search that is stopped by Ctrl-C finishes its step and writes nothing; it can't be resumed. The same seed
/// gives the same file.
///
/// With --json: command, data, arch, method, seed, epochs, train_samples, search_samples, train_loss,
/// search_loss and search_accuracy (of the half for the operations, in the last epoch), seconds, ms_per_step,
/// peak_rss_mb, threads, genotype, alphas_normal, alphas_reduce (a row an edge, a column an operation, none first),
/// out; with -v also an object an epoch (event, epoch, train_loss, search_loss, search_accuracy, seconds,
/// genotype).
#[derive(Args, Debug)]
pub(super) struct Search {
    /// What is searched
    #[arg(long, default_value = "darts", value_parser = ["darts"])]
    arch: String,
    /// Data set: a name of `dirnet data list`, npz:FILE or folder:DIR
    #[arg(long, default_value = "fashion-mini")]
    data: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// How the network is binarized that is searched in
    #[arg(long, default_value = "fp32", value_parser = parse::method)]
    method: String,
    /// Passes over each half of the training images
    #[arg(long, value_name = "N", default_value_t = SearchConfig::default().epochs)]
    epochs: usize,
    /// Images a step
    #[arg(long, value_name = "N", default_value_t = SearchConfig::default().batch)]
    batch: usize,
    /// Channels of the first cell
    #[arg(long, value_name = "N", default_value_t = SearchConfig::default().channels)]
    channels: usize,
    /// Cells of the network
    #[arg(long, value_name = "N", default_value_t = SearchConfig::default().cells)]
    cells: usize,
    /// What everything random comes from
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Use only so many training images
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit_train: usize,
    /// Where the genotype is written, a name that ends in .toml
    #[arg(short, long = "out", value_name = "GENOTYPE.toml")]
    out: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    overwrite: bool,
}

/// The object that `--json` ends with.
#[derive(Serialize)]
struct Done<'a> {
    command: &'static str,
    data: &'a str,
    arch: &'a str,
    method: &'a str,
    seed: u64,
    epochs: usize,
    train_samples: usize,
    search_samples: usize,
    train_loss: f64,
    search_loss: f64,
    search_accuracy: f64,
    seconds: f64,
    ms_per_step: f64,
    peak_rss_mb: f64,
    threads: usize,
    genotype: String,
    alphas_normal: Vec<&'a [f32]>,
    alphas_reduce: Vec<&'a [f32]>,
    out: String,
}

#[derive(Serialize)]
struct EpochEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    epoch: &'a SearchEpoch,
}

impl Search {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        self.check_place()?;
        let data = open_data(&self.data, &self.data_dir)?;
        let config = SearchConfig {
            data: self.data.clone(),
            method: self.method.clone(),
            epochs: self.epochs,
            batch: self.batch,
            channels: self.channels,
            cells: self.cells,
            seed: self.seed,
            limit_train: self.limit_train,
        };
        let mut search = Searcher::new(config, &data)?;
        let stop = stop_on_ctrl_c(out);
        let last = follow(&mut search, out, || stop.load(Ordering::SeqCst))?;
        search.save(&self.out)?;
        self.report(&search, &last, out);
        Ok(())
    }

    /// Before anything is searched, so that nothing is searched for nothing.
    fn check_place(&self) -> Result<(), Error> {
        let fail = |why: &str| Err(Error::file(&self.out, why));
        if self.out.extension().is_none_or(|e| e != "toml") {
            return fail("is no place for a genotype, expected a name that ends in .toml");
        }
        if self.out.exists() && !self.overwrite {
            return fail("exists already; --overwrite writes over it");
        }
        let parent = self.out.parent().filter(|dir| !dir.as_os_str().is_empty());
        if parent.is_some_and(|dir| !dir.is_dir()) {
            return fail("can't be written: there is no such folder");
        }
        Ok(())
    }

    fn report(&self, search: &Searcher, (last, seconds): &(SearchEpoch, f64), out: &Output) {
        let name = self.out.file_stem().unwrap_or_default().to_string_lossy();
        let genotype = search.genotype(&name);
        for (kind, edges) in [("normal", &genotype.normal), ("reduce", &genotype.reduce)] {
            for (node, edges) in edges.chunks(2).enumerate() {
                let edges = edges.iter().map(|(operation, from)| format!("{operation} of {from}"));
                let sum = edges.collect::<Vec<_>>().join(" + ");
                out.line(&format!("{kind}  {} = {sum}", node + 2));
            }
        }
        let (path, config) = (self.out.display(), &search.config);
        out.line(&format!(
            "accuracy {:.2} % in the last epoch's steps for the alphas, {seconds:.0} s\n\
             train such a network: dirnet train --arch \"darts(genotype={path})\"",
            100.0 * last.search_accuracy
        ));
        let [train_samples, search_samples] = search.samples();
        let [alphas_normal, alphas_reduce] =
            search.alphas().map(|alphas| alphas.chunks(alphas.shape()[1]).collect());
        out.object(&Done {
            command: "search",
            data: &config.data,
            arch: &self.arch,
            method: &config.method,
            seed: config.seed,
            epochs: config.epochs,
            train_samples,
            search_samples,
            train_loss: last.train_loss,
            search_loss: last.search_loss,
            search_accuracy: last.search_accuracy,
            seconds: *seconds,
            ms_per_step: 1e3 * seconds / (config.epochs * search.steps()) as f64,
            peak_rss_mb: peak_rss_mb(),
            threads: dirnet_kernels::par::threads(),
            genotype: genotype.to_string(),
            alphas_normal,
            alphas_reduce,
            out: path.to_string(),
        });
    }
}

/// Searches to the end, or until `stopping`; the last epoch, and the seconds it all took.
fn follow(
    search: &mut Searcher,
    out: &Output,
    stopping: impl Fn() -> bool,
) -> Result<(SearchEpoch, f64), Error> {
    let SearchConfig { data, method, epochs, .. } = search.config.clone();
    let [train, alphas] = search.samples();
    out.note(&format!(
        "{method} search on {data}: {train} images for weights, {alphas} for alphas"
    ));
    let bar = out.bar((epochs * search.steps()) as u64, "steps");
    bar.set_prefix(format!("epoch 1/{epochs}"));
    let (began, mut last) = (Instant::now(), None);
    let ended = search.run(|_, event| {
        match event {
            SearchEvent::Step { loss } => {
                bar.inc(1);
                bar.set_message(format!("loss {loss:.3}"));
            }
            SearchEvent::Epoch(done) => {
                bar.set_prefix(format!("epoch {}/{epochs}", (done.epoch + 1).min(epochs)));
                let line = format!(
                    "epoch {:>3}  loss of weights {:.3}  of alphas {:.3}  accuracy {:.2} %  {:.1} s",
                    done.epoch,
                    done.train_loss,
                    done.search_loss,
                    100.0 * done.search_accuracy,
                    done.seconds
                );
                if out.shows_bar() {
                    bar.println(line);
                } else {
                    out.note(&line);
                }
                if out.verbose {
                    out.object(&EpochEvent { event: "epoch", epoch: done });
                }
                last = Some(done.clone());
            }
        }
        !stopping()
    });
    bar.finish_and_clear();
    match (ended?, last) {
        (true, Some(last)) => Ok((last, began.elapsed().as_secs_f64())),
        _ => {
            let (epoch, step) = search.position();
            Err(Error::Interrupted(format!(
                "stopped after epoch {epoch} and {step} steps; nothing is written, and a search begins anew"
            )))
        }
    }
}
