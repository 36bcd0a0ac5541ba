"""Numbers of the checker: residues modulo 2^61 - 1 with tangents, floats that decide branches, and degree bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2b
from math import cos, exp, isfinite, isnan, log, log1p, sin, sqrt, tanh
from typing import Any, NamedTuple

import numpy as np

from ...errors import LoadError

P = 2**61 - 1


class NearError(LoadError):
    """The floats that decide branches are not finite."""


Array = Any


class Number:
    """A float that decides branches, a residue, a tangent, and bounds of the degrees of both."""

    __slots__ = ("degree", "near", "point", "slope_degree", "tangent", "value")

    def __init__(self, point: Point, near: float, value: int, tangent: int = 0, degree: float = 0.0,
                 slope_degree: float = 0.0) -> None:
        self.point, self.near, self.value, self.tangent = point, near, value % P, tangent % P
        self.degree, self.slope_degree = degree, slope_degree

    def __add__(self, other: Any) -> Number:
        b = self.point.number(other)
        return Number(self.point, self.near + b.near, self.value + b.value, self.tangent + b.tangent,
                      max(self.degree, b.degree), max(self.slope_degree, b.slope_degree))

    def __mul__(self, other: Any) -> Number:
        a, b = self, self.point.number(other)
        return Number(a.point, a.near * b.near, a.value * b.value, a.tangent * b.value + a.value * b.tangent,
                      a.degree + b.degree, max(a.slope_degree + b.degree, a.degree + b.slope_degree))

    def __neg__(self) -> Number:
        return Number(self.point, -self.near, -self.value, -self.tangent, self.degree, self.slope_degree)

    def __sub__(self, other: Any) -> Number:
        return self + -self.point.number(other)

    def __rsub__(self, other: Any) -> Number:
        return self.point.number(other) + -self

    def __truediv__(self, other: Any) -> Number:
        return self * self.point.reciprocal(self.point.number(other))

    def __rtruediv__(self, other: Any) -> Number:
        return self.point.number(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def steady(self) -> Number:
        return Number(self.point, self.near, self.value, 0, self.degree)


def _near(f: Callable[[float], float]) -> Callable[[float], float]:
    def safe(x: float) -> float:
        try:
            y = f(x)
            return y if isinstance(y, float) else float("nan")
        except (ValueError, OverflowError, ZeroDivisionError):
            return float("nan")
    return safe


class Function(NamedTuple):
    """A function: on floats, its slope from output and argument, its value at 0, its value at -x from that at x."""

    near: Callable[[float], float]
    slope: Callable[[Point, Number, Number], Number]
    at_zero: Fraction | None = None
    mirror: Callable[[int], int] | None = None


FUNCTIONS: dict[str, Function] = {
    "sigmoid":    Function(lambda x: 0.5 + 0.5 * tanh(x / 2), lambda p, y, x: y - y * y, Fraction(1, 2), lambda y: 1 - y),
    "exp":        Function(_near(exp), lambda p, y, x: y, Fraction(1)),
    "log":        Function(_near(log), lambda p, y, x: p.reciprocal(x)),
    "sqrt":       Function(_near(sqrt), lambda p, y, x: 0.5 * p.reciprocal(y)),
    "sin":        Function(sin, lambda p, y, x: p.call("cos", x), Fraction(0), lambda y: -y),
    "cos":        Function(cos, lambda p, y, x: -p.call("sin", x), Fraction(1), lambda y: y),
    "softplus":   Function(lambda x: max(x, 0) + log1p(exp(-abs(x))), lambda p, y, x: p.call("sigmoid", x)),
    "reciprocal": Function(_near(lambda x: 1 / x), lambda p, y, x: -(y * y), None, lambda y: -y),
}


class Point:
    """A random point of the field: inputs drawn once, one free element for each argument of a function."""

    def __init__(self, seed: int, positive: bool = False) -> None:
        self.positive = positive
        self.rng = np.random.default_rng(seed)
        self.key = self.rng.bytes(16)
        self.seen: dict[tuple[str, int], int] = {}
        self.argument_degree = 1.0
        self.powers: dict[tuple[int, int], Number] = {}

    def draw(self, shape: Sequence[int], moves: bool) -> Array:
        return filled(shape, lambda: Number(self, self._float(), self._any(),
                                            self._any() if moves else 0, 1.0, 1.0 if moves else 0.0))

    def _float(self) -> float:
        return float(self.rng.uniform(0.2, 1.2) * (1 if self.positive else self.rng.choice([-1, 1])))

    def _any(self) -> int:
        return int(self.rng.integers(P))

    def number(self, x: Any) -> Number:
        if isinstance(x, Number):
            return x
        v = float(x)
        if not isfinite(v):
            return Number(self, v, self._hash(repr(v), 0), 0, 1.0)
        f = Fraction(repr(v))
        return Number(self, v, f.numerator * pow(f.denominator, -1, P))

    def reciprocal(self, x: Number) -> Number:
        """A known number has an inverse; of anything else the reciprocal is free."""
        if x.degree == 0:
            return Number(self, 1 / x.near, pow(x.value, -1, P))
        return self.call("reciprocal", x)

    def call(self, name: str, x: Number) -> Number:
        if name == "tanh":
            return 2 * self.call("sigmoid", 2 * x) - 1
        f = FUNCTIONS[name]
        self.argument_degree = max(self.argument_degree, x.degree)
        y = Number(self, f.near(x.near), self._value(name, f, x.value), 0, 1.0)
        if x.tangent:
            s = f.slope(self, y, x.steady())
            y.tangent, y.slope_degree = s.value * x.tangent % P, s.degree + x.slope_degree
        return y

    def _value(self, name: str, f: Function, v: int) -> int:
        """One free element for v and -v together, where the function knows its mirror image."""
        if v == 0 and f.at_zero is not None:
            return f.at_zero.numerator * pow(f.at_zero.denominator, -1, P) % P
        if f.mirror is not None and v > P // 2:
            return f.mirror(self._hash(name, P - v))
        return self._hash(name, v)

    def _hash(self, name: str, v: int) -> int:
        if (name, v) not in self.seen:
            digest = blake2b(f"{name} {v}".encode(), digest_size=16, key=self.key).digest()
            self.seen[name, v] = int.from_bytes(digest, "big") % P
        return self.seen[name, v]

    def power(self, a: Number, k: float) -> Number:
        """x^k for a known k, with d(x^k) = k x^(k-1) dx.

        A gradient's exponent k - 1 was rounded in floating point, hence the 12 digits.
        """
        factor, k = self.number(k), float(f"{k:.12g}")
        y = self._known_power(a.steady(), k)
        return self._moving(y, [(factor * self._known_power(a.steady(), k - 1), a)])

    def _known_power(self, a: Number, k: float) -> Number:
        """Whole powers and halves by products; others are free."""
        k = float(f"{k:.12g}")
        if k.is_integer() and abs(k) <= 64:
            return self._product(a if k > 0 else self.reciprocal(a), abs(int(k)))
        if (2 * k).is_integer() and abs(k) <= 32:
            root = self.call("sqrt", a)
            return self._product(root if k > 0 else self.reciprocal(root), abs(int(2 * k)))
        return self._free_power(a, self.number(k))

    def _product(self, a: Number, n: int) -> Number:
        y = self.number(1)
        for _ in range(n):
            y = y * a
        return y

    def general_power(self, a: Number, b: Number) -> Number:
        """d(a^b) = b a^(b-1) da + a^b log a db."""
        u, v = a.steady(), b.steady()
        y = self._free_power(u, v)
        terms = [(v * self._free_power(u, v - 1), a)] if a.tangent else []
        return self._moving(y, [*terms, (y * self.call("log", u), b)] if b.tangent else terms)

    def _free_power(self, a: Number, b: Number) -> Number:
        """Powers whose exponents differ by one are a factor of a apart; of two such, the first one met is free."""
        known = self.powers.get((a.value, b.value))
        if known is None:
            higher, lower = (self.powers.get((a.value, (b.value + k) % P)) for k in (1, -1))
            known = (higher * self.reciprocal(a) if higher is not None else lower * a if lower is not None else
                     self.call("exp", b * self.call("log", a)))
            known.near = _near(lambda x: x ** b.near)(a.near)
            self.powers[a.value, b.value] = known
        return known

    def _moving(self, y: Number, terms: Sequence[tuple[Number, Number]]) -> Number:
        """The number with the tangent Σ slope × tangent."""
        found = Number(self, y.near, y.value, sum(s.value * x.tangent for s, x in terms), y.degree)
        found.slope_degree = max((s.degree + x.slope_degree for s, x in terms), default=0.0)
        return found


# ---- arrays of numbers

def filled(shape: Sequence[int], make: Callable[[], Any]) -> Array:
    out = np.empty(tuple(shape), object)
    for i in np.ndindex(out.shape):
        out[i] = make()
    return out


def each(f: Callable[..., Any], *x: Any) -> Array:
    """f entry by entry, with broadcasting."""
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), object)


def still(x: Array) -> Array:
    """The same numbers, none of which moves."""
    return each(lambda a: a.steady(), x) if x.dtype == object else x


def truths(f: Callable[..., bool], *x: Any) -> Array:
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), bool)


def near(x: Any) -> float:
    v = x.near if isinstance(x, Number) else float(x)
    if isnan(v):
        raise NearError("a branch of the program depends on a NaN of the float run")
    return float(v)


def nears(x: Any) -> Any:
    return np.asarray(np.frompyfunc(near, 1, 1)(x), float)


def clipped(m: Point, a: Any, low: float, high: float) -> Number:
    """The number moved into [low, high], where its float says so."""
    return m.number(low) if near(a) < low else m.number(high) if near(a) > high else a


def summed(x: Array, axes: tuple[int, ...], keepdims: bool, point: Point) -> Array:
    if x.dtype != object:
        return np.sum(x, axis=axes, keepdims=keepdims)
    empty = any(x.shape[i] == 0 for i in axes)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes]
    return filled(shape, lambda: point.number(0)) if empty else np.asarray(np.sum(x, axis=axes, keepdims=keepdims), object)


def extreme(choose: Any, x: Array, axes: tuple[int, ...], keepdims: bool, point: Point) -> Array:
    """Ties share evenly."""
    if x.dtype != object:
        return choose(x, axis=axes, keepdims=keepdims)
    floats = nears(x)
    hit = floats == choose(floats, axis=axes, keepdims=True)
    return summed(each(lambda a, s: a * s, x, hit / hit.sum(axis=axes, keepdims=True)), axes, keepdims, point)
