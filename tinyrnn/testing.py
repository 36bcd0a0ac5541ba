"""Checks that need no second implementation: a gradient against complex step, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .domains.complex_step import complex_step_gradient
from .ir import Graph
from .types import Seed


@dataclass(frozen=True)
class GradientCheck:
    """The largest deviation of a graph's gradients from complex step, relative to each array's largest entry."""

    entries: int
    worst: float
    where: str

    @property
    def holds(self) -> bool:
        return self.worst <= 1e-11

    def __str__(self) -> str:
        return f"{self.entries} entries, largest deviation {self.worst:.1e} ({self.where})"


def check_gradients(graph: Graph, values: Mapping[str, Any], loss: str = "loss", prefix: str = "dloss/d") -> GradientCheck:
    """Every entry of every output `dloss/dNAME` of a graph against one complex step in that entry.

    Deviations are shares of the array's largest entry, or of 1e-4 of the largest of all where that is more (a
    gradient may be exactly zero).

    >>> import tinyrnn as tr
    >>> from tinyrnn.testing import check_gradients, random_values
    >>> graph = tr.cells.GRU.unroll(3, batch=2, x=2, h=3, gradients=True)
    >>> check_gradients(graph, random_values(graph, rng=0)).holds
    True
    """
    found = graph.run(values)
    names = [k.removeprefix(prefix) for k in graph.outputs if k.startswith(prefix)]
    floor = 1e-4 * max([abs(float(found[loss])), *(float(np.abs(found[prefix + n]).max(initial=0.0)) for n in names)])
    only_loss = Graph({loss: graph.outputs[loss]})
    used = {k: v for k, v in values.items() if k in only_loss.inputs or k in only_loss.leaves}
    worst, where, entries = 0.0, "none", 0
    for name in names:
        gradient = found[prefix + name]
        expected = complex_step_gradient(only_loss, used, name, loss) if name in used else np.zeros(gradient.shape)
        largest = max(float(np.abs(expected).max(initial=0.0)), floor, np.finfo(float).tiny)
        deviation = float(np.abs(gradient - expected).max(initial=0.0)) / largest
        entries += gradient.size
        if not deviation <= worst or where == "none":  # so that NaN counts as a deviation
            worst, where = deviation, name
            if np.isnan(deviation):
                break
    return GradientCheck(entries, worst, where)


def random_values(graph: Graph, rng: Seed = None, scale: float = 0.7) -> dict[str, Any]:
    """Unequal random values for every floating input of a graph."""
    generator = np.random.default_rng(rng)
    return {k: generator.normal(scale=scale, size=n.shape) for k, n in graph.inputs.items()}
