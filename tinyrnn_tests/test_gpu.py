"""The GPU as its users meet it: data that stay there, whole steps captured, streams, memory, errors.

All of it runs on a GPU where there is one, else on the stand-in for CuPy.
"""

import gc
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends import Backend
from tinyrnn.backends.cuda import graphs, lookups, rows
from tinyrnn.ir import Graph

from .graph_cases import LAYERS, runs_of, values_for
from .running_error import assert_equal_computations

pytestmark = pytest.mark.gpu
MODES = ("cuda:eager", "cuda")


@pytest.fixture
def cupy(gpu):
    """CuPy, or what stands in for it."""
    return sys.modules["cupy"] if gpu is not None else pytest.importorskip("cupy")


def training(backend, model=None, optimizer=None, **options):
    """A small run of `fit`: losses, and what became of the parameters."""
    rng = np.random.default_rng(0)
    model = model or tr.nn.Sequential(tr.nn.Embedding(11, 4, rng=0), tr.nn.LSTM(4, 6, rng=1), tr.nn.Dropout(0.3), tr.nn.Last(),
                                      tr.nn.Linear(6, 3, rng=2))
    x, y, lengths = rng.integers(0, 11, (13, 5)), rng.integers(0, 3, 13), rng.integers(1, 6, 13)
    history = model.fit(x, y, loss="cross_entropy", optimizer=optimizer or tr.optim.Adam(1e-2), epochs=3, batch_size=4,
                        lengths=lengths, metrics=("accuracy",), backend=backend, rng=0, progress=False, **options)
    return history, model


# ---- training

OPTIMISERS = {"sgd": lambda: tr.optim.SGD(0.1, momentum=0.9, clip_norm=0.5), "rmsprop": lambda: tr.optim.RMSprop(1e-2),
              "adam": lambda: tr.optim.Adam(1e-2, clip_value=0.1), "adamw": lambda: tr.optim.AdamW(1e-2),
              "adagrad": lambda: tr.optim.Adagrad(1e-2), "cosine": lambda: tr.optim.SGD(0.1, schedule=tr.optim.Cosine(9), weight_decay=0.01)}


@pytest.mark.parametrize("backend", MODES)
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_training_is_that_of_the_cpu(backend, optimizer, gpu):
    """The same batches, the same dropout, the same updates, to rounding."""
    expected, like = training("cpu", optimizer=OPTIMISERS[optimizer]())
    found, model = training(backend, optimizer=OPTIMISERS[optimizer]())
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)
    for k, p in like.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[k], p, rtol=2e-3, atol=2e-5, err_msg=k)


@pytest.mark.parametrize("backend", MODES)
@pytest.mark.parametrize("options", [{"accumulate": 2}, {"validation": None}, {"shuffle": False}])
def test_ways_to_train(backend, options, gpu):
    rng = np.random.default_rng(1)
    if "validation" in options:
        options = {"validation": (rng.integers(0, 11, (6, 5)), rng.integers(0, 3, 6), rng.integers(1, 6, 6))}
    expected, _ = training("cpu", **options)
    found, model = training(backend, **options)
    for a, b in zip(found.epochs, expected.epochs, strict=True):
        assert a.keys() == b.keys()
        for k in b.keys() - {"seconds"}:
            np.testing.assert_allclose(a[k], b[k], rtol=1e-4, err_msg=k)
    x = rng.integers(0, 11, (7, 5))
    np.testing.assert_allclose(model.predict(x, backend=backend), model.predict(x), rtol=1e-4, atol=1e-5)
    y = rng.integers(0, 3, 7)
    np.testing.assert_allclose(model.evaluate(x, y, backend=backend)["loss"], model.evaluate(x, y)["loss"], rtol=1e-4)


def test_streams_of_text_continue(gpu):
    rng, states = np.random.default_rng(0), []
    x = rng.normal(size=(2, 12, 3)).astype("f")
    for backend in ("cpu", "cuda"):
        model = tr.nn.LSTM(3, 4, rng=0)
        model.fit(x, rng.normal(size=(2, 12, 4)).astype("f") * 0, loss="mse", optimizer=tr.optim.SGD(0.1), epochs=2, batch_size=2,
                  tbptt=4, backend=backend, rng=0, progress=False)
        states.append(model.state_dict())
    for k in states[0]:
        np.testing.assert_allclose(states[1][k], states[0][k], rtol=1e-4, atol=1e-6)


