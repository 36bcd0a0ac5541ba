"""Nodes without sources: numbers, inputs, boxes of data, and the arguments of a closed body."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from itertools import count
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import ArgumentError, DTypeError
from ...shapes import Shape
from ...sizes import AnySize, Number
from ..node import Bits, DType, Node, Scalar, attribute, fresh, intern, weak
from ..op import PRIMITIVE, Op, Trait, register


def _given(*at: Any) -> tuple[Shape, DType]:
    return at[-2], at[-1]


FULL = register(Op("full", _given, PRIMITIVE, None, "leaf", "const", traits=Trait.CHEAP))
LITERAL = register(Op("literal", _given, lambda m, bits, shape, dtype: m.enter(bits.array, dtype), None, "leaf", "const",
                      traits=Trait.CHEAP))
SIZE = register(Op("size", _given, None, None, "leaf", "size", traits=Trait.CHEAP))
IOTA = register(Op("iota", _given, lambda m, shape, dtype: m.xp.arange(shape[0], dtype=dtype), None, "leaf", "0,1,2,…",
                   traits=Trait.CHEAP))
INPUT = register(Op("input", _given, None, None, "leaf", "input"))
LEAF = register(Op("leaf", _given, None, None, "leaf", "leaf"))
ARG = register(Op("arg", _given, None, None, "leaf", "arg"))
HOLE = register(Op("hole", _given, None, None, "leaf", "hole"))

_KINDS = "fcbiu"


def dtype_of(spec: npt.DTypeLike) -> DType:
    """A dtype that tinyrnn computes with, in native byte order."""
    try:
        dtype = np.dtype(spec).newbyteorder("=")
    except TypeError:
        raise DTypeError(f"{spec!r} is not a dtype; use 'float32', 'float64', 'int64' or 'bool'") from None
    if dtype.kind not in _KINDS or dtype.itemsize > 16:
        raise DTypeError(f"dtype {dtype} is not a number tinyrnn computes with; "
                         "use float32, float64, complex128, an integer type or bool")
    return dtype


def full(value: Scalar, shape: Shape, dtype: npt.DTypeLike) -> Node:
    """A tensor with the same number everywhere."""
    d = dtype_of(dtype)
    if isinstance(value, complex):
        return constant(np.full(shape, value, d))
    try:
        kept = Bits(value) if d.kind in "fc" else d.type(value).item()
    except OverflowError as error:
        raise DTypeError(f"the number {value!r} has no place in {d}") from error
    return intern(FULL, (), (kept, shape, d), shape, d)


def number_of(size: Number, dtype: npt.DTypeLike) -> Node:
    """A size as a number."""
    if not isinstance(size, AnySize):
        return full(size, (), dtype)
    d = dtype_of(dtype)
    return intern(SIZE, (), (size, (), d), (), d)


def zeros_like(node: Node) -> Node:
    return full(0, node.shape, node.dtype)


class Array:
    """An array attribute, hashed and compared by its bytes."""

    __slots__ = ("_key", "array")

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = np.array(array, dtype=dtype_of(array.dtype), order="C")
        self.array.flags.writeable = False
        self._key = (self.array.tobytes(), self.array.shape, self.array.dtype.str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"array{self.array.shape}"


def constant(array: npt.ArrayLike) -> Node:
    """An array that is part of the graph's structure."""
    bits = Array(np.asarray(array))
    if bits.array.ndim == 0 and bits.array.dtype.kind != "c":
        return full(bits.array.item(), (), bits.array.dtype)
    return intern(LITERAL, (), (bits, bits.array.shape, bits.array.dtype), bits.array.shape, bits.array.dtype)


def iota(n: int, dtype: npt.DTypeLike = np.int64) -> Node:
    """0, 1, ..., n - 1."""
    d = dtype_of(dtype)
    return intern(IOTA, (), ((n,), d), (n,), d)


def input_node(name: str, shape: Shape, dtype: npt.DTypeLike = np.float64) -> Node:
    """A placeholder that gets its value from the dict given to `run`."""
    d = dtype_of(dtype)
    return intern(INPUT, (), (name, shape, d), shape, d)


class Mirror(Protocol):
    """A place other than the host where the data of a leaf are."""

    array: Any

    def fetch(self) -> npt.NDArray[Any]:
        """The data on the host."""


_ticks, _changed = count(1), [0]


def changes() -> int:
    """A number that is another one after the data of any leaf have changed, in whatever thread."""
    return _changed[0]


