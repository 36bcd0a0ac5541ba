"""An expression of a scan's body, computed for all steps at once: the ops over [T, ...] instead of [...].

A value is `timed` (it has the axis of time in front) or the same in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from ..ir.node import Node, apply, walk
from ..ir.ops.elementwise import CAST, DIV, MUL, NEG, SCALE, SUMS, TAG, WHERE, add_n, astype
from ..ir.ops.leaves import full, is_number, number_of
from ..ir.ops.linear import (
    BROADCAST,
    MATMUL,
    RESHAPE,
    SUM,
    TRANSPOSE,
    add_onto,
    axes_of,
    broadcast_to,
    keeps_axes,
    matmul,
    reshape,
    sum_,
    transpose,
)
from ..ir.ops.reduce import AMAX, AMIN
from ..ir.ops.structure import CONCAT, GATHER, ONE_HOT, SLICE, axis_of, concat, gather, parts_of
from ..ir.scan import LITERALS
from ..sizes import AnySize


class Lifted(NamedTuple):
    node: Node
    timed: bool


Rule = Callable[[Node, Sequence[Lifted], int], Node | None]


class Lift:
    """Lifts expressions, given what some nodes of the body are outside."""

    def __init__(self, given: Mapping[Node, Lifted], steps: int, forward: bool = False) -> None:
        self.given, self.known = given, dict[Node, Lifted | None](given)
        self.steps, self.forward = steps, forward  # whether sums over time begin with the first step

    def __call__(self, n: Node) -> Lifted | None:
        """The value outside; None where some op on the way cannot be lifted."""
        for m in walk([n], known=self.known.keys()):
            self.known[m] = self._one(m)
        return self.known[n]

    def timed(self, n: Node) -> Node | None:
        """The value outside with the axis of time."""
        x = self(n)
        return None if x is None else x.node if x.timed else broadcast_to(x.node, (self.steps, *n.shape))

    def _one(self, n: Node) -> Lifted | None:
        if n.op in LITERALS:
            return Lifted(n, False)
        src = [self.known[s] for s in n.src]
        sources = [s for s in src if s is not None]
        if not src or len(sources) < len(src):
            return None
        if not any(s.timed for s in sources):
            return Lifted(apply(n.op, tuple(s.node for s in sources), n.at), False)
        rule = _elementwise if n.op.entrywise else RULES.get(n.op)
        y = None if rule is None else rule(n, sources, self.steps)
        return None if y is None else Lifted(y, True)

    # ---- sums over all steps

    def total(self, n: Node) -> Node | None:
        """`Σ_t n[t]`, where possible without a value for every step."""
        n = _bare(n)
        if n.op in SUMS and all(s.dtype == n.dtype for s in n.src):
            parts = [self.total(s) for s in n.src]
            if any(p is None for p in parts):
                return None
            return broadcast_to(add_n([p for p in parts if p is not None]), n.shape)
        if n.op in (TRANSPOSE, RESHAPE, CONCAT, NEG):
            parts = [self.total(s) for s in n.src]
            return None if any(p is None for p in parts) else apply(n.op, tuple(p for p in parts if p is not None), n.at)
        if n.op is MATMUL and n.ndim == 2:
            return self._product(n)
        if n.op in LINEAR or (n.op is SUM and self._has_product(n)):
            linear = self._linear(n)
            if linear is not None:
                return linear
        x = self(n.src[0] if n.op is SUM else n)
        if x is None:
            return None
        if not x.timed:
            if not isinstance(self.steps, AnySize) and not self.steps:
                return full(0, n.shape, n.dtype)
            whole = x.node if n.op is not SUM else sum_(x.node, axes_of(n), keeps_axes(n))
            return whole * number_of(self.steps, n.dtype)
        return reshape(self._columns(n.src[0], axes_of(n)) if n.op is SUM else self._columns(n, ()), n.shape)

    def _has_product(self, n: Node) -> bool:
        """Whether a product stands between a value and what is given."""
        return any(m.op is MATMUL for m in walk([n], known=self.given))

    def _columns(self, n: Node, axes: tuple[int, ...]) -> Node:
        """`Σ_t Σ_axes n[t]`: first down columns, over time and the axes behind it, then over what is left, which is little."""
        down = next((i for i in range(n.ndim) if i not in axes or i == n.ndim - 1), 0)
        row = n.shape[down:]
        flat = n if len(row) == 1 else reshape(n, (*n.shape[:down], prod(row)))
        return sum_(reshape(self.summed(flat, tuple(range(down))), row), [i - down for i in axes if i >= down])

    def single(self, term: Node) -> Node | None:
        """`Σ_t term[t]` of what is one product, or one sum down columns, of its own."""
        n = term.src[0] if term.op is CAST else term
        if n.op is MATMUL:
            a, b = n.src
            lifted = self(a.src[0] if a.op is TRANSPOSE else a) is not None and self(b) is not None
            return self.multiplied(a, b) if lifted else None
        x, axes = (n.src[0], axes_of(n)) if n.op is SUM else (n, ())
        return None if self(x) is None else astype(self.summed(x, axes), term.dtype)

    def summed(self, n: Node, axes: tuple[int, ...]) -> Node:
        """`Σ_t Σ_axes n[t]` over leading axes of a value that depends on time."""
        return self.totalled(sum_(_node(self(n)), (0, *(i + 1 for i in axes))))

    def multiplied(self, a: Node, b: Node) -> Node:
        """`Σ_t a[t] b[t]` of matrices that depend on time, as one product over all steps and rows."""
        left, right = _node(self(a.src[0] if a.op is TRANSPOSE else a)), _node(self(b))
        rows, columns = a.shape[0], b.shape[1]
        k = self.steps * b.shape[0]
        left = left if a.op is TRANSPOSE else transpose(left, (0, 2, 1))
        return self.totalled(matmul(transpose(reshape(left, (k, rows))), reshape(right, (k, columns))))

    def totalled(self, y: Node) -> Node:
        """A sum over time, added up in the order in which the loop comes by."""
        return add_onto(full(0, y.shape, y.dtype), y, self.forward)

    def _linear(self, n: Node) -> Node | None:
        """`Σ_t c x[t] = c Σ_t x[t]`: the gradient of a function of weights, linear in what comes in, is applied once to the sum
        of that."""
        moving = [i for i, s in enumerate(n.src) if (x := self(s)) is None or x.timed]
        if not moving or any(i not in LINEAR.get(n.op, (0,)) for i in moving) or (len(moving) > 1 and n.op is not WHERE):
            return None
        if n.op is WHERE and len(moving) < 2 and not any(is_number(n.src[i], 0) for i in (1, 2)):
            return None
        parts = [self.total(s) if i in moving else x.node if (x := self(s)) is not None else None for i, s in enumerate(n.src)]
        return None if any(p is None for p in parts) else apply(n.op, tuple(p for p in parts if p is not None), n.at)

    def _product(self, n: Node) -> Node | None:
        """`Σ_t Aᵀ[t] B[t]` is one product over all steps and rows."""
        a, b = n.src
        left = self(a.src[0] if a.op is TRANSPOSE else a)
        right = self(b)
        if left is None or right is None:
            return None
        if not right.timed or not left.timed:
            x, y = self.total(a) if left.timed else self(a), self.total(b) if right.timed else self(b)
            if x is None or y is None or not (left.timed or right.timed):
                return None
            return matmul(x.node if isinstance(x, Lifted) else x, y.node if isinstance(y, Lifted) else y)
        return self.multiplied(a, b)


LINEAR: dict[object, tuple[int, ...]] = {MUL: (0, 1), SCALE: (0, 1), DIV: (0,), WHERE: (1, 2), BROADCAST: (0,), CAST: (0,)}
"""In which of its operands an op is linear, the others being the same in every step."""


def _node(x: Lifted | None) -> Node:
    if x is None:
        raise AssertionError("what is summed over time was lifted before")
    return x.node


def _bare(n: Node) -> Node:
    while n.op is TAG:
        n = n.src[0]
    return n


def _aligned(x: Lifted, rank: int) -> Node:
    """A timed value with axes of size 1 behind time, so that it broadcasts like the value of one step did."""
    if not x.timed or x.node.ndim == rank + 1:
        return x.node
    return reshape(x.node, (x.node.shape[0], *(1,) * (rank + 1 - x.node.ndim), *x.node.shape[1:]))


def _elementwise(n: Node, src: Sequence[Lifted], steps: int) -> Node:
    y = apply(n.op, tuple(_aligned(s, n.ndim) for s in src), n.at)
    return y if y.shape == (steps, *n.shape) else broadcast_to(y, (steps, *n.shape))


def _broadcast(n: Node, src: Sequence[Lifted], steps: int) -> Node:
    return broadcast_to(_aligned(src[0], n.ndim), (steps, *n.shape))


def _reduce(n: Node, src: Sequence[Lifted], steps: int) -> Node:
    return apply(n.op, (src[0].node,), (tuple(i + 1 for i in axes_of(n)), keeps_axes(n)))


def _concat(n: Node, src: Sequence[Lifted], steps: int) -> Node:
    parts = [s.node if s.timed else broadcast_to(s.node, (steps, *s.node.shape)) for s in src]
    return concat(parts, axis_of(n) + 1)


def _matmul(n: Node, src: Sequence[Lifted], steps: int) -> Node | None:
    a, b = src
    if a.timed and not b.timed and b.node.ndim == 2:
        return matmul(a.node, b.node)
    rank = max(s.node.ndim - s.timed for s in src)
    return matmul(*(_aligned(s, rank) for s in src)) if rank > 2 or (a.timed and b.timed) else None


def _gather(n: Node, src: Sequence[Lifted], steps: int) -> Node | None:
    table, index = src
    return None if table.timed else gather(table.node, index.node)


RULES: dict[object, Rule] = {
    RESHAPE: lambda n, src, steps: reshape(src[0].node, (steps, *n.shape)),
    TRANSPOSE: lambda n, src, steps: transpose(src[0].node, (0, *(i + 1 for i in axes_of(n)))),
    SLICE: lambda n, src, steps: apply(SLICE, (src[0].node,), (((0, steps, 1), *parts_of(n)),)),
    ONE_HOT: lambda n, src, steps: apply(ONE_HOT, (src[0].node,), n.at),
    BROADCAST: _broadcast, SUM: _reduce, AMAX: _reduce, AMIN: _reduce, CONCAT: _concat, MATMUL: _matmul, GATHER: _gather}
