"""What attackers broke in version 0.1, each as the kind that it stands for; `fuzz` draws more of the same."""

import gc
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from itertools import pairwise
from math import inf
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import cli
from tinyrnn.analysis.structure import least_cycle_mean
from tinyrnn.backends import cache
from tinyrnn.backends.cpu import engine, runtime, threads
from tinyrnn.errors import LoadError
from tinyrnn.files import atomic_write, clear_leftovers
from tinyrnn.io.weights import checksum, read_weights, write_weights
from tinyrnn.ir import Graph
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.ir.ops.structure import pick, scatter_add
from tinyrnn.locks import ForkSafeLock
from tinyrnn.optim.optimisers import gradient_norm
from tinyrnn.passes import fuse as fuse_pass

fusing = sys.modules["tinyrnn.passes.fuse"]


def in_a_process(code, **environment):
    env = {k: v for k, v in os.environ.items() if k not in environment} | {k: v for k, v in environment.items() if v is not None}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


# ---- compiled code

def test_a_sum_over_no_entries_is_zero_whatever_memory_held():
    tr.compile(lambda x: tr.tanh(x) @ x + x)(np.full((30, 30), 77.0))
    empty, v = np.zeros((4, 0)), np.array([3.0])
    for f in (lambda a, b: tr.grad((tr.tanh(a) * b).sum() + 0.7 * b.sum(), b), lambda a, b: (tr.tanh(a) * b).sum() + 2.0 * b.sum(), lambda a, b: (a * 2.0).sum(1, keepdims=True) + b,
              lambda a, b: (a * a - a.sum(1, keepdims=True)).sum() + b, lambda a, b: tr.grad((a.sum() * b + b * b).sum(), b)):
        np.testing.assert_array_equal(tr.compile(f)(empty, v), tr.compile(f, backend="numpy")(empty, v))


@pytest.mark.parametrize("join", [lambda *x: tr.concat(list(x)), lambda *x: tr.stack(list(x)),
                                  lambda *x: tr.concat([tr.concat([x[0], x[0]]), x[1]])], ids=["concat", "stack", "nested"])
def test_whole_numbers_in_a_float_whole_stay_whole_numbers_elsewhere(join):
    table, i, a = np.arange(10.0).reshape(5, 2), np.array([0.0, 2.0, 1.0]), np.ones(3)
    big = np.array([2**62 + 1, 5, 7])

    def f(i, a, table):
        k = i.astype("int32") + 1
        return join(k, a), tr.gather(table, k), tr.one_hot(k, 4), k / 2, k.sum()

    for x, y in zip(tr.compile(f)(i, a, table), tr.compile(f, backend="numpy")(i, a, table), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    g = lambda n, a: (join(n * 1 + 0 * n, a), (n * 1 + 0 * n) - 1)
    np.testing.assert_array_equal(tr.compile(g)(big, a)[1], big - 1)


def test_what_an_index_may_be_is_checked_at_the_door():
    x = input_node("x", (3,))
    graph = Graph({"y": scatter_add(x, input_node("i", (3,), "int64"), 4)})
    for backend in ("numpy", "cpu"):
        with pytest.raises(tr.errors.IndexRangeError, match="index -1 is outside an axis of size 4"):
            graph.run({"x": np.ones(3), "i": np.array([0, -1, 2])}, backend=backend)
    with pytest.raises(tr.errors.ShapeError, match="rank 1 or more"):
        pick(input_node("n", ()), input_node("k", (), "int64"))
    with pytest.raises(tr.errors.ShapeError, match="lead the shape"):
        scatter_add(x, input_node("i", (2,), "int64"), 4)


def test_a_power_of_whole_numbers_has_a_gradient_in_its_exponent():
    n, b = tr.Tensor(input_node("n", (2,), "int32")), tr.Tensor(input_node("b", (2,)))
    found = Graph({"d": tr.grad((n ** b).sum(), b)}).run({"n": np.array([2, 3], "int32"), "b": np.array([3.0, 2.0])})["d"]
    np.testing.assert_allclose(found, [8 * np.log(2), 9 * np.log(3)], rtol=1e-14)


@pytest.mark.parametrize("to", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_become_whole_numbers_alike(dtype, to):
    """NaN is 0, what does not fit into 64 bits is the nearest that does, narrow types take its low bits."""
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**63, -2.0**63, 2.0**64, 300.7, -300.7, -0.5, 255.9, 0.0], dtype)
    graph = Graph({"y": e.astype(input_node("x", x.shape, dtype), to)})
    found = {b: graph.run({"x": x}, backend=b)["y"] for b in ("numpy", "cpu")}
    np.testing.assert_array_equal(found["numpy"], found["cpu"])
    wide = np.iinfo("uint64" if to == "uint64" else "int64")

    def exact(v):
        return 0 if np.isnan(v) else min(max(wide.min, int(v) if np.isfinite(v) else (wide.max if v > 0 else wide.min)), wide.max)

    bits = 8 * np.dtype(to).itemsize
    wanted = [exact(v) % 2**bits for v in x.tolist()]
    np.testing.assert_array_equal([int(v) % 2**bits for v in found["numpy"].tolist()], wanted)


