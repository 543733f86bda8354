"""One training step of a narrow MobileNet-V1, in float.

The network is written here from its paper, in plain PyTorch, with the parameter names of the Rust one.
Nothing random comes from a generator: number `i` of the array NAME is

    h = fnv1a(NAME) + i * 0x9E3779B9                     (all of it modulo 2^32)
    h = (h ^ h >> 16) * 0x85EBCA6B, h = (h ^ h >> 13) * 0xC2B2AE35, h = h ^ h >> 16
    u = (h >> 8) / 2^23 - 1                              in [-1, 1), exact in float32

where NAME is followed by the seed, as in `features.0.0.weight/3`, and fnv1a takes its bytes one by one,
h = (h ^ byte) * 16777619, beginning with 2166136261. Then come

    filters and dense weights      u * 2^-floor(log2(fan-in) / 2)
    weights of a batch norm        1 + u / 2
    all other parameters           u / 4
    the images, `x`                2 * u

Labels are `i mod classes`. The covector of a gradient, `cov/NAME`, is 1 where its u >= 0, else -1.

The file holds `args` (the seed), `logits`, `loss`, and for each parameter `grad/NAME`: the length of its
gradient, and the gradient's product with the covector.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cases import Family
from network import watch

# What float32 may be off by in these networks is less.
MARGIN = 1e-5


def fnv1a(name):
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h


def uniform(name, count):
    h = (fnv1a(name) + np.arange(count, dtype=np.uint64) * 0x9E3779B9) & 0xFFFFFFFF
    h = ((h ^ h >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ h >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    h = h ^ h >> 16
    return (h >> 8).astype(np.float64) / 2**23 - 1


def numbers(name, shape, seed):
    """The array of that name and shape."""
    u = uniform(f"{name}/{seed}", math.prod(shape)).reshape(shape)
    if name == "x":
        u = 2 * u
    elif len(shape) > 1:
        u = u * 2.0 ** -math.floor(math.log2(math.prod(shape[1:])) / 2)
    elif name.endswith("1.weight"):
        u = 1 + u / 2
    else:
        u = u / 4
    return torch.tensor(u)


def relu(x):
    watch.near(x, (0,))
    return F.relu(x)


class Activation(nn.Module):
    def forward(self, x):
        return relu(x)


def unit(channels, planes, k, stride, groups=1):
    """Convolution, batch norm, activation."""
    conv = nn.Conv2d(channels, planes, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(planes), Activation())


class MobileNetV1(nn.Module):
    """Table 1 with two channels for each 32, two blocks in the place of five that repeat, and strides for
    images of 16 pixels: only the last two stay."""

    CLASSES = 6
    BATCH = (4, 3, 16, 16)

    def __init__(self):
        super().__init__()
        blocks = [
            (8, 8, 1),
            (8, 8, 1),
            (8, 8, 1),
            (8, 16, 1),
            (16, 16, 1),
            (16, 32, 2),
            (32, 32, 1),
            (32, 32, 1),
            (32, 64, 2),
            (64, 64, 1),
        ]
        block = lambda i, o, s: nn.Sequential(unit(i, i, 3, s, groups=i), unit(i, o, 1, 1))
        self.features = nn.Sequential(unit(3, 8, 3, 1), *[block(*b) for b in blocks])
        self.classifier = nn.Linear(64, self.CLASSES)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def fill(net, seed):
    for name, value in net.named_parameters():
        value.data.copy_(numbers(name, value.shape, seed))
    return numbers("x", net.BATCH, seed)


def family(name, net):
    """One step from the first seed with no number nearer than MARGIN to where a slope breaks."""
    f = Family(name)
    net = net.double().train()
    for seed in range(100_000):
        x = fill(net, seed)
        watch.nearest = math.inf
        with torch.no_grad():
            net(x)
        if watch.nearest >= MARGIN:
            break
    else:
        raise AssertionError(f"{name}: no seed found")
    print(f"{name}: seed {seed}")
    f.arrays["args"] = np.array([float(seed)])
    f.notes["args"] = "seed"
    logits = net(x)
    loss = F.cross_entropy(logits, torch.arange(net.BATCH[0]) % net.CLASSES)
    loss.backward()
    f.arrays["logits"] = logits.detach().numpy().astype(np.float32)
    f.arrays["loss"] = loss.detach().numpy().astype(np.float32)
    for key, value in net.named_parameters():
        g = value.grad.numpy().ravel()
        signs = np.where(uniform(f"cov/{key}/{seed}", g.size) >= 0, 1.0, -1.0)
        f.arrays[f"grad/{key}"] = np.array([np.linalg.norm(g), g @ signs], np.float32)
    return f


def families():
    return [family("step_mobilenet_v1", MobileNetV1())]
