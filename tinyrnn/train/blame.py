"""Which number on the way stopped being finite: the first offending node of a step's own graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..ir import Graph
from ..ir.graph import Label
from ..ir.node import Node
from ..passes import unroll
from ..shapes import show
from ..tensor import Tensor


def blame(graph: Graph, values: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> str:
    """The first number that is not finite, in words: where it stands in the data, or the node, its step and its layer.

    `graph` is the step as it was traced, `values` its inputs by name.
    """
    for name, value in values.items():
        if found := _place(np.asarray(value)):
            return f"the data hold {found} of {name}"
    for name, p in parameters.items():
        if found := _place(p.numpy()):
            return f"the parameter {name} holds {found}"
    flat = unroll(graph)
    moving = [n for n in flat.nodes if n.floating and n.src and 0 not in n.shape]
    flags = Graph({str(i): abs(Tensor(n)).max() < float("inf") for i, n in enumerate(moving)})
    finite = flags.run({k: values[k] for k in flags.inputs})
    bad = next((n for i, n in enumerate(moving) if not finite[str(i)]), None)
    return "no single node of the step as it was traced" if bad is None else _described(bad, flat, parameters)


def _place(array: Any) -> str:
    """The first entry that is not finite: `nan at [2, 0]`."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return ""
    at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"{array[at]} at {list(at)}"


def _described(bad: Node, flat: Graph, parameters: Mapping[str, Tensor]) -> str:
    """A node as one knows it: `exp float32[4,8] on the way to f[3] in layers.1`."""
    name = _label(bad, flat)
    layer = _layer(bad, parameters)
    return (f"{bad.op.name} {bad.dtype}{show(bad.shape)}" + (f", {name}" if name else "")
            + (f", in {layer}" if layer else ""))


def _label(bad: Node, flat: Graph) -> str:
    """The node's own name, or the first named value that is computed from it, with its step."""
    named: dict[Node, Label] = {}
    for label, n in flat.labels.items():
        named.setdefault(n, label)
    reached = {bad}
    for n in flat.nodes:
        if n is bad or any(s in reached for s in n.src):
            reached.add(n)
            if n in named:
                return f"{'that is' if n is bad else 'on the way to'} {named[n]}"
    return ""


def _layer(bad: Node, parameters: Mapping[str, Tensor]) -> str:
    """The layer whose parameter is nearest before the node."""
    owner = {p.node: name.rpartition(".")[0] or name for name, p in parameters.items()}
    queue, seen = deque([bad]), {bad}
    while queue:
        n = queue.popleft()
        if n in owner:
            return owner[n]
        for s in n.src:
            if s not in seen:
                seen.add(s)
                queue.append(s)
    return ""
