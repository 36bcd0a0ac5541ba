"""Printed mathematics is evaluated: recurrences and sums give the engine's gradients, Jacobians and norms are true."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells.equations import parse_line
from tinyrnn.symbolic import published
from tinyrnn.symbolic.derivation import pages
from tinyrnn.symbolic.derivation.to_terms import block_name

from .test_prove import ODD

NAMES = list(tr.cells.names())
HARD = {
    "input called r_x": "h[t] = tanh(W @ h[t-1] + U @ r_x[t])",
    "a matrix used twice": "h[t] = tanh(W.T @ (W @ h[t-1]) + x[t])",
    "matrix state times parameter": "A[t] = 0.5 * A[t-1] + outer(x[t], x[t])\ny[t] = A[t] @ k\noutputs: y",
    "outer of a state": "A[t] = l * A[t-1] + outer(h[t-1], h[t-1])\nl: scalar\nh[t] = tanh(W @ h[t-1] + C @ x[t] + A[t] @ h[t-1])\noutputs: h",
    "fast weights": "A[t] = outer(h[t-1], x[t])\nh[t] = tanh(A[t] @ u[t])\noutputs: h",
    "delta rule": "M[t] = M[t-1] - 0.1 * outer(M[t-1] @ x[t], x[t])\ny[t] = M[t] @ u[t]\noutputs: y",
    "three parts of one size": "h[t] = tanh(W @ [h[t-1], x[t], x[t-1], x[t-2]])",
    "two lags in one matrix": "h[t] = tanh(W @ [h[t-1], h[t-2], x[t]])",
    "a part's name is taken": "h[t] = tanh(W @ [h[t-1], x[t]] + W_h @ c[t-1])\nc[t] = c[t-1] * 0.5 + h[t]\noutputs: h, c",
    "a join that is named": "z[t] = [h[t-1], x[t]]\nh[t] = tanh(W @ (z[t] * z[t]))",
    "a parameter called v": "h[t] = v * h[t-1] + x[t]",
    "a parameter called g": "y[t] = h[t] * g\nh[t] = tanh(x[t] + h[t-1])\noutputs: y",
    "gate squared": "z[t] = sigmoid(w * h[t-1] + b)\nh[t] = z[t] * z[t] * x[t] + (1 - z[t]) * (1 - z[t])",
    "state of another rank": "s[t] = mean(h[t-1])\nh[t] = tanh(w * s[t-1] + x[t])\noutputs: h, s",
    "state squared": "h[t] = tanh(W @ (h[t-1] * h[t-1]) + x[t])",
    "bias in the join": "h[t] = tanh(W @ [h[t-1], x[t], 1])",
    "division by a vector": "h[t] = h[t-1] / (1 + x[t] ** 2) + 2 ** tanh(h[t-1]) + softmax(x[t])",
    "shared": "h[t] = tanh(W @ tanh(U @ h[t-1] + V @ tanh(K @ h[t-1] + x[t])))",
    "names that a mark would take": "a_h[t] = tanh(W @ h[t-1] + x[t])\nh[t] = sigmoid(V @ a_h[t])",
    "names with underscores": "g_x[t] = tanh(W @ h[t-1] + x[t]) ** 2\nh[t] = (g_x[t] * h[t-1]) ** 2 * 1e-20 + (x[t] / (2 + h[t-1] ** 2)) ** 2",
    "relu products": "h[t] = relu(W @ h[t-1] + x[t]) * relu(V @ h[t-1] + 0.1)",
    "output of the past": "h[t] = 0.5 * h[t-1] + x[t]\ny[t] = V @ h[t-2]\noutputs: y",
}
CELLS = {**{n: tr.cells[n] for n in NAMES}, **{n: tr.Cell(t, n) for n, t in {**ODD, **HARD}.items()}}
STEPS = 4
FUNCTIONS = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0), "softplus": lambda x: np.logaddexp(0, x),
             "outer": np.multiply.outer, "sum": np.sum, "where": np.where, "maximum": np.maximum, "minimum": np.minimum,
             "max": np.max, "min": np.min, "clip": np.clip, "and": np.logical_and, "or": np.logical_or}


class Numbers:
    """The quantities of one example over some steps; everything outside them is zero."""

    def __init__(self, cell, sizes, seed=0):
        self.cell, self.sizes = cell, sizes
        d = tr.derive(cell)
        self.marks = {v: k for k, v in d._marks.items()}
        graph = cell.unroll(STEPS, sizes, gradients=True, mark=d.mark)
        rng = np.random.default_rng(seed)
        names = {f"signal {k.name} {k.step}": n for k, n in graph.labels.items() if isinstance(k.step, int)}
        both = tr.Graph({**graph.outputs, **names})
        self.given = {k: rng.normal(size=n.shape) * 0.7 for k, n in both.inputs.items()}
        run = both.run({k: self.given[k] for k in both.inputs})
        self.gradients = {k: v for k, v in run.items() if k.startswith("dloss/d")}
        self.values = {tuple(k.split()[1:]): v[0] for k, v in run.items() if k.startswith("signal ")}
        for k, v in self.given.items():
            if "[" in k:
                name, step = k.rstrip("]").split("[")
                self.values[name, step] = v if k in cell.learned else v[0]
        self.adjoints, self.extra = {}, {}

    def parameter(self, name):
        if name in self.given:
            return self.given[name]
        if name in self.cell.constants:
            return self.cell.constants[name]
        for p, shape in self.cell.parameters.items():
            columns = shape[-1].split("+") if shape else []
            for k, part in enumerate(columns):
                if len(columns) > 1 and block_name(self.cell, p, k) == name:
                    start = sum(self.size(c) for c in columns[:k])
                    return self.given[p][:, start: start + self.size(part)]
        return float(self.size(name))

    def part(self, label, total):
        for shape in (*self.cell.signals.values(), *self.cell.parameters.values()):
            columns = shape[-1].split("+") if shape else []
            widths = [self.size(c) for c in columns]
            labels = columns if len(set(columns)) == len(columns) else [str(k) for k in range(1, len(columns) + 1)]
            if sum(widths) == total and label in labels:
                k = labels.index(label)
                return slice(sum(widths[:k]), sum(widths[: k + 1]))
        raise KeyError(label)

    def size(self, name):
        return int(name) if name.isdigit() else self.sizes[name]

    def shape(self, name):
        return self.cell.signal_shape(name, self.sizes)

    def value(self, term, t):
        args = [self.value(a, t) for a in term.args]
        match term.kind:
            case "number":
                return term.value
            case "signal":
                return self.signal(term.value[0], t - term.value[1])
            case "adjoint":
                return self.adjoint(term.value[0], t - term.value[1])
            case "parameter":
                return self.parameter(term.value)
            case "variable":
                return self.tangent if term.value.startswith("v") else float(self.size(term.value))
            case "transpose":
                return np.transpose(args[0] if args else self.parameter(term.value))
            case "size":
                return float(np.prod(self.shape(term.value))) if term.value in self.cell.signals else float(self.size(term.value))
            case "negate":
                return -args[0]
            case "join":
                return np.concatenate([np.atleast_1d(a) for a in args])
            case "compare":
                return {"<": np.less, "<=": np.less_equal, "==": np.equal, "!=": np.not_equal}[term.value](*args)
            case "call" if term.value == "part":
                return args[0][self.part(term.args[1].value, len(args[0]))]
            case "call" if term.value == "zeros":
                return np.zeros(int(args[0]))
            case "call" if term.value == "diag":
                return np.diag(args[0]) if np.ndim(args[0]) else args[0]
            case "call":
                return FUNCTIONS.get(term.value, getattr(np, term.value, None))(*args)
        a, b = args
        return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b, "**": lambda: a ** b,
                "@": lambda: a @ b}[term.value]()

    def signal(self, name, t):
        if (name, t) in self.extra:
            return self.extra[name, t]
        if (name, str(t)) in self.values:
            return self.values[name, str(t)]
        beyond = np.ones if t > STEPS else np.zeros  # anything will do there: it meets an adjoint of zero
        return beyond(self.shape(name if name in self.cell.signals else self.marks[name]))

    def adjoint(self, name, t):
        if name.startswith("loss "):
            return np.ones(self.shape(name[5:])) * (1 <= t <= STEPS)
        return self.adjoints.get((name, t), np.zeros(self.shape(name if name in self.cell.signals else self.marks[name])))


def evaluated(cell, sizes=None):
    """The printed backward pass, run from the last step to the first."""
    d = tr.derive(cell)
    numbers = Numbers(cell, sizes or {s: 2 + i for i, s in enumerate(cell.sizes)})
    longest = max((k for _, k in cell.slots), default=1)
    shared = {k: f for k, f in d.recurrence.items() if f.name.kind == "signal"}
    rest = {k: f for k, f in d.recurrence.items() if f.name.kind == "adjoint"}
    for t in range(STEPS + longest, 0, -1):
        for _ in range(len(shared) + len(rest) + 1):  # shared expressions may need what is computed after them
            for k, f in shared.items():
                numbers.extra[k, t] = numbers.value(f.term, t)
            for k, f in rest.items():
                if t <= STEPS:
                    numbers.adjoints[k, t] = numbers.value(f.term, t)
    return d, numbers


@pytest.mark.parametrize("name", CELLS)
def test_printed_recurrences_give_the_engines_gradients(name):
    with np.errstate(all="ignore"):
        d, numbers = evaluated(CELLS[name])
        for p, f in d.parameters.items():
            found = sum(numbers.value(f.term, t) for t in range(1, STEPS + 1))
            np.testing.assert_allclose(found, numbers.gradients[f"dloss/d{p}"], rtol=1e-9, atol=1e-9, err_msg=f.text)
        for x, f in d.inputs.items():
            for t in range(1, STEPS + 1):
                np.testing.assert_allclose(numbers.value(f.term, t), numbers.gradients[f"dloss/d{x}[{t}]"][0], rtol=1e-9, atol=1e-9)


def block_numbers(cell, state, by, lag, seed):
    """A Jacobian block from complex step on the step graph, and the numbers it was taken at."""
    sizes = {s: 2 + i for i, s in enumerate(cell.sizes)}
    graph = cell.graph(sizes)
    rng = np.random.default_rng(seed)
    at = {k: rng.normal(size=n.shape) for k, n in graph.inputs.items()}
    columns = []
    key = f"{by}[t-{lag}]"
    for i in np.ndindex(at[key].shape):
        moved = at[key].astype(complex)
        moved[i] += 1e-30j
        y = graph.run({**at, key: moved}, domain=tr.domains.COMPLEX_STEP)[f"{state}[t]"]
        columns.append(y.imag.ravel() / 1e-30)
    return np.array(columns).T, at, sizes


@pytest.mark.parametrize("name", CELLS)
def test_printed_jacobians_are_the_derivatives_and_norms_bound_them(name):
    cell = CELLS[name]
    d = tr.derive(cell)
    for block in d.jacobian.values():
        truth, at, sizes = block_numbers(cell, block.state, block.by, block.lag, 3)
        numbers = numbers_of_a_step(cell, at, sizes)
        if any(len(numbers.shape(s)) != 1 for s in (block.state, block.by)):
            continue
        found = []
        for unit in np.eye(*[numbers.shape(block.by)[0]] * 2):
            numbers.tangent = unit
            found.append(np.broadcast_to(numbers.value(block.applied, 0), numbers.shape(block.state)))
        np.testing.assert_allclose(np.array(found).T, truth, rtol=1e-9, atol=1e-12)


def numbers_of_a_step(cell, at, sizes):
    numbers = object.__new__(Numbers)
    numbers.cell, numbers.sizes, numbers.given = cell, sizes, dict(at)
    graph = cell.graph(sizes)
    labelled = tr.Graph({k.name: n for k, n in graph.labels.items() if n.floating})
    run = labelled.run({k: at[k] for k in labelled.inputs})
    numbers.values = {(k, "0"): v[0] for k, v in run.items()}
    for k, v in at.items():
        if "[t" in k:
            name, step = k.rstrip("]").split("[t")
            numbers.values[name, str(int(step or 0))] = v[0]
    numbers.extra, numbers.adjoints, numbers.marks = {}, {}, {}
    return numbers


def upper_bound(text, numbers):
    """A printed norm, read back: sums of products of numbers, spectral norms and largest entries."""
    names = {pages.latex.name(p): p for p in numbers.cell.parameters}
    for p, shape in numbers.cell.parameters.items():
        if len(shape) == 2 and "+" in shape[1]:
            names.update({pages.latex.name(f"{p}_{part}"): f"{p}_{part}" for part in shape[1].split("+")})
    total = 0.0
    for term in text.split(" + "):
        product = 1.0
        for factor in term.split(r"\,"):
            if m := re.fullmatch(r"\\tfrac\{1\}\{(\d+)\}", factor):
                product /= int(m[1])
            elif re.fullmatch(r"[\d.e-]+", factor):
                product *= float(factor)
            elif m := re.fullmatch(r"\\left\\\|(.*)\\right\\\|", factor):
                product *= np.linalg.norm(numbers.parameter(names[m[1]]), 2)
            else:
                return None  # largest entries of expressions: not read back here
        total += product
    return total


@pytest.mark.parametrize("name", NAMES)
def test_printed_norms_are_upper_bounds(name):
    cell = CELLS[name]
    d = tr.derive(cell)
    read = 0
    for key, text in d.norms.items():
        block = d.jacobian[key]
        for seed in range(5):
            truth, at, sizes = block_numbers(cell, block.state, block.by, block.lag, seed)
            bound = upper_bound(text, numbers_of_a_step(cell, at, sizes))
            if bound is not None:
                read += 1
                assert np.linalg.norm(truth, 2) <= bound * (1 + 1e-9), text
    assert read or name not in ("rnn", "lstm_no_forget", "rnn_sigmoid")


def test_the_contract():
    d = tr.derive(tr.cells.LSTM)
    assert str(d.local["h", "o"]) == "tanh(c[t])"
    assert str(d.local["f", "a_f"]) == "f[t]*(1 - f[t])"
    assert d.recurrence["c"].text == "dL/dc[t] = dL/dc[t+1] * f[t+1] + dL/dh[t] * o[t] * (1 - tanh(c[t]) ** 2)"
    assert d.parameters["W_hf"].text == "dL/dW_hf = sum over t of outer(dL/da_f[t], h[t-1])"
    assert d.jacobian["c", "c"].text == "diag(f[t])"
    assert d.norms["c", "c"] == "1"
    assert tr.derive(tr.cells["rnn_sigmoid"]).norms["h", "h"] == r"\tfrac{1}{4}\,\left\|U\right\|"
    import sympy
    f = d.parameters["W_hf"].sympy
    assert f.shape == (sympy.Symbol("h", integer=True, positive=True),) * 2
    assert d.recurrence["c"].sympy.shape[0] == sympy.Symbol("h", integer=True, positive=True)
    assert {s.name for s in d.local["h", "c"].free_symbols} == {"c[t]", "o[t]"}


def test_the_graph_that_is_read_is_the_engines():
    """The names of gates' arguments are tags; tags change no structure."""
    d = tr.derive(tr.cells.GRU)
    from tinyrnn.symbolic.derivation.to_terms import BATCH
    from tinyrnn.symbolic.proof.prove import weighted
    plain = tr.cells.GRU.unroll(4, d._sizes, batch=BATCH, loss=weighted(tr.cells.GRU), gradients=True)
    assert d.graph.fingerprint == plain.fingerprint


