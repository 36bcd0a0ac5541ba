"""Unrolled pictures: one step is laid out once and repeated, so that every step looks the same.

The result is ordinary DOT with positions; any Graphviz draws it as it stands (`-Knop2`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from typing import Any

from ..cells import Cell
from ..errors import ArgumentError
from . import renderer
from .items import Item, at_step, pretty
from .picture import Picture, escape, item_size, step_items, weight_lines
from .theme import LIGHT

MAX_STEPS = 60
GAP, ROW = 46.0, 15.0
HEAD = 6.0  # length of an arrow head in points
Point = tuple[float, float]


@dataclass
class Tile:
    """The layout of one step: centres of items and the curves between them, in points, y upwards."""

    items: dict[str, Item]
    centre: dict[str, Point]
    curves: dict[tuple[str, str], list[Point]]
    width: float
    height: float


def lay_out(cell: Cell) -> Tile:
    """One step, placed by dot: what comes in on the left, states on the right in fixed rows."""
    rows = _rows(cell)
    items = _with_exits(step_items(cell), [pretty(f"{n}[t]") for n in rows])
    p = Picture("")
    for item in items.values():
        p.item(p.dot, item)
        for s in item.sources:
            p.forward(s, item.key)
    leaving = [_leaving(items, pretty(f"{n}[t]")) for n in rows]
    arriving = [i.key for line in _arriving(cell, rows) for i in items.values() if i.kind == "input" and i.lines[0] == line]
    for keys, rank in ((arriving, "min"), (leaving, "max")):
        with p.dot.subgraph() as same:
            same.attr(rank=rank)
            for a, b in pairwise(keys):
                same.edge(a, b, style="invis")
    return _read(json.loads(renderer.render(p.dot.source, "json")), items)


def _with_exits(items: dict[str, Item], lines: Sequence[str]) -> dict[str, Item]:
    """A state that is read within its own step gets a point on the right edge through which it leaves."""
    read = {s for item in items.values() for s in item.sources}
    exits = {f"exit-{k}": Item(f"exit-{k}", "exit", i.lines, None, [k]) for k, i in items.items()
             if i.kind == "state" and i.lines[0] in lines and k in read}
    return {**items, **exits}


def _leaving(items: Mapping[str, Item], line: str) -> str:
    """Where a state leaves its step: its exit, else itself."""
    found = [k for k, i in items.items() if i.kind in ("state", "exit") and i.lines[0] == line]
    return found[-1]


def _rows(cell: Cell) -> list[str]:
    """States from top to bottom: inner ones first, the output last."""
    shown = [*cell.states, *(o for o in cell.outputs if o not in cell.states)]
    return sorted(shown, key=lambda n: n in cell.outputs)


def _arriving(cell: Cell, rows: Sequence[str]) -> list[str]:
    past = [pretty(f"{n}[t-{k}]") for n in (*rows, *cell.inputs) for m, k in cell.slots if m == n]
    return [*past, *(pretty(f"{n}[t]") for n in cell.inputs)]


def _read(layout: Mapping[str, Any], items: dict[str, Item]) -> Tile:
    objects = [o for o in layout.get("objects", []) if o.get("name") in items]
    centre = {o["name"]: _points(o["pos"])[0] for o in objects}
    names = {o["_gvid"]: o["name"] for o in objects}
    curves = {(names[e["tail"]], names[e["head"]]): _curve(e["pos"]) for e in layout.get("edges", [])
              if "pos" in e and e.get("style") != "invis"}
    _, _, width, height = map(float, layout["bb"].split(","))
    return Tile(items, centre, curves, width, height)


def _points(text: str) -> list[Point]:
    return [(float(x), float(y)) for x, y in (part.split(",")[-2:] for part in text.split())]


def _curve(pos: str) -> list[Point]:
    """A spline's control points, its arrow's tip at the end."""
    tip, *rest = pos.split()
    return [*_points(" ".join(rest)), *_points(tip)] if tip.startswith("e,") else _points(pos)


def unrolled(cell: Cell, steps: int, gradients: bool, colours: Mapping[str, str] = LIGHT) -> str:
    """DOT with positions: a row of equal steps, the shared parameters above, the loss below."""
    if isinstance(steps, bool) or not 1 <= steps <= MAX_STEPS:
        raise ArgumentError(f"steps={steps!r}: a picture shows 1 to {MAX_STEPS} steps")
    return _Row(cell, steps, gradients, colours).source()


class _Row:
    def __init__(self, cell: Cell, steps: int, gradients: bool, colours: Mapping[str, str]) -> None:
        self.cell, self.steps, self.gradients, self.tile = cell, steps, gradients, lay_out(cell)
        self.p = Picture("", colours)
        self.colours = colours
        self.pitch = self.tile.width + 2 * 12 + GAP
        self.left = 60.0
        self.bottom = 70.0 if gradients else 10.0
        self.right = self.left + steps * self.pitch
        self.top = self.bottom + self.tile.height + 34

    def source(self) -> str:
        for t in range(1, self.steps + 1):
            self._step(t)
        self._rails()
        box = self._parameters()
        if self.gradients:
            self._loss()
        width, height = self.right, box + 26
        title = f"{self.cell.title}: {self.steps} steps unrolled" + (", with gradients" if self.gradients else "")
        self._text("title", [title], (self.left, height - 4))
        key = "solid blue: forward" + ("     dashed orange: gradient" if self.gradients else "")
        self._text("key", [key], (self.left, box + 6))
        self.p.dot.attr(bb=f"0,0,{width:.1f},{height + 10:.1f}", label="")
        return str(self.p.dot.source)

    # ---- one step

    def _at(self, key: str, t: int) -> Point:
        return self._shift(self.tile.centre[key], t)

    def _step(self, t: int) -> None:
        x0, y0 = self.left + (t - 1) * self.pitch - 12, self.bottom
        with self.p.dot.subgraph(name=f"cluster_{t}") as c:
            label_at = f"{x0 + 30:.1f},{y0 + self.tile.height + 24:.1f}"
            c.attr(label=f"t = {t}", style="rounded,filled", fillcolor=self.colours["panel"], color=self.colours["line"],
                   bb=f"{x0:.1f},{y0:.1f},{x0 + self.tile.width + 24:.1f},{y0 + self.tile.height + 34:.1f}", lp=label_at,
                   fontsize="12", id=f"step-{t}")
            for key, item in self.tile.items.items():
                self.p.item(c, _moved(item, t), _name(key, t), item_size(item), pos=_pos(self._at(key, t)))
        for (a, b), curve in self.tile.curves.items():
            self._edge(_name(a, t), _name(b, t), [self._shift(p, t) for p in curve])

    def _shift(self, p: Point, t: int) -> Point:
        return p[0] + self.left + (t - 1) * self.pitch, p[1] + self.bottom + 10

    # ---- between steps: the state that leaves one step arrives at the next

    def _rails(self) -> None:
        arriving = {i.lines[0]: k for k, i in self.tile.items.items() if i.kind == "input"}
        for n, k in self.cell.slots:
            past = arriving.get(pretty(f"{n}[t-{k}]"), "")
            given = n in self.cell.inputs
            now = arriving.get(pretty(f"{n}[t]"), "") if given else _leaving(self.tile.items, pretty(f"{n}[t]"))
            if not past or not now:  # an input that is only read later has no box of its own step
                continue
            for t in range(1, self.steps + 1 - k):
                curve = self._next(now, past, t) if k == 1 and not given else self._over(now, past, t, k, given)
                self._edge(_name(now, t), _name(past, t + k), curve)

    def _side(self, key: str, t: int, side: int) -> Point:
        """The middle of an item's right (+1) or left (-1) edge."""
        x, y = self._at(key, t)
        return x + side * item_size(self.tile.items[key])[0] / 2, y

    def _next(self, now: str, past: str, t: int) -> list[Point]:
        """From the right edge of a step to the left edge of the next."""
        a, b = self._side(now, t, 1), self._side(past, t + 1, -1)
        middle = (a[0] + b[0]) / 2
        return [a, (middle, a[1]), (middle, b[1]), (b[0] - HEAD, b[1]), b]

    def _over(self, now: str, past: str, t: int, k: int, given: bool) -> list[Point]:
        """Several steps ahead: up through the gap beside the step, over the tops, down before the step that reads it."""
        a, b = self._side(now, t, -1 if given else 1), self._side(past, t + k, -1)
        left = self.left - 12 + (t - 1 if given else t) * self.pitch - GAP / 2 + 4 * (k - 1)
        right = self.left - 12 + (t + k - 1) * self.pitch - GAP / 2 - 4 * k
        high = self.top + 8 + 3 * ((t + k) % 3)
        return [*_polyline([a, (left, a[1]), (left, high), (right, high), (right, b[1]), (b[0] - HEAD, b[1])]), b]

    def _edge(self, a: str, b: str, curve: list[Point]) -> None:
        *spline, tip = curve
        if b.startswith("exit-"):
            self.p.dot.edge(a, b, pos=" ".join(map(_pos, [*spline[:-1], tip])), arrowhead="none")
        else:
            self.p.dot.edge(a, b, pos=f"e,{_pos(tip)} " + " ".join(map(_pos, spline)))
        after_the_end = b.startswith("exit-") and b.endswith(f"_{self.steps}")  # nobody reads it, so nothing comes back
        if self.gradients and not after_the_end:
            self._way_back(b, a, curve)

    def _way_back(self, a: str, b: str, curve: list[Point]) -> None:
        """The same curve beside itself, in the other direction."""
        *spline, tip = curve
        nx, ny = _normal(spline[0], tip)
        back = [(x + 4.5 * nx, y + 4.5 * ny) for x, y in reversed(spline)]
        end, before = back[-1], back[-2]
        length = hypot(end[0] - before[0], end[1] - before[1]) or 1.0
        back[-1] = (end[0] + (before[0] - end[0]) * HEAD / length, end[1] + (before[1] - end[1]) * HEAD / length)
        self.p.backward(a, b, pos=f"e,{_pos(end)} " + " ".join(map(_pos, back)))

    # ---- what all steps share

    def _parameters(self) -> float:
        heading, *entries = weight_lines(self.cell, f"parameters, shared by {self.steps} steps")
        width = self.right - self.left - GAP
        lines = [heading, *_filled(entries, min(int(width / 6.0), 150))]
        if self.gradients:
            lines.append(f"the gradient of each is a sum over the steps: dL/dW = Σ (its part at t), t = 1..{self.steps}")
        height = ROW * len(lines) + 10
        y = self.top + 26 + height / 2
        self.p.note("parameters", lines, "legend", pos=_pos((self.left + width / 2 - 12, y)), width=f"{(width + 24) / 72:.3f}",
                    height=f"{height / 72:.3f}", fixedsize="true", id="parameters")
        for t in range(1, self.steps + 1):
            x = self.left + (t - 1) * self.pitch + self.tile.width / 2
            low, high = self.top, y - height / 2
            anchor = f"shared{t}"
            self.p.dot.node(anchor, "", shape="point", width="0.01", pos=_pos((x, low)))
            self.p.dot.edge("parameters", anchor, pos=_straight((x - 5, high), (x - 5, low)))
            if self.gradients:
                self.p.backward(anchor, "parameters", pos=_straight((x + 5, low), (x + 5, high)), id=f"gradient-of-step-{t}")
        return y + height / 2

    def _loss(self) -> None:
        outputs = [k for o in self.cell.outputs for k, i in self.tile.items.items()
                   if i.kind == "state" and i.lines[0] == pretty(f"{o}[t]")]
        names = " + ".join(f"Σ {o}" for o in self.cell.outputs)
        width = self.right - self.left - GAP
        self.p.dot.node("loss", escape(f"L  (here: {names} over all steps)"), shape="box", style="filled,rounded",
                        fillcolor=self.colours["loss"], pos=_pos((self.left + width / 2 - 12, 18)),
                        width=f"{(width + 24) / 72:.3f}", height="0.36", fixedsize="true", id="loss")
        for t in range(1, self.steps + 1):
            for k in outputs:
                x, y = self._at(k, t)
                low = y - item_size(self.tile.items[k])[1] / 2
                self.p.dot.edge(_name(k, t), "loss", pos=_straight((x - 5, low), (x - 5, 31)))
                self.p.backward("loss", _name(k, t), pos=_straight((x + 5, 31), (x + 5, low)))

    def _text(self, key: str, lines: Sequence[str], at: Point) -> None:
        width = max(map(len, lines)) * 6.2
        label = "".join(escape(line) + r"\l" for line in lines)
        self.p.dot.node(key, label, shape="plaintext", style="", pos=_pos((at[0] + width / 2 - 18, at[1])),
                        width=f"{width / 72:.3f}", height="0.2", fixedsize="true")


