"""Figures that mean what they say: metrics, directions, sampling, the last step, predictions, losses that leave padding out."""

import functools

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.train.generate import draw

RNG = np.random.default_rng(3)
X = RNG.normal(size=(30, 5, 3)).astype("f")
SIDE = (X[:, :, :1].sum(1) > 0).astype("f")


# ---- binary accuracy

@pytest.mark.parametrize(("loss", "inside"), [("bce", True), ("bce_with_logits", False), ("mse", True), (tr.nn.bce, True),
                                              (functools.partial(tr.nn.bce_with_logits, pos_weight=2.0), False)])
def test_binary_accuracy_follows_the_loss(loss, inside):
    head = [tr.nn.Lambda(tr.sigmoid)] if inside else []
    model = tr.nn.Sequential(tr.nn.GRU(3, 6, rng=0), tr.nn.Last(), tr.nn.Linear(6, 1, rng=1), *head)
    history = model.fit(X, SIDE, loss=loss, optimizer=tr.optim.Adam(0.05), epochs=4, metrics=("binary_accuracy",), rng=0)
    right = np.mean((model.predict(X) > (0.5 if inside else 0)) == (SIDE > 0.5))
    assert model.evaluate(X, SIDE)["binary_accuracy"] == pytest.approx(right)
    assert "binary_accuracy" in history.epochs[0]


def test_binary_accuracy_of_other_losses_has_to_be_said():
    model = tr.nn.Sequential(tr.nn.GRU(3, 6, rng=0), tr.nn.Last(), tr.nn.Linear(6, 1, rng=1))

    def hinge(output, target):
        return tr.relu(1 - output * (2 * target - 1)).mean()

    with pytest.raises(tr.TinyRNNError, match=r"of hinge nobody knows.*binary_accuracy\(0.0\)"):
        model.evaluate(X, SIDE, loss=hinge, metrics=("binary_accuracy",))
    found = model.evaluate(X, SIDE, loss=hinge, metrics=(tr.train.binary_accuracy(0.0),))["binary_accuracy"]
    assert found == pytest.approx(np.mean((model.predict(X) > 0) == (SIDE > 0.5)))


# ---- which way is better

def watched(values, **options):
    plateau = tr.optim.Plateau(factor=0.1, patience=1, monitor="m", **options)
    for v in values:
        plateau.observe({"m": v})
    return plateau(0)


@pytest.mark.parametrize(("values", "mode", "lowered"), [
    ([-2.0] * 5, "min", True), ([-2.0, -1.99999, -1.9999, -1.9], "min", True), ([-2.0, -2.1, -2.2, -2.3], "min", False),
    ([-2.0] * 5, "max", True), ([-2.0, -1.9, -1.8, -1.7], "max", False), ([3.0] * 5, "min", True), ([0.0] * 5, "max", True),
    ([1.0, 0.99999, 0.99998, 0.99997], "min", True), ([1.0, np.nan, np.nan, np.nan], "min", True)])
def test_a_plateau_of_figures_of_any_sign(values, mode, lowered):
    assert (watched(values, mode=mode) < 1) == lowered


def test_directions_are_known_by_name():
    for monitor, mode in (("val_loss", "min"), ("accuracy", "max"), ("val_f1", "max"), ("perplexity", "min"), ("val_binary_accuracy", "max"),
                          ("val_mse", "min")):
        assert tr.train.BestWeights(monitor).mode == tr.train.EarlyStopping(monitor).mode == tr.optim.Plateau(monitor=monitor).mode == mode
    for make in (tr.train.BestWeights, tr.train.EarlyStopping, lambda m: tr.optim.Plateau(monitor=m)):
        with pytest.raises(tr.TinyRNNError, match="nobody knows whether 'val_bleu' is to fall or to rise; give mode='min'"):
            make("val_bleu")
    assert tr.train.BestWeights("val_bleu", "max").mode == "max"
    model = tr.nn.Sequential(tr.nn.GRU(3, 6, rng=0), tr.nn.Last(), tr.nn.Linear(6, 2, rng=1))
    y = SIDE[:, 0].astype(int)
    history = model.fit(X, y, validation=(X, y), metrics=("accuracy",), optimizer=tr.optim.Adam(0.05), epochs=8, rng=0,
                        callbacks=[tr.train.BestWeights("val_accuracy")])
    assert model.evaluate(X, y)["accuracy"] == pytest.approx(max(history["val_accuracy"]))
    stop = tr.train.EarlyStopping("val_accuracy", patience=3)
    for epoch, value in enumerate([0.5, 0.6, 0.7, 0.65], 1):
        stop.begin(model) if epoch == 1 else None
        stop(epoch, {"val_accuracy": value})
    assert (stop.best, stop.epoch, stop.waited) == (0.7, 3, 1)


