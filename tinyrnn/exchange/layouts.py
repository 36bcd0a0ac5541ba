"""How arrays of other frameworks hold the parameters of a cell.

A layout is a line of matrix notation for each array: `kernel = [W_i, W_f; U_i, U_f]` has `W_i` and `W_f` beside each other, and
the second row below.  Vectors in one row follow each other, in several rows they are the rows of a matrix.  A question mark,
`bias? = b`, is for an array that may be missing: its parameters are then 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..cells import Cell
from ..cells.sizes import solved
from ..errors import LoadError, ShapeError
from ..shapes import show

Arrays = Mapping[str, Any]
Rows = list[list[str]]


class ArrayLayout:
    """The arrays of a cell, by name: rows of parameters."""

    def __init__(self, cell: Cell, lines: Iterable[str]) -> None:
        self.cell = cell
        self.arrays: dict[str, Rows] = {}
        self.optional: set[str] = set()
        for line in lines:
            name, _, text = (part.strip() for part in line.partition("="))
            if name.endswith("?"):
                self.optional.add(name := name.removesuffix("?"))
            self.arrays[name] = [[p.strip() for p in row.split(",")] for row in text.strip("[]").split(";")]

    def apart(self, arrays: Arrays) -> dict[str, Any]:
        """The parameters that the arrays hold; raises `LoadError` for arrays that are missing, unknown, or do not fit."""
        given = {n: np.asarray(a) for n, a in arrays.items()}
        sizes, found, dtype = self.sizes(given), dict[str, Any](), next(iter(given.values())).dtype
        for name, rows in self.arrays.items():
            found |= self._split(name, rows, given.get(name), sizes, dtype)
        return found

    def _check(self, arrays: Arrays) -> None:
        """The names and dtypes of arrays."""
        missing = [n for n in self.arrays if n not in arrays and n not in self.optional]
        unknown = [n for n in arrays if n not in self.arrays]
        if missing or unknown:
            what = f"lack {missing[0]!r}" if missing else f"have an unknown {str(unknown[0])[:80]!r}"
            raise LoadError(f"the weights of {self.cell.title} {what}; its arrays are {self}")
        kinds = {np.asarray(a).dtype for a in arrays.values()}
        if len(kinds) > 1 or any(k.kind != "f" for k in kinds):
            raise LoadError(f"the weights of {self.cell.title} are {' and '.join(sorted(map(str, kinds)))}; expected one "
                            "floating dtype")

    def together(self, parameters: Arrays, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The arrays that hold these parameters: all, or those with these names; others are 0, as they were when they were
        missing."""
        wanted = set(self.arrays if names is None else names)
        lost = [p for n, rows in self.arrays.items() if n not in wanted for row in rows for p in row if np.any(parameters[p])]
        if lost:
            raise ShapeError(f"{lost[0]} of {self.cell.title} is not 0, and the array that would hold it is left out")
        return {n: _block([[parameters[p] for p in row] for row in rows]) for n, rows in self.arrays.items() if n in wanted}

    def sizes(self, arrays: Mapping[str, Any]) -> dict[str, int]:
        """Every size of the cell, from the shapes of its arrays; raises as `apart` does."""
        self._check(arrays)
        try:
            found = solved(axis for name, a in arrays.items() for axis in self._axes(name, np.shape(a)))
        except ShapeError as error:
            shapes = ", ".join(f"{n} {show(np.shape(a))}" for n, a in arrays.items())
            raise LoadError(f"the weights of {self.cell.title} do not fit together ({shapes}): {error}; its arrays are "
                            f"{self}") from None
        return {s: found[s] for s in self.cell.sizes}

    def _axes(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, int, str]]:
        """What each axis is long, in sizes of the cell, and what it is."""
        rows, last = self.arrays[name], [self.cell.parameters[p] for p in self.arrays[name][0]]
        first = [self.cell.parameters[row[0]][0] for row in rows] if len(last[0]) == 2 else (
            [str(len(rows))] if len(rows) > 1 else [])
        axes = ["+".join(first), "+".join(s[-1] for s in last)] if first else ["+".join(s[-1] for s in last)]
        if len(axes) != len(shape):
            raise ShapeError(f"{name} has {len(shape)} axes, expected {len(axes)}")
        yield from ((text, n, f"axis {i} of {name}") for i, (text, n) in enumerate(zip(axes, shape, strict=True)))

    def _split(self, name: str, rows: Rows, array: Any, sizes: Mapping[str, int], dtype: Any) -> dict[str, Any]:
        shapes = self.cell.shapes(sizes)
        if array is None:
            return {p: np.zeros(shapes[p], dtype) for row in rows for p in row}
        found = dict[str, Any]()
        tall = [shapes[row[0]][0] if len(shapes[row[0]]) == 2 else 1 for row in rows]
        for row, start, count in zip(rows, accumulate([0, *tall]), tall, strict=False):
            part = array[start : start + count] if len(shapes[row[0]]) == 2 else array[start] if len(rows) > 1 else array
            ends = list(accumulate(shapes[p][-1] for p in row))
            found |= dict(zip(row, np.split(part, ends[:-1], axis=-1), strict=True))
        return found

    def __str__(self) -> str:
        def shown(rows: Rows) -> str:
            text = "; ".join(", ".join(row) for row in rows)
            return text if len(rows) == len(rows[0]) == 1 else f"[{text}]"

        return ", ".join(f"{n} = {shown(rows)}" for n, rows in self.arrays.items())


def _block(rows: Sequence[Sequence[Any]]) -> Any:
    """One array from rows of blocks."""
    joined = [np.concatenate(row, axis=-1) for row in rows]
    return joined[0] if len(joined) == 1 else np.concatenate(joined) if joined[0].ndim == 2 else np.stack(joined)
