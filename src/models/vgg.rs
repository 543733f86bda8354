//! VGG-Small: six convolutions in three pairs.

use super::{Task, too_small, widened, width};
use crate::binarize::Method;
use crate::nn::{self, BatchNorm, Between, Conv2d, Linear, Module};
use crate::ops::Conv;
use crate::spec::Options;
use crate::{Error, Params, Rng, Var};

/// `128-128-pool-256-256-pool-512-512-pool-dense`, all 3x3 (Zhang et al., 2018, arXiv 1807.10029).
///
/// First convolution and dense layer stay in float. The order is convolution, pool, batch norm,
/// activation, as in IR-Net's code (Qin et al., 2020, arXiv 1909.10788): the integers of a binary
/// convolution are pooled before anything else happens to them.
pub struct Vgg {
    stages: Vec<Stage>,
    head: Linear,
}

struct Stage {
    conv: Box<dyn Module>,
    pool: bool,
    norm: BatchNorm,
    between: Between,
}

impl Vgg {
    /// `vgg-small(width=1)`
    pub(super) fn of(
        options: &mut Options<'_>,
        params: &mut Params,
        method: &Method,
        task: &Task,
        rng: &mut Rng,
    ) -> Result<Self, Error> {
        let width = width(options)?;
        let [mut from, h, w] = task.input;
        if h < 8 || w < 8 {
            return Err(too_small("vgg-small", task, 8));
        }
        let mut stages = Vec::new();
        for (i, channels) in [128, 128, 256, 256, 512, 512].into_iter().enumerate() {
            let to = widened(channels, width);
            let size = [h >> (i / 2), w >> (i / 2)];
            let (name, filter, how) = (format!("conv{i}"), [from, to, 3], Conv::same(3));
            let conv: Box<dyn Module> = match i {
                0 => Box::new(Conv2d::new(params, &name, filter, how, rng)),
                _ => nn::conv2d(params, &name, filter, how, size, method, rng),
            };
            let norm = BatchNorm::new(params, &format!("bn{i}"), to);
            let between = Between::new(params, &format!("act{i}"), to, method);
            stages.push(Stage { conv, pool: i % 2 == 1, norm, between });
            from = to;
        }
        let head = Linear::new(params, "fc", from * (h / 8) * (w / 8), task.classes, rng);
        Ok(Vgg { stages, head })
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
        self.head.forward(&x.flatten())
    }
}
