"""Bugs planted in the compiler.  Each must be noticed by a check that `test_cpu` relies on."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cpu import codegen, driver, emit, engine, kept, products, runtime, tables, threads
from tinyrnn.backends.cpu import memory as cpu_memory
from tinyrnn.backends.plan import memory, planner, prologue, scan_loop, sink
from tinyrnn.backends.plan.views import Call
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node

from . import test_cpu as checks
from .graph_cases import ODD
from .running_error import assert_equal_computations
from .test_backends import check_graph


def with_own_kernels(monkeypatch):
    """What is compiled from here on is used nowhere else, in memory or on disk."""
    own = {}
    monkeypatch.setenv("TINYRNN_CACHE", "off")
    for module in (engine, runtime, threads):
        monkeypatch.setattr(module, "library", lambda target: own.setdefault(target, engine.KernelCache(target)))


def cell_check(text=ODD["two products"], batch=3):
    cell = tr.Cell(text)
    graph = cell.rolled(4, dict(zip(cell.sizes, (3, 21), strict=False)), batch=batch, gradients=True, dtype="float64")
    check_graph(graph, "cpu")


def zoo_check():
    check_graph(tr.cells.LSTM.rolled(4, x=3, h=5, batch=2, gradients=True), "cpu")


def guard_check():
    """What the guard test looks at, on one graph: bytes around buffers, and freedom from what memory held."""
    graph, results = checks.training_graph("float64", batch=3, steps=4), []
    values = checks.values_for(graph)
    for fill in (0x00, 0xFF):
        arenas = checks.Filled(fill)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu_memory, "ARENAS", arenas)
            found, e = checks.run_compiled(graph, values, gap=256)
        used = np.zeros(len(arenas.seen[0]), bool)
        used[e.bytes:] = True  # the thread's own room
        for buffer, start in e.offsets.items():
            used[start : start + buffer.bytes] = True
        assert (arenas.seen[0][~used] == fill).all()
        results.append(found)
    for k, y in results[0].items():
        np.testing.assert_array_equal(results[1][k], y)


def thread_check():
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("WORTHWHILE", "ENOUGH", "LONG", "WIDE"):
            patch.setattr(tables, limit, 0)
        graph = checks.training_graph("float64")
        values = checks.values_for(graph)
        first, _ = checks.run_compiled(graph, values, 1)
        for _ in range(100):  # what threads do to each other happens now and then
            found, _ = checks.run_compiled(graph, values, 2)
            for k, y in first.items():
                np.testing.assert_array_equal(found[k], y)


def mixing_check():
    """A step that reads other rows than it writes."""
    x = tr.Tensor(input_node("x", (200, 64, 5)))
    _, ys = tr.scan(lambda s, v: (tr.tanh(s[::-1] + v),) * 2, x[0], x)
    graph = Graph({"y": ys})
    values = checks.values_for(graph)
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("WORTHWHILE", "ENOUGH", "LONG"):
            patch.setattr(tables, limit, 0)
        patch.setattr(cpu_memory, "ARENAS", checks.Filled(0xFF))  # memory that remembers no earlier run
        for _ in range(40):
            assert_equal_computations(graph, checks.run_compiled(graph, values, 2)[0], values)


def special_check():
    a, b = (tr.Tensor(input_node(k, (3,))) for k in "ab")
    graph = Graph({"relu": tr.relu(a), "max": tr.maximum(a, b), "tanh": tr.tanh(a), "exp": tr.exp(b)})
    values = {"a": np.array([np.nan, -1.0, 2.0]), "b": np.array([1.0, np.nan, -np.inf])}
    assert_equal_computations(graph, checks.run_compiled(graph, values)[0], values)


def reuse_check():
    """A sequence that is read again after the loop."""
    x, W = tr.Tensor(input_node("x", (4, 3, 6))), tr.Tensor(input_node("W", (6, 6)))
    z = (x.reshape(12, 6) @ W).reshape(4, 3, 6)
    _, ys = tr.scan(lambda s, v: (tr.tanh(s + v), tr.sin(s + v)), z[0] * 0.5, z)
    check_graph(Graph({"y": (ys * z).sum(), "g": tr.grad((ys * z * z).sum(), W)}), "cpu")


def sinking_check():
    """A product that is read after the loop, too, and one of what the loop writes over."""
    x, W = tr.Tensor(input_node("x", (4, 3, 6))), tr.Tensor(input_node("W", (6, 6)))
    z = (x.reshape(12, 6) @ W).reshape(4, 3, 6)
    _, ys = tr.scan(lambda s, v: (tr.tanh(s @ W + v), tr.sin(s + v)), z[0] * 0.5, z)
    _, more = tr.scan(lambda s, v: (tr.tanh(s + v),) * 2, z[1], (ys.reshape(12, 6) @ W).reshape(4, 3, 6), reverse=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "LARGE", 0)
        patch.setattr(sink, "ROWS", 1)
        check_graph(Graph({"y": (ys * z).sum(), "more": more, "g": tr.grad((ys * z * z).sum() + more.sum(), W)}), "cpu")


def kept_check():
    """Values of leaves and of inputs that change from run to run."""
    a, b, W = (tr.parameter(np.eye(3) * k, f"p{k}") for k in (1, 2, 3))
    program = tr.compile(lambda x: (x + 1) @ tr.concat([a + b, W], 1))
    for k in range(3):
        x = np.full((2, 3), 1.0 + k)
        expected = (x + 1) @ np.concatenate([a.numpy() + b.numpy(), W.numpy()], 1)
        np.testing.assert_allclose(program(x), expected)
        a.assign(a.numpy() + k + 1)


def storing_all(self, m, x, pointer, mask=None, *, plain=emit.Emit.store):
    plain(self, m, x, pointer, None)


def relu_of_numbers(self, x):
    return self.select(self.less(0, x), x, self.number(0, x))


MUTANTS = {
    "whole vectors are stored at the end of a row": (emit.Emit, "store", storing_all, guard_check),
    "temporaries overlap": (memory, "lifetimes", lambda plan, kept=(), plain=memory.lifetimes: {
        b: (first, first) for b, (first, _) in plain(plan, kept).items()}, zoo_check),
    "a sequence is overwritten though it is read later": (planner.PlannedScope, "needed_later", lambda *_: False, reuse_check),
    "a state is overwritten before its last reader": (
        scan_loop, "_in_place", lambda loop, slots: loop.calls.__setitem__(slice(None), [
            c for c in loop.calls if not any(v.buffer is s[0].buffer for s in slots for v in [c.operands[-1]])]), cell_check),
    "every loop is split along its rows": (scan_loop, "_within", lambda *_: True, mixing_check),
    "products move into loops though others read them": (sink, "_slices", lambda *_: True, sinking_check),
    "what is kept of weights is never made anew": (kept.Kept, "get", lambda self, data: self._made and self._made[1], kept_check),
    "what an input goes into is kept": (prologue, "_independent", lambda items: {
        i for i, c in enumerate(items) if isinstance(c, Call) and all(c.operands[k].buffer.role == "temporary" for k in c.writes)}, kept_check),
    "nobody waits for parts": (driver._Task, "_until_ready", lambda self, goal: None, thread_check),
    "relu of NaN is 0": (codegen.LlvmDomain, "relu", relu_of_numbers, special_check),
    "sums start from 1": (codegen.LlvmDomain, "neutral", lambda self, reduction, dtype: self.constant(1, dtype),
                          lambda: cell_check(ODD["layer_norm"])),
    "panels are not padded": (products.Tiles, "_write", lambda self, e, m, sums, c, row_c, vectors, masks, before, plain=(
        products.Tiles._write): plain(self, e, m, sums, c, row_c, vectors, [None] * vectors, before), guard_check),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bugs_are_noticed(name, monkeypatch):
    owner, attribute, value, check = MUTANTS[name]
    with_own_kernels(monkeypatch)
    check()
    with_own_kernels(monkeypatch)
    monkeypatch.setattr(owner, attribute, value)
    with pytest.raises((AssertionError, IndexError, ValueError, KeyError)):
        check()


@pytest.fixture(autouse=True)
def kernels_are_asked(monkeypatch):
    """Plans are not replayed here: what runs must show the bug.  `test_replay` plants bugs for the replay alone."""
    monkeypatch.setattr(planner, "ENABLED", False)
