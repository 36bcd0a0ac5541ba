"""Gradient norms on the items of a picture, at every step of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any

import numpy as np

from ..analysis.bptt import BackwardPass, ScanData, StepGradients
from ..ir.node import Node
from .theme import decades, level
from .tile import Tile

Edge = tuple[str, str]


@dataclass
class Flow:
    """Norms of dL/d(item) and of what each edge carries back, by position; None where no gradient arrives."""

    loss: float
    caption: str                                                                           # which numbers these are, in words
    norms: dict[int, dict[str, float | None]] = field(default_factory=dict)
    sent: dict[int, dict[Edge, float | None]] = field(default_factory=dict)                # (reader, source)
    ranges: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)        # least and largest value
    means: dict[int, dict[str, float]] = field(default_factory=dict)
    from_loss: dict[int, dict[str, float]] = field(default_factory=dict)                   # to each output that the loss reads
    parameters: dict[str, float] = field(default_factory=dict)                             # of the sum over all steps
    most: float = 0.0
    span: float = 6                                                                        # decades of the heat scale
    given: bool = False                                                                    # whether the user gave it
    quiet: bool = False                                                                    # whether words hold no numbers

    @property
    def burst(self) -> bool:
        """Whether any gradient is infinite or not a number."""
        return any(v is not None and not np.isfinite(v) for at in self.norms.values() for v in at.values())

    @property
    def loss_text(self) -> str:
        """What stands in the box of the loss."""
        return "L" if self.quiet else f"L = {self.loss:.4g}"

    def on_scale(self, low: float, high: float) -> Flow:
        """The same, shaded from a lowest to a highest norm."""
        self.most, self.span, self.given = high, log10(high) - log10(low), True
        return self

    def shade(self, norm: float | None) -> int | None:
        """The level of a norm on the picture's scale."""
        return level(norm, self.most, self.span)


@np.errstate(all="ignore")
def flow_of(tile: Tile, data: ScanData, loss: float, caption: str) -> Flow:
    """The run of a recurrence, seen on the items of its tile."""
    told = ("block",) if tile.block else ("exit",)  # of a block, the states are seen where they leave it
    bptt = BackwardPass(tile.recurrence, {k: i.node for k, i in tile.items.items() if i.kind not in told})
    canonical = first_names(bptt)
    flow = Flow(loss, caption)
    totals: dict[str, Any] = {}
    last = tile.recurrence.scan.order[-1] + 1
    for m in bptt.steps_back(data):
        flow.norms[m.position] = {k: _norm(m.gradients[k]) for k in bptt.quantities}
        flow.sent[m.position] = {(r, s): _norm(sent_along(tile, m, r, s, canonical)) for r, i in tile.items.items()
                                 for s in i.sources}
        flow.ranges[m.position] = {k: _range(v) for k, v in m.values.items()}
        flow.means[m.position] = {k: float(v.mean()) for k, v in m.values.items() if v.size}
        sent = {k: _from_loss(data, tile.items[k].node, m.position, last, tile.recurrence.new_states) for k in tile.outputs()}
        flow.from_loss[m.position] = {k: norm for k, norm in sent.items() if norm}
        for k, part in m.parameters.items():
            totals[k] = totals[k] + part if k in totals else part
    flow.parameters = {k: float(np.linalg.norm(v)) for k, v in totals.items()}
    norms = [v for at in flow.norms.values() for v in at.values() if v is not None and np.isfinite(v)]
    flow.most, flow.span = max(norms, default=0.0), decades(norms)
    return flow


def _from_loss(data: ScanData, node: Node, position: int, last: int, new_states: Sequence[Node]) -> float:
    """The norm of what the loss itself sends to a value, at a step or after the last one; 0 where it does not read it."""
    parts = [data.from_loss[node][position - 1]] if node in data.from_loss else []
    if position == last:
        parts += [g for n, g in zip(new_states, data.from_loss_at_end, strict=True) if n is node and g is not None]
    return float(np.linalg.norm(sum(parts))) if parts else 0.0


def _norm(gradient: Any) -> float | None:
    return None if gradient is None else float(np.linalg.norm(gradient))


def _range(value: Any) -> tuple[float, float]:
    return (float(value.min()), float(value.max())) if value.size else (0.0, 0.0)


def first_names(bptt: BackwardPass) -> dict[Any, str]:
    """The first quantity of every value."""
    found: dict[Any, str] = {}
    for k, n in bptt.quantities.items():
        found.setdefault(n, k)
    return found


def sent_along(tile: Tile, m: StepGradients, reader: str, source: str, canonical: Mapping[Any, str]) -> Any:
    """What an edge carries: all of the gradient where both ends are one value, else what the reader sends; None for what has
    no gradient, such as a state that is a number."""
    if "block" in (reader, source):  # all of it comes through the block
        return m.gradients.get(source if reader == "block" else reader)
    a, b = tile.items[reader].node, tile.items[source].node
    if a is b:
        return None if tile.items[reader].kind == "exit" else m.gradients.get(canonical.get(a, ""))
    return m.sent.get((canonical.get(a, ""), canonical.get(b, "")))
