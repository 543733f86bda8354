//! Your own estimator: two scalar functions and a name, and it trains.
//!
//! Run it with `cargo run --release --example 08_your_estimator`.

use dirnet::models::bin_mlp;
use dirnet::nn::Module;
use dirnet::optim::Adam;
use dirnet::train::evaluate;
use dirnet::{Estimator, Params, Rng, Tape, check_estimator, datasets};
use std::f32::consts::FRAC_PI_2;

/// A quarter of a sine on either side of zero.
#[derive(Debug)]
struct HalfCosine;

impl Estimator for HalfCosine {
    fn name(&self) -> &str {
        "half-cosine"
    }
    fn soft(&self, x: f32) -> f32 {
        (FRAC_PI_2 * x.clamp(-1.0, 1.0)).sin()
    }
    fn slope(&self, x: f32) -> f32 {
        if x.abs() <= 1.0 { FRAC_PI_2 * (FRAC_PI_2 * x).cos() } else { 0.0 }
    }
}

fn main() {
    check_estimator(&HalfCosine); // slope is the derivative of soft

    let data = datasets::digits();
    let mut params = Params::new();
    let net = bin_mlp(&mut params, &[64, 256, 10], HalfCosine, &mut Rng::seed(8));
    let mut opt = Adam::new(0.01).cosine();
    for epoch in 0..20 {
        for batch in data.train_batches(64).seed(8).epoch(epoch) {
            let tape = Tape::train(&params).at(epoch as f32 / 20.0);
            let loss = net.forward(&tape.constant(&batch)).cross_entropy(&batch.labels);
            let grads = loss.backward();
            opt.step(&mut params, &grads);
        }
    }
    let score = evaluate(&net, &params, data.test_batches(450));
    println!("half-cosine: test accuracy {:.1} %", 100.0 * score.accuracy);
}
