//! Promise: every operation, loss, estimator, layer and optimiser, and one whole training step of
//! several networks, has the values and gradients that PyTorch finds in float64.
//!
//! The files under `tests/golden/` were made once by the script beside them, which also says what
//! is in them. A case that no line here judges fails its test, and so does an array of a case.

#[path = "golden/archive.rs"]
mod archive;

use archive::{Case, Family};
use dirnet::binarize::{
    ApproxSign, Bound, Distill, Dsq, Dte, Ede, Estimator, FourierSum, Gaussian, HalfCosine,
    Identity, Inputs, Latent, Pad, Power, Rbnn, Scale, Ste, Steepening, SwishSign, Tanh, estimator,
};
use dirnet::models::{Model, Supernet, Task};
use dirnet::nn::{BatchNorm, BinConv2d, Conv2d, Linear, Module};
use dirnet::ops::{Conv, concat};
use dirnet::optim::{Adam, Bop, Optimize, Schedule, Sgd};
use dirnet::{Method, Params, Rng, Role, Spec, Tape, Tensor, Var};
use std::sync::Arc;

/// What rounding may add up to on the way through a whole network.
const NETWORK_TOLERANCE: f64 = 1e-3;

#[test]
fn operations() {
    let family = Family::open("ops");
    for case in family.cases() {
        match case.operation() {
            "add" => case.judge(["a", "b"], |[a, b]| &a + &b),
            "sub" => case.judge(["a", "b"], |[a, b]| &a - &b),
            "mul" => case.judge(["a", "b"], |[a, b]| &a * &b),
            "div" => case.judge(["a", "b"], |[a, b]| &a / &b),
            "neg" => case.judge(["x"], |[x]| -&x),
            "mul_self" => case.judge(["x"], |[x]| &x * &x),
            "add_scalar" => case.judge(["x"], |[x]| &x + case.settings::<1>()[0] as f32),
            "sub_scalar" => case.judge(["x"], |[x]| &x - case.settings::<1>()[0] as f32),
            "mul_scalar" => case.judge(["x"], |[x]| &x * case.settings::<1>()[0] as f32),
            "div_scalar" => case.judge(["x"], |[x]| &x / case.settings::<1>()[0] as f32),

            "relu" => case.judge(["x"], |[x]| x.relu()),
            "relu6" => case.judge(["x"], |[x]| x.clamp(0.0, 6.0)),
            "hardtanh" => case.judge(["x"], |[x]| x.hardtanh()),
            "sigmoid" => case.judge(["x"], |[x]| x.sigmoid()),
            "tanh" => case.judge(["x"], |[x]| x.tanh()),
            "swish" => case.judge(["x"], |[x]| x.swish()),
            "leaky_relu" => case.judge(["x"], |[x]| x.leaky_relu(case.settings::<1>()[0] as f32)),
            "exp" => case.judge(["x"], |[x]| x.exp()),
            "log" => case.judge(["x"], |[x]| x.ln()),
            "sqrt" => case.judge(["x"], |[x]| x.sqrt()),
            "square" => case.judge(["x"], |[x]| x.square()),
            "abs" => case.judge(["x"], |[x]| x.abs()),
            "clamp" => {
                let [low, high] = case.settings();
                case.judge(["x"], |[x]| x.clamp(low as f32, high as f32));
            }

            "bias_channel" => case.judge(["x", "b"], |[x, b]| x.add_channels(&b)),
            "scale_channel" => case.judge(["x", "s"], |[x, s]| x.mul_channels(&s)),
            "prelu" => case.judge(["x", "a"], |[x, a]| x.prelu(&a)),
            // One gate an image and channel: the images' channels side by side, as if of one image.
            "gate_channel" => case.judge(["x", "g"], |[x, g]| {
                let &[n, c, h, w] = x.shape() else { panic!("an image batch") };
                let gated = x.reshape([1, n * c, h, w]).mul_channels(&g.reshape([n * c]));
                gated.reshape([n, c, h, w])
            }),

            "matmul" => case.judge(["a", "b"], |[a, b]| a.matmul(&b)),
            "matmul_a_transposed" => case.judge(["a", "b"], |[a, b]| a.transpose().matmul(&b)),
            "matmul_b_transposed" => case.judge(["a", "b"], |[a, b]| a.matmul(&b.transpose())),
            "linear" => case.judge(["x", "w", "b"], |[x, w, b]| x.linear(&w).add_channels(&b)),

            "sum" => case.judge(["x"], |[x]| x.sum()),
            "mean" => case.judge(["x"], |[x]| x.mean()),
            "softmax" => case.judge(["x"], |[x]| x.softmax()),
            "log_softmax" => case.judge(["x"], |[x]| x.log_softmax()),

            "reshape" => case.judge(["x"], |[x]| x.reshape([4, 60])),
            "flatten" => case.judge(["x"], |[x]| x.flatten()),
            "transpose" => case.judge(["x"], |[x]| x.transpose()),
            "concat" => case.judge(["a", "b", "c"], |[a, b, c]| concat(&[&a, &b, &c])),
            "narrow" => {
                let [start, length] = case.settings();
                case.judge(["x"], |[x]| x.narrow(start as usize, length as usize));
            }
            "pad_channels" => {
                let [before, behind] = case.settings();
                case.judge(["x"], |[x]| x.pad_channels(before as usize, behind as usize));
            }
            "subsample" => case.judge(["x"], |[x]| x.subsample(case.settings::<1>()[0] as usize)),
            other => panic!("ops.npz: nothing judges {other}"),
        }
    }
    family.finish();
}

