"""Mistakes that were made once, each with the smallest input that showed it."""

import copy
import pickle

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.ir import check
from tinyrnn.passes import partition, unroll
from tinyrnn.testing import check_gradients, random_values

from .oracles import assert_close


def second_order_graph():
    rng = np.random.default_rng(0)
    W, x = tr.parameter(rng.normal(size=(3, 3))), tr.tensor(rng.normal(size=(4, 2, 3)))
    _, y = tr.scan(lambda h, v: (tr.tanh(tr.sin(h) @ W + v),) * 2, tr.tensor(rng.normal(size=(2, 3))), x)
    g = tr.grad((y * y).sum(), W)
    return tr.Graph({"g": g, "second": tr.grad((g * g).sum(), W)})


def test_save_leaves_the_backward_of_a_backward_right():
    graph = second_order_graph()
    expected = graph.run()
    for other in (check(partition(graph)), check(unroll(partition(graph)))):
        for k, v in other.run().items():
            assert_close(v, expected[k], 1e-13)


def test_fit_with_a_gradient_penalty():
    layer = tr.nn.GRU(2, 3, rng=0)

    def penalised(output, target, mask=None):
        loss = tr.nn.mse(output, target)
        g = tr.grad(loss, layer.weight_hh_l0)
        return loss + 0.1 * (g * g).sum()

    x = np.random.default_rng(0).normal(size=(6, 5, 2))
    history = layer.fit(x, np.ones((6, 5, 3)), loss=penalised, optimizer=tr.optim.SGD(0.1), epochs=3)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("view", [lambda W: W.T, lambda W: W.reshape(1, 9)])
def test_captured_views_are_intermediates_of_their_own(view):
    W = tr.parameter(np.random.default_rng(0).normal(size=(3, 3)))
    z = view(W)
    square = z if z.shape == (3, 3) else tr.concat([z[:, :3], z[:, 3:6], z[:, 6:]], 0)
    use = lambda s: square @ s
    h, _ = tr.scan(lambda s, v: (tr.tanh(use(s) + v), None), tr.tensor(np.ones(3)), tr.tensor(np.ones((4, 3))))
    dz, dW = tr.grad(h.sum(), [z, W])
    assert dz.numpy().any()
    assert_close(np.sort(dz.numpy(), axis=None), np.sort(dW.numpy(), axis=None), 1e-14)
    assert tr.grad(tr.remat(lambda a: use(a).sum())(tr.tensor(np.ones(3))), z).numpy().any()


def test_an_accumulator_that_broadcasts_is_no_plain_sum():
    zero = tr.grad(tr.tensor(0.0) * tr.parameter(0.0), tr.parameter(np.zeros(3)))
    total, _ = tr.scan(lambda s, x: (s + x, None), zero, tr.tensor(np.ones(4)))
    graph = tr.Graph({"s": total})
    np.testing.assert_array_equal(unroll(graph).run()["s"], graph.run()["s"])


def test_simplifications_keep_promotion_and_shape():
    f32, f64, ints = tr.tensor(np.ones(3, "f4")), tr.tensor(np.full(3, 1.5)), tr.tensor(np.arange(3))
    assert tr.stack([f32, f64])[0].dtype == tr.concat([f32, f64])[0:2].dtype == np.float64
    assert tr.concat([ints, f64])[0:2].dtype == np.float64
    ones = tr.grad(tr.parameter(np.ones(3)).sum(), tr.parameter(np.ones(3))) + tr.grad(f64.sum() * 1.0, f64)
    assert (tr.parameter(2.0) ** ones).shape == (3,)
    assert (f32**ones).dtype == np.float64


def test_declared_dtypes_are_those_of_the_values():
    ints, small, flags = tr.tensor(np.arange(3)), tr.tensor(np.arange(3, dtype="u1")), tr.tensor([True, False, True])
    cases = [ints / 2, ints / ints, small.sum(), tr.cumsum(small), flags.sum(), tr.cumsum(flags), ints.mean(), small.min(),
             flags.min(), ints**2, -ints, abs(ints), ints * flags, small + 1, tr.maximum(ints, 1), ints.argmax(), tr.sign(ints)]
    for t in cases:
        assert t.numpy().dtype == t.dtype, t
    assert tr.min(np.array([0, 1], "u1")).item() == 0
    assert tr.min(np.array([-128, 1], "i1")).item() == -128
    a = tr.parameter(np.ones(2, "f4"))
    assert tr.jvp((a + f64_ones()).sum(), {a: np.ones(2, "f4")}).dtype == np.float64
    for wrong in (lambda: ~ints, lambda: ints & ints, lambda: flags - flags, lambda: ints**-1):
        with pytest.raises(tr.TinyRNNError):
            wrong()


