//! Is the way back the derivative of the way there? One random number tells.
//!
//! Run it with `cargo run --example 02_gradcheck`.

use dirnet::{Conv, Tensor, Var, gradcheck};

/// An operation of one's own, `x·|x|`, with its way back under its way there.
fn signed_square<'t>(x: &Var<'t>, factor: f32) -> Var<'t> {
    let saved = x.value().clone(); // a counted reference, not a copy
    let y = saved.clone().map(|x| x * x.abs());
    x.tape().record("signed_square", y, [x], move |dy, _wanted| {
        let dx = dy.iter().zip(&*saved).map(|(dy, x)| dy * factor * x.abs()).collect();
        [Some(Tensor::new(dy.shape(), dx))]
    })
}

fn main() {
    // For a random direction v and a random covector u, the number u·J·v is computed twice: by
    // walking back, and by a difference of two ways there. Any shape, any number of inputs.
    gradcheck([&[2, 3, 6, 6], &[4, 3, 3, 3]], |[x, w]| x.conv2d(&w, Conv::same(3)));
    println!("conv2d        passes");

    gradcheck([&[3, 4]], |[x]| signed_square(&x, 2.0));
    println!("signed_square passes");

    // A way back that is off by a tenth does not.
    let wrong = std::panic::catch_unwind(|| {
        gradcheck([&[3, 4]], |[x]| signed_square(&x, 2.2));
    });
    assert!(wrong.is_err());
    println!("signed_square with a wrong factor is caught, see above");
}
