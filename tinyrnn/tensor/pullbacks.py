"""Value and pull-back: `tr.vjp`, of tensors as graphs, of compiled functions as two programs that share what was saved."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from math import prod
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends import is_device
from ..backends.plan.memory import ALIGNMENT
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir import Graph
from ..ir.node import FLOATING, Node, rebuild, walk, without_collector
from ..ir.ops.elementwise import tag
from ..ir.ops.leaves import INPUT, LEAF, box_of, input_name, input_node
from ..ir.scan import LITERALS
from ..passes import partition
from ..passes.ad import derivatives
from ..passes.partition import minimum_cut
from ..shapes import show
from ..trees import flatten, leaves_like, map_tree
from .compile import Program, optimised, remembered
from .functional import tensor
from .signatures import OpenShapes, Shapes, Spec, array_of, mapped, with_open_sizes
from .specialization import Specialization, Traced
from .tensor import Tensor, as_tensor
from .tracing import Trace, graphs, tracing
from .transforms import refuse_arrays

Array = npt.NDArray[Any]
MOST_KEPT = 64 * 2**20  # bytes of saved values that wait for the next run; larger ones lie on pages that are quick to get
Wanted = tuple[bool, ...]  # for each array among the arguments whether its gradient is asked for


def vjp(fn: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """`y, pull = tr.vjp(fn, *args)`: the value, and `pull(g) = (Σ g · dy/da for each argument a)`.

    Arguments and results are arrays, tensors, or lists, tuples and dicts of them; g has the form of y.  What holds whole
    numbers or no numbers has the gradient None.  Of a function of tensors y and gradients are tensors, hence graphs.  Of a
    compiled one they are arrays: one program gives the value and saves what the other needs, so that the forward pass runs once
    however often `pull` is called; weights that are assigned between make no difference to it.

    Raises `ShapeError` for a g of another shape than y, `ArgumentError` for one of another form, and for a compiled function
    that assigns parameters.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> y, pull = tr.vjp(tr.compile(lambda x, w: tr.tanh(x * w)), np.zeros(2), np.ones(2))
    >>> y, pull(np.ones(2))[0]
    (array([0., 0.]), array([1., 1.]))
    """
    fn, before = _unbound(fn)
    if isinstance(fn, Program):
        return _compiled(fn, tuple(_with_arrays(a) for a in args), before)
    leaves: list[Tensor] = []
    with graphs():
        y = fn(*(_with_tensors(a, leaves) for a in args))
    outputs, form = flatten(y)
    refuse_arrays(outputs)
    nodes = [as_tensor(o) for o in outputs]

    def pull(g: Any) -> tuple[Any, ...]:
        adjoints = [_adjoint(as_tensor(a), n) for a, n in zip(leaves_like(g, form(nodes), "g"), nodes, strict=True)]
        wrt = [t.source() for t in leaves if t.node.floating]
        found = iter(derivatives.vjp([n.source() for n in nodes], [a.source() for a in adjoints], wrt))
        grads = iter([Tensor(next(found)) if t.node.floating else None for t in leaves])
        return tuple(_in_place(a, grads) for a in args)

    return form(nodes), pull


def _unbound(fn: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A compiled method, or a part of a compiled function, as the program and its first arguments."""
    if isinstance(fn, MethodType) and isinstance(fn.__func__, Program):
        return fn.__func__, (fn.__self__,)
    if isinstance(fn, partial) and isinstance(fn.func, Program) and not fn.keywords:
        return fn.func, fn.args
    return fn, ()


def _is_number(value: Any) -> bool:
    return type(value) is float or isinstance(value, Tensor) or array_of(value) is not None


def _with_tensors(tree: Any, found: list[Tensor]) -> Any:
    """An argument with a tensor for everything that holds numbers."""
    if _is_number(tree):
        new = tensor(tree) if not isinstance(tree, Tensor) else Tensor(tag(tree.source(), f"argument {len(found)}"))
        found.append(new)  # a node of its own: the same tensor may be given twice, or be read by the function itself
        return new
    return mapped(tree, lambda part: _with_tensors(part, found))


def _with_arrays(tree: Any) -> Any:
    """An argument with an array for every Python number with a fraction, which a compiled function would take for fixed."""
    if type(tree) is float:
        return np.asarray(tree)
    return tree if _is_number(tree) else mapped(tree, _with_arrays)


def _in_place(tree: Any, grads: Iterator[Any]) -> Any:
    """The form of an argument, with gradients."""
    if _is_number(tree):
        return next(grads)
    return mapped(tree, lambda part: _in_place(part, grads)) if isinstance(tree, (Mapping, tuple, list)) else None


