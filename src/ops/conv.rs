//! Convolution of real images with real filters.

use super::Conv;
use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::ConvGeom;
use dirnet_kernels::conv::{self, winograd};

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
        let [forward, dx] = match self.tape().is_quick() && winograd::suits(&g) {
            true => [winograd::conv2d, winograd::conv2d_dx],
            false => [conv::conv2d, conv::conv2d_dx],
        };
        let y = Tensor::build(g.y(), |y| forward(&g, &x, &k, y));
        self.tape().describe(|| Op::Conv2d(how));
        self.tape().record("conv2d", y, [self, w], move |dy, wanted| {
            [
                wanted[0].then(|| Tensor::build(g.x(), |x| dx(&g, &k, &dy, x))),
                wanted[1]
                    .then(|| Tensor::build(g.filters(), |dw| conv::conv2d_dw(&g, &x, &dy, dw))),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Rng, Tape, gradcheck};

    #[test]
    fn a_quick_tape_rounds_otherwise_and_no_more() {
        let (params, mut rng) = (Params::new(), Rng::seed(5));
        let x = Tensor::randn([2, 16, 9, 9], 1.0, &mut rng);
        let w = Tensor::randn([16, 16, 3, 3], 1.0, &mut rng);
        let of = |tape: Tape<'_>| {
            let x = tape.variable(&x);
            let y = x.conv2d(&tape.constant(&w), Conv::same(3));
            let dx = (&y * &y).sum().backward().wrt(&x).cloned();
            [Some(y.value().clone()), dx]
        };
        let exact = of(Tape::train(&params));
        for (exact, quick) in exact.into_iter().zip(of(Tape::train(&params).quick())) {
            let (exact, quick) = (exact.unwrap(), quick.unwrap());
            assert_ne!(exact, quick);
            let size = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(exact.iter().zip(&*quick).all(|(a, b)| (a - b).abs() < 2e-5 * size));
        }
    }

    #[test]
    fn conv2d() {
        gradcheck([&[2, 3, 6, 6], &[4, 3, 3, 3]], |[x, w]| x.conv2d(&w, Conv::same(3)));
        let how = Conv::same(3).stride(2).groups(2);
        gradcheck([&[2, 4, 5, 7], &[6, 2, 3, 3]], |[x, w]| x.conv2d(&w, how));
        let depthwise = Conv::same(5).dilation(2).pad(4).groups(3);
        gradcheck([&[1, 3, 6, 6], &[3, 1, 5, 5]], |[x, w]| x.conv2d(&w, depthwise));
    }
}
