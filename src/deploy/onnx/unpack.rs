//! Weights of two levels as bits, and how a runtime that knows no bits makes floats of them again.

use super::proto::{AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, TensorProto};
use super::{OPSET, attribute, node};

/// The set that [`function`] belongs to.
pub(super) const DOMAIN: &str = "dirnet";
/// As nodes call it.
pub(super) const NAME: &str = "UnpackBits";

const INPUTS: [&str; 3] = ["bits", "low", "high"];
const SHAPE: &str = "shape";

/// `weights = high where the bit is set, else low`, with eight bits a byte, the first in the lowest place.
///
/// Older sets of operators have no bitwise *and*, so that a bit is the remainder by two of its byte, shifted.
pub(super) fn function() -> FunctionProto {
    FunctionProto {
        name: NAME.into(),
        domain: DOMAIN.into(),
        input: INPUTS.map(String::from).to_vec(),
        output: vec!["weights".into()],
        attribute: vec![SHAPE.into()],
        node: body(AttributeProto {
            name: "value_ints".into(),
            r#type: AttributeProto::INTS,
            ref_attr_name: SHAPE.into(),
            ..AttributeProto::default()
        }),
        doc_string:
            "Weights of two levels: `high` where a bit is set, else `low`. Eight bits a byte, the \
                     first in the lowest place; those behind the last weight are clear."
                .into(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
    }
}

/// A call of the function, which makes `output`.
pub(super) fn call(output: &str, inputs: [String; 3], shape: &[i64]) -> NodeProto {
    NodeProto {
        domain: DOMAIN.into(),
        ..node(NAME, output, inputs.to_vec(), vec![attribute::ints(SHAPE, shape)])
    }
}

/// The nodes of such a call themselves, for a runtime that expands no functions.
pub(super) fn inlined(output: &str, inputs: [String; 3], shape: &[i64]) -> Vec<NodeProto> {
    let rename = |name: &mut String| {
        *name = match INPUTS.iter().position(|input| input == name) {
            Some(at) => inputs[at].clone(),
            None if name == "weights" => output.into(),
            None => format!("{output}/{name}"),
        };
    };
    let mut nodes = body(attribute::ints("value_ints", shape));
    for node in &mut nodes {
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        rename(&mut node.name);
    }
    nodes
}

/// What the function does, with the shape as given.
fn body(shape: AttributeProto) -> Vec<NodeProto> {
    let constant = |name: &str, value: AttributeProto| node("Constant", name, vec![], vec![value]);
    let bytes = |bytes: &[u8]| {
        let dims = if bytes.len() == 1 { vec![] } else { vec![bytes.len() as i64] };
        attribute::tensor(
            "value",
            TensorProto {
                dims,
                data_type: TensorProto::UINT8,
                raw_data: bytes.to_vec(),
                ..TensorProto::default()
            },
        )
    };
    let one = |op: &str, output: &str, inputs: &[&str], attributes: Vec<AttributeProto>| {
        node(op, output, inputs.iter().map(ToString::to_string).collect(), attributes)
    };
    vec![
        constant("places", bytes(&[0, 1, 2, 3, 4, 5, 6, 7])),
        constant("two", bytes(&[2])),
        constant("last", attribute::ints("value_ints", &[-1])),
        constant("first", attribute::ints("value_ints", &[0])),
        constant("shape", shape),
        one("Unsqueeze", "column", &["bits", "last"], vec![]),
        one(
            "BitShift",
            "shifted",
            &["column", "places"],
            vec![attribute::string("direction", "RIGHT")],
        ),
        one("Mod", "digits", &["shifted", "two"], vec![]),
        one(
            "Cast",
            "truths",
            &["digits"],
            vec![attribute::int("to", i64::from(TensorProto::BOOL))],
        ),
        one("Reshape", "flat", &["truths", "last"], vec![]),
        one("ReduceProd", "count", &["shape"], vec![attribute::int("keepdims", 1)]),
        one("Slice", "all", &["flat", "first", "count"], vec![]),
        one("Reshape", "set", &["all", "shape"], vec![]),
        one("Where", "weights", &["set", "high", "low"], vec![]),
    ]
}
