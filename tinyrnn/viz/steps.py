"""Pictures of a recurrence: one step with its delays, or steps side by side with the way of the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..cells import Cell
from ..errors import ArgumentError
from ..shapes import show
from .flow import Flow
from .items import at_step, pretty
from .layered import Point
from .scene import LINE, PREFIX, BoxShape, Frame, Scene, Swatch, Wire, Words, beside, curve, straight, text_width
from .theme import BURST, LEVELS
from .tile import Tile, shifted

MARGIN, PAD, GAP, SKIPPED = 24.0, 16.0, 36.0, 132.0
_FILLS = {"input": "input", "state": "state", "gate": "gate", "function": "function", "op": "op", "exit": "forward"}


ParameterShapes = Mapping[str, str]  # name -> its shape in words


def folded(tile: Tile, title: str, weights: ParameterShapes) -> Scene:
    """One step; every state returns through a delay z⁻¹ to where it enters."""
    scene = Scene(title, f"{title}, one step: " + _sentence(tile))
    entries = _entries(weights, None)
    legend = 30 + max((text_width(e, 9.5) for e in ("parameters", *entries)), default=0)
    sides = _return_sides(tile)
    above, below = (1 + sum(1 for w in sides.values() if w == side) for side in ("above", "below"))
    dx, dy = MARGIN + 14 * max(above, below), 42 + 20 * above + PAD
    width = dx + tile.width + 14 * max(above, below) + MARGIN
    bottom = dy + tile.height + PAD + 20 * below
    scene.add(Words((MARGIN, 24), title, size=14, bold=True))
    _step(scene, tile, None, None, dx, dy, _classes(weights))
    _delays(scene, tile, sides, dx, dy)
    columns = max(1, int((width - 2 * MARGIN) // legend))
    bottom = _legend(scene, "parameters", entries, _classes(weights), (MARGIN, bottom), max(width - 2 * MARGIN, legend),
                     columns)
    scene.size = (max(width, 2 * MARGIN + text_width(title, 14) * 1.1, legend + 2 * MARGIN), bottom + MARGIN)
    return scene


def unrolled(tile: Tile, title: str, weights: ParameterShapes, show_steps: str | Sequence[int],
             flow: Flow | None) -> Scene:
    """Steps side by side: x from below, the loss above, parameters once; with a run, the gradient on its way back."""
    return _Row(tile, title, weights, show_steps, flow).scene


class _Row:
    def __init__(self, tile: Tile, title: str, weights: ParameterShapes, show_steps: str | Sequence[int],
                 flow: Flow | None) -> None:
        self.tile, self.flow, self.weights = tile, flow, weights
        order = [p + 1 for p in tile.recurrence.scan.order]
        self.shown = _shown(order, show_steps)
        steps = len(order)
        self.scene = Scene(f"{title}, {steps} step{'s' * (steps > 1)}", f"{title}, unrolled over {steps} steps"
                           + (", with the gradient of the loss at every quantity" if flow else "") + ": " + _sentence(tile))
        self.top = 62 + (74 if flow else 8)
        self.dy = self.top + 26
        self.bottom = self.dy + tile.height + PAD
        self.left = self._places(order)
        self._draw(order)

    def _places(self, order: Sequence[int]) -> dict[int, float]:
        """The left edge of every step that is shown; what is left out takes a gap."""
        self.gaps: list[tuple[float, list[int]]] = []
        x, left, previous = MARGIN, {}, -1
        for p in self.shown:
            i = order.index(p)
            if i - previous > 1:
                self.gaps.append((x, list(order[previous + 1 : i])))
                x += SKIPPED
            left[p] = x + PAD
            x += self.tile.width + 2 * PAD + GAP
            previous = i
        if previous < len(order) - 1:
            self.gaps.append((x, list(order[previous + 1 :])))
            x += SKIPPED
        self.right = x - GAP
        return left

    def _draw(self, order: Sequence[int]) -> None:
        scene, classes, steps = self.scene, _classes(self.weights), len(order)
        for p, x in self.left.items():
            scene.add(Frame(f"t{p}", (x - PAD, self.top), (self.tile.width + 2 * PAD, self.bottom - self.top), f"t = {p}"))
        for p, x in self.left.items():
            scene.add(Words((x - PAD + 10, self.top + 16), f"t = {p}", bold=True))
            after = order.index(p) + 1 < len(order)
            _step(scene, self.tile, p, self.flow, x, self.dy, classes, exits=after)
        self._state_wires()
        for x, missing in self.gaps:
            self._gap(x, missing)
        if self.flow is not None:
            self._loss()
        entries = _entries(self.weights, self.flow)
        wide = 30 + max((text_width(e, 9.5) for e in entries), default=0)
        columns = max(1, int((self.right - MARGIN) // wide))
        heading = f"parameters, shared by {steps} step{'s' * (steps > 1)}" + (
            "; the gradient of each is the sum over all steps" if self.flow and entries else "")
        floor = _legend(scene, heading, entries, classes, (MARGIN, self.bottom + 18), max(self.right - MARGIN, wide), columns)
        right = max(self.right, MARGIN + wide, MARGIN + 24 + 1.1 * text_width(heading, 10))
        header = self._draw_header()
        scene.size = (max(right + MARGIN, header), floor + MARGIN)

    def _draw_header(self) -> float:
        """Title, what the numbers are, and the key; how wide it is."""
        scene = self.scene
        scene.add(Words((MARGIN, 24), scene.title, size=14, bold=True))
        x = MARGIN
        kinds = [("forward", "computed from")] + ([("backward", "gradient")] if self.flow else [])
        for kind, text in kinds:
            scene.add(Wire(f"key-{kind}", (f"key-{kind}", f"key-{kind}"), straight((x, 42), (x + 30, 42)), kind, text))
            scene.add(Words((x + 36, 46), text, kind="quiet", size=10))
            x += 50 + text_width(text, 10)
        if self.flow is not None:
            x = scale(scene, x, 35, self.flow) + 14
            text = f"L = {self.flow.loss:.4g}, {self.flow.caption}"
            scene.add(Words((x, 46), text, kind="quiet", size=10))
            x += text_width(text, 10)
        return max(x, MARGIN + 1.1 * text_width(scene.title, 14)) + MARGIN

    # ---- between steps

    def _state_wires(self) -> None:
        for a, b in pairwise(self.shown):
            if not any(x for x, missing in self.gaps if min(a, b) < missing[0] < max(a, b)):
                for slot in range(len(self.tile.entries)):
                    self._state_wire(slot, a, b)
        for x, missing in self.gaps:
            self._broken(x, missing)

    def _end(self, key: str, p: int, side: int) -> Point:
        x, y = self.tile.layout.at[key]
        return self.left[p] + x + side * self.tile.size[key][0] / 2, self.dy + y

    def _state_wire(self, slot: int, a: int, b: int) -> None:
        """From the right edge of one step to the left edge of the next."""
        exit_key, entry_key = self.tile.exits[slot], self.tile.entries[slot]
        route = curve([self._end(exit_key, a, 1), self._end(entry_key, b, -1)])
        self._between(slot, route, (f"{exit_key}-{a}", f"{entry_key}-{b}"), b, f"{a}-{b}")

    def _between(self, slot: int, route: list[Point], ends: tuple[str, str], reader: int, key: str,
                 dashed: bool = False) -> None:
        name = self.tile.recurrence.state_names[slot]
        self.scene.add(Wire(f"f-{slot}-{key}", ends, route, "forward", f"{pretty(name)} of step {reader}", dashed=dashed))
        if self.flow is not None and reader in self.flow.norms:
            norm = self.flow.norms[reader].get(self.tile.entries[slot])
            what = f"what step {reader} sends back to {_moved(self.tile, pretty(name), reader)}"
            _back(self.scene, f"b-{slot}-{key}", ends, route, norm, self.flow, what)

    def _broken(self, x: float, missing: Sequence[int]) -> None:
        """The states' wires into and out of a gap."""
        before, after = [p for p in self.shown if self.left[p] < x], [p for p in self.shown if self.left[p] > x]
        for slot, (exit_key, entry_key) in enumerate(zip(self.tile.exits, self.tile.entries, strict=True)):
            if before:
                start = self._end(exit_key, before[-1], 1)
                self._between(slot, straight(start, (x + 14 - GAP, start[1])), (f"{exit_key}-{before[-1]}",) * 2, missing[0],
                              f"into-{missing[0]}", dashed=True)
            if after:
                end = self._end(entry_key, after[0], -1)
                self._between(slot, straight((x + SKIPPED - GAP + 8, end[1]), end), (f"{entry_key}-{after[0]}",) * 2, after[0],
                              f"from-{missing[-1]}", dashed=True)

    def _gap(self, x: float, missing: Sequence[int]) -> None:
        """How many steps are left out, and what becomes of the gradient over them."""
        middle = x + (SKIPPED - GAP) / 2
        y = self.dy + self.tile.height / 2
        self.scene.add(Words((middle, y), "⋯", "middle", size=26),
                       Words((middle, y + 18), f"{len(missing)} step{'s' * (len(missing) > 1)}", "middle", size=10))
        if self.flow is None:
            return
        lines = []
        for name, key in zip(self.tile.recurrence.state_names, self.tile.exits, strict=True):
            own = self.tile.items[key].sources[0] if self.tile.items[key].kind == "exit" else key
            late, early = (self.flow.norms[p].get(own) for p in (missing[-1], missing[0]))
            if name.endswith("[t-1]") and late is not None and early is not None:
                lines += [f"‖∂L/∂{name.partition('[')[0]}‖", f"{early:.1e} ← {late:.1e}"]
        for i, line in enumerate(lines):
            self.scene.add(Words((middle, y + 38 + 13 * i), line, "middle", "backward" if i % 2 else "quiet", 9.5))

    def _loss(self) -> None:
        """The loss above all steps, read from those outputs that it reads."""
        assert self.flow is not None
        left, right = MARGIN, self.right
        middle, text = ((left + right) / 2, self.top - 44), f"L = {self.flow.loss:.4g}"
        wide = right - left > 1400  # one who scrolls sees it at both ends
        self.scene.add(BoxShape("loss", middle, (right - left, 26), [] if wide else [text], "loss",
                           f"the loss L, {self.flow.loss:.6g}: {self.flow.caption}"))
        if wide:
            self.scene.add(Words((left + 12, self.top - 40), text), Words((right - 12, self.top - 40), text, "end"))
        for p in self.shown:
            for k, norm in self.flow.from_loss[p].items():
                route = self._to_loss(k, p)
                name = at_step(self.tile.items[k].title, p)
                self.scene.add(Wire(f"f-{k}-{p}-loss", (f"{k}-{p}", "loss"), route, "forward", f"{name} is read by the loss"))
                what = f"what the loss sends to {name}"
                _back(self.scene, f"b-loss-{k}-{p}", (f"{k}-{p}", "loss"), route, norm, self.flow, what)

    def _to_loss(self, key: str, p: int) -> list[Point]:
        """Up from an output, left of its middle; around the boxes above it."""
        (x, y), (w, h) = self.tile.layout.at[key], self.tile.size[key]
        above = [k for k, (bx, by) in self.tile.layout.at.items() if by < y and self.tile.items[k].kind != "exit"
                 and abs(bx - x) < (self.tile.size[k][0] + w) / 2]
        x, y, end = self.left[p] + x - min(w / 4, 12), self.dy + y - h / 2, self.top - 31
        if not above:
            return straight((x, y), (x, end))
        aside = self.left[p] + min(self.tile.layout.at[k][0] - self.tile.size[k][0] / 2 for k in (*above, key)) - 9
        return straight((x, y), (x, y - 7), (aside, y - 7), (aside, end))