#[test]
fn convolutions_pools_and_batch_norm() {
    let family = Family::open("conv");
    for case in family.cases() {
        let name = case.operation();
        if name.starts_with("conv2d") {
            let [stride, pad, dilation, groups] = case.settings().map(|x| x as usize);
            let how = Conv { stride, pad, dilation, groups };
            case.judge(["x", "w"], |[x, w]| x.conv2d(&w, how));
        } else if name.starts_with("max_pool2d_") {
            let [size, stride, pad] = case.settings().map(|x| x as usize);
            case.judge(["x"], |[x]| x.max_pool2d(size, stride, pad));
        } else if name.starts_with("avg_pool2d_") {
            let [size, stride, pad] = case.settings().map(|x| x as usize);
            case.judge(["x"], |[x]| x.avg_pool2d(size, stride, pad));
        } else if name == "global_avg_pool" {
            case.judge(["x"], |[x]| x.global_avg_pool());
        } else if name.starts_with("batch_norm") && name.ends_with("_training") {
            let [eps] = case.settings();
            case.judge(["x", "weight", "bias"], |[x, gamma, beta]| {
                let (y, moments) = x.batch_norm(&gamma, &beta, eps as f32);
                case.compare_tensor("mean", &moments.mean);
                case.compare_tensor("var", &moments.var);
                y
            });
        } else if name.starts_with("batch_norm") && name.ends_with("_evaluating") {
            let [eps] = case.settings();
            let (mean, var) = (case.tensor("mean"), case.tensor("var"));
            let inv_std = var.map(|var| 1.0 / (var + eps as f32).sqrt());
            case.judge(["x", "weight", "bias"], |[x, gamma, beta]| {
                let a = &gamma * &x.tape().constant(&inv_std);
                let b = &beta - &(&a * &x.tape().constant(&mean));
                x.channel_affine(&a, &b)
            });
        } else {
            panic!("conv.npz: nothing judges {name}");
        }
    }
    family.finish();
}

#[test]
fn losses() {
    let family = Family::open("losses");
    for case in family.cases() {
        let name = case.operation();
        if name.starts_with("cross_entropy") {
            let ([smoothing], labels) = (case.settings(), case.labels("labels"));
            case.judge(["x"], |[x]| x.cross_entropy_smoothed(&labels, smoothing as f32));
        } else if name == "mse" {
            case.judge(["x", "target"], |[x, target]| x.mse(&target));
        } else if name.starts_with("smooth_l1") {
            let [beta] = case.settings();
            case.judge(["x", "target"], |[x, target]| x.smooth_l1(&target, beta as f32));
        } else if name.starts_with("kl_div") {
            let [temperature] = case.settings().map(|t| t as f32);
            case.judge(["x"], |[x]| {
                let teacher = x.tape().constant(case.tensor("teacher"));
                let soft = (&teacher / temperature).softmax();
                case.compare_tensor("probabilities", soft.value());
                x.kl_div(&teacher, temperature)
            });
        } else if name == "rbd" {
            case.judge(["x"], |[x]| x.rbd(&x.tape().constant(case.tensor("teacher"))));
        } else if name == "distill" {
            let distill = Distill { labels: 0.5, features: 0.25, logits: 2.0, temperature: 3.0 };
            let labels = case.labels("labels");
            case.judge(["x", "block"], |[x, block]| {
                let of_teacher = |key| x.tape().constant(case.tensor(key));
                let (own, others) = ([block], [of_teacher("block_of_teacher")]);
                let logits = [&x, &of_teacher("teacher")];
                distill.loss(|| x.cross_entropy(&labels), [&own, &others], logits)
            });
        } else {
            panic!("losses.npz: nothing judges {name}");
        }
    }
    family.finish();
}

