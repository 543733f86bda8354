//! Every kernel computes its definition: for a grid of small and awkward sizes, at each instruction
//! set of this machine, whatever its outputs held before, and with the same bits at one thread and
//! at two.

use dirnet_kernels::conv::im2col;
use dirnet_kernels::{Conv, ConvGeom, PoolGeom, conv, gemm, naive, norm, par, pool, simd, softmax};

/// Numbers in [-1, 1) from a fixed sequence (splitmix64).
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 40
    };
    (0..len).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Holds what `fast` writes into outputs of these lengths to what `slow` writes:
/// `max|fast - slow| <= bound · max|slow|` in each output.
#[track_caller]
fn hold<const N: usize>(
    what: &str,
    bound: f32,
    lengths: [usize; N],
    fast: impl Fn([&mut [f32]; N]) + Sync,
    slow: impl Fn([&mut [f32]; N]),
) {
    let mut want = lengths.map(|len| vec![f32::NAN; len]);
    slow(want.each_mut().map(Vec::as_mut_slice));
    for &level in simd::available() {
        let run = |threads| {
            let mut got = lengths.map(|len| vec![f32::NAN; len]);
            let outputs = got.each_mut().map(Vec::as_mut_slice);
            par::with_threads(threads, || simd::with_level(level, || fast(outputs))).unwrap();
            got
        };
        let (one, two) = (run(1), run(2));
        for i in 0..N {
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(
                bits(&one[i]) == bits(&two[i]),
                "{what}, {level:?}, output {i}: threads change it"
            );
            let scale = want[i].iter().fold(0f32, |max, x| max.max(x.abs()));
            for (at, (got, want)) in one[i].iter().zip(&want[i]).enumerate() {
                let same = got == want || (got.is_nan() && want.is_nan());
                assert!(
                    same || (got - want).abs() <= bound * scale,
                    "{what}, {level:?}, output {i}, place {at}: {got} for {want}, among {scale}"
                );
            }
        }
    }
}

/// Batch, channels, height, width; filters, their height and width; how they move.
type Case = ([usize; 4], [usize; 3], Conv);

