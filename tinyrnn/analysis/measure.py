"""What a graph costs: work and span, memory in the order of execution, and what training keeps for the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from ..cells import Cell
from ..ir.graph import Graph
from ..ir.node import Node, walk
from ..ir.ops.elementwise import TAG, name_of
from ..ir.ops.leaves import index_of
from ..ir.scan import SCAN, TRACE, ScanView, body_of, expression_of
from ..passes import partition
from ..passes.partition import minimum_cut
from .recurrence import recurrences


def size_of(n: Node) -> int:
    """Bytes of a value."""
    return prod(n.shape) * n.dtype.itemsize


@dataclass(frozen=True)
class OperationCount:
    """Operations and bytes, and the longest chain of operations.

    `flops / span` is the parallelism: how many times faster it could be with any number of processors.
    """

    nodes: int
    ops: dict[str, int]
    flops: int
    bytes: int           # read and written by every op, each on its own
    depth: int           # ops on the longest chain
    span: int            # flops on the most expensive chain
    width: int           # the most ops at one depth
    chain: tuple[str, ...]

    @property
    def intensity(self) -> float:
        """Flops per byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def parallelism(self) -> float:
        return self.flops / self.span if self.span else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "ops": self.ops, "flops": self.flops, "bytes": self.bytes, "intensity": self.intensity,
                "depth": self.depth, "span": self.span, "parallelism": self.parallelism, "width": self.width,
                "critical path": list(self.chain)}


def work(graph: Graph) -> OperationCount:
    """Work and span of a graph without scans."""
    depth: dict[Node, int] = {}
    span: dict[Node, int] = {}
    before: dict[Node, Node | None] = {}
    ops: Counter[str] = Counter()
    at_depth: Counter[int] = Counter()
    flops = moved = 0
    for n in graph.nodes:
        if not n.src:
            depth[n], span[n], before[n] = 0, 0, None
            continue
        own = n.op.flops(n)
        best = max(n.src, key=lambda s: span[s])
        depth[n], span[n], before[n] = 1 + max(depth[s] for s in n.src), own + span[best], best
        ops[n.op.name] += 1
        at_depth[depth[n]] += 1
        flops += own
        moved += size_of(n) + sum(size_of(s) for s in n.src)
    end = max(graph.nodes, key=lambda n: span[n], default=None)
    return OperationCount(len(graph), dict(ops.most_common()), flops, moved, max(depth.values(), default=0),
                span[end] if end is not None else 0, max(at_depth.values(), default=0), _chain(graph, end, before))


def _chain(graph: Graph, end: Node | None, before: dict[Node, Node | None]) -> tuple[str, ...]:
    """The named values on the most expensive chain, first to last."""
    out: list[str] = []
    while end is not None:
        if end in graph.names:
            out.append(str(graph.names[end][0]))
        end = before[end]
    return tuple(out[::-1])


@dataclass(frozen=True)
class PeakMemory:
    """Bytes that are alive while the graph runs node by node, each value dropped after its last use."""

    inputs: int
    peak: int            # of computed values, at the worst moment
    total: int           # of all computed values together
    at: str              # where the peak is
    live: tuple[int, ...] = field(default=(), repr=False)  # computed bytes after every op, in the order of execution

    def to_dict(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "peak": self.peak, "total": self.total, "peak at": self.at}


def memory(graph: Graph) -> PeakMemory:
    """Memory in the order in which the interpreter executes."""
    order = graph.nodes
    last = {s: i for i, n in enumerate(order) for s in n.src}
    kept = set(graph.outputs.values())
    given = sum(size_of(n) for n in order if not n.src)
    live = peak = total = 0
    worst: Node | None = None
    curve: list[int] = []
    for i, n in enumerate(order):
        if not n.src:
            continue
        live += size_of(n)
        total += size_of(n)
        if live > peak:
            peak, worst = live, n
        for s in {*n.src, n}:
            if last.get(s, i) == i and s.src and s not in kept and (s is not n or s not in last):
                live -= size_of(s)
        curve.append(live)
    return PeakMemory(given, peak, total, "" if worst is None else where(graph, worst), tuple(curve))


