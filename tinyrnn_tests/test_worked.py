"""Worked examples: what is printed is arithmetic that holds, and its numbers are those of independent computations."""

import json
import math
import re
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells.paper import arrayed, pretty, rounded
from tinyrnn.domains import COMPLEX_STEP
from tinyrnn.domains.complex_step import STEP
from tinyrnn.errors import ArgumentError, ShapeError
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.ir.ops.linear import broadcast_to, sum_

from .latex import needs_latex
from .oracles import assert_close

ELMAN = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
GIVEN = {"W": 0.5, "U": 0.8, "b": 0.1, "x": [1, 2, -1]}
ODD = {  # cells with what the zoo does not have
    "two lags": "h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2] + b)",
    "a delayed input": "h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1])",
    "joined": "h[t] = tanh(W @ [h[t-1], x[t]] + b)",
    "a constant": "k = 0.25\nh[t] = (1 - k) * h[t-1] + k * tanh(W @ x[t] + U @ h[t-1])",
    "learned": "h[0]: learned\nh[t] = sigmoid(W @ x[t] + U @ h[t-1] + b)",
    "an output": "h[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t] + d",
    "no function": "h[t] = W @ x[t] + u * h[t-1]",
    "a choice": "h[t] = where(W @ x[t] > 0, tanh(W @ x[t] + U @ h[t-1]), 0.5 * h[t-1])",
    "normalised": "h[t] = tanh(layer_norm(W @ x[t] + U @ h[t-1]) * g + b)",
    "delta is taken": "h[t] = tanh(W @ x[t] + δ * h[t-1])",
    "a ratio": "h[t] = (W @ x[t] + h[t-1]) / (1 + abs(U @ h[t-1]))",
    "shared twice": "h[t] = tanh(W @ x[t] + U @ h[t-1]) * tanh(W @ x[t] + U @ h[t-1]) + exp(-(h[t-1] ** 2))"}


def cell_of(name):
    return tr.Cell(ODD[name]) if name in ODD else tr.cells[name]


def by_hand(cell, run, loss="last"):
    """L and its derivative by every parameter at every step, by complex step: parameters are other ones at every step."""
    steps = run.steps
    shapes = {p: run.given[p].shape for p in cell.parameters}
    own = {(p, t): input_node(f"{p} {t}", shapes[p]) for p in shapes for t in range(1, steps + 1)}
    values = {f"{p} {t}": run.given[p] for p, t in own}
    starts = {(n, k): input_node(f"{n}[{1 - k}]", run.values.get((n, 1 - k), run.values[n, 1]).shape) for n, k in cell.slots}
    values |= {f"{n}[{1 - k}]": run.values.get((n, 1 - k), np.zeros(starts[n, k].shape)) for n, k in cell.slots}
    state, outputs = [broadcast_to(s, (1, *s.shape)) for s in starts.values()], []
    for t in range(1, steps + 1):
        xs = [input_node(f"{n}[{t}]", (1, *run.values[n, t].shape)) for n in cell.inputs]
        values |= {f"{n}[{t}]": run.values[n, t][None] for n in cell.inputs}
        state, found = cell.step(state, xs, {p: own[p, t] for p in shapes})
        outputs += [found[o] for o in cell.outputs if loss == "sum" or t == steps]
    graph = Graph({"loss": sum(sum_(y) for y in outputs)})
    values = {k: v for k, v in values.items() if k in graph.inputs}

    def slope(name, shape):
        out = np.zeros(shape)
        for i in np.ndindex(shape):
            moved = {k: v.astype(complex) for k, v in values.items()}
            if name in moved:
                moved[name][i] += 1j * STEP
                out[i] = np.imag(graph.run(moved, domain=COMPLEX_STEP)["loss"]) / STEP
        return out

    shares = {p: {t: slope(f"{p} {t}", shapes[p]) for t in range(1, steps + 1)} for p in shapes if p not in cell.learned}
    learned = {p: slope(p, shapes[p]) for p in cell.learned}
    return float(graph.run(values)["loss"]), shares, learned


