"""Every function and loss at zeros, kinks, ties, tails, the ends of the range, infinities and NaN: value, slope and second
slope, interpreted and compiled, against mpmath at 50 digits and the exact float."""

from functools import cache, partial
from itertools import product
from math import copysign, inf, nan

import mpmath as mp
import numpy as np
import pytest

import tinyrnn as tr

SIZES = {"float32": (1e-6, 1e-30, 1e20), "float64": (1e-14, 1e-200, 1e150)}  # tolerance, tiny, huge
WHAT = ("value", "slope", "second slope")


# ---- points: a column of numbers, pairs (of which the first varies), or rows of three (of which the first is asked about)

def line(dtype):
    _, tiny, huge = SIZES[dtype]
    sizes = (tiny, np.finfo(dtype).tiny, 1e-9, 1e-4, 0.1, 0.5, 1, 1.75, 2, 3, 5, 9.5, 20, 40, 88, 100, 700, 1e5, huge, inf)
    return [(s * x,) for x in (0.0, *sizes) for s in (1, -1)] + [(nan,)]


def short(dtype):
    _, tiny, huge = SIZES[dtype]
    return [0.0, -0.0, tiny, -tiny, 1.0, -2.5, huge, -huge, inf, -inf, nan]


def pairs(dtype):
    return list(product(short(dtype), repeat=2))


def powers(dtype):
    return list(product([*short(dtype), 0.3, 3.0, -2.0], [0.0, 0.5, 1.0, 2.0, 3.0, 2.5, -1.0, -2.0, -0.5]))


def exponents(dtype):
    return [(b, a) for a, b in powers(dtype) if a >= 0] + [(nan, 2.0), (1.5, nan), (400.0, 2.0), (-400.0, 0.5)]


def unit(dtype):
    _, tiny, _ = SIZES[dtype]
    eps = np.finfo(dtype).eps
    return list(product([0.0, -0.0, tiny, 1e-9, 1e-4, 0.1, 0.5, 0.75, 1 - eps, 1.0, 1.5, -0.5, nan], [0.0, 0.3, 1.0]))


def targets(dtype):
    return [(z, t) for (z,) in line(dtype) for t in (0.0, 0.3, 1.0)]


def rows(dtype):
    _, tiny, huge = SIZES[dtype]
    ordinary = [(0, 0, 0), (-0.0, 0, 0), (1, 2, 3), (3, 3, 3), (0.1, 0.1, 0.1), (0.1, 0.7, 0.7), (1, -1, 0.5), (2, 2, -5)]
    small = [(tiny, 0, -tiny), (tiny, tiny, tiny), (nan, 0, 1), (0, nan, 1)]
    far = [(20, 0, -20), (-20, 0, 20), (40, 0, 1), (-40, 0, 1), (100, -100, 0), (-100, 100, 0), (1e3, 1001, 999),
           (1e4,) * 3, (1e6,) * 3, (-1e6,) * 3, (huge ** (2 / 3), 0, 1)]
    ends = [(huge, 0, 0), (0, huge, 1), (-huge, 0, 1), (huge, huge, 0), (huge, -huge, huge), (huge,) * 3, (0.7 * huge,) * 3]
    return ordinary + small + far + ends


def to_norm(dtype):
    """Without a row whose mean is rounded by more than its deviations are worth: in float32 the mean is that of float64."""
    return [r for r in rows(dtype) if dtype == "float32" or r != (0.7 * SIZES[dtype][2],) * 3]


def unbounded(dtype):
    return [*rows(dtype), (inf, 0, 1), (0, inf, 1), (-inf, 0, 1), (1, -inf, 0), (-inf, -inf, 0), (0, -inf, -inf), (-inf,) * 3,
            (inf, inf, 0), (inf, -inf, 0)]


# ---- truth: value, slope and second slope; a list is a sum of terms that cancel, and rounding is relative to their sizes

def nan_in(p):
    return any(v != v for v in p)


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def sech2(x):
    return 4 * sigma(2 * x) * sigma(-2 * x)


