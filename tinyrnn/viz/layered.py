"""A layered layout: every item stands right of what it reads, long edges bend around what is in between.

Layers are longest paths from the sources (Sugiyama, Tagawa & Toda, 1981); within a layer, items stand as near as their
order allows to the mean height of what they are connected with, which is isotonic regression and solved exactly.
Items may be pinned to a row above or below all others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS, FEW_SWEEPS = 8, 3   # over the layers, to and fro; few of them for many items
SMALL, LARGE = 2_000, 20_000
WIDER = 16.0  # points by which the widest item of a layer is wider than one from which a wire first runs on level
LEVEL = 0.5  # points: what differs by less runs on level

Point = tuple[float, float]
Edge = tuple[str, str]


@dataclass
class Arrangement:
    """What is to be laid out: sizes, what reads what, and conditions."""

    size: dict[str, tuple[float, float]]
    reads: dict[str, list[str]]                              # item -> what it reads
    row: dict[str, int] = field(default_factory=dict)       # item -> row: 0, 1, ... from the top; -1, -2, ... from the bottom
    last: set[str] = field(default_factory=set)              # items of the last layer
    rank: dict[str, float] = field(default_factory=dict)     # wanted order from top to bottom within a layer
    ordered: set[str] = field(default_factory=set)           # items whose operands enter in order, the first on top
    gap: tuple[float, float] = (34.0, 12.0)
    late: bool = False                                       # items stand as near as can be to their first reader


@dataclass
class Layout:
    """Centres of items and routes of edges, y downwards, from (0, 0)."""

    at: dict[str, Point]
    route: dict[Edge, list[Point]]
    width: float
    height: float


def lay_out(plan: Arrangement) -> Layout:
    """Places for everything."""
    return _Placing(plan).layout()


class _Placing:
    def __init__(self, plan: Arrangement) -> None:
        self.plan = plan
        self.layer = _layers(plan)
        self.size = dict(plan.size)
        self.row = dict(plan.row)
        self.chains = self._chains()
        self.columns: list[list[str]] = [[] for _ in range(max(self.layer.values(), default=0) + 1)]
        for k in self.size:
            self.columns[self.layer[k]].append(k)
        self.before, self.after = self._neighbours()

    def _chains(self) -> dict[Edge, list[str]]:
        """Every edge as a chain of items of neighbouring layers; stand-ins bend it around the layers in between."""
        chains = {}
        bundle: dict[tuple[str, int, int | None], str] = {}
        for k, sources in self.plan.reads.items():
            for s in dict.fromkeys(sources):
                along = self.row.get(s) == self.row.get(k) or k in self.plan.last  # what leaves runs where it leaves
                row = self.row.get(k) if along else None
                chain = [s]
                for i in range(self.layer[s] + 1, self.layer[k]):
                    name = bundle.setdefault((s, i, row), f"\0{s}\0{i}\0{row}")
                    if name not in self.size:
                        self.size[name], self.layer[name] = (0.0, 4.0), i
                        if row is not None:
                            self.row[name] = row
                    chain.append(name)
                chains[s, k] = [*chain, k]
        return chains

    def _neighbours(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        before: dict[str, list[str]] = defaultdict(list)
        after: dict[str, list[str]] = defaultdict(list)
        for chain in self.chains.values():
            for a, b in pairwise(chain):
                if a not in before[b]:
                    before[b].append(a)
                    after[a].append(b)
        return before, after

    # ---- heights

    def layout(self) -> Layout:
        y, height = self._heights()
        x, width = self._columns()
        at = {k: (x[self.layer[k]], y[k]) for k in self.plan.size}
        return Layout(at, {e: self._route(c, x, y) for e, c in self.chains.items()}, width, height)

    def _heights(self) -> tuple[dict[str, float], float]:
        gap = self.plan.gap[1]
        tall: dict[int, float] = defaultdict(float)
        for k, r in self.row.items():
            tall[r] = max(tall[r], self.size[k][1])
        rows, top = {}, 0.0
        for r in sorted(r for r in tall if r >= 0):
            rows[r] = top + tall[r] / 2
            top += tall[r] + gap
        free = [[k for k in column if k not in self.row] for column in self.columns]
        band = max((sum(self.size[k][1] + gap for k in c) - gap for c in free if c), default=0.0)
        bottom = top + band + (gap if band > 0 else 0)
        for r in sorted((r for r in tall if r < 0), reverse=True):
            rows[r] = bottom + tall[r] / 2
            bottom += tall[r] + gap
        y = {k: rows[r] for k, r in self.row.items()}
        self._arrange(free, y, top, top + band)
        return y, max(bottom - gap, top + band)

    def _arrange(self, free: Sequence[list[str]], y: dict[str, float], low: float, high: float) -> None:
        """Order and heights of the items that no row holds."""
        wanted = self.plan.rank
        for column in free:
            for k in column:
                y[k] = (low + high) / 2
            ranked = sorted((k for k in column if k in wanted), key=lambda k: wanted[k])
            for i, k in enumerate(ranked):
                y[k] = low + (high - low) * (i + 0.5) / len(ranked)
        for sweep in range(SWEEPS if len(self.size) < LARGE else FEW_SWEEPS):
            if sweep == 4 and len(self.size) < SMALL:
                self._uncross(free, y)
            order = list(enumerate(free))
            for _, column in order if sweep % 2 == 0 else reversed(order):
                near = {k: self._wished(k, y, sweep) for k in column}
                if sweep < 4:
                    column.sort(key=lambda k: (near[k], self.plan.rank.get(k, 0), k))
                self._settle(column, near, y, low, high)

    def _uncross(self, free: Sequence[list[str]], y: dict[str, float]) -> None:
        """Neighbours of a layer change places while that takes crossings away (Gansner et al., 1993)."""
        for _ in range(SWEEPS):
            before = [list(column) for column in free]
            for column in free:
                for i in range(len(column) - 1):
                    a, b = column[i], column[i + 1]
                    held = a in self.plan.rank and b in self.plan.rank
                    if not held and self._crossings(a, b, y) > self._crossings(b, a, y):
                        column[i], column[i + 1], y[a], y[b] = b, a, y[b], y[a]
            if before == [list(column) for column in free]:
                return

    def _crossings(self, upper: str, lower: str, y: Mapping[str, float]) -> int:
        """How many edges of two items cross where one stands above the other."""
        sides = ((self.before[upper], self.before[lower]), (self.after[upper], self.after[lower]))
        return sum(y[u] > y[v] for ups, lows in sides for u in ups for v in lows)

    def _wished(self, k: str, y: Mapping[str, float], sweep: int) -> float:
        if k in self.plan.rank:
            return y[k]
        if k not in self.plan.size:  # a stand-in keeps its edge level
            return y[self.before[k][0]]
        both = [*self.before[k], *self.after[k]] if sweep > 1 or not self.before[k] else self.before[k]
        return sum(y[n] for n in both) / len(both) if both else y[k]

    def _settle(self, column: Sequence[str], near: Mapping[str, float], y: dict[str, float], low: float, high: float) -> None:
        """Heights with room between, least squares from the wanted ones (pool adjacent violators)."""
        gap, offset, offsets = self.plan.gap[1], 0.0, []
        for i, k in enumerate(column):
            offset += self.size[k][1] / 2 + (self.size[column[i - 1]][1] / 2 + gap if i else 0)
            offsets.append(offset)
        pools: list[list[float]] = []
        for k, o in zip(column, offsets, strict=True):
            pools.append([near[k] - o, 1])
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (a, m), (b, n) = pools[-2:]
                pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
        start = [v for v, n in pools for _ in range(int(n))]
        room = high - low - (offsets[-1] + self.size[column[-1]][1] / 2 if column else 0)
        for k, o, z in zip(column, offsets, start, strict=True):
            y[k] = o + min(max(z, low), low + max(room, 0.0))

    # ---- columns and routes

    def _columns(self) -> tuple[list[float], float]:
        x, right = [], 0.0
        for i, column in enumerate(self.columns):
            wide = max((self.size[k][0] for k in column), default=0.0)
            right += self.plan.gap[0] + min(4.0 * self._busy(i), 26.0) if i else 0.0
            x.append(right + wide / 2)
            right += wide
        self.wide = [max((self.size[k][0] for k in c), default=0.0) for c in self.columns]
        return x, right

    def _busy(self, i: int) -> int:
        """How many edges arrive at a layer beyond one for each of its items."""
        return sum(max(len(self.before[k]) - 1, 0) for k in self.columns[i]) // 2

    def _route(self, chain: Sequence[str], x: Sequence[float], y: Mapping[str, float]) -> list[Point]:
        """From the right edge of the source, level through the layers in between, to the left edge of the reader."""
        first, *inner, end = chain
        route = [(x[self.layer[first]] + self.size[first][0] / 2, y[first])]
        if self.wide[self.layer[first]] > self.size[first][0] + WIDER:  # past the wider items of its layer
            route.append((x[self.layer[first]] + self.wide[self.layer[first]] / 2, y[first]))
        for i, k in enumerate(inner):
            half = self.wide[self.layer[k]] / 2
            if not i or abs(y[k] - route[-1][1]) > LEVEL:  # level from where it was bent last
                route.append((x[self.layer[k]] - half, y[k]))
            if i + 1 == len(inner) or abs(y[inner[i + 1]] - route[-1][1]) > LEVEL:
                route.append((x[self.layer[k]] + half, route[-1][1]))
        port = self._port(chain[-2], end, x, y)
        left = x[self.layer[end]] - self.wide[self.layer[end]] / 2
        return [*route, *([(left, port[1])] if port[0] > left + WIDER / 2 else []), port]

    def _port(self, source: str, reader: str, x: Sequence[float], y: Mapping[str, float]) -> Point:
        """Where an edge meets the left side of its reader: from top to bottom in the order in which edges come."""
        others = self.before[reader] if reader in self.plan.ordered else sorted(self.before[reader], key=lambda k: y[k])
        w, h = self.size[reader]
        room = max(min(9.0, (h - 8) / max(len(others), 1)), 2.0)
        shift = (others.index(source) - (len(others) - 1) / 2) * room
        shift = 0.0 if abs(y[source] - y[reader]) < 0.5 and reader not in self.plan.ordered else shift
        return x[self.layer[reader]] - w / 2, y[reader] + shift


def _layers(plan: Arrangement) -> dict[str, int]:
    """Longest paths from the sources; items of the last layer stand together at the end."""
    layer: dict[str, int] = {}
    stack = list(plan.size)[::-1]
    while stack:
        k = stack[-1]
        missing = [s for s in plan.reads.get(k, ()) if s not in layer]
        if k in layer or not missing:
            stack.pop()
            layer.setdefault(k, max((layer[s] + 1 for s in plan.reads.get(k, ())), default=0))
        else:
            stack.extend(missing)
    if plan.late:
        _delayed(plan, layer)
    deepest = max((v + (k in plan.last and any(k in r for r in plan.reads.values())) for k, v in layer.items()), default=0)
    rest = max((v for k, v in layer.items() if k not in plan.last), default=-1)
    for k in plan.last:
        layer[k] = max(deepest, rest + 1)
    return layer


def _delayed(plan: Arrangement, layer: dict[str, int]) -> None:
    """Everything moves to the layer before its first reader, last layers first, so that edges are short."""
    readers: dict[str, list[str]] = defaultdict(list)
    for k, sources in plan.reads.items():
        for s in sources:
            readers[s].append(k)
    for k in sorted(layer, key=lambda k: -layer[k]):
        if readers[k]:
            layer[k] = min(layer[r] for r in readers[k]) - 1
