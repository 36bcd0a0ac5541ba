"""Ordinary numbers for the inputs of a graph.  They decide its branches, so they have to reach every one of them.

Floats are drawn near 1, and of many magnitudes, those of the numbers in the graph among them; whole numbers over all of the
range that the graph takes without an error; bools in every pattern that matters: none, all, and random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ...domains.exact import Array
from ...domains.float import Float, indices
from ...errors import ArgumentError, GraphError, IndexRangeError, UndefinedError
from ...ir.graph import Graph
from ...ir.node import Node, walk
from ...ir.scan import Body, body_of

Result = TypeVar("Result")
Values = dict[str, Array]
DECADES = tuple(10.0**k for k in range(-3, 4))
WIDE = tuple(10.0**k for k in range(-9, 10))
LONGEST = 64
"""A range of at most so many whole numbers is gone through from one end to the other."""


class Draws:
    """All the draws for one graph: `at(0)`, `at(1)`, ..., each the same in every run from the same seed."""

    def __init__(self, graph: Graph, seed: int, values: Mapping[str, Any] | None = None) -> None:
        nodes = sources(graph)
        unknown = set(values or {}) - set(nodes)
        if unknown:
            raise GraphError(f"no input is called {', '.join(map(repr, sorted(unknown)))}; the inputs are "
                             f"{', '.join(nodes) or 'none'}")
        self.graph, self.seed = graph, seed
        self.fixed = {k: _given(k, nodes[k], v) for k, v in (values or {}).items()}
        self.free = {k: n for k, n in nodes.items() if k not in self.fixed}
        self.numbers, self.sizes = _numbers(graph)
        self.ranges = self._ranges()

    @property
    def decisions(self) -> int:
        """Entries of inputs that are no floats: whatever depends on them was decided by the draw, or by what was given."""
        return sum(int(np.prod(n.shape)) for n in sources(self.graph).values() if not n.floating)

    @property
    def count(self) -> int:
        """How many draws go once through every range that is short enough."""
        return max((high - low + 1 for low, high in self.ranges.values() if high - low < LONGEST), default=0)

    def at(self, draw: int, positive: bool = False, narrow: bool = False) -> Values:
        """The numbers of one draw; all positive, or none far from 1, where the graph needs it."""
        rng = np.random.default_rng([self.seed, draw])
        found = {k: self._floats(n, draw, rng, positive, narrow) if n.floating else self._whole(k, n, draw, rng)
                 for k, n in self.free.items()}
        return {**found, **self.fixed}

    # ---- floats

    def _floats(self, n: Node, draw: int, rng: np.random.Generator, positive: bool, narrow: bool) -> Array:
        """Even draws are of magnitude 1, odd ones of many magnitudes (the graph's numbers among them), or all of one."""
        x = rng.uniform(0.2, 1.2, n.shape) * (1 if positive else rng.choice([-1, 1], n.shape))
        if narrow or draw % 2 == 0:
            return np.asarray(x)
        among = (*DECADES, *self.numbers) if draw % 8 != 7 else (*WIDE, *self.numbers)
        x = x * 2 * (rng.choice(among, n.shape) if draw % 8 != 5 else np.random.default_rng([self.seed, draw]).choice(among))
        return np.asarray(x)

    # ---- whole numbers and bools

    def _whole(self, name: str, n: Node, draw: int, rng: np.random.Generator) -> Array:
        low, high = self.ranges[name]
        if n.dtype.kind != "b" and high > max(self.sizes):  # nothing limits it: ranges as long as any axis
            high = int(rng.choice([s for s in self.sizes if s]))
            low = low if draw % 8 == 7 else 0
        if draw in (1, 3):
            return np.full(n.shape, low if draw == 1 else high, n.dtype)
        if draw % 8 == 5:  # many equal ones
            return rng.choice(rng.integers(low, high, 2, endpoint=True), n.shape).astype(n.dtype)
        if draw % 2 or high - low >= LONGEST:
            return self._scattered(low, high, rng, n)
        start = np.random.default_rng(self.seed).integers(0, high - low, n.shape, endpoint=True)
        return np.asarray(low + (start + draw // 2) % (high - low + 1)).astype(n.dtype)

    def _scattered(self, low: int, high: int, rng: np.random.Generator, n: Node) -> Array:
        """Anything in the range, often a number that stands in the graph, or next to one."""
        x = rng.integers(low, high, n.shape, endpoint=True)
        among = [k for s in self.sizes for k in (s - 1, s, s + 1) if low <= k <= high]
        return np.where(rng.random(n.shape) < 0.5, rng.choice(among or [low], n.shape), x).astype(n.dtype)

    def _ranges(self) -> dict[str, tuple[int, int]]:
        """The range of every input of whole numbers: up to what the graph takes, or just beyond the numbers in it."""
        found = {k: (0, 0) for k, n in self.free.items() if not n.floating}
        for name in found:
            n = self.free[name]
            if n.dtype.kind == "b":
                found[name] = (0, 1)
                continue
            highest = min(max(self.sizes) + 1, int(np.iinfo(n.dtype).max))
            first = next((k for k in range(min(highest, LONGEST)) if self._takes(name, k)), 0)
            high = _largest(first, highest, partial(self._takes, name))
            low = first if first else -min(high, LONGEST // 4)
            signed = n.dtype.kind == "i" and high == highest and self._takes(name, -1) and self._takes(name, low)
            found[name] = (low if signed or first else 0, high)
        return found

    def _takes(self, name: str, value: int) -> bool:
        """Whether the graph runs with this number in every entry of an input."""
        values = {k: np.full(n.shape, value if k == name else 0, n.dtype) for k, n in self.free.items()}
        try:
            with np.errstate(all="ignore"):
                self.graph.run({**values, **self.fixed}, domain=_INSIDE)
        except IndexRangeError:
            return False
        return True


class _Inside(Float):
    """An index beyond a one_hot, which is all zeros there, is an error as well: this is a limit of its range, too."""

    def one_hot(self, index: object, n: int, dtype: np.dtype[Any]) -> Any:
        return super().one_hot(indices(index, n, "a one_hot"), n, dtype)


_INSIDE = _Inside()


def sources(graph: Graph) -> dict[str, Node]:
    """Inputs and leaves by name."""
    return {**graph.inputs, **graph.leaves}


def _given(name: str, n: Node, value: object) -> Array:
    try:
        found = np.asarray(value, n.dtype)
    except (TypeError, ValueError):
        raise ArgumentError(f"values[{name!r}] is {value!r}; expected {n.dtype}{n.shape}") from None
    if found.shape != n.shape:
        raise ArgumentError(f"values[{name!r}] has shape {found.shape}; expected {n.shape}")
    return found


def _largest(low: int, highest: int, takes: Callable[[int], bool]) -> int:
    """The largest number that is taken, found by halving from one that is."""
    if takes(highest):
        return highest
    while highest - low > 1:
        middle = (low + highest) // 2
        low, highest = (middle, highest) if takes(middle) else (low, middle)
    return low


def _numbers(graph: Graph) -> tuple[list[float], list[int]]:
    """The floats that stand in a graph, by magnitude; and its whole numbers: constants, and the sizes of axes."""
    floats, whole, bodies = set[float](), {0, 1}, [graph.nodes]
    while bodies:
        for n in bodies.pop():
            if n.op.kind == "control" and n.at and isinstance(n.at[0], Body):
                bodies.append(walk(body_of(n).outs))
            values = [a for a in n.at if isinstance(a, (int, float))]
            floats |= {abs(float(a)) for a in values if 0 < abs(a) < 1e12 and n.floating}
            whole |= {int(abs(a)) for a in values if abs(a) < 2**31 and float(a).is_integer()} | set(n.shape)
    return sorted(floats), sorted(whole)


FINITE: tuple[dict[str, bool], ...] = ({}, {"positive": True}, {"narrow": True}, {"positive": True, "narrow": True})
"""Ways to draw floats, one after the other until no branch meets a NaN: logarithms want positive numbers, exponentials
small ones."""


def with_finite_floats(run: Callable[..., Result]) -> Result:
    """`run(positive=..., narrow=...)` in the first way of drawing floats in which the graph is defined."""
    for way in FINITE[:-1]:
        try:
            return run(**way)
        except UndefinedError:
            continue
    return run(**FINITE[-1])
