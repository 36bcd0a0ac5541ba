"""Weights from Keras, Flax and haste: files that the frameworks wrote, the living libraries, random options, hostile files."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, ConversionWarning, LoadError
from tinyrnn.exchange import frameworks as described
from tinyrnn.exchange.carry import compared

from .frameworks import ANSWERS, FOLDER, double_precision_keras

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy", "ignore:`torch.jit.script` is deprecated")
KERAS = sorted(f.name for f in FOLDER.glob("*.keras"))


@pytest.fixture(scope="module")
def answers():
    with np.load(ANSWERS) as found:
        return dict(found)


@pytest.fixture(scope="module")
def keras():
    for package in ("torch", "h5py"):
        pytest.importorskip(package)
    os.environ["KERAS_BACKEND"] = "torch"
    pytest.importorskip("keras")
    return double_precision_keras()


def close(found, expected, atol=1e-12):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=atol)


# ---- files that the frameworks wrote

@pytest.mark.parametrize("name", KERAS)
def test_files_of_keras(name, answers):
    model = tr.io.from_keras(FOLDER / name)
    x, y = (answers[f"{name.removesuffix('.keras')}.{what}"] for what in "xy")
    close(model(x).numpy(), y)
    with (FOLDER / name).open("rb") as file:
        close(tr.io.from_keras(io.BytesIO(file.read()))(x).numpy(), y)


def test_what_becomes_of_layers():
    tagger, forecaster, unusual = (tr.io.from_keras(FOLDER / f"keras_{n}.keras") for n in ("tagger", "forecaster", "unusual"))
    assert [type(m).__name__ for m in tagger.layers] == ["Embedding", "Bidirectional", "Dropout", "Linear", "Activation"]
    assert [type(m).__name__ for m in forecaster.layers] == ["GRU", "GRU", "LayerNorm", "RNN", "Last", "Linear"]
    assert [forecaster.layers[k].reset for k in (0, 1)] == ["after", "before"]
    assert [type(m).__name__ for m in unusual.layers] == ["Recurrent", "Bidirectional", "Last", "Linear"]
    assert "hard_sigmoid" in unusual.layers[0].cell.text  # the cell as Keras' options make it


def test_weights_by_themselves(answers):
    model = tr.io.from_keras(FOLDER / "keras_unusual.keras")
    x, y = answers["keras_unusual.x"], answers["keras_unusual.y"]
    for _, t in model.leaves():
        t.assign(t.numpy() * 0)
    close(tr.io.from_keras(FOLDER / "keras_unusual.weights.h5", like=model)(x).numpy(), y)
    assert not np.any(model.layers[0].weights["W_i"].numpy())  # a copy was filled
    with pytest.raises(ArgumentError, match="give kind='lstm', or like="):
        tr.io.from_keras(FOLDER / "keras_unusual.weights.h5")
    with pytest.raises(ArgumentError, match="holds the weights of 4 layers"):
        tr.io.from_keras(FOLDER / "keras_unusual.weights.h5", kind="lstm")
    with pytest.raises(LoadError, match="the weights do not belong to this model"):
        tr.io.from_keras(FOLDER / "keras_unusual.weights.h5", like=tr.nn.LSTM(2, 3))
    with pytest.raises(ArgumentError, match="says itself what it holds"):
        tr.io.from_keras(FOLDER / "keras_unusual.keras", like=model)


def test_a_file_of_pytorch(answers):
    layer = tr.io.from_torch(FOLDER / "torch_lstm.safetensors")
    assert (layer.num_layers, layer.bidirectional, layer.proj_size) == (2, True, 2)
    close(layer(answers["torch_lstm.x"])[0].numpy(), answers["torch_lstm.y"])


@pytest.mark.filterwarnings("ignore:flax.nnx.GRUCell is not the GRU")
def test_weights_of_flax(answers):
    with np.load(FOLDER / "flax.npz") as found:
        weights = dict(found)
    for side, kind in sorted({tuple(name.split(" ")[:2]) for name in weights}):
        params = {}
        for name in (n for n in weights if n.startswith(f"{side} {kind} ")):
            *path, last = name.split(" ")[2].split(".")
            holder = params
            for part in path:
                holder = holder.setdefault(part, {})
            holder[last] = weights[name]
        layer = tr.io.from_flax(params, kind=kind)
        own = (side, kind) in (("linen", "MGUCell"), ("nnx", "GRUCell"))
        expected = "Recurrent" if own else {"GRUCell": "GRU", "SimpleCell": "RNN"}.get(kind, "LSTM")
        assert type(layer).__name__ == expected
        close(layer(answers[f"{side} {kind}.x"])[0].numpy(), answers[f"{side} {kind}.y"])


# ---- the living libraries

def leaves_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


RECURRENT = some.fixed_dictionaries({
    "kind": some.sampled_from(["SimpleRNN", "LSTM", "GRU"]), "units": some.integers(1, 4), "use_bias": some.booleans(),
    "activation": some.sampled_from(["tanh", "tanh", "relu", "softsign", "linear", "elu"]),
    "recurrent_activation": some.sampled_from(["sigmoid", "sigmoid", "hard_sigmoid"]), "reset_after": some.booleans(),
    "both": some.sampled_from([None, None, "concat", "sum", "ave"]), "recurrent_dropout": some.sampled_from([0.0, 0.2])})


def made(keras, options, **further):
    """A recurrent layer of Keras."""
    kind, both = options["kind"], options["both"]
    names = {"units", "use_bias", "activation", "recurrent_dropout", *({"recurrent_activation"} if kind != "SimpleRNN" else ()),
             *({"reset_after"} if kind == "GRU" else ())}
    layer = getattr(keras.layers, kind)(**{k: v for k, v in options.items() if k in names}, **further)
    return layer if both is None else keras.layers.Bidirectional(layer, merge_mode=both)


@settings(deadline=None, max_examples=20)
@given(options=RECURRENT, more=RECURRENT, ends=some.booleans(), seed=some.integers(0, 99), tokens=some.booleans(),
       head=some.sampled_from(["softmax", None, "relu"]), norm=some.booleans(), scale=some.booleans())
def test_round_trips(keras, options, more, ends, seed, tokens, head, norm, scale):
    """Two recurrent layers of random options with other layers around them: exact in weights, 1e-12 in outputs."""
    layers, rng = keras.layers, np.random.default_rng(seed)
    parts = [keras.Input((None,) if tokens else (None, 3)), *([layers.Embedding(7, 3)] if tokens else []),
             made(keras, options, return_sequences=True), *([layers.LayerNormalization(scale=scale)] if norm else []), layers.Dropout(0.1),
             made(keras, more, return_sequences=not ends), layers.Dense(2, activation=head, use_bias=options["use_bias"])]
    module = keras.Sequential(parts)
    module.set_weights([0.4 * rng.normal(size=w.shape) for w in module.get_weights()])
    x = rng.integers(0, 7, (2, 5)) if tokens else rng.normal(size=(2, 5, 3))
    y = keras.ops.convert_to_numpy(module(x))
    model = tr.io.from_keras(module)
    close(model(x).numpy(), y)
    again = tr.io.to_keras(model)
    leaves_equal(again.get_weights(), module.get_weights())
    close(keras.ops.convert_to_numpy(again(x)), y)
    other = tr.io.from_keras([w * 0 for w in module.get_weights()], like=model)
    leaves_equal([t.numpy() for _, t in tr.io.from_keras(module.get_weights(), like=other).leaves()], [t.numpy() for _, t in model.leaves()])


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_ours_to_keras_and_back(keras, kind):
    """Stacked layers in both directions, with biases that are apart here and one there."""
    ours = tr.nn.Sequential(getattr(tr.nn, kind.removeprefix("Simple"))(3, 4, num_layers=2, bidirectional=True, dropout=0.2, rng=0, dtype="float64"),
                            tr.nn.Last(), tr.nn.Linear(8, 2, rng=1, dtype="float64")).eval()
    for k, (_, t) in enumerate(ours.leaves()):
        t.assign(np.random.default_rng(k).normal(size=t.shape))
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    module = tr.io.to_keras(ours)
    assert [type(m).__name__ for m in module.layers] == ["Bidirectional", "Dropout", "Bidirectional", "Dense"]
    close(keras.ops.convert_to_numpy(module(x)), ours(x).numpy())
    close(tr.io.from_keras(module)(x).numpy(), ours(x).numpy())


def test_a_layer_by_itself(keras):
    layer = keras.layers.GRU(4)
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer(x)
    y, h = tr.io.from_keras(layer)(x)  # the sequence and the state
    close(h.numpy()[0], keras.ops.convert_to_numpy(layer(x)))
    close(y.numpy()[:, -1], h.numpy()[0])
    arrays = layer.get_weights()
    close(tr.io.from_keras(arrays, kind="gru")(x)[0].numpy(), y.numpy())
    dense = keras.layers.Dense(2, activation="tanh")
    dense(x)
    close(tr.io.from_keras(dense.get_weights(), kind="dense", activation="tanh")(x).numpy(), keras.ops.convert_to_numpy(dense(x)))


def test_models_as_they_are_called(keras, tmp_path):
    """Functional and nested models, living and from files; a model of one layer is a model."""
    layers, x = keras.layers, np.random.default_rng(0).normal(size=(2, 5, 3))
    i = keras.Input((None, 3))
    inner = keras.Sequential([keras.Input((None, 4)), layers.GRU(3, return_sequences=True), layers.LSTM(2, return_sequences=True)])
    for k, module in enumerate((keras.Model(i, layers.Dense(2)(layers.Dropout(0.1)(layers.LSTM(4)(i)))),
                                keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)]),
                                keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, go_backwards=True)]),
                                keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, return_sequences=True), inner, layers.LSTM(2)]),
                                keras.Model(i, inner(layers.SimpleRNN(4, activation="exponential", return_sequences=True)(i))))):
        module.set_weights([0.4 * np.random.default_rng(7).normal(size=w.shape) for w in module.get_weights()])
        module.save(tmp_path / f"{k}.keras")
        y = keras.ops.convert_to_numpy(module(x))
        for source in (module, tmp_path / f"{k}.keras"):
            model = tr.io.from_keras(source)
            found = model(x)
            close((found[0] if isinstance(found, tuple) else found).numpy(), y)
        leaves_equal(tr.io.to_keras(model).get_weights(), module.get_weights())
    weights = io.BytesIO((FOLDER / "keras_unusual.weights.h5").read_bytes())
    assert tr.io.from_keras(weights, like=tr.io.from_keras(FOLDER / "keras_unusual.keras"))


def test_frozen_layers_go_both_ways(keras):
    module = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    module.layers[0].trainable = False
    model = tr.io.from_keras(module)
    assert not model.layers[0].trainable
    assert [layer.trainable for layer in tr.io.to_keras(model).layers] == [False, True]


def test_another_update_is_found_by_proof(keras):
    """A GRU of lecture notes, whose z weighs the other way round: its weights turn their signs."""
    ours = tr.nn.GRU(3, 4, reset="before", update="new", rng=0, dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    module = tr.io.to_keras(ours)
    close(keras.ops.convert_to_numpy(module(x)), ours(x)[0].numpy())
    np.testing.assert_array_equal(module.get_weights()[0][:, :4], -ours.weight_ih_l0.numpy()[4:8].T)


@pytest.mark.filterwarnings("ignore")
def test_modules_of_nnx():
    pytest.importorskip("jax")
    nnx = pytest.importorskip("flax.nnx")
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        x = np.random.default_rng(0).normal(size=(2, 5, 3))
        cells = [nnx.LSTMCell(3, 4, rngs=nnx.Rngs(k), param_dtype="float64", dtype="float64") for k in range(2)]
        for module in (nnx.RNN(cells[0]), nnx.RNN(cells[0], reverse=True, keep_order=True), nnx.Bidirectional(nnx.RNN(cells[0]), nnx.RNN(cells[1])),
                       nnx.RNN(nnx.OptimizedLSTMCell(3, 4, gate_fn=jax.nn.hard_sigmoid, rngs=nnx.Rngs(0), param_dtype="float64", dtype="float64"))):
            close(tr.io.from_flax(module)(x)[0].numpy(), np.asarray(module(x)))
        for module, message in ((nnx.RNN(cells[0], time_major=True), "time_major"), (nnx.RNN(cells[0], reverse=True), "keep_order"),
                                (nnx.Bidirectional(nnx.RNN(cells[0], reverse=True, keep_order=True), nnx.RNN(cells[1])), "around a layer with reverse"),
                                (nnx.Bidirectional(nnx.RNN(cells[0]), nnx.RNN(nnx.LSTMCell(3, 5, rngs=nnx.Rngs(0)))), "sizes of cells"),
                                (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "flax.nnx.Linear has no counterpart"),
                                (nnx.SimpleCell(2, 2, residual=True, rngs=nnx.Rngs(0)), "residual"),
                                (nnx.GRUCell(2, 2, gate_fn=jax.nn.relu6, rngs=nnx.Rngs(0)), "relu6"), (3, "got int")):
            with pytest.raises(ArgumentError, match=message):
                tr.io.from_flax(module)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_nnx_gru_lacks_a_bias_and_it_is_said():
    with np.load(FOLDER / "flax.npz") as found:
        params = {n.split(" ")[2]: a for n, a in found.items() if n.startswith("nnx GRUCell ")}
    with pytest.warns(ConversionWarning, match=r"flax.nnx.GRUCell is not the GRU that its name says: in the equation of n\[t\] it lacks r\[t\] \* b_hn. It is"):
        layer = tr.io.from_flax(params, kind="GRUCell")
    assert "W_hn.T @ h[t-1])" in layer.cell.text


# ---- haste, of which no package is left: its equations in NumPy

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def haste_lstm(w, x):
    h = c = np.zeros((len(x), len(w["recurrent_kernel"])))
    for step in x.swapaxes(0, 1):
        i, g, f, o = np.split(step @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def haste_gru(w, x):
    h = np.zeros((len(x), len(w["recurrent_kernel"])))
    for step in x.swapaxes(0, 1):
        az, ar, ag = np.split(step @ w["kernel"] + w["bias"], 3, -1)
        bz, br, bg = np.split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3, -1)
        z = sigmoid(az + bz)
        h = z * h + (1 - z) * np.tanh(ag + sigmoid(ar + br) * bg)
    return h


def haste_indrnn(w, x):
    h = np.zeros((len(x), len(w["recurrent_scale"])))
    for step in x.swapaxes(0, 1):
        h = np.tanh(step @ w["kernel"] + h * w["recurrent_scale"] + w["bias"])
    return h


@pytest.mark.parametrize(("kind", "run", "gates", "further"), [
    ("lstm", haste_lstm, 4, {"recurrent_kernel": 2}), ("gru", haste_gru, 3, {"recurrent_kernel": 2, "recurrent_bias": 1}),
    ("indrnn", haste_indrnn, 1, {"recurrent_scale": 1})])
def test_haste(kind, run, gates, further):
    rng = np.random.default_rng(0)
    w = {"kernel": rng.normal(size=(3, 4 * gates)), "bias": rng.normal(size=4 * gates)}
    w |= {k: rng.normal(size=(4, 4 * gates) if rank == 2 else 4 * gates) for k, rank in further.items()}
    x = rng.normal(size=(2, 5, 3))
    close(tr.io.from_haste(w, kind)(x)[0].numpy()[:, -1], run(w, x))
    with pytest.raises(LoadError, match="unknown 'extra'"):
        tr.io.from_haste({**w, "extra": w["bias"]}, kind)
    with pytest.raises(LoadError, match="lack 'bias'"):
        tr.io.from_haste({k: v for k, v in w.items() if k != "bias"}, kind)


# ---- what is refused

def test_every_stock_layer_is_proved_to_be_what_it_becomes():
    """The files of equations against our zoo: which are the same function, and where the others differ."""
    same = {"torch_rnn": "rnn", "torch_lstm": "lstm", "torch_lstm_projection": "lstm_projection", "torch_gru": "gru",
            "keras_simple_rnn": "rnn", "keras_lstm": "lstm", "keras_gru": "gru", "keras_gru_reset_before": "gru_reset_before",
            "flax_linen_lstm_cell": "lstm", "flax_nnx_lstm_cell": "lstm", "flax_nnx_optimized_lstm_cell": "lstm",
            "flax_linen_gru_cell": "gru", "flax_linen_simple_cell": "rnn", "flax_nnx_simple_cell": "rnn", "haste_lstm": "lstm", "haste_gru": "gru"}
    others = {"flax_nnx_gru_cell": "gru", "flax_linen_mgu_cell": "mgu", "haste_indrnn": "indrnn"}
    files = {f.name.removesuffix(".cell") for f in (FOLDER.parents[2] / "tinyrnn" / "exchange" / "frameworks").glob("*.cell")}
    assert files == {*same, *others}
    for name, ours in same.items():
        assert compared(tr.cells[ours], described.foreign(name).cell).holds, name
    for name, ours in others.items():
        assert not compared(tr.cells[ours], described.foreign(name).cell).holds, name


@pytest.mark.filterwarnings("error", "ignore:The object being serialized includes a `lambda`")
def test_what_keras_has_and_we_have_not(keras):
    layers = keras.layers
    x = np.zeros((2, 5, 3))

    def built(layer):
        layer(x)
        return layer

    def shaped(layer):
        layer.build(x.shape)
        return layer

    class Mine(keras.layers.LSTM):
        pass

    for layer, message in (
            (built(layers.Conv1D(2, 2)), "keras.layers.Conv1D has no counterpart; known are"), (built(Mine(2)), "Mine is a class of its own"),
            (built(layers.LSTM(2, activation="gelu")), r"keras.layers.LSTM\(activation='gelu'\) cannot be written in equations"),
            (built(layers.LSTM(2, return_state=True)), "return_state=True"), (built(layers.Dense(2, activation="gelu")), "'gelu' of Keras has no counterpart"),
            (built(layers.LSTM(2, go_backwards=True, return_sequences=True)), "gives the sequence turned round"),
            (built(layers.Bidirectional(layers.LSTM(2), merge_mode=None)), "merge_mode=None"),
            (built(layers.Bidirectional(layers.LSTM(2), backward_layer=layers.LSTM(2, activation="relu", go_backwards=True))), "backward_layer of other options"),
            (shaped(layers.LayerNormalization(axis=1)), r"LayerNormalization\(axis=\[1\]"), (built(layers.LayerNormalization(scale=False, center=False)), "no weights"),
            (built(layers.ReLU(max_value=6)), "ReLU with max_value"), (built(layers.Softmax(axis=1)), "axis=1"),
            (built(layers.RNN(layers.LSTMCell(2))), "keras.layers.RNN has no counterpart"), (built(layers.Bidirectional(layers.RNN(layers.LSTMCell(2)))), "around RNN"),
            (layers.GlobalMaxPooling1D(keepdims=True), "keepdims=True"), (layers.GlobalAveragePooling1D(data_format="channels_first"), "channels_first"),
            (layers.Dropout(0.1, noise_shape=(2, 1)), "noise_shape"), (built(layers.LSTM(2, activation=lambda z: z)), "cannot be written"),
            (layers.Reshape((3, 5)), "Reshape has no counterpart"), (3.5, "got float")):
        with pytest.raises(ArgumentError, match=message):
            tr.io.from_keras(layer)
    a = keras.Input((None, 3))
    h = layers.LSTM(2, return_sequences=True)(a)
    for model, message in ((keras.Model(a, [h, layers.Dense(2)(h)]), "several results"), (keras.Model(a, layers.Dropout(0.1)(a, training=True)), "called with training="),
                           (keras.Model(a, layers.LSTM(2)(a, mask=keras.ops.ones((1, 5), "bool"))), "called with mask=")):
        with pytest.raises(ArgumentError, match=message):
            tr.io.from_keras(model)
    for model in (keras.Model(a, layers.Add()([layers.LSTM(2)(a), layers.GRU(2)(a)])), keras.Model(a, [layers.LSTM(2)(a), layers.GRU(2)(a)])):
        with pytest.raises(ArgumentError, match="a model that branches has no counterpart"):
            tr.io.from_keras(model)
    for model, message in ((keras.Sequential([keras.Input((None,)), layers.Embedding(5, 2, mask_zero=True), layers.LSTM(2)]), r"model\(x, mask=x != 0\)"),
                           (keras.Sequential([keras.Input((5, 3), batch_size=2), layers.LSTM(2, stateful=True)]), "stateful=True"),
                           (keras.Sequential([keras.Input((5, 3)), layers.Masking(), layers.LSTM(2)]), "Masking"),
                           (keras.Sequential([keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(2, dropout=0.1))]), "one mask of their inputs")):
        with pytest.warns(ConversionWarning, match=message):
            tr.io.from_keras(model)


def test_what_keras_has_not():
    for layer, message in ((tr.nn.LSTM(3, 4, peephole=True), r"in the equation of i\[t\] they differ by"),
                           (tr.nn.LSTM(3, 4, proj_size=2), "are not proved to be the same function"),
                           (tr.nn.GRU(3, 4, update="new"), "they differ by"), (tr.nn.LSTM(3, 4, reverse=True), "unless Last follows"),
                           (tr.nn.LSTM(3, 4, batch_first=False), "batch_first=False"), (tr.nn.GRU(3, 4, zoneout=0.1), "zoneout"),
                           (tr.nn.Recurrent("mgu", x=3, h=4), "are not proved to be the same function"), (tr.nn.Lambda(abs), "Lambda has no counterpart"),
                           (tr.nn.Pool("sum"), "sum"), (tr.nn.Sequential(tr.nn.Linear(2, 2), tr.nn.Last()), "Last of what a Linear gives"),
                           (tr.nn.Sequential(tr.nn.LSTM(3, 4), tr.nn.Linear(4, 4), tr.nn.Last()), "Last of what a Linear gives has no counterpart in Keras: put it right"),
                           (tr.nn.Activation("sin"), "sin"), (tr.nn.Dropout(0.1, shared_axes=0), "shared_axes"),
                           (tr.nn.Bidirectional(tr.nn.LSTM(3, 4, num_layers=2)), "of 2 layers")):
        with pytest.raises(ArgumentError, match=message):
            list(tr.exchange.to_keras.records_of(layer))


def test_arrays_that_do_not_fit():
    kernel, recurrent, bias = np.ones((2, 12)), np.ones((3, 12)), np.zeros(12)
    for arrays, message in (([kernel], "got 1 arrays"), ([kernel, recurrent, bias, bias], "got 4 arrays"), ([kernel[:, :11], recurrent, bias], "do not fit together"),
                            ([kernel, recurrent[:2], bias], "do not fit together"), ([kernel, recurrent, bias[None]], "do not fit together"),
                            ([kernel.astype(int), recurrent, bias], "expected one floating dtype")):
        with pytest.raises(LoadError, match=message):
            tr.io.from_keras(arrays, kind="lstm")
    with pytest.raises(ArgumentError, match=r"keras.layers.LSTM has no option 'reset_after' that its weights need; known are activation"):
        tr.io.from_keras([kernel, recurrent, bias], kind="lstm", reset_after=True)
    for bad in ({"kind": "rnn"}, {"activation": "relu"}):
        with pytest.raises(ArgumentError):
            tr.io.from_keras([kernel, recurrent, bias], **bad)
    with pytest.raises(ArgumentError, match="give kind='lstm'"):
        tr.io.from_keras([kernel, recurrent, bias])


# ---- hostile files

def archived(config, weights, **further):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **further) as archive:
        archive.writestr("config.json", config if isinstance(config, (str, bytes)) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def parts():
    with zipfile.ZipFile(FOLDER / "keras_forecaster.keras") as archive:
        return json.loads(archive.read("config.json")), archive.read("model.weights.h5")


def changed(config, *path, value):
    """A description with one thing changed."""
    found = json.loads(json.dumps(config))
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return found


def test_hostile_descriptions(parts):
    config, weights = parts
    layers = config["config"]["layers"]
    assert tr.io.from_keras(archived(config, weights))
    lambdas = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None, "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}}}
    stranger = {"module": "os", "class_name": "system", "registered_name": None, "config": {"name": "x"}}
    for form, message in (
            ("{", "not a sound .keras file"), ("[" * 100_000, "not a sound .keras file"), ("[]", "does not describe a model"), (b"\xff\xfe", "not a sound .keras file"),
            ({}, "description of the model is not sound"), ({"class_name": "Sequential", "config": {"layers": [1]}}, "description of a layer is not sound"),
            ({"class_name": "Sequential", "config": {"layers": []}}, "there is no layer"), ({"class_name": "Sequential", "config": {"layers": [{}] * 2000}}, "description of the model"),
            ({**config, "class_name": "os.system"}, "a model of the class 'os.system' has no counterpart"), (changed(config, "config", "layers", 1, value=lambdas), "Lambda has no counterpart"),
            (changed(config, "config", "layers", 1, value=stranger), "is no layer of Keras itself"), (changed(config, "config", "layers", 1, "registered_name", value="evil>Mine"), "no layer of Keras itself"),
            (changed(config, "config", "layers", 1, "config", "units", value=10**9), "has weights of 4 units"), (changed(config, "config", "layers", 1, "config", "units", value="4"), "has weights of 4 units"),
            (changed(config, "config", "layers", 1, "config", "activation", value={"class_name": "function", "config": "os.system"}), "cannot be written|not sound"),
            (changed(config, "config", "layers", 1, "config", "recurrent_dropout", value=7), "recurrent_dropout|not sound"), (changed(config, "config", "layers", 1, "config", "recurrent_dropout", value=[]), "not sound"),
            (changed(config, "config", "layers", 3, "config", "epsilon", value="big"), "not sound|eps="), (changed(config, "config", "layers", 2, value=layers[1]), "two layers have one name")):
        with pytest.raises((LoadError, ArgumentError), match=message) as error:
            tr.io.from_keras(archived(form, weights))(np.zeros((1, 2, 2)))
        assert len(str(error.value)) < 600


def test_hostile_archives(parts, tmp_path):
    config, weights = parts
    bomb = b"\0" * 50_000_000
    for file, message in ((archived(config, bomb, compression=zipfile.ZIP_DEFLATED), "more than"), (archived(b" " * 20_000_000, weights, compression=zipfile.ZIP_DEFLATED), "more than"),
                          (io.BytesIO(b"PK\x03\x04" + b"\0" * 100), "not a sound .keras file"), (io.BytesIO(b""), "not a sound .keras file")):
        with pytest.raises(LoadError, match=message):
            tr.io.from_keras(file)
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("../../evil", "x")
    empty.seek(0)
    with pytest.raises(LoadError, match=r"no config\.json"):
        tr.io.from_keras(empty)
    for cut in (0, 10, 1000, len(weights) // 2, len(weights) - 1):
        with pytest.raises(LoadError):
            tr.io.from_keras(archived(config, weights[:cut]))
    with pytest.raises(OSError, match="nowhere"):
        tr.io.from_keras(tmp_path / "nowhere.keras")


def written(write):
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        write(root.create_group("layers/lstm/cell/vars"))
    return file.getvalue()


def test_hostile_hdf5(tmp_path):
    def plain(group, **further):
        for k, shape in enumerate(((2, 12), (3, 12), (12,))):
            group.create_dataset(str(k), data=np.ones(shape), **further)

    def deep(group):
        for _ in range(40):
            group = group.create_group("a")

    (tmp_path / "secret.h5").write_bytes(written(plain))

    def huge(group):
        group.create_dataset("0", shape=(10**6, 10**6), dtype="f8")

    def virtual(group):
        layout = h5py.VirtualLayout((2, 12), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "layers/lstm/cell/vars/0", (2, 12))
        group.create_virtual_dataset("0", layout)

    for write, message in (
            (huge, "larger than the file"), (lambda g: plain(g, compression="gzip"), "no plain array of numbers"), (virtual, "no plain array of numbers"),
            (lambda g: g.create_dataset("0", data=[b"text"]), "no plain array of numbers"), (deep, "deep"), (lambda g: None, "no weights of Keras 3"),
            (lambda g: g.__setitem__("0", h5py.ExternalLink(str(tmp_path / "secret.h5"), "/layers/lstm/cell/vars/0")), "a link to elsewhere"),
            (lambda g: g.__setitem__("0", h5py.SoftLink("/layers")), "a link to elsewhere"), (lambda g: g.create_dataset("7", data=np.ones(3)), "of which one is missing"),
            (lambda g: g.create_dataset("0", data=np.ones((1,) * 9)), "no plain array of numbers"),
            (lambda g: g.create_dataset("0", (2,), "f8", external=[(str(tmp_path / "secret.h5"), 0, 16)]), "no plain array of numbers")):
        (tmp_path / "w.weights.h5").write_bytes(written(write))
        with pytest.raises(LoadError, match=message):
            tr.io.from_keras(tmp_path / "w.weights.h5", kind="lstm")
    (tmp_path / "w.weights.h5").write_bytes(written(plain))
    assert tr.io.from_keras(tmp_path / "w.weights.h5", kind="lstm").hidden_size == 3


FUZZ = """
import io, random, resource, sys
from tinyrnn.errors import ArgumentError, LoadError
import tinyrnn as tr
resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)
data, draw = open(sys.argv[1], "rb").read(), random.Random(0)
from tinyrnn.exchange.keras_files import read_vars
count = {"read": 0, "refused": 0}
for _ in range(400):
    bad = bytearray(data)
    for _ in range(draw.choice((1, 2, 8))):
        bad[draw.randrange(min(len(bad), 8000))] = draw.choice((0, 1, 127, 255, draw.randrange(256)))
    try:
        read_vars(bytes(bad), "flipped")
        count["read"] += 1
    except LoadError:
        count["refused"] += 1
print(count)
"""


@pytest.mark.slow
def test_flipped_bytes_neither_crash_nor_hang(tmp_path):
    done = subprocess.run([sys.executable, "-c", FUZZ, str(FOLDER / "keras_unusual.weights.h5")], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'refused': 0" not in done.stdout
