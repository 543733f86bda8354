//! Architectures: layers put together, each to be read beside its figure in the original paper.

mod card;
mod darts;
mod efficientnet;
mod maker;
mod mlp;
mod mobilenet;
mod resnet;
mod unit;
mod vgg;

pub use card::{Card, with_estimators};
pub(crate) use darts::short;
pub use darts::{Darts, FactorizedReduce, Genotype, Operation, Supernet, settled};
pub use efficientnet::EfficientNet;
use maker::Maker;
pub use mlp::{BinMlp, Mlp, bin_mlp};
pub use mobilenet::MobileNet;
use resnet::{RESNET18, RESNET20, RESNET34};
pub use resnet::{ResNet, Shortcut};
pub use vgg::Vgg;
use vgg::{VGG_SMALL, VGG16};

use crate::binarize::Method;
use crate::error::unknown;
use crate::nn::Module;
use crate::spec::Options;
use crate::{Error, Params, Rng, Spec, Var};
use std::fmt;

/// The architectures there are, and what each is.
pub static ARCHS: &[(&str, &str)] = &[
    ("mlp", "dense layers; options: hidden=256, depth=2"),
    ("vgg-small", "six 3x3 convolutions and one dense layer; options: width=1, depth=1"),
    ("vgg16", "the 13 convolutions of VGG-16 and one dense layer; options: width=1, depth=1"),
    ("resnet20", "ResNet-20 for small images; options: width=1, depth=1, shortcut=normal|bireal"),
    ("resnet18", "ResNet-18; options: width=1, depth=1, shortcut=normal|bireal"),
    ("resnet34", "ResNet-34; options: width=1, depth=1, shortcut=normal|bireal"),
    ("mobilenet-v1", "MobileNet-V1; options: width=1, depth=5, depthwise=float|binary"),
    (
        "efficientnet-b0",
        "EfficientNet-B0; options: width=1, depth=1, depthwise=float|binary, drop_connect=0.2, dropout=0.2",
    ),
    (
        "darts",
        "cells that a search found, DARTS_V2 or those of a file; options: width=1, layers=20, auxiliary=on|off, drop_path=0.2, depthwise=float|binary, genotype=FILE.toml",
    ),
];

/// What a model is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Channels, height and width of an image.
    pub input: [usize; 3],
    /// Classes to tell apart.
    pub classes: usize,
}

/// A network by name, ready to run.
///
/// ```
/// use dirnet::{Params, Rng, Tape, Tensor, models::{Model, Task}, nn::Module};
/// let task = Task { input: [1, 28, 28], classes: 10 };
/// let mut params = Params::new();
/// let (arch, method) = ("resnet20".parse()?, "ir-net".parse()?);
/// let net = Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(0))?;
/// let tape = Tape::eval(&params);
/// assert_eq!(net.forward(&tape.constant(Tensor::zeros([2, 1, 28, 28]))).shape(), [2, 10]);
/// # Ok::<(), dirnet::Error>(())
/// ```
pub struct Model {
    /// The architecture, as it was chosen.
    pub arch: Spec,
    /// How it is binarized.
    pub method: Method,
    /// What it was made for.
    pub task: Task,
    net: Box<dyn Module>,
}

