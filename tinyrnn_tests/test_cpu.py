"""Compiled kernels against the interpreter: every cell, every option, random graphs, odd shapes, other machines."""

import os
import signal
import subprocess
import sys
import threading

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn.backends import UnsupportedError, compiled
from tinyrnn.backends.cpu import engine, runtime, store
from tinyrnn.backends.cpu.backend import executable
from tinyrnn.backends.cpu.runtime import Executable
from tinyrnn.backends.scalars import ULP
from tinyrnn.backends.schedule import plan_of
from tinyrnn.compile import PIPELINE
from tinyrnn.ir import Graph
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import reduce as r
from tinyrnn.ir.ops import structure
from tinyrnn.ir.ops.leaves import constant, full, input_node, iota
from tinyrnn.ir.ops.linear import sum_
from tinyrnn.ir.ops.random import random_bits
from tinyrnn.passes import grad, simplify
from tinyrnn.passes.fuse import fuse

from .random_graphs import random_graph
from .running_error import assert_equal_computations
from .test_ops import CASES

GUARD = 256  # bytes around every result that nobody may touch


def values_for(graph, rng=0, scale=0.7):
    generator = np.random.default_rng(rng)
    found = {}
    for name, n in graph.inputs.items():
        if n.dtype.kind == "f":
            found[name] = (scale * generator.normal(size=n.shape)).astype(n.dtype)
        elif n.dtype.kind == "b":
            found[name] = generator.random(n.shape) < 0.7
        else:
            found[name] = generator.integers(0, 3, n.shape).astype(n.dtype)
    return found


def through_passes(graph):
    for _, transform in PIPELINE:
        graph = transform(graph)
    return graph


def run_compiled(graph, values, threads=1, target=None, gap=0):
    """Results of an executable of its own, which is returned as well."""
    plan = plan_of(fuse(simplify(graph)))
    e = Executable(plan, target, gap)
    nodes = {**graph.inputs, **graph.leaves}
    given_arrays = {n: np.ascontiguousarray(values[k] if k in values else n.at[0].data) for k, n in nodes.items()}
    guarded = {k: np.full(n.dtype.itemsize * int(np.prod(n.shape)) + 2 * GUARD, 0xFF, np.uint8)  # poisoned: what is not
               for k, n in graph.outputs.items()}                                               # written shows
    outputs = {k: guarded[k][GUARD:-GUARD].view(n.dtype).reshape(n.shape) for k, n in graph.outputs.items()}
    e.run(given_arrays, outputs, threads)
    for k, raw in guarded.items():
        assert (raw[:GUARD] == 0xFF).all(), f"something was written before {k}"
        assert (raw[-GUARD:] == 0xFF).all(), f"something was written behind {k}"
    return outputs, e


def check_graph(graph, rng=0):
    values = values_for(graph, rng)
    for g in (graph, through_passes(graph)):
        found, _ = run_compiled(g, values)
        assert_equal_computations(graph, found, values)


# ---- cells and layers

