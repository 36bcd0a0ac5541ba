"""Defects that were found in layers and training; each stays here so that it does not come back."""

import functools
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import LoadError, NonFiniteError
from tinyrnn.train import BestWeights, Callback, EarlyStopping, Log, StopTraining, f1
from tinyrnn.train.data import Batches, Data
from tinyrnn.train.run import Run

from .test_training import KilledError, ragged, run_to, states_equal, streams, tagger

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 3))


# ---- states, lengths and masks find their way

def test_a_nested_sequential_keeps_its_state():
    model = tr.nn.Sequential(tr.nn.Sequential(tr.nn.LSTM(3, 4, rng=0)), tr.nn.Linear(4, 2, rng=1))
    _, state = model(X[:, :2], return_state=True)
    second, _ = model(X[:, 2:], state=state)
    np.testing.assert_allclose(second.numpy(), model(X).numpy()[:, 2:], rtol=1e-5, atol=1e-6)
    x, y = streams()
    flat, nested = tagger(0.0), tagger(0.0)
    nested.layers = [tr.nn.Sequential(*nested.layers[:2]), *nested.layers[2:]]
    losses = [m.fit(x, y, tbptt=5, optimizer=tr.optim.SGD(0.1), epochs=2)["loss"] for m in (flat, nested)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("build", [lambda: tr.nn.LSTM(3, 4, batch_first=False), lambda: tr.nn.Recurrent("mgu", x=3, h=4, batch_first=False)])
def test_time_is_not_taken_for_rows(build):
    model = tr.nn.Sequential(build(), tr.nn.Linear(4, 2))
    for use in (lambda: model.predict(X), lambda: model.fit(X, X[..., :2], loss="mse", optimizer=tr.optim.SGD(0.1)),
                lambda: tr.nn.Sequential(build(), tr.nn.Last())(X)):
        with pytest.raises(tr.TinyRNNError, match="batch_first=False"):
            use()


def test_one_sequence_goes_through_whole_models():
    model = tr.nn.Sequential(tr.nn.LSTM(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    for lengths in (None, 3):
        alone = model(X[0], lengths=lengths).numpy()
        rows = model(X[:1], lengths=None if lengths is None else [lengths]).numpy()
        np.testing.assert_allclose(alone, rows[0], rtol=1e-6)
    masked = model(X[0], mask=np.arange(5) < 3).numpy()
    np.testing.assert_allclose(masked, model(X[0], lengths=3).numpy(), rtol=1e-6)
    for use in (lambda: model.predict(X[0]), lambda: model.fit(X[0], np.ones((5, 2)), loss="mse", optimizer=tr.optim.SGD(0.1))):
        with pytest.raises(tr.TinyRNNError, match=r"one sequence is x\[None\]"):
            use()


class Masked(tr.nn.Module):
    """Takes a mask only."""

    def __call__(self, x, mask=None):
        return tr.nn.Pool("mean")(x, mask=mask)


class Deaf(tr.nn.Module):
    """Takes neither lengths nor mask, but reads over time."""

    def __init__(self):
        self.layer = tr.nn.GRU(3, 4, rng=0)

    def __call__(self, x):
        return self.layer(x)[0][:, -1]


class OnlyLengths(Deaf):
    def __call__(self, x, lengths=None):
        return tr.nn.Last()(self.layer(x, lengths=lengths)[0], lengths=lengths)


def test_lengths_become_a_mask_or_are_refused():
    lengths = [5, 2, 1, 0]
    expected = tr.nn.Pool("mean")(X, lengths=lengths).numpy()
    np.testing.assert_allclose(Masked().predict(X, lengths=lengths), expected)
    np.testing.assert_allclose(tr.nn.Sequential(Masked())(X, lengths=lengths).numpy(), expected)
    for model, marks, missing in ((Deaf(), {"lengths": lengths}, "lengths"), (OnlyLengths(), {"mask": np.ones((4, 5), bool)}, "mask")):
        for use in (lambda model=model, marks=marks: model.predict(X, **marks), lambda model=model, marks=marks: tr.nn.Sequential(model)(X, **marks)):
            with pytest.raises(tr.TinyRNNError, match=f"{missing} marks padding, but {type(model).__name__}.__call__ takes no {missing}"):
                use()
    with pytest.raises(tr.TinyRNNError, match="Deaf"):
        Deaf().predict([RNG.normal(size=(k, 3)) for k in (2, 5)])


@pytest.mark.parametrize("layer", [tr.nn.Last(), tr.nn.Pool("max"), tr.nn.LSTM(3, 2), tr.nn.Recurrent("mgu", x=3, h=2)])
def test_lengths_and_masks_are_checked_everywhere(layer):
    for marks, message in (({"lengths": [3]}, "one length for each of 4 rows, got 1"), ({"lengths": [9, 1, 1, 1]}, "between 0 and"),
                           ({"mask": np.ones((5, 4), bool)}, r"bool \[B, T\], here \[4,5\]; got bool\[5,4\]"),
                           ({"mask": np.ones((4, 5), int)}, r"got int64\[4,5\]")):
        with pytest.raises(tr.TinyRNNError, match=message):
            layer(X, **marks)
    empty = layer(X[:0], lengths=[])
    assert (empty[0] if isinstance(empty, tuple) else empty).shape[0] == 0


def test_sequences_without_steps_give_zeros():
    for layer in (tr.nn.Last(), tr.nn.Pool("mean"), tr.nn.Pool("max")):
        np.testing.assert_array_equal(layer(np.ones((2, 0, 3)), lengths=[0, 0]).numpy(), np.zeros((2, 3)))
        np.testing.assert_array_equal(layer(np.ones((2, 0, 3))).numpy(), np.zeros((2, 3)))
    model = tr.nn.EncoderDecoder(5, 5, 4, attention="dot", rng=0)
    assert model(np.ones((2, 0), int), np.ones((2, 3), int)).shape == (2, 3, 5)
    assert not model.attend(np.ones((2, 4), int), np.ones((2, 3), int), (np.array([4, 0]), np.array([3, 3])))[1].any()


def test_several_outputs_are_refused():
    pair = tr.nn.Bidirectional(tr.nn.LSTM(3, 4), None)
    with pytest.raises(tr.TinyRNNError, match="need one tensor"):
        pair.predict(X)
    with pytest.raises(tr.TinyRNNError, match="Linear takes one tensor and got 2"):
        tr.nn.Sequential(pair, tr.nn.Linear(4, 2))(X)


@pytest.mark.parametrize("sequence_first", [True, False])
def test_the_sequence_may_stand_anywhere_in_a_tuple(sequence_first):
    """Targets for every step of one of two inputs: padding in y reaches nothing, whatever the order."""
    class Both(tr.nn.Module):
        def __init__(self):
            self.who, self.words, self.layer, self.out = (tr.nn.Embedding(3, 4, rng=0), tr.nn.Embedding(9, 4, rng=1),
                                                          tr.nn.GRU(4, 4, rng=2), tr.nn.Linear(4, 9, rng=3))

        def __call__(self, a, b, lengths=None):
            words, who = (a, b) if sequence_first else (b, a)
            n = None if lengths is None else lengths[0 if sequence_first else 1]
            y, _ = self.layer(self.words(words), self.who(who).reshape(1, who.shape[0], 4), lengths=n)
            return self.out(y)

    x, y = ragged(30)
    who = RNG.integers(0, 3, 30)
    padded, n = tr.train.pad_rows(x)
    targets = tr.train.pad_rows(y)[0]
    dirty = np.where(np.arange(targets.shape[1]) < n[:, None], targets, 7)
    order = (lambda a, b: (a, b)) if sequence_first else (lambda a, b: (b, a))
    losses = {Both().evaluate(order(padded, who), t, lengths=n, loss="cross_entropy", batch_size=size)["loss"]
              for t in (targets, dirty) for size in (30, 8)}
    assert max(losses) - min(losses) < 1e-6
    assert Both().evaluate(order(x, who), y, loss="cross_entropy")["loss"] == pytest.approx(max(losses), rel=1e-6)
    pair = tr.nn.EncoderDecoder(9, 9, 4, rng=0)
    with pytest.raises(tr.TinyRNNError, match="give a tuple of lengths, one for each input"):
        pair.evaluate(padded, targets, lengths=n, loss="cross_entropy")


# ---- losses, metrics, means

def test_metrics_refuse_other_shapes():
    model = tr.nn.Linear(3, 1, rng=0)
    column = (X[:, 0, :1] > 0).astype("f4")
    with pytest.raises(tr.TinyRNNError, match="beside one logit: binary_accuracy"):
        model.evaluate(X[:, 0], column, loss="bce_with_logits", metrics="accuracy")
    with pytest.raises(tr.TinyRNNError, match="differ in shape"):
        tr.train.binary_accuracy(0.5).measure(tr.tensor(column), tr.tensor(column[:, 0]))
    layer = tr.nn.Sequential(tr.nn.LSTM(3, 3), tr.nn.Linear(3, 2))
    scores = layer.evaluate(X, X[..., :2] > 0, loss="bce_with_logits", metrics=("binary_accuracy",), lengths=[5, 3, 0, 1])
    assert 0 <= scores["binary_accuracy"] <= 1
    with pytest.raises(tr.TinyRNNError, match="the mask has shape"):
        tr.nn.cross_entropy(np.zeros((3, 4)), [0, 1, 2], mask=np.eye(3, dtype=bool))
    assert float(tr.nn.mse(np.array([1, 2]), np.array([1.7, 5]))) == pytest.approx(4.745)
    assert float(tr.nn.mse(np.array([0], np.uint8), np.array([100], np.uint8))) == 10000


def test_ignored_targets_count_nowhere():
    """Loss, metrics, means over batches and accumulated batches: the same as without these targets."""
    y = np.array([0, -1, -1, -1, 1, 0, 1, 1])
    x = np.random.default_rng(3).normal(size=(8, 2))
    model = tr.nn.Linear(2, 2, rng=0, dtype="float64")
    whole = model.evaluate(x[y >= 0], y[y >= 0], loss="cross_entropy", metrics=("accuracy", "perplexity", "f1"))
    for size in (8, 4, 3):
        found = model.evaluate(x, y, loss="cross_entropy", metrics=("accuracy", "perplexity", "f1"), ignore_index=-1, batch_size=size)
        assert found == pytest.approx(whole)
    states = []
    for options in ({"batch_size": 8}, {"batch_size": 4, "accumulate": 2}):
        one = tr.nn.Linear(2, 2, rng=0, dtype="float64")
        one.fit(x, y, optimizer=tr.optim.SGD(0.5), ignore_index=-1, shuffle=False, epochs=2, **options)
        states.append(one.state_dict())
    np.testing.assert_allclose(states[0]["weight"], states[1]["weight"], rtol=1e-12)


def test_names_of_metrics_are_their_own():
    def loss(output, target, mask=None):
        return tr.nn.mse(output, target) * 0 + 5
    for metrics in ((loss,), ("f1", f1(1)), (functools.partial(tr.nn.mse), functools.partial(tr.nn.mse))):
        with pytest.raises(tr.TinyRNNError, match="names of their own"):
            tagger().evaluate(*ragged(), loss="cross_entropy", metrics=metrics)
    assert f1(()).finish(f1(()).measure(tr.tensor([[0.0, 1.0]]), tr.tensor(np.array([1]))).numpy()) == 1.0
    with pytest.raises(tr.TinyRNNError, match="takes no mask="):
        tagger().evaluate(*ragged(), loss=lambda o, t: tr.nn.cross_entropy(o, t))


def test_a_loss_with_parameters_does_not_join_the_model(tmp_path):
    class Weighted(tr.nn.Module):
        def __init__(self):
            self.w = tr.parameter(1.0, name="w")

        def __call__(self, output, target, mask=None):
            return tr.nn.mse(output, target, mask=mask) * self.w

    model = tr.nn.Sequential(tr.nn.Linear(3, 1, rng=0))
    model.fit(X[:, 0], X[:, 0, :1], loss=Weighted(), optimizer=tr.optim.SGD(0.01))
    assert set(model.state_dict()) == {"layers.0.weight", "layers.0.bias"}
    model.save(tmp_path / "m.safetensors")
    tr.load(tmp_path / "m.safetensors")
    assert model.evaluate(X[:, 0], X[:, 0, :1])["loss"] > 0


# ---- optimisers

def test_fit_and_step_share_what_is_remembered():
    x, y = X[:, 0], X[:, 0, :2]
    a, b = tr.nn.Linear(3, 2, rng=0, dtype="float64"), tr.nn.Linear(3, 2, rng=0, dtype="float64")
    one, two = tr.optim.SGD(0.1, 0.9), tr.optim.SGD(0.1, 0.9)
    a.fit(x, y, loss="mse", optimizer=one, epochs=3, shuffle=False)
    b.fit(x, y, loss="mse", optimizer=two, epochs=2, shuffle=False)
    tr.nn.mse(b(x), y).backward()
    two.step(b.parameters())
    np.testing.assert_allclose(a.weight.numpy(), b.weight.numpy(), rtol=1e-12)
    other = tr.nn.Linear(3, 2, rng=5)
    with pytest.raises(tr.TinyRNNError, match="take a new optimiser for each model"):
        other.fit(x, y, loss="mse", optimizer=one)
    again = tr.optim.SGD(0.1, 0.9)
    again.load_state_dict(one.state_dict())
    other.fit(x, y, loss="mse", optimizer=again)  # what was loaded belongs to whoever uses it first
    for state in ({}, {"step": 1, "of": {}}, one.state_dict()):
        with pytest.raises(LoadError, match="Adam cannot go on"):
            tr.optim.Adam().load_state_dict(state)


def test_a_plateau_inside_a_warm_up():
    o = tr.optim.SGD(1.0, schedule=tr.optim.WarmUp(np.int64(2), tr.optim.Plateau(0.5, patience=0, monitor="loss")))
    for _ in range(3):
        o.observe({"loss": 1.0})
    assert o.rate(10) < 0.5
    p = tr.optim.SGD(1.0, schedule=tr.optim.WarmUp(2, tr.optim.Plateau(0.5, patience=0, monitor="loss")))
    p.load_state_dict(o.state_dict())
    assert p.rate(10) == o.rate(10)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: tr.optim.Adam([1.0], 0.1), "lr=list: expected a positive number; parameters are given to step or fit"),
    (lambda: tr.optim.Adam(betas=(0.9,)), "expected two numbers"), (lambda: tr.optim.Adam(eps=-1), "eps=-1"),
    (lambda: tr.optim.SGD(schedule=0.5), "schedule=0.5: expected a function"),
    (lambda: tagger().fit(*ragged(), optimizer="adam"), "expected one of tinyrnn.optim"),
    (lambda: tagger().fit(*ragged(), optimizer=tr.optim.Adam), "expected one of tinyrnn.optim"),
    (lambda: tagger().fit(*ragged(), optimizer=tr.optim.SGD(0.1), callbacks=[3]), "callbacks are functions"),
    (lambda: tagger().fit(*ragged(), optimizer=tr.optim.SGD(0.1), batch_size=None), "batch_size=None"),
    (lambda: tagger().fit((), ragged()[1], optimizer=tr.optim.SGD(0.1)), "x holds no input"),
    (lambda: tagger().fit(tuple(ragged()[0]), ragged()[1], optimizer=tr.optim.SGD(0.1)), "rows are a list"),
    (lambda: tr.nn.Recurrent(3, x=1, h=2), "takes a Cell or the name of one, got int"),
    (lambda: tr.nn.Sequential([tr.nn.Linear(1, 1)]), r"got list; a list is given as Sequential\(\*layers\)"),
    (lambda: tr.nn.Sequential(tr.tanh), r"a function as Lambda\(function\)"),
    (lambda: tr.nn.LSTM(2, 3, bias=False, forget_bias=1.0), "set biases"),
    (lambda: tr.nn.EncoderDecoder(5, 5, 4).predict(np.ones((2, 3), int)), r"takes \(source, target\)"),
    (lambda: tagger().generate([1], 2.5), "whole numbers"), (lambda: tagger().generate([1], 2, temperature=np.nan), "temperature=nan"),
    (lambda: tr.nn.Dropout(0.5, shared_axes=-2).step(np.ones((4, 8))), "one mask for all steps"),
    (lambda: type("Old", (tr.nn.Module,), {"forward": lambda self, x: x})()(1), "rename it to __call__")])
