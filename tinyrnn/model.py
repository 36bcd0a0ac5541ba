"""What training asks of a layer or a model; `analysis.subject.Model` and `viz.wiring.Wired` say what being looked at takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

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


def checked_model(model: Trainable, who: str) -> None:
    """Refuse what cannot be trained or run."""
    if isinstance(model, type) or not isinstance(model, Trainable):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise ArgumentError(f"{who} takes a layer or a model, got {kind}")


class evaluating:  # noqa: N801  (reads as a verb where it is used: `with evaluating(model):`)
    """The model in evaluation mode, and afterwards every layer in the mode that it was in."""

    def __init__(self, model: Trainable) -> None:
        self.model = model
        self.modes = [(m, m.training) for _, m in model.named_modules()]

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for m, mode in self.modes:
            m.training = mode
