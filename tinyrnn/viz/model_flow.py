"""Gradient norms on the boxes of a model, at every step of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..analysis.bptt import BackwardPass, ScanData, StepGradients
from ..analysis.recurrence import Recurrence, held
from ..analysis.subject import Model, Subject, valid_rows
from ..errors import ShapeError
from ..ir.node import Node
from ..shapes import show
from .flow import Flow
from .theme import decades
from .timing import Timing
from .wiring import BEGINS

START = "start"  # of a recurrent box: its first states
Place = tuple[str, int | None]  # a box, at a step or once
Norms = dict[int, float | None]


class ModelFlow:
    """‖∂L/∂·‖ of what every box gives, and of what every wire carries back, as far as the boxes of a picture tell.

    What goes on within attention is not told apart: boxes of which nothing is known keep their colour.
    """

    def __init__(self, model: Model, timing: Timing, subject: Subject, lengths: Mapping[int, int]) -> None:
        self.lengths = lengths
        self.timing, self.flow = timing, Flow(subject.loss, subject.caption)
        self.values: dict[Place, Any] = {}     # the output of a box at a step, of the first row
        self.gradients: dict[Place, Any] = {}  # and ∂L/∂ of it
        self.norms: dict[str, Norms] = {}      # of the output of a box, by step; 0 is what is there once
        self.inward: dict[str, Norms] = {}     # what a recurrent box sends to its input
        self.upward: dict[str, Norms] = {}     # what a recurrent box receives from what reads its output
        self.states: dict[str, Norms] = {}     # what a recurrent box sends to the states that it reads
        self.time_axis = 0 if model.reads_time_first() else 1
        self.once = set(timing.once) | {k for k in timing.bars if not timing.gives[k]}
        self._layers(model, subject)
        self._recurrences(model, subject)
        for k in timing.boxes[timing.output].reads:  # what gives the output within a scan
            if k not in self.norms and len(timing.boxes[timing.output].reads) == 1:
                self.norms[k] = self.norms[timing.output]
        norms = [v for found in (self.norms, self.inward, self.upward, self.states) for at in found.values()
                 for v in at.values() if v is not None]
        finite = [v for v in norms if np.isfinite(v)]
        self.flow.most, self.flow.span = max(finite, default=0.0), decades(finite)
        self.flow.norms = {0: {str(i): v for i, v in enumerate(norms)}}  # so that the key knows of what is not finite

    # ---- what a picture asks

    def knows(self, place: Place) -> bool:
        return place[0] in self.norms

    def norm(self, place: Place) -> float | None:
        """‖∂L/∂(output)‖ of a box at a step, or of all steps of one that spans them."""
        found = self.norms[place[0]]
        return _hypot(found.values()) if place[0] in self.timing.bars and 0 not in found else found.get(place[1] or 0)

    def sent(self, source: Place, reader: Place) -> float | None:
        """What one box sends back to another, where it is known."""
        (a, p), (b, q) = source, reader
        boxes = self.timing.boxes
        if b in boxes and boxes[b].direction:
            return self._to_recurrent(a, b, q)
        if b.endswith("-gap"):
            return None
        if a in boxes and boxes[a].direction:
            return self.upward.get(a, {}).get(p or 0)
        return self.norms.get(a, {}).get((q if a in self.timing.bars else p) or 0)

    def _to_recurrent(self, a: str, b: str, q: int | None) -> float | None:
        """What a recurrent box sends to its input, or to its states."""
        found = self.inward if a in self.timing.boxes and a in self.timing.boxes[b].reads else self.states
        if a in self.timing.joints:
            found = self.states
        return found.get(b, {}).get(q or 0)

    # ---- numbers

    def _layers(self, model: Model, subject: Subject) -> None:
        """The outputs of layers, and the data."""
        timing = self.timing
        ends = self._ends(model)
        inputs = [k for k, b in timing.boxes.items() if not b.reads and not b.follows]
        nodes = {k: subject.outputs[path][i] for k, (path, i) in ends.items() if i < len(subject.outputs.get(path, ()))}
        nodes |= dict(zip(inputs, subject.inputs, strict=False))
        nodes[timing.output] = subject.outputs[""][-1]
        known = set(subject.graph.nodes)  # others stand within a scan
        for k, node in nodes.items():
            if node in known:
                self._check_steps(k, node)
        gradients, values = subject.gradients(list(nodes.values())), subject.run(list(nodes.values()))
        for k, node in nodes.items():
            if timing.boxes[k].direction:
                continue
            if node.floating and (node in gradients or node in values):
                self.norms[k] = self._norms(k, gradients.get(node))
            for found, arrays in ((self.values, values), (self.gradients, gradients)):
                if node in arrays:
                    found.update({(k, p): a[0] for p, a in self._steps(k, arrays[node])})
            if timing.boxes[k].time == BEGINS and timing.boxes[k].reads[0] not in self.norms and node in gradients:
                self._repeated(timing.boxes[k].reads[0], values[node], gradients[node])

    def _check_steps(self, k: str, node: Node) -> None:
        """Whether there is a value at every step where the layers say so."""
        timing = self.timing
        axis, steps = 0 if timing.boxes[k].time_first else self.time_axis, self.lengths.get(timing.sequence[k])
        if k in timing.each and steps is not None and (len(node.shape) <= axis or node.shape[axis] != steps):
            raise ShapeError(f"{timing.boxes[k].lines[0]} gives {show(node.shape)}, not a value at each of {steps} steps: take "
                             "Last or Pool, or a Module of your own that says ends_time = True or its wiring")

    def _repeated(self, k: str, value: Any, gradient: Any) -> None:
        """What stands before a sequence of which it is every step, where the graph has no node of its own for it."""
        summed = gradient.sum(self.time_axis)
        self.norms[k] = {0: float(np.linalg.norm(summed))}
        self.values[k, None], self.gradients[k, None] = np.moveaxis(value, self.time_axis, 0)[0][0], summed[0]

    def _ends(self, model: Model) -> dict[str, tuple[str, int]]:
        """The last box of every call of a layer: the layer's path, and which call it is."""
        paths = {id(m): path for path, m in model.named_modules()}
        found: dict[str, tuple[str, int]] = {}
        calls: dict[str, int] = {}
        for k, b in self.timing.boxes.items():
            if b.layer is not None and not any(self.timing.boxes[r].layer is b.layer for r in self.timing.readers[k]):
                path = paths[id(b.layer)]
                found[k] = path, calls.get(path, 0)
                calls[path] = calls.get(path, 0) + 1
        return found

    def _norms(self, k: str, gradient: Any) -> Norms:
        if gradient is None:
            return {}
        return {p or 0: float(np.linalg.norm(g)) for p, g in self._steps(k, gradient)}

    def _steps(self, k: str, array: Any) -> list[tuple[int | None, Any]]:
        """What a box gives at every step, all rows of it."""
        if k in self.once:
            return [(None, np.moveaxis(array, self.time_axis, 0)[0] if self._one_step(k, array) else array)]
        axis = 0 if self.timing.boxes[k].time_first else self.time_axis
        return [(p + 1, g) for p, g in enumerate(np.moveaxis(array, axis, 0))]

    def _one_step(self, k: str, array: Any) -> bool:
        """Whether what is there once is a sequence of one step."""
        return k not in self.timing.bars and array.ndim > 2 and bool(array.shape[self.time_axis] == 1)

    def _recurrences(self, model: Model, subject: Subject) -> None:
        """Recurrent boxes, each with the part of a scan that is its own."""
        passes = list(zip(subject.recurrences, subject.scan_data, strict=True))
        taken: set[int] = set()
        for k, path in self._recurrent_paths(model):
            found = next((i for i, (r, _) in enumerate(passes) if i not in taken and _is_of(r, path)), None)
            if found is not None:
                taken.add(found)
                self._walk({k: range(len(self.timing.boxes[k].states))}, *passes[found])
        for i, (r, given) in enumerate(passes):  # a scan of several layers: a decoder
            own = [k for k, path in self._recurrent_paths(model) if any(p.startswith(f"{path}.") for p in r.parameters)]
            if own and (i not in taken or len(own) > 1):
                slots = iter(range(len(r.state_names)))
                self._walk({k: [next(slots) for _ in self.timing.boxes[k].states] for k in own}, r, given)

    def _recurrent_paths(self, model: Model) -> list[tuple[str, str]]:
        paths = {id(m): path for path, m in model.named_modules()}
        found = [(k, paths[id(b.layer)], b.part) for k, b in self.timing.boxes.items() if b.direction and b.layer is not None]
        return [(k, ".".join(filter(None, parts))) for k, *parts in found]

    @np.errstate(all="ignore")
    def _walk(self, boxes: Mapping[str, Sequence[int]], r: Recurrence, given: ScanData) -> None:
        """One scan, back from its last step; `boxes` says which of its states belong to which box."""
        inputs = r.step.inputs
        named: dict[str, Node] = {f"state {i}": inputs[n] for i, n in enumerate(r.state_names) if n in inputs}
        valid = valid_rows(r, given)
        named |= {f"new {i}": n if valid is None else held(n) for i, n in enumerate(r.new_states)}
        named |= {f"trace {i}": n for i, n in enumerate(dict.fromkeys(r.traced.values()))}
        named |= {f"input {i}": inputs[n] for i, n in enumerate(r.input_names) if n in inputs and inputs[n].floating}
        last, keys = r.scan.order[-1], list(boxes)
        for k in boxes:
            for found in (self.norms, self.inward, self.upward, self.states):
                found[k] = {}
        for m in BackwardPass(r, named).steps_back(given):
            p = m.position
            for k, slots in boxes.items():
                shown = f"new {slots[0]}"
                self.values[k, p] = m.values[shown][0]
                if (gradient := m.gradients.get(shown)) is not None:
                    self.gradients[k, p] = gradient[0]
                self.norms[k][p] = _whole(m.gradients.get(f"new {i}") for i in slots)
                self.states[k][p] = _whole(m.gradients.get(f"state {i}") for i in slots)
                new = _new(slots)
                if len(keys) == 1:
                    sent = [g[p - 1] if valid is None else g[p - 1][valid[p - 1]] for g in given.from_loss.values()]
                else:
                    sent = [g[p - 1] for n, g in given.from_loss.items() if n in [r.new_states[i] for i in slots]]
                    sent += [g for (a, b), g in m.sent.items() if a.startswith("trace") and b in new]
                sent += [g for i in slots if p - 1 == last and (g := given.from_loss_at_end[i]) is not None]
                self.upward[k][p] = _whole(sent)
            if p == r.scan.order[0] + 1:
                self._begin(boxes, m)
            self.inward[keys[0]][p] = _whole(m.gradients.get(f"input {i}") for i in range(len(r.input_names)))
            for lower, upper in pairwise(keys):  # layers within one scan
                down = [g for (a, b), g in m.sent.items() if a in _new(boxes[upper]) and b in _new(boxes[lower])]
                self.inward[upper][p] = self.upward[lower][p] = _whole(down)

    def _begin(self, boxes: Mapping[str, Sequence[int]], m: StepGradients) -> None:
        """The first states, of which those of one size stand together."""
        for k, slots in boxes.items():
            for found, known in ((self.values, m.values), (self.gradients, m.gradients)):
                rows = [a[0] for i in slots if (a := known.get(f"state {i}")) is not None]
                if len(rows) == len(slots) and len({a.shape for a in rows}) == 1:
                    found[f"{k}-{START}", None] = rows[0] if len(rows) == 1 else np.stack(rows)
            self.norms[f"{k}-{START}"] = {0: _whole(m.gradients.get(f"state {i}") for i in slots)}


def _new(slots: Sequence[int]) -> list[str]:
    return [f"new {i}" for i in slots]


def _is_of(r: Recurrence, path: str) -> bool:
    return r.name == path or not path or r.name.startswith((f"{path}.", f"{path}#"))


def _whole(parts: Iterator[Any] | Sequence[Any]) -> float | None:
    """The norm of several gradients together; None where there is none."""
    return _hypot(None if g is None else float(np.linalg.norm(g)) for g in parts)


def _hypot(norms: Iterable[float | None]) -> float | None:
    known = [n for n in norms if n is not None]
    return float(np.hypot.reduce(known)) if known else None
