"""One training step of residual and VGG networks in float: `resnet18` whole, the others narrow.

The networks are written here from their papers, in plain PyTorch, with the parameter names of the Rust ones.
Their numbers, and what is kept of a step, are those of `mobile.py`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mobile import Relu, family

# The numbers before the relus of a whole ResNet-18, or of wide layers, cannot all be far from zero. Where there
# are so many, one near zero decides little.
CROWDED = 1e-6


def conv3(channels, planes, stride=1):
    return nn.Conv2d(channels, planes, 3, stride, 1, bias=False)


class Block(nn.Module):
    """Two convolutions. What goes around them is widened by a 1x1 convolution or, `plain`, by taking every
    second pixel and adding channels of zeros on both sides."""

    def __init__(self, channels, planes, stride, plain):
        super().__init__()
        self.conv1, self.bn1 = conv3(channels, planes, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3(planes, planes), nn.BatchNorm2d(planes)
        self.relu = Relu()
        self.stride, self.extra = stride, planes - channels
        if not plain and (stride > 1 or self.extra):
            widen = nn.Conv2d(channels, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(widen, nn.BatchNorm2d(planes))

    def forward(self, x):
        if hasattr(self, "downsample"):
            around = self.downsample(x)
        else:
            half = self.extra // 2
            around = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.extra - half))
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + around)


class ResNet(nn.Module):
    """For images of less than 64 pixels: a 3x3 stem, no pool."""

    CLASSES = 10
    BATCH = (4, 3, 16, 16)

    def __init__(self, blocks, widths, plain=False):
        super().__init__()
        self.conv1, self.bn1, self.relu = conv3(3, widths[0]), nn.BatchNorm2d(widths[0]), Relu()
        before = widths[0]
        for i, (many, planes) in enumerate(zip(blocks, widths)):
            strides = [2 if i > 0 else 1] + [1] * (many - 1)
            layer = []
            for stride in strides:
                layer.append(Block(before, planes, stride, plain))
                before = planes
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
        self.stages = len(blocks)
        self.fc = nn.Linear(before, self.CLASSES)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class Vgg(nn.Module):
    """Convolution, pool behind some of them, batch norm, relu."""

    CLASSES = 10
    BATCH = (4, 3, 16, 16)

    def __init__(self, widths, pooled, seen):
        super().__init__()
        self.many, self.pooled, self.relu = len(widths), pooled, Relu()
        for i, (channels, planes) in enumerate(zip([3, *widths], widths)):
            setattr(self, f"conv{i}", conv3(channels, planes))
            setattr(self, f"bn{i}", nn.BatchNorm2d(planes))
        self.mean = seen == widths[-1]
        self.fc = nn.Linear(seen, self.CLASSES)

    def forward(self, x):
        for i in range(self.many):
            x = getattr(self, f"conv{i}")(x)
            if i in self.pooled:
                x = F.max_pool2d(x, 2)
            x = self.relu(getattr(self, f"bn{i}")(x))
        return self.fc(x.mean((2, 3)) if self.mean else x.flatten(1))


def families():
    small = [32, 32, 64, 64, 128, 128]
    sixteen = [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64]
    return [
        family("step_resnet18", ResNet([2, 2, 2, 2], [64, 128, 256, 512]), CROWDED),
        family("step_resnet34", ResNet([3, 4, 6, 3], [8, 16, 32, 64])),
        family("step_resnet20", ResNet([3, 3, 3], [8, 16, 32], plain=True)),
        family("step_vgg_small", Vgg(small, {1, 3, 5}, 128 * 2 * 2), CROWDED),
        family("step_vgg16", Vgg(sixteen, {9, 12}, 64), CROWDED),
    ]
