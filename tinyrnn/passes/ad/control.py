"""Derivatives of the ops with a closed body: every one is again a plain scan or region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ...ir.node import Node, apply, walk
from ...ir.ops.elementwise import TAG
from ...ir.ops.leaves import hole, zeros_like
from ...ir.scan import (
    FINAL,
    ITEM,
    REGION,
    SCAN,
    TRACE,
    ScanView,
    body_of,
    close,
    final,
    invariant,
    items,
    make_scan,
    rule_of,
    trace,
)
from ..ad import adjoint
from ..rewrite import first_met
from .adjoint import Cotangents, accumulate, backward


def scan_vjp(node: Node, cotangents: Cotangents, needed: list[bool]) -> Sequence[Node | None]:
    """The adjoints of a scan's sources: a scan in the other direction.

    Its states are the adjoints of the states and one accumulator per constant; its sequences are the incoming
    adjoints of the traces and the residuals, i.e. the values of the forward step that the backward step reads.
    """
    scan = ScanView.of(node)
    states, slices, constants = scan.split(scan.body.args)
    _, xs, consts = scan.split(node.src)
    _, need_x, need_c = scan.split(needed)

    carry = {i: _stand_in(s) for i, s in enumerate(states) if s.floating}
    incoming = {k[1]: _stand_in(k[1]) for k in cotangents if k[0] is TRACE and isinstance(k[1], Node)}
    seeds: dict[Node, list[Node]] = defaultdict(list)
    for i, h in carry.items():
        seeds[scan.body.outs[i]].append(h)
    for expression, h in incoming.items():
        seeds[expression].append(h)
    wanted_x = [i for i, x in enumerate(slices) if need_x[i] and x.floating]
    wanted_c = [i for i, c in enumerate(constants) if need_c[i] and c.floating]
    found = backward({n: accumulate(parts) for n, parts in seeds.items()},
                     [*(states[i] for i in carry), *(slices[i] for i in wanted_x), *(constants[i] for i in wanted_c)])

    d_state = [found.get(states[i], zeros_like(states[i])) for i in carry]
    d_slice = {i: found[slices[i]] for i in wanted_x if slices[i] in found}
    d_const = {i: found[constants[i]] for i in wanted_c if constants[i] in found}
    inside = walk([*scan.body.args, *scan.body.outs, *incoming])
    residuals = _residuals([*d_state, *d_slice.values(), *d_const.values()], inside, constants)
    named = {n.src[0]: n for n in inside if n.op is TAG}

    sums = {i: _stand_in(constants[i]) for i in d_const}
    new_states = [*d_state, *(sums[i] + g for i, g in d_const.items())]
    body, traced = close([*carry.values(), *sums.values(), *incoming.values(), *residuals, *constants],
                         new_states, list(d_slice.values()))
    start = [*(cotangents.get((FINAL, i), zeros_like(states[i])) for i in carry), *(zeros_like(constants[i]) for i in sums)]
    sequences = [*(cotangents[TRACE, e] for e in incoming),
                 *(xs[slices.index(n)] if n in slices else trace(node, named.get(n, n)) for n in residuals)]
    back = make_scan(body, start, sequences, consts, not scan.reverse, scan.steps, scan.memory)

    out: list[Node | None] = [None] * len(node.src)
    for j, i in enumerate(carry):
        out[i] = final(back, j)
    for (i, _), e in zip(d_slice.items(), traced, strict=True):
        out[scan.n_states + i] = trace(back, e)
    for j, i in enumerate(sums):
        out[scan.n_states + scan.n_slices + i] = final(back, len(carry) + j)
    return out


def _stand_in(n: Node) -> Node:
    return hole(n.shape, n.dtype)


def _residuals(outputs: Iterable[Node], forward: Sequence[Node], constants: Sequence[Node]) -> list[Node]:
    """The values of the forward step that `outputs` read; what depends on constants alone is recomputed."""
    inside, fixed = set(forward), invariant(forward, constants)
    return first_met(outputs, lambda n: n in inside and n.op is not TAG and not _whole(n), fixed)


def _whole(n: Node) -> bool:
    """A nested scan or region has no value to keep: its projections do."""
    return n.op in (SCAN, REGION)


def region_vjp(node: Node, cotangents: Cotangents, needed: list[bool]) -> Sequence[Node | None]:
    """The adjoints of a region's sources: a region that runs the forward body again, or what its own rule says."""
    body, rule = body_of(node), rule_of(node)
    if rule is not None:
        outputs = items(node)
        adjoints = (cotangents.get((ITEM, i), zeros_like(y)) for i, y in enumerate(outputs))
        return items(apply(REGION, (*adjoints, *outputs, *node.src), (rule,)))
    incoming = {i: _stand_in(body.outs[i]) for (_, i) in cotangents if isinstance(i, int)}
    seeds: dict[Node, list[Node]] = defaultdict(list)
    for i, h in incoming.items():
        seeds[body.outs[i]].append(h)
    wanted = [a for a, need in zip(body.args, needed, strict=True) if need and a.floating]
    found = backward({n: accumulate(parts) for n, parts in seeds.items()}, wanted)
    reached = [a for a in wanted if a in found]
    closed, _ = close([*body.args, *incoming.values()], [found[a] for a in reached])
    back = items(apply(REGION, (*node.src, *(cotangents[ITEM, i] for i in incoming)), (closed,)))
    table = dict(zip(reached, back, strict=True))
    return [table.get(a) for a in body.args]


adjoint.CONTROL[SCAN] = scan_vjp
adjoint.CONTROL[REGION] = region_vjp
