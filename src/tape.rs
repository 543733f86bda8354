//! The tape: what happened in one step, so that it can be walked back.
//!
//! Operations push nodes in the order in which they are computed, and that order is already
//! topological; the way back is one loop from the last node to the first. A node owns a closure
//! that holds what the operation saved, and running the closure frees it.

use crate::watch::{Cost, LayerNote, NotFinite, Operand, Operation, SignNote, Watch};
use crate::{ParamId, Params, Rng, Tensor};
use dirnet_engine::Op;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Given the gradient of a node, what others have sent to its first parent so far, and which parents want
/// one, the gradients of the parents. Who takes what others have sent must send it along.
type Backward = Box<dyn FnOnce(Tensor, &mut Option<Tensor>, &[bool]) -> Vec<Option<Tensor>>>;

/// An output that was marked: its place on the tape and its numbers.
type Kept = (Option<usize>, Tensor);

/// One recorded operation, or a leaf.
struct Node {
    name: &'static str,
    layer: Rc<str>,
    shape: Vec<usize>,
    /// Indices of the parents; `None` for one that is a constant.
    parents: Vec<Option<usize>>,
    backward: Option<Backward>,
    keep: bool,
    /// Where its time is noted, if it is.
    cost: Option<usize>,
}

/// Records one step, forward, and is walked once, back.
///
/// ```
/// use dirnet::{Params, Tape};
/// let params = Params::new();
/// let tape = Tape::train(&params);
/// let x = tape.variable([3.0]);
/// let y = &x * &x + &x;             // y = x² + x
/// let grads = y.backward();
/// assert_eq!(y.value()[0], 12.0);
/// assert_eq!(grads.wrt(&x).unwrap()[0], 7.0);   // 2x + 1
/// ```
pub struct Tape<'p> {
    params: &'p Params,
    training: bool,
    progress: f32,
    /// Seed, epoch and step.
    key: (u64, [u64; 2]),
    watch: Watch,
    nodes: RefCell<Vec<Node>>,
    leaves: RefCell<HashMap<ParamId, usize>>,
    updates: RefCell<Vec<(ParamId, Tensor)>>,
    layer: RefCell<Rc<str>>,
    walked: Cell<bool>,
    /// Whether convolutions may round otherwise if that is quicker.
    quick: bool,
    /// Where blocks' outputs are kept, if they are.
    representations: Option<RefCell<Vec<Kept>>>,
    /// What heads beside the network say, and how much their loss counts.
    heads: RefCell<Vec<(f32, Kept)>>,
    /// What the next operation is to the packed net, where that is written down.
    next: Cell<Option<Op>>,
}

impl<'p> Tape<'p> {
    fn new(params: &'p Params, training: bool) -> Self {
        Tape {
            params,
            training,
            progress: 0.0,
            key: (0, [0, 0]),
            watch: Watch::Nothing,
            nodes: RefCell::default(),
            leaves: RefCell::default(),
            updates: RefCell::default(),
            layer: RefCell::new("".into()),
            walked: Cell::new(false),
            quick: false,
            representations: None,
            heads: RefCell::default(),
            next: Cell::new(None),
        }
    }

