"""What runs a graph.  `available()` says which backends this machine has, and why not for the others."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..ir.graph import RUNNERS, Graph
from .numpy import evaluate, run
from .plan import UnsupportedError


class Availability(tuple[str, ...]):
    """The names of the usable backends; `reasons` says what is missing for the rest."""

    reasons: dict[str, str]


def available() -> Availability:
    """The backends that can run here.

    >>> import tinyrnn as tr
    >>> tr.backends.available()
    ('numpy', 'cpu')
    """
    reasons = {} if find_spec("llvmlite") else {"cpu": "llvmlite is not installed: pip install llvmlite"}
    found = Availability(["numpy", *(["cpu"] if "cpu" not in reasons else [])])
    found.reasons = reasons | {"cuda": "the CUDA backend is not part of this version"}
    return found


def compiled(graph: Graph, *, fused: bool = False, keep: bool = True) -> Any:
    """A graph's compiled form for this processor; raises `UnsupportedError` where it holds what no kernel computes."""
    return import_module("tinyrnn.backends.cpu.backend").executable(graph, fused, keep)  # llvmlite is loaded on first use


def default_threads() -> int:
    """How many threads compiled kernels use."""
    threads: int = import_module("tinyrnn.backends.cpu.runtime").default_threads()
    return threads


def checked_threads(threads: Any) -> int:
    """A number of threads, refused when it is none."""
    found: int = import_module("tinyrnn.backends.cpu.runtime").checked_threads(threads)
    return found


def _run_cpu(graph: Graph, values: Mapping[str, Any], domain: Any = None) -> dict[str, Any]:
    results: dict[str, Any] = import_module("tinyrnn.backends.cpu.backend").run(graph, values, domain)
    return results


RUNNERS["cpu"] = _run_cpu

__all__ = ["UnsupportedError", "available", "checked_threads", "compiled", "default_threads", "evaluate", "run"]
