"""What explains a picture: kinds of wires, scales of shades, words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf

from .canvas import Canvas, Piece, filled
from .flow import Flow
from .scene import BOLD, BoxShape, Part, Swatch, Wire, Words, straight, text_width
from .theme import BURST, LEVELS


def says(text: str, canvas: Canvas) -> list[Piece]:
    """Words of a heading, in pieces that fit into a line."""
    across = canvas.room[0] - 2 * canvas.margin if canvas.room[0] < inf else 800.0
    ways = [re.split(f"(?<=[{marks}]) ", text) for marks in (";", ";,")]  # lines end at marks, where that is possible
    whole = (parts for parts in ways if all(BOLD * text_width(p, canvas.small) <= across for p in parts))
    lines = list(filled(next(whole, text.split()), canvas.small, across))
    return [(text_width(line, canvas.small) if line is lines[-1] else across,  # what goes on fills its line
             [Words((0, 0), line, kind="quiet", size=canvas.small)]) for line in lines]


def stroke(kind: str, text: str, canvas: Canvas) -> Piece:
    """A kind of wire and what it means."""
    wire = Wire(f"key-{kind}", (f"key-{kind}-a", f"key-{kind}-b"), straight((0, 0), (30, 0)), kind, text)
    ends = [BoxShape(f"key-{kind}-{e}", (x, 0), (1, 1), [], "background", text, classes="key")
            for e, x in (("a", 0.0), ("b", 30.0))]
    return 36 + text_width(text, canvas.small), [*ends, wire, Words((36, 0), text, kind="quiet", size=canvas.small)]


def scale(what: str, marks: Sequence[str], more: Sequence[tuple[str | None, str, str]], canvas: Canvas) -> Piece:
    """Shades from dark to light with numbers under them, and further swatches (fill, what is said, title)."""
    small = canvas.small
    wide, high = max(16.0, text_width(max(marks, key=len), small) / 3.4), 1.2 * small
    x, y = text_width(what, small) + 6, small / 1.6
    parts: list[Part] = [Words((0, 0), what, kind="quiet", size=small)]
    for k in range(LEVELS, -1, -1):
        parts.append(Swatch((x, y - high), (wide, high), f"q{k}", marks[LEVELS - k]))
        if k % 4 == 0:
            parts.append(Words((x + wide / 2, y + 0.62 * small), marks[LEVELS - k], "middle", "quiet", small))
        x += wide
    for fill, said, title in more:
        x += max(0.8 * small, text_width(marks[-1], small) / 2 + 4 - wide / 2)
        width = max(26.0, text_width(said, small))
        parts += [Swatch((x, y - high), (width, high), fill, title),
                  Words((x + width / 2, y + 0.62 * small), said, "middle", "quiet", small)]
        x += width
    return x, parts


def decade_scale(flow: Flow, canvas: Canvas) -> Piece:
    """The scale of gradient norms: darker is larger."""
    norms = [flow.most * 10.0 ** (-flow.span * k / LEVELS) for k in range(LEVELS + 1)]
    marks = [f"{v:.0e}".replace("e-0", "e-").replace("e+0", "e") for v in norms]
    others: list[tuple[str | None, str, str]] = [(None, "none", "zero, or no gradient")]
    others += [(f"q{BURST}", "inf", "infinite, or not a number")] if flow.burst else []
    return scale("‖∂L/∂·‖", ["≥" * flow.given + marks[0], *marks[1:-1], f"≤{marks[-1]}"], others, canvas)
