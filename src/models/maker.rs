//! What the parts of a network are made with.

use super::{Task, too_small};
use crate::binarize::Method;
use crate::nn::{self, BatchNorm, Between, Conv2d, Linear, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Params, Rng};

/// Makes the parts of one network, in the order in which they draw their first weights. Those that
/// follow the method are binary unless it leaves everything in float; the others never are.
pub(super) struct Maker<'a> {
    pub params: &'a mut Params,
    pub method: &'a Method,
    pub task: &'a Task,
    pub rng: &'a mut Rng,
    /// Whether depthwise convolutions follow the method, or stay in float.
    pub binary_depthwise: bool,
}

impl<'a> Maker<'a> {
    pub fn new(
        params: &'a mut Params,
        method: &'a Method,
        task: &'a Task,
        rng: &'a mut Rng,
    ) -> Self {
        Maker { params, method, task, rng, binary_depthwise: false }
    }

    /// Channels that come in, and height and width.
    pub fn images(&self) -> (usize, [usize; 2]) {
        let [channels, h, w] = self.task.input;
        (channels, [h, w])
    }

    /// Refuses images with less than so many pixels either way.
    pub fn at_least(&self, arch: &str, least: usize) -> Result<(), Error> {
        let (_, [h, w]) = self.images();
        if h.min(w) < least { Err(too_small(arch, self.task, least)) } else { Ok(()) }
    }

    /// In float: channels that come in and go out, and the side of the filter.
    pub fn float_conv2d(&mut self, name: &str, filter: [usize; 3], how: Conv) -> Conv2d {
        Conv2d::new(self.params, name, filter, how, self.rng)
    }

    /// By the method, for images of this height and width.
    pub fn conv2d(
        &mut self,
        name: &str,
        filter: [usize; 3],
        how: Conv,
        input: [usize; 2],
    ) -> Box<dyn Module> {
        nn::conv2d(self.params, name, filter, how, input, self.method, self.rng)
    }

    /// 1x1, by the method.
    pub fn pointwise(
        &mut self,
        name: &str,
        [from, to]: [usize; 2],
        input: [usize; 2],
    ) -> Box<dyn Module> {
        self.conv2d(name, [from, to, 1], Conv::valid(), input)
    }

    /// `k` x `k`, each channel by itself.
    pub fn depthwise(
        &mut self,
        name: &str,
        channels: usize,
        (k, how): (usize, Conv),
        input: [usize; 2],
    ) -> Box<dyn Module> {
        let (filter, how) = ([channels, channels, k], how.groups(channels));
        match self.binary_depthwise {
            true => self.conv2d(name, filter, how, input),
            false => Box::new(self.float_conv2d(name, filter, how)),
        }
    }

    pub fn norm(&mut self, name: &str, channels: usize) -> BatchNorm {
        BatchNorm::new(self.params, name, channels)
    }

    /// What the method has between two layers.
    pub fn between(&mut self, name: &str, channels: usize) -> Between {
        Between::new(self.params, name, channels, self.method)
    }

    /// The dense layer that tells the classes apart, in float.
    pub fn head(&mut self, name: &str, from: usize) -> Linear {
        Linear::new(self.params, name, from, self.task.classes, self.rng)
    }
}

/// The option that multiplies all channels.
pub(super) fn width(options: &mut Options<'_>) -> Result<f32, Error> {
    options.number("width", 1.0, 0.01..=16.0)
}

/// `width` times as many channels, rounded to a multiple of 8, at least 8; unchanged at width 1.
pub(super) fn widened(channels: usize, width: f32) -> usize {
    if width == 1.0 {
        return channels;
    }
    ((channels as f32 * width / 8.0).round() as usize * 8).max(8)
}

/// The option that multiplies the layers or blocks of each stage.
pub(super) fn depth(options: &mut Options<'_>) -> Result<f32, Error> {
    options.number("depth", 1.0, 0.01..=16.0)
}

/// `depth` times as many layers, rounded up.
pub(super) fn deepened(layers: usize, depth: f32) -> usize {
    (layers as f32 * depth).ceil() as usize
}

/// The option that says whether depthwise convolutions follow the method.
pub(super) fn binary_depthwise(options: &mut Options<'_>) -> Result<bool, Error> {
    options.word("depthwise", false, &[("float", false), ("binary", true)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_round_to_eights_and_depths_up() {
        assert_eq!((widened(128, 0.25), widened(16, 0.1), widened(16, 1.0)), (32, 8, 16));
        let depths = [(2, 0.5), (3, 0.5), (3, 0.01), (3, 3.0)].map(|(n, depth)| deepened(n, depth));
        assert_eq!(depths, [1, 2, 1, 9]);
    }
}
