"""Value numbering: every op is a free function, and a number stands for how a value was computed, not for its size.

Two values have the same number when the same ops made them from the same inputs (up to a collision of 64-bit hashes);
moves of numbers move them, casts keep them, and a sum does not depend on its order.  Whoever computes a graph in another
way, in other memory, can be held against the graph exactly, without rounding (Alpern, Wegman & Zadeck, "Detecting equality
of variables in programs", 1988).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir.op import Op
from ..shapes import Shape
from .domain import Domain

Numbers = npt.NDArray[np.uint64]

_MULTIPLY = tuple(np.uint64(c) for c in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFT = tuple(np.uint64(c) for c in (30, 27, 31))


def _mixed(x: npt.NDArray[Any]) -> Numbers:
    """The finaliser of splitmix64, which is one to one and keeps 0 (Steele, Lea & Flood, 2014)."""
    x = np.asarray(x, np.uint64)
    x = (x ^ (x >> _SHIFT[0])) * _MULTIPLY[0]
    x = (x ^ (x >> _SHIFT[1])) * _MULTIPLY[1]
    return np.asarray(x ^ (x >> _SHIFT[2]))


@lru_cache(4096)
def _key(what: object) -> np.uint64:
    """An odd number of 64 bits that stands for a name."""
    return np.uint64(int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest(), "little") | 1)


def applied(what: object, *values: object) -> Numbers:
    """A free function of broadcast operands, whose order counts."""
    total: Any = _key(what)
    for i, v in enumerate(values):
        total = total + _key(("operand", i)) * np.asarray(v, np.uint64)
    return _mixed(total)


def attributes(at: tuple[Any, ...]) -> tuple[Any, ...]:
    """What an op was given beside its operands, as kernels write it."""
    return tuple(a.str if isinstance(a, np.dtype) else a for a in at)


class ValueNumbers(Domain):
    """The domain of value numbers; 0 is the number of zero."""

    name = "value numbers"

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Numbers:
        x = np.ascontiguousarray(np.asarray(value, dtype).astype(np.float64 if dtype.kind == "f" else np.int64))
        return _mixed(x.view(np.uint64)).reshape(np.shape(value))

    def implementation(self, op: Op) -> Callable[..., Any]:
        """Moves and zeros by their formulas; reductions and lookups by their rules here; all else is free."""
        if op.entrywise and op.name != "tag":
            return partial(self.entry, op.name)
        return super().implementation(op)

    def entry(self, name: str, *x: Any) -> Numbers:
        """An elementwise op on its operands and attributes."""
        values = [v for v in x if isinstance(v, (np.ndarray, np.uint64))]
        return applied((name, attributes(x[len(values):])), *values)

    def sum(self, x: Numbers, axes: tuple[int, ...], keepdims: bool) -> Numbers:
        return self.reduced("sum", x, axes, keepdims)

    def accumulate(self, total: Numbers, x: Numbers, forward: bool) -> Numbers:
        return np.where(np.equal(total, 0), x, self.entry("add", total, x))

    def amax(self, x: Numbers, axes: tuple[int, ...], keepdims: bool) -> Numbers:
        return self.reduced("amax", x, axes, keepdims)

    def amin(self, x: Numbers, axes: tuple[int, ...], keepdims: bool) -> Numbers:
        return self.reduced("amin", x, axes, keepdims)

    def reduced(self, name: str, x: Numbers, axes: tuple[int, ...], keepdims: bool) -> Numbers:
        """A reduction in any order."""
        return np.asarray(np.sum(applied(name, x), axis=axes, keepdims=keepdims, dtype=np.uint64))

    def matmul(self, a: Numbers, b: Numbers) -> Numbers:
        """An entry depends on a row and a column, term by term; a sum of no terms is 0."""
        terms = np.arange(a.shape[-1], dtype=np.uint64)
        rows, columns = applied("left", a, terms).sum(-1), applied("right", b, terms[:, None]).sum(-2)
        y = applied("matmul", rows[..., :, None], columns[..., None, :])
        return y if a.shape[-1] else np.zeros_like(y)

    def cumsum(self, x: Numbers, axis: int) -> Numbers:
        return np.cumsum(applied("sum", x), axis=axis, dtype=np.uint64)

    def argmax(self, x: Numbers, axis: int) -> Numbers:
        places = np.arange(x.shape[axis], dtype=np.uint64).reshape(-1, *(1,) * (x.ndim - axis - 1))
        return applied("argmax", np.sum(applied("place", x, places), axis=axis, dtype=np.uint64))

    def iota(self, shape: Shape, dtype: np.dtype[Any]) -> Numbers:
        return self.enter(np.arange(shape[0]), dtype)

    # ---- lookups: which entry an index means is not known, so the result depends on all that it may be

    def gather(self, table: Numbers, index: Numbers) -> Numbers:
        rows = np.arange(len(table), dtype=np.uint64).reshape(-1, *(1,) * (table.ndim - 1))
        whole = np.sum(applied("place", table, rows), axis=0, dtype=np.uint64)
        return applied("gather", whole, index.reshape((*index.shape, *(1,) * (table.ndim - 1))))

    def scatter_add(self, x: Numbers, index: Numbers, n: int) -> Numbers:
        width = x.shape[index.ndim:]
        terms = applied("term", x.reshape((index.size, *width)), index.reshape((-1, *(1,) * len(width))))
        rows = np.arange(n, dtype=np.uint64).reshape(-1, *(1,) * len(width))
        return applied("scatter", np.sum(terms, axis=0, dtype=np.uint64), rows)

    def pick(self, x: Numbers, index: Numbers) -> Numbers:
        places = np.arange(x.shape[-1], dtype=np.uint64)
        return applied("pick", np.sum(applied("place", x, places), axis=-1, dtype=np.uint64), index)

    def one_hot(self, index: Numbers, n: int, dtype: object = None) -> Numbers:
        return applied("one_hot", index[..., None], np.arange(n, dtype=np.uint64))

    def random_bits(self, key: Numbers, site: int, shape: Shape) -> Numbers:
        at = self.enter(site & 0xFFFFFFFF, np.dtype(np.uint32))
        return self.drawn(key, at, np.arange(int(np.prod(shape, dtype=np.int64)))).reshape(shape)

    def drawn(self, key: Numbers, site: Numbers, positions: npt.NDArray[Any]) -> Numbers:
        """Random bits at some positions."""
        return applied("random", key[0], key[1], site, positions)


VALUE_NUMBERS = ValueNumbers()
