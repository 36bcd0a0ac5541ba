"""Ranks and sizes of every quantity of a cell, inferred from its equations.

A rank is 0 (one number), 1 (vector) or 2 (matrix), for one example.  Ranks come from a fixpoint from below: what stands
to the left of `@` without anything known to be a vector is a matrix, with all its undeclared parameters; elsewhere a
parameter without evidence is a vector.  A size is a sum of unknown sizes and a whole number, solved by unification:
`W @ v` makes W a matrix [out, in]; elementwise operands share a size; concatenation adds sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import EquationError
from .equations import REDUCTIONS, ROWS, Equation, System, Term, show

MAX_TERMS = 64  # sizes in one sum, such as h+x+y

Key = tuple[str, str]  # ("signal" or "parameter", name)


# ---- ranks

class Ranks:
    """The fixpoint: bottom-up what is known, top-down what a parameter must then be."""

    def __init__(self, system: System, inputs: Iterable[str], order: Iterable[Equation]) -> None:
        self.table: dict[Key, int] = {("signal", x): 1 for x in inputs}
        self.declared = {d.name: len(d.sizes) for d in system.declarations if d.sizes is not None}
        self.table.update({("parameter", p): r for p, r in self.declared.items()})
        self.table.update({("parameter", c): 0 for c, _ in system.constants})
        self.fixed = {*self.declared, *(c for c, _ in system.constants)}
        self.equations = tuple(order)  # sources before users: few rounds settle everything
        self.constant = {e.name for e in self.equations if not _signals(e.term)}  # functions of parameters alone
        self._settle()
        for e in self.equations:
            self.table.setdefault(("signal", e.name), 1)
        self._settle()
        for e in self.equations:
            for term in e.term.walk():
                if term.kind == "parameter":
                    self.table.setdefault(("parameter", term.value), 1)
        self._settle()

    def _settle(self) -> None:
        for _ in range(3 * len(self.equations) + 3):
            before = dict(self.table)
            for e in self.equations:
                self._raise(("signal", e.name), self.up(e.term))
                self._down(e.term, self.table.get(("signal", e.name)))
            if before == self.table:
                return

    def _raise(self, key: Key, rank: int | None) -> None:
        if rank is not None:
            self.table[key] = max(rank, self.table.get(key, 0))

    def up(self, term: Term) -> int | None:
        """The rank of a term as far as it is known."""
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
                if self.is_vector(term.args[0]) is None:
                    return None  # a vector or a matrix: what is known later decides
                return {(2, 2): 2, (1, 1): 0, (1, 2): 1}.get((2 if a is None else a, 1 if b is None else b), 1)
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

    def is_vector(self, term: Term) -> bool | None:
        """Whether something in a term, other than a parameter of unknown rank, makes it a vector; None while that is open."""
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


# ---- sizes

@dataclass(frozen=True, slots=True)
class Size:
    """A sum of unknowns (by number, in order) and a whole number."""

    atoms: tuple[int, ...] = ()
    extra: int = 0


@dataclass
class Unifier:
    """Unknown sizes and what they were found to be."""

    bound: dict[int, Size] = field(default_factory=dict)
    why: dict[int, Equation] = field(default_factory=dict)
    count: int = 0

    def new(self) -> Size:
        self.count += 1
        return Size((self.count,))

    def solve(self, size: Size) -> Size:
        """A size with everything known put in."""
        atoms: list[int] = []
        extra = size.extra
        for a in size.atoms:
            if a in self.bound:
                self.bound[a] = inner = self.solve(self.bound[a])
                atoms += inner.atoms
                extra += inner.extra
            else:
                atoms.append(a)
            if len(atoms) > MAX_TERMS:
                raise EquationError(f"a size would be a sum of more than {MAX_TERMS} sizes; join fewer vectors")
        return Size(tuple(atoms), extra)

    def unify(self, a: Size, b: Size, equation: Equation) -> bool | None:
        """Make two sizes equal: True done, False impossible, None not decided yet."""
        a, b = self.solve(a), self.solve(b)
        left, right = Counter(a.atoms), Counter(b.atoms)
        common = left & right
        left, right = left - common, right - common
        extra = a.extra - b.extra
        if not left and not right:
            return extra == 0
        for one, other, order, more in ((left, right, b.atoms, -extra), (right, left, a.atoms, extra)):
            if one.total() == 1 and more >= 0 and (other or more >= 1):
                name = next(iter(one))
                self.bound[name] = Size(_pick(order, other), more)
                self.why[name] = equation
                return True
        return False if not left or not right else None


def _pick(order: tuple[int, ...], wanted: Counter[int]) -> tuple[int, ...]:
    """`wanted` in the order in which it stands in `order`."""
    left = Counter(wanted)
    out = []
    for a in order:
        if left[a]:
            left[a] -= 1
            out.append(a)
    return tuple(out)


class Sizes:
    """The sizes of every signal and parameter, as sums of names."""

    def __init__(self, system: System, ranks: Ranks, naming: Iterable[str]) -> None:
        self.ranks, self.unifier = ranks.table, Unifier()
        self.given = ranks.fixed
        self.size: dict[Key, tuple[Size, ...]] = {k: tuple(self.unifier.new() for _ in range(r)) for k, r in self.ranks.items()}
        self.later: list[tuple[Size, Size, Term, Equation]] = []
        self.naming = list(naming)
        self.names: dict[int, str] | None = None
        self.equation = system.equations[0]
        for equation in system.equations:
            self.equation = equation
            try:
                self._equation(equation)
            except EquationError as error:
                raise error if error.line else equation.place.error(str(error)) from None
        self._settle()
        self._declared(system)
        self._check_positive(system)
        self.names = self._name_unknowns()

    def _equation(self, e: Equation) -> None:
        own, found = self.size["signal", e.name], self._of(e.term)
        if len(found) != len(own):
            raise e.place.error(f"{e.name}[t] is a {_rank(len(own))} elsewhere and a {_rank(len(found))} here")
        for a, b in zip(own, found, strict=False):
            self._equal(a, b, e.term)

    def _equal(self, a: Size, b: Size, term: Term) -> None:
        verdict = self.unifier.unify(a, b, self.equation)
        if verdict is False:
            raise self._clash(a, b, term, self.equation)
        if verdict is None:
            self.later.append((a, b, term, self.equation))

    def _settle(self) -> None:
        while self.later:
            todo, self.later = self.later, []
            for a, b, term, equation in todo:
                self.equation = equation
                self._equal(a, b, term)
            if len(self.later) == len(todo):
                a, b, term, equation = self.later[0]
                raise self._clash(a, b, term, equation)

    def _of(self, term: Term) -> tuple[Size, ...]:
        match term.kind:
            case "number" | "size":
                return ()
            case "signal":
                return self.size["signal", term.value[0]]
            case "parameter":
                return self.size["parameter", term.value]
            case "transpose":
                return self._parameter_matrix(term)[::-1]
            case "join":
                return (self._joined(term),)
            case "binary" if term.value == "@":
                return self._product(term)
        if term.kind == "call" and term.value in REDUCTIONS:
            self._of(term.args[0])
            return ()
        if term.kind == "call" and term.value == "outer":
            a, b = (self._of(x) for x in term.args)
            if (len(a), len(b)) != (1, 1):
                raise term.place.error(f"outer takes two vectors, got a {_rank(len(a))} and a {_rank(len(b))}")
            return (*a, *b)
        if term.kind == "call" and term.value in ROWS:
            found = self._of(term.args[0])
            if not found:
                raise term.place.error(f"{term.value} needs a vector or a matrix, got one number")
            return found
        return self._elementwise(term)

    def _parameter_matrix(self, term: Term) -> tuple[Size, ...]:
        found = self.size["parameter", term.value]
        if len(found) != 2:
            raise term.place.error(f"{term.value}.T needs a matrix, {term.value} is a {_rank(len(found))}")
        return found

    def _joined(self, term: Term) -> Size:
        parts = []
        for a in term.args:
            found = self._of(a)
            if len(found) > 1:
                raise a.place.error("[a, b] joins vectors, this is a matrix")
            parts.append(self.unifier.solve(found[0]) if found else Size((), 1))
        return Size(tuple(x for p in parts for x in p.atoms), sum(p.extra for p in parts))

    def _product(self, term: Term) -> tuple[Size, ...]:
        left, right = term.args
        a, b = self._of(left), self._of(right)
        if not a or not b:
            raise term.place.error("@ needs a matrix or a vector on both sides, one side is a number; use *")
        if len(a) == 1 and not _signals(right) and (right.kind == "parameter" or self.undeclared(right)):
            raise term.place.error(f"a vector stands before a parameter: write {show(right, 3)} @ {show(left, 3)}")
        if len(a) == 1:
            self._check_left(term)
        self._equal(a[-1], b[0], term)
        return (*a[:-1], *b[1:])

    def undeclared(self, term: Term) -> list[str]:
        """The parameters in a term whose sizes nobody has written."""
        return [t.value for t in term.walk() if t.kind in ("parameter", "transpose") and t.value not in self.given]

    def _check_left(self, term: Term) -> None:
        """A parameter that makes a vector to the left of @ where a matrix may be meant."""
        left, right = term.args
        parts = left.args if left.kind == "join" else _factors(left) if left.value in ("*", "/") else ()
        bare = [p for p in parts if not _signals(p) and self.undeclared(p)]
        if not bare:
            return
        name, others = self.undeclared(bare[0])[0], [p for p in parts if p is not bare[0]]
        if left.kind == "join":
            meant = f"a matrix over joined vectors is one parameter, W @ {show(right, 3)}"
        else:
            other = show(others[0], 3) if others else "..."
            meant = f"write {other} {left.value} ({show(bare[0], 3)} @ {show(right, 3)}) to scale a product"
        size = self._text(self._of(right)[0])
        raise term.place.error(f"{name} stands to the left of @ in {_cut(show(left))}, which is a vector: {meant}, or declare "
                               f"'{name}: ({size},)' for the product of two vectors, which is a number")

    def _elementwise(self, term: Term) -> tuple[Size, ...]:
        found = [self._of(a) for a in term.args]
        top = max(found, key=len)
        for a, size in zip(term.args, found, strict=True):
            if size and len(size) != len(top):
                raise a.place.error(f"{show(term)} mixes a vector with a matrix; use a number, outer(...) or @")
            for p, q in zip(top, size, strict=False):
                self._equal(p, q, term)
        return top

    def _declared(self, system: System) -> None:
        by_name = {self._text(s): s for k in self._order() for s in self.size.get(k, ())}
        for d in (d for d in system.declarations if d.sizes is not None):
            for text, size in zip(d.sizes or (), self.size.get(("parameter", d.name), ()), strict=True):
                parts = [by_name.get(p, Size((), int(p)) if p.isdigit() else None) for p in text.split("+")]
                known = [p for p in parts if p is not None]
                if len(known) < len(parts):
                    raise d.place.error(f"unknown size in {text!r}; the sizes are {', '.join(sorted(by_name))}")
                total = Size(tuple(a for p in known for a in p.atoms), sum(p.extra for p in known))
                if self.unifier.unify(size, total, system.equations[0]) is not True:
                    raise d.place.error(f"{d.name} is declared {text!r} and used as {self._text(size)!r}")

    def _check_positive(self, system: System) -> None:
        for key, sizes in self.size.items():
            for s in map(self.unifier.solve, sizes):
                if not s.atoms and s.extra < 1:
                    raise EquationError(f"{key[1]} would have size {s.extra}; sizes are at least 1")

    def _order(self) -> list[Key]:
        return [("signal", n) for n in self.naming]

    def _text(self, size: Size) -> str:
        names = self._name_unknowns()
        solved = self.unifier.solve(size)
        parts = [names.get(a, f"?{a}") for a in solved.atoms] + [str(solved.extra)] * bool(solved.extra)
        return "+".join(parts) or "0"

    def _name_unknowns(self) -> dict[int, str]:
        """Unknowns by the first signal that has them, then n1, n2, ...; settled once everything is unified."""
        if self.names is not None:
            return self.names
        names: dict[int, str] = {}
        for key in self._order():
            sizes = [self.unifier.solve(s) for s in self.size.get(key, ())]
            for i, s in enumerate(sizes):
                if len(s.atoms) == 1 and not s.extra:
                    names.setdefault(s.atoms[0], key[1] if len(sizes) == 1 else f"{key[1]}_{('rows', 'cols')[i]}")
        free = {a for sizes in self.size.values() for s in sizes for a in self.unifier.solve(s).atoms} - set(names)
        for i, a in enumerate(sorted(free), 1):
            names[a] = f"n{i}"
        return names

    def _clash(self, a: Size, b: Size, term: Term, equation: Equation) -> EquationError:
        causes = [self.unifier.why[x] for x in dict.fromkeys((*a.atoms, *b.atoms)) if x in self.unifier.why]
        others = dict.fromkeys(e for e in causes if e != equation)
        known = "".join(f"; line {o.place.line} says {o.name}[t] = {_cut(show(o.term))}" for o in others)
        return term.place.error(f"sizes do not fit in {_cut(show(term))} (equation of {equation.name}[t]): "
                                f"{self._text(a)} and {self._text(b)}{known}")

    def symbolic(self, key: Key) -> tuple[str, ...]:
        """A shape as names: ("h", "h+x")."""
        return tuple(map(self._text, self.size[key]))


def _signals(term: Term) -> bool:
    return any(t.kind == "signal" for t in term.walk())


def _factors(term: Term) -> list[Term]:
    """The factors of a product: a, b, c of `a * b / c`."""
    return [f for a in term.args for f in _factors(a)] if term.value in ("*", "/") else [term]


def likely_gains(system: System, ranks: Mapping[Key, int]) -> list[str]:
    """Parameters that became matrices only as factors to the left of `@`, although numbers are as likely by their names."""
    terms = [t for e in system.equations for t in e.term.walk()]
    declared = {d.name for d in system.declarations if d.sizes is not None}
    products = [p for t in terms if t.value == "@" for p in t.args[0].walk() if p.value in ("*", "/")]
    bare = Counter(f.value for p in products for f in p.args if f.kind == "parameter" and _beside_a_matrix(f, p))
    uses = Counter(t.value for t in terms if t.kind in ("parameter", "transpose"))
    return [p for p, n in bare.items()
            if p[0].islower() and ranks["parameter", p] == 2 and p not in declared and uses[p] == n]


def _beside_a_matrix(factor: Term, product: Term) -> bool:
    """Whether something else than the factor itself and numbers stands in a product."""
    return any(t.kind in ("parameter", "transpose", "signal") and t.value != factor.value for t in product.walk())


def _rank(n: int) -> str:
    return ("number", "vector", "matrix")[n]


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def concrete(shape: Iterable[str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Names replaced by numbers: ("h", "h+x") with h=3, x=2 is (3, 5)."""
    return tuple(sum(int(p) if p.isdigit() else sizes[p] for p in s.split("+")) for s in shape)