@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", tr.cells.names())
def test_zoo(name, dtype):
    cell = tr.cells[name]
    sizes = dict(zip(cell.sizes, (3, 5, 7), strict=False))
    check_graph(cell.rolled(4, sizes, batch=2, gradients=True, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("name", tr.cells.names())
@pytest.mark.parametrize(("batch", "steps", "sizes"), [(1, 1, (1, 1, 1)), (1, 3, (17, 33, 65)), (13, 2, (1, 19, 2)),
                                                        (7, 5, (64, 70, 16))])
def test_zoo_at_odd_sizes(name, batch, steps, sizes):
    cell = tr.cells[name]
    check_graph(cell.rolled(steps, dict(zip(cell.sizes, sizes, strict=False)), batch=batch, gradients=True, dtype="float32"))


ODD = {
    "softmax": "z[t] = softmax(W @ h[t-1] + V @ x[t])\nh[t] = tanh(z[t] * h[t-1] + b)",
    "layer_norm": "h[t] = tanh(layer_norm(W @ h[t-1] + V @ x[t]) * g + b)",
    "rms_norm": "h[t] = sigmoid(rms_norm(W @ h[t-1] + V @ x[t]) * g)",
    "lag": "h[t] = tanh(W @ h[t-1] + U @ h[t-2] + V @ x[t])",
    "delayed": "h[t] = tanh(W @ h[t-1] + V @ x[t-1] + U @ x[t])",
    "matrix": "k[t] = W_k @ x[t]\nv[t] = W_v @ x[t]\nC[t] = 0.9 * C[t-1] + outer(v[t], k[t])\nh[t] = tanh(C[t] @ k[t] + b)",
    "two products": "r[t] = sigmoid(W_r @ h[t-1] + V_r @ x[t])\nn[t] = tanh(W_n @ (r[t] * h[t-1]) + V_n @ x[t])\n"
                    "h[t] = r[t] * h[t-1] + (1 - r[t]) * n[t]",
    "division": "s[t] = sum(abs(V @ x[t])) + 1\nh[t] = tanh(W @ h[t-1] / s[t] + V @ x[t])",
    "clip": "h[t] = clip(W @ h[t-1] + V @ x[t], -0.5, 0.5) + maximum(V @ x[t], 0.1) * minimum(h[t-1], b)",
    "softplus": "h[t] = softplus(W @ h[t-1] + V @ x[t]) / (1 + exp(-(U @ x[t]))) + elu(b) * gelu(V @ x[t])",
    "powers": "h[t] = sqrt(0.1 + (W @ h[t-1])**2) + log(1 + (V @ x[t])**2)**1.5 - sin(b) * cos(h[t-1])",
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ODD)
def test_odd_cells(name, dtype):
    cell = tr.Cell(ODD[name], name=name.replace(" ", "_"))
    check_graph(cell.rolled(4, dict(zip(cell.sizes, (3, 5, 4), strict=False)), batch=3, gradients=True, dtype=dtype))


LAYERS = {
    "lstm": lambda **o: tr.nn.LSTM(3, 5, rng=0, **o), "gru": lambda **o: tr.nn.GRU(3, 5, rng=0, **o),
    "rnn": lambda **o: tr.nn.RNN(3, 5, rng=0, **o), "relu": lambda **o: tr.nn.RNN(3, 5, nonlinearity="relu", rng=0, **o),
}


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False},
                                     {"num_layers": 2, "bidirectional": True, "batch_first": False}])
@pytest.mark.parametrize("lengths", [None, [4, 1, 0, 3]])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, options, lengths):
    layer = LAYERS[name](dtype="float64", **options)
    shape = (4, 4, 3)
    x = input_node("x", shape)
    y, state = layer(tr.Tensor(x), lengths=lengths)
    states = list(state) if isinstance(state, tuple) else [state]
    loss = (y * y).sum() + sum((s * tr.sin(s)).sum() for s in states)
    gradients = tr.grad(loss, dict(layer.named_parameters()) | {"x": tr.Tensor(x)})
    graph = Graph({"y": y, "loss": loss, **{f"state {i}": s for i, s in enumerate(states)},
                   **{f"d{k}": g for k, g in gradients.items()}})
    check_graph(graph)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_no_steps_and_no_rows(steps, batch):
    layer = tr.nn.LSTM(3, 4, rng=0)
    x = input_node("x", (batch, steps, 3), "float32")
    y, (h, c) = layer(tr.Tensor(x))
    loss = y.sum() + h.sum() + c.sum()
    graph = Graph({"y": y, "h": h, "c": c, **{f"d{k}": g for k, g in tr.grad(loss, dict(layer.named_parameters())).items()}})
    check_graph(graph)


# ---- random graphs

@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data):
    check_graph(random_graph(data.draw))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_many_random_graphs(data):
    check_graph(random_graph(data.draw))


# ---- scalar functions over their whole range

TRUTH = {"exp": mpmath.exp, "expm1": mpmath.expm1, "tanh": mpmath.tanh, "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
         "log": mpmath.log, "log1p": mpmath.log1p, "softplus": lambda x: mpmath.log1p(mpmath.exp(-abs(x))) + max(x, 0),
         "sqrt": mpmath.sqrt, "sin": mpmath.sin, "cos": mpmath.cos}


def points(dtype, n):
    """Any pattern of bits, and numbers of the sizes that matter."""
    rng = np.random.default_rng(1)
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    anything = rng.integers(0, np.iinfo(unsigned).max, n, unsigned, endpoint=True).view(dtype)
    small, edge = rng.normal(size=n) * 10 ** rng.uniform(-6, 2.5, n), 105 if dtype == np.float32 else 750
    x = np.concatenate([anything, *(a.astype(dtype) for a in (small, np.linspace(-20, 20, n), rng.uniform(-edge, edge, n)))])
    return x[np.isfinite(x)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ULP)
