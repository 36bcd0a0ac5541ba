"""`defer`: sums over time, and products that only outputs read, leave the loop.

    dW = dW + dz[t]ᵀ h[t-1]   in every step     becomes     dW = dzᵀ h   over all steps and rows, after the loop

The loop then only traces what the product needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.node import Node, apply, rebuild, walk, without_collector
from ..ir.ops.elementwise import CAST, TAG, add, astype
from ..ir.ops.leaves import hole, is_number
from ..ir.ops.linear import ACCUMULATE, BROADCAST, MATMUL, RESHAPE, SUM, TRANSPOSE, add_onto
from ..ir.scan import FINAL, LITERALS, REGION, SCAN, TRACE, ScanView, expression_of, final, invariant, position_of
from .over_time import Lift, Lifted
from .rewrite import accumulators, first_met, replaced, restated, with_inner

MOVES = (TRANSPOSE, RESHAPE, BROADCAST, TAG)


def defer(graph: Graph) -> Graph:
    """The same graph, in which loops carry nothing that could be summed up afterwards."""
    with without_collector():
        new = _deferred(list(graph.outputs.values()))
    return Graph(dict(zip(graph.outputs, new, strict=True)))


def _deferred(outputs: Sequence[Node]) -> list[Node]:
    order = walk(outputs)
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
        elif n.op is REGION:
            new[n] = with_inner(apply(REGION, tuple(new[s] for s in n.src), n.at), _deferred)
        else:
            rebuild([n], new)
    return [new[o] for o in outputs]


@dataclass(frozen=True)
class Later:
    """What of a scan need not be computed step by step."""

    totals: Mapping[int, Node]   # of a state that is a sum: what all its terms come to
    lifted: Mapping[Node, Node]  # of a traced expression: its values at all steps
    kept: Sequence[int]          # the states that stay
    traced: Mapping[Node, Node]  # of an expression that the loop traces for these: what stands for its values in them


def found_later(scan: ScanView, wanted: Sequence[Node],
                lift_from: Callable[[Mapping[Node, Lifted], int, bool], Lift] = Lift) -> Later | None:
    """What of a scan, whose expressions `wanted` are traced, can be computed after its loop; None where nothing, or where
    some op on the way has no form for all steps."""
    _, slices, constants = scan.split(scan.body.args)
    _, xs, consts = scan.split(scan.node.src)
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
    lift = lift_from({**places, **{e: Lifted(h, True) for e, h in stand_in.items()}}, scan.steps, not scan.reverse)
    totals = {i: total for i, g in sums.items()
              if (total := (lift.single if scan.body.outs[i].op is ACCUMULATE else lift.total)(g)) is not None}
    lifted = {e: whole for e in later if (whole := lift.timed(e)) is not None}
    if len(totals) < len(sums) or len(lifted) < len(later) or not (totals or lifted):
        return None
    return Later(totals, lifted, kept, stand_in)


def _one(scan: ScanView, projections: Sequence[Node]) -> dict[Node, Node]:
    """What every projection of a scan becomes."""
    _, slices, constants = scan.split(scan.body.args)
    init, xs, consts = scan.split(scan.node.src)
    wanted = list(dict.fromkeys(expression_of(p) for p in projections if p.op is TRACE))
    later = found_later(scan, wanted)
    if later is None:
        return {p: apply(p.op, (scan.node,), p.at) for p in projections}
    traced = list(dict.fromkeys([*(e for e in wanted if e not in later.lifted), *later.traced]))
    node, traces = restated(scan, list(zip(slices, xs, strict=True)), list(zip(constants, consts, strict=True)), traced,
                            [*(scan.body.outs[i] for i in later.kept), *traced], later.kept)
    table = {h: traces[e] for e, h in later.traced.items()}
    found: dict[Node, Node] = {}
    for p in projections:
        if p.op is TRACE:
            value = later.lifted.get(expression_of(p))
            found[p] = traces[expression_of(p)] if value is None else replaced([value], table)[0]
        elif position_of(p) in later.totals:
            total = replaced([later.totals[position_of(p)]], table)[0]
            single = scan.body.outs[position_of(p)].op is ACCUMULATE
            found[p] = _from(init[position_of(p)], total, not scan.reverse, single)
        else:
            found[p] = final(node, later.kept.index(position_of(p)))
    return found


def _from(start: Node, total: Node, forward: bool, single: bool) -> Node:
    """A state that begins at `start`, to which the loop adds a total; a `single` one is cast to the dtype it is added up in."""
    x = total.src[0] if single and total.op is CAST else total
    x = x.src[1] if x.op is ACCUMULATE and is_number(x.src[0], 0) else x
    return add_onto(start, astype(x, total.dtype), forward) if x.op in (MATMUL, SUM) else add(start, total)


def _has_product(e: Node, inside: set[Node]) -> bool:
    return any(n.op is MATMUL for n in walk([e], known=inside))


def _stops(outputs: Sequence[Node], inside: set[Node], given: Sequence[Node]) -> list[Node]:
    """The values of the loop that `outputs` start from; moves are repeated outside rather than traced."""
    met = first_met(outputs, lambda n: (n in inside and n.op not in MOVES) or not n.src, set(given))
    return [n for n in met if n.op not in LITERALS]
