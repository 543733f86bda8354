//! What follows a binary convolution becomes part of it, wherever that changes no bit.
//!
//! The sum `z` of a binary convolution is an integer from `-K` to `K`, with `K` the taps of a filter. That
//! is few enough to ask the arithmetic of training about each of them, instead of solving for where a
//! sign changes: the answers are right by construction, for scales that are negative, zero or denormal too.

use dirnet_engine::{Graph, Node, Numbers, Op, Source, Then, Threshold, Values};
use dirnet_kernels::bits::sign;

/// A graph with fewer nodes, each of which computes to the bit what one of the old ones did, or its signs
/// where nobody reads more.
pub(super) struct Folded {
    pub graph: Graph,
    /// For each node, which old one it stands for.
    pub of: Vec<usize>,
}

/// Joins to each binary convolution the affine map behind it, and the sign behind that.
pub(super) fn fold(graph: &Graph) -> Folded {
    let mut graph = graph.clone();
    let mut gone = vec![false; graph.nodes.len()];
    for at in 0..graph.nodes.len() {
        if let Some((affine, joined)) = join(&mut graph, at) {
            graph.nodes[affine] = joined;
            gone[at] = true;
        }
    }
    for at in 0..graph.nodes.len() {
        if !gone[at] {
            threshold(&mut graph, at);
        }
    }
    renumber(graph, &gone)
}

/// A binary convolution that only an affine map reads, and both as one node in the latter's place.
fn join(graph: &mut Graph, at: usize) -> Option<(usize, Node)> {
    let conv = graph.nodes[at].clone();
    let Op::BinConv2d { how, pad, then: Then::Scale } = conv.op else { return None };
    let mut readers = graph.readers(at);
    let (Some((affine, 0)), None) = (readers.next(), readers.next()) else { return None };
    drop(readers);
    let behind = graph.nodes[affine].clone();
    let Op::Affine { act } = behind.op else { return None };
    let &[x, w, scale] = conv.inputs.as_slice() else { return None };
    let &[_, a, b, ref residual @ ..] = behind.inputs.as_slice() else { return None };
    let (factors, [s, a_, b_]) = (taps(graph, w), [scale, a, b].map(|n| floats(graph, n)));
    let one: Option<Vec<f32>> =
        (0..s.len()).map(|c| product([s[c], a_[c], b_[c]], factors)).collect();
    let (then, head) = match one {
        Some(one) => {
            let name = format!("{}.a.scaled", behind.layer);
            graph.numbers.push(Numbers::floats(name, &[one.len()], one));
            (Then::Affine { act }, vec![x, w, Source::Numbers(graph.numbers.len() - 1), b])
        }
        None => (Then::ScaledAffine { act }, vec![x, w, scale, a, b]),
    };
    let inputs = [&head, residual].concat();
    Some((affine, Node { op: Op::BinConv2d { how, pad, then }, inputs, ..behind }))
}

/// `a·s`, if it serves for both: `(a·s)·z + b = a·(s·z) + b` for each sum there is.
fn product([s, a, b]: [f32; 3], taps: i16) -> Option<f32> {
    let one = a * s;
    let same = |z: i16| {
        let z = f32::from(z);
        (one * z + b).to_bits() == (a * (s * z) + b).to_bits()
    };
    (-taps..=taps).all(same).then_some(one)
}

/// Turns a binary convolution with an affine map whose signs alone are read into thresholds.
fn threshold(graph: &mut Graph, at: usize) {
    let node = &graph.nodes[at];
    let Op::BinConv2d { how, pad, then } = node.op else { return };
    // Planes of bits serve convolutions over all channels.
    let by_bits = |(reader, input): (usize, usize)| {
        let plain = |op| matches!(op, Op::BinConv2d { how, .. } if how.groups == 1);
        input == 0 && plain(graph.nodes[reader].op)
    };
    if graph.readers(at).next().is_none() || !graph.readers(at).all(by_bits) {
        return;
    }
    let (numbers, act) = match then {
        Then::Affine { act } if node.inputs.len() == 4 => ([None, Some(2), Some(3)], act),
        Then::ScaledAffine { act } if node.inputs.len() == 5 => ([Some(2), Some(3), Some(4)], act),
        _ => return,
    };
    let taps = taps(graph, node.inputs[1]);
    let numbers = numbers.map(|n| n.map(|n| floats(graph, node.inputs[n])));
    let channels = node.shape[1];
    let each = |c: usize| {
        let [s, a, b] = [0, 1, 2].map(|i| numbers[i].as_ref().map_or(1.0, |n| n[c]));
        found(|z| sign(act.of(a * (s * f32::from(z)) + b)) > 0.0, taps)
    };
    let Some(all) = (0..channels).map(each).collect::<Option<Vec<_>>>() else { return };
    let (name, shape) = (format!("{}.threshold", node.layer), vec![channels]);
    let inputs = vec![node.inputs[0], node.inputs[1], Source::Numbers(graph.numbers.len())];
    graph.numbers.push(Numbers { name, shape, values: Values::Thresholds(all) });
    let node = &mut graph.nodes[at];
    (node.op, node.inputs) = (Op::BinConv2d { how, pad, then: Then::Threshold }, inputs);
}

