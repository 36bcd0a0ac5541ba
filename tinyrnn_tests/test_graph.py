"""The graph: interning, listings, fingerprints, networkx, labels, running, checking."""

import gc
import subprocess
import sys
from weakref import ref

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import BackendError, DTypeError, GraphError
from tinyrnn.ir import Graph, check
from tinyrnn.ir.node import fresh
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops.leaves import hole, input_node
from tinyrnn.passes import unroll

LSTM = tr.Cell("""
    f[t] = sigmoid(W_f @ [h[t-1], x[t]] + b_f)
    i[t] = sigmoid(W_i @ [h[t-1], x[t]] + b_i)
    g[t] = tanh(W_g @ [h[t-1], x[t]] + b_g)
    o[t] = sigmoid(W_o @ [h[t-1], x[t]] + b_o)
    c[t] = f[t]*c[t-1] + i[t]*g[t]
    h[t] = o[t]*tanh(c[t])
""", name="LSTM")


def test_equal_structure_is_the_same_object():
    x = input_node("x", (2,))
    assert e.tanh(x + 1.0) is e.tanh(x + 1.0)
    assert input_node("x", (2,)) is x
    assert tr.tensor([1.0]).node is not tr.tensor([1.0]).node


def test_interning_holds_nothing_alive():
    node = e.tanh(input_node("only here", (2,)) * 3.0)
    dead = ref(node)
    del node
    gc.collect()
    assert dead() is None


def test_listing():
    x = tr.input("x", (2, 3))
    g = tr.Graph({"y": tr.tanh(x @ np.ones((3, 1))).sum(axis=0)})
    assert str(g) == ("%0 f64[2,3] = input 'x'\n%1 f64[3,1] = data\n%2 f64[2,1] = matmul(%0, %1)\n"
                      "%3 f64[2,1] = tanh(%2)\n%4 f64[1] = sum(%3, axes=(0,))\ny = %4")
    step = LSTM.graph(batch=1, x=2, h=3)
    assert "# f" in str(step)
    assert "# c[2]" in str(LSTM.unroll(2))
    assert "8 states" not in str(step)


def test_fingerprint_is_structural_and_stable_between_processes():
    a, b = LSTM.unroll(3, gradients=True), LSTM.unroll(3, gradients=True)
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != LSTM.unroll(4, gradients=True).fingerprint
    code = "import tinyrnn as tr; print(tr.cells.GRU.unroll(3, gradients=True).fingerprint)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == tr.cells.GRU.unroll(3, gradients=True).fingerprint
    swapped = tr.Cell(LSTM.text.replace("W_f @ [h[t-1], x[t]]", "W_f @ [x[t], h[t-1]]"))
    assert swapped.unroll(3).fingerprint != LSTM.unroll(3).fingerprint
    x = tr.input("x", (2,))
    assert tr.Graph({"y": x * 2.0}).fingerprint != tr.Graph({"y": x * 3.0}).fingerprint
    assert tr.Graph({"y": x + np.array([1.0, 2.0])}).fingerprint == tr.Graph({"y": x + np.array([5.0, 2.0])}).fingerprint


def test_networkx_form():
    g = LSTM.unroll(2, batch=1, x=2, h=3, gradients=True)
    n = g.to_networkx()
    assert n.number_of_nodes() == len(g)
    assert n.number_of_edges() == sum(len(m.src) for m in g.nodes)
    gates = [d for _, d in n.nodes(data=True) if d["name"] == "f" and d["step"] == 2]
    assert len(gates) == 1
    assert gates[0]["op"] == "sigmoid"
    assert gates[0]["shape"] == "[1,3]"
    assert gates[0]["cell"] == "LSTM"
    products = [d for _, d in n.nodes(data=True) if d["op"] == "matmul" and d["shape"] == "[1,3]"]
    assert {d["flops"] for d in products} >= {2 * 1 * 3 * 5}
    squared = tr.input("x", (2,))
    assert tr.Graph({"y": squared * squared}).to_networkx().number_of_edges(0, 1) == 2


def test_labels_find_values():
    g = LSTM.unroll(3, gradients=True)
    assert g.find("f", step=3).op.name == "sigmoid"
    assert g.find("x", step=1).op.name == "input"
    assert g.find("h", step=2) is g.outputs["h[2]"]
    assert g.find("dloss/dc", step=2).shape == g.find("c", step=2).shape
    with pytest.raises(GraphError, match=r"no values are called 'q' at step 2.*known there: .*c.*f"):
        g.find("q", step=2)


