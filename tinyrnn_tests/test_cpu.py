"""Compiled kernels against the interpreter: every cell, every option, random graphs, odd shapes, other machines."""

import os
import signal
import subprocess
import sys
import threading

import mpmath
import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends import Backend, ForAnySizes, UnsupportedError, cache
from tinyrnn.backends.cpu import engine, memory, tables
from tinyrnn.backends.cpu.backend import executable
from tinyrnn.backends.plan import sink
from tinyrnn.backends.plan.views import Loop
from tinyrnn.backends.scalars import ULP
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node

from .graph_cases import ODD, run_compiled, through_passes, values_for
from .running_error import assert_equal_computations

GUARD = 256  # bytes around every result that nobody may touch


# ---- cells and layers

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


# ---- memory, threads, machines

def training_graph(dtype="float32", batch=7, steps=6):
    layer = tr.nn.LSTM(5, 19, num_layers=2, bidirectional=True, dtype=dtype, rng=0)
    x = tr.Tensor(input_node("x", (batch, steps, 5), dtype))
    y, _ = layer(x, lengths=np.minimum([steps, 1, 0, 3, 2, steps, 4], steps)[:batch])
    loss = (y * y).sum()
    return through_passes(Graph({"loss": loss, **{f"d{k}": g for k, g in tr.grad(loss, dict(layer.named_parameters())).items()}}))


class Filled(memory.Arenas):
    """Memory that holds one byte everywhere, and is kept to be looked at."""

    def __init__(self, fill):
        super().__init__()
        self.fill, self.seen = fill, []

    def borrow(self, size):
        arena = memory.aligned(size)
        arena[:] = self.fill
        self.seen.append(arena)
        return arena, memory.address(arena)


def test_nothing_is_written_outside_of_its_buffer_or_read_before_it_was_written(monkeypatch):
    """Guard bytes around every temporary stay as they are, and what memory held before makes no difference."""
    graph, gap = training_graph(), 256
    values, results = values_for(graph), []
    for fill in (0x00, 0xFF, 0x7F):
        arenas = Filled(fill)
        monkeypatch.setattr(memory, "ARENAS", arenas)
        found, e = run_compiled(graph, values, gap=gap)
        results.append(found)
        seen = arenas.seen
        used = np.zeros(len(seen[0]), bool)
        used[e.bytes:] = True  # the thread's own room
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
    for limit in ("WORTHWHILE", "ENOUGH", "LONG", "WIDE"):
        monkeypatch.setattr(tables, limit, 0)
    graph = training_graph(dtype, batch)
    values = values_for(graph)
    first, e = run_compiled(graph, values, 1)
    assert e.shared
    assert any(item[7] for item in e.tables.items.tolist()), "nothing is shared among threads"
    for threads in (1, 2, 3, 5):
        found, _ = run_compiled(graph, values, threads)
        for k, y in first.items():
            np.testing.assert_array_equal(found[k], y, err_msg=f"{k}, {threads} threads")


def inference_graph(dtype="float32", batch=7, steps=6):
    """Both directions over one sequence, whose product they share, and a layer on top."""
    layer = tr.nn.Sequential(tr.nn.LSTM(5, 19, bidirectional=True, dtype=dtype, rng=0), tr.nn.GRU(38, 9, dtype=dtype, rng=1)).eval()
    return through_passes(Graph({"y": layer(tr.Tensor(input_node("x", (batch, steps, 5), dtype)))}))


@pytest.mark.parametrize("make", [training_graph, inference_graph])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_where_a_product_stands_makes_no_difference(make, dtype, threads, monkeypatch):
    """Products of all steps at once, or step by step inside of the loops: the same bits."""
    for limit in ("WORTHWHILE", "ENOUGH", "LONG", "WIDE"):
        monkeypatch.setattr(tables, limit, 0)
    graph = make(dtype)
    values, found, inside = values_for(graph), {}, {}
    for large in (2**60, 0):
        monkeypatch.setattr(sink, "LARGE", large)
        monkeypatch.setattr(sink, "ROWS", 1)
        found[large], e = run_compiled(graph, values, threads)
        inside[large] = sum(c.family == "product" for item in e.plan.items if isinstance(item, Loop) for c in item.calls)
    assert inside[0] > inside[2**60]
    for k, y in found[0].items():
        np.testing.assert_array_equal(found[2**60][k], y, err_msg=k)


