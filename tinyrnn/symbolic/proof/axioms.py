"""The axioms: each op's vjp and jvp against SymPy's own derivative, on symbols, once a process.

An example is a small graph y = f(inputs).  For symbols g (an adjoint) and v (a tangent) of each input x,

    vjp(g)_i = d/dx_i Σ_j g_j y_j          jvp(v)_j = Σ_i v_i dy_j/dx_i

are compared entry by entry.  Differences are polynomials and quotients of a few functions; they vanish or not after
`expand` and `together`, without any search.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ...domains import Exact, Symbols
from ...domains.exact import SLOPES
from ...errors import ProofError
from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.op import CATALOGUE, Op
from ...ir.ops.leaves import input_name, input_node
from ...ir.ops.linear import sum_
from ...passes.ad.derivatives import grad, jvp
from .examples import EXAMPLES, own_example


def axioms() -> int:
    """Check every op of the catalogue that has a gradient, and every slope; returns how many rules were compared.

    Raises `ProofError` for a rule that differs from SymPy's derivative, or an op that no example covers.
    """
    ruled = [op for op in CATALOGUE.values() if op.kind not in ("leaf", "constant")]
    for op in ruled:
        _check_op(op, op.vjp)
    for name in SLOPES:
        _check_slope(name, SLOPES[name])
    return 2 * len(ruled) + len(SLOPES)


@cache
def _check_op(op: Op, rule: object) -> None:
    """Cached by the rule, so that another rule is compared anew."""
    build, shapes = EXAMPLES.get(op.name) or own_example(op)
    inputs = {k: input_node(k, s) for k, s in shapes.items()}
    y = build(*inputs.values())
    if op not in _ops(y):
        raise ProofError(f"the example of {op.name!r} in tinyrnn.symbolic.proof.examples.EXAMPLES does not contain that op")
    g = input_node("g", y.shape)
    v = {k: input_node(f"v_{k}", s) for k, s in shapes.items()}
    graph = Graph({"y": y, "jvp": jvp([y], {inputs[k]: v[k] for k in inputs})[0],
                   **dict(zip(inputs, grad(sum_(g * y), list(inputs.values())), strict=True))})
    run = _symbols({**inputs, "g": g, **{input_name(n): n for n in v.values()}})
    found = {k: x.value for k, x in graph.run({k: run[k] for k in graph.inputs}, domain=run["g"].domain).items()}
    _compare_vjp(op, found, {k: run[k].value for k in inputs}, run["g"].value)
    _compare_jvp(op, found, {k: run[k].value for k in inputs}, {k: run[f"v_{k}"].value for k in inputs})


def _ops(y: Node) -> set[Op]:
    return {n.op for n in walk([y])}


def _symbols(inputs: Mapping[str, Node]) -> dict[str, Any]:
    ring = Symbols()
    domain = Exact(ring)
    floats = iter([0.3 + 0.17 * i for i in range(100)])
    given = {}
    for name, node in inputs.items():
        near = np.array([next(floats) for _ in range(int(np.prod(node.shape)))]).reshape(node.shape)
        near = near if name == "p" else near * (-1) ** np.arange(near.size).reshape(near.shape)
        given[name] = domain.given(near, ring.symbols(name, node.shape))
    return given


def _compare_vjp(op: Op, found: Mapping[str, Any], x: Mapping[str, Any], g: object) -> None:
    total = (g * found["y"]).sum()
    for name, symbols in x.items():
        for i in np.ndindex(symbols.shape):
            _must_vanish(found[name][i] - total.diff(symbols[i]), f"the vjp of {op.name!r}, source {name}, entry {i}")


def _compare_jvp(op: Op, found: Mapping[str, Any], x: Mapping[str, Any], v: Mapping[str, Any]) -> None:
    for j in np.ndindex(found["y"].shape):
        moved = sum(found["y"][j].diff(x[k][i]) * v[k][i] for k in x for i in np.ndindex(x[k].shape))
        _must_vanish(found["jvp"][j] - moved, f"the jvp of {op.name!r}, entry {j}")


@cache
def _check_slope(name: str, rule: object) -> None:
    ring = Symbols()
    domain = Exact(ring)
    x, v = (ring.symbols(k, ()) for k in "xv")
    y = domain.function(name, domain.given(np.array(0.6), x, v))
    assert y.tangent is not None
    _must_vanish(y.tangent.item() - y.value.item().diff(x.item()) * v.item(), f"the slope of {name!r}")


def _must_vanish(difference: object, what: str) -> None:
    if not vanishes(difference):
        raise ProofError(f"{what} is not SymPy's derivative: the difference is {difference}", residual=str(difference))


def vanishes(difference: object) -> bool:
    """Whether an expression is identically zero as a quotient of polynomials in its symbols and functions."""
    import sympy

    expression = sympy.expand(difference)
    expression = expression.replace(lambda x: isinstance(x, sympy.exp), _power_of_exp)
    return bool(sympy.expand(sympy.fraction(sympy.together(expression))[0]) == 0)


def _power_of_exp(x: Any) -> Any:
    """exp(3 u) as the cube of one symbol for exp(u)."""
    import sympy

    factor, rest = x.args[0].as_coeff_Mul()
    return sympy.Symbol(f"exp({rest})") ** factor if factor.is_Integer else x