fn convolutions() -> Vec<ConvGeom> {
    let how = |stride, pad, dilation, groups| Conv { stride, pad, dilation, groups };
    let mut cases: Vec<Case> = vec![
        ([1, 1, 1, 1], [1, 1, 1], how(1, 0, 1, 1)),
        ([2, 3, 1, 1], [5, 3, 3], how(1, 1, 1, 1)),
        ([1, 1, 1, 9], [2, 1, 3], how(1, 1, 1, 1)),
        ([1, 2, 5, 4], [3, 2, 2], how(1, 0, 1, 1)),
        ([1, 2, 5, 4], [3, 4, 2], how(1, 2, 1, 1)),
        ([2, 3, 7, 6], [4, 2, 2], how(3, 0, 1, 1)),
        ([2, 3, 7, 6], [4, 1, 1], how(2, 0, 1, 1)),
        ([2, 3, 7, 6], [4, 1, 1], how(2, 1, 1, 1)),
        ([1, 17, 3, 5], [5, 1, 1], how(1, 0, 1, 1)),
        ([1, 9, 7, 6], [12, 1, 1], how(2, 0, 1, 1)),
        ([1, 261, 3, 5], [65, 1, 1], how(1, 0, 1, 1)),
        ([3, 261, 3, 5], [65, 1, 1], how(1, 0, 1, 1)),
        ([1, 2, 3, 3], [2, 3, 3], how(1, 4, 1, 1)),
        ([1, 2, 4, 3], [2, 3, 3], how(2, 3, 1, 1)),
        ([1, 2, 9, 11], [3, 3, 3], how(1, 2, 2, 1)),
        ([1, 2, 9, 11], [3, 3, 2], how(2, 1, 3, 1)),
        ([1, 3, 19, 23], [9, 7, 7], how(2, 3, 1, 1)),
        ([1, 1, 9, 9], [3, 5, 5], how(1, 2, 1, 1)),
        ([2, 6, 5, 5], [9, 3, 3], how(1, 1, 1, 3)),
        ([2, 4, 5, 7], [4, 3, 3], how(2, 1, 1, 2)),
        ([2, 5, 6, 9], [5, 3, 3], how(1, 1, 1, 5)),
        ([2, 5, 6, 9], [5, 3, 3], how(2, 1, 1, 5)),
        ([1, 3, 9, 9], [9, 5, 3], how(1, 2, 2, 3)),
        ([1, 3, 6, 9], [6, 2, 4], how(3, 1, 1, 3)),
        ([3, 8, 13, 8], [24, 3, 3], how(1, 1, 1, 8)),
        ([1, 3, 1, 1], [3, 3, 3], how(2, 1, 1, 3)),
        ([1, 2, 11, 8], [4, 3, 3], how(2, 3, 2, 2)),
        ([1, 3, 10, 9], [3, 2, 5], how(3, 2, 2, 3)),
        ([1, 2, 6, 40], [2, 5, 5], how(1, 4, 1, 2)),
        ([1, 7, 4, 3], [7, 1, 1], how(3, 2, 1, 7)),
        ([2, 64, 40, 37], [64, 3, 3], how(1, 1, 1, 64)),
        ([1, 260, 4, 4], [20, 3, 3], how(1, 1, 1, 1)),
        ([1, 20, 4, 4], [260, 3, 3], how(1, 1, 1, 1)),
        ([3, 20, 9, 8], [40, 3, 3], how(1, 1, 1, 4)),
        ([2, 12, 7, 7], [70, 3, 3], how(1, 1, 1, 2)),
        ([1, 12, 12, 7], [4, 3, 3], how(2, 1, 1, 2)),
        ([5, 10, 12, 12], [10, 1, 1], how(1, 0, 1, 2)),
        ([5, 10, 9, 9], [20, 1, 1], how(2, 0, 1, 5)),
        ([3, 5, 4, 5], [20, 1, 1], how(1, 0, 1, 1)),
        ([3, 20, 4, 5], [5, 1, 1], how(1, 0, 1, 1)),
        ([2, 7, 9, 11], [13, 1, 1], how(2, 0, 1, 1)),
        ([2, 300, 15, 16], [7, 1, 1], how(1, 0, 1, 1)),
        ([2, 7, 15, 16], [300, 1, 1], how(1, 0, 1, 1)),
        ([1, 4, 40, 53], [6, 1, 1], how(1, 0, 1, 1)),
        ([1, 4, 80, 53], [6, 1, 1], how(2, 0, 1, 1)),
        ([1, 4, 80, 53], [6, 1, 1], how(3, 0, 2, 1)),
        ([19, 5, 8, 8], [7, 3, 3], how(1, 1, 1, 1)),
        ([23, 5, 7, 7], [7, 3, 3], how(1, 1, 1, 1)),
        ([1, 3, 70, 15], [2, 3, 3], how(1, 1, 1, 1)),
        ([2, 3, 9, 31], [11, 5, 5], how(1, 2, 1, 1)),
        ([7, 9, 3, 34], [20, 3, 3], how(2, 1, 1, 1)),
        ([2, 11, 70, 40], [6, 5, 4], how(2, 2, 1, 1)),
        ([3, 10, 1, 32], [5, 2, 2], how(2, 1, 1, 1)),
        ([2, 12, 9, 36], [8, 3, 3], how(2, 0, 1, 2)),
        ([1, 6, 12, 34], [9, 3, 3], how(2, 3, 2, 1)),
        ([1, 3, 21, 47], [8, 7, 7], how(2, 3, 1, 1)),
        ([2, 9, 6, 37], [7, 3, 2], how(2, 2, 3, 1)),
        ([2, 5, 9, 29], [7, 3, 3], how(3, 1, 1, 1)),
        ([1, 2, 7, 41], [5, 3, 4], how(4, 5, 1, 1)),
        ([1, 3, 70, 40], [21, 3, 3], how(1, 1, 1, 1)),
        ([3, 6, 9, 16], [12, 3, 3], how(1, 1, 1, 2)),
        ([7, 2, 18, 24], [5, 3, 3], how(1, 2, 2, 1)),
        ([2, 2, 11, 19], [38, 2, 4], how(1, 0, 1, 1)),
        ([2, 512, 16, 16], [16, 3, 3], how(1, 1, 1, 1)),
        ([1, 24, 5, 5], [140, 1, 1], how(1, 0, 1, 1)),
        ([1, 80, 9, 7], [300, 1, 1], how(2, 0, 1, 2)),
        ([37, 3, 6, 7], [20, 3, 3], how(1, 1, 1, 1)),
        ([130, 5, 5, 9], [3, 3, 3], how(2, 1, 1, 1)),
        ([33, 4, 8, 8], [9, 3, 3], how(1, 1, 1, 1)),
    ];
    // The shapes of the networks: each channel count against each image, with batches around it.
    for channels in [1, 3, 5, 16, 17, 32, 33] {
        for size in [1, 4, 7, 8, 10, 16, 33] {
            for stride in [1, 2] {
                let n = 1 + (channels + size) % 3;
                cases.push(([n, channels, size, size], [16, 3, 3], how(stride, 1, 1, 1)));
                cases.push(([n, 16, size, size + 1], [channels, 3, 3], how(stride, 1, 1, 1)));
            }
        }
    }
    let geometry =
        |(x, [o, kh, kw], how): Case| ConvGeom::new(&x, &[o, x[1] / how.groups, kh, kw], how);
    cases.into_iter().map(geometry).collect()
}

