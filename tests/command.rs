//! The promise: the command's words, files and JSON keys are what they are said to be; a run is
//! decided by its seed and by nothing else; whatever is put in, there is one clear error and no
//! panic, and nothing is lost.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn dirnet(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirnet"));
    command.current_dir(dir).args(args).stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted(words: &str) -> Vec<&str> {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.sort_unstable();
    words
}

/// A run that takes a moment.
const SMALL: &[&str] =
    &["train", "--data", "digits", "--arch", "mlp(hidden=32)", "--epochs", "3", "--json", "-q"];

fn small(dir: &Path, more: &[&str]) -> Value {
    json(&dirnet(dir, &[SMALL, more].concat()))
}

/// Fails with status 1 and one line that says all of this.
fn refused(dir: &Path, args: &[&str], expected: &[&str]) {
    failed(dir, args, 1, expected);
}

fn failed(dir: &Path, args: &[&str], status: i32, expected: &[&str]) {
    let output = dirnet(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    let error: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(error.len(), 1, "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    for part in expected {
        assert!(stderr.contains(part), "{args:?}: {part:?} is not in {stderr}");
    }
}

#[test]
fn a_run_leaves_what_it_promises_and_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let output = dirnet(dir, &[SMALL, &["-v"]].concat());
    let done = json(&output);
    let expected = "command data arch method estimator seed epochs train_samples test_samples \
        train_loss test_loss test_accuracy best_accuracy seconds ms_per_step peak_rss_mb threads \
        weights_sha256 out";
    assert_eq!(keys(&done), sorted(expected));
    assert_eq!(done["out"], "runs/digits-mlp_hidden=32-dir-net-0");
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.iter().filter(|line| line["event"] == "epoch").count(), 3);
    let layers: Vec<&Value> = lines.iter().filter(|line| line["event"] == "layer").collect();
    let expected = "event epoch layer flip_ratio flip_ratio_step weight_entropy \
        weight_entropy_channel weight_error activation_entropy activation_entropy_channel \
        activation_error";
    assert_eq!((layers.len(), keys(layers[0])), (3, sorted(expected)));

    let run = dir.join(done["out"].as_str().unwrap());
    for file in ["config.toml", "model.npz", "checkpoint/state.npz"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    assert_eq!(fs::read_to_string(run.join("layers.csv")).unwrap().lines().count(), 4);
    assert_eq!(fs::read_to_string(run.join("log.jsonl")).unwrap().lines().count(), 6);
    assert_eq!(fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count(), 4);

    let out = run.to_str().unwrap();
    let evaluated = json(&dirnet(dir, &["eval", out, "--json"]));
    assert_eq!(keys(&evaluated), sorted("command model data samples loss accuracy seconds"));
    assert_eq!(evaluated["accuracy"], done["test_accuracy"]);
    assert_eq!(evaluated["samples"], 450);

    let total = json(&dirnet(dir, &["summary", out, "--json"]));
    let expected = "event params params_1bit params_32bit macs_1bit macs_32bit bytes_float \
        bytes_packed saving";
    assert_eq!(keys(&total), sorted(expected));
    assert_eq!(total["params_1bit"], 32 * 32);

    // A second run finds a name of its own; a named folder is not overwritten unasked.
    assert_eq!(small(dir, &[])["out"], "runs/digits-mlp_hidden=32-dir-net-0-2");
    refused(dir, &["train", "--data", "digits", "--out", out], &["exists already", "--overwrite"]);
}

