"""`equivalent`: are two cells the same function, and which parameters correspond?

Two cells are equal when every setting of the parameters of one has a setting of the other with the same step: equal
states and outputs for all inputs and all earlier states.  Equality of one step is equality of all steps, by induction.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ...cells.cell import Cell
from ...cells.equations import parse_line
from ...cells.terms import Term
from ...errors import ArgumentError, EquationError, TermLimitError
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.ops.leaves import LEAF, box_of, full, input_node
from ...ir.ops.linear import swap_last
from ...ir.ops.structure import SLICE, concat, parts_of
from ...shapes import Shape
from ..derivation.formulas import displayed
from ..derivation.pages import md
from ..derivation.to_terms import block_name
from ..proof.prove import run_seed
from .differences import Residual, mirrored, residual
from .mapping import (
    LARGEST,
    POINTS,
    Counterexample,
    Map,
    Nodes,
    Pair,
    Proved,
    Sizes,
    apply,
    counterexample,
    decimal,
    differing,
    shown_mapping,
    size_of,
    turned_back,
)
from .matching import (
    Block,
    Effort,
    Entry,
    Match,
    Multiple,
    Search,
    block_mapping,
    block_of,
    output_pairings,
    pairings,
    profile,
)

Inclusion = tuple[Map, Pair, Proved]
SLACK = 2
SHOWN = 12  # parameters in a notebook


@dataclass(frozen=True, repr=False)
class Equivalence:
    """The verdict on two cells: "equal", "different" or "unknown", and why.

    `mapping` gives each parameter of the first cell in terms of the second's, and every input, state and output that has
    another name there; `sizes` are those at which the cells were compared; `residual` is what remains of the first
    place where the cells differ (LaTeX in `residual_latex`), and `counterexample` holds numbers that show it.
    """

    verdict: str
    a: Cell
    b: Cell
    reason: str
    mapping: dict[str, str] = field(default_factory=dict)
    method: str = ""
    error_bound: float = 0.0
    branches: int = 0
    one_sided: int = 0
    sizes: tuple[dict[str, int], ...] = ()
    seed: int = 0
    residual: str = ""
    residual_latex: str = ""
    where: str = ""
    counterexample: Counterexample | None = None
    seconds: float = 0.0
    pair: Pair | None = None  # what was proved

    @property
    def holds(self) -> bool:
        return self.verdict == "equal"

    def translate(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of `a` with which it computes what `b` computes with these, as arrays of their dtype.

        Raises `ArgumentError` where the cells were not proved equal, `ShapeError` for arrays of other shapes.

        >>> import numpy as np
        >>> import tinyrnn as tr
        >>> a, b = tr.Cell("h[t] = tanh(W @ [h[t-1], x[t]])"), tr.Cell("h[t] = tanh(U @ h[t-1] + V @ x[t])")
        >>> tr.equivalent(a, b).translate({"U": np.zeros((1, 1)), "V": np.ones((1, 2))})
        {'W': array([[0., 1., 1.]])}
        """
        if self.pair is None:
            raise ArgumentError(f"{self.a.name} and {self.b.name} were not proved equal ({self.verdict}: {self.reason}), so no "
                                "weights follow from each other")
        arrays = {p: np.asarray(weights[p]) for p in self.b.parameters if p not in self.b.learned}
        sizes = self.b.sizes_of({p: a.shape for p, a in arrays.items()})
        theirs: Nodes = {p: input_node(p, a.shape, a.dtype) for p, a in arrays.items()}
        found = Graph(self.pair.mapped(theirs, self.pair.own_sizes(sizes), sizes))
        dtype = np.result_type(*arrays.values()) if arrays else np.dtype(float)
        return {p: np.asarray(v, dtype) for p, v in found.run({p: arrays[p] for p in found.inputs}).items()}

    def __str__(self) -> str:
        lines = [f"{self.a.name} and {self.b.name}: {self.verdict} ({self.reason}), {self.seconds:.2f} s"]
        if self.mapping:
            lines.append(f"  what {self.a.name} has in terms of {self.b.name}:")
            lines += [f"    {k:<8} = {v}" for k, v in self.mapping.items()]
        if self.residual:
            lines.append(f"  in {self.where} they differ by {self.residual}")
        if self.counterexample is not None:
            lines.append(f"  counterexample: {self.counterexample}")
        return "\n".join([*lines, f"  seed {self.seed}"])

    def __repr__(self) -> str:
        return f"<Equivalence of {self.a.name} and {self.b.name}: {self.verdict}>"

    def _repr_markdown_(self) -> str:
        """The verdict first, then what it rests on, in a few lines; `print` shows all of it."""
        lines = [f"**{self.verdict.capitalize()}**: {md(self.a.name)} and {md(self.b.name)} ({md(self.reason)})"]
        if self.residual_latex:
            lines.append(f"In {md(self.where)} they differ by\n\n{displayed([self.residual_latex])}")
        if self.mapping:
            rows = [f"| `{k}` | `{v}` |" for k, v in list(self.mapping.items())[:SHOWN]]
            more = [f"| … | {len(self.mapping) - SHOWN} more: `print` |"] if len(self.mapping) > SHOWN else []
            lines.append("\n".join([f"| {md(self.a.name)} | in terms of {md(self.b.name)} |", "| --- | --- |", *rows, *more]))
        return "\n\n".join(lines) + "\n"


