"""One training step of a narrow binary ResNet-20 in each of two forms.

    stem    conv1 3x3 (real), bn1, hardtanh
    layerS  three blocks each, S = 1, 2, 3, of 8, 8 and 16 channels; the latter two start with stride 2
    block   normal   hardtanh(bn2(conv2(hardtanh(bn1(conv1(x))))) + shortcut(x))
            bireal   h = hardtanh(bn1(conv1(x)) + shortcut(x)), then hardtanh(bn2(conv2(h)) + h)
    tail    average over the image, fc (real)

conv1 and conv2 of a block are binary: sign of the input, IMB weights with their shift scale, zero
padding, EDE for both. The shortcut of a block that changes the shape takes every second pixel and
adds channels of zeros: half of the missing ones before, the rest behind.

The file holds `init/NAME` (parameters and running statistics), `x`, `labels`, `logits`, `loss`,
`grad/NAME`, and `after/NAME`: parameters after one step of SGD, and the running statistics that the
forward pass leaves. Weight decay is applied to every parameter, as PyTorch does unless told otherwise.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import binarize
from cases import Family
from estimators import Ede, Sign, schedule

WIDTHS = (8, 8, 16)
DEPTH = 3
CLASSES = 10
BATCH = (4, 3, 10, 10)
# EDE at three quarters of the training, where t has passed 1.
EDE = dict(low=0.1, high=10.0, progress=0.75)
SGD = dict(lr=0.1, momentum=0.9, weight_decay=1e-4)
MARGIN = 1e-4


class Watch:
    """The least distance seen between a number and a place where a value jumps or a slope breaks."""

    def __init__(self):
        self.nearest = math.inf

    def near(self, x, points):
        for p in points:
            self.nearest = min(self.nearest, (x.detach() - p).abs().min().item())


watch = Watch()


def hardtanh(x):
    watch.near(x, (-1, 1))
    return F.hardtanh(x)


class BinaryConv2d(nn.Conv2d):
    """Convolution of sign(x) with IMB weights; `estimator` stands in for the slope of both signs."""

    estimator = Ede(schedule(**EDE))

    def forward(self, x):
        y = binarize.standardize(self.weight)
        log, s = binarize.exponent(y)
        watch.near(y, (0,))
        watch.near(x, (0,))
        watch.near((log - s).abs(), (0.5,))
        w = binarize.imb(self.weight, self.estimator)
        return F.conv2d(Sign.apply(x, self.estimator), w, None, self.stride, self.padding)


class Block(nn.Module):
    """Two 3x3 convolutions with their batch norms and one shortcut (normal) or two (bireal)."""

    def __init__(self, channels, planes, stride, form, conv=BinaryConv2d):
        super().__init__()
        self.conv1 = conv(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.extra, self.form = stride, planes - channels, form

    def shortcut(self, x):
        before = self.extra // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.extra - before))

    def forward(self, x):
        h = self.bn1(self.conv1(x))
        if self.form == "bireal":
            h = hardtanh(h + self.shortcut(x))
            return hardtanh(self.bn2(self.conv2(h)) + h)
        return hardtanh(self.bn2(self.conv2(hardtanh(h))) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.conv1 = nn.Conv2d(BATCH[1], WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])

        def stage(channels, planes, stride):
            rest = [Block(planes, planes, 1, form) for _ in range(DEPTH - 1)]
            return nn.Sequential(Block(channels, planes, stride, form), *rest)

        self.layer1 = stage(WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], 2)
        self.fc = nn.Linear(WIDTHS[2], CLASSES)

    def forward(self, x):
        x = hardtanh(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def draw(net, g):
    """Fills the network with float32 numbers; nothing starts at 0 or 1, so that nothing hides there."""
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if value.ndim == 4:
            fan = math.prod(value.shape[1:])
            numbers = math.sqrt(2 / fan) * g.standard_normal(value.shape)
        elif name.endswith("running_var") or "bn" in name and name.endswith("weight"):
            numbers = g.uniform(0.5, 1.5, value.shape)
        else:
            numbers = 0.2 * g.standard_normal(value.shape)
        value.copy_(torch.tensor(numbers.astype(np.float32)))
    return torch.tensor(g.standard_normal(BATCH).astype(np.float32)).double()


def search(form):
    """The first network and batch, by seed, in which no decision is nearer than MARGIN to its border."""
    net = Net(form).double().train()
    for seed in range(100_000):
        g = np.random.default_rng(seed)
        x = draw(net, g)
        state = {k: v.clone() for k, v in net.state_dict().items()}
        watch.nearest = math.inf
        with torch.no_grad():
            net(x)
        net.load_state_dict(state)
        if watch.nearest >= MARGIN:
            return net, x, g.integers(0, CLASSES, BATCH[0]), seed
    raise AssertionError(f"{form}: no seed found")


def family(form):
    f = Family(f"step_{form}")
    net, x, labels, seed = search(form)
    print(f"{f.name}: seed {seed}")

    def keep(key, value, dtype=np.float32):
        f.arrays[key] = value.detach().numpy().astype(dtype).copy()

    def keep_all(folder, values):
        for name, value in values:
            if not name.endswith("num_batches_tracked"):
                keep(f"{folder}/{name}", value)

    keep("x", x)
    keep("labels", torch.tensor(labels), np.int64)
    keep_all("init", net.state_dict().items())
    args = dict(EDE, **SGD)
    f.arrays["args"] = np.array(list(args.values()))
    f.notes["args"] = " ".join(args)
    optimiser = torch.optim.SGD(net.parameters(), **SGD)
    logits = net(x)
    loss = F.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    optimiser.step()
    keep("logits", logits)
    keep("loss", loss)
    keep_all("grad", ((name, p.grad) for name, p in net.named_parameters()))
    keep_all("after", net.state_dict().items())
    return f
