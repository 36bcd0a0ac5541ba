"""What an operation is: one frozen record with its shape rule, evaluation, gradient and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from ..errors import GraphError

Kind = Literal[
    "leaf",          # no sources
    "elementwise",   # entry by entry over broadcast sources: its jvp follows from its vjp
    "linear",        # linear in all sources together: its jvp is itself
    "multilinear",   # linear in each source: its jvp is one term per source
    "selection",     # picks entries by their values: its jvp is the transpose of its vjp
    "constant",      # no derivative flows: predicates, indices, random bits
    "control",       # scan and remat: a closed body and its projections
]

PRIMITIVE = None

Vjp = Callable[..., Any]


def _no_flops(node: Any) -> int:
    return 0


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """One operation of the catalogue.

    infer     (*sources, *attributes) -> (shape, dtype)
    evaluate  the formula (domain, *values, *attributes) -> value; a domain is asked first for a method of the op's
              name, so an op that every domain must know itself is PRIMITIVE
    vjp       (g, y, *sources, *attributes) -> one adjoint, or a tuple with one (or None) per source
    simplify  (sources, attributes) -> an equal, simpler node, or None
    entrywise whether every entry of the result follows from the entries at the same place: such ops fuse
    """

    name: str
    infer: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    vjp: Vjp | None
    kind: Kind
    label: str
    flops: Callable[[Any], int] = _no_flops
    simplify: Callable[[tuple[Any, ...], tuple[Any, ...]], Any] | None = None
    entrywise: bool = False

    def __repr__(self) -> str:
        return f"<op {self.name}>"


CATALOGUE: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an op in the catalogue; two ops never share a name."""
    if op.name in CATALOGUE:
        raise GraphError(f"op {op.name!r} is declared twice")
    CATALOGUE[op.name] = op
    return op


def per_entry(count: int) -> Callable[[Any], int]:
    """The cost of an op that does `count` operations for every entry of its result."""
    return lambda node: count * prod(node.shape)
