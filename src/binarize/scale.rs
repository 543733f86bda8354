//! The positive number that goes with the signs of an output channel's weights.

use crate::Tensor;
use dirnet_kernels::reduce;

/// How the scale of an output channel is found. It is a constant to the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 1: whatever follows, a batch norm as a rule, takes care of it.
    None,
    /// `2^round(log2(mean |w|))`, rounding halves to even: a shift of the integer sum (Qin et al.,
    /// 2020, arXiv 1909.10788). 1 for a channel of zeros.
    Shift,
    /// `mean |w|`: of all scales, the one with the least squared error (Rastegari et al., 2016,
    /// arXiv 1603.05279).
    MeanAbs,
}

impl Scale {
    /// One number for each output channel of `O …` weights.
    pub fn of(self, w: &Tensor) -> Tensor {
        let o = w.shape()[0];
        if self == Scale::None {
            return Tensor::full([o], 1.0);
        }
        let mut scale = Tensor::build([o], |s| reduce::mean_abs_rows(o, w.len() / o.max(1), w, s));
        if self == Scale::Shift {
            for s in scale.data_mut() {
                *s = if *s > 0.0 { s.log2().round_ties_even().exp2() } else { 1.0 };
            }
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_follow_their_formulas() {
        let w = Tensor::new([3, 2], vec![0.8, -0.6, 0.0, 0.0, 0.1, -0.3]);
        assert_eq!(&*Scale::None.of(&w), [1.0, 1.0, 1.0]);
        assert_eq!(&*Scale::Shift.of(&w), [0.5, 1.0, 0.25]);
        let mean = Scale::MeanAbs.of(&w);
        assert!((mean[0] - 0.7).abs() < 1e-6 && mean[1] == 0.0 && (mean[2] - 0.2).abs() < 1e-6);
    }
}