#[test]
fn convolution() {
    for g in &convolutions() {
        let (x, w, dy) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.y_len(), 3));
        hold(
            &format!("conv2d {g:?}"),
            1e-5,
            [g.y_len()],
            |[y]| conv::conv2d(g, &x, &w, y),
            |[y]| naive::conv2d(g, &x, &w, y),
        );
        hold(
            &format!("conv2d_dx {g:?}"),
            1e-5,
            [g.x_len()],
            |[dx]| conv::conv2d_dx(g, &w, &dy, dx),
            |[dx]| naive::conv2d_dx(g, &w, &dy, dx),
        );
        hold(
            &format!("conv2d_dw {g:?}"),
            1e-5,
            [g.w_len()],
            |[dw]| conv::conv2d_dw(g, &x, &dy, dw),
            |[dw]| naive::conv2d_dw(g, &x, &dy, dw),
        );
        hold(
            &format!("by patches {g:?}"),
            1e-5,
            [g.y_len(), g.x_len(), g.w_len()],
            |[y, dx, dw]| {
                im2col::forward(g, &x, &w, y);
                im2col::dx(g, &w, &dy, dx);
                im2col::dw(g, &x, &dy, dw);
            },
            |[y, dx, dw]| {
                naive::conv2d(g, &x, &w, y);
                naive::conv2d_dx(g, &w, &dy, dx);
                naive::conv2d_dw(g, &x, &dy, dw);
            },
        );
    }
}

