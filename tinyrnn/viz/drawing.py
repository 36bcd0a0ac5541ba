"""`draw`, and what it returns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from ..analysis.recurrence import recurrences
from ..analysis.subject import Loss, Subject, subject_of_cell
from ..cells import Cell
from ..errors import ArgumentError
from ..files import atomic_write, path_of
from ..ir.graph import Graph
from ..ir.node import Node
from . import animation, formats, graphs, heatmap, models, over_time
from . import steps as step_pictures
from .canvas import Canvas, canvas_of, on_room
from .flow import Flow, flow_of
from .outlines import outlined
from .over_time import Steps
from .scene import Scene, clean
from .steps import weights_of
from .svg import drawn, xml
from .theme import DARK, THEMES
from .tikz import tikz
from .tile import DETAILS, Tile, gate_order, tile_of
from .wiring import Wired

Show = str | Sequence[int]
HEAT = ("heat", "values")  # what `show` may be of heat strips
_STYLE = ("body{margin:1rem;font-family:system-ui,sans-serif;overflow-x:auto}summary{cursor:pointer;padding:.4rem}"
          f"@media(prefers-color-scheme:dark){{.auto{{background:{DARK['background']}}}}}.dark{{background:{DARK['background']}}}")
_PRESSED = re.compile(r'(<g id="[^"]*" class="node cell-(\d+)\b.*?</g>)')
_POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""


class Drawing:
    """A picture: `.svg`, `.dot`, `.tikz()`, `.text()`, `.save("x.svg")`, `.animate("x.gif")`; a notebook shows it."""

    def __init__(self, scene: Scene, listing: Callable[[], str], theme: str = "auto", inside: Sequence[Drawing] = ()) -> None:
        self.scene, self.theme, self.inside = scene, theme, tuple(inside)
        self._listing = listing

    @property
    def title(self) -> str:
        return self.scene.title

    @cached_property
    def svg(self) -> str:
        """The picture as SVG: what Graphviz draws of `.dot`, with what a page needs."""
        return drawn(self.scene, self.theme)

    @cached_property
    def dot(self) -> str:
        """The picture as Graphviz source with positions: `dot -Knop2` keeps them, `dot` lays it out anew."""
        return self.scene.dot(self.theme)

    @property
    def html(self) -> str:
        """A page with the picture; the cells that it consists of unfold below, also where their boxes are pressed."""
        scheme = {"auto": "light dark", "dark": "dark"}.get(self.theme, "light")
        inside = "".join(f'<details><summary>{xml(d.title)}</summary><div id="cell-{i}">{d.svg}</div></details>'
                         for i, d in enumerate(self.inside))
        svg = _PRESSED.sub(r'<a href="#cell-\2">\1</a>', self.svg)
        return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY}<meta name="color-scheme" '
                f'content="{scheme}"><meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{xml(self.title)}</title><style>{_STYLE}</style></head>"
                f'<body class="{self.theme}">{svg}{inside}</body></html>\n')

    def text(self) -> str:
        """The same as a listing."""
        return self._listing()

    def tikz(self, overlays: bool = False) -> str:
        """The picture as a `tikzpicture`; with `overlays` a slide of Beamer for each stage of forward, loss and backward."""
        return tikz(self.scene, self.theme, overlays)

    def animated(self, seconds: float = 0.6) -> str:
        """The picture as an SVG that comes about: forward, loss, backward."""
        return animation.animated(self.svg, self.scene, seconds, self.theme)

    def animate(self, file: str | os.PathLike[str], *, seconds: float = 0.6, width: int | None = None) -> None:
        """Write a film of forward, loss and backward, `seconds` for each stage: .svg, .gif (pillow), .mp4 (ffmpeg)."""
        path = path_of(file)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.02 <= seconds <= 60:
            raise ArgumentError(f"seconds={seconds!r}: expected the time of a stage, from 0.02 to 60")
        scale = formats.pixels_per_point(self.scene.size, None, width or min(1280, round(2 * self.scene.size[0])))
        match path.suffix.lower():
            case ".svg":
                data = self.animated(seconds).encode()
            case ".gif":
                data = animation.gif(self.svg, self.scene, self.theme, seconds, scale)
            case ".mp4":
                data = animation.mp4(self.svg, self.scene, self.theme, seconds, scale)
            case other:
                raise ArgumentError(f"cannot animate a picture as {other or path.name!r}; use .svg, .gif, .mp4")
        atomic_write(path, data)

    def save(self, file: str | os.PathLike[str], *, dpi: float | None = None, width: int | None = None,
             outlines: bool = False, overlays: bool = False) -> None:
        """Write the picture; the ending of the name says how: .svg, .png, .pdf, .tex, .dot, .html, .txt.

        A PNG has two pixels a point, or as many as `dpi` (dots per inch) or `width` (in pixels) say.  A PDF holds its fonts;
        an SVG with `outlines` needs none.  A .tex file is TikZ; with `overlays` Beamer shows it stage by stage.
        """
        if not isinstance(file, (str, os.PathLike)):
            raise ArgumentError(f"the name of a file is text, such as 'picture.svg'; got {type(file).__name__}")
        path = path_of(file)
        if path.suffix.lower() != ".png" and (dpi, width) != (None, None):
            raise ArgumentError(f"dpi and width are of PNG; {path.name!r} has no pixels")
        if (outlines and path.suffix.lower() != ".svg") or (overlays and path.suffix.lower() != ".tex"):
            raise ArgumentError(f"outlines are of SVG and overlays of TikZ (.tex), not of {path.name!r}")
        match path.suffix.lower():
            case ".svg":
                data = (outlined(self.svg) if outlines else self.svg).encode()
            case ".tex":
                data = self.tikz(overlays).encode()
            case ".png":
                data = formats.png(self.svg, self.scene.size, formats.pixels_per_point(self.scene.size, dpi, width))
            case ".pdf":
                data = formats.pdf(self.svg, self.scene.size, self.title)
            case ".dot" | ".gv":
                data = self.dot.encode()
            case ".html":
                data = self.html.encode()
            case ".txt":
                data = self.text().encode()
            case other:
                raise ArgumentError(f"cannot save a picture as {other or path.name!r}; use .svg, .png, .pdf, .tex, .dot, "
                                    ".html, .txt")
        atomic_write(path, data)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<Drawing {self.title}>"


def draw(what: Cell | Graph | Wired | Sequence[Cell], file: str | os.PathLike[str] | None = None, *, steps: Steps = None,
         gradients: bool = False, values: Mapping[str, Any] | None = None, loss: Loss = None, show: Show = "auto",
         after: Graph | None = None, theme: str = "auto", format: str | None = None, detail: str | None = None,
         parameters: bool = True, font_size: float | None = None, title: str | None = None, direction: str = "right",
         scale: tuple[float, float] | None = None, tokens: Sequence[str] | None = None, feedback: bool = False) -> Drawing:
    """Draw a cell or a model (folded, or unrolled over `steps`), or any graph.

    With `gradients` the way back is drawn beside the way forward: width and fill say the logarithm of `‖∂L/∂·‖` in a
    run on `values` (parameters by name, inputs `x` [T, ...] or [T, B, ...]; random where nothing is given), where the
    `loss` is "sum" of all outputs, "last", or a function of the list of outputs.  `show` is "auto" (long sequences as
    their first two and last steps), "all", a list of steps, "heat" (the gradient of quantities × time, for any length) or
    "values" (their mean value).  `scale=(low, high)` fixes the scale of shades: darker is larger.  Several cells stand above
    one another as heat strips on one scale; `tokens` are the words under the steps.  With `after`, a graph is drawn beside
    what a pass made of it.

    `format` is "slide" (16:9, no text under 18 points at 13.3 inches), "page" (the column of an A4 page), "wide" (one row)
    or None.  `detail` is "block" (a step is one box), "gates" or "ops"; a slide or page takes the finest that finds room.
    `parameters=False` leaves out the names of weights; `font_size` is in points; `direction` is "right" or "down".  `theme`
    is auto (follows the reader's setting), light, dark or print.  Saved as .html, the picture of a model unfolds the cells of
    its layers as well.

    Raises `ArgumentError` for an option that does not fit what is drawn, or a picture that does not fit its format;
    `ShapeError` for values of another shape; `DrawError` where there is no Graphviz.

    >>> import tinyrnn as tr
    >>> drawing = tr.draw(tr.cells.GRU, steps=3, gradients=True)
    >>> drawing.svg.startswith("<svg") and "t = 3" in drawing.svg
    True
    """
    if not isinstance(show, (str, list, tuple, range, np.ndarray)):
        raise step_pictures.wrong_show(show)
    show = show if isinstance(show, str) else list(show)
    canvas, limits = canvas_of(format, font_size, parameters, title, direction), heatmap.checked_limits(scale, show == "values")
    _check(show, gradients, theme, detail, canvas, limits, tokens)
    if isinstance(what, (Cell, list, tuple)):
        if after is not None:
            raise ArgumentError("after= compares two graphs; a cell has cell.graph() and cell.unroll(steps)")
        if isinstance(steps, (list, tuple)):
            raise ArgumentError(f"steps={steps!r}: a cell has one sequence, give one number such as steps=4")
        if feedback:
            raise ArgumentError("feedback is of models, whose outputs may be read as their next inputs")
        cells = [what] if isinstance(what, Cell) else list(what)
        if not cells or not all(isinstance(c, Cell) for c in cells):
            raise ArgumentError("a list to draw holds cells, such as [tr.cells.RNN, tr.cells.LSTM]")
        if show in HEAT:
            drawing = _heat(cells, steps, values, loss, str(show), limits, tokens, canvas, theme)
        elif len(cells) > 1:
            raise ArgumentError("several cells are drawn as heat strips above one another: show='heat' or show='values'")
        else:
            drawing = _cell(cells[0], steps, gradients, values, loss, show, theme, canvas, detail, limits)
    elif isinstance(what, Wired) and not isinstance(what, type):
        if after is not None or show in HEAT:
            raise ArgumentError("a model is drawn as boxes: after= compares graphs, heat strips are of cells")
        drawing = _model(what, steps, gradients, values, loss, show, feedback, theme, canvas, detail, limits)
    elif isinstance(what, Graph):
        if gradients or show != "auto" or any(v is not None for v in (steps, values, loss, detail)):
            raise ArgumentError("steps, gradients, values, loss, show and detail are for cells; a graph is drawn as it is")
        drawing = _graph(what, after, theme, canvas)
    else:
        raise ArgumentError(f"draw takes a cell, a list of cells, a model or a graph, got {type(what).__name__}")
    if file is not None:
        drawing.save(file)
    return drawing


def _check(show: Show, gradients: bool, theme: str, detail: str | None, canvas: Canvas, limits: heatmap.Limits,
           tokens: Sequence[str] | None) -> None:
    """Whether options are what they may be, and fit each other."""
    if not isinstance(gradients, (bool, np.bool_)):
        raise ArgumentError(f"gradients={gradients!r}: expected True or False")
    if theme not in THEMES:
        raise ArgumentError(f"theme={theme!r}: expected one of {', '.join(THEMES)}")
    if detail is not None and detail not in DETAILS:
        raise ArgumentError(f"detail={detail!r}: expected one of {', '.join(DETAILS)}")
    if show in HEAT and (canvas.down or detail is not None):
        raise ArgumentError("detail and direction are not of heat strips: steps run to the right, a row for every quantity")
    if tokens is not None and show not in HEAT:
        raise ArgumentError("tokens stand below heat strips: ask for show='heat' or show='values'")
    if limits is not None and show not in HEAT and not gradients:
        raise ArgumentError("scale is of gradients or values: ask for gradients=True, show='heat' or show='values'")


def flowing(cell: Cell, subject: Subject, canvas: Canvas | None = None, detail: str = "gates",
            limits: heatmap.Limits = None) -> tuple[Tile, Flow]:
    """The tile of a cell and the gradients of a run on it."""
    tile = tile_of(subject.recurrences[0], gate_order(cell), canvas, detail, cell.name)
    flow = flow_of(tile, subject.scan_data[0], subject.loss, subject.caption)
    return tile, flow if limits is None else flow.on_scale(*limits)


TIGHT = 0.6  # of the usual room between things, where there is little
STEPS = "show fewer steps (show=[1, -1]), parameters=False or detail='block'"


def _finest(scenes: Iterable[Scene], canvas: Canvas, advice: str) -> Scene:
    """The first picture, from the finest to the coarsest, that finds room."""
    for scene in scenes:
        if canvas.fits(scene):
            return on_room(scene, canvas)
    needs, room = (f"{a:,.0f} × {b:,.0f}" if b < inf else f"{a:,.0f} (and any height)" for a, b in (scene.size, canvas.room))
    raise ArgumentError(f"{clean(scene.title, 60)} needs {needs} points with text of {canvas.font:g} points; there are {room}: "
                        f"{advice}, or draw it without a format")


def _ways(canvas: Canvas, detail: str | None) -> Iterator[tuple[Canvas, str]]:
    """From fine to coarse, and of a slide from large letters to small ones, as far as the user leaves it open."""
    bounded = canvas.room[0] < inf
    for level in [detail] if detail else ["gates", "block"] if bounded else ["gates"]:
        for s in [canvas, replace(canvas, parameters=False)] if bounded and canvas.parameters else [canvas]:
            for by in (1.5, 1.2, 1.0) if canvas.room[1] < canvas.room[0] else (1.0,):
                yield replace(s, font=s.font * by, small=s.small * by, least=s.least * by), level
            if bounded:
                yield replace(s, tight=TIGHT), level


def _cell(cell: Cell, steps: int | None, gradients: bool, values: Mapping[str, Any] | None, loss: Loss, show: Show,
          theme: str, canvas: Canvas, detail: str | None, limits: heatmap.Limits) -> Drawing:
    if not gradients and (values is not None or loss is not None):
        raise ArgumentError("values and loss belong to a run: ask for gradients=True, show='heat' or show='values'")
    if steps is None and (gradients or show != "auto") and not (values and any(n in values for n in cell.inputs)):
        raise ArgumentError("gradients and heat maps are of an unrolled cell: give steps=, for example steps=4")
    if not gradients and steps is None:
        return _folded(cell, cell.title, theme, canvas, detail)
    ways: list[tuple[Canvas, str, Show]] = [(c, d, show) for c, d in _ways(canvas, detail)]
    if show == "auto" and canvas.room[0] < inf:  # at the last, the first step and the last
        ways.append((*ways[-1][:2], [1, -1]))
    weights = weights_of(cell)
    if gradients:
        subject = subject_of_cell(cell, steps, values, loss)
        flows = ((c, shown, *flowing(cell, subject, c, d, limits)) for c, d, shown in ways)
        scenes = (step_pictures.unrolled(t, cell.title, weights, shown, f, c) for c, shown, t, f in flows)
        scene = _finest(scenes, canvas, STEPS)
        return Drawing(scene, lambda: heatmap.table(*flowing(cell, subject)), theme)
    assert steps is not None
    found, order = recurrences(cell.rolled(steps))[0], gate_order(cell)
    scene = _finest((step_pictures.unrolled(tile_of(found, order, c, d, cell.name), cell.title, weights, shown, None, c)
                     for c, d, shown in ways), canvas, STEPS)
    return Drawing(scene, lambda: str(cell.unroll(steps)), theme)


def _folded(cell: Cell, title: str, theme: str, canvas: Canvas, detail: str | None = None) -> Drawing:
    found = recurrences(cell.rolled(1))[0]
    scene = _finest((step_pictures.folded(tile_of(found, gate_order(cell), s, d, cell.name), title, weights_of(cell), s)
                     for s, d in _ways(canvas, detail)), canvas, "try parameters=False or detail='block'")
    return Drawing(scene, lambda: cell.text, theme)


def _heat(cells: Sequence[Cell], steps: int | None, values: Mapping[str, Any] | None, loss: Loss, show: str,
          limits: heatmap.Limits, tokens: Sequence[str] | None, canvas: Canvas, theme: str) -> Drawing:
    if steps is None and not (values and any(n in values for c in cells for n in c.inputs)):
        raise ArgumentError("heat strips are of an unrolled cell: give steps=, for example steps=100, or a sequence among the "
                            "values")
    strips = []
    for cell in cells:
        subject = subject_of_cell(cell, steps, values, loss)
        tile, flow = flowing(cell, subject)
        strips.append(heatmap.Strip(clean(cell.name, 40), cell.title, tile, flow))
    length = strips[0].steps
    words = list(tokens) if isinstance(tokens, (list, tuple, np.ndarray)) else None
    if tokens is not None and (words is None or len(words) != length or not all(isinstance(t, str) for t in words)):
        seen = type(tokens).__name__ if words is None else f"{len(words)} tokens"
        raise ArgumentError(f"tokens= is a list of {length} words, one for every step; got {seen}")
    tight = replace(canvas, tight=TIGHT)
    ways = [(canvas, heatmap.KINDS), (tight, heatmap.KINDS), (tight, ("state", "gate")),
            (tight, ("gate",) if show == "values" else ("state",)), (tight, ("state",))]
    ways = [(c, kinds) for c, kinds in ways if all(heatmap.rows_of(s.tile, kinds) for s in strips)]
    scene = _finest((heatmap.heatmap(strips, show == "values", limits, words, s, kinds) for s, kinds in ways), canvas,
                    "draw fewer cells, fewer steps, or shorter words")
    return Drawing(scene, lambda: "\n\n".join(heatmap.table(s.tile, s.flow, show == "values") for s in strips), theme)


def _graph(graph: Graph, after: Graph | None, theme: str, canvas: Canvas) -> Drawing:
    scenes = (graphs.general(graph, c) if after is None else graphs.difference(graph, after, c) for c in _looser(canvas))
    scene = _finest(scenes, canvas, "draw a smaller graph")
    return Drawing(scene, lambda: str(graph) if after is None else f"{graph}\n\n{after}", theme)


def _looser(canvas: Canvas) -> Iterator[Canvas]:
    """What may be tried for a graph or a model where there is little room."""
    yield canvas
    if canvas.room[0] < inf:
        tight = replace(canvas, tight=TIGHT)
        yield from (tight, replace(canvas, down=True), replace(tight, down=True), replace(tight, parameters=False),
                    replace(tight, down=True, parameters=False))


def _model(model: Wired, steps: Steps, gradients: bool, values: Mapping[str, Any] | None, loss: Loss, show: Show,
           feedback: bool, theme: str, canvas: Canvas, detail: str | None, limits: heatmap.Limits) -> Drawing:
    inner = replace(canvas, title=None)
    inside = [_folded(cell, f"{name}: {cell.title}", theme, inner) for name, cell in models.cells_of(model)]
    if steps is None and not gradients:
        if values is not None or loss is not None or show != "auto" or feedback or detail is not None:
            raise ArgumentError("values, loss, show, detail and feedback are of a model over time: give steps=, for example "
                                "steps=4")
        scene = _finest((models.layers(model, c) for c in _looser(canvas)), canvas, "draw its parts")
    else:
        picture = over_time.of_model(model, steps, gradients, values, loss, feedback, limits)
        ways: list[tuple[Canvas, str, Show]] = [(c, d, show) for c, d in _ways(canvas, detail)]
        if show == "auto" and canvas.room[0] < inf:
            ways.append((*ways[-1][:2], [1, -1]))
        scene = _finest((over_time.scene(picture, d, shown, c) for c, d, shown in ways), canvas, STEPS)
    return Drawing(scene, lambda: str(model.summary()), theme, inside)


def draw_path(title: str, nodes: Sequence[Node], said: Sequence[str], file: str | os.PathLike[str] | None = None,
              theme: str = "auto") -> Drawing:
    """A path through a graph."""
    drawing = Drawing(graphs.path(title, nodes, said, Canvas()), lambda: "\n".join(said), theme)
    if file is not None:
        drawing.save(file)
    return drawing
