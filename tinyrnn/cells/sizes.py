"""Sizes of every quantity of a cell, inferred from its equations.

A size is a sum of unknown sizes and a whole number, solved by unification:
`W @ v` makes W a matrix [out, in]; elementwise operands share a size; concatenation adds sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..errors import EquationError, ShapeError
from .equations import REDUCTIONS, ROWS
from .ranks import Key, Ranks, factors, reads_signals
from .terms import Equation, System, Term, show

MAX_TERMS = 64  # sizes in one sum, such as h+x+y


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
        self.equations = system.equations
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
        if len(a) == 1 and not reads_signals(right) and (right.kind == "parameter" or self.undeclared(right)):
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
        product = left if left.kind == "join" else next((t for t in _entrywise(left) if self._bare(t)), left)
        bare = self._bare(product)
        if not bare:
            return
        name, others = self.undeclared(bare[0])[0], [show(p, 3) for p in _parts(product) if p is not bare[0]]
        if left.kind == "join":
            meant = f"a matrix over joined vectors is one parameter, W @ {show(right, 3)}"
        elif product is left:
            before = f" {left.value} ".join(others)
            meant = f"write {before} {left.value} ({show(bare[0], 3)} @ {show(right, 3)}) to scale a product"
        else:
            meant = f"products of matrices and vectors are written {show(bare[0], 3)} @ ..."
        size = self._text(self._of(right)[0])
        raise term.place.error(f"{name} stands to the left of @ in {_cut(show(left))}, which is a vector: {meant}, or declare "
                               f"'{name}: ({size},)' for the product of two vectors, which is a number")

    def _bare(self, product: Term) -> list[Term]:
        """The parts of a product that are functions of undeclared parameters alone."""
        return [p for p in _parts(product) if not reads_signals(p) and self.undeclared(p)]

    def _made_matrix(self, term: Term) -> str:
        """A word for a parameter that is a matrix because of what stands elsewhere."""
        for e in self.equations:
            for t in e.term.walk():
                if t.kind == "binary" and t.value == "@" and len(parts := factors(t.args[0])) > 1:
                    for p in parts:
                        if p.kind == "parameter" and p.value[0].islower() and p.value in self.undeclared(term):
                            rest = replace(t, args=(_without(t.args[0], p), t.args[1]))
                            return (f"; {p.value} is a matrix, since it stands to the left of @ in {_cut(show(t))}: declare "
                                    f"'{p.value}: scalar' if it is a number, or write {p.value} * ({_cut(show(rest))})")
        scaled = term.value in ("*", "/")
        return f"; to scale a product write {_cut(show(term.args[0], 3))} {term.value} (... @ ...)" if scaled else ""

    def _elementwise(self, term: Term) -> tuple[Size, ...]:
        found = [self._of(a) for a in term.args]
        top = max(found, key=len)
        for a, size in zip(term.args, found, strict=True):
            if size and len(size) != len(top):
                raise a.place.error(f"{_cut(show(term))} mixes a vector with a matrix; use a number, outer(...) or @"
                                    + self._made_matrix(term))
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


def _parts(term: Term) -> list[Term]:
    return list(term.args) if term.kind == "join" else factors(term) if term.value in ("*", "/") else []


def _entrywise(term: Term) -> Iterator[Term]:
    """A term and what it is made of entry by entry: nothing inside another product with @, a sum or a join."""
    yield term
    if term.value not in ("@", "outer", *REDUCTIONS) and term.kind != "join":
        for a in term.args:
            yield from _entrywise(a)


def _without(product: Term, factor: Term) -> Term:
    """A product without one of its factors."""
    if product is factor:
        return Term("number", 1.0)
    if product.value not in ("*", "/"):
        return product
    a, b = (_without(x, factor) for x in product.args)
    return b if a == Term("number", 1.0) and product.value == "*" else a if b == Term("number", 1.0) else replace(
        product, args=(a, b))


def _rank(n: int) -> str:
    return ("number", "vector", "matrix")[n]


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def concrete(shape: Iterable[str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Names replaced by numbers: ("h", "h+x") with h=3, x=2 is (3, 5)."""
    return tuple(sum(int(p) if p.isdigit() else sizes[p] for p in s.split("+")) for s in shape)


def solved(axes: Iterable[tuple[str, int, str]]) -> dict[str, int]:
    """Sizes from the lengths of axes: each a text such as `h`, `h+x` or `3`, its length, and what it is called in an error."""
    left = [(Counter(s for s in text.split("+") if not s.isdigit()),
             n - sum(int(s) for s in text.split("+") if s.isdigit()), f"{what} has {n}") for text, n, what in axes]
    found: dict[str, int] = {}
    while left:
        ready = [(k, axis) for k, axis in enumerate(left) if len(set(axis[0]) - set(found)) <= 1]
        if not ready:
            unknown = sorted({s for names, *_ in left for s in names} - set(found))
            raise ShapeError(f"the sizes {', '.join(unknown)} do not follow from the shapes")
        k, (names, n, said) = ready[0]
        del left[k]
        rest = n - sum(found[s] * count for s, count in names.items() if s in found)
        for s, count in ((s, c) for s, c in names.items() if s not in found):
            found[s], rest = divmod(rest, count)
        if rest or min((found[s] for s in names), default=1) < 1:
            known = ", ".join(f"{s} = {found[s]}" for s in names)
            raise ShapeError(f"{said} entries, which is not {' + '.join(f'{c} {s}' if c > 1 else s for s, c in names.items())}"
                             + f" with {known}" * bool(known))
    return found
