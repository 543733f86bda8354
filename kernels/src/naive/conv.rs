use crate::ConvGeom;

/// `y[n,o,i,j] = Σ_{c,u,v} x[n, c, i·stride + u·dilation - pad, j·stride + v·dilation - pad] · w[o,c,u,v]`
pub fn conv2d(g: &ConvGeom, x: &[f32], w: &[f32], y: &mut [f32]) {
    let mut sums = vec![0f64; g.y_len()];
    for_each_term(g, |at_x, at_w, at_y| sums[at_y] += x[at_x] as f64 * w[at_w] as f64);
    round(&sums, y);
}

/// `dx[n,c,p,q] = Σ dy[n,o,i,j] · w[o,c,u,v]` over the terms of [`conv2d`] with `x[n,c,p,q]`
pub fn conv2d_dx(g: &ConvGeom, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let mut sums = vec![0f64; g.x_len()];
    for_each_term(g, |at_x, at_w, at_y| sums[at_x] += dy[at_y] as f64 * w[at_w] as f64);
    round(&sums, dx);
}

/// `dw[o,c,u,v] = Σ dy[n,o,i,j] · x[n,c,p,q]` over the terms of [`conv2d`] with `w[o,c,u,v]`
pub fn conv2d_dw(g: &ConvGeom, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let mut sums = vec![0f64; g.w_len()];
    for_each_term(g, |at_x, at_w, at_y| sums[at_w] += dy[at_y] as f64 * x[at_x] as f64);
    round(&sums, dw);
}

/// `f` of the places of `x`, `w` and `y` in each term of the sum that lies inside the image.
fn for_each_term(g: &ConvGeom, mut f: impl FnMut(usize, usize, usize)) {
    let (group_c, group_o) = (g.group_c(), g.group_o());
    let pixel = |out: usize, tap: usize, size: usize| {
        let at = (out * g.how.stride + tap * g.how.dilation).checked_sub(g.how.pad)?;
        (at < size).then_some(at)
    };
    for n in 0..g.n {
        for o in 0..g.o {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    for c in 0..group_c {
                        for u in 0..g.kh {
                            for v in 0..g.kw {
                                let Some(p) = pixel(i, u, g.h) else { continue };
                                let Some(q) = pixel(j, v, g.w) else { continue };
                                let channel = o / group_o * group_c + c;
                                f(
                                    ((n * g.c + channel) * g.h + p) * g.w + q,
                                    ((o * group_c + c) * g.kh + u) * g.kw + v,
                                    ((n * g.o + o) * g.oh + i) * g.ow + j,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

fn round(sums: &[f64], out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = *sum as f32;
    }
}
