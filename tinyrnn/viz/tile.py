"""One step of a recurrence, laid out: states enter on the left and leave on the right at the same height.

States inside run along the top, outputs along the bottom, gates stand in the order of the text, inputs come from below.  A
block is a step as one box: inputs below it, outputs above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from ..analysis.recurrence import Recurrence
from ..cells import Cell
from ..cells.paper import pretty
from ..ir.node import Node
from ..ir.ops.leaves import INPUT, input_name
from ..search import shortest_path
from .canvas import Canvas, Size
from .items import Extract, Item
from .layered import Arrangement, Layout, lay_out
from .names import spoken
from .scene import Point, clean, text_width

DETAILS = ("block", "gates", "ops")


@dataclass
class Tile:
    """The items of a step and where they stand; for each state, where it enters and where it leaves."""

    recurrence: Recurrence
    items: dict[str, Item]
    layout: Layout
    size: dict[str, Size]
    lines: dict[str, list[str]]
    entries: list[str]
    exits: list[str]
    order: Sequence[str]  # names in the order of the text
    block: bool = False

    @property
    def width(self) -> float:
        return self.layout.width

    @property
    def height(self) -> float:
        return self.layout.height

    @property
    def direction(self) -> int:
        """Of the walk along time: -1 from the end."""
        return -1 if self.recurrence.scan.reverse else 1

    def leaving(self, slot: int) -> tuple[str, list[Point]]:
        """The item from which a state leaves, and its way to the right edge."""
        exit_ = self.exits[slot]
        if self.items[exit_].kind == "exit":
            return self.items[exit_].sources[0], list(self.layout.route[self.items[exit_].sources[0], exit_])
        (x, y), (w, _) = self.layout.at[exit_], self.size[exit_]
        return exit_, [(x + w / 2, y)]

    def outputs(self) -> list[str]:
        """Items that the loss may read: one for every value that leaves, the state by its name where there is one."""
        nodes = dict.fromkeys([*self.recurrence.traced.values(), *self.recurrence.new_states])
        computed = {k: i for k, i in self.items.items() if i.kind not in ("exit", "input", "block")}
        having = {n: [k for k, i in computed.items() if i.node is n] for n in nodes}
        return [next((k for k in keys if self.items[k].kind == "state"), keys[-1]) for keys in having.values() if keys]


def box_size(lines: Sequence[str], canvas: Canvas, widest: float = 24.0) -> Size:
    """Width and height of a box around lines, `widest` in sizes of text; they do not depend on a reader's fonts."""
    wide = max((text_width(line, canvas.font) for line in lines), default=0.0) + 0.9 * canvas.font
    return min(max(2.2 * canvas.font, wide), widest * canvas.font), canvas.line * len(lines) + 0.6 * canvas.font


def tile_of(recurrence: Recurrence, order: Sequence[str] = (), canvas: Canvas | None = None, detail: str = "gates",
            title: str = "") -> Tile:
    """The step of a recurrence, laid out; `order` is the order of the gates in the text."""
    tiling = _Tiling(recurrence, order, canvas or Canvas(), detail == "ops")
    return tiling.block(title) if detail == "block" else tiling.tile()


