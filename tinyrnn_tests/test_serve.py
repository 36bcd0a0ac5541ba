"""Models in use: streams, programs that a model keeps, one model in many threads."""

import copy
import gc
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cpu import kept as kept_memory
from tinyrnn.backends.cpu import threads
from tinyrnn.serve.kept import programs_of
from tinyrnn.tensor.compile import Program

RNG = np.random.default_rng(22)


class Tagger(tr.nn.Module):
    """A model of one's own that keeps its states to itself."""

    def __init__(self, dtype="float32"):
        self.embed = tr.nn.Embedding(9, 5, dtype=dtype, rng=0)
        self.below, self.above = tr.nn.LSTM(5, 7, dtype=dtype, rng=1), tr.nn.GRU(7, 4, dtype=dtype, rng=2)
        self.head = tr.nn.Linear(11, 3, dtype=dtype, rng=3)

    def example(self, batch, *steps):
        return self.embed.example(batch, *steps)

    def __call__(self, x, lengths=None):
        h, _ = self.below(self.embed(x), lengths=lengths)
        g, _ = self.above(h, lengths=lengths)
        return self.head(tr.concat([h, g]))


class Carried(Tagger):
    """The same with an argument state."""

    def __call__(self, x, state=None):
        below, above = (None, None) if state is None else state
        h, below = self.below(self.embed(x), below)
        g, above = self.above(h, above)
        return self.head(tr.concat([h, g])), (below, above)


class Stepped(Tagger):
    """The same with a step of its own."""

    def step(self, x, state=None):
        below, above = (None, None) if state is None else state
        h, below = self.below.step(self.embed(x), below)
        g, above = self.above.step(h, above)
        return self.head(tr.concat([h, g])), (below, above)


def headed(dtype="float32"):
    return tr.nn.Sequential(tr.nn.Embedding(9, 6, dtype=dtype, rng=0), tr.nn.LSTM(6, 8, num_layers=2, dropout=0.3, dtype=dtype, rng=1),
                            tr.nn.Dropout(0.2), tr.nn.LayerNorm(8, dtype=dtype), tr.nn.Linear(8, 4, dtype=dtype, rng=2))


MODELS = {
    "LSTM": lambda d: tr.nn.LSTM(5, 33, num_layers=2, dtype=d, rng=0), "GRU": lambda d: tr.nn.GRU(5, 17, dtype=d, rng=0),
    "RNN": lambda d: tr.nn.RNN(5, 70, nonlinearity="relu", dtype=d, rng=0), "projection": lambda d: tr.nn.LSTM(5, 20, proj_size=6, dtype=d, rng=0),
    "learned start": lambda d: tr.nn.GRU(5, 9, learn_state=True, zoneout=0.1, dtype=d, rng=0), "headed": headed,
    "classifier": lambda d: tr.nn.Sequential(tr.nn.GRU(5, 9, dtype=d, rng=0), tr.nn.Last(), tr.nn.Linear(9, 3, dtype=d, rng=1)),
    "time first": lambda d: tr.nn.LSTM(5, 9, batch_first=False, dtype=d, rng=0),
    "own": Tagger, "own with state": Carried, "own with a step": Stepped,
    **{name: lambda d, name=name: tr.nn.Recurrent(name, dtype=d, rng=0, **dict(zip(tr.cells[name].sizes, (5, 12, 7), strict=False)))
       for name in ("mgu", "gru_reset_before", "lstm_peephole", "indrnn", "lstm_projection")},
    "lags": lambda d: tr.nn.Recurrent(tr.Cell("inputs: x\nh[t] = tanh(W @ h[t-1] + U @ h[t-2] + V @ x[t-1] + b)"), x=5, h=8, dtype=d, rng=0),
    "normed": lambda d: tr.nn.Recurrent(tr.Cell("h[t] = tanh(layer_norm(W @ h[t-1] + V @ x[t]) * g + b)"), x=5, h=21, dtype=d, rng=0),
    "matrix": lambda d: tr.nn.Recurrent(tr.Cell("k[t] = W @ x[t]\nC[t] = 0.9 * C[t-1] + outer(k[t], k[t])\nh[t] = tanh(C[t] @ k[t])"),
                                        dtype=d, rng=0, x=5, C_rows=4),
}


def sequence_for(model, batch, steps):
    x = model.example(batch, steps)
    return RNG.normal(size=x.shape).astype(x.dtype) if x.dtype.kind == "f" else RNG.integers(0, 9, x.shape)


