"""Linear maps read from terms: a derivative as a sum of products of diagonal and full matrices, and its norm.

    J v = Σ F1 F2 ... v     each F a diagonal diag(e) or a matrix W
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from ...cells import latex
from ...cells.terms import Term, number
from .to_terms import is_number, negated, product, total


class NotLinearError(Exception):
    """The term is no sum of products of diagonals and matrices."""


@dataclass(frozen=True)
class Factor:
    """A diagonal (elementwise factor) or a matrix."""

    term: Term
    diagonal: bool


@dataclass(frozen=True)
class Chain:
    """± F1 F2 ... Fn, applied from the right."""

    factors: tuple[Factor, ...]

    def term(self) -> Term:
        """A product; `diag(e)` is a call of its own."""
        parts = [Term("call", "diag", (f.term,)) if f.diagonal else f.term for f in self.factors]
        return reduce(lambda x, y: Term("binary", "@", (x, y)), parts) if parts else Term(
            "call", "diag", (number(1),))


def chains(t: Term, variable: Term) -> list[Chain]:
    """A term linear in a variable, taken apart; diagonals next to each other are one."""
    grouped: dict[tuple[Factor, ...], list[Term]] = {}
    for factors in map(_merged, _apart(t, variable)):
        front = factors[0].term if factors and factors[0].diagonal else number(1)
        grouped.setdefault(factors[1:] if factors and factors[0].diagonal else factors, []).append(front)
    return [Chain(_merged((Factor(total(fronts), True), *rest))) for rest, fronts in grouped.items()]


def paths(t: Term, variable: Term) -> list[Chain]:
    """The same, one chain for every way from the variable to the result."""
    return [Chain(_merged(c)) for c in _apart(t, variable)]


def _apart(t: Term, v: Term) -> list[tuple[Factor, ...]]:
    if t == v:
        return [()]
    if t.kind == "negate":
        return [(Factor(negated(number(1)), True), *c) for c in _apart(t.args[0], v)]
    if t.kind == "binary" and t.value in "+-":
        a, b = t.args
        minus = t.value == "-"
        left = _apart(a, v) if depends(a, v) else []
        right = _apart(negated(b) if minus else b, v) if depends(b, v) else []
        return left + right
    if t.kind == "binary" and t.value == "*":
        a, b = t.args
        if depends(a, v) != depends(b, v):
            inner, factor = (a, b) if depends(a, v) else (b, a)
            return [(Factor(factor, True), *c) for c in _apart(inner, v)]
    if t.kind == "binary" and t.value == "/" and not depends(t.args[1], v):
        return [(Factor(Term("binary", "/", (number(1), t.args[1])), True), *c) for c in _apart(t.args[0], v)]
    if t.kind == "binary" and t.value == "@" and not depends(t.args[0], v):
        return [(Factor(t.args[0], False), *c) for c in _apart(t.args[1], v)]
    raise NotLinearError


def depends(t: Term, v: Term) -> bool:
    return any(x == v for x in t.walk())


def _merged(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    out: list[Factor] = []
    for f in factors:
        if f.diagonal and out and out[-1].diagonal:
            out[-1] = Factor(product(f.term, out[-1].term), True)
        else:
            out.append(f)
    return tuple(f for f in out if not (f.diagonal and is_number(f.term, 1)))


# ---- norms

def bound(found: list[Chain], functions: dict[str, str]) -> str:
    """An upper bound of the spectral norm in LaTeX: Σ over chains of the product of the norms of their factors.

    `functions` says which quantities are outputs of sigmoid (in (0, 1)) or tanh (in (-1, 1)).
    """
    return " + ".join(_chain_bound(c, functions) for c in found) or "0"


def _chain_bound(c: Chain, functions: dict[str, str]) -> str:
    scale, norms = 1.0, list[str]()
    for f in c.factors:
        if f.diagonal:
            k, unknown = _largest(f.term, functions)
            scale *= k
            norms += [rf"\left\|{latex.term(u)}\right\|_\infty" for u in unknown]
        else:
            norms.append(rf"\left\|{latex.term(f.term)}\right\|")
    front = _fraction(scale)
    return r"\,".join([front] * (front != "1" or not norms) + norms)


def _fraction(k: float) -> str:
    n = round(1 / k) if 0 < k < 1 else 0
    return rf"\tfrac{{1}}{{{n}}}" if n and abs(n * k - 1) < 1e-9 else f"{k:g}"


def _largest(t: Term, functions: dict[str, str]) -> tuple[float, list[Term]]:
    """The largest absolute value of an elementwise factor: a number, and what it cannot say."""
    left, scale, unknown = _factors(t), 1.0, list[Term]()
    while left:
        f = left.pop(0)
        if f.kind == "number":
            scale *= f.value
        elif functions.get(_now(f)) == "sigmoid" and _complement(f) in left:
            left.remove(_complement(f))
            scale *= 0.25                                      # y (1 - y) <= 1/4
        elif (y := _one_minus(f)) in left and y is not None and functions.get(_now(y)) == "sigmoid":
            left.remove(y)
            scale *= 0.25
        elif not _within_one(f, functions):
            unknown.append(f)
    return scale, unknown


def _factors(t: Term) -> list[Term]:
    if t.kind == "negate":
        return _factors(t.args[0])
    return [*_factors(t.args[0]), *_factors(t.args[1])] if t.kind == "binary" and t.value == "*" else [t]


def _complement(t: Term) -> Term:
    return Term("binary", "-", (number(1), t))


def _one_minus(t: Term) -> Term | None:
    """y of 1 - y."""
    return t.args[1] if t.kind == "binary" and t.value == "-" and is_number(t.args[0], 1) else None


def _now(t: Term | None) -> str:
    """The name of a quantity of this step; an earlier one may be an initial state, which can be anything."""
    return t.value[0] if t is not None and t.kind == "signal" and t.value[1] <= 0 else ""


def _within_one(t: Term, functions: dict[str, str]) -> bool:
    """|t| <= 1: a gate, 1 - a sigmoid, 1 - the square of a tanh, tanh or sigmoid of anything."""
    if t.kind == "signal":
        return functions.get(_now(t)) in ("sigmoid", "tanh", "sin", "cos")
    if t.kind == "call":
        return t.value in ("sigmoid", "tanh", "sin", "cos")
    if t.kind == "binary" and t.value == "**" and is_number(t.args[1], 2):
        return _within_one(t.args[0], functions)
    rest = _one_minus(t)
    if rest is None:
        return False
    square = rest.kind == "binary" and rest.value == "**" and is_number(rest.args[1], 2)
    return _within_one(rest, functions) and (square or functions.get(_now(rest)) == "sigmoid" or rest.value == "sigmoid")

