"""Any graph node by node, a graph beside what a pass made of it, and one way through a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..errors import ArgumentError
from ..ir.graph import Graph
from ..ir.node import Node
from ..shapes import show
from . import run_dot
from .canvas import Canvas, composed, move, turn
from .layered import Arrangement, Layout, Point, lay_out
from .pieces import GraphItem, Pieces, matched, narrowed, pieces
from .scene import BoxShape, Frame, Part, Scene, Wire, Words, curve, dot_text, straight
from .tile import box_size

_FILLS = {"leaf": "input", "linear": "gate", "multilinear": "gate", "control": "panel", "constant": "op", "selection": "op"}
_MARKS = {"gone": "✕ ", "new": "+ "}
LARGE = 60  # nodes above which a comparison shows only what changed, and its neighbours
MANY = 300  # nodes above which the layout is always our own: Graphviz's time grows with the square of their number
INSET = (10.0, 24.0)  # from the edge of a frame to what is in it; its title stands in the wider one
Size = tuple[float, float]


def general(graph: Graph, canvas: Canvas) -> Scene:
    """Every node of a graph, grouped by step where steps are known."""
    parts = pieces(graph)
    inner = len(parts.found) - len(graph) - len(graph.outputs)
    title = f"a graph of {len(graph)} nodes" + (f", and {inner} inside its scans" if inner > 0 else "")
    scene = Scene(title, f"{title}, from {', '.join(graph.inputs) or 'no input'} to {', '.join(graph.outputs)}.")
    return composed(scene, canvas, *_place(parts, {}, canvas))


def difference(before: Graph, after: Graph, canvas: Canvas) -> Scene:
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
    body, x, tall, head = list[Part](), 0.0, 0.0, 2.2 * canvas.font
    for p, marks, says in ((a, went, f"before: {counts[0]} went (marked ✕)"), (b, came, f"after: {counts[1]} new (marked +)")):
        near, more = _side(p, marks)
        parts, (wide, high) = _place(near, marks, canvas)
        if canvas.down:
            turn(parts)
            wide, high = high, wide
        words = Words((0, head / 2), says + more, bold=True, size=canvas.font)
        move(parts, 0, head)
        move([words, *parts], x, 0)
        body += [words, *parts]
        x, tall = x + max(wide, words.width) + 2 * canvas.margin, max(tall, head + high)
    return composed(scene, replace(canvas, down=False), body, (x - 2 * canvas.margin, tall))


def _side(p: Pieces, marks: Mapping[str, str]) -> tuple[Pieces, str]:
    """One side of a comparison; of a large graph only what changed and its neighbours."""
    changed = [k for k, mark in marks.items() if mark != "same"] or [k for k in p.found if "out" in k]
    if len(p.found) <= LARGE:
        return p, ""
    near, left_out = narrowed(p, changed)
    return near, f"; {left_out} others not shown"


def path(title: str, nodes: Sequence[Node], said: Sequence[str], canvas: Canvas) -> Scene:
    """One way through a graph, first to last, in lines."""
    scene = Scene(title, f"{title}: " + "; then ".join(said) + ".")
    x, y, right, across = 0.0, 2 * canvas.font, 0.0, canvas.across - 2 * canvas.margin
    boxes: list[BoxShape] = []
    for i, (n, text) in enumerate(zip(nodes, said, strict=True)):
        what, _, where = text.partition(", padded")
        lines = [n.op.label if n.src else what.partition(" ")[0], what, f"padded{where}"]
        wide, high = box_size(lines, canvas, 60.0)
        if x + wide > across and boxes:
            x, y = 16.0, y + high + canvas.gap(30)
        fill = "gone" if i in (0, len(nodes) - 1) else "op"
        boxes.append(BoxShape(f"n{i}", (x + wide / 2, y), (wide, high), lines, fill, text, square=not n.src, font=canvas.font))
        right, x = max(right, x + wide), x + wide + 30
    wires = [Wire(f"f-{b.key}", (a.key, b.key), _onward(a, b), "backward", "padding flows on") for a, b in pairwise(boxes)]
    return composed(scene, replace(canvas, down=False), [*wires, *boxes], (right + 14, y + 3 * canvas.font))


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


def _place(p: Pieces, kept: Mapping[str, str], canvas: Canvas) -> tuple[list[Part], Size]:
    """The pieces at their places; how large they are together."""
    shown = {k: [_MARKS.get(kept.get(k, ""), "") + x.lines[0], *x.lines[1:]] for k, x in p.found.items()}
    size = {k: canvas.turned(box_size(lines, canvas)) for k, lines in shown.items()}
    found = _by_graphviz(p, size, canvas) if len(p.found) <= MANY else None
    at, routes, frames, whole = found or _built_in(p, size, INSET[::-1] if canvas.down else INSET)
    out: list[Part] = []
    for g, (x, y, w, h) in frames.items():
        dx, dy = canvas.turned((8.0, 12.0))
        words = Words((x + dx, y + dy), p.groups[g], kind="quiet", size=canvas.small)
        out += [Frame(g, (x, y), (w, h), p.groups[g]), words]
    for (a, b), route in routes.items():
        kind = "same" if kept.get(b) == "same" else "forward"
        out.append(Wire(f"f-{a}-{b}", (a, b), route, kind, f"{p.found[a].lines[0]} → {p.found[b].lines[0]}"))
    out += [_box(piece, at[k], size[k], shown[k], kept.get(k), canvas) for k, piece in p.found.items()]
    return out, whole


def _box(piece: GraphItem, at: Point, size: Size, lines: Sequence[str], state: str | None, canvas: Canvas) -> BoxShape:
    n = piece.node
    own = "state" if "out" in piece.key else _FILLS.get(n.op.kind, "function")
    title = f"{piece.lines[0]}: {n.op.name} {n.dtype}{show(n.shape)}" + (f", {state}" if state else "")
    return BoxShape(piece.key, at, size, lines, own if state is None else "op" if state == "same" else state, title,
               square=n.op.kind == "leaf", dashed=state == "gone", font=canvas.font)


def _built_in(p: Pieces, size: Mapping[str, Size], inset: Point) -> Places:
    """Layers of our own: the body of every scan is laid out by itself and stands in the whole as one box."""
    bodies = dict.fromkeys(g for x in p.found.values() if (g := p.outermost(x.group)) and "body" in g)
    own = {g: [k for k, x in p.found.items() if p.outermost(x.group) == g] for g in bodies}
    home = {k: g for g, keys in own.items() for k in keys}
    inner = {g: lay_out(Arrangement({k: size[k] for k in keys},
                                    {k: [r for r in p.found[k].reads if home.get(r) == g] for k in keys}))
             for g, keys in own.items()}
    outer_size = {k: size[k] for k in p.found if k not in home} | {
        g: (x.width + inset[0] + 10, x.height + inset[1] + 10) for g, x in inner.items()}
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
        at |= {k: (left + inset[0] + px, top + inset[1] + py) for k, (px, py) in layout.at.items()}
    return at, _ways(p, size, at, home, inner, frames, outer, inset), frames, (outer.width, outer.height)


def _ways(p: Pieces, size: Mapping[str, Size], at: Mapping[str, Point], home: Mapping[str, str], inner: Mapping[str, Layout],
          frames: Mapping[str, Rectangle], outer: Layout, inset: Point) -> dict[tuple[str, str], list[Point]]:
    """Within a body and outside as laid out; across a frame straight on."""
    routes = {}
    for k, x in p.found.items():
        for r in x.reads:
            g = home.get(k)
            if g == home.get(r):
                dx, dy = (frames[g][0] + inset[0], frames[g][1] + inset[1]) if g else (0.0, 0.0)
                routes[r, k] = curve([(a + dx, b + dy) for a, b in (inner[g] if g else outer).route[r, k]])
            else:
                routes[r, k] = curve([(at[r][0] + size[r][0] / 2, at[r][1]), (at[k][0] - size[k][0] / 2, at[k][1])])
    return routes


def _by_graphviz(p: Pieces, size: Mapping[str, Size], canvas: Canvas) -> Places | None:
    """Places by dot, with a cluster for each group; None where dot takes too long.  Wires leave and arrive at the middle."""
    import graphviz

    dot, (tail, head) = graphviz.Digraph(), ("s", "n") if canvas.down else ("e", "w")
    dot.attr(rankdir="TB" if canvas.down else "LR", nodesep=f"{0.14 * canvas.tight:.3f}", newrank="true",
             ranksep=f"{0.3 * canvas.tight:.3f}")
    dot.attr("node", shape="box", fixedsize="true", label="")
    for group in (None, *p.groups):
        target = dot if group is None else graphviz.Digraph(name=f"cluster_{group}")
        if group is not None:
            target.attr(label=dot_text([p.groups[group]]), margin="10", fontsize="10")
        for k, x in p.found.items():
            if x.group == group:
                width, height = canvas.turned(size[k])
                target.node(k, width=f"{width / 72:.3f}", height=f"{height / 72:.3f}")
        if group is not None:
            dot.subgraph(target)
    for k, x in p.found.items():
        for r in x.reads:
            dot.edge(r, k, tailport=tail, headport=head)
    layout = run_dot.lay_out(str(dot.source))
    if layout is None or not canvas.down:
        return None if layout is None else _read(layout, p)
    at, routes, frames, (wide, high) = _read(layout, p)  # as the layout sees it, which knows only what runs to the right
    return ({k: (y, x) for k, (x, y) in at.items()}, {e: [(y, x) for x, y in r] for e, r in routes.items()},
            {g: (y, x, h, w) for g, (x, y, w, h) in frames.items()}, (high, wide))


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