def alike(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def whole_of(model, x):
    """The model's output for a sequence, by the program of `predict`."""
    if model.reads_time_first():
        return tr.compile(lambda x: model.eval()(x)[0])(x)
    return model.predict(x)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_chunks_and_the_whole_sequence_have_the_same_bits(name, dtype, batch):
    model, steps = MODELS[name](dtype), 11
    if name == "matrix" and batch == 2:
        batch = 3
    x = sequence_for(model, batch, steps)
    axis = 0 if model.reads_time_first() else 1
    whole, s = whole_of(model, x), model.stream(batch)
    cut = [np.take(x, t, axis) for t in range(steps)]
    found = [s(c) for c in cut]
    timed = whole.ndim == found[0].ndim + 1
    for t in range(steps if timed else 0):
        assert alike(found[t], np.take(whole, t, axis)), t
    assert alike(found[-1], np.take(whole, -1, axis) if timed else whole)
    after = s.state
    s.reset()
    for first, last in ((0, 1), (1, 4), (4, 4), (4, 9)):
        piece = s(x[first:last] if axis == 0 else x[:, first:last])
        if timed:
            assert alike(piece, whole[first:last] if axis == 0 else whole[:, first:last])
    for t in (9, 10):
        y = s(cut[t])
    assert alike(y, found[-1])
    for a, b in zip(tr.trees.flatten(s.state)[0], tr.trees.flatten(after)[0], strict=True):
        assert alike(a, b)


def test_the_state_is_in_the_form_of_the_models_own():
    x = RNG.normal(size=(3, 5, 4)).astype("float32")
    layer = tr.nn.LSTM(4, 6, num_layers=2, rng=0).eval()
    s = layer.stream(3)
    s(x)
    _, (h, c) = layer(x)
    assert isinstance(s.state, tuple)
    np.testing.assert_allclose(s.state[0], h.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(s.state[1], c.numpy(), rtol=1e-5, atol=1e-6)
    before = s.state
    first = s(x[:, 0])
    s.state = before
    assert alike(s(x[:, 0]), first)
    s.state = None
    assert not s.state[0].any()
    for wrong, error in ((before[:1], r"expected \(\., \.\)"), ((before[0], before[1][:, :2]), r"the state holds float32\[2,3,6\]"),
                         (3, "expected")):
        with pytest.raises(tr.TinyRNNError, match=error):
            s.state = wrong


def test_states_are_saved_and_taken_up_elsewhere(tmp_path):
    model, x = headed(), RNG.integers(0, 9, (2, 8))
    s = model.stream(2)
    s(x[:, :5])
    leaves, form = tr.trees.flatten(s.state)
    np.savez(tmp_path / "state.npz", *leaves)
    model.save(tmp_path / "model.safetensors")
    other = tr.load(tmp_path / "model.safetensors").stream(2)
    with np.load(tmp_path / "state.npz") as file:
        other.state = form([file[k] for k in file])
    assert alike(other(x[:, 5:]), s(x[:, 5:]))


@pytest.mark.parametrize("name", ["LSTM", "learned start", "own", "own with state", "lags"])
def test_rows_begin_anew(name):
    model = MODELS[name]("float32")
    for p in model.parameters():  # a start that is not zero
        p.assign(p.numpy() + 0.1)
    x = sequence_for(model, 4, 6)
    for rows in ([1, 3], np.array([False, True, False, True]), slice(1, None, 2), 1):
        s, fresh = model.stream(4), model.stream(4)
        s(x[:, :3])
        kept = s.copy()
        s.reset(rows)
        y, old, new = s(x[:, 3]), kept(x[:, 3]), fresh(x[:, 3])
        chosen = np.isin(np.arange(4), np.arange(4)[rows])
        assert alike(y[chosen], new[chosen])
        assert alike(y[~chosen], old[~chosen])
    with pytest.raises(tr.TinyRNNError, match="expected rows of 4"):
        s.reset([4])
    with pytest.raises(tr.TinyRNNError, match="expected rows of 4"):
        s.reset("all")


def test_a_copy_goes_its_own_way():
    model, x = tr.nn.GRU(3, 5, rng=0), RNG.normal(size=(1, 9, 3)).astype("float32")
    s = model.stream()
    s(x[:, 0])
    other = copy.copy(s)
    a, b = s(x[:, 1]), other(x[:, 1])
    assert alike(a, b)
    s(x[:, 2])
    assert alike(other(x[:, 5]), model.predict(x[:, [0, 1, 5]])[:, -1])


def test_what_a_step_may_be():
    layer = tr.nn.GRU(3, 5, rng=0)
    x = RNG.normal(size=(1, 4, 3))
    expected = layer.predict(x.astype("float32"))[0]
    s = layer.stream()
    assert alike(s(x[0, 0]), expected[0])                      # one row without its axis, float64
    assert alike(s(x[:, 1].tolist()), expected[1:2])           # lists
    assert alike(s(tr.tensor(x[:, 2])), expected[2:3])         # tensors
    assert alike(s(x[:, 3].astype(">f4")), expected[3:4])      # bytes the other way round
    words = tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.GRU(4, 5, rng=0)).stream()
    assert words(3).shape == (5,)
    assert words(np.int32(3)).shape == (5,)
    assert words(np.array([3], np.uint8)).shape == (1, 5)


def test_inputs_and_outputs_in_another_dtype():
    layer, x = tr.nn.GRU(3, 5, rng=0), RNG.normal(size=(2, 4, 3))
    s = layer.stream(2, dtype="float64")
    y = s(x[:, 0])
    assert y.dtype == "float64"
    assert alike(y.astype("float32"), layer.predict(x)[:, 0])
    assert s(x[:, 1:]).dtype == "float64"
    with pytest.raises(tr.TinyRNNError, match="takes and gives floating numbers"):
        layer.stream(dtype="int64")


def test_out_is_filled_and_nothing_is_allocated():
    layer = tr.nn.LSTM(16, 64, rng=0)
    s, x, out = layer.stream(), RNG.normal(size=(1, 16)).astype("float32"), np.empty((1, 64), "float32")
    plain = layer.stream()
    for _ in range(4):
        assert s(x, out=out) is out
        assert alike(out, plain(x))
    tracemalloc.start()
    try:
        for _ in range(50):
            s(x, out=out)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(1000):
            s(x, out=out)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 256  # nothing stays
    assert peak - before < 1024  # and nothing as large as the output (256 bytes of numbers and its header) comes with each step
    for wrong in (np.empty(64, "float32"), np.empty((1, 63), "float32"), [0.0]):
        with pytest.raises(tr.TinyRNNError, match=r"out is to be an array \[1,64\]|out is"):
            s(x, out=wrong)
    fixed = np.empty((1, 64), "float32")
    fixed.flags.writeable = False
    state = s.state
    for wrong, message in ((np.empty((1, 64), "int64"), "out is int64, the output float32"), (fixed, "may not be written to")):
        with pytest.raises(tr.TinyRNNError, match=message):
            s(x, out=wrong)
        with pytest.raises(tr.TinyRNNError, match="out"):
            s(np.stack([x, x], 1), out=wrong)
    assert all(map(alike, s.state, state))  # the step was not taken


def test_a_step_returns_an_array_of_its_own():
    s = tr.nn.GRU(3, 4, rng=0).stream()
    x = np.ones((1, 3), "float32")
    first = s(x)
    kept = first.copy()
    s(x)
    assert alike(first, kept)
    first[:] = 9
    s.state[0][:] = 9
    assert (s(x) < 1).all()


def test_steps_trace_nothing(monkeypatch):
    model = headed()
    s, x = model.stream(2), RNG.integers(0, 9, (2, 6))
    s(x[:, 0])
    s(x[:, :3])
    counted = []
    plain = Program._trace
    monkeypatch.setattr(Program, "_trace", lambda self, *args: counted.append(1) or plain(self, *args))
    for t in range(6):
        s(x[:, t])
    s(x[:, 3:])
    s.reset()
    s.copy()(x[:, 0])
    model.stream(2)(x[:, 0])
    for p in model.parameters():
        p.assign(p.numpy() * 2)
    s(x[:, 0])
    assert not counted


class Mean(tr.nn.Module):
    """Looks at all steps."""

    def __call__(self, x):
        return x - tr.mean(x, 1, keepdims=True)


class Loop(tr.nn.Module):
    """A loop of one's own, whose state begins anew in every call."""

    def __call__(self, x):
        h = tr.tensor(np.zeros((x.shape[0], 3), "float32"))
        out = []
        for t in range(x.shape[1]):
            h = tr.tanh(h + x[:, t])
            out.append(h)
        return tr.stack(out, 1) if out else x


class Twice(tr.nn.Module):
    """A second layer that begins where the first one ends."""

    def __init__(self):
        self.a, self.b = tr.nn.GRU(3, 4, rng=0), tr.nn.GRU(3, 4, rng=1)

    def example(self, batch, *steps):
        return self.a.example(batch, *steps)

    def __call__(self, x):
        return self.b(x, self.a(x)[1])[0]


@pytest.mark.parametrize(("model", "message"), [
    (lambda: tr.nn.LSTM(3, 4, bidirectional=True, rng=0), r"a stream is read forward.*the model \(LSTM\) reads its sequence from the end"),
    (lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.GRU(4, 4, reverse=True, rng=0)), r"layers.1 \(GRU\) reads its sequence from the end"),
    (lambda: tr.nn.Recurrent("mgu", x=3, h=4, reverse=True, rng=0), "reads its sequence from the end"),
    (lambda: tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0)), "reads its sequence from the end"),
    (lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Pool("mean"), tr.nn.Linear(4, 2, rng=0)), "cannot be read as a stream: tried on 33 steps.*a pool"),
    (lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Lambda(lambda x: x - tr.mean(x, 1, keepdims=True))), "cannot be read as a stream"),
    (lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Lambda(lambda x: x[:, ::-1])), "cannot be read as a stream"),
    (lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), Mean()), "cannot be read as a stream"),
    (lambda: Twice(), "begins with what the model has read"),
    (lambda: tr.nn.EncoderDecoder(5, 6, 4, rng=0), "stream|reads its sequence from the end|takes")])
