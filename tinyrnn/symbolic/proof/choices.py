"""Choices by whole numbers and bools: which of them a claimed gradient makes that the function itself does not.

What a float decides is compared at points of the field.  An index or a mask is the same at every point, and its patterns
are too many to go through; so a gradient may choose by those comparisons, masks and indices alone that stand in the graph
of the function, and by what follows from them.  The same holds for whole numbers that floats were cast to, and for floats
that whole numbers were cast to.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.op import Trait
from ...ir.ops.elementwise import CAST, WHERE
from ...ir.ops.reduce import ARGMAX
from ...ir.ops.structure import GATHER, PICK
from ...ir.scan import LITERALS, SCAN, TRACE, ScanView, final
from ...passes.unroll import unroll

_DERIVED = ("both", "either", "negate", "reshape", "broadcast_to")
INSIDE = "inside of a loop: "


def chooses_otherwise(graph: Graph, loss: str, claims: Iterable[str]) -> bool:
    """Whether claimed gradients choose by whole numbers or bools as the loss does not."""
    graph = unroll(Graph({**graph.outputs, **_inside(graph, loss)}))
    function = walk([graph.outputs[loss], *(n for k, n in graph.outputs.items() if k.startswith(INSIDE))])
    order = walk([*(graph.outputs[k] for k in claims), graph.outputs[loss]])
    drawn = {n for n in (*graph.inputs.values(), *graph.leaves.values()) if not n.floating}
    constant: set[Node] = set()
    for n in order:  # whatever depends on whole numbers and constants alone
        if n.op in LITERALS or (n.src and all(s in constant for s in n.src)):
            constant.add(n)
        elif n.src and (_is_decided(n) or all(s in drawn or s in constant for s in n.src)):
            drawn.add(n)
    known: set[Node] = {*function, *constant}
    lookups = {_lookup(n) for n in function if n.op.index is not None}
    return any(_chooses(n, drawn, known, lookups) for n in order if n not in known)


def _inside(graph: Graph, loss: str) -> dict[str, Node]:
    """All that the loops of a function keep: the last steps, which it may not read, choose as the others do."""
    scans = [n for n in walk([graph.outputs[loss]]) if n.op is SCAN]
    kept = [n for n in graph.nodes if n.op is TRACE and n.src[0] in scans]
    finals = [final(s, i) for s in scans for i in range(ScanView.of(s).n_states)]
    return {f"{INSIDE}{k}": n for k, n in enumerate([*kept, *finals])}


def _is_decided(n: Node) -> bool:
    """Whether floats decide on whole numbers here."""
    return n.op is ARGMAX or (n.op is CAST and not n.floating and n.src[0].floating)


def _lookup(n: Node) -> tuple[Node, int]:
    """The index of a lookup, and how long the axis is."""
    assert n.op.index is not None
    index = n.src[n.op.index]
    if n.op in (GATHER, PICK):
        return index, n.src[0].shape[0 if n.op is GATHER else -1]
    return index, int(n.at[0])


def _chooses(n: Node, drawn: set[Node], known: set[Node], lookups: set[tuple[Node, int]]) -> bool:
    """Whether a node of the gradient alone chooses by what was drawn, or takes it for a number in another way."""
    if Trait.COMPARES in n.op.traits:
        return n in drawn
    if n.op.index is not None:
        found = _lookup(n)
        return found[0] in drawn and found not in lookups
    if n.op is CAST:
        return n.src[0] in drawn and not (n.src[0].dtype.kind == "b" and _follows(n.src[0], drawn, known))
    return n.op is WHERE and not _follows(n.src[0], drawn, known)


def _follows(c: Node, drawn: set[Node], known: set[Node]) -> bool:
    """Whether a condition is one of the function's, or follows from those."""
    if c in known or c not in drawn:
        return True
    return c.op.name in _DERIVED and all(_follows(s, drawn, known) for s in c.src)
