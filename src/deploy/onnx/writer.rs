//! The operations of a graph, each as the nodes of ONNX that compute it.

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};
use super::{Unpack, attribute, node, unpack};
use dirnet_engine::{Graph, Node, Numbers, Op, Source, Then, Values};
use dirnet_kernels::Conv;
use dirnet_kernels::bits::Pad;
use dirnet_kernels::norm_act::Activation;
use std::collections::{HashMap, HashSet};

/// The graph in ONNX's operators.
pub(super) fn write(graph: &Graph, unpack: Unpack) -> GraphProto {
    let mut writer = Writer {
        graph,
        unpack,
        out: GraphProto { name: "network".into(), ..GraphProto::default() },
        values: Vec::new(),
        signs: HashMap::new(),
        weights: HashMap::new(),
        taken: HashSet::new(),
    };
    for node in &graph.nodes {
        let value = match node.op {
            Op::Input => "images".into(),
            _ => writer.operation(node),
        };
        writer.values.push(value);
    }
    let mut out = writer.out;
    if let Some(last) = out.node.last_mut() {
        last.output = vec!["logits".into()];
    }
    out.input = graph.nodes.first().map(|node| value("images", node)).into_iter().collect();
    out.output = graph.nodes.last().map(|node| value("logits", node)).into_iter().collect();
    out
}

struct Writer<'a> {
    graph: &'a Graph,
    unpack: Unpack,
    out: GraphProto,
    /// What the output of each node of the graph is called.
    values: Vec<String>,
    /// The same of its signs.
    signs: HashMap<Source, String>,
    /// The same of arrays that are weights.
    weights: HashMap<usize, String>,
    /// Names that stand for something.
    taken: HashSet<String>,
}

