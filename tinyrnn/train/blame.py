"""Which number on the way stopped being finite: the first offending node of a step's own graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..ir import Graph
from ..ir.graph import Label
from ..ir.node import Node
from ..passes import unroll
from ..search import shortest_path
from ..shapes import show
from ..tensor.tensor import Tensor
from .data import Piece


def blame(graph: Graph, values: Mapping[str, Any], parameters: Mapping[str, Tensor], piece: Piece | None = None) -> str:
    """The first number that is not finite, in words: where it stands in the data, or the node, its step, what it is made of.

    `graph` is the step as it was traced, `values` its inputs by name; `piece` says which rows of the data they are.
    What stands in the padding is never the cause: it is blanked before use.
    """
    for name, p in parameters.items():
        if found := _place(p.numpy(), None):
            return f"the parameter {name} holds {found}"
    flat = unroll(graph)
    moving = [n for n in flat.nodes if n.floating and n.src and 0 not in n.shape]
    flags = Graph({str(i): abs(Tensor(n)).max() < float("inf") for i, n in enumerate(moving)})
    finite = flags.run({k: values[k] for k in flags.inputs})
    bad = next((n for i, n in enumerate(moving) if not finite[str(i)]), None)
    if bad is None:
        return "no single node of the step as it was traced"
    return _in_data(bad, values, piece) or _described(bad, flat, parameters)


def _in_data(bad: Node, values: Mapping[str, Any], piece: Piece | None) -> str:
    """Where the data are to blame: the node reads an input that is not finite where the node is not."""
    graph = Graph({"bad": bad})
    array = np.asarray(graph.run({k: values[k] for k in graph.inputs})["bad"])
    for source in bad.src:
        name = next((k for k, n in graph.inputs.items() if n is source), None)
        if name is not None and np.asarray(values[name]).dtype.kind == "f" and not np.isfinite(values[name]).all():
            seen = array if array.shape == source.shape else np.asarray(values[name])
            return f"the data hold {_place(seen, piece)} of {name}"
    return ""


def _place(array: Any, piece: Piece | None) -> str:
    """The first entry that is not finite, `nan at [2, 0]`: row and step of the data, where a piece says which they are."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return ""
    at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
    value = array[tuple(at)]
    if piece is not None and at:
        at[0] = int(piece.rows[at[0]])
        at[1:2] = [at[1] + piece.start] if len(at) > 1 else []
    return f"{value} at {at}"


def _described(bad: Node, flat: Graph, parameters: Mapping[str, Tensor]) -> str:
    """A node as one knows it: `exp float32[4,8], that is e[3], computed from layers.1.weights.W`."""
    name, step, after = _label(bad, flat), flat.steps.get(bad), _parameter(bad, parameters)
    when = f", step {step}" if step is not None and not name.startswith("that is") else ""
    return (f"{bad.op.name} {bad.dtype}{show(bad.shape)}" + (f", {name}" if name else "") + when
            + (f", computed from {after}" if after else ""))


def _label(bad: Node, flat: Graph) -> str:
    """The node's own name, or the first value of the forward computation that has one and is computed from it."""
    named: dict[Node, Label] = {}
    for label, n in flat.labels.items():
        if not label.name.startswith("dloss/"):
            named.setdefault(n, label)
    reached = {bad}
    for n in flat.nodes:
        if n is bad or any(s in reached for s in n.src):
            reached.add(n)
            if n in named:
                return f"{'that is' if n is bad else 'on the way to'} {named[n]}"
    return ""


def _parameter(bad: Node, parameters: Mapping[str, Tensor]) -> str:
    """The parameter nearest before the node."""
    owner = {p.node: name for name, p in parameters.items()}
    way = shortest_path(bad, lambda n: n.src, lambda n: n in owner)
    return owner[way[-1]] if way else ""
