"""Compiled programs held against their graphs: the plan is replayed over value numbers, and the kernels run in floats.

The proofs of passes speak of graphs.  What runs is a plan of kernels in memory that is used again; these two checks speak
of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...backends.plan.replay import PlanError, checked
from ...backends.plan.views import Plan
from ...domains.shaken import MAGNIFIED, difference, running_error
from ...errors import IndexRangeError, ProofError
from ...ir.graph import Graph
from ...ir.node import Node
from .draws import sources
from .identity import Case

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


def kernels_case(what: str, sizes: dict[str, int], graph: Graph, run: Run, given: Mapping[Node, Any], seed: int) -> Case:
    """The kernels' results on random inputs are those of the traced graph, as far as rounding allows; where the graph raises an
    error about an index, so do they.

    Rounding may move a number across a threshold: so far as a share of `MAGNIFIED` roundoffs moves the graph itself.
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    for largest in WHOLE:
        values = drawn(graph, rng, given, largest)
        given_by_name = {k: values[n] for k, n in sources(graph).items()}
        try:
            graph.run(given_by_name)
        except IndexRangeError:
            _raises(what, run, values)
            continue
        found = _found(what, run, values)
        wrong = _differences(found, graph, given_by_name, 3)
        wrong = wrong and _differences(found, graph, given_by_name, DOUBTFUL)  # look harder before anything is said
        for name, words in wrong.items():
            raise ProofError(f"the kernels of {what} compute another output {name!r}: {words}", name)
        return Case("floats", f"kernels {what}", sizes, _entries(graph), seconds=time.perf_counter() - began)
    return Case("floats", f"kernels {what}", sizes, 0, seconds=time.perf_counter() - began)


DOUBTFUL = 40  # runs of a shaken graph before a difference is called one
WHOLE = (1000, 3, 1)  # the largest whole numbers that are drawn, until all indices lie within their tables


def _raises(what: str, run: Run, values: Values) -> None:
    try:
        run(values)
    except IndexRangeError:
        return
    raise ProofError(f"the kernels of {what} take an index that lies outside of its table")


def _found(what: str, run: Run, values: Values) -> Mapping[str, Any]:
    try:
        return run(values)
    except IndexRangeError as raised:
        raise ProofError(f"the kernels of {what} refuse what the graph computes: {raised}") from None


def _differences(found: Mapping[str, Any], graph: Graph, values: Mapping[str, Any], runs: int) -> dict[str, str]:
    """What is wrong, by output, where the graph is shaken so many times."""
    expected, error = running_error(graph, values, runs)
    said = {name: difference(found[name], y, error[name], MAGNIFIED) for name, y in expected.items()}
    return {name: words for name, words in said.items() if words}


def drawn(graph: Graph, rng: np.random.Generator, given: Mapping[Node, Any], largest: int) -> Values:
    """Values for inputs and leaves: those that are given, else random numbers of a size that most programs take."""
    def numbers(n: Node) -> Any:
        if n.dtype.kind == "f":
            return rng.normal(size=n.shape).astype(n.dtype)
        low = -largest if n.dtype.kind == "i" and largest > 100 else 0
        top = 1 if n.dtype.kind == "b" else min(largest, np.iinfo(n.dtype).max)
        return rng.integers(max(low, -top), top, n.shape, endpoint=True).astype(n.dtype)

    return {n: given[n] if n in given else numbers(n) for n in sources(graph).values()}


def _entries(graph: Graph) -> int:
    return sum(int(np.prod(n.shape)) for n in graph.outputs.values())
