"""The replay of plans: bugs planted in the planner are seen without running a kernel, in plans for the CPU and for a GPU."""

from dataclasses import replace

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.plan import kernels, matmul, memory, planner, replay, scan_loop
from tinyrnn.backends.plan.planner import Planner, plan_of
from tinyrnn.backends.plan.views import Loop
from tinyrnn.domains import VALUE_NUMBERS
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.elementwise import minimum
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.ir.ops.structure import gather, one_hot, scatter_add
from tinyrnn.passes import simplify
from tinyrnn.passes.fuse import fuse

from .aliasing import Case, weighted
from .graph_cases import ODD, through_passes

TARGETS = {"cpu": None, "cuda": matmul.Blas()}


def rolled(text="h[t] = tanh(W @ h[t-1] + U @ h[t-2] + V @ x[t] + b)"):
    return through_passes(tr.Cell(text).rolled(4, x=3, h=5, batch=3, gradients=True))


def alias_graph(seed=1, gradients=False):
    case = Case(seed)
    inputs = [tr.Tensor(input_node(k, a.shape)) for k, a in zip("xhW", case.arguments, strict=True)]
    ys = case.tensors(*inputs)
    found = [*ys, *(tr.grad(weighted(ys), inputs) if gradients else [])]
    return fuse(simplify(Graph({f"y{i}": y for i, y in enumerate(found)})))


def lookups():
    x, index, f = input_node("x", (4, 3)), minimum(input_node("i", (5,), "int32"), 3), input_node("f", (2,))
    rows = gather(x, index)
    return fuse(simplify(Graph({"g": rows, "s": scatter_add(rows, index, 6), "h": one_hot(index, 4), "c": tr.concat(
        [tr.Tensor(index), tr.Tensor(f)])})))


def refused(graph):
    """How many of the two plans are seen to be wrong."""
    wrong = 0
    for products in TARGETS.values():
        try:
            replay.checked(graph, Planner(graph, products or matmul.Panels()).plan)
        except replay.PlanError:
            wrong += 1
    return wrong


def test_plans_of_cells_layers_and_odd_scans_are_right():
    for text in ODD.values():
        cell = tr.Cell(text)
        sizes = dict(zip(cell.sizes, (3, 5, 5), strict=False))
        assert not refused(through_passes(cell.rolled(4, sizes, batch=3, gradients=True)))
    for seed in range(20):
        assert not refused(alias_graph(seed)), seed
    assert not refused(lookups())


def no_constants(self, scan, wanted, outer, *, plain=scan_loop.Reuse.__init__):
    """Version 0.1: what constants of the scan read does not count."""
    view = scan.split

    class Blind:
        def __getattr__(self, name):
            return getattr(scan, name)

        def split(self, sequence):
            a, b, c = view(sequence)
            return (a, b, []) if sequence is scan.node.src else (a, b, c)

    plain(self, Blind(), wanted, outer)


def late_state(loop, slots):
    """The copy of a state back into its place is dropped, whoever else reads the old value."""
    homes = {s[0].buffer for s in slots}
    loop.calls[:] = [c for c in loop.calls if c.operands[-1].buffer not in homes]


def narrowed(self, x):
    """Copies without gaps are made in bytes."""
    copied = self.planner.temporary(x.shape, np.dtype("int8"))
    self.copy(x, copied)
    return copied


def shifted(call):
    """A call whose last size, a stride, is too large by one."""
    return lambda *args: (lambda c: replace(c, sizes=(*c.sizes[:-1], c.sizes[-1] + 1)))(call(*args))


