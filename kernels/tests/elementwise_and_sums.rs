//! Passes over memory and sums are what their formulas say, at every length around the sizes at
//! which work is cut, at each instruction set, and with the same bits at one thread and at two.

use dirnet_kernels::{elementwise as e, math, par, reduce, simd};

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| ((i ^ seed).wrapping_mul(2654435761) >> 8) as f32 / 8388608.0 - 1.0)
        .collect()
}

/// The result of `f` everywhere, which must be the same to the bit.
#[track_caller]
fn everywhere(len: usize, f: impl Fn(&mut [f32]) + Sync) -> Vec<f32> {
    let mut results = simd::available().iter().flat_map(|&level| {
        [1, 2].map(|threads| {
            let mut y = vec![f32::NAN; len];
            par::with_threads(threads, || simd::with_level(level, || f(&mut y))).unwrap();
            y
        })
    });
    let first = results.next().unwrap();
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(results.all(|y| bits(&y) == bits(&first)), "levels or threads change it");
    first
}

const LENGTHS: [usize; 8] = [0, 1, 7, 33, 1000, par::GRAIN, par::GRAIN + 1, 3 * par::GRAIN + 5];

#[test]
fn maps() {
    for len in LENGTHS {
        let (a, b, c) = (numbers(len, 1), numbers(len, 2), numbers(len, 3));
        let each = |f: &dyn Fn(usize) -> f32| (0..len).map(f).collect::<Vec<_>>();
        assert_eq!(everywhere(len, |y| e::map(&a, y, |a| 2.0 * a)), each(&|i| 2.0 * a[i]));
        assert_eq!(everywhere(len, |y| e::map(&a, y, math::tanh)), each(&|i| math::tanh(a[i])));
        assert_eq!(everywhere(len, |y| e::zip(&a, &b, y, |a, b| a - b)), each(&|i| a[i] - b[i]));
        let zip3 = |y: &mut [f32]| e::zip3(&a, &b, &c, y, |a, b, c| a * b + c);
        assert_eq!(everywhere(len, zip3), each(&|i| a[i] * b[i] + c[i]));
        let in_place = |y: &mut [f32]| {
            e::fill(y, 3.0);
            e::add_assign(y, &a);
            e::scale(y, 0.5);
            e::zip_in_place(y, &b, |y, b| y * b);
            e::map_in_place(y, |y| y - 1.0);
        };
        assert_eq!(everywhere(len, in_place), each(&|i| 0.5 * (3.0 + a[i]) * b[i] - 1.0));
    }
}

#[test]
fn channels_and_transposes() {
    for (n, c, hw) in [(1, 1, 1), (2, 3, 5), (3, 17, 1), (700, 100, 1), (5, 2, 40000)] {
        let (x, b) = (numbers(n * c * hw, 1), numbers(c, 2));
        let y = everywhere(x.len(), |y| e::add_channels(n, c, hw, &x, &b, y));
        assert!((0..x.len()).all(|i| y[i] == x[i] + b[i / hw % c]), "add_channels {n} {c} {hw}");
        let y = everywhere(x.len(), |y| e::scale_channels(n, c, hw, &x, &b, y));
        assert!((0..x.len()).all(|i| y[i] == x[i] * b[i / hw % c]), "scale_channels {n} {c} {hw}");
    }
    for (rows, cols) in [(1, 1), (3, 8), (17, 9), (5, 100), (300, 301)] {
        let x = numbers(rows * cols, 1);
        let y = everywhere(x.len(), |y| e::transpose(rows, cols, &x, y));
        assert!((0..x.len()).all(|i| y[i % cols * rows + i / cols] == x[i]), "{rows} {cols}");
    }
}

#[track_caller]
fn close(what: &str, got: &[f32], want: &[f64], scale: f64) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((*got as f64 - want).abs() <= 1e-7 * scale, "{what}, {i}: {got} for {want}");
    }
}

