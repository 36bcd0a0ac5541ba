"""Rows of data in batches: padding, bucketing by length, and continued streams."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..errors import ArgumentError, ShapeError
from ..shapes import show
from ..tensor.masks import check_lengths
from ..tensor.tensor import TensorLike
from .reading import full_array, rows_or_array

Array = npt.NDArray[Any]
Batch = dict[str, Any]

POOL = 32      # batches among whose rows bucketing sorts by length
KINDS = 16     # lengths to which batches are padded, each traced once


class Piece(NamedTuple):
    """Some rows from a step on, and whether they begin there."""

    rows: Array
    start: int = 0

    @property
    def fresh(self) -> bool:
        return self.start == 0


class Ragged:
    """Rows of different lengths; `self[rows, steps]` is an array of some, filled up with zeros at their ends."""

    def __init__(self, rows: Sequence[Any], name: str) -> None:
        self.rows = [full_array(r, f"a row of {name}") for r in rows]
        typed = [a for a in self.rows if a.size] or self.rows
        if len({(a.ndim, a.shape[1:]) for a in typed}) != 1 or typed[0].ndim < 1:
            kinds = ", ".join(dict.fromkeys(show(a.shape) for a in typed[:4]))
            raise ShapeError(f"rows of {name} differ in more than their length: {kinds}; each is [T, ...] with the same sizes "
                             "after T")
        self.lengths = np.array([len(a) for a in self.rows], np.int64)
        self.dtype: np.dtype[Any] = np.result_type(*{a.dtype for a in typed})
        self.shape = (len(rows), int(self.lengths.max()), *typed[0].shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Array:
        rows, steps = at if isinstance(at, tuple) else (at, slice(None))
        start, stop, _ = steps.indices(self.shape[1])
        out = np.zeros((len(rows), stop - start, *self.shape[2:]), self.dtype)
        for row, i in zip(out, rows, strict=True):
            cut = self.rows[i][start:stop]
            if cut.size:
                row[: len(cut)] = cut
        return out


def pad_rows(rows: Sequence[Any]) -> tuple[Array, Array]:
    """Rows of different lengths as one array [B, T, ...] filled up with zeros at their ends, and their lengths.

    Raises `ArgumentError` where there are no rows, and `ShapeError` where they differ in more than their length.

    >>> import tinyrnn as tr
    >>> x, lengths = tr.train.pad_rows([[1, 2, 3], [4]])
    >>> x.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    if not len(rows):
        raise ArgumentError("there are no rows to pad")
    ragged = Ragged(rows, "the list")
    return ragged[np.arange(len(rows))], ragged.lengths


def is_ragged(data: object) -> bool:
    """Whether data are a list of rows of different lengths."""
    return isinstance(data, list) and len({len(r) if hasattr(r, "__len__") else -1 for r in data}) > 1


class Data:
    """Inputs, targets and what marks their padding, with equally many rows.

    x is an array or a list of rows, a tuple of them (a model of several arguments) or a dict of them (a cell of several
    inputs).
    """

    def __init__(self, x: object, y: object, lengths: TensorLike | None = None, mask: object = None) -> None:
        self.names = list(x) if isinstance(x, Mapping) else None
        self.several = isinstance(x, tuple)
        parts = parts_of(x)
        if not parts:
            raise ArgumentError("x holds no input")
        keys = self.names or list(map(str, range(len(parts))))
        titles = [f"x[{k}]" for k in keys] if self.names or self.several else ["x"]
        parts = [rows_or_array(p, t) for p, t in zip(parts, titles, strict=True)]
        self.parts = [Ragged(p, t) if is_ragged(p) else full_array(p, t) for p, t in zip(parts, titles, strict=True)]
        self._check_rows(titles)
        self.mask = None if mask is None else on_host(mask)
        self.lengths = self._lengths(lengths)
        if self.names and self.lengths and any(not np.array_equal(n, self.lengths[0]) for n in self.lengths):
            raise ShapeError(f"the inputs {', '.join(self.names)} of a cell run in step: their rows need the same lengths")
        self.y = None if y is None else self._targets(y)
        fits = self.mask is None or (self.mask.dtype.kind == "b" and self.mask.shape in [a.shape[:2] for a in self.parts])
        if self.mask is not None and not fits:
            raise ShapeError(f"mask is bool [B, T], here {show(self.parts[-1].shape[:2])}; "
                             f"got {self.mask.dtype}{show(self.mask.shape)}")

    def _check_rows(self, titles: Sequence[str]) -> None:
        for a, title in zip(self.parts, titles, strict=True):
            if a.ndim < 1 or not len(a):
                raise ArgumentError(f"there are no rows to work on: {title} has shape {show(a.shape)}")
            if len(a) != len(self):
                also = "; a tuple holds the inputs of a model of several arguments, rows are a list" if self.several else ""
                raise ShapeError(f"{titles[0]} has {len(self)} rows and {title} has {len(a)}{also}")

    def _lengths(self, given: Any) -> list[Array] | None:
        """Lengths of every part of x; 0 for a part without steps."""
        if any(isinstance(a, Ragged) for a in self.parts):
            if given is not None or self.mask is not None:
                raise ArgumentError("a list of rows has lengths of its own: leave lengths= and mask= out")
            return [a.lengths if isinstance(a, Ragged) else np.full(len(a), a.shape[1] if a.ndim > 1 else 0)
                    for a in self.parts]
        if given is None:
            return None
        if self.mask is not None:
            raise ArgumentError("give lengths or mask, not both")
        each = given if self.several and isinstance(given, tuple) else self._shared(given)
        if len(each) != len(self.parts):
            raise ArgumentError(f"lengths has {len(each)} parts for {len(self.parts)} inputs")
        return [check_lengths(n, a.shape[1] if a.ndim > 1 else 0, len(a)) for n, a in zip(each, self.parts, strict=True)]

    def _shared(self, lengths: TensorLike | None) -> list[Any]:
        """One list of lengths for every part that has steps."""
        timed = [a.ndim > 1 for a in self.parts]
        if self.several and sum(timed) > 1:
            raise ArgumentError("x holds several sequences: give a tuple of lengths, one for each input")
        return [lengths if t else np.zeros(len(self), np.int64) for t in timed]

    def _targets(self, y: Any) -> Any:
        y = rows_or_array(y, "y")
        if not is_ragged(y):
            array = full_array(y, "y")
            if array.ndim < 1 or len(array) != len(self):
                raise ShapeError(f"x has {len(self)} rows and y has {len(array) if array.ndim else 'none'}")
            return array
        ragged = Ragged(y, "y")
        if not any(np.array_equal(ragged.lengths, n) for n in self.lengths or ()):
            raise ShapeError("the rows of y differ in length, but not as those of x do: a target for every step needs rows of "
                             "the same lengths")
        return ragged

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
        return " ".join(f"{a.dtype}{show(a.shape)}:{_checksum(a):08x}" for a in arrays if a is not None)


