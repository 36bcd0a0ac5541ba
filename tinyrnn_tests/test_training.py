"""Training: ragged rows, streams, accumulation, callbacks, logs, runs that are killed and go on, numbers that are not finite."""

import csv
import json
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
from tinyrnn.train import BestWeights, Callback, EarlyStopping, Log, StopTraining, f1, pad_rows
from tinyrnn.train.data import Batches, Data
from tinyrnn.train.run import Run

V = 9


def tagger(dropout=0.2, **options):
    return tr.nn.Sequential(tr.nn.Embedding(V, 4, rng=0), tr.nn.LSTM(4, 8, rng=1, **options), tr.nn.Dropout(dropout),
                            tr.nn.Linear(8, V, rng=2))


def ragged(rows=40, longest=12, rng=0):
    generator = np.random.default_rng(rng)
    x = [generator.integers(0, V, n) for n in generator.integers(1, longest + 1, rows)]
    return x, [(row + 1) % V for row in x]


def states_equal(a, b):
    assert a.keys() == b.keys()
    for k in a:
        np.testing.assert_array_equal(a[k], b[k], err_msg=k)


# ---- data

def test_ragged_rows_are_padded_rows():
    x, y = ragged()
    (px, lengths), (py, _) = pad_rows(x), pad_rows(y)
    models = [tagger(), tagger()]
    models[0].fit(x, y, optimizer=tr.optim.Adam(0.01), epochs=2, rng=0, metrics=("accuracy",))
    models[1].fit(px, py, lengths=lengths, optimizer=tr.optim.Adam(0.01), epochs=2, rng=0, metrics=("accuracy",))
    states_equal(models[0].state_dict(), models[1].state_dict())
    assert models[0].evaluate(x, y) == models[1].evaluate(px, py, lengths=lengths)
    found, padded = models[0].predict(x), models[1].predict(px, lengths=lengths)
    for row, full, n in zip(found, padded, lengths, strict=True):
        np.testing.assert_array_equal(row, full[:n])


def test_buckets_hold_every_row_once_and_little_padding():
    x, y = ragged(500, 60)
    padded = {}
    for bucket in (False, True):
        batches = Batches(Data(x, y), 16, lambda data: 0, bucket=bucket)
        pieces = batches.pieces(np.random.default_rng(0))
        assert sorted(np.concatenate([p.rows for p in pieces])) == list(range(500))
        padded[bucket] = sum(batches.batch(p)["x"].size for p in pieces)
        assert len({batches.batch(p)["x"].shape[1] for p in pieces}) <= 16
        one, two = ([p.rows.tolist() for p in batches.pieces(np.random.default_rng(s))] for s in (0, 1))
        assert one == [p.rows.tolist() for p in pieces] != two
    assert padded[True] < 0.65 * padded[False]
    history = tagger().fit(x, y, bucket=True, optimizer=tr.optim.Adam(0.02), epochs=4, rng=0)
    assert history["loss"][-1] < 0.6 * history["loss"][0]


def test_mask_with_holes_in_fit():
    """What stands where the mask is False reaches nothing; marking the ends by a mask or by lengths is the same."""
    x, y = np.random.default_rng(0).integers(0, V, (2, 20, 6))
    mask = np.random.default_rng(1).random((20, 6)) < 0.7
    found = []
    for filler in (0, 5):
        model = tagger(0.0)
        model.fit(np.where(mask, x, filler), np.where(mask, y, filler), mask=mask, optimizer=tr.optim.Adam(0.01), rng=0)
        found.append((model.state_dict(), model.evaluate(x, y, mask=mask), model.predict(x, mask=mask)[mask]))
    states_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    np.testing.assert_array_equal(found[0][2], found[1][2])
    lengths = np.random.default_rng(2).integers(1, 7, 20)
    models = [tagger(0.0), tagger(0.0)]
    models[0].fit(x, y, lengths=lengths, batch_size=20, optimizer=tr.optim.SGD(0.1), rng=0)
    models[1].fit(x, y, mask=np.arange(6) < lengths[:, None], batch_size=20, optimizer=tr.optim.SGD(0.1), rng=0)
    for k, v in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[k], v, rtol=1e-5, atol=1e-7)


