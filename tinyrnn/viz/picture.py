"""Items as DOT: a cell folded, or any graph node by node."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cells import Cell
from ..errors import ArgumentError
from ..ir.graph import Graph
from ..shapes import show
from .items import Extract, Item, pretty
from .theme import FONT, LIGHT

if TYPE_CHECKING:
    import graphviz

_SHAPES = {"input": "box", "state": "box", "gate": "box", "function": "box", "op": "circle", "loss": "box",
           "exit": "point"}


class Picture:
    """A DOT source under construction."""

    def __init__(self, title: str, colours: Mapping[str, str] = LIGHT) -> None:
        import graphviz

        self.colours = colours
        self.dot: graphviz.Digraph = graphviz.Digraph()
        self.dot.attr(rankdir="LR", bgcolor=colours["background"], fontname=FONT, fontsize="13", nodesep="0.18",
                      ranksep="0.3", newrank="true", label=text([title]), labelloc="t", labeljust="l",
                      fontcolor=colours["text"], pad="0.2")
        self.dot.attr("node", fontname=FONT, fontsize="11", color=colours["line"], fontcolor=colours["text"],
                      style="filled", penwidth="1", margin="0.08,0.04", height="0.28", width="0.3")
        self.dot.attr("edge", color=colours["forward"], arrowsize="0.6", penwidth="1.2")

    def item(self, into: Any, item: Item, key: str | None = None, size: tuple[float, float] | None = None,
             **attributes: str) -> None:
        """One box or circle, of a size that does not depend on the renderer's fonts."""
        style = "filled,rounded" if item.kind in ("state", "gate", "function", "loss") else "filled"
        width, height = size or item_size(item)
        label = "" if item.kind == "exit" else text(item.lines)
        into.node(key or item.key, label, shape=_SHAPES[item.kind], style=style,
                  fillcolor=self.colours["forward" if item.kind == "exit" else item.kind],
                  id=f"{item.kind}-{key or item.key}", fixedsize="true",
                  width=f"{width / 72:.3f}", height=f"{height / 72:.3f}", **attributes)

    def forward(self, a: str, b: str) -> None:
        self.dot.edge(a, b)

    def backward(self, a: str, b: str, **attributes: str) -> None:
        """A gradient: dashed, in its own colour, against the direction of the computation."""
        self.dot.edge(a, b, color=self.colours["backward"], style="dashed", constraint="false", arrowhead="vee",
                      **{"class": "backward", **attributes})

    def note(self, key: str, lines: Sequence[str], colour: str, **attributes: str) -> None:
        """A left-aligned box of text."""
        label = "".join(escape(line) + r"\l" for line in lines)
        self.dot.node(key, label, shape="box", style="filled,dashed", fillcolor=self.colours[colour], **attributes)


def escape(line: str) -> str:
    """A line of text that means itself to Graphviz."""
    import graphviz

    clean = "".join(c if c.isprintable() else "�" for c in line)
    short = clean if len(clean) <= 200 else clean[:197] + "..."
    return str(graphviz.escape(short)).replace("&", "&amp;")


def text(lines: Sequence[str]) -> str:
    return r"\n".join(map(escape, lines))


def item_size(item: Item) -> tuple[float, float]:
    """Width and height of an item in points."""
    if item.kind in ("op", "exit"):
        return (19.0, 19.0) if item.kind == "op" else (3.0, 3.0)
    return max(24.0, 6.3 * max(map(len, item.lines)) + 14), 14.0 * len(item.lines) + 8


# ---- cells

def step_items(cell: Cell) -> dict[str, Item]:
    """What a picture of one step shows."""
    rails = (*cell.states, *(o for o in cell.outputs if o not in cell.states))
    return Extract(cell.graph(), cell.parameters, rails).items


def folded(cell: Cell, colours: Mapping[str, str] = LIGHT) -> str:
    """One step, with the way back through the delay z⁻¹ for every state."""
    items = step_items(cell)
    p = Picture(cell.title, colours)
    by_text = {i.lines[0]: i.key for i in items.values()}
    for item in items.values():
        p.item(p.dot, item)
        for s in item.sources:
            p.forward(s, item.key)
    for name, lag in cell.slots:
        now, before = by_text.get(pretty(f"{name}[t]")), by_text.get(pretty(f"{name}[t-{lag}]"))
        if now and before:
            delay = f"delay-{name}-{lag}"
            power = str(lag).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
            p.dot.node(delay, f"z⁻{power}", shape="box", fillcolor=colours["op"])
            for a, b in ((now, delay), (delay, before)):
                p.dot.edge(a, b, color=colours["line"], constraint="false", style="solid", arrowhead="normal")
    lines = weight_lines(cell, "parameters")
    p.note("legend", lines, "legend", fixedsize="true", width=f"{(6.3 * max(map(len, lines)) + 20) / 72:.3f}",
           height=f"{(14.5 * len(lines) + 10) / 72:.3f}")
    return str(p.dot.source)


def weight_lines(cell: Cell, heading: str) -> list[str]:
    """A heading, then every parameter with its symbolic shape."""
    return [heading, *(f"{name}  {' × '.join(_factor(s) for s in shape) or '1'}" for name, shape in cell.parameters.items())]


def _factor(size: str) -> str:
    return f"({size})" if "+" in size else size


# ---- any graph

def _cluster(p: Picture, step: int | None, items: Collection[Item]) -> None:
    if step is None:
        for item in items:
            p.item(p.dot, item)
        return
    with p.dot.subgraph(name=f"cluster_{step}") as c:
        c.attr(label=f"t = {step}", style="rounded,filled", fillcolor=p.colours["panel"], color=p.colours["line"],
               labeljust="l", fontsize="12", id=f"step-{step}", margin="10")
        for item in items:
            p.item(c, item)


def general(graph: Graph, colours: Mapping[str, str] = LIGHT) -> str:
    """Every node of a graph, clustered by step where steps are known."""
    if len(graph) > 3000:
        raise ArgumentError(f"the graph has {len(graph):,} nodes; a picture shows at most 3,000. "
                            "Draw fewer steps, or print(graph)")
    p = Picture(f"{len(graph)} nodes", colours)
    number = {n: f"n{i}" for i, n in enumerate(graph.nodes)}
    groups: dict[int | None, list[Item]] = {None: []}
    for n, key in number.items():
        labels = graph.names.get(n, ())
        name = n.at[0] if n.op.name == "input" else n.at[0].name if n.op.name == "leaf" else None
        head = ", ".join(pretty(str(a)) for a in labels[:2]) or (pretty(name) if name else n.op.label)
        kind = "input" if n.op.kind == "leaf" else "state" if n in graph.outputs.values() else "function"
        step = next((a.step for a in labels if isinstance(a.step, int)), graph.steps.get(n))
        lines = [head, f"{n.op.label if head != n.op.label else ''} {show(n.shape)}".strip()]
        groups.setdefault(step, []).append(Item(key, kind, lines, step, [number[s] for s in n.src]))
    for step, items in groups.items():
        _cluster(p, step, items)
    for items in groups.values():
        for item in items:
            for s in item.sources:
                p.forward(s, item.key)
    return str(p.dot.source)
