"""What a picture is made for, a slide, the column of a page, or a screen that scrolls; and what stands around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from numbers import Real

from ..errors import ArgumentError
from .scene import (
    BELOW,
    BOLD,
    LEADING,
    SIZE,
    SMALL,
    BoxShape,
    Frame,
    Part,
    Point,
    Scene,
    Swatch,
    Wire,
    Words,
    clean,
    fitted,
    text_width,
)

Size = tuple[float, float]
Piece = tuple[float, list[Part]]  # of a heading: its width, and its parts from (0, 0) on


@dataclass(frozen=True)
class Canvas:
    """Points of text, the room that there is, and which way the graph runs."""

    font: float = SIZE
    small: float = SMALL
    room: Size = (inf, inf)
    across: float = 1200.0     # how wide a row of steps may become
    parameters: bool = True
    down: bool = False
    title: str | None = None
    least: float = SIZE * BELOW  # of the smallest subscript
    margin: float = 24.0
    tight: float = 1.0           # how much of the usual room there is between things

    @property
    def line(self) -> float:
        return LEADING * self.font

    def gap(self, points: float) -> float:
        """Room between things grows less than text does."""
        return points * self.tight * sqrt(self.font / SIZE)

    def turned(self, size: Size) -> Size:
        """A size as the layout sees it, which knows only graphs that run to the right."""
        return size[::-1] if self.down else size

    def fits(self, scene: Scene) -> bool:
        return all(a <= b + 0.5 for a, b in zip(scene.size, self.room, strict=True))


FORMATS = {"wide": Canvas(across=inf), "page": Canvas(room=(453.0, 680.0), across=453.0, margin=6.0),
          "slide": Canvas(font=22.0, small=20.0, least=18.0, room=(960.0, 540.0), across=960.0)}
DIRECTIONS = ("right", "down")


def canvas_of(form: str | None, font_size: float | None, parameters: bool, title: str | None, direction: str) -> Canvas:
    """The canvas that a user asks for."""
    if form is not None and (not isinstance(form, str) or form not in FORMATS):
        raise ArgumentError(f"format={form!r}: expected one of {', '.join(FORMATS)}, or None")
    if direction not in DIRECTIONS:
        raise ArgumentError(f"direction={direction!r}: expected 'right' or 'down'")
    if not isinstance(parameters, bool):
        raise ArgumentError(f"parameters={parameters!r}: expected True or False")
    if not isinstance(title, (str, type(None))):
        raise ArgumentError(f"title={title!r}: expected text")
    canvas = replace(FORMATS[form] if form else Canvas(), down=direction == "down", title=title, parameters=parameters)
    if font_size is None:
        return canvas
    if isinstance(font_size, bool) or not isinstance(font_size, Real) or not 4 <= font_size <= 200:
        raise ArgumentError(f"font_size={font_size!r}: expected points of text, from 4 to 200")
    by = float(font_size) / canvas.font
    if form == "slide" and by < 1:
        raise ArgumentError(f"font_size={font_size!r}: letters on a slide have {canvas.font:g} points at least, subscripts "
                            f"{canvas.least:g}")
    return replace(canvas, font=float(font_size), small=by * canvas.small, least=by * canvas.least)


def turn(parts: Sequence[Part]) -> None:
    """What runs to the right runs down."""
    for p in parts:
        match p:
            case BoxShape():
                p.at, p.size = p.at[::-1], p.size[::-1]
            case Wire():
                p.points = [q[::-1] for q in p.points]
            case Frame() | Swatch():
                p.top_left, p.size = p.top_left[::-1], p.size[::-1]
            case Words():
                p.at = p.at[::-1]


def move(parts: Sequence[Part], dx: float, dy: float) -> None:
    """Parts at another place."""
    for p in parts:
        match p:
            case Wire():
                p.points = [(x + dx, y + dy) for x, y in p.points]
            case Frame() | Swatch():
                p.top_left = (p.top_left[0] + dx, p.top_left[1] + dy)
            case _:
                p.at = (p.at[0] + dx, p.at[1] + dy)


def composed(scene: Scene, canvas: Canvas, body: Sequence[Part], size: Size, pieces: Sequence[Piece] = (), heading: str = "",
             entries: Sequence[str] = ()) -> Scene:
    """The picture: title and key above, the body (which starts at (0, 0)), the parameters below, or beside it on a slide."""
    scene.least, scene.pen, margin = canvas.least, sqrt(canvas.font / SIZE), canvas.margin
    wide, high = canvas.turned(size)
    if canvas.down:
        turn(body)
    scene.title = clean(canvas.title or scene.title)
    shown = scene.title if canvas.title is None else clean(canvas.title)
    legend = Legend("parameters", heading, entries, canvas, 0.0)
    fits = wide + 3 * margin + legend.size(1)[0] <= canvas.room[0] < inf
    beside = bool(entries) and fits and legend.size(1)[1] < 0.8 * canvas.room[1]
    across = canvas.room[0] - 2 * margin if canvas.room[0] < inf else max(wide, 504.0)
    top = max(margin / 2, 6.0)
    large = 1.27 * canvas.font if canvas.font < 2 * SIZE else canvas.font
    for line in filled(shown.split(), large, across) if shown else ():
        scene.add(Words((margin, top + canvas.font), fitted(line, across / BOLD, large), size=large, bold=True))
        top += 1.3 * large
    top = _key(scene, pieces, top, across, canvas) + canvas.gap(8.0)
    move(body, margin, top)
    scene.add(*body)
    right, bottom = margin + wide, top + high
    if beside:
        scene.add(*legend.parts((right + margin, top), 1, legend.size(1)[0]))
        right, bottom = right + margin + legend.size(1)[0], max(bottom, top + legend.size(1)[1])
    elif entries:
        legend = Legend("parameters", heading, entries, canvas, across)
        columns = max([1, *(n for n in range(1, len(entries) + 1) if legend.size(n)[0] <= across)])
        width = max(wide, legend.size(columns)[0])
        scene.add(*legend.parts((margin, bottom + canvas.gap(16.0)), columns, width))
        right, bottom = max(right, margin + width), bottom + canvas.gap(16.0) + legend.size(columns)[1]
    words = max((p.left + p.width for p in scene.parts if isinstance(p, Words)), default=0.0)
    return scene.sized(max(right, words) + margin, bottom + margin)


def on_room(scene: Scene, canvas: Canvas) -> Scene:
    """A slide is as large as a slide: what is on it stands in the middle."""
    if canvas.room == FORMATS["slide"].room:
        (w, h), (wide, high) = scene.size, canvas.room
        move(scene.parts, (wide - w) / 2, (high - h) / 2)
        scene.size = canvas.room
    return scene


def filled(words: Sequence[str], size: float, across: float) -> Iterator[str]:
    """Words in lines that are not wider than there is room."""
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if line and BOLD * text_width(longer, size) > across:
            yield line
            line = word
        else:
            line = longer
    if line:
        yield line


# ---- the key

def _key(scene: Scene, pieces: Sequence[Piece], top: float, across: float, canvas: Canvas) -> float:
    """Pieces of a heading from left to right, in as many lines as they need."""
    x, tall = canvas.margin, 0.0
    for width, parts in pieces:
        if x > canvas.margin and x + width > canvas.margin + across:
            x, top, tall = canvas.margin, top + tall, 0.0
        move(parts, x, top + canvas.small)
        scene.add(*parts)
        x += width + 14
        tall = max(tall, (2.4 if any(isinstance(p, Swatch) for p in parts) else 1.5) * canvas.small)
    return top + tall


# ---- parameters

class Legend:
    """A box with a heading and a list in columns: parameters, or what is inside a module."""

    def __init__(self, key: str, heading: str, entries: Sequence[str], canvas: Canvas, across: float) -> None:
        self.key, self.heading, self.entries, self.canvas = key, heading, entries, canvas
        self.column = 16 + max((text_width(e, canvas.small) for e in entries), default=0.0)
        self.row = 1.35 * canvas.small
        self.lines = list(filled(heading.split(), canvas.small, max(1.2 * self.column, across - 16)))

    def size(self, columns: int) -> Size:
        rows = -(-len(self.entries) // columns)
        heading = max(BOLD * text_width(line, self.canvas.small) for line in self.lines) if self.lines else 0.0
        return max(self.column * columns, heading) + 16, self.row * (rows + len(self.lines)) + 16

    def parts(self, at: Point, columns: int, width: float) -> list[Part]:
        """The box at its place."""
        rows, small = -(-len(self.entries) // columns), self.canvas.small
        out: list[Part] = [Frame(self.key, at, (width, self.size(columns)[1]), self.heading, "legend", dashed=True)]
        x, y = at[0] + 10, at[1] + 8 + self.row / 2
        for line in self.lines:
            out.append(Words((x, y), line, bold=True, size=small))
            y += self.row
        apart = max(self.column, (width - 16) / columns)
        out += [Words((x + (i // rows) * apart, y + self.row * (i % rows)), e, size=small) for i, e in enumerate(self.entries)]
        return out


def classes_of(parameters: Mapping[str, str]) -> dict[str, str]:
    """A class for every parameter."""
    return {w: f"p{i}" for i, w in enumerate(parameters)}
