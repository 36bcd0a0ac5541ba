"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..serve.step import by_program
from ..shapes import show
from ..tensor.masks import blank_padding, marks_for, takes
from ..tensor.tensor import Tensor, TensorLike, as_tensor, extents
from ..trees import map_tree
from ..viz.wiring import Wiring, joined
from .layers import Dropout
from .module import Module, build, config_of, describe, loadable
from .pooling import Last
from .recurrent import one_row, only_row, single_rows


@loadable
class Sequential(Module):
    """Layers one after the other.

    `lengths` (or `mask`, bool [B, T]) blanks the padding of the input and goes to every layer that takes it, up to the
    first that leaves no time axis.  With `return_state` (or a `state` from before) the states of all layers come back
    beside the output; `step` keeps them from step to step.

    Shapes pass from layer to layer. Raises `ArgumentError` for what is no layer, and where a layer would read padding that it
    cannot know of.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.LSTM(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> model(np.ones((5, 7, 3)), lengths=[7, 6, 3, 1, 0]).shape
    (5, 2)
    """

    def __init__(self, *layers: Module) -> None:
        if not layers:
            raise ArgumentError("Sequential needs at least one layer")
        for layer in layers:
            if not isinstance(layer, Module):
                raise ArgumentError(f"Sequential takes layers one after the other, got {type(layer).__name__}; a list is given "
                                    "as Sequential(*layers), a function as Lambda(function)")
        self.layers = list(layers)

    @property
    def joint_inputs(self) -> tuple[str, ...]:
        return self.layers[0].joint_inputs

    @property
    def reads_back(self) -> bool:
        back = False
        for layer in self.layers:
            back = layer.reads_back or (back and not layer.reads_time)
        return back

    def ended(self, x: TensorLike, state: Any = None, lengths: Any = None, mask: Any = None, return_state: bool = False) -> Any:
        """The output at the last step that is read, as a sequence of one step, and the states."""
        return self._run(x, lengths, mask, state, last=True)

    def config(self) -> dict[str, Any] | None:
        if any(config_of(layer) is None for layer in self.layers):
            return None
        return {"layers": [describe(layer) for layer in self.layers]}

    @classmethod
    def built(cls, config: dict[str, Any]) -> Module:
        return cls(*map(build, config.pop("layers")), **config)

    def example(self, batch: int, *steps: int) -> Any:
        return self.layers[0].example(batch, *steps)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        for k, layer in enumerate(self.layers):
            reads = into.add(layer, joined(name, str(k)), reads)
            if layer.reads_back and self._ends(k, last=False):
                into.end(reads)
        return reads

    def __call__(self, x: TensorLike, lengths: TensorLike | None = None, mask: Any = None, state: Sequence[Any] | None = None,
                 return_state: bool = False) -> Any:
        y, after = self._run(x, lengths, mask, state)
        return (y, after) if return_state or state is not None else y

    def _run(self, x: Any, lengths: Any, mask: Any, state: Sequence[Any] | None, last: bool = False) -> tuple[Any, list[Any]]:
        """The output and the states of all layers; `last` says that Last comes next."""
        whole = lengths is None and mask is None
        if not whole and not self.reads_time_first():
            arrays = x if hasattr(x, "dtype") or isinstance(x, (dict, tuple)) else np.asarray(x)
            x = map_tree(lambda t: _blanked(t, lengths, mask), arrays)
        self._check_last()
        after, time_first = [], False
        for i, (layer, own) in enumerate(zip(self.layers, self._states(state), strict=True)):
            marks, before = {} if whole else marks_for(layer, lengths, mask, x), x
            ended = layer.reads_back and self._ends(i, last)
            x, new = self._through(layer, x, own, marks, time_first, ended)
            after.append(new)
            if ended:
                whole = True
            elif not whole and not marks and extents(x)[:2] != extents(before)[:2]:
                raise ArgumentError(f"{type(layer).__name__} made {show(np.shape(x))} of {show(np.shape(before))} and knows no "
                                    "lengths, so it would read the padding: pool with Last or Pool, or write a Module that "
                                    "takes lengths=")
            whole, time_first = whole or layer.ends_time, time_first or layer.reads_time_first()
        return x, after

    def _check_last(self) -> None:
        """Between a layer that reads from the end and Last stands nothing that would take its last step for the whole."""
        back, apart = None, False
        for layer in _single(self):
            if isinstance(layer, Last) and back is not None and apart:
                raise ArgumentError(f"Last takes the last step, at which {type(back).__name__} has read that step alone from "
                                    "the end: put Last right after it, where each direction gives its own last step")
            if layer.reads_back or layer.reads_time:
                back, apart = layer if layer.reads_back else None, False
            apart = apart or not (layer.reads_back or isinstance(layer, Dropout))

    def _ends(self, i: int, last: bool) -> bool:
        """Whether Last comes next, but for Dropout: then a layer hands out one step."""
        following = (m for layer in self.layers[i + 1 :] for m in _single(layer) if not isinstance(m, Dropout))
        found = next(following, None)
        return last if found is None else isinstance(found, Last)

    def _through(self, layer: Module, x: Any, state: Any, marks: Mapping[str, Any], time_first: bool,
                 ended: bool = False) -> tuple[Any, Any]:
        """The output of one layer, and its new state."""
        if layer.ends_time and time_first:
            raise ArgumentError(f"{type(layer).__name__} pools [B, T, ...], but a layer before it has "
                                "batch_first=False")
        if isinstance(x, (tuple, dict)) and not layer.joint_inputs:
            which = f" ({', '.join(x)})" if isinstance(x, dict) else ""
            raise ArgumentError(f"{type(layer).__name__} takes one tensor and got {len(x)}{which}; merge them, or choose one "
                                "by a Lambda between the layers")
        known = takes(layer)
        run: Any = layer.ended if ended else layer
        y = run(x, **marks, **{k: v for k, v in (("state", state), ("return_state", True)) if k in known})
        return y if isinstance(y, tuple) else (y, None)

    def _states(self, state: Sequence[Any] | None) -> Sequence[Any]:
        if state is not None and len(state) != len(self.layers):
            raise ArgumentError(f"the state holds one entry for each of {len(self.layers)} layers, got {len(state)}")
        return [None] * len(self.layers) if state is None else state

    def step(self, x: TensorLike, state: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """One time step through all layers; see `Recurrent.step`."""
        found = by_program(self, x, state)
        return self.stepped(x, state) if found is None else found

    def stepped(self, x: TensorLike, state: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """A step as a graph."""
        new = []
        for layer, own in zip(self.layers, self._states(state), strict=True):
            if not hasattr(layer, "step"):
                raise ArgumentError(f"{type(layer).__name__} has no step(x_t, state), so the model cannot stream")
            x, after = layer.step(x, own)
            new.append(after)
        return x, new


def _single(layer: Module) -> Iterator[Module]:
    """The layers of a Sequential one by one."""
    if isinstance(layer, Sequential):
        for inner in layer.layers:
            yield from _single(inner)
    else:
        yield layer


def _blanked(x: TensorLike, lengths: Any, mask: Any) -> Tensor:
    """A batch, or one sequence with its own length or mask, with zeros in the padding."""
    if np.ndim(lengths) if mask is None else np.ndim(mask) == 2:
        return blank_padding(as_tensor(x), lengths, mask)
    return only_row(blank_padding(one_row(x, 0), *single_rows(lengths, mask, 0)), 0)
