//! Pooling: one number for a window of an image.

use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::{PoolGeom, pool};

impl<'t> Var<'t> {
    /// The largest of each `size` by `size` window.
    ///
    /// ```text
    /// forward    y[n,c,i,j] = max over u,v of x[n,c, s·i+u-p, s·j+v-p]
    /// backward   dy goes to the winner; of several equal ones, to the first
    /// ```
    ///
    /// # Panics
    /// If the window does not fit the padded image.
    #[track_caller]
    pub fn max_pool2d(&self, size: usize, stride: usize, pad: usize) -> Var<'t> {
        let g = PoolGeom::new(self.shape(), size, stride, pad);
        let mut winner = vec![0; g.y_len()];
        let y = Tensor::build(g.y(), |y| pool::max_pool2d(&g, self.value(), y, &mut winner));
        let winner = Held::new(winner, g.y_len());
        self.tape().describe(|| Op::MaxPool2d { size, stride, pad });
        self.tape().record("max_pool2d", y, [self], move |dy, _| {
            [Some(Tensor::build(g.x(), |dx| pool::max_pool2d_dx(&g, &winner, &dy, dx)))]
        })
    }

    /// The mean of each `size` by `size` window; padding counts as zeros.
    ///
    /// ```text
    /// forward    y[n,c,i,j] = Σ_{u,v} x[n,c, s·i+u-p, s·j+v-p] / size²
    /// backward   each pixel of a window gets dy / size²
    /// ```
    ///
    /// # Panics
    /// If the window does not fit the padded image.
    #[track_caller]
    pub fn avg_pool2d(&self, size: usize, stride: usize, pad: usize) -> Var<'t> {
        let g = PoolGeom::new(self.shape(), size, stride, pad);
        let y = Tensor::build(g.y(), |y| pool::avg_pool2d(&g, self.value(), y));
        self.tape().describe(|| Op::AvgPool2d { size, stride, pad });
        self.tape().record("avg_pool2d", y, [self], move |dy, _| {
            [Some(Tensor::build(g.x(), |dx| pool::avg_pool2d_dx(&g, &dy, dx)))]
        })
    }

    /// The mean of each channel: `N C H W` to `N C`.
    ///
    /// # Panics
    /// If it is no batch of images.
    #[track_caller]
    pub fn global_avg_pool(&self) -> Var<'t> {
        let &[n, c, h, w] = self.shape() else {
            panic!("global_avg_pool: images are N C H W, not {:?}", self.shape())
        };
        let area = h * w;
        let y = Tensor::build([n, c], |y| {
            dirnet_kernels::reduce::sum_rows(n * c, area, self.value(), y);
            y.iter_mut().for_each(|y| *y /= area as f32);
        });
        self.tape().record("global_avg_pool", y, [self], move |dy, _| {
            [Some(Tensor::build([n, c, h, w], |dx| {
                let rows = dx.chunks_mut(area).zip(&*dy);
                rows.for_each(|(row, dy)| row.fill(dy / area as f32));
            }))]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Tensor, gradcheck, gradcheck_at};

    #[test]
    fn max_pool2d() {
        // Numbers far enough apart that no difference changes a winner.
        let x: Vec<f32> = (0..72).map(|i| ((i * 29) % 72) as f32 * 0.05).collect();
        let x = Tensor::new([1, 2, 6, 6], x);
        gradcheck_at([x.clone()], |[x]| x.max_pool2d(2, 2, 0));
        gradcheck_at([x], |[x]| x.max_pool2d(3, 2, 1));
    }
    #[test]
    fn avg_pool2d() {
        gradcheck([&[2, 3, 5, 6]], |[x]| x.avg_pool2d(3, 2, 1));
    }
    #[test]
    fn global_avg_pool() {
        gradcheck([&[2, 3, 5, 4]], |[x]| x.global_avg_pool());
    }
}
