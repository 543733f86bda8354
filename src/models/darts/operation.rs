//! What may stand on an edge of a cell.

use crate::error::unknown;
use crate::models::maker::Maker;
use crate::nn::{Activation, BatchNorm, Between, Module};
use crate::ops::{Conv, concat};
use crate::{Error, Tensor, Var};
use std::fmt;
use std::str::FromStr;

/// What may stand on an edge of a cell, each of as many channels as the cell has and of stride 2
/// where a cell that halves the images looks at the cells before (table of section 3.1 of Liu et al.,
/// 2019, arXiv 1806.09055). The eighth, `none`, is of a search only: an edge that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The largest of 3x3 pixels.
    MaxPool3,
    /// The mean of 3x3 pixels, those that lie inside the image.
    AvgPool3,
    /// Nothing; of stride 2, [`FactorizedReduce`].
    Skip,
    /// Activation, 3x3 depthwise and 1x1 convolution, batch norm, all of it twice.
    SepConv3,
    /// The same with 5x5.
    SepConv5,
    /// Activation, 3x3 depthwise convolution of every second pixel ("dilated"), 1x1 convolution, batch
    /// norm.
    DilConv3,
    /// The same with 5x5.
    DilConv5,
}

impl Operation {
    /// All of them, in the order of the authors' code.
    pub const ALL: [Operation; 7] = [
        Operation::MaxPool3,
        Operation::AvgPool3,
        Operation::Skip,
        Operation::SepConv3,
        Operation::SepConv5,
        Operation::DilConv3,
        Operation::DilConv5,
    ];

    /// As a genotype names it, and the authors' code.
    pub fn name(self) -> &'static str {
        match self {
            Operation::MaxPool3 => "max_pool_3x3",
            Operation::AvgPool3 => "avg_pool_3x3",
            Operation::Skip => "skip_connect",
            Operation::SepConv3 => "sep_conv_3x3",
            Operation::SepConv5 => "sep_conv_5x5",
            Operation::DilConv3 => "dil_conv_3x3",
            Operation::DilConv5 => "dil_conv_5x5",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Operation {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Operation::ALL
            .into_iter()
            .find(|operation| operation.name() == text)
            .ok_or_else(|| unknown("operation", text, &Operation::ALL.map(Operation::name)))
    }
}

/// Makes the operations of one network, and what stands before a cell.
pub(super) struct Operations<'m, 'a> {
    pub maker: &'m mut Maker<'a>,
    /// Whether it is a search: batch norms then learn nothing.
    pub searches: bool,
}

impl Operations<'_, '_> {
    fn norm(&mut self, name: &str, channels: usize) -> BatchNorm {
        match self.searches {
            true => BatchNorm::fixed(self.maker.params, name, channels),
            false => self.maker.norm(name, channels),
        }
    }

    /// Activation, 1x1 convolution, batch norm: `NAME.op.0` to `.2`.
    pub fn preprocess(
        &mut self,
        name: &str,
        [from, to]: [usize; 2],
        input: [usize; 2],
    ) -> Box<dyn Module> {
        Box::new(Stack(vec![
            Box::new(self.maker.between(&format!("{name}.op.0"), from)),
            self.maker.pointwise(&format!("{name}.op.1"), [from, to], input),
            Box::new(self.norm(&format!("{name}.op.2"), to)),
        ]))
    }

    /// See [`FactorizedReduce`].
    pub fn reduce(
        &mut self,
        name: &str,
        [from, to]: [usize; 2],
        input: [usize; 2],
    ) -> Box<dyn Module> {
        let between = self.maker.between(&format!("{name}.relu"), from);
        let input = halved(input);
        let mut half = |i, to| self.maker.pointwise(&format!("{name}.conv_{i}"), [from, to], input);
        let convs = [half(1, to / 2), half(2, to - to / 2)];
        Box::new(FactorizedReduce { between, convs, norm: self.norm(&format!("{name}.bn"), to) })
    }