/// Where a function of the sums changes sides, asked of each of them; `None` if it does so twice.
fn found(positive: impl Fn(i16) -> bool, taps: i16) -> Option<Threshold> {
    let first = positive(-taps);
    let change = (-taps..=taps).find(|&z| positive(z) != first);
    let threshold = match (change, first) {
        (None, true) => Threshold::ALWAYS,
        (None, false) => Threshold::NEVER,
        (Some(at), first) => Threshold { at, flip: first },
    };
    (-taps..=taps).all(|z| threshold.of(z) == positive(z)).then_some(threshold)
}

/// Leaves out nodes that are gone and numbers that nobody reads.
fn renumber(old: Graph, gone: &[bool]) -> Folded {
    let mut graph = Graph::default();
    let mut of = Vec::new();
    let mut places = vec![0; old.nodes.len()];
    let mut numbers: Vec<Option<usize>> = vec![None; old.numbers.len()];
    for (at, node) in old.nodes.into_iter().enumerate() {
        if gone[at] {
            continue;
        }
        places[at] = of.len();
        of.push(at);
        let source = |source: &Source| match *source {
            Source::Node(from) => Source::Node(places[from]),
            Source::Numbers(from) => Source::Numbers(*numbers[from].get_or_insert_with(|| {
                graph.numbers.push(old.numbers[from].clone());
                graph.numbers.len() - 1
            })),
        };
        let inputs = node.inputs.iter().map(source).collect();
        graph.nodes.push(Node { inputs, ..node });
    }
    Folded { graph, of }
}

fn taps(graph: &Graph, w: Source) -> i16 {
    let taps: usize = graph.shape_of(w, 1)[1..].iter().product();
    i16::try_from(taps).expect("the graph was checked")
}

fn floats(graph: &Graph, source: Source) -> Vec<f32> {
    match source {
        Source::Numbers(at) => graph.numbers[at].to_floats(),
        Source::Node(_) => unreachable!("the graph was checked: these are fixed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirnet_kernels::norm_act::Activation;

    #[test]
    fn a_threshold_is_where_the_arithmetic_of_training_has_it() {
        let numbers = [0.0, -0.0, 1e-45, -1e-40, 0.3, -0.7, 1.0, 5e-4, 1e30, -3.0];
        for s in numbers {
            for a in numbers {
                for b in numbers.into_iter().chain([0.1 * a * s, -3.0 * a * s, 144.0 * (a * s)]) {
                    for act in [Activation::Identity, Activation::Relu, Activation::Hardtanh] {
                        let positive = |z: i16| sign(act.of(a * (s * f32::from(z)) + b)) > 0.0;
                        let t = found(positive, 144).unwrap_or_else(|| panic!("{s}, {a}, {b}"));
                        for z in -144..=144 {
                            assert_eq!(
                                t.of(z),
                                positive(z),
                                "{s}, {a}, {b}, {act:?}: {t:?} at {z}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_product_serves_only_where_it_rounds_alike() {
        assert_eq!(product([0.25, 0.3, 0.1], 576), Some(0.075));
        assert_eq!(product([0.3, 0.7, 0.1], 576), None);
    }

    #[test]
    fn what_changes_sides_twice_is_no_threshold() {
        assert_eq!(found(|z| z.abs() < 3, 9), None);
        assert_eq!(found(|z| z <= -2, 9), Some(Threshold { at: -1, flip: true }));
    }
}