def test_a_wrong_rule_shows_in_the_print():
    from .test_mutants import op_rule
    with op_rule("tanh", vjp=lambda g, y, x: g * (1 + y * y)):
        assert "1 + " in tr.derive(tr.cells.RNN).recurrence["a_h"].text
    assert "1 - " in tr.derive(tr.cells.RNN).recurrence["a_h"].text


# ---- forms

@pytest.mark.parametrize("name", CELLS)
def test_every_form_is_well_formed(name):
    from xml.etree import ElementTree

    import nbformat

    d = tr.derive(CELLS[name])
    for text in (d.latex(), d.markdown()):
        assert text.count("{") == text.count("}")
        assert text.count(r"\left") - text.count(r"\leftarrow") == text.count(r"\right")
        assert text.count(r"\begin{") == text.count(r"\end{")
    html = d.mathml()
    assert "<script" not in html
    assert "src=" not in html
    assert "href=" not in html
    for formula in re.findall(r"<math.*?</math>", html, re.S):
        ElementTree.fromstring(formula)
    nbformat.validate(nbformat.reads(d.notebook(), as_version=4))
    assert str(d)
    assert all(f.sympy is not None for f in (*d.recurrence.values(), *d.parameters.values(), *d.inputs.values()))


def test_files(tmp_path):
    d = tr.derive(tr.cells.RNN)
    for ending in ("md", "tex", "html", "ipynb"):
        d.save(tmp_path / f"rnn.{ending}")
        assert (tmp_path / f"rnn.{ending}").stat().st_size > 500
    with pytest.raises(tr.TinyRNNError, match=r"rnn.pdf: a derivation is written as .md, .tex, .html, .ipynb"):
        d.save(tmp_path / "rnn.pdf")
    with pytest.raises(tr.TinyRNNError, match="derive takes a cell, got int"):
        tr.derive(3)


