//! The two gradients of the convolution of +-1 images with +-1 filters.

use super::pack::value;
use super::{Filters, Image, Pad};
use crate::{ConvGeom, par};

/// The gradient to the +-1 image: `dx[n,c,·] = Σ dy[n,o,i,j] · w[o,c,u,v]` over the outputs and taps
/// that met that pixel. What pads the image has none.
///
/// # Panics
/// If `w` was packed for another geometry, or a slice has another length.
#[track_caller]
pub fn conv2d_dx(g: &ConvGeom, w: &Filters, dy: &[f32], dx: &mut [f32]) {
    const OP: &str = "bits::conv2d_dx";
    w.check(OP, g);
    assert_eq!(dy.len(), g.y_len(), "{OP}: dy of {:?}", g.y());
    assert_eq!(dx.len(), g.x_len(), "{OP}: dx of {:?}", g.x());
    let (area, k) = (g.oh * g.ow, g.taps());
    let mut signs = vec![0.0; g.w_len()];
    w.unpack(&mut signs);
    par::chunks(dx, g.group_c() * g.h * g.w, |i, dx| {
        let dy = &dy[i * g.group_o() * area..][..g.group_o() * area];
        let w = &signs[i % g.how.groups * g.group_o() * k..][..g.group_o() * k];
        par::scratch(k * area, |columns| {
            gemm([k, g.group_o(), area], (w, [1, k]), (dy, [area, 1]), 0.0, columns);
            dx.fill(0.0);
            for (row, column) in columns.chunks_exact(area).enumerate() {
                let (c, u, v) = (row / (g.kh * g.kw), row / g.kw % g.kh, row % g.kw);
                let dx = &mut dx[c * g.h * g.w..][..g.h * g.w];
                for i in g.inside_y(u) {
                    let y = i * g.how.stride + u * g.how.dilation - g.how.pad;
                    for j in g.inside_x(v) {
                        let x = j * g.how.stride + v * g.how.dilation - g.how.pad;
                        dx[y * g.w + x] += column[i * g.ow + j];
                    }
                }
            }
        });
    });
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
    let (area, k, group_o) = (g.oh * g.ow, g.taps(), g.group_o());
    // Sums over few images, then of those in order: the same however many threads there are.
    let images = g.n.div_ceil(16);
    let sums = par::map(g.n.div_ceil(images), |chunk| {
        let mut sum = vec![0.0; g.w_len()];
        for n in chunk * images..g.n.min((chunk + 1) * images) {
            for (group, sum) in sum.chunks_mut(group_o * k).enumerate() {
                let dy = &dy[(n * g.o + group * group_o) * area..][..group_o * area];
                par::scratch(k * area, |columns| {
                    expand(g, x.planes(n, group), pad, columns);
                    gemm([group_o, area, k], (dy, [area, 1]), (columns, [1, area]), 1.0, sum);
                });
            }
        }
        sum
    });
    dw.fill(0.0);
    for sum in sums {
        for (dw, sum) in dw.iter_mut().zip(sum) {
            *dw += sum;
        }
    }
}

/// One image as floats, `[C/groups][KH][KW][OH][OW]`.
fn expand(g: &ConvGeom, planes: &[u8], pad: Pad, columns: &mut [f32]) {
    columns.fill(pad.value());
    for (row, column) in columns.chunks_exact_mut(g.oh * g.ow).enumerate() {
        let (c, u, v) = (row / (g.kh * g.kw), row / g.kw % g.kh, row % g.kw);
        let plane = &planes[c / 4 * g.h * g.w..][..g.h * g.w];
        for i in g.inside_y(u) {
            let y = i * g.how.stride + u * g.how.dilation - g.how.pad;
            for j in g.inside_x(v) {
                let x = j * g.how.stride + v * g.how.dilation - g.how.pad;
                column[i * g.ow + j] = value(plane[y * g.w + x] >> (c % 4));
            }
        }
    }
}

/// `c = a·b + beta·c` for `a` of `m` by `k`, `b` of `k` by `n`, each with its strides of rows and
/// columns, and `c` of `m` by `n`, row by row.
pub(super) fn gemm(
    [m, k, n]: [usize; 3],
    (a, [rsa, csa]): (&[f32], [usize; 2]),
    (b, [rsb, csb]): (&[f32], [usize; 2]),
    beta: f32,
    c: &mut [f32],
) {
    let last =
        |rows: usize, rs: usize, columns: usize, cs: usize| (rows - 1) * rs + (columns - 1) * cs;
    assert!(m > 0 && k > 0 && n > 0 && c.len() >= m * n);
    assert!(a.len() > last(m, rsa, k, csa) && b.len() > last(k, rsb, n, csb));
    let [rsa, csa, rsb, csb] = [rsa, csa, rsb, csb].map(|s| s as isize);
    // SAFETY: the last element of each matrix lies inside its slice, as asserted above.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            rsa,
            csa,
            b.as_ptr(),
            rsb,
            csb,
            beta,
            c.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}
