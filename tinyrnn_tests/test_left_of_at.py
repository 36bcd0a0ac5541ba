"""What stands to the left of `@`: matrices, unless something there is a vector; every function and operator is gone through."""

import warnings

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells.equations import functions
from tinyrnn.functions import FUNCTIONS

SIZES = {"x": 3, "h": 4}
MATRIX, EQUATION = ("h", "h"), "h[t] = tanh(W @ x[t] + {} @ h[t-1])"


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(a):
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)


POSITIVE = ("log", "log1p", "sqrt")
ENTRYWISE = [f.name for f in FUNCTIONS.values() if f.operands == 1]
NUMPY = {**{f: (lambda a, f=f: getattr(tr, f)(np.abs(a) if f in POSITIVE else a).numpy()) for f in ENTRYWISE},
         "softmax": softmax, "layer_norm": layer_norm, "rms_norm": lambda a: a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-5)}

# what is written on the left -> the same of arrays U, V [h, h]
LEFT = {
    **{(f"{f}(abs(U))" if f in POSITIVE else f"{f}(U)"): (lambda U, V, f=f: NUMPY[f](U)) for f in NUMPY},
    "maximum(U, 0.1)": lambda U, V: np.maximum(U, 0.1), "minimum(V, U)": lambda U, V: np.minimum(V, U),
    "where(U < V, U, 0)": lambda U, V: np.where(U < V, U, 0), "clip(U, -0.3, 0.3)": lambda U, V: np.clip(U, -0.3, 0.3),
    "0.9 * U": lambda U, V: 0.9 * U, "U * 0.9": lambda U, V: 0.9 * U, "U / 2": lambda U, V: U / 2, "2 / exp(U)": lambda U, V: 2 / np.exp(U),
    "(U + V)": lambda U, V: U + V, "(U - 3)": lambda U, V: U - 3, "(U * V)": lambda U, V: U * V, "U * U": lambda U, V: U * U,
    "-U": lambda U, V: -U, "(-U)": lambda U, V: -U, "U ** 2": lambda U, V: U**2, "2 ** U": lambda U, V: 2**U, "-0.5 * U": lambda U, V: -0.5 * U,
    "(U - U.T)": lambda U, V: U - U.T, "U.T": lambda U, V: U.T, "0.5 * U.T": lambda U, V: 0.5 * U.T, "U @ V": lambda U, V: U @ V,
    "(U @ V + U)": lambda U, V: U @ V + U, "relu(U) @ abs(V)": lambda U, V: np.maximum(U, 0) @ np.abs(V),
    "sum(V) * U": lambda U, V: V.sum() * U, "(1 - tanh(U) * V)": lambda U, V: 1 - np.tanh(U) * V}


def named(left):
    return {p for p in ("U", "V") if p in left}


def test_every_function_of_the_language_is_gone_through():
    rest = set(functions()) - set(NUMPY)
    assert rest == {"maximum", "minimum", "where", "clip", "sum", "mean", "outer", "size"}


@pytest.mark.parametrize("left", LEFT)
def test_undeclared_parameters_are_matrices(left):
    cell = tr.Cell(EQUATION.format(left))
    wanted = {p: ("V_rows", "V_cols") if p == "V" and left == "sum(V) * U" else MATRIX for p in named(left)}
    shapes = {p: s for p, s in cell.parameters.items() if p != "W"}
    if left in ("U @ V", "relu(U) @ abs(V)"):
        assert shapes == {"U": ("h", "n1"), "V": ("n1", "h")}
    elif left == "sum(V) * U":
        assert shapes["U"] == MATRIX
        return
    else:
        assert shapes == wanted
    sizes = SIZES | {s: 4 for s in cell.sizes if s not in SIZES}
    p = cell.init(sizes, rng=1)
    p = {k: v + 0.2 for k, v in p.items()}
    rng = np.random.default_rng(2)
    x, h = rng.normal(size=(2, 3)), rng.normal(size=(2, 4))
    found = cell.graph(sizes, batch=2).run({"x[t]": x, "h[t-1]": h, **p})["h[t]"]
    matrix = LEFT[left](p.get("U"), p.get("V"))
    np.testing.assert_allclose(found, np.tanh(x @ p["W"].T + h @ matrix.T), rtol=1e-12)


@pytest.mark.parametrize("left", [k for k in LEFT if not k.startswith("(")])
def test_brackets_around_the_left_side_change_nothing(left):
    plain, bracketed = tr.Cell(EQUATION.format(left)), tr.Cell(EQUATION.format(f"({left})"))
    assert plain.parameters == bracketed.parameters
    assert tr.Cell(plain.canonical_text()) == plain
    if "-U" not in left:  # -U @ h is -(U @ h)
        assert plain == bracketed
    given = {**{k: np.full(v, 0.3) for k, v in plain.shapes({**SIZES, **{s: 4 for s in plain.sizes if s not in SIZES}}).items()},
             "x[t]": np.ones((1, 3)), "h[t-1]": np.arange(4.0)[None]}
    sizes = {s: SIZES.get(s, 4) for s in plain.sizes}
    np.testing.assert_allclose(*(c.graph(sizes).run(given)["h[t]"] for c in (plain, bracketed)), rtol=1e-14)


