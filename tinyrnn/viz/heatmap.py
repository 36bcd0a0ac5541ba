"""Quantities × time: the norm of the gradient of every quantity at every step, as a heat map or a table."""

from __future__ import annotations

from collections.abc import Sequence

from .flow import Flow
from .scene import Scene, Swatch, Words, text_width
from .steps import MARGIN, scale
from .tile import Tile

ROW, WIDE = 17.0, 900.0


def rows_of(tile: Tile) -> list[tuple[str, str]]:
    """Item and name of every row: states on top, then gates in the order of the text, functions, inputs."""
    kinds = ("state", "gate", "function", "input")
    items = [(k, i) for k, i in tile.items.items() if i.kind in kinds and k not in tile.entries]
    place = {name: n for n, name in enumerate(tile.order)}
    items.sort(key=lambda pair: (kinds.index(pair[1].kind), place.get(pair[1].called, len(place))))
    return [(k, i.title) for k, i in items]


def heatmap(tile: Tile, title: str, flow: Flow) -> Scene:
    """The heat map; equal neighbours are one rectangle, so that a thousand steps stay a small file."""
    rows, order = rows_of(tile), [p + 1 for p in tile.recurrence.scan.order]
    steps = len(order)
    scene = Scene(f"{title}: gradient at {steps} steps", f"{title}, {steps} steps: the norm of the gradient of the loss at "
                  + ", ".join(name for _, name in rows) + "; from left to right the steps, dark where it is large.")
    left = MARGIN + max(text_width(name) for _, name in rows) + 10
    cell = max(min(WIDE / steps, 26.0), 0.9)
    scene.add(Words((MARGIN, 24), scene.title, size=14, bold=True))
    x = scale(scene, MARGIN, 35, flow) + 14
    caption = f"L = {flow.loss:.4g}, {flow.caption}"
    scene.add(Words((x, 46), caption, kind="quiet", size=10))
    top = 78.0
    for i, (key, name) in enumerate(rows):
        y = top + i * ROW
        scene.add(Words((left - 8, y + 12), name, "end"))
        for first, last, shade in _runs([flow.shade(flow.norms[p].get(key)) for p in range(1, steps + 1)]):
            norms = [flow.norms[p].get(key) for p in (first + 1, last)]
            said = " to ".join("none" if v is None else f"{v:.2e}" for v in norms)
            scene.add(Swatch((left + first * cell, y), ((last - first) * cell, ROW - 2), None if shade is None else f"q{shade}",
                             f"{name}, t = {first + 1} to {last}: {said}"))
    bottom = top + len(rows) * ROW
    for p in _ticks(steps):
        scene.add(Words((left + (p - 0.5) * cell, bottom + 14), str(p), "middle", "quiet", 10))
    scene.add(Words((left + steps * cell / 2, bottom + 30), "step t", "middle", "quiet", 10))
    right = max(left + steps * cell, x + text_width(caption, 10), MARGIN + 1.1 * text_width(scene.title, 14))
    scene.size = (right + MARGIN, bottom + 44)
    return scene


def _runs(shades: Sequence[int | None]) -> list[tuple[int, int, int | None]]:
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


