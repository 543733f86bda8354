//! The promise: `dirnet lab` compares methods that differ in nothing else, and however often it is
//! stopped, each run counts once and comes out the same. The pictures in the guide are those that the
//! commands beside them draw.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const COMPARE: &[&str] =
    &["lab", "compare", "--data", "digits", "--arch", "mlp(hidden=32)", "--epochs", "2", "--json"];

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirnet"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

fn dirnet(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parsed(&String::from_utf8_lossy(&output.stdout))
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn results(dir: &Path, out: &str) -> Vec<Value> {
    parsed(&fs::read_to_string(dir.join(out).join("results.jsonl")).unwrap_or_default())
}

/// What must not depend on how a comparison went: the weights and scores of each run.
fn outcome(lines: &[Value]) -> BTreeMap<String, [Value; 4]> {
    let keys = ["weights_sha256", "test_accuracy", "train_loss", "best_accuracy"];
    let each = lines.iter().map(|line| {
        (format!("{} {}", line["method"], line["seed"]), keys.map(|key| line[key].clone()))
    });
    let found: BTreeMap<_, _> = each.collect();
    assert_eq!(found.len(), lines.len(), "a run stands twice");
    found
}

fn wait_for(mut there: impl FnMut() -> bool, child: &mut Child) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < Duration::from_secs(120), "nothing happened");
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn methods_are_compared_seed_by_seed_and_nothing_is_run_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let three = ["--methods", "dir-net", "bnn", "fp32", "--baseline", "bnn", "--out", "one"];
    let output = dirnet(dir, &[COMPARE, &three].concat());
    let found = objects(&output);
    let (runs, methods) = found.split_at(9);
    assert!(runs.iter().all(|run| run["event"] == "run"), "{runs:?}");
    let names: Vec<&str> = methods.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dir-net", "bnn", "fp32"]);
    let mut keys: Vec<&String> = methods[0].as_object().unwrap().keys().collect();
    keys.sort();
    let expected = "baseline difference event interval ms_per_step name runs std test_accuracy";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());

    // The mean of each, and the differences to the baseline, from the runs themselves.
    let accuracy = |name: &str| -> Vec<f64> {
        let own = runs.iter().filter(|run| run["name"] == name);
        own.map(|run| run["test_accuracy"].as_f64().unwrap()).collect()
    };
    for method in methods {
        let (own, base) = (accuracy(method["name"].as_str().unwrap()), accuracy("bnn"));
        assert_eq!((own.len(), method["runs"].as_u64()), (3, Some(3)));
        let number = |key: &str| method[key].as_f64().unwrap();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / 3.0;
        assert!((number("test_accuracy") - mean(&own)).abs() < 1e-12);
        assert!((number("difference") - (mean(&own) - mean(&base))).abs() < 1e-12);
        let [low, high] = [0, 1].map(|i| method["interval"][i].as_f64().unwrap());
        assert!((0.5 * (low + high) - number("difference")).abs() < 1e-12);
    }

    // Run again, nothing is trained; the same file serves a comparison of fewer, and one of another
    // recipe does not find its lines there.
    let before = results(dir, "one");
    assert_eq!(before.len(), 9);
    let again = objects(&dirnet(dir, &[COMPARE, &three].concat()));
    assert_eq!(again, found);
    let fewer = ["--methods", "fp32", "bnn", "--seeds", "2", "--out", "one"];
    let fewer = objects(&dirnet(dir, &[COMPARE, &fewer].concat()));
    assert_eq!(
        (fewer.len(), &fewer[2]["std"], &fewer[3]["interval"]),
        (4, &Value::Null, &Value::Null)
    );
    assert_eq!(results(dir, "one"), before);
    let other =
        ["--methods", "bnn", "--seeds", "0", "--set", "lr=0.01", "--holdout", "--out", "one"];
    objects(&dirnet(dir, &[COMPARE, &other].concat()));
    let after = results(dir, "one");
    assert_eq!((after.len(), &after[..9]), (10, &before[..]));
    assert_eq!(after[9]["config"]["holdout"], 0.1);
    assert_ne!(after[9]["weights_sha256"], before[1]["weights_sha256"]);

    // A run of a comparison is the run that `train` makes; finished ones leave no folder unless they
    // may teach.
    let train =
        ["train", "--data", "digits", "--arch", "mlp(hidden=32)", "--epochs", "2", "--json"];
    let alone = objects(&dirnet(dir, &[&train[..], &["--method", "bnn", "--seed", "1"]].concat()));
    let line = before.iter().find(|l| l["method"] == "bnn" && l["seed"] == 1).unwrap();
    assert_eq!(alone[0]["weights_sha256"], line["weights_sha256"]);
    let left = fs::read_dir(dir.join("one/runs")).unwrap();
    let left: Vec<_> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.len() == 3 && left.iter().all(|name| name.contains("fp32")), "{left:?}");
}