def f64_ones():
    return tr.tensor(np.ones(2))


def test_values_that_do_not_fit_an_input_are_refused():
    for dtype, value in (("int8", 300), ("float32", 1e300)):
        with pytest.raises(tr.TinyRNNError, match="do not fit"):
            tr.Graph({"y": tr.input("x", (1,), dtype) + 1}).run({"x": [value]})


def test_padding_with_nan_reaches_no_layer():
    model = tr.nn.Sequential(tr.nn.Linear(3, 3, rng=0), tr.nn.LSTM(3, 4, rng=1), tr.nn.Linear(4, 2, rng=2))
    x = np.ones((2, 5, 3))
    x[0, 3:] = np.nan
    mask = np.arange(5) < np.array([[3], [5]])
    tr.nn.mse(model(x, lengths=[3, 5]), np.zeros((2, 5, 2)), mask=mask).backward()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())
    assert np.isfinite(model.fit(x, np.zeros((2, 5, 2)), loss="mse", lengths=[3, 5], optimizer=tr.optim.SGD(0.1))["loss"][0])
    assert np.isfinite(tr.nn.Last()(x, lengths=[3, 5]).numpy()).all()


def test_targets_per_row_are_not_taken_for_targets_per_step():
    """Four steps, four outputs: only the model can tell which is which."""
    model = tr.nn.Sequential(tr.nn.LSTM(3, 5, rng=0), tr.nn.Last(), tr.nn.Linear(5, 4, rng=1))
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)), np.ones((2, 4))
    for lengths in ([4, 2], [3, 2]):
        assert model.evaluate(x, y, loss="mse", lengths=lengths)["loss"] == pytest.approx(
            float(tr.nn.mse(model(x, lengths=lengths), y)))


def test_evaluate_sees_the_model_as_it_is_now():
    model = tr.nn.Sequential(tr.nn.Linear(3, 2, rng=0))
    x, y = np.eye(3), np.array([0, 1, 0])
    model.fit(x, y, optimizer=tr.optim.SGD(0.1))
    assert set(model.evaluate(x, y, metrics=("accuracy",))) == {"loss", "accuracy"}
    model.layers[0] = tr.nn.Linear(3, 2, rng=5)
    assert model.evaluate(x, y)["loss"] == pytest.approx(float(tr.nn.cross_entropy(model(x), y)))


def test_a_stream_in_evaluation_mode_keeps_no_history():
    for layer in (tr.nn.LSTM(3, 4, rng=0), tr.nn.Recurrent(tr.cells.GRU, x=3, h=4, rng=0)):
        x = np.random.default_rng(0).normal(size=(1, 30, 3))
        expected = layer(x)[0].numpy()
        layer.eval()
        state = None
        for t in range(30):
            y, state = layer.step(x[:, t], state)
            np.testing.assert_allclose(y.numpy(), expected[:, t], rtol=1e-5, atol=1e-6)
            assert all(s.is_leaf for s in state)
        layer.train()
        assert not layer.step(x[:, 0])[0].is_leaf
    t = tr.parameter(2.0)
    assert float((t * t).detach()) == 4


@pytest.mark.parametrize("text", [
    "a0[t] = x[t]\n" + "".join(f"a{i + 1}[t] = [a{i}[t], a{i}[t]]\n" for i in range(60)) + "h[t] = W @ a60[t] + U @ h[t-1]",
    "".join(f"a{i + 1}[t] = tanh(a{i}[t])\n" for i in reversed(range(400))) + "a0[t] = x[t] + h[t-1]\nh[t] = a400[t]"])
def test_long_cells_are_answered_soon(text):
    """The first would have sizes of 2^60 terms, the second settled its ranks one line at a time."""
    if "[a0[t], a0[t]]" in text:
        with pytest.raises(tr.EquationError, match="sum of more than") as caught:
            tr.Cell(text)
        assert caught.value.line == 8
    else:
        assert tr.Cell(text).states == ("h",)