def test_scalar_functions_stay_within_their_ulp(name, dtype):
    x, info = points(dtype, 150), np.finfo(dtype)
    node = input_node("x", x.shape, dtype)
    y = Graph({"y": getattr(tr, name)(tr.Tensor(node))}).run({"x": x}, backend="cpu")["y"]
    allowed = ULP[name][8 * np.dtype(dtype).itemsize]
    with mpmath.workprec(140), np.errstate(all="ignore"):
        for a, found in zip(x, y, strict=True):
            if (name in ("log", "sqrt") and a < 0) or (name == "log1p" and a < -1):
                assert np.isnan(found), a
                continue
            if found in (np.inf, -np.inf):
                assert (name in ("log", "log1p") and a in (0, -1)) or TRUTH[name](mpmath.mpf(float(a))) >= float(info.max), a
                continue
            true = TRUTH[name](mpmath.mpf(float(a)))
            unit = float(np.spacing(dtype(min(abs(true), float(info.max)))))
            assert abs(mpmath.mpf(float(found)) - true) <= allowed * unit, (a, found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*ULP, "abs", "relu", "sign"])
def test_special_numbers(name, dtype):
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.smallest_subnormal, info.max, -info.max], dtype)
    graph = Graph({"y": getattr(tr, name)(tr.Tensor(input_node("x", x.shape, dtype)))})
    found, expected = graph.run({"x": x}, backend="cpu")["y"], graph.run({"x": x})["y"]
    close = np.isclose(found, expected, rtol=8 * info.eps, atol=0) | (found == expected)
    assert (close | (np.isnan(found) & np.isnan(expected))).all(), (found, expected)
    if name != "relu":  # NumPy itself gives either zero
        assert (np.signbit(found) == np.signbit(expected))[~np.isnan(expected)].all(), (found, expected)


def test_nan_and_infinity_go_where_numpy_sends_them():
    bad = np.array([[np.nan, 1.0, -np.inf], [2.0, np.inf, -1.0], [0.0, -0.0, 3.0]])
    a, b = (tr.Tensor(input_node(k, (3, 3))) for k in "ab")
    out = {"maximum": tr.maximum(a, b), "minimum": tr.minimum(a, b), "relu": tr.relu(a), "clip": tr.clip(a, -1.0, 1.0),
           "where": tr.where(a < b, a, b), "max": a.max(1), "min": a.min(0), "sum": a.sum(), "argmax": a.argmax(1),
           "product": a @ b, "abs": abs(a), "sign": tr.sign(a), "softmax": tr.softmax(a), "quotient": a / b,
           "less": a < b, "not": ~(a <= b), "equal": a == b, "differs": a != b, "cumsum": tr.cumsum(a, 1)}
    graph, values = Graph(out), {"a": bad, "b": bad.T.copy()}
    found = graph.run(values, backend="cpu")
    with np.errstate(all="ignore"):
        for k, y in graph.run(values).items():
            np.testing.assert_allclose(found[k], y, rtol=1e-12, err_msg=k)


# ---- memory, threads, machines

def training_graph(dtype="float32", batch=7, steps=6):
    layer = tr.nn.LSTM(5, 19, num_layers=2, bidirectional=True, dtype=dtype, rng=0)
    x = tr.Tensor(input_node("x", (batch, steps, 5), dtype))
    y, _ = layer(x, lengths=np.minimum([steps, 1, 0, 3, 2, steps, 4], steps)[:batch])
    loss = (y * y).sum()
    return through_passes(Graph({"loss": loss, **{f"d{k}": g for k, g in tr.grad(loss, dict(layer.named_parameters())).items()}}))


class Filled(runtime._Arenas):
    """Memory that holds one byte everywhere, and is kept to be looked at."""

    def __init__(self, fill):
        super().__init__()
        self.fill, self.seen = fill, []

    def borrow(self, size):
        arena = runtime.aligned(size)
        arena[:] = self.fill
        self.seen.append(arena)
        return runtime._Borrowed(self, arena)


