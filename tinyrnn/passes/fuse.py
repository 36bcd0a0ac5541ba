"""`fuse`: elementwise ops that share a space of indices become one region, i.e. one kernel.

    t = a * b;  y = tanh(t + c)     becomes     y = region(a, b, c)

A region holds ops of one shape S, reductions of its last axis, and what is computed from those for each row
(shape S without its last axis, or with 1 there): softmax and layer_norm are one region.  A sum over all axes but the
last closes a region of its own (a column sum).  Nodes are joined greedily in topological order where no path leaves a
region and comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..ir.graph import Graph
from ..ir.node import Node, apply, rebuild, walk
from ..ir.ops.elementwise import CAST
from ..ir.ops.leaves import FULL, hole, is_number
from ..ir.ops.linear import ACCUMULATE, BROADCAST, RESHAPE, SUM, axes_of
from ..ir.ops.reduce import AMAX, AMIN
from ..ir.scan import ITEM, REGION, body_of, close
from ..shapes import Shape
from .rewrite import everywhere, made_in_order, users

ROW_REDUCTIONS = (SUM, AMAX, AMIN)
LIMIT = 96  # nodes in one region: more would not fit the registers of any machine


def fuse(graph: Graph) -> Graph:
    """The same graph, with every elementwise op inside a region."""
    return everywhere(graph, _fused)


def is_kernel(node: Node) -> bool:
    """Whether a region is one that `fuse` made; others (of `tr.remat`) hold ops of any kind."""
    return all(n.op.entrywise or n.op.kind == "leaf" or n.op in (BROADCAST, RESHAPE) or reduces(n)
               or column_total(n) is not None for n in walk(body_of(node).outs)) and any(
                   n.op.entrywise or reduces(n) for n in walk(body_of(node).outs))


def reduces(n: Node) -> bool:
    """Whether a node reduces its last axis alone, or all others of a float: what a kernel can do."""
    return n.op in ROW_REDUCTIONS and (row_sum(n) or column_sum(n))


def row_sum(n: Node) -> bool:
    return bool(axes_of(n) == (n.src[0].ndim - 1,))


def column_sum(n: Node) -> bool:
    axes = axes_of(n)
    return n.op is SUM and n.src[0].dtype.kind == "f" and axes == tuple(range(n.src[0].ndim - 1)) != ()


def column_total(n: Node) -> Node | None:
    """The column sum that a node is, or that it adds up from a total on, which may be of a wider dtype."""
    total = n.src[1] if n.op is ACCUMULATE else n
    if n.op is ACCUMULATE and total.op is CAST:
        total = total.src[0]
    return total if total.op is SUM and not row_sum(total) and column_sum(total) else None


def space(n: Node) -> Shape:
    """The indices over which a kernel's loops for this node run."""
    return n.src[0].shape if n.op in ROW_REDUCTIONS else n.shape


