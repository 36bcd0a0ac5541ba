"""Ranks of every quantity of a cell, inferred from its equations: 0 (one number), 1 (vector) or 2 (matrix), for one example.

They come from a fixpoint from below.  What stands to the left of `@` without anything known to be a vector is a matrix, with
all its undeclared parameters; elsewhere a parameter without evidence is a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .equations import REDUCTIONS, ROWS
from .terms import Equation, System, Term

Key = tuple[str, str]  # ("signal" or "parameter", name)


class Ranks:
    """The fixpoint: bottom-up what is known, top-down what a parameter must then be."""

    def __init__(self, system: System, inputs: Iterable[str], order: Iterable[Equation]) -> None:
        self.table: dict[Key, int] = {("signal", x): 1 for x in inputs}
        self.declared = {d.name: len(d.sizes) for d in system.declarations if d.sizes is not None}
        self.table.update({("parameter", p): r for p, r in self.declared.items()})
        self.table.update({("parameter", c): 0 for c, _ in system.constants})
        self.fixed = {*self.declared, *(c for c, _ in system.constants)}
        self.equations = tuple(order)  # sources before users: few rounds settle everything
        self.constant = {e.name: e.term for e in constant_equations(self.equations)}
        self._known: dict[tuple[Callable[[Term], int | bool | None], int], int | bool | None] = {}
        self._settle()
        states = {t.value[0] for e in self.equations for t in e.term.walk() if t.kind == "signal" and t.value[1]}
        for names in (states, {e.name for e in self.equations}):  # what is read from before is a vector, then all the rest
            for e in self.equations:
                if e.name in names:
                    self._raise(("signal", e.name), self.table.get(("signal", e.name), 1))
            self._settle()
        for e in self.equations:
            for term in e.term.walk():
                if term.kind == "parameter":
                    self._raise(("parameter", term.value), self.table.get(("parameter", term.value), 1))
        self._settle()

    def _settle(self) -> None:
        for _ in range(3 * len(self.equations) + 3):
            before = dict(self.table)
            for e in self.equations:
                self._raise(("signal", e.name), self.up(e.term))
                want = self.table.get(("signal", e.name))
                if want is not None or e.name not in self.constant:  # of parameters alone: its readers say what it is
                    self._down(e.term, want)
            if before == self.table:
                return

    def _raise(self, key: Key, rank: int | None) -> None:
        if rank is not None and rank > self.table.get(key, -1):
            self.table[key] = rank
            self._known.clear()

    def _remembered(self, function: Callable[[Term], int | bool | None], term: Term) -> int | bool | None:
        """What a function says of a term, computed again only when a rank has changed."""
        key = function, id(term)
        if key not in self._known:
            self._known[key] = function(term)
        return self._known[key]

    def up(self, term: Term) -> int | None:
        """The rank of a term as far as it is known."""
        return self._remembered(self._up, term)

    def is_vector(self, term: Term) -> bool | None:
        """Whether something in a term, other than a parameter of unknown rank, makes it a vector; None while that is open."""
        found = self._remembered(self._is_vector, term)
        return None if found is None else bool(found)

    def _up(self, term: Term) -> int | None:
        match term.kind:
            case "number" | "size":
                return 0
            case "signal":
                return self.table.get(("signal", term.value[0]))
            case "parameter":
                return self.table.get(("parameter", term.value))
            case "transpose":
                return 2
            case "join":
                return 1
            case "binary" if term.value == "@":
                a, b = (self.up(x) for x in term.args)
                if b is None or self.is_vector(term.args[0]) is None:
                    return None  # a vector or a matrix: what is known later decides
                return {(2, 2): 2, (1, 1): 0, (1, 2): 1}.get((2 if a is None else a, b), 1)
            case "call" if term.value in REDUCTIONS:
                return 0
            case "call" if term.value == "outer":
                return 2
            case "call" if term.value in ROWS:
                found = self.up(term.args[0])
                return None if found is None else max(found, 1)
        known = [r for r in map(self.up, term.args) if r is not None]
        if known and max(known) == 0 and len(known) < len(term.args):
            return None if any(a.kind == "number" for a in term.args) else 0
        return max(known, default=None)

    def _is_vector(self, term: Term) -> bool | None:
        match term.kind:
            case "signal":
                rank = self.table.get(("signal", term.value[0]))
                return False if term.value[0] in self.constant else None if rank is None else rank == 1
            case "parameter":
                return self.declared.get(term.value) == 1
            case "join":
                return True
            case "number" | "size" | "transpose":
                return False
            case "call" if term.value in REDUCTIONS or term.value == "outer":
                return False
            case "binary" if term.value == "@":
                left, right = map(self.is_vector, term.args)
                return None if left is None or right is None else left != right
        found = [self.is_vector(a) for a in term.args]
        return True if True in found else None if None in found else False

    def _down(self, term: Term, want: int | None) -> None:
        match term.kind:
            case "parameter":
                if term.value not in self.fixed:
                    self._raise(("parameter", term.value), want)
            case "signal":
                if term.value[0] in self.constant and self.up(term) is None:
                    self._raise(("signal", term.value[0]), want)
            case "transpose":
                self._raise(("parameter", term.value), 2)
            case "join":
                self._each(term, None)
            case "binary" if term.value == "@":
                left, right = term.args
                self._down(left, 2 if left.kind == "parameter" or self.is_vector(left) is False else None)
                open_ = self.up(right) is None and self.is_vector(right) is not None
                self._down(right, None if not open_ else 2 if want == 2 else 1)
            case "call" if term.value in REDUCTIONS:
                self._each(term, self.up(term.args[0]))
            case "call" if term.value == "outer":
                self._each(term, 1)
            case "call" if term.value in ROWS:
                known = self.up(term)
                self._each(term, want if known is None else known)
            case _:
                known = self.up(term)
                self._each(term, known if want is None else want if known is None else max(known, want))

    def _each(self, term: Term, want: int | None) -> None:
        for a in term.args:
            self._down(a, want)


def constant_equations(order: Iterable[Equation]) -> list[Equation]:
    """The equations of parameters alone, or of quantities that are."""
    found: dict[str, Equation] = {}
    for e in order:
        if all(not t.value[1] and t.value[0] in found for t in e.term.walk() if t.kind == "signal"):
            found[e.name] = e
    return list(found.values())


def reads_signals(term: Term) -> bool:
    return any(t.kind == "signal" for t in term.walk())


def factors(term: Term) -> list[Term]:
    """The factors of a product: a, b, c of `a * b / c`."""
    return [f for a in term.args for f in factors(a)] if term.value in ("*", "/") else [term]


# ---- parameters that may have been meant as numbers

def likely_gains(system: System, ranks: Ranks) -> list[str]:
    """Parameters with small letters that are matrices only because they stand to the left of `@` beside another matrix: a
    number is as likely there."""
    matrices = {p for (kind, p), r in ranks.table.items() if kind == "parameter" and r == 2}
    reach = _Reach(ranks.constant)
    inside, elsewhere = set[str](), {d.name for d in system.declarations if d.sizes is not None}
    for e in system.equations:
        stack = [e.term] if e.name not in ranks.constant else []
        while stack:
            t = stack.pop()
            if t.kind == "binary" and t.value == "@":
                own = reach.parameters(t.args[0])
                inside |= {p for p in own if len(matrices & own) > 1}
                stack.append(t.args[1])
            elif t.args:
                stack.extend(t.args)
            else:
                elsewhere |= reach.parameters(t)
        for t in e.term.walk():
            elsewhere |= {a.value for a in t.args if t.value == "@" and a.kind == "parameter"}
            elsewhere |= {t.value} if t.kind == "transpose" else set()
    return [p for p in dict.fromkeys(t.value for e in system.equations for t in e.term.walk() if t.kind == "parameter")
            if p[0].islower() and p in inside & matrices and p not in elsewhere]


class _Reach:
    """The parameters that a term reads, those of quantities that are made of parameters alone included."""

    def __init__(self, constant: Mapping[str, Term]) -> None:
        self.constant, self.known = constant, dict[str, frozenset[str]]()

    def parameters(self, term: Term) -> frozenset[str]:
        found = {t.value for t in term.walk() if t.kind in ("parameter", "transpose")}
        for t in term.walk():
            if t.kind == "signal" and t.value[0] in self.constant:
                name = t.value[0]
                if name not in self.known:
                    self.known[name] = self.parameters(self.constant[name])
                found |= self.known[name]
        return frozenset(found)
