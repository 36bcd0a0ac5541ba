"""The pipeline: a function of tensors becomes a graph, the passes run over it, a backend runs it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from .backends import available
from .errors import BackendError
from .ir import Graph, check
from .ir.check import ENABLED
from .ir.ops.leaves import input_node
from .passes import save
from .tensor import Tensor

PIPELINE: tuple[tuple[str, Callable[[Graph], Graph]], ...] = (("save", save),)


class Program:
    """A function from named tensors to named tensors, traced once for each signature.

    Parameters met while tracing stay parameters: their data are read at every call.
    """

    def __init__(self, function: Callable[..., Mapping[str, Tensor]], backend: str = "numpy") -> None:
        if backend not in available():
            raise BackendError(f"backend {backend!r} cannot run here: {available().reasons.get(backend, 'unknown name')}; "
                               f"available: {', '.join(available())}")
        self.function, self.backend = function, backend
        self.graphs: dict[Hashable, Graph] = {}

    def graph(self, values: Mapping[str, Any], key: Hashable = None) -> Graph:
        """The graph for arrays of these shapes and dtypes; `key` tells apart whatever else the function depends on."""
        signature = (key, tuple((k, v.shape, v.dtype.str) for k, v in values.items()))
        if signature not in self.graphs:
            self.graphs[signature] = self._trace(values)
        return self.graphs[signature]

    def _trace(self, values: Mapping[str, Any]) -> Graph:
        tensors = {k: Tensor(input_node(k, v.shape, v.dtype)) for k, v in values.items()}
        graph = Graph(self.function(**tensors))
        for _, transform in PIPELINE:
            graph = check(transform(graph)) if ENABLED else transform(graph)
        return graph

    def __call__(self, key: Hashable = None, /, **values: Any) -> dict[str, Any]:
        arrays = {k: np.asarray(v) for k, v in values.items()}
        graph = self.graph(arrays, key)
        return graph.run({k: v for k, v in arrays.items() if k in graph.inputs}, backend=self.backend)
