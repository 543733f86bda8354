//! The number that goes with the signs of an output channel's weights.

use super::part::{biased, row_means, row_stds};
use crate::{Tensor, Var};
use dirnet_kernels::reduce;

/// How the scale of an output channel is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 1: whatever follows, a batch norm as a rule, takes care of it.
    None,
    /// `2^round(log2(mean |y|))`, rounding halves to even: a shift of the integer sum (Qin et al.,
    /// 2020, arXiv 1909.10788). 1 for a channel of zeros. A constant to the way back.
    Shift,
    /// `mean |y|`: of all scales, the one with the least squared error (Rastegari et al., 2016,
    /// arXiv 1603.05279). A constant to the way back.
    MeanAbs,
    /// The same with its gradient, `sign(y) / n`.
    MeanAbsThrough,
    /// `mean |y|` over the whole layer (Zhou et al., 2016, arXiv 1606.06160). A constant to the way
    /// back.
    LayerMean,
    /// The same with its gradient (the code of ReSTE, Wu et al., 2023, arXiv 2308.06689).
    LayerMeanThrough,
    /// The standard deviation of the latent weights themselves, `√(Σ (w - mean)² / n)`, with its
    /// gradient (AdaBin, Tu et al., 2022, arXiv 2208.08084).
    Std,
    /// A parameter, which starts at `mean |w|` of the latent weights (RBNN, Lin et al., 2020, arXiv
    /// 2009.13055; ReCU's code starts it at random).
    Learned,
}

impl Scale {
    /// All of them, by name.
    pub const ALL: &[(&str, Scale)] = &[
        ("none", Scale::None),
        ("shift", Scale::Shift),
        ("mean-abs", Scale::MeanAbs),
        ("mean-abs-through", Scale::MeanAbsThrough),
        ("layer-mean", Scale::LayerMean),
        ("layer-mean-through", Scale::LayerMeanThrough),
        ("std", Scale::Std),
        ("learned", Scale::Learned),
    ];

    /// One number for each output channel: of latent weights `w` that were prepared to `y`, both
    /// `O …`. Of a learned one, where it starts.
    pub fn of<'t>(self, w: &Var<'t>, y: &Var<'t>) -> Var<'t> {
        let (tape, o) = (y.tape(), y.shape()[0]);
        let ones = || Tensor::full([o], 1.0);
        match self {
            Scale::None => tape.constant(ones()),
            Scale::Shift => tape.constant(
                mean_abs(y.value())
                    .map(|s| if s > 0.0 { s.log2().round_ties_even().exp2() } else { 1.0 }),
            ),
            Scale::MeanAbs => tape.constant(mean_abs(y.value())),
            Scale::MeanAbsThrough => row_means(&y.abs()),
            Scale::LayerMean => Scale::LayerMeanThrough.of(w, y).detach(),
            Scale::LayerMeanThrough => {
                let mean = y.abs().mean().reshape([1, 1]);
                tape.constant(ones().reshape([o, 1])).linear(&mean).reshape([o])
            }
            Scale::Std => row_stds(w) * biased(w),
            Scale::Learned => tape.constant(mean_abs(w.value())),
        }
    }
}

pub(super) fn mean_abs(w: &Tensor) -> Tensor {
    let o = w.shape()[0];
    Tensor::build([o], |s| reduce::mean_abs_rows(o, w.len() / o.max(1), w, s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, Tape, gradcheck};

    #[test]
    fn scales_follow_their_formulas() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        let w = tape.constant(Tensor::new([3, 2], vec![0.8, -0.6, 0.0, 0.0, 0.1, -0.3]));
        for (scale, expected) in [
            (Scale::None, [1.0, 1.0, 1.0]),
            (Scale::Shift, [0.5, 1.0, 0.25]),
            (Scale::MeanAbs, [0.7, 0.0, 0.2]),
            (Scale::MeanAbsThrough, [0.7, 0.0, 0.2]),
            (Scale::LayerMean, [0.3, 0.3, 0.3]),
            (Scale::LayerMeanThrough, [0.3, 0.3, 0.3]),
            (Scale::Std, [0.7, 0.0, 0.2]),
            (Scale::Learned, [0.7, 0.0, 0.2]),
        ] {
            for (found, expected) in scale.of(&w, &w).value().iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{scale:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn scales_on_the_tape_pass_the_gradient_check() {
        for scale in [Scale::MeanAbsThrough, Scale::LayerMeanThrough, Scale::Std] {
            gradcheck([&[3, 2, 2, 2]], |[w]| scale.of(&w, &w));
        }
    }
}
