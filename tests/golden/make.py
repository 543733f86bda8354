"""Golden values: what PyTorch in float64 says about every operation, layer, loss and optimiser.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch torchvision numpy safetensors
    /tmp/torch/bin/python tests/golden/make.py

writes one `.npz` a family beside this file, and `MANIFEST.txt`: the versions that made them and
every array with its shape. The Rust tests read the files and need no Python; this script runs again
only when a case is added. It is deterministic: each array has a random stream of its own, named
after its case, so that a rerun gives the same bytes and a new case leaves the others alone.

How to read a file. A case `conv2d_stride2` is a folder of arrays:

    x, w, ...     the inputs, drawn in float32 and computed with in float64
    args          settings (float64), in the order that MANIFEST.txt names
    y             the value
    cov           a random covector of the shape of y
    dx, dw, ...   the gradient of sum(y * cov) with respect to each input

Values and gradients are rounded to float32 at the end. Integer arrays are labels. Whatever else a
case holds (batch statistics, a fitted t, a table of learning rates) is described where it is made:

    ops.py         elementwise, arithmetic, matrix products, reductions, shapes
    conv.py        convolutions, pools, batch norm
    losses.py      cross entropy, squared errors, divergence
    estimators.py  the stand-ins for the slope of sign, and how DTE fits t to a tensor
    binarize.py    weight standardisation, scales, binary convolution and dense products
    methods.py     what each method makes of weights, activations and their product
    optim.py       update rules, schedules, clipping
    layers.py      layers and residual blocks by their parameter names
    network.py     one whole training step of a small binary residual network, twice
    classic.py     a training step of residual and VGG networks in float
    mobile.py      one whole training step of two narrow mobile networks in float
    weights.py     files of weights in themselves, and the names that torchvision gives to its own
    cells.py       the same of a narrow DARTS, and of the network that it is searched in

Where a value jumps or a slope breaks (sign at 0, hardtanh at +-1), float32 and float64 may land on
two sides. Every case keeps its numbers clear of such places, and the script asserts it.
"""

import platform
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the folder holds sources and arrays only

import numpy as np
import torch

import binarize
import cells
import classic
import conv
import estimators
import layers
import losses
import methods
import mobile
import network
import ops
import optim
import weights

HERE = Path(__file__).parent


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    families = [
        ops.family(),
        conv.family(),
        losses.family(),
        estimators.family(),
        binarize.family(),
        methods.family(),
        optim.family(),
        layers.family(),
        network.family("normal"),
        network.family("bireal"),
        *mobile.families(),
        *classic.families(),
        *cells.families(),
    ]
    manifest = [
        f"made by python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    ]
    total = 0
    for family in families:
        path = HERE / f"{family.name}.npz"
        np.savez_compressed(path, **family.arrays)
        total += path.stat().st_size
        manifest += ["", path.name] + family.describe()
    manifest += weights.write(HERE)
    (HERE / "MANIFEST.txt").write_text("\n".join(manifest) + "\n")
    print(f"{sum(len(f.arrays) for f in families)} arrays, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
