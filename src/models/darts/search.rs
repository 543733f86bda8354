//! The network that a genotype is searched in.

use super::operation::{Operation, Operations, Stack};
use super::{Genotype, LEAST, Place, places, preprocess, stems, step};
use crate::binarize::Method;
use crate::models::Task;
use crate::models::maker::Maker;
use crate::nn::{Linear, Module};
use crate::ops::{concat, mix};
use crate::{Error, ParamId, Params, Rng, Role, Tensor, Var};

/// A network whose cells have all edges, and on each edge all operations, every one of them by its
/// weight (Liu et al., 2019, arXiv 1806.09055, section 2.2): for an edge from `i` to `j` of a cell
///
/// ```text
/// y = Σ_o softmax(alpha[i,j])[o] · o(x_i)
/// ```
///
/// over the seven of [`Operation::ALL`] and `none`, which adds nothing but has its share of the softmax.
/// All cells that keep the size of the images have the same `alphas.normal`, those that halve it
/// `alphas.reduce`: a row an edge, by node and by what it works on, a column an operation, `none` first.
/// They are parameters as all others are; which of them a step moves is the business of who trains.
///
/// As in the authors' code (`quark0/darts`), batch norms have neither factor nor bias, so that an
/// operation can't grow instead of its alpha, and one stands behind each pool.
pub struct Supernet {
    stems: [Stack; 2],
    cells: Vec<Cell>,
    classifier: Linear,
    alphas: [ParamId; 2],
}

const NODES: usize = 4;
/// Two edges for the first node, one more for each that follows.
const EDGES: usize = NODES * (NODES + 3) / 2;
const OPERATIONS: usize = 1 + Operation::ALL.len();
const KINDS: [&str; 2] = ["normal", "reduce"];

impl Supernet {
    /// `cells` of them, with so many `channels` at first. The alphas start normal, a thousandth wide.
    ///
    /// # Errors
    /// If the images are too small, or the channels odd.
    pub fn new(
        params: &mut Params,
        [channels, cells]: [usize; 2],
        method: &Method,
        task: &Task,
        rng: &mut Rng,
    ) -> Result<Self, Error> {
        let mut maker = Maker::new(params, method, task, rng);
        maker.at_least("darts", LEAST)?;
        if channels == 0 || channels % 2 != 0 {
            let message = format!("channels is {channels}, expected an even number above 0");
            return Err(Error::Setting(message));
        }
        let (stems, fed) = stems(&mut maker, channels);
        let places = places(cells, channels, fed, [NODES; 2]);
        let mut operations = Operations { maker: &mut maker, searches: true };
        let cells = places.iter().map(|place| Cell::new(&mut operations, place)).collect();
        let (last, _) = places.last().map_or(fed[1], Place::output);
        let classifier = maker.head("classifier", last);
        let alphas = KINDS.map(|kind| {
            let start = Tensor::randn([EDGES, OPERATIONS], 1e-3, rng);
            params.add(format!("alphas.{kind}"), Role::Weight, start)
        });
        Ok(Supernet { stems, cells, classifier, alphas })
    }

    /// The alphas of cells that keep the size, and of those that halve it.
    pub fn alphas<'p>(&self, params: &'p Params) -> [&'p Tensor; 2] {
        self.alphas.map(|id| &params[id].value)
    }

    /// What the alphas have come to, by the rule of section 2.4: of each edge the strongest operation
    /// other than `none`, and of each node the two edges whose strongest operation weighs most.
    pub fn genotype(&self, params: &Params, name: &str) -> Genotype {
        let [normal, reduce] = self.alphas(params).map(strongest);
        Genotype { name: name.into(), normal, reduce }
    }
}

/// By softmax, so that edges of a node are compared by the share that `none` leaves; of equal ones the
/// first counts.
fn strongest(alphas: &Tensor) -> Vec<(Operation, usize)> {
    let of_edge = |row: &[f32]| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &a| m.max(a));
        let all: f64 = row.iter().map(|&a| f64::from(a - largest).exp()).sum();
        let weights = row[1..].iter().map(|&a| f64::from(a - largest).exp() / all);
        let first =
            |best: (usize, f64), (i, w): (usize, f64)| if w > best.1 { (i, w) } else { best };
        let (best, weight) = weights.enumerate().fold((0, 0.0), first);
        (Operation::ALL[best], weight)
    };
    let mut rows = alphas.chunks(OPERATIONS);
    let mut genotype = Vec::new();
    for node in 0..NODES {
        let mut edges: Vec<_> = rows.by_ref().take(2 + node).map(of_edge).enumerate().collect();
        edges.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
        genotype.extend(edges[..2].iter().map(|&(from, (operation, _))| (operation, from)));
    }
    genotype
}

