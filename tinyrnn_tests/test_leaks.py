"""Leaks: the domain is sound for random graphs, every kind of layer is proved, and planted leaks are found with their path."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn.domains import Mark, Padding
from tinyrnn.domains.padding import CLEAN, PADDED, ZERO, tags_of
from tinyrnn.passes import unroll

from .random_graphs import random_graph

RNG = np.random.default_rng(0)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_what_is_not_padded_does_not_move(data, seed):
    """Two runs that differ in the padded entries alone agree, bit for bit, wherever the domain says clean; zeros are zero."""
    graph = random_graph(data.draw)
    rng = np.random.default_rng(seed)
    first, second, marks = {}, {}, {}
    for name, n in graph.inputs.items():
        if n.dtype.kind == "b":
            first[name] = second[name] = marks[name] = rng.random(n.shape) < 0.6
            continue
        padded = rng.random(n.shape) < rng.choice([0.0, 0.15, 0.6])
        first[name] = rng.normal(size=n.shape).astype(n.dtype)
        second[name] = np.where(padded, rng.normal(size=n.shape) * 3, first[name]).astype(n.dtype)
        marks[name] = Mark(np.where(padded, PADDED, CLEAN))
    flat = unroll(graph)
    given_ = {k: v for k, v in marks.items() if k in flat.inputs}
    found = flat.run(given_, domain=Padding())
    a, b = (flat.run({k: v for k, v in values.items() if k in flat.inputs}) for values in (first, second))
    for name, result in found.items():
        tags = tags_of(result)
        assert tags.shape == np.shape(a[name])
        same = (np.asarray(a[name]) == np.asarray(b[name])) | (np.isnan(a[name]) & np.isnan(b[name]))
        assert same[tags != PADDED].all(), name
        finite = np.isfinite(a[name]) if np.asarray(a[name]).dtype.kind == "f" else np.ones(np.shape(a[name]), bool)
        assert (np.asarray(a[name])[(tags == ZERO) & finite] == 0).all(), name


LAYERS = {
    "LSTM": lambda: tr.nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0), "GRU": lambda: tr.nn.GRU(3, 4, rng=0),
    "RNN reversed": lambda: tr.nn.RNN(3, 4, reverse=True, rng=0), "layer norm": lambda: tr.nn.LSTM(3, 4, layer_norm=True, rng=0),
    "Bidirectional": lambda: tr.nn.Bidirectional(tr.nn.Recurrent("mgu", x=3, h=4, rng=0), rng=1),
    "sum": lambda: tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0), merge="sum", rng=1),
    "last": lambda: tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.LSTM(3, 4, rng=1), tr.nn.Last(), tr.nn.Linear(4, 2, rng=2)),
    "mean": lambda: tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.GRU(3, 4, rng=1), tr.nn.Pool("mean")),
    "max": lambda: tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.GRU(3, 4, bidirectional=True, rng=1), tr.nn.Pool("max")),
    **{n: lambda n=n: tr.nn.Recurrent(n, {s: 2 + i for i, s in enumerate(tr.cells[n].sizes)}, rng=0) for n in tr.cells.names()}}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_is_proved(name):
    report = tr.leaks(LAYERS[name](), [4, 1, 2])
    assert report.holds, str(report)
    assert report
    assert report.survives_nan
    assert "loss" in report.results
    assert any(r.startswith("dL/d") for r in report.results)
    assert "proved for lengths [4, 1, 2]" in str(report)


@pytest.mark.parametrize("attention", [None, "bahdanau", "dot"])
def test_encoder_decoder(attention):
    model = tr.nn.EncoderDecoder(7, 6, 4, attention=attention, rng=0)
    assert tr.leaks(model, ([3, 1], [2, 3])).holds


class Forgetful(tr.nn.Module):
    """Takes lengths and does not use them."""

    def __init__(self):
        self.layer = tr.nn.GRU(3, 4, rng=0)

    def __call__(self, x, lengths=None):
        return self.layer(x)[0][:, -1]


X = np.ones((2, 5, 3), "float32")
LEAKY = {
    "forgotten lengths": (Forgetful(), None), "mean over all steps": (
        lambda x, n: tr.nn.GRU(3, 4, rng=0)(x, lengths=n)[0] + x.mean(1, keepdims=True).sum(), None),
    "weighted by zero": (lambda x, n: (x * tr.tensor((np.arange(5) < np.asarray(n)[:, None])[..., None].astype("float32"))).sum(1),
                         "nan only"),
    "softmax over time": (lambda x, n: tr.softmax(x.transpose(0, 2, 1)).transpose(0, 2, 1), None)}


@pytest.mark.parametrize("name", LEAKY)
def test_planted_leaks_are_found_with_their_path(name, tmp_path):
    what, only = LEAKY[name]
    report = tr.leaks(what, [5, 2], X)
    if only:
        assert report.holds
        assert not report.survives_nan
        assert "0 / 0 might pass" in str(report)
        return
    assert not report.holds
    leak = report.found[0]
    assert leak.steps[0].startswith("x float32[2,5,3]")
    for a, b in zip(leak.nodes, leak.nodes[1:], strict=False):
        assert a in b.src
    assert leak.nodes[-1] is report.graph.outputs[leak.result]
    assert "padding reaches output" in str(report)
    svg = report.draw(str(tmp_path / "leak.svg")).svg
    assert "padding reaches output" in svg
    report.to_dict()


def test_the_proof_agrees_with_numbers():
    """What is called a leak moves; what is proved does not, with NaN in the padding."""
    good, bad = tr.nn.LSTM(3, 4, rng=0).eval(), Forgetful()
    other = X.copy()
    other[1, 2:] = np.nan
    assert tr.leaks(good, [5, 2]).survives_nan
    np.testing.assert_array_equal(good(X, lengths=[5, 2])[0].numpy(), good(other, lengths=[5, 2])[0].numpy())
    other[1, 2:] = 7
    assert not tr.leaks(bad, [5, 2], X).holds
    assert (bad(X).numpy() != bad(other).numpy()).any()


def test_a_mask_that_is_broken_is_noticed(monkeypatch):
    """A scan that does not blank its inputs leaks."""
    from tinyrnn.ir import scan

    original = scan._masked_step
    monkeypatch.setattr(scan, "_masked_step", lambda step, states, slices, valid: original(step, states, slices, None))
    assert not tr.leaks(tr.nn.GRU(3, 4, rng=0), [4, 1]).holds


def test_own_loss():
    layer = tr.nn.GRU(3, 4, rng=0)
    assert tr.leaks(layer, [3, 1], loss=lambda result: result[1].sum()).holds


def test_mistakes():
    for use, message in ((lambda: tr.leaks(Forgetful(), [3, 1]), "no example of an input"),
                         (lambda: tr.leaks(tr.nn.EncoderDecoder(5, 5, 4, rng=0), [3, 1]), "two lengths"),
                         (lambda: tr.leaks(tr.nn.GRU(3, 4), [3, 9], X), "between 0 and"),
                         (lambda: tr.leaks(tr.nn.GRU(3, 4), [3, 2]).draw(), "no leak to draw"),
                         (lambda: tr.leaks(lambda x, n: 3, [3, 2], X), "to give tensors"),
                         (lambda: tr.leaks(tr.nn.GRU(3, 4), ([3, 2], [1, 1]), X), "2 lengths")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()
