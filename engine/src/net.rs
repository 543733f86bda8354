//! A packed network made ready to run: its steps, and the buffers between them.

use crate::compute::{Array, Dims, Room, compute};
use crate::graph::{Graph, Source};
use crate::numbers::Values;
use crate::op::{Op, Then};
use crate::plan::Plan;
use dirnet_kernels::bits::{
    self, Filters, Prepared, PreparedDense, Rows, Thresholds, Transform, pack_planes, pack_rows,
};
use dirnet_kernels::norm_act::Activation;
use dirnet_kernels::pool::max_pool2d_of;
use dirnet_kernels::{ConvGeom, PoolGeom, conv};

/// A network, ready for images.
///
/// All that it needs is made by [`Net::new`] and lives on from image to image: on a worker thread of
/// [`par::with_threads`](dirnet_kernels::par::with_threads) nothing is allocated after the first one.
#[derive(Debug)]
pub struct Net {
    input: Vec<usize>,
    outputs: usize,
    steps: Vec<Step>,
    buffers: Buffers,
    room: Room,
    batch: usize,
}

/// What lies between steps. A buffer is taken out while it is written.
#[derive(Debug, Default)]
struct Buffers {
    floats: Vec<Vec<f32>>,
    /// Planes of bits, four channels to a byte.
    signs: Vec<Vec<u8>>,
}

/// One operation with its numbers laid out, and where its inputs and outputs lie.
#[derive(Debug)]
struct Step {
    node: usize,
    what: What,
    inputs: Vec<Input>,
    shape: Dims,
    axis: usize,
    floats: Option<usize>,
    signs: Option<usize>,
}

#[derive(Debug)]
enum What {
    Images,
    /// The numbers of another step, seen in another shape.
    Alias,
    Floats(Op),
    Affine(Made),
    Conv(Box<conv::Prepared>),
    /// The largest of a window of an affine map, which is nowhere else.
    Pool {
        size: usize,
        stride: usize,
        pad: usize,
        of: Made,
    },
    /// The largest of a window of signs, whose signs are all that is read.
    BitPool {
        size: usize,
        stride: usize,
        pad: usize,
    },
    BinConv(Box<Prepared>, Made),
    BinLinear(PreparedDense, Made),
}

/// What is made of the numbers of a layer, each with its numbers a channel.
#[derive(Debug)]
enum Made {
    Scaled(Vec<f32>),
    Affine { scale: Vec<f32>, a: Vec<f32>, b: Vec<f32>, act: Activation },
    Signs(Thresholds),
}

#[derive(Debug)]
struct Input {
    from: From,
    shape: Dims,
    /// The axis that grows with the batch, if any does.
    axis: Option<usize>,
}

/// Where a step finds what it reads.
#[derive(Debug)]
enum From {
    Floats(usize),
    Signs(usize),
    Fixed(Vec<f32>),
}

/// What a node came to, as [`Net::watch`] shows it.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Its numbers.
    Floats(&'a [f32]),
    /// The signs of its numbers, which is all that anybody reads of them.
    Signs(Planes<'a>),
}

/// Signs of images: planes of bytes, of which each has four channels of a pixel in its lower bits.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    bytes: &'a [u8],
    channels: usize,
    area: usize,
}

impl Planes<'_> {
    /// The sign of each number, `N C H W`: +1 or -1.
    pub fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        let image = self.channels.div_ceil(4) * self.area;
        let each = move |(image, c, pixel): (&[u8], usize, usize)| {
            let bit = image[c / 4 * self.area + pixel] >> (c % 4) & 1;
            if bit == 1 { 1.0 } else { -1.0 }
        };
        self.bytes.chunks_exact(image).flat_map(move |image| {
            (0..self.channels * self.area).map(move |i| each((image, i / self.area, i % self.area)))
        })
    }
}