def test_check_gradients_counts_nan_and_allows_zero():
    x, w = tr.input("x", (2,)), tr.input("w", (2,))
    loss = (x * x).sum()
    good = {"loss": loss, "dloss/dx": tr.grad(loss, x), "dloss/dw": tr.grad(loss, w)}
    values = {"x": np.array([1.0, 2.0])}
    assert check_gradients(tr.Graph(good), values).holds
    bad = tr.Graph({**good, "dloss/dw": w * np.nan})
    assert not check_gradients(bad, {**values, "w": np.ones(2)}).holds
    flat = tr.Cell("h[t] = softmax(W @ x[t] + U @ h[t-1])").unroll(3, gradients=True)
    assert check_gradients(flat, random_values(flat, rng=0)).holds


def test_copies_and_pickles():
    layer = tr.nn.LSTM(3, 4, rng=0)
    best = copy.deepcopy(layer)
    layer.weight_hh_l0.assign(np.zeros((16, 4)))
    assert best.weight_hh_l0.numpy().any()
    assert best(np.ones((1, 2, 3)))[0].numpy().any()
    again = pickle.loads(pickle.dumps(best))
    assert np.array_equal(again.weight_hh_l0.numpy(), best.weight_hh_l0.numpy())


def test_written_out_arrays_are_arrays():
    assert tr.value_and_grad(lambda x: (x * x).sum())([[1.0, 2.0], [3.0, 4.0]])[1].tolist() == [[2, 4], [6, 8]]
    last, _ = tr.scan(lambda s, x: ((s[0] + x, s[1] * x), s), (0.0, 1.0), [1.0, 2.0, 3.0])
    assert [float(s) for s in last] == [6, 6]
    assert tr.scan(lambda s, x: (s * 2.0, s), tr.tensor(1.0), (), steps=3)[1].tolist() == [1, 2, 4]
    assert tr.grad(tr.parameter(1.0) * 2.0, []) == []


def test_optimisers_belong_to_one_model():
    opt = tr.optim.Adam(0.1)
    for n in (3, 4):
        p = tr.parameter(np.ones(n), name="step")
        (p * p).sum().backward()
        if n == 4:
            with pytest.raises(tr.TinyRNNError, match="a new optimiser for each model"):
                opt.step([p])
        else:
            opt.step([p])
    _, state = opt.update({"step": np.ones(2)}, {"step": np.ones(2)}, {})
    assert state["step"] == 1
    assert "m" in state["of"]["step"]


@pytest.mark.parametrize(("text", "message", "line"), [
    ("f[t] = sigmoid(W @ x[t])\nh[t] = ff[t] * h[t-1]", "inputs: x, ff", 1), ("h[t] = x[t] + h[t-1]\noutputs: q", "output 'q'", 2),
    ("h[t] = x[t] + h[t-1]\nq[0]: learned", "not an initial value", 2), ("outputs: h\noutputs: h\nh[t] = x[t]", "twice", 2),
    ("h[t] = 1", "input such as", 1), ("b = 2\nh[t] = x[t]", "no equation uses it", 1),
    ("h[t] = b" + ".T" * 20_000 + " @ x[t]", "operators", 1)])
def test_every_error_has_its_place(text, message, line):
    with pytest.raises(tr.EquationError, match=message) as caught:
        tr.Cell(text)
    assert caught.value.line == line
    assert len(str(caught.value)) < 700


def test_longer_lags_are_drawn():
    cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-3] + P @ x[t-1])")
    wires = [p for p in tr.draw(cell, steps=5, gradients=True, show="all").scene.parts if getattr(p, "kind", "") == "forward"]
    ends = [[e.rpartition("-") for e in w.ends] for w in wires if not w.ends[1].startswith(("loss", "key"))]
    between = [(a[0], b[0]) for a, b in ends if a[2] != b[2]]
    assert len(between) == 4 * 4  # h[t-1], h[t-2], h[t-3] and x[t-1] are each handed on four times


def test_scalars_keep_their_shape_in_files(tmp_path):
    layer = tr.nn.Recurrent(tr.Cell("alpha: scalar\nh[t] = alpha * h[t-1] + U @ x[t]"), x=2, h=3, rng=0)
    layer.save(tmp_path / "s.safetensors")
    x = np.ones((1, 4, 2))
    np.testing.assert_array_equal(tr.load(tmp_path / "s.safetensors").predict(x), layer.predict(x))