def _adjoint(g: Any, y: Any) -> Any:
    """What comes in for an output, in its shape and dtype."""
    if g.shape != y.shape:
        raise ShapeError(f"g has shape {show(g.shape)} for an output of shape {show(y.shape)}: they must be equal")
    if y.dtype.kind == "f" and not np.can_cast(g.dtype, y.dtype, "same_kind"):
        raise DTypeError(f"g is {g.dtype} for an output that is {y.dtype}")
    return g if g.dtype == y.dtype else g.astype(y.dtype)


# ---- of a compiled function

class _Output(NamedTuple):
    """A result without its numbers."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def floating(self) -> bool:
        return bool(self.dtype.kind in FLOATING)


class Halves(NamedTuple):
    """The two programs for arguments of given shapes."""

    forward: Specialization      # from the arguments to the results and what is saved
    backward: Specialization     # from saved values, arguments and adjoints to gradients
    form: Callable[[list[Any]], Any]  # of the results
    outputs: list[_Output]
    read: list[int]              # the arguments that the backward program reads
    moving: list[bool]           # which arguments have a gradient
    room: Room                   # for saved values


class _Latest(NamedTuple):
    """The programs that ran last, and for what: signature, shapes, wanted gradients."""

    at: tuple[Hashable, Shapes, Wanted | None]
    pair: Halves


class Room:
    """Memory for saved values, which the next run takes over when they are let go: fresh pages are slow."""

    def __init__(self) -> None:
        self._free: list[npt.NDArray[np.uint8]] = []

    def borrow(self, outputs: Sequence[tuple[str, tuple[int, ...], Any]]) -> tuple[npt.NDArray[np.uint8], list[Array]]:
        """Memory, and arrays for these outputs in it."""
        starts = [0, *accumulate(-(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for _, shape, dtype in outputs)]
        memory = self._free.pop() if self._free else np.empty(0, np.uint8)
        if memory.size < starts[-1]:
            memory = np.empty(starts[-1], np.uint8)
        return memory, [np.ndarray(shape, dtype, memory, start)
                        for (_, shape, dtype), start in zip(outputs, starts, strict=False)]

    def give_back(self, memory: npt.NDArray[np.uint8]) -> None:
        if not self._free and memory.size <= MOST_KEPT:
            self._free.append(memory)


class _TracedPair(NamedTuple):
    """The two programs as traced, for all shapes for which the trace holds."""

    forward: Traced
    backward: Traced
    form: Callable[[list[Any]], Any]
    outputs: list[Node]
    read: list[int]
    moving: list[bool]
    room: Room

    def at(self, shapes: Shapes, values: Mapping[str, int]) -> Halves:
        """The programs for arguments of these shapes."""
        ahead, back = self.forward.at(shapes, values), self.backward.at(shapes, values)
        outputs = [_Output(shape, n.dtype) for n, (_, shape, _) in zip(self.outputs, ahead.outputs, strict=False)]
        return Halves(ahead, back, self.form, outputs, self.read, self.moving, self.room)


class Held:
    """What a run of the forward program leaves for the backward one: the values that it saved."""

    def __init__(self, pair: Halves, saved: list[Array], memory: npt.NDArray[np.uint8] | None, threads: int | None) -> None:
        self.pair, self.saved, self._memory, self._threads = pair, saved, memory, threads
        self._leaves = {n: box_of(n).data for n in pair.backward.graph.leaves.values()}

    def __del__(self) -> None:
        if self._memory is not None:
            self.pair.room.give_back(self._memory)

    def gradients(self, read: Sequence[Any], adjoints: Sequence[Any]) -> Iterator[Any]:
        """A gradient for each argument, None for those that have none, from the arguments that are `read` (`pair.read` says
        which) and the adjoints of the floating results."""
        found = iter(self.pair.backward.run_with(self._leaves, [*self.saved, *read, *adjoints], self._threads))
        return iter([next(found) if moves else None for moves in self.pair.moving])


class Pullback:
    """`pull(g)`: gradients of the arguments for the adjoints g of the results, by a compiled program."""

    def __init__(self, held: Held, read: list[Array], args: tuple[Any, ...], bound: int) -> None:
        self._held, self._read, self._bound = held, read, bound
        self._args = [_specimen(a) for a in args]

    @property
    def bytes(self) -> int:
        """What is held until the pull-back is let go: saved values and arguments."""
        return sum(a.nbytes for a in (*self._held.saved, *self._read))

    def __call__(self, g: Any) -> tuple[Any, ...]:
        pair = self._held.pair
        like = pair.form([np.zeros(0) if y.floating else _Whole() for y in pair.outputs])
        given = leaves_like(_completed(g, like), like, "g")
        adjoints = [_adjoint(_as_array(a), y) for a, y in zip(given, pair.outputs, strict=True) if y.floating]
        grads = self._held.gradients(self._read, adjoints)
        return tuple(_in_place(a, grads) for a in self._args)[self._bound :]


class _Whole:
    """The place of an output of whole numbers, for which nothing comes in."""


def _completed(g: Any, like: Any) -> Any:
    """Adjoints with something in the place of a None that stands for whole numbers."""
    if g is None and isinstance(like, _Whole):
        return like
    if isinstance(g, Mapping) and isinstance(like, Mapping):
        return {k: _completed(v, like.get(k)) for k, v in g.items()}
    if isinstance(g, (tuple, list)) and isinstance(like, (tuple, list)) and len(g) == len(like):
        return mapped(g, _completed_by(iter(like)))
    return g


def _completed_by(likes: Iterator[Any]) -> Callable[[Any], Any]:
    return lambda part: _completed(part, next(likes))


def _as_array(value: Any) -> Any:
    array = array_of(value)
    return np.asarray(value) if array is None else array


def _specimen(tree: Any) -> Any:
    """An argument without its numbers."""
    return np.zeros(0) if _is_number(tree) else mapped(tree, _specimen)


def _compiled(program: Program, args: tuple[Any, ...], before: tuple[Any, ...]) -> tuple[Any, Pullback]:
    args = *before, *args
    results, held, arrays = _run(program, args, None)
    read = [a if is_device(a) else np.array(a) for a in (arrays[i] for i in held.pair.read)]
    return held.pair.form(results), Pullback(held, read, args, len(before))


def vjp_of_arrays(program: Program, args: tuple[Any, ...], wanted: Wanted) -> tuple[list[Any], Held]:
    """The results of a compiled function of arrays as a list, and what gives the gradients of the `wanted` arguments, from
    those of them that it reads then."""
    results, held, _ = _run(program, args, wanted)
    return results, held


def _run(program: Program, args: tuple[Any, ...], wanted: Wanted | None) -> tuple[list[Any], Held, list[Any]]:
    with program.lock:
        pair, arrays = pair_for(program, args, wanted)
        count = len(pair.outputs)
        memory, saved = pair.room.borrow(pair.forward.outputs[count:]) if pair.forward.backend.name == "cpu" else (None, [])
        found = pair.forward.run(arrays, program.threads, saved)
        return found[:count], Held(pair, found[count:], memory, program.threads), arrays


def pair_for(program: Program, args: tuple[Any, ...], wanted: Wanted | None) -> tuple[Halves, list[Any]]:
    """The two programs for arguments like these, and the arrays among them."""
    key, arrays = program.signature(args)
    shapes = tuple([a.shape for a in arrays])
    latest: _Latest | None = program.latest_pair
    if latest is None or latest.at != (key, shapes, wanted) or not latest.pair.forward.trace.holds():
        latest = program.latest_pair = _Latest((key, shapes, wanted), _pair(program, (key, wanted), args, shapes, wanted))
    return latest.pair, arrays


def _pair(program: Program, key: Hashable, args: tuple[Any, ...], shapes: Shapes, wanted: Wanted | None) -> Halves:
    """The programs of a trace that holds for these arguments; of a new one where none does."""
    for traced in program.pairs.get(key, ()):
        values = traced.forward.open.values_for(shapes) if traced.forward.trace.holds() else None
        if values is not None:
            found: Halves = traced.at(shapes, values)
            return found
    given = program.named(args)
    made = with_open_sizes(list(given.values()), lambda opened: _traced(program, args, given, opened, wanted))
    remembered(program.pairs, key, made)
    return made.at(shapes, made.forward.open.values)


def _traced(program: Program, args: tuple[Any, ...], values: Mapping[str, Array], opened: OpenShapes,
            wanted: Wanted | None) -> _TracedPair:
    """Both programs: the function with its gradients as one graph, cut where the fewest bytes are saved."""
    trace = Trace()
    inputs = [input_node(k, shape, values[k].dtype) for k, shape in zip(values, opened.shapes, strict=True)]
    with tracing(trace):
        outputs, form = flatten(program.called(map(Tensor, inputs), args))
        nodes = [as_tensor(o).source() for o in outputs]
    if trace.updates:
        raise ArgumentError("a function that assigns parameters has no pull-back: return their new values instead")
    with without_collector():
        adjoints = [input_node(f"adjoint {i}", y.shape, y.dtype) for i, y in enumerate(nodes) if y.floating]
        moving = [n.floating and chosen for n, chosen in zip(inputs, wanted or [True] * len(inputs), strict=True)]
        wrt = [n for n, moves in zip(inputs, moving, strict=True) if moves]
        grads = derivatives.vjp([y for y in nodes if y.floating], adjoints, wrt)
        joint = partition(Graph({**_numbered("result", nodes), **_numbered("gradient", grads)}))
        ahead, back = ([joint.outputs[f"{what} {i}"] for i in range(count)]
                       for what, count in (("result", len(nodes)), ("gradient", len(grads))))
        saved = _saved(joint.nodes, back, adjoints)
        kept = [input_node(f"saved {i}", n.shape, n.dtype) for i, n in enumerate(saved)]
        known = dict(zip(saved, kept, strict=True))
        rebuild(walk(back, known=known.keys()), known)
        backward = Graph(_numbered("gradient", [known[n] for n in back]))
        forward = Graph({**_numbered("result", ahead), **_numbered("saved", saved)})
    read = [i for i, k in enumerate(values) if k in backward.inputs]
    given = [*kept, *(inputs[i] for i in read), *adjoints]
    return _TracedPair(_program(program, forward, trace, inputs, opened), _program(program, backward, Trace(), given, opened),
                       form, nodes, read, moving, Room())


def _numbered(what: str, nodes: Sequence[Node]) -> dict[str, Node]:
    return {f"{what} {i}": n for i, n in enumerate(nodes)}


def _program(program: Program, graph: Graph, trace: Trace, given: Sequence[Node], opened: OpenShapes) -> Traced:
    """A graph after all passes; results are a list."""
    arguments: tuple[Any, Any] = tuple([Spec(n.shape, n.dtype) for n in given]), {}
    return Traced(optimised(graph), list, trace, program.backend, program.strict, {}, [input_name(n) for n in given], arguments,
                  opened)


def _saved(order: Sequence[Node], gradients: Sequence[Node], adjoints: Sequence[Node]) -> list[Node]:
    """What the forward program keeps for the backward one: a smallest set from which all that it reads follows cheaply."""
    moving = set(adjoints)
    for n in order:
        if any(s in moving for s in n.src):
            moving.add(n)
    read = dict.fromkeys(s for n in order if n in moving for s in n.src if s not in moving)
    read |= dict.fromkeys(n for n in gradients if n not in moving)
    there = {n for n in order if n.op in (INPUT, LEAF)}
    return minimum_cut([n for n in read if n not in there and n.op not in LITERALS], there, set())


# ---- functions of a model's parameters

def functional_call(model: Callable[..., Any], params: Mapping[str, Any], *args: Any, **keywords: Any) -> Any:
    """`model(*args)` with other numbers in the place of its parameters: a function of them, to differentiate or compile.

    `params` are arrays or tensors by the names of `model.leaves()`, of the same shapes and dtypes; what is not named keeps its
    data.  The model itself stays as it is.

    Raises `ArgumentError` for a name that the model has not, `ShapeError` and `DTypeError` for what does not fit.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> layer = tr.nn.Linear(2, 1, rng=0)
    >>> def loss(params, x):
    ...     return tr.functional_call(layer, params, x).sum()
    >>> y, g = tr.value_and_grad(loss)(layer.state_dict(), np.ones((3, 2), np.float32))
    >>> g["weight"].numpy()
    array([[3., 3.]], dtype=float32)
    """
    if not hasattr(model, "leaves") or not isinstance(params, Mapping):
        raise ArgumentError(f"functional_call takes a layer or a model and its parameters by name, got {type(model).__name__} "
                            f"and {type(params).__name__}")
    named: dict[str, Tensor] = dict(model.leaves())
    own = named | {k.removeprefix("weights."): t for k, t in named.items()}  # as a recurrent layer's state_dict calls them
    new: dict[Node, Node] = {}
    for name, value in params.items():
        if name not in own:
            raise ArgumentError(f"{type(model).__name__} has no parameter {name!r}; it has {', '.join(named)}")
        t, old = as_tensor(value), own[name]
        if t.shape != old.shape:
            raise ShapeError(f"{name} has shape {show(old.shape)}, got {show(t.shape)}")
        if t.dtype != old.dtype:
            raise DTypeError(f"{name} is {old.dtype}, got {t.dtype}: convert it with astype, if it is what you mean")
        new[old.node] = t.source()

    def changed(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        node = t.source()
        return Tensor(rebuild(walk([node], known=new.keys()), new)[node])

    with graphs():
        return map_tree(changed, model(*args, **keywords))
