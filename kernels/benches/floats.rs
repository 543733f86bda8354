//! Times of the f32 kernels on one thread.
//!
//! Convolutions report multiply-adds a second, beside `sgemm`: the bare matrix product of
//! `matrixmultiply` at the same `m`, `k`, `n` in the same run, which shows how fast the machine is.
//! Passes over memory report bytes.

use criterion::{Criterion, Throughput};
use dirnet_kernels::{Conv, ConvGeom, conv, elementwise, gemm, math, norm, par};
use std::time::Duration;

/// `n` images of `c` channels of `size` by `size`, and `o` filters of `k` by `k`.
fn square(n: usize, c: usize, size: usize, o: usize, k: usize, how: Conv) -> ConvGeom {
    ConvGeom::new(&[n, c, size, size], &[o, c / how.groups, k, k], how)
}

fn convolutions(criterion: &mut Criterion) {
    let shapes = [
        ("16 channels, 32x32, batch 128", square(128, 16, 32, 16, 3, Conv::same(3))),
        ("32 channels, 16x16, batch 128", square(128, 32, 16, 32, 3, Conv::same(3))),
        ("64 channels, 8x8, batch 128", square(128, 64, 8, 64, 3, Conv::same(3))),
        ("3 to 16 channels, 32x32, batch 128", square(128, 3, 32, 16, 3, Conv::same(3))),
        ("64 channels, 56x56", square(1, 64, 56, 64, 3, Conv::same(3))),
        ("512 channels, 7x7", square(1, 512, 7, 512, 3, Conv::same(3))),
        ("64 to 128 channels, 56x56, stride 2", square(1, 64, 56, 128, 3, Conv::same(3).stride(2))),
        ("64 to 128 channels, 56x56, 1x1", square(1, 64, 56, 128, 1, Conv::valid().stride(2))),
        ("3 to 64 channels, 224x224, 7x7", square(1, 3, 224, 64, 7, Conv::same(7).stride(2))),
        ("depthwise, 64x32x32, batch 32", square(32, 64, 32, 64, 3, Conv::same(3).groups(64))),
    ];
    for (name, g) in shapes {
        let (x, w, dy) = (vec![0.5; g.x_len()], vec![0.25; g.w_len()], vec![0.5; g.y_len()]);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(g.macs() as u64));
        group.bench_function("conv2d", |b| b.iter(|| conv::conv2d(&g, &x, &w, &mut y)));
        group.bench_function("conv2d_dx", |b| b.iter(|| conv::conv2d_dx(&g, &w, &dy, &mut dx)));
        group.bench_function("conv2d_dw", |b| b.iter(|| conv::conv2d_dw(&g, &x, &dy, &mut dw)));
        let (m, k, n) = (g.group_o(), g.taps(), g.oh * g.ow);
        let (a, b, mut product) = (vec![0.5; m * k], vec![0.5; k * n], vec![0.0; m * n]);
        group.throughput(Throughput::Elements((m * k * n) as u64));
        group.bench_function("sgemm", |bench| {
            bench.iter(|| gemm::gemm(m, k, n, &a, false, &b, false, &mut product));
        });
        group.finish();
    }
}

fn passes(criterion: &mut Criterion) {
    let (n, c, hw) = (128, 16, 1024);
    let (x, dy, mut y) = (vec![0.5; n * c * hw], vec![0.25; n * c * hw], vec![0.0; n * c * hw]);
    let (mut mean, mut var, ones) = (vec![0.0; c], vec![1.0; c], vec![1.0; c]);
    let (mut dgamma, mut dbeta) = (ones.clone(), ones.clone());
    let mut group = criterion.benchmark_group("passes over 128x16x32x32");
    let tensors = |many: usize| Throughput::Bytes((many * n * c * hw * size_of::<f32>()) as u64);
    group.throughput(tensors(2));
    group.bench_function("relu", |b| b.iter(|| elementwise::map(&x, &mut y, |x| x.max(0.0))));
    group.bench_function("tanh", |b| b.iter(|| elementwise::map(&x, &mut y, math::tanh)));
    group.bench_function("channel_affine", |b| {
        b.iter(|| norm::channel_affine(n, c, hw, &x, &ones, &ones, &mut y));
    });
    group.throughput(tensors(1));
    group.bench_function("batch_moments", |b| {
        b.iter(|| norm::batch_moments(n, c, hw, &x, &mut mean, &mut var));
    });
    group.throughput(tensors(5));
    group.bench_function("batch_norm_backward", |b| {
        b.iter(|| {
            let (dgamma, dbeta) = (&mut dgamma, &mut dbeta);
            norm::batch_norm_backward(
                n, c, hw, &x, &mean, &ones, &ones, &dy, &mut y, dgamma, dbeta,
            );
        });
    });
    group.finish();
}

fn main() {
    par::with_threads(1, || {
        let mut criterion = Criterion::default()
            .sample_size(20)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        convolutions(&mut criterion);
        passes(&mut criterion);
        criterion.final_summary();
    })
    .expect("one thread");
}