def _shown(order: Sequence[int], wanted: str | Sequence[int]) -> list[int]:
    """The steps that a picture shows, in the order of the walk."""
    if isinstance(wanted, str):
        if wanted not in ("auto", "all"):
            raise ArgumentError(f"show={wanted!r}: expected 'auto', 'all', 'heat' or a list of steps such as [1, 2, -1]")
        return list(order) if wanted == "all" or len(order) <= 5 else [*order[:2], order[-1]]
    last, steps = len(order), [p for p in wanted if isinstance(p, int) and not isinstance(p, bool)]
    if len(steps) != len(wanted):
        raise ArgumentError(f"show={wanted!r}: expected 'auto', 'all', 'heat' or a list of steps such as [1, 2, -1]")
    found = {last + 1 + p if p < 0 else p for p in steps}
    if not found or not all(1 <= p <= last for p in found):
        raise ArgumentError(f"show={list(wanted)!r}: the steps are 1 to {last} (or -1 for the last)")
    return [p for p in order if p in found]


# ---- one step

def _step(scene: Scene, tile: Tile, p: int | None, flow: Flow | None, dx: float, dy: float, classes: Mapping[str, str],
          exits: bool = True) -> None:
    """The items of a step and the edges between them; wires lie below boxes.  Nothing leaves a last step."""
    suffix = "" if p is None else f"-{p}"
    for (s, r), points in tile.layout.route.items():
        if tile.items[r].kind == "exit" and not exits:
            continue
        route = curve(shifted(points, dx, dy))
        ends = (f"{s}{suffix}", f"{r}{suffix}")
        into_exit = tile.items[r].kind == "exit"
        title = f"{_name(tile, s, p)} → {_name(tile, r, p)}"
        scene.add(Wire(f"f-{s}-{r}{suffix}", ends, route, "forward", title, head=not into_exit))
        if flow is not None and p is not None:
            norm = _leaves_back(tile, flow, r, p) if into_exit else flow.sent[p].get((r, s))
            what = f"what {_name(tile, r, p)} sends back to {_name(tile, s, p)}"
            _back(scene, f"b-{s}-{r}{suffix}", ends, route, norm, flow, what)
    for k, item in tile.items.items():
        if item.kind == "exit" and not exits:
            continue
        x, y = tile.layout.at[k]
        fill = _fill(item.kind, flow, None if flow is None or p is None else flow.norms[p].get(k))
        scene.add(BoxShape(f"{k}{suffix}", (x + dx, y + dy), tile.size[k], [_moved(tile, line, p) for line in item.lines] if
                      item.kind != "exit" else [], fill, _title(tile, k, p, flow), round=item.kind in ("op", "exit"),
                      radius=0 if item.kind == "input" else 5, classes=item.kind, link=item.kind != "exit",
                      word_classes=[_lit(line, classes) for line in item.lines[1:]]))