class Two(tr.nn.Module):
    """A model of two arguments."""

    def __init__(self):
        self.a, self.b, self.out = tr.nn.GRU(2, 4, rng=0), tr.nn.Linear(3, 4, rng=1), tr.nn.Linear(4, 1, rng=2)

    def __call__(self, sequence, features, lengths=None):
        _, h = self.a(sequence, lengths=lengths[0] if isinstance(lengths, tuple) else lengths)
        return self.out(tr.tanh(h[0] + self.b(features)))


def test_models_of_several_inputs():
    rng = np.random.default_rng(0)
    x, f, y = rng.normal(size=(30, 5, 2)), rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    model = Two()
    history = model.fit((x, f), y, loss="mse", optimizer=tr.optim.Adam(0.02), epochs=20, rng=0)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert model.predict((x, f)).shape == (30, 1)
    cell = tr.Cell("h[t] = tanh(W @ u[t] + V @ v[t] + U @ h[t-1])")
    layer = tr.nn.Recurrent(cell, u=2, v=3, h=4, rng=0)
    both = {"u": x, "v": rng.normal(size=(30, 5, 3))}
    before = layer.evaluate(both, np.zeros((30, 5, 4)), loss="mse")["loss"]
    layer.fit(both, np.zeros((30, 5, 4)), loss="mse", optimizer=tr.optim.Adam(0.02), epochs=10, rng=0)
    assert layer.evaluate(both, np.zeros((30, 5, 4)))["loss"] < 0.8 * before


@pytest.mark.parametrize(("x", "y", "options", "message"), [
    (np.zeros((0, 5), int), np.zeros((0, 5), int), {}, "no rows to work on: x has shape"),
    ([], [], {}, "no rows to work on"),
    (np.zeros((3, 5), int), np.zeros((4, 5), int), {}, "x has 3 rows and y has 4"),
    ([[1, 2], [3]], [[1], [2, 3]], {}, "differ in length, but not as those of x do"),
    ([[1, 2], [3]], [[1, 2], [2]], {"lengths": [2, 1]}, "has lengths of its own"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"lengths": [5, 5, 5], "mask": np.ones((3, 5), bool)}, "lengths or mask, not both"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"mask": np.ones((3, 4), bool)}, r"mask is bool \[B, T\], here \[3,5\]"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"bucket": True}, "bucket=True sorts rows by length"),
    (np.array([["a", "b"]]), np.zeros((1, 2), int), {}, "expected numbers; encode text first"),
    (np.zeros((3, 5), int), np.full((3, 5), V), {}, "9"), (np.zeros((3, 5), int), np.full((3, 5), -1), {}, "-1"),
    (np.full((3, 5), V), np.zeros((3, 5), int), {}, "index 9"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"tbptt": 0}, "tbptt=0"),
    (np.zeros((3, 5), int), np.zeros(3, int), {"tbptt": 2}, "a target for every step"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"accumulate": 0}, "accumulate=0"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"save_every": 0.5}, "save_every=0.5"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"validation": 3}, r"validation is \(x, y\)"),
    (np.zeros((3, 5), int), np.zeros((3, 5), int), {"batch_size": 2.5}, "batch_size=2.5"),
    (np.zeros((3, 5), int), None, {}, "fit needs targets y")])
def test_bad_input_is_refused_by_name(x, y, options, message):
    before = (model := tagger()).state_dict()
    with pytest.raises(tr.TinyRNNError, match=message):
        model.fit(x, y, optimizer=tr.optim.SGD(0.1), **options)
    states_equal(before, model.state_dict())


