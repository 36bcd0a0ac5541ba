"""What training asks of a layer or a model; `analysis.subject.Model` and `viz.wiring.Wired` say what being looked at takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

from .errors import ArgumentError
from .tensor.tensor import Tensor


@runtime_checkable
class Trainable(Protocol):
    """What can be trained: a call, its data by name, and its layers."""

    training: bool

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """The output, or the output and a state."""

    def leaves(self) -> Iterator[tuple[str, Tensor]]:
        """All that holds data, once, by dotted names."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """What is trained of it."""

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The model itself and every layer inside, by dotted names."""

    def train(self, mode: bool = True) -> Any:
        """Training mode: dropout is on."""

    def eval(self) -> Any:
        """Evaluation mode: dropout is off."""

    def reads_time_first(self) -> bool:
        """Whether a layer inside takes [T, B, ...]."""

    def one_line(self) -> str:
        """What it is made of, in a line of text."""


_KNOWN: WeakSet[type] = WeakSet()  # classes whose models can be trained: to look again takes as long as a small model


def checked_model(model: Trainable, who: str) -> None:
    """Refuse what cannot be trained or run."""
    if type(model) in _KNOWN:
        return
    if isinstance(model, type) or not isinstance(model, Trainable):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise ArgumentError(f"{who} takes a layer or a model, got {kind}")
    if all(hasattr(type(model), name) for name in ("training", "leaves", "named_modules")):
        _KNOWN.add(type(model))


def backward_layer(model: Trainable) -> str | None:
    """The first layer that reads its sequence from the end, in words; a model that holds one cannot be read in pieces."""
    return next((f"{name or 'the model'} ({type(m).__name__})" for name, m in model.named_modules()
                 if m.reads_time and m.reads_back), None)


_set, _ticks = [0], count(1)


def attributes_set() -> int:
    """A number that is another one after an attribute of any layer was set or deleted."""
    return _set[0]


def note_attribute() -> None:
    """An attribute of a layer was set or deleted."""
    _set[0] = next(_ticks)


_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)


def is_evaluating() -> bool:
    """Whether models are run in evaluation mode here, whatever mode they are in."""
    return _evaluating.get()


@contextmanager
def evaluating() -> Iterator[None]:
    """Models in evaluation mode: in this thread, whatever modes they are in for others."""
    token = _evaluating.set(True)
    try:
        yield
    finally:
        _evaluating.reset(token)
