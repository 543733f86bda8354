//! DARTS: networks of cells that were found by a search, and the search.

mod genotype;
mod operation;
mod search;

pub(crate) use genotype::short;
pub use genotype::{Genotype, settled};
pub use operation::{FactorizedReduce, Operation};
pub use search::Supernet;

use super::maker::{Maker, binary_depthwise, widened, width};
use crate::nn::{Activation, Linear, Module};
use crate::ops::{Conv, concat};
use crate::spec::Options;
use crate::{Error, Var};
use operation::{Operations, Stack, halved};

/// Cells one after the other, each fed by the two before it (Liu, Simonyan and Yang, 2019, arXiv
/// 1806.09055, figures 4 and 5): [`Genotype::darts_v2`] unless `genotype=FILE` says otherwise. `C` channels at first,
/// twice as many from each of the two cells on, at a third and at two thirds of the depth, that halve the
/// images. Behind the last cell stand global pooling and a dense layer.
///
/// | images | stem | `C` | `layers` |
/// | --- | --- | --- | --- |
/// | below 128 pixels | 3x3 convolution to `3·C` channels, batch norm | 36 | 20 |
/// | from 128 on | three 3x3 convolutions of stride 2 to `C`, the last two behind a ReLU each, with batch norms | 48 | 14 |
///
/// `width` multiplies `C`, in multiples of 8. Parameters are named as in the authors' code (`quark0/darts`).
///
/// In training, a head beside the network, behind the second halving cell, learns the classes as well
/// (`auxiliary=on`, [`Var::head`] with weight 0.4), and what an edge says of an image is left out with
/// probability `drop_path · progress`, unless the edge is a plain skip. The head's window is 5x5, as theirs,
/// where that leaves 2x2 of the 6 to 10 pixels that remain, and otherwise so large that it does. What is trained
/// and saved has its parameters too; what is evaluated does without.
///
/// What is binary are the 1x1 convolutions, those before a cell and those of the operations: with ten classes
/// 3,150,576 of the 3,349,342 parameters that DARTS_V2 has without its head. Stem, dense layer, the head and, unless
/// `depthwise=binary`, the depthwise convolutions stay in float, for the reasons given at
/// [`MobileNet`](super::MobileNet). The paper's operations are ReLU, convolution, batch norm; a ReLU before a sign
/// would leave nothing but +1, so where activations are binarized there stands in its place what the method
/// has between layers, and the ReLU where they stay float. For the same reason a batch norm stands then behind each
/// pool, as in the network of the search: all that comes out of a halving cell of DARTS_V2 are sums of largest numbers.
///
/// BATS (Bulat et al., 2020, arXiv 2003.01711) finds that
/// "directly applying NAS to the binary domain provides very poor results", and like BNAS (Chen et al., 2020, arXiv
/// 1911.10862) searches among operations of its own; here the network stays the one of the figure.
pub struct Darts {
    /// What the first cell gets as the outputs of the two before it.
    stems: [Stack; 2],
    cells: Vec<Cell>,
    /// Behind which cell it stands, and the head itself.
    auxiliary: Option<(usize, AuxiliaryHead)>,
    drop_path: f32,
    classifier: Linear,
}

const AUXILIARY_WEIGHT: f32 = 0.4;
const LEAST: usize = 8;

