"""Which parameters of one cell play the part of which parameters of another.

One step of each cell is run in polynomials at sizes of two.  Every function that was applied (a gate, the tanh of a
memory) is then known by its argument: a sum of `parameter entry × multiplier`, e.g. W_f[0,1] × h[t-1][1], and a rest
without parameters.  Two functions correspond when their multipliers and rests do; parameters correspond when they
have the same multiplier in corresponding functions.  So gates may be permuted or negated (σ(-a) = 1 - σ(a)), biases
merged, split or scaled, matrices joined or apart, transposed, or absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, permutations, product
from typing import Any

import numpy as np

from ...cells.cell import Cell
from ...cells.sizes import concrete
from ...domains import Exact, Polynomials
from ...domains.exact import Array, Element
from ...domains.field import MIRROR
from ...domains.objects import BITS, Polynomial
from ...ir.graph import Graph

Entry = tuple[str, tuple[int, ...]]
BUDGET = 2_000
LIMIT = 4_000_000
MOST_RENAMED = 5


class _Recording(Polynomials):
    """Polynomials that note every application of a function: its canonical arguments and output generators.

    With `cut`, a product of matrices is such a function as well, so that what multiplies it (a gain behind a
    normalisation) stands beside one parameter only.
    """

    def __init__(self, cut: bool) -> None:
        super().__init__(LIMIT, one_sigmoid=True)
        self.cut, self.odd = cut, False
        self.calls: list[Application] = []

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
            base = MIRROR[name](y, 1) if mirrored else y
            if len(base.terms) == 1 and base.degree == 1:
                units.append((-p if mirrored else p, _generator(base)))
        if len(units) == a.size and len(self.names) > before:
            self.calls.append(Application(name, tuple(a.shape[1:]), tuple(units), odd))
        return out


class _Opaque(Exact):
    """Kinks are functions as well, whatever the branch: max(a, b) = b + relu(a - b), |x| = relu(x) + relu(-x)."""

    def relu(self, x: object) -> Any:
        x = self.lift(x)
        return Element(self, np.maximum(x.near, 0), self.ring.function("relu", x.value))

    def abs(self, x: Any) -> Any:
        return self.relu(x) + self.relu(-x)

    def maximum(self, a: Any, b: object) -> Any:
        return self.relu(self.lift(a) - b) + b

    def minimum(self, a: Any, b: object) -> Any:
        return self.lift(a) - self.relu(self.lift(a) - b)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return self.minimum(self.maximum(x, float(low)), float(high))


@dataclass(frozen=True)
class Application:
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
    def calls(self) -> list[Application]:
        return self.ring.calls


def profile(cell: Cell, cut: bool = False) -> Profile:
    """Run one step at sizes of two."""
    ring = _Recording(cut)
    domain = _Opaque(ring)
    sizes = dict.fromkeys(cell.sizes, 2)
    graph = cell.graph(sizes, batch=1)
    rng = np.random.default_rng(0)
    given = {k: domain.given(rng.uniform(0.2, 1.2, n.shape), ring.generators(k, n.shape)) for k, n in graph.inputs.items()}
    parameters = {_generator(p): (k, i) for k, x in given.items() if k in cell.parameters for i, p in np.ndenumerate(x.value)}
    signals = {k: x.value for k, x in given.items() if k not in cell.parameters}
    run = graph.run(given, domain=domain)
    results = {k: domain.lift(v).value.ravel()[0] for k, v in run.items()}
    present = set(graph.nodes)
    labelled = Graph({label.name: n for label, n in graph.labels.items() if n.floating and n in present})
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

Weighted = tuple[tuple[Entry, Fraction], ...]


@dataclass(frozen=True)
class Form:
    """A polynomial as Σ (Σ coefficient × entry) × multiplier + rest; multipliers have leading coefficient 1."""

    slots: dict[Polynomial, Weighted]
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
    slots: dict[Polynomial, list[tuple[Entry, Fraction]]] = {}
    for entry, terms in linear.items():
        scale, multiplier = monic(Polynomial(terms, p.degree, p.budget))
        slots.setdefault(multiplier, []).append((entry, scale))
    return Form({k: tuple(v) for k, v in slots.items()}, Polynomial(rest, p.degree, p.budget))


def monic(p: Polynomial) -> tuple[Fraction, Polynomial]:
    """A polynomial as a number times one whose leading coefficient is 1."""
    lead = Fraction(p.terms[max(p.terms)])
    return lead, p if lead == 1 else Polynomial({m: _plain(c / lead) for m, c in p.terms.items()}, p.degree, p.budget)


def _plain(c: Fraction) -> int | Fraction:
    return c.numerator if c.denominator == 1 else c


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
    """The entry of `a` that stands for what `b` has in one slot: ours = Σ coefficient × theirs; `idle` ones are 0."""

    ours: Entry | None
    theirs: Weighted
    idle: tuple[Entry, ...] = ()


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
    links: dict[Entry, frozenset[tuple[Entry, Fraction]]] = field(default_factory=dict)
    slots: list[Link] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    used: dict[int, int] = field(default_factory=dict)
    signs: dict[int, int] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(dict(self.table), dict(self.links), list(self.slots), list(self.mismatches), dict(self.used),
                      dict(self.signs))


@dataclass
class Effort:
    """Whether a search was cut off before it had seen all there is."""

    exhausted: bool = False
    beyond: bool = False            # whether sizes are compared with numbers that are too large to be tried
    refuted: list[tuple[Any, Any, dict[str, int], int]] = field(default_factory=list)  # a mapping, its pair, sizes, the seed


class Search:
    """All ways to see `b` as an instance of `a`; `slack` places may differ."""

    def __init__(self, a: Profile, b: Profile, slack: int, absent: bool, effort: Effort) -> None:
        self.a, self.b, self.slack, self.absent, self.effort = a, b, slack, absent, effort
        self.visited = 0
        slots = [s for call in a.calls for s in form(call.units[0][0], a.parameters).slots.values()]
        self.uses = Counter(entry for slot in slots for entry, _ in slot)
        self._place_a, self._place_b = ({p: i for i, p in enumerate(s.cell.parameters)} for s in (a, b))
        zero = next(iter(b.ring.generators("zero", (1,))))
        self.zero = zero - zero

    def matches(self, signals: Mapping[str, str]) -> Iterator[Match]:
        """Assignments under a pairing of inputs and remembered values."""
        table: dict[int, Polynomial] = {}
        for ours, theirs in signals.items():
            if ours not in self.a.signals or theirs not in self.b.signals:  # a value that one of them never reads
                continue
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
            self.effort.exhausted = True
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
                mirror = MIRROR[call.name] if sign < 0 else lambda y, one: y
                for (_, mine), (_, yours) in zip(call.units, other.units, strict=True):
                    nxt.table[mine] = mirror(self._b(yours), 1)
                yield from self._extend(k + 1, nxt, signals)

    def _candidates(self, k: int, call: Application, state: _State) -> list[tuple[int, int]]:
        fit = [j for j, c in enumerate(self.b.calls)
               if (c.name, c.shape, len(c.units)) == (call.name, call.shape, len(call.units))]
        name = self.a.gates.get(k)
        fit.sort(key=lambda j: (j in state.used.values(), self.b.gates.get(j) != name, abs(j - k)))
        signs = (1, -1) if call.name in MIRROR else (1,)
        return [(j, s) for s in signs for j in fit]

    def _compare(self, ours: Form, theirs: Form, sign: int, state: _State, where: tuple[str, str]) -> bool:
        """Link the slots of two arguments; what does not fit is a mismatch, as far as the slack allows."""
        mine: dict[Polynomial, Weighted] = {}
        for multiplier, entries in ours.slots.items():
            moved = translated(multiplier, state.table, self.zero)
            if not moved:
                return False
            scale, key = monic(moved)
            mine[key] = (*mine.get(key, ()), *((e, c * scale) for e, c in entries))
        rest = translated(ours.rest, state.table, self.zero)
        if rest is None:
            return False
        wrong = (rest - theirs.rest * sign) != 0
        for multiplier, entries in theirs.slots.items():
            found = mine.pop(multiplier, None)
            wrong |= found is None or not self._link(found, tuple((e, sign * c) for e, c in entries), state)
        for entries in mine.values():
            wrong |= not self.absent or not self._link(entries, (), state)
        if wrong:
            state.mismatches.append(Mismatch(*where))
        return len(state.mismatches) <= self.slack

    def _link(self, ours: Weighted, theirs: Weighted, state: _State) -> bool:
        """As many entries as there are on the other side take one each; else one of `a` takes the whole value, the one that is
        used least elsewhere, and the others are 0."""
        if len(ours) == len(theirs) > 1 and all(self.uses[e] <= 1 for e, _ in ours):
            places = (ours, self._place_a), (theirs, self._place_b)
            pairs = list(zip(*(_in_order(side, at) for side, at in places), strict=True))
            values = {e: ((other, c / scale),) for (e, scale), (other, c) in pairs}
            if all(state.links.get(e, frozenset(v)) == frozenset(v) for e, v in values.items()):
                state.links.update({e: frozenset(v) for e, v in values.items()})
                state.slots += [Link(e, v) for e, v in values.items()]
                return True
        nothing: frozenset[tuple[Entry, Fraction]] = frozenset()
        for chosen, scale in sorted(ours, key=lambda e: self.uses[e[0]]):
            value = tuple((e, c / scale) for e, c in theirs)
            wanted = {e: frozenset(value) if e == chosen else nothing for e, _ in ours}
            if all(state.links.get(e, w) == w for e, w in wanted.items()):
                state.links.update(wanted)
                idle = tuple(e for e, _ in ours if e != chosen) if theirs else tuple(e for e, _ in ours)
                state.slots.append(Link(chosen if theirs else None, value, idle))
                return True
        return False

    def _finish(self, state: _State, signals: Mapping[str, str]) -> Iterator[Match]:
        """Every output and state of `a` against its counterpart."""
        states = {k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}
        for outputs in output_pairings(self.a.cell, self.b.cell):
            pairs = {**states, **outputs}
            last = state.copy()
            fits = all(self._compare(form(self.a.results[f"{x}[t]"], self.a.parameters),
                                     form(self.b.results[f"{y}[t]"], self.b.parameters), 1, last, (x, y))
                       for x, y in pairs.items() if f"{x}[t]" in self.a.results)
            if fits:
                gates = {self.a.gates[k]: self.b.gates[j] for k, j in last.used.items()
                         if k in self.a.gates and j in self.b.gates}
                negated = {self.a.gates[k]: "tanh" if self.a.calls[k].odd else self.a.calls[k].name
                           for k, s in last.signs.items() if s < 0 and k in self.a.gates}
                yield Match(last.slots, last.mismatches, {**gates, **pairs}, negated)


def _in_order(entries: Weighted, places: Mapping[str, int]) -> list[tuple[Entry, Fraction]]:
    """Entries in the order in which their parameters stand in the equations."""
    return sorted(entries, key=lambda entry: (places[entry[0][0]], entry[0][1]))


def output_pairings(a: Cell, b: Cell) -> Iterator[dict[str, str]]:
    """Outputs that are no states, paired; those of one name belong together."""
    ours, theirs = ([o for o in c.outputs if o not in c.states] for c in (a, b))
    yield from _orders(a, b, ours, theirs, theirs)


def pairings(a: Cell, b: Cell) -> Iterator[dict[str, str]]:
    """Inputs with inputs and states with states of the same shape and lags.  An input or output keeps its name where the
    other cell has it; a state that is no output may be called anything."""
    if len(a.outputs) != len(b.outputs):
        return
    for inputs in _orders(a, b, a.inputs, b.inputs, b.inputs):
        for states in _orders(a, b, a.states, b.states, b.outputs):
            pairs = {**inputs, **states}
            ours = {(n, k) for n, k in a.slots}
            theirs = {(n, k) for n, k in b.slots}
            if {(pairs[n], k) for n, k in ours} == theirs and all(
                    (x in a.outputs) == (y in b.outputs) for x, y in pairs.items()):
                yield {**{f"{x}[t]": f"{y}[t]" for x, y in inputs.items()},
                       **{f"{n}[t-{k}]": f"{pairs[n]}[t-{k}]" for n, k in a.slots}}


def _orders(a: Cell, b: Cell, ours: Sequence[str], theirs: Sequence[str], kept: Sequence[str]) -> Iterator[dict[str, str]]:
    """Ways to pair names, those first that pair equal ones; a name among the kept ones is paired with itself."""
    if len(ours) != len(theirs):
        return
    same = [n for n in ours if n in theirs and n in kept]
    ours, theirs = [n for n in ours if n not in same], [n for n in theirs if n not in same]
    if len(ours) > MOST_RENAMED:
        return
    orders = [{**dict(zip(same, same, strict=True)), **dict(zip(ours, p, strict=True))} for p in permutations(theirs)]
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
class Multiple:
    """A number times a block, transposed or not."""

    block: Block
    scale: Fraction
    transposed: bool


Blocks = dict[Block, tuple[Multiple, ...]]


def block_mapping(match: Match, a: Cell, b: Cell) -> Blocks | None:
    """Every block of `a` as a sum of multiples of blocks of `b`; None where entries of one block disagree."""
    found: Blocks = {}
    for link in match.links:
        values: list[tuple[Entry, Weighted]] = [(e, ()) for e in link.idle]
        for entry, value in [*values, *([(link.ours, link.theirs)] if link.ours is not None else [])]:
            block, local = block_of(a, entry)
            terms = tuple(_term(b, other, local, scale) for other, scale in value)
            previous = found.get(block)
            if previous is not None and not _agree(previous, terms):
                return None
            if previous is None or len(set(local)) > 1:
                found[block] = terms
    for p in a.parameters:  # what occurs in no linear place keeps its name
        if p not in a.learned and not any(block.parameter == p for block in found) and a.parameters[p] == b.parameters.get(p):
            for parts in product(*(range(len(s.split("+"))) for s in a.parameters[p])):
                found[Block(p, parts)] = (Multiple(Block(p, parts), Fraction(1), False),)
    return found if _keeps_data(found, a, b) else None


def _keeps_data(found: Blocks, a: Cell, b: Cell) -> bool:
    """Fixed arrays are data: each is one fixed array of the other cell, as it is."""
    for block, terms in found.items():
        fixed = [t.block.parameter in b.fixed for t in terms]
        if block.parameter in a.fixed:
            if fixed != [True] or terms[0].scale != 1 or terms[0].transposed:
                return False
        elif any(fixed):
            return False
    return True


def _term(cell: Cell, entry: Entry, local: tuple[int, ...], scale: Fraction) -> Multiple:
    block, other = block_of(cell, entry)
    return Multiple(block, scale, len(other) == 2 and other != local and other == local[::-1])


def _agree(p: tuple[Multiple, ...], q: tuple[Multiple, ...]) -> bool:
    """Equal up to transposition, which a diagonal entry does not show."""
    return {(t.block, t.scale) for t in p} == {(t.block, t.scale) for t in q}
