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
/// Bytes in float are those of all parameters and running statistics in 32 bits; packed ones are those of
/// the file that `dirnet pack` writes, whose header is in the total alone. A scale, a batch norm and a sign
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
            params: params.count(),
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
        out.object(&total);
        Ok(())
    }
}

/// Bytes of a network, as a trained model's arrays of floats and as a packed file.
pub(super) struct Sizes {
    /// All parameters and running statistics, in 32 bits each.
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
        let mut names: Vec<_> = self::layers(params, model).into_iter().map(|l| l.name).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let owner = |array: &str| {
            let inside = |layer: &&String| {
                array.strip_prefix(layer.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            names.iter().find(inside)
        };
        for (which, (name, bytes)) in floats.map(|f| (0, f)).chain(arrays.map(|a| (1, a))) {
            if let Some(layer) = owner(name) {
                layers.entry(layer.clone()).or_default()[which] += bytes;
            }
        }
        Ok(Sizes { float: params.bytes(), packed: packed.to_bytes().len(), layers })
    }

    /// Of a layer, both.
    pub fn layer(&self, name: &str) -> [usize; 2] {
        self.layers.get(name).copied().unwrap_or_default()
    }
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