def test_a_run_is_resumed_bit_for_bit(gpu, tmp_path):
    _, whole = training("cuda")
    rng = np.random.default_rng(0)
    x, y, lengths = rng.integers(0, 11, (13, 5)), rng.integers(0, 3, 13), rng.integers(1, 6, 13)
    for epochs in (1, 3):
        model = tr.nn.Sequential(tr.nn.Embedding(11, 4, rng=0), tr.nn.LSTM(4, 6, rng=1), tr.nn.Dropout(0.3), tr.nn.Last(),
                                 tr.nn.Linear(6, 3, rng=2))
        model.fit(x, y, loss="cross_entropy", optimizer=tr.optim.Adam(1e-2), epochs=epochs, batch_size=4, lengths=lengths,
                  metrics=("accuracy",), backend="cuda", rng=0, progress=False, resume=tmp_path / "run")
    for k, p in whole.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[k], p, err_msg=k)


def test_parameters_stay_on_the_device_and_are_there_when_they_are_read(gpu):
    W = tr.parameter(np.ones((2, 3), "f"), name="W")

    @tr.compile(backend="cuda")
    def step(x):
        W.assign(W - 0.5 * x)
        return (W * x).sum()

    x = np.arange(6, dtype="f").reshape(2, 3)
    for k in range(1, 5):
        step(x)
        assert W.node.at[0]._data is None, "the data came to the host though nobody asked"
        if k % 2 == 0:
            np.testing.assert_array_equal(W.numpy(), 1 - 0.5 * k * x)
    W.assign(np.zeros((2, 3)))
    step(x)
    np.testing.assert_array_equal(W.numpy(), -0.5 * x)
    assert (tr.compile(lambda: W * 2)() == -x).all(), "the CPU sees what the GPU wrote"


def test_dropout_draws_the_same_masks(gpu):
    """Which units were blanked shows in which weights got a gradient: the same on every backend."""
    moved = []
    for backend in ("numpy", "cpu", *MODES):
        model = tr.nn.Sequential(tr.nn.Linear(4, 50, rng=0), tr.nn.Dropout(0.5))
        before = model.state_dict()
        model.fit(np.ones((3, 4), "f"), np.zeros((3, 50), "f"), loss="mse", optimizer=tr.optim.SGD(0.1), epochs=1, batch_size=1,
                  backend=backend, rng=3, progress=False)
        moved.append({k: v != before[k] for k, v in model.state_dict().items()})
    assert 0 < moved[0]["layers.0.weight"].mean() < 1
    for other in moved[1:]:
        for k, v in moved[0].items():
            np.testing.assert_array_equal(other[k], v, err_msg=k)


# ---- arrays in and out

@pytest.mark.parametrize("backend", MODES)
def test_arrays_of_the_device_come_and_go_without_the_host(backend, cupy):
    double = tr.compile(lambda x: {"y": x * 2, "n": x.sum()}, backend=backend)
    host = np.arange(6.0).reshape(2, 3)
    for _ in range(3):
        assert isinstance(double(host)["y"], np.ndarray)
        found = double(cupy.asarray(host))
        assert isinstance(found["y"], cupy.ndarray)
        assert found["y"].shape == (2, 3)
        np.testing.assert_array_equal(cupy.asnumpy(found["y"]), 2 * host)
        assert float(found["n"]) == 15.0


