"""What a person writes is what the cell is, or it is refused with what to write instead."""

import time
import unicodedata

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells import latex
from tinyrnn.cells.equations import _LOOKALIKES
from tinyrnn.cells.terms import fresh
from tinyrnn.cells.variants import noisy

RNG = np.random.default_rng(5)


# ---- inputs

@pytest.mark.parametrize(("text", "message"), [
    ("h[t] = tanh(W @ x[t] + u * H[t-1])", r"H is read only at earlier steps.*'inputs: x, H'; did you mean 'h'\?"),
    ("state[t] = tanh(W @ x[t] + U @ stat[t-1]) + 0 * state[t-1]", r"stat is read only.*did you mean 'state'\?"),
    ("h[t] = tanh(W @ x[t-1] + h[t-1])", "x is read only at earlier steps.*'inputs: x'"),
    ("inputs: x\nh[t] = tanh(W @ x[t] + V @ y[t])", "y is assigned by no equation and is not among the declared inputs.*'inputs: x, y'"),
    ("inputs: x, y\nh[t] = tanh(W @ x[t] + h[t-1])", "the input 'y' is read by no equation"),
    ("inputs: x, h\nh[t] = tanh(W @ x[t] + h[t-1])", "the input 'h' is assigned by an equation"),
    ("inputs: x, x\nh[t] = tanh(W @ x[t] + h[t-1])", "expected a list of names: inputs: x, u"),
    ("inputs: 2\nh[t] = tanh(W @ x[t] + h[t-1])", "expected a list of names: inputs: x, u")])
def test_inputs_are_those_that_were_meant(text, message):
    with pytest.raises(tr.EquationError, match=message):
        tr.Cell(text)


def test_declared_inputs_give_the_order():
    cell = tr.Cell("inputs: u, H, x\nh[t] = tanh(W @ x[t] + V @ u[t] + p * H[t-1]) + h[t-1]")
    assert cell.inputs == ("u", "H", "x")
    assert tr.Cell(cell.canonical_text()) == cell
    assert tr.prove(cell).holds
    noise = noisy(cell, ["h"], ["h"]).cell
    assert noise.inputs[:3] == ("u", "H", "x")


def test_several_inputs_are_given_by_name_or_in_order():
    cell = tr.Cell("h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])")
    layer = tr.nn.Recurrent(cell, x=3, u=3, h=4, rng=0).eval()
    model = tr.nn.Sequential(layer, tr.nn.Last(), tr.nn.Linear(4, 1, rng=0))
    both = tr.nn.Sequential(tr.nn.Bidirectional(tr.nn.Recurrent(cell, x=3, u=3, h=4, rng=0), rng=1), tr.nn.Last())
    x, u, y = RNG.normal(size=(5, 6, 3)), RNG.normal(size=(5, 6, 3)), np.zeros((5, 1))
    named = {"u": u, "x": x}
    np.testing.assert_array_equal(layer(named)[0].numpy(), layer((x, u))[0].numpy())
    np.testing.assert_array_equal(layer.step({"x": x[:, 0], "u": u[:, 0]})[0].numpy(), layer.step((x[:, 0], u[:, 0]))[0].numpy())
    np.testing.assert_array_equal(model.predict(named), model.predict((x, u)))
    np.testing.assert_array_equal(both.predict(named), both.predict((x, u)))
    assert model.evaluate((x, u), y, loss="mse") == model.evaluate(named, y, loss="mse")
    assert len(model.fit((x, u), y, loss="mse", optimizer=tr.optim.SGD(0.1), validation=((x, u), y), rng=0)["val_loss"]) == 1
    for use in (layer, layer.step, model, model.predict, lambda a: model.fit(a, y, loss="mse", optimizer=tr.optim.SGD(0.1))):
        with pytest.raises(tr.TinyRNNError, match=r"has the inputs x, u: give a dict.*or a tuple in this order; got one array"):
            use(x[:, 0] if use == layer.step else x)
    with pytest.raises(tr.TinyRNNError, match="a tuple of 3"):
        layer((x, u, x))
    two = tr.nn.Recurrent(tr.Cell("outputs: h, y\nh[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t]"), x=3, h=4, y=2)
    with pytest.raises(tr.TinyRNNError, match=r"Linear takes one tensor and got 2 \(h, y\)"):
        tr.nn.Sequential(two, tr.nn.Linear(4, 1))(x)


