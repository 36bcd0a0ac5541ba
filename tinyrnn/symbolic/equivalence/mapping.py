"""Mappings of parameters at work: applied to nodes, shown as text, proved, or refuted by numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...cells.cell import Cell
from ...domains import Exact, Field, Polynomials
from ...domains.field import Decisions, drawn_prime
from ...errors import ShapeError, TermLimitError, UndefinedError
from ...ir.graph import Graph
from ...ir.node import Node, rebuild, walk
from ...ir.ops.leaves import full, input_node
from ...ir.ops.linear import swap_last
from ...ir.ops.structure import concat
from ..proof.draws import Draws, Values, sources, with_finite_floats
from ..proof.identity import CONVINCING, degrees_of, error_bound, field_inputs
from .matching import Block, Blocks, Match, Multiple
from .sides import both_sides, edges, first_difference, names_of

Nodes = dict[str, Node]
Sizes = Mapping[str, int]
Mapped = Callable[[Nodes, Sizes, Sizes], Nodes]
Arrays = dict[str, Any]
POINTS = 6
CLEAR = 1e-3  # a difference that is seen when numbers are printed
THOROUGH, LARGEST = 4, 1100
MANY = (1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 33, 64)


@dataclass(frozen=True)
class Proved:
    """What was proved of one mapping: by which method ("" for nothing), how sure, on what; or sizes at which it fails."""

    method: str = ""
    error_bound: float = 1.0
    branches: int = 0
    one_sided: int = 0
    sizes: tuple[dict[str, int], ...] = ()
    refuted: dict[str, int] | None = None
    beyond: bool = False            # equations compare sizes with numbers that are too large to be tried


@dataclass(frozen=True)
class Counterexample:
    """Numbers at which the two cells differ after one step."""

    parameters_a: Arrays
    parameters_b: Arrays
    inputs: Arrays
    quantity: str
    a: Any
    b: Any

    @property
    def turned(self) -> Counterexample:
        """The same numbers, seen from the other cell."""
        return Counterexample(self.parameters_b, self.parameters_a, self.inputs, self.quantity, self.b, self.a)

    @property
    def difference(self) -> float:
        return float(np.abs(self.a - self.b).max())

    def __str__(self) -> str:
        worst = int(np.abs(self.a - self.b).argmax())
        return (f"after one step, {self.quantity} is {self.a.ravel()[worst]:.6g} in the first cell and "
                f"{self.b.ravel()[worst]:.6g} in the second")


@dataclass(frozen=True)
class Map:
    """A mapping of parameters that can be shown and applied."""

    match: Match
    blocks: Blocks
    shown: dict[str, str]
    signals: dict[str, str]


# ---- mappings on nodes

def apply(a: Cell, b: Cell, blocks: Blocks, theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Nodes:
    """The parameters of `a`, computed from those of `b`."""
    return {p: _assembled(b, p, a.parameters[p], blocks, theirs, ours_sizes, sizes) for p in a.parameters if p not in a.learned}


def _assembled(b: Cell, p: str, shape: tuple[str, ...], blocks: Blocks, theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Node:
    axes = [s.split("+") for s in shape]

    def piece(which: tuple[int, ...]) -> Node:
        parts = [_read(b, term, theirs, sizes) for term in blocks.get(Block(p, which), ())]
        wanted = tuple(size_of(axis[k], ours_sizes) for axis, k in zip(axes, which, strict=True))
        return sum(parts[1:], start=parts[0]) if parts else full(0, wanted, np.float64)

    if len(axes) < 2:
        return concat([piece((k,)) for k in range(len(axes[0]))], 0) if axes else piece(())
    return concat([concat([piece((i, j)) for j in range(len(axes[1]))], 1) for i in range(len(axes[0]))], 0)


def size_of(text: str, sizes: Sizes) -> int:
    return int(text) if text.isdigit() else sizes[text]


def _read(b: Cell, term: Multiple, theirs: Nodes, sizes: Sizes) -> Node:
    node = theirs[term.block.parameter]
    key = []
    for text, k in zip(b.parameters[term.block.parameter], term.block.parts, strict=True):
        parts = [size_of(p, sizes) for p in text.split("+")]
        key.append(slice(sum(parts[:k]), sum(parts[:k + 1])))
    node = node[tuple(key)] if key else node
    node = swap_last(node) if term.transposed and node.ndim == 2 else node
    if term.scale == 1:
        return node
    node = -node if term.scale < 0 else node
    node = node * abs(term.scale.numerator) if abs(term.scale.numerator) != 1 else node
    return node / term.scale.denominator if term.scale.denominator != 1 else node


def shown_mapping(a: Cell, b: Cell, blocks: Blocks) -> dict[str, str]:
    """The mapping as text: `-W_z`, `b_ir + b_hr`, `[W_hf, W_if]`, `0`."""
    found = {}
    for p, shape in a.parameters.items():
        if p in a.learned:
            continue
        axes = [range(len(s.split("+"))) for s in shape]
        rows = [[_sum(b, blocks.get(Block(p, (i, j)), ())) for j in axes[1]] for i in axes[0]] if len(axes) == 2 else [
            [_sum(b, blocks.get(Block(p, (i,)), ())) for i in axes[0]] if axes else [_sum(b, blocks.get(Block(p, ()), ()))]]
        lines = [row[0] if len(row) == 1 else f"[{', '.join(row)}]" for row in rows]
        found[p] = _whole(b, lines[0]) if len(lines) == 1 else f"[{'; '.join(lines)}]"
    return found


def _sum(b: Cell, terms: tuple[Multiple, ...]) -> str:
    parts = [("- " if t.scale < 0 else "+ ") + (f"{decimal(abs(t.scale))} * " if abs(t.scale) != 1 else "")
             + t.block.show(b) + (".T" if t.transposed else "") for t in terms]
    text = " ".join(parts)
    return f"-{text[2:]}" if text.startswith("- ") else text.removeprefix("+ ") or "0"


def decimal(scale: Fraction) -> str:
    return str(scale.numerator) if scale.denominator == 1 else repr(scale.numerator / scale.denominator)


def _whole(b: Cell, text: str) -> str:
    """[W[:, :h], W[:, h:]] is W."""
    for p, shape in b.parameters.items():
        if len(shape) == 2 and "+" in shape[1]:
            parts = [Block(p, (0, k)).show(b) for k in range(len(shape[1].split("+")))]
            for sign in ("", "-"):
                if text == f"[{', '.join(sign + x for x in parts)}]":
                    return sign + p
    return text


# ---- the proof of one mapping

class Pair:
    """Both cells' steps over shared inputs, states and parameters of `b`."""

    def __init__(self, a: Cell, b: Cell, signals: Mapping[str, str], names: Mapping[str, str], mapped: Mapped) -> None:
        self.a, self.b, self.signals, self.names, self.mapped = a, b, signals, names, mapped

    def graph(self, sizes: Mapping[str, int], batch: int) -> Graph:
        """Outputs `a h`, `b h`, ...: the same quantity of both."""
        own = self.own_sizes(sizes)
        ga, gb = self.a.graph(own, batch=batch), self.b.graph(sizes, batch=batch)
        theirs = {p: gb.inputs.get(p, input_node(p, s)) for p, s in self.b.shapes(sizes).items()}
        parameters = self.mapped(theirs, own, sizes)
        for p, shape in self.a.shapes(own).items():
            if p not in self.a.learned and parameters[p].shape != shape:
                raise ShapeError(f"{p} of {self.a.name} has shape {shape} at {dict(own)}, but the mapping gives it "
                                 f"{parameters[p].shape}")
        new: dict[Node, Node] = {}
        for name, n in ga.inputs.items():
            new[n] = parameters[name] if name in self.a.parameters else gb.inputs.get(
                self.signals[name], input_node(self.signals[name], n.shape))
        rebuild(walk(ga.outputs.values(), known=new.keys()), new)
        found = {}
        for name, n in ga.outputs.items():
            other = f"{self.names.get(name.split('[')[0], name.split('[')[0])}[t]"
            if other in gb.outputs:
                found[f"a {name}"], found[f"b {name}"] = new[n], gb.outputs[other]
        return Graph(found)

    def own_sizes(self, sizes: Sizes) -> dict[str, int]:
        """Sizes of `a` by the signals they belong to."""
        found: dict[str, int] = {}
        used: set[str] = set()
        for ours, theirs in self.signals.items():
            for x, y in zip(self.a.signals[ours.split("[")[0]], self.b.signals[theirs.split("[")[0]], strict=True):
                if "+" not in x and not x.isdigit():
                    found[x] = size_of(y, sizes) if "+" not in y else sum(size_of(p, sizes) for p in y.split("+"))
                    used |= set(y.split("+"))
        # A size that only parameters have (a rank, a width) stands in no signal: by its name, else what is left over.
        spare = [n for s, n in sizes.items() if s not in used]
        return {s: found[s] if s in found else sizes.get(s) or (spare.pop(0) if spare else 2) for s in self.a.sizes}

    def prove(self, seed: int) -> Proved:
        """Equal at a random point of the field at every size; on the branches of several draws at some; exactly at 2."""
        bound, branches, one_sided = 0.0, 0, 0
        trials = trial_sizes(self.a, self.b)
        if trials is None:
            return Proved(beyond=True)
        for thorough, (batch, sizes) in [*((False, t) for t in trials), *((True, t) for t in trials[:THOROUGH])]:
            try:
                found = _field_equal(self.graph(sizes, batch), seed, thorough)
            except ShapeError:  # a correspondence whose sizes do not fit is none
                return Proved()
            if found is None or found.error_bound > CONVINCING:
                return Proved(refuted=sizes if found is None else None)
            bound, branches = max(bound, found.error_bound), branches + found.branches
            one_sided += found.one_sided
        seen, small = [sizes for _, sizes in trials], dict.fromkeys(self.b.sizes, 2)
        try:
            if not _exactly_equal(self.graph(small, 1), seed):
                return Proved(refuted=small)
        except TermLimitError:
            return Proved("field", bound, branches, one_sided, tuple(seen))
        return Proved("exact", bound, branches, one_sided, (small, *seen))


