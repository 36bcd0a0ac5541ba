"""A cell, a layer or a model as a module of PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from ..cells import Cell
from ..errors import ArgumentError, DTypeError
from ..exchange.pure import Arguments, PureModel
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..tensor.tensor import Tensor
from ..trees import described, flatten, is_array
from .function import KINDS, run, specified

Dtypes = tuple[Any, ...]
HALF = torch.float16, torch.bfloat16


class Layer(torch.nn.Module):
    """A cell, a layer or a model of tinyrnn as a PyTorch module, run forwards and backwards by tinyrnn's compiled programs.

    `tr.torch.Layer(cell, x=64, h=128)` runs a cell, given by its equations or its name, over a sequence;
    `tr.torch.Layer(layer)` takes any layer or model of `tr.nn`.  It is called as that layer is, with tensors of PyTorch:

        y, state = layer(x, state=None, lengths=None, mask=None)          x [B, T, X], y [B, T, H]

    Its weights are PyTorch parameters under tinyrnn's names, float32 or float64; those that are not trained are buffers.
    Gradients are exact, in both modes and of every order.  On the CPU no tensor is copied; on a GPU they are handed over by
    DLPack.  It uses as many threads as PyTorch does (`torch.set_num_threads`) and draws the masks of dropout from PyTorch's
    generator.  `torch.compile` leaves it as it is, between two of its graphs.

    Raises `ArgumentError` for what is neither cell nor layer, for weights that are called like a method of PyTorch's modules,
    and for tensors on different devices; `DTypeError` for other dtypes; and what the layer raises for its arguments.

    >>> import torch
    >>> import tinyrnn as tr
    >>> layer = tr.torch.Layer("mgu", x=3, h=4, rng=0)
    >>> y, (h,) = layer(torch.ones(2, 5, 3), lengths=torch.tensor([5, 2]))
    >>> y.sum().backward()
    >>> y.shape, layer.b_f.grad.shape
    (torch.Size([2, 5, 4]), torch.Size([4]))
    """

    def __init__(self, cell_or_layer: Cell | Module | str, **options: Any) -> None:
        super().__init__()
        layer = cell_or_layer if isinstance(cell_or_layer, Module) else Recurrent(cell_or_layer, **options)
        if layer is cell_or_layer and options:
            raise ArgumentError(f"{', '.join(options)}: a {type(layer).__name__} has its sizes and options already")
        self._names = list(layer.state_dict())
        leaves = [t for _, t in layer.leaves()]
        for name, t in zip(self._names, leaves, strict=True):
            self._register(name, torch.from_numpy(np.array(t.numpy())), t.trainable)
        self._models: dict[Dtypes, PureModel] = {tuple(w.dtype for w in self._weights()): PureModel(copy.deepcopy(layer))}
        self.training = layer.training

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return self._apart(*args, **keywords) if torch.compiler.is_compiling() else self._run(args, keywords)

    @torch.compiler.disable
    def _apart(self, *args: Any, **keywords: Any) -> Any:
        return self._run(args, keywords)

    def _run(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        weights = self._weights()
        if isinstance(keywords.get("lengths"), int):  # of one sequence: a number that is another one at every call
            keywords = {**keywords, "lengths": np.asarray(keywords["lengths"])}
        if any(isinstance(a, PackedSequence) for a in (*args, *keywords.values())):
            raise ArgumentError("a PackedSequence is given; give the padded batch and its lengths: "
                                "layer(x, lengths=lengths), x [B, T, ...]")
        given, form = flatten((args, keywords))
        device = _device([*weights, *[a for a in given if isinstance(a, torch.Tensor) and a.is_floating_point()]])
        arguments = Arguments([_prepared(a, device) for a in given], form, described((args, keywords)), specified, torch.Tensor)
        return run(self._model(weights), weights, arguments, _backend(device))

    def to_tinyrnn(self) -> Module:
        """The layer or model of tinyrnn with the weights of now, on the host."""
        weights = self._weights()
        model = copy.deepcopy(self._model(weights).model)
        for (_, t), w in zip(model.leaves(), weights, strict=True):
            t.assign(w.detach().cpu().numpy())
            if t.parameter:
                t.trainable = w.requires_grad
        return model

    def train(self, mode: bool = True) -> Layer:
        super().train(mode)
        for pure in self._models.values():
            pure.model.train(mode)
        return self

    def extra_repr(self) -> str:
        model = next(iter(self._models.values())).model
        return ", ".join(f"{name or 'runs'}: {type(m).__name__}" + (f" of {m.cell.name}" if m.cell else "")
                         for name, m in model.named_modules())

    def __getstate__(self) -> dict[str, Any]:
        """Programs are traced anew where a copy or a pickle arrives."""
        return {**self.__dict__, "_models": {k: PureModel(pure.model) for k, pure in self._models.items()}}

    def _register(self, name: str, value: torch.Tensor, trained: bool) -> None:
        """A parameter or a buffer under a dotted name."""
        *path, last = name.split(".")
        holder = reduce(_inner, path, self)
        if hasattr(holder, last):
            raise ArgumentError(f"a weight is called {last!r}, and so is something that every PyTorch module has: give the "
                                "parameter another name in the equations")
        if trained:
            holder.register_parameter(last, torch.nn.Parameter(value))
        else:
            holder.register_buffer(last, value)

    def _weights(self) -> list[torch.Tensor]:
        own = self._parameters  # most weights are there; a model's are in its parts
        return [own[name] if name in own else reduce(getattr, name.split("."), self) for name in self._names]

    def _model(self, weights: Sequence[torch.Tensor]) -> PureModel:
        """The model in the dtypes that the weights have now."""
        dtypes = tuple([w.dtype for w in weights])
        if dtypes not in self._models:
            self._models[dtypes] = PureModel(next(iter(self._models.values())).model.astype(self._dtype(weights)))
        return self._models[dtypes]

    def _dtype(self, weights: Sequence[torch.Tensor]) -> Any:
        """The dtype that all weights have now."""
        named = dict(zip(self._names, weights, strict=True))
        for name, w in named.items():
            if w.is_floating_point() and w.dtype not in (torch.float32, torch.float64):
                raise DTypeError(f"weight {name!r} is {w.dtype}; expected float32 or float64: layer.float() or layer.double()")
        found = {w.dtype for w in weights if w.is_floating_point()}
        if len(found) > 1:
            raise DTypeError(f"the weights are of {' and '.join(sorted(map(str, found)))}: expected one of them for all")
        return KINDS[found.pop()]


def _inner(holder: torch.nn.Module, name: str) -> torch.nn.Module:
    """The part of that name, made where it is missing."""
    if name not in holder._modules:
        holder.add_module(name, torch.nn.Module())
    return holder._modules[name]


def _device(tensors: Sequence[torch.Tensor]) -> torch.device:
    """Where all of them are."""
    found = {t.device for t in tensors} or {torch.device("cpu")}
    if len(found) > 1:
        raise ArgumentError(f"tensors are on {' and on '.join(sorted(map(str, found)))}: move all of them, and the layer, to "
                            "one device with .to(device)")
    device = found.pop()
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"tensors are on {device}; tinyrnn computes on the CPU and on CUDA GPUs")
    return device


def _backend(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "cpu"


def _prepared(value: Any, device: torch.device) -> Any:
    """An argument as a tensor on the device, if it is an array."""
    if isinstance(value, torch.Tensor):
        if value.dtype in HALF:
            value = value.float()
        if value.dtype not in KINDS:
            raise DTypeError(f"an argument is a tensor of {value.dtype}; expected floating or whole numbers")
        return value if value.device == device else value.to(device)
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)) or (isinstance(value, list) and is_array(value)):
        array = np.array(value)  # of our own: PyTorch does not see who changes an array of NumPy
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).to(device)
    return value