impl Writer<'_> {
    /// Writes a node's operation, and says what its output is called.
    fn operation(&mut self, node: &Node) -> String {
        let (layer, rank) = (node.layer.as_str(), node.shape.len());
        let x = self.value(node.inputs[0]);
        match node.op {
            Op::Input => unreachable!("it is no operation"),
            Op::Conv2d(how) => {
                let w = self.weights(node.inputs[1], false);
                self.conv(layer, x, w, how, node.inputs[1])
            }
            Op::BinConv2d { how, pad, then } => self.bin_conv(node, how, pad, then),
            Op::Linear => {
                let w = self.weights(node.inputs[1], false);
                self.node("Gemm", layer, vec![x, w], vec![attribute::int("transB", 1)])
            }
            Op::BinLinear => {
                let x = self.sign(node.inputs[0], layer);
                let w = self.weights(node.inputs[1], true);
                let z = self.node("Gemm", layer, vec![x, w], vec![attribute::int("transB", 1)]);
                self.by_channel("Mul", layer, z, node.inputs[2], rank)
            }
            Op::Affine { act } => self.affine(layer, x, &node.inputs[1..], rank, act),
            Op::AddChannels => self.by_channel("Add", layer, x, node.inputs[1], rank),
            Op::MulChannels => self.by_channel("Mul", layer, x, node.inputs[1], rank),
            Op::Prelu => self.by_channel("PRelu", layer, x, node.inputs[1], rank),
            Op::MulPixels | Op::Mul => self.plain("Mul", node),
            Op::Add => self.plain("Add", node),
            Op::Sub => self.plain("Sub", node),
            Op::Scale { factor } => self.with("Mul", layer, x, &[factor]),
            Op::Shift { by } => self.with("Add", layer, x, &[by]),
            Op::Rprelu => {
                let moved = self.by_channel("Sub", layer, x, node.inputs[1], rank);
                let bent = self.by_channel("PRelu", layer, moved, node.inputs[2], rank);
                self.by_channel("Add", layer, bent, node.inputs[3], rank)
            }
            Op::Maxout => {
                let above = self.node("Relu", layer, vec![x.clone()], vec![]);
                let below = self.with("Min", layer, x, &[0.0]);
                let above = self.by_channel("Mul", layer, above, node.inputs[1], rank);
                let below = self.by_channel("Mul", layer, below, node.inputs[2], rank);
                self.node("Add", layer, vec![above, below], vec![])
            }
            Op::Relu => self.plain("Relu", node),
            Op::Hardtanh => self.with("Clip", layer, x, &[-1.0, 1.0]),
            Op::Clamp { low, high } => self.with("Clip", layer, x, &[low, high]),
            Op::Sigmoid => self.plain("Sigmoid", node),
            Op::Tanh => self.plain("Tanh", node),
            Op::Swish => {
                let gate = self.plain("Sigmoid", node);
                self.node("Mul", layer, vec![x, gate], vec![])
            }
            Op::Abs => self.plain("Abs", node),
            Op::Binarize => self.sign(node.inputs[0], layer),
            Op::Standardize => self.standardize(node, x),
            Op::Reshape => {
                let mut shape: Vec<i64> = node.shape.iter().map(|&n| n as i64).collect();
                shape[node.axis] = -1;
                self.reshape(layer, x, &shape)
            }
            Op::Narrow { start } => {
                let [start, end, axis] =
                    [start, start + node.shape[1], 1].map(|n| self.ints(&[n as i64]));
                self.node("Slice", layer, vec![x, start, end, axis], vec![])
            }
            Op::PadChannels { before } => {
                let after = node.shape[1] - before - self.graph.shape_of(node.inputs[0], 1)[1];
                let mut pads = vec![0; 2 * rank];
                (pads[1], pads[rank + 1]) = (before as i64, after as i64);
                let pads = self.ints(&pads);
                self.node("Pad", layer, vec![x, pads], vec![])
            }
            Op::Subsample { start, step } => {
                let from = self.graph.shape_of(node.inputs[0], 1);
                [2, 3].into_iter().fold(x, |x, axis| {
                    let last = from[axis] - 1;
                    let at = (0..node.shape[axis]).map(|i| (start + i * step).min(last) as i64);
                    let at = self.ints(&at.collect::<Vec<_>>());
                    let axis = attribute::int("axis", axis as i64);
                    self.node("Gather", layer, vec![x, at], vec![axis])
                })
            }
            Op::Concat => {
                let inputs = node.inputs.iter().map(|input| self.value(*input)).collect();
                self.node("Concat", layer, inputs, vec![attribute::int("axis", 1)])
            }
            Op::MaxPool2d { size, stride, pad } => {
                self.node("MaxPool", layer, vec![x], window(size, stride, pad))
            }
            Op::AvgPool2d { size, stride, pad } => {
                let zeros_count = attribute::int("count_include_pad", 1);
                let how = [window(size, stride, pad), vec![zeros_count]].concat();
                self.node("AveragePool", layer, vec![x], how)
            }
            Op::GlobalAvgPool => {
                let means = self.plain("GlobalAveragePool", node);
                self.node("Flatten", layer, vec![means], vec![])
            }
        }
    }

    /// `then(sign(x) ⊛ sign(w))`
    fn bin_conv(&mut self, node: &Node, mut how: Conv, pad: Pad, then: Then) -> String {
        // A folded node stands at the layer that it took in; its sums are those of its weights' layer.
        let layer = self.layer_of(node.inputs[1], &node.layer);
        let mut x = self.sign(node.inputs[0], &layer);
        let outside = match pad {
            Pad::Zero => None,
            Pad::Minus => Some(-1.0),
            Pad::Plus => Some(1.0),
        };
        if let Some(outside) = outside.filter(|_| how.pad > 0) {
            let around = std::mem::take(&mut how.pad) as i64;
            let pads = self.ints(&[0, 0, around, around, 0, 0, around, around]);
            let outside = self.scalar(outside);
            x = self.node("Pad", &layer, vec![x, pads, outside], vec![]);
        }
        let w = self.weights(node.inputs[1], true);
        let mut z = self.conv(&layer, x, w, how, node.inputs[1]);
        let (rank, numbers) = (node.shape.len(), &node.inputs[2..]);
        if then != Then::Threshold {
            // Sums are integers, and stay so only if no runtime multiplies the weights by what follows.
            z = self.node("Round", &layer, vec![z], vec![]);
        }
        match then {
            Then::Scale => self.by_channel("Mul", &layer, z, numbers[0], rank),
            Then::Affine { act } => self.affine(&node.layer, z, numbers, rank, act),
            Then::ScaledAffine { act } => {
                let z = self.by_channel("Mul", &layer, z, numbers[0], rank);
                self.affine(&node.layer, z, &numbers[1..], rank, act)
            }
            Then::Threshold => self.threshold(&node.layer, z, numbers[0], rank),
        }
    }

    fn conv(&mut self, layer: &str, x: String, w: String, how: Conv, of: Source) -> String {
        let kernel: Vec<i64> =
            self.graph.shape_of(of, 1)[2..].iter().map(|&side| side as i64).collect();
        let attributes = vec![
            attribute::ints("kernel_shape", &kernel),
            attribute::ints("strides", &[how.stride as i64; 2]),
            attribute::ints("pads", &[how.pad as i64; 4]),
            attribute::ints("dilations", &[how.dilation as i64; 2]),
            attribute::int("group", how.groups as i64),
        ];
        self.node("Conv", layer, vec![x, w], attributes)
    }

    /// `act(a·x + b)`, or `act(a·x + b + residual)`
    fn affine(
        &mut self,
        layer: &str,
        x: String,
        numbers: &[Source],
        rank: usize,
        act: Activation,
    ) -> String {
        let x = self.by_channel("Mul", layer, x, numbers[0], rank);
        let mut x = self.by_channel("Add", layer, x, numbers[1], rank);
        if let Some(&residual) = numbers.get(2) {
            let residual = self.value(residual);
            x = self.node("Add", layer, vec![x, residual], vec![]);
        }
        match act {
            Activation::Identity => x,
            Activation::Relu => self.node("Relu", layer, vec![x], vec![]),
            Activation::Hardtanh => self.with("Clip", layer, x, &[-1.0, 1.0]),
        }
    }

    /// +1 where a sum reaches the threshold of its channel, else -1, or the other way round.
    fn threshold(&mut self, layer: &str, z: String, thresholds: Source, rank: usize) -> String {
        let Source::Numbers(at) = thresholds else { unreachable!("the graph was checked") };
        let numbers = &self.graph.numbers[at];
        let Values::Thresholds(all) = &numbers.values else {
            unreachable!("the graph was checked")
        };
        let name = numbers.name.clone();
        // Sums are integers. From half a step below, a runtime that does not get them quite whole finds
        // the same side.
        let at: Vec<f32> = all.iter().map(|t| f32::from(t.at) - 0.5).collect();
        let above: Vec<f32> = all.iter().map(|t| if t.flip { -1.0 } else { 1.0 }).collect();
        let shape = channels(all.len() as i64, rank);
        let at = self.floats(&name, &shape, &at);
        let reached = self.node("GreaterOrEqual", layer, vec![z, at], vec![]);
        let [above, below] = match above.iter().all(|&side| side > 0.0) {
            true => [1.0, -1.0].map(|side| self.scalar(side)),
            false => {
                let below: Vec<f32> = above.iter().map(|side| -side).collect();
                [("above", above), ("below", below)]
                    .map(|(side, x)| self.floats(&format!("{name}.{side}"), &shape, &x))
            }
        };
        self.node("Where", layer, vec![reached, above, below], vec![])
    }

    /// Rows less their mean, divided by their unbiased standard deviation.
    fn standardize(&mut self, node: &Node, x: String) -> String {
        let (layer, rank) = (node.layer.as_str(), node.shape.len() as i64);
        let columns: usize = self.graph.shape_of(node.inputs[0], 1)[1..].iter().product();
        if columns == 1 {
            return self.node("Identity", layer, vec![x], vec![]);
        }
        let axes = vec![attribute::ints("axes", &(1..rank).collect::<Vec<_>>())];
        let mean = self.node("ReduceMean", layer, vec![x.clone()], axes.clone());
        let x = self.node("Sub", layer, vec![x, mean], vec![]);
        let squares = self.node("Mul", layer, vec![x.clone(), x.clone()], vec![]);
        let variance = self.node("ReduceMean", layer, vec![squares], axes);
        let unbiased = columns as f32 / (columns as f32 - 1.0);
        let variance = self.with("Mul", layer, variance, &[unbiased]);
        let std = self.node("Sqrt", layer, vec![variance], vec![]);
        // Rows that are all the same become zeros.
        let std = self.with("Max", layer, std, &[f32::MIN_POSITIVE]);
        self.node("Div", layer, vec![x, std], vec![])
    }

    /// +1 from zero on, else -1.
    fn sign(&mut self, x: Source, layer: &str) -> String {
        if let Some(name) = self.signs.get(&x) {
            return name.clone();
        }
        let has_signs =
            |op| matches!(op, Op::Binarize | Op::BinConv2d { then: Then::Threshold, .. });
        let name = match x {
            Source::Node(at) if has_signs(self.graph.nodes[at].op) => self.values[at].clone(),
            _ => {
                let inputs = vec![self.value(x), self.scalar(0.0)];
                let positive = self.node("GreaterOrEqual", layer, inputs, vec![]);
                let inputs = vec![positive, self.scalar(1.0), self.scalar(-1.0)];
                self.node("Where", layer, inputs, vec![])
            }
        };
        self.signs.insert(x, name.clone());
        name
    }

    /// An operator on the node's inputs as they are.
    fn plain(&mut self, op: &str, node: &Node) -> String {
        let inputs = node.inputs.iter().map(|input| self.value(*input)).collect();
        self.node(op, &node.layer, inputs, vec![])
    }

    /// An operator on `x` and fixed scalars.
    fn with(&mut self, op: &str, layer: &str, x: String, scalars: &[f32]) -> String {
        let mut inputs = vec![x];
        inputs.extend(scalars.iter().map(|x| self.scalar(*x)));
        self.node(op, layer, inputs, vec![])
    }

    /// An operator on `x` and one number a channel.
    fn by_channel(
        &mut self,
        op: &str,
        layer: &str,
        x: String,
        numbers: Source,
        rank: usize,
    ) -> String {
        let numbers = match numbers {
            Source::Numbers(at) => {
                let numbers = &self.graph.numbers[at];
                let x = numbers.to_floats();
                self.floats(&numbers.name, &channels(x.len() as i64, rank), &x)
            }
            Source::Node(at) if rank < 3 => self.values[at].clone(),
            Source::Node(at) => {
                let numbers = self.values[at].clone();
                self.reshape(layer, numbers, &channels(-1, rank))
            }
        };
        self.node(op, layer, vec![x, numbers], vec![])
    }

    fn reshape(&mut self, layer: &str, x: String, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.node("Reshape", layer, vec![x, shape], vec![])
    }

    /// What an input is called.
    fn value(&mut self, source: Source) -> String {
        match source {
            Source::Node(at) => self.values[at].clone(),
            Source::Numbers(at) => {
                let numbers = &self.graph.numbers[at];
                let shape: Vec<i64> = numbers.shape.iter().map(|&n| n as i64).collect();
                self.floats(&numbers.name, &shape, &numbers.to_floats())
            }
        }
    }

    /// What weights are called, which may be bits to unpack first.
    fn weights(&mut self, source: Source, signs: bool) -> String {
        let Source::Numbers(at) = source else { unreachable!("the graph was checked") };
        if let Some(name) = self.weights.get(&at) {
            return name.clone();
        }
        let numbers = self.graph.numbers[at].clone();
        let numbers = if signs { numbers.signs() } else { numbers.levels() };
        let name = match &numbers.values {
            Values::Signs(bits) => {
                let levels = [-1.0, 1.0].map(|level| self.scalar(level));
                self.unpacked(&numbers, bits.bytes(), levels)
            }
            Values::Levels(levels, bits) => {
                let levels = self.levels(&numbers, levels);
                self.unpacked(&numbers, bits.bytes(), levels)
            }
            _ => self.value(source),
        };
        self.weights.insert(at, name.clone());
        name
    }

    /// What the two levels of each row are called: one number where one will do.
    fn levels(&mut self, numbers: &Numbers, levels: &[[f32; 2]]) -> [String; 2] {
        if levels.iter().all(|pair| *pair == levels[0]) {
            return levels[0].map(|level| self.scalar(level));
        }
        let shape = [vec![levels.len() as i64], vec![1; numbers.shape.len() - 1]].concat();
        let high: Vec<f32> = levels.iter().map(|pair| pair[1]).collect();
        let high = self.floats(&format!("{}.high", numbers.name), &shape, &high);
        let low = match levels.iter().all(|[low, high]| *low == -high) {
            true => self.node("Neg", &owner(&numbers.name), vec![high.clone()], vec![]),
            false => {
                let low: Vec<f32> = levels.iter().map(|pair| pair[0]).collect();
                self.floats(&format!("{}.low", numbers.name), &shape, &low)
            }
        };
        [low, high]
    }

    fn unpacked(&mut self, numbers: &Numbers, bytes: &[u8], [low, high]: [String; 2]) -> String {
        let shape: Vec<i64> = numbers.shape.iter().map(|&n| n as i64).collect();
        let dims = [bytes.len() as i64];
        let bits = self.array(&numbers.name, &dims, TensorProto::UINT8, bytes.to_vec());
        let name = self.free(&format!("{}/{}", owner(&numbers.name), unpack::NAME));
        let inputs = [bits, low, high];
        match self.unpack {
            Unpack::Function => self.out.node.push(unpack::call(&name, inputs, &shape)),
            Unpack::Inline => self.out.node.extend(unpack::inlined(&name, inputs, &shape)),
        }
        name
    }

    /// The layer whose weights these are.
    fn layer_of(&self, weights: Source, otherwise: &str) -> String {
        match weights {
            Source::Numbers(at) => owner(&self.graph.numbers[at].name),
            Source::Node(_) => otherwise.into(),
        }
    }

    fn node(
        &mut self,
        op: &str,
        layer: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let name = match layer {
            "" => self.free(op),
            layer => self.free(&format!("{layer}/{op}")),
        };
        self.out.node.push(node(op, &name, inputs, attributes));
        name
    }

    fn scalar(&mut self, x: f32) -> String {
        self.floats(&format!("float.{x:?}"), &[], &[x])
    }

    fn floats(&mut self, name: &str, shape: &[i64], x: &[f32]) -> String {
        let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.array(name, shape, TensorProto::FLOAT, bytes)
    }

    fn ints(&mut self, x: &[i64]) -> String {
        let name = x.iter().fold("ints".to_string(), |name, x| format!("{name}.{x}"));
        let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.array(&name, &[x.len() as i64], TensorProto::INT64, bytes)
    }

    /// A fixed array; one that is there already by this name serves again.
    fn array(&mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> String {
        let new = TensorProto { dims: dims.into(), data_type, name: name.into(), raw_data };
        if let Some(old) = self.out.initializer.iter().find(|old| **old == new) {
            return old.name.clone();
        }
        let name = self.free(name);
        self.out.initializer.push(TensorProto { name: name.clone(), ..new });
        name
    }

    /// The name, or with a number behind it, if it stands for something already.
    fn free(&mut self, name: &str) -> String {
        let again = (2..).map(|i| format!("{name}.{i}"));
        let names = std::iter::once(name.to_string()).chain(again);
        let name = names.into_iter().find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }
}

