//! A packed network made ready to run: its steps, and the buffers between them.

use crate::compute::{Array, Room, compute};
use crate::graph::{Graph, Source};
use crate::numbers::{Threshold, Values};
use crate::op::{Op, Then};
use dirnet_kernels::bits::{self, Filters, Image, Pad, Rows};
use dirnet_kernels::norm_act::{self, Activation, NormAct};
use dirnet_kernels::{Conv, ConvGeom, elementwise};

/// A network, ready for images.
///
/// All that it needs is made by [`Net::new`] and lives on from image to image.
#[derive(Debug)]
pub struct Net {
    graph: Graph,
    steps: Vec<Step>,
    buffers: Buffers,
    room: Room,
    batch: usize,
}

/// What lies between steps. A buffer is taken out while it is written.
#[derive(Debug, Default)]
struct Buffers {
    floats: Vec<Vec<f32>>,
    signs: Vec<Option<Image>>,
}

/// One operation with its numbers laid out, and where its inputs and outputs lie.
#[derive(Debug)]
struct Step {
    node: usize,
    what: What,
    inputs: Vec<Input>,
    shape: Vec<usize>,
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
    Affine(Affine),
    BinConv {
        how: Conv,
        pad: Pad,
        filters: Filters,
        w: [usize; 4],
        then: Made,
    },
    BinLinear {
        w: Rows,
        o: usize,
        k: usize,
        scale: Vec<f32>,
    },
}

/// What is made of the sums of a binary convolution.
#[derive(Debug)]
enum Made {
    Scaled(Vec<f32>),
    Affine(Vec<f32>, Affine),
    Signs(Vec<Threshold>),
}

#[derive(Debug)]
struct Affine {
    a: Vec<f32>,
    b: Vec<f32>,
    zeros: Vec<f32>,
    act: Activation,
}

#[derive(Debug)]
struct Input {
    from: From,
    shape: Vec<usize>,
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
#[derive(Debug)]
pub enum Seen<'a> {
    /// Its numbers.
    Floats(&'a [f32]),
    /// The signs of its numbers, which is all that anybody reads of them.
    Signs(&'a Image),
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
            let what = if plan.alias[at] { What::Alias } else { what(&graph, at) };
            let shape = node.shape_of(batch);
            let rows = shape.first().copied().unwrap_or(1);
            room.reserve(&node.op, rows, node.len() * batch);
            steps.push(Step {
                node: at,
                inputs: inputs(&graph, at, &what, &plan),
                what,
                shape: node.shape.clone(),
                axis: node.axis,
                floats: plan.floats[at],
                signs: plan.signs[at],
            });
        }
        let buffers = Buffers {
            floats: plan.sizes.iter().map(|&len| vec![0.0; len * batch]).collect(),
            signs: (0..plan.signs_slots).map(|_| None).collect(),
        };
        Ok(Net { graph, steps, buffers, room, batch })
    }

    /// The network.
    pub fn graph(&self) -> &Graph {
        &self.graph
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
        let size: usize = self.graph.input().iter().product();
        let n = images.len() / size;
        assert!(n > 0 && n * size == images.len(), "images of {:?}", self.graph.input());
        assert!(n <= self.batch, "{n} images, planned for at most {}", self.batch);
        for step in &self.steps {
            step.run(n, images, &mut self.buffers, &mut self.room);
            let shown = match (step.floats, step.signs) {
                (Some(slot), _) => Seen::Floats(&self.buffers.floats[slot][..n * len(&step.shape)]),
                (None, Some(slot)) => match &self.buffers.signs[slot] {
                    Some(signs) => Seen::Signs(signs),
                    None => continue,
                },
                (None, None) => continue,
            };
            see(step.node, shown);
        }
        let last = self.steps.last().expect("a checked graph has a node");
        let slot = last.floats.expect("the output is kept as floats");
        &self.buffers.floats[slot][..n * len(&last.shape)]
    }
}

fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn scaled(shape: &[usize], axis: usize, n: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[axis] *= n;
    shape
}

