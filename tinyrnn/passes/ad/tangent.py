"""Forward mode: tangents as nodes.  No op declares a tangent rule; each follows from what the op already says.

elementwise    the Jacobian is diagonal, so the vjp applied to a tangent is the jvp
linear         the op itself, applied to the tangents
multilinear    one term for each source, with that source replaced by its tangent
selection      the transpose of the vjp: d/dg of <vjp(g), tangent>
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...errors import GradientError
from ...ir.node import Node, apply, rebuild, walk
from ...ir.ops.elementwise import add_n, astype
from ...ir.ops.leaves import full, hole, zeros_like
from ...ir.ops.linear import broadcast_to, sum_
from ...ir.scan import (
    FINAL,
    REGION,
    SCAN,
    Body,
    ScanView,
    body_of,
    close,
    expression_of,
    final,
    items,
    make_scan,
    position_of,
    rule_of,
    trace,
)
from .adjoint import backward


def forward(outputs: Sequence[Node], tangents: Mapping[Node, Node]) -> list[Node]:
    """The tangent of every output, given the tangents of some nodes."""
    d: dict[Node, Node] = dict(tangents)
    readers: dict[Node, Callable[[Node], Node]] = {}
    for n in walk(outputs):
        if n in d:
            continue
        if n.op in (SCAN, REGION):
            if any(s in d for s in n.src):
                readers[n] = (scan_jvp if n.op is SCAN else region_jvp)(n, d)
        elif n.src and n.src[0] in readers:
            if n.floating:
                d[n] = readers[n.src[0]](n)
        elif n.floating and n.op.kind != "constant" and any(s in d for s in n.src):
            terms = _terms(n, d)
            if terms:
                d[n] = add_n([astype(t, n.dtype) for t in terms])
    return [d[o] if o in d else zeros_like(o) for o in outputs]


def _terms(n: Node, d: Mapping[Node, Node]) -> list[Node]:
    moving = [i for i, s in enumerate(n.src) if s in d]
    if n.op.kind == "linear":
        return [apply(n.op, tuple(d.get(s, zeros_like(s) if s.floating else s) for s in n.src), n.at)]
    if n.op.kind == "multilinear":
        return [apply(n.op, (*n.src[:i], d[n.src[i]], *n.src[i + 1 :]), n.at) for i in moving]
    if n.op.kind == "selection":
        g = hole(n.shape, n.dtype)
        adjoint = _adjoints(n, g)[moving[0]]
        assert adjoint is not None
        return [backward({sum_(adjoint * d[n.src[moving[0]]]): full(1, (), n.dtype)}, [g])[g]]
    terms = (_adjoints(n, broadcast_to(d[n.src[i]], n.shape))[i] for i in moving)
    return [broadcast_to(t, n.shape) for t in terms if t is not None]


def _adjoints(n: Node, g: Node) -> Sequence[Node | None]:
    assert n.op.vjp is not None
    result = n.op.vjp(g, n, *n.src, *n.at)
    return (result,) if isinstance(result, Node) else result


def scan_jvp(node: Node, d: Mapping[Node, Node]) -> Callable[[Node], Node]:
    """A scan that carries the states and their tangents; returns how to read a projection's tangent."""
    scan = ScanView.of(node)
    states, slices, constants = scan.split(scan.body.args)
    init, xs, consts = scan.split(node.src)
    moving = [(a, s) for a, s in zip(scan.body.args, node.src, strict=True)
              if a.floating and (a in set(states) or s in d)]
    dot = {a: hole(a.shape, a.dtype) for a, _ in moving}
    groups = [(group, [a for a in group if a in dot]) for group in (states, slices, constants)]
    source = dict(zip(scan.body.args, node.src, strict=True))

    def tangent_of(a: Node) -> Node:
        return d[source[a]] if source[a] in d else zeros_like(source[a])

    moved = [i for i, s in enumerate(states) if s in dot]
    new = [*scan.body.outs, *forward([scan.body.outs[i] for i in moved], dot)]
    holes = [h for group, hot in groups for h in (*group, *(dot[a] for a in hot))]
    body, _ = close(holes, new)
    sources = [[*group, *(tangent_of(a) for a in hot)]
               for group, (_, hot) in zip((init, xs, consts), groups, strict=True)]
    ahead = make_scan(body, sources[0], sources[1], sources[2], scan.reverse, scan.steps, scan.memory)

    def read(projection: Node) -> Node:
        if projection.op is FINAL:
            return final(ahead, scan.n_states + moved.index(position_of(projection)))
        _, traced = close(holes, [], forward([expression_of(projection)], dot))
        return trace(ahead, traced[0])

    return read


def region_jvp(node: Node, d: Mapping[Node, Node]) -> Callable[[Node], Node]:
    """A region over the sources and their tangents; where it has a rule of its own, the transpose of that."""
    body, rule = body_of(node), rule_of(node)
    if rule is not None:
        return _transposed(node, rule, d)
    moving = [(a, s) for a, s in zip(body.args, node.src, strict=True) if a.floating and s in d]
    dot = {a: hole(a.shape, a.dtype) for a, _ in moving}
    closed, _ = close([*body.args, *dot.values()], forward(body.outs, dot))
    ahead = items(apply(REGION, (*node.src, *(d[s] for _, s in moving)), (closed,)))
    return lambda projection: ahead[position_of(projection)]


def _transposed(node: Node, rule: Body, d: Mapping[Node, Node]) -> Callable[[Node], Node]:
    """The tangents of a region's outputs, d/dg of <rule(g), tangents>: the rule is linear in the adjoints g."""
    outputs = items(node)
    g = [hole(y.shape, y.dtype) for y in outputs]
    known = dict(zip(rule.args, (*g, *outputs, *node.src), strict=True))
    adjoints = [rebuild(walk(rule.outs, known=known.keys()), known)[o] for o in rule.outs]
    pairs = [sum_(a * d[s]) for a, s in zip(adjoints, node.src, strict=True) if s in d and s.floating]
    whole = add_n([astype(p, pairs[0].dtype) for p in pairs])
    found = backward({whole: full(1, (), whole.dtype)}, g)
    tangents = [found.get(h, zeros_like(h)) for h in g]
    if any(h in set(walk(tangents)) for h in g):
        raise GradientError("a backward function of one's own is not linear in the adjoints that it gets, so it is no gradient")
    return lambda projection: tangents[position_of(projection)]

