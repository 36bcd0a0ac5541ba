"""Nothing is lost on the way in or out: data of every kind, names, dtypes, frozen weights, folders."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tinyrnn as tr

RNG = np.random.default_rng(8)
X, Y = RNG.normal(size=(6, 4, 3)), np.array([0, 1, 0, 1, 1, 0])


def model():
    return tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))


def loss_of(x, y=Y):
    return model().fit(x, y, optimizer=tr.optim.SGD(0.1), rng=0)["loss"]


# ---- what is read

def ragged(lengths=(3, 4, 1, 2, 4, 2)):
    return [X[i, :n] for i, n in enumerate(lengths)]


def objects(rows):
    out = np.empty(len(rows), object)
    out[:] = rows
    return out


def test_ragged_rows_in_an_array_of_objects_are_rows():
    assert loss_of(objects(ragged())) == loss_of(ragged())
    for found, row in zip(tr.nn.GRU(3, 4, rng=0).predict(objects(ragged())), ragged(), strict=True):
        assert found.shape == (len(row), 4)


def test_columns_of_data_frames():
    plain = pd.DataFrame(X[0], columns=list("abc"))
    mixed = pd.DataFrame({"a": [0.5, 1.0], "b": pd.array([1, 2], dtype="Int64"), "c": [True, False]})
    flags = pd.DataFrame({"a": pd.array([True, False], dtype="boolean"), "b": pd.array([0.5, 2], dtype="Float64"), "c": [1, 2]})
    layer = tr.nn.GRU(3, 4, rng=0).eval()
    np.testing.assert_array_equal(layer.predict([plain])[0], layer.predict(X[:1])[0])
    np.testing.assert_array_equal(layer.predict([mixed])[0], layer.predict([[[0.5, 1, 1], [1, 2, 0]]])[0])
    np.testing.assert_array_equal(layer.predict([flags])[0], layer.predict([[[1, 0.5, 1], [0, 2, 2]]])[0])


def torch(part=""):
    """PyTorch, or a part of it; a test that gives its tensors is left out where it is not installed."""
    return pytest.importorskip(f"torch.{part}".strip("."), reason="PyTorch is not installed")


class Loader:
    """What iterates over batches, as a DataLoader does."""

    def __iter__(self):
        return iter([(X, Y)])


@pytest.mark.parametrize(("data", "message"), [
    (lambda: (row for row in X), r"[xy] is a generator, which can be read only once: give the rows as a list, list\([xy]\)"),
    (lambda: iter(X), "can be read only once"),
    (lambda: Loader(), "[xy] is a Loader: give whole arrays or a list of rows, not batches; fit shuffles"),
    (lambda: torch("utils.data").DataLoader([1, 2]), "[xy] is a DataLoader: give whole arrays"),
    (lambda: {1, 2, 3}, "[xy] is a set"),
    (lambda: np.ma.masked_greater(X, 1.0), r"a masked array has \d+ masked entries.*x.filled\(0\).*mask= or lengths="),
    (lambda: [np.ma.masked_greater(row, 0.5) for row in X], "masked entries"),
    (lambda: [pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1, 2], "c": [1, 2]})] * 2, r"missing values \(<NA>\).*mask="),
    (lambda: [pd.DataFrame({"a": ["u", "v"], "b": [1, 2], "c": [1, 2]})] * 2, r"holds text \(column 'a'\).*encode text"),
    (lambda: np.array(["a", "b"]), "[xy] is <U1: expected numbers; encode text"),
    (lambda: objects([{}, {}]), "[xy] holds a dict"),
    (lambda: np.array(["2020-01-01"], "datetime64[D]"), r"[xy] is datetime64\[D\].*turn times into numbers"),
    (lambda: torch().ones(6, 4, 3, requires_grad=True), "cannot be read: .*requires"),
    (lambda: torch().ones(6, 4, 3, dtype=torch().bfloat16), "array of torch.bfloat16 cannot be read"),
    (lambda: X.astype(complex), "[xy] is complex128: expected real numbers")])
def test_what_cannot_be_read_is_refused_by_its_kind(data, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        loss_of(data())
    with pytest.raises(tr.TinyRNNError, match=message):
        model().fit(X, data(), optimizer=tr.optim.SGD(0.1))


def test_masked_arrays_nowhere_lose_their_mask():
    hidden, open_ = np.ma.masked_equal([1.0, 9.0], 9.0), np.ma.masked_equal([1.0, 2.0], 9.0)
    for use in (tr.tensor, tr.parameter, lambda a: tr.tensor([0.0, 1.0]) + a, tr.compile(lambda a: a * 2), lambda a: tr.tensor([0.0, 0.0]).assign(a),
                lambda a: tr.nn.mse(a, [0.0, 0.0])):
        with pytest.raises(tr.TinyRNNError, match="1 masked entries"):
            use(hidden)
        use(open_)
    hidden, rows = np.ma.array([3, 1], mask=[0, 1]), np.zeros((2, 4, 3))
    gru, cell = tr.nn.GRU(3, 2, rng=0), tr.Cell("A: (h, h) fixed\nh[t] = tanh(A @ h[t-1] + W @ x[t])")
    text = tr.nn.Sequential(tr.nn.Embedding(5, 4, rng=0), tr.nn.GRU(4, 6, rng=1), tr.nn.Linear(6, 5, rng=2))
    for use in (lambda: gru(rows, lengths=hidden), lambda: gru(rows, mask=np.ma.array(np.ones((2, 4), bool), mask=True)),
                lambda: gru.predict(rows, lengths=hidden), lambda: tr.tensor([1.0, 2.0])[hidden], lambda: text.generate(hidden, 2),
                lambda: tr.nn.Recurrent(cell, x=3, h=2, fixed={"A": np.ma.array(np.eye(2), mask=np.eye(2))}),
                lambda: tr.nn.Embedding.pretrained(np.ma.array(np.eye(2), mask=np.eye(2))),
                lambda: tr.scan(lambda s, x: (s + x, s), np.zeros(2), np.zeros((3, 2)), lengths=hidden)):
        with pytest.raises(tr.TinyRNNError, match="masked entries"):
            use()
    layer = tr.nn.Linear(2, 1, rng=0)
    with pytest.raises(tr.TinyRNNError, match="weight: a masked array"):
        layer.load_state_dict({"weight": hidden[None], "bias": np.zeros(1)})


# ---- names

class Named(tr.nn.Module):
    def __init__(self, layers):
        self.heads = layers

    def __call__(self, x):
        return sum((layer(x) for layer in self.heads.values()), start=0.0)


@pytest.mark.parametrize("keys", [("b.c", {"b": "c"}), (2, "2")])
def test_two_parameters_under_one_name_are_refused(keys):
    one, two = tr.nn.Linear(2, 2, rng=0), tr.nn.Linear(2, 2, rng=1)
    nested = {keys[0]: one, "b": {"c": two}} if isinstance(keys[1], dict) else {keys[0]: one, keys[1]: two}
    for use in (tr.nn.Module.parameters, tr.nn.Module.state_dict, lambda m: list(m.named_parameters()), lambda m: m.save("x.safetensors"),
                tr.nn.Module.summary):
        with pytest.raises(tr.TinyRNNError, match=r"two parameters are called 'heads.*weight'.*rename one of them"):
            use(Named(nested))
    shared = Named({"a": one, "b": one})
    assert len(shared.parameters()) == 2


@pytest.mark.parametrize("key", ["fr/en", "..", "", "a\nb", "train..test", "a\\b", "\x07", "k" * 1001])
def test_names_that_no_reader_takes_are_not_written(key, tmp_path):
    file = tmp_path / "m.safetensors"
    with pytest.raises(tr.TinyRNNError, match="is no name for a tensor in a file: names are printable"):
        Named({key: tr.nn.Linear(2, 1, rng=0)}).save(file)
    assert not file.exists()
    for good in ("fr-en", "a.b", "é", "k" * 900):
        kept = Named({good: tr.nn.Linear(2, 1, rng=0)})
        kept.save(file)
        kept.load_state_dict(tr.io.read_weights(file)[0])


@pytest.mark.parametrize("array", [np.ones(2, complex), np.array([object()]), np.array(["a"]), np.ones(2, np.longdouble)])
def test_dtypes_that_no_reader_takes_are_not_written(array, tmp_path):
    if array.dtype == np.float64:
        pytest.skip("long double is float64 on this processor")
    with pytest.raises(tr.TinyRNNError, match=r"'w' is .*, which a file cannot hold"):
        tr.io.write_weights(tmp_path / "w.safetensors", {"w": array})


@pytest.mark.parametrize(("weight", "message"), [
    (lambda: np.array([[1.0, 1e300]]), r"weight is float32, in which 1e\+300.*has no place"),
    (lambda: torch().ones(1, 2, dtype=torch().bfloat16), "weight: an array of torch.bfloat16 cannot be read"),
    (lambda: np.ones((1, 2), int), "weight is float32, the given weights are int64")])
def test_weights_that_do_not_fit_are_refused_by_name(weight, message):
    layer = tr.nn.Linear(2, 1, rng=0)
    before = layer.state_dict()
    with pytest.raises(tr.TinyRNNError, match=message):
        layer.load_state_dict({"weight": weight(), "bias": np.zeros(1)})
    for k, v in layer.state_dict().items():
        np.testing.assert_array_equal(v, before[k])
    layer.load_state_dict({"weight": np.array([[np.inf, 1.0]]), "bias": np.zeros(1)})


# ---- what is frozen

def moved(before, after):
    return {k for k in before if (before[k] != after[k]).any()}


@pytest.mark.parametrize("how", ["layer", "parameter", "tensor", "model and back"])
def test_frozen_weights_stay_as_they_are(how, tmp_path):
    m = model()
    gru = m.layers[0]
    if how == "layer":
        gru.trainable = False
    elif how == "parameter":
        gru.weight_hh_l0.trainable = False
    elif how == "tensor":
        gru.weight_hh_l0 = tr.tensor(gru.weight_hh_l0.numpy())
    else:
        m.trainable = False
        assert not m.parameters()
        m.layers[2].trainable = True
    fixed = {k for k, t in m.leaves() if not t.trainable}
    assert {"layer": 4, "parameter": 1, "tensor": 1, "model and back": 4}[how] == len(fixed)
    assert f"{len(m.parameters())}" in str(6 - len(fixed))
    assert m.summary().count("fixed") == len(fixed) + 1
    for k in ("a", "b"):
        m.save(tmp_path / f"{k}.safetensors")
        before = m.state_dict()
        m.fit(X, Y, optimizer=tr.optim.AdamW(0.1, weight_decay=0.3), epochs=2, rng=0)
        assert moved(before, m.state_dict()) == set(before) - fixed
        loss = tr.nn.cross_entropy(m.train()(X), Y)
        loss.backward()
        tr.optim.SGD(0.1, weight_decay=0.3).step(m.parameters())
        assert moved(before, m.state_dict()) == set(before) - fixed
        m = tr.load(tmp_path / f"{k}.safetensors")
        assert {n for n, t in m.leaves() if not t.trainable} == fixed
    m.trainable = True
    assert len(m.parameters()) == 6


def test_compiled_steps_see_what_is_frozen():
    m = model()

    @tr.compile
    def step(x, y):
        ps = dict(m.named_parameters())
        loss = tr.nn.cross_entropy(m(x), y)
        for k, g in tr.grad(loss, ps).items():
            ps[k].assign(ps[k] - 0.1 * g)
        return loss

    step(X, Y)
    m.layers[0].trainable = False
    before = m.state_dict()
    step(X, Y)
    assert moved(before, m.state_dict()) == {"layers.2.weight", "layers.2.bias"}
    with pytest.raises(tr.TinyRNNError, match="frozen, unfrozen or replaced while fit was running"):
        m.fit(X, Y, optimizer=tr.optim.SGD(0.1), epochs=2, callbacks=[lambda e, n: setattr(m, "trainable", True)])
    for what in (m, m.layers[0].weight_hh_l0):
        with pytest.raises(tr.TinyRNNError, match="expected True or False"):
            what.trainable = "no"


def test_fixed_arrays_are_those_that_the_cell_declares():
    with pytest.raises(tr.TinyRNNError, match=r"fixed= gives 'W', which cell c does not declare as fixed: write a line 'W: fixed'"):
        tr.nn.Recurrent(tr.Cell("h[t] = tanh(U @ x[t] + W @ h[t-1])", "c"), x=2, h=2, fixed={"W": np.eye(2)})


def test_constants_of_a_cell_are_never_trained():
    layer = tr.nn.Recurrent(tr.Cell("A: (h, h) fixed\nh[t] = tanh(A @ h[t-1] + W @ x[t])"), x=3, h=4, rng=0, fixed={"A": np.eye(4)})
    layer.trainable = False
    layer.trainable = True
    assert [k for k, _ in layer.named_parameters()] == ["weights.W"]


def test_a_frozen_embedding(tmp_path):
    table = tr.nn.Embedding(5, 3, trainable=False, rng=0)
    assert not table.parameters()
    assert not table.trainable
    table.trainable = True
    assert len(table.parameters()) == 1
    table.trainable = False
    table.save(tmp_path / "e.safetensors")
    assert not tr.load(tmp_path / "e.safetensors").trainable


def test_an_edited_list_of_fixed_weights_is_noticed(tmp_path):
    m, file = model(), tmp_path / "m.safetensors"
    m.layers[0].trainable = False
    m.save(file)
    arrays, notes = tr.io.read_weights(file)
    for fixed in ('["layers.0.weight_hh_l0"]', '["q"]', "3", None):
        edited = {k: v for k, v in {**notes, "fixed": fixed}.items() if v is not None}
        tr.io.write_weights(file, arrays, edited)
        with pytest.raises(tr.TinyRNNError, match="sum does not agree"):
            tr.load(file)
        del edited["sum"]
        tr.io.write_weights(file, arrays, edited)
        if fixed in ('["q"]', "3"):
            with pytest.raises(tr.TinyRNNError, match="fixed weights is not sound"):
                tr.load(file)


def test_padding_rows_never_move():
    for rule in (tr.optim.SGD(0.1, momentum=0.9, weight_decay=0.4), tr.optim.AdamW(0.1, weight_decay=0.4), tr.optim.RMSprop(0.1, weight_decay=0.4)):
        table = tr.nn.Embedding.pretrained(np.full((4, 2), 1.5, "f"), trainable=True, padding_idx=1)
        m = tr.nn.Sequential(table, tr.nn.Last(), tr.nn.Linear(2, 2, rng=0))
        m.fit(np.array([[0, 1], [2, 1], [3, 2]]), np.array([0, 1, 0]), optimizer=rule, epochs=3, rng=0)
        tr.nn.cross_entropy(m.train()(np.array([[1, 3]])), np.array([0])).backward()
        type(rule)(0.1, weight_decay=0.4).step(m.parameters())
        np.testing.assert_array_equal(table.weight.numpy()[1], [1.5, 1.5])
        assert (table.weight.numpy()[[0, 2, 3]] != 1.5).all()


# ---- folders

def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    m = model()
    m.fit(X, Y, optimizer=tr.optim.SGD(0.1), rng=0, resume="~/run", callbacks=[tr.train.Log("~/log.csv")])
    m.save("~/m.safetensors")
    tr.load("~/m.safetensors")
    tr.cells.GRU.draw("~/gru.svg")
    tr.derive(tr.cells.GRU).save("~/gru.md")
    tr.page(tr.cells.GRU, "~/gru.html", steps=2)
    assert not Path("~").exists()
    assert {p.name for p in tmp_path.iterdir()} - {".cache"} == {"run", "m.safetensors", "gru.svg", "gru.md", "gru.html", "log.csv"}


def test_dropout_of_one_layer_is_said():
    for kind in (tr.nn.RNN, tr.nn.LSTM, tr.nn.GRU):
        with pytest.warns(UserWarning, match="acts between layers, and there is one: give num_layers="):
            kind(3, 4, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tr.nn.LSTM(3, 4, dropout=0.5, num_layers=2)
        tr.nn.LSTM(3, 4)
