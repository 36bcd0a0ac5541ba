"""`unroll`: a scan becomes T explicit copies of its step, with shared constants and named values.

    s[t], y[t] = body(s[t-1], x[t], W)   for t = 1..T

A carry that only accumulates (`a = a + g`) becomes one visible n-ary sum over the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.graph import Graph, Label
from ..ir.node import Node, apply, intern, rebuild, walk, without_collector
from ..ir.ops.elementwise import TAG, add_n, cell_of, name_of
from ..ir.ops.leaves import ARG, full, is_number
from ..ir.ops.structure import stack, take
from ..ir.scan import FINAL, SCAN, TRACE, ScanView, expression_of, position_of, traced_by_scan
from .rewrite import accumulators

Steps = tuple[int, ...]


@dataclass
class _Unrolled:
    """What is learned on the way: the labels of named values, and the step in which a node first appears."""

    labels: dict[Label, Node] = field(default_factory=dict)
    steps: dict[Node, int] = field(default_factory=dict)


def unroll(graph: Graph) -> Graph:
    """The same function with every scan replaced by explicit steps."""
    notes = _Unrolled()
    names = list(graph.outputs)
    with without_collector():
        nodes = _unroll([graph.outputs[k] for k in names], (), notes)
    return Graph(dict(zip(names, nodes, strict=True)), {**notes.labels, **graph.labels}, notes.steps)


def _unroll(outputs: Sequence[Node], prefix: Steps, notes: _Unrolled) -> list[Node]:
    order = walk(outputs)
    traced = traced_by_scan(order)
    new: dict[Node, Node] = {}
    runs: dict[Node, _Run] = {}
    for n in order:
        if n.op is SCAN:
            runs[n] = _Run(ScanView.of(n), [new[s] for s in n.src], traced[n], prefix, notes)
            new[n] = n
        elif n.op in (FINAL, TRACE) and n.src[0] in runs:
            new[n] = runs[n.src[0]].read(n)
        else:
            rebuild([n], new)
            if n.op is TAG:
                new[n] = new[n.src[0]]
                _note(notes, n, prefix, new[n])
    return [new[o] for o in outputs]


def _note(notes: _Unrolled, tag: Node, steps: Steps, value: Node) -> None:
    name, cell = tag.at
    notes.labels.setdefault(Label(name, steps[0] if len(steps) == 1 else steps or None, cell), value)


class _Run:
    """The explicit steps of one scan."""

    def __init__(self, scan: ScanView, sources: list[Node], traced: Sequence[Node], prefix: Steps,
                 notes: _Unrolled) -> None:
        self.scan, self.prefix, self.notes = scan, prefix, notes
        init, xs, consts = scan.split(sources)
        body = scan.body
        self.program = [n for n in walk([*body.outs, *traced]) if n.op is not ARG]
        self.nested = any(n.op is SCAN for n in self.program)
        sums = accumulators(scan, traced)
        self.wanted = [*body.outs, *dict.fromkeys((*traced, *sums.values()))]
        self.sums: dict[int, list[Node]] = {i: [] if is_number(init[i], 0) else [init[i]] for i in sums}
        self.steps: list[dict[Node, Node]] = [{}] * scan.steps
        state = list(init)
        for t in scan.order:
            args = dict(zip(body.args, [*state, *[take(x, t) for x in xs], *consts], strict=True))
            env = self.steps[t] = self._step(args, t + 1)
            for i, term in sums.items():
                self.sums[i].append(env[term])
            state = [s if i in sums else env[o] for i, (s, o) in enumerate(zip(state, body.outs, strict=True))]
        self.state: list[Node] = state

    def _step(self, env: dict[Node, Node], t: int) -> dict[Node, Node]:
        if self.nested:
            return self._nested_step(env, t)
        labels, steps = self.notes.labels, self.notes.steps
        where = t if not self.prefix else (*self.prefix, t)
        first = self.prefix[0] if self.prefix else t
        for n in self.program:
            src = tuple([env[s] for s in n.src])
            if n.op is TAG:
                env[n] = src[0]
                labels.setdefault(Label(name_of(n), where, cell_of(n)), src[0])
            else:
                plain = n.op.simplify is None  # shape and dtype are those of the body's node: nothing to infer
                env[n] = value = intern(n.op, src, n.at, n.shape, n.dtype) if plain else apply(n.op, src, n.at)
                steps.setdefault(value, first)
        return env

    def _nested_step(self, env: dict[Node, Node], t: int) -> dict[Node, Node]:
        for n in self.program:
            env[n] = apply(n.op, tuple([env[s] for s in n.src]), n.at)
        inner = _unroll([env[w] for w in self.wanted], (*self.prefix, t), self.notes)
        return {**env, **dict(zip(self.wanted, inner, strict=True))}

    def read(self, projection: Node) -> Node:
        """A projection of the scan in terms of the explicit steps."""
        if projection.op is FINAL:
            i: int = position_of(projection)
            if i not in self.sums:
                return self.state[i]
            terms = self.sums[i]
            return add_n(terms) if terms else full(0, projection.shape, projection.dtype)
        if not self.scan.steps:
            return full(0, projection.shape, projection.dtype)
        return stack([env[expression_of(projection)] for env in self.steps])