#[test]
fn estimators() {
    let family = Family::open("estimators");
    for case in family.cases() {
        let name = case.name;
        if name.starts_with("ede_schedule") {
            let [t_min, t_max, epochs] = case.settings().map(|x| x as f32);
            let steepening = Steepening { t_min, t_max };
            let moments = (0..epochs as usize).map(|i| steepening.at(i as f32 / epochs));
            let t: Vec<f32> = moments.collect();
            let k: Vec<f32> = t.iter().map(|&t| Tanh::steep(t).k).collect();
            case.compare("t", &t);
            case.compare("k", &k);
            continue;
        }
        if name.starts_with("expression_") {
            let (e, progress) = (expression(name), case.last_setting() as f32);
            case.judge_at(progress, ["x"], |[x]| x.binarize(&e));
            continue;
        }
        let e: Arc<dyn Estimator> = match name {
            _ if name.starts_with("identity_") => Arc::new(Identity),
            _ if name.starts_with("clipped_") => Arc::new(clipped(case)),
            _ if name.starts_with("approx_sign_") => Arc::new(ApproxSign),
            _ if name.starts_with("ede_") => Arc::new(ede(case)),
            _ if name.starts_with("dte_a") => {
                Arc::new(dte(case, &case.tensor("x"), Bound::Absolute))
            }
            _ if name.starts_with("dte_b") => {
                Arc::new(dte(case, &case.tensor("x"), Bound::Relative))
            }
            _ if name.starts_with("channels_") => Arc::new(dte_by_channel(case)),
            _ if name.starts_with("half_cosine_") => Arc::new(HalfCosine),
            _ => of_one_number(case),
        };
        case.judge(["x"], |[x]| x.binarize(&e));
    }
    family.finish();
}

/// The last setting of a case is its estimator's.
fn clipped(case: Case<'_>) -> Ste {
    Ste { clip: case.last_setting() as f32 }
}

/// The estimators whose one setting is a number.
fn of_one_number(case: Case<'_>) -> Arc<dyn Estimator> {
    let number = case.last_setting() as f32;
    let steepening = Steepening { t_min: number, t_max: number };
    match case.name {
        what if what.starts_with("dsq") => Arc::new(Dsq { alpha: number }),
        what if what.starts_with("rbnn_w") => Arc::new(Rbnn { steepening, activations: false }),
        what if what.starts_with("rbnn_a") => Arc::new(Rbnn { steepening, activations: true }),
        what if what.starts_with("swish") => Arc::new(SwishSign { beta: number }),
        what if what.starts_with("gaussian") => Arc::new(Gaussian { sigma: number }),
        what if what.starts_with("fourier") => {
            Arc::new(FourierSum { last: number as u32, omega: 0.1 })
        }
        what if what.starts_with("power") => Arc::new(Power { o: number }),
        _ => panic!("estimators.npz: nothing judges {}", case.name),
    }
}

/// EDE, standing still at the `t` of the case.
fn ede(case: Case<'_>) -> Ede {
    let t = case.last_setting() as f32;
    Ede { steepening: Steepening { t_min: t, t_max: t } }
}

/// DTE, its schedule standing still at the `t` of the case; what it finds in the tensor `x` is
/// compared on the way.
fn dte(case: Case<'_>, x: &[f32], bound: fn(f32) -> Bound) -> Dte {
    let [t, eps, threshold] = case.settings().map(|x| x as f32);
    let steepening = Steepening { t_min: t, t_max: t };
    let dte = Dte { steepening, eps, bound: bound(threshold), ..Dte::default() };
    let fitted = dte.steepest(x);
    case.compare("t_fit", &[fitted]);
    case.compare("t_used", &[t.min(fitted)]);
    case.compare("k", &[Tanh::steep(t.min(fitted)).k]);
    // The quantile shows itself in rule B, where t · q = arccosh(1/sqrt(rho)).
    let relative = Dte { bound: Bound::Relative(0.5), ..dte };
    case.compare("q", &[2f32.sqrt().acosh() / relative.steepest(x)]);
    dte
}

