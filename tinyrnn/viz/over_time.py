"""A model over time: a column of boxes for every step, x below and y above, states from column to column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..analysis.subject import UNAIMED, Loss, Model, Subject
from ..errors import ArgumentError, ShapeError
from ..losses import loss_named
from ..shapes import checked_count
from .canvas import Canvas, Piece, Size, composed
from .columns import LANE, STUB, Columns, Shown
from .key import decade_scale, says, stroke
from .model_flow import START, ModelFlow, Place
from .models import opening, wired
from .scene import BoxShape, Part, Point, Scene, Wire, Words, straight
from .steps import gradient_wire
from .tile import box_size
from .timing import Timing
from .wiring import BEGINS, ENDS, Wired, count_of

Steps = int | list[int] | tuple[int, ...] | None  # of one sequence, or of each of them


def of_model(model: Wired, steps: Steps, gradients: bool, values: Mapping[str, Any] | None, loss: Loss,
             feedback: bool, limits: tuple[float, float] | None) -> Shown:
    """What a picture shows of a model; with `gradients` it is run on `values` (x, y, lengths), or on an example."""
    timing, given = Timing(wired(model)), dict(values or {})
    _check(model, timing, given, gradients, feedback)
    if given:
        _as_rows(model, timing, given)
    counts = _counts(model, timing, steps, given)
    lengths, flow = dict(zip(timing.stepping, counts, strict=True)), None
    if gradients:
        x = given.pop("x") if "x" in given else _example(model, timing, counts)
        subject = model.subject(x, given.pop("y", None), loss=loss, **given)
        flow = ModelFlow(model, timing, subject, lengths)
        if limits is not None:
            flow.flow.on_scale(*limits)
    text = None if loss is None and flow is None else flow.flow.loss_text if flow else loss_text(loss)
    return Shown(model, timing, lengths, feedback, text, flow, loss == "last")


def _check(model: Model, timing: Timing, given: Mapping[str, Any], gradients: bool, feedback: bool) -> None:
    """Whether the options of a picture go together, and with the model."""
    unknown = [k for k in given if k not in ("x", "y", "lengths")]
    if unknown:
        raise ArgumentError(f"values: a model is run on x, y and lengths, got {unknown[0]!r}")
    if given and not gradients:
        raise ArgumentError("values belong to a run: ask for gradients=True")
    if given and "x" not in given:
        raise ArgumentError("values: y and lengths belong to data x, which is not given")
    reads = len([k for k, b in timing.boxes.items() if b.symbol and not b.reads])
    if given and reads > 1 and (not isinstance(given["x"], tuple) or len(given["x"]) != reads):
        raise ArgumentError(f"values: {type(model).__name__} reads {reads} sequences, so x is a tuple of {reads} arrays")
    if feedback:
        _check_feedback(timing, gradients)


def _as_rows(model: Model, timing: Timing, given: dict[str, Any]) -> None:
    """One sequence alone is one row."""
    try:
        arrays = [np.asarray(a) for a in (given["x"] if isinstance(given["x"], tuple) else (given["x"],))]
    except ValueError:
        raise ArgumentError("values: x is no array of numbers") from None
    try:
        found = model.example(1, *(() if timing.before else [2] * sum(_repeated(timing, s) is None for s in timing.stepping)))
    except ArgumentError:  # of a model whose code alone knows what it reads
        return
    wanted = [a.ndim for a in (found if isinstance(found, tuple) else (found,))]
    if [a.ndim + 1 for a in arrays] == wanted:
        axis = 1 if model.reads_time_first() and not timing.before else 0
        rows = tuple(np.expand_dims(a, axis) for a in arrays)
        given["x"] = rows if isinstance(given["x"], tuple) else rows[0]
        for k, at in (("y", axis), ("lengths", 0)):
            if k in given:
                given[k] = np.expand_dims(np.asarray(given[k]), at)


def _check_feedback(timing: Timing, gradients: bool) -> None:
    fed = timing.fed
    if fed is None or not (timing.gives[timing.output] and timing.gives[fed]):
        raise ArgumentError("feedback=True reads every output as the next input: the model has no output or input at each "
                            "step")
    if any(b.direction == "backward" and timing.sequence[k] == timing.sequence[fed] for k, b in timing.boxes.items()):
        raise ArgumentError("feedback=True reads every output as the next input: this model reads its sequence from the end")
    if gradients:
        raise ArgumentError("gradients are of training, in which the targets are read: leave feedback=False")


def of_subject(model: Wired, subject: Subject) -> Shown | None:
    """A run of a model with all that is known of it; None where the boxes of the model do not fit the run."""
    timing = Timing(wired(model))
    axis, arrays = 0 if model.reads_time_first() else 1, subject.inputs
    lengths = {s: (_repeated(timing, s) or (arrays[s].shape[axis] if s < len(arrays) and arrays[s].ndim > axis else 0))
               for s in timing.stepping}
    if not all(lengths.values()) or timing.wiring.opaque:
        return None
    try:
        return Shown(model, timing, lengths, False, "L", ModelFlow(model, timing, subject, lengths))
    except ShapeError:  # what the layers say of themselves is not so
        return None


def loss_text(loss: Loss) -> str:
    """A loss in words."""
    if isinstance(loss, str) and loss not in UNAIMED:
        loss_named(loss)  # raises for a name that means nothing
    return f"L: {loss.replace('_', ' ')}" if isinstance(loss, str) else "L"


def _counts(model: Model, timing: Timing, steps: Steps, given: Mapping[str, Any]) -> list[int]:
    """How many steps every sequence has, as is asked for or as the data say."""
    sequences = timing.stepping
    counts: list[Any] = list(steps) if isinstance(steps, (list, tuple)) else [steps] * len(sequences)
    if len(counts) != len(sequences):
        raise ArgumentError(f"steps={steps!r}: expected {len(sequences)} number{'s' * (len(sequences) != 1)}, one for each "
                            f"sequence of {type(model).__name__}")
    if "x" in given:
        arrays = given["x"] if isinstance(given["x"], tuple) else (given["x"],)
        axis = 0 if model.reads_time_first() else 1
        for i, s in enumerate(sequences):
            if _repeated(timing, s) is None and s < len(arrays) and np.ndim(arrays[s]) > axis:
                n, wanted = np.shape(arrays[s])[axis], counts[i]
                if wanted is not None and n != wanted:
                    raise ShapeError(f"values: x has {n} steps, steps={steps}")
                counts[i] = n
    counts = [_repeated(timing, s) or n for s, n in zip(sequences, counts, strict=True)]
    for n in counts:
        if n is None:
            raise ArgumentError("give steps=, for example steps=4, or data x among the values")
        checked_count("steps", n)
    return [int(n) for n in counts]


def _repeated(timing: Timing, s: int) -> int | None:
    """How many steps a sequence has that the model itself begins."""
    found = (b.count for k, b in timing.boxes.items() if b.time == BEGINS and timing.sequence[k] == s)
    return next(found, None)


def _example(model: Model, timing: Timing, counts: Sequence[int]) -> Any:
    """Random data of the right shape; tokens one after the other."""
    generator = np.random.default_rng(0)
    steps = () if timing.before else [n for s, n in zip(timing.stepping, counts, strict=True) if _repeated(timing, s) is None]
    found = model.example(1, *steps)
    made = [generator.normal(size=a.shape).astype(a.dtype) if a.dtype.kind == "f" else a
            for a in (found if isinstance(found, tuple) else (found,))]
    return tuple(made) if isinstance(found, tuple) else made[0]


def scene(shown: Shown, detail: str, show: str | Sequence[int], canvas: Canvas) -> Scene:
    """The boxes of a model at every step; with a run, the gradient on its way back.

    With detail "block" layers that have no memory are left out.
    """
    timing = Timing(shown.timing.wiring.blocks()) if detail == "block" else shown.timing
    boxes, steps = shown.timing.boxes, list(shown.lengths.values())
    plan = Columns(shown, timing, show, canvas)
    body = _Picture(plan).parts()
    said = " and ".join(f"{n} step{'s' * (n != 1)}" for n in steps)
    title = f"{type(shown.model).__name__}: {count_of(shown.model)}" + (f", {said}" if max(steps, default=1) > 1 else "")
    made = Scene(title, f"{title}. " + "; ".join(", ".join(b.lines) for b in boxes.values()) + ".")
    layers = [", ".join(b.lines) for b in boxes.values() if b.fill not in ("input", "op", "state")]
    heading = "layers, the same at every step" if max(steps, default=1) > 1 else "layers"
    return composed(made, canvas, body, (plan.width, plan.height), _pieces(plan), heading, layers if canvas.parameters else ())


def _pieces(plan: Columns) -> list[Piece]:
    """The key of a picture."""
    canvas, flow = plan.canvas, plan.flow
    pieces = [stroke("forward", "computed from", canvas)]
    if plan.feedback:
        pieces.append(stroke("delay", "read as the next input", canvas))
    if plan.timing.wiring.queries:
        pieces.append(stroke("delay", "the state that asks where to look", canvas))
    if flow is not None:
        pieces += [stroke("backward", "gradient", canvas), *([] if flow.flow.quiet else [decade_scale(flow.flow, canvas)])]
        said = f"L is {flow.flow.caption}" if flow.flow.quiet else f"{flow.flow.loss_text}, {flow.flow.caption}"
        pieces += says(said, canvas)
    if not plan.feedback and any("*" in b.symbol for b in plan.timing.boxes.values()):
        pieces += says("y*: the target, read one step late (teacher forcing)", canvas)
    return pieces


# ---- boxes and wires

class _Picture:
    """The parts of a picture whose places are known."""

    def __init__(self, plan: Columns) -> None:
        self.plan, self.timing, self.canvas = plan, plan.timing, plan.canvas
        self.boxes: list[Part] = []
        self.wires: list[Part] = []

    def parts(self) -> list[Part]:
        """Everything; y grows downwards, and where time runs down layers run to the right."""
        self._boxes()
        for a, b in self.timing.edges():
            self._edge(a, b)
        for k, box in self.timing.boxes.items():
            if box.direction:
                self._states(k)
        for decoder, attention in self.timing.wiring.queries:
            self._queries(decoder, attention)
        if self.plan.feedback:
            self._feedback()
        if self.plan.loss:
            self._loss(self.plan.loss)
        if self.canvas.down:
            flip([*self.wires, *self.boxes], self.plan.height)
        return [*self.wires, *self.boxes]

    # ---- boxes

    def places(self, k: str) -> list[Place]:
        """Where a box stands."""
        if k in self.timing.each:
            return [(k, p) for p in self.plan.shown(self.timing.sequence[k])]
        return [(k, None)]

    def _boxes(self) -> None:
        for k in self.timing.boxes:
            for place in self.places(k):
                self._box(place)
        for s, x, missing in self.plan.gaps:
            rows = [k for k in self.plan.rows[s] if self.timing.boxes[k].direction]
            for k in rows:
                wide = self.canvas.turned(box_size([f"{len(missing)} steps"], self.canvas))
                title = f"steps {missing[0]} to {missing[-1]}, not shown"
                self.boxes.append(BoxShape(f"{k}-gap", (x, self.plan.y[self.plan.row[k]]), wide, [f"{len(missing)} steps"],
                                           "panel", title, classes="gap", dashed=True, font=self.canvas.font))

    def _box(self, place: Place) -> None:
        k, p = place
        plan, b = self.plan, self.timing.boxes[k]
        size = plan.size[k]
        if k in self.timing.bars:
            left, right = plan.ends_of[self.timing.sequence[k]]
            size = max(right - left, size[0]), size[1]
        title = ", ".join(b.lines) + (f", at step {p}" if p is not None else "")
        self._add(place, plan.at(place), size, plan.label(k, p), b.fill, title, square=b.fill == "input",
                  classes=opening(b))

    def _add(self, place: Place, at: Point, size: Size, text: str, fill: str | None, title: str, square: bool = False,
             classes: str = "") -> None:
        flow = self.plan.flow
        if flow is not None and flow.knows(place):
            norm = flow.norm(place)
            shade = flow.flow.shade(norm)
            fill = None if shade is None else f"q{shade}"
            if not flow.flow.quiet:
                title += ", no gradient" if norm is None else f", ‖∂L/∂‖ = {norm:.3e}"
        self.boxes.append(BoxShape(key_of(place), at, size, [text] if text else [], fill, title, square=square, classes=classes,
                                   font=self.canvas.font))

    # ---- wires

    def _wire(self, source: Place, reader: Place, route: Sequence[Point], title: str, kind: str = "forward",
              sent: float | None = None) -> None:
        key, ends = f"{key_of(source)}-{key_of(reader)}", (key_of(source), key_of(reader))
        self.wires.append(Wire(f"f-{key}", ends, route, kind, title))
        flow = self.plan.flow
        if flow is not None and kind == "forward":
            what = f"what {self._name(reader)} sends back to {self._name(source)}"
            sent = flow.sent(source, reader) if sent is None else sent
            self.wires += gradient_wire(f"b-{key}", ends, route, sent, flow.flow, what)

    def _name(self, place: Place) -> str:
        k, p = place
        label = self.plan.label(k, p) if k in self.timing.boxes else k.partition("-")[0]
        return label if p is None or (k in self.timing.boxes and self.timing.boxes[k].symbol) else f"{label} of step {p}"

    def _edge(self, a: str, b: str) -> None:
        """All wires between two boxes of the wiring."""
        timing = self.timing
        if timing.sequence[a] != timing.sequence[b]:
            if a in timing.bars or (a in timing.joints and not timing.boxes[b].direction):
                self._beside((a, None), (b, None))
            elif a not in timing.joints:  # from those its states begin
                self._across(a, b)
        elif a in timing.each and b in timing.each:
            for p in self.plan.shown(timing.sequence[a]):
                self._up((a, p), (b, p), self.plan.lanes.of((a, b)))
        elif a in timing.each and b in timing.bars:
            for p in self.plan.shown(timing.sequence[a]):
                self._up((a, p), (b, None), 0)
        elif a in timing.bars and b in timing.each:
            for p in self.plan.shown(timing.sequence[b]):
                self._up((a, None), (b, p), 0)
        elif a in timing.each:
            self._ending(a, b)
        elif b in self.plan.joint:
            self._round((a, None), (b, None))
        else:
            self._up((a, None), (b, None), 0)

    def _beside(self, source: Place, reader: Place) -> None:
        """From the end of one sequence to where the next one begins."""
        plan, (x, y) = self.plan, self.plan.at(source)
        left, low = plan.ends_of[self.timing.sequence[reader[0]]][0], plan.y[plan.row[reader[0]]]
        bar = source[0] in self.timing.bars
        right = plan.ends_of[self.timing.sequence[source[0]]][1] if bar else x + plan.size[source[0]][0] / 2
        turn = [(right + LANE, y), (right + LANE, low)] if abs(y - low) > 1 else []
        self._wire(source, reader, straight((right, y), *turn, (left, low)), self._says(source, reader))

    def _ending(self, a: str, b: str) -> None:
        """From the last step that is read to what is there once."""
        order = self.plan.order(a)
        last = order[-1] if self.timing.boxes[b].time == ENDS or self.plan.home.get(b) == 1 else max(order)
        source, reader = (a, last), (b, None)
        (x, y), (end, low) = self.plan.at(source), self.plan.at(reader)
        if b in self.plan.joint:
            self._round(source, reader)
        elif abs(x - end) < 1:
            self._up(source, reader, self.plan.lanes.of((a, b)))
        else:
            up, bottom = y - self.plan.size[a][1] / 2, low + self.plan.size[b][1] / 2
            level, aside = up - STUB - 5, end + self.plan.size[b][0] / 4
            route = straight((x, up), (x, level), (aside, level), (aside, bottom))
            self._wire(source, reader, route, self._says(source, reader))

    def _says(self, source: Place, reader: Place) -> str:
        return f"{self._name(source)} → {self._name(reader)}"

    def _up(self, source: Place, reader: Place, lane: int) -> None:
        """From a box to one above it, straight or beside what stands between them."""
        (x, y), (end, below) = self.plan.at(source), self.plan.at(reader)
        top, bottom = y - self.plan.size[source[0]][1] / 2, below + self.plan.size[reader[0]][1] / 2
        if source[0] in self.timing.bars or reader[0] in self.timing.bars:
            x = x if reader[0] in self.timing.bars else end
        if not lane:
            self._wire(source, reader, straight((x, top), (x, bottom)), self._says(source, reader))
            return
        side = 1 if lane > 0 else -1
        away = x + side * (self.plan.widest(self.timing.sequence[source[0]]) / 2 + LANE * abs(lane))
        out, into = (x + side * min(self.plan.size[k][0] / 4, 12.0) for k, _ in (source, reader))
        low, high = top - STUB, bottom + STUB
        route = straight((out, top), (out, low), (away, low), (away, high), (into, high), (into, bottom))
        self._wire(source, reader, route, self._says(source, reader))

    def _round(self, source: Place, reader: Place) -> None:
        """From the end of a sequence to what stands behind it; a reading backward ends at the first step and goes over the
        others."""
        (k, _), (x, y), (end, low) = source, self.plan.at(source), self.plan.at(reader)
        wide, high = self.plan.size[k]
        bottom = low + self.plan.size[reader[0]][1] / 2
        reads = self.timing.boxes[reader[0]].reads
        place = [k2 for j in self.timing.joints for k2 in self.timing.boxes[j].reads]
        lane = self.plan.joint[reader[0]] - self.plan.size[reader[0]][0] / 2 - LANE * (len(place) - place.index(k)) - 4
        into = end + (reads.index(k) - (len(reads) - 1) / 2) * 10
        if self.timing.boxes[k].direction == "backward":
            over = y - high / 2 - STUB - 5
            start = [(x - wide / 2, y), (x - wide / 2 - 10, y), (x - wide / 2 - 10, over), (lane, over)]
        else:
            start = [(x + wide / 2, y), (lane, y)]
        turn = bottom + STUB + 5 * reads.index(k)
        self._wire(source, reader, straight(*start, (lane, turn), (into, turn), (into, bottom)), self._says(source, reader))

    def _across(self, a: str, b: str) -> None:
        """From a memory of all steps of one sequence to every step of another."""
        plan, s = self.plan, self.timing.sequence[a]
        left, right = plan.ends_of[s]
        memory: Place = (f"memory-{a}", None)
        y, high = plan.y[plan.memory_row[a]], plan.memory_size[1]
        if not any(isinstance(x, BoxShape) and x.key == key_of(memory) for x in self.boxes):
            self._add(memory, ((left + right) / 2, y), (right - left, high), plan.memory(plan.lengths[s]), "state",
                      "all outputs, among which attention looks")
            for p in plan.shown(s):
                x, top = plan.at((a, p))
                self._wire((a, p), memory, straight((x, top - plan.size[a][1] / 2), (x, y + high / 2)),
                           f"output of step {p}")
        lane = right + LANE
        for p in plan.shown(self.timing.sequence[b]):
            x, low = plan.at((b, p))
            bottom, into = low + plan.size[b][1] / 2, x - min(plan.size[b][0] / 4, 12.0)
            trunk = bottom + STUB + 5
            self._wire(memory, (b, p), straight((right, y), (lane, y), (lane, trunk), (into, trunk), (into, bottom)),
                       f"{self._name((b, p))} looks at all outputs")

    # ---- from step to step

    def _states(self, k: str) -> None:
        """The states of a recurrent layer, from column to column in the order in which it reads."""
        plan, s = self.plan, self.timing.sequence[k]
        order, wide = plan.order(k), plan.size[k][0]
        sign = 1 if self.timing.boxes[k].direction == "forward" else -1
        y, shown = plan.y[plan.row[k]], [p for p in order if p in plan.shown(s)]
        self._start(k, shown[0], sign)
        for a, b in pairwise(shown):
            xa, xb = plan.x[s, a] + sign * wide / 2, plan.x[s, b] - sign * wide / 2
            gap = next((x for t, x, missing in plan.gaps if t == s and min(a, b) < missing[0] < max(a, b)), None)
            if gap is None:
                self._state_wire((k, a), (k, b), (xa, y), (xb, y), sign)
                continue
            half = self.canvas.turned(box_size([f"{abs(b - a) - 1} steps"], self.canvas))[0] / 2
            self._state_wire((k, a), (f"{k}-gap", None), (xa, y), (gap - sign * half, y), sign, after=a)
            self._state_wire((f"{k}-gap", None), (k, b), (gap + sign * half, y), (xb, y), sign)

    def _state_wire(self, source: Place, reader: Place, start: Point, end: Point, sign: int, after: int | None = None) -> None:
        """The states on their way, with their names above them."""
        k = source[0] if after is not None else reader[0]
        p = reader[1] if after is None else after + sign
        assert p is not None
        names = self.plan.state(k, p)
        sent = None if self.plan.flow is None else self.plan.flow.states.get(k, {}).get(p)
        self._wire(source, reader, straight(start, end), f"{names}, read by step {p}", sent=sent)
        aside = self.plan.beside(k, sign) if source[0] == k else 0.0
        if self.plan.named:
            self._words((start[0] + sign * (aside + self.plan.label_room / 2), start[1]), names)

    def _words(self, at: Point, text: str) -> None:
        """A name above a wire, or left of one that runs down."""
        font = self.canvas.font
        if self.canvas.down:
            self.boxes.append(Words((at[0], at[1] + 6), text, "end", size=font))
        else:
            self.boxes.append(Words((at[0], at[1] - 0.75 * font), text, "middle", size=font))

    def _start(self, k: str, p: int, sign: int) -> None:
        """The first states: given by another box, or zero."""
        plan, (x, y), wide = self.plan, self.plan.at((k, p)), self.plan.size[k][0]
        joint = self.timing.starts(k)
        if joint is not None:
            start, says = plan.at((joint, None))[0] + plan.size[joint][0] / 2, f"the first state of {plan.label(k, p)}"
            self._wire((joint, None), (k, p), straight((start, y), (x - wide / 2, y)), says)
            return
        names = plan.state(k, p)
        size = plan.start_size(k)
        edge = x - sign * (wide / 2 + plan.beside(k, -sign) + self.canvas.gap(14.0))
        place: Place = (f"{k}-{START}", None)
        self._add(place, (edge - sign * size[0] / 2, y), size, names, "state", f"{names}: the first state")
        self._wire(place, (k, p), straight((edge, y), (x - sign * wide / 2, y)), f"{names}, read by step {p}")

    def _queries(self, decoder: str, attention: str) -> None:
        """The state before a step asks where to look."""
        plan, s = self.plan, self.timing.sequence[attention]
        steps, joint = plan.shown(s), self.timing.starts(decoder)
        sources: list[Place | None] = [(joint, None) if joint is not None else None, *((decoder, p) for p in steps[:-1])]
        for source, p in zip(sources, steps, strict=True):
            if source is None or (source[1] is not None and p != source[1] + 1):
                continue
            (x, y), (end, low) = plan.at(source), plan.at((attention, p))
            right, into = x + plan.size[source[0]][0] / 2, end - plan.size[attention][0] / 2
            down = y + min(plan.size[source[0]][1] / 4, 5)
            lane = self._gutter(end, s)
            self._wire(source, (attention, p), straight((right, down), (lane, down), (lane, low), (into, low)),
                       f"the state before step {p} asks where to look", kind="delay")

    def _gutter(self, column: float, s: int) -> float:
        """The last lane before a column, for wires that go down."""
        return column - self.plan.widest(s) / 2 - LANE * len(self.plan.lanes.left) - 5

    def _feedback(self) -> None:
        """Every output is the next input."""
        plan, k = self.plan, self.timing.output
        s, fed = self.timing.sequence[k], self.timing.fed
        for a, b in pairwise(plan.shown(s)):
            if fed is None or b != a + 1:
                continue
            (x, y), (end, low) = plan.at((k, a)), plan.at((fed, b))
            lane = self._gutter(end, s) - LANE * bool(self.timing.wiring.queries)
            route = straight((x + plan.size[k][0] / 2, y), (lane, y), (lane, low), (end - plan.size[fed][0] / 2, low))
            self._wire((k, a), (fed, b), route, f"{plan.label(k, a)} is read at step {b}", kind="delay")

    def _loss(self, text: str) -> None:
        """The loss above the outputs that it reads."""
        plan, k = self.plan, self.timing.output
        places = self._read_by_loss(k)
        xs = [plan.at(place)[0] for place in places]
        high = plan.loss_size[1]
        wide = max(xs[-1] - xs[0] + plan.size[k][0], plan.loss_size[0])
        y, middle = plan.y[plan.loss_row], min(max((xs[0] + xs[-1]) / 2, wide / 2), plan.width - wide / 2)
        self.boxes.append(BoxShape("loss", (middle, y), (wide, high), [text], "loss", f"the loss: {text}",
                                   classes="loss", font=self.canvas.font))
        for place, x in zip(places, xs, strict=True):
            top = plan.at(place)[1] - plan.size[k][1] / 2
            self._wire(place, ("loss", None), straight((x, top), (x, y + high / 2)), f"{self._name(place)} is read by the loss")


    def _read_by_loss(self, k: str) -> list[Place]:
        """Which of the outputs that are shown the loss reads."""
        places, flow = self.places(k), self.plan.flow
        if flow is not None and flow.knows(places[0]):
            return [place for place in places if flow.norm(place)] or places[-1:]
        return places[-1:] if self.plan.at_end else places


def key_of(place: Place) -> str:
    return place[0] if place[1] is None else f"{place[0]}-{place[1]}"


def flip(parts: Sequence[Part], height: float) -> None:
    """Bottom up."""
    for p in parts:
        match p:
            case BoxShape() | Words():
                p.at = (p.at[0], height - p.at[1])
            case Wire():
                p.points = [(x, height - y) for x, y in p.points]
