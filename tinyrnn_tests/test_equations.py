"""The equation language: what it accepts, what it infers, and one clear error for everything else."""

import pytest

import tinyrnn as tr
from tinyrnn.cells.equations import parse
from tinyrnn.cells.terms import show_system
from tinyrnn.errors import EquationError, ShapeError

GOOD = {
    "lag 2": "h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2] + b)",
    "output": "y[t] = V @ h[t] + d\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)",
    "matrix state": """v[t] = W_v @ x[t]
        k[t] = tanh(W_k @ x[t])
        q[t] = W_q @ x[t]
        f[t] = sigmoid(sum(w_f * x[t]) + b_f)
        C[t] = f[t] * C[t-1] + outer(v[t], k[t])
        h[t] = C[t] @ q[t]""",
    "mLSTM": """q[t] = W_q @ x[t] + b_q
        k[t] = W_k @ x[t] + b_k
        v[t] = W_v @ x[t] + b_v
        i[t] = sum(w_i * x[t]) + b_i
        f[t] = sum(w_f * x[t]) + b_f
        m[t] = maximum(f[t] + m[t-1], i[t])
        a[t] = exp(f[t] + m[t-1] - m[t])
        e[t] = exp(i[t] - m[t])
        C[t] = a[t] * C[t-1] + e[t] * outer(v[t], k[t])
        n[t] = a[t] * n[t-1] + e[t] * k[t]
        h[t] = sigmoid(W_o @ x[t] + b_o) * (C[t] @ q[t]) / maximum(abs(sum(n[t] * q[t])), 1)""",
    "matrix times matrix": "C[t] = 0.5 * (A @ C[t-1]) + outer(x[t], W @ x[t])\nh[t] = x[t] @ C[t]",
    "scalars": "alpha: scalar\nbeta: scalar\nh[t] = alpha * tanh(W @ x[t] + U @ h[t-1] + b) + beta * h[t-1]",
    "bias in a join": "h[t] = tanh(W @ [h[t-1], x[t], 1])",
    "constant, fixed": "dt = 0.042\nA: (h, h) fixed\nh[t] = h[t-1] + dt * tanh(A @ h[t-1] + W @ x[t])",
    "learned start": "h[0]: learned\nh[t] = tanh(W @ x[t] + U @ h[t-1])",
    "delayed input": "h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1])",
    "delay only": "inputs: x\nh[t] = tanh(V @ x[t-2] + U @ h[t-1])",
    "several lines": "h[t] = tanh(  # all of it\n  W @ x[t]\n  + U @ h[t-1]\n)",
    "transpose": "h[t] = tanh(W.T @ (W @ h[t-1]) + U @ x[t]) / size(h[t])",
    "where, clip": "h[t] = where(x[t] > 0.25, clip(h[t-1], -1, 1), W @ h[t-1]) - 0.5 ** 2 * h[t-1]",
    "rows": "h[t] = softmax(W @ x[t]) * g + layer_norm(U @ h[t-1]) * gamma + rms_norm(x[t])",
    "Greek": "α[t] = σ(Wα @ x[t] ⊙ 1 + U · α[t-1])",
    "outputs": "outputs: h, y\nh[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t]",
    "two inputs": "h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])",
    "powers": "h[t] = x[t] ** 3 / (1 + h[t-1] ** 2) + abs(h[t-1]) ** 0.5 + (1 + x[t] ** 2) ** b",
    "means": "h[t] = elu(W @ x[t]) * mean(h[t-1]) + silu(gelu(softplus(h[t-1]))) - minimum(x[t], 0) * hard_sigmoid(h[t-1])",
}


@pytest.mark.parametrize("name", GOOD)
def test_round_trip(name):
    cell = tr.Cell(GOOD[name])
    assert tr.Cell(cell.text) == cell
    assert tr.Cell(cell.canonical_text()) == cell
    assert parse(show_system(cell.system)) == cell.system
    assert "\\begin{aligned}" in cell.latex()


