//! EDE and DTE: slopes that narrow in the course of training, and a floor under what still learns.
//!
//! Run it with `cargo run --example 06_ede_and_dte`.

use dirnet::binarize::{Elements, estimator};
use dirnet::{Error, Rng};

fn main() -> Result<(), Error> {
    let mut rng = Rng::seed(6);
    let normal: Vec<f32> = (0..4000).map(|_| rng.normal()).collect();
    // Weights late in training: two heaps, hardly any left near zero.
    let heaps: Vec<f32> = (0..4000).map(|_| rng.sign() * (1.0 + 0.2 * rng.normal())).collect();

    for name in ["ede", "dte"] {
        let e = estimator(name)?;
        for (tensor, x) in [("normal", &normal), ("two heaps", &heaps)] {
            println!("\n{name} on {tensor}: slope at");
            println!("progress |   0    0.25   0.5    1.0   1.5 | share that still learns");
            for i in 0..=5 {
                let progress = i as f32 / 5.0;
                // What the layer asks for: the curve for these elements at this moment.
                let curve = e.fit(&Elements::from(x), progress).unwrap_or_else(|| e.clone());
                let peak = curve.slope(0.0);
                let learns = x.iter().filter(|&&x| curve.slope(x) >= 0.1 * peak).count();
                print!("{progress:>8.1} |");
                for at in [0.0, 0.25, 0.5, 1.0, 1.5] {
                    print!(" {:>6.3}", curve.slope(at));
                }
                println!(" | {:>5.1} %", 100.0 * learns as f64 / x.len() as f64);
            }
        }
    }
    // On two heaps EDE ends with next to nothing that learns; DTE stops steepening while a tenth
    // of the elements still has a tenth of the slope at zero.
    Ok(())
}
