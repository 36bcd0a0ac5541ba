"""Functions of tensors.  Each builds a graph; nothing is computed before somebody asks for the value."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..backends import Backend, check_backend
from ..cells.from_function import Symbol
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functions import FUNCTIONS
from ..ir.node import Node
from ..ir.ops import elementwise as e
from ..ir.ops import linear, structure
from ..ir.ops import reduce as r
from ..ir.ops.leaves import input_node
from ..shapes import show
from .tensor import Tensor, TensorLike, as_tensor, operand

Axis = int | Iterable[int] | None


# ---- leaves and placeholders

def tensor(data: object, name: str | None = None, dtype: npt.DTypeLike | None = None, *, backend: str = "numpy") -> Tensor:
    """A leaf that holds data.  Lists and Python numbers become float64, arrays keep their dtype.

    With backend="cuda" the data live on the GPU, and so does what is computed from them; an array that is there already
    (of CuPy, of PyTorch: whatever speaks DLPack) is taken as it is, without a copy.  Raises `BackendError` without a GPU.

    Of the shape of the data. Raises `DTypeError` for what is no array of numbers.

    >>> import tinyrnn as tr
    >>> tr.tensor([[1, 2]]).dtype
    dtype('float64')
    """
    return _leaf(data, dtype, name, False, backend)


def parameter(data: object, name: str | None = None, dtype: npt.DTypeLike | None = None, *, backend: str = "numpy") -> Tensor:
    """A leaf that is trained: `backward` accumulates its gradient, optimisers update it.  `backend` as in `tensor`.

    Of the shape of the data. Raises `DTypeError` for numbers that are not floating.

    >>> import tinyrnn as tr
    >>> W = tr.parameter([2.0, 3.0], name="W")
    >>> (W * W).sum().backward()
    >>> W.grad
    array([4., 6.])
    """
    leaf = _leaf(data, dtype, name, True, backend)
    if leaf.dtype.kind not in "fc":
        raise DTypeError(f"a parameter holds floating-point numbers, got {leaf.dtype}; give dtype='float32'")
    return leaf


def _leaf(data: object, dtype: Any, name: str | None, trainable: bool, backend: str) -> Tensor:
    if check_backend(backend) != Backend(backend):
        raise ArgumentError(f"backend={backend!r}: a tensor lives on 'numpy' or 'cuda'; how products are computed is said "
                            "where they are, as in tr.compile(f, backend='cuda:tf32')")
    home = "cuda" if backend == "cuda" else "numpy"
    return as_tensor(data.detach().held() if isinstance(data, Tensor) else data, dtype, name, trainable, home)


def input(name: str, shape: Sequence[int], dtype: npt.DTypeLike = np.float64) -> Tensor:
    """A placeholder that gets its value from the dict given to `Graph.run`.

    Raises `ShapeError` for negative sizes, `DTypeError` for what is no dtype of numbers.

    >>> import tinyrnn as tr
    >>> x = tr.input("x", (2,))
    >>> tr.Graph({"y": x * 2}).run({"x": [1.0, 2.0]})["y"]
    array([2., 4.])
    """
    sizes = tuple(int(n) for n in shape)
    if builtins.min(sizes, default=0) < 0:
        raise ShapeError(f"input {name!r}: sizes are not negative, got {show(sizes)}")
    return Tensor(input_node(str(name), sizes, dtype))


# ---- elementwise

def traced_call(symbol: Symbol, name: str, args: Sequence[Any]) -> Tensor:
    """While a cell's function is traced, its symbols stand where tensors are expected."""
    return cast(Tensor, symbol.call(name, args))


def _unary(build: Callable[..., Node], name: str, x: TensorLike, *at: object) -> Tensor:
    if isinstance(x, Symbol):
        return traced_call(x, name, (x, *at))
    return Tensor(build(as_tensor(x).source(), *at))


def _binary(build: Callable[..., Node], name: str, a: object, b: object) -> Tensor:
    for x in (a, b):
        if isinstance(x, Symbol):
            return traced_call(x, name, (a, b))
    a = a if isinstance(a, Tensor) or isinstance(b, Tensor) else as_tensor(a)
    return Tensor(build(operand(a), operand(b)))


class Entrywise(Protocol):
    """A function of one or two tensors, entry by entry."""

    __name__: str

    def __call__(self, *x: TensorLike) -> Tensor: ...


@cache
def entrywise(name: str) -> Entrywise:
    """The function of tensors that an op, or a composition of ops, declares with its words."""
    f = FUNCTIONS[name]

    def of_one(x: TensorLike) -> Tensor:
        return _unary(f.build, name, x)

    def of_two(a: TensorLike, b: TensorLike) -> Tensor:
        return _binary(f.build, name, a, b)

    function: Any = of_one if f.operands == 1 else of_two
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f.docstring
    return cast(Entrywise, function)