/// DTE with a curve for each channel; the `t` of each is compared on the way.
fn dte_by_channel(case: Case<'_>) -> Dte {
    let [t, eps, threshold] = case.settings().map(|x| x as f32);
    let steepening = Steepening { t_min: t, t_max: t };
    let bound = if case.name.starts_with("channels_a") { Bound::Absolute } else { Bound::Relative };
    let dte = Dte { steepening, eps, bound: bound(threshold), by_channel: true };
    let x = case.tensor("x");
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let hw = x.len() / (n * c);
    let of_channel = |at: usize| -> Vec<f32> {
        let rows = (0..n).flat_map(|i| &x[(i * c + at) * hw..][..hw]);
        rows.copied().collect()
    };
    let used: Vec<f32> = (0..c).map(|at| t.min(dte.steepest(&of_channel(at)))).collect();
    case.compare("t_used", &used);
    dte
}

/// A typed curve.
fn expression(case: &str) -> Arc<dyn Estimator> {
    let text = match case {
        name if name.starts_with("expression_root") => "soft = x/sqrt(0.1 + x^2)",
        name if name.starts_with("expression_wave") => {
            "soft = tanh(t*x)/t + a*sin(pi*x)*exp(-x^2); t = 0.5..8; a = lin(0..0.4)"
        }
        name => panic!("estimators.npz: nothing judges {name}"),
    };
    estimator(text).unwrap()
}

#[test]
fn binary_weights_and_products() {
    let family = Family::open("binarize");
    for case in family.cases() {
        let name = case.name;
        let e: Arc<dyn Estimator> = match name {
            _ if name.starts_with("imb_dte") => {
                let bound = if name.ends_with("_a") { Bound::Absolute } else { Bound::Relative };
                let params = Params::new();
                let tape = Tape::eval(&params);
                let y = tape.constant(case.tensor("w")).standardize();
                Arc::new(dte(case, y.value(), bound))
            }
            _ if name.ends_with("_identity") => Arc::new(Identity),
            _ if name.ends_with("_ede") => Arc::new(ede(case)),
            _ => Arc::new(clipped(case)),
        };
        if name.starts_with("binary_conv2d") {
            let [stride, pad, groups, border, _] = case.settings();
            let how = Conv::valid().stride(stride as usize).pad(pad as usize);
            let how = how.groups(groups as usize);
            let outside = [Pad::Minus, Pad::Zero, Pad::Plus][(border + 1.0) as usize];
            case.judge(["x", "w"], |[x, w]| {
                let y = w.standardize();
                x.bin_conv2d(&y, &Scale::Shift.of(&w, &y), how, outside, [&e, &e])
            });
            if outside == Pad::Zero {
                case.judge(["x", "w"], |[x, w]| x.binarize(&e).conv2d(&imb(&w, &e), how));
            }
        } else if name.starts_with("binary_linear") {
            case.judge(["x", "w"], |[x, w]| {
                let y = w.standardize();
                x.bin_linear(&y, &Scale::Shift.of(&w, &y), [&e, &e])
            });
            case.judge(["x", "w"], |[x, w]| x.binarize(&e).linear(&imb(&w, &e)));
        } else if name.starts_with("mean_abs_detached") {
            case.judge(["w"], |[w]| w.binarize_weights(&Scale::MeanAbs.of(&w, &w), &e));
        } else if name.starts_with("mean_abs_through") {
            case.judge(["w"], |[w]| w.binarize_weights(&Scale::MeanAbsThrough.of(&w, &w), &e));
        } else if name.contains("_unscaled") {
            case.judge(["w"], |[w]| w.standardize().binarize(&e));
        } else if name.starts_with("imb") {
            case.judge(["w"], |[w]| {
                if case.has("standardized") {
                    let y = w.standardize();
                    case.compare_tensor("standardized", y.value());
                    let scale = Scale::Shift.of(&w, &y).value().clone();
                    case.compare_tensor("s", &scale.map(f32::log2));
                }
                imb(&w, &e)
            });
        } else {
            panic!("binarize.npz: nothing judges {name}");
        }
    }
    family.finish();
}

