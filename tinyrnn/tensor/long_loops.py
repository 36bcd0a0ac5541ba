"""Loops that were written in Python and traced step by step: where their steps are equal, a scan does the same."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise

from ..errors import LongLoopWarning, users_line
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.op import Trait
from ..ir.ops.structure import SLICE, TAKE

LONG = 128    # equal steps from which it pays to say so
TRIED = 8     # kinds of nodes that are looked at


def suggest_scan(graph: Graph) -> None:
    """Warn where a graph holds many equal steps, each computed from the one before."""
    steps = equal_steps(graph.nodes)
    if steps >= LONG:
        warnings.warn(f"{steps} equal steps of a Python loop were traced one by one, which compiles each of them: "
                      "tr.scan(step, start, sequence) compiles one step for any length",
                      LongLoopWarning, stacklevel=users_line())


def equal_steps(order: Sequence[Node]) -> int:
    """The largest number of nodes of one kind of which each is computed from the one before in the same way."""
    position = {n: i for i, n in enumerate(order)}
    kinds: dict[Hashable, list[Node]] = defaultdict(list)
    for n in order:
        if n.floating and n.src and Trait.VIEW not in n.op.traits:
            kinds[_kind(n)].append(n)
    longest = sorted(kinds.values(), key=len, reverse=True)[:TRIED]
    return max((_chain(nodes, position) for nodes in longest if len(nodes) >= LONG), default=0)


def _kind(n: Node) -> Hashable:
    """What a node does: its op and attributes (but not which step it cuts out), and the leaves that it reads."""
    return n.op, n.shape, () if n.op in (TAKE, SLICE) else n.at, tuple(s if s.op.kind == "leaf" else s.op for s in n.src)


def _chain(nodes: Sequence[Node], position: Mapping[Node, int]) -> int:
    """How many of the nodes follow each other by equal steps."""
    longest, steps, before = 1, 1, None
    for a, b in pairwise(nodes):
        step = _between(a, b, position)
        steps = 1 if step is None else steps + 1 if step == before else 2
        longest, before = max(longest, steps), step
    return longest


def _between(a: Node, b: Node, position: Mapping[Node, int]) -> Counter[Hashable] | None:
    """What is computed between two nodes, if the second depends on the first."""
    found, stack, seen, reached = Counter[Hashable](), [b], set[Node](), False
    while stack:
        n = stack.pop()
        for s in n.src:
            reached |= s is a
            if position[s] > position[a] and s not in seen:
                seen.add(s)
                stack.append(s)
                found[_kind(s)] += 1
    return found if reached else None
