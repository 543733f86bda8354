"""Elementwise functions, arithmetic, matrix products, reductions and moves of elements."""

import torch
import torch.nn.functional as F

from cases import Family

SHAPES = {"": (3, 5), "_nchw": (2, 3, 4, 5)}


def family():
    f = Family("ops")
    arithmetic(f)
    elementwise(f)
    per_channel(f)
    products(f)
    reductions(f)
    moves(f)
    return f


def arithmetic(f):
    for suffix, shape in SHAPES.items():
        for name, op in [("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("div", torch.div)]:
            case = name + suffix
            a = f.normal(case + "/a", shape)
            b = f.normal(case + "/b", shape, avoid=[0], margin=0.3)  # a divisor
            f.case(case, lambda a, b: op(a, b), dict(a=a, b=b))
        f.case("neg" + suffix, lambda x: -x, dict(x=f.normal("neg" + suffix, shape)))
    # A value used twice: its two gradients are added.
    f.case("mul_self", lambda x: x * x, dict(x=f.normal("mul_self", (3, 5))))
    scalar = [
        ("add_scalar", lambda x: x + 1.7),
        ("sub_scalar", lambda x: x - 1.7),
        ("mul_scalar", lambda x: x * 1.7),
        ("div_scalar", lambda x: x / 1.7),
    ]
    for case, op in scalar:
        f.case(case, op, dict(x=f.normal(case, (3, 5))), dict(scalar=1.7))


def elementwise(f):
    """Kinks are avoided; where a function wants positive numbers it gets them."""
    curves = [
        ("relu", F.relu, [0], {}),
        ("relu6", F.relu6, [0, 6], {}),
        ("hardtanh", F.hardtanh, [-1, 1], {}),
        ("sigmoid", torch.sigmoid, [], {}),
        ("tanh", torch.tanh, [], {}),
        ("swish", F.silu, [], {}),
        ("leaky_relu", lambda x: F.leaky_relu(x, 0.1), [0], dict(slope=0.1)),
        ("exp", torch.exp, [], {}),
        ("square", torch.square, [], {}),
        ("abs", torch.abs, [0], {}),
        ("clamp", lambda x: x.clamp(-0.5, 0.8), [-0.5, 0.8], dict(low=-0.5, high=0.8)),
    ]
    for suffix, shape in SHAPES.items():
        for name, op, kinks, args in curves:
            case = name + suffix
            scale = 4.0 if name == "relu6" else 1.5
            f.case(case, op, dict(x=f.normal(case, shape, avoid=kinks, scale=scale)), args)
        for name, op in [("log", torch.log), ("sqrt", torch.sqrt)]:
            case = name + suffix
            f.case(case, op, dict(x=f.uniform(case, shape, 0.2, 3.0)))


def per_channel(f):
    """One number a channel against a batch of images: `N C H W` with `C`, or with `N C 1 1`."""
    for suffix, shape in {"": (2, 3, 4, 5), "_dense": (4, 6)}.items():
        column = (1, shape[1]) + (1,) * (len(shape) - 2)
        ops = [
            ("bias_channel", lambda x, b: x + b.view(column), "b"),
            ("scale_channel", lambda x, s: x * s.view(column), "s"),
            ("prelu", F.prelu, "a"),
        ]
        for name, op, key in ops:
            case = name + suffix
            x = f.normal(case + "/x", shape, avoid=[0])
            f.case(case, op, {"x": x, key: f.normal(f"{case}/{key}", shape[1:2])})
    # Squeeze and excitation: one gate an image and channel.
    x, gate = f.normal("gate_channel/x", (2, 3, 4, 5)), f.uniform("gate_channel/g", (2, 3, 1, 1), 0, 1)
    f.case("gate_channel", lambda x, g: x * g, dict(x=x, g=gate))


def products(f):
    for suffix, (m, k, n) in {"": (5, 7, 3), "_large": (17, 33, 20)}.items():
        forms = [
            ("matmul", (m, k), (k, n), lambda a, b: a @ b),
            ("matmul_a_transposed", (k, m), (k, n), lambda a, b: a.T @ b),
            ("matmul_b_transposed", (m, k), (n, k), lambda a, b: a @ b.T),
        ]
        for name, a, b, op in forms:
            case = name + suffix
            f.case(case, op, dict(a=f.normal(case + "/a", a), b=f.normal(case + "/b", b)))
        case = "linear" + suffix
        x, w, b = f.normal(case + "/x", (m, k)), f.normal(case + "/w", (n, k)), f.normal(case + "/b", (n,))
        f.case(case, F.linear, dict(x=x, w=w, b=b))


def reductions(f):
    for suffix, shape in SHAPES.items():
        f.case("sum" + suffix, torch.sum, {"x": f.normal("sum" + suffix, shape)})
        f.case("mean" + suffix, torch.mean, {"x": f.normal("mean" + suffix, shape)})
    for suffix, shape in {"": (3, 5), "_wide": (4, 37)}.items():
        # Logits far from zero: a softmax that does not subtract the maximum loses them.
        x = f.normal("softmax" + suffix, shape, scale=3.0) + 80
        f.case("softmax" + suffix, lambda x: F.softmax(x, 1), dict(x=x))
        f.case("log_softmax" + suffix, lambda x: F.log_softmax(x, 1), dict(x=x))


def moves(f):
    image = (2, 4, 5, 6)
    x = f.normal("moves", image)
    f.case("reshape", lambda x: x.reshape(4, 60), dict(x=x))
    f.case("flatten", lambda x: x.flatten(1), dict(x=x))
    parts = {k: f.normal(f"concat/{k}", (2, c, 3, 4)) for k, c in [("a", 2), ("b", 1), ("c", 3)]}
    f.case("concat", lambda a, b, c: torch.cat([a, b, c], 1), parts)
    f.case("narrow", lambda x: x.narrow(1, 1, 2), dict(x=x), dict(start=1, length=2))
    f.case("pad_channels", lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), dict(x=x), dict(before=1, behind=2))
    f.case("subsample", lambda x: x[:, :, ::2, ::2], dict(x=x), dict(stride=2))
    odd = f.normal("subsample_odd", (2, 3, 7, 5))
    f.case("subsample_odd", lambda x: x[:, :, ::2, ::2], dict(x=odd), dict(stride=2))
    f.case("transpose", lambda x: x.T, dict(x=f.normal("transpose", (3, 5))))
