"""A compiled function as an operation of PyTorch's, differentiable in both modes and as often as one likes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backends import helped_by, openmp, taken
from ..exchange.pure import Arguments, Differentiable, PureModel
from ..tensor.pullbacks import Held
from ..tensor.signatures import Spec

KINDS = {getattr(torch, name): np.dtype(name) for name in (
    "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")}


def run(pure: PureModel, weights: Sequence[torch.Tensor], arguments: Arguments, backend: str) -> Any:
    """The model's results for these weights and arguments."""
    given = arguments.arrays
    function = pure.function(weights, arguments, backend)
    key = [torch.randint(0, 2**32, (2,)).to(torch.uint32)] if function.draws else []
    found = _applied(function.differentiable, [*weights, *key, *given])
    return function.result(list(found))


def specified(t: torch.Tensor) -> Spec:
    """The shape and dtype of a tensor, in NumPy's words."""
    return Spec(tuple(t.shape), KINDS[t.dtype])


def _applied(function: Differentiable, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    wanted = tuple([torch.is_grad_enabled() and t.requires_grad for t in tensors])
    found: tuple[torch.Tensor, ...] = _Operation.apply(_Call(function, wanted), *tensors)
    return found


class _Call:
    """One call of a function, and what it leaves for the gradients that are wanted."""

    def __init__(self, function: Differentiable, wanted: tuple[bool, ...]) -> None:
        self.function, self.wanted = function, wanted
        self.held: Held | None = None

    def values(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        arrays = [array_of(t) for t in tensors]
        with helped_by(TEAM):
            if not any(self.wanted):
                return self.function.value(arrays, torch.get_num_threads())
            found, self.held = self.function.value_and_held(arrays, self.wanted, torch.get_num_threads())
        return found

    def gradients(self, tensors: Sequence[torch.Tensor], adjoints: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """A gradient for every tensor that one is wanted of.  What was saved is let go as PyTorch lets its own go: at once,
        unless the graph is retained."""
        assert self.held is not None
        read = [array_of(tensors[i]) for i in self.held.pair.read]  # where their numbers are now: storage may have moved
        with helped_by(TEAM):
            found = list(self.held.gradients(read, [array_of(g) for g in adjoints]))
        if not _retained():
            self.held = None
        return [None if g is None else tensor_of(g) for g in found]


class _Operation(torch.autograd.Function):
    """PyTorch's side of a call: the call, then its tensors."""

    @staticmethod
    def forward(call: _Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor_of(a) for a in call.values(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        call, *tensors = inputs
        ctx.call, ctx.floating = call, [t.is_floating_point() for t in output]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.mark_non_differentiable(*(t for t in output if not t.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors  # PyTorch refuses here, where one of them was changed in place
        call, adjoints = ctx.call, [g for g, floats in zip(gradients, ctx.floating, strict=True) if floats]
        wanted = ctx.needs_input_grad[1:]
        if call.held is not None and not torch.is_grad_enabled() and all(map(_implied, wanted, call.wanted)):
            return None, *call.gradients(tensors, adjoints)
        found = iter(_applied(call.function.pullback(len(adjoints)), [*tensors, *adjoints]))
        return None, *(next(found) if t.is_floating_point() else None for t in tensors)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        moved = [torch.zeros_like(t) if v is None else v for t, v in zip(tensors, tangents, strict=True)
                 if t.is_floating_point()]
        found = iter(_applied(ctx.call.function.pushforward(len(moved)), [*tensors, *moved]))
        return tuple(next(found) if floats else None for floats in ctx.floating)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: _Call, *tensors: torch.Tensor) -> tuple[Any, Any]:
        """Row by row."""
        count, given = info.batch_size, list(zip(tensors, in_dims[1:], strict=True))
        if not count:  # one row of zeros says what a row gives
            given = [(t if d is None else t.new_zeros([n or 1 for n in t.shape]), d) for t, d in given]
        found = [_applied(call.function, [t if d is None else t.select(d, i) for t, d in given]) for i in range(count or 1)]
        return tuple(torch.stack(parts)[:count] for parts in zip(*found, strict=True)), (0,) * len(found[0])


# PyTorch asks for it at every call, and to find it takes long.
_Operation.forward.__signature__ = inspect.signature(_Operation.forward)  # type: ignore[attr-defined]


_retained: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def _team() -> Any:
    """PyTorch's own threads, which stay awake on our processors anyway; None where it brings no GNU OpenMP."""
    files = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return openmp(files[0]) if files else None


TEAM = _team()


def _implied(wanted: bool, there: bool) -> bool:
    return there or not wanted


def array_of(t: torch.Tensor) -> Any:
    """The numbers of a tensor where they are, as an array of NumPy or of CuPy."""
    return taken(t.detach()) if t.is_cuda else t.numpy(force=True)  # which copies nothing where the numbers are there


def tensor_of(array: Any) -> torch.Tensor:
    """A tensor over the memory of an array."""
    return torch.from_numpy(np.asarray(array)) if isinstance(array, (np.ndarray, np.generic)) else torch.from_dlpack(array)
