//! The way back through each estimator, and through expressions, on a million elements.
//!
//! `cargo bench --bench estimators`; the last expression is EDE typed out, so that the two can be held
//! against each other in the same run.

use dirnet::binarize::{Elements, estimator};
use dirnet::{Error, Rng, binarize::estimator::all};
use std::time::Instant;

const TYPED: [&str; 3] =
    ["soft=hardtanh(x)", "soft=erf(x/s);s=2..0.2", "soft=max(1/t,1)*tanh(t*x);t=0.1..10"];

fn main() -> Result<(), Error> {
    let mut rng = Rng::seed(0);
    let x: Vec<f32> = (0..1 << 20).map(|_| rng.normal()).collect();
    let start = vec![1.0f32; x.len()];
    println!("{:>10} {:>10}  estimator", "ms", "ns/element");
    let mut of_ede = 0.0;
    let mut last = 0.0;
    for name in all().map(|entry| entry.name).chain(TYPED) {
        let made = estimator(name)?;
        let fitted = made.fit(&Elements::from(&x[..4096]), 0.7).unwrap_or(made);
        let mut dy = start.clone();
        let times = (0..30).map(|_| {
            dy.copy_from_slice(&start);
            let begin = Instant::now();
            fitted.backward(&x, &mut dy);
            begin.elapsed().as_secs_f64()
        });
        let best = times.fold(f64::INFINITY, f64::min);
        println!("{:>10.3} {:>10.3}  {name}", 1e3 * best, 1e9 * best / x.len() as f64);
        of_ede = if name == "ede" { best } else { of_ede };
        last = best;
    }
    println!("EDE typed takes {:.2} times as long as `ede`", last / of_ede);
    Ok(())
}
