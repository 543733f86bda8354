//! The pass between two convolutions is, to the bit, what its parts are one after the other; and its
//! sums and gradients are what their formulas say, at each instruction set, at one thread and at two.

use dirnet_kernels::bits::Image;
use dirnet_kernels::norm_act::{Activation, NormAct, Numbers, moments};
use dirnet_kernels::{Conv, ConvGeom, elementwise, naive, norm, par, simd};

const SIZES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [3, 5, 1, 1],
    [2, 3, 3, 5],
    [5, 4, 4, 4],
    [70, 6, 7, 7],
    [9, 16, 8, 8],
    [3, 2, 70, 64],
    [33, 9, 16, 16],
];

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| ((i ^ seed).wrapping_mul(2654435761) >> 8) as f32 / 4194304.0 - 2.0)
        .collect()
}

#[track_caller]
fn close(what: &str, got: &[f32], want: &[f32]) {
    let size = want.iter().fold(1e-2f32, |size, want| size.max(want.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 2e-5 * size, "{what}: {got} for {want} at {i}");
    }
}

/// Runs `f` at each instruction set, with one thread and with two: the same must come of it.
#[track_caller]
fn everywhere<R: PartialEq + Send>(f: impl Fn() -> R + Sync) -> R {
    let mut results = simd::available().iter().flat_map(|&level| {
        [1, 2].map(|threads| {
            par::with_threads(threads, || simd::with_level(level, &f)).expect("threads")
        })
    });
    let first = results.next().expect("a level");
    assert!(results.all(|result| result == first), "levels or threads change it");
    first
}