def test_any_kind_of_array_will_do():
    """Read-only, Fortran-ordered, strided, big-endian, float16, small integers: the same as a plain array."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5, 2)).astype("f2").astype("f4"), rng.normal(size=(12, 5, 3)).astype("f4")
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.zeros((24, 10, 4), "f4")
    strided[::2, ::2, ::2] = x
    kinds = [x, frozen, np.asfortranarray(x), strided[::2, ::2, ::2], x.astype(">f4"), x.astype("f2"), x.astype("f8")]
    found = []
    for given in kinds:
        model = tr.nn.Sequential(tr.nn.GRU(2, 4, rng=0), tr.nn.Linear(4, 3, rng=1))
        model.fit(given, y, loss="mse", optimizer=tr.optim.Adam(0.01), epochs=2, rng=0)
        found.append(model.state_dict())
    for other in found[1:]:
        states_equal(found[0], other)
    small = tagger(0.0)
    small.fit(np.ones((4, 3), np.uint8), np.ones((4, 3), np.int16), optimizer=tr.optim.SGD(0.1))
    one = tagger(0.0)
    one.fit(np.ones((1, 1), int), np.ones((1, 1), int), optimizer=tr.optim.SGD(0.1))
    with pytest.raises(tr.TinyRNNError):
        tagger().fit(np.ones((4, 3)), np.ones((4, 3), int), optimizer=tr.optim.SGD(0.1))


def test_sequences_without_steps():
    model = tr.nn.Sequential(tr.nn.GRU(2, 4, rng=0), tr.nn.Pool("mean"), tr.nn.Linear(4, 1, rng=1))
    model.fit(np.zeros((6, 3, 2)), np.ones((6, 1)), loss="mse", lengths=np.zeros(6, int), optimizer=tr.optim.SGD(0.1), epochs=30)
    assert model.evaluate(np.zeros((6, 3, 2)), np.ones((6, 1)), lengths=np.zeros(6, int))["loss"] < 1e-3
    empty = tagger(0.0)
    empty.fit(np.zeros((4, 0), int), np.zeros((4, 0), int), optimizer=tr.optim.SGD(0.1))
    assert empty.predict(np.zeros((4, 0), int)).shape == (4, 0, V)


# ---- streams

def streams(rows=3, steps=25):
    x = np.random.default_rng(0).integers(0, V, (rows, steps))
    return x, np.roll(x, 1, 1)  # the number before: the state must be carried to know it


def test_tbptt_is_the_manual_loop():
    """States go on from piece to piece as values, the last piece is shorter, nothing is shuffled."""
    x, y = streams()
    model, own = tagger(0.0, dtype="float64"), tagger(0.0, dtype="float64")
    model.fit(x, y, optimizer=tr.optim.SGD(0.5), tbptt=10, epochs=2, batch_size=3)
    opt = tr.optim.SGD(0.5)
    for _ in range(2):
        state = None
        for start in range(0, 25, 10):
            logits, state = own(x[:, start : start + 10], state=state, return_state=True)
            tr.nn.cross_entropy(logits, y[:, start : start + 10]).backward()
            state = [None if s is None else tuple(tr.tensor(t.numpy()) for t in s) for s in state]
            opt.step(own.parameters())
    for k, v in own.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[k], v, rtol=1e-5, atol=1e-6)


def test_streams_are_scored_as_if_they_were_whole():
    x, y = streams()
    lengths, model = np.array([25, 7, 13]), tagger(0.0, dtype="float64")
    for n in (None, lengths):
        whole = model.evaluate(x, y, loss="cross_entropy", metrics=("accuracy", "perplexity"), lengths=n)
        pieces = model.evaluate(x, y, loss="cross_entropy", metrics=("accuracy", "perplexity"), lengths=n, tbptt=4, batch_size=2)
        for k in whole:
            assert pieces[k] == pytest.approx(whole[k], rel=1e-6)


def test_streams_learn_what_needs_memory():
    x, y = streams(4, 400)
    carried = tagger(0.0).fit(x, y, optimizer=tr.optim.Adam(0.02), tbptt=2, epochs=30, rng=0)["loss"][-1]
    cut = x.reshape(-1, 2), y.reshape(-1, 2)  # pieces of two steps without a state: half of the targets cannot be known
    alone = tagger(0.0).fit(*cut, optimizer=tr.optim.Adam(0.02), epochs=30, batch_size=4, rng=0)["loss"][-1]
    assert carried < 0.3 < 0.8 < alone


def test_models_that_cannot_stream():
    x, y = streams()
    for layer, message in ((tr.nn.LSTM(4, 8, bidirectional=True), "reads its sequence from the end"),
                           (tr.nn.Bidirectional(tr.nn.GRU(4, 8)), "reads its sequence from the end")):
        model = tr.nn.Sequential(tr.nn.Embedding(V, 4), layer, tr.nn.Linear(16, V))
        with pytest.raises(tr.TinyRNNError, match=message):
            model.fit(x, y, tbptt=5, optimizer=tr.optim.SGD(0.1))
    with pytest.raises(tr.TinyRNNError, match="has no argument state"):
        Two().fit((x, x), y, tbptt=5, optimizer=tr.optim.SGD(0.1))


# ---- accumulation

def test_accumulated_batches_are_one_large_batch():
    """With unequal numbers of targets: the mean is over targets, not over batches."""
    x, y = ragged(24)
    one, many = (tagger(0.0, dtype="float64") for _ in range(2))
    options = {"epochs": 3, "shuffle": False, "metrics": ("accuracy",)}
    a = one.fit(x, y, optimizer=tr.optim.Adam(0.01, clip_norm=0.1), batch_size=12, **options)
    b = many.fit(x, y, optimizer=tr.optim.Adam(0.01, clip_norm=0.1), batch_size=3, accumulate=4, **options)
    for k, v in one.state_dict().items():
        np.testing.assert_allclose(many.state_dict()[k], v, rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    rest = tagger(0.0)
    rest.fit(x, y, optimizer=(opt := tr.optim.SGD(0.1)), batch_size=5, accumulate=2, epochs=2)
    assert opt.state["step"] == 6  # five batches an epoch: two, two, one


# ---- metrics

def test_metrics_over_batches():
    x, y = ragged(30)
    model = tagger()
    small = model.evaluate(x, y, loss="cross_entropy", metrics=("perplexity", "f1", f1((0, 1), "f1 of most"), "accuracy"), batch_size=4)
    whole = model.evaluate(x, y, loss="cross_entropy", metrics=("perplexity", "f1", f1((0, 1), "f1 of most"), "accuracy"))
    assert small == pytest.approx(whole, rel=1e-5)
    assert whole["perplexity"] == pytest.approx(np.exp(whole["loss"]), rel=1e-6)
    px, lengths = pad_rows(x)
    py, valid = pad_rows(y)[0], np.arange(px.shape[1]) < lengths[:, None]
    said, meant = model.predict(px, lengths=lengths).argmax(-1)[valid], py[valid]
    for outside in ((0,), (0, 1)):
        tp = ((said == meant) & ~np.isin(meant, outside)).sum()
        fp = ((said != meant) & ~np.isin(said, outside)).sum()
        fn = ((said != meant) & ~np.isin(meant, outside)).sum()
        found = model.evaluate(x, y, metrics=(f1(outside),), loss="cross_entropy")["f1"]
        assert found == pytest.approx(2 * tp / (2 * tp + fp + fn), rel=1e-5)


def test_binary_accuracy():
    y = np.array([[1.0], [0.0], [1.0], [0.0]])
    z = np.array([[2.0], [-1.0], [-3.0], [4.0]])
    model = tr.nn.Lambda(lambda t: t * 1.0)
    assert model.evaluate(z, y, loss="bce_with_logits", metrics=("binary_accuracy",))["binary_accuracy"] == 0.5


# ---- callbacks

def falling(values):
    """A callback that puts a validation loss of one's choice in place of the measured one."""
    return lambda epoch, numbers: numbers.__setitem__("val_loss", values[epoch - 1])


