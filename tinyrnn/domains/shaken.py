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
import numpy.typing as npt

from ..ir.graph import Graph
from ..ir.op import Op, Trait
from .float import Float

MAGNIFIED = 1000.0  # unit roundoffs of each dtype by which a result is moved
_EXACT_KINDS = ("leaf", "constant", "selection", "control")


class Shaken(Float):
    """Ordinary numbers, each result of arithmetic moved by up to `MAGNIFIED` unit roundoffs."""

    name = "shaken"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def implementation(self, op: Op) -> Callable[..., Any]:
        plain = super().implementation(op)
        if op.kind in _EXACT_KINDS or Trait.EXACT in op.traits:
            return plain

        if Trait.ADDS in op.traits:  # partial sums are rounded, too
            return lambda first, *rest: self._moved(plain(self._moved(first), *rest))
        return lambda *x: self._moved(plain(*x))

    def _moved(self, y: npt.NDArray[Any]) -> Any:
        if getattr(y, "dtype", np.dtype(int)).kind != "f":
            return y
        share = MAGNIFIED * float(np.finfo(y.dtype).eps)
        return (y * (1 + share * self.rng.uniform(-1, 1, y.shape))).astype(y.dtype)


def running_error(graph: Graph, values: Mapping[str, Any], runs: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs of a graph, and for each an array of how far rounding may move its entries; infinity where rounding decides
    between a number and none, or between whole numbers, so that two honest computations may disagree."""
    with np.errstate(all="ignore"):
        plain = graph.run(values)
        worst = {k: np.zeros(np.shape(y)) for k, y in plain.items()}
        for seed in range(runs):
            for k, y in graph.run(values, domain=Shaken(seed)).items():
                worst[k] = np.maximum(worst[k], _moved(np.asarray(y), np.asarray(plain[k])))
    return plain, {k: w / MAGNIFIED for k, w in worst.items()}


def _moved(y: npt.NDArray[Any], plain: npt.NDArray[Any]) -> Any:
    """How far each entry lies from where it was."""
    if plain.dtype.kind != "f":
        return np.where(y == plain, 0.0, np.inf)
    same = (y == plain) | (np.isnan(y) & np.isnan(plain))
    moved = np.abs(y.astype(float) - plain.astype(float))
    return np.where(same, 0.0, np.where(np.isfinite(moved), moved, np.inf))


SLACK = 64.0  # times the running error, by which two orders of the same computation may differ


def difference(found: npt.NDArray[Any], expected: npt.NDArray[Any], error: npt.NDArray[Any], slack: float = SLACK) -> str:
    """What is wrong with an output, in words; empty where it is the same computation: NaN and infinity in the same places,
    finite numbers within `slack` times the running error (and of the largest of their array), all others equal."""
    x, y = np.asarray(found), np.asarray(expected)
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        return f"{x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
    decided = np.isfinite(error)
    if y.dtype.kind != "f":
        wrong = (x != y) & decided
        return f"{x[wrong].flat[0]} where {y[wrong].flat[0]} was expected" if wrong.any() else ""
    if ((np.isnan(x) != np.isnan(y)) & decided).any() or ((x != y) & np.isinf(y) & decided).any():
        return "NaN or infinity in other places"
    finite = np.isfinite(y) & decided
    with np.errstate(all="ignore"):
        off = np.abs(x.astype(float) - y.astype(float))[finite]
        size = np.max(error[decided], initial=0.0) + np.finfo(y.dtype).eps * np.abs(y[finite]).astype(float)
        allowed = slack * size + np.finfo(y.dtype).tiny
    beyond = ~(off <= allowed)
    return f"off by {off[beyond].max():.2e}, allowed {allowed[beyond].max():.2e}" if beyond.any() else ""