def test_a_product_of_vectors_that_was_meant_for_a_matrix_is_refused_by_the_cell():
    for text in ("h[t] = tanh(h[t-1] * W @ x[t])", "h[t] = h[t-1] / W @ x[t]", "s[t] = h[t-1] * W @ x[t]\nh[t] = s[t] * h[t-1]"):
        with pytest.raises(tr.errors.EquationError, match=r"W stands to the left of @.*write h\[t-1\] [*/] \(W @ x\[t\]\)"):
            tr.Cell(text)
    dot = tr.Cell("w: (h,)\ns[t] = h[t-1] * w @ x[t]\nh[t] = s[t] * tanh(V @ x[t] + U @ h[t-1])")
    assert dot.parameters["w"] == ("h",)
    assert dot.ranks["signal", "s"] == 0
    dot.unroll(2)


# ---- the cache of kernels

@pytest.fixture
def kept(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_stored", 0)
    return tmp_path


def test_kernels_that_changed_places_are_not_run(kept):
    for name in ("a", "b"):
        cache.store_object(name, name.encode() * 20)
    first, second = (kept / f"{n}.o" for n in "ab")
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert cache.load_object("a") is None
    assert cache.load_object("b") is None


def test_the_cache_has_a_limit_and_the_oldest_go_first(kept, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 4000)
    monkeypatch.setattr(cache, "EVERY", 1)
    names = [f"{i:064x}" for i in range(8)]
    for i, name in enumerate(names[:6]):
        cache.store_object(name, bytes(600))
        os.utime(kept / f"{name}.o", (i + 1e9, i + 1e9))
    cache.load_object(names[0])  # it is of use
    (kept / "notes.o").write_bytes(bytes(5000))  # not ours
    cache.store_object(names[6], bytes(600))
    left = {p.name.removesuffix(".o") for p in kept.iterdir()}
    assert left == {names[0], names[4], names[5], names[6], "notes"}


def test_what_is_no_file_stops_neither_the_cache_nor_its_limit(kept, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 3000)
    monkeypatch.setattr(cache, "EVERY", 1)
    (kept / f"{'a' * 64}.o").symlink_to("nowhere")
    (kept / f"{'b' * 64}.o").mkdir()
    os.mkfifo(kept / f"{'c' * 64}.o", 0o600)
    for i in range(12):
        cache.store_object(f"{i:064x}", bytes(600))
    assert sum(p.stat().st_size for p in kept.iterdir() if p.is_file()) <= 3000
    for letter in "abc":
        assert cache.load_object(letter * 64) is None


def test_leftovers_of_killed_writers_are_cleared(kept, tmp_path):
    identity = "f" * 64
    left = kept / f".{identity[:40]}.{'0' * 16}.tmp"
    young, other = kept / f".{identity[:40]}.{'1' * 16}.tmp", kept / ".mine.tmp"
    for p in (left, young, other):
        p.write_bytes(b"half")
    os.utime(left, (1e9, 1e9))
    cache.store_object(identity, b"code")
    assert not left.exists()
    assert young.exists()
    assert other.exists()
    clear_leftovers(tmp_path)
    assert not young.exists()
    assert other.exists()


def test_a_run_clears_what_a_killed_run_left(tmp_path):
    (tmp_path / f".checkpoint.safetensors.{'a' * 16}.tmp").write_bytes(b"half")
    (tmp_path / f".model.safetensors.{'b' * 16}.tmp").write_bytes(b"somebody is writing this")
    model = tr.nn.Sequential(tr.nn.Linear(2, 1, rng=0))
    model.fit(np.ones((2, 2)), np.ones((2, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), epochs=1, resume=tmp_path, progress=False,
              backend="numpy")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".model.safetensors.{'b' * 16}.tmp",
                                                               "checkpoint.safetensors", "lock"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_files_have_the_rights_of_the_umask_which_nobody_touches(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask of the whole process was changed"))
    code = ("import os, sys; os.umask(int(sys.argv[1], 8)); from tinyrnn.files import atomic_write; "
            "atomic_write(sys.argv[2], b'x')")
    for mask, mode in (("077", 0o600), ("022", 0o644), ("000", 0o666)):
        path = tmp_path / mask
        subprocess.run([sys.executable, "-c", code, mask, str(path)], check=True)
        assert path.stat().st_mode & 0o777 == mode
    atomic_write(tmp_path / ("long name " * 20), b"x")
    assert (tmp_path / ("long name " * 20)).read_bytes() == b"x"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become somebody without a name")
def test_without_a_home_and_a_name_nothing_is_cached_and_everything_runs():
    code = ("import os, numpy as np, tinyrnn as tr, tinyrnn.backends.cpu.backend\nos.setuid(54321)\n"
            "print(tr.compile(lambda x: tr.tanh(x) * 3)(np.zeros(2)).tolist())")
    done = in_a_process(code, HOME=None, XDG_CACHE_HOME=None, TINYRNN_CACHE=None)
    assert done.stdout.strip() == "[0.0, 0.0]", done.stderr
    done = in_a_process(code, TINYRNN_CACHE="a\0b".replace("\0", "/proc/none/"))
    assert done.stdout.strip() == "[0.0, 0.0]", done.stderr


def test_machine_code_of_dropped_programs_is_freed(monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, "off")
    own = engine.KernelCache(engine.host())
    monkeypatch.setattr(runtime, "library", lambda target: own)
    monkeypatch.setattr(engine, "LATEST", 3)
    own._latest = type(own._latest)(maxlen=3)
    ops = [tr.tanh, tr.exp, tr.sin, tr.cos, tr.sigmoid]
    kept = tr.compile(lambda x: tr.softplus(x))
    kept(np.ones(3))
    for a in ops:
        for b in ops:
            tr.compile(lambda x, a=a, b=b: a(b(x)))(np.ones(3))
    gc.collect()
    alive = {id(code) for code in own._held.values()}
    assert len(alive) <= 4
    np.testing.assert_allclose(kept(np.zeros(3)), np.log(2))


def test_long_chains_fuse_in_linear_time():
    """Counted in steps of the search, not in seconds."""
    steps = []

    def visits(n):
        x = y = tr.Tensor(input_node("x", (3, 4)))
        for i in range(n):
            y = (tr.tanh, tr.sin, tr.sigmoid)[i % 3](y)
        steps.clear()
        fuse_pass(Graph({"y": y, "dx": tr.grad(y.sum(), x)}))
        return len(steps)

    plain = fusing._Paths._reads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusing._Paths, "_reads", lambda self, unit: steps.append(1) or plain(self, unit))
        short, long = visits(200), visits(800)
    assert long < 5 * short


# ---- forks and threads

def _answer(program, queue):
    queue.put(float(program(np.ones((32, 12, 32), "float32"))))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_program_runs_can_run_it():
    layer = tr.nn.LSTM(32, 48, rng=0)
    program = tr.compile(lambda x: (layer(x)[0] ** 2).mean())
    x, stop = np.ones((32, 12, 32), "float32"), []
    expected = float(program(x))

    def busy():
        while not stop:
            program(x)

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(4):
            queue = context.Queue()
            child = context.Process(target=_answer, args=(program, queue))
            child.start()
            try:
                assert queue.get(timeout=20) == expected
            finally:
                child.kill()
                child.join()
    finally:
        stop.append(1)
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_another_thread_compiles_can_compile(monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, "off")
    stop = []

    def busy(seed):
        while not stop:
            tr.compile(lambda x: tr.tanh(x * 2.0) - x ** (3 + len(seed)))(np.ones(3))
            seed.append(1)

    thread = threading.Thread(target=busy, args=([],), daemon=True)
    thread.start()
    try:
        for i in range(6):
            pid = os.fork()
            if not pid:
                tr.compile(lambda x, i=i: tr.sin(tr.cos(x)) ** (5 + i))(np.ones(3))
                os._exit(0)
            waited = threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True)
            waited.start()
            waited.join(60)
            if waited.is_alive():
                os.kill(pid, 9)
            assert not waited.is_alive(), "the child hangs"
    finally:
        stop.append(1)
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_that_others_held_is_open_after_a_fork_and_ones_own_is_kept():
    others, own, held, leave = ForkSafeLock(), ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with others:
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with own:
        pid = os.fork()
        if not pid:
            own.release()  # it is still held: a lock that was opened would refuse
            os._exit(0 if others.acquire(blocking=False) and own.acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert not others.acquire(blocking=False)
    leave.set()
    thread.join()


# ---- files

def saved(tmp_path, *layers):
    model = tr.nn.Sequential(*layers)
    path = tmp_path / "m.safetensors"
    model.save(path)
    return model, path


def rewritten(path, change, seal=True):
    """The file with other arrays or metadata, and (as an attacker would) a sum that agrees."""
    arrays, metadata = read_weights(path)
    change(arrays, metadata)
    if seal:
        metadata["sum"] = checksum(arrays, metadata["model"], metadata["shared"])
    write_weights(path, arrays, metadata)
    return path


def described(metadata, change):
    form = json.loads(metadata["model"])
    change(form)
    metadata["model"] = json.dumps(form)


@pytest.mark.parametrize("size", [4 * 10**7, 10**12, 10**30])
@pytest.mark.parametrize("what", ["rows", "width", "layers", "cell", "norm"])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path, what, size):
    layer, key, where = {"rows": (tr.nn.Embedding(5, 3, rng=0), "num_embeddings", ()),
                         "width": (tr.nn.Linear(5, 3, rng=0), "out_features", ()),
                         "layers": (tr.nn.GRU(2, 3, rng=0), "num_layers", ()),
                         "cell": (tr.nn.Recurrent("gru", x=2, h=3, rng=0), "h", ("sizes",)),
                         "norm": (tr.nn.LayerNorm(3), "features", ())}[what]
    _, path = saved(tmp_path, layer)

    def grow(form):
        place = form["layers"][0]
        for k in where:
            place = place[k]
        place[key] = size

    rewritten(path, lambda arrays, metadata: described(metadata, grow))
    with pytest.raises(LoadError, match="more than the file holds"):
        tr.load(path)


def test_weights_of_another_dtype_or_shape_are_refused(tmp_path):
    model, path = saved(tmp_path, tr.nn.Linear(3, 3, rng=0), tr.nn.Linear(3, 2, rng=1))
    raw = path.read_bytes()

    def changed(change, seal=True):
        path.write_bytes(raw)
        return rewritten(path, change, seal)

    def whole(arrays, metadata):
        arrays["layers.0.weight"] = arrays["layers.0.weight"].view("int32")

    def wider(arrays, metadata):
        arrays["layers.0.weight"] = arrays["layers.0.weight"].astype("float64")

    def transposed(arrays, metadata):
        arrays["layers.1.weight"] = arrays["layers.1.weight"].T

    def rows_exchanged(arrays, metadata):
        arrays["layers.0.weight"] = arrays["layers.0.weight"][::-1]

    for change, seal, message in ((whole, True, "is int32 in the file, its layer is float32"), (wider, True, "is float64"),
                                  (transposed, True, "shape"), (whole, False, "sum does not agree"),
                                  (rows_exchanged, False, "sum does not agree")):
        with pytest.raises(LoadError, match=message):
            tr.load(changed(change, seal))
    with pytest.raises(LoadError, match="convert them with astype"):
        model.load_state_dict({k: v.astype(int) for k, v in model.state_dict().items()})
    path.write_bytes(raw)
    np.testing.assert_array_equal(tr.load(path).state_dict()["layers.0.weight"], model.state_dict()["layers.0.weight"])


def test_a_model_whose_layers_share_weights_is_loaded_within_its_own_size(tmp_path):
    shared = tr.nn.Linear(40, 40, rng=0)
    model, path = saved(tmp_path, *[shared] * 200)
    loaded = tr.load(path)
    assert len(loaded.parameters()) == 2
    x = np.ones((2, 40), "float32")
    np.testing.assert_array_equal(loaded(x).numpy(), model(x).numpy())


def test_loaders_raise_one_error_whose_text_can_be_printed(tmp_path):
    _, path = saved(tmp_path, tr.nn.Sequential(tr.nn.Embedding(5, 3, rng=0)), tr.nn.Recurrent("gru", x=3, h=2, rng=0))
    raw = path.read_bytes()
    evil = "\x1b[2Jlayer\x07"

    def put(key, value, layer=1):
        return lambda form: (form["layers"][layer] if layer is not None else form).__setitem__(key, value)

    for change in (put("kind", [], None), put("kind", evil), put("dtype", ",at32"), put("dtype", evil), put("name", evil),
                   put("text", evil), put("text", "# " + evil + "\nh[t] = tanh(W @ x[t])"), put("sizes", {evil: 3}), put(evil, 1),
                   put("sizes", None), put("layers", 5, 0), put("layers", [[]], None)):
        path.write_bytes(raw)
        rewritten(path, lambda arrays, metadata, change=change: described(metadata, change))
        with pytest.raises(LoadError) as found:
            tr.load(path)
        assert str(found.value).replace("\n", "").isprintable(), change
    for entry in ({"dtype": [], "shape": [1], "data_offsets": [0, 8]}, {"dtype": {}}, [], None, 1):
        text = json.dumps({"a": entry}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
        with pytest.raises(LoadError):
            tr.load(path)
    for data in (b"", b"\0" * 8, raw[:40], b"\xff" * 64, pickle.dumps([1])):
        path.write_bytes(data)
        with pytest.raises(LoadError):
            tr.load(path)
    assert "\\x1b[2J" in str(LoadError(evil))


def test_a_certificate_sends_no_control_characters_to_the_terminal(tmp_path, capsys):
    evil, path = "\x1b[2J", tmp_path / "c.json"
    whole = json.loads(tr.prove(tr.cells.RNN, max_terms=10**5).certificate())
    changes = [lambda c: c["programs"][0].__setitem__("sizes", {f"x{evil}": 3}), lambda c: c["programs"][0].__setitem__("what", evil),
               lambda c: c["programs"][0]["inputs"].__setitem__(evil, c["programs"][0]["inputs"].popitem()[1]),
               lambda c: c["programs"][0]["claims"].__setitem__(evil, "W_ih"), lambda c: c.__setitem__("text", evil)]
    for change in changes:
        certificate = json.loads(json.dumps(whole))
        change(certificate)
        path.write_text(json.dumps(certificate))
        cli.main(["prove", "--check", str(path)])
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err


def test_a_checkpoint_must_be_that_of_its_run(tmp_path):
    x = np.linspace(0, 1, 16).reshape(4, 2, 2)

    def fit(epochs=1):
        model = tr.nn.Sequential(tr.nn.GRU(2, 2, rng=0), tr.nn.Linear(2, 2, rng=0))
        return model.fit(x, x, loss="mse", optimizer=tr.optim.Adam(1e-2), epochs=epochs, resume=tmp_path, rng=0, progress=False,
                         backend="numpy", callbacks=[tr.train.EarlyStopping("loss")])

    fit()
    path = tmp_path / "checkpoint.safetensors"
    raw = path.read_bytes()

    def changed(change, seal=True):
        path.write_bytes(raw)
        arrays, metadata = read_weights(path)
        tree = json.loads(metadata["run"])
        change(arrays, tree)
        metadata["run"] = json.dumps(tree)
        if seal:
            metadata["sum"] = checksum(arrays, metadata["run"])
        write_weights(path, arrays, metadata)

    square = [k for k, a in read_weights(path)[0].items() if a.shape == (2, 2)]
    assert len(square) >= 3  # a weight, and what the optimiser remembers of it
    for name in square:
        changed(lambda arrays, tree, name=name: arrays.__setitem__(name, arrays[name].T.copy()), seal=False)
        with pytest.raises(LoadError, match="sum does not agree"):
            fit(2)
    for name, array in read_weights(path)[0].items():
        for other in (array.astype("int64"), array.reshape(*array.shape, 1), np.zeros(3)):
            if array.dtype == "float32":
                changed(lambda arrays, tree, name=name, other=other: arrays.__setitem__(name, other))
                with pytest.raises(LoadError):
                    fit(2)
    path.write_bytes(raw)
    assert len(fit(3).epochs) == 3


def test_a_run_with_numbers_of_numpy_in_its_history_goes_on(tmp_path):
    x = np.linspace(0, 1, 16).reshape(4, 2, 2)

    def note(epoch, numbers):
        numbers |= {"rate": np.float64(0.5), "single": np.float32(0.25), "count": np.int64(epoch), "word": "good", "row": np.ones(2)}

    def fit(epochs):
        model = tr.nn.Sequential(tr.nn.Linear(2, 2, rng=0))
        return model.fit(x, x, loss="mse", optimizer=tr.optim.SGD(1e-2), epochs=epochs, resume=tmp_path, rng=0, progress=False,
                         backend="numpy", callbacks=[note])

    fit(1)
    found = fit(3).epochs
    assert [e["count"] for e in found] == [1, 2, 3]
    assert found[0]["rate"] == 0.5
    assert isinstance(found[0]["rate"], float)


# ---- small things

@pytest.mark.parametrize("value", ["²", "٣", "-1", "0", "1.5", "two", ""])
def test_threads_that_are_no_number_are_refused_by_name(value, monkeypatch):
    monkeypatch.setenv("TINYRNN_THREADS", value)
    with pytest.raises(tr.errors.ArgumentError, match="TINYRNN_THREADS"):
        threads.default_threads()


@pytest.mark.parametrize("words", ["prove gru --seed -1", "prove gru --steps 0", "prove gru --batch -2", "prove gru --steps ²",
                                   "equivalent gru mgu --seed -1", "draw gru --steps 0", "page gru --steps -3",
                                   "xray gru --seed 1.5", "analyze gru --steps x"])
def test_numbers_on_the_command_line_are_refused_by_name(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words.split())
    assert stopped.value.code == 2
    assert f"argument {words.split()[-2]}: {words.split()[-1]!r}: expected a whole number from" in capsys.readouterr().err


def test_a_library_call_refuses_them_too():
    for wrong in ({"rng": -1}, {"rng": 1.5}, {"steps": 0}, {"batch": 0}):
        with pytest.raises(tr.errors.ArgumentError, match=f"{next(iter(wrong))}="):
            tr.prove(tr.cells.RNN, **wrong)
    with pytest.raises(tr.errors.ArgumentError, match="rng=-1"):
        tr.equivalent(tr.cells.RNN, tr.cells.RNN, rng=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-20, 1.0, 1e20, 1e160, 1e300])
def test_the_norm_of_gradients_of_any_size(size, dtype):
    if dtype == "float32" and not 1e-30 < size < 1e30:
        size = 1.0
    grads = {"a": np.array([3 * size, 0.0], dtype), "b": np.array([[4 * size]], dtype), "none": np.zeros((0, 2), dtype)}
    np.testing.assert_allclose(gradient_norm(grads), 5 * np.asarray(size, dtype).astype(float), rtol=1e-6)
    optimizer = tr.optim.SGD(1.0, clip_norm=size / 2)
    want = {"a": [0.3 * size, 0.0], "b": [[0.4 * size]], "none": np.zeros((0, 2))}
    compiled = tr.compile(lambda a, b, none: optimizer.clip({"a": a, "b": b, "none": none}))(**grads)
    for found in (optimizer.clip(grads), compiled):
        for k, v in want.items():
            np.testing.assert_allclose(found[k], v, rtol=1e-6, err_msg=k)


def test_the_norm_of_what_is_no_number():
    assert np.isnan(gradient_norm({"a": np.array([1.0, np.nan])}))
    assert gradient_norm({"a": np.array([1.0, np.inf])}) == inf
    assert gradient_norm({"a": np.zeros(2)}) == gradient_norm({}) == 0.0


@pytest.mark.parametrize("seed", range(40))
def test_extreme_cycles_are_those_of_an_enumeration(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    weights = {(i, j): int(rng.integers(-4, 9)) for i in range(n) for j in range(n) if rng.random() < 0.45}
    graph = nx.DiGraph(list(weights))
    cycles = [[*c, c[0]] for c in nx.simple_cycles(graph)]
    means = [np.mean([weights[edge] for edge in pairwise(c)]) for c in cycles]
    found = least_cycle_mean(weights, n)
    assert (found is None) == (not means)
    if means:
        assert float(found) == pytest.approx(min(means))


def test_the_loops_of_many_coupled_states_are_not_enumerated():
    """Twelve of them have more than a hundred million loops."""
    n = 12
    lines = [f"s{i}[t] = tanh({' + '.join(f'a{i}_{j} * s{j}[t-1]' for j in range(n))} + b{i} * mean(x[t]))" for i in range(n)]
    cell = tr.Cell("\n".join([*lines, f"outputs: {', '.join(f's{i}' for i in range(n))}"]))
    (found,) = tr.analyze(cell, steps=5).loops.values()
    assert found.recurrent_depth == found.shortest == 1


# ---- other processors

def test_code_of_a_lesser_machine_can_be_asked_for():
    code = ("import numpy as np, tinyrnn as tr\nfrom tinyrnn.backends.cpu.engine import host\n"
            "print(host().vector_bytes, tr.compile(lambda x: tr.tanh(x) @ x.T)(np.zeros((3, 5))).sum())")
    assert in_a_process(code, TINYRNN_TARGET="baseline").stdout.split() == ["16", "0.0"]
    assert "TINYRNN_TARGET='z80': expected avx2 or baseline" in in_a_process(code, TINYRNN_TARGET="z80").stderr


def test_generated_files_carry_rounded_numbers():
    """As many digits as are shown: more depend on the processor, the BLAS and the version of NumPy."""
    docs = Path(__file__).parents[1] / "docs"
    if not docs.is_dir():
        pytest.skip("not a checkout")
    files = [*docs.glob("extra/pages/*.html"), *docs.glob("*/images/*.svg"),
             *docs.glob("compiler/*.md"), *docs.glob("gallery/*.md")]
    assert len(files) > 50
    for path in files:
        for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", path.read_text(encoding="utf-8")):
            assert len(number.replace(".", "").lstrip("0")) <= 7, f"{path}: {number}"
