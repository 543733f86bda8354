//! IMB: centre and standardise weights before their sign, and each bit tells as much as it can.
//!
//! Run it with `cargo run --example 05_imb`.

use dirnet::binarize::{Latent, Method, Weights};
use dirnet::{Error, Params, Rng, Tape, Tensor};

/// Bits of information in a sign that is +1 with probability p.
fn entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    term(p) + term(1.0 - p)
}

fn main() -> Result<(), Error> {
    // Filters that have drifted off centre, as they do in training.
    let mut rng = Rng::seed(5);
    let weights = Tensor::randn([4, 16, 3, 3], 0.05, &mut rng);
    let drift = [0.0, 0.03, 0.06, 0.12];
    let per_filter = weights.len() / 4;
    let drifted: Vec<f32> =
        weights.iter().enumerate().map(|(i, w)| w + drift[i / per_filter]).collect();
    let weights = Tensor::new([4, 16, 3, 3], drifted);

    let plain: Method = "bnn".parse()?;
    let imb: Method = "ir-net".parse()?;
    let show = |recipe: &Weights, filter: usize| {
        let mut params = Params::new();
        let latent = Latent::new(&mut params, "conv", weights.clone(), recipe);
        let tape = Tape::eval(&params);
        let signs = latent.ready(&tape).binarized();
        let signs = &signs.value()[filter * per_filter..][..per_filter];
        let p = signs.iter().filter(|&&s| s > 0.0).count() as f64 / per_filter as f64;
        (p, entropy(p), signs[0].abs())
    };
    println!("filter  drift  |  plain: +1  bits  scale  |  IMB: +1  bits  scale");
    for (filter, drift) in drift.iter().enumerate() {
        let (p, bits, scale) = show(plain.weights.as_ref().expect("binary"), filter);
        print!("{filter:>6}  {drift:>5.2}  |  {p:>9.2}  {bits:.2}  {scale:>5}  |");
        let (p, bits, scale) = show(imb.weights.as_ref().expect("binary"), filter);
        println!("  {p:>7.2}  {bits:.2}  {scale:>5}");
    }
    Ok(())
}
