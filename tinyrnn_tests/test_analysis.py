"""Analyses against networkx, brute force, matrix recurrences and values from the literature."""

import json
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis import measure, paths, structure
from tinyrnn.analysis.dynamics import lyapunov, singular_values, strongest
from tinyrnn.analysis.recurrence import recurrences
from tinyrnn.analysis.subject import subject_of_cell
from tinyrnn.ir.node import rebuild
from tinyrnn.ir.op import Trait
from tinyrnn.ir.ops.elementwise import sigmoid

from .test_equations import GOOD

CELLS = {**{n: tr.cells[n] for n in tr.cells.names()}, **{n: tr.Cell(t, n) for n, t in GOOD.items()}}


# ---- the table of the documents

@pytest.mark.parametrize(("cell", "source", "count", "fewest", "most", "products"), [
    ("rnn", "h[0]", "1", 100, 100, 100), ("gru", "h[0]", "7.9e69", 0, 200, 0), ("lstm", "h[0]", "9.2e67", 2, 200, 1),
    ("lstm", "c[0]", "2.4e67", 1, 199, 0)])
def test_reference_table(cell, source, count, fewest, most, products):
    found = next(w for w in tr.analyze(tr.cells[cell], steps=100).paths if w.source == source)
    assert (f"{float(found.count):.1e}".replace("e+", "e") if found.count > 1 else "1") == count
    assert (found.fewest_saturating, found.most_saturating, found.fewest_products) == (fewest, most, products)


def test_path_counts_by_matrix_recurrence():
    """LSTM: 1 way c -> c, 3 ways h -> c (i, f, g), 1 way h -> h by o, and c -> h; GRU: 5 ways a step."""
    step = np.array([[1, 3], [1, 4]], object)  # (c, h) after a step from (c, h) before it
    ways = np.linalg.matrix_power(step, 1)
    for _ in range(99):
        ways = ways.dot(step)
    report = {w.source: w.count for w in tr.analyze(tr.cells.LSTM, steps=100).paths}
    assert report == {"c[0]": ways[1, 0], "h[0]": ways[1, 1]}
    assert tr.analyze(tr.cells.GRU, steps=100).paths[0].count == 5**100


@pytest.mark.parametrize("name", CELLS)
def test_ways_by_enumeration(name):
    cell = CELLS[name]
    graph = cell.unroll(2, loss="last")
    g = graph.to_networkx()
    number = {n: i for i, n in enumerate(graph.nodes)}
    target = number[graph.outputs["loss"]]
    g.remove_nodes_from([number[n] for n in graph.nodes if not n.floating or n.op.kind == "constant"])
    for source in [f"{n}[{1 - k}]" for n, k in cell.slots if n in cell.states]:
        if source not in graph.inputs:
            continue
        all_ways = list(nx.all_simple_edge_paths(g, number[graph.inputs[source]], target))
        found = paths.gradient_paths(graph, [source], graph.outputs["loss"])
        if not all_ways:
            assert not found
            continue
        nodes = [[graph.nodes[b] for _, b, _ in way] for way in all_ways]
        squashed = [sum(Trait.SATURATES in n.op.traits for n in way) for way in nodes]
        products = [sum(paths.is_weighted(graph.nodes[a], graph.nodes[b]) for a, b, _ in way) for way in all_ways]
        assert found[0].count == len(all_ways)
        assert (found[0].fewest_saturating, found[0].most_saturating) == (min(squashed), max(squashed))
        assert found[0].fewest_products == min(products)
        common = set.intersection(*(set(way) for way in nodes)) - {graph.outputs["loss"]}
        assert set(paths.bottlenecks(graph.nodes, graph.inputs[source], graph.outputs["loss"])) == common


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "mgu", "elman"])
def test_bottlenecks_are_dominators(name):
    graph = CELLS[name].unroll(5, loss="last")
    number = {n: i for i, n in enumerate(graph.nodes)}
    g = nx.DiGraph(graph.to_networkx()).reverse()
    state = graph.inputs[f"{CELLS[name].states[0]}[0]"]
    parents = nx.immediate_dominators(g, number[graph.outputs["loss"]])
    chain, here = set(), number[state]
    while here in parents and parents[here] not in (None, here):
        here = parents[here]
        chain.add(here)
    found = paths.bottlenecks(graph.nodes, state, graph.outputs["loss"])
    assert {number[n] for n in found} == chain - {number[graph.outputs["loss"]]}


# ---- costs

