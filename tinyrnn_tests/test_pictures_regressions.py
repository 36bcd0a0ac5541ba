"""Defects that fresh eyes found in pictures, pages and analyses, each with a test."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.subject import subject_of_cell
from tinyrnn.domains import Mark, Padding
from tinyrnn.domains.padding import CLEAN, PADDED, ZERO, tags_of
from tinyrnn.viz.drawing import flowing
from tinyrnn.viz.scene import BoxShape, Wire

from .test_page import data_of, told_of
from .test_xray import lstm_by_hand


def wires(drawing, kind="forward"):
    return {p.ends: p for p in drawing.scene.parts if isinstance(p, Wire) and p.kind == kind}


def boxes(drawing):
    return {p.key: p for p in drawing.scene.parts if isinstance(p, BoxShape)}


# ---- pictures

def test_the_loss_is_joined_to_what_it_reads_alone():
    last = tr.draw(tr.cells.LSTM, steps=4, gradients=True, loss="last", show="all")
    assert len([e for e in wires(last) if e[1].startswith("loss")]) == 1
    dead = tr.draw(tr.cells.LSTM, steps=2, gradients=True, loss=lambda ys: (ys[1] * 2).sum() + (ys[0] * 0).sum())
    assert len([e for e in wires(dead) if "loss" in e]) == 1
    both = tr.draw(tr.cells.RNN, gradients=True, values={"x": np.ones((2, 2))})
    sent = [w.title for e, w in wires(both, "backward").items() if "loss" in e]
    assert len(sent) == 2
    assert all(t.endswith(f"{np.sqrt(3):.3e}") for t in sent)


def test_edges_carry_what_an_lstm_by_hand_sends():
    rng = np.random.default_rng(0)
    W, U = ({k: rng.normal(size=(4, n)) for k in "ifgo"} for n in (3, 4))
    b, xs = {k: rng.normal(size=4) for k in "ifgo"}, rng.normal(size=(3, 2, 3))
    values = {**{f"W_i{k}": W[k] for k in W}, **{f"W_h{k}": U[k] for k in U}, **{f"b_i{k}": b[k] for k in b},
              **{f"b_h{k}": np.zeros(4) for k in b}, "x": xs, "h[0]": rng.normal(size=(2, 4)), "c[0]": rng.normal(size=(2, 4))}
    tile, flow = flowing(tr.cells.LSTM, subject_of_cell(tr.cells.LSTM, None, values, "sum"))
    hand = lstm_by_hand(W, U, b, xs, values["h[0]"], values["c[0]"])
    key = {i.called: k for k, i in tile.items.items() if i.kind != "exit"}
    for t, found in hand.items():
        for gate in "ifgo":
            assert flow.sent[t][key[gate], key["hₜ₋₁"]] == pytest.approx(np.linalg.norm(found[f"h0 by {gate}"]), rel=1e-9)
        assert flow.sent[t][key["tanh"], key["cₜ"]] == pytest.approx(np.linalg.norm(found["c by h"]), rel=1e-9)


def test_a_named_sum_stands_between_its_weights_and_its_function():
    drawing = tr.draw(tr.Cell("a[t] = W @ x[t] + U @ h[t-1] + b\nh[t] = tanh(a[t])"))
    lines = ["".join(b.lines) for b in boxes(drawing).values()]
    assert lines.count("a = W xₜ +U hₜ₋₁ +b") == 1
    tanh = next(k for k, b in boxes(drawing).items() if b.lines[0] == "tanh")
    source = next(a for (a, b) in wires(drawing) if b == tanh)
    assert boxes(drawing)[source].lines[0] == "a = W xₜ +"


def test_operands_enter_in_order_and_transposes_are_named():
    drawing = tr.draw(tr.Cell("h[t] = (W @ x[t]) - (U.T @ h[t-1])"))
    by_name = {b.lines[0].partition(" ")[0]: k for k, b in boxes(drawing).items() if b.lines}
    minus = next(k for k, b in boxes(drawing).items() if list(b.lines) == ["−"])
    ends = {a: w.points[-1][1] for (a, b), w in wires(drawing).items() if b == minus}
    assert ends[by_name["W"]] < ends[by_name["Uᵀ"]]
    assert any(b.lines == ["max 0.5"] for b in boxes(tr.draw(tr.Cell("h[t] = tanh(W @ x[t] + maximum(h[t-1], 0.5))"))).values())


def test_what_comes_back_through_a_step_is_not_called_the_gradient():
    ray = tr.xray(tr.cells["elman"], steps=3, loss="sum").layer
    titles = [b.title for b in boxes(tr.draw(tr.cells["elman"], steps=3, gradients=True)).values()]
    assert any(f"‖∂L/∂‖ = {ray.gradients['h'][0]:.3e}" in t for t in titles if t.startswith("h₁"))
    assert any(f"sent back by this step = {ray.gradients['h[t-1]'][1]:.3e}" in t for t in titles if t.startswith("h₁"))


def test_rows_of_the_strip_are_in_the_order_of_the_text():
    names = [line.split("  ")[0].strip() for line in tr.draw(tr.cells.LSTM, steps=9, show="heat").text().splitlines()[2:8]]
    assert [n[0] for n in names] == ["c", "h", "i", "f", "g", "o"]


def test_gradients_that_burst_are_not_called_none():
    values = {"W_hh": 1e120 * np.eye(3), "x": np.ones((6, 2)), "b_ih": np.ones(3)}
    drawing = tr.draw(tr.cells["rnn_relu"], steps=6, gradients=True, show="all", values=values)
    assert {b.fill for b in boxes(drawing).values()} & {"q13"}
    assert any(p.text == "inf" for p in drawing.scene.parts if hasattr(p, "text"))


def test_models_say_what_is_shared_and_what_asks():
    shared = tr.nn.Linear(4, 4)
    words = [line for b in boxes(tr.nn.Sequential(shared, tr.nn.RNN(4, 4), shared).draw()).values() for line in b.lines]
    assert "shared with 0" in words
    model = tr.nn.EncoderDecoder(12, 14, 8, attention="bahdanau", rng=0)
    drawing = model.draw()
    found = [int(re.match(r"[\d,]+", line)[0].replace(",", "")) for b in boxes(drawing).values() for line in b.lines if "param" in line]
    assert sum(found) == sum(t.size for t in model.parameters())
    assert any(w.title.startswith("the decoder's last state asks") for w in wires(drawing, "delay").values())


def test_text_stays_in_its_box():
    name = "s" * 110
    for options in ({}, {"steps": 2}):
        svg = tr.draw(tr.Cell(f"{name}[t] = tanh(W @ x[t] + U @ {name}[t-1])"), **options).svg
        assert not re.search(rf'text-anchor="middle"[^>]*>{name}', svg)


@pytest.mark.parametrize(("use", "message"), [
    (lambda: tr.draw(tr.cells.GRU, steps=3, show=5), "show=5"), (lambda: tr.draw(tr.cells.GRU, steps=3, show=["a"]), r"show=\['a'\]"),
    (lambda: tr.draw(tr.cells.GRU, steps=3, show=[True]), "show="), (lambda: tr.draw(tr.cells.GRU, steps=3, gradients="no"), "True or False"),
    (lambda: tr.draw(tr.cells.GRU, 3), "the name of a file is text"),
    (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, values=[1, 2]), "values are a dict"),
    (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, values={"x": "abc"}), "values: x is no array of numbers"),
    (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, values={"x": [[1, 2], [3]]}), "values: x is no array of numbers"),
    (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, loss=lambda o: o[-1]), "one number"),
    (lambda: tr.page(tr.cells.GRU, steps=10**20), "at most 24"), (lambda: tr.page(tr.cells.GRU, steps=0), "steps=0"),
    (lambda: tr.page(tr.cells.GRU, sizes={"zz": 3}), "no size 'zz'"), (lambda: tr.xray(tr.cells.GRU, steps=3, rng=-1), "rng=-1"),
    (lambda: tr.xray(tr.cells.GRU, steps=3, y=3), "y, lengths and mask are for"),
    (lambda: tr.analyze(tr.cells.GRU, "junk"), "x, y and lengths are for models"),
    (lambda: tr.analyze(tr.nn.GRU(2, 3), np.ones((1, 2, 2), "f"), steps=10), "are for cells"),
    (lambda: tr.analyze(tr.Graph({})), "no output"), (lambda: tr.xray(tr.nn.GRU(2, 3), np.ones((0, 2, 2), "f")), "at least one row"),
    (lambda: tr.xray(tr.cells.GRU, steps=3).layer.dies("nope"), "no quantity 'nope'"),
    (lambda: tr.xray(tr.cells.GRU, steps=3).layer.jacobian(1.5, 0), r"jacobian\(1.5, 0\)"),
    (lambda: tr.leaks("abc", [2, 1], np.ones((2, 4, 3))), "takes a layer"),
    (lambda: tr.leaks(lambda x, n: x, [2, 1], np.ones(3)), r"\[B, T, ...\]"),
    (lambda: tr.leaks(lambda x, n: x, [2, 1], np.ones((2, 4, 3)), loss=3), "loss=3")])
def test_mistakes_are_named(use, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        use()


# ---- pages

@pytest.mark.parametrize("loss", ["sum", "last"])
@pytest.mark.parametrize("name", tr.cells.names())
def test_the_strongest_path_is_unbroken(name, loss):
    data = data_of(tr.page(tr.cells[name], steps=4, loss=loss))[0]
    edges = {tuple(e) for e in data["edges"]}
    assert data["strongest"]
    for way in data["strongest"]:
        assert way[0] == "loss"
        for reader, source in pairwise(way):
            assert (source, reader) in edges, (source, reader)


class Final(tr.nn.Module):
    """Its output is the cell state after the last step."""

    def __init__(self):
        self.rnn = tr.nn.LSTM(3, 4, rng=0)

    def __call__(self, x):
        return self.rnn(x)[1][1][0]


def test_a_loss_that_reads_a_final_state():
    data = data_of(tr.page(Final(), None, np.random.default_rng(0).normal(size=(2, 3, 3)).astype("f")))[0]
    stop = next(s for s in data["stops"] if s["direction"] == "b" and s["name"] == "c₃")
    assert ["the loss", None, stop["norm"]] in stop["from"]
    assert all(way[1] == stop["node"] for way in data["strongest"])


def test_formulas_belong_to_their_layer_and_direction():
    class Two(tr.nn.Module):
        def __init__(self):
            self.rnn2, self.rnn = tr.nn.LSTM(3, 4, rng=0), tr.nn.GRU(4, 4, rng=1)

        def __call__(self, x):
            return self.rnn(self.rnn2(x)[0])[0]

    told = told_of(tr.page(Two(), None, np.ones((1, 3, 3), "f")))
    first, second = told["pictures"]
    assert "f₁" in {s["name"] for s in first["stops"]}
    used = [{k for s in picture["stops"] for k in s.get("formulas", ())} for picture in (first, second)]
    assert all(any(told["formulas"][k]["what"] == "forward" for k in own) for own in used)
    assert not used[0] & used[1]
    page = tr.page(tr.nn.Recurrent("gru", x=2, h=3, reverse=True, rng=0), None, np.ones((1, 3, 2), "f"))
    forward = next(f["mathml"] for f in told_of(page)["formulas"] if f["what"] == "forward")
    assert "<mo>&#x0002B;</mo><mn>1</mn>" in forward or "+" in forward.replace("&#x0002B;", "+")


def test_numbers_that_are_not_finite_have_a_page():
    page = tr.page(tr.Cell("h[t] = exp(W @ x[t] + 300 * (U @ h[t-1]))"), steps=3)
    assert "NaN" not in re.search(r'id="data">(.*?)</script>', page.html, re.S)[1]


# ---- analyses

def test_reports_are_strict_json():
    for name in ("indrnn", "rnn_relu", "lstm"):
        json.dumps(tr.analyze(tr.cells[name], steps=9).to_dict(), allow_nan=False)
        json.dumps(tr.xray(tr.cells[name], steps=9).to_dict(), allow_nan=False)


def test_padding_does_not_count_in_xrays():
    x = np.full((2, 6, 1), 1000.0, "f")
    ray = tr.xray(tr.nn.RNN(1, 4, rng=0), x, lengths=[6, 0]).layer
    ends = ray.saturation["h"]
    assert (ends["low"] + ends["high"]).tolist() == [1.0] * 6
    assert np.isnan(tr.xray(tr.nn.RNN(1, 4, rng=0), x, lengths=[1, 1]).layer.saturation["h"]["low"][1:]).all()
    short = tr.xray(tr.nn.RNN(1, 4, rng=0), np.ones((4, 28, 1), "f"), lengths=[5, 4, 3, 2]).layer
    assert short.dies("h") is None
    layer = tr.nn.Recurrent("rnn", x=1, h=3, reverse=True, dtype="float64", rng=0)
    back = tr.xray(layer, np.ones((1, 200, 1)), loss=lambda y: y[:, 0].sum()).layer
    died = back.dies("h")
    assert 1 < died < 200
    assert (back.gradients["h"][died - 1:] < 1e-6 * back.gradients["h"].max()).all()
    assert f"from t = {died} on" in str(back) or "from t = " in str(back)


def test_dynamics_are_those_of_the_longest_row():
    x = np.random.default_rng(0).normal(size=(2, 30, 2)).astype("f")
    layer = tr.nn.GRU(2, 3, rng=0)
    found = tr.analyze(layer, x, lengths=[0, 30]).dynamics["l0"]
    alone = tr.analyze(layer, x[1:], lengths=[30]).dynamics["l0"]
    np.testing.assert_allclose(found.exponents, alone.exponents, rtol=1e-5)
    assert "row 2" in found.what


def test_layers_of_every_layout_are_xrayed():
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    rows = tr.xray(tr.nn.GRU(3, 4, dtype="float64", rng=0), x.transpose(1, 0, 2)).layer.gradients["h"]
    first = tr.xray(tr.nn.GRU(3, 4, batch_first=False, dtype="float64", rng=0), x).layer.gradients["h"]
    np.testing.assert_allclose(rows, first)
    major = tr.nn.Recurrent("gru", x=3, h=4, batch_first=False, dtype="float64", rng=0)
    assert tr.xray(major, x).layer.gradients["h"].shape == (5,)
    assert tr.xray(tr.nn.GRU(3, 4, dtype="float64", rng=0), x[:, 0]).layer.gradients["h"].shape == (5,)


# ---- leaks

X4 = np.ones((2, 4, 3))
VALID = tr.tensor(np.arange(4) < np.array([3, 1])[:, None])


@pytest.mark.parametrize("what", [
    tr.nn.LayerNorm(3, dtype="float64"), lambda x, n: tr.softmax(x, -1), lambda x, n: tr.where(VALID.reshape(2, 4, 1), x**2, 0.0).sum(1),
    lambda x, n: tr.where(VALID.reshape(2, 4, 1), tr.exp(x), 0.0).sum(1), lambda x, n: tr.var(x, -1, keepdims=True),
    lambda x, n: (x, x.argmax(-1)), lambda x, n: tr.where((VALID & (x[:, :, 0] != 0)).reshape(2, 4, 1), x, 0.0).sum(1)])
def test_no_false_alarm(what):
    report = tr.leaks(what, [3, 1], X4)
    assert report.holds, str(report)


def test_a_pooled_output_as_wide_as_it_is_long_is_not_taken_for_a_sequence():
    assert not tr.leaks(lambda x, n: x.sum(1), [3, 0], np.ones((2, 3, 3))).holds
    assert tr.leaks(lambda x, n: x * 2, [3, 0], np.ones((2, 3, 3))).holds


def test_a_function_that_asks_for_numbers_is_refused():
    with pytest.raises(tr.TinyRNNError, match="no value"):
        tr.leaks(lambda x, n: tr.tensor(x.numpy().sum(1)), [2, 1], X4)
    with pytest.raises(tr.TinyRNNError, match="no result depends on the input"):
        tr.leaks(lambda x, n: tr.tensor(np.ones((2, 3))) * 2.0, [2, 1], X4)


def test_time_first_layers():
    assert tr.leaks(tr.nn.GRU(3, 4, batch_first=False, rng=0), [3, 1]).survives_nan
    assert tr.leaks(tr.nn.GRU(3, 4, batch_first=False, rng=0), [3, 1, 0, 0], np.ones((4, 4, 3), "f")).holds
    assert tr.leaks(tr.nn.GRU(3, 4, rng=0), (3, 1)).holds




def fuzz(build, shapes, seed):
    """A function run over marks, and twice over numbers that differ in the padding alone."""
    rng = np.random.default_rng(seed)
    inputs = {f"a{i}": tr.input(f"a{i}", s) for i, s in enumerate(shapes)}
    graph = tr.Graph({"y": build(*inputs.values())})
    tags = {k: rng.choice([ZERO, CLEAN, PADDED], t.shape, p=[0.3, 0.4, 0.3]) for k, t in inputs.items()}
    one = {k: np.where(t == ZERO, 0.0, rng.uniform(0.2, 2, t.shape)) for k, t in tags.items()}
    two = {k: np.where(t == PADDED, rng.uniform(-2, 2, t.shape), one[k]) for k, t in tags.items()}
    found = tags_of(graph.run({k: Mark(t) for k, t in tags.items()}, domain=Padding())["y"])
    a, b = graph.run(one)["y"], graph.run(two)["y"]
    fine = np.isfinite(a) & np.isfinite(b)
    assert (a == b)[(found != PADDED) & fine].all()
    assert (np.asarray(a)[(found == ZERO) & fine] == 0).all()
    return found, tags


@pytest.mark.parametrize("seed", range(3))
def test_every_op_of_the_domain_is_sound(seed):
    s = (3, 4)
    for name in ("tanh", "sigmoid", "relu", "exp", "abs", "sqrt", "log", "sin", "cos", "softplus", "expm1", "log1p", "sign"):
        fuzz(getattr(tr, name), [s], seed)
    for build in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, tr.maximum, tr.minimum,
                  lambda a, b: tr.where(a < b, a, b), lambda a, b: a**2 * b, lambda a, b: a @ b.T, lambda a, b: tr.outer(a, b),
                  lambda a, b: tr.einsum("ij,kj->ik", a, b), lambda a, b: tr.concat([a, b]), lambda a, b: tr.stack([a, b])):
        fuzz(build, [s, s], seed)
    for build in (lambda a: a.max(1), lambda a: a.min(0), lambda a: a.sum(1), lambda a: a.mean(0), lambda a: tr.cumsum(a, 1),
                  lambda a: a[:, 1:3], lambda a: a[1], lambda a: a.T, lambda a: a.reshape(2, 6), lambda a: tr.pad(a, ((1, 1), (0, 2))),
                  lambda a: tr.flip(a, 0), lambda a: tr.softmax(a), lambda a: tr.layer_norm(a), lambda a: tr.clip(a, -0.5, 0.5),
                  lambda a: tr.clip(a, 0.5, 1.0), lambda a: tr.logsumexp(a, -1), lambda a: -a * 0.5, lambda a: 1 / (a + 3),
                  lambda a: tr.grad((a * a.max()).sum(), a), lambda a: tr.grad(tr.softmax(a)[:, 0].sum(), a)):
        fuzz(build, [s], seed)


def test_the_largest_of_padded_entries_is_padded():
    found, tags = fuzz(lambda a: a.max(1), [(6, 5)], 0)
    assert ((found == PADDED) == (tags["a0"] == PADDED).any(1)).all()


@pytest.mark.parametrize("strict", [False, True])
def test_lookups_by_padded_indices(strict):
    table, index = tr.input("t", (5, 2)), tr.input("i", (3,), "int64")
    graph = tr.Graph({"rows": tr.gather(table, index), "back": tr.grad((tr.gather(table, index) ** 2).sum(), table)})
    marks = {"t": Mark(np.full((5, 2), CLEAN)), "i": Mark([CLEAN, PADDED, CLEAN])}
    run = graph.run(marks, domain=Padding(strict))
    assert run["rows"].tags.tolist() == [[CLEAN] * 2, [PADDED] * 2, [CLEAN] * 2]
    assert run["back"].padded


def test_steps_that_differ_only_in_what_they_remember_are_told_apart():
    from tinyrnn.analysis.structure import rerolled
    from tinyrnn.ir.node import rebuild

    graph = tr.cells.LSTM.unroll(8, x=3, h=3)
    h, c = graph.find("h", 4), graph.find("c", 4)
    odd = [n for n, t in graph.steps.items() if t == 5 and n.op.name == "matmul" and h in n.src]
    new = {n: c @ n.src[1] for n in odd[:1]}
    rebuild(graph.nodes, new)
    planted = tr.Graph({k: new[n] for k, n in graph.outputs.items()}, {label: new[n] for label, n in graph.labels.items()},
                       {new[n]: t for n, t in graph.steps.items()})
    assert (5, 5) in rerolled(planted)


# ---- what a newcomer found

def test_parameters_that_a_function_closes_over_are_looked_at():
    lin, zero = tr.nn.Linear(3, 2, rng=0), tr.tensor(np.zeros((1, 1, 1), "f"))

    def fn(x, lengths):
        keep = tr.tensor((np.arange(x.shape[1])[None] < np.asarray(lengths)[:, None])[:, :, None])
        return tr.where(keep, lin(x), zero).sum(1)

    report = tr.leaks(fn, [5, 2], np.ones((2, 6, 3), "f"))
    assert {"dL/dweight", "dL/dbias"} <= set(report.results)
    assert report.holds
    assert not report.survives_nan


def test_nothing_padded_proves_nothing():
    for lengths, x in (([6, 6], np.ones((2, 6, 3), "f")), ([], np.ones((0, 6, 3), "f"))):
        with pytest.raises(tr.TinyRNNError, match="nothing is padded"):
            tr.leaks(tr.nn.LSTM(3, 4, rng=0), lengths, x)


def test_mean_shares_sum_to_one():
    class M(tr.nn.Module):
        def __init__(self):
            self.r, self.o = tr.nn.GRU(2, 4, rng=0), tr.nn.Linear(4, 1, rng=0)

        def __call__(self, x):
            return self.o(self.r(x)[1][-1])

    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype("f")
    for line in str(tr.xray(M(), x)).splitlines():
        shares = [int(s) for s in re.findall(r"([+-]\d+)%", line)]
        assert not shares or abs(sum(shares) - 100) <= 2, line
    assert tr.analyze(M(), x).loops["r.l0"].feedforward_depth == 2


def test_every_report_names_its_loss():
    texts = (str(tr.xray(tr.cells.GRU, steps=3)), tr.draw(tr.cells.GRU, steps=3, gradients=True).svg, str(tr.analyze(tr.cells.GRU)))
    assert ["the sum of the last outputs" in t for t in texts] == [True, False, True]
    assert "the sum of all outputs" in texts[1]


def test_trained_weights_go_into_pictures():
    layer, x = tr.nn.LSTM(2, 3, num_layers=2, dtype="float64", rng=0), np.random.default_rng(1).normal(size=(4, 2, 2))
    inner = tr.nn.LSTM(2, 3, dtype="float64", rng=0)
    ray = tr.xray(tr.cells.LSTM, x, values=inner.cell_values()).layer
    same = tr.xray(inner, x.transpose(1, 0, 2)).layer
    np.testing.assert_allclose(ray.gradients["f"], same.gradients["f"])
    assert layer.cell_values("l1")["W_ii"].shape == (3, 3)
    with pytest.raises(tr.TinyRNNError, match="no layer 'l2'"):
        layer.cell_values("l2")
    plain = tr.nn.Recurrent("gru", x=2, h=3, dtype="float64", rng=0)
    assert tr.draw(tr.cells.GRU, gradients=True, values={**plain.state_dict(), "x": x}).svg


def test_the_length_of_given_sequences_counts():
    report = tr.analyze(tr.cells.GRU, values={"x": np.ones((6, 2))})
    assert report.steps == 6
    with pytest.raises(tr.TinyRNNError, match="6 steps, steps=100"):
        tr.analyze(tr.cells.GRU, steps=100, values={"x": np.ones((6, 2))})


def test_a_loss_that_does_not_fit_says_which_argument():
    model = tr.nn.Sequential(tr.nn.GRU(2, 3, rng=0), tr.nn.Last(), tr.nn.Linear(3, 1, rng=1))
    x, y = np.ones((4, 5, 2), "f"), np.ones((4, 1), "f")
    with pytest.raises(tr.TinyRNNError, match="loss='mse'"):
        tr.xray(model, x, y)
    assert tr.xray(model, x, y, loss="mse").layer.name == "layers.0.l0"
    assert {w.source for w in tr.analyze(model, x).paths} >= {"layers.0.weight_ih_l0", "layers.2.weight"}
