//! EfficientNet-B0: inverted bottlenecks with squeeze and excitation.

use super::maker::{Maker, binary_depthwise, deepened, depth, widened, width};
use super::unit::{Unit, Units, strides_for};
use crate::nn::{Activation, BatchNorm, Linear, Module, SqueezeExcitation};
use crate::spec::Options;
use crate::{Error, Var};

/// The stages of table 1 of the paper: factor that a block expands its channels by, side of the depthwise
/// filter, stride of the first block, channels, blocks.
const STAGES: [[usize; 5]; 7] = [
    [1, 3, 1, 16, 1],
    [6, 3, 2, 24, 2],
    [6, 5, 2, 40, 2],
    [6, 3, 2, 80, 3],
    [6, 5, 1, 112, 3],
    [6, 5, 2, 192, 4],
    [6, 3, 1, 320, 1],
];
const STEM: (usize, usize) = (32, 2);
const HEAD: usize = 1280;

/// Seven stages of inverted bottlenecks between a 3x3 stem and a 1x1 convolution with one dense layer (Tan
/// and Le, 2019, arXiv 1905.11946, table 1): a 1x1 convolution expands the channels, a depthwise one works on
/// them, [`SqueezeExcitation`] gates them, a 1x1 convolution projects them back with no activation
/// behind, and what came in is added where it fits. Parameters are named as those of torchvision's
/// `efficientnet_b0`; where something is learned between layers, it follows its batch norm `1` as `2`.
///
/// `depth` multiplies the blocks of each stage, rounded up. In training, block `i` of `n`, counted from 0,
/// adds nothing to an image that came in with probability `drop_connect · i/n`, and `dropout` is that of
/// a number before the dense layer.
///
/// Images of less than 128 pixels do without the first down-samplings: from 64 on without the stem's,
/// below without as many as it takes for 4x4 pixels to remain, two of five at 28 or 32.
///
/// What is binary are the 1x1 convolutions, three fifths of the parameters. Stem, dense layer, the gates
/// and, unless `depthwise=binary`, the depthwise convolutions stay in float, for the reasons given at
/// [`MobileNet`](super::MobileNet); gates of binary networks are in float in Real-to-Binary as well
/// (Martinez et al., 2020, arXiv 2003.11535). Before the sign of a projection stands what the method has
/// between layers, before that of an expansion nothing but the sum of batch norms; swish is where
/// activations stay float.
///
/// A sign does not see a positive factor, so a gate right before one would do nothing. Where
/// activations are signs it stands before the depthwise convolution's batch norm, which
/// lets it move numbers across zero; else behind the activation, as in the paper.
pub struct EfficientNet {
    stem: Unit,
    blocks: Vec<Block>,
    last: Unit,
    dropout: f32,
    head: Linear,
}

impl EfficientNet {
    /// `efficientnet-b0(width=1, depth=1, depthwise=float, drop_connect=0.2, dropout=0.2)`
    pub(super) fn of(options: &mut Options<'_>, mut maker: Maker<'_>) -> Result<Self, Error> {
        let (width, depth) = (width(options)?, depth(options)?);
        maker.binary_depthwise = binary_depthwise(options)?;
        let drop_connect = options.number("drop_connect", 0.2, 0.0..=0.9)?;
        let dropout = options.number("dropout", 0.2, 0.0..=0.9)?;
        let mut strides = [STEM.1; 1 + STAGES.len()];
        strides[1..].copy_from_slice(&STAGES.map(|[_, _, stride, ..]| stride));
        let [stride, strides @ ..] = strides_for("efficientnet-b0", &maker, strides)?;

        let (images, size) = maker.images();
        let mut units = Units { maker: &mut maker, swish: true };
        let mut from = widened(STEM.0, width);
        let stem = units.stem("features.0", [images, from], stride);
        let mut input = size.map(|s| s.div_ceil(stride));
        let counts = STAGES.map(|[.., blocks]| deepened(blocks, depth));
        let all: usize = counts.iter().sum();
        let mut blocks = Vec::new();
        for (stage, [expand, k, _, channels, _]) in STAGES.into_iter().enumerate() {
            let to = widened(channels, width);
            for i in 0..counts[stage] {
                let name = format!("features.{}.{i}.block", stage + 1);
                let stride = if i == 0 { strides[stage] } else { 1 };
                let drop = drop_connect * blocks.len() as f32 / all as f32;
                let shape = ([from, from * expand, to], (k, stride));
                blocks.push(Block::new(&mut units, name, shape, &mut input, drop));
                from = to;
            }
        }
        let to = widened(HEAD, width);
        let last = units.pointwise(&format!("features.{}", STAGES.len() + 1), [from, to], input);
        let head = maker.head("classifier.1", to);
        Ok(EfficientNet { stem, blocks, last, dropout, head })
    }
}

impl Module for EfficientNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let mut x = self.stem.forward(x);
        for block in &self.blocks {
            x = block.forward(&x);
            x.representation();
        }
        let x = self.last.forward(&x).global_avg_pool();
        self.head.forward(&x.dropout(self.dropout, "classifier.0"))
    }
}

/// MBConv: an inverted bottleneck with its gate.
struct Block {
    name: String,
    expand: Option<Unit>,
    depthwise: Unit,
    gate: SqueezeExcitation,
    gate_first: bool,
    project: (Box<dyn Module>, BatchNorm),
    around: bool,
    drop: f32,
}

impl Block {
    fn new(
        units: &mut Units<'_, '_>,
        name: String,
        ([from, inner, to], (k, stride)): ([usize; 3], (usize, usize)),
        input: &mut [usize; 2],
        drop: f32,
    ) -> Self {
        // Counted through, so that a block that does not expand starts with its depthwise unit.
        let mut parts = 0..;
        let mut next =
            || format!("{name}.{}", parts.next().expect("there is always a next number"));
        let expand = (inner != from).then(|| units.pointwise(&next(), [from, inner], *input));
        let depthwise = units.depthwise(&next(), inner, (k, stride), input);
        let squeezed = [inner, (from / 4).max(1)];
        let gate = SqueezeExcitation::new(units.maker.params, &next(), squeezed, units.maker.rng);
        let last = next();
        let project = units.maker.pointwise(&format!("{last}.0"), [inner, to], *input);
        let norm = units.maker.norm(&format!("{last}.1"), to);
        Block {
            expand,
            depthwise,
            gate,
            gate_first: units.maker.method.activations.is_some(),
            project: (project, norm),
            around: stride == 1 && from == to,
            drop,
            name,
        }
    }
}

impl Module for Block {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let expanded = self.expand.as_ref().map(|unit| unit.forward(x));
        let Unit { conv, norm, between } = &self.depthwise;
        let inner = conv.forward(expanded.as_ref().unwrap_or(x));
        let inner = match self.gate_first {
            true => between.behind(norm, &self.gate.forward(&inner), None),
            false => self.gate.forward(&between.behind(norm, &inner, None)),
        };
        let (conv, norm) = &self.project;
        let y = conv.forward(&inner);
        if self.around && self.drop > 0.0 && x.tape().is_training() {
            return norm.forward(&y).drop_images(self.drop, &self.name) + x;
        }
        norm.forward_act(&y, self.around.then_some(x), Activation::Identity)
    }
}
