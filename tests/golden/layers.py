"""Layers and residual blocks in full precision, by the parameter names of PyTorch and torchvision."""

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.func import functional_call

from cases import Family
from network import MARGIN, Block, watch


def family():
    f = Family("layers")
    layer(f, "linear", named("fc", nn.Linear(7, 4)), (5, 7))
    how = dict(stride=2, padding=1)
    layer(f, "conv2d", named("conv1", nn.Conv2d(3, 4, 3, bias=False, **how)), (2, 3, 6, 5), how)
    layer(f, "batch_norm", named("bn1", nn.BatchNorm2d(4)), (3, 4, 5, 6))
    layer(f, "batch_norm_dense", named("bn1", nn.BatchNorm1d(5)), (7, 5))
    for form in ("normal", "bireal"):
        for name, channels, planes, stride in [("same", 6, 6, 1), ("down", 4, 8, 2), ("down_odd", 4, 7, 2)]:
            block = Block(channels, planes, stride, form, conv=nn.Conv2d)
            layer(f, f"block_{form}_{name}", block, (2, channels, 6, 6), dict(stride=stride))
    return f


def named(name, module):
    """The module under a name, as if it were part of a network."""
    return nn.Sequential(OrderedDict([(name, module)]))


def layer(f, case, module, shape, args={}):
    """Value, gradients of x and of each parameter, all in training mode.

    Where there is batch norm, also `after.` each running statistic,

        running <- (1 - momentum) running + momentum batch    (a variance divided by n - 1)

    and `evaluated`, the value by the running statistics from before.
    """
    for attempt in range(1000):
        inputs = dict(x=f.normal(f"{case}/{attempt}/x", shape))
        for name, value in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            key = f"{case}/{attempt}/{name}"
            if name.endswith("running_var") or name.startswith("bn") and name.endswith("weight"):
                inputs[name] = f.uniform(key, value.shape, 0.5, 1.5)
            else:
                inputs[name] = f.normal(key, value.shape, scale=0.5)
        if kinks_avoided(module, inputs):
            break
    else:
        raise AssertionError(f"{case}: no draw clear of the kinks")
    running = [name for name in inputs if "running" in name]

    def function(x, *values):
        state = dict(zip(list(inputs)[1:], values))
        state |= {name: state[name].clone() for name in running}
        with torch.no_grad():
            evaluated = functional_call(module.double().eval(), state, (x,))
        y = functional_call(module.double().train(), state, (x,))
        more = {f"after.{name}": state[name] for name in running}
        return y, more | (dict(evaluated=evaluated) if running else {})

    f.case(case, function, inputs, args, constant=running)


def kinks_avoided(module, inputs):
    """Whether every number that enters a hardtanh is clear of +-1."""
    x, *state = [(k, torch.tensor(v, dtype=torch.float64)) for k, v in inputs.items()]
    watch.nearest = math.inf
    with torch.no_grad():
        for mode in (True, False):
            copies = {name: value.clone() for name, value in state}
            functional_call(module.double().train(mode), copies, (x[1],))
    return watch.nearest >= MARGIN
