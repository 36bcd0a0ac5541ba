"""Zoneout and recurrent dropout for any cell: the cell's equations with masks as further inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..cells import Cell
from ..cells.variants import in_products, noisy
from ..errors import ArgumentError
from ..ir.node import Node
from ..ir.ops.leaves import full
from ..ir.ops.linear import broadcast_to
from ..tensor.functional import astype, where
from ..tensor.randomness import keep_mask

Rates = float | Mapping[str, float]
Slot = tuple[str, int]


class Noise:
    """A cell whose states are kept (zoneout) or dropped (recurrent dropout) at random in training.

    `zoneout` is one rate for all states or a rate for each by its name; `dropout` is the rate at which units of the
    states that enter products are zero, the same units at every step.
    """

    def __init__(self, cell: Cell, zoneout: Rates = 0.0, dropout: float = 0.0) -> None:
        rates = dict(zoneout) if isinstance(zoneout, Mapping) else dict.fromkeys(cell.states, zoneout)
        if unknown := [s for s in rates if s not in cell.states]:
            raise ArgumentError(f"zoneout: cell {cell.name} has no state {unknown[0]!r}; it has {', '.join(cell.states)}")
        for what, p in (*(("zoneout of " + s, p) for s, p in rates.items()), ("recurrent_dropout", dropout)):
            if not 0 <= p < 1:
                raise ArgumentError(f"{what} is {p!r}: expected 0 <= rate < 1")
        flat = [s for s in cell.states if len(cell.signals[s]) == 1]
        if matrices := [s for s, p in rates.items() if p and s not in flat]:
            raise ArgumentError(f"zoneout keeps entries of vectors, and the state {matrices[0]} of cell {cell.name} is none; "
                                f"give a rate by name: zoneout={{{', '.join(f'{s!r}: ...' for s in flat)}}}")
        masked = tuple(s for s in in_products(cell) if s in flat) if dropout else ()
        if dropout and not masked:
            raise ArgumentError(f"recurrent_dropout: no state of cell {cell.name} enters a product with a matrix")
        self.plain, self.dropout = cell, dropout
        self.rates = {s: p for s, p in rates.items() if p}
        self.noisy = noisy(cell, self.rates, masked)
        self.evaluated = noisy(cell, self.rates).cell if self.rates else cell
        self.trained = self.noisy.cell if masked else self.evaluated

    def scan(self, training: bool, remembered: Sequence[Node], inputs: Sequence[Node], weights: Mapping[str, Node],
             rng: np.random.Generator, *, steps: int, **options: Any) -> tuple[list[Node], dict[str, Node]]:
        """`Cell.scan` of the cell with its noise."""
        cell = self.trained if training else self.evaluated
        state = dict(zip(self.plain.slots, remembered, strict=True))
        masks = self._masks(training, state, rng, (steps,))
        finals, traces = cell.scan(*self._ordered(cell, state, inputs, masks), weights, steps=steps, **options)
        return self._back(cell, finals), traces

    def step(self, training: bool, remembered: Sequence[Node], inputs: Sequence[Node], weights: Mapping[str, Node],
             rng: np.random.Generator) -> tuple[list[Node], dict[str, Node]]:
        """`Cell.step` of the cell with its noise."""
        if training and self.dropout:
            raise ArgumentError("recurrent dropout keeps one mask for all steps of a sequence, so single steps cannot be taken "
                                "in training mode: call the layer on whole sequences, or layer.eval() first")
        cell, state = self.evaluated, dict(zip(self.plain.slots, remembered, strict=True))
        new, signals = cell.step(*self._ordered(cell, state, inputs, self._masks(training, state, rng, ())), weights)
        return self._back(cell, new), signals

    def _masks(self, training: bool, state: Mapping[Slot, Node], rng: np.random.Generator,
               time: tuple[int, ...]) -> dict[str, Node]:
        """The further inputs, time first."""
        masks: dict[str, Node] = {}
        for s, p in self.rates.items():
            like = state[s, 1]
            whole = (*time, *like.shape)
            drawn = astype(keep_mask(whole, p, rng), like.dtype).source() if training else full(p, whole, like.dtype)
            masks[self.noisy.kept[s]] = drawn
        for s in self.noisy.masked if training else ():
            like = state[s, 1]
            kept = where(keep_mask(like.shape, 1 - self.dropout, rng), 1 / (1 - self.dropout), 0.0)
            masks[self.noisy.masked[s]] = broadcast_to(astype(kept, like.dtype).source(), (*time, *like.shape))
        return masks

    def _ordered(self, cell: Cell, state: Mapping[Slot, Node], inputs: Sequence[Node],
                 masks: Mapping[str, Node]) -> tuple[list[Node], list[Node]]:
        """What the cell remembers and reads, in its own order."""
        named = {**dict(zip(self.plain.inputs, inputs, strict=True)), **masks}
        return [state[s] for s in cell.slots], [named[n] for n in cell.inputs]

    def _back(self, cell: Cell, finals: Sequence[Node]) -> list[Node]:
        named = dict(zip(cell.slots, finals, strict=True))
        return [named[s] for s in self.plain.slots]
