"""Ops that pick, place and join numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import shapes
from ...errors import DTypeError, ShapeError
from ...shapes import Part, Shape
from ...sizes import AnySize
from ..node import OPERATORS, DType, Node, apply, attribute, promote
from ..op import PRIMITIVE, Op, Trait, per_entry, register
from .elementwise import EXACT, MOVES, VIEW
from .leaves import FULL, filled, full, literal_value
from .linear import reshape, summed, transpose

# ---- slices: `slice` picks parts, `place` puts them into zeros; each is the other's transpose


def _slice_shape(x: Node, parts: tuple[Part, ...]) -> tuple[Shape, DType]:
    return tuple(n for _, n, _ in parts), x.dtype


def _slice_simpler(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    (x,), (parts,) = src, at
    if x.op is FULL:
        return full(filled(x), tuple(n for _, n, _ in parts), x.dtype)
    if all(part == (0, n, 1) for part, n in zip(parts, x.shape, strict=True)):
        return x
    return _slice_of_concat(x, parts) if x.op is CONCAT else None


def _slice_of_concat(x: Node, parts: tuple[Part, ...]) -> Node | None:
    """A slice that lies within one operand of a concat reads that operand."""
    axis = axis_of(x)
    start, n, step = parts[axis]
    offset = 0
    for s in x.src:
        size = s.shape[axis]
        if s.dtype == x.dtype and step > 0 and n and offset <= start and start + (n - 1) * step < offset + size:
            return apply(SLICE, (s,), ((*parts[:axis], (start - offset, n, step), *parts[axis + 1 :]),))
        offset += size
    return None


def _place(m: Any, x: Any, parts: tuple[Part, ...], shape: Shape) -> Any:
    out = m.zeros(shape, x)
    out[shapes.slices(parts)] = x
    return out


SLICE = register(Op("slice", _slice_shape, lambda m, x, parts: x[shapes.slices(parts)],
                    lambda g, y, x, parts: place(g, parts, x.shape), "linear", "[:]", simplify=_slice_simpler,
                    traits=VIEW, names=("parts",)))
PLACE = register(Op("place", lambda x, parts, shape: (shape, x.dtype), _place,
                    lambda g, y, x, parts, shape: apply(SLICE, (g,), (parts,)), "linear", "place", traits=MOVES,
                    simplify=lambda src, at: full(0, at[1], src[0].dtype) if literal_value(src[0]) == 0 else None))
TAKE = register(Op("take", lambda x, t: (x.shape[1:], x.dtype), lambda m, x, t: x[t],
                   lambda g, y, x, t: put(g, t, x.shape[0]), "linear", "[t]", traits=VIEW,
                   simplify=lambda src, at: _take_simpler(src[0], at[0])))
PUT = register(Op("put", lambda x, t, n: ((n, *x.shape), x.dtype),
                  lambda m, x, t, n: _place(m, x[None], ((t, 1, 1), *((0, k, 1) for k in x.shape)), (n, *x.shape)),
                  lambda g, y, x, t, n: take(g, t), "linear", "put", traits=MOVES))


def _take_simpler(x: Node, t: int) -> Node | None:
    if x.op is STACK and x.src[t].dtype == x.dtype:
        return x.src[t]
    if x.op is FULL:
        return full(filled(x), x.shape[1:], x.dtype)
    return None


def place(x: Node, parts: tuple[Part, ...], shape: Shape) -> Node:
    """`x` inside a tensor of zeros."""
    return apply(PLACE, (x,), (parts, shape))


def take(x: Node, t: int) -> Node:
    """Entry `t` along the first axis."""
    return apply(TAKE, (x,), (t,))


def put(x: Node, t: int, n: int) -> Node:
    """`x` as entry `t` of `n`, zeros elsewhere."""
    return apply(PUT, (x,), (t, n))


def getitem(x: Node, key: Any) -> Node:
    """Integers, slices, None, `...`; an integer tensor as the only index looks up rows."""
    if isinstance(key, Node):
        if key.dtype.kind == "b":
            raise DTypeError("a bool mask gives a size that depends on data; use where(mask, x, 0)")
        return gather(x, key)
    whole = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
    if whole and x.ndim and -x.shape[0] <= key < x.shape[0]:
        return take(x, int(key) if key >= 0 else x.shape[0] + int(key))
    parts, shape = shapes.index(x.shape, key)
    return reshape(apply(SLICE, (x,), (parts,)), shape)


OPERATORS["getitem"] = getitem


def flip(x: Node, axis: int | Iterable[int] | None = None) -> Node:
    """The entries in reverse order along some axes."""
    which = shapes.axes(axis, x.ndim)
    parts = tuple((n - 1, n, -1) if i in which and (isinstance(n, AnySize) or n) else (0, n, 1) for i, n in enumerate(x.shape))
    return apply(SLICE, (x,), (parts,))


def pad(x: Node, widths: Sequence[tuple[int, int]]) -> Node:
    """Zeros before and after, for each axis."""
    if len(widths) != x.ndim or any(min(w) < 0 for w in widths):
        raise ShapeError(f"pad needs (before, after) >= 0 for each of {x.ndim} axes, got {list(widths)}")
    parts = tuple((before, n, 1) for (before, _), n in zip(widths, x.shape, strict=True))
    return place(x, parts, tuple(n + a + b for (a, b), n in zip(widths, x.shape, strict=True)))


# ---- joins

def _concat_infer(*src_at: Any) -> tuple[Shape, DType]:
    *src, axis = src_at
    first = src[0].shape
    for s in src:
        if s.shape[:axis] + s.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ShapeError(f"cannot concat {shapes.show(first)} and {shapes.show(s.shape)} along axis {axis}")
    joined = sum(s.shape[axis] for s in src)
    return (*first[:axis], joined, *first[axis + 1 :]), promote(*(s.dtype for s in src))


def _concat_gradient(g: Node, y: Node, *src_at: Any) -> tuple[Node, ...]:
    *src, axis = src_at
    return tuple(split_at(g, [s.shape[axis] for s in src], axis))


def _stack_infer(*src: Node) -> tuple[Shape, DType]:
    if len({s.shape for s in src}) != 1:
        raise ShapeError("cannot stack shapes " + " and ".join(dict.fromkeys(shapes.show(s.shape) for s in src)))
    return (len(src), *src[0].shape), promote(*(s.dtype for s in src))


CONCAT = register(Op("concat", _concat_infer, lambda m, *x: m.xp.concatenate(x[:-1], x[-1]), _concat_gradient,
                     "linear", "[,]", simplify=lambda src, at: src[0] if len(src) == 1 else None, traits=MOVES))
STACK = register(Op("stack", _stack_infer, lambda m, *x: m.xp.stack(x),
                    lambda g, y, *x: tuple([take(g, t) for t in range(len(x))]), "linear", "stack", traits=MOVES))


def concat(parts: Sequence[Node], axis: int = -1) -> Node:
    """Tensors joined along an axis that exists."""
    if not parts:
        raise ShapeError("concat needs at least one tensor")
    if any(p.ndim != parts[0].ndim or not p.ndim for p in parts):
        raise ShapeError("cannot concat " + " and ".join(shapes.show(p.shape) for p in parts))
    return apply(CONCAT, tuple(parts), (shapes.axis(axis, parts[0].ndim),))


def stack(parts: Sequence[Node], axis: int = 0) -> Node:
    """Tensors joined along a new axis."""
    if not parts:
        raise ShapeError("stack needs at least one tensor")
    y = apply(STACK, tuple(parts))
    k = shapes.axis(axis, y.ndim)
    return transpose(y, [*range(1, k + 1), 0, *range(k + 1, y.ndim)])


def split_at(x: Node, sizes: Sequence[int], axis: int) -> list[Node]:
    """Consecutive pieces of the given sizes."""
    out, start = [], 0
    for n in sizes:
        parts = tuple((start, n, 1) if i == axis else (0, k, 1) for i, k in enumerate(x.shape))
        out.append(apply(SLICE, (x,), (parts,)))
        start += n
    return out


def split(x: Node, sections: int | Sequence[int], axis: int = -1) -> list[Node]:
    """Equal pieces (an int) or pieces of the given sizes (a list), along one axis."""
    k = shapes.axis(axis, x.ndim)
    n = x.shape[k]
    sizes = [n // sections] * sections if isinstance(sections, int) and sections > 0 else sections
    if isinstance(sizes, int) or sum(sizes) != n or min(sizes, default=0) < 0:
        raise ShapeError(f"cannot split an axis of size {n} into {sections!r}")
    return split_at(x, sizes, k)


# ---- lookup by integers

def _gather_infer(table: Node, index: Node) -> tuple[Shape, DType]:
    if index.dtype.kind not in "iu":
        raise DTypeError(f"gather needs integer indices, got {index.dtype}")
    if not table.shape:
        raise ShapeError("gather needs a table of rank 1 or more")
    return (*index.shape, *table.shape[1:]), table.dtype


def _scatter_infer(x: Node, index: Node, n: int) -> tuple[Shape, DType]:
    if index.dtype.kind not in "iu" or x.shape[: index.ndim] != index.shape:
        raise ShapeError(f"scatter_add needs integer indices that lead the shape {shapes.show(x.shape)}, got "
                         f"{index.dtype}{shapes.show(index.shape)}")
    return (n, *x.shape[index.ndim :]), x.dtype


GATHER = register(Op("gather", _gather_infer, PRIMITIVE,
                     lambda g, y, table, index: (scatter_add(g, index, table.shape[0]), None), "linear", "gather",
                     traits=EXACT, index=1))
SCATTER = register(Op("scatter_add", _scatter_infer, PRIMITIVE,
                      lambda g, y, x, index, n: (gather(g, index), None), "linear", "scatter", per_entry(1),
                      traits=Trait.ADDS, index=1))


def gather(table: Node, index: Node) -> Node:
    """Rows of a table: `y[...] = table[index[...]]`."""
    return apply(GATHER, (table, index))


def scatter_add(x: Node, index: Node, n: int) -> Node:
    """A table of `n` rows in which row i is the sum of all x whose index is i."""
    return apply(SCATTER, (x, index), (n,))


def _pick_infer(x: Node, index: Node) -> tuple[Shape, DType]:
    if not x.shape:
        raise ShapeError("pick needs a table of rank 1 or more, got one number")
    if index.dtype.kind not in "iu" or index.shape != x.shape[:-1]:
        raise ShapeError(f"expected integer indices of shape {shapes.show(x.shape[:-1])}, "
                         f"got {index.dtype}{shapes.show(index.shape)}")
    return index.shape, x.dtype


PICK = register(Op("pick", _pick_infer, PRIMITIVE,
                   lambda g, y, x, index: (reshape(g, (*g.shape, 1)) * one_hot(index, x.shape[-1], g.dtype), None),
                   "linear", "pick", traits=EXACT, index=1))


def pick(x: Node, index: Node) -> Node:
    """One entry of the last axis: `y[...] = x[..., index[...]]`."""
    return apply(PICK, (x, index))


def _one_hot_infer(index: Node, n: int, dtype: DType) -> tuple[Shape, DType]:
    if index.dtype.kind not in "iu":
        raise DTypeError(f"one_hot needs integer indices, got {index.dtype}")
    return (*index.shape, n), dtype


ONE_HOT = register(Op("one_hot", _one_hot_infer, PRIMITIVE, None, "constant", "one-hot", index=0))


def one_hot(index: Node, n: int, dtype: npt.DTypeLike = np.float64) -> Node:
    """Vectors that are 1 at the index and 0 elsewhere; all zero for an index outside 0..n-1."""
    return apply(ONE_HOT, (index,), (int(n), np.dtype(dtype)))


def cumsum(x: Node, axis: int = -1) -> Node:
    """Running sums along one axis."""
    return apply(CUMSUM, (x,), (shapes.axis(axis, x.ndim),))


CUMSUM = register(Op("cumsum", lambda x, axis: (x.shape, summed(x.dtype)), PRIMITIVE,
                     lambda g, y, x, axis: flip(cumsum(flip(g, axis), axis), axis), "linear", "cumsum", per_entry(1),
                     traits=Trait.ADDS))


# ---- attributes by name
parts_of: Callable[[Node], tuple[Part, ...]] = attribute(0)  # of a slice and of a place: (first, count, step) of every axis
axis_of: Callable[[Node], int] = attribute(0)                # of a concat, cumsum, argmax