#[test]
fn convolution_by_fewer_products() {
    let how = |pad| Conv { stride: 1, pad, dilation: 1, groups: 1 };
    let mut cases = Vec::new();
    for [c, o] in [[16, 16], [24, 40], [64, 16], [16, 136]] {
        for (size, pad) in [([4, 4], 1), ([7, 7], 1), ([8, 17], 1), ([33, 6], 0), ([9, 10], 2)] {
            for n in [1, 5] {
                let [h, w] = size;
                cases.push(ConvGeom::new(&[n, c, h, w], &[o, c, 3, 3], how(pad)));
            }
        }
    }
    for g in &cases {
        assert!(conv::winograd::suits(g), "{g:?}");
        let (x, w) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2));
        let fast = |n: usize, x: &[f32], y: &mut [f32]| {
            conv::winograd::conv2d(&ConvGeom { n, ..*g }, x, &w, y);
        };
        let naive = |[y]: [&mut [f32]; 1]| naive::conv2d(g, &x, &w, y);
        hold(&format!("by winograd {g:?}"), 1e-5, [g.y_len()], |[y]| fast(g.n, &x, y), naive);
        let dy = numbers(g.y_len(), 3);
        hold(
            &format!("dx by winograd {g:?}"),
            1e-5,
            [g.x_len()],
            |[dx]| conv::winograd::conv2d_dx(g, &w, &dy, dx),
            |[dx]| naive::conv2d_dx(g, &w, &dy, dx),
        );
        // An image's outputs depend on neither its place in the batch nor its company.
        let [mut all, mut alone] = [vec![f32::NAN; g.y_len()], vec![f32::NAN; g.y_len()]];
        fast(g.n, &x, &mut all);
        let images = x.chunks(g.x_len() / g.n).zip(alone.chunks_mut(g.y_len() / g.n));
        images.for_each(|(x, y)| fast(1, x, y));
        assert!(all == alone, "{g:?}");
    }
    let other = |x: [usize; 4], w: [usize; 4], how: Conv| {
        assert!(!conv::winograd::suits(&ConvGeom::new(&x, &w, how)));
    };
    other([1, 16, 2, 2], [16, 16, 3, 3], how(1));
    other([1, 16, 9, 9], [16, 16, 3, 3], how(1).stride(2));
    other([1, 16, 9, 9], [16, 16, 5, 5], how(2));
    other([1, 3, 9, 9], [16, 3, 3, 3], how(1));
    other([1, 16, 9, 9], [16, 16, 3, 3], how(3));
    // So few tiles do not repay the numbers of so many filters.
    other([3, 512, 7, 7], [512, 512, 3, 3], how(1));
}

/// An image's outputs depend on neither its place in the batch nor its company.
#[test]
fn convolution_of_one_image_or_of_many() {
    for g in convolutions().iter().filter(|g| g.n > 1) {
        let (x, w) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2));
        let mut y = vec![f32::NAN; g.y_len()];
        conv::conv2d(g, &x, &w, &mut y);
        let one = ConvGeom { n: 1, ..*g };
        for i in 0..g.n {
            let mut alone = vec![f32::NAN; one.y_len()];
            conv::conv2d(&one, &x[i * one.x_len()..][..one.x_len()], &w, &mut alone);
            assert!(alone == y[i * one.y_len()..][..one.y_len()], "image {i} of {g:?}");
        }
    }
}

#[test]
fn matrix_product() {
    let sizes = [
        (1, 1, 1),
        (1, 7, 5),
        (5, 1, 3),
        (3, 9, 1),
        (17, 8, 16),
        (70, 33, 9),
        (130, 65, 129),
        (1, 70, 1030),
        (1030, 70, 1),
        (67, 1, 530),
        (1, 1, 600),
        (600, 1, 1),
        (0, 3, 2),
        (2, 3, 0),
        (1, 0, 3),
        (3, 0, 2),
    ];
    for (m, k, n) in sizes {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            hold(
                &format!("gemm {m} {k} {n} {ta} {tb}"),
                1e-5,
                [m * n],
                |[y]| gemm::gemm(m, k, n, &a, ta, &b, tb, y),
                |[y]| naive::gemm(m, k, n, &a, ta, &b, tb, y),
            );
        }
    }
}

#[test]
fn dense_layers() {
    for (n, k, o) in [(1, 1, 1), (1, 37, 5), (3, 16, 17), (40, 53, 33), (17, 0, 2), (5, 200, 1)] {
        let (x, w) = (numbers(n * k, 3), numbers(o * k, 4));
        hold(
            &format!("dense {n} {k} {o}"),
            1e-5,
            [n * o],
            |[y]| gemm::dense(n, k, o, &x, &w, y),
            |[y]| naive::gemm(n, k, o, &x, false, &w, true, y),
        );
        let (mut together, mut alone) = (vec![0.0; n * o], vec![0.0; o]);
        gemm::dense(n, k, o, &x, &w, &mut together);
        for (i, together) in together.chunks(o).enumerate() {
            gemm::dense(1, k, o, &x[i * k..][..k], &w, &mut alone);
            assert_eq!(alone, together, "dense {n} {k} {o}: row {i}");
        }
    }
}

