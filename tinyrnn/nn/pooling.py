"""Sequences to vectors: the last step, or a mean, maximum or sum over the steps that count."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..functional import arange, check_lengths, one_hot, row_mask, where
from ..functional import max as largest
from ..shapes import show
from ..tensor import Tensor, as_tensor
from .module import Module


def valid_steps(x: Tensor, lengths: Any, mask: Any) -> Tensor | None:
    """Which steps of x [B, T, ...] count, bool [B, T]."""
    if x.ndim < 2:
        raise ShapeError(f"expected a sequence [B, T, ...], got {show(x.shape)}")
    if lengths is not None and mask is not None:
        raise ArgumentError("give lengths or mask, not both")
    if lengths is not None:
        known = not isinstance(lengths, Tensor) or lengths.is_leaf
        return row_mask(x.shape[1], check_lengths(np.asarray(lengths), x.shape[1]) if known else lengths)
    if mask is None:
        return None
    valid = as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask))
    if valid.dtype.kind != "b" or valid.shape != x.shape[:2]:
        raise ShapeError(f"a mask is bool [B, T], here {show(x.shape[:2])}; got {valid.dtype}{show(valid.shape)}")
    return valid


class Last(Module):
    """The output at each row's last valid step: [B, T, H] becomes [B, H]; zero for a row without any."""

    ends_time = True

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Any, lengths: Any = None, mask: Any = None) -> Tensor:
        t = as_tensor(x)
        valid = valid_steps(t, lengths, mask)
        if valid is None:
            return t[:, -1]
        last = one_hot(largest(where(valid, arange(t.shape[1]), -1), 1), t.shape[1], t.dtype)
        return where(last.reshape(*last.shape, *(1,) * (t.ndim - 2)) > 0, t, 0.0).sum(1)

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        return as_tensor(x), None


class Pool(Module):
    """The "mean", "max" or "sum" over the valid steps: [B, T, H] becomes [B, H]; zero for a row without any.

    >>> import tinyrnn as tr
    >>> tr.nn.Pool("mean")([[[1.0], [3.0], [9.0]]], lengths=[2]).numpy()
    array([[2.]])
    """

    ends_time = True

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "max", "sum"):
            raise ArgumentError(f"Pool({reduction!r}): expected 'mean', 'max' or 'sum'")
        self.reduction = reduction

    def config(self) -> dict[str, Any]:
        return {"reduction": self.reduction}

    def __call__(self, x: Any, lengths: Any = None, mask: Any = None) -> Tensor:
        t = as_tensor(x)
        valid = valid_steps(t, lengths, mask)
        if valid is None:
            return {"mean": t.mean, "max": t.max, "sum": t.sum}[self.reduction](1)
        wide = valid.reshape(*valid.shape, *(1,) * (t.ndim - 2))
        count = wide.astype(t.dtype).sum(1)
        if self.reduction == "max":
            return where(count > 0, largest(where(wide, t, -np.inf), 1), 0.0)
        total = where(wide, t, 0.0).sum(1)
        return total if self.reduction == "sum" else total / where(count > 0, count, 1.0)
