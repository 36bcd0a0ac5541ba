"""Cells written in Python: the function is run once on symbols, and what it does is written down as equations."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import EquationError
from ..ir.op import CATALOGUE
from ..operators import Operators
from .equations import MAX_NESTING, MAX_OPERATORS, functions
from .mistakes import nearest
from .terms import Equation, System, Term, number, show_system


class Symbol(Operators):
    """A quantity of a cell while its function is traced: operators and functions become terms."""

    __slots__ = ("term",)
    __array_ufunc__ = None

    def __init__(self, term: Term) -> None:
        self.term = term

    def lag(self, k: int) -> Symbol:
        """The value k steps ago (a state itself means one step ago)."""
        if self.term.kind == "unknown":
            return self
        if self.term.kind == "parameter":
            raise EquationError(f"{self.term.value}.lag({k}): the function returns no {self.term.value!r}, so it is no state; "
                                f"return it: {{{self.term.value!r}: ...}}")
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
        if functions().get(function) != len(args):
            raise EquationError(f"{function} with {len(args)} arguments is not part of the equation language")
        return Symbol(Term("call", function, tuple(map(as_term, args))))

    def operate(self, op: str, *operands: object) -> Symbol:
        """An operator between quantities and numbers."""
        if op == "neg":
            return Symbol(Term("negate", None, (self.term,)))
        written = CATALOGUE[op].written
        return self.call(op, operands) if written.isidentifier() else self._written(written, *operands)

    def _written(self, sign: str, a: object, b: object) -> Symbol:
        return Symbol(Term("compare" if sign in "<=>=" else "binary", sign, (as_term(a), as_term(b))))

    def __gt__(self, other: object) -> Symbol:
        return self._written(">", self, other)

    def __ge__(self, other: object) -> Symbol:
        return self._written(">=", self, other)

    def __pos__(self) -> Symbol:
        return self

    def __getitem__(self, key: object) -> Symbol:
        raise EquationError("parts of a quantity, such as y[0], are not part of the equation language")

    def __bool__(self) -> bool:
        raise EquationError("a quantity of a cell has no truth value while the cell is traced; use tr.where")


class NamedNumber(float):
    """A number with a name: the default of an argument, a plain number wherever Python needs one."""

    name: str

    @classmethod
    def called(cls, name: str, value: float) -> NamedNumber:
        made = cls(value)
        made.name = name
        return made


def as_term(value: object) -> Term:
    """A symbol's term, a constant by its name, or a Python number."""
    if isinstance(value, Symbol):
        return value.term
    if isinstance(value, NamedNumber):
        return Term("parameter", value.name)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not getattr(value, "trainable", False):
        value = value.item()  # what a function of tensors makes of a number
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return number(float(value))
    raise EquationError(f"a cell's function met {type(value).__name__}; expected quantities of the cell and Python numbers")


