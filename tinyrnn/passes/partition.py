"""`partition`: what a scan keeps for its backward scan, and what the backward scan computes again.

    min over cuts   Σ bytes kept   such that every residual follows from what is kept, cheaply

The forward step is a flow network: a value that is expensive to compute again (a product, an exponential) or that is
a state hangs on the source; every residual hangs on the sink; cutting a node means keeping its trace.  Inputs and
constants are there anyway and cost nothing, and so do traces that something else reads.
(The idea of the partitioner in PyTorch's AOTAutograd, applied to one step of a scan.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from math import prod
from typing import Any

from ..ir.graph import Graph
from ..ir.node import Node, rebuild, walk
from ..ir.op import Trait
from ..ir.ops.leaves import ARG, hole
from ..ir.scan import FINAL, SCAN, TRACE, ScanView, close, expression_of, final, make_scan, position_of, trace
from ..sizes import estimate


def partition(graph: Graph) -> Graph:
    """The same graph, in which every backward scan reads a smallest sufficient set of traces."""
    order = graph.nodes
    uses: dict[Node, set[Node]] = defaultdict(set)
    for n in order:
        for s in n.src:
            uses[s].add(n)
    new: dict[Node, Node] = {}
    moved: dict[Node, dict[Node, Node]] = {}
    for n in order:
        ahead = forward_of(n, moved) if n.op is SCAN else None
        if ahead is not None:
            new[n], moved[n] = _slimmer(n, ahead, uses, new)
        elif n.op in (FINAL, TRACE) and n.src[0] in moved:
            s = n.src[0]
            new[n] = final(new[s], position_of(n)) if n.op is FINAL else trace(new[s], moved[s][expression_of(n)])
        else:
            rebuild([n], new)
    return Graph({k: new[n] for k, n in graph.outputs.items()},
                 {label: new.get(n, n) for label, n in graph.labels.items()},
                 {new.get(n, n): t for n, t in graph.steps.items()})


def forward_of(node: Node, moved: Collection[Node]) -> Node | None:
    """The scan whose step this one differentiates: same steps, opposite direction, its constants at the end.

    A scan that was slimmed itself (the backward of a backward reads one) has another body by now and is left alone.
    """
    scan = ScanView.of(node)
    _, xs, consts = scan.split(node.src)
    ahead: dict[Node, None] = {x.src[0]: None for x in xs if x.op is TRACE}
    for s in ahead:
        other = ScanView.of(s)
        theirs = other.split(s.src)[2]
        opposite = other.steps == scan.steps and other.reverse != scan.reverse
        if s not in moved and opposite and consts[len(consts) - len(theirs) :] == theirs:
            return s
    return None


def _slimmer(node: Node, ahead: Node, uses: dict[Node, set[Node]], new: dict[Node, Node]) -> tuple[Node, dict[Node, Node]]:
    scan, forward = ScanView.of(node), ScanView.of(ahead)
    states, slices, constants = scan.split(scan.body.args)
    init, xs, consts = scan.split(node.src)
    _, f_slices, f_constants = forward.split(forward.body.args)
    f_xs = forward.split(ahead.src)[1]
    residual = {a: expression_of(x) for a, x in zip(slices, xs, strict=True) if x.op is TRACE and x.src[0] is ahead}
    free = {expression_of(x) for x in _traces_of(ahead, uses) if uses[x] != {node}} - set(forward.split(forward.body.args)[0])
    kept = minimum_cut(list(dict.fromkeys(residual.values())), {*f_slices, *f_constants}, free)

    stand_in: dict[Node, Node] = {a: hole(a.shape, a.dtype) for a in scan.body.args if a not in residual}
    kept_slots = {e: hole(e.shape, e.dtype) for e in kept}
    inputs = {x: hole(x.shape, x.dtype) for x in f_slices}
    known = {**kept_slots, **{x: inputs[x] for x in f_slices if x not in kept_slots},
             **dict(zip(f_constants, (stand_in[c] for c in constants[len(constants) - len(f_constants):]), strict=True))}
    recomputed = rebuild(walk(residual.values(), known=known.keys()), dict(known))
    env = {**stand_in, **{a: recomputed[e] for a, e in residual.items()}}
    traced = {expression_of(x): None for x in _traces_of(node, uses)}
    rebuild(walk([*scan.body.outs, *traced], known=env.keys()), env)

    used = set(walk([env[n] for n in (*scan.body.outs, *traced)]))
    used_inputs = [x for x in f_slices if inputs[x] in used]
    holes = [*(stand_in[a] for a in states), *(stand_in[a] for a in slices if a not in residual), *kept_slots.values(),
             *(inputs[x] for x in used_inputs), *(stand_in[a] for a in constants)]
    body, expressions = close(holes, [env[o] for o in scan.body.outs], [env[e] for e in traced])
    moved_ahead = new.get(ahead, ahead)
    sequences = [*(new[x] for a, x in zip(slices, xs, strict=True) if a not in residual),
                 *(trace(moved_ahead, e) for e in kept_slots),
                 *(new[f_xs[f_slices.index(x)]] for x in used_inputs)]
    slim = make_scan(body, [new[n] for n in init], sequences, [new[n] for n in consts], scan.reverse, scan.steps, scan.memory)
    return slim, dict(zip(traced, expressions, strict=True))


def _traces_of(scan: Node, uses: dict[Node, set[Node]]) -> list[Node]:
    return [n for n in uses[scan] if n.op is TRACE]


def minimum_cut(residuals: Sequence[Node], given: set[Node], free: set[Node]) -> list[Node]:
    """The values to keep, in a fixed order, so that every residual follows from them and from what is given."""
    import networkx as nx

    order = walk(residuals)
    number = {n: i for i, n in enumerate(order)}
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from(["source", "sink"])
    for n, i in number.items():
        if n in given:
            continue
        flow.add_edge((i, "in"), (i, "out"), capacity=0 if n in free else estimate(prod(n.shape)) * n.dtype.itemsize or 1)
        if n.op is ARG or Trait.CHEAP not in n.op.traits:
            flow.add_edge("source", (i, "in"))
        for s in n.src:
            if s not in given:
                flow.add_edge((number[s], "out"), (i, "in"))
        if n in set(residuals):
            flow.add_edge((i, "out"), "sink")
    _, (reached, _) = nx.minimum_cut(flow, "source", "sink")
    return [n for n, i in number.items() if (i, "in") in reached and (i, "out") not in reached]


