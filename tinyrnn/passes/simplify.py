"""`simplify`: moves that cancel, and sums in the order in which kernels add.

    [x[:, :k], x[:, k:]] = x       [aᵀ, bᵀ] = [a; b]ᵀ       [trace(a), trace(b)] = trace([a, b])
    Σ over all axes = Σ over the others of Σ over the last       [0 + Σ a, 0 + Σ b] = 0 + [Σ a, Σ b]
    einsum = transposed operands in a batched product
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, combinations, pairwise
from math import prod

from ..ir.graph import Graph
from ..ir.node import Node, apply, walk
from ..ir.ops.elementwise import astype
from ..ir.ops.leaves import full, is_number
from ..ir.ops.linear import (
    ACCUMULATE,
    EINSUM,
    RESHAPE,
    SUM,
    TRANSPOSE,
    add_onto,
    axes_of,
    matmul,
    reshape,
    runs_forward,
    spec_of,
    sum_,
    transpose,
)
from ..ir.ops.reduce import AMAX, AMIN
from ..ir.ops.structure import CONCAT, SLICE, axis_of, concat, parts_of
from ..ir.scan import TRACE, expression_of, trace
from .rewrite import everywhere, rewritten


def simplify(graph: Graph) -> Graph:
    """The same graph with fewer moves."""
    return everywhere(graph, lambda outputs: rewritten(_parts_of_joins(rewritten(outputs, _rule)), _rule))


def _rule(n: Node) -> Node | None:
    if n.op is CONCAT:
        return next((m for rule in (_added_up, _adjacent, _transposed, _traced, _summed) if (m := rule(n)) is not None), None)
    if n.op is EINSUM:
        return _product(n)
    if n.op in (SUM, AMAX, AMIN) and len(axes_of(n)) > 1 and n.src[0].ndim - 1 in axes_of(n) and _stays(n):
        last = n.src[0].ndim - 1
        inner = apply(n.op, n.src, ((last,), True))
        outer = apply(n.op, (inner,), (tuple(i for i in axes_of(n) if i != last), True))
        return reshape(outer, n.shape)
    return None


def _stays(n: Node) -> bool:
    """A sum over booleans or small whole numbers changes the dtype; only its first part may."""
    return n.src[0].dtype == n.dtype


def _added_up(n: Node) -> Node | None:
    """Sums that run forward from zero are parts of one, if they are one: kernels of several column sums each go their way."""
    if any(p.op is not ACCUMULATE or not is_number(p.src[0], 0) or p.src[1].dtype != n.dtype for p in n.src):
        return None
    if len({runs_forward(p) for p in n.src}) > 1:
        return None
    (joined,) = rewritten([concat([p.src[1] for p in n.src], axis_of(n))], _rule)
    if joined.op is CONCAT and any(p.op is SUM for p in joined.src):
        return None
    return add_onto(full(0, n.shape, n.dtype), joined, runs_forward(n.src[0]))


def _adjacent(n: Node) -> Node | None:
    """Neighbouring slices of one array are one slice."""
    axis, parts = axis_of(n), n.src
    if any(p.op is not SLICE or p.src[0] is not parts[0].src[0] for p in parts):
        return None
    cuts = [parts_of(p) for p in parts]
    for before, after in pairwise(cuts):
        start, size, step = before[axis]
        if step != 1 or after[axis][2] != 1 or after[axis][0] != start + size:
            return None
        if before[:axis] + before[axis + 1 :] != after[:axis] + after[axis + 1 :]:
            return None
    whole = (cuts[0][axis][0], n.shape[axis], 1)
    return apply(SLICE, (parts[0].src[0],), ((*cuts[0][:axis], whole, *cuts[0][axis + 1 :]),))


def _transposed(n: Node) -> Node | None:
    if n.ndim != 2 or any(p.op is not TRANSPOSE for p in n.src):
        return None
    joined = concat([p.src[0] for p in n.src], 1 - axis_of(n))
    together = _adjacent(joined) if joined.op is CONCAT else None
    return transpose(joined if together is None else together)


def _traced(n: Node) -> Node | None:
    """Traces of one scan, perhaps with time and batch as one axis, joined along a later axis."""
    axis = axis_of(n)
    flat = all(p.op is RESHAPE for p in n.src)
    traces = [p.src[0] if flat else p for p in n.src]
    if any(t.op is not TRACE or t.src[0] is not traces[0].src[0] for t in traces):
        return None
    back = n.ndim - axis
    if any(t.shape[t.ndim - back :] != p.shape[axis:] for t, p in zip(traces, n.src, strict=True)) or axis == 0:
        return None
    inner = [expression_of(t) for t in traces]
    if any(e.ndim < back or e.shape[: e.ndim - back] != inner[0].shape[: inner[0].ndim - back] for e in inner):
        return None
    return reshape(trace(traces[0].src[0], concat(inner, inner[0].ndim - back)), n.shape)


def _summed(n: Node) -> Node | None:
    """Sums of neighbouring columns are columns of one sum."""
    axes = tuple(range(n.src[0].src[0].ndim - 1)) if n.src[0].op is SUM else None
    if n.ndim != 1 or any(p.op is not SUM or p.at != (axes, False) or p.src[0].op is not SLICE for p in n.src):
        return None
    if any(p.src[0].ndim != n.src[0].src[0].ndim for p in n.src):
        return None
    joined = concat([p.src[0] for p in n.src], -1)
    together = _adjacent(joined) if joined.op is CONCAT else joined
    return None if together is None else sum_(together, axes)


def _parts_of_joins(outputs: Sequence[Node]) -> list[Node]:
    """The trace of a part, or of neighbouring parts, is a part of the trace, where the whole is traced."""
    wholes: dict[tuple[Node, tuple[Node, ...]], tuple[Node, int, int]] = {}
    joins = [n for n in walk(outputs) if n.op is TRACE and expression_of(n).op is CONCAT]
    for n in sorted(joins, key=lambda n: -len(expression_of(n).src)):
        parts, axis = expression_of(n).src, axis_of(expression_of(n))
        starts = [0, *accumulate(s.shape[axis] for s in parts)]
        for i, j in combinations(range(len(parts) + 1), 2):
            if j - i < len(parts):
                wholes.setdefault((n.src[0], parts[i:j]), (n, axis + 1, starts[i]))

    def rule(n: Node) -> Node | None:
        if n.op is not TRACE:
            return None
        e = expression_of(n)
        found = wholes.get((n.src[0], e.src if e.op is CONCAT else (e,)))
        if found is None:
            return None
        whole, axis, start = found
        cut = tuple((start, n.shape[i], 1) if i == axis else (0, k, 1) for i, k in enumerate(whole.shape))
        return apply(SLICE, (whole,), (cut,)) if n.ndim == whole.ndim and n.dtype == whole.dtype else None

    return rewritten(outputs, rule) if wholes else list(outputs)


# ---- einsum

def _product(n: Node) -> Node:
    """Operands from left to right: each pair is one batched product, `[shared and kept, left, summed] @ [..., right]`."""
    inputs, _, out = spec_of(n).partition("->")
    terms = list(zip(inputs.split(","), n.src, strict=True))
    letters, value = terms[0]
    for i, (other, right) in enumerate(terms[1:], 1):
        later = set(out).union(*(t for t, _ in terms[i + 1 :]))
        letters, value = _pair(letters, value, other, right, later)
    lost = [i for i, c in enumerate(letters) if c not in out]
    value, letters = sum_(value, lost) if lost else value, "".join(c for c in letters if c in out)
    return astype(transpose(value, [letters.index(c) for c in out]), n.dtype)


def _pair(a: str, x: Node, b: str, y: Node, later: set[str]) -> tuple[str, Node]:
    sizes = dict(zip(a + b, x.shape + y.shape, strict=True))
    x, a = _alone(x, a, b, later)
    y, b = _alone(y, b, a, later)
    batch = [c for c in a if c in b and c in later]
    summed = [c for c in a if c in b and c not in later]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]

    def arranged(value: Node, letters: str, *groups: Sequence[str]) -> Node:
        moved = transpose(value, [letters.index(c) for g in groups for c in g])
        return reshape(moved, [prod(sizes[c] for c in g) for g in groups])

    product = matmul(arranged(x, a, batch, left, summed), arranged(y, b, batch, summed, right))
    order = [*batch, *left, *right]
    return "".join(order), reshape(product, [sizes[c] for c in order])


def _alone(x: Node, letters: str, others: str, later: set[str]) -> tuple[Node, str]:
    """Summed over the axes that nobody else has."""
    lost = [i for i, c in enumerate(letters) if c not in others and c not in later]
    return (sum_(x, lost) if lost else x), "".join(c for i, c in enumerate(letters) if i not in lost)


