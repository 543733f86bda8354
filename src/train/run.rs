//! The folder of a run: what was asked for, what came out, and all that a resume needs.

use super::config::Config;
use super::layers::Layer;
use super::trainer::Trainer;
use crate::{Error, Method, Params, files, models};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run's folder.
///
/// | file | what |
/// | --- | --- |
/// | `config.toml` | everything that decides it, resolved |
/// | `metrics.csv` | a row an epoch; with stages, the last column says which |
/// | `layers.csv` | a row an epoch and binary layer: flips, information, errors, as in [`Layer`] |
/// | `log.jsonl` | what happened, an object a line |
/// | `model.npz` | the parameters after the last epoch, readable by NumPy |
/// | `checkpoint/state.npz` | all that a resume needs |
/// | `teacher/model.npz` | the teacher: a copy of the one that was named, or a run of its own |
///
/// A teacher is copied so that a resumed run learns from the same one, whatever has become of it
/// where it came from; the `teacher` of `config.toml` says where that was.
#[derive(Clone, Debug)]
pub struct Run {
    dir: PathBuf,
}

/// The files of a run, in the order in which they are removed.
const WRITTEN: [&str; 6] =
    ["checkpoint/state.npz", "model.npz", "metrics.csv", "layers.csv", "log.jsonl", "config.toml"];

impl Run {
    /// A new folder: the one that was named, or a free one under `runs/`.
    ///
    /// # Errors
    /// If it can't be made, or a named one exists and may not be overwritten.
    pub fn create(out: Option<&Path>, config: &Config, overwrite: bool) -> Result<Self, Error> {
        let dir = match out {
            Some(dir) => {
                if dir.exists() {
                    if !overwrite {
                        return Err(Error::file(
                            dir,
                            "exists already; --resume goes on with it, --overwrite starts anew",
                        ));
                    }
                    Run::clear(dir)?;
                }
                dir.to_path_buf()
            }
            None => free(Path::new("runs"), &default_name(config)),
        };
        let run = Run { dir };
        let made = run.checkpoint();
        let made = made.parent().unwrap_or(&run.dir);
        fs::create_dir_all(made).map_err(|e| Error::io(made, e))?;
        let text = config.to_toml();
        files::write_whole(&run.dir.join("config.toml"), |out| out.write_all(text.as_bytes()))?;
        Ok(run)
    }