@pytest.mark.parametrize("loss", ["last", "sum"])
@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("name", [*tr.cells.names(), *ODD])
def test_shares_and_gradients_against_complex_step(name, matrices, loss):
    """T = 3 steps, sizes 1 or unlike ones: each step's share, their sum, the loss, and the loss after the update."""
    cell = cell_of(name)
    sizes = {s: 2 + (i if len(cell.sizes) < 4 else 0) for i, s in enumerate(cell.sizes)} if matrices else dict.fromkeys(cell.sizes, 1)
    rng = np.random.default_rng(7)
    values = {p: rng.normal(size=s) for p, s in cell.shapes(sizes).items()}
    values |= {n: rng.normal(size=(3, *cell.signal_shape(n, sizes))) for n in cell.inputs}
    work = tr.worked(cell, values, loss, steps=None if cell.inputs else 3, lr=0.05)
    found, shares, learned = by_hand(cell, work.before, loss)
    assert work.loss == pytest.approx(found, rel=1e-12)
    for p, own in shares.items():
        if p not in cell.fixed:
            for t, share in own.items():
                assert_close(work.before.shares.get(p, {}).get(t, np.zeros_like(share)), share, 1e-10, f"{p} at {t}")
            assert_close(work.gradients[p], sum(own.values()), 1e-10, p)
            assert_close(work.updated[p], values[p] - 0.05 * sum(own.values()), 1e-12, p)
    for p, slope in learned.items():
        assert_close(work.gradients[p], slope, 1e-10, p)
    assert work.loss_after == pytest.approx(by_hand(cell, work.after, loss)[0], rel=1e-12)


# ---- the printed arithmetic

NAMES = {"tanh": math.tanh, "exp": math.exp, "abs": abs, "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "relu": lambda x: max(x, 0.0),
         "where": lambda c, a, b: a if c else b, "softmax": lambda x: 1.0, "layer_norm": lambda x: 0.0, "sqrt": math.sqrt, "sign": lambda x: math.copysign(1, x)}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def computed(text):
    """The value of a printed expression of numbers; None where it holds a name."""
    plain = re.sub(r"·10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda m: f"e{m[1].translate(SUPERSCRIPTS)}", text)
    plain = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: f"**{m[0].translate(SUPERSCRIPTS)}", plain).replace("^", "**")
    plain = plain.replace("·", "*").replace("−", "-").replace("≤", "<=").replace("≥", ">=")
    plain = re.sub(r"\[([^\[\],]*)\]", r"(\1)", plain)
    try:
        return float(eval(plain, {"__builtins__": {}}, NAMES))
    except (NameError, SyntaxError, TypeError):
        return None


@pytest.mark.parametrize("name", [*tr.cells.names(), *(n for n in ODD if n not in ("joined", "normalised"))])
def test_printed_arithmetic_holds(name):
    """With 15 digits each form of a line that consists of numbers has the value at its end."""
    work = tr.worked(cell_of(name), steps=3, digits=15, loss="sum", rng=2)
    lines = [line.split(" = ") for line in str(work).splitlines() if " = " in line]
    checked = 0
    for line in lines:
        if "rate" in line[0]:
            continue
        for form in line[1:-1]:
            value = computed(form)
            if value is not None:
                checked += 1
                assert value == pytest.approx(computed(line[-1]), rel=1e-9, abs=1e-13), line
    assert checked > (8 if "[" in work.cell.text.replace("[t", "") else 15)


@pytest.mark.parametrize("name", [*tr.cells.names(), *ODD])
def test_no_name_is_left_over(name):
    """After a formula stands the same with numbers: as many numbers as names, and no name."""
    names, seen = ("at", "adjoint at", "parameter", "size"), 0
    for part in tr.worked(cell_of(name), steps=3).parts:
        for _, formula, *forms in part.lines:
            if forms and any(t.kind in names for t in formula.walk()):
                put = [t.kind for t in forms[0].walk()]
                wanted = sum(t.kind in names[:3] or (t.kind == "transpose" and not t.args) for t in formula.walk())
                assert put.count("value") == wanted, (formula, forms[0])
                assert not {*put} & {*names}
                seen += 1
    assert seen > 10