def tail(a, b):
    """a b, where b falls faster than a rises."""
    return b if b == 0 else a * b


def over(a, b):
    """a / b with zeros that have a sign."""
    if b == 0:
        return nan if a == 0 or mp.isnan(a) else copysign(inf, b) * (1 if a > 0 else -1)
    return nan if mp.isnan(a) or mp.isnan(b) or (mp.isinf(a) and mp.isinf(b)) else mp.mpf(a) / b


def raised(a, b):
    """a ** b as C has it."""
    whole = b == mp.floor(b)
    sign = -1 if whole and b % 2 and copysign(1, a) < 0 else 1
    if b == 0:
        return mp.mpf(1)
    if mp.isnan(a) or mp.isnan(b) or (a < 0 and not whole and not mp.isinf(a)):
        return nan
    if a == 0 or mp.isinf(a):
        return sign * (0 if (a == 0) == (b > 0) else inf)
    return sign * mp.power(abs(a), b)


def along_base(a, b):
    """b and b - 1 are rounded, which weighs as much as log a; whole exponents are exact."""
    found = [tail(raised(a, b - k), mp.fprod(b - i for i in range(k))) for k in range(3)]
    if b == mp.floor(b) or not a > 0 or mp.isinf(a):
        return found
    return [[y, y * mp.log(a), -y * mp.log(a)] for y in found]


def along_exponent(b, a):
    y = raised(a, b)
    return [y, 0, 0] if a == 0 else [y, tail(mp.log(a), y), tail(mp.log(a) ** 2, y)]


def logarithm(x, shift=0):
    """Below the domain the value is NaN and the slope is still 1 / x; at -0.0 it is that of 1 / x."""
    slope = over(1, x + shift if shift else x)
    return (nan if x + shift < 0 else (mp.log1p if shift else mp.log)(x) if x + shift else -inf), slope, -abs(slope) ** 2


def root(x):
    """In terms of the root y, where -0.0 has the root -0.0: the slope is 1 / 2y."""
    y = x if x == 0 else nan if x < 0 else mp.sqrt(x)
    return y, over(1, 2 * y), -over(1, 4 * y**3)


def soft(x):
    return mp.log1p(mp.exp(-abs(x))) + max(x, 0)


def gelu(x):
    c = mp.sqrt(2 / mp.pi)
    u, du, ddu = c * (x + 0.044715 * x**3), c * (1 + 3 * 0.044715 * x * x), c * 6 * 0.044715 * x
    bend, s = sech2(u), sigma(2 * u)
    rounded = 0 if mp.isinf(x) else tail(2 * u, tail(x, s))  # in the left tail the exponent's rounding weighs as the exponent
    return ([tail(x, s), rounded, -rounded], [s, tail(x / 2 * du, bend)],
            [tail(du, bend), tail(x / 2 * ddu, bend), tail(-x * du * du * mp.tanh(u), bend)])


def silu(x):
    s, bend = sigma(x), sigma(x) * sigma(-x)
    return tail(x, s), [s, tail(x, bend)], [2 * bend, tail(x * mp.tanh(-x / 2), bend)]


def piecewise(value, slope):
    return value, slope, 0


def bounded_log(q, exact):
    if not 0 <= q < mp.exp(-100):
        return nan if q < 0 else exact, 1 / q, -1 / q**2
    return mp.mpf(-100), mp.mpf(10) ** 12, 0


def bce(p, t):
    """Outside [0, 1] the value is NaN and the slopes are those of the formula."""
    a, b = bounded_log(p, mp.log(p) if p > 0 else nan), bounded_log(1 - p, mp.log1p(-p) if p < 1 else nan)
    return [[-t * a[k], -(1 - t) * b[k] * (-1) ** k] for k in range(3)]


def logit_loss(z, t, w=1):
    bend = sigma(z) * sigma(-z)
    return ([tail(soft(-z), w * t), tail(soft(z), 1 - t)], [-w * t * sigma(-z), (1 - t) * sigma(z)], (w * t + 1 - t) * bend)


