"""The tensor a user holds: a node, and the value it has once somebody asks for it.

Building an expression computes nothing.  A tensor's value is that of its expression when it is first evaluated, and
it keeps it.  Parameters change by `assign` alone; a tensor that was not evaluated before such a change has lost the
data it was built on, and says so (`StaleError`) instead of quietly using the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import prod
from typing import Any, Union, cast

import numpy as np
import numpy.typing as npt

from ..backends import copy_on_gpu, evaluate, is_device, made_on_gpu, mirror, on_gpu, on_host, taken
from ..cells.from_function import Symbol
from ..errors import ArgumentError, DTypeError, ShapeError, StaleError, SymbolicError
from ..ir.node import OPERATORS, Node, walk
from ..ir.ops import elementwise as e
from ..ir.ops import reduce as r
from ..ir.ops.leaves import ARG, HOLE, INPUT, LEAF, Box, box_of, boxed, dtype_of, input_name, leaf, recast
from ..ir.ops.linear import reshape, sum_, transpose
from ..ir.ops.structure import getitem
from ..operators import Operators
from ..passes.ad.derivatives import grad
from ..shapes import Shape, show
from ..sizes import AnySize, ReadShape, is_symbolic
from .tracing import as_graphs, current

TensorLike = Union["Tensor", npt.NDArray[Any], Sequence[Any], float]

_clock = count(1)
_now = 0


class Tensor(Operators):
    """An immutable array, computed when it is asked for.

    Shapes are broadcast as in NumPy. Raises `SymbolicError` where a value is asked for that depends on an input, `ShapeError`
    and `DTypeError` for operands that do not fit, `StaleError` where data changed since it was computed.

    >>> import tinyrnn as tr
    >>> x = tr.tensor([[1.0, 2.0]], name="x")
    >>> y = (x * 3).sum()
    >>> float(y), y.shape, y.dtype
    (9.0, (), dtype('float64'))
    """

    __slots__ = ("__weakref__", "_born", "_owner", "_value", "node")
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(self, node: Node, owner: bool = False) -> None:
        self.node = node
        self._owner = owner  # of a leaf's data: what is assigned while a function is traced is read through it
        self._born = _now
        self._value: Any = None

    # ---- what it is

    @property
    def shape(self) -> Shape:
        """Numbers; a compiled function that looks at one is traced anew where it is another."""
        shape = self.node.shape
        return cast(Shape, ReadShape(shape)) if is_symbolic(shape) else shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return self.node.ndim

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def name(self) -> str | None:
        return self._box.name if self.is_leaf else None

    @property
    def is_leaf(self) -> bool:
        """Whether this holds data of its own."""
        return self.node.op is LEAF

    @property
    def trainable(self) -> bool:
        """Whether training changes this leaf; setting it to False freezes a parameter.  A compiled function that looks is
        traced anew when it changes."""
        if not self.is_leaf:
            return False
        trace = current()
        if trace is not None:
            trace.guards.append((self._box, "trainable", self._box.trainable))
        return self._box.trainable

    @trainable.setter
    def trainable(self, wanted: bool) -> None:
        if not isinstance(wanted, (bool, np.bool_)):
            raise ArgumentError(f"trainable={wanted!r}: expected True or False")
        box = self._box
        box.trainable, box.parameter = bool(wanted), box.parameter or bool(wanted)

    @property
    def parameter(self) -> bool:
        """Whether this was made to be trained, frozen or not."""
        return self.is_leaf and self._box.parameter

    @property
    def _box(self) -> Box:
        if not self.is_leaf:
            raise ArgumentError("only a tensor that holds data (tr.tensor, tr.parameter) has this, not a computed one")
        box: Box = box_of(self.node)
        return box

    # ---- its value

    def numpy(self) -> npt.NDArray[Any]:
        """The value as an array of its own."""
        return on_host(self.held()).copy()

    def held(self) -> Any:
        """The value itself, where it is: an array of NumPy, or of CuPy for what lives on a GPU; not to be written to."""
        if self.is_leaf:
            box = self._box
            return on_gpu(box) if box.home == "cuda" else box.data
        if self._value is None:
            self._require_value()
            self._keep(evaluate([self.node])[0])
        return self._value.here() if hasattr(self._value, "here") else self._value

    def _keep(self, value: object) -> None:
        """What was computed: on a GPU with the moment, so that another stream waits for it."""
        self._value = made_on_gpu(value) if is_device(value) else value

    @property
    def backend(self) -> str:
        """What evaluates expressions of this tensor: numpy, or cuda where a leaf of it lives on a GPU."""
        return "cuda" if any(box_of(n).home == "cuda" for n in walk([self.node]) if n.op is LEAF) else "numpy"

    def _require_value(self) -> None:
        for n in walk([self.node]):
            if n.op in (INPUT, ARG, HOLE):
                what = f"input {input_name(n)!r}" if n.op is INPUT else "a value that exists only while a function is traced"
                if current() is not None:
                    raise SymbolicError(f"this tensor of shape {show(self.shape)} depends on {what}, and while a function is "
                                        "traced its arguments have no values: use tr.where instead of if, tr.scan instead of a "
                                        "loop over entries, tr.grad instead of backward, and tuples or numbers for shapes")
                raise SymbolicError(f"this tensor of shape {show(self.shape)} depends on {what} and has no value; "
                                    "use tr.Graph({'y': y}).run({...}), or tr.where instead of if")
        self._check_fresh("evaluated")

    def _check_fresh(self, use: str) -> None:
        if self._born == _now or self.is_leaf:
            return
        for n in walk([self.node]):
            if n.op is LEAF and box_of(n).version > self._born:
                kept = self._value is not None
                raise StaleError(
                    f"{box_of(n).name or 'a leaf'} was assigned after this tensor of shape {show(self.shape)} was built"
                    + (f", so it cannot be {use}; compute it again, or use tr.tensor(t.numpy()) for its old value"
                       if kept else f" and before it was evaluated; it cannot be {use}. Evaluate it before the update "
                       "(float(loss), loss.backward()), or compute it again"))
        self._born = _now

    def source(self) -> Node:
        """The node, for use in a new expression."""
        trace = current()
        if trace is not None and self._owner and self.node in trace.updates:
            return trace.updates[self.node]
        self._check_fresh("used in a new expression")
        return self.node

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a tensor hands out copies of its data only")
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self._own().__dlpack__(**options)

    def _own(self) -> Any:
        """The value as nobody else will change it: the data of leaves change under assign, and NumPy's are writable."""
        if self.is_leaf:
            return copy_on_gpu(self._box) if self._box.home == "cuda" else self._box.data.copy()
        value = self.held()
        return value if is_device(value) else value.copy()

    def __dlpack_device__(self) -> Any:
        return self.held().__dlpack_device__()

    def item(self) -> Any:
        """The value of a tensor with one entry as a Python number."""
        if not self.is_leaf and self._value is None:
            self._require_value()
        if self.size != 1:
            raise ShapeError(f"item() needs one entry, the shape is {show(self.shape)}")
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"an index needs an integer, got {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a scalar has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.is_leaf:
            self._require_value()
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        what = (self.name or "data") if self.is_leaf else self.node.op.name
        value = self._box.data if self.is_leaf else None if self._value is None else self.held()
        shown = "" if value is None else ", " + np.array2string(on_host(value), threshold=8, separator=", ")
        return f"Tensor({self.dtype}{show(self.shape)}, {what}{shown})"

    # ---- leaves

    @property
    def grad(self) -> npt.NDArray[Any] | None:
        """What `backward` has accumulated; None before."""
        return self._box.grad

    def zero_grad(self) -> None:
        """Forget the accumulated gradient."""
        self._box.grad = None

    def assign(self, value: TensorLike) -> None:
        """Give a leaf new data of the same shape; the only way data change.

        While a function is traced by `tr.compile`, the leaf gets the value in every call of the function.
        """
        _, trace = self._box, current()
        if trace is not None:
            trace.updates[self.node] = self._new_value(as_tensor(value)).source()
            return
        array = value.numpy() if isinstance(value, Tensor) else on_host(value)
        self._new_value(array)
        give({self.node: np.array(array, self.dtype)})

    def _new_value(self, value: Any) -> Any:
        """A value that this leaf may be given, in its dtype where that is an expression."""
        box = self._box
        if value.shape != self.shape:
            raise ShapeError(f"{box.name or 'the leaf'} has shape {show(self.shape)}, "
                             f"it cannot be assigned shape {show(value.shape)}")
        if not np.can_cast(value.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"{box.name or 'the leaf'} is {self.dtype}, it cannot be assigned {value.dtype}")
        return value.astype(self.dtype) if isinstance(value, Tensor) and value.dtype != self.dtype else value

    def backward(self) -> None:
        """Evaluate this scalar and add its gradient to `.grad` of every parameter it depends on."""
        self._require_value()
        leaves = [n for n in walk([self.node]) if n.op is LEAF and box_of(n).trainable]
        if not leaves:
            raise ArgumentError("backward: no parameter (tr.parameter) is part of this tensor")
        value, *found = evaluate([self.node, *grad(self.node, leaves)])
        self._keep(value)
        for n, g in zip(leaves, map(on_host, found), strict=True):
            box = box_of(n)
            box.grad = g if box.grad is None else box.grad + g

    def detach(self) -> Tensor:
        """The value as data of its own: no gradient and no history behind it."""
        return as_tensor(self._own() if self.is_leaf else self.held(), backend=self.backend)

    @property
    def symbolic(self) -> bool:
        """Whether this depends on a placeholder and has no value."""
        return any(n.op in (INPUT, ARG, HOLE) for n in walk([self.node]))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            return Tensor(self.node)
        box = self._box
        if id(box) not in memo:
            memo[id(box)] = recast(self.node, self.dtype)
        return Tensor(memo[id(box)], owner=True)

    def __copy__(self) -> Tensor:
        return Tensor(self.node, self._owner)

    def __reduce__(self) -> Any:
        """A leaf is pickled with its data, its name and whether it is trained; what is computed, as its value."""
        return (Tensor, (self.node, self._owner)) if self.is_leaf else (as_tensor, (self.numpy(),))

    # ---- operators

    def __setitem__(self, key: object, value: object) -> None:
        raise ArgumentError("tensors do not change: use tr.where(mask, new, old), tr.concat, or assign on a leaf")

    def __getitem__(self, key: object) -> Tensor:
        if isinstance(key, Tensor):
            key = key.source()
        elif isinstance(key, (np.ndarray, list)):
            key = as_tensor(on_host(key)).node
        return Tensor(getitem(self.source(), key))

    def operate(self, op: str, *operands: object) -> Tensor:
        """An op on tensors and numbers; Python numbers stay numbers, so that they take the other's dtype."""
        if any(isinstance(x, Symbol) for x in operands):
            return NotImplemented  # type: ignore[no-any-return]  # a cell is traced: the symbol takes the number
        return Tensor(OPERATORS[op](*map(operand, operands)))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self.operate("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self.operate("not_equal", self, other)

    # ---- the functions people look for on the tensor itself

    @property
    def T(self) -> Tensor:  # noqa: N802  (NumPy's name)
        """The axes in reverse order."""
        return Tensor(transpose(self.source()))

    def transpose(self, *order: Any) -> Tensor:
        axes = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
        return Tensor(transpose(self.source(), axes or None))

    def reshape(self, *shape: Any) -> Tensor:
        to = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return Tensor(reshape(self.source(), to))

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        return Tensor(e.astype(self.source(), dtype))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return Tensor(sum_(self.source(), axis, keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return Tensor(r.mean(self.source(), axis, keepdims))

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return Tensor(r.amax(self.source(), axis, keepdims))

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return Tensor(r.amin(self.source(), axis, keepdims))

    def argmax(self, axis: int = -1) -> Tensor:
        return Tensor(r.argmax(self.source(), axis))


def give(data: Mapping[Node, npt.NDArray[Any]]) -> None:
    """New data for leaves, whose owners the arrays become."""
    global _now
    _now = next(_clock)
    for leaf_node, array in data.items():
        box = box_of(leaf_node)
        box.data, box.version = np.asarray(array, order="C"), _now
        box.data.flags.writeable = False  # data change only by assign


def changed(leaves: Iterable[Node]) -> None:
    """Leaves got new data where they are."""
    global _now
    _now = next(_clock)
    for leaf_node in leaves:
        box_of(leaf_node).version = _now


def detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors evaluated together, as data of their own; as they are while a function is traced."""
    if as_graphs() or any(t.symbolic for t in tensors):
        return list(tensors)
    return [as_tensor(v, backend="cuda" if is_device(v) else "numpy") for v in evaluate([t.source() for t in tensors])]


def operand(value: object) -> Any:
    """What a builder takes: a node, or a Python number as it is."""
    if isinstance(value, Tensor):
        return value.source()
    return value if type(value) in (bool, int, float, complex, AnySize) else as_tensor(value).node


def as_tensor(value: object, dtype: npt.DTypeLike | None = None, name: str | None = None,
              trainable: bool = False, backend: str = "numpy") -> Tensor:
    """Data as a leaf; a tensor as itself.  With backend="cuda" the data live on the GPU."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Node):
        return Tensor(value)
    if backend == "cuda" and is_device(value) and dtype in (None, taken(value).dtype):
        return _there(taken(value), name, trainable)
    try:
        array = on_host(value)
    except ArgumentError:
        raise
    except ValueError:
        raise DTypeError("a tensor is a full array of numbers; rows of different lengths need padding and lengths=") from None
    if array.dtype.kind == "O" or array.dtype.kind not in "fcbiu":
        raise DTypeError(f"a tensor holds numbers, got {type(value).__name__} of {array.dtype}; "
                         "ragged lists need padding and lengths")
    if dtype is None and not hasattr(value, "dtype") and array.dtype.kind in "iu":
        dtype = np.float64
    d = dtype_of(array.dtype if dtype is None else dtype)
    if array.dtype.kind == "c" and d.kind != "c":
        raise DTypeError(f"{array.dtype} data do not fit into {d}: the imaginary part would be lost")
    made = Tensor(leaf(np.array(array, d, order="C"), name, trainable), owner=True)
    if backend == "cuda":
        box_of(made.node).home = backend
        on_gpu(box_of(made.node))
    return made


def extents(x: TensorLike) -> Shape:
    """The shape of a tensor or an array as our own functions read it: without asking which numbers the sizes are."""
    return x.node.shape if isinstance(x, Tensor) else np.shape(x)


def _there(array: Any, name: str | None, trainable: bool) -> Tensor:
    """An array of the GPU as a leaf; a parameter gets a copy, since it will be written to."""
    box = Box(None, name, trainable, mirror(array, own=trainable))
    box.home = "cuda"
    return Tensor(boxed(box, array.shape, array.dtype), owner=True)