def test_what_cannot_be_read_forward_is_refused_with_the_reason(model, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        model().stream()


def test_models_that_do_not_say_what_they_read():
    with pytest.raises(tr.TinyRNNError, match=r"does not follow from it: give an input of one step, model.stream\(like=x_t\)"):
        Mean().stream()
    with pytest.raises(tr.TinyRNNError, match="cannot be read as a stream"):
        Loop().stream(like=np.ones((1, 3), "float32"))
    cell = tr.Cell("h[t] = tanh(W @ x[t] + V @ z[t] + U @ h[t-1])", name="two inputs")
    layer = tr.nn.Recurrent(cell, x=3, z=2, h=4, rng=0).eval()
    x, z = RNG.normal(size=(2, 5, 3)).astype("float32"), RNG.normal(size=(2, 5, 2)).astype("float32")
    s = layer.stream(2, like={"x": x[:, 0], "z": z[:, 0]})
    found = [s({"x": x[:, t], "z": z[:, t]}) for t in range(5)]
    assert alike(np.stack(found, 1), layer.predict({"x": x, "z": z}))


class Delayed(tr.nn.Module):
    """Adds what came so many steps before."""

    def __init__(self, delay):
        self.delay, self.a = delay, tr.nn.Linear(3, 2, rng=0)

    def __call__(self, x):
        return self.a(x + tr.pad(x, ((0, 0), (self.delay, 0), (0, 0)))[:, : x.shape[1]])


class Gated(tr.nn.Module):
    """A mean over time behind a gate that begins closed."""

    def __init__(self):
        self.alpha = tr.parameter(np.zeros((), "float32"), name="alpha")

    def __call__(self, x):
        return x + self.alpha * x.mean(1, keepdims=True)


class Beside(tr.nn.Module):
    """A mean over time beside numbers that are far larger."""

    def __call__(self, x):
        return 1e5 * x + 3 * x.mean(1, keepdims=True)


class Bag(tr.nn.Module):
    """A mean of tokens."""

    def __init__(self):
        self.e, self.l = tr.nn.Embedding(7, 4, rng=0), tr.nn.Linear(4, 7, rng=1)

    def __call__(self, t):
        e = self.e(t)
        return self.l(e - 0.5 * e.mean(1, keepdims=True))


class Long(tr.nn.Module):
    """Does something else with long sequences."""

    def __call__(self, x):
        return x * (2 if x.shape[1] >= 6 else 1)


@pytest.mark.parametrize("model", [lambda: Delayed(1), lambda: Delayed(3), lambda: Delayed(4), lambda: Delayed(25), Gated, Beside, Long])
def test_what_a_stream_would_get_wrong_is_refused(model):
    """However far back it looks, whatever its weights are at the moment, however small it is beside the rest."""
    with pytest.raises(tr.TinyRNNError, match="cannot be read as a stream"):
        model().stream(like=np.ones((1, 3), "float32"))


def test_tokens_that_are_all_alike_do_not_hide_a_mean():
    with pytest.raises(tr.TinyRNNError, match="cannot be read as a stream"):
        Bag().stream(like=np.array([1]))
    with pytest.raises(tr.TinyRNNError, match="cannot be read as a stream"):
        Bag().generate([[5, 4, 4, 2]], 5, temperature=0)


class FirstSum(tr.nn.Module):
    """Its start is made of the first step: a sequence of no steps says something else."""

    def __init__(self):
        self.g = tr.nn.GRU(3, 3, rng=0)

    def __call__(self, x, state=None):
        return self.g(x, x[:, :1].sum(1).reshape(1, x.shape[0], 3) if state is None else state)


def test_a_start_that_depends_on_the_first_step():
    x = RNG.normal(size=(2, 6, 3)).astype("float32")
    s = FirstSum().stream(2, like=x[:, 0])
    assert s.state is None
    model = FirstSum()
    assert alike(np.stack([s(x[:, t]) for t in range(6)], 1), model.predict(x))
    with pytest.raises(tr.TinyRNNError, match="rows cannot be reset one by one"):
        s.reset([0])
    s.reset()
    assert alike(s(x), model.predict(x))


class Count(tr.nn.Module):
    """A state that is not one for each row."""

    def __init__(self, shape):
        self.l, self.shape = tr.nn.GRU(3, 4, rng=0), shape

    def __call__(self, x, state=None):
        h, n = (None, tr.tensor(np.zeros(self.shape, "float32"))) if state is None else state
        y, h = self.l(x, h)
        return y * (tr.arange(x.shape[1]).astype("float32").reshape(1, x.shape[1], 1) + n.reshape(-1)[0]), (h, n + x.shape[1])


@pytest.mark.parametrize("shape", [(), (4,)])
def test_rows_of_a_state_without_rows_are_refused_before_anything_is_touched(shape):
    x = RNG.normal(size=(3, 5, 3)).astype("float32")
    s = Count(shape).stream(3, like=x[:, 0])
    s(x[:, :2])
    before = s.state
    with pytest.raises(tr.TinyRNNError, match="not one for each row"):
        s.reset([0])
    assert all(alike(a, b) for a, b in zip(tr.trees.flatten(s.state)[0], tr.trees.flatten(before)[0], strict=True))


def test_no_rows_are_rows_too():
    s, x = tr.nn.GRU(3, 4, rng=0).stream(3), np.ones((3, 3), "float32")
    s(x)
    before = s.state
    for none in ([], (), np.zeros(0, int), slice(0), np.zeros(3, bool)):
        s.reset(none)
    assert alike(s.state, before)
    for wrong in (True, {0, 1}, 1.5, "all", [[True]], [-4]):
        with pytest.raises(tr.TinyRNNError, match="expected rows of 3"):
            s.reset(wrong)


def test_a_stream_of_a_model_that_was_changed_says_so():
    """Neither the old model nor the new one nor some of both."""
    model = headed()
    s, other = model.stream(2), tr.nn.Linear(8, 4, rng=9)
    s(np.array([1, 2]))
    model.train().eval()
    s(np.array([1, 2]))
    state = s.state
    model.layers[4] = other
    for use in (lambda: s(np.array([[1, 2], [3, 4]])), lambda: s([1, 2]), ):
        with pytest.raises(tr.TinyRNNError, match="made of other parts than when the stream was made"):
            use()
    fresh = model.stream(2)
    fresh.state = state
    fresh(np.array([1, 2]))
    model.layers[0].padding_idx = 3
    with pytest.raises(tr.TinyRNNError, match="made of other parts"):
        fresh(np.array([1, 2]))


def test_inputs_of_a_block_have_equally_many_steps():
    class Two(tr.nn.Module):
        def __init__(self):
            self.a, self.b = tr.nn.GRU(3, 4, rng=0), tr.nn.GRU(2, 4, rng=1)

        def __call__(self, x):
            return {"u": self.a(x["u"])[0], "v": self.b(x["v"])[0]}

    s = Two().stream(2, like={"u": np.ones((2, 3), "float32"), "v": np.ones((2, 2), "float32")})
    assert s({"u": np.ones((2, 3)), "v": np.ones((2, 2))})["v"].shape == (2, 4)
    with pytest.raises(tr.TinyRNNError, match=r"equally many steps, got \[2,3,3\], \[2,2,2\]"):
        s({"u": np.ones((2, 3, 3)), "v": np.ones((2, 2, 2))})


def test_deep_copies_of_streams_and_of_models_that_hold_one():
    model = headed()
    model.extra = model.stream(2)
    model.extra(np.array([1, 2]))
    other = copy.deepcopy(model)
    assert other.extra.model is other
    assert alike(other.extra(np.array([3, 4])), model.extra(np.array([3, 4])))


@pytest.mark.parametrize(("like", "message"), [(np.ones(3), r"like= is an input of one step, here float32\[B, 3\]; got float64\[3\]"),
                                               (np.ones((1, 4, 3)), "like= is an input of one step"), (np.ones((1, 3), int), "got int64")])
def test_examples_that_do_not_fit_are_refused(like, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        tr.nn.GRU(3, 4, rng=0).stream(like=like)


@pytest.mark.parametrize(("x", "message"), [
    (np.ones((3, 3)), r"this stream of 2 rows takes a step \[2,3\] or k steps \[2, k, 3\], got \[3,3\]"), (np.ones((2, 4)), "takes a step"),
    (np.ones(3), "takes a step"), (np.ones((2, 5, 3, 1)), "takes a step"), (np.ones((2, 3), complex), "a step of this stream is float32, got complex128"),
    ({"x": np.ones((2, 3))}, "the input of this stream is {'x': .}, expected .")])
def test_steps_that_do_not_fit_are_refused(x, message):
    s = tr.nn.GRU(3, 4, rng=0).stream(2)
    good = np.ones((2, 3), "float32")
    first = s(good)
    s.reset()
    with pytest.raises(tr.TinyRNNError, match=message):
        s(x)
    assert alike(s(good), first)


def test_tokens_that_are_none_leave_the_state_as_it_was():
    model = headed()
    s, plain = model.stream(), model.stream()
    s(3), plain(3)
    for wrong in (9, -1):
        with pytest.raises(tr.errors.IndexRangeError, match="outside an axis of size 9"):
            s(wrong)
        with pytest.raises(tr.errors.IndexRangeError, match="outside an axis of size 9"):
            s(np.array([[1, wrong]]))
    with pytest.raises(tr.TinyRNNError, match="a step of this stream is int64, got float64"):
        s(1.5)
    assert alike(s(4), plain(4))


def test_weights_may_change_between_steps():
    model, x = tr.nn.LSTM(3, 8, rng=0), RNG.normal(size=(1, 6, 3)).astype("float32")
    s, other = model.stream(), tr.nn.LSTM(3, 8, rng=1)
    s(x[:, :2])
    state = s.state
    model.load_state_dict(other.state_dict())
    s2 = other.stream()
    s2.state = state
    for t in range(2, 6):
        assert alike(s(x[:, t]), s2(x[:, t]))
    assert alike(model.predict(x), other.predict(x))


def test_a_hundred_thousand_steps_take_no_memory():
    s = tr.nn.Sequential(tr.nn.GRU(4, 8, rng=0), tr.nn.Linear(8, 2, rng=1)).stream()
    x = RNG.normal(size=(64, 1, 4)).astype("float32")
    for i in range(2000):
        s(x[i % 64])
    gc.collect()
    tracemalloc.start()
    try:
        s(x[0])
        before = tracemalloc.get_traced_memory()[0]
        for i in range(100_000):
            s(x[i % 64])
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()
    assert np.isfinite(s(x[0])).all()


# ---- programs that a model keeps

@pytest.fixture
def traces(monkeypatch):
    """How many functions were traced."""
    counted = []
    plain = Program._trace
    monkeypatch.setattr(Program, "_trace", lambda self, *args: counted.append(self) or plain(self, *args))
    return counted


def classifier():
    return tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Dropout(0.5), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))