def test_mistakes_are_answered(make, message):
    with pytest.raises((tr.TinyRNNError, NotImplementedError), match=message):
        make()


def test_labels_and_tokens_out_of_range_are_explained():
    for x, y in ((np.zeros((3, 5), int), np.full((3, 5), -100)), (np.full((3, 5), 9), np.zeros((3, 5), int))):
        with pytest.raises(tr.TinyRNNError, match=r"epoch 1/1, step 1: index .*holds.*Tokens are less than the rows.*ignore_index="):
            tagger().fit(x, y, optimizer=tr.optim.SGD(0.1))


# ---- files

def test_sizes_may_be_numbers_of_numpy(tmp_path):
    i, f = np.int64, np.float32
    for model in (tr.nn.Linear(i(2), 3), tr.nn.LSTM(i(2), i(4), proj_size=i(2), chrono=i(5), zoneout=f(0.1), dropout=f(0.1), num_layers=2, clip=np.float64(3.0)),
                  tr.nn.Embedding(i(5), i(3), padding_idx=i(0)), tr.nn.Dropout(f(0.5), shared_axes=i(1)),
                  tr.nn.EncoderDecoder(i(5), i(6), i(4), num_layers=i(1))):
        model.save(tmp_path / "m.safetensors")
        assert type(tr.load(tmp_path / "m.safetensors")) is type(model)


