"""Every lens on cells of odd shapes: constant states, bare matrices, names that lenses use themselves, formulas without end."""

import io
import json
import warnings
from typing import NamedTuple

import networkx as nx
import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.viz import graphs

CELLS = {
    "state of a number": "h[t] = 1\ny[t] = h[t-1] + x[t]\noutputs: y", "gate of a number": "c[t] = 2\nh[t] = c[t-1] * x[t]\noutputs: h",
    "constant": "h[t] = 0.5 + 0 * x[t]", "constant number": "c[t] = 2\nh[t] = c[t] * tanh(W @ x[t] + U @ h[t-1])",
    "kept": "M[t] = M[t-1]\nh[t] = tanh(W @ x[t] + U @ M[t])",
    "bare matrix": "M[t] = M[t-1] + outer(W @ x[t], f)\nh[t] = M[t] @ f",
    "matrix alone": "M[t] = M[t-1] + outer(W @ x[t], V @ x[t])", "of parameters": "M[t] = 0.5 * M[t-1] + outer(f, g)\nh[t] = M[t] @ x[t]",
    "vector times matrix": "M[t] = p * M[t-1] + outer(K @ x[t], V @ x[t])\nh[t] = M[t] @ (Q @ x[t])",
    "from the left": "S: (M_rows, M_rows)\nM[t] = S @ M[t-1] + outer(W @ x[t], V @ x[t])\nh[t] = M[t] @ (V @ x[t])",
    "from the right": "S: (M_cols, M_cols)\nM[t] = M[t-1] @ S + outer(W @ x[t], V @ x[t])\nh[t] = M[t] @ (V @ x[t])",
    "both sides": "S: (M_rows, M_rows)\nM[t] = S @ M[t-1] @ S.T + outer(W @ x[t], W @ x[t])\nh[t] = M[t] @ (V @ x[t])",
    "squashed": "R: (M_rows, M_rows)\nM[t] = relu(R) @ M[t-1] + outer(W @ x[t], V @ x[t])\nh[t] = M[t] @ (V @ x[t])",
    "called v": "v[t] = W @ x[t]\nM[t] = tanh(M[t-1] + outer(v[t], U @ h[t-1]))\nh[t] = tanh(M[t] @ (Q @ h[t-1]))\noutputs: h",
    "state v": "v[t] = tanh(W @ x[t] + U @ v[t-1])",
    "names of lenses": "u1[t] = sigmoid(W @ x[t] + U @ h[t-1])\na_h[t] = u1[t] * h[t-1]\nh[t] = tanh(V @ a_h[t]) + u1[t] * a_h[t]",
    "softmax of a matrix": "M[t] = softmax(M[t-1] + outer(W @ x[t], V @ x[t]))\nh[t] = M[t] @ (V @ x[t])",
    "a number": "s[t] = 0.9 * s[t-1] + sum(x[t])\nh[t] = tanh(s[t] * w + U @ h[t-1])\noutputs: h",
    "sum of a matrix": "M[t] = 0.5 * M[t-1] + outer(x[t], x[t])\nh[t] = sum(M[t]) * w",
    "infinite": "h[t] = softmax(where(x[t] > 0, W @ x[t] + U @ h[t-1], -inf))",
    "power": "p: scalar\nh[t] = tanh(W @ x[t]) + relu(U @ h[t-1]) ** p", "elu": "h[t] = elu(W @ x[t] + U @ h[t-1])"}


