"""A family of cases, and the random numbers they are made of."""

import zlib

import numpy as np
import torch


def stream(*key):
    """The random stream that belongs to this name."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))


def clear_of(values, points, margin):
    """Whether no value lies within `margin` of one of the points."""
    values = np.asarray(values)
    return all(np.abs(values - p).min() >= margin for p in points)


def real(x):
    """A float64 leaf for PyTorch."""
    return torch.tensor(np.asarray(x), dtype=torch.float64)


class Family:
    """The arrays of one file."""

    def __init__(self, name):
        self.name = name
        self.arrays = {}
        self.notes = {}

    def normal(self, key, shape, avoid=(), margin=1e-3, scale=1.0):
        """Standard normal float32 numbers times `scale`, none within `margin` of a point to avoid."""
        return self.draw(key, shape, lambda g, n: scale * g.standard_normal(n), avoid, margin)

    def uniform(self, key, shape, low, high):
        """Float32 numbers between two bounds."""
        return self.draw(key, shape, lambda g, n: g.uniform(low, high, n), (), 0.0)

    def draw(self, key, shape, numbers, avoid, margin):
        """Draws float32 numbers, and draws again those that lie too near a point to avoid."""
        g = stream(self.name, key)
        x = numbers(g, int(np.prod(shape))).astype(np.float32)
        for _ in range(1000):
            near = np.zeros(x.shape, bool)
            for p in avoid:
                near |= np.abs(x.astype(np.float64) - p) < margin
            if not near.any():
                return x.reshape(shape)
            x[near] = numbers(g, int(near.sum())).astype(np.float32)
        raise AssertionError(f"{self.name}/{key}: no draw clear of {avoid}")

    def store(self, case, key, value, dtype=np.float32):
        """Keeps one array of a case."""
        name = f"{case}/{key}"
        assert name not in self.arrays, f"{self.name}: {name} twice"
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        value = np.asarray(value)
        assert np.isfinite(value).all(), f"{self.name}: {name} is not finite"
        self.arrays[name] = np.ascontiguousarray(value.astype(dtype)).reshape(value.shape)

    def args(self, case, **settings):
        """Keeps the settings of a case, and their names for the manifest."""
        self.store(case, "args", [float(v) for v in settings.values()], np.float64)
        self.notes[case] = " ".join(settings)

    def case(self, case, function, inputs, args=None, constant=()):
        """Records value and gradients of `function` at the inputs, given in their order.

        `function` returns y, or y and a dict of further outputs. Inputs that are integers, or named
        in `constant`, get no gradient.
        """
        leaves = {}
        for key, value in inputs.items():
            whole = np.issubdtype(value.dtype, np.integer)
            self.store(case, key, value, np.int64 if whole else np.float32)
            leaves[key] = torch.tensor(value) if whole else real(value)
            leaves[key].requires_grad_(not whole and key not in constant)
        if args:
            self.args(case, **args)
        y = function(*leaves.values())
        y, more = y if isinstance(y, tuple) else (y, {})
        g = stream(self.name, case, "cov")
        # A scalar's covector stays away from zero, where it would hide everything.
        cov = g.standard_normal(tuple(y.shape)) if y.ndim else g.uniform(0.5, 1.5)
        cov = np.asarray(cov, np.float32)
        wanted = [k for k in leaves if leaves[k].requires_grad]
        grads = torch.autograd.grad((y * real(cov)).sum(), [leaves[k] for k in wanted])
        self.store(case, "y", y)
        self.store(case, "cov", cov)
        for key, grad in zip(wanted, grads):
            assert grad.abs().max() > 0, f"{self.name}: {case}/d{key} is zero and judges nothing"
            self.store(case, f"d{key}", grad)
        for key, value in more.items():
            self.store(case, key, value)

    def describe(self):
        """One line a case for the manifest: its arrays with their shapes, then the names of its args."""
        lines = {}
        for name, value in self.arrays.items():
            case, _, key = name.partition("/")
            shape = ",".join(map(str, value.shape))
            lines.setdefault(case, []).append(f"{key}[{shape}]")
        return [
            f"  {case}: {' '.join(arrays)}" + (f"  args: {self.notes[case]}" if case in self.notes else "")
            for case, arrays in lines.items()
        ]
