//! The promise: a method put together outside the crate, one of its parts written there, trains
//! networks.

use dirnet::binarize::recipe::PARTS;
use dirnet::binarize::{
    Activations, Between, Learned, METHODS, Part, Scale, Standardize, Weights, estimator,
};
use dirnet::models::{Card, Model, Task};
use dirnet::nn::Module;
use dirnet::optim::Adam;
use dirnet::train::{Config, Event, Run, Trainer, weights_sha256};
use dirnet::{Method, ParamId, Params, Rng, Role, Tape, Tensor, Var, datasets};
use std::sync::Arc;

/// `x · exp(g)` with a learned number a channel.
#[derive(Debug)]
struct Stretch;

impl Part for Stretch {
    fn name(&self) -> &str {
        "stretch"
    }
    fn learned(&self, shape: &[usize]) -> Vec<Learned> {
        vec![Learned { name: "g", role: Role::Weight, value: Tensor::zeros([shape[0]]) }]
    }
    fn forward<'t>(&self, x: &Var<'t>, learned: &[ParamId]) -> Var<'t> {
        x.mul_channels(&x.tape().param(learned[0]).exp())
    }
}

fn mine() -> Method {
    let ste = estimator("ste").unwrap();
    let weights = Weights {
        prepare: vec![Arc::new(Standardize)],
        scale: Scale::Learned,
        offset: true,
        estimator: estimator("ede").unwrap(),
    };
    let activations =
        Activations { prepare: vec![Arc::new(Stretch)], estimator: ste, pixel_scale: false };
    Method { between: Between::Rprelu, ..Method::of("mine", weights, activations) }
}

#[test]
fn a_method_of_ones_own_trains() {
    let data = datasets::digits();
    for arch in ["mlp(hidden=64)", "vgg-small(width=0.1)"] {
        let mut params = Params::new();
        let task = Task { input: data.shape(), classes: 10 };
        let arch = arch.parse().unwrap();
        let net = Model::new(&mut params, &arch, &mine(), &task, &mut Rng::seed(1)).unwrap();
        let mut opt = Adam::new(0.01);
        let mut losses = Vec::new();
        for batch in data.train_batches(32).seed(1).epoch(0).into_iter().take(20) {
            let tape = Tape::train(&params);
            let loss = net.forward(&tape.constant(&batch)).cross_entropy(&batch.labels);
            losses.push(loss.value().item());
            let grads = loss.backward();
            opt.step(&mut params, &grads);
        }
        let sum = |losses: &[f32]| losses.iter().sum::<f32>();
        assert!(sum(&losses[15..]) < 0.9 * sum(&losses[..5]), "{arch}: {losses:?}");
        let stretched = params.iter().find(|(_, p)| p.name.ends_with("stretch.g")).unwrap().1;
        assert!(stretched.value.iter().any(|&g| g != 0.0), "{arch}: {}", stretched.name);
    }
}

#[test]
fn a_written_recipe_trains_as_its_twin_and_its_file_is_not_needed_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("twin.toml");
    let recipe = r#"
        [weights]
        parts = ["standardize"]
        scale = "shift"
        estimator = "ede"
        [activations]
        estimator = "ede"
    "#;
    std::fs::write(&file, recipe).unwrap();
    let data = datasets::digits();
    let config = |method: &str| Config {
        data: "digits".into(),
        arch: "vgg-small(width=0.1)".into(),
        method: method.into(),
        epochs: 1,
        limit_train: 256,
        limit_test: 64,
        batch: 64,
        ..Config::default()
    };
    let trained = |method: &str| {
        let mut trainer = Trainer::new(config(method), &data).unwrap();
        assert!(trainer.run(|_, _| true).unwrap());
        trainer
    };
    let expected = weights_sha256(&trained("ir-net").params);
    let written = trained(file.to_str().unwrap());
    assert_eq!(weights_sha256(&written.params), expected);

    // Stopped halfway, saved, and gone on with from what the folder says.
    let mut first = Trainer::new(config(file.to_str().unwrap()), &data).unwrap();
    let run = Run::create(Some(&dir.path().join("run")), &first.config, false).unwrap();
    let mut steps = 0;
    let ended = first.run(|trainer, _| {
        steps += 1;
        if steps == 2 {
            trainer.save_checkpoint(&run.checkpoint()).unwrap();
        }
        steps < 2
    });
    assert!(!ended.unwrap());
    std::fs::remove_file(&file).unwrap();
    let mut second = Trainer::resume(run.config().unwrap(), &data, &run.checkpoint()).unwrap();
    assert!(second.run(|_, _| true).unwrap());
    assert_eq!(weights_sha256(&second.params), expected);

    run.save(&second).unwrap();
    let (params, model, _) = Card::load(&run.model()).unwrap();
    assert_eq!(model.method.spec.name, "twin");
    assert_eq!(weights_sha256(&params), expected);

    // The same, written out in the configuration.
    let table = r#"method = { weights = { parts = ["standardize"], scale = "shift", estimator = "ede" }, activations = { estimator = "ede" } }"#;
    let path = dir.path().join("config.toml");
    std::fs::write(&path, table).unwrap();
    let table = Config::read(&path).unwrap().method;
    assert_eq!(weights_sha256(&trained(&table).params), expected);
}

#[test]
fn the_guide_names_every_method_and_its_recipe_can_be_read() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/methods.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for entry in METHODS.iter().filter(|entry| entry.name != "fp32") {
        assert!(guide.contains(&format!("\n| `{}` |", entry.name)), "{}", entry.name);
    }
    for part in PARTS {
        assert!(guide.contains(&format!("`{}`", part.name)), "{}", part.name);
    }
    let recipe = guide.split("```").find_map(|block| block.strip_prefix("toml\n")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guide.toml");
    std::fs::write(&file, recipe).unwrap();
    let method: Method = file.to_str().unwrap().parse().unwrap();
    assert_eq!((method.between, method.latent_clip), (Between::Rprelu, Some(1.0)));
    assert_eq!(method.weights.unwrap().prepare.len(), 2);
}

#[test]
fn rotations_are_part_of_what_a_resume_takes_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.npz");
    let data = datasets::digits();
    let config = Config {
        data: "digits".into(),
        arch: "mlp(hidden=24)".into(),
        method: "rbnn".into(),
        epochs: 3,
        limit_train: 192,
        limit_test: 64,
        batch: 64,
        ..Config::default()
    };
    let mut whole = Trainer::new(config.clone(), &data).unwrap();
    assert!(whole.run(|_, _| true).unwrap());
    let expected = weights_sha256(&whole.params);
    for stop in [1, 3, 5] {
        let mut steps = 0;
        let mut first = Trainer::new(config.clone(), &data).unwrap();
        first
            .run(|trainer, event| {
                steps += usize::from(matches!(event, Event::Step { .. }));
                if steps == stop {
                    trainer.save_checkpoint(&path).unwrap();
                }
                steps < stop
            })
            .unwrap();
        let mut second = Trainer::resume(config.clone(), &data, &path).unwrap();
        assert!(second.run(|_, _| true).unwrap());
        assert_eq!(weights_sha256(&second.params), expected, "stopped after {stop}");
    }
}
