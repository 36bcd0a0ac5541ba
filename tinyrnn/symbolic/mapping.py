"""Mappings of parameters at work: applied to nodes, shown as text, proved, or refuted by numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from ..cells.cell import Cell
from ..domains import Exact, Field, Polynomials
from ..errors import ShapeError, TermLimitError
from ..ir.graph import Graph
from ..ir.node import Node, rebuild, walk
from ..ir.ops.leaves import full, input_node
from ..ir.ops.linear import swap_last
from ..ir.ops.structure import concat
from .identity import CONVINCING, degrees_of, error_bound, field_inputs, near_values, with_finite_floats
from .matching import Block, Blocks, Match, Term

Nodes = dict[str, Node]
Sizes = Mapping[str, int]
Mapped = Callable[[Nodes, Sizes, Sizes], Nodes]
Arrays = dict[str, Any]
Proved = tuple[str, float, int]
POINTS = 6
SIZES = ((2, 2, 1), (1, 5, 3), (3, 7, 2))
"""Batch, and the sizes of a cell as first, first + step, ...: unlike ones, so that no 2 stands for a size."""


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


def _read(b: Cell, term: Term, theirs: Nodes, sizes: Sizes) -> Node:
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


def _sum(b: Cell, terms: tuple[Term, ...]) -> str:
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
        for ours, theirs in self.signals.items():
            for x, y in zip(self.a.signals[ours.split("[")[0]], self.b.signals[theirs.split("[")[0]], strict=True):
                if "+" not in x and not x.isdigit():
                    found[x] = size_of(y, sizes) if "+" not in y else sum(size_of(p, sizes) for p in y.split("+"))
        # A size that only parameters have (a rank, a width) stands in no signal: by its name, else what is left over.
        spare = [n for s, n in sizes.items() if n not in found.values()]
        return {s: found[s] if s in found else sizes.get(s) or (spare.pop(0) if spare else 2) for s in self.a.sizes}

    def prove(self, seed: int) -> Proved:
        """("exact" or "field", error bound, branches), or ("", 1, 0) where the two differ."""
        bound, branches = 0.0, 0
        for batch, first, step in SIZES:
            try:
                graph = self.graph({s: first + step * i for i, s in enumerate(self.b.sizes)}, batch)
            except ShapeError:  # a correspondence whose sizes do not fit is none
                return "", 1.0, 0
            found = _field_equal(graph, seed)
            if found is None or found[0] > CONVINCING:
                return "", 1.0, 0
            bound, branches = max(bound, found[0]), branches + found[1]
        try:
            small = self.graph(dict.fromkeys(self.b.sizes, 2), 1)
            return ("exact" if _exactly_equal(small, seed) else "field"), bound, branches
        except TermLimitError:
            return "field", bound, branches


def _names(graph: Graph) -> list[str]:
    return [k[2:] for k in graph.outputs if k.startswith("a ")]


def _field_equal(graph: Graph, seed: int) -> tuple[float, int] | None:
    """The error bound of equality at random points, and how many branches were taken; None where outputs differ."""
    bound, branches = 0.0, 0
    for k in range(POINTS):
        found = with_finite_floats(partial(_at_a_point, graph, seed + k))
        if found is None:
            return None
        bound, branches = max(bound, found[0]), branches + found[1]
        if not found[1]:
            break
    return None if branches and not _equal_in_numbers(graph, seed) else (bound, branches)


def _at_a_point(graph: Graph, seed: int, **way: bool) -> tuple[float, int] | None:
    rng = np.random.default_rng(seed)
    ring = Field(int(rng.integers(1 << 62)))
    domain = Exact(ring)
    near = near_values(graph, seed, None, **way)
    run = graph.run(field_inputs(graph, near, domain, ring, rng), domain=domain)
    if any(not np.array_equal(domain.lift(run[f"a {n}"]).value, domain.lift(run[f"b {n}"]).value) for n in _names(graph)):
        return None
    out, degrees = degrees_of(graph, near)
    degree = max(float(np.max(x.value, initial=0.0)) for x in out.values())
    return error_bound(degree, degrees.of_arguments, ring.arguments), domain.branches


def _equal_in_numbers(graph: Graph, seed: int) -> bool:
    """Where branches decide, also ordinary numbers of many magnitudes."""
    for k in range(40):
        out = graph.run(near_values(graph, seed + k))
        for n in _names(graph):
            x, y = out[f"a {n}"], out[f"b {n}"]
            if not np.allclose(x, y, rtol=1e-7, atol=1e-9 * max(1.0, float(np.nanmax(np.abs(x), initial=0.0))), equal_nan=True):
                return False
    return True


def _exactly_equal(graph: Graph, seed: int) -> bool:
    ring = Polynomials(one_sigmoid=True)
    domain = Exact(ring)
    near = near_values(graph, seed)
    run = graph.run({k: domain.given(near[k], ring.generators(k, n.shape)) for k, n in graph.inputs.items()}, domain=domain)
    return all(p == q for n in _names(graph) for p, q in zip(
        domain.lift(run[f"a {n}"]).value.ravel(), domain.lift(run[f"b {n}"]).value.ravel(), strict=True))


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
            back.setdefault(t.block, (Term(ours, 1 / t.scale, t.transposed),))
    return back


def differing(pair: Pair, seed: int, tries: int = 8) -> Counterexample | None:
    """Numbers at which the two cells differ although their parameters correspond."""
    sizes = {s: 2 + i for i, s in enumerate(pair.b.sizes)}
    graph = pair.graph(sizes, 1)
    for k in range(tries):
        rng = np.random.default_rng(seed + k)
        values = {name: rng.normal(size=n.shape) for name, n in graph.inputs.items()}
        out = graph.run(values)
        for name in _names(graph):
            x, y = out[f"a {name}"], out[f"b {name}"]
            if np.abs(x - y).max() > 1e-6 * max(1.0, float(np.abs(x).max())):
                theirs = {p: values.get(p, np.zeros(s)) for p, s in pair.b.shapes(sizes).items()}
                nodes = {p: input_node(p, v.shape) for p, v in theirs.items()}
                mapped = Graph(pair.mapped(nodes, pair.own_sizes(sizes), sizes))
                inputs = {q: v for q, v in values.items() if q not in pair.b.parameters}
                return Counterexample(mapped.run({q: theirs[q] for q in mapped.inputs}), theirs, inputs, name,
                                      out[f"a {name}"], out[f"b {name}"])
    return None
