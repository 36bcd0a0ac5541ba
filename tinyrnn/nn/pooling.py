"""Sequences to vectors: the last step, or a mean, maximum or sum over the steps that count."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..ir.ops.leaves import full
from ..shapes import show
from ..tensor.functional import max as largest
from ..tensor.functional import where
from ..tensor.masks import refuse_single, valid_steps
from ..tensor.tensor import Tensor, TensorLike, as_tensor, extents
from ..viz.wiring import LAST, Wiring, title_of
from .module import Module, loadable
from .recurrent import edge, one_row, only_row, single_rows


class OverTime(Module):
    """What pools over time: [B, T, ...] becomes [B, ...], one sequence [T, H] becomes [H]."""

    ends_time = True
    reads_time = True

    def __call__(self, x: TensorLike, lengths: TensorLike | None = None, mask: TensorLike | None = None) -> Tensor:
        t = as_tensor(x)
        if t.ndim < 2:
            raise ShapeError(f"{type(self).__name__} takes [B, T, ...] or one sequence [T, H], got {show(t.shape)}")
        if t.ndim == 2:
            refuse_single(type(self).__name__, t)
            return only_row(self(one_row(t, 0), *single_rows(lengths, mask, 0)), 0)
        rows, steps, *rest = extents(t)
        valid = valid_steps(rows, steps, lengths, mask)
        if not steps:
            return Tensor(full(0, (rows, *rest), t.dtype))
        return self.pooled(t, valid)

    def pooled(self, t: Tensor, valid: Tensor | None) -> Tensor:
        raise NotImplementedError


@loadable
class Last(OverTime):
    """The output at each row's last valid step: [B, T, H] becomes [B, H]; zero for a row without any.

    In a Sequential, right after a layer that reads from the end (`bidirectional`, `reverse`, Bidirectional; Dropout may stand
    between), each direction gives its own last step, which for the backward one is the first of the sequence, as with
    Keras' return_sequences=False.

    Raises `ShapeError` for what has no time axis.

    >>> import tinyrnn as tr
    >>> tr.nn.Last()([[[1.0], [2.0], [9.0]]], lengths=[2]).numpy()
    array([[2.]])
    """

    def config(self) -> dict[str, Any]:
        return {}

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        return [into.box([title_of(name, self), "the last step"], reads, "function", time=LAST)]

    def pooled(self, t: Tensor, valid: Tensor | None) -> Tensor:
        return t[:, -1] if valid is None else edge(t, valid, first=False)

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return as_tensor(x), None


@loadable
class Pool(OverTime):
    """The "mean", "max" or "sum" over the valid steps: [B, T, H] becomes [B, H]; zero for a row without any.

    Raises `ArgumentError` for another reduction, and `ShapeError` for what has no time axis.

    >>> import tinyrnn as tr
    >>> tr.nn.Pool("mean")([[[1.0], [3.0], [9.0]]], lengths=[2]).numpy()
    array([[2.]])
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "max", "sum"):
            raise ArgumentError(f"Pool({reduction!r}): expected 'mean', 'max' or 'sum'")
        self.reduction = reduction

    def config(self) -> dict[str, Any]:
        return {"reduction": self.reduction}

    def pooled(self, t: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None:
            return {"mean": t.mean, "max": t.max, "sum": t.sum}[self.reduction](1)
        wide = valid.reshape(*extents(valid), *(1,) * (t.ndim - 2))
        count = wide.astype("int64").sum(1)
        if self.reduction == "max":
            return where(count > 0, largest(where(wide, t, -np.inf), 1), 0.0)
        if self.reduction == "sum":
            return where(wide, t, 0.0).sum(1)
        whole = t.astype("float32") if t.dtype == np.float16 else t
        return (where(wide, whole, 0.0).sum(1) / where(count > 0, count, 1).astype(whole.dtype)).astype(t.dtype)
