"""Functions that users write by name, entry by entry: `tr.<name>`, and in the equations of cells."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .door import PUBLIC
from .errors import GraphError

Builder = Callable[..., Any]
LISTS = ("inputs", "outputs")
RESERVED = {"t", *LISTS, "True", "False", "None", "inf", "nan"}
"""Words of the language of equations: `LISTS` begin a line that declares names."""


@dataclass(frozen=True, slots=True)
class ElementwiseFunction:
    """A function of one or two tensors, entry by entry.

    `doc` says what it is and where its source is; `example` is `0, 1 -> 1.   , 2.718`, operands apart by a semicolon, with
    results to three digits as NumPy prints them.
    """

    name: str
    build: Builder
    operands: int
    doc: str
    latex: str = ""
    example: str = ""
    raises: str = "Raises `DTypeError` for numbers that are not floating."

    @property
    def docstring(self) -> str:
        """What `help` shows."""
        shapes = "Of any shape, which stays." if self.operands == 1 else "Shapes broadcast; `ShapeError` where they do not."
        given, _, result = self.example.partition(" -> ")
        shown = (f"\n\n>>> import tinyrnn as tr\n>>> tr.{self.name}({', '.join(f'[{x}]' for x in given.split('; '))})"
                 f".numpy().round(3)\narray([{result}])\n") if result else ""
        return f"{self.doc}\n\n{shapes} {self.raises}{shown}"


FUNCTIONS: dict[str, ElementwiseFunction] = {}


def entrywise(build: Builder) -> Builder:
    """Declare a function of one tensor that is composed of ops, under its own name and with its own words and example."""
    doc, _, example = (build.__doc__ or "").partition("\n\n")
    declare(ElementwiseFunction(build.__name__, build, 1, doc, example=example.strip(),
                                raises="Raises `DTypeError` for numbers for which it has no meaning."))
    return build


def declare(function: ElementwiseFunction) -> None:
    """Enter a function."""
    check_free(function.name)
    FUNCTIONS[function.name] = function


def check_free(name: str) -> None:
    """Whether a function may have a name: whether it is free in the package, in Python, and in the language of equations."""
    if name in FUNCTIONS:
        raise GraphError(f"the function {name!r} is declared twice")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name in RESERVED:
        raise GraphError(f"{name!r} cannot be the name of a function: expected letters, digits and _, and no word that Python "
                         "or the equations keep for themselves")
    if name in PUBLIC or name in vars(sys.modules[__package__]):
        raise GraphError(f"tinyrnn has something called {name!r} already: give the function another name")