def _name(key: str, t: int) -> str:
    return f"{key}_{t}"


def _moved(item: Item, t: int) -> Item:
    """An item at its step: `hₜ₋₁` becomes h₂ when t is 3."""
    return Item(item.key, item.kind, [at_step(line, t) for line in item.lines], t, item.sources, item.weights)


def _pos(p: Point) -> str:
    return f"{p[0]:.1f},{p[1]:.1f}"


def _straight(a: Point, b: Point) -> str:
    """A straight arrow from a to b."""
    length = hypot(b[0] - a[0], b[1] - a[1]) or 1.0
    end = (b[0] - (b[0] - a[0]) * HEAD / length, b[1] - (b[1] - a[1]) * HEAD / length)
    third = [(a[0] + (end[0] - a[0]) * f, a[1] + (end[1] - a[1]) * f) for f in (0, 1 / 3, 2 / 3, 1)]
    return f"e,{_pos(b)} " + " ".join(map(_pos, third))


def _polyline(points: Sequence[Point]) -> list[Point]:
    """Straight segments as the control points of one spline."""
    out = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        out += [(x0 + (x1 - x0) / 3, y0 + (y1 - y0) / 3), (x0 + (x1 - x0) * 2 / 3, y0 + (y1 - y0) * 2 / 3), (x1, y1)]
    return out


def _normal(a: Point, b: Point) -> Point:
    """The unit vector to the right of the way from a to b."""
    length = hypot(b[0] - a[0], b[1] - a[1]) or 1.0
    return (b[1] - a[1]) / length, -(b[0] - a[0]) / length


def _filled(entries: Sequence[str], columns: int) -> list[str]:
    """Entries side by side in lines of at most so many characters."""
    lines: list[str] = []
    for entry in entries:
        if lines and len(lines[-1]) + len(entry) + 5 <= columns:
            lines[-1] += "     " + entry
        else:
            lines.append(entry)
    return lines
