"""How a rewriting reaches every expression of a graph: the top, the bodies of scans, and the bodies inside those."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from ..ir.graph import Graph
from ..ir.node import Node, apply, rebuild, walk, without_collector
from ..ir.ops.elementwise import ADD
from ..ir.ops.linear import ACCUMULATE
from ..ir.scan import (
    FINAL,
    ITEM,
    REGION,
    SCAN,
    TRACE,
    ScanView,
    body_of,
    close,
    expression_of,
    final,
    make_body,
    make_scan,
    position_of,
    trace,
    traced_by_scan,
)

Local = Callable[[Sequence[Node]], list[Node]]
"""Outputs of one scope to equal outputs; what lies inside a body is a scope of its own."""


def everywhere(graph: Graph, local: Local) -> Graph:
    """The graph with `local` applied to every scope, innermost first."""
    with without_collector():
        new = _scope(list(graph.outputs.values()), local)
    return Graph(dict(zip(graph.outputs, new, strict=True)))


def _scope(outputs: Sequence[Node], local: Local) -> list[Node]:
    def inside(outs: Sequence[Node]) -> list[Node]:
        return _scope(outs, local)

    return local(map_scans(outputs, lambda scan, wanted: with_body(scan, wanted, inside), lambda n: with_inner(n, inside)))


def with_body(scan: ScanView, wanted: Sequence[Node], change: Local) -> tuple[Node, dict[Node, Node]]:
    """A scan whose body was rewritten; its sources and states are what they were."""
    outs = change([*scan.body.outs, *wanted])
    body = make_body(scan.body.args, tuple(outs[: scan.n_states]))
    init, xs, consts = scan.split(scan.node.src)
    node = make_scan(body, init, xs, consts, scan.reverse, scan.steps, scan.memory)
    return node, {e: trace(node, t) for e, t in zip(wanted, outs[scan.n_states :], strict=True)}


def with_inner(region: Node, change: Local) -> Node:
    """A region whose body was rewritten."""
    body = body_of(region)
    return apply(REGION, region.src, (make_body(body.args, tuple(change(body.outs))), *region.at[1:]))


def map_scans(outputs: Sequence[Node], change: Callable[[ScanView, Sequence[Node]], tuple[Node, dict[Node, Node]]],
              region: Callable[[Node], Node] = lambda n: n) -> list[Node]:
    """Rebuild what `outputs` need, with every scan changed.

    `change(scan, wanted)` gets a scan over sources that were rebuilt already, and the expressions that are traced; it
    returns a scan with as many finals, and for each expression the node that holds its values.
    """
    order = walk(outputs)
    wanted = traced_by_scan(order)
    new: dict[Node, Node] = {}
    traced: dict[Node, dict[Node, Node]] = {}
    for n in order:
        if n.op is SCAN:
            moved = apply(SCAN, tuple(new[s] for s in n.src), n.at)
            new[n], traced[n] = change(ScanView.of(moved), list(dict.fromkeys(wanted[n])))
        elif n.op is REGION:
            new[n] = region(apply(REGION, tuple(new[s] for s in n.src), n.at))
        elif n.op is TRACE:
            new[n] = traced[n.src[0]][expression_of(n)]
        elif n.op is FINAL:
            new[n] = final(new[n.src[0]], position_of(n))
        elif n.op is ITEM:
            new[n] = apply(ITEM, (new[n.src[0]],), n.at)
        else:
            rebuild([n], new)
    return [new[o] for o in outputs]


def accumulators(scan: ScanView, wanted: Sequence[Node]) -> dict[int, Node]:
    """State i -> g for every state that does nothing but `a + g`; both ops that add do."""
    results = [*scan.body.outs, *wanted]
    uses = Counter([*(s for n in walk(results) for s in n.src), *results])
    found = {}
    for i, (a, out) in enumerate(zip(scan.body.args, scan.body.outs, strict=False)):
        if out.op in (ADD, ACCUMULATE) and uses[a] == 1 == uses[out] and a in out.src:
            term = out.src[1] if out.src[0] is a else out.src[0]
            if (term.shape, term.dtype) == (a.shape, a.dtype):
                found[i] = term
    return found


def first_met(outputs: Iterable[Node], stops: Callable[[Node], bool], ignored: Container[Node]) -> list[Node]:
    """The nodes at which paths back from `outputs` stop."""
    found, seen, stack = dict[Node, None](), set[Node](), list(outputs)
    while stack:
        n = stack.pop()
        if n in seen or n in ignored:
            continue
        seen.add(n)
        if stops(n):
            found[n] = None
        else:
            stack.extend(n.src)
    return list(found)


def made_in_order(outputs: Sequence[Node], reads: Callable[[Node], Sequence[Node]], make: Callable[[Node], None],
                  new: Container[Node]) -> None:
    """`make(n)` enters a node into `new` after all that it reads, which may be other nodes than its sources."""
    stack = [*outputs]
    while stack:
        n = stack[-1]
        missing = [] if n in new else [s for s in reads(n) if s not in new]
        if missing:
            stack += missing
            continue
        stack.pop()
        if n not in new:
            make(n)


def users(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """Who reads each node, once per operand."""
    found: dict[Node, list[Node]] = defaultdict(list)
    for n in order:
        for s in n.src:
            found[s].append(n)
    return found


def replaced(outputs: Sequence[Node], table: Mapping[Node, Node]) -> list[Node]:
    """The outputs with some nodes replaced by others, which are taken as they are."""
    new = dict(table)
    rebuild(walk(outputs, known=new.keys()), new)
    return [new.get(o, o) for o in outputs]


def rewritten(outputs: Sequence[Node], rule: Callable[[Node], Node | None]) -> list[Node]:
    """The outputs with `rule` tried on every node, sources first, until it has no more to say."""
    new: dict[Node, Node] = {}
    for n in walk(outputs):
        src = tuple(new[s] for s in n.src)
        m = n if src == n.src else apply(n.op, src, n.at)
        better = rule(m)
        while better is not None:
            m, better = better, rule(better)
        new[n] = m
    return [new[o] for o in outputs]


# ---- scans over other sources

Pairs = Sequence[tuple[Node, Node]]
"""What stands for a source inside the body, and the source."""


def restated(scan: ScanView, slices: Pairs, constants: Pairs, wanted: Sequence[Node], outs: Sequence[Node] | None = None,
             states: Sequence[int] | None = None) -> tuple[Node, dict[Node, Node]]:
    """The scan over these sources (without those that nothing reads), and the trace of each wanted expression.

    `outs` are the new values of the states, followed by the wanted expressions, where they differ from the body's;
    `states` are the states that stay.
    """
    inner = list(outs if outs is not None else [*scan.body.outs, *wanted])
    kept = list(range(scan.n_states) if states is None else states)
    args, init = scan.body.args, scan.node.src
    read = set(walk(inner))
    pairs = [[p for p in group if p[0] in read] for group in (slices, constants)]
    holes = [*(args[i] for i in kept), *(h for group in pairs for h, _ in group)]
    body, expressions = close(holes, inner[: len(kept)], inner[len(kept) :])
    node = make_scan(body, [init[i] for i in kept], [x for _, x in pairs[0]], [c for _, c in pairs[1]], scan.reverse,
                     scan.steps, scan.memory)
    return node, {e: trace(node, t) for e, t in zip(wanted, expressions, strict=True)}
