"""What stands in for the slope of sign on the way back: dx = slope(x) * cov, while y = sign(x).

Each slope is written from its formula; where there is a curve behind it, PyTorch differentiates that
curve and the script asserts that the two agree. sign(0) = +1, but no number here is near 0.
"""

import math

import numpy as np
import torch

from cases import Family

# With 201 numbers, the quantiles at 0.1 and 0.3 fall on an element by every usual definition:
# the smallest x with F(x) >= eps, the nearest rank, and linear interpolation.
COUNT = 201
KINKS = [-1.5, -1, -0.5, -0.1, 0, 0.1, 0.5, 1, 1.5]


class Sign(torch.autograd.Function):
    """sign(x), with sign(0) = +1; backward multiplies by `estimator.slope(x)`."""

    @staticmethod
    def forward(ctx, x, estimator):
        ctx.save_for_backward(x)
        ctx.estimator = estimator
        return torch.where(x < 0, -1.0, 1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * ctx.estimator.slope(x), None


class Identity:
    """soft x, slope 1."""

    def soft(self, x):
        return x

    def slope(self, x):
        return torch.ones_like(x)


class Clipped:
    """soft clamp(x, -clip, clip), slope 1 where |x| <= clip."""

    def __init__(self, clip=1.0):
        self.clip = clip

    def soft(self, x):
        return x.clamp(-self.clip, self.clip)

    def slope(self, x):
        return (x.abs() <= self.clip).to(x.dtype)


class ApproxSign:
    """soft 2x - x|x| inside +-1 and sign(x) outside, slope 2 - 2|x| inside and 0 outside."""

    def soft(self, x):
        return torch.where(x.abs() <= 1, 2 * x - x * x.abs(), x.sign())

    def slope(self, x):
        return (2 - 2 * x.abs()).clamp(min=0)


class Ede:
    """soft k tanh(t x), slope k t (1 - tanh^2(t x)), with k = max(1/t, 1)."""

    def __init__(self, t):
        self.t, self.k = t, max(1 / t, 1.0)

    def soft(self, x):
        return self.k * torch.tanh(self.t * x)

    def slope(self, x):
        return self.k * self.t * (1 - torch.tanh(self.t * x) ** 2)


class Dsq:
    """soft tanh(K x) / tanh(K) inside +-1 and sign(x) outside, K = ln(2/alpha - 1) / 2."""

    def __init__(self, alpha):
        self.alpha, self.K = alpha, math.log(2 / alpha - 1) / 2

    def soft(self, x):
        return torch.tanh(self.K * x.clamp(-1, 1)) / math.tanh(self.K)

    def slope(self, x):
        inside = (x.abs() <= 1).to(x.dtype)
        return inside * self.K * (1 - torch.tanh(self.K * x) ** 2) / (1 - self.alpha)


class Rbnn:
    """slope k max(sqrt(2) t - t^2 |x|, 0), and the curve it is the slope of."""

    def __init__(self, t, activations):
        self.t, self.k = (max(t, 1.0), 1.0) if activations else (t, max(1 / t, 1.0))

    def soft(self, x):
        end = math.sqrt(2) / self.t
        x = x.clamp(-end, end)
        return self.k * (math.sqrt(2) * self.t * x - self.t**2 * x * x.abs() / 2)

    def slope(self, x):
        return self.k * (math.sqrt(2) * self.t - self.t**2 * x.abs()).clamp(min=0)


class SwishSign:
    """soft 2 s(bx) (1 + bx (1 - s(bx))) - 1 with the logistic s; slope as published."""

    def __init__(self, beta):
        self.beta = beta

    def soft(self, x):
        s, rest = torch.sigmoid(self.beta * x), torch.sigmoid(-self.beta * x)
        return 2 * s * (1 + self.beta * x * rest) - 1

    def slope(self, x):
        b = self.beta
        return b * (2 - b * x * torch.tanh(b * x / 2)) / (1 + torch.cosh(b * x))


class Gaussian:
    """soft erf(x / (sqrt(2) sigma))."""

    def __init__(self, sigma):
        self.sigma = sigma

    def soft(self, x):
        return torch.erf(x / (math.sqrt(2) * self.sigma))

    def slope(self, x):
        return math.sqrt(2 / math.pi) / self.sigma * torch.exp(-(x**2) / (2 * self.sigma**2))


class HalfCosine:
    """soft sin(pi/2 clamp(x, -1, 1))."""

    def soft(self, x):
        return torch.sin(math.pi / 2 * x.clamp(-1, 1))

    def slope(self, x):
        return math.pi / 2 * torch.cos(math.pi / 2 * x) * (x.abs() <= 1)


class Fourier:
    """slope 4 omega/pi sum_{i=0..n} cos((2i+1) omega x) inside +-1."""

    def __init__(self, n, omega):
        self.odd, self.omega = [2 * i + 1 for i in range(n + 1)], omega

    def soft(self, x):
        x = x.clamp(-1, 1)
        return 4 / math.pi * sum(torch.sin(m * self.omega * x) / m for m in self.odd)

    def slope(self, x):
        total = sum(torch.cos(m * self.omega * x) for m in self.odd)
        return 4 * self.omega / math.pi * total * (x.abs() <= 1)


class Power:
    """slope |x|^((1-o)/o) / o for 0.1 < |x| <= 1.5, 0.1^(1/o) / 0.1 inside, 0 beyond."""

    def __init__(self, o):
        self.o = o

    def soft(self, x):
        size = x.abs().clamp(max=1.5)
        root = size.clamp(min=0.1) ** (1 / self.o)
        return x.sign() * torch.where(size <= 0.1, size * 0.1 ** (1 / self.o) / 0.1, root)

    def slope(self, x):
        size, o = x.abs(), self.o
        root = torch.where(size <= 0.1, 0.1 ** (1 / o) / 0.1, size ** ((1 - o) / o) / o)
        return root * (size <= 1.5)


class Root:
    """soft x / sqrt(a + x^2)."""

    def __init__(self, a):
        self.a = a

    def soft(self, x):
        return x / torch.sqrt(self.a + x**2)

    def slope(self, x):
        return self.a / (self.a + x**2) ** 1.5


class Wave:
    """soft tanh(t x) / t + a sin(pi x) exp(-x^2)."""

    def __init__(self, t, a):
        self.t, self.a = t, a

    def soft(self, x):
        return torch.tanh(self.t * x) / self.t + self.a * torch.sin(math.pi * x) * torch.exp(-(x**2))

    def slope(self, x):
        wave = math.pi * torch.cos(math.pi * x) - 2 * x * torch.sin(math.pi * x)
        return 1 - torch.tanh(self.t * x) ** 2 + self.a * wave * torch.exp(-(x**2))


class ByChannel:
    """A curve of its own for each place along an axis."""

    def __init__(self, curves, axis):
        self.curves, self.axis = curves, axis

    def each(self, x, of):
        parts = [of(e, x) for e, x in zip(self.curves, x.unbind(self.axis), strict=True)]
        return torch.stack(parts, self.axis)

    def soft(self, x):
        return self.each(x, lambda e, x: e.soft(x))

    def slope(self, x):
        return self.each(x, lambda e, x: e.slope(x))


def schedule(low, high, progress):
    """t grows geometrically with the progress of training, a number from 0 to 1."""
    return low * 10 ** (progress * math.log10(high / low))


def quantile(x, eps):
    """The smallest element of |x| with at least a share `eps` of the elements at or below it."""
    ordered = np.sort(np.abs(np.asarray(x, np.float64)).ravel())
    q = ordered[math.ceil(eps * ordered.size - 1e-9) - 1]
    assert math.isclose(q, np.quantile(ordered, eps), rel_tol=1e-9), "an ambiguous quantile"
    return q


def bisect(rises, low, high):
    """Where a function that is positive at `low` and negative at `high` crosses zero."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) > 0 else (low, middle)
    return (low + high) / 2


def fit_absolute(q, tau):
    """Rule A: the largest t at which an element of size q still has a slope of at least tau.

    For t >= 1 the slope t sech^2(t x) is at least tau up to |x| = r(t) = arccosh(sqrt(t/tau)) / t.
    r rises to a peak, at t/tau = 1.724, and falls; on the falling branch bisection finds t. Where q
    lies above the peak no t will do, and the t of the peak is taken.
    """

    def r(t):
        return math.acosh(math.sqrt(t / tau)) / t

    # The peak: r'(t) = 0 where arccosh(sqrt u) = sqrt(u / (u - 1)) / 2, u = t/tau.
    peak = tau * bisect(lambda u: math.sqrt(u / (u - 1)) / 2 - math.acosh(math.sqrt(u)), 1 + 1e-9, 5)
    start = max(peak, 1.0)
    if r(start) <= q:
        assert peak >= 1, "below t = 1 the slope has another formula, which no case here needs"
        return peak
    end = start
    while r(end) > q:
        end *= 2
    return bisect(lambda t: r(t) - q, start, end)


def fit_relative(q, rho):
    """Rule B: sech^2(t q) = rho, the t at which the slope at q is a share rho of the slope at 0."""
    return math.acosh(1 / math.sqrt(rho)) / q


RULES = {"a": fit_absolute, "b": fit_relative}


def dte(x, t, rule, threshold, eps):
    """DTE: EDE whose t is kept low enough that a share eps of the elements can still be updated."""
    q = quantile(x, eps)
    fitted = RULES[rule](q, threshold)
    return Ede(min(t, fitted)), dict(q=q, t_fit=fitted)


def family():
    f = Family("estimators")
    tensors = {kind: draw(f, kind) for kind in ("normal", "bimodal", "laplace")}
    fixed = [("identity", Identity(), {}), ("approx_sign", ApproxSign(), {})]
    fixed += [(f"clipped_{clip}", Clipped(clip), dict(clip=clip)) for clip in (0.5, 1.0, 1.5)]
    fixed += [(f"ede_t{t}", Ede(t), dict(t=t)) for t in (0.1, 0.5, 1.0, 2.0, 10.0)]
    fixed += [(f"dsq_{a}", Dsq(a), dict(alpha=a)) for a in (0.1, 0.2, 0.5)]
    fixed += [(f"rbnn_w_t{t}", Rbnn(t, False), dict(t=t)) for t in (0.05, 0.5, 2.0)]
    fixed += [(f"rbnn_a_t{t}", Rbnn(t, True), dict(t=t)) for t in (0.5, 2.0)]
    fixed += [(f"swish_{b}", SwishSign(b), dict(beta=b)) for b in (1.0, 5.0)]
    fixed += [(f"gaussian_{s}", Gaussian(s), dict(sigma=s)) for s in (0.3, 1.0)]
    fixed += [("half_cosine", HalfCosine(), {})]
    fixed += [(f"fourier_{n}", Fourier(n, 0.1), dict(n=n)) for n in (9, 18)]
    fixed += [(f"power_{o}", Power(o), dict(o=o)) for o in (1.5, 3.0)]
    for name, estimator, args in fixed:
        for kind, x in tensors.items():
            record(f, f"{name}_{kind}", x, estimator, args)
    fitted(f, tensors)
    by_channel(f)
    expressions(f, tensors["normal"])
    schedules(f)
    return f


def draw(f, kind):
    """Standard normal; two heaps around +-1; Laplace with mean absolute value 1/sqrt(2)."""
    numbers = {
        "normal": lambda g, n: g.standard_normal(n),
        "bimodal": lambda g, n: g.choice([-1, 1], n) + 0.2 * g.standard_normal(n),
        "laplace": lambda g, n: g.laplace(0, 1 / math.sqrt(2), n),
    }
    return f.draw(kind, (COUNT,), numbers[kind], KINKS, 1e-3)


def record(f, case, x, estimator, args, more={}):
    curve = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(estimator.soft(curve).sum(), curve)
    assert torch.allclose(slope, estimator.slope(curve), rtol=1e-12, atol=1e-13), case
    f.case(case, lambda x: (Sign.apply(x, estimator), more), dict(x=x), args)


def fitted(f, tensors):
    """DTE. `q` is the quantile of |x| at eps, `t_fit` the bound, `t_used` = min(t, t_fit), and `k`.

    `threshold` is tau of rule A or rho of rule B. Rule A on two heaps has no solution at tau = 1.
    """

    def one(case, x, rule, threshold, eps, t):
        estimator, more = dte(x, t, rule, threshold, eps)
        args = dict(t=t, eps=eps, threshold=threshold)
        record(f, case, x, estimator, args, more | dict(t_used=estimator.t, k=estimator.k))
        return estimator.t

    for kind, x in tensors.items():
        for rule, threshold in [("a", 1.0), ("a", 0.1), ("b", 0.1)]:
            for eps, t in [(0.1, 100.0), (0.3, 20.0)]:
                used = one(f"dte_{rule}{threshold}_{kind}_eps{eps}", x, rule, threshold, eps, t)
                assert used < t, "the bound should bind here"
    for rule, threshold in [("a", 1.0), ("b", 0.1)]:
        for name, t in [("early", 0.5), ("free", 10.0)]:
            used = one(f"dte_{rule}{threshold}_normal_{name}", tensors["normal"], rule, threshold, 0.1, t)
            assert used == t, "the bound should not bind here"
    # Wide activations: the bound lies below 1, where k = 1/t.
    wide = (30 * tensors["normal"]).astype(np.float32)
    assert one("dte_b0.1_wide", wide, "b", 0.1, 0.1, 10.0) < 1


def by_channel(f):
    """DTE with a curve for each channel, axis 1 of `x`, each channel of another distribution.

    With 41 or 81 numbers a channel the quantile at 0.1 is an element by every definition.
    """
    kinds = [
        lambda g, n: g.standard_normal(n),
        lambda g, n: g.choice([-1, 1], n) + 0.2 * g.standard_normal(n),
        lambda g, n: g.laplace(0, 1 / math.sqrt(2), n),
        lambda g, n: g.standard_t(2, n),
        lambda g, n: 3 * g.standard_normal(n),
    ]
    for suffix, shape in {"": (3, 4, 3, 9), "_dense": (41, 5)}.items():
        parts = [
            f.draw(f"by_channel/{c}{suffix}", shape[:1] + shape[2:], kinds[c], KINKS, 1e-3)
            for c in range(shape[1])
        ]
        x = np.stack(parts, 1)
        for rule, threshold in [("a", 1.0), ("a", 0.1), ("b", 0.1)]:
            found = [dte(part, 100.0, rule, threshold, 0.1) for part in parts]
            used = [e.t for e, _ in found]
            assert max(used) < 100 and max(used) > 1.5 * min(used), "channels should differ"
            args = dict(t=100.0, eps=0.1, threshold=threshold)
            estimator = ByChannel([e for e, _ in found], 1)
            record(f, f"channels_{rule}{threshold}{suffix}", x, estimator, args, dict(t_used=used))


def expressions(f, normal):
    """Curves that are typed; those that change in the course of training, at a `progress` of 0.75.

    root    soft = x/sqrt(0.1 + x^2)
    wave    soft = tanh(t*x)/t + a*sin(pi*x)*exp(-x^2); t = 0.5..8; a = lin(0..0.4)
    """
    images = f.normal("expression/images", (2, 3, 4, 5))
    for kind, x in [("normal", normal), ("images", images)]:
        record(f, f"expression_root_{kind}", x, Root(0.1), dict(progress=0.75))
        wave = Wave(schedule(0.5, 8.0, 0.75), 0.75 * 0.4)
        record(f, f"expression_wave_{kind}", x, wave, dict(progress=0.75))


def schedules(f):
    """Tables of t and k over the epochs i = 0 .. n - 1, at progress i/n."""
    for name, low, high, n in [("", 0.1, 10.0, 12), ("_long", 1e-3, 10.0, 40)]:
        case = "ede_schedule" + name
        t = [schedule(low, high, i / n) for i in range(n)]
        f.args(case, low=low, high=high, epochs=n)
        f.store(case, "t", t)
        f.store(case, "k", [max(1 / v, 1.0) for v in t])
