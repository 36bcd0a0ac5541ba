"""The reference: a graph evaluated op by op, in any domain.

A plan is made once per graph: nodes become slots, and a value is dropped after its last use.  It holds neither data
nor domain, so the same plan serves floats, complex step, symbols and finite fields.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ..domains import FLOAT, Domain
from ..errors import BackendError, DTypeError, GraphError
from ..ir.graph import Graph
from ..ir.node import Node, walk, without_collector
from ..ir.ops.leaves import ARG, HOLE, INPUT, LEAF, box_of
from ..ir.scan import FINAL, ITEM, REGION, SCAN, TRACE, ScanView, body_of, expression_of, invariant
from ..shapes import show
from .arrays import fetched, is_device

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Instruction = tuple[int, Any, tuple[Any, ...], tuple[int, ...], int, tuple[int, ...], Node]
_OP, _SCAN, _REGION, _READ = range(4)


class Tape:
    """An order of evaluation over slots."""

    def __init__(self, order: Sequence[Node], outputs: Sequence[Node], given: Sequence[Node]) -> None:
        slot: dict[Node, int] = {n: i for i, n in enumerate(given)}
        for n in order:
            slot.setdefault(n, len(slot))
        known = set(given)
        todo = [n for n in order if n not in known]
        drops = _last_uses(todo, {*outputs, *known})
        wanted: dict[Node, dict[Node, None]] = defaultdict(dict)
        for n in order:
            if n.op is TRACE:
                wanted[n.src[0]][expression_of(n)] = None
        self.size, self.given = len(slot), len(given)
        self.outputs = [slot[n] for n in outputs]
        self.code: list[Instruction] = []
        for n in todo:
            kind, what = _compile(n, wanted)
            self.code.append((kind, what, n.at, tuple(slot[s] for s in n.src), slot[n], tuple(slot[s] for s in drops[n]), n))
        self._bound: dict[Domain, list[Any]] = {}

    def bind(self, domain: Domain) -> list[Any]:
        """The instructions with each op's implementation in a domain."""
        code = self._bound.get(domain)
        if code is None:
            code = [(kind, domain.implementation(what) if kind == _OP else what, at, src, dst, free)
                    for kind, what, at, src, dst, free, _ in self.code]
            self._bound[domain] = code
        return code

    def __call__(self, domain: Domain, given: Sequence[Any]) -> list[Any]:
        v: list[Any] = [*given, *[None] * (self.size - self.given)]
        for kind, what, at, src, dst, free in self.bind(domain):
            if kind == _OP:
                v[dst] = what(*[v[i] for i in src], *at)
            elif kind == _READ:
                v[dst] = v[src[0]][what, at[0]]
            else:
                v[dst] = what(domain, [v[i] for i in src])
            for i in free:
                v[i] = None
        return [v[i] for i in self.outputs]


def _last_uses(order: Sequence[Node], keep: set[Node]) -> dict[Node, list[Node]]:
    last = {s: n for n in order for s in n.src}
    drops: dict[Node, list[Node]] = defaultdict(list)
    for s, n in last.items():
        if s not in keep:
            drops[n].append(s)
    return drops


def _compile(n: Node, wanted: Mapping[Node, Mapping[Node, None]]) -> tuple[int, Any]:
    if n.op is SCAN:
        return _SCAN, ScanTape(ScanView.of(n), list(wanted[n]))
    if n.op is REGION:
        return _REGION, RegionPlan(n)
    if n.op in (FINAL, TRACE, ITEM):
        return _READ, n.op
    if n.op in (INPUT, LEAF, ARG, HOLE):
        raise GraphError(f"{n!r} has no value; it must be given")
    return _OP, n.op


class RegionPlan:
    """A closed body, evaluated as one step."""

    def __init__(self, node: Node) -> None:
        body = body_of(node)
        self.plan = Tape(walk(body.outs), body.outs, body.args)

    def __call__(self, domain: Domain, values: Sequence[Any]) -> dict[Any, Any]:
        return {(ITEM, i): y for i, y in enumerate(self.plan(domain, values))}


class ScanTape:
    """Step-invariant nodes once, then the step T times; only the traced values are kept."""

    def __init__(self, scan: ScanView, wanted: Sequence[Node]) -> None:
        self.scan, self.wanted = scan, wanted
        states, slices, constants = scan.split(scan.body.args)
        order = walk([*scan.body.outs, *wanted])
        fixed = invariant(order, constants)
        before = [n for n in order if n in fixed and n not in set(constants)]
        self.before = Tape(before, before, constants)
        self.step = Tape([n for n in order if n not in fixed], [*scan.body.outs, *wanted],
                         [*states, *slices, *constants, *before])

    def __call__(self, domain: Domain, values: Sequence[Any]) -> dict[Any, Any]:
        scan = self.scan
        state, xs, constants = scan.split(values)
        fixed = [*constants, *self.before(domain, constants)]
        kept = [domain.buffer((scan.steps, *n.shape), n.dtype) for n in self.wanted]
        for t in scan.order:
            out = self.step(domain, [*state, *[x[t] for x in xs], *fixed])
            state = out[: scan.n_states]
            for buffer, y in zip(kept, out[scan.n_states :], strict=True):
                buffer[t] = y
        return {**{(FINAL, i): s for i, s in enumerate(state)},
                **{(TRACE, e): b for e, b in zip(self.wanted, kept, strict=True)}}


