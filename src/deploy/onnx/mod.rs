//! A trained network as an ONNX file, for other runtimes: standard operators only, and bits where the
//! weights are bits.
//!
//! What is written is the graph that is packed too, with its thresholds. The sum of a binary convolution is an
//! exact integer in floats as well, so a sign that comes of a threshold is the same in every runtime, however
//! it rounds; a batch norm before a sign is not. Where a sum of floats comes between, as at a shortcut, a
//! runtime that adds in another order may find another sign for a value next to zero.
//!
//! | of the network | in the file |
//! | --- | --- |
//! | a weight of ±1, or of two levels a row | a bit of a UINT8 array, and a node `UnpackBits` before the convolution |
//! | `sign` | `GreaterOrEqual` and `Where`, since ONNX's `Sign` is 0 at 0 |
//! | padding by ±1 | `Pad` before `Conv` |
//! | batch norm | `Mul` and `Add`, or `GreaterOrEqual` with a threshold |
//!
//! `UnpackBits` is a function within the file, made of standard operators. A runtime that expands no functions
//! takes the same nodes [inlined](Unpack::Inline). A runtime with a kernel for bits finds the function by name.

mod proto;
mod unpack;
mod writer;

pub use proto::{
    AttributeProto, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};

use super::fold::fold;
use super::trace::trace;
use crate::models::{Card, Model};
use crate::{Error, Params, files};
use prost::Message;
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use writer::write;

/// The first version of the messages that has functions.
const IR: i64 = 8;
/// The set of operators that came with it; newer runtimes know it, and nothing here needs a newer one.
const OPSET: i64 = 15;

/// How bits become weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpack {
    /// By a function within the file.
    #[default]
    Function,
    /// By that function's nodes at every place.
    Inline,
}

/// Makes an ONNX model of a network: input `images` (`N C H W`, any `N`), output `logits` (`N` by classes).
///
/// Its `metadata_props` say what the [`Card`] says, by the same names, lists as JSON.
///
/// ```
/// use dirnet::deploy::onnx::{Unpack, export};
/// use dirnet::models::Card;
/// use dirnet::Rng;
/// let card = Card {
///     version: "0.1.0".into(), arch: "mlp(hidden=24)".into(), method: "dir-net".into(),
///     estimator: String::new(), data: "digits".into(), input: [1, 8, 8],
///     classes: (0..10).map(|i| i.to_string()).collect(), mean: vec![0.0], std: vec![1.0],
/// };
/// let (params, model) = card.build(&mut Rng::seed(0))?;
/// let file = export(&params, &model, &card, Unpack::Function)?;
/// assert_eq!(file.graph.unwrap().output[0].name, "logits");
/// # Ok::<(), dirnet::Error>(())
/// ```
///
/// # Errors
/// If a number is not finite, or [`trace`] fails; the message names the layer.
pub fn export(
    params: &Params,
    model: &Model,
    card: &Card,
    unpack: Unpack,
) -> Result<ModelProto, Error> {
    let graph = fold(&trace(params, model)?).graph;
    let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    if let Some(bad) = graph.numbers.iter().find(|n| !finite(&n.to_floats())) {
        return Err(Error::Setting(format!("{} has a number that is not finite", bad.name)));
    }
    let graph = write(&graph, unpack);
    let set = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let mut opset_import = vec![set("", OPSET)];
    let mut functions = Vec::new();
    if graph.node.iter().any(|node| node.domain == unpack::DOMAIN) {
        opset_import.push(set(unpack::DOMAIN, 1));
        functions.push(unpack::function());
    }
    let says = [
        ("version", card.version.clone()),
        ("arch", card.arch.clone()),
        ("method", card.method.clone()),
        ("estimator", card.estimator.clone()),
        ("data", card.data.clone()),
        ("input", json(&card.input)),
        ("classes", json(&card.classes)),
        ("mean", json(&card.mean)),
        ("std", json(&card.std)),
    ];
    Ok(ModelProto {
        ir_version: IR,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!(
            "{} by {}, trained on {}. images: N C H W, pixels from 0 to 1, less `mean` and divided by \
             `std` of their channel; logits: a number a class, of which softmax makes probabilities.",
            card.arch, card.method, card.data
        ),
        graph: Some(graph),
        opset_import,
        metadata_props: says
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .to_vec(),
        functions,
    })
}

impl ModelProto {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        files::write_whole(path, |out| out.write_all(&self.encode_to_vec()))
    }
}

fn json(x: &impl Serialize) -> String {
    serde_json::to_string(x).expect("names and numbers")
}

/// A node that makes one value, of the same name.
fn node(op: &str, name: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input,
        output: vec![name.into()],
        name: name.into(),
        op_type: op.into(),
        attribute,
        domain: String::new(),
    }
}

/// Settings of nodes, by their type.
mod attribute {
    use super::{AttributeProto, TensorProto};

    pub fn int(name: &str, i: i64) -> AttributeProto {
        let (name, r#type) = (name.into(), AttributeProto::INT);
        AttributeProto { name, i, r#type, ..AttributeProto::default() }
    }
    pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        let (name, ints, r#type) = (name.into(), ints.to_vec(), AttributeProto::INTS);
        AttributeProto { name, ints, r#type, ..AttributeProto::default() }
    }
    pub fn string(name: &str, s: &str) -> AttributeProto {
        let (name, s, r#type) = (name.into(), s.into(), AttributeProto::STRING);
        AttributeProto { name, s, r#type, ..AttributeProto::default() }
    }
    pub fn tensor(name: &str, t: TensorProto) -> AttributeProto {
        let (name, t, r#type) = (name.into(), Some(t), AttributeProto::TENSOR);
        AttributeProto { name, t, r#type, ..AttributeProto::default() }
    }
}
