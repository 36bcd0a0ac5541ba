"""The identity behind every proof of a gradient, at one size and in one kind of exact numbers.

    Σ_w <dloss/dw, v_w>  =  d/ds loss(w + s v)  at s = 0

The left side is the engine's backward graph; the right side comes from a run of the forward graph alone, with
tangents.  The tangents are generators (exact) or random elements (field), so one equation is a statement about every
entry of every gradient.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...domains import Degrees, Exact, Field, Polynomials
from ...domains.exact import Array, Element
from ...domains.field import SMALLEST, drawn_prime
from ...domains.marks import drawn
from ...ir.graph import Graph
from ...ir.node import Node
from .draws import Draws, Values, sources

CHECKED = {"replay": "every read sees the value that its graph means", "floats": "equal to the graph within rounding"}
CONVINCING = 2.0**-20
"""A false identity may pass with at most this probability; otherwise nothing was proved."""


@dataclass(frozen=True)
class Case:
    """One identity that was checked: how, on what, and how sure that makes one."""

    method: str                     # "exact", "field", "replay" (a plan of kernels), "floats" (kernels that ran)
    what: str                       # "unrolled", "rolled", or what else the graph is
    sizes: dict[str, int]           # steps, batch, and the sizes of the cell
    entries: int                    # entries of gradients (or of outputs) that the identity covers
    terms: int = 0                  # exact: terms of the polynomial
    degree: float = 0.0             # field: bound of the total degree of the identity
    argument_degree: float = 0.0    # field: bound of the degree of any function's argument
    arguments: int = 0              # field: distinct arguments of functions
    error_bound: float = 0.0        # field: probability that a false identity passes
    branches: int = 0               # decisions that looked at data, and entries of whole numbers and bools: a proof on these
    points: int = 1                 # draws whose branches were taken
    one_sided: int = 0              # decisions that went one way in every draw
    seconds: float = 0.0
    undecided: str = ""             # why nothing was proved, although no numbers refute it

    @property
    def proved(self) -> bool:
        return self.error_bound <= CONVINCING and not self.undecided

    def __str__(self) -> str:
        sizes = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        by_degree = f"degree {self.degree:.3g}, error bound {self.error_bound:.1e}{'' if self.proved else ': NOT PROVED'}"
        sure = (f"NOT PROVED: {self.undecided}" if self.undecided else
                f"{self.terms:,} terms, all equal" if self.method == "exact" else CHECKED.get(self.method, by_degree))
        which = "on this branch" if self.points == 1 else f"on the branches of {self.points} draws"
        rest = f", {self.one_sided} always one way" if self.one_sided else ""
        branch = f", {which} ({self.branches} decisions{rest})" if self.branches else ""
        return f"{self.method:<6} {self.what:<9} {sizes:<34} {self.entries:>6} entries  {sure}{branch}, {self.seconds:.2f} s"


@dataclass(frozen=True)
class Problem:
    """A graph that claims to compute gradients: output name -> name of the input it is the gradient of."""

    graph: Graph
    loss: str
    claims: Mapping[str, str]
    what: str
    sizes: dict[str, int]
    draws: Draws
    draw: int = 0
    positive: bool = False
    narrow: bool = False
    chosen: Values | None = None    # numbers that were sought, in the place of a draw

    @property
    def seed(self) -> int:
        return self.draws.seed

    @cached_property
    def near(self) -> Values:
        """Ordinary numbers for every input: they decide branches."""
        return self.draws.at(self.draw, self.positive, self.narrow) if self.chosen is None else self.chosen

    def drawn(self, positive: bool = False, narrow: bool = False) -> Problem:
        """The same problem, with floats drawn in one of the ways that keep a graph finite."""
        return replace(self, positive=positive, narrow=narrow)

    def field(self, modular: bool = False) -> Field:
        """The field of this run, with a key of this draw."""
        rng = np.random.default_rng([self.seed, self.draw, 2])
        return Field(drawn_prime(self.seed), int(rng.integers(1 << 62)), modular)

    def only(self, names: Iterable[str]) -> Graph:
        return Graph({k: self.graph.outputs[k] for k in names})

    @property
    def moving(self) -> dict[str, Node]:
        return {k: source(self.graph, k) for k in self.claims.values()}


def source(graph: Graph, name: str) -> Node:
    """An input or leaf by its name."""
    return graph.inputs[name] if name in graph.inputs else graph.leaves[name]


# ---- exact

@dataclass
class ExactRun:
    """The polynomials of both sides, and what their generators stand for."""

    ring: Polynomials
    domain: Exact
    given: dict[str, Any]
    tangents: dict[str, Array]
    slope: Any                      # the tangent of the loss
    gradients: dict[str, Any]       # claimed gradients by input

    def residuals(self) -> dict[tuple[str, tuple[int, ...]], Any]:
        """(input, entry) -> engine minus calculus, wherever that is not zero."""
        generators = {max(p.exponents(next(iter(p.terms))))[0]: (name, i)
                      for name, t in self.tangents.items() for i, p in np.ndenumerate(t)}
        truth = self.slope.coefficients(generators)
        found = {}
        for name, g in self.gradients.items():
            for i, p in np.ndenumerate(g):
                difference = p - truth[name, i] if (name, i) in truth else p
                if difference:
                    found[name, i] = difference
        return found


def run_exact(problem: Problem, limit: int) -> ExactRun:
    """Both sides in Z[generators]; raises `TermLimitError` where they grow past the cap."""
    ring = Polynomials(limit)
    domain = Exact(ring)
    nodes = sources(problem.graph)
    given = {k: domain.given(problem.near[k], ring.generators(k, n.shape)) if n.floating else drawn(problem.near[k])
             for k, n in nodes.items()}
    tangents = {k: ring.generators(f"∂{k}", n.shape) for k, n in problem.moving.items()}
    moving = {k: domain.given(x.near, x.value, tangents.get(k)) if isinstance(x, Element) else x for k, x in given.items()}
    slope = tangent_of(_restricted(problem.only([problem.loss]), moving, domain)[problem.loss], domain)
    claimed = _restricted(problem.only(problem.claims), given, domain)
    return ExactRun(ring, domain, given, tangents, slope.item(),
                    {k: exact_value(claimed[o], domain) for o, k in problem.claims.items()})


def exact_value(x: npt.NDArray[Any], domain: Exact) -> Array:
    return domain.lift(x).value


def tangent_of(x: Element, domain: Exact) -> Array:
    """The tangent, zeros where nothing moves."""
    return domain.nothing(x.shape) if x.tangent is None else x.tangent


def _restricted(graph: Graph, given: Mapping[str, Any], domain: Exact) -> dict[str, Any]:
    """A run that is given only what the graph reads."""
    return graph.run({k: given[k] for k in sources(graph)}, domain=domain)


def exact_case(problem: Problem, run: ExactRun, began: float) -> Case:
    """The record of an exact run that left no residual."""
    entries = sum(g.size for g in run.gradients.values())
    return Case("exact", problem.what, problem.sizes, entries, len(run.slope.terms),
                branches=branches_of(run.domain, problem.draws), seconds=time.perf_counter() - began)


# ---- field

def field_inputs(graph: Graph, near: Mapping[str, Array], domain: Exact, ring: Field,
                 rng: np.random.Generator) -> dict[str, Any]:
    """A random element for every entry of every floating input."""
    return {k: domain.given(near[k], ring.random(rng, n.shape)) if n.floating else drawn(near[k])
            for k, n in sources(graph).items()}


@dataclass(frozen=True)
class FieldRun:
    """Left side minus right side at one random point."""

    difference: int
    ring: Field
    domain: Exact
    foreign: bool                   # whether the claimed gradients take decisions that the loss does not take


def run_field(problem: Problem, moving: Mapping[str, Array] | None = None, modular: bool = False) -> FieldRun:
    """Both sides at one random point, for random tangents or the given ones."""
    rng = np.random.default_rng([problem.seed, problem.draw, 3])
    ring = problem.field(modular)
    domain = Exact(ring)
    given = field_inputs(problem.graph, problem.near, domain, ring, rng)
    v = {k: ring.random(rng, n.shape) for k, n in problem.moving.items()}
    v = v if moving is None else {k: moving.get(k, np.zeros(x.shape, np.uint64)) for k, x in v.items()}
    moved = {k: domain.given(x.near, x.value, v.get(k)) if isinstance(x, Element) else x for k, x in given.items()}
    slope = tangent_of(_restricted(problem.only([problem.loss]), moved, domain)[problem.loss], domain)
    known = ring.noted()
    claimed = _restricted(problem.only(problem.claims), given, domain)
    inner = sum(int(ring.sum(ring.mul(exact_value(claimed[o], domain), v[k]).reshape(-1), (0,), False))
                for o, k in problem.claims.items())
    return FieldRun((inner - int(slope)) % ring.prime, ring, domain, ring.foreign(ring.decisions, known))


def degrees_of(graph: Graph, near: Mapping[str, Array], moving: Iterable[str] = (),
               rational: bool = False) -> tuple[dict[str, Any], Degrees]:
    """Degree bounds of every output and its tangent, in the same domain's rules."""
    ring = Degrees(rational)
    domain = Exact(ring)
    ones = {k: np.ones(n.shape) for k, n in sources(graph).items()}
    given = {k: domain.given(near[k], ones[k], ones[k] if k in set(moving) else None) if n.floating else drawn(near[k])
             for k, n in sources(graph).items()}
    return graph.run(given, domain=domain), ring


