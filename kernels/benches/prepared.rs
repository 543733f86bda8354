//! Prepared layers as a packed net runs them: one after the other, so that the weights of each come
//! from far, at batch 1. Floats go from layer to layer through the same few buffers. A table of the quickest time seen of each, its multiply-adds a second, and how
//! many times as fast `matrixmultiply` computes the same product in the same run.
//!
//! `cargo bench -p dirnet-kernels --bench prepared [-- THREADS [NET]]`

use dirnet_kernels::bits::{
    self, Filters, Pad, Prepared, PreparedDense, Rows, Thresholds, Transform,
};
use dirnet_kernels::norm_act::Activation;
use dirnet_kernels::{Conv, ConvGeom, PoolGeom, conv, gemm, par, pool, simd, yardstick};
use std::time::{Duration, Instant};

/// Channels in, channels out, height and width, stride, and how often it follows itself.
const RESNET18: [[usize; 5]; 7] = [
    [64, 64, 56, 1, 4],
    [64, 128, 56, 2, 1],
    [128, 128, 28, 1, 3],
    [128, 256, 28, 2, 1],
    [256, 256, 14, 1, 3],
    [256, 512, 14, 2, 1],
    [512, 512, 7, 1, 3],
];
const RESNET20: [[usize; 5]; 5] = [
    [16, 16, 32, 1, 6],
    [16, 32, 32, 2, 1],
    [32, 32, 16, 1, 5],
    [32, 64, 16, 2, 1],
    [64, 64, 8, 1, 5],
];
const VGG_SMALL: [[usize; 5]; 5] = [
    [128, 128, 32, 1, 1],
    [128, 256, 16, 1, 1],
    [256, 256, 16, 1, 1],
    [256, 512, 8, 1, 1],
    [512, 512, 8, 1, 1],
];

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

struct Layer {
    g: ConvGeom,
    prepared: Prepared,
    x: Vec<u8>,
    numbers: Vec<f32>,
    thresholds: Thresholds,
    signs: Vec<u8>,
    best: [f64; 2],
}

impl Layer {
    fn new([c, o, size, stride, _]: [usize; 5]) -> Layer {
        let g = ConvGeom::new(&[1, c, size, size], &[o, c, 3, 3], Conv::same(3).stride(stride));
        let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &random(g.w_len())));
        let mut x = vec![0; prepared.x_len(1)];
        bits::pack_planes(g.x(), 1, &random(g.x_len()), &mut x);
        Layer {
            x,
            numbers: random(o),
            thresholds: Thresholds::new(&random(o), &vec![false; o]),
            signs: vec![0; prepared.signs_len(1)],
            best: [f64::INFINITY; 2],
            prepared,
            g,
        }
    }

    fn run(&mut self, residual: &[f32], y: &mut [f32]) {
        let len = self.g.y_len();
        let (scale, act) = (&self.numbers[..], Activation::Hardtanh);
        let affine = Transform::Affine { scale, a: scale, b: scale, act };
        let (residual, y) = (Some(&residual[..len]), Some(&mut y[..len]));
        let start = Instant::now();
        self.prepared.run(1, &self.x, &affine, residual, y, Some(&mut self.signs));
        self.best[0] = self.best[0].min(start.elapsed().as_secs_f64());
    }

    fn run_signs(&mut self) {
        let then = Transform::Threshold(&self.thresholds);
        let start = Instant::now();
        self.prepared.run(1, &self.x, &then, None, None, Some(&mut self.signs));
        self.best[1] = self.best[1].min(start.elapsed().as_secs_f64());
    }
}

/// `matrixmultiply` on the same product, in the better of its two orders.
fn sgemm(g: &ConvGeom) -> f64 {
    let (m, k, n) = (g.o, g.taps(), g.oh * g.ow);
    let (a, b, mut y) = (random(m * k), random(k * n), vec![0.0; m * n]);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        yardstick::sgemm(m, k, n, &a, false, &b, false, &mut y);
        let straight = start.elapsed().as_secs_f64();
        let start = Instant::now();
        yardstick::sgemm(n, k, m, &b, true, &a, true, &mut y);
        best = best.min(straight).min(start.elapsed().as_secs_f64());
    }
    best
}

fn net(name: &str, shapes: &[[usize; 5]]) {
    println!("{name}: with affine, residual, floats and signs; and signs alone");
    let mut layers: Vec<_> =
        shapes.iter().flat_map(|shape| vec![*shape; shape[4]]).map(Layer::new).collect();
    let longest = layers.iter().map(|layer| layer.g.y_len()).max().unwrap_or(0);
    let (mut before, mut after) = (random(longest), random(longest));
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        for layer in &mut layers {
            layer.run(&before, &mut after);
            std::mem::swap(&mut before, &mut after);
        }
        layers.iter_mut().for_each(Layer::run_signs);
    }
    let mut from = 0;
    let mut sums = [0.0; 2];
    for &[c, o, size, stride, times] in shapes {
        let some = &layers[from..from + times];
        from += times;
        let g = &some[0].g;
        // Of equal layers the middle one: the first may find its numbers nearer by chance.
        let middle = |i: usize| {
            let mut best: Vec<_> = some.iter().map(|layer| layer.best[i]).collect();
            best.sort_by(f64::total_cmp);
            best[times / 2]
        };
        let float = sgemm(g);
        let shape = format!("{c}x{size}x{size} -> {o} s{stride}, {times} times");
        print!("  {shape:<32} {:>7} bytes", some[0].prepared.bytes());
        for i in 0..2 {
            let time = middle(i);
            sums[i] += times as f64 * time;
            let speed = 1e-9 * g.macs() as f64 / time;
            print!("  {:7.1} us {speed:6.0} GMAC/s {:5.1} x sgemm", 1e6 * time, float / time);
        }
        println!();
    }
    println!("  all {} layers: {:.1} us and {:.1} us", layers.len(), 1e6 * sums[0], 1e6 * sums[1]);
}

