"""Cells shown equal or told apart: known answers, and cells whose text was changed in ways that keep or break them."""

import re

import numpy as np
import pytest

import tinyrnn as tr

JOINT = tr.Cell("""
    i[t] = sigmoid(W_i @ [h[t-1], x[t]] + b_i)
    f[t] = sigmoid(W_f @ [h[t-1], x[t]] + b_f)
    g[t] = tanh(W_g @ [h[t-1], x[t]] + b_g)
    o[t] = sigmoid(W_o @ [h[t-1], x[t]] + b_o)
    c[t] = f[t] * c[t-1] + i[t] * g[t]
    h[t] = o[t] * tanh(c[t])
""", name="joint")
GRU = tr.cells["gru_lecture"]


def rewritten(cell, *pairs, name="rewritten"):
    text = cell.text
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return tr.Cell(text, name)


def one_step(cell, parameters, inputs):
    graph = cell.graph(sizes_of(cell, parameters, inputs), batch=1)
    return graph.run({k: {**parameters, **inputs}[k] for k in graph.inputs})


def sizes_of(cell, parameters, inputs):
    found = {}
    for name, shape in cell.parameters.items():
        for text, n in zip(shape, np.shape(parameters[name]), strict=True):
            if "+" not in text and not text.isdigit():
                found[text] = n
    for key, value in inputs.items():
        name = key.split("[")[0]
        for text, n in zip(cell.signals.get(name, ()), np.shape(value)[1:], strict=False):
            if "+" not in text and not text.isdigit():
                found.setdefault(text, n)
    return found


def check_counterexample(e):
    """The numbers really differ when both cells are run on them."""
    c = e.counterexample
    names = {k.split("[")[0] for k in c.inputs}
    assert names <= {*e.a.inputs, *e.a.states} or names <= {*e.b.inputs, *e.b.states}
    x = one_step(e.a, c.parameters_a, c.inputs)[c.quantity]
    y = one_step(e.b, c.parameters_b, c.inputs)[c.quantity]
    np.testing.assert_allclose(x, c.a, rtol=1e-12)
    np.testing.assert_allclose(y, c.b, rtol=1e-12)
    assert np.abs(x - y).max() > 1e-6
    assert c.difference > 1e-6


# ---- known answers

def test_gru_reset_before_and_after():
    e = tr.equivalent(GRU, tr.cells["gru_lecture_reset_before"])
    assert (e.verdict, e.holds) == ("different", False)
    assert e.residual == "r[t] * (U_n @ h[t-1]) - U_n @ (h[t-1] * r[t])"
    assert e.residual_latex == r"r_{t} \odot \left(U_{n} \, h_{t-1}\right) - U_{n} \, \left(h_{t-1} \odot r_{t}\right)"
    assert e.where == "the equation of n[t]"
    check_counterexample(e)


def test_gru_update_conventions():
    other = rewritten(GRU, ("(1 - z[t]) * h[t-1] + z[t] * n[t]", "(1 - z[t]) * n[t] + z[t] * h[t-1]"))
    e = tr.equivalent(GRU, other)
    assert (e.verdict, e.method) == ("equal", "exact")
    assert {k: e.mapping[k] for k in ("W_z", "U_z", "b_z", "W_r")} == {"W_z": "-W_z", "U_z": "-U_z", "b_z": "-b_z", "W_r": "W_r"}
    assert e.error_bound < 1e-9
    assert tr.equivalent(GRU, other, {"W_z": "-W_z", "U_z": "-U_z", "b_z": "-b_z"}).holds
    wrong = tr.equivalent(GRU, other, {})
    assert wrong.verdict == "different"
    check_counterexample(wrong)


