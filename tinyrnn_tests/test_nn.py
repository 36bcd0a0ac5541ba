"""Layers and training: parameters found, modes, batches, masks, generation, files."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import LoadError, NonFiniteError


def small_model(dropout=0.0):
    return tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.GRU(4, 8, rng=1), tr.nn.Dropout(dropout, rng=2),
                            tr.nn.Linear(8, 9, rng=3))


def counting(rows=60, steps=6, rng=0):
    """Sequences that count upwards modulo 9: the next number is learnable."""
    start = np.random.default_rng(rng).integers(0, 9, (rows, 1))
    x = (start + np.arange(steps)) % 9
    return x, (x + 1) % 9


def test_parameters_are_found_in_attributes():
    shared = tr.parameter([1.0], name="shared")

    class Model(tr.nn.Module):
        def __init__(self):
            self.layers = [tr.nn.Linear(2, 3, rng=0), {"a": tr.nn.Linear(3, 1, bias=False, rng=1)}]
            self.one, self.other = shared, shared
            self.constant = tr.tensor([2.0])
            self.note = "text"

    m = Model()
    assert [k for k, _ in m.named_parameters()] == ["layers.0.weight", "layers.0.bias", "layers.1.a.weight", "one"]
    m.layers[0].parent = m
    assert len(m.parameters()) == 4
    assert set(m.state_dict()) == {"one", "constant", "layers.0.weight", "layers.0.bias", "layers.1.a.weight"}
    m.train()
    assert all(x.training for _, x in m.named_modules())
    assert not any(x.training for _, x in m.eval().named_modules())
    with pytest.raises(NotImplementedError, match="Model has no __call__"):
        m(1)


def test_state_dict_is_all_or_nothing():
    a, b = small_model(), small_model()
    for t in b.parameters():
        t.assign(t.numpy() + 1)
    a.load_state_dict(b.state_dict())
    assert all(np.array_equal(x.numpy(), y.numpy()) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    state = b.state_dict()
    with pytest.raises(LoadError, match=r"missing layers.3.bias.*unknown z"):
        a.load_state_dict({**{k: v for k, v in state.items() if k != "layers.3.bias"}, "z": 0})
    before = a.state_dict()
    with pytest.raises(tr.TinyRNNError, match=r"layers.3.weight has shape \[9,8\]"):
        a.load_state_dict({**{k: v + 1 for k, v in state.items()}, "layers.3.weight": np.zeros((2, 2))})
    assert all(np.array_equal(v, before[k]) for k, v in a.state_dict().items())


def test_dropout():
    layer = tr.nn.Dropout(0.25, rng=0)
    x = np.ones((100, 100))
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert not np.array_equal(y, layer(x).numpy())
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x)
    stacked = tr.nn.LSTM(3, 4, num_layers=2, dropout=0.5, rng=0)
    x = np.ones((2, 5, 3), "f4")
    assert not np.array_equal(stacked(x)[0].numpy(), stacked(x)[0].numpy())
    stacked.eval()
    np.testing.assert_array_equal(stacked(x)[0].numpy(), stacked(x)[0].numpy())
    with pytest.raises(tr.TinyRNNError, match="0 <= p < 1"):
        tr.nn.Dropout(1.0)


def test_dropout_gradient_uses_the_mask_of_its_forward():
    layer, w = tr.nn.Dropout(0.5, rng=0), tr.parameter(np.ones(1000))
    y = layer(w)
    y.sum().backward()
    again = tr.Graph({"y": y}).run()["y"]
    np.testing.assert_array_equal(w.grad, again)


def test_fit_learns_and_is_repeatable():
    x, y = counting()
    results = []
    for _ in range(2):
        model = small_model(0.1)
        seen = []
        history = model.fit(x, y, optimizer=tr.optim.Adam(0.02), epochs=25, metrics=("accuracy",), rng=3,
                            validation=(x[:10], y[:10]), callbacks=[lambda e, n, seen=seen: seen.append((e, n["loss"]))])
        results.append((model.state_dict(), history["loss"]))
        assert [e for e, _ in seen] == list(range(1, 26))
    assert all(np.array_equal(results[0][0][k], results[1][0][k]) for k in results[0][0])
    assert results[0][1] == results[1][1]
    assert history["accuracy"][-1] > 0.95
    assert history["val_loss"][-1] < 0.3 * history["val_loss"][0]
    assert not model.training
    scores = model.evaluate(x[:10], y[:10])
    assert scores["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    with pytest.raises(tr.TinyRNNError, match="give loss="):
        small_model().evaluate(x, y)


def test_fit_is_the_manual_loop():
    """One full batch without shuffling: fit, and the loop with backward and opt.step, give the same weights."""
    x, y = counting(8)
    a, b = small_model(), small_model()
    a.fit(x, y, optimizer=tr.optim.SGD(0.1, clip_norm=0.5), epochs=3, batch_size=8, shuffle=False)
    opt = tr.optim.SGD(0.1, clip_norm=0.5)
    for _ in range(3):
        tr.nn.cross_entropy(b(x), y).backward()
        opt.step(b.parameters())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


def test_padding_reaches_neither_loss_nor_weights():
    x, y = counting(20)
    lengths = np.random.default_rng(1).integers(1, 7, 20)
    beyond = np.arange(6) >= lengths[:, None]
    states = []
    for filler in (0, 8):
        model = small_model()
        model.fit(np.where(beyond, filler, x), np.where(beyond, filler, y), lengths=lengths, rng=0, epochs=2,
                  optimizer=tr.optim.Adam(0.01), metrics=("accuracy",))
        states.append(model.state_dict())
    assert all(np.array_equal(states[0][k], states[1][k]) for k in states[0])


def test_mean_over_batches_is_the_mean_over_targets():
    x, y = counting(7)
    lengths = np.array([6, 1, 3, 2, 6, 5, 1])
    model = small_model()
    small = model.evaluate(x, y, loss="cross_entropy", metrics=("accuracy",), lengths=lengths, batch_size=2)
    whole = model.evaluate(x, y, loss="cross_entropy", metrics=("accuracy",), lengths=lengths)
    assert small["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert small["accuracy"] == pytest.approx(whole["accuracy"], rel=1e-5)


def test_regression_with_last_and_mse():
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(80, 5, 1)).astype("f4"), rng.integers(1, 6, 80)
    valid = np.arange(5) < lengths[:, None]
    y = (x[..., 0] * valid).sum(1, keepdims=True)
    model = tr.nn.Sequential(tr.nn.RNN(1, 16, rng=0), tr.nn.Last(), tr.nn.Linear(16, 1, rng=1))
    history = model.fit(x, y, loss="mse", optimizer=tr.optim.Adam(0.02), epochs=30, lengths=lengths, rng=0)
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert model.predict(x, lengths=lengths, batch_size=7).shape == (80, 1)
    np.testing.assert_allclose(model.predict(x, lengths=lengths, batch_size=7), model.predict(x, lengths=lengths),
                               rtol=1e-4, atol=1e-6)


def test_not_finite_stops_before_the_update():
    model = tr.nn.Sequential(tr.nn.Linear(2, 1, rng=0))
    before = model.state_dict()
    x = np.ones((4, 2))
    x[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match="epoch 1/1, step 1: the loss is not finite"):
        model.fit(x, np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1))
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("arguments", "message"), [
    ({"loss": "crossentropy"}, "no loss 'crossentropy'; known are bce, bce_with_logits, cross_entropy, mse, nll"),
    ({"metrics": ("f2",)}, "no metric 'f2'"), ({"batch_size": 0}, "batch_size=0"), ({"backend": "cuda"}, "'cuda' cannot run"),
    ({"lengths": [7] * 60}, "between 0 and the number of steps, 6"), ({"lengths": [1, 2]}, "one length for each of 60 rows, got 2")])
def test_mistakes_in_fit(arguments, message):
    x, y = counting()
    with pytest.raises(tr.TinyRNNError, match=message):
        small_model().fit(x, y, optimizer=tr.optim.SGD(0.1), **arguments)


def test_mistakes_in_layers():
    layer = tr.nn.LSTM(3, 4)
    for use, message in ((lambda: layer(np.zeros((2, 5, 2))), r"input x has shape \[2,5,2\], expected \[B, T, 3\], or \[T, 3\]"),
                         (lambda: layer(np.zeros((2, 5, 3)), np.zeros((1, 2, 4))), r"the state is h \[1,2,4\] and c \[1,2,4\]; got \[1,2,4\]"),
                         (lambda: layer(np.zeros((2, 5, 3)), lengths=[5]), "one length for each of 2 rows"),
                         (lambda: layer(np.zeros((2, 5, 3)), mask=np.ones((2, 5))), "a mask is bool"),
                         (lambda: tr.nn.LSTM(3, 4, bidirectional=True).step(np.zeros((2, 3))), "reads the future"),
                         (lambda: tr.nn.Recurrent(tr.cells.GRU, x=2, h=3)({"u": np.ones((2, 3, 2))}), "has the inputs x; got u"),
                         (lambda: tr.nn.Recurrent(tr.cells.GRU, x=2, h=3).step(np.ones((2, 3))), r"expected \[B, 2\]"),
                         (lambda: tr.nn.LSTM(0, 4), "input_size=0"), (lambda: tr.nn.GRU(2, 2.5), "hidden_size=2.5"),
                         (lambda: tr.nn.Linear(3, 2)(np.zeros((2, 4))), "last axis must be 3"),
                         (lambda: tr.nn.Embedding(3, 2)(np.zeros((2, 2))), "whole numbers"),
                         (lambda: tr.nn.Embedding(3, 2)([[5]]).numpy(), "index 5"),
                         (lambda: tr.nn.cross_entropy(np.zeros((2, 3)), [0, 1, 2]), "whole-number targets")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()


def test_empty_batches_and_sequences():
    layer = tr.nn.GRU(3, 4, rng=0)
    y, h = layer(np.zeros((0, 5, 3), "f4"))
    assert y.shape == (0, 5, 4)
    assert h.numpy().shape == (1, 0, 4)
    start = np.ones((1, 2, 4), "f4")
    y, h = layer(np.zeros((2, 0, 3), "f4"), start)
    assert y.numpy().shape == (2, 0, 4)
    np.testing.assert_array_equal(h.numpy(), start)


def test_generate():
    x, y = counting()
    model = small_model()
    model.fit(x, y, optimizer=tr.optim.Adam(0.02), epochs=30, rng=0)
    np.testing.assert_array_equal(model.generate([3, 4], 5, temperature=0), [3, 4, 5, 6, 7, 8, 0])
    drawn = model.generate([[1], [2]], 6, rng=1, temperature=3.0)
    assert drawn.shape == (2, 7)
    np.testing.assert_array_equal(drawn, model.generate([[1], [2]], 6, rng=1, temperature=3.0))
    np.testing.assert_array_equal(model.generate([5], 6, temperature=5.0, top_k=1, rng=0), [5, 6, 7, 8, 0, 1, 2])
    np.testing.assert_array_equal(model.generate([5], 5, temperature=0, stop=7), [5, 6, 7, 7, 7, 7])
    for bad in ({"temperature": -1}, {"top_k": 0}):
        with pytest.raises(tr.TinyRNNError, match="expected"):
            model.generate([1], 2, **bad)
    with pytest.raises(tr.TinyRNNError, match="at least one"):
        model.generate([[]], 2)


def test_summary_lists_everything():
    text = repr(small_model().summary())
    assert "layers.1  GRU         weight_ih_l0 [24,4]" in text
    assert text.endswith("453 parameters")


# ---- files

CELL = tr.Cell("A: (h, h) fixed\nh[0]: learned\nh[t] = tanh(W @ x[t] + A @ h[t-1])", "leaky")


def models():
    yield small_model(0.3)
    yield tr.nn.Sequential(tr.nn.Recurrent(CELL, x=2, h=3, fixed={"A": np.eye(3) / 2}, rng=0), tr.nn.Last())
    yield tr.nn.LSTM(2, 3, num_layers=2, bidirectional=True, forget_bias=1.0, rng=0)
    yield tr.nn.RNN(2, 3, nonlinearity="relu", batch_first=False, dtype="float64", rng=0)


def test_save_and_load_keep_everything(tmp_path):
    for i, model in enumerate(models()):
        file = tmp_path / f"{i}.safetensors"
        model.save(file)
        back = tr.load(file)
        assert type(back) is type(model)
        assert not back.training
        x = np.ones((2, 4), int) if i == 0 else np.ones((2, 4, 2))
        found, expected = (m(x) for m in (back, model.eval()))
        found, expected = (y[0] if isinstance(y, tuple) else y for y in (found, expected))
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        assert back.state_dict().keys() == model.state_dict().keys()
    assert tr.load(tmp_path / "1.safetensors").layers[0].cell == CELL


def test_shared_parameters_stay_shared(tmp_path):
    """Tied embedding and output weights: one gradient, one place in the file, one parameter after loading."""
    model = tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.GRU(4, 4, rng=1), tr.nn.Linear(4, 9, bias=False, rng=2))
    model.layers[2].weight = model.layers[0].weight
    x, y = counting(20)
    assert [k for k, _ in model.named_parameters()].count("layers.2.weight") == 0
    model.fit(x, y, optimizer=tr.optim.Adam(0.01), epochs=2, rng=0)
    assert model.layers[2].weight is model.layers[0].weight
    model.save(tmp_path / "m.safetensors")
    assert "layers.2.weight" not in tr.io.read_weights(tmp_path / "m.safetensors")[0]
    back = tr.load(tmp_path / "m.safetensors")
    assert back.layers[2].weight is back.layers[0].weight
    np.testing.assert_array_equal(back.predict(x), model.predict(x))
    twice = tr.nn.Linear(3, 3, rng=0)
    tr.nn.Sequential(twice, twice).save(tmp_path / "t.safetensors")
    assert len(tr.load(tmp_path / "t.safetensors").parameters()) == 2


def test_a_model_of_ones_own_saves_weights(tmp_path):
    class Own(tr.nn.Module):
        def __init__(self):
            self.layer = tr.nn.Linear(2, 1, rng=0)
    Own().save(tmp_path / "own.safetensors")
    with pytest.raises(LoadError, match="without a description"):
        tr.load(tmp_path / "own.safetensors")
    arrays, _ = tr.io.read_weights(tmp_path / "own.safetensors")
    Own().load_state_dict(arrays)


def tampered(data, change):
    size = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


HOSTILE = {
    "empty": lambda d: b"", "short": lambda d: d[:7], "cut": lambda d: d[:-5], "trailing": lambda d: d + b"x",
    "huge header": lambda d: (2**63).to_bytes(8, "little") + d[8:], "not json": lambda d: tampered(d, lambda h: b"{" + b"x" * 50),
    "leading space": lambda d: tampered(d, lambda h: b" " + h), "array": lambda d: tampered(d, lambda h: b"[1, 2]"),
    "duplicate key": lambda d: tampered(d, lambda h: h[:1] + b'"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' + h[1:]),
    "path as a name": lambda d: tampered(d, lambda h: h.replace(b'"weight"', b'"../../w"')),
    "unknown dtype": lambda d: tampered(d, lambda h: h.replace(b'"F32"', b'"F31"', 1)),
    "deep json": lambda d: tampered(d, lambda h: b'{"a":' * 100_000),
    "negative shape": lambda d: tampered(d, lambda h: h.replace(b'"shape":[1]', b'"shape":[-1]')),
    "unknown layer": lambda d: tampered(d, lambda h: h.replace(b'\\"Linear\\"', b'\\"os.system\\"')),
    "unknown argument": lambda d: tampered(d, lambda h: h.replace(b'\\"in_features\\"', b'\\"__class__\\"')),
    "wrong size": lambda d: tampered(d, lambda h: h.replace(b'\\"in_features\\": 2', b'\\"in_features\\": 3')),
    "deep model": lambda d: tampered(d, lambda h: h.replace(b'{\\"kind\\": \\"Linear\\"', b'{\\"kind\\": \\"Sequential\\", \\"layers\\": [' * 400)),
    "huge model": lambda d: tampered(d, lambda h: h.replace(b'\\"in_features\\": 2', b'\\"in_features\\": 2000000000000')),
    "shared with nobody": lambda d: tampered(d, lambda h: h.replace(b'"shared":"{}"', b'"shared":"{\\"a\\": 3}"')),
    "metadata": lambda d: tampered(d, lambda h: h.replace(b'"tinyrnn":"1"', b'"tinyrnn":{}')),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, tmp_path):
    file = tmp_path / "m.safetensors"
    tr.nn.Linear(2, 1, rng=0).save(file)
    good = file.read_bytes()
    bad = HOSTILE[name](good)
    assert bad != good
    file.write_bytes(bad)
    with pytest.raises(LoadError, match=r"m\.safetensors"):
        tr.load(file)


def test_bools_are_zero_or_one(tmp_path):
    from safetensors.numpy import save
    file = tmp_path / "b.safetensors"
    file.write_bytes(save({"mask": np.array([True, False])})[:-1] + b"\x07")
    with pytest.raises(LoadError, match="neither 0 nor 1"):
        tr.io.read_weights(file)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "m.safetensors"
    tr.nn.Linear(2, 1, rng=0).save(file)
    before = file.read_bytes()

    def full_disk(fd):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        tr.nn.Linear(3, 1, rng=0).save(file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_loadable_file(tmp_path):
    """A process that saves two models in turn is killed 25 times at random moments."""
    file = tmp_path / "m.safetensors"
    code = textwrap.dedent("""
        import sys, tinyrnn as tr
        models = [tr.nn.Linear(300, n, rng=0) for n in (400, 500)]
        models[0].save(sys.argv[1]); print("ready", flush=True)
        while True:
            for m in models: m.save(sys.argv[1])
    """)
    rng = np.random.default_rng(0)
    for _ in range(25):
        with subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        assert tr.load(file).weight.shape[0] in (400, 500)
