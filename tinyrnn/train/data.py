"""Rows of data in batches: padding, bucketing by length, and continued streams."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import check_lengths
from ..shapes import show

Array = npt.NDArray[Any]
Batch = dict[str, Any]

POOL = 32      # batches among whose rows bucketing sorts by length
GRAINS = 16    # different lengths to which batches are padded: each length is traced once


class Piece(NamedTuple):
    """Some rows from a step on, and whether they begin there."""

    rows: Array
    start: int = 0

    @property
    def fresh(self) -> bool:
        return self.start == 0


def pad_rows(rows: Sequence[Any], fill: float = 0) -> tuple[Array, Array]:
    """Rows of different lengths as one array [B, T, ...] filled up at their ends, and their lengths.

    >>> import tinyrnn as tr
    >>> x, lengths = tr.train.pad_rows([[1, 2, 3], [4]])
    >>> x.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    arrays = [np.asarray(r) for r in rows]
    if not arrays:
        raise ArgumentError("there are no rows to pad")
    typed = [a for a in arrays if a.size] or arrays
    if len({(a.ndim, a.shape[1:]) for a in typed}) != 1 or typed[0].ndim < 1:
        kinds = ", ".join(dict.fromkeys(show(a.shape) for a in typed[:4]))
        raise ShapeError(f"rows differ in more than their length: {kinds}; each is [T, ...] with the same sizes after T")
    lengths = np.array([len(a) for a in arrays], np.int64)
    out = np.full((len(arrays), lengths.max(), *typed[0].shape[1:]), fill, np.result_type(*typed))
    for row, a in zip(out, arrays, strict=True):
        row[: len(a)] = a if a.size else fill
    return out, lengths


def is_ragged(data: Any) -> bool:
    """Whether data are a list of rows of different lengths."""
    return isinstance(data, list) and len({len(r) if hasattr(r, "__len__") else -1 for r in data}) > 1


def full_array(data: Any, name: str) -> Array:
    """Data as an array of numbers, refused by name where they are none; float16 becomes float32."""
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError(f"the rows of {name} differ in length; pad them and give lengths=, or give a list of rows") from None
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{name} is {array.dtype}: expected numbers; encode text first (tinyrnn.datasets.Vocabulary)")
    return array.astype(np.float32) if array.dtype == np.float16 else array  # kernels compute in float32 and float64


class Data:
    """Inputs, targets and what marks their padding, as arrays with equally many rows.

    x is an array, a tuple of arrays (a model of several arguments) or a dict of them (a cell of several inputs).
    """

    def __init__(self, x: Any, y: Any, lengths: Any = None, mask: Any = None) -> None:
        self.names = list(x) if isinstance(x, Mapping) else None
        self.several = isinstance(x, tuple)
        parts = list(x.values()) if isinstance(x, Mapping) else list(x) if self.several else [x]
        keys = self.names or list(map(str, range(len(parts))))
        titles = [f"x[{k}]" for k in keys] if self.names or self.several else ["x"]
        found = [pad_rows(p) if is_ragged(p) else (full_array(p, t), None)
                 for p, t in zip(parts, titles, strict=True)]
        self.parts = [a for a, _ in found]
        self._check_rows(titles)
        self.mask = None if mask is None else np.asarray(mask)
        self.lengths = self._lengths(lengths, [n for _, n in found])
        self.y = None if y is None else self._targets(y)
        if self.mask is not None and (self.mask.dtype.kind != "b" or self.mask.shape != self.parts[-1].shape[:2]):
            raise ShapeError(f"mask is bool [B, T], here {show(self.parts[-1].shape[:2])}; "
                             f"got {self.mask.dtype}{show(self.mask.shape)}")

    def _check_rows(self, titles: Sequence[str]) -> None:
        for a, title in zip(self.parts, titles, strict=True):
            if a.ndim < 1 or not len(a):
                raise ArgumentError(f"there are no rows to work on: {title} has shape {show(a.shape)}")
            if len(a) != len(self.parts[0]):
                raise ShapeError(f"{titles[0]} has {len(self.parts[0])} rows and {title} has {len(a)}")

    def _lengths(self, given: Any, found: list[Array | None]) -> list[Array] | None:
        """Lengths of every part of x."""
        if any(n is not None for n in found):
            if given is not None or self.mask is not None:
                raise ArgumentError("a list of rows has lengths of its own: leave lengths= and mask= out")
            return [np.full(len(a), a.shape[1] if a.ndim > 1 else 0) if n is None else n
                    for a, n in zip(self.parts, found, strict=True)]
        if given is None:
            return None
        if self.mask is not None:
            raise ArgumentError("give lengths or mask, not both")
        each = given if self.several and isinstance(given, tuple) else [given] * len(self.parts)
        if len(each) != len(self.parts):
            raise ArgumentError(f"lengths has {len(each)} parts for {len(self.parts)} inputs")
        return [row_lengths(n, a) for n, a in zip(each, self.parts, strict=True)]

    def _targets(self, y: Any) -> Array:
        if not is_ragged(y):
            array = full_array(y, "y")
            if array.ndim < 1 or len(array) != len(self):
                raise ShapeError(f"x has {len(self)} rows and y has {len(array) if array.ndim else 'none'}")
            return array
        array, lengths = pad_rows(y)
        if self.lengths is None or len(lengths) != len(self) or not np.array_equal(lengths, self.lengths[-1]):
            raise ShapeError("the rows of y differ in length, but not as those of x do: a target for every step needs rows of "
                             "the same lengths")
        return array

    def __len__(self) -> int:
        return len(self.parts[0])

    def tree(self, parts: Sequence[Any]) -> Any:
        """Parts in the form in which x was given."""
        return dict(zip(self.names, parts, strict=True)) if self.names else tuple(parts) if self.several else parts[0]

    def length_tree(self, parts: Sequence[Any]) -> Any:
        """Lengths as the model takes them: one for each argument, or one for all."""
        return tuple(parts) if self.several else parts[0]

    def fingerprint(self) -> str:
        """A short text that differs when the data do."""
        arrays = [*self.parts, self.y, *(self.lengths or ()), self.mask]
        return " ".join(f"{a.dtype}{show(a.shape)}:{zlib.crc32(np.ascontiguousarray(a).view(np.uint8).data):08x}"
                        for a in arrays if a is not None)


