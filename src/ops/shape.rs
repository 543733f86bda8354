//! The same numbers, placed otherwise. Everything stays contiguous, so all but [`Var::reshape`]
//! copy.

use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::shape::{self, copy_channels};

impl<'t> Var<'t> {
    /// The same numbers under another shape.
    ///
    /// # Panics
    /// If the counts differ.
    #[track_caller]
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Var<'t> {
        let before = self.shape().to_vec();
        let y = self.value().reshape(shape);
        self.tape().record("reshape", y, [self], move |dy, _| [Some(dy.reshape(before))])
    }

    /// `N …` to `N` rows.
    ///
    /// # Panics
    /// If there is no batch dimension.
    #[track_caller]
    pub fn flatten(&self) -> Var<'t> {
        let &[n, ref inner @ ..] = self.shape() else { panic!("flatten: no batch in a scalar") };
        self.reshape([n, inner.iter().product()])
    }

    /// Rows to columns of a matrix.
    ///
    /// # Panics
    /// If it is no matrix.
    #[track_caller]
    pub fn transpose(&self) -> Var<'t> {
        let &[rows, cols] = self.shape() else {
            panic!("transpose: not a matrix: {:?}", self.shape())
        };
        let turn = |rows, cols, x: &[f32]| {
            Tensor::build([cols, rows], |y| {
                dirnet_kernels::elementwise::transpose(rows, cols, x, y);
            })
        };
        let y = turn(rows, cols, self.value());
        self.tape().record("transpose", y, [self], move |dy, _| [Some(turn(cols, rows, &dy))])
    }

    /// `len` entries from `start` on of the second dimension of `N C …`.
    ///
    /// ```text
    /// backward   dx = dy there, zero elsewhere
    /// ```
    ///
    /// # Panics
    /// If the range reaches beyond the channels.
    #[track_caller]
    pub fn narrow(&self, start: usize, len: usize) -> Var<'t> {
        let &[n, c, ref inner @ ..] = self.shape() else {
            panic!("narrow: no channels in shape {:?}", self.shape())
        };
        assert!(start + len <= c, "narrow: {start}..{} of {:?}", start + len, self.shape());
        let area: usize = inner.iter().product();
        let (before, shape) = (self.shape().to_vec(), [&[n, len], inner].concat());
        let y = Tensor::build(shape, |y| {
            copy_channels(self.value(), [c, start], y, [len, 0], len, area);
        });
        self.tape().describe(|| Op::Narrow { start });
        self.tape().record("narrow", y, [self], move |dy, _| {
            [Some(Tensor::build(before, |dx| {
                dx.fill(0.0);
                copy_channels(&dy, [len, 0], dx, [c, start], len, area);
            }))]
        })
    }

    /// Channels of zeros before and behind those of `N C …`: the shortcut of a residual block that
    /// widens without parameters ("option A" of He et al., 2015, arXiv 1512.03385).
    ///
    /// ```text
    /// backward   dx = the middle of dy
    /// ```
    ///
    /// # Panics
    /// If there are no channels.
    #[track_caller]
    pub fn pad_channels(&self, before: usize, behind: usize) -> Var<'t> {
        let &[n, c, ref inner @ ..] = self.shape() else {
            panic!("pad_channels: no channels in shape {:?}", self.shape())
        };
        let (area, wide) = (inner.iter().product(), before + c + behind);
        let (old, shape) = (self.shape().to_vec(), [&[n, wide], inner].concat());
        let y = Tensor::build(shape, |y| {
            y.fill(0.0);
            copy_channels(self.value(), [c, 0], y, [wide, before], c, area);
        });
        self.tape().describe(|| Op::PadChannels { before });
        self.tape().record("pad_channels", y, [self], move |dy, _| {
            [Some(Tensor::build(old, |dx| copy_channels(&dy, [wide, before], dx, [c, 0], c, area)))]
        })
    }

    /// Every `step`-th pixel of `N C H W`, in both directions, the first one included.
    ///
    /// ```text
    /// backward   dx = dy at those pixels, zero elsewhere
    /// ```
    ///
    /// # Panics
    /// If it is no batch of images, or the step is zero.
    #[track_caller]
    pub fn subsample(&self, step: usize) -> Var<'t> {
        self.subsample_from(0, step)
    }

    /// The same from pixel `start` on; where that reaches beyond the image, its last pixel takes the
    /// place, so that as many come out whatever the start.
    ///
    /// # Panics
    /// If it is no batch of images, or the step is zero.
    #[track_caller]
    pub fn subsample_from(&self, start: usize, step: usize) -> Var<'t> {
        let &[n, c, h, w] = self.shape() else {
            panic!("subsample: images are N C H W, not {:?}", self.shape())
        };
        assert!(step > 0, "subsample: every pixel is step 1");
        let y = Tensor::build([n, c, h.div_ceil(step), w.div_ceil(step)], |y| {
            shape::subsample([h, w], start, step, self.value(), y);
        });
        self.tape().describe(|| Op::Subsample { start, step });
        self.tape().record("subsample", y, [self], move |dy, _| {
            [Some(Tensor::build([n, c, h, w], |dx| {
                shape::subsample_dx([h, w], start, step, &dy, dx);
            }))]
        })
    }
}