def test_early_stopping_keeps_the_best_weights():
    x, y = ragged()
    seen = []

    class Keep(Callback):
        def begin(self, model):
            self.model = model

        def __call__(self, epoch, numbers):
            seen.append(self.model.state_dict())

    model = tagger()
    stop = EarlyStopping(patience=2, least=0.05)
    history = model.fit(x, y, optimizer=tr.optim.Adam(0.01), epochs=20, rng=0,
                        callbacks=[falling([3, 2, 2.5, 1.98, 1, 0]), Keep(), stop])
    assert len(history) == 4
    assert history.stopped == "val_loss was best in epoch 2, 2, and got no better for 2 epochs"
    states_equal(model.state_dict(), seen[1])
    model.fit(x, y, optimizer=tr.optim.Adam(0.01), epochs=3, rng=0,
              callbacks=[lambda e, n: n.__setitem__("f1", [0.1, 0.9, 0.5][e - 1]), Keep(), BestWeights("f1", "max")])
    states_equal(model.state_dict(), seen[5])
    for make, message in ((lambda: EarlyStopping(patience=0), "patience=0"), (lambda: BestWeights(mode="up"), "mode='up'"),
                          (lambda: model.fit(x, y, optimizer=tr.optim.SGD(0.1), callbacks=[EarlyStopping()]),
                           "monitors 'val_loss', but the epoch gave loss, seconds")):
        with pytest.raises(tr.TinyRNNError, match=message):
            make()


