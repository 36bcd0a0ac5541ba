"""Letters as outlines, for programs and printers that lack the font."""

from __future__ import annotations

from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

from . import formats
from .svg import SVG

_NAMES = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}


def outlined(svg: str) -> str:
    """The picture with a path in the place of every word; titles say what it was."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for i, e in enumerate(list(parent)):
            if e.tag == f"{{{SVG}}}text":
                parent[i] = _traced(e)
    root.attrib.pop("font-family", None)
    return ET.tostring(root, encoding="unicode")


@cache
def _font(bold: bool) -> Any:
    ttf = formats.package("fontTools.ttLib", "an SVG without fonts", "fonttools")
    return ttf.TTFont(formats.FONTS / _NAMES[bold])


def _traced(text: ET.Element) -> ET.Element:
    """One text as a group of paths, where its letters stood."""
    size, bold = float(text.attrib["font-size"]), text.get("font-weight") == "bold"
    pieces = [(text.text or "", size, 0.0)]
    for child in text:
        own = float(child.get("font-size", size)), float(child.get("dy", 0))
        pieces += [(child.text or "", *own), (child.tail or "", size, 0.0)]
    wide = sum(_width(piece, s, bold) for piece, s, _ in pieces)
    x = float(text.attrib["x"]) - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
    y, ways = float(text.attrib["y"]), list[str]()
    for piece, s, dy in pieces:
        y += dy
        for c in piece:
            ways.append(_glyph(c, x, y, s, bold))
            x += _width(c, s, bold)
    group = ET.Element(f"{{{SVG}}}g", {k: v for k, v in text.attrib.items() if k in ("class", "fill")})
    ET.SubElement(group, f"{{{SVG}}}title").text = "".join(text.itertext())
    ET.SubElement(group, f"{{{SVG}}}path", {"d": "".join(ways), "class": "letters"})
    return group


def _name(c: str, bold: bool) -> str:
    return str(_font(bold).getBestCmap().get(ord(c), ".notdef"))


def _width(text: str, size: float, bold: bool) -> float:
    font = _font(bold)
    return float(sum(font["hmtx"][_name(c, bold)][0] for c in text) * size / font["head"].unitsPerEm)


def _glyph(c: str, x: float, y: float, size: float, bold: bool) -> str:
    """A letter as a path at its place."""
    pens, transform = (formats.package(f"fontTools.pens.{name}", "an SVG without fonts", "fonttools")
                       for name in ("svgPathPen", "transformPen"))
    font = _font(bold)
    glyphs, scale = font.getGlyphSet(), size / font["head"].unitsPerEm
    pen = pens.SVGPathPen(glyphs, ntos=lambda v: f"{v:.2f}")
    glyphs[_name(c, bold)].draw(transform.TransformPen(pen, (scale, 0, 0, -scale, x, y)))
    return str(pen.getCommands())