def _lit(line: str, classes: Mapping[str, str]) -> list[str]:
    """The class of every parameter that a line names."""
    return [classes.get(w.rstrip("ᵀ"), "") for w in line.split()]


def _leaves_back(tile: Tile, flow: Flow, exit_: str, p: int) -> float | None:
    """What comes back through an exit: the gradient that the next step sends."""
    slot = tile.exits.index(exit_)
    order = [q + 1 for q in tile.recurrence.scan.order]
    after = order.index(p) + 1
    return flow.norms[order[after]].get(tile.entries[slot]) if after < len(order) else None


def _fill(kind: str, flow: Flow | None, norm: float | None) -> str | None:
    if flow is None or kind == "exit":
        return _FILLS[kind]
    shade = flow.shade(norm)
    return None if shade is None else f"q{shade}"


def _back(scene: Scene, key: str, ends: tuple[str, str], route: Sequence[Point], norm: float | None, flow: Flow,
          what: str) -> None:
    """The gradient beside an edge: width by the logarithm of its norm; nothing where nothing flows."""
    shade = flow.shade(norm)
    if shade is None or norm is None:
        return
    width = 0.5 + 2.7 * shade / LEVELS
    scene.add(Wire(key, (ends[1], ends[0]), beside(route, 3.2 + width / 2), "backward", f"{what}: norm {norm:.3e}", width))


