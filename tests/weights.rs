//! Promise: weights that Python wrote are read to the bit, have the names that PyTorch's own models
//! give them, and load whole or not at all.
//!
//! The files under `tests/golden/` were made by `weights.py` there.

use dirnet::models::{Model, Task};
use dirnet::{Params, Rng, Role, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn table<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Params {
    let mut params = Params::new();
    for (name, shape) in entries {
        params.add(name, Role::Weight, Tensor::full(shape, 0.25));
    }
    params
}

/// The error of loading, which must change nothing.
fn refused(params: &mut Params, path: &Path) -> String {
    let before = params.clone();
    let message = params.load(path).unwrap_err().to_string();
    assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    for ((_, a), (_, b)) in before.iter().zip(params.iter()) {
        assert_eq!(a.value, b.value, "{}", a.name);
    }
    message
}

#[test]
fn files_of_python_are_read_to_the_bit() {
    for (file, kinds) in [
        ("weights.safetensors", &["f16", "bf16", "f32", "f64"][..]),
        ("weights.npz", &["f16", "f32", "f64"]),
    ] {
        let names = kinds.iter().flat_map(|k| [format!("{k}.stored"), format!("{k}.float")]);
        let names: Vec<String> = names.collect();
        let mut params = table(names.iter().map(|name| (name.as_str(), &[4, 6][..])));
        params.load(golden(file)).unwrap();
        for kind in kinds {
            let bits = |of: &str| -> Vec<u32> {
                let id = params.id(&format!("{kind}.{of}")).unwrap();
                params[id].value.iter().map(|x| x.to_bits()).collect()
            };
            assert_eq!(bits("stored"), bits("float"), "{file}: {kind}");
            // Minus zero, and numbers on both sides of it.
            assert_eq!(bits("stored")[1], 1 << 31, "{file}: {kind}");
            assert!(bits("stored").iter().any(|&x| x > 1 << 31), "{file}: {kind}");
        }
    }
}

#[test]
fn parameters_have_the_names_and_shapes_of_torchvision() {
    let text = fs::read_to_string(golden("torchvision.txt")).unwrap();
    for arch in ["resnet18", "resnet34"] {
        let theirs: BTreeMap<String, Vec<usize>> = text
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words[0] == arch && !words[1].ends_with("num_batches_tracked"))
            .map(|w| (w[1].to_string(), w[2..].iter().map(|n| n.parse().unwrap()).collect()))
            .collect();
        let mut params = Params::new();
        let task = Task { input: [3, 224, 224], classes: 1000 };
        let (arch, method) = (arch.parse().unwrap(), "fp32".parse().unwrap());
        Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(0)).unwrap();
        let ours = params.iter().map(|(_, p)| (p.name.clone(), p.value.shape().to_vec()));
        assert_eq!(ours.collect::<BTreeMap<_, _>>(), theirs);
    }
}

#[test]
fn all_that_does_not_fit_is_listed_with_what_it_may_be_called() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["x.npz", "x.safetensors"] {
        let path = dir.path().join(file);
        let theirs = [
            ("module.conv1.weight", &[8, 3][..]),
            ("module.linear.weight", &[10, 8]),
            ("module.linear.bias", &[10]),
            ("extra", &[1]),
            ("bn1.bias", &[9]),
        ];
        table(theirs).save(&path).unwrap();
        let ours = [
            ("conv1.weight", &[8, 3][..]),
            ("bn1.bias", &[8]),
            ("fc.weight", &[10, 8]),
            ("fc.bias", &[10]),
            ("other", &[1]),
        ];
        let message = refused(&mut table(ours), &path);
        for part in [
            "conv1.weight [8, 3] is missing (module.conv1.weight has its shape)",
            "fc.weight [10, 8] is missing (module.linear.weight has its shape)",
            "fc.bias [10] is missing (module.linear.bias has its shape)",
            "other [1] is missing;",
            "bn1.bias has shape [9], expected [8]",
            "extra [1] is not part of this model",
            "module.linear.bias [10] is not part of this model",
            "--init-except",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
}

#[test]
fn a_head_may_stay_as_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let body = ("conv1.weight", &[2, 2][..]);
    let mut theirs = table([body, ("linear.weight", &[7, 2]), ("fcc", &[1])]);
    theirs.set(theirs.id("conv1.weight").unwrap(), Tensor::full([2, 2], 3.0));
    theirs.save(&path).unwrap();
    let mut ours = table([body, ("fc.weight", &[5, 2]), ("fc.bias", &[5]), ("fcc", &[1])]);

    let unknown = ours.load_except(&path, &["fc", "linaer"]).unwrap_err().to_string();
    assert!(unknown.contains("\"linaer\"") && unknown.contains("conv1, fc, fcc"), "{unknown}");
    // `fcc` is not inside `fc`, and `linear` is there only.
    assert!(ours.load_except(&path, &["fc"]).is_err());
    let stay = ours.load_except(&path, &["fc", "linear"]).unwrap();
    assert_eq!(stay, ["fc.bias", "fc.weight"]);
    assert_eq!(ours[ours.id("conv1.weight").unwrap()].value[0], 3.0);
    assert_eq!(ours[ours.id("fc.weight").unwrap()].value[0], 0.25);
}

#[test]
fn numbers_that_are_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["x.npz", "x.safetensors"] {
        let path = dir.path().join(file);
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut params = table([("a", &[3][..]), ("b", &[3])]);
            let fresh = params.clone();
            params.set(params.id("b").unwrap(), Tensor::from([0.0, number, 1.0]));
            params.save(&path).unwrap();
            let message = refused(&mut fresh.clone(), &path);
            assert!(message.contains("b has a number that is not finite"), "{message}");
            assert!(!message.contains("a has"), "{message}");
        }
    }
}

#[test]
fn a_failed_save_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let params = table([("a", &[3][..])]);
    for file in ["x.npz", "x.safetensors"] {
        let path = dir.path().join(file);
        params.save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        // The file is written beside its place first, which is taken here.
        let beside = dir.path().join(format!("{file}.tmp"));
        fs::create_dir(&beside).unwrap();
        table([("b", &[1000][..])]).save(&path).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), whole);
        fs::remove_dir(&beside).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
