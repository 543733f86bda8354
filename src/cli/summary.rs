//! `dirnet summary`

use super::output::{Output, bytes, table, thousands};
use super::{model_file, parse};
use crate::deploy::{self, Floats};
use crate::models::{Card, Model, Task};
use crate::nn::Module;
use crate::watch::{LayerNote, Watch};
use crate::{Error, Params, Rng, Tape, Tensor};
use clap::Args;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// A table of a network's layers: parameters, multiply-adds, bytes.
///
/// It is about what an image passes in evaluation; what a head beside the network has, as that of darts, is told
/// apart. Bytes in float are those of parameters and running statistics in 32 bits; packed ones are those
/// of the file that `dirnet pack` writes, whose header is in the total alone. A scale, a batch norm and a sign
/// behind a binary layer may be a few thresholds of the batch norm, and nothing of the layer.
#[derive(Args, Debug)]
pub(super) struct Summary {
    /// Folder of a run, or its model as .npz or .safetensors
    #[arg(required_unless_present = "arch", conflicts_with_all = ["arch", "method", "input", "classes"])]
    model: Option<PathBuf>,
    /// Architecture instead of a trained model
    #[arg(long, value_parser = parse::arch)]
    arch: Option<String>,
    /// How it is binarized
    #[arg(long, default_value = "dir-net", value_parser = parse::method)]
    method: String,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "3x32x32", value_parser = parse::input)]
    input: [usize; 3],
    /// Classes to tell apart
    #[arg(long, value_name = "N", default_value_t = 10)]
    classes: usize,
}

#[derive(Serialize)]
struct Layer<'a> {
    event: &'static str,
    name: &'a str,
    kind: &'static str,
    output: &'a [usize],
    params_1bit: usize,
    params_32bit: usize,
    macs_1bit: usize,
    macs_32bit: usize,
    bytes_float: usize,
    bytes_packed: usize,
}

#[derive(Serialize)]
struct Total {
    event: &'static str,
    params: usize,
    params_1bit: usize,
    params_32bit: usize,
    macs_1bit: usize,
    macs_32bit: usize,
    bytes_float: usize,
    bytes_packed: usize,
    saving: f64,
}

impl Summary {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        let (params, model, card) = match (&self.model, &self.arch) {
            (Some(path), _) => Card::load(&model_file(path)?)?,
            (None, arch) => {
                let task = Task { input: self.input, classes: self.classes };
                let card =
                    Card::untrained(arch.as_deref().unwrap_or_default(), &self.method, &task);
                let (params, model) = card.build(&mut Rng::seed(0))?;
                (params, model, card)
            }
        };
        let layers = layers(&params, &model);
        let sizes = Sizes::of(&params, &model, &card)?;
        let sum = |f: &dyn Fn(&LayerNote) -> usize| layers.iter().map(f).sum::<usize>();
        let (bytes_float, bytes_packed) = (sizes.float, sizes.packed);
        let total = Total {
            event: "total",
            params: sum(&|l| l.params_1bit + l.params_32bit),
            params_1bit: sum(&|l| l.params_1bit),
            params_32bit: sum(&|l| l.params_32bit),
            macs_1bit: sum(&|l| l.macs_1bit),
            macs_32bit: sum(&|l| l.macs_32bit),
            bytes_float,
            bytes_packed,
            saving: bytes_float as f64 / bytes_packed as f64,
        };
        for l in &layers {
            out.object(&Layer {
                event: "layer",
                name: &l.name,
                kind: l.kind,
                output: &l.output,
                params_1bit: l.params_1bit,
                params_32bit: l.params_32bit,
                macs_1bit: l.macs_1bit,
                macs_32bit: l.macs_32bit,
                bytes_float: sizes.layer(&l.name)[0],
                bytes_packed: sizes.layer(&l.name)[1],
            });
        }
        let count = |n: usize| if n == 0 { String::new() } else { thousands(n) };
        let mut rows: Vec<Vec<String>> = layers
            .iter()
            .map(|l| {
                let output: Vec<_> = l.output.iter().map(usize::to_string).collect();
                vec![
                    l.name.clone(),
                    l.kind.to_string(),
                    output.join("x"),
                    count(l.params_1bit),
                    count(l.params_32bit),
                    count(l.macs_1bit),
                    count(l.macs_32bit),
                    bytes(sizes.layer(&l.name)[0]),
                    bytes(sizes.layer(&l.name)[1]),
                ]
            })
            .collect();
        rows.push(vec![
            "total".into(),
            String::new(),
            String::new(),
            count(total.params_1bit),
            count(total.params_32bit),
            count(total.macs_1bit),
            count(total.macs_32bit),
            bytes(bytes_float),
            bytes(bytes_packed),
        ]);
        let head = [
            "layer",
            "kind",
            "output",
            "1-bit params",
            "32-bit params",
            "1-bit MACs",
            "32-bit MACs",
            "float",
            "packed",
        ];
        out.line(&format!("{} {}, images {:?}", model.method, model.arch, model.task.input));
        out.line(&table(&head, 3, rows));
        out.line(&format!(
            "{} parameters; packed, it is {:.1} times smaller",
            thousands(total.params),
            total.saving
        ));
        let beside = params.count() - total.params;
        if beside > 0 {
            out.line(&format!("and {} parameters that only training uses", thousands(beside)));
        }
        out.object(&total);
        Ok(())
    }
}

