"""A graph whose sizes are symbols, for given values of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sizes import AnySize, evaluated
from .graph import Graph
from .node import Node, apply, walk
from .ops.leaves import LEAF, SIZE, full
from .scan import Body, make_body


def sized(graph: Graph, values: Mapping[str, int]) -> Graph:
    """The graph with a number in the place of every size."""
    if not values:
        return graph
    table = _Sized(values)
    return Graph({k: table.node(n) for k, n in graph.outputs.items()})


def sized_input(n: Node, values: Mapping[str, int]) -> Node:
    """An input of such a graph as it stands in the sized one."""
    return _Sized(values).node(n)


class _Sized:
    """Nodes and bodies with numbers for sizes."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = values
        self._nodes: dict[Node, Node] = {}
        self._bodies: dict[Body, Body] = {}

    def node(self, n: Node) -> Node:
        for m in walk([n], known=self._nodes):
            if m.op is SIZE:
                self._nodes[m] = full(evaluated(m.at[0], self.values), (), m.dtype)
                continue
            src, at = tuple([self._nodes[s] for s in m.src]), tuple([self._attribute(a) for a in m.at])
            same = m.op is LEAF or (src == m.src and all(a is b for a, b in zip(at, m.at, strict=True)))
            self._nodes[m] = m if same else apply(m.op, src, at)
        return self._nodes[n]

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.node(value)
        if isinstance(value, Body):
            if value not in self._bodies:
                self._bodies[value] = make_body(tuple(map(self.node, value.args)), tuple(map(self.node, value.outs)))
            return self._bodies[value]
        if isinstance(value, AnySize) or (type(value) is tuple and _holds_sizes(value)):
            return evaluated(value, self.values)
        return value


def _holds_sizes(parts: tuple[Any, ...]) -> bool:
    return any(isinstance(p, AnySize) or (type(p) is tuple and _holds_sizes(p)) for p in parts)
