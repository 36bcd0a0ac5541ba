"""The cells that come with tinyrnn: one file of equations each, with title, paper, year and conventions."""

from __future__ import annotations

from functools import cache

from ...errors import ArgumentError
from ...files import shipped
from ..cell import Cell

_ALIASES = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}


@cache
def names() -> tuple[str, ...]:
    """The names of all cells.

    >>> import tinyrnn as tr
    >>> "gru_reset_before" in tr.cells.names()
    True
    """
    files = shipped(__name__).iterdir()
    return tuple(sorted(f.name.removesuffix(".cell") for f in files if f.name.endswith(".cell")))


def get(name: str) -> Cell:
    """A cell by its name; the same object every time.

    Raises `ArgumentError` with the known names.

    >>> import tinyrnn as tr
    >>> tr.cells.get("mgu").parameters
    {'W_f': ('h', 'h+x'), 'b_f': ('h',), 'W_n': ('h', 'h+x'), 'b_n': ('h',)}
    """
    key = _ALIASES.get(name, name)
    if key not in names():
        raise ArgumentError(f"there is no cell {name!r}; the cells are {', '.join(names())}")
    return _read(key)


@cache
def _read(key: str) -> Cell:
    return Cell(shipped(__name__).joinpath(f"{key}.cell").read_text(encoding="utf-8"), key)