X, Y = RNG.normal(size=(6, 5, 3)).astype("float32"), np.array([0, 1, 0, 1, 1, 0])


def test_programs_are_traced_once(traces):
    model = classifier()
    rows = [X[0], X[1, :3], X[2, :1]]
    uses = (lambda: model.predict(X), lambda: model.predict(X, lengths=[5, 4, 3, 2, 1, 5]), lambda: model.predict(rows),
            lambda: model.evaluate(X, Y, loss="cross_entropy", metrics=["accuracy"]), lambda: model.step(X[:, 0]))
    model.eval()
    first = [use() for use in uses]
    counted = len(traces)
    for _ in range(3):
        for use, before in zip(uses, first, strict=True):
            now = use()
            assert str(now) == str(before)
    for p in model.parameters():
        p.assign(p.numpy() * 0.5)
    model.train()
    model.predict(X)
    model.eval()
    assert str(model.predict(X)) != str(first[0])
    assert len(traces) == counted


def test_predict_is_in_evaluation_mode_whatever_the_mode(traces):
    model = classifier()
    assert model.training
    a = model.predict(X)
    assert alike(a, model.predict(X))
    assert model.training
    assert alike(model.eval().predict(X), a)
    assert len(traces) == 1
    model.layers[1].p = 0.1
    assert alike(model.predict(X), a)