# Names for tools that read and do not run; `tr.<name>` finds every other declared function as well.
exp = entrywise("exp")
expm1 = entrywise("expm1")
log = entrywise("log")
log1p = entrywise("log1p")
sqrt = entrywise("sqrt")
abs = entrywise("abs")
sign = entrywise("sign")
sin = entrywise("sin")
cos = entrywise("cos")
tanh = entrywise("tanh")
sigmoid = entrywise("sigmoid")
relu = entrywise("relu")
softplus = entrywise("softplus")
silu = entrywise("silu")
gelu = entrywise("gelu")
elu = entrywise("elu")
hard_sigmoid = entrywise("hard_sigmoid")
maximum = entrywise("maximum")
minimum = entrywise("minimum")


def clip(x: TensorLike, low: float | None, high: float | None) -> Tensor:
    """Every entry moved into `[low, high]`; the gradient passes on the closed interval.

    Of any shape; `None` is no bound. Raises `ArgumentError` unless the bounds are two numbers with low <= high, and
    `DTypeError` for numbers that are not floating.

    >>> import tinyrnn as tr
    >>> tr.clip([-2.0, 0.5, 3.0], -1, 1).numpy()
    array([-1. ,  0.5,  1. ])
    """
    bounds = (-np.inf if low is None else low, np.inf if high is None else high)
    if any(np.ndim(b) or isinstance(b, str) for b in bounds) or not float(bounds[0]) <= float(bounds[1]):
        raise ArgumentError(f"clip takes two numbers with low <= high (None for no bound), got {low!r} and {high!r}; "
                            "for bounds that are tensors use maximum and minimum")
    return _unary(r.clip, "clip", x, *map(float, bounds))


def stop_gradient(x: TensorLike) -> Tensor:
    """The same value, through which no derivative flows.

    Of any shape and dtype; raises nothing of its own.

    >>> import tinyrnn as tr
    >>> x = tr.parameter(3.0)
    >>> float(tr.grad(x * tr.stop_gradient(x), x))
    3.0
    """
    return _unary(e.stop_gradient, "stop_gradient", x)


def astype(x: TensorLike, dtype: npt.DTypeLike) -> Tensor:
    """The same numbers in another dtype.

    Of any shape; whole numbers from floats go towards zero. Raises `DTypeError` for what is no dtype of numbers, and where an
    imaginary part would be lost.

    >>> import tinyrnn as tr
    >>> tr.astype([1.7, -1.7], "int64").numpy()
    array([ 1, -1])
    """
    return _unary(e.astype, "astype", x, dtype)


def where(condition: object, a: TensorLike, b: TensorLike) -> Tensor:
    """`a` where the bool condition holds, `b` elsewhere.

    The branch that is not taken gets gradient 0, also through sqrt, log, exp, powers and / where their own slope is
    infinite.  (A product with data that are themselves inf or NaN is not covered: 0 * inf is NaN.)

    Shapes broadcast. Raises `DTypeError` where the condition is not bool, and `ShapeError` where shapes do not fit.

    >>> import tinyrnn as tr
    >>> x = tr.parameter([0.0, 4.0])
    >>> tr.where(x > 0, tr.sqrt(x), 0.0).sum().backward()
    >>> x.grad[1]
    np.float64(0.25)
    """
    for x in (condition, a, b):
        if isinstance(x, Symbol):
            return traced_call(x, "where", (condition, a, b))
    return Tensor(e.where(as_tensor(condition).source(), operand(a), operand(b)))


# ---- reductions

def _reduction(build: Callable[..., Node], name: str, x: TensorLike, axis: Axis, keepdims: bool) -> Tensor:
    if isinstance(x, Symbol):
        return traced_call(x, name, (x,))
    return Tensor(build(as_tensor(x).source(), axis, keepdims))


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over some axes, all when none is given.

    [..., n, ...] becomes [..., ...], or [..., 1, ...] with `keepdims`; an axis may be negative. Raises `ShapeError` for an
    axis that is not there.

    >>> import tinyrnn as tr
    >>> tr.sum([[1.0, 2.0], [3.0, 4.0]], axis=0).numpy()
    array([4., 6.])
    """
    return _reduction(linear.sum_, "sum", x, axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The average over some axes.

    Shapes as for `sum`. Raises `ShapeError` over an empty axis, or one that is not there.

    >>> import tinyrnn as tr
    >>> tr.mean([[1.0, 2.0], [3.0, 4.0]], axis=1).numpy()
    array([1.5, 3.5])
    """
    return _reduction(r.mean, "mean", x, axis, keepdims)


