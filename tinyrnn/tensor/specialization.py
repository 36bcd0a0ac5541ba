"""A program for one signature: its graph after each pass, and how to run it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import Backend, UnsupportedError, compiled, default_threads, fetched, is_device, on_device
from ..errors import FallbackWarning
from ..ir import Graph
from ..ir.node import Node, without_collector
from ..ir.ops.leaves import box_of
from .signatures import specified, specs
from .tensor import changed, give
from .tracing import Trace

Array = npt.NDArray[Any]


class Specialization:
    """A program for one signature: its graph after each pass, and how to run it.

    `names` are those of the arrays among the arguments, in their order.
    """

    def __init__(self, stages: list[tuple[str, Graph]], rebuild: Callable[[list[Any]], Any], trace: Trace, backend: Backend,
                 strict: bool, updates: dict[str, Node], names: Sequence[str], arguments: tuple[Any, Any]) -> None:
        self.stages, self.rebuild, self.trace, self.backend = stages, rebuild, trace, backend
        self.arguments = specified(arguments)
        self.requested = backend  # `self.backend` becomes the interpreter where no kernel exists
        self.graph = stages[-1][1]
        self.updates = updates  # outputs that become the data of leaves
        self.results = [k for k in self.graph.outputs if k not in updates]
        self.executable: Any = self._compiled(strict) if backend.name != "numpy" else None
        self.names = list(names)
        given, at = list(specs(self.arguments)), {k: i for i, k in enumerate(names)}
        self._picks = [(k, n, at[k], given[at[k]].dtype == n.dtype) for k, n in self.graph.inputs.items()]
        self._outputs = [(k, n.shape, n.dtype) for k, n in self.graph.outputs.items()]
        self._chosen = [i for i, k in enumerate(self.graph.outputs) if k not in updates]
        self.alone = bool(trace.updates or trace.draws)  # a call starts from what the one before left
        self.key: Hashable = None

    def _compiled(self, strict: bool) -> Any:
        try:
            with without_collector():
                return compiled(self.graph, self.backend, self.updates)
        except UnsupportedError as error:
            if strict:
                raise
            self.backend = Backend("numpy")
            warnings.warn(f"this runs on the interpreter, many times slower: {error}", FallbackWarning, stacklevel=7)
            return None

    def run(self, arrays: Sequence[Array], threads: int | None) -> Any:
        """The results for the arrays among the arguments."""
        for node, draw in self.trace.draws:
            box_of(node).data = draw()
        if self.backend.name == "cuda":
            return self._run_on_gpu(arrays)
        there = self.requested.name == "cuda" and any(map(is_device, arrays))
        if self.executable is None:
            outputs = list(self.graph.run(fetched({k: arrays[i] for k, _, i, _ in self._picks})).values())
        else:
            outputs = self.executable.call(self.inputs(arrays), threads)
        if self.updates:
            named = dict(zip(self.graph.outputs, outputs, strict=True))
            give({leaf: named[k] for k, leaf in self.updates.items()})
        return self.rebuild([on_device(outputs[i]) if there else outputs[i] for i in self._chosen])

    def run_with(self, leaves: Mapping[Node, Array], arrays: Sequence[Any], threads: int | None) -> list[Any]:
        """The results for given arrays and given data of the leaves, whatever they hold now."""
        if self.backend.name == "cuda":
            given = {**{n: arrays[i] for _, n, i, _ in self._picks}, **leaves}
            found = self.executable.run(given, any(map(is_device, arrays)))
            return [found[k] for k in self.results]
        if all(box_of(n).data is data for n, data in leaves.items()):
            results: list[Any] = self.run(arrays, threads)
            return results
        if self.executable is None:
            names = {n: k for k, n in self.graph.leaves.items()}
            return list(self.graph.run({**{k: arrays[i] for k, _, i, _ in self._picks},
                                        **{names[n]: data for n, data in leaves.items()}}).values())
        outputs = {k: np.empty(shape, dtype) for k, shape, dtype in self._outputs}
        inputs = dict(zip((n for _, n, _, _ in self._picks), self.inputs(arrays), strict=True))
        self.executable.run({**inputs, **leaves}, outputs, default_threads() if threads is None else threads)
        return list(outputs.values())

    def inputs(self, arrays: Sequence[Any]) -> list[Array]:
        """What compiled kernels read, in their order: in the host's memory, without gaps."""
        return [a if plain and type(a) is np.ndarray and a.flags.c_contiguous else
                np.ascontiguousarray(fetched({k: a})[k], n.dtype)
                for k, n, i, plain in self._picks for a in (arrays[i],)]

    def _run_on_gpu(self, arrays: Sequence[Any]) -> Any:
        """Results stay on the device where an argument is there; parameters always do."""
        outputs = self.executable.run({n: arrays[i] for _, n, i, _ in self._picks}, any(map(is_device, arrays)))
        changed(self.updates.values())
        return self.rebuild([outputs[k] for k in self.results])

    def profile(self, arrays: Sequence[Any]) -> Any:
        """The kernels with the seconds that each took."""
        given = dict(zip((n for _, n, _, _ in self._picks), self.inputs(arrays), strict=True))
        given.update((n, box_of(n).data) for n in self.graph.leaves.values())
        return self.executable.profile(given, {k: np.empty(shape, dtype) for k, shape, dtype in self._outputs})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size of every array among the arguments."""
        return tuple(n for spec in specs(self.arguments) for n in spec.shape)

    def kernels_case(self, what: str, seed: int) -> Any:
        """The kernels' results on random inputs against the graph as traced."""
        def run(values: Mapping[Any, Any]) -> dict[str, Any]:
            nodes = (*self.graph.inputs.values(), *self.graph.leaves.values())
            outputs = {k: np.empty(shape, dtype) for k, shape, dtype in self._outputs}
            self.executable.run({n: np.ascontiguousarray(values[n], n.dtype) for n in nodes}, outputs, 1)
            return outputs

        kernels, graph = import_module("tinyrnn.symbolic.proof.compiled"), self.stages[0][1]
        random = {node for node, _ in self.trace.draws}  # they get their data when a program runs
        held = {n: box_of(n).data for n in graph.leaves.values() if n not in random}
        shapes = {k: "x".join(map(str, n.shape)) or "1" for k, n in graph.inputs.items()}
        return kernels.kernels_case(what, shapes, graph, run, held, seed)
