//! Times of the f32 kernels on one thread.
//!
//! Convolutions are told in percent of the machine's peak of multiply-adds, which a loop over
//! registers reaches in the same run: each pass, and after it the same pass by a matrix of patches.
//! Passes over memory report bytes.
//!
//! `cargo bench -p dirnet-kernels --bench floats`; a filter chooses shapes.

use criterion::{Criterion, Throughput};
use dirnet_kernels::conv::{self, im2col};
use dirnet_kernels::{Conv, ConvGeom, elementwise, gemm, math, norm, par, simd, yardstick};
use std::time::{Duration, Instant};

/// Channels in, channels out, their height and width, the filter's, its stride, and groups.
const CONVOLUTIONS: [[usize; 6]; 29] = [
    [16, 16, 32, 3, 1, 1],
    [32, 32, 16, 3, 1, 1],
    [64, 64, 8, 3, 1, 1],
    [64, 64, 56, 3, 1, 1],
    [128, 128, 28, 3, 1, 1],
    [256, 256, 14, 3, 1, 1],
    [512, 512, 7, 3, 1, 1],
    [512, 512, 4, 3, 1, 1],
    [512, 512, 2, 3, 1, 1],
    [256, 256, 1, 3, 1, 1],
    [3, 16, 32, 3, 1, 1],
    [3, 128, 32, 3, 1, 1],
    [1, 32, 28, 3, 1, 1],
    [1, 32, 28, 5, 1, 1],
    [3, 64, 224, 7, 2, 1],
    [16, 32, 32, 3, 2, 1],
    [64, 128, 56, 3, 2, 1],
    [32, 64, 14, 5, 1, 1],
    [64, 64, 32, 3, 1, 4],
    [64, 64, 32, 3, 1, 64],
    [64, 64, 56, 1, 1, 1],
    [64, 256, 56, 1, 1, 1],
    [256, 64, 56, 1, 1, 1],
    [512, 128, 28, 1, 1, 1],
    [512, 512, 7, 1, 1, 1],
    [16, 32, 32, 1, 2, 1],
    [64, 128, 56, 1, 2, 1],
    [128, 256, 28, 1, 2, 1],
    [256, 512, 14, 1, 2, 1],
];

/// Rows of the input, their length, rows of the output.
const PRODUCTS: [[usize; 3]; 6] = [
    [1, 512, 1000],
    [1, 1024, 1024],
    [8, 1024, 1024],
    [128, 1024, 1024],
    [128, 512, 10],
    [128, 3072, 2048],
];

/// The seconds of the quickest of many runs of each, taken in turns so that all meet the same
/// machine.
fn quickest(runs: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let time = |run: &mut dyn FnMut(), times: u32| {
        let start = Instant::now();
        (0..times).for_each(|_| run());
        start.elapsed().as_secs_f64() / times as f64
    };
    // The first run warms caches up and tells how many make a sample.
    let times: Vec<u32> = runs.iter_mut().map(|run| (1e-3 / time(run, 1)).ceil() as u32).collect();
    let mut best = vec![f64::INFINITY; runs.len()];
    let start = Instant::now();
    for round in 0.. {
        for (i, run) in runs.iter_mut().enumerate() {
            best[i] = best[i].min(time(run, times[i]));
        }
        if round >= 2 && start.elapsed() > Duration::from_millis(500) {
            break;
        }
    }
    best
}

/// Multiply-adds a second from registers; NaN where that is not known.
fn peak() -> f64 {
    yardstick::peak().unwrap_or(f64::NAN)
}

/// Whether the command line asks for a shape of this name.
fn wanted(name: &str) -> bool {
    let mut filters =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

fn convolutions() {
    println!("percent of the peak: a pass, and by patches");
    for [c, o, size, k, stride, groups] in CONVOLUTIONS {
        for n in [1, 8, 128] {
            let name = format!("{n}x{c}x{size}x{size}->{o} k{k} s{stride} g{groups}");
            if !wanted(&name) {
                continue;
            }
            let how = Conv::same(k).stride(stride).groups(groups);
            let g = ConvGeom::new(&[n, c, size, size], &[o, c / groups, k, k], how);
            let (x, w, dy) = (vec![0.5; g.x_len()], vec![0.25; g.w_len()], vec![0.5; g.y_len()]);
            let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
            let (mut y_too, mut dx_too, mut dw_too) = (dy.clone(), x.clone(), w.clone());
            let peak = peak();
            let times = quickest(&mut [
                &mut || conv::conv2d(&g, &x, &w, &mut y),
                &mut || im2col::forward(&g, &x, &w, &mut y_too),
                &mut || conv::conv2d_dx(&g, &w, &dy, &mut dx),
                &mut || im2col::dx(&g, &w, &dy, &mut dx_too),
                &mut || conv::conv2d_dw(&g, &x, &dy, &mut dw),
                &mut || im2col::dw(&g, &x, &dy, &mut dw_too),
            ]);
            let percent = |i: usize| 100.0 * (g.macs() as f64 / times[i]) / peak;
            println!(
                "{name:34} conv2d {:3.0} {:3.0}   dx {:3.0} {:3.0}   dw {:3.0} {:3.0}",
                percent(0),
                percent(1),
                percent(2),
                percent(3),
                percent(4),
                percent(5),
            );
        }
    }
}

fn products() {
    println!("percent of the peak, and GB/s of the weights");
    for [m, k, n] in PRODUCTS {
        let name = format!("dense {m}x{k}->{n}");
        if !wanted(&name) {
            continue;
        }
        let (x, w, dy) = (vec![0.5; m * k], vec![0.25; n * k], vec![0.5; m * n]);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let peak = peak();
        let times = quickest(&mut [
            &mut || gemm::gemm(m, k, n, &x, false, &w, true, &mut y),
            &mut || gemm::gemm(m, n, k, &dy, false, &w, false, &mut dx),
            &mut || gemm::gemm(n, m, k, &dy, true, &x, false, &mut dw),
        ]);
        print!("{name:34}");
        for (i, pass) in ["forward", "dx", "dw"].into_iter().enumerate() {
            let percent = 100.0 * ((m * k * n) as f64 / times[i]) / peak;
            print!(" {pass} {percent:3.0} {:4.1}  ", 4e-9 * (n * k) as f64 / times[i]);
        }
        println!();
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
    println!("instructions: {}", simd::name());
    par::with_threads(1, || {
        convolutions();
        products();
        let mut criterion = Criterion::default()
            .sample_size(20)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        passes(&mut criterion);
        criterion.final_summary();
    })
    .expect("one thread");
}
