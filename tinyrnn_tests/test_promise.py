"""What tinyrnn promises, for every cell of the zoo: an explicit unrolled graph, networkx on it, SymPy's gate derivatives, and the
same training step on the GPU's backend."""

import networkx as nx
import numpy as np
import pytest
import sympy

import tinyrnn as tr
from tinyrnn.analysis.measure import work
from tinyrnn.errors import ProofError
from tinyrnn.symbolic.derivation import calculus

from .test_mutants import op_rule

NAMES = tr.cells.names()


@pytest.mark.parametrize("name", NAMES)
def test_an_explicit_unrolled_graph_is_built(name):
    """Every quantity of every step is a node of its own, and each step adds as many nodes as the one before."""
    cell = tr.cells[name]
    graphs = {t: cell.unroll(t, batch=2, gradients=True) for t in (3, 4, 5)}
    assert not any(n.op.kind == "control" for n in graphs[5].nodes)
    for e in cell.system.equations:
        assert len({graphs[5].find(e.name, step=t) for t in range(1, 6)}) == 5
    assert len(graphs[5]) - len(graphs[4]) == len(graphs[4]) - len(graphs[3]) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_path_is_that_of_networkx(name):
    graph = tr.cells[name].unroll(4, batch=2, gradients=True)
    assert nx.dag_longest_path_length(nx.DiGraph(graph.to_networkx())) == work(graph).depth > 10


@pytest.mark.parametrize("name", NAMES)
def test_gate_derivatives_are_sympys(name):
    """The engine's local derivatives against SymPy's, symbolically and by numbers."""
    cell = tr.cells[name]
    derivation = tr.derive(cell)
    gates = [e.name for e in cell.system.equations if e.term.kind == "call" and len(e.term.args) == 1]
    assert {y for y, s in derivation.by_sympy if s == f"a_{y}"} >= set(gates)
    for (y, s), found in derivation.by_sympy.items():
        mark = sympy.Symbol(f"a_{y}[t]", real=True)
        own = calculus.defined(getattr(sympy, cell_function(cell, y), sympy.Function(cell_function(cell, y)))(mark)) if y in gates else None
        engine = calculus.defined(derivation.local[y, s])
        engine = engine.subs({sympy.Symbol(f"{y}[t]", real=True): own}) if own is not None else engine
        for k in (1, 2):
            at = {x: sympy.Rational((7 * i * k) % 11 - 5, 3) for i, x in enumerate(sorted((found - engine).free_symbols, key=str), 1)}
            assert abs(sympy.N(found.subs(at), 30) - sympy.N(engine.subs(at), 30)) < 1e-12, (y, s)
    page = derivation.markdown()
    assert "differentiated by SymPy" in page
    assert all(f"partial a^{{({g})}}" in page for g in gates)


def cell_function(cell, name):
    return next(e.term.value for e in cell.system.equations if e.name == name)


@pytest.mark.parametrize(("op", "vjp"), [("tanh", lambda g, y, x: g * (1 - y)), ("sigmoid", lambda g, y, x: g * y)])
def test_a_wrong_gate_derivative_is_seen_by_sympy(op, vjp):
    with op_rule(op, vjp=vjp), pytest.raises(ProofError, match=r"the engine's derivative of . by a_. is .*; SymPy's is"):
        assert tr.derive(tr.cells.LSTM).by_sympy


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_on_the_gpus_backend_is_the_cpus(name, gpu):
    """The same weights after a step of gradient descent, on a GPU or on the stand-in for one."""
    rng = np.random.default_rng(0)
    cell = tr.cells[name]
    x, y = rng.normal(size=(3, 4, 2)).astype("f4"), rng.normal(size=(3, 4, 5)).astype("f4")

    def trained(backend):
        sizes = dict(zip(cell.sizes, (2, 5, 4), strict=False))
        model = tr.nn.Sequential(tr.nn.Recurrent(cell, **sizes, rng=1))
        target = y[..., : sizes[cell.signals[cell.outputs[0]][-1]]]
        model.fit(x[..., : sizes["x"]], target, loss="mse", optimizer=tr.optim.SGD(0.5), epochs=1, batch_size=3, backend=backend,
                  rng=0, progress=False)
        return model.state_dict()

    before, after = trained("cpu"), trained("cuda")
    assert before
    for k, a in before.items():
        np.testing.assert_allclose(after[k], a, rtol=1e-5, atol=1e-6)