def equations_of(function: Callable[..., Mapping[str, Any]], inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The text of a cell whose step is a Python function.

    Arguments named in `inputs` are inputs; arguments whose name is a key of the returned dict are states; those with a
    default are constants; all others are parameters.
    """
    inputs, outputs = ((x,) if isinstance(x, str) else x for x in (inputs, outputs))
    defaults = _arguments(function)
    names = list(defaults)
    missing = [n for n in inputs if n not in names]
    if missing:
        raise EquationError(f"the function has no argument {missing[0]!r}; its arguments are {', '.join(names)}")
    given = {n: NamedNumber.called(n, v) if type(v) is float else v
             for n, v in defaults.items() if v is not inspect.Parameter.empty and n not in inputs}
    free = [n for n in names if n not in given]
    first = _run(function, {n: Symbol(Term("unknown", n)) for n in free} | given)
    roles = {n: Term("signal", (n, 0)) if n in inputs else Term("signal", (n, 1)) if n in first else Term("parameter", n)
             for n in free}
    result = _run(function, {n: Symbol(t) for n, t in roles.items()} | given)
    terms = {n: as_term(v) for n, v in result.items()}
    leaves = [t for r in terms.values() for t in _each(r) if not t.args]
    used = {t.value[0] if t.kind == "signal" else t.value for t in leaves}
    _check_result(terms, free, used, inputs, outputs)
    constants = tuple((n, float(v)) for n, v in given.items() if isinstance(v, NamedNumber) and n in used)
    read_now = {t.value[0] for t in leaves if t.kind == "signal" and not t.value[1]}
    declared = () if set(inputs) <= read_now else tuple(inputs)  # an input read only at earlier steps is declared
    equations = Sharing(terms, set(names)).equations
    return show_system(System(tuple(equations), outputs=tuple(outputs), constants=constants, inputs=declared))


def _arguments(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function and their defaults."""
    arguments = inspect.signature(function).parameters
    for p in arguments.values():
        if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise EquationError(f"the argument {p} of a cell's function has no name of its own; write each argument out")
    return {n: p.default for n, p in arguments.items()}


def _check_result(results: Mapping[str, Term], free: Sequence[str], used: set[Any], inputs: Sequence[str],
                  outputs: Sequence[str]) -> None:
    """Everything that is returned is a state, an output or read by another result, and every argument is read."""
    inner = {id(t) for n, r in results.items() for t in _each(r) if t is not r}
    for name, term in results.items():
        if name in inputs:
            raise EquationError(f"the function returns {name!r}, which is an input; call the result otherwise")
        if name not in free and name not in outputs and id(term) not in inner:
            raise EquationError(f"the function returns {name!r}, which is no argument and which no other result reads: a state "
                                f"is an argument as well ({', '.join(n for n in free if n not in inputs)}), an output is named "
                                f"by outputs=({name!r},){nearest(name, free)}")
    for name in free:
        if name not in used and name not in results:
            raise EquationError(f"the argument {name!r} of the function is never read; a state that is computed must be "
                                f"returned: {{{name!r}: ...}}")


def _run(function: Callable[..., Mapping[str, Any]], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        result = function(**arguments)
    except TypeError as error:
        if "Symbol" not in str(error):
            raise
        raise EquationError(f"the function does with a quantity of the cell what only numbers and arrays can ({error}); use "
                            "operators and the functions of tinyrnn") from None
    if not isinstance(result, Mapping) or not result:
        raise EquationError('a cell\'s function returns a dict of what it computes: {"h": ...}, '
                            f"got {type(result).__name__}")
    return result


def _each(*roots: Term) -> Iterator[Term]:
    """Every term inside once, however often it is shared."""
    entered: set[int] = set()
    stack = [*roots]
    while stack:
        t = stack.pop()
        if id(t) not in entered:
            entered.add(id(t))
            yield t
            stack.extend(t.args)


Part = tuple[Term, int, int]
"""A term, its depth and its length."""

DEEPEST, LONGEST = MAX_NESTING // 2, MAX_OPERATORS // 2


class Sharing:
    """Equations in which an expression has a name of its own where it is used more than once, or where the equation
    would be deeper or longer than one may be."""

    def __init__(self, results: Mapping[str, Term], taken: set[str]) -> None:
        self.results, self.taken = results, taken | set(results)
        self.named = {id(t): n for n, t in reversed(list(results.items())) if t.args}
        self.uses = _uses(results.values())
        self.equations: list[Equation] = []
        self.done: dict[int, Part] = {}
        for name, term in results.items():
            self._visit(term)
            if self.named.get(id(term)) != name:
                self.equations.append(Equation(name, self.done[id(term)][0]))

    def _visit(self, root: Term) -> None:
        stack = [(root, False)]
        while stack:
            t, ready = stack.pop()
            if id(t) in self.done:
                continue
            if ready or not t.args:
                self.done[id(t)] = self._built(t)
            else:
                stack += [(t, True), *((a, False) for a in reversed(t.args))]

    def _built(self, t: Term) -> Part:
        if not t.args:
            return t, int(t.kind == "signal"), 2 * (t.kind == "signal")
        parts = [self.done[id(a)] for a in t.args]
        while sum(p[2] for p in parts) > LONGEST and any(p[2] > 2 and _nameable(p) for p in parts):
            k = max((k for k, p in enumerate(parts) if _nameable(p)), key=lambda k: parts[k][2])
            parts[k] = self.done[id(t.args[k])] = self._name(None, parts[k][0])
        inner = replace(t, args=tuple(p[0] for p in parts))
        found = inner, 1 + max(p[1] for p in parts), 3 + len(parts) + sum(p[2] for p in parts)
        name = self.named.get(id(t))
        shared = self.uses[id(t)] > 1 and t.kind != "negate"
        return self._name(name, inner) if name or (_nameable(found) and (shared or found[1] > DEEPEST)) else found

    def _name(self, name: str | None, term: Term) -> Part:
        if name is None:
            name = next(f"v{i}" for i in range(1, len(self.taken) + 2) if f"v{i}" not in self.taken)
            self.taken.add(name)
        self.equations.append(Equation(name, term))
        return Term("signal", (name, 0)), 1, 2


def _nameable(part: Part) -> bool:
    return bool(part[0].args) and part[0].kind not in ("compare", "join")


def _uses(roots: Iterable[Term]) -> Counter[int]:
    """How often each expression is an operand, every shared one entered once."""
    return Counter(id(a) for t in _each(*roots) for a in t.args)
