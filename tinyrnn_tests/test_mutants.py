"""Planted bugs.  Each must be noticed by a check that the other tests rely on; a survivor is a hole in the net."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells import variants
from tinyrnn.ir import Graph
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import linear, structure
from tinyrnn.ir.ops.leaves import full, input_node
from tinyrnn.ir.scan import scan
from tinyrnn.passes import grad, unroll
from tinyrnn.passes.ad import adjoint, control

from . import goldens
from .oracles import check_function, check_unrolled_cell


@contextmanager
def op_rule(name, **facets):
    """An op of the catalogue with another rule."""
    op = CATALOGUE[name]
    before = {k: getattr(op, k) for k in facets}
    try:
        for k, v in facets.items():
            object.__setattr__(op, k, v)
        yield
    finally:
        for k, v in before.items():
            object.__setattr__(op, k, v)


@contextmanager
def patched(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


RECORDS = goldens.read()
LSTM, GRU = tr.cells.LSTM, tr.cells.GRU


def lstm_check():
    goldens.check_layer("LSTM-1", RECORDS["LSTM-1"])


def gru_check():
    goldens.check_layer("GRU-3-bi-ragged", RECORDS["GRU-3-bi-ragged"])


def cell_check():
    check_unrolled_cell(LSTM, 3, x=2, h=3)
    check_unrolled_cell(GRU, 3, x=2, h=3)


def scan_check():
    check_function(lambda s, x, W: scan(lambda a, b: ([e.tanh(a[0] @ W + b[0])], [e.sin(a[0])]), [s], [x])[1][0],
                   {"s": (2, 3), "x": (4, 2, 3), "W": (3, 3)})


def sharing_check():
    check_function(lambda a, b: (a + b) * (a - b) * a, {"a": (2, 3), "b": (2, 3)})


def unroll_check():
    nodes = {"s": input_node("s", (2, 3)), "x": input_node("x", (4, 2, 3)), "W": input_node("W", (3, 3))}
    y = scan(lambda a, b: ([e.tanh(a[0] @ nodes["W"] + b[0])], []), [nodes["s"]], [nodes["x"]])[0][0]
    graph = Graph({"d": grad(linear.sum_(y), [nodes["W"]])[0]})
    values = {k: np.random.default_rng(0).normal(size=n.shape) for k, n in nodes.items()}
    np.testing.assert_array_equal(unroll(graph).run(values)["d"], graph.run(values)["d"])


def mask_check():
    goldens.check_layer("LSTM-1-ragged", RECORDS["LSTM-1-ragged"])


def with_text(cell, old, new):
    """The zoo's cell with one change in its equations."""
    assert old in cell.text
    return tr.Cell(cell.text.replace(old, new), cell.name)


def layer_of(text):
    """The torch-compatible layers built on a changed cell."""
    return patched(variants if text.name == LSTM.name else tr.nn.packed, "get", lambda name: text)


def layout_of(gates, original=tr.nn.packed.Packed._layout):
    """Packed arrays whose rows are taken for other gates."""
    return patched(tr.nn.packed.Packed, "_layout", lambda self, _: original(self, gates))


def drop_bias(self, where, original=tr.nn.packed.Packed.cell_weights):
    found = original(self, where)
    return {k: full(0, n.shape, n.dtype) if k == "b_hn" else n for k, n in found.items()}


def shifted_trace(node, expression, original=control.trace):
    return structure.flip(original(node, expression), 0)


MUTANTS = {
    "gates swapped in the packed weights": (lambda: layout_of("figo"), lstm_check),
    "gates of the GRU swapped": (lambda: layout_of("zrn"), gru_check),
    "forget and input gate swapped in the equation":
        (lambda: layer_of(with_text(LSTM, "f[t] * c[t-1] + i[t] * g[t]", "i[t] * c[t-1] + f[t] * g[t]")), lstm_check),
    "bias dropped": (lambda: patched(tr.nn.packed.Packed, "cell_weights", drop_bias), gru_check),
    "bias dropped in the equation": (lambda: layer_of(with_text(GRU, " + b_hn)", " + 0 * b_hn)")), gru_check),
    "reset before instead of after":
        (lambda: layer_of(with_text(GRU, "r[t] * (W_hn @ h[t-1] + b_hn)", "W_hn @ (r[t] * h[t-1]) + b_hn")), gru_check),
    "update gate the other way":
        (lambda: layer_of(with_text(GRU, "(1 - z[t]) * n[t] + z[t] * h[t-1]", "z[t] * n[t] + (1 - z[t]) * h[t-1]")), gru_check),
    "wrong sign in a tanh": (lambda: op_rule("tanh", vjp=lambda g, y, x: g * (1 + y * y)), cell_check),
    "wrong sign in a difference": (lambda: op_rule("sub", vjp=lambda g, y, a, b: (g, g)), cell_check),
    "sigmoid's slope squared": (lambda: op_rule("sigmoid", vjp=lambda g, y, x: g * y * y), cell_check),
    "product's operands confused": (lambda: op_rule("mul", vjp=lambda g, y, a, b: (g * a, g * b)), cell_check),
    "product not transposed": (lambda: op_rule("matmul", vjp=lambda g, y, a, b: (
        linear.matmul(g, b) if g.shape[-1] == b.shape[0] and a.shape[-1] == b.shape[-1] else linear.matmul(g, linear.swap_last(b)),
        linear.matmul(linear.swap_last(a), g))), scan_check),
    "a tiny relative error": (lambda: op_rule("tanh", vjp=lambda g, y, x: g * (1 - y * y) * (1 + 1e-9)), cell_check),
    "off by one in time: residuals of another step": (lambda: patched(control, "trace", shifted_trace), scan_check),
    "off by one in time: the state read too late":
        (lambda: layer_of(with_text(LSTM, "h[t] = o[t] * tanh(c[t])", "h[t] = o[t] * tanh(c[t-1])\noutputs: h")), lstm_check),
    "backward scan in the wrong direction":
        (lambda: patched(control, "make_scan", lambda b, i, x, c, r, *rest, make=control.make_scan: make(b, i, x, c, not r, *rest)),
         scan_check),
    "accumulation over uses missing": (lambda: patched(adjoint, "add_n", lambda parts: parts[-1]), sharing_check),
    "accumulation over steps missing in the unrolled graph":
        (lambda: patched(sys.modules["tinyrnn.passes.unroll"], "add_n", lambda parts: parts[0]), unroll_check),
    "accumulation over steps missing in the scan":
        (lambda: patched(control, "close", lambda h, outs, traced=(), original=control.close: original(
            h, [o.src[1] if o.op.name == "add" and o.src[0].op.name == "hole" else o for o in outs], traced)), scan_check),
    "broadcasting not undone": (lambda: patched(adjoint, "sum_to", lambda g, shape: linear.broadcast_to(
        linear.reshape(linear.sum_(g), (1,) * len(shape)), shape)), cell_check),
    "lengths ignored": (lambda: patched(tr.nn.packed, "time_mask", lambda *a: None), mask_check),
    "lengths one too long": (lambda: patched(tr.nn.packed, "time_mask", lambda t, b, lengths, *a, f=tr.nn.packed.time_mask:
                                             f(t, b, np.minimum(lengths + 1, t), *a)), mask_check),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bug_is_noticed(name):
    plant, check = MUTANTS[name]
    check()
    with plant(), pytest.raises((AssertionError, tr.TinyRNNError, ValueError)):
        check()
    check()