def test_pytorchs_gru_and_one_without_the_bias():
    e = tr.equivalent(tr.cells.GRU, rewritten(tr.cells.GRU, (" + b_hn", "")))
    assert e.verdict == "different"
    assert (e.residual, e.residual_latex) == ("r[t] * b_hn", r"r_{t} \odot b_{\mathrm{hn}}")
    assert "b_hn = 0" in e.reason
    check_counterexample(e)
    back = tr.equivalent(rewritten(tr.cells.GRU, (" + b_hn", "")), tr.cells.GRU)
    assert back.residual == "-r[t] * b_hn"
    check_counterexample(back)


def test_joined_and_separate_weights():
    e = tr.equivalent(JOINT, tr.cells.LSTM)
    assert e.holds
    assert e.mapping["W_i"] == "[W_hi, W_ii]"
    assert e.mapping["b_i"] == "b_ii + b_hi"
    back = tr.equivalent(tr.cells.LSTM, JOINT)
    assert back.holds
    assert (back.mapping["W_hi"], back.mapping["W_ii"], back.mapping["b_hi"]) == ("W_i[:, :h]", "W_i[:, h:]", "0")
    assert tr.equivalent(JOINT, tr.cells.LSTM, {f"{w}_{k}": (f"[W_h{k}, W_i{k}]" if w == "W" else f"b_i{k} + b_h{k}")
                                               for w in "Wb" for k in "ifgo"}).holds


def test_coupled_lstm():
    e = tr.equivalent(JOINT, tr.cells["lstm_coupled"])
    assert e.verdict == "different"
    assert "b_i = -b_f" in e.reason
    assert e.residual == "g[t] * i[t] - g[t] + f[t] * g[t]"
    check_counterexample(e)
    assert tr.equivalent(JOINT, tr.cells["lstm_coupled"], {"W_i": "-W_f", "b_i": "-b_f"}).holds
    assert not tr.equivalent(JOINT, tr.cells["lstm_coupled"], {"W_i": "W_f", "b_i": "-b_f"}).holds


def test_constant_weights_do_not_fool_it():
    """With all weights equal the gates of an LSTM cannot be told apart; the checks draw unequal ones."""
    swapped = rewritten(JOINT, ("f[t] * c[t-1] + i[t] * g[t]", "i[t] * c[t-1] + f[t] * g[t]"))
    e = tr.equivalent(JOINT, swapped, {})
    assert e.verdict == "different"
    found = tr.equivalent(JOINT, swapped)
    assert found.holds
    assert found.mapping["W_i"] == "W_f"
    constants = {p: np.full(s, 0.5) for p, s in JOINT.shapes(x=2, h=3).items()}
    inputs = {"x[t]": np.ones((1, 2)), "h[t-1]": np.zeros((1, 3)), "c[t-1]": np.ones((1, 3))}
    np.testing.assert_allclose(one_step(JOINT, constants, inputs)["h[t]"], one_step(swapped, constants, inputs)["h[t]"])


def test_peepholes():
    e = tr.equivalent(tr.cells.LSTM, tr.cells["lstm_peephole"])
    assert e.verdict == "different"
    assert e.residual == "-c[t-1] * p_i"
    assert "p_i = 0" in e.reason
    check_counterexample(e)


def test_cells_without_correspondence():
    e = tr.equivalent(tr.cells.RNN, tr.cells.LSTM)
    assert e.verdict == "unknown"
    assert "do not correspond" in e.reason


# ---- changes that keep the function

@pytest.mark.parametrize("cell", [tr.cells[n] for n in tr.cells.names()], ids=lambda c: c.name)
def test_every_cell_equals_itself_under_other_names(cell):
    text = cell.text
    for p in sorted(cell.parameters, key=len, reverse=True):
        text = text.replace(f"{p} ", f"Q{p} ").replace(f"{p})", f"Q{p})")
    renamed = tr.Cell(text, "renamed")
    e = tr.equivalent(cell, renamed)
    assert e.holds, e