def test_the_example_of_a_lecture():
    text = str(tr.worked(ELMAN, GIVEN))
    for line in ("h₁ = tanh(W·x₁ + U·h₀ + b) = tanh(0.5·1 + 0.8·0 + 0.1) = tanh(0.6) = 0.537", "L = h₃ = 0.317",
                 "∂L/∂h₃ = ∂ℓ/∂h₃ = 1", "δ₃ = ∂L/∂h₃·(1 − h₃²) = 1·(1 − 0.317²) = 0.9", "∂L/∂h₂ = U·δ₃ = 0.8·0.9 = 0.72",
                 "∂L/∂U⁽³⁾ = δ₃·h₂ = 0.9·0.91 = 0.819", "∂L/∂W = 0.0701 + 0.246 − 0.9 = −0.583", "new U = 0.8 − 0.1·0.885 = 0.711",
                 "rounded to 3 significant digits; nothing is rounded in between"):
        assert line in text
    assert "then the loss is 0.0714, before it was 0.317" in text


def test_one_word_for_one_thing():
    """A name that the cell has is not used for δ; several gates have a δ each."""
    assert "δ_1₃ = " in str(tr.worked(cell_of("delta is taken")))
    text = str(tr.worked(tr.cells.LSTM, steps=2))
    assert "δ_i is the derivative of L by what goes into the sigmoid of i; likewise δ_f, δ_g, δ_o." in text
    assert "δ_f₂ = ∂L/∂f₂·f₂·(1 − f₂) = " in text


def test_losses():
    """A function of the outputs sends what it sends; one that reads nothing moves nothing."""
    work = tr.worked(ELMAN, GIVEN, lambda outputs: ((outputs[1] - 1) ** 2).sum())
    h = np.tanh(0.5 * 2 + 0.8 * np.tanh(0.6) + 0.1)
    assert work.loss == pytest.approx((h - 1) ** 2)
    assert f"∂ℓ/∂h₂ = {rounded(2 * (h - 1), 3)}" in str(work)
    assert "∂L/∂h₃ = 0" in str(work)
    assert work.loss_after < work.loss
    nothing = tr.worked(ELMAN, GIVEN, lambda outputs: outputs[0].sum() * 0)
    assert "it reads no output" in str(nothing)
    assert nothing.loss_after == nothing.loss


def test_what_is_not_given_is_made_up():
    one, two = tr.worked(ELMAN, {"W": 0.5}, steps=2), tr.worked(ELMAN, {"W": 0.5}, steps=2, rng=1)
    assert one.before.given["W"].item() == 0.5
    assert 0 < abs(one.before.given["U"].item()) < 1
    assert str(one) == str(tr.worked(ELMAN, {"W": 0.5}, steps=2))
    assert str(one) != str(two)


# ---- forms

def test_numbers_as_they_are_printed():
    assert [rounded(x, 3) for x in (0.5366, -0.0, 1, 123456, 1.5e-7, -2e9, 0.1 + 0.2)] == [
        "0.537", "0", "1", "1.23·10⁵", "1.5·10⁻⁷", "−2·10⁹", "0.3"]
    assert arrayed(np.array([[1, -2], [0.5, 0]]), 2) == "[[1, −2], [0.5, 0]]"
    assert pretty("C_tilde[t+1]") == "C̃ₜ₊₁"


def test_a_learned_first_state_and_constants():
    text = str(tr.worked(tr.Cell("h[0]: learned\nh[t] = tanh(W @ x[t] + U @ h[t-1])"), {"W": 0.5, "U": 0.8, "x": [1], "h[0]": 0.2}))
    assert "∂L/∂h₀ = U·δ₁ = 0.8·" in text
    text = str(tr.worked(tr.Cell("c[t] = 2\nh[t] = c[t] * tanh(W @ x[t] + U @ h[t-1])"), steps=1))
    assert "c₁ = 2\n" in text