def test_shared_parameters_are_visible_sums_over_steps():
    g = LSTM.unroll(7, gradients=True)
    for p in LSTM.parameters:
        node = g.outputs[f"dloss/d{p}"]
        assert node.op.name == "add_n"
        assert len(node.src) == 7


def test_size_grows_linearly():
    sizes = [len(LSTM.unroll(t, gradients=True)) for t in (10, 20, 30, 60)]
    per_step = (sizes[1] - sizes[0]) / 10
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    assert sizes[3] - sizes[2] == 30 * per_step
    rolled = tr.nn.LSTM(2, 3)
    loss = [rolled(np.zeros((1, t, 2), "f4"))[0].sum() for t in (5, 500)]
    assert len({len(tr.Graph({"g": tr.grad(y, rolled.weight_hh_l0)})) for y in loss}) == 1


def test_run_says_what_is_wrong():
    g = tr.Graph({"y": tr.input("x", (2,)) + tr.input("n", (2,), "int64")})
    with pytest.raises(GraphError, match="no value for input 'n'"):
        g.run({"x": [1.0, 2.0]})
    with pytest.raises(GraphError, match="no input is called 'z'; the inputs are x, n"):
        g.run({"x": [1.0, 2.0], "n": [1, 2], "z": 0})
    with pytest.raises(GraphError, match=r"'x' has shape \[3\], expected \[2\]"):
        g.run({"x": [1.0, 2.0, 3.0], "n": [1, 2]})
    with pytest.raises(DTypeError, match="'n' has dtype float64, expected int64"):
        g.run({"x": [1.0, 2.0], "n": [1.5, 2]})
    with pytest.raises(BackendError, match="no backend 'tpu'"):
        g.run({"x": [1.0, 2.0], "n": [1, 2]}, backend="tpu")
    with pytest.raises(GraphError, match="two inputs are called 'x'"):
        tr.Graph({"y": tr.input("x", (2,)).sum() + tr.input("x", (3,)).sum()}).inputs  # noqa: B018


@pytest.mark.parametrize("array", [
    np.arange(12.0).reshape(3, 4)[:, ::2].T, np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6.0)[::-1].reshape(2, 3), np.arange(6.0).reshape(2, 3).astype(">f8")], ids=["strided", "F", "negative", "big"])
def test_arrays_of_any_layout(array):
    array.flags.writeable = False
    g = tr.Graph({"y": tr.input("x", (2, 3)) * 2.0, "same": tr.input("x", (2, 3))})
    out = g.run({"x": array})
    np.testing.assert_array_equal(out["y"], 2 * array)
    out["same"][...] = -1
    assert (array >= 0).all()


def test_outputs_share_memory_with_nothing():
    x = tr.input("x", (2, 2))
    g = tr.Graph({"x": x, "again": x, "t": x.T, "b": tr.broadcast_to(x[0], (3, 2)), "s": x[:1]})
    a = np.ones((2, 2))
    out = g.run({"x": a})
    for v in out.values():
        v[...] = 7
    assert (a == 1).all()
    assert (g.run({"x": a})["again"] == 1).all()


def test_leaves_are_read_when_the_graph_runs():
    W = tr.parameter([1.0, 2.0], name="W")
    g = tr.Graph({"y": W * 2.0})
    W.assign([5.0, 6.0])
    np.testing.assert_array_equal(g.run()["y"], [10, 12])
    np.testing.assert_array_equal(g.run({"W": np.array([1.0, 1.0])})["y"], [2, 2])
    other = tr.parameter([3.0], name="W")
    assert list(tr.Graph({"y": W.sum() + other.sum()}).leaves) == ["W", "W#2"]


def test_check_finds_broken_graphs():
    x = input_node("x", (2,))
    with pytest.raises(GraphError, match="belongs to a body"):
        check(Graph({"y": x + hole((2,), x.dtype)}))
    with pytest.raises(GraphError, match="its op infers"):
        check(Graph({"y": fresh(e.tanh(x).op, (x,), (), (3,), x.dtype)}))


def test_every_pass_keeps_the_invariants():
    for name in tr.cells.names():
        check(unroll(tr.cells[name].unroll(2, gradients=True)))


def test_complex_data():
    z = tr.tensor(np.array([1 + 2j, -3j]))
    np.testing.assert_array_equal((z * z).numpy(), np.array([1 + 2j, -3j]) ** 2)
    assert tr.sigmoid(z).dtype == np.complex128
    with pytest.raises(DTypeError, match="imaginary"):
        z.astype("float64")
