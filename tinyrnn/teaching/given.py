"""What a user gives to a worked example: numbers in the shape that the cell asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..analysis.cell_run import Array
from ..analysis.subject import arrays, check_names, settled_sizes
from ..cells import Cell
from ..errors import ArgumentError, ShapeError
from ..shapes import show
from ..types import Seed

MOST_STEPS, MOST_ENTRIES = 12, 6
"""Longer sequences and larger arrays are nothing to read number by number."""


def checked(cell: Cell, values: Mapping[str, Any] | None, steps: int | None, rng: Seed) -> tuple[dict[str, Array], int]:
    """All numbers of a run: those that are given, in the shape that the cell asks for, others round ones by chance."""
    raw = arrays(values)
    check_names(cell, raw)
    given = {k: _shaped(cell, k, a) for k, a in raw.items()}
    for k, a in given.items():
        if not np.isfinite(a).all():
            raise ArgumentError(f"values: {k} is not finite, so nothing can be computed with it")
    sizes = cell.checked_sizes({**dict.fromkeys(cell.sizes, 1), **settled_sizes(cell, given)}, {})
    for s, n in sizes.items():
        if n > MOST_ENTRIES:
            raise ArgumentError(f"size {s} is {n}: numbers are put in for sizes up to {MOST_ENTRIES}; for larger ones there "
                                "are xray and draw(..., gradients=True)")
    length = next((len(given[n]) for n in cell.inputs if n in given), 3 if steps is None else steps)
    if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or not 1 <= length <= MOST_STEPS:
        raise ArgumentError(f"steps={length!r}: expected 1 to {MOST_STEPS} steps, which can be read number by number")
    if steps is not None and steps != length:
        raise ShapeError(f"values: the sequence has {length} steps, steps={steps}")
    wanted = {**cell.shapes(sizes), **{n: (int(length), *cell.signal_shape(n, sizes)) for n in cell.inputs}}
    for k, a in given.items():
        if k in wanted and a.shape != wanted[k]:
            raise ShapeError(f"values: {k} has shape {show(a.shape)}, expected {show(wanted[k])}")
    generator = np.random.default_rng(rng)
    return {**{k: _round_numbers(shape, generator) for k, shape in wanted.items()}, **given}, int(length)


def _round_numbers(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Numbers from -0.9 to 0.9 with one digit, none of them zero."""
    return np.asarray(generator.integers(1, 10, shape) * generator.choice([-1, 1], shape) / 10)


def _shaped(cell: Cell, name: str, a: Array) -> Array:
    """A number where one row and one column are meant, a list where a sequence of numbers is."""
    symbols = cell.parameters[name] if name in cell.parameters else cell.signals[name.partition("[")[0]]
    rank = len(symbols) + (name in cell.inputs)
    if a.ndim < rank and a.ndim == (name in cell.inputs):
        a = a.reshape(*a.shape, *(1,) * len(symbols))
    if a.ndim != rank:
        shape = ["T", *symbols] if name in cell.inputs else [*symbols]
        raise ShapeError(f"values: {name} has shape {show(a.shape)}, expected [{', '.join(shape)}], of one sequence")
    return a
