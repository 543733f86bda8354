//! What a tape can be asked to note beside its work: where a NaN began, what each operation costs,
//! what the layers are, what their signs are.

use crate::Tensor;
use dirnet_engine::Op;
use dirnet_kernels::ConvGeom;
use dirnet_kernels::bits::{self, Mask};
use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

/// What a tape notes. Nothing by default; each kind costs only where it is asked for.
#[derive(Debug, Default)]
pub enum Watch {
    /// Nothing.
    #[default]
    Nothing,
    /// The first value, or gradient, that is infinite or no number.
    Finite(RefCell<Option<NotFinite>>),
    /// Time spent in each operation, there and back.
    Costs(RefCell<Costs>),
    /// The layers that were passed, in order.
    Layers(RefCell<Vec<LayerNote>>),
    /// The signs of binary layers, in the order they were passed.
    Signs(RefCell<Vec<SignNote>>),
    /// What was computed of the tape's [variables](crate::Tape::variable), on an evaluating tape.
    Operations(RefCell<Vec<Operation>>),
}

impl Watch {
    /// Look for the first value that is not finite.
    pub fn finite() -> Self {
        Watch::Finite(RefCell::default())
    }
    /// Take the time of each operation.
    pub fn costs() -> Self {
        Watch::Costs(RefCell::new(Costs { last: Instant::now(), operations: Vec::new() }))
    }
    /// List the layers.
    pub fn layers() -> Self {
        Watch::Layers(RefCell::default())
    }
    /// Keep the signs of weights; on an evaluating tape also say what becomes of weights and
    /// activations.
    pub fn signs() -> Self {
        Watch::Signs(RefCell::default())
    }
    /// Write down each operation on a variable, or on what was computed of one: everything else is
    /// fixed. The tape evaluates.
    pub fn operations() -> Self {
        Watch::Operations(RefCell::default())
    }
    /// The notes of [`Watch::operations`]; none of another kind.
    pub fn into_operations(self) -> Vec<Operation> {
        match self {
            Watch::Operations(notes) => notes.into_inner(),
            _ => Vec::new(),
        }
    }
    /// The notes of [`Watch::signs`]; none of another kind.
    pub fn into_signs(self) -> Vec<SignNote> {
        match self {
            Watch::Signs(notes) => notes.into_inner(),
            _ => Vec::new(),
        }
    }
}

/// Where the first value that is infinite or no number came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The operation, by the name it was recorded under.
    pub operation: String,
    /// The layer it belongs to; empty outside of layers.
    pub layer: String,
    /// On the way back, that is, in a gradient.
    pub backward: bool,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.backward { "the gradient of" } else { "the output of" };
        write!(f, "{what} {}", self.operation)?;
        if !self.layer.is_empty() {
            write!(f, " in {}", self.layer)?;
        }
        f.write_str(" is not finite")
    }
}

/// Time spent in each operation of a step.
#[derive(Debug)]
pub struct Costs {
    last: Instant,
    /// In the order in which they were recorded.
    pub operations: Vec<Cost>,
}

/// Time spent in one operation.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The name it was recorded under.
    pub operation: &'static str,
    /// The layer it belongs to; empty outside of layers.
    pub layer: String,
    /// From the end of the operation before, so that all of them add up to the whole.
    pub forward: Duration,
    /// In its backward closure, and adding up what came out of it.
    pub backward: Duration,
}

impl Costs {
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.last, now)
    }
}

/// One layer of a model, as a row of its summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerNote {
    /// As its parameters are named.
    pub name: String,
    /// What kind of layer it is.
    pub kind: &'static str,
    /// Shape of its output for one image, the batch not included.
    pub output: Vec<usize>,
    /// Learned numbers that are used through their sign only.
    pub params_1bit: usize,
    /// Learned numbers that are used as they are.
    pub params_32bit: usize,
    /// Multiply-adds whose operands are both one bit.
    pub macs_1bit: usize,
    /// Multiply-adds with a float on at least one side.
    pub macs_32bit: usize,
    /// The geometry, if both operands of its convolution are one bit.
    pub binary_conv: Option<ConvGeom>,
}

/// One operation of a network.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The name it was recorded under.
    pub name: &'static str,
    /// What the packed net calls it, if it knows it.
    pub op: Option<Op>,
    /// What it was computed of: earlier operations by their place, or numbers that are fixed.
    pub inputs: Vec<Operand>,
    /// The layer it belongs to; empty outside of layers.
    pub layer: String,
    /// What came out.
    pub value: Tensor,
}

/// What an [`Operation`] was computed of.
#[derive(Clone, Debug)]
pub enum Operand {
    /// An earlier operation.
    Operation(usize),
    /// Numbers that do not depend on a variable.
    Fixed(Tensor),
}

/// What a binary layer makes of its weights and activations.
#[derive(Clone, Debug, PartialEq)]
pub struct SignNote {
    /// As its parameters are named.
    pub layer: String,
    /// Which weights are +1, if they are binary.
    pub signs: Option<Mask>,
    /// What becomes of the weights, on an evaluating tape.
    pub weights: Option<Binarized>,
    /// What becomes of the activations, on an evaluating tape.
    pub activations: Option<Binarized>,
}

/// What numbers keep and lose when only their signs are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binarized {
    /// `H(p) = -p·log2(p) - (1-p)·log2(1-p)` with `p` the share of +1 in the layer, in bits.
    pub entropy: f64,
    /// The same for each channel, output channels of weights, and then their mean.
    pub entropy_channel: f64,
    /// `‖x - Q(x)‖² / ‖x‖²`; `None` where all `x` are 0.
    pub error: Option<f64>,
}

/// The entropy of a bit that is set with probability `p`, in bits.
///
/// ```
/// use dirnet::watch::entropy;
/// assert_eq!((entropy(0.5), entropy(0.0), entropy(1.0)), (1.0, 0.0, 0.0));
/// ```
pub fn entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    term(p) + term(1.0 - p)
}

impl Binarized {
    /// Of numbers `y` whose signs are taken, with channels along an axis, and of numbers `x` for
    /// which `q` is put.
    pub(crate) fn of(y: &Tensor, axis: usize, x: &Tensor, q: &Tensor) -> Self {
        let (channels, area) = (y.shape()[axis], y.shape()[axis + 1..].iter().product::<usize>());
        let mut positive = vec![0usize; channels];
        for (run, channel) in y.chunks(area.max(1)).zip((0..channels).cycle()) {
            positive[channel] += run.iter().filter(|&&y| bits::sign(y) > 0.0).count();
        }
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        let each = y.len() / channels.max(1);
        let sum: f64 = positive.iter().map(|&n| entropy(share(n, each))).sum();
        let (mut lost, mut all) = (0.0, 0.0);
        for (&x, &q) in x.iter().zip(&**q) {
            let (x, q) = (f64::from(x), f64::from(q));
            lost += (x - q) * (x - q);
            all += x * x;
        }
        Binarized {
            entropy: entropy(share(positive.iter().sum(), y.len())),
            entropy_channel: sum / channels.max(1) as f64,
            error: (all > 0.0).then(|| lost / all),
        }
    }
}
