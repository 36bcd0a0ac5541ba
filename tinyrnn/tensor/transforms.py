"""Functions of functions: derivatives, loops over time, and values that are computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, StaleError
from ..ir import scan as scans
from ..ir.node import Node, walk
from ..ir.ops.elementwise import tag
from ..passes.ad import derivatives
from ..shapes import checked_bytes
from ..trees import flatten, leaves_like, map_tree, names_of
from .functional import tensor
from .masks import step_mask
from .tensor import Tensor, TensorLike, as_tensor
from .tracing import current, graphs


def grad(y: Tensor, wrt: object) -> Any:
    """`dy/dw` of a scalar as a tensor, hence a graph; a list or dict of w gives a list or dict.

    `y` is one number [], each gradient has the shape of its w. Raises `GradientError` where y is not one number, `StaleError`
    for parameters that were assigned since, `ArgumentError` for a function.

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

    The function gives one number []; gradients have the shapes of the arguments. Raises what `grad` raises.

    >>> import tinyrnn as tr
    >>> y, dy = tr.value_and_grad(lambda x: (x * x).sum())([1.0, 2.0])
    >>> float(y), dy.numpy()
    (5.0, array([2., 4.]))
    """
    def run(*args: object) -> tuple[Tensor, Any]:
        chosen = [argnums] if isinstance(argnums, int) else list(argnums)
        moved = list(args)
        twice = _given_twice([args[i] for i in chosen])
        for i in chosen:
            moved[i] = map_tree(lambda a: _apart(as_tensor(a), twice) if isinstance(a, Tensor) else tensor(a), args[i])
        with graphs():
            y = fn(*moved)
        refuse_arrays([y])
        found = [grad(y, moved[i]) for i in chosen]
        return y, found[0] if isinstance(argnums, int) else tuple(found)

    return run


def _given_twice(args: Sequence[Any]) -> dict[Node, int]:
    """The tensors that stand in several places of the arguments."""
    count = Counter(t.source() for t in flatten(args)[0] if isinstance(t, Tensor))
    return {n: 0 for n, k in count.items() if k > 1}


def _apart(t: Tensor, twice: dict[Node, int]) -> Tensor:
    """A tensor; where it is given several times, a node of its own for each: each argument has its own gradient."""
    node = t.source()
    if node not in twice:
        return t
    twice[node] += 1
    return Tensor(tag(node, f"argument {twice[node]}"))


def refuse_arrays(results: Sequence[Any]) -> None:
    """What a function of tensors gives as arrays has no history."""
    if any(isinstance(r, np.ndarray) for r in results):
        raise ArgumentError("the function gives an array for tensors, so no gradient would flow: a compiled function inside "
                            "gives arrays; take gradients inside of tr.compile, or tr.vjp of the compiled function")


def jvp(y: object, tangents: Mapping[Tensor, TensorLike]) -> Any:
    """The derivative of y (a tensor, list or dict) along the given tangents, also a graph.

    `dy` has the shape of y, a tangent that of its w. Raises `GradientError` where they do not.

    >>> import tinyrnn as tr
    >>> x = tr.parameter(3.0)
    >>> float(tr.jvp(x * x, {x: 1.0}))
    6.0
    """
    leaves, rebuild = flatten(y)
    moved = {w.source(): as_tensor(v).source() for w, v in tangents.items()}
    return rebuild([Tensor(n) for n in derivatives.jvp([as_tensor(t).source() for t in leaves], moved)])


def jacobian(v: Tensor, x: Tensor) -> Tensor:
    """`J[i..., j...] = dv[i...]/dx[j...]`.

    v [...] and x [...] give [..., ...]. Raises `DTypeError` for whole numbers.

    >>> import tinyrnn as tr
    >>> x = tr.parameter([1.0, 2.0])
    >>> tr.jacobian(x * x, x).numpy()
    array([[2., 0.],
           [0., 4.]])
    """
    return Tensor(derivatives.jacobian(v.source(), x.source()))


def hessian(y: Tensor, x: Tensor) -> Tensor:
    """`H[i..., j...] = d²y/dx[i...]dx[j...]` of a scalar y.

    x [...] gives [..., ...]. Raises `GradientError` where y is not one number.

    >>> import tinyrnn as tr
    >>> x = tr.parameter([1.0, 2.0])
    >>> tr.hessian((x * x).sum(), x).numpy()
    array([[2., 0.],
           [0., 2.]])
    """
    return Tensor(derivatives.hessian(y.source(), x.source()))


def remat(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, whose inner values are computed again in the backward pass instead of being stored.

    Arguments and results are tensors of any shape, or lists, tuples and dicts of them; raises what `fn` raises.

    >>> import tinyrnn as tr
    >>> x = tr.parameter(2.0)
    >>> float(tr.grad(tr.remat(lambda a: tr.exp(a) * a)(x), x)) > 0
    True
    """
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
         reverse: bool = False, steps: int | None = None, memory: int | str | None = None) -> tuple[Any, Any]:
    """Run `fn(state, x) -> (state, y)` over the first axis of xs; returns the last state and all y, stacked.

    State, x and y are tensors or lists, tuples and dicts of them; a new state has the keys and the nesting of the one
    before.  `lengths` (one whole number per row of the batch)
    or `mask` (bool [T, B]) hold the state and zero the output beyond each row's end; `reverse` visits T..1.

    `memory` (bytes, or a text: "200MB") is a budget for long sequences: compiled, the scan keeps every k-th state, with the
    smallest number of parts whose temporaries keep the budget, and computes the steps of a part again when gradients come
    back to it.  Beside it stand the sequences that come in and go out.  Results have the same bits; other sizes are traced
    again.

    xs are [T, ...], y comes back as [T, ...]. Raises `ArgumentError` where fn returns no pair or another form of state,
    `GraphError` where a state changes its shape, `ShapeError` where the sequences differ in length, and `ArgumentError` when it
    is compiled for a budget that no number of parts keeps.

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
                                names=names, memory=checked_bytes("memory", memory))
    return state_form([Tensor(n) for n in finals]), output_form[0]([Tensor(n) for n in traces])
