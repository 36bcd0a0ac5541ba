"""How a target multiplies matrices: panels that register tiles read, or a library that takes strides.

A product is planned by an object with two methods: `product(scope, n, a, b)` for matrices, `batch(scope, n, a, b)` for
one small product for every entry of the leading axes.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir.node import Node
from ...ir.ops.elementwise import TAG
from ...ir.ops.linear import RESHAPE, TRANSPOSE
from .kernels import FEW_ROWS, batch_product, gemm, matvec, pack, panel_columns, product, tall
from .views import Scope, View


class Panels:
    """The right operand is packed once into panels; few rows, and transposed left operands, have kernels of their own."""

    def product(self, scope: Scope, n: Node, a: View, b: View, *, forward: bool = False) -> None:
        c, others = scope.place(n, lambda v: len(v.shape) == 2 and v.dtype == n.dtype and v.strides[1] == 1)
        columns = _in_columns(scope, n.src[0], a) if a.shape[1] else None
        if not a.shape[1]:
            scope.copy(scope.planner.number(0, n.dtype).broadcast(n.shape), c)
        elif columns is not None:
            scope.add(tall(columns, b if b.strides[1] == 1 else scope.contiguous(b), c, forward=forward))
        else:
            make = matvec if scope.outer is not None and 0 < a.shape[0] <= FEW_ROWS else product
            scope.add(make(a, self._packed(scope, b), b.shape[1], c))
        scope.finish(n, c, others)

    def onto(self, scope: Scope, n: Node, start: View, a: View, b: View, *, forward: bool) -> bool:
        """`n = start + a @ b` where a product can go on from a total; whether it can."""
        columns = _in_columns(scope, n.src[1].src[0], a) if a.shape[1] else None
        if columns is None:
            return False
        c, others = scope.place(n, lambda v: len(v.shape) == 2 and v.dtype == n.dtype and v.strides[1] == 1)
        scope.copy(start, c)
        scope.add(tall(columns, b if b.strides[1] == 1 else scope.contiguous(b), c, forward=forward, begun=True))
        scope.finish(n, c, others)
        return True

    def _packed(self, scope: Scope, b: View) -> View:
        """The right operand in panels, made where it is known: before the loop, if it does not change there."""
        home = scope.home_of(b)
        key = ("pack", id(b.buffer), b.offset, b.shape, b.strides, b.step)
        if key not in home.packs:
            rows, columns = b.shape
            home.packs[key] = home.planner.temporary((rows * panel_columns(columns, b.dtype),), b.dtype)
            home.add(pack(b, home.packs[key]))
        return home.packs[key]

    def batch(self, scope: Scope, n: Node, a: View, b: View) -> None:
        c, others = scope.place(n, lambda v: v.contiguous and v.dtype == n.dtype)
        scope.add(batch_product(_flat(scope, a), _flat(scope, b), _flat(scope, c)))
        scope.finish(n, c, others)


class Blas:
    """BLAS on a device: any strides of which one is 1, nothing packed; a matrix, or a batch of them at equal distances."""

    def product(self, scope: Scope, n: Node, a: View, b: View, *, forward: bool = False) -> None:
        c, others = scope.place(n, lambda v: len(v.shape) == 2 and v.dtype == n.dtype and _rows_apart(v))
        if not a.shape[1]:
            scope.copy(scope.planner.number(0, n.dtype).broadcast(n.shape), c)
        else:
            scope.add(gemm(_as_batch(_ordered(scope, a)), _as_batch(_ordered(scope, b)), _as_batch(c)))
        scope.finish(n, c, others)

    def onto(self, scope: Scope, n: Node, start: View, a: View, b: View, *, forward: bool) -> bool:
        """A library has an order of its own: what it gives is added to the total."""
        return False

    def batch(self, scope: Scope, n: Node, a: View, b: View) -> None:
        c, others = scope.place(n, lambda v: v.contiguous and v.dtype == n.dtype)
        if not a.shape[-1]:
            scope.copy(scope.planner.number(0, n.dtype).broadcast(n.shape), c)
        else:
            scope.add(gemm(_ordered(scope, _flat(scope, a)), _ordered(scope, _flat(scope, b)), _flat(scope, c)))
        scope.finish(n, c, others)


def _flat(scope: Scope, v: View) -> View:
    """The leading axes as one."""
    shape = (prod(v.shape[:-2]), *v.shape[-2:])
    found = v if len(v.shape) == 3 else v.reshaped(shape) or scope.contiguous(v).reshaped(shape)
    assert found is not None
    return found


def _as_batch(v: View) -> View:
    return replace(v, shape=(1, *v.shape), strides=(0, *v.strides))


def _rows_apart(v: View) -> bool:
    """Whether entries of a row are neighbours, and rows do not overlap."""
    (rows, columns), (by_row, by_column) = v.shape[-2:], v.strides[-2:]
    return (columns == 1 or by_column == 1) and (rows == 1 or by_row >= columns)


def _ordered(scope: Scope, v: View) -> View:
    """A matrix, or a batch of them, of which rows or columns are without gaps."""
    order = (*range(len(v.shape) - 2), len(v.shape) - 1, len(v.shape) - 2)
    return v if _rows_apart(v) or _rows_apart(v.transposed(order)) else scope.contiguous(v)


def _in_columns(scope: Scope, n: Node, a: View) -> View | None:
    """A transposed left operand, whose columns lie in memory like rows; None for one that is not."""
    if _is_transposed(n) and a.strides[0] == 1:
        return a
    if scope.outer is not None or n.op is not TRANSPOSE:  # a sequence with its axes swapped is no matrix of columns
        return None
    return scope.contiguous(a.transposed([1, 0])).transposed([1, 0])


def _is_transposed(n: Node) -> bool:
    while n.op in (TAG, RESHAPE):
        n = n.src[0]
    return n.op is TRANSPOSE