def test_any_function_may_stop():
    def enough(epoch, numbers):
        if epoch == 2:
            raise StopTraining("that is enough")
    x, y = ragged()
    history = tagger().fit(x, y, optimizer=tr.optim.SGD(0.1), epochs=5, callbacks=[enough])
    assert (len(history), history.stopped) == (2, "that is enough")


def test_logs(tmp_path):
    x, y = ragged()
    history = tagger().fit(x, y, optimizer=tr.optim.SGD(0.1), epochs=3, validation=(x, y),
                           callbacks=[Log(tmp_path / "log.csv"), Log(tmp_path / "log.json")])
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["val_loss"]) for r in rows] == history["val_loss"]
    assert json.loads((tmp_path / "log.json").read_text())[2]["loss"] == history["loss"][2]
    with pytest.raises(tr.TinyRNNError, match=r"\.csv or \.json"):
        Log("log.txt")


def test_plateau_lowers_the_rate_in_fit():
    x, y = ragged()
    opt = tr.optim.SGD(0.1, schedule=tr.optim.Plateau(0.5, 1, "val_loss"))
    tagger().fit(x, y, optimizer=opt, epochs=5, callbacks=[], validation=(x, y))
    before = opt.rate(1)
    for value in (5, 5, 5, 5):
        opt.observe({"val_loss": value})
    assert opt.rate(1) < before == 0.1
    with pytest.raises(tr.TinyRNNError, match="Plateau monitors 'val_loss'"):
        tagger().fit(x, y, optimizer=tr.optim.SGD(0.1, schedule=tr.optim.Plateau()))


# ---- runs that are killed and go on

class KilledError(Exception):
    """The process is gone."""


def run_to(folder, monkeypatch, last=None, **options):
    """A run in a folder; it dies before the step `last`, counted over all epochs."""
    steps = iter(range(10**9))
    original = Run._step

    def dying(self, piece, where):
        if next(steps) == last:
            raise KilledError
        original(self, piece, where)

    x, y = options.pop("data", ragged())
    model = options.pop("model", tagger)()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", dying)
        history = model.fit(x, y, resume=folder, rng=7, metrics=("accuracy",), **{"epochs": 3, "batch_size": 8, **options})
    return model.state_dict(), history


KINDS = {
    "plain": {"save_every": 2},
    "bucket": {"bucket": True, "save_every": 1},
    "accumulate": {"accumulate": 3, "save_every": 2},
    "streams": {"data": streams(5, 30), "tbptt": 7, "batch_size": 2, "save_every": 1},
    "noise": {"model": lambda: tagger(0.3, zoneout=0.1, recurrent_dropout=0.2), "save_every": 3}}


