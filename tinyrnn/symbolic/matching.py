"""Which parameters of one cell play the part of which parameters of another.

One step of each cell is run in polynomials at sizes of two.  Every function that was applied (a gate, the tanh of a
memory) is then known by its argument: a sum of `parameter entry × multiplier`, e.g. W_f[0,1] × h[t-1][1], and a rest
without parameters.  Two functions correspond when their multipliers and rests do; parameters correspond when they
have the same multiplier in corresponding functions.  So gates may be permuted or negated (σ(-a) = 1 - σ(a)), biases
merged or split, matrices joined or apart, transposed, or absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, permutations, product
from typing import Any

import numpy as np

from ..cells.cell import Cell
from ..cells.sizes import concrete
from ..domains import Exact, Polynomials
from ..domains.exact import Array
from ..domains.field import MIRROR
from ..domains.objects import BITS, Polynomial

Entry = tuple[str, tuple[int, ...]]
BUDGET = 20_000


class _Recording(Polynomials):
    """Polynomials that note every application of a function: its canonical arguments and output generators.

    With `cut`, a product of matrices is such a function as well, so that what multiplies it (a gain behind a
    normalisation) stands beside one parameter only.
    """

    def __init__(self, cut: bool) -> None:
        super().__init__(one_sigmoid=True)
        self.cut, self.odd = cut, False
        self.calls: list[Call] = []

    def matmul(self, a: Array, b: Array) -> Array:
        product = super().matmul(a, b)
        return self.function("matmul", product) if self.cut else product

    def function(self, name: str, a: Array) -> Array:
        if name == "tanh":
            self.odd = True
            out = super().function(name, a)
            self.odd = False
            return out
        before, odd = len(self.names), self.odd
        out = super().function(name, a)
        units = []
        for p, y in zip(a.ravel(), out.ravel(), strict=True):
            mirrored = name in MIRROR and (name, p) not in self._outputs
            base = MIRROR[name](y) if mirrored else y
            if len(base.terms) == 1 and base.degree == 1:
                units.append((-p if mirrored else p, _generator(base)))
        if len(units) == a.size and len(self.names) > before:
            self.calls.append(Call(name, tuple(a.shape[1:]), tuple(units), odd))
        return out


@dataclass(frozen=True)
class Call:
    """A function applied to an array: (argument, generator of the output) for each unit."""

    name: str
    shape: tuple[int, ...]
    units: tuple[tuple[Polynomial, int], ...]
    odd: bool                       # a tanh, written as 2 sigmoid - 1


def _generator(p: Polynomial) -> int:
    return next(k for k, _ in p.exponents(next(iter(p.terms))))


@dataclass
class Profile:
    """One step of a cell in polynomials."""

    cell: Cell
    ring: _Recording
    parameters: dict[int, Entry]            # generator -> entry of a parameter
    signals: dict[str, Array]               # inputs and remembered values: x[t], h[t-1]
    results: dict[str, Polynomial]          # unit 0 of every output and state
    gates: dict[int, str]                   # call -> the quantity it computes

    @property
    def calls(self) -> list[Call]:
        return self.ring.calls


def profile(cell: Cell, cut: bool = False) -> Profile:
    """Run one step at sizes of two."""
    ring = _Recording(cut)
    domain = Exact(ring)
    sizes = dict.fromkeys(cell.sizes, 2)
    graph = cell.graph(sizes, batch=1)
    nodes = {**graph.inputs}
    rng = np.random.default_rng(0)
    given = {k: domain.given(rng.uniform(0.2, 1.2, n.shape), ring.generators(k, n.shape)) for k, n in nodes.items()}
    parameters = {_generator(p): (k, i) for k, x in given.items() if k in cell.parameters for i, p in np.ndenumerate(x.value)}
    signals = {k: x.value for k, x in given.items() if k not in cell.parameters}
    run = graph.run(given, domain=domain)
    results = {k: domain.lift(v).value.ravel()[0] for k, v in run.items()}
    labelled = type(graph)({label.name: n for label, n in graph.labels.items() if n.floating})
    values = labelled.run({k: given[k] for k in labelled.inputs}, domain=domain)
    first = {call.units[0][1]: i for i, call in enumerate(ring.calls)}
    gates = {}
    for name, v in values.items():
        p = domain.lift(v).value.ravel()[0]
        found = [first[k] for m in p.terms for k, _ in p.exponents(m) if k in first]
        if len(p.terms) <= 2 and p.degree <= 1 and found:
            gates[found[0]] = name
    return Profile(cell, ring, parameters, signals, results, gates)


# ---- one polynomial in terms of parameters

@dataclass(frozen=True)
class Form:
    """A polynomial as Σ entry × multiplier + rest."""

    slots: dict[Polynomial, tuple[Entry, ...]]
    rest: Polynomial


def form(p: Polynomial, parameters: Mapping[int, Entry]) -> Form:
    """Parameters that occur linearly, grouped by what they are multiplied with."""
    linear: dict[Entry, dict[int, Any]] = {}
    rest: dict[int, Any] = {}
    for m, c in p.terms.items():
        own = [(k, e) for k, e in p.exponents(m) if k in parameters]
        if len(own) == 1 and own[0][1] == 1:
            linear.setdefault(parameters[own[0][0]], {})[m - (1 << BITS * own[0][0])] = c
        else:
            rest[m] = c
    slots: dict[Polynomial, list[Entry]] = {}
    for entry, terms in linear.items():
        slots.setdefault(Polynomial(terms, p.degree, p.budget), []).append(entry)
    return Form({k: tuple(v) for k, v in slots.items()}, Polynomial(rest, p.degree, p.budget))


def translated(p: Polynomial, table: Mapping[int, Polynomial], zero: Polynomial) -> Polynomial | None:
    """The polynomial with every generator replaced; None where one has no replacement yet."""
    total = zero
    for m, c in p.terms.items():
        product = zero + c
        for k, e in p.exponents(m):
            if k not in table:
                return None
            for _ in range(e):
                product = product * table[k]
        total = total + product
    return total


# ---- the search

@dataclass(frozen=True)
class Link:
    """Entries of `a` with one multiplier, and those of `b` with the same: Σ a = sign Σ b."""

    ours: tuple[Entry, ...]
    theirs: tuple[Entry, ...]
    sign: int


@dataclass(frozen=True)
class Mismatch:
    """A place where the two cells differ: a gate's argument or a result."""

    ours: str
    theirs: str


