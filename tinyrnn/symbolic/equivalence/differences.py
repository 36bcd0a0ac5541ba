"""What remains when the equation of one cell is subtracted from that of another, term by term.

Sums are multiplied out (r ⊙ (U h + b) is r ⊙ U h + r ⊙ b; W [h, x] is one product for each part) and equal terms
cancel; what is left is printed as an equation of the language and in LaTeX.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from ...cells import latex
from ...cells.cell import Cell
from ...cells.terms import Term, show
from ..derivation.to_terms import block_name

Sum = list[tuple[int, Term]]


def residual(a: Cell, b: Cell, ours: str, theirs: str, parameters: Mapping[str, Term], signals: Mapping[str, Term],
             sign: int = 1) -> Residual:
    """The equation of `ours` in `a` minus that of `theirs` in `b`.

    Parameters of `a` are replaced by what they correspond to in `b` (`parameters`, by block), quantities of `b` by what
    they are in `a` (`signals`).  Where both are one function of a sum, the difference of the sums: it makes the
    functions differ; `sign` is -1 where one is the mirror image of the other.
    """
    p, q = _equation(a, ours), _equation(b, theirs)
    if p is None or q is None:
        return Residual()
    p = _renamed(_split(p, a), parameters, {})
    q = _renamed(_split(q, b), {}, signals)
    if p.kind == q.kind == "call" and p.value == q.value and len(p.args) == 1:
        p, q = p.args[0], q.args[0]
    left = _cancelled([*_expanded(p), *((-sign * s, t) for s, t in _expanded(q))])
    return Residual(tuple(left))


def mirrored(function: str, signal: str) -> Term:
    """A negated gate in terms of the other: 1 - z for a sigmoid, -n for an odd function."""
    here = Term("signal", (signal, 0))
    return Term("binary", "-", (Term("number", 1.0), here)) if function == "sigmoid" else Term("negate", None, (here,))


@dataclass(frozen=True)
class Residual:
    """A difference as signed terms; none where there is nothing to show."""

    terms: tuple[tuple[int, Term], ...] = ()

    @property
    def vanishes(self) -> bool:
        return not self.terms

    @property
    def negated(self) -> Residual:
        return Residual(tuple((-n, t) for n, t in self.terms))

    @property
    def text(self) -> str:
        """An expression of the language; a minus before a matrix product is written outside parentheses."""
        shown = [(n, (f"{abs(n)} * " if abs(n) > 1 else "") + show(t, 2)) for n, t in self.terms]
        if shown and shown[0][0] < 0 and self.terms[0][1].value == "@":
            shown[0] = (shown[0][0], f"({shown[0][1]})")
        return _signed(shown)

    @property
    def latex(self) -> str:
        return _signed((n, (rf"{abs(n)}\," if abs(n) > 1 else "") + latex.term(t, 2)) for n, t in self.terms)


def _signed(parts: Iterable[tuple[int, str]]) -> str:
    text = " ".join(("- " if n < 0 else "+ ") + part for n, part in parts)
    return f"-{text[2:]}" if text.startswith("- ") else text.removeprefix("+ ") or "0"


def _equation(cell: Cell, name: str) -> Term | None:
    return next((e.term for e in cell.system.equations if e.name == name), None)


def _split(t: Term, cell: Cell) -> Term:
    """W @ [h, x] as W_h @ h + W_x @ x."""
    args = t.map(lambda x: _split(x, cell)).args
    if t.kind == "parameter" and t.value in cell.constants:
        return Term("number", cell.constants[t.value])
    if t.kind == "binary" and t.value == "@" and args[0].kind == "parameter" and args[1].kind == "join":
        pieces = [Term("binary", "@", (Term("parameter", block_name(cell, args[0].value, k)), x))
                  for k, x in enumerate(args[1].args)]
        return reduce(lambda x, y: Term("binary", "+", (x, y)), pieces)
    return Term(t.kind, t.value, args)


def _renamed(t: Term, parameters: Mapping[str, Term], names: Mapping[str, Term]) -> Term:
    if t.kind == "parameter":
        return parameters.get(t.value, t)
    if t.kind == "transpose":
        other = parameters.get(t.value, Term("parameter", t.value))
        return Term({"parameter": "transpose", "transpose": "parameter"}.get(other.kind, other.kind), other.value, other.args)
    if t.kind == "signal":
        name, lag = t.value
        return _at(names[name], lag) if name in names else t
    return t.map(lambda x: _renamed(x, parameters, names))


def _at(t: Term, lag: int) -> Term:
    """An expression of this step, read some steps ago."""
    return t.rewritten(lambda x: Term("signal", (x.value[0], lag)) if x.kind == "signal" else None)


def _expanded(t: Term) -> Sum:
    """A sum of signed products."""
    if t.kind == "negate":
        return [(-s, x) for s, x in _expanded(t.args[0])]
    if t.kind == "binary" and t.value in "+-":
        right = _expanded(t.args[1])
        return [*_expanded(t.args[0]), *(right if t.value == "+" else [(-s, x) for s, x in right])]
    if t.kind == "binary" and t.value in ("*", "@"):
        return [(s * r, _product(t.value, x, y)) for s, x in _expanded(t.args[0]) for r, y in _expanded(t.args[1])]
    if t.kind == "binary" and t.value == "/":
        return [(s, Term("binary", "/", (x, t.args[1]))) for s, x in _expanded(t.args[0])]
    return [(1, t)]


def _product(op: str, x: Term, y: Term) -> Term:
    """Products without factors of one; elementwise factors in a fixed order."""
    one, zero = Term("number", 1.0), Term("number", 0.0)
    if zero in (x, y):
        return zero
    if op == "*" and one in (x, y):
        return y if x == one else x
    if op == "*":
        factors = sorted([*_factors(x), *_factors(y)], key=lambda f: (f.kind == "binary", f.kind == "parameter", show(f)))
        product = factors[0]
        for f in factors[1:]:
            product = Term("binary", "*", (product, f))
        return product
    return Term("binary", op, (x, y))


def _factors(t: Term) -> list[Term]:
    return [*_factors(t.args[0]), *_factors(t.args[1])] if t.kind == "binary" and t.value == "*" else [t]


def _cancelled(terms: Sum) -> Sum:
    count: Counter[Term] = Counter()
    for sign, t in terms:
        count[t] += sign
    return [(n, t) for t, n in count.items() if n and t != Term("number", 0.0)]