/// A maximum pool whose winners come as floats, as [`hold`] wants its outputs.
fn max_pool_in_floats(
    kernel: fn(&PoolGeom, &[f32], &mut [f32], &mut [u8]),
    g: &PoolGeom,
    x: &[f32],
    y: &mut [f32],
    winner: &mut [f32],
) {
    let mut bytes = vec![255; g.y_len()];
    kernel(g, x, y, &mut bytes);
    winner.iter_mut().zip(bytes).for_each(|(winner, byte)| *winner = byte as f32);
}

#[test]
fn pools() {
    let cases = [
        ([1, 1, 1, 1], 1, 1, 0),
        ([2, 3, 4, 6], 2, 2, 0),
        ([2, 17, 9, 33], 2, 2, 0),
        ([1, 5, 2, 3], 2, 2, 0),
        ([1, 2, 7, 9], 3, 2, 1),
        ([1, 5, 8, 8], 8, 8, 0),
        ([1, 2, 9, 7], 3, 1, 1),
        ([1, 2, 10, 7], 2, 3, 1),
        ([1, 2, 5, 19], 4, 2, 2),
        ([1, 1, 16, 17], 15, 1, 7),
        ([3, 17, 33, 40], 3, 2, 1),
    ];
    for (x, size, stride, pad) in cases {
        let g = &PoolGeom::new(&x, size, stride, pad);
        // Few distinct values, so that many tie, and now and then none of them is a number.
        let rough = numbers(g.x_len(), 1).iter().map(|x| (x * 3.0).round()).collect::<Vec<_>>();
        let mut strange = rough.clone();
        for (i, x) in strange.iter_mut().enumerate() {
            *x = if i % 7 == 3 { f32::NAN } else { f32::NEG_INFINITY };
        }
        for x in [&rough, &strange] {
            hold(
                &format!("max_pool2d {g:?}"),
                0.0,
                [g.y_len(), g.y_len()],
                |[y, winner]| max_pool_in_floats(pool::max_pool2d, g, x, y, winner),
                |[y, winner]| max_pool_in_floats(naive::max_pool2d, g, x, y, winner),
            );
        }
        let (mut y, mut winner) = (vec![0.0; g.y_len()], vec![0; g.y_len()]);
        naive::max_pool2d(g, &rough, &mut y, &mut winner);
        let (x, dy) = (numbers(g.x_len(), 1), numbers(g.y_len(), 2));
        hold(
            &format!("max_pool2d_dx {g:?}"),
            1e-6,
            [g.x_len()],
            |[dx]| pool::max_pool2d_dx(g, &winner, &dy, dx),
            |[dx]| naive::max_pool2d_dx(g, &winner, &dy, dx),
        );
        hold(
            &format!("avg_pool2d {g:?}"),
            2e-6,
            [g.y_len()],
            |[y]| pool::avg_pool2d(g, &x, y),
            |[y]| naive::avg_pool2d(g, &x, y),
        );
        hold(
            &format!("avg_pool2d_dx {g:?}"),
            2e-6,
            [g.x_len()],
            |[dx]| pool::avg_pool2d_dx(g, &dy, dx),
            |[dx]| naive::avg_pool2d_dx(g, &dy, dx),
        );
    }
}

