//! One number a pixel, for all channels.

use crate::{Tensor, Var};
use dirnet_kernels::par;

impl<'t> Var<'t> {
    /// Multiplies `N C H W` by one number a pixel, `N 1 H W`.
    ///
    /// ```text
    /// forward    y[n,c,p] = x[n,c,p] · k[n,p]
    /// backward   dx = k·dy,  dk[n,p] = Σ_c dy[n,c,p]·x[n,c,p]
    /// ```
    ///
    /// # Panics
    /// If `k` has not that shape.
    #[track_caller]
    pub fn mul_pixels(&self, k: &Var<'t>) -> Var<'t> {
        let (x, k_) = (self.value().clone(), k.value().clone());
        let fits = matches!((x.shape(), k_.shape()),
            (&[n, _, h, w], &[m, 1, a, b]) if [n, h, w] == [m, a, b]);
        assert!(fits, "mul_pixels: one number a pixel of {:?}, not {:?}", x.shape(), k_.shape());
        let (c, hw) = (x.shape()[1], x.shape()[2] * x.shape()[3]);
        let scaled = move |x: &[f32], k: &[f32], shape: &[usize]| {
            Tensor::build(shape, |y| {
                par::chunks(y, hw.max(1), |row, y| {
                    let (x, k) = (&x[row * hw..][..hw], &k[row / c * hw..][..hw]);
                    y.iter_mut().zip(x.iter().zip(k)).for_each(|(y, (x, k))| *y = x * k);
                });
            })
        };
        let y = scaled(&x, &k_, x.shape());
        self.tape().record("mul_pixels", y, [self, k], move |dy, wanted| {
            let dk = wanted[1].then(|| {
                Tensor::build(k_.shape(), |dk| {
                    par::chunks(dk, hw.max(1), |image, dk| {
                        dk.fill(0.0);
                        for row in image * c..(image + 1) * c {
                            let (dy, x) = (&dy[row * hw..][..hw], &x[row * hw..][..hw]);
                            dk.iter_mut().zip(dy.iter().zip(x)).for_each(|(k, (d, x))| *k += d * x);
                        }
                    });
                })
            });
            [wanted[0].then(|| scaled(&dy, &k_, dy.shape())), dk]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck;

    #[test]
    fn mul_pixels() {
        gradcheck([&[2, 3, 4, 5], &[2, 1, 4, 5]], |[x, k]| x.mul_pixels(&k));
    }
}
