"""Starting values of weights."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def orthogonal(shape: tuple[int, int], rng: Any = None, gain: float = 1.0) -> Array:
    """A matrix with orthonormal rows or columns (Saxe, McClelland & Ganguli, 2014).

    >>> from tinyrnn.nn import init
    >>> q = init.orthogonal((3, 3), rng=0)
    >>> bool(abs(q @ q.T - np.eye(3)).max() < 1e-12)
    True
    """
    rows, columns = shape
    q, r = np.linalg.qr(np.random.default_rng(rng).normal(size=(max(shape), min(shape))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    found: Array = gain * (q if rows >= columns else q.T)
    return found


def xavier(shape: tuple[int, int], rng: Any = None, gain: float = 1.0) -> Array:
    """Uniform on ±gain √(6 / (rows + columns)) (Glorot & Bengio, 2010)."""
    return uniform(shape, gain * sqrt(6 / (shape[0] + shape[1])), rng)


def uniform(shape: tuple[int, ...], limit: float, rng: Any = None) -> Array:
    """Uniform on ±limit."""
    return np.random.default_rng(rng).uniform(-limit, limit, shape)
