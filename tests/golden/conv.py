"""Convolutions, pools and batch norm over `N C H W`."""

import torch
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
    """Training: also `mean` and `var` of the batch (var divided by n, as y uses it) and the running
    statistics afterwards, whose variance is divided by n - 1:

        running <- (1 - momentum) running + momentum batch

    Evaluating: y from the running statistics.
    """
    c = shape[1]
    inputs = dict(
        x=f.normal(case + "/x", shape, scale=1.5) + f.normal(case + "/shift", (c,) + (1,) * (len(shape) - 2)),
        weight=f.uniform(case + "/weight", (c,), 0.5, 1.5),
        bias=f.normal(case + "/bias", (c,)),
        running_mean=f.normal(case + "/running_mean", (c,)),
        running_var=f.uniform(case + "/running_var", (c,), 0.5, 2.0),
    )
    running = ("running_mean", "running_var")
    args = dict(eps=1e-5, momentum=0.1)

    def training(x, weight, bias, running_mean, running_var):
        mean, var = running_mean.clone(), running_var.clone()
        y = F.batch_norm(x, mean, var, weight, bias, True, args["momentum"], args["eps"])
        axes = [0] + list(range(2, x.ndim))
        more = dict(mean=x.mean(axes), var=x.var(axes, unbiased=False))
        return y, more | dict(after_running_mean=mean, after_running_var=var)

    def evaluating(x, weight, bias, running_mean, running_var):
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, args["eps"])

    f.case(case + "_training", training, inputs, args, constant=running)
    f.case(case + "_evaluating", evaluating, inputs, args, constant=running)
