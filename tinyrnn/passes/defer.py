"""`defer`: sums over time, and products that only outputs read, leave the loop.

    dW = dW + dz[t]ᵀ h[t-1]   in every step     becomes     dW = dzᵀ h   over all steps and rows, after the loop

The loop then only traces what the product needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph
from ..ir.node import Node, apply, rebuild, walk, without_collector
from ..ir.ops.elementwise import TAG, add
from ..ir.ops.leaves import hole
from ..ir.ops.linear import BROADCAST, MATMUL, RESHAPE, TRANSPOSE
from ..ir.scan import FINAL, LITERALS, SCAN, TRACE, ScanView, expression_of, final, invariant, position_of
from .over_time import Lift, Lifted
from .rewrite import accumulators, first_met, replaced, restated

MOVES = (TRANSPOSE, RESHAPE, BROADCAST, TAG)


def defer(graph: Graph) -> Graph:
    """The same graph, in which loops carry nothing that could be summed up afterwards."""
    with without_collector():
        return _deferred(graph)


def _deferred(graph: Graph) -> Graph:
    order = graph.nodes
    projections: dict[Node, list[Node]] = {}
    for n in order:
        if n.op in (FINAL, TRACE):
            projections.setdefault(n.src[0], []).append(n)
    new: dict[Node, Node] = {}
    for n in order:
        if n in new:
            continue
        if n.op is SCAN:
            new.update(_one(ScanView.of(apply(SCAN, tuple(new[s] for s in n.src), n.at)), projections.get(n, [])))
            new[n] = n
        else:
            rebuild([n], new)
    return Graph({k: new[n] for k, n in graph.outputs.items()})


def _one(scan: ScanView, projections: Sequence[Node]) -> dict[Node, Node]:
    """What every projection of a scan becomes."""
    _, slices, constants = scan.split(scan.body.args)
    init, xs, consts = scan.split(scan.node.src)
    wanted = list(dict.fromkeys(expression_of(p) for p in projections if p.op is TRACE))
    sums = {i: g for i, g in accumulators(scan, wanted).items() if g.floating}
    kept = [i for i in range(scan.n_states) if i not in sums]
    inside = set(walk([scan.body.outs[i] for i in kept]))
    later = [e for e in wanted if e not in inside and _has_product(e, inside)]
    inside |= set(walk([e for e in wanted if e not in later]))
    inside -= invariant(walk([*scan.body.outs, *wanted]), constants)  # which need no trace: they are the same in every step

    places = {**{a: Lifted(x, True) for a, x in zip(slices, xs, strict=True)},
              **{c: Lifted(x, False) for c, x in zip(constants, consts, strict=True)}}
    stops = _stops([*sums.values(), *later], inside, [*slices, *constants])
    stand_in = {e: hole((scan.steps, *e.shape), e.dtype) for e in stops}
    lift = Lift({**places, **{e: Lifted(h, True) for e, h in stand_in.items()}}, scan.steps)
    totals = {i: lift.total(g) for i, g in sums.items()}
    lifted = {e: lift.timed(e) for e in later}
    if any(v is None for v in (*totals.values(), *lifted.values())):  # some op has no form for all steps: as it was
        return _unchanged(scan, projections)
    if not totals and not lifted:
        return _unchanged(scan, projections)
    traced = list(dict.fromkeys([*(e for e in wanted if e not in lifted), *stops]))
    node, traces = restated(scan, list(zip(slices, xs, strict=True)), list(zip(constants, consts, strict=True)), traced,
                            [*(scan.body.outs[i] for i in kept), *traced], kept)
    table = {stand_in[e]: traces[e] for e in stops}
    found: dict[Node, Node] = {}
    for p in projections:
        if p.op is TRACE:
            value = lifted.get(expression_of(p))
            found[p] = traces[expression_of(p)] if value is None else replaced([value], table)[0]
        elif position_of(p) in totals:
            total = totals[position_of(p)]
            assert total is not None
            found[p] = add(init[position_of(p)], replaced([total], table)[0])
        else:
            found[p] = final(node, kept.index(position_of(p)))
    return found


def _unchanged(scan: ScanView, projections: Sequence[Node]) -> dict[Node, Node]:
    return {p: apply(p.op, (scan.node,), p.at) for p in projections}


def _has_product(e: Node, inside: set[Node]) -> bool:
    return any(n.op is MATMUL for n in walk([e], known=inside))


def _stops(outputs: Sequence[Node], inside: set[Node], given: Sequence[Node]) -> list[Node]:
    """The values of the loop that `outputs` start from; moves are repeated outside rather than traced."""
    met = first_met(outputs, lambda n: (n in inside and n.op not in MOVES) or not n.src, set(given))
    return [n for n in met if n.op not in LITERALS]
