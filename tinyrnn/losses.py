"""Losses: scalars that compare outputs with targets, blind to padding."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .errors import ArgumentError, ShapeError
from .ir.ops.elementwise import scale
from .ir.ops.leaves import full
from .shapes import show
from .tensor.functional import astype, exp, log, log1p, log_softmax, mean, softplus, stop_gradient, where
from .tensor.functional import sum as total
from .tensor.rearrange import broadcast_to, gather, pick, reshape, transpose
from .tensor.tensor import Tensor, TensorLike, as_tensor, extents

Loss = Callable[..., Tensor]

STEEP = 1e12
REDUCTIONS = ("mean", "sum", "none")


def _integers(target: TensorLike) -> Tensor:
    return as_tensor(target if hasattr(target, "dtype") else np.asarray(target))


def reduce(values: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    """Values at the True entries of the mask, averaged over those entries, summed, or as they are."""
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"reduction={reduction!r}: expected one of {', '.join(REDUCTIONS)}")
    if mask is not None:
        if extents(mask) != extents(values):
            raise ShapeError(f"the mask has shape {show(mask.shape)}, the losses have {show(values.shape)}")
        values = where(mask, values, 0.0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return total(values)
    wide = astype(values, np.float32) if values.dtype == np.float16 else values
    if mask is None:
        return astype(total(wide) / max(prod(extents(values)), 1), values.dtype)
    count = total(astype(mask, np.int64))
    return astype(total(wide) / astype(where(count > 0, count, 1), wide.dtype), values.dtype)


def _scored(name: str, scores: TensorLike, target: TensorLike, axis: int, mask: object,
            ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores with their classes last, targets, and which targets count; blanked where they do not."""
    scores, wanted = as_tensor(scores), _integers(target)
    if scores.ndim and axis not in (-1, scores.ndim - 1):
        k = axis % scores.ndim
        scores = transpose(scores, [*(i for i in range(scores.ndim) if i != k), k])
    if wanted.dtype.kind not in "iu" or extents(wanted) != extents(scores)[:-1]:
        raise ShapeError(f"{name}: scores {show(scores.shape)} need whole-number targets of shape "
                         f"{show(scores.shape[:-1])}, got {wanted.dtype}{show(wanted.shape)}")
    keep = None if mask is None else as_tensor(mask)
    if keep is not None and extents(keep) != extents(wanted):
        raise ShapeError(f"{name}: the mask has shape {show(keep.shape)}, the targets {show(wanted.shape)}")
    if ignore_index is not None:
        counted = wanted != ignore_index
        keep = counted if keep is None else keep & counted
    if keep is not None:  # blanked before use, so that nothing at an entry that does not count reaches the gradient
        wanted = where(keep, wanted, Tensor(full(0, (), wanted.dtype)))
        scores = where(reshape(keep, (*extents(keep), 1)), scores, 0.0)
    return scores, wanted, keep


def _surprise(logs: Tensor, wanted: Tensor, keep: Tensor | None, weight: object, smoothing: float, reduction: str) -> Tensor:
    """`-logs[wanted]`, weighted by class; `smoothing` of it spread over all classes."""
    if weight is None:
        loss = -pick(logs, wanted)
        if smoothing:
            loss = (1 - smoothing) * loss - smoothing * mean(logs, -1)
        return reduce(loss, keep, reduction)
    w = as_tensor(weight, logs.dtype)
    if w.shape != logs.shape[-1:]:
        raise ShapeError(f"the weights of {logs.shape[-1]} classes have shape {show(w.shape)}")
    each = gather(w, wanted)
    loss = -each * pick(logs, wanted)
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * mean(logs * w, -1)
    if reduction != "mean":
        return reduce(loss, keep, reduction)
    total_weight = reduce(each, keep, "sum")
    return reduce(loss, keep, "sum") / where(total_weight != 0, total_weight, 1.0)


