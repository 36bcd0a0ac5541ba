"""Quantities × time: of every quantity at every step the norm of its gradient, or the mean of its values, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from numbers import Real

import numpy as np

from ..errors import ArgumentError
from .canvas import Canvas, Piece, composed
from .flow import Flow
from .key import decade_scale, says, scale
from .names import spoken
from .scene import Part, Scene, Swatch, Words, fitted, text_width
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
    """Strips of equally many steps above one another; equal neighbours are one rectangle, so that a file stays small."""
    steps = strips[0].steps
    what = f"{'values' if values else 'gradient'} at {steps} step{'s' * (steps > 1)}"
    name = ", ".join(spoken(s.name) for s in strips) if len(strips) > 1 else strips[0].title
    number = "the mean value" if values else "the norm of the gradient of the loss"
    scene = Scene(f"{name}: {what}",
                  f"{name}, {steps} steps: {number} of every quantity; from left to right the steps, darker is larger.")
    rows = [rows_of(s.tile, kinds) for s in strips]
    shown = [[k for k, _ in own] for own in rows]
    mean = _linear(strips, shown, limits) if values else None
    if mean is None:
        _one_scale(strips, shown, limits)
    flow = strips[0].flow
    pieces: list[Piece] = [_value_scale(mean, limits is not None, canvas) if mean else decade_scale(flow, canvas)]
    loss = "" if values or len(strips) > 1 else f"L = {flow.loss:.4g}, "
    fewer = any(len(rows_of(s.tile)) > len(own) for s, own in zip(strips, rows, strict=True))
    left_out = f"; {' and '.join(f'{k}s' for k in kinds)} only" if fewer else ""
    pieces += says((loss + flow.caption.partition("; ")[2] if values else loss + flow.caption) + left_out, canvas)
    drawing = _Strips(canvas, steps, tokens, rows, mean)
    for s, own in zip(strips, rows, strict=True):
        heading = spoken(s.name) + ("" if values else f", L = {s.flow.loss:.4g}") if len(strips) > 1 else ""
        drawing.add(s, own, heading, s is strips[-1])
    return composed(scene, canvas, drawing.parts, (drawing.right, drawing.bottom), pieces)


# ---- one scale

Mean = tuple[float, float]
Limits = tuple[float, float] | None


def _one_scale(strips: Sequence[Strip], shown: Sequence[Sequence[str]], limits: Limits) -> None:
    """All strips on one scale: the user's, or from the largest norm as far down as the strip that decays least."""
    norms = [[v for at in s.flow.norms.values() for k in keys if (v := at.get(k)) is not None and isfinite(v)]
             for s, keys in zip(strips, shown, strict=True)]
    for s in strips:
        if limits is None:
            s.flow.most, s.flow.span = max((v for own in norms for v in own), default=0.0), min(map(decades, norms))
        else:
            s.flow.on_scale(*limits)


