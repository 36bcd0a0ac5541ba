"""Numbers of the checker: residues modulo a prime with tangents, floats that decide branches, and degree bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2b
from math import cos, exp, isfinite, isnan, log, log1p, sin, sqrt, tanh
from operator import add
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import LoadError

Array = Any
SMALLEST = 2**60
DECADES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
SMALL = np.array([1.0, 1.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3.0])
SIMPLE = 2**20
KINK, SIDE, TIE = range(3)
CHOSEN = 2.0**-100  # the degree of a number that is known, but that data has chosen
Decisions = tuple[set[int], set[int], set[int]]
ROUNDING = -1  # stands for a decision between numbers that are equal but for rounding


class DrawnArray(np.ndarray[Any, Any]):
    """Whole numbers or bools that were drawn, or decided by floats, and what follows from them."""


def marked(x: npt.NDArray[Any], *of: object) -> Any:
    """Marked as drawn where any of the others is."""
    return np.asarray(x).view(DrawnArray) if any(isinstance(v, DrawnArray) for v in of) else x


class NearError(LoadError):
    """The floats that decide branches are not finite, or an index lies outside of its table: the draw says nothing."""


class Allowance:
    """How much may still be done: a count of numbers, never a clock."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def spend(self, count: int) -> None:
        """Count numbers before they are made."""
        self.left -= count
        if self.left < 0:
            raise LoadError(f"the certificate asks for more than {self.most:,} numbers")