class _Tiling:
    def __init__(self, recurrence: Recurrence, order: Sequence[str], canvas: Canvas, every: bool) -> None:
        self.recurrence, self.order, self.canvas, self.every = recurrence, order, canvas, every
        step = recurrence.step
        self.bases = [k.partition("[")[0] for k in recurrence.state_names]
        outputs = dict.fromkeys(recurrence.traced.values())
        labels = {n: label.name for label, n in step.labels.items()}
        self.output_names = [labels[n] for n in outputs if n in labels]
        states = [b for b in dict.fromkeys(self.bases) if b in labels.values()]
        self.names = dict.fromkeys((*states, *self.output_names))
        self.items = Extract(step, recurrence.constants, self.names, every).items
        self.entries = [self._arrival(k) for k in recurrence.state_names]
        self.exits = [self._leaving(k, n) for k, n in enumerate(recurrence.new_states)]

    def _arrival(self, name: str) -> str:
        r = self.recurrence
        node = r.step.inputs.get(name)
        found = next((k for k, i in self.items.items() if i.kind == "input" and i.node is node), None)
        if found is not None:
            return found
        if node is None:  # remembered only to be handed on, or not even that
            handed = (n for n in r.new_states if n.op is INPUT and input_name(n) == name)
            node = next(handed, r.new_states[r.state_names.index(name)])
        key = f"in-{len(self.items)}"
        self.items = {key: Item(key, "input", pretty(name), "", node), **self.items}
        return key

    def _leaving(self, slot: int, node: Node) -> str:
        """The item from which a state leaves: itself where nothing else reads it, else an exit at the right edge."""
        having = [k for k, i in self.items.items() if i.node is node and i.kind != "exit"]
        source = next((k for k in reversed(having) if self.items[k].kind == "state"), having[-1] if having else "")
        if not source:
            name = input_name(node) if node.op is INPUT else ""
            source = next((k for k, i in self.items.items() if i.title == pretty(name)), next(iter(self.items)))
        read = any(source in i.sources for i in self.items.values())
        if not read and self.items[source].kind == "state":
            return source
        key = f"out-{slot}"
        self.items[key] = Item(key, "exit", pretty(f"{self.bases[slot]}[t]"), "", node, [source])
        return key

    def _size(self, k: str, lines: Sequence[str]) -> Size:
        kind, font = self.items[k].kind, self.canvas.font
        size = (0.0, 3.0) if kind == "exit" else (1.8 * font,) * 2 if kind == "op" else box_size(lines, self.canvas)
        return self.canvas.turned(size)

    def tile(self) -> Tile:
        lines = {k: [] if i.kind == "exit" else i.lines(self.canvas.parameters) for k, i in self.items.items()}
        size = {k: self._size(k, said) for k, said in lines.items()}
        last = {k for k, i in self.items.items() if i.kind == "exit" or (
            i.kind == "state" and not any(k in j.sources for j in self.items.values()))}
        gap = self.canvas.gap(22.0), self.canvas.gap(9.0)
        plan = Arrangement(size, {k: i.sources for k, i in self.items.items()}, self._rows(), last, self._ranks(),
                           {k for k, i in self.items.items() if i.ordered}, gap)
        return Tile(self.recurrence, self.items, lay_out(plan), size, lines, self.entries, self.exits, self.order)

    def block(self, title: str) -> Tile:
        """The step as one box: states through it from left to right, inputs below, outputs above."""
        entries = {k: self.items[k] for k in self.entries}
        now = {k: i for k, i in self.items.items() if i.kind == "input" and k not in entries
               and i.node in [self.recurrence.step.inputs.get(n) for n in self.recurrence.input_names]}
        above = {k: i for k, i in self.items.items() if i.kind == "state" and i.node in self.recurrence.traced.values()}
        lines = "\n".join(wrap(spoken(clean(title, 40)), 8, break_long_words=False))
        block = Item("block", "block", lines, "", self.recurrence.new_states[0], [*entries, *now])
        leaving = {f"out-{n}": Item(f"out-{n}", "exit", pretty(f"{b}[t]"), "", node, ["block"])
                   for n, (b, node) in enumerate(zip(self.bases, self.recurrence.new_states, strict=True))}
        self.items = {**entries, **now, "block": block,
                      **{k: Item(k, "state", i.name, "", i.node, ["block"]) for k, i in above.items()}, **leaving}
        said = {k: [] if i.kind == "exit" else i.title.split("\n") for k, i in self.items.items()}
        size = {k: self._size(k, text) for k, text in said.items()}
        layout = _around_block(self.canvas, size, list(entries), list(now), list(above), list(leaving))
        return Tile(self.recurrence, self.items, layout, size, said, self.entries, list(leaving), self.order, block=True)

    def _ranks(self) -> dict[str, float]:
        """Gates from top to bottom in the order of the text."""
        place = {n: float(i) for i, n in enumerate(self.order)}
        gates = {k: i.called for k, i in self.items.items() if i.kind == "gate"}
        ranks = {k: place[n] for k, n in gates.items() if n in place}
        for k in reversed(self.items) if self.every else ():  # an operation stands where the gate does that it is of
            inner = [s for s in self.items[k].sources if k in ranks and self.items[s].kind in ("op", "function")]
            ranks.update({s: min(ranks[k], ranks.get(s, ranks[k])) for s in inner})
        return ranks

    # ---- rows

    def _rows(self) -> dict[str, int]:
        """Inner states run on top; outputs, then what is only handed on, then inputs run at the bottom."""
        rows: dict[str, int] = {}
        top, bottom = 0, -1
        inner = [i for i, b in enumerate(self.bases) if b not in self.output_names and self._first(i)]
        for slot in [*inner, *(i for i in range(len(self.bases)) if i not in inner)]:
            row = top if slot in inner else bottom
            top, bottom = (top + 1, bottom) if slot in inner else (top, bottom - 1)
            for k in self._path(slot, rows):
                rows.setdefault(k, row)
        for k, i in self.items.items():
            if k not in rows and (i.kind == "input" or (i.kind == "state" and i.node in self.recurrence.traced.values())):
                rows[k] = bottom
                bottom -= 1
        return rows

    def _first(self, slot: int) -> bool:
        """Whether a slot holds the newest value of its state."""
        return self.recurrence.state_names[slot].endswith("[t-1]") and self.bases[slot] in self.names

    def _path(self, slot: int, taken: Mapping[str, int]) -> list[str]:
        """Items from where a state arrives to where it leaves, through operations or the one function that makes it."""
        start, end, node = self.entries[slot], self.exits[slot], self.recurrence.new_states[slot]

        def allowed(k: str) -> bool:
            i = self.items[k]
            return k not in taken and i.kind != "input" and (i.kind in ("op", "function", "state") or i.node is node)

        path = shortest_path(end, lambda k: filter(allowed, self.items[k].sources), lambda k: start in self.items[k].sources)
        if path:
            return [start, *reversed(path)]
        ends = [end, *(s for s in self.items[end].sources if self.items[end].kind == "exit" and self.items[s].kind == "state")]
        return [*ends, start]