def _linear(strips: Sequence[Strip], shown: Sequence[Sequence[str]], limits: Limits) -> Mean:
    if limits is not None:
        return limits
    found = [at[k] for s, keys in zip(strips, shown, strict=True) for at in s.flow.means.values() for k in keys
             if isfinite(at.get(k, inf))]
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
        self.canvas, self.mean = canvas, mean
        self.row = 1.5 * canvas.font if canvas.tight == 1.0 else 1.25 * canvas.font
        self.left = max(text_width(n, canvas.font) for own in rows for _, n in own) + 10
        room = room_of(canvas) - self.left - canvas.font
        cell = max(min(room / steps, 2.4 * canvas.font), 0.5)
        self.tokens = [fitted(t, 10 * canvas.small, canvas.small) for t in tokens] if tokens else None
        wide = [text_width(t, canvas.small) + 8 for t in self.tokens] if self.tokens else [cell] * steps
        self.bands, self.edges = [0], list[float]()  # where a band begins, and the left edge of every step in its band
        for i, w in enumerate(wide):
            start = self.edges[-1] + wide[i - 1] if i > self.bands[-1] else 0.0
            if self.tokens and i > self.bands[-1] and start + w > room:
                self.bands.append(i)
                start = 0.0
            self.edges.append(start)
        self.wide = wide
        self.parts: list[Part] = []
        self.right = self.bottom = 0.0

    def add(self, strip: Strip, rows: Sequence[tuple[str, str]], heading: str, numbered: bool) -> None:
        """A strip, in bands where its words need the room; steps are numbered once, below all strips."""
        small = self.canvas.small
        if heading:
            self.parts.append(Words((0, self.bottom + small), heading, bold=True, size=small))
            self.bottom += 1.8 * small
        for first, last in pairwise([*self.bands, strip.steps]):
            for key, name in rows:
                self.parts.append(Words((self.left - 8, self.bottom + self.row / 2), name, "end", size=self.canvas.font))
                self._row(strip.flow, key, name, first, last)
                self.bottom += self.row
            if numbered or self.tokens:
                self._under(first, last)
            self.right = max(self.right, self._edge(last - 1) + self.wide[last - 1])

    def _edge(self, i: int) -> float:
        return self.left + self.edges[i]

    def _row(self, flow: Flow, key: str, name: str, first: int, last: int) -> None:
        found = [flow.means[p].get(key) if self.mean else flow.norms[p].get(key) for p in range(first + 1, last + 1)]
        for a, b, shade in _equal([self._shade(flow, v) for v in found]):
            said = " to ".join(dict.fromkeys("none" if v is None else f"{v:.2e}" for v in (found[a], found[b - 1])))
            when = f"t = {first + a + 1}" + (f" to {first + b}" if b - a > 1 else "")
            left, right = self._edge(first + a), self._edge(first + b - 1) + self.wide[first + b - 1]
            self.parts.append(Swatch((left, self.bottom + 1), (right - left, self.row - 2),
                                     None if shade is None else f"q{shade}", f"{name}, {when}: {said}"))

    def _shade(self, flow: Flow, v: float | None) -> int | None:
        if self.mean is None:
            return flow.shade(v)
        if v is None:
            return None
        low, high = self.mean
        return max(0, min(LEVELS, round(LEVELS * (v - low) / (high - low)))) if isfinite(v) else BURST

    def _under(self, first: int, last: int) -> None:
        """Numbers or words of the steps."""
        small, y = self.canvas.small, self.bottom + 0.8 * self.canvas.small
        said = list(enumerate(self.tokens))[first:last] if self.tokens else [(p - 1, str(p)) for p in _ticks(last)]
        kind = "quiet plain" if self.tokens else "quiet"
        self.parts += [Words((self._edge(i) + self.wide[i] / 2, y), text, "middle", kind, small) for i, text in said if text]
        self.bottom = y + 1.3 * small
        if not self.tokens:
            middle = (self._edge(0) + self._edge(last - 1) + self.wide[last - 1]) / 2
            self.parts.append(Words((middle, self.bottom), "step t", "middle", "quiet", small))
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


def table(tile: Tile, flow: Flow, values: bool = False) -> str:
    """Gradient norms, or mean values, as text: a line for every quantity."""
    positions = sorted(flow.norms)
    shown = positions if len(positions) <= 8 else [*positions[:3], *positions[-5:]]
    what = "mean value" if values else "‖∂L/∂·‖"
    head = flow.caption.partition("; ")[2] if values else f"L = {flow.loss:.6g}   ({flow.caption})"
    lines = [head, "".join([what.ljust(16), *(f"t={p}".rjust(11) for p in shown)])]
    for key, name in rows_of(tile):
        numbers = ((flow.means if values else flow.norms)[p].get(key) for p in shown)
        lines.append("".join([name.ljust(16), *("none".rjust(11) if v is None else f"{v:.2e}".rjust(11) for v in numbers)]))
    lines += [] if values else [f"{name:16}{norm:11.2e}   sum over all steps" for name, norm in flow.parameters.items()]
    return "\n".join(lines)
