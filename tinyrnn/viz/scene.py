"""What a picture consists of: boxes, wires, words, frames and swatches at their places; written as Graphviz source.

The source has the place of everything, and `dot -Knop2` draws it as it stands: it is the one form of a picture from which
all others are made (`svg.py`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, hypot

from .names import runs
from .theme import palette

Point = tuple[float, float]
SIZE, SMALL = 11.0, 9.5   # points of text where nothing else is asked for
BELOW = 0.75              # how large a subscript is
BOLD = 1.17               # how much wider bold letters are
LEADING = 1.2             # from line to line, in sizes of text
LONGEST = 900             # points of a wire
_NARROW, _WIDE, _SIGNS, _SMALL = (frozenset(s) for s in (
    "iljtfr.,:;'|!()[]1 ′", "mwMWΣ@%⋯", "+=<>−×÷←→⊙≤≥±≈~#", "‖∂·⁻¹²³ᵀ"))


@dataclass
class BoxShape:
    """A box or circle with lines of text; `fill` names a colour, None is hatched."""

    key: str
    at: Point
    size: tuple[float, float]
    lines: Sequence[str]
    fill: str | None
    title: str
    round: bool = False
    square: bool = False  # whether its corners are
    classes: str = ""
    dashed: bool = False
    font: float = SIZE


@dataclass
class Wire:
    """A curve of cubic pieces through `points` (one start, then three for each piece), with an arrow head at its end."""

    key: str
    ends: tuple[str, str]
    points: Sequence[Point]
    kind: str  # forward backward delay same
    title: str
    width: float = 1.2


@dataclass
class Words:
    """A line of text; `at` is the middle of its height, at its start, middle or end."""

    at: Point
    text: str
    anchor: str = "start"
    kind: str = "text"
    size: float = SIZE
    bold: bool = False

    @property
    def left(self) -> float:
        return self.at[0] - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * self.width

    @property
    def width(self) -> float:
        return text_width(self.text, self.size) * (BOLD if self.bold else 1.0)


@dataclass
class Frame:
    """A panel behind other things."""

    key: str
    top_left: Point
    size: tuple[float, float]
    title: str
    kind: str = "panel"
    dashed: bool = False


@dataclass
class Swatch:
    """A cell of a heat map or of a legend; `fill` None is hatched."""

    top_left: Point
    size: tuple[float, float]
    fill: str | None
    title: str = ""


Part = BoxShape | Wire | Words | Frame | Swatch


@dataclass
class Scene:
    """A picture: its parts, wires below boxes whatever their order."""

    title: str
    description: str
    size: tuple[float, float] = (0, 0)
    parts: list[Part] = field(default_factory=list)
    parameters: Mapping[str, str] = field(default_factory=dict)  # a class for each, so that all its places light up together
    least: float = SIZE * BELOW  # points of the smallest text, subscripts too
    pen: float = 1.0             # how thick lines are

    def __post_init__(self) -> None:
        self.title, self.description = clean(self.title), clean(self.description, 4000)

    def sized(self, width: float, height: float) -> Scene:
        """With a size of whole points."""
        self.size = ceil(width), ceil(height)
        return self

    def add(self, *parts: Part) -> None:
        self.parts.extend(parts)

    def dot(self, theme: str = "light") -> str:
        """The picture as Graphviz source with positions (`dot -Knop2` keeps them, `dot` lays it out anew)."""
        return _Source(self, palette("light" if theme == "auto" else theme)).text


# ---- text

def clean(text: str, limit: int = 200) -> str:
    """Text that is safe to print: no control or direction marks, not longer than `limit`."""
    shown = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return shown if len(text) <= limit else shown[: limit - 1] + "…"


def dot_text(lines: Sequence[str], end: str = "") -> str:
    """Lines that mean themselves to Graphviz: no escapes, no HTML, no entities."""
    import graphviz

    text = r"\n".join(str(graphviz.escape(clean(line))).replace("&", "&amp;") for line in lines)
    plain: str = graphviz.nohtml(text + end)  # a label in <...> would be HTML to Graphviz
    return plain


def text_width(text: str, size: float = SIZE) -> float:
    """How wide a line is at most, whatever sans-serif font a reader has."""
    return sum(size * (BELOW + 0.12 if below else 1.0) * sum(map(_letter_width, run)) for run, below in runs(text))


def fitted(text: str, width: float, size: float) -> str:
    """As much of a line as fits."""
    if text_width(text[:200], size) <= width:
        return text
    kept = text[:200]
    while kept and text_width(kept + "…", size) > width:
        kept = kept[:-1]
    return kept + "…"


def _letter_width(c: str) -> float:
    """In ems."""
    if unicodedata.combining(c):
        return 0.0
    if c in _NARROW:
        return 0.36
    if c in _SMALL:
        return 0.53
    if c in _SIGNS:
        return 0.84
    return 0.95 if c in _WIDE else 0.68 if c.isupper() else 1.0 if ord(c) > 0x2e00 else 0.62


# ---- Graphviz source

class _Source:
    """Every part as a node, an edge or a cluster, at its place; heights run upwards there."""

    def __init__(self, scene: Scene, paint: Mapping[str, str]) -> None:
        import graphviz

        self.paint, self.height, self.pen = paint, scene.size[1], scene.pen
        whole = graphviz.Digraph(
            graph_attr={"rankdir": "LR", "bgcolor": paint["background"], "pad": "0", "outputorder": "edgesfirst",
                        "notranslate": "true"},
            node_attr={"fontname": "Helvetica", "fixedsize": "true", "margin": "0", "label": "", "penwidth": f"{self.pen:.2f}"})
        frames = [p for p in scene.parts if isinstance(p, Frame)]
        clusters = [graphviz.Digraph(name=f"cluster_{f.key}", graph_attr=self._frame(f)) for f in frames]
        for i, corner in enumerate(((0.0, 0.0), scene.size)):
            whole.node(f"corner-{i}", pos=self._pos(corner), width="0", height="0", shape="plain", style="invis")
        for i, p in enumerate(scene.parts):
            if isinstance(p, Wire | Frame):
                continue
            around = [k for k, f in enumerate(frames) if _inside(p.at if not isinstance(p, Swatch) else p.top_left, f)]
            into = clusters[min(around, key=lambda k: frames[k].size[0] * frames[k].size[1])] if around else whole
            into.node(p.key if isinstance(p, BoxShape) else f"part-{i}", **self._node(p))
        for cluster in clusters:
            whole.subgraph(cluster)
        for p in scene.parts:
            if isinstance(p, Wire):
                whole.edge(*p.ends, **self._wire(p))
        self.text = str(whole.source)

    def _pos(self, *points: Point) -> str:
        return " ".join(f"{x:.2f},{self.height - y:.2f}" for x, y in points)

    def _frame(self, f: Frame) -> dict[str, str]:
        (x, y), (w, h) = f.top_left, f.size
        return {"bb": f"{self._pos((x, y + h))},{self._pos((x + w, y))}", "id": f.key, "tooltip": dot_text([f.title]),
                "color": self.paint["line"], "penwidth": f"{self.pen:.2f}",
                "style": "rounded,filled,dashed" if f.dashed else "rounded,filled",
                "fillcolor": self.paint[f.kind], "class": f"fill-{f.kind}"}

    def _node(self, p: BoxShape | Words | Swatch) -> dict[str, str]:
        match p:
            case BoxShape():
                return self._box(p)
            case Words():
                room = BOLD * p.size * sum(map(_letter_width, p.text))  # Graphviz lines up what finds room
                middle = p.at[0] + {"start": room / 2, "middle": 0.0, "end": -room / 2}[p.anchor], p.at[1]
                return {**self._place(middle, (room, p.size)), "shape": "box", "peripheries": "0", "fontsize": f"{p.size:g}",
                        "label": dot_text([p.text], {"start": r"\l", "middle": "", "end": r"\r"}[p.anchor]),
                        "fontname": "Helvetica-Bold" if p.bold else "Helvetica", "class": f"words {p.kind}",
                        "fontcolor": self.paint.get(p.kind.partition(" ")[0], self.paint["text"])}
        (x, y), (w, h) = p.top_left, p.size
        return {**self._place((x + w / 2, y + h / 2), p.size), **self._fill(p.fill, "swatch"), "shape": "box", "penwidth": "0",
                "style": "filled", **({"tooltip": dot_text([p.title])} if p.title else {})}

    def _box(self, b: BoxShape) -> dict[str, str]:
        style = "filled" if b.round or b.square else "filled,rounded"
        lines = [fitted(line, b.size[0] - 4, b.font) for line in b.lines]
        return {**self._place(b.at, b.size), **self._fill(b.fill, b.classes), "id": b.key,
                "shape": "circle" if b.round else "box",
                "style": style + ",dashed" if b.dashed else style, "color": self.paint["line"], "fontcolor": self.paint["text"],
                "fontsize": f"{b.font:g}", "label": dot_text(lines), "tooltip": dot_text([b.title])}

    def _place(self, middle: Point, size: tuple[float, float]) -> dict[str, str]:
        return {"pos": self._pos(middle), "width": f"{size[0] / 72:.4f}", "height": f"{size[1] / 72:.4f}"}

    def _fill(self, name: str | None, classes: str) -> dict[str, str]:
        return {"fillcolor": self.paint[name or "background"], "class": f"{classes} fill-{name or 'none'}".strip()}

    def _wire(self, w: Wire) -> dict[str, str]:
        if len(w.points) > LONGEST:  # some Graphviz reads strings of 16 kB at most
            knots = w.points[::3]
            w = replace(w, points=curve([*knots[:: 1 + 3 * len(knots) // LONGEST], knots[-1]]))
        pen = w.width * self.pen
        head = 3.6 * self.pen + 1.2 * pen
        return {"pos": f"e,{self._pos(w.points[-1])} {self._pos(*_shortened(w.points, head))}", "id": w.key,
                "color": self.paint[w.kind], "penwidth": f"{pen:.2f}", "tooltip": dot_text([w.title]), "class": w.kind,
                "style": "dashed" if w.kind == "backward" else "solid", "arrowsize": f"{head / 10:.2f}",
                "constraint": "false" if w.kind in ("backward", "delay") else "true"}


def _inside(at: Point, f: Frame) -> bool:
    return f.top_left[0] <= at[0] <= f.top_left[0] + f.size[0] and f.top_left[1] <= at[1] <= f.top_left[1] + f.size[1]


def _shortened(points: Sequence[Point], by: float) -> list[Point]:
    """The curve, ending where its arrow head begins."""
    (ux, uy), (x, y), (cx, cy) = _direction(points[::-1], -1), points[-1], points[-2]
    end = (x - ux * by, y - uy * by)
    near = hypot(x - cx, y - cy) < 2 * by  # then the bend gives way as well
    return [*points[:-2], (cx - ux * by, cy - uy * by) if near else points[-2], end]


# ---- curves

def curve(points: Iterable[Point]) -> list[Point]:
    """A smooth way through points that leaves and arrives horizontally."""
    route = list(points)
    out = [route[0]]
    for (x0, y0), (x1, y1) in pairwise(route):
        bend = (x1 - x0) / 2
        out += [(x0 + bend, y0), (x1 - bend, y1), (x1, y1)] if bend else straight((x0, y0), (x1, y1))[1:]
    return out


def straight(*points: Point) -> list[Point]:
    """Straight pieces as cubic ones."""
    out = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        out += [(x0 + (x1 - x0) / 3, y0 + (y1 - y0) / 3), (x0 + (x1 - x0) * 2 / 3, y0 + (y1 - y0) * 2 / 3), (x1, y1)]
    return out


def beside(points: Sequence[Point], by: float) -> list[Point]:
    """The same way in the other direction, moved to the side; it leaves and arrives as the way itself does."""
    pieces = [points[i : i + 4] for i in range(0, len(points) - 1, 3)]
    starts, ends = ([_direction(p) for p in pieces], [_direction(p[::-1], -1) for p in pieces])
    shifts = [_sum(*{_normal(t, by) for t in (*ends[max(i - 1, 0) : i], *starts[i : i + 1])}) for i in range(len(pieces) + 1)]
    out = [_sum(points[0], shifts[0])]
    for i, (p, t) in enumerate(zip(pieces, starts, strict=True)):
        across = _across(p, t, by)
        out += [_sum(p[1], shifts[i], across), _sum(p[2], shifts[i + 1], across), _sum(p[3], shifts[i + 1])]
    return out[::-1]


def _direction(points: Sequence[Point], sign: int = 1) -> Point:
    """The unit vector in which a piece leaves its first point; rounded, so that equal ones are equal."""
    x, y = points[0]
    away = ((a - x, b - y, hypot(a - x, b - y)) for a, b in points[1:])
    dx, dy, length = next((v for v in away if v[2] > 0.01), (1.0, 0.0, 1.0))
    return round(sign * dx / length, 3), round(sign * dy / length, 3)


def _normal(t: Point, by: float) -> Point:
    return -t[1] * by, t[0] * by


def _across(p: Sequence[Point], t: Point, by: float) -> Point:
    """How far the bend of a piece moves along its way, so that its steep part is moved to the side as well."""
    dx, dy = p[3][0] - p[0][0], p[3][1] - p[0][1]
    along = dx * t[0] + dy * t[1]
    side = dx - along * t[0], dy - along * t[1]
    length = hypot(*side)
    if length < 1:
        return 0.0, 0.0
    by = max(-0.4 * abs(along), min(by, 0.4 * abs(along))) * min(1.0, length / 20)
    return _normal((side[0] / length, side[1] / length), by)


def _sum(*points: Point) -> Point:
    return sum(x for x, _ in points), sum(y for _, y in points)
