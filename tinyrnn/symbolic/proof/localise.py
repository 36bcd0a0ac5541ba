"""Where a wrong gradient is wrong: the parameter, the entry, the step, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ...domains import COMPLEX_STEP, Exact
from ...domains.complex_step import STEP, complex_step_gradient
from ...domains.field import SMALLEST
from ...domains.shaken import running_error
from ...errors import IndexRangeError, ProofError, TermLimitError
from ...ir.graph import Graph
from ...ir.node import Node, apply, walk
from ...ir.ops.leaves import input_name, input_node
from .draws import FINITE, sources
from .identity import ExactRun, Problem, field_inputs, run_exact, run_field, tangent_of

Entry = tuple[int, ...]
Residuals = Mapping[tuple[str, Entry], Any]
SHOWN = 6
LARGEST = 100_000
ROUNDINGS, ROUGHLY = 1000.0, 0.01


def fail(problem: Problem, exact: tuple[ExactRun, Residuals] | None = None) -> ProofError:
    """The error for a problem whose identity does not hold."""
    if exact is not None:
        run, wrong = exact
        name, entry = next(iter(wrong))
        residual = show_polynomial(problem, run, wrong[name, entry])
    else:
        name, entry = _bisect(problem)
        residual = _smaller(problem, name, entry)
    output = next(o for o, k in problem.claims.items() if k == name)
    step = _wrong_step(problem, output, name, entry)
    engine, calculus = _in_numbers(problem, output, name, entry)
    where = ", ".join(f"{k}={v}" for k, v in problem.sizes.items())
    return ProofError(
        f"{output} is not the derivative of {problem.loss} with respect to {name} "
        f"({problem.what} graph{', ' + where if where else ''})\n"
        f"  entry {entry}{f', wrong at step {step}' if step is not None else ''}\n"
        f"  engine - calculus = {residual}\n"
        f"  in numbers: engine {engine:.12g}, calculus (complex step) {calculus:.12g}\n"
        "  the gradient rule of an op, a pass, or the graph that was given is wrong", name, entry, step, residual)


def _smaller(problem: Problem, name: str, entry: Entry) -> str:
    """The residual of one gradient as a polynomial, where it is not too large for that."""
    alone = replace(problem, claims={o: k for o, k in problem.claims.items() if k == name})
    try:
        run = run_exact(alone, LARGEST)
        return show_polynomial(problem, run, run.residuals()[name, entry])
    except TermLimitError:
        return "a polynomial of too many terms to print; it is not zero at a random point of a finite field"


def _bisect(problem: Problem) -> tuple[str, Entry]:
    """The first input, and its first entry, whose claimed gradient fails on its own."""
    rng = np.random.default_rng(1)
    for name, n in problem.moving.items():
        everything = rng.integers(1, SMALLEST, n.shape, np.uint64)
        if run_field(problem, {name: everything}).difference:
            entries = list(np.ndindex(n.shape))
            while len(entries) > 1:
                half = entries[: len(entries) // 2]
                some = np.zeros(n.shape, np.uint64)
                for i in half:
                    some[i] = everything[i]
                entries = half if run_field(problem, {name: some}).difference else entries[len(half):]
            return name, entries[0]
    raise AssertionError("the identity fails for all inputs together and for none alone")


def _in_numbers(problem: Problem, output: str, name: str, entry: Entry) -> tuple[float, float]:
    """The claimed and the true derivative at the float point."""
    only = problem.only([output])
    engine = only.run({k: problem.near[k] for k in sources(only)})[output][entry]
    forward = problem.only([problem.loss])
    if name not in sources(forward):
        return float(engine), 0.0
    at = np.asarray(problem.near[name], np.complex128).copy()
    at[entry] += 1j * STEP
    values = {k: problem.near[k] for k in sources(forward)}
    return float(engine), float(forward.run({**values, name: at}, domain=COMPLEX_STEP)[problem.loss].imag / STEP)


def agrees_in_numbers(problem: Problem) -> bool:
    """Whether every claimed gradient equals complex step to rounding: at the problem's own floats, and at others."""
    forward = problem.only([problem.loss])
    claimed = problem.only(problem.claims)
    usual = [replace(problem, draw=draw, chosen=None) for draw in (0, 2, 4)]  # even: of magnitude 1
    for point in [problem, *usual]:
        for at in (point.near, replace(point, positive=True).near):
            try:
                found = claimed.run({k: at[k] for k in sources(claimed)})
            except IndexRangeError:
                continue
            if all(np.isfinite(v).all() for v in found.values()):
                break
        else:
            return False
        for output, name in problem.claims.items():
            if name not in sources(forward):
                continue
            truth = complex_step_gradient(forward, {k: at[k] for k in sources(forward)}, name, problem.loss)
            allowed = 1e-11 * np.abs(truth).max(initial=1e-300)
            off = np.abs(found[output] - truth)
            if not (off <= allowed).all() and not (off <= allowed + ROUNDINGS * _rounding(claimed, at, output)).all():
                return False
    return True


