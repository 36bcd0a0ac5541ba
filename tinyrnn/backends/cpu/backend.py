"""The `cpu` backend: graphs run by compiled kernels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import BackendError
from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.ops.linear import MATMUL
from ...ir.scan import REGION, SCAN, body_of
from ...ir.sized import sized
from ...passes import fuse, simplify
from ...sizes import assuming
from ..arrays import fetched
from ..numpy import admitted
from ..plan import planner
from ..plan.replay import checked
from .engine import host, library
from .runtime import Assembled, CpuExecutable, product_kernels
from .threads import default_threads

REAL = np.dtype(np.float32), np.dtype(np.float64)
_executables: WeakKeyDictionary[Graph, CpuExecutable] = WeakKeyDictionary()


def executable(graph: Graph) -> CpuExecutable:
    """A graph's compiled form, made once."""
    found = _executables.get(graph)
    if found is None:
        found = _executables[graph] = CpuExecutable(Assembled(planner.plan_of(fuse(simplify(graph)))))
    return found


class CpuPlans:
    """The compiled forms of a graph that went through the passes: one for all sizes at which the planner would decide alike;
    see `Assembled` for `keep`."""

    def __init__(self, graph: Graph, keep: bool) -> None:
        self.graph, self.keep = graph, keep
        self._made: list[tuple[Callable[..., bool], Assembled]] = []

    def at(self, values: Mapping[str, int]) -> CpuExecutable:
        """The executable for given values of the symbols in the graph's sizes."""
        found = next((made for holds, made in self._made if holds(**values)), None)
        if found is None:
            with assuming(values) as assumed:
                plan = planner.plan_of(self.graph)
            found = Assembled(plan, keep=self.keep, symbols=list(values))
            self._made.append((assumed.test(), found))
        made = CpuExecutable(found, values)
        if values and planner.are_checked():
            checked(sized(self.graph, values), made.plan)
        return made


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
