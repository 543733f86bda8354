//! Convolution, batch norm and what stands behind them: the unit that mobile networks are made of.

use super::Task;
use crate::binarize::Method;
use crate::nn::{self, BatchNorm, Between, Conv2d, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Params, Rng, Var};

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

/// What the units of one network are made with.
pub(super) struct Units<'a> {
    pub params: &'a mut Params,
    pub method: &'a Method,
    pub rng: &'a mut Rng,
    /// Whether depthwise convolutions follow the method, or stay in float.
    pub binary_depthwise: bool,
    /// Whether a swish stands where activations stay float, or a relu.
    pub swish: bool,
}

impl Units<'_> {
    /// 3x3, over all channels, in float.
    pub fn stem(&mut self, name: &str, channels: [usize; 2], stride: usize) -> Unit {
        let ([from, to], how) = (channels, Conv::same(3).stride(stride));
        let conv = Conv2d::new(self.params, &format!("{name}.0"), [from, to, 3], how, self.rng);
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
        let how = Conv::same(k).stride(stride).groups(channels);
        let (filter, conv) = ([channels, channels, k], format!("{name}.0"));
        let conv: Box<dyn Module> = match self.binary_depthwise {
            true => nn::conv2d(self.params, &conv, filter, how, *input, self.method, self.rng),
            false => Box::new(Conv2d::new(self.params, &conv, filter, how, self.rng)),
        };
        *input = input.map(|s| s.div_ceil(stride));
        self.unit(name, channels, conv)
    }

    /// 1x1, by the method, with something between it and the next layer.
    pub fn pointwise(&mut self, name: &str, channels: [usize; 2], input: [usize; 2]) -> Unit {
        let conv = self.mix(&format!("{name}.0"), channels, input);
        self.unit(name, channels[1], conv)
    }

    /// The convolution of [`Units::pointwise`] alone.
    pub fn mix(&mut self, name: &str, channels: [usize; 2], input: [usize; 2]) -> Box<dyn Module> {
        let filter = [channels[0], channels[1], 1];
        nn::conv2d(self.params, name, filter, Conv::valid(), input, self.method, self.rng)
    }

    fn unit(&mut self, name: &str, channels: usize, conv: Box<dyn Module>) -> Unit {
        let norm = BatchNorm::new(self.params, &format!("{name}.1"), channels);
        let between = Between::new(self.params, &format!("{name}.2"), channels, self.method);
        Unit { conv, norm, between: if self.swish { between.or_swish() } else { between } }
    }
}

/// The option that says whether depthwise convolutions follow the method.
pub(super) fn binary_depthwise(options: &mut Options<'_>) -> Result<bool, Error> {
    options.word("depthwise", false, &[("float", false), ("binary", true)])
}

/// The strides of a network without its first down-samplings, which images of this size are too small
/// for: all of them stay from 128 pixels on, below that all but one, and in any case no more than leave
/// 4x4 pixels.
///
/// # Errors
/// If the images are smaller than that from the start.
pub(super) fn strides_for<const N: usize>(
    arch: &str,
    task: &Task,
    mut strides: [usize; N],
) -> Result<[usize; N], Error> {
    const LEAST: usize = 4;
    let size = task.input[1].min(task.input[2]);
    let halvings = strides.iter().filter(|&&stride| stride == 2).count();
    let most = if size < 128 { halvings - 1 } else { halvings };
    // Each leaves half of the pixels, rounded up.
    let remain = |&kept: &usize| size.div_ceil(1 << kept) >= LEAST;
    let kept = (0..=most).rev().find(remain).ok_or_else(|| super::too_small(arch, task, LEAST))?;
    let first = strides.iter_mut().filter(|stride| **stride == 2).take(halvings - kept);
    first.for_each(|stride| *stride = 1);
    Ok(strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_samplings_leave_four_by_four_pixels() {
        let kept = |h, w| {
            let task = Task { input: [1, h, w], classes: 2 };
            strides_for("any", &task, [2, 1, 2, 2, 1, 2, 2])
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