def weights(x):
    """The largest entry, the log of the sum relative to it, and the softmax.  The sum is at least 1 and has its rounding, so
    that the log has the error of a term of size 1.  Next to one infinity all other entries vanish; where several
    leave no limit NaN comes out, and any second slope."""
    top = max(x)
    if mp.isinf(top):
        alone = top > 0 and x.count(top) == 1
        return top, [0], [mp.mpf(v == top) if alone else nan for v in x]
    e = [mp.exp(v - top) for v in x]
    return top, [mp.log(mp.fsum(e)), 1, -1], [v / mp.fsum(e) for v in e]


def second(s, slopes):
    return [None] * len(s) if nan_in(s) else slopes


def softmax(*x):
    s, n = weights(x)[2], range(len(x))
    return s[0], [[s[0] * (k == 0), -s[0] * s[k]] for k in n], second(s, [
        [s[0] * (k == 0), -s[0] * s[k], -2 * s[0] ** 2 * (k == 0), 2 * s[0] ** 2 * s[k]] for k in n])


def logsumexp(*x):
    top, total, s = weights(x)
    return [top, *total], s, second(s, [[s[0] * (k == 0), -s[0] * v] for k, v in enumerate(s)])


def log_softmax(*x, sign=1):
    top, total, s = weights(x)
    gap = 0 if x[0] == top and s[0] == 1 else x[0] - top
    return ([sign * gap, *(-sign * v for v in total)], [[sign * (k == 0), -sign * v] for k, v in enumerate(s)],
            second(s, [[-sign * s[0] * (k == 0), sign * s[0] * v] for k, v in enumerate(s)]))


def norm(*x, centred):
    """The mean is rounded, so a norm has the error of a number of size 1, its slope of 1 / r, its second slope of 1 / r²."""
    n = len(x)
    mean = mp.fsum(x) / n if centred else 0
    d = [v - mean for v in x]
    r = mp.sqrt(mp.fsum(v * v for v in d) / n + 1e-5)
    e = [(k == 0) - mp.mpf(1) / n * centred for k in range(n)]
    size = [[c / r**k for c in (1, -1)] for k in range(3)]
    return ([d[0] / r, *size[0]],
            [[e[k] / r, -d[0] * d[k] / (n * r**3), *size[1]] for k in range(n)],
            [[-e[0] * d[k] / (n * r**3), -2 * d[0] * e[k] / (n * r**3), 3 * d[0] ** 2 * d[k] / (n**2 * r**5), *size[2]]
             for k in range(n)])


def loss(f, **options):
    return lambda x, t: f(x, t, reduction="none", **options)


def first(f):
    return lambda x: f(x)[:, 0]


def of_class_0(f):
    return lambda x: f(x, np.zeros(x.shape[0], int), reduction="none")