@pytest.mark.parametrize(("a", "b"), [
    ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "s[t] = tanh(A.T @ s[t-1] + B @ u[t] + k)"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "h[t] = -tanh(W @ x[t] + U @ h[t-1] + b)"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])", "h[t] = 2 * sigmoid(2 * (W @ x[t] + U @ h[t-1])) - 1"),
    ("h[t] = tanh(W @ x[t]) * a + b * h[t-1]", "h[t] = b * h[t-1] + a * tanh(W @ x[t])"),
    ("h[t] = relu(W @ x[t] + U @ h[t-1])", "h[t] = maximum(W @ x[t] + U @ h[t-1], 0)"),
    ("h[t] = 0.9 * h[t-1] + 0.1 * tanh(W @ x[t])", "h[t] = h[t-1] + 0.1 * (tanh(W @ x[t]) - h[t-1])"),
    ("h[t] = tanh(W @ [x[t], h[t-1]])", "h[t] = tanh(W @ [h[t-1], x[t]])"),
    ("h[t] = layer_norm(W @ x[t] + U @ h[t-1]) * g", "h[t] = g * layer_norm(U @ h[t-1] + W @ x[t])"),
    ("y[t] = V @ h[t] + d\nh[t] = tanh(U @ y[t-1] + W @ x[t])", "y[t] = A @ s[t] + e\ns[t] = tanh(B @ x[t] + C @ y[t-1])"),
    ("h[t] = tanh(W @ x[t] + b - c)", "h[t] = tanh(W @ x[t] + b)"),
    ("h[t] = relu(W @ x[t] + U @ h[t-1] + b)", "h[t] = relu(b - W @ x[t] - U @ h[t-1])"),
    ("M[t] = M[t-1] + outer(V @ x[t], K @ x[t])\ny[t] = M[t] @ (Q @ x[t])", "M[t] = M[t-1] + outer(A @ x[t], B @ x[t])\ny[t] = M[t] @ (D @ x[t])"),
    ("i[t] = sigmoid(s + b1 + V @ x[t])\nf[t] = sigmoid(s + b2 + W @ x[t])\nh[t] = i[t] * h[t-1] + f[t] * f[t]",
     "i[t] = sigmoid(b1 + V @ x[t])\nf[t] = sigmoid(b2 + W @ x[t])\nh[t] = i[t] * h[t-1] + f[t] * f[t]"),
    ("h[t] = tanh(W @ x[t] + b + 2 * c)", "h[t] = tanh(W @ x[t] + b)"),
    ("h[t] = tanh(U @ h[t-1] + U @ h[t-1] + x[t])", "h[t] = tanh(U @ h[t-1] + x[t])"),
    ("A: (h, h) fixed\nh[t] = tanh(A @ h[t-1] + x[t])", "B: (h, h) fixed\nh[t] = tanh(x[t] + B @ h[t-1])"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nh[0]: learned", "h[t] = tanh(U @ h[t-1] + W @ x[t])\nh[0]: learned"),
    ("h[t] = tanh(-W @ x[t] + U @ h[t-1])", "h[t] = tanh(U @ h[t-1] - W @ x[t])"),
    ("h[t] = (W @ x[t] + U @ h[t-1]) ** 2", "h[t] = (U @ h[t-1] - W @ x[t]) ** 2"),
    ("h[t] = minimum(W @ x[t], U @ h[t-1])", "h[t] = -maximum(W @ x[t], U @ h[t-1])"),
    ("h[t] = relu(W @ x[t] + U @ h[t-1])", "h[t] = 0.5 * relu(W @ x[t] + U @ h[t-1])"),
    ("h[t] = tanh(0.3333333 * (W @ x[t]) + U @ h[t-1])", "h[t] = tanh(W @ x[t] + U @ h[t-1])"),
])
def test_equal_cells(a, b):
    e = tr.equivalent(tr.Cell(a, "a"), tr.Cell(b, "b"))
    assert e.holds, e


