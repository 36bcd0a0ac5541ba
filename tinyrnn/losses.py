"""Losses: scalars that compare outputs with targets, blind to padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ArgumentError, ShapeError
from .functional import astype, broadcast_to, log_softmax, pick, reshape, transpose, where
from .functional import sum as total
from .ir.ops.leaves import full
from .shapes import show
from .tensor import Tensor, as_tensor

REDUCTIONS = ("mean", "sum", "none")


def _integers(target: Any) -> Tensor:
    return as_tensor(target if hasattr(target, "dtype") else np.asarray(target))


def reduce(values: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    """Values at the True entries of the mask, averaged over those entries, summed, or as they are."""
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"reduction={reduction!r}: expected one of {', '.join(REDUCTIONS)}")
    if mask is not None:
        if mask.shape != values.shape:
            raise ShapeError(f"the mask has shape {show(mask.shape)}, the losses have {show(values.shape)}")
        values = where(mask, values, 0.0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return total(values)
    if mask is None:
        return total(values) / max(values.size, 1)
    count = total(astype(mask, values.dtype))
    return total(values) / where(count > 0, count, Tensor(full(1, (), values.dtype)))


def cross_entropy(logits: Any, target: Any, axis: int = -1, *, mask: Any = None, ignore_index: int | None = None,
                  reduction: str = "mean") -> Tensor:
    """`-log softmax(logits)[target]`, in nats: the mean over all targets that count.

    `logits` is [..., classes] (or has its classes at `axis`), `target` holds whole numbers [...].  A target counts
    where `mask` is True and it is not `ignore_index`; when none counts the mean is 0.

    >>> import tinyrnn as tr
    >>> float(tr.nn.cross_entropy([[0.0, 0.0]], [1]))
    0.6931471805599453
    """
    scores, wanted = as_tensor(logits), _integers(target)
    if scores.ndim and axis not in (-1, scores.ndim - 1):
        k = axis % scores.ndim
        scores = transpose(scores, [*(i for i in range(scores.ndim) if i != k), k])
    if wanted.dtype.kind not in "iu" or wanted.shape != scores.shape[:-1]:
        raise ShapeError(f"cross_entropy: logits {show(scores.shape)} need whole-number targets of shape "
                         f"{show(scores.shape[:-1])}, got {wanted.dtype}{show(wanted.shape)}")
    keep = None if mask is None else as_tensor(mask)
    if ignore_index is not None:
        counted = wanted != ignore_index
        keep = counted if keep is None else keep & counted
    if keep is not None:  # blanked before use, so that nothing at an entry that does not count reaches the gradient
        wanted = where(keep, wanted, Tensor(full(0, (), wanted.dtype)))
        scores = where(reshape(keep, (*keep.shape, 1)), scores, 0.0)
    return reduce(-pick(log_softmax(scores), wanted), keep, reduction)


def mse(output: Any, target: Any, *, mask: Any = None, reduction: str = "mean") -> Tensor:
    """`(output - target)²`, averaged over all entries that count.

    >>> import tinyrnn as tr
    >>> float(tr.nn.mse([1.0, 2.0], [1.0, 4.0]))
    2.0
    """
    y, t = as_tensor(output), as_tensor(target)
    if y.shape != t.shape:
        raise ShapeError(f"mse: output {show(y.shape)} and target {show(t.shape)} differ in shape")
    d = y - (t if t.dtype == y.dtype else astype(t, y.dtype))
    keep = None if mask is None else as_tensor(mask)
    if keep is not None:
        keep = broadcast_to(reshape(keep, (*keep.shape, *(1,) * (d.ndim - keep.ndim))), d.shape)
        d = where(keep, d, 0.0)
    return reduce(d * d, keep, reduction)
