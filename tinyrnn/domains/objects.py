"""Rings whose elements are Python objects: sparse polynomials over the rationals, and SymPy expressions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TermLimitError, UndefinedError
from .exact import Array
from .field import AT_ZERO, MIRROR

if TYPE_CHECKING:
    import sympy

Coefficient = int | Fraction
BITS = 16
HIGHEST = 2**BITS - 1


class Objects(ABC):
    """Arithmetic on object arrays, by the operators of their elements."""

    name = "objects"
    dtype = object

    def decide(self, a: Array, b: Array, apart: Array, kind: int) -> None:  # noqa: B027  (what decides is compared at points of a field, not here)
        pass

    def add(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b, object)

    def sub(self, a: Array, b: Array) -> Array:
        return np.asarray(a - b, object)

    def neg(self, a: Array) -> Array:
        return np.asarray(-a, object)

    def mul(self, a: Array, b: Array) -> Array:
        return np.asarray(a * b, object)

    def matmul(self, a: Array, b: Array) -> Array:
        return np.asarray(np.matmul(a, b), object)

    def sum(self, a: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        total = np.asarray(np.sum(a, axis=axes, keepdims=keepdims), object)
        return total if a.size else self._map(lambda _: self.number(Fraction(0)), total)

    @abstractmethod
    def number(self, value: Fraction) -> Any:
        """A constant of the ring."""

    def _map(self, f: Any, a: Array) -> Array:
        out = np.empty(a.shape, object)
        for i in np.ndindex(a.shape):
            out[i] = f(a[i])
        return out


class Budget:
    """A cap on the products of terms of a whole run: a count, never a clock, so that it ends alike everywhere."""

    def __init__(self, limit: int) -> None:
        self.limit, self.spent = limit, 0

    def spend(self, terms: int, degree: int) -> None:
        """Count a product before it is made."""
        self.spent += terms
        if self.spent > self.limit or degree > HIGHEST:
            raise TermLimitError(f"the polynomials take more than {self.limit:,} products of terms" if degree <= HIGHEST else
                                 f"a polynomial of degree {degree:,} has no place")


class Polynomial:
    """A sparse polynomial: packed exponents -> coefficient.

    A monomial is one integer with `BITS` bits for the exponent of each generator, so that the product of monomials is
    the sum of integers, and generators may be added at any time.  (SymPy's rings must know all generators beforehand;
    here every activation output is a new one.)
    """

    __slots__ = ("budget", "degree", "terms")

    def __init__(self, terms: dict[int, Coefficient], degree: int, budget: Budget) -> None:
        self.terms, self.degree, self.budget = terms, degree, budget

    def _lift(self, other: Any) -> Polynomial:
        if isinstance(other, Polynomial):
            return other
        return Polynomial({0: other} if other else {}, 0, self.budget)

    def __add__(self, other: Any) -> Polynomial:
        a, b = self, self._lift(other)
        if len(a.terms) < len(b.terms):
            a, b = b, a
        self.budget.spend(len(a.terms) >> 4, 0)  # copying a long sum is work as well
        terms = dict(a.terms)
        for m, c in b.terms.items():
            total = terms.get(m, 0) + c
            if total:
                terms[m] = total
            else:
                del terms[m]
        return Polynomial(terms, max(a.degree, b.degree), self.budget)

    def __neg__(self) -> Polynomial:
        return Polynomial({m: -c for m, c in self.terms.items()}, self.degree, self.budget)

    def __sub__(self, other: Any) -> Polynomial:
        return self + -self._lift(other)

    def __rsub__(self, other: Any) -> Polynomial:
        return self._lift(other) + -self

    def __mul__(self, other: Any) -> Polynomial:
        b = self._lift(other)
        degree = self.degree + b.degree
        self.budget.spend(len(self.terms) * len(b.terms), degree)
        terms: dict[int, Coefficient] = {}
        get = terms.get
        for m, c in self.terms.items():
            for n, d in b.terms.items():
                terms[m + n] = get(m + n, 0) + c * d
        return Polynomial({m: c for m, c in terms.items() if c}, degree, self.budget)

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Polynomial, int, Fraction)) and self.terms == self._lift(other).terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def exponents(self, monomial: int) -> Iterator[tuple[int, int]]:
        """The generators of a monomial with their exponents."""
        k = 0
        while monomial:
            power = monomial & HIGHEST
            if power:
                yield k, power
            monomial >>= BITS
            k += 1

    def coefficients(self, generators: dict[int, Any]) -> dict[Any, Polynomial]:
        """A polynomial linear in some generators, taken apart: what each of them is multiplied by."""
        found: dict[Any, dict[int, Coefficient]] = {}
        for m, c in self.terms.items():
            hit = next((k for k, _ in self.exponents(m) if k in generators), None)
            rest = m if hit is None else m - (1 << BITS * hit)
            found.setdefault(None if hit is None else generators[hit], {})[rest] = c
        return {k: Polynomial(terms, self.degree, self.budget) for k, terms in found.items()}


class Polynomials(Objects):
    """Z[generators] (Q where a constant is a fraction), with a generator for every input entry and function output."""

    name = "polynomials"

    def __init__(self, limit: int = 400_000, one_sigmoid: bool = False) -> None:
        self.budget = Budget(limit)
        self.one_sigmoid = one_sigmoid  # tanh(a) is 2 sigmoid(2 a) - 1, not a function of its own
        self.names: list[str] = []
        self._outputs: dict[tuple[str, Polynomial], Polynomial] = {}

    def number(self, value: Fraction) -> Polynomial:
        c = value.numerator if value.denominator == 1 else value
        return Polynomial({0: c} if c else {}, 0, self.budget)

    def unknown(self, what: str) -> Polynomial:
        generator: Polynomial = self.function(what, np.array(self.number(Fraction(0)), object)).item()
        return generator

    def generator(self, name: str) -> Polynomial:
        """A new free element; every one makes all monomials longer, so it counts as work."""
        self.names.append(name)
        self.budget.spend(len(self.names) >> 4, 0)
        return Polynomial({1 << BITS * (len(self.names) - 1): 1}, 1, self.budget)

    def generators(self, name: str, shape: tuple[int, ...]) -> Array:
        """One generator for each entry, named by its position."""
        out = np.empty(shape, object)
        for i in np.ndindex(shape):
            out[i] = self.generator(f"{name}[{','.join(map(str, i))}]" if i else name)
        return out

    def reciprocal(self, a: Array) -> Array:
        return self._map(lambda p: self.number(1 / Fraction(p.terms[0])), a)

    def function(self, name: str, a: Array) -> Array:
        if name == "tanh" and self.one_sigmoid:
            return np.asarray(2 * self.function("sigmoid", np.asarray(a + a, object)) - 1, object)
        return self._map(lambda p: self._function(name, p), a)

    def _function(self, name: str, p: Polynomial) -> Polynomial:
        if not p and name in AT_ZERO:
            return self.number(AT_ZERO[name])
        if not p and name in ("reciprocal", "log"):
            raise UndefinedError(f"the {name} of an expression that is zero")
        self.budget.spend(len(p.terms), 0)
        mirrored = name in MIRROR and bool(p) and p.terms[max(p.terms)] < 0
        key = (name, -p if mirrored else p)
        if key not in self._outputs:
            self._outputs[key] = self.generator(f"{name}#{len(self._outputs)}")
        y = self._outputs[key]
        return MIRROR[name](y, 1) if mirrored else y

    def expression(self, p: Polynomial) -> sympy.Expr:
        """The polynomial as a SymPy expression in symbols named like the generators."""
        import sympy

        terms = [sympy.Mul(sympy.Rational(c.numerator, c.denominator),
                           *(sympy.Symbol(self.names[k]) ** e for k, e in p.exponents(m))) for m, c in p.terms.items()]
        return sympy.Add(*terms)


class Symbols(Objects):
    """SymPy expressions: every function is SymPy's own, sigmoid and softplus written with exp."""

    name = "sympy"

    def number(self, value: Fraction) -> Any:
        import sympy

        return sympy.Rational(value.numerator, value.denominator)

    def unknown(self, what: str) -> Any:
        import sympy

        return {"inf": sympy.oo, "-inf": -sympy.oo}.get(what, sympy.nan)

    def symbols(self, name: str, shape: tuple[int, ...]) -> Array:
        """One real symbol for each entry."""
        import sympy

        out = np.empty(shape, object)
        for i in np.ndindex(shape):
            out[i] = sympy.Symbol(f"{name}[{','.join(map(str, i))}]" if i else name, real=True)
        return out

    def reciprocal(self, a: Array) -> Array:
        return self._map(lambda e: 1 / e, a)

    def function(self, name: str, a: Array) -> Array:
        import sympy

        exp = sympy.exp
        own = {"sigmoid": lambda e: exp(e) / (1 + exp(e)), "softplus": lambda e: sympy.log(1 + exp(e)),
               "reciprocal": lambda e: 1 / e}
        return self._map(own.get(name) or getattr(sympy, name), a)
