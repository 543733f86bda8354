//! `dirnet summary`

use super::output::{Output, bytes, table, thousands};
use super::{model_file, parse};
use crate::models::{Card, Model, Task};
use crate::nn::Module;
use crate::watch::{LayerNote, Watch};
use crate::{Error, Params, Rng, Tape, Tensor};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// A table of a network's layers: parameters, multiply-adds, bytes.
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
        let (params, model) = match (&self.model, &self.arch) {
            (Some(path), _) => {
                let (params, model, _) = Card::load(&model_file(path)?)?;
                (params, model)
            }
            (None, arch) => {
                let arch = arch.as_deref().unwrap_or_default().parse()?;
                let task = Task { input: self.input, classes: self.classes };
                let mut params = Params::new();
                let method = self.method.parse()?;
                let model = Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(0))?;
                (params, model)
            }
        };
        let layers = layers(&params, &model);
        let sum = |f: &dyn Fn(&LayerNote) -> usize| layers.iter().map(f).sum::<usize>();
        let (bytes_float, bytes_packed) = (sum(&LayerNote::bytes_float), sum(&|l| l.bytes_packed));
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
                bytes_float: l.bytes_float(),
                bytes_packed: l.bytes_packed,
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
                    bytes(l.bytes_float()),
                    bytes(l.bytes_packed),
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