def test_hostile_names_print_harmlessly(tmp_path):
    text = ("# <script>alert(1)</script> $\\input{/etc/passwd}$ `rm` [x](javascript:y) %\n"
            "# paper: <img src=x onerror=alert(1)> \\write18{ls} & # | _ ^ ~\n"
            "# note: ](http://evil) <b>*bold*\n"
            "input[t] = tanh(end_document @ x[t] + W__f_g @ input[t-1] + a_b_c_ + Ω_ω)\n")
    cell = tr.Cell(text, name='"><script>alert(2)</script>')
    d = tr.derive(cell)
    html = d.mathml()
    assert "<script" not in html
    assert "<img" not in html
    md = d.markdown()
    assert "<script" not in md
    assert "<img" not in md
    assert "](http" not in md
    tex = d.latex()
    assert r"\input{" not in tex
    assert r"\write18{" not in tex.replace(r"\textbackslash{}write18", "")
    proof = tr.prove(cell)
    assert proof.holds
    assert json.loads(proof.certificate())["text"] == cell.canonical_text()
    json.loads(d.notebook())
    assert tr.equivalent(cell, cell).holds


# ---- published derivations

PUBLISHED = {"d2l_bptt": 0, "goodfellow_2016": 0, "greff_2017": 0, "karpathy_2015": 0, "r_rnn_gru": 5, "r_rnn_lstm": 3, "r_rnn_rnn": 1}