#[test]
fn killed_anywhere_it_goes_on_to_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = |out: &'static str| {
        let own = ["--methods", "bnn", "dir-net(rbd=on)", "--seeds", "0", "1", "--out", out, "-q"];
        let long = ["--set", "epochs=24", "--set", "batch=32"];
        [&COMPARE[..6], &["--json"], &own, &long].concat()
    };
    objects(&dirnet(dir, &args("whole")));
    let whole = outcome(&results(dir, "whole"));
    assert_eq!(whole.len(), 6, "two methods and a teacher with two seeds each");

    // Once in the midst of the first run, once after some lines.
    let metrics = || {
        let runs = fs::read_dir(dir.join("cut/runs")).into_iter().flatten().flatten();
        runs.filter(|run| run.path().join("metrics.csv").exists()).count()
    };
    let mut child = command(dir, &args("cut")).stdout(Stdio::null()).spawn().unwrap();
    wait_for(|| metrics() > 0, &mut child);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(results(dir, "cut").is_empty());
    let mut child = command(dir, &args("cut")).stdout(Stdio::null()).spawn().unwrap();
    wait_for(|| dir.join("cut/results.jsonl").exists(), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let path = dir.join("cut/results.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let had = text.lines().count();
    assert!((1..6).contains(&had), "{text}");

    // A line cut short: its run is run again, no other is.
    fs::write(&path, &text[..text.len() - 30]).unwrap();
    let output = dirnet(dir, &args("cut").into_iter().filter(|a| *a != "-q").collect::<Vec<_>>());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("results.jsonl: the last line was cut short"), "{stderr}");
    objects(&output);
    assert_eq!(outcome(&results(dir, "cut")), whole);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_unfinished_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = ["lab", "ablate", "--data", "digits", "--arch", "mlp", "--epochs", "400"];
    let piped = || command(dir, &args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = piped().unwrap();
    let runs = dir.join("runs/lab/runs");
    let first = || fs::read_dir(&runs).ok()?.next()?.ok().map(|run| run.path());
    wait_for(|| first().is_some_and(|run| run.join("metrics.csv").exists()), &mut child);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("to go on: the same command again"), "{stderr}");
    assert!(first().unwrap().join("checkpoint/state.npz").is_file());
    assert!(results(dir, "runs/lab").is_empty());
}

#[test]
fn an_ablation_adds_a_part_at_a_time_and_its_teacher_is_fp32() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = [&["lab", "ablate"], &COMPARE[2..], &["--seeds", "3", "--out", "a"]].concat();
    let found = objects(&dirnet(dir, &args));
    let names: Vec<&str> = found[..4].iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain", "+imb", "+dte", "+rbd"]);
    assert_eq!(found[4]["baseline"], "plain");
    let lines = results(dir, "a");
    assert_eq!(outcome(&lines).len(), 5, "four variants and a teacher");
    let hashes: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["weights_sha256"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), 5, "{lines:?}");

    // What stands there serves a comparison: nothing is trained.
    let methods = ["--methods", "dir-net(rbd=on)", "fp32", "dir-net", "--seeds", "3", "--out", "a"];
    objects(&dirnet(dir, &[COMPARE, &methods].concat()));
    assert_eq!(results(dir, "a"), lines);
    // And the run with a teacher is the one that `train` makes with a teacher of its own.
    let train = ["train", "--method", "dir-net(rbd=on)", "--seed", "3"];
    let alone = objects(&dirnet(dir, &[&train[..], &COMPARE[2..]].concat()));
    assert_eq!(alone[0]["weights_sha256"], found[3]["weights_sha256"]);
}

