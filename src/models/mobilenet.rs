//! MobileNet-V1: a depthwise and a pointwise convolution in turn.

use super::maker::{Maker, binary_depthwise, widened, width};
use super::unit::{Unit, Units, strides_for};
use crate::nn::{Linear, Module};
use crate::spec::Options;
use crate::{Error, Var};

/// The channels behind the 3x3 stem and those of each block, with the stride of its depthwise
/// convolution: table 1 of the paper, without the four blocks that repeat the seventh. Its last stride
/// of 2 would not fit its own sizes; it is 1.
const STEM: (usize, usize) = (32, 2);
const BLOCKS: [(usize, usize); 9] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1), // as often as `depth` says
    (1024, 2),
    (1024, 1),
];
const REPEATED: usize = 6;

/// 13 blocks of a 3x3 depthwise and a 1x1 "pointwise" convolution, each with its batch norm and
/// activation, between a 3x3 stem and one dense layer (Howard et al., 2017, arXiv 1704.04861, table 1).
/// `depth` says how many of the five blocks of 512 channels there are that keep their size.
///
/// Parameters are named as those of nested sequences: `features.0` is the stem, `features.I.0` and
/// `features.I.1` are the depthwise and the pointwise unit of the `I`th block, each with its
/// convolution `0`, its batch norm `1`, and `2` where something is learned between layers; `classifier`
/// is the dense layer.
///
/// Images of less than 128 pixels do without the first down-samplings: from 64 on without the stem's,
/// below without as many as it takes for 4x4 pixels to remain, two of five at 28 or 32.
///
/// What is binary are the pointwise convolutions: 95 % of the multiply-adds, 74 % of the parameters.
/// Stem and dense layer stay in float as in other binary networks, and so do the depthwise ones,
/// unless `depthwise=binary`: the sum of nine signs takes ten values, too few to tell much (Phan et
/// al., 2020, arXiv 2005.06305), so binary MobileNets put convolutions over more channels in their
/// place (Phan et al., 2019, arXiv 1907.12629; ReActNet, Liu et al., 2020, arXiv 2003.03488), and Kim et
/// al., 2025 (arXiv 2511.17633), find none that trained before theirs, of 1.58 bits. Here the network
/// stays the one of the figure. Binary depthwise convolutions count bits forward, but compute both
/// gradients from floats.
///
/// Before each sign stands what the method has between layers, never the paper's ReLU, which is
/// where activations stay float.
pub struct MobileNet {
    stem: Unit,
    blocks: Vec<[Unit; 2]>,
    head: Linear,
}

impl MobileNet {
    /// `mobilenet-v1(width=1, depth=5, depthwise=float)`
    pub(super) fn of(options: &mut Options<'_>, mut maker: Maker<'_>) -> Result<Self, Error> {
        let width = width(options)?;
        let depth = options.get("depth", 5usize)?;
        if depth > 64 {
            return Err(Error::Setting(format!(
                "mobilenet-v1: depth is {depth}, expected 0 to 64"
            )));
        }
        maker.binary_depthwise = binary_depthwise(options)?;
        let mut strides = [STEM.1; 1 + BLOCKS.len()];
        strides[1..].copy_from_slice(&BLOCKS.map(|(_, stride)| stride));
        let [stride, strides @ ..] = strides_for("mobilenet-v1", &maker, strides)?;

        let (images, size) = maker.images();
        let mut units = Units { maker: &mut maker, swish: false };
        let mut from = widened(STEM.0, width);
        let stem = units.stem("features.0", [images, from], stride);
        let mut input = size.map(|s| s.div_ceil(stride));
        let mut blocks = Vec::new();
        for (i, stride) in strides.into_iter().enumerate() {
            let to = widened(BLOCKS[i].0, width);
            for _ in 0..if i == REPEATED { depth } else { 1 } {
                let name = format!("features.{}", blocks.len() + 1);
                blocks.push([
                    units.depthwise(&format!("{name}.0"), from, (3, stride), &mut input),
                    units.pointwise(&format!("{name}.1"), [from, to], input),
                ]);
                from = to;
            }
        }
        let head = maker.head("classifier", from);
        Ok(MobileNet { stem, blocks, head })
    }
}

impl Module for MobileNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = self.stem.forward(x);
        for [depthwise, pointwise] in &self.blocks {
            x = pointwise.forward(&depthwise.forward(&x));
            x.representation();
        }
        self.head.forward(&x.global_avg_pool())
    }
}
