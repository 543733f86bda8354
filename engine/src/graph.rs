//! A trained network as a list of operations: what is packed, run and exported.

use crate::limits::{self, NODES};
use crate::numbers::{Form, Numbers};
use crate::op::{Op, Then};
use crate::shape::{self, len};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Where an input of a node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An earlier node.
    Node(usize),
    /// An array of fixed numbers.
    Numbers(usize),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Of what.
    pub inputs: Vec<Source>,
    /// The layer it belongs to, as its parameters are named.
    pub layer: String,
    /// The shape of its output for a batch of a single image.
    pub shape: Vec<usize>,
    /// The axis that grows with the batch; those before it are 1.
    pub axis: usize,
}

/// A network: nodes in the order in which they are computed, the images first, the output last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The operations.
    pub nodes: Vec<Node>,
    /// What they find fixed.
    pub numbers: Vec<Numbers>,
}

impl Node {
    /// The shape of its output for `n` images.
    pub fn shape_of(&self, n: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(batch) = shape.get_mut(self.axis) {
            *batch *= n;
        }
        shape
    }

    /// How many numbers it makes of one image.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it makes none, which no checked node does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Graph {
    /// The shape of one image, `C H W`.
    pub fn input(&self) -> &[usize] {
        self.nodes.first().map_or(&[], |node| node.shape.get(1..).unwrap_or_default())
    }

    /// How many numbers come out for an image.
    pub fn outputs(&self) -> usize {
        self.nodes.last().map_or(0, Node::len)
    }

    /// The nodes that read a node's output, each with the place of that input.
    pub fn readers(&self, node: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.nodes.iter().enumerate().skip(node + 1).flat_map(move |(reader, n)| {
            let inputs = n.inputs.iter().enumerate();
            inputs.filter(move |(_, i)| **i == Source::Node(node)).map(move |(at, _)| (reader, at))
        })
    }

    /// Looks whether it can be run: every input is there, of a form and shape that fits, and it asks for
    /// no more than [`Load::MOST`](crate::Load::MOST).
    ///
    /// # Errors
    /// The first array or node for which that is not so, and why.
    pub fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for numbers in &self.numbers {
            numbers.check()?;
            if !names.insert(&numbers.name) {
                return Err(format!("has two arrays named {}", numbers.name));
            }
        }
        match self.nodes.len() {
            1..=NODES => {}
            n => return Err(format!("has {n} nodes, expected 1 to {NODES}")),
        }
        for (i, node) in self.nodes.iter().enumerate() {
            limits::name("a layer", &node.layer).map_err(|e| format!("node {i} {e}"))?;
            self.check_node(i, node).map_err(|e| format!("node {i} ({}) {e}", node.layer))?;
        }
        let inputs = self.nodes.iter().flat_map(|node| &node.inputs);
        let read: HashSet<_> = inputs.collect();
        for (i, numbers) in self.numbers.iter().enumerate() {
            if !read.contains(&Source::Numbers(i)) {
                return Err(format!("has an array {} that nobody reads", numbers.name));
            }
        }
        self.check_load()
    }

    fn check_node(&self, i: usize, node: &Node) -> Result<(), String> {
        len(&node.shape)?;
        let before = node.shape.get(..node.axis).filter(|_| node.axis < node.shape.len());
        if before.is_none_or(|before| before.iter().any(|&n| n != 1)) {
            return Err(format!("has axis {} of {:?} for its batch", node.axis, node.shape));
        }
        if node.axis > 0 && !number_by_number(&node.op) {
            return Err(format!("has axis {} for its batch, expected 0", node.axis));
        }
        match (i, node.op, node.shape.as_slice()) {
            (0, Op::Input, [1, _, _, _]) => {}
            (0, Op::Input, shape) => {
                return Err(format!("takes images of {shape:?}, expected 1 C H W"));
            }
            (0, ..) => return Err("comes first and is no input".into()),
            (_, Op::Input, _) => return Err("is an input, and not the first node".into()),
            _ => {}
        }
        for (at, &input) in node.inputs.iter().enumerate() {
            match input {
                Source::Node(from) if from >= i => {
                    return Err(format!("reads node {from}, expected one before it"));
                }
                Source::Numbers(from) => {
                    let Some(numbers) = self.numbers.get(from) else {
                        let there = self.numbers.len();
                        return Err(format!("reads array {from}, and there are {there}"));
                    };
                    check_form(node.op, at, numbers)?;
                }
                Source::Node(_) if fixed(node.op, at) => {
                    return Err(format!("reads a node for input {at}, expected an array"));
                }
                Source::Node(from) if makes_signs(&self.nodes[from].op) => {
                    let by_signs = matches!(node.op, Op::BinConv2d { how, .. } if how.groups == 1);
                    if !by_signs || at > 0 {
                        return Err(format!("reads node {from}, which makes signs, for more"));
                    }
                }
                Source::Node(_) => {}
            }
        }
        if i + 1 == self.nodes.len() && makes_signs(&node.op) {
            return Err("makes signs, expected floats of the last node".into());
        }
        // A rule that holds for one image and for two holds for any number of them.
        for n in [1, 2] {
            let shapes: Vec<Vec<usize>> =
                node.inputs.iter().map(|s| self.shape_of(*s, n)).collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            let (said, found) =
                (node.shape_of(n), shape::output(&node.op, &shapes, &node.shape_of(n))?);
            if said != found {
                return Err(format!("says {said:?}, makes {found:?} of {n} images"));
            }
        }
        Ok(())
    }

    /// The shape of an input for `n` images.
    pub fn shape_of(&self, source: Source, n: usize) -> Vec<usize> {
        match source {
            Source::Node(at) => self.nodes[at].shape_of(n),
            Source::Numbers(at) => self.numbers[at].shape.clone(),
        }
    }
}

