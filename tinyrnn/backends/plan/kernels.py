"""The calls of kernels that belong to no region: copies, products, reductions, lookups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ...ir.node import DType, Node
from ...ir.op import Op
from ...ir.ops.random import RANDOM_BITS
from ...ir.ops.reduce import ARGMAX
from ...ir.ops.structure import CUMSUM, GATHER, ONE_HOT, PICK, SCATTER, axis_of
from .fused import Access, FusedKernel, Instruction, Load, Store, access, row_call
from .views import Call, Scope, View

TALL_ROWS, TALL_COLUMNS = 256, 384  # of the left operand that a tall product packs at a time
TILE_ROWS = 6
FEW_ROWS = 3  # up to here a product in a loop is bound by reading the weights, and shared out along its columns


def panel_columns(columns: int, dtype: DType) -> int:
    """The width of packed panels: whole vectors of any machine."""
    return -(-columns // 16) * 16


def copy(source: View, target: View) -> Call:
    """`target = source`, entry by entry, cast where the dtypes differ."""
    spread = source.broadcast(target.shape)
    stored: Access = "1" if not target.shape or target.strides[-1] == 1 else "s"
    program = FusedKernel(max(len(target.shape) - 1, 0), (Load(source.dtype.str, access(spread, "full")),), (),
                         (Store(0, target.dtype.str, stored),))
    return row_call(program, target.shape or (1,), (spread, target), text="{1} = {0}")


def reduce_rows(op: str, x: View, y: View) -> Call:
    """`y[i] = op over j of x[i, j]`."""
    program = FusedKernel(1, (Load(x.dtype.str, access(x, "full")),), (Instruction(op, (), (0,), y.dtype.str, "row", True),),
                         (Store(1, y.dtype.str, "r"),))
    return row_call(program, x.shape, (x, y), text=f"{{1}} = {op}({{0}}, axis=-1)")


def sum_columns(x: View, y: View) -> Call:
    """`y[j] = Σ_i x[i, j]`."""
    program = FusedKernel(1, (Load(x.dtype.str, "1"),), (), (Store(0, y.dtype.str, "1"),), True)
    return row_call(program, x.shape, (x, y), text="{1} = sum({0}, axis=0)")


def added(a: View, b: View, c: View) -> Call:
    """`c = a + b`, entry by entry."""
    views = [v.broadcast(c.shape) for v in (a, b)]
    stored: Access = "1" if not c.shape or c.strides[-1] == 1 else "s"
    program = FusedKernel(max(len(c.shape) - 1, 0), tuple(Load(v.dtype.str, access(v, "full")) for v in views),
                          (Instruction("add", (), (0, 1), c.dtype.str, "full"),), (Store(2, c.dtype.str, stored),))
    return row_call(program, c.shape or (1,), (*views, c), text="{2} = {0} + {1}")


# ---- products

def pack(b: View, panels: View) -> Call:
    """The right operand of a product, copied into panels that a tile reads from end to end."""
    rows, columns = b.shape
    return Call("pack", (b.dtype.str,), (b, panels), frozenset([1]), (columns, b.strides[0], b.strides[1]), rows, (0, 0), 0,
                0, "{1} = panels of {0}")


def product(a: View, panels: View, columns: int, c: View) -> Call:
    """`c = a @ b` for a packed b."""
    rows, inner = a.shape
    return Call("product", (a.dtype.str,), (a, panels, c), frozenset([2]), (columns, inner, *a.strides, c.strides[0]), rows,
                (a.strides[0], 0, c.strides[0]), 1, 2 * rows * inner * columns, "{2} = {0} @ {1}")


def matvec(a: View, panels: View, columns: int, c: View) -> Call:
    """`c = a @ b` for a handful of rows and a packed b: work is split along the columns."""
    rows, inner = a.shape
    return Call("matvec", (a.dtype.str,), (a, panels, c, c), frozenset([2]), (rows, columns, inner, *a.strides, c.strides[0]),
                columns, (0, 0, 1, 0), 64, 2 * rows * inner * columns, "{2} = {0} @ {1}")


def tall(a: View, b: View, c: View, *, forward: bool = False, begun: bool = False) -> Call:
    """`c = a @ b` for a transposed a, summed over many rows: the gradient of a weight.  The last block of rows comes first
    unless `forward`; where it is `begun`, it is added to what stands in c."""
    rows, inner = a.shape
    columns = b.shape[1]
    room = (TALL_ROWS * panel_columns(columns, a.dtype) + (TALL_COLUMNS // TILE_ROWS + 1) * (TALL_ROWS * TILE_ROWS + 64))
    split, before = (1, 0, c.strides[0]), (c,) if begun else ()
    return Call("tall", (a.dtype.str,), (a, b, c, *before), frozenset([2]),
                (columns, inner, a.strides[1], b.strides[0], c.strides[0], int(forward), int(begun)), rows,
                split + split[2:] * len(before), TILE_ROWS, 2 * rows * inner * columns,
                "{2} += {0} @ {1}" if begun else "{2} = {0} @ {1}", room * a.dtype.itemsize)


def batch_product(a: View, b: View, c: View) -> Call:
    """`c[i] = a[i] @ b[i]`, small matrices that differ from row to row."""
    batch, m, k = a.shape
    n = b.shape[2]
    dot = n == 1 and a.strides[2] == 1 and b.strides[1] == 1
    kind = "dot" if dot else "1" if b.strides[2] == 1 else "0" if b.strides[2] == 0 else "s"
    return Call("batch", (a.dtype.str, kind), (a, b, c), frozenset([2]),
                (m, k, n, *a.strides, *b.strides, *c.strides), batch, (a.strides[0], b.strides[0], c.strides[0]), 1,
                2 * batch * m * k * n, "{2} = {0} @ {1} for each row")


def gemm(a: View, b: View, c: View) -> Call:
    """`c[i] = a[i] @ b[i]` by a library, for matrices of which rows or columns have no gaps."""
    batch, m, k = a.shape
    text = "{2} = {0} @ {1}" + (" for each row" if batch > 1 else "")
    return Call("gemm", (a.dtype.str,), (a, b, c), frozenset([2]), (m, k, b.shape[2]), batch, (0, 0, 0), 0,
                2 * batch * m * k * b.shape[2], text)


# ---- lookups: views without gaps

def _check(index: View, size: int, scope: Scope) -> list[Call]:
    """Every index lies within an axis: otherwise a note is left, on which the run stops."""
    note = scope.planner.note
    return [Call("check", (index.dtype.str,), (index, note), frozenset([1]), (size,), prod(index.shape), (1, 0), 0, 0,
                 "check 0 <= {0} < {sizes[0]}")]


def _gather(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    table, index = src
    width, count = prod(table.shape[1:]), prod(index.shape)
    check = _check(index, table.shape[0], scope)
    if not table.shape[0]:
        return check
    return [*check, Call("gather", (table.dtype.itemsize, index.dtype.str), (table, index, y), frozenset([2]),
                 (width, table.shape[0]), count, (0, 1, width), 1, 0, "{2} = {0}[{1}]")]


MANY, SHARED = 2**16, 8
"""A scatter of so many rows, or of so many for each row of its result, adds up in float64: the result is small beside them."""


def _scatter(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    x, index = src
    count, width = prod(index.shape), prod(y.shape[1:])
    many = y.dtype == np.float32 and (count >= MANY or count >= SHARED * y.shape[0])
    sums = [y, *([scope.planner.temporary(y.shape, np.dtype(np.float64))] if many else [])]
    for total in sums:
        scope.copy(scope.planner.number(0, total.dtype).broadcast(y.shape), total)
    check = _check(index, y.shape[0], scope)
    if not y.shape[0]:
        return check
    return [*check, Call("scatter", (x.dtype.str, index.dtype.str, *(v.dtype.str for v in sums)), (x, index, *sums),
                         frozenset(range(2, 2 + len(sums))), (width, y.shape[0], count), 1, (0,) * (2 + len(sums)), 0,
                         count * width, "{2}[{1}] += {0}")]


def _pick(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    x, index = src
    classes = x.shape[-1]
    check = _check(index, classes, scope)
    if not classes:
        return check
    return [*check, Call("pick", (x.dtype.itemsize, index.dtype.str), (x, index, y), frozenset([2]), (classes,),
                         prod(index.shape), (classes, 1, 1), 1, 0, "{2} = {0}[..., {1}]")]


def _one_hot(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    classes = n.at[0]
    scope.copy(scope.planner.number(0, y.dtype).broadcast(y.shape), y)
    return [Call("one_hot", (y.dtype.str, src[0].dtype.str), (src[0], y), frozenset([1]), (classes,), prod(src[0].shape),
                 (1, classes), 1, 0, "{1} = one_hot({0})")]


def _argmax(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    (x,), axis = src, axis_of(n)
    inner = prod(x.shape[axis + 1 :])
    return [Call("argmax", (x.dtype.str,), (x, y), frozenset([1]), (x.shape[axis], inner), prod(x.shape[:axis]),
                 (x.shape[axis] * inner, inner), 1, prod(x.shape), f"{{1}} = argmax({{0}}, axis={axis})")]


def _cumsum(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    (x,), axis = src, axis_of(n)
    inner = prod(x.shape[axis + 1 :])
    return [Call("cumsum", (x.dtype.str, y.dtype.str), (x, y), frozenset([1]), (x.shape[axis], inner), prod(x.shape[:axis]),
                 (x.shape[axis] * inner, x.shape[axis] * inner), 1, prod(x.shape), f"{{1}} = cumsum({{0}}, axis={axis})")]


def _random(n: Node, src: Sequence[View], y: View, scope: Scope) -> list[Call]:
    site = scope.planner.array("site", np.asarray([n.at[0] & 0xFFFFFFFF], np.uint32))
    return [Call("random", (), (src[0], site, y, y), frozenset([2]), (), prod(y.shape), (0, 0, 1, 0), 1024, 60 * prod(y.shape),
                 f"{{2}} = random bits of ({{0}}, {n.at[0]})")]


LOOKUPS: dict[Op, Callable[[Node, Sequence[View], View, Scope], list[Call]]] = {
    GATHER: _gather, SCATTER: _scatter, PICK: _pick, ONE_HOT: _one_hot, ARGMAX: _argmax, CUMSUM: _cumsum, RANDOM_BITS: _random}
