"""Local derivatives by SymPy alone: each equation written as an expression, differentiated, and held against the engine's.

None of the engine's gradients takes part: a function is its definition in SymPy (of an op that was declared elsewhere, its
formula), and `sympy.diff` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...cells import latex
from ...cells.cell import Cell
from ...cells.terms import Equation, Term, show
from ...domains import Symbols
from ...errors import ProofError
from ...functions import FUNCTIONS
from ...ir.op import CATALOGUE, Op
from ..proof.axioms import vanishes
from .scalars import scalar

POINTS, DIGITS = 12, 30
CLOSE = 1e-10  # numbers in what the engine's derivative is read from have 12 digits


def definitions() -> dict[str, Callable[..., Any]]:
    """The functions of the language that SymPy does not know by itself."""
    import sympy

    sp: Any = sympy
    bent, exp = sp.Piecewise, sp.exp

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + exp(-x))

    def clip(x: Any, low: Any, high: Any) -> Any:
        return bent((low, x < low), (high, x > high), (x, True))

    return {
        "sigmoid": sigmoid, "softplus": lambda x: sp.log(1 + exp(x)), "silu": lambda x: x * sigmoid(x),
        "relu": lambda x: bent((x, x > 0), (0, True)), "abs": lambda x: bent((-x, x < 0), (x, x > 0), (0, True)),
        "sign": lambda x: bent((-1, x < 0), (1, x > 0), (0, True)), "elu": lambda x: bent((x, x > 0), (exp(x) - 1, True)),
        "maximum": lambda a, b: bent((a, b < a), (b, True)), "minimum": lambda a, b: bent((a, a < b), (b, True)),
        "clip": clip, "hard_sigmoid": lambda x: clip(x / 6 + sp.Rational(1, 2), 0, 1),
        "gelu": lambda x: x * (1 + sp.tanh(sp.sqrt(2 / sp.pi) * (x + sp.Rational("0.044715") * x**3))) / 2}


class _Calculus(Symbols):
    """SymPy's expressions, with its functions under their names: what formulas of ops may ask for."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda a: self.function(name, a)


def _by_formula(op: Op) -> Callable[..., Any]:
    """The definition of an op that was declared with a formula: that formula, over SymPy's expressions."""
    assert op.evaluate is not None
    formula, domain = op.evaluate, _Calculus()
    return lambda *x: np.asarray(formula(domain, *(np.array([v], object) for v in x))).item()


def defined(expression: Any) -> Any:
    """An expression with every such function replaced by its definition."""
    import sympy

    declared = {f: _by_formula(op) for f in FUNCTIONS if (op := CATALOGUE.get(f)) is not None and op.evaluate is not None}
    known = {**declared, **definitions()}
    own = {sympy.Max: "maximum", sympy.Min: "minimum", sympy.Abs: "abs", sympy.sign: "sign"}

    def name(x: Any) -> str:
        return str(own.get(x.func) or getattr(x.func, "__name__", ""))

    return expression.replace(lambda x: name(x) in known, lambda x: known[name(x)](*x.args))


def derivative(e: Equation, mark: str, by: str, engine: Term) -> Any:
    """The derivative of an equation by what it reads, as SymPy finds it: by the argument a of its gate, or by a name, through
    that argument.

    None where the engine's derivative speaks of products of matrices in other words than the equation, so that the two cannot
    be compared entry by entry.  Raises `ProofError` where the engine's is another.
    """
    import sympy

    gate = e.term.kind == "call" and len(e.term.args) == 1
    a, x = (sympy.Symbol(n, real=True) for n in (f"{mark}[t]", by if "[" in by else f"{by}[t]"))
    inner = defined(scalar(e.term.args[0])) if gate else None
    y = defined(scalar(Term("call", e.term.value, (Term("signal", (mark, 0)),)) if gate else e.term))
    found = sympy.diff(y, a if gate else x) * (1 if inner is None or by == mark else sympy.diff(inner, x))
    engine_s = defined(scalar(engine)).subs({sympy.Symbol(f"{e.name}[t]", real=True): y})
    meant = {} if inner is None or by == mark else {a: inner}
    theirs, ours = found.subs(meant), engine_s.subs(meant)
    if not _equal(theirs, ours):
        if {s for s in ours.free_symbols ^ y.subs(meant).free_symbols if not _is_name(str(s))}:
            return None
        raise ProofError(f"the engine's derivative of {e.name} by {by} is {show(engine)}; SymPy's is {found}", e.name)
    return found


def _is_name(symbol: str) -> bool:
    """Whether a symbol stands for one quantity, c[t-1] or W, and not for a product or a sum of many."""
    return symbol.partition("[")[0].isidentifier()


def _equal(a: Any, b: Any) -> bool:
    """By the rules of quotients of polynomials; where these do not tell, at random points with many digits."""
    import sympy

    difference = sympy.piecewise_fold(a - b)
    pieces = [p for p, _ in difference.args] if isinstance(difference, sympy.Piecewise) else [difference]
    return all(vanishes(p) for p in pieces) or all(_close(a, b, k) for k in range(POINTS))


def _close(a: Any, b: Any, k: int) -> bool:
    """Whether two expressions are the same number at a point."""
    import sympy

    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    at = {s: sympy.Rational(((k + 3) * (i + 2) * 37) % 101 - 50, 29) for i, s in enumerate(symbols)}
    try:
        x, y = (sympy.N(e.subs(at), DIGITS) for e in (a, b))
    except TypeError:  # a comparison of complex numbers: the point lies where the function is not real
        return True
    return not (x.is_finite and y.is_finite) or bool(abs(x - y) <= CLOSE * (1 + abs(x)))


def shown(expression: Any, cell: Cell) -> tuple[str, str]:
    """A derivative as text and as LaTeX, with the names of a cell."""
    import sympy

    tex = {}
    for t in (t for e in cell.system.equations for t in e.term.walk()):
        written = latex.term(t)
        tex[show(t)] = written if t.kind in ("signal", "parameter", "size") else rf"\left({written}\right)"
    known = {s: tex.get(str(s)) or latex.name(*str(s).rstrip("]").split("[")) for s in expression.free_symbols}
    return str(expression), str(sympy.latex(expression, symbol_names=known, mul_symbol=r"\,"))
