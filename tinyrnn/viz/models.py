"""A model layer by layer: what reads what, shapes and parameters; recurrent layers hold cells that unfold."""

from __future__ import annotations

from collections.abc import Sequence

from ..cells import Cell
from ..cells.paper import pretty
from .canvas import Canvas, Legend, composed
from .layered import Arrangement, lay_out
from .scene import BoxShape, Part, Scene, Wire, curve, fitted, straight, text_width
from .tile import box_size
from .wiring import LayerBox, Wired, Wiring, count_of


def cells_of(model: Wired) -> list[tuple[str, Cell]]:
    """The cells of a model, each once, with the name of the first layer that runs it."""
    found: dict[Cell, str] = {}
    for name, m in model.named_modules():
        if isinstance(m.cell, Cell):
            found.setdefault(m.cell, name or type(m).__name__)
    return [(name, cell) for cell, name in found.items()]


def wired(model: Wired) -> Wiring:
    """The boxes of a model, from its input to its output."""
    wiring = Wiring()
    source = wiring.box(["x"], [], "input", symbol=_together(model.joint_inputs) or "xₜ")
    own = model.cell.outputs if isinstance(model.cell, Cell) and len(model.cell.outputs) > 1 else ()
    wiring.box(["output"], wiring.add(model, "", [source]), "state", symbol=_together(own) or "yₜ")
    wiring, cells = wiring.used(), [cell for _, cell in cells_of(model)]
    for b in wiring.boxes.values():
        b.cell = cells.index(b.layer.cell) if b.direction and b.layer is not None and b.layer.cell in cells else None
    return wiring


def _together(names: Sequence[str]) -> str:
    """Several quantities in one box."""
    return " ".join(pretty(f"{n}[t]") for n in names)


def opening(box: LayerBox) -> str:
    """The class of a box that unfolds a cell where it is pressed."""
    return "" if box.cell is None else f"cell-{box.cell}"


def layers(model: Wired, canvas: Canvas) -> Scene:
    """The layers of a model; recurrent ones with the loop of their state, and the direction in which they read."""
    wiring = wired(model)
    boxes = wiring.boxes
    lines = {k: [t[:90] for t in b.lines] if canvas.parameters else [b.lines[0][:90]] for k, b in boxes.items()}
    size = {k: canvas.turned(box_size(said, canvas, 40.0)) for k, said in lines.items()}
    loops = max((_loop_size(b.direction, canvas)[1] for b in boxes.values() if b.direction), default=0.0) + 14
    layout = lay_out(Arrangement(size, {k: b.reads for k, b in boxes.items()}, gap=(canvas.gap(36.0), loops + 12.0)))
    title = f"{type(model).__name__}: {count_of(model)}"
    scene = Scene(title, f"{title}. " + "; ".join(", ".join(b.lines) for b in boxes.values()) + ".")
    body: list[Part] = []
    for (a, b), route in layout.route.items():
        body.append(Wire(f"f-{a}-{b}", (a, b), curve([(x, y + loops) for x, y in route]), "forward",
                         f"{boxes[a].lines[0]} → {boxes[b].lines[0]}"))
    low = loops + layout.height + 16
    for a, b in wiring.queries:
        (ax, ay), (bx, by) = layout.at[a], layout.at[b]
        start, end = (ax, ay + loops + size[a][1] / 2), (bx, by + loops + size[b][1] / 2)
        body.append(Wire(f"asks-{a}", (a, b), straight(start, (start[0], low), (end[0], low), end), "delay",
                         "the decoder's last state asks where to look"))
    for k, said in lines.items():
        x, y = layout.at[k][0], layout.at[k][1] + loops
        if boxes[k].direction:
            body += _loop(k, (x, y), size[k], boxes[k].direction, canvas)
        fill = boxes[k].fill
        body.append(BoxShape(k, (x, y), size[k], said, fill, ", ".join(boxes[k].lines), square=fill == "input",
                             classes=opening(boxes[k]), font=canvas.font))
    bottom = low + 8 if wiring.queries else loops + layout.height
    return _lists(composed(scene, canvas, body, (layout.width, bottom)), wiring, canvas)


def _loop_size(direction: str, canvas: Canvas) -> tuple[float, float]:
    said = "previous step" if direction == "forward" else "next step"
    return canvas.turned((text_width(said, canvas.font) + 10, canvas.line + 2))


def _loop(key: str, at: tuple[float, float], size: tuple[float, float], direction: str, canvas: Canvas) -> list[Part]:
    """The state's way around its layer; time runs against the reading direction where it is drawn leftwards."""
    (x, y), (w, h) = at, size
    wide, tall = _loop_size(direction, canvas)
    said, edge = ("previous step", wide / 2) if direction == "forward" else ("next step", -wide / 2)
    side = max(w / 4, abs(edge) + 9) if direction == "forward" else -max(w / 4, abs(edge) + 9)
    inner = max(min(abs(side), w / 2 - 4), 0) * (1 if side > 0 else -1)
    top, up = y - h / 2, y - h / 2 - tall / 2 - 10
    box = f"{key}-delay"
    out = straight((x + inner, top), (x + side, top - 8), (x + side, up), (x + edge, up))
    back = straight((x - edge, up), (x - side, up), (x - side, top - 8), (x - inner, top))
    return [Wire(f"{key}-in", (key, box), out, "delay", "the state is kept"),
            Wire(f"{key}-out", (box, key), back, "delay", f"the state of the {said} comes back"),
            BoxShape(box, (x, up), (wide, tall), [said], "op", f"the state of the {said}; the layer runs {direction} in time",
                     classes="delay", font=canvas.font)]


def _lists(scene: Scene, wiring: Wiring, canvas: Canvas) -> Scene:
    """What is inside modules whose wiring only their own code knows."""
    right, top = scene.size
    for key, entries in wiring.opaque:
        heading, *shown = (fitted(e, 600, canvas.small) for e in (f"inside {wiring.boxes[key].lines[0]}", *entries))
        box = Legend(f"{key}-inside", heading, shown, canvas, 640)
        wide, high = box.size(1)
        scene.add(*box.parts((canvas.margin, top), 1, wide))
        right, top = max(right, wide + 2 * canvas.margin), top + high + 10
    return scene.sized(right, top + (10 if wiring.opaque else 0))
