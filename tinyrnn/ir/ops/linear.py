"""Linear and multilinear ops: products, sums, and moves of numbers that change no number."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from ... import shapes
from ...errors import DTypeError, ShapeError
from ...shapes import Shape
from ..node import OPERATORS, DType, Node, apply, attribute, promote
from ..op import PRIMITIVE, Op, Trait, register
from .elementwise import CAST, VIEW, WHOLE, astype, equal, where
from .leaves import FULL, filled, full, iota, is_number, pair


def _like(shape: Any) -> Any:
    return lambda x, *at: (shape(x, *at), x.dtype)


# ---- reshape, transpose, broadcast, sum

def _reshape_simpler(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    (x,), (to,) = src, at
    if x.op is FULL:
        return full(filled(x), to, x.dtype)
    inner = x.src[0] if x.op is RESHAPE else x
    return inner if inner.shape == to else None if inner is x else apply(RESHAPE, (inner,), at)


def _transpose_simpler(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    (x,), (order,) = src, at
    if x.op is TRANSPOSE:
        return apply(TRANSPOSE, x.src, (tuple(order_of(x)[i] for i in order),))
    if x.op is FULL:
        return full(filled(x), tuple(x.shape[i] for i in order), x.dtype)
    if order == (1, 0) and x.op is MATMUL:  # (a b)ᵀ = bᵀ aᵀ: a weight's gradient reads as a product of its own shape
        return apply(MATMUL, (transpose(x.src[1]), transpose(x.src[0])))
    return x if order == tuple(range(len(order))) else None


def _broadcast_simpler(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    (x,), (to,) = src, at
    return x if x.shape == to else full(filled(x), to, x.dtype) if x.op is FULL else None


RESHAPE = register(Op(
    "reshape", _like(lambda x, to: to), lambda m, x, to: x.reshape(to),
    lambda g, y, x, to: reshape(g, x.shape), "linear", "reshape", simplify=_reshape_simpler,
    traits=WHOLE | VIEW, names=("to",)))
TRANSPOSE = register(Op(
    "transpose", _like(lambda x, order: tuple(x.shape[i] for i in order)), lambda m, x, order: x.transpose(order),
    lambda g, y, x, order: transpose(g, [order.index(i) for i in range(len(order))]), "linear", "ᵀ",
    simplify=_transpose_simpler, traits=WHOLE | VIEW, names=("order",)))
BROADCAST = register(Op(
    "broadcast_to", _like(lambda x, to: to), lambda m, x, to: m.xp.broadcast_to(x, to),
    lambda g, y, x, to: sum_to(g, x.shape), "linear", "broadcast", simplify=_broadcast_simpler,
    traits=WHOLE | VIEW, names=("to",)))


def _sum_infer(x: Node, axes: tuple[int, ...], keepdims: bool) -> tuple[Shape, DType]:
    return shapes.reduced(x.shape, axes, keepdims), summed(x.dtype)


def summed(dtype: DType) -> DType:
    """The dtype of a sum: small integers are added in 64 bits."""
    return np.dtype(np.int64) if dtype.kind in "bi" else np.dtype(np.uint64) if dtype.kind == "u" else dtype


SUM = register(Op(
    "sum", _sum_infer, PRIMITIVE,
    lambda g, y, x, axes, keepdims: spread(g, x.shape, axes), "linear", "Σ", lambda node: prod(node.src[0].shape),
    lambda src, at: src[0] if not at[0] and src[0].dtype.kind in "fc" else None,
    traits=Trait.ADDS, names=("axes", "keepdims")))


ACCUMULATE = register(Op(
    "accumulate", lambda total, x, forward: (total.shape, total.dtype), lambda m, total, x, forward: total + x,
    lambda g, y, total, x, forward: (g, astype(g, x.dtype)), "linear", "+", lambda node: prod(node.shape),
    traits=Trait.ADDS, written="+", names=("forward",)))


def add_onto(total: Node, x: Node, forward: bool = False) -> Node:
    """`total + x`, where x, a sum or a product over many rows, is added up from `total` on.

    Rows are added up in blocks, the last block first unless `forward`: so that a sum over part of the rows, and from there
    on one over the rest, gives the bits of one sum over all.
    """
    if is_number(total, 0) and not forward and x.shape == total.shape and x.op is not CAST:
        return x
    return apply(ACCUMULATE, (total, x), (bool(forward),))


def reshape(x: Node, to: Iterable[int]) -> Node:
    """The same numbers, row by row, in another shape."""
    return apply(RESHAPE, (x,), (shapes.reshaped(x.shape, to),))


def transpose(x: Node, order: Sequence[int] | None = None) -> Node:
    """Axes in another order; reversed when none is given."""
    wanted = tuple(range(x.ndim))[::-1] if order is None else tuple(shapes.axis(i, x.ndim) for i in order)
    if sorted(wanted) != list(range(x.ndim)):
        raise ShapeError(f"{tuple(order or ())} is not an order of the {x.ndim} axes of {shapes.show(x.shape)}")
    return apply(TRANSPOSE, (x,), (wanted,))


def swap_last(x: Node) -> Node:
    """A (batched) matrix transposed."""
    return transpose(x, [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


def broadcast_to(x: Node, to: Iterable[int]) -> Node:
    """The tensor repeated along new or size-1 axes."""
    target = tuple(to)
    if shapes.broadcast(x.shape, target) != target:
        raise ShapeError(f"{shapes.show(x.shape)} cannot be broadcast to {shapes.show(target)}")
    return apply(BROADCAST, (x,), (target,))


def sum_(x: Node, axis: int | Iterable[int] | None = None, keepdims: bool = False) -> Node:
    """The sum over some axes (all when none is given)."""
    return apply(SUM, (x,), (shapes.axes(axis, x.ndim), bool(keepdims)))


def sum_to(x: Node, shape: Shape) -> Node:
    """Broadcasting undone: summed over whatever was stretched."""
    extra = x.ndim - len(shape)
    x = sum_(x, range(extra)) if extra else x
    stretched = [i for i, n in enumerate(shape) if n == 1 != x.shape[i]]
    return sum_(x, stretched, keepdims=True) if stretched else x


def spread(g: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduced tensor repeated over the axes that were reduced."""
    return broadcast_to(reshape(g, shapes.reduced(shape, axes, True)), shape)