def equivalent(a: object, b: object, mapping: Mapping[str, str] | None = None, *,
               rng: int | np.random.Generator | None = None) -> Equivalence:
    """Compare two cells, or layers that run a cell, as functions.

    Without `mapping` the parameters of `a` are sought in terms of those of `b`, and the other way round: identity,
    gates permuted or negated (z -> 1 - z), biases merged or split, multiples, matrices over [h, x] apart or joined,
    transposed.  A layer's packed weights appear as their rows: `weight_ih_l0[0:128]`.
    With `mapping`, e.g. `{"W_i": "-W_f"}`, that one is checked (parameters not named keep their names).

    Inputs and outputs keep their names where both cells have them: x - u is not u - x.

    Verdicts: "equal" (proved at random points modulo a prime of 61 bits, at `sizes`, and exactly where they are 2; where
    branches look at data, on those of several draws); "different" (with a residual and numbers that show it: under the
    closest mapping, or because one cell needs a constraint to become the other); "unknown" (no mapping was found, which is
    no proof of difference).  `rng` gives the prime and the draws.

    Arrays have each cell's own shapes at the `sizes` of the result. Raises `ArgumentError` for
    what is no cell and runs none, and for a mapping that names what is not there.

    >>> import tinyrnn as tr
    >>> e = tr.equivalent(tr.cells["gru_lecture"], tr.cells["gru"])
    >>> e.verdict, e.residual
    ('different', '-r[t] * b_hn')
    """
    began, seed = time.perf_counter(), run_seed(rng)
    (ours, our_rows), (theirs, their_rows) = _cell_of(a), _cell_of(b)
    found = _with_mapping(ours, theirs, mapping, seed) if mapping is not None else _search(ours, theirs, seed)
    shown = {our_rows.get(k, k): _with_rows(v, their_rows) for k, v in found.get("mapping", {}).items()}
    return Equivalence(**{**found, "mapping": shown, "a": ours, "b": theirs, "seed": seed,
                         "seconds": time.perf_counter() - began})


def _cell_of(x: object) -> tuple[Cell, dict[str, str]]:
    """The cell of a cell or a layer; for packed weights also the rows that each parameter of the cell is."""
    cell = x if isinstance(x, Cell) else getattr(x, "cell", None)
    if not isinstance(cell, Cell):
        raise ArgumentError(f"equivalent compares cells, or layers that run one; got {type(x).__name__}")
    weights = getattr(x, "cell_weights", None)
    return cell, {} if weights is None else {p: _rows(p, n) for p, n in weights("l0").items()}


def _rows(parameter: str, n: Node) -> str:
    """The rows of a packed leaf that a parameter reads, from the layer's own graph."""
    if n.op is not SLICE or n.src[0].op is not LEAF:
        raise ArgumentError(f"the layer has no weights for {parameter} (bias=False); compare a cell without it")
    start, count, _ = parts_of(n)[0]
    return f"{box_of(n.src[0]).name}[{start}:{start + count}]"