CHANGES = {
    "a layer": lambda m: m.layers.__setitem__(3, tr.nn.Linear(4, 2, rng=7)), "one more layer": lambda m: m.layers.append(tr.nn.Linear(2, 2, rng=1)),
    "a parameter": lambda m: setattr(m.layers[3], "weight", tr.parameter(np.ones((2, 4), "float32"), "weight")),
    "no bias": lambda m: setattr(m.layers[3], "bias", None), "the kind": lambda m: m.layers.pop(3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_programs_follow_the_models_structure(name):
    model = classifier()
    model.predict(X), model.evaluate(X, Y, loss="cross_entropy")
    CHANGES[name](model)
    with tr.model.evaluating():
        expected = model(X).numpy()
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5, atol=1e-6)


class Scaled(tr.nn.Module):
    """A model that reads attributes of all kinds."""

    def __init__(self):
        self.factor, self.table, self.chosen, self.more = 2.0, np.arange(3.0), {0, 1}, {"shift": [1.0]}

    def __call__(self, x):
        return x * self.factor * tr.tensor(self.table) + len(self.chosen) + self.more["shift"][0]


class Settings:
    """What people keep settings in."""

    shift = 0.0


class Held(tr.nn.Module):
    """A model whose parts are in holders of other kinds."""

    def __init__(self):
        self.parts, self.queue, self.settings = OrderedDict(a=tr.nn.Linear(3, 2, rng=0)), deque([1.0]), Settings()
        self.view = np.arange(2.0)[:]
        self.base = self.view.base
        self.view.flags.writeable = False

    def __call__(self, x):
        return self.parts["a"](x) * self.queue[0] + self.settings.shift + tr.tensor(self.view.astype("float32"))


@pytest.mark.parametrize("change", [lambda m: m.parts.update(a=tr.nn.Linear(3, 2, rng=7)), lambda m: m.queue.__setitem__(0, 3.0),
                                    lambda m: setattr(m.settings, "shift", 2.0), lambda m: m.base.__setitem__(0, 5.0)])
def test_parts_in_holders_of_other_kinds_may_change(change):
    model = Held()
    model.predict(X)
    change(model)
    np.testing.assert_allclose(model.predict(X), model(X).numpy(), rtol=1e-6)


def test_a_loss_of_ones_own_is_asked_each_time():
    class Loss:
        k = 1.0

        def __call__(self, output, target):
            return ((output - target) ** 2).mean() * self.k

    model, loss = tr.nn.Linear(3, 1, rng=0), Loss()
    before = model.evaluate(X, np.zeros((6, 5, 1)), loss=loss)["loss"]
    loss.k = 5.0
    np.testing.assert_allclose(model.evaluate(X, np.zeros((6, 5, 1)), loss=loss)["loss"], 5 * before, rtol=1e-6)


@pytest.mark.parametrize("change", [lambda m: setattr(m, "factor", 3.0), lambda m: m.table.__setitem__(1, 9.0), lambda m: m.chosen.add(7),
                                    lambda m: m.more["shift"].__setitem__(0, 4.0), lambda m: m.more.update(shift=[8.0])])
def test_attributes_that_a_model_reads_may_change(change):
    model = Scaled()
    model.predict(X)
    change(model)
    np.testing.assert_allclose(model.predict(X), model(X).numpy())


def test_copies_have_programs_of_their_own():
    model = classifier()
    before = model.predict(X)
    deep, flat = copy.deepcopy(model), copy.copy(model)
    flat.layers = [*model.layers[:3], tr.nn.Linear(4, 2, rng=9)]
    for p in deep.parameters():
        p.assign(p.numpy() * 0)
    assert not deep.predict(X).any()
    assert not alike(flat.predict(X), before)
    assert alike(model.predict(X), before)


def test_a_model_goes_with_its_programs():
    model = classifier()
    model.predict(X), model.stream(2)(X[:2, 0]), model.eval().step(X[:, 0])
    gone, big = weakref.ref(model), weakref.ref(model.layers[0])
    made = [p for p in programs_of(model)._made.values() if isinstance(p, Program)]
    compiled = [weakref.ref(s.executable) for p in made for found in p.entries.values() for e in found for s in e.made]
    assert compiled
    gc.disable()
    try:
        del model, made
        assert gone() is None
        assert big() is None
        assert not any(e() for e in compiled)  # nor its panels, nor its memory
    finally:
        gc.enable()


def test_weights_are_packed_once_for_all_lengths():
    layer = tr.nn.LSTM(7, 24, rng=0)
    gc.collect()
    before = len(kept_memory._KEPT)
    outputs = {n: layer.predict(RNG.normal(size=(2, n, 7)).astype("float32")) for n in (3, 4, 5, 6)}
    layer.stream(2)(np.ones((2, 7), "float32"))
    assert len(kept_memory._KEPT) - before == 2  # of weight_ih and weight_hh
    assert len(outputs) == 4
    del layer, outputs
    gc.collect()
    assert len(kept_memory._KEPT) <= before


def test_what_is_kept_of_weights_follows_them():
    cell = tr.nn.Recurrent("gru_reset_before", x=3, h=9, rng=0)  # joined and packed from six arrays
    x = RNG.normal(size=(1, 7, 3)).astype("float32")
    for i in range(4):
        for name, p in list(cell.weights.items())[i::3]:
            p.assign(p.numpy() * (1.5 if i else 1.0), )
            assert name in cell.weights
        np.testing.assert_allclose(cell.predict(x), tr.Graph({"y": cell.eval()(x)[0]}).run({})["y"], rtol=2e-5, atol=2e-6)


# ---- steps

def test_a_step_is_compiled_where_nobody_asks_for_gradients(traces):
    layer = tr.nn.GRU(3, 4, rng=0)
    x = X[:, 0]
    y, h = layer.step(x)
    assert not traces  # training mode: a graph
    w = layer.weight_hh_l0
    y, h = layer.step(X[:, 1], h)
    assert abs(tr.grad(y.sum(), w).numpy()).sum() > 0
    layer.eval()
    a, h2 = layer.step(x)
    b, _ = layer.step(X[:, 1], h2)
    assert len(traces) == 2
    np.testing.assert_allclose(b.numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
    assert a.is_leaf
    placeholder = tr.input("x", (6, 3), "float32")
    assert layer.step(placeholder)[0].symbolic
    inside = tr.compile(lambda x: tr.grad(layer.step(x)[0].sum(), x))
    assert abs(inside(x)).sum() > 0


def test_steps_of_a_model_are_those_of_its_layers():
    model = tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.LSTM(3, 5, rng=1), tr.nn.Linear(5, 9, rng=2))
    tokens = RNG.integers(0, 9, (2, 5))
    for mode in (model.train, model.eval):
        mode()
        state, out = None, []
        for t in range(5):
            y, state = model.step(tokens[:, t], state)
            out.append(y.numpy())
        np.testing.assert_allclose(np.stack(out, 1), model.predict(tokens), rtol=1e-5, atol=1e-6)


def test_generation_takes_the_likeliest_token_of_the_whole_sequence():
    model = tr.nn.Sequential(tr.nn.Embedding(9, 6, rng=0), tr.nn.GRU(6, 12, rng=1), tr.nn.Linear(12, 9, rng=2))
    tokens = RNG.integers(0, 9, (3, 4))
    expected = tokens
    for _ in range(6):
        expected = np.concatenate([expected, model.predict(expected)[:, -1:].argmax(-1)], 1)
    np.testing.assert_array_equal(model.generate(tokens, 6, temperature=0), expected)
    own = Tagger()
    own.head = tr.nn.Linear(11, 9, rng=0)
    expected = tokens
    for _ in range(6):
        expected = np.concatenate([expected, own.predict(expected)[:, -1:].argmax(-1)], 1)
    np.testing.assert_array_equal(own.generate(tokens, 6, temperature=0), expected)


# ---- threads

def test_a_hundred_threads_on_one_model():
    model = headed()
    inputs = [RNG.integers(0, 9, (1 + i % 3, 4 + i % 5)) for i in range(100)]
    expected = [model.predict(x) for x in inputs]
    fresh = copy.deepcopy(model)  # whose programs are made while all of them ask
    start = threading.Barrier(100)

    def use(i):
        start.wait()
        s = fresh.stream(len(inputs[i]))
        found = []
        for _ in range(5):
            found.append(alike(fresh.predict(inputs[i]), expected[i]))
            s.reset()
            found.append(alike(np.stack([s(inputs[i][:, t]) for t in range(inputs[i].shape[1])], 1), expected[i]))
            fresh.evaluate(inputs[i], inputs[i] % 4, loss="cross_entropy")
        return all(found)

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(use, range(100)))


