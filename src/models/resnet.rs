//! Residual networks: ResNet-20 for small images, ResNet-18 and -34.

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

/// Stages of blocks of two 3x3 convolutions (He et al., 2015, arXiv 1512.03385): `resnet18` and
/// `resnet34` of table 1, `resnet20` of section 4.2.
///
/// | | blocks a stage | channels | shortcut that widens | stem |
/// | --- | --- | --- | --- | --- |
/// | `resnet18` | 2, 2, 2, 2 | 64 128 256 512 | 1x1 convolution and batch norm | by the image's size |
/// | `resnet34` | 3, 4, 6, 3 | 64 128 256 512 | 1x1 convolution and batch norm | by the image's size |
/// | `resnet20` | 3, 3, 3 | 16 32 64 | every second pixel, channels of zeros ("option A") | 3x3 |
///
/// The stem of `resnet18` and `resnet34` is the 7x7 convolution of stride 2 and the 3x3 max-pool from
/// 128 pixels on, the convolution alone from 64 on, and a 3x3 convolution of stride 1 below.
///
/// Stem, 1x1 shortcuts and dense layer stay in float, as in Bi-Real Net (Liu et al., 2018, arXiv
/// 1808.00278). Behind each sum stands the activation, so the stream that a `Hardtanh` ends is clipped
/// to ±1.
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    pool: bool,
    blocks: Vec<Block>,
    activation: Activation,
    head: Linear,
}

/// What tells one residual network from another.
pub(super) struct Plan {
    name: &'static str,
    blocks: &'static [usize],
    channels: usize,
    /// Small images only, and no parameters in a shortcut.
    small: bool,
}

pub(super) const RESNET18: Plan =
    Plan { name: "resnet18", blocks: &[2, 2, 2, 2], channels: 64, small: false };
pub(super) const RESNET34: Plan =
    Plan { name: "resnet34", blocks: &[3, 4, 6, 3], channels: 64, small: false };
pub(super) const RESNET20: Plan =
    Plan { name: "resnet20", blocks: &[3, 3, 3], channels: 16, small: true };

impl ResNet {
    /// `NAME(width=1, shortcut=normal)`
    pub(super) fn of(
        plan: &Plan,
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
        let least = 1 << (plan.blocks.len() - 1);
        if h < least || w < least {
            return Err(too_small(plan.name, task, least));
        }
        let size = h.min(w);
        let mut from = widened(plan.channels, width);
        let (k, how) = match plan.small || size < 64 {
            true => (3, Conv::same(3)),
            false => (7, Conv::same(7).stride(2)),
        };
        let stem = Conv2d::new(params, "conv1", [channels, from, k], how, rng);
        let norm = BatchNorm::new(params, "bn1", from);
        let mut blocks = Vec::new();
        for (stage, &many) in plan.blocks.iter().enumerate() {
            let to = widened(plan.channels << stage, width);
            for i in 0..many {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                let mut block =
                    Block::new(params, &name, [from, to], stride, shortcut, method, rng);
                if !plan.small && (stride > 1 || from != to) {
                    block.project(params, &name, rng);
                }
                blocks.push(block);
                from = to;
            }
        }
        let head = Linear::new(params, "fc", from, task.classes, rng);
        let pool = !plan.small && size >= 128;
        Ok(ResNet { stem, norm, pool, blocks, activation: activation(method), head })
    }
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = self.norm.forward_act(&self.stem.forward(x), None, self.activation);
        if self.pool {
            x = x.max_pool2d(3, 2, 1);
        }
        for block in &self.blocks {
            x = block.forward(&x);
            x.representation();
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
    /// What the shortcut goes through, if not as it is or by option A.
    projection: Option<(Conv2d, BatchNorm)>,
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
            projection: None,
            channels,
            stride,
            shortcut,
            activation: activation(method),
        }
    }

    /// Has the shortcut widen by a 1x1 convolution and a batch norm.
    fn project(&mut self, params: &mut Params, name: &str, rng: &mut Rng) {
        let [from, to] = self.channels;
        let how = Conv::valid().stride(self.stride);
        let conv = Conv2d::new(params, &format!("{name}.downsample.0"), [from, to, 1], how, rng);
        let norm = BatchNorm::new(params, &format!("{name}.downsample.1"), to);
        self.projection = Some((conv, norm));
    }

    fn around<'t>(&self, x: &Var<'t>) -> Var<'t> {
        if let Some((conv, norm)) = &self.projection {
            return norm.forward(&conv.forward(x));
        }
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