@pytest.mark.parametrize("name", CELLS)
def test_every_lens_takes_it(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        cell = tr.Cell(CELLS[name], "odd")
    derived = tr.derive(cell)
    assert all(w in str(derived) for w in cell.states)
    for form in ("md", "tex", "html", "ipynb"):
        derived.save(tmp_path / f"x.{form}")
    assert "ParseError" not in (tmp_path / "x.html").read_text()
    json.loads((tmp_path / "x.ipynb").read_text())
    tr.page(cell, tmp_path / "p.html", steps=3)
    assert tr.prove(cell).holds
    assert tr.draw(cell, steps=3, gradients=True).svg
    assert str(tr.analyze(cell))
    assert tr.Cell(cell.canonical_text()) == cell


def test_the_direction_of_a_jacobian_has_a_name_of_its_own():
    block = tr.derive(tr.Cell(CELLS["called v"])).jacobian["h", "h"]
    assert block.text.startswith("v_1 -> ")
    assert r"v_{1} \mapsto" in block.latex
    assert "v_1" in block.text.partition("->")[2]


def test_a_derivation_says_what_its_constants_are():
    text = str(tr.derive(tr.Cell("tau = 12.5\nlow = -inf\nh[t] = maximum(low, h[t-1] + W @ x[t] / tau)")))
    assert "tau = 12.5" in text
    assert "low = -inf" in text


def test_conditions_read_as_python():
    derived = tr.derive(tr.Cell("h[t] = clip(W @ x[t], -1, 2) + U @ h[t-1]"))
    text = str(derived)
    assert "where((-1 <= W @ x[t]) & (W @ x[t] <= 2), dL/dh[t], 0)" in text
    assert "and(" not in str(derived)
    assert r"\land" in derived.latex()


@pytest.mark.parametrize("gates", [3, 9, 30])
def test_formulas_that_would_fill_the_memory_are_bounded(gates):
    """Every gate reads the one before twice: written out, the Jacobian has 3 ** gates terms."""
    lines = ["g0[t] = tanh(W @ x[t] + U @ h[t-1])"]
    lines += [f"g{i}[t] = tanh(A{i} @ g{i - 1}[t]) * g{i - 1}[t] + B{i} @ g{i - 1}[t]" for i in range(1, gates)]
    cell = tr.Cell("\n".join([*lines, f"h[t] = g{gates - 1}[t]"]))
    derived = tr.derive(cell)
    assert max(len(derived.markdown()), len(str(derived))) < 200_000
    derived.mathml()
    said = "operations, too many to print: the equations between have to be followed one by one" in str(derived)
    assert said == (gates > 7)


# ---- other tools

GRAPH = tr.cells.LSTM.unroll(2, x=2, h=3, gradients=True)


@pytest.mark.parametrize("form", ["graphml", "gml", "gexf"])
def test_graphs_go_through_files_of_networkx(form):
    g, file = GRAPH.to_networkx(), io.BytesIO()
    getattr(nx, f"write_{form}")(g, file)
    file.seek(0)
    back = getattr(nx, f"read_{form}")(file, **({"label": "id"} if form == "gml" else {"node_type": int}))
    assert (len(back), back.number_of_edges()) == (len(g), g.number_of_edges())
    for i, d in g.nodes(data=True):
        for k in ("op", "shape", "dtype", "name", "cell", "output", "flops", "bytes", *(["step"] if "step" in d else [])):
            assert str(back.nodes[i].get(k, "")) == str(d[k]) or form == "gexf"
    assert {d["output"] for _, d in g.nodes(data=True)} >= {"loss", "dloss/dW_hf"}


def test_graphs_go_through_json():
    g = GRAPH.to_networkx()
    back = nx.node_link_graph(json.loads(json.dumps(nx.node_link_data(g, edges="links"))), edges="links")
    assert nx.utils.graphs_equal(back, g)


def test_an_error_in_a_function_given_to_leaks_is_shown():
    def broken(x, lengths=None):
        if x.shape[1] != 4:
            raise KeyError("my own mistake")
        return tr.nn.GRU(3, 2, rng=0)(x, lengths=lengths)[0]

    with pytest.raises(KeyError, match="my own mistake"):
        tr.leaks(broken, [4, 2], np.zeros((2, 4, 3), "f"))


def test_large_graphs_are_drawn_by_our_own_layout(monkeypatch):
    monkeypatch.setattr(graphs.run_dot, "lay_out", lambda *a: pytest.fail("Graphviz was asked"))
    graph = tr.cells.GRU.unroll(100, x=2, h=3)
    assert 2300 < len(graph) < 2700
    assert graph.draw().svg.count('role="img"') > 2000


# ---- trees

def test_states_of_a_scan_go_by_key():
    x, one, two = np.arange(1.0, 5.0), tr.tensor(1.0), tr.tensor(0.0)

    def step(s, x):
        return {"sum": s["sum"] + x, "power": s["power"] * 3}, s["sum"]

    for start in ({"power": one, "sum": two}, {"sum": two, "power": one}):
        last, before = tr.scan(step, start, x)
        assert (float(last["power"]), float(last["sum"]), before.tolist()) == (81, 10, [0, 1, 3, 6])


class Pair(NamedTuple):
    a: object
    b: object


class Other(NamedTuple):
    b: object
    a: object


def test_states_with_fields_and_with_nothing():
    last, _ = tr.scan(lambda s, x: (Other(b=s.b * 2, a=s.a + x), x), Pair(tr.tensor(0.0), tr.tensor(1.0)), np.arange(3.0))
    assert (float(last.a), float(last.b)) == (3, 8)
    assert tr.scan(lambda s, x: (None, x * 2), None, np.arange(3.0))[1].tolist() == [0, 2, 4]
    last, _ = tr.scan(lambda s, x: ({"b": s["b"] + x, "a": None}, x), {"a": None, "b": tr.tensor(0.0)}, np.arange(3.0))
    assert (last["a"], float(last["b"])) == (None, 3)


@pytest.mark.parametrize(("start", "after"), [
    ({"a": 0.0, "b": 1.0}, lambda s: {"a": s["a"], "c": s["b"]}), ({"a": 0.0, "b": 1.0}, lambda s: {"a": s["a"]}),
    ((0.0, (1.0, 2.0)), lambda s: (s[0], s[1][0], s[1][1])), ((0.0, 1.0), lambda s: [s[0], s[1]]), ((0.0, 1.0), lambda s: (s, s)),
    (0.0, lambda s: (s,)), ({"a": (0.0, 1.0)}, lambda s: {"a": {"x": s["a"][0], "y": s["a"][1]}}), ((0.0, 1.0), lambda s: (s[0], None))])
def test_another_form_is_refused_with_both_shown(start, after):
    made = {"a": tr.tensor(0.0)} and tr.trees.map_tree(tr.tensor, start)
    with pytest.raises(tr.TinyRNNError, match=r"the state after a step.* is .*, expected .* as before"):
        tr.scan(lambda s, x: (after(s), x), made, np.arange(3.0))


def test_states_of_a_layer_and_gradients_go_by_name():
    layer = tr.nn.Recurrent(tr.cells.LSTM, x=2, h=3, rng=0)
    x = np.ones((1, 4, 2), "f")
    h, c = layer(x)[1]
    np.testing.assert_array_equal(layer(x, {"c": c, "h": h})[0].numpy(), layer(x, (h, c))[0].numpy())
    np.testing.assert_array_equal(layer.step(x[:, 0], {"c": c, "h": h})[0].numpy(), layer.step(x[:, 0], (h, c))[0].numpy())
    for wrong in ({"h": h}, {"h": h, "C": c}):
        with pytest.raises(tr.TinyRNNError, match=r"the state of cell lstm is \(h, c\), got h"):
            layer(x, wrong)
    with pytest.raises(tr.TinyRNNError, match="a gradient of 'b', which is no parameter; they are a"):
        tr.optim.SGD(0.1).update({"a": np.ones(2)}, {"b": np.ones(2)}, {})


# ---- NumPy's rules

def test_products_of_vectors_are_numbers():
    rng = np.random.default_rng(0)
    for n in (1, 4):
        a, m = rng.normal(size=n), rng.normal(size=(n, n))
        p = tr.parameter(a)
        for dtype in ("float64", "float32", "int64", "complex128"):
            v = a.astype(dtype)
            assert (tr.tensor(v) @ tr.tensor(v)).shape == (v @ v).shape == ()
            assert (tr.tensor(v) @ tr.tensor(v)).dtype == (v @ v).dtype
        np.testing.assert_allclose(tr.grad(p @ p, p).numpy(), 2 * a)
        np.testing.assert_allclose(tr.grad(p @ tr.tensor(m) @ p, p).numpy(), (m + m.T) @ a)
        np.testing.assert_allclose(tr.hessian(p @ tr.tensor(m) @ p, p).numpy(), m + m.T)
        assert tr.stack([p @ p, p @ p]).shape == (2,)
        np.testing.assert_allclose(tr.compile(lambda x: x @ x)(a), a @ a)
    with pytest.raises(tr.TinyRNNError, match="inner sizes"):
        tr.tensor(np.ones(3)) @ tr.tensor(np.ones(4))


def test_axes_of_numbers_and_of_nothing():
    x = tr.tensor(3.0)
    for f in (tr.sum, tr.mean, tr.max, tr.min, tr.var):
        assert float(f(x, 0)) == float(f(x, -1)) == float(f(x))
        with pytest.raises(tr.TinyRNNError, match="axis 1 does not exist"):
            f(x, 1)
    for f in (tr.softmax, tr.log_softmax):
        assert f(np.zeros((2, 0))).shape == (2, 0)
        assert tr.grad(f(tr.parameter(np.zeros((2, 0)))).sum() + 0.0, tr.parameter(np.zeros(1))).shape == (1,)
    with np.errstate(divide="ignore"):
        assert tr.logsumexp(np.zeros((2, 0))).tolist() == [-np.inf, -np.inf]
    W = tr.parameter(np.ones((4, 3)))
    for backend in ("cpu", "numpy"):
        assert not tr.compile(lambda i: tr.grad(tr.gather(W, i).sum(), W), backend=backend)(np.zeros(0, int)).any()


@pytest.mark.parametrize(("spec", "shapes"), [
    ("...ij,jk->...ik", [(5, 3, 4), (4, 2)]), ("...i->...", [(2, 3)]), ("ii->i", [(4, 4)]), ("ii", [(4, 4)]), ("ii->", [(3, 3)]),
    ("bii->bi", [(2, 3, 3)]), ("...ii->...i", [(2, 5, 3, 3)]), ("i...,i...->...", [(3, 2), (3, 2)]), ("...,...->...", [(2, 1, 3), (4, 3)]),
    ("...a,...b", [(2, 3), (2, 4)]), ("iij,jk->ik", [(3, 3, 2), (2, 4)]), ("iii->i", [(3, 3, 3)]), ("...i,i", [(2, 3), (3,)]), ("ij,jk", [(2, 3), (3, 2)])])
def test_einsum_with_dots_and_diagonals(spec, shapes):
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=s) for s in shapes]
    right = np.einsum(spec, *arrays)
    np.testing.assert_allclose(tr.einsum(spec, *arrays).numpy(), right, rtol=1e-12)
    np.testing.assert_allclose(tr.compile(lambda *a: tr.einsum(spec, *a))(*arrays), right, rtol=1e-12)
    first, weight = tr.parameter(arrays[0]), rng.normal(size=right.shape)
    slope = tr.grad((tr.einsum(spec, first, *arrays[1:]) * weight).sum(), first).numpy()
    along, h = rng.normal(size=shapes[0]), 1e-6
    moved = [(np.einsum(spec, arrays[0] + s * h * along, *arrays[1:]) * weight).sum() for s in (1, -1)]
    np.testing.assert_allclose((slope * along).sum(), (moved[0] - moved[1]) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("spec", "shapes", "message"), [
    ("ii->i", [(3, 4)], "'i' is 3 and 4"), ("...ij->...", [(3,)], "the operands have shapes"), ("i..j", [(3, 3)], "one group of letters"),
    ("ij->ijk", [(2, 2)], "are in no operand"), ("ij,jk", [(2, 3)], "one group of letters"), ("ij->ii", [(2, 2)], "once in the output"),
    ("...i,...i", [(2, 3), (3, 3)], "is 2 and 3")])