    /// A folder that exists.
    ///
    /// # Errors
    /// If it does not, or is not a run's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let run = Run { dir: dir.to_path_buf() };
        if !run.dir.join("config.toml").is_file() {
            return Err(Error::file(dir, "is not the folder of a run: it has no config.toml"));
        }
        Ok(run)
    }

    /// Removes the folder and what the run wrote; what else lies there stays.
    ///
    /// # Errors
    /// If a file can't be removed.
    pub fn remove(self) -> Result<(), Error> {
        Run::clear(&self.dir)?;
        let teacher = self.teacher();
        for run in [&teacher, &self] {
            for dir in [run.dir.join("checkpoint"), run.dir.clone()] {
                // Not there, or not empty: both are as they should be.
                let _ = fs::remove_dir(dir);
            }
        }
        Ok(())
    }

    /// Removes what a run wrote, and nothing else; `config.toml` last, so that a folder that was left
    /// in the midst of it is still a run's.
    fn clear(dir: &Path) -> Result<(), Error> {
        let known = |name: &str| {
            let ours = WRITTEN.iter().chain(&["checkpoint", "teacher"]);
            ours.into_iter().any(|ours| *ours == name.trim_end_matches(".tmp"))
        };
        let foreign = dir.read_dir().ok().into_iter().flatten().flatten();
        let foreign = foreign.filter(|entry| !known(&entry.file_name().to_string_lossy())).count();
        if !dir.join("config.toml").is_file() && foreign > 0 {
            return Err(Error::file(dir, "is not the folder of a run, so it is not overwritten"));
        }
        for dir in [&dir.join("teacher"), dir] {
            for path in WRITTEN.map(|name| dir.join(name)) {
                if path.exists() {
                    fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
                }
            }
        }
        Ok(())
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The file that a resume reads.
    pub fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint").join("state.npz")
    }
    /// The file with the trained parameters.
    pub fn model(&self) -> PathBuf {
        self.dir.join("model.npz")
    }
    /// Where its teacher lies, as the folder of a run: whole if the run trained it itself, else no
    /// more than its model.
    pub fn teacher(&self) -> Run {
        Run { dir: self.dir.join("teacher") }
    }
    /// What decides it.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn config(&self) -> Result<Config, Error> {
        Config::read(&self.dir.join("config.toml"))
    }

    /// Writes the rows of `metrics.csv` and `layers.csv`, and the trained parameters.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, trainer: &Trainer) -> Result<(), Error> {
        files::write_whole(&self.dir.join("metrics.csv"), |out| {
            let stages = if trainer.config.stage.is_empty() { "" } else { ",stage" };
            writeln!(out, "epoch,lr,train_loss,test_loss,test_accuracy,seconds{stages}")?;
            for e in trainer.history() {
                let stage = e.stage.map_or(String::new(), |stage| format!(",{stage}"));
                writeln!(
                    out,
                    "{},{},{:.6},{:.6},{:.4},{:.3}{stage}",
                    e.epoch, e.lr, e.train_loss, e.test_loss, e.test_accuracy, e.seconds
                )?;
            }
            Ok(())
        })?;
        files::write_whole(&self.dir.join("layers.csv"), |out| {
            writeln!(out, "{}", Layer::HEAD)?;
            trainer.layers().iter().try_for_each(|layer| writeln!(out, "{}", layer.row()))
        })?;
        trainer.card.save(&trainer.params, &self.model())
    }

    /// Copies the teacher of a run into its folder, if it has one.
    ///
    /// # Errors
    /// If the copy can't be written.
    pub fn save_teacher(&self, trainer: &Trainer) -> Result<(), Error> {
        let copy = self.teacher();
        fs::create_dir_all(copy.dir()).map_err(|e| Error::io(copy.dir(), e))?;
        trainer.save_teacher(&copy.model())
    }

    /// Appends an object to `log.jsonl`.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn log(&self, event: &impl Serialize) -> Result<(), Error> {
        let path = self.dir.join("log.jsonl");
        let line = serde_json::to_string(event).expect("an object of words and numbers");
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|e| Error::io(&path, e))
    }
}

/// `DATA-ARCH-METHOD-SEED`, in characters that any file system takes.
pub(crate) fn default_name(config: &Config) -> String {
    let last = config.stage.last().and_then(|stage| stage.get("method")?.as_str());
    let method = last.unwrap_or(&config.method);
    // Of a recipe, its name.
    let method =
        method.parse::<Method>().map_or(method.to_string(), |method| method.spec.to_string());
    let arch = models::short(&config.arch);
    let name = format!("{}-{arch}-{method}-{}", config.data, config.seed);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.+=".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    name.trim_matches('_').replace("_-", "-")
}

/// The name, or the name with `-2`, `-3` … where that exists.
fn free(parent: &Path, name: &str) -> PathBuf {
    let first = parent.join(name);
    let others = (2..).map(|i| parent.join(format!("{name}-{i}")));
    std::iter::once(first).chain(others).find(|dir| !dir.exists()).expect("numbers do not end")
}