# name -> function of a column, of two columns, or of rows; points; truth
TABLE = {
    "exp": (tr.exp, line, lambda x: [mp.exp(x)] * 3),
    "expm1": (tr.expm1, line, lambda x: (mp.expm1(x), mp.exp(x), mp.exp(x))),
    "log": (tr.log, line, logarithm),
    "log1p": (tr.log1p, line, partial(logarithm, shift=1)),
    "sqrt": (tr.sqrt, line, root),
    "abs": (tr.abs, line, lambda x: piecewise(abs(x), mp.sign(x))),
    "tanh": (tr.tanh, line, lambda x: (mp.tanh(x), sech2(x), -2 * mp.tanh(x) * sech2(x))),
    "sigmoid": (tr.sigmoid, line, lambda x: (sigma(x), sigma(x) * sigma(-x), -mp.tanh(x / 2) * sigma(x) * sigma(-x))),
    "relu": (tr.relu, line, lambda x: piecewise(max(x, 0), x > 0)),
    "softplus": (tr.softplus, line, lambda x: (soft(x), sigma(x), sigma(x) * sigma(-x))),
    "sin": (tr.sin, line, lambda x: [nan] * 3 if mp.isinf(x) else (mp.sin(x), mp.cos(x), -mp.sin(x))),
    "cos": (tr.cos, line, lambda x: [nan] * 3 if mp.isinf(x) else (mp.cos(x), -mp.sin(x), -mp.cos(x))),
    "silu": (tr.silu, line, silu),
    "gelu": (tr.gelu, line, gelu),
    "elu": (tr.elu, line, lambda x: piecewise(x, 1) if x > 0 else (mp.expm1(x), mp.exp(x), mp.exp(x))),
    "hard_sigmoid": (tr.hard_sigmoid, line, lambda x: piecewise(min(max(x / 6 + 0.5, 0), 1), (abs(x) <= 3) / mp.mpf(6))),
    "clip": (lambda x: tr.clip(x, -1.0, 2.0), line, lambda x: piecewise(min(max(x, -1), 2), -1 <= x <= 2)),
    "maximum, the first": (lambda x, b: tr.maximum(x, b), pairs, lambda x, b: piecewise(max(x, b), x > b)),
    "maximum, the second": (lambda x, a: tr.maximum(a, x), pairs, lambda x, a: piecewise(max(x, a), x >= a)),
    "minimum, the first": (lambda x, b: tr.minimum(x, b), pairs, lambda x, b: piecewise(min(x, b), x < b)),
    "minimum, the second": (lambda x, a: tr.minimum(a, x), pairs, lambda x, a: piecewise(min(x, a), x <= a)),
    "x / b": (lambda x, b: x / b, pairs, lambda x, b: (over(x, b), over(1, b), 0)),
    "a / x": (lambda x, a: a / x, pairs, lambda x, a: (over(a, x), -over(over(a, x), x), 2 * over(over(over(a, x), x), x))),
    "x ** b": (lambda x, b: x ** b, powers, along_base),
    "a ** x": (lambda x, a: a ** x, exponents, along_exponent),
    "2 ** x": (lambda x: 2.0 ** x, line, lambda x: [mp.power(2, x) * mp.log(2) ** k for k in range(3)]),
    **{f"x ** {k}": (lambda x, k=k: x ** k, line, partial(lambda k, x: along_base(x, mp.mpf(k)), k))
       for k in (0, 0.5, 1, 2, 3, 1.5, 0.3, -1, -2, -0.5)},
    "softmax": (first(tr.softmax), unbounded, softmax),
    "log_softmax": (first(tr.log_softmax), unbounded, log_softmax),
    "logsumexp": (tr.logsumexp, unbounded, logsumexp),
    "layer_norm": (first(tr.layer_norm), to_norm, partial(norm, centred=True)),
    "rms_norm": (first(tr.rms_norm), rows, partial(norm, centred=False)),
    "mse": (loss(tr.nn.mse), pairs, lambda x, t: ((x - t) ** 2, 2 * (x - t), 2)),
    "bce": (loss(tr.nn.bce), unit, bce),
    "bce_with_logits": (loss(tr.nn.bce_with_logits), targets, logit_loss),
    "bce_with_logits, weighted": (loss(tr.nn.bce_with_logits, pos_weight=3.0), targets, partial(logit_loss, w=3)),
    "cross_entropy": (of_class_0(tr.nn.cross_entropy), unbounded, partial(log_softmax, sign=-1)),
    "nll": (of_class_0(tr.nn.nll), unbounded, lambda *x: (-x[0], [-1, 0, 0], [0, 0, 0])),
}

# A slope that is computed from the result y, as documented (tanh' = 1 - y², σ' = y - y²), has the rounding of y and not of the
# slope, in the tails and where it passes through 0: it is as precise as if terms of this size (value, slope, second slope) had
# cancelled.  In float64 a norm's 1 / r³ underflows from 1e103.
CANCELS = {"tanh": (0, 1, 1), "sigmoid": (0, 1, 1), "softplus": (0, 0, 1), "silu": (0, 0, 2), "gelu": (0, 5, 5),
           "bce_with_logits": (0, 0, 1), "bce_with_logits, weighted": (0, 0, 3),
           "layer_norm": (0, 0, 1e-286), "rms_norm": (0, 0, 1e-286)}

