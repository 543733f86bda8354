//! The operations that a trained network is made of, as a graph names them.

use dirnet_kernels::Conv;
use dirnet_kernels::bits::Pad;
use dirnet_kernels::norm_act::Activation;
use serde::{Deserialize, Serialize};

/// What is computed at one node of a [`Graph`](crate::Graph): a name and what is fixed about it.
///
/// `x` is the first input, a batch of images unless said otherwise; shapes are `N C …`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The images themselves.
    Input,
    /// `conv2d(x, w)`
    #[serde(rename = "conv2d")]
    Conv2d(#[serde(with = "ConvDef")] Conv),
    /// `then(sign(x) ⊛ sign(w))`: an exact integer for each output, and what is made of it at once.
    #[serde(rename = "bin_conv2d")]
    BinConv2d {
        /// How the filters move.
        #[serde(flatten, with = "ConvDef")]
        how: Conv,
        /// What lies outside the image.
        #[serde(rename = "outside", with = "PadDef")]
        pad: Pad,
        /// What becomes of the integer.
        then: Then,
    },
    /// `x · wᵀ` with `w` as `O K`.
    Linear,
    /// `scale · (sign(x) · sign(w)ᵀ)` with `w` as `O K`, and one scale a channel.
    BinLinear,
    /// `act(a·x + b)`, or `act(a·x + b + residual)` where there is a fourth input; one `a` and `b` a channel.
    Affine {
        /// What is applied at the end.
        #[serde(with = "ActivationDef")]
        act: Activation,
    },
    /// `x + b`, one number a channel.
    AddChannels,
    /// `a · x`, one number a channel.
    MulChannels,
    /// `k · x`, one number a pixel.
    MulPixels,
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `factor · x`
    Scale {
        /// The number.
        factor: f32,
    },
    /// `x + by`
    Shift {
        /// The number.
        by: f32,
    },
    /// `max(x, 0)`
    Relu,
    /// `clamp(x, -1, 1)`
    Hardtanh,
    /// `clamp(x, low, high)`
    Clamp {
        /// No less than this.
        low: f32,
        /// No more than this.
        high: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x · sigmoid(x)`
    Swish,
    /// `|x|`
    Abs,
    /// `x` above zero, else `a · x`, one number a channel.
    Prelu,
    /// `prelu(x - g) + z` by `g`, the slope and `z`, one of each a channel.
    Rprelu,
    /// `a · x` above zero, else `b · x`, one of each a channel.
    Maxout,
    /// -1 below zero, else +1.
    Binarize,
    /// Rows less their mean, divided by their unbiased standard deviation.
    Standardize,
    /// The same numbers in another shape.
    Reshape,
    /// Channels from `start` on, as many as the shape says.
    Narrow {
        /// The first channel.
        start: usize,
    },
    /// Channels of zeros around, as many as the shape says, `before` of them in front.
    PadChannels {
        /// Channels in front.
        before: usize,
    },
    /// Every `step`-th row and column from `start` on; the last one again where the image ends.
    Subsample {
        /// The first row and column.
        start: usize,
        /// From one to the next.
        step: usize,
    },
    /// Inputs one after the other along the channels.
    Concat,
    /// The largest of a window.
    #[serde(rename = "max_pool2d")]
    MaxPool2d {
        /// Side of the window.
        size: usize,
        /// From one window to the next.
        stride: usize,
        /// Pixels around the image, which never win.
        pad: usize,
    },
    /// The mean of a window, in which padding counts as zeros.
    #[serde(rename = "avg_pool2d")]
    AvgPool2d {
        /// Side of the window.
        size: usize,
        /// From one window to the next.
        stride: usize,
        /// Pixels around the image.
        pad: usize,
    },
    /// The mean of each channel: `N C`.
    GlobalAvgPool,
}

/// What becomes of the integers `z` of a binary convolution, by numbers of each channel, which are the
/// inputs behind `x` and `w`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Then {
    /// `scale · z`. Inputs: scale.
    Scale,
    /// `act(a·z + b)`, or `act(a·z + b + residual)`. Inputs: a, b, and the residual if there is one.
    Affine {
        /// What is applied at the end.
        #[serde(with = "ActivationDef")]
        act: Activation,
    },
    /// The same with two factors, `a·(scale·z)`, where their product would round otherwise. Inputs:
    /// scale, a, b, and the residual if there is one.
    ScaledAffine {
        /// What is applied at the end.
        #[serde(with = "ActivationDef")]
        act: Activation,
    },
    /// The signs alone: +1 where `z` reaches the threshold of its channel. Inputs: thresholds.
    Threshold,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Conv", deny_unknown_fields)]
struct ConvDef {
    stride: usize,
    pad: usize,
    dilation: usize,
    groups: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pad", rename_all = "snake_case")]
enum PadDef {
    Zero,
    Minus,
    Plus,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Activation", rename_all = "snake_case")]
enum ActivationDef {
    Identity,
    Relu,
    Hardtanh,
}

impl Then {
    /// How many arrays of one number a channel it takes.
    pub(crate) fn numbers(self) -> usize {
        match self {
            Then::Scale | Then::Threshold => 1,
            Then::Affine { .. } => 2,
            Then::ScaledAffine { .. } => 3,
        }
    }
}

impl Op {
    /// The operation that a tape records under a name, if nothing but the name is to be known of it.
    pub fn named(name: &str) -> Option<Op> {
        Some(match name {
            "linear" => Op::Linear,
            "bin_linear" => Op::BinLinear,
            "channel_affine" => Op::Affine { act: Activation::Identity },
            "add_channels" => Op::AddChannels,
            "mul_channels" => Op::MulChannels,
            "mul_pixels" => Op::MulPixels,
            "add" => Op::Add,
            "sub" => Op::Sub,
            "mul" => Op::Mul,
            "relu" => Op::Relu,
            "hardtanh" => Op::Hardtanh,
            "sigmoid" => Op::Sigmoid,
            "tanh" => Op::Tanh,
            "swish" => Op::Swish,
            "abs" => Op::Abs,
            "prelu" => Op::Prelu,
            "rprelu" => Op::Rprelu,
            "maxout" => Op::Maxout,
            "binarize" => Op::Binarize,
            "standardize" => Op::Standardize,
            "reshape" => Op::Reshape,
            "concat" => Op::Concat,
            "global_avg_pool" => Op::GlobalAvgPool,
            _ => return None,
        })
    }
}
