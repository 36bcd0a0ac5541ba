"""Every cell: all gradients against complex step, second order, unrolled against rolled, one step at a time."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.ir.ops.linear import sum_
from tinyrnn.passes import grad, jvp, unroll

from .oracles import TOLERANCE, along, check_unrolled_cell, random_inputs
from .test_equations import GOOD

ZOO = tr.cells.names()
CELLS = {**{n: tr.cells[n] for n in ZOO}, **{n: tr.Cell(t, n) for n, t in GOOD.items()}}


def sizes_of(cell):
    return {s: 2 + i for i, s in enumerate(cell.sizes)}


@pytest.mark.parametrize("name", CELLS)
def test_gradients_against_complex_step(name):
    cell = CELLS[name]
    check_unrolled_cell(cell, 4, **sizes_of(cell))


@pytest.mark.parametrize("name", CELLS)
def test_second_order_against_complex_step(name):
    """The gradient's derivative along a random direction: forward over reverse against complex step of reverse."""
    cell = CELLS[name]
    graph = cell.unroll(3, batch=2, gradients=True, **sizes_of(cell))
    values = random_inputs(graph, rng=11, scale=0.5)
    rng = np.random.default_rng(4)
    directions = {k: rng.normal(size=v.shape) for k, v in values.items()}
    names = [k for k in graph.outputs if k.startswith("dloss/d")]
    tangents = {graph.inputs[k]: input_node(f"along {k}", v.shape) for k, v in directions.items()}
    forward = Graph(dict(zip(names, jvp([graph.outputs[k] for k in names], tangents), strict=True)))
    given = {**values, **{f"along {k}": v for k, v in directions.items()}}
    found = forward.run({k: v for k, v in given.items() if k in forward.inputs})
    expected = along(graph, values, directions)
    scale = max(np.abs(expected[k]).max() for k in names)
    for k in names:
        assert np.abs(found[k] - expected[k]).max() <= TOLERANCE * scale, k


@pytest.mark.parametrize("name", CELLS)
def test_step_scan_and_unrolled_agree(name):
    """A layer over T steps, the same layer one step at a time, and the unrolled graph."""
    cell = CELLS[name]
    sizes, T, B = sizes_of(cell), 4, 3
    fixed = {p: np.random.default_rng(0).normal(size=cell.shapes(sizes)[p]) for p in cell.fixed}
    layer = tr.nn.Recurrent(cell, sizes, dtype="float64", rng=1, fixed=fixed)
    rng = np.random.default_rng(2)
    xs = {n: rng.normal(size=(B, T, *cell.signal_shape(n, sizes))) for n in cell.inputs}
    y, state = layer(xs)
    out = y if isinstance(y, dict) else {cell.outputs[0]: y}
    stream, parts = None, []
    for t in range(T):
        step, stream = layer.step({n: x[:, t] for n, x in xs.items()}, stream)
        parts.append(step if isinstance(step, dict) else {cell.outputs[0]: step})
    for n in cell.outputs:
        np.testing.assert_array_equal(np.stack([p[n].numpy() for p in parts], 1), out[n].numpy())
    for a, b in zip(state, stream, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())

    graph = cell.unroll(T, sizes, batch=B)
    given = layer.state_dict()
    given |= {f"{n}[{t + 1}]": x[:, t] for n, x in xs.items() for t in range(T)}
    given |= {k: np.zeros(node.shape) for k, node in graph.inputs.items() if k not in given}
    values = graph.run({k: v for k, v in given.items() if k in graph.inputs})
    for n in cell.outputs:
        for t in range(T):
            np.testing.assert_allclose(values[f"{n}[{t + 1}]"], out[n].numpy()[:, t], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["lstm", "gru", "lag 2", "mLSTM", "delayed input"])
