"""Shapes on plain tuples: broadcasting, axes, matrix products.  Letters: B batch, T time, X input, H hidden."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .errors import ArgumentError, ShapeError
from .sizes import AnySize, agree, is_symbolic, same

Shape = tuple[int, ...]
"""Sizes are numbers; in a function that is traced for any sizes, some of them are `AnySize`."""


def checked_count(name: str, value: object, least: int = 1) -> int:
    """A whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{name}={value!r}: expected a whole number from {least}")
    return int(value)


UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def checked_bytes(name: str, value: object) -> int | None:
    """A number of bytes, given as one or as a text with a unit ("200MB", "1.5 GiB"); None as it is."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    unit = UNITS.get(found[2].upper()) if found and isinstance(value, (str, int, np.integer)) else None
    size = 0 if found is None or unit is None or isinstance(value, bool) else int(Fraction(found[1]) * unit)
    if size < 1:
        raise ArgumentError(f"{name}={value!r}: expected bytes as a whole number or a text like '200MB' or '1.5GiB'")
    return size


def show_bytes(size: int) -> str:
    """`200 MB`."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.3g} {unit}"
    return f"{size} bytes"


def show(shape: Iterable[int]) -> str:
    """`(2, 3)` as `[2,3]`, the way listings print it."""
    return "[" + ",".join(map(str, shape)) + "]"


def broadcast(*shapes: Shape) -> Shape:
    """The common shape under NumPy's rule: align right, 1 stretches."""
    return _broadcast(*shapes) if any(map(is_symbolic, shapes)) else _broadcast_numbers(*shapes)


def _broadcast(*shapes: Shape) -> Shape:
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out = []
    for sizes in zip(*padded, strict=True):
        wanted = {n for n in sizes if n != 1}
        if len(wanted) > 1 and is_symbolic(wanted):
            wanted = _met(wanted)
        if len(wanted) > 1:
            raise ShapeError(f"shapes {' and '.join(map(show, shapes))} do not broadcast: sizes "
                             f"{' and '.join(map(str, sorted(wanted)))} meet on one axis; reshape one of them")
        out.append(wanted.pop() if wanted else 1)
    return tuple(out)


_broadcast_numbers = lru_cache(4096)(_broadcast)


def _met(sizes: set[int]) -> set[int]:
    """The number that all sizes on an axis are, if they are equal for the sizes at hand."""
    first = next((n for n in sizes if not isinstance(n, AnySize)), next(iter(sizes)))
    return {first} if all(agree(n, first) for n in sizes) else sizes


def axis(index: int, rank: int) -> int:
    """A single axis counted from the front."""
    if not -rank <= index < rank:
        raise ShapeError(f"axis {index} does not exist in a tensor of rank {rank}")
    return index % rank


