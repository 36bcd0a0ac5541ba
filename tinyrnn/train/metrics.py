"""Metrics and losses by name, each a mean over the targets that count."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ArgumentError
from ..functional import argmax, astype
from ..losses import cross_entropy, mse, reduce
from ..tensor import Tensor

Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}


def accuracy(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The share of targets that are the largest entry of the output."""
    hit = astype(argmax(output) == target, output.dtype)
    return reduce(hit, mask, "mean")


METRICS: dict[str, Loss] = {"accuracy": accuracy}


def named(what: str | Loss, table: dict[str, Loss], kind: str) -> tuple[str, Loss]:
    """A loss or metric by its name, or a function of (output, target, mask=) with its own name."""
    if callable(what):
        return getattr(what, "__name__", kind), what
    if what not in table:
        raise ArgumentError(f"there is no {kind} {what!r}; known are {', '.join(table)}, or give a function")
    return what, table[what]


