//! A binary network on handwritten digits: every weight a sign, every hidden number a sign.
//!
//! Run it with `cargo run --release --example 07_binary_net`.

use dirnet::binarize::Dte;
use dirnet::models::bin_mlp;
use dirnet::nn::Module;
use dirnet::optim::Adam;
use dirnet::train::evaluate;
use dirnet::{Error, Params, Rng, Tape, datasets};

const EPOCHS: u64 = 20;

fn main() -> Result<(), Error> {
    let data = datasets::digits();
    let mut rng = Rng::seed(7);
    let mut params = Params::new();
    let net = bin_mlp(&mut params, &[64, 256, 10], Dte::default(), &mut rng);
    let mut opt = Adam::new(0.01).cosine();

    for epoch in 0..EPOCHS {
        let mut sum = 0.0;
        let batches = data.train_batches(64).seed(7).epoch(epoch);
        let count = batches.per_epoch() as f32;
        for batch in batches {
            let tape = Tape::train(&params).at(epoch as f32 / EPOCHS as f32);
            let logits = net.forward(&tape.constant(&batch));
            let loss = logits.cross_entropy(&batch.labels);
            sum += loss.value().item();
            let grads = loss.backward(); // walks the tape once, freeing as it goes
            opt.step(&mut params, &grads); // the only line that changes the model
        }
        let score = evaluate(&net, &params, data.test_batches(450));
        println!("{epoch:>3}  loss {:.3}  test accuracy {:.3}", sum / count, score.accuracy);
    }

    params.save("digits.npz")?;
    println!("{} weights, saved to digits.npz", params.count());
    Ok(())
}