def parts_of(x: object) -> list[Any]:
    """The arrays of an input."""
    return list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]


def _checksum(a: Any) -> int:
    found = 0
    for row in a.rows if isinstance(a, Ragged) else [a]:
        found = zlib.crc32(np.ascontiguousarray(row).view(np.uint8).data if row.size else b"", found)
    return found


class Batches:
    """Data in batches; ragged batches are cut near their longest row.

    With `bucket` rows of similar length come together; with `tbptt` each batch is a group of streams, handed out in
    pieces of that many steps.
    """

    def __init__(self, data: Data, batch_size: int, timed: Callable[[Data], int | None] = lambda data: None, *,
                 bucket: bool = False, tbptt: int | None = None, ignore_index: int | None = None) -> None:
        for name, n in (("batch_size", batch_size), ("tbptt", tbptt)):
            optional = n is None and name == "tbptt"
            if not optional and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
                raise ArgumentError(f"{name}={n!r}: expected a whole number from 1")
        if bucket and data.lengths is None:
            raise ArgumentError("bucket=True sorts rows by length: give lengths=, or x as a list of rows")
        self.data, self.batch_size, self.bucket, self.tbptt, self.ignore_index = data, batch_size, bucket, tbptt, ignore_index
        marked = data.lengths is not None or data.mask is not None
        self.timed = timed(data) if data.y is not None and (marked or tbptt is not None) else None
        self.grids = [] if data.lengths is None else [_grid(n, len(data.lengths)) for n in data.lengths]
        if tbptt is not None:
            self._check_streams()

    @property
    def per_step(self) -> bool:
        """Whether there is a target for every step."""
        return self.timed is not None

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
        lengths, pool = self.data.lengths[self.timed or 0], POOL * self.batch_size
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
        spans = [self._span(piece, i, a) for i, a in enumerate(d.parts)]
        batch: Batch = {"x": d.tree([a[rows, s] if a.ndim > 1 else a[rows] for a, s in zip(d.parts, spans, strict=True)])}
        if d.y is not None:
            batch["y"] = d.y[rows] if self.timed is None else d.y[rows, spans[self.timed]]
        if d.mask is not None:
            batch["mask"] = d.mask[rows, spans[self.timed or 0]]
        return batch if lengths is None else {**batch, "lengths": d.length_tree(lengths)}

    def _span(self, piece: Piece, i: int, a: Any) -> slice:
        """The steps of a part that a piece holds, up to the next length of the part's grid."""
        if a.ndim < 2:
            return slice(None)
        if self.tbptt is not None:
            return slice(piece.start, min(piece.start + self.tbptt, a.shape[1]))
        if self.data.lengths is None:
            return slice(None)
        longest = max(int(self.data.lengths[i][piece.rows].max()), 1)
        return slice(0, int(self.grids[i][np.searchsorted(self.grids[i], longest)]))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """How many targets of a batch count."""
        valid = self._valid(batch)
        if self.ignore_index is not None:
            counted = batch["y"] != self.ignore_index
            return float((counted if valid is None else counted & valid).sum())
        if valid is not None:
            return float(valid.sum())
        return float(np.prod(batch["y"].shape[:2])) if self.per_step else float(len(batch["y"]))

    def _valid(self, batch: Mapping[str, Any]) -> Array | None:
        """Which targets are no padding, bool [B, T]."""
        if not self.per_step or not ("mask" in batch or "lengths" in batch):
            return None
        found: Array
        if "mask" in batch:
            found = batch["mask"]
            return found
        lengths = batch["lengths"]
        own = lengths[self.timed or 0] if isinstance(lengths, tuple) else lengths
        found = np.arange(batch["y"].shape[1]) < own[:, None]
        return found


def _grid(lengths: Array, parts: int) -> Array:
    """The lengths to which batches are padded: few, so that few shapes are traced, and dense where most lengths are."""
    kinds = min(KINDS, int((2 * KINDS) ** (1 / parts)))  # several inputs differ independently: fewer of each
    return np.unique(np.maximum(np.quantile(lengths, np.arange(1, kinds + 1) / kinds, method="higher"), 1))
