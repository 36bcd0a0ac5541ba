"""`page`: one HTML file in which a reader steps through a run, forward and back, on numbers of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any

import numpy as np

from ..analysis.subject import Loss, Model, Subject, is_model, subject_of_cell
from ..cells import Cell
from ..errors import ArgumentError
from ..files import atomic_write, path_of, shipped
from ..symbolic.derivation.pages import mathml
from ..tensor.tensor import TensorLike
from ..types import Seed
from .compact import compact
from .model_stops import ModelStops
from .over_time import of_subject
from .stops import CellStops
from .svg import xml
from .theme import both_themes
from .wiring import Wired

MOST_STEPS = 24
MOST_BYTES = 290_000  # of pictures and numbers; a recurrent layer that finds no room is left out
LARGEST_MODEL = 300  # boxes of a model that is shown as a whole


class Page:
    """An interactive page: `.html`, `.save("lstm.html")`; shows itself in a notebook."""

    def __init__(self, title: str, html: str) -> None:
        self.title, self.html = title, html

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the page."""
        path = path_of(file)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ArgumentError(f"a page is saved as .html, got {path.name!r}")
        atomic_write(path, self.html.encode())

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{xml_attribute(self.html)}" width="100%" height="720" title="{xml(self.title)}"></iframe>'

    def __repr__(self) -> str:
        return f"<Page {self.title}: {len(self.html) // 1000} kB>"


def xml_attribute(text: str) -> str:
    """A whole document as the value of an attribute."""
    return text.replace("&", "&amp;").replace('"', "&quot;")


def page(what: Cell | Model, file: str | os.PathLike[str] | None = None, x: TensorLike | None = None, y: object = None, *,
         lengths: object = None, loss: Loss = None, steps: int | None = None, values: Mapping[str, Any] | None = None,
         sizes: Mapping[str, int] | None = None, rng: Seed = 0) -> Page:
    """One self-contained page that steps through forward, loss and backward.

    Every stop shows the value, its formula with the numbers put in, what goes into a gate and δ, the derivative of the loss
    by it; the gradient, where it came from and where it goes; weights and the running sum of their gradients; the strongest
    path, and all paths through a state.  Nothing is shown before its stop.  A guided path has about a dozen stops.  A cell
    takes `steps` (6 unless given) and `values` as in `draw`; a small model takes data `x` (and `y`), and has a picture of all
    its layers over time, its head and its loss, and one of each recurrent layer.  The file needs no network and may not use
    any (its content security policy says so).

    Shapes are as in `draw`: x [T, ...] or [T, B, ...] of a cell, [B, T, ...] of a model. Raises `ArgumentError` for a model
    without data or without recurrence, and for runs that are too long for a page.

    >>> import tinyrnn as tr
    >>> page = tr.page(tr.cells.RNN, steps=3)
    >>> "default-src 'none'" in page.html
    True
    """
    if steps is not None:
        check_steps(steps)
    if isinstance(what, Cell):
        sequence = values is not None and any(n in values for n in what.inputs)
        subject = subject_of_cell(what, 6 if steps is None and not sequence else steps, values, loss, sizes, rng=rng)
        cells: Mapping[str, Cell] = {subject.recurrences[0].name: what}
    elif is_model(what):
        if x is None or steps is not None or values is not None:
            raise ArgumentError("a model's page is made from data: page(model, file, x, y); steps and values are for cells")
        subject = what.subject(x, y, lengths=lengths, loss=loss)
        cells = _cells(what, subject)
    else:
        raise ArgumentError(f"page takes a cell or a model, got {type(what).__name__}")
    if not subject.recurrences:
        raise ArgumentError(f"{subject.title} has no recurrence to step through")
    check_steps(max(r.steps for r in subject.recurrences))
    layers: list[CellStops | ModelStops] = []
    if isinstance(what, Wired) and not isinstance(what, Cell):
        picture = of_subject(what, subject)
        if picture is not None and sum(len(picture.timing.each) * n for n in picture.lengths.values()) <= LARGEST_MODEL:
            layers.append(ModelStops(what, picture, subject))
    formulas: dict[tuple[str, str], int] = {}
    layers += [CellStops(n, subject, cells.get(r.name), formulas) for n, r in enumerate(subject.recurrences)]
    made = Page(f"{subject.title}, step by step", _document(subject, layers, formulas))
    if file is not None:
        made.save(file)
    return made


