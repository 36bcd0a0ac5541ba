"""`hoist`: products that do not depend on the state leave the loop.

    h[t] = tanh(W x[t] + U h[t-1])     becomes     z = W x (all steps in one product),  h[t] = tanh(z[t] + U h[t-1])

What is computed from constants alone (a stack of weights) leaves the loop, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph
from ..ir.node import Node, walk, without_collector
from ..ir.ops.leaves import ARG, hole
from ..ir.ops.linear import MATMUL
from ..ir.scan import LITERALS, SCAN, ScanView, invariant
from .over_time import Lift, Lifted
from .rewrite import map_scans, replaced, restated, users, with_inner


def hoist(graph: Graph) -> Graph:
    """The same graph, in which scans compute only what needs the state."""
    with without_collector():
        new = _scope(list(graph.outputs.values()))
    return Graph(dict(zip(graph.outputs, new, strict=True)))


def _scope(outputs: Sequence[Node]) -> list[Node]:
    return map_scans(outputs, _hoisted, lambda region: with_inner(region, _scope))


def _hoisted(scan: ScanView, wanted: Sequence[Node]) -> tuple[Node, dict[Node, Node]]:
    _, slices, constants = scan.split(scan.body.args)
    _, xs, consts = scan.split(scan.node.src)
    order = walk([*scan.body.outs, *wanted])
    lift = Lift({**{a: Lifted(x, True) for a, x in zip(slices, xs, strict=True)},
                 **{a: Lifted(c, False) for a, c in zip(constants, consts, strict=True)}}, scan.steps)
    fixed, free = invariant(order, constants), set(invariant(order, [*constants, *slices]))
    leaving = _feeding_products(order, free - fixed)
    used = users([n for n in order if n not in leaving and n not in fixed])
    products = [n for n in order if n in leaving and n.op is MATMUL and (used[n] or n in (*scan.body.outs, *wanted))]
    stacks = [n for n in order if n in fixed and n.op is not ARG and n.op not in LITERALS
              and (used[n] or n in (*scan.body.outs, *wanted))]
    moved = {n: v for n in (*products, *stacks) if n.op is not SCAN and (v := lift(n)) is not None}
    stand_in = {n: hole(n.shape, n.dtype) for n in moved}
    outs = replaced([*scan.body.outs, *wanted], stand_in)
    pairs = [(stand_in[n], v) for n, v in moved.items()]
    return restated(scan, [*zip(slices, xs, strict=True), *((h, v.node) for h, v in pairs if v.timed)],
                    [*zip(constants, consts, strict=True), *((h, v.node) for h, v in pairs if not v.timed)], wanted, outs)


def _feeding_products(order: Sequence[Node], free: set[Node]) -> set[Node]:
    """The products among `free`, and what of it they are computed from."""
    found: set[Node] = set()
    for n in reversed(order):
        if n in free and n.op is MATMUL:
            found.add(n)
        if n in found:
            found.update(s for s in n.src if s in free)
    return found
