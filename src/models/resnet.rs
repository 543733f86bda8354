//! ResNet-20 for small images.

use super::{Task, activation, too_small, widened, width};
use crate::binarize::Method;
use crate::nn::{self, Activation, BatchNorm, Conv2d, Linear, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Params, Rng, Var};

/// Where the real-valued stream goes around a binary convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// Around both convolutions of a block (He et al., 2015, arXiv 1512.03385).
    Normal,
    /// Around each convolution (Liu et al., 2018, arXiv 1808.00278): more of what is no sign
    /// survives.
    BiReal,
}

/// Three stages of three blocks of two 3x3 convolutions, 16, 32 and 64 channels wide (He et al.,
/// 2015, arXiv 1512.03385, section 4.2).
///
/// First convolution and dense layer stay in float. A shortcut that widens takes every second pixel
/// and pads with channels of zeros ("option A"): it has no parameters and stays in float. Behind
/// each sum stands the activation, so the stream that a `Hardtanh` ends is clipped to ±1.
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Block>,
    activation: Activation,
    head: Linear,
}

impl ResNet {
    /// `resnet20(width=1, shortcut=normal)`
    pub(super) fn of(
        options: &mut Options<'_>,
        params: &mut Params,
        method: &Method,
        task: &Task,
        rng: &mut Rng,
    ) -> Result<Self, Error> {
        let width = width(options)?;
        let words = [("normal", Shortcut::Normal), ("bireal", Shortcut::BiReal)];
        let shortcut = options.word("shortcut", Shortcut::Normal, &words)?;
        let [channels, h, w] = task.input;
        if h < 4 || w < 4 {
            return Err(too_small("resnet20", task, 4));
        }
        let widths = [16, 32, 64].map(|channels| widened(channels, width));
        let mut from = widths[0];
        let stem = Conv2d::new(params, "conv1", [channels, from, 3], Conv::same(3), rng);
        let norm = BatchNorm::new(params, "bn1", from);
        let mut blocks = Vec::new();
        for (stage, to) in widths.into_iter().enumerate() {
            for i in 0..3 {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                blocks.push(Block::new(params, &name, [from, to], stride, shortcut, method, rng));
                from = to;
            }
        }
        let head = Linear::new(params, "fc", from, task.classes, rng);
        Ok(ResNet { stem, norm, blocks, activation: activation(method), head })
    }
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = self.norm.forward_act(&self.stem.forward(x), None, self.activation);
        for block in &self.blocks {
            x = block.forward(&x);
        }
        self.head.forward(&x.global_avg_pool())
    }
}

/// Two convolutions, each with a batch norm, and the stream around them.
pub struct Block {
    conv1: Box<dyn Module>,
    bn1: BatchNorm,
    conv2: Box<dyn Module>,
    bn2: BatchNorm,
    channels: [usize; 2],
    stride: usize,
    shortcut: Shortcut,
    activation: Activation,
}

impl Block {
    fn new(
        params: &mut Params,
        name: &str,
        channels: [usize; 2],
        stride: usize,
        shortcut: Shortcut,
        method: &Method,
        rng: &mut Rng,
    ) -> Self {
        let [from, to] = channels;
        let mut conv = |params: &mut Params, i: usize, from, stride| {
            let (name, how) = (format!("{name}.conv{i}"), Conv::same(3).stride(stride));
            nn::conv2d(params, &name, [from, to, 3], how, method, rng)
        };
        Block {
            conv1: conv(params, 1, from, stride),
            bn1: BatchNorm::new(params, &format!("{name}.bn1"), to),
            conv2: conv(params, 2, to, 1),
            bn2: BatchNorm::new(params, &format!("{name}.bn2"), to),
            channels,
            stride,
            shortcut,
            activation: activation(method),
        }
    }

    fn around<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let [from, to] = self.channels;
        let x = if self.stride == 1 { x.clone() } else { x.subsample(self.stride) };
        if from == to {
            return x;
        }
        let extra = to - from;
        x.pad_channels(extra / 2, extra - extra / 2)
    }
}

impl Module for Block {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let act = self.activation;
        let around = self.around(x);
        let first = self.conv1.forward(x);
        match self.shortcut {
            Shortcut::Normal => {
                let x = self.bn1.forward_act(&first, None, act);
                self.bn2.forward_act(&self.conv2.forward(&x), Some(&around), act)
            }
            Shortcut::BiReal => {
                let x = self.bn1.forward_act(&first, Some(&around), act);
                self.bn2.forward_act(&self.conv2.forward(&x), Some(&x), act)
            }
        }
    }
}
