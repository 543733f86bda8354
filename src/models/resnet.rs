//! Residual networks: ResNet-20 for small images, ResNet-18 and -34.

use super::maker::{Maker, deepened, depth, widened, width};
use crate::nn::{BatchNorm, Between, Conv2d, Linear, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Var};

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
/// `depth` multiplies the blocks of each stage, rounded up: `resnet20(depth=3)` is ResNet-56.
///
/// Stem, 1x1 shortcuts and dense layer stay in float, as in Bi-Real Net (Liu et al., 2018, arXiv
/// 1808.00278). Behind each sum stands the activation, so the stream that a `Hardtanh` ends is clipped
/// to ±1.
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    pool: bool,
    between: Between,
    blocks: Vec<Block>,
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
    /// `NAME(width=1, depth=1, shortcut=normal)`
    pub(super) fn of(
        plan: &Plan,
        options: &mut Options<'_>,
        mut maker: Maker<'_>,
    ) -> Result<Self, Error> {
        let (width, depth) = (width(options)?, depth(options)?);
        let words = [("normal", Shortcut::Normal), ("bireal", Shortcut::BiReal)];
        let shortcut = options.word("shortcut", Shortcut::Normal, &words)?;
        maker.at_least(plan.name, 1 << (plan.blocks.len() - 1))?;
        let (channels, mut input) = maker.images();
        let size = input[0].min(input[1]);
        let mut from = widened(plan.channels, width);
        let (k, how) = match plan.small || size < 64 {
            true => (3, Conv::same(3)),
            false => (7, Conv::same(7).stride(2)),
        };
        let stem = maker.float_conv2d("conv1", [channels, from, k], how);
        let norm = maker.norm("bn1", from);
        let between = maker.between("act1", from);
        let pool = !plan.small && size >= 128;
        // Each layer of stride 2 leaves half of the pixels, rounded up.
        let halved = |size: [usize; 2]| size.map(|s| s.div_ceil(2));
        for _ in 0..usize::from(k == 7) + usize::from(pool) {
            input = halved(input);
        }
        let mut blocks = Vec::new();
        for (stage, &many) in plan.blocks.iter().enumerate() {
            let to = widened(plan.channels << stage, width);
            for i in 0..deepened(many, depth) {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                let steps = (stride, shortcut, input);
                let mut block = Block::new(&mut maker, &name, [from, to], steps);
                if stride == 2 {
                    input = halved(input);
                }
                if !plan.small && (stride > 1 || from != to) {
                    block.project(&mut maker, &name);
                }
                blocks.push(block);
                from = to;
            }
        }
        let head = maker.head("fc", from);
        Ok(ResNet { stem, norm, pool, between, blocks, head })
    }
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = self.between.behind(&self.norm, &self.stem.forward(x), None);
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
    act1: Between,
    conv2: Box<dyn Module>,
    bn2: BatchNorm,
    act2: Between,
    /// What the shortcut goes through, if not as it is or by option A.
    projection: Option<(Conv2d, BatchNorm)>,
    channels: [usize; 2],
    stride: usize,
    shortcut: Shortcut,
}

impl Block {
    fn new(
        maker: &mut Maker<'_>,
        name: &str,
        channels: [usize; 2],
        (stride, shortcut, input): (usize, Shortcut, [usize; 2]),
    ) -> Self {
        let [from, to] = channels;
        let inner = input.map(|s| s.div_ceil(stride));
        let conv = |maker: &mut Maker<'_>, i: usize, from, stride, input| {
            let (name, how) = (format!("{name}.conv{i}"), Conv::same(3).stride(stride));
            maker.conv2d(&name, [from, to, 3], how, input)
        };
        Block {
            conv1: conv(maker, 1, from, stride, input),
            bn1: maker.norm(&format!("{name}.bn1"), to),
            act1: maker.between(&format!("{name}.act1"), to),
            conv2: conv(maker, 2, to, 1, inner),
            bn2: maker.norm(&format!("{name}.bn2"), to),
            act2: maker.between(&format!("{name}.act2"), to),
            projection: None,
            channels,
            stride,
            shortcut,
        }
    }

    /// Has the shortcut widen by a 1x1 convolution and a batch norm.
    fn project(&mut self, maker: &mut Maker<'_>, name: &str) {
        let [from, to] = self.channels;
        let how = Conv::valid().stride(self.stride);
        let conv = maker.float_conv2d(&format!("{name}.downsample.0"), [from, to, 1], how);
        let norm = maker.norm(&format!("{name}.downsample.1"), to);
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
        let around = self.around(x);
        let first = self.conv1.forward(x);
        match self.shortcut {
            Shortcut::Normal => {
                let x = self.act1.behind(&self.bn1, &first, None);
                self.act2.behind(&self.bn2, &self.conv2.forward(&x), Some(&around))
            }
            Shortcut::BiReal => {
                let x = self.act1.behind(&self.bn1, &first, Some(&around));
                self.act2.behind(&self.bn2, &self.conv2.forward(&x), Some(&x))
            }
        }
    }
}