@pytest.mark.parametrize(("a", "b"), [
    ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "h[t] = sigmoid(W @ x[t] + U @ h[t-1] + b)"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])", "h[t] = tanh(W @ x[t] + u * h[t-1])"),
    ("h[t] = tanh(W @ x[t]) + h[t-1]", "h[t] = tanh(W @ x[t]) + 0.999 * h[t-1]"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])", "h[t] = tanh(W @ x[t] + U @ h[t-2])"),
    ("h[t] = relu(W @ x[t] + U @ h[t-1])", "h[t] = abs(W @ x[t] + U @ h[t-1])"),
    ("h[t] = softmax(W @ x[t] + U @ h[t-1])", "h[t] = layer_norm(W @ x[t] + U @ h[t-1])"),
    ("h[t] = tanh(W @ x[t] + U @ clip(h[t-1], -5, 5))", "h[t] = tanh(W @ x[t] + U @ h[t-1])"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])", "h[t] = tanh(W @ x[t] + U @ minimum(h[t-1], 3))"),
    ("h[t] = relu(x[t] + 5) + h[t-1] * a", "h[t] = x[t] + 5 + h[t-1] * a"),
    ("h[t] = where(x[t] < 100, h[t-1], x[t])", "h[t] = h[t-1] + 0 * x[t]"),
    ("outputs: h, y\nh[t] = tanh(W @ x[t] + h[t-1])\ny[t] = V @ h[t]", "h[t] = tanh(W @ x[t] + h[t-1])"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1]) / size(x[t])", "h[t] = tanh(W @ x[t] + U @ h[t-1]) / 2"),
    ("h[t] = mean(x[t]) * a + h[t-1]", "h[t] = 0.5 * sum(x[t]) * a + h[t-1]"),
    ("A: (h, h) fixed\nh[t] = tanh(A @ h[t-1] + x[t])", "h[t] = tanh(A @ h[t-1] + x[t])"),
    ("A: (h, h) fixed\nh[t] = tanh(A @ h[t-1] + x[t])", "A: (h, h) fixed\nh[t] = tanh(A.T @ h[t-1] + x[t])"),
    ("alpha: scalar\nh[t] = alpha * h[t-1] + x[t]", "h[t] = alpha * h[t-1] + x[t]"),
    ("h[t] = tanh(U @ h[t-1] + x[t])", "h[t] = tanh(U * h[t-1] + x[t])"),
    ("h[t] = where(h[t-1] < 5000, tanh(W @ x[t] + U @ h[t-1]), 0 * h[t-1])", "h[t] = tanh(W @ x[t] + U @ h[t-1])"),
    ("h[t] = where(abs(h[t-1]) < 0.0001, 0 * h[t-1], tanh(W @ x[t] + U @ h[t-1]))", "h[t] = tanh(W @ x[t] + U @ h[t-1])"),
    ("dt = 0.5\nh[t] = h[t-1] + dt * tanh(W @ x[t])", "dt = 0.25\nh[t] = h[t-1] + dt * tanh(W @ x[t])"),
])
def test_cells_that_are_not_equal_are_never_called_so(a, b):
    e = tr.equivalent(tr.Cell(a, "a"), tr.Cell(b, "b"))
    assert e.verdict in ("different", "unknown"), e
    if e.verdict == "different":
        check_counterexample(e)