    /// An operation of these channels, on images of this height and width.
    pub fn make(
        &mut self,
        operation: Operation,
        name: &str,
        (channels, stride): (usize, usize),
        input: [usize; 2],
    ) -> Box<dyn Module> {
        match operation {
            Operation::MaxPool3 => self.pool(name, channels, Pool { max: true, stride }),
            Operation::AvgPool3 => self.pool(name, channels, Pool { max: false, stride }),
            Operation::Skip if stride == 1 => Box::new(Activation::Identity),
            Operation::Skip => self.reduce(name, [channels, channels], input),
            Operation::SepConv3 => self.separable(name, channels, (3, stride), input),
            Operation::SepConv5 => self.separable(name, channels, (5, stride), input),
            Operation::DilConv3 => self.dilated(name, channels, (3, stride), input),
            Operation::DilConv5 => self.dilated(name, channels, (5, stride), input),
        }
    }

    /// With a batch norm behind it, `NAME.1`, in a search, and where activations are signs: the largest of
    /// numbers around 0 is above 0, and its sign would tell next to nothing.
    fn pool(&mut self, name: &str, channels: usize, pool: Pool) -> Box<dyn Module> {
        if !self.searches && self.maker.method.activations.is_none() {
            return Box::new(pool);
        }
        let norm = self.norm(&format!("{name}.1"), channels);
        Box::new(Stack(vec![Box::new(pool), Box::new(norm)]))
    }

    fn separable(
        &mut self,
        name: &str,
        channels: usize,
        (k, stride): (usize, usize),
        input: [usize; 2],
    ) -> Box<dyn Module> {
        let mut parts = self.filters(name, 0, channels, (k, Conv::same(k).stride(stride)), input);
        let input = if stride == 2 { halved(input) } else { input };
        parts.extend(self.filters(name, 4, channels, (k, Conv::same(k)), input));
        Box::new(Stack(parts))
    }

    fn dilated(
        &mut self,
        name: &str,
        channels: usize,
        (k, stride): (usize, usize),
        input: [usize; 2],
    ) -> Box<dyn Module> {
        let how = Conv::same(k).dilation(2).pad(k - 1).stride(stride);
        Box::new(Stack(self.filters(name, 0, channels, (k, how), input)))
    }

    /// Activation, depthwise and 1x1 convolution, batch norm: `NAME.op.FIRST` and the three after.
    fn filters(
        &mut self,
        name: &str,
        first: usize,
        channels: usize,
        (k, how): (usize, Conv),
        input: [usize; 2],
    ) -> Vec<Box<dyn Module>> {
        let part = |i: usize| format!("{name}.op.{}", first + i);
        let output = if how.stride == 2 { halved(input) } else { input };
        vec![
            Box::new(self.maker.between(&part(0), channels)),
            self.maker.depthwise(&part(1), channels, (k, how), input),
            self.maker.pointwise(&part(2), [channels, channels], output),
            Box::new(self.norm(&part(3), channels)),
        ]
    }
}

/// Height and width of what stride 2 leaves.
pub(super) fn halved(input: [usize; 2]) -> [usize; 2] {
    input.map(|s| s.div_ceil(2))
}

/// One after the other.
pub(super) struct Stack(pub Vec<Box<dyn Module>>);

impl Module for Stack {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        self.0.iter().fold(x.clone(), |x, part| part.forward(&x))
    }
}

/// Halves the images and loses no pixel row for it: half of the channels come from every second
/// pixel, the other half from those one further down and right, each through a 1x1 convolution.
pub struct FactorizedReduce {
    between: Between,
    convs: [Box<dyn Module>; 2],
    norm: BatchNorm,
}

impl Module for FactorizedReduce {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let x = self.between.forward(x);
        let [even, odd] =
            [0, 1].map(|start| self.convs[start].forward(&x.subsample_from(start, 2)));
        self.norm.forward(&concat(&[&even, &odd]))
    }
}

/// Of 3x3 pixels.
struct Pool {
    max: bool,
    stride: usize,
}

impl Module for Pool {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        if self.max {
            return x.max_pool2d(3, self.stride, 1);
        }
        // Padding does not count: divided by the share of the window that lies inside.
        let &[n, c, h, w] = x.shape() else { panic!("a pool: images are N C H W") };
        let inside = x.tape().constant(Tensor::full([1, 1, h, w], 1.0));
        let inside = inside.avg_pool2d(3, self.stride, 1).value().clone();
        let &[.., h, w] = inside.shape() else { unreachable!("a pool's output") };
        let grown = x.tape().constant(inside.map(|share| 1.0 / share)).reshape([h * w]);
        let pixels = x.avg_pool2d(3, self.stride, 1).reshape([n * c, h * w]);
        pixels.mul_channels(&grown).reshape([n, c, h, w])
    }
}