def test_nothing_is_written_outside_of_its_buffer_or_read_before_it_was_written(monkeypatch):
    """Guard bytes around every temporary stay as they are, and what memory held before makes no difference."""
    graph, gap = training_graph(), 256
    values, results = values_for(graph), []
    for fill in (0x00, 0xFF, 0x7F):
        arenas = Filled(fill)
        monkeypatch.setattr(runtime, "ARENAS", arenas)
        found, e = run_compiled(graph, values, gap=gap)
        results.append(found)
        seen = arenas.seen
        used = np.zeros(len(seen[0]), bool)
        for buffer, start in e.offsets.items():
            used[start : start + buffer.bytes] = True
        assert used.any()
        assert (seen[0][~used] == fill).all()
    for other in results[1:]:
        for k, y in results[0].items():
            np.testing.assert_array_equal(other[k], y, err_msg=k)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_do_not_depend_on_the_number_of_threads(dtype, batch, monkeypatch):
    for limit in ("WORTHWHILE", "ENOUGH", "WIDE"):
        monkeypatch.setattr(runtime, limit, 0)
    graph = training_graph(dtype, batch)
    values = values_for(graph)
    first, e = run_compiled(graph, values, 1)
    assert e.shared
    assert any(item[7] for item in e._items.tolist()), "nothing is shared among threads"
    for threads in (1, 2, 3, 5):
        found, _ = run_compiled(graph, values, threads)
        for k, y in first.items():
            np.testing.assert_array_equal(found[k], y, err_msg=f"{k}, {threads} threads")


