"""The `cuda` backend: graphs run on a GPU by compiled kernels and cuBLAS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ...errors import BackendError
from ...ir.graph import Graph
from ...ir.node import Node
from ...passes import fuse, simplify
from ..choice import Backend
from ..numpy import admitted
from ..plan.matmul import Blas
from ..plan.planner import plan_of
from .device import require
from .graphs import CudaExecutable, with_room

_executables: WeakKeyDictionary[Graph, dict[tuple[Backend, int], CudaExecutable]] = WeakKeyDictionary()


def executable(graph: Graph, backend: Backend, fused: bool = False,
               updates: Mapping[str, Node] | None = None) -> CudaExecutable:
    """A graph's form for the current GPU, made once; `fused` graphs went through the passes already."""
    key = backend, require().cuda.Device().id
    found = _executables.setdefault(graph, {})
    if key not in found:
        plan = plan_of(graph if fused else fuse(simplify(graph)), Blas())
        found[key] = with_room(lambda: CudaExecutable(plan, backend, updates), "loading a program")
    return found[key]


def run(graph: Graph, values: Mapping[str, Any], domain: object, backend: Backend, on_device: bool = False) -> dict[str, Any]:
    """Evaluate a graph; results are arrays of their own that share memory with nothing."""
    if domain is not None:
        raise BackendError("compiled kernels know ordinary numbers only; use backend='numpy' for other domains")
    compiled = executable(graph, backend)
    nodes = {**graph.inputs, **graph.leaves}
    given = {nodes[k]: v for k, v in admitted(graph, values, leaves=False).items()}
    return compiled.run(given, on_device)

