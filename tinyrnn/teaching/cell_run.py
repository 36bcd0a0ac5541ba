"""A run of a cell on one short sequence: every number of its forward and backward pass, by name and step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..analysis.bptt import BackwardPass
from ..analysis.subject import Loss, arrays, check_names, settled_sizes, subject_of_cell
from ..cells import Cell
from ..errors import ArgumentError, ShapeError
from ..ir.op import Trait
from ..shapes import show
from ..types import Seed

Array = npt.NDArray[Any]
Where = tuple[str, int]  # a name at a step

MOST_STEPS, MOST_ENTRIES = 12, 6
"""Longer sequences and larger arrays are nothing to read number by number."""


@dataclass
class CellRun:
    """Values, ∂L/∂· and what the loss itself sends, by name and step; of every parameter each step's share."""

    cell: Cell
    steps: int
    loss: float
    given: Mapping[str, Array]                                        # parameters, inputs and first states
    values: dict[Where, Array] = field(default_factory=dict)
    gradients: dict[Where, Array] = field(default_factory=dict)
    from_loss: dict[Where, Array] = field(default_factory=dict)
    shares: dict[str, dict[int, Array]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Array]:
        """What is trained."""
        return {p: self.given[p] for p in self.cell.parameters if p not in self.cell.fixed}

    def gradient(self, p: str) -> Array:
        """∂L/∂p: the sum of the shares of all steps."""
        return np.sum(list(self.shares[p].values()), axis=0) if self.shares.get(p) else np.zeros_like(self.given[p])


def run(cell: Cell, given: Mapping[str, Array], steps: int, loss: Loss, marks: Mapping[str, str]) -> CellRun:
    """One sequence through a cell and back; `marks` are names of what goes into gates."""
    subject = subject_of_cell(cell, steps, given, loss)
    (walk, data), = subject.backward_passes()
    r = walk.recurrence
    labels = {label.name: n for label, n in r.step.labels.items()}
    reads = {k: r.step.inputs[k] for k in (*r.state_names, *r.input_names) if k in r.step.inputs}
    named = {**labels, **{f"argument {mark}": labels[n].src[0] for n, mark in marks.items()
                          if n in labels and Trait.NAMED in labels[n].op.traits}}
    found = CellRun(cell, steps, subject.loss, given)
    for m in BackwardPass(r, {**reads, **named}).steps_back(data):
        t = m.position
        for k, value in m.values.items():
            where = _where(k, t)
            found.values[where] = value[0]
            if (gradient := m.gradients.get(k)) is not None and not k.endswith("]"):
                found.gradients[where] = gradient[0]
            if where[1] < 1 and gradient is not None:
                found.gradients[where] = gradient[0]
        for p, share in m.parameters.items():
            found.shares.setdefault(p, {})[t] = share
        for n, node in labels.items():
            if n in cell.outputs:
                sent = [data.from_loss[node][t - 1][0]] if node in data.from_loss else []
                ends = zip(data.from_loss_at_end, r.new_states, strict=True)
                sent += [g[0] for g, new in ends if t == steps and new is node and g is not None]
                found.from_loss[n, t] = np.sum(sent, axis=0) if sent else np.zeros_like(found.values[n, t])
    for p, (n, lag) in cell.learned.items():
        found.shares[p] = {1: found.gradients.get((n, 1 - lag), np.zeros_like(given[p]))}
    return found


def _where(name: str, t: int) -> Where:
    """`h[t-1]` of step 3 is h at 2; an argument and what an equation computes are those of the step."""
    if not name.endswith("]"):
        return name.removeprefix("argument "), t
    who, _, lag = name[:-1].partition("[t")
    return who, t + (int(lag) if lag else 0)


# ---- what a user gives

def checked(cell: Cell, values: Mapping[str, Any] | None, steps: int | None, rng: Seed) -> tuple[dict[str, Array], int]:
    """All numbers of a run: those that are given, in the shape that the cell asks for, others round ones by chance."""
    raw = arrays(values)
    check_names(cell, raw)
    given = {k: _shaped(cell, k, a) for k, a in raw.items()}
    for k, a in given.items():
        if not np.isfinite(a).all():
            raise ArgumentError(f"values: {k} is not finite, so nothing can be computed with it")
    sizes = cell.checked_sizes({**dict.fromkeys(cell.sizes, 1), **settled_sizes(cell, given)}, {})
    for s, n in sizes.items():
        if n > MOST_ENTRIES:
            raise ArgumentError(f"size {s} is {n}: numbers are put in for sizes up to {MOST_ENTRIES}; for larger ones there "
                                "are xray and draw(..., gradients=True)")
    length = next((len(given[n]) for n in cell.inputs if n in given), 3 if steps is None else steps)
    if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or not 1 <= length <= MOST_STEPS:
        raise ArgumentError(f"steps={length!r}: expected 1 to {MOST_STEPS} steps, which can be read number by number")
    if steps is not None and steps != length:
        raise ShapeError(f"values: the sequence has {length} steps, steps={steps}")
    wanted = {**cell.shapes(sizes), **{n: (int(length), *cell.signal_shape(n, sizes)) for n in cell.inputs}}
    for k, a in given.items():
        if k in wanted and a.shape != wanted[k]:
            raise ShapeError(f"values: {k} has shape {show(a.shape)}, expected {show(wanted[k])}")
    generator = np.random.default_rng(rng)
    return {**{k: _round_numbers(shape, generator) for k, shape in wanted.items()}, **given}, int(length)


def _round_numbers(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Numbers from -0.9 to 0.9 with one digit, none of them zero."""
    return np.asarray(generator.integers(1, 10, shape) * generator.choice([-1, 1], shape) / 10)


def _shaped(cell: Cell, name: str, a: Array) -> Array:
    """A number where one row and one column are meant, a list where a sequence of numbers is."""
    symbols = cell.parameters.get(name) or cell.signals[name.partition("[")[0]]
    rank = len(symbols) + (name in cell.inputs)
    if a.ndim < rank and a.ndim == (name in cell.inputs):
        a = a.reshape(*a.shape, *(1,) * len(symbols))
    if a.ndim != rank:
        shape = ["T", *symbols] if name in cell.inputs else [*symbols]
        raise ShapeError(f"values: {name} has shape {show(a.shape)}, expected [{', '.join(shape)}], of one sequence")
    return a
