"""Metrics by name: each a mean over the targets that count, and what to make of the mean of an epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError
from ..losses import Loss, bce, bce_with_logits, cross_entropy, mse, paired, reduce
from ..shapes import show
from ..tensor.functional import argmax, astype
from ..tensor.rearrange import stack
from ..tensor.tensor import Tensor

Array = npt.NDArray[Any]


class Metric(NamedTuple):
    """A figure of its own for `fit` and `evaluate`.

    `measure(output, target, mask=)` is the mean of some numbers over a batch; `finish` turns their mean over all batches
    into the figure that is shown.

    Output [B, ...] or [B, T, ...], target and mask as of the loss; the figure is a scalar. Raises what `measure` raises.

    >>> import tinyrnn as tr
    >>> near = tr.train.Metric("near", lambda y, t, mask=None: (abs(y - t) < 0.5).astype(y.dtype).mean())
    >>> near.finish(near.measure(tr.tensor([0.2, 0.9]), tr.tensor([0.0, 0.0])).numpy())
    0.5
    """

    name: str
    measure: Loss
    finish: Callable[[Array], float] = float


def _classes(name: str, output: Tensor, target: Tensor) -> Tensor:
    """The class with the largest score, where targets are whole numbers of the shape that scores have without classes."""
    if target.dtype.kind not in "iu" or output.shape[:-1] != target.shape:
        raise ShapeError(f"{name}: scores {show(output.shape)} need whole-number targets of shape {show(output.shape[:-1])}, "
                         f"got {target.dtype}{show(target.shape)}; targets 0 and 1 beside one logit: binary_accuracy")
    return argmax(output)


def accuracy(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The share of targets that are the largest entry of the output."""
    return reduce(astype(_classes("accuracy", output, target) == target, output.dtype), mask, "mean")


def binary_accuracy(threshold: float) -> Metric:
    """The share of outputs on the side of a threshold that their targets, 0 or 1, are on.

    The threshold is 0 for logits and 0.5 for probabilities.  By its name alone, "binary_accuracy", the metric follows the loss:
    logits with `bce_with_logits`, probabilities with `bce` and `mse`.

    Raises `ShapeError` where output and target differ in shape.

    >>> import tinyrnn as tr
    >>> metric = tr.train.binary_accuracy(0.5)
    >>> metric.finish(metric.measure(tr.tensor([0.2, 0.9]), tr.tensor([0.0, 0.0])).numpy())
    0.5
    """
    def measure(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        y, t, keep = paired("binary_accuracy", output, target, mask)
        return reduce(astype((y > threshold) == (t > 0.5), y.dtype), keep, "mean")

    return Metric("binary_accuracy", measure)


def base_of(loss: Loss) -> Loss:
    """The loss itself where some of its arguments are given already."""
    return loss.func if isinstance(loss, functools.partial) else loss


THRESHOLDS: dict[Loss, float] = {bce_with_logits: 0.0, bce: 0.5, mse: 0.5}


def _following(loss: Loss) -> Metric:
    """Binary accuracy for what a loss takes."""
    base = base_of(loss)
    if base not in THRESHOLDS:
        raise ArgumentError(f"binary_accuracy follows the loss, and of {getattr(base, '__name__', base)} nobody knows whether "
                            "it takes logits or probabilities: metrics=(tr.train.binary_accuracy(0.0),) counts logits from 0, "
                            "binary_accuracy(0.5) probabilities from a half")
    return binary_accuracy(THRESHOLDS[base])


def f1(outside: int | Sequence[int] = 0, name: str = "f1") -> Metric:
    """Micro-averaged F1 over tokens, `2 tp / (2 tp + fp + fn)`; the tags in `outside` are not counted as found.

    Output [..., classes], target whole numbers [...]. Raises `ShapeError` for others.

    >>> import tinyrnn as tr
    >>> metric = tr.train.f1(outside=0)
    >>> y, wanted = tr.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]), tr.tensor(np.array([[0, 1, 0]]))
    >>> metric.finish(metric.measure(y, wanted).numpy())
    0.6666666666666666
    """
    none = [int(k) for k in np.atleast_1d(np.asarray(outside, int))]

    def counts(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        found = _classes(name, output, target)
        hit, said, meant = found == target, _none_of(found, none), _none_of(target, none)
        kinds = (hit & meant, said & ~hit, meant & ~hit)
        return stack([reduce(astype(k, output.dtype), mask, "mean") for k in kinds])

    def finish(means: Array) -> float:
        tp, fp, fn = (float(m) for m in means)
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0

    return Metric(name, counts, finish)


def _none_of(t: Tensor, values: Sequence[int]) -> Tensor:
    return functools.reduce(lambda kept, v: kept & (t != v), values, t == t)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy), "f1": f1(),
    "perplexity": Metric("perplexity", cross_entropy, lambda mean: float(np.exp(np.minimum(mean, 709.0))))}


def metric_named(what: str | Loss | Metric, loss: Loss) -> Metric:
    """A metric by its name, as it is, or from a function of (output, target, mask=); one follows the loss."""
    if isinstance(what, Metric):
        return what
    if what == "binary_accuracy":
        return _following(loss)
    return Metric(getattr(what, "__name__", "metric"), what) if callable(what) else _known(what)


def _known(name: str) -> Metric:
    if name not in METRICS:
        raise ArgumentError(f"there is no metric {name!r}; known are {', '.join(METRICS)}, binary_accuracy, or give a function")
    return METRICS[name]