def test_products_go_back_into_loops_that_read_them_alone(monkeypatch):
    """Between a product and the loop that reads it stands one of as many steps that does not."""
    monkeypatch.setattr(sink, "LARGE", 0)
    monkeypatch.setattr(sink, "ROWS", 1)
    W1, W2, U1, U2 = (tr.Tensor(input_node(n, (6, 6))) for n in ("W1", "W2", "U1", "U2"))
    x, h = tr.Tensor(input_node("x", (4, 16, 6))), tr.Tensor(input_node("h", (16, 6)))
    late, early = ((v.reshape(64, 6) @ W).reshape(4, 16, 6) for v, W in ((tr.tanh(x), W2), (x, W1)))
    _, first = tr.scan(lambda h, v: (tr.tanh(v + h @ U1),) * 2, h, early)
    _, second = tr.scan(lambda h, v: (tr.tanh(v[0] * v[1] + h @ U2),) * 2, h, (late, first))
    graph = through_passes(Graph({"y": second}))
    values = values_for(graph)
    found, e = run_compiled(graph, values)
    np.testing.assert_allclose(found["y"], graph.run(values)["y"], rtol=1e-12)
    loops = [item for item in e.plan.items if isinstance(item, Loop)]
    assert [sum(c.family == "product" for c in loop.calls) for loop in loops] == [2, 2]


@pytest.mark.parametrize("columns", [1, 15, 64, 65, 130, 256, 300])
@pytest.mark.parametrize("inner", [1, 7, 64, 65, 300])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_products_of_few_rows_in_any_order_of_panels(rows, inner, columns):
    """Every other turn goes through the panels the other way round; each entry is the sum that the interpreter makes."""
    rng = np.random.default_rng(0)
    w = tr.tensor(rng.normal(size=(inner, columns)).astype("float32"))
    x = rng.normal(size=(4, rows, inner)).astype("float32")
    _, ys = tr.scan(lambda s, v: (s + (v @ w).sum(), (v @ w) * (1 + 0 * s)), np.float32(0), tr.Tensor(input_node("x", x.shape, x.dtype)))
    found, e = run_compiled(Graph({"y": ys}), {"x": x})
    assert any(c.family == "matvec" for c in e.plan.calls())
    np.testing.assert_allclose(found["y"], x @ w.numpy(), rtol=0, atol=2e-6 * np.sqrt(inner) * np.abs(x).max() * 4)
    for t in range(4):
        again, _ = run_compiled(Graph({"y": ys}), {"x": np.roll(x, t, 0)})
        np.testing.assert_array_equal(np.roll(again["y"], -t, 0), found["y"])


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


def test_a_new_length_batch_or_width_compiles_nothing(monkeypatch):
    cell = tr.Cell(ODD["layer_norm"], name="fresh")
    sizes = dict.fromkeys(cell.sizes, 0)

    def run(steps, batch, *widths):
        given = dict(zip(sizes, widths, strict=False))
        graph = through_passes(cell.rolled(steps, given, batch=batch, gradients=True, dtype="float32"))
        return run_compiled(graph, values_for(graph))

    held = run(3, 2, 5, 6)
    compiled = []
    monkeypatch.setattr(engine.KernelCache, "_compiled", lambda self, missing, passes: compiled.extend(missing))
    run(9, 4, 3, 8)
    run(40, 31, 17, 33)
    run(2, 3, 64, 100)
    assert not compiled
    del held


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
import signal, sys, numpy as np, tinyrnn as tr
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background starts without it
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
    try:
        assert run.stdout.readline() == "ready\n"
        threading.Event().wait(1.0)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=30)
    finally:
        run.kill()
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
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    tmp_path.chmod(0o700)
    cache.store_object("a", b"code")
    assert cache.load_object("a") == b"code"
    assert cache.load_object("b") is None
    (tmp_path / "a.o").write_bytes((tmp_path / "a.o").read_bytes()[:-1] + b"!")
    assert cache.load_object("a") is None, "damaged code was accepted"
    cache.store_object("a", b"code")
    (tmp_path / "a.o").chmod(0o622)
    assert cache.load_object("a") is None, "code that others can write was accepted"
    tmp_path.chmod(0o777)
    assert cache.folder() is None, "a folder that others can write was accepted"
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert cache.folder() is None


# ---- every op

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
        ForAnySizes(Graph({"y": tr.exp(tr.Tensor(input_node("z", (2,), "complex128")))}), Backend("cpu")).at({})


def test_executables_are_made_once_for_a_graph():
    graph = Graph({"y": tr.tanh(tr.Tensor(input_node("x", (3,))))})
    assert executable(graph) is executable(graph)
