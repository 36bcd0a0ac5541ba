"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..padding import blank_padding, marks_for, takes
from ..shapes import show
from ..tensor import Tensor, as_tensor
from ..trees import map_tree
from .layers import Dropout
from .module import Module, config_of, describe
from .pooling import Last
from .recurrent import one_row, only_row, single_rows


class Sequential(Module):
    """Layers one after the other.

    `lengths` (or `mask`, bool [B, T]) blanks the padding of the input and goes to every layer that takes it, up to the
    first that leaves no time axis.  With `return_state` (or a `state` from before) the states of all layers come back
    beside the output; `step` keeps them from step to step.
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

    def config(self) -> dict[str, Any] | None:
        if any(config_of(layer) is None for layer in self.layers):
            return None
        return {"layers": [describe(layer) for layer in self.layers]}

    def __call__(self, x: Any, lengths: Any = None, mask: Any = None, state: Sequence[Any] | None = None,
                 return_state: bool = False) -> Any:
        whole = lengths is None and mask is None
        if not whole and not self.reads_time_first():
            arrays = x if hasattr(x, "dtype") or isinstance(x, (dict, tuple)) else np.asarray(x)
            x = map_tree(lambda t: _blanked(t, lengths, mask), arrays)
        after, time_first, back = [], False, None
        for i, (layer, own) in enumerate(zip(self.layers, self._states(state), strict=True)):
            marks, before = {} if whole else marks_for(layer, lengths, mask, x), x
            ended = layer.reads_back and self._ends(i)
            if back is not None and isinstance(layer, Last):
                raise ArgumentError(f"Last takes the last step, at which {type(back).__name__} has read that step alone from "
                                    "the end: put Last right after it, where each direction gives its own last step")
            back = None if ended or layer.reads_time else back
            back = layer if layer.reads_back and not ended else back
            x, new = self._through(layer, x, own, marks, time_first, ended)
            after.append(new)
            if ended:
                whole = True
            elif not whole and not marks and np.shape(x)[:2] != np.shape(before)[:2]:
                raise ArgumentError(f"{type(layer).__name__} made {show(np.shape(x))} of {show(np.shape(before))} and knows no "
                                    "lengths, so it would read the padding: pool with Last or Pool, or write a Module that "
                                    "takes lengths=")
            whole, time_first = whole or layer.ends_time, time_first or layer.reads_time_first()
        return (x, after) if return_state or state is not None else x

    def _ends(self, i: int) -> bool:
        """Whether Last comes next, but for Dropout: then a layer hands out one step."""
        following = (m for m in self.layers[i + 1 :] if not isinstance(m, Dropout))
        return isinstance(next(following, None), Last)

    def _through(self, layer: Module, x: Any, state: Any, marks: Mapping[str, Any], time_first: bool,
                 ended: bool = False) -> tuple[Any, Any]:
        """The output of one layer, and its new state."""
        if layer.ends_time and time_first:
            raise ArgumentError(f"{type(layer).__name__} pools [B, T, ...], but a layer before it has batch_first=False or "
                                "time_major=True")
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

    def step(self, x: Any, state: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """One time step through all layers."""
        new = []
        for layer, own in zip(self.layers, self._states(state), strict=True):
            if not hasattr(layer, "step"):
                raise ArgumentError(f"{type(layer).__name__} has no step(x_t, state), so the model cannot stream")
            x, after = layer.step(x, own)
            new.append(after)
        return x, new


def _blanked(x: Any, lengths: Any, mask: Any) -> Tensor:
    """A batch, or one sequence with its own length or mask, with zeros in the padding."""
    if np.ndim(lengths) if mask is None else np.ndim(mask) == 2:
        return blank_padding(as_tensor(x), lengths, mask)
    return only_row(blank_padding(one_row(x, 0), *single_rows(lengths, mask, 0)), 0)
