"""The `cpu` backend: graphs run by compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import BackendError
from ...ir.graph import Graph
from ...passes import fuse, simplify
from ..arrays import fetched
from ..numpy import admitted
from ..plan.planner import plan_of
from .runtime import CpuExecutable
from .threads import default_threads

_executables: WeakKeyDictionary[Graph, CpuExecutable] = WeakKeyDictionary()


def executable(graph: Graph, fused: bool = False, keep: bool = True) -> CpuExecutable:
    """A graph's compiled form, made once; `fused` graphs went through the passes already; see `CpuExecutable` for `keep`."""
    found = _executables.get(graph)
    if found is None:
        found = _executables[graph] = CpuExecutable(plan_of(graph if fused else fuse(simplify(graph))), keep=keep)
    return found


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
