//! What a graph asks of the machine that runs it, and how much of that is too much to be honest.
//!
//! A file of a few kilobytes can describe a network that no machine holds. What is counted here bounds what
//! running one image takes, whatever way the kernels choose; all in whole numbers that saturate.

use crate::graph::{Graph, Node, Source};
use crate::op::Op;
use dirnet_kernels::Conv;

/// The most numbers of an array, and of what a node makes of one image.
pub(crate) const MOST: usize = 1 << 26;

/// The most nodes of a graph.
pub(crate) const NODES: usize = 1 << 14;

/// The largest stride, padding and dilation.
pub(crate) const STEP: usize = 1 << 10;

/// The most terms of a binary convolution's sum, which 16 bits hold.
pub(crate) const TERMS: usize = i16::MAX as usize;

/// The most terms of a sum that floats count exactly.
pub(crate) const TERMS_OF_FLOATS: usize = (1 << 24) - 1;

/// The most characters of a name. That of a `darts` holds a genotype, that of a method may be a recipe.
const NAME: usize = 4096;

/// What a graph asks for, to compute one image.
///
/// ```
/// use dirnet_engine::Graph;
/// assert_eq!(Graph::default().load().work, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Numbers of four bytes, more than there ever are at once: arrays as floats, for each node that
    /// reads them; as many of the largest output as are needed at a time; room for the kernels.
    pub numbers: u64,
    /// Multiplications and additions, and what else takes about as long.
    pub work: u64,
}

impl Load {
    /// What is refused beyond: a gigabyte of numbers, and some minutes. VGG-16 for images of 224 by 224
    /// takes a seventeenth of that work.
    pub const MOST: Load = Load { numbers: 1 << 28, work: 1 << 38 };
}

impl Graph {
    /// What it asks of the machine. The graph should have been checked.
    pub fn load(&self) -> Load {
        let mut last: Vec<usize> = (0..self.nodes.len()).collect();
        let mut all = Load::default();
        let (mut kept, mut scratch, mut largest) = (0u64, 0, 0);
        for (at, node) in self.nodes.iter().enumerate() {
            for &input in &node.inputs {
                match input {
                    Source::Node(from) => last[from] = at,
                    Source::Numbers(from) => {
                        kept = kept.saturating_add(self.numbers[from].len() as u64)
                    }
                }
            }
            let room = self.room(node);
            kept = kept.saturating_add(room.kept);
            scratch = room.scratch.max(scratch);
            largest = (node.len() as u64).max(largest);
            all.work = all.work.saturating_add(room.work);
        }
        // What another view of an output needs, its own nodes stand for.
        let mut ends = vec![0u64; self.nodes.len()];
        last.iter().for_each(|&at| ends[at] += 1);
        let (mut live, mut most) = (0, 0);
        for done in ends {
            live += 1;
            most = live.max(most);
            live -= done;
        }
        let outputs = largest.saturating_mul(most + 2);
        let signs = outputs / 16;
        all.numbers = [signs, kept, scratch].into_iter().fold(outputs, u64::saturating_add);
        all
    }

    /// Whether it asks for no more than [`Load::MOST`].
    pub(crate) fn check_load(&self) -> Result<(), String> {
        let (Load { numbers, work }, most) = (self.load(), Load::MOST);
        if numbers > most.numbers {
            return Err(format!(
                "needs room for {numbers} numbers, expected at most {}",
                most.numbers
            ));
        }
        if work > most.work {
            return Err(format!(
                "takes {work} operations an image, expected at most {}",
                most.work
            ));
        }
        Ok(())
    }

    fn room(&self, node: &Node) -> Room {
        let y = node.len() as u64;
        let shape = |input: usize| {
            let input = node.inputs.get(input);
            input.map(|&input| self.shape_of(input, 1)).unwrap_or_default()
        };
        match node.op {
            Op::Conv2d(how) | Op::BinConv2d { how, .. } => {
                let binary = matches!(node.op, Op::BinConv2d { .. });
                convolution(&shape(0), &shape(1), how, y, binary)
            }
            Op::MaxPool2d { size, stride, pad } | Op::AvgPool2d { size, stride, pad } => {
                let (x, taps) = (shape(0), (size * size) as u64);
                let scratch = padded(&x, stride, pad)
                    .saturating_mul(4)
                    .saturating_add(y)
                    .saturating_add(product([x[1] as u64, taps]));
                Room { kept: 0, scratch, work: product([y, taps]).saturating_add(scratch) }
            }
            Op::Linear | Op::BinLinear => {
                let &[o, k] = &shape(1)[..] else { return Room::default() };
                let kept = product([k as u64 + 64, o as u64 + 128]) / 16;
                Room { kept, scratch: 0, work: product([y, k as u64]).saturating_add(kept) }
            }
            _ => Room { kept: 0, scratch: 0, work: y },
        }
    }
}

/// What a node takes beside its arrays and its output.
#[derive(Default)]
struct Room {
    /// For good.
    kept: u64,
    /// While it is computed.
    scratch: u64,
    work: u64,
}

fn convolution(x: &[usize], w: &[usize], how: Conv, y: u64, binary: bool) -> Room {
    let [x, w]: [[u64; 4]; 2] = [x, w].map(|shape| std::array::from_fn(|i| shape[i] as u64));
    let ([_, c, h, width], [o, group_c, kh, kw]) = (x, w);
    let (groups, taps) = (how.groups as u64, kh * kw);
    let padded = padded(&x.map(|n| n as usize), how.stride, how.pad);
    let quads = group_c.div_ceil(4);
    let (kept, scratch) = if binary {
        // Each tap beside the same tap of the next pixel, a byte for four channels.
        let staged = product([quads, taps, padded + 128]) / 4;
        let tables = (kw * h * width).saturating_add(y).saturating_add(16 * taps * (quads + 1));
        // For a lone image, and for some together.
        (product([2, tables]), staged)
    } else {
        // Filters by lanes, of which a group may fill one.
        let filters = product([o / groups + 15, groups, group_c, taps]);
        let tables = y.saturating_add(product([group_c, taps])).saturating_add(1 << 12);
        (filters.saturating_add(tables), product([c, padded + 64]).saturating_add(1 << 17))
    };
    // Rows that do not fit are copied again for each row of the output.
    let wide = 2 * how.pad as u64;
    let again = product([h + wide, c, kh, how.dilation as u64, width + wide]);
    let again = if binary { scratch } else { again };
    let sums = product([y, group_c, taps]);
    Room { kept, scratch, work: sums.saturating_add(again).saturating_add(groups << 12) }
}

/// Pixels of a channel with its padding.
fn padded(x: &[usize], stride: usize, pad: usize) -> u64 {
    let side = |n: usize| (n + 2 * pad + stride) as u64;
    product([side(x[2]), side(x[3])])
}

fn product<const N: usize>(of: [u64; N]) -> u64 {
    of.into_iter().fold(1, u64::saturating_mul)
}

/// Whether a name is one: short, and of a single line.
pub(crate) fn name(what: &str, name: &str) -> Result<(), String> {
    if name.chars().take(NAME + 1).count() > NAME {
        return Err(format!(
            "has {what} of {} bytes, expected at most {NAME} characters",
            name.len()
        ));
    }
    match name.chars().any(char::is_control) {
        true => Err(format!("has {what} {name:?} with a control character")),
        false => Ok(()),
    }
}
