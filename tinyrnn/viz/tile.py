"""One step of a recurrence, laid out: states enter on the left and leave on the right at the same height.

States inside run along the top, outputs along the bottom, gates stand in the order of the text, inputs come from below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..analysis.recurrence import Recurrence
from ..cells import Cell
from ..ir.node import Node
from ..ir.ops.leaves import INPUT, input_name
from ..search import shortest_path
from .items import Extract, Item, pretty
from .layered import Arrangement, Layout, lay_out
from .scene import LINE, Point, text_width


@dataclass
class Tile:
    """The items of a step and where they stand; for each state, where it enters and where it leaves."""

    recurrence: Recurrence
    items: dict[str, Item]
    layout: Layout
    size: dict[str, tuple[float, float]]
    entries: list[str]
    exits: list[str]
    order: Sequence[str]  # names in the order of the text

    @property
    def width(self) -> float:
        return self.layout.width

    @property
    def height(self) -> float:
        return self.layout.height

    def outputs(self) -> list[str]:
        """Items that the loss may read: one for every value that leaves, the state by its name where there is one."""
        nodes = dict.fromkeys([*self.recurrence.traced.values(), *self.recurrence.new_states])
        having = {n: [k for k, i in self.items.items() if i.node is n and i.kind not in ("exit", "input")] for n in nodes}
        return [next((k for k in keys if self.items[k].kind == "state"), keys[-1]) for keys in having.values() if keys]


def item_size(item: Item) -> tuple[float, float]:
    """Width and height in points, of a size that does not depend on a reader's fonts."""
    if item.kind == "exit":
        return 3.0, 3.0
    if item.kind == "op":
        return 20.0, 20.0
    title, *below = item.lines
    title = title.replace(" = ", "   ") if item.name and item.symbol else title
    wide = max(text_width(title, 11), *(text_width(line, 9.5) for line in below), 0.0)
    return min(max(30.0, wide + 14), 260.0), LINE * len(item.lines) + 11


def tile_of(recurrence: Recurrence, order: Sequence[str] = ()) -> Tile:
    """The step of a recurrence, laid out; `order` is the order of the gates in the text."""
    return _Tiling(recurrence, order).tile()


class _Tiling:
    def __init__(self, recurrence: Recurrence, order: Sequence[str]) -> None:
        self.recurrence, self.order = recurrence, order
        step = recurrence.step
        self.bases = [k.partition("[")[0] for k in recurrence.state_names]
        outputs = dict.fromkeys(recurrence.traced.values())
        labels = {n: label.name for label, n in step.labels.items()}
        self.output_names = [labels[n] for n in outputs if n in labels]
        states = [b for b in dict.fromkeys(self.bases) if b in labels.values()]
        self.names = dict.fromkeys((*states, *self.output_names))
        self.items = Extract(step, recurrence.constants, self.names).items
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
            source = next((k for k, i in self.items.items() if i.lines == [pretty(name)]), next(iter(self.items)))
        read = any(source in i.sources for i in self.items.values())
        if not read and self.items[source].kind == "state":
            return source
        key = f"out-{slot}"
        self.items[key] = Item(key, "exit", pretty(f"{self.bases[slot]}[t]"), "", node, [source])
        return key

    def tile(self) -> Tile:
        size = {k: item_size(i) for k, i in self.items.items()}
        last = {k for k, i in self.items.items() if i.kind == "exit" or (
            i.kind == "state" and not any(k in j.sources for j in self.items.values()))}
        plan = Arrangement(size, {k: i.sources for k, i in self.items.items()}, self._rows(), last, self._ranks(),
                    {k for k, i in self.items.items() if i.ordered})
        return Tile(self.recurrence, self.items, lay_out(plan), size, self.entries, self.exits, self.order)

    def _ranks(self) -> dict[str, float]:
        """Gates from top to bottom in the order of the text."""
        place = {n: float(i) for i, n in enumerate(self.order)}
        gates = {k: i.called for k, i in self.items.items() if i.kind == "gate"}
        return {k: place[n] for k, n in gates.items() if n in place}

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
    return [] if cell is None else [e.name for e in cell.system.equations]


def shifted(points: Sequence[Point], dx: float, dy: float) -> list[Point]:
    """A way moved elsewhere."""
    return [(x + dx, y + dy) for x, y in points]