def cross_entropy(logits: Any, target: TensorLike, axis: int = -1, *, mask: object = None, ignore_index: int | None = None,
                  weight: object = None, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """`-log softmax(logits)[target]`, in nats: the mean over all targets that count.

    `logits` is [..., classes] (or has its classes at `axis`), `target` holds whole numbers [...].  A target counts
    where `mask` is True and it is not `ignore_index`; when none counts the mean is 0.  `weight` [classes] weighs each
    target by its class, the mean being over weights; `label_smoothing` spreads that share of a target over all classes
    (Szegedy et al., 2016).

    Raises `ShapeError` for targets, masks or weights of another shape, and `ArgumentError` for another reduction.

    >>> import tinyrnn as tr
    >>> float(tr.nn.cross_entropy([[0.0, 0.0]], [1]))
    0.6931471805599453
    """
    if not 0 <= label_smoothing < 1:
        raise ArgumentError(f"label_smoothing={label_smoothing!r}: expected 0 <= share < 1")
    scores, wanted, keep = _scored("cross_entropy", logits, target, axis, mask, ignore_index)
    return _surprise(log_softmax(scores), wanted, keep, weight, label_smoothing, reduction)


def nll(log_probabilities: Any, target: TensorLike, axis: int = -1, *, mask: object = None, ignore_index: int | None = None,
        weight: object = None, reduction: str = "mean") -> Tensor:
    """The negative log likelihood `-log_probabilities[target]`; `cross_entropy` for what is a log-softmax already.

    Shapes are as in `cross_entropy`. Raises `ShapeError` for targets, masks or weights of another shape, and `ArgumentError`
    for another reduction.

    >>> import tinyrnn as tr
    >>> float(tr.nn.nll([[-2.0, -0.5]], [0]))
    2.0
    """
    logs, wanted, keep = _scored("nll", log_probabilities, target, axis, mask, ignore_index)
    return _surprise(logs, wanted, keep, weight, 0.0, reduction)


def paired(name: str, output: TensorLike, target: TensorLike, mask: object) -> tuple[Tensor, Tensor, Tensor | None]:
    """Output and target of one shape and dtype, and a mask of that shape."""
    y, t = as_tensor(output), as_tensor(target)
    if extents(y) != extents(t):
        raise ShapeError(f"{name}: output {show(y.shape)} and target {show(t.shape)} differ in shape")
    y = y if y.dtype.kind == "f" else astype(y, np.float64)
    t = t if t.dtype == y.dtype else astype(t, y.dtype)
    if mask is None:
        return y, t, None
    keep = as_tensor(mask)
    if extents(keep) != extents(y)[: keep.ndim]:
        raise ShapeError(f"{name}: the mask has shape {show(keep.shape)}, the output {show(y.shape)}")
    keep = broadcast_to(reshape(keep, (*extents(keep), *(1,) * (y.ndim - keep.ndim))), extents(y))
    return y, t, keep


def mse(output: TensorLike, target: TensorLike, *, mask: object = None, reduction: str = "mean") -> Tensor:
    """`(output - target)²`, averaged over all entries that count.

    Output, target and mask have one shape [...]. Raises `ShapeError` for targets, masks or weights of another shape, and
    `ArgumentError` for another reduction.

    >>> import tinyrnn as tr
    >>> float(tr.nn.mse([1.0, 2.0], [1.0, 4.0]))
    2.0
    """
    y, t, keep = paired("mse", output, target, mask)
    d = y - t if keep is None else where(keep, y - t, 0.0)
    return reduce(d * d, keep, reduction)


def bce(output: TensorLike, target: TensorLike, *, mask: object = None, reduction: str = "mean") -> Tensor:
    """Binary cross entropy of probabilities, `-(t log p + (1 - t) log(1 - p))`, each logarithm at least -100.

    Where a logarithm is cut off its slope is 1e12, so that a saturated probability is pushed back.  Prefer `bce_with_logits`,
    which keeps its precision where p is near 0 or 1.

    Output, target and mask have one shape [...]. Raises `ShapeError` for targets, masks or weights of another shape, and
    `ArgumentError` for another reduction.

    >>> import tinyrnn as tr
    >>> float(tr.nn.bce([0.5, 0.0], [1.0, 0.0]))
    0.34657359027997264
    """
    p, t, keep = paired("bce", output, target, mask)
    p = p if keep is None else where(keep, p, 0.5)
    return reduce(-(t * _bounded_log(p) + (1 - t) * _bounded_log(1 - p, of_rest=p)), keep, reduction)


def _bounded_log(p: Tensor, of_rest: Tensor | None = None) -> Tensor:
    """`max(log p, -100)`, with the slope 1e12 below; NaN stays NaN.  Of p = 1 - q with a small q, `log1p(-q)`."""
    small = (p < exp(as_tensor(-100.0, p.dtype))) & (p >= 0)
    plain = log(where(small, 1.0, p)) if of_rest is None else log1p(-where(small, 0.0, of_rest))
    return where(small, -100.0 + STEEP * (p - stop_gradient(p)), plain)


def bce_with_logits(logits: TensorLike, target: TensorLike, *, pos_weight: float | None = None, mask: object = None,
                    reduction: str = "mean") -> Tensor:
    """Binary cross entropy of `sigmoid(logits)`; `pos_weight` weighs the targets that are 1.

    Output, target and mask have one shape [...]. Raises `ShapeError` for targets, masks or weights of another shape, and
    `ArgumentError` for another reduction.

    >>> import tinyrnn as tr
    >>> float(tr.nn.bce_with_logits([0.0], [1.0]))
    0.6931471805599453
    """
    z, t, keep = paired("bce_with_logits", logits, target, mask)
    z = z if keep is None else where(keep, z, 0.0)
    positive = t if pos_weight is None else pos_weight * t
    return reduce(_share(positive, softplus(-z)) + _share(1 - t, softplus(z)), keep, reduction)


def _share(weight: Tensor, loss: Tensor) -> Tensor:
    """`weight * loss`, and 0 where the weight is 0 even if the loss is infinite."""
    return Tensor(scale(weight.source(), loss.source()))


# ---- by name

LOSSES: dict[str, Loss] = {
    "bce": bce, "bce_with_logits": bce_with_logits, "cross_entropy": cross_entropy, "mse": mse, "nll": nll}


def loss_named(what: str | Loss) -> Loss:
    """A loss by its name, or a function of (output, target, mask=)."""
    if callable(what):
        return what
    if what not in LOSSES:
        raise ArgumentError(f"there is no loss {what!r}; known are {', '.join(LOSSES)}, or give a function")
    return LOSSES[what]
