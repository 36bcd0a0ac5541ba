"""Pictures of a recurrence: one step with its delays, or steps side by side with the way of the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

from ..cells import Cell
from ..cells.paper import pretty
from ..errors import ArgumentError
from ..shapes import show
from .canvas import Canvas, Piece, classes_of, composed, move
from .flow import Flow
from .key import decade_scale, says, stroke
from .names import at_step
from .scene import BoxShape, Frame, Part, Point, Scene, Wire, Words, beside, curve, straight, text_width
from .theme import LEVELS
from .tile import Tile, box_size, shifted

_FILLS = {"input": "input", "state": "state", "gate": "gate", "function": "function", "op": "op", "block": "gate"}
LANE = 10.0  # from wire to wire where states go around the end of a row

ParameterShapes = Mapping[str, str]  # name -> its shape in words


def folded(tile: Tile, title: str, weights: ParameterShapes, canvas: Canvas) -> Scene:
    """One step; every state returns, as that of the previous step, to where it enters."""
    scene = Scene(title, f"{title}, one step: " + _sentence(tile), parameters=classes_of(weights))
    ways = _Returning(tile, canvas)
    step = _Step(tile, None, None, (ways.left, ways.top), canvas)
    body = [*step.parts(tile.block), *ways.parts()]
    return composed(scene, canvas, body, ways.size, [], "parameters", _entries(weights, None) if canvas.parameters else ())


def unrolled(tile: Tile, title: str, weights: ParameterShapes, show_steps: str | Sequence[int], flow: Flow | None,
             canvas: Canvas) -> Scene:
    """Steps side by side: x from below, the loss above, parameters once; with a run, the gradient on its way back."""
    order = [p + 1 for p in tile.recurrence.scan.order]
    steps = f"{len(order)} step{'s' * (len(order) > 1)}"
    scene = Scene(f"{title}, {steps}", f"{title}, unrolled over {steps}"
                  + (", with the gradient of the loss at every quantity" if flow else "") + ": " + _sentence(tile),
                  parameters=classes_of(weights))
    rows = _Rows(tile, shown_steps(order, show_steps), flow, canvas)
    pieces: list[Piece] = [stroke("forward", "computed from", canvas)]
    if flow is not None:
        pieces += [stroke("backward", "gradient", canvas), *([] if flow.quiet else [decade_scale(flow, canvas)])]
        pieces += says(f"{flow.loss_text}, {flow.caption}" if not flow.quiet else f"L is {flow.caption}", canvas)
    entries = _entries(weights, flow) if canvas.parameters else ()
    heading = f"parameters, shared by {steps}" + ("; the gradient of each is the sum over all steps" if flow else "")
    heading = heading if len(order) > 1 else "parameters"
    return composed(scene, canvas, rows.parts, rows.size, pieces, heading, entries)


def wrong_show(seen: object) -> ArgumentError:
    """What `show` may be."""
    return ArgumentError(f"show={seen!r}: expected 'auto', 'all', 'heat', 'values' or a list of steps such as [1, 2, -1]")


def shown_steps(order: Sequence[int], wanted: str | Sequence[int]) -> list[int]:
    """The steps that a picture shows, in the order of the walk."""
    if isinstance(wanted, str):
        if wanted not in ("auto", "all"):
            raise wrong_show(wanted)
        return list(order) if wanted == "all" or len(order) <= 5 else [*order[:2], order[-1]]
    last, steps = len(order), [int(p) for p in wanted if isinstance(p, Integral) and not isinstance(p, bool)]
    if len(steps) != len(wanted):
        raise wrong_show(wanted)
    found = {last + 1 + p if p < 0 else p for p in steps}
    if not found or not all(1 <= p <= last for p in found):
        raise ArgumentError(f"show={list(wanted)!r}: the steps are 1 to {last} (or -1 for the last)")
    return [p for p in order if p in found]


# ---- steps in rows

@dataclass
class _End:
    """Where the wire of a state begins or ends: a box, its way within the step, and the row."""

    box: str
    points: list[Point]
    row: int


class _Rows:
    """Steps and gaps from left to right, in as many rows as the canvas is wide; the loss above every row that it reads."""

    def __init__(self, tile: Tile, shown: Sequence[int], flow: Flow | None, canvas: Canvas) -> None:
        self.tile, self.flow, self.canvas, self.parts = tile, flow, canvas, list[Part]()
        self.order = [p + 1 for p in tile.recurrence.scan.order]
        self.pad, self.between = (0.0, 0.0) if tile.block else (14.0, canvas.gap(34.0))
        self.strip = 0.0 if tile.block else 5.5 * canvas.font if canvas.down else 1.6 * canvas.font  # where t = 1 stands
        self.bar = canvas.turned((text_width("L = -0.0000", canvas.font) + 16, canvas.line + 10))[1] if flow else 0.0
        self.above = self.bar + canvas.gap(30.0) if flow else 0.0
        self.decays = ("exit",) if tile.block else ("state", "gate", "op")
        self.lanes = LANE * (len(tile.entries) + 1)  # between rows, where states go on
        self.tall = self.above + self.strip + tile.height + 1.4 * self.pad
        self.step: dict[int, _Step] = {}
        self.row: dict[int, int] = {}
        self.gaps: list[tuple[Point, list[int], int]] = []
        self._place(shown)
        self._frames()
        for i, gap in enumerate(self.gaps):
            self._gap(i, *gap)
        for a, b in pairwise(self.order):
            if a in self.step and b in self.step:
                for slot in range(len(tile.entries)):
                    self._between(slot, self._out(slot, a), self._into(slot, b), b)
        if flow is not None:
            self._loss(flow)
        rows = max([*self.row.values(), *(row for _, _, row in self.gaps)])
        aside = self.lanes if rows else 0.0
        move(self.parts, aside, 0)
        self.size = self.right + 2 * aside, self._top(rows) + self.tall

    def _top(self, row: int) -> float:
        return row * (self.tall + self.lanes)

    def _place(self, shown: Sequence[int]) -> None:
        """Where every step and every gap stands; what finds no room begins a row."""
        aside = max(self.tile.size[k][0] for k in self.tile.entries) + 12 if self.tile.block else 0.0
        across = (self.canvas.room[1] if self.canvas.down else self.canvas.across) - 2 * self.canvas.margin - 2 * self.lanes
        places = [self.order.index(p) for p in shown]
        things: list[tuple[int | None, list[int]]] = []
        for before, i in pairwise([-1, *places, len(self.order)]):
            things += [(None, self.order[before + 1 : i])] if i - before > 1 else []
            things += [(self.order[i], [])] if i < len(self.order) else []
        x, row, self.right = 0.0, 0, 0.0
        for p, missing in things:
            gap = self.canvas.turned(box_size(self._gap_lines(missing), self.canvas))[0] + aside if missing else 0.0
            width = gap or self.tile.width + 2 * self.pad
            if x and x + width > across:
                x, row = 0.0, row + 1
            top = self._top(row) + self.above + self.strip
            if p is None:
                self.gaps.append(((x + aside, top), missing, row))
            else:
                self.step[p], self.row[p] = _Step(self.tile, p, self.flow, (x + self.pad, top), self.canvas), row
            self.right = max(self.right, x + width)
            x += width + self.between

    def _frames(self) -> None:
        """The steps, each in a frame unless it is one box."""
        tile, canvas = self.tile, self.canvas
        for p, step in self.step.items() if not tile.block else ():
            left, top = step.at[0] - self.pad, step.at[1] - self.strip
            dx, dy = (12.0, 8.0) if canvas.down else (8.0, self.strip / 2 + 2)
            self.parts += [Frame(f"t{p}", (left, top), (tile.width + 2 * self.pad, self.tall - self.above), f"t = {p}"),
                           Words((left + dx, top + dy), f"t = {p}", bold=True, size=canvas.font)]
        for p, step in self.step.items():
            self.parts += step.parts(p == self.order[0])

    # ---- between steps

    def _out(self, slot: int, p: int) -> _End:
        source, points = self.tile.leaving(slot)
        return _End(f"{source}-{p}", shifted(points, *self.step[p].at), self.row[p])

    def _into(self, slot: int, p: int) -> _End:
        entry, at = self.tile.entries[slot], self.step[p].at
        if self.tile.block and p != self.order[0]:
            return _End(f"block-{p}", shifted(self.tile.layout.route[entry, "block"], *at), self.row[p])
        (x, y), (w, _) = self.tile.layout.at[entry], self.tile.size[entry]
        return _End(f"{entry}-{p}", shifted([(x - w / 2, y)], *at), self.row[p])

    def _between(self, slot: int, out: _End, into: _End, reader: int) -> None:
        """The wire of a state from where it leaves a step to where it enters the next, around the end of a row."""
        name, key = pretty(self.tile.recurrence.state_names[slot]), f"{slot}-{out.box}-{into.box}"
        here = at_step(name, reader, self.tile.direction)
        start, end = out.points[-1], into.points[-1]
        around = out.row != into.row
        route = self._around(slot, out, end) if around else curve([*out.points, *into.points])
        self.parts.append(Wire(f"f-{key}", (out.box, into.box), route, "forward", f"{name} of step {reader}"))
        if self.tile.block and not around:
            self.parts.append(_beside_wire(here, ((start[0] + end[0]) / 2, end[1]), "middle", self.canvas))
        if self.flow is not None and reader in self.flow.norms:
            norm = self.flow.norms[reader].get(self.tile.entries[slot])
            what = f"what step {reader} sends back to {here}"
            self.parts += gradient_wire(f"b-{key}", (out.box, into.box), route, norm, self.flow, what)

    def _around(self, slot: int, out: _End, end: Point) -> list[Point]:
        """From the end of a row to the start of the next; the lowest state turns first, and last, so that no two cross."""
        exits = sorted(self.tile.exits, key=lambda k: -self.tile.layout.at[k][1])
        lane = LANE * (1 + exits.index(self.tile.exits[slot]))
        right, left, low = self.right + lane, lane - self.lanes, self._top(out.row) + self.tall + lane - 2
        start = out.points[-1]
        return [*curve(out.points)[:-1], *straight(start, (right, start[1]), (right, low), (left, low), (left, end[1]), end)]

    def _gap_lines(self, missing: Sequence[int]) -> list[str]:
        """How many steps are left out, and what becomes of the gradient over them."""
        lines = ["⋯", f"{len(missing)} step{'s' * (len(missing) > 1)}"]
        for name, node in zip(self.tile.recurrence.state_names, self.tile.recurrence.new_states, strict=True):
            own = next((k for k, i in self.tile.items.items() if i.node is node and i.kind in self.decays), "")
            norms = [] if self.flow is None else [self.flow.norms[p].get(own) for p in (missing[0], missing[-1])]
            early, late = norms or (None, None)
            if name.endswith("[t-1]") and late is not None and early is not None:
                lines += [f"‖∂L/∂{pretty(name.removesuffix('[t-1]'))}‖", f"{early:.1e} ← {late:.1e}"]
        return lines

    def _gap(self, i: int, at: Point, missing: Sequence[int], row: int) -> None:
        """Steps that are not shown, as one box in which the states enter and from which they leave."""
        lines, key = self._gap_lines(missing), f"gap-{i}"
        wide, tall = self.canvas.turned(box_size(lines, self.canvas))
        middle = (at[0] + wide / 2, at[1] + self.tile.height / 2)
        title = f"steps {missing[0]} to {missing[-1]}, not shown"
        self.parts.append(BoxShape(key, middle, (wide, max(tall, self.tile.height)), lines, "panel", title, classes="gap",
                                   dashed=True, font=self.canvas.font))
        before, after = self.order.index(missing[0]) - 1, self.order.index(missing[-1]) + 1
        for slot in range(len(self.tile.entries)):
            if before >= 0:
                out = self._out(slot, self.order[before])
                end = (at[0], out.points[-1][1] + self._top(row - out.row))
                self._between(slot, out, _End(key, [end], row), missing[0])
            if after < len(self.order):
                into = self._into(slot, self.order[after])
                start = (at[0] + wide, into.points[0][1] + self._top(row - into.row))
                self._between(slot, _End(key, [start], row), into, self.order[after])

    # ---- the loss

    def _loss(self, flow: Flow) -> None:
        """The loss above every row that holds an output that it reads."""
        text, font = flow.loss_text, self.canvas.font
        for row in sorted({self.row[p] for p in self.step if flow.from_loss[p]}):
            own = {p: s for p, s in self.step.items() if self.row[p] == row}
            right, middle = max(s.at[0] for s in own.values()) + self.tile.width + self.pad, self._top(row) + self.bar / 2
            key, wide = f"loss-{row}" if row else "loss", right > 1400  # one who scrolls sees it at both ends
            self.parts.append(BoxShape(key, (right / 2, middle), (right, self.bar), [] if wide else [text], "loss",
                                       f"the loss {flow.loss_text}: {flow.caption}", classes="loss", font=font))
            self.parts += [Words((x, middle), text, "middle", size=font) for x in (70.0, right - 70) if wide]
            for p in own:
                for k, norm in flow.from_loss[p].items():
                    route, ends = self._to_loss(k, p, middle + self.bar / 2), (f"{k}-{p}", key)
                    name = at_step(self.tile.items[k].title, p)
                    self.parts.append(Wire(f"f-{k}-{p}-loss", ends, route, "forward", f"{name} is read by the loss"))
                    self.parts += gradient_wire(f"b-loss-{k}-{p}", ends, route, norm, flow, f"what the loss sends to {name}")

    def _to_loss(self, key: str, p: int, end: float) -> list[Point]:
        """Up from an output, left of its middle; around the boxes above it."""
        tile, (left, top) = self.tile, self.step[p].at
        (x, y), (w, h) = tile.layout.at[key], tile.size[key]
        above = [k for k, (bx, by) in tile.layout.at.items() if by < y and tile.items[k].kind != "exit"
                 and abs(bx - x) < (tile.size[k][0] + w) / 2]
        aside = left + min(tile.layout.at[k][0] - tile.size[k][0] / 2 for k in (*above, key)) - 9
        x, y = left + x - min(w / 4, 12), top + y - h / 2
        return straight((x, y), (x, y - 7), (aside, y - 7), (aside, end)) if above else straight((x, y), (x, end))


# ---- one step

class _Step:
    """The items of a step and the edges between them."""

    def __init__(self, tile: Tile, p: int | None, flow: Flow | None, at: Point, canvas: Canvas) -> None:
        self.tile, self.p, self.flow, self.at, self.canvas = tile, p, flow, at, canvas
        self.suffix = "" if p is None else f"-{p}"

    def parts(self, first: bool) -> list[Part]:
        """Where a state leaves, and in a block where it enters, is not seen: the wires from step to step go there."""
        tile, out = self.tile, list[Part]()
        hidden = {k for k, i in tile.items.items() if i.kind == "exit" or (tile.block and k in tile.entries and (
            not first or self.p is None))}
        for (s, r), points in tile.layout.route.items():
            if not hidden & {s, r}:
                out += self._edge(s, r, curve(shifted(points, *self.at)))
        return out + [self._box(k) for k in tile.items if k not in hidden]

    def _edge(self, s: str, r: str, route: list[Point]) -> list[Part]:
        ends = (f"{s}{self.suffix}", f"{r}{self.suffix}")
        key = f"{s}-{r}{self.suffix}"
        out: list[Part] = [Wire(f"f-{key}", ends, route, "forward", f"{self._name(s)} → {self._name(r)}")]
        if self.flow is None or self.p is None:
            return out
        what = f"what {self._name(r)} sends back to {self._name(s)}"
        return out + gradient_wire(f"b-{key}", ends, route, self.flow.sent[self.p].get((r, s)), self.flow, what)

    def _box(self, k: str) -> BoxShape:
        item, (at,) = self.tile.items[k], shifted([self.tile.layout.at[k]], *self.at)
        lines = [self._moved(line) for line in self.tile.lines[k]]
        return BoxShape(f"{k}{self.suffix}", at, self.tile.size[k], lines, self._fill(k), self._title(k),
                        round=item.kind == "op", square=item.kind == "input", classes=item.kind, font=self.canvas.font)

    def _fill(self, k: str) -> str | None:
        kind = self.tile.items[k].kind
        if self.flow is None or self.p is None or kind == "block":
            return _FILLS[kind]
        shade = self.flow.shade(self.flow.norms[self.p].get(k))
        return None if shade is None else f"q{shade}"

    def _moved(self, line: str) -> str:
        return line if self.p is None else at_step(line, self.p, self.tile.direction)

    def _name(self, k: str) -> str:
        """What an item is called in a sentence."""
        return self._moved(self.tile.items[k].called.replace("\n", " "))

    def _title(self, k: str) -> str:
        item = self.tile.items[k]
        if item.kind == "block":
            return f"{item.title}: {_sentence(self.tile)}"
        title = f"{self._moved(item.title)}  {item.does or item.node.op.label} {show(item.node.shape)}".replace("\n", " ")
        if item.weights:
            title += f", weights {', '.join(item.weights)}"
        if self.flow is None or self.p is None or self.flow.quiet or k not in self.flow.ranges[self.p]:
            return title
        low, high = self.flow.ranges[self.p][k]
        norm = self.flow.norms[self.p].get(k)
        what = "sent back by this step" if k in self.tile.entries else "‖∂L/∂‖"
        return f"{title}, values {low:.3g} to {high:.3g}, " + ("no gradient" if norm is None else f"{what} = {norm:.3e}")


def gradient_wire(key: str, ends: tuple[str, str], route: Sequence[Point], norm: float | None, flow: Flow,
                  what: str) -> list[Part]:
    """The gradient beside an edge: width by the logarithm of its norm; nothing where nothing flows."""
    shade = flow.shade(norm)
    if shade is None or norm is None:
        return []
    width = 0.5 + 2.7 * shade / LEVELS
    return [Wire(key, (ends[1], ends[0]), beside(route, 3.2 + width / 2), "backward", f"{what}: norm {norm:.3e}", width)]


def _sentence(tile: Tile) -> str:
    """What a step is made of, for those who do not see it."""
    gates = [i.title for i in tile.items.values() if i.kind == "gate"]
    states = [i.title for i in tile.items.values() if i.kind == "state"]
    reads = [i.title for i in tile.items.values() if i.kind == "input"]
    return f"reads {', '.join(reads)}; gates {', '.join(gates) or 'none'}; computes {', '.join(states)}."


# ---- delays

class _Returning:
    """Every state on its way back: around the step, as that of the previous step, to where it enters."""

    def __init__(self, tile: Tile, canvas: Canvas) -> None:
        self.tile, self.canvas = tile, canvas
        self.text = "previous step" if tile.direction > 0 else "next step"
        self.box = canvas.turned((text_width(self.text, canvas.font) + 12, canvas.line + 4))
        self.lane = self.box[1] + 8
        low = 0.0 if tile.block or tile.height < 60 else tile.height / 2
        self.above = {n: tile.layout.at[k][1] < low for n, k in enumerate(tile.exits)}
        above = sum(self.above.values())
        below = len(self.above) - above
        self.left, self.top = 14.0 * max(above, below), self.lane * above
        self.low = tile.height + (6 if tile.block else 0)
        self.size = (tile.width + 2 * self.left, self.low + self.lane * (above + below))

    def parts(self) -> list[Part]:
        out, heights = list[Part](), [self.tile.layout.at[k][1] for k in self.tile.exits]
        for side in (True, False):  # what leaves next to the lane turns first, so that no two cross
            near = {n: heights[n] if side else -heights[n] for n, above in self.above.items() if above == side}
            slots = sorted(near, key=near.__getitem__)
            out += [p for k, n in enumerate(slots, 1) for p in self._way(n, k, side)]
        return out

    def _way(self, slot: int, k: int, above: bool) -> list[Part]:
        tile, at = self.tile, (self.left, self.top)
        source, leaving = tile.leaving(slot)
        leaving = shifted(leaving, *at)
        entry, name, box = tile.entries[slot], tile.recurrence.state_names[slot], f"delay-{slot}"
        (x, y), (w, _) = shifted([tile.layout.at[entry]], *at)[0], tile.size[entry]
        end = (x - w / 2, y)
        if tile.block:
            entry, end = "block", shifted(tile.layout.route[entry, "block"], *at)[-1]
        level = self.top - self.lane * (k - 0.5) if above else self.top + self.low + self.lane * (k - 0.5)
        right, left = self.left + tile.width + 12 * k, self.left - 12 * k
        middle, start, half = tile.width / 2 + self.left, leaving[-1], self.box[0] / 2
        there = straight(start, (right, start[1]), (right, level), (middle + half, level))
        back = straight((middle - half, level), (left, level), (left, end[1]), end)
        out: list[Part] = [Wire(f"d-{slot}-in", (source, box), [*curve(leaving)[:-1], *there], "delay",
                                f"{pretty(name.partition('[')[0])} is kept for the step after"),
                           Wire(f"d-{slot}-out", (box, entry), back, "delay", f"{pretty(name)} of the {self.text} enters"),
                           BoxShape(box, (middle, level), self.box, [self.text], "op", f"{pretty(name)}: from the {self.text}",
                                    classes="delay", font=self.canvas.font)]
        if tile.block:
            back_off = self.canvas.font if self.canvas.down else 6.0
            out.append(_beside_wire(pretty(name), (end[0] - back_off, end[1]), "end", self.canvas))
        return out


def _beside_wire(text: str, at: Point, anchor: str, canvas: Canvas) -> Words:
    """A name above a wire that runs to the right, left of one that runs down."""
    if canvas.down:
        return Words((at[0], at[1] - 6), text, "end", size=canvas.font)
    return Words((at[0], at[1] - 0.75 * canvas.font), text, anchor, size=canvas.font)


# ---- parameters

def _entries(weights: ParameterShapes, flow: Flow | None) -> list[str]:
    """Every parameter with its shape, and the norm of its gradient."""
    out = []
    for name, shape in weights.items():
        norm = None if flow is None or flow.quiet else flow.parameters.get(name)
        out.append(f"{name}: {shape}" + (f", ‖∂L‖ {norm:.2e}" if norm is not None else ""))
    return out


def weights_of(cell: Cell) -> dict[str, str]:
    """Every parameter of a cell with its shape, and what is special about it."""
    return {name: shape_of(shape) + (", fixed" if name in cell.fixed else ", the first state" if name in cell.learned else "")
            for name, shape in cell.parameters.items()}


def shape_of(sizes: Sequence[str]) -> str:
    """`h × (h+x)`."""
    return " × ".join(f"({s})" if "+" in s else s for s in sizes) or "1"