impl Model {
    /// Adds the parameters of an architecture to `params`.
    ///
    /// # Errors
    /// If there is none of that name, an option is unknown or of a wrong value, or the images are
    /// too small for it.
    pub fn new(
        params: &mut Params,
        arch: &Spec,
        method: &Method,
        task: &Task,
        rng: &mut Rng,
    ) -> Result<Self, Error> {
        if let Some(plus) = arch.plus.first() {
            return Err(Error::Setting(format!("nothing is added to an architecture: +{plus}")));
        }
        if task.input.contains(&0) || task.classes == 0 {
            return Err(Error::Setting(format!("no model is made for {task:?}")));
        }
        let mut options = Options::of(arch);
        let maker = Maker::new(params, method, task, rng);
        let net: Box<dyn Module> = match arch.name.as_str() {
            "mlp" => Box::new(Mlp::of(&mut options, maker)?),
            "vgg-small" => Box::new(Vgg::of(&VGG_SMALL, &mut options, maker)?),
            "vgg16" => Box::new(Vgg::of(&VGG16, &mut options, maker)?),
            "resnet20" => Box::new(ResNet::of(&RESNET20, &mut options, maker)?),
            "resnet18" => Box::new(ResNet::of(&RESNET18, &mut options, maker)?),
            "resnet34" => Box::new(ResNet::of(&RESNET34, &mut options, maker)?),
            "mobilenet-v1" => Box::new(MobileNet::of(&mut options, maker)?),
            "efficientnet-b0" => Box::new(EfficientNet::of(&mut options, maker)?),
            "darts" => Box::new(Darts::of(&mut options, maker)?),
            other => {
                let names: Vec<_> = ARCHS.iter().map(|(name, _)| *name).collect();
                return Err(unknown("architecture", other, &names));
            }
        };
        options.finish()?;
        Ok(Model { arch: arch.clone(), method: method.clone(), task: task.clone(), net })
    }
}

impl Module for Model {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        self.net.forward(x)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({}, {}, {:?})", self.arch, self.method, self.task)
    }
}

