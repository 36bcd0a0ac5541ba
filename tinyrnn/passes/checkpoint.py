"""`checkpoint`: a scan with a budget of memory runs in parts, whose inner values are computed again to go back.

    h[0] -> h[k] -> h[2k] -> ... -> h[T]       forwards the states between parts are kept, and nothing inside them
    dh[T] -> ... -> dh[2k] -> dh[k] -> dh[0]   backwards a part runs forwards again, this time with its traces, then back

(Chen et al., "Training deep nets with sublinear memory cost", 2016.)  Sums over time are handed on from part to part.
Parts end where the kernels' blocks of rows end, and each sum goes on from the total of the parts before it, so that
every result has the bits that it has without a budget.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd, prod

import numpy as np

from ..errors import ArgumentError
from ..ir.graph import Graph
from ..ir.node import DType, Node, apply, rebuild, walk, without_collector
from ..ir.op import Trait
from ..ir.ops.elementwise import CAST, add, astype, tag
from ..ir.ops.leaves import FULL, full, hole, input_node, is_number
from ..ir.ops.linear import MATMUL, SUM, add_onto, matmul, sum_
from ..ir.ops.structure import concat
from ..ir.scan import (
    FINAL,
    REGION,
    SCAN,
    TRACE,
    Body,
    ScanView,
    body_of,
    close,
    expression_of,
    final,
    make_scan,
    position_of,
    region,
    trace,
)
from ..shapes import show_bytes
from .defer import found_later
from .over_time import Lift, Lifted
from .partition import forward_of
from .rewrite import replaced, users, with_inner

BLOCK = 256  # rows that kernels add up before they join a total
MOST, REPORTED = 512, 64  # parts of a scan; and those that are tried at least, for a refusal to say what they take
BytesOf = Callable[[Graph], int]
"""What the temporaries of a graph take, once it is planned."""


def checkpoint(graph: Graph, bytes_of: BytesOf) -> Graph:
    """The same graph, in which every scan with a budget is cut into as few parts as keep it.

    Raises `ArgumentError` where no number of parts up to 512 does.
    """
    if not _has_budget(graph.nodes):
        return graph
    with without_collector():
        return _Cutter(graph, lambda cutter, root: _fitting(cutter, root, bytes_of)).graph()


def _has_budget(nodes: Iterable[Node]) -> bool:
    return any((n.op is SCAN and ScanView.of(n).memory is not None)
               or (n.op is REGION and _has_budget(walk(body_of(n).outs))) for n in nodes)


@dataclass(frozen=True)
class Split:
    """A scan in which every product and every column sum over time has an accumulator of its own."""

    body: Body
    kept: Sequence[int]          # the states that stay
    starts: Sequence[Node]       # of the accumulators behind them
    traced: Mapping[Node, Node]  # of an expression over the old body: the one over the new
    results: Mapping[int, Node]  # of a state that was a sum, over what stands for the accumulators' final values
    totals: Sequence[Node]       # that
    grain: int                   # how many steps a part has a multiple of

    def finals(self, found: Sequence[Node]) -> dict[int, Node]:
        """The final values of the old states, from those of the new ones."""
        table = dict(zip(self.totals, found[len(self.kept) :], strict=True))
        sums = replaced(list(self.results.values()), table)
        return {**dict(zip(self.kept, found, strict=False)), **dict(zip(self.results, sums, strict=True))}


class _Parts(Lift):
    """Totals over time, made of accumulators."""

    def __init__(self, given: Mapping[Node, Lifted], steps: int, forward: bool = False) -> None:
        super().__init__(given, steps, forward)
        self.terms: dict[Node, Node] = {}    # what is added at every step -> what stands for the total
        self.dtypes: dict[Node, DType] = {}  # of the totals, which are added up in a wider one
        self.rows: list[int] = []            # that a step adds

    def summed(self, n: Node, axes: tuple[int, ...]) -> Node:
        wide = np.dtype(np.float64) if n.dtype.kind == "f" else n.dtype  # in which kernels add up
        term = sum_(tag(n, "term") if n.op in (CAST, MATMUL, SUM) else n, axes)
        return self._total(astype(term, wide), prod(n.shape[i] for i in axes), n.dtype)

    def multiplied(self, a: Node, b: Node) -> Node:
        term = matmul(a, b)
        return self._total(term, b.shape[0], term.dtype)

    def _total(self, term: Node, rows: int, dtype: DType) -> Node:
        self.rows.append(rows)
        stand_in = self.terms.setdefault(term, hole(term.shape, term.dtype))
        self.dtypes[stand_in] = dtype
        return astype(stand_in, dtype)


def split(scan: ScanView, wanted: Sequence[Node]) -> Split:
    """A scan with its sums over time taken apart, where they will leave its loop; else as it is."""
    parts: list[_Parts] = []

    def lift(given: Mapping[Node, Lifted], steps: int, forward: bool) -> Lift:
        parts.append(_Parts(given, steps, forward))
        return parts[0]

    later = found_later(scan, wanted, lift)
    init, _, _ = scan.split(scan.node.src)
    if later is None or not later.totals:
        return Split(scan.body, range(scan.n_states), (), {e: e for e in wanted}, {}, (), 1)
    (found,) = parts
    args, outs = scan.body.args, scan.body.outs
    starts = {h: full(0, h.shape, h.dtype) for h in found.terms.values()}
    results = {}
    for i, total in later.totals.items():
        alone = next((h for h in starts if total is astype(h, found.dtypes[h])), None)
        if alone is not None and (is_number(starts[alone], 0) or starts[alone] is astype(init[i], alone.dtype)):
            starts[alone] = astype(init[i], alone.dtype)
            results[i] = total
        else:
            results[i] = add(init[i], total)
    sums = {h: hole(h.shape, h.dtype) for h in starts}
    kept_args = [args[i] for i in later.kept]
    body, traced = close([*kept_args, *sums.values(), *args[scan.n_states :]],
                         [*(outs[i] for i in later.kept), *(add_onto(sums[h], term) for term, h in found.terms.items())],
                         wanted)
    grain = max(BLOCK // gcd(BLOCK, rows) for rows in found.rows)
    return Split(body, later.kept, list(starts.values()), dict(zip(wanted, traced, strict=True)), results, list(starts), grain)


def bounds(steps: int, parts: int, grain: int) -> list[tuple[int, int]]:
    """The first and the last step of so many parts, or of fewer, all of one length but for the last."""
    each = -(-steps // (parts * grain)) * grain or 1
    return [(t, min(t + each, steps)) for t in range(0, steps, each)]


Part = tuple[int, int]
Bounds = Sequence[Part]


@dataclass(frozen=True)
class _Run:
    """A scan in parts: how it was split, and the states before each part."""

    scan: ScanView
    split: Split
    before: dict[Part, Sequence[Node]]

    def sources(self, part: Part) -> list[Node]:
        """What a part reads."""
        _, xs, consts = self.scan.split(self.scan.node.src)
        return [*self.before[part], *(_steps(x, part) for x in xs), *consts]

    def node(self, sources: Sequence[Node], part: Part) -> Node:
        """The scan of a part."""
        k = len(self.before[part])
        end = k + self.scan.n_slices
        return make_scan(self.split.body, sources[:k], sources[k:end], sources[end:], self.scan.reverse, part[1] - part[0])


class _Cutter:
    """The rebuilding of a graph in which every scan with a budget runs in parts.

    A scan that goes back over another one, and reads its traces, is cut where that one is.
    """

    def __init__(self, graph: Graph, bounds_of: Callable[[_Cutter, Node], Bounds]) -> None:
        self.source, self.bounds_of = graph, bounds_of
        self.wanted: dict[Node, list[Node]] = defaultdict(list)  # the projections of each scan
        for n in graph.nodes:
            if n.op in (FINAL, TRACE):
                self.wanted[n.src[0]].append(n)
        self.ahead: dict[Node, Node] = {}
        self.roots: dict[Node, list[Node]] = {}  # of a scan with a budget: those that go back over it
        for n in graph.nodes:
            if n.op is SCAN and ScanView.of(n).memory is not None:
                first = forward_of(n, ())
                if first in self.roots and _goes_back(n, first):
                    self.ahead[n] = first
                    self.roots[first].append(n)
                else:
                    self.roots[n] = []
        self.outputs, self.users = set(graph.outputs.values()), users(graph.nodes)
        self.new: dict[Node, Node] = {}
        self.bounds: dict[Node, Bounds] = {}
        self.runs: dict[Node, _Run] = {}

    def graph(self) -> Graph:
        for n in self.source.nodes:
            root = self.ahead.get(n, n)
            if n in self.roots:
                self.bounds[n] = self.bounds_of(self, n)
            if n.op is REGION:
                self.new[n] = with_inner(apply(REGION, tuple(self.new[s] for s in n.src), n.at), self.inside)
            elif root not in self.bounds:
                if n not in self.new:
                    rebuild([n], self.new)
            elif len(self.bounds[root]) < 2:
                self.new[n] = apply(SCAN, tuple(self.new[s] for s in n.src), n.at[:-1])  # without its budget
            else:
                self.cut(n, self.bounds[root])
        return Graph({k: self.new[n] for k, n in self.source.outputs.items()})

    def inside(self, outputs: Sequence[Node]) -> list[Node]:
        """The outputs of a region whose scans run in parts."""
        named = Graph({str(i): n for i, n in enumerate(outputs)})
        return list(_Cutter(named, self.bounds_of).graph().outputs.values())

    def cut(self, n: Node, parts: Bounds) -> None:
        """The projections of one scan."""
        scan = ScanView.of(apply(SCAN, tuple(self.new[s] for s in n.src), n.at))
        taken = split(scan, list(dict.fromkeys(expression_of(p) for p in self.wanted[n] if p.op is TRACE)))
        init, _, _ = scan.split(scan.node.src)
        states: Sequence[Node] = [*(init[i] for i in taken.kept), *taken.starts]
        run = self.runs[n] = _Run(scan, taken, {})
        traced = [p for p in self.wanted[n] if p.op is TRACE and self.is_read(p, self.roots.get(n, ()))]
        pieces: dict[Part, list[Node]] = {}
        for part in reversed(parts) if scan.reverse else parts:
            run.before[part] = states
            states, pieces[part] = self.part(n, run, part, [expression_of(p) for p in traced])
        finals = taken.finals(states)
        self.new.update((p, finals[position_of(p)]) for p in self.wanted[n] if p.op is FINAL)
        self.new.update((p, concat([pieces[part][i] for part in parts], 0)) for i, p in enumerate(traced))

    def is_read(self, p: Node, beside: Collection[Node]) -> bool:
        """Whether anything but some scans reads a projection."""
        return p in self.outputs or any(u not in beside for u in self.users[p])

    def part(self, n: Node, run: _Run, part: Part, traced: Sequence[Node]) -> tuple[list[Node], list[Node]]:
        """The states after a part, and its traces: a region, so that its kernels stand together, and what it computes again
        is not what was computed before."""
        ahead, first = self.ahead.get(n), len(run.before[part])
        again = None if ahead is None else self.runs[ahead]
        theirs, own = [] if again is None else again.sources(part), run.sources(part)
        known = {x: expression_of(x) for x in n.src if x.op is TRACE and x.src[0] is ahead}
        for i, x in enumerate(run.scan.split(n.src)[1], first):
            own[i] = x if x in known else own[i]
        sources = list(dict.fromkeys(s for s in (*theirs, *own) if s.op is not FULL and s not in known))

        def inside(holes: list[Node]) -> list[Node]:
            env = dict(zip(sources, holes, strict=True))
            if again is not None:
                node = again.node([env.get(s, s) for s in theirs], part)
                env.update((x, trace(node, again.split.traced[e])) for x, e in known.items())
            node = run.node([env.get(s, s) for s in own], part)
            return [*(final(node, i) for i in range(first)), *(trace(node, run.split.traced[e]) for e in traced)]

        found = region(inside, sources) if sources else inside([])
        return found[:first], found[first:]


def _goes_back(n: Node, first: Node) -> bool:
    """Whether a scan, which runs against another one and reads its traces, may run part by part with it: within the same
    budget, and reading them step by step alone."""
    scan = ScanView.of(n)
    init, _, consts = scan.split(n.src)
    whole = any(s.op is TRACE and s.src[0] is first for s in (*init, *consts))
    return scan.memory == ScanView.of(first).memory and not whole


def _steps(x: Node, part: Part) -> Node:
    return x[part[0] : part[1]]


# ---- how many parts

def _candidates(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to a number, and that."""
    found = sorted({1, most, *(k << i for k in (2, 3) for i in range(most.bit_length()))})
    return [n for n in found if n <= most]