fn imb<'t>(w: &Var<'t>, e: &Arc<dyn Estimator>) -> Var<'t> {
    let y = w.standardize();
    y.binarize_weights(&Scale::Shift.of(w, &y), e)
}

/// Weights, inputs and products of each method, the learned numbers by their names.
#[test]
fn methods() {
    let family = Family::open("methods");
    for case in family.cases() {
        let (part, rest) = case.name.split_once('_').expect("PART_METHOD");
        let method: Method =
            rest.trim_end_matches("_dense").trim_end_matches("_tall").parse().unwrap();
        let (weights, activations) =
            (method.weights.as_ref().unwrap(), method.activations.as_ref().unwrap());
        let mut params = Params::new();
        let x = if part == "weights" { Tensor::zeros([1]) } else { case.tensor("x") };
        let run: Box<dyn for<'t> Fn(&Var<'t>) -> Var<'t>> = match part {
            "weights" => {
                let latent = Latent::new(&mut params, "a", case.tensor("w"), weights);
                Box::new(move |x| latent.ready(x.tape()).binarized())
            }
            "inputs" => {
                let inputs = Inputs::new(&mut params, "a", &x.shape()[1..], activations);
                Box::new(move |x| inputs.binarized(x))
            }
            "product" => {
                let (w, size) = (case.tensor("w"), [x.shape()[2], x.shape()[3]]);
                let filter = [w.shape()[1], w.shape()[0], w.shape()[2]];
                let (how, rng) = (Conv::same(3), &mut Rng::seed(0));
                let conv = BinConv2d::new(&mut params, "a", filter, how, size, &method, rng);
                Box::new(move |x| conv.forward(x))
            }
            other => panic!("methods.npz: nothing judges {other}"),
        };
        let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
        let key = |params: &Params, id| {
            let last = params[id].name.rsplit('.').next().unwrap().to_string();
            if last == "weight" { "w".to_string() } else { last }
        };
        for &id in &ids {
            let value = case.tensor(&key(&params, id));
            params.set(id, value);
        }
        let tape = Tape::train(&params).at(case.first_setting() as f32);
        let x = tape.variable(x);
        let y = run(&x);
        case.compare_tensor("y", y.value());
        let grads = (&y * &tape.constant(case.tensor("cov"))).sum().backward();
        if part != "weights" {
            case.compare_tensor("dx", grads.wrt(&x).expect("x is used"));
        }
        for &id in ids.iter().filter(|&&id| params[id].role != Role::Buffer) {
            let gradient = grads.get(id).unwrap_or_else(|| panic!("{}", case.name));
            case.compare_tensor(&format!("d{}", key(&params, id)), gradient);
        }
    }
    family.finish();
}

#[test]
fn optimisers_schedules_and_clipping() {
    let family = Family::open("optim");
    for case in family.cases() {
        let name = case.name;
        if case.has("lr") {
            schedule(case);
        } else if name.starts_with("sgd") {
            let [momentum, nesterov, decay, lr] = case.settings().map(|x| x as f32);
            let sgd = Sgd::new(lr).momentum(momentum).decay(decay);
            steps(case, if nesterov == 1.0 { sgd.nesterov() } else { sgd });
        } else if name.starts_with("adam") {
            let [beta1, beta2, eps, decay, lr] = case.settings().map(|x| x as f32);
            let adam = Adam::new(lr).betas(beta1, beta2).eps(eps).decay(decay);
            steps(case, if name.starts_with("adamw") { adam.decoupled() } else { adam });
        } else if name.starts_with("bop2") {
            let [gamma, threshold, sigma, unbiased] = case.settings().map(|x| x as f32);
            let bop = Bop::new(0.1).gamma(gamma).threshold(threshold);
            steps(case, bop.second_order(sigma, unbiased == 1.0));
        } else if name.starts_with("bop") {
            let [gamma, threshold] = case.settings().map(|x| x as f32);
            steps(case, Bop::new(0.1).gamma(gamma).threshold(threshold));
        } else if name.starts_with("clip_norm") {
            let mut params = Params::new();
            let ids = ["a", "b"]
                .map(|key| params.add(key, Role::Weight, Tensor::zeros(case.tensor(key).shape())));
            let tape = Tape::train(&params);
            let [a, b] = [("a", ids[0]), ("b", ids[1])]
                .map(|(key, id)| (&tape.param(id) * &tape.constant(case.tensor(key))).sum());
            let mut grads = (&a + &b).backward();
            case.compare("norm", &[grads.norm() as f32]);
            grads.clip_norm(case.last_setting());
            case.compare("clipped_a", grads.get(ids[0]).expect("a is used"));
            case.compare("clipped_b", grads.get(ids[1]).expect("b is used"));
        } else if name == "clip_latent" {
            let [lr, limit] = case.settings().map(|x| x as f32);
            steps(case, Sgd::new(lr).latent_clip(limit));
        } else {
            panic!("optim.npz: nothing judges {name}");
        }
    }
    family.finish();
}