# ---- mistakes by their names

@pytest.mark.parametrize(("text", "message", "place"), [
    ("h[t] = tanh(W x[t])", "an operator is missing between W and x.*@ multiplies a matrix and a vector", (1, 15)),
    ("h[t] = 2x[t] + h[t-1]", "an operator is missing between 2 and x", (1, 9)),
    ("h[t] = x[t] h[t-1]", r"an operator is missing between \] and h", (1, 13)),
    ("h[t] = tanh(x[t]) W", r"an operator is missing between \) and W", (1, 19)),
    ("h[t] = 2(x[t]) + h[t-1]", r"no function \(is \* or @ missing", (1, 8)),
    ("h[t] = tnah(W @ x[t])", r"no function 'tnah'; the functions are exp.*did you mean 'tanh'\?", (1, 8)),
    ("h[t] = Sigmoid(W @ x[t])", r"did you mean 'sigmoid'\?", (1, 8)),
    ("h[t] = x[t] + h[t-1]^2", r"\^ is no operator here: a power is written a \*\* b", (1, 21)),
    ("from[t] = x[t]", "'from' is a word of Python, reserved.*call it from_", (1, 1)),
    ("h[t] = x[t] + lambda * h[t-1]", "'lambda' is a word of Python.*lambda_, or λ", (1, 15)),
    ("h[t] = x[t] if x[t] > 0 else h[t-1]", r"'if' is a word of Python.*where\(a\[t\] < b\[t\], then, otherwise\)", (1, 13)),
    ("h[t] = W @ x[t] +\n  U @ h[t-1]", r"ends with '\+'.*inside brackets it may go on", (1, 17)),
    ("h[t] = W @ x[t] \\\n  + U @ h[t-1]", "ends with its line; inside brackets it may go on", (1, 17)),
    ("h[t] = W @ x[t]\n  + U @ h[t-1]", "one equation a line.*inside brackets it may go on in the next line", (2, 3)),
    ("h[t] = tanh(W @ x[t]\n  + [h[t-1]\n", "never closed", (2, 5)),
    ("h[t] = tanh(W @ x[t]\ny[t] = x[t]\n", "never closed", (1, 12)),
    ("h[t] = tanh(\n  W @ x[t]\n  + Q % h[t-1]\n)", "not part of the language", (3, 5))])
def test_mistakes_are_named_with_the_remedy(text, message, place):
    with pytest.raises(tr.EquationError, match=message) as caught:
        tr.Cell(text)
    assert (caught.value.line, caught.value.column) == place


def test_equations_over_several_lines():
    long = tr.Cell("h[t] = tanh(  # the whole of it\n\n    W @ x[t]     # from below\n    + U @ h[t-1]\n)\noutputs: h")
    assert long == tr.Cell("outputs: h\nh[t] = tanh(W @ x[t] + U @ h[t-1])")
    assert tr.Cell("A: (h,\n  h) fixed\nh[t] = tanh(A @ h[t-1] + W @ x[t])").fixed == ("A",)
    with pytest.raises(tr.EquationError, match="sizes do not fit") as caught:
        tr.Cell("h[t] = tanh([h[t-1], x[t]]\n  + h[t-1])")
    assert caught.value.line == 1


