"""What runs a graph.  `available()` says which backends this machine has, and why not for the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import BackendError, FallbackWarning
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.ops.leaves import Box, box_of
from ..ir.sized import sized
from .arrays import fetched, is_device, on_host, speaks_dlpack, taken
from .choice import NAMES, Backend
from .numpy import run
from .plan.views import UnsupportedError


class Availability(tuple[str, ...]):
    """The names of the usable backends; `reasons` says what is missing for the rest."""

    reasons: dict[str, str]


def available() -> Availability:
    """The backends that can run here.

    >>> import tinyrnn as tr
    >>> tr.backends.available()[:2]
    ('numpy', 'cpu')
    """
    missing = {name: why for name in NAMES if (why := _missing(name)) is not None}
    found = Availability(name for name in NAMES if name not in missing)
    found.reasons = missing
    return found


def _missing(name: str) -> str | None:
    """Why a backend cannot run here; None where it can."""
    if name == "cpu" and find_spec("llvmlite") is None:
        return "llvmlite is not installed: pip install llvmlite"
    if name == "cuda":
        reason: str | None = _cuda("device").missing()
        return reason
    return None


def check_backend(text: object) -> Backend:
    """The backend that a text names, if it can run here; raises `BackendError` where it cannot."""
    backend = Backend.of(text)
    reason = _missing(backend.name)
    if reason is not None:
        raise BackendError(f"backend {backend.name!r} cannot run here: {reason}. `tinyrnn doctor` says more; available: "
                           f"{', '.join(available())}")
    return backend


def _cuda(module: str) -> Any:
    """A part of the CUDA backend: loaded on first use."""
    return import_module(f"tinyrnn.backends.cuda.{module}")


class ForAnySizes:
    """The compiled forms of a graph that went through the passes, by the values of the symbols in its sizes.

    `updates` are outputs that become the data of leaves: on a GPU they stay where they are.
    """

    def __init__(self, graph: Graph, backend: Backend, updates: Mapping[str, Node] | None = None) -> None:
        self.graph, self.backend, self.updates = graph, backend, updates
        self._cpu: Any = None

    def at(self, values: Mapping[str, int]) -> tuple[Graph, Any]:
        """The executable for given values, and the graph whose inputs it takes; raises `UnsupportedError` where the graph holds
        what no kernel computes."""
        if self.backend.name == "cuda":
            graph = sized(self.graph, values)
            return graph, _cuda("backend").executable(graph, self.backend, True, self.updates)
        if self._cpu is None:  # llvmlite is loaded on first use
            self._cpu = import_module("tinyrnn.backends.cpu.backend").CpuPlans(self.graph, not self.updates)
        return self.graph, self._cpu.at(values)


def foreseen(graph: Graph, backend: Backend) -> None:
    """Begin with what a graph needs for sure, in a thread beside: passes run while LLVM compiles."""
    if backend.name == "cpu":
        import_module("tinyrnn.backends.cpu.backend").foreseen(graph)


def bound(executable: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """A compiled program of the CPU with its inputs and outputs in fixed places: `bound(threads)` runs it."""
    return import_module("tinyrnn.backends.cpu.bound").Bound(executable, inputs, outputs)


def temporaries(graph: Graph) -> int:
    """Bytes that the temporaries of a fused graph take, as it is planned; 0 for what no kernel computes."""
    try:
        plan = import_module("tinyrnn.backends.plan.planner").planned(graph)
    except UnsupportedError:
        return 0
    size: int = import_module("tinyrnn.backends.plan.memory").arrange(plan)[1]
    return size


def default_threads() -> int:
    """How many threads compiled kernels use."""
    threads: int = import_module("tinyrnn.backends.cpu.threads").default_threads()
    return threads


def openmp(file: Path) -> Any:
    """The threads of a GNU OpenMP that another library has loaded; None where it is not one."""
    try:
        return import_module("tinyrnn.backends.cpu.openmp").OpenMP(file)
    except (OSError, AttributeError):
        return None


def helped_by(team: Any) -> AbstractContextManager[None]:
    """Inside, runs on the CPU are shared with the threads of that OpenMP, where there is one."""
    found: AbstractContextManager[None] = import_module("tinyrnn.backends.cpu.openmp").helped_by(team)
    return found


def checked_threads(threads: object) -> int:
    """A number of threads, refused when it is none."""
    found: int = import_module("tinyrnn.backends.cpu.threads").checked_threads(threads)
    return found


def evaluate(nodes: Sequence[Node]) -> list[Any]:
    """The values of nodes that depend on leaves alone: on the GPU, and left there, where one of the leaves lives on it."""
    graph = Graph({str(i): n for i, n in enumerate(nodes)})
    if any(box_of(n).home == "cuda" for n in graph.leaves.values()):
        try:
            return list(_cuda("backend").run(graph, {}, None, Backend("cuda", eager=True), on_device=True).values())
        except UnsupportedError as error:
            warnings.warn(f"this runs on the interpreter, many times slower: {error}", FallbackWarning, stacklevel=4)
    return list(run(graph, {}).values())


def on_gpu(box: Box) -> Any:
    """The data of a leaf on the GPU, for the current stream to read."""
    return _cuda("mirrors").here(box, box.name or "a tensor")


def copy_on_gpu(box: Box) -> Any:
    """A copy of the data of a leaf on the GPU."""
    return _cuda("mirrors").copy_of(box, box.name or "a tensor")


def made_on_gpu(array: object) -> Any:
    """A value that was just computed on the GPU; its `here()` is the array, for the current stream to read."""
    return _cuda("mirrors").Made(array)


def on_device(array: object) -> Any:
    """An array of the host as one of the GPU."""
    return _cuda("device").require().asarray(array)


def mirror(array: object, own: bool) -> Any:
    """A place on the GPU for the data of a leaf that are there already; its `own`, or the array as it is."""
    return _cuda("mirrors").mirror_with(array, own)


def run_graph(graph: Graph, values: Mapping[str, Any], domain: Any, text: str) -> dict[str, Any]:
    """`Graph.run` on the backend that a text names."""
    backend, results = Backend.of(text), dict[str, Any]()
    if backend.name == "cuda":
        results = _cuda("backend").run(graph, values, domain, backend, any(is_device(v) for v in values.values()))
    elif backend.name == "cpu":
        results = import_module("tinyrnn.backends.cpu.backend").run(graph, values, domain)
    else:
        results = run(graph, values, domain)
    return results


__all__ = ["Backend", "ForAnySizes", "UnsupportedError", "available", "bound", "check_backend", "checked_threads",
           "copy_on_gpu", "default_threads", "evaluate", "fetched", "foreseen", "helped_by", "is_device", "made_on_gpu",
           "mirror", "on_device", "on_gpu", "on_host", "openmp", "run", "run_graph", "speaks_dlpack", "taken",
           "temporaries"]
