"""`check`: right derivations in other forms hold, slips are found and named, and nothing but proof decides."""

import re
from functools import cache

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells.terms import Term, number, show
from tinyrnn.errors import ArgumentError, EquationError
from tinyrnn.symbolic import published
from tinyrnn.symbolic.derivation.to_terms import negated, summands, total
from tinyrnn.teaching.judge import _Student, _truths

ELMAN = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
ONE = number(1)
CELLS = {"elman": ELMAN, **{n: tr.cells[n] for n in ("lstm", "gru", "lstm_peephole", "mgu", "gru_reset_before", "jordan", "lstm_coupled")}}


@cache
def formulas(name):
    """Every line of a derivation in the language of the lines: name on the left, term."""
    student = _Student(_truths(CELLS[name], 0)[0], "")
    d = student.truth.derivation
    names = {q: n for n, q in student.names.items()}
    found = {f"{names[q]}[t] =": student.translated(student._of(q).term) for q in names if q in d.inputs or q in d.recurrence}
    return found | {f"{p}:": student.translated(f.term) for p, f in d.parameters.items()}


@pytest.mark.parametrize("name", CELLS)
def test_the_engines_own_derivation_holds(name):
    judgement = tr.check(CELLS[name], "\n".join(f"{k} {show(t)}" for k, t in formulas(name).items()))
    assert judgement.holds, str(judgement)
    assert bool(judgement)
    assert judgement.error_bound < 1e-6
    assert "does not" not in str(judgement)


@pytest.mark.parametrize("name", [n for n in published.names() if not n.startswith(("r_rnn_g", "r_rnn_l"))])  # which need one size for all
def test_published_derivations_are_judged_alike(name):
    """Backward lines of papers and blogs, where they name derivatives as `check` does."""
    printed = published.read(name)
    cell = tr.Cell(printed.cell)
    text = "\n".join([printed.backward, *(f"{p}: {text}" for p, text in printed.gradients.items() if p in cell.parameters)])
    if name == "greff_2017":  # where dz is the derivative by what goes into the function
        text = re.sub(r"\bd([zifo])\[", r"da_\1[", text)
    judgement = tr.check(cell, text)
    if published.check(name).agrees:
        assert judgement.holds, str(judgement)


# ---- other forms

def children(t, make):
    """The term with one of its parts rewritten, in every way in which `make` can."""
    new = make(t)
    if new is not None:
        yield new
    for i, a in enumerate(t.args):
        for b in children(a, make):
            yield Term(t.kind, t.value, (*t.args[:i], b, *t.args[i + 1:]))


def is_binary(t, *signs):
    return t.kind == "binary" and t.value in signs


def binary(sign, a, b):
    return Term("binary", sign, (a, b))


def call(name, *args):
    return Term("call", name, args)


