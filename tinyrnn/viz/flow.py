"""Gradient norms on the items of a picture, at every step of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..analysis.walk import Numbers, StepGradients, Walk
from ..ir.node import Node
from .theme import decades, level
from .tile import Tile

Edge = tuple[str, str]


@dataclass
class Flow:
    """Norms of dL/d(item) and of what each edge carries back, by position; None where no gradient arrives."""

    nodes: dict[int, dict[str, float | None]]
    edges: dict[int, dict[Edge, float | None]]   # (reader, source)
    values: dict[int, dict[str, Any]]
    from_loss: dict[int, dict[str, float]]            # what the loss itself sends to each output that it reads
    parameters: dict[str, float]                 # of the sum over all steps
    most: float
    span: int                                    # decades of the heat scale
    loss: float
    what: str

    @property
    def burst(self) -> bool:
        """Whether any gradient is infinite or not a number."""
        return any(v is not None and not np.isfinite(v) for at in self.nodes.values() for v in at.values())

    def shade(self, norm: float | None) -> int | None:
        """The level of a norm on the picture's scale."""
        return level(norm, self.most, self.span)


@np.errstate(all="ignore")
def flow_of(tile: Tile, given: Numbers, loss: float, what: str) -> Flow:
    """The run of a recurrence, seen on the items of its tile."""
    walk = Walk(tile.recurrence, {k: i.node for k, i in tile.items.items() if i.kind != "exit"})
    canonical: dict[Any, str] = {}
    for k, n in walk.quantities.items():
        canonical.setdefault(n, k)
    flow = Flow({}, {}, {}, {}, {}, 0.0, 6, loss, what)
    totals: dict[str, Any] = {}
    last = tile.recurrence.scan.order[-1] + 1
    for m in walk.steps_back(given):
        flow.nodes[m.position] = {k: _norm(m.gradients[k]) for k in walk.quantities}
        flow.edges[m.position] = {(r, s): _edge(tile, m, r, s, canonical) for r, i in tile.items.items() for s in i.sources}
        flow.values[m.position] = {k: _range(v) for k, v in m.values.items()}
        sent = {k: _from_loss(given, tile.items[k].node, m.position, last, tile.recurrence.carried) for k in tile.outputs()}
        flow.from_loss[m.position] = {k: norm for k, norm in sent.items() if norm}
        for k, part in m.parameters.items():
            totals[k] = totals[k] + part if k in totals else part
    flow.parameters = {k: float(np.linalg.norm(v)) for k, v in totals.items()}
    norms = [v for at in flow.nodes.values() for v in at.values() if v is not None and np.isfinite(v)]
    flow.most, flow.span = max(norms, default=0.0), decades(norms)
    return flow


def _from_loss(given: Numbers, node: Node, position: int, last: int, carried: Sequence[Node]) -> float:
    """The norm of what the loss itself sends to a value, at a step or after the last one; 0 where it does not read it."""
    parts = [given.from_loss[node][position - 1]] if node in given.from_loss else []
    if position == last:
        parts += [g for n, g in zip(carried, given.from_loss_at_end, strict=True) if n is node and g is not None]
    return float(np.linalg.norm(sum(parts))) if parts else 0.0


def _norm(gradient: Any) -> float | None:
    return None if gradient is None else float(np.linalg.norm(gradient))


def _range(value: Any) -> tuple[float, float]:
    return (float(value.min()), float(value.max())) if value.size else (0.0, 0.0)


def _edge(tile: Tile, m: StepGradients, reader: str, source: str, canonical: Mapping[Any, str]) -> float | None:
    """What an edge carries: all of the gradient where both ends are one value, else what the reader sends; None for what has
    no gradient, such as a state that is a number."""
    a, b = tile.items[reader].node, tile.items[source].node
    if a is b:
        return None if tile.items[reader].kind == "exit" else _norm(m.gradients.get(canonical.get(a, "")))
    return _norm(m.sent.get((canonical.get(a, ""), canonical.get(b, ""))))
