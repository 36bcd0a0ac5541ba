"""What a derivation consists of: printed equations, and blocks of a Jacobian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cells import latex
from ...cells.latex_lines import environment
from ...cells.terms import Term, show
from . import scalars
from .chains import Chain
from .to_terms import total

DISPLAYED = 1200
"""A notebook shows so many letters of LaTeX; `print` shows all."""


def displayed(formulas: Sequence[str]) -> str:
    """As many formulas as can be taken in at a glance, in lines that fit into a column."""
    kept: list[str] = []
    for f in formulas:
        if kept and len("".join(kept)) + len(f) > DISPLAYED:
            break
        kept.append(f)
    more = len(formulas) - len(kept)
    shown = kept if len("".join(kept)) <= DISPLAYED else [r"\text{a formula that fills a page: print it}"]
    return environment([*shown, *([rf"\text{{and {more} more}}"] if more else [])], "$$")


def _clipped(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"


@dataclass(frozen=True, repr=False)
class Formula:
    """One printed equation; `over_time` where the right side is one term of a sum over all steps."""

    name: Term
    term: Term
    shapes: Mapping[str, tuple[str, ...]] = field(repr=False)
    over_time: bool = False

    @property
    def text(self) -> str:
        left = f"dL/d{self.name.value}" if self.over_time else show(self.name)
        return f"{left} = {'sum over t of ' if self.over_time else ''}{show(self.term)}"

    @property
    def latex(self) -> str:
        left = latex.adjoint(self.name.value) if self.over_time else latex.term(self.name)
        right = latex.term(self.term, 2 if self.over_time else 0)
        return rf"{left} = \sum_t {right}" if self.over_time else f"{left} = {right}"

    @property
    def sympy(self) -> Any:
        """The right side as a SymPy matrix expression."""
        return scalars.matrix(self.term, self.shapes)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return _clipped(self.text)

    def _repr_latex_(self) -> str:
        return displayed([self.latex])


@dataclass(frozen=True, repr=False)
class JacobianBlock:
    """`d state[t] / d state[t-k]` as a sum of products of diagonals and matrices; None where it is no such sum."""

    state: str
    by: str
    lag: int
    chains: tuple[Chain, ...] | None
    applied: Term                   # the product of the block with a vector,
    variable: Term                  # which is called v unless the cell has a v
    words: str = ""                 # what is said in the place of a formula that is too long to be read

    @property
    def text(self) -> str:
        if self.words:
            return self.words
        if self.chains is None:
            return f"{show(self.variable)} -> {show(self.applied)}"
        return show(total([c.term() for c in self.chains])) if self.chains else "0"

    @property
    def latex(self) -> str:
        if self.words:
            return rf"\text{{{self.words}}}"
        if self.chains is None:
            return rf"{latex.term(self.variable)} \mapsto {latex.term(self.applied)}"
        return latex.term(total([c.term() for c in self.chains])) if self.chains else "0"

    @property
    def fraction(self) -> str:
        """The left side in LaTeX."""
        return rf"\frac{{\partial {latex.name(self.state, 't')}}}{{\partial {latex.name(self.by, f't-{self.lag}')}}}"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return _clipped(self.text)

    def _repr_latex_(self) -> str:
        return displayed([f"{self.fraction} = {self.latex}"])