def test_inferred_sizes():
    cell = lambda name: tr.Cell(GOOD[name])
    assert cell("mLSTM").signals["C"] == ("C_rows", "C_cols")
    assert cell("mLSTM").parameters["b_i"] == ()
    assert cell("mLSTM").states == ("m", "C", "n")
    assert cell("bias in a join").parameters == {"W": ("h", "h+x+1")}
    assert cell("bias in a join").shapes(x=2, h=3) == {"W": (3, 6)}
    assert cell("output").sizes == ("x", "h", "y")
    assert cell("lag 2").slots == (("h", 1), ("h", 2))
    assert cell("delayed input").slots == (("h", 1), ("x", 1))
    assert cell("delayed input").states == ("h",)
    assert cell("outputs").outputs == ("h", "y")
    assert cell("Greek").inputs == ("x",)
    assert cell("learned start").parameters["h[0]"] == ("h",)
    lstm = tr.cells["lstm_projection"]
    assert lstm.shapes(x=2, h=3, c=5)["W_f"] == (5, 5)
    assert lstm.shapes(x=2, h=3, sizes={"c": 5})["P"] == (3, 5)


def test_state_order_outputs_first():
    assert tr.Cell(GOOD["output"]).states == ("h",)
    assert tr.cells.LSTM.states == ("h", "c")
    assert tr.cells.LSTM.gates == ("i", "f", "g", "o")