def test_models_of_ones_own_with_common_names(tmp_path):
    class Own(tr.nn.Module):
        def __init__(self):
            self.shared, self.config = tr.nn.Linear(3, 2, rng=0), {"a": 1}

        def __call__(self, x):
            return self.shared(x)

    model = Own()
    model.fit(X[:, 0], X[:, 0, :2], loss="mse", optimizer=tr.optim.SGD(0.1))
    model.save(tmp_path / "own.safetensors")

    class Mine(tr.nn.Sequential):
        pass

    Mine(tr.nn.Linear(3, 2)).save(tmp_path / "mine.safetensors")
    for name in ("own", "mine"):
        with pytest.raises(LoadError, match="without a description"):
            tr.load(tmp_path / f"{name}.safetensors")


def test_recurrent_reads_its_own_files(tmp_path):
    layer = tr.nn.Recurrent("mgu", x=2, h=3, rng=0)
    layer.save(tmp_path / "m.safetensors")
    other = tr.nn.Recurrent("mgu", x=2, h=3, rng=1)
    other.load_state_dict(tr.io.read_weights(tmp_path / "m.safetensors")[0])
    states_equal(other.state_dict(), layer.state_dict())


def test_tokens_do_not_wrap_around():
    model = tr.nn.Sequential(tr.nn.Embedding(600, 4, rng=0), tr.nn.GRU(4, 4, rng=1), tr.nn.Linear(4, 600, rng=2))
    np.testing.assert_array_equal(model.generate(np.array([1, 2], np.uint8), 9, temperature=0), model.generate([1, 2], 9, temperature=0))


