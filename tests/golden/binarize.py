"""Binary weights with their scales, and products of two binarized tensors.

IMB, per output channel c with n weights (Qin et al., 2020, as IR-Net's Libra-PB; 2023, as IMB):

    v = w - mean_c(w)
    y = v / std_c(v)                        the unbiased std, divided by n - 1
    2^s, s = round(log2(mean_c |y|))        no gradient; PyTorch rounds halves to even, none occurs
    q = sign(y) 2^s

The gradient goes through sign by an estimator, then through std and mean by PyTorch's own rules.
"""

import numpy as np
import torch
import torch.nn.functional as F

from cases import Family, clear_of
from estimators import Clipped, Ede, Identity, Sign, dte

# How far float32 and float64 may be apart where a sign, a clip or a rounding decides.
MARGIN = 1e-4


def rows(w):
    """A view of shape `O 1 1 1` (or `O 1`) that one number a filter broadcasts with."""
    return (w.shape[0],) + (1,) * (w.ndim - 1)


def standardize(w):
    """Zero mean and unit unbiased standard deviation per output channel."""
    flat = w.flatten(1)
    v = flat - flat.mean(1, keepdim=True)
    return (v / v.std(1, keepdim=True)).view(w.shape)


def exponent(y):
    """log2 of the mean absolute value of each filter, and that rounded."""
    log = y.detach().abs().flatten(1).mean(1).log2()
    return log, log.round()


def shift(y):
    """The power of two nearest (on a log scale) to each filter's mean absolute value."""
    return torch.exp2(exponent(y)[1])


def imb(w, estimator):
    """Binary weights by IMB with the shift scale."""
    y = standardize(w)
    return Sign.apply(y, estimator) * shift(y).view(rows(w))


def steady(w, kinks=(0,)):
    """Whether no decision about these latent weights is near enough to a border to be unsafe."""
    y = standardize(torch.tensor(w, dtype=torch.float64))
    log, s = exponent(y)
    return clear_of(y, kinks, MARGIN) and float((log - s).abs().max()) < 0.5 - 1e-2


def latent(f, key, shape, numbers=lambda g, n: 0.2 * g.standard_normal(n), kinks=(-1, 0, 1)):
    """The first draw of latent weights whose decisions are all clear of their borders."""
    for attempt in range(1000):
        w = f.draw(f"{key}/{attempt}", shape, numbers, kinks, 1e-3)
        if steady(w, kinks):
            return w
    raise AssertionError(f"{key}: no steady weights")


ESTIMATORS = {"ste": Clipped(1.0), "ede": Ede(2.0)}


def settings(name):
    """An estimator's own setting: the clip of STE, the t of EDE."""
    return dict(clip=1.0) if name == "ste" else dict(t=2.0)


def family():
    f = Family("binarize")
    weights(f)
    magnitudes(f)
    convolutions(f)
    dense(f)
    return f


def weights(f):
    """IMB alone, `w` to y = q. `standardized` is y above, `s` the exponent of each filter."""
    spiky = lambda g, n: 0.2 * g.laplace(size=n) ** 3  # its filters want a scale below 1
    for suffix, shape, numbers in [
        ("", (4, 3, 3, 3), None),
        ("_dense", (5, 16), None),
        ("_spiky", (6, 4, 3, 3), spiky),
    ]:
        w = latent(f, "imb" + suffix, shape, **(dict(numbers=numbers) if numbers else {}))
        for name, estimator in [("identity", Identity())] + list(ESTIMATORS.items()):

            def function(w):
                y = standardize(w)
                return imb(w, estimator), dict(standardized=y, s=exponent(y)[1])

            args = settings(name) if name != "identity" else {}
            f.case(f"imb{suffix}_{name}", function, dict(w=w), args)
        unscaled = lambda w: Sign.apply(standardize(w), ESTIMATORS["ede"])
        f.case(f"imb{suffix}_unscaled_ede", unscaled, dict(w=w), settings("ede"))
    assert len(np.unique(f.arrays["imb_spiky_ste/s"])) > 1, "two different scales are wanted"

    # DTE fits t to all standardised weights of the layer, here two heaps away from zero. With 81
    # of them the quantile at 0.1 is an element by every definition.
    heaps = lambda g, n: g.choice([-1, 1], n) + 0.15 * g.standard_normal(n)
    w = latent(f, "imb_dte", (3, 3, 3, 3), heaps, kinks=(0,))
    for rule, threshold in [("a", 1.0), ("b", 0.1)]:
        y = standardize(torch.tensor(w, dtype=torch.float64))
        estimator, more = dte(y, 10.0, rule, threshold, 0.1)
        f.case(
            f"imb_dte_{rule}",
            lambda w: (imb(w, estimator), more | dict(t_used=estimator.t, k=estimator.k)),
            dict(w=w),
            dict(t=10.0, eps=0.1, threshold=threshold),
        )


