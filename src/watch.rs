//! What a tape can be asked to note beside its work: where a NaN began, what each operation costs,
//! what the layers are.

use dirnet_kernels::ConvGeom;
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
    /// Bytes of the layer in the packed net: the bits, and everything else in 32 bits.
    pub bytes_packed: usize,
    /// The geometry, if both operands of its convolution are one bit.
    pub binary_conv: Option<ConvGeom>,
}

impl LayerNote {
    /// Bytes of its learned numbers in 32 bits each.
    pub fn bytes_float(&self) -> usize {
        4 * (self.params_1bit + self.params_32bit)
    }
}