def trial_sizes(a: Cell, b: Cell) -> list[tuple[int, dict[str, int]]] | None:
    """Batch, and sizes of `b`: all 1, equal ones, unlike ones; and where equations speak of sizes, many more, those near
    their own numbers among them.  None where such a number is too large to be tried."""
    def each(first: int, step: int) -> dict[str, int]:
        return {s: first + step * i for i, s in enumerate(b.sizes)}

    found = [(1, each(1, 0)), (2, each(2, 1)), (1, each(5, 3)), (3, each(3, 2))]
    terms = [t for cell in (a, b) for e in cell.system.equations for t in e.term.walk()]
    if any(t.kind == "size" for t in terms):
        values = [t.value for t in terms if t.kind == "number"]
        values += [v for cell in (a, b) for v in dict(cell.system.constants).values()]
        numbers = {round(v) + k for v in values for k in (-1, 0, 1) if 1 <= v + k <= LARGEST}
        limits = [v.value for t in terms if t.kind == "compare" and any(v.kind == "size" for v in t.walk()) for v in t.walk()
                  if v.kind == "number"]
        if any(v > LARGEST for v in limits):
            return None
        found += [(1, each(n, step)) for n in sorted({*numbers, *MANY}) for step in (0, 1)]
        found += [(1, {s: n if s == one else 2 for s in b.sizes}) for n in sorted(numbers) for one in b.sizes]
    return [x for i, x in enumerate(found) if x not in found[:i]]


