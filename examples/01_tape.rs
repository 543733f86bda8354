//! A tape by hand: record a few operations, walk them back, change the numbers, do it again.
//!
//! Run it with `cargo run --example 01_tape`.

use dirnet::optim::Sgd;
use dirnet::{Params, Role, Tape, Tensor};

fn main() {
    // A line through four points: y = 2x - 1, which the two parameters do not know yet.
    let x = Tensor::new([4, 1], vec![0.0, 1.0, 2.0, 3.0]);
    let y = Tensor::new([4, 1], vec![-1.0, 1.0, 3.0, 5.0]);

    let mut params = Params::new();
    let w = params.add("w", Role::Weight, Tensor::zeros([1, 1]));
    let b = params.add("b", Role::Weight, Tensor::zeros([1]));
    let mut opt = Sgd::new(0.1).momentum(0.5);

    for step in 0..=60 {
        // The tape borrows the parameters, so nothing can change them while it is recorded.
        let tape = Tape::train(&params);
        let line = tape.constant(&x).linear(&tape.param(w)).add_channels(&tape.param(b));
        let loss = line.mse(&tape.constant(&y));

        // The way back: one loop over the nodes, from the last to the first.
        let grads = loss.backward();
        if step % 20 == 0 {
            println!(
                "step {step:>2}  loss {:.5}  w {:+.3}  b {:+.3}  dw {:+.3}  db {:+.3}",
                loss.value().item(),
                params[w].value.item(),
                params[b].value.item(),
                grads.get(w).map_or(0.0, Tensor::item),
                grads.get(b).map_or(0.0, Tensor::item),
            );
        }
        opt.step(&mut params, &grads); // the only line that changes the model
    }
}
