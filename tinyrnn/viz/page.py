"""`page`: one HTML file in which a reader steps through a run, forward and back, on numbers of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..analysis.bptt import BackwardPass, ScanData
from ..analysis.dynamics import strongest
from ..analysis.subject import Loss, Model, Subject, is_model, subject_of_cell
from ..cells import Cell, latex
from ..cells.paper import pretty
from ..errors import ArgumentError
from ..files import atomic_write, path_of, shipped
from ..search import shortest_path
from ..symbolic.derivation import pages
from ..symbolic.derivation.derive import derive
from ..tensor.tensor import TensorLike
from ..types import Seed
from .canvas import FORMATS
from .flow import flow_of
from .items import Item
from .names import at_step
from .scene import clean
from .steps import shape_of, unrolled, weights_of
from .svg import drawn, xml
from .tile import gate_order, tile_of

LARGEST = 64    # entries of an array that a page shows
MOST_STEPS = 24
_INFIX = ("−", "+", "⊙", "÷")


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

    Every stop shows the value, its formula, its local derivative, the gradient, where it came from and where it goes;
    the running sum of a parameter's gradient; the strongest path, and all paths through a state.  A cell takes `steps`
    (6 unless given) and `values` as in `draw`; a small model takes data `x` (and `y`), and has a picture for each of its
    recurrent layers.  The file needs no network and may not use any (its content security policy says so).

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
    layers = [_Layer(w, n, subject, cells.get(w.recurrence.name)) for w, n in subject.backward_passes()]
    made = Page(f"{subject.title}, step by step", _document(subject, layers))
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


# ---- what a page knows of one recurrence

class _Layer:
    """One recurrence: its picture, and every stop on the way through it."""

    def __init__(self, bptt: BackwardPass, given: ScanData, subject: Subject, cell: Cell | None) -> None:
        self.tile = tile_of(bptt.recurrence, gate_order(cell))
        self.name, self.cell, self.subject = bptt.recurrence.name, cell, subject
        self.flow = flow_of(self.tile, given, subject.loss, subject.caption)
        self.bptt = BackwardPass(bptt.recurrence, {k: i.node for k, i in self.tile.items.items() if i.kind != "exit"})
        self.moments = {m.position: m for m in self.bptt.steps_back(given)}
        self.order = [p + 1 for p in bptt.recurrence.scan.order]
        self.keys = [k for k, i in self.tile.items.items() if i.kind == "input"] + [
            k for k, i in self.tile.items.items() if i.kind not in ("input", "exit")]
        self.formulas: list[dict[str, str]] = []
        self._formula_of = self._formulas()
        inputs = bptt.recurrence.step.inputs
        shapes = {k: shape_of(list(map(str, inputs[k].shape))) for k in bptt.recurrence.parameters if k in inputs}
        weights = weights_of(cell) if cell is not None and set(cell.parameters) == set(shapes) else shapes
        title = f"{subject.title}: {self.name}" if cell is None else cell.title
        picture = drawn(unrolled(self.tile, title, weights, "all", self.flow, FORMATS["wide"]), "auto")
        self.svg = picture.replace('role="img" aria-labelledby', 'role="group" aria-labelledby', 1).replace(
            'role="img" aria-label=', 'role="button" aria-label=')  # boxes are to be pressed here

    def data(self) -> dict[str, Any]:
        """Everything the script needs."""
        stops = self._stops()
        index = {w: {s["node"]: i for i, s in enumerate(stops, 1) if s["direction"] == w} for w in "fb"}
        forward, backward = index["f"], index["b"]
        forward["loss"] = backward["loss"] = next(i for i, s in enumerate(stops, 1) if s["direction"] == "L")
        return {"name": clean(self.name), "loss": _shown(self.subject.loss), "steps": len(self.order), "rows": self._rows(),
                "stops": stops, "forward": forward, "backward": backward, "edges": self._edges(), "formulas": self.formulas,
                "parameters": self._parameters(backward), "strongest": self._strongest(), "states": self._states()}

    def _rows(self) -> int:
        new_states = self.bptt.recurrence.new_states
        return int(new_states[0].shape[0]) if new_states and new_states[0].shape else 1

    # ---- stops

    def _stops(self) -> list[dict[str, Any]]:
        out = [self._stop("f", k, p) for p in self.order for k in self.keys]
        out.append({"direction": "L", "node": "loss", "name": "L"})
        return out + [self._stop("b", k, p) for p in reversed(self.order) for k in reversed(self.keys)]

    def _stop(self, direction: str, k: str, p: int) -> dict[str, Any]:
        item, m = self.tile.items[k], self.moments[p]
        stop: dict[str, Any] = {"direction": direction, "node": f"{k}-{p}", "step": p, "name": self._called(k, p),
                                "value": _row(m.values[k]), "says": clean(item.does or item.node.op.label),
                                "shape": ",".join(map(str, item.node.shape))}
        if k in self.tile.entries:
            stop["name"] += f", as it enters step {p}" if direction == "f" else f", through step {p}"
        if self._formula_of.get(k):
            stop["formulas"] = self._formula_of[k]
        if direction == "b":
            sent = [[self._called(s, p), _rounded(self.flow.sent[p].get((k, s)))] for s in item.sources]
            before = self.order.index(p) - 1
            if k in self.tile.entries and before >= 0:
                sent.append([f"step {self.order[before]}", _rounded(self.flow.norms[p].get(k))])
            stop |= {"gradient": _row(m.gradients[k]), "norm": _rounded(self.flow.norms[p].get(k)),
                     "from": self._received(k, p), "to": sent}
        return stop

    def _received(self, k: str, p: int) -> list[list[Any]]:
        """Who sends to an item: readers in its step, the next step, the loss."""
        out: list[list[Any]] = [[self._called(r, p), _rounded(self.flow.sent[p].get((r, k)))]
                                for r, i in self.tile.items.items() if k in i.sources and i.kind != "exit"]
        after = self.order.index(p) + 1
        for slot, exit_key in enumerate(self.tile.exits):
            exit_ = self.tile.items[exit_key]
            if (exit_key == k or (exit_.kind == "exit" and k in exit_.sources)) and after < len(self.order):
                late = self.order[after]
                out.append([f"step {late}", _rounded(self.flow.norms[late].get(self.tile.entries[slot]))])
        if k in self.flow.from_loss[p]:
            out.append(["the loss", _rounded(self.flow.from_loss[p][k])])
        return out

    def _called(self, k: str, p: int) -> str:
        """An item in words: its name, or what it computes from names."""
        item = self.tile.items[k]
        head = item.called
        if item.kind in ("input", "state"):
            base, mark, lag = head.partition("ₜ")
            return at_step(clean(base, 40) + mark + lag, p, self.tile.direction)
        if item.name and item.symbol:
            return pretty(f"{clean(head, 40)}[{p}]")
        if item.kind == "gate":
            return clean(f"{head}({', '.join(item.weights)})", 60)
        names = [self._called(s, p) for s in item.sources]
        if item.kind == "op":
            return clean(f"({f' {head} '.join(names)})", 60)
        return clean(f"{head} {', '.join(names)}" if head.endswith(_INFIX) else f"{head}({', '.join(names)})", 60)

    # ---- formulas

    def _formulas(self) -> dict[str, list[int]]:
        """For every item the formulas to show: of itself, or of the quantity that it is on the way to."""
        if self.cell is None:
            return {}
        d = derive(self.cell)
        by_name: dict[str, list[int]] = {}
        for e in self.cell.system.equations:
            texts = [("forward", f"{latex.name(e.name, 't')} = {latex.term(e.term)}")]
            texts += [("local derivative", rf"\frac{{\partial {_signal(a)}}}{{\partial {_signal(b)}}} = {latex.term(t)}")
                      for (a, b), t in d.local_terms.items() if a.partition("[")[0] == e.name]
            texts += [("backward", f.latex) for k, f in d.recurrence.items() if k == e.name]
            back = self.tile.recurrence.scan.reverse
            by_name[e.name] = [self._formula(what, _turned(text) if back else text) for what, text in texts]
        found: dict[str, list[int]] = {}
        labels = {n: label.name for label, n in self.tile.recurrence.step.labels.items()}
        for k in reversed(self.keys):
            item = self.tile.items[k]
            own = by_name.get(labels.get(item.node, ""))
            readers = (r for r, i in self.tile.items.items() if k in i.sources and r in found and item.kind != "input")
            found[k] = own or next((found[r] for r in readers), [])
        return found

    def _formula(self, what: str, text: str) -> int:
        self.formulas.append({"what": what, "mathml": pages.mathml(text)})
        return len(self.formulas) - 1

    # ---- parameters and paths

    def _parameters(self, backward: Mapping[str, int]) -> dict[str, Any]:
        """The parts of every parameter's gradient, in the order in which they arrive, with their running sum."""
        out: dict[str, Any] = {}
        for name in next(iter(self.moments.values())).parameters:
            holders = [k for k, i in self.tile.items.items() if name in i.weights]
            running, parts = np.zeros(()), []
            for p in reversed(self.order):
                part = self.moments[p].parameters[name]
                running = np.asarray(running + part)
                stop = max((backward[f"{k}-{p}"] for k in holders), default=0)
                parts.append({"stop": stop, "step": p, "norm": _rounded(float(np.linalg.norm(part))),
                              "total": _rounded(float(np.linalg.norm(running))), "sum": _shown(running)})
            out[clean(name)] = {"parts": parts}
        return out

    def _strongest(self) -> list[list[str]]:
        """The strongest ways, box by box as they are drawn."""
        moments = [self.moments[p] for p in reversed(self.order)]
        readers: dict[str, list[str]] = {}
        for a, b in self._edges():
            readers.setdefault(a, []).append(b)
        out = []
        for route in strongest(self.bptt, moments):
            stops = ["loss", *(f"{k}-{p}" for k, p in route.stops)]
            path = ["loss"]
            for reader, source in pairwise(stops):
                path += self._drawn(source, reader, readers)
            out.append(path)
        return out

    def _drawn(self, source: str, reader: str, readers: Mapping[str, list[str]]) -> list[str]:
        """The boxes from a reader (left out) back to what it reads: other boxes of the same values in between."""
        same = {self._item(source).node, self._item(reader).node if reader != "loss" else None}
        path = shortest_path(source, lambda k: [r for r in readers.get(k, ()) if r != "loss" and self._item(r).node in same],
                             lambda k: reader in readers.get(k, ()))
        return path[::-1] or [source]

    def _item(self, box: str) -> Item:
        return self.tile.items[box.rpartition("-")[0]]

    def _states(self) -> dict[str, list[str]]:
        """The boxes of every state, at every step."""
        found: dict[str, list[str]] = {}
        for k, i in self.tile.items.items():
            if i.kind == "state":
                for p in self.order:
                    found[self._called(k, p)] = [f"{k}-{p}"]
        return found

    def _edges(self) -> list[list[str]]:
        """What is read by what, over all steps."""
        seen = [k for k, i in self.tile.items.items() if i.kind != "exit"]
        out = [[f"{s}-{p}", f"{r}-{p}"] for p in self.order for r in seen for s in self.tile.items[r].sources]
        out += [[f"{self.tile.leaving(slot)[0]}-{a}", f"{entry}-{b}"] for a, b in pairwise(self.order)
                for slot, entry in enumerate(self.tile.entries)]
        return out + [[f"{k}-{p}", "loss"] for p in self.order for k in self.flow.from_loss[p]]