def var(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean square distance from the mean (divides by n).

    Shapes as for `sum`. Raises `ShapeError` over an empty axis, or one that is not there.

    >>> import tinyrnn as tr
    >>> tr.var([1.0, 3.0]).numpy()
    array(1.)
    """
    return _reduction(r.var, "var", x, axis, keepdims)


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest entry over some axes; ties share the gradient evenly.

    Shapes as for `sum`. Raises `ShapeError` over an empty axis, `DTypeError` for complex numbers.

    >>> import tinyrnn as tr
    >>> tr.max([[1.0, 5.0], [7.0, 2.0]], axis=1).numpy()
    array([5., 7.])
    """
    return _reduction(r.amax, "max", x, axis, keepdims)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest entry over some axes; ties share the gradient evenly.

    Shapes as for `sum`. Raises `ShapeError` over an empty axis, `DTypeError` for complex numbers.

    >>> import tinyrnn as tr
    >>> tr.min([[1.0, 5.0], [7.0, 2.0]], axis=1).numpy()
    array([1., 2.])
    """
    return _reduction(r.amin, "min", x, axis, keepdims)


def argmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The index of the first largest entry along one axis.

    [..., n, ...] becomes [..., ...] of int64. Raises `ShapeError` over an empty axis, or one that is not there.

    >>> import tinyrnn as tr
    >>> tr.argmax([[1.0, 5.0], [7.0, 2.0]]).numpy()
    array([1, 0])
    """
    return Tensor(r.argmax(as_tensor(x).source(), axis))


def cumsum(x: TensorLike, axis: int = -1) -> Tensor:
    """Running sums along one axis.

    The shape stays. Raises `ShapeError` for an axis that is not there.

    >>> import tinyrnn as tr
    >>> tr.cumsum([1.0, 2.0, 3.0]).numpy()
    array([1., 3., 6.])
    """
    return Tensor(structure.cumsum(as_tensor(x).source(), axis))


def logsumexp(x: TensorLike, axis: Axis = -1, keepdims: bool = False) -> Tensor:
    """`log Σ eˣ` without overflow.

    Shapes as for `sum`. Raises `ShapeError` for an axis that is not there, `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> float(tr.logsumexp([1000.0, 1000.0])) > 1000
    True
    """
    return Tensor(r.logsumexp(as_tensor(x).source(), axis, keepdims))


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`eˣ / Σ eˣ` along one axis.

    The shape stays. Raises `ShapeError` for an axis that is not there, `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> tr.softmax([0.0, 0.0]).numpy()
    array([0.5, 0.5])
    """
    return traced_call(x, "softmax", (x,)) if isinstance(x, Symbol) else Tensor(r.softmax(as_tensor(x).source(), axis))


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`x - log Σ eˣ` along one axis.

    The shape stays. Raises `ShapeError` for an axis that is not there, `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> tr.log_softmax([0.0, -1000.0]).numpy().round(3)
    array([    0., -1000.])
    """
    return Tensor(r.log_softmax(as_tensor(x).source(), axis))


def layer_norm(x: TensorLike, eps: float = 1e-5, axis: int = -1) -> Tensor:
    """`(x - mean) / √(var + eps)` along one axis (Ba, Kiros & Hinton, 2016).

    The shape stays. Raises `ShapeError` over an empty axis, or one that is not there, and `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> tr.layer_norm([1.0, 3.0]).numpy().round(3)
    array([-1.,  1.])
    """
    if isinstance(x, Symbol):
        return traced_call(x, "layer_norm", (x,))
    return Tensor(r.layer_norm(as_tensor(x).source(), eps, axis))


def rms_norm(x: TensorLike, eps: float = 1e-5, axis: int = -1) -> Tensor:
    """`x / √(mean x² + eps)` along one axis (Zhang & Sennrich, 2019).

    The shape stays. Raises `ShapeError` over an empty axis, or one that is not there, and `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> tr.rms_norm([3.0, 4.0]).numpy().round(3)
    array([0.849, 1.131])
    """
    if isinstance(x, Symbol):
        return traced_call(x, "rms_norm", (x,))
    return Tensor(r.rms_norm(as_tensor(x).source(), eps, axis))


# ---- products

def outer(a: TensorLike, b: TensorLike) -> Tensor:
    """`y[..., i, j] = a[..., i] b[..., j]`.

    [..., n] and [..., m] become [..., n, m]. Raises `ShapeError` for numbers without an axis.

    >>> import tinyrnn as tr
    >>> tr.outer([1.0, 2.0], [3.0, 4.0]).numpy()
    array([[3., 4.],
           [6., 8.]])
    """
    for x in (a, b):
        if isinstance(x, Symbol):
            return traced_call(x, "outer", (a, b))
    return Tensor(linear.outer(as_tensor(a).source(), as_tensor(b).source()))


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """`a @ b`, with NumPy's rules for vectors and batches.

    [..., n, k] @ [..., k, m] is [..., n, m]. Raises `ShapeError` where inner sizes differ, `DTypeError` for bools.

    >>> import tinyrnn as tr
    >>> tr.matmul([[1.0, 2.0]], [[3.0], [4.0]]).numpy()
    array([[11.]])
    """
    return _binary(linear.matmul, "matmul", a, b)


def einsum(spec: str, *operands: TensorLike) -> Tensor:
    """A sum of products in Einstein's notation.

    Shapes follow from the letters; `...` stands for further axes. Raises `ShapeError` where letters or sizes do not fit.

    >>> import tinyrnn as tr
    >>> tr.einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).numpy()
    array([3., 7.])
    """
    return Tensor(linear.einsum(spec, *(as_tensor(x).source() for x in operands)))
