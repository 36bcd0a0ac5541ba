"""Where the boxes of a model over time stand: a column for every step, a row for every box, lanes beside the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..cells.paper import pretty
from .canvas import Canvas, Size
from .model_flow import ModelFlow, Place
from .names import at_step
from .scene import Point, text_width
from .steps import shown_steps
from .tile import box_size
from .timing import Timing
from .wiring import LAST, Wired

LANE = 9.0    # from wire to wire beside a column
STUB = 7.0    # how far a wire runs straight from a box before it turns


@dataclass
class Shown:
    """A model over so many steps, its loss in words, and the numbers of a run."""

    model: Wired
    timing: Timing
    lengths: dict[int, int]   # of every sequence that has steps
    feedback: bool            # whether the output is the next input
    loss: str | None
    flow: ModelFlow | None
    at_end: bool = False      # whether the loss reads the last output alone


@dataclass
class Lanes:
    """Wires that pass boxes of their column: how many on either side of it."""

    left: list[tuple[str, str]] = field(default_factory=list)
    right: list[tuple[str, str]] = field(default_factory=list)

    def of(self, edge: tuple[str, str]) -> int:
        """-1, -2, ... to the left of the column, 1, 2, ... to the right, 0 straight up."""
        if edge in self.left:
            return -1 - self.left.index(edge)
        return 1 + self.right.index(edge) if edge in self.right else 0


class Columns:
    """Columns from left to right, rows from bottom to top, and the size of every box."""

    def __init__(self, shown: Shown, timing: Timing, show: str | Sequence[int], canvas: Canvas) -> None:
        self.timing, self.lengths, self.canvas = timing, shown.lengths, canvas
        self.feedback, self.loss, self.flow, self.at_end = shown.feedback, shown.loss, shown.flow, shown.at_end
        self.columns = {s: _columns(n, show) for s, n in self.lengths.items()}
        self.rows = [timing.rows(s) for s in range(timing.count)]
        self.row = {k: i for rows in self.rows for i, k in enumerate(rows)}
        self.row |= {k: self.row[timing.readers[k][0]] for k in timing.joints}
        self.lanes, self.home = self._lanes(), _homes(timing, self.lengths)
        self.size = {k: canvas.turned(box_size(self._widest(k), canvas)) for k in timing.boxes}
        self.x: dict[tuple[int, int], float] = {}   # the middle of every column; 0 where a sequence has no steps
        self.gaps: list[tuple[int, float, list[int]]] = []
        self.joint: dict[str, float] = {}
        self.ends_of: dict[int, tuple[float, float]] = {}
        self.loss_size = canvas.turned(box_size([self.loss or ""], canvas))
        self.memory_size = canvas.turned(box_size([self.memory(max(self.lengths.values(), default=1))], canvas))
        self.width = max(self._place_columns(), self.loss_size[0])
        self.y: list[float] = []
        self.height = self._place_rows()

    # ---- text

    def label(self, k: str, p: int | None) -> str:
        """What stands in a box at a step."""
        b = self.timing.boxes[k]
        if not b.symbol:
            return b.label
        if p is None or self._only(k):
            return b.symbol.partition("ₜ")[0]
        earlier = p > 1 and self.feedback and k == self.timing.fed
        if b.first and p == 1:
            return b.first
        return at_step(b.symbol, p) if not earlier else at_step(self.timing.boxes[self.timing.output].symbol, p - 1)

    def _only(self, k: str) -> bool:
        """Whether a box stands at the one step of a model without recurrence."""
        return self.lengths.get(self.timing.sequence[k]) == 1 and not any(b.direction for b in self.timing.boxes.values())

    def _widest(self, k: str) -> list[str]:
        s = self.timing.sequence[k]
        steps: list[int | None] = [1, self.lengths[s]] if k in self.timing.each and s in self.lengths else [None]
        return [max((self.label(k, p) for p in steps), key=lambda t: text_width(t, self.canvas.font))]

    def state(self, k: str, p: int) -> str:
        """The states that a recurrent box reads at a step."""
        b = self.timing.boxes[k]
        return " ".join(at_step(pretty(s), p, 1 if b.direction == "forward" else -1) for s in b.states)

    @staticmethod
    def memory(steps: int) -> str:
        """What stands in a box for all outputs of a sequence."""
        return f"all {steps} outputs"

    def start_size(self, k: str) -> Size:
        """The box of the first states of a recurrent layer."""
        return self.canvas.turned(box_size([self.state(k, self.order(k)[0])], self.canvas))

    # ---- columns

    def _lanes(self) -> Lanes:
        """Wires that pass boxes between their ends: to a layer that reads on the right, from one on the left."""
        found = Lanes()
        for a, b in self.timing.edges():
            rows = self.rows[self.timing.sequence[b]]
            if self.timing.sequence[a] != self.timing.sequence[b] or a not in rows or b not in rows:
                continue
            passed = any(k in self.timing.each for k in rows[rows.index(a) + 1 : rows.index(b)])
            if passed and a in self.timing.each and b not in self.timing.bars:
                (found.right if self.timing.boxes[b].direction else found.left).append((a, b))
        return found

    def widest(self, s: int) -> float:
        """The width of a column."""
        return max((self.size[k][0] for k in self.rows[s] if k not in self.timing.bars), default=0.0)

    def beside(self, k: str, sign: int) -> float:
        """How far the lanes beside a column reach from the edge of a box."""
        lanes = self.lanes.right if sign > 0 else self.lanes.left
        return (self.widest(self.timing.sequence[k]) - self.size[k][0]) / 2 + LANE * len(lanes)

    def order(self, k: str) -> list[int]:
        """The steps in the order in which a box visits them."""
        steps = list(range(1, self.lengths[self.timing.sequence[k]] + 1))
        return steps[::-1] if self.timing.boxes[k].direction == "backward" else steps

    def shown(self, s: int) -> list[int]:
        return [p for p, _ in self.columns[s] if p is not None]

    def _place_columns(self) -> float:
        """The middle of every column; returns the width of all."""
        canvas, timing = self.canvas, self.timing
        recurrent = [k for k, b in timing.boxes.items() if b.direction]
        labels = [canvas.turned((text_width(self.state(k, p), canvas.font), canvas.line))[0]
                  for k in recurrent for p in self.shown(timing.sequence[k])]
        self.named = canvas.tight == 1  # where there is little room, wires of states have no names
        self.label_room = max(labels, default=0.0) + 12 if self.named else 0.0
        self.crossing = LANE * (bool(timing.wiring.queries) + self.feedback)
        left, right = LANE * len(self.lanes.left), LANE * len(self.lanes.right)
        self.gutter = left + right + max(self.label_room + self.crossing + canvas.gap(10.0), canvas.gap(26.0))
        x = 0.0
        for s in range(timing.count):
            wide = self.widest(s)
            begun = {b.direction for k, b in timing.boxes.items() if timing.sequence[k] == s and not timing.starts(k)}
            edge = max([0.0, *(self.start_size(k)[0] for k in recurrent if timing.sequence[k] == s)]) + canvas.gap(14.0)
            x += edge + left if "forward" in begun else left
            first = x
            for p, missing in self.columns.get(s, [(0, [])]):
                room = wide if not missing else canvas.turned(box_size([f"{len(missing)} steps"], canvas))[0]
                if missing:
                    self.gaps.append((s, x + room / 2, missing))
                elif p is not None:
                    self.x[s, p] = x + room / 2
                x += room + self.gutter
            x += right - self.gutter
            self.ends_of[s] = first - left, x
            x += edge if "backward" in begun else 0.0
            x = self._place_joints(s, x)
        return x

    def _place_joints(self, s: int, x: float) -> float:
        """What stands between two sequences: the first states of the second, and wires that go round to it."""
        joints = [k for k in self.timing.joints if self.timing.sequence[k] == s]
        if s == self.timing.count - 1:
            return x
        wires = sum(len(self.timing.boxes[k].reads) for k in joints) + 2 * bool(self.timing.memories)
        wide = max((self.size[k][0] for k in joints), default=0.0)
        x += LANE * wires + 12
        self.joint |= dict.fromkeys(joints, x + wide / 2)
        return x + wide + self.label_room + self.crossing + self.canvas.gap(12.0)

    # ---- rows

    def _place_rows(self) -> float:
        """The middle of every row, and the height of all; a sequence that is looked back at has its memory on top."""
        canvas, timing = self.canvas, self.timing
        self.memory_row = {k: len(self.rows[timing.sequence[k]]) + i for i, k in enumerate(timing.memories)}
        self.loss_row = self.row[timing.output] + 1
        many = max([*self.row.values(), *self.memory_row.values(), self.loss_row if self.loss else 0]) + 1
        own = [(self.size[k][1], i) for k, i in self.row.items()] + [(self.memory_size[1], i) for i in self.memory_row.values()]
        own += [(self.loss_size[1], self.loss_row)] if self.loss else []
        tall = [max(h for h, i in own if i == r) for r in range(many)]
        gap = canvas.gap(26.0) + 4
        self.above = gap
        back = [k for j in timing.joints for k in timing.boxes[j].reads if timing.boxes[k].direction == "backward"]
        over = STUB + 8 if any(self.row[k] == many - 1 for k in back) else 0  # a wire goes over the last row
        total = sum(tall) + gap * (many - 1) + over
        y = total
        for t in tall:
            self.y.append(y - t / 2)
            y -= t + gap
        return total

    def at(self, place: Place) -> Point:
        """The middle of a box."""
        k, p = place
        s = self.timing.sequence[k]
        if k in self.joint:
            return self.joint[k], self.y[self.row[k]]
        if k in self.timing.bars or self.home.get(k) == 0:
            return sum(self.ends_of[s]) / 2, self.y[self.row[k]]
        return self.x[s, self.home[k] if p is None else p], self.y[self.row[k]]


def _homes(timing: Timing, lengths: dict[int, int]) -> dict[str, int]:
    """The step above which a box stands that is there once; 0 is the middle of all steps."""
    home: dict[str, int] = {}
    for k in timing.once:
        b = timing.boxes[k]
        if k in timing.before or any(r in timing.bars for r in b.reads):
            home[k] = 0
        elif any(timing.boxes[r].direction == "backward" and (timing.boxes[r].ended or b.time == LAST) for r in b.reads):
            home[k] = 1
        else:
            home[k] = next((home[r] for r in b.reads if r in home), lengths.get(timing.sequence[k], 0))
    return home


def _columns(steps: int, show: str | Sequence[int]) -> list[tuple[int | None, list[int]]]:
    """Steps, and runs of steps that are not shown."""
    places = shown_steps(range(1, steps + 1), show)
    out: list[tuple[int | None, list[int]]] = []
    for before, p in pairwise([0, *places, steps + 1]):
        out += [(None, list(range(before + 1, p)))] if p - before > 1 else []
        out += [(p, [])] if p <= steps else []
    return out