def test_long_texts_are_refused_soon():
    began = time.perf_counter()
    for text in ("h[t] = (" + "\n" * 500 + "x[t] + " * 9_000, "h[t] = [\n" * 400, "(\n" * 511, "h[t] = " + "tanh(" * 9_000, "\n".join(["a[t] = ("] * 500)):
        with pytest.raises(tr.EquationError):
            tr.Cell(text)
    assert time.perf_counter() - began < 30


# ---- cells written in Python

def test_defaults_are_constants():
    def step(x, h, W, U, dt=0.25, steps=2, act=tr.tanh):
        for _ in range(steps):
            h = h + dt * act(W @ x + U @ h)
        return {"h": h}

    cell = tr.Cell.from_function(step)
    assert cell.constants == {"dt": 0.25}
    assert list(cell.parameters) == ["W", "U"]
    assert cell.text.count("tanh") == 2
    assert tr.Cell.from_function(lambda x, h, b=-1.5: {"h": x * b + h}).constants == {"b": -1.5}


@pytest.mark.parametrize(("function", "message"), [
    (lambda x, h, W: {"H": tr.tanh(W @ x + h)}, r"returns 'H', which is no argument.*did you mean 'h'\?"),
    (lambda x, h, W: {"h": h + W @ x, "y": tr.tanh(h)}, r"returns 'y'.*outputs=\('y',\)"),
    (lambda x, h, c, W: {"h": tr.tanh(W @ x + h)}, "argument 'c' of the function is never read.*must be returned"),
    (lambda x, h, c, W: {"h": tr.tanh(W @ x + h + c.lag(2))}, r"c.lag\(2\): the function returns no 'c'"),
    (lambda x, h: {"x": h, "h": h + x}, "returns 'x', which is an input"),
    (lambda x, *rest: {"h": x}, "has no name of its own")])
def test_what_a_function_gives_must_fit_what_it_takes(function, message):
    with pytest.raises(tr.EquationError, match=message):
        tr.Cell.from_function(function)


def test_outputs_and_gates_of_a_function():
    def step(x, h, W, U, V):
        z = tr.sigmoid(W @ x + U @ h)
        return {"z": z, "h": z * h, "y": V @ (z * x)}

    cell = tr.Cell.from_function(step, outputs=("h", "y"))
    assert (cell.outputs, cell.gates) == (("h", "y"), ("z",))
    late = tr.Cell.from_function(lambda x, h, W: {"h": tr.tanh(W @ x.lag(1) + h)})
    assert late.inputs == ("x",)


@pytest.mark.parametrize(("term", "text"), [
    (lambda x, h, W: tr.softmax(tr.where(x > 0, W @ x + h, -float("inf"))), "-inf"),
    (lambda x, h, W: tr.minimum(W @ x + h, np.float32(np.inf)), "inf"),
    (lambda x, h, W: tr.clip(W @ x + h, None, 2), "clip(W @ x[t] + h[t-1], -inf, 2)"),
    (lambda x, h, W: tr.clip(W @ x + h, -1, None), "clip(W @ x[t] + h[t-1], -1, inf)"),
    (lambda x, h, W: (W @ x + h) * float("nan"), "nan")])
def test_infinite_numbers_are_no_parameters(term, text):
    cell = tr.Cell.from_function(lambda x, h, W: {"h": term(x, h, W)})
    assert list(cell.parameters) == ["W"]
    assert text in cell.text
    assert tr.Cell(cell.text) == cell
    assert r"\infty" in cell.latex() or "nan" in text
    x = RNG.normal(size=(2, 3))
    found = cell.graph(dict.fromkeys(cell.sizes, 3), batch=2).run({"x[t]": x, "h[t-1]": x * 0 + 0.5, "W": np.eye(3)})["h[t]"]
    z = x + 0.5
    wanted = {"clip(W @ x[t] + h[t-1], -inf, 2)": np.minimum(z, 2), "clip(W @ x[t] + h[t-1], -1, inf)": np.maximum(z, -1), "inf": z,
              "nan": z * np.nan}.get(text)
    if wanted is not None:
        np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("depth", [30, 39, 150, 700])