FORMS = {
    "commuted": lambda t: binary(t.value, *t.args[::-1]) if is_binary(t, "+", "*") else None,
    "distributed": lambda t: binary(t.args[1].value, binary("*", t.args[0], t.args[1].args[0]), binary("*", t.args[0], t.args[1].args[1]))
    if is_binary(t, "*") and is_binary(t.args[1], "+", "-") else None,
    "a square as a product": lambda t: binary("*", t.args[0], t.args[0]) if is_binary(t, "**") else None,
    "1 - s² as (1 - s)(1 + s)": lambda t: binary("*", binary("-", ONE, t.args[1].args[0]), binary("+", ONE, t.args[1].args[0]))
    if is_binary(t, "-") and t.args[0] == ONE and is_binary(t.args[1], "**") else None,
    "s (1 - s) as s - s²": lambda t: binary("*", t.args[0].args[0], binary("-", t.args[0].args[1], binary("**", t.args[0].args[1], number(2))))
    if is_binary(t, "*") and is_binary(t.args[0], "*") and t.args[1] == binary("-", ONE, t.args[0].args[1]) else None,
    "associated": lambda t: binary("*", t.args[0].args[0], binary("*", t.args[0].args[1], t.args[1])) if is_binary(t, "*") and is_binary(t.args[0], "*") else None,
    "negated twice": lambda t: binary("-", t.args[0], Term("negate", None, (t.args[1],))) if is_binary(t, "+") else None,
    "divided": lambda t: binary("/", t.args[0], binary("/", ONE, t.args[1])) if is_binary(t, "*") and t.args[1].kind == "signal" and t.args[1].value[0][0] != "d" else None,
    "halves": lambda t: binary("*", number(2), binary("*", number(0.5), t)) if is_binary(t, "*") else None,
    "tanh by exp": lambda t: binary("/", binary("-", call("exp", t.args[0]), call("exp", negated(t.args[0]))), binary("+", call("exp", t.args[0]), call("exp", negated(t.args[0]))))
    if t.kind == "call" and t.value == "tanh" else None,
    "tanh by a sigmoid": lambda t: binary("-", binary("*", number(2), call("sigmoid", binary("*", number(2), t.args[0]))), ONE) if t.kind == "call" and t.value == "tanh" else None,
    "columns at once": lambda t: binary("@", t.args[0], binary("-", binary("+", t.args[1], t.args[1]), t.args[1])) if is_binary(t, "@") and t.args[1].kind == "signal" else None,
    "a sum in another order": lambda t: total(summands(t)[::-1]) if is_binary(t, "+") and len(summands(t)) > 2 else None}
BY_HAND = {
    "elman": ["da[t] = dh[t] * (1 - tanh(W @ x[t] + U @ h[t-1] + b) ** 2)", "da[t] = dh[t] - h[t] * h[t] * dh[t]", "da[t] = dh[t] * 4 / (exp(a_h[t]) + exp(-a_h[t])) ** 2",
              "da[t] = 4 * dh[t] * sigmoid(2 * a_h[t]) * (1 - sigmoid(2 * a_h[t]))", "dh[t] = loss_h[t] + U.T @ ((1 - h[t+1] ** 2) * dh[t+1])",
              "dh[t] = loss_h[t] + nx[t+1]\nnx[t] = U.T @ e[t]\ne[t] = (1 - h[t] * h[t]) * dh[t]", "W: outer((1 - h[t] ** 2) * dh[t], x[t])", "dx[t] = W.T @ ((1 - h[t] ** 2) * dh[t])",
              "dx[t] = (W.T @ da[t] + W.T @ da[t]) / 2", "b: dh[t] * (1 - h[t]) * (1 + h[t])", "da[t] = dh[t] * (1 - tanh(a_h[t])) * (1 + tanh(a_h[t]))",
              "dh[t] = loss_h[t] + U.T @ (dh[t+1] * (1 - tanh(W @ x[t+1] + U @ h[t] + b) ** 2))"],
    "lstm": ["da_f[t] = dc[t] * c[t-1] * (f[t] - f[t] ** 2)", "da_f[t] = dc[t] * c[t-1] * exp(-a_f[t]) / (1 + exp(-a_f[t])) ** 2", "da_i[t] = di[t] * sigmoid(a_i[t]) * sigmoid(-a_i[t])",
             "dc[t] = dh[t] * o[t] * (1 - tanh(c[t])) * (1 + tanh(c[t])) + f[t+1] * dc[t+1]", "da_o[t] = dh[t] * h[t] * (1 - o[t])", "do[t] = dh[t] * h[t] / o[t]",
             "da_g[t] = dc[t] * i[t] / 2 * 8 / (exp(a_g[t]) + exp(-a_g[t])) ** 2", "dg[t] = dc[t] * (1 / (1 + exp(-a_i[t])))", "da_i[t] = dc[t] * g[t] * i[t] ** 2 * exp(-a_i[t])"],
    "gru": ["dz[t] = -dh[t] * (n[t] - h[t-1])", "dn[t] = dh[t] - z[t] * dh[t]", "dr[t] = (W_hn @ h[t-1]) * da_n[t] + b_hn * da_n[t]", "W_hn: outer(r[t] * da_n[t], h[t-1])"],
    "mgu": ["dh[t] = loss_h[t] + (1 - f[t+1]) * dh[t+1] + v[t+1]\nv[t] = f[t] * (W_n_h.T @ da_n[t]) + W_f_h.T @ da_f[t]", "W_n: outer(da_n[t], [f[t] * h[t-1], x[t]])"]}


