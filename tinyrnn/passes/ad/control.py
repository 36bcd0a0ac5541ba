"""Derivatives of the ops with a closed body: every one is again a plain scan or region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ...ir.node import Node, apply, walk
from ...ir.op import Trait
from ...ir.ops.elementwise import TAG
from ...ir.ops.leaves import ARG, hole, zeros_like
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
from ..rewrite import first_met, replaced
from .adjoint import Cotangents, accumulate, backward


def scan_vjp(node: Node, cotangents: Cotangents, needed: list[bool]) -> Sequence[Node | None]:
    """The adjoints of a scan's sources: a scan in the other direction.

    Its states are the adjoints of the states and one accumulator per constant; its sequences are the incoming
    adjoints of the traces and the residuals, i.e. the values of the forward step that the backward step reads.
    What the step computes from constants alone, `M * W`, has an accumulator of its own; the gradient of such a function is
    applied once, to the sum over all steps.
    """
    scan = ScanView.of(node)
    states, slices, constants = scan.split(scan.body.args)
    _, xs, consts = scan.split(node.src)
    _, need_x, need_c = scan.split(needed)

    carry = {i: _stand_in(s) for i, s in enumerate(states) if s.floating}
    incoming = {k[1]: _stand_in(k[1]) for k in cotangents if k[0] is TRACE and isinstance(k[1], Node)}
    inside = walk([*scan.body.args, *scan.body.outs, *incoming])
    wanted_x = [i for i, x in enumerate(slices) if need_x[i] and x.floating]
    wanted_c = [i for i, c in enumerate(constants) if need_c[i] and c.floating]
    functions = _functions(inside, [*scan.body.outs, *incoming], constants, [constants[i] for i in wanted_c])
    as_constant = {f: _stand_in(f) for f in functions}
    as_before = {h: f for f, h in as_constant.items()}
    outs = replaced([*scan.body.outs, *incoming], as_constant)
    seeds = [*((outs[i], h) for i, h in carry.items()), *zip(outs[scan.n_states:], incoming.values(), strict=True)]
    summed = [*(constants[i] for i in wanted_c), *as_constant.values()]
    found = backward(_summed(seeds), [*(states[i] for i in carry), *(slices[i] for i in wanted_x), *summed])
    found = dict(zip(found, replaced(list(found.values()), as_before), strict=True))

    d_state = [found.get(states[i], zeros_like(states[i])) for i in carry]
    d_slice = {i: found[slices[i]] for i in wanted_x if slices[i] in found}
    d_const = {c: found[c] for c in summed if c in found}
    residuals = _residuals([*d_state, *d_slice.values(), *d_const.values()], inside, constants)
    named = {n.src[0]: n for n in inside if n.op is TAG}

    sums = {c: _stand_in(c) for c in d_const}
    new_states = [*d_state, *(sums[c] + g for c, g in d_const.items())]
    body, traced = close([*carry.values(), *sums.values(), *incoming.values(), *residuals, *constants],
                         new_states, list(d_slice.values()))
    start = [*(cotangents.get((FINAL, i), zeros_like(states[i])) for i in carry), *(zeros_like(c) for c in sums)]
    sequences = [*(cotangents[TRACE, e] for e in incoming),
                 *(xs[slices.index(n)] if n in slices else trace(node, named.get(n, n)) for n in residuals)]
    back = make_scan(body, start, sequences, consts, not scan.reverse, scan.steps)

    out: list[Node | None] = [None] * len(node.src)
    for j, i in enumerate(carry):
        out[i] = final(back, j)
    for (i, _), e in zip(d_slice.items(), traced, strict=True):
        out[scan.n_states + i] = trace(back, e)
    totals = {c: final(back, len(carry) + j) for j, c in enumerate(sums)}
    through = _once({as_before[c]: g for c, g in totals.items() if c in as_before}, dict(zip(constants, consts, strict=True)))
    for i in wanted_c:
        parts = [m[constants[i]] for m in (totals, through) if constants[i] in m]
        out[scan.n_states + scan.n_slices + i] = accumulate(parts) if parts else None
    return out


def _functions(inside: Sequence[Node], outs: Sequence[Node], constants: Sequence[Node], wanted: Sequence[Node]) -> list[Node]:
    """What a step computes from constants alone, where it is read by anything else; a constant that is only looked at in
    another way (transposed, cut) is none."""
    fixed, depends = invariant(inside, constants), set(wanted)
    for n in inside:
        if n in fixed and any(s in depends for s in n.src):
            depends.add(n)
    found: dict[Node, None] = {}
    for s in (*(s for n in inside if n not in fixed for s in n.src), *outs):
        while Trait.VIEW in s.op.traits:
            s = s.src[0]
        if s in depends and s in fixed and s.op is not ARG and s.floating and not _whole(s):
            found[s] = None
    return list(found)


def _once(totals: dict[Node, Node], outside: dict[Node, Node]) -> dict[Node, Node]:
    """The adjoints of constants, from those of functions of them: summed over all steps, and outside of the loop."""
    apart = {c: _stand_in(c) for c in outside}
    values = replaced(list(totals), apart)
    found = backward(dict(zip(values, totals.values(), strict=True)), apart.values())
    reached = [c for c, h in apart.items() if h in found]
    adjoints = replaced([found[apart[c]] for c in reached], {h: outside[c] for c, h in apart.items()})
    return dict(zip(reached, adjoints, strict=True))


def _summed(seeds: Iterable[tuple[Node, Node]]) -> dict[Node, Node]:
    """The adjoint of each value with which the backward step begins."""
    parts: dict[Node, list[Node]] = defaultdict(list)
    for n, g in seeds:
        parts[n].append(g)
    return {n: accumulate(g) for n, g in parts.items()}


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
    wanted = [a for a, need in zip(body.args, needed, strict=True) if need and a.floating]
    found = backward(_summed([(body.outs[i], h) for i, h in incoming.items()]), wanted)
    reached = [a for a in wanted if a in found]
    closed, _ = close([*body.args, *incoming.values()], [found[a] for a in reached])
    back = items(apply(REGION, (*node.src, *(cotangents[ITEM, i] for i in incoming)), (closed,)))
    table = dict(zip(reached, back, strict=True))
    return [table.get(a) for a in body.args]


adjoint.CONTROL[SCAN] = scan_vjp
adjoint.CONTROL[REGION] = region_vjp
