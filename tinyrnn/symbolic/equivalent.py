"""`equivalent`: are two cells the same function, and which parameters correspond?

Two cells are equal when every setting of the parameters of one has a setting of the other with the same step: equal
states and outputs for all inputs and all earlier states.  Equality of one step is equality of all steps, by induction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..cells.cell import Cell
from ..cells.equations import Term as Expression
from ..cells.equations import parse_line
from ..domains import Exact, Field, Polynomials
from ..errors import ArgumentError, ShapeError, TermLimitError
from ..ir.graph import Graph
from ..ir.node import Node, rebuild, walk
from ..ir.ops.leaves import full, input_node
from ..ir.ops.linear import swap_last
from ..ir.ops.structure import concat
from ..shapes import Shape
from .differences import Residual, mirrored, residual
from .identity import degrees_of, error_bound, field_inputs
from .matching import Block, Blocks, Match, Search, Term, block_mapping, block_of, pairings, profile
from .reading import block_name

Nodes = dict[str, Node]
Sizes = Mapping[str, int]
Mapped = Callable[[Nodes, Sizes, Sizes], Nodes]
Arrays = dict[str, Any]
SLACK = 2


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
class Equivalence:
    """The verdict on two cells: "equal", "different" or "unknown", and why.

    `mapping` gives each parameter of the first cell in terms of the second's; `residual` is what remains of the first
    place where the cells differ (LaTeX in `residual_latex`), and `counterexample` holds numbers that show it.
    """

    verdict: str
    a: Cell
    b: Cell
    reason: str
    mapping: dict[str, str] = field(default_factory=dict)
    method: str = ""
    error_bound: float = 0.0
    residual: str = ""
    residual_latex: str = ""
    where: str = ""
    counterexample: Counterexample | None = None
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.verdict == "equal"

    def __str__(self) -> str:
        lines = [f"{self.a.name} and {self.b.name}: {self.verdict} ({self.reason}), {self.seconds:.2f} s"]
        if self.mapping:
            lines.append(f"  parameters of {self.a.name} in terms of those of {self.b.name}:")
            lines += [f"    {k:<8} = {v}" for k, v in self.mapping.items()]
        if self.residual:
            lines.append(f"  in {self.where} they differ by {self.residual}")
        if self.counterexample is not None:
            lines.append(f"  counterexample: {self.counterexample}")
        return "\n".join(lines)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.residual_latex}$" if self.residual_latex else f"$\\text{{{self.verdict}}}$"


def equivalent(a: Cell, b: Cell, mapping: Mapping[str, str] | None = None, *, rng: int = 0) -> Equivalence:
    """Compare two cells as functions.

    Without `mapping` the parameters of `a` are sought in terms of those of `b`, and the other way round: identity,
    gates permuted or negated (z -> 1 - z), biases merged or split, matrices over [h, x] apart or joined, transposed.
    With `mapping`, e.g. `{"W_i": "-W_f"}`, that one is checked (parameters not named keep their names).

    Verdicts: "equal" (proved in GF(2^61-1), and exactly at small sizes); "different" (with a residual and numbers that
    show it: under the best mapping, or because one cell needs a constraint to become the other); "unknown" (no mapping
    was found, which is no proof of difference).

    >>> import tinyrnn as tr
    >>> e = tr.equivalent(tr.cells["gru_lecture"], tr.cells["gru"])
    >>> e.verdict, e.residual
    ('different', '-r[t] * b_hn')
    """
    began = time.perf_counter()
    for cell in (a, b):
        if not isinstance(cell, Cell):
            raise ArgumentError(f"equivalent compares two cells, got {type(cell).__name__}; a layer's equations are layer.cell")
    found = _with_mapping(a, b, mapping, rng) if mapping is not None else _search(a, b, rng)
    return Equivalence(**{**found, "a": a, "b": b, "seconds": time.perf_counter() - began})


def _search(a: Cell, b: Cell, seed: int) -> dict[str, Any]:
    forth, back = _included(a, b, seed), _included(b, a, seed)
    if forth and back:
        names, method, bound = forth
        return {"verdict": "equal", "reason": f"proved {method} for every input, state and parameter", "mapping": names.shown,
                "method": method, "error_bound": max(bound, back[2])}
    if forth or back:
        return _one_sided(a, b, forth, back, seed)
    return _nearest(a, b, seed)


@dataclass(frozen=True)
class _Map:
    """A mapping of parameters that can be shown and applied."""

    match: Match
    blocks: Blocks
    shown: dict[str, str]
    signals: dict[str, str]


def _included(a: Cell, b: Cell, seed: int) -> tuple[_Map, str, float] | None:
    """A mapping under which `a` computes what `b` computes, proved."""
    for found in _maps(a, b, 0):
        problem = _Pair(a, b, found.signals, found.match.names, partial(_apply, a, b, found.blocks))
        method, bound = problem.prove(seed)
        if method:
            return found, method, bound
    return None


def _maps(a: Cell, b: Cell, slack: int) -> Iterator[_Map]:
    """Candidate mappings: those without absent parameters first, at most a few of each kind."""
    for cut, absent in product((False, True), (False, True)):
        ours, theirs = profile(a, cut), profile(b, cut)
        for signals in pairings(a, b):
            search = Search(ours, theirs, slack, absent)
            for match, _ in zip(search.matches(signals), range(8), strict=False):
                blocks = block_mapping(match, a, b)
                if blocks is not None:
                    yield _Map(match, blocks, _shown(a, b, blocks), signals)


def _one_sided(a: Cell, b: Cell, forth: tuple[_Map, str, float] | None, back: tuple[_Map, str, float] | None,
               seed: int) -> dict[str, Any]:
    """One cell is the other under a constraint: equal there, different elsewhere."""
    big, small, found = (a, b, forth) if forth else (b, a, back)
    assert found is not None
    one = found[0]
    shown = one.shown if forth else _shown(small, big, _maps_back(one))
    reason = f"{small.name} is {big.name} with {_constraint(big, one)}; no mapping was found the other way"
    where, left = _first_residual(big, small, _substitution(big, small, one), one.match)
    return {"verdict": "different", "reason": reason, "mapping": shown, **_residual_fields(where, left, turned=not forth),
            "counterexample": _counterexample(a, b, one, seed, turned=not forth)}


def _constraint(big: Cell, found: _Map) -> str:
    """What the mapping forces upon the larger cell: zeros, and parameters tied to each other."""
    zeros = dict.fromkeys(block_of(big, e)[0].show(big) for link in found.match.links if not link.theirs for e in link.ours)
    users: dict[Block, list[tuple[int, str]]] = {}
    for block, terms in found.blocks.items():
        for t in terms:
            users.setdefault(t.block, []).append((t.sign, block.show(big)))
    tied = [f"{other} = {'-' if s != sign else ''}{name}" for (sign, name), *rest in users.values() for s, other in rest]
    return ", ".join(dict.fromkeys([*(f"{z} = 0" for z in zeros), *tied])) or "fewer parameters"


def _nearest(a: Cell, b: Cell, seed: int) -> dict[str, Any]:
    """The mapping with the fewest places that differ, the residual there, and numbers."""
    for slack in range(1, SLACK + 1):
        for found in _maps(a, b, slack):
            if not found.match.mismatches:
                continue
            numbers = _counterexample(a, b, found, seed)
            if numbers is not None:
                place = found.match.mismatches[0]
                left = residual(a, b, place.ours, place.theirs, _substitution(a, b, found), _signals(found.match))
                return {"verdict": "different", "mapping": found.shown, "counterexample": numbers,
                        **_residual_fields(place.ours, left),
                        "reason": "they differ under the closest mapping, and none of those searched makes them equal"}
    return {"verdict": "unknown", "reason": "no correspondence of parameters was found, which is no proof of difference"
            if list(pairings(a, b)) else f"inputs, states and outputs do not correspond: {a!r}, {b!r}"}


def _residual_fields(where: str, left: Residual, turned: bool = False) -> dict[str, str]:
    if left.vanishes:
        return {}
    left = left.negated if turned else left
    return {"where": f"the equation of {where}[t]", "residual": left.text, "residual_latex": left.latex}


def _substitution(a: Cell, b: Cell, found: _Map) -> dict[str, Expression]:
    """Blocks of `a` as expressions in blocks of `b`; what has no counterpart keeps its own name."""
    absent = {block_of(a, e)[0] for link in found.match.links if not link.theirs for e in link.ours}
    return {block_name(a, block.parameter, block.parts[-1] if block.parts else 0): _expression(b, terms)
            for block, terms in found.blocks.items() if block not in absent}


def _expression(b: Cell, terms: tuple[Term, ...]) -> Expression:
    total = Expression("number", 0.0)
    for k, t in enumerate(terms):
        name = block_name(b, t.block.parameter, t.block.parts[-1] if t.block.parts else 0)
        one = Expression("transpose" if t.transposed else "parameter", name)
        one = Expression("negate", None, (one,)) if t.sign < 0 else one
        total = one if not k else Expression("binary", "+", (total, one))
    return total


def _signals(match: Match) -> dict[str, Expression]:
    """Quantities of the second cell in terms of the first's."""
    found: dict[str, Expression] = {}
    for ours, theirs in sorted(match.names.items(), key=lambda pair: pair[0] in match.negated):
        here = Expression("signal", (ours, 0))
        found.setdefault(theirs, mirrored(match.negated[ours], ours) if ours in match.negated else here)
    return found