class _Cluster:
    """Nodes that will be one kernel."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.members: dict[Node, None] = {}
        self.closed = False

    def rows(self, shape: Shape) -> bool:
        """Whether a shape is that of one number for each row."""
        return len(self.shape) > 0 and shape in (self.shape[:-1], (*self.shape[:-1], 1))


def _fused(outputs: Sequence[Node]) -> list[Node]:
    order = walk(outputs)
    used = users(order)
    for o in outputs:
        used[o].append(o)
    paths = _Paths(order, used)
    cluster = paths.cluster
    for n in order:
        if n in cluster:
            continue
        if n.op in ROW_REDUCTIONS and not row_sum(n) and column_sum(n):
            c = _column(n, used, cluster)
            for m in _up_to_total(n, used):
                _take(c, m, cluster)
        elif _fusable(n):
            _take(_home(n, paths), n, cluster)
    return _rebuilt(outputs, order, used, cluster)


def _fusable(n: Node) -> bool:
    if n.op in ROW_REDUCTIONS:
        return row_sum(n) and _real(n.src[0])
    return n.op.entrywise and _real(n) and all(_real(s) for s in n.src)


def _real(n: Node) -> bool:
    return n.dtype.kind in "fbiu"


def _take(c: _Cluster, n: Node, cluster: dict[Node, _Cluster]) -> None:
    c.members[n] = None
    cluster[n] = c


def _home(n: Node, paths: _Paths) -> _Cluster:
    """The cluster that n joins: those of its sources, merged where they can be, or a new one."""
    cluster = paths.cluster
    found = dict.fromkeys(cluster[s] for s in _through(n) if s in cluster)
    home: _Cluster | None = None
    for c in reversed(found):
        if c.closed or len(c.members) >= LIMIT or not _fits(n, c) or _comes_back(n, c, paths):
            continue
        if home is None:
            home = c
        elif c.shape == home.shape and len(c.members) + len(home.members) < LIMIT and not _entangled(n, c, home, paths):
            for m in c.members:
                _take(home, m, cluster)
    if home is None:
        return _Cluster(space(n))
    for s in n.src:
        _absorb(s, home, cluster)
    return home


class _Paths:
    """What depends on what, where a cluster is one: it depends on all that its members read.

    A search goes up from what is read and down from the clusters in question at the same time, a step each, and ends when
    either has nowhere to go: a new cluster at the end of a long graph has next to nothing below it, whatever lies above.
    """

    def __init__(self, order: Sequence[Node], used: dict[Node, list[Node]]) -> None:
        self.cluster: dict[Node, _Cluster] = {}
        self._used, self._position = used, {n: i for i, n in enumerate(order)}

    def lead(self, starts: Iterable[Node], targets: Sequence[_Cluster], before: Node) -> bool:
        """Whether any of `starts` depends on one of the clusters; nodes from `before` on are in none yet."""
        limit = self._position[before]
        up = [self._unit(s) for s in starts]
        down: list[Node | _Cluster] = list(targets)
        wanted, above, below = set(up), set[Node | _Cluster](), set[Node | _Cluster]()
        while up and down:
            a = up.pop()
            if a in targets:
                return True
            if a not in above:
                above.add(a)
                up += self._reads(a)
            d = down.pop()
            if d in wanted:
                return True
            if d not in below:
                below.add(d)
                down += self._readers(d, limit)
        return any(a in targets for a in up)

    def _unit(self, n: Node) -> Node | _Cluster:
        return self.cluster.get(n, n)

    def _reads(self, unit: Node | _Cluster) -> list[Node | _Cluster]:
        members: Iterable[Node] = unit.members if isinstance(unit, _Cluster) else (unit,)
        return [u for m in members for s in m.src if (u := self._unit(s)) is not unit]

    def _readers(self, unit: Node | _Cluster, limit: int) -> list[Node | _Cluster]:
        members: Iterable[Node] = unit.members if isinstance(unit, _Cluster) else (unit,)
        return [u for m in members for r in self._used[m] if self._position[r] < limit and (u := self._unit(r)) is not unit]


def _entangled(n: Node, a: _Cluster, b: _Cluster, paths: _Paths) -> bool:
    """Whether one depends on the other through something outside both."""
    outside = [s for c in (a, b) for m in c.members for s in m.src if s not in a.members and s not in b.members]
    return paths.lead(outside, (a, b), n)


def _through(n: Node) -> list[Node]:
    """The sources of n, seen through broadcasts and reshapes that a row's number passes."""
    found = []
    for s in n.src:
        while s.op in (BROADCAST, RESHAPE):
            found.append(s)
            s = s.src[0]
        found.append(s)
    return found


def _fits(n: Node, c: _Cluster) -> bool:
    if n.shape == c.shape and any(s in c.members and s.shape not in (c.shape, (*c.shape[:-1], 1)) for s in n.src):
        return False  # a row's numbers without the last axis broadcast along another one
    if space(n) == c.shape:
        return True
    return n.op not in ROW_REDUCTIONS and c.rows(n.shape) and any(
        s in c.members and c.rows(s.shape) for s in _through(n))


def _absorb(s: Node, c: _Cluster, cluster: dict[Node, _Cluster]) -> None:
    """A broadcast or reshape between two members that only restates a row's number joins them."""
    for m in _restated(s, c, cluster):
        _take(c, m, cluster)


