//! `dirnet bench kernels`

use crate::cli::output::{Output, table};
use crate::{Conv, Error, Rng, Tensor};
use clap::Args;
use dirnet_kernels::bits::{self, Filters, Image, Pad, Rows};
use dirnet_kernels::conv::{self, im2col};
use dirnet_kernels::{ConvGeom, par, simd, yardstick};
use serde::Serialize;
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Each kernel at the shapes of well-known networks, a row for each of both.
///
/// Beside a kernel, taking turns with it, run `matrixmultiply` alone at the same m, k and n, in the
/// better of its two operand orders and on as many threads, and for a convolution our own path over
/// im2col and matrixmultiply: `x sgemm` and `x im2col` say how many times faster the kernel is. The
/// peak is that of fused multiply-adds from registers, measured at the start.
///
/// A row takes about half a second after a warm-up, and its fastest sample counts. A sample is one call,
/// or as many as take a millisecond, after ten milliseconds of calls that are not timed, on the same
/// tensors: what fits in a cache is found there, whoever ran before. Bits are packed beforehand; packing
/// is a row of its own.
///
/// With --json, one object a row: kernel, shape (images NxCxHxW, output channels, side of the filter,
/// stride), threads, ms, gmac_per_s, ratio_to_sgemm, percent_of_fma_peak, ratio_to_im2col; null where
/// it makes no sense.
#[derive(Args, Debug)]
pub(super) struct KernelBench {
    /// Images at a time, instead of each shape's own number; may be given several times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    batch: Vec<u16>,
    /// Only rows whose kernel and shape, as in "bin_conv_fwd 1x64x56x56->64 k3 s1", contain this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

#[derive(Serialize)]
struct Row {
    kernel: &'static str,
    shape: String,
    threads: usize,
    ms: f64,
    gmac_per_s: Option<f64>,
    ratio_to_sgemm: Option<f64>,
    percent_of_fma_peak: Option<f64>,
    ratio_to_im2col: Option<f64>,
}

impl KernelBench {
    pub fn run(&self, out: &Output) -> Result<(), Error> {
        let mut cases = self.cases();
        if let Some(text) = &self.filter {
            cases.retain(|(kernel, shape, _)| format!("{kernel} {shape}").contains(text));
            if cases.is_empty() {
                let what = "no kernel and shape contain it; an example of both is";
                let example = "bin_conv_fwd 128x16x32x32->16 k3 s1";
                return Err(Error::Setting(format!("--filter {text:?}: {what} {example:?}")));
            }
        }
        let peak = yardstick::peak();
        let bar = out.bar(cases.len() as u64, "rows");
        let mut rows = Vec::new();
        for (kernel, shape, contest) in cases {
            bar.set_message(format!("{kernel} {shape}"));
            let row = contest(&shape.0).row(kernel, &shape, peak);
            out.object(&row);
            rows.push(row);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (level, threads) = (simd::name(), par::threads());
        let plural = if threads == 1 { "" } else { "s" };
        let peak = peak.map_or("unknown".into(), |peak| format!("{:.1} GMAC/s", peak / 1e9));
        out.line(&format!("{level}, {threads} thread{plural}, peak of multiply-adds {peak}"));
        let head = ["kernel", "shape", "ms", "GMAC/s", "% of peak", "x sgemm", "x im2col"];
        out.line(&table(&head, 2, rows.iter().map(Row::cells)));
        Ok(())
    }

    fn cases(&self) -> Vec<(&'static str, Shape, Prepare)> {
        let mut shapes: Vec<Shape> = Vec::new();
        for [n, c, o, size, k, stride] in SHAPES {
            let own = [n as u16];
            for &n in if self.batch.is_empty() { &own[..] } else { &self.batch } {
                let (x, how) = ([n.into(), c, size, size], Conv::same(k).stride(stride));
                let shape = Shape(ConvGeom::new(&x, &[o, c, k, k], how));
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        let all = shapes.into_iter().flat_map(|shape| KERNELS.map(|(name, f)| (name, shape, f)));
        all.filter(|(kernel, shape, _)| shape.has(kernel)).collect()
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let number =
            |x: Option<f64>, places: usize| x.map_or("".into(), |x| format!("{x:.places$}"));
        vec![
            self.kernel.into(),
            self.shape.clone(),
            number(Some(self.ms), 4),
            number(self.gmac_per_s, 1),
            number(self.percent_of_fma_peak, 0),
            number(self.ratio_to_sgemm, 2),
            number(self.ratio_to_im2col, 2),
        ]
    }
}

/// Images, channels in, channels out, height and width, side of the filter, stride: of ResNet-20,
/// ResNet-18, VGG-Small, and two dense layers.
const SHAPES: [[usize; 6]; 18] = [
    [128, 3, 16, 32, 3, 1],
    [128, 16, 16, 32, 3, 1],
    [128, 16, 32, 32, 3, 2],
    [128, 32, 32, 16, 3, 1],
    [128, 32, 64, 16, 3, 2],
    [128, 64, 64, 8, 3, 1],
    [1, 3, 64, 224, 7, 2],
    [1, 64, 64, 56, 3, 1],
    [1, 64, 128, 56, 1, 2],
    [1, 128, 128, 28, 3, 1],
    [1, 128, 256, 28, 1, 2],
    [1, 256, 256, 14, 3, 1],
    [1, 256, 512, 14, 1, 2],
    [1, 512, 512, 7, 3, 1],
    [16, 256, 256, 16, 3, 1],
    [16, 512, 512, 8, 3, 1],
    [1, 1024, 1024, 1, 1, 1],
    [128, 1024, 1024, 1, 1, 1],
];

/// A layer's sizes. A dense layer is a convolution over images of one pixel.
#[derive(Clone, Copy, PartialEq)]
struct Shape(ConvGeom);

impl Shape {
    fn is_dense(&self) -> bool {
        self.0.h * self.0.w == 1
    }

    fn has(&self, kernel: &str) -> bool {
        let stem = self.0.c == 3;
        match kernel {
            "sgemm" => true,
            "bin_dense_fwd" => self.is_dense(),
            "pack" => !stem,
            // A first layer stays in float, and nobody asks for the gradient of its images.
            "conv_fwd" | "conv_dw" => !self.is_dense(),
            _ => !self.is_dense() && !stem,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConvGeom { n, c, h, w, o, kh, how, .. } = self.0;
        if self.is_dense() {
            return write!(f, "{n}x{c}->{o}");
        }
        write!(f, "{n}x{c}x{h}x{w}->{o} k{kh} s{}", how.stride)
    }
}

/// Those who take turns.
#[derive(Clone, Copy)]
enum Runner {
    Kernel,
    Im2col,
    Sgemm,
    /// `sgemm` for the transposed product.
    Turned,
}

/// A kernel made ready to run, and what it is held against.
struct Contest {
    runners: &'static [Runner],
    /// Runs the kernel, or the path over im2col.
    work: Box<dyn FnMut(Runner)>,
    /// The m, k, n of the matrix product that it amounts to; moving bits amounts to none.
    product: Option<[usize; 3]>,
}

impl Contest {
    /// `work(true)` goes over im2col.
    fn conv(product: [usize; 3], mut work: impl FnMut(bool) + 'static) -> Self {
        Contest {
            runners: &[Runner::Kernel, Runner::Im2col, Runner::Sgemm, Runner::Turned],
            work: Box::new(move |runner| work(matches!(runner, Runner::Im2col))),
            product: Some(product),
        }
    }

    fn row(mut self, kernel: &'static str, shape: &Shape, peak: Option<f64>) -> Row {
        let product = self.product.unwrap_or([0; 3]);
        // More pixels than these would not make `matrixmultiply` any faster.
        let [m, k, n] = product.map(|n| n.min(9216));
        let (a, b, mut y) = (random([m, k]), random([k, n]), Tensor::zeros([m, n]));
        let best = race(self.runners, |runner| match runner {
            Runner::Kernel | Runner::Im2col => (self.work)(runner),
            Runner::Sgemm => yardstick::sgemm(m, k, n, &a, false, &b, false, y.data_mut()),
            Runner::Turned => yardstick::sgemm(n, k, m, &b, true, &a, true, y.data_mut()),
        });
        let seconds = |runner: Runner| best[runner as usize];
        let macs = |product: [usize; 3]| product.iter().map(|&n| n as f64).product::<f64>();
        let sgemm = seconds(Runner::Sgemm).zip(seconds(Runner::Turned));
        let sgemm = sgemm.map(|(a, b)| a.min(b) * macs(product) / macs([m, k, n]));
        let own = seconds(Runner::Kernel).or(sgemm).expect("a contest without runners");
        let rate = self.product.map(|product| macs(product) / own);
        Row {
            kernel,
            shape: shape.to_string(),
            threads: par::threads(),
            ms: 1e3 * own,
            gmac_per_s: rate.map(|rate| rate / 1e9),
            ratio_to_sgemm: sgemm.map(|sgemm| sgemm / own),
            percent_of_fma_peak: rate.zip(peak).map(|(rate, peak)| 100.0 * rate / peak),
            ratio_to_im2col: seconds(Runner::Im2col).map(|im2col| im2col / own),
        }
    }
}

/// Seconds a call in the fastest sample of each runner, `None` for those who do not run. They take
/// turns, so that what disturbs the machine disturbs all of them.
fn race(runners: &[Runner], mut run: impl FnMut(Runner)) -> [Option<f64>; 4] {
    const SAMPLE: f64 = 1e-3;
    const WARM: Duration = Duration::from_millis(10);
    const TURN: Duration = Duration::from_millis(15);
    const RACE: Duration = Duration::from_millis(500);
    const ROUNDS: usize = 3;
    let mut time = |runner: Runner, calls: usize| {
        let began = Instant::now();
        (0..calls).for_each(|_| run(runner));
        began.elapsed().as_secs_f64() / calls as f64
    };
    let mut calls = [0; 4];
    for &runner in runners {
        // The first call fetches memory from the system; the second says how many make a sample.
        time(runner, 1);
        calls[runner as usize] = (SAMPLE / time(runner, 1)).ceil().clamp(1.0, 1e4) as usize;
    }
    let mut best = [None; 4];
    let (began, mut rounds) = (Instant::now(), 0);
    while rounds < ROUNDS || began.elapsed() < RACE {
        for &runner in runners {
            // They bring back to the cache what the others drove out, for which one call need not do: some
            // caches keep what is used again.
            let (turn, best) = (Instant::now(), &mut best[runner as usize]);
            while turn.elapsed() < WARM {
                time(runner, 1);
            }
            loop {
                let now = time(runner, calls[runner as usize]);
                *best = Some(best.map_or(now, |best: f64| best.min(now)));
                if turn.elapsed() >= TURN {
                    break;
                }
            }
        }
        rounds += 1;
    }
    best
}

fn random(shape: impl AsRef<[usize]>) -> Tensor {
    Tensor::randn(shape, 1.0, &mut Rng::seed(0))
}

/// Makes a kernel ready to run.
type Prepare = fn(&ConvGeom) -> Contest;

const KERNELS: [(&str, Prepare); 9] = [
    ("bin_conv_fwd", bin_conv_fwd),
    ("bin_conv_dw", bin_conv_dw),
    ("bin_conv_dx", bin_conv_dx),
    ("conv_fwd", conv_fwd),
    ("conv_dw", conv_dw),
    ("conv_dx", conv_dx),
    ("bin_dense_fwd", bin_dense_fwd),
    ("sgemm", sgemm),
    ("pack", pack),
];

/// The product that a forward pass amounts to.
fn forward(g: &ConvGeom) -> [usize; 3] {
    [g.o, g.taps(), g.n * g.oh * g.ow]
}
/// That of the filters' gradient.
fn back_w(g: &ConvGeom) -> [usize; 3] {
    [g.o, g.n * g.oh * g.ow, g.taps()]
}
/// That of the images' gradient.
fn back_x(g: &ConvGeom) -> [usize; 3] {
    [g.taps(), g.o, g.n * g.oh * g.ow]
}

fn bin_conv_fwd(g: &ConvGeom) -> Contest {
    let (g, x, w, mut y) = (*g, random(g.x()), random(g.filters()), Tensor::zeros(g.y()));
    let (image, filters) = (Image::pack(&g, &x), Filters::pack(&g, &w));
    Contest::conv(forward(&g), move |im2col| match im2col {
        false => bits::conv2d(&g, &image, &filters, Pad::Zero, y.data_mut()),
        true => im2col::forward(&g, &x, &w, y.data_mut()),
    })
}

fn bin_conv_dw(g: &ConvGeom) -> Contest {
    let (g, x, dy, mut dw) = (*g, random(g.x()), random(g.y()), Tensor::zeros(g.filters()));
    let image = Image::pack(&g, &x);
    Contest::conv(back_w(&g), move |im2col| match im2col {
        false => bits::conv2d_dw(&g, &image, Pad::Zero, &dy, dw.data_mut()),
        true => im2col::dw(&g, &x, &dy, dw.data_mut()),
    })
}

fn bin_conv_dx(g: &ConvGeom) -> Contest {
    let (g, w, dy, mut dx) = (*g, random(g.filters()), random(g.y()), Tensor::zeros(g.x()));
    let filters = Filters::pack(&g, &w);
    Contest::conv(back_x(&g), move |im2col| match im2col {
        false => bits::conv2d_dx(&g, &filters, &dy, dx.data_mut()),
        true => im2col::dx(&g, &w, &dy, dx.data_mut()),
    })
}

fn conv_fwd(g: &ConvGeom) -> Contest {
    let (g, x, w, mut y) = (*g, random(g.x()), random(g.filters()), Tensor::zeros(g.y()));
    Contest::conv(forward(&g), move |im2col| match im2col {
        false => conv::conv2d(&g, &x, &w, y.data_mut()),
        true => im2col::forward(&g, &x, &w, y.data_mut()),
    })
}

fn conv_dw(g: &ConvGeom) -> Contest {
    let (g, x, dy, mut dw) = (*g, random(g.x()), random(g.y()), Tensor::zeros(g.filters()));
    Contest::conv(back_w(&g), move |im2col| match im2col {
        false => conv::conv2d_dw(&g, &x, &dy, dw.data_mut()),
        true => im2col::dw(&g, &x, &dy, dw.data_mut()),
    })
}

fn conv_dx(g: &ConvGeom) -> Contest {
    let (g, w, dy, mut dx) = (*g, random(g.filters()), random(g.y()), Tensor::zeros(g.x()));
    Contest::conv(back_x(&g), move |im2col| match im2col {
        false => conv::conv2d_dx(&g, &w, &dy, dx.data_mut()),
        true => im2col::dx(&g, &w, &dy, dx.data_mut()),
    })
}

fn bin_dense_fwd(g: &ConvGeom) -> Contest {
    let (m, k, n) = (g.n, g.c, g.o);
    let (x, w) = (Rows::pack(m, k, &random([m, k])), Rows::pack(n, k, &random([n, k])));
    let mut y = Tensor::zeros([m, n]);
    Contest {
        runners: &[Runner::Kernel, Runner::Sgemm, Runner::Turned],
        work: Box::new(move |_| bits::dense(m, k, n, &x, &w, y.data_mut())),
        product: Some([m, k, n]),
    }
}

/// `matrixmultiply` alone, at the sizes of the forward pass.
fn sgemm(g: &ConvGeom) -> Contest {
    Contest {
        runners: &[Runner::Sgemm, Runner::Turned],
        work: Box::new(|_| ()),
        product: Some(forward(g)),
    }
}

/// A batch of floats to bits, in memory that is fetched for them.
fn pack(g: &ConvGeom) -> Contest {
    let (g, x) = (*g, random(g.x()));
    let work: Box<dyn FnMut(Runner)> = match Shape(g).is_dense() {
        true => Box::new(move |_| drop(black_box(Rows::pack(g.n, g.c, &x)))),
        false => Box::new(move |_| drop(black_box(Image::pack(&g, &x)))),
    };
    Contest { runners: &[Runner::Kernel], work, product: None }
}
