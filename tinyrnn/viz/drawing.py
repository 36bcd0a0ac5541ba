"""`draw`, and what it returns."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from ..cells import Cell
from ..errors import ArgumentError
from ..files import atomic_write
from ..ir.graph import LENSES, Graph
from . import picture, renderer, tiles
from .theme import DARK, LIGHT, THEMES, dark_rules


class Drawing:
    """A picture: `.svg`, `.dot`, `.text()`, `.save("x.svg")`; shows itself in a notebook."""

    def __init__(self, dot: str, listing: str, title: str, theme: str, placed: bool = False) -> None:
        self.dot, self.title, self.theme = dot, title, theme
        self._listing, self._placed = listing, placed

    @cached_property
    def svg(self) -> str:
        """The picture as SVG text."""
        raw = renderer.render(self.dot, "svg", self._placed).decode()
        head, _, rest = raw[raw.index("<svg"):].partition(">")
        label = self.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        style = f"<style>@media (prefers-color-scheme: dark){{{dark_rules()}}}</style>" if self.theme == "auto" else ""
        return f'{head} role="img" aria-label="{label}">{style}{rest}'

    def text(self) -> str:
        """The same as a listing."""
        return self._listing

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the picture; the ending of the name says how: .svg, .png, .dot, .html, .txt."""
        path = Path(file)
        match path.suffix.lower():
            case ".svg":
                data = self.svg.encode()
            case ".png":
                data = renderer.render(self.dot, "png", self._placed)
            case ".dot" | ".gv":
                data = self.dot.encode()
            case ".html":
                data = ('<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
                        'content="width=device-width"><meta name="color-scheme" content="light dark">'
                        f"<title>{_html(self.title)}</title><body>{self.svg}</body></html>").encode()
            case ".txt":
                data = self._listing.encode()
            case other:
                raise ArgumentError(f"cannot save a picture as {other or path.name!r}; use .svg, .png, .dot, .html or .txt")
        atomic_write(path, data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<Drawing {self.title}>"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def draw(what: Cell | Graph, file: str | os.PathLike[str] | None = None, *, steps: int | None = None,
         gradients: bool = False, theme: str = "auto") -> Drawing:
    """Draw a cell folded, a cell unrolled over `steps` (with `gradients` the way back as well), or any graph.

    `theme` is light, dark, or auto (an SVG that follows the reader's setting).

    >>> import tinyrnn as tr
    >>> drawing = tr.draw(tr.cells.GRU, steps=3, gradients=True)
    >>> drawing.svg.startswith("<svg") and "t = 3" in drawing.svg
    True
    """
    if theme not in THEMES:
        raise ArgumentError(f"theme={theme!r}: expected one of {', '.join(THEMES)}")
    colours = DARK if theme == "dark" else LIGHT
    if isinstance(what, Graph):
        if steps is not None or gradients:
            raise ArgumentError("steps and gradients are for cells; a graph is drawn as it is")
        drawing = Drawing(picture.general(what, colours), str(what), repr(what).strip("<>"), theme)
    elif isinstance(what, Cell):
        if gradients and steps is None:
            raise ArgumentError("gradients flow through an unrolled cell: give steps=, for example steps=4")
        if steps is None:
            drawing = Drawing(picture.folded(what, colours), what.text, what.title, theme)
        else:
            dot = tiles.unrolled(what, steps, gradients, colours)
            listing = str(what.unroll(steps, gradients=gradients))
            drawing = Drawing(dot, listing, f"{what.title}: {steps} steps unrolled", theme, placed=True)
    else:
        raise ArgumentError(f"draw takes a cell or a graph, got {type(what).__name__}")
    if file is not None:
        drawing.save(file)
    return drawing


LENSES["draw"] = draw