#[test]
fn what_cannot_be_compared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = |args: &[&str], status: i32, expected: &str| {
        let output = dirnet(dir, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains("error:") && stderr.contains(expected), "{stderr}");
    };
    let compare = |more: &[&'static str]| [COMPARE, &["--methods", "bnn", "ir-net"], more].concat();
    refused(&compare(&["--baseline", "irnet"]), 1, "did you mean \"ir-net\"?");
    refused(&compare(&["bnn"]), 1, "the method bnn stands twice");
    refused(&compare(&["--seeds", "1", "1"]), 1, "the seed 1 stands twice");
    refused(&compare(&["--set", "seed=3"]), 1, "--set seed: the runs differ in it");
    refused(&compare(&["--set", "lrr=3"]), 2, "did you mean \"lr\"?");
    refused(&[COMPARE, &["--methods", "bnnn"]].concat(), 2, "did you mean \"bnn\"?");
    assert!(!dir.join("runs").exists(), "a refused comparison leaves no folder");
    fs::create_dir_all(dir.join("bad")).unwrap();
    fs::write(dir.join("bad/results.jsonl"), "{\"method\": \"bnn\"}\n").unwrap();
    refused(&compare(&["--out", "bad"]), 1, "bad/results.jsonl: line 1: missing field");
    let diverging = ["--set", "optimizer=sgd", "--lr", "1e38"];
    let diverging = [&diverging[..2], &["--set", "lr=1e38", "--out", "d"]].concat();
    refused(&compare(&diverging), 1, "bnn, seed 0: epoch 1, step");
}

#[test]
fn curves_are_told_as_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let curves = |more: &[&str]| {
        objects(&dirnet(dir.path(), &[&["lab", "curves", "--json"], more].concat()))
    };
    let keys = |found: &Value| {
        let mut keys: Vec<String> = found.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    // All built-in ones at three moments, or those named at the moments named.
    assert_eq!(curves(&[]).len(), 3 * dirnet::binarize::estimator::all().count());
    let found = curves(&["soft = 2*tanh(x)", "ede", "--at", "0", "0.25", "1"]);
    let told: Vec<_> = found.iter().map(|c| (&c["estimator"], c["progress"].as_f64())).collect();
    assert_eq!((told.len(), told[4]), (6, (&Value::from("ede"), Some(0.25))));
    let at = |curve: &Value, list: &str, i: usize| curve[list][i].as_f64().unwrap();
    for curve in &found {
        assert_eq!((curve["event"].as_str(), keys(curve)), {
            (Some("curve"), "estimator event progress slope soft x".to_string())
        });
        assert_eq!((at(curve, "x", 0), at(curve, "x", 150)), (-2.0, 1.0));
    }
    let (soft, slope) = (2.0 * 1f64.tanh(), 2.0 * (1.0 - 1f64.tanh().powi(2)));
    assert!((at(&found[0], "soft", 150) - soft).abs() < 1e-5);
    assert!((at(&found[0], "slope", 150) - slope).abs() < 1e-5);

    // What is drawn by default of shares: EDE lets a tensor starve, DTE none.
    let found = curves(&["--on", "normal", "bimodal"]);
    assert_eq!(found.len(), 2 * 2 * 41);
    assert_eq!(keys(&found[0]), "estimator event progress share tensor");
    let least = |estimator: &str| {
        let own = found.iter().filter(|s| s["estimator"] == estimator);
        own.map(|s| s["share"].as_f64().unwrap()).fold(1.0, f64::min)
    };
    assert!(least("ede") < 0.01 && least("dte") >= 0.1, "{}, {}", least("ede"), least("dte"));
}

/// A text with each whole number in it as `#`, and the numbers.
fn without_numbers(text: &str) -> (String, Vec<i64>) {
    let (mut words, mut numbers) = (String::new(), Vec::new());
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        if let Ok(number) = digits.parse() {
            numbers.push(number);
            words.push('#');
        }
        words.push_str(&part[digits.len()..]);
    }
    (words, numbers)
}

/// Each command in the guide draws the picture that is kept beside it, but for a pixel where another
/// machine rounds otherwise.
#[test]
fn the_guides_pictures_are_drawn_by_its_commands() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let guide = fs::read_to_string(docs.join("estimators.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("docs")).unwrap();
    let mut drawn = 0;
    for line in guide.lines().filter_map(|line| line.strip_prefix("    dirnet lab curves")) {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
        objects(&dirnet(dir.path(), &[&["lab", "curves", "--json"], &words[..]].concat()));
        let name = words[words.len() - 1].strip_prefix("docs/").unwrap();
        let kept = fs::read_to_string(docs.join(name)).unwrap();
        let made = fs::read_to_string(dir.path().join("docs").join(name)).unwrap();
        let ((kept, places), (made, found)) = (without_numbers(&kept), without_numbers(&made));
        assert!(kept == made, "docs/{name} is out of date: dirnet lab curves{line}");
        assert!(places.len() > 1000 && places.len() == found.len());
        for (place, found) in places.iter().zip(&found) {
            assert!(
                (place - found).abs() <= 1,
                "docs/{name} is out of date: dirnet lab curves{line}"
            );
        }
        drawn += 1;
    }
    assert_eq!(drawn, 2);
}