@pytest.mark.parametrize(("a", "b"), [
    ("h[t] = layer_norm(W @ x[t] + U @ h[t-1] + b)", "h[t] = layer_norm(W @ x[t] - U @ h[t-1] - b)"),
    ("h[t] = a / ((1 + x[t] * x[t]) * (1 + h[t-1] * h[t-1]))", "h[t] = a / (1 + x[t] * x[t]) / (1 + h[t-1] * h[t-1])"),
    ("h[t] = where(x[t] < x[t], h[t-1], tanh(W @ x[t] + U @ h[t-1]))", "h[t] = tanh(W @ x[t] + U @ h[t-1])"),
    ("h[t] = hard_sigmoid(W @ x[t] + U @ h[t-1])", "h[t] = clip(0.2 * (W @ x[t] + U @ h[t-1]) + 0.5, 0, 1)"),
    ("h[t] = exp(W @ x[t] + h[t-1])", "h[t] = exp(W @ x[t]) * exp(h[t-1])"),
    ("h[t] = exp(2 * (W @ x[t])) + h[t-1]", "h[t] = exp(W @ x[t]) ** 2 + h[t-1]"),
    ("h[t] = exp(10 * x[t] + 10 * h[t-1]) * a", "h[t] = exp(10 * x[t]) * exp(10 * h[t-1]) * a"),
    ("".join(f"g{i}[t] = sigmoid(W{i} @ x[t] + b{i})\n" for i in range(9)) + "h[t] = " + " + ".join(f"{i + 1} * g{i}[t] * h[t-1]" for i in range(9)),
     "".join(f"g{i}[t] = sigmoid(W{i} @ x[t] + b{i})\n" for i in range(9)) + "h[t] = " + " + ".join(f"{9 - i} * g{i}[t] * h[t-1]" for i in range(9))),
])
def test_equal_cells_beyond_the_search_are_not_called_different(a, b):
    assert tr.equivalent(tr.Cell(a, "a"), tr.Cell(b, "b")).verdict != "different"


@pytest.mark.parametrize("seed", [40, 93, 126])
def test_what_overflows_in_one_order_of_operations_is_no_difference(seed):
    a, b = tr.Cell("h[t] = exp(W @ x[t] + h[t-1])", "a"), tr.Cell("h[t] = exp(W @ x[t]) * exp(h[t-1])", "b")
    assert tr.equivalent(a, b, rng=seed).verdict == "unknown"


@pytest.mark.parametrize("seed", [1, 78])
def test_a_counterexample_is_one_that_is_seen(seed):
    """Where tanh is flat these cells are 1e-6 apart: the numbers are moved to where more is to be seen."""
    a, b = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])", "a"), tr.Cell("h[t] = tanh(W @ x[t] + U @ minimum(h[t-1], 3))", "b")
    e = tr.equivalent(a, b, rng=seed)
    check_counterexample(e)
    assert e.counterexample.difference > 1e-3
    first, second = re.search(r"is (\S+) in the first cell and (\S+) in the second", str(e.counterexample)).groups()
    assert first != second


def test_packed_weights_of_layers():
    e = tr.equivalent(JOINT, tr.nn.LSTM(2, 3))
    assert e.holds
    assert e.mapping["W_f"] == "[weight_hh_l0[3:6], weight_ih_l0[3:6]]"
    assert e.mapping["b_o"] == "bias_ih_l0[9:12] + bias_hh_l0[9:12]"
    back = tr.equivalent(tr.nn.GRU(2, 3), tr.nn.Recurrent(tr.cells.GRU, x=2, h=3))
    assert back.mapping["weight_ih_l0[6:9]"] == "W_in"
    with pytest.raises(tr.TinyRNNError, match="no weights for b_ii"):
        tr.equivalent(tr.nn.LSTM(2, 3, bias=False), JOINT)


# ---- mistakes

@pytest.mark.parametrize(("mapping", "message"), [
    ({"q": "W_z"}, "names 'q'; the parameters of gru_lecture are"), ({"W_z": "Q"}, "names 'Q'; the parameters of"),
    ({"W_z": "W_z @ W_z"}, "may hold parameters of"), ({"W_z": "tanh(W_z)"}, "may hold parameters of"),
    ({"W_z": "b_z"}, "cannot|shape|size|fit|broadcast"), ({"W_z": "W_z +"}, "no expression: the line ends with")])
def test_mappings_that_make_no_sense(mapping, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        tr.equivalent(GRU, GRU, mapping)


def test_bad_use():
    with pytest.raises(tr.TinyRNNError, match="equivalent compares cells, or layers that run one; got str"):
        tr.equivalent(GRU, "gru")
    with pytest.raises(tr.TinyRNNError, match="says nothing of W_ir"):
        tr.equivalent(tr.cells.GRU, GRU, {})
