"""What must be known of a model to run it step by step: tried out once, before the first step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, TinyRNNError
from ..ir.ops.leaves import input_node
from ..model import Trainable, evaluating
from ..tensor.compile import Program
from ..tensor.tensor import Tensor
from ..tensor.tracing import Trace, tracing
from ..trees import flatten, map_tree
from .advance import Advance, has_call, ways

Array = npt.NDArray[Any]
STEPS = 3          # of the sequence on which a model is tried
CLOSE = 2.0**-12   # of the largest output: far above rounding, far below a step that is missing


class Manner(NamedTuple):
    """How a model reads and writes in pieces."""

    advance: Advance
    axis: int                    # of time, in inputs
    step: Any                    # an input of one step
    over_time: list[int | None]  # the axis of time in every output; None where the output has none
    rows: list[int]              # the axis of rows in every state
    begins: bool                 # whether the state before the first step is known


def manner_of(model: Any, step: Any) -> Manner:
    """How a model reads and writes in pieces; `step` is an input of one step, two rows or more."""
    errors = []
    for advance in ways(model):
        try:
            return _tried(model, advance, step)
        except TinyRNNError as error:
            errors.append(error)
    raise errors[0]


def _tried(model: Any, advance: Advance, step: Any) -> Manner:
    axis = int(not model.reads_time_first())
    more = map_tree(lambda a: np.concatenate([a, a[:1]]), step)
    with evaluating(model):
        (y2, s2), (y3, s3), (_, other) = (
            _shapes(model, advance, _block(x, n, axis)) for x, n in ((step, 2), (step, 3), (more, 2)))
    if s2 != s3:
        raise ArgumentError(f"the state of {type(model).__name__} grows from step to step, from {s2} to {s3}: use predict on "
                            "whole sequences")
    manner = Manner(advance, axis, step, [_differing(a, b) for a, b in zip(y2, y3, strict=True)],
                    [_differing(a, b) or 0 for a, b in zip(s2, other, strict=True)], _begins(model, advance, step, axis, s2))
    _try(model, manner)
    return manner


def steps_of(x: Any, part: slice, axis: int) -> Any:
    """Some steps of an input."""
    return map_tree(lambda a: a[(slice(None),) * axis + (part,)], x)


def _block(step: Any, n: int, axis: int) -> Any:
    """A step n times, as a sequence."""
    return map_tree(lambda a: np.repeat(np.expand_dims(a, axis), n, axis), step)


Shapes = list[tuple[int, ...]]


def _shapes(model: Any, advance: Advance, x: Any) -> tuple[Shapes, Shapes]:
    """The shapes of outputs and states for an input."""
    leaves, rebuild = flatten(x)
    with tracing(Trace()):
        inputs = rebuild([Tensor(input_node(f"x{i}", a.shape, a.dtype)) for i, a in enumerate(leaves)])
        y, state = advance(model, inputs, None)
    return [t.shape for t in flatten(y)[0]], [t.shape for t in flatten(state)[0]]


def _differing(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """The axis along which two shapes differ."""
    return next((i for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n), None) if len(a) == len(b) else None


def _begins(model: Any, advance: Advance, step: Any, axis: int, states: Shapes) -> bool:
    """Whether a sequence of no steps gives the state before the first one."""
    try:
        with evaluating(model):
            return _shapes(model, advance, _block(step, 0, axis))[1] == states
    except (TinyRNNError, IndexError, ZeroDivisionError):  # a function of one's own may want a step
        return False


def _try(model: Trainable, manner: Manner) -> None:
    """The steps one after the other must give what the whole sequence gives: on random numbers, by the interpreter."""
    if not has_call(model):
        return
    x, axis = map_tree(lambda a: _varied(np.expand_dims(a, manner.axis), manner.axis), manner.step), manner.axis

    def whole(x: Any) -> dict[str, Any]:
        with evaluating(model):
            y: Any = model(x)
        return {"y": y[0] if isinstance(y, tuple) else y}

    def piece(x: Any, state: Any) -> dict[str, Any]:
        with evaluating(model):
            y, after = manner.advance(model, x, state)
        return {"y": y, "state": after}

    wanted, program, state = flatten(Program(whole, "numpy")(x)["y"])[0], Program(piece, "numpy"), None
    for t in range(STEPS):
        results = program(steps_of(x, slice(t, t + 1), axis), state)
        state = results["state"]
        for y, all_of_it, over in zip(flatten(results["y"])[0], wanted, manner.over_time, strict=True):
            if over is None and t + 1 < STEPS:
                continue
            other = all_of_it if over is None else all_of_it[(slice(None),) * over + (slice(t, t + 1),)]
            if y.shape != other.shape or not _close(y, other):
                raise ArgumentError(
                    f"{type(model).__name__} cannot be read as a stream: tried on {STEPS} steps, its output at step {t + 1} is "
                    "not what its steps give one after the other. Something in it looks at other steps (a pool or mean over "
                    "time, attention, a loop of one's own whose state starts anew): use predict on whole sequences")


def _varied(a: Array, axis: int) -> Array:
    """Steps that differ: random numbers, or the whole numbers that are there in another order."""
    rng = np.random.default_rng(0)
    several = np.repeat(a, STEPS, axis)
    if a.dtype.kind == "f":
        return rng.normal(size=several.shape).astype(a.dtype)
    return rng.permutation(several.reshape(-1)).reshape(several.shape)


def _close(a: Array, b: Array) -> bool:
    size = float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=0, atol=CLOSE * (size or 1.0), equal_nan=True))
