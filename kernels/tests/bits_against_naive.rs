//! The promise: at every level of the machine the bit kernels equal their definitions. Sums of
//! +-1 are equal to the bit. Gradients are sums of `terms` floats below 1 with random signs: partial
//! sums grow like √terms, each rounds by 2^-25 of itself at most, and those errors, random too, grow
//! like √terms again; `terms · 2^-23` leaves them several times their usual size, and is far below
//! what one forgotten term would make.

use dirnet_kernels::bits::{self, Filters, Image, Mask, Pad, Rows, sign};
use dirnet_kernels::{Conv, ConvGeom, naive_bits, par, simd};

/// Numbers in -1..1 from a seed; a few of them zeros of both signs and denormals.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40
    };
    let number = |x: u64| match x % 64 {
        0 => 0.0,
        1 => -0.0,
        2 => -1e-40,
        3 => 1e-40,
        _ => (x as f32 + 0.5) / (1u32 << 23) as f32 - 1.0,
    };
    (0..len).map(|_| number(next())).collect()
}

fn signs(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| sign(x)).collect()
}

/// Outputs begin as NaN, which no kernel may add to or leave behind.
fn filled(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut y = vec![f32::NAN; len];
    f(&mut y);
    y
}

fn at_every_level(f: impl Fn()) {
    for &level in simd::available() {
        simd::with_level(level, &f);
    }
    if simd::available().len() == 1 {
        eprintln!("only the portable level runs here; all others were skipped");
    }
}

#[track_caller]
fn equal(what: &str, got: &[f32], want: &[i64]) {
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(got == want as f32, "{what} at {}: {i} is {got}, not {want}", simd::name());
    }
}

/// `terms`: how many floats, each below 1 in size, a sum has at most.
#[track_caller]
fn close(what: &str, got: &[f32], want: &[f64], terms: usize) {
    let bound = terms.max(8) as f64 * 2f64.powi(-23);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(got) - want).abs();
        assert!(off <= bound, "{what} at {}: {i} is {got}, not {want} +- {bound}", simd::name());
    }
}

fn check_conv(g: &ConvGeom, seed: u64) {
    let (x, w, dy) =
        (numbers(g.x_len(), seed), numbers(g.w_len(), seed + 1), numbers(g.y_len(), seed + 2));
    let (sx, sw) = (signs(&x), signs(&w));
    let want_dx = naive_bits::conv2d_dx(g, &sw, &dy);
    let pads = [Pad::Zero, Pad::Minus, Pad::Plus];
    let pads = if g.how.pad == 0 { &pads[..1] } else { &pads };
    let want = pads.iter().map(|&pad| {
        (pad, naive_bits::conv2d(g, &sx, &sw, pad), naive_bits::conv2d_dw(g, &sx, pad, &dy))
    });
    let want: Vec<_> = want.collect();
    at_every_level(|| {
        let (image, filters) = (Image::pack(g, &x), Filters::pack(g, &w));
        assert_eq!(filled(x.len(), |y| image.unpack(y)), sx, "{g:?}: image");
        assert_eq!(filled(w.len(), |y| filters.unpack(y)), sw, "{g:?}: filters");
        assert!(!image.has_nan());
        for (pad, y, dw) in &want {
            let what = format!("{g:?}, {pad:?}");
            let got = filled(g.y_len(), |y| bits::conv2d(g, &image, &filters, *pad, y));
            equal(&format!("conv2d {what}"), &got, y);
            let mut short = vec![i16::MIN; g.y_len()];
            bits::conv2d_i16(g, &image, &filters, *pad, &mut short);
            let got: Vec<f32> = short.iter().copied().map(f32::from).collect();
            equal(&format!("conv2d_i16 {what}"), &got, y);
            let mut again = vec![i16::MIN; g.y_len()];
            let moments = bits::conv2d_i16_moments(g, &image, &filters, *pad, &mut again);
            let mut want_moments = vec![[0, 0]; g.o];
            for (i, y) in y.iter().copied().enumerate() {
                let [sum, squares] = &mut want_moments[i / (g.oh * g.ow) % g.o];
                (*sum, *squares) = (*sum + y, *squares + y * y);
            }
            assert!(again == short && moments == want_moments, "conv2d_i16_moments {what}");
            let got = filled(g.w_len(), |dw| bits::conv2d_dw(g, &image, *pad, &dy, dw));
            close(&format!("conv2d_dw {what}"), &got, dw, g.n * g.oh * g.ow);
        }
        let got = filled(g.x_len(), |dx| bits::conv2d_dx(g, &filters, &dy, dx));
        close(&format!("conv2d_dx {g:?}"), &got, &want_dx, g.group_o() * g.kh * g.kw);
        // Scaled by powers of two nothing is rounded otherwise; what follows sees each element once.
        let scale: Vec<f32> = (0..g.o).map(|o| [0.5, 1.0, 4.0][o % 3]).collect();
        let area = g.oh * g.ow;
        let scaled: Vec<f32> =
            dy.iter().enumerate().map(|(i, dy)| dy * scale[i / area % g.o]).collect();
        let want = filled(g.x_len(), |dx| bits::conv2d_dx(g, &filters, &scaled, dx));
        let want: Vec<f32> = want.iter().enumerate().map(|(i, dx)| dx + i as f32).collect();
        let got = filled(g.x_len(), |dx| {
            bits::scaled_conv2d_dx(g, &filters, &scale, &dy, dx, |first, dx| {
                dx.iter_mut().enumerate().for_each(|(i, dx)| *dx += (first + i) as f32);
            });
        });
        assert_eq!(got, want, "scaled_conv2d_dx {g:?}");
        // Both at once are the two of them, to the bit.
        let pad = *pads.last().expect("some");
        let want_dw = filled(g.w_len(), |dw| bits::conv2d_dw(g, &image, pad, &dy, dw));
        let (mut dx, mut dw) = (vec![f32::NAN; g.x_len()], vec![f32::NAN; g.w_len()]);
        bits::conv2d_backward(
            g,
            &image,
            &filters,
            &scale,
            pad,
            &dy,
            &mut dx,
            &mut dw,
            |first, dx| {
                dx.iter_mut().enumerate().for_each(|(i, dx)| *dx += (first + i) as f32);
            },
        );
        assert_eq!((dx, dw), (want, want_dw), "conv2d_backward {g:?}");
    });
}

