"""What must hold of every graph; run after each pass in the tests, and always with TINYRNN_CHECK=1."""

from __future__ import annotations

import os

from ..errors import GraphError
from .graph import Graph
from .node import Node, walk
from .ops.leaves import ARG, HOLE, input_name
from .scan import FINAL, ITEM, REGION, SCAN, TRACE, VOID, Body, ScanView, body_of, expression_of

ENABLED = os.environ.get("TINYRNN_CHECK") == "1"


def check(graph: Graph) -> Graph:
    """The graph itself, after its invariants were tested."""
    _check_nodes(graph.nodes, "the graph", ())
    for label, n in graph.labels.items():
        if not isinstance(n, Node):
            raise GraphError(f"label {label} points at {n!r}, which is not a node")
    for name, n in graph.inputs.items():  # which refuses two inputs of one name
        if input_name(n) != name:
            raise GraphError(f"input {n!r} is filed under {name!r}")
    return graph


def _check_nodes(nodes: list[Node], where: str, args: tuple[Node, ...]) -> None:
    done: set[Node] = set()
    for n in nodes:
        if not all(s in done for s in n.src):
            raise GraphError(f"{where}: {n!r} stands before a node that it reads")
        done.add(n)
        if n.op is HOLE or (n.op is ARG and n not in args):
            raise GraphError(f"{where}: {n!r} belongs to a body that it is not in")
        shape, dtype = n.op.infer(*n.src, *n.at)
        if (shape, dtype) != (n.shape, n.dtype):
            raise GraphError(f"{where}: {n!r} says {n.dtype}{n.shape}, its op infers {dtype}{shape}")
        if (n.dtype == VOID) != (n.op in (SCAN, REGION)):
            raise GraphError(f"{where}: only scans and regions have no value, got {n!r}")
        if n.op in (FINAL, TRACE, ITEM) and n.src[0].op not in (SCAN, REGION):
            raise GraphError(f"{where}: {n!r} is a projection of {n.src[0]!r}")
        if n.op in (SCAN, REGION):
            _check_body(body_of(n), n, where)
        if n.op is TRACE:
            _check_nodes(walk([expression_of(n)]), f"a trace in {where}", body_of(n.src[0]).args)


def _check_body(body: Body, n: Node, where: str) -> None:
    _check_nodes(walk([*body.args, *body.outs]), f"the body of a {n.op.name} in {where}", body.args)
    if len(body.args) != len(n.src):
        raise GraphError(f"{where}: a body of {len(body.args)} arguments has {len(n.src)} sources")
    sliced = ScanView.of(n).split(range(len(n.src)))[1] if n.op is SCAN else []
    for i, (a, s) in enumerate(zip(body.args, n.src, strict=True)):
        given = s.shape[1:] if i in sliced else s.shape
        if (a.shape, a.dtype) != (given, s.dtype):
            raise GraphError(f"{where}: argument {i} of a body is {a.dtype}{a.shape}, its source {s.dtype}{given}")