# ---- sampling

def test_what_cannot_be_drawn_is_refused():
    model = tr.nn.Sequential(tr.nn.Embedding(5, 4, rng=0), tr.nn.GRU(4, 6, rng=1), tr.nn.Linear(6, 5, rng=2))
    for bad in (np.nan, np.inf):
        model.layers[2].bias.assign(np.full(5, bad, "f"))
        for temperature in (0, 1.0):
            with pytest.raises(tr.TinyRNNError, match=r"scores for the next token are (nan|inf)"):
                model.generate([3], 4, temperature=temperature, rng=0)
    with pytest.raises(tr.TinyRNNError, match="scores for the next token are -inf"):
        draw(np.full((1, 3), -np.inf), 1.0, None, RNG)


def test_exactly_k_are_drawn_from():
    logits = np.array([[1.0, 3.0, 3.0, 3.0, 2.0]])
    for k, tokens in ((1, {1}), (2, {1, 2}), (3, {1, 2, 3}), (4, {1, 2, 3, 4}), (5, {0, 1, 2, 3, 4}), (9, {0, 1, 2, 3, 4})):
        assert {int(draw(logits, 1.0, k, RNG)[0]) for _ in range(300)} == tokens


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-5, 1.0, 1e8, 1e300, np.inf])
def test_every_temperature(temperature):
    logits = np.array([[1.0, 5.0, 3.0, -np.inf, -1e300]])
    found = np.bincount([int(draw(logits, temperature, None, RNG)[0]) for _ in range(600)], minlength=5)
    assert found[3] == 0
    if temperature < 1e-3:
        assert found[1] == 600
    elif temperature == np.inf:
        assert (found[[0, 1, 2, 4]] > 100).all()
    else:
        p = np.exp((logits[0] - 5) / temperature)
        np.testing.assert_allclose(found / 600, p / p.sum(), atol=0.09)


# ---- the last step of what reads both ways

LENGTHS = np.array([5, 2, 1, 4, 0])
PADDED = X[:5]


def ends(layer, x, lengths, merge):
    """Each direction by itself: forward at the last valid step, backward at the first."""
    y = layer(x, lengths=lengths)[0].numpy()
    half = y.shape[-1] // 2 if merge == "concat" else 0
    rows = np.arange(len(x))
    last, first = y[rows, np.maximum(lengths - 1, 0)], y[rows, 0]
    return np.where(lengths[:, None] > 0, np.concatenate([last[:, :half], first[:, half:]], 1), 0)


@pytest.mark.parametrize("make", [
    lambda: (tr.nn.LSTM(3, 4, bidirectional=True, rng=0), "concat"), lambda: (tr.nn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0), "concat"),
    lambda: (tr.nn.GRU(3, 4, reverse=True, rng=0), "all"), lambda: (tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, reverse=True, rng=0), "all"),
    lambda: (tr.nn.Bidirectional(tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, rng=0), rng=1), "concat"),
    lambda: (tr.nn.LSTM(3, 4, proj_size=2, bidirectional=True, rng=0), "concat")])