# ---- runs

def test_callbacks_begin_anew_with_each_model():
    x, y = ragged()
    stop = EarlyStopping("loss", patience=2)
    a, b = tagger(), tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=5), tr.nn.LSTM(4, 8, rng=6), tr.nn.Linear(8, 9, rng=7))
    a.fit(x, y, optimizer=tr.optim.Adam(0.05), epochs=10, rng=0, callbacks=[stop])
    history = b.fit(x, [(r * 0) for r in y], optimizer=tr.optim.Adam(0.01), epochs=6, rng=0, callbacks=[stop])
    assert len(history) == 6
    assert stop.best == pytest.approx(min(history["loss"]))


def test_every_callback_hears_of_the_last_epoch(tmp_path):
    seen = []

    def enough(epoch, numbers):
        raise StopTraining("enough")
    tagger().fit(*ragged(), optimizer=tr.optim.SGD(0.1), epochs=3, callbacks=[enough, Log(tmp_path / "l.csv"), lambda e, n: seen.append(e)])
    assert seen == [1]
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 2


def test_an_update_that_overflows_is_never_kept(tmp_path):
    for steps in (1, 2):
        model = tr.nn.Sequential(tr.nn.Linear(1, 1, rng=0))
        with pytest.raises(NonFiniteError, match=r"an update made layers\.0\..* infinite or NaN"):
            model.fit(np.full((4 * steps, 1), 1e3), np.ones((4 * steps, 1)), loss="mse", optimizer=tr.optim.SGD(1e38), batch_size=4,
                      resume=tmp_path / str(steps), save_every=1, shuffle=False)
        assert not (tmp_path / str(steps) / "checkpoint.safetensors").exists()
    model = tr.nn.Linear(2, 1, rng=0)
    model.fit(np.full((4, 2), 1e19), np.ones((4, 1)), loss=lambda o, t, mask=None: (o * 1e-3).sum(),
              optimizer=tr.optim.SGD(1.0, clip_norm=1.0))  # the norm of the gradient is beyond float32 when it is squared
    assert abs(model.weight.numpy() - tr.nn.Linear(2, 1, rng=0).weight.numpy()).max() > 0.5