def _rounding(claimed: Graph, at: Mapping[str, Any], output: str) -> Any:
    """How far rounding may move a claimed gradient."""
    alone = Graph({output: claimed.outputs[output]})
    return running_error(alone, {k: at[k] for k in sources(alone)})[1][output]


def first_doubt(problem: Problem, others: Iterable[Problem], rounding: bool = False) -> list[Problem]:
    """The first of other draws, if any, at which the claimed gradients differ from complex step along a random direction.

    With `rounding` also where they are not finite though the slope is, and only where they differ by much.
    """
    forward, claimed = problem.only([problem.loss]), problem.only(problem.claims)
    for other in others:
        rng = np.random.default_rng([problem.seed, other.draw, 4])
        v = {k: rng.normal(size=n.shape) for k, n in problem.moving.items()}
        for way in FINITE:
            off, truth, scale = _along(forward, claimed, other.drawn(**way), v)
            if rounding and np.isfinite(truth) and not off <= ROUGHLY * (abs(truth) + ROUGHLY):
                return [other]
            if np.isfinite(scale):
                if not rounding and off > 1e-8 * scale:
                    return [other]
                break
    return []


def _along(forward: Graph, claimed: Graph, problem: Problem, v: Mapping[str, Any]) -> tuple[float, float, float]:
    """How far the claimed slope along a direction lies from the true one; that one; and of what size its terms are."""
    at = problem.near
    with np.errstate(all="ignore"):
        try:
            found = claimed.run({k: at[k] for k in sources(claimed)})
            moved = {k: at[k] + 1j * STEP * v[k] if k in v else at[k] for k in sources(forward)}
            truth = float(forward.run(moved, domain=COMPLEX_STEP)[problem.loss].imag / STEP)
        except IndexRangeError:
            return 0.0, np.nan, np.inf
        terms = [found[o] * v[k] for o, k in problem.claims.items()]
        scale = sum(float(np.abs(t).sum()) for t in terms) + abs(truth)
        return abs(sum(float(t.sum()) for t in terms) - truth), truth, scale


# ---- steps: a parameter that is used at every step gets one copy for each

def per_step(graph: Graph, loss: Node, parameter: Node) -> tuple[Node, dict[int, Node]]:
    """The loss with `parameter + e_t` in place of the parameter at step t, and the inputs e_t."""
    order = walk([loss])
    moves: dict[int, Node] = {}
    new: dict[tuple[Node, int | None], Node] = {}
    invariant = {parameter}
    for n in order:
        if n.src and all(s in invariant or (s.op.kind == "leaf" and s.op.name == "full") for s in n.src) and (
                any(s in invariant for s in n.src)):
            invariant.add(n)

    def at(n: Node, t: int | None) -> Node:
        if n not in invariant:
            return new.get((n, None), n)
        if t is None:
            return n
        if (n, t) not in new:
            if n is parameter:
                moves[t] = input_node(f"step {t}", n.shape, n.dtype)
                new[n, t] = n + moves[t]
            else:
                new[n, t] = apply(n.op, tuple(at(s, t) for s in n.src), n.at)
        return new[n, t]

    for n in order:
        if n not in invariant:
            src = tuple(at(s, graph.steps.get(n)) for s in n.src)
            new[n, None] = n if src == n.src else apply(n.op, src, n.at)
    return at(loss, None), moves


