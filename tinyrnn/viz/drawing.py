"""`draw`, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..analysis.recurrence import recurrences
from ..analysis.subject import Loss, Subject, subject_of_cell
from ..cells import Cell
from ..errors import ArgumentError
from ..files import atomic_write, path_of
from ..ir.graph import Graph
from ..ir.node import Node
from . import graphs, heatmap, models, raster
from . import steps as step_pictures
from .flow import Flow, flow_of
from .scene import Scene, xml
from .steps import weights_of
from .theme import THEMES
from .tile import Tile, gate_order, tile_of
from .wiring import Wired

Show = str | Sequence[int]
_STYLE = "body{margin:1rem;font-family:system-ui,sans-serif;overflow-x:auto}summary{cursor:pointer;padding:.4rem}"
_POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""


class Drawing:
    """A picture: `.svg`, `.dot`, `.text()`, `.save("x.svg")`; shows itself in a notebook."""

    def __init__(self, scene: Scene, listing: Callable[[], str], theme: str = "auto", inside: Sequence[Drawing] = ()) -> None:
        self.scene, self.theme, self.inside = scene, theme, tuple(inside)
        self._listing = listing

    @property
    def title(self) -> str:
        return self.scene.title

    @cached_property
    def svg(self) -> str:
        """The picture as SVG."""
        return self.scene.svg(self.theme)

    @cached_property
    def dot(self) -> str:
        """The picture as Graphviz source with positions: `dot -Knop2` keeps them, `dot` lays it out anew."""
        return self.scene.dot(self.theme)

    @property
    def html(self) -> str:
        """A page with the picture; what it consists of unfolds below."""
        scheme = {"auto": "light dark", "dark": "dark"}.get(self.theme, "light")
        inside = "".join(f"<details><summary>{xml(d.title)}</summary>{d.svg}</details>" for d in self.inside)
        return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY}<meta name="color-scheme" '
                f'content="{scheme}"><meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{xml(self.title)}</title><style>{_STYLE}</style></head><body>{self.svg}{inside}</body></html>\n")

    def text(self) -> str:
        """The same as a listing."""
        return self._listing()

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the picture; the ending of the name says how: .svg, .png, .dot, .html, .txt."""
        if not isinstance(file, (str, os.PathLike)):
            raise ArgumentError(f"the name of a file is text, such as 'picture.svg'; got {type(file).__name__}")
        path = path_of(file)
        match path.suffix.lower():
            case ".svg":
                data = self.svg.encode()
            case ".png":
                data = raster.png(self.scene.svg("light" if self.theme == "auto" else self.theme), self.scene.size)
            case ".dot" | ".gv":
                data = self.dot.encode()
            case ".html":
                data = self.html.encode()
            case ".txt":
                data = self.text().encode()
            case other:
                raise ArgumentError(f"cannot save a picture as {other or path.name!r}; use .svg, .png, .dot, .html or .txt")
        atomic_write(path, data)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<Drawing {self.title}>"


