"""`prove`: a cell's or a graph's gradients are the derivatives; a pass maps every graph to an equal one."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...cells.cell import Cell
from ...cells.zoo import get, names
from ...domains import Exact, Field
from ...domains.exact import Element
from ...domains.field import drawn_prime
from ...errors import ArgumentError, IndexRangeError, ProofError, TermLimitError, UndefinedError
from ...files import PathLike, atomic_write
from ...ir.graph import Graph, node_of
from ...ir.node import Node, rebuild, walk
from ...ir.ops.leaves import input_name, input_node, is_number
from ...ir.ops.linear import sum_
from ...passes.ad.derivatives import grad
from ...shapes import checked_count
from ..checker.contents import CELL_CLAIM, FORMAT, GRAPH_CLAIM, PASS_CLAIM, WEIGHT
from ..derivation.pages import md
from ..equivalence.sides import both_sides, edges, first_difference
from .axioms import axioms
from .choices import chooses_otherwise
from .draws import Draws, sources, with_finite_floats
from .examples import graphs_of_ops
from .identity import (
    FOREIGN,
    Case,
    Problem,
    branches_of,
    degrees_of,
    error_bound,
    exact_case,
    field_case,
    field_inputs,
    run_exact,
    run_field,
)
from .localise import agrees_in_numbers, fail, first_doubt
from .serialise import program

MAX_TERMS = 400_000
SHOWN, RECORDED = 40, 4  # cases that are printed; pairs of graphs in a certificate
BRANCH_RUNS = 6
SOUGHT = 8
FLOAT_RUNS = 70
"""Branches are also looked for in so many draws in floats; one that looks wrong is then decided exactly."""
Pass = Callable[[Graph], Graph]


@dataclass(frozen=True, repr=False)
class Proof:
    """What was proved, in which cases, and how sure that makes one.

    An exact case is an identity of polynomials, coefficient by coefficient: no error is possible but a bug in the few
    lines that add and multiply polynomials.  A field case is the same identity at a random point modulo a prime of 61 bits
    that is drawn from `seed`; it accepts a false identity with probability at most `error_bound`, unless the prime divides
    all its coefficients.  Where data decides a branch, both speak of the branches of the draws that were made.  Both rest
    on the axioms: every op's gradient rule and the slope of every function are SymPy's.  Neither speaks of rounding.
    """

    subject: str
    claim: str
    cases: tuple[Case, ...]
    axioms: int
    seconds: float
    seed: int
    text: str = ""
    notes: tuple[str, ...] = ()
    programs: Sequence[Callable[[], dict[str, Any]]] = field(default=(), repr=False, compare=False)

    @property
    def holds(self) -> bool:
        """Whether every case is convincing (a field case may have too high a degree)."""
        return all(c.proved for c in self.cases)

    @property
    def method(self) -> str:
        """"exact" where an identity of polynomials was checked, "field" where only random points were."""
        return "exact" if any(c.method == "exact" for c in self.cases) else "field"

    @property
    def error_bound(self) -> float:
        """The largest error bound of a field case."""
        return max((c.error_bound for c in self.cases), default=0.0)

    @property
    def branches(self) -> int:
        return max((c.branches for c in self.cases), default=0)

    @property
    def verdict(self) -> str:
        """In words: proved, on which branches, or why not."""
        why = next((c.undecided for c in self.cases if c.undecided), "the degree is too high for the field")
        branch = " on the branches of the draws" if self.branches else ""
        return f"proved{branch}" if self.holds else f"NOT PROVED ({why}){branch}"

    def __repr__(self) -> str:
        return f"<Proof about {self.subject}: {self.verdict}>"

    def _repr_markdown_(self) -> str:
        """The verdict first, then how it was found, in a few lines; `print` shows every case."""
        exact, drawn = (sum(c.method == m for c in self.cases) for m in ("exact", "field"))
        bound = f", error bound {self.error_bound:.1e}" if drawn else ""
        notes = "".join(f"- {md(n)}\n" for n in self.notes)
        return (f"**{self.verdict[0].upper()}{md(self.verdict[1:])}**: {md(self.subject)}, {md(self.claim)}.\n\n"
                f"{exact} exact cases, {drawn} at random points{bound}, {self.axioms} rules of ops and functions; seed "
                f"{self.seed}. `print` shows every case.\n\n{notes}")

    def __str__(self) -> str:
        more = len(self.cases) - SHOWN
        rest = [f"  {c}" for c in self.cases[:SHOWN]] + ([f"  and {more} cases more"] if more > 0 else [])
        rest += [f"  note: {n}" for n in self.notes]
        rules = f"  axioms {self.axioms} rules of ops and functions equal SymPy's derivatives\n" if self.axioms else ""
        drawn = f"  seed {self.seed} gives the prime of 61 bits and all draws; bounds hold unless it divides a difference"
        return f"{self.subject}: {self.claim}: {self.verdict}, {self.seconds:.2f} s\n{rules}" + "\n".join([*rest, drawn])

    def certificate(self) -> str:
        """The claim and the programs it speaks of, as JSON that `tinyrnn prove --check` verifies: nothing else."""
        return json.dumps({"format": FORMAT, "claim": self.claim, "text": self.text, "programs": [p() for p in self.programs]},
                          ensure_ascii=False) + "\n"

    def save(self, file: PathLike) -> None:
        """Write the certificate."""
        atomic_write(Path(file), self.certificate().encode())


def prove(subject: Cell | Graph | Pass, /, sizes: Mapping[str, int] | None = None, *, steps: int | None = None,
          batch: int | None = None, values: Mapping[str, Any] | None = None, max_terms: int = MAX_TERMS,
          rng: int | np.random.Generator | None = None, **named: int) -> Proof:
    """Prove that gradients are derivatives, or that a pass keeps every value.

    A cell: the gradient of `Σ <r[t], y[t]>`, with free r, with respect to every parameter, input and initial state, on
    the engine's own backward graph, unrolled and rolled; exactly at small sizes, in the field at the given ones.
    A graph: its outputs `dA/dB` (the derivative of output A by input B), or, where it has none, the gradient that the
    engine builds for it.  A function from graph to graph: its results against its arguments, on graphs with every op.

    Where data decides a branch (relu, where, an index, a mask), the proof speaks of the branches that were met: those of
    several draws over wide ranges, of all whole numbers that an input takes, and of numbers that were sought to make each
    decision go both ways.  `rng` gives the prime and all draws; without it they are drawn anew, and printed.

    Raises `ProofError` (parameter, entry, step, residual) where the claim is false.  Schwartz 1980; Zippel 1979.

    Sizes, `steps` and `batch` give the shapes: x [T, B, X], states [B, H]. `ArgumentError` is raised for what cannot be asked.

    >>> import tinyrnn as tr
    >>> proof = tr.prove(tr.cells.LSTM)
    >>> proof.holds, proof.method, proof.error_bound < 1e-9
    (True, 'exact', True)
    """
    began, seed = time.perf_counter(), run_seed(rng)
    for name, value in (("steps", steps), ("batch", batch)):
        if value is not None:
            checked_count(name, value)
    if isinstance(subject, Cell) and not isinstance(sizes, Cell):
        cases, notes, programs = _prove_cell(subject, sizes, steps, batch, max_terms, seed, named)
        return Proof(subject.name, CELL_CLAIM, cases, axioms(),
                     time.perf_counter() - began, seed, subject.canonical_text(), notes, programs)
    if isinstance(sizes, Cell):
        raise ArgumentError("prove takes one cell; whether two are the same function says tr.equivalent(a, b)")
    if sizes or steps or batch or named:
        raise ArgumentError("sizes, steps and batch are asked for with a cell; a graph has its own")
    if isinstance(subject, Graph):
        return _prove_graph(subject, values, max_terms, seed, began)
    if callable(subject):
        return prove_pass(subject, rng=seed)
    raise ArgumentError(f"prove takes a cell, a graph, or a function from graph to graph; got {type(subject).__name__}")


def run_seed(rng: int | np.random.Generator | None) -> int:
    """The seed of a run: the given one, one from a generator, or a new one, which nobody who built a graph could know."""
    if rng is None:
        return secrets.randbits(48)
    return int(rng.integers(1 << 48)) if isinstance(rng, np.random.Generator) else checked_count("rng", rng, 0)


# ---- cells

def weighted(cell: Cell) -> Callable[[list[Any]], Node]:
    """The loss `Σ <r[t], y[t]>` with inputs r: a gradient that holds for it holds for every loss behind the cell."""
    def loss(steps: list[Any]) -> Node:
        per_step = [s if isinstance(s, dict) else {cell.outputs[0]: s} for s in steps]
        terms = [(f"{WEIGHT}{n}[{t}]", node_of(y)) for t, d in enumerate(per_step, 1) for n, y in d.items()]
        total = [sum_(input_node(name, y.shape) * y) for name, y in terms]
        return sum(total[1:], start=total[0])
    return loss


def cell_problem(cell: Cell, form: str, steps: int, batch: int, sizes: Mapping[str, int], seed: int) -> Problem:
    """A cell's gradients with free weights of the loss."""
    build = cell.unroll if form == "unrolled" else cell.rolled
    graph = build(steps, sizes, batch=batch, loss=weighted(cell), gradients=True)
    return gradient_problem(graph, form, {"steps": steps, "batch": batch, **sizes}, seed)


