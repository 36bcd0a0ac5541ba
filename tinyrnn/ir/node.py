"""Immutable, interned nodes: equal structure is the same object.  Every walk is iterative."""

from __future__ import annotations

import gc
import os
import struct
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import DTypeError, SymbolicError
from ..operators import Operators
from ..shapes import Shape, show
from .op import Op

DType = np.dtype[Any]
Builder = Callable[..., "Node"]
FLOATING = "fc"  # dtype kinds through which derivatives flow

OPERATORS: dict[str, Callable[..., Any]] = {}  # filled by `ops/*.py`: node.py never imports ops


class Node(Operators):
    """The result of one operation: what to do (`op`, `at`) with which nodes (`src`), and its shape and dtype."""

    __slots__ = ("__weakref__", "at", "dtype", "op", "shape", "src")
    __array_ufunc__ = None

    op: Op
    src: tuple[Node, ...]
    at: tuple[Any, ...]
    shape: Shape
    dtype: DType

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def floating(self) -> bool:
        return self.dtype.kind in FLOATING

    def operate(self, op: str, *operands: object) -> Node:
        """The builder of an op applied to nodes and numbers."""
        result: Node = OPERATORS[op](*operands)
        return result

    def __getitem__(self, key: object) -> Node:
        return self.operate("getitem", self, key)

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self

    def __bool__(self) -> bool:
        raise SymbolicError(f"{self!r} has no truth value before it is evaluated; use where(condition, a, b)")

    def __iter__(self) -> Any:
        raise SymbolicError(f"{self!r} cannot be iterated; index it, x[i], or use split(x, n)")

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.dtype}{show(self.shape)}>"


# ---- interning: plain weak references without callbacks; dead entries are swept when the table has doubled

_table: dict[tuple[Any, ...], weakref.ref[Node]] = {}
LOCK = threading.RLock()  # of the tables of nodes and bodies: graphs may be built in several threads at once
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
_START = 1 << 16
_limit = _START


def intern(op: Op, src: tuple[Node, ...], at: tuple[Any, ...], shape: Shape, dtype: DType) -> Node:
    """The one node with this operation, sources and attributes."""
    key = (op, at, *map(id, src))
    reference = _table.get(key)
    node = None if reference is None else reference()
    return _enter(key, op, src, at, shape, dtype) if node is None else node


def _enter(key: tuple[Any, ...], op: Op, src: tuple[Node, ...], at: tuple[Any, ...], shape: Shape, dtype: DType) -> Node:
    """A new node in the table, unless another thread was faster."""
    with LOCK:
        reference = _table.get(key)
        node = None if reference is None else reference()
        if node is None:
            node = fresh(op, src, at, shape, dtype)
            _table[key] = weakref.ref(node)
            if len(_table) > _limit:
                _sweep()
        return node


def fresh(op: Op, src: tuple[Node, ...], at: tuple[Any, ...], shape: Shape, dtype: DType) -> Node:
    """A node outside the table (leaves, whose attribute is an identity of its own)."""
    node = object.__new__(Node)
    node.op, node.src, node.at, node.shape, node.dtype = op, src, at, shape, dtype
    return node


def _sweep() -> None:
    global _limit
    alive = {key: ref for key, ref in _table.items() if ref() is not None}
    _table.clear()
    _table.update(alive)
    _limit = max(_START, 2 * len(_table))


def apply(op: Op, src: tuple[Node, ...], at: tuple[Any, ...] = ()) -> Node:
    """Build a node the way its op wants it: simplified where the op knows how, interned otherwise."""
    if op.simplify is not None:
        simpler: Node | None = op.simplify(src, at)
        if simpler is not None:
            return simpler
    shape, dtype = op.infer(*src, *at)
    return intern(op, src, at, shape, dtype)


def attribute(position: int) -> Callable[[Node], Any]:
    """What a node was given beside its sources, for ops to name."""
    return lambda node: node.at[position]


# ---- literal attributes

class Bits(float):
    """A float attribute compared by its bits: 0.0 is not -0.0, and nan equals itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and struct.pack("d", self) == struct.pack("d", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(struct.pack("d", self))


Scalar = bool | int | float | complex


def promote(*dtypes: DType) -> DType:
    """NumPy's common dtype."""
    first = dtypes[0]
    return first if all(d is first for d in dtypes) else np.result_type(*dtypes)


def weak(value: Scalar, dtype: DType) -> DType:
    """The dtype a Python number takes beside `dtype` (NEP 50)."""
    if dtype.kind == "f" and not isinstance(value, complex):
        return dtype
    try:
        return np.result_type(dtype, value)
    except (OverflowError, TypeError) as error:
        raise DTypeError(f"the number {value!r} has no place beside dtype {dtype}") from error


@contextmanager
def without_collector() -> Iterator[None]:
    """Python's cycle collector paused while many nodes are made: they hold no cycles, and it would walk them all, again
    and again, which makes building quadratic."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# ---- walks

def walk(outputs: Iterable[Node], known: Collection[Node] = ()) -> list[Node]:
    """All nodes that `outputs` need, sources first; `known` nodes are taken as given."""
    order: list[Node] = []
    seen = set(known)
    stack: list[Node | None] = [*outputs]
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None:
            done = stack.pop()
            assert done is not None
            order.append(done)
        elif node not in seen:
            seen.add(node)
            if node.src:
                stack += (node, None)
                stack.extend(s for s in reversed(node.src) if s not in seen)
            else:
                order.append(node)
    return order


def rebuild(order: Iterable[Node], new: dict[Node, Node]) -> dict[Node, Node]:
    """Extend `new` (old -> new) over `order`; what does not change stays the same object."""
    for node in order:
        if node in new:
            continue
        src = tuple([new.get(s, s) for s in node.src])
        new[node] = node if src == node.src else apply(node.op, src, node.at)
    return new
