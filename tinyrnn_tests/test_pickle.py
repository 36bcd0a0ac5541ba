"""Pickles, copies and files that are open: what arrives computes the same, shares nothing, and is as it was."""

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, LoadError, SymbolicError
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.trees import flatten

from . import pickled

X = np.random.default_rng(0).normal(size=(4, 5, 3))


def pickle_through(x, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(x, protocol))


WAYS = [*(partial(pickle_through, protocol=p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)), copy.deepcopy]
WAY_NAMES = [*(f"pickle {p}" for p in range(2, pickle.HIGHEST_PROTOCOL + 1)), "deepcopy"]
MODELS = {
    "lstm": lambda: tr.nn.LSTM(3, 4, num_layers=2, bidirectional=True, dtype="float64", rng=0),
    "recurrent": lambda: tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, rng=0),
    "own cell": lambda: tr.nn.Recurrent(tr.Cell("h[t] = tanh(W @ h[t-1] + U @ x[t])"), x=3, h=4, rng=0),
    "both ways": lambda: tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0)),
    "stack": lambda: tr.nn.Sequential(tr.nn.GRU(3, 4, learn_state=True, rng=0), tr.nn.LayerNorm(4), tr.nn.Linear(4, 2, rng=1)),
    "noisy": lambda: tr.nn.LSTM(3, 4, zoneout=0.1, recurrent_dropout=0.2, rng=0),
    "own class": pickled.Scaled,
}
ways = pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)


def outputs(model, x=X):
    y = model.eval()(x.astype(np.float32) if model.parameters()[0].dtype == np.float32 else x)
    return np.asarray(y[0] if isinstance(y, tuple) else y)


@ways
@pytest.mark.parametrize("name", MODELS)
def test_models(name, way):
    model = MODELS[name]()
    model.parameters()[0].trainable = False
    model.predict(X.astype(model.parameters()[0].dtype))  # what it keeps stays behind
    again = way(model)
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert [k for k, _ in again.named_parameters()] == [k for k, _ in model.named_parameters()]
    assert [t.trainable for _, t in again.leaves()] == [t.trainable for _, t in model.leaves()]
    before = outputs(model)
    for t in again.parameters():
        t.assign(t.numpy() * 0.5)
    np.testing.assert_array_equal(outputs(model), before)
    assert not np.array_equal(outputs(again), before)
    np.testing.assert_allclose(again.predict(X.astype(before.dtype)), outputs(again), rtol=1e-5, atol=1e-6)


@ways
def test_what_was_one_is_one(way):
    model = pickled.Scaled()
    again, first = way((model, model.tied))
    assert again.tied is again.inner.weight_hh_l0 is first
    assert len(again.parameters()) == len(model.parameters())
    first.assign(first.numpy() * 0)
    assert not again.inner.weight_hh_l0.numpy().any()


@ways
def test_training_goes_on(way):
    """With the optimiser's moments, which belong to the parameters that arrive with it."""
    model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 1, rng=1))
    optimizer, x = tr.optim.Adam(0.1), X.astype("float32")
    model.fit(x, x[:, 0, :1], loss="mse", epochs=2, optimizer=optimizer, rng=0)
    for m, o in (way((model, optimizer)), (model, optimizer)):
        m.fit(x, x[:, 0, :1], loss="mse", epochs=2, optimizer=o, rng=0)
        model, other = m, model
    np.testing.assert_array_equal(outputs(other), outputs(model))


@ways
def test_noise_goes_on_where_it_was(way):
    model = MODELS["noisy"]().train()
    again = way(model)
    np.testing.assert_array_equal(np.asarray(again(X.astype("float32"))[0]), np.asarray(model(X.astype("float32"))[0]))


@ways
def test_tensors(way):
    W = tr.parameter(X[0], name="W")
    again = way(W)
    assert (again.name, again.trainable, again.dtype) == ("W", True, W.dtype)
    np.testing.assert_array_equal(again.numpy(), W.numpy())
    frozen = tr.parameter(X[0], name="W")
    frozen.trainable = False
    assert not way(frozen).trainable
    assert way(frozen).parameter
    np.testing.assert_array_equal(way(W * 2.0).numpy(), 2 * X[0])


def test_gradients_that_wait_for_a_step_are_kept():
    W = tr.parameter(X[0], name="W")
    (W * W).sum().backward()
    np.testing.assert_array_equal(pickle_through(W).grad, 2 * X[0])


def test_copies_share_data():
    W = tr.parameter(X[0], name="W")
    again = copy.copy(W)
    W.assign(W.numpy() * 0)
    assert not again.numpy().any()