def magnitudes(f):
    """XNOR-Net's scale, m = mean |w| per output channel, on raw latent weights: q = sign(w) m.

    Two treatments of m on the way back, STE clipped at 1 for the sign:

    detached    m is a constant                      dw = m 1[|w| <= 1] dq
    through     PyTorch's gradient of m is added     dw += sign(w)/n sum_j dq_j sign(w_j)
    """
    for suffix, shape in {"": (4, 3, 3, 3), "_dense": (5, 16)}.items():
        numbers = lambda g, n: 0.8 * g.standard_normal(n)
        w = f.draw("mean_abs" + suffix, shape, numbers, (-1, 0, 1), 1e-3)

        def mean_abs(w):
            return w.abs().flatten(1).mean(1).view(rows(w))

        def detached(w):
            return Sign.apply(w, ESTIMATORS["ste"]) * mean_abs(w).detach()

        def through(w):
            return Sign.apply(w, ESTIMATORS["ste"]) * mean_abs(w)

        for rule in (detached, through):
            f.case(f"mean_abs_{rule.__name__}{suffix}", rule, dict(w=w), dict(clip=1.0))


def convolutions(f):
    """y = conv(sign(x), IMB(w)); `border` is what stands outside the binarized image."""
    table = [
        #  case       x               w             stride padding groups border
        ("stride1", (2, 8, 6, 7), (6, 8, 3, 3), 1, 1, 1, 0.0),
        ("stride2", (2, 8, 7, 6), (6, 8, 3, 3), 2, 1, 1, 0.0),
        ("groups2", (2, 8, 5, 6), (4, 4, 3, 3), 1, 1, 2, 0.0),
        ("depthwise", (2, 5, 5, 6), (5, 1, 3, 3), 1, 1, 5, 0.0),
        ("valid", (1, 5, 6, 6), (3, 5, 3, 3), 1, 0, 1, 0.0),
        ("1x1", (2, 13, 4, 5), (7, 13, 1, 1), 1, 0, 1, 0.0),
        ("wide", (1, 37, 5, 5), (18, 37, 3, 3), 1, 1, 1, 0.0),
        ("border_plus", (1, 8, 5, 6), (4, 8, 3, 3), 1, 1, 1, 1.0),
        ("border_minus", (1, 8, 6, 5), (4, 8, 3, 3), 2, 1, 1, -1.0),
    ]
    for name, x, w, stride, padding, groups, border in table:
        case = f"binary_conv2d_{name}"
        x = f.normal(case + "/x", x, avoid=(-1, 0, 1))
        w = latent(f, case + "/w", w)
        for kind, estimator in ESTIMATORS.items():

            def function(x, w):
                signs = F.pad(Sign.apply(x, estimator), (padding,) * 4, value=border)
                return F.conv2d(signs, imb(w, estimator), None, stride, 0, 1, groups)

            args = dict(stride=stride, padding=padding, groups=groups, border=border)
            f.case(f"{case}_{kind}", function, dict(x=x, w=w), args | settings(kind))


def dense(f):
    """y = sign(x) IMB(w)^T for `x` of `N I` and `w` of `O I`."""
    for suffix, (n, i, o) in {"": (4, 20, 6), "_wide": (3, 131, 9)}.items():
        case = "binary_linear" + suffix
        x = f.normal(case + "/x", (n, i), avoid=(-1, 0, 1))
        w = latent(f, case + "/w", (o, i))
        for kind, estimator in ESTIMATORS.items():
            f.case(
                f"{case}_{kind}",
                lambda x, w: Sign.apply(x, estimator) @ imb(w, estimator).T,
                dict(x=x, w=w),
                settings(kind),
            )
