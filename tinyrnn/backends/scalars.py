"""Scalar functions as branch-free programs: one table for every domain that emits code.

A program is written over values with `+ - * /` and such a domain `m`:

    m.number(c, x)      the number c with the width and type of x
    m.fma(a, b, c)      a b + c, rounded once where the hardware can
    m.select(p, a, b)   a where p holds, b elsewhere; a comparison with NaN does not hold
    m.less(a, b), m.equal(a, b), m.abs(x), m.copysign(x, sign)
    m.bits(x), m.pattern(i, x), m.shift_left(i, n), m.shift_right(i, n)     the pattern of bits, and back
    m.widen(x), m.narrow(y, x)     float32 to float64 and back

Measured errors, in units in the last place, are in `ULP`; the tests hold every program to them over its whole range:
denormals, ±0, infinities and NaN included.
"""

from __future__ import annotations

from math import factorial, log
from typing import Any, NamedTuple


class Format(NamedTuple):
    """What the programs need to know of a floating-point type."""

    fraction: int    # bits of the fraction
    bias: int        # of the exponent
    magic: float     # added and subtracted, it rounds to a whole number
    ln2_high: float  # ln 2 with trailing zeros, so that n times it is exact
    ln2_low: float
    largest: float   # exp of more overflows
    smallest: float  # exp of less is zero
    terms: int       # of the series of exp
    tiny: float      # the smallest normal number


FORMATS = {
    32: Format(23, 127, 1.5 * 2.0**23, 0.693359375, -2.12194440054690583e-4, 89.0, -104.0, 7, 2.0**-126),
    64: Format(52, 1023, 1.5 * 2.0**52, float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33"), 710.0,
               -746.0, 13, 2.0**-1022),
}
"""float32 and float64.  The two parts of ln 2 are Cody & Waite's (1980)."""

ULP = {
    "exp": {32: 1.5, 64: 1.5}, "expm1": {32: 1.0, 64: 3.0}, "tanh": {32: 6.0, 64: 3.5}, "sigmoid": {32: 3.0, 64: 3.0},
    "log": {32: 1.0, 64: 1.5}, "log1p": {32: 1.0, 64: 2.5}, "softplus": {32: 4.0, 64: 4.0},
    "sqrt": {32: 0.5, 64: 0.5}, "sin": {32: 1.0, 64: 1.0}, "cos": {32: 1.0, 64: 1.0},
}
"""The largest error of each program in float32 and float64, in units in the last place."""

TANH_NUMERATOR = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
                  1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)
TANH_DENOMINATOR = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
TANH_LIMIT = 7.90531110763549805  # up to here the approximation stays below 1
TANH_ONE = 9.0109145              # from here tanh is 1 in float32
"""The rational approximation of degree 13/6 in use since Eigen 3.3."""