def _with_rows(text: str, rows: Mapping[str, str]) -> str:
    return re.sub(r"[^\W\d]\w*", lambda m: rows.get(m[0], m[0]), text)


def _search(a: Cell, b: Cell, seed: int) -> dict[str, Any]:
    named = _as_named(a, b)
    proved = Proved() if named is None else named.prove(seed)
    if named is not None and proved.method:
        free = {p: p for p in a.parameters if p not in a.learned}
        return _equal(named, proved, free | _renamed(named.signals, named.names, a))
    effort = Effort()
    forth, back = _included(a, b, seed, effort), _included(b, a, seed, effort)
    if forth and back:
        names, pair, proved = forth
        shown = names.shown | _renamed(names.signals, names.match.names, a)
        if not _same_learned(a, b, names.signals):
            return {"verdict": "different", "mapping": shown, "reason": "their steps are equal, but they learn "
                    f"different initial states: {', '.join(a.learned) or 'none'} and {', '.join(b.learned) or 'none'}"}
        return _equal(pair, proved, shown) | {"error_bound": max(proved.error_bound, back[2].error_bound)}
    if effort.beyond:
        return {"verdict": "unknown", "reason": f"they compare sizes with numbers beyond {LARGEST:,}, which are not tried"}
    if effort.exhausted:
        return {"verdict": "unknown", "reason": "there are too many ways to pair their gates; the search was cut off"}
    if forth or back:
        return _one_sided(a, b, forth, back, seed)
    found = _with_signs(a, b, seed)
    if found is None and named is not None and all(differing(named, seed, sizes=s) is None for s in (None, proved.refuted)):
        return {"verdict": "unknown", "reason": "equal in numbers, with every parameter as it is named, but not by the rules "
                "of the finite field"}
    return found or _at_other_sizes(a, effort) or _nearest(a, b, seed, effort)


def _as_named(a: Cell, b: Cell) -> Pair | None:
    """Both cells with every parameter as it is named, where the names are the same."""
    if a.parameters != b.parameters or a.fixed != b.fixed or set(a.system.learned) != set(b.system.learned):
        return None
    return next(iter(_pairs(a, b, {})), None)


def _renamed(signals: Mapping[str, str], names: Mapping[str, str], a: Cell) -> dict[str, str]:
    """Inputs, states and outputs that have another name in the other cell."""
    pairs = {**{k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}, **{o: names.get(o, o) for o in a.outputs}}
    return {f"{k}[t]": f"{v}[t]" for k, v in pairs.items() if k != v}


def _equal(pair: Pair, proved: Proved, shown: Mapping[str, str]) -> dict[str, Any]:
    return {"verdict": "equal", "pair": pair, "reason": _proved(proved), "mapping": dict(shown), "method": proved.method,
            "sizes": proved.sizes, "error_bound": proved.error_bound, "branches": proved.branches,
            "one_sided": proved.one_sided}


def _at_other_sizes(a: Cell, effort: Effort) -> dict[str, Any] | None:
    """A mapping that holds at some sizes, and numbers that refute it at others."""
    for found, pair, sizes, seed in sorted(effort.refuted, key=lambda r: -sum(p == text for p, text in r[0].shown.items())):
        numbers = differing(pair, seed, sizes=sizes)
        if numbers is not None:
            where = ", ".join(f"{k} = {v}" for k, v in sizes.items())
            forth = pair.a is a
            return {"verdict": "different", "mapping": found.shown if forth else {},
                    "counterexample": numbers if forth else numbers.turned,
                    "reason": f"under the closest mapping they differ where {where}"}
    return None


