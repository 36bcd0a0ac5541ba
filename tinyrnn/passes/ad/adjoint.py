"""Reverse mode: adjoints as nodes.  Broadcasting is undone and parts are summed here, and nowhere else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...errors import GraphError
from ...ir.node import Node, walk
from ...ir.op import Op
from ...ir.ops.elementwise import add_n, astype
from ...ir.ops.leaves import full, index_of, zeros_like
from ...ir.ops.linear import sum_to
from ...ir.ops.structure import PLACE, PUT, concat, parts_of, stack
from ...ir.scan import PROJECTIONS

Cotangents = dict[tuple[Op, object], Node]
ControlRule = Callable[[Node, Cotangents, list[bool]], Sequence[Node | None]]
CONTROL: dict[Op, ControlRule] = {}
"""The rule of every op with a closed body; filled by `control.py` (scan and remat)."""


def backward(seeds: Mapping[Node, Node], wrt: Iterable[Node]) -> dict[Node, Node]:
    """The adjoint of every node between `wrt` and the seeded nodes, given the adjoints `seeds`."""
    order = walk(seeds)
    needed = _needed(order, wrt)
    parts: dict[Node, list[Node]] = defaultdict(list)
    pending: dict[Node, dict[tuple[Op, object], list[Node]]] = defaultdict(lambda: defaultdict(list))
    found: dict[Node, Node] = {}
    for node, seed in seeds.items():
        parts[node].append(seed)
    for n in reversed(order):
        if n not in needed:
            continue
        if n.op in CONTROL:
            received = {k: accumulate(v) for k, v in pending.pop(n, {}).items()}
            if received:
                _send(n, CONTROL[n.op](n, received, [s in needed for s in n.src]), needed, parts)
        elif n in parts:
            g = found[n] = accumulate(parts.pop(n))
            if n.op in PROJECTIONS:
                pending[n.src[0]][n.op, n.at[0]].append(g)
            elif n.src and any(s in needed for s in n.src):
                assert n.op.vjp is not None
                adjoints = n.op.vjp(g, n, *n.src, *n.at)
                _send(n, (adjoints,) if isinstance(adjoints, Node) else adjoints, needed, parts)
    return found


def _needed(order: Sequence[Node], wrt: Iterable[Node]) -> set[Node]:
    needed = set(wrt)
    for n in order:
        if n.op.kind != "constant" and any(s in needed for s in n.src) and (n.floating or n.op in CONTROL):
            needed.add(n)
    return needed


def _send(n: Node, adjoints: Sequence[Node | None], needed: set[Node], parts: dict[Node, list[Node]]) -> None:
    if len(adjoints) != len(n.src):
        raise GraphError(f"the gradient of op {n.op.name!r} gives {len(adjoints)} adjoints for {len(n.src)} operands: expected "
                         "one for each, None where nothing flows")
    for s, g in zip(n.src, adjoints, strict=True):
        if g is not None and s in needed and s.floating:
            parts[s].append(_fit(g, s))


def _fit(g: Node, s: Node) -> Node:
    if g.shape != s.shape:
        g = sum_to(g, s.shape)
    return g if g.dtype is s.dtype else astype(g, s.dtype)


def accumulate(parts: list[Node]) -> Node:
    """The sum of adjoints; pieces of one array (`put`, `place`) are joined instead of added."""
    if len(parts) > 1:
        parts = _join_puts(_join_places(parts))
    return add_n(parts)


def _join_puts(parts: list[Node]) -> list[Node]:
    puts = {index_of(p): p.src[0] for p in parts if p.op is PUT}
    rest = [p for p in parts if p.op is not PUT]
    if len(puts) < 2 or len(puts) + len(rest) != len(parts):
        return parts
    n = parts[[p.op for p in parts].index(PUT)].at[1]
    zero = zeros_like(next(iter(puts.values())))
    return [*rest, stack([puts.get(t, zero) for t in range(n)])]


def _join_places(parts: list[Node]) -> list[Node]:
    places = [p for p in parts if p.op is PLACE]
    if len(places) < 2:
        return parts
    differing = {i for p in places for i, (a, b) in enumerate(zip(parts_of(p), parts_of(places[0]), strict=True)) if a != b}
    if len(differing) != 1:
        return parts
    axis = differing.pop()
    pieces = sorted(((*parts_of(p)[axis], p) for p in places), key=lambda piece: piece[0])
    joined: list[Node] = []
    end = 0
    for start, n, step, p in pieces:
        if step != 1 or start < end:
            return parts
        joined += [*_gap(p.src[0], axis, start - end), p.src[0]]
        end = start + n
    joined += _gap(pieces[0][3].src[0], axis, places[0].shape[axis] - end)
    whole = concat(joined, axis)
    if whole.shape != places[0].shape:
        return parts
    return [*(p for p in parts if p.op is not PLACE), whole]


def _gap(like: Node, axis: int, n: int) -> list[Node]:
    shape = tuple(n if i == axis else k for i, k in enumerate(like.shape))
    return [full(0, shape, like.dtype)] if n else []