/// Steps with the gradients of a case, one after the other.
fn steps(case: Case<'_>, mut optimiser: impl Optimize) {
    let mut params = Params::new();
    let p = params.add("p", Role::Latent, case.tensor("p"));
    let (all, size) = (case.tensor("g"), params[p].value.len());
    let mut after = Vec::new();
    for g in all.chunks(size) {
        let tape = Tape::train(&params);
        let g = tape.constant(Tensor::new(params[p].value.shape(), g.to_vec()));
        let grads = (&tape.param(p) * &g).sum().backward();
        optimiser.step(&mut params, &grads);
        after.extend_from_slice(&params[p].value);
    }
    case.compare("after", &after);
}

/// The learning rate of each epoch, at whose beginning the progress is `i/n`.
fn schedule(case: Case<'_>) {
    let epochs = case.last_setting() as f32;
    let lr = case.first_setting() as f32;
    let schedule = match case.name {
        "cosine" => Schedule::cosine(),
        "step" => Schedule::steps([0.3, 0.6, 0.9], 0.1),
        "multi_step" => Schedule::steps([0.4, 0.7], 0.1),
        "warmup_cosine" => Schedule::cosine().warmup(case.settings::<3>()[1] as f32 / epochs),
        name => panic!("optim.npz: nothing judges {name}"),
    };
    let optimiser = Sgd::new(lr).schedule(schedule);
    let rates: Vec<f32> =
        (0..epochs as usize).map(|i| optimiser.lr_at(i as f32 / epochs)).collect();
    case.compare("lr", &rates);
}

#[test]
fn layers_and_residual_blocks() {
    let family = Family::open("layers");
    for case in family.cases() {
        let params = &mut Params::new();
        let rng = &mut Rng::seed(0);
        let layer: Box<dyn Module> = match case.name {
            "linear" => Box::new(Linear::new(params, "fc", 7, 4, rng)),
            "conv2d" => {
                let [stride, pad] = case.settings().map(|x| x as usize);
                let how = Conv::valid().stride(stride).pad(pad);
                Box::new(Conv2d::new(params, "conv1", [3, 4, 3], how, rng))
            }
            "batch_norm" => Box::new(BatchNorm::new(params, "bn1", 4)),
            "batch_norm_dense" => Box::new(BatchNorm::new(params, "bn1", 5)),
            name if name.starts_with("block_") => Box::new(Block::new(params, case, rng)),
            name => panic!("layers.npz: nothing judges {name}"),
        };
        fill(params, case);
        if case.has("evaluated") {
            let tape = Tape::eval(params);
            let y = layer.forward(&tape.constant(case.tensor("x")));
            case.compare_tensor("evaluated", y.value());
        }
        let tape = Tape::train(params);
        let x = tape.variable(case.tensor("x"));
        let y = layer.forward(&x);
        case.compare_tensor("y", y.value());
        let grads = (&y * &tape.constant(case.tensor("cov"))).sum().backward();
        case.compare_tensor("dx", grads.wrt(&x).expect("x is used"));
        for (id, gradient) in grads.iter() {
            case.compare_tensor(&format!("d{}", params[id].name), gradient);
        }
        for (id, value) in grads.updates() {
            case.compare_tensor(&format!("after.{}", params[*id].name), value);
        }
    }
    family.finish();
}