def _wrong_step(problem: Problem, output: str, name: str, entry: Entry) -> int | None:
    """The last step whose share of a parameter's gradient is not the derivative by that step's copy."""
    graph, claimed = problem.graph, problem.graph.outputs[output]
    if not graph.steps or "[" in name:
        return int(name.split("[")[1].rstrip("]")) if "[" in name else None
    loss, moves = per_step(graph, graph.outputs[problem.loss], sources(graph)[name])
    shares = _shares(claimed, graph)
    wanted = Graph({"loss": loss, **{f"share {i}": n for i, (n, _) in enumerate(shares)}})
    ring = problem.field()
    domain = Exact(ring)
    rng = np.random.default_rng(2)
    given = field_inputs(graph, problem.near, domain, ring, rng)
    zero = {input_name(m): domain.lift(np.zeros(m.shape)) for m in moves.values()}
    run = wanted.run({k: {**given, **zero}[k] for k in sources(wanted)}, domain=domain)
    engine: dict[int, int] = {}
    for i, (_, step) in enumerate(shares):
        engine[step] = (engine.get(step, 0) + int(domain.lift(run[f"share {i}"]).value[entry])) % ring.prime
    for t in sorted({*moves, *engine}, reverse=True):
        if engine.get(t, 0) != _derivative(Graph({"loss": loss}), given, zero, moves.get(t), entry, domain):
            return t
    return None


def _derivative(graph: Graph, given: Mapping[str, Any], zero: Mapping[str, Any], move: Node | None, entry: Entry,
                domain: Exact) -> int:
    if move is None:
        return 0
    direction = np.zeros(move.shape, np.uint64)
    direction[entry] = domain.ring.number(Fraction(1))
    still = zero[input_name(move)]
    moving = {**zero, input_name(move): domain.given(still.near, still.value, direction)}
    run = graph.run({k: {**given, **moving}[k] for k in sources(graph)}, domain=domain)
    return int(tangent_of(run["loss"], domain))


def _shares(claimed: Node, graph: Graph) -> Sequence[tuple[Node, int]]:
    """The terms of a gradient with the step of each; the last step where a term carries none."""
    terms = claimed.src if claimed.op.name == "add_n" else (claimed,)
    last = max(graph.steps.values())
    return [(n, graph.steps.get(n, last)) for n in terms]


# ---- polynomials in the names of the graph

def show_polynomial(problem: Problem, run: ExactRun, residual: Any) -> str:
    """A residual in the names of inputs and of labelled values; long ones are cut."""
    names = list(run.ring.names)
    for label, n in problem.graph.labels.items():
        if n.floating and not str(label.name).startswith("d"):
            graph = Graph({"value": n})
            value = graph.run({k: run.given[k] for k in sources(graph)}, domain=run.domain)["value"].value
            for i, p in np.ndenumerate(value):
                if len(p.terms) == 1 and p.degree == 1 and "#" in names[k := next(p.exponents(next(iter(p.terms))))[0]]:
                    names[k] = f"{label}[{','.join(map(str, i))}]"
    run.ring.names = names
    terms = residual.terms
    shown = type(residual)(dict(list(terms.items())[:SHOWN]), residual.degree, residual.budget)
    more = len(terms) - SHOWN
    return str(run.ring.expression(shown)) + (f" + ... ({more} more terms)" if more > 0 else "")