def _field_equal(graph: Graph, seed: int, thorough: bool) -> Proved | None:
    """Equality at a random point, or at many; None where outputs differ, or may differ on branches that were not met."""
    draws = Draws(graph, seed)
    first = with_finite_floats(partial(_at_a_point, graph, draws, 0, None))
    if not first.equal or not _equal_in_numbers(graph, at_rest(graph, draws)):
        return None
    if not thorough or not first.branches:
        return Proved("field", first.error_bound)
    sought, one_sided = both_sides(graph, draws, POINTS)
    tried = [_if_defined(graph, draws, k, None) for k in range(1, POINTS)]
    tried += [_if_defined(graph, draws, POINTS + k, values) for k, values in enumerate(sought[:POINTS])]
    points = [first, *(p for p in tried if p is not None)]
    if any(p.foreign or not p.equal for p in points):
        return None
    if not _equal_in_numbers(graph, [*(draws.at(k) for k in range(40)), *sought, *edges(graph, draws)]):
        return None
    return Proved("field", max(p.error_bound for p in points), sum(p.branches for p in points), one_sided)


def at_rest(graph: Graph, draws: Draws) -> list[Values]:
    """Numbers as they are before the first step: inputs, states, or all of them 0."""
    x = draws.at(0)
    rest = {k: np.zeros_like(v) if "[" in k else v for k, v in x.items()}
    return [rest, *({**x, k: np.zeros_like(v)} for k, v in x.items() if "[" in k), {k: np.zeros_like(v) for k, v in x.items()}]