#[test]
fn batch_normalisation() {
    let sizes = [
        (1, 1, 1),
        (1, 3, 7),
        (5, 1, 8),
        (4, 17, 1),
        (3, 5, 33),
        (2, 16, 64),
        (130, 70, 1),
        (300, 300, 1),
        (9, 3, 5000),
        (700, 40, 4),
    ];
    for (n, c, hw) in sizes {
        let len = n * c * hw;
        // Far from zero, where a careless sum of squares loses all digits of the variance.
        let x: Vec<f32> = numbers(len, 1).iter().map(|x| 0.01 * x + 30.0).collect();
        hold(
            &format!("batch_moments {n} {c} {hw}"),
            1e-6,
            [c, c],
            |[mean, var]| norm::batch_moments(n, c, hw, &x, mean, var),
            |[mean, var]| naive::batch_moments(n, c, hw, &x, mean, var),
        );
        let x = numbers(len, 4);
        let (mut mean, mut inv_std) = (vec![0.0; c], vec![0.0; c]);
        naive::batch_moments(n, c, hw, &x, &mut mean, &mut inv_std);
        inv_std.iter_mut().for_each(|v| *v = 1.0 / (*v + 1e-5).sqrt());
        let (gamma, beta, dy) = (numbers(c, 2), numbers(c, 3), numbers(len, 5));
        hold(
            &format!("batch_norm {n} {c} {hw}"),
            1e-6,
            [len],
            |[y]| norm::batch_norm(n, c, hw, &x, &mean, &inv_std, &gamma, &beta, y),
            |[y]| naive::batch_norm(n, c, hw, &x, &mean, &inv_std, &gamma, &beta, y),
        );
        hold(
            &format!("batch_norm_backward {n} {c} {hw}"),
            2e-6,
            [len, c, c],
            |[dx, dg, db]| {
                norm::batch_norm_backward(n, c, hw, &x, &mean, &inv_std, &gamma, &dy, dx, dg, db)
            },
            |[dx, dg, db]| {
                naive::batch_norm_backward(n, c, hw, &x, &mean, &inv_std, &gamma, &dy, dx, dg, db)
            },
        );
        hold(
            &format!("channel_affine {n} {c} {hw}"),
            0.0,
            [len],
            |[y]| norm::channel_affine(n, c, hw, &x, &gamma, &beta, y),
            |[y]| {
                for i in 0..len {
                    let product = gamma[i / hw % c] * x[i];
                    y[i] = product + beta[i / hw % c];
                }
            },
        );
    }
}

#[test]
fn standardised_rows() {
    for (rows, cols) in [(1, 1), (3, 1), (2, 3), (5, 9), (17, 27), (64, 576), (3, 40000)] {
        let mut x: Vec<f32> = numbers(rows * cols, 1).iter().map(|x| 0.1 * x + 2.0).collect();
        x[..cols].fill(0.75); // a row without spread
        let dy = numbers(rows * cols, 2);
        hold(
            &format!("standardize_rows {rows} {cols}"),
            3e-6,
            [rows * cols, rows],
            |[y, inv_std]| norm::standardize_rows(rows, cols, &x, y, inv_std),
            |[y, inv_std]| naive::standardize_rows(rows, cols, &x, y, inv_std),
        );
        let (mut y, mut inv_std) = (vec![0.0; rows * cols], vec![0.0; rows]);
        naive::standardize_rows(rows, cols, &x, &mut y, &mut inv_std);
        hold(
            &format!("standardize_rows_dx {rows} {cols}"),
            2e-6,
            [rows * cols],
            |[dx]| norm::standardize_rows_dx(rows, cols, &y, &inv_std, &dy, dx),
            |[dx]| naive::standardize_rows_dx(rows, cols, &y, &inv_std, &dy, dx),
        );
    }
}

#[test]
fn log_softmax() {
    for (rows, cols) in [(1, 1), (3, 2), (5, 10), (128, 100), (2, 1000), (90, 1003)] {
        let x: Vec<f32> = numbers(rows * cols, 1).iter().map(|x| 50.0 * x).collect();
        let dy = numbers(rows * cols, 2);
        hold(
            &format!("log_softmax {rows} {cols}"),
            1e-6,
            [rows * cols],
            |[y]| softmax::log_softmax(rows, cols, &x, y),
            |[y]| naive::log_softmax(rows, cols, &x, y),
        );
        let mut y = vec![0.0; rows * cols];
        naive::log_softmax(rows, cols, &x, &mut y);
        hold(
            &format!("log_softmax_dx {rows} {cols}"),
            2e-6,
            [rows * cols],
            |[dx]| softmax::log_softmax_dx(rows, cols, &y, &dy, dx),
            |[dx]| naive::log_softmax_dx(rows, cols, &y, &dy, dx),
        );
    }
}