def test_tensors_live_on_the_device(cupy):
    there = cupy.asarray(np.arange(6.0).reshape(2, 3))
    x = tr.tensor(there, name="x", backend="cuda")
    assert x.backend == "cuda"
    assert x.held().data.ptr == there.data.ptr, "taken without a copy"
    y = tr.tanh(x @ tr.tensor(np.ones((3, 2)))).sum()
    assert y.backend == "cuda"
    assert tr.tensor(1.0).backend == "numpy"
    np.testing.assert_allclose(float(y), np.tanh(np.arange(6.0).reshape(2, 3) @ np.ones((3, 2))).sum())
    z = x * 3
    assert z.__dlpack_device__()[0] == 2
    given = cupy.from_dlpack(z)
    assert given.data.ptr == z.held().data.ptr, "given without a copy"
    np.testing.assert_array_equal(cupy.asnumpy(given), 3 * np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(z.numpy(), 3 * np.arange(6.0).reshape(2, 3))
    assert "0., 1., 2." in repr(x)
    W = tr.parameter(there, name="W", backend="cuda")
    assert W.held().data.ptr != there.data.ptr, "a parameter has data of its own"
    (W * x).sum().backward()
    np.testing.assert_array_equal(W.grad, np.arange(6.0).reshape(2, 3))
    W.assign(W.numpy() + 1)
    np.testing.assert_array_equal(W.numpy(), np.arange(6.0).reshape(2, 3) + 1)
    np.testing.assert_array_equal(cupy.asnumpy(there), np.arange(6.0).reshape(2, 3))
    with pytest.raises(tr.TinyRNNError, match="only 'cuda' takes options"):
        tr.tensor(1.0, backend="numpy:fast")


def test_single_numbers_of_the_device(cupy):
    """CuPy makes an axis where there is none; a number stays a number, and the caller's is not written to."""
    there = cupy.asarray(np.array(3.0))
    t, W = tr.tensor(there, backend="cuda"), tr.parameter(there, backend="cuda")
    assert t.shape == t.numpy().shape == W.numpy().shape == ()
    assert float(t * 2) == 6.0
    step = tr.compile(lambda x: (W.assign(W - x), W * x)[1], backend="cuda")
    for k in range(3):
        assert step(there).shape == ()
        assert float(W.numpy()) == 3.0 - 3.0 * (k + 1)
    assert float(there) == 3.0


def test_arrays_of_the_device_in_training_and_loading(cupy):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4, 3)).astype("f"), rng.normal(size=(6, 4, 5)).astype("f")
    model = tr.nn.LSTM(3, 5, rng=0)
    model.fit(cupy.asarray(x), cupy.asarray(y), loss="mse", optimizer=tr.optim.SGD(0.1), epochs=1, backend="cuda", progress=False)
    np.testing.assert_allclose(model.predict(cupy.asarray(x), backend="cuda"), model.predict(x), rtol=1e-4, atol=1e-6)
    other = tr.nn.LSTM(3, 5, rng=1)
    other.load_state_dict({k: cupy.asarray(v) for k, v in model.state_dict().items()})
    np.testing.assert_array_equal(other.weight_hh_l0.numpy(), model.weight_hh_l0.numpy())


def test_what_has_no_kernel_runs_on_the_interpreter(cupy):
    whole = tr.tensor(np.arange(4).reshape(2, 2), dtype="int64", backend="cuda")
    with pytest.warns(tr.FallbackWarning, match="runs on the interpreter"):
        np.testing.assert_array_equal((whole @ whole).numpy(), [[2, 3], [6, 11]])
    program = tr.compile(lambda a: a @ a, backend="cuda")
    with pytest.warns(tr.FallbackWarning, match="runs on the interpreter"):
        found = program(cupy.asarray(np.arange(4).reshape(2, 2)))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(found), [[2, 3], [6, 11]])


def test_where_tensors_live(cupy):
    t = tr.tensor([1.0, 2.0], backend="cuda")
    assert (t * 2).detach().backend == t.detach().backend == "cuda"
    W = tr.parameter([1.0], backend="cuda")
    old = W.detach()
    tr.compile(lambda: W.assign(W + 1), backend="cuda")()
    assert (float(old), float(W)) == (1.0, 2.0)
    with pytest.raises(tr.TinyRNNError, match="a tensor lives on 'numpy' or 'cuda'"):
        tr.tensor(1.0, backend="cuda:tf32")
    for bad in ("gpu", "cpu:tf32", 3, None):
        with pytest.raises(tr.TinyRNNError):
            tr.compile(lambda x: x, backend=bad)
        with pytest.raises(tr.TinyRNNError, match="there is no backend"):
            Graph({"y": t * 1}).run({}, backend=bad)


def test_text_is_generated_on_the_device(gpu):
    model = tr.nn.Sequential(tr.nn.Embedding(7, 4, rng=0), tr.nn.GRU(4, 5, rng=1), tr.nn.Linear(5, 7, rng=2))
    found = [model.generate([1, 2], 6, rng=0, backend=b) for b in ("cpu", "cuda")]
    np.testing.assert_array_equal(*found)


def test_what_was_borrowed_is_never_written(cupy):
    there = cupy.asarray(np.ones(3, "f"))
    t = tr.tensor(there, backend="cuda")
    step = tr.compile(lambda x: (t.assign(t + x), (t * x).sum())[1], backend="cuda")
    for _ in range(3):
        step(np.ones(3, "f"))
    np.testing.assert_array_equal(t.numpy(), [4, 4, 4])
    np.testing.assert_array_equal(cupy.asnumpy(there), [1, 1, 1])