/// Each pair of neighbouring choices meets somewhere in the grid; the whole product would be
/// thousands of convolutions.
#[test]
fn convolutions_of_awkward_sizes() {
    let channels = [1, 3, 4, 5, 7, 16, 33, 64, 130];
    let images = [(1, 1), (1, 9), (5, 3), (8, 8)];
    let mut seed = 1;
    let mut checked = 0;
    for (ci, &c) in channels.iter().enumerate() {
        for k in [1, 2, 3, 5, 7] {
            for stride in 1..=3 {
                for pad in 0..=3 {
                    for dilation in 1..=2 {
                        for groups in [1, 2, c] {
                            seed += 1;
                            let (h, w) = images[seed as usize % 4];
                            let o: usize = channels[(ci * 5 + seed as usize / 4) % 9];
                            let o = if groups == 1 { o } else { o.div_ceil(groups) * groups };
                            // The largest are few: naive loops take their time.
                            let n = if seed % 3 == 0 { 3 } else { 1 };
                            let how = Conv { stride, pad, dilation, groups };
                            if c % groups != 0 || (groups > 1 && o > 66) {
                                continue;
                            }
                            let shape = [o, c / groups, k, k];
                            let Ok(g) = ConvGeom::try_new(&[n, c, h, w], &shape, how) else {
                                continue;
                            };
                            if g.macs() > 1_000_000 {
                                continue;
                            }
                            check_conv(&g, seed);
                            checked += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(checked > 900, "only {checked} convolutions fitted");
}

#[test]
fn convolutions_of_usual_sizes() {
    for (n, c, o, size, stride) in
        [(3, 16, 16, 32, 1), (2, 16, 32, 32, 2), (3, 32, 32, 16, 1), (5, 64, 64, 8, 1)]
    {
        check_conv(
            &ConvGeom::new(&[n, c, size, size], &[o, c, 3, 3], Conv::same(3).stride(stride)),
            7,
        );
    }
    // On one thread small images are worked on together.
    let together = || {
        for (n, c, o, size) in [(9, 8, 6, 7), (20, 16, 20, 4), (3, 5, 4, 14), (33, 4, 16, 2)] {
            check_conv(&ConvGeom::new(&[n, c, size, size], &[o, c, 3, 3], Conv::same(3)), 12);
        }
    };
    par::with_threads(1, together).expect("a thread");
    check_conv(&ConvGeom::new(&[1, 128, 14, 14], &[66, 128, 3, 3], Conv::same(3)), 8);
    check_conv(&ConvGeom::new(&[1, 256, 7, 7], &[64, 256, 3, 3], Conv::same(3)), 9);
    check_conv(&ConvGeom::new(&[2, 64, 13, 11], &[128, 64, 1, 1], Conv::valid()), 10);
    check_conv(&ConvGeom::new(&[1, 8, 9, 17], &[6, 8, 2, 5], Conv::valid().pad(1)), 11);
    // Rows end to end, with and without room between them, for an odd number of units too.
    for (n, size, k, stride) in
        [(1, 14, 1, 2), (3, 9, 1, 2), (2, 7, 1, 3), (1, 4, 3, 1), (3, 2, 3, 1), (2, 1, 3, 1)]
    {
        let how = Conv::same(k).stride(stride);
        check_conv(&ConvGeom::new(&[n, 70, size, size], &[130, 70, k, k], how), 13);
    }
}

/// Where all signs differ, or none, every counter is at its limit; random signs never get there.
#[test]
fn counters_hold_the_extremes() {
    for (c, o, size, k) in
        [(28, 3, 6, 3), (512, 5, 7, 3), (1030, 4, 3, 3), (1030, 2, 9, 9), (4200, 1, 8, 4)]
    {
        let g = ConvGeom::new(&[1, c, size, size], &[o, c, k, k], Conv::same(k));
        let w: Vec<f32> = (0..g.w_len())
            .map(|i| if (i / g.taps()).is_multiple_of(2) { 1.0 } else { -1.0 })
            .collect();
        for x in [1.0, -1.0] {
            let x = vec![x; g.x_len()];
            for pad in [Pad::Zero, Pad::Minus, Pad::Plus] {
                let want = naive_bits::conv2d(&g, &x, &w, pad);
                at_every_level(|| {
                    let (x, w) = (Image::pack(&g, &x), Filters::pack(&g, &w));
                    let y = filled(g.y_len(), |y| bits::conv2d(&g, &x, &w, pad, y));
                    equal(&format!("{g:?}, {pad:?}"), &y, &want);
                });
            }
        }
    }
    for k in [63, 64, 252, 255, 256, 1030, 40_000, 70_001] {
        let (x, w) = (vec![1.0; 3 * k], [vec![1.0; k], vec![-1.0; 2 * k]].concat());
        at_every_level(|| {
            let (x, w) = (Rows::pack(3, k, &x), Rows::pack(3, k, &w));
            let y = filled(9, |y| bits::dense(3, k, 3, &x, &w, y));
            let (plus, minus) = (k as f32, -(k as f32));
            assert_eq!(y, [plus, minus, minus].repeat(3), "dense of {k}");
        });
    }
}

#[test]
fn matrices() {
    for (i, (m, k, n)) in [
        (1, 1, 1),
        (3, 5, 2),
        (1, 64, 10),
        (7, 65, 9),
        (70, 130, 66),
        (2, 700, 33),
        (128, 576, 10),
        (33, 257, 140),
    ]
    .into_iter()
    .enumerate()
    {
        let (x, w) = (numbers(m * k, i as u64), numbers(n * k, i as u64 + 50));
        let (dy, what) = (numbers(m * n, i as u64 + 90), format!("{m}, {k}, {n}"));
        let (sx, sw) = (signs(&x), signs(&w));
        at_every_level(|| {
            let (px, pw) = (Rows::pack(m, k, &x), Rows::pack(n, k, &w));
            assert_eq!(filled(m * k, |y| px.unpack(y)), sx, "{what}");
            let y = filled(m * n, |y| bits::dense(m, k, n, &px, &pw, y));
            equal(&format!("dense {what}"), &y, &naive_bits::dense(m, k, n, &sx, &sw));
            let dx = filled(m * k, |dx| bits::dense_dx(m, k, n, &pw, &dy, dx));
            let want = naive_bits::dense_dx(m, k, n, &sw, &dy);
            close(&format!("dense_dx {what}"), &dx, &want, n);
            let dw = filled(n * k, |dw| bits::dense_dw(m, k, n, &px, &dy, dw));
            let want = naive_bits::dense_dw(m, k, n, &sx, &dy);
            close(&format!("dense_dw {what}"), &dw, &want, m);
        });
    }
}

#[test]
fn zeros_are_plus_and_nan_is_told() {
    let odd = [0.0, -0.0, f32::NAN, -f32::NAN, 1e-45, -1e-45, f32::INFINITY, f32::NEG_INFINITY];
    let want = [1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0];
    assert_eq!(odd.map(sign), want);
    for len in [8, 40, 41, 72, 200] {
        let x: Vec<f32> = odd.iter().copied().cycle().take(len).collect();
        let want: Vec<f32> = want.iter().copied().cycle().take(len).collect();
        let g = ConvGeom::new(&[1, 1, 1, len], &[1, 1, 1, 1], Conv::valid());
        at_every_level(|| {
            let (image, rows) = (Image::pack(&g, &x), Rows::pack(1, len, &x));
            assert!(image.has_nan() && rows.has_nan());
            assert_eq!(filled(len, |y| image.unpack(y)), want);
            assert_eq!(filled(len, |y| rows.unpack(y)), want);
            // One NaN is found wherever it stands.
            for i in 0..len {
                let mut x = vec![-1.0; len];
                assert!(!Image::pack(&g, &x).has_nan() && !Rows::pack(1, len, &x).has_nan());
                x[i] = f32::NAN;
                assert!(Image::pack(&g, &x).has_nan() && Rows::pack(1, len, &x).has_nan(), "{i}");
            }
        });
    }
}

#[test]
fn masks_select() {
    for len in [0, 1, 63, 64, 65, 1000, 70_000] {
        let (mut x, mut dy) = (numbers(len, 3), numbers(len, 4));
        if len > 2 {
            (x[0], x[1], x[2]) = (f32::NAN, 0.5, -0.5);
            dy[0] = f32::NAN;
        }
        let want: Vec<f32> =
            x.iter().zip(&dy).map(|(x, dy)| if x.abs() <= 0.5 { 1.25 * dy } else { 0.0 }).collect();
        at_every_level(|| {
            for mask in [Mask::within(&x, 0.5), Mask::of(&x, |x| (-0.5..=0.5).contains(&x))] {
                assert_eq!((mask.len(), mask.is_empty()), (len, len == 0));
                assert_eq!(filled(len, |dx| bits::masked(&mask, 1.25, &dy, dx)), want);
                // In pieces that begin anywhere.
                for piece in [len.max(1), 64, 27, 1000] {
                    let mut dx = dy.clone();
                    for (i, dx) in dx.chunks_mut(piece).enumerate() {
                        bits::masked_in_place(&mask, i * piece, 1.25, dx);
                    }
                    assert_eq!(dx, want, "{len} in pieces of {piece}");
                }
            }
        });
    }
}

#[test]
fn threads_change_no_bit() {
    for (n, c, o, size, groups) in [(1, 64, 70, 14, 1), (37, 12, 18, 8, 1), (5, 16, 16, 9, 16)] {
        let how = Conv::same(3).groups(groups);
        let g = ConvGeom::new(&[n, c, size, size], &[o, c / groups, 3, 3], how);
        let (x, w, dy) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.y_len(), 3));
        let run = |threads| {
            par::with_threads(threads, || {
                let (x, w) = (Image::pack(&g, &x), Filters::pack(&g, &w));
                let y = filled(g.y_len(), |y| bits::conv2d(&g, &x, &w, Pad::Zero, y));
                let dx = filled(g.x_len(), |dx| bits::conv2d_dx(&g, &w, &dy, dx));
                let dw = filled(g.w_len(), |dw| bits::conv2d_dw(&g, &x, Pad::Zero, &dy, dw));
                [y, dx, dw].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
            .expect("threads")
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(3));
    }
    let (m, k, n) = (130, 600, 140);
    let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
    let run = |threads| {
        par::with_threads(threads, || {
            let (x, w) = (Rows::pack(m, k, &x), Rows::pack(n, k, &w));
            let dx = filled(m * k, |dx| bits::dense_dx(m, k, n, &w, &dy, dx));
            let dw = filled(n * k, |dw| bits::dense_dw(m, k, n, &x, &dy, dw));
            [dx, dw].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
        .expect("threads")
    };
    assert_eq!(run(1), run(2));
}

#[test]
#[should_panic(expected = "image packed for another shape")]
fn another_geometry_is_refused() {
    let g = ConvGeom::new(&[1, 4, 5, 5], &[2, 4, 3, 3], Conv::same(3));
    let other = ConvGeom::new(&[1, 4, 5, 6], &[2, 4, 3, 3], Conv::same(3));
    let (x, w) = (Image::pack(&other, &[1.0; 120]), Filters::pack(&g, &[1.0; 72]));
    bits::conv2d(&g, &x, &w, Pad::Zero, &mut [0.0; 50]);
}