def gate_order(cell: Cell | None) -> list[str]:
    """The names that equations assign, in the order of the text."""
    return [] if cell is None else [pretty(e.name) for e in cell.system.equations]


def shifted(points: Sequence[Point], dx: float, dy: float) -> list[Point]:
    """A way moved elsewhere."""
    return [(x + dx, y + dy) for x, y in points]


def _around_block(canvas: Canvas, size: dict[str, Size], entries: Sequence[str], now: Sequence[str], above: Sequence[str],
                  leaving: Sequence[str]) -> Layout:
    """States to the left and the right of the block at equal heights, inputs in a row below it, outputs in a row above."""
    gap = canvas.gap(24.0)
    lane = max([1.5 * canvas.font, *(size[k][1] + 4 for k in entries)])
    wide = max(size["block"][0], *(sum(size[k][0] + 8 for k in row) for row in (now, above)))
    size["block"] = wide, max(size["block"][1] * 1.2, lane * len(entries) + 0.6 * canvas.font)
    left = max((size[k][0] for k in entries), default=0.0) + gap
    top = max((size[k][1] + gap for k in above), default=0.0)
    low = top + size["block"][1]
    middle, right = (left + wide / 2, (top + low) / 2), left + wide + gap / 2
    at, route = {"block": middle}, {}
    for i, (a, b) in enumerate(zip(entries, leaving, strict=True)):
        y = middle[1] + (i - (len(entries) - 1) / 2) * lane
        at[a], at[b] = (size[a][0] / 2, y), (right, y)
        route[a, "block"], route["block", b] = [(size[a][0], y), (left, y)], [(left + wide, y), (right, y)]
    for row, is_above in ((above, True), (now, False)):
        for i, k in enumerate(row):
            x, half = middle[0] + (i - (len(row) - 1) / 2) * wide / len(row), size[k][1] / 2
            at[k] = x, top - gap - half if is_above else low + gap + half
            if is_above:
                route["block", k] = [(x, top), (x, top - gap)]
            else:
                route[k, "block"] = [(x, low + gap), (x, low)]
    return Layout(at, route, right, max((low + gap + size[k][1] for k in now), default=low))