@pytest.mark.parametrize("backend", MODES)
def test_arrays_of_every_kind(backend, cupy):
    """Non-contiguous, read-only, of other dtypes, empty: what NumPy takes."""
    program = tr.compile(lambda x: (x.sum(), x[::-1] if x.shape[0] else x, x.T), backend=backend)
    base = np.arange(24).reshape(4, 6)
    frozen = base.astype("f")
    frozen.flags.writeable = False
    for x in (base[::2, 1:4].astype("f")[:, ::-1], base.T.astype("d"), frozen, base.astype("i4"), base.astype("u1"), base % 2 == 0,
              np.zeros((0, 3)), np.zeros((2, 0), "f"), np.asfortranarray(base.astype("f"))):
        for given in (x, cupy.asarray(x)):
            for _ in range(2):
                total, turned, across = (cupy.asnumpy(a) for a in program(given))
                np.testing.assert_array_equal(total, x.sum())
                np.testing.assert_array_equal(turned, x[::-1])
                np.testing.assert_array_equal(across, x.T)


def test_results_belong_to_the_caller(cupy):
    double = tr.compile(lambda x: x * 2, backend="cuda")
    kept = [(k, double(np.full(3, k, "f")), double(cupy.asarray(np.full(3, k, "f")))) for k in range(4)]
    for k, host, there in kept:
        np.testing.assert_array_equal(host, 2 * k)
        np.testing.assert_array_equal(cupy.asnumpy(there), 2 * k)


# ---- precision

@pytest.mark.parametrize(("mode", "low", "high"), [("cuda", 0, 1e-5), ("cuda:tf32", 1e-6, 2e-3), ("cuda:bf16", 1e-4, 2e-2),
                                                   ("cuda:eager,tf32", 1e-6, 2e-3)])
@pytest.mark.parametrize("sizes", [(40, 40, 40), (64, 512, 256)])  # the second is large enough for tensor cores
def test_products_are_as_exact_as_was_asked(mode, low, high, sizes, gpu):
    rng, (m, k, n) = np.random.default_rng(0), sizes
    a, b = rng.normal(size=(m, k)).astype("f"), rng.normal(size=(k, n)).astype("f")
    product = tr.compile(lambda a, b: a @ b, backend=mode)
    true = a.astype("d") @ b.astype("d")
    for _ in range(2):
        off = np.linalg.norm(product(a, b) - true) / np.linalg.norm(true)
        assert low <= off < high, off
    assert np.linalg.norm(product(a.astype("d"), b.astype("d")) - true) < 1e-14 * np.linalg.norm(true)


def test_modes_that_do_not_exist():
    for options in ("fast", "tf32,bf16", "eager,slow", "tf32,tf32", "eager,eager", ","):
        with pytest.raises(tr.TinyRNNError, match="expected eager, tf32 or bf16 behind the colon"):
            Backend.of(f"cuda:{options}")


# ---- graphs

def test_the_second_run_is_one_launch(no_gpu):
    """A whole training step: one graph, one copy in, one copy out."""
    layer = tr.nn.LSTM(3, 4, rng=0)
    parameters = dict(layer.named_parameters())
    momentum = {k: tr.tensor(np.zeros(p.shape, "f")) for k, p in parameters.items()}

    @tr.compile(backend="cuda")
    def step(x):
        y, _ = layer(x)
        loss = (y * y).mean()
        for k, g in tr.grad(loss, parameters).items():
            momentum[k].assign(0.9 * momentum[k] + g)
            parameters[k].assign(parameters[k] - 0.1 * momentum[k])
        return loss

    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("f")
    losses = [float(step(x))]
    assert no_gpu.Graph.alive == 0
    losses += [float(step(x)) for _ in range(4)]
    assert no_gpu.Graph.alive == 1
    assert all(b < a for a, b in pairwise(losses)), losses
    (captured,) = graphs.CAPTURED._kept.values()
    assert captured.graph.nodes > 6 * 4