/// The layer of a parameter: `conv1` of `conv1.weight`.
fn owner(parameter: &str) -> String {
    parameter.split(".weight").next().unwrap_or_default().into()
}

/// The shape that puts a number a channel beside `N C …`.
fn channels(c: i64, rank: usize) -> Vec<i64> {
    [vec![c], vec![1; rank.saturating_sub(2)]].concat()
}

fn window(size: usize, stride: usize, pad: usize) -> Vec<AttributeProto> {
    vec![
        attribute::ints("kernel_shape", &[size as i64; 2]),
        attribute::ints("strides", &[stride as i64; 2]),
        attribute::ints("pads", &[pad as i64; 4]),
    ]
}

/// A batch of any size, of what a node takes or makes.
fn value(name: &str, node: &Node) -> ValueInfoProto {
    let fixed = |n: usize| DimensionProto { dim_value: Some(n as i64), dim_param: None };
    let mut dim: Vec<_> = node.shape.iter().map(|&n| fixed(n)).collect();
    dim[node.axis] = DimensionProto { dim_value: None, dim_param: Some("N".into()) };
    let shape = Some(TensorShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type: TensorProto::FLOAT, shape });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirnet_engine::Threshold;

    fn node(op: Op, inputs: Vec<Source>, layer: &str, shape: &[usize], axis: usize) -> Node {
        Node { op, inputs, layer: layer.into(), shape: shape.to_vec(), axis }
    }

    fn floats(out: &GraphProto, name: &str) -> (Vec<i64>, Vec<f32>) {
        let array = out.initializer.iter().find(|array| array.name == name).unwrap();
        let x = array.raw_data.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
        (array.dims.clone(), x)
    }

    fn written(nodes: Vec<Node>, numbers: Vec<Numbers>) -> (GraphProto, Vec<String>) {
        let graph = Graph { nodes, numbers };
        graph.check().unwrap();
        let out = write(&graph, Unpack::Function);
        let nodes = out.node.iter().map(|n| format!("{} {}", n.op_type, n.input.join(" ")));
        let nodes = nodes.collect();
        (out, nodes)
    }

    #[test]
    fn around_an_image_lies_what_the_network_has_there() {
        let how = Conv { stride: 1, pad: 1, dilation: 1, groups: 1 };
        for (pad, outside) in [(Pad::Zero, None), (Pad::Minus, Some(-1.0)), (Pad::Plus, Some(1.0))]
        {
            let op = Op::BinConv2d { how, pad, then: Then::Scale };
            let inputs = vec![Source::Node(0), Source::Numbers(0), Source::Numbers(1)];
            let nodes = vec![
                node(Op::Input, vec![], "", &[1, 2, 4, 4], 0),
                node(op, inputs, "conv", &[1, 3, 4, 4], 0),
            ];
            let numbers = vec![
                Numbers::floats("conv.weight", &[3, 2, 3, 3], vec![0.5; 54]),
                Numbers::floats("conv.scale", &[3], vec![1.0, 2.0, 3.0]),
            ];
            let (out, nodes) = written(nodes, numbers);
            let conv = out.node.iter().find(|node| node.op_type == "Conv").unwrap();
            let pads = &conv.attribute.iter().find(|a| a.name == "pads").unwrap().ints;
            match outside {
                None => assert_eq!((pads.as_slice(), nodes.len()), (&[1; 4][..], 6)),
                Some(outside) => {
                    assert_eq!(pads, &[0; 4]);
                    let pad = out.node.iter().find(|node| node.op_type == "Pad").unwrap();
                    assert_eq!(pad.input[1], "ints.0.0.1.1.0.0.1.1");
                    assert_eq!(floats(&out, &pad.input[2]), (vec![], vec![outside]));
                }
            }
            assert_eq!(floats(&out, "conv.scale").0, [3, 1, 1]);
        }
    }

    #[test]
    fn a_threshold_lies_between_two_sums() {
        let thresholds = |flip| {
            let all = vec![Threshold { at: 4, flip: false }, Threshold { at: -2, flip }];
            Numbers { name: "bn.threshold".into(), shape: vec![2], values: Values::Thresholds(all) }
        };
        for flip in [false, true] {
            let how = Conv { stride: 1, pad: 0, dilation: 1, groups: 1 };
            let conv = |then| Op::BinConv2d { how, pad: Pad::Zero, then };
            let inputs = |x, w, n| vec![Source::Node(x), Source::Numbers(w), Source::Numbers(n)];
            let nodes = vec![
                node(Op::Input, vec![], "", &[1, 2, 4, 4], 0),
                node(conv(Then::Threshold), inputs(0, 0, 1), "bn", &[1, 2, 4, 4], 0),
                node(conv(Then::Scale), inputs(1, 0, 2), "conv2", &[1, 2, 4, 4], 0),
            ];
            let numbers = vec![
                Numbers::floats("conv.weight", &[2, 2, 1, 1], vec![1.0; 4]),
                thresholds(flip),
                Numbers::floats("conv2.scale", &[2], vec![1.0, 2.0]),
            ];
            let (out, nodes) = written(nodes, numbers);
            assert_eq!(floats(&out, "bn.threshold"), (vec![2, 1, 1], vec![3.5, -2.5]));
            // What has signs only is not asked for them again.
            assert_eq!(nodes.iter().filter(|n| n.starts_with("GreaterOrEqual")).count(), 2);
            let sides = if flip {
                assert_eq!(floats(&out, "bn.threshold.above").1, [1.0, -1.0]);
                assert_eq!(floats(&out, "bn.threshold.below").1, [-1.0, 1.0]);
                "bn.threshold.above bn.threshold.below"
            } else {
                "float.1.0 float.-1.0"
            };
            assert!(nodes.contains(&format!("Where bn/GreaterOrEqual {sides}")), "{nodes:?}");
        }
    }

    #[test]
    fn levels_take_no_more_arrays_than_they_need() {
        for (rows, expected) in [
            ([[-0.5, 0.5], [-0.5, 0.5]], "float.-0.5 float.0.5"),
            ([[-0.5, 0.5], [-2.0, 2.0]], "conv/Neg conv.weight.high"),
            ([[-0.5, 0.5], [1.0, 2.0]], "conv.weight.low conv.weight.high"),
        ] {
            let x = rows.iter().flat_map(|row| (0..36).map(|i| row[usize::from(i % 5 == 0)]));
            let weights = Numbers::floats("conv.weight", &[2, 4, 3, 3], x.collect());
            let how = Conv { stride: 1, pad: 1, dilation: 1, groups: 1 };
            let inputs = vec![Source::Node(0), Source::Numbers(0)];
            let nodes = vec![
                node(Op::Input, vec![], "", &[1, 4, 4, 4], 0),
                node(Op::Conv2d(how), inputs, "conv", &[1, 2, 4, 4], 0),
            ];
            let (_, nodes) = written(nodes, vec![weights]);
            let call = format!("UnpackBits conv.weight {expected}");
            assert!(nodes.contains(&call), "{nodes:?}");
        }
    }

    #[test]
    fn numbers_that_are_computed_are_laid_beside_their_channels() {
        let nodes = vec![
            node(Op::Input, vec![], "", &[1, 3, 4, 4], 0),
            node(Op::GlobalAvgPool, vec![Source::Node(0)], "se", &[1, 3], 0),
            node(Op::Reshape, vec![Source::Node(1)], "se", &[3], 0),
            node(Op::Reshape, vec![Source::Node(0)], "se", &[1, 3, 4, 4], 1),
            node(Op::MulChannels, vec![Source::Node(3), Source::Node(2)], "se", &[1, 3, 4, 4], 1),
        ];
        let (out, nodes) = written(nodes, vec![]);
        assert_eq!(
            nodes,
            [
                "GlobalAveragePool images",
                "Flatten se/GlobalAveragePool",
                "Reshape se/Flatten ints.-1",
                "Reshape images ints.1.-1.4.4",
                "Reshape se/Reshape ints.-1.1.1",
                "Mul se/Reshape.2 se/Reshape.3",
            ]
        );
        assert_eq!(out.node[5].output, ["logits"]);
    }
}