impl Step {
    fn run(&self, n: usize, images: &[f32], buffers: &mut Buffers, room: &mut Room) {
        if let What::Alias = self.what {
            return self.pack(n, buffers);
        }
        let mut y = self.floats.map(|slot| std::mem::take(&mut buffers.floats[slot]));
        let mut signs = None;
        let len = n * len(&self.shape);
        let out = y.as_mut().map(|y| &mut y[..len]);
        match &self.what {
            What::Alias => {}
            What::Images => {
                if let Some(y) = out {
                    y.copy_from_slice(images);
                }
            }
            What::Floats(op) => {
                let shapes: Vec<_> = self.inputs.iter().map(|input| input.shape(n)).collect();
                let arrays = self.inputs.iter().zip(&shapes);
                let arrays: Vec<_> = arrays
                    .map(|(input, shape)| Array {
                        x: &input.floats(buffers)[..shape.iter().product()],
                        shape,
                    })
                    .collect();
                let shape = scaled(&self.shape, self.axis, n);
                compute(op, &arrays, &shape, out.expect("floats are made"), room);
            }
            What::Affine(affine) => {
                let shape = scaled(&self.shape, self.axis, n);
                let x = norm_act::Numbers::Floats(&self.inputs[0].floats(buffers)[..len]);
                let residual = self.inputs.get(1).map(|r| &r.floats(buffers)[..len]);
                signs = affine.job(&shape, x).forward(residual, out, self.signs.is_some(), false).1;
            }
            What::BinConv { how, pad, filters, w, then } => {
                let input = &self.inputs[0];
                let x_shape = input.shape(n);
                let g = ConvGeom::new(&x_shape, w, *how);
                let packed;
                let x = match input {
                    Input { from: From::Signs(slot), .. } => {
                        buffers.signs[*slot].as_ref().expect("made before")
                    }
                    _ => {
                        packed = Image::pack(&g, &input.floats(buffers)[..g.x_len()]);
                        &packed
                    }
                };
                let mut z = vec![0; g.y_len()];
                bits::conv2d_i16(&g, x, filters, *pad, &mut z);
                let shape = g.y();
                match then {
                    Made::Scaled(scale) => {
                        let y = out.expect("floats are made");
                        let area = g.oh * g.ow;
                        for (row, (y, z)) in y.chunks_mut(area).zip(z.chunks(area)).enumerate() {
                            let scale = scale[row % g.o];
                            y.iter_mut().zip(z).for_each(|(y, &z)| *y = f32::from(z) * scale);
                        }
                    }
                    Made::Affine(scale, affine) => {
                        let x = norm_act::Numbers::Integers { z: &z, scale, sums: None };
                        let residual = self.inputs.get(1).map(|r| &r.floats(buffers)[..len]);
                        let job = affine.job(&shape, x);
                        signs = job.forward(residual, out, self.signs.is_some(), false).1;
                    }
                    Made::Signs(thresholds) => {
                        let area = g.oh * g.ow;
                        let mut y = vec![0.0; z.len()];
                        for (row, (y, z)) in y.chunks_mut(area).zip(z.chunks(area)).enumerate() {
                            let at = thresholds[row % g.o];
                            y.iter_mut()
                                .zip(z)
                                .for_each(|(y, &z)| *y = if at.of(z) { 1.0 } else { -1.0 });
                        }
                        signs = Some(pack(&shape, &y));
                        if let Some(out) = out {
                            out.copy_from_slice(&y);
                        }
                    }
                }
            }
            What::BinLinear { w, o, k, scale } => {
                let y = out.expect("floats are made");
                let x = &self.inputs[0].floats(buffers)[..n * k];
                bits::dense(n, *k, *o, &Rows::pack(n, *k, x), w, y);
                let z = y.to_vec();
                elementwise::scale_channels(n, *o, 1, &z, scale, y);
            }
        }
        if let (Some(slot), Some(y)) = (self.floats, y) {
            buffers.floats[slot] = y;
        }
        match (self.signs, signs) {
            (Some(slot), signs @ Some(_)) => buffers.signs[slot] = signs,
            _ => self.pack(n, buffers),
        }
    }

    /// The signs of its floats, where they are wanted.
    fn pack(&self, n: usize, buffers: &mut Buffers) {
        if let (Some(slot), Some(floats)) = (self.signs, self.floats) {
            let shape = scaled(&self.shape, self.axis, n);
            buffers.signs[slot] = Some(pack(&shape, &buffers.floats[floats][..len(&shape)]));
        }
    }
}

fn pack(shape: &[usize], x: &[f32]) -> Image {
    let c = shape[1];
    let g = ConvGeom::new(shape, &[1, c, 1, 1], Conv::valid());
    Image::pack(&g, x)
}

