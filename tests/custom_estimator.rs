//! The promise: an estimator written outside the crate, in a dozen lines, trains a network.

use dirnet::models::bin_mlp;
use dirnet::nn::Module;
use dirnet::optim::Adam;
use dirnet::{Estimator, Params, Rng, Tape, check_estimator, datasets, train};

#[derive(Debug)]
struct Triangle;

impl Estimator for Triangle {
    fn name(&self) -> &str {
        "triangle"
    }
    fn soft(&self, x: f32) -> f32 {
        let x = x.clamp(-2.0, 2.0);
        x - x * x.abs() / 4.0
    }
    fn slope(&self, x: f32) -> f32 {
        (1.0 - x.abs() / 2.0).max(0.0)
    }
}

#[test]
fn an_estimator_of_ones_own_trains_digits_above_95_percent() {
    check_estimator(&Triangle);
    let data = datasets::digits();
    let mut params = Params::new();
    let net = bin_mlp(&mut params, &[64, 256, 10], Triangle, &mut Rng::seed(1));
    let mut opt = Adam::new(0.01).cosine();
    for epoch in 0..20 {
        for batch in data.train_batches(64).seed(1).epoch(epoch) {
            let tape = Tape::train(&params).at(epoch as f32 / 20.0);
            let loss = net.forward(&tape.constant(&batch)).cross_entropy(&batch.labels);
            let grads = loss.backward();
            opt.step(&mut params, &grads);
        }
    }
    let score = train::evaluate(&net, &params, data.test_batches(450));
    assert!(score.accuracy > 0.95, "{score:?}");
}