def test_the_same_in_python():
    def step(x, h, W, U, M):
        A = tr.relu(U)  # used twice, and a matrix both times
        return {"h": tr.tanh(W @ x + A @ h + 0.9 * (M * U) @ h + A @ (A @ h))}

    cell = tr.Cell.from_function(step)
    assert cell.parameters == {"W": ("h", "x"), "U": MATRIX, "M": MATRIX}
    p = cell.init(SIZES, rng=0)
    x, h = np.ones((1, 3)), np.arange(4.0)[None] / 4
    A = np.maximum(p["U"], 0)
    wanted = np.tanh(x @ p["W"].T + h @ A.T + 0.9 * h @ (p["M"] * p["U"]).T + h @ A.T @ A.T)
    np.testing.assert_allclose(cell.graph(SIZES).run({"x[t]": x, "h[t-1]": h, **p})["h[t]"], wanted, rtol=1e-12)


def test_a_quantity_of_parameters_alone_is_a_matrix_too():
    cell = tr.Cell("A[t] = exp(U)\nh[t] = tanh(W @ x[t] + A[t] @ h[t-1])")
    assert cell.parameters["U"] == MATRIX
    assert cell.ranks["signal", "A"] == 2
    assert tr.Cell("c[t] = 2\nh[t] = c[t] * tanh(W @ x[t] + U @ h[t-1])").ranks["signal", "c"] == 0


@pytest.mark.parametrize("gain", ["g: scalar\n", "g = 1.5\n"])
@pytest.mark.parametrize("product", ["g * U @ h[t-1]", "(g * U) @ h[t-1]", "U * g @ h[t-1]", "U / g @ h[t-1]"])
def test_gains_are_declared(gain, product):
    cell = tr.Cell(f"{gain}h[t] = tanh(W @ x[t] + {product})")
    assert cell.parameters["U"] == MATRIX
    outside = tr.Cell(f"{gain}h[t] = tanh(W @ x[t] + {'U @ h[t-1] / g' if '/' in product else 'g * (U @ h[t-1])'})")
    assert tr.equivalent(cell, outside).holds
    assert tr.prove(cell).holds


@pytest.mark.parametrize(("left", "gains"), [
    ("g * U", ["g"]), ("U * γ", ["γ"]), ("alpha * U / beta", ["alpha", "beta"]), ("(a * U + b * V)", ["a", "b"]),
    ("(M * W)", []), ("w * w", []), ("0.5 * u", []), ("g * U * g", ["g"])])
def test_what_may_be_a_gain_is_said_once(left, gains):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tr.Cell(f"h[t] = tanh(V_x @ x[t] + {left} @ h[t-1])", "c")
    assert [str(w.message) for w in seen] == [
        f"cell c: {g} is read as a matrix, since it stands to the left of @; declare '{g}: scalar' if it is a gain, or "
        f"'{g}: (h, h)' if it is a matrix" for g in gains]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for g in gains:
            declared = "\n".join(f"{k}: (h, h)" for k in gains)
            assert tr.Cell(f"{declared}\nh[t] = tanh(V_x @ x[t] + {left} @ h[t-1])").parameters[g] == MATRIX


OPEN = {
    "z[t] * U @ h[t-1]": (r"write z\[t\] \* \(U @ h\[t-1\]\).*declare 'U: \(h,\)'", "U: (h,)"),
    "z[t] / U @ h[t-1]": (r"write z\[t\] / \(U @ h\[t-1\]\)", "U: (h,)"),
    "(relu(U) * z[t]) @ h[t-1]": (r"write z\[t\] \* \(relu\(U\) @ h\[t-1\]\)", "U: (h,)"),
    "[U, V] @ h[t-1]": (r"one parameter, W @ h\[t-1\].*declare 'U: \(h,\)'", None),
    "x[t] @ Q": (r"write Q @ x\[t\]", None), "x[t] @ (0.9 * Q)": (r"write \(0.9 \* Q\) @ x\[t\]", None)}


@pytest.mark.parametrize("term", OPEN)
def test_what_stays_open_is_refused_with_what_one_could_write(term):
    message, declared = OPEN[term]
    text = f"z[t] = sigmoid(Z @ x[t])\nh[t] = tanh(P @ x[t] * z[t] + {term})"
    with pytest.raises(tr.EquationError, match=message):
        tr.Cell(text)
    if declared:
        assert tr.Cell(f"{declared}\n{text}").parameters["U"] == ("h",)


def test_vectors_that_nothing_makes_a_matrix():
    cell = tr.Cell("s[t] = (K @ x[t] + b) @ (Q @ h[t-1])\nh[t] = tanh(s[t] * w + U @ h[t-1])")
    assert cell.parameters["b"] == ("n1",)
    assert cell.parameters["K"] == ("n1", "x")
    assert cell.ranks["signal", "s"] == 0
    memory = tr.Cell("M[t] = p * M[t-1] + outer(K @ x[t], V @ x[t])\nh[t] = (0.9 * M[t]) @ (Q @ x[t])")
    assert len(memory.parameters["p"]) == 2


@pytest.mark.parametrize("left", ["relu(U)", "0.9 * U", "(M * U)", "softmax(U)", "(U - U.T)", "A @ B", "where(U < 0, U, M)"])
def test_such_cells_are_proved_derived_and_trained(left):
    cell = tr.Cell(EQUATION.format(left))
    assert tr.prove(cell).holds
    derived = tr.derive(cell)
    assert "dL/dh[t+1]" in str(derived) or "t+1" in str(derived)
    assert derived.markdown()
    assert cell.latex()
    layer = tr.nn.Recurrent(cell, dict.fromkeys(cell.sizes, 3), rng=0)
    before = layer.state_dict()
    layer.fit(np.ones((4, 5, 3), "f"), np.zeros((4, 5, 3), "f"), loss="mse", optimizer=tr.optim.SGD(0.1), rng=0)
    assert all((layer.state_dict()[k] != v).any() for k, v in before.items())
