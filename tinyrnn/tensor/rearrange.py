"""Functions that move numbers: other shapes, joins, parts, and lookups by whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ..cells.from_function import Symbol
from ..ir.node import Node
from ..ir.ops import linear, structure
from ..ir.ops.leaves import iota
from .functional import Axis, traced_call
from .tensor import Tensor, TensorLike, as_tensor


def reshape(x: TensorLike, shape: Iterable[int]) -> Tensor:
    """The same numbers, row by row, in another shape; one size may be -1.

    As many numbers as before. Raises `ShapeError` where they do not fit.

    >>> import tinyrnn as tr
    >>> tr.reshape([[1.0, 2.0], [3.0, 4.0]], (4, -1)).shape
    (4, 1)
    """
    return Tensor(linear.reshape(as_tensor(x).source(), shape))


def transpose(x: TensorLike, order: Sequence[int] | None = None) -> Tensor:
    """Axes in another order, reversed when none is given.

    [a, b, c] becomes [c, b, a]. Raises `ShapeError` where `order` is not an order of the axes.

    >>> import numpy as np, tinyrnn as tr
    >>> tr.transpose(np.ones((2, 3, 4)), (1, 0, 2)).shape
    (3, 2, 4)
    """
    return Tensor(linear.transpose(as_tensor(x).source(), order))


def T(x: TensorLike) -> Tensor:  # noqa: N802  (NumPy's name)
    """The axes in reverse order: a matrix transposed.

    [a, b] becomes [b, a]; raises nothing.

    >>> import tinyrnn as tr
    >>> tr.T([[1.0, 2.0]]).shape
    (2, 1)
    """
    return transpose(x)


def broadcast_to(x: TensorLike, shape: Iterable[int]) -> Tensor:
    """The tensor repeated along new or size-1 axes.

    [1, n] becomes [m, n]. Raises `ShapeError` where the shapes do not fit.

    >>> import tinyrnn as tr
    >>> tr.broadcast_to([1.0, 2.0], (3, 2)).shape
    (3, 2)
    """
    return Tensor(linear.broadcast_to(as_tensor(x).source(), shape))


def concat(parts: Sequence[TensorLike], axis: int = -1) -> Tensor:
    """Tensors joined along an axis that exists.

    [..., m, ...] and [..., n, ...] become [..., m + n, ...]. Raises `ShapeError` where the other sizes differ, or nothing is
    given.

    >>> import tinyrnn as tr
    >>> tr.concat([[1.0, 2.0], [3.0]]).numpy()
    array([1., 2., 3.])
    """
    for p in parts:
        if isinstance(p, Symbol):
            return traced_call(p, "concat", (parts,))
    return Tensor(structure.concat([as_tensor(p).source() for p in parts], axis))


def stack(parts: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors joined along a new axis.

    n tensors [...] become [n, ...]. Raises `ShapeError` where the shapes differ, or nothing is given.

    >>> import tinyrnn as tr
    >>> tr.stack([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    return Tensor(structure.stack([as_tensor(p).source() for p in parts], axis))


def split(x: TensorLike, sections: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """Equal pieces (an int) or pieces of the given sizes (a list).

    [..., n, ...] becomes several [..., n_i, ...]. Raises `ShapeError` where the sizes do not add up to n.

    >>> import numpy as np, tinyrnn as tr
    >>> [p.shape for p in tr.split(np.ones((2, 5)), [2, 3])]
    [(2, 2), (2, 3)]
    """
    return [Tensor(n) for n in structure.split(as_tensor(x).source(), sections, axis)]


def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """The entries in reverse order along some axes.

    The shape stays. Raises `ShapeError` for an axis that is not there.

    >>> import tinyrnn as tr
    >>> tr.flip([1.0, 2.0, 3.0]).numpy()
    array([3., 2., 1.])
    """
    return Tensor(structure.flip(as_tensor(x).source(), axis))


def pad(x: TensorLike, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros before and after each axis.

    [n, ...] becomes [before + n + after, ...], a pair for each axis. Raises `ShapeError` for another number of pairs, or
    negative widths.

    >>> import tinyrnn as tr
    >>> tr.pad([1.0, 2.0], [(1, 2)]).numpy()
    array([0., 1., 2., 0., 0.])
    """
    return Tensor(structure.pad(as_tensor(x).source(), widths))


def gather(table: TensorLike, index: TensorLike) -> Tensor:
    """Rows of a table, `y[...] = table[index[...]]`: an embedding lookup.

    table [N, ...] and index [...] of whole numbers give [..., ...]. Raises `DTypeError` for an index that is not whole,
    `IndexRangeError` outside of 0 to N - 1.

    >>> import tinyrnn as tr
    >>> tr.gather([[1.0, 2.0], [3.0, 4.0]], [1, 0, 1]).numpy()
    array([[3., 4.],
           [1., 2.],
           [3., 4.]])
    """
    return Tensor(structure.gather(as_tensor(table).source(), _integers(index)))


def pick(x: TensorLike, index: TensorLike) -> Tensor:
    """One entry of the last axis: `y[...] = x[..., index[...]]`.

    x [..., N] and index [...] give [...]. Raises `ShapeError` unless the index has the shape of x without its last axis,
    `IndexRangeError` outside of 0 to N - 1.

    >>> import tinyrnn as tr
    >>> tr.pick([[1.0, 2.0], [3.0, 4.0]], [1, 0]).numpy()
    array([2., 3.])
    """
    return Tensor(structure.pick(as_tensor(x).source(), _integers(index)))


def one_hot(index: TensorLike, n: int, dtype: npt.DTypeLike = np.float64) -> Tensor:
    """Vectors that are 1 at the index and 0 elsewhere.

    [...] becomes [..., n]; an index outside of 0 to n - 1 gives zeros. Raises `DTypeError` for an index that is not whole.

    >>> import tinyrnn as tr
    >>> tr.one_hot([2, 0], 3).numpy()
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    return Tensor(structure.one_hot(_integers(index), n, dtype))


def _integers(index: TensorLike) -> Node:
    return as_tensor(index if hasattr(index, "dtype") else np.asarray(index)).source()


def arange(n: int) -> Tensor:
    """0, 1, ..., n - 1 as int64.

    [n]. Raises `ValueError` for n < 0.

    >>> import tinyrnn as tr
    >>> tr.arange(3).numpy()
    array([0, 1, 2])
    """
    return Tensor(iota(n))
