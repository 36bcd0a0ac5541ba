"""Backpropagation over semirings: how many paths a gradient has, and what the easiest of them crosses.

    value(n)  =  ⊕ over the operands s of n   value(s) ⊗ cost(s -> n)

With (N, +, ×) this counts paths, with (N ∪ {∞}, min, +) it finds the fewest saturating functions or products on any of them.
(L. Du et al., "Generalizing Backpropagation for Gradient-Based Interpretability", ACL 2023.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.op import Trait
from ..ir.ops.leaves import INPUT, LEAF
from ..ir.ops.linear import MATMUL
from .recurrence import base

PRIME = 2**61 - 1


@dataclass(frozen=True)
class Semiring:
    """How values of several paths are put together, and how a path grows by one op."""

    zero: Any
    one: Any
    plus: Callable[[Any, Any], Any]
    through: Callable[[Any, Node, Node], Any]  # (value so far, operand, op) -> value after the op


COUNT = Semiring(0, 1, lambda a, b: a + b, lambda v, s, n: v)
MODULAR = Semiring(0, 1, lambda a, b: (a + b) % PRIME, lambda v, s, n: v)
FEWEST_SATURATING = Semiring(inf, 0, min, lambda v, s, n: v + (Trait.SATURATES in n.op.traits))
MOST_SATURATING = Semiring(-inf, 0, max, lambda v, s, n: v + (Trait.SATURATES in n.op.traits))
FEWEST_PRODUCTS = Semiring(inf, 0, min, lambda v, s, n: v + is_weighted(s, n))


def is_weighted(operand: Node, product: Node) -> bool:
    """Whether an operand meets a weight matrix here."""
    if product.op is not MATMUL:
        return False
    other = product.src[1] if product.src[0] is operand else product.src[0]
    return base(other).op in (INPUT, LEAF)


def through(order: Sequence[Node], source: Node, target: Node, ring: Semiring) -> Any:
    """The sum over all paths from `source` to `target`, in one sweep; a value is dropped after its last use."""
    last = {s: i for i, n in enumerate(order) for s in n.src}
    at: dict[Node, Any] = {source: ring.one}
    for i, n in enumerate(order):
        if n is source:
            continue
        value = _received(n, at, ring)
        if value is not None:
            at[n] = value
        for s in set(n.src):
            if last[s] == i and s is not target:
                at.pop(s, None)
    return at.get(target, ring.zero)


def _received(n: Node, at: Mapping[Node, Any], ring: Semiring) -> Any:
    """The sum over the operands that paths have reached; an operand that stands twice counts twice."""
    value = None
    if not n.floating or n.op.kind == "constant":
        return None
    for s in n.src:
        if s in at:
            part = ring.through(at[s], s, n)
            value = part if value is None else ring.plus(value, part)
    return value


def bottlenecks(order: Sequence[Node], source: Node, target: Node) -> list[Node]:
    """The nodes on every path from source to target, in order, ends left out.

    A node lies on all paths if the paths to it times the paths from it are all paths; counted modulo 2^61 - 1, so that a
    wrong answer has a chance of about 1e-18 a node.
    """
    before: dict[Node, int] = {source: 1}
    for n in order:
        if n is not source and (value := _received(n, before, MODULAR)) is not None:
            before[n] = value
    after: dict[Node, int] = {target: 1}
    for n in reversed(order):
        if n in after and n in before:
            for s in n.src:
                if s in before:
                    after[s] = (after.get(s, 0) + after[n]) % PRIME
    total = before.get(target, 0)
    return [n for n in order if n in before and n in after and n is not source and n is not target
            and before[n] * after[n] % PRIME == total]


@dataclass(frozen=True)
class Paths:
    """The paths of the gradient from a loss to one quantity."""

    source: str
    count: int
    fewest_saturating: float
    most_saturating: float
    fewest_products: float
    bottlenecks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"paths": self.count, "fewest saturating": self.fewest_saturating, "most saturating": self.most_saturating,
                "fewest recurrent products": self.fewest_products, "bottlenecks": list(self.bottlenecks)}


def gradient_paths(graph: Graph, sources: Iterable[str], target: Node) -> list[Paths]:
    """The paths from each named input of an unrolled graph to one of its nodes."""
    order = graph.nodes
    out = []
    for name in sources:
        source = graph.inputs[name] if name in graph.inputs else graph.leaves[name]
        count = through(order, source, target, COUNT)
        if not count:
            continue
        fewest, most, products = (through(order, source, target, r) for r in
                                  (FEWEST_SATURATING, MOST_SATURATING, FEWEST_PRODUCTS))
        narrow = [str(graph.names[n][0]) for n in bottlenecks(order, source, target) if n in graph.names]
        out.append(Paths(name, count, fewest, most, products, tuple(narrow)))
    return out
