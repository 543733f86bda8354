//! The two gradients of the convolution of +-1 images with +-1 filters.
//!
//! Signed sums by table where that pays; elsewhere the signs become floats and meet the float kernels.

use super::{Filters, Image, Pad, grad_w, grad_x};
use crate::elementwise::add_assign;
use crate::geom::{Conv, ConvGeom};
use crate::{conv, par, simd};

/// The gradient to the +-1 image: `dx[n,c,·] = Σ dy[n,o,i,j] · w[o,c,u,v]` over the outputs and taps
/// that met that pixel. What pads the image has none.
///
/// # Panics
/// If `w` was packed for another geometry, or a slice has another length.
#[track_caller]
pub fn conv2d_dx(g: &ConvGeom, w: &Filters, dy: &[f32], dx: &mut [f32]) {
    scaled_conv2d_dx(g, w, &vec![1.0; g.o], dy, dx, |_, _| ());
}

/// [`conv2d_dx`] for filters of `scale[o]·(±1)`, and what follows it: `finish(i, piece)` is called once
/// for each piece of `dx`, of elements from `i` on, while the cache still holds it.
///
/// # Panics
/// As [`conv2d_dx`], and if `scale` has not one number for each filter.
#[track_caller]
pub fn scaled_conv2d_dx(
    g: &ConvGeom,
    w: &Filters,
    scale: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
) {
    const OP: &str = "bits::conv2d_dx";
    w.check(OP, g);
    assert_eq!(scale.len(), g.o, "{OP}: one scale a filter");
    assert_eq!(dy.len(), g.y_len(), "{OP}: dy of {:?}", g.y());
    assert_eq!(dx.len(), g.x_len(), "{OP}: dx of {:?}", g.x());
    if grad_x::suits(g) {
        return grad_x::dx(g, w, scale, dy, dx, &finish);
    }
    let mut signs = vec![0.0; g.w_len()];
    w.unpack(&mut signs);
    for (signs, scale) in signs.chunks_mut(g.taps()).zip(scale) {
        signs.iter_mut().for_each(|sign| *sign *= scale);
    }
    conv::conv2d_dx(g, &signs, dy, dx);
    par::chunks(dx, par::GRAIN, |i, dx| finish(i * par::GRAIN, dx));
}

/// The gradient to the +-1 filters: `dw[o,c,u,v] = Σ_{n,i,j} dy[n,o,i,j] · x[n,c,·]`, where a tap
/// outside the image meets what `pad` says.
///
/// # Panics
/// If `x` was packed for another geometry, or a slice has another length.
#[track_caller]
pub fn conv2d_dw(g: &ConvGeom, x: &Image, pad: Pad, dy: &[f32], dw: &mut [f32]) {
    const OP: &str = "bits::conv2d_dw";
    x.check(OP, g);
    assert_eq!(dy.len(), g.y_len(), "{OP}: dy of {:?}", g.y());
    assert_eq!(dw.len(), g.w_len(), "{OP}: dw of {:?}", g.filters());
    if grad_w::suits(g) {
        return grad_w::dw(g, x, pad, dy, dw);
    }
    // The padding becomes part of the image; and not all images become floats at once.
    let p = g.how.pad;
    let [n, c, h, w] = [g.n, g.c, g.h + 2 * p, g.w + 2 * p];
    let some = ((1 << 22) / (c * h * w)).clamp(1, n);
    let level = simd::level();
    let mut image = vec![0.0; some * c * h * w];
    let mut part = vec![0.0; if some < n { dw.len() } else { 0 }];
    for (i, dy) in dy.chunks(some * g.o * g.oh * g.ow).enumerate() {
        let n = some.min(n - i * some);
        let inside = Conv { pad: 0, ..g.how };
        let padded = ConvGeom::new(&[n, c, h, w], &g.filters(), inside);
        let image = &mut image[..padded.x_len()];
        par::chunks(image, h * w, |plane, to| {
            to.fill(pad.value());
            x.expand(level, i * some * c + plane, &mut to[(p * w + p).min(h * w - 1)..], w);
        });
        if i == 0 {
            conv::conv2d_dw(&padded, image, dy, dw);
        } else {
            conv::conv2d_dw(&padded, image, dy, &mut part);
            add_assign(dw, &part);
        }
    }
}

/// Both gradients, [`scaled_conv2d_dx`] and [`conv2d_dw`], to the bit, and sooner: `dy` is fetched once
/// for the two of them. The gradient to the filters is to their signs, whatever the scale.
///
/// # Panics
/// As those two.
#[track_caller]
pub fn conv2d_backward(
    g: &ConvGeom,
    x: &Image,
    w: &Filters,
    scale: &[f32],
    pad: Pad,
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
) {
    const OP: &str = "bits::conv2d_backward";
    let separately = |dx: &mut [f32], dw: &mut [f32]| {
        scaled_conv2d_dx(g, w, scale, dy, dx, &finish);
        conv2d_dw(g, x, pad, dy, dw);
    };
    if !grad_x::suits(g) || !grad_w::suits(g) {
        return separately(dx, dw);
    }
    x.check(OP, g);
    w.check(OP, g);
    assert_eq!(scale.len(), g.o, "{OP}: one scale a filter");
    assert_eq!(dy.len(), g.y_len(), "{OP}: dy of {:?}", g.y());
    assert_eq!(dx.len(), g.x_len(), "{OP}: dx of {:?}", g.x());
    assert_eq!(dw.len(), g.w_len(), "{OP}: dw of {:?}", g.filters());
    let by_images = grad_w::Plan::new(g, pad);
    let many = by_images.images;
    let by_pixels = grad_x::Plan::new(g, w, scale);
    // A few images for the one and for the other.
    let some = by_images.together.max(by_pixels.images);
    let fits = some.is_multiple_of(by_images.together)
        && some.is_multiple_of(by_pixels.images)
        && many.is_multiple_of(some);
    if !fits || g.n.div_ceil(many) < par::threads() {
        return separately(dx, dw);
    }
    let image = g.c * g.h * g.w;
    let blocks = by_images.blocks();
    let size = by_images.sums(blocks);
    par::scratch(g.n.div_ceil(many) * size, |sums| {
        par::chunks2(dx, many * image, sums, size, |i, dx, sums| {
            let mut part = by_images.part(0..blocks, sums);
            for (j, dx) in dx.chunks_mut(some * image).enumerate() {
                let n = i * many + j * some;
                for (k, dx) in dx.chunks_mut(by_pixels.images * image).enumerate() {
                    by_pixels.write_images(n + k * by_pixels.images, dy, dx, &finish);
                }
                part.add(x, dy, n..n + dx.len() / image);
            }
            part.close();
        });
        by_images.write(sums, blocks, dw);
    });
}
