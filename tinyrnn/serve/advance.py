"""A model as a function of one piece of its input and of the state that the piece before has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ArgumentError
from ..ir.node import Node, apply, walk
from ..ir.ops.leaves import INPUT
from ..ir.scan import SCAN, ScanView, final
from ..model import Trainable, backward_layer
from ..tensor.masks import takes
from ..tensor.rearrange import stack
from ..tensor.tensor import Tensor, as_tensor
from ..trees import flatten

Advance = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`advance(model, x, state)`: the output for x [B, k, ...] and the state after it; None is the state before the first step."""


def ways(model: Trainable) -> list[Advance]:
    """How a model may go on, the best first: by its argument `state`, with the states of the loops that it runs, or by a
    `step` of its own, which need not round as the whole sequence does."""
    check_forward(model)
    if "state" in takes(model):
        return [_with_state]
    return [*([_lifted] if has_call(model) else []), *([_step_by_step] if hasattr(model, "step") else [])] or [_lifted]


def has_call(model: object) -> bool:
    """Whether a model takes whole sequences."""
    return getattr(type(model).__call__, "__qualname__", "") != "Module.__call__"


def check_forward(model: Trainable) -> None:
    """Refuse what reads the future."""
    layer = backward_layer(model)
    if layer is not None:
        raise ArgumentError(f"a stream is read forward, one step at a time, and {layer} reads its sequence from the end: use "
                            "predict on whole sequences, or a layer of one direction")


def _with_state(model: Any, x: Any, state: Any) -> tuple[Any, Any]:
    also = {"return_state": True} if "return_state" in takes(model) else {}
    return _pair(model, model(x, state=state, **also))


def _pair(model: object, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(f"{type(model).__name__} takes a state, so it is to return (output, state); got "
                            f"{type(result).__name__}")
    return result


def _step_by_step(model: Any, x: Any, state: Any) -> tuple[Any, Any]:
    """A step of the model for every step of the piece."""
    leaves, rebuild = flatten(x)
    outputs, form, axis = list[list[Any]](), None, int(not model.reads_time_first())
    for t in range(as_tensor(leaves[0]).shape[axis]):
        y, state = _pair(model, model.step(rebuild([as_tensor(v)[(slice(None),) * axis + (t,)] for v in leaves]), state))
        parts, form = flatten(y)
        outputs.append(parts)
    if form is None:
        raise ArgumentError(f"{type(model).__name__} goes on by its own step, which needs a step to read")
    return form([stack(each, axis=axis) for each in zip(*outputs, strict=True)]), state


def _lifted(model: Any, x: Any, state: Any) -> tuple[Any, Any]:
    """The states of all loops over time are handed in and out, where the model keeps them to itself."""
    result = model(x)
    leaves, rebuild = flatten(result[0] if isinstance(result, tuple) else result)
    nodes = [as_tensor(leaf).source() for leaf in leaves]
    given = None if state is None else iter(flatten(state)[0])
    new: dict[Node, Node] = {}
    finals = []
    for n in walk(nodes):
        src = tuple(new[s] for s in n.src)
        if n.op is SCAN:
            src = _begun(model, n, src, given)
        new[n] = n if src == n.src else apply(n.op, src, n.at)
        if n.op is SCAN:
            finals.append(tuple(Tensor(final(new[n], i)) for i in range(ScanView.of(n).n_states)))
    return rebuild([Tensor(new[n]) for n in nodes]), finals


def _begun(model: object, scan: Node, src: tuple[Node, ...], given: Iterator[Any] | None) -> tuple[Node, ...]:
    """The sources of a loop that begins with the given states."""
    view = ScanView.of(scan)
    states, xs, constants = view.split(src)
    if view.reverse:
        raise ArgumentError(f"a stream is read forward, and {type(model).__name__} has a loop that reads its sequence from "
                            "the end: use predict on whole sequences")
    if given is not None:
        return (*(as_tensor(next(given)).source() for _ in states), *xs, *constants)
    if any(n.op is INPUT for n in walk(states)):
        raise ArgumentError(f"{type(model).__name__} has a loop that begins with what the model has read, so it cannot go on "
                            "from step to step: give its __call__ an argument state, and return (output, state)")
    return src