def test_all_published_formulations_are_expected():
    assert published.names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seed", [0, 1])
def test_published_formulations(name, seed):
    report = published.check(name, seed)
    assert report.agrees == (PUBLISHED[name] == 0)
    assert report.corrected
    assert report.necessary == (True,) * PUBLISHED[name]
    assert bool(report.wrong) == bool(PUBLISHED[name])


def test_a_slip_in_a_right_formulation_is_noticed(monkeypatch):
    check = sys.modules["tinyrnn.symbolic.published.check"]
    printed = published.read("greff_2017")
    wrong = printed.backward.replace("dc[t+1] * f[t+1]", "dc[t+1] * f[t]")
    assert wrong != printed.backward
    changed = type(printed)(**{**vars(printed), "backward": wrong})
    monkeypatch.setattr(check, "read", lambda name: changed)
    assert not check.check("greff_2017").agrees


def test_a_line_may_read_ahead_but_nothing_else():
    assert parse_line("W.T @ d[t+1]").term.args[1].value == ("d", -1)
    with pytest.raises(tr.EquationError):
        tr.Cell("h[t] = h[t+1]")
    with pytest.raises(tr.EquationError):
        parse_line("__import__('os')")


def test_generated_pages_are_what_the_code_generates():
    root = Path(tr.__file__).parent.parent
    done = subprocess.run([sys.executable, root / "docs" / "build.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
