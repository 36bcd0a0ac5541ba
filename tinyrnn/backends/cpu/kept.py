"""Values made of leaves alone, shared by all programs that make them alike: weights are packed once, not once a length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy.typing as npt

from ...ir.node import Node
from ..plan.views import Buffer, Call, Plan
from .engine import Target
from .memory import Bytes

Array = npt.NDArray[Any]
NAMED = 1024  # bytes up to which a literal is known by its numbers


class Kept:
    """Memory and the data of the leaves of which it was made."""

    __slots__ = ("__weakref__", "_made")

    def __init__(self) -> None:
        self._made: tuple[Sequence[Array], Bytes] | None = None

    def get(self, data: Sequence[Array]) -> Bytes | None:
        """What was made of these very arrays."""
        made = self._made
        return made[1] if made is not None and all(map(_same, made[0], data)) else None

    def put(self, data: Sequence[Array], memory: Bytes) -> None:
        self._made = data, memory


def _same(a: Array, b: Array) -> bool:
    return a is b


_KEPT: WeakValueDictionary[Hashable, Kept] = WeakValueDictionary()


def kept_of(plan: Plan, target: Target) -> dict[Buffer, tuple[Kept, list[Node]]]:
    """For every kept buffer its place among those of all programs, and the leaves of which it is made."""
    writers: dict[Buffer, list[Call]] = {}
    for c in plan.items[: plan.prepared]:
        assert isinstance(c, Call)
        for k in c.writes:
            writers.setdefault(c.operands[k].buffer, []).append(c)
    names: dict[Buffer, Hashable] = {}
    leaves: dict[Buffer, dict[Node, None]] = {}

    def name(b: Buffer) -> Hashable:
        if b.role == "leaf":
            leaves[b] = {b.source: None}
            leaf: Node = b.source
            return leaf
        if b.role == "literal":
            leaves[b] = {}
            return (b.dtype.str, b.source.tobytes()) if b.bytes <= NAMED else id(b)
        if b not in names:
            names[b] = b.size  # a call may read what it writes
            leaves[b] = {}
            made = tuple(_said(c, name) for c in writers[b])
            for c in writers[b]:
                for v in c.operands:
                    leaves[b] |= leaves[v.buffer]
            names[b] = (b.dtype.str, b.size, made)
        return names[b]

    return {b: (_KEPT.setdefault((target, name(b)), Kept()), list(leaves[b])) for b in writers}


def _said(c: Call, name: Any) -> Hashable:
    """A call by all that decides on its results."""
    return (c.family, c.key, c.sizes, c.extent, c.splits,
            tuple((name(v.buffer), v.shape, v.strides, v.offset, k in c.writes) for k, v in enumerate(c.operands)))