def _with_signs(a: Cell, b: Cell, seed: int) -> dict[str, Any] | None:
    """Equal names with signs and doubles: what stands inside a kink, a square or an outer product is found by trying."""
    free = [p for p in a.parameters if p not in a.learned and p not in a.fixed]
    if a.parameters != b.parameters or a.fixed != b.fixed or not list(pairings(a, b)):
        return None
    scales = ("", "-", "2 * ", "0.5 * ") if len(free) <= 3 else ("", "-") if len(free) <= 8 else ("",)
    for signs in product(scales, repeat=len(free)):
        mapping = {p: f"{s}{p}" for p, s in zip(free, signs, strict=True)}
        pair = next(iter(_pairs(a, b, mapping)), None)
        if pair is not None and differing(pair, seed, tries=1) is None:
            found = _with_mapping(a, b, mapping, seed)
            if found["verdict"] == "equal":
                return {**found, "reason": found["reason"].removesuffix(GIVEN)}
    return None


GIVEN = ", under the given mapping"


def _proved(proved: Proved) -> str:
    """How, at which sizes, and on which branches."""
    names = ", ".join(proved.sizes[0])
    sizes = [", ".join(map(str, s.values())) for s in proved.sizes]
    shown = "; ".join(sizes) if len(sizes) <= 8 else f"{'; '.join(sizes[:7])}; ... {sizes[-1]} ({len(sizes)} in all)"
    rest = f", {proved.one_sided} of them always one way" if proved.one_sided else ""
    where = f", on the branches of {POINTS} or more draws at each ({proved.branches} decisions{rest})"
    where = where if proved.branches else ""
    return f"proved {proved.method} for every input, state and parameter at sizes {names} = {shown}{where}"


def _same_learned(a: Cell, b: Cell, signals: Mapping[str, str]) -> bool:
    names = {k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}
    return {(names[n], k) for n, k in a.system.learned} == set(b.system.learned)


def _included(a: Cell, b: Cell, seed: int, effort: Effort) -> Inclusion | None:
    """A mapping under which `a` computes what `b` computes, proved."""
    for found in _maps(a, b, 0, effort):
        problem = Pair(a, b, found.signals, found.match.names, partial(apply, a, b, found.blocks))
        proved = problem.prove(seed)
        if proved.method:
            return found, problem, proved
        effort.beyond |= proved.beyond
        if proved.refuted:
            effort.refuted.append((found, problem, proved.refuted, seed))
    return None


def _maps(a: Cell, b: Cell, slack: int, effort: Effort) -> Iterator[Map]:
    """Candidate mappings: those without absent parameters first, at most a few of each kind."""
    for cut, absent in product((False, True), (False, True)):
        try:
            ours, theirs = profile(a, cut), profile(b, cut)
            for signals in pairings(a, b):
                search = Search(ours, theirs, slack, absent, effort)
                for match, _ in zip(search.matches(signals), range(8), strict=False):
                    blocks = block_mapping(match, a, b)
                    if blocks is not None:
                        yield Map(match, blocks, shown_mapping(a, b, blocks), signals)
        except TermLimitError:  # polynomials too large to search in; the next way may do
            effort.exhausted = True


def _one_sided(a: Cell, b: Cell, forth: Inclusion | None, back: Inclusion | None, seed: int) -> dict[str, Any]:
    """One cell is the other under a constraint: equal there, different elsewhere."""
    big, small, found = (a, b, forth) if forth else (b, a, back)
    assert found is not None
    one = found[0]
    shown = one.shown if forth else shown_mapping(small, big, turned_back(one))
    reason = f"{small.name} is {big.name} with {_constraint(big, one)}; no mapping was found the other way"
    numbers = counterexample(a, b, one, seed, turned=not forth)
    if numbers is None:
        return {"verdict": "unknown", "reason": f"{small.name} is {big.name} with {_constraint(big, one)}, the other way "
                "is not proved, and no numbers were found at which they differ", "mapping": shown}
    where, left = _first_residual(big, small, _substitution(big, small, one), one.match)
    return {"verdict": "different", "reason": reason, "mapping": shown, **_residual_fields(where, left, turned=not forth),
            "counterexample": numbers}


