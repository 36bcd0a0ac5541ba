"""What an operation is: one frozen record with its shape rule, evaluation, gradient and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from math import prod
from typing import Any, Literal, get_args

from ..errors import GraphError

Kind = Literal[
    "leaf",          # no sources
    "elementwise",   # entry by entry over broadcast sources: its jvp follows from its vjp
    "linear",        # linear in all sources together: its jvp is itself
    "multilinear",   # linear in each source: its jvp is one term per source
    "selection",     # picks entries by their values: its jvp is the transpose of its vjp
    "constant",      # no derivative flows: predicates, indices, random bits
    "control",       # scan and region (remat): a closed body and its projections
]

PRIMITIVE = None


class Trait(Flag):
    """What passes, domains, analyses and pictures may know of an op without knowing which op it is."""

    NONE = 0
    CHEAP = auto()      # a backward scan computes it again rather than read it from memory
    MOVES = auto()      # every entry of the result is an entry of a source, or 0
    VIEW = auto()       # strides over the memory of its one source
    WHOLE = auto()      # all numbers of its one source in another shape, order or dtype: pictures look through it
    EXACT = auto()      # is not rounded: moves, signs, and choices among numbers that are there
    ADDS = auto()       # adds up many terms, so that partial sums are rounded as well
    COMPARES = auto()   # looks at which number is larger
    ACTIVATES = auto()  # a function of one number, drawn as one box with the affine map that it is applied to
    NAMED = auto()      # an activation whose argument gets a name in derivations, and whose slope is read from its result
    SATURATES = auto()  # an activation whose slope vanishes far from 0


Symmetry = Literal["odd", "even", "complement"]  # f(-x) = -f(x), f(x), 1 - f(x)

Vjp = Callable[..., Any]


def _no_flops(node: object) -> int:
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
    traits    what passes, domains, analyses and pictures may know of it
    written   how it is written in equations and derivations: an operator, or the name of a function
    names     what its attributes are called in listings
    index     which source holds positions in an axis of another
    at_zero   f(0), where it is a number that is known exactly; symmetry: f(-x) in terms of f(x)
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
    traits: Trait = Trait.NONE
    written: str = ""
    names: tuple[str, ...] = ()
    index: int | None = None
    at_zero: float | None = None
    symmetry: Symmetry | None = None

    def __repr__(self) -> str:
        return f"<op {self.name}>"


CATALOGUE: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an op in the catalogue; two ops never share a name."""
    if op.name in CATALOGUE:
        raise GraphError(f"op {op.name!r} is declared twice")
    if op.symmetry not in (None, *get_args(Symmetry)):
        raise GraphError(f"op {op.name!r} has the symmetry {op.symmetry!r}: expected {', '.join(get_args(Symmetry))}, or None")
    CATALOGUE[op.name] = op
    return op


def per_entry(count: int) -> Callable[[Any], int]:
    """The cost of an op that does `count` operations for every entry of its result."""
    return lambda node: count * prod(node.shape)
