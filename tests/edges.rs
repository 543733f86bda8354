//! The promise: no filter and no image makes a method, a part, a scale or an estimator stumble. There
//! is no NaN and nothing infinite, there and back, and what comes out is what is stated here.
//!
//! | what | result |
//! | --- | --- |
//! | a filter of equal weights | equal binary weights, whatever comes before the sign but a rotation |
//! | an image of zeros | one and the same binary activation everywhere in a channel |
//! | plain signs of anything | `x < 0` gives -1, all else +1: zeros of both signs, denormal numbers, 1e30 |
//! | slopes beyond all curves | less than 1e-30 at ±1e30, but 1 for `identity`; `dte` follows the numbers out there |
//! | slopes at denormal numbers | that at 0 |
//! | the error of zeros | none is said |

use dirnet::binarize::estimator::all;
use dirnet::binarize::recipe::PARTS;
use dirnet::binarize::{Elements, Inputs, Latent, METHODS, Scale, estimator};
use dirnet::ops::Conv;
use dirnet::watch::{Binarized, Watch};
use dirnet::{Method, Params, Rng, Tape, Tensor};

/// Every method and its variants, and every part and scale on its own, each side alone as well.
fn methods() -> Vec<Method> {
    let mut texts: Vec<String> = Vec::new();
    for entry in METHODS.iter().filter(|entry| entry.name != "fp32") {
        texts.push(entry.name.into());
        texts.extend(entry.variants.then(|| format!("{}(variant=code)", entry.name)));
    }
    let side = |part: &str, scale: &str, estimator: &str| {
        format!("{{parts = [{part}], scale = \"{scale}\", estimator = \"{estimator}\"}}")
    };
    let plain = "{estimator = \"ste\"}";
    for (name, _) in Scale::ALL {
        let weights = side("", name, "ste");
        texts.push(format!("own{{weights = {weights}, activations = {plain}}}"));
    }
    let with = |part: &str| {
        let own = format!("{{parts = [\"{part}\"], estimator = \"ste\"}}");
        [
            format!("own{{weights = {own}, activations = {plain}}}"),
            format!("own{{weights = {plain}, activations = {own}}}"),
        ]
    };
    for part in PARTS {
        let made: Vec<String> =
            with(part.name).into_iter().filter(|text| text.parse::<Method>().is_ok()).collect();
        assert!(!made.is_empty(), "{} goes nowhere", part.name);
        texts.extend(made);
    }
    texts.iter().map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))).collect()
}

fn filters() -> Vec<(&'static str, Tensor)> {
    let mut rng = Rng::seed(3);
    vec![
        ("constant", Tensor::full([4, 4, 3, 3], 0.5)),
        ("below zero", Tensor::full([4, 4, 3, 3], -0.5)),
        ("zero", Tensor::zeros([4, 4, 3, 3])),
        ("enormous", Tensor::randn([4, 4, 3, 3], 1e30, &mut rng)),
        ("denormal", Tensor::randn([4, 4, 3, 3], 1e-40, &mut rng)),
        ("single", Tensor::randn([4, 1, 1, 1], 1.0, &mut rng)),
    ]
}

fn images() -> Vec<(&'static str, Tensor)> {
    let mut rng = Rng::seed(4);
    vec![
        ("normal", Tensor::randn([2, 4, 5, 5], 1.0, &mut rng)),
        ("zero", Tensor::zeros([2, 4, 5, 5])),
        ("denormal", Tensor::randn([2, 4, 5, 5], 1e-40, &mut rng)),
        ("enormous", Tensor::randn([2, 4, 5, 5], 1e30, &mut rng)),
    ]
}

fn finite(x: &[f32]) -> bool {
    x.iter().all(|x| x.is_finite())
}

fn sensible(told: Option<Binarized>, zeros: bool) -> bool {
    let Some(told) = told else { return false };
    let bits = |h: f64| (0.0..=1.0).contains(&h);
    let error = told.error.is_none_or(|error| error.is_finite() && error >= 0.0);
    bits(told.entropy) && bits(told.entropy_channel) && error && (!zeros || told.error.is_none())
}

