"""X-rays: every norm, part, share and Jacobian against computations that share no code with them."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.bptt import BackwardPass
from tinyrnn.analysis.subject import subject_of_cell
from tinyrnn.domains.complex_step import complex_step_gradient

from .test_equations import GOOD

CELLS = {**{n: tr.cells[n] for n in tr.cells.names()}, **{n: tr.Cell(t, n) for n, t in GOOD.items()}}
T, B = 4, 3


def disturbed(cell):
    """The same cell, with a disturbance added to every vector: `dL/de_f[t]` is `dL/df[t]`."""
    lines, made = [], [f"e_{e.name}" for e in cell.system.equations if cell.ranks["signal", e.name] == 1]
    for line in cell.canonical_text().splitlines():
        left, equals, right = line.partition(" = ")
        name = left.partition("[t]")[0]
        lines.append(f"{left} = ({right}) + e_{name}[t]" if equals and cell.ranks.get(("signal", name)) == 1 else line)
    return tr.Cell("\n".join(f"{line}, {', '.join(made)}" if line.startswith("inputs:") else line for line in lines), cell.name)


def sizes_like(other, cell):
    """The sizes of a cell under the names that another cell gives them."""
    own = {k: n for n, k in enumerate(cell.sizes, 2)}
    pairs = [(other.signals[q], cell.signal_shape(q, own)) for q in cell.signals]
    pairs += [(other.parameters[p], shape) for p, shape in cell.shapes(own).items()]
    return {s: n for symbols, shape in pairs for s, n in zip(symbols, shape, strict=True) if s in other.sizes}


def study_and_values(cell):
    subject = subject_of_cell(cell, T, batch=B, rng=3)
    return subject, dict(subject.values)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_every_quantity_equal_complex_step(name):
    cell = CELLS[name]
    ray = tr.xray(cell, steps=T, values=None, loss="sum").layer
    subject = subject_of_cell(cell, T, loss="sum")
    other = disturbed(cell)
    graph = other.rolled(T, sizes_like(other, cell), batch=1, loss="sum")
    values = {k: subject.values[k] if k in subject.values else np.zeros(n.shape) for k, n in graph.inputs.items()}
    only = tr.Graph({"loss": graph.outputs["loss"]})
    seen = 0
    for q, norms in ray.gradients.items():
        for t in (1, T) if f"e_{q}[1]" in only.inputs else ():
            expected = complex_step_gradient(only, values, f"e_{q}[{t}]", "loss")
            assert norms[t - 1] == pytest.approx(np.linalg.norm(expected), rel=1e-9, abs=1e-11), (q, t)
            seen += 1
    assert seen >= 2, "no quantity was compared"


@pytest.mark.parametrize("name", CELLS)
def test_parts_sum_to_the_gradient(name):
    cell = CELLS[name]
    subject, values = study_and_values(cell)
    bptt, given = subject.backward_passes()[0]
    whole = cell.rolled(T, dict(zip(cell.sizes, range(2, 99), strict=False)), batch=B, gradients=True).run(values)
    sums = {}
    for m in bptt.steps_back(given):
        for p, part in m.parameters.items():
            sums[p] = sums.get(p, 0) + part
    for p, total in sums.items():
        np.testing.assert_allclose(total, whole[f"dloss/d{p}"], rtol=1e-9, atol=1e-12, err_msg=p)
    assert set(cell.parameters) - set(cell.learned) - set(cell.fixed) <= set(sums)


def lstm_by_hand(W, U, b, xs, h, c):
    """LSTM forward and back in NumPy: gates of each step, total gradients, and what is sent along each edge; L = sum h[t]."""
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    tape = []
    for x in xs:
        a = {k: x @ W[k].T + h @ U[k].T + b[k] for k in "ifgo"}
        gate = {k: np.tanh(a[k]) if k == "g" else sigmoid(a[k]) for k in a}
        before = (h, c)
        c = gate["f"] * c + gate["i"] * gate["g"]
        h = gate["o"] * np.tanh(c)
        tape.append((before, gate, c, h))
    dh, dc, out = np.zeros_like(h), np.zeros_like(c), {}
    for t in reversed(range(len(xs))):
        (_, c0), g, c, _ = tape[t]
        dh = dh + 1
        from_h = dh * g["o"] * (1 - np.tanh(c) ** 2)
        total_c = dc + from_h
        d = {"o": dh * np.tanh(c), "i": total_c * g["g"], "g": total_c * g["i"], "f": total_c * c0}
        da = {k: v * ((1 - g[k] ** 2) if k == "g" else g[k] * (1 - g[k])) for k, v in d.items()}
        sent = {k: da[k] @ U[k] for k in da}
        out[t + 1] = {"h": dh, "c": total_c, **d, "c by h": from_h, "c by next": dc, **{f"h0 by {k}": v for k, v in sent.items()}}
        dh, dc = sum(sent.values()), total_c * g["f"]
    return out


def test_split_of_the_gradient_against_lstm_by_hand():
    rng = np.random.default_rng(0)
    W, U = ({k: rng.normal(size=(4, n)) for k in "ifgo"} for n in (3, 4))
    b = {k: rng.normal(size=4) for k in "ifgo"}
    xs = rng.normal(size=(T, B, 3))
    values = {**{f"W_i{k}": W[k] for k in W}, **{f"W_h{k}": U[k] for k in U}, **{f"b_i{k}": b[k] for k in b},
              **{f"b_h{k}": np.zeros(4) for k in b}, "h[0]": rng.normal(size=(B, 4)), "c[0]": rng.normal(size=(B, 4))}
    ray = tr.xray(tr.cells.LSTM, xs, values=values, loss="sum").layer
    expected = lstm_by_hand(W, U, b, xs, values["h[0]"], values["c[0]"])
    for t, found in expected.items():
        for q in "hcifgo":
            assert ray.gradients[q][t - 1] == pytest.approx(np.linalg.norm(found[q]), rel=1e-10)
        square = np.vdot(found["c"], found["c"])
        assert ray.split["c"]["h"][t - 1] == pytest.approx(np.vdot(found["c"], found["c by h"]) / square, rel=1e-9)
        assert np.nan_to_num(ray.split["c"]["next step"][t - 1]) == pytest.approx(
            np.vdot(found["c"], found["c by next"]) / square, rel=1e-9, abs=1e-12)
        into = sum(found[f"h0 by {k}"] for k in "ifgo")
        for k in "ifgo":
            share = np.vdot(into, found[f"h0 by {k}"]) / np.vdot(into, into)
            assert ray.split["h[t-1]"][k][t - 1] == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("name", CELLS)
def test_shares_sum_to_one(name):
    for q, readers in tr.xray(CELLS[name], steps=T, loss="sum").layer.split.items():
        sums = np.nansum(list(readers.values()), axis=0)
        there = ~np.isnan(list(readers.values())).all(axis=0)
        np.testing.assert_allclose(sums[there], 1, atol=1e-9, err_msg=q)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "lstm_projection", "lag 2", "delayed input"])
def test_jacobians_against_complex_step(name):
    cell = CELLS[name]
    ray = tr.xray(cell, steps=T).layer
    state_names = ray.bptt.recurrence.state_names
    states = [[*given] for given in ray.bptt._states(ray.data)]
    graph = tr.Graph({str(i): n for i, n in enumerate(ray.bptt.recurrence.new_states)})
    for t in range(T):
        values = {**dict(zip(state_names, states[t], strict=True)), **ray.bptt._read(ray.data, t)}
        columns = []
        for k in state_names:
            for j in range(values[k].size):
                moved = {n: v.astype(complex) for n, v in values.items() if n in graph.inputs}
                if k in moved:
                    moved[k] = moved[k].copy()
                    moved[k].reshape(-1)[j] += 1e-30j
                out = graph.run(moved, domain=tr.domains.COMPLEX_STEP)
                columns.append(np.concatenate([out[str(i)].ravel().imag / 1e-30 for i in range(len(state_names))]))
        np.testing.assert_allclose(ray.jacobians[t], np.stack(columns, 1), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(ray.jacobian(T, 0), np.linalg.multi_dot(ray.jacobians[::-1]), rtol=1e-10)
    np.testing.assert_allclose(ray.jacobian(3, 3), np.eye(ray.jacobians.shape[1]))
    expected = np.linalg.svd(ray.jacobian(T, 1), compute_uv=False)
    np.testing.assert_allclose(ray.singular_values[1], expected, rtol=1e-6, atol=1e-12 * expected[0])


def sequences():
    rng = np.random.default_rng(1)
    return rng.integers(0, 7, (B, T)), rng.integers(0, 3, (B, T))


def test_models_on_data():
    x, y = sequences()
    model = tr.nn.Sequential(tr.nn.Embedding(7, 3, rng=0), tr.nn.LSTM(3, 4, num_layers=2, bidirectional=True, dtype="float64", rng=1),
                             tr.nn.Linear(8, 3, dtype="float64", rng=2))
    lengths = [T, 2, 1]
    ray = tr.xray(model, x, y, lengths=lengths)
    assert list(ray.layers) == ["layers.1.l0", "layers.1.l0_reverse", "layers.1.l1", "layers.1.l1_reverse"]
    out = model(x, lengths=lengths)
    mask = np.arange(T) < np.asarray(lengths)[:, None]
    loss = tr.nn.cross_entropy(out, tr.tensor(y), mask=tr.tensor(mask))
    assert ray.loss == pytest.approx(float(loss))
    grads = tr.grad(loss, dict(model.named_parameters()))
    for where in ("l0", "l0_reverse", "l1", "l1_reverse"):
        layer = ray[f"layers.1.{where}"]
        packed = np.concatenate([layer.totals[f"W_i{k}"] for k in "ifgo"])
        np.testing.assert_allclose(packed, grads[f"layers.1.weight_ih_{where}"].numpy(), rtol=1e-9, atol=1e-14)
        packed = np.concatenate([layer.parts(f"W_h{k}").sum(0) for k in "ifgo"])
        np.testing.assert_allclose(packed, grads[f"layers.1.weight_hh_{where}"].numpy(), rtol=1e-9, atol=1e-14)
    with pytest.raises(tr.TinyRNNError, match="4 recurrences"):
        ray.layer  # noqa: B018
    with pytest.raises(tr.TinyRNNError, match=r"known: layers\.1\.l0"):
        ray["nonsense"]


@pytest.mark.parametrize("build", [
    lambda: tr.nn.Recurrent("mgu", x=3, h=4, dtype="float64", rng=0), lambda: tr.nn.GRU(3, 4, dtype="float64", rng=0),
    lambda: tr.nn.Bidirectional(tr.nn.Recurrent("gru", x=3, h=4, dtype="float64", rng=0), rng=1),
    lambda: tr.nn.LSTM(3, 4, zoneout=0.2, dtype="float64", rng=0)])
def test_layers_without_targets(build):
    layer = build()
    x = np.random.default_rng(0).normal(size=(B, T, 3))
    ray = tr.xray(layer, x, lengths=[4, 2, 3])
    assert ray.layers
    out, _ = layer.eval()(x, lengths=[4, 2, 3])
    assert ray.loss == pytest.approx(float(np.sum([out.numpy()[0, 3], out.numpy()[1, 1], out.numpy()[2, 2]])), rel=1e-9)


def test_encoder_decoder():
    model = tr.nn.EncoderDecoder(7, 6, 4, attention="bahdanau", rng=0)
    x, y = sequences()
    ray = tr.xray(model, (x, y), y)
    assert {"decoder.0", "encoder.0.forward.gru", "encoder.0.backward.gru"} == set(ray.layers)
    assert {"z", "r", "n", "h"} <= set(ray["decoder.0"].gradients)


def test_saturation():
    ray = tr.xray(tr.cells.LSTM, steps=3, values={"b_if": np.full(3, 9.0), "b_io": np.full(3, -9.0)}).layer
    assert ray.saturation["f"]["high"].tolist() == [1, 1, 1]
    assert ray.saturation["o"]["low"].tolist() == [1, 1, 1]
    assert ray.saturation["i"]["high"].max() < 1


def test_where_the_gradient_dies():
    ray = tr.xray(tr.cells.RNN, steps=60).layer
    died = ray.dies("h")
    norms = ray.gradients["h"]
    assert 1 < died < 60
    assert norms[died - 1] < 1e-6 * norms.max() <= norms[died]
    assert "is below 1e-6 of its largest" in str(ray)


def test_reports_are_numbers_and_pictures():
    import json

    ray = tr.xray(tr.cells.GRU, steps=5)
    assert json.loads(json.dumps(ray.to_dict()))["layers"]["gru"]["name"] == "gru"
    assert ray._repr_html_().startswith("<pre>")
    assert len(ray.plot().axes) == 3


def test_mistakes():
    for use, message in (
            (lambda: tr.xray("lstm"), "takes a cell, a layer or a model"), (lambda: tr.xray(tr.cells.GRU), "give steps="),
            (lambda: tr.xray(tr.nn.GRU(3, 4)), "on data"), (lambda: tr.xray(tr.cells.GRU, np.ones(3)), r"input x is \[T"),
            (lambda: tr.xray(tr.nn.Linear(3, 4), np.ones((2, 3))), "no recurrence"),
            (lambda: tr.xray(tr.cells.GRU, steps=3, values={"W_nonsense": 1}), "nothing called 'W_nonsense'"),
            (lambda: tr.xray(tr.cells.GRU, np.ones((4, 2)), steps=3), "4 steps, steps=3"),
            (lambda: tr.xray(tr.cells.GRU, steps=3).layer.parts("V"), "no parameter 'V'"),
            (lambda: tr.xray(tr.cells.GRU, steps=3).layer.jacobian(1, 2), "expected 0 <= s <= t <= 3"),
            (lambda: tr.xray(tr.nn.GRU(3, 4), np.ones((2, 3, 3), "float32"), loss=lambda y: y), "one number")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()


def test_planted_bugs_are_noticed(monkeypatch):
    """A reader that forgets to send, and a step that forgets the loss, break the sums above."""
    original = BackwardPass._contributions
    monkeypatch.setattr(BackwardPass, "_contributions", lambda self: {e: n for e, n in original(self).items() if e != ("f", "h[t-1]")})
    with pytest.raises((AssertionError, KeyError)):
        test_shares_sum_to_one("lstm")
