#!/usr/bin/env python3
"""One training step here and in PyTorch, side by side on one machine.

    cargo build --release
    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch
    /tmp/torch/bin/python benches/pytorch_step.py --threads 1

It builds the networks of src/models in plain PyTorch, layer by layer in the same order, and times one
step: forward, cross entropy, backward, SGD with momentum 0.9 and weight decay 1e-4, on made-up images.
PyTorch runs in several variants, of which the quickest counts:

    plain                   as it comes
    channels_last           images and filters stored pixel by pixel
    compile                 the forward pass and its loss through torch.compile (needs a C++ compiler;
                            the first steps take minutes)
    compile_channels_last   both

Then `dirnet bench train` times the same network with as many threads, and all take turns, round after
round, so that a machine that slows down slows down all of them. A median over all rounds counts. Run it
on a machine that does nothing else.

Two methods are compared. In `fp32` all is float. In `ir-net` hidden convolutions have one-bit weights and
activations (Qin et al., 2020, arXiv 1909.10788): weights standardised by output channel, their signs times
a power of two, and for the sign's derivative EDE's k·t·(1 - tanh²(t·x)) half way through training, where
k = t = 1. PyTorch computes it with floats of ±1, as such networks are commonly trained; zeros keep the
sign 0 there, which no timing sees.

Memory allocation matters to PyTorch: --tcmalloc PATH runs it with that library preloaded (on Debian,
libtcmalloc-minimal4, /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4), by starting the script again.
The command runs without it.

A table and then one JSON object a network and method are printed to stdout; with --json only the latter:
net, method, batch, threads, torch (version), tcmalloc, torch_ms (by variant), torch_best, torch_best_ms,
dirnet_ms, ratio (PyTorch's best over ours). Networks that the command does not know or has other numbers of
parameters for, and variants that PyTorch cannot run here, are named on stderr and left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NETS = ["resnet20", "vgg-small", "resnet18"]
METHODS = ["fp32", "ir-net"]
VARIANTS = ["plain", "channels_last", "compile", "compile_channels_last"]
IMAGE = (3, 32, 32)
CLASSES = 10


def arguments():
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--batch", type=int, default=128, help="images a step (default 128)")
    parser.add_argument("--threads", type=int, default=1, help="of either side (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of everybody (default 3)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps a turn (default 10)")
    parser.add_argument("--dirnet", default=ROOT / "target/release/dirnet", help="the command")
    parser.add_argument("--tcmalloc", metavar="PATH", help="preload this library for PyTorch")
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    args = parser.parse_args()
    if min(args.batch, args.threads, args.rounds, args.steps) < 1:
        parser.error("--batch, --threads, --rounds and --steps are at least 1")
    if not os.access(args.dirnet, os.X_OK):
        parser.error(f"--dirnet {args.dirnet}: no such program; run cargo build --release")
    if args.tcmalloc and not Path(args.tcmalloc).is_file():
        parser.error(f"--tcmalloc {args.tcmalloc}: no such file")
    return args


def note(text):
    print(text, file=sys.stderr, flush=True)


ARGS = arguments()
if ARGS.tcmalloc and os.environ.get("LD_PRELOAD") != ARGS.tcmalloc:
    # A library is preloaded when a process starts, so the process starts again.
    os.environ["LD_PRELOAD"] = ARGS.tcmalloc
    os.execv(sys.executable, [sys.executable, *sys.argv])
os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    sys.exit(f"error: {sys.executable}: {error}; this needs PyTorch, pip install torch")


class Sign(torch.autograd.Function):
    """The sign; backward, the slope of tanh, which is EDE at k = t = 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * (1 - x.tanh().square())


class BinaryConv(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        std, mean = torch.std_mean(w, dim=(1, 2, 3), keepdim=True)
        w = (w - mean) / std
        size = w.detach().abs().mean(dim=(1, 2, 3), keepdim=True)
        signs = Sign.apply(w) * size.log2().round().exp2()
        return F.conv2d(Sign.apply(x), signs, None, self.stride, self.padding)


def hidden(method, channels, to, stride=1):
    kind = nn.Conv2d if method == "fp32" else BinaryConv
    return kind(channels, to, 3, stride, 1, bias=False)


def activation(method):
    return nn.ReLU() if method == "fp32" else nn.Hardtanh()


class WidenWithZeros(nn.Module):
    """Every second pixel, and channels of zeros on both sides: option A of He et al., 2015."""

    def __init__(self, channels, to):
        super().__init__()
        self.before = (to - channels) // 2
        self.after = to - channels - self.before

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class WidenByConv(nn.Sequential):
    """A float 1x1 convolution with stride 2 and a batch norm: option B."""

    def __init__(self, channels, to):
        super().__init__(nn.Conv2d(channels, to, 1, 2, bias=False), nn.BatchNorm2d(to))


class Block(nn.Module):
    def __init__(self, method, channels, to, widen):
        super().__init__()
        self.conv1 = hidden(method, channels, to, 1 if channels == to else 2)
        self.bn1 = nn.BatchNorm2d(to)
        self.conv2 = hidden(method, to, to)
        self.bn2 = nn.BatchNorm2d(to)
        self.around = nn.Identity() if channels == to else widen(channels, to)
        self.act = activation(method)

    def forward(self, x):
        y = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(y)) + self.around(x))


