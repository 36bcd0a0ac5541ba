"""Starting values of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from math import prod, sqrt
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import LoadError
from ..types import Seed

Array = npt.NDArray[Any]
Start = TypeVar("Start", bound=Callable[..., Array])
_left: ContextVar[list[int] | None] = ContextVar("entries that may still be made", default=None)


@contextmanager
def blank(entries: int) -> Iterator[None]:
    """Within, nothing is drawn and all starting values are zeros, since a file has the real ones; a description that asks
    for more numbers than the file can fill is refused before there is room for them."""
    token = _left.set([entries])
    try:
        yield
    finally:
        _left.reset(token)


def _start(function: Start) -> Start:
    """A function of (shape, ...) that makes starting values, every one of which is counted."""
    @wraps(function)
    def made(shape: tuple[int, ...], *rest: object, **options: Any) -> Array:
        left = _left.get()
        if left is None:
            return function(shape, *rest, **options)
        left[0] -= prod(shape)
        if left[0] < 0:
            raise LoadError(f"the description asks for an array of {' x '.join(map(str, shape)) or 1} numbers, more than the "
                            "file holds")
        return np.zeros(shape)

    return made  # type: ignore[return-value]  # it has the signature of the function that it wraps


@_start
def orthogonal(shape: tuple[int, int], rng: Seed = None, gain: float = 1.0) -> Array:
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


def xavier(shape: tuple[int, int], rng: Seed = None, gain: float = 1.0) -> Array:
    """Uniform on ±gain √(6 / (rows + columns)) (Glorot & Bengio, 2010)."""
    return uniform(shape, gain * sqrt(6 / (shape[0] + shape[1])), rng)


@_start
def uniform(shape: tuple[int, ...], limit: float, rng: Seed = None) -> Array:
    """Uniform on ±limit."""
    return np.random.default_rng(rng).uniform(-limit, limit, shape)


@_start
def normal(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """Standard normal."""
    return np.random.default_rng(rng).normal(size=shape)


@_start
def constant(shape: tuple[int, ...], value: float) -> Array:
    """One number everywhere."""
    return np.full(shape, value)