def _first_residual(a: Cell, b: Cell, parameters: Mapping[str, Expression], match: Match) -> tuple[str, Residual]:
    """The first equation of `a` that differs from the one it corresponds to."""
    theirs, signals = {e.name for e in b.system.equations}, _signals(match)
    for e in a.system.equations:
        other = match.names.get(e.name, e.name)
        if other in theirs:
            left = residual(a, b, e.name, other, parameters, signals, -1 if e.name in match.negated else 1)
            if not left.vanishes:
                return e.name, left
    return "", Residual()


# ---- mappings on nodes

def _apply(a: Cell, b: Cell, blocks: Blocks, theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Nodes:
    """The parameters of `a`, computed from those of `b`."""
    return {p: _assembled(b, p, a.parameters[p], blocks, theirs, ours_sizes, sizes) for p in a.parameters}


def _assembled(b: Cell, p: str, shape: tuple[str, ...], blocks: Blocks, theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Node:
    axes = [s.split("+") for s in shape]

    def piece(which: tuple[int, ...]) -> Node:
        parts = [_read(b, term, theirs, sizes) for term in blocks.get(Block(p, which), ())]
        wanted = tuple(_size(axis[k], ours_sizes) for axis, k in zip(axes, which, strict=True))
        return sum(parts[1:], start=parts[0]) if parts else full(0, wanted, np.float64)

    if len(axes) < 2:
        return concat([piece((k,)) for k in range(len(axes[0]))], 0) if axes else piece(())
    return concat([concat([piece((i, j)) for j in range(len(axes[1]))], 1) for i in range(len(axes[0]))], 0)


def _size(text: str, sizes: Sizes) -> int:
    return int(text) if text.isdigit() else sizes[text]


def _read(b: Cell, term: Term, theirs: Nodes, sizes: Sizes) -> Node:
    node = theirs[term.block.parameter]
    key = []
    for text, k in zip(b.parameters[term.block.parameter], term.block.parts, strict=True):
        parts = [_size(p, sizes) for p in text.split("+")]
        key.append(slice(sum(parts[:k]), sum(parts[:k + 1])))
    node = node[tuple(key)] if key else node
    node = swap_last(node) if term.transposed else node
    return -node if term.sign < 0 else node


def _shown(a: Cell, b: Cell, blocks: Blocks) -> dict[str, str]:
    """The mapping as text: `-W_z`, `b_ir + b_hr`, `[W_hf, W_if]`, `0`."""
    found = {}
    for p, shape in a.parameters.items():
        axes = [range(len(s.split("+"))) for s in shape]
        rows = [[_sum(b, blocks.get(Block(p, (i, j)), ())) for j in axes[1]] for i in axes[0]] if len(axes) == 2 else [
            [_sum(b, blocks.get(Block(p, (i,)), ())) for i in axes[0]] if axes else [_sum(b, blocks.get(Block(p, ()), ()))]]
        lines = [row[0] if len(row) == 1 else f"[{', '.join(row)}]" for row in rows]
        found[p] = _whole(b, lines[0]) if len(lines) == 1 else f"[{'; '.join(lines)}]"
    return found


def _sum(b: Cell, terms: tuple[Term, ...]) -> str:
    parts = [("-" if t.sign < 0 else "+", t.block.show(b) + (".T" if t.transposed else "")) for t in terms]
    text = " ".join(f"{s} {name}" for s, name in parts)
    return text.removeprefix("+ ").replace("- ", "-", 1) if text.startswith("- ") else text.removeprefix("+ ") or "0"


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

class _Pair:
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
            if parameters[p].shape != shape:
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
        for ours, theirs in self.signals.items():
            for x, y in zip(self.a.signals[ours.split("[")[0]], self.b.signals[theirs.split("[")[0]], strict=True):
                if "+" not in x and not x.isdigit():
                    found[x] = _size(y, sizes) if "+" not in y else sum(_size(p, sizes) for p in y.split("+"))
        spare = [n for s, n in sizes.items() if n not in found.values()]
        return {s: found[s] if s in found else sizes.get(s) or (spare.pop(0) if spare else 2) for s in self.a.sizes}

    def prove(self, seed: int) -> tuple[str, float]:
        """("exact" or "field", error bound), or ("", 1) where the two differ."""
        try:
            graph = self.graph({s: 2 + i for i, s in enumerate(self.b.sizes)}, 2)
        except ShapeError:  # a correspondence whose sizes do not fit is none
            return "", 1.0
        bound = _field_equal(graph, seed)
        if bound is None or bound > 2.0**-20:
            return "", 1.0
        try:
            small = self.graph(dict.fromkeys(self.b.sizes, 2), 1)
            return ("exact" if _exactly_equal(small, seed) else "field"), bound
        except TermLimitError:
            return "field", bound


def _names(graph: Graph) -> list[str]:
    return [k[2:] for k in graph.outputs if k.startswith("a ")]


def _near(graph: Graph, rng: np.random.Generator) -> Arrays:
    return {k: rng.uniform(0.2, 1.2, n.shape) * rng.choice([-1, 1], n.shape) for k, n in graph.inputs.items()}


def _field_equal(graph: Graph, seed: int) -> float | None:
    """The error bound of equality at random points, or None where outputs differ."""
    bound = 0.0
    for k in range(4):
        rng = np.random.default_rng(seed + k)
        ring = Field(int(rng.integers(1 << 62)))
        domain = Exact(ring)
        near = _near(graph, rng)
        run = graph.run(field_inputs(graph, near, domain, ring, rng), domain=domain)
        if any(not np.array_equal(domain.lift(run[f"a {n}"]).value, domain.lift(run[f"b {n}"]).value) for n in _names(graph)):
            return None
        out, degrees = degrees_of(graph, near)
        degree = max(float(np.max(domain.lift(x).value, initial=0.0)) if not hasattr(x, "value") else
                     float(x.value.max(initial=0.0)) for x in out.values())
        bound = max(bound, error_bound(degree, degrees.of_arguments, ring.arguments))
        if not domain.branches:
            break
    return bound


def _exactly_equal(graph: Graph, seed: int) -> bool:
    ring = Polynomials(one_sigmoid=True)
    domain = Exact(ring)
    near = _near(graph, np.random.default_rng(seed))
    run = graph.run({k: domain.given(near[k], ring.generators(k, n.shape)) for k, n in graph.inputs.items()}, domain=domain)
    return all(p == q for n in _names(graph) for p, q in zip(
        domain.lift(run[f"a {n}"]).value.ravel(), domain.lift(run[f"b {n}"]).value.ravel(), strict=True))


# ---- numbers that show a difference

def _counterexample(a: Cell, b: Cell, found: _Map, seed: int, turned: bool = False) -> Counterexample | None:
    """Random parameters of the cell that was mapped (`b`'s are read back from them, where the mapping says how)."""
    ours, theirs = (b, a) if turned else (a, b)
    back = _maps_back(found)
    pair = _Pair(theirs, ours, {v: k for k, v in found.signals.items()}, {v: k for k, v in found.match.names.items()},
                 partial(_apply, theirs, ours, back))
    try:
        numbers = _differing(pair, seed)
    except ShapeError:
        return None
    return numbers if numbers is None or turned else numbers.turned


def _maps_back(found: _Map) -> Blocks:
    """Each block of the second cell as the sum of the blocks of the first that stand for it."""
    back: Blocks = {}
    for ours, terms in found.blocks.items():
        for t in terms:
            back.setdefault(t.block, (Term(ours, t.sign, t.transposed),))
    return back


def _differing(pair: _Pair, seed: int) -> Counterexample | None:
    """Numbers at which the two cells differ although their parameters correspond."""
    sizes = {s: 2 + i for i, s in enumerate(pair.b.sizes)}
    graph = pair.graph(sizes, 1)
    for k in range(8):
        rng = np.random.default_rng(seed + k)
        values = {name: rng.normal(size=n.shape) for name, n in graph.inputs.items()}
        out = graph.run(values)
        for name in _names(graph):
            if np.abs(out[f"a {name}"] - out[f"b {name}"]).max() > 1e-6:
                theirs = {p: values.get(p, np.zeros(s)) for p, s in pair.b.shapes(sizes).items()}
                nodes = {p: input_node(p, v.shape) for p, v in theirs.items()}
                mapped = Graph(pair.mapped(nodes, pair.own_sizes(sizes), sizes))
                inputs = {q: v for q, v in values.items() if q not in pair.b.parameters}
                return Counterexample(mapped.run({q: theirs[q] for q in mapped.inputs}), theirs, inputs, name,
                                      out[f"a {name}"], out[f"b {name}"])
    return None


# ---- a mapping that the user gives

def _with_mapping(a: Cell, b: Cell, mapping: Mapping[str, str], seed: int) -> dict[str, Any]:
    unknown = [k for k in mapping if k not in a.parameters]
    if unknown:
        raise ArgumentError(f"the mapping names {unknown[0]!r}; the parameters of {a.name} are {', '.join(a.parameters)}")
    terms = {p: _parsed(p, str(mapping.get(p, p)), a, b) for p in a.parameters}

    def mapped(theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Nodes:
        shapes = {p: tuple(sum(_size(x, ours_sizes) for x in s.split("+")) for s in a.parameters[p]) for p in terms}
        return {p: _evaluate(t, theirs, shapes[p]) for p, t in terms.items()}

    for signals in pairings(a, b):
        names = {k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}
        for name in a.outputs:
            names.setdefault(name, name if name in b.outputs else b.outputs[0])
        pair = _Pair(a, b, signals, names, mapped)
        pair.graph({s: 2 + i for i, s in enumerate(b.sizes)}, 1)  # sizes that do not fit are an error, not a verdict
        method, bound = pair.prove(seed)
        shown = {p: str(mapping.get(p, p)) for p in a.parameters}
        if method:
            return {"verdict": "equal", "reason": f"proved {method} under the given mapping", "mapping": shown,
                    "method": method, "error_bound": bound}
        numbers = _differing(pair, seed)
        if numbers is not None:
            where, left = _first_residual(a, b, _blocks_of_terms(a, b, terms), Match([], [], names, {}))
            return {"verdict": "different", "reason": "they differ under the given mapping", "mapping": shown,
                    "counterexample": numbers, **_residual_fields(where, left)}
        return {"verdict": "unknown", "reason": "equal in numbers, but not by the rules of the finite field", "mapping": shown}
    return {"verdict": "unknown", "reason": f"inputs, states and outputs do not correspond: {a!r}, {b!r}"}


def _blocks_of_terms(a: Cell, b: Cell, terms: Mapping[str, Expression]) -> dict[str, Expression]:
    """The given mapping by blocks: the parts of a joined matrix belong to the columns of the parts."""
    found = {}
    for p, t in terms.items():
        parts = a.parameters[p][-1].split("+") if a.parameters[p] else [""]
        for k in range(len(parts)):
            found[p if len(parts) == 1 else block_name(a, p, k)] = _column(t, b, k) if len(parts) > 1 else t
    return found


def _column(t: Expression, b: Cell, k: int) -> Expression:
    if t.kind == "join":
        return t.args[k]
    if t.kind == "parameter":
        return Expression("parameter", block_name(b, t.value, k))
    return Expression(t.kind, t.value, tuple(_column(x, b, k) for x in t.args))


def _parsed(parameter: str, text: str, a: Cell, b: Cell) -> Expression:
    if text == parameter and parameter not in b.parameters:
        raise ArgumentError(f"the mapping says nothing of {parameter}, and {b.name} has no parameter of that name; "
                            f"give it in terms of {', '.join(b.parameters)}, or as 0")
    term = parse_line(text).term
    for t in term.walk():
        if t.kind not in ("parameter", "transpose", "negate", "join", "number", "binary") or t.value in ("*", "/", "@", "**"):
            raise ArgumentError(f"the mapping of {parameter} is {text!r}; it may hold parameters of {b.name}, sums, signs, "
                                "[joined, columns], .T and 0")
        if t.kind in ("parameter", "transpose") and t.value not in b.parameters:
            raise ArgumentError(f"the mapping of {parameter} names {t.value!r}; the parameters of {b.name} are "
                                f"{', '.join(b.parameters)}")
    return term


def _evaluate(t: Expression, theirs: Nodes, shape: Shape) -> Node:
    match t.kind:
        case "parameter":
            return theirs[t.value]
        case "transpose":
            return swap_last(theirs[t.value])
        case "negate":
            return -_evaluate(t.args[0], theirs, shape)
        case "join":
            return concat([_evaluate(x, theirs, shape) for x in t.args], -1)
        case "number":
            return full(t.value, shape, np.float64)
    x, y = (_evaluate(s, theirs, shape) for s in t.args)
    return x + y if t.value == "+" else x - y
