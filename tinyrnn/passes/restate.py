"""A scan with other sources: what passes that change the interface of a scan have in common."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.node import Node, walk
from ..ir.scan import ScanView, close, make_scan, trace

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
                     scan.steps)
    return node, {e: trace(node, t) for e, t in zip(wanted, expressions, strict=True)}