impl Module for Supernet {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let tape = x.tape();
        // A row an edge, and of that all columns but the first.
        let weights = self.alphas.map(|id| {
            let all = tape.param(id).softmax();
            let flat = all.reshape([1, EDGES * OPERATIONS]);
            let edge =
                |i| flat.narrow(i * OPERATIONS + 1, OPERATIONS - 1).reshape([OPERATIONS - 1]);
            (0..EDGES).map(edge).collect::<Vec<_>>()
        });
        let mut before = self.stems[0].forward(x);
        let mut x = self.stems[1].forward(&before);
        for cell in &self.cells {
            let y = cell.forward([&before, &x], &weights[usize::from(cell.reduces)]);
            (before, x) = (x, y);
        }
        self.classifier.forward(&x.global_avg_pool())
    }
}

/// Nodes with an edge from each state before them.
struct Cell {
    preprocess: [Box<dyn Module>; 2],
    /// The operations of each edge.
    edges: Vec<Vec<Box<dyn Module>>>,
    reduces: bool,
}

impl Cell {
    fn new(operations: &mut Operations<'_, '_>, place: &Place) -> Self {
        let preprocess = preprocess(operations, place);
        let from = (0..NODES).flat_map(|node| 0..2 + node);
        let edge = |(i, from): (usize, usize)| {
            let (stride, input) = step(place, from);
            let make = |(k, &operation): (usize, &Operation)| {
                let name = format!("{}._ops.{i}._ops.{k}", place.name);
                operations.make(operation, &name, (place.channels, stride), input)
            };
            Operation::ALL.iter().enumerate().map(make).collect()
        };
        let edges = from.enumerate().map(edge).collect();
        Cell { preprocess, edges, reduces: place.reduces }
    }

    fn forward<'t>(&self, fed: [&Var<'t>; 2], weights: &[Var<'t>]) -> Var<'t> {
        let mut states: Vec<Var<'t>> =
            self.preprocess.iter().zip(fed).map(|(part, x)| part.forward(x)).collect();
        let mut edges = self.edges.iter().zip(weights);
        for _ in 0..NODES {
            let mixed = states.iter().zip(edges.by_ref()).map(|(x, (operations, weights))| {
                let y: Vec<_> = operations.iter().map(|operation| operation.forward(x)).collect();
                mix(&y.iter().collect::<Vec<_>>(), weights)
            });
            let sum = mixed.reduce(|a, b| a + b).expect("two edges at least");
            states.push(sum);
        }
        concat(&states[2..].iter().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;

    #[test]
    fn the_strongest_operations_are_those_of_the_largest_alphas() {
        let mut params = Params::new();
        let task = Task { input: [1, 8, 8], classes: 3 };
        let method = "fp32".parse().unwrap();
        let net = Supernet::new(&mut params, [2, 1], &method, &task, &mut Rng::seed(1)).unwrap();
        let mut alphas = vec![0.0; EDGES * OPERATIONS];
        let mut set = |edge: usize, operation: usize, alpha: f32| {
            alphas[edge * OPERATIONS + operation] = alpha;
        };
        // Node 2 has the edges 0 and 1, node 3 those from 2 to 4, and so on.
        set(0, 4, 1.0); // sep_conv_3x3
        set(1, 0, 9.0); // none: by far the largest, but no operation
        set(1, 6, 1.0); // dil_conv_3x3
        set(2, 1, 0.5); // max_pool_3x3
        set(3, 5, 2.0); // sep_conv_5x5
        set(4, 3, 1.0); // skip_connect
        set(4, 0, 5.0); // leaves little of it
        params.set(net.alphas[0], Tensor::new([EDGES, OPERATIONS], alphas));
        let found = net.genotype(&params, "found");
        let first = [
            (Operation::SepConv3, 0),
            (Operation::DilConv3, 1),
            (Operation::SepConv5, 1),
            (Operation::MaxPool3, 0),
        ];
        assert_eq!(found.normal[..4], first);
        assert_eq!(found.to_string().parse::<Genotype>().unwrap(), found);
    }

    #[test]
    fn a_step_for_the_alphas_moves_nothing_else() {
        let mut params = Params::new();
        let task = Task { input: [1, 8, 8], classes: 3 };
        let method = "dir-net".parse().unwrap();
        let net = Supernet::new(&mut params, [4, 3], &method, &task, &mut Rng::seed(1)).unwrap();
        params.freeze("");
        params.unfreeze("alphas");
        let tape = Tape::train(&params);
        let x = tape.constant(Tensor::randn([4, 1, 8, 8], 1.0, &mut Rng::seed(2)));
        let grads = net.forward(&x).cross_entropy(&[0, 1, 2, 0]).backward();
        let names: Vec<_> = grads.iter().map(|(id, _)| params[id].name.as_str()).collect();
        assert_eq!(names, ["alphas.normal", "alphas.reduce"]);
        assert!(grads.iter().all(|(_, g)| g.iter().all(|&g| g != 0.0)));
    }
}