def where(graph: Graph, n: Node) -> str:
    """A node in words: its name, or its op and step."""
    if n in graph.names:
        return str(graph.names[n][0])
    step = graph.steps.get(n)
    return n.op.name + (f" of step {step}" if step is not None else "")


@dataclass(frozen=True)
class Saved:
    """What one step keeps for its backward step, for one row: as derived, and after the minimum cut of the pass `partition`;
    of a cell also the minimum cut of the whole sequence, in which states may be built again from those before them."""

    naive_bytes: int
    bytes: int
    names: tuple[str, ...]
    whole_bytes: int | None = None
    whole_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        found = {"derived bytes a step and row": self.naive_bytes, "minimum cut bytes a step and row": self.bytes,
                 "kept": list(self.names)}
        if self.whole_bytes is not None:
            found |= {"minimum cut of the sequence, bytes a step and row": self.whole_bytes,
                      "kept in it": list(self.whole_names)}
        return found


def saved(graph: Graph, rows: int) -> Saved:
    """The traces that backward scans read, before and after `partition`, of a graph with scans and gradients."""
    before, after = _read_back(graph), _read_back(partition(graph))
    return Saved(sum(size_of(e) for e, _ in before) // rows, sum(size_of(e) for e, _ in after) // rows,
                 tuple(sorted(name for _, name in after)))


def saved_of_cell(cell: Cell, sizes: Mapping[str, int]) -> Saved:
    """As `saved`, and the minimum cut of a whole sequence: what two more steps add to it."""
    step = saved(cell.rolled(2, sizes, loss="sum", gradients=True), 1)
    (few, _), (more, names) = (_whole(cell.unroll(steps, sizes, loss="sum", gradients=True), steps) for steps in (4, 6))
    return replace(step, whole_bytes=(more - few) // 2, whole_names=names)


def _whole(graph: Graph, steps: int) -> tuple[int, tuple[str, ...]]:
    """The bytes of a minimum cut between an unrolled graph and its backward graph, and what it keeps of the middle step."""
    forward = set(walk([graph.outputs["loss"]]))
    read = dict.fromkeys(s for n in graph.nodes if n not in forward for s in n.src if s in forward and s.src)
    kept = [n for n in minimum_cut(list(read), {n for n in forward if not n.src}, set()) if n.src]
    middle = [n for n in kept if graph.steps.get(n) == steps // 2]
    names = (graph.names[n][0].name if n in graph.names else n.op.name for n in middle)
    return sum(map(size_of, kept)), tuple(sorted(names))


def _read_back(graph: Graph) -> list[tuple[Node, str]]:
    """The expressions of forward scans whose traces another scan reads, each with its name."""
    found: dict[tuple[Node, Node], Node] = {}
    for n in graph.nodes:
        if n.op is SCAN:
            found |= {(x.src[0], expression_of(x)): expression_of(x) for x in ScanView.of(n).split(n.src)[1] if x.op is TRACE}
    remembered = {r.scan.node: r.state_names for r in recurrences(graph)}
    return [(e, _name(e, scan, remembered[scan])) for (scan, e) in found]


def _name(e: Node, scan: Node, remembered: Sequence[str]) -> str:
    """What an expression over a scan's body is called: by its tag, its argument, or the quantity it is computed from."""
    if e.op.name == "arg":
        return remembered[index_of(e)] if index_of(e) < len(remembered) else f"argument {index_of(e)}"
    body = walk([*body_of(scan).outs, e])
    tag = next((n for n in body if n.op is TAG and (n is e or n.src[0] is e)), None)
    if tag is not None:
        return name_of(tag)
    inner = next((name_of(n) for n in reversed(walk([e])) if n.op is TAG), "")
    return f"{e.op.name} of {inner}" if inner else e.op.name
