"""Where layers take their randomness from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

import numpy as np

from ..ir.ops.leaves import leaf
from ..ir.ops.random import bernoulli
from .tensor import Tensor
from .tracing import current

_source: ContextVar[tuple[Tensor, Iterator[int]] | None] = ContextVar("randomness", default=None)


@contextmanager
def randomness(key: Tensor) -> Iterator[None]:
    """Inside, every random layer draws from this key (two uint32), each call at a site of its own."""
    token = _source.set((key, count()))
    try:
        yield
    finally:
        _source.reset(token)


def new_key(rng: np.random.Generator) -> Any:
    """A fresh key."""
    return rng.integers(0, 2**32, 2, dtype=np.uint32)


def keep_mask(shape: tuple[int, ...], p: float, own: np.random.Generator) -> Tensor:
    """True with probability p, from the surrounding `randomness` or else from a generator of one's own."""
    source = _source.get()
    if source is None:
        key_node, trace = leaf(new_key(own)), current()
        if trace is not None:  # a compiled function draws anew in every call
            trace.draws.append((key_node, lambda: new_key(own)))
        return Tensor(bernoulli(key_node, 0, shape, p))
    key, sites = source
    return Tensor(bernoulli(key.source(), next(sites), shape, p))
