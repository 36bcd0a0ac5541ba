"""Memory that kernels work in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..plan.memory import ALIGNMENT

Bytes = npt.NDArray[np.uint8]
KEPT = 8  # runs at the same time whose memory is kept for later ones


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's numbers begin."""
    at: int = array.__array_interface__["data"][0]
    return at


def aligned(size: int) -> Bytes:
    """Bytes that start at a multiple of a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class Arenas:
    """Memory for temporaries, kept between runs; runs at the same time get different ones.

    No lock is needed: lists hand out an entry once.
    """

    def __init__(self) -> None:
        self._free: list[tuple[Bytes, int]] = []

    def borrow(self, size: int) -> tuple[Bytes, int]:
        """Memory of at least so many bytes, and its address."""
        try:
            arena = self._free.pop()
        except IndexError:
            arena = _with_address(size)
        return arena if arena[0].size >= size else _with_address(size)

    def give_back(self, arena: tuple[Bytes, int]) -> None:
        if len(self._free) < KEPT:
            self._free.append(arena)


def _with_address(size: int) -> tuple[Bytes, int]:
    memory = aligned(size)
    return memory, address(memory)


ARENAS = Arenas()