def field_case(problem: Problem, run: FieldRun, began: float) -> Case:
    """The record of a field run that left no residual, with its error bound."""
    ring = run.ring
    forward, a = degrees_of(problem.only([problem.loss]), problem.near, problem.claims.values(), ring.modular)
    claimed, b = degrees_of(problem.only(problem.claims), problem.near, (), ring.modular)
    loss = forward[problem.loss]
    slope = 0.0 if loss.tangent is None else float(loss.tangent)
    gradients = [float(x.value.max(initial=0.0)) for x in claimed.values() if isinstance(x, Element)]
    together = sum(1 + d for d in gradients) + slope  # one quotient: the degrees of its parts add
    degree = together if ring.modular else max([slope, *(1 + d for d in gradients)])
    argument = max(a.of_arguments, b.of_arguments)
    entries = sum(int(np.prod(n.shape)) for n in problem.moving.values())
    return Case("field", problem.what, problem.sizes, entries, degree=degree, argument_degree=argument,
                arguments=ring.arguments, error_bound=error_bound(degree, argument, ring.arguments),
                branches=branches_of(run.domain, problem.draws), undecided=FOREIGN if run.foreign else "",
                seconds=time.perf_counter() - began)


FOREIGN = "the gradient decides by numbers by which the function does not"


def branches_of(domain: Exact, draws: Draws) -> int:
    """Decisions about numbers of a run, and entries that are no floats, which the draw has decided."""
    return domain.branches + draws.decisions


def error_bound(degree: float, argument_degree: float, arguments: int) -> float:
    """The probability that a false identity passes at a random point (Schwartz 1980, Zippel 1979).

    Either the identity, a nonzero polynomial of this degree, vanishes there, or two of n different arguments of
    functions (or one and the negative of another) meet in the same residue and get one output.  The bound is over the points
    of the field of a prime that divides no coefficient of that polynomial: of some 10^14 primes that may be drawn, a
    coefficient of b bits has at most b / 60.
    """
    return min(1.0, (degree + arguments**2 * argument_degree) / SMALLEST)
