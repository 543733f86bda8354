/// `y[i,j] = Σ_l op(a)[i,l] · op(b)[l,j]`, with `a` stored `k` by `m` if `ta`, `b` stored `n` by `k`
/// if `tb`
pub fn gemm(m: usize, k: usize, n: usize, a: &[f32], ta: bool, b: &[f32], tb: bool, y: &mut [f32]) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0f64;
            for l in 0..k {
                let a = if ta { a[l * m + i] } else { a[i * k + l] };
                let b = if tb { b[j * k + l] } else { b[l * n + j] };
                sum += a as f64 * b as f64;
            }
            y[i * n + j] = sum as f32;
        }
    }
}

/// `y[i,j] = x[i,j] - ln Σ_k exp(x[i,k])`
pub fn log_softmax(rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    for i in 0..rows {
        let row = i * cols..(i + 1) * cols;
        let max = row.clone().map(|j| x[j] as f64).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.clone().map(|j| (x[j] as f64 - max).exp()).sum();
        for j in row {
            y[j] = (x[j] as f64 - max - total.ln()) as f32;
        }
    }
}

/// `dx[i,j] = dy[i,j] - exp(y[i,j]) · Σ_k dy[i,k]`
pub fn log_softmax_dx(rows: usize, cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for i in 0..rows {
        let row = i * cols..(i + 1) * cols;
        let total: f64 = row.clone().map(|j| dy[j] as f64).sum();
        for j in row {
            dx[j] = (dy[j] as f64 - (y[j] as f64).exp() * total) as f32;
        }
    }
}