def test_one_stream_in_many_threads_takes_one_step_at_a_time():
    s, x = tr.nn.GRU(3, 5, rng=0).stream(), np.ones((1, 3), "float32")
    with ThreadPoolExecutor(16) as pool:
        many = list(pool.map(lambda _: s(x).tobytes(), range(400)))
    s.reset()
    assert sorted(many) == sorted(s(x).tobytes() for _ in range(400))


def test_one_program_in_many_threads():
    layer = tr.nn.LSTM(8, 24, rng=0)
    program = tr.compile(lambda x: layer(x)[0])
    inputs = [RNG.normal(size=(3, 9, 8)).astype("float32") for _ in range(64)]
    expected = [program(x) for x in inputs]
    with ThreadPoolExecutor(32) as pool:
        for _ in range(3):
            assert all(pool.map(lambda pair: alike(program(pair[0]), pair[1]), zip(inputs, expected, strict=True)))


def test_weights_may_be_assigned_while_others_predict():
    """Each call sees the weights before or after, never some of both."""
    layer = tr.nn.Linear(16, 16, bias=False, rng=0)
    x = np.ones((4, 16), "float32")
    values = {i: np.full((16, 16), i, "float32") for i in (1, 2)}
    stop = threading.Event()

    def change():
        i = 1
        while not stop.is_set():
            layer.weight.assign(values[i])
            i = 3 - i

    layer.weight.assign(values[1])
    with ThreadPoolExecutor(4) as pool:
        changing = pool.submit(change)
        try:
            seen = {v for _ in range(300) for v in np.unique(layer.predict(x)).tolist()}
        finally:
            stop.set()
        changing.result()
    assert seen <= {16.0, 32.0}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_do_not_depend_on_threads(count):
    x, y = RNG.normal(size=(48, 20, 24)).astype("float32"), RNG.integers(0, 3, 48)

    def run(**options):
        model = tr.nn.Sequential(tr.nn.LSTM(24, 64, rng=0), tr.nn.Last(), tr.nn.Linear(64, 3, rng=1))
        model.fit(x, y, epochs=2, batch_size=24, optimizer=tr.optim.Adam(1e-2), rng=0, progress=False, **options)
        s = model.stream(48, **options)
        return [*model.state_dict().values(), model.predict(x, **options), s(x),
                np.array(list(model.evaluate(x, y, **options).values()))]

    for a, b in zip(run(threads=count), run(), strict=True):
        assert alike(a, b)


