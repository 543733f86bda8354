"""Files of weights as Python writes them, and the names of torchvision's parameters.

`weights.safetensors` and `weights.npz` hold, for each type T of floats, two arrays of the same numbers,

    T.stored    in the type itself: float16, bfloat16 (safetensors only), float32, float64
    T.float     in float32, as PyTorch or NumPy converts them

and `bn1.num_batches_tracked`, an integer that every state dict with batch norms has. Among the numbers are both
zeros, the smallest and the largest ones of each type, and ties of the rounding from 64 bits to 32.

`torchvision.txt` has a line an array of the state dict of each model: model, name, sizes.
"""

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

from cases import stream

SHAPE = (4, 6)
# Zeros, the smallest number, the largest below the normal ones, the smallest of those, the largest, about a third.
F16 = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3555]
BF16 = [0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x7F7F, 0xFF7F, 0x3EAB]
F32 = [0.0, -0.0, 2.0**-149, 2.0**-126, 3.4028234663852886e38, 1 / 3]
F64 = [
    *[0.0, -0.0, 0.1, -1 / 3, 3.4028235677973362e38],
    *[1 + 2.0**-24, 1 + 3 * 2.0**-24, 1 + 2.0**-24 + 2.0**-50],  # a tie to even, another one, just above
    *[2.0**-149, 2.0**-150, 1.5 * 2.0**-149, 1e-60],
]


def bits(key, chosen, infinity):
    """Chosen patterns of 16 bits and drawn ones, none of them infinite or no number."""
    drawn = stream("weights", key).integers(0, infinity, 24 - len(chosen))
    return np.array([*chosen, *drawn], np.uint16).reshape(SHAPE)


def numbers(key, chosen, dtype):
    drawn = stream("weights", key).standard_normal(24 - len(chosen))
    return np.array([*chosen, *drawn], dtype).reshape(SHAPE)


def write(folder):
    bf16 = torch.from_numpy(bits("bf16", BF16, 0x7F80).view(np.int16)).view(torch.bfloat16)
    arrays = {
        "f16": bits("f16", F16, 0x7C00).view(np.float16),
        "f32": numbers("f32", F32, np.float32),
        "f64": numbers("f64", F64, np.float64),
    }
    tracked = {"bn1.num_batches_tracked": np.int64(1234)}
    tensors = {key: torch.from_numpy(x) for key, x in arrays.items()} | {"bf16": bf16}
    both = lambda all, to: {f"{k}.stored": x for k, x in all.items()} | {f"{k}.float": to(x) for k, x in all.items()}
    tensors = both(tensors, lambda x: x.to(torch.float32, copy=True))
    arrays = both(arrays, lambda x: x.astype(np.float32))
    for name, x in tensors.items():
        assert torch.isfinite(x).all(), name
        if name in arrays:
            assert x.numpy().tobytes() == arrays[name].tobytes(), f"{name}: PyTorch and NumPy differ"
    tensors |= {name: torch.tensor(int(x)) for name, x in tracked.items()}
    save_file(tensors, folder / "weights.safetensors", metadata={"format": "pt"})
    np.savez_compressed(folder / "weights.npz", **arrays, **tracked)

    lines = []
    for model in ("resnet18", "resnet34"):
        for name, x in getattr(torchvision.models, model)(weights=None).state_dict().items():
            lines.append(" ".join([model, name, *map(str, x.shape)]))
    (folder / "torchvision.txt").write_text("\n".join(lines) + "\n")
    return ["", "weights.safetensors, weights.npz", f"  {' '.join(tensors)}", "", f"torchvision.txt: torchvision {torchvision.__version__}"]