def check_steps(steps: int) -> None:
    """A page is for reading; long runs have other views."""
    if steps > MOST_STEPS:
        raise ArgumentError(f"a page steps through at most {MOST_STEPS} steps, this run has {steps}; for long sequences there "
                            "are draw(cell, steps=..., show='heat') and xray")


def _cells(model: Model, subject: Subject) -> dict[str, Cell]:
    """The cell of every recurrence of a model."""
    layers = [(path, m.cell) for path, m in model.named_modules() if isinstance(m.cell, Cell)]
    return {r.name: cell for path, cell in layers for r in subject.recurrences
            if not path or r.name == path or r.name.startswith(f"{path}.")}


# ---- the document

@np.errstate(all="ignore")
def _document(subject: Subject, layers: Sequence[CellStops | ModelStops], formulas: Mapping[tuple[str, str], int]) -> str:
    css = shipped(__package__).joinpath("page.css").read_text(encoding="utf-8")
    js = shipped(__package__).joinpath("page.js").read_text(encoding="utf-8")
    css += both_themes(".layer ")
    pictures, known, left_out = list[str](), list[Any](), list[str]()
    for layer in layers:
        svg, said = compact(layer.svg), layer.data()
        if pictures and len("".join(pictures)) + len(svg) + len(_json([*known, said])) > MOST_BYTES:
            left_out.append(layer.name)
            continue
        pictures.append(f'<div class="layer">{svg}</div>')
        known.append(said)
    data = _json({"pictures": known, "formulas": [{"what": what, "mathml": mathml(text)} for what, text in formulas]})
    styles = [css, *(unescape(svg.partition("<style>")[2].partition("</style>")[0]) for svg in pictures)]
    allowed = " ".join(map(_hash, dict.fromkeys(styles)))
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {allowed}; script-src {_hash(js)}"
    title, choice = xml(f"{subject.title}, step by step"), ""
    if len(layers) > 1:
        entries = "".join(f'<option value="{i}">{xml(picture["name"])}</option>' for i, picture in enumerate(known))
        entries += "".join(f"<option disabled>{xml(name)}: left out, the page would be too large</option>" for name in left_out)
        choice = f'<label>picture <select id="layer">{entries}</select></label>'
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    body = _BODY.format(title=title, caption=xml(subject.caption), choice=choice, pictures="".join(pictures), data=safe,
                        js=js)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{css}</style></head><body>
{body}</body></html>
"""


_BODY = """<header><h1>{title}</h1><p class="note">L is {caption}.</p></header>
<div id="controls" role="group" aria-label="controls">
<button id="first" aria-label="to the start">↺</button><button id="previous" aria-label="one stop back">◀</button>
<button id="play" aria-label="play">▶ play</button><button id="next" aria-label="one stop on">▶</button>
<label>speed <select id="speed"><option value="2400">slow</option><option value="1200" selected>normal</option>
<option value="400">fast</option></select></label>
<label>path <select id="path"><option value="guide">guided</option><option value="all">every stop</option></select></label>
<label>stop <input id="slider" type="range" min="0" max="1" value="0"></label>
<details id="more"><summary>more</summary><div>{choice}
<label>step t <input id="time" type="range" min="1" max="1" value="1"></label>
<label>parameter <select id="parameter"><option value="">none</option></select></label>
<label><input id="strong" type="checkbox"> strongest path</label>
<label>all paths through <select id="through"><option value="">…</option></select></label></div></details></div>
<main><div id="picture" tabindex="0" role="group" aria-label="the unrolled graph">{pictures}<div id="card" hidden></div></div>
<section id="panel" tabindex="0" aria-label="the numbers of this stop"><p id="message" aria-live="polite"></p>
<div id="stop"></div></section></main>
<script type="application/json" id="data">{data}</script><script>{js}</script>"""


def _json(known: object) -> str:
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