def test_nan_in_the_padding_is_not_blamed():
    x, lengths = np.ones((4, 6, 1)), np.array([4, 6, 6, 6])
    x[0, 4:], x[2, 3] = np.nan, np.inf
    model = tr.nn.Sequential(tr.nn.GRU(1, 3, rng=0), tr.nn.Linear(3, 1, rng=1))
    with pytest.raises(NonFiniteError, match=r"first: the data hold inf at \[2, 3, 0\] of x"):
        model.fit(x, np.ones((4, 6, 1)), loss="mse", lengths=lengths, optimizer=tr.optim.SGD(0.1), rng=0)
    x[2, 3] = 1
    logged = tr.nn.Sequential(tr.nn.GRU(1, 3, rng=0), tr.nn.Lambda(lambda t: tr.log(t - 5)), tr.nn.Linear(3, 1, rng=1))
    with pytest.raises(NonFiniteError, match=r"first: log float32\[4,6,3\]"):
        logged.fit(x, np.ones((4, 6, 1)), loss="mse", lengths=lengths, optimizer=tr.optim.SGD(0.1), rng=0)


def test_rows_and_steps_are_those_of_the_data():
    x = np.ones((60, 20, 1))
    x[50, 17] = np.nan
    for options in ({"batch_size": 8}, {"batch_size": 16, "tbptt": 6}):
        model = tr.nn.Sequential(tr.nn.GRU(1, 3, rng=0), tr.nn.Linear(3, 1, rng=1))
        with pytest.raises(NonFiniteError, match=r"the data hold nan at \[50, 17, 0\] of x"):
            model.fit(x, np.ones((60, 20, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), rng=0, **options)


def test_the_step_of_a_bad_node_is_said():
    cell = tr.Cell("h[t] = x[t] / (x[t] - 3) + 0.1 * h[t-1]")
    x = np.broadcast_to(np.arange(1.0, 6.0)[None, :, None], (2, 5, 1))
    model = tr.nn.Sequential(tr.nn.Linear(1, 1, bias=False), tr.nn.Recurrent(cell, h=1))
    model.layers[0].weight.assign(np.ones((1, 1)))
    with pytest.raises(NonFiniteError, match=r"first: div .*on the way to h\[3\], step 3"):
        model.fit(x, np.zeros((2, 5, 1)), loss="mse", optimizer=tr.optim.SGD(0.1))


def slowly(step):
    return 1 / (1 + step)


def test_a_run_with_a_function_as_schedule_goes_on(tmp_path, monkeypatch):
    make = lambda: {"optimizer": tr.optim.SGD(0.1, schedule=slowly), "loss": functools.partial(tr.nn.cross_entropy, label_smoothing=0.1)}
    whole, _ = run_to(tmp_path / "a", monkeypatch, **make())
    with pytest.raises(KilledError):
        run_to(tmp_path / "b", monkeypatch, 4, save_every=1, **make())
    assert "0x" not in repr(make()["optimizer"])
    state, _ = run_to(tmp_path / "b", monkeypatch, save_every=1, **make())
    states_equal(state, whole)


def test_what_changes_a_run_is_refused(tmp_path, monkeypatch):
    base = {"optimizer": tr.optim.SGD(0.1), "callbacks": [BestWeights("loss")]}
    run_to(tmp_path, monkeypatch, **base)
    relu = lambda: tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.RNN(4, 8, nonlinearity="relu", rng=1), tr.nn.Linear(8, 9, rng=2))
    tanh = lambda: tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.RNN(4, 8, rng=1), tr.nn.Linear(8, 9, rng=2))
    run_to(tmp_path / "rnn", monkeypatch, model=tanh, optimizer=tr.optim.SGD(0.1))
    with pytest.raises(LoadError, match="another model"):
        run_to(tmp_path / "rnn", monkeypatch, model=relu, optimizer=tr.optim.SGD(0.1))
    for options, message in (({"validation": ragged(5)}, "another validation"), ({"backend": "numpy"}, "another backend"),
                             ({"callbacks": [Log(tmp_path / "l.csv")]}, "another callbacks"), ({"callbacks": []}, "another callbacks"),
                             ({"loss": functools.partial(tr.nn.cross_entropy, label_smoothing=0.5)}, "another loss"),
                             ({"ignore_index": 3}, "another ignore_index")):
        before = None

        def model():
            nonlocal before
            before = tagger()
            return before

        with pytest.raises(LoadError, match=message):
            run_to(tmp_path, monkeypatch, **{**base, "optimizer": tr.optim.SGD(0.1), "model": model, **options})
        states_equal(before.state_dict(), tagger().state_dict())


