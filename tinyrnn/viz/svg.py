"""Pictures as SVG: Graphviz draws the source of a scene, and what a page needs is added to what it drew.

That is: an id for everything that is unique on a page, titles and labels for those who do not see, colours by class so that
they follow the reader's setting (a style sheet outranks the attributes that Graphviz writes), hatching, subscripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from html import escape
from xml.etree import ElementTree as ET

from . import run_dot
from .names import runs
from .scene import BELOW, Scene, clean
from .theme import FONT, style

PIXELS = 4 / 3  # of a point
SVG = "http://www.w3.org/2000/svg"
_TIP = "{http://www.w3.org/1999/xlink}title"
_WORD = re.compile(r"(\s+)")


def xml(text: str) -> str:
    """Text as it stands in XML, in an element or in an attribute."""
    return escape(clean(text), quote=True)


def drawn(scene: Scene, theme: str) -> str:
    """A picture as one SVG element; equal pictures are equal bytes."""
    source = scene.dot(theme)
    prefix = "p" + hashlib.sha256(f"{theme}{scene.description}{source}".encode()).hexdigest()[:8]
    svg = run_dot.run(source, "-Knop2", "-Tsvg").replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
    return ET.tostring(_Finishing(ET.fromstring(svg), prefix, scene, theme).root, encoding="unicode")


class _Finishing:
    def __init__(self, root: ET.Element, prefix: str, scene: Scene, theme: str) -> None:
        self.prefix, self.scene = prefix, scene
        graph = root[-1]
        ground = next(graph.iter("polygon"))
        ground.set("class", "background")
        ground.tail = None
        parts = [ground, *(made for part in graph.iterfind("g[@class]") for made in self._part(part))]
        self.root = ET.Element("svg", {
            "xmlns": "http://www.w3.org/2000/svg", "id": prefix, "viewBox": f"0 0 {scene.size[0]:g} {scene.size[1]:g}",
            **{k: f"{n * PIXELS:.0f}" for k, n in zip(("width", "height"), scene.size, strict=True)},
            "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-desc", "font-family": FONT})
        self._put("title", scene.title).set("id", f"{prefix}-title")
        self._put("desc", scene.description).set("id", f"{prefix}-desc")
        self._put("style", style(theme, prefix) + "".join(
            f"#{prefix}:has(.{c}:hover) .{c}{{font-weight:bold;text-decoration:underline}}" for c in scene.parameters.values()))
        self._hatching(ground.attrib["fill"])
        whole = ET.SubElement(self.root, "g", {"transform": f"translate(0 {scene.size[1]:g})"})
        whole.extend(parts)

    def _put(self, tag: str, text: str) -> ET.Element:
        made = ET.SubElement(self.root, tag)
        made.text = text
        return made

    def _hatching(self, ground: str) -> None:
        hatch = ET.SubElement(ET.SubElement(self.root, "defs"), "pattern", {
            "id": f"{self.prefix}-hatch", "width": "6", "height": "6", "patternUnits": "userSpaceOnUse",
            "patternTransform": "rotate(45)"})
        ET.SubElement(hatch, "rect", {"class": "background", "fill": ground, "width": "6", "height": "6"})
        ET.SubElement(hatch, "path", {"stroke": "#808080", "d": "M0,0V6", "stroke-width": "1.6", "opacity": ".6"})

    def _part(self, part: ET.Element) -> list[ET.Element]:
        """A node, an edge or a cluster as it stands on a page."""
        kind, *classes = part.attrib["class"].split()
        shapes = [e for e in part.iter() if e.tag in ("path", "polygon", "ellipse", "text")]
        for e in shapes:
            e.tail = None
            if "fill-none" in classes and e.tag != "text":
                e.set("fill", f"url(#{self.prefix}-hatch)")
        words = [e for e in shapes if e.tag == "text"]
        for e in words:
            self._typeset(e, "plain" not in classes)
        if "words" in classes:
            words[0].set("class", " ".join(classes[1:]))
            return words
        if "key" in classes:
            return []  # where a line of the key begins and ends
        tip = next((a.attrib[_TIP] for a in part.iter("a") if _TIP in a.attrib), "")
        swatch = "swatch" in classes
        if swatch:
            shapes[0].set("shape-rendering", "crispEdges")  # neighbours leave no hairline between them
        made = ET.Element("g", {} if swatch else {"id": f"{self.prefix}-{part.get('id')}"})
        made.set("class", " ".join(["wire" if kind == "edge" else kind, *classes][swatch:]))
        if kind == "edge":
            a, _, b = part.findtext("title", "").partition("->")
            made.attrib |= {"data-from": f"{self.prefix}-{a}", "data-to": f"{self.prefix}-{b}"}
        if kind == "node" and not swatch:
            made.attrib |= {"role": "img", "aria-label": tip, "tabindex": "0"}
        if tip:
            ET.SubElement(made, "title").text = tip
        made.extend(shapes)
        return [made]

    # ---- text

    def _typeset(self, e: ET.Element, names: bool) -> None:
        """Subscripts of names stand below, and a parameter lights up with all its other places."""
        for name in ("font-family", "{http://www.w3.org/XML/1998/namespace}space"):
            e.attrib.pop(name, None)
        line, e.text, size, low = (e.text or "").replace("\xa0", " "), None, float(e.attrib["font-size"]), False
        e.set("font-size", f"{size:g}")
        smaller = max(size * BELOW, min(self.scene.least, size))
        for word in _WORD.split(line):
            css = self.scene.parameters.get(word.rstrip("ᵀ:,"))
            for run, below in runs(word) if names else [(word, False)]:
                moved = {} if below is low else {"dy": f"{size * (0.2 if below else -0.2):.2f}"}
                _append(e, run, moved | ({"font-size": f"{smaller:g}"} if below else {}) | (
                    {"class": css, "data-parameter": word.rstrip("ᵀ:,")} if css else {}))
                low = below


def _append(e: ET.Element, text: str, attributes: Mapping[str, str]) -> None:
    """A piece of a line, in an element of its own where something is special about it."""
    if attributes:
        ET.SubElement(e, "tspan", dict(attributes)).text = text
    elif len(e):
        e[-1].tail = (e[-1].tail or "") + text
    else:
        e.text = (e.text or "") + text
