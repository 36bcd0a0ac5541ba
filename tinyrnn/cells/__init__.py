"""Cells as equations, and the zoo: `cells.LSTM`, `cells.GRU`, `cells.RNN`, others by `cells["name"]`."""

import sys
from collections.abc import Iterator
from types import ModuleType

from .cell import Cell
from .zoo import get, names

RNN: Cell
LSTM: Cell
GRU: Cell


class _Zoo(ModuleType):
    """This module, which also answers `cells["gru"]` and reads a cell's file when it is first asked for."""

    def __getitem__(self, name: str) -> Cell:
        return get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __getattr__(self, name: str) -> Cell:
        if name in ("RNN", "LSTM", "GRU"):
            return get(name)
        raise AttributeError(f"tinyrnn.cells has no attribute {name!r}")


sys.modules[__name__].__class__ = _Zoo

__all__ = ["GRU", "LSTM", "RNN", "Cell", "get", "names"]
