"""What each method makes of weights and of activations, and what flows back.

`weights_METHOD` goes from latent weights `w` to binary weights y, `inputs_METHOD` from activations
`x` to binary activations y, `product_METHOD` from both to the output of a layer. Learned numbers are
inputs of their own, named as in the library.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from cases import Family, clear_of, stream
from binarize import imb, latent, standardize
from estimators import ApproxSign, Clipped, Ede, Fourier, Identity, Power, Rbnn, Sign
from estimators import fit_relative, schedule

PROGRESS = 0.25
SHAPES = {"": (4, 3, 3, 3), "_dense": (5, 16)}
IMAGES = {"": (3, 4, 5, 6), "_dense": (6, 20)}
PRODUCTS = {"": ((2, 3, 5, 6), (4, 3, 3, 3)), "_tall": ((1, 4, 7, 4), (5, 4, 3, 3))}


def per_filter(v, w):
    """One number a filter, to be broadcast."""
    return v.view((-1,) + (1,) * (w.ndim - 1))


def mean(w):
    return per_filter(w.flatten(1).mean(1), w)


def deviation(w):
    return per_filter(w.flatten(1).std(1), w)


def size(w):
    return per_filter(w.abs().flatten(1).mean(1), w)


def ede():
    return Ede(0.1 * 100**PROGRESS)


def dte(v):
    """EDE's t, which no share of these numbers would keep lower at this progress."""
    t = schedule(0.1, 10, PROGRESS)
    assert t < fit_relative(float(v.detach().abs().max()), 0.1), "the bound would decide"
    return Ede(t)


class PaperScale(torch.autograd.Function):
    """m sign(w) with the gradient that XNOR-Net's paper states: (1/n + m 1[|w| <= 1]) dq."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return size(w) * torch.where(w < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx, dq):
        (w,) = ctx.saved_tensors
        return dq * (1 / w[0].numel() + size(w) * (w.abs() <= 1))


class OneBit(torch.autograd.Function):
    """round(clamp(x, 0, 1)), straight through the round."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(0, 1).round()

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * ((x >= 0) & (x <= 1))


def recu(w, scale):
    """Centred, over std/(2 sqrt 2), clamped to +-Q; identity behind the sign; a learned scale."""
    a = 0.14 / (math.e - 1)
    tau = a * math.exp(PROGRESS) + 0.85 - a
    v = w - mean(w)
    v = v / (deviation(v) / (2 * math.sqrt(2)))
    q = float(-v.detach().abs().mean() * math.log(2 - 2 * tau))
    return Sign.apply(v.clamp(-q, q), Identity()) * per_filter(scale, w)


def adabin(w):
    """By the deviation of the weights themselves: the sum of squares over n, not n - 1."""
    m = mean(w)
    s = per_filter(w.flatten(1).std(1, correction=0), w)
    return s * Sign.apply((w - m) / s, ede()) + m


def sides(n):
    a = max(a for a in range(1, math.isqrt(n) + 1) if n % a == 0)
    return a, n // a


def rotation(case, n):
    """A random orthogonal matrix, rounded to float32."""
    return np.linalg.qr(stream("methods", case).standard_normal((n, n)))[0].astype(np.float32)


def rbnn(w, scale, theta, r1, r2, fitted_at):
    """Standardised, moved by |sin theta| towards the rotated weights, which are a constant."""
    y = (w - mean(w)) / deviation(w)
    turned = r1.T @ y.reshape(-1, *sides(w[0].numel())) @ r2
    moved = y + per_filter(theta.sin().abs(), w) * (turned.reshape(w.shape).detach() - y)
    assert clear_of(moved.detach().numpy(), (0,), 1e-4), "a rotated weight is too near to zero"
    return Sign.apply(moved, Rbnn(schedule(1e-2, 10, PROGRESS), False)) * per_filter(scale, w)


def reste():
    return Power(1 + (1 - math.cos(math.pi / 2 * PROGRESS)) * 2)


def fourier():
    return Fourier(round(9 + 9 * PROGRESS), 0.1)


def fda(x, rows, w1, w2):
    """The sign and the fading noise of a small network; `rows` puts what it sees last."""
    noise = rows(F.relu(rows(x) @ w1.T) @ w2.T) + 0.1 * x.sin()
    return Sign.apply(x, fourier()) + 0.05 * (1 + math.cos(math.pi * PROGRESS)) * noise


def fda_weights(w, w1, w2):
    signs = fda(w.flatten(1), lambda rows: rows, w1, w2).reshape(w.shape)
    return signs * size(w).detach()


def fda_inputs(x, w1, w2):
    return fda(x, lambda x: x.transpose(1, -1), w1, w2)


WEIGHTS = {
    "bnn": lambda w: Sign.apply(w, Clipped(1.0)),
    "xnor-net": PaperScale.apply,
    "xnor-net(variant=code)": lambda w: Sign.apply(w, Clipped(1.0)) * size(w).detach(),
    "xnor-net++": lambda w: Sign.apply(w, Clipped(1.0)),
    "dorefa": lambda w: Sign.apply(w, Identity()) * w.abs().mean().detach(),
    "dorefa(variant=code)": lambda w: Sign.apply(w, Clipped(1.0)) * size(w).detach(),
    "bi-real": lambda w: Sign.apply(w, Clipped(1.0)) * size(w).detach(),
    "reactnet": lambda w: Sign.apply(w, Clipped(1.0)) * size(w).detach(),
    "recu": recu,
    "adabin": adabin,
    "reste": lambda w: Sign.apply(w, reste()) * w.abs().mean(),
    "fda": fda_weights,
    "rbnn": rbnn,
    "ir-net": lambda w: imb(w, ede()),
    "dir-net": lambda w: imb(w, dte(standardize(w))),
}