# point -> value, slope, second slope, where the mathematics leaves a choice
CONVENTIONS = {
    "relu": {(0,): (0, 0, 0)},
    "abs": {(0,): (0, 0, 0)},
    "elu": {(0,): (0, 1, 1)},
    "clip": {(-1,): (-1, 1, 0), (2,): (2, 1, 0)},
    "hard_sigmoid": {(-3,): (0, mp.mpf(1) / 6, 0), (3,): (1, mp.mpf(1) / 6, 0)},
    "maximum, the first": {(0, 0): (0, 0, 0), (1, 1): (1, 0, 0), (inf, inf): (inf, 0, 0)},
    "maximum, the second": {(0, 0): (0, 1, 0), (1, 1): (1, 1, 0), (inf, inf): (inf, 1, 0)},
    "minimum, the first": {(0, 0): (0, 0, 0), (1, 1): (1, 0, 0), (-inf, -inf): (-inf, 0, 0)},
    "minimum, the second": {(0, 0): (0, 1, 0), (1, 1): (1, 1, 0), (-inf, -inf): (-inf, 1, 0)},
    "x ** b": {(0, 0): (1, 0, 0), (0, 0.5): (0, inf, -inf), (0, 1): (0, 1, 0), (0, 2): (0, 0, 2), (0, 3): (0, 0, 0)},
    "a ** x": {(0, 0): (1, 0, 0), (0.5, 0): (0, 0, 0), (2, 0): (0, 0, 0), (-1, 0): (inf, 0, 0)},
    "x ** 0": {(0,): (1, 0, 0), (inf,): (1, 0, 0)},
    **{f"x ** {k}": {(-inf,): (nan, nan, nan)} for k in (0.5, 1.5, -0.5)},  # the root of a negative number
    "bce": {(0, 0): (0, 1, 1), (0, 1): (100, -1e12, 0), (1, 0): (100, 1e12, 0), (1, 1): (0, -1, 1)},
}

# The same for points with a NaN, which comes out of value, slope and second slope but where these do not read the operand: a
# comparison with NaN does not hold, x ** 0 is 1 for every x, and a line has the same slope everywhere.
AT_NAN = {
    "relu": lambda x: (nan, 0, 0), "clip": lambda x: (nan, 0, 0), "hard_sigmoid": lambda x: (nan, 0, 0),
    "abs": lambda x: (nan, nan, 0), "mse": lambda x, t: (nan, nan, 2), "x / b": lambda x, b: (nan, over(1, b), 0),
    **{f"{m}, the first": lambda x, b: (nan, 0, 0) for m in ("maximum", "minimum")},
    **{f"{m}, the second": lambda x, a: (nan, 1, 0) for m in ("maximum", "minimum")},
    **{name: TABLE[name][2] for name in ("x ** b", "x ** 0", "x ** 1", "x ** 2", "nll")},
}

# what is NaN (or the limit, entry by entry of a row) at which points with an infinity; everywhere else it is the limit, where
# there is one
ALONE = [(inf, 0, 1), (inf, -inf, 0)]
NAN_AT_INFINITY = {
    **{(name, what): [(inf,), (-inf,)] for name in ("silu", "gelu") for what in WHAT[1:]},
    ("gelu", "second slope"): [(s * float(np.dtype(d).type(x[2])),) for d, x in SIZES.items() for s in (1, -1)] + [(inf,), (-inf,)],
    ("a ** x", "second slope"): [(b, inf) for b in (-1, -2, -0.5)],
    ("a ** x", "slope"): [(b, 0) for b in (-1, -2, -0.5)],          # whose value is infinite
    **{("softmax", what): [*ALONE, (0, inf, 1)] for what in WHAT},
    **{(name, what): ALONE for name in ("log_softmax", "cross_entropy") for what in ("value", "second slope")},
    ("logsumexp", "second slope"): ALONE,
}