#[test]
fn sums() {
    for len in LENGTHS {
        let (a, b) = (numbers(len, 1), numbers(len, 2));
        let f = |x: f32| x as f64;
        let want = [
            a.iter().map(|&a| f(a)).sum::<f64>(),
            a.iter().zip(&b).map(|(&a, &b)| f(a) * f(b)).sum(),
            a.iter().fold(0.0, |max, a| f(a.abs()).max(max)),
        ];
        let got = everywhere(3, |y| {
            y.copy_from_slice(&[reduce::sum(&a), reduce::dot(&a, &b) as f32, reduce::max_abs(&a)]);
        });
        close(&format!("sums of {len}"), &got, &want, len as f64);
        let squares = |a: f32, b: f32| f(a) * f(a) * f(b) * f(b);
        let want = [(&a, &a), (&a, &b), (&b, &b)]
            .map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| squares(a, b)).sum::<f64>());
        let got = everywhere(3, |y| {
            y.copy_from_slice(&reduce::dots_of_squares(&a, &b).map(|sum| sum as f32));
        });
        close(&format!("squares of {len}"), &got, &want, len as f64);
    }
    assert!(reduce::max_abs(&[1.0, f32::NAN, 2.0]).is_nan());
    assert_eq!(reduce::max_abs(&[1.0, f32::NEG_INFINITY]), f32::INFINITY);
}

#[test]
fn sums_of_rows_columns_and_channels() {
    for (rows, cols) in [(1, 1), (3, 8), (17, 9), (5, 1000), (300, 301), (2, 70000)] {
        let x = numbers(rows * cols, 1);
        let at = |i: usize, j: usize| x[i * cols + j] as f64;
        let want: Vec<f64> = (0..rows).map(|i| (0..cols).map(|j| at(i, j)).sum()).collect();
        close(
            "sum_rows",
            &everywhere(rows, |y| reduce::sum_rows(rows, cols, &x, y)),
            &want,
            cols as f64,
        );
        let mean = |i| (0..cols).map(|j| at(i, j).abs()).sum::<f64>() / cols as f64;
        let want: Vec<f64> = (0..rows).map(mean).collect();
        close(
            "mean_abs_rows",
            &everywhere(rows, |y| reduce::mean_abs_rows(rows, cols, &x, y)),
            &want,
            1.0,
        );
        let w = numbers(rows * cols, 2);
        let sign = |i: usize, j: usize| if w[i * cols + j] < 0.0 { -1.0 } else { 1.0 };
        let along = |i: usize| (0..cols).map(|j| sign(i, j) * at(i, j)).sum();
        close(
            "sum_rows_by_signs",
            &everywhere(rows, |y| reduce::sum_rows_by_signs(rows, cols, &w, &x, y)),
            &(0..rows).map(along).collect::<Vec<f64>>(),
            cols as f64,
        );
        let want: Vec<f64> = (0..cols).map(|j| (0..rows).map(|i| at(i, j)).sum()).collect();
        close(
            "sum_cols",
            &everywhere(cols, |y| reduce::sum_cols(rows, cols, &x, y)),
            &want,
            rows as f64,
        );
    }
    for (n, c, hw) in [(1, 1, 1), (2, 3, 5), (3, 17, 1), (700, 100, 1), (5, 2, 40000)] {
        let (a, b) = (numbers(n * c * hw, 1), numbers(n * c * hw, 2));
        let over = |term: &dyn Fn(usize) -> f64| {
            let mut sums = vec![0f64; c];
            (0..a.len()).for_each(|i| sums[i / hw % c] += term(i));
            sums
        };
        let (want, scale) = (over(&|i| a[i] as f64), (n * hw) as f64);
        close(
            "sum_channels",
            &everywhere(c, |y| reduce::sum_channels(n, c, hw, &a, y)),
            &want,
            scale,
        );
        let want = over(&|i| a[i] as f64 * b[i] as f64);
        let got = everywhere(c, |y| reduce::dot_channels(n, c, hw, &a, &b, y));
        close("dot_channels", &got, &want, scale);
    }
}

#[test]
fn the_first_that_is_not_finite() {
    for len in [1, 31, 100, par::GRAIN + 3] {
        let mut x = vec![f32::MAX; len];
        assert_eq!(reduce::first_non_finite(&x), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            x[len - 1] = bad;
            assert_eq!(reduce::first_non_finite(&x), Some(len - 1));
            x[len / 2] = bad;
            assert_eq!(reduce::first_non_finite(&x), Some(len / 2));
            x[len / 2] = f32::MIN_POSITIVE;
        }
    }
}
