"""Reductions that compare, and functions composed of simpler ops."""

from __future__ import annotations

from collections.abc import Iterable
from math import pi, prod, sqrt

import numpy as np

from ... import shapes
from ...errors import DTypeError, ShapeError
from ...functions import entrywise
from ...shapes import Shape
from ..node import Bits, DType, Node, apply
from ..op import PRIMITIVE, Op, Trait, register
from . import elementwise as e
from .elementwise import astype, equal, exp, expm1, log, stop_gradient, where
from .leaves import full
from .linear import spread, sum_


def _extreme_infer(x: Node, axes: tuple[int, ...], keepdims: bool) -> tuple[Shape, DType]:
    if x.dtype.kind == "c":
        raise DTypeError("max and min have no meaning for complex numbers")
    if not all(x.shape[i] for i in axes):
        raise ShapeError(f"max or min over an empty axis of {shapes.show(x.shape)}")
    return shapes.reduced(x.shape, axes, keepdims), x.dtype


def _extreme_gradient(g: Node, y: Node, x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """The gradient is shared evenly by all entries that attain the extreme."""
    attained = astype(equal(x, spread(y, x.shape, axes)), g.dtype)
    return attained * spread(g / sum_(attained, axes, keepdims), x.shape, axes)


def _reads(node: Node) -> int:
    return prod(node.src[0].shape)


AMAX = register(Op("amax", _extreme_infer, PRIMITIVE, _extreme_gradient, "selection", "max", _reads,
                   traits=Trait.COMPARES, written="max", names=("axes", "keepdims")))
AMIN = register(Op("amin", _extreme_infer, PRIMITIVE, _extreme_gradient, "selection", "min", _reads,
                   traits=Trait.COMPARES, written="min", names=("axes", "keepdims")))
ARGMAX = register(Op("argmax", lambda x, axis: (shapes.reduced(x.shape, (axis,), False), np.dtype(np.int64)),
                     PRIMITIVE, None, "constant", "argmax", _reads, traits=Trait.COMPARES))


def amax(x: Node, axis: int | Iterable[int] | None = None, keepdims: bool = False) -> Node:
    """The largest entry over some axes."""
    return apply(AMAX, (x,), (shapes.axes(axis, x.ndim), bool(keepdims)))


def amin(x: Node, axis: int | Iterable[int] | None = None, keepdims: bool = False) -> Node:
    """The smallest entry over some axes."""
    return apply(AMIN, (x,), (shapes.axes(axis, x.ndim), bool(keepdims)))


def argmax(x: Node, axis: int = -1) -> Node:
    """The index of the first largest entry along one axis."""
    if not x.ndim or not x.shape[shapes.axis(axis, x.ndim)]:
        raise ShapeError(f"argmax over an empty axis of {shapes.show(x.shape)}")
    return apply(ARGMAX, (x,), (shapes.axis(axis, x.ndim),))


# ---- compositions

def mean(x: Node, axis: int | Iterable[int] | None = None, keepdims: bool = False) -> Node:
    """The average over some axes."""
    x = x if x.floating else astype(x, np.float64)
    n = prod(x.shape[i] for i in shapes.axes(axis, x.ndim))
    if not n:
        raise ShapeError(f"mean over an empty axis of {shapes.show(x.shape)}")
    total = sum_(astype(x, np.float32) if x.dtype == np.float16 else x, axis, keepdims)
    return astype(total / n, x.dtype)


def var(x: Node, axis: int | Iterable[int] | None = None, keepdims: bool = False) -> Node:
    """The mean square distance from the mean (not corrected for the sample: divides by n)."""
    d = wider(x - mean(x, axis, keepdims=True))
    return astype(mean(d * d, axis, keepdims), x.dtype if x.floating else d.dtype)


def wider(x: Node) -> Node:
    """The same numbers in a dtype that holds their squares; float64 as it is."""
    return astype(x, np.float32 if x.dtype == np.float16 else np.float64) if x.dtype.itemsize < 8 else x


def logsumexp(x: Node, axis: int | Iterable[int] | None = -1, keepdims: bool = False) -> Node:
    """`log Σ exp x` without overflow."""
    if not all(x.shape[i] for i in shapes.axes(axis, x.ndim)):
        return log(sum_(x, axis, keepdims))
    top = _finite_top(x, axis)
    total = log(sum_(exp(x - top), axis, keepdims=True)) + top
    return total if keepdims else sum_(total, axis)


def _finite_top(x: Node, axis: int | Iterable[int] | None) -> Node:
    """The largest entry as a constant, 0 where it is infinite."""
    top = stop_gradient(amax(x, axis, keepdims=True))
    return where(e.less(e.abs_(top), float("inf")), top, full(0, (), top.dtype))


def softmax(x: Node, axis: int = -1) -> Node:
    """`exp x / Σ exp x` along one axis."""
    if not x.shape[shapes.axis(axis, x.ndim)]:
        return x
    z = exp(x - stop_gradient(amax(x, axis, keepdims=True)))
    return z / sum_(z, axis, keepdims=True)


def log_softmax(x: Node, axis: int = -1) -> Node:
    """`x - log Σ exp x` along one axis; the largest entry is taken off first, so that its size costs no digits."""
    if not x.shape[shapes.axis(axis, x.ndim)]:
        return x
    d = x - _finite_top(x, axis)
    return d - log(sum_(exp(d), axis, keepdims=True))


def layer_norm(x: Node, eps: float = 1e-5, axis: int = -1) -> Node:
    """`(x - mean) / sqrt(var + eps)` along one axis, computed in a dtype that holds the squares."""
    wide = wider(x)
    d = wide - mean(wide, axis, keepdims=True)
    return _over_root_mean_square(d, eps, axis, x.dtype)


def rms_norm(x: Node, eps: float = 1e-5, axis: int = -1) -> Node:
    """`x / sqrt(mean x² + eps)` along one axis."""
    return _over_root_mean_square(wider(x), eps, axis, x.dtype)


def _over_root_mean_square(d: Node, eps: float, axis: int, dtype: DType) -> Node:
    """`d / sqrt(mean d² + eps)`; the quotients are those of the narrow dtype."""
    root = e.sqrt(mean(d * d, axis, keepdims=True) + eps)
    return astype(d, dtype) / astype(root, dtype)


@entrywise
def silu(x: Node) -> Node:
    """`x σ(x)`, 0 at -∞ (Elfwing, Uchibe & Doya, 2018).

    0.0, 1.0 -> 0.   , 0.731
    """
    return e.scale(e.sigmoid(x), x)


@entrywise
def gelu(x: Node) -> Node:
    """`x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the tanh form (Hendrycks & Gimpel, 2016).

    0.0, 1.0 -> 0.   , 0.841
    """
    # far out its slope is 0 or 1, whatever x³ is
    cube = e.scale(e.scale(x, x), x)
    return e.scale(e.sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * cube)), x)  # (1 + tanh u) / 2 without its cancellation


@entrywise
def elu(x: Node) -> Node:
    """`x` where positive, `eˣ - 1` elsewhere (Clevert, Unterthiner & Hochreiter, 2016).

    -1.0 -> -0.632
    """
    above = e.less(0, x)
    return where(above, x, expm1(where(above, full(0, (), x.dtype), x)))


@entrywise
def hard_sigmoid(x: Node) -> Node:
    """`clip(x/6 + 1/2, 0, 1)`.

    -3.0, 0.0, 1.0 -> 0.   , 0.5  , 0.667
    """
    return e.clip(x / 6 + 0.5, Bits(0.0), Bits(1.0))


def clip(x: Node, low: float, high: float) -> Node:
    """Every entry moved into `[low, high]`."""
    return e.clip(x, Bits(low), Bits(high))