def test_each_direction_gives_its_own_last_step(make):
    layer, merge = make()
    model = tr.nn.Sequential(layer, tr.nn.Dropout(0.5, rng=0), tr.nn.Dropout(0.5, shared_axes=1, rng=0), tr.nn.Last()).eval()
    layer.eval()
    full = np.full(5, 5)
    np.testing.assert_allclose(model(PADDED).numpy(), ends(layer, PADDED, full, merge), rtol=1e-6)
    np.testing.assert_allclose(model(PADDED, lengths=LENGTHS).numpy(), ends(layer, PADDED, LENGTHS, merge), rtol=1e-6)
    mask = np.arange(5) < LENGTHS[:, None]
    np.testing.assert_allclose(model(PADDED, mask=mask).numpy(), ends(layer, PADDED, LENGTHS, merge), rtol=1e-6)
    np.testing.assert_allclose(model(PADDED[0]).numpy(), ends(layer, PADDED[:1], full[:1], merge)[0], rtol=1e-6)
    np.testing.assert_allclose(model.predict(PADDED, lengths=LENGTHS), ends(layer, PADDED, LENGTHS, merge), rtol=1e-5, atol=1e-6)
    late = mask[:, ::-1]  # padded in front
    y = layer(PADDED, mask=late)[0].numpy()
    half = y.shape[-1] // 2 if merge == "concat" else 0
    front = np.minimum(5 - LENGTHS, 4)
    right = np.concatenate([y[np.arange(5), -1][:, :half], y[np.arange(5), front][:, half:]], 1)
    np.testing.assert_allclose(model(PADDED, mask=late).numpy(), np.where(LENGTHS[:, None] > 0, right, 0), rtol=1e-6)


@pytest.mark.parametrize("merge", ["sum", "mul", "mean"])
def test_merged_directions_give_their_own_last_steps(merge):
    layer = tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0), merge, rng=1).eval()
    apart = tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0), None, rng=1).eval()
    y, z = (t.numpy() for t in apart(PADDED)[0])
    right = {"sum": y[:, -1] + z[:, 0], "mul": y[:, -1] * z[:, 0], "mean": (y[:, -1] + z[:, 0]) / 2}[merge]
    np.testing.assert_allclose(tr.nn.Sequential(layer, tr.nn.Last())(PADDED).numpy(), right, rtol=1e-5)


def test_last_in_a_sequential_of_its_own():
    both = tr.nn.GRU(3, 4, bidirectional=True, rng=0)
    S, last = tr.nn.Sequential, tr.nn.Last()
    right = S(both, last)(PADDED, lengths=LENGTHS).numpy()
    for model in (S(S(both), last), S(both, S(last)), S(S(S(both), tr.nn.Dropout(0.0)), S(S(last)))):
        np.testing.assert_array_equal(model(PADDED, lengths=LENGTHS).numpy(), right)
    y, after = S(S(both), last)(PADDED, return_state=True)
    assert y.shape == (5, 8)
    assert after[0][0].shape == (2, 5, 4)
    norm = tr.nn.LayerNorm(8)
    for model in (S(S(both, norm), last), S(S(both), S(norm, last)), S(both, norm, S(last)), S(S(both, norm), S(S(last)))):
        with pytest.raises(tr.TinyRNNError, match="at which GRU has read that step alone"):
            model(PADDED)


def test_what_stands_between_a_backward_reader_and_last():
    both = tr.nn.LSTM(3, 4, bidirectional=True, rng=0)
    with pytest.raises(tr.TinyRNNError, match=r"at which LSTM has read that step alone.*put Last right after it"):
        tr.nn.Sequential(both, tr.nn.Linear(8, 2), tr.nn.Last())(X)
    forward = tr.nn.Sequential(both, tr.nn.GRU(8, 2, rng=0), tr.nn.Last()).eval()
    np.testing.assert_array_equal(forward(X).numpy(), forward.layers[1](both(X)[0])[0].numpy()[:, -1])
    model = tr.nn.Sequential(both, tr.nn.Last(), tr.nn.Linear(8, 2, rng=0))
    before = model.state_dict()
    model.fit(X, SIDE[:, 0].astype(int), optimizer=tr.optim.SGD(0.1), rng=0)
    assert all((before[k] != v).any() for k, v in model.state_dict().items())


# ---- padding

ROWS = [X[i, :n] for i, n in enumerate([5, 3, 1, 4])]


