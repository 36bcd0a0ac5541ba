"""Which steps of padded sequences count: lengths and masks, checked in one place."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir.node import Node
from ..ir.ops import elementwise as e
from ..ir.ops.leaves import iota
from ..ir.ops.linear import reshape, transpose
from ..shapes import show
from .tensor import Tensor, TensorLike, as_tensor, extents

_only_rows: ContextVar[bool] = ContextVar("only rows", default=False)


@contextmanager
def only_rows(on: bool) -> Iterator[None]:
    """Inside, one sequence without batch axis is refused: what stands first are rows."""
    token = _only_rows.set(on)
    try:
        yield
    finally:
        _only_rows.reset(token)


def refuse_single(what: str, x: TensorLike) -> None:
    """Say so where one sequence stands for rows."""
    if _only_rows.get():
        raise ShapeError(f"{what} got {show(np.shape(x))}; fit, evaluate and predict take rows [B, T, ...]: one sequence is "
                         "x[None]")


def check_lengths(lengths: object, steps: int, rows: int | None = None) -> npt.NDArray[np.int64]:
    """Lengths as int64, one for each row, each between 0 and the number of steps."""
    array = on_host(lengths)
    array = array.astype(np.int64) if not array.size else array
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DTypeError(f"lengths are whole numbers, one per row, got {array.dtype} of shape {show(array.shape)}")
    if rows is not None and len(array) != rows:
        raise ShapeError(f"expected one length for each of {rows} rows, got {len(array)}")
    if array.size and (array.min() < 0 or array.max() > steps):
        raise ArgumentError(f"lengths lie between 0 and the number of steps, {steps}; got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def _traced(lengths: TensorLike) -> bool:
    """Whether lengths are a tensor whose numbers are not known yet."""
    return isinstance(lengths, Tensor) and not lengths.is_leaf


def row_mask(steps: int, lengths: Any, rows: int | None = None) -> Tensor:
    """Bool [B, T]: True within each row's length."""
    counts = lengths if _traced(lengths) else as_tensor(check_lengths(lengths, steps, rows))
    if counts.dtype.kind not in "iu" or counts.ndim != 1 or (rows is not None and extents(counts)[0] != rows):
        raise ShapeError(f"lengths are whole numbers, one for each of {'the' if rows is None else rows} rows, got "
                         f"{counts.dtype}{show(counts.shape)}")
    n = e.astype(counts.source(), np.int64)
    return Tensor(e.less(reshape(iota(steps), (1, steps)), reshape(n, (n.shape[0], 1))))


def valid_steps(rows: int, steps: int, lengths: object, mask: object, time_first: bool = False) -> Tensor | None:
    """Which steps count, bool [B, T]; None when all do.  `mask` has the order of axes of the sequence that it marks."""
    if lengths is not None and mask is not None:
        raise ArgumentError("give lengths or mask, not both")
    if lengths is not None:
        return row_mask(steps, lengths, rows)
    if mask is None:
        return None
    valid = as_tensor(mask if isinstance(mask, Tensor) else on_host(mask))
    order, shape = ("[T, B]", (steps, rows)) if time_first else ("[B, T]", (rows, steps))
    if valid.dtype.kind != "b" or extents(valid) != shape:
        raise ShapeError(f"a mask is bool {order}, here {show(shape)}; got {valid.dtype}{show(valid.shape)}")
    return valid.T if time_first else valid


def step_mask(steps: int, lengths: TensorLike | None, mask: object) -> Node | None:
    """`lengths` [B] or a bool mask [T, B] as one mask [T, B]; None when neither is given."""
    if lengths is not None and mask is not None:
        raise ArgumentError("give lengths or mask, not both")
    if mask is not None:
        node = as_tensor(mask if isinstance(mask, Tensor) else on_host(mask)).source()
        if node.dtype.kind != "b" or node.ndim != 2 or node.shape[0] != steps:
            raise ShapeError(f"a mask is bool [T, B] with T={steps}, got {node.dtype}{show(node.shape)}")
        return node
    return None if lengths is None else transpose(row_mask(steps, lengths).source())


def blank_padding(x: Tensor, lengths: object, mask: object = None) -> Tensor:
    """Floating sequences [B, T, ...] with zeros at the steps that do not count, whatever stands there (NaN included)."""
    if x.ndim < 2 or x.dtype.kind not in "fc":
        return x
    rows, steps, *_ = extents(x)
    valid = valid_steps(rows, steps, lengths, mask)
    if valid is None:
        return x
    return Tensor(e.where(reshape(valid.source(), (*extents(valid), *(1,) * (x.ndim - 2))), x.source(), 0.0))


def takes(layer: object) -> Mapping[str, Any]:
    """The arguments that a layer's or a model's call knows."""
    return inspect.signature(type(layer).__call__).parameters


def marks_for(layer: Any, lengths: object, mask: object, x: Any) -> Mapping[str, Any]:
    """`lengths` or `mask` under the name that a layer or model knows.

    Lengths become a mask where only that is known; what has no place is refused where a layer inside would read the padding.
    """
    if lengths is None and mask is None:
        return {}
    known = takes(layer)
    given, value = ("lengths", lengths) if mask is None else ("mask", mask)
    if given in known:
        return {given: value}
    if given == "lengths" and "mask" in known and not isinstance(lengths, tuple):
        rows, steps, *_ = extents(x)
        return {"mask": row_mask(steps, lengths, rows)}
    if any(m.reads_time for _, m in layer.named_modules()):
        raise ArgumentError(f"{given} marks padding, but {type(layer).__name__}.__call__ takes no {given}, so its layers would "
                            f"read the padding: add {given}=None to its arguments and hand it on")
    return {}