class Batches:
    """Data in batches; ragged batches are cut near their longest row.

    With `bucket` rows of similar length come together; with `tbptt` each batch is a group of streams, handed out in
    pieces of that many steps.
    """

    def __init__(self, data: Data, batch_size: int, per_step: Callable[[Data], bool] = lambda data: False, *,
                 bucket: bool = False, tbptt: int | None = None) -> None:
        for name, n in (("batch_size", batch_size), ("tbptt", tbptt)):
            if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
                raise ArgumentError(f"{name}={n!r}: expected a whole number from 1")
        if bucket and data.lengths is None:
            raise ArgumentError("bucket=True sorts rows by length: give lengths=, or x as a list of rows")
        self.data, self.batch_size, self.bucket, self.tbptt = data, batch_size, bucket, tbptt
        marked = data.lengths is not None or data.mask is not None
        self.per_step = data.y is not None and (marked or tbptt is not None) and per_step(data)
        if tbptt is not None:
            self._check_streams()
        longest = max((int(n.max(initial=0)) for n in data.lengths or ()), default=0)
        self.grain = -(-longest // GRAINS) or 1

    def _check_streams(self) -> None:
        steps = {a.shape[1] if a.ndim > 1 else 0 for a in self.data.parts}
        if len(steps) != 1 or 0 in steps or (self.data.y is not None and not self.per_step):
            raise ShapeError("tbptt needs streams: x [rows, T, ...] with at least one step, and a target for every step; x is "
                             + ", ".join(show(a.shape) for a in self.data.parts)
                             + ("" if self.data.y is None else f" and y {show(self.data.y.shape)}"))

    def pieces(self, rng: np.random.Generator | None = None) -> list[Piece]:
        """What an epoch consists of, in order; shuffled with `rng`."""
        n, size = len(self.data), self.batch_size
        order = np.arange(n) if rng is None else rng.permutation(n)
        groups = [order[i : i + size] for i in range(0, n, size)]
        if self.bucket:
            groups = self._bucketed(order, rng)
        if self.tbptt is None:
            return [Piece(rows) for rows in groups]
        return [Piece(rows, start) for rows in groups for start in range(0, self._longest(rows), self.tbptt)]

    def _bucketed(self, order: Array, rng: np.random.Generator | None) -> list[Array]:
        assert self.data.lengths is not None
        lengths, pool = self.data.lengths[-1], POOL * self.batch_size
        sorted_pools = [p[np.argsort(lengths[p], kind="stable")] for p in
                        (order[i : i + pool] for i in range(0, len(order), pool))]
        groups = [p[i : i + self.batch_size] for p in sorted_pools for i in range(0, len(p), self.batch_size)]
        return groups if rng is None else [groups[i] for i in rng.permutation(len(groups))]

    def _longest(self, rows: Array) -> int:
        steps = int(self.data.parts[0].shape[1])
        return steps if self.data.lengths is None else max(int(self.data.lengths[0][rows].max()), 1)

    def __iter__(self) -> Iterator[tuple[Piece, Batch]]:
        """Every piece in the order of the data."""
        return ((piece, self.batch(piece)) for piece in self.pieces())

    def batch(self, piece: Piece) -> Batch:
        """The arrays of a piece, as the program takes them."""
        d, rows = self.data, piece.rows
        lengths = None if d.lengths is None else [np.clip(n[rows] - piece.start, 0, self.tbptt) for n in d.lengths]
        spans = [self._span(piece, a, None if lengths is None else lengths[i]) for i, a in enumerate(d.parts)]
        batch: Batch = {"x": d.tree([a[rows, s] if a.ndim > 1 else a[rows] for a, s in zip(d.parts, spans, strict=True)])}
        if d.y is not None:
            batch["y"] = d.y[rows, spans[-1]] if self.per_step else d.y[rows]
        if d.mask is not None:
            batch["mask"] = d.mask[rows, spans[-1]]
        return batch if lengths is None else {**batch, "lengths": d.length_tree(lengths)}

    def _span(self, piece: Piece, a: Array, lengths: Array | None) -> slice:
        """The steps of a part that a piece holds."""
        if self.tbptt is not None:
            return slice(piece.start, min(piece.start + self.tbptt, self._longest(piece.rows)))
        if lengths is None or a.ndim < 2:
            return slice(None)
        return slice(0, min(-(-max(int(lengths.max(initial=0)), 1) // self.grain) * self.grain, a.shape[1]))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """How many targets of a batch count."""
        if not self.per_step:
            return float(len(batch["y"]))
        if "mask" in batch:
            return float(batch["mask"].sum())
        counted = batch.get("lengths")
        last = counted[-1] if isinstance(counted, tuple) else counted
        return float(np.prod(batch["y"].shape[:2])) if last is None else float(last.sum())


def row_lengths(lengths: Any, x: Array) -> Array:
    """One length for every row of x, checked."""
    found = check_lengths(lengths, x.shape[1] if x.ndim > 1 else 0)
    if len(found) != len(x):
        raise ShapeError(f"x has {len(x)} rows and lengths has {len(found)}")
    return found