impl Darts {
    /// `darts(width=1, layers=20, auxiliary=on, drop_path=0.2, depthwise=float, genotype=FILE)`
    pub(super) fn of(options: &mut Options<'_>, mut maker: Maker<'_>) -> Result<Self, Error> {
        maker.at_least("darts", LEAST)?;
        let large = is_large(&maker);
        let (channels, layers) = if large { (48, 14) } else { (36, 20) };
        let channels = widened(channels, width(options)?);
        let layers = options.get("layers", layers)?;
        if !(1..=64).contains(&layers) {
            return Err(Error::Setting(format!("darts: layers is {layers}, expected 1 to 64")));
        }
        let auxiliary = options.word("auxiliary", true, &[("on", true), ("off", false)])?;
        let drop_path = options.number("drop_path", 0.2, 0.0..=0.9)?;
        maker.binary_depthwise = binary_depthwise(options)?;
        let genotype = match options.get("genotype", String::new())? {
            text if text.is_empty() => Genotype::darts_v2(),
            text => text.parse()?,
        };

        let (stems, fed) = stems(&mut maker, channels);
        let nodes = [&genotype.normal, &genotype.reduce].map(|edges| edges.len() / 2);
        let places = places(layers, channels, fed, nodes);
        let mut operations = Operations { maker: &mut maker, searches: false };
        let cell = |place: &Place| {
            let edges = if place.reduces { &genotype.reduce } else { &genotype.normal };
            Cell::new(&mut operations, place, edges)
        };
        let cells = places.iter().map(cell).collect();
        let head = |(i, place): (usize, &Place)| {
            let (channels, size) = place.output();
            (i, AuxiliaryHead::new(&mut maker, channels, size))
        };
        let behind = places.iter().enumerate().nth(2 * layers / 3);
        let auxiliary = behind.filter(|_| auxiliary).map(head);
        let (last, _) = places.last().map_or(fed[1], Place::output);
        let classifier = maker.head("classifier", last);
        Ok(Darts { stems, cells, auxiliary, drop_path, classifier })
    }
}

impl Module for Darts {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let drop = self.drop_path * tape.progress();
        let mut before = self.stems[0].forward(x);
        let mut x = self.stems[1].forward(&before);
        for (i, cell) in self.cells.iter().enumerate() {
            let y = cell.forward([&before, &x], drop);
            y.representation();
            (before, x) = (x, y);
            if let Some((behind, head)) = &self.auxiliary
                && *behind == i
                && tape.is_training()
            {
                head.forward(&x).head(AUXILIARY_WEIGHT);
            }
        }
        self.classifier.forward(&x.global_avg_pool())
    }
}

/// Whether the images are for the paper's network for ImageNet.
fn is_large(maker: &Maker<'_>) -> bool {
    let (_, [h, w]) = maker.images();
    h.min(w) >= 128
}

/// The stem in two parts, and channels and size of what each of them gives.
fn stems(maker: &mut Maker<'_>, channels: usize) -> ([Stack; 2], [(usize, [usize; 2]); 2]) {
    let large = is_large(maker);
    let (images, size) = maker.images();
    // Float convolutions with a batch norm each, whatever is searched or binarized.
    let mut conv = |name: &str, i: usize, [from, to]: [usize; 2], stride| -> [Box<dyn Module>; 2] {
        let how = Conv::same(3).stride(stride);
        let conv = maker.float_conv2d(&format!("{name}.{i}"), [from, to, 3], how);
        let norm = maker.norm(&format!("{name}.{}", i + 1), to);
        [Box::new(conv), Box::new(norm)]
    };
    if !large {
        let wide = 3 * channels;
        let stem = conv("stem", 0, [images, wide], 1);
        return ([Stack(stem.into()), Stack(vec![])], [(wide, size); 2]);
    }
    let relu = || -> Box<dyn Module> { Box::new(Activation::Relu) };
    let mut first = Vec::from(conv("stem0", 0, [images, channels / 2], 2));
    first.push(relu());
    first.extend(conv("stem0", 3, [channels / 2, channels], 2));
    let mut second = vec![relu()];
    second.extend(conv("stem1", 1, [channels, channels], 2));
    let quarter = halved(halved(size));
    let fed = [(channels, quarter), (channels, halved(quarter))];
    ([Stack(first), Stack(second)], fed)
}

/// Where a cell stands.
struct Place {
    name: String,
    /// Channels and size of what it is fed.
    fed: [(usize, [usize; 2]); 2],
    channels: usize,
    nodes: usize,
    reduces: bool,
}

impl Place {
    /// Channels and size of what comes out.
    fn output(&self) -> (usize, [usize; 2]) {
        let (_, size) = self.fed[1];
        (self.nodes * self.channels, if self.reduces { halved(size) } else { size })
    }
}

