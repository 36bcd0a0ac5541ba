"""Terms as SymPy expressions: entry by entry (scalars), or as matrix expressions with symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, isnan
from typing import Any

from ...cells.terms import Term, show


def scalar(t: Term) -> Any:
    """An elementwise term as a SymPy expression in symbols called `c[t]`, `h[t-1]`, `W_f`; a product `W @ h[t-1]` is one."""
    import sympy

    if t.value == "@" or t.kind in ("join", "transpose") or t.value in ("outer", "sum", "slice"):
        return sympy.Symbol(show(t), real=True)
    args = [scalar(a) for a in t.args]
    match t.kind:
        case "number":
            return number(t.value)
        case "signal" | "adjoint" | "parameter" | "size" | "variable":
            return sympy.Symbol(show(t), real=True)
        case "negate":
            return -args[0]
        case "call":
            return _function(t.value)(*args)
        case "compare":
            return {"<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge, "==": sympy.Eq,
                    "!=": sympy.Ne}[t.value](*args)
    a, b = args
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b, "**": lambda: a**b}[t.value]()


def number(value: float) -> Any:
    """A number as it was written: a whole one, a decimal as a fraction, or an infinite one."""
    import sympy

    if not isfinite(value):
        return sympy.nan if isnan(value) else sympy.oo if value > 0 else -sympy.oo
    return sympy.Integer(int(value)) if value.is_integer() else sympy.Rational(repr(value))


def _function(name: str) -> Callable[..., Any]:
    import sympy

    known: dict[str, Callable[..., Any]] = {
        "maximum": sympy.Max, "minimum": sympy.Min, "abs": sympy.Abs,
        "where": lambda c, a, b: sympy.Piecewise((a, c), (b, True)), "and": sympy.And, "or": sympy.Or, "not": sympy.Not,
        **{f: getattr(sympy, f) for f in ("tanh", "exp", "log", "sqrt", "sin", "cos", "sign")}}
    return known[name] if name in known else sympy.Function(name)


def _is_matrix(x: Any) -> bool:
    return bool(getattr(x, "is_Matrix", False))


Shapes = Mapping[str, tuple[str, ...]]


def matrix(t: Term, shapes: Shapes) -> Any:
    """A term as a SymPy matrix expression: vectors are n by 1, ⊙ is `HadamardProduct`, f(v) is `v.applyfunc(f)`."""
    return _Matrices(shapes).of(t)


class _Matrices:
    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def of(self, t: Term) -> Any:
        import sympy

        args = [self.of(a) for a in t.args]
        match t.kind:
            case "number":
                return number(t.value)
            case "signal" | "adjoint":
                return self._symbol(show(t), self.shapes.get(t.value[0].removeprefix("loss "), ()))
            case "parameter" | "variable":
                return self._symbol(t.value, self.shapes.get(t.value, ()))
            case "transpose":
                return args[0].T if args else self._symbol(t.value, self.shapes.get(t.value, ())).T
            case "negate":
                return -args[0]
            case "join":
                return sympy.BlockMatrix([[a if _is_matrix(a) else a * sympy.OneMatrix(1, 1)] for a in args])
            case "call":
                return self._call(t, args)
            case "binary":
                return self._binary(t.value, *args)
        return self._opaque(t, args)

    def _opaque(self, t: Term, args: list[Any]) -> Any:
        """One symbol for an entrywise function of several matrices, or for a condition (1 where it holds)."""
        import sympy

        like = next((a for a in args if _is_matrix(a)), None)
        return sympy.Symbol(show(t), real=True) if like is None else sympy.MatrixSymbol(show(t), *like.shape)

    def _symbol(self, name: str, shape: tuple[str, ...]) -> Any:
        import sympy

        if not shape:
            return sympy.Symbol(name, real=True)
        sizes = [sum((sympy.Integer(int(p)) if p.isdigit() else sympy.Symbol(p, integer=True, positive=True)
                      for p in s.split("+")), start=sympy.Integer(0)) for s in shape]
        return sympy.MatrixSymbol(name, sizes[0], sizes[1] if len(sizes) == 2 else 1)

    def _binary(self, op: str, a: Any, b: Any) -> Any:
        import sympy

        if op in ("+", "-", "/") and _is_matrix(a) != _is_matrix(b):
            a, b = (x if _is_matrix(x) else x * sympy.OneMatrix(*y.shape) for x, y in ((a, b), (b, a)))
        if op == "**" and (_is_matrix(a) or _is_matrix(b)):
            return sympy.HadamardPower(a if _is_matrix(a) else a * sympy.OneMatrix(*b.shape), b)
        if op in ("*", "/") and _is_matrix(a) and _is_matrix(b):
            return sympy.HadamardProduct(a, b if op == "*" else sympy.HadamardPower(b, -1))
        return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "@": lambda: a * b, "/": lambda: a / b,
                "**": lambda: a**b}[op]()

    def _call(self, t: Term, args: list[Any]) -> Any:
        import sympy

        name, matrices = t.value, [a for a in args if _is_matrix(a)]
        if name == "outer":
            return args[0] * args[1].T
        if name == "zeros":
            return sympy.ZeroMatrix(args[0], 1)
        if name == "diag" and matrices:
            return sympy.DiagMatrix(args[0])
        if name == "where" and matrices:
            yes, no = (self._binary("*", args[0], x) for x in args[1:])
            return yes + (self._binary("-", args[2], no) if args[2] != 0 else no)
        if name == "sum" and matrices:
            return sympy.OneMatrix(1, args[0].shape[0]) * args[0]
        if len(args) == 1 == len(matrices):
            return args[0].applyfunc(_function(name))
        return self._opaque(t, args) if matrices else _function(name)(*args)