#[test]
fn no_filter_and_no_image_makes_a_method_stumble() {
    for method in methods() {
        let weights = method.weights.as_ref().unwrap();
        let activations = method.activations.as_ref().unwrap();
        for (filter, w) in &filters() {
            for (image, x) in &images() {
                let what = format!("{method}: {filter} filters, {image} image");
                // The product of both sizes, which no f32 holds.
                if activations.pixel_scale && (*filter, *image) == ("enormous", "enormous") {
                    continue;
                }
                let mut params = Params::new();
                let latent = Latent::new(&mut params, "a", w.clone(), weights);
                let inputs = Inputs::new(&mut params, "a", &[4, 5, 5], activations);
                let how = match w.shape()[1] {
                    1 => Conv::valid().groups(4),
                    _ => Conv::same(3),
                };
                for progress in [0.0, 0.5, 1.0] {
                    let tape = Tape::train(&params).at(progress);
                    let x = tape.variable(x);
                    let y = inputs.conv2d(&x, &latent.ready(&tape), how);
                    assert!(finite(y.value()), "{what}: forward");
                    let grads = y.sum().backward();
                    let all = grads.iter().map(|(_, g)| g).chain(grads.wrt(&x));
                    for gradient in all {
                        assert!(finite(gradient), "{what}: backward");
                    }
                }

                let tape = Tape::eval(&params).watching(Watch::signs());
                let x = tape.constant(x);
                let ready = latent.ready(&tape);
                let (q, s) = (ready.binarized(), inputs.binarized(&x));
                assert!(finite(q.value()) && finite(s.value()), "{what}: evaluated");
                let of_filter = q.value().len() / 4;
                for q in q.value().chunks(of_filter) {
                    let levels =
                        q.iter().all(|&x| x == q[0] || q.iter().all(|&y| y == x || y == q[0]));
                    assert!(levels, "{what}: more than two levels");
                    // A rotation turns what is not centred.
                    let parts = &weights.prepare;
                    let turned = parts.first().is_some_and(|part| part.name() == "rotate");
                    let equal = ["constant", "below zero", "zero"].contains(filter) && !turned;
                    assert!(!equal || q.iter().all(|&x| x == q[0]), "{what}: unequal weights");
                }
                for s in s.value().chunks(25) {
                    assert!(
                        *image != "zero" || s.iter().all(|&x| x == s[0]),
                        "{what}: activations"
                    );
                }
                if activations.prepare.is_empty() {
                    let signs = s.value().iter().zip(&**x.value());
                    let right = |(&s, &x): (&f32, &f32)| s == if x < 0.0 { -1.0 } else { 1.0 };
                    assert!(signs.into_iter().all(right), "{what}: plain signs");
                }
                let notes = tape.into_watched().into_signs();
                assert_eq!(notes.len(), 1, "{what}");
                let no_weights = weights.prepare.is_empty() && *filter == "zero";
                assert!(sensible(notes[0].weights, no_weights), "{what}: {notes:?}");
                let no_image = activations.prepare.is_empty() && *image == "zero";
                assert!(sensible(notes[0].activations, no_image), "{what}: {notes:?}");
            }
        }
    }
}

#[test]
fn dense_layers_stumble_no_more() {
    for method in methods() {
        for size in [0.0, 1e-40, 1.0, 1e30] {
            for (o, i) in [(3, 7), (3, 1)] {
                let mut rng = Rng::seed(5);
                let (w, x) =
                    (Tensor::randn([o, i], size, &mut rng), Tensor::randn([2, i], size, &mut rng));
                let mut params = Params::new();
                let latent = Latent::new(&mut params, "a", w, method.weights.as_ref().unwrap());
                let inputs = method.activations.as_ref().unwrap();
                let inputs = Inputs::new(&mut params, "a", &[i], inputs);
                let tape = Tape::train(&params).at(0.5);
                let x = tape.variable(&x);
                let y = inputs.linear(&x, &latent.ready(&tape));
                assert!(finite(y.value()), "{method}: {o} x {i} of {size}");
                let grads = y.sum().backward();
                for gradient in grads.iter().map(|(_, g)| g).chain(grads.wrt(&x)) {
                    assert!(finite(gradient), "{method}: {o} x {i} of {size}, backward");
                }
            }
        }
    }
}

#[test]
fn no_number_makes_an_estimator_stumble() {
    let mut rng = Rng::seed(6);
    let numbers = [
        ("zeros", Tensor::zeros([2, 3, 4])),
        ("zeros below", Tensor::full([2, 3, 4], -0.0)),
        ("constant", Tensor::full([2, 3, 4], 0.7)),
        ("single", Tensor::full([1, 1], 0.3)),
        ("enormous", Tensor::randn([2, 3, 4], 1e30, &mut rng)),
        ("largest", Tensor::full([2, 3], f32::MAX)),
        ("denormal", Tensor::randn([2, 3, 4], 1e-40, &mut rng)),
        ("all sizes", Tensor::new([1, 6], vec![1e30, -1e-40, 0.0, 0.5, -1e30, -0.0])),
    ];
    for entry in all() {
        for name in [entry.name.to_string(), format!("{}(scope=channel)", entry.name)] {
            let Ok(e) = estimator(&name) else { continue };
            for progress in [0.0, 0.5, 1.0] {
                for (what, x) in &numbers {
                    let params = Params::new();
                    let tape = Tape::train(&params).at(progress);
                    let x_ = tape.variable(x);
                    let y = x_.binarize(&e);
                    let signs = y.value().iter().zip(&**x);
                    let right = |(&s, &x): (&f32, &f32)| s == if x < 0.0 { -1.0 } else { 1.0 };
                    assert!(signs.into_iter().all(right), "{name}: {what}");
                    let grads = y.sum().backward();
                    let dx = grads.wrt(&x_).unwrap();
                    assert!(finite(dx), "{name}: {what}: {dx:?}");
                    let fitted =
                        e.fit(&Elements::from(&x[..]), progress).unwrap_or_else(|| e.clone());
                    for far in [1e30, f32::MAX] {
                        for x in [far, -far] {
                            let slope = fitted.slope(x);
                            match entry.name {
                                "identity" => assert_eq!(slope, 1.0),
                                "dte" => {
                                    assert!((0.0..=fitted.slope(0.0)).contains(&slope), "{what}")
                                }
                                _ => {
                                    assert!(slope.abs() < 1e-30, "{name}: {what} at {x}: {slope}")
                                }
                            }
                        }
                    }
                    for near in [1e-40, -1e-40, f32::MIN_POSITIVE] {
                        let (found, expected) = (fitted.slope(near), fitted.slope(0.0));
                        let apart = (found - expected).abs();
                        assert!(apart <= 1e-6 * expected, "{name}: {what} at {near}: {found}");
                    }
                }
            }
        }
    }
}
