"""Functions that users write by name, entry by entry: `tr.<name>`, and in the equations of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import GraphError

Builder = Callable[..., Any]


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
    declare(ElementwiseFunction(build.__name__, build, 1, doc, example=example.strip()))
    return build


def declare(function: ElementwiseFunction) -> None:
    """Enter a function; two never share a name."""
    if function.name in FUNCTIONS:
        raise GraphError(f"the function {function.name!r} is declared twice")
    FUNCTIONS[function.name] = function