def polynomial(m: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme, the highest power first."""
    y = m.number(coefficients[0], x)
    for c in coefficients[1:]:
        y = m.fma(y, x, m.number(c, x))
    return y


def _clamp(m: Any, x: Any, low: float, high: float) -> Any:
    """`x` within [low, high]; NaN stays NaN, by the order of the comparisons."""
    x = m.select(m.less(m.number(high, x), x), m.number(high, x), x)
    return m.select(m.less(x, m.number(low, x)), m.number(low, x), x)


def _reduced_exp(m: Any, x: Any) -> tuple[Any, Any]:
    """q and n with `eˣ = (1 + q) 2ⁿ`, |q| <= 0.42: the series of `eʳ - 1` at r = x - n ln 2."""
    f = FORMATS[x.width]
    magic = m.number(f.magic, x)
    shifted = m.fma(x, m.number(1 / log(2), x), magic)
    n = shifted - magic
    r = m.fma(n, m.number(-f.ln2_high, x), x)
    r = m.fma(n, m.number(-f.ln2_low, x), r)
    series = tuple(1 / factorial(k) for k in range(f.terms, 1, -1))
    return m.fma(polynomial(m, r, series), r * r, r), m.bits(shifted) - m.bits(magic)


def _power_of_two(m: Any, n: Any, like: Any) -> Any:
    f = FORMATS[like.width]
    return m.pattern(m.shift_left(n + m.whole(f.bias, n), f.fraction), like)


def _scaled(m: Any, y: Any, n: Any) -> Any:
    """`y 2ⁿ` in two steps, so that neither factor leaves the range before the product does."""
    half = m.shift_right(n, 1)
    return y * _power_of_two(m, half, y) * _power_of_two(m, n - half, y)


def exp(m: Any, x: Any) -> Any:
    f = FORMATS[x.width]
    x = _clamp(m, x, f.smallest, f.largest)
    q, n = _reduced_exp(m, x)
    return _scaled(m, q + m.number(1.0, q), n)


def expm1(m: Any, x: Any) -> Any:
    if x.width == 32:
        return m.narrow(expm1(m, m.widen(x)), x)
    one = m.number(1.0, x)
    y = _clamp(m, x, -80.0, FORMATS[64].largest)
    q, n = _reduced_exp(m, y)
    near = m.select(m.less(m.abs(y), m.number(5.0, y)), n, n - n)
    scale = _power_of_two(m, near, y)
    small = m.fma(scale, q, scale - one)
    large = _scaled(m, q + one, n) - one
    y = m.select(m.less(m.abs(y), m.number(5.0, y)), small, large)
    return m.select(m.equal(x, m.number(0.0, x)), x, y)


def tanh(m: Any, x: Any) -> Any:
    if x.width == 64:
        t = expm1(m, _clamp(m, m.abs(x), 0.0, 20.0) * m.number(2.0, x))
        return m.copysign(t / (t + m.number(2.0, t)), x)
    y = _clamp(m, x, -TANH_LIMIT, TANH_LIMIT)
    square = y * y
    ratio = y * polynomial(m, square, TANH_NUMERATOR) / polynomial(m, square, TANH_DENOMINATOR)
    ratio = m.select(m.less(m.number(TANH_ONE, x), m.abs(x)), m.copysign(m.number(1.0, x), x), ratio)
    return m.select(m.less(m.abs(x), m.number(4e-4, x)), x, ratio)


def sigmoid(m: Any, x: Any) -> Any:
    one = m.number(1.0, x)
    e = exp(m, -m.abs(x))
    return m.select(m.less(x, m.number(0.0, x)), e, one) / (one + e)


def log_(m: Any, x: Any) -> Any:
    if x.width == 32:
        return m.narrow(log_(m, m.widen(x)), x)
    f = FORMATS[64]
    zero, one = m.number(0.0, x), m.number(1.0, x)
    small = m.less(x, m.number(f.tiny, x))
    y = m.select(small, x * m.number(2.0**54, x), x)
    pattern = m.bits(y)
    e = m.shift_right(pattern - m.bits(m.number(0.5**0.5, x)), f.fraction)
    s = m.pattern(pattern - m.shift_left(e, f.fraction), x) - one
    exponent = m.from_whole(e, x) - m.select(small, m.number(54.0, x), zero)
    y = _log_series(m, s, exponent)
    y = m.select(m.equal(x, m.number(float("inf"), x)), x, y)
    y = m.select(m.equal(x, zero), m.number(float("-inf"), x), y)
    y = m.select(m.less(x, zero), m.number(float("nan"), x), y)
    return m.select(m.equal(x, x), y, x)


def _log_series(m: Any, f: Any, exponent: Any) -> Any:
    """`log((1 + f) 2^exponent)` from the series of 2 atanh(f / (2 + f)), arranged as in fdlibm."""
    fmt = FORMATS[64]
    s = f / (f + m.number(2.0, f))
    z = s * s
    series = z * polynomial(m, z, tuple(2 / (2 * k + 1) for k in range(10, 0, -1)))
    half_square = m.number(0.5, f) * f * f
    tail = m.fma(s, half_square + series, exponent * m.number(fmt.ln2_low, f))
    return m.fma(exponent, m.number(fmt.ln2_high, f), f - (half_square - tail))


def log1p(m: Any, x: Any) -> Any:
    if x.width == 32:
        return m.narrow(log1p(m, m.widen(x)), x)
    zero, one = m.number(0.0, x), m.number(1.0, x)
    u = one + x
    lost = m.select(m.less(x, one), x - (u - one), one - (u - x))
    y = log_(m, u) + lost / u
    y = m.select(m.equal(x, m.number(float("inf"), x)), x, y)
    y = m.select(m.equal(u, zero), m.number(float("-inf"), x), y)
    return m.select(m.equal(x, zero), x, y)


PROGRAMS = {"exp": exp, "expm1": expm1, "tanh": tanh, "sigmoid": sigmoid, "log": log_, "log1p": log1p}
"""Every scalar function that is not an instruction of the hardware."""

