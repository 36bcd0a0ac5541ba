"""Any graph node by node, a graph beside what a pass made of it, and one way through a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..errors import ArgumentError
from ..ir.graph import Graph
from ..ir.node import Node
from ..shapes import show
from . import run_dot
from .layered import Arrangement, Layout, Point, lay_out
from .pieces import GraphItem, Pieces, matched, narrowed, pieces
from .scene import LINE, BoxShape, Frame, Scene, Wire, Words, curve, dot_text, straight, text_width
from .steps import MARGIN

_FILLS = {"leaf": "input", "linear": "gate", "multilinear": "gate", "control": "panel", "constant": "op", "selection": "op"}
_MARKS = {"gone": "✕ ", "new": "+ "}
LARGE = 60  # nodes above which a comparison shows only what changed, and its neighbours
MANY = 300  # nodes above which the layout is always our own: Graphviz's time grows with the square of their number
Size = tuple[float, float]


def general(graph: Graph) -> Scene:
    """Every node of a graph, grouped by step where steps are known."""
    parts = pieces(graph)
    inner = len(parts.found) - len(graph) - len(graph.outputs)
    title = f"a graph of {len(graph)} nodes" + (f", and {inner} inside its scans" if inner > 0 else "")
    scene = Scene(title, f"{title}, from {', '.join(graph.inputs) or 'no input'} to {', '.join(graph.outputs)}.")
    scene.add(Words((MARGIN, 24), title, size=14, bold=True))
    width, height = _place(scene, parts, (MARGIN, 44.0), {})
    scene.size = (max(width, 1.1 * text_width(title, 14)) + 2 * MARGIN, 44 + height + MARGIN)
    return scene


def difference(before: Graph, after: Graph) -> Scene:
    """Two graphs side by side: what stayed is grey, what went is red, what is new is green."""
    if not isinstance(after, Graph):
        raise ArgumentError(f"after= is {type(after).__name__}: expected the graph that a pass made")
    a, b, same = pieces(before, "a"), pieces(after, "b"), matched(before, after)
    stayed = set(same.values())
    went = {k: "same" if p.node in same else "gone" for k, p in a.found.items()}
    came = {k: "same" if p.node in stayed else "new" for k, p in b.found.items()}
    counts = list(went.values()).count("gone"), list(came.values()).count("new")
    scene = Scene(f"before ({len(a.found)} nodes) and after ({len(b.found)})",
                  f"A graph before and after a pass: {counts[0]} nodes went, {counts[1]} are new, the others stayed.")
    scene.add(Words((MARGIN, 24), scene.title, size=14, bold=True))
    left, right = (_side(p, marks) for p, marks in ((a, went), (b, came)))
    width, height = _place(scene, left[0], (MARGIN, 76.0), went)
    x = 2 * MARGIN + max(width, 320.0) + 30
    wide, high = _place(scene, right[0], (x, 76.0), came)
    scene.add(Words((MARGIN, 60), f"before: {counts[0]} went (marked ✕){left[1]}", bold=True),
              Words((x, 60), f"after: {counts[1]} new (marked +){right[1]}", bold=True))
    scene.size = (x + max(wide, 320.0) + MARGIN, 76 + max(height, high) + MARGIN)
    return scene


def _side(p: Pieces, marks: Mapping[str, str]) -> tuple[Pieces, str]:
    """One side of a comparison; of a large graph only what changed and its neighbours."""
    changed = [k for k, mark in marks.items() if mark != "same"] or [k for k in p.found if "out" in k]
    if len(p.found) <= LARGE:
        return p, ""
    near, left_out = narrowed(p, changed)
    return near, f"; {left_out} others not shown"


def path(title: str, nodes: Sequence[Node], said: Sequence[str]) -> Scene:
    """One way through a graph, first to last, in lines."""
    scene = Scene(title, f"{title}: " + "; then ".join(said) + ".")
    scene.add(Words((MARGIN, 24), title, size=14, bold=True))
    x, y, across = MARGIN, 62.0, 1100.0
    boxes: list[BoxShape] = []
    for i, (n, text) in enumerate(zip(nodes, said, strict=True)):
        what, _, where = text.partition(", padded")
        lines = [n.op.label if n.src else what.partition(" ")[0], what, f"padded{where}"]
        wide = max(text_width(t, 11 if k == 0 else 9.5) for k, t in enumerate(lines)) + 14
        if x + wide > across and boxes:
            x, y = MARGIN, y + 78
        fill = "gone" if i in (0, len(nodes) - 1) else "op"
        boxes.append(BoxShape(f"n{i}", (x + wide / 2, y), (wide, LINE * 3 + 9), lines, fill, text, radius=5 if n.src else 0))
        x += wide + 30
    scene.add(*(Wire(f"f-{b.key}", (a.key, b.key), _onward(a, b), "backward", "padding flows on") for a, b in pairwise(boxes)))
    scene.add(*boxes)
    scene.size = (across + MARGIN, y + 50)
    return scene


def _onward(a: BoxShape, b: BoxShape) -> list[Point]:
    """From a box to the next, which may stand at the start of the next line."""
    start, end = (a.at[0] + a.size[0] / 2, a.at[1]), (b.at[0] - b.size[0] / 2, b.at[1])
    if start[1] == end[1]:
        return curve([start, end])
    between = (start[1] + end[1]) / 2
    right, left = start[0] + 12, end[0] - 14
    return straight(start, (right, start[1]), (right, between), (left, between), (left, end[1]), end)


# ---- places

Rectangle = tuple[float, float, float, float]
Places = tuple[dict[str, Point], dict[tuple[str, str], list[Point]], dict[str, Rectangle], Size]
"""Boxes, routes, frames, and how large all of it is."""


def _place(scene: Scene, p: Pieces, top_left: Point, kept: Mapping[str, str]) -> Size:
    """Put the pieces on the picture; how large they are together."""
    shown = {k: [_MARKS.get(kept.get(k, ""), "") + x.lines[0], *x.lines[1:]] for k, x in p.found.items()}
    size = {k: (max(30.0, max(text_width(line, 11 if i == 0 else 9.5) for i, line in enumerate(lines)) + 12),
                LINE * len(lines) + 9) for k, lines in shown.items()}
    program = run_dot.find() if len(p.found) <= MANY else None
    at, routes, frames, whole = (_by_graphviz(p, size, program) if program else None) or _built_in(p, size)
    dx, dy = top_left
    for g, (x, y, w, h) in frames.items():
        scene.add(Frame(g, (x + dx, y + dy), (w, h), p.groups[g]),
                  Words((x + dx + 8, y + dy + 14), p.groups[g], kind="quiet", size=9.5))
    for (a, b), route in routes.items():
        kind = "same" if kept.get(b) == "same" else "forward"
        scene.add(Wire(f"f-{a}-{b}", (a, b), [(x + dx, y + dy) for x, y in route], kind,
                       f"{p.found[a].lines[0]} → {p.found[b].lines[0]}"))
    for k, piece in p.found.items():
        scene.add(_box(piece, (at[k][0] + dx, at[k][1] + dy), size[k], shown[k], kept.get(k)))
    return whole


def _box(piece: GraphItem, at: Point, size: Size, lines: Sequence[str], state: str | None) -> BoxShape:
    n = piece.node
    own = "state" if "out" in piece.key else _FILLS.get(n.op.kind, "function")
    title = f"{piece.lines[0]}: {n.op.name} {n.dtype}{show(n.shape)}" + (f", {state}" if state else "")
    return BoxShape(piece.key, at, size, lines, own if state is None else "op" if state == "same" else state, title,
               radius=0 if n.op.kind == "leaf" else 5, dashed=state == "gone")


def _built_in(p: Pieces, size: Mapping[str, Size]) -> Places:
    """Layers of our own: the body of every scan is laid out by itself and stands in the whole as one box."""
    bodies = dict.fromkeys(g for x in p.found.values() if (g := p.outermost(x.group)) and "body" in g)
    own = {g: [k for k, x in p.found.items() if p.outermost(x.group) == g] for g in bodies}
    home = {k: g for g, keys in own.items() for k in keys}
    inner = {g: lay_out(Arrangement({k: size[k] for k in keys},
                                    {k: [r for r in p.found[k].reads if home.get(r) == g] for k in keys}))
             for g, keys in own.items()}
    outer_size = {k: size[k] for k in p.found if k not in home} | {g: (x.width + 20, x.height + 34) for g, x in inner.items()}
    reads: dict[str, list[str]] = {k: [] for k in outer_size}
    for k, x in p.found.items():
        mine = home.get(k, k)
        reads[mine] += [home.get(r, r) for r in x.reads if home.get(r, r) != mine]
    outer = lay_out(Arrangement(outer_size, reads, late=True))
    at, frames = dict(outer.at), {}
    for g, layout in inner.items():
        w, h = outer_size[g]
        left, top = outer.at[g][0] - w / 2, outer.at[g][1] - h / 2
        frames[g] = (left, top, w, h)
        at |= {k: (left + 10 + px, top + 24 + py) for k, (px, py) in layout.at.items()}
    return at, _ways(p, size, at, home, inner, frames, outer), frames, (outer.width, outer.height)


def _ways(p: Pieces, size: Mapping[str, Size], at: Mapping[str, Point], home: Mapping[str, str], inner: Mapping[str, Layout],
          frames: Mapping[str, Rectangle], outer: Layout) -> dict[tuple[str, str], list[Point]]:
    """Within a body and outside as laid out; across a frame straight on."""
    routes = {}
    for k, x in p.found.items():
        for r in x.reads:
            g = home.get(k)
            if g == home.get(r):
                dx, dy = (frames[g][0] + 10, frames[g][1] + 24) if g else (0.0, 0.0)
                routes[r, k] = curve([(a + dx, b + dy) for a, b in (inner[g] if g else outer).route[r, k]])
            else:
                routes[r, k] = curve([(at[r][0] + size[r][0] / 2, at[r][1]), (at[k][0] - size[k][0] / 2, at[k][1])])
    return routes


def _by_graphviz(p: Pieces, size: Mapping[str, Size], program: str) -> Places | None:
    """Places by dot, with a cluster for each group; None where dot takes too long."""
    import graphviz

    dot = graphviz.Digraph()
    dot.attr(rankdir="LR", nodesep="0.14", ranksep="0.3", newrank="true")
    dot.attr("node", shape="box", fixedsize="true", label="")
    for group in (None, *p.groups):
        target = dot if group is None else graphviz.Digraph(name=f"cluster_{group}")
        if group is not None:
            target.attr(label=dot_text([p.groups[group]]), margin="10", fontsize="10")
        for k, x in p.found.items():
            if x.group == group:
                target.node(k, width=f"{size[k][0] / 72:.3f}", height=f"{size[k][1] / 72:.3f}")
        if group is not None:
            dot.subgraph(target)
    for k, x in p.found.items():
        for r in x.reads:
            dot.edge(r, k)
    found = run_dot.lay_out(str(dot.source), program)
    return None if found is None else _read(found, p)


def _read(layout: Mapping[str, Any], p: Pieces) -> Places:
    _, _, width, height = map(float, layout["bb"].split(","))
    objects = layout.get("objects", [])
    names = {o["_gvid"]: o["name"] for o in objects}
    at = {o["name"]: _flipped(o["pos"], height)[0] for o in objects if o.get("name") in p.found}
    frames = {}
    for o in objects:
        if o["name"].startswith("cluster_") and "bb" in o:
            x0, y0, x1, y1 = map(float, o["bb"].split(","))
            frames[o["name"].removeprefix("cluster_")] = (x0, height - y1, x1 - x0, y1 - y0)
    routes = {}
    for e in layout.get("edges", []):
        tip, _, rest = e["pos"].partition(" ")
        points = _flipped(rest if tip.startswith("e,") else e["pos"], height)
        if tip.startswith("e,"):
            points[-1] = _flipped(tip, height)[0]
        routes[names[e["tail"]], names[e["head"]]] = points
    return at, routes, frames, (width, height)


def _flipped(text: str, height: float) -> list[Point]:
    return [(float(x), height - float(y)) for x, y in (part.split(",")[-2:] for part in text.split())]
