"""Convolutions, pools and batch norm over `N C H W`."""

import torch.nn.functional as F

from cases import Family


def family():
    f = Family("conv")
    convolutions(f)
    pools(f)
    for case, shape in {"batch_norm": (3, 4, 5, 6), "batch_norm_dense": (7, 5)}.items():
        batch_norm(f, case, shape)
    return f


def convolutions(f):
    #        case              x               w             stride padding dilation groups
    table = [
        ("same", (2, 3, 7, 6), (4, 3, 3, 3), 1, 1, 1, 1),
        ("valid", (2, 3, 6, 9), (5, 3, 3, 3), 1, 0, 1, 1),
        ("stride2", (2, 3, 8, 8), (4, 3, 3, 3), 2, 1, 1, 1),
        ("stride2_odd", (2, 3, 7, 9), (4, 3, 3, 3), 2, 1, 1, 1),
        ("dilation2", (2, 2, 9, 8), (3, 2, 3, 3), 1, 2, 2, 1),
        ("groups2", (2, 4, 6, 5), (6, 2, 3, 3), 1, 1, 1, 2),
        ("depthwise", (2, 5, 6, 7), (5, 1, 3, 3), 1, 1, 1, 5),
        ("depthwise_stride2", (2, 5, 7, 8), (5, 1, 3, 3), 2, 1, 1, 5),
        ("depthwise5", (1, 4, 8, 7), (4, 1, 5, 5), 1, 2, 1, 4),
        ("depthwise_dilation2", (1, 4, 8, 7), (4, 1, 3, 3), 1, 2, 2, 4),
        ("1x1", (2, 5, 4, 6), (7, 5, 1, 1), 1, 0, 1, 1),
        ("1x1_stride2", (2, 5, 5, 6), (7, 5, 1, 1), 2, 0, 1, 1),
        ("7x7_stride2", (1, 3, 17, 16), (4, 3, 7, 7), 2, 3, 1, 1),
        ("1x3", (2, 3, 5, 6), (4, 3, 1, 3), 1, 0, 1, 1),
        ("wide", (1, 20, 6, 6), (18, 20, 3, 3), 1, 1, 1, 1),
    ]
    for name, x, w, *how in table:
        case = f"conv2d_{name}"
        x, w = f.normal(case + "/x", x), f.normal(case + "/w", w)
        args = dict(zip(("stride", "padding", "dilation", "groups"), how))
        f.case(case, lambda x, w: F.conv2d(x, w, None, **args), dict(x=x, w=w), args)


def pools(f):
    """Windows of size `size`; an average counts its padding as zeros."""
    for name, shape, size, stride, padding in [
        ("2x2", (2, 3, 6, 8), 2, 2, 0),
        ("3x3_stride2", (2, 3, 7, 8), 3, 2, 1),
        ("3x3_stride1", (2, 2, 5, 4), 3, 1, 1),
    ]:
        args = dict(size=size, stride=stride, padding=padding)
        x = f.normal(f"pool_{name}", shape)
        f.case(f"max_pool2d_{name}", lambda x: F.max_pool2d(x, size, stride, padding), dict(x=x), args)
        f.case(
            f"avg_pool2d_{name}",
            lambda x: F.avg_pool2d(x, size, stride, padding, count_include_pad=True),
            dict(x=x),
            args,
        )
    x = f.normal("global_avg_pool", (2, 3, 4, 5))
    f.case("global_avg_pool", lambda x: x.mean((2, 3)), dict(x=x))


def batch_norm(f, case, shape):
    """Training: by the moments of the batch, `mean` and `var` (divided by n). Evaluating: by given ones.

    What happens to the running statistics is a matter of the layer, and stands in layers.py.
    """
    c = shape[1]
    args = dict(eps=1e-5)
    affine = dict(
        weight=f.uniform(case + "/weight", (c,), 0.5, 1.5),
        bias=f.normal(case + "/bias", (c,)),
    )
    shift = f.normal(case + "/shift", (c,) + (1,) * (len(shape) - 2))
    x = f.normal(case + "/x", shape, scale=1.5) + shift

    def training(x, weight, bias):
        axes = [0] + list(range(2, x.ndim))
        more = dict(mean=x.mean(axes), var=x.var(axes, unbiased=False))
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, args["eps"]), more

    def evaluating(x, mean, var, weight, bias):
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, args["eps"])

    given = dict(
        mean=f.normal(case + "/mean", (c,)),
        var=f.uniform(case + "/var", (c,), 0.5, 2.0),
    )
    f.case(case + "_training", training, dict(x=x) | affine, args)
    f.case(case + "_evaluating", evaluating, dict(x=x) | given | affine, args, constant=tuple(given))