/// Puts the numbers of a case into parameters of the same names.
fn fill(params: &mut Params, case: Case<'_>) {
    let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
    for id in ids {
        let value = case.tensor(&params[id].name);
        params.set(id, value);
    }
}

/// A residual block in float, with hardtanh.
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    stride: usize,
    extra: usize,
    bireal: bool,
}

impl Block {
    fn new(params: &mut Params, case: Case<'_>, rng: &mut Rng) -> Self {
        let stride = case.last_setting() as usize;
        let (from, to) = (case.tensor("x").shape()[1], case.tensor("bn1.bias").len());
        let how = Conv::same(3).stride(stride);
        Block {
            conv1: Conv2d::new(params, "conv1", [from, to, 3], how, rng),
            bn1: BatchNorm::new(params, "bn1", to),
            conv2: Conv2d::new(params, "conv2", [to, to, 3], Conv::same(3), rng),
            bn2: BatchNorm::new(params, "bn2", to),
            stride,
            extra: to - from,
            bireal: case.name.starts_with("block_bireal"),
        }
    }
}

impl Module for Block {
    fn forward<'t>(&self, x: &Var<'t>) -> Var<'t> {
        let half = self.extra / 2;
        let around = x.subsample(self.stride).pad_channels(half, self.extra - half);
        let first = self.bn1.forward(&self.conv1.forward(x));
        let second = |x: &Var<'t>| self.bn2.forward(&self.conv2.forward(x));
        if self.bireal {
            let x = (&first + &around).hardtanh();
            (&second(&x) + &x).hardtanh()
        } else {
            (&second(&first.hardtanh()) + &around).hardtanh()
        }
    }
}

#[test]
fn one_step_of_a_binary_resnet20() {
    one_step("step_normal", "resnet20(width=0.25, shortcut=normal)");
}

#[test]
fn one_step_of_a_binary_resnet20_with_a_shortcut_around_each_convolution() {
    one_step("step_bireal", "resnet20(width=0.25, shortcut=bireal)");
}

fn one_step(file: &'static str, arch: &str) {
    let family = Family::open(file);
    let step = family.case("");
    let [t_min, t_max, progress, lr, momentum, decay] = step.settings().map(|x| x as f32);
    let (x, labels) = (step.tensor("x"), step.labels("labels"));

    let arch: Spec = arch.parse().unwrap();
    let method: Method = format!("ir-net(t_min={t_min}, t_max={t_max})").parse().unwrap();
    let &[_, c, h, w] = x.shape() else { panic!("an image batch") };
    let task = Task { input: [c, h, w], classes: 10 };
    let mut params = Params::new();
    let net = Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(0)).unwrap();
    fill(&mut params, family.case("init"));

    let tape = Tape::train(&params).at(progress);
    let logits = net.forward(&tape.constant(x));
    step.compare_tensor("logits", logits.value());
    let loss = logits.cross_entropy(&labels);
    step.compare_tensor("loss", loss.value());
    let grads = loss.backward();
    for (id, gradient) in grads.iter() {
        family.case("grad").compare_within(&params[id].name, gradient, NETWORK_TOLERANCE);
    }

    Sgd::new(lr).momentum(momentum).decay(decay).step(&mut params, &grads);
    for (_, param) in params.iter() {
        family.case("after").compare_tensor(&param.name, &param.value);
    }
    family.finish();
}

#[test]
fn one_step_of_a_narrow_mobilenet_v1() {
    float_step("step_mobilenet_v1", "mobilenet-v1(width=0.0625, depth=2)", 6);
}

#[test]
fn one_step_of_a_narrow_efficientnet_b0() {
    let arch = "efficientnet-b0(width=0.125, depth=0.5, drop_connect=0, dropout=0)";
    float_step("step_efficientnet_b0", arch, 7);
}

#[test]
fn one_step_of_resnet18() {
    float_step("step_resnet18", "resnet18", 10);
}

#[test]
fn one_step_of_a_narrow_resnet34() {
    float_step("step_resnet34", "resnet34(width=0.125)", 10);
}

#[test]
fn one_step_of_a_narrow_resnet20() {
    float_step("step_resnet20", "resnet20(width=0.5)", 10);
}

#[test]
fn one_step_of_a_narrow_vgg_small() {
    float_step("step_vgg_small", "vgg-small(width=0.25)", 10);
}

#[test]
fn one_step_of_a_narrow_vgg16() {
    float_step("step_vgg16", "vgg16(width=0.125)", 10);
}