def approx(x):
    return Sign.apply(x, ApproxSign())


INPUTS = {
    "bnn": lambda x: Sign.apply(x, Clipped(1.0)),
    "dorefa": OneBit.apply,
    "bi-real": approx,
    "reactnet": lambda x, b: approx(x + b.view((1, -1) + (1,) * (x.ndim - 2))),
    "recu": lambda x: approx(x / (deviation(x) ** 2 + 1e-5).sqrt()),
    "reste": lambda x: Sign.apply(x, reste()),
    "fda": fda_inputs,
    "rbnn": lambda x: Sign.apply((x - mean(x)) / deviation(x), Rbnn(0.1, True)),
    "ir-net": lambda x: Sign.apply(x, ede()),
    "dir-net": lambda x: Sign.apply(x, dte(x)),
    "adabin": lambda x, alpha, beta: alpha * approx((x - beta) / alpha) + beta,
    "adabin(variant=code)": lambda x, alpha, beta: alpha * (approx((x - beta) / alpha) + beta),
}


def xnor_product(x, w):
    """Signs against m sign(w), times the mean of |x| under the filter, padding included."""
    k = F.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 1, 1)
    return F.conv2d(Sign.apply(x, Clipped(1.0)), PaperScale.apply(w), None, 1, 1) * k


def outer_product(x, w, channels, rows, columns):
    """Signs against signs, times a number for each channel, row and column."""
    signs = [Sign.apply(v, Clipped(1.0)) for v in (x, w)]
    gain = channels.view(-1, 1, 1) * rows.view(1, -1, 1) * columns.view(1, 1, -1)
    return F.conv2d(*signs, None, 1, 1) * gain


def noise_net(f, case, d):
    """Weights of FDA's small network."""
    h = d // 64 if d >= 64 else max(d // 4, 1)
    return {
        key: f.normal(f"{case}/{key}", shape, scale=0.4)
        for key, shape in [("w1", (h, d)), ("w2", (d, h))]
    }


def family():
    f = Family("methods")
    at = dict(progress=PROGRESS)
    for name, rule in WEIGHTS.items():
        for suffix, shape in SHAPES.items():
            case = f"weights_{name}{suffix}"
            kinks = (-1.5, -1, -0.1, 0, 0.1, 1, 1.5) if name == "reste" else (-1, 0, 1)
            if name in ("ir-net", "dir-net"):
                w = latent(f, case + "/w", shape)
            else:
                w = f.draw(case + "/w", shape, lambda g, n: 0.8 * g.standard_normal(n), kinks, 1e-2)
            inputs, constant, n = dict(w=w), (), int(np.prod(shape[1:]))
            if name in ("recu", "rbnn"):
                inputs["scale"] = f.uniform(case + "/scale", (shape[0],), 0.5, 1.5)
            if name == "rbnn":
                inputs["theta"] = f.uniform(case + "/theta", (shape[0],), -2, 2)
                inputs |= {k: rotation(f"{case}/{k}", s) for k, s in zip(("r1", "r2"), sides(n))}
                inputs["fitted_at"] = np.array([PROGRESS], np.float32)
                constant = ("r1", "r2", "fitted_at")
            if name == "fda":
                inputs |= noise_net(f, case, n)
            f.case(case, rule, inputs, at, constant)
    for name, rule in INPUTS.items():
        for suffix, shape in IMAGES.items():
            case = f"inputs_{name}{suffix}"
            kinks = (-1.5, -1, -0.1, 0, 0.1, 1, 1.5) if name == "reste" else (-1, 0, 0.5, 1)
            x = f.normal(case + "/x", shape, avoid=kinks, margin=1e-2)
            inputs = dict(x=x)
            if name == "fda":
                inputs |= noise_net(f, case, shape[1])
            if name == "reactnet":
                inputs["b"] = f.normal(case + "/b", (shape[1],), scale=0.3)
            if name.startswith("adabin"):
                inputs["alpha"] = f.uniform(case + "/alpha", (1,), 0.6, 1.4)
                inputs["beta"] = f.uniform(case + "/beta", (1,), 0.1, 0.4)
            f.case(case, rule, inputs, at)
    for name, rule in [("xnor-net", xnor_product), ("xnor-net++", outer_product)]:
        for suffix, (image, filters) in PRODUCTS.items():
            case = f"product_{name}{suffix}"
            x = f.normal(case + "/x", image, avoid=(-1, 0, 1), margin=1e-2)
            w = f.normal(case + "/w", filters, avoid=(-1, 0, 1), margin=1e-2)
            inputs = dict(x=x, w=w)
            if rule is outer_product:
                sizes = (filters[0], *image[2:])
                for key, n in zip(("channels", "rows", "columns"), sizes):
                    inputs[key] = f.uniform(f"{case}/{key}", (n,), 0.5, 1.5)
            f.case(case, rule, inputs, at)
    return f