@pytest.mark.parametrize("name", CELLS)
def test_work_against_networkx(name):
    graph = CELLS[name].unroll(3, loss="last", gradients=True)
    found, g = measure.work(graph), nx.DiGraph(graph.to_networkx())
    generation = {}
    for i in nx.topological_sort(g):
        generation[i] = max((generation[p] + 1 for p in g.predecessors(i)), default=0)
    assert found.depth == nx.dag_longest_path_length(g, weight=None, default_weight=1) == max(generation.values())
    flops = [g.nodes[i]["flops"] for i in g]
    assert found.flops == sum(flops)
    for a, b in g.edges:
        g.edges[a, b]["cost"] = g.nodes[b]["flops"]
    assert found.span == nx.dag_longest_path_length(g, weight="cost")
    inner = [v for i, v in generation.items() if v]
    assert found.width == max(map(inner.count, set(inner)))
    assert found.nodes == len(graph)
    assert sum(found.ops.values()) == sum(bool(n.src) for n in graph.nodes)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "matrix state", "lag 2"])
@pytest.mark.parametrize("gradients", [False, True])
def test_memory_by_brute_force(name, gradients):
    graph = CELLS[name].unroll(4, loss="sum", gradients=gradients)
    order, outputs = graph.nodes, set(graph.outputs.values())
    computed = [n for n in order if n.src]
    peaks = []
    for i, n in enumerate(order):
        if n.src:
            later = {s for m in order[i:] for s in m.src} | outputs | {n}
            peaks.append(sum(measure.size_of(m) for m in order[: i + 1] if m.src and m in later))
    found = measure.memory(graph)
    assert found.peak == max(peaks)
    assert len(found.live) == len(computed)
    assert found.total == sum(measure.size_of(n) for n in computed)
    assert found.inputs == sum(measure.size_of(n) for n in order if not n.src)


def test_what_a_step_keeps():
    found = tr.analyze(tr.cells["gru_reset_before"], steps=3, sizes={"x": 4, "h": 5}).saved
    assert found.names == ("h[t-1]", "n", "r", "z")
    assert found.bytes == 4 * 5 * 8
    assert found.naive_bytes > found.bytes
    assert (found.whole_bytes, found.whole_names) == (3 * 5 * 8, ("n", "r", "z"))
    lstm = tr.analyze(tr.cells.LSTM, steps=3, sizes={"x": 4, "h": 5}).saved
    assert (lstm.whole_bytes, lstm.whole_names) == (5 * 5 * 8, ("f", "g", "i", "o", "tanh"))  # c and h follow from these
    assert tr.analyze(tr.cells["mgu"], steps=3, batch=7, sizes={"x": 4, "h": 5}).saved.bytes == 3 * 5 * 8


# ---- shape

def test_equal_steps_are_found_and_a_different_one_breaks_them():
    cell = tr.cells.LSTM
    graph = cell.unroll(9)
    assert structure.rerolled(graph) == [(1, 9)]
    odd = next(n for n, t in graph.steps.items() if t == 5 and n.op.name == "tanh")
    new = {odd: sigmoid(odd.src[0])}
    rebuild(graph.nodes, new)
    planted = tr.Graph({k: new[n] for k, n in graph.outputs.items()}, {label: new[n] for label, n in graph.labels.items()},
                       {new[n]: t for n, t in graph.steps.items()})
    assert structure.rerolled(planted) == [(1, 4), (5, 5), (6, 9)]


@pytest.mark.parametrize("name", CELLS)
def test_all_steps_of_a_cell_are_equal(name):
    """But for the first ones, which read zeros instead of delayed inputs, or a learned state."""
    cell = CELLS[name]
    first, last = structure.rerolled(cell.unroll(8))[-1]
    assert last == 8
    assert first <= 1 + max((k for n, k in cell.slots if n in cell.inputs), default=0) + bool(cell.learned)


def test_loops_of_the_literature():
    """Zhang et al. 2016, section 2: an RNN has recurrent depth 1, an LSTM has a way around every function."""
    found = {n: structure.loops(recurrences(tr.cells[n].rolled(2))[0]) for n in ("rnn", "lstm", "gru", "rnn_relu")}
    assert (found["rnn"].recurrent_depth, found["rnn"].shortest) == (1, 1)
    assert (found["rnn_relu"].recurrent_depth, found["rnn_relu"].shortest) == (1, 1)
    assert (found["lstm"].recurrent_depth, found["lstm"].shortest) == (2, 0)
    assert (found["gru"].recurrent_depth, found["gru"].shortest) == (2, 0)
    assert [found[n].carried for n in ("rnn", "gru", "lstm")] == [("h",), ("h",), ("c", "h")]
    lag = structure.loops(recurrences(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-3])").rolled(4))[0])
    assert (lag.recurrent_depth, lag.shortest, len(lag.carried)) == (Fraction(1, 3), Fraction(1, 3), 3)
    deep = tr.Cell("a[t] = tanh(W @ x[t] + U @ h[t-1])\nh[t] = tanh(V @ a[t])")
    assert structure.loops(recurrences(deep.rolled(2))[0]).recurrent_depth == 2