def _turned(text: str) -> str:
    """A formula for a layer that reads from the end: the step before is t + 1."""
    return text.replace("t-1", "t\0").replace("t+1", "t-1").replace("t\0", "t+1")


def _signal(text: str) -> str:
    """`h[t-1]` in LaTeX."""
    name, _, inside = text.partition("[")
    return latex.name(name, inside.removesuffix("]") or "t")


def _rounded(x: float | None) -> float | str | None:
    """To four digits; `inf` stands for all that is not finite."""
    return None if x is None else float(f"{x:.4g}") if np.isfinite(x) else "inf"


def _row(array: Any) -> Any:
    """The first row of a batch."""
    return None if array is None else _shown(np.asarray(array)[0] if np.ndim(array) else array)


def _shown(array: Any) -> Any:
    """Numbers to four digits; None where there are too many to read, or one is not finite."""
    a = np.asarray(array, float)
    if a.size > LARGEST or a.ndim > 2 or not np.isfinite(a).all():
        return None
    return np.vectorize(lambda v: float(f"{v:.4g}"), otypes=[float])(a).tolist() if a.size else []


# ---- the document

@np.errstate(all="ignore")
def _document(subject: Subject, layers: Sequence[_Layer]) -> str:
    css = shipped(__package__).joinpath("page.css").read_text(encoding="utf-8")
    js = shipped(__package__).joinpath("page.js").read_text(encoding="utf-8")
    data = json.dumps([layer.data() for layer in layers], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    pictures = "".join(f'<div class="layer">{layer.svg}</div>' for layer in layers)
    styles = [css, *(layer.svg.partition("<style>")[2].partition("</style>")[0] for layer in layers)]
    allowed = " ".join(map(_hash, dict.fromkeys(styles)))
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {allowed}; script-src {_hash(js)}"
    title, choice = xml(f"{subject.title}, step by step"), ""
    if len(layers) > 1:
        entries = "".join(f'<option value="{i}">{xml(layer.name)}</option>' for i, layer in enumerate(layers))
        choice = f'<label>layer <select id="layer">{entries}</select></label>'
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{css}</style></head><body>
<header><h1>{title}</h1>
<p class="note">L is {xml(subject.caption)}. Step with the arrow keys, click a box, or click a parameter.</p></header>
<div id="controls" role="group" aria-label="controls">
<button id="previous" aria-label="one stop back">◀</button><button id="next" aria-label="one stop on">▶</button>
<label>stop <input id="slider" type="range" min="0" max="1" value="0"></label>
<label>t <input id="time" type="range" min="1" max="1" value="1"></label>
<label>gradient of <select id="parameter"><option value="">no parameter</option></select></label>
<label><input id="strong" type="checkbox"> strongest path</label>
<label>all paths through <select id="through"><option value="">…</option></select></label>{choice}
<p id="message" aria-live="polite"></p></div>
<main><div id="picture" tabindex="0" role="group" aria-label="the unrolled graph">{pictures}</div><div id="stop"></div></main>
<script type="application/json" id="data">{safe}</script><script>{js}</script></body></html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


