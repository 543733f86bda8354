//! Convolution of real images with real filters.

use super::Conv;
use crate::{Tensor, Var};
use dirnet_kernels::{ConvGeom, conv};

impl<'t> Var<'t> {
    /// 2-D convolution of an `N C H W` image batch with `O C/groups K K` filters.
    ///
    /// ```text
    /// forward    y[n,o,i,j] = Σ_{c,u,v} x[n,c, s·i+d·u-p, s·j+d·v-p] · w[o,c,u,v]
    /// backward   dx = filters spread dy back,  dw = patches of x against dy
    /// ```
    ///
    /// with stride `s`, padding `p` of zeros and dilation `d`.
    ///
    /// # Panics
    /// If the channels differ, or the filter is larger than the padded image.
    #[track_caller]
    pub fn conv2d(&self, w: &Var<'t>, how: Conv) -> Var<'t> {
        let g = ConvGeom::new(self.shape(), w.shape(), how);
        let (x, k) = (self.value().clone(), w.value().clone());
        let y = Tensor::build(g.y(), |y| conv::conv2d(&g, &x, &k, y));
        self.tape().record("conv2d", y, [self, w], move |dy, wanted| {
            [
                wanted[0].then(|| Tensor::build(g.x(), |dx| conv::conv2d_dx(&g, &k, &dy, dx))),
                wanted[1]
                    .then(|| Tensor::build(g.filters(), |dw| conv::conv2d_dw(&g, &x, &dy, dw))),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck;

    #[test]
    fn conv2d() {
        gradcheck([&[2, 3, 6, 6], &[4, 3, 3, 3]], |[x, w]| x.conv2d(&w, Conv::same(3)));
        let how = Conv::same(3).stride(2).groups(2);
        gradcheck([&[2, 4, 5, 7], &[6, 2, 3, 3]], |[x, w]| x.conv2d(&w, how));
        let depthwise = Conv::same(5).dilation(2).pad(4).groups(3);
        gradcheck([&[1, 3, 6, 6], &[3, 1, 5, 5]], |[x, w]| x.conv2d(&w, depthwise));
    }
}
