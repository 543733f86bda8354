"""The verdict of ONNX Runtime on exported networks, kept in `onnx.txt` beside this file.

    python3 -m venv /tmp/onnx && /tmp/onnx/bin/pip install onnx onnxruntime numpy
    cargo build --release
    /tmp/onnx/bin/python tests/golden/onnx_judge.py target/release/dirnet /tmp/runs tests/golden/onnx.txt

trains each network for one epoch on 1,000 images, exports it in both forms, has `cargo test` write what our own
evaluation says of 1,000 test images, and compares. A network passes if

    the file is valid                    onnx.checker, with shapes inferred
    classes are equal                    for at least 99.9 % of the images
    logits are near                      within 1e-4, but for images in which a sign came out otherwise
    those signs had no firm side         the first that differs was taken of a value within 1e-5 of its bound

Runs that are in the folder already are not trained again.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

ARCHS = [
    "mlp(hidden=24)",
    "vgg-small(width=0.1)",
    "vgg16(width=0.05)",
    "resnet20(width=0.5)",
    "resnet20(width=0.5,shortcut=bireal)",
    "resnet18(width=0.2)",
    "mobilenet-v1(width=0.1,depth=0)",
    "mobilenet-v1(width=0.1,depth=0,depthwise=binary)",
    "efficientnet-b0(width=0.1,depth=0.1)",
    "efficientnet-b0(width=0.1,depth=0.1,depthwise=binary)",
    "darts(width=0.1,layers=3)",
    "darts(width=0.1,layers=1,depthwise=binary)",
]
SOME = ["dir-net", "xnor-net", "xnor-net++", "dorefa", "rbnn", "reactnet", "adabin", "ir-net+1w32a"]
ALL = SOME + [
    "fp32", "bnn", "bi-real", "ir-net", "recu", "reste", "fda",
    "xnor-net(variant=code)", "dorefa(variant=code)", "adabin(variant=code)",
    "bnn+32w1a", "dir-net+1w32a", "dorefa+1w32a", "reactnet+1w32a", "adabin+1w32a",
]
ONE = "resnet20(width=0.5,shortcut=bireal)"  # of all methods
CASES = [(arch, method) for arch in ARCHS for method in (ALL if arch == ONE else SOME)]
FORMS = {"function": [], "inline": ["--inline"]}
NEAR_LOGITS, NEAR_BOUND, SAME_CLASSES = 1e-4, 1e-5, 0.999


def made(dirnet, folder, arch, method):
    """A trained run with both files."""
    run = folder / f"{arch} {method}".replace("/", "-")
    if not (run / "model.npz").exists():
        command = [dirnet, "train", "-q", "--data", "fashion-mini", "--arch", arch, "--method", method]
        command += ["--epochs", "1", "--limit-train", "1000", "--limit-test", "100", "--batch", "50"]
        command += ["--set", "distill=off", "--out", run]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for form, flags in FORMS.items():
        subprocess.run([dirnet, "export", "-q", run, "--onnx", run / f"{form}.onnx", *flags], check=True,
                       stdout=subprocess.DEVNULL)
    return run


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def first_signs(model, images, run, which, count):
    """How far from its bound each of the signs was that differ first, of the images `which`."""
    graph = model.graph
    signs = [node for node in graph.node if node.op_type == "GreaterOrEqual"]
    fixed = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    known = {output.name for output in graph.output}
    for node in signs:
        for name in (node.input[0], node.output[0]):
            if name not in known and name != "images":
                graph.output.append(onnx.ValueInfoProto(name=name))
                known.add(name)
    names = [output.name for output in graph.output]
    found = dict(zip(names, session(model.SerializeToString()).run(None, {"images": images[which]})))
    found["images"] = images[which]
    bits = np.unpackbits(np.fromfile(run / "signs.bin", np.uint8), bitorder="little")
    distances = {image: [] for image in which}
    at = 0
    for node in signs:
        theirs = found[node.output[0]]
        size = theirs.size // len(which)
        ours = bits[at : at + size * count].reshape(count, -1)[which].astype(bool)
        theirs = theirs.reshape(len(which), -1)
        far = np.abs(found[node.input[0]] - fixed[node.input[1]]).reshape(len(which), -1)
        for row, image in enumerate(which):
            differ = ours[row] != theirs[row]
            if differ.any() and not distances[image]:
                distances[image] = [far[row][differ].max()]
        at += size * count
    return [d[0] if d else np.inf for d in distances.values()]


def judged(run, form):
    """Share of equal classes, largest difference of logits, images beyond, how near their first signs."""
    path = run / f"{form}.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    ours = np.load(run / "ours.npz")
    images, expected = ours["images"], ours["logits"]
    found = session(path).run(["logits"], {"images": images})[0]
    single = session(path).run(["logits"], {"images": images[:1]})[0]
    assert single.shape == (1, found.shape[1]), "any number of images"
    differ = np.abs(found - expected).max(1)
    beyond = np.flatnonzero(~(differ <= NEAR_LOGITS))
    distances = first_signs(model, images, run, beyond, len(images)) if len(beyond) else []
    same = float((found.argmax(1) == expected.argmax(1)).mean())
    rest = np.delete(differ, beyond)
    return same, float(rest.max(initial=0)), len(beyond), float(max(distances, default=0))


def bits_per_weight(run):
    """Bytes of the binary weights' arrays, over an eighth of a byte for each weight."""
    model = onnx.load(run / "function.onnx")
    arrays = {array.name: array for array in model.graph.initializer}
    size = weights = 0
    for node in model.graph.node:
        if node.op_type == "UnpackBits":
            weights += int(np.prod(node.attribute[0].ints))
            size += len(arrays[node.input[0]].raw_data)
            levels = {f"{node.input[0]}.low", f"{node.input[0]}.high"} & arrays.keys()
            size += sum(len(arrays[name].raw_data) for name in levels)
    return 8 * size / weights if weights else 0.0


def main():
    dirnet, folder, verdict = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    runs = [made(dirnet, folder, *case) for case in CASES]
    command = ["cargo", "test", "--release", "--test", "onnx", "what_this_side_computes", "--", "--ignored"]
    subprocess.run(command, check=True, env={**os.environ, "ONNX_RUNS": str(folder)})
    version = subprocess.run([dirnet, "--version"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"{version}, onnx {onnx.__version__}, onnxruntime {ort.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}; 1,000 images a network",
        "",
        "same     images given the same class, in %",
        "logits   largest difference, but for the images beyond",
        "beyond   images with a difference above 1e-4, because a sign came out otherwise",
        "sign     how far from its bound the farthest of the first such signs was",
        "bytes    binary weights with their levels, over an eighth of a byte a weight",
        "",
        f"{'network':<66} {'form':<9} {'same':>6} {'logits':>8} {'beyond':>7} {'sign':>8} {'bytes':>6}",
    ]
    failed = []
    for (arch, method), run in zip(CASES, runs):
        for form in FORMS:
            same, logits, beyond, sign = judged(run, form)
            name = f"{arch} {method}"
            lines.append(f"{name:<66} {form:<9} {100 * same:6.2f} {logits:8.1e} {beyond:7} {sign:8.1e} "
                         f"{bits_per_weight(run):6.3f}")
            print(lines[-1], flush=True)
            if same < SAME_CLASSES or sign > NEAR_BOUND:
                failed.append(f"{name} {form}")
    lines += ["", f"{len(CASES)} networks in {len(FORMS)} forms, {len(failed)} failed" + "".join(f"\n{f}" for f in failed)]
    verdict.write_text("\n".join(lines) + "\n")
    print(lines[-1])
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