def _fitting(cutter: _Cutter, n: Node, bytes_of: BytesOf) -> Bounds:
    """The fewest parts of a scan in which its training, as it is planned, keeps the budget."""
    scan, alone = ScanView.of(n), _alone(cutter, n)
    grain = max(split(ScanView.of(s), [expression_of(p) for p in found if p.op is TRACE]).grain
                for s in (n, *cutter.roots[n]) for found in (cutter.wanted[s],))
    counts = _candidates(min(-(-scan.steps // grain), MOST)) if scan.steps else []
    reported = max((c for c in counts if c <= REPORTED), default=0)
    tried: list[tuple[int, Bounds]] = []
    assert scan.memory is not None
    for count in counts:
        parts: Bounds = bounds(scan.steps, count, grain)
        if tried:
            size, before = tried[-1]
            hopeless = size * parts[0][1] > scan.memory * before[0][1]  # a part takes no less than its share of the steps
            if len(parts) == len(before) or (hopeless and count != reported):
                continue
        tried.append((bytes_of(_Cutter(alone, partial(_given, parts)).graph()), parts))
        if tried[-1][0] <= scan.memory:
            return parts
    if not tried:
        return ()
    least, parts = min(tried, key=lambda found: found[0])
    raise ArgumentError(
        f"memory={show_bytes(scan.memory)} is too little for a scan of {scan.steps:,} steps: its temporaries take "
        f"{show_bytes(tried[0][0])} in one part, and {show_bytes(least)} in {len(parts)} parts of {parts[0][1]:,} steps, which "
        "is the least that was tried; give as much, or a smaller batch")


def _given(parts: Bounds, cutter: _Cutter, n: Node) -> Bounds:
    return parts


def _alone(cutter: _Cutter, n: Node) -> Graph:
    """A scan and those that go back over it, between inputs and outputs of their own."""
    inputs: dict[Node, Node] = {}
    moved: dict[Node, Node] = {}

    def given(s: Node) -> Node:
        if s.op is TRACE and s.src[0] in moved:
            return trace(moved[s.src[0]], expression_of(s))
        if Trait.VIEW in s.op.traits:  # how a sequence lies in memory decides on copies
            return apply(s.op, tuple(map(given, s.src)), s.at)
        return s if s.op is FULL else inputs.setdefault(s, input_node(f"source {len(inputs)}", s.shape, s.dtype))

    group = [n, *cutter.roots[n]]
    for s in group:
        moved[s] = apply(SCAN, tuple(map(given, s.src)), s.at)
    read = [p for s in group for p in cutter.wanted[s] if cutter.is_read(p, cutter.roots.get(s, ()))]
    return Graph({f"result {i}": apply(p.op, (moved[p.src[0]],), p.at) for i, p in enumerate(read)})
