use crate::PoolGeom;

/// `y[n,c,i,j] = max_{u,v} x[n, c, i·stride + u - pad, j·stride + v - pad]` and `winner = u·size + v`
/// of the first largest, or of the last NaN.
pub fn max_pool2d(g: &PoolGeom, x: &[f32], y: &mut [f32], winner: &mut [u8]) {
    for at_y in 0..g.y_len() {
        let mut best: Option<f32> = None;
        for_each_tap(g, at_y, |tap, at_x| {
            if best.is_none_or(|best| x[at_x] > best || x[at_x].is_nan()) {
                (best, winner[at_y]) = (Some(x[at_x]), tap as u8);
            }
        });
        y[at_y] = best.expect("a window holds a pixel");
    }
}

/// `dx = Σ dy` over the windows that the pixel won
pub fn max_pool2d_dx(g: &PoolGeom, winner: &[u8], dy: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    for at_y in 0..g.y_len() {
        for_each_tap(g, at_y, |tap, at_x| {
            if winner[at_y] as usize == tap {
                dx[at_x] += dy[at_y];
            }
        });
    }
}

/// `y[n,c,i,j] = Σ_{u,v} x[n, c, i·stride + u - pad, j·stride + v - pad] / size²`
pub fn avg_pool2d(g: &PoolGeom, x: &[f32], y: &mut [f32]) {
    for at_y in 0..g.y_len() {
        let mut sum = 0f64;
        for_each_tap(g, at_y, |_, at_x| sum += x[at_x] as f64);
        y[at_y] = (sum / (g.size * g.size) as f64) as f32;
    }
}

/// `dx = Σ dy / size²` over the windows that hold the pixel
pub fn avg_pool2d_dx(g: &PoolGeom, dy: &[f32], dx: &mut [f32]) {
    let mut sums = vec![0f64; g.x_len()];
    for at_y in 0..g.y_len() {
        for_each_tap(g, at_y, |_, at_x| sums[at_x] += dy[at_y] as f64);
    }
    for (dx, sum) in dx.iter_mut().zip(sums) {
        *dx = (sum / (g.size * g.size) as f64) as f32;
    }
}

/// `f` of the tap and the place of `x`, for each pixel in the window of `y[at_y]`.
fn for_each_tap(g: &PoolGeom, at_y: usize, mut f: impl FnMut(usize, usize)) {
    let (j, i, plane) = (at_y % g.ow, at_y / g.ow % g.oh, at_y / (g.ow * g.oh));
    for u in 0..g.size {
        for v in 0..g.size {
            let Some(p) = (i * g.stride + u).checked_sub(g.pad).filter(|&p| p < g.h) else {
                continue;
            };
            let Some(q) = (j * g.stride + v).checked_sub(g.pad).filter(|&q| q < g.w) else {
                continue;
            };
            f(u * g.size + v, (plane * g.h + p) * g.w + q);
        }
    }
}
