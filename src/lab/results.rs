//! What came out of runs, a line each, in a file that only grows.

use crate::train::{Config, Trainer, default_name, weights_sha256};
use crate::{Error, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// One finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// How the network was binarized.
    pub method: String,
    /// What everything random came from.
    pub seed: u64,
    /// Share of the test images told right after the last epoch.
    pub test_accuracy: f64,
    /// The largest after any epoch; for information, since it was chosen on the test images.
    pub best_accuracy: f64,
    /// Mean loss of the training batches of the last epoch.
    pub train_loss: f64,
    /// Mean cross-entropy of the test images after the last epoch.
    pub test_loss: f64,
    /// Time it took, that of its teacher not included.
    pub seconds: f64,
    /// Mean time of a step, in milliseconds.
    pub ms_per_step: f64,
    /// Worker threads.
    pub threads: usize,
    /// A fingerprint of all parameters.
    pub weights_sha256: String,
    /// The instruction set of the kernels.
    pub simd: String,
    /// The version of this crate.
    pub version: String,
    /// Everything else that decided the run, by key of its configuration.
    pub config: Map<String, Value>,
}

impl Line {
    /// What a trainer came to; `None` before its first epoch is done.
    pub fn of(trainer: &Trainer) -> Option<Self> {
        let history = trainer.history();
        let last = history.last()?;
        let (version, config) = decided_by(&trainer.config);
        Some(Line {
            method: trainer.config.method.clone(),
            seed: trainer.config.seed,
            test_accuracy: last.test_accuracy,
            best_accuracy: history.iter().map(|e| e.test_accuracy).fold(0.0, f64::max),
            train_loss: last.train_loss,
            test_loss: last.test_loss,
            seconds: history.iter().map(|e| e.seconds).sum(),
            ms_per_step: trainer.ms_per_step(),
            threads: dirnet_kernels::par::threads(),
            weights_sha256: weights_sha256(&trainer.params),
            simd: dirnet_kernels::simd::name().into(),
            version,
            config,
        })
    }
}

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

/// The version, and every other key of a configuration as it reads in a file.
fn decided_by(config: &Config) -> (String, Map<String, Value>) {
    // By way of text, so that a number is the one that is read back.
    let text = serde_json::to_string(config).expect("strings, numbers and lists of them");
    let mut keys: Map<String, Value> = serde_json::from_str(&text).expect("what was just written");
    keys.remove("version");
    (config.version.clone(), keys)
}

/// The file of finished runs, `results.jsonl`.
///
/// A line is added when a run has ended, and none is ever changed. A run is found again by all that
/// decides it, so runs of other recipes may stand in the same file, and are not mixed up with it.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    lines: Vec<Line>,
    /// What was cut off at the end of the file, if anything.
    pub dropped: Option<String>,
    /// Held while this process may write.
    lock: Option<File>,
}