/// Channels in, channels out, height and width, the filter's, stride, groups.
const FLOATS: [[usize; 6]; 10] = [
    [3, 64, 224, 7, 2, 1],
    [64, 128, 56, 1, 2, 1],
    [128, 256, 28, 1, 2, 1],
    [256, 512, 14, 1, 2, 1],
    [3, 16, 32, 3, 1, 1],
    [32, 32, 112, 3, 1, 32],
    [64, 64, 112, 3, 2, 64],
    [128, 128, 56, 3, 1, 128],
    [512, 512, 14, 3, 1, 512],
    [1024, 1024, 7, 3, 1, 1024],
];

/// The quickest of many, in seconds.
fn quickest(mut f: impl FnMut()) -> f64 {
    let (began, mut best) = (Instant::now(), f64::INFINITY);
    while began.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn floats() {
    let peak = yardstick::peak();
    println!("floats: prepared, conv2d, and percent of the peak of multiply-adds");
    for [c, o, size, k, stride, groups] in FLOATS {
        let how = Conv::same(k).stride(stride).groups(groups);
        let g = ConvGeom::new(&[1, c, size, size], &[o, c / groups, k, k], how);
        let (x, w, mut y) = (random(g.x_len()), random(g.w_len()), vec![0.0; g.y_len()]);
        let prepared = conv::Prepared::new(&g, &w);
        let mut best = [f64::INFINITY; 2];
        // In turns, so that both meet the same company.
        for _ in 0..3 {
            best[0] = best[0].min(quickest(|| prepared.run(1, &x, &mut y)));
            best[1] = best[1].min(quickest(|| conv::conv2d(&g, &x, &w, &mut y)));
        }
        let shape = format!("{c}x{size}x{size} -> {o} k{k} s{stride} g{groups}");
        let percent = peak.map_or(f64::NAN, |peak| 100.0 * g.macs() as f64 / peak / best[0]);
        println!("  {shape:<32} {:7.1} us {:7.1} us {percent:5.1} %", 1e6 * best[0], 1e6 * best[1]);
    }
    let g = PoolGeom::new(&[1, 64, 112, 112], 3, 2, 1);
    let (x, mut y, scale) = (random(g.x_len()), vec![0.0; g.y_len()], &random(64)[..]);
    let then = Transform::Affine { scale, a: scale, b: scale, act: Activation::Relu };
    let time = quickest(|| pool::max_pool2d_of(&g, &x, Some(&then), &mut y));
    println!("  affine, relu, maximum of 3x3 s2 over 64x112x112: {:.1} us", 1e6 * time);
    for [k, o] in [[512, 1000], [8192, 1024]] {
        let (x, w, mut y) = (random(k), random(o * k), vec![0.0; o]);
        let time = quickest(|| gemm::gemm(1, k, o, &x, false, &w, true, &mut y));
        let speed = 4e-9 * w.len() as f64 / time;
        println!("  dense {k} -> {o}: {:.1} us, {speed:.0} GB/s of weights", 1e6 * time);
    }
    println!("dense layers of signs: prepared, and bits::dense");
    for [n, k, o] in [[1, 512, 1000], [1, 8192, 1024], [128, 784, 256], [128, 1024, 1024]] {
        let (x, w, mut y) = (random(n * k), random(o * k), vec![0.0; n * o]);
        let (rows, packed) = (Rows::pack(n, k, &x), Rows::pack(o, k, &w));
        let dense = PreparedDense::new(&packed);
        let (mut words, scale) = (vec![0; n * k.div_ceil(64)], random(o));
        bits::pack_rows(k, &x, &mut words);
        let then = Transform::Scale { scale: &scale };
        let ours = quickest(|| _ = dense.run(n, &words, &then, None, Some(&mut y), None));
        let plain = quickest(|| bits::dense(n, k, o, &rows, &packed, &mut y));
        let speed = 1e-9 * (n * k * o) as f64 / ours;
        println!(
            "  {n}x{k} -> {o}: {:.1} us, {speed:.0} GMAC/s; {:.1} us",
            1e6 * ours,
            1e6 * plain
        );
    }
}

fn main() -> Result<(), std::io::Error> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let wanted = arguments.next().unwrap_or_default();
    println!("instructions: {}, threads: {threads}", simd::name());
    par::with_threads(threads, || {
        for (name, shapes) in
            [("resnet18", &RESNET18[..]), ("resnet20", &RESNET20), ("vgg-small", &VGG_SMALL)]
        {
            if name.contains(&wanted) {
                net(name, shapes);
            }
        }
        if "floats".contains(&wanted) {
            floats();
        }
    })
}
