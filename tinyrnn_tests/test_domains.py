"""The hook for numbers of other kinds: SymPy, a finite field and path counting run through the same graphs."""

import numpy as np
import pytest
import sympy

import tinyrnn as tr
from tinyrnn.domains import COMPLEX_STEP, FLOAT, Domain
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.passes import jvp

PRIME = 2**61 - 1


class Objects(Domain):
    """Arrays of Python objects that add and multiply."""

    def element(self, value):
        raise NotImplementedError

    def enter(self, value, dtype):
        array = np.asarray(value)
        if dtype.kind not in "fc" or array.dtype == object:
            return array
        out = np.empty(array.shape, object)
        for i in np.ndindex(array.shape):
            out[i] = self.element(float(array[i]))
        return out

    def zeros(self, shape, like):
        return self.enter(np.zeros(shape), np.dtype(float))

    def buffer(self, shape, dtype):
        return np.empty(shape, object)

    def matmul(self, a, b):
        return np.asarray(np.matmul(a, b))

    def sum(self, x, axes, keepdims):
        return np.asarray(np.sum(x, axis=axes, keepdims=keepdims), object)


class Modular:
    """A number modulo 2^61 - 1."""

    __slots__ = ("v",)

    def __init__(self, v):
        self.v = v % PRIME

    def __add__(self, other):
        return Modular(self.v + value(other))

    def __sub__(self, other):
        return Modular(self.v - value(other))

    def __rsub__(self, other):
        return Modular(value(other) - self.v)

    def __mul__(self, other):
        return Modular(self.v * value(other))

    def __neg__(self):
        return Modular(-self.v)

    __radd__, __rmul__ = __add__, __mul__


def value(x):
    return x.v if isinstance(x, Modular) else int(x)


class Field(Objects):
    """GF(2^61 - 1); an activation's output is a keyed hash of its argument."""

    name = "GF(2^61-1)"

    def element(self, v):
        assert v.is_integer()
        return Modular(int(v))

    def activation(self, key, x):
        return np.vectorize(lambda e: Modular(hash((key, e.v))), otypes=[object])(x)

    def tanh(self, x):
        return self.activation("tanh", x)

    def sigmoid(self, x):
        return self.activation("sigmoid", x)


class Symbols(Objects):
    """SymPy expressions."""

    name = "sympy"

    def element(self, v):
        return sympy.Integer(int(v)) if v.is_integer() else sympy.Rational(v)

    def tanh(self, x):
        return np.vectorize(sympy.tanh, otypes=[object])(x)


def test_lstm_gradient_is_the_transpose_of_its_tangent_in_a_finite_field():
    """<gradient, u> = tangent along u, exactly, at a random point: every entry of every gradient at once."""
    graph = tr.cells.LSTM.unroll(4, batch=1, x=2, h=3, gradients=True)
    rng = np.random.default_rng(0)
    draw = lambda shape: np.vectorize(lambda _: Modular(int(rng.integers(PRIME))), otypes=[object])(np.zeros(shape))
    given = {k: draw(n.shape) for k, n in graph.inputs.items()}
    along = {k: draw(n.shape) for k, n in graph.inputs.items()}
    tangents = {n: input_node(f"along {k}", n.shape) for k, n in graph.inputs.items()}
    moved = Graph({"d": jvp([graph.outputs["loss"]], tangents)[0]})
    d = moved.run({**given, **{f"along {k}": v for k, v in along.items()}}, domain=Field())["d"].item()
    found = graph.run(given, domain=Field())
    inner = sum((np.sum(found[f"dloss/d{k}"] * along[k]) for k in along), Modular(0))
    assert inner.v == d.v
    wrong = {**found, "dloss/dW_hf": found["dloss/dW_hf"] + Modular(1)}
    assert sum((np.sum(wrong[f"dloss/d{k}"] * along[k]) for k in along), Modular(0)).v != d.v


def test_gradient_of_an_elman_cell_is_sympys():
    cell = tr.cells["rnn"]
    graph = cell.unroll(2, batch=1, x=1, h=1, gradients=True)
    symbols = {k: np.full(n.shape, sympy.Symbol(k, real=True), object) for k, n in graph.inputs.items()}
    out = {k: v.item() for k, v in graph.run(symbols, domain=Symbols()).items()}
    point = {s.item(): sympy.Rational(7 + 3 * i, 10) for i, s in enumerate(symbols.values())}
    for k, s in symbols.items():
        difference = sympy.diff(out["loss"], s.item()) - out[f"dloss/d{k}"]
        assert abs(difference.subs(point).evalf(50)) < 1e-45


class Paths(Objects):
    """Numbers count the ways from the inputs to here."""

    name = "paths"

    def element(self, v):
        return 1

    def add(self, a, b):
        return np.add(a, b)

    def mul(self, a, b):
        return np.add(a, b)

    def tanh(self, x):
        return x


def test_a_domain_is_asked_by_the_ops_name_first():
    x = tr.input("x", (1,))
    assert tr.Graph({"y": tr.tanh(x) * x + x}).run({"x": [5.0]}, domain=Paths())["y"].item() == 3


def test_domains_keep_to_their_kinds():
    g = tr.Graph({"y": tr.where(tr.input("m", (2,), bool), tr.input("x", (2,)), 0.0)})
    v = {"m": np.array([True, False]), "x": np.array([2.0, 3.0])}
    assert g.run(v, domain=FLOAT)["y"].dtype == np.float64
    assert g.run(v, domain=COMPLEX_STEP)["y"].dtype == np.complex128


def test_mistakes():
    with pytest.raises(tr.TinyRNNError, match="domain='sympy': expected an object"):
        tr.Graph({"y": tr.tensor(1.0)}).run({}, domain="sympy")
    with pytest.raises(tr.TinyRNNError, match="'GF\\(2\\^61-1\\)' does not say what 'exp' is"):
        tr.Graph({"y": tr.exp(tr.input("x", (1,)))}).run({"x": [1.0]}, domain=Field())
