"""A model layer by layer: what reads what, shapes and parameters; recurrent layers hold cells that unfold."""

from __future__ import annotations

from ..cells import Cell
from .layered import Arrangement, lay_out
from .scene import LINE, BoxShape, Frame, Scene, Wire, Words, curve, fitted, straight, text_width
from .steps import MARGIN
from .wiring import Wired, Wiring, count_of


def cells_of(model: Wired) -> list[tuple[str, Cell]]:
    """The cells of a model, each once, with the name of the first layer that runs it."""
    found: dict[Cell, str] = {}
    for name, m in model.named_modules():
        if isinstance(m.cell, Cell):
            found.setdefault(m.cell, name or type(m).__name__)
    return [(name, cell) for cell, name in found.items()]


def layers(model: Wired) -> Scene:
    """The layers of a model; recurrent ones with the loop of their state, and the direction in which they read."""
    wiring = Wiring()
    source = wiring.box(["x"], [], "input")
    ends = wiring.add(model, "", [source])
    wiring.box(["output"], ends, "state")
    size = {k: (min(max(34.0, max(text_width(t[:90], 11 if i == 0 else 9.5) for i, t in enumerate(lines)) + 16), 420.0),
                LINE * len(lines) + 12) for k, lines in wiring.lines.items()}
    layout = lay_out(Arrangement(size, wiring.reads, gap=(36.0, 44.0)))
    title = f"{type(model).__name__}: {count_of(model)}"
    scene = Scene(title, f"{title}. " + "; ".join(", ".join(lines) for lines in wiring.lines.values()) + ".")
    scene.add(Words((MARGIN, 24), title, size=14, bold=True))
    dx, dy = MARGIN, 74.0
    for (a, b), route in layout.route.items():
        scene.add(Wire(f"f-{a}-{b}", (a, b), curve([(x + dx, y + dy) for x, y in route]), "forward",
                       f"{wiring.lines[a][0]} → {wiring.lines[b][0]}"))
    for a, b in wiring.queries:
        low = dy + layout.height + 16
        (ax, ay), (bx, by) = layout.at[a], layout.at[b]
        start, end = (ax + dx, ay + dy + size[a][1] / 2), (bx + dx, by + dy + size[b][1] / 2)
        route = straight(start, (start[0], low), (end[0], low), end)
        scene.add(Wire(f"asks-{a}", (a, b), route, "delay", "the decoder's last state asks where to look"))
    for k, lines in wiring.lines.items():
        x, y = layout.at[k][0] + dx, layout.at[k][1] + dy
        if k in wiring.time_direction:
            _loop(scene, k, (x, y), size[k], wiring.time_direction[k])
        radius = 0 if wiring.fill[k] == "input" else 5
        scene.add(BoxShape(k, (x, y), size[k], lines, wiring.fill[k], ", ".join(lines), radius=radius))
    right, bottom = _lists(scene, wiring, dy + layout.height + 30)
    scene.size = (max(dx + layout.width + MARGIN, 1.1 * text_width(title, 14) + 2 * MARGIN, right), bottom)
    return scene


def _loop(scene: Scene, key: str, at: tuple[float, float], size: tuple[float, float], direction: str) -> None:
    """The state's way around its layer, through z⁻¹; time runs against the reading direction where it is drawn leftwards."""
    (x, y), (w, h) = at, size
    side, up = w / 4 if direction == "forward" else -w / 4, y - h / 2 - 17
    box = f"{key}-delay"
    edge, top = (13 if side > 0 else -13), y - h / 2
    scene.add(Wire(f"{key}-in", (key, box), straight((x + side, top), (x + side, up), (x + edge, up)), "delay",
                   "the state goes into the delay"),
              Wire(f"{key}-out", (box, key), straight((x - edge, up), (x - side, up), (x - side, top)), "delay",
                   f"the state of the step {'before' if direction == 'forward' else 'after'} comes back"),
              BoxShape(box, (x, up), (26, 14), ["z⁻¹" if direction == "forward" else "z⁺¹"], "op",
                  f"a delay of one step, {direction} in time", radius=2, classes="delay"))


def _lists(scene: Scene, wiring: Wiring, top: float) -> tuple[float, float]:
    """What is inside modules whose wiring only their own code knows; where the lists end."""
    right = 0.0
    for key, entries in wiring.opaque:
        height = LINE * len(entries) + 28
        heading = f"inside {wiring.lines[key][0]}"
        entries = [fitted(e, 600, 9.5) for e in entries]
        heading = fitted(heading, 600, 10)
        wide = max(map(text_width, (heading, *entries))) + 24
        right = max(right, wide + 2 * MARGIN)
        scene.add(Frame(f"{key}-inside", (MARGIN, top), (wide, height), heading, "legend", dashed=True),
                  Words((MARGIN + 10, top + 16), heading, bold=True, size=10))
        scene.add(*(Words((MARGIN + 10, top + 31 + LINE * i), e, size=9.5) for i, e in enumerate(entries)))
        top += height + 10
    return right, top + 10