def _constraint(big: Cell, found: Map) -> str:
    """What the mapping forces upon the larger cell: zeros, and parameters tied to each other."""
    zeros = dict.fromkeys(block_of(big, e)[0].show(big) for e in _absent(found.match))
    users: dict[Block, list[tuple[Fraction, str]]] = {}
    for block, terms in found.blocks.items():
        for t in terms:
            users.setdefault(t.block, []).append((t.scale, block.show(big)))
    tied = [f"{other} = {_multiple(s / scale)}{name}" for (scale, name), *rest in users.values() for s, other in rest]
    return ", ".join(dict.fromkeys([*(f"{z} = 0" for z in zeros), *tied])) or "the same parameters"


def _absent(match: Match) -> list[Entry]:
    """Entries that nothing in the other cell corresponds to."""
    return [e for link in match.links if link.ours is None for e in link.idle]


def _multiple(scale: Fraction) -> str:
    return "" if scale == 1 else "-" if scale == -1 else f"{decimal(scale)} * "


def _nearest(a: Cell, b: Cell, seed: int, effort: Effort) -> dict[str, Any]:
    """The mapping with the fewest places that differ, most of whose names agree; the residual there, and numbers."""
    for slack in range(1, SLACK + 1):
        candidates = [m for m, _ in zip(_maps(a, b, slack, effort), range(16), strict=False) if m.match.mismatches]
        for found in sorted(candidates, key=lambda m: -sum(p == text for p, text in m.shown.items())):
            place = found.match.mismatches[0]
            left = residual(a, b, place.ours, place.theirs, _substitution(a, b, found), _signals(found.match))
            numbers = None if left.vanishes else counterexample(a, b, found, seed)
            if numbers is not None:
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


def _substitution(a: Cell, b: Cell, found: Map) -> dict[str, Term]:
    """Blocks of `a` as expressions in blocks of `b`; what has no counterpart keeps its own name."""
    absent = {block_of(a, e)[0] for e in _absent(found.match)}
    return {block_name(a, block.parameter, block.parts[-1] if block.parts else 0): _expression(b, terms)
            for block, terms in found.blocks.items() if block not in absent}


def _expression(b: Cell, terms: tuple[Multiple, ...]) -> Term:
    total = Term("number", 0.0)
    for k, t in enumerate(terms):
        name = block_name(b, t.block.parameter, t.block.parts[-1] if t.block.parts else 0)
        one = Term("transpose" if t.transposed else "parameter", name)
        one = one if abs(t.scale) == 1 else Term("binary", "*", (Term("number", float(abs(t.scale))), one))
        one = Term("negate", None, (one,)) if t.scale < 0 else one
        total = one if not k else Term("binary", "+", (total, one))
    return total


def _signals(match: Match) -> dict[str, Term]:
    """Quantities of the second cell in terms of the first's."""
    found: dict[str, Term] = {}
    for ours, theirs in sorted(match.names.items(), key=lambda pair: pair[0] in match.negated):
        here = Term("signal", (ours, 0))
        found.setdefault(theirs, mirrored(match.negated[ours], ours) if ours in match.negated else here)
    return found


def _first_residual(a: Cell, b: Cell, parameters: Mapping[str, Term], match: Match) -> tuple[str, Residual]:
    """The first equation of `a` that differs from the one it corresponds to."""
    theirs, signals = {e.name for e in b.system.equations}, _signals(match)
    for e in a.system.equations:
        other = match.names.get(e.name, e.name)
        if other in theirs:
            left = residual(a, b, e.name, other, parameters, signals, -1 if e.name in match.negated else 1)
            if not left.vanishes:
                return e.name, left
    return "", Residual()


# ---- a mapping that the user gives

