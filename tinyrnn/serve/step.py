"""One step of a layer by a compiled program, where nobody asks for gradients."""

from __future__ import annotations

from typing import Any

from ..backends import is_device
from ..tensor.tensor import Tensor, as_tensor
from ..tensor.tracing import as_graphs, current
from ..trees import flatten, map_tree
from .kept import programs_of, served


def by_program(layer: Any, x: Any, state: Any) -> tuple[Any, Any] | None:
    """`layer.stepped(x, state)` as values without history, by a program that the layer keeps.

    None in training mode, while a function is traced or differentiated, for tensors without a value, and for what lives on a
    GPU: then the step is a graph, and gradients flow through it.
    """
    if current() is not None or as_graphs() or layer.training or not all(map(_is_here, (*flatten(x)[0], *flatten(state)[0]))):
        return None
    program = served(layer, "step", _stepped)
    if programs_of(layer).training:
        return None
    result: tuple[Any, Any] = map_tree(as_tensor, program(x, state))
    return result


def _stepped(layer: Any, x: Any, state: Any) -> Any:
    return layer.stepped(x, state)


def _is_here(value: Any) -> bool:
    """Whether a value is one of the host, or can be had."""
    if isinstance(value, Tensor):
        return value.backend != "cuda" and (value.is_leaf or not value.symbolic)
    return not is_device(value)