# ---- graphs

_plans: WeakKeyDictionary[Graph, tuple[Tape, list[Node]]] = WeakKeyDictionary()


def plan_of(graph: Graph) -> tuple[Tape, list[Node]]:
    """The plan of a graph and the nodes that must be given to it, made once."""
    if graph not in _plans:
        given = [*graph.inputs.values(), *graph.leaves.values()]
        with without_collector():
            _plans[graph] = Tape(graph.nodes, list(graph.outputs.values()), given), given
    return _plans[graph]


def run(graph: Graph, values: Mapping[str, Any], domain: Domain | None = None) -> dict[str, Any]:
    """Evaluate a graph; results are arrays of their own that share memory with nothing."""
    domain = FLOAT if domain is None else domain
    if not isinstance(domain, Domain):
        raise BackendError(f"domain={domain!r}: expected an object such as tr.domains.FLOAT or tr.domains.COMPLEX_STEP")
    plan, _ = plan_of(graph)
    given = list(admitted(graph, fetched(values), domain).values())
    with np.errstate(all="ignore"), _one_blas_thread().limit(limits=1, user_api="blas"):
        results = plan(domain, given)
    return {k: _own(y, domain) for k, y in zip(graph.outputs, results, strict=True)}


def admitted(graph: Graph, values: Mapping[str, Any], domain: Domain = FLOAT, *, leaves: bool = True) -> dict[str, Any]:
    """Every input and every leaf of a graph as the array it stands for, checked; without `leaves`, of leaves only those
    that are given a value."""
    unknown = set(values) - set(graph.inputs) - set(graph.leaves)
    missing = [k for k in graph.inputs if k not in values]
    if missing or unknown:
        raise GraphError((f"no value for input {', '.join(map(repr, missing))}" if missing else
                          f"no input is called {', '.join(map(repr, sorted(unknown)))}")
                         + f"; the inputs are {', '.join(graph.inputs) or 'none'}")
    given = {k: _admit(k, n, values[k], domain) for k, n in graph.inputs.items()}
    return given | {k: _admit(k, n, values[k], domain) if k in values else domain.enter(box_of(n).data, n.dtype)
                    for k, n in graph.leaves.items() if leaves or k in values}


@cache
def _one_blas_thread() -> ThreadpoolController:
    """One thread for BLAS: a step's products are too small to share, and spinning threads that wait for a busy core make
    them up to a hundred times slower.  It also keeps results independent of the number of cores."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _admit(name: str, node: Node, value: Any, domain: Domain) -> Any:
    array = value if domain.owns(value) or is_device(value) else np.asarray(value)
    if array.shape != node.shape:
        raise GraphError(f"{name!r} has shape {show(array.shape)}, expected {show(node.shape)}")
    if domain is FLOAT and not _castable(array.dtype, node.dtype):
        raise DTypeError(f"{name!r} has dtype {array.dtype}, expected {node.dtype}; convert it with astype")
    if is_device(value):
        return value
    with np.errstate(over="ignore"):
        entered = domain.enter(array, node.dtype)
    if domain is FLOAT and array.dtype.itemsize > node.dtype.itemsize and not _survives(array, entered):
        raise DTypeError(f"{name!r} holds {array.dtype} numbers that do not fit into {node.dtype}")
    return entered


def _survives(given: Any, entered: Any) -> bool:
    """Whether a narrower dtype kept whole numbers as they were and made no finite number infinite."""
    if given.dtype.kind in "iu":
        return bool((given == entered).all())
    return bool((np.isfinite(given) == np.isfinite(entered)).all())


_RANK = "biufc"


def _castable(given: Any, wanted: Any) -> bool:
    """Whether numbers of one kind may stand for another without losing what they mean."""
    if given.kind not in _RANK:
        return False
    if wanted.kind == "b" or given.kind == "b":
        return bool(given.kind == wanted.kind)
    return _RANK.index(given.kind) <= _RANK.index(wanted.kind) or (given.kind in "iu" and wanted.kind in "iu")


def _own(y: Any, domain: Domain) -> Any:
    return np.array(y, copy=True) if isinstance(y, (np.ndarray, np.generic)) else y