@dataclass
class Match:
    """A complete assignment."""

    links: list[Link]
    mismatches: list[Mismatch]
    names: dict[str, str]           # quantity of a -> quantity of b
    negated: dict[str, str]         # gate of a that is the mirror image of its counterpart -> its function


@dataclass
class _State:
    table: dict[int, Polynomial]
    links: dict[Entry, tuple[frozenset[Entry], int]] = field(default_factory=dict)
    slots: list[Link] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    used: dict[int, int] = field(default_factory=dict)
    signs: dict[int, int] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(dict(self.table), dict(self.links), list(self.slots), list(self.mismatches), dict(self.used),
                      dict(self.signs))


class Search:
    """All ways to see `b` as an instance of `a`; `slack` places may differ."""

    def __init__(self, a: Profile, b: Profile, slack: int = 0, absent: bool = True) -> None:
        self.a, self.b, self.slack, self.absent = a, b, slack, absent
        self.visited = 0
        zero = next(iter(b.ring.generators("zero", (1,))))
        self.zero = zero - zero

    def matches(self, signals: Mapping[str, str]) -> Iterator[Match]:
        """Assignments under a pairing of inputs and remembered values."""
        table: dict[int, Polynomial] = {}
        for ours, theirs in signals.items():
            for p, q in zip(self.a.signals[ours].ravel(), self.b.signals[theirs].ravel(), strict=True):
                table[_generator(p)] = q
        names = {e: k for k, e in self.b.parameters.items()}
        for k, entry in self.a.parameters.items():
            if entry in names:
                table[k] = self._b(names[entry])
        yield from self._extend(0, _State(table), signals)

    def _b(self, generator: int) -> Polynomial:
        return Polynomial({1 << BITS * generator: 1}, 1, self.zero.budget)

    def _extend(self, k: int, state: _State, signals: Mapping[str, str]) -> Iterator[Match]:
        self.visited += 1
        if self.visited > BUDGET:
            return
        if k == len(self.a.calls):
            yield from self._finish(state, signals)
            return
        call = self.a.calls[k]
        ours = form(call.units[0][0], self.a.parameters)
        for j, sign in self._candidates(k, call, state):
            other = self.b.calls[j]
            theirs = form(other.units[0][0], self.b.parameters)
            nxt = state.copy()
            where = (self.a.gates.get(k, call.name), self.b.gates.get(j, other.name))
            if self._compare(ours, theirs, sign, nxt, where):
                nxt.used[k], nxt.signs[k] = j, sign
                mirror = MIRROR[call.name] if sign < 0 else lambda y: y
                for (_, mine), (_, yours) in zip(call.units, other.units, strict=True):
                    nxt.table[mine] = mirror(self._b(yours))
                yield from self._extend(k + 1, nxt, signals)

    def _candidates(self, k: int, call: Call, state: _State) -> list[tuple[int, int]]:
        fit = [j for j, c in enumerate(self.b.calls)
               if (c.name, c.shape, len(c.units)) == (call.name, call.shape, len(call.units))]
        name = self.a.gates.get(k)
        fit.sort(key=lambda j: (j in state.used.values(), self.b.gates.get(j) != name, abs(j - k)))
        signs = (1, -1) if call.name in MIRROR else (1,)
        return [(j, s) for s in signs for j in fit]

    def _compare(self, ours: Form, theirs: Form, sign: int, state: _State, where: tuple[str, str]) -> bool:
        """Link the slots of two arguments; what does not fit is a mismatch, as far as the slack allows."""
        mine: dict[Polynomial, tuple[Entry, ...]] = {}
        for multiplier, entries in ours.slots.items():
            moved = translated(multiplier, state.table, self.zero)
            if moved is None:
                return False
            mine[moved] = (*mine.get(moved, ()), *entries)
        rest = translated(ours.rest, state.table, self.zero)
        if rest is None:
            return False
        wrong = (rest - theirs.rest * sign) != 0
        for multiplier, entries in theirs.slots.items():
            turned = 1 if multiplier in mine else -1
            found = mine.pop(multiplier if turned == 1 else -multiplier, None)
            wrong |= found is None or not self._link(found, entries, sign * turned, state)
        for entries in mine.values():
            wrong |= not self.absent or not self._link(entries, (), 1, state)
        if wrong:
            state.mismatches.append(Mismatch(*where))
        return len(state.mismatches) <= self.slack

    def _link(self, ours: tuple[Entry, ...], theirs: tuple[Entry, ...], sign: int, state: _State) -> bool:
        value = (frozenset(theirs), sign if theirs else 1)
        for i, entry in enumerate(ours):
            wanted = value if i == 0 else (frozenset[Entry](), 1)
            if state.links.setdefault(entry, wanted) != wanted:
                return False
        state.slots.append(Link(ours, theirs, sign))
        return True

    def _finish(self, state: _State, signals: Mapping[str, str]) -> Iterator[Match]:
        states = {k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}
        pairs = dict(states)
        free = [o for o in self.b.cell.outputs if o not in pairs.values()]
        for o in self.a.cell.outputs:
            if o not in pairs and free:
                pairs[o] = free.pop(free.index(o) if o in free else 0)
        last = state.copy()
        for ours, theirs in pairs.items():
            a, b = self.a.results.get(f"{ours}[t]"), self.b.results.get(f"{theirs}[t]")
            if (a is None) != (b is None):
                return
            if a is not None and b is not None and not self._compare(
                    form(a, self.a.parameters), form(b, self.b.parameters), 1, last, (ours, theirs)):
                return
        gates = {self.a.gates[k]: self.b.gates[j] for k, j in last.used.items() if k in self.a.gates and j in self.b.gates}
        negated = {self.a.gates[k]: "tanh" if self.a.calls[k].odd else self.a.calls[k].name
                   for k, s in last.signs.items() if s < 0 and k in self.a.gates}
        yield Match(last.slots, last.mismatches, {**gates, **pairs}, negated)


