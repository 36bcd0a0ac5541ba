"""What a picture consists of: boxes, wires, words and frames at their places; written as SVG, or as DOT with positions.

The SVG writer needs nothing but Python.  Ids are prefixed with a hash of the picture, so that several pictures stand on one
page; equal pictures are equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape as html_escape
from itertools import pairwise, zip_longest
from math import hypot
from typing import Any

from .theme import FONT, palette, style

Point = tuple[float, float]
PREFIX = "\x01"  # stands for the hash until it is known; no label can hold it
LINE = 13.0
_NARROW, _WIDE, _SMALL = (frozenset(s) for s in ("iljtfr.,:;'|!()[]1 ", "mwMWΣ@%⋯", "₀₁₂₃₄₅₆₇₈₉ₜ₋⁻¹²³"))


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
    radius: float = 5
    classes: str = ""
    word_classes: Sequence[Sequence[str]] = ()  # for the lines after the first: a class for every word
    dashed: bool = False
    link: bool = True  # whether a reader walks to it with the tab key


@dataclass
class Wire:
    """A curve of cubic pieces through `points` (one start, then three for each piece), with an arrow head at its end."""

    key: str
    ends: tuple[str, str]
    points: Sequence[Point]
    kind: str  # forward backward delay same
    title: str
    width: float = 1.2
    head: bool = True
    dashed: bool = False


@dataclass
class Words:
    """A line of text."""

    at: Point
    text: str
    anchor: str = "start"
    kind: str = "text"
    size: float = 11
    bold: bool = False


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
    """A picture: its parts in the order in which they are painted."""

    title: str
    description: str
    size: tuple[float, float] = (0, 0)
    parts: list[Part] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)  # further CSS; `\\x01` is the id of the picture

    def add(self, *parts: Part) -> None:
        self.parts.extend(parts)

    def svg(self, theme: str = "auto") -> str:
        """The picture as one SVG element."""
        body = "".join(map(_svg, self.parts))
        w, h = self.size
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" id="{PREFIX}" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" '
                f'height="{h:.0f}" role="img" aria-labelledby="{PREFIX}-title {PREFIX}-desc" font-family="{FONT}">'
                f'<title id="{PREFIX}-title">{xml(self.title)}</title>'
                f'<desc id="{PREFIX}-desc">{xml(self.description, 4000)}</desc>')
        hatch = (f'<defs><pattern id="{PREFIX}-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
                 f'patternTransform="rotate(45)"><rect class="background" width="6" height="6"/>'
                 f'<path class="line" d="M0,0V6" stroke-width="1.6" opacity=".45"/></pattern></defs>')
        css = style(theme, PREFIX) + f"#{PREFIX} .exit{{opacity:0}}" + "".join(self.rules)
        text = (f'{head}<style>{css}#{PREFIX} path{{fill:none}}</style>{hatch}'
                f'<rect class="background" width="{w:.0f}" height="{h:.0f}"/>{body}</svg>')
        return text.replace(PREFIX, "p" + hashlib.sha256(text.encode()).hexdigest()[:8])

    def dot(self, theme: str = "light") -> str:
        """The picture as Graphviz source with positions (`dot -Knop2` keeps them, `dot` lays it out anew)."""
        import graphviz

        paint, height = palette("light" if theme == "auto" else theme), self.size[1]
        g = graphviz.Digraph()
        g.attr(rankdir="LR", bgcolor=paint["background"], fontname="Helvetica", label=dot_text([self.title]), labelloc="t",
               fontcolor=paint["text"])
        g.attr("node", fontname="Helvetica", fontsize="10", fontcolor=paint["text"], color=paint["line"], style="filled",
               fixedsize="true")
        frames = [p for p in self.parts if isinstance(p, Frame)]
        inside = {id(b): _frame_of(b, frames) for b in self.parts if isinstance(b, BoxShape)}
        for f in frames:
            with g.subgraph(name=f"cluster_{f.key}") as c:
                (x, y), (w, h) = f.top_left, f.size
                c.attr(label=dot_text([f.title]), bb=f"{x:.1f},{height - y - h:.1f},{x + w:.1f},{height - y:.1f}",
                       id=f.key, color=paint["line"], style="rounded,filled", fillcolor=paint[f.kind])
                own = [b for b in self.parts if isinstance(b, BoxShape) and inside[id(b)] is f]
                for b in own or [self._note(f)]:
                    _dot_box(c, b, paint, height)
        for part in self.parts:
            if isinstance(part, BoxShape) and inside[id(part)] is None:
                _dot_box(g, part, paint, height)
        for wire in self.parts:
            if isinstance(wire, Wire) and wire.ends[0] != wire.ends[1]:
                _dot_wire(g, wire, paint, height)
        return str(g.source)

    def _note(self, f: Frame) -> BoxShape:
        """The words of a frame without boxes, as one box."""
        rows: dict[float, list[str]] = {}
        for p in self.parts:
            if isinstance(p, Words) and _inside(p.at, f):
                rows.setdefault(round(p.at[1]), []).append(p.text)
        lines = ["     ".join(row) for row in rows.values()]
        middle = (f.top_left[0] + f.size[0] / 2, f.top_left[1] + f.size[1] / 2)
        return BoxShape(f"{f.key}-note", middle, f.size, lines, f.kind, f.title, radius=0)


def _inside(at: Point, f: Frame) -> bool:
    return f.top_left[0] <= at[0] <= f.top_left[0] + f.size[0] and f.top_left[1] <= at[1] <= f.top_left[1] + f.size[1]


def _frame_of(box: BoxShape, frames: Sequence[Frame]) -> Frame | None:
    """The smallest frame around a box."""
    around = [f for f in frames if _inside(box.at, f)]
    return min(around, key=lambda f: f.size[0] * f.size[1], default=None)


# ---- text

def clean(text: str, limit: int = 200) -> str:
    """Text that is safe to print: no control or direction marks, not longer than `limit`."""
    shown = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return shown if len(text) <= limit else shown[: limit - 1] + "…"


def xml(text: str, limit: int = 200) -> str:
    """Text as it stands in XML, in an element or in an attribute."""
    return html_escape(clean(text, limit), quote=True)


def dot_text(lines: Sequence[str]) -> str:
    """Lines that mean themselves to Graphviz: no escapes, no HTML, no entities."""
    import graphviz

    text = r"\n".join(str(graphviz.escape(clean(line))).replace("&", "&amp;") for line in lines)
    plain: str = graphviz.nohtml(text)  # a label in <...> would be HTML to Graphviz
    return plain


def text_width(text: str, size: float = 11) -> float:
    """How wide a line is at most, whatever sans-serif font a reader has."""
    return size * sum(map(_letter_width, text))


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
    if c in _NARROW:
        return 0.36
    if c in _SMALL:
        return 0.42
    return 0.95 if c in _WIDE else 0.68 if c.isupper() else 1.0 if ord(c) > 0x2e00 else 0.62


# ---- SVG

def _n(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def path_of(points: Sequence[Point]) -> str:
    """Cubic pieces as the `d` of a path."""
    start, *rest = (f"{_n(x)},{_n(y)}" for x, y in points)
    return f"M{start}" + "".join("C" + " ".join(rest[i : i + 3]) for i in range(0, len(rest), 3))


def _svg(p: Part) -> str:
    match p:
        case BoxShape():
            return _svg_box(p)
        case Wire():
            return _svg_wire(p)
        case Words():
            weight = ' font-weight="bold"' if p.bold else ""
            return (f'<text class="{p.kind}" x="{_n(p.at[0])}" y="{_n(p.at[1])}" text-anchor="{p.anchor}" '
                    f'font-size="{_n(p.size)}"{weight}>{xml(p.text)}</text>')
        case Frame():
            dash = ' stroke-dasharray="5 3"' if p.dashed else ""
            left, top = p.top_left
            return (f'<g id="{PREFIX}-{p.key}"><title>{xml(p.title)}</title><rect class="{p.kind} line" x="{_n(left)}" '
                    f'y="{_n(top)}" width="{_n(p.size[0])}" height="{_n(p.size[1])}" rx="8"{dash}/></g>')
        case Swatch():
            title = f"<title>{xml(p.title)}</title>" if p.title else ""
            return (f'<rect {_fill(p.fill)} x="{_n(p.top_left[0])}" y="{_n(p.top_left[1])}" width="{p.size[0]:.2f}" '
                    f'height="{_n(p.size[1])}">{title}</rect>')


def _fill(name: str | None, more: str = "") -> str:
    if name is None:
        return f'class="{more}" fill="url(#{PREFIX}-hatch)"' if more else f'fill="url(#{PREFIX}-hatch)"'
    return f'class="{name}{" " + more if more else ""}"'


def _svg_box(b: BoxShape) -> str:
    (x, y), (w, h) = b.at, b.size
    dash = ' stroke-dasharray="5 3"' if b.dashed else ""
    shape = (f'<circle {_fill(b.fill, "line")} cx="{_n(x)}" cy="{_n(y)}" r="{_n(w / 2)}"/>' if b.round else
             f'<rect {_fill(b.fill, "line")} x="{_n(x - w / 2)}" y="{_n(y - h / 2)}" width="{_n(w)}" height="{_n(h)}" '
             f'rx="{_n(b.radius)}"{dash}/>')
    top = y - LINE * (len(b.lines) - 1) / 2 + 4
    words = ""
    for i, (line, classes) in enumerate(zip_longest(b.lines, ((), *b.word_classes), fillvalue=())):
        size = 9.5 if i else 11
        words += (f'<text class="text" x="{_n(x)}" y="{_n(top + LINE * i)}" text-anchor="middle" font-size="{size:g}">'
                  f'{_words(fitted(str(line), w - 4, size), classes)}</text>' if i < len(b.lines) else "")
    classes = f"node {b.classes}".strip()
    tab = ' tabindex="0"' if b.link else ""
    return (f'<g id="{PREFIX}-{b.key}" class="{classes}" role="img" aria-label="{xml(b.title)}"{tab}>'
            f'<title>{xml(b.title)}</title>{shape}{words}</g>')


def _words(line: str, classes: Sequence[str]) -> str:
    """A line, each word with its class where it has one."""
    if not any(classes):
        return xml(line)
    return " ".join(f'<tspan class="{c}">{xml(w)}</tspan>' for w, c in zip(line.split(), classes, strict=False))


def _svg_wire(w: Wire) -> str:
    dash = ' stroke-dasharray="5 3"' if w.dashed or w.kind == "backward" else ""
    a, b = (f"{PREFIX}-{e}" for e in w.ends)
    head = f'<path class="tip-{w.kind}" d="{_head(w.points, 4 + w.width)}"/>' if w.head else ""
    route = _shortened(w.points, 3 + w.width) if w.head else w.points
    return (f'<g id="{PREFIX}-{w.key}" class="wire {w.kind}" data-from="{a}" data-to="{b}"><title>{xml(w.title)}</title>'
            f'<path d="{path_of(route)}" stroke-width="{w.width:.2f}"{dash}/>{head}</g>')


def _direction(points: Sequence[Point]) -> Point:
    """The unit vector in which a curve arrives."""
    x, y = points[-1]
    for px, py in reversed(points[:-1]):
        length = hypot(x - px, y - py)
        if length > 0.01:
            return (x - px) / length, (y - py) / length
    return 1.0, 0.0


def _shortened(points: Sequence[Point], by: float) -> list[Point]:
    """The curve, ending where its arrow head begins."""
    ux, uy = _direction(points)
    x, y = points[-1]
    return [*points[:-1], (x - ux * by, y - uy * by)]


def _head(points: Sequence[Point], size: float) -> str:
    (ux, uy), (x, y) = _direction(points), points[-1]
    bx, by, half = x - ux * size, y - uy * size, size * 0.42
    corners = [(x, y), (bx - uy * half, by + ux * half), (bx + uy * half, by - ux * half)]
    return "M" + "L".join(f"{_n(a)},{_n(b)}" for a, b in corners) + "Z"


# ---- DOT

def _dot_box(into: Any, b: BoxShape, paint: dict[str, str], height: float) -> None:
    (x, y), (w, h) = b.at, b.size
    style_ = "filled,dashed" if b.dashed else "filled" if b.round or not b.radius else "filled,rounded"
    lines = [fitted(line, w - 4, 10.5) for line in b.lines]
    into.node(b.key, dot_text(lines), shape="circle" if b.round else "box", style=style_,
              fillcolor=paint[b.fill or "background"], pos=f"{x:.1f},{height - y:.1f}", width=f"{w / 72:.3f}",
              height=f"{h / 72:.3f}", id=b.key, tooltip=dot_text([b.title]), **{"class": b.classes or "node"})


def _dot_wire(into: Any, w: Wire, paint: dict[str, str], height: float) -> None:
    flipped = [(x, height - y) for x, y in (_shortened(w.points, 6) if w.head else w.points)]
    end = f"e,{w.points[-1][0]:.1f},{height - w.points[-1][1]:.1f} " if w.head else ""
    dashed = w.dashed or w.kind == "backward"
    into.edge(*w.ends, pos=end + " ".join(f"{x:.1f},{y:.1f}" for x, y in flipped), id=w.key,
              color=paint[w.kind], penwidth=f"{w.width:.2f}", tooltip=dot_text([w.title]), **{"class": w.kind},
              style="dashed" if dashed else "solid", arrowhead="normal" if w.head else "none", arrowsize="0.6",
              constraint="false" if w.kind in ("backward", "delay") else "true")


# ---- curves

def curve(points: Iterable[Point]) -> list[Point]:
    """A smooth way through points that leaves and arrives horizontally."""
    route = list(points)
    out = [route[0]]
    for (x0, y0), (x1, y1) in pairwise(route):
        bend = (x1 - x0) / 2
        out += [(x0 + bend, y0), (x1 - bend, y1), (x1, y1)]
    return out


def straight(*points: Point) -> list[Point]:
    """Straight pieces as cubic ones."""
    out = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        out += [(x0 + (x1 - x0) / 3, y0 + (y1 - y0) / 3), (x0 + (x1 - x0) * 2 / 3, y0 + (y1 - y0) * 2 / 3), (x1, y1)]
    return out


def beside(points: Sequence[Point], by: float) -> list[Point]:
    """The same way in the other direction, moved to the side."""
    moved = []
    for i, (x, y) in enumerate(points):
        (ax, ay), (bx, by_) = points[max(i - 1, 0)], points[min(i + 1, len(points) - 1)]
        length = hypot(bx - ax, by_ - ay) or 1.0
        moved.append((x - by * (by_ - ay) / length, y + by * (bx - ax) / length))
    return moved[::-1]