impl Net {
    /// Lays out a network for batches of at most `batch` images.
    ///
    /// # Errors
    /// If the graph can't be run: see [`Graph::check`].
    pub fn new(graph: Graph, batch: usize) -> Result<Self, crate::Broken> {
        graph.check().map_err(crate::Broken)?;
        let batch = batch.max(1);
        let plan = Plan::of(&graph);
        let mut room = Room::default();
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            if plan.floats[at].is_none() && plan.signs[at].is_none() {
                continue; // nobody reads it
            }
            let what = match plan.pooled[at] {
                _ if plan.alias[at] => What::Alias,
                _ if plan.bit_pool[at] => bit_pool(&node.op),
                Some(affine) => pool(&graph, at, affine),
                None => what(&graph, at, batch),
            };
            room.reserve(&node.op, &node.shape_of(batch));
            match &what {
                What::BinConv(prepared, _) => room.reserve_planes(prepared.x_len(batch)),
                What::BinLinear(prepared, _) => {
                    room.reserve_words(batch * prepared.size()[1].div_ceil(64));
                }
                _ => {}
            }
            steps.push(Step {
                node: at,
                inputs: inputs(&graph, at, &what, &plan),
                what,
                shape: Dims::of(&node.shape),
                axis: node.axis,
                floats: plan.floats[at],
                signs: plan.signs[at],
            });
        }
        let buffers = Buffers {
            floats: plan.sizes.iter().map(|&len| vec![0.0; len * batch]).collect(),
            signs: plan.plane_sizes.iter().map(|&len| vec![0; len * batch]).collect(),
        };
        let (input, outputs) = (graph.input().to_vec(), graph.outputs());
        Ok(Net { input, outputs, steps, buffers, room, batch })
    }

    /// The shape of one image, `C H W`.
    pub fn input(&self) -> &[usize] {
        &self.input
    }

    /// How many numbers come out for an image.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The most images of one batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The output for each image of a batch, one after the other: `images` are `N C H W`.
    ///
    /// # Panics
    /// If they are no whole number of images, none, or more than were planned for.
    #[track_caller]
    pub fn run(&mut self, images: &[f32]) -> &[f32] {
        self.watch(images, &mut |_, _| ())
    }

    /// The same, and each node's output as it is computed.
    ///
    /// # Panics
    /// As [`Net::run`].
    #[track_caller]
    pub fn watch(&mut self, images: &[f32], see: &mut dyn FnMut(usize, Seen<'_>)) -> &[f32] {
        let size: usize = self.input.iter().product();
        let n = images.len() / size;
        assert!(n > 0 && n * size == images.len(), "images of {:?}", self.input);
        assert!(n <= self.batch, "{n} images, planned for at most {}", self.batch);
        for step in &self.steps {
            step.run(n, images, &mut self.buffers, &mut self.room);
            if let Some(seen) = step.seen(n, &self.buffers) {
                see(step.node, seen);
            }
        }
        let last = self.steps.last().expect("a checked graph has a node");
        let slot = last.floats.expect("the output is kept as floats");
        &self.buffers.floats[slot][..n * last.shape.len()]
    }
}

