"""The pipeline: a function of tensors becomes a graph, the passes run over it, a backend runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import available
from .errors import ArgumentError, BackendError
from .ir import Graph, check
from .ir.check import ENABLED
from .ir.ops.leaves import input_node
from .passes import concat, defer, fuse, gates, hoist, save, simplify
from .tensor import Tensor

if TYPE_CHECKING:
    from .symbolic.prove import Proof

PIPELINE: tuple[tuple[str, Callable[[Graph], Graph]], ...] = (
    ("save", save), ("concat", concat), ("defer", defer), ("gates", gates), ("hoist", hoist), ("simplify", simplify),
    ("fuse", fuse))


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
        self.stages: dict[Hashable, list[tuple[str, Graph]]] = {}

    def graph(self, values: Mapping[str, Any], key: Hashable = None) -> Graph:
        """The graph for arrays of these shapes and dtypes; `key` tells apart whatever else the function depends on."""
        signature = (key, tuple((k, v.shape, v.dtype.str) for k, v in values.items()))
        if signature not in self.graphs:
            self.stages[signature] = self._trace(values)
            self.graphs[signature] = self.stages[signature][-1][1]
        return self.graphs[signature]

    def _trace(self, values: Mapping[str, Any]) -> list[tuple[str, Graph]]:
        """The traced graph and what each pass makes of it."""
        tensors = {k: Tensor(input_node(k, v.shape, v.dtype)) for k, v in values.items()}
        stages = [("trace", Graph(self.function(**tensors)))]
        for name, transform in PIPELINE:
            graph = transform(stages[-1][1])
            stages.append((name, check(graph) if ENABLED else graph))
        return stages

    def prove(self, *, rng: int = 0) -> Proof:
        """Every pass kept every value, in each signature that was traced; raises `ProofError` where one did not."""
        if not self.stages:
            raise ArgumentError("nothing was traced yet: call the program once, then prove it")
        pairs = [(f"{name} {i}", before, after) for i, stages in enumerate(self.stages.values(), 1)
                 for (_, before), (name, after) in pairwise(stages)]
        prover = import_module("tinyrnn.symbolic.prove")  # loaded on first use: most programs are never proved
        proof: Proof = prover.equal_graphs("program", pairs, rng, time.perf_counter())
        return proof

    def __call__(self, key: Hashable = None, /, **values: Any) -> dict[str, Any]:
        arrays = {k: np.asarray(v) for k, v in values.items()}
        graph = self.graph(arrays, key)
        return graph.run({k: v for k, v in arrays.items() if k in graph.inputs}, backend=self.backend)
