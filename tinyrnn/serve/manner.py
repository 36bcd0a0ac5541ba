"""What must be known of a model to run it step by step: tried out once, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..domains.complex_step import COMPLEX_STEP
from ..errors import ArgumentError, TinyRNNError
from ..ir import Graph
from ..ir.node import Node
from ..ir.ops.leaves import input_node
from ..model import Trainable, evaluating
from ..tensor.tensor import Tensor, as_tensor
from ..tensor.tracing import Trace, tracing
from ..trees import flatten, map_tree
from .advance import Advance, has_call, ways

Array = npt.NDArray[Any]
STEPS = 33, 12, 4  # of the sequence on which a model is tried: fewer where it takes no more
ALONE = 3          # steps that are taken one by one; the others follow as one block, and would miss what came before it
CLOSE = 1e-9       # of an output: far above rounding in double precision, far below what is missing


class Manner(NamedTuple):
    """How a model reads and writes in pieces."""

    advance: Advance
    axis: int                    # of time, in inputs
    step: Any                    # an input of one step
    over_time: list[int | None]  # the axis of time in every output; None where the output has none
    rows: list[int | None]       # the axis of rows in every state
    begins: bool                 # whether the state before the first step is known


def manner_of(model: Any, step: Any) -> Manner:
    """How a model reads and writes in pieces; `step` is an input of one step, two rows or more."""
    errors = []
    for advance in ways(model):
        try:
            return _manner_by(advance, model, step)
        except TinyRNNError as error:
            errors.append(error)
    raise errors[0]


def _manner_by(advance: Advance, model: Any, step: Any) -> Manner:
    axis = int(not model.reads_time_first())
    more = map_tree(lambda a: np.concatenate([a, a[:1]]), step)
    with evaluating():
        (y2, s2), (y3, s3), (_, other) = (
            _shapes(model, advance, _block(x, n, axis)) for x, n in ((step, 2), (step, 3), (more, 2)))
    if s2 != s3:
        raise ArgumentError(f"the state of {type(model).__name__} grows from step to step, from {s2} to {s3}: use predict on "
                            "whole sequences")
    manner = Manner(advance, axis, step, [_differing(a, b) for a, b in zip(y2, y3, strict=True)],
                    [_differing(a, b) for a, b in zip(s2, other, strict=True)], _begins(model, advance, step, axis, s2))
    return _try(model, manner)


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
        with evaluating():
            return _shapes(model, advance, _block(step, 0, axis))[1] == states
    except (TinyRNNError, IndexError, ZeroDivisionError):  # a function of one's own may want a step
        return False


class _Trial:
    """A model on one sequence: as a whole, and piece by piece, in double precision by the interpreter."""

    def __init__(self, model: Trainable, manner: Manner, steps: int) -> None:
        self.model, self.manner, self.steps, self.data = model, manner, steps, dict[Node, Any]()
        self.x = map_tree(lambda a: _varied(model, np.expand_dims(a, manner.axis), manner.axis, steps), manner.step)

    def drawn(self) -> None:
        """Other weights from now on: a weight that is zero hides what it is multiplied with."""
        rng = np.random.default_rng(1)
        self.data = {t.node: rng.normal(size=t.shape) / np.sqrt(max(t.shape[-1:], default=1)) for _, t in self.model.leaves()
                     if t.dtype.kind == "f"}

    def whole(self) -> list[Array]:
        def run(x: Any) -> Any:
            y = self.model(x)
            return y[0] if isinstance(y, tuple) else y

        return flatten(self._values(run, self.x))[0]

    def differs(self, wanted: Sequence[Array], begins: bool) -> int | None:
        """The step up to which the pieces are not what the whole is; None where they are."""
        pieces = [*((t, t + 1) for t in range(ALONE)), (ALONE, self.steps)]
        state = None
        if begins:
            _, state = self._values(self._piece, steps_of(self.x, slice(0), self.manner.axis), None)
        for first, last in pieces:
            y, state = self._values(self._piece, steps_of(self.x, slice(first, last), self.manner.axis), state)
            for own, all_of_it, over in zip(flatten(y)[0], wanted, self.manner.over_time, strict=True):
                if over is None and last < self.steps:
                    continue
                other = all_of_it if over is None else all_of_it[(slice(None),) * over + (slice(first, last),)]
                if own.shape != other.shape or not _close(own, other):
                    return last
        return None

    def _piece(self, x: Any, state: Any) -> Any:
        return self.manner.advance(self.model, x, state)

    def _values(self, run: Callable[..., Any], *args: Any) -> Any:
        """What a function of the model gives for arrays."""
        arrays, form = flatten(args)
        nodes = [input_node(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
        with evaluating(), tracing(Trace()):
            leaves, rebuild = flatten(run(*form([Tensor(n) for n in nodes])))
        graph = Graph({str(i): as_tensor(t).source() for i, t in enumerate(leaves)})
        given = {f"x{i}": a for i, a in enumerate(arrays) if f"x{i}" in graph.inputs}
        given |= {k: self.data[n] for k, n in graph.leaves.items() if n in self.data}
        with np.errstate(all="ignore"):
            found = graph.run(given, domain=COMPLEX_STEP)
        return rebuild([np.real(v) if v.dtype.kind == "c" else v for v in found.values()])


def _try(model: Trainable, manner: Manner) -> Manner:
    """The pieces one after the other must give what the whole sequence gives: with the model's weights and with random ones."""
    if not has_call(model):
        return manner
    trial, whole = _fitting(model, manner)
    for drawn in (False, True):
        if drawn:
            trial.drawn()
            whole = trial.whole()
        wrong = trial.differs(whole, manner.begins)
        if wrong is not None and manner.begins and trial.differs(whole, False) is None:
            manner, wrong = manner._replace(begins=False), None  # a sequence of no steps gives another state than none
        if wrong is not None:
            raise ArgumentError(
                f"{type(model).__name__} cannot be read as a stream: tried on {trial.steps} steps of random numbers, its "
                f"output up to step {wrong} is not what its steps give one after the other. Something in it looks at other "
                "steps (a pool or mean over time, attention, a convolution, a loop of one's own whose state starts anew): use "
                "predict on whole sequences")
    return manner