impl Affine {
    fn job<'a>(&'a self, shape: &[usize], x: norm_act::Numbers<'a>) -> NormAct<'a> {
        let size = [shape[0], shape[1], shape[2..].iter().product(), 1];
        let size = match *shape {
            [n, c, h, w] => [n, c, h, w],
            _ => size,
        };
        NormAct { size, x, mean: &self.zeros, scale: &self.a, shift: &self.b, act: self.act }
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

    fn shape(&self, n: usize) -> Vec<usize> {
        self.axis.map_or(self.shape.clone(), |axis| scaled(&self.shape, axis, n))
    }
}

/// What a node computes, with its numbers laid out.
fn what(graph: &Graph, at: usize) -> What {
    let node = &graph.nodes[at];
    let numbers = |input: usize| match node.inputs[input] {
        Source::Numbers(i) => &graph.numbers[i],
        Source::Node(_) => unreachable!("checked to be fixed"),
    };
    let floats = |input: usize| numbers(input).to_floats();
    let affine = |first: usize, act: Activation| {
        let (a, b) = (floats(first), floats(first + 1));
        Affine { zeros: vec![0.0; a.len()], a, b, act }
    };
    match node.op {
        Op::Input => What::Images,
        Op::Affine { act } => What::Affine(affine(1, act)),
        Op::BinConv2d { how, pad, then } => {
            let x = graph.shape_of(node.inputs[0], 1);
            let &[o, c, kh, kw] = numbers(1).shape.as_slice() else { unreachable!("checked") };
            let w = [o, c, kh, kw];
            let g = ConvGeom::new(&x, &w, how);
            let then = match then {
                Then::Scale => Made::Scaled(floats(2)),
                Then::Affine { act } => Made::Affine(vec![1.0; o], affine(2, act)),
                Then::ScaledAffine { act } => Made::Affine(floats(2), affine(3, act)),
                Then::Threshold => match &numbers(2).values {
                    Values::Thresholds(all) => Made::Signs(all.clone()),
                    _ => unreachable!("checked"),
                },
            };
            What::BinConv { how, pad, filters: Filters::pack(&g, &floats(1)), w, then }
        }
        Op::BinLinear => {
            let &[o, k] = numbers(1).shape.as_slice() else { unreachable!("checked") };
            What::BinLinear { w: Rows::pack(o, k, &floats(1)), o, k, scale: floats(2) }
        }
        op => What::Floats(op),
    }
}

/// What a step reads, without the numbers that it has laid out itself.
fn inputs(graph: &Graph, at: usize, what: &What, plan: &Plan) -> Vec<Input> {
    let node = &graph.nodes[at];
    let own = |input: usize| match what {
        What::Images | What::Alias | What::Floats(_) => false,
        What::Affine(_) => input == 1 || input == 2,
        What::BinConv { .. } | What::BinLinear { .. } => input > 0,
    };
    let input = |(input, &source): (usize, &Source)| match source {
        // A residual is a node even where all else is fixed.
        Source::Numbers(_) if own(input) => None,
        Source::Numbers(i) => {
            let numbers = &graph.numbers[i];
            let from = From::Fixed(numbers.to_floats());
            Some(Input { from, shape: numbers.shape.clone(), axis: None })
        }
        Source::Node(i) => {
            let signs = plan.by_signs(graph, (at, input)).then(|| plan.signs[i]).flatten();
            let floats = || From::Floats(plan.floats[i].expect("somebody reads them"));
            let from = signs.map_or_else(floats, From::Signs);
            let node = &graph.nodes[i];
            Some(Input { from, shape: node.shape.clone(), axis: Some(node.axis) })
        }
    };
    node.inputs.iter().enumerate().filter_map(input).collect()
}

/// Which buffer holds what, and until when.
struct Plan {
    /// The buffer of each node's floats, if anybody reads them.
    floats: Vec<Option<usize>>,
    /// The buffer of its signs.
    signs: Vec<Option<usize>>,
    /// Whether a node is only another view of its input.
    alias: Vec<bool>,
    /// Floats of each buffer, for one image.
    sizes: Vec<usize>,
    signs_slots: usize,
}

impl Plan {
    fn of(graph: &Graph) -> Plan {
        let n = graph.nodes.len();
        let mut plan = Plan {
            floats: vec![None; n],
            signs: vec![None; n],
            alias: vec![false; n],
            sizes: Vec::new(),
            signs_slots: 0,
        };
        let mut last = vec![0; n];
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
            // Signs that the step itself does not make are taken of its floats.
            let makes = matches!(node.op, Op::Affine { .. } | Op::BinConv2d { .. });
            let bare = matches!(node.op, Op::BinConv2d { then: Then::Scale, .. });
            reads_floats[at] |= reads_signs[at] && (!makes || bare);
            for (input, &source) in node.inputs.iter().enumerate() {
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
                plan.floats[at] = Some(plan.take(&mut free, graph.nodes[at].len()));
                ends[last[at].max(at)].push(at);
            }
            if reads_signs[at] {
                plan.signs[at] = Some(free_signs.pop().unwrap_or_else(|| {
                    plan.signs_slots += 1;
                    plan.signs_slots - 1
                }));
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

    /// A buffer that is free, the best fitting one, or a new one.
    fn take(&mut self, free: &mut Vec<usize>, len: usize) -> usize {
        let fits = |slot: &usize| self.sizes[*slot].abs_diff(len);
        let best = (0..free.len()).min_by_key(|&i| fits(&free[i]));
        let slot = best.map(|i| free.swap_remove(i)).unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        self.sizes[slot] = self.sizes[slot].max(len);
        slot
    }

    /// Whether an input is read in bits.
    fn by_signs(&self, graph: &Graph, (at, input): (usize, usize)) -> bool {
        input == 0 && matches!(graph.nodes[at].op, Op::BinConv2d { how, .. } if how.groups == 1)
    }
}