@ways
def test_states_and_expressions(way):
    _, (h, c) = tr.nn.LSTM(3, 4, rng=0)(X.astype("float32"))
    for a, b in zip(way((h, c)), (h, c), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_what_has_no_value_is_refused_by_what_it_is():
    x = input_node("x", (2, 3))
    with pytest.raises(SymbolicError, match="x"):
        pickle.dumps(tr.Tensor(x) * 2.0)
    with pytest.raises(ArgumentError, match="part of an expression, which is not pickled"):
        pickle.dumps(x * 2.0)


@ways
def test_cells(way):
    for cell in (tr.cells["lstm"], tr.Cell("h[t] = tanh(W @ h[t-1] + U @ x[t])")):
        assert way(cell) == cell


# ---- streams

@ways
def test_a_stream_goes_on_where_it_stands(way):
    model = tr.nn.Sequential(tr.nn.LSTM(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1))
    x = X.astype("float32")
    stream = model.stream(4)
    stream(x[:, 0])
    again = way(stream)
    for t in range(1, 5):
        np.testing.assert_array_equal(again(x[:, t]), stream(x[:, t]))


@ways
def test_a_model_that_holds_its_stream(way):
    model = tr.nn.GRU(3, 4, rng=0)
    model.reader = model.stream(4)
    x = X.astype("float32")
    model.reader(x[:, 0])
    for again in (way(model), way(model.reader).model):
        assert again.reader.model is again
        np.testing.assert_array_equal(again.reader(x[:, 1]), model.reader.copy()(x[:, 1]))


# ---- programs

@ways
@pytest.mark.parametrize("make", [
    lambda: tr.compile(pickled.plain), lambda: tr.compile(pickled.plain, threads=1, strict=True),
    lambda: pickled.decorated, lambda: tr.compile(pickled.Scaled().inner.__call__),
    lambda: tr.compile(partial(pickled.called, pickled.plain))], ids=["plain", "options", "decorated", "method", "partial"])
def test_programs(make, way):
    program = make()
    x = X.astype("float32")
    again = way(program)
    assert (again.threads, again.strict, str(again.backend)) == (program.threads, program.strict, str(program.backend))
    for a, b in zip(flatten(again(x))[0], flatten(program(x))[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_compiled_method_follows_its_object():
    model = pickled.Scaled()
    again = pickle_through(model)
    again.factor.assign(np.array([0.0]))
    assert not again.twice(X.astype("float32")).any()
    assert pickle_through(model.twice).__self__ is not model


@pytest.mark.parametrize("make", [lambda: lambda x: x * 2.0, lambda: _inner()], ids=["lambda", "inner"])
def test_functions_without_a_name_are_refused_by_name(make):
    function = make()
    with pytest.raises(ArgumentError, match=r"(<lambda>|_inner\.<locals>\.f) of tinyrnn_tests\.test_pickle cannot be found"):
        pickle.dumps(tr.compile(function))
    assert copy.deepcopy(tr.compile(function))(X).shape == X.shape


def _inner():
    def f(x):
        return x * 2.0
    return f


# ---- other processes

def test_in_a_pool_of_new_processes():
    model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last())
    x = X.astype("float32")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = [pool.submit(pickled.predicted, model, x), pool.submit(pickled.called, tr.compile(pickled.plain), X),
                 pool.submit(pickled.called, pickled.decorated, X)]
        want = [model.predict(x), tr.compile(pickled.plain)(X), pickled.decorated(X)]
        for f, w in zip(found, want, strict=True):
            np.testing.assert_array_equal(f.result(), w)


def test_a_process_that_knows_nothing(tmp_path):
    model = tr.nn.Recurrent(tr.Cell("h[t] = tanh(W @ h[t-1] + U @ x[t])"), x=3, h=4, rng=0)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "x.npy", X.astype("float32"))
    code = ("import pickle, sys, numpy as np\n"
            "m = pickle.load(open(sys.argv[1] + '/m.pkl', 'rb'))\n"
            "np.save(sys.argv[1] + '/y.npy', m.predict(np.load(sys.argv[1] + '/x.npy')))")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(X.astype("float32")))


# ---- files that are open

class Piecemeal(io.BytesIO):
    """A file without a buffer, which takes seven bytes at a time."""

    def write(self, data):
        return super().write(bytes(data[:7]))


class Silent(io.BytesIO):
    """A file that does not say how much it took."""

    def write(self, data):
        super().write(data)


class Full(io.RawIOBase):
    """A file that takes nothing, and says so as files without a buffer do."""

    def write(self, data):
        return None


def test_a_full_file_ends_the_writing():
    with pytest.raises(OSError, match="an open Full takes no more bytes"):
        tr.nn.GRU(3, 4, rng=0).save(Full())


@pytest.mark.parametrize("kind", [io.BytesIO, Piecemeal, Silent])
def test_open_files(kind):
    model, file = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last()), kind()
    model.save(file)
    file.seek(0)
    np.testing.assert_array_equal(outputs(tr.load(file)), outputs(model))
    with pytest.raises(LoadError, match=f"an open {kind.__name__}: not a safetensors file"):
        tr.load(file)  # it stands at its end


def test_open_files_under_a_name(tmp_path):
    model = tr.nn.GRU(3, 4, rng=0)
    with open(tmp_path / "m.safetensors", "wb") as file:
        model.save(file)
    with open(tmp_path / "m.safetensors", "rb") as file:
        np.testing.assert_array_equal(outputs(tr.load(file)), outputs(model))
        with pytest.raises(LoadError, match=r"m\.safetensors: not a safetensors file"):
            tr.load(file)
    arrays, metadata = tr.io.read_weights(io.BytesIO((tmp_path / "m.safetensors").read_bytes()))
    assert arrays.keys() == model.state_dict().keys()
    assert "model" in metadata


def test_files_of_text_are_refused(tmp_path):
    model = tr.nn.GRU(3, 4, rng=0)
    for file in (io.StringIO(), open(tmp_path / "x", "w")):  # noqa: SIM115  (closed by the next line)
        with file, pytest.raises(ArgumentError, match="'wb' or 'rb'"):
            model.save(file)
    with open(tmp_path / "x") as file, pytest.raises(ArgumentError, match="'rb'"):
        tr.load(file)
    with open(tmp_path / "x", "wb") as file, pytest.raises(OSError, match=r"read"):
        tr.load(file)
    with pytest.raises(ArgumentError, match="expected the name of a file, got int"):
        model.save(3)