class Box:
    """What a leaf refers to: data, an accumulated gradient, a name, and when the data were last assigned.

    The data are on the host, or in a mirror elsewhere, or in both: `mirrored` says that the mirror is current, and data
    that are on the host no more are fetched when somebody reads them.  `home` is the backend that evaluates expressions
    of the leaf.
    """

    __slots__ = ("_data", "grad", "home", "mirror", "mirrored", "name", "parameter", "still", "trainable", "version")

    def __init__(self, data: npt.NDArray[Any] | None, name: str | None, trainable: bool, mirror: Mirror | None = None) -> None:
        self._data, self.name, self.trainable = data, name, trainable
        self.parameter = trainable              # made to be trained, whether it is frozen now or not
        self.still: int | None = None           # a row that no update moves
        self.grad: npt.NDArray[Any] | None = None
        self.mirror: Any = mirror
        self.mirrored = mirror is not None
        self.home = "numpy"
        self.version = 0

    @property
    def data(self) -> npt.NDArray[Any]:
        if self._data is None:
            self._data = self.mirror.fetch()
            self._data.flags.writeable = False
        return self._data

    @data.setter
    def data(self, array: npt.NDArray[Any]) -> None:
        self._data, self.mirrored = array, False
        _changed[0] = next(_ticks)

    def moved(self) -> None:
        """The mirror holds new data."""
        self._data, self.mirrored = None, True
        _changed[0] = next(_ticks)

    def __reduce__(self) -> Any:
        """Data arrive on the host, whatever device held them."""
        return _arrived, (np.array(self.data), self.name, self.parameter, self.trainable, self.still, self.grad)


def _arrived(data: npt.NDArray[Any], name: str | None, parameter: bool, trainable: bool, still: int | None,
             grad: npt.NDArray[Any] | None) -> Box:
    """A box as it was when it was pickled."""
    data.flags.writeable = False
    box = Box(data, name, parameter)
    box.trainable, box.still, box.grad = trainable, still, grad
    return box


def leaf(data: npt.NDArray[Any], name: str | None = None, trainable: bool = False) -> Node:
    """A node that reads its box whenever it is evaluated; two leaves are never the same node."""
    return boxed(Box(data, name, trainable), data.shape, data.dtype)


def boxed(box: Box, shape: Shape, dtype: npt.DTypeLike) -> Node:
    """The leaf of a box."""
    d = dtype_of(dtype)
    return fresh(LEAF, (), (box, shape, d), shape, d)


def recast(node: Node, dtype: npt.DTypeLike) -> Node:
    """A leaf of its own that is like another one, in another dtype."""
    old = box_of(node)
    box = _arrived(old.data.astype(dtype), old.name, old.parameter, old.trainable, old.still, None)
    box.home = old.home
    return boxed(box, node.shape, dtype)


def _pickled(node: Node) -> Any:
    """Leaves are pickled with their data, other nodes not: they are made by tracing."""
    if node.op is not LEAF:
        raise ArgumentError(f"{node!r} is part of an expression, which is not pickled: pickle the function or the model that "
                            "makes it, or its value, t.numpy()")
    return boxed, (box_of(node), node.shape, node.dtype)


copyreg.pickle(Node, _pickled)


def arg(index: int, like: Node) -> Node:
    """Argument number `index` of a closed body."""
    return intern(ARG, (), (index, like.shape, like.dtype), like.shape, like.dtype)


_holes = count()


def hole(shape: Shape, dtype: DType) -> Node:
    """A stand-in that is unlike every other node, replaced before a body is closed."""
    return fresh(HOLE, (), (next(_holes), shape, dtype), shape, dtype)


def number(value: Scalar, beside: Node) -> Node:
    """A Python number with the dtype it takes beside another operand."""
    return full(value, (), weak(value, beside.dtype))


def pair(a: Any, b: Any) -> tuple[Node, Node]:
    """Two operands of which at least one is a node."""
    if isinstance(a, Node):
        return a, b if isinstance(b, Node) else lift(b, a)
    return lift(a, b), b


def lift(value: Any, beside: Node) -> Node:
    """A Python number or an array as a node."""
    if type(value) in (bool, int, float, complex):
        return number(value, beside)
    if isinstance(value, AnySize):
        return number_of(value, weak(1, beside.dtype))
    return constant(value)


def literal_value(node: Node) -> Scalar | None:
    """The number that fills a `full` node, else None."""
    return filled(node) if node.op is FULL else None


def is_number(node: Node, value: float) -> bool:
    """Whether every entry of this node is known to be `value` (0 is not -0)."""
    return node.op is FULL and node.dtype.kind != "b" and Bits(filled(node)) == Bits(value)


def size(node: Node) -> int:
    """How many numbers the node holds."""
    return prod(node.shape)


# ---- attributes by name
box_of: Callable[[Node], Box] = attribute(0)       # of a leaf
input_name: Callable[[Node], str] = attribute(0)
index_of: Callable[[Node], int] = attribute(0)     # which argument an `arg` is, which entry a `take` takes or a `put` puts
filled: Callable[[Node], float] = attribute(0)     # the number of a `full` node
