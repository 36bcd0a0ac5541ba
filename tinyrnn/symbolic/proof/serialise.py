"""A graph as plain data: the part of a certificate that the checker runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.ops.leaves import Array
from ...ir.scan import FINAL, ITEM, REGION, SCAN, TRACE, ScanView, body_of, expression_of, traced_by_scan
from .draws import sources
from .identity import Problem


def program(subject: Problem | Graph) -> dict[str, Any]:
    """A straight-line program over the inputs; a scan holds the program of its body."""
    graph = subject.graph if isinstance(subject, Problem) else subject
    inputs = sources(graph)
    number = {n: i for i, n in enumerate(inputs.values())}
    code = _code(graph.nodes, number)
    found: dict[str, Any] = {"inputs": {k: [str(n.dtype), list(n.shape)] for k, n in inputs.items()}, "code": code,
                             "outputs": {k: number[n] for k, n in graph.outputs.items()}}
    if isinstance(subject, Problem):
        sizes = {k: n for k, n in subject.sizes.items() if k in ("steps", "batch")}  # the others stand in the inputs
        found.update(what=subject.what, sizes=sizes, loss=subject.loss, claims=dict(subject.claims))
    return found


def _code(order: list[Node], number: dict[Node, int]) -> list[Any]:
    """Instructions [op, sources, attributes]; `number` grows by one for each."""
    traced = traced_by_scan(order)
    code: list[Any] = []
    for n in order:
        if n in number:
            continue
        sources_of = [number[s] for s in n.src]
        if n.op is SCAN:
            scan = ScanView.of(n)
            body = _body(scan.body.args, [*scan.body.outs, *traced.get(n, [])])
            at: list[Any] = [{**body, "states": scan.n_states, "sequences": scan.n_slices, "reverse": scan.reverse,
                              "steps": scan.steps}]
        elif n.op is REGION:
            at = [_body(body_of(n).args, body_of(n).outs)]
        elif n.op is TRACE:
            at = [ScanView.of(n.src[0]).n_states + traced[n.src[0]].index(expression_of(n))]
        else:
            at = [_plain(a) for a in n.at]
        name = "read" if n.op in (FINAL, TRACE, ITEM) else n.op.name
        code.append([name, sources_of, at])
        number[n] = len(number)
    return code


def _body(args: tuple[Node, ...], outs: Any) -> dict[str, Any]:
    number = {a: i for i, a in enumerate(args)}
    code = _code(walk(outs, known=set(args)), number)
    return {"arguments": len(args), "code": code, "outs": [number[o] for o in outs]}


def _plain(value: Any) -> Any:
    """An attribute as JSON; floats as text, so that infinity and NaN have a place."""
    if isinstance(value, Array):
        return {"array": [_plain(v) for v in value.array.ravel().tolist()], "shape": list(value.array.shape)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return {"float": repr(float(value))}
    return value if isinstance(value, (bool, int, str, type(None))) else str(np.dtype(value))

