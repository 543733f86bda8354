//! Which geometries the gradients sum by table.

use super::{grad_w, grad_x};
use crate::ConvGeom;

/// Whether [`conv2d_dx`](super::conv2d_dx) sums signed terms by table for this geometry. Where a
/// table would not be used often enough to pay for itself (few channels, or short rows a stride
/// apart), signs become floats and meet the float kernels instead: the same gradient, at their speed.
pub fn fast_dx(g: &ConvGeom) -> bool {
    grad_x::suits(g)
}

/// The same of [`conv2d_dw`](super::conv2d_dw).
pub fn fast_dw(g: &ConvGeom) -> bool {
    grad_w::suits(g)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv;

    #[test]
    fn wide_layers_are_fast_and_depthwise_ones_are_not() {
        let wide = ConvGeom::new(&[2, 64, 8, 8], &[64, 64, 3, 3], Conv::same(3));
        assert!(fast_dx(&wide) && fast_dw(&wide));
        let depthwise = ConvGeom::new(&[2, 64, 8, 8], &[64, 1, 3, 3], Conv::same(3).groups(64));
        assert!(!fast_dx(&depthwise) && !fast_dw(&depthwise));
    }
}
