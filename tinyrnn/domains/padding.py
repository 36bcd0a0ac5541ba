"""What padding can reach: every entry of an array is zero, clean, or padded, whatever numbers stand there.

    zero + a = a        padded + a = padded        zero × a = zero        padded × clean = padded

Numbers that follow from lengths and literals alone are known and computed as they are, so that a mask selects exactly.
An output without a padded entry is the same function of the clean entries for all values of the padded ones with which
every number on the way is finite: a proof, not a test.  In the strict domain zero × padded is padded (as 0 × NaN is NaN,
and 0 / 0), which a mask must prevent by `where`; what it proves holds for all values, NaN and infinity included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import GraphError
from ..ir.op import Op, Trait
from .domain import Domain
from .float import FLOAT

Tags = npt.NDArray[np.uint8]
ZERO, CLEAN, PADDED = np.uint8(0), np.uint8(1), np.uint8(2)


class Mark:
    """An array of which only the tags are known."""

    __slots__ = ("tags",)
    __array_ufunc__ = None

    def __init__(self, tags: npt.ArrayLike) -> None:
        self.tags: Tags = np.asarray(tags, np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tags.shape

    @property
    def padded(self) -> bool:
        """Whether padding reaches any entry."""
        return bool((self.tags == PADDED).any())


def tags_of(value: Any) -> Tags:
    """The tags of a mark, or of known numbers."""
    return value.tags if isinstance(value, Mark) else np.where(np.asarray(value) != 0, CLEAN, ZERO)


class Padding(Domain):
    """The domain of zero, clean and padded."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.name = "padding (strict)" if strict else "padding"

    def owns(self, value: object) -> bool:
        return isinstance(value, Mark)

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Any:
        return value if isinstance(value, Mark) else np.asarray(value, dtype)

    def implementation(self, op: Op) -> Callable[..., Any]:
        """Known numbers are computed; marks follow the rule of the op."""
        known = FLOAT.implementation(op)

        def run(*arguments: Any) -> Any:
            attributes = (i for i, a in enumerate(arguments) if not isinstance(a, (np.ndarray, np.generic, Mark)))
            count = next(attributes, len(arguments))
            values, at = arguments[:count], arguments[count:]
            if not any(isinstance(v, Mark) for v in values) and op.name != "random_bits":
                return known(*arguments)
            return Mark(self._rule(op, known, values, at))

        return run

    def _rule(self, op: Op, known: Callable[..., Any], values: Sequence[Any], at: tuple[Any, ...]) -> Tags:
        own: Callable[..., Tags] | None = getattr(self, f"_{op.name}", None)
        if own is not None:
            return own(values, at)
        tags = [tags_of(v) for v in values]
        if Trait.MOVES in op.traits:
            return np.asarray(known(*tags, *at), np.uint8)
        together = _largest(tags)
        return together if _keeps_zero(op) else np.maximum(together, CLEAN)

    # ---- the ops that know zero

    def _add(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return _largest([tags_of(v) for v in values])

    _sub = _add_n = _maximum = _minimum = _add

    def _mul(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        a, b = (tags_of(v) for v in values)
        return np.where(self._vanishes(a, b), ZERO, np.maximum(a, b))

    _scale = _mul

    def _vanishes(self, a: Tags, b: Tags) -> Any:
        """Where a product is zero whatever the other factor is."""
        zero = (a == ZERO) | (b == ZERO)
        return zero & (a != PADDED) & (b != PADDED) if self.strict else zero

    def _div(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        a, b = (tags_of(v) for v in values)
        return np.where((a == ZERO) & ((b != PADDED) | (not self.strict)), ZERO, np.maximum(np.maximum(a, b), CLEAN))

    def _where(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        c, a, b = values
        if not isinstance(c, Mark):
            return np.where(np.asarray(c), tags_of(a), tags_of(b))
        either = np.maximum(tags_of(a), tags_of(b))
        chosen = np.where(either == ZERO, ZERO, np.maximum(either, c.tags))
        return np.where(c.tags == ZERO, tags_of(b), chosen)  # a predicate that is zero is known to be false

    def _both(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        """False and anything is false."""
        a, b = (tags_of(v) for v in values)
        return np.where((a == ZERO) | (b == ZERO), ZERO, np.maximum(a, b))

    def _clip(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        low, high = at
        return tags_of(values[0]) if low <= 0 <= high else np.maximum(tags_of(values[0]), CLEAN)

    def _powk(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return tags_of(values[0]) if at[0] > 0 else np.maximum(tags_of(values[0]), CLEAN)

    def _matmul(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return self._contracted([tags_of(v) for v in values], np.matmul)

    def _einsum(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return self._contracted([tags_of(v) for v in values], lambda *x: np.einsum(at[-1], *x))

    def _contracted(self, tags: list[Tags], contract: Callable[..., Any]) -> Tags:
        """Sums of products: padded where any term is, zero where all are."""
        live = [(t != ZERO).astype(np.float64) for t in tags]
        reached = contract(*live) > 0
        padded = np.zeros(reached.shape, bool)
        for i, t in enumerate(tags):
            others = [np.ones_like(x) for x in live] if self.strict else list(live)
            others[i] = (t == PADDED).astype(np.float64)
            padded |= contract(*others) > 0
        return np.where(padded, PADDED, np.where(reached, CLEAN, ZERO))

    def _sum(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return np.asarray(np.max(tags_of(values[0]), axis=at[0], keepdims=at[1], initial=ZERO), np.uint8)

    _amax = _amin = _sum

    def _cumsum(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return np.asarray(np.maximum.accumulate(tags_of(values[0]), axis=at[0]), np.uint8)

    def _argmax(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return np.asarray(np.maximum(np.max(tags_of(values[0]), axis=at[0]), CLEAN), np.uint8)

    # ---- lookups: an index that is not known may be any index

    def _gather(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        table, index = values
        if not isinstance(index, Mark):
            return np.asarray(tags_of(table)[np.asarray(index)], np.uint8)
        any_row = np.max(tags_of(table), axis=0, initial=ZERO)
        return _largest([any_row, index.tags.reshape(*index.shape, *(1,) * any_row.ndim)])

    def _scatter_add(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        x, index, n = tags_of(values[0]), values[1], at[0]
        if not isinstance(index, Mark):
            out = np.zeros((n, *x.shape[np.asarray(index).ndim :]), np.uint8)
            np.maximum.at(out, np.asarray(index), x)
            return out
        deep = x.ndim - index.tags.ndim
        spread = np.where(x == ZERO, ZERO, np.maximum(x, index.tags.reshape(*index.shape, *(1,) * deep)))
        row = np.max(spread, axis=tuple(range(index.tags.ndim)), initial=ZERO)
        return np.broadcast_to(row, (n, *row.shape))

    def _pick(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        x, index = values
        if not isinstance(index, Mark):
            chosen = np.take_along_axis(tags_of(x), np.asarray(index)[..., None].astype(np.intp), -1)
            return np.asarray(chosen[..., 0], np.uint8)
        return _largest([np.max(tags_of(x), axis=-1), index.tags])

    def _one_hot(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        tags = np.maximum(tags_of(values[0]), CLEAN)
        return np.broadcast_to(tags[..., None], (*tags.shape, at[0]))

    def _random_bits(self, values: Sequence[Any], at: Sequence[Any]) -> Tags:
        return np.full(at[1], CLEAN, np.uint8)


def _keeps_zero(op: Op) -> bool:
    """Whether f(0) = 0; what an op says of itself is held against its formula."""
    if op.at_zero is not None and op.evaluate is not None and op.entrywise and len(signature(op.evaluate).parameters) == 2:
        found = float(op.evaluate(FLOAT, np.zeros(())))
        if found != op.at_zero:
            raise GraphError(f"op {op.name!r} is declared with at_zero={op.at_zero:g}, and its formula gives {found:g} at 0")
    return op.at_zero == 0


def _largest(tags: Sequence[Tags]) -> Tags:
    """Entry by entry over broadcast operands."""
    out = tags[0]
    for t in tags[1:]:
        out = np.maximum(out, t)
    return np.asarray(out, np.uint8)