# ---- products

def _product(a: Node, b: Node) -> tuple[Shape, DType]:
    return shapes.matmul(a.shape, b.shape), promote(a.dtype, b.dtype)


def _product_gradient(g: Node, y: Node, a: Node, b: Node) -> tuple[Node, Node]:
    return sum_to(matmul(g, swap_last(b)), a.shape), sum_to(matmul(swap_last(a), g), b.shape)


MATMUL = register(Op(
    "matmul", _product, PRIMITIVE, _product_gradient, "multilinear", "@",
    lambda node: 2 * prod(node.shape) * node.src[0].shape[-1], traits=Trait.ADDS, written="@"))


def matmul(a: Any, b: Any) -> Node:
    """`a @ b` with NumPy's rules for vectors and batches."""
    a, b = pair(a, b)
    if not a.shape or not b.shape:
        raise ShapeError(f"@ needs vectors or matrices, got {shapes.show(a.shape)} @ {shapes.show(b.shape)}; use *")
    if a.dtype.kind == "b" or b.dtype.kind == "b":
        raise DTypeError(f"@ needs numbers, got {a.dtype} @ {b.dtype}")
    if a.ndim == b.ndim == 1 and a.floating and a.shape == b.shape:
        return sum_(a * b)  # a number; sums are rounded once
    if a.ndim == 1:
        y = matmul(reshape(a, (1, -1)), b)
        return reshape(y, y.shape[:-2] + y.shape[-1:] if b.ndim > 1 else ())
    if b.ndim == 1:
        y = matmul(a, reshape(b, (-1, 1)))
        return reshape(y, y.shape[:-1])
    if a.ndim > 2 and b.ndim == 2:  # one tall product: its gradient is then one product as well
        shapes.matmul(a.shape, b.shape)
        y = apply(MATMUL, (reshape(a, (prod(a.shape[:-1]), a.shape[-1])), b))
        return reshape(y, (*a.shape[:-1], b.shape[-1]))
    return apply(MATMUL, (a, b))


OPERATORS["matmul"] = matmul


def _contraction(*src_at: Any) -> tuple[Shape, DType]:
    *src, spec = src_at
    return shapes.einsum(spec, *(s.shape for s in src)), promote(*(s.dtype for s in src))


def _einsum_gradient(g: Node, y: Node, *src_at: Any) -> tuple[Node, ...]:
    *x, spec = src_at
    inputs, _, out = spec.partition("->")
    letters = inputs.split(",")
    grads = []
    for i, wanted in enumerate(letters):
        others = [out, *letters[:i], *letters[i + 1 :]]
        reached = "".join(c for c in wanted if any(c in o for o in others))
        part = einsum(",".join(others) + "->" + reached, g, *x[:i], *x[i + 1 :])
        lost = [j for j, c in enumerate(wanted) if c not in reached]  # summed inside this operand alone
        shape = tuple(1 if j in lost else n for j, n in enumerate(x[i].shape))
        grads.append(broadcast_to(reshape(part, shape), x[i].shape))
    return tuple(grads)


def _einsum_flops(node: Node) -> int:
    sizes = {c: n for part, s in zip(spec_of(node).partition("->")[0].split(","), node.src, strict=True)
             for c, n in zip(part, s.shape, strict=True)}
    return len(node.src) * prod(sizes.values())