# ---- dynamics

def test_exponents_of_a_linear_system_are_the_logarithms_of_its_eigenvalues():
    cell = tr.Cell("h[t] = U @ h[t-1] + W @ x[t]")
    rates = np.array([1.1, 0.7, 0.2])
    report = tr.analyze(cell, steps=50, values={"U": np.diag(rates), "W": np.zeros((3, 2)), "x": np.zeros((50, 2))})
    d = report.dynamics["cell"]
    np.testing.assert_allclose(d.exponents, np.log(rates), rtol=1e-9)
    assert d.singular[0] == pytest.approx(1.1**50)
    np.testing.assert_allclose(d.largest_by_step, 1.1 ** np.arange(50, 0, -1.0))


def test_singular_values_of_a_random_product():
    jacobians = np.random.default_rng(0).normal(size=(6, 4, 4)) / 2
    expected = np.linalg.svd(np.linalg.multi_dot(jacobians[::-1]), compute_uv=False)
    np.testing.assert_allclose(singular_values(jacobians)[0], expected, rtol=1e-10)
    assert singular_values(np.zeros((3, 2, 2))).tolist() == [[0, 0]] * 3
    assert lyapunov(np.stack([np.eye(2) * 2] * 5)) == pytest.approx([np.log(2)] * 2)


def test_strongest_way_by_enumeration():
    """Every way through quantities and steps, with the gain of each, by brute force."""
    subject = subject_of_cell(tr.cells.LSTM, 3, loss="last", rng=5)
    bptt, given = subject.backward_passes()[0]
    moments = list(bptt.steps_back(given))
    by_step = {m.position: m for m in moments}
    g = nx.DiGraph()
    for m in moments:
        for (a, b), v in m.sent.items():
            norm = np.linalg.norm(m.gradients[a])
            g.add_edge((a, m.position), (b, m.position), gain=np.linalg.norm(v) / norm if norm else 0.0)
        for k, c in (("h[t-1]", "h"), ("c[t-1]", "c")):
            if m.position > 1:
                g.add_edge((k, m.position), (c, m.position - 1), gain=1.0)
    start = np.linalg.norm(by_step[3].gradients["h"])
    for route in strongest(bptt, moments):
        gains = [np.prod([g.edges[e]["gain"] for e in way]) for way in nx.all_simple_edge_paths(g, ("h", 3), (route.source, 1))]
        assert route.gain == pytest.approx(start * max(gains), rel=1e-9)
        assert route.gradient == pytest.approx(np.linalg.norm(by_step[1].gradients[route.source]))
        assert route.stops[0] == ("h", 3)
        assert route.stops[-1] == (route.source, 1)


# ---- the report

def test_reports_of_cells_graphs_and_models():
    rng = np.random.default_rng(0)
    model = tr.nn.Sequential(tr.nn.Embedding(10, 4, rng=0), tr.nn.GRU(4, 3, rng=1), tr.nn.Linear(3, 2, rng=2))
    x, y = rng.integers(0, 10, (2, 6)), rng.integers(0, 2, (2, 6))
    for report in (tr.analyze(tr.cells["mgu"], steps=7), tr.analyze(tr.cells.GRU.graph()), tr.analyze(model, x, y=y),
                   tr.analyze(tr.cells.GRU.rolled(5, gradients=True))):
        json.dumps(report.to_dict())
        assert "critical path" in str(report)
        assert report._repr_html_().startswith("<pre>")
    report = tr.analyze(model, x, y=y)
    assert set(report.dynamics) == {"layers.1.l0"}
    assert len(report.plot().axes) == 3
    assert len(tr.analyze(tr.cells.GRU.graph()).plot().axes) == 1
    assert report.saved.bytes < report.saved.naive_bytes
    assert {w.source for w in report.paths} >= {"layers.1.weight_ih_l0", "layers.2.weight"}


def test_huge_counts_are_printed():
    from tinyrnn.analysis.report import _count

    for n in (0, 7, 999_999, 10**6, 123456789, 5**100, 10**300 - 1, 7**5000):
        text = _count(n)
        if n < 10**6:
            assert text == str(n)
        else:
            digits = str(n)
            mantissa, _, exponent = text.partition("e")
            assert int(exponent) in (len(digits) - 1, len(digits))
            assert float(mantissa) == pytest.approx(int(digits[:3]) / 100, abs=0.06)


def test_mistakes():
    for use, message in ((lambda: tr.analyze("lstm"), "takes a cell, a model or a graph"),
                         (lambda: tr.analyze(tr.nn.GRU(2, 3)), "on an example"), (lambda: tr.analyze(tr.cells.GRU, steps=0), "steps=0"),
                         (lambda: tr.analyze(tr.cells.GRU, sizes={"q": 3}), "size")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()