def drawn_prime(rng: np.random.Generator) -> int:
    """A random prime of 61 bits."""
    from sympy import isprime

    while True:
        p = 4 * int(rng.integers(SMALLEST // 4, SMALLEST // 2)) + 3
        if pow(2, p - 1, p) == 1 and isprime(p):
            return p


class Residue:
    """A float that decides branches, a residue, a tangent, and bounds of the degrees of both."""

    __slots__ = ("degree", "near", "point", "slope_degree", "tangent", "value")

    def __init__(self, point: FieldPoint, near: float, value: int, tangent: int = 0, degree: float = 0.0,
                 slope_degree: float = 0.0) -> None:
        self.point, self.near, self.value, self.tangent = point, near, value % point.p, tangent % point.p
        self.degree, self.slope_degree = degree, slope_degree
        point.work.left -= 1
        if point.work.left < 0:
            point.work.spend(0)

    def __add__(self, other: object) -> Residue:
        b, join = self.point.number(other), self.point.join
        return Residue(self.point, self.near + b.near, self.value + b.value, self.tangent + b.tangent,
                      join(self.degree, b.degree), join(self.slope_degree, b.slope_degree))

    def __mul__(self, other: object) -> Residue:
        a, b = self, self.point.number(other)
        return Residue(a.point, a.near * b.near, a.value * b.value, a.tangent * b.value + a.value * b.tangent,
                      a.degree + b.degree, a.point.join(a.slope_degree + b.degree, a.degree + b.slope_degree))

    def __neg__(self) -> Residue:
        return Residue(self.point, -self.near, -self.value, -self.tangent, self.degree, self.slope_degree)

    def __sub__(self, other: object) -> Residue:
        return self + -self.point.number(other)

    def __rsub__(self, other: object) -> Residue:
        return self.point.number(other) + -self

    def __truediv__(self, other: object) -> Residue:
        return self * self.point.reciprocal(self.point.number(other))

    def __rtruediv__(self, other: object) -> Residue:
        return self.point.number(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def at(self, near: Any) -> Residue:
        """The same number beside another float."""
        return Residue(self.point, float(near), self.value, self.tangent, self.degree, self.slope_degree)

    def steady(self) -> Residue:
        return Residue(self.point, self.near, self.value, 0, self.degree)


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
    slope: Callable[[FieldPoint, Residue, Residue], Residue]
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


class FieldPoint:
    """A random point of the field modulo p: inputs drawn once, one free element for each argument of a function.

    Draw 0 takes floats near 1, even ones many of them smaller, odd ones of many magnitudes, those of the given numbers among
    them, or all of one.
    With `modular`, 1/x is the inverse of x, not free: more identities hold, of higher degree.
    """

    def __init__(self, p: int, rng: np.random.Generator, work: Allowance, draw: int = 0, numbers: Sequence[float] = (),
                 positive: bool = False, modular: bool = False) -> None:
        self.p, self.rng, self.work, self.draw_number, self.positive, self.modular = p, rng, work, draw, positive, modular
        self.sizes = np.ones(1) if not draw else 2 * np.array([*DECADES, *numbers]) if draw % 2 else SMALL
        self.sizes = self.sizes[rng.integers(self.sizes.size, size=1)] if draw % 4 == 3 else self.sizes
        self.join: Callable[[float, float], float] = add if modular else max
        self.key = rng.bytes(16)
        self.strict = False  # whether an index beyond a one_hot is an error, as it is for other lookups
        self.branches = 0
        self.decisions: Decisions = (set(), set(), set())  # what was compared with 0: kinks and ties up to the sign, sides
        self.asked, self.outcomes = 0, dict[int, bool]()
        self.exponents: dict[float, Fraction] = {}
        self.seen: dict[tuple[str, int], int] = {}
        self.argument_degree = 1.0
        self.powers: dict[tuple[int, int], Residue] = {}

    def draw(self, shape: Sequence[int], moves: bool) -> Array:
        return filled(shape, lambda: Residue(self, self._float(), self._any(),
                                            self._any() if moves else 0, 1.0, 1.0 if moves else 0.0))

    def _float(self) -> float:
        size = float(self.rng.uniform(0.2, 1.2) * self.rng.choice(self.sizes))
        return size if self.positive or self.rng.random() < 0.5 else -size

    def _any(self) -> int:
        return int(self.rng.integers(self.p))

    def number(self, x: Any) -> Residue:
        if isinstance(x, Residue):
            return x
        v = float(x)
        if not isfinite(v):
            return Residue(self, v, self._hash(repr(v), 0), 0, 1.0)
        f = x if isinstance(x, Fraction) else Fraction(repr(v))
        return Residue(self, v, f.numerator * pow(f.denominator, -1, self.p))

    def reciprocal(self, x: Residue) -> Residue:
        """A known number has an inverse; of anything else the reciprocal is free."""
        if (x.degree < 1 or self.modular) and x.value == 0:
            raise NearError("the reciprocal of a number that is 0")
        if x.degree < 1:
            return Residue(self, _near(lambda v: 1 / v)(x.near), pow(x.value, -1, self.p), 0, x.degree)
        if not self.modular:
            return self.call("reciprocal", x)
        inverse = pow(x.value, -1, self.p)
        return Residue(self, _near(lambda v: 1 / v)(x.near), inverse, -inverse * inverse * x.tangent, x.degree,
                      2 * x.degree + x.slope_degree)

    # ---- branches

    def below(self, a: Any, b: Any, strictly: bool = True) -> bool:
        """Whether a < b, or a <= b; what is told from the rest is noted."""
        x, y = near(a), near(b)
        return self._noted(a, b, x < y, SIDE) if strictly else not self._noted(b, a, y < x, SIDE)

    def kink(self, a: Any, b: Any) -> bool:
        """Whether a < b, where the two choices are equal at the tie."""
        return self._noted(a, b, near(a) < near(b), KINK)

    def alike(self, a: Any, b: Any) -> bool:
        """Whether a == b."""
        return self._noted(a, b, near(a) == near(b), TIE)

    def sign(self, a: npt.NDArray[Any]) -> Residue:
        """-1, 0 or 1."""
        under, over, at = self.below(a, 0), self.below(0, a), self.alike(a, 0)
        return self.chosen(0 if at else over - under)

    def size(self, a: Residue) -> Residue:
        """|a|, whose slope at 0 is 0."""
        under, at = self.kink(a, 0), self.alike(a, 0)
        return self.chosen(-a if under else a * 0 if at else a)

    def chosen(self, x: object) -> Residue:
        """A number among which data has chosen: where it is known, its degree says that it is no constant."""
        n = self.number(x)
        if n.degree:
            return n
        return Residue(self, n.near, n.value, n.tangent, CHOSEN, n.slope_degree)

    def _noted(self, a: npt.NDArray[Any], b: npt.NDArray[Any], outcome: bool, kind: int) -> bool:
        u, v = (x if isinstance(x, Residue) else None for x in (a, b))
        self.asked += 1
        if (u is not None and u.degree) or (v is not None and v.degree):
            difference = (self.number(a).value - self.number(b).value) % self.p
            self.branches += 1
            self.outcomes[self.asked] = outcome
            if difference:
                self.decisions[kind].add(difference if kind == SIDE else min(difference, self.p - difference))
            elif near(a) != near(b):  # equal but for rounding, which decides
                self.decisions[kind].add(ROUNDING)
        return outcome

    def noted(self) -> Decisions:
        """The decisions so far."""
        kinks, sides, ties = self.decisions
        return set(kinks), set(sides), set(ties)

    def foreign(self, known: Decisions) -> bool:
        """Whether a decision was taken that is neither a known one nor a simple multiple of a known one.  At a kink either side
        may have the tie."""
        kinks, sides, ties = (new - old for new, old in zip(self.decisions, known, strict=True))
        if any(ROUNDING in new for new in (kinks, sides, ties)):
            return True
        smooth, jumps, equal = (k - {ROUNDING} for k in known)
        return bool(self._beyond(ties, equal) or self._beyond(kinks, smooth | jumps)
                    or self._beyond(self._beyond(sides, jumps, True), smooth))

    def _beyond(self, new: set[int], known: set[int], signed: bool = False) -> set[int]:
        """Those that are no simple multiple of a known number; with signs, no positive one."""
        self.work.spend(len(new) * len(known))
        return {v for v in new if not any(self._simple(v * pow(k, -1, self.p) % self.p, signed) for k in known)}

    def _simple(self, ratio: int, signed: bool) -> bool:
        """Whether a residue is a fraction of small whole numbers, a positive one (Wang, Guy & Davenport, 1982)."""
        a, b, s, t = self.p, ratio, 0, 1
        while b >= SIMPLE:
            a, b, s, t = b, a % b, t, s - a // b * t
        return abs(t) < SIMPLE and (t > 0 or not signed)

    def whole(self, v: Any) -> Residue:
        """A free element for each whole number that was drawn."""
        return Residue(self, float(v), self._hash("whole", int(v)), 0, 1.0)

    # ---- functions

    def call(self, name: str, x: Residue) -> Residue:
        if name == "tanh":
            return 2 * self.call("sigmoid", 2 * x) - 1
        f = FUNCTIONS[name]
        self.argument_degree = max(self.argument_degree, x.degree)
        y = Residue(self, f.near(x.near), self._value(name, f, x.value), 0, 1.0)
        if x.tangent:
            s = f.slope(self, y, x.steady())
            y.tangent, y.slope_degree = s.value * x.tangent % self.p, s.degree + x.slope_degree
        return y

    def _value(self, name: str, f: Function, v: int) -> int:
        """One free element for v and -v together, where the function knows its mirror image."""
        if v == 0 and f.at_zero is not None:
            return f.at_zero.numerator * pow(f.at_zero.denominator, -1, self.p) % self.p
        if f.mirror is not None and v > self.p // 2:
            return f.mirror(self._hash(name, self.p - v))
        return self._hash(name, v)

    def _hash(self, name: str, v: int) -> int:
        if (name, v) not in self.seen:
            digest = blake2b(f"{name} {v}".encode(), digest_size=16, key=self.key).digest()
            self.seen[name, v] = int.from_bytes(digest, "big") % self.p
        return self.seen[name, v]

    def power(self, a: Residue, k: float) -> Residue:
        """x^k for a known k, with d(x^k) = k x^(k-1) dx."""
        exponent = self._exponent(float(k))
        y = self._known_power(a.steady(), exponent)
        return self._moving(y, [(self.number(k) * self._known_power(a.steady(), exponent - 1), a)])

    def _exponent(self, k: float) -> Fraction:
        """The decimal that was written; one less or more than a known exponent, and rounded, where a gradient has it."""
        if k not in self.exponents:
            found = [exact + j for j in (-1, 1, -2, 2) for known, exact in self.exponents.items() if known + j == k]
            self.exponents[k] = found[0] if found else Fraction(repr(k))
        return self.exponents[k]

    def _known_power(self, a: Residue, k: Fraction) -> Residue:
        """Whole powers and halves by products; others are free."""
        if k.denominator == 1 and abs(k) <= 64:
            return self._product(a if k > 0 else self.reciprocal(a), abs(int(k)))
        if k.denominator == 2 and abs(k) <= 32:
            root = self.call("sqrt", a)
            return self._product(root if k > 0 else self.reciprocal(root), abs(int(2 * k)))
        return self._free_power(a, self.number(k))

    def _product(self, a: Residue, n: int) -> Residue:
        y = self.number(1)
        for _ in range(n):
            y = y * a
        return y

    def general_power(self, a: Residue, b: Residue) -> Residue:
        """d(a^b) = b a^(b-1) da + a^b log a db."""
        u, v = a.steady(), b.steady()
        y = self._free_power(u, v)
        terms = [(v * self._free_power(u, v - 1), a)] if a.tangent else []
        return self._moving(y, [*terms, (y * self.call("log", u), b)] if b.tangent else terms)

    def _free_power(self, a: Residue, b: Residue) -> Residue:
        """Powers whose exponents differ by one are a factor of a apart; of two such, the first one met is free."""
        known = self.powers.get((a.value, b.value))
        if known is None:
            higher, lower = (self.powers.get((a.value, (b.value + k) % self.p)) for k in (1, -1))
            known = (higher * self.reciprocal(a) if higher is not None else lower * a if lower is not None else
                     self.call("exp", b * self.call("log", a)))
            known.near = _near(lambda x: x ** b.near)(a.near)
            self.powers[a.value, b.value] = known
        return known

    def _moving(self, y: Residue, terms: Sequence[tuple[Residue, Residue]]) -> Residue:
        """The number with the tangent Σ slope × tangent."""
        found = Residue(self, y.near, y.value, sum(s.value * x.tangent for s, x in terms), y.degree)
        for s, x in terms:
            found.slope_degree = self.join(found.slope_degree, s.degree + x.slope_degree)
        return found


# ---- arrays of numbers

def filled(shape: Sequence[int], make: Callable[[], Any]) -> Array:
    out = np.empty(tuple(shape), object)
    for i in np.ndindex(out.shape):
        out[i] = make()
    return out


def each(f: Callable[..., Any], *x: npt.NDArray[Any]) -> Array:
    """f entry by entry, with broadcasting."""
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), object)


def still(x: Array) -> Array:
    """The same numbers, none of which moves."""
    return each(lambda a: a.steady(), x) if x.dtype == object else x


def truths(f: Callable[..., bool], *x: object) -> Array:
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), bool)