/// Values of one batch, one after the other along the channels of `N C …`.
///
/// ```text
/// backward   each gets its part of dy
/// ```
///
/// # Panics
/// If there is none, or they differ in more than the channels.
#[track_caller]
pub fn concat<'t>(parts: &[&Var<'t>]) -> Var<'t> {
    let first = parts.first().expect("concat: of at least one value");
    let &[n, _, ref inner @ ..] = first.shape() else {
        panic!("concat: no channels in shape {:?}", first.shape())
    };
    for part in parts {
        let same = part.shape().len() == first.shape().len()
            && part.shape()[0] == n
            && part.shape()[2..] == *inner;
        assert!(same, "concat: {:?} beside {:?}", part.shape(), first.shape());
    }
    let widths: Vec<usize> = parts.iter().map(|part| part.shape()[1]).collect();
    let (inner, area) = (inner.to_vec(), inner.iter().product());
    let wide: usize = widths.iter().sum();
    let y = Tensor::build([&[n, wide], &*inner].concat(), |y| {
        let mut at = 0;
        for (part, &c) in parts.iter().zip(&widths) {
            copy_channels(part.value(), [c, 0], y, [wide, at], c, area);
            at += c;
        }
    });
    first.tape().record_many("concat", y, parts, move |dy, wanted| {
        let mut at = 0;
        let part = |(&c, &wanted): (&usize, &bool)| {
            let start = at;
            at += c;
            wanted.then(|| {
                Tensor::build([&[n, c], &*inner].concat(), |dx| {
                    copy_channels(&dy, [wide, start], dx, [c, 0], c, area);
                })
            })
        };
        widths.iter().zip(wanted).map(part).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::concat as join;
    use crate::{Params, Tape, Tensor, gradcheck};

    #[test]
    fn reshape() {
        gradcheck([&[2, 3, 4]], |[x]| x.reshape([4, 6]).square());
        gradcheck([&[2, 3, 4]], |[x]| x.flatten().square());
    }
    #[test]
    fn transpose() {
        gradcheck([&[2, 3]], |[x]| x.transpose().square());
    }
    #[test]
    fn narrow() {
        gradcheck([&[2, 5, 3]], |[x]| x.narrow(1, 3).square());
    }
    #[test]
    fn pad_channels() {
        gradcheck([&[2, 3, 2, 2]], |[x]| x.pad_channels(1, 2).square());
    }
    #[test]
    fn subsample() {
        gradcheck([&[2, 2, 5, 4]], |[x]| x.subsample(2).square());
        gradcheck([&[1, 2, 5, 4]], |[x]| x.subsample(3).square());
        gradcheck([&[2, 1, 5, 4]], |[x]| x.subsample_from(1, 2).square());
        let params = Params::new();
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::new([1, 1, 1, 5], vec![0.0, 1.0, 2.0, 3.0, 4.0]));
        assert_eq!(**x.subsample_from(1, 2).value(), [1.0, 3.0, 4.0]);
    }
    #[test]
    fn concat() {
        gradcheck([&[2, 3, 2], &[2, 1, 2]], |[a, b]| join(&[&a, &b, &a]).square());
    }
}
