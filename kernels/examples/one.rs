//! dev only
#![allow(clippy::undocumented_unsafe_blocks)]
use dirnet_kernels::conv::{self};
use dirnet_kernels::{Conv, ConvGeom, par};
use std::hint::black_box;
use std::time::Instant;
const CHAINED: usize = 20_000 * 12 * 8;
fn chains() {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx2,fma")]
    fn chains() -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [a; 12];
        for _ in 0..CHAINED / (12 * 8) {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        _mm256_cvtss_f32(sums.into_iter().fold(a, |s, x| _mm256_add_ps(s, x)))
    }
    black_box(unsafe { chains() });
}
fn t(f: &mut dyn FnMut()) -> f64 {
    let s = Instant::now();
    f();
    s.elapsed().as_secs_f64()
}
// one PASS N C O SIZE K S G SECONDS THREADS
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let v: Vec<usize> = a[2..].iter().map(|x| x.parse().unwrap()).collect();
    let (n, c, o, size, k, s, gr) = (v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    let secs = v.get(7).copied().unwrap_or(1) as f64;
    let th = v.get(8).copied().unwrap_or(1);
    par::with_threads(th, || {
        let g = ConvGeom::new(
            &[n, c, size, size],
            &[o, c / gr, k, k],
            Conv::same(k).stride(s).groups(gr),
        );
        let (x, w, dy) = (vec![0.5; g.x_len()], vec![0.25; g.w_len()], vec![0.5; g.y_len()]);
        let (mut y, mut dx, mut dw) = (vec![1f32; g.y_len()], vec![1f32; g.x_len()], w.clone());
        for pass in a[1].split(',') {
            let mut run: Box<dyn FnMut()> = match pass {
                "f" => Box::new(|| conv::conv2d(&g, &x, &w, &mut y)),
                "x" => Box::new(|| conv::conv2d_dx(&g, &w, &dy, &mut dx)),
                "w" => Box::new(|| conv::conv2d_dw(&g, &x, &dy, &mut dw)),
                "if" => Box::new(|| conv::im2col::forward(&g, &x, &w, &mut y)),
                "ix" => Box::new(|| conv::im2col::dx(&g, &w, &dy, &mut dx)),
                _ => Box::new(|| conv::im2col::dw(&g, &x, &dy, &mut dw)),
            };
            let (mut p, mut b) = (f64::INFINITY, f64::INFINITY);
            let reps = (5e-4 / t(&mut run)).ceil().max(1.0) as usize;
            let s = Instant::now();
            while s.elapsed().as_secs_f64() < secs {
                p = p.min(t(&mut chains));
                for _ in 0..4 {
                    b = b.min(
                        t(&mut || {
                            for _ in 0..reps {
                                run()
                            }
                        }) / reps as f64,
                    );
                }
            }
            println!(
                "{pass} {n}x{c}@{size}->{o} k{k} s{s:?} g{gr}: {:.1} % {:.3} ms",
                100.0 * (g.macs() as f64 / b) / (CHAINED as f64 / p),
                b * 1e3,
                s = v[5]
            );
        }
    })
    .unwrap();
}
