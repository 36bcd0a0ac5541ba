"""Random bits as integer arithmetic: the same masks on every backend and at every thread count."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError
from ...shapes import Shape
from ..node import DType, Node, apply
from ..op import PRIMITIVE, Op, per_entry, register
from .elementwise import less

BITS = np.dtype(np.uint32)


def _infer(key: Node, site: int, shape: Shape) -> tuple[Shape, DType]:
    if key.dtype != BITS or key.shape != (2,):
        raise DTypeError(f"a random key is two uint32 numbers, got {key.dtype} of shape {key.shape}")
    return shape, BITS


RANDOM_BITS = register(Op("random_bits", _infer, PRIMITIVE, None,
                          "constant", "random", per_entry(60)))


def random_bits(key: Node, site: int, shape: Shape) -> Node:
    """32 random bits an entry: Threefry-2x32 of (key, site, position) (Salmon et al., 2011)."""
    return apply(RANDOM_BITS, (key,), (int(site), shape))


def bernoulli(key: Node, site: int, shape: Shape, p: float) -> Node:
    """True with probability p, to within 2^-32."""
    return less(random_bits(key, site, shape), int(min(p * 2.0**32, 2.0**32 - 1)))


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(xp: Any, key: Any, x0: Any, x1: object) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds on arrays of uint32 counters, in any array module."""
    u = xp.uint32
    keys = (key[0], key[1], key[0] ^ key[1] ^ u(_PARITY))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for block in range(5):
        for r in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << u(r)) | (x1 >> u(32 - r))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + u(block + 1)
    return x0, x1
