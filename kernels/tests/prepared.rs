//! The promise: a prepared kernel computes to the bit what the kernels of training do one after the
//! other, at every level, for any number of images up to what it was made for, on any number of
//! threads.

use dirnet_kernels::bits::{
    self, Filters, Pad, Prepared, PreparedDense, Rows, Thresholds, Transform,
};
use dirnet_kernels::norm_act::{Activation, NormAct, Numbers};
use dirnet_kernels::{Conv, ConvGeom, PoolGeom, conv, naive_bits, par, pool, simd};

/// Numbers in -1..1 from a seed.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let x = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        (x as f32 + 0.5) / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn at_every_level(f: impl Fn()) {
    for &level in simd::available() {
        simd::with_level(level, &f);
    }
    if simd::available().len() == 1 {
        eprintln!("only the portable level runs here; all others were skipped");
    }
}

fn bits_of(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The signs of `y` as planes, and whether a NaN was among them.
fn planes_of(shape: [usize; 4], y: &[f32]) -> (Vec<u8>, bool) {
    let [n, c, h, w] = shape;
    let mut planes = vec![0xEE; n * c.div_ceil(4) * h * w];
    let nan = bits::pack_planes(shape, 1, y, &mut planes);
    (planes, nan)
}

/// What is checked: transforms a residual to `y` and planes of signs; whether a NaN was among them.
type Run<'a> =
    dyn Fn(&Transform<'_>, Option<&[f32]>, Option<&mut [f32]>, Option<&mut [u8]>) -> bool + 'a;

/// Everything that a transform may give of integers `z`, each as the kernels of training do.
struct Want {
    affine: Vec<(Activation, bool, Vec<f32>)>,
    scaled: Vec<f32>,
    signs: Vec<u8>,
}

struct Case {
    g: ConvGeom,
    scale: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    thresholds: Thresholds,
    residual: Vec<f32>,
}

impl Case {
    fn new(g: ConvGeom, seed: u64) -> Case {
        let numbers = |seed| numbers(g.o, seed);
        let always = f32::NEG_INFINITY;
        let most = g.taps() as f32;
        // Zero and both ends, where all counts or nothing does, between thresholds in the middle.
        let at = (0..g.o)
            .map(|c| [0.0, most, always, 1.5, -most, most + 1.0, -2.0][(c + seed as usize) % 7]);
        let flip: Vec<bool> = (0..g.o).map(|c| c % 3 == 1).collect();
        let mut residual = self::numbers(g.y_len(), seed + 4);
        residual.iter_mut().for_each(|r| *r *= 4.0);
        if seed.is_multiple_of(2) {
            let middle = residual.len() / 2;
            residual[middle] = f32::NAN;
        }
        Case {
            scale: numbers(seed + 1).iter().map(|s| 0.1 * s.abs()).collect(),
            a: numbers(seed + 2),
            b: numbers(seed + 3),
            thresholds: Thresholds::new(&at.collect::<Vec<_>>(), &flip),
            residual,
            g,
        }
    }

    fn want(&self, z: &[i64]) -> Want {
        let g = &self.g;
        let short: Vec<i16> = z.iter().map(|&z| z as i16).collect();
        let zero = vec![0.0; g.o];
        let wide: Vec<f32> = z.iter().map(|&z| z as f32).collect();
        let area = g.oh * g.ow;
        let channel = |i: usize| i / area % g.o;
        let product: Vec<f32> =
            wide.iter().enumerate().map(|(i, z)| z * self.scale[channel(i)]).collect();
        let norm_act = |act, residual: Option<&[f32]>| {
            let x = match g.taps() <= i16::MAX as usize {
                true => Numbers::Integers { z: &short, scale: &self.scale, sums: None },
                false => Numbers::Floats(&product),
            };
            let (size, scale, shift) = (g.y(), &self.a, &self.b);
            let job = NormAct { size, x, mean: &zero, scale, shift, act };
            let mut y = vec![f32::NAN; g.y_len()];
            job.forward(residual, Some(&mut y), false, false);
            y
        };
        let mut affine = Vec::new();
        for act in [Activation::Identity, Activation::Relu, Activation::Hardtanh] {
            affine.push((act, false, norm_act(act, None)));
            affine.push((act, true, norm_act(act, Some(&self.residual))));
        }
        let plus = |(i, z): (usize, &f32)| {
            if self.thresholds.plus(channel(i), *z) { 1.0 } else { -1.0 }
        };
        let signs: Vec<f32> = wide.iter().enumerate().map(plus).collect();
        Want { affine, signs: planes_of(g.y(), &signs).0, scaled: product }
    }

    /// Holds what `run` does to what is wanted, of the first `n` images.
    fn check(&self, want: &Want, n: usize, run: &Run<'_>) {
        let g = &self.g;
        let what = format!("{n} images of {g:?} at {}", simd::name());
        let shape = [n, g.o, g.oh, g.ow];
        let len: usize = shape.iter().product();
        let sizes = [len, n * g.o.div_ceil(4) * g.oh * g.ow];
        let fresh = || (vec![f32::NAN; sizes[0]], vec![0xEE; sizes[1]]);
        for (act, add, want) in &want.affine {
            let what = format!("affine, {act:?}, residual {add}, {what}");
            let Case { scale, a, b, .. } = self;
            let then = Transform::Affine { scale, a, b, act: *act };
            let residual = add.then_some(&self.residual[..len]);
            let (want, (planes, odd)) = (&want[..len], planes_of(shape, &want[..len]));
            let (mut y, mut signs) = fresh();
            let nan = run(&then, residual, Some(&mut y), Some(&mut signs));
            assert_eq!(bits_of(&y), bits_of(want), "{what}");
            assert_eq!((&signs, nan), (&planes, odd), "{what}");
            let (mut y, mut signs) = fresh();
            run(&then, residual, Some(&mut y), None);
            assert_eq!(bits_of(&y), bits_of(want), "{what}: y alone");
            run(&then, residual, None, Some(&mut signs));
            assert_eq!(signs, planes, "{what}: signs alone");
        }
        let (mut y, mut signs) = fresh();
        let then = Transform::Scale { scale: &self.scale };
        run(&then, None, Some(&mut y), Some(&mut signs));
        assert_eq!(bits_of(&y), bits_of(&want.scaled[..len]), "scale, {what}");
        assert_eq!(signs, planes_of(shape, &y).0, "scale, {what}");
        let (_, mut signs) = fresh();
        run(&Transform::Threshold(&self.thresholds), None, None, Some(&mut signs));
        assert_eq!(signs, want.signs[..sizes[1]], "threshold, {what}");
    }
}

fn check_conv(g: &ConvGeom, seed: u64) {
    check_conv_of(g, seed, &numbers(g.x_len(), seed), &numbers(g.w_len(), seed + 9));
}

fn check_conv_of(g: &ConvGeom, seed: u64, x: &[f32], w: &[f32]) {
    let signs = |x: &[f32]| x.iter().map(|&x| bits::sign(x)).collect::<Vec<_>>();
    let case = Case::new(*g, seed);
    let pads = [Pad::Zero, Pad::Minus, Pad::Plus];
    for pad in &pads[..if g.how.pad == 0 { 1 } else { 3 }] {
        let want = case.want(&naive_bits::conv2d(g, &signs(x), &signs(w), *pad));
        at_every_level(|| {
            let prepared = Prepared::new(g, *pad, &Filters::pack(g, w));
            let mut planes = vec![0xEE; prepared.x_len(g.n)];
            bits::pack_planes(g.x(), g.how.groups, x, &mut planes);
            for n in [g.n, 1, g.n.div_ceil(2)] {
                case.check(&want, n, &|then, residual, y, signs| {
                    prepared.run(n, &planes[..prepared.x_len(n)], then, residual, y, signs)
                });
            }
        });
    }
}

#[test]
fn convolutions_of_awkward_sizes() {
    let channels = [1, 3, 4, 5, 7, 16, 33, 66];
    let images = [(1, 1), (1, 9), (5, 3), (8, 8), (6, 7)];
    let (mut seed, mut checked) = (1, 0);
    for (ci, &c) in channels.iter().enumerate() {
        for k in [1, 2, 3, 5] {
            for stride in 1..=3 {
                for dilation in 1..=2 {
                    for groups in [1, 2, c] {
                        seed += 1;
                        let ((h, w), pad) = (images[seed as usize % 5], seed as usize % 4);
                        let o: usize = channels[(ci * 5 + seed as usize / 4) % 8];
                        let o = if groups == 1 { o } else { o.div_ceil(groups) * groups };
                        let n = [1, 3, 5][seed as usize % 3];
                        let how = Conv { stride, pad, dilation, groups };
                        if c % groups != 0 || (groups > 1 && o > 66) {
                            continue;
                        }
                        let shape = [o, c / groups, k, k];
                        let Ok(g) = ConvGeom::try_new(&[n, c, h, w], &shape, how) else {
                            continue;
                        };
                        if g.macs() > 400_000 {
                            continue;
                        }
                        check_conv(&g, seed);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 300, "only {checked} convolutions fitted");
}

#[test]
fn convolutions_of_usual_sizes() {
    for (n, c, o, size, k, stride) in [
        (2, 16, 16, 32, 3, 1),
        (1, 16, 32, 32, 3, 2),
        (3, 32, 130, 14, 3, 1),
        (9, 24, 70, 7, 3, 1),
        (20, 16, 20, 4, 3, 1),
        (33, 4, 16, 2, 3, 1),
        (1, 70, 130, 14, 1, 2),
    ] {
        let how = Conv::same(k).stride(stride);
        let g = ConvGeom::new(&[n, c, size, size], &[o, c, k, k], how);
        for threads in [1, 2, 3] {
            par::with_threads(threads, || check_conv(&g, 12)).expect("threads");
        }
    }
    // Each channel for itself, and a few, where four of them share a plane of signs.
    for (c, o, groups) in [(16, 16, 16), (9, 18, 9), (12, 6, 2), (30, 10, 10)] {
        let how = Conv::same(3).groups(groups);
        let g = ConvGeom::new(&[2, c, 9, 9], &[o, c / groups, 3, 3], how);
        for threads in [1, 2, 3] {
            par::with_threads(threads, || check_conv(&g, 13)).expect("threads");
        }
    }
}

/// Where all signs differ, or none, every counter is at its limit; random signs never get there.
#[test]
fn counters_hold_the_extremes() {
    for (c, o, size, k) in [(28, 3, 6, 3), (512, 5, 7, 3), (1030, 4, 3, 3), (4200, 2, 8, 4)] {
        let g = ConvGeom::new(&[1, c, size, size], &[o, c, k, k], Conv::same(k));
        let plus = |i: usize| (i / g.taps()).is_multiple_of(2);
        let w: Vec<f32> = (0..g.w_len()).map(|i| if plus(i) { 1.0 } else { -1.0 }).collect();
        for x in [1.0, -1.0] {
            check_conv_of(&g, 1, &vec![x; g.x_len()], &w);
        }
    }
}

#[test]
fn thresholds_hold_at_their_ends() {
    let all = i16::MIN..=i16::MAX;
    let z: Vec<f32> = all.map(f32::from).collect();
    let limits = [-40_000.0, -32_768.0, -32_767.5, 0.0, 0.25, 32_767.0, 32_767.5, 40_000.0];
    let infinite = [f32::NEG_INFINITY, f32::INFINITY];
    for (i, at) in limits.into_iter().chain(infinite).enumerate() {
        for flip in [false, true] {
            let signs = Thresholds::new(&[at], &[flip]);
            for z in [z[0], -32_767.0, -1.0, 0.0, 1.0, 32_766.0, 32_767.0] {
                assert_eq!(signs.plus(0, z), (z >= at) != flip, "{i}: {z} at {at}");
            }
        }
    }
    // Sums of one tap are -1 and +1, against each limit.
    let g = ConvGeom::new(&[1, 1, 1, 40], &[10, 1, 1, 1], Conv::valid());
    let at: Vec<f32> = limits.into_iter().chain(infinite).collect();
    let flip: Vec<bool> = (0..10).map(|c| c % 2 == 0).collect();
    let signs = Thresholds::new(&at, &flip);
    let x = numbers(40, 3);
    let want: Vec<f32> = (0..400)
        .map(|i| if signs.plus(i / 40, bits::sign(x[i % 40])) { 1.0 } else { -1.0 })
        .collect();
    let want = planes_of(g.y(), &want).0;
    at_every_level(|| {
        let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &[1.0; 10]));
        let (mut planes, mut got) = (vec![0; 40], vec![0xEE; 120]);
        bits::pack_planes(g.x(), 1, &x, &mut planes);
        prepared.run(1, &planes, &Transform::Threshold(&signs), None, None, Some(&mut got));
        assert_eq!(got, want);
    });
}

#[test]
fn planes_hold_four_channels_a_byte() {
    for (c, groups) in [(1, 1), (6, 1), (6, 3), (10, 2), (8, 8)] {
        let (n, area, of_group): (usize, usize, usize) = (3, 35, c / groups);
        let quads = of_group.div_ceil(4);
        let x = numbers(n * c * area, 5);
        let mut want = vec![0; n * groups * quads * area];
        for (i, &x) in x.iter().enumerate() {
            let (image, channel, pixel) = (i / area / c, i / area % c, i % area);
            let (group, channel) = (channel / of_group, channel % of_group);
            let plane = (image * groups + group) * quads + channel / 4;
            want[plane * area + pixel] |= u8::from(x >= 0.0) << (channel % 4);
        }
        at_every_level(|| {
            let mut planes = vec![0xEE; want.len()];
            assert!(!bits::pack_planes([n, c, 5, 7], groups, &x, &mut planes));
            assert_eq!(planes, want);
        });
    }
}

#[test]
fn floats_are_transformed_as_sums_are() {
    for (n, c, size) in [(1, 1, 1), (3, 5, 1), (2, 7, 3), (1, 66, 6), (2, 4, 9), (1, 130, 20)] {
        // Sums of one tap of many channels: any integers will do.
        let g = ConvGeom::new(&[n, 9, size, size], &[c, 9, 1, 1], Conv::valid());
        let z: Vec<i64> = numbers(g.y_len(), 5).iter().map(|x| (9.0 * x).round() as i64).collect();
        let x: Vec<f32> = z.iter().map(|&z| z as f32).collect();
        let case = Case::new(g, 2 * size as u64 + 1);
        let want = case.want(&z);
        at_every_level(|| {
            for threads in [1, 2] {
                let check = || {
                    case.check(&want, n, &|then, residual, y, signs| {
                        bits::transform(g.y(), &x, then, residual, y, signs)
                    });
                };
                let level = simd::level();
                par::with_threads(threads, || simd::with_level(level, check)).expect("threads");
            }
        });
    }
    for x in [[1.0, f32::NAN], [f32::NAN, -1.0], [2.0, 1.0]] {
        let odd = x.iter().any(|x| x.is_nan());
        at_every_level(|| {
            for then in [
                Transform::Scale { scale: &[0.5] },
                Transform::Threshold(&Thresholds::new(&[0.0], &[false])),
            ] {
                let nan = bits::transform([1, 1, 1, 2], &x, &then, None, None, Some(&mut [0; 2]));
                assert_eq!(nan, odd, "{x:?}, {then:?}");
            }
        });
    }
}

#[test]
fn the_maximum_of_signs_is_the_sign_of_the_maximum() {
    for (n, c, h, w, size, stride, pad) in [
        (1, 1, 2, 2, 2, 2, 0),
        (2, 5, 7, 9, 2, 2, 0),
        (2, 6, 8, 70, 2, 2, 0),
        (1, 4, 9, 8, 3, 2, 1),
        (3, 9, 5, 6, 3, 1, 1),
        (1, 3, 10, 10, 5, 3, 2),
        (1, 8, 4, 4, 4, 1, 0),
    ] {
        let g = PoolGeom::new(&[n, c, h, w], size, stride, pad);
        let x: Vec<f32> = numbers(g.x_len(), 5).iter().map(|x| x - 0.5).collect();
        let (mut y, mut winner) = (vec![0.0; g.y_len()], vec![0; g.y_len()]);
        pool::max_pool2d(&g, &x, &mut y, &mut winner);
        let want = planes_of(g.y(), &y).0;
        assert!(want.len() < 8 || want.iter().any(|byte| *byte != want[0]), "{g:?}");
        at_every_level(|| {
            let (planes, mut got) = (planes_of(g.x(), &x).0, vec![0xEE; want.len()]);
            bits::max_pool(&g, &planes, &mut got);
            assert_eq!(got, want, "{g:?}");
        });
    }
}

#[test]
fn convolutions_of_floats() {
    for (n, c, o, size, k, stride, pad, groups) in [
        (1, 3, 8, 30, 7, 2, 3, 1),
        (4, 3, 16, 32, 3, 1, 1, 1),
        (5, 20, 18, 7, 3, 1, 1, 1),
        (3, 64, 70, 14, 1, 2, 0, 1),
        (2, 33, 40, 9, 1, 1, 0, 1),
        (2, 256, 64, 5, 1, 1, 0, 1),
        (6, 16, 16, 12, 3, 2, 1, 16),
        (3, 8, 16, 40, 5, 1, 2, 8),
        (3, 12, 9, 8, 3, 1, 0, 3),
        (1, 2, 6, 90, 3, 1, 1, 1),
        (9, 5, 7, 4, 3, 3, 2, 1),
        (2, 1, 1, 1, 1, 1, 0, 1),
    ] {
        let how = Conv { stride, pad, dilation: 1, groups };
        let g = ConvGeom::new(&[n, c, size, size], &[o, c / groups, k, k], how);
        let (x, w) = (numbers(g.x_len(), 3), numbers(g.w_len(), 4));
        at_every_level(|| {
            let prepared = conv::Prepared::new(&g, &w);
            assert!(prepared.bytes() >= 4 * g.w_len(), "{g:?}: it holds the filters");
            for n in 1..=n {
                let g = ConvGeom { n, ..g };
                let (x, mut want) = (&x[..g.x_len()], vec![f32::NAN; g.y_len()]);
                conv::conv2d(&g, x, &w, &mut want);
                for threads in [1, 2, 3] {
                    let mut y = vec![f32::NAN; g.y_len()];
                    let level = simd::level();
                    let run = || simd::with_level(level, || prepared.run(n, x, &mut y));
                    par::with_threads(threads, run).expect("threads");
                    assert_eq!(bits_of(&y), bits_of(&want), "{g:?}, {threads} threads");
                }
            }
        });
    }
}

#[test]
fn a_maximum_of_transformed_floats() {
    for (n, c, h, w, size, stride, pad) in [
        (1, 3, 2, 2, 2, 2, 0),
        (2, 5, 7, 9, 2, 2, 0),
        (1, 4, 29, 40, 3, 2, 1),
        (3, 2, 5, 6, 3, 1, 1),
        (1, 3, 10, 10, 5, 3, 2),
        (1, 2, 4, 4, 4, 1, 0),
        (1, 2, 1, 1, 3, 2, 1),
        (1, 2, 3, 1, 2, 3, 1),
        (1, 2, 1, 2, 15, 1, 7),
    ] {
        let g = PoolGeom::new(&[n, c, h, w], size, stride, pad);
        let mut x = numbers(g.x_len(), 7);
        // Equal numbers of both signs, and one that beats all.
        x.iter_mut().step_by(3).for_each(|x| *x = -0.0);
        x.iter_mut().skip(1).step_by(3).for_each(|x| *x = 0.0);
        let last = x.len() - 1;
        x[last / 2] = f32::NAN;
        let [scale, a, b] = [1, 2, 3].map(|seed| numbers(c, seed));
        let act = Activation::Hardtanh;
        let affine = Transform::Affine { scale: &scale, a: &a, b: &b, act };
        let scaled = Transform::Scale { scale: &a };
        for then in [None, Some(&affine), Some(&scaled)] {
            let mut made = x.clone();
            if let Some(then) = then {
                bits::transform(g.x(), &x, then, None, Some(&mut made), None);
            }
            let (mut want, mut winner) = (vec![0.0; g.y_len()], vec![0; g.y_len()]);
            pool::max_pool2d(&g, &made, &mut want, &mut winner);
            at_every_level(|| {
                let mut y = vec![f32::INFINITY; g.y_len()];
                pool::max_pool2d_of(&g, &x, then, &mut y);
                assert_eq!(bits_of(&y), bits_of(&want), "{g:?}, {then:?}");
            });
        }
    }
}

/// What a dense layer's words say, as the planes of single pixels do.
fn planes_of_words(n: usize, o: usize, words: &[u64]) -> Vec<u8> {
    let mut planes = vec![0; n * o.div_ceil(4)];
    for i in 0..n {
        let row = &words[i * o.div_ceil(64)..][..o.div_ceil(64)];
        for j in 0..64 * row.len() {
            let bit = row[j / 64] >> (j % 64) & 1;
            assert!(j < o || bit == 0, "what lies beyond a row is clear");
            if j < o {
                planes[i * o.div_ceil(4) + j / 4] |= (bit as u8) << (j % 4);
            }
        }
    }
    planes
}

#[test]
fn dense_layers() {
    for (n, k, o) in [
        (1, 1, 1),
        (3, 5, 9),
        (1, 64, 10),
        (2, 700, 64),
        (1, 513, 130),
        (40, 130, 66),
        (67, 300, 150),
        (25, 7, 24),
        (1, 40_000, 3),
    ] {
        let (x, w) = (numbers(n * k, 3), numbers(o * k, 4));
        let signs = |x: &[f32]| x.iter().map(|&x| bits::sign(x)).collect::<Vec<_>>();
        // A dense layer is a convolution of single pixels.
        let g = ConvGeom::new(&[n, k, 1, 1], &[o, k, 1, 1], Conv::valid());
        let case = Case::new(g, n as u64 + 1);
        let want = case.want(&naive_bits::dense(n, k, o, &signs(&x), &signs(&w)));
        at_every_level(|| {
            let dense = PreparedDense::new(&Rows::pack(o, k, &w));
            assert_eq!(dense.size(), [o, k]);
            let bits = 8 * o * k.div_ceil(64);
            assert!((bits..bits + k + 11 * o + 512).contains(&dense.bytes()), "{}", dense.bytes());
            let mut words = vec![!0; n * k.div_ceil(64)];
            assert!(!bits::pack_rows(k, &x, &mut words));
            for threads in [1, 2] {
                let check = || {
                    case.check(&want, n, &|then, residual, y, signs| {
                        let Some(signs) = signs else {
                            return dense.run(n, &words, then, residual, y, None);
                        };
                        let mut set = vec![!0; n * o.div_ceil(64)];
                        let nan = dense.run(n, &words, then, residual, y, Some(&mut set));
                        signs.copy_from_slice(&planes_of_words(n, o, &set));
                        nan
                    });
                };
                let level = simd::level();
                par::with_threads(threads, || simd::with_level(level, check)).expect("threads");
            }
        });
    }
}

#[test]
fn a_weight_takes_little_more_than_a_bit() {
    let g = ConvGeom::new(&[1, 512, 7, 7], &[512, 512, 3, 3], Conv::same(3));
    let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &numbers(g.w_len(), 1)));
    let bits = 8.0 * prepared.bytes() as f64 / g.w_len() as f64;
    assert!((1.0..1.1).contains(&bits), "{bits} bits a weight");
}

#[test]
#[should_panic(expected = "2 images where 1 are the most")]
fn more_images_are_refused() {
    let g = ConvGeom::new(&[1, 4, 5, 5], &[2, 4, 3, 3], Conv::same(3));
    let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &[1.0; 72]));
    let then = Transform::Scale { scale: &[1.0; 2] };
    prepared.run(2, &[0; 50], &then, None, Some(&mut [0.0; 100]), None);
}

#[test]
#[should_panic(expected = "a threshold gives signs only")]
fn floats_of_a_threshold_are_refused() {
    let g = ConvGeom::new(&[1, 4, 5, 5], &[2, 4, 3, 3], Conv::same(3));
    let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &[1.0; 72]));
    let then = Thresholds::new(&[0.0; 2], &[false; 2]);
    prepared.run(1, &[0; 25], &Transform::Threshold(&then), None, Some(&mut [0.0; 50]), None);
}