def test_einsum_refuses(spec, shapes, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        tr.einsum(spec, *(np.ones(s) for s in shapes))


# ---- optimisers

def test_centred_rmsprop_stays_finite():
    p, rule = tr.parameter(np.array([1.0, 2.0, 3.0], "f")), tr.optim.RMSprop(0.01, centered=True)
    for _ in range(1500):
        (p * np.array([2e4, 7.7, 0.3], "f")).sum().backward()
        rule.step([p])
    assert np.isfinite(p.numpy()).all()


@pytest.mark.parametrize("make", [lambda **o: tr.optim.Adam(0.1, **o), lambda **o: tr.optim.AdamW(0.1, **o), lambda **o: tr.optim.RMSprop(0.1, **o),
                                  lambda **o: tr.optim.Adagrad(0.1, **o)])
def test_a_gradient_of_zero_moves_nothing(make):
    for dtype, options in (("float16", {}), ("float32", {"eps": 0.0}), ("float64", {"eps": 0.0}), ("float32", {"eps": 1e-60})):
        p = tr.parameter(np.array([1.0, 2.0], dtype))
        (p * np.array([0, 1], dtype)).sum().backward()
        make(**options, **({"weight_decay": 0.0} if "AdamW" in repr(make()) else {})).step([p])
        assert p.numpy()[0] == 1
        assert np.isfinite(p.numpy()).all()
        assert p.numpy()[1] < 2
    with pytest.raises(tr.TinyRNNError, match="eps=-1"):
        make(eps=-1)


def test_float16_layers_train():
    model = tr.nn.Sequential(tr.nn.Embedding(7, 3, rng=0, dtype="float16"), tr.nn.Last(), tr.nn.Linear(3, 2, rng=0, dtype="float16"))
    history = model.fit(np.array([[1, 2], [3, 1]]), np.array([0, 1]), optimizer=tr.optim.Adam(1e-2), epochs=3, rng=0,
                        backend="numpy")
    assert np.isfinite(history["loss"]).all()
    assert {t.dtype for t in model.parameters()} == {np.dtype("float16")}


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"clip_value": 1.0}])
def test_an_infinite_gradient_is_refused_in_a_step_by_hand(options):
    p, q = tr.parameter(np.array([0.0, 1.0]), name="p"), tr.parameter(np.array([3.0]), name="q")
    (tr.sqrt(p).sum() + q.sum()).backward()
    rule = tr.optim.SGD(0.1, **options)
    with pytest.raises(tr.TinyRNNError, match=r"the gradient of p is not finite \(inf in 1 of 2 entries\); the weights are as they were"):
        rule.step([q, p])
    assert (p.numpy().tolist(), q.numpy().tolist()) == ([0, 1], [3])
