"""Functions of tensors.  Each builds a graph; nothing is computed before somebody asks for the value."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..backends import Backend, check_backend
from ..cells.from_function import Symbol
from ..errors import ArgumentError, DTypeError, ShapeError, StaleError
from ..functions import FUNCTIONS
from ..ir import scan as scans
from ..ir.node import Node, walk
from ..ir.ops import elementwise as e
from ..ir.ops import linear, structure
from ..ir.ops import reduce as r
from ..ir.ops.leaves import input_node, iota
from ..passes.ad import derivatives
from ..shapes import show
from ..trees import flatten, leaves_like, map_tree, names_of
from .masks import step_mask
from .tensor import Tensor, TensorLike, as_tensor, operand
from .tracing import current

Axis = int | Iterable[int] | None


# ---- leaves and placeholders

def tensor(data: object, name: str | None = None, dtype: npt.DTypeLike | None = None, *, backend: str = "numpy") -> Tensor:
    """A leaf that holds data.  Lists and Python numbers become float64, arrays keep their dtype.

    With backend="cuda" the data live on the GPU, and so does what is computed from them; an array that is there already
    (of CuPy, of PyTorch: whatever speaks DLPack) is taken as it is, without a copy.  Raises `BackendError` without a GPU.

    >>> import tinyrnn as tr
    >>> tr.tensor([[1, 2]]).dtype
    dtype('float64')
    """
    return _leaf(data, dtype, name, False, backend)


def parameter(data: object, name: str | None = None, dtype: npt.DTypeLike | None = None, *, backend: str = "numpy") -> Tensor:
    """A leaf that is trained: `backward` accumulates its gradient, optimisers update it.  `backend` as in `tensor`.

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

def _traced(symbol: Symbol, name: str, args: Sequence[Any]) -> Tensor:
    """While a cell's function is traced, its symbols stand where tensors are expected."""
    return cast(Tensor, symbol.call(name, args))


def _unary(build: Callable[..., Node], name: str, x: TensorLike, *at: object) -> Tensor:
    if isinstance(x, Symbol):
        return _traced(x, name, (x, *at))
    return Tensor(build(as_tensor(x).source(), *at))


def _binary(build: Callable[..., Node], name: str, a: object, b: object) -> Tensor:
    for x in (a, b):
        if isinstance(x, Symbol):
            return _traced(x, name, (a, b))
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
    function.__doc__ = f.doc
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
    """Every entry moved into `[low, high]`; the gradient passes on the closed interval."""
    bounds = (-np.inf if low is None else low, np.inf if high is None else high)
    if np.ndim(bounds[0]) or np.ndim(bounds[1]) or not float(bounds[0]) <= float(bounds[1]):
        raise ArgumentError(f"clip takes two numbers with low <= high (None for no bound), got {low!r} and {high!r}; "
                            "for bounds that are tensors use maximum and minimum")
    return _unary(r.clip, "clip", x, *map(float, bounds))


def stop_gradient(x: TensorLike) -> Tensor:
    """The same value, through which no derivative flows."""
    return _unary(e.stop_gradient, "stop_gradient", x)


def astype(x: TensorLike, dtype: npt.DTypeLike) -> Tensor:
    """The same numbers in another dtype."""
    return _unary(e.astype, "astype", x, dtype)


def where(condition: object, a: TensorLike, b: TensorLike) -> Tensor:
    """`a` where the bool condition holds, `b` elsewhere.

    The branch that is not taken gets gradient 0, also through sqrt, log, exp, powers and / where their own slope is
    infinite.  (A product with data that are themselves inf or NaN is not covered: 0 * inf is NaN.)

    >>> import tinyrnn as tr
    >>> x = tr.parameter([0.0, 4.0])
    >>> tr.where(x > 0, tr.sqrt(x), 0.0).sum().backward()
    >>> x.grad[1]
    np.float64(0.25)
    """
    for x in (condition, a, b):
        if isinstance(x, Symbol):
            return _traced(x, "where", (condition, a, b))
    return Tensor(e.where(as_tensor(condition).source(), operand(a), operand(b)))


