"""Numbers as a page holds them: to four digits, and no more of them than one can read."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = 64    # entries of an array that a page shows
SMALL = 12      # entries of the largest array whose numbers stand in formulas


def rounded(x: float | None) -> float | str | None:
    """To four digits; `inf` stands for all that is not finite."""
    return None if x is None else float(f"{x:.4g}") if np.isfinite(x) else "inf"


def numbers_of(array: Any) -> Any:
    """The first row of a batch."""
    return None if array is None else shown(np.asarray(array)[0] if np.ndim(array) else array)


def shown(array: Any) -> Any:
    """Numbers to four digits; None where there are too many to read, or one is not finite."""
    a = np.asarray(array, float)
    if a.size > LARGEST or a.ndim > 2 or not np.isfinite(a).all():
        return None
    return np.vectorize(lambda v: float(f"{v:.4g}"), otypes=[float])(a).tolist() if a.size else []