def _fitting(model: Trainable, manner: Manner) -> tuple[_Trial, list[Array]]:
    """A trial of as many steps as the model takes."""
    for steps in STEPS[:-1]:
        try:
            trial = _Trial(model, manner, steps)
            return trial, trial.whole()
        except TinyRNNError:  # it has places for fewer steps
            continue
    trial = _Trial(model, manner, STEPS[-1])
    return trial, trial.whole()


def _varied(model: Trainable, a: Array, axis: int, steps: int) -> Array:
    """Steps that differ: random numbers, or tokens that the model knows, as far as it says how many."""
    rng, several = np.random.default_rng(0), np.repeat(a, steps, axis)
    if a.dtype.kind == "f":
        return rng.normal(size=several.shape).astype(a.dtype)
    if a.dtype.kind == "b":
        return rng.random(several.shape) < 0.5
    known = [m.num_embeddings for _, m in model.named_modules() if hasattr(m, "num_embeddings")]
    most = min(known) - 1 if known else int(a.max(initial=0))
    return rng.integers(0, max(most, 0), several.shape, endpoint=True).astype(a.dtype)


def _close(a: Array, b: Array) -> bool:
    """Equal but for rounding, beside the largest number of each output at any row and step."""
    if a.dtype.kind != "f" or not a.ndim:
        return bool(np.allclose(a, b, rtol=CLOSE, atol=CLOSE, equal_nan=True))
    axes = tuple(range(a.ndim - 1))
    size = np.max(np.abs(b), axis=axes, keepdims=True, initial=0.0, where=np.isfinite(b))
    with np.errstate(invalid="ignore"):
        near = (np.abs(a - b) <= CLOSE * np.maximum(size, CLOSE)) | (a == b) | (np.isnan(a) & np.isnan(b))
    return bool(near.all())