    /// A tape that records, so that the step can be walked back.
    pub fn train(params: &'p Params) -> Self {
        Tape::new(params, true)
    }
    /// A tape that keeps nothing; batch norm uses its running statistics.
    pub fn eval(params: &'p Params) -> Self {
        Tape::new(params, false)
    }
    /// The same at a moment of training, from 0 at its start to 1 at its end: what schedules of
    /// estimators and of the learning rate go by.
    pub fn at(self, progress: f32) -> Self {
        Tape { progress, ..self }
    }
    /// The same with random numbers of its own: those of a seed, an epoch and a step, where an operation
    /// draws some. A loop that does not say this draws the same ones in each step.
    pub fn drawing(self, seed: u64, [epoch, step]: [u64; 2]) -> Self {
        Tape { key: (seed, [epoch, step]), ..self }
    }
    /// Streams of random numbers, told apart by a number, for a purpose in the present layer.
    pub fn draws(&self, purpose: &str) -> impl Fn(u64) -> Rng + Sync + use<> {
        let purpose = format!("{purpose} of {}", self.layer.borrow());
        let (seed, [epoch, step]) = self.key;
        move |stream| Rng::keyed(seed, &purpose, &[epoch, step, stream])
    }
    /// The same with an eye on something.
    pub fn watching(self, watch: Watch) -> Self {
        Tape { watch, ..self }
    }
    /// The same, with convolutions of floats by fewer products where there is such a way, as
    /// [`winograd`](dirnet_kernels::conv::winograd) has it, there and for the images on the way back:
    /// values are those of another tape but for rounding, some 5e-6 of the largest. What trains and
    /// what teaches takes it; what is judged or deployed does not.
    pub fn quick(self) -> Self {
        Tape { quick: true, ..self }
    }
    /// The same, keeping what models mark as [`Var::representation`].
    pub fn keeping_representations(self) -> Self {
        Tape { representations: Some(RefCell::default()), ..self }
    }
    /// The outputs of blocks that were marked, in order; none unless they were asked for.
    pub fn representations<'t>(&'t self) -> Vec<Var<'t>> {
        let kept = self.representations.as_ref().map(RefCell::borrow);
        let var = |(node, value): &Kept| Var { tape: self, node: *node, value: value.clone() };
        kept.map_or(Vec::new(), |kept| kept.iter().map(var).collect())
    }

    /// Whether it records.
    pub fn is_training(&self) -> bool {
        self.training
    }
    /// Whether convolutions may round otherwise if that is quicker.
    pub fn is_quick(&self) -> bool {
        self.quick
    }
    /// The moment of training, from 0 to 1.
    pub fn progress(&self) -> f32 {
        self.progress
    }
    /// The table that its parameters come from.
    pub fn params(&self) -> &'p Params {
        self.params
    }
    /// What it noted.
    pub fn watched(&self) -> &Watch {
        &self.watch
    }
    /// The same, when its work is done.
    pub fn into_watched(self) -> Watch {
        self.watch
    }

    /// A value that wants no gradient: an image, a label.
    pub fn constant<'t>(&'t self, value: impl Into<Tensor>) -> Var<'t> {
        Var { tape: self, node: None, value: value.into() }
    }

    /// A value whose gradient [`Grads::wrt`] will have.
    pub fn variable<'t>(&'t self, value: impl Into<Tensor>) -> Var<'t> {
        let value = value.into();
        let node = match &self.watch {
            Watch::Operations(_) => self.write_down("variable", Some(Op::Input), &[], &value),
            _ => self.training.then(|| self.push("variable", &value, Vec::new(), None)),
        };
        let x = Var { tape: self, node, value };
        self.keep(&x);
        x
    }

    /// A parameter. Buffers, frozen entries, and all of them on an evaluating tape, are constants.
    pub fn param<'t>(&'t self, id: ParamId) -> Var<'t> {
        let entry = &self.params[id];
        let learns = self.training && !entry.frozen && entry.role != crate::Role::Buffer;
        let node = learns.then(|| {
            *self
                .leaves
                .borrow_mut()
                .entry(id)
                .or_insert_with(|| self.push("parameter", &entry.value, Vec::new(), None))
        });
        if let Watch::Finite(first) = &self.watch {
            self.check(first, &entry.name, &entry.value, false);
        }
        Var { tape: self, node, value: entry.value.clone() }
    }

    /// Asks for the gradient of an inner value: [`Grads::wrt`] will have it.
    pub fn keep(&self, x: &Var<'_>) {
        if let (Some(node), true) = (x.node, self.training) {
            self.nodes.borrow_mut()[node].keep = true;
        }
    }

    /// Leaves a new value for a buffer, such as a running mean. The optimiser's step writes it, so
    /// that a forward pass changes nothing.
    pub fn update(&self, id: ParamId, value: Tensor) {
        if self.training {
            self.updates.borrow_mut().push((id, value));
        }
    }

    /// Names the layer that the following operations belong to, until the guard is dropped.
    /// `note` describes it for a summary; it runs only where one is made.
    pub fn layer<'t>(&'t self, name: &str, note: impl FnOnce() -> LayerNote) -> LayerGuard<'t> {
        if let Watch::Layers(notes) = &self.watch {
            notes.borrow_mut().push(LayerNote { name: name.into(), ..note() });
        }
        LayerGuard { tape: self, outer: self.layer.replace(name.into()) }
    }

    /// Records an operation: its name, its value, its parents, and the way back.
    ///
    /// `backward` is given the gradient of the value, and which parents want one; it returns one
    /// gradient a parent, where wanted. What it captures is what the operation saves. Adding up the
    /// gradients of a value that is used twice is the tape's work, never the operation's.
    ///
    /// An operation from outside the crate looks like those inside:
    ///
    /// ```
    /// use dirnet::{Params, Tape, Tensor, Var, gradcheck};
    ///
    /// /// `x³`
    /// fn cube<'t>(x: &Var<'t>) -> Var<'t> {
    ///     let saved = x.value().clone();
    ///     let y = saved.clone().map(|x| x * x * x);
    ///     x.tape().record("cube", y, [x], move |dy, _| {
    ///         let slope = saved.map(|x| 3.0 * x * x);
    ///         [Some(Tensor::build(dy.shape(), |dx| {
    ///             dx.iter_mut().zip(dy.iter().zip(&*slope)).for_each(|(dx, (dy, s))| *dx = dy * s)
    ///         }))]
    ///     })
    /// }
    ///
    /// gradcheck([&[2, 3]], |[x]| cube(&x));
    /// ```
    ///
    /// # Panics
    /// If a parent belongs to another tape, or this one was walked already.
    #[track_caller]
    pub fn record<'t, const N: usize>(
        &'t self,
        name: &'static str,
        value: Tensor,
        parents: [&Var<'t>; N],
        backward: impl FnOnce(Tensor, [bool; N]) -> [Option<Tensor>; N] + 'static,
    ) -> Var<'t> {
        self.record_many(name, value, &parents, move |dy, wanted| {
            backward(dy, wanted.try_into().expect("as many flags as parents")).into()
        })
    }

    /// The same for a number of parents known at run time only, as in a concatenation.
    ///
    /// # Panics
    /// If a parent belongs to another tape, or this one was walked already.
    #[track_caller]
    pub fn record_many<'t>(
        &'t self,
        name: &'static str,
        value: Tensor,
        parents: &[&Var<'t>],
        backward: impl FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + 'static,
    ) -> Var<'t> {
        let backward: Backward = Box::new(|dy, _, wanted| backward(dy, wanted));
        self.record_boxed(name, value, parents, backward)
    }

    /// [`record`](Self::record) for an operation that spares the tape a pass over memory: `backward` is also
    /// given what others have sent to the first parent so far, and returns that gradient with its own added.
    #[track_caller]
    pub(crate) fn record_adding<'t, const N: usize>(
        &'t self,
        name: &'static str,
        value: Tensor,
        parents: [&Var<'t>; N],
        backward: impl FnOnce(Tensor, Option<Tensor>, [bool; N]) -> [Option<Tensor>; N] + 'static,
    ) -> Var<'t> {
        let backward: Backward = Box::new(|dy, others, wanted| {
            backward(dy, others.take(), wanted.try_into().expect("as many flags as parents")).into()
        });
        self.record_boxed(name, value, &parents, backward)
    }

    #[track_caller]
    fn record_boxed<'t>(
        &'t self,
        name: &'static str,
        value: Tensor,
        parents: &[&Var<'t>],
        backward: Backward,
    ) -> Var<'t> {
        for parent in parents {
            assert!(std::ptr::addr_eq(parent.tape, self), "{name}: a value of another tape");
        }
        if let Watch::Finite(first) = &self.watch {
            self.check(first, name, &value, false);
        }
        if let Watch::Operations(_) = &self.watch {
            let op = self.next.take().or_else(|| Op::named(name));
            let node = self.write_down(name, op, parents, &value);
            return Var { tape: self, node, value };
        }
        let cost = self.note_forward(name);
        let wanted = self.training && parents.iter().any(|p| p.node.is_some());
        let node = wanted.then(|| {
            let parents = parents.iter().map(|p| p.node).collect();
            let node = self.push(name, &value, parents, Some(backward));
            self.nodes.borrow_mut()[node].cost = cost;
            node
        });
        Var { tape: self, node, value }
    }

    /// Adds to what is noted of the signs of the present layer; `add` runs only where they are watched.
    pub(crate) fn note_signs(&self, add: impl FnOnce(&mut SignNote)) {
        let Watch::Signs(notes) = &self.watch else { return };
        let (layer, mut notes) = (self.layer.borrow().to_string(), notes.borrow_mut());
        if notes.last().is_none_or(|note| note.layer != layer) {
            notes.push(SignNote { layer, signs: None, weights: None, activations: None });
        }
        if let Some(note) = notes.last_mut() {
            add(note);
        }
    }

    /// Says what the operation that is recorded next is to the packed net, where its name does not tell:
    /// what is fixed about it besides.
    pub(crate) fn describe(&self, op: impl FnOnce() -> Op) {
        if let Watch::Operations(_) = &self.watch {
            self.next.set(Some(op()));
        }
    }

    /// The place of an operation among those written down, which it is if it depends on one of them.
    fn write_down(
        &self,
        name: &'static str,
        op: Option<Op>,
        parents: &[&Var<'_>],
        value: &Tensor,
    ) -> Option<usize> {
        let Watch::Operations(notes) = &self.watch else { return None };
        assert!(!self.training, "operations are written down on a tape that evaluates");
        let fixed = op != Some(Op::Input) && parents.iter().all(|parent| parent.node.is_none());
        if fixed {
            return None;
        }
        let operand = |parent: &&Var<'_>| match parent.node {
            Some(node) => Operand::Operation(node),
            None => Operand::Fixed(parent.value.clone()),
        };
        let (inputs, layer) = (parents.iter().map(operand).collect(), self.layer.borrow());
        let mut notes = notes.borrow_mut();
        notes.push(Operation { name, op, inputs, layer: layer.to_string(), value: value.clone() });
        Some(notes.len() - 1)
    }

    fn note_forward(&self, operation: &'static str) -> Option<usize> {
        let Watch::Costs(costs) = &self.watch else { return None };
        let mut costs = costs.borrow_mut();
        let (forward, layer) = (costs.lap(), self.layer.borrow().to_string());
        costs.operations.push(Cost { operation, layer, forward, backward: Default::default() });
        Some(costs.operations.len() - 1)
    }

    fn note_backward(&self, cost: Option<usize>) {
        if let (Watch::Costs(costs), Some(cost)) = (&self.watch, cost) {
            let mut costs = costs.borrow_mut();
            let lap = costs.lap();
            costs.operations[cost].backward += lap;
        }
    }

    #[track_caller]
    fn push(
        &self,
        name: &'static str,
        value: &Tensor,
        parents: Vec<Option<usize>>,
        backward: Option<Backward>,
    ) -> usize {
        assert!(!self.walked.get(), "{name}: this tape was walked back already; record a new one");
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node {
            name,
            layer: self.layer.borrow().clone(),
            shape: value.shape().to_vec(),
            parents,
            backward,
            keep: false,
            cost: None,
        });
        nodes.len() - 1
    }

    fn check(&self, first: &RefCell<Option<NotFinite>>, name: &str, x: &Tensor, backward: bool) {
        let mut first = first.borrow_mut();
        if first.is_none() && dirnet_kernels::reduce::first_non_finite(x).is_some() {
            let layer = self.layer.borrow().to_string();
            *first = Some(NotFinite { operation: name.into(), layer, backward });
        }
    }

    /// The one reverse loop.
    #[track_caller]
    fn walk(&self, loss: usize) -> Grads {
        assert!(
            !self.walked.replace(true),
            "backward: this tape was walked back already; add two losses before walking"
        );
        let mut nodes = self.nodes.take();
        nodes.truncate(loss + 1);
        let mut flowing: Vec<Option<Tensor>> = Vec::new();
        flowing.resize_with(nodes.len(), || None);
        flowing[loss] = Some(Tensor::full(&nodes[loss].shape, 1.0));
        let leaves: HashMap<usize, ParamId> =
            self.leaves.borrow().iter().map(|(&id, &node)| (node, id)).collect();
        let mut grads = Grads {
            params: vec![None; self.params.len()],
            kept: HashMap::new(),
            updates: self.updates.take(),
            progress: self.progress,
        };
        while let Some(node) = nodes.pop() {
            let at = nodes.len();
            if let Some(dy) = flowing[at].take() {
                if let Watch::Finite(first) = &self.watch {
                    *self.layer.borrow_mut() = node.layer.clone();
                    self.check(first, node.name, &dy, true);
                }
                if node.keep {
                    grads.kept.insert(at, dy.clone());
                }
                if let Some(&id) = leaves.get(&at) {
                    grads.params[id.0] = Some(dy);
                } else if let Some(backward) = node.backward {
                    let wanted: Vec<bool> = node.parents.iter().map(Option::is_some).collect();
                    let first = node.parents.first().copied().flatten();
                    let mut others = first.and_then(|parent| flowing[parent].take());
                    let found = backward(dy, &mut others, &wanted);
                    assert_eq!(found.len(), wanted.len(), "{}: gradients a parent", node.name);
                    if let (Some(parent), Some(others)) = (first, others) {
                        flowing[parent] = Some(others);
                    }
                    for (parent, gradient) in node.parents.iter().zip(found) {
                        let (Some(parent), Some(gradient)) = (*parent, gradient) else { continue };
                        let shape = &nodes[parent].shape;
                        assert_eq!(gradient.shape(), shape, "{}: shape of a gradient", node.name);
                        match &mut flowing[parent] {
                            slot @ None => *slot = Some(gradient),
                            Some(sum) => sum.add_assign(&gradient),
                        }
                    }
                }
            }
            self.note_backward(node.cost);
        }
        grads
    }

    /// Takes the tape apart from its end and says what each operation held for its way back, in
    /// bytes. What several hold is counted at the first of them.
    ///
    /// Only this thread's tensors are counted, and only if nothing else holds them: drop all
    /// variables first, as the borrow of the tape demands anyway.
    pub fn into_saved(self) -> Vec<Saved> {
        let mut nodes = self.nodes.into_inner();
        let mut saved = Vec::with_capacity(nodes.len());
        while let Some(Node { name, layer, backward, .. }) = nodes.pop() {
            let before = crate::tensor::live_bytes();
            drop(backward);
            let bytes = before - crate::tensor::live_bytes();
            saved.push(Saved { operation: name, layer: layer.to_string(), bytes });
        }
        saved.reverse();
        saved
    }
}