def _if_defined(graph: Graph, draws: Draws, draw: int, chosen: Values | None) -> _Point | None:
    try:
        return with_finite_floats(partial(_at_a_point, graph, draws, draw, chosen))
    except UndefinedError:
        return None


@dataclass(frozen=True)
class _Point:
    """Both cells at one random point: equal or not, how sure that makes one, and whether one decides by other numbers."""

    equal: bool
    error_bound: float
    branches: int
    foreign: bool


def _at_a_point(graph: Graph, draws: Draws, draw: int, chosen: Values | None, **way: bool) -> _Point:
    rng = np.random.default_rng([draws.seed, draw, 6])
    ring = Field(drawn_prime(draws.seed), int(rng.integers(1 << 62)))
    domain = Exact(ring)
    near = draws.at(draw, **way) if chosen is None else chosen
    given = field_inputs(graph, near, domain, ring, rng)
    values: dict[str, Any] = {}
    decisions: list[Decisions] = []
    for side in ("a ", "b "):
        own = Graph({k: n for k, n in graph.outputs.items() if k.startswith(side)})
        ring.decisions = (set(), set(), set())
        values |= own.run({k: given[k] for k in sources(own)}, domain=domain)
        decisions.append(ring.decisions)
    exact = {k: domain.lift(v).value for k, v in values.items()}
    equal = all(np.array_equal(exact[f"a {n}"], exact[f"b {n}"]) for n in names_of(graph))
    out, degrees = degrees_of(graph, near)
    degree = max(float(np.max(x.value, initial=0.0)) for x in out.values())
    foreign = ring.foreign(decisions[0], decisions[1]) or ring.foreign(decisions[1], decisions[0])
    return _Point(equal, error_bound(degree, degrees.of_arguments, ring.arguments), domain.branches, foreign)


def _equal_in_numbers(graph: Graph, points: Iterable[Values]) -> bool:
    """Where branches decide, also ordinary numbers: of many magnitudes, and close to where a decision changes."""
    return all(first_difference(graph, values) is None for values in points)


def _exactly_equal(graph: Graph, seed: int) -> bool:
    ring = Polynomials(one_sigmoid=True)
    domain = Exact(ring)
    draws = Draws(graph, seed)

    def run(**way: bool) -> dict[str, Any]:
        near = draws.at(0, **way)
        given = {k: domain.given(near[k], ring.generators(k, n.shape)) for k, n in graph.inputs.items()}
        return graph.run(given, domain=domain)

    found = with_finite_floats(run)
    return all(p == q for n in names_of(graph) for p, q in zip(
        domain.lift(found[f"a {n}"]).value.ravel(), domain.lift(found[f"b {n}"]).value.ravel(), strict=True))


