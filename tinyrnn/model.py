"""What training, analyses and pictures ask of a layer or a model: whoever answers this is trained, x-rayed and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .cells import Cell
from .ir.node import Node
from .tensor import Tensor

if TYPE_CHECKING:
    from .analysis.study import Study
    from .viz.wiring import Wiring


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

    def described(self) -> str:
        """What it is made of, in a line of text."""


@runtime_checkable
class Model(Trainable, Protocol):
    """What can be looked at, too."""

    cell: Cell | None

    def places(self, prefix: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Tensor]]:
        """Every place that holds data; what is shared stands in several."""

    def summary(self) -> str:
        """A table of the layers."""

    def example(self, batch: int, *steps: int) -> Any:
        """An input of the right shape and dtype."""

    def subject(self, x: Any, y: Any = None, *, lengths: Any = None, mask: Any = None, loss: Any = None) -> Study:
        """A run on data with a loss, ready to be analysed."""

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """Its boxes on a picture, and from which of them its output comes."""

    def cell_names(self) -> dict[Node, str]:
        """What the cell inside calls its parameters."""


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
