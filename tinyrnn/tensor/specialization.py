"""What was traced of a program, and what is made of it for given sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import Backend, ForAnySizes, UnsupportedError, default_threads, fetched, is_device, on_device
from ..errors import FallbackWarning, users_line
from ..ir import Graph
from ..ir.node import Node, without_collector
from ..ir.ops.leaves import box_of
from ..ir.sized import sized
from ..sizes import evaluated
from .signatures import OpenShapes, Shapes, reshaped, specs
from .tensor import changed, give
from .tracing import Trace

Array = npt.NDArray[Any]


LATEST, FEW = 1024, 64   # sets of sizes for which what was made is kept, and how many where it holds more than tables
MOST_BYTES = 64 * 2**20  # that it may take in all


class Traced:
    """A function traced for arguments of one kind: its graph after each pass, in which sizes may be symbols.

    `names` are those of the arrays among the arguments, in their order, and `open` says which of their sizes are symbols.
    """

    def __init__(self, stages: list[tuple[str, Graph]], rebuild: Callable[[list[Any]], Any], trace: Trace, backend: Backend,
                 strict: bool, updates: dict[str, Node], names: Sequence[str], arguments: tuple[Any, Any],
                 open_shapes: OpenShapes) -> None:
        self.stages, self.rebuild, self.trace, self.backend, self.strict = stages, rebuild, trace, backend, strict
        self.arguments, self.names, self.open = arguments, list(names), open_shapes
        self.requested = backend  # `self.backend` becomes the interpreter where no kernel exists
        self.graph = stages[-1][1]
        self.updates = updates  # outputs that become the data of leaves
        self.results = [k for k in self.graph.outputs if k not in updates]
        self.chosen = [i for i, k in enumerate(self.graph.outputs) if k not in updates]
        self.alone = bool(trace.updates or trace.draws)  # a call starts from what the one before left
        self._made: dict[Hashable, Specialization] = {}
        self._bytes = 0
        self._compiled = ForAnySizes(self.graph, backend, updates)
        given, at = list(specs(self.arguments)), {k: i for i, k in enumerate(names)}
        self.picks = [(k, at[k], given[at[k]].dtype == n.dtype) for k, n in self.graph.inputs.items()]

    @property
    def made(self) -> list[Specialization]:
        """What was made of it, for every set of shapes."""
        return list(self._made.values())

    def at(self, shapes: Shapes, values: Mapping[str, int], key: Hashable = None) -> Specialization:
        """What is made of it for arguments of these shapes, whose signature is `key`."""
        found = self._made.get(shapes)
        if found is None:
            found = Specialization(self, shapes, values, key)
            self._made[shapes] = found
            self._bytes += found.footprint
            limit = LATEST if self.backend.name == "cpu" else FEW
            while len(self._made) > 1 and (len(self._made) > limit or self._bytes > MOST_BYTES):
                self._bytes -= self._made.pop(next(iter(self._made))).footprint
        return found

    def compiled(self, values: Mapping[str, int]) -> tuple[Graph, Any]:
        """The graph that runs, and its executable, which is None for the interpreter."""
        if self.backend.name != "numpy":
            try:
                with without_collector():
                    return self._compiled.at(values)
            except UnsupportedError as error:
                if self.strict:
                    raise
                self.backend = Backend("numpy")
                warnings.warn(f"this runs on the interpreter, many times slower: {error}", FallbackWarning,
                              stacklevel=users_line())
        return sized(self.graph, values), None


class Specialization:
    """A program for arguments of given shapes: its graph after each pass, and how to run it."""

    def __init__(self, traced: Traced, shapes: Shapes, values: Mapping[str, int], key: Hashable) -> None:
        self.shapes, self.values, self.key = shapes, values, key
        self._stages, self._arguments = traced.stages, traced.arguments  # not `traced`, which holds this
        self.rebuild, self.trace, self.requested = traced.rebuild, traced.trace, traced.requested
        self.updates, self.results, self.names, self.alone = traced.updates, traced.results, traced.names, traced.alone
        self.runs, self.executable = traced.compiled(values)
        self.backend = traced.backend
        nodes = self.runs.inputs
        self._picks = [(k, nodes[k], i, plain) for k, i, plain in traced.picks]
        self.outputs = [(k, evaluated(n.shape, values), n.dtype) for k, n in traced.graph.outputs.items()]
        self._chosen = traced.chosen

    @property
    def footprint(self) -> int:
        """Bytes that are kept for these sizes."""
        return int(getattr(self.executable, "footprint", 0))

    @cached_property
    def stages(self) -> list[tuple[str, Graph]]:
        """The graph as traced and after each pass, with numbers for all sizes."""
        return [(k, sized(g, self.values)) for k, g in self._stages]

    @property
    def graph(self) -> Graph:
        """The graph after the last pass."""
        return self.stages[-1][1]

    @property
    def arguments(self) -> Any:
        """The arguments, with a `Spec` in the place of every array."""
        return reshaped(self._arguments, iter(self.shapes))

    def run(self, arrays: Sequence[Array], threads: int | None, last: Sequence[Array] = ()) -> Any:
        """The results for the arrays among the arguments; compiled kernels fill the arrays that are given for the last ones."""
        for node, draw in self.trace.draws:
            box_of(node).data = draw()
        if self.backend.name == "cuda":
            return self._run_on_gpu(arrays)
        there = self.requested.name == "cuda" and any(map(is_device, arrays))
        if self.executable is None:
            outputs = list(self.runs.run(fetched({k: arrays[i] for k, _, i, _ in self._picks})).values())
        else:
            outputs = self.executable.call(self.inputs(arrays), threads, last)
        if self.updates:
            named = dict(zip(self.runs.outputs, outputs, strict=True))
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
            names = {n: k for k, n in self.runs.leaves.items()}
            return list(self.runs.run({**{k: arrays[i] for k, _, i, _ in self._picks},
                                        **{names[n]: data for n, data in leaves.items()}}).values())
        outputs = {k: np.empty(shape, dtype) for k, shape, dtype in self.outputs}
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
        given.update((n, box_of(n).data) for n in self.runs.leaves.values())
        return self.executable.profile(given, {k: np.empty(shape, dtype) for k, shape, dtype in self.outputs})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size of every array among the arguments."""
        return tuple(n for shape in self.shapes for n in shape)

    def kernels_case(self, what: str, seed: int) -> Any:
        """The kernels' results on random inputs against the graph as traced."""
        def run(values: Mapping[Any, Any]) -> dict[str, Any]:
            by_name = {**{n: values[g] for k, n in self.runs.inputs.items() for g in (self.graph.inputs[k],)},
                       **{n: values[n] for n in self.runs.leaves.values()}}
            outputs = {k: np.empty(shape, dtype) for k, shape, dtype in self.outputs}
            self.executable.run({n: np.ascontiguousarray(v, n.dtype) for n, v in by_name.items()}, outputs, 1)
            return outputs

        kernels, graph = import_module("tinyrnn.symbolic.proof.compiled"), self.stages[0][1]
        random = {node for node, _ in self.trace.draws}  # they get their data when a program runs
        held = {n: box_of(n).data for n in graph.leaves.values() if n not in random}
        shapes = {k: "x".join(map(str, n.shape)) or "1" for k, n in graph.inputs.items()}
        return kernels.kernels_case(what, shapes, graph, run, held, seed)
