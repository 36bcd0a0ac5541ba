"""Weights from one layer to another, by proof: what corresponds follows from the equations of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ..cells import Cell
from ..errors import ArgumentError
from ..nn.packed import Packed
from ..nn.recurrent import Recurrent
from ..symbolic.equivalence.equivalent import Equivalence, equivalent
from .frameworks import Foreign

SEED = 0  # every import and export asks the same question in the same way


@lru_cache(256)
def compared(a: Cell, b: Cell) -> Equivalence:
    """The verdict on two cells."""
    return equivalent(a, b, rng=SEED)


def proved(a: Cell, b: Cell, what: str) -> Equivalence:
    """That two cells are one function; else the term in which they differ is the error's."""
    found = compared(a, b)
    if not found.holds:
        where = f": in {found.where} they differ by {found.residual}" if found.residual else f": {found.reason}"
        raise ArgumentError(f"{what}: {a.title} and {b.title} are not proved to be the same function{where}")
    return found


def carried(a: Cell, b: Cell, weights: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The parameters of `a` with which it does what `b` does with these."""
    return dict(weights) if a == b else proved(a, b, what).translate(weights)


def into_layer(layer: Packed, where: str, theirs: Foreign, arrays: Mapping[str, Any]) -> None:
    """The weights of one of the layer's cells (`l0`, `l0_reverse`, ...) from the arrays of another framework."""
    parameters = carried(layer.cell, theirs.cell, theirs.layout.apart(arrays),
                         f"these weights cannot become those of a {type(layer).__name__}")
    for name, rows in layer.layout.items():
        getattr(layer, f"{name}_{where}").assign(np.concatenate([parameters.pop(p) for p in rows]))
    if any(np.any(v) for v in parameters.values()):  # biases of a layer that has none
        raise ArgumentError(f"{next(p for p, v in parameters.items() if np.any(v))} has no place in a {type(layer).__name__} "
                            "with these options")


def imported(stock: Callable[[int, int], Packed | None], theirs: Foreign, arrays: Mapping[str, Any], own: Foreign | None = None,
             **options: Any) -> Packed | Recurrent:
    """The stock layer of these sizes, if it is proved to be what the other framework's equations say; else these themselves
    (`own`, where they are written without what is missing)."""
    sizes = theirs.layout.sizes(arrays)
    layer = stock(sizes["x"], sizes["h"])
    if layer is not None and compared(layer.cell, theirs.cell).holds:
        into_layer(layer, "l0", theirs, arrays)
        return layer
    own = own or theirs
    cell = Recurrent(own.cell, sizes, dtype=next(iter(arrays.values())).dtype, **options)
    cell.load_state_dict(own.layout.apart(arrays))
    return cell


def from_layer(layer: Packed | Recurrent, where: str, theirs: Foreign, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The arrays of another framework's layer, all or those with these names, that computes what this one does."""
    cell, values = (layer.cell, layer.cell_values(where)) if isinstance(layer, Packed) else (layer.cell, layer.state_dict())
    if cell.learned:
        raise ArgumentError(f"a {type(layer).__name__} whose first state is trained ({', '.join(cell.learned)}) has no "
                            f"counterpart: {theirs.cell.title} begins with zeros")
    parameters = carried(theirs.cell, cell, values, f"this {type(layer).__name__} has no counterpart")
    return theirs.layout.together(parameters, names)
