//! A trained network as a packed one.

use super::fold::fold;
use super::trace::trace;
use crate::models::{Card, Model};
use crate::nn::Module;
use crate::watch::Watch;
use crate::{Error, Params, Tape, Tensor};
use dirnet_engine::{Form, Graph, Numbers, Op, Packed, Source};

/// How weights that stay floats are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floats {
    /// As they were trained: nothing changes.
    #[default]
    F32,
    /// Rounded to 16 bits.
    F16,
    /// Rounded to 8 bits, with a scale a row.
    I8,
}

/// What became of a network's layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Layers whose weights are bits.
    pub packed: Vec<String>,
    /// Layers whose weights are floats.
    pub float: Vec<FloatLayer>,
}

/// A layer whose weights stay floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatLayer {
    /// As its parameters are named.
    pub name: String,
    /// Whether the method would have it binary.
    pub meant_binary: bool,
}

/// Packs a network: writes down what it computes, folds it, and stores weights as bits where bits say
/// exactly what they are.
///
/// Layers that no method makes binary, such as stem and head, stay floats and are reported. A layer that
/// the method calls binary and that bits do not hold is refused, unless `allowed` names it.
///
/// # Errors
/// If no layer is binary, a binary layer can't be packed and is not allowed to stay float, `allowed`
/// names a layer that is not one of those, a number is not finite, or [`trace`] fails.
pub fn pack(
    params: &Params,
    model: &Model,
    card: &Card,
    floats: Floats,
    allowed: &[String],
) -> Result<(Packed, Report), Error> {
    let (packed, report) = laid_out(params, model, card, floats)?;
    check(&packed.graph, &report, allowed)?;
    Ok((packed, report))
}

/// The same for whatever network, one that is all in float too.
pub(crate) fn laid_out(
    params: &Params,
    model: &Model,
    card: &Card,
    floats: Floats,
) -> Result<(Packed, Report), Error> {
    let mut graph = fold(&trace(params, model)?).graph;
    let report = store(&mut graph, &binary_layers(params, model), floats);
    let card = dirnet_engine::Card {
        version: env!("CARGO_PKG_VERSION").into(),
        arch: card.arch.clone(),
        method: card.method.clone(),
        estimator: card.estimator.clone(),
        data: card.data.clone(),
        classes: card.classes.clone(),
        mean: card.mean.clone(),
        std: card.std.clone(),
    };
    Ok((Packed { card, graph }, report))
}

/// What a packed network says of itself, as the file of a trained one says it.
pub fn card(packed: &Packed) -> Card {
    let card = packed.card.clone();
    let mut input = [0; 3];
    input.iter_mut().zip(packed.graph.input()).for_each(|(to, &from)| *to = from);
    Card {
        version: card.version,
        arch: card.arch,
        method: card.method,
        estimator: card.estimator,
        data: card.data,
        input,
        classes: card.classes,
        mean: card.mean,
        std: card.std,
    }
}

fn check(graph: &Graph, report: &Report, allowed: &[String]) -> Result<(), Error> {
    let refused = |layer: &&FloatLayer| layer.meant_binary && !allowed.contains(&layer.name);
    let refused: Vec<_> = report.float.iter().filter(refused).map(|l| l.name.as_str()).collect();
    if !refused.is_empty() {
        return Err(Error::Setting(format!(
            "{} would stay float: bits do not hold the weights or inputs; --allow-float {} packs \
             the rest",
            refused.join(", "),
            refused.join(" --allow-float ")
        )));
    }
    let known = |name: &&String| report.float.iter().any(|l| l.meant_binary && l.name == **name);
    if let Some(name) = allowed.iter().find(|name| !known(name)) {
        return Err(Error::Setting(format!(
            "--allow-float {name}: no binary layer of that name would stay float"
        )));
    }
    if report.packed.is_empty() {
        return Err(Error::Setting("nothing to pack: no layer of this network is binary".into()));
    }
    let finite = |n: &&Numbers| n.to_floats().iter().all(|x| x.is_finite());
    match graph.numbers.iter().find(|n| !finite(n)) {
        None => Ok(()),
        Some(n) => Err(Error::Setting(format!("{} has a number that is not finite", n.name))),
    }
}

/// Names of the layers that the method makes binary, on either side.
fn binary_layers(params: &Params, model: &Model) -> Vec<String> {
    let tape = Tape::eval(params).watching(Watch::layers());
    let [c, h, w] = model.task.input;
    model.forward(&tape.constant(Tensor::zeros([1, c, h, w])));
    let Watch::Layers(notes) = tape.into_watched() else { return Vec::new() };
    let notes = notes.into_inner().into_iter();
    notes.filter(|note| note.kind.starts_with("binary")).map(|note| note.name).collect()
}

/// Puts each array into its form.
fn store(graph: &mut Graph, binary: &[String], floats: Floats) -> Report {
    let mut report = Report::default();
    for node in &graph.nodes {
        let weighty =
            matches!(node.op, Op::Conv2d(_) | Op::Linear | Op::BinConv2d { .. } | Op::BinLinear);
        let (true, Some(&Source::Numbers(at))) = (weighty, node.inputs.get(1)) else { continue };
        let signs = matches!(node.op, Op::BinConv2d { .. } | Op::BinLinear);
        let numbers = std::mem::take(&mut graph.numbers[at]);
        let meant_binary = binary.contains(&node.layer);
        let numbers = match numbers.form() {
            Form::F32 if signs => numbers.signs(),
            Form::F32 if meant_binary => numbers.levels(),
            _ => numbers,
        };
        let in_bits = matches!(numbers.form(), Form::Signs | Form::Levels);
        graph.numbers[at] = match (in_bits, floats) {
            (true, _) | (_, Floats::F32) => numbers,
            (false, Floats::F16) => numbers.halved(),
            (false, Floats::I8) => numbers.eighths(),
        };
        // A folded node is where its batch norm was; the weights are still the layer's own.
        let weights = &graph.numbers[at].name;
        let name = weights.split_once(".weight").map_or(weights.as_str(), |(layer, _)| layer);
        let name = name.to_string();
        let known = |name: &String| report.packed.contains(name);
        if in_bits && !known(&name) {
            report.packed.push(name);
        } else if !in_bits && !known(&name) && !report.float.iter().any(|l| l.name == name) {
            report.float.push(FloatLayer { name, meant_binary });
        }
    }
    report
}