/// Four grey pixels.
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x02\x08\0\0\0\0W\xddR\xf8\0\0\0\x0eIDATx\xdac\x10\xf8\xc0p@\x01\0\x05\xb6\x01\xe1\x94\xdb\xc9\x97\0\0\0\0IEND\xaeB`\x82";

#[test]
fn mobile_networks_are_trained_and_used_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("picture.png"), PICTURE).unwrap();
    for (arch, classifier) in [
        ("mobilenet-v1(width=0.1,depth=1)", "classifier"),
        ("efficientnet-b0(width=0.1,depth=0.1)", "classifier.1"),
        ("darts(width=0.1,layers=2)", "cells.1.preprocess1.op.1"),
    ] {
        let args = ["train", "--data", "digits", "--arch", arch, "--epochs", "2", "--batch", "32"];
        let few = ["--limit-train", "96", "--limit-test", "50", "--json", "-q", "--out"];
        let train = |out: &str, threads: &str| {
            json(&dirnet(dir, &[&args[..], &few[..], &[out, "--threads", threads]].concat()))
        };
        let out = format!("{classifier}.1");
        let done = train(&out, "1");
        let again = train(&format!("{classifier}.2"), "2");
        assert_eq!(done["weights_sha256"], again["weights_sha256"], "{arch}");
        let evaluated = json(&dirnet(dir, &["eval", &out, "--limit-test", "50", "--json"]));
        assert_eq!(evaluated["accuracy"], done["test_accuracy"], "{arch}");
        let predicted = json(&dirnet(dir, &["predict", &out, "picture.png", "--json"]));
        assert_eq!(predicted["classes"].as_array().unwrap().len(), 3, "{arch}");
        let text = String::from_utf8(dirnet(dir, &["summary", &out]).stdout).unwrap();
        assert!(text.contains(classifier), "{arch}: {text}");
    }
}

#[test]
fn a_summary_adds_up_and_tells_what_only_trains() {
    let dir = tempfile::tempdir().unwrap();
    let summary = |arch: &str, more: &[&str]| {
        let output = dirnet(dir.path(), &[&["summary", "--arch", arch], more].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let rows = |arch: &str| -> (Vec<Value>, Value) {
        let text = summary(arch, &["--json"]);
        let mut rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let total = rows.pop().unwrap();
        (rows, total)
    };
    for arch in ["resnet20", "darts", "darts(auxiliary=off)"] {
        let (rows, total) = rows(arch);
        let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
        for key in ["params_1bit", "params_32bit", "macs_1bit", "macs_32bit", "bytes_float"] {
            assert_eq!(total[key], sum(key), "{arch}: {key}");
        }
        assert_eq!(total["params"], sum("params_1bit") + sum("params_32bit"), "{arch}");
    }
    // The head beside the network is not in the file, so it does not count as saved.
    let [with, without] = ["darts", "darts(auxiliary=off)"].map(|arch| rows(arch).1);
    for key in ["params", "params_1bit", "macs_1bit", "macs_32bit", "bytes_float"] {
        assert_eq!(with[key], without[key], "{key}");
    }
    assert!(summary("darts", &[]).contains("parameters that only training uses"));
    assert!(!summary("resnet20", &[]).contains("only training"));
}

const SEARCH: &[&str] = &["search", "--data", "digits", "--limit-train", "64", "--epochs", "2"];

#[test]
fn a_search_finds_cells_that_can_be_trained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tiny = ["--batch", "16", "--channels", "2", "--cells", "2", "--json", "-o"];
    let search = |more: &[&str]| dirnet(dir, &[SEARCH, &tiny[..], more].concat());
    let output = search(&["found.toml", "--threads", "1", "-v"]);
    let done = json(&output);
    let expected = "command data arch method seed epochs train_samples search_samples train_loss \
        search_loss search_accuracy seconds ms_per_step peak_rss_mb threads genotype \
        alphas_normal alphas_reduce out";
    assert_eq!(keys(&done), sorted(expected));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("\"event\":\"epoch\"").count(), 2);
    assert_eq!(done["alphas_reduce"][13].as_array().unwrap().len(), 8);
    let same = json(&search(&["again.toml", "--threads", "2", "-q"]));
    assert_eq!(same["alphas_reduce"], done["alphas_reduce"]);
    let other = json(&search(&["other.toml", "--seed", "1", "-q", "--method", "bnn"]));
    assert_ne!(other["alphas_reduce"], done["alphas_reduce"]);
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    assert_eq!(read("found.toml"), read("again.toml"));
    assert!(read("found.toml").contains("seed = 0\n"));
    refused(dir, &[SEARCH, &["-o", "found.toml"]].concat(), &["found.toml: exists already"]);
    refused(dir, &[SEARCH, &["-o", "found.txt"]].concat(), &["found.txt: ", "ends in .toml"]);
    refused(dir, &[SEARCH, &["-o", "a/b.toml"]].concat(), &["a/b.toml: ", "no such folder"]);

    // The run keeps what the file says.
    let arch = "darts(width=0.1,layers=2,genotype=found.toml)";
    let train = ["train", "--data", "digits", "--arch", arch, "--epochs", "1", "--limit-train"];
    let done = json(&dirnet(dir, &[&train[..], &["64", "--batch", "32", "--json", "-q"]].concat()));
    let out = "runs/digits-darts_width=0.1_layers=2_genotype=found-dir-net-0";
    assert_eq!(done["out"], out);
    fs::rename(dir.join("found.toml"), dir.join("moved.toml")).unwrap();
    let evaluated = json(&dirnet(dir, &["eval", out, "--json"]));
    assert_eq!(evaluated["accuracy"], done["test_accuracy"]);
    json(&dirnet(dir, &["train", "--resume", out, "--json", "-q"]));

    fs::write(dir.join("wrong.toml"), read("moved.toml").replace("_3x3", "_3x4")).unwrap();
    let wrong = ["train", "--arch", "darts(genotype=wrong.toml)"];
    let says = ["wrong.toml: key \"", "]\": unknown operation \"", "did you mean \""];
    failed(dir, &wrong, 2, &says);
}

#[cfg(unix)]
#[test]
fn a_search_that_is_stopped_says_so_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let long = [
        "search",
        "--data",
        "digits",
        "--epochs",
        "5000",
        "--channels",
        "2",
        "--cells",
        "1",
        "-o",
        "found.toml",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirnet"))
        .current_dir(dir.path())
        .args(long)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says what it does once it can be stopped.
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.next().unwrap().unwrap().contains("fp32 search on digits"));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let last = stderr.last().unwrap().unwrap();
    assert!(last.contains("stopped after epoch") && last.contains("nothing is written"), "{last}");
    assert!(!dir.path().join("found.toml").exists());
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |more: &[&str]| small(dir.path(), more)["weights_sha256"].clone();
    let first = hash(&["--seed", "7", "--threads", "1"]);
    assert_eq!(first, hash(&["--seed", "7", "--threads", "2"]));
    assert_eq!(first, hash(&["--seed", "7"]));
    assert_ne!(first, hash(&["--seed", "8"]));
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let long = |out: &str| -> Vec<String> {
        let args =
            ["train", "--data", "digits", "--arch", "vgg-small(width=0.1)", "--epochs", "12"];
        args.into_iter().chain(["--json", "-q", "--out", out]).map(String::from).collect()
    };
    let whole = long("whole");
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let expected = json(&dirnet(dir.path(), &whole))["weights_sha256"].clone();

    let mut child = Command::new(env!("CARGO_BIN_EXE_dirnet"))
        .current_dir(dir.path())
        .args(long("killed"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let rows = || fs::read_to_string(dir.path().join("killed/metrics.csv")).unwrap_or_default();
    let began = Instant::now();
    while rows().lines().count() < 4 {
        assert!(began.elapsed() < Duration::from_secs(120), "no third epoch");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(rows().lines().count() < 13, "it ended before it was killed");
    let resumed = json(&dirnet(dir.path(), &["train", "--resume", "killed", "--json", "-q"]));
    assert_eq!(resumed["weights_sha256"], expected);
    assert_eq!(resumed["epochs"], 12);
    assert_eq!(rows().lines().count(), 13);
}

/// What the command says when Ctrl-C reaches it once `file` is there.
#[cfg(unix)]
fn interrupted(dir: &Path, args: &[&str], file: &str) -> String {
    let child = Command::new(env!("CARGO_BIN_EXE_dirnet"))
        .current_dir(dir)
        .args(args)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !dir.join(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    stderr
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["train", "--data", "digits", "--arch", "mlp", "--epochs", "500", "--out", "run"];
    let stderr = interrupted(dir.path(), &args, "run/metrics.csv");
    assert!(stderr.contains("dirnet train --resume run"), "{stderr}");
    assert!(dir.path().join("run/checkpoint/state.npz").is_file());
}

#[test]
fn a_run_can_start_from_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = small(dir.path(), &["--out", "first"]);
    let more = ["--init", "first", "--out", "second", "--lr", "1e-9"];
    let second = small(dir.path(), &more);
    let loss = |run: &Value| run["train_loss"].as_f64().unwrap();
    assert!(loss(&second) < loss(&first), "{second}");
    let other = ["train", "--data", "digits", "--arch", "mlp(hidden=16)", "--init", "first"];
    refused(dir.path(), &other, &["first", "layer1.weight has shape [32, 64], expected [16, 64]"]);
}

#[test]
fn a_model_goes_to_other_programs_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = small(dir, &["--out", "run"]);
    for (form, file) in [("safetensors", "m.safetensors"), ("npz", "m.npz")] {
        let flag = format!("--{form}");
        let exported = json(&dirnet(dir, &["export", "run", &flag, file, "--json"]));
        let expected = "command model file format arrays params bytes weights_sha256";
        assert_eq!(keys(&exported), sorted(expected));
        assert_eq!(exported["weights_sha256"], run["weights_sha256"]);
        assert_eq!(exported["format"], form);
        let size = fs::metadata(dir.join(file)).unwrap().len();
        assert_eq!(exported["bytes"], size);
        assert!(size > 4 * exported["params"].as_u64().unwrap());
        // The file needs no more than itself.
        let evaluated = json(&dirnet(dir, &["eval", file, "--json"]));
        assert_eq!(evaluated["accuracy"], run["test_accuracy"]);
        assert_eq!(evaluated["loss"], run["test_loss"]);
        assert!(dirnet(dir, &["summary", file]).status.success());
    }
    // From one form to the other and back, not a byte changes.
    let again = ["export", "m.safetensors", "--npz", "again.npz", "-q"];
    assert!(dirnet(dir, &again).status.success());
    let model = fs::read(dir.join("run/model.npz")).unwrap();
    assert_eq!(fs::read(dir.join("m.npz")).unwrap(), model);
    assert_eq!(fs::read(dir.join("again.npz")).unwrap(), model);

    refused(dir, &["export", "nowhere", "--npz", "x.npz"], &["nowhere"]);
    refused(dir, &["export", "run", "--npz", "no/x.npz"], &["no/x.npz", "No such file"]);
    failed(dir, &["export", "run"], 2, &["--safetensors", "--npz"]);
    failed(dir, &["export", "run", "--npz", "x.npz", "--safetensors", "x.safetensors"], 2, &[]);
    failed(dir, &["export", "run", "--safetensors", "x.npz"], 2, &["ends in .safetensors"]);
    assert!(!dir.join("x.npz").exists());

    // Half a file, and one that says nothing of itself.
    let whole = fs::read(dir.join("m.safetensors")).unwrap();
    fs::write(dir.join("half.safetensors"), &whole[..whole.len() / 2]).unwrap();
    refused(dir, &["eval", "half.safetensors"], &["half.safetensors", "not a whole safetensors"]);
    fs::write(dir.join("m.pth"), &whole).unwrap();
    refused(dir, &["eval", "m.pth"], &["m.pth", ".safetensors"]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights.safetensors");
    let golden = golden.to_str().unwrap();
    refused(dir, &["predict", golden, "x.png"], &["weights.safetensors", "card.json", "--init"]);
    let init = [SMALL, &["--init", golden, "--out", "none"]].concat();
    refused(dir, &init, &["fc.weight", "is missing", "f16.stored [4, 6] is not part"]);
    assert!(!dir.join("none").exists());
}

#[test]
fn a_start_may_leave_the_head_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small(dir, &["--out", "first"]);
    let to = ["export", "first", "--safetensors", "first.safetensors", "-q"];
    assert!(dirnet(dir, &to).status.success());
    let mut start = SMALL[..SMALL.len() - 1].to_vec();
    start.extend(["--init", "first.safetensors", "--lr", "1e-9", "--out"]);
    let output = dirnet(dir, &[&start[..], &["bare", "--init-except", "fc"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("not taken from first.safetensors: fc.bias, fc.weight"), "{stderr}");
    let all = json(&dirnet(dir, &[&start[..], &["all"]].concat()));
    let loss = |run: &Value| run["train_loss"].as_f64().unwrap();
    assert!(loss(&json(&output)) > loss(&all));
    let typo = [&start[..], &["typo", "--init-except", "head"]].concat();
    refused(dir, &typo, &["\"head\"", "known: ", "fc"]);
    failed(dir, &["train", "--init-except", "fc"], 2, &["--init"]);
}

#[test]
fn stages_are_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = "data = \"digits\"\narch = \"mlp(hidden=32)\"\nepochs = 2\n\
        [[stage]]\nmethod = \"fp32\"\n[[stage]]\nmethod = \"reactnet\"\ndistill = \"off\"\nepochs = 1\n";
    fs::write(dir.join("stages.toml"), text).unwrap();
    let train = ["train", "stages.toml", "--out", "run"];
    let output = dirnet(dir, &[&train[..], &["--json", "-v"]].concat());
    let done = json(&output);
    assert_eq!((&done["method"], &done["epochs"]), (&"reactnet".into(), &3.into()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("stage 2 of 2: reactnet; new: "), "{stderr}");
    assert!(stderr.contains("layer2.activations.shift.b"), "{stderr}");
    let rows = fs::read_to_string(dir.join("run/metrics.csv")).unwrap();
    let stages: Vec<&str> = rows.lines().map(|row| row.rsplit(',').next().unwrap()).collect();
    assert_eq!(stages, ["stage", "1", "1", "2"]);
    let log = fs::read_to_string(dir.join("run/log.jsonl")).unwrap();
    assert_eq!(log.matches("\"event\":\"stage\"").count(), 1);
    let evaluated = json(&dirnet(dir, &["eval", "run", "--json"]));
    assert_eq!(evaluated["accuracy"], done["test_accuracy"]);

    // A flag reaches what stands above the stages, and is refused where that would say nothing.
    let short =
        ["train", "stages.toml", "--out", "short", "--json", "-q", "--set", "stage.1.epochs=1"];
    assert_eq!(json(&dirnet(dir, &short))["epochs"], 2);
    let longer = ["train", "stages.toml", "--out", "longer", "--json", "-q", "--lr", "0.001"];
    assert_eq!(json(&dirnet(dir, &longer))["epochs"], 3);
    let other = ["train", "stages.toml", "--epochs", "5"];
    refused(dir, &other, &["\"epochs\"", "stage 2 has its own", "--set stage.2.epochs="]);
    let third = ["train", "stages.toml", "--set", "stage.3.epochs=5"];
    refused(dir, &third, &["stage.3.epochs", "the number of stages is 2"]);
    fs::write(dir.join("wrong.toml"), text.replace("distill", "distil")).unwrap();
    let wrong = ["train", "wrong.toml"];
    refused(dir, &wrong, &["wrong.toml", "stage 2", "did you mean \"distill\"?"]);
    fs::write(dir.join("wrong.toml"), text.replace("reactnet", "react")).unwrap();
    refused(dir, &wrong, &["stage 2", "\"react\""]);
}

#[test]
fn every_recipe_of_ours_can_be_trained() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut count = 0;
    for entry in fs::read_dir(configs).unwrap() {
        let path = entry.unwrap().path();
        let config = dirnet::train::Config::read(&path).unwrap();
        config.check().unwrap_or_else(|e| panic!("{path:?}: {e}"));
        count += 1;
        if !["fashion-mini", "digits"].contains(&config.data.as_str()) {
            continue; // is not at hand here
        }
        let few = ["limit_train=64", "limit_test=50", "batch=32"];
        let stages = 1..=config.stage.len();
        let whole = config.stage.is_empty().then(|| "epochs=1".to_string());
        let short = few.iter().map(|set| set.to_string()).chain(whole);
        let short = short.chain(stages.map(|i| format!("stage.{i}.epochs=1")));
        let sets: Vec<String> = short.flat_map(|set| ["--set".to_string(), set]).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut args = vec!["train", path.to_str().unwrap(), "--out", "run", "--json", "-q"];
        args.extend(sets.iter().map(String::as_str));
        let done = json(&dirnet(dir.path(), &args));
        assert_eq!(done["epochs"], config.stage.len().max(1), "{path:?}");
    }
    assert!(count >= 14, "{count}");
}

#[test]
fn a_named_teacher_is_copied_and_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small(dir, &["--method", "fp32", "--out", "teacher"]);
    let plain = small(dir, &["--out", "plain"]);
    let taught = ["--teacher", "teacher", "--out", "taught"];
    let output = dirnet(dir, &[&SMALL[..SMALL.len() - 1], &taught].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("so RBD is on: features=0.01"), "{stderr}");
    let taught = json(&output);
    assert_eq!(keys(&taught), keys(&plain));
    assert_ne!(taught["weights_sha256"], plain["weights_sha256"]);
    let read = |file: &str| fs::read(dir.join(file)).unwrap();
    let copied = json(&dirnet(dir, &["eval", "taught/teacher/model.npz", "--json"]));
    let original = json(&dirnet(dir, &["eval", "teacher", "--json"]));
    assert_eq!(copied["loss"], original["loss"]);

    // Whatever becomes of the original, a resume finds the copy.
    let config = String::from_utf8(read("taught/config.toml")).unwrap();
    fs::write(dir.join("taught/config.toml"), config.replace("epochs = 3", "epochs = 4")).unwrap();
    fs::rename(dir.join("teacher"), dir.join("moved")).unwrap();
    let longer = json(&dirnet(dir, &["train", "--resume", "taught", "--json", "-q"]));
    assert_eq!(longer["epochs"], 4);

    let none = [SMALL, &["--teacher", "teacher"]].concat();
    refused(dir, &none, &["teacher"]);
    let binary = [SMALL, &["--teacher", "plain"]].concat();
    refused(dir, &binary, &["plain/model.npz", "method is dir-net, expected fp32"]);
    let other =
        ["train", "--data", "fashion-mini", "--arch", "mlp(hidden=16)", "--teacher", "moved"];
    refused(dir, &other, &["arch is mlp(hidden=32), expected mlp(hidden=16); input is 1x8x8"]);
    let off = [SMALL, &["--teacher", "moved", "--set", "distill=off"]].concat();
    refused(dir, &off, &["\"distill\" is off"]);
    assert!(!dir.join("runs").exists(), "a refused run leaves no folder");
}

#[cfg(unix)]
#[test]
fn a_run_that_wants_a_teacher_trains_it_first_and_can_be_stopped_there() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let train = |out: &'static str| {
        let args = ["train", "--data", "digits", "--arch", "mlp", "--epochs", "60", "--json"];
        [&args[..], &["--method", "dir-net(rbd=on)", "--out", out]].concat()
    };
    let whole = dirnet(dir, &[&train("whole")[..], &["-q"]].concat());
    assert_eq!(String::from_utf8_lossy(&whole.stdout).lines().count(), 1);
    let whole = json(&whole);
    let seconds = |run: &str| -> f64 {
        let rows = fs::read_to_string(dir.join(run).join("metrics.csv")).unwrap();
        let rows = rows.lines().skip(1).map(|row| row.split(',').nth(5).unwrap().to_string());
        rows.map(|seconds| seconds.parse::<f64>().unwrap()).sum()
    };
    let both = seconds("whole") + seconds("whole/teacher");
    assert!((whole["seconds"].as_f64().unwrap() - both).abs() < 0.1, "{whole}");
    let teacher = json(&dirnet(dir, &["eval", "whole/teacher", "--json"]));
    assert!(teacher["accuracy"].as_f64().unwrap() > 0.8, "{teacher}");

    let stderr = interrupted(dir, &train("run"), "run/teacher/metrics.csv");
    assert!(stderr.trim_end().ends_with("dirnet train --resume run"), "{stderr}");
    assert!(!dir.join("run/metrics.csv").exists(), "{stderr}");
    let resumed = json(&dirnet(dir, &["train", "--resume", "run", "--json", "-q"]));
    assert_eq!(resumed["weights_sha256"], whole["weights_sha256"]);
}

#[test]
fn wrong_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let config = |text: &str| {
        fs::write(dir.join("c.toml"), text).unwrap();
        ["train", "c.toml"]
    };
    refused(dir, &config("epoch = 3"), &["c.toml", "\"epoch\"", "did you mean \"epochs\"?"]);
    refused(dir, &config("epochs = \"many\""), &["c.toml", "\"epochs\"", "many"]);
    refused(dir, &config("lr = -1.0"), &["\"lr\"", "above 0"]);
    refused(dir, &config("arch = \"resnet21\""), &["resnet21", "did you mean \"resnet20\"?"]);
    refused(dir, &config("data = \"digitz\""), &["digitz", "digits"]);
    refused(dir, &config("batch ="), &["c.toml", "line 1"]);
    refused(dir, &["train", "missing.toml"], &["missing.toml"]);
    refused(dir, &["eval", "nowhere"], &["nowhere"]);
    refused(dir, &["train", "--resume", "nowhere"], &["nowhere"]);

    // What the command line itself says wrongly.
    failed(dir, &["train", "--method", "dirnet"], 2, &["did you mean \"dir-net\"?"]);
    failed(dir, &["train", "--estimator", "sté"], 2, &["--estimator"]);
    failed(dir, &["train", "--set", "lrr=1"], 2, &["did you mean \"lr\"?"]);
    failed(dir, &["train", "--threads", "0"], 2, &["--threads"]);
    failed(dir, &["tarin"], 2, &["tarin"]);
    assert!(!dir.join("runs").exists(), "a refused run leaves no folder");
}

#[test]
fn broken_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = small(dir, &["--out", "run"]);
    assert_eq!(run["out"], "run");

    // A truncated model and a truncated checkpoint.
    for (file, args) in [
        ("run/model.npz", &["eval", "run"][..]),
        ("run/checkpoint/state.npz", &["train", "--resume", "run"][..]),
    ] {
        let whole = fs::read(dir.join(file)).unwrap();
        fs::write(dir.join(file), &whole[..whole.len() / 2]).unwrap();
        refused(dir, args, &[file]);
        fs::write(dir.join(file), &whole).unwrap();
    }

    // Pictures.
    fs::write(dir.join("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    refused(dir, &["predict", "run", "cut.png"], &["cut.png"]);
    refused(dir, &["predict", "run", "none.jpg"], &["none.jpg"]);

    // MNIST files: the images cut short.
    let set = dir.join("sets/mnist");
    fs::create_dir_all(&set).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend([7; 100]);
    let labels = [0u8, 0, 8, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    for part in ["train", "t10k"] {
        fs::write(set.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
        fs::write(set.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
    refused(dir, &["train", "--data", "mnist", "--data-dir", "sets"], &["train-images-idx3-ubyte"]);

    // Images of another size than the model's.
    refused(dir, &["eval", "run", "--data", "fashion-mini"], &["28", "8"]);
    // A picture too small for the architecture, found before the first step.
    refused(
        dir,
        &["train", "--data", "digits", "--arch", "vgg-small", "--batch", "5000"],
        &["\"batch\"", "1347"],
    );
}

#[test]
fn a_learning_rate_that_blows_up_stops_and_keeps_the_last_good_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = [
        "train",
        "--data",
        "digits",
        "--arch",
        "mlp(hidden=32)",
        "--epochs",
        "4",
        "--out",
        "run",
        "--set",
        "optimizer=sgd",
        "--set",
        "schedule=step",
        "--set",
        "step_at=[0.5]",
        "--set",
        "step_factor=1.0",
        "--set",
        "warmup=0.0",
        "--lr",
        "1e37",
    ];
    refused(dir, &args, &["epoch 1, step", "is not finite", "learning rate"]);
}

#[test]
fn bench_train_tells_what_each_layer_holds() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |method: &str| {
        let args = [
            "bench", "train", "--arch", "resnet20", "--method", method, "--batch", "4", "--input",
            "3x16x16", "--steps", "3", "--json", "-q",
        ];
        json(&dirnet(dir.path(), &args))
    };
    let binary = bench("bnn");
    let expected = "arch method batch input threads ms_per_step images_per_s peak_rss_mb saved_mb \
        ms_per_step_fp32 parts saved slow_layers";
    assert_eq!(keys(&binary), sorted(expected));
    let held = |bench: &Value, layer: &str| {
        let layers = bench["saved"].as_array().unwrap();
        let found = layers.iter().find(|l| l["layer"] == layer);
        found.unwrap_or_else(|| panic!("{layer} is not in {layers:?}"))["bytes"].as_u64().unwrap()
    };
    assert!(binary["slow_layers"].as_array().unwrap().is_empty(), "{binary}");
    // 4 images of 16 channels of 16x16 in floats are 65,536 bytes; a straight-through binary layer
    // keeps a few bits of each number.
    let floats = 4 * 16 * 16 * 16 * 4;
    assert!(held(&binary, "layer1.0.conv1") < floats / 4);
    // In float, what the convolution keeps is held by whoever made it: counted there, but held.
    let total = |bench: &Value| bench["saved_mb"].as_f64().unwrap();
    assert!(total(&bench("fp32")) > total(&binary) + 6.0 * floats as f64 / 1e6);
}

#[test]
fn a_packed_model_is_used_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let done = small(dir, &["--out", "run"]);
    fs::write(dir.join("picture.png"), PICTURE).unwrap();

    let packed = json(&dirnet(dir, &["pack", "run", "-o", "net.dirnet", "--json"]));
    assert_eq!(keys(&packed), sorted("file bytes layers_packed layers_float saving"));
    let size = fs::metadata(dir.join("net.dirnet")).unwrap().len();
    assert_eq!((&packed["bytes"], &packed["layers_packed"]), (&Value::from(size), &1.into()));

    let verified = json(&dirnet(dir, &["verify", "net.dirnet", "run", "--json"]));
    assert_eq!(keys(&verified), sorted("images layers equal"));
    assert_eq!((&verified["images"], &verified["equal"]), (&Value::from(450), &true.into()));

    let [trained, packed] = ["run", "net.dirnet"].map(|model| {
        let mut evaluated = json(&dirnet(dir, &["eval", model, "--json"]));
        let mut predicted = json(&dirnet(dir, &["predict", model, "picture.png", "--json"]));
        (evaluated["accuracy"].take(), evaluated["loss"].take(), predicted["classes"].take())
    });
    assert_eq!(trained, packed);
    assert_eq!(trained.0, done["test_accuracy"]);

    let rounded = ["pack", "run", "-o", "half.dirnet", "--floats", "f16", "--json"];
    let rounded = json(&dirnet(dir, &rounded));
    assert_eq!(rounded["accuracy_trained"], done["test_accuracy"]);
    assert!(rounded["bytes"].as_u64().unwrap() < size);
    let output = dirnet(dir, &["verify", "half.dirnet", "run", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let differs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = "images layers equal image layer channel pixel trained packed";
    assert_eq!(keys(&differs), sorted(expected));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("error: half.dirnet: differs from run first in "), "{message}");

    let other = ["train", "--data", "digits", "--arch", "mlp(hidden=24)", "--epochs", "1"];
    json(&dirnet(dir, &[&other[..], &["--out", "other", "--json", "-q"]].concat()));
    refused(dir, &["verify", "net.dirnet", "other"], &["none of this run"]);
    small(dir, &["--out", "float", "--method", "fp32"]);
    refused(dir, &["pack", "float", "-o", "float.dirnet"], &["no layer of this network is binary"]);
    assert!(!dir.join("float.dirnet").exists());
    refused(dir, &["pack", "run", "-o", "missing/net.dirnet"], &["missing/net.dirnet: "]);
    failed(dir, &["pack", "run", "-o", "net.npz"], 2, &["ends in .dirnet"]);
    let mut bytes = fs::read(dir.join("net.dirnet")).unwrap();
    bytes.truncate(bytes.len() - 1);
    fs::write(dir.join("short.dirnet"), bytes).unwrap();
    refused(dir, &["eval", "short.dirnet"], &["short.dirnet: is damaged or incomplete"]);
}

#[test]
fn bench_infer_compares_bits_with_floats() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        "infer",
        "--arch",
        "resnet20(width=0.5)",
        "--method",
        "bnn",
        "--input",
        "3x8x8",
        "--passes",
        "2",
        "--json",
    ];
    let timed = json(&dirnet(dir.path(), &args));
    let expected = "arch method batch input threads ms_packed ms_float speedup bytes_packed \
        bytes_float saving peak_rss_mb";
    assert_eq!(keys(&timed), sorted(expected));
    let of = |key: &str| timed[key].as_f64().unwrap();
    assert!(of("ms_packed") > 0.0 && of("ms_float") > 0.0);
    assert!(of("saving") > 4.0 && of("bytes_float") / of("bytes_packed") == of("saving"));
}

#[test]
fn bench_train_tells_where_the_time_goes_and_which_layers_are_slow() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |more: &[&str]| {
        let args = ["bench", "train", "--method", "bnn", "--batch", "4", "--steps", "1", "--arch"];
        dirnet(dir.path(), &[&args, more].concat())
    };
    let net = ["resnet20(width=0.5)", "--input", "3x8x8"];
    let tiny = json(&bench(&[&net[..], &["--json"]].concat()));
    for part in [
        "conv2d forward",
        "conv2d backward",
        "bin_conv2d forward",
        "bin_conv2d backward",
        "cross_entropy forward",
        "optimizer",
        "tape",
    ] {
        assert!(tiny["parts"][part].as_f64().is_some_and(|ms| ms > 0.0), "{part}: {tiny}");
    }
    // Rows of two pixels, a stride apart, leave most lanes of a table idle.
    assert_eq!(tiny["slow_layers"], serde_json::json!(["layer3.0.conv1"]));
    let text = String::from_utf8(bench(&net).stdout).unwrap();
    assert!(text.contains("slow path: layer3.0.conv1 (dx from floats: 16x4x4 to 32x2x2"), "{text}");

    let dense = json(&bench(&["mlp", "--input", "1x8x8", "--json"]));
    assert!(dense["parts"]["bin_linear forward"].as_f64().is_some_and(|ms| ms > 0.0), "{dense}");
    assert_eq!(dense["slow_layers"], Value::Array(Vec::new()));
}

#[test]
fn bench_kernels_holds_each_kernel_against_others() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |batch: &str, filter: &str| -> Vec<Value> {
        let args = ["bench", "kernels", "--batch", batch, "--filter", filter, "--json", "-q"];
        let output = dirnet(dir.path(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let expected = "kernel shape threads ms gmac_per_s ratio_to_sgemm percent_of_fma_peak \
        ratio_to_im2col";
    let positive = |row: &Value, key: &str| row[key].as_f64().is_some_and(|x| x > 0.0);

    let rows = bench("2", " 2x64x8x8->64 k3 s1");
    let kernels: Vec<&str> = rows.iter().map(|row| row["kernel"].as_str().unwrap()).collect();
    let all = "bin_conv_fwd bin_conv_dw bin_conv_dx conv_fwd conv_dw conv_dx sgemm pack";
    assert_eq!(kernels, all.split(' ').collect::<Vec<_>>());
    for row in rows {
        assert_eq!(keys(&row), sorted(expected));
        assert_eq!(row["shape"], "2x64x8x8->64 k3 s1");
        let (kernel, product) = (row["kernel"].as_str().unwrap(), row["kernel"] != "pack");
        assert!(positive(&row, "threads") && positive(&row, "ms"), "{row}");
        assert_eq!(positive(&row, "gmac_per_s"), product, "{row}");
        assert_eq!(positive(&row, "ratio_to_sgemm"), product, "{row}");
        assert_eq!(positive(&row, "ratio_to_im2col"), kernel.contains("conv"), "{row}");
    }

    let dense = bench("1", "bin_dense_fwd");
    assert_eq!(dense.len(), 1, "{dense:?}");
    assert_eq!(dense[0]["shape"], "1x1024->1024");
    refused(dir.path(), &["bench", "kernels", "--filter", "conv_sideways"], &["conv_sideways"]);
}

#[test]
fn sets_are_listed_and_described() {
    let dir = tempfile::tempdir().unwrap();
    let output = dirnet(dir.path(), &["data", "list", "--json"]);
    let names: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().into())
        .collect();
    assert!(names.contains(&"fashion-mini".to_string()) && names.contains(&"cifar10".to_string()));
    let info = json(&dirnet(dir.path(), &["data", "info", "digits", "--json"]));
    assert_eq!((info["train"].as_u64(), info["test"].as_u64()), (Some(1347), Some(450)));
    refused(dir.path(), &["data", "fetch", "mnits"], &["mnits", "mnist"]);
}

#[test]
fn pictures_that_cannot_be_drawn_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let curves = |more: &[&'static str]| [&["lab", "curves"], more].concat();
    failed(dir, &curves(&["stee"]), 2, &["stee", "did you mean \"ste\"?"]);
    failed(dir, &curves(&["soft = tan(x)"]), 2, &["tan"]);
    failed(dir, &curves(&["--at", "1.5"]), 2, &["1.5", "from 0", "to 1"]);
    failed(dir, &curves(&["--at", "NaN"]), 2, &["NaN", "from 0"]);
    failed(dir, &curves(&["--on", "norml"]), 2, &["norml", "did you mean \"normal\"?"]);
    failed(dir, &curves(&["--on", "normal", "--at", "1"]), 2, &["--on", "--at"]);
    failed(dir, &curves(&["--on", "normal", "--rho", "0"]), 2, &["--rho", "above 0"]);
    failed(dir, &curves(&["-o", "curves.png"]), 2, &["curves.png", ".svg"]);
    refused(dir, &curves(&["ste", "-o", "nowhere/ste.svg"]), &["nowhere/ste.svg", "No such file"]);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "a refused picture leaves no file");

    // A name from outside is text in the picture, whatever is in it, and is cut where it is long.
    let strange = "soft = clamp(x, -1, 1) + 0*min(x, 1) + 0*max(x, 1) + 0*tanh(x) + 0*erf(x)";
    let drawn = dirnet(dir, &curves(&[strange, "--at", "0.5", "-q", "-o", "one.svg"]));
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let svg = fs::read_to_string(dir.join("one.svg")).unwrap();
    assert!(svg.contains("soft=clamp(x,-1,1)+0*min(") && svg.contains('…'), "{svg}");
    assert!(svg.trim_end().ends_with("</svg>"));
}
