"""Two readings of one sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArgumentError, LoadError
from ..tensor.rearrange import concat
from ..tensor.tensor import Tensor, TensorLike
from ..types import Seed
from ..viz.wiring import Wiring, joined
from .module import Module, build, describe, loadable
from .packed import Packed
from .recurrent import Recurrent

_MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda a, b: concat([a, b]), "sum": lambda a, b: a + b, "mul": lambda a, b: a * b,
    "mean": lambda a, b: (a + b) / 2}


@loadable
class Bidirectional(Module):
    """A recurrent layer and a second one, with parameters of its own, that reads from the end (Schuster & Paliwal, 1997).

    `y, (forward state, backward state) = layer(x)`; each row is read from its own last valid step.  `merge` is "concat",
    "sum", "mul", "mean", or None for the pair of outputs.  Any `Recurrent`, RNN, LSTM or GRU of one direction; without
    `rng` the second layer draws its weights where the first left off.

    x [B, T, X], y [B, T, 2H] (concat) or [B, T, H]. Raises `ArgumentError` for another merge and for what is no recurrent
    layer.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> layer = tr.nn.Bidirectional(tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, rng=0), rng=1)
    >>> layer(np.ones((2, 5, 3)))[0].shape
    (2, 5, 8)
    """

    reads_time = True

    def __init__(self, layer: Recurrent | Packed, merge: str | None = "concat", *, rng: Seed = None) -> None:
        if merge is not None and merge not in _MERGES:
            raise ArgumentError(f"merge={merge!r}: expected one of {', '.join(_MERGES)} or None")
        if not isinstance(layer, (Recurrent, Packed)):
            raise ArgumentError(f"Bidirectional takes Recurrent, RNN, LSTM or GRU, got {type(layer).__name__}")
        self.forward, self.merge = layer, merge
        self.backward = layer.backwards(layer.rng if rng is None else rng)

    @property
    def joint_inputs(self) -> tuple[str, ...]:
        return self.forward.joint_inputs

    def config(self) -> dict[str, Any]:
        return {"layer": describe(self.forward), "merge": self.merge}

    @classmethod
    def built(cls, config: dict[str, Any]) -> Module:
        inner = build(config.pop("layer"))
        if not isinstance(inner, (Recurrent, Packed)):
            raise LoadError(f"a Bidirectional layer around {type(inner).__name__}: expected a recurrent layer")
        return cls(inner, **config)

    def example(self, batch: int, *steps: int) -> Any:
        return self.forward.example(batch, *steps)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        ends = [end for part in ("forward", "backward") for end in into.add(getattr(self, part), joined(name, part), reads)]
        return [into.box([self.merge or "pair"], ends, "op")]

    def __call__(self, x: TensorLike, state: Any = None, lengths: Any = None, mask: Any = None) -> tuple[Any, tuple[Any, Any]]:
        if state is not None and (not isinstance(state, (tuple, list)) or len(state) != 2):
            raise ArgumentError("the state of a Bidirectional layer is a pair: (forward state, backward state)")
        begun = (None, None) if state is None else state
        y, after = self.forward(x, begun[0], lengths=lengths, mask=mask)
        z, before = self.backward(x, begun[1], lengths=lengths, mask=mask)
        return self._merged(y, z), (after, before)

    @property
    def reads_back(self) -> bool:
        return True

    def ended(self, x: TensorLike, state: Any = None, lengths: object = None, mask: Any = None) -> tuple[Any, tuple[Any, Any]]:
        """The output at the last step that each direction reads, as a sequence of one step, and the states."""
        begun = (None, None) if state is None else state
        y, after = self.forward.ended(x, begun[0], lengths, mask)
        z, before = self.backward.ended(x, begun[1], lengths, mask)
        return self._merged(y, z), (after, before)

    def _merged(self, y: Any, z: Any) -> Any:
        if self.merge is None:
            return y, z
        if isinstance(y, Mapping):
            return {name: _MERGES[self.merge](y[name], z[name]) for name in y}
        return _MERGES[self.merge](y, z)