# beside an infinite logit these are infinite or NaN, which no training goes on from, and their slopes say nothing
WITHOUT_SLOPE = ("logsumexp", "log_softmax", "cross_entropy")


def orders(f, x, *others):
    """Values, slopes along x (along every entry of a row), and second slopes (those along the first entry, differentiated)."""
    y = f(x, *others)
    g = tr.grad(y.sum(), x)
    return y, g, tr.grad((g if g.ndim == 1 else g[:, 0]).sum(), x)


@cache
def found(name, dtype, compiled):
    f, points, _ = TABLE[name]
    given = np.array(points(dtype), dtype)
    columns = [given] if points in (rows, to_norm, unbounded) else list(given.T.copy())
    with np.errstate(all="ignore"):
        if compiled:
            return tr.compile(partial(orders, f), threads=1, strict=True)(*columns)
        return [t.numpy() for t in orders(f, tr.parameter(columns[0]), *map(tr.tensor, columns[1:]))]


@cache
def truth(name, dtype):
    """Value, slope and second slope at every point; slopes of a row are lists of what belongs to its entries."""
    _, points, exact = TABLE[name]
    choices, right = CONVENTIONS.get(name, {}), []
    with mp.workdps(50):
        for p in np.array(points(dtype), dtype).tolist():
            given = [mp.mpf(v) if v else v for v in p]
            chosen = None if "-0.0" in map(str, p) else choices.get(tuple(p))
            f = AT_NAN.get(name, lambda *p: (nan, nan, nan)) if nan_in(p) else exact
            right.append(f(*given) if chosen is None else chosen)
        assert set(choices) <= {tuple(p) for p in np.array(points(dtype), dtype).tolist()}
    return right


def wrong(y, terms, dtype, tolerance, cancelled):
    """What is wrong with y: a number where there is none or NaN where there is one, another infinity, or too far off."""
    if terms is None:
        return ""
    exact, size, info = mp.fsum(terms), mp.fsum(map(abs, terms)), np.finfo(dtype)
    if mp.isnan(exact):
        right = np.isnan(y)
    elif abs(exact) > float(info.max):
        right = y == (inf if exact > 0 else -inf)
    else:
        right = abs(mp.mpf(float(y)) - exact) <= tolerance * (size + cancelled) + float(info.tiny)
    return "" if right else f"{y!r}, not {float(exact)!r}"


@pytest.mark.parametrize("way", ["interpreted", "compiled"])
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", TABLE)
def test_value_and_slopes(name, what, dtype, way):
    k = WHAT.index(what)
    tolerance, cancelled = SIZES[dtype][0] * (10 if k == 2 else 1), CANCELS.get(name, (0, 0, 0))[k]
    points, got, bad = np.array(TABLE[name][1](dtype), dtype).tolist(), found(name, dtype, way == "compiled")[k], []
    assert got.dtype == dtype
    excused = NAN_AT_INFINITY.get((name, what), ())
    values = found(name, dtype, way == "compiled")[0]
    with mp.workdps(50):
        for p, y, value, right in zip(points, got, values, truth(name, dtype), strict=True):
            if k and name in WITHOUT_SLOPE and inf in p:
                assert not np.isfinite(value)
                continue
            parts = right[k] if y.ndim and isinstance(right[k], list | tuple) else [right[k]] * y.size
            for j, (one, t) in enumerate(zip(y.flat, parts, strict=True)):
                said = wrong(one, t if t is None or isinstance(t, list) else [t], dtype, tolerance, cancelled)
                if said and not (tuple(p) in excused and np.isnan(one)):
                    bad.append(f"{p}[{j}]: {said}" if y.ndim else f"{p}: {said}")
            if tuple(p) in excused and not np.isnan(y).any():
                bad.append(f"{p}: {y!r}, no longer NaN")
    assert not bad, f"{len(bad)} wrong\n" + "\n".join(bad)
