"""A graph taken apart for a picture: its nodes, and those of the bodies inside, grouped by step and by scan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..cells.paper import pretty
from ..errors import ArgumentError
from ..ir.graph import Graph
from ..ir.node import Node, walk
from ..ir.op import Trait
from ..ir.ops.elementwise import name_of
from ..ir.ops.leaves import ARG, index_of, literal_value
from ..ir.scan import PROJECTIONS, REGION, SCAN, TRACE, ScanView, body_of, expression_of, position_of
from ..shapes import show

MOST = 3000
_SAID = {"final": "at the end", "trace": "at every step", "item": "result"}


@dataclass
class GraphItem:
    """One node on the picture; a node of a body that several scans share stands in each of them."""

    key: str
    node: Node
    lines: list[str]
    reads: list[str] = field(default_factory=list)
    group: str | None = None


@dataclass
class Pieces:
    """All pieces, and the titles of their groups."""

    found: dict[str, GraphItem]
    groups: dict[str, str]
    within: dict[str, str] = field(default_factory=dict)  # the body of a scan inside another -> that other

    def outermost(self, group: str | None) -> str | None:
        """The body that holds a group and stands in no other."""
        while group in self.within:
            group = self.within[group]
        return group


def _said(scan: ScanView) -> str:
    return f"scan, {scan.steps} steps" + (", backwards" if scan.reverse else "")


def pieces(graph: Graph, prefix: str = "n") -> Pieces:
    """Every node of a graph and of the bodies inside, then its outputs."""
    taking = _Taking(graph, prefix)
    taking.enter(graph.nodes, {}, None)
    for name, n in graph.outputs.items():
        taking.add(n, [pretty(name)], [taking.keys[n]] if n in taking.keys else [], None, "out")
    if len(taking.found) > MOST:
        raise ArgumentError(f"the graph has {len(taking.found):,} nodes; a picture shows at most {MOST:,}. "
                            "Draw fewer steps, or print(graph)")
    return Pieces(taking.found, taking.groups, taking.within)


class _Taking:
    def __init__(self, graph: Graph, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix
        self.found: dict[str, GraphItem] = {}
        self.groups: dict[str, str] = {}
        self.within: dict[str, str] = {}
        self.keys: dict[Node, str] = {}
        self.bodies: dict[Node, dict[Node, str]] = {}  # scan -> the keys of the nodes of its body

    def add(self, n: Node, lines: list[str], reads: Sequence[str], group: str | None, kind: str = "") -> str:
        key = f"{self.prefix}{kind}{len(self.found)}"
        self.found[key] = GraphItem(key, n, [line for line in lines if line] or [n.op.label], list(reads), group)
        return key

    def enter(self, nodes: Sequence[Node], known: Mapping[Node, str], group: str | None) -> dict[Node, str]:
        """The nodes of the graph, or of a body whose arguments are known."""
        keys = self.keys if group is None else dict(known)
        for n in nodes:
            if n in keys or n in self.bodies or literal_value(n) is not None:
                continue
            if n.op in (SCAN, REGION):
                self._enter_body(n, nodes, keys, group)
            elif n.op in PROJECTIONS:
                inner = expression_of(n) if n.op is TRACE else body_of(n.src[0]).outs[position_of(n)]
                source = self.bodies[n.src[0]].get(inner)
                keys[n] = self.add(n, [_SAID[n.op.name], show(n.shape)], [source] if source else [], group)
            else:
                head = self._head(n)
                rest = f"{n.op.label if head != n.op.label else ''} {show(n.shape)}".strip()
                keys[n] = self.add(n, [head, rest], [keys[s] for s in n.src if s in keys], group or self._step(n))
        return keys

    def _enter_body(self, n: Node, nodes: Sequence[Node], keys: Mapping[Node, str], around: str | None) -> None:
        body = body_of(n)
        group = f"{self.prefix}body{len(self.groups)}"
        if around is not None:
            self.within[group] = around
        self.groups[group] = "region" if n.op is REGION else _said(ScanView.of(n))
        arguments = {a: self.add(a, [f"{_part(n, i)} {i}", show(a.shape)], [keys[s]] if s in keys else [], group)
                     for i, (a, s) in enumerate(zip(body.args, n.src, strict=True))}
        traced = [expression_of(t) for t in nodes if t.op is TRACE and t.src[0] is n]
        self.bodies[n] = self.enter(walk([*body.outs, *traced]), arguments, group)

    def _head(self, n: Node) -> str:
        """What a node is called: by its labels, its own name, or its op."""
        labels = self.graph.names.get(n, ())
        name = name_of(n)
        if n.op is ARG:
            return f"argument {index_of(n)}"
        return ", ".join(pretty(str(a)) for a in labels[:2]) or (pretty(str(name)) if name else n.op.label)

    def _step(self, n: Node) -> str | None:
        """The group of a node's step, where steps are known."""
        if Trait.WHOLE in n.op.traits and not any(s in self.graph.steps for s in n.src):
            return None  # of a parameter, for all steps
        labelled = (a.step for a in self.graph.names.get(n, ()) if isinstance(a.step, int))
        step = self.graph.steps.get(n) or next(labelled, None)
        if step is None:
            return None
        self.groups.setdefault(f"{self.prefix}t{step}", f"t = {step}")
        return f"{self.prefix}t{step}"