# ---- reductions

def _reduction(build: Callable[..., Node], name: str, x: TensorLike, axis: Axis, keepdims: bool) -> Tensor:
    if isinstance(x, Symbol):
        return _traced(x, name, (x,))
    return Tensor(build(as_tensor(x).source(), axis, keepdims))


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over some axes, all when none is given."""
    return _reduction(linear.sum_, "sum", x, axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The average over some axes."""
    return _reduction(r.mean, "mean", x, axis, keepdims)


def var(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean square distance from the mean (divides by n)."""
    return _reduction(r.var, "var", x, axis, keepdims)


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest entry over some axes; ties share the gradient evenly."""
    return _reduction(r.amax, "max", x, axis, keepdims)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest entry over some axes; ties share the gradient evenly."""
    return _reduction(r.amin, "min", x, axis, keepdims)


def argmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The index of the first largest entry along one axis."""
    return Tensor(r.argmax(as_tensor(x).source(), axis))


def cumsum(x: TensorLike, axis: int = -1) -> Tensor:
    """Running sums along one axis."""
    return Tensor(structure.cumsum(as_tensor(x).source(), axis))


def logsumexp(x: TensorLike, axis: Axis = -1, keepdims: bool = False) -> Tensor:
    """`log Σ eˣ` without overflow."""
    return Tensor(r.logsumexp(as_tensor(x).source(), axis, keepdims))


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`eˣ / Σ eˣ` along one axis."""
    return _traced(x, "softmax", (x,)) if isinstance(x, Symbol) else Tensor(r.softmax(as_tensor(x).source(), axis))


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`x - log Σ eˣ` along one axis."""
    return Tensor(r.log_softmax(as_tensor(x).source(), axis))


def layer_norm(x: TensorLike, eps: float = 1e-5, axis: int = -1) -> Tensor:
    """`(x - mean) / √(var + eps)` along one axis (Ba, Kiros & Hinton, 2016)."""
    if isinstance(x, Symbol):
        return _traced(x, "layer_norm", (x,))
    return Tensor(r.layer_norm(as_tensor(x).source(), eps, axis))


def rms_norm(x: TensorLike, eps: float = 1e-5, axis: int = -1) -> Tensor:
    """`x / √(mean x² + eps)` along one axis (Zhang & Sennrich, 2019)."""
    if isinstance(x, Symbol):
        return _traced(x, "rms_norm", (x,))
    return Tensor(r.rms_norm(as_tensor(x).source(), eps, axis))


# ---- shapes and joins

def reshape(x: TensorLike, shape: Iterable[int]) -> Tensor:
    """The same numbers, row by row, in another shape; one size may be -1."""
    return Tensor(linear.reshape(as_tensor(x).source(), shape))


def transpose(x: TensorLike, order: Sequence[int] | None = None) -> Tensor:
    """Axes in another order, reversed when none is given."""
    return Tensor(linear.transpose(as_tensor(x).source(), order))


def T(x: TensorLike) -> Tensor:  # noqa: N802  (NumPy's name)
    """The axes in reverse order: a matrix transposed."""
    return transpose(x)


def broadcast_to(x: TensorLike, shape: Iterable[int]) -> Tensor:
    """The tensor repeated along new or size-1 axes."""
    return Tensor(linear.broadcast_to(as_tensor(x).source(), shape))


def concat(parts: Sequence[TensorLike], axis: int = -1) -> Tensor:
    """Tensors joined along an axis that exists."""
    for p in parts:
        if isinstance(p, Symbol):
            return _traced(p, "concat", (parts,))
    return Tensor(structure.concat([as_tensor(p).source() for p in parts], axis))


def stack(parts: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors joined along a new axis."""
    return Tensor(structure.stack([as_tensor(p).source() for p in parts], axis))


def split(x: TensorLike, sections: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """Equal pieces (an int) or pieces of the given sizes (a list)."""
    return [Tensor(n) for n in structure.split(as_tensor(x).source(), sections, axis)]


def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """The entries in reverse order along some axes."""
    return Tensor(structure.flip(as_tensor(x).source(), axis))


def pad(x: TensorLike, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros before and after each axis."""
    return Tensor(structure.pad(as_tensor(x).source(), widths))


def gather(table: TensorLike, index: TensorLike) -> Tensor:
    """Rows of a table, `y[...] = table[index[...]]`: an embedding lookup."""
    return Tensor(structure.gather(as_tensor(table).source(), _integers(index)))


def pick(x: TensorLike, index: TensorLike) -> Tensor:
    """One entry of the last axis: `y[...] = x[..., index[...]]`."""
    return Tensor(structure.pick(as_tensor(x).source(), _integers(index)))


def one_hot(index: TensorLike, n: int, dtype: npt.DTypeLike = np.float64) -> Tensor:
    """Vectors that are 1 at the index and 0 elsewhere."""
    return Tensor(structure.one_hot(_integers(index), n, dtype))


def _integers(index: TensorLike) -> Node:
    return as_tensor(index if hasattr(index, "dtype") else np.asarray(index)).source()


def arange(n: int) -> Tensor:
    """0, 1, ..., n - 1 as int64."""
    return Tensor(iota(n))


def outer(a: TensorLike, b: TensorLike) -> Tensor:
    """`y[..., i, j] = a[..., i] b[..., j]`."""
    for x in (a, b):
        if isinstance(x, Symbol):
            return _traced(x, "outer", (a, b))
    return Tensor(linear.outer(as_tensor(a).source(), as_tensor(b).source()))


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """`a @ b`, with NumPy's rules for vectors and batches."""
    return _binary(linear.matmul, "matmul", a, b)


def einsum(spec: str, *operands: TensorLike) -> Tensor:
    """A sum of products in Einstein's notation.

    >>> import tinyrnn as tr
    >>> tr.einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).numpy()
    array([3., 7.])
    """
    return Tensor(linear.einsum(spec, *(as_tensor(x).source() for x in operands)))


# ---- derivatives

def grad(y: Tensor, wrt: object) -> Any:
    """`dy/dw` of a scalar as a tensor, hence a graph; a list or dict of w gives a list or dict.

    >>> import tinyrnn as tr
    >>> x = tr.parameter(3.0)
    >>> dy = tr.grad(x * x * x, x)
    >>> float(dy), float(tr.grad(dy, x))
    (27.0, 18.0)
    """
    if callable(y):
        raise ArgumentError("tr.grad takes a tensor; for a function use tr.value_and_grad(fn)(x), which returns (y, dy/dx)")
    leaves, rebuild = flatten(wrt)
    tensors = [as_tensor(w) for w in leaves]
    _refuse_assigned(y, tensors)
    return rebuild([Tensor(n) for n in derivatives.grad(y.source(), [t.source() for t in tensors])])


def _refuse_assigned(y: Tensor, wrt: Sequence[Tensor]) -> None:
    """While a function is traced: y was built from data that have been replaced since."""
    trace = current()
    late = [t for t in wrt if trace is not None and t.source() is not t.node]
    if late:
        read = set(walk([y.node]))
        for t in late:
            if t.node in read and t.source() not in read:
                raise StaleError(f"{t.name or 'a leaf'} was assigned after the tensor was built whose gradient is asked for; "
                                 "take the gradient before assigning")


def value_and_grad(fn: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns `(fn(...), gradient)` with respect to the chosen arguments.

    >>> import tinyrnn as tr
    >>> y, dy = tr.value_and_grad(lambda x: (x * x).sum())([1.0, 2.0])
    >>> float(y), dy.numpy()
    (5.0, array([2., 4.]))
    """
    def run(*args: object) -> tuple[Tensor, Any]:
        chosen = [argnums] if isinstance(argnums, int) else list(argnums)
        moved = list(args)
        for i in chosen:
            moved[i] = map_tree(lambda a: as_tensor(a) if isinstance(a, Tensor) else tensor(a), args[i])
        y = fn(*moved)
        found = [grad(y, moved[i]) for i in chosen]
        return y, found[0] if isinstance(argnums, int) else tuple(found)

    return run


def jvp(y: object, tangents: Mapping[Tensor, TensorLike]) -> Any:
    """The derivative of y (a tensor, list or dict) along the given tangents, also a graph."""
    leaves, rebuild = flatten(y)
    moved = {w.source(): as_tensor(v).source() for w, v in tangents.items()}
    return rebuild([Tensor(n) for n in derivatives.jvp([as_tensor(t).source() for t in leaves], moved)])


def jacobian(v: Tensor, x: Tensor) -> Tensor:
    """`J[i..., j...] = dv[i...]/dx[j...]`."""
    return Tensor(derivatives.jacobian(v.source(), x.source()))


def hessian(y: Tensor, x: Tensor) -> Tensor:
    """`H[i..., j...] = d²y/dx[i...]dx[j...]` of a scalar y."""
    return Tensor(derivatives.hessian(y.source(), x.source()))


def remat(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, whose inner values are computed again in the backward pass instead of being stored."""
    def run(*args: object) -> Any:
        leaves, rebuild = flatten(args)
        form: list[Callable[[list[Any]], Any]] = []

        def body(nodes: list[Node]) -> list[Node]:
            outs, form_of = flatten(fn(*rebuild([Tensor(n) for n in nodes])))
            form.append(form_of)
            return [as_tensor(o).source() for o in outs]

        results = scans.region(body, [as_tensor(a).source() for a in leaves])
        return form[0]([Tensor(n) for n in results])

    return run


def scan(fn: Callable[[Any, Any], tuple[Any, Any]], init: object, xs: object = None, *, lengths: Any = None, mask: Any = None,
         reverse: bool = False, steps: int | None = None) -> tuple[Any, Any]:
    """Run `fn(state, x) -> (state, y)` over the first axis of xs; returns the last state and all y, stacked.

    State, x and y are tensors or lists, tuples and dicts of them; a new state has the keys and the nesting of the one
    before.  `lengths` (one whole number per row of the batch)
    or `mask` (bool [T, B]) hold the state and zero the output beyond each row's end; `reverse` visits T..1.

    >>> import tinyrnn as tr
    >>> total, partial = tr.scan(lambda s, x: (s + x, s + x), tr.tensor(0.0), tr.tensor([1.0, 2.0, 3.0]))
    >>> float(total), partial.numpy()
    (6.0, array([1., 3., 6.]))
    """
    state, state_form = flatten(init)
    slices, slice_form = flatten(xs)
    output_form: list[Callable[[list[Any]], Any]] = []

    def step(s: list[Node], x: list[Node]) -> tuple[list[Node], list[Node]]:
        result = fn(state_form([Tensor(n) for n in s]), slice_form([Tensor(n) for n in x]))
        if not isinstance(result, tuple) or len(result) != 2:
            raise ArgumentError("a scan's function returns a pair: (new state, output)")
        new = leaves_like(result[0], init, "the state after a step")
        outs, form = flatten(result[1])
        output_form.append(form)
        return [as_tensor(t).source() for t in new], [as_tensor(t).source() for t in outs]

    nodes = [as_tensor(t).source() for t in slices]
    valid = step_mask(nodes[0].shape[0] if nodes and nodes[0].ndim else steps or 0, lengths, mask)
    own, read = names_of(init), names_of(xs)
    names = None if own is None or read is None else scans.ScanNames(
        [f"{k}[t-1]" for k in own], [f"{k}[t]" for k in read], {})
    finals, traces = scans.scan(step, [as_tensor(t).source() for t in state], nodes, mask=valid, reverse=reverse, steps=steps,
                                names=names)
    return state_form([Tensor(n) for n in finals]), output_form[0]([Tensor(n) for n in traces])