@pytest.mark.parametrize("use", [lambda m, n: m.predict(X, threads=n), lambda m, n: m.stream(threads=n), lambda m, n: m.evaluate(X, Y, loss="mse", threads=n),
                                 lambda m, n: m.fit(X, Y, optimizer=tr.optim.SGD(0.1), threads=n)])
@pytest.mark.parametrize("wrong", [0, 1.5, True, "two", 5000])
def test_threads_that_are_none_are_refused(use, wrong):
    with pytest.raises(tr.TinyRNNError, match="threads="):
        use(classifier(), wrong)


def test_how_many_threads_there_are(monkeypatch):
    for name in (threads.THREADS, threads.SHARED_WITH):
        monkeypatch.delenv(name, raising=False)
    plain = threads.default_threads()
    assert plain >= 1
    for said, count in (("3", 3), ("4,2", 4), ("", plain), ("many", plain), ("0", plain), ("-2", plain)):
        monkeypatch.setenv(threads.SHARED_WITH, said)
        assert threads.default_threads() == count, said
    monkeypatch.setenv(threads.SHARED_WITH, "3")
    monkeypatch.setenv(threads.THREADS, "2")
    assert threads.default_threads() == 2


POOLS = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
import numpy as np, tinyrnn as tr
from tinyrnn.backends.cpu.threads import default_threads

