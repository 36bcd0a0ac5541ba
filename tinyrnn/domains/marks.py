"""Whole numbers and bools that are no constants, and what a decision tells apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Decided(np.ndarray[Any, Any]):
    """Bools that floats have decided."""

    __array_priority__ = 1.0


class Drawn(np.ndarray[Any, Any]):
    """Whole numbers or bools that were drawn, or decided by floats, and whatever follows from them: they are no constants."""

    __array_priority__ = 2.0


KINK, SIDE, TIE = range(3)
"""What a decision tells apart: the sides of a kink, of which either has the tie; a < b from the rest; a == b from the rest."""


def drawn(x: npt.NDArray[Any]) -> Any:
    """The same numbers, marked as drawn."""
    return np.asarray(x).view(Drawn)


def marked(x: npt.NDArray[Any], *of: object) -> Any:
    """Marked where any of the others is."""
    return drawn(x) if any(isinstance(v, Drawn) for v in of) else x
