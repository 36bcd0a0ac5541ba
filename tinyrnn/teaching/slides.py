"""`slides`: a deck for a lecture on a cell, for Beamer and for the browser."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..analysis.subject import Loss
from ..cells import Cell, latex
from ..cells.latex_lines import environment
from ..errors import ArgumentError
from ..files import atomic_write, path_of, shipped
from ..symbolic.derivation.derive import derive
from ..symbolic.derivation.pages import mathml_lines, plain_tex
from ..viz.drawing import Drawing, draw
from ..viz.tikz import PACKAGES

A_SLIDE = 3      # formulas that are shown on one
LONG = 60        # steps of the strip that shows where the gradient goes
MOST_STEPS = 6


@dataclass(frozen=True)
class Slide:
    """A title, and a picture, or formulas that appear one by one; `staged` pictures come about forward and back."""

    title: str
    picture: Drawing | None = None
    formulas: tuple[str, ...] = ()
    words: str = ""
    staged: bool = False


def slides(cell: Cell, folder: str | os.PathLike[str] | None = None, *, steps: int = 3, loss: Loss = "last",
           reveal: str | None = None) -> list[Path]:
    """Write a deck on a cell: its picture, its equations one by one, the derivation, and where the gradient goes.

    `deck.tex` is for Beamer (`pdflatex deck.tex`), `deck.html` one offline page with the markup of reveal.js: it runs by
    itself with the arrow keys, and by reveal.js where `reveal` says in which folder, or at which address, its `dist` is.
    Pictures are TikZ and SVG.  The folder is `slides_NAME` unless given; returns what was written.

    Data of any shape are drawn alike; `steps` is how many steps are unrolled.  Raises `ArgumentError` for what is no cell and
    for too many steps.

    >>> import tempfile
    >>> import tinyrnn as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print([path.name for path in tr.slides(tr.cells.RNN, folder)])
    ['deck.tex', 'deck.html']
    """
    if not isinstance(cell, Cell):
        raise ArgumentError(f"slides takes a cell, got {type(cell).__name__}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ArgumentError(f"steps={steps!r}: a slide has room for 1 to {MOST_STEPS}")
    place = path_of(folder if folder is not None else f"slides_{cell.name}")
    place.mkdir(parents=True, exist_ok=True)
    deck = list(_deck(cell, steps, loss))
    files = {"deck.tex": beamer(cell, deck), "deck.html": page(cell, deck, reveal)}
    for name, text in files.items():
        atomic_write(place / name, text.encode())
    return [place / name for name in files]


def _deck(cell: Cell, steps: int, loss: Loss) -> Iterator[Slide]:
    d = derive(cell)
    yield Slide("One step", draw(cell, format="slide", title="", theme="light"))
    equations = tuple(f"{latex.name(e.name, 't')} = {latex.term(e.term)}" for e in cell.system.equations)
    yield from _formulas("Forward: the equations", equations)
    unrolled = draw(cell, steps=steps, format="slide", title="", theme="light")
    yield Slide(f"Unrolled over {steps} steps: the same weights at each", unrolled)
    local = tuple(rf"\frac{{\partial {latex.name(y, 't')}}}{{\partial {_name(s)}}} = {latex.term(t)}"
                  for (y, s), t in d.local_terms.items())
    yield from _formulas("Local derivatives", local)
    yield from _formulas("Backward: from the last step to the first", tuple(f.latex for f in d.recurrence.values()))
    yield from _formulas("Gradients of the weights: sums over the steps", tuple(f.latex for f in d.parameters.values()))
    staged = draw(cell, steps=steps, gradients=True, loss=loss, format="slide", title="", parameters=False, theme="light")
    yield Slide("Where the gradient goes", staged, staged=True)
    strip = draw(cell, steps=LONG, show="heat", loss="last", format="slide", title="", theme="light")
    yield Slide(f"Over {LONG} steps: does it arrive?", strip)


def _formulas(title: str, formulas: Sequence[str]) -> Iterator[Slide]:
    """As many to a slide as there is room for."""
    for k in range(0, len(formulas), A_SLIDE):
        yield Slide(title, formulas=tuple(formulas[k : k + A_SLIDE]))


def _name(text: str) -> str:
    name, _, inside = text.rstrip("]").partition("[")
    return latex.name(name, inside or "t")


# ---- Beamer

def beamer(cell: Cell, deck: Sequence[Slide]) -> str:
    """The deck in LaTeX."""
    frames = [_frame(slide) for slide in deck]
    return "\n".join([r"\documentclass[aspectratio=169]{beamer}", r"\usepackage[T1]{fontenc}\usepackage{lmodern,amsmath}",
                      PACKAGES, r"\setbeamertemplate{navigation symbols}{}", rf"\title{{{plain_tex(cell.title)}}}",
                      rf"\date{{\footnotesize {plain_tex(cell.citation)}}}", r"\begin{document}",
                      r"\frame{\titlepage}", *frames, r"\end{document}"]) + "\n"


def _frame(slide: Slide) -> str:
    lines = [rf"\begin{{frame}}{{{plain_tex(slide.title)}}}", r"\centering"]
    if slide.picture is not None:
        lines += [r"\resizebox{!}{0.8\textheight}{%", slide.picture.tikz(slide.staged).rstrip(), "}"]
    lines += [rf"\uncover<{k}->{{\[{environment([f])}\]}}" for k, f in enumerate(slide.formulas, 1)]
    return "\n".join([*lines, r"\end{frame}"])


# ---- the browser

def page(cell: Cell, deck: Sequence[Slide], reveal: str | None = None) -> str:
    """The deck as one page, with the markup of reveal.js and a script that runs it without."""
    css, js = (shipped(__package__).joinpath(f"deck.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    first = f"<section><h1>{escape(cell.title)}</h1><p>{escape(cell.citation)}</p></section>"
    sections = "\n".join([first, *map(_section, deck)])
    title, place = escape(cell.title), escape(reveal.rstrip("/")) if reveal else ""
    linked, asked = (f'<link rel="stylesheet" href="{place}/reveal.css">', f' data-reveal="{place}"') if place else ("", "")
    return f"""<!doctype html>
<html lang="en"{asked}><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>{linked}<style>{css}</style></head><body>
<div class="reveal"><div class="slides">
{sections}
</div></div>
<p id="place" aria-live="polite"></p>
<script>{js}</script></body></html>
"""


def _section(slide: Slide) -> str:
    body = ""
    if slide.picture is not None:
        body = slide.picture.animated() if slide.staged else slide.picture.svg
    body += "".join(f'<div class="fragment">{mathml_lines(environment([f]))}</div>' for f in slide.formulas)
    return f"<section><h2>{escape(slide.title)}</h2>{body}</section>"
