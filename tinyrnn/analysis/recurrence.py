"""The recurrences of a graph: each scan as its step, with names, ready to be walked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.graph import Graph, Label
from ..ir.node import Node, rebuild, walk
from ..ir.op import Trait
from ..ir.ops.elementwise import TAG, WHERE, cell_of, name_of
from ..ir.ops.leaves import INPUT, LEAF, box_of, input_node
from ..ir.ops.structure import SLICE
from ..ir.scan import SCAN, TRACE, VALID, ScanView, argument_names, expression_of


@dataclass(frozen=True)
class Recurrence:
    """One scan: `step` is a graph from `h[t-1]`, `x[t]` and parameters to `h[t]`; its labels name the gates.

    States and inputs have the names that the cell gave to the scan's arguments (`ir/scan.py`); gates have those of the TAG
    nodes in its body; what nobody named, as in a scan of one's own, is `s1[t-1]`, `x[t]`, `value 1`.
    """

    name: str
    scan: ScanView
    step: Graph
    state_names: tuple[str, ...]      # inputs that are carried on, in the order of the scan's states
    new_states: tuple[Node, ...]        # what replaces each of them
    input_names: tuple[str, ...]          # inputs that have a value of their own at every step
    constants: tuple[str, ...]       # inputs that are the same at every step
    parameters: tuple[str, ...]      # those of them that are learned
    traced: Mapping[Node, Node]      # the scan's TRACE nodes -> what they read, as nodes of `step`

    @property
    def steps(self) -> int:
        return self.scan.steps

    @property
    def visits(self) -> list[tuple[int, int]]:
        """(position on the time axis, step of the walk), both from 0, in the order of the walk."""
        return [(p, t) for t, p in enumerate(self.scan.order)]

    @property
    def named(self) -> dict[str, Node]:
        """Every quantity that has a name: inputs of the step first, then what it computes, sources first."""
        own = [*self.state_names, *self.input_names]
        found = {k: self.step.inputs[k] for k in own if k in self.step.inputs}
        labels = {n: label.name for label, n in self.step.labels.items()}
        for n in walk([*self.new_states, *self.traced.values()]):
            if n in labels and n.op is not INPUT:
                found.setdefault(labels[n], n)
        known = set(found.values())
        for k, n in zip(self.state_names, self.new_states, strict=True):  # a mask may hold a state
            if n not in known and n.op is not INPUT and k.endswith("[t-1]"):
                found[k.replace("[t-1]", " (held)")] = n
        for i, n in enumerate(dict.fromkeys(self.traced.values()), 1):
            if n not in set(found.values()) and n.op is not INPUT:
                found[f"{labels.get(held(n), f'value {i}')} (output)"] = n
        return found


@dataclass(frozen=True)
class Names:
    """What parameters are called, and which layer they belong to."""

    of: Mapping[Node, str] = field(default_factory=dict)
    layer: Mapping[Node, str] = field(default_factory=dict)


def recurrences(graph: Graph, names: Names | None = None) -> list[Recurrence]:
    """Every scan of a graph, in topological order."""
    found: list[Recurrence] = []
    for n in graph.nodes:
        if n.op is SCAN:
            traces = [p for p in graph.nodes if p.op is TRACE and p.src[0] is n]
            found.append(_read(ScanView.of(n), traces, names or Names(), {r.name for r in found}))
    return found


def _read(scan: ScanView, traces: Sequence[Node], names: Names, taken: set[str]) -> Recurrence:
    body = scan.body
    states, inputs, _ = scan.split(body.args)
    sources = scan.split(scan.node.src)[2]
    unique = _Unique()
    given = scan.split(argument_names(scan.node))
    past = [unique(n or own) for n, own in zip(given[0], _state_names(body.outs, states), strict=True)]
    now = [unique(n or (VALID if a.dtype.kind == "b" else "x[t]")) for n, a in zip(given[1], inputs, strict=True)]
    fixed = [unique(n or _constant_name(s, names.of, k)) for k, (n, s) in enumerate(zip(given[2], sources, strict=True))]
    new = {a: input_node(k, a.shape, a.dtype) for a, k in zip(body.args, [*past, *now, *fixed], strict=True)}
    tags = _stripped([*body.outs, *(expression_of(t) for t in traces)], new)
    labels = {Label(name): n for name, n in reversed(tags.items())}
    new_states = tuple(new[o] for o in body.outs)
    step = Graph({**{k.replace("[t-1]", "[t]"): n for k, n in zip(past, new_states, strict=True)},
                  **{f"output {i}": new[expression_of(t)] for i, t in enumerate(traces)}}, labels)
    layer = next((names.layer[base(s)] for s in sources if base(s) in names.layer), "")
    path = next((str(cell_of(n)) for n in walk(body.outs) if n.op is TAG and cell_of(n)), "scan")
    name = _Unique(taken)(path if path.startswith(layer) else f"{layer}.{path}")
    learned = tuple(k for k, s in zip(fixed, sources, strict=True) if _is_learned(base(s)))
    return Recurrence(name, scan, step, tuple(past), new_states, tuple(now), tuple(fixed), learned,
                      {t: new[expression_of(t)] for t in traces})


def _stripped(outputs: Sequence[Node], new: dict[Node, Node]) -> dict[str, Node]:
    """Extend `new` over the body; a tag becomes what it names, and its name is returned."""
    tags: dict[str, Node] = {}
    for n in walk(outputs, known=set(new)):
        if n.op is TAG:
            new[n] = new.get(n.src[0], n.src[0])
            tags.setdefault(name_of(n), new[n])
        else:
            rebuild([n], new)
    return tags


class _Unique:
    """Names as they are asked for; one that was given already gets a number."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self.taken = set() if taken is None else taken

    def __call__(self, name: str) -> str:
        found = next(n for k in range(1, len(self.taken) + 2) if (n := name if k == 1 else f"{name}#{k}") not in self.taken)
        self.taken.add(found)
        return found


def _state_names(outs: Sequence[Node], states: Sequence[Node]) -> list[str]:
    """States that nobody named: `h[t-1]` for what is replaced by a value that is tagged h, `s1[t-1]` for others."""
    tagged = [held(o) for o in outs[: len(states)]]
    return [f"{name_of(n) if n.op is TAG else f's{i}'}[t-1]" for i, n in enumerate(tagged, 1)]


def held(out: Node) -> Node:
    """The new value of a state that a mask may hold."""
    return out.src[1] if out.op is WHERE else out


def base(n: Node) -> Node:
    """What a view is a view of."""
    while Trait.WHOLE in n.op.traits or n.op is SLICE:
        n = n.src[0]
    return n


def _is_learned(n: Node) -> bool:
    return n.op is INPUT or (n.op is LEAF and box_of(n).trainable)


def _constant_name(source: Node, names: Mapping[Node, str], k: int) -> str:
    if source in names:
        return names[source]
    origin = base(source)
    if origin in names:
        return names[origin]
    if origin.op is INPUT or origin.op is LEAF:
        return name_of(origin) or f"constant {k + 1}"
    return f"constant {k + 1}"