def test_continued_state_is_one_sequence(name):
    cell = CELLS[name]
    sizes = sizes_of(cell)
    layer = tr.nn.Recurrent(cell, sizes, dtype="float64", rng=1)
    x = np.random.default_rng(2).normal(size=(3, 6, sizes["x"]))
    y, state = layer(x)
    first, middle = layer(x[:, :2])
    second, last = layer(x[:, 2:], middle)
    np.testing.assert_array_equal(np.concatenate([first.numpy(), second.numpy()], 1), y.numpy())
    for a, b in zip(state, last, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lag 2", "mLSTM", "delayed input", "two inputs"])
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_are_rows_run_alone(name, reverse):
    """Mixed, full, 1 and 0: outputs, states and gradients equal each row's own run."""
    cell = CELLS[name]
    sizes, lengths = sizes_of(cell), [5, 3, 1, 0]
    layer = tr.nn.Recurrent(cell, sizes, dtype="float64", rng=1, reverse=reverse)
    rng = np.random.default_rng(3)
    xs = {n: rng.normal(size=(4, 5, *cell.signal_shape(n, sizes))) for n in cell.inputs}
    y, state = layer(xs, lengths=lengths)
    weight = rng.normal(size=y.shape)
    total = (y * weight).sum()
    for s in state:
        total = total + (s * s).sum()
    expected = {p: np.zeros(t.shape) for p, t in layer.weights.items()}
    for i, n in enumerate(lengths):
        if n == 0:
            assert not y.numpy()[i].any()
            assert not any(s.numpy()[i].any() for s in state)
            continue
        own, end = layer({k: x[i : i + 1, :n] for k, x in xs.items()})
        np.testing.assert_allclose(y.numpy()[i, :n], own.numpy()[0], rtol=1e-13, atol=1e-14)
        assert not y.numpy()[i, n:].any()
        for s, e in zip(state, end, strict=True):
            np.testing.assert_allclose(s.numpy()[i], e.numpy()[0], rtol=1e-13, atol=1e-14)
        loss = (own * weight[i : i + 1, :n]).sum()
        for e in end:
            loss = loss + (e * e).sum()
        for p, g in tr.grad(loss, layer.weights).items():
            expected[p] = expected[p] + g.numpy()
    for p, g in tr.grad(total, layer.weights).items():
        np.testing.assert_allclose(g.numpy(), expected[p], rtol=1e-12, atol=1e-13)


def test_holes_in_a_mask_are_skipped_steps():
    layer = tr.nn.Recurrent(tr.cells.LSTM, x=2, h=3, dtype="float64", rng=0)
    x = np.random.default_rng(0).normal(size=(2, 5, 2))
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], bool)
    y, state = layer(x, mask=mask)
    for i in range(2):
        own, end = layer(x[i : i + 1, mask[i]])
        np.testing.assert_allclose(y.numpy()[i, mask[i]], own.numpy()[0], rtol=1e-14)
        assert not y.numpy()[i, ~mask[i]].any()
        np.testing.assert_allclose(state[1].numpy()[i], end[1].numpy()[0], rtol=1e-14)


def test_the_zoo_states_its_sources():
    for name in ZOO:
        cell = tr.cells[name]
        assert cell.title
        assert cell.citation
        assert cell.notes
        assert cell._header("year:").isdigit()
        assert tr.Cell(cell.text) == cell
    with pytest.raises(tr.TinyRNNError, match="there is no cell 'lstn'; the cells are"):
        tr.cells["lstn"]
    assert tr.cells.LSTM is tr.cells["lstm"]


def test_initial_values():
    cell = tr.cells["lstm_peephole"]
    w = cell.init(x=7, h=5, rng=0)
    block = w["W_f"][:, :5]
    np.testing.assert_allclose(block @ block.T, np.eye(5), atol=1e-12)
    assert not w["b_f"].any()
    assert w["p_f"].all()
    again = cell.init(x=7, h=5, rng=0)
    assert all(np.array_equal(w[k], again[k]) for k in w)
    assert cell.init(x=7, h=5, dtype="float32")["W_f"].dtype == np.float32
    fixed = tr.Cell(GOOD["constant, fixed"])
    with pytest.raises(tr.TinyRNNError, match="fixed array A"):
        fixed.init(x=2, h=3)


def test_custom_loss_and_names_in_unrolled_graphs():
    cell = tr.cells.GRU
    g = cell.unroll(3, batch=2, x=2, h=4, loss=lambda hs: (hs[-1] * hs[-1]).sum(), gradients=True)
    assert {"h[1]", "h[2]", "h[3]", "loss", "dloss/dW_hn", "dloss/dh[0]", "dloss/dx[1]"} <= set(g.outputs)
    assert {"x[1]", "x[3]", "h[0]"} <= set(g.inputs)
    v = random_inputs(g)
    out = g.run(v)
    np.testing.assert_allclose(out["loss"], (out["h[3]"] ** 2).sum(), rtol=1e-15)
    assert "h[-1]" in tr.Cell(GOOD["lag 2"]).unroll(2).inputs
    with pytest.raises(tr.TinyRNNError, match="at least one step"):
        cell.unroll(0)
    with pytest.raises(tr.TinyRNNError, match="expected 'sum'"):
        cell.unroll(2, loss="mean")


def test_gradient_of_a_graph_built_by_hand_equals_the_cells():
    cell = tr.cells.LSTM
    g = cell.unroll(3, batch=2, x=2, h=3, loss="sum")
    direct = grad(g.outputs["loss"], [g.inputs["W_hf"]])[0]
    v = random_inputs(g)
    a = Graph({"d": direct}).run(v)["d"]
    b = cell.unroll(3, batch=2, x=2, h=3, gradients=True).run(v)["dloss/dW_hf"]
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


def test_unroll_of_a_layer():
    layer = tr.nn.LSTM(2, 3, num_layers=2, bidirectional=True, dtype="float64", rng=0)
    x = tr.input("x", (2, 4, 2))
    y = layer(x, lengths=[4, 2])[0]
    g = tr.Graph({"loss": sum_(y.node), **{n: tr.grad(y.sum(), p) for n, p in layer.named_parameters()}})
    v = {"x": np.random.default_rng(0).normal(size=(2, 4, 2))}
    a, explicit = g.run(v), unroll(g)
    b = explicit.run(v)
    for k in a:
        np.testing.assert_array_equal(a[k], b[k])
    assert explicit.find("f", step=2, cell="l1_reverse").op.name == "sigmoid"
