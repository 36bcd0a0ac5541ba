"""tr.compile: what a user writes, what is traced again and what is not, what happens to parameters, what can be read."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.tensor.compile import PIPELINE, Program

BACKENDS = ["cpu", "numpy"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_and_results_are_trees(backend):
    @tr.compile(backend=backend)
    def f(pair, table, scale=2.0, *, mode="sum", extra=None):
        a, b = pair
        y = a * table["w"] + b * scale
        return {"y": y, "both": (y.sum(), [a, b])} if mode == "sum" else y.max()

    a, b, w = np.ones(3), np.arange(3.0), tr.tensor([1.0, 2.0, 3.0])
    found = f((a, b), {"w": w})
    np.testing.assert_array_equal(found["y"], [1.0, 4.0, 7.0])
    assert float(found["both"][0]) == 12.0
    np.testing.assert_array_equal(found["both"][1][1], b)
    assert isinstance(found["y"], np.ndarray)
    assert float(f((a, b), {"w": w}, mode="max")) == 7.0
    assert float(f((a, b), {"w": w}, 3.0, mode="max")) == 9.0
    assert float(f(([1.0, 2.0, 3.0], b), {"w": tr.tanh(w) * 0.0}, mode="max")) == 4.0
    with pytest.raises(tr.TinyRNNError, match=r"argument 'table\.w' is set: expected arrays, tensors, tuples"):
        f((a, b), {"w": {1, 2}})


def test_it_is_traced_once_for_each_signature():
    traced = []

    @tr.compile
    def f(x, k=1):
        traced.append((tuple(x.shape), k))
        return x * k

    for _ in range(3):
        f(np.ones(3))
    f(np.ones(4))
    f(np.ones(3, "float32"))
    f(np.ones(3), k=2)
    f(np.ones(3), 2)
    f(np.ones(3))
    assert traced == [((3,), 1), ((4,), 1), ((3,), 1), ((3,), 2), ((3,), 2)]
    assert f(np.ones((2, 3)).T).shape == (3, 2)
    assert f(np.ones(3, ">f8")).dtype == np.float64


@pytest.mark.parametrize("backend", BACKENDS)
def test_assignments_happen_at_every_call_and_are_seen_at_once(backend):
    p = tr.parameter(np.array([1.0, 2.0]), name="p")
    count = tr.tensor(np.zeros((), np.int64), name="count")

    @tr.compile(backend=backend)
    def step(x):
        before = (p * x).sum()
        p.assign(p - 0.5 * tr.grad((p * p).sum(), p) * 0.5)
        count.assign(count + 1)
        return before, (p * x).sum(), count

    x = np.ones(2)
    assert [float(v) for v in step(x)] == [3.0, 1.5, 1.0]
    assert [float(v) for v in step(x)] == [1.5, 0.75, 2.0]
    np.testing.assert_array_equal(p.numpy(), [0.25, 0.5])
    p.assign([4.0, 4.0])
    assert float(step(x)[0]) == 8.0
    with pytest.raises(tr.TinyRNNError, match=r"p has shape \[2\], it cannot be assigned shape \[3\]"):
        tr.compile(lambda x: p.assign(tr.concat([x, x[:1]])), backend=backend)(x)
    with pytest.raises(tr.TinyRNNError, match="it cannot be assigned complex128"):
        tr.compile(lambda x: p.assign(x.astype("complex128")), backend=backend)(x)


def test_new_weights_are_used_whether_or_not_they_were_packed():
    layer = tr.nn.LSTM(3, 4, dtype="float64", rng=0)
    f = tr.compile(lambda x: layer(x)[0])
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    for k in range(3):
        for _ in range(2):
            np.testing.assert_allclose(f(x), layer(x)[0].numpy(), rtol=1e-12)
        layer.weight_hh_l0.assign(layer.weight_hh_l0.numpy() * (1.5 + k))


def test_modes_and_randomness_are_those_of_the_call():
    model = tr.nn.Sequential(tr.nn.Linear(4, 64, rng=0), tr.nn.Dropout(0.5, rng=1))
    f = tr.compile(lambda x: model(x))
    x = np.ones((3, 4), "float32")
    first, second = f(x), f(x)
    assert not np.array_equal(first, second), "a compiled function drew the same mask twice"
    model.eval()
    still = f(x)
    np.testing.assert_array_equal(still, f(x))
    np.testing.assert_allclose(still, model(x).numpy(), rtol=1e-5)
    model.train()
    assert (f(x) == 0).any()


def test_the_same_masks_on_every_backend():
    def train(backend):
        model = tr.nn.Sequential(tr.nn.Linear(4, 8, dtype="float64", rng=0), tr.nn.Dropout(0.5, rng=1))
        x = np.random.default_rng(0).normal(size=(16, 4))
        return model.fit(x, x[:, :1] * np.ones(8), loss="mse", optimizer=tr.optim.SGD(0.1), epochs=2, batch_size=4, rng=3,
                         backend=backend, progress=False)["loss"]

    np.testing.assert_allclose(train("cpu"), train("numpy"), rtol=1e-12)


OPTIMISERS = [tr.optim.SGD(0.1), tr.optim.SGD(0.05, momentum=0.9), tr.optim.SGD(0.05, momentum=0.9, nesterov=True),
              tr.optim.Adam(0.02), tr.optim.Adam(0.02, clip_norm=0.1), tr.optim.SGD(0.1, clip_value=0.01)]


@pytest.mark.parametrize("k", range(len(OPTIMISERS)))
def test_training_is_the_same_compiled_interpreted_and_by_hand(k):
    """`fit` on both backends, and the manual loop, end with the same weights and the same memory of gradients."""
    import copy

    x, y = np.random.default_rng(0).normal(size=(12, 5, 3)), np.random.default_rng(1).integers(0, 4, (12, 5))
    ends = []
    for how in ("cpu", "numpy", "by hand"):
        model = tr.nn.Sequential(tr.nn.Recurrent(tr.cells["gru"], x=3, h=6, dtype="float64", rng=0),
                                 tr.nn.Linear(6, 4, dtype="float64", rng=1))
        optimizer = copy.deepcopy(OPTIMISERS[k])
        if how == "by hand":
            for _ in range(3):
                for i in range(0, 12, 4):
                    tr.nn.cross_entropy(model(x[i : i + 4]), y[i : i + 4]).backward()
                    optimizer.step(model.parameters())
        else:
            model.fit(x, y, optimizer=optimizer, epochs=3, batch_size=4, shuffle=False, progress=False, backend=how)
        ends.append((model.state_dict(), optimizer.state))
    for weights, state in ends[1:]:
        assert state["step"] == ends[0][1]["step"] == 9
        for name, w in ends[0][0].items():
            np.testing.assert_allclose(weights[name], w, rtol=1e-9, atol=1e-12, err_msg=name)
    slots = [[v for kept in state["of"].values() for v in kept.values()] for _, state in ends]
    for other in slots[1:]:
        for a, b in zip(slots[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing():
    model = tr.nn.Linear(2, 2, rng=0)
    optimizer = tr.optim.Adam(0.1)
    model.fit(np.ones((4, 2)), np.ones((4, 2)), loss="mse", optimizer=optimizer, progress=False)
    before, state = model.state_dict(), optimizer.state
    bad = np.ones((4, 2))
    bad[2, 1] = np.nan
    with pytest.raises(tr.TinyRNNError, match=r"step 1: the loss is not finite; first: the data hold nan at \[2, 1\] of x. The weights are those before"):
        model.fit(bad, np.ones((4, 2)), loss="mse", optimizer=optimizer, progress=False, shuffle=False)
    for name, w in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], w)
    assert optimizer.state["step"] == state["step"]
    for name, kept in state["of"].items():
        for slot, v in kept.items():
            np.testing.assert_array_equal(optimizer.state["of"][name][slot], v)


def test_what_can_be_read():
    layer = tr.nn.GRU(3, 4, rng=0)
    weights = dict(layer.named_parameters())

    @tr.compile
    def train(x):
        """One step."""
        loss = (layer(x)[0] ** 2).sum()
        return loss, tr.grad(loss, weights)

    for read in ("stages", "source", "cost", "kernels"):
        with pytest.raises(tr.TinyRNNError, match=r"nothing was traced yet: call the program once, or program\.trace"):
            getattr(train, read)
    assert train.trace(np.ones((2, 5, 3), "f")) is train
    assert [name for name, _ in train.stages] == ["trace", *(name for name, _ in PIPELINE)]
    assert "for t in 1..T:" in train.source
    assert "r = sigmoid(" in train.source
    assert train.cost.flops > 1000 < train.cost.memory
    assert sum(k.flops for k in train.kernels) == train.cost.flops
    before = layer.state_dict()
    measured = train.profile(np.ones((2, 5, 3), "f"))
    assert [k.what for k in measured] == [k.what for k in train.kernels]
    assert all(k.seconds > 0 for k in measured)
    for name, w in before.items():
        np.testing.assert_array_equal(layer.state_dict()[name], w)
    assert train.prove().holds
    assert (train.__name__, train.__doc__) == ("train", "One step.")


def test_bad_use_is_refused():
    with pytest.raises(tr.TinyRNNError, match="there is no backend 'tpu'; there are numpy, cpu, cuda"):
        tr.compile(lambda x: x, backend="tpu")
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(tr.TinyRNNError, match=r"threads=.*: expected a whole number from 1"):
            tr.compile(lambda x: x, threads=bad)
    with pytest.raises(tr.TinyRNNError, match="a profile needs compiled kernels"):
        Program(lambda x: x, "numpy").profile(np.ones(2))
    with pytest.raises(tr.TinyRNNError, match=r"its arguments have no values: use tr\.where instead of if"):
        tr.compile(lambda x: x if float(x.sum()) > 0 else -x)(np.ones(2))


def test_threads_are_taken_from_the_environment(monkeypatch):
    from tinyrnn.backends import default_threads

    monkeypatch.setenv("TINYRNN_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("TINYRNN_THREADS", "many")
    with pytest.raises(tr.TinyRNNError, match="threads='many': expected a whole number from 1"):
        default_threads()


def test_a_layer_inside_remat_leaves_what_others_read_alone():
    """A scan inside a region must not overwrite a sequence that the outside reads later."""
    cell = tr.Cell("h[t] = tanh(x[t] + u * h[t-1])", name="plain")
    layer = tr.nn.Recurrent(cell, h=5, dtype="float64", rng=0)
    W = tr.parameter(np.random.default_rng(0).normal(size=(5, 5)), name="W")
    weights = {**dict(layer.named_parameters()), "W": W}

    def train(x):
        z = x @ W
        y = tr.remat(lambda z: layer(z)[0])(z)
        loss = (y * z).sum() + (z * z).sum()
        return loss, tr.grad(loss, weights)

    x = np.random.default_rng(1).normal(size=(3, 6, 5))
    found, expected = tr.compile(train)(x), tr.compile(train, backend="numpy")(x)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    for name, g in expected[1].items():
        np.testing.assert_allclose(found[1][name], g, rtol=1e-10, err_msg=name)
