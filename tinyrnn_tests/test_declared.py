"""What users add, an op or a layer, works in every room; what is declared wrongly is refused with what is wrong."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, GraphError
from tinyrnn.functions import FUNCTIONS
from tinyrnn.ir.node import OPERATORS
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops.elementwise import ACTIVATES, SATURATES, binary, sqrt, unary


@pytest.fixture
def forgotten():
    """Ops that a test declares are gone after it."""
    tables = (CATALOGUE, FUNCTIONS, OPERATORS)
    before = [set(t) for t in tables]
    yield
    for table, known in zip(tables, before, strict=True):
        for name in set(table) - known:
            del table[name]


@pytest.mark.usefixtures("forgotten")
def test_an_op_of_two_operands():
    binary("addmul", lambda m, a, b: a * b + a, lambda g, y, a, b: (g * b + g, g * a), flops=2, doc="`a b + a`.")
    cell = tr.Cell("h[t] = tanh(addmul(W @ x[t], U @ h[t-1]))")
    assert tr.prove(cell).holds
    assert tr.prove(tr.cells.RNN).holds, "a new op's own example is right"
    assert "addmul" in str(tr.derive(cell))
    layer = tr.nn.Recurrent(cell, x=2, h=3, rng=0)
    x = np.ones((2, 4, 2), "float32")
    runs = [tr.compile(lambda x: layer(x)[0], backend=b)(x) for b in ("numpy", "cpu")]
    np.testing.assert_allclose(*runs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("traits", [SATURATES, ACTIVATES])
@pytest.mark.usefixtures("forgotten")
def test_the_derivation_of_a_declared_activation(traits):
    unary("isru", lambda m, x: x / m.sqrt(1 + x * x), lambda g, y, x: g / ((1 + x * x) * sqrt(1 + x * x)), flops=8,
          traits=traits, at_zero=0, doc="`x / √(1 + x²)` (Carlile et al., 2017).")
    derivation = tr.derive(tr.Cell("h[t] = isru(W @ x[t] + U @ h[t-1])"))
    assert "dh[t]/dh[t-1]" in str(derivation)


@pytest.mark.usefixtures("forgotten")
def test_a_wrong_gradient_of_a_declared_op_is_seen():
    unary("wrong", lambda m, x: x * x + x, lambda g, y, x: g * 2 * x, traits=SATURATES, flops=3, doc="`x² + x`.")
    cell = tr.Cell("h[t] = wrong(W @ x[t] + U @ h[t-1])")
    with pytest.raises(tr.ProofError):
        tr.prove(cell)
    with pytest.raises(tr.ProofError):
        str(tr.derive(cell))


@pytest.mark.parametrize("name", ["draw", "Cell", "nn", "mean", "T", "if", "inputs", "inf", "2x", "not valid", "__init__", "", "tanh"])
@pytest.mark.usefixtures("forgotten")
def test_names_that_are_taken(name):
    before = set(CATALOGUE)
    with pytest.raises(GraphError, match=r"name|declared twice"):
        unary(name, lambda m, x: x * x, lambda g, y, x: 2 * g * x, doc="`x²`.")
    assert set(CATALOGUE) == before


@pytest.mark.usefixtures("forgotten")
def test_what_an_op_says_of_itself_is_checked():
    fz = unary("fz", lambda m, x: x * x + 1, lambda g, y, x: g * 2 * x, at_zero=0, flops=3, doc="`x² + 1`.")
    assert fz

    def padded(x, lengths):
        return (tr.fz(tr.where(np.arange(3)[None, :] < np.array([[3], [1]]), x, 0.0)) * x).sum(1)

    with pytest.raises(GraphError, match="at_zero=0, and its formula gives 1 at 0"):
        tr.leaks(padded, [3, 1], np.ones((2, 3)))
    with pytest.raises(GraphError, match="symmetry 'anti': expected odd, even, complement, or None"):
        unary("fy", lambda m, x: x * x, lambda g, y, x: g * 2 * x, symmetry="anti", doc="`x²`.")


@pytest.mark.usefixtures("forgotten")
def test_a_gradient_with_too_few_adjoints():
    half = binary("half", lambda m, a, b: a * b, lambda g, y, a, b: g * b, doc="`a b`.")
    assert half
    with pytest.raises(GraphError, match="the gradient of op 'half' gives 1 adjoints for 2 operands: expected one for each"):
        tr.prove(tr.Cell("h[t] = half(W @ x[t], U @ h[t-1])"))


# ---- layers

class Inner(tr.nn.Module):
    def __init__(self):
        self.cell = tr.nn.GRU(4, 5, rng=0)

    def __call__(self, x):
        return self.cell(x)[0]


def test_an_attribute_called_cell_that_is_a_layer():
    model, x = Inner(), np.ones((2, 3, 4))
    assert "GRU" in model.draw().svg
    assert list(tr.xray(model, x).layers) == ["cell.l0"]
    assert "<svg" in tr.page(model, x=x).html


@pytest.mark.parametrize("name", ["places", "leaves", "example", "subject", "wiring", "options", "one_line", "built", "time_first"])
def test_attributes_that_hide_what_a_layer_is_asked_for(name):
    with pytest.raises(ArgumentError, match=f"a layer is asked for its {name}.*give the attribute another name"):
        setattr(tr.nn.Module(), name, 3)


def test_loadable_takes_a_class_again_and_no_other():
    source = "@tr.nn.loadable\nclass Again(tr.nn.Module):\n    def config(self):\n        return {}\n"
    space = {"tr": tr, "__name__": "__main__"}
    try:
        exec(source, space)
        exec(source, space)
        assert tr.nn.module.KINDS["Again"] is space["Again"]
        with pytest.raises(ArgumentError, match="there is a layer Again already"):
            exec(source, {"tr": tr, "__name__": "elsewhere"})
    finally:
        tr.nn.module.KINDS.pop("Again", None)
    for wrong in (int, "x", Inner):
        with pytest.raises(ArgumentError, match="loadable takes a class of layers that says how to build one again"):
            tr.nn.loadable(wrong)


def test_a_class_in_place_of_a_layer():
    x = np.ones((2, 3, 4))
    for look in (tr.draw, lambda m: tr.xray(m, x), lambda m: tr.analyze(m, x), lambda m: tr.page(m, x=x)):
        with pytest.raises(ArgumentError, match=r"takes a cell.*got type"):
            look(tr.nn.GRU)
    for use, who in ((lambda m: tr.train.fit(m, x, x, optimizer=tr.optim.SGD(0.1)), "fit"), (lambda m: tr.train.predict(m, x), "predict"),
                     (lambda m: tr.train.evaluate(m, x, x), "evaluate"), (lambda m: tr.train.generate(m, [1], 2), "generate")):
        with pytest.raises(ArgumentError, match=f"{who} takes a layer or a model, got the class GRU"):
            use(tr.nn.GRU)
        with pytest.raises(ArgumentError, match=f"{who} takes a layer or a model, got str"):
            use("gru")


def test_a_wiring_that_gives_nothing():
    class Nothing(tr.nn.Module):
        def wiring(self, name, reads, into):
            pass

    with pytest.raises(ArgumentError, match=r"Nothing\.wiring gives NoneType"):
        Nothing().draw()
