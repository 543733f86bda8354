//! Writes the small packed files that the tests of the reader and the fuzzer begin with.

use dirnet::deploy::{Floats, pack};
use dirnet::models::Card;
use dirnet::{Rng, Tensor};
use std::{fs, path::Path};

/// Small networks that together have every form of array and most operations.
const SEEDS: &[(&str, &str, &str, Floats)] = &[
    ("mlp", "mlp(hidden=12)", "adabin", Floats::F32),
    ("resnet20", "resnet20(width=0.5)", "dir-net", Floats::I8),
    ("mobilenet", "mobilenet-v1(width=0.1,depth=0,depthwise=binary)", "reactnet", Floats::F16),
    ("darts", "darts(width=0.1,layers=1,depthwise=binary)", "xnor-net", Floats::F32),
];

#[test]
#[ignore = "writes fuzz/seeds, for when the format changes: cargo test --test seeds -- --ignored"]
fn write() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    fs::create_dir_all(&dir).unwrap();
    for &(name, arch, method, floats) in SEEDS {
        let card = Card {
            version: env!("CARGO_PKG_VERSION").into(),
            arch: arch.into(),
            method: method.into(),
            estimator: String::new(),
            data: "none".into(),
            input: [1, 16, 16],
            classes: (0..4).map(|i| i.to_string()).collect(),
            mean: vec![0.25],
            std: vec![0.5],
        };
        let mut rng = Rng::seed(3);
        let (mut params, model) = card.build(&mut rng).unwrap();
        // Batch norms of either sign, so that some thresholds flip.
        let all: Vec<_> =
            params.iter().map(|(id, p)| (id, p.name.clone(), p.value.clone())).collect();
        for (id, name, mut value) in all {
            if !name.ends_with("running_var") {
                let noise = Tensor::randn(value.shape(), 0.7, &mut rng);
                value.data_mut().iter_mut().zip(&*noise).for_each(|(x, noise)| *x += noise);
                params.set(id, value);
            }
        }
        let (packed, _) = pack(&params, &model, &card, floats, &[]).unwrap();
        fs::write(dir.join(format!("{name}.dirnet")), packed.to_bytes()).unwrap();
    }
}
