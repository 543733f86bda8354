//! Bent lines against the formula, number by number.

use dirnet_kernels::bend::{Bend, bend};
use dirnet_kernels::{par, simd};

/// Numbers on both sides of zero, none of them whole.
fn numbers(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * step) % 101) as f32 / 17.0 - 2.9).collect()
}

#[test]
fn it_is_its_formula() {
    for size in [
        [1, 1, 1],
        [3, 2, 5],
        [2, 3, 64],
        [5, 4, 1],
        [130, 2, 17],
        [2, 3, 1100],
        [0, 3, 4],
        [2, 3, 0],
    ] {
        let [n, c, hw] = size;
        let len = n * c * hw;
        let mut x = numbers(len, 7);
        let dy = numbers(len, 13);
        let [at, above, below, by] = [3, 5, 11, 19].map(|step| numbers(c, step));
        // Exactly at the bend, it is below.
        if let [first, ..] = &mut x[..] {
            *first = at[0];
        }
        let job = Bend { size, at: &at, above: &above, below: &below, by: &by };
        let channel = |i: usize| i / hw % c;
        let of = |i: usize| [&at, &above, &below, &by].map(|numbers| numbers[channel(i)]);
        let want: Vec<f32> = (0..len).map(|i| bend(x[i], of(i))).collect();
        let slope =
            |i: usize| if x[i] > at[channel(i)] { above[channel(i)] } else { below[channel(i)] };
        let want_dx: Vec<f32> = (0..len).map(|i| slope(i) * dy[i]).collect();
        let mut want_sums = vec![[0.0; 4]; c];
        for i in 0..len {
            let (u, d) = (f64::from(x[i] - at[channel(i)]), f64::from(dy[i]));
            let terms = [d, f64::from(want_dx[i]), d * u.max(0.0), d * u.min(0.0)];
            want_sums[channel(i)].iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        let run = || {
            let (mut y, mut dx) = (vec![f32::NAN; len], dy.clone());
            job.forward(&x, &mut y);
            let sums = job.backward(&x, &mut dx);
            (y, dx, sums)
        };
        let (y, dx, sums) = run();
        assert_eq!((&y, &dx), (&want, &want_dx), "{size:?}");
        for (sums, want) in sums.iter().zip(&want_sums) {
            for (sum, want) in sums.iter().zip(want) {
                let bound = 1e-6 * 30.0 * (n * hw) as f64;
                assert!((sum - want).abs() <= bound, "{size:?}: {sum} and {want}");
            }
        }
        assert_eq!(sums.len(), c);
        for (threads, level) in [1, 2].into_iter().zip(simd::available().iter().cycle()) {
            let other = par::with_threads(threads, || simd::with_level(*level, run)).unwrap();
            assert_eq!(
                other,
                (y.clone(), dx.clone(), sums.clone()),
                "{threads} threads, {level:?}"
            );
        }
        for level in simd::available() {
            assert_eq!(
                simd::with_level(*level, run),
                (y.clone(), dx.clone(), sums.clone()),
                "{level:?}"
            );
        }
    }
}