@pytest.mark.parametrize("damage", [b'"epoch"', b'"setup"', b'"rng"'])
def test_damaged_checkpoints_are_refused(tmp_path, monkeypatch, damage):
    run_to(tmp_path, monkeypatch, optimizer=tr.optim.SGD(0.1))
    file = tmp_path / "checkpoint.safetensors"
    data = file.read_bytes()
    quoted = damage.replace(b'"', b'\\"')
    assert quoted in data
    file.write_bytes(data.replace(quoted, quoted[:-3] + b'_\\"', 1))
    with pytest.raises(LoadError, match="not a sound checkpoint"):
        run_to(tmp_path, monkeypatch, optimizer=tr.optim.SGD(0.1))
    file.write_bytes(data[:-7] + bytes([data[-7] ^ 1]) + data[-6:])
    with pytest.raises(LoadError, match="a bit was flipped"):
        run_to(tmp_path, monkeypatch, optimizer=tr.optim.SGD(0.1))


def test_folders_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(tr.TinyRNNError, match="is a file: give a folder"):
        run_to(tmp_path / "file", monkeypatch, optimizer=tr.optim.SGD(0.1))

    class Odd(Callback):
        def state_dict(self):
            return {"a": {1, 2}}

    with pytest.raises(tr.TinyRNNError, match="look at the state_dict of your callbacks"):
        run_to(tmp_path / "odd", monkeypatch, optimizer=tr.optim.SGD(0.1), callbacks=[Odd()])


