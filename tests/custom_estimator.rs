//! The promise: an estimator written outside the crate, in a dozen lines, trains a network.

use dirnet::models::{Model, Task};
use dirnet::nn::Module;
use dirnet::optim::Adam;
use dirnet::{Estimator, Method, Params, Rng, Tape, check_estimator, datasets, train};
use std::sync::Arc;

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
    let triangle: Arc<dyn Estimator> = Arc::new(Triangle);
    let method = "dir-net".parse::<Method>().unwrap().with_estimator(&triangle);
    let task = Task { input: data.shape(), classes: 10 };
    let arch = "mlp".parse().unwrap();
    let net = Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(1)).unwrap();
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
