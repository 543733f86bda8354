//! Straight through: on the way back, pretend that the sign had been a line.
//!
//! Run it with `cargo run --example 04_straight_through`.

use dirnet::binarize::estimator;
use dirnet::optim::Sgd;
use dirnet::{Error, Params, Role, Tape, Tensor};

fn main() -> Result<(), Error> {
    // The weight of the lesson before, and a second one that is far from zero.
    for name in ["identity", "ste", "approx-sign"] {
        let e = estimator(name)?;
        let mut params = Params::new();
        let w = params.add("w", Role::Latent, Tensor::from([-0.3, -1.4]));
        let mut opt = Sgd::new(0.1);
        println!("{name}:");
        for step in 0..4 {
            let tape = Tape::train(&params);
            let signs = tape.param(w).binarize(&e); // forward: the sign; backward: the slope of e
            let loss = (signs - 1.0).square().sum();
            let grads = loss.backward();
            let (now, dw) = (&params[w].value, grads.get(w).expect("w is a parameter"));
            println!(
                "  step {step}  loss {:.0}  w {:+.2} {:+.2}  dw {:+.2} {:+.2}",
                loss.value().item(),
                now[0],
                now[1],
                dw[0] + 0.0, // -0 reads badly
                dw[1] + 0.0
            );
            opt.step(&mut params, &grads);
        }
    }
    // Both flip under `identity`. Under `ste` and `approx-sign` the second one starves: it is more
    // than 1 away from zero, where their slope is 0. That is why latent weights are clipped, or
    // standardised, as the next lesson does.
    Ok(())
}
