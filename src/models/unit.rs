//! Convolution, batch norm and what stands behind them: the unit that mobile networks are made of.

use super::maker::Maker;
use super::too_small;
use crate::nn::{BatchNorm, Between, Module};
use crate::ops::Conv;
use crate::{Error, Var};

/// A convolution, its batch norm, and what stands between layers. Their parameters are named
/// `NAME.0`, `NAME.1` and, where something is learned between layers, `NAME.2`, as those of
/// torchvision's `Conv2dNormActivation` are.
pub(super) struct Unit {
    pub conv: Box<dyn Module>,
    pub norm: BatchNorm,
    pub between: Between,
}

impl Module for Unit {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        self.between.behind(&self.norm, &self.conv.forward(x), None)
    }
}

/// Makes the units of one network.
pub(super) struct Units<'m, 'a> {
    pub maker: &'m mut Maker<'a>,
    /// Whether a swish stands where activations stay float, or a relu.
    pub swish: bool,
}

impl Units<'_, '_> {
    /// 3x3, over all channels, in float.
    pub fn stem(&mut self, name: &str, [from, to]: [usize; 2], stride: usize) -> Unit {
        let how = Conv::same(3).stride(stride);
        let conv = self.maker.float_conv2d(&format!("{name}.0"), [from, to, 3], how);
        self.unit(name, to, Box::new(conv))
    }

    /// `k` x `k`, each channel by itself. `input` are height and width of the images, of which the
    /// stride leaves its part, rounded up.
    pub fn depthwise(
        &mut self,
        name: &str,
        channels: usize,
        (k, stride): (usize, usize),
        input: &mut [usize; 2],
    ) -> Unit {
        let filter = (k, Conv::same(k).stride(stride));
        let conv = self.maker.depthwise(&format!("{name}.0"), channels, filter, *input);
        *input = input.map(|s| s.div_ceil(stride));
        self.unit(name, channels, conv)
    }

    /// 1x1, by the method.
    pub fn pointwise(&mut self, name: &str, channels: [usize; 2], input: [usize; 2]) -> Unit {
        let conv = self.maker.pointwise(&format!("{name}.0"), channels, input);
        self.unit(name, channels[1], conv)
    }

    fn unit(&mut self, name: &str, channels: usize, conv: Box<dyn Module>) -> Unit {
        let norm = self.maker.norm(&format!("{name}.1"), channels);
        let between = self.maker.between(&format!("{name}.2"), channels);
        Unit { conv, norm, between: if self.swish { between.or_swish() } else { between } }
    }
}

/// The strides of a network without its first down-samplings, which images of this size are too small
/// for: all of them stay from 128 pixels on, below that all but one, and in any case no more than leave
/// 4x4 pixels.
///
/// # Errors
/// If the images are smaller than that from the start.
pub(super) fn strides_for<const N: usize>(
    arch: &str,
    maker: &Maker<'_>,
    mut strides: [usize; N],
) -> Result<[usize; N], Error> {
    const LEAST: usize = 4;
    let (_, [h, w]) = maker.images();
    let size = h.min(w);
    let halvings = strides.iter().filter(|&&stride| stride == 2).count();
    let most = if size < 128 { halvings - 1 } else { halvings };
    // Each leaves half of the pixels, rounded up.
    let remain = |&kept: &usize| size.div_ceil(1 << kept) >= LEAST;
    let kept = (0..=most).rev().find(remain).ok_or_else(|| too_small(arch, maker.task, LEAST))?;
    let first = strides.iter_mut().filter(|stride| **stride == 2).take(halvings - kept);
    first.for_each(|stride| *stride = 1);
    Ok(strides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Task;
    use crate::{Params, Rng};

    #[test]
    fn down_samplings_leave_four_by_four_pixels() {
        let kept = |h, w| {
            let task = Task { input: [1, h, w], classes: 2 };
            let (mut params, mut rng) = (Params::new(), Rng::seed(0));
            let method = "fp32".parse().unwrap();
            let maker = Maker::new(&mut params, &method, &task, &mut rng);
            strides_for("any", &maker, [2, 1, 2, 2, 1, 2, 2])
        };
        for (size, expected) in [
            (4, [1, 1, 1, 1, 1, 1, 1]),
            (8, [1, 1, 1, 1, 1, 1, 2]),
            (28, [1, 1, 1, 2, 1, 2, 2]),
            (32, [1, 1, 1, 2, 1, 2, 2]),
            (64, [1, 1, 2, 2, 1, 2, 2]),
            (112, [1, 1, 2, 2, 1, 2, 2]),
            (128, [2, 1, 2, 2, 1, 2, 2]),
            (224, [2, 1, 2, 2, 1, 2, 2]),
        ] {
            assert_eq!(kept(size, 300).unwrap(), expected, "{size}");
        }
        let message = kept(300, 3).unwrap_err().to_string();
        assert!(message.contains("images are 300x3, expected at least 4x4"), "{message}");
    }
}