def near(x: npt.NDArray[Any]) -> float:
    v = x.near if isinstance(x, Residue) else float(x)
    if isnan(v):
        raise NearError("a branch of the program depends on a NaN of the float run")
    return float(v)


def nears(x: npt.NDArray[Any]) -> Any:
    return np.asarray(np.frompyfunc(near, 1, 1)(x), float)


def clipped(m: FieldPoint, a: npt.NDArray[Any], low: float, high: float) -> Residue:
    """The number moved into [low, high], where its float says so."""
    under, over = m.kink(a, low), m.kink(high, a)  # both are asked, as its slope asks both
    return m.chosen(low if under else high if over else a)


def summed(x: Array, axes: tuple[int, ...], keepdims: bool, point: FieldPoint) -> Array:
    if x.dtype != object:
        return np.sum(x, axis=axes, keepdims=keepdims)
    empty = any(x.shape[i] == 0 for i in axes)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes]
    return filled(shape, lambda: point.number(0)) if empty else np.asarray(np.sum(x, axis=axes, keepdims=keepdims), object)


def extreme(choose: Any, x: Array, axes: tuple[int, ...], keepdims: bool, point: FieldPoint) -> Array:
    """Ties share evenly."""
    if x.dtype != object:
        return marked(choose(x, axis=axes, keepdims=keepdims), x)
    floats = nears(x)
    hit = floats == choose(floats, axis=axes, keepdims=True)
    share = each(lambda h, k: Fraction(int(h), int(k)), hit, hit.sum(axis=axes, keepdims=True))

    def mean(x: Array, keep: bool) -> Array:
        y = summed(each(lambda a, s: a * point.number(s), x, share), axes, keep, point)
        return each(lambda a, v: a.at(v), y, choose(floats, axis=axes, keepdims=keep))

    best = mean(still(x), True)
    truths(point.alike, x, best)
    truths(point.kink, x, best)
    return mean(x, keepdims)