def test_deep_functions(depth):
    def step(x, h, W, U):
        y = W @ x
        for _ in range(depth):
            y = tr.tanh(U @ y) * 0.9
        return {"h": y + h}

    cell = tr.Cell.from_function(step)
    p, x = cell.init(x=2, h=3, rng=0), RNG.normal(size=(1, 2))
    y = x @ p["W"].T
    for _ in range(depth):
        y = np.tanh(y @ p["U"].T) * 0.9
    np.testing.assert_allclose(cell.graph(x=2, h=3).run({"x[t]": x, "h[t-1]": np.ones((1, 3)), **p})["h[t]"], y + 1, rtol=1e-12)


def test_wide_and_endless_functions():
    wide = tr.Cell.from_function(lambda x, h, W: {"h": sum(((W @ x + k) * h for k in range(300)), start=h)})
    assert len(wide.inputs) == 1
    with pytest.raises(tr.EquationError, match=r"characters|lines"):
        tr.Cell.from_function(lambda x, h, W: {"h": sum(((W @ x + k) * h for k in range(30_000)), start=h)})


# ---- names that options invent

@pytest.mark.parametrize("name", ["keep_h", "mask_h", "new_h", "keep_h_1", "W", "x", "zz"])
def test_options_take_no_name_of_the_cell(name):
    """Whatever a gate is called, zoneout and recurrent dropout do the same."""
    text = "{0}[t] = sigmoid(V @ {1}[t])\nh[t] = {0}[t] * h[t-1] + (1 - {0}[t]) * tanh(W0 @ {1}[t] + U @ h[t-1])"
    x = RNG.normal(size=(2, 7, 2))
    found = []
    for gate in (name, "leak"):
        layer = tr.nn.Recurrent(tr.Cell(text.format(gate, "u" if gate == "x" else "x")), {"u" if gate == "x" else "x": 2, "h": 3},
                                zoneout=0.4, recurrent_dropout=0.3, rng=0)
        runs = [layer.train()(x)[0].numpy() for _ in range(2)]
        assert (runs[0] != runs[1]).any()
        found.append((*runs, layer.eval()(x)[0].numpy()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fresh_names():
    assert [fresh("a", set()), fresh("a", {"a"}), fresh("a", {"a", "a_1", "a_2"})] == ["a", "a_1", "a_3"]
    cell = tr.Cell("keep_h[t] = sigmoid(V @ x[t] + mask_h)\nnew_h[t] = tanh(W @ x[t] + U @ h[t-1])\nh[t] = keep_h[t] * h[t-1] + new_h[t]")
    noise = noisy(cell, ["h"], ["h"])
    assert (noise.kept, noise.masked) == ({"h": "keep_h_1"}, {"h": "mask_h_1"})
    assert "new_h_1[t]" in noise.cell.text


# ---- LaTeX

def test_unlike_names_print_unlike():
    letters = [chr(c) for c in range(0x370, 0x400) if unicodedata.category(chr(c))[0] == "L"
               and unicodedata.normalize("NFKC", chr(c)) == chr(c) and chr(c) not in _LOOKALIKES]
    names = ["h", "_h", "h_", "h__", "_h_", "_", "W_x", "W__x", "W_x_", "W_1_2", "W_1__2", "W_12", "W12", "α_β", "αβ", "αx", "alpha",
             "omicron", "koppa", "kai", *letters]
    for step in ("", "t"):
        printed = [latex.name(n, step) for n in names]
        assert len(set(printed)) == len(names)
    assert latex.name("ά") == r"\acute{\alpha{}}"
    assert latex.name("Ϟ") == r"\mathit{Koppa}"
    assert not any(bad in p for p in printed for bad in (r"\x{", r"\archaic"))
    for name in set(letters) - {"σ"}:  # which is sigmoid
        assert tr.Cell(f"{name}[t] = x[t] + {name}[t-1]").latex()
