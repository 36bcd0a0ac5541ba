"""The recurrent layers of other frameworks: their equations as their documentation has them, one file each, with the layout of
their arrays (`layouts.py`) in its head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from ...cells import Cell
from ...cells.terms import Term, number, show_system
from ...errors import ArgumentError
from ...files import shipped
from ..layouts import ArrayLayout

WORD = "layout:"


@dataclass(frozen=True)
class Foreign:
    """A recurrent layer of another framework."""

    cell: Cell
    layout: ArrayLayout


def _call(name: str) -> Callable[[Term], Term]:
    return lambda x: Term("call", name, (x,))


def _softsign(x: Term) -> Term:
    return Term("binary", "/", (x, Term("binary", "+", (number(1), Term("call", "abs", (x,))))))


ACTIVATIONS: dict[str, Callable[[Term], Term]] = {
    **{name: _call(name) for name in ("tanh", "sigmoid", "relu", "hard_sigmoid", "elu", "silu", "softplus", "softmax")},
    "linear": lambda x: x, "exponential": _call("exp"), "swish": _call("silu"), "softsign": _softsign}
"""Functions as other frameworks call them, in the equation language."""


@cache
def foreign(name: str, tanh: str = "tanh", sigmoid: str = "sigmoid", bias: bool = True) -> Foreign:
    """A layer by the name of its file, with other functions in the places of tanh and sigmoid, and without the arrays that may
    be missing.

    Raises `ArgumentError` for functions that the equation language lacks.

    >>> foreign("keras_lstm").cell.parameters["W_i"]
    ('x', 'h')
    """
    for function in (tanh, sigmoid):
        if function not in ACTIVATIONS:
            raise ArgumentError(f"the activation {function!r} cannot be written in equations; known are "
                                f"{', '.join(ACTIVATIONS)}")
    plain = Cell(shipped(__name__).joinpath(f"{name}.cell").read_text(encoding="utf-8"), name)
    lines = [h[len(WORD):] for h in plain.system.header if h.startswith(WORD)]
    whole = ArrayLayout(plain, lines)
    if (tanh, sigmoid, bias) == ("tanh", "sigmoid", True):
        return Foreign(plain, whole)
    rules = {"tanh": ACTIVATIONS[tanh], "sigmoid": ACTIVATIONS[sigmoid]}
    gone = set() if bias else {p for n in whole.optional for row in whole.arrays[n] for p in row}

    def rule(t: Term) -> Term | None:
        if t.kind == "call" and t.value in rules:
            return rules[t.value](t.args[0].rewritten(rule))
        left = [a for a in t.args if not (a.kind == "parameter" and a.value in gone)]
        return left[0].rewritten(rule) if t.value == "+" and len(left) == 1 else None

    changed = replace(plain.system, equations=tuple(replace(e, term=e.term.rewritten(rule)) for e in plain.system.equations))
    cell = Cell(show_system(changed), name)
    return Foreign(cell, ArrayLayout(cell, (line for line in lines if bias or "?" not in line)))