def draw(what: Cell | Graph | Wired, file: str | os.PathLike[str] | None = None, *, steps: int | None = None,
         gradients: bool = False, values: Mapping[str, Any] | None = None, loss: Loss = None, show: Show = "auto",
         after: Graph | None = None, theme: str = "auto") -> Drawing:
    """Draw a cell (folded, or unrolled over `steps`), a model layer by layer, or any graph.

    With `gradients` the way back is drawn beside the way forward: width and fill say the logarithm of `‖∂L/∂·‖` in a
    run on `values` (parameters by name, inputs `x` [T, ...] or [T, B, ...]; random where nothing is given), where the
    `loss` is "sum" of all outputs, "last", or a function of the list of outputs.  `show` is "auto" (long sequences as
    their first two and last steps), "all", a list of steps, or "heat" (quantities × time, for any length).  With
    `after`, a graph is drawn beside what a pass made of it.  `theme` is auto (follows the reader's setting), light,
    dark or print.  Saved as .html, the picture of a model unfolds the cells of its layers as well.

    Raises `ArgumentError` for an option that does not fit what is drawn, and `ShapeError` for values of another shape.

    >>> import tinyrnn as tr
    >>> drawing = tr.draw(tr.cells.GRU, steps=3, gradients=True)
    >>> drawing.svg.startswith("<svg") and "t = 3" in drawing.svg
    True
    """
    if not isinstance(show, (str, list, tuple)):
        raise ArgumentError(f"show={show!r}: expected 'auto', 'all', 'heat' or a list of steps such as [1, 2, -1]")
    if not isinstance(gradients, bool):
        raise ArgumentError(f"gradients={gradients!r}: expected True or False")
    if theme not in THEMES:
        raise ArgumentError(f"theme={theme!r}: expected one of {', '.join(THEMES)}")
    if isinstance(what, Cell):
        if after is not None:
            raise ArgumentError("after= compares two graphs; a cell has cell.graph() and cell.unroll(steps)")
        drawing = _cell(what, steps, gradients or show == "heat", values, loss, show, theme)
    elif isinstance(what, (Graph, Wired)) and not isinstance(what, type):
        unrolled = steps is not None or gradients or values is not None or loss is not None or show != "auto"
        if unrolled:
            raise ArgumentError("steps, gradients, values, loss and show are for cells; a graph or model is drawn as it is")
        if isinstance(what, Wired) and after is not None:
            raise ArgumentError("after= compares two graphs")
        drawing = _graph(what, after, theme) if isinstance(what, Graph) else _model(what, theme)
    else:
        raise ArgumentError(f"draw takes a cell, a model or a graph, got {type(what).__name__}")
    if file is not None:
        drawing.save(file)
    return drawing


def folded_tile(cell: Cell) -> Tile:
    """The step of a cell, laid out."""
    return tile_of(recurrences(cell.rolled(1))[0], gate_order(cell))


def _cell(cell: Cell, steps: int | None, gradients: bool, values: Mapping[str, Any] | None, loss: Loss, show: Show,
          theme: str) -> Drawing:
    if not gradients and (values is not None or loss is not None):
        raise ArgumentError("values and loss belong to a run: ask for gradients=True or show='heat'")
    if steps is None and (gradients or show != "auto") and not (values and any(n in values for n in cell.inputs)):
        raise ArgumentError("gradients and heat maps are of an unrolled cell: give steps=, for example steps=4")
    if not gradients and steps is None:
        return _folded(cell, cell.title, theme)
    if not gradients and steps is not None:
        tile = tile_of(recurrences(cell.rolled(steps))[0], gate_order(cell))
        scene = step_pictures.unrolled(tile, cell.title, weights_of(cell), show, None)
        return Drawing(scene, lambda: str(cell.unroll(steps)), theme)
    subject = subject_of_cell(cell, steps, values, loss)
    tile, flow = flowing(cell, subject)
    scene = (heatmap.heatmap(tile, cell.title, flow) if show == "heat" else
             step_pictures.unrolled(tile, cell.title, weights_of(cell), show, flow))
    return Drawing(scene, lambda: heatmap.table(tile, flow), theme)


def _folded(cell: Cell, title: str, theme: str) -> Drawing:
    return Drawing(step_pictures.folded(folded_tile(cell), title, weights_of(cell)), lambda: cell.text, theme)


def flowing(cell: Cell, subject: Subject) -> tuple[Tile, Flow]:
    """The tile of a cell and the gradients of a run on it."""
    tile = tile_of(subject.recurrences[0], gate_order(cell))
    return tile, flow_of(tile, subject.scan_data[0], subject.loss, subject.caption)


def _graph(graph: Graph, after: Graph | None, theme: str) -> Drawing:
    if after is None:
        return Drawing(graphs.general(graph), lambda: str(graph), theme)
    return Drawing(graphs.difference(graph, after), lambda: f"{graph}\n\n{after}", theme)


def _model(model: Wired, theme: str) -> Drawing:
    inside = [_folded(cell, f"{name}: {cell.title}", theme) for name, cell in models.cells_of(model)]
    return Drawing(models.layers(model), lambda: str(model.summary()), theme, inside)


def draw_path(title: str, nodes: Sequence[Node], said: Sequence[str], file: str | os.PathLike[str] | None = None,
              theme: str = "auto") -> Drawing:
    """A path through a graph."""
    drawing = Drawing(graphs.path(title, nodes, said), lambda: "\n".join(said), theme)
    if file is not None:
        drawing.save(file)
    return drawing