MUTANTS = {
    "constants do not keep a sequence": (scan_loop.Reuse, "__init__", no_constants, lambda: [alias_graph(k) for k in (1, 2, 17, 21, 35, 66)]),
    "nothing is needed later": (planner.PlannedScope, "needed_later", lambda *_: False, lambda: [alias_graph(k) for k in range(60)]),
    "parts of a whole take its dtype": (planner.PlannedScope, "homes_of", lambda self, n: self.homes[n], lambda: [lookups()]),
    "a state is written over too early": (scan_loop, "_in_place", late_state, lambda: [rolled(ODD["two products"])]),
    "every loop is shared along its rows": (scan_loop, "_within", lambda *_: True, lambda: [mixing()]),
    "buffers in use overlap": (memory, "lifetimes", lambda plan, kept=(), plain=memory.lifetimes: {
        b: (first, first) for b, (first, _) in plain(plan, kept).items()}, lambda: [rolled()]),
    "memory ends too early": (replay, "arrange", lambda plan, kept=(), plain=memory.arrange: (
        plain(plan, kept=kept)[0], plain(plan, kept=kept)[1] - 64), lambda: [rolled()]),
    "zeros are not written before a scatter": (planner.PlannedScope, "copy", lambda self, source, target, plain=planner.PlannedScope.copy: (
        None if source.buffer.role == "literal" else plain(self, source, target)), lambda: [lookups()]),
    "products read the wrong columns": (matmul, "product", shifted(kernels.product), lambda: [rolled()]),
    "steps go the other way": (scan_loop, "Loop", lambda steps, reverse, items: Loop(steps, not reverse, items), lambda: [rolled()]),
    "whole numbers are kept in too few bits": (planner.PlannedScope, "contiguous", narrowed, lambda: [whole()]),
    "two results of a kernel overlap": (planner.PlannedScope, "place", lambda self, n, fits=None, plain=planner.PlannedScope.place: (
        lambda main, others: ([setattr(self, "last", main), main][1] if not hasattr(self, "last") or main.shape != self.last.shape
                              else self.last, others))(*plain(self, n, fits)), lambda: [two_results()]),
    "slices start too early": (planner, "_parts", lambda n, whole, plain=planner._parts: [
        (part, replace(v, offset=whole.offset)) for part, v in plain(n, whole)], lambda: [lookups(), stacked()]),
}


def mixing():
    """A step that reads other rows than it writes."""
    x = tr.Tensor(input_node("x", (5, 4, 3)))
    return fuse(simplify(Graph({"y": tr.scan(lambda s, v: (tr.tanh(s[::-1] + v),) * 2, x[0], x)[1]})))


def whole():
    i = tr.Tensor(input_node("i", (3, 2), "int64"))
    return fuse(simplify(Graph({"y": tr.concat([i.T.reshape(-1)[:3] * 1, i.T.reshape(-1)]) * 2})))


def two_results():
    x = tr.Tensor(input_node("x", (3, 4)))
    y, z = tr.tanh(x), tr.sin(x)
    return fuse(simplify(Graph({"a": (y * z).T @ z, "b": (z * 2.0).T @ y})))


def stacked():
    a, b = (tr.Tensor(input_node(k, (3, 4))) for k in "ab")
    return fuse(simplify(Graph({"y": tr.concat([tr.tanh(a), tr.sin(b)])})))


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bugs_are_seen(name, monkeypatch):
    owner, attribute, value, graphs = MUTANTS[name]
    made = graphs()
    assert not any(map(refused, made))
    monkeypatch.setattr(owner, attribute, value)
    assert any(map(refused, made)), name


def test_the_message_says_which_call(monkeypatch):
    graph = rolled()
    plan = plan_of(graph)
    loop = next(i for i in plan.items if isinstance(i, Loop))
    loop.calls.reverse()
    with pytest.raises(replay.PlanError, match=r"of loop|another output"):
        replay.checked(graph, plan)
    del loop.calls[0]
    with pytest.raises(replay.PlanError, match=r"before anybody wrote it|another output"):
        replay.checked(graph, plan)


def test_value_numbers_follow_computations_alone():
    x, y = tr.Tensor(input_node("x", (3, 4))), tr.Tensor(input_node("y", (3, 4)))
    same = {"move": (x.T.T * y, x * y), "sum": ((x[::-1] + 0.5).sum(0), (x + 0.5).sum(0)), "cast": (x.reshape(12)[3:], x.reshape(12)[3:])}
    other = {"order": (x - y, y - x), "row": ((x * y)[0], (x * y)[1]), "op": (tr.tanh(x), tr.sin(x)),
             "number": (x * 2.0, x * 3.0), "product": (x @ y.T, y @ x.T), "axis": (x.sum(0)[:3], x.sum(1))}
    given = {k: np.arange(12.0).reshape(3, 4) + i for i, k in enumerate("xy")}
    for pairs, equal in ((same, True), (other, False)):
        for name, (a, b) in pairs.items():
            found = Graph({"a": a, "b": b, "x": x, "y": y}).run(given, domain=VALUE_NUMBERS)
            assert ((found["a"] == found["b"]).all() if equal else (found["a"] != found["b"]).all()), name