@pytest.mark.parametrize("kind", ["plain", *(pytest.param(k, marks=pytest.mark.slow) for k in list(KINDS)[1:])])
def test_a_killed_run_goes_on_bit_for_bit(kind, tmp_path, monkeypatch):
    """Killed before every single step in turn: weights, optimiser, order of the data, dropout, history, callbacks."""
    def options():
        return {**KINDS[kind], "optimizer": tr.optim.Adam(0.01, schedule=tr.optim.Plateau(0.5, 1, "val_loss")),
                "validation": KINDS[kind].get("data", ragged(10, rng=1)),
                "callbacks": [BestWeights(), Log(tmp_path / "log.json")]}

    whole_options = options()
    whole, history = run_to(tmp_path / "whole", monkeypatch, **whole_options)
    log = json.loads((tmp_path / "log.json").read_text())
    steps = len(whole_options["optimizer"].state["of"]) and 3 * {"streams": 15}.get(kind, 5)
    for last in range(1, steps, 2 if steps < 40 else 5):
        with pytest.raises(KilledError):
            run_to(tmp_path / str(last), monkeypatch, last, **options())
        again = options()
        state, other = run_to(tmp_path / str(last), monkeypatch, **again)
        states_equal(state, whole)
        assert without_seconds(other.epochs) == without_seconds(history.epochs)
        assert without_seconds(json.loads((tmp_path / "log.json").read_text())) == without_seconds(log)
        for name, slots in whole_options["optimizer"].state["of"].items():
            states_equal(again["optimizer"].state["of"][name], slots)


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_finished_run_is_only_read_and_a_longer_one_goes_on(tmp_path, monkeypatch):
    one, first = run_to(tmp_path / "a", monkeypatch, optimizer=tr.optim.Adam(0.01), epochs=2)
    two, again = run_to(tmp_path / "a", monkeypatch, 0, optimizer=tr.optim.Adam(0.01), epochs=2)  # would die at any step
    states_equal(one, two)
    assert first.epochs == again.epochs
    longer, _ = run_to(tmp_path / "a", monkeypatch, optimizer=tr.optim.Adam(0.01), epochs=4)
    whole, _ = run_to(tmp_path / "b", monkeypatch, optimizer=tr.optim.Adam(0.01), epochs=4)
    states_equal(longer, whole)


