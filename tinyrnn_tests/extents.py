"""Where the text of a picture stands, measured in the letters of the font that it is drawn with."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from fontTools.ttLib import TTFont

import tinyrnn.viz

SVG = "{http://www.w3.org/2000/svg}"
FONTS = Path(tinyrnn.viz.__file__).parent / "fonts"
ABOVE, UNDER = 0.74, 0.2  # of the size: how far letters reach over their line and under it


@dataclass
class Rectangle:
    left: float
    top: float
    right: float
    bottom: float
    text: str = ""
    size: float = 0.0   # of the smallest letters
    box: object = None  # the node in which it stands

    def meets(self, other, slack=0.4):
        return (min(self.right, other.right) - max(self.left, other.left) > slack
                and min(self.bottom, other.bottom) - max(self.top, other.top) > slack)

    def within(self, other, slack=0.6):
        return (other.left - slack <= self.left and self.right <= other.right + slack
                and other.top - slack <= self.top and self.bottom <= other.bottom + slack)


@cache
def _font(bold):
    font = TTFont(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))
    return font.getBestCmap(), font["hmtx"], font["head"].unitsPerEm


def width(text, size, bold=False):
    cmap, metrics, em = _font(bold)
    return sum(metrics[cmap.get(ord(c), ".notdef")][0] for c in text) * size / em


def _pieces(e, size):
    if e.text:
        yield e.text, size, 0.0
    for child in e:
        yield child.text or "", float(child.get("font-size", size)), float(child.get("dy", 0))
        if child.tail:
            yield child.tail, size, 0.0


def text_rectangle(e, dx, dy):
    size, bold = float(e.get("font-size")), e.get("font-weight") == "bold"
    pieces = list(_pieces(e, size))
    wide = sum(width(t, s, bold) for t, s, _ in pieces)
    x, y = float(e.get("x")) + dx, float(e.get("y")) + dy
    left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[e.get("text-anchor")]
    low = max([0.0, *(d for _, _, d in pieces)])
    return Rectangle(left, y - ABOVE * size, left + wide, y + UNDER * size + low * 0.5, "".join(t for t, _, _ in pieces),
                     min(s for _, s, _ in pieces))


def shape_rectangle(e, dx, dy):
    if e.tag == f"{SVG}ellipse":
        cx, cy, rx, ry = (float(e.get(k)) for k in ("cx", "cy", "rx", "ry"))
        return Rectangle(cx - rx + dx, cy - ry + dy, cx + rx + dx, cy + ry + dy)
    numbers = [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", e.get("d") or e.get("points"))]
    xs, ys = numbers[::2], numbers[1::2]
    return Rectangle(min(xs) + dx, min(ys) + dy, max(xs) + dx, max(ys) + dy)


def rectangles(svg):
    """Every text, and every box, in the picture's points."""
    root = ET.fromstring(svg)
    whole = root.find(f"{SVG}g")
    dx, dy = (float(v) for v in re.search(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)", whole.get("transform")).groups())
    texts, boxes = [], []
    for e in whole:
        if e.tag == f"{SVG}text":
            texts.append(text_rectangle(e, dx, dy))
        elif e.tag == f"{SVG}g":
            shape = next((c for c in e if c.tag in (f"{SVG}path", f"{SVG}polygon", f"{SVG}ellipse")), None)
            inside = [c for c in e if c.tag == f"{SVG}text"]
            if "node" in e.get("class", "").split() and shape is not None:
                boxes.append(shape_rectangle(shape, dx, dy))
                for c in inside:
                    texts.append(text_rectangle(c, dx, dy))
                    texts[-1].box = boxes[-1]
    return texts, boxes, tuple(map(float, root.get("viewBox").split()[2:]))


def faults(svg):
    """What a reader could not read: texts over one another, out of their box, out of the picture, or under a box."""
    texts, boxes, (w, h) = rectangles(svg)
    page = Rectangle(0, 0, w, h)
    found = [f"{t.text!r} leaves the picture" for t in texts if not t.within(page)]
    found += [f"{t.text!r} leaves its box" for t in texts if t.box is not None and not t.within(t.box)]
    found += [f"{a.text!r} and {b.text!r} overlap" for a, b in combinations(texts, 2) if a.meets(b)]
    found += [f"{t.text!r} lies under a box" for t in texts if t.box is None for b in boxes if t.meets(b, 1.0) and not t.within(b)]
    found += ["two boxes overlap" for a, b in combinations(boxes, 2) if a.meets(b, 1.0)]
    found += ["a box leaves the picture" for b in boxes if not b.within(page)]
    return found


def smallest(svg):
    """Points of the smallest letters."""
    return min((t.size for t in rectangles(svg)[0]), default=float("inf"))
