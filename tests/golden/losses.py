"""Losses: each value is a scalar, averaged over the batch."""

import numpy as np
import torch.nn.functional as F

from cases import Family, clear_of, stream


def family():
    f = Family("losses")
    for suffix, (n, classes) in {"": (4, 6), "_wide": (3, 33)}.items():
        x = f.normal("logits" + suffix, (n, classes), scale=2.0)
        labels = stream("labels", suffix).integers(0, classes, n)
        for name, smoothing in [("cross_entropy", 0.0), ("cross_entropy_smooth", 0.1)]:
            f.case(
                name + suffix,
                lambda x, labels: F.cross_entropy(x, labels, label_smoothing=smoothing),
                dict(x=x, labels=labels),
                dict(smoothing=smoothing),
            )
        divergence(f, suffix, x)
        distillation(f, suffix, x, labels)
    for suffix, shape in {"": (4, 7), "_nchw": (3, 2, 4, 5)}.items():
        x, teacher = f.normal("rbd/x" + suffix, shape), f.normal("rbd/teacher" + suffix, shape)
        f.case("rbd" + suffix, rbd, dict(x=x, teacher=teacher), constant=("teacher",))
    for suffix, shape in {"": (3, 5), "_nchw": (2, 3, 4, 5)}.items():
        x, target = f.normal("mse/x" + suffix, shape), f.normal("mse/target" + suffix, shape)
        f.case("mse" + suffix, F.mse_loss, dict(x=x, target=target))
        for beta in (1.0, 0.5):
            # The difference is kept clear of the two points where the parabola meets its lines.
            distance = f.normal(f"smooth_l1/{beta}{suffix}", shape, avoid=[-beta, beta])
            x = (target + distance).astype(np.float32)
            assert clear_of(x.astype(np.float64) - target, [-beta, beta], 5e-4)
            f.case(
                f"smooth_l1_beta{beta}{suffix}",
                lambda x, target: F.smooth_l1_loss(x, target, beta=beta),
                dict(x=x, target=target),
                dict(beta=beta),
            )
    return f


def rbd(x, teacher):
    """The mean over samples of |s - t|, with s = x^2 / sqrt(sum x^4 + 1e-12), and t so of the teacher."""

    def unit(x):
        squares = x.flatten(1) ** 2
        return squares / (squares**2).sum(1, keepdim=True).add(1e-12).sqrt()

    return (unit(x) - unit(teacher)).norm(dim=1).mean()


def distillation(f, suffix, x, labels):
    """0.5 cross entropy + 0.25 (rbd of a block's output) + 2 kl_div at temperature 3."""
    teacher = f.normal("distill/teacher" + suffix, x.shape, scale=2.0)
    shape = (len(x), 3, 4, 4)
    block, of_teacher = f.normal("distill/block" + suffix, shape), f.normal("distill/of" + suffix, shape)

    def loss(x, labels, teacher, block, block_of_teacher):
        p, q = F.softmax(teacher / 3, 1), F.log_softmax(x / 3, 1)
        logits = 9 * F.kl_div(q, p, reduction="batchmean")
        return 0.5 * F.cross_entropy(x, labels) + 0.25 * rbd(block, block_of_teacher) + 2 * logits

    inputs = dict(x=x, labels=labels, teacher=teacher, block=block, block_of_teacher=of_teacher)
    f.case("distill" + suffix, loss, inputs, constant=("teacher", "block_of_teacher"))


def divergence(f, suffix, x):
    """T^2 KL(teacher || student) = T^2 sum_c p (ln p - ln q) of one sample, averaged over the batch,

    with q = softmax(x / T) and p = softmax(teacher / T), which is stored too (Hinton et al., 2015).
    """
    teacher = f.normal("teacher" + suffix, x.shape, scale=2.0)
    for temperature in (1.0, 4.0):

        def kl(x, teacher):
            p = F.softmax(teacher / temperature, 1)
            y = F.kl_div(F.log_softmax(x / temperature, 1), p, reduction="batchmean")
            return temperature**2 * y, dict(probabilities=p)

        f.case(
            f"kl_div_temperature{temperature:g}{suffix}",
            kl,
            dict(x=x, teacher=teacher),
            dict(temperature=temperature),
            constant=("teacher",),
        )