/// The places of all cells, of which those that keep and those that halve the images have so many `nodes`.
fn places(
    layers: usize,
    mut channels: usize,
    mut fed: [(usize, [usize; 2]); 2],
    nodes: [usize; 2],
) -> Vec<Place> {
    let place = |i| {
        let reduces = [layers / 3, 2 * layers / 3].contains(&i);
        channels *= 1 + usize::from(reduces);
        let nodes = nodes[usize::from(reduces)];
        let place = Place { name: format!("cells.{i}"), fed, channels, nodes, reduces };
        fed = [fed[1], place.output()];
        place
    };
    (0..layers).map(place).collect()
}

/// What brings what a cell is fed to its channels and to one size.
fn preprocess(operations: &mut Operations<'_, '_>, place: &Place) -> [Box<dyn Module>; 2] {
    let [(older, large), (newer, size)] = place.fed;
    let (first, second) =
        (format!("{}.preprocess0", place.name), format!("{}.preprocess1", place.name));
    let first = match large == size {
        true => operations.preprocess(&first, [older, place.channels], size),
        false => operations.reduce(&first, [older, place.channels], large),
    };
    [first, operations.preprocess(&second, [newer, place.channels], size)]
}

/// Stride of an edge that works on `from`, and the size of what it sees.
fn step(place: &Place, from: usize) -> (usize, [usize; 2]) {
    let (_, size) = place.fed[1];
    match place.reduces {
        true if from < 2 => (2, size),
        true => (1, halved(size)),
        false => (1, size),
    }
}

/// Nodes of two edges each.
struct Cell {
    preprocess: [Box<dyn Module>; 2],
    edges: Vec<Edge>,
}

struct Edge {
    name: String,
    from: usize,
    operation: Box<dyn Module>,
    /// Whether it may be left out by chance.
    drops: bool,
}

impl Cell {
    fn new(
        operations: &mut Operations<'_, '_>,
        place: &Place,
        edges: &[(Operation, usize)],
    ) -> Self {
        let preprocess = preprocess(operations, place);
        let edge = |(i, &(operation, from)): (usize, &(Operation, usize))| {
            let (stride, input) = step(place, from);
            let name = format!("{}._ops.{i}", place.name);
            let drops = operation != Operation::Skip || stride == 2;
            let operation = operations.make(operation, &name, (place.channels, stride), input);
            Edge { name, from, operation, drops }
        };
        Cell { preprocess, edges: edges.iter().enumerate().map(edge).collect() }
    }

    fn forward<'t>(&self, fed: [&Var<'t>; 2], drop: f32) -> Var<'t> {
        let mut states: Vec<Var<'t>> =
            self.preprocess.iter().zip(fed).map(|(part, x)| part.forward(x)).collect();
        for node in self.edges.chunks(2) {
            let edges = node.iter().map(|Edge { name, from, operation, drops }| {
                let y = operation.forward(&states[*from]);
                if *drops { y.drop_images(drop, name) } else { y }
            });
            let sum = edges.reduce(|a, b| a + b).expect("two edges a node");
            states.push(sum);
        }
        concat(&states[2..].iter().collect::<Vec<_>>())
    }
}

/// A small network beside the network, in float: it is of no use once training is over.
struct AuxiliaryHead {
    pool: (usize, usize),
    features: Stack,
    classifier: Linear,
}

impl AuxiliaryHead {
    /// For large images without the last batch norm, as the authors' network for ImageNet.
    fn new(maker: &mut Maker<'_>, channels: usize, size: [usize; 2]) -> Self {
        // Two windows side by side, of 5 pixels where they reach and leave none out.
        let side = size[0].min(size[1]);
        let window = (side - 1).min(5).max(side.div_ceil(2));
        let name = |i: usize| format!("auxiliary_head.features.{i}");
        let conv = maker.float_conv2d(&name(2), [channels, 128, 1], Conv::valid());
        let norm = maker.norm(&name(3), 128);
        let again = maker.float_conv2d(&name(5), [128, 768, 2], Conv::valid());
        let mut parts: Vec<Box<dyn Module>> =
            vec![Box::new(conv), Box::new(norm), Box::new(Activation::Relu), Box::new(again)];
        if !is_large(maker) {
            parts.push(Box::new(maker.norm(&name(6), 768)));
        }
        parts.push(Box::new(Activation::Relu));
        let classifier = maker.head("auxiliary_head.classifier", 768);
        AuxiliaryHead { pool: (window, side - window), features: Stack(parts), classifier }
    }
}

