"""Closed bodies, and the two ops that hold one: `scan` runs a body over time, `region` keeps a body to itself.

A body is a graph over canonical arguments `arg(0), arg(1), ...`, so equal bodies are the same object.  Neither op has
a value of its own; they are read through projections:

    final(i)   state i of a scan after its last step
    trace(e)   the value at every step, [T, ...], of any expression e over the body's arguments
    item(i)    output i of a region

The set of traces of a scan is therefore the set of values it keeps.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import GraphError, ShapeError
from ..shapes import Shape, show
from ..sizes import agree, is_symbolic
from .node import LOCK, DType, Node, apply, attribute, rebuild, walk
from .op import Op, register
from .ops.elementwise import where
from .ops.leaves import ARG, FULL, IOTA, LITERAL, SIZE, arg, full, hole
from .ops.linear import reshape

VOID = np.dtype("V1")
LITERALS = (FULL, LITERAL, IOTA, SIZE)


class Body:
    """A closed graph: outputs over canonical arguments and literals only."""

    __slots__ = ("__weakref__", "args", "outs")
    args: tuple[Node, ...]
    outs: tuple[Node, ...]

    def __repr__(self) -> str:
        return f"<body of {len(self.args)} arguments, {len(self.outs)} outputs>"


_bodies: dict[tuple[int, ...], weakref.ref[Body]] = {}


def close(holes: Sequence[Node], outs: Sequence[Node], traced: Sequence[Node] = ()) -> tuple[Body, list[Node]]:
    """The body with `holes` made canonical, and `traced` expressions over its arguments."""
    new: dict[Node, Node] = {h: arg(i, h) for i, h in enumerate(holes)}
    args = tuple(new[h] for h in holes)
    rebuild(walk([*outs, *traced], known=new.keys()), new)
    return make_body(args, tuple(new[o] for o in outs)), [new[n] for n in traced]


def make_body(args: tuple[Node, ...], outs: tuple[Node, ...]) -> Body:
    """The one body with these arguments and outputs."""
    key = (len(args), *map(id, args), *map(id, outs))
    with LOCK:
        reference = _bodies.get(key)
        body = None if reference is None else reference()
        if body is None:
            for old in [k for k, r in _bodies.items() if r() is None] if len(_bodies) % 256 == 255 else ():
                del _bodies[old]
            body = Body()
            body.args, body.outs = args, outs
            _bodies[key] = weakref.ref(body)
        return body


def captured(holes: Sequence[Node], outs: Sequence[Node], constants: Collection[Node] = ()) -> list[Node]:
    """What `outs` read from outside, in order of first use: the given constants, and beside them the outermost nodes
    that depend on no hole.  What is computed from a given constant stays inside."""
    inside = {*holes, *constants}
    order = walk(outs, known=inside)
    for n in order:
        if any(s in inside for s in n.src):
            inside.add(n)
    inside -= set(constants) - set(holes)
    found: dict[Node, None] = {}
    for n in (*(s for user in order if user in inside for s in user.src), *outs):
        if n not in inside and n.op not in LITERALS:
            found[n] = None
    return list(found)


# ---- the ops

def _nothing(*_: object) -> tuple[Shape, DType]:
    return (), VOID


def _final(s: Node, i: int) -> tuple[Shape, DType]:
    out = body_of(s).outs[i]
    return out.shape, out.dtype


def _trace(s: Node, expression: Node) -> tuple[Shape, DType]:
    return (ScanView.of(s).steps, *expression.shape), expression.dtype


def _scan_flops(node: Node) -> int:
    return ScanView.of(node).steps * sum(n.op.flops(n) for n in walk(body_of(node).outs))


SCAN = register(Op("scan", _nothing, None, None, "control", "scan", _scan_flops))
FINAL = register(Op("final", _final, None, None, "control", "final"))
TRACE = register(Op("trace", _trace, None, None, "control", "trace"))
REGION = register(Op("region", _nothing, None, None, "control", "region",
                     lambda node: sum(n.op.flops(n) for n in walk(body_of(node).outs))))
ITEM = register(Op("item", _final, None, None, "control", "item"))
PROJECTIONS = (FINAL, TRACE, ITEM)


@dataclass(frozen=True, slots=True)
class ScanView:
    """The parts of a scan node by their names."""

    node: Node
    body: Body
    n_states: int
    n_slices: int
    reverse: bool
    steps: int
    memory: int | None = None  # bytes that its training may take, beside what comes in and goes out

    @classmethod
    def of(cls, node: Node) -> ScanView:
        return cls(node, *node.at)

    def split(self, sequence: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Something that runs parallel to the sources, cut into states, sequences, constants."""
        a, b = self.n_states, self.n_states + self.n_slices
        return list(sequence[:a]), list(sequence[a:b]), list(sequence[b:])

    @property
    def order(self) -> range:
        """The steps in the order in which they are visited."""
        return range(self.steps)[::-1] if self.reverse else range(self.steps)