def test_a_shape_has_a_graph_and_graphs_are_bounded(no_gpu, monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 3)
    double = tr.compile(lambda x: x * 2, backend="cuda")
    for n in range(1, 8):
        for _ in range(2):
            np.testing.assert_array_equal(double(np.arange(n, dtype="f")), 2 * np.arange(n))
    gc.collect()
    assert len(graphs.CAPTURED) == 3
    assert no_gpu.Graph.alive == 3
    np.testing.assert_array_equal(double(np.arange(1, dtype="f")), [0])


def test_a_graph_outlives_what_made_it(no_gpu):
    def made():
        W = tr.parameter(np.arange(3.0), name="W")
        program = tr.compile(lambda x: (W * x).sum(), backend="cuda")
        for _ in range(2):
            assert float(program(np.ones(3))) == 3.0

    made()
    gc.collect()
    (captured,) = graphs.CAPTURED._kept.values()
    assert captured.executable() is None
    captured.inputs.here[captured.given[0]][:] = 2.0
    captured.inputs.copy(graphs.TO_DEVICE, captured.stream)
    captured.graph.launch(captured.stream)
    captured.outputs.copy(graphs.TO_HOST, captured.stream)
    captured.stream.synchronize()
    assert captured.outputs.here[captured.outputs.buffers[1]][0] == 6.0


def test_memory_comes_back(no_gpu):
    def once():
        W = tr.parameter(np.ones(50), name="W")
        program = tr.compile(lambda x: (W * x).sum(), backend="cuda")
        for _ in range(3):
            program(np.ones(50))

    def held():
        graphs.CAPTURED.clear()
        gc.collect()
        no_gpu.Stream.null.synchronize()
        return no_gpu.LIB.fake_blocks()

    once()
    before = held()
    for _ in range(5):
        once()
    assert held() <= before + 1


def test_an_index_outside_leaves_everything_as_it_was(gpu):
    """Eager and captured: the step runs to its end on the device, and changes nothing."""
    table = tr.parameter(np.ones((3, 2)), name="table")

    @tr.compile(backend="cuda")
    def step(index):
        loss = tr.gather(table, index).sum()
        table.assign(table - tr.grad(loss, table))
        return loss

    for k in range(4):
        with pytest.raises(tr.TinyRNNError, match="index 7 is outside an axis of size 3: expected 0 to 2"):
            step(np.array([0, 7, -3]))
        np.testing.assert_array_equal(table.numpy(), [[1.0 - k] * 2, [1, 1], [1, 1]])
        step(np.array([0, 0, 0])[:1].repeat(3) * 0)
        table.assign([[1.0 - k - 1] * 2, [1, 1], [1, 1]])


# ---- streams and threads

def test_two_streams(cupy):
    """Each has a graph and memory of its own; what one computes does not depend on the other."""
    layer = tr.nn.GRU(3, 5, rng=0)
    program = tr.compile(lambda x: layer(x)[0], backend="cuda")
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(2, 4, 3)).astype("f") for _ in range(2)]
    expected = [tr.compile(lambda x: layer(x)[0])(a) for a in x]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    found = []
    for turn in range(4):
        for stream, a in zip(streams, x, strict=True):
            with stream:
                found.append((turn, stream, program(cupy.asarray(a))))
    for i, (_, stream, y) in enumerate(found):
        with stream:
            np.testing.assert_allclose(cupy.asnumpy(y), expected[i % 2], rtol=1e-5, atol=1e-6)


def test_a_stream_waits_for_what_another_wrote(cupy):
    W = tr.parameter(np.zeros(4, "f"), name="W")
    add = tr.compile(lambda x: (W.assign(W + x), W.sum())[1], backend="cuda")
    read = tr.compile(lambda: W * 1, backend="cuda")
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    for k in range(1, 5):
        with first:
            add(cupy.asarray(np.ones(4, "f")))
        with second:
            np.testing.assert_array_equal(read(), k)
    np.testing.assert_array_equal(W.numpy(), 4)


def test_two_models_train_at_once(gpu):
    alone = [training("cuda", optimizer=tr.optim.SGD(rate))[1].state_dict() for rate in (0.1, 0.2)]
    found, errors = {}, []

    def work(i, rate):
        try:
            found[i] = training("cuda", optimizer=tr.optim.SGD(rate))[1].state_dict()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i, rate)) for i, rate in enumerate((0.1, 0.2))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
    for i, state in enumerate(alone):
        for k, p in state.items():
            np.testing.assert_array_equal(found[i][k], p, err_msg=k)