def test_predictions_of_ragged_rows_are_rows():
    tagger = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1))
    found = tagger.predict(ROWS)
    assert [r.shape for r in found] == [(5, 2), (3, 2), (1, 2), (4, 2)]
    for row, y in zip(ROWS, found, strict=True):
        np.testing.assert_allclose(y, tagger.eval()(row[None])[0].numpy(), rtol=1e-5, atol=1e-6)
    assert tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last()).predict(ROWS).shape == (4, 4)
    assert tagger.predict(X).shape == (30, 5, 2)
    assert tagger.predict(PADDED, lengths=LENGTHS).shape == (5, 5, 2)
    pair = tr.nn.Recurrent(tr.Cell("h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])"), x=3, u=3, h=2, rng=0)
    assert [r.shape for r in pair.predict({"x": ROWS, "u": ROWS})] == [(5, 2), (3, 2), (1, 2), (4, 2)]
    assert [r.shape for r in pair.predict((ROWS, ROWS))] == [(5, 2), (3, 2), (1, 2), (4, 2)]


def ignoring(output, target, mask=None):
    return ((output - target) ** 2).mean()


def halving(output, target, mask=None):
    return ((output - target) ** 2).sum() / mask.astype("float32").sum()


def touching(output, target, mask=None):
    return ((output - target) ** 2).mean() + 0 * mask.astype("float32").sum()


def unmasked(output, target):
    return ((output - target) ** 2).mean()


def swallowing(output, target, **keywords):
    return ((output - target) ** 2).mean()


def using(output, target, mask=None):
    return tr.nn.mse(output, target, mask=mask)


def test_losses_cannot_average_padding_in():
    y = [r[:, :1] for r in ROWS]

    def fit(loss, metrics=()):
        model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 1, rng=1))
        return model.fit(ROWS, y, loss=loss, metrics=metrics, optimizer=tr.optim.SGD(0.1), rng=0)["loss"]

    assert fit(using) == fit("mse")
    for loss, message in ((ignoring, "the loss ignoring takes mask= and lets entries count where it is False"),
                          (swallowing, "the loss swallowing takes mask="), (halving, "the loss halving takes mask= and lets"),
                          (touching, "the loss touching takes mask= and lets"), (unmasked, "the loss unmasked takes no mask="),
                          (lambda o, t, mask=None: 1.0, "gives float; fit and evaluate need a tensor"),
                          (lambda o, t, mask=None: tr.nn.mse(o, t, mask=mask, reduction="none"), r"one of shape \[4,\d,1\].*take .mean")):
        with pytest.raises(tr.TinyRNNError, match=message):
            fit(loss)
    for metric, message in ((ignoring, "the metric ignoring takes mask= and lets"), (unmasked, "the metric unmasked takes no mask=")):
        with pytest.raises(tr.TinyRNNError, match=message):
            fit("mse", (metric,))
    whole = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 1, rng=1))
    assert whole.fit(X, X[..., :1], loss=ignoring, optimizer=tr.optim.SGD(0.1), rng=0)["loss"]


def test_labels_of_every_dtype():
    logits, labels = np.eye(3) * 2, np.array([0, 1, 2])
    right = float(tr.nn.cross_entropy(logits, labels))
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        for ignored in (-100, -1, 255, 70_000, 2**40):
            assert float(tr.nn.cross_entropy(logits, labels.astype(dtype), ignore_index=ignored)) == pytest.approx(right)
        assert float(tr.nn.cross_entropy(logits, labels.astype(dtype), ignore_index=1)) == pytest.approx(right)
        model = tr.nn.Linear(3, 3, rng=0)
        assert model.evaluate(logits, labels.astype(dtype), loss="cross_entropy", ignore_index=-100) == model.evaluate(
            logits, labels, loss="cross_entropy")
    for t in (tr.tensor(np.array([1, 200], "uint8")), tr.tensor(np.array([1, 200], "int16"))):
        assert (t != -5).tolist() == (t > -5).tolist() == (t < 70_000).tolist() == [True, True]
        assert (t == 70_000).tolist() == [False, False]


def test_class_weights_of_any_sign():
    z, t, w = np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0], [0.1, 0.2, 0.3]]), np.array([0, 2, 1]), np.array([-2.0, 0.5, -3.0])
    logs = z - np.log(np.exp(z).sum(1, keepdims=True))
    each = w[t]
    assert float(tr.nn.cross_entropy(z, t, weight=w)) == pytest.approx(float(-(each * logs[np.arange(3), t]).sum() / each.sum()))
