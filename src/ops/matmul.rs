//! Matrix products.

use crate::{Tensor, Var};
use dirnet_kernels::gemm::{dense, gemm};

impl<'t> Var<'t> {
    /// The product of an `M K` and a `K N` matrix.
    ///
    /// ```text
    /// forward    y[i,j] = Σ_k x[i,k] · w[k,j]
    /// backward   dx = dy · wᵀ,  dw = xᵀ · dy
    /// ```
    ///
    /// # Panics
    /// If either is no matrix, or the inner sizes differ.
    #[track_caller]
    pub fn matmul(&self, w: &Var<'t>) -> Var<'t> {
        let (&[m, k], &[inner, n]) = (self.shape(), w.shape()) else {
            panic!("matmul: not two matrices: {:?} x {:?}", self.shape(), w.shape())
        };
        assert_eq!(k, inner, "matmul: inner sizes differ: [{m}, {k}] x [{inner}, {n}]");
        let (x, w_) = (self.value().clone(), w.value().clone());
        let y = Tensor::build([m, n], |y| gemm(m, k, n, &x, false, &w_, false, y));
        self.tape().record("matmul", y, [self, w], move |dy, wanted| {
            [
                wanted[0]
                    .then(|| Tensor::build([m, k], |dx| gemm(m, n, k, &dy, false, &w_, true, dx))),
                wanted[1]
                    .then(|| Tensor::build([k, n], |dw| gemm(k, m, n, &x, true, &dy, false, dw))),
            ]
        })
    }

    /// A dense layer's product: `N IN` rows against `OUT IN` weights, as PyTorch stores them.
    ///
    /// ```text
    /// forward    y[n,o] = Σ_i x[n,i] · w[o,i]
    /// backward   dx = dy · w,  dw = dyᵀ · x
    /// ```
    ///
    /// # Panics
    /// If either is no matrix, or the inner sizes differ.
    #[track_caller]
    pub fn linear(&self, w: &Var<'t>) -> Var<'t> {
        let (&[n, k], &[o, inner]) = (self.shape(), w.shape()) else {
            panic!("linear: not two matrices: {:?} x {:?}", self.shape(), w.shape())
        };
        assert_eq!(k, inner, "linear: inner sizes differ: [{n}, {k}] x [{o}, {inner}]");
        let (x, w_) = (self.value().clone(), w.value().clone());
        let y = Tensor::build([n, o], |y| match self.tape().is_training() {
            true => gemm(n, k, o, &x, false, &w_, true, y),
            // So that an image's answer does not depend on which others it is asked with.
            false => dense(n, k, o, &x, &w_, y),
        });
        self.tape().record("linear", y, [self, w], move |dy, wanted| {
            [
                wanted[0]
                    .then(|| Tensor::build([n, k], |dx| gemm(n, o, k, &dy, false, &w_, false, dx))),
                wanted[1]
                    .then(|| Tensor::build([o, k], |dw| gemm(o, n, k, &dy, true, &x, false, dw))),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Params, Tape, Tensor, gradcheck};

    #[test]
    fn matmul() {
        gradcheck([&[2, 3], &[3, 4]], |[x, w]| x.matmul(&w));
    }
    #[test]
    fn linear() {
        gradcheck([&[2, 3], &[4, 3]], |[x, w]| x.linear(&w));
    }

    #[test]
    #[should_panic(expected = "matmul: inner sizes differ: [2, 3] x [4, 5]")]
    fn inner_sizes_must_agree() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        tape.constant(Tensor::zeros([2, 3])).matmul(&tape.constant(Tensor::zeros([4, 5])));
    }
}