EINSUM = register(Op("einsum", _contraction, PRIMITIVE, _einsum_gradient,
                     "multilinear", "einsum", _einsum_flops, traits=Trait.ADDS))


def einsum(spec: str, *x: Node) -> Node:
    """A sum of products in Einstein's notation, with an explicit or implied output.

    `...` stands for further axes, which broadcast; a letter that an operand has twice takes its diagonal.
    """
    letters, out, stretched = _letters(spec, x)
    if set(out) - set("".join(letters)):
        raise ShapeError(f"einsum {spec!r}: output letters {sorted(set(out) - set(''.join(letters)))} are in no operand")
    if len(set(out)) < len(out):
        raise ShapeError(f"einsum {spec!r}: a letter may stand once in the output")
    sizes = shapes.einsum_sizes(spec, letters, [n.shape for n in x], stretched)
    dtype = promote(*(n.dtype for n in x))
    parts = [_one_of_each(part, astype(n, dtype), sizes) for part, n in zip(letters, x, strict=True)]
    if dtype.kind == "f" and all(part == parts[0][0] for part, _ in parts):  # no contraction: a sum of products entry by entry
        return _summed(parts[0][0], out, reduce(lambda a, b: a * b, [n for _, n in parts]))
    return apply(EINSUM, tuple(n for _, n in parts), (",".join(part for part, _ in parts) + f"->{out}",))


def _summed(letters: str, out: str, x: Node) -> Node:
    """The sum over the letters that are not in the output, the others in its order."""
    kept = [c for c in letters if c in out]
    return transpose(sum_(x, [i for i, c in enumerate(letters) if c not in out]), [kept.index(c) for c in out])


def _letters(spec: str, x: Sequence[Node]) -> tuple[list[str], str, str]:
    """The letters of every operand and of the output, and the letters of their own that the axes of `...` get."""
    inputs, arrow, out = spec.replace(" ", "").partition("->")
    letters = inputs.split(",")
    plain = (inputs + out).replace("...", "").replace(",", "")
    if not all(c.isascii() and c.isalpha() for c in plain) or len(letters) != len(x):
        raise ShapeError(f"einsum {spec!r}: expected one group of letters (and at most one ...) for each of the {len(x)} "
                         "operands")
    spare = [c for c in string.ascii_letters if c not in plain]
    rest = [n.ndim - len(part.replace("...", "")) if "..." in part else 0 for part, n in zip(letters, x, strict=True)]
    if min(rest) < 0 or max(rest) > len(spare):
        raise ShapeError(f"einsum {spec!r}: the operands have shapes {', '.join(shapes.show(n.shape) for n in x)}")
    shared = spare[: max(rest)]
    letters = [part.replace("...", "".join(shared[len(shared) - k :])) for part, k in zip(letters, rest, strict=True)]
    if not arrow:
        inner = "".join(letters)
        out = "..." + "".join(sorted(c for c in set(plain) if inner.count(c) == 1))
    return letters, out.replace("...", "".join(shared)), "".join(shared)


def _one_of_each(letters: str, x: Node, sizes: Mapping[str, int]) -> tuple[str, Node]:
    """An operand without repeated letters (their diagonal) and without axes of size 1 where others are longer."""
    for k in reversed([i for i, c in enumerate(letters) if c in letters[:i]]):
        first, n = letters.index(letters[k]), x.shape[k]
        rows, columns = (reshape(iota(n), tuple(n if i == at else 1 for i in range(x.ndim))) for at in (first, k))
        x = sum_(where(equal(rows, columns), x, full(0, (), x.dtype)), k)
        letters = letters[:k] + letters[k + 1 :]
    single = [i for i, c in enumerate(letters) if x.shape[i] == 1 != sizes[c]]
    return "".join(c for i, c in enumerate(letters) if i not in single), sum_(x, single) if single else x


def outer(a: Node, b: Node) -> Node:
    """`y[..., i, j] = a[..., i] b[..., j]`."""
    if not a.shape or not b.shape:
        raise ShapeError(f"outer needs vectors, got {shapes.show(a.shape)} and {shapes.show(b.shape)}")
    return reshape(a, (*a.shape, 1)) * reshape(b, (*b.shape[:-1], 1, b.shape[-1]))


# ---- attributes by name
axes_of: Callable[[Node], tuple[int, ...]] = attribute(0)    # of a sum, amax, amin
runs_forward: Callable[[Node], bool] = attribute(0)          # of accumulate: whether the first rows come first
keeps_axes: Callable[[Node], bool] = attribute(1)            # of the same: whether the axes stay, with size 1
order_of: Callable[[Node], tuple[int, ...]] = attribute(0)   # of a transpose
spec_of: Callable[[Node], str] = attribute(0)                # of an einsum