impl Step {
    fn run(&self, n: usize, images: &[f32], buffers: &mut Buffers, room: &mut Room) {
        let shape = self.shape.grown(self.axis, n);
        let mut floats = self.floats.map(|slot| std::mem::take(&mut buffers.floats[slot]));
        let mut signs = self.signs.map(|slot| std::mem::take(&mut buffers.signs[slot]));
        let mut y = floats.as_mut().map(|y| &mut y[..shape.len()]);
        let mut planes = signs.as_mut().map(|s| &mut s[..shape.planes_len()]);
        let input = |i: usize| {
            let input = &self.inputs[i];
            let shape = input.axis.map_or(input.shape, |axis| input.shape.grown(axis, n));
            Array { x: &input.floats(buffers)[..shape.len()], shape }
        };
        let residual = (self.inputs.len() > 1).then(|| input(1).x);
        match &self.what {
            What::Alias => {}
            What::Images => {
                if let Some(y) = &mut y {
                    y.copy_from_slice(images);
                }
            }
            What::Floats(op) => {
                let y = y.as_mut().expect("floats are made");
                compute(op, self.inputs.len(), &input, &shape, y, room);
            }
            What::Conv(conv) => conv.run(n, input(0).x, y.as_mut().expect("floats are made")),
            What::Affine(then) => {
                let (y, planes) = (y.as_deref_mut(), planes.as_deref_mut());
                bits::transform(shape.images(), input(0).x, &then.transform(), residual, y, planes);
            }
            What::Pool { size, stride, pad, of } => {
                let x = input(0);
                let g = PoolGeom::new(&x.shape, *size, *stride, *pad);
                let y = y.as_mut().expect("floats are made");
                max_pool2d_of(&g, x.x, Some(&of.transform()), y);
            }
            What::BitPool { size, stride, pad } => {
                let x = self.inputs[0].shape.grown(self.axis, n);
                let g = PoolGeom::new(&x, *size, *stride, *pad);
                if let (From::Signs(slot), Some(y)) = (&self.inputs[0].from, &mut planes) {
                    bits::max_pool(&g, &buffers.signs[*slot][..x.planes_len()], y);
                }
            }
            What::BinConv(conv, then) => {
                let x = match self.inputs[0].from {
                    From::Signs(slot) => &buffers.signs[slot][..conv.x_len(n)],
                    _ => {
                        let (x, groups) = (input(0), conv.geom().how.groups);
                        let packed = room.planes(conv.x_len(n));
                        pack_planes(x.shape.images(), groups, x.x, packed);
                        packed
                    }
                };
                let (y, planes) = (y.as_deref_mut(), planes.as_deref_mut());
                conv.run(n, x, &then.transform(), residual, y, planes);
            }
            What::BinLinear(dense, then) => {
                let [_, k] = dense.size();
                let words = room.words(n * k.div_ceil(64));
                pack_rows(k, input(0).x, words);
                let y = y.as_deref_mut();
                dense.run(n, words, &then.transform(), None, y, None);
            }
        }
        // Signs that the step itself has not made are those of its floats.
        let makes = matches!(self.what, What::Affine(_) | What::BinConv(..) | What::BitPool { .. });
        if let (false, Some(y), Some(planes)) = (makes, &y, &mut planes) {
            pack_planes(shape.images(), 1, y, planes);
        }
        if let (Some(slot), Some(floats)) = (self.floats, floats) {
            buffers.floats[slot] = floats;
        }
        if let (Some(slot), Some(signs)) = (self.signs, signs) {
            buffers.signs[slot] = signs;
        }
    }

    fn seen<'a>(&self, n: usize, buffers: &'a Buffers) -> Option<Seen<'a>> {
        let shape = self.shape.grown(self.axis, n);
        match (self.floats, self.signs) {
            (Some(slot), _) => Some(Seen::Floats(&buffers.floats[slot][..shape.len()])),
            (None, Some(slot)) => {
                let bytes = &buffers.signs[slot][..shape.planes_len()];
                let [_, channels, h, w] = shape.images();
                Some(Seen::Signs(Planes { bytes, channels, area: h * w }))
            }
            (None, None) => None,
        }
    }
}

impl Made {
    fn transform(&self) -> Transform<'_> {
        match self {
            Made::Scaled(scale) => Transform::Scale { scale },
            Made::Affine { scale, a, b, act } => Transform::Affine { scale, a, b, act: *act },
            Made::Signs(thresholds) => Transform::Threshold(thresholds),
        }
    }
}

impl Input {
    fn floats<'a>(&'a self, buffers: &'a Buffers) -> &'a [f32] {
        match &self.from {
            From::Floats(slot) => &buffers.floats[*slot],
            From::Fixed(x) => x,
            From::Signs(_) => unreachable!("signs are read as such"),
        }
    }
}

