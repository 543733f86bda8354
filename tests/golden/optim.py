"""Update rules, learning-rate schedules and clipping."""

import math

import numpy as np
import torch
from torch.optim import lr_scheduler

from cases import Family, real

STEPS = 5


def family():
    f = Family("optim")
    rules(f)
    bop(f)
    schedules(f)
    clipping(f)
    return f


def rules(f):
    """`p` the parameter, `g[i]` the gradient given at step i, `after[i]` the parameter after that step."""
    sgd, adam, adamw = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
    table = [
        ("sgd", sgd, dict(lr=0.1)),
        ("sgd_momentum", sgd, dict(lr=0.1, momentum=0.9)),
        ("sgd_nesterov", sgd, dict(lr=0.1, momentum=0.9, nesterov=True)),
        ("sgd_decay", sgd, dict(lr=0.1, weight_decay=0.05)),
        ("sgd_momentum_decay", sgd, dict(lr=0.1, momentum=0.9, weight_decay=0.05)),
        ("sgd_nesterov_decay", sgd, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05)),
        ("adam", adam, dict(lr=0.01)),
        ("adam_decay", adam, dict(lr=0.01, weight_decay=0.1)),
        ("adam_betas", adam, dict(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3)),
        ("adamw", adamw, dict(lr=0.01, weight_decay=0.1)),
        ("adamw_betas", adamw, dict(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.2)),
    ]
    for case, rule, args in table:
        if rule is not sgd:
            args = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0) | args
            given = {k: v for k, v in args.items() if k not in ("beta1", "beta2")}
            given["betas"] = (args["beta1"], args["beta2"])
        else:
            args = given = dict(momentum=0.0, nesterov=False, weight_decay=0.0) | args
        p, g = f.normal(case + "/p", (3, 4)), f.normal(case + "/g", (STEPS, 3, 4))
        leaf = real(p).requires_grad_()
        optimiser, after = rule([leaf], **given), []
        for grad in real(g):
            leaf.grad = grad.clone()
            optimiser.step()
            after.append(leaf.detach().clone())
        f.args(case, **args)
        for key, value in [("p", p), ("g", g), ("after", torch.stack(after))]:
            f.store(case, key, value)


def bop(f):
    """Bop (Helwegen et al., 2019) and its second-order form (Suarez-Ramirez et al., 2021), written from the
    formulas in NumPy. `p` are signs.

    A comparison that float32 and float64 could decide differently would be no judge: none is close.
    """
    steps = 12
    table = [
        ("bop", dict(gamma=0.2, threshold=0.05)),
        ("bop_eager", dict(gamma=0.5, threshold=0.0)),
        ("bop2_biased", dict(gamma=0.1, threshold=0.2, sigma=0.3, unbiased=False)),
        ("bop2_unbiased", dict(gamma=0.1, threshold=0.3, sigma=0.3, unbiased=True)),
    ]
    for case, args in table:
        p = np.sign(f.normal(case + "/p", (3, 4), avoid=(0.0,)))
        g = f.normal(case + "/g", (steps, 3, 4))
        gamma, threshold = args["gamma"], args["threshold"]
        w, m, v, after = p.astype(np.float64), np.zeros((3, 4)), np.zeros((3, 4)), []
        for step, grad in enumerate(g.astype(np.float64), start=1):
            m = (1 - gamma) * m + gamma * grad
            signal = m
            if "sigma" in args:
                sigma = args["sigma"]
                v = (1 - sigma) * v + sigma * grad**2
                by_m, by_v = 1.0, 1.0
                if args["unbiased"]:
                    by_m, by_v = 1 - (1 - gamma) ** step, 1 - (1 - sigma) ** step
                signal = (m / by_m) / (np.sqrt(v / by_v) + 1e-10)
            assert np.abs(np.abs(signal) - threshold).min() > 1e-5, case
            w = np.where((np.abs(signal) > threshold) & (np.sign(signal) == w), -w, w)
            after.append(w)
        flips = np.abs(np.diff([p.astype(np.float64), *after], axis=0)).sum() / 2
        assert 0 < flips < w.size * steps / 2, f"{case}: {flips} flips"
        f.args(case, **args)
        for key, value in [("p", p), ("g", g), ("after", np.stack(after))]:
            f.store(case, key, value)


def table(make, lr, epochs):
    """The learning rate of each epoch, the scheduler stepped after each."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler, rates = make(optimiser), []
    for _ in range(epochs):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def schedules(f):
    """`lr[i]` is the rate during epoch i = 0 .. n - 1.

    cosine          lr (1 + cos(pi i / n)) / 2: the rate of epoch n would be 0
    step            lr gamma^floor(i / every)
    multi_step      lr gamma^(milestones at or before i)
    warmup_cosine   lr i / warmup while i < warmup, then the cosine over the other n - warmup
    """
    rates = table(lambda o: lr_scheduler.CosineAnnealingLR(o, 10), 0.1, 10)
    keep(f, "cosine", rates, lr=0.1, epochs=10)
    rates = table(lambda o: lr_scheduler.StepLR(o, 3, 0.1), 0.2, 10)
    keep(f, "step", rates, lr=0.2, every=3, gamma=0.1, epochs=10)
    rates = table(lambda o: lr_scheduler.MultiStepLR(o, [4, 7], 0.1), 0.2, 10)
    keep(f, "multi_step", rates, lr=0.2, milestone1=4, milestone2=7, gamma=0.1, epochs=10)

    lr, warmup, n = 0.4, 3, 10

    def formula(i):
        if i < warmup:
            return i / warmup
        return (1 + math.cos(math.pi * (i - warmup) / (n - warmup))) / 2

    rates = table(lambda o: lr_scheduler.LambdaLR(o, formula), lr, n)
    keep(f, "warmup_cosine", rates, lr=lr, warmup=warmup, epochs=n)


def keep(f, case, rates, **args):
    f.args(case, **args)
    f.store(case, "lr", rates, np.float64)


def clipping(f):
    """Gradients `a` and `b` scaled together so that their joint length is at most `max_norm`.

    PyTorch divides by the length plus 1e-6. Latent weights are clamped after their step.
    """
    for case, max_norm in [("clip_norm", 1.5), ("clip_norm_short", 100.0)]:
        a, b = f.normal(case + "/a", (3, 4)), f.normal(case + "/b", (5,))
        leaves = [real(a), real(b)]
        for leaf in leaves:
            leaf.grad = leaf.clone()
        norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
        f.args(case, max_norm=max_norm)
        clipped = dict(norm=norm, clipped_a=leaves[0].grad, clipped_b=leaves[1].grad)
        for key, value in (dict(a=a, b=b) | clipped).items():
            f.store(case, key, value)

    p, g = f.normal("clip_latent/p", (4, 5)), f.normal("clip_latent/g", (4, 5))
    after = (real(p) - 0.5 * real(g)).clamp(-1, 1)
    assert (after.abs() == 1).any(), "something should be clipped"
    f.args("clip_latent", lr=0.5, limit=1.0)
    for key, value in [("p", p), ("g", g), ("after", after)]:
        f.store("clip_latent", key, value)