# ---- numbers that show a difference

def counterexample(a: Cell, b: Cell, found: Map, seed: int, turned: bool = False) -> Counterexample | None:
    """Random parameters of the cell that was mapped (`b`'s are read back from them, where the mapping says how)."""
    ours, theirs = (b, a) if turned else (a, b)
    back = turned_back(found)
    pair = Pair(theirs, ours, {v: k for k, v in found.signals.items()}, {v: k for k, v in found.match.names.items()},
                 partial(apply, theirs, ours, back))
    try:
        numbers = differing(pair, seed)
    except ShapeError:
        return None
    return numbers if numbers is None or turned else numbers.turned


def turned_back(found: Map) -> Blocks:
    """Each block of the second cell as the sum of the blocks of the first that stand for it."""
    back: Blocks = {}
    for ours, terms in found.blocks.items():
        for t in terms:
            back.setdefault(t.block, (Multiple(ours, 1 / t.scale, t.transposed),))
    return back


def differing(pair: Pair, seed: int, tries: int = 8, sizes: Sizes | None = None) -> Counterexample | None:
    """Numbers at which the two cells differ although their parameters correspond: near 1, then of many magnitudes; the first
    that are `CLEAR`, else those that are farthest apart."""
    sizes = sizes or {s: 2 + i for i, s in enumerate(pair.b.sizes)}
    try:
        graph = pair.graph(sizes, 1)
    except ShapeError:
        return None
    draws = Draws(graph, seed)
    sought = both_sides(graph, draws, POINTS)[0] if tries > 1 else []
    usual, wide = ([draws.at(2 * k + odd) for k in range(tries)] for odd in (0, 1))
    best: _Difference | None = None
    for values in [*usual, *at_rest(graph, draws), *wide, *sought]:
        best = _farther(graph, values, best)
        if best is not None and best.apart > CLEAR:
            break
    return None if best is None else _shown(pair, sizes, _clearer(graph, best))


class _Difference(NamedTuple):
    """Numbers, the first quantity that differs there, what it is in both cells, and how far that is apart."""

    values: Values
    name: str
    x: Any
    y: Any
    apart: float


def _farther(graph: Graph, values: Values, best: _Difference | None) -> _Difference | None:
    """The difference at these numbers, if it is clearer than the best one so far; relative to results that are large."""
    found = first_difference(graph, values)
    if found is None:
        return best
    name, out = found
    x, y = out[f"a {name}"], out[f"b {name}"]
    with np.errstate(all="ignore"):
        off = np.abs(np.subtract(x, y, dtype=np.float64)) / np.maximum(1.0, np.abs(x))
    apart = float(np.nan_to_num(off, nan=0.0, posinf=np.inf).max(initial=0.0))
    return best if best is not None and best.apart >= apart else _Difference(values, name, x, y, apart)


def _clearer(graph: Graph, best: _Difference) -> _Difference:
    """Arrays made smaller and larger, one after the other, as long as that helps: functions that are flat far out hide much."""
    for k, factor in product([k for k, v in best.values.items() if v.dtype.kind == "f"] * 2, (0.1, 0.5, 3.0)):
        if best.apart > CLEAR:
            break
        best = _farther(graph, {**best.values, k: factor * best.values[k]}, best) or best
    return best


def _shown(pair: Pair, sizes: Sizes, found: _Difference) -> Counterexample:
    """These numbers with the parameters of both cells."""
    theirs = {p: found.values.get(p, np.zeros(s)) for p, s in pair.b.shapes(sizes).items()}
    nodes = {p: input_node(p, v.shape) for p, v in theirs.items()}
    mapped = Graph(pair.mapped(nodes, pair.own_sizes(sizes), sizes))
    inputs = {q: v for q, v in found.values.items() if q not in pair.b.parameters}
    return Counterexample(mapped.run({q: theirs[q] for q in mapped.inputs}), theirs, inputs, found.name, found.x, found.y)
