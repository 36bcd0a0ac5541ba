"""A run of a cell on one short sequence: every number of its forward and backward pass, by name and step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells import Cell
from ..ir.op import Trait
from .bptt import BackwardPass
from .subject import Subject

Array = npt.NDArray[Any]
Where = tuple[str, int]  # a name at a step


@dataclass
class CellRun:
    """Values, ∂L/∂· and what the loss itself sends, by name and step; of every parameter each step's share."""

    cell: Cell
    steps: int
    loss: float
    given: Mapping[str, Array]                                        # parameters, perhaps inputs and first states
    direction: int = 1                                                # of the walk along time: -1 from the end
    values: dict[Where, Array] = field(default_factory=dict)
    gradients: dict[Where, Array] = field(default_factory=dict)
    from_loss: dict[Where, Array] = field(default_factory=dict)
    shares: dict[str, dict[int, Array]] = field(default_factory=dict)

    def before(self, t: int) -> bool:
        """Whether a step lies before the first one that is computed."""
        return t < 1 if self.direction > 0 else t > self.steps

    def beyond(self, t: int) -> bool:
        """Whether a step lies beyond the last one that is computed."""
        return t > self.steps if self.direction > 0 else t < 1

    @property
    def parameters(self) -> dict[str, Array]:
        """What is trained."""
        return {p: self.given[p] for p in self.cell.parameters if p in self.given and p not in self.cell.fixed}

    def gradient(self, p: str) -> Array:
        """∂L/∂p: the sum of the shares of all steps."""
        return np.sum(list(self.shares[p].values()), axis=0) if self.shares.get(p) else np.zeros_like(self.given[p])


def cell_run(cell: Cell, subject: Subject, marks: Mapping[str, str], number: int = 0, given: Mapping[str, Array] | None = None,
             row: int = 0) -> CellRun:
    """One row of a recurrence of a subject; `marks` are names of what goes into gates."""
    walk, data = subject.backward_passes()[number]
    r = walk.recurrence
    sign = -1 if r.scan.reverse else 1
    labels = {label.name: n for label, n in r.step.labels.items()}
    reads = {k: r.step.inputs[k] for k in (*r.state_names, *r.input_names) if k in r.step.inputs}
    named = {**labels, **{f"argument {mark}": labels[n].src[0] for n, mark in marks.items()
                          if n in labels and Trait.NAMED in labels[n].op.traits}}
    found = CellRun(cell, r.steps, subject.loss, given or dict(zip(r.constants, data.constants, strict=True)), sign)
    last = r.scan.order[-1] + 1
    for m in BackwardPass(r, {**reads, **named}).steps_back(data):
        t = m.position
        for k, value in m.values.items():
            where, gradient = place_of(k, t, sign), m.gradients.get(k)
            found.values[where] = value[row]
            whole = where[0] in cell.inputs and k == f"{where[0]}[t]"  # its gradient has what later steps read of it
            if gradient is not None and (whole or not k.endswith("]") or found.before(where[1])):
                found.gradients[where] = gradient[row]
        for p, share in m.parameters.items():
            found.shares.setdefault(p, {})[t] = share
        for n, node in labels.items():
            if n in cell.outputs:
                sent = [data.from_loss[node][t - 1][row]] if node in data.from_loss else []
                ends = zip(data.from_loss_at_end, r.new_states, strict=True)
                sent += [g[row] for g, new in ends if t == last and new is node and g is not None]
                found.from_loss[n, t] = np.sum(sent, axis=0) if sent else np.zeros_like(found.values[n, t])
    for e in cell.system.equations:  # what is a number is no part of the graph
        if e.name not in labels and e.term.kind == "number":
            found.values |= {(e.name, t): np.asarray(float(e.term.value)) for t in range(1, r.steps + 1)}
    for p, (n, lag) in cell.learned.items():
        if p in found.given:
            found.shares[p] = {1: found.gradients.get((n, 1 - lag), np.zeros_like(found.given[p]))}
    return found


def place_of(name: str, t: int, sign: int) -> Where:
    """`h[t-1]` of step 3 is h at 2 (at 4 where time runs backwards); an argument and what an equation computes are those of
    the step."""
    if not name.endswith("]"):
        return name.removeprefix("argument "), t
    who, _, lag = name[:-1].partition("[t")
    return who, t + (sign * int(lag) if lag else 0)