def test_entries_that_do_not_count_reach_no_loss():
    target = np.array([[1.0, np.nan], [2.0, 3.0]])
    p = tr.parameter(np.ones((2, 2)))
    assert_close(tr.grad(tr.nn.mse(p, target, mask=~np.isnan(target)), p).numpy(), [[0, 0], [-2 / 3, -4 / 3]], 1e-15)
    logits = tr.parameter(np.array([[1.0, 2.0], [np.nan, np.inf]]))
    g = tr.grad(tr.nn.cross_entropy(logits, [0, 1], mask=[True, False]), logits).numpy()
    assert np.isfinite(g).all()
    assert not g[1].any()


def test_square_targets_without_lengths_are_just_targets():
    x = np.random.default_rng(0).normal(size=(32, 4))
    model = tr.nn.Sequential(tr.nn.Linear(4, 4, rng=0))
    history = model.fit(x, x, loss="mse", optimizer=tr.optim.Adam(0.05), epochs=20, rng=0)
    assert history["loss"][-1] < history["loss"][0]
    assert model.evaluate(x, x)["loss"] == pytest.approx(float(tr.nn.mse(model(x), x)), rel=1e-5)


def test_time_major_layers_and_lengths():
    layer = tr.nn.GRU(2, 3, rng=0, batch_first=False, dtype="float64")
    x, lengths = np.random.default_rng(0).normal(size=(4, 4, 2)), [4, 1, 4, 2]
    np.testing.assert_array_equal(tr.nn.Sequential(layer)(x, lengths=lengths).numpy(), layer(x, lengths=lengths)[0].numpy())
    with pytest.raises(tr.TinyRNNError, match="take rows first"):
        layer.predict(x, lengths=lengths)


def test_nested_scans_that_feed_a_sum_are_unrolled():
    h, x = tr.input("h", (2,)), tr.input("x", (3, 2))

    def outer(s, v):
        q, _ = tr.scan(lambda q, z: (tr.tanh(q + z), q), v, tr.stack([v, v * 2.0]))
        return s + q, s * 1.0

    graph = tr.Graph({"s": tr.scan(outer, h, x)[0]})
    explicit = unroll(graph)
    assert not any(n.op.name == "scan" for n in explicit.nodes)
    values = {"h": np.ones(2), "x": np.random.default_rng(0).normal(size=(3, 2))}
    np.testing.assert_array_equal(explicit.run(values)["s"], graph.run(values)["s"])


def test_modes_are_restored_one_by_one():
    model = tr.nn.Sequential(tr.nn.Dropout(0.5), tr.nn.Linear(2, 2))
    model.layers[0].eval()
    model.predict(np.ones((2, 2)))
    assert [m.training for _, m in model.named_modules()] == [True, False, True]


@pytest.mark.parametrize("use", [
    lambda: tr.nn.Linear(1, 1).load_state_dict({"weight": [[5.0]], "bias": ["a"]}),
    lambda: tr.nn.GRU(2, 3).step(np.ones(2)), lambda: tr.nn.LSTM(3, 3).step(1.0),
    lambda: tr.nn.GRU(2, 3).predict(np.ones((6, 4, 2)), lengths=[2, 2]),
    lambda: tr.nn.GRU(2, 3).predict(np.ones((6, 4, 2)), lengths=[2] * 9),
    lambda: tr.nn.Last()(np.ones((2, 5, 3)), lengths=[9, 1]), lambda: tr.nn.LSTM(2, 3)(np.ones((1, 2, 2)), 3.0),
    lambda: tr.nn.Recurrent(tr.cells.LSTM, x=2, h=3)(np.ones((1, 2, 2)), 3.0),
    lambda: tr.nn.Linear(1, 1).fit([[1.0], [1.0, 2.0]], [[1.0], [2.0]], optimizer=tr.optim.SGD(0.1)),
    lambda: tr.nn.Linear(1, 1).fit([[1.0]], [[1.0]], loss="mse", optimizer=tr.optim.SGD(0.1), batch_size=2.5),
    lambda: tr.nn.Linear(1, 1).fit([[1.0]], [[1.0]], loss="mse", optimizer=tr.optim.SGD(0.1), validation=([[1.0]],))])
def test_mistakes_are_named(use):
    with pytest.raises(tr.TinyRNNError):
        use()


def test_the_zoo_can_be_walked():
    assert list(tr.cells) == list(tr.cells.names())
    assert tr.nn.Linear(1, 2, rng=0).evaluate(np.ones((2, 3, 1)), np.zeros((2, 3), int), loss="cross_entropy",
                                               lengths=[0, 0])["loss"] == 0
