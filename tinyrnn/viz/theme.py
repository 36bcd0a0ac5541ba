"""Colours and fonts of pictures: Okabe & Ito's palette, chosen so that no meaning hangs on colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, isfinite, log10

FONT = "DejaVu Sans,Verdana,Helvetica,Arial,sans-serif"

LIGHT = {
    "background": "#ffffff", "text": "#1b1b1b", "line": "#666b73", "panel": "#f7f8fa", "quiet": "#55595f",
    "forward": "#0072b2", "backward": "#b85000", "delay": "#666b73", "same": "#666b73",
    "input": "#ffffff", "state": "#e3f3ec", "gate": "#fdf0d9", "function": "#e4effa", "op": "#fbfbfb", "loss": "#f6e3ee",
    "legend": "#fefefe", "gone": "#f8d9d2", "new": "#d5ecdf",
}
DARK = {
    "background": "#14171a", "text": "#ececec", "line": "#8b939c", "panel": "#1c2126", "quiet": "#b4bac1",
    "forward": "#56b4e9", "backward": "#e8a33d", "delay": "#8b939c", "same": "#8b939c",
    "input": "#14181c", "state": "#1d3b30", "gate": "#453718", "function": "#1d344a", "op": "#20262b", "loss": "#462a3b",
    "legend": "#15181b", "gone": "#5a2a20", "new": "#1d4431",
}
PRINT = {**dict.fromkeys(LIGHT, "#ffffff"), "text": "#000000", "line": "#000000", "quiet": "#000000", "forward": "#000000",
         "backward": "#000000", "delay": "#555555", "same": "#555555", "gone": "#ffffff", "new": "#ffffff"}
THEMES = ("auto", "light", "dark", "print")
INKS = ("text", "line", "quiet", "forward", "backward", "delay", "same")

LEVELS = 12
BURST = LEVELS + 1  # the shade of infinity and NaN
LONGEST_SPAN = 300  # decades

_BURST = {"light": "#f2a7a0", "dark": "#571048", "print": "#ffffff"}
_HOT = {"light": ("#fbf1e0", "#e08a1e"), "dark": ("#6b665e", "#5e1f00"), "print": ("#f0f0f0", "#b4b4b4")}


def palette(theme: str) -> dict[str, str]:
    """Every colour by its name: the roles, and `q0` (least) to `q12` (most) of the heat scale."""
    roles = {"light": LIGHT, "dark": DARK, "print": PRINT}[theme]
    cold, hot = _HOT[theme]
    return {**roles, **{f"q{k}": mixed(cold, hot, k / LEVELS) for k in range(LEVELS + 1)}, f"q{BURST}": _BURST[theme]}


def mixed(a: str, b: str, share: float) -> str:
    """A colour on the way from a to b."""
    parts = ((int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in parts)


def decades(norms: Iterable[float]) -> int:
    """How many decades a scale spans so that the given norms find a place on it, as far as numbers reach."""
    logs = [log10(v) for v in norms if isfinite(v) and v > 0]
    return min(max(1, ceil(max(logs) - min(logs) - 1e-9)), LONGEST_SPAN) if logs else 1


def level(norm: float | None, most: float, span: float) -> int | None:
    """The shade of a gradient norm on a scale of `span` decades below the largest; None for zero or missing, and one above
    the scale for what is not finite."""
    if norm is None or norm <= 0:
        return None
    if not isfinite(norm):
        return BURST
    return max(0, min(LEVELS, round(LEVELS * (1 + (log10(norm) - log10(most)) / span))))


def style(theme: str, scope: str) -> str:
    """The rules of a picture under the id `scope`: a fixed theme stands in the attributes, `auto` follows the reader."""
    return f"@media (prefers-color-scheme:dark){{{_rules(palette('dark'), f'#{scope} ')}}}" if theme == "auto" else ""


def both_themes(scope: str) -> str:
    """The rules of a picture that has no colours in its attributes."""
    light, dark = (_rules(palette(t), scope, ":is(path,polygon,ellipse,rect)") for t in ("light", "dark"))
    kept = f"{scope}.wire path{{fill:none}}{scope}.wire.backward path{{stroke-dasharray:5,2}}{scope}.low{{font-size:8.25px}}"
    return f"{light}{kept}@media (prefers-color-scheme:dark){{{dark}}}"


def _rules(paint: Mapping[str, str], scope: str, shapes: str = ":is(path,polygon,ellipse)") -> str:
    fills = [k for k in paint if k not in INKS]
    return "".join([
        f"{scope}.background{{fill:{paint['background']}}}{scope}text{{fill:{paint['text']}}}",
        f"{scope}:is(.node,.cluster) {shapes}{{stroke:{paint['line']}}}",
        *(f"{scope}.fill-{k} {shapes}{{fill:{paint[k]}}}" for k in fills),
        *(f"{scope}.{k} path{{stroke:{paint[k]}}}{scope}.{k} polygon{{stroke:{paint[k]};fill:{paint[k]}}}{scope}text.{k}"
          f"{{fill:{paint[k]}}}" for k in INKS if k not in ("text", "line"))])
