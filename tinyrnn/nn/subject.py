"""A layer or model on data, as something to look at: its graph with a loss, and the names of what is inside."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np

from ..analysis.recurrence import Names
from ..analysis.subject import UNAIMED, Loss, Model, Subject, subject_of_graph
from ..cells import Cell
from ..errors import ArgumentError, TinyRNNError
from ..ir.graph import Graph
from ..losses import loss_named
from ..model import evaluating
from ..shapes import show
from ..tensor.functional import sum as total
from ..tensor.masks import check_lengths, row_mask, takes
from ..tensor.tensor import Tensor, as_tensor
from ..train.task import call, output_grows, takes_mask
from .observed import observed


def subject_of_model(model: Model, x: object, y: object = None, *, lengths: Any = None, mask: Any = None,
                     loss: Loss = None) -> Subject:
    """A layer or model on rows of data, in evaluation mode (without dropout).

    With targets `y` the loss is one of `fit`'s (`"cross_entropy"` unless named), a function of (output, target).
    Without them it is a function of the output, "sum", or "last", the default: the sum of the output at each row's last
    step, or of all of it where it has no time axis.
    """
    data = tuple(map(as_tensor, x)) if isinstance(x, tuple) else as_tensor(x)
    last = data[-1] if isinstance(data, tuple) else data
    if 0 in last.shape[:2]:
        raise ArgumentError(f"x has shape {show(last.shape)}: at least one row and one step are needed")
    time_first = model.reads_time_first()
    timed = y is None or time_first or (lengths is None and mask is None)
    if not timed:
        with evaluating():
            timed = _timed(model, data, as_tensor(y))
    with evaluating(), observed(model) as heard:
        output = (_called(model, data, lengths, mask) if time_first else
                  call(model, data, lengths, mask, None, False, checked=False)[0])
        if y is not None:
            value = _against(output, as_tensor(y), lengths if timed else None, mask if timed else None, loss or "cross_entropy")
        else:
            axis = 0 if time_first or _single(output, last) else 1
            value = _unaimed(output, last, lengths, axis, loss)
    if not isinstance(value, Tensor) or value.shape:
        seen = show(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ArgumentError(f"the loss is to be one number, got {seen}")
    graph = Graph({"loss": value})
    rows = (data[-1] if isinstance(data, tuple) else data).shape[0]
    name = "a function of the output" if callable(loss) else UNAIMED[loss or "last"] if y is None else loss or "cross_entropy"
    what = f"{name}; {rows} row{'s' * (rows != 1)} of data"
    subject = subject_of_graph(type(model).__name__, graph, {}, names_of(model), rows, what)
    return replace(subject, outputs=heard, inputs=[t.node for t in (data if isinstance(data, tuple) else (data,))],
                   target=None if y is None else as_tensor(y).numpy())


def _timed(model: Model, data: Any, y: Tensor) -> bool:
    """Whether there is a target for every step: sizes alone cannot tell (4 steps, 4 outputs)."""
    parts = enumerate(data if isinstance(data, tuple) else (data,))
    return any(p.ndim > 1 and y.ndim > 1 and y.shape[1] == p.shape[1] and output_grows(model, data, i) for i, p in parts)


def _check_call(function: Any, *arguments: Tensor) -> None:
    """Whether a function of one's own takes what it is given."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # it says nothing of itself
        return
    except TypeError:
        what = "(output, target), since y is given" if len(arguments) == 2 else "the output alone, since no y is given"
        raise ArgumentError(f"the loss is called with {what}, and takes other arguments") from None


def _against(output: Tensor, y: Tensor, lengths: Any, mask: Any, loss: Any) -> Tensor:
    function = loss_named(loss)
    last = lengths[-1] if isinstance(lengths, tuple) else lengths
    if last is not None and y.ndim > 1 and takes_mask(function):
        mask = row_mask(y.shape[1], last, y.shape[0])
    _check_call(function, output, y)
    try:
        result: Tensor = function(output, y) if mask is None else function(output, y, mask=mask)
    except TinyRNNError as error:
        raise ArgumentError(f"{error}; give the loss that the model was trained with, such as loss='mse'") from None
    return result


def _unaimed(output: Tensor, data: Tensor, lengths: Any, axis: int, loss: Loss) -> Tensor:
    """A loss that reads no target."""
    if callable(loss):
        _check_call(loss, output)
        value: Tensor = loss(output)
        return value
    if loss is not None and loss not in UNAIMED:
        raise ArgumentError(f"loss={loss!r} compares with targets, which are not given: give y, or loss='last', 'sum' or a "
                            "function of the output")
    return total(output) if loss == "sum" else _last(output, data, lengths, axis)


def _called(model: Model, data: Any, lengths: Any, mask: Any) -> Tensor:
    """The output of a model that takes its sequences time first."""
    marks = {k: v for k, v in (("lengths", lengths), ("mask", mask)) if v is not None}
    unknown = [k for k in marks if k not in takes(model)]
    if unknown:
        raise ArgumentError(f"{type(model).__name__} takes its sequences time first and knows no {unknown[0]}")
    result = model(*data, **marks) if isinstance(data, tuple) else model(data, **marks)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output


def _single(output: Tensor, data: Tensor) -> bool:
    """Whether the output is that of one sequence without batch axis."""
    return output.ndim == 2 and data.ndim == 2 and data.dtype.kind == "f" and output.shape[0] == data.shape[0]


def _last(output: Tensor, data: Tensor, lengths: Any, axis: int) -> Tensor:
    """The sum of the output at each row's last step."""
    steps = data.shape[axis]
    if output.ndim < 3 - (axis == 0 and data.ndim == 2) or output.shape[axis] != steps:
        return total(output)
    if lengths is None:
        return total(output[:, -1] if axis else output[-1])
    counts = check_lengths(lengths[-1] if isinstance(lengths, tuple) else lengths, steps, output.shape[1 - axis])
    weight = np.zeros((len(counts), steps))
    weight[np.flatnonzero(counts), counts[counts > 0] - 1] = 1
    shaped = (weight if axis else weight.T).reshape(*output.shape[:2], *(1,) * (output.ndim - 2))
    return total(output * as_tensor(shaped.astype(output.dtype)))


def names_of(model: Model) -> Names:
    """What a model's parameters are called, and which layer they belong to."""
    layers = {t.node: path for path, m in model.named_modules() if isinstance(m.cell, Cell) for _, t in m.places()}
    return Names({t.node: name for name, t in model.places()}, layers)
