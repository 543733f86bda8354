//! VGG networks: VGG-Small for small images, and the convolutions of VGG-16.

use super::maker::{Maker, deepened, depth, widened, width};
use super::unit::strides_for;
use crate::nn::{BatchNorm, Between, Linear, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Var};

/// 3x3 convolutions in groups, each of which ends with a max-pool, then one dense layer.
///
/// | | channels | head | source |
/// | --- | --- | --- | --- |
/// | `vgg-small` | 128 128, 256 256, 512 512 | dense on all pixels that are left | Zhang et al., 2018, arXiv 1807.10029 |
/// | `vgg16` | 64 64, 128 128, 256 256 256, 512 512 512, 512 512 512 | dense on the mean of each channel | Simonyan and Zisserman, 2014, arXiv 1409.1556, column D |
///
/// `vgg16` has batch norms, as binary networks need them, and not the paper's two hidden dense layers: it
/// is there for what detectors use of it, its convolutions. Images of less than 128 pixels do without its
/// first max-pools: from 64 on without one, below without as many as it takes for 4x4 pixels to remain, or 3x3 of 28.
///
/// `depth` multiplies the convolutions of each group, rounded up: `vgg16(depth=0.5)` has those of VGG-11.
///
/// First convolution and dense layer stay in float. The order is convolution, pool, batch norm,
/// activation, as in IR-Net's code (Qin et al., 2020, arXiv 1909.10788): the integers of a binary
/// convolution are pooled before anything else happens to them.
pub struct Vgg {
    stages: Vec<Stage>,
    mean: bool,
    head: Linear,
}

/// What tells one from the other.
pub(super) struct Plan {
    name: &'static str,
    /// Channels and convolutions of each group.
    groups: &'static [(usize, usize)],
    /// Whether the dense layer sees the mean of each channel, and pools are left out for small images.
    mean: bool,
}

pub(super) const VGG_SMALL: Plan =
    Plan { name: "vgg-small", groups: &[(128, 2), (256, 2), (512, 2)], mean: false };
pub(super) const VGG16: Plan =
    Plan { name: "vgg16", groups: &[(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], mean: true };

struct Stage {
    conv: Box<dyn Module>,
    pool: bool,
    norm: BatchNorm,
    between: Between,
}

impl Vgg {
    /// `NAME(width=1, depth=1)`
    pub(super) fn of(
        plan: &Plan,
        options: &mut Options<'_>,
        mut maker: Maker<'_>,
    ) -> Result<Self, Error> {
        let (width, depth) = (width(options)?, depth(options)?);
        let (mut from, [mut h, mut w]) = maker.images();
        let mut pools = [2; 5];
        if plan.mean {
            pools = strides_for(plan.name, &maker, pools)?;
        } else {
            maker.at_least(plan.name, 1 << plan.groups.len())?;
        }
        let mut stages = Vec::new();
        for (&(channels, convs), pool) in plan.groups.iter().zip(pools) {
            let (to, convs) = (widened(channels, width), deepened(convs, depth));
            for i in 0..convs {
                let (at, filter, how) = (stages.len(), [from, to, 3], Conv::same(3));
                let name = format!("conv{at}");
                let conv: Box<dyn Module> = match at {
                    0 => Box::new(maker.float_conv2d(&name, filter, how)),
                    _ => maker.conv2d(&name, filter, how, [h, w]),
                };
                let norm = maker.norm(&format!("bn{at}"), to);
                let between = maker.between(&format!("act{at}"), to);
                let pool = i + 1 == convs && pool == 2;
                stages.push(Stage { conv, pool, norm, between });
                if pool {
                    (h, w) = (h / 2, w / 2);
                }
                from = to;
            }
        }
        let seen = if plan.mean { from } else { from * h * w };
        let head = maker.head("fc", seen);
        Ok(Vgg { stages, mean: plan.mean, head })
    }
}

impl Module for Vgg {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = x.clone();
        for (i, Stage { conv, pool, norm, between }) in self.stages.iter().enumerate() {
            x = conv.forward(&x);
            if *pool {
                x = x.max_pool2d(2, 2, 0);
            }
            x = between.behind(norm, &x, None);
            // As that of other networks, the stem is no block.
            if i > 0 {
                x.representation();
            }
        }
        self.head.forward(&if self.mean { x.global_avg_pool() } else { x.flatten() })
    }
}
