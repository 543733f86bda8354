//! The promise: each architecture learns in float and in bits, none of its binary layers is dead, and a
//! run of it that was stopped and resumed ends with the same bits, whatever it draws on the way.

use dirnet::nn::Module;
use dirnet::train::{Config, Event, Trainer, weights_sha256};
use dirnet::{Role, Tape, datasets};

/// A few clothes.
fn config(arch: &str, method: &str, epochs: usize) -> Config {
    let (arch, method) = (arch.into(), method.into());
    let limits =
        Config { limit_train: 192, limit_test: 64, batch: 16, lr: 1e-2, ..Config::default() };
    Config { arch, method, epochs, ..limits }
}

/// The mean loss of the last epoch; that of a guess is ln 10 = 2.3.
fn loss_after(epochs: usize, arch: &str, method: &str) -> f64 {
    let data = datasets::fashion_mini();
    let mut trainer = Trainer::new(config(arch, method, epochs), &data).unwrap();
    assert!(trainer.run(|_, _| true).unwrap());

    let batch = data.train_batches(32).into_iter().next().unwrap();
    let tape = Tape::train(&trainer.params);
    let logits = trainer.model.forward(&tape.constant(&batch));
    let grads = logits.cross_entropy(&batch.labels).backward();
    let latent = trainer.params.iter().filter(|(_, param)| param.role == Role::Latent);
    for (id, param) in latent {
        let gradient = grads.get(id).unwrap_or_else(|| panic!("{}", param.name));
        assert!(gradient.iter().any(|&g| g != 0.0), "{arch}, {method}: {} is dead", param.name);
    }
    let loss = trainer.history().last().unwrap().train_loss;
    println!("{arch}, {method}: {loss:.3}");
    loss
}

#[test]
fn mobilenet_v1_learns() {
    let arch = "mobilenet-v1(width=0.125,depth=0)";
    for (method, bound) in [("fp32", 1.6), ("dir-net", 1.9), ("bnn", 2.0), ("xnor-net", 1.9)] {
        assert!(loss_after(10, arch, method) < bound, "{method}");
    }
    // With depthwise ones in bits as well, it takes longer to learn than a test may.
    loss_after(1, "mobilenet-v1(width=0.125,depth=0,depthwise=binary)", "dir-net");
}

#[test]
fn efficientnet_b0_learns() {
    let arch = "efficientnet-b0(width=0.125,depth=0.1,drop_connect=0.1,dropout=0)";
    for (method, bound) in [("fp32", 1.6), ("dir-net", 2.0), ("bnn", 2.0), ("xnor-net", 2.0)] {
        assert!(loss_after(10, arch, method) < bound, "{method}");
    }
    loss_after(1, "efficientnet-b0(width=0.125,depth=0.1,depthwise=binary)", "dir-net");
}

#[test]
fn darts_learns() {
    // The loss of a head beside the network would count as well.
    let arch = "darts(width=0.1,layers=3,auxiliary=off,drop_path=0.1)";
    for (method, bound) in [("fp32", 1.6), ("dir-net", 2.0), ("bnn", 2.0), ("xnor-net", 2.0)] {
        assert!(loss_after(10, arch, method) < bound, "{method}");
    }
    loss_after(1, "darts(width=0.1,layers=1,depthwise=binary)", "dir-net");
}

#[test]
fn a_stopped_run_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.npz");
    let data = datasets::fashion_mini();
    for arch in [
        "mobilenet-v1(width=0.1,depth=0)",
        "efficientnet-b0(width=0.1,depth=0.1)",
        "darts(width=0.1,layers=2)",
    ] {
        let config = Config { limit_train: 64, ..config(arch, "dir-net", 2) };
        let mut whole = Trainer::new(config.clone(), &data).unwrap();
        assert!(whole.run(|_, _| true).unwrap());
        let mut steps = 0;
        let mut first = Trainer::new(config.clone(), &data).unwrap();
        first
            .run(|trainer, event| {
                steps += usize::from(matches!(event, Event::Step { .. }));
                if steps == 5 {
                    trainer.save_checkpoint(&path).unwrap();
                }
                steps < 5
            })
            .unwrap();
        let mut second = Trainer::resume(config, &data, &path).unwrap();
        assert!(second.run(|_, _| true).unwrap());
        assert_eq!(weights_sha256(&second.params), weights_sha256(&whole.params), "{arch}");
    }
}