#[test]
fn one_step_of_a_narrow_darts() {
    float_step("step_darts", "darts(width=0.2, layers=4, drop_path=0)", 6);
}

#[test]
fn one_step_of_a_search_for_cells() {
    let task = Task { input: [3, 8, 8], classes: 6 };
    let (mut params, method) = (Params::new(), "fp32".parse().unwrap());
    let net = Supernet::new(&mut params, [4, 3], &method, &task, &mut Rng::seed(0)).unwrap();
    judge_step("step_search", &net, params, &task);
}

/// A step in float of an architecture, on images of 16 by 16 pixels.
fn float_step(file: &'static str, arch: &str, classes: usize) {
    let task = Task { input: [3, 16, 16], classes };
    let mut params = Params::new();
    let (arch, method) = (arch.parse().unwrap(), "fp32".parse().unwrap());
    let net = Model::new(&mut params, &arch, &method, &task, &mut Rng::seed(0)).unwrap();
    judge_step(file, &net, params, &task);
}

/// A step of a network whose numbers both sides make by the formula in `golden/mobile.py`. Of each gradient
/// its length and a product are compared, and all of it where it is an architecture's.
fn judge_step(file: &'static str, net: &dyn Module, mut params: Params, task: &Task) {
    let family = Family::open(file);
    let step = family.case("");
    let [seed] = step.settings();
    let ids: Vec<_> = params.iter().filter(|(_, p)| p.role != Role::Buffer).collect();
    let ids: Vec<_> = ids.into_iter().map(|(id, _)| id).collect();
    for &id in &ids {
        let (name, shape) = (params[id].name.clone(), params[id].value.shape().to_vec());
        params.set(id, numbers(&name, &shape, seed));
    }

    let [c, h, w] = task.input;
    let x = numbers("x", &[4, c, h, w], seed);
    let labels: Vec<u32> = (0..4).map(|i| i % task.classes as u32).collect();
    let tape = Tape::train(&params);
    let logits = net.forward(&tape.constant(x));
    step.compare_within("logits", logits.value(), NETWORK_TOLERANCE);
    let loss = logits.loss_with_heads(|x| x.cross_entropy(&labels));
    step.compare_within("loss", loss.value(), NETWORK_TOLERANCE);
    let grads = loss.backward();
    for id in ids {
        let (name, gradient) = (&params[id].name, grads.get(id).expect("all of it learns"));
        if name.starts_with("alphas") {
            family.case("grad").compare_within(name, gradient, NETWORK_TOLERANCE);
            continue;
        }
        let signs = uniform(&format!("cov/{name}/{seed}"), gradient.len());
        let (mut square, mut product) = (0.0, 0.0);
        for (&g, sign) in gradient.iter().zip(signs) {
            let g = f64::from(g);
            square += g * g;
            product += if sign >= 0.0 { g } else { -g };
        }
        let counts = square.sqrt() >= 1e-6 * grads.norm();
        let found = [square.sqrt(), product].map(|x| if counts { x as f32 } else { 0.0 });
        family.case("grad").compare_within(name, &found, NETWORK_TOLERANCE);
    }
    family.finish();
}

/// The array of that name and shape.
fn numbers(name: &str, shape: &[usize], seed: f64) -> Tensor {
    let u = uniform(&format!("{name}/{seed}"), shape.iter().product());
    let fan_in: usize = shape[1..].iter().product();
    let number = |u: f32| match name {
        "x" => 2.0 * u,
        _ if shape.len() > 1 => u * 0.5f32.powi((fan_in.ilog2() / 2) as i32),
        _ if name.ends_with("weight") => 1.0 + u / 2.0,
        _ => u / 4.0,
    };
    Tensor::new(shape, u.into_iter().map(number).collect())
}

/// Numbers in [-1, 1), told by a name.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let start = name
        .bytes()
        .fold(2_166_136_261u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(16_777_619));
    let number = |i: u32| {
        let h = start.wrapping_add(i.wrapping_mul(0x9E37_79B9));
        let h = (h ^ h >> 16).wrapping_mul(0x85EB_CA6B);
        let h = (h ^ h >> 13).wrapping_mul(0xC2B2_AE35);
        ((h ^ h >> 16) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count as u32).map(number).collect()
}
