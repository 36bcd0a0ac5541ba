"""The identity behind every proof of a gradient, at one size and in one kind of exact numbers.

    Σ_w <dloss/dw, v_w>  =  d/ds loss(w + s v)  at s = 0

The left side is the engine's backward graph; the right side comes from a run of the forward graph alone, with
tangents.  The tangents are generators (exact) or random elements (field), so one equation is a statement about every
entry of every gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ..domains import Degrees, Exact, Field, Polynomials
from ..domains.exact import Array, Element
from ..domains.field import PRIME
from ..errors import BackendError, GraphError
from ..ir.graph import Graph
from ..ir.node import Node, walk
from ..ir.scan import Body

Result = TypeVar("Result")
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
    branches: int = 0               # entries of predicates that looked at data: a proof on these branches
    points: int = 1                 # float runs whose branches were taken
    seconds: float = 0.0
    undecided: bool = False         # equal in numbers, but not by the rules of the ring

    @property
    def proved(self) -> bool:
        return self.error_bound <= CONVINCING and not self.undecided

    def __str__(self) -> str:
        sizes = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        by_degree = f"degree {self.degree:.3g}, error bound {self.error_bound:.1e}{'' if self.proved else ': NOT PROVED'}"
        sure = ("NOT PROVED: equal in numbers, but not by the rules of the field" if self.undecided else
                f"{self.terms:,} terms, all equal" if self.method == "exact" else CHECKED.get(self.method, by_degree))
        which = "on this branch" if self.points == 1 else f"on the branches of {self.points} float runs"
        branch = f", {which} ({self.branches} decisions)" if self.branches else ""
        return f"{self.method:<6} {self.what:<9} {sizes:<34} {self.entries:>6} entries  {sure}{branch}, {self.seconds:.2f} s"


@dataclass(frozen=True)
class Problem:
    """A graph that claims to compute gradients: output name -> name of the input it is the gradient of."""

    graph: Graph
    loss: str
    claims: Mapping[str, str]
    what: str
    sizes: dict[str, int]
    seed: int
    values: Mapping[str, Any] | None = None
    positive: bool = False
    narrow: bool = False

    @cached_property
    def near(self) -> dict[str, Array]:
        """Ordinary numbers for every input: they decide branches."""
        return near_values(self.graph, self.seed, self.values, positive=self.positive, narrow=self.narrow)

    def only(self, names: Iterable[str]) -> Graph:
        return Graph({k: self.graph.outputs[k] for k in names})

    @property
    def moving(self) -> dict[str, Node]:
        return {k: source(self.graph, k) for k in self.claims.values()}


def source(graph: Graph, name: str) -> Node:
    """An input or leaf by its name."""
    return graph.inputs[name] if name in graph.inputs else graph.leaves[name]


def sources(graph: Graph) -> dict[str, Node]:
    """Inputs and leaves by name."""
    return {**graph.inputs, **graph.leaves}


FINITE: tuple[dict[str, bool], ...] = ({}, {"positive": True}, {"narrow": True}, {"positive": True, "narrow": True})
"""Ways to draw floats, one after the other until no branch meets a NaN: logarithms want positive numbers, exponentials
small ones."""


def near_values(graph: Graph, seed: int, values: Mapping[str, Any] | None = None, *, positive: bool = False,
                narrow: bool = False) -> dict[str, Array]:
    """Ordinary numbers for every input: given ones, else random floats away from 0, and 0 or 1 for integers and bools.

    Every other seed draws numbers of many magnitudes, so that bounds such as clip(x, -5, 5) are met from both sides.
    """
    rng = np.random.default_rng(seed)
    unknown = set(values or {}) - set(sources(graph))
    if unknown:
        raise GraphError(f"no input is called {', '.join(map(repr, sorted(unknown)))}; the inputs are "
                         f"{', '.join(sources(graph)) or 'none'}")
    sizes = constants(graph) if seed % 2 and not narrow else []
    return {k: np.asarray(values[k], n.dtype) if values and k in values else near(n, rng, sizes, positive)
            for k, n in sources(graph).items()}


def constants(graph: Graph) -> list[float]:
    """Magnitudes from 0.001 to 1000, and those of the numbers in a graph: something may be compared with them."""
    found = {10.0**k for k in range(-3, 4)}
    bodies = [graph.nodes]
    while bodies:
        for n in bodies.pop():
            if n.op.kind == "control" and n.at and isinstance(n.at[0], Body):
                bodies.append(walk(n.at[0].outs))
            found |= {abs(float(a)) for a in n.at if isinstance(a, float) and 0 < abs(a) < 1e6}
    return sorted(found)


def with_finite_floats(run: Callable[..., Result]) -> Result:
    """`run(positive=..., narrow=...)` in the first way of drawing floats in which no branch meets a NaN."""
    for way in FINITE[:-1]:
        try:
            return run(**way)
        except BackendError as error:
            if "NaN" not in str(error):
                raise
    return run(**FINITE[-1])


def near(n: Node, rng: np.random.Generator, sizes: list[float], positive: bool = False) -> Array:
    """A random float for every entry, of magnitude about 1, or about one of the given sizes."""
    if n.dtype.kind == "f":
        size = rng.uniform(0.2, 1.2, n.shape)
        size = size * 2 * rng.choice(sizes, n.shape) if sizes else size
        return np.asarray(size * (1 if positive else rng.choice([-1, 1], n.shape)))
    return rng.integers(0, 2, n.shape).astype(n.dtype)


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
    given = {k: domain.given(problem.near[k], ring.generators(k, n.shape)) if n.floating else problem.near[k]
             for k, n in nodes.items()}
    tangents = {k: ring.generators(f"∂{k}", n.shape) for k, n in problem.moving.items()}
    moving = {k: domain.given(x.near, x.value, tangents.get(k)) if isinstance(x, Element) else x for k, x in given.items()}
    slope = tangent_of(_restricted(problem.only([problem.loss]), moving, domain)[problem.loss], domain)
    claimed = _restricted(problem.only(problem.claims), given, domain)
    return ExactRun(ring, domain, given, tangents, slope.item(),
                    {k: exact_value(claimed[o], domain) for o, k in problem.claims.items()})


def exact_value(x: Any, domain: Exact) -> Array:
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
    return Case("exact", problem.what, problem.sizes, entries, len(run.slope.terms), branches=run.domain.branches,
                seconds=time.perf_counter() - began)


# ---- field

def field_inputs(graph: Graph, near: Mapping[str, Array], domain: Exact, ring: Field,
                 rng: np.random.Generator) -> dict[str, Any]:
    """A random element for every entry of every floating input."""
    return {k: domain.given(near[k], ring.random(rng, n.shape)) if n.floating else near[k]
            for k, n in sources(graph).items()}


def run_field(problem: Problem, seed: int, moving: Mapping[str, Array] | None = None,
              modular: bool = False) -> tuple[int, Field, Exact]:
    """Left side minus right side at one random point, for random tangents or the given ones."""
    rng = np.random.default_rng(seed)
    ring = Field(int(rng.integers(1 << 62)), modular)
    domain = Exact(ring)
    given = field_inputs(problem.graph, problem.near, domain, ring, rng)
    v = {k: ring.random(rng, n.shape) for k, n in problem.moving.items()}
    v = v if moving is None else {k: moving.get(k, np.zeros(x.shape, np.uint64)) for k, x in v.items()}
    moved = {k: domain.given(x.near, x.value, v.get(k)) if isinstance(x, Element) else x for k, x in given.items()}
    slope = tangent_of(_restricted(problem.only([problem.loss]), moved, domain)[problem.loss], domain)
    claimed = _restricted(problem.only(problem.claims), given, domain)
    inner = sum(int(ring.sum(ring.mul(exact_value(claimed[o], domain), v[k]).reshape(-1), (0,), False))
                for o, k in problem.claims.items())
    return (inner - int(slope)) % PRIME, ring, domain


def degrees_of(graph: Graph, near: Mapping[str, Array], moving: Iterable[str] = (),
               rational: bool = False) -> tuple[dict[str, Any], Degrees]:
    """Degree bounds of every output and its tangent, in the same domain's rules."""
    ring = Degrees(rational)
    domain = Exact(ring)
    ones = {k: np.ones(n.shape) for k, n in sources(graph).items()}
    given = {k: domain.given(near[k], ones[k], ones[k] if k in set(moving) else None) if n.floating else near[k]
             for k, n in sources(graph).items()}
    return graph.run(given, domain=domain), ring


def field_case(problem: Problem, ring: Field, domain: Exact, began: float) -> Case:
    """The record of a field run that left no residual, with its error bound."""
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
                branches=domain.branches, seconds=time.perf_counter() - began)


def error_bound(degree: float, argument_degree: float, arguments: int) -> float:
    """The probability that a false identity passes at a random point (Schwartz 1980, Zippel 1979).

    Either the identity, a nonzero polynomial of this degree, vanishes there, or two of n different arguments of
    functions (or one and the negative of another) meet in the same residue and get one output.
    """
    return min(1.0, (degree + arguments**2 * argument_degree) / PRIME)