def work(i):
    layer = tr.nn.LSTM(64, 128, rng=0)
    y = layer.predict(np.ones((32, 50, 64), "float32"))
    names = sum(1 for t in os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    import threading
    return default_threads(), sum(t.name.startswith("tinyrnn") for t in threading.enumerate())

if __name__ == "__main__":
    for how in ("fork", "spawn"):
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(how)) as pool:
            print(sorted(set(pool.map(work, range(4)))))
    from joblib import Parallel, delayed
    print(sorted(set(Parallel(n_jobs=2)(delayed(work)(i) for i in range(4)))))
"""


def test_pools_of_processes_do_not_take_more_threads_than_there_are_processors(tmp_path, monkeypatch):
    """A worker runs in one thread where its siblings use the other processors; loky says how many each may have."""
    pytest.importorskip("joblib")
    path = tmp_path / "pools.py"
    path.write_text(POOLS)
    env = {k: v for k, v in __import__("os").environ.items() if k not in (threads.THREADS, threads.SHARED_WITH)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    fork, spawn, loky = done.stdout.splitlines()
    assert fork == spawn == "[(1, 0)]"
    share = max(1, threads.default_threads() // 2)
    assert loky == f"[({share}, {share - 1})]"


# ---- the GPU

@pytest.mark.gpu
@pytest.mark.parametrize("name", ["LSTM", "headed", "own", "classifier", "lags"])
def test_streams_on_a_gpu_give_the_values_of_the_cpu(name, gpu):
    model = MODELS[name]("float32")
    x = sequence_for(model, 2, 6)
    s, other = model.stream(2, backend="cuda"), model.stream(2)
    for t in range(6):
        np.testing.assert_allclose(s(x[:, t]), other(x[:, t]), rtol=2e-5, atol=2e-6)
    s.reset([0]), other.reset([0])
    np.testing.assert_allclose(s(x[:, 1:3]), other(x[:, 1:3]), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(model.predict(x, backend="cuda"), model.predict(x), rtol=2e-5, atol=2e-6)


@pytest.mark.gpu
def test_a_gpu_captures_once_for_a_shape(gpu):
    from tinyrnn.backends.cuda import graphs

    graphs.CAPTURED.clear()
    model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1))
    s = model.stream(2, backend="cuda")
    for _ in range(6):
        s(X[:2, 0])
        model.predict(X, backend="cuda")
    assert len(graphs.CAPTURED) == 2


def test_the_kept_programs_are_few():
    model = classifier()
    for i in range(50):
        model.evaluate(X, Y, loss=lambda y, t, mask=None, i=i: ((y.sum(-1) - t) ** 2).mean())
    assert len(programs_of(model)._made) <= 32


# ---- processors that a container may use

@pytest.mark.parametrize(("files", "group", "wanted"), [
    ({"cpu.max": "max 100000\n"}, "0::/\n", np.inf), ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
    ({"cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "a/b/cpu.max": "400000 100000\n"}, "0::/a/b\n", 2),
    ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpuset:/\n4:cpu:/\n", 0.5),
    ({"cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
      "cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/x\n", 3),
    ({"cpu.max": "nonsense\n"}, "nonsense\n", np.inf), ({"cpu.max": "100 0\n"}, "0::/\n", np.inf), ({}, "", np.inf)])
def test_the_quota_of_a_container(files, group, wanted, tmp_path):
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    (tmp_path / "cgroup").write_text(group)
    assert threads.quota(tmp_path / "fs", tmp_path / "cgroup") == wanted
    assert threads.quota(tmp_path / "none", tmp_path / "missing") == np.inf


@pytest.mark.parametrize(("quota", "wanted"), [(np.inf, 8), (3.7, 3), (0.5, 1), (20, 8)])
def test_default_threads_follow_affinity_and_quota(quota, wanted, monkeypatch):
    for name in (threads.THREADS, threads.SHARED_WITH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "quota", lambda: quota)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.default_threads() == wanted