def _prove_cell(cell: Cell, sizes: Mapping[str, int] | None, steps: int | None, batch: int | None, limit: int, seed: int,
                named: Mapping[str, int]) -> tuple[tuple[Case, ...], tuple[str, ...], list[Callable[[], dict[str, Any]]]]:
    given = cell.checked_sizes(sizes, named, fill=True)
    longest = max((k for _, k in cell.slots), default=1)
    steps, batch = steps or longest + 4, batch or 4
    cases, notes = [], []
    small = dict.fromkeys(cell.sizes, 2)
    try:
        for form in ("unrolled", "rolled"):
            cases.append(_exactly(cell_problem(cell, form, 2, 1, small, seed), limit))
        for draw in (1, 2) if cases[0].branches else ():  # so that no unit is dead in all of them
            cases.append(_exactly(replace(cell_problem(cell, "unrolled", 2, 1, small, seed), draw=draw), limit))
    except TermLimitError as error:
        cases = []
        notes.append(f"no exact proof: {error}; the field decides")
    problems = [cell_problem(cell, form, steps, batch, given, seed) for form in ("unrolled", "rolled")]
    cases += [_in_field(problem) for problem in problems]
    check = [cell_problem(cell, form, min(steps, longest + 2), min(batch, 2), _smaller(given), seed)
             for form in ("unrolled", "rolled")]
    return tuple(cases), tuple(notes), [partial(program, p) for p in check]


