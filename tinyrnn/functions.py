"""Functions that users write by name, entry by entry: `tr.<name>`, and in the equations of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import GraphError

Builder = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ElementwiseFunction:
    """A function of one or two tensors, entry by entry; what it is and where its source is, is said in `doc`."""

    name: str
    build: Builder
    operands: int
    doc: str
    latex: str = ""


FUNCTIONS: dict[str, ElementwiseFunction] = {}


def entrywise(build: Builder) -> Builder:
    """Declare a function of one tensor that is composed of ops, under its own name and with its own words."""
    declare(ElementwiseFunction(build.__name__, build, 1, build.__doc__ or ""))
    return build


def declare(function: ElementwiseFunction) -> None:
    """Enter a function; two never share a name."""
    if function.name in FUNCTIONS:
        raise GraphError(f"the function {function.name!r} is declared twice")
    FUNCTIONS[function.name] = function
