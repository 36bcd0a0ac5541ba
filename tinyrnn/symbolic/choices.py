"""Choices by whole numbers and bools: which of them a claimed gradient makes that the function itself does not.

What a float decides is compared at points of the field.  An index or a mask is the same at every point, and its patterns
are too many to go through; so a gradient may choose by those comparisons, masks and indices alone that stand in the graph
of the function, and by what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.graph import Graph
from ..ir.node import Node, walk
from ..passes.unroll import unroll

_COMPARED = ("less", "less_equal", "equal", "not_equal")
_INDEX = {"gather": 1, "scatter_add": 1, "pick": 1, "one_hot": 0}
_DERIVED = ("both", "either", "negate", "reshape", "broadcast_to")


def chooses_otherwise(graph: Graph, loss: str, claims: Iterable[str]) -> bool:
    """Whether claimed gradients choose by whole numbers or bools as the loss does not."""
    if all(n.floating for n in (*graph.inputs.values(), *graph.leaves.values())):
        return False
    graph = unroll(graph)
    known = set(walk([graph.outputs[loss]]))
    drawn = {n for n in (*graph.inputs.values(), *graph.leaves.values()) if not n.floating}
    order = walk([graph.outputs[k] for k in claims])
    for n in order:
        if not n.floating and any(s in drawn for s in n.src):
            drawn.add(n)
    return any(_chooses(n, drawn, known) for n in order if n not in known)


def _chooses(n: Node, drawn: set[Node], known: set[Node]) -> bool:
    """Whether a node of the gradient alone chooses by what was drawn."""
    if n.op.name in _COMPARED:
        return any(s in drawn for s in n.src)
    if n.op.name in _INDEX:
        index = n.src[_INDEX[n.op.name]]
        return index in drawn and index not in known
    return n.op.name == "where" and not _follows(n.src[0], drawn, known)


def _follows(c: Node, drawn: set[Node], known: set[Node]) -> bool:
    """Whether a condition is one of the function's, or follows from those."""
    if c in known or c not in drawn:
        return True
    return c.op.name in _DERIVED and all(_follows(s, drawn, known) for s in c.src)