def _smaller(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of at most a handful, for certificates that stay small."""
    return {s: min(n, 2 + i) for i, (s, n) in enumerate(sizes.items())}


def _exactly(problem: Problem, limit: int) -> Case:
    """The polynomials of both sides; raises `TermLimitError` where they are too large or the field must decide."""
    began = time.perf_counter()
    run = with_finite_floats(lambda **way: run_exact(replace(problem, **way), limit))
    wrong = run.residuals()
    if wrong:
        if agrees_in_numbers(problem):
            raise TermLimitError("the two sides are equal by rules that polynomials do not have, such as x (1/x) = 1")
        raise fail(problem, exact=(run, wrong))
    return exact_case(problem, run, began)


def _in_field(problem: Problem) -> Case:
    """One random point; where branches look at data, those of several draws, and of numbers that were sought."""
    began = time.perf_counter()
    first, case = _first([replace(problem, draw=k) for k in range(BRANCH_RUNS)], began)
    if not case.branches:
        return case
    sought, one_sided = both_sides(problem.graph, problem.draws, BRANCH_RUNS)
    others = [*(replace(problem, draw=k) for k in range(BRANCH_RUNS)), *(replace(problem, chosen=v) for v in sought)]
    last = max(FLOAT_RUNS, 2 * problem.draws.count + 2)
    unseen = [*(replace(problem, draw=k) for k in range(BRANCH_RUNS, last)), *others[BRANCH_RUNS + SOUGHT:]]
    again = [*others[first + 1:BRANCH_RUNS + SOUGHT], *first_doubt(problem, unseen)]
    tried = [_decided_if_defined(p, began) for p in again]
    together = _together([case, *(c for c in tried if c is not None)])
    otherwise = chooses_otherwise(problem.graph, problem.loss, problem.claims)
    return replace(together, one_sided=one_sided, undecided=together.undecided or (FOREIGN if otherwise else ""))


def _first(problems: Sequence[Problem], began: float) -> tuple[int, Case]:
    """The first draw at which the graph is defined, and what it shows."""
    for problem in problems[:-1]:
        case = _decided_if_defined(problem, began)
        if case is not None:
            return problem.draw, case
    return problems[-1].draw, with_finite_floats(lambda **way: _decided(replace(problems[-1], **way), began))


def _decided_if_defined(problem: Problem, began: float) -> Case | None:
    try:
        return with_finite_floats(lambda **way: _decided(replace(problem, **way), began))
    except (IndexRangeError, UndefinedError):
        return None


def _together(cases: list[Case]) -> Case:
    """One case for the draws of one graph."""
    return replace(cases[0], branches=sum(c.branches for c in cases), points=len(cases),
                   error_bound=max(c.error_bound for c in cases), degree=max(c.degree for c in cases),
                   undecided=next((c.undecided for c in cases if c.undecided), ""), seconds=cases[-1].seconds)


def _decided(problem: Problem, began: float) -> Case:
    """With reciprocals as free elements, whose degree is 1; if that is not enough, as inverses modulo the prime."""
    for modular in (False, True):
        run = run_field(problem, modular=modular)
        if not run.difference:
            return field_case(problem, run, began)
    if not agrees_in_numbers(problem):
        raise fail(problem)
    entries = sum(int(np.prod(n.shape)) for n in problem.moving.values())
    return Case("field", problem.what, problem.sizes, entries, error_bound=1.0,
                branches=branches_of(run.domain, problem.draws), seconds=time.perf_counter() - began,
                undecided="equal in numbers, but not by the rules of the field")


# ---- graphs

def gradient_problem(graph: Graph, what: str, sizes: dict[str, int], seed: int,
                     values: Mapping[str, Any] | None = None) -> Problem:
    """The claims of a graph: outputs called `dA/dB`, where A is a scalar output and B an input."""
    known = sources(graph)
    claims = {o: o.split("/d", 1)[1] for o in graph.outputs if o.startswith("d") and "/d" in o}
    losses = {o.split("/d", 1)[0][1:] for o in claims}
    if len(losses) != 1 or not losses <= set(graph.outputs):
        raise ArgumentError(f"the outputs of a graph that claims gradients are one scalar A and its dA/dB; got "
                            f"{', '.join(graph.outputs)}")
    loss = losses.pop()
    for output, name in list(claims.items()):
        if name not in known and is_number(graph.outputs[output], 0.0):
            del claims[output]  # an input that nothing reads: its gradient is the number 0
            continue
        if name not in known or not known[name].floating:
            raise ArgumentError(f"the output {output!r} claims a gradient by {name!r}, but the inputs are "
                                f"{', '.join(known) or 'none'}")
        if graph.outputs[output].shape != known[name].shape:
            raise ArgumentError(f"the output {output!r} has shape {graph.outputs[output].shape}, but {name!r} has "
                                f"{known[name].shape}")
    if graph.outputs[loss].shape:
        raise ArgumentError(f"the output {loss!r} has shape {graph.outputs[loss].shape}; only a scalar has a gradient")
    return Problem(graph, loss, claims, what, sizes, Draws(graph, seed, values))


def without_data(graph: Graph) -> Graph:
    """The graph with inputs in the place of its leaves, under the names that it gives them, so that its parts give the same."""
    if not graph.leaves:
        return graph
    new: dict[Node, Node] = {n: input_node(k, n.shape, n.dtype) for k, n in graph.leaves.items()}
    rebuild(graph.nodes, new)
    return Graph({k: new[n] for k, n in graph.outputs.items()}, {k: new.get(n, n) for k, n in graph.labels.items()},
                 {new.get(n, n): t for n, t in graph.steps.items()})


def with_gradients(graph: Graph) -> Graph:
    """The graph with a loss `Σ <r, output>` and the engine's gradient by every floating input."""
    wrt = {k: n for k, n in sources(graph).items() if n.floating}
    terms = [sum_(input_node(f"{WEIGHT}{k}", y.shape, y.dtype) * y) for k, y in graph.outputs.items() if y.floating]
    if not terms or not wrt:
        raise ArgumentError("the graph has no floating-point input or output, so there is no gradient to prove")
    loss = sum(terms[1:], start=terms[0])
    found = grad(loss, list(wrt.values()))
    return Graph({"loss": loss, **{f"dloss/d{k}": g for k, g in zip(wrt, found, strict=True)}}, graph.labels, graph.steps)


def _prove_graph(graph: Graph, values: Mapping[str, Any] | None, limit: int, seed: int, began: float) -> Proof:
    name, graph = f"graph {graph.fingerprint}", without_data(graph)
    claimed = any(o.startswith("d") and "/d" in o for o in graph.outputs)
    problem = gradient_problem(graph if claimed else with_gradients(graph), "given", {}, seed, values)
    cases, notes = [], []
    for draw in range(BRANCH_RUNS):
        try:
            cases.append(_exactly(replace(problem, draw=draw), limit))
        except TermLimitError as error:
            notes.append(f"no exact proof: {error}; the field decides")
        except (IndexRangeError, UndefinedError):  # the graph is not defined for these whole numbers
            continue
        break
    case = _in_field(problem)
    if claimed and not case.undecided and first_doubt(problem, [replace(problem, draw=k) for k in (0, 2, 4)], rounding=True):
        case = replace(case, undecided="the numbers of the gradient are others: it is not finite, or lost to rounding")
    cases.append(case)
    return Proof(name, GRAPH_CLAIM, tuple(cases), axioms(),
                 time.perf_counter() - began, seed, "", tuple(notes), [partial(program, problem)])


# ---- passes

def prove_pass(transform: Pass, graphs: Iterable[tuple[str, Graph]] | None = None, *,
               rng: int | np.random.Generator | None = None) -> Proof:
    """`transform(graph)` computes what `graph` computes, for training graphs of many kinds and graphs that hold every op of the
    catalogue, rolled and unrolled, forward and backward; or for the given ones.

    Both graphs run at the same random point of the field; a function's output is a keyed hash of its argument, so sums
    may be reordered and products merged, and nothing else.
    """
    began, seed = time.perf_counter(), run_seed(rng)
    name = getattr(transform, "__name__", repr(transform))
    pairs = ((what, graph, transform(graph)) for what, graph in graphs or (*graphs_of_ops(), *training_graphs()))
    return equal_graphs(f"pass {name}", pairs, seed, began)


def equal_graphs(subject: str, pairs: Iterable[tuple[str, Graph, Graph]], seed: int, began: float) -> Proof:
    """Every pair of graphs has equal outputs."""
    cases: list[Case] = []
    programs: list[Callable[[], dict[str, Any]]] = []
    for what, before, after in pairs:
        cases.append(_equal(subject, what, before, after, seed))
        programs.append(partial(_both, before, after))
        del programs[:-RECORDED]
    return Proof(subject, PASS_CLAIM, tuple(cases), 0,
                 time.perf_counter() - began, seed, "", (), programs)


def _both(before: Graph, after: Graph) -> dict[str, Any]:
    return {"before": program(before), "after": program(after)}


def _equal(subject: str, what: str, before: Graph, after: Graph, seed: int) -> Case:
    """One random point; where branches look at data, the branches of several draws."""
    began = time.perf_counter()
    if not isinstance(after, Graph):
        raise ArgumentError(f"{subject} returned {type(after).__name__}; a pass maps a graph to a graph")
    if list(before.outputs) != list(after.outputs):
        raise ProofError(f"{subject} changed the outputs of {what}: {', '.join(before.outputs)} became "
                         f"{', '.join(after.outputs)}")
    draws, cases, last = Draws(before, seed), list[Case](), None
    for draw in range(BRANCH_RUNS):
        try:
            cases.append(with_finite_floats(partial(_equal_at_a_point, subject, what, before, after, draws, draw, began)))
        except (IndexRangeError, UndefinedError) as error:
            last = error
            continue
        if not cases[0].branches:
            break
    if last is not None and not cases:
        raise last
    case = _together(cases)
    return replace(case, undecided="") if case.undecided and _same_numbers(before, after, draws) else case


def _same_numbers(before: Graph, after: Graph, draws: Draws) -> bool:
    """Whether two graphs that decide by different numbers agree wherever decisions change, and at many other numbers."""
    outputs = {**{f"a {k}": n for k, n in before.outputs.items()}, **{f"b {k}": n for k, n in after.outputs.items()}}
    new: dict[Node, Node] = {n: input_node(k, n.shape, n.dtype) for k, n in before.leaves.items()}
    rebuild(walk(outputs.values(), known=new.keys()), new)
    both = Graph({k: new[n] for k, n in outputs.items()})
    points = ({k: v[k] for k in both.inputs} for v in (*(draws.at(k) for k in range(FLOAT_RUNS)), *edges(both, draws)))
    try:
        return all(first_difference(both, v) is None for v in points)
    except IndexRangeError:
        return False


def _equal_at_a_point(subject: str, what: str, before: Graph, after: Graph, draws: Draws, draw: int, began: float,
                      **way: bool) -> Case:
    rng = np.random.default_rng([draws.seed, draw, 5])
    ring = Field(drawn_prime(draws.seed), int(rng.integers(1 << 62)))
    domain = Exact(ring)
    near = draws.at(draw, **way)
    values = {sources(before)[k]: x for k, x in field_inputs(before, near, domain, ring, rng).items()}

    def run(graph: Graph) -> dict[str, Any]:
        return graph.run({k: _value(subject, what, n, k, values) for k, n in sources(graph).items()}, domain=domain)

    first, known = run(before), ring.noted()
    try:
        second = run(after)
    except (IndexRangeError, UndefinedError) as error:
        raise ProofError(f"{subject} made of {what} a graph that is not defined where it was: {error}") from None
    for name in before.outputs:
        a, b = (x.value if isinstance(x, Element) else np.asarray(x) for x in (first[name], second[name]))
        if a.shape != b.shape or not np.array_equal(a, b):
            entry = () if a.shape != b.shape else tuple(int(i) for i in np.argwhere(a != b)[0])
            raise ProofError(f"{subject} changed the value of output {name!r}, entry {entry}, of {what}\n"
                             f"  both graphs were run at the same random point of a finite field (seed {draws.seed})", name,
                             entry)
    nears = {n: near[k] for k, n in sources(before).items()}
    runs = [degrees_of(g, {k: nears[n] for k, n in sources(g).items()}) for g in (before, after)]
    degree = max((float(x.value.max(initial=0.0)) for out, _ in runs for x in out.values() if isinstance(x, Element)),
                 default=0.0)
    argument = max(r.of_arguments for _, r in runs)
    entries = sum(int(np.prod(n.shape)) for n in before.outputs.values())
    return Case("field", what, {}, entries, degree=degree, argument_degree=argument, arguments=ring.arguments,
                error_bound=error_bound(degree, argument, ring.arguments), branches=branches_of(domain, draws),
                undecided="the graph after it decides by other numbers" if ring.foreign(ring.decisions, known) else "",
                seconds=time.perf_counter() - began)


def _value(subject: str, what: str, node: Node, name: str, values: Mapping[Node, Any]) -> Any:
    if node not in values:
        raise ProofError(f"{subject} made an input {name!r} that {what} does not have", name)
    return values[node]


def training_graphs() -> list[tuple[str, Graph]]:
    """Graphs as they occur in training: cells of many kinds with their gradients, rolled; a second derivative."""
    found = []
    for name in names():
        cell = get(name)
        graph = cell.rolled(4, cell.checked_sizes(None, {}, fill=True), batch=3, loss=weighted(cell), gradients=True)
        found.append((name, graph))
    twice = found[0][1]
    w = next(n for k, n in twice.inputs.items() if "[" not in k)
    again = grad(sum_(twice.outputs[f"dloss/d{input_name(w)}"] * input_node("v", w.shape)), [w])[0]
    return [*found, (f"{found[0][0]}, second derivative", Graph({**twice.outputs, "hessian": again}))]