/// A fingerprint of all parameters, buffers included: SHA-256 over name, shape and little-endian
/// values, in the order of the names.
pub fn weights_sha256(params: &Params) -> String {
    let mut entries: Vec<_> = params.iter().map(|(_, p)| (&p.name, &p.value)).collect();
    entries.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    for (name, value) in entries {
        hash.update(name);
        for &size in value.shape() {
            hash.update((size as u64).to_le_bytes());
        }
        for x in value.iter() {
            hash.update(x.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::train::{Config, Event};

    fn small() -> Config {
        Config {
            data: "digits".into(),
            arch: "mlp(hidden=32)".into(),
            epochs: 2,
            limit_train: 256,
            batch: 64,
            ..Config::default()
        }
    }

    #[test]
    fn a_run_stopped_anywhere_and_resumed_ends_with_the_same_bits() {
        let data = dirnet_datasets::digits();
        let dir = tempfile::tempdir().unwrap();
        // Signs by chance, too, are those of a step, and not of what was drawn before.
        let chance = "chance{weights = {parts = [\"stochastic\"], estimator = \"ste\"}, \
            activations = {parts = [\"stochastic\"], estimator = \"ste\"}}";
        for (method, stop) in [("dir-net", 1), ("dir-net", 4), ("dir-net", 6), (chance, 6)] {
            let small = || Config { method: method.into(), ..small() };
            let mut whole = Trainer::new(small(), &data).unwrap();
            assert!(whole.run(|_, _| true).unwrap());
            let expected = weights_sha256(&whole.params);
            let path = dir.path().join("state.npz");
            let mut steps = 0;
            let mut first = Trainer::new(small(), &data).unwrap();
            let ended = first.run(|trainer, event| {
                steps += usize::from(matches!(event, Event::Step { .. }));
                if steps == stop {
                    trainer.save_checkpoint(&path).unwrap();
                }
                steps < stop
            });
            assert!(!ended.unwrap());
            let mut second = Trainer::resume(small(), &data, &path).unwrap();
            assert!(second.run(|_, _| true).unwrap());
            assert_eq!(weights_sha256(&second.params), expected, "stopped after {stop}");
            let losses = |t: &Trainer| t.history().iter().map(|e| e.train_loss).collect::<Vec<_>>();
            assert_eq!(losses(&second), losses(&whole));
            assert_eq!(second.layers(), whole.layers(), "stopped after {stop}");
        }
    }

    #[test]
    fn seeds_decide_everything_and_threads_nothing() {
        let data = dirnet_datasets::digits();
        let hash = |seed, threads| {
            dirnet_kernels::par::with_threads(threads, || {
                let mut trainer = Trainer::new(Config { seed, ..small() }, &data).unwrap();
                trainer.run(|_, _| true).unwrap();
                (weights_sha256(&trainer.params), trainer.layers().to_vec())
            })
            .unwrap()
        };
        assert_eq!(hash(7, 1), hash(7, 2));
        assert_ne!(hash(7, 1), hash(8, 1));
    }

    #[test]
    fn stages_hand_over_by_name_and_resume_anywhere() {
        let data = dirnet_datasets::digits();
        let dir = tempfile::tempdir().unwrap();
        let (path, model) = (dir.path().join("state.npz"), dir.path().join("model.npz"));
        let stage = |text: &str| text.parse().unwrap();
        let config = || Config {
            arch: "vgg-small(width=0.1)".into(),
            limit_test: 100,
            stage: vec![
                stage("method = \"fp32\"\nepochs = 1"),
                stage("method = \"recu+32w1a\"\nepochs = 2\nlr = 0.001"),
                stage("method = \"recu\"\nepochs = 1\noptimizer = \"sgd\"\nlr = 0.01"),
            ],
            ..small()
        };
        let mut whole = Trainer::new(config(), &data).unwrap();
        let (mut seen, mut steps, mut before) = (Vec::new(), 0, None);
        let ended = whole.run(|trainer, event| {
            match event {
                Event::Step { .. } => steps += 1,
                Event::Epoch(_) => before = Some(trainer.params.clone()),
                Event::Stage(handover) => {
                    let last = before.as_ref().unwrap();
                    let of = |params: &Params, name: &str| {
                        params[params.id(name).unwrap()].value.clone()
                    };
                    for name in ["conv1.weight", "bn3.running_mean", "fc.bias"] {
                        assert_eq!(of(last, name), of(&trainer.params, name), "{name}");
                    }
                    if handover.stage == 3 {
                        // A learned scale begins at the mean of the weights that were taken over.
                        let w = of(&trainer.params, "conv1.weight");
                        let n = w.len() / w.shape()[0];
                        let mean = w[..n].iter().map(|w| w.abs()).sum::<f32>() / n as f32;
                        let scale = of(&trainer.params, "conv1.scale")[0];
                        assert!((scale - mean).abs() < 1e-5 * mean, "{scale}, {mean}");
                    }
                    seen.push(handover.clone());
                }
            }
            true
        });
        assert!(ended.unwrap() && steps == 16);
        assert_eq!(seen.iter().map(|h| h.stage).collect::<Vec<_>>(), [2, 3]);
        assert!(seen[0].new.is_empty() && seen[0].left.is_empty(), "{seen:?}");
        assert_eq!(seen[1].new.iter().filter(|name| name.ends_with(".scale")).count(), 5);
        assert!(seen[1].left.is_empty(), "{seen:?}");
        // Each stage has a schedule of its own, from its beginning to its end.
        let expected = [(1, 4e-3), (2, 1e-3), (2, 5e-4), (3, 1e-2)];
        for (epoch, (stage, lr)) in whole.history().iter().zip(expected) {
            assert_eq!(epoch.stage, Some(stage));
            assert!((epoch.lr - lr).abs() < 1e-6 * lr, "{epoch:?}");
        }
        whole.card.save(&whole.params, &model).unwrap();
        let (_, loaded, card) = models::Card::load(&model).unwrap();
        assert_eq!((loaded.method.to_string(), card.method), ("recu".into(), "recu".into()));

        // Within the first stage, at its end, within the second, at its end, within the last.
        for stop in [3, 4, 7, 12, 14] {
            let mut steps = 0;
            let mut first = Trainer::new(config(), &data).unwrap();
            first
                .run(|trainer, event| {
                    steps += usize::from(matches!(event, Event::Step { .. }));
                    let epoch = matches!(event, Event::Epoch(_)) == (stop % 4 == 0);
                    if steps == stop && epoch {
                        trainer.save_checkpoint(&path).unwrap();
                    }
                    steps < stop || !epoch
                })
                .unwrap();
            let mut second = Trainer::resume(config(), &data, &path).unwrap();
            assert!(second.run(|_, _| true).unwrap());
            assert_eq!(weights_sha256(&second.params), weights_sha256(&whole.params), "{stop}");
            assert_eq!(second.layers(), whole.layers(), "{stop}");
        }

        let mut wrong = config();
        wrong.stage[2].insert("optimizer".into(), "bop".into());
        let message = Trainer::new(wrong, &data).unwrap_err().to_string();
        assert!(message.contains("stage 3: optimizer \"bop\" flips bits"), "{message}");
    }

    #[test]
    fn flipping_bits_learns_and_resumes() {
        let data = dirnet_datasets::digits();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.npz");
        for (optimizer, gamma, threshold) in [("bop", 1e-2, 1e-6), ("bop2", 1e-3, 1e-3)] {
            let config = || Config {
                method: "bnn".into(),
                optimizer: optimizer.into(),
                bop_gamma: gamma,
                bop_threshold: threshold,
                bop_schedule: "cosine".into(),
                arch: "mlp(hidden=128)".into(),
                epochs: 8,
                limit_train: 0,
                ..small()
            };
            let bits = |trainer: &Trainer| {
                let mut latent = trainer.params.iter().filter(|(_, p)| p.role == Role::Latent);
                latent.all(|(_, p)| p.value.iter().all(|w| w.abs() == 1.0))
            };
            let mut whole = Trainer::new(config(), &data).unwrap();
            let before = whole.evaluate().accuracy;
            assert!(bits(&whole), "{optimizer} begins with bits");
            let mut steps = 0;
            whole
                .run(|trainer, event| {
                    steps += usize::from(matches!(event, Event::Step { .. }));
                    if steps == 31 {
                        trainer.save_checkpoint(&path).unwrap();
                    }
                    true
                })
                .unwrap();
            assert!(bits(&whole), "{optimizer} goes on with bits");
            assert!(
                whole.layers().iter().all(|row| row.flip_ratio_step > Some(0.0)),
                "{optimizer}"
            );
            let after = whole.history().last().unwrap().test_accuracy;
            assert!(before < 0.3 && after > 0.8, "{optimizer}: from {before} to {after}");
            let mut resumed = Trainer::resume(config(), &data, &path).unwrap();
            resumed.run(|_, _| true).unwrap();
            assert_eq!(
                weights_sha256(&resumed.params),
                weights_sha256(&whole.params),
                "{optimizer}"
            );
        }
    }

    #[test]
    fn the_rows_of_binary_layers_say_what_became_of_their_weights() {
        let data = dirnet_datasets::digits();
        let arch = "vgg-small(width=0.1)";
        for method in ["bnn", "adabin", "dorefa", "bnn+1w32a", "ir-net+32w1a"] {
            let config = Config { arch: arch.into(), method: method.into(), epochs: 1, ..small() };
            let mut trainer = Trainer::new(config, &data).unwrap();
            let signs = |trainer: &Trainer| -> Vec<bool> {
                let id = trainer.params.id("conv1.weight").unwrap();
                trainer.params[id].value.iter().map(|&w| w >= 0.0).collect()
            };
            let mut seen = vec![signs(&trainer)];
            trainer
                .run(|trainer, event| {
                    if let Event::Step { .. } = event {
                        seen.push(signs(trainer));
                    }
                    true
                })
                .unwrap();
            let rows = trainer.layers();
            let names: Vec<_> = rows.iter().map(|row| row.layer.as_str()).collect();
            assert_eq!(names, ["conv1", "conv2", "conv3", "conv4", "conv5"], "{method}");
            for row in rows {
                let shares = [
                    row.flip_ratio,
                    row.flip_ratio_step,
                    row.weight_entropy,
                    row.weight_entropy_channel,
                    row.activation_entropy,
                    row.activation_entropy_channel,
                ];
                assert!(shares.iter().flatten().all(|x| (0.0..=1.0).contains(x)), "{row:?}");
                let errors = [row.weight_error, row.activation_error];
                assert!(errors.iter().flatten().all(|x| *x >= 0.0 && x.is_finite()), "{row:?}");
                let weights = [row.flip_ratio, row.weight_entropy, row.weight_error];
                let activations = [row.activation_entropy, row.activation_error];
                assert!(weights.iter().all(|x| x.is_none() == method.ends_with("+32w1a")));
                assert!(activations.iter().all(|x| x.is_none() == method.ends_with("+1w32a")));
            }
            if ["bnn", "dorefa"].contains(&method) {
                let differing =
                    |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| a != b).count();
                let (first, last) = (&seen[0], &seen[seen.len() - 1]);
                let n = first.len() as f64;
                let flips: usize = seen.windows(2).map(|pair| differing(&pair[0], &pair[1])).sum();
                assert!(flips > 0);
                assert_eq!(rows[0].flip_ratio, Some(differing(first, last) as f64 / n));
                let steps = (seen.len() - 1) as f64;
                assert_eq!(rows[0].flip_ratio_step, Some(flips as f64 / (n * steps)));
                let p = last.iter().filter(|&&sign| sign).count() as f64 / n;
                assert_eq!(rows[0].weight_entropy, Some(crate::watch::entropy(p)));
            }
        }
    }

    #[test]
    fn a_taught_run_ends_with_the_same_bits_however_it_went() {
        let data = dirnet_datasets::digits();
        let dir = tempfile::tempdir().unwrap();
        let (model, path) = (dir.path().join("model.npz"), dir.path().join("state.npz"));
        let mut teacher = Trainer::new(small().of_teacher(), &data).unwrap();
        teacher.run(|_, _| true).unwrap();
        teacher.card.save(&teacher.params, &model).unwrap();
        let config = |method: &str| Config { method: method.into(), ..small() };
        let whole = |method: &str, threads| {
            dirnet_kernels::par::with_threads(threads, || {
                let mut trainer = Trainer::new(config(method), &data).unwrap();
                if trainer.distill().is_some() {
                    trainer.teach(&model).unwrap();
                }
                trainer.run(|_, _| true).unwrap();
                weights_sha256(&trainer.params)
            })
            .unwrap()
        };
        for method in ["dir-net(alpha=0.5)", "reactnet"] {
            let expected = whole(method, 1);
            assert_eq!(expected, whole(method, 2), "{method} on two threads");
            assert_ne!(expected, whole("dir-net", 1), "{method} learns nothing from its teacher");
            let mut first = Trainer::new(config(method), &data).unwrap();
            first.teach(&model).unwrap();
            let mut steps = 0;
            let stopped = first.run(|trainer, event| {
                steps += usize::from(matches!(event, Event::Step { .. }));
                if steps == 6 {
                    trainer.save_checkpoint(&path).unwrap();
                }
                steps < 6
            });
            assert!(!stopped.unwrap());
            let mut second = Trainer::resume(config(method), &data, &path).unwrap();
            second.teach(&model).unwrap();
            assert!(second.run(|_, _| true).unwrap());
            assert_eq!(weights_sha256(&second.params), expected, "{method} resumed");
        }
        let message = Trainer::new(config("reactnet"), &data).unwrap().run(|_, _| true);
        assert!(message.unwrap_err().to_string().contains("wants a teacher"));
    }

    #[test]
    fn a_learning_rate_that_blows_up_names_step_and_operation_and_keeps_the_checkpoint() {
        let data = dirnet_datasets::digits();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.npz");
        let config = Config { lr: 1e38, optimizer: "sgd".into(), ..small() };
        let mut trainer = Trainer::new(config, &data).unwrap();
        trainer.save_checkpoint(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let message = trainer.run(|_, _| true).unwrap_err().to_string();
        assert!(message.contains("epoch 1, step 2: the output of"), "{message}");
        assert!(message.contains("is not finite"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), before);

        // A parameter that is not finite is never written over a good checkpoint.
        let id = trainer.params.id("fc.bias").unwrap();
        trainer.params.value_mut(id).data_mut()[0] = f32::NAN;
        let message = trainer.save_checkpoint(&path).unwrap_err().to_string();
        assert!(message.contains("params/fc.bias is not finite"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn names_of_folders_are_plain() {
        let config = Config { arch: "vgg-small(width=0.25)".into(), ..Config::default() };
        assert_eq!(default_name(&config), "fashion-mini-vgg-small_width=0.25-dir-net-0");
    }

    #[test]
    fn a_folder_that_exists_is_not_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        Run::create(Some(&out), &small(), false).unwrap();
        let message = Run::create(Some(&out), &small(), false).unwrap_err().to_string();
        assert!(message.contains("exists already"), "{message}");
        Run::create(Some(&out), &small(), true).unwrap();
        assert_eq!(Run::open(&out).unwrap().config().unwrap(), small());

        // Nor is one refused that a run had only begun, or not quite left.
        let begun = dir.path().join("begun");
        fs::create_dir_all(begun.join("checkpoint")).unwrap();
        fs::write(begun.join("config.toml.tmp"), "ep").unwrap();
        Run::create(Some(&begun), &small(), true).unwrap();

        let foreign = dir.path().join("photos");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("a.png"), "x").unwrap();
        let message = Run::create(Some(&foreign), &small(), true).unwrap_err().to_string();
        assert!(message.contains("is not overwritten"), "{message}");
    }
}