def test_two_runs_do_not_share_a_folder(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        import numpy as np
        import tinyrnn as tr
        model = tr.nn.Linear(2, 1, rng=0)
        model.fit(np.ones((4, 2)), np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), resume=sys.argv[1],
                  callbacks=[lambda e, n: (print("ready", flush=True), time.sleep(30))])
    """)
    first = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(tr.TinyRNNError, match="another run is at work"):
            tr.nn.Linear(2, 1).fit(np.ones((4, 2)), np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), resume=tmp_path)
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    tr.nn.Linear(2, 1, rng=0).fit(np.ones((4, 2)), np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), resume=tmp_path,
                                  callbacks=[lambda e, n: None])


def test_a_run_that_failed_leaves_its_folder(tmp_path):
    """Also while its traceback is still at hand, as in a notebook."""
    model = tr.nn.Linear(2, 1, rng=0)
    x = np.full((4, 2), np.nan)
    try:
        model.fit(x, np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), resume=tmp_path)
    except NonFiniteError as error:
        kept = error
    model.fit(np.ones((4, 2)), np.ones((4, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), resume=tmp_path)
    assert kept.__traceback__ is not None


class State(NamedTuple):
    h: object


def test_states_may_be_named_tuples():
    class Own(tr.nn.Module):
        def __init__(self):
            self.cell, self.out = tr.nn.GRU(2, 3, rng=0), tr.nn.Linear(3, 1, rng=1)

        def __call__(self, x, state=None):
            y, h = self.cell(x, None if state is None else state.h)
            return self.out(y), State(h)

    x = RNG.normal(size=(3, 12, 2))
    Own().fit(x, x[..., :1], loss="mse", tbptt=5, optimizer=tr.optim.SGD(0.1), epochs=2)


def test_named_states_survive_a_checkpoint(tmp_path, monkeypatch):
    class Own(tr.nn.Module):
        def __init__(self):
            self.e, self.g, self.o = tr.nn.Embedding(9, 4, rng=0), tr.nn.GRU(4, 8, rng=1), tr.nn.Linear(8, 9, rng=2)

        def __call__(self, x, state=None):
            y, h = self.g(self.e(x), None if state is None else state.h)
            return self.o(y), State(h)

    options = {"data": streams(4, 30), "tbptt": 7, "batch_size": 2, "save_every": 1, "model": Own}
    whole, _ = run_to(tmp_path / "a", monkeypatch, optimizer=tr.optim.SGD(0.1), **options)
    with pytest.raises(KilledError):
        run_to(tmp_path / "b", monkeypatch, 3, optimizer=tr.optim.SGD(0.1), **{**options, "data": streams(4, 30)})
    state, _ = run_to(tmp_path / "b", monkeypatch, optimizer=tr.optim.SGD(0.1), **{**options, "data": streams(4, 30)})
    states_equal(state, whole)


def test_options_of_callbacks_belong_to_a_run(tmp_path, monkeypatch):
    run_to(tmp_path, monkeypatch, optimizer=tr.optim.SGD(0.1), callbacks=[EarlyStopping("loss", patience=2)])
    with pytest.raises(LoadError, match="another callbacks"):
        run_to(tmp_path, monkeypatch, optimizer=tr.optim.SGD(0.1), callbacks=[EarlyStopping("accuracy", patience=2, mode="max")])


def test_what_ignores_targets_is_said_once():
    x = RNG.integers(1, 9, (20, 8))
    y = x.copy()
    y[:, 4:] = 0
    model = tagger(0.0)
    history = model.fit(x, y, optimizer=tr.optim.Adam(0.03), epochs=5, ignore_index=0, metrics=("accuracy",), validation=(x, y), rng=0)
    assert model.evaluate(x, y)["accuracy"] == pytest.approx(history["val_accuracy"][-1])
    for loss, message in ((functools.partial(tr.nn.cross_entropy, ignore_index=0), "give ignore_index= to fit"),
                          (functools.partial(tr.nn.cross_entropy, reduction="sum"), "take means")):
        with pytest.raises(tr.TinyRNNError, match=message):
            model.fit(x, y, loss=loss, optimizer=tr.optim.SGD(0.1))


def test_validation_that_is_not_finite_stops_the_run():
    x = np.ones((4, 3, 1))
    bad = np.full((2, 3, 1), np.nan)
    model = tr.nn.Sequential(tr.nn.GRU(1, 2), tr.nn.Linear(2, 1))
    with pytest.raises(NonFiniteError, match="the loss of the validation data is nan"):
        model.fit(x, x, loss="mse", optimizer=tr.optim.SGD(0.1), validation=(bad, np.ones((2, 3, 1))))


def test_inputs_in_step_and_functions_over_time():
    cell = tr.Cell("h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])")
    model = tr.nn.Sequential(tr.nn.Recurrent(cell, x=2, u=3, h=4, rng=0))
    xs, us = [np.ones((3, 2)), np.ones((5, 2))], [np.ones((1, 3)), np.ones((5, 3))]
    with pytest.raises(tr.TinyRNNError, match="run in step"):
        model.predict({"x": xs, "u": us})
    last = tr.nn.Sequential(tr.nn.GRU(2, 3, rng=0), tr.nn.Lambda(lambda y: y.mean(1)))
    with pytest.raises(tr.TinyRNNError, match=r"Lambda made .* knows no lengths"):
        last.predict(xs)
    last.predict(np.ones((2, 5, 2)))
    for use, message in ((lambda: tagger().generate([[1], [2, 3]], 3), "once for each length"), (lambda: Log("no/such/log.csv"), "no folder"),
                         (lambda: tagger().fit(*ragged(), optimizer=tr.optim.SGD(0.1), callbacks=3), "callbacks are functions")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()
    pairs = [tr.nn.Bidirectional(tr.nn.GRU(2, 3, rng=0)) for _ in range(2)]
    np.testing.assert_array_equal(pairs[0](np.ones((1, 4, 2)))[0].numpy(), pairs[1](np.ones((1, 4, 2)))[0].numpy())
    model = tr.nn.EncoderDecoder(9, 9, 4, attention="dot", rng=0)
    assert model.attend([[1, 2], [3]], [[1], [2, 3]]).shape == (2, 2, 2)


# ---- shapes and memory

def test_one_long_row_spoils_nothing():
    rows = [np.zeros(30, int) for _ in range(200)] + [np.zeros(5000, int)]
    batches = Batches(Data(rows, rows), 10, lambda data: 0, bucket=True)
    sizes = [batches.batch(p)["x"].shape[1] for p in batches.pieces(np.random.default_rng(0))]
    assert sorted(sizes)[:-1] == [30] * (len(sizes) - 1)
    assert max(sizes) == 5000


@pytest.mark.parametrize("several", [False, True])
def test_few_shapes_are_traced(several):
    """At most as many shapes of batches as a program remembers."""
    rng = np.random.default_rng(0)
    rows, others = ([np.zeros(n, int) for n in rng.integers(1, 90, 700)] for _ in range(2))
    batches = Batches(Data((rows, others) if several else rows, others if several else rows), 4, lambda data: int(several), bucket=True)
    shapes = {tuple(a.shape for a in (b["x"] if several else (b["x"],))) for _, b in batches}
    assert 4 < len(shapes) <= 50
    ragged_streams = Batches(Data(rows, rows), 1, lambda data: 0, tbptt=20)
    assert len({b["x"].shape for _, b in ragged_streams}) <= 5


def test_kept_after_interrupt(monkeypatch):
    """Ctrl-C leaves weights of a whole step, and training can go on."""
    model, steps = tagger(0.0), iter(range(100))
    original = Run._step

    def interrupted(self, piece, where):
        if next(steps) == 2:
            raise KeyboardInterrupt
        original(self, piece, where)

    opt = tr.optim.Adam(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*ragged(), optimizer=opt, rng=0, batch_size=8)
    assert opt.state["step"] == 2
    model.fit(*ragged(), optimizer=opt, rng=0, batch_size=8)
    assert opt.state["step"] == 7
