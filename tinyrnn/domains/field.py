"""Whole numbers modulo a prime p of 61 bits, as NumPy arrays.

An identity between polynomials of degree d that fails holds at a random point with probability at most d/p (Schwartz
1980, Zippel 1979), unless p divides all its coefficients: so the prime is drawn anew for every run, among some 10^14.
The free element of a function is a keyed hash of its argument, so that equal arguments, however they were computed, give
equal outputs.

A number x is held as x 2^62 mod p, so that no product is divided by p (Montgomery, "Modular multiplication without trial
division", 1985).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from ..errors import UndefinedError
from ..ir.op import CATALOGUE, Symmetry
from .exact import Array
from .marks import SIDE

SMALLEST = 2**60
"""Every prime that is drawn is larger, so this stands for it in a bound."""
_LOW31, _LOW62 = np.uint64(2**31 - 1), np.uint64(2**62 - 1)
_31 = np.uint64(31)
_LIMB, _LOW21 = np.uint64(21), np.uint64(2**21 - 1)
Decisions = tuple[set[int], set[int], set[int]]
ROUNDING = -1  # stands for a decision between numbers that are equal but for rounding
SIMPLE, MOST_MULTIPLES = 65, 4_000_000
_LONGEST = 2**18  # terms of a sum of products of 21 bits that stay below 2^62


@lru_cache(64)
def drawn_prime(seed: int) -> int:
    """A prime of 61 bits for which (p - 1)/2 is prime as well, so p = 3 mod 4.

    No constant of a graph can be made to vanish modulo a prime that was drawn after the graph; and since the order of every
    number but 1 and -1 is large, no power with a smooth exponent is 1 by chance.
    """
    from sympy import isprime

    rng = np.random.default_rng([seed, 61])
    while True:
        p = 12 * int(rng.integers(SMALLEST // 12 + 1, 2 * SMALLEST // 12)) - 1
        if all(p % k and (p - 1) // 2 % k for k in _SMALL) and pow(2, p - 1, p) == 1 and isprime((p - 1) // 2) and isprime(p):
            return p


_SMALL = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


class Field:
    """GF(p).  `arguments` counts the distinct arguments of functions that were met."""

    name = "GF(p)"
    dtype = np.uint64

    def __init__(self, prime: int, key: int = 0, modular: bool = False) -> None:
        self.modular = modular  # 1/x is the inverse of x, not a free element: more identities hold, of higher degree
        self.key = key.to_bytes(16, "little", signed=False)
        self._seen: dict[tuple[str, int], int] = {}
        self.decisions: Decisions = (set(), set(), set())  # what was compared with 0: kinks and ties up to the sign, sides
        self.prime, self.one = prime, 2**62 % prime
        self._p, self._inverse_p = np.uint64(prime), np.uint64(pow(prime, -1, 2**62))
        self._p1, self._p0 = np.asarray(self._p >> _31), np.asarray(self._p & _LOW31)
        self._limbs = np.array([2**(21 * k) % prime for k in range(5)], np.uint64)
        self._half = np.asarray(2**31 * self.one % prime, np.uint64)

    @property
    def arguments(self) -> int:
        return len(self._seen)

    def number(self, value: Fraction) -> int:
        return value.numerator * self.one * pow(value.denominator, -1, self.prime) % self.prime

    def unknown(self, what: str) -> int:
        return self._hash(what, 0)

    def decide(self, a: Array, b: Array, apart: Array, kind: int) -> None:
        """Note that a branch depends on how two numbers compare.  Where their difference is 0 here and the floats differ all
        the same, rounding decides."""
        difference = np.asarray(self.sub(a, b))
        found = difference if kind == SIDE else np.minimum(difference, self.neg(difference))
        self.decisions[kind].update(found[found != 0].tolist())
        if ((found == 0) & apart).any():
            self.decisions[kind].add(ROUNDING)

    def noted(self) -> Decisions:
        """The decisions so far."""
        kinks, sides, ties = self.decisions
        return set(kinks), set(sides), set(ties)

    def foreign(self, decisions: Decisions, known: Decisions) -> bool:
        """Whether there are decisions that are neither known nor simple multiples of known ones, which decide alike.  At a kink
        either side may have the tie."""
        kinks, sides, ties = (new - old for new, old in zip(decisions, known, strict=True))
        if any(ROUNDING in new for new in (kinks, sides, ties)):
            return True
        smooth, jumps, equal = (k - {ROUNDING} for k in known)
        return bool(self._beyond(ties, equal, signed=False) or self._beyond(kinks, smooth | jumps, signed=False)
                    or self._beyond(self._beyond(sides, jumps), smooth, signed=False))

    def _beyond(self, new: set[int], known: set[int], signed: bool = True) -> set[int]:
        """Those that are no simple multiple of a known number; with signs, no positive one."""
        if not new or not known:
            return new
        a, b = (np.array(sorted(v), np.uint64) for v in (new, known))
        if a.size * b.size > MOST_MULTIPLES:
            return new
        ratios = self.mul(a[:, None], self.reciprocal(b))
        ratios = ratios if signed else np.minimum(ratios, self.neg(ratios))
        simple = np.isin(ratios, self._fractions if signed else np.minimum(self._fractions, self.neg(self._fractions)))
        return set(a[~simple.any(1)].tolist())

    @cached_property
    def _fractions(self) -> Array:
        """r/s for small whole numbers."""
        return np.array(sorted({self.number(Fraction(r, s)) for r in range(1, SIMPLE) for s in range(1, SIMPLE)}), np.uint64)

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Uniform elements."""
        return rng.integers(0, self.prime, shape, np.uint64)

    def add(self, a: Array, b: Array) -> Array:
        return self._reduced(np.asarray(np.add(a, b)))

    def _reduced(self, s: Array) -> Array:
        """A number below 2 p, modulo p."""
        return np.asarray(s - self._p * (s >= self._p))

    def sub(self, a: Array, b: Array) -> Array:
        return self.add(a, self.neg(b))

    def neg(self, a: Array) -> Array:
        return np.asarray((self._p - a) * (a != 0))

    def mul(self, a: Array, b: Array) -> Array:
        """a b / 2^62 for a below 2^62: the high part of a b minus that of the multiple of p with the same low part."""
        a1, a0, b1, b0 = a >> _31, a & _LOW31, b >> _31, b & _LOW31
        with np.errstate(over="ignore"):  # NumPy warns of numbers that wrap around, not of arrays
            multiple = (a * b * self._inverse_p) & _LOW62
        m1, m0 = multiple >> _31, multiple & _LOW31
        return self._reduced(_high(a1, a0, b1, b0) + (self._p - _high(m1, m0, self._p1, self._p0)))

    def matmul(self, a: Array, b: Array) -> Array:
        """Three limbs of 21 bits each, all nine products at once."""
        if a.shape[-1] > _LONGEST:
            return self.add(self.matmul(a[..., :_LONGEST], b[..., :_LONGEST, :]),
                            self.matmul(a[..., _LONGEST:], b[..., _LONGEST:, :]))
        rank = max(a.ndim, b.ndim)
        a, b = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (a, b))
        part = np.matmul(_limbs(a)[:, None], _limbs(b)[None])
        digits = np.stack([part[0, 0], part[0, 1] + part[1, 0], part[0, 2] + part[1, 1] + part[2, 0],
                           part[1, 2] + part[2, 1], part[2, 2]])
        weights = self._limbs.reshape(-1, *(1,) * (digits.ndim - 1))
        return np.asarray(self.mul(digits, weights).sum(0) % self._p)

    def sum(self, a: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        def plain(x: Array) -> Array:
            return np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=np.uint64))

        return self.add(plain(a & _LOW31) % self._p, self.mul(plain(a >> _31), self._half))

    def reciprocal(self, a: Array) -> Array:
        return self._map(self._inverse, a)

    def _inverse(self, v: int) -> int:
        if v == 0:
            raise UndefinedError("the reciprocal of an expression that is zero")
        return self.one * self.one * pow(v, -1, self.prime) % self.prime

    def function(self, name: str, a: Array) -> Array:
        return self._map(lambda v: self._function(name, v), a)

    def _map(self, f: Callable[[int], int], a: Array) -> Array:
        return np.array([f(v) for v in a.ravel().tolist()], np.uint64).reshape(a.shape)

    def _function(self, name: str, v: int) -> int:
        """One free element for v and -v together: tanh is odd, cos even, sigmoid(-v) = 1 - sigmoid(v); and
        tanh(v) = 2 sigmoid(2 v) - 1, so that both are one function."""
        p = self.prime
        if name == "reciprocal" and (self.modular or v == 0):
            return self._inverse(v)
        if name == "tanh":
            return (2 * self._function("sigmoid", 2 * v % p) - self.one) % p
        if v == 0 and name in AT_ZERO:
            return self.number(AT_ZERO[name])
        mirrored = name in MIRROR and v > p // 2
        y = self._hash(name, p - v if mirrored else v)
        return MIRROR[name](y, self.one) % p if mirrored else y

    def _hash(self, name: str, v: int) -> int:
        y = self._seen.get((name, v))
        if y is None:
            digest = blake2b(v.to_bytes(8, "little"), digest_size=16, key=self.key, person=name.encode()[:16])
            y = self._seen[name, v] = int.from_bytes(digest.digest(), "little") % self.prime
        return y