def test_a_stream_that_is_being_captured_is_refused(cupy):
    program = tr.compile(lambda x: x * 2, backend="cuda")
    program(np.ones(3))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(tr.TinyRNNError, match="this stream is being captured"):
            program(np.ones(3))
        stream.end_capture()


def test_a_writer_waits_for_readers_on_other_streams(cupy):
    """What a stream still reads is not overwritten, neither by an update nor by `assign`."""
    W = tr.parameter(np.zeros(4, "f"), name="W")
    read = tr.compile(lambda x: W * x, backend="cuda")
    add = tr.compile(lambda x: (W.assign(W + x), x.sum())[1], backend="cuda")
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    one = cupy.asarray(np.ones(4, "f"))
    cupy.cuda.get_current_stream().synchronize()
    for k in range(4):
        with first:
            y = read(one)
        with second:
            add(one)
            second.synchronize()
        with first:
            np.testing.assert_array_equal(cupy.asnumpy(y), k)
            y = read(one)
        with second:
            W.assign(np.full(4, 99.0))
            read(one)
            second.synchronize()
        with first:
            np.testing.assert_array_equal(cupy.asnumpy(y), k + 1)
        W.assign(np.full(4, k + 1.0))


def test_another_gpu_is_refused(no_gpu, monkeypatch):
    program = tr.compile(lambda x: x * 2, backend="cuda")
    program(np.ones(3))
    monkeypatch.setattr(no_gpu._Device, "__init__", lambda self, number=1: setattr(self, "id", 1))
    with pytest.raises(tr.TinyRNNError, match="made on GPU 0, the current device is 1: make it anew"):
        program(np.ones(3))


# ---- memory

def test_out_of_memory_says_what_for_and_changes_nothing(no_gpu):
    W = tr.parameter(np.ones((64, 64), "f"), name="W")

    def step(x):
        loss = tr.tanh(x @ W).sum()
        W.assign(W - tr.grad(loss, W))
        return loss

    small, large = np.ones((2, 64), "f"), np.ones((4000, 64), "f")
    for runs in (0, 2):  # eager, and when the plan of another size is captured
        graphs.CAPTURED.clear()
        program = tr.compile(step, backend="cuda")
        for _ in range(runs):
            program(small)
        before = W.numpy()
        with no_gpu.little_memory(300_000), \
                pytest.raises(tr.TinyRNNError, match=r"out of memory on the GPU: .* needs [\d.]+ [KM]iB, .* are free; the plan needs "
                              r".* for values on the way, of which the largest are \w+ .*Nothing was changed"):
            program(large)
        np.testing.assert_array_equal(W.numpy(), before)
        assert np.isfinite(float(program(large)))


def test_no_room_for_results_changes_nothing(no_gpu):
    """Memory is taken before anything is launched: a step that fails for want of it was not done, and is not done twice."""
    cupy = sys.modules["cupy"]
    W = tr.parameter(np.zeros(50_000, "f"), name="W")
    step = tr.compile(lambda x: (W.assign(W + x), W * x)[1], backend="cuda")
    one = cupy.asarray(np.ones(50_000, "f"))
    kept = [step(one), step(one)]
    with no_gpu.little_memory(1000), pytest.raises(tr.TinyRNNError, match="out of memory on the GPU: the output 'result 0'"):
        step(one)
    np.testing.assert_array_equal(W.numpy(), 2)
    np.testing.assert_array_equal(cupy.asnumpy(step(one)), 3)
    assert len(kept) == 2


