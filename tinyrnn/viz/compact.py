"""A picture for a page that has a script: the same, with what the page can do without left out, and colours by class."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

from .svg import SVG

_NUMBER = re.compile(r"-?\d+\.\d+")
_PAINT = ("fill", "stroke")
_CORNER = 6.0


def compact(svg: str) -> str:
    """An SVG element whose boxes are to be pressed: short numbers, corners by the browser, no words on wires."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(svg)
    prefix = root.attrib["id"]
    root.set("role", "group")
    style = root.find(f"{{{SVG}}}style")
    assert style is not None
    style.text = "".join(re.findall(r"#\w+:has\([^}]*\}", style.text or ""))  # colours are those of the page
    _words(root)
    for g in root.iter(f"{{{SVG}}}g"):
        kinds = g.get("class", "").split()
        _shortened(g, kinds)
        if "node" in kinds:
            g.attrib.pop("aria-label", None)  # its title says the same
            g.set("role", "button")
        elif "wire" in kinds or "cluster" in kinds:
            g.attrib.pop("id", None)
            title = g.find(f"{{{SVG}}}title")
            if title is not None and "wire" in kinds:
                g.remove(title)
            for e in g if "wire" in kinds else ():
                for name in ("fill", "stroke-dasharray", *(["stroke-width"] if e.tag.endswith("polygon") else [])):
                    e.attrib.pop(name, None)
            for end in ("data-from", "data-to"):
                if end in g.attrib:
                    g.set(end, g.attrib[end].removeprefix(f"{prefix}-"))
    return ET.tostring(root, encoding="unicode")


def _shortened(g: ET.Element, kinds: list[str]) -> None:
    """The shapes of a part without what the style sheet says, and with numbers that are as exact as eyes are."""
    hatched = any("url(" in e.get("fill", "") for e in g)
    for e in list(g):
        tag = e.tag.rpartition("}")[2]
        for name in _PAINT if {"node", "wire", "cluster"} & {*kinds} else ():
            if e.get(name) not in (None, "none") and not (hatched and name == "fill"):
                del e.attrib[name]
        for name in ("d", "points", "cx", "cy", "stroke-width"):
            if name in e.attrib:
                e.set(name, _NUMBER.sub(lambda m: _number(float(m[0])), e.attrib[name]))
        if tag == "polygon" and "wire" in kinds:
            e.set("points", " ".join(e.attrib["points"].split()[:3]))
        if tag == "path" and {"node", "cluster"} & {*kinds} and e.get("d", "").count(" ") > 30:
            _rounded(e)


def _words(root: ET.Element) -> None:
    """What most texts have in common stands at the root."""
    texts = list(root.iter(f"{{{SVG}}}text"))
    most = Counter(e.attrib["font-size"] for e in texts).most_common(1)
    common = {"text-anchor": "middle", **({"font-size": most[0][0]} if most else {})}
    root.attrib |= common
    for e in texts:
        e.attrib.pop("fill", None)
        for name in ("x", "y"):
            e.set(name, _number(float(e.attrib[name])))
        for name, usual in common.items():
            if e.get(name) == usual:
                del e.attrib[name]
        for t in e:
            if "dy" in t.attrib:
                t.set("dy", _number(float(t.attrib["dy"])))
            if t.get("font-size") == "8.25":
                del t.attrib["font-size"]
                t.set("class", f"{t.get('class', '')} low".strip())


def _number(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def _rounded(path: ET.Element) -> None:
    """A rectangle with round corners, which Graphviz draws as twelve curves."""
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.attrib.pop("d"))]
    xs, ys = numbers[::2], numbers[1::2]
    path.tag = f"{{{SVG}}}rect"
    path.attrib |= {k: _number(v) for k, v in (("x", min(xs)), ("y", min(ys)), ("width", max(xs) - min(xs)),
                                               ("height", max(ys) - min(ys)), ("rx", _CORNER))}