/// Whether an operation makes signs that are bits and never floats.
fn makes_signs(op: &Op) -> bool {
    matches!(op, Op::BinConv2d { then: Then::Threshold, .. })
}

/// Whether an operation takes each number by itself or by its channel, so that it does not matter which
/// of them make an image.
fn number_by_number(op: &Op) -> bool {
    let of_channels = matches!(
        op,
        Op::Affine { .. }
            | Op::AddChannels
            | Op::MulChannels
            | Op::Prelu
            | Op::Rprelu
            | Op::Maxout
            | Op::Reshape
    );
    let of_two = matches!(op, Op::Add | Op::Sub | Op::Mul);
    let of_one = matches!(
        op,
        Op::Scale { .. }
            | Op::Shift { .. }
            | Op::Clamp { .. }
            | Op::Relu
            | Op::Hardtanh
            | Op::Sigmoid
            | Op::Tanh
            | Op::Swish
            | Op::Abs
            | Op::Binarize
    );
    of_channels || of_two || of_one
}

/// Whether an operation takes an input as fixed numbers only: it is made ready for them.
fn fixed(op: Op, at: usize) -> bool {
    match op {
        Op::Conv2d(_) | Op::Linear => at == 1,
        Op::BinConv2d { then, .. } => (1..2 + then.numbers()).contains(&at),
        Op::BinLinear => at > 0,
        Op::Affine { .. } => at == 1 || at == 2,
        _ => false,
    }
}

/// Thresholds and bits stand where they are understood, and nowhere else.
fn check_form(op: Op, at: usize, numbers: &Numbers) -> Result<(), String> {
    let weights = matches!((op, at), (Op::BinConv2d { .. } | Op::BinLinear, 1));
    let threshold = matches!((op, at), (Op::BinConv2d { then: Then::Threshold, .. }, 2));
    let fits = match numbers.form() {
        Form::Signs => weights,
        Form::Thresholds => threshold,
        Form::F32 | Form::F16 | Form::I8 | Form::Levels => !threshold,
    };
    let expected = match (weights, threshold) {
        (true, _) => "signs or floats",
        (_, true) => "thresholds",
        _ => "floats",
    };
    match fits {
        true => Ok(()),
        false => {
            let (name, form) = (&numbers.name, numbers.form());
            Err(format!("reads array {name} of {form} for input {at}, expected {expected}"))
        }
    }
}
