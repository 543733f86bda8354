//! What a network computes in evaluation, written down.

use crate::models::Model;
use crate::nn::Module;
use crate::watch::{Operand, Operation, Watch};
use crate::{Error, Params, Rng, Tape, Tensor};
use dirnet_engine::{Graph, Node, Numbers, Op, Source};

/// The network as a graph of operations on its images: an evaluating tape runs once and notes each.
/// Whatever does not depend on the images, such as binarized weights or the two numbers a channel
/// that a batch norm comes to, is an array of fixed numbers.
///
/// It runs twice, for one image and for two others. What differs in shape grows with the batch; what
/// should be fixed and differs is refused.
///
/// # Errors
/// If the packed net does not know an operation, or a number that should be fixed is not.
pub fn trace(params: &Params, model: &Model) -> Result<Graph, Error> {
    let [one, two] = [1, 2].map(|n| operations(params, model, n));
    let mut graph = Graph::default();
    if one.len() != two.len() {
        return Err(Error::Setting("what the network computes depends on the batch".into()));
    }
    for (one, two) in one.iter().zip(&two) {
        let Some(op) = one.op else {
            let what = format!("the packed net knows no operation \"{}\"", one.name);
            return Err(refused(one, &what));
        };
        let shapes = one.value.shape().iter().zip(two.value.shape());
        let axis = shapes.clone().position(|(a, b)| a != b);
        let Some(axis) = axis.filter(|&at| one.value.shape()[..at].iter().all(|&n| n == 1)) else {
            return Err(refused(one, "its output does not grow with the batch"));
        };
        let mut inputs = Vec::with_capacity(one.inputs.len());
        for (at, pair) in one.inputs.iter().zip(&two.inputs).enumerate() {
            inputs.push(match pair {
                (Operand::Operation(a), Operand::Operation(b)) if a == b => Source::Node(*a),
                (Operand::Fixed(a), Operand::Fixed(b)) if same(a, b) => {
                    Source::Numbers(fixed(&mut graph, one, op, at, a))
                }
                _ => {
                    return Err(refused(
                        one,
                        "a number that should be fixed depends on the images",
                    ));
                }
            });
        }
        let (layer, shape) = (one.layer.clone(), one.value.shape().to_vec());
        graph.nodes.push(Node { op, inputs, layer, shape, axis });
    }
    graph.check().map_err(|e| Error::Setting(format!("the packed net can't run this: {e}")))?;
    Ok(graph)
}

/// The same operations that [`trace`] makes nodes of, for some images: nodes and values in step.
pub(super) fn values(params: &Params, model: &Model, images: &Tensor) -> Vec<Tensor> {
    watched(params, model, images).into_iter().map(|operation| operation.value).collect()
}

fn operations(params: &Params, model: &Model, n: usize) -> Vec<Operation> {
    let [c, h, w] = model.task.input;
    watched(params, model, &Tensor::randn([n, c, h, w], 1.0, &mut Rng::seed(n as u64)))
}

fn watched(params: &Params, model: &Model, images: &Tensor) -> Vec<Operation> {
    let tape = Tape::eval(params).watching(Watch::operations());
    model.forward(&tape.variable(images));
    tape.into_watched().into_operations()
}

fn refused(operation: &Operation, what: &str) -> Error {
    let layer = if operation.layer.is_empty() { "the network" } else { &operation.layer };
    Error::Setting(format!("{layer}: {} can't be packed: {what}", operation.name))
}

/// Whether two arrays are the same to the bit, NaN included: `pack` has its own word for that.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
}

/// The place of an array among the fixed numbers; one that is there already serves again.
fn fixed(graph: &mut Graph, operation: &Operation, op: Op, at: usize, x: &Tensor) -> usize {
    let what = match (op, at) {
        (Op::Conv2d(_) | Op::Linear | Op::BinConv2d { .. } | Op::BinLinear, 1) => "weight",
        (Op::BinConv2d { .. } | Op::BinLinear, 2) => "scale",
        (Op::Rprelu, 1) => "before",
        (Op::Rprelu, 2) => "slope",
        (Op::Rprelu, 3) => "behind",
        (Op::Maxout, 1) => "above",
        (Op::Maxout, 2) => "below",
        (Op::Affine { .. }, 1) | (Op::MulChannels | Op::Prelu, _) => "a",
        (Op::Affine { .. }, 2) | (Op::AddChannels, _) => "b",
        _ => "numbers",
    };
    let name = match operation.layer.as_str() {
        "" => what.to_string(),
        layer => format!("{layer}.{what}"),
    };
    let new = Numbers::floats(name.clone(), x.shape(), x.to_vec());
    // Of weights that serve once for their signs and once as they are, only the former become bits.
    let same = |old: &Numbers| (&old.shape, &old.values) == (&new.shape, &new.values);
    let signs = |op: Op, at: usize| at == 1 && matches!(op, Op::BinConv2d { .. } | Op::BinLinear);
    let alike = |old: usize| {
        let mut readers = graph.nodes.iter().flat_map(|node| {
            node.inputs.iter().enumerate().map(|(at, input)| (node.op, at, *input))
        });
        readers.all(|(other, i, input)| {
            input != Source::Numbers(old) || signs(other, i) == signs(op, at)
        })
    };
    let old = graph.numbers.iter().enumerate().find(|(i, old)| same(old) && alike(*i));
    if let Some((old, _)) = old {
        return old;
    }
    let taken = |name: &str| graph.numbers.iter().any(|numbers| numbers.name == name);
    let again = (2..).map(|i| format!("{name}.{i}"));
    let name = std::iter::once(name.clone()).chain(again).find(|name| !taken(name));
    graph.numbers.push(Numbers { name: name.unwrap_or_default(), ..new });
    graph.numbers.len() - 1
}
