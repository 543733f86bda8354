//! Many numbers to one.

use crate::{Tensor, Var};

impl<'t> Var<'t> {
    /// The sum of all elements; backward: each gets `dy`.
    pub fn sum(&self) -> Var<'t> {
        let shape = self.shape().to_vec();
        let y = Tensor::scalar(dirnet_kernels::reduce::sum(self.value()));
        self.tape().record("sum", y, [self], move |dy, _| [Some(Tensor::full(shape, dy.item()))])
    }

    /// The mean of all elements; backward: each gets `dy / count`.
    pub fn mean(&self) -> Var<'t> {
        self.sum() / self.value().len() as f32
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck;

    #[test]
    fn sum() {
        gradcheck([&[3, 4]], |[x]| x.sum());
        gradcheck([&[3, 4]], |[x]| x.square().mean());
    }
}
