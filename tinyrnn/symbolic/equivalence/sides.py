"""Decisions that went one way only: numbers are sought at which they go the other, and on either side of where they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...domains.complex_step import STEP, ComplexStep
from ...domains.exact import Array
from ...domains.shaken import running_error
from ...errors import IndexRangeError
from ...ir.graph import Graph
from ..proof.draws import Draws, Values

ROUNDS, STEPS = 12, 4
EDGE_ROUNDS, MOST_EDGES = 4, 40
ORDINARY, SURE = 4.0, 1000.0


def _watching(name: str) -> Any:
    """A comparison of the domain whose margin is remembered."""
    def method(domain: Watched, a: Any, b: object) -> Any:
        domain._watch(a, b)
        return getattr(ComplexStep, name)(domain, a, b)

    return method


class Watched(ComplexStep):
    """Numbers that move, and that remember the margin of every decision: what was compared with 0, and how it moved."""

    def __init__(self) -> None:
        self.margins: list[Array] = []

    def _watch(self, a: Any, b: object) -> None:
        if "c" in (np.asarray(a).dtype.kind, np.asarray(b).dtype.kind):
            self.margins.append(np.ravel(np.asarray(a) - b))

    less, less_equal, equal, not_equal = (_watching(k) for k in ("less", "less_equal", "equal", "not_equal"))

    def sign(self, x: npt.NDArray[Any]) -> Any:
        self._watch(x, 0)
        return super().sign(x)


class Sides:
    """Which decisions of a graph were met on both sides of 0."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.below = self.above = self.moves = np.zeros(0, bool)

    def visit(self, values: Mapping[str, Array], along: Mapping[str, Array]) -> tuple[bool, Array]:
        """Whether a run showed anything new, and the step along a direction at which each decision would be at 0."""
        domain = Watched()
        with np.errstate(all="ignore"):
            self.graph.run({k: v + 1j * STEP * along[k] if k in along else v for k, v in values.items()}, domain=domain)
            margins = np.concatenate(domain.margins) if domain.margins else np.zeros(0, complex)
            if not self.moves.size:
                self.below = self.above = self.moves = np.zeros(margins.size, bool)
            below, above = margins.real < 0, margins.real > 0
            new = bool((below & ~self.below & self.above).any() or (above & ~self.above & self.below).any())
            self.below, self.above = self.below | below, self.above | above
            self.moves = self.moves | (margins.imag != 0)
            return new, -margins.real / (margins.imag / STEP)

    @property
    def one_sided(self) -> Array:
        """Decisions about numbers that move, of which one side was never met."""
        return np.asarray(self.moves & ~(self.below & self.above))


def both_sides(graph: Graph, draws: Draws, first: int) -> tuple[list[Values], int]:
    """Numbers at which decisions go another way than in the first draws, and how many always go one way all the same.

    From a draw one goes along a random direction, a little further than to where a decision would change.
    """
    sides, found = Sides(graph), list[Values]()
    for draw in range(first):
        for values in _defined(draws, draw):
            sides.visit(values, _direction(draws, values, draw))
    for r in range(ROUNDS):
        if not sides.one_sided.any():
            break
        for values in _defined(draws, 2 * r):
            along = _direction(draws, values, first + r)
            _, steps = sides.visit(values, along)
            wanted = steps[sides.one_sided & np.isfinite(steps)]
            for s in np.unique(np.quantile(wanted, np.linspace(0, 1, STEPS), method="nearest")) if wanted.size else ():
                moved = {k: v + 1.01 * s * along[k] if k in along else v for k, v in values.items()}
                if sides.visit(moved, along)[0]:
                    found.append(moved)
    return found, int(sides.one_sided.sum())


def edges(graph: Graph, draws: Draws) -> list[Values]:
    """Numbers just on this side and just on that of where decisions change, along random directions."""
    sides, found = Sides(graph), list[Values]()
    for r in range(EDGE_ROUNDS):
        for values in _defined(draws, 2 * r):
            along = _direction(draws, values, r)
            _, steps = sides.visit(values, along)
            for s in np.unique(steps[np.isfinite(steps)])[:MOST_EDGES]:
                found += [{k: v + (1 + off) * s * along[k] if k in along else v for k, v in values.items()}
                          for off in (-1e-6, 1e-6)]
    return found


def _defined(draws: Draws, draw: int) -> Iterator[Values]:
    """The numbers of a draw, if the graph takes them."""
    values = draws.at(draw)
    try:
        with np.errstate(all="ignore"):
            draws.graph.run(values)
    except IndexRangeError:
        return
    yield values


def _direction(draws: Draws, values: Mapping[str, Array], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng([draws.seed, seed, 1])
    return {k: rng.normal(size=v.shape) for k, v in values.items() if draws.free.get(k) is not None and draws.free[k].floating}


# ---- two computations side by side

def names_of(graph: Graph) -> list[str]:
    """What both sides of a graph with outputs `a ...` and `b ...` compute."""
    return [k[2:] for k in graph.outputs if k.startswith("a ")]


def first_difference(graph: Graph, values: Values) -> tuple[str, Values] | None:
    """The first quantity that differs by more than rounding may move it, with all results.  What is not finite in one of the
    cells differs only if no other order of the same operations could make it so: at numbers of magnitude 1."""
    usual = all(np.abs(v).max(initial=0.0) < ORDINARY for v in values.values())
    with np.errstate(all="ignore"):
        out = graph.run(values)
        for n in names_of(graph):
            x, y = out[f"a {n}"], out[f"b {n}"]
            if x.dtype.kind != "f":
                if (x != y).any():
                    return n, out
                continue
            off = np.where(np.isfinite(x) & np.isfinite(y), np.abs(x - y), 0)
            if usual and (np.isfinite(x) != np.isfinite(y)).any():
                return n, out
            if (off > 1e-7 * np.maximum(1.0, np.abs(x))).any():
                error = sum(running_error(graph, values)[1][k] for k in (f"a {n}", f"b {n}"))
                if (off > np.maximum(1e-7 * np.maximum(1.0, np.abs(x)), SURE * error)).any():
                    return n, out
    return None
