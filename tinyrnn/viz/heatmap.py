"""Quantities × time: of every quantity at every step the norm of its gradient, or the mean of its values, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real

import numpy as np

from ..errors import ArgumentError
from .canvas import Canvas, Piece, composed
from .flow import Flow
from .key import decade_scale, says, scale
from .names import spoken
from .scene import Part, Scene, Swatch, Words, text_width
from .theme import BURST, LEVELS, decades
from .tile import Tile


@dataclass
class Strip:
    """A run of one cell: what it is called, and its numbers."""

    name: str
    title: str
    tile: Tile
    flow: Flow

    @property
    def steps(self) -> int:
        return len(self.tile.recurrence.scan.order)


KINDS = ("state", "gate", "function", "input")


def rows_of(tile: Tile, kinds: Sequence[str] = KINDS) -> list[tuple[str, str]]:
    """Item and name of every row that has a name: states on top, then gates in the order of the text, functions, inputs."""
    items = [(k, i) for k, i in tile.items.items() if i.kind in kinds and i.name and k not in tile.entries]
    place = {name: n for n, name in enumerate(tile.order)}
    items.sort(key=lambda pair: (kinds.index(pair[1].kind), place.get(pair[1].called, len(place))))
    return [(k, i.title.replace("\n", " ")) for k, i in items]


def heatmap(strips: Sequence[Strip], values: bool, limits: Limits, tokens: Sequence[str] | None,
            canvas: Canvas, kinds: Sequence[str] = KINDS) -> Scene:
    """Strips above one another; equal neighbours are one rectangle, so that a thousand steps stay a small file."""
    steps = max(s.steps for s in strips)
    what = f"{'values' if values else 'gradient'} at {steps} step{'s' * (steps > 1)}"
    name = ", ".join(spoken(s.name) for s in strips) if len(strips) > 1 else strips[0].title
    number = "the mean value" if values else "the norm of the gradient of the loss"
    scene = Scene(f"{name}: {what}",
                  f"{name}, {steps} steps: {number} of every quantity; from left to right the steps, darker is larger.")
    mean = _linear(strips, limits) if values else None
    if mean is None:
        _one_scale(strips, limits)
    flow = strips[0].flow
    pieces: list[Piece] = [_value_scale(mean, limits is not None, canvas) if mean else decade_scale(flow, canvas)]
    loss = "" if values or len(strips) > 1 else f"L = {flow.loss:.4g}, "
    pieces += says(loss + flow.caption.partition("; ")[2] if values else loss + flow.caption, canvas)
    drawing = _Strips(canvas, steps, tokens, [rows_of(s.tile, kinds) for s in strips], mean)
    for s in strips:
        heading = spoken(s.name) + ("" if values else f", L = {s.flow.loss:.4g}") if len(strips) > 1 else ""
        drawing.add(s, rows_of(s.tile, kinds), heading, s is strips[-1])
    return composed(scene, canvas, drawing.parts, (drawing.right, drawing.bottom), pieces)


# ---- one scale

Mean = tuple[float, float]
Limits = tuple[float, float] | None


def _one_scale(strips: Sequence[Strip], limits: Limits) -> None:
    """All strips on one scale: the user's, or from the largest norm as far down as the strip that decays least."""
    norms = [[v for at in s.flow.norms.values() for v in at.values() if v is not None and isfinite(v)] for s in strips]
    for s in strips:
        if limits is None:
            s.flow.most, s.flow.span = max((v for own in norms for v in own), default=0.0), min(map(decades, norms))
        else:
            s.flow.on_scale(*limits)


