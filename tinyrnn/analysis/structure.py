"""How the steps of a network hang together: equal steps, what is carried between them, loops of the folded graph."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.op import Trait
from ..ir.ops.leaves import INPUT, LEAF, index_of, input_name
from ..ir.ops.structure import TAKE
from .recurrence import Recurrence

if TYPE_CHECKING:
    import networkx

_AT = re.compile(r"(.*)\[(-?\d+)\]")


# ---- re-rolling

def rerolled(graph: Graph) -> list[tuple[int, int]]:
    """The runs of identical steps of an unrolled graph: (first, last), by structural hash.

    A step's hash is that of its ops on its own inputs, on shared parameters, and on named values of earlier steps,
    which count by name and distance; equal hashes are equal computations.
    """
    shared = _shared(graph)
    hashes = _hashes(graph, shared)
    steps: dict[int, list[str]] = defaultdict(list)
    for n, t in graph.steps.items():
        if n in hashes and n not in shared:
            steps[t].append(hashes[n])
    runs: list[tuple[int, int, str]] = []
    for t in sorted(steps):
        key = hashlib.sha256("".join(sorted(steps[t])).encode()).hexdigest()
        if runs and runs[-1][2] == key and runs[-1][1] == t - 1:
            runs[-1] = (runs[-1][0], t, key)
        else:
            runs.append((t, t, key))
    return [(a, b) for a, b, _ in runs]


def _shared(graph: Graph) -> set[Node]:
    """What is computed from parameters and numbers alone, once for all steps."""
    found: set[Node] = set()
    for n in graph.nodes:
        indexed = n.op is INPUT and _AT.fullmatch(input_name(n))
        if not indexed and n.op is not TAKE and all(s in found for s in n.src):
            found.add(n)
    return found


def _hashes(graph: Graph, shared: set[Node]) -> dict[Node, str]:
    """The hash of every node, relative to its own step."""
    found: dict[Node, str] = {}
    one = len({label.cell for label in graph.labels}) == 1
    for n in graph.nodes:
        if not n.src:
            identity = input_name(n) if n.op is INPUT else id(n) if n.op is LEAF else n.at
            found[n] = repr((n.op.name, n.shape, n.dtype.str, identity))
            continue
        t = graph.steps.get(n)
        parts = [found[s] if s in shared or t is None else _relative(graph, s, t, found, one) for s in n.src]
        found[n] = hashlib.sha256(repr((n.op.name, n.at, n.shape, n.dtype.str, parts)).encode()).hexdigest()
    return found


def _relative(graph: Graph, s: Node, t: int, found: dict[Node, str], one: bool) -> str:
    """An operand as step t sees it: what belongs to another step counts by its name, or its kind, and its distance."""
    if s.op is TAKE and s not in graph.steps:  # the slice of a sequence
        return f"slice[t{index_of(s) + 1 - t:+d}] of {found[s.src[0]]}"
    name, step = None, graph.steps.get(s)
    if s.op is INPUT and (match := _AT.fullmatch(input_name(s))):
        name, step = match[1], int(match[2])
    elif s in graph.names and step is not None:
        label = graph.names[s][0]
        name = label.name if one else f"{label.cell}: {label.name}"
    if step is None or (step == t and s.op is not INPUT):
        return found[s]
    return f"{name or _kind(s)}[t-{t - step}]"


def _kind(n: Node) -> str:
    """A value of another step that has no name: its op, its shape and the ops that it reads."""
    return f"{n.op.name}{n.shape} of {[(s.op.name, s.shape) for s in n.src]}"


# ---- the folded graph

@dataclass(frozen=True)
class Loops:
    """Zhang et al., "Architectural Complexity Measures of Recurrent Neural Networks", NeurIPS 2016.

    recurrent depth   the most nonlinear functions per step on any loop of the folded graph
    shortest          the fewest: 0 where a state has a path around every function
    feedforward depth the most nonlinear functions from an input to an output within a step
    """

    recurrent_depth: Fraction
    shortest: Fraction
    feedforward_depth: int
    carried: tuple[str, ...]  # the fewest values that separate the past from what follows: a checkpoint between two steps

    def to_dict(self) -> dict[str, Any]:
        return {"recurrent depth": float(self.recurrent_depth), "fewest functions a step": float(self.shortest),
                "feedforward depth": self.feedforward_depth, "checkpoint between steps": list(self.carried)}


def loops(r: Recurrence) -> Loops:
    """The loops of a recurrence: of the longest and the shortest chains of functions between delays, the extreme cycles."""
    inputs = [r.step.inputs.get(k) for k in r.state_names]
    longest, shortest = _between(r, inputs, max), _between(r, inputs, min)
    count = len(r.new_states)
    deepest = least_cycle_mean({edge: -w for edge, w in longest.items()}, count)
    starts = [r.step.inputs[k] for k in r.input_names if k in r.step.inputs and r.step.inputs[k].floating]
    depth = max((_depths(r, s, max).get(n, 0) for s in starts for n in (*r.traced.values(), *r.new_states)), default=0)
    return Loops(-(deepest or Fraction(0)), least_cycle_mean(shortest, count) or Fraction(0), int(depth), _cut(r))


def _depths(r: Recurrence, start: Node, pick: Any) -> dict[Node, int]:
    """The most (or fewest) nonlinear functions on a path from `start` to every node of the step."""
    found = {start: 0}
    for n in r.step.nodes:
        reached = [found[s] for s in n.src if s in found]
        if reached and n is not start and n.floating:
            found[n] = pick(reached) + (Trait.ACTIVATES in n.op.traits)
    return found


def _between(r: Recurrence, inputs: list[Node | None], pick: Any) -> dict[tuple[int, int], int]:
    """(slot before the step, slot after it) -> functions between them."""
    table = {}
    for i, start in enumerate(inputs):
        depths = {} if start is None or not start.floating else _depths(r, start, pick)
        table.update({(i, j): depths[n] for j, n in enumerate(r.new_states) if n in depths})
    return table


def least_cycle_mean(weights: Mapping[tuple[int, int], int], count: int) -> Fraction | None:
    """The smallest mean weight of an edge on any cycle of a graph of `count` nodes; None where there is no cycle.

    `min over v of max over k of (d_n(v) - d_k(v)) / (n - k)` with d_k(v) the least weight of a walk of k edges that ends in
    v (Karp, "A characterization of the minimum cycle mean in a digraph", 1978).
    """
    walks: list[dict[int, int]] = [dict.fromkeys(range(count), 0)]
    for _ in range(count):
        longer: dict[int, int] = {}
        for (i, j), w in weights.items():
            if i in walks[-1]:
                longer[j] = min(longer.get(j, walks[-1][i] + w), walks[-1][i] + w)
        walks.append(longer)
    return min((max(Fraction(last - walk[v], count - k) for k, walk in enumerate(walks[:-1]) if v in walk)
                for v, last in walks[-1].items()), default=None)


def _cut(r: Recurrence) -> tuple[str, ...]:
    """The fewest values that separate what is remembered from what is handed on (a minimum vertex cut of the step)."""
    import networkx as nx

    g: networkx.DiGraph[Any] = nx.DiGraph()
    number = {n: i for i, n in enumerate(r.step.nodes)}
    for n, i in number.items():
        g.add_edge((i, 0), (i, 1), capacity=1)
        for s in n.src:
            g.add_edge((number[s], 1), (i, 0))
    for k in r.state_names:
        if k in r.step.inputs and r.step.inputs[k].floating:
            g.add_edge("past", (number[r.step.inputs[k]], 0))
    for n in r.new_states:
        if n.floating and n in number:
            g.add_edge((number[n], 1), "future")
    if "past" not in g or "future" not in g:
        return ()
    _, (reached, _) = nx.minimum_cut(g, "past", "future")
    labels = {n: label.name for label, n in r.step.labels.items()}
    cut = [n for n, i in number.items() if (i, 0) in reached and (i, 1) not in reached]
    return tuple(input_name(n) if n.op is INPUT else labels.get(n, n.op.name) for n in cut)
