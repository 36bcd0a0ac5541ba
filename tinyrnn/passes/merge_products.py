"""`merge_products`: products that share an operand become one.

    W_i h, W_f h, ...           one product with the stacked weights, and slices of it
    dz_iᵀ x, dz_fᵀ x, ...       likewise for gradients of weights
    dz_i W_i + dz_f W_f + ...   one product of the joined adjoints with the stacked weights
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from ..ir.graph import Graph
from ..ir.node import DType, Node, apply, rebuild, walk, without_collector
from ..ir.ops.elementwise import SUMS, TAG, add_n
from ..ir.ops.leaves import ARG, INPUT, LEAF, is_number, zeros_like
from ..ir.ops.linear import ACCUMULATE, MATMUL, RESHAPE, TRANSPOSE, add_onto, matmul, reshape, runs_forward, transpose
from ..ir.ops.structure import CONCAT, SLICE, concat, parts_of, split_at
from ..ir.scan import LITERALS, TRACE, ScanView, body_of, expression_of
from .rewrite import made_in_order, map_scans, rewritten, with_body, with_inner

SHALLOW = (TRANSPOSE, RESHAPE, SLICE, CONCAT, TAG)


Order = Mapping[Node, tuple[int, ...]]
"""Where parameters, and the arguments that stand for them, come when weights are stacked."""


def merge_products(graph: Graph) -> Graph:
    """The same graph with as few, as large products as the shapes allow."""
    order = {n: (i,) for i, n in enumerate(graph.nodes) if n.op.kind == "leaf"}
    with without_collector():
        new = _scope(list(graph.outputs.values()), order)
    return Graph(dict(zip(graph.outputs, new, strict=True)))


def _scope(outputs: Sequence[Node], order: Order) -> list[Node]:
    def scan(view: ScanView, wanted: Sequence[Node]) -> tuple[Node, dict[Node, Node]]:
        constants = zip(*(view.split(part)[2] for part in (view.body.args, view.node.src)), strict=True)
        inside = {a: _place(s, order) for a, s in constants}
        return with_body(view, wanted, lambda outs: _scope(outs, inside))

    def region(n: Node) -> Node:
        inside = {a: _place(s, order) for a, s in zip(body_of(n).args, n.src, strict=True)}
        return with_inner(n, lambda outs: _scope(outs, inside))

    changed = map_scans(outputs, scan, region)
    joins = _joins_inside(walk(changed))
    return _shared_right(_shared_left(rewritten(changed, lambda n: _sum_of_products(n, order, joins)), order))


def _weight(n: Node, order: Order) -> bool:
    """Whether a matrix is there before the step: a parameter, or parts of parameters."""
    stack, seen = [n], set[Node]()
    while stack:
        m = stack.pop()
        if m in seen or m in order or m.op in LITERALS:
            continue
        if m.op not in SHALLOW:
            return False
        seen.add(m)
        stack.extend(m.src)
    return True


def _shared_left(outputs: Sequence[Node], order: Order) -> list[Node]:
    """`a B_i` for one a."""
    groups: dict[tuple[Node, DType], dict[Node, None]] = defaultdict(dict)
    for n in walk(outputs):
        if n.op is MATMUL and n.ndim == 2 and _weight(n.src[1], order):
            groups[n.src[0], n.src[1].dtype][n] = None
    table: dict[Node, Node] = {}
    for (a, _), products in groups.items():
        group = sorted(products, key=lambda n: _place(n.src[1], order))
        if len(group) > 1:
            whole = matmul(a, concat([n.src[1] for n in group], 1))
            table.update(zip(group, split_at(whole, [n.shape[1] for n in group], 1), strict=True))
    return _substituted(outputs, table)


def _shared_right(outputs: Sequence[Node]) -> list[Node]:
    """`A_iᵀ b` for one b, and `total_i + A_iᵀ b` likewise."""
    order = walk(outputs)
    position = {n: i for i, n in enumerate(order)}
    joins = _joins_inside(order)
    sums = [n for n in order if n.op is ACCUMULATE and (runs_forward(n) or not is_number(n.src[0], 0))]
    used = Counter([*(s for n in order for s in n.src), *outputs]) if sums else Counter[Node]()
    onto = {n.src[1]: n for n in sums if used[n.src[1]] == 1}
    groups: dict[tuple[object, ...], dict[Node, None]] = defaultdict(dict)
    for n in order:
        if n.op is MATMUL and n.ndim == 2 and n.src[0].op is TRANSPOSE:
            m = onto.get(n, n)
            groups[n.src[1], n.src[0].dtype, m.op, m.at, m.dtype][m] = None
    table: dict[Node, Node] = {}
    for products in groups.values():
        if len(products) > 1 and not _chained(products, position):
            for group in _along_joins(list(products), lambda m: _traced(_left(m)), joins):
                if len(group) > 1:
                    table.update(_stacked(group))
    return _substituted(outputs, table)


def _left(m: Node) -> Node:
    """`A` of `Aᵀ b`, or of `total + Aᵀ b`."""
    return (m.src[1] if m.op is ACCUMULATE else m).src[0].src[0]


def _chained(products: Mapping[Node, None], position: Mapping[Node, int]) -> bool:
    """Whether one of the products is computed from another."""
    first = min(position[n] for n in products)
    stack, seen = [s for n in products for s in (_left(n), n.src[0])], set[Node]()
    while stack:
        m = stack.pop()
        if m in products:
            return True
        if m not in seen and position[m] > first:  # what stands before all of them reads none of them
            seen.add(m)
            stack.extend(m.src)
    return False


def _stacked(group: Sequence[Node]) -> dict[Node, Node]:
    """Each of the products as rows of a larger one."""
    first = group[0]
    whole = matmul(transpose(concat([_left(n) for n in group], 1)), (first.src[1] if first.op is ACCUMULATE else first).src[1])
    if first.op is ACCUMULATE:
        begun = [n.src[0] for n in group]
        total = zeros_like(whole) if all(is_number(n, 0) for n in begun) else concat(begun, 0)
        whole = add_onto(total, whole, runs_forward(first))
    ends = accumulate(n.shape[0] for n in group)
    return {n: apply(SLICE, (whole,), (((end - n.shape[0], n.shape[0], 1), (0, n.shape[1], 1)),))
            for n, end in zip(group, ends, strict=True)}


def _substituted(outputs: Sequence[Node], table: dict[Node, Node]) -> list[Node]:
    """Products replaced by slices of larger ones; what the larger ones read is replaced, too."""
    new: dict[Node, Node] = {}

    def make(n: Node) -> None:
        if n in table:
            new[n] = new[table[n]]
        else:
            rebuild([n], new)

    made_in_order(outputs[::-1], lambda n: (table[n],) if n in table else n.src, make, new)
    return [new[o] for o in outputs]


def _place(weight: Node, order: Order) -> tuple[int, ...]:
    """The place of a weight in a stack: that of its parameter, then of its rows in a packed one."""
    n, rows = weight, tuple[int, ...]()
    while n.op in SHALLOW:
        if n.op is SLICE:
            rows = (*(start for start, _, _ in parts_of(n)), *rows)
        n = n.src[0]
    return (*order.get(n, ()), *rows)


def _sum_of_products(n: Node, order: Order, joins: Joins) -> Node | None:
    """`Σ a_i B_i` in a sum of any terms, for a_i that are computed here; what two loops made stays two products, so that it
    is added up as it is where one of them is cut into parts."""
    if n.op not in SUMS or not n.floating:
        return None
    terms = _terms(n)
    first = {t: i for i, t in reversed([*enumerate(terms)])}
    groups: dict[object, list[tuple[Node, int]]] = defaultdict(list)
    for i, t in enumerate(terms):
        m = _product(t, order) if first[t] == i else None  # a term that comes twice is merged once
        if m is not None:
            groups[t.shape, m.shape, m.src[0].dtype, m.src[1].dtype, _loop_of(m.src[0])].append((m, i))
    best = max((part for group in groups.values()
                for part in _along_joins(group, lambda pair: _traced(pair[0].src[0]), joins)), key=len, default=[])
    if len(best) < 2:
        return None
    best.sort(key=lambda pair: _place(pair[0].src[1], order))
    merged = {i for _, i in best}
    left, right = [m.src[0] for m, _ in best], [m.src[1] for m, _ in best]
    whole = reshape(matmul(concat(left, 1), concat(right, 0)), terms[best[0][1]].shape)
    return add_n([whole, *(t for i, t in enumerate(terms) if i not in merged)])


def _loop_of(n: Node) -> Node | None:
    """The loop that made a trace."""
    n = _unwrapped(n)
    return n.src[0] if n.op is TRACE else None


def _terms(n: Node) -> list[Node]:
    """The terms of a sum, sums inside it opened."""
    found: list[Node] = []
    stack = [n]
    while stack:
        m = stack.pop()
        if m.op in SUMS and m.shape == n.shape and m.dtype == n.dtype:
            stack.extend(reversed(m.src))
        else:
            found.append(m)
    return found


def _product(t: Node, order: Order) -> Node | None:
    """The product with a weight that a term is, if its left operand is computed here."""
    m = t.src[0] if t.op is RESHAPE else t
    if m.op is not MATMUL or m.ndim != 2 or not _weight(m.src[1], order):
        return None
    a = _unwrapped(m.src[0])
    return None if a.op in (ARG, INPUT, LEAF, TRANSPOSE, CONCAT) or a.op.kind == "leaf" or (
        a.op is TRACE and expression_of(a).op is ARG) else m


Joins = Sequence[tuple[Node, ...]]
"""What the loops join already."""


def _joins_inside(order: Sequence[Node]) -> Joins:
    bodies = {body_of(n.src[0]): None for n in order if n.op is TRACE}
    return [m.src for body in bodies for m in walk(body.outs) if m.op is CONCAT]


def _along_joins(group: list[Any], of: Callable[[Any], Node], joins: Joins) -> list[list[Any]]:
    """A group in the order in which a loop joins its traces; what a loop joins only in part stays in two parts, so that
    no trace is kept twice."""
    inside = {of(member): member for member in group}
    if len(inside) < len(group):  # one trace under several members: no order says which
        return [group]
    for join in joins:
        common = [inside[e] for e in join if e in inside]
        if len(common) > 1:
            return [part for part in (common, [m for m in group if m not in common]) if part]
    return [group]


def _traced(n: Node) -> Node:
    """The expression whose trace a matrix is."""
    n = _unwrapped(n)
    return expression_of(n) if n.op is TRACE else n


def _unwrapped(n: Node) -> Node:
    while n.op in (RESHAPE, TAG):
        n = n.src[0]
    return n