/// What a node computes, with its numbers laid out.
fn what(graph: &Graph, at: usize, batch: usize) -> What {
    let node = &graph.nodes[at];
    let numbers = |input: usize| match node.inputs[input] {
        Source::Numbers(i) => &graph.numbers[i],
        Source::Node(_) => unreachable!("checked to be fixed"),
    };
    let floats = |input: usize| numbers(input).to_floats();
    match node.op {
        Op::Input => What::Images,
        Op::Affine { act } => {
            let (a, b) = (floats(1), floats(2));
            What::Affine(Made::Affine { scale: vec![1.0; a.len()], a, b, act })
        }
        Op::Conv2d(how) => {
            let x = graph.shape_of(node.inputs[0], batch);
            let g = ConvGeom::new(&x, &numbers(1).shape, how);
            What::Conv(Box::new(conv::Prepared::new(&g, &floats(1))))
        }
        Op::BinConv2d { how, pad, then } => {
            let x = graph.shape_of(node.inputs[0], batch);
            let g = ConvGeom::new(&x, &numbers(1).shape, how);
            let made = match then {
                Then::Scale => Made::Scaled(floats(2)),
                Then::Affine { act } => {
                    Made::Affine { scale: vec![1.0; g.o], a: floats(2), b: floats(3), act }
                }
                Then::ScaledAffine { act } => {
                    Made::Affine { scale: floats(2), a: floats(3), b: floats(4), act }
                }
                Then::Threshold => match &numbers(2).values {
                    Values::Thresholds(all) => {
                        let always =
                            |at: i16| if at == i16::MIN { f32::NEG_INFINITY } else { at.into() };
                        let at: Vec<f32> = all.iter().map(|t| always(t.at)).collect();
                        let flip: Vec<bool> = all.iter().map(|t| t.flip).collect();
                        Made::Signs(Thresholds::new(&at, &flip))
                    }
                    _ => unreachable!("checked"),
                },
            };
            let filters = match &numbers(1).values {
                Values::Signs(bits) => Filters::of_signs(&g, |i| bits.get(i)),
                _ => Filters::pack(&g, &floats(1)),
            };
            What::BinConv(Box::new(Prepared::new(&g, pad, &filters)), made)
        }
        Op::BinLinear => {
            let &[o, k] = numbers(1).shape.as_slice() else { unreachable!("checked") };
            let dense = PreparedDense::new(&Rows::pack(o, k, &floats(1)));
            What::BinLinear(dense, Made::Scaled(floats(2)))
        }
        op => What::Floats(op),
    }
}

/// A pool of signs.
fn bit_pool(op: &Op) -> What {
    match *op {
        Op::MaxPool2d { size, stride, pad } => What::BitPool { size, stride, pad },
        op => What::Floats(op),
    }
}

/// A pool of an affine map.
fn pool(graph: &Graph, at: usize, affine: usize) -> What {
    match (graph.nodes[at].op, what(graph, affine, 1)) {
        (Op::MaxPool2d { size, stride, pad }, What::Affine(of)) => {
            What::Pool { size, stride, pad, of }
        }
        (op, _) => What::Floats(op),
    }
}

/// What a step reads, without the numbers that it has laid out itself.
fn inputs(graph: &Graph, at: usize, what: &What, plan: &Plan) -> Vec<Input> {
    let node = &graph.nodes[plan.pooled[at].unwrap_or(at)];
    let laid_out = !matches!(what, What::Images | What::Alias | What::Floats(_));
    let own = match node.op {
        Op::BinConv2d { then, .. } => 1..2 + then.numbers(),
        _ if laid_out => 1..3,
        _ => 0..0,
    };
    let input = |(input, &source): (usize, &Source)| match source {
        _ if own.contains(&input) => None,
        Source::Numbers(i) => {
            let numbers = &graph.numbers[i];
            let from = From::Fixed(numbers.to_floats());
            Some(Input { from, shape: Dims::of(&numbers.shape), axis: None })
        }
        Source::Node(i) => {
            let signs = plan.by_signs(graph, (at, input)).then(|| plan.signs[i]).flatten();
            let floats = || From::Floats(plan.floats[i].expect("somebody reads them"));
            let from = signs.map_or_else(floats, From::Signs);
            let node = &graph.nodes[i];
            Some(Input { from, shape: Dims::of(&node.shape), axis: Some(node.axis) })
        }
    };
    node.inputs.iter().enumerate().filter_map(input).collect()
}