class ResNet(nn.Module):
    """Of basic blocks, for small images: a 3x3 stem at stride 1, no pool before the last."""

    def __init__(self, method, widths, depth, widen):
        super().__init__()
        channels = widths[0]
        stem = nn.Conv2d(IMAGE[0], channels, 3, 1, 1, bias=False)
        layers = [stem, nn.BatchNorm2d(channels), activation(method)]
        for to in widths:
            for _ in range(depth):
                layers.append(Block(method, channels, to, widen))
                channels = to
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


def vgg_small(method):
    """Convolution, pool behind every second one, batch norm, activation."""
    layers, channels = [], IMAGE[0]
    for i, to in enumerate([128, 128, 256, 256, 512, 512]):
        layers.append(hidden("fp32" if i == 0 else method, channels, to))
        if i % 2 == 1:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(to), activation(method)]
        channels = to
    pixels = (IMAGE[1] // 8) * (IMAGE[2] // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * pixels, CLASSES))


def network(name, method):
    if name == "resnet20":
        return ResNet(method, [16, 32, 64], 3, WidenWithZeros)
    if name == "resnet18":
        return ResNet(method, [64, 128, 256, 512], 2, WidenByConv)
    return vgg_small(method)


def torch_step(name, method, variant):
    """A function that takes one training step."""
    torch.manual_seed(0)
    net = network(name, method).train()
    images = torch.randn(ARGS.batch, *IMAGE)
    labels = torch.arange(ARGS.batch) % CLASSES
    if "channels_last" in variant:
        net = net.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def loss():
        return F.cross_entropy(net(images), labels)

    if "compile" in variant:
        loss = torch.compile(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def milliseconds(step):
    began = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - began)


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def dirnet(*words):
    """What the command says in its last line, as JSON, or why it fails."""
    command = [str(word) for word in (ARGS.dirnet, *words, "--json", "--quiet")]
    clean = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode == 0:
        return json.loads(last_line(done.stdout)), None
    complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return None, next((line for line in complaint if "error:" in line), complaint[-1])


def size():
    return "x".join(map(str, IMAGE))


def why_not(name, method):
    """Why the two sides cannot be compared: the command lacks the network, or has another one."""
    total, complaint = dirnet("summary", "--arch", name, "--method", method, "--input", size())
    if complaint:
        return f"dirnet says: {complaint}"
    ours = total["params_1bit"] + total["params_32bit"]
    theirs = sum(weights.numel() for weights in network(name, method).parameters())
    return None if ours == theirs else f"{ours} parameters in dirnet, {theirs} here"


def dirnet_ms(name, method):
    """The median step of one turn of the command."""
    how = ["--batch", ARGS.batch, "--threads", ARGS.threads, "--steps", ARGS.steps]
    words = ["--arch", name, "--method", method, "--input", size(), *how]
    timed, complaint = dirnet("bench", "train", *words)
    if complaint:
        sys.exit(f"error: dirnet bench train: {complaint}")
    return timed["ms_per_step"]


def compare(name, method):
    """Everybody's times for one network, or `None`."""
    if reason := why_not(name, method):
        note(f"{name} {method}: left out, {reason}")
        return None
    # What was compiled for the network before counts against how often PyTorch compiles anew.
    torch.compiler.reset()
    steps = {}
    for variant in ARGS.variants:
        note(f"{name} {method}: warming up PyTorch, {variant}")
        step = torch_step(name, method, variant)
        try:
            for _ in range(3):
                step()
            steps[variant] = step
        except Exception as error:  # whatever keeps a compiler from working
            note(f"{name} {method}: {variant} left out, PyTorch says: {last_line(str(error))}")
    if not steps:
        return None
    ours, theirs = [], {variant: [] for variant in steps}
    for turn in range(ARGS.rounds):
        note(f"{name} {method}: round {turn + 1} of {ARGS.rounds}")
        for variant, step in steps.items():
            step()
            theirs[variant] += [milliseconds(step) for _ in range(ARGS.steps)]
        ours.append(dirnet_ms(name, method))
    theirs = {variant: statistics.median(times) for variant, times in theirs.items()}
    best, ours = min(theirs, key=theirs.get), statistics.median(ours)
    return {
        "net": name,
        "method": method,
        "batch": ARGS.batch,
        "threads": ARGS.threads,
        "torch": torch.__version__,
        "tcmalloc": bool(ARGS.tcmalloc),
        "torch_ms": {variant: round(ms, 3) for variant, ms in theirs.items()},
        "torch_best": best,
        "torch_best_ms": round(theirs[best], 3),
        "dirnet_ms": round(ours, 3),
        "ratio": round(theirs[best] / ours, 3),
    }


def table(rows):
    head = ["net", "method", *(f"torch {variant}" for variant in ARGS.variants), "dirnet", "ratio"]
    lines = [head]
    for row in rows:
        times = [row["torch_ms"].get(variant) for variant in ARGS.variants] + [row["dirnet_ms"]]
        cells = ["-" if ms is None else f"{ms:.1f} ms" for ms in times]
        lines.append([row["net"], row["method"], *cells, f"{row['ratio']:.2f}"])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def main():
    torch.set_num_threads(ARGS.threads)
    torch.set_flush_denormal(True)
    allocator = " with tcmalloc" if ARGS.tcmalloc else ""
    note(f"PyTorch {torch.__version__}{allocator}, {ARGS.threads} thread(s), batch {ARGS.batch}")
    rows = [compare(name, method) for name in ARGS.nets for method in ARGS.methods]
    rows = [row for row in rows if row is not None]
    if not rows:
        sys.exit("error: nothing could be compared")
    if not ARGS.json:
        print(table(rows), end="\n\n")
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