def equal_forms():
    """Single rewritings of every line, several of each kind for every cell, and forms by hand."""
    for name in CELLS:
        for kind, make in FORMS.items():
            found = [(f"{left} {show(new)}") for left, t in formulas(name).items() for new in children(t, make)]
            for text in found[:: max(1, len(found) // 3)][:3]:
                yield name, kind, text
    for name, texts in BY_HAND.items():
        for text in texts:
            yield name, "by hand", text


def test_right_answers_in_other_forms_hold():
    cases = list(equal_forms())
    assert len(cases) > 150
    for name, kind, text in cases:
        judgement = tr.check(CELLS[name], text)
        assert judgement.holds, (name, kind, str(judgement))


# ---- slips

def swapped(name, t):
    """Another parameter or gate of the same shape in the place of one."""
    cell = CELLS[name]
    if t.kind in ("parameter", "transpose") and not t.args and t.value in cell.parameters:
        others = [p for p, s in cell.parameters.items() if s == cell.parameters[t.value] and p != t.value]
    elif t.kind == "signal" and t.value[0] in cell.gates:
        others = [g for g in cell.gates if g != t.value[0] and cell.signals[g] == cell.signals[t.value[0]]]
    else:
        return None
    other = others[len(t.kind) % len(others)] if others else None
    return None if other is None else Term(t.kind, (other, t.value[1]) if t.kind == "signal" else other)


SLIPS = {
    "a term is missing": lambda _, t: t.args[0] if is_binary(t, "+", "-") and t.args[0] != ONE else None,
    "a sign": lambda _, t: binary("-" if t.value == "+" else "+", *t.args) if is_binary(t, "+", "-") else None,
    "no transpose": lambda name, t: Term("parameter", t.value) if t.kind == "transpose" and not t.args and len(set(CELLS[name].parameters.get(t.value, "ab"))) == 1 else None,
    "a later step": lambda _, t: Term("signal", (t.value[0], t.value[1] - 1)) if t.kind == "signal" and t.value[1] == 1 else None,
    "an earlier step": lambda _, t: Term("signal", (t.value[0], t.value[1] + 1)) if t.kind == "signal" and t.value[1] == -1 else None,
    "no square": lambda _, t: t.args[0] if is_binary(t, "**") else None,
    "a factor is missing": lambda _, t: t.args[0] if is_binary(t, "*") else None,
    "the slope of the other function": lambda _, t: binary("-", ONE, binary("**", t.args[1], number(2))) if is_binary(t, "-") and t.args[0] == ONE and t.args[1].kind == "signal" else None,
    "another parameter or gate": swapped,
    "twice": lambda _, t: binary("*", number(2), t) if is_binary(t, "@") else None,
    "no function": lambda _, t: t.args[0] if t.kind == "call" and t.value == "tanh" else None}


def planted():
    """(cell, kind, left, right line, wrong line) for every kind of slip, in several lines of every cell."""
    for name in CELLS:
        for kind, make in SLIPS.items():
            found = [(left, t, new) for left, t in formulas(name).items() for new in children(t, lambda s, m=make, n=name: m(n, s)) if new != t]
            for left, t, new in found[:: max(1, len(found) // 4)][:4]:
                yield name, kind, left, t, new


def is_circular(left, t):
    """Whether a line reads itself."""
    return any(x.kind == "signal" and f"{show(x)} =" == left for x in t.walk())


def test_planted_slips_are_named():
    """The term that is named is the one that was spoilt, or the one that went missing."""
    cases, refused = list(planted()), 0
    assert len(cases) > 220
    for name, kind, left, right, wrong in cases:
        if is_circular(left, wrong):
            with pytest.raises(EquationError, match="computed from itself"):
                tr.check(CELLS[name], f"{left} {show(wrong)}")
            refused += 1
            continue
        judgement = tr.check(CELLS[name], f"{left} {show(wrong)}")
        (line,) = judgement.lines
        assert not judgement.holds, (name, kind, left, show(right), show(wrong))
        told = (name, kind, left, show(right), show(wrong), str(line))
        assert line.words, told
        own, true = ({*map(show, summands(t))} for t in (wrong, right))
        spoilt, lost = own - true, true - own
        if line.found is not None:
            assert line.step >= 1
            assert np.abs(line.residual).max() > 0, told
        if line.wrong and len(spoilt) == 1 and line.wrong != show(wrong):
            assert line.wrong in spoilt or line.wrong in spoilt.pop(), told
        if not line.wrong:
            assert line.right in lost or len(lost) > 1, told
    assert refused < 10


@pytest.mark.parametrize(("line", "words"), [
    ("dh[t] = loss_h[t] + U @ da[t+1]", "in U @ da[t+1] stands U instead of U.T"), ("dh[t] = loss_h[t] + U.T @ da[t]", "in U.T @ da[t] stands da[t] instead of da[t+1]"),
    ("dh[t] = U.T @ da[t+1]", "loss_h[t] is missing"), ("dh[t] = loss_h[t] - U.T @ da[t+1]", "the sign of U.T @ da[t+1] is wrong"), ("dh[t] = loss_h[t] + U.T @ da[t+1] + dh[t+1]", "dh[t+1] does not belong there"),
    ("da[t] = dh[t] * (1 - h[t])", "in dh[t] * (1 - h[t]) stands 1 - h[t] instead of 1 - h[t] ** 2"), ("da[t] = dh[t] * h[t] * (1 - h[t] ** 2)", "the factor h[t] does not belong into dh[t] * h[t] * (1 - h[t] ** 2)"),
    ("da[t] = dh[t]", "the factor 1 - h[t] ** 2 is missing in dh[t]"), ("U: outer(da[t], h[t])", "in outer(da[t], h[t]) stands h[t] instead of h[t-1]"), ("b: dh[t]", "instead of dh[t] there should be da[t]"),
    ("W: outer(x[t], da[t])", "it has shape [2,3], the derivative has [3,2]; it should be outer(da[t], x[t])"), ("dx[t] = W @ da[t]", "in W @ da[t] the shapes do not fit together: W [3,2] and da[t] [3]; the line should be W.T @ da[t]"),
    ("da[t] = q[t] * (1 - h[t] ** 2)\nq[t] = loss_h[t] + U @ da[t+1]", "instead of U @ da[t+1] there should be U.T @ da[t+1]")])
def test_what_is_said_of_a_slip(line, words):
    judgement = tr.check(ELMAN, line)
    assert judgement.lines[0].words == words or "q[t]" in line, str(judgement)
    assert not judgement.lines[0].holds


def test_numbers_of_a_slip():
    (line,) = tr.check(ELMAN, "da[t] = dh[t] * (1 - h[t])").lines
    assert (line.step, line.steps) == (2, 3)
    np.testing.assert_allclose(line.residual, line.found - line.expected)
    text = str(line)
    assert text.startswith("WRONG  da[t] = dh[t] * (1 - h[t])")
    assert "at t = 2 of 3 it gives [" in text
    assert repr(tr.check(ELMAN, "da[t] = dh[t] * (1 - h[t])")) == "<Judgement of 1 lines: 1 do not hold>"


def test_every_line_is_judged_by_itself():
    """A slip in one line does not make the lines wrong that read it."""
    judgement = tr.check(ELMAN, "dh[t] = loss_h[t] + U @ da[t+1]\nda[t] = dh[t] * (1 - h[t] ** 2)  # as in class\n\nU: outer(da[t], h[t-1])")
    assert [line.holds for line in judgement.lines] == [False, True, True]
    assert [line.text for line in judgement.wrong] == ["dh[t] = loss_h[t] + U @ da[t+1]"]


def test_floats_never_decide():
    """A slip that no float can see is found, and a form that is equal only after rounding is none."""
    for more in ("1e-300 * h[t]", "1e-16 * dh[t]", "0.000001 * loss_h[t]"):
        assert not tr.check(ELMAN, f"da[t] = dh[t] * (1 - h[t] ** 2) + {more}").holds
    line = tr.check(ELMAN, "da[t] = dh[t] * (1 - h[t] ** 2) + 1e-30 * h[t]").lines[0]
    assert "could not be proved" in line.words


RELU = tr.Cell("h[t] = relu(W @ x[t] + U @ h[t-1] + b)")
JOINED = tr.Cell("h[t] = tanh(W @ [h[t-1], x[t]] + b)")


@pytest.mark.parametrize(("cell", "line", "holds"), [
    (RELU, "da[t] = where(h[t] > 0, dh[t], 0)", True), (RELU, "da[t] = dh[t]", False), (RELU, "da[t] = where(h[t] < 0.5, 0, dh[t])", False),
    (RELU, "da[t] = sign(h[t]) * dh[t]", False), (ELMAN, "da[t] = clip(dh[t] * (1 - h[t] ** 2), -1, 1)", False),
    (ELMAN, "dh[t] = loss_h[t] + maximum(U.T @ da[t+1], -5)", False), (ELMAN, "da[t] = dh[t] * (1 - h[t] ** 2) + relu(dh[t] - 3)", False),
    (ELMAN, "da[t] = dh[t] ⊙ (1 − h[t] ⊙ h[t])", True), (JOINED, "W_h: outer(da[t], h[t-1])", True), (JOINED, "W_h: outer(da[t], h[t])", False),
    (tr.Cell("u: scalar\nw: scalar\nh[t] = relu(u * h[t-1] + w * sum(x[t]))"), "da[t] = dh[t]", False)])
def test_a_branch_is_judged_on_both_sides(cell, line, holds):
    """A slip shows at some numbers only, as the branch that is right by chance, or a bound that is seldom met."""
    for rng in range(4):
        assert tr.check(cell, line, rng=rng).holds is holds


@pytest.mark.parametrize(("text", "line", "holds"), [
    ("h[t] = maximum(W @ x[t], U @ h[t-1])", "dh[t] = loss_h[t] + U.T @ where(U @ h[t] < W @ x[t+1], 0, dh[t+1])", True),
    ("h[t] = relu(W @ x[t] + U @ h[t-1] + b)", "dh[t] = loss_h[t] + U.T @ where(h[t+1] > 0, dh[t+1], 0)", True),
    ("h[t] = relu(W @ x[t] + U @ h[t-1] + b)", "dh[t] = loss_h[t] + U.T @ where(h[t] > 0, dh[t+1], 0)", False),
    ("h[t] = relu(W @ x[t] + U @ h[t-1] + b)", "dh[t] = loss_h[t] + U.T @ dh[t+1]", False),
    ("h[t] = sign(x[t]) * tanh(U @ h[t-1])", "dh[t] = loss_h[t] + U.T @ (sign(x[t+1]) * dh[t+1] * (1 - tanh(U @ h[t]) ** 2))", True)])
def test_a_branch_of_the_next_step(text, line, holds):
    """Beyond the last step the cell decides nothing."""
    assert tr.check(tr.Cell(text), line).holds is holds


def test_large_floats_say_nothing():
    line = tr.check(tr.Cell("h[t] = softplus(W @ x[t])"), "da[t] = dh[t] * (1 - exp(-h[t]))").lines[0]
    assert line.undecided


def test_what_is_not_proved_does_not_hold():
    judgement = tr.check(ELMAN, "dh[t] = loss_h[t] + maximum(U.T @ da[t+1], -5)")
    assert judgement.lines[0].undecided
    assert "NOT PROVED  dh[t]" in str(judgement)
    assert "by numbers by which the cell does not" in judgement.lines[0].words


def test_cells_with_more_than_one_lag_and_learned_states():
    cell = tr.Cell("h[0]: learned\nh[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2])\ny[t] = Q @ h[t] + d\noutputs: y")
    good = "dh[t] = Q.T @ loss_y[t] + U.T @ da[t+1] + V.T @ da[t+2]\nV: outer(da[t], h[t-2])\nQ: outer(loss_y[t], h[t])\nd: loss_y[t]\ndy[t] = loss_y[t]"
    assert tr.check(cell, good).holds
    assert not tr.check(cell, good.replace("da[t+2]", "da[t+1]")).holds
    delayed = tr.Cell("h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1])")
    assert tr.check(delayed, "dx[t] = W.T @ da[t] + V.T @ da[t+1]").holds
    scaled = tr.Cell("u: scalar\nh[t] = tanh(u * h[t-1] + W @ x[t])")
    assert tr.check(scaled, "u: sum(da[t] * h[t-1])\ndh[t] = loss_h[t] + u * da[t+1]").holds


@pytest.mark.parametrize(("text", "message"), [
    ("", "there is no line"), ("dq[t] = 1", r"dq\[t\] is no derivative of a quantity"), ("dh[t] = dh[t]", r"dh\[t\] is computed from itself"), ("dh[t] = da[t]\nda[t] = dh[t]", "is computed from itself"),
    ("dh[t] = da[t-1]", r"da\[t-1\] belongs to an earlier step"), ("dh[t] = Q @ da[t+1]", "no parameter 'Q'"), ("dh[t] =", "nothing is said of dh"), ("Wx: 1", "no parameter 'Wx'; did you mean 'W'"),
    ("foo", r"expected dh\[t\] = \.\.\. for a derivative"), ("dh[t] = qq[t]", r"qq\[t\] is neither a quantity of cell"), ("dh[t] = 1\ndh[t] = 2", "dh is given twice"), ("dh[t] = dh[t+1] @", "the line ends with '@'"),
    ("h[t] = x[t]\ndh[t] = loss_h[t]", r"h\[t\]"), ("dh[t] = __import__('os')", "line 1"), ("dh[t] = " + "(" * 300 + "1" + ")" * 300, "more than 200 operators"), ("dh[t] = w[t]\nw[t] = [w[t+1], h[t]]", r"w\[t\] has no shape"),
    ("da[t] = " + " * ".join(["(U @ h[t])"] * 4000), "more than 200 operators")])
def test_what_is_no_derivation(text, message):
    with pytest.raises(EquationError, match=message):
        tr.check(ELMAN, text)


def test_where_a_mistake_stands():
    with pytest.raises(EquationError) as caught:
        tr.check(ELMAN, "da[t] = dh[t] * (1 - h[t] ** 2)\ndh[t] = loss_h[t] + U.T da[t+1]")
    assert caught.value.line == 2
    assert "dh[t] = loss_h[t] + U.T da[t+1]\n                            ^" in str(caught.value)


@pytest.mark.parametrize("arguments", [("lstm", "dh[t] = 1"), (ELMAN, 3), (ELMAN, ["dh[t] = 1"])])
def test_what_is_no_cell_and_no_text(arguments):
    with pytest.raises(ArgumentError):
        tr.check(*arguments)
