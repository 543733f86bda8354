"""One training step of a narrow MobileNet-V1 and of a narrow EfficientNet-B0, in float.

The networks are written here from their papers, in plain PyTorch, with the parameter names of the Rust
ones. Nothing is dropped by chance.
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
gradient, and the gradient's product with the covector. Both are 0 where a length is less than 1e-6 of that
of all gradients: behind the bias of a linear bottleneck's batch norm comes a convolution with another batch
norm, which takes off again what the bias adds.
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
    elif name.endswith("weight"):
        u = 1 + u / 2
    else:
        u = u / 4
    return torch.tensor(u)


class Relu(nn.Module):
    def forward(self, x):
        watch.near(x, (0,))
        return F.relu(x)


def unit(channels, planes, k, stride, groups=1, activation=Relu):
    """Convolution, batch norm, activation."""
    conv = nn.Conv2d(channels, planes, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(planes), activation())


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


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        gate = self.fc1(x.mean((2, 3), keepdim=True))
        return x * torch.sigmoid(self.fc2(gate * torch.sigmoid(gate)))


class MBConv(nn.Module):
    def __init__(self, channels, planes, expand, k, stride):
        super().__init__()
        inner = channels * expand
        swish = lambda i, o, k, s, g: unit(i, o, k, s, g, nn.SiLU)
        layers = [swish(channels, inner, 1, 1, 1)] if expand > 1 else []
        layers += [swish(inner, inner, k, stride, inner)]
        layers += [SqueezeExcitation(inner, channels // 4)]
        project = nn.Conv2d(inner, planes, 1, bias=False)
        self.block = nn.Sequential(*layers, nn.Sequential(project, nn.BatchNorm2d(planes)))
        self.around = stride == 1 and channels == planes

    def forward(self, x):
        return self.block(x) + x if self.around else self.block(x)


class EfficientNetB0(nn.Module):
    """Table 1 with an eighth of the channels, in multiples of 8, half of the blocks, and strides for images of
    16 pixels: only those of the fourth and the sixth stage stay."""

    CLASSES = 7
    BATCH = (4, 3, 16, 16)

    def __init__(self):
        super().__init__()
        # Channels in and out, expansion, side of the filter, stride, blocks.
        stages = [
            (8, 8, 1, 3, 1, 1),
            (8, 8, 6, 3, 1, 1),
            (8, 8, 6, 5, 1, 1),
            (8, 8, 6, 3, 2, 2),
            (8, 16, 6, 5, 1, 2),
            (16, 24, 6, 5, 2, 2),
            (24, 40, 6, 3, 1, 1),
        ]
        features = [unit(3, 8, 3, 1, activation=nn.SiLU)]
        for i, o, expand, k, stride, many in stages:
            rest = [MBConv(o, o, expand, k, 1) for _ in range(many - 1)]
            features += [nn.Sequential(MBConv(i, o, expand, k, stride), *rest)]
        self.features = nn.Sequential(*features, unit(40, 160, 1, 1, activation=nn.SiLU))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(160, self.CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def fill(net, seed):
    for name, value in net.named_parameters():
        value.data.copy_(numbers(name, value.shape, seed))
    return numbers("x", net.BATCH, seed)


def family(name, net, margin=MARGIN):
    """One step from the first seed with no number nearer than `margin` to where a slope breaks."""
    f = Family(name)
    net = net.double().train()
    for seed in range(100_000):
        x = fill(net, seed)
        watch.nearest = math.inf
        with torch.no_grad():
            net(x)
        if watch.nearest >= margin:
            break
    else:
        raise AssertionError(f"{name}: no seed found")
    print(f"{name}: seed {seed}")
    f.arrays["args"] = np.array([float(seed)])
    f.notes["args"] = "seed"
    logits = net(x)
    labels = torch.arange(net.BATCH[0]) % net.CLASSES
    loss = getattr(net, "loss", F.cross_entropy)(logits, labels)
    loss.backward()
    f.arrays["logits"] = logits.detach().numpy().astype(np.float32)
    f.arrays["loss"] = loss.detach().numpy().astype(np.float32)
    length = math.sqrt(sum(p.grad.square().sum().item() for p in net.parameters()))
    for key, value in net.named_parameters():
        g = value.grad.numpy().ravel()
        g = g * (np.linalg.norm(g) >= 1e-6 * length)
        signs = np.where(uniform(f"cov/{key}/{seed}", g.size) >= 0, 1.0, -1.0)
        whole = key.startswith("alphas")
        g = g if whole else np.array([np.linalg.norm(g), g @ signs])
        f.arrays[f"grad/{key}"] = g.astype(np.float32)
    return f


def families():
    return [
        family("step_mobilenet_v1", MobileNetV1()),
        family("step_efficientnet_b0", EfficientNetB0()),
    ]