def make_scan(body: Body, init: Sequence[Node], xs: Sequence[Node], consts: Sequence[Node], reverse: bool,
              steps: int, memory: int | None = None) -> Node:
    """A scan node over a body that is already closed."""
    budget = () if memory is None else (memory,)
    return apply(SCAN, (*init, *xs, *consts), (body, len(init), len(xs), bool(reverse), steps, *budget))


def final(s: Node, i: int) -> Node:
    return apply(FINAL, (s,), (i,))


def trace(s: Node, expression: Node) -> Node:
    return apply(TRACE, (s,), (expression,))


Step = Callable[[list[Node], list[Node]], tuple[Sequence[Node], Sequence[Node]]]
def traced_by_scan(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """The expressions that are traced among some nodes, by the scan that they are traced in; empty for every other node."""
    found: dict[Node, list[Node]] = defaultdict(list)
    for n in order:
        if n.op is TRACE:
            found[n.src[0]].append(expression_of(n))
    return found


VALID = "valid[t]"  # what the mask of a scan is called


class ScanNames(NamedTuple):
    """What whoever makes a scan calls its states (`h[t-1]`), its sequences (`x[t]`) and its constants."""

    states: Sequence[str]
    slices: Sequence[str]
    constants: Mapping[Node, str]


_names: WeakKeyDictionary[Node, tuple[str, ...]] = WeakKeyDictionary()


def argument_names(scan: Node) -> tuple[str, ...]:
    """The names of a scan's sources, in their order; "" for what nobody named."""
    return _names.get(scan, ("",) * len(scan.src))


def scan(step: Step, init: Sequence[Node], xs: Sequence[Node], *, constants: Sequence[Node] = (), mask: Node | None = None,
         reverse: bool = False, steps: int | None = None, names: ScanNames | None = None,
         memory: int | None = None) -> tuple[list[Node], list[Node]]:
    """Run `step(states, slices) -> (new states, outputs)` over the first axis of `xs`.

    `mask` is bool [T, B]: where it is False the inputs are zero before use, states are held and outputs are zero, so
    nothing in the padding (not even NaN) reaches a result.  What `step` reads from outside becomes a constant; what it
    computes from the given `constants` (a transposed weight) stays in the body, so that their gradients are summed in
    their own shape.  `memory` is a budget in bytes, which the pass `checkpoint` keeps.
    """
    n = _steps(xs, mask, steps)
    if memory is not None and is_symbolic((n, *(s.shape for s in [*init, *xs]))):
        raise GraphError("a scan with a budget of memory is cut into parts of so many steps: its sizes must be numbers")
    states = [hole(s.shape, s.dtype) for s in init]
    slices = [hole(x.shape[1:], x.dtype) for x in xs]
    valid = hole(mask.shape[1:], mask.dtype) if mask is not None else None
    new, outs = _masked_step(step, states, slices, valid)
    for i, (a, b) in enumerate(zip(states, new, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise GraphError(f"state {i} of the scan is {a.dtype}{show(a.shape)} before a step and {b.dtype}{show(b.shape)} "
                             "after it; a step must keep shape and dtype")
    sequences = [*slices, valid] if valid is not None else slices
    given = [*xs, mask] if mask is not None else list(xs)
    local = [*states, *sequences]
    outside = captured(local, [*new, *outs], constants)
    stand_ins = {c: hole(c.shape, c.dtype) for c in outside}
    env: dict[Node, Node] = {**{h: h for h in local}, **stand_ins}
    rebuild(walk([*new, *outs], known=env.keys()), env)
    body, traced = close([*local, *stand_ins.values()], [env[o] for o in new], [env[o] for o in outs])
    node = make_scan(body, init, given, outside, reverse, n, memory)
    if names is not None:
        mask_name = () if mask is None else (VALID,)
        _names[node] = (*names.states, *names.slices, *mask_name, *(names.constants.get(c, "") for c in outside))
    return [final(node, i) for i in range(len(init))], [trace(node, e) for e in traced]


def _steps(xs: Sequence[Node], mask: Node | None, steps: int | None) -> int:
    lengths = [x.shape[0] for x in [*xs, *([] if mask is None else [mask])] if x.ndim]
    if not lengths or not all(agree(n, lengths[0]) for n in lengths) or any(not x.ndim for x in xs):
        if not lengths and steps is not None and steps >= 0:
            return steps
        raise ShapeError("the sequences of a scan need one common first axis (time), got "
                         + (", ".join(show(x.shape) for x in xs) or "no sequence: give steps="))
    found = lengths[0]
    if steps is not None and steps != found:
        raise ShapeError(f"steps={steps}, but the sequences have {found} steps")
    return found


def _masked_step(step: Step, states: list[Node], slices: list[Node],
                 valid: Node | None) -> tuple[Sequence[Node], Sequence[Node]]:
    if valid is None:
        return step(states, slices)

    def hold(new: Node, old: Node) -> Node:
        if new.shape[: valid.ndim] != valid.shape:
            raise ShapeError(f"a masked scan needs the batch first in every input, state and output: expected "
                             f"{show(valid.shape)} in front, got {show(new.shape)}")
        return where(reshape(valid, valid.shape + (1,) * (new.ndim - valid.ndim)), new, old)

    def zero(y: Node) -> Node:
        return hold(y, full(0, y.shape, y.dtype))

    new, outs = step(states, [zero(x) for x in slices])
    return [hold(n, o) for n, o in zip(new, states, strict=True)], [zero(y) for y in outs]


def region(function: Callable[[list[Node]], Sequence[Node]], sources: Sequence[Node]) -> list[Node]:
    """`function(sources)` kept as one node with a closed body; what it reads from outside becomes a source."""
    holes = [hole(s.shape, s.dtype) for s in sources]
    outs = list(function(holes))
    outside = captured(holes, outs)
    stand_ins = {c: hole(c.shape, c.dtype) for c in outside}
    env: dict[Node, Node] = {**{h: h for h in holes}, **stand_ins}
    rebuild(walk(outs, known=env.keys()), env)
    body, _ = close([*holes, *stand_ins.values()], [env[o] for o in outs])
    return items(apply(REGION, (*sources, *outside), (body,)))


def custom(forward: Callable[[list[Node]], Sequence[Node]],
           backward: Callable[[list[Node], list[Node], list[Node]], Sequence[Node]], sources: Sequence[Node]) -> list[Node]:
    """`forward(sources)` as one node that is differentiated by a rule of its own.

    `backward(adjoints, outputs, sources)` gives the adjoint of every source.  Both are closed: what they read is a source.
    """
    holes = [hole(s.shape, s.dtype) for s in sources]
    outs = list(forward(holes))
    values, adjoints = ([hole(o.shape, o.dtype) for o in outs] for _ in range(2))
    back = list(backward(adjoints, values, holes))
    if captured(holes, outs) or captured([*adjoints, *values, *holes], back):
        raise GraphError("a function with a gradient of its own reads a tensor that is none of its arguments, and no gradient "
                         "would flow there: hand it over as an argument")
    if len(back) != len(sources):
        raise GraphError(f"the backward function gives {len(back)} adjoints for {len(sources)} arguments: one each is expected")
    for i, (s, g) in enumerate(zip(sources, back, strict=True)):
        if s.floating and (s.shape, s.dtype) != (g.shape, g.dtype):
            raise GraphError(f"the backward function gives {g.dtype}{show(g.shape)} for argument {i}, which is "
                             f"{s.dtype}{show(s.shape)}: an adjoint has the shape and dtype of its argument")
    body, _ = close(holes, outs)
    rule, _ = close([*adjoints, *values, *holes], back)
    return items(apply(REGION, tuple(sources), (body, rule)))


def items(node: Node) -> list[Node]:
    """Every output of a region."""
    return [apply(ITEM, (node,), (i,)) for i in range(len(body_of(node).outs))]


def invariant(nodes: Sequence[Node], constants: Sequence[Node]) -> set[Node]:
    """The nodes of a body that depend on its constants and literals alone."""
    fixed = set(constants)
    for n in nodes:
        if n.op is not ARG and all(s in fixed for s in n.src):
            fixed.add(n)
    return fixed


def rule_of(node: Node) -> Body | None:
    """How a region is differentiated, over adjoints, outputs and sources, where it has a rule of its own."""
    return node.at[1] if len(node.at) > 1 else None


# ---- attributes by name
body_of: Callable[[Node], Body] = attribute(0)        # of a scan and of a region
expression_of: Callable[[Node], Node] = attribute(0)  # of a trace: what it keeps, over the arguments of the scan's body
position_of: Callable[[Node], int] = attribute(0)     # of a final: which state; of an item: which output