def pairings(a: Cell, b: Cell) -> Iterator[dict[str, str]]:
    """Inputs with inputs and states with states of the same shape and lags; equal names first."""
    for inputs in _orders(a, b, a.inputs, b.inputs):
        for states in _orders(a, b, a.states, b.states):
            pairs = {**inputs, **states}
            ours = {(n, k) for n, k in a.slots}
            theirs = {(n, k) for n, k in b.slots}
            if {(pairs[n], k) for n, k in ours} == theirs and all(
                    (x in a.outputs) == (y in b.outputs) for x, y in pairs.items()):
                yield {**{f"{x}[t]": f"{y}[t]" for x, y in inputs.items()},
                       **{f"{n}[t-{k}]": f"{pairs[n]}[t-{k}]" for n, k in a.slots}}


def _orders(a: Cell, b: Cell, ours: Sequence[str], theirs: Sequence[str]) -> Iterator[dict[str, str]]:
    if len(ours) != len(theirs) or len(ours) > 6:
        return
    orders = [dict(zip(ours, p, strict=True)) for p in permutations(theirs)]
    orders.sort(key=lambda d: sum(x != y for x, y in d.items()))
    for d in orders:
        if all(len(a.signals[x]) == len(b.signals[y]) for x, y in d.items()):
            yield d


