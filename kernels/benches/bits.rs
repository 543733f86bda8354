//! The bit kernels on one thread, against `matrixmultiply` at the same sizes and against the peak of
//! the machine's multiply-adds, both measured in the same run.
//!
//! `cargo bench -p dirnet-kernels --bench bits`; a filter chooses shapes. After the measurements of a
//! shape a line gives its ratios, of the quickest times seen.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use dirnet_kernels::bits::{self, Filters, Image, Mask, Pad, Rows};
use dirnet_kernels::{Conv, ConvGeom, par, simd, yardstick};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Images, channels in, channels out, their height and width, the filter's, and its stride.
const CONVOLUTIONS: [[usize; 6]; 13] = [
    [128, 16, 16, 32, 3, 1],
    [128, 32, 32, 16, 3, 1],
    [128, 64, 64, 8, 3, 1],
    [128, 16, 32, 32, 3, 2],
    [128, 32, 64, 16, 3, 2],
    [32, 128, 128, 32, 3, 1],
    [32, 512, 512, 4, 3, 1],
    [8, 64, 128, 28, 1, 1],
    [1, 64, 64, 56, 3, 1],
    [1, 128, 128, 28, 3, 1],
    [1, 256, 256, 14, 3, 1],
    [1, 512, 512, 7, 3, 1],
    [1, 64, 128, 56, 3, 2],
];

/// Rows of the input, their length, rows of the output.
const PRODUCTS: [[usize; 3]; 4] =
    [[128, 784, 256], [128, 1024, 1024], [128, 512, 10], [1, 1024, 1024]];

fn random(len: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ len as u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Measures `f`, and gives the seconds of its quickest samples: infinite if a filter left it out.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    group.bench_function(name, |b| {
        b.iter_custom(|times| {
            let start = Instant::now();
            (0..times).for_each(|_| f());
            let elapsed = start.elapsed();
            best = best.min(elapsed.as_secs_f64() / times as f64);
            elapsed
        });
    });
    best
}

/// `matrixmultiply` alone on `m` by `k` times `k` by `n`, in the better of the two orders.
fn sgemm(group: &mut BenchmarkGroup<'_, WallTime>, [m, k, n]: [usize; 3]) -> f64 {
    let (a, b, mut y) = (random(m * k), random(k * n), vec![0.0; m * n]);
    let straight = measure(group, "sgemm", || {
        yardstick::sgemm(m, k, n, &a, false, &b, false, &mut y);
    });
    let turned = measure(group, "sgemm, turned", || {
        yardstick::sgemm(n, k, m, &b, true, &a, true, &mut y);
    });
    straight.min(turned)
}

fn convolutions(c: &mut Criterion) {
    for [n, ci, o, size, k, stride] in CONVOLUTIONS {
        let g = ConvGeom::new(&[n, ci, size, size], &[o, ci, k, k], Conv::same(k).stride(stride));
        let name = format!("{n}x{ci}x{size}x{size}->{o} k{k} s{stride}");
        let (x, w, dy) = (random(g.x_len()), random(g.w_len()), random(g.y_len()));
        let (image, filters) = (Image::pack(&g, &x), Filters::pack(&g, &w));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut group = c.benchmark_group(&name);
        group.throughput(Throughput::Elements(g.macs() as u64));
        let zero = measure(&mut group, "forward", || {
            bits::conv2d(&g, &image, &filters, Pad::Zero, &mut y);
        });
        let minus = measure(&mut group, "forward, padded with -1", || {
            bits::conv2d(&g, &image, &filters, Pad::Minus, &mut y);
        });
        let back_x = measure(&mut group, "dx", || bits::conv2d_dx(&g, &filters, &dy, &mut dx));
        let back_w = measure(&mut group, "dw", || {
            bits::conv2d_dw(&g, &image, Pad::Zero, &dy, &mut dw);
        });
        // Its speed does not grow with more columns than these.
        let columns = (n * g.oh * g.ow).min(9216);
        let float = sgemm(&mut group, [o, g.taps(), columns]);
        let float = float * (n * g.oh * g.ow) as f64 / columns as f64;
        group.throughput(Throughput::Bytes(4 * g.x_len() as u64));
        let pack = measure(&mut group, "pack", || drop(black_box(Image::pack(&g, &x))));
        group.finish();
        let peak = yardstick::peak().map_or(f64::NAN, |peak| g.macs() as f64 / peak);
        println!(
            "{name}: forward {:.1} x sgemm, zero padding {:+.1} % over -1; of the peak of \
             multiply-adds, dx {:.2} x, dw {:.2} x; packing {:.0} GB/s\n",
            float / zero,
            100.0 * (zero / minus - 1.0),
            peak / back_x,
            peak / back_w,
            4e-9 * g.x_len() as f64 / pack,
        );
    }
}

fn products(c: &mut Criterion) {
    for [m, k, n] in PRODUCTS {
        let name = format!("dense {m}x{k}->{n}");
        let (x, w, dy) = (random(m * k), random(n * k), random(m * n));
        let (rows, weights) = (Rows::pack(m, k, &x), Rows::pack(n, k, &w));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut group = c.benchmark_group(&name);
        group.throughput(Throughput::Elements((m * k * n) as u64));
        let forward =
            measure(&mut group, "forward", || bits::dense(m, k, n, &rows, &weights, &mut y));
        let back_x = measure(&mut group, "dx", || bits::dense_dx(m, k, n, &weights, &dy, &mut dx));
        let back_w = measure(&mut group, "dw", || bits::dense_dw(m, k, n, &rows, &dy, &mut dw));
        let float = sgemm(&mut group, [m, k, n]);
        group.finish();
        let peak = yardstick::peak().map_or(f64::NAN, |peak| (m * k * n) as f64 / peak);
        println!(
            "{name}: forward {:.1} x sgemm; of the peak of multiply-adds, dx {:.2} x, dw {:.2} x\n",
            float / forward,
            peak / back_x,
            peak / back_w,
        );
    }
}

fn masks(c: &mut Criterion) {
    let len = 1 << 21;
    let (x, dy, mut dx) = (random(len), random(len), vec![0.0; len]);
    let mask = Mask::within(&x, 0.5);
    let mut group = c.benchmark_group("mask of 2^21");
    group.throughput(Throughput::Bytes(4 * len as u64));
    measure(&mut group, "within", || drop(black_box(Mask::within(&x, 0.5))));
    measure(&mut group, "masked", || bits::masked(&mask, 1.5, &dy, &mut dx));
    measure(&mut group, "masked in place", || bits::masked_in_place(&mask, 0, 1.5, &mut dx));
    group.finish();
}

fn main() -> Result<(), std::io::Error> {
    println!("instructions: {}", simd::name());
    par::with_threads(1, || {
        let mut c = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(400))
            .configure_from_args();
        convolutions(&mut c);
        products(&mut c);
        masks(&mut c);
        c.final_summary();
    })
}