impl Results {
    /// Opens the file, or begins it. A last line that was cut short, as by a crash in the midst of
    /// writing, is taken off the file: its run is simply run again.
    ///
    /// # Errors
    /// If the file can't be read or written, or a whole line is not that of a run: it is named.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let dir = path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let path = path.to_path_buf();
        let mut results = Results { path, lines: Vec::new(), dropped: None, lock: None };
        results.read()?;
        Ok(results)
    }

    /// Keeps other processes from training here until this value dies, since two would write into
    /// the same folders, and reads what they have added. Who only reads needs no lock.
    ///
    /// # Errors
    /// If another process has it, or the file of it can't be written.
    pub fn lock(&mut self) -> Result<(), Error> {
        if self.lock.is_none() {
            self.take_lock()?;
            self.read()?;
        }
        Ok(())
    }

    fn take_lock(&mut self) -> Result<(), Error> {
        let path = self.path.with_file_name(".lock");
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why =
                    "another process trains here; wait for it, or give this one its own --out";
                return Err(Error::file(&self.path, why));
            }
            // Where files have no locks it goes on without one.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
        }
        self.lock = Some(file);
        Ok(())
    }

    fn read(&mut self) -> Result<(), Error> {
        let path = &self.path;
        let text = if path.exists() { files::read_text(path)? } else { String::new() };
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let (text, rest) = text.split_at(whole);
        self.lines.clear();
        for (i, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|e| {
                let why = format!("line {}: {e}, expected the object of a finished run", i + 1);
                Error::file(path, why)
            })?;
            self.lines.push(line);
        }
        if !rest.is_empty() {
            if self.lock.is_none() {
                // It may not be cut short, but being written: whole once the lock is to be had.
                return self.lock();
            }
            let file = OpenOptions::new().write(true).open(path);
            let cut = file.and_then(|file| {
                file.set_len(whole as u64)?;
                file.sync_all()
            });
            cut.map_err(|e| Error::io(path, e))?;
            let why = "the last line was cut short and is dropped, its run is run again";
            self.dropped = Some(format!("{}: {why}", path.display()));
        }
        Ok(())
    }

    /// The folder of a run while it lasts, beside the file: of the same configuration, the same.
    pub fn folder(&self, config: &Config) -> PathBuf {
        let name = default_name(config);
        let recipe: String = Sha256::digest(config.to_toml()).iter().take(4).map(hex).collect();
        let runs = self.path.parent().unwrap_or(Path::new("")).join("runs");
        runs.join(format!("{name}-{recipe}"))
    }

    /// The run of this configuration, if it has ended. A key that a line lacks, since it was written
    /// before there was such a key, counts as its default.
    pub fn find(&self, config: &Config) -> Option<&Line> {
        let (version, keys) = decided_by(config);
        let (_, defaults) = decided_by(&Config::default());
        let same = |line: &&Line| {
            let value = |key| line.config.get(key).or(defaults.get(key));
            let known = line.config.keys().all(|key| keys.contains_key(key));
            line.version == version && known && keys.iter().all(|(k, v)| value(k) == Some(v))
        };
        self.lines.iter().find(same)
    }

    /// Adds a run, on the disk before it returns.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn add(&mut self, line: Line) -> Result<(), Error> {
        let text = serde_json::to_string(&line).expect("words and numbers") + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|e| Error::io(&self.path, e))?;
        self.lines.push(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(config: &Config) -> Line {
        let (version, config) = decided_by(config);
        Line {
            method: "bnn".into(),
            seed: 0,
            test_accuracy: 0.1 + 0.2,
            best_accuracy: 1.0 / 3.0,
            train_loss: 1e-9,
            test_loss: 2.0,
            seconds: 3.5,
            ms_per_step: 0.25,
            threads: 2,
            weights_sha256: "ab".into(),
            simd: "avx2".into(),
            version,
            config,
        }
    }

    #[test]
    fn a_run_is_found_by_all_that_decides_it_and_by_nothing_less() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/results.jsonl");
        let config = Config { lr: 0.3, decay: 1e-4, step_at: vec![0.1, 0.7], ..Config::default() };
        let mut results = Results::open(&path).unwrap();
        results.add(line(&config)).unwrap();
        let results = Results::open(&path).unwrap();
        assert_eq!(results.find(&config), Some(&line(&config)));
        for other in [
            Config { seed: 1, ..config.clone() },
            Config { lr: 0.3f32.next_up(), ..config.clone() },
            Config { epochs: 21, ..config.clone() },
            Config { arch: "mlp".into(), ..config.clone() },
            Config { version: "0.0.9".into(), ..config.clone() },
        ] {
            assert_eq!(results.find(&other), None, "{other:?}");
        }
        // As if `warmup` were a new key.
        let mut older = line(&config);
        older.config.remove("warmup");
        fs::write(&path, serde_json::to_string(&older).unwrap() + "\n").unwrap();
        let results = Results::open(&path).unwrap();
        assert_eq!(results.find(&config), Some(&older));
        assert_eq!(results.find(&Config { warmup: 0.5, ..config }), None);
    }

    #[test]
    fn two_processes_do_not_train_in_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let [mut one, mut two] = [(); 2].map(|()| Results::open(&path).unwrap());
        one.lock().unwrap();
        one.lock().unwrap();
        let message = two.lock().unwrap_err().to_string();
        assert!(message.contains("results.jsonl: another process trains here"), "{message}");
        let config = Config::default();
        one.add(line(&config)).unwrap();
        assert!(Results::open(&path).unwrap().find(&config).is_some(), "reading needs no lock");
        // A line that is being written is not one that was cut short.
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert!(Results::open(&path).is_err());
        fs::write(&path, &text).unwrap();
        drop(one);
        assert!(two.find(&config).is_none());
        two.lock().unwrap();
        assert!(two.find(&config).is_some(), "what was added meanwhile counts");
    }

    #[test]
    fn a_line_cut_short_costs_nothing_but_its_own_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let of = |seed| Config { seed, ..Config::default() };
        let mut results = Results::open(&path).unwrap();
        (0..3).for_each(|seed| results.add(line(&of(seed))).unwrap());
        let text = fs::read(&path).unwrap();
        for cut in [1, 20, 400] {
            fs::write(&path, &text[..text.len() - cut]).unwrap();
            let mut results = Results::open(&path).unwrap();
            assert!(results.dropped.as_ref().unwrap().contains("cut short"));
            assert!(results.find(&of(1)).is_some() && results.find(&of(2)).is_none());
            results.add(line(&of(2))).unwrap();
            assert_eq!(fs::read(&path).unwrap(), text);
            assert_eq!(Results::open(&path).unwrap().dropped, None);
        }
        let mut broken = text.clone();
        broken[0] = b'x';
        fs::write(&path, &broken).unwrap();
        let message = Results::open(&path).unwrap_err().to_string();
        assert!(message.contains("results.jsonl: line 1: expected"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), broken);
    }
}