impl Module for AuxiliaryHead {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let (window, stride) = self.pool;
        let pooled = x.relu().avg_pool2d(window, stride, 0);
        self.classifier.forward(&self.features.forward(&pooled).global_avg_pool())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Model, Task};
    use crate::{Params, Rng, Tape, Tensor};

    fn build(arch: &str, method: &str) -> (Params, Model, Tensor) {
        let task = Task { input: [1, 16, 16], classes: 5 };
        let (mut params, rng) = (Params::new(), &mut Rng::seed(1));
        let (arch, method) = (arch.parse().unwrap(), method.parse().unwrap());
        let model = Model::new(&mut params, &arch, &method, &task, rng).unwrap();
        (params, model, Tensor::randn([8, 1, 16, 16], 1.0, rng))
    }

    #[test]
    fn what_comes_out_of_a_halving_cell_has_both_signs() {
        let (params, model, x) = build("darts(width=0.1,layers=3)", "dir-net");
        let tape = Tape::train(&params).keeping_representations();
        model.forward(&tape.constant(&x));
        for cell in tape.representations() {
            let above = cell.value().iter().filter(|&&x| x > 0.0).count();
            let share = above as f32 / cell.value().len() as f32;
            assert!((0.25..0.75).contains(&share), "{share}");
        }
    }

    #[test]
    fn edges_are_left_out_the_more_the_later_and_in_training_only() {
        let (params, model, x) = build("darts(width=0.1,layers=2,drop_path=0.5)", "fp32");
        let run = |tape: Tape<'_>| model.forward(&tape.constant(&x)).value().clone();
        let train = |progress, step| run(Tape::train(&params).at(progress).drawing(3, [0, step]));
        assert_eq!(train(0.0, 1), train(0.0, 2));
        assert_eq!(train(0.9, 1), train(0.9, 1));
        assert_ne!(train(0.9, 1), train(0.9, 2));
        assert_ne!(train(0.9, 1), train(0.0, 1));
        assert_eq!(run(Tape::eval(&params).at(0.9)), run(Tape::eval(&params)));
    }

    #[test]
    fn the_head_counts_four_tenths_and_only_in_training() {
        let labels = [0, 1, 2, 3, 4, 0, 1, 2];
        let loss = |arch: &str, train: bool| {
            let (params, model, x) = build(arch, "fp32");
            let tape = if train { Tape::train(&params) } else { Tape::eval(&params) };
            let logits = model.forward(&tape.constant(&x));
            let alone = logits.cross_entropy(&labels).value().item();
            [alone, logits.loss_with_heads(|x| x.cross_entropy(&labels)).value().item()]
        };
        let [alone, both] = loss("darts(width=0.1,layers=2)", true);
        // The head itself is about as good as a guess, ln 5 = 1.6.
        assert!((0.4..1.6).contains(&(both - alone)), "{alone}, {both}");
        for (arch, train) in [
            ("darts(width=0.1,layers=2)", false),
            ("darts(width=0.1,layers=2,auxiliary=off)", true),
        ] {
            let [alone, both] = loss(arch, train);
            assert_eq!(alone, both, "{arch}");
        }
    }

    #[test]
    fn a_genotype_decides_what_the_cells_are_made_of() {
        let one = "one/dil_conv_5x5:1 avg_pool_3x3:0/skip_connect:0 sep_conv_5x5:1";
        let (params, model, x) =
            build(&format!("darts(width=0.1,layers=3,genotype={one})"), "fp32");
        for (name, shape) in [
            ("cells.0._ops.0.op.1.weight", [8, 1, 5, 5]),
            ("cells.1._ops.0.conv_2.weight", [8, 16, 1, 1]),
            ("cells.1._ops.1.op.5.weight", [16, 1, 5, 5]),
            ("cells.2.preprocess1.op.1.weight", [32, 16, 1, 1]),
        ] {
            let id = params.id(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(params[id].value.shape(), shape, "{name}");
        }
        let tape = Tape::eval(&params);
        assert_eq!(model.forward(&tape.constant(&x)).shape(), [8, 5]);
    }
}