def test_a_capture_that_is_broken_off_leaves_no_graph(no_gpu, monkeypatch):
    program = tr.compile(lambda x: tr.tanh(x * 2).sum() + x, backend="cuda")
    x = np.arange(3.0)
    expected = program(x)
    plain = graphs.launch

    def interrupted(work):
        plain(work[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(graphs, "launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program(x)
    monkeypatch.setattr(graphs, "launch", plain)
    np.testing.assert_array_equal(program(x), expected)


def test_graphs_of_other_shapes_make_room(no_gpu):
    """What does not fit beside the graphs that are kept does fit without them."""
    double = tr.compile(lambda x: (tr.tanh(x) @ x.T).sum(), backend="cuda")
    for n in (300, 310):
        for _ in range(2):
            double(np.ones((n, 300), "f"))
    assert len(graphs.CAPTURED) == 2
    with no_gpu.little_memory(500_000):
        for _ in range(2):
            np.testing.assert_allclose(double(np.ones((320, 300), "f")), 320 * 320 * 300 * np.tanh(1), rtol=1e-4)
    assert len(graphs.CAPTURED) < 3


def test_nothing_is_read_before_it_was_written(no_gpu):
    """The stand-in's memory starts as NaN, so whatever a plan leaves out shows in its results."""
    for name, make in LAYERS.items():
        layer = make(dtype="float32")
        x = tr.input("x", (2, 5, 3), "float32")
        y, _ = layer(x)
        graph = Graph({"y": y, **{f"d{k}": g for k, g in tr.grad((y * y).sum(), dict(layer.named_parameters())).items()}})
        for found in runs_of("cuda", graph, values_for(graph)):
            assert all(np.isfinite(v).all() for v in found.values()), name


# ---- kernels

def test_long_and_wide_reductions(gpu):
    """Every way in which rows are shared among threads and blocks."""
    for shape in ((1, 20_000), (3, 17_000), (70, 300), (3, 70), (200, 5), (1, 1), (2, 33), (5, 2000), (0, 4), (4, 0)):
        x = tr.input("x", shape, "float32")
        soft = {} if 0 in shape else {"softmax": tr.softmax(x), "largest": x.max(1), "least": abs(x).min(), "norm": tr.layer_norm(x)}
        graph = Graph({"sum": x.sum(), "rows": (x * 2).sum(1), "columns": (x * x).sum(0), "mean": x.mean() if 0 not in shape else x,
                       **soft})
        values = values_for(graph)
        for found in runs_of("cuda", graph, values):
            assert_equal_computations(graph, found, values)


def test_sums_of_columns_of_many_rows(gpu):
    for shape in ((5000, 3), (700, 40), (300, 1), (2, 3, 4), (40, 50, 3)):
        x = tr.input("x", shape, "float64")
        graph = Graph({"y": tr.sin(x).sum(tuple(range(len(shape) - 1)))})
        values = values_for(graph)
        for found in runs_of("cuda", graph, values):
            assert_equal_computations(graph, found, values)


def test_embeddings_add_up_in_order(gpu):
    """The gradient of a table, with many indices alike, the same in every run."""
    rng = np.random.default_rng(0)
    for count, size, width in ((700, 5, 3), (300, 400, 70), (1, 1, 1), (0, 3, 2)):
        table, index = tr.input("table", (size, width), "float32"), tr.input("index", (count,), "int64")
        looked = tr.gather(table, index)
        graph = Graph({"d": tr.grad((looked * looked).sum(), table)})
        values = {"table": rng.normal(size=(size, width)).astype("f"), "index": rng.integers(0, size, count)}
        first, second = runs_of("cuda", graph, values)
        np.testing.assert_array_equal(first["d"], second["d"])
        expected = np.zeros((size, width))
        np.add.at(expected, values["index"], 2 * values["table"][values["index"]].astype("d"))
        np.testing.assert_allclose(first["d"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "axis"), [((200_000,), None), ((100_000, 2), 0), ((2, 100_000), 1), ((40_000, 5), (0, 1))])
def test_sums_of_many_numbers(gpu, shape, axis):
    """In one kernel and in two, along rows and down columns: float32 numbers are added in float64."""
    x = np.full(shape, np.float32(0.1))
    found = tr.compile(lambda x: (tr.sum(x, axis), tr.mean(x, axis), tr.cumsum(tr.reshape(x, (-1,)))[-1]), backend="cuda")(x)
    count = x.size if axis is None else np.prod([shape[i] for i in np.atleast_1d(axis)])
    for value, right in zip(found, (count * float(x.flat[0]), float(x.flat[0]), x.size * float(x.flat[0])), strict=True):
        np.testing.assert_allclose(np.asarray(value), right, rtol=2e-7)


def test_grids_stay_within_what_hardware_takes():
    class Program:
        rank, columns, reduces, loads, steps, stores, stages, stored = 1, False, False, (), (), (), [], []

    for n, inner in ((10_000_000, 1), (1, 10**9), (70_000, 300)):
        call = type("Call", (), {"key": (Program(),), "sizes": (inner,), "extent": n, "family": "rows"})
        for launch in rows.launches(call):
            assert launch.grid[0] < 2**31
            assert launch.grid[1] <= 65_535
            assert launch.block[0] * launch.block[1] <= 1024
    assert lookups._spread("", 10**10)[0].grid[0] < 2**31