#[test]
fn one_pass_is_its_parts_one_after_the_other() {
    for size in SIZES {
        let [n, c, h, w] = size;
        let (hw, len) = (h * w, n * c * h * w);
        let z: Vec<i16> = numbers(len, 1).iter().map(|x| (100.0 * x) as i16).collect();
        let scales: Vec<f32> = (0..c).map(|c| [0.125, 0.3, 2.0][c % 3]).collect();
        let scaled = |i: usize| f32::from(z[i]) * scales[i / hw % c];
        let of_integers: Vec<f32> = (0..len).map(scaled).collect();
        let of_floats = numbers(len, 2);
        let (gamma, beta, residual) = (numbers(c, 3), numbers(c, 4), numbers(len, 5));
        let dy = numbers(len, 6);
        let mut sums = vec![[0, 0]; c];
        for (i, &z) in z.iter().enumerate() {
            let (z, sums) = (i64::from(z), &mut sums[i / hw % c]);
            *sums = [sums[0] + z, sums[1] + z * z];
        }
        let integers = |sums| Numbers::Integers { z: &z, scale: &scales, sums };
        for (x, as_floats) in [
            (Numbers::Floats(&of_floats), &of_floats),
            (integers(None), &of_integers),
            (integers(Some(&sums[..])), &of_integers),
        ] {
            let found = everywhere(|| {
                let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
                moments(size, x, &mut mean, &mut var);
                [mean, var]
            });
            let [mean, var] = &found;
            let (mut true_mean, mut true_var) = (vec![0.0; c], vec![0.0; c]);
            naive::batch_moments(n, c, hw, as_floats, &mut true_mean, &mut true_var);
            close("mean", mean, &true_mean);
            close("var", var, &true_var);

            let inv_std: Vec<f32> = var.iter().map(|var| 1.0 / (var + 1e-5).sqrt()).collect();
            let scale: Vec<f32> = inv_std.iter().zip(&gamma).map(|(s, g)| s * g).collect();
            let mut normed = vec![0.0; len];
            norm::batch_norm(n, c, hw, as_floats, mean, &inv_std, &gamma, &beta, &mut normed);
            for act in [Activation::Identity, Activation::Relu, Activation::Hardtanh] {
                let job = NormAct { size, x, mean, scale: &scale, shift: &beta, act };
                for residual in [None, Some(&residual[..])] {
                    let what = format!("{size:?} {act:?} {}", residual.is_some());
                    let mut sum = normed.clone();
                    if let Some(residual) = residual {
                        elementwise::add_assign(&mut sum, residual);
                    }
                    let want: Vec<f32> = sum.iter().map(|&x| act.of(x)).collect();
                    let (y, signs, inside, d, sums, dx) = everywhere(|| {
                        let mut y = vec![f32::NAN; len];
                        let (inside, image) = job.forward(residual, Some(&mut y), true, true);
                        let mut signs = vec![0.0; len];
                        image.expect("asked for").unpack(&mut signs);
                        assert_eq!(
                            job.forward(residual, None, false, true),
                            (inside.clone(), None)
                        );
                        let mut d = vec![f32::NAN; len];
                        let sums = job.gate(&inside, &dy, Some(&mut d));
                        assert_eq!(job.gate(&inside, &dy, None), sums);
                        let mut dx = dy.clone();
                        job.dx(&inv_std, &sums, &inside, &mut dx);
                        (y, signs, inside, d, sums, dx)
                    });
                    assert_eq!(y, want, "{what}");
                    assert_eq!(inside.bytes() == 0, act == Activation::Identity);
                    let g = ConvGeom::new(&size, &[1, c, 1, 1], Conv::valid());
                    let mut want_signs = vec![0.0; len];
                    Image::pack(&g, &want).unpack(&mut want_signs);
                    assert_eq!(signs, want_signs, "{what}");
                    if residual.is_none() {
                        for piece in [len, 7, 64] {
                            let mut again = vec![f32::NAN; len];
                            for (i, y) in again.chunks_mut(piece).enumerate() {
                                job.values(i * piece, y);
                            }
                            assert_eq!(again, y, "{what}");
                        }
                        assert!((0..len).all(|i| job.value(i) == y[i]), "{what}");
                    }

                    let slope = |x: f32| match act {
                        Activation::Identity => true,
                        Activation::Relu => x > 0.0,
                        Activation::Hardtanh => x.abs() < 1.0,
                    };
                    let want_d: Vec<f32> = sum
                        .iter()
                        .zip(&dy)
                        .map(|(&x, &dy)| if slope(x) { dy } else { 0.0 })
                        .collect();
                    assert_eq!(d, want_d, "{what}");
                    let (mut want_dx, mut dgamma, mut dbeta) =
                        (vec![0.0; len], vec![0.0; c], vec![0.0; c]);
                    naive::batch_norm_backward(
                        n,
                        c,
                        hw,
                        as_floats,
                        mean,
                        &inv_std,
                        &gamma,
                        &d,
                        &mut want_dx,
                        &mut dgamma,
                        &mut dbeta,
                    );
                    let sum = |i: usize| sums.iter().map(move |s| s[i] as f32);
                    close("dbeta", &sum(0).collect::<Vec<_>>(), &dbeta);
                    let along: Vec<f32> = sum(1).zip(&inv_std).map(|(sum, s)| sum * s).collect();
                    close("dgamma", &along, &dgamma);
                    if n * hw > 1 {
                        close("dx", &dx, &want_dx);
                    }
                }
            }
        }
    }
}

#[test]
fn a_constant_channel_has_no_variance() {
    let (mut mean, mut var) = ([0.0; 2], [1.0; 2]);
    let x: Vec<f32> = (0..2 * 2 * 5000).map(|i| [0.1, -7.3][i / 5000 % 2]).collect();
    moments([2, 2, 50, 100], Numbers::Floats(&x), &mut mean, &mut var);
    assert_eq!((mean, var), ([0.1, -7.3], [0.0; 2]));
}

#[test]
fn a_nan_is_told() {
    let size = [1, 1, 6, 6];
    let mut x = vec![0.5; 36];
    x[34] = f32::NAN;
    let job = NormAct {
        size,
        x: Numbers::Floats(&x),
        mean: &[0.0],
        scale: &[1.0],
        shift: &[0.0],
        act: Activation::Hardtanh,
    };
    assert!(job.forward(None, None, true, false).1.expect("asked for").has_nan());
}