@pytest.mark.parametrize("target", [engine.AVX2, engine.BASELINE], ids=["avx2", "baseline"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_machines(target, dtype):
    """Code for narrower vectors, run here."""
    features = engine.binding.get_host_cpu_features()
    if target is engine.AVX2 and not features.get("avx2", False):
        pytest.skip("this processor has no AVX2")
    for graph in (training_graph(dtype, steps=3), tr.Cell(ODD["matrix"]).rolled(3, gradients=True, dtype=dtype),
                  tr.Cell(ODD["softmax"]).rolled(3, gradients=True, dtype=dtype)):
        values = values_for(graph)
        found, _ = run_compiled(graph, values, target=target)
        assert_equal_computations(graph, found, values)


def test_a_new_length_batch_or_width_compiles_nothing():
    cell = tr.Cell(ODD["layer_norm"], name="fresh")
    sizes = dict.fromkeys(cell.sizes, 0)

    def run(steps, batch, *widths):
        given = dict(zip(sizes, widths, strict=False))
        graph = through_passes(cell.rolled(steps, given, batch=batch, gradients=True, dtype="float32"))
        run_compiled(graph, values_for(graph))
        return len(engine.library(engine.host()).addresses)

    kernels = run(3, 2, 5, 6)
    assert [run(9, 4, 3, 8), run(40, 31, 17, 33), run(2, 3, 64, 100)] == [kernels] * 3


def test_two_threads_compile_and_run_at_once():
    errors = []

    def work(seed):
        try:
            for k in range(4):
                text = f"h[t] = tanh(W @ h[t-1] + {seed + k}.25 * (V @ x[t]))"
                graph = through_passes(tr.Cell(text).rolled(4, x=5, h=9 + seed, batch=8, gradients=True))
                values = values_for(graph)
                found = graph.run(values, backend="cpu")
                assert_equal_computations(graph, found, values)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


LONG_RUN = """
import sys, numpy as np, tinyrnn as tr
layer = tr.nn.LSTM(64, 256, rng=0)
step = tr.compile(lambda x: layer(x)[0].sum(), threads=int(sys.argv[1]))
step(np.ones((32, 2, 64), "f"))
print("ready", flush=True)
try:
    while True:
        step(np.ones((32, 6000, 64), "f"))
except KeyboardInterrupt:
    print("interrupted", step(np.ones((32, 2, 64), "f")).shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_run_can_be_interrupted(threads):
    """Ctrl-C comes through within a second or two, also while helpers work, and the program can be used afterwards."""
    run = subprocess.Popen([sys.executable, "-c", LONG_RUN, str(threads)], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "ready\n"
    threading.Event().wait(1.0)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert out == "interrupted ()\n"
    assert run.returncode == 0


FORK = """
import os, numpy as np, tinyrnn as tr
layer = tr.nn.LSTM(64, 128, rng=0)
step = tr.compile(lambda x: layer(x)[0].sum(), threads=2)
x = np.ones((32, 50, 64), "f")
before = float(step(x))
child = os.fork()
if child == 0:
    os._exit(0 if float(step(x)) == before else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert float(step(x)) == before
print("good")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_after_compiling():
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=120)
    assert (out.stdout, out.returncode) == ("good\n", 0), out.stderr


# ---- the cache on disk

def test_compiled_kernels_are_kept_on_disk_for_their_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    tmp_path.chmod(0o700)
    store.store_object("a", b"code")
    assert store.load_object("a") == b"code"
    assert store.load_object("b") is None
    (tmp_path / "a.o").write_bytes((tmp_path / "a.o").read_bytes()[:-1] + b"!")
    assert store.load_object("a") is None, "damaged code was accepted"
    store.store_object("a", b"code")
    (tmp_path / "a.o").chmod(0o622)
    assert store.load_object("a") is None, "code that others can write was accepted"
    tmp_path.chmod(0o777)
    assert store.folder() is None, "a folder that others can write was accepted"
    monkeypatch.setenv(store.VARIABLE, "off")
    assert store.folder() is None


# ---- every op

def without_gradients():
    """The ops that have none, by name."""
    a, b = input_node("a", (3, 4)), input_node("b", (3, 4))
    p, q, index = e.less(a, b), e.less_equal(b, 0.3), input_node("i", (3,), "int32")
    return {"less": p, "less_equal": q, "equal": e.equal(a, a), "not_equal": e.not_equal(a, b), "both": e.both(p, q),
            "either": e.either(p, q), "negate": e.negate(p), "sign": e.sign(a), "stop_gradient": e.stop_gradient(a * b),
            "argmax": r.argmax(a, 0), "one_hot": structure.one_hot(index, 4), "full": full(2.5, (2, 3), "float32"),
            "random_bits": random_bits(input_node("key", (2,), np.uint32), 7, (5, 9)), "literal": constant(np.arange(6.0)),
            "iota": iota(5), "input": a}


@pytest.mark.parametrize("name", sorted({*CASES, *without_gradients()}))
def test_every_op_has_a_kernel(name):
    """The table of `test_ops` once more, with gradients: nothing falls back to the interpreter."""
    generator = np.random.default_rng(0)
    build, shapes, known = CASES.get(name, (None, {}, {}))
    nodes = {k: input_node(k, shape) for k, shape in shapes.items()}
    y = build(**nodes) if build else without_gradients()[name]
    outputs = {"y": y}
    if build and y.floating:
        loss = sum_(y * constant(generator.normal(size=y.shape)))
        outputs |= {f"d{k}": g for k, g in zip(nodes, grad(loss, list(nodes.values())), strict=True)}
    graph = Graph(outputs)
    values = {k: np.asarray(known.get(k, v)).astype(v.dtype) for k, v in values_for(graph).items()}
    assert_equal_computations(graph, graph.run(values, backend="cpu"), values)
    assert_equal_computations(graph, run_compiled(through_passes(graph), values)[0], values)


def test_no_op_was_forgotten():
    covered = {*CASES, *without_gradients()}
    assert set(CATALOGUE) - covered == {"leaf", "hole", "arg"}  # given, never run, and inside of bodies


# ---- what has no kernel

def nested():
    def inner(x):
        return tr.scan(lambda s, v: (s * v, s), tr.tensor(1.0), x)[0]
    return tr.compile(lambda x: tr.scan(lambda s, v: (s + inner(v), s), tr.tensor(0.0), x)[0])


def test_what_no_kernel_computes_runs_on_the_interpreter_and_says_so():
    program = nested()
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.warns(tr.FallbackWarning, match="runs on the interpreter, many times slower: a scan inside a scan"):
        assert float(program(x)) == 14.0
    strict = nested()
    strict.strict = True
    with pytest.raises(tr.TinyRNNError, match="a scan inside a scan has no compiled kernel"):
        strict(x)
    with pytest.raises(UnsupportedError, match="complex128 numbers have no compiled kernels"):
        compiled(Graph({"y": tr.exp(tr.Tensor(input_node("z", (2,), "complex128")))}))


def test_an_index_outside_is_refused_before_anything_is_read_or_updated():
    table = tr.parameter(np.ones((3, 2)), name="table")

    @tr.compile
    def step(index):
        loss = tr.gather(table, index).sum()
        table.assign(table - tr.grad(loss, table))
        return loss

    for bad in (3, -1, 2**40):
        with pytest.raises(tr.TinyRNNError, match=f"index {bad} is outside an axis of size 3: expected 0 to 2"):
            step(np.array([0, bad]))
        np.testing.assert_array_equal(table.numpy(), np.ones((3, 2)))
    assert float(step(np.array([0, 0]))) == 4.0
    np.testing.assert_array_equal(table.numpy(), [[-1.0, -1.0], [1.0, 1.0], [1.0, 1.0]])


def test_executables_are_made_once_for_a_graph():
    graph = Graph({"y": tr.tanh(tr.Tensor(input_node("x", (3,))))})
    assert executable(graph) is executable(graph)