def _linear(strips: Sequence[Strip], limits: Limits) -> Mean:
    if limits is not None:
        return limits
    found = [v for s in strips for at in s.flow.means.values() for k, v in at.items() if isfinite(v)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _value_scale(mean: Mean, given: bool, canvas: Canvas) -> Piece:
    low, high = mean
    marks = [f"{high + (low - high) * k / LEVELS:.2g}" for k in range(LEVELS + 1)]
    marks[0], marks[-1] = ("≥" + marks[0], "≤" + marks[-1]) if given else (marks[0], marks[-1])
    return scale("mean value", marks, [], canvas)


def checked_limits(limits: object, values: bool) -> Limits:
    """`scale=(low, high)`, two numbers; of gradient norms above zero."""
    if limits is None:
        return None
    pair = list(limits) if isinstance(limits, (tuple, list, np.ndarray)) else []
    if len(pair) != 2 or not all(isinstance(v, Real) and not isinstance(v, bool) for v in pair):
        raise ArgumentError(f"scale={limits!r}: expected two numbers (low, high)")
    low, high = float(pair[0]), float(pair[1])
    if not isfinite(high - low):
        raise ArgumentError(f"scale={limits!r}: expected two numbers whose difference is finite")
    if not low < high or (low <= 0 and not values):
        more = "" if values else ", both above 0: gradient norms stand on a logarithmic scale"
        raise ArgumentError(f"scale={limits!r}: expected low < high{more}")
    return low, high


# ---- strips

def room_of(canvas: Canvas) -> float:
    """How wide strips become with their names."""
    return min(canvas.room[0], 960.0) - 2 * canvas.margin


class _Strips:
    """Rows of swatches with names on the left, numbers or words of the steps below."""

    def __init__(self, canvas: Canvas, steps: int, tokens: Sequence[str] | None,
                 rows: Sequence[Sequence[tuple[str, str]]], mean: Mean | None) -> None:
        self.canvas, self.tokens, self.mean = canvas, tokens, mean
        self.row = 1.5 * canvas.font if canvas.tight == 1.0 else 1.25 * canvas.font
        self.left = max(text_width(n, canvas.font) for own in rows for _, n in own) + 10
        room = room_of(canvas) - self.left - canvas.font
        words = max((text_width(t, canvas.small) for t in tokens), default=0.0) + 8 if tokens else 0.0
        self.cell = max(min(room / steps, 2.4 * canvas.font), words, 0.5)
        self.most = max(1, int(room // self.cell)) if tokens else steps  # steps in one band
        self.parts: list[Part] = []
        self.right = self.bottom = 0.0

    def add(self, strip: Strip, rows: Sequence[tuple[str, str]], heading: str, last_strip: bool) -> None:
        """A strip, in bands where its words need the room."""
        small = self.canvas.small
        if heading:
            self.parts.append(Words((0, self.bottom + small), heading, bold=True, size=small))
            self.bottom += 1.8 * small
        for first in range(0, strip.steps, self.most):
            last = min(first + self.most, strip.steps)
            for key, name in rows:
                self.parts.append(Words((self.left - 8, self.bottom + self.row / 2), name, "end", size=self.canvas.font))
                self._row(strip.flow, key, name, first, last)
                self.bottom += self.row
            self._under(first, last, last_strip)
            self.right = max(self.right, self.left + (last - first) * self.cell)

    def _row(self, flow: Flow, key: str, name: str, first: int, last: int) -> None:
        found = [flow.means[p].get(key) if self.mean else flow.norms[p].get(key) for p in range(first + 1, last + 1)]
        for a, b, shade in _equal([self._shade(flow, v) for v in found]):
            said = " to ".join(dict.fromkeys("none" if v is None else f"{v:.2e}" for v in (found[a], found[b - 1])))
            when = f"t = {first + a + 1}" + (f" to {first + b}" if b - a > 1 else "")
            self.parts.append(Swatch((self.left + a * self.cell, self.bottom + 1), ((b - a) * self.cell, self.row - 2),
                                     None if shade is None else f"q{shade}", f"{name}, {when}: {said}"))

    def _shade(self, flow: Flow, v: float | None) -> int | None:
        if self.mean is None:
            return flow.shade(v)
        if v is None:
            return None
        low, high = self.mean
        return max(0, min(LEVELS, round(LEVELS * (v - low) / (high - low)))) if isfinite(v) else BURST

    def _under(self, first: int, last: int, said_what: bool) -> None:
        """Numbers or words of the steps."""
        small, y = self.canvas.small, self.bottom + 0.8 * self.canvas.small
        if self.tokens:
            said = [(p, self.tokens[p - 1]) for p in range(first + 1, last + 1)]
        else:
            said = [(p, str(p)) for p in _ticks(last)]
        kind = "quiet plain" if self.tokens else "quiet"
        self.parts += [Words((self.left + (p - first - 0.5) * self.cell, y), text, "middle", kind, small)
                       for p, text in said if text]
        self.bottom = y + 1.3 * small
        if not self.tokens and said_what:
            self.parts.append(Words((self.left + last * self.cell / 2, self.bottom), "step t", "middle", "quiet", small))
            self.bottom += 1.6 * small


def _equal(shades: Sequence[int | None]) -> list[tuple[int, int, int | None]]:
    """Stretches of equal shades: (first, end, shade)."""
    out: list[tuple[int, int, int | None]] = []
    for i, s in enumerate(shades):
        if out and out[-1][2] == s:
            out[-1] = (out[-1][0], i + 1, s)
        else:
            out.append((i, i + 1, s))
    return out


def _ticks(steps: int) -> list[int]:
    """About ten round steps, the first and the last."""
    every = next((n * 10**k for k in range(7) for n in (1, 2, 5) if steps / (n * 10**k) <= 10), steps)
    inner = [p for p in range(every, steps, every) if p > 1 and steps - p >= every / 2]
    return sorted({1, *inner, steps})


def table(tile: Tile, flow: Flow) -> str:
    """Gradient norms as text, a line for every quantity."""
    positions = sorted(flow.norms)
    shown = positions if len(positions) <= 8 else [*positions[:3], *positions[-5:]]
    lines = [f"L = {flow.loss:.6g}   ({flow.caption})", "".join(["‖∂L/∂·‖".ljust(16), *(f"t={p}".rjust(11) for p in shown)])]
    for key, name in rows_of(tile):
        norms = (flow.norms[p].get(key) for p in shown)
        lines.append("".join([name.ljust(16), *("none".rjust(11) if v is None else f"{v:.2e}".rjust(11) for v in norms)]))
    lines += [f"{name:16}{norm:11.2e}   sum over all steps" for name, norm in flow.parameters.items()]
    return "\n".join(lines)
