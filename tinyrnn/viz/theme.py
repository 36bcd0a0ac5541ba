"""Colours and fonts of pictures: Okabe & Ito's palette, chosen so that no meaning hangs on colour alone."""

from __future__ import annotations

FONT = "Helvetica,Arial,sans-serif"

LIGHT = {
    "background": "#ffffff", "text": "#1b1b1b", "line": "#70757d", "panel": "#f7f8fa",
    "forward": "#0072b2", "backward": "#c65700",
    "input": "#ffffff", "state": "#e3f3ec", "gate": "#fdf0d9", "function": "#e4effa", "op": "#fbfbfb", "loss": "#f6e3ee",
    "legend": "#fefefe", "gradient": "#fdeadb",
}
DARK = {
    "background": "#14171a", "text": "#ececec", "line": "#8b939c", "panel": "#1c2126",
    "forward": "#56b4e9", "backward": "#e8a33d",
    "input": "#14181c", "state": "#1d3b30", "gate": "#453718", "function": "#1d344a", "op": "#20262b", "loss": "#462a3b",
    "legend": "#15181b", "gradient": "#4a3013",
}
THEMES = ("auto", "light", "dark")


def dark_rules(paint: dict[str, str] = LIGHT) -> str:
    """CSS that turns every light colour of a picture into its dark one."""
    rules = [f'[{attribute}="{colour}"]{{{attribute}:{DARK[name]}}}'
             for name, colour in paint.items() for attribute in ("fill", "stroke")]
    return "".join([*rules, f"text:not([fill]){{fill:{DARK['text']}}}"])
