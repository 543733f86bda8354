//! The promise: a packed network computes what the trained one does, number by number, and its file
//! says exactly the same network again.

use dirnet::binarize::METHODS;
use dirnet::deploy::{Floats, Net, Packed, pack, verify};
use dirnet::models::{Card, Model};
use dirnet::nn::Module;
use dirnet::{Params, Rng, Role, Tape, Tensor};

const ARCHS: &[&str] = &[
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
    // Every operation, on images that keep their size and on those that are halved.
    "darts(width=0.1,layers=3,genotype=all/\
     avg_pool_3x3:0 max_pool_3x3:1 dil_conv_5x5:0 sep_conv_5x5:2 skip_connect:1 sep_conv_3x3:2 dil_conv_3x3:3 dil_conv_3x3:4/\
     avg_pool_3x3:0 sep_conv_5x5:1 skip_connect:0 dil_conv_3x3:2 max_pool_3x3:1 dil_conv_5x5:2 sep_conv_3x3:3 sep_conv_5x5:4)",
];

fn card(arch: &str, method: &str) -> Card {
    Card {
        version: env!("CARGO_PKG_VERSION").into(),
        arch: arch.into(),
        method: method.into(),
        estimator: String::new(),
        data: "none".into(),
        input: [1, 16, 16],
        classes: (0..5).map(|i| i.to_string()).collect(),
        mean: vec![0.3],
        std: vec![0.4],
    }
}

/// A network as if it had been trained: nothing is one or zero everywhere, factors of a batch norm are
/// of either sign, and some are zero or hardly anything.
fn trained(arch: &str, method: &str) -> (Params, Model, Card) {
    let card = card(arch, method);
    let mut rng = Rng::seed(5);
    let (mut params, model) = card.build(&mut rng).unwrap();
    let entries: Vec<_> =
        params.iter().map(|(id, p)| (id, p.name.clone(), p.role, p.value.clone())).collect();
    for (id, name, role, value) in entries {
        let noise = Tensor::randn(value.shape(), 0.3, &mut rng);
        let mut moved = value.clone();
        let variance = name.ends_with("running_var");
        for (i, (x, noise)) in moved.data_mut().iter_mut().zip(&*noise).enumerate() {
            *x = if variance { 20.0 * (1.0 + noise.abs()) } else { *x + noise };
            let odd = role == Role::Weight && value.shape().len() == 1;
            match i % 11 {
                7 if odd => *x = 0.0,
                8 if odd => *x = 1e-41,
                9 if odd => *x = -*x,
                _ => {}
            }
        }
        params.set(id, moved);
    }
    (params, model, card)
}

fn images(n: usize) -> Tensor {
    Tensor::randn([n, 1, 16, 16], 1.0, &mut Rng::seed(9))
}

#[test]
fn every_architecture_packs_under_every_method_and_changes_no_bit() {
    let names = METHODS.iter().skip(1).map(|entry| entry.name.to_string());
    let coded = METHODS.iter().filter(|entry| entry.variants);
    let coded = coded.map(|entry| format!("{}(variant=code)", entry.name));
    let floats = METHODS.iter().skip(1).map(|entry| format!("{}+1w32a", entry.name));
    let methods: Vec<_> = names.chain(coded).chain(floats).collect();
    for arch in ARCHS {
        for method in &methods {
            let (params, model, card) = trained(arch, method);
            let (packed, report) = pack(&params, &model, &card, Floats::F32, &[])
                .unwrap_or_else(|e| panic!("{arch}, {method}: {e}"));
            assert!(!report.packed.is_empty(), "{arch}, {method}");
            let batches = [images(3), images(1)];
            let found = verify(&params, &model, &packed, batches).unwrap();
            assert_eq!(found, None, "{arch}, {method}");

            let read = Packed::from_bytes(&packed.to_bytes()).unwrap();
            assert_eq!(read, packed, "{arch}, {method}");
            let mut net = Net::new(read.graph, 4).unwrap();
            let tape = Tape::eval(&params);
            for n in [4, 1, 3] {
                let logits = model.forward(&tape.constant(images(n)));
                assert_eq!(net.run(&images(n)), &**logits.value(), "{arch}, {method}, {n} images");
            }
        }
    }
}

#[test]
fn an_image_gets_the_same_answer_alone_and_among_others() {
    for arch in ARCHS {
        let (params, model, card) = trained(arch, "dir-net");
        let (packed, _) = pack(&params, &model, &card, Floats::F32, &[]).unwrap();
        let mut net = Net::new(packed.graph, 5).unwrap();
        let (x, tape) = (images(5), Tape::eval(&params));
        let together = net.run(&x).to_vec();
        assert_eq!(&**model.forward(&tape.constant(&x)).value(), together, "{arch}");
        for (image, logits) in x.chunks(256).zip(together.chunks(5)) {
            assert_eq!(net.run(image), logits, "{arch}");
        }
    }
}

#[test]
fn a_threshold_that_is_off_by_one_is_found() {
    use dirnet_engine::Values;
    let (params, model, card) = trained("resnet20(width=0.5)", "dir-net");
    let (mut packed, _) = pack(&params, &model, &card, Floats::F32, &[]).unwrap();
    let planted = packed.graph.numbers.iter_mut().rev().find_map(|numbers| {
        let Values::Thresholds(all) = &mut numbers.values else { return None };
        // Away from the border a sum of an even number of taps is even.
        let at = all.iter().position(|t| t.at.abs() < 20 && t.at % 2 == 0)?;
        all[at].at += 1;
        Some((numbers.name.clone(), at))
    });
    let (name, channel) = planted.expect("a layer with thresholds");
    let found = verify(&params, &model, &packed, [images(16)]).unwrap().expect("found");
    assert_eq!(format!("{}.threshold", found.layer), name);
    assert_eq!((found.channel, found.trained), (channel, -found.packed));
}

#[test]
fn nothing_stays_float_in_silence() {
    let refused = |method: &str, allowed: &[String]| {
        let (params, model, card) = trained("resnet20(width=0.5)", method);
        pack(&params, &model, &card, Floats::F32, allowed).map(|(_, report)| report)
    };
    let message = refused("fp32", &[]).unwrap_err().to_string();
    assert!(message.contains("no layer of this network is binary"), "{message}");
    let message = refused("ir-net+32w1a", &[]).unwrap_err().to_string();
    assert!(message.contains("layer1.0.conv1") && message.contains("--allow-float"), "{message}");
    let message = refused("ir-net", &["conv1".into()]).unwrap_err().to_string();
    assert!(message.contains("--allow-float conv1"), "{message}");
    let report = refused("ir-net", &[]).unwrap();
    let float: Vec<_> = report.float.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(float, ["conv1", "fc"]);
    assert_eq!(report.packed.len(), 18);
    assert_eq!(report.packed[0], "layer1.0.conv1");
}
