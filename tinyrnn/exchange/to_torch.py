"""Layers and models as modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, MissingPackageError
from ..nn.module import Module
from ..nn.packed import Packed
from .carry import from_layer
from .torch_names import FUNCTIONS, OPTIONS, counterpart, places, theirs_of

Arrays = dict[str, Any]


def to_torch(layer: Module) -> Any:
    """The PyTorch module that computes what a layer does: nn.RNN, LSTM or GRU, also for a cell of one's own that is proved
    equal to one of them; Embedding, Linear, LayerNorm, Dropout, an activation, or a Sequential of them.

    A Sequential with a recurrent layer in it holds its weights; to run, it needs a forward of your own, since that layer
    gives `(y, state)`.  `tr.torch.Layer(layer)` runs any layer inside of PyTorch instead.  Of the same shapes and dtypes.
    Raises `ArgumentError`, with the term that differs, for what has no counterpart, and `MissingPackageError` without PyTorch.

    >>> import tinyrnn as tr
    >>> tr.io.to_torch(tr.nn.GRU(3, 4, num_layers=2))
    GRU(3, 4, num_layers=2, batch_first=True)
    """
    if find_spec("torch") is None:
        raise MissingPackageError('to_torch needs PyTorch, which is not installed: pip install "tinyrnn[torch]"')
    for kind, convert in _BACK.items():
        if type(layer) is kind:
            return _with_modes(convert(layer), layer)
    raise ArgumentError(f"{type(layer).__name__} has no counterpart in torch.nn; tr.torch.Layer(layer) runs it inside of "
                        "PyTorch")


def _with_modes(module: Any, layer: Module) -> Any:
    """Training mode and frozen weights as they are in the layer."""
    named = dict(module.named_parameters())
    if isinstance(layer, (nn.Recurrent, nn.Bidirectional)):  # their weights are called otherwise
        for p in named.values():
            p.requires_grad_(layer.trainable)
    for name, t in layer.leaves():
        if name in named:
            named[name].requires_grad_(t.trainable)
    module.training = layer.training
    return module


def _loaded(module: Any, arrays: Arrays) -> Any:
    torch = import_module("torch")
    dtype = next(iter(arrays.values())).dtype
    module = module.to(getattr(torch, dtype.name))
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return module


def _to_recurrent(layer: Packed) -> Any:
    _refuse_noise(layer)
    theirs = theirs_of(layer)
    own = {"LSTM": ("proj_size",), "RNN": ("nonlinearity",)}.get(type(layer).__name__, ())
    options = {k: getattr(layer, k) for k in ("num_layers", "bias", "batch_first", "dropout", "bidirectional", *own)}
    names = [n for n in theirs.layout.arrays if layer.bias or not n.startswith("bias")]
    arrays = {f"{n}_{where}": a for where in places(layer) for n, a in from_layer(layer, where, theirs, names).items()}
    kind = getattr(import_module("torch").nn, type(layer).__name__)
    return _loaded(kind(layer.input_size, layer.hidden_size, **options), arrays)


def _refuse_noise(layer: Any) -> None:
    for option, on in (("reverse=True", layer.reverse), ("zoneout", layer.noise.rates),
                       ("recurrent_dropout", layer.noise.dropout)):
        if on:
            raise ArgumentError(f"a {type(layer).__name__} with {option} has no counterpart in torch.nn")


def _to_recurrent_of_cell(layer: nn.Recurrent) -> Any:
    """A cell of one's own as the layer of PyTorch that it is proved to be."""
    _refuse_noise(layer)
    theirs = counterpart(layer)
    arrays = from_layer(layer, "", theirs)
    sizes = theirs.layout.sizes(arrays)
    kind = theirs.cell.name.removeprefix("torch_").removesuffix("_projection").upper()
    options: Arrays = {"nonlinearity": "relu"} if kind == "RNN" and "relu(" in theirs.cell.text else {}
    if "c" in sizes and sizes["c"] != sizes["h"]:
        options["proj_size"] = sizes["h"]
    module = getattr(import_module("torch").nn, kind)(sizes["x"], sizes.get("c", sizes["h"]), batch_first=layer.batch_first,
                                                      **options)
    return _loaded(module, {f"{n}_l0": a for n, a in arrays.items()})


def _to_bidirectional(layer: nn.Bidirectional) -> Any:
    """Two layers of one direction each as one of PyTorch."""
    inner = layer.forward
    if not isinstance(inner, Packed) or layer.merge != "concat" or inner.num_layers > 1 or inner.reverse:
        raise ArgumentError(f"Bidirectional({type(inner).__name__}, merge={layer.merge!r}) has no counterpart in torch.nn, "
                            "whose layers of two directions are RNN, LSTM and GRU that read forwards and backwards and put "
                            "their outputs side by side")
    both = type(inner)(**{**inner.config(), "bidirectional": True, "reverse": False})
    for part, suffix in ((layer.forward, ""), (layer.backward, "_reverse")):
        for name, t in part.leaves():
            getattr(both, name + suffix).assign(t.numpy())
    return _to_recurrent(both)


def _to_plain(kind: str, *options: str) -> Callable[[Any], Any]:
    """A layer whose weights have the same names and layout."""
    def convert(layer: Any) -> Any:
        state = layer.state_dict()
        given = {k: getattr(layer, k) for k in options}
        if "bias" in given:
            given["bias"] = layer.bias is not None
        return _loaded(getattr(import_module("torch").nn, kind)(**given), state)

    return convert


def _to_layer_norm(layer: nn.LayerNorm) -> Any:
    return _loaded(import_module("torch").nn.LayerNorm(layer.features, layer.eps, bias=layer.bias is not None),
                   layer.state_dict())


def _to_dropout(layer: nn.Dropout) -> Any:
    if layer.shared_axes:
        raise ArgumentError("Dropout(shared_axes=...) has no counterpart in torch.nn")
    return import_module("torch").nn.Dropout(layer.p)


def _to_activation(layer: nn.Activation) -> Any:
    kind = next((k for k, name in FUNCTIONS.items() if name == layer.name), None)
    if kind is None:
        raise ArgumentError(f"Activation({layer.name!r}) has no counterpart in torch.nn")
    return getattr(import_module("torch").nn, kind)(**OPTIONS.get(kind, {}))


def _to_sequential(layer: nn.Sequential) -> Any:
    """Parts one after the other; a layer that stands in several places becomes one module."""
    made = {id(part): to_torch(part) for part in layer.layers}
    return import_module("torch").nn.Sequential(*(made[id(part)] for part in layer.layers))


_BACK: dict[type[Module], Callable[[Any], Any]] = {
    nn.RNN: _to_recurrent, nn.LSTM: _to_recurrent, nn.GRU: _to_recurrent, nn.Recurrent: _to_recurrent_of_cell,
    nn.Bidirectional: _to_bidirectional,
    nn.Linear: _to_plain("Linear", "in_features", "out_features", "bias"), nn.LayerNorm: _to_layer_norm,
    nn.Embedding: _to_plain("Embedding", "num_embeddings", "embedding_dim", "padding_idx"), nn.Dropout: _to_dropout,
    nn.Activation: _to_activation,
    nn.Sequential: _to_sequential}