def _restated(s: Node, c: _Cluster, cluster: dict[Node, _Cluster]) -> list[Node]:
    """The broadcasts and reshapes that lead from a member of c, one number a row, to s."""
    chain: list[Node] = []
    while s.op in (BROADCAST, RESHAPE) and s not in cluster:
        chain.insert(0, s)
        s = s.src[0]
    plain = s in c.members and s.shape != c.shape and c.rows(s.shape)
    return chain if plain and all(_restates(m, c) for m in chain) else []


def _restates(m: Node, c: _Cluster) -> bool:
    """Whether a move keeps one number a row: with or without the last axis, or repeated along it."""
    before = m.src[0].shape
    if m.op is RESHAPE:
        return c.rows(before) and c.rows(m.shape)
    return m.shape == before or (before == (*c.shape[:-1], 1) and m.shape == c.shape)


def _comes_back(n: Node, c: _Cluster, paths: _Paths) -> bool:
    """Whether n reads something outside of c that itself depends on c."""
    outside = [s for s in n.src if s not in c.members and not _restated(s, c, paths.cluster)]
    return paths.lead(outside, (c,), n)


def _column(n: Node, used: dict[Node, list[Node]], cluster: dict[Node, _Cluster]) -> _Cluster:
    """The cluster of a column sum: the sum, and the elementwise ops that are there for it alone."""
    c = _Cluster(space(n))
    c.closed = True
    stack = [n.src[0]]
    while stack:
        s = stack.pop()
        alone = all(u is n or u in c.members for u in used[s])
        old = cluster.get(s)
        if not s.op.entrywise or s.shape != c.shape or not alone or old is None:
            continue
        del old.members[s]
        _take(c, s, cluster)
        stack.extend(s.src)
    return c


def _up_to_total(n: Node, used: dict[Node, list[Node]]) -> list[Node]:
    """A column sum; and what adds it up from a total on, where nothing else reads it."""
    found = [n]
    while len(used[found[-1]]) == 1 and found[-1].op is not ACCUMULATE:
        (m,) = used[found[-1]]
        if m is found[-1] or m.op not in (CAST, ACCUMULATE):
            break
        found.append(m)
    last = found[-1]
    plain = last.op is ACCUMULATE and (last.src[0].op is not FULL or is_number(last.src[0], 0))
    return found if plain and column_total(last) is n else [n]


def _rebuilt(outputs: Sequence[Node], order: Iterable[Node], used: dict[Node, list[Node]],
             cluster: dict[Node, _Cluster]) -> list[Node]:
    """The outputs with every cluster as a region: clusters are made when the first of their results is needed."""
    new: dict[Node, Node] = {}
    wanted = set(outputs)
    results = {c: [m for m in c.members if m in wanted or any(cluster.get(u) is not c for u in used[m])]
               for c in cluster.values()}

    def reads(n: Node) -> Sequence[Node]:
        c = cluster.get(n)
        outside = n.src if c is None else [s for m in c.members for s in m.src if s not in c.members]
        return [s for s in outside if s.op is not FULL]

    def make(n: Node) -> None:
        c = cluster.get(n)
        if c is None:
            rebuild([n], new)
        else:
            _make_region(c, results[c], new)

    made_in_order(outputs, reads, make, new)
    return [new[o] for o in outputs]


def _make_region(c: _Cluster, results: Sequence[Node], new: dict[Node, Node]) -> None:
    inside = [m for m in walk(results, known=[s for m in c.members for s in m.src if s not in c.members]) if m in c.members]
    reads = dict.fromkeys(s for m in inside for s in m.src if s not in c.members and s.op is not FULL)
    stand_in = {s: hole(s.shape, s.dtype) for s in reads}
    env: dict[Node, Node] = dict(stand_in)
    for m in inside:
        env[m] = apply(m.op, tuple(env.get(s, s) for s in m.src), m.at)
    body, _ = close(list(stand_in.values()), [env[r] for r in results])
    node = apply(REGION, tuple(new[s] for s in reads), (body,))
    for i, r in enumerate(results):
        new[r] = apply(ITEM, (node,), (i,))


