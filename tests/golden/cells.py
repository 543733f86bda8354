"""One training step of a narrow DARTS, with its head, and one of the network that DARTS searches in, in float.

Both are written here from the paper, with the parameter names of the Rust ones. Numbers, images, labels and
what the file holds are as in mobile.py, but the gradients of the search's `alphas` are there as a whole.
"""

import torch
import torch.nn.functional as F
from torch import nn

import mobile
from mobile import Relu
from network import watch


class MaxPool(nn.MaxPool2d):
    def forward(self, x):
        k, s = 3, self.stride
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=-1e9), k, stride=s)
        top = windows.reshape(len(x), x.shape[1], k * k, -1).topk(2, dim=2).values
        watch.near(top[:, :, 0] - top[:, :, 1], (0,))
        return super().forward(x)


class OpSequence(nn.Module):
    """What the authors' code calls `op`."""

    def __init__(self, *layers):
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x):
        return self.op(x)


class FactorizedReduce(nn.Module):
    def __init__(self, channels, planes, affine=True):
        super().__init__()
        self.relu = Relu()
        self.conv_1 = nn.Conv2d(channels, planes // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(channels, planes // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(planes, affine=affine)

    def forward(self, x):
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], 1))


def relu_conv_bn(channels, planes, affine=True):
    conv = nn.Conv2d(channels, planes, 1, bias=False)
    return OpSequence(Relu(), conv, nn.BatchNorm2d(planes, affine=affine))


def filters(c, k, stride, dilation, affine):
    pad = dilation * (k - 1) // 2
    depthwise = nn.Conv2d(c, c, k, stride, pad, dilation, groups=c, bias=False)
    return [Relu(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c, affine=affine)]


def operation(name, c, stride, affine=True):
    k = int(name[-1]) if name[-1].isdigit() else 0
    if name == "max_pool_3x3":
        return MaxPool(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine)
    if name.startswith("sep"):
        return OpSequence(*filters(c, k, stride, 1, affine), *filters(c, k, 1, 1, affine))
    return OpSequence(*filters(c, k, stride, 2, affine))


def places(layers, c):
    """Channels of the two cells before, of the cell, whether it halves, and whether the one before did."""
    before, last, halved = 3 * c, 3 * c, False
    for i in range(layers):
        halves = i in (layers // 3, 2 * layers // 3)
        c = 2 * c if halves else c
        yield before, last, c, halves, halved
        before, last, halved = last, 4 * c, halves


def preprocess(before, last, c, halved, affine=True):
    make = FactorizedReduce if halved else relu_conv_bn
    return make(before, c, affine), relu_conv_bn(last, c, affine)


class Cell(nn.Module):
    NORMAL = [("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)]
    NORMAL += [("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)]
    REDUCE = [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1)]
    REDUCE += [("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)]

    def __init__(self, before, last, c, halves, halved):
        super().__init__()
        self.preprocess0, self.preprocess1 = preprocess(before, last, c, halved)
        edges = self.REDUCE if halves else self.NORMAL
        self.indices = [j for _, j in edges]
        stride = lambda j: 2 if halves and j < 2 else 1
        self._ops = nn.ModuleList(operation(name, c, stride(j)) for name, j in edges)

    def forward(self, s0, s1):
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for i in range(0, len(self.indices), 2):
            a, b = (self._ops[i + k](states[self.indices[i + k]]) for k in (0, 1))
            states.append(a + b)
        return torch.cat(states[2:], 1)


def stem(c):
    return nn.Sequential(nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c))


class AuxiliaryHead(nn.Module):
    """Of images of 4x4 pixels, of which a pool leaves 2x2."""

    def __init__(self, channels, classes):
        super().__init__()
        self.features = nn.Sequential(
            Relu(),
            nn.AvgPool2d(3, 1),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            Relu(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            Relu(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Darts(nn.Module):
    """Four cells, the second and the third of which halve the images."""

    CLASSES = 6
    BATCH = (4, 3, 16, 16)
    C, LAYERS = 8, 4

    def __init__(self):
        super().__init__()
        self.stem = stem(self.C)
        self.cells = nn.ModuleList(Cell(*place) for place in places(self.LAYERS, self.C))
        self.auxiliary_head = AuxiliaryHead(4 * 4 * self.C, self.CLASSES)
        self.classifier = nn.Linear(4 * 4 * self.C, self.CLASSES)

    def forward(self, x):
        s0 = s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if i == 2 * self.LAYERS // 3:
                self.aside = self.auxiliary_head(s1)
        return self.classifier(s1.mean((2, 3)))

    def loss(self, logits, labels):
        return F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(self.aside, labels)


class MixedOp(nn.Module):
    """All operations but `none`, which adds nothing, each by its weight."""

    NAMES = ["max_pool_3x3", "avg_pool_3x3", "skip_connect"]
    NAMES += ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]

    def __init__(self, c, stride):
        super().__init__()
        self._ops = nn.ModuleList()
        for name in self.NAMES:
            op = operation(name, c, stride, False)
            if "pool" in name:
                op = nn.Sequential(op, nn.BatchNorm2d(c, affine=False))
            self._ops.append(op)

    def forward(self, x, weights):
        return sum(w * op(x) for w, op in zip(weights[1:], self._ops))


class SearchCell(nn.Module):
    def __init__(self, before, last, c, halves, halved):
        super().__init__()
        self.halves = halves
        self.preprocess0, self.preprocess1 = preprocess(before, last, c, halved, False)
        stride = lambda j: 2 if halves and j < 2 else 1
        self._ops = nn.ModuleList(MixedOp(c, stride(j)) for i in range(4) for j in range(2 + i))

    def forward(self, s0, s1, weights):
        states, edge = [self.preprocess0(s0), self.preprocess1(s1)], 0
        for i in range(4):
            mixed = [self._ops[edge + j](states[j], weights[edge + j]) for j in range(2 + i)]
            states.append(sum(mixed))
            edge += 2 + i
        return torch.cat(states[2:], 1)


class Supernet(nn.Module):
    """Three cells, the last two of which halve the images."""

    CLASSES = 6
    BATCH = (4, 3, 8, 8)
    C, LAYERS = 4, 3

    def __init__(self):
        super().__init__()
        self.stem = stem(self.C)
        self.cells = nn.ModuleList(SearchCell(*place) for place in places(self.LAYERS, self.C))
        self.classifier = nn.Linear(16 * self.C, self.CLASSES)
        self.alphas = nn.ParameterDict({k: torch.zeros(14, 8) for k in ("normal", "reduce")})

    def forward(self, x):
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            weights = F.softmax(self.alphas["reduce" if cell.halves else "normal"], 1)
            s0, s1 = s1, cell(s0, s1, weights)
        return self.classifier(s1.mean((2, 3)))


def families():
    return [mobile.family("step_darts", Darts()), mobile.family("step_search", Supernet())]
