//! What lies between the steps of a network: which buffer holds what, and until when.

use crate::compute::Dims;
use crate::graph::{Graph, Node, Source};
use crate::op::{Op, Then};

/// Which buffer holds what, and until when.
pub(crate) struct Plan {
    /// The buffer of each node's floats, if anybody reads them.
    pub floats: Vec<Option<usize>>,
    /// The buffer of its signs.
    pub signs: Vec<Option<usize>>,
    /// Whether a node is only another view of its input.
    pub alias: Vec<bool>,
    /// The affine map that a pool takes the largest of, if nobody else reads it.
    pub pooled: Vec<Option<usize>>,
    /// Whether a node is the largest of a window, of which only the sign is read.
    pub bit_pool: Vec<bool>,
    /// Floats of each buffer, for one image.
    pub sizes: Vec<usize>,
    /// Bytes of each buffer of signs, for one image.
    pub plane_sizes: Vec<usize>,
}

impl Plan {
    pub fn of(graph: &Graph) -> Plan {
        let n = graph.nodes.len();
        let mut plan = Plan {
            floats: vec![None; n],
            signs: vec![None; n],
            alias: vec![false; n],
            pooled: pooled(graph),
            bit_pool: vec![false; n],
            sizes: Vec::new(),
            plane_sizes: Vec::new(),
        };
        let mut last = vec![0; n];
        let mut joined = vec![false; n];
        plan.pooled.iter().flatten().for_each(|&affine| joined[affine] = true);
        let (mut reads_floats, mut reads_signs) = (vec![false; n], vec![false; n]);
        reads_floats[n - 1] = true;
        last[n - 1] = n;
        for at in (0..n).rev() {
            let node = &graph.nodes[at];
            if let (Op::Reshape, &[Source::Node(from)]) = (node.op, node.inputs.as_slice()) {
                plan.alias[at] = true;
                last[from] = last[from].max(last[at]);
                reads_floats[at] |= reads_signs[at];
            }
            // The sign of the largest is the largest of the signs.
            let is_pool = matches!(node.op, Op::MaxPool2d { .. });
            if is_pool && reads_signs[at] && !reads_floats[at] {
                plan.bit_pool[at] = true;
                if let Some(affine) = plan.pooled[at].take() {
                    joined[affine] = false;
                }
            }
            // Signs that the step itself does not make are taken of its floats.
            let makes = matches!(node.op, Op::Affine { .. } | Op::BinConv2d { .. });
            let makes = makes || plan.bit_pool[at];
            let bare = matches!(node.op, Op::BinConv2d { then: Then::Scale, .. });
            reads_floats[at] |= reads_signs[at] && (!makes || bare);
            if joined[at] {
                continue;
            }
            let read = &graph.nodes[plan.pooled[at].unwrap_or(at)].inputs;
            for (input, &source) in read.iter().enumerate() {
                let Source::Node(from) = source else { continue };
                last[from] = last[from].max(at);
                match plan.by_signs(graph, (at, input)) {
                    true => reads_signs[from] = true,
                    false => reads_floats[from] = true,
                }
            }
        }
        let (mut free, mut free_signs) = (Vec::new(), Vec::new());
        let mut ends: Vec<Vec<usize>> = vec![Vec::new(); n + 1];
        for at in 0..n {
            if plan.alias[at] {
                let &[Source::Node(from)] = graph.nodes[at].inputs.as_slice() else { continue };
                plan.floats[at] = plan.floats[from];
            } else if reads_floats[at] {
                plan.floats[at] = Some(take(&mut plan.sizes, &mut free, graph.nodes[at].len()));
                ends[last[at].max(at)].push(at);
            }
            if reads_signs[at] {
                let len = Dims::of(&graph.nodes[at].shape).planes_len();
                plan.signs[at] = Some(take(&mut plan.plane_sizes, &mut free_signs, len));
                if plan.floats[at].is_none() || plan.alias[at] {
                    ends[last[at].max(at)].push(at);
                }
            }
            for &done in &ends[at] {
                if !plan.alias[done] {
                    free.extend(plan.floats[done]);
                }
                free_signs.extend(plan.signs[done]);
            }
        }
        plan
    }

    /// Whether an input is read in bits.
    pub fn by_signs(&self, graph: &Graph, (at, input): (usize, usize)) -> bool {
        let conv = matches!(graph.nodes[at].op, Op::BinConv2d { how, .. } if how.groups == 1);
        input == 0 && (conv || self.bit_pool[at])
    }
}

/// A buffer that is free, the best fitting one, or a new one.
fn take(sizes: &mut Vec<usize>, free: &mut Vec<usize>, len: usize) -> usize {
    let best = (0..free.len()).min_by_key(|&i| sizes[free[i]].abs_diff(len));
    let slot = best.map(|i| free.swap_remove(i)).unwrap_or_else(|| {
        sizes.push(0);
        sizes.len() - 1
    });
    sizes[slot] = sizes[slot].max(len);
    slot
}

/// For each pool the affine map that it reads, if that adds nothing and nobody else reads it.
fn pooled(graph: &Graph) -> Vec<Option<usize>> {
    let mut readers = vec![0; graph.nodes.len()];
    for source in graph.nodes.iter().flat_map(|node| &node.inputs) {
        if let Source::Node(from) = source {
            readers[*from] += 1;
        }
    }
    let pooled = |node: &Node| {
        let (Op::MaxPool2d { .. }, &[Source::Node(from)]) = (node.op, node.inputs.as_slice())
        else {
            return None;
        };
        let affine = &graph.nodes[from];
        let plain = matches!(affine.op, Op::Affine { .. }) && affine.inputs.len() == 3;
        (plain && readers[from] == 1).then_some(from)
    };
    graph.nodes.iter().map(pooled).collect()
}
