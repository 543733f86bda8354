//! The sign problem: the derivative of `sign` is zero, so nothing behind it ever learns.
//!
//! Run it with `cargo run --example 03_sign_problem`.

use dirnet::binarize::sign;
use dirnet::optim::Sgd;
use dirnet::{Params, Role, Tape, Tensor};

fn main() {
    // One weight of the wrong sign. The loss is 4 as it stands and would be 0 at any w >= 0.
    let mut params = Params::new();
    let w = params.add("w", Role::Latent, Tensor::from([-0.3]));
    let mut opt = Sgd::new(0.1);

    println!("the true derivative:");
    for step in 0..4 {
        let tape = Tape::train(&params);
        // `map_from_input` takes a function and its slope; that of the sign is zero.
        let signed = tape.param(w).map_from_input("sign", sign, |_| 0.0);
        let loss = (signed - 1.0).square().sum();
        let grads = loss.backward();
        let dw = grads.get(w).map_or(0.0, Tensor::item) + 0.0; // -0 reads badly
        let now = params[w].value.item();
        println!("  step {step}  loss {:.1}  w {now:+.2}  dw {dw:+.2}", loss.value().item());
        opt.step(&mut params, &grads);
    }

    // A finite difference does not help either: it is zero nearly everywhere, and without bound
    // where the sign flips. The next lesson puts another slope in its place.
    println!("differences of sign(w), for steps of 0.1 from w = -0.35:");
    for i in 0..7 {
        let at = -0.35 + 0.1 * i as f32;
        let slope = (sign(at + 0.05) - sign(at - 0.05)) / 0.1;
        println!("  w {at:+.2}  slope {slope:>4.0}");
    }
}