def narrowed(p: Pieces, changed: Collection[str]) -> tuple[Pieces, int]:
    """The pieces that changed, what they read and what reads them; and how many are left out."""
    near = set(changed) | {r for k in changed for r in p.found[k].reads}
    near |= {k for k, x in p.found.items() if set(x.reads) & set(changed)}
    kept = {k: GraphItem(k, x.node, x.lines, [r for r in x.reads if r in near], x.group)
            for k, x in p.found.items() if k in near}
    used = {x.group for x in kept.values()}
    return Pieces(kept, {g: title for g, title in p.groups.items() if g in used}, p.within), len(p.found) - len(kept)


def _part(n: Node, i: int) -> str:
    """Which part of a scan's interface argument i is."""
    if n.op is REGION:
        return "argument"
    scan = ScanView.of(n)
    return "state" if i < scan.n_states else "each step" if i < scan.n_states + scan.n_slices else "constant"


# ---- two graphs

def matched(before: Graph, after: Graph) -> dict[Node, Node]:
    """Nodes of `before` with the node of `after` that does the same: the same object, or the same op at the same place.

    Places are compared from the outputs down, so a node that only reads something else now is still the same one.
    """
    inside = set(_every(after.nodes))
    found = {n: n for n in _every(before.nodes) if n in inside}
    taken = set(found.values())
    stack = [(n, after.outputs[k]) for k, n in before.outputs.items() if k in after.outputs]
    seen: set[tuple[Node, Node]] = set()
    while stack:
        a, b = stack.pop()
        if (a, b) in seen:
            continue
        seen.add((a, b))
        if (a.op, a.shape, a.dtype) == (b.op, b.shape, b.dtype) and a not in found and b not in taken:
            found[a] = b
            taken.add(b)
        stack += _below(a, b)
    return found


def _below(a: Node, b: Node) -> list[tuple[Node, Node]]:
    """What two nodes of the same kind read at the same places."""
    if a.op is not b.op or len(a.src) != len(b.src):
        return []
    pairs = list(zip(a.src, b.src, strict=True))
    if a.op in (SCAN, REGION) and len(body_of(a).outs) == len(body_of(b).outs):
        pairs += zip(body_of(a).outs, body_of(b).outs, strict=True)
    return [*pairs, (expression_of(a), expression_of(b))] if a.op is TRACE else pairs


def _every(nodes: Sequence[Node]) -> list[Node]:
    """The nodes of a graph and of the bodies inside."""
    out: list[Node] = []
    stack = [list(nodes)]
    while stack:
        for n in stack.pop():
            out.append(n)
            if n.op in (SCAN, REGION):
                stack.append(walk([*body_of(n).args, *body_of(n).outs]))
            elif n.op is TRACE:
                stack.append(walk([expression_of(n)]))
    return out