def test_forms(tmp_path):
    work = tr.worked(tr.cells.GRU, steps=2)
    for ending in ("txt", "md", "tex", "html", "ipynb"):
        work.save(tmp_path / f"w.{ending}")
    assert (tmp_path / "w.txt").read_text() == str(work)
    assert (tmp_path / "w.md").read_text() == work._repr_markdown_()
    page = (tmp_path / "w.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    ET.fromstring(re.sub("<!doctype html>|<meta [^>]*>", "", page))
    book = json.loads((tmp_path / "w.ipynb").read_text())
    assert len(book["cells"]) == len(work.parts) + 1
    assert r"\delta^{(r)}_{2}" in work.latex().replace("{}", "")
    assert repr(work).startswith("<Worked gru: 2 steps, L = ")


@needs_latex
def test_latex_takes_it(tmp_path):
    rng = np.random.default_rng(0)
    whole = tr.worked(ELMAN, {"W": rng.normal(size=(3, 2)), "x": rng.normal(size=(2, 2))})
    text = "\n".join(w.latex() for w in (tr.worked(tr.cells.LSTM, steps=2), tr.worked(ELMAN, GIVEN), whole, tr.worked(cell_of("joined"), steps=2)))
    (tmp_path / "w.tex").write_text("\\documentclass{article}\\usepackage{amsmath}\\allowdisplaybreaks\\begin{document}\n" + text + "\\end{document}\n")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "w.tex"], cwd=tmp_path, capture_output=True)
    log = (tmp_path / "w.log").read_text(errors="replace")
    assert done.returncode == 0, re.findall(r"^! .*", log, re.M)
    assert "Overfull \\hbox" not in log


@pytest.mark.parametrize(("use", "error", "message"), [
    (lambda: tr.worked("lstm"), ArgumentError, "worked takes a cell, got str"), (lambda: tr.worked(ELMAN, {"Q": 1}), ArgumentError, "nothing called 'Q'"),
    (lambda: tr.worked(ELMAN, steps=13), ArgumentError, "expected 1 to 12 steps"), (lambda: tr.worked(ELMAN, steps=True), ArgumentError, "steps=True"),
    (lambda: tr.worked(ELMAN, GIVEN, steps=2), ShapeError, "the sequence has 3 steps, steps=2"), (lambda: tr.worked(ELMAN, {"W": np.ones((7, 1))}), ArgumentError, "size h is 7"),
    (lambda: tr.worked(ELMAN, {"W": [1, 2]}), ShapeError, r"W has shape \[2\], expected \[h, x\]"), (lambda: tr.worked(ELMAN, {"W": [[1]], "U": np.ones((2, 3))}), ShapeError, "has shape .*, expected"),
    (lambda: tr.worked(ELMAN, {"x": np.ones((3, 2, 1))}), ShapeError, r"x has shape \[3,2,1\], expected \[T, x\], of one sequence"), (lambda: tr.worked(ELMAN, lr="fast"), ArgumentError, "lr='fast'"),
    (lambda: tr.worked(ELMAN, lr=float("nan")), ArgumentError, "lr=nan"), (lambda: tr.worked(ELMAN, digits=0), ArgumentError, "digits=0"), (lambda: tr.worked(ELMAN, loss="first"), ArgumentError, "loss='first'"),
    (lambda: tr.worked(ELMAN, {"x": ["a"]}), ArgumentError, "x is no array of numbers"), (lambda: tr.worked(ELMAN).save("w.pdf"), ArgumentError, r"written as \.txt"),
    (lambda: tr.worked(ELMAN, steps=1, loss=lambda y: 3.0), ArgumentError, "made of the outputs"), (lambda: tr.worked(ELMAN).save(None), ArgumentError, "the name of a file"),
    (lambda: tr.worked(tr.Cell("h[t] = exp(W @ x[t])"), {"W": 1000, "x": [1]}), ArgumentError, "L is inf"),
    (lambda: tr.worked(ELMAN, {"x": []}), ArgumentError, "steps=0"), (lambda: tr.worked(ELMAN, {"W": float("inf")}), ArgumentError, "W is not finite")])
def test_what_is_refused(use, error, message):
    with pytest.raises(error, match=message):
        use()