# ---- from entries to blocks of parameters

@dataclass(frozen=True)
class Block:
    """A part of a parameter that belongs to one pair of sizes: columns h of a matrix over [h, x]."""

    parameter: str
    parts: tuple[int, ...]          # which part along each axis

    def show(self, cell: Cell) -> str:
        shape = cell.parameters[self.parameter]
        if all("+" not in s for s in shape):
            return self.parameter
        index = ", ".join(":" if "+" not in s else _range(s.split("+"), k) for s, k in zip(shape, self.parts, strict=True))
        return f"{self.parameter}[{index}]"


def _range(parts: Sequence[str], k: int) -> str:
    start = "+".join(parts[:k])
    return f"{start}:{'+'.join(parts[:k + 1])}" if k + 1 < len(parts) else f"{start}:"


def block_of(cell: Cell, entry: Entry) -> tuple[Block, tuple[int, ...]]:
    """The block of an entry at sizes of two, and the position within it."""
    name, index = entry
    sizes = dict.fromkeys(cell.sizes, 2)
    which, local = [], []
    for text, i in zip(cell.parameters[name], index, strict=True):
        starts = [0, *accumulate(concrete((part,), sizes)[0] for part in text.split("+"))]
        k = max(j for j, start in enumerate(starts[:-1]) if start <= i)
        which.append(k)
        local.append(i - starts[k])
    return Block(name, tuple(which)), tuple(local)


@dataclass(frozen=True)
class Term:
    """± a block, transposed or not."""

    block: Block
    sign: int
    transposed: bool


Blocks = dict[Block, tuple[Term, ...]]


def block_mapping(match: Match, a: Cell, b: Cell) -> Blocks | None:
    """Every block of `a` as a signed sum of blocks of `b`; None where entries of one block disagree."""
    found: Blocks = {}
    for link in match.links:
        for i, entry in enumerate(link.ours):
            block, local = block_of(a, entry)
            terms = tuple(_term(b, other, local, link.sign) for other in link.theirs) if i == 0 else ()
            previous = found.get(block)
            if previous is None or _agree(previous, terms, local):
                found[block] = terms if previous is None or len(set(local)) > 1 else previous
            else:
                return None
    for p in a.parameters:  # what occurs in no linear place keeps its name
        if not any(block.parameter == p for block in found) and a.parameters[p] == b.parameters.get(p):
            for parts in product(*(range(len(s.split("+"))) for s in a.parameters[p])):
                found[Block(p, parts)] = (Term(Block(p, parts), 1, False),)
    return found


def _term(cell: Cell, entry: Entry, local: tuple[int, ...], sign: int) -> Term:
    block, other = block_of(cell, entry)
    return Term(block, sign, len(other) == 2 and other != local and other == local[::-1])


def _agree(p: tuple[Term, ...], q: tuple[Term, ...], local: tuple[int, ...]) -> bool:
    """Equal up to transposition, which a diagonal entry does not show."""
    return {(t.block, t.sign) for t in p} == {(t.block, t.sign) for t in q}