impl fmt::Debug for Tape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.nodes.borrow().iter().map(|n| n.name).collect();
        f.debug_struct("Tape").field("training", &self.training).field("nodes", &names).finish()
    }
}

/// What an operation held for its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The name it was recorded under.
    pub operation: &'static str,
    /// The layer it belongs to; empty outside of layers.
    pub layer: String,
    /// In bytes.
    pub bytes: usize,
}

/// Keeps a layer's name on the tape while it lives.
#[derive(Debug)]
pub struct LayerGuard<'t> {
    tape: &'t Tape<'t>,
    outer: Rc<str>,
}

impl Drop for LayerGuard<'_> {
    fn drop(&mut self) {
        self.tape.layer.replace(self.outer.clone());
    }
}

/// A value on a tape: the numbers, and where they stand in the order of the step.
#[derive(Clone)]
pub struct Var<'t> {
    tape: &'t Tape<'t>,
    node: Option<usize>,
    value: Tensor,
}

impl<'t> Var<'t> {
    /// The tape it is on.
    pub fn tape(&self) -> &'t Tape<'t> {
        self.tape
    }
    /// Its numbers.
    pub fn value(&self) -> &Tensor {
        &self.value
    }
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }
    /// Whether a gradient flows back through it.
    pub fn wants_grad(&self) -> bool {
        self.node.is_some()
    }
    /// Marks it as what a head beside the network says, which learns along with it and is of no use
    /// afterwards: its loss counts `weight` times in [`Var::loss_with_heads`].
    pub fn head(&self, weight: f32) {
        self.tape.heads.borrow_mut().push((weight, (self.node, self.value.clone())));
    }
    /// The loss of a network's output, and that of each head that it marked on this tape by
    /// [`Var::head`], times its weight.
    ///
    /// ```
    /// # use dirnet::{Params, Tape};
    /// # let params = Params::new();
    /// let tape = Tape::train(&params);
    /// let (y, aside) = (tape.variable([3.0]), tape.variable([5.0]));
    /// aside.head(0.5);
    /// let loss = y.loss_with_heads(|y| y.square().sum());
    /// assert_eq!(loss.value().item(), 9.0 + 0.5 * 25.0);
    /// ```
    pub fn loss_with_heads(&self, loss: impl Fn(&Var<'t>) -> Var<'t>) -> Var<'t> {
        let heads = self.tape.heads.borrow().clone();
        heads.into_iter().fold(loss(self), |sum, (weight, (node, value))| {
            sum + loss(&Var { tape: self.tape, node, value }) * weight
        })
    }
    /// Marks it as the output of a block, for [`Tape::representations`]; costs nothing on a tape
    /// that was not asked to keep them.
    pub fn representation(&self) {
        if let Some(kept) = &self.tape.representations {
            kept.borrow_mut().push((self.node, self.value.clone()));
        }
    }
    /// The same numbers, as a constant: no gradient flows back from here.
    pub fn detach(&self) -> Var<'t> {
        // Where operations are written down it is the value that counts, however it is reached.
        let kept = matches!(self.tape.watch, Watch::Operations(_));
        Var { tape: self.tape, node: self.node.filter(|_| kept), value: self.value.clone() }
    }

    /// The gradients of this one number with respect to everything that it depends on. Frees what
    /// was saved on the way.
    ///
    /// # Panics
    /// If it is not one number, depends on nothing that learns, or the tape was walked already.
    #[track_caller]
    pub fn backward(&self) -> Grads {
        assert_eq!(
            self.value.len(),
            1,
            "backward: starts from one number, not from shape {:?}",
            self.shape()
        );
        let Some(node) = self.node else {
            panic!(
                "backward: depends on no parameter or variable that learns, or on a tape that does not record"
            )
        };
        self.tape.walk(node)
    }
}

impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Var({:?})", self.value)
    }
}

/// The gradients of one step. A value of its own: there is nothing to reset.
#[derive(Clone, Debug)]
pub struct Grads {
    params: Vec<Option<Tensor>>,
    kept: HashMap<usize, Tensor>,
    updates: Vec<(ParamId, Tensor)>,
    progress: f32,
}

impl Grads {
    /// The gradient of a parameter; `None` if the loss does not depend on it, or it is frozen.
    pub fn get(&self, id: ParamId) -> Option<&Tensor> {
        self.params.get(id.0)?.as_ref()
    }
    /// The same, to be changed: clipped, scaled, replaced.
    pub fn get_mut(&mut self, id: ParamId) -> Option<&mut Tensor> {
        self.params.get_mut(id.0)?.as_mut()
    }
    /// The gradient of a [`Tape::variable`], or of an inner value marked by [`Tape::keep`].
    pub fn wrt(&self, x: &Var<'_>) -> Option<&Tensor> {
        self.kept.get(&x.node?)
    }
    /// All parameters that have a gradient.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.params.iter().enumerate().filter_map(|(i, g)| Some((ParamId(i), g.as_ref()?)))
    }
    /// Buffers' new values that the forward pass left, such as running means.
    pub fn updates(&self) -> &[(ParamId, Tensor)] {
        &self.updates
    }
    /// The moment of training at which the step was recorded.
    pub fn progress(&self) -> f32 {
        self.progress
    }
    /// The length of all gradients taken as one vector.
    pub fn norm(&self) -> f64 {
        self.iter().map(|(_, g)| dirnet_kernels::reduce::dot(g, g)).sum::<f64>().sqrt()
    }
    /// Scales all gradients down so that their common length is at most `limit`.
    pub fn clip_norm(&mut self, limit: f64) {
        let norm = self.norm();
        if norm > limit {
            let scale = (limit / norm) as f32;
            for gradient in self.params.iter_mut().flatten() {
                dirnet_kernels::elementwise::map_in_place(gradient.data_mut(), |g| g * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn a_value_used_twice_gets_the_sum() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let x = tape.variable([2.0]);
        let y = &x * &x;
        let grads = (y + &x).backward();
        assert_eq!(grads.wrt(&x).unwrap()[0], 5.0);
    }

    #[test]
    fn inner_gradients_are_kept_on_request() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let x = tape.variable([2.0]);
        let h = &x * 3.0;
        tape.keep(&h);
        let grads = (&h * &h).backward();
        assert_eq!(grads.wrt(&h).unwrap()[0], 12.0);
        assert_eq!(grads.wrt(&x).unwrap()[0], 36.0);
    }

    #[test]
    fn detach_cuts() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let x = tape.variable([2.0]);
        let grads = (&x * x.detach()).backward();
        assert_eq!(grads.wrt(&x).unwrap()[0], 2.0);
    }

    #[test]
    fn frozen_parameters_and_buffers_are_constants() {
        let mut params = Params::new();
        let a = params.add("a", Role::Weight, Tensor::from([2.0]));
        let b = params.add("b", Role::Weight, Tensor::from([3.0]));
        let c = params.add("c", Role::Buffer, Tensor::from([5.0]));
        params.freeze("b");
        let tape = Tape::train(&params);
        let y = tape.param(a) * tape.param(b) * tape.param(c);
        let grads = y.backward();
        assert_eq!(grads.get(a).unwrap()[0], 15.0);
        assert!(grads.get(b).is_none() && grads.get(c).is_none());
    }

    #[test]
    fn the_model_can_change_while_variables_are_in_scope() {
        let mut params = Params::new();
        let a = params.add("a", Role::Weight, Tensor::from([2.0]));
        let tape = Tape::train(&params);
        let y = tape.param(a).square();
        let grads = y.backward();
        params.value_mut(a).data_mut()[0] -= grads.get(a).unwrap()[0];
        assert_eq!(params[a].value[0], -2.0);
    }

    #[test]
    fn an_evaluating_tape_keeps_nothing() {
        let mut params = Params::new();
        let a = params.add("a", Role::Weight, Tensor::from([2.0]));
        let tape = Tape::eval(&params);
        let y = tape.param(a).square();
        assert!(!y.wants_grad());
        assert_eq!(format!("{tape:?}"), "Tape { training: false, nodes: [] }");
    }

    #[test]
    #[should_panic(expected = "walked back already")]
    fn a_tape_is_walked_once() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let y = tape.variable([2.0]).square();
        y.backward();
        y.backward();
    }

    #[test]
    #[should_panic(expected = "add: a value of another tape")]
    fn two_tapes_do_not_mix() {
        let params = Params::new();
        let (one, two) = (Tape::train(&params), Tape::train(&params));
        let _ = &one.variable([1.0]) + &two.variable([1.0]);
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let params = Params::new();
        let tape = Tape::train(&params).watching(Watch::finite());
        let x = tape.variable([-1.0]);
        let _layer = tape.layer("head", LayerNote::default);
        let _ = x.ln() * 2.0;
        let Watch::Finite(first) = tape.watched() else { unreachable!() };
        let first = first.borrow().clone().unwrap();
        assert_eq!(first.to_string(), "the output of ln in head is not finite");
    }

    #[test]
    fn what_each_operation_saved_is_measured() {
        let params = Params::new();
        let tape = Tape::train(&params);
        let y = {
            let x = tape.variable(Tensor::zeros([1000]));
            x.square().sum()
        };
        drop(y);
        let saved: Vec<_> = tape.into_saved().iter().map(|s| (s.operation, s.bytes)).collect();
        assert_eq!(saved, [("variable", 0), ("square", 4000), ("sum", 0)]);
    }
}