def test_another_run_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    run_to(tmp_path, monkeypatch, optimizer=tr.optim.Adam(0.01))
    for options, message in (({"batch_size": 4}, "another batch_size"), ({"optimizer": tr.optim.Adam(0.02)}, "another optimizer"),
                             ({"data": ragged(rng=5)}, "another data"), ({"loss": tr.nn.mse}, "another loss"),
                             ({"model": lambda: tagger(num_layers=2)}, "another model")):
        with pytest.raises(LoadError, match=message):
            run_to(tmp_path, monkeypatch, **{"optimizer": tr.optim.Adam(0.01), **options})
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(LoadError, match="not a sound safetensors file"):
        run_to(tmp_path, monkeypatch, optimizer=tr.optim.Adam(0.01))


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_goes_on(tmp_path):
    """SIGKILL at random moments, again and again, until the run is through."""
    script = textwrap.dedent("""
        import sys
        import numpy as np
        import tinyrnn as tr
        x = np.random.default_rng(0).integers(0, 9, (64, 20))
        model = tr.nn.Sequential(tr.nn.Embedding(9, 8, rng=0), tr.nn.LSTM(8, 16, rng=1), tr.nn.Dropout(0.3), tr.nn.Linear(16, 9, rng=2))
        model.fit(x, (x + 1) % 9, optimizer=tr.optim.Adam(0.01), epochs=180, batch_size=4, rng=3, resume=sys.argv[1], save_every=1)
        model.save(sys.argv[1] + "/model.safetensors")
    """)
    (tmp_path / "run.py").write_text(script)
    command = [sys.executable, str(tmp_path / "run.py")]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=120)
    rng, folder, kills = np.random.default_rng(0), tmp_path / "killed", 0
    while kills < 40:
        process = subprocess.Popen([*command, str(folder)])
        while process.poll() is None and not (folder / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        try:
            assert process.wait(1.0 + rng.random()) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    states_equal(tr.load(folder / "model.safetensors").state_dict(), tr.load(tmp_path / "whole" / "model.safetensors").state_dict())


# ---- numbers that are not finite

def test_the_first_bad_number_is_named_in_data_and_parameters():
    x = np.ones((6, 3, 2))
    x[4, 1, 0] = np.inf
    model = tr.nn.Sequential(tr.nn.GRU(2, 3, rng=0), tr.nn.Linear(3, 1, rng=1))
    with pytest.raises(NonFiniteError, match=r"epoch 1/1, step 3: the gradient of layers.0.weight_ih_l0 is not finite; first: the data hold inf at \[4, 1, 0\] of x"):
        model.fit(x, np.ones((6, 3, 1)), loss="mse", optimizer=tr.optim.SGD(0.1), batch_size=2, shuffle=False)
    model.layers[1].weight.assign(np.full((1, 3), np.nan))
    with pytest.raises(NonFiniteError, match=r"the parameter layers.1.weight holds nan at \[0, 0\]"):
        model.fit(x[:2], np.ones((2, 3, 1)), loss="mse", optimizer=tr.optim.SGD(0.1))


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_the_first_bad_node_is_named_with_step_and_layer(backend, tmp_path):
    """exp overflows in gate e at step 3 of the second layer; the checkpoint before it stays."""
    cell = tr.Cell("e[t] = exp(W @ x[t])\nh[t] = e[t] + 0.1 * h[t-1]", "explosive")
    model = tr.nn.Sequential(tr.nn.Linear(1, 1, bias=False), tr.nn.Recurrent(cell, x=1, h=1, rng=0))
    for t in model.parameters():
        t.assign(np.ones(t.shape))
    x = np.zeros((4, 5, 1))
    x[3, 2] = 200.0
    with pytest.raises(NonFiniteError) as caught:
        model.fit(x, np.zeros((4, 5, 1)), loss="mse", optimizer=tr.optim.SGD(1e-9), batch_size=2, shuffle=False,
                  backend=backend, resume=tmp_path, save_every=1)
    text = str(caught.value)
    assert "epoch 1/1, step 2: the loss is not finite; first: exp float32[2,1], that is e[3], computed from layers.1.weights.W" in text
    assert f"the last checkpoint in {tmp_path} is sound" in text
    arrays, _ = tr.io.read_weights(tmp_path / "checkpoint.safetensors")
    assert all(np.isfinite(v).all() for v in arrays.values() if v.dtype.kind == "f")


def test_a_gradient_that_is_not_finite_is_named():
    model = tr.nn.Sequential(tr.nn.Linear(1, 1, bias=False), tr.nn.Lambda(lambda x: tr.sqrt(x * x)))
    with pytest.raises(NonFiniteError, match=r"the gradient of layers\.0\.weight is not finite; first: "):
        model.fit(np.zeros((2, 1)), np.ones((2, 1)), loss="mse", optimizer=tr.optim.SGD(0.1))


# ---- memory

@pytest.mark.slow
def test_memory_of_long_runs_is_flat(tmp_path):
    """10,000 truncated steps, and 1,000 batches: no growth after the first tenth."""
    script = textwrap.dedent("""
        import resource, sys
        import numpy as np
        import tinyrnn as tr
        def resident():
            with open("/proc/self/statm") as f:
                return int(f.read().split()[1]) * resource.getpagesize()
        model = tr.nn.Sequential(tr.nn.Embedding(9, 8, rng=0), tr.nn.LSTM(8, 32, rng=1), tr.nn.Linear(32, 9, rng=2))
        if sys.argv[1] == "streams":
            x = np.random.default_rng(0).integers(0, 9, (4, 100_000))
            options = {"tbptt": 10, "batch_size": 4}
        else:
            x = np.random.default_rng(0).integers(0, 9, (4000, 20))
            options = {"batch_size": 4}
        seen, steps = [], 0
        class Every:
            pass
        from tinyrnn.train.run import Run
        original = Run._step
        def counted(self, *a):
            global steps
            original(self, *a)
            steps += 1
            if steps % 100 == 0:
                seen.append(resident())
        Run._step = counted
        model.fit(x, np.roll(x, 1, 1), optimizer=tr.optim.Adam(1e-3), rng=0, progress=False, **options)
        tenth = len(seen) // 10
        print(steps, max(seen[tenth:]) - seen[tenth])
    """)
    for kind, expected in (("streams", 10_000), ("batches", 1_000)):
        out = subprocess.run([sys.executable, "-c", script, kind], check=True, capture_output=True, text=True, timeout=300).stdout
        steps, growth = map(int, out.split())
        assert steps == expected
        assert growth < 4e6, f"{kind}: {growth:,} bytes more"