def _moved(tile: Tile, line: str, p: int | None) -> str:
    return line if p is None else at_step(line, p, -1 if tile.recurrence.scan.reverse else 1)


def _name(tile: Tile, key: str, p: int | None) -> str:
    """What an item is called in a sentence."""
    return _moved(tile, tile.items[key].called, p)


def _title(tile: Tile, key: str, p: int | None, flow: Flow | None) -> str:
    item = tile.items[key]
    title = f"{_moved(tile, item.title, p)}  {item.node.op.label} {show(item.node.shape)}"
    if item.weights:
        title += f", weights {', '.join(item.weights)}"
    if flow is None or p is None or key not in flow.ranges[p]:
        return title
    low, high = flow.ranges[p][key]
    norm = flow.norms[p].get(key)
    what = "sent back by this step" if key in tile.entries else "‖∂L/∂‖"
    return f"{title}, values {low:.3g} to {high:.3g}, " + ("no gradient" if norm is None else f"{what} = {norm:.3e}")


def _sentence(tile: Tile) -> str:
    """What a step is made of, for those who do not see it."""
    gates = [i.title for i in tile.items.values() if i.kind == "gate"]
    states = [i.title for i in tile.items.values() if i.kind == "state"]
    reads = [i.title for i in tile.items.values() if i.kind == "input"]
    return f"reads {', '.join(reads)}; gates {', '.join(gates) or 'none'}; computes {', '.join(states)}."


# ---- delays

def _return_sides(tile: Tile) -> dict[int, str]:
    """On which side of the step each state returns."""
    middle = tile.height / 2
    return {slot: "above" if tile.layout.at[k][1] < middle and tile.height > 60 else "below"
            for slot, k in enumerate(tile.exits)}


