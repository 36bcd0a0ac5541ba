"""Whole numbers modulo the prime p = 2^61 - 1, as NumPy arrays.

An identity between polynomials of degree d that fails holds at a random point with probability at most d/p (Schwartz
1980, Zippel 1979).  The free element of a function is a keyed hash of its argument, so that equal arguments, however
they were computed, give equal outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from hashlib import blake2b
from typing import Any

import numpy as np

from ..errors import BackendError
from .exact import Array

PRIME = 2**61 - 1
_P = np.uint64(PRIME)
_LOW31, _LOW30 = np.uint64(2**31 - 1), np.uint64(2**30 - 1)
_ONE, _30, _31, _61 = (np.uint64(n) for n in (1, 30, 31, 61))
_LIMB = np.uint64(21)
_LOW21 = np.uint64(2**21 - 1)


def _folded(x: Array) -> Array:
    """Any 64-bit number modulo p, since 2^61 = 1."""
    x = np.asarray((x >> _61) + (x & _P))
    return x - _P * (x >= _P)


class Field:
    """GF(2^61 - 1).  `arguments` counts the distinct arguments of functions that were met."""

    name = "GF(2^61-1)"
    dtype = np.uint64

    def __init__(self, key: int = 0, modular: bool = False) -> None:
        self.modular = modular  # 1/x is the inverse of x, not a free element: more identities hold, of higher degree
        self.key = key.to_bytes(16, "little", signed=False)
        self._seen: dict[tuple[str, int], int] = {}

    @property
    def arguments(self) -> int:
        return len(self._seen)

    def number(self, value: Fraction) -> int:
        return value.numerator * pow(value.denominator, -1, PRIME) % PRIME

    def unknown(self, what: str) -> int:
        return self._hash(what, 0)

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Uniform elements."""
        return rng.integers(0, PRIME, shape, np.uint64)

    def add(self, a: Array, b: Array) -> Array:
        s = np.asarray(np.add(a, b))
        return np.asarray(s - _P * (s >= _P))

    def sub(self, a: Array, b: Array) -> Array:
        return self.add(a, self.neg(b))

    def neg(self, a: Array) -> Array:
        return np.asarray((_P - a) * (a != 0))

    def mul(self, a: Array, b: Array) -> Array:
        """Schoolbook on halves of 30 and 31 bits: no product leaves 64 bits."""
        a1, a0, b1, b0 = a >> _31, a & _LOW31, b >> _31, b & _LOW31
        middle = a0 * b1 + a1 * b0
        return _folded(((a1 * b1) << _ONE) + (middle >> _30) + ((middle & _LOW30) << _31) + a0 * b0)

    def matmul(self, a: Array, b: Array) -> Array:
        """Three limbs of 21 bits each, all nine products at once; a sum of a million of them fits into 64 bits."""
        part = _folded(np.matmul(_limbs(a)[:, None], _limbs(b)[None]))
        digits = [part[0, 0], part[0, 1] + part[1, 0], part[0, 2] + part[1, 1] + part[2, 0], part[1, 2] + part[2, 1],
                  part[2, 2]]
        return _folded(reduce(np.add, (_shifted(_folded(d), 21 * k % 61) for k, d in enumerate(digits))))

    def sum(self, a: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        def plain(x: Array) -> Array:
            return _folded(np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=np.uint64)))

        return self.add(plain(a & _LOW31), _shifted(plain(a >> _31), 31))

    def reciprocal(self, a: Array) -> Array:
        return self._map(self._inverse, a)

    def _inverse(self, v: int) -> int:
        if v == 0:
            raise BackendError("the reciprocal of an expression that is zero")
        return pow(v, -1, PRIME)

    def function(self, name: str, a: Array) -> Array:
        return self._map(lambda v: self._function(name, v), a)

    def _map(self, f: Callable[[int], int], a: Array) -> Array:
        return np.array([f(v) for v in a.ravel().tolist()], np.uint64).reshape(a.shape)

    def _function(self, name: str, v: int) -> int:
        """One free element for v and -v together: tanh is odd, cos even, sigmoid(-v) = 1 - sigmoid(v); and
        tanh(v) = 2 sigmoid(2 v) - 1, so that both are one function."""
        if name == "reciprocal" and (self.modular or v == 0):
            return self._inverse(v)
        if name == "tanh":
            return (2 * self._function("sigmoid", 2 * v % PRIME) - 1) % PRIME
        if v == 0 and name in AT_ZERO:
            return self.number(AT_ZERO[name])
        mirrored = name in MIRROR and v > PRIME // 2
        y = self._hash(name, PRIME - v if mirrored else v)
        return MIRROR[name](y) % PRIME if mirrored else y

    def _hash(self, name: str, v: int) -> int:
        y = self._seen.get((name, v))
        if y is None:
            digest = blake2b(v.to_bytes(8, "little"), digest_size=16, key=self.key, person=name.encode()[:16])
            y = self._seen[name, v] = int.from_bytes(digest.digest(), "little") % PRIME
        return y


MIRROR: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda y: -y, "sin": lambda y: -y, "reciprocal": lambda y: -y, "cos": lambda y: y, "sigmoid": lambda y: 1 - y}
"""f(-v) in terms of y = f(v)."""

AT_ZERO = {"tanh": Fraction(0), "sin": Fraction(0), "cos": Fraction(1), "exp": Fraction(1), "sigmoid": Fraction(1, 2)}
"""f(0), where it is a number."""


def _limbs(a: Array) -> Array:
    return np.stack([a & _LOW21, (a >> _LIMB) & _LOW21, a >> np.uint64(42)])


def _shifted(x: Array, k: int) -> Array:
    """x 2^k modulo p: a rotation of 61 bits."""
    return np.asarray(((x << np.uint64(k)) & _P) | (x >> np.uint64(61 - k)))


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