/// Bytes of a network, as a trained model's arrays of floats and as a packed file.
pub(super) struct Sizes {
    /// What an image passes in evaluation, in 32 bits a number.
    pub float: usize,
    /// The packed file, its header included.
    pub packed: usize,
    /// The same of each layer, without headers.
    layers: HashMap<String, [usize; 2]>,
}

impl Sizes {
    pub fn of(params: &Params, model: &Model, card: &Card) -> Result<Self, Error> {
        let (packed, _) = deploy::laid_out(params, model, card, Floats::F32)?;
        let floats = params.iter().map(|(_, p)| (p.name.as_str(), 4 * p.value.len()));
        let arrays = packed.graph.numbers.iter().map(|n| (n.name.as_str(), n.bytes()));
        let mut layers: HashMap<String, [usize; 2]> = HashMap::new();
        let owners = Owners::of(params, model);
        for (which, (name, bytes)) in floats.map(|f| (0, f)).chain(arrays.map(|a| (1, a))) {
            if let Some(layer) = owners.owner(name) {
                layers.entry(layer.into()).or_default()[which] += bytes;
            }
        }
        let float = layers.values().map(|layer| layer[0]).sum();
        Ok(Sizes { float, packed: packed.to_bytes().len(), layers })
    }

    /// Of a layer, both.
    pub fn layer(&self, name: &str) -> [usize; 2] {
        self.layers.get(name).copied().unwrap_or_default()
    }
}

/// The layers that one image passes in evaluation, by name, and what belongs to them.
struct Owners(Vec<String>);

impl Owners {
    fn of(params: &Params, model: &Model) -> Self {
        let mut names: Vec<_> = layers(params, model).into_iter().map(|l| l.name).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Owners(names)
    }

    /// The innermost layer that an array of this name belongs to.
    fn owner(&self, array: &str) -> Option<&str> {
        let inside =
            |layer: &str| array.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().map(String::as_str).find(|layer| inside(layer))
    }
}

/// Bytes of what an image passes in evaluation, in 32 bits a number.
pub(super) fn float_bytes(params: &Params, model: &Model) -> usize {
    let owners = Owners::of(params, model);
    let used = params.iter().filter(|(_, p)| owners.owner(&p.name).is_some());
    used.map(|(_, p)| 4 * p.value.len()).sum()
}

/// The layers that one image passes, in order.
pub(super) fn layers(params: &Params, model: &Model) -> Vec<LayerNote> {
    let tape = Tape::eval(params).watching(Watch::layers());
    let [c, h, w] = model.task.input;
    model.forward(&tape.constant(Tensor::zeros([1, c, h, w])));
    match tape.watched() {
        Watch::Layers(notes) => notes.borrow().clone(),
        _ => Vec::new(),
    }
}
