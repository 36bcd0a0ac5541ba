"""How far rounding may move a computation: measured, not guessed.

`Shaken` is a domain in which the result of every operation is moved by a tiny random share.  How far the outputs move,
scaled down to the unit roundoff, is what honest rounding may do to them: a running error bound that knows about
cancellation, saturation and long sums, because it is the graph itself that is shaken (Vignes, "A stochastic
arithmetic for reliable scientific computation", 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..ir.graph import Graph
from ..ir.op import Op
from ..ir.ops.leaves import LEAF
from .float import Float

MAGNIFIED = 1000.0  # unit roundoffs of each dtype by which a result is moved
_EXACT = frozenset("reshape transpose slice place take put concat stack broadcast_to gather pick tag stop_gradient full "
                   "literal iota one_hot argmax random_bits less less_equal equal not_equal both either negate sign "
                   "astype".split())

_SUMS = ("sum", "cumsum", "matmul", "einsum", "scatter_add", "add_n")


class Shaken(Float):
    """Ordinary numbers, each result of arithmetic moved by up to `MAGNIFIED` unit roundoffs."""

    name = "shaken"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def implementation(self, op: Op) -> Callable[..., Any]:
        plain = super().implementation(op)
        if op.name in _EXACT or op is LEAF:
            return plain

        if op.name in _SUMS:  # partial sums are rounded, too
            return lambda first, *rest: self._moved(plain(self._moved(first), *rest))
        return lambda *x: self._moved(plain(*x))

    def _moved(self, y: Any) -> Any:
        if getattr(y, "dtype", np.dtype(int)).kind != "f":
            return y
        share = MAGNIFIED * float(np.finfo(y.dtype).eps)
        return (y * (1 + share * self.rng.uniform(-1, 1, y.shape))).astype(y.dtype)


def running_error(graph: Graph, values: Mapping[str, Any], runs: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs of a graph, and for each an array of how far rounding may move its entries."""
    with np.errstate(all="ignore"):
        plain = graph.run(values)
        worst = {k: np.zeros(np.shape(y)) for k, y in plain.items()}
        for seed in range(runs):
            for k, y in graph.run(values, domain=Shaken(seed)).items():
                if plain[k].dtype.kind == "f":
                    moved = np.abs(y.astype(float) - plain[k].astype(float))
                    worst[k] = np.fmax(worst[k], np.where(np.isfinite(moved), moved, 0.0))
    return plain, {k: w / MAGNIFIED for k, w in worst.items()}


SLACK = 64  # times the running error, by which two orders of the same computation may differ


def difference(found: Any, expected: Any, error: Any) -> str:
    """What is wrong with an output, in words; empty where it is the same computation: NaN and infinity in the same places,
    finite numbers within `SLACK` times the running error (and of the largest of their array), all others equal."""
    x, y = np.asarray(found), np.asarray(expected)
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        return f"{x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
    if y.dtype.kind != "f":
        wrong = x != y
        return f"{x[wrong].flat[0]} where {y[wrong].flat[0]} was expected" if wrong.any() else ""
    if (np.isnan(x) != np.isnan(y)).any() or (x[np.isinf(y)] != y[np.isinf(y)]).any():
        return "NaN or infinity in other places"
    finite = np.isfinite(y)
    with np.errstate(all="ignore"):
        off = np.abs(x.astype(float) - y.astype(float))[finite]
        size = np.broadcast_to(error.max(initial=0.0), y.shape) + np.finfo(y.dtype).eps * np.abs(y).astype(float)
        allowed = SLACK * size[finite] + np.finfo(y.dtype).tiny
    beyond = ~(off <= allowed)
    return f"off by {off[beyond].max():.2e}, allowed {allowed[beyond].max():.2e}" if beyond.any() else ""