_MIRRORED: dict[Symmetry, Callable[[Any, Any], Any]] = {
    "odd": lambda y, one: -y, "even": lambda y, one: y, "complement": lambda y, one: one - y}

MIRROR = {"reciprocal": _MIRRORED["odd"], **{op.name: _MIRRORED[op.symmetry] for op in CATALOGUE.values() if op.symmetry}}
"""f(-v) in terms of y = f(v)."""

AT_ZERO = {op.name: Fraction(op.at_zero) for op in CATALOGUE.values() if op.at_zero is not None}
"""f(0), where it is a number."""


def _high(a1: Array, a0: Array, b1: Array, b0: Array) -> Array:
    """The part of a b above 62 bits, from halves of 31."""
    return np.asarray(a1 * b1 + ((a1 * b0 + a0 * b1 + (a0 * b0 >> _31)) >> _31))


def _limbs(a: Array) -> Array:
    return np.stack([a & _LOW21, (a >> _LIMB) & _LOW21, a >> np.uint64(42)])


class Degrees:
    """An upper bound of the total degree of every polynomial that a run in the field evaluates, in all free elements."""

    name = "degrees"
    dtype = np.float64

    def __init__(self, rational: bool = False) -> None:
        self.rational = rational  # numbers are quotients: bounds of numerator and denominator, which add in every operation
        self.of_arguments = 1.0

    def number(self, value: Fraction) -> float:
        return 0.0

    def unknown(self, what: str) -> float:
        return 1.0

    def decide(self, a: Array, b: Array, apart: Array, kind: int) -> None:
        pass

    def add(self, a: Array, b: Array) -> Array:
        return np.asarray(np.add(a, b) if self.rational else np.maximum(a, b))

    def sub(self, a: Array, b: Array) -> Array:
        return self.add(a, b)

    def neg(self, a: Array) -> Array:
        return a

    def mul(self, a: Array, b: Array) -> Array:
        return np.asarray(np.add(a, b))

    def matmul(self, a: Array, b: Array) -> Array:
        shape = np.matmul(np.empty(a.shape, bool), np.empty(b.shape, bool)).shape
        terms = a.shape[-1] if self.rational else 1
        return np.full(shape, terms * (a.max(initial=0.0) + b.max(initial=0.0)))

    def sum(self, a: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray((np.sum if self.rational else np.max)(a, axis=axes, keepdims=keepdims, initial=0.0))

    def reciprocal(self, a: Array) -> Array:
        return np.zeros_like(a)

    def function(self, name: str, a: Array) -> Array:
        self.of_arguments = max(self.of_arguments, float(a.max(initial=1.0)))
        return a if name == "reciprocal" and self.rational else np.ones_like(a)
