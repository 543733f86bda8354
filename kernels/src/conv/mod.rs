//! 2-D convolution of images with filters, and its two gradients.
//!
//! [`ConvGeom`] states the formula. Two ways lead to it: `depthwise` where each channel is a group of
//! its own, and `direct` otherwise. A third, `im2col`, serves where it is quicker: for single taps that
//! make few channels of many or skip pixels of large images, and for the gradient of images of few
//! channels. The benches hold the others against it. A fourth, [`winograd`], is chosen by those who do
//! not mind its rounding.

pub(crate) mod depthwise;
mod direct;
mod dots;
mod eight;
mod gather;
#[doc(hidden)]
pub mod im2col;
mod lines;
mod plan;
mod prepared;
pub mod winograd;

pub use prepared::Prepared;

use crate::geom::ConvGeom;

/// `y[n,o,i,j] = Σ_{c,u,v} x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad] · w[o,c,u,v]`
///
/// # Panics
/// If a length does not fit the geometry, here as in all of this file.
#[track_caller]
pub fn conv2d(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    check("conv2d", g, x, w, y);
    if depthwise::suits(g) {
        depthwise::forward(g, x, w, y)
    } else if im2col::suits(g) {
        im2col::forward(g, x, w, y)
    } else {
        direct::forward(g, x, w, y)
    }
}

/// The gradient of [`conv2d`] for its images: each filter spreads `dy` back over its pixels.
///
/// ```text
/// dx[n,c,p,q] = Σ_{o,u,v} dy[n,o,i,j] · w[o,c,u,v]    where i·stride + u·dilation - pad = p,
///                                                           j·stride + v·dilation - pad = q
/// ```
#[track_caller]
pub fn conv2d_dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    check("conv2d_dx", g, dx, w, dy);
    if depthwise::suits(g) {
        depthwise::dx(g, w, dy, dx)
    } else if im2col::suits_dx(g) || !direct::suits_dx(g) {
        im2col::dx(g, w, dy, dx)
    } else {
        direct::dx(g, w, dy, dx)
    }
}

/// The gradient of [`conv2d`] for its filters: the patches of `x` against `dy`.
///
/// ```text
/// dw[o,c,u,v] = Σ_{n,i,j} dy[n,o,i,j] · x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad]
/// ```
#[track_caller]
pub fn conv2d_dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check("conv2d_dw", g, x, dw, dy);
    if depthwise::suits(g) {
        depthwise::dw(g, x, dy, dw)
    } else if im2col::suits(g) && g.n > 1 {
        im2col::dw(g, x, dy, dw)
    } else {
        direct::dw(g, x, dy, dw)
    }
}

#[track_caller]
fn check(op: &str, g: &ConvGeom, x: &[f32], w: &[f32], y: &[f32]) {
    assert_eq!(x.len(), g.x_len(), "{op}: length of the images for {g:?}");
    assert_eq!(w.len(), g.w_len(), "{op}: length of the filters for {g:?}");
    assert_eq!(y.len(), g.y_len(), "{op}: length of the output for {g:?}");
}