def _delays(scene: Scene, tile: Tile, sides: Mapping[int, str], dx: float, dy: float) -> None:
    """Every state on its way back: around the step, through z⁻¹, to where it enters."""
    count = {"above": 0, "below": 0}
    for slot, side in sides.items():
        exit_key, entry_key = tile.exits[slot], tile.entries[slot]
        k = count[side] = count[side] + 1
        (x1, y1), (x0, y0) = tile.layout.at[exit_key], tile.layout.at[entry_key]
        start = (dx + x1 + tile.size[exit_key][0] / 2, dy + y1)
        end = (dx + x0 - tile.size[entry_key][0] / 2, dy + y0)
        level = dy - 20 * k - 4 if side == "above" else dy + tile.height + 20 * k
        right, left = dx + tile.width + 12 * k, dx - 12 * k
        middle = (right + left) / 2
        box = f"delay-{slot}"
        name = tile.recurrence.state_names[slot]
        there = straight(start, (right, start[1]), (right, level), (middle + 17, level))
        back = straight((middle - 17, level), (left, level), (left, end[1]), end)
        scene.add(Wire(f"d-{slot}-in", (exit_key, box), there, "delay", f"{name.partition('[')[0]} goes into the delay"),
                  Wire(f"d-{slot}-out", (box, entry_key), back, "delay", f"{pretty(name)} comes out of the delay"),
                  BoxShape(box, (middle, level), (34, 15), ["z⁻¹"], "op", f"a delay of one step, into {pretty(name)}",
                      radius=2, classes="delay"))


# ---- keys and legends

def _classes(weights: ParameterShapes) -> dict[str, str]:
    """A class for every parameter, so that all its places light up together."""
    return {w: f"p{i}" for i, w in enumerate(weights)}


def _entries(weights: ParameterShapes, flow: Flow | None) -> list[str]:
    """Every parameter with its shape, and the norm of its gradient."""
    out = []
    for name, shape in weights.items():
        norm = None if flow is None else flow.parameters.get(name)
        out.append(f"{name}: {shape}" + (f", ‖∂L‖ {norm:.2e}" if norm is not None else ""))
    return out


def weights_of(cell: Cell) -> dict[str, str]:
    """Every parameter of a cell with its shape, and what is special about it."""
    return {name: shape_of(shape) + (", fixed" if name in cell.fixed else ", the first state" if name in cell.learned else "")
            for name, shape in cell.parameters.items()}


def shape_of(sizes: Sequence[str]) -> str:
    """`h × (h+x)`."""
    return " × ".join(f"({s})" if "+" in s else s for s in sizes) or "1"


def _legend(scene: Scene, heading: str, entries: Sequence[str], classes: Mapping[str, str], at: Point, width: float,
            columns: int) -> float:
    """The parameters, once; where the box ends."""
    if not entries:
        return at[1]
    rows = -(-len(entries) // columns)
    width, height = max(width, text_width(heading, 10) * 1.1 + 24), LINE * rows + 30
    scene.add(Frame("parameters", at, (width, height), heading, "legend", dashed=True),
              Words((at[0] + 10, at[1] + 17), heading, bold=True, size=10))
    for i, (entry, css) in enumerate(zip(entries, classes.values(), strict=True)):
        x, y = at[0] + 10 + (i // rows) * (width - 10) / columns, at[1] + 32 + LINE * (i % rows)
        scene.add(Words((x, y), entry, kind=f"text {css}", size=9.5))
        scene.rules.append(f"#{PREFIX}:has(.{css}:hover) .{css}{{font-weight:bold;text-decoration:underline}}")
    return at[1] + height


def scale(scene: Scene, x: float, y: float, flow: Flow) -> float:
    """The heat scale: shades for decades below the largest norm; where it ends."""
    scene.add(Words((x, y + 11), "‖∂L/∂·‖", kind="quiet", size=10))
    x += text_width("‖∂L/∂·‖", 10) + 6
    for k in range(LEVELS, -1, -1):
        norm = flow.most * 10.0 ** (-flow.span * (LEVELS - k) / LEVELS)
        scene.add(Swatch((x, y), (16, 13), f"q{k}", f"{norm:.1e}" + (" and less" if not k else "")))
        if k % 4 == 0 and flow.most:
            said = f"{norm:.0e}".replace("e-0", "e-").replace("e+0", "e")
            scene.add(Words((x + 8, y + 24), said if k else f"≤{said}", "middle", "quiet", 8.5))
        x += 16
    others: list[tuple[str | None, str, str]] = [(None, "none", "zero, or no gradient")]
    others += [(f"q{BURST}", "inf", "infinite, or not a number")] if flow.burst else []
    for fill, said, title in others:
        scene.add(Swatch((x + 14, y), (26, 13), fill, title), Words((x + 27, y + 24), said, "middle", "quiet", 8.5))
        x += 30
    return x + 14
