/// `mean[c] = Σ_{n,p} x / m`, `var[c] = Σ_{n,p} (x - mean)² / m`, with `m = n·hw`
pub fn batch_moments(n: usize, c: usize, hw: usize, x: &[f32], mean: &mut [f32], var: &mut [f32]) {
    for at in 0..c {
        let values = channel(n, c, hw, at, x);
        let (m, v) = moments(&values, values.len() as f64);
        (mean[at], var[at]) = (m as f32, v as f32);
    }
}

/// `y = (x - mean)·inv_std·gamma + beta`
pub fn batch_norm(
    n: usize,
    c: usize,
    hw: usize,
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
) {
    for i in 0..n * c * hw {
        let at = i / hw % c;
        let z = (x[i] as f64 - mean[at] as f64) * inv_std[at] as f64;
        y[i] = (z * gamma[at] as f64 + beta[at] as f64) as f32;
    }
}

/// `dbeta = Σ dy`, `dgamma = Σ dy·z`, `dx = gamma·inv_std·(dy - dbeta/m - z·dgamma/m)`
pub fn batch_norm_backward(
    n: usize,
    c: usize,
    hw: usize,
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let m = (n * hw) as f64;
    let z = |i: usize, at: usize| (x[i] as f64 - mean[at] as f64) * inv_std[at] as f64;
    for at in 0..c {
        let places = || (0..n * c * hw).filter(|i| i / hw % c == at);
        let beta: f64 = places().map(|i| dy[i] as f64).sum();
        let slope: f64 = places().map(|i| dy[i] as f64 * z(i, at)).sum();
        for i in places() {
            let rest = dy[i] as f64 - beta / m - z(i, at) * slope / m;
            dx[i] = (gamma[at] as f64 * inv_std[at] as f64 * rest) as f32;
        }
        (dgamma[at], dbeta[at]) = (slope as f32, beta as f32);
    }
}

/// `y = (x - mean) / std` in each row, with `std² = Σ (x - mean)² / (cols - 1)`; zeros where the
/// row has no spread
pub fn standardize_rows(rows: usize, cols: usize, x: &[f32], y: &mut [f32], inv_std: &mut [f32]) {
    for i in 0..rows {
        let values: Vec<f64> = x[i * cols..][..cols].iter().map(|&x| x as f64).collect();
        let (mean, variance) = moments(&values, cols as f64 - 1.0);
        let inverse = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
        inv_std[i] = inverse as f32;
        for j in 0..cols {
            y[i * cols + j] = ((values[j] - mean) * inverse) as f32;
        }
    }
}

/// `dx = inv_std·(dy - Σ dy / cols - y·Σ dy·y / (cols - 1))` in each row
pub fn standardize_rows_dx(
    rows: usize,
    cols: usize,
    y: &[f32],
    inv_std: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    for i in 0..rows {
        let row = i * cols..(i + 1) * cols;
        if cols == 1 {
            dx[i] = 0.0;
            continue;
        }
        let mean = row.clone().map(|j| dy[j] as f64).sum::<f64>() / cols as f64;
        let along: f64 = row.clone().map(|j| dy[j] as f64 * y[j] as f64).sum();
        for j in row {
            let rest = dy[j] as f64 - mean - y[j] as f64 * along / (cols as f64 - 1.0);
            dx[j] = (inv_std[i] as f64 * rest) as f32;
        }
    }
}

fn channel(n: usize, c: usize, hw: usize, at: usize, x: &[f32]) -> Vec<f64> {
    (0..n * c * hw).filter(|i| i / hw % c == at).map(|i| x[i] as f64).collect()
}

fn moments(values: &[f64], divisor: f64) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / divisor)
}
