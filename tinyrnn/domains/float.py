"""Ordinary numbers: NumPy arrays of the dtype that the graph says."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IndexRangeError
from .domain import Domain, by_formula


def indices(index: Any, n: int, what: str) -> Any:
    """The indices, all of which must lie within an axis of size n."""
    if index.size and (index.min() < 0 or index.max() >= n):
        seen = index[(index < 0) | (index >= n)].flat[0]
        raise IndexRangeError(f"index {seen} is outside {what} of size {n}: expected 0 to {n - 1}")
    return index


def whole(x: npt.NDArray[Any], dtype: np.dtype[Any]) -> Any:
    """Floats as whole numbers, towards zero: NaN is 0, what does not fit into 64 bits is the nearest number that does, and
    narrow types take the low bits of that.  NumPy leaves these cases to the processor."""
    wide = np.iinfo(np.uint64 if dtype == np.uint64 else np.int64)
    x = np.asarray(x)
    low, high = x <= float(wide.min), x >= float(wide.max)  # as a float the upper bound is the first that does not fit
    inside = np.where(low | high | np.isnan(x), 0, x).astype(wide.dtype)
    return np.where(low, wide.dtype.type(wide.min), np.where(high, wide.dtype.type(wide.max), inside)).astype(dtype)


WIDE_SUMS = {np.dtype(np.float16): np.float32, np.dtype(np.float32): np.float64}


class Float(Domain):
    """float32, float64, complex128, integers and bool, as NumPy computes them."""

    name = "float"

    add: Any = np.add
    sub: Any = np.subtract
    mul: Any = np.multiply
    div: Any = np.divide
    neg: Any = np.negative
    exp: Any = np.exp
    expm1: Any = np.expm1
    log: Any = np.log
    log1p: Any = np.log1p
    sqrt: Any = np.sqrt
    sin: Any = np.sin
    cos: Any = np.cos
    tanh: Any = np.tanh
    abs: Any = np.absolute
    power: Any = np.power
    maximum: Any = np.maximum
    minimum: Any = np.minimum
    less: Any = np.less
    less_equal: Any = np.less_equal
    equal: Any = np.equal
    not_equal: Any = np.not_equal
    where: Any = staticmethod(np.where)
    matmul: Any = np.matmul

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Any:
        return np.asarray(value, dtype)

    def stop_gradient(self, x: npt.NDArray[Any]) -> Any:
        return x

    def astype(self, x: npt.NDArray[Any], dtype: np.dtype[Any]) -> Any:
        return whole(x, dtype) if x.dtype.kind == "f" and dtype.kind in "iu" else x.astype(dtype)

    def sign(self, x: npt.NDArray[Any]) -> Any:
        return x if x.dtype.kind == "b" else np.sign(x)

    def relu(self, x: npt.NDArray[Any]) -> Any:
        return np.maximum(x, 0)

    def sigmoid(self, x: npt.NDArray[Any]) -> Any:
        """Two branches, so that neither tail loses its relative precision nor overflows."""
        if x.dtype.kind == "c":
            return by_formula("sigmoid")(self, x)
        e = np.exp(-np.absolute(x))
        return np.where(x < 0, e, 1) / (1 + e)

    def clip(self, x: npt.NDArray[Any], low: float, high: float) -> Any:
        return np.clip(x, float(low), float(high))

    def sum(self, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        """Narrow floats are added in a wider type and rounded once: NumPy adds rows one after the other."""
        wide = WIDE_SUMS.get(x.dtype)
        return np.sum(x, axis=axes, keepdims=keepdims) if wide is None else np.asarray(
            np.sum(x, axis=axes, keepdims=keepdims, dtype=wide), x.dtype)

    def einsum(self, *x: npt.NDArray[Any]) -> Any:
        wide = WIDE_SUMS.get(x[0].dtype)
        return np.einsum(x[-1], *x[:-1]) if wide is None else np.einsum(x[-1], *x[:-1], dtype=wide).astype(x[0].dtype)

    def amax(self, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.max(x, axis=axes, keepdims=keepdims)

    def amin(self, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.min(x, axis=axes, keepdims=keepdims)

    def argmax(self, x: npt.NDArray[Any], axis: int) -> Any:
        return np.argmax(x, axis=axis)

    def cumsum(self, x: npt.NDArray[Any], axis: int) -> Any:
        wide = WIDE_SUMS.get(x.dtype)
        return np.cumsum(x, axis=axis) if wide is None else np.cumsum(x, axis=axis, dtype=wide).astype(x.dtype)

    def gather(self, table: npt.NDArray[Any], index: npt.NDArray[Any]) -> Any:
        return table[indices(index, len(table), "an axis")]

    def scatter_add(self, x: npt.NDArray[Any], index: npt.NDArray[Any], n: int) -> Any:
        """Stable sort by index, then segment sums: the order of addition is fixed."""
        index = indices(index, n, "an axis")
        rows = x.reshape(index.size, prod(x.shape[index.ndim :]))
        out = np.zeros((n, rows.shape[1]), rows.dtype)
        if index.size and rows.shape[1]:
            order = np.argsort(index, axis=None, kind="stable")
            ranked = index.reshape(-1)[order]
            starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
            out[ranked[starts]] = np.add.reduceat(rows[order], starts, axis=0, dtype=WIDE_SUMS.get(rows.dtype))
        return out.reshape(n, *x.shape[index.ndim :])

    def pick(self, x: npt.NDArray[Any], index: npt.NDArray[Any]) -> Any:
        indices(index, x.shape[-1], "an axis")
        return np.take_along_axis(x, index[..., None].astype(np.intp), -1)[..., 0]

    def one_hot(self, index: npt.NDArray[Any], n: int, dtype: np.dtype[Any]) -> Any:
        return (index[..., None] == np.arange(n)).astype(dtype)


FLOAT = Float()