# text -> what the message must name
BAD = {
    "import": ("h[t] = __import__('os')", "no function '__import__'"),
    "class": ("h[t] = ().__class__", "attribute"),
    "f-string": ("h[t] = f'{x}'", "f-string"),
    "lambda": ("h[t] = (lambda: x[t])()", "word of Python.*lambda_, or λ"),
    "walrus": ("h[t] = (x := 1)", "not part of the language"),
    "exec": ("exec('1')", "one equation a line"),
    "call of a call": ("h[t] = tanh(x[t])(1)", "not part of the language"),
    "tower of powers": ("h[t] = 9**9**9 * x[t]", "too large"),
    "number": ("h[t] = 10**400 * x[t]", "too large"),
    "literal": ("h[t] = 1e999 * x[t]", "too large"),
    "division by zero": ("h[t] = 1/0 * x[t]", "too large"),
    "imaginary": ("h[t] = (-1)**0.5 * x[t]", "not real"),
    "complex literal": ("h[t] = 2j * x[t]", "not part of the language"),
    "string": ("h[t] = 'x'*10**9", "not part of the language"),
    "unary": ("h[t] = " + "-" * 60000 + "x[t]", "operators"),
    "many characters": ("h[t] = " + "x[t] + " * 200_000 + "x[t]", "characters"),
    "many operators": ("h[t] = " + "x[t] + " * 9000 + "x[t]", "operators"),
    "parentheses": ("h[t] = " + "(" * 201 + "x[t]" + ")" * 201, "nested more than"),
    "brackets": ("h[t] = " + "[" * 100_000, "characters|nested"),
    "keyword": ("in[t] = x[t]", "'in' is a word of Python, reserved.*call it in_"),
    "None": ("None[t] = x[t]", "left side"),
    "debug": ("__debug__ = 3", "two underscores"),
    "builtin as function": ("h[t] = print(x[t])", "no function 'print'"),
    "digits": ("h[t] = ٣ * x[t]", "means|not used in equations"),
    "bidi": ("h[t] = x[t] \u202e + b", r"U\+202E"),
    "bidi in a comment": ("h[t] = x[t] # \u202e", r"U\+202E"),
    "homoglyph": ("h[t] = а @ x[t]", "CYRILLIC"),
    "Greek homoglyph": ("h[t] = ο * x[t]", "OMICRON"),
    "subscript": ("hₜ[t] = x[t]", "means 't'"),
    "ligature": ("ﬁ[t] = x[t]", "means 'fi'"),
    "subscript digit": ("h[t] = W₁ @ x[t]", "write _1"),
    "NUL": ("h[t] = x[t]\0", r"U\+0000"),
    "empty": ("", "no equation"),
    "comment only": ("# only a title", "no equation"),
    "semicolons": ("h[t] = x[t]; y[t] = x[t]", "one equation"),
    "chained": ("h[t] = y[t] = x[t]", "one equation"),
    "augmented": ("h[t] += x[t]", "one equation"),
    "newline in a name": ("h[t] = x[\nt\ny[t] = x[t]", "never closed"),
    "percent": ("h[t] = x[t] % 2", "not part of the language"),
    "braces": ("h[t] = {x[t]}", "not part of the language"),
    "C comment": ("h[t] = x[t] */ 2", "not an equation"),
    "directive": ("#include <x>\n", "no equation"),
    "comparison": ("h[t] = x[t] > 0", "comparison outside where"),
    "double comparison": ("h[t] = where(0 < x[t] < 1, x[t], 0)", "one comparison"),
    "boolean": ("h[t] = x[t] and b", "'and' is a word of Python.*where"),
    "conditional": ("h[t] = x[t] if b else 0", "where"),
    "keyword argument": ("h[t] = tanh(x=x[t])", "not part of the language"),
    "star": ("h[t] = tanh(*x[t])", "star"),
    "arity": ("h[t] = maximum(x[t])", "takes 2 arguments, got 1"),
    "future": ("h[t] = x[t+1]", "future"),
    "other index": ("h[t] = x[0]", "time index"),
    "far lag": ("h[t] = h[t-65] + x[t]", "t-64"),
    "left side later": ("h[t-1] = x[t]", "left side"),
    "t as a value": ("h[t] = t * x[t]", "no value"),
    "function as a name": ("tanh[t] = x[t]", "a function"),
    "function as a parameter": ("h[t] = tanh * x[t]", "a function"),
    "assigned twice": ("h[t] = x[t]\nh[t] = h[t-1]", "twice.*line 1"),
    "no time index": ("h = tanh(x[t])", "without a time index"),
    "cycle": ("a[t] = b[t] + x[t]\nb[t] = a[t] + h[t-1]\nh[t] = a[t] + b[t]", r"a -> b -> a"),
    "misspelt gate": ("ff[t] = sigmoid(W @ x[t])\nh[t] = f[t] * h[t-1]", r"h\[t\].*inputs: x, f"),
    "unused equation": ("u[t] = W @ x[t]\nh[t] = tanh(x[t] + U @ h[t-1])", r"u\[t\], h\[t\]"),
    "unused beside outputs": ("outputs: h\nu[t] = W @ x[t]\nh[t] = tanh(x[t] + h[t-1])", r"u\[t\] is used by no equation"),
    "size clash": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t] + [h[t], x[t]] + h[t]", r"h and h\+x|x.*h"),
    "size clash with another line": ("z[t] = [h[t-1], x[t]]\nh[t] = z[t] + h[t-1] + U @ x[t]", "line 1 says z"),
    "empty size": ("h[t] = [h[t-1], x[t]] + h[t-1]", "size"),
    "vector and matrix": ("C[t] = outer(x[t], x[t]) + C[t-1]\nh[t] = C[t] + x[t]", "vector with a matrix"),
    "vector before a parameter": ("h[t] = x[t] @ W", r"write W @ x\[t\]"),
    "number in a product": ("a: scalar\nh[t] = a @ x[t]", "use \\*"),
    "parameter and quantity": ("h[t] = tanh(h @ x[t])", r"write h\[t\]"),
    "unknown declaration": ("W: orthogonal\nh[t] = W @ x[t]", "expected scalar"),
    "unused declaration": ("a: scalar\nh[t] = W @ x[t]", "no equation uses it"),
    "unused constant": ("a = 2\nh[t] = W @ x[t]", "no equation uses it"),
    "learned gate": ("z[0]: learned\nz[t] = x[t]\nh[t] = z[t] + h[t-1]", "not an initial value"),
    "unknown size": ("A: (q, h) fixed\nh[t] = A @ h[t-1] + x[t]", "unknown size"),
    "wrong size": ("A: (h+1, h) fixed\nh[t] = tanh(A @ h[t-1] + W @ x[t])", "declared"),
    "unknown output": ("outputs: q\nh[t] = tanh(W @ x[t] + U @ h[t-1])", "assigned by no equation"),
    "outer of matrices": ("C[t] = outer(x[t], x[t]) + C[t-1]\nh[t] = outer(C[t], x[t]) @ x[t]", "two vectors"),
    "softmax of a number": ("h[t] = softmax(sum(x[t])) + h[t-1]", "vector or a matrix"),
    "clip with a tensor": ("h[t] = clip(x[t], b, 1)", "two numbers"),
    "size of a parameter": ("h[t] = x[t] * size(W)", "time index"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_clear_error(name):
    text, message = BAD[name]
    with pytest.raises(EquationError, match=message) as caught:
        tr.Cell(text)
    assert len(str(caught.value)) < 700


def test_the_error_points_at_the_place():
    with pytest.raises(EquationError) as caught:
        tr.Cell("# title\n\n    h[t] = tanh(α @ x[t]) + bogus(h[t-1])")
    assert (caught.value.line, caught.value.column) == (3, 29)
    lines = str(caught.value).splitlines()
    assert lines[-2].index("bogus") == lines[-1].index("^")


def test_nothing_is_executed(monkeypatch):
    monkeypatch.setattr("builtins.eval", lambda *a: pytest.fail("eval was called"))
    monkeypatch.setattr("builtins.exec", lambda *a: pytest.fail("exec was called"))
    with pytest.raises(EquationError):
        tr.Cell("h[t] = __import__('os').system('true')")
    tr.Cell("h[t] = tanh(W @ x[t])")


@pytest.mark.parametrize("value", [3, None, b"h[t] = x[t]", ["h[t] = x[t]"]])
def test_text_is_text(value):
    with pytest.raises(EquationError, match="written as text"):
        tr.Cell(value)


def test_sizes_are_asked_for_by_name():
    cell = tr.cells.GRU
    with pytest.raises(ShapeError, match=r"needs the size 'h'; its sizes are x=, h="):
        cell.shapes(x=3)
    with pytest.raises(ShapeError, match="no size 'q'"):
        cell.init(x=3, h=2, q=4)
    for bad in (0, -1, 2.5, True, "3"):
        with pytest.raises(ShapeError, match="whole numbers from 1"):
            cell.shapes(x=3, h=bad)


def test_from_function():
    def step(x, h, c, W_f, W_g, b):
        both = tr.concat([h, x])
        f = tr.sigmoid(W_f @ both + b)
        g = tr.tanh(W_g @ both)
        for _ in range(2):
            g = g * g + 1
        c = f * c + (1 - f) * g
        return {"c": c, "f": f, "h": tr.where(h < 0.5, tr.tanh(c), -c) - 2 * h.lag(2)}

    cell = tr.Cell.from_function(step, outputs=("h",))
    assert cell.states == ("h", "c")
    assert cell.roles.lags == {"h": 2, "c": 1}
    assert cell.gates == ("f", "v1", "v2")
    assert tr.Cell(cell.text) == cell
    assert cell.text.count("tanh(W_g") == 1
    for wrong, message in ((lambda x, h: h, "returns a dict"), (lambda y, h: {"h": h}, "no argument 'x'"),
                           (lambda x, h: {"h": -h if x else h}, "truth value"),
                           (lambda x, h: {"h": h + "a"}, "met str"), (lambda x, h: {"h": tr.cumsum(h)}, "Symbol|numbers")):
        with pytest.raises(tr.TinyRNNError, match=message):
            tr.Cell.from_function(wrong)


def test_from_function_of_deep_sharing_stays_small():
    def step(x, h, W):
        for _ in range(40):
            h = h * h + 0.1
        return {"h": h + W @ x}
    assert len(tr.Cell.from_function(step).text) < 3000


def test_latex_escapes_names():
    cell = tr.Cell("h_new[t] = tanh(W_xβ @ x[t] + input_layer) / 2 - h_new[t-1] ** 2")
    text = cell.latex()
    assert "_{xβ}" not in text
    assert r"\beta" in text
    assert r"h^{(\mathrm{new})}_{t}" in text
    assert cell._repr_latex_().startswith("$")


def test_a_minus_before_a_product_belongs_to_the_product():
    cell = tr.Cell("h[t] = tanh(-W @ x[t] + U @ h[t-1])")
    assert cell.parameters["W"] == ("h", "x")
    assert cell == tr.Cell(cell.canonical_text())
    assert "-(W @ x[t])" in cell.canonical_text()


def test_a_parameter_may_be_fixed_without_sizes():
    cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\nb: fixed")
    assert cell.fixed == ("b",)
    assert cell.parameters["b"] == ("h",)