def _with_mapping(a: Cell, b: Cell, mapping: Mapping[str, str], seed: int) -> dict[str, Any]:
    unknown = [k for k in mapping if k not in a.parameters]
    if unknown:
        raise ArgumentError(f"the mapping names {unknown[0]!r}; the parameters of {a.name} are {', '.join(a.parameters)}")
    terms = _terms(a, b, mapping)
    shown = {p: str(mapping.get(p, p)) for p in terms}
    for pair in _pairs(a, b, mapping):
        pair.graph({s: 2 + i for i, s in enumerate(b.sizes)}, 1)  # sizes that do not fit are an error, not a verdict
        proved = pair.prove(seed)
        shown |= _renamed(pair.signals, pair.names, a)
        if proved.method:
            found = _equal(pair, proved, shown)
            return found | {"reason": found["reason"] + GIVEN}
        numbers = differing(pair, seed) or (differing(pair, seed, sizes=proved.refuted) if proved.refuted else None)
        if numbers is not None:
            where, left = _first_residual(a, b, _blocks_of_terms(a, b, terms), Match([], [], dict(pair.names), {}))
            return {"verdict": "different", "reason": "they differ under the given mapping", "mapping": shown,
                    "counterexample": numbers, **_residual_fields(where, left)}
        return {"verdict": "unknown", "reason": "equal in numbers, but not by the rules of the finite field", "mapping": shown}
    return {"verdict": "unknown", "reason": f"inputs, states and outputs do not correspond: {a!r}, {b!r}"}


def _terms(a: Cell, b: Cell, mapping: Mapping[str, str]) -> dict[str, Term]:
    return {p: _parsed(p, str(mapping.get(p, p)), a, b) for p in a.parameters if p not in a.learned}


def _pairs(a: Cell, b: Cell, mapping: Mapping[str, str]) -> Iterator[Pair]:
    """Both cells with parameters as the mapping says, for every pairing of inputs and states."""
    terms = _terms(a, b, mapping)

    def mapped(theirs: Nodes, ours_sizes: Sizes, sizes: Sizes) -> Nodes:
        shapes = {p: tuple(sum(size_of(x, ours_sizes) for x in s.split("+")) for s in a.parameters[p]) for p in terms}
        return {p: _evaluate(t, theirs, shapes[p]) for p, t in terms.items()}

    for signals in pairings(a, b):
        names = {k.split("[")[0]: v.split("[")[0] for k, v in signals.items()}
        for outputs in output_pairings(a, b):
            yield Pair(a, b, signals, {**names, **outputs}, mapped)


def _blocks_of_terms(a: Cell, b: Cell, terms: Mapping[str, Term]) -> dict[str, Term]:
    """The given mapping by blocks: the parts of a joined matrix belong to the columns of the parts."""
    found = {}
    for p, t in terms.items():
        parts = a.parameters[p][-1].split("+") if a.parameters[p] else [""]
        for k in range(len(parts)):
            found[p if len(parts) == 1 else block_name(a, p, k)] = _column(t, b, k) if len(parts) > 1 else t
    return found


def _column(t: Term, b: Cell, k: int) -> Term:
    if t.kind == "join":
        return t.args[k]
    if t.kind == "parameter":
        return Term("parameter", block_name(b, t.value, k))
    return Term(t.kind, t.value, tuple(_column(x, b, k) for x in t.args))


def _parsed(parameter: str, text: str, a: Cell, b: Cell) -> Term:
    if text == parameter and parameter not in b.parameters:
        raise ArgumentError(f"the mapping says nothing of {parameter}, and {b.name} has no parameter of that name; "
                            f"give it in terms of {', '.join(b.parameters)}, or as 0")
    try:
        term = parse_line(text).term
    except EquationError as error:
        raise ArgumentError(f"the mapping of {parameter} is {text!r}, which is no expression: {error}") from None
    for t in term.walk():
        scaled = t.value == "*" and any(x.kind == "number" for x in t.args)
        known = t.kind in ("parameter", "transpose", "negate", "join", "number", "binary")
        if not known or (t.value in ("*", "/", "@", "**") and not scaled):
            raise ArgumentError(f"the mapping of {parameter} is {text!r}; it may hold parameters of {b.name}, sums, multiples, "
                                "[joined, columns], .T and 0")
        if t.kind in ("parameter", "transpose") and t.value not in b.parameters:
            raise ArgumentError(f"the mapping of {parameter} names {t.value!r}; the parameters of {b.name} are "
                                f"{', '.join(b.parameters)}")
    return term


def _evaluate(t: Term, theirs: Nodes, shape: Shape) -> Node:
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
    x, y = (_evaluate(s, theirs, () if s.kind == "number" and t.value == "*" else shape) for s in t.args)
    if t.value == "*":
        return x * y
    return x + y if t.value == "+" else x - y
