"""What is wrong in a line: its terms and factors against those of the derivation, compared in the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..cells.terms import Term, show
from ..symbolic.checker.numbers import Array
from ..symbolic.derivation.to_terms import negated, summands


@dataclass(frozen=True)
class Slip:
    """A part that is wrong, what belongs there, what to say, and both numbers."""

    wrong: str = ""
    right: str = ""
    words: str = ""
    found: Any = None
    expected: Any = None
    undecided: bool = False


class Line(Protocol):
    """What is judged."""

    @property
    def term(self) -> Term: ...


class Values(Protocol):
    """Values of terms, and the formula that a line should be."""

    def value(self, t: Term, step: int) -> Array: ...
    def formula(self, line: Any) -> Term | None: ...
    def opened(self, formula: Term, line: Any) -> Term: ...
    def inlined(self, t: Term) -> Term: ...


def explained(values: Values, line: Line, t: int, expected: Any) -> Slip:
    """What a line has that the derivation has not, and the other way round, in as few words as can be."""
    formula = values.formula(line)
    if formula is None:
        said = f"{show(line.term)} should be 0" if not np.any(expected) else "these are not the columns of the derivative"
        return Slip(wrong=show(line.term), words=said)
    same = _Same(values, t)
    found = [_compared(same, line.term, right, values) for right in (formula, values.opened(formula, line))]
    return min(found, key=lambda x: x[0])[1]


def _compared(same: _Same, line: Term, formula: Term, values: Values) -> tuple[int, Slip]:
    """A slip, and how much of the line it takes in: 0 for a factor or a term too many or too few, 1 for terms, 2 for all."""
    own, right = _unmatched(same, summands(line), summands(formula))
    opened = [part for term in own for part in summands(values.inlined(term))]
    if opened != own:  # what the line reads of lines of its own is looked at as well
        own, right = _unmatched(same, opened, right)
    if len(own) == 1 and len(right) == 1:
        return _pair(same, own[0], right[0])
    if not own and right:
        return len(right) > 1, Slip("", _plus(right), f"{_plus(right)} is missing")
    if own and not right:
        return len(own) > 1, Slip(_plus(own), "", f"{_plus(own)} does not belong there")
    if len(own) < len(summands(line)) or len(right) < len(summands(formula)):
        return 1, Slip(_plus(own), _plus(right), f"instead of {_plus(own)} there should be {_plus(right)}")
    text = show(formula)
    said = f"it should be {text}" if len(text) < 300 else "it should be another one: print(tr.derive(cell)) shows it"
    return 2, Slip(show(line), text, said)


def _pair(same: _Same, own: Term, right: Term) -> tuple[int, Slip]:
    """One term in the place of another: its sign, one of its factors, or all of it."""
    texts = show(own), show(right)
    if same(negated(own), right):
        return 0, Slip(*texts, f"the sign of {_bare(own)} is wrong")
    a, b = _factor(same, own, right)
    if a is not None and b is not None:
        return 0, Slip(*texts, f"in {texts[0]} stands {show(a)} instead of {show(b)}" if a != own else
                       f"instead of {texts[0]} there should be {show(b)}")
    if b is not None:
        return 0, Slip(*texts, f"the factor {show(b)} is missing in {texts[0]}")
    if a is not None:
        return 0, Slip(*texts, f"the factor {show(a)} does not belong into {texts[0]}")
    return 1, Slip(*texts, f"instead of {texts[0]} there should be {texts[1]}")


def _factor(same: _Same, own: Term, right: Term) -> tuple[Term | None, Term | None]:
    """The one factor in which two products differ; nothing where they differ in more."""
    a, b = _unmatched(same, _factors(own), _factors(right))
    return (a[0] if a else None, b[0] if b else None) if len(a) <= 1 and len(b) <= 1 else (None, None)


class _Same:
    """Whether two terms are equal at a step."""

    def __init__(self, values: Values, step: int) -> None:
        self.values, self.step = values, step

    def __call__(self, a: Term, b: Term) -> bool:
        try:
            x, y = (np.asarray(self.values.value(s, self.step)) for s in (a, b))
        except (ValueError, KeyError, ArithmeticError):
            return show(a) == show(b)
        return x.shape == y.shape and all(u.value == v.value for u, v in zip(x.flat, y.flat, strict=True))


def _unmatched(same: Callable[[Term, Term], bool], own: list[Term], right: list[Term]) -> tuple[list[Term], list[Term]]:
    """What is left when equal ones are taken away in pairs."""
    left, rest = [], list(right)
    for a in own:
        found = next((i for i, b in enumerate(rest) if same(a, b)), None)
        if found is None:
            left.append(a)
        else:
            del rest[found]
    return left, rest


def _factors(t: Term) -> list[Term]:
    """The factors of a product, entry by entry or of matrices, and the two parts of an outer product."""
    if t.kind == "negate":
        return [Term("number", -1.0), *_factors(t.args[0])]
    if t.kind == "binary" and t.value in ("*", "@"):
        return [*_factors(t.args[0]), *_factors(t.args[1])]
    return list(t.args) if t.value == "outer" else [t]


def _bare(t: Term) -> str:
    return show(t.args[0] if t.kind == "negate" else t)


def _plus(terms: list[Term]) -> str:
    first, *rest = terms
    return show(first) + "".join(f" - {show(t.args[0], 2)}" if t.kind == "negate" else f" + {show(t, 1)}" for t in rest)