fn too_small(arch: &str, task: &Task, least: usize) -> Error {
    let [_, h, w] = task.input;
    Error::Setting(format!("{arch}: images are {h}x{w}, expected at least {least}x{least}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binarize::METHODS;
    use crate::watch::{LayerNote, Watch};
    use crate::{Role, Tape, Tensor};

    fn build(arch: &str, method: &str, task: &Task) -> Result<(Params, Model), Error> {
        let mut params = Params::new();
        let (arch, method) = (arch.parse()?, method.parse()?);
        let model = Model::new(&mut params, &arch, &method, task, &mut Rng::seed(1))?;
        Ok((params, model))
    }

    #[test]
    fn a_student_and_its_teacher_mark_the_same_representations() {
        let task = Task { input: [1, 16, 16], classes: 5 };
        let x = Tensor::randn([2, 1, 16, 16], 1.0, &mut Rng::seed(2));
        for (arch, blocks) in [
            ("mlp(hidden=24)", 2),
            ("vgg-small(width=0.1)", 5),
            ("vgg16(width=0.05)", 12),
            ("vgg16(width=0.05,depth=0.5)", 7),
            ("resnet20(width=0.5)", 9),
            ("resnet20(width=0.5,depth=0.3)", 3),
            ("resnet34(width=0.1,depth=0.5)", 9),
            ("resnet18(width=0.2)", 8),
            ("mobilenet-v1(width=0.1,depth=1)", 9),
            ("efficientnet-b0(width=0.1,depth=0.5)", 10),
            ("darts(width=0.1,layers=4)", 4),
        ] {
            let (params, student) = build(arch, "dir-net", &task).unwrap();
            let (floats, teacher) = build(arch, "fp32", &task).unwrap();
            let (tape, eval) = (Tape::train(&params), Tape::eval(&floats));
            let (tape, eval) = (tape.keeping_representations(), eval.keeping_representations());
            student.forward(&tape.constant(&x));
            teacher.forward(&eval.constant(&x));
            let (found, wanted) = (tape.representations(), eval.representations());
            assert_eq!((found.len(), wanted.len()), (blocks, blocks), "{arch}");
            let losses = found.iter().zip(&wanted);
            let losses = losses.map(|(x, t)| x.rbd(&tape.constant(t.value())));
            let loss = losses.reduce(|a, b| a + b).unwrap();
            assert!(loss.value().item() > 0.0, "{arch}");
            assert!(loss.backward().norm() > 0.0, "{arch}");
        }
    }

    #[test]
    fn every_architecture_runs_under_every_method_and_everything_in_it_learns() {
        let task = Task { input: [1, 16, 16], classes: 5 };
        let x = Tensor::randn([4, 1, 16, 16], 1.0, &mut Rng::seed(2));
        for arch in [
            "mlp(hidden=24)",
            "vgg-small(width=0.1)",
            "vgg16(width=0.05)",
            "resnet20(width=0.5)",
            "resnet20(width=0.5,shortcut=bireal)",
            "resnet18(width=0.2)",
            "mobilenet-v1(width=0.1,depth=0)",
            "mobilenet-v1(width=0.1,depth=0,depthwise=binary)",
            "efficientnet-b0(width=0.1,depth=0.1)",
            "efficientnet-b0(width=0.1,depth=0.1,depthwise=binary)",
            "darts(width=0.1,layers=3)",
            "darts(width=0.1,layers=1,depthwise=binary)",
        ] {
            let names = METHODS.iter().map(|entry| entry.name.to_string());
            let coded = METHODS.iter().filter(|entry| entry.variants);
            let coded = coded.map(|entry| format!("{}(variant=code)", entry.name));
            let binary = METHODS.iter().skip(1);
            let floats = ["1w32a", "32w1a"]
                .into_iter()
                .flat_map(|plus| binary.clone().map(move |entry| format!("{}+{plus}", entry.name)));
            for method in names.chain(coded).chain(floats) {
                let (params, model) = build(arch, &method, &task).unwrap();
                let tape = Tape::train(&params).at(0.5);
                let logits = model.forward(&tape.constant(&x));
                assert_eq!(logits.shape(), [4, 5], "{model:?}");
                let loss = logits.loss_with_heads(|x| x.cross_entropy(&[0, 1, 2, 3]));
                let grads = loss.backward();
                for (id, param) in params.iter().filter(|(_, p)| p.role != Role::Buffer) {
                    let gradient =
                        grads.get(id).unwrap_or_else(|| panic!("{model:?}: {}", param.name));
                    assert!(
                        gradient.iter().any(|&g| g != 0.0),
                        "{model:?}: {} is dead",
                        param.name
                    );
                }
            }
        }
    }

    /// So that methods can be compared: what is drawn for one is drawn for all, and what a method
    /// learns beside comes from elsewhere.
    #[test]
    fn the_same_seed_gives_all_methods_the_same_first_weights() {
        let task = Task { input: [1, 16, 16], classes: 5 };
        for arch in [
            "mlp(hidden=24,depth=3)",
            "vgg-small(width=0.1)",
            "resnet18(width=0.2)",
            "mobilenet-v1(width=0.1)",
            "efficientnet-b0(width=0.1)",
            "darts(width=0.1,layers=3)",
        ] {
            let (floats, _) = build(arch, "fp32", &task).unwrap();
            let names = METHODS.iter().map(|entry| entry.name.to_string());
            let partly = METHODS.iter().skip(1).map(|entry| format!("{}+32w1a", entry.name));
            for method in names.chain(partly) {
                let (params, _) = build(arch, &method, &task).unwrap();
                for (_, first) in floats.iter() {
                    let id = params.id(&first.name);
                    let id = id.unwrap_or_else(|| panic!("{arch}, {method}: no {}", first.name));
                    assert_eq!(params[id].value, first.value, "{arch}, {method}: {}", first.name);
                }
            }
        }
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let cifar = Task { input: [3, 32, 32], classes: 10 };
        // Without the biases that a batch norm makes useless, and without the batch norms of the
        // shortcuts that option A does not have.
        assert_eq!(build("resnet20", "fp32", &cifar).unwrap().0.count(), 269_722);
        // He et al., 2015, table 6: 0.85 million of ResNet-56.
        assert_eq!(build("resnet20(depth=3)", "fp32", &cifar).unwrap().0.count(), 853_018);
        assert_eq!(build("vgg-small", "fp32", &cifar).unwrap().0.count(), 4_660_106);
        // Without the 4,224 biases that a batch norm takes off again.
        assert_eq!(build("vgg16", "fp32", &cifar).unwrap().0.count(), 14_728_266 - 4_224);
        let photos = Task { input: [3, 224, 224], classes: 1000 };
        assert_eq!(build("resnet18", "fp32", &photos).unwrap().0.count(), 11_689_512);
        assert_eq!(build("resnet34", "ir-net", &photos).unwrap().0.count(), 21_797_672);
        assert_eq!(build("mobilenet-v1", "fp32", &photos).unwrap().0.count(), 4_231_976);
        assert_eq!(build("efficientnet-b0", "fp32", &photos).unwrap().0.count(), 5_288_548);
        let darts = |arch: &str, task| build(arch, "fp32", task).unwrap().0.count();
        // 3.3 million in table 1 of the paper, 4.7 in table 3.
        assert_eq!(darts("darts(auxiliary=off)", &cifar), 3_349_342);
        assert_eq!(darts("darts(auxiliary=off)", &photos), 4_718_752);
    }

    /// The layers of a network, as a summary shows them.
    fn notes(params: &Params, model: &Model) -> Vec<LayerNote> {
        let tape = Tape::eval(params).watching(Watch::layers());
        let [c, h, w] = model.task.input;
        model.forward(&tape.constant(Tensor::zeros([1, c, h, w])));
        let Watch::Layers(notes) = tape.into_watched() else { unreachable!() };
        notes.into_inner()
    }

    #[test]
    fn multiply_adds_are_the_published_ones() {
        let photos = Task { input: [3, 224, 224], classes: 1000 };
        for (arch, method, macs, binary_macs, bits) in [
            // 569 million in table 2 of the paper.
            ("mobilenet-v1", "fp32", 568_740_352, 0, 0),
            ("mobilenet-v1", "dir-net", 568_740_352, 539_492_352, 3_139_584),
            ("mobilenet-v1(depthwise=binary)", "dir-net", 568_740_352, 556_878_336, 3_184_224),
            // 0.39 billion in table 2 of the paper.
            ("efficientnet-b0", "fp32", 385_814_752, 0, 0),
            ("efficientnet-b0", "dir-net", 385_814_752, 338_537_472, 3_146_112),
            ("efficientnet-b0(depthwise=binary)", "bnn", 385_814_752, 373_069_536, 3_328_128),
            // Counted by hand; 574 million in table 3 of the paper, which does not say of what.
            ("darts", "dir-net", 529_911_552, 446_164_992, 3_748_608),
        ] {
            let (params, model) = build(arch, method, &photos).unwrap();
            let sum = |f: fn(&LayerNote) -> usize| notes(&params, &model).iter().map(f).sum();
            let found: [usize; 3] =
                [sum(|l| l.macs_1bit + l.macs_32bit), sum(|l| l.macs_1bit), sum(|l| l.params_1bit)];
            assert_eq!(found, [macs, binary_macs, bits], "{arch}, {method}");
        }
    }

    #[test]
    fn the_size_of_the_images_chooses_the_stem() {
        for (size, last) in [(32, 4), (64, 4), (96, 6), (128, 4), (224, 7)] {
            let task = Task { input: [3, size, size], classes: 2 };
            let (params, model) = build("resnet18(width=0.1)", "ir-net", &task).unwrap();
            let notes = notes(&params, &model);
            let deepest = notes.iter().rfind(|note| note.name == "layer4.1.conv2").unwrap();
            assert_eq!(deepest.output[1..], [last, last], "{size}");
        }
    }

    #[test]
    fn what_cannot_be_built_is_named() {
        let tiny = Task { input: [1, 4, 4], classes: 2 };
        for (arch, expected) in [
            ("resnet200", "did you mean \"resnet20\"?"),
            ("vgg-small", "expected at least 8x8"),
            ("resnet20(wdith=2)", "did you mean \"width\"?"),
            ("resnet20(shortcut=real)", "known: normal, bireal"),
            ("mlp(depth=no)", "expected a whole number"),
            ("mobilenet-v1(depth=65)", "depth is 65, expected 0 to 64"),
            ("mobilenet-v1(depthwise=bits)", "known: float, binary"),
            ("efficientnet-b0(dropout=1)", "dropout is 1, expected 0 to 0.9"),
            ("darts", "expected at least 8x8"),
        ] {
            let message = build(arch, "ir-net", &tiny).unwrap_err().to_string();
            assert!(message.contains(expected), "{arch}: {message}");
        }
    }
}