def axes(which: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Axes sorted and counted from the front; None means all of them; a number may be reduced over an axis 0 of its own."""
    if which is None:
        return tuple(range(rank))
    try:
        listed = [operator.index(i) for i in ([which] if isinstance(which, int) else which)]
        listed = [] if not rank and listed in ([0], [-1]) else [axis(i, rank) for i in listed]
    except TypeError:
        raise ArgumentError(f"axis={which!r}: expected a whole number, several of them, or None") from None
    if len(set(listed)) != len(listed):
        raise ShapeError(f"axis {tuple(listed)} names the same axis twice")
    return tuple(sorted(listed))


def reduced(shape: Shape, which: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape after a reduction over `which`."""
    if keepdims:
        return tuple(1 if i in which else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in which)


def reshaped(shape: Shape, to: Iterable[int]) -> Shape:
    """The target of a reshape with at most one -1 filled in."""
    target = tuple(n if isinstance(n, AnySize) else operator.index(n) for n in to)
    known = prod(n for n in target if n != -1)
    if target.count(-1) == 1 and (isinstance(known, AnySize) or known) and same(prod(shape) % known, 0):
        target = tuple(prod(shape) // known if n == -1 else n for n in target)
    if prod(target) != prod(shape) or any(n < 0 for n in target):
        raise ShapeError(f"cannot reshape {show(shape)} ({prod(shape)} numbers) to {show(to)}")
    return target


def matmul(a: Shape, b: Shape) -> Shape:
    """The shape of a (batched) matrix product of operands that both have rank 2 or more."""
    if len(a) < 2 or len(b) < 2 or not agree(a[-1], b[-2]):
        raise ShapeError(f"cannot multiply {show(a)} @ {show(b)}: the inner sizes must be equal")
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def einsum(spec: str, *shapes: Shape) -> Shape:
    """The shape of an explicit `ij,jk->ik` contraction; every letter has one size."""
    inputs, _, output = spec.partition("->")
    sizes = einsum_sizes(spec, inputs.split(","), shapes)
    return tuple(sizes[letter] for letter in output)


def einsum_sizes(spec: str, letters: Sequence[str], shapes: Sequence[Shape], stretched: str = "") -> dict[str, int]:
    """The size of every letter; axes of size 1 stretch where they belong to `...`."""
    sizes: dict[str, int] = {}
    for part, shape in zip(letters, shapes, strict=True):
        if len(part) != len(shape):
            raise ShapeError(f"einsum {spec!r}: operand {part!r} has shape {show(shape)}")
        for letter, n in zip(part, shape, strict=True):
            known = sizes.get(letter, n)
            if known != n and not (letter in stretched and 1 in (known, n)):
                raise ShapeError(f"einsum {spec!r}: {letter!r} is {known} and {n}")
            sizes[letter] = n if known == 1 else known
    return sizes


Part = tuple[int, int, int]  # start, number of entries, step


def index(shape: Shape, key: object) -> tuple[tuple[Part, ...], Shape]:
    """Basic indexing as one part per axis, and the shape that results."""
    keys = list(key) if isinstance(key, tuple) else [key]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > len(shape):
        raise ShapeError(f"{used} indices for a tensor of shape {show(shape)}")
    if Ellipsis not in [k for k in keys if k is Ellipsis]:
        keys.append(Ellipsis)
    at = next(i for i, k in enumerate(keys) if k is Ellipsis)
    keys[at : at + 1] = [slice(None)] * (len(shape) - used)
    if any(k is Ellipsis for k in keys):
        raise ShapeError("an index may hold one '...' only")
    parts: list[Part] = []
    out: list[int] = []
    for k in keys:
        if k is None:
            out.append(1)
            continue
        n = shape[len(parts)]
        if isinstance(k, slice):
            if k.step == 0:
                raise ArgumentError("a slice cannot have step 0")
            parts.append(_cut(k, n))
            out.append(parts[-1][1])
        else:
            i = _whole(k)
            if not -n <= i < n:
                raise ShapeError(f"index {i} is outside an axis of size {n} (shape {show(shape)})")
            parts.append((i + n if i < 0 else i, 1, 1))
    return tuple(parts), tuple(out)


def _cut(k: slice, n: int) -> Part:
    """The part of an axis that a slice means."""
    if isinstance(n, AnySize) and k.step in (None, 1):
        start, stop = (_end(i, n, at) for i, at in ((k.start, 0), (k.stop, n)))
        return (start, stop - start, 1) if stop is n or stop > start else (0, 0, 1)
    if isinstance(n, AnySize) and k == slice(None, None, -1):
        return n - 1, n, -1
    r = range(*k.indices(operator.index(n)))
    return (r.start, len(r), r.step) if len(r) else (0, 0, 1)


def _end(i: Any, n: int, default: int) -> int:
    """Where a slice of an axis of size n begins or ends, which holds whatever n is if the end is not given."""
    if i is None or i is n:
        return default if i is None else n
    k = operator.index(i)
    return max(k + n, 0) if k < 0 else k if k == 0 else min(k, n)


def _whole(k: Any) -> int:
    try:
        if isinstance(k, bool):
            raise TypeError
        return operator.index(k)
    except TypeError:
        raise ArgumentError(f"an index is a whole number, a slice, None, ... or one tensor of whole numbers; "
                            f"got {type(k).__name__}. To pick x[i, j] for lists i, j use gather, pick or one_hot") from None


def slices(parts: Iterable[Part]) -> tuple[slice, ...]:
    """Parts as Python slices (a negative step that ends before 0 needs None)."""
    out = []
    for start, n, step in parts:
        stop = start + n * step
        out.append(slice(start, stop if stop >= 0 else None, step))
    return tuple(out)
