"""A recurrence walked forward and back: the value of every quantity at every step, its gradient, and who sent it.

    dL/dq  =  Σ over the readers r of q   (dr/dq)ᵀ dL/dr

Each term of the sum is what the reader sends back to q.  The terms are graphs: the gradient of one reader with respect
to the quantities that it reads directly, with everything before them held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir.graph import Graph
from ..ir.node import Node, rebuild, walk
from ..ir.ops.leaves import full, hole, input_name, input_node
from ..ir.scan import FINAL, TRACE, position_of
from ..passes.ad.adjoint import accumulate, backward
from .recurrence import Recurrence

Array = npt.NDArray[Any]
Edge = tuple[str, str]


@dataclass(frozen=True)
class StepGradients:
    """One step: `position` on the time axis, counted from 1; gradients are None where none arrives."""

    position: int
    values: Mapping[str, Array]
    gradients: Mapping[str, Array | None]
    sent: Mapping[Edge, Array]           # (reader, source) -> what the reader sends back to the source
    parameters: Mapping[str, Array]      # this step's part of the gradient of each constant


@dataclass(frozen=True)
class ScanData:
    """What a recurrence starts from, reads, and receives from the loss."""

    start: Sequence[Array]
    inputs: Sequence[Array]
    constants: Sequence[Array]
    from_loss_at_end: Sequence[Array | None]       # dL/d(final state), for each state
    from_loss: Mapping[Node, Array]                # dL/d(trace), for each traced expression


def scan_data(graph: Graph, loss: Node, found: Sequence[Recurrence], values: Mapping[str, Any]) -> tuple[list[ScanData], float]:
    """The numbers of every recurrence of a graph in one run, and the loss."""
    ends = [n for n in graph.nodes if n.op in (FINAL, TRACE)]
    adjoints = backward({loss: full(1, (), loss.dtype)}, [n for n in ends if n.floating])
    wanted: dict[str, Node] = {"loss": loss}
    for i, r in enumerate(found):
        wanted.update({f"source {i} {k}": s for k, s in enumerate(r.scan.node.src)})
        wanted.update({f"from loss {i} {k}": adjoints[n] for k, n in enumerate(_projections(ends, r)) if n in adjoints})
    whole = Graph(wanted)
    run = whole.run({k: v for k, v in values.items() if k in whole.inputs or k in whole.leaves})
    out = []
    for i, r in enumerate(found):
        start, inputs, constants = r.scan.split([run[f"source {i} {k}"] for k in range(len(r.scan.node.src))])
        sent = {n: run[f"from loss {i} {k}"] for k, n in enumerate(_projections(ends, r)) if n in adjoints}
        at_end = {position_of(n): g for n, g in sent.items() if n.op is FINAL}
        out.append(ScanData(start, inputs, constants, [at_end.get(k) for k in range(r.scan.n_states)],
                           {r.traced[n]: g for n, g in sent.items() if n.op is TRACE}))
    return out, float(run["loss"])


def _projections(ends: Sequence[Node], r: Recurrence) -> list[Node]:
    return [n for n in ends if n.src[0] is r.scan.node]


class BackwardPass:
    """A recurrence with its backward step, for chosen quantities."""

    def __init__(self, recurrence: Recurrence, quantities: Mapping[str, Node] | None = None) -> None:
        self.recurrence = r = recurrence
        self.quantities = dict(r.named if quantities is None else quantities)
        self._seeds = [input_node(f"seed {k}", n.shape, n.dtype) for k, n in enumerate(r.new_states)]
        self._from_loss = {n: input_node(f"from loss {k}", n.shape, n.dtype)
                           for k, n in enumerate(dict.fromkeys(r.traced.values()))}
        self.adjoint = self._adjoints()
        self.sent = self._contributions()

    def _adjoints(self) -> dict[Node, Node]:
        parts: dict[Node, list[Node]] = {}
        for n, seed in (*zip(self.recurrence.new_states, self._seeds, strict=True), *self._from_loss.items()):
            if n.floating:
                parts.setdefault(n, []).append(seed)
        inputs = [n for n in self.recurrence.step.inputs.values() if n.floating]
        return backward({n: accumulate(p) for n, p in parts.items()}, inputs)

    def _contributions(self) -> dict[Edge, Node]:
        """What every quantity sends back to each quantity that it reads directly."""
        names = {n: k for k, n in reversed(self.quantities.items())}
        found: dict[Edge, Node] = {}
        for reader, node in self.quantities.items():
            if names[node] != reader or node not in self.adjoint or not node.src:
                continue
            for source, part in _sent(node, self.adjoint[node], set(names) - {node}).items():
                found[reader, names[source]] = part
        return found

    @cached_property
    def _forward(self) -> Graph:
        return Graph({str(k): n for k, n in enumerate(self.recurrence.new_states)})

    @cached_property
    def _back(self) -> Graph:
        r = self.recurrence
        inputs = r.step.inputs
        wanted = {f"value {k}": n for k, n in self.quantities.items()}
        wanted |= {f"gradient {k}": self.adjoint[n] for k, n in self.quantities.items() if n in self.adjoint}
        wanted |= {f"sent {a} -> {b}": n for (a, b), n in self.sent.items()}
        wanted |= {f"part {k}": self.adjoint[inputs[k]] for k in r.parameters if inputs.get(k) in self.adjoint}
        wanted |= {f"before {k}": self.adjoint[inputs[k]] for k in r.state_names if inputs.get(k) in self.adjoint}
        return Graph(wanted)

    def steps_back(self, data: ScanData) -> Iterator[StepGradients]:
        """Every step, from the last one that was computed back to the first."""
        r = self.recurrence
        states = self._states(data)
        seeds: list[Array | None] = list(data.from_loss_at_end)
        for position, t in reversed(r.visits):
            values = {**dict(zip(r.state_names, states[t], strict=True)), **self._read(data, position)}
            for k, (seed, node) in enumerate(zip(seeds, r.new_states, strict=True)):
                values[f"seed {k}"] = np.zeros(node.shape, node.dtype) if seed is None else seed
            for node, sent in self._from_loss.items():
                found = data.from_loss.get(node)
                values[input_name(sent)] = np.zeros(node.shape, node.dtype) if found is None else found[position]
            run = self._back.run({k: values[k] for k in self._back.inputs})
            seeds = [run.get(f"before {k}") for k in r.state_names]
            yield StepGradients(position + 1, {k: run[f"value {k}"] for k in self.quantities},
                                {k: run.get(f"gradient {k}") for k in self.quantities},
                                {(a, b): run[f"sent {a} -> {b}"] for a, b in self.sent},
                                {k: run[f"part {k}"] for k in r.parameters if f"part {k}" in run})

    def jacobians(self, data: ScanData, row: int = 0) -> Iterator[tuple[int, Array]]:
        """Position and `d(state after the step) / d(state before it)` of every step for one row, [S, S], last step first.

        S counts the entries of all floating states together, in their order.  Rows do not meet within a step, so every
        row of the batch is given the numbers of the chosen one and the seed of another entry.
        """
        r = self.recurrence
        moving = [k for k, n in enumerate(r.new_states) if n.floating]
        back = Graph({str(k): self.adjoint[r.step.inputs[r.state_names[k]]] for k in moving
                      if r.step.inputs.get(r.state_names[k]) in self.adjoint})
        states, batch = self._states(data), r.new_states[moving[0]].shape[0]
        sizes = [int(np.prod(r.new_states[k].shape[1:])) for k in moving]
        ends = np.cumsum([0, *sizes])
        for position, t in reversed(r.visits):
            values = {**dict(zip(r.state_names, states[t], strict=True)), **self._read(data, position)}
            values = {k: v if k in r.parameters else _everywhere(v, row, batch) for k, v in values.items()}
            values |= {input_name(n): np.zeros(n.shape, n.dtype) for n in (*self._seeds, *self._from_loss.values())}
            jacobian = np.zeros((ends[-1], ends[-1]))
            for first in range(0, ends[-1], batch):
                entries = np.arange(first, min(first + batch, ends[-1]))
                seeds = np.zeros((batch, ends[-1]))
                seeds[np.arange(len(entries)), entries] = 1
                for k, a, b in zip(moving, ends, ends[1:], strict=False):
                    node = r.new_states[k]
                    values[f"seed {k}"] = seeds[:, a:b].reshape(node.shape).astype(node.dtype)
                run = back.run({n: values[n] for n in back.inputs})
                for m, name in enumerate(map(str, moving)):
                    if name in run:
                        jacobian[entries, ends[m] : ends[m + 1]] = run[name].reshape(batch, -1)[: len(entries)]
            yield position + 1, jacobian

    def _states(self, data: ScanData) -> list[list[Array]]:
        """What is remembered before every step of the walk."""
        states = [list(data.start)]
        for position, _ in self.recurrence.visits[:-1]:
            values = {**dict(zip(self.recurrence.state_names, states[-1], strict=True)), **self._read(data, position)}
            run = self._forward.run({k: values[k] for k in self._forward.inputs})
            states.append(list(run.values()))
        return states

    def _read(self, data: ScanData, position: int) -> dict[str, Array]:
        r = self.recurrence
        return {**{k: x[position] for k, x in zip(r.input_names, data.inputs, strict=True)},
                **dict(zip(r.constants, data.constants, strict=True))}


def _everywhere(value: Array, row: int, batch: int) -> Array:
    """One row of a batch in the place of all of them."""
    return np.broadcast_to(value[row : row + 1], value.shape) if value.ndim and value.shape[0] == batch else value


def _sent(reader: Node, adjoint: Node, others: set[Node]) -> dict[Node, Node]:
    """The parts of the adjoints of the quantities that `reader` reads directly which come from it."""
    own = walk([reader], known=others)
    inside = set(own)
    sources = list(dict.fromkeys(s for n in own for s in n.src if s not in inside and s.floating))
    stand_ins = {s: hole(s.shape, s.dtype) for s in sources}
    new: dict[Node, Node] = dict(stand_ins)
    rebuild(own, new)
    parts = backward({new[reader]: adjoint}, list(stand_ins.values()))
    back = {h: s for s, h in stand_ins.items()}
    found = {s: parts[h] for s, h in stand_ins.items() if h in parts}
    rebuild(walk(found.values(), known=set(back)), back)
    return {s: back[n] for s, n in found.items()}

