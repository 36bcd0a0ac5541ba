"""Cells written in Python: the function is run once on symbols, and what it does is written down as equations."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import EquationError
from .equations import FUNCTIONS, Equation, System, Term, show_system


class Symbol:
    """A quantity of a cell while its function is traced: operators and functions become terms."""

    __slots__ = ("term",)
    __array_ufunc__ = None

    def __init__(self, term: Term) -> None:
        self.term = term

    def lag(self, k: int) -> Symbol:
        """The value k steps ago (a state itself means one step ago)."""
        if self.term.kind == "unknown":
            return self
        if self.term.kind != "signal" or k < 1:
            raise EquationError("lag(k) needs an input or a state, and k >= 1")
        return Symbol(Term("signal", (self.term.value[0], k)))

    @property
    def T(self) -> Symbol:  # noqa: N802  (NumPy's name)
        if self.term.kind == "unknown":
            return self
        if self.term.kind != "parameter":
            raise EquationError("only a parameter matrix has .T")
        return Symbol(Term("transpose", self.term.value))

    def call(self, function: str, args: Sequence[Any]) -> Symbol:
        """A library function met while tracing (the functions of the tensor API ask for this method)."""
        if function == "concat":
            return Symbol(Term("join", None, tuple(map(as_term, args[0]))))
        if FUNCTIONS.get(function) != len(args):
            raise EquationError(f"{function} with {len(args)} arguments is not part of the equation language")
        return Symbol(Term("call", function, tuple(map(as_term, args))))

    def _binary(self, op: str, a: Any, b: Any) -> Symbol:
        return Symbol(Term("compare" if op in "<=>=" else "binary", op, (as_term(a), as_term(b))))

    def __add__(self, other: Any) -> Symbol:
        return self._binary("+", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self._binary("+", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self._binary("-", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._binary("-", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self._binary("*", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._binary("*", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return self._binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._binary("/", other, self)

    def __pow__(self, other: Any) -> Symbol:
        return self._binary("**", self, other)

    def __rpow__(self, other: Any) -> Symbol:
        return self._binary("**", other, self)

    def __abs__(self) -> Symbol:
        return self.call("abs", (self,))

    def __matmul__(self, other: Any) -> Symbol:
        return self._binary("@", self, other)

    def __lt__(self, other: Any) -> Symbol:
        return self._binary("<", self, other)

    def __le__(self, other: Any) -> Symbol:
        return self._binary("<=", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return self._binary(">", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return self._binary(">=", self, other)

    def __neg__(self) -> Symbol:
        return Symbol(Term("negate", None, (self.term,)))

    def __bool__(self) -> bool:
        raise EquationError("a quantity of a cell has no truth value while the cell is traced; use tr.where")


def as_term(value: Any) -> Term:
    """A symbol's term, or a Python number."""
    if isinstance(value, Symbol):
        return value.term
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Term("number", float(value)) if value >= 0 else Term("negate", None, (Term("number", -float(value)),))
    raise EquationError(f"a cell's function met {type(value).__name__}; expected quantities of the cell and Python numbers")


def equations_of(function: Callable[..., Mapping[str, Any]], inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The text of a cell whose step is a Python function.

    Arguments named in `inputs` are inputs; arguments whose name is a key of the returned dict are states; all others
    are parameters.
    """
    names = list(inspect.signature(function).parameters)
    missing = [n for n in inputs if n not in names]
    if missing:
        raise EquationError(f"the function has no argument {missing[0]!r}; its arguments are {', '.join(names)}")
    first = _run(function, {n: Symbol(Term("unknown", n)) for n in names})
    roles = {n: Term("signal", (n, 0)) if n in inputs else Term("signal", (n, 1)) if n in first else Term("parameter", n)
             for n in names}
    result = _run(function, {n: Symbol(t) for n, t in roles.items()})
    equations = _share({n: as_term(v) for n, v in result.items()}, set(names))
    return show_system(System(tuple(equations), outputs=tuple(outputs)))


def _run(function: Callable[..., Mapping[str, Any]], arguments: Mapping[str, Symbol]) -> Mapping[str, Any]:
    result = function(**arguments)
    if not isinstance(result, Mapping) or not result:
        raise EquationError('a cell\'s function returns a dict of what it computes: {"h": ...}, '
                            f"got {type(result).__name__}")
    return result


def _share(results: Mapping[str, Term], taken: set[str]) -> list[Equation]:
    """Equations in which every expression that is used more than once has a name of its own."""
    named = {id(t): n for n, t in reversed(list(results.items())) if t.args}
    uses = _uses(results.values())
    equations: list[Equation] = []
    done: dict[int, Term] = {}

    def visit(t: Term) -> Term:
        if not t.args:
            return t
        if id(t) not in done:
            inner = Term(t.kind, t.value, tuple(visit(a) for a in t.args))
            name = named.get(id(t))
            if name is None and uses[id(t)] > 1 and t.kind not in ("compare", "join", "negate"):
                name = next(f"v{i}" for i in range(1, len(uses) + 2) if f"v{i}" not in taken and f"v{i}" not in results)
                taken.add(name)
            if name is not None:
                equations.append(Equation(name, inner))
            done[id(t)] = inner if name is None else Term("signal", (name, 0))
        return done[id(t)]

    for name, term in results.items():
        seen = visit(term)
        if named.get(id(term)) != name:
            equations.append(Equation(name, seen))
    return equations


def _uses(roots: Iterable[Term]) -> Counter[int]:
    """How often each expression is an operand, every shared one entered once."""
    uses: Counter[int] = Counter()
    entered: set[int] = set()
    stack = list(roots)
    while stack:
        t = stack.pop()
        if id(t) not in entered:
            entered.add(id(t))
            uses.update(id(a) for a in t.args)
            stack.extend(t.args)
    return uses
