"""The `cpu` backend: graphs run by compiled kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import BackendError
from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.ops.linear import MATMUL
from ...ir.scan import REGION, SCAN, body_of
from ...passes import fuse, simplify
from ..arrays import fetched
from ..numpy import admitted
from ..plan.planner import plan_of
from .engine import host, library
from .runtime import CpuExecutable, product_kernels
from .threads import default_threads

REAL = np.dtype(np.float32), np.dtype(np.float64)
_executables: WeakKeyDictionary[Graph, CpuExecutable] = WeakKeyDictionary()


def executable(graph: Graph, fused: bool = False, keep: bool = True) -> CpuExecutable:
    """A graph's compiled form, made once; `fused` graphs went through the passes already; see `CpuExecutable` for `keep`."""
    found = _executables.get(graph)
    if found is None:
        found = _executables[graph] = CpuExecutable(plan_of(graph if fused else fuse(simplify(graph))), keep=keep)
    return found


def foreseen(graph: Graph) -> None:
    """Compile the kernels of a graph's products in a thread of their own, if they are not there."""
    dtypes = {n.dtype.str for n in _nodes(graph.nodes) if n.op is MATMUL and len(n.shape) == 2 and n.dtype in REAL}
    missing = [d for d in sorted(dtypes) if not library(host()).has(("product", d))]
    if missing:
        threading.Thread(target=_products, args=(missing,), name="tinyrnn-compile").start()


def _nodes(order: Iterable[Node]) -> Iterator[Node]:
    """Nodes, and those inside of loops and regions."""
    for n in order:
        yield n
        if n.op in (SCAN, REGION):
            yield from _nodes(walk(body_of(n).outs))


def _products(dtypes: list[str]) -> None:
    for dtype in dtypes:
        library(host()).require(product_kernels(dtype, host()), passes=False)


def run(graph: Graph, values: Mapping[str, Any], domain: object = None) -> dict[str, Any]:
    """Evaluate a graph; results are arrays of their own that share memory with nothing."""
    if domain is not None:
        raise BackendError("compiled kernels know ordinary numbers only; use backend='numpy' for other domains")
    compiled = executable(graph)
    nodes = {**graph.inputs, **graph.leaves}
    given = {nodes[k]: np.ascontiguousarray(v) for k, v in admitted(graph, fetched(values)).items()}
    outputs = {k: np.empty(n.shape, n.dtype) for k, n in graph.outputs.items()}
    compiled.run(given, outputs, default_threads())
    return outputs
