"""Compiled programs held against their graphs: the plan is replayed over value numbers, and the kernels run in floats.

The proofs of passes speak of graphs.  What runs is a plan of kernels in memory that is used again; these two checks speak
of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends.plan import Plan
from ..backends.replay import PlanError, checked
from ..domains.shaken import difference, running_error
from ..errors import IndexRangeError, ProofError
from ..ir.graph import Graph
from ..ir.node import Node
from .identity import Case, sources

Values = dict[Node, Any]
Run = Callable[[Mapping[Node, Any]], Mapping[str, Any]]


def plan_case(what: str, graph: Graph, plan: Plan) -> Case:
    """The plan computes every output of the graph from the same inputs by the same ops, wherever values lie."""
    began = time.perf_counter()
    try:
        checked(graph, plan)
    except PlanError as error:
        raise ProofError(f"the plan of {what} is wrong: {error}") from None
    return Case("replay", f"plan {what}", {}, _entries(graph), seconds=time.perf_counter() - began)


def kernels_case(what: str, sizes: dict[str, int], graph: Graph, run: Run, values: Values) -> Case:
    """The kernels' results are those of the traced graph, as far as rounding allows."""
    began = time.perf_counter()
    expected, error = running_error(graph, {k: values[n] for k, n in sources(graph).items()})
    found = run(values)
    for name, y in expected.items():
        wrong = difference(found[name], y, error[name])
        if wrong:
            raise ProofError(f"the kernels of {what} compute another output {name!r}: {wrong}", name)
    return Case("floats", f"kernels {what}", sizes, _entries(graph), seconds=time.perf_counter() - began)


def drawn(graph: Graph, rng: np.random.Generator, given: Mapping[Node, Any]) -> Values:
    """Values for inputs and leaves: those that are given, else random numbers of a size that most programs take; whole
    numbers are 0 or 1."""
    def numbers(n: Node) -> Any:
        if n.dtype.kind == "f":
            return rng.normal(size=n.shape).astype(n.dtype)
        return rng.integers(0, 2, n.shape).astype(n.dtype)

    return {n: given[n] if n in given else numbers(n) for n in sources(graph).values()}


def kernels_cases(what: str, sizes: dict[str, int], graph: Graph, run: Run, given: Mapping[Node, Any], seed: int) -> list[Case]:
    """The kernels at a random draw of the inputs; none where indices lie outside of a table."""
    try:
        return [kernels_case(what, sizes, graph, run, drawn(graph, np.random.default_rng(seed), given))]
    except IndexRangeError:
        return []


def _entries(graph: Graph) -> int:
    return sum(int(np.prod(n.shape)) for n in graph.outputs.values())
