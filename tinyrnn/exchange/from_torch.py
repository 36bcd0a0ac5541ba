"""Weights from PyTorch's modules, state dicts and files."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, LoadError
from ..io.weights import read_weights
from ..nn.module import Module
from ..nn.packed import Packed
from .carry import carried, into_layer
from .torch_names import FUNCTIONS, OPTIONS, RECURRENT, counterpart, places, theirs_of

Arrays = dict[str, Any]
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}


def from_torch(source: Any, like: Module | None = None) -> Module:
    """A layer or model from PyTorch: from a module, a state dict, or a safetensors file with one.

    Modules of `torch.nn`: RNN, LSTM, GRU and their cells with all options, Embedding, Linear, LayerNorm, Dropout, activations,
    and Sequential of them; and `tr.torch.Layer`.  A state dict or a file says nothing of options: it is enough for one LSTM,
    GRU or Linear; for anything else `like` is the model of tinyrnn that the weights belong to, of which a copy with the weights
    is given.  Which weights correspond is derived from the equations of both sides and proved (`tr.equivalent`).

    Of the same shapes and dtypes. Raises `ArgumentError` for modules and options without a counterpart, and `LoadError` for
    weights that do not fit.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> state = {f"{kind}_l0": np.ones((16, n), "float32") for kind, n in (("weight_ih", 3), ("weight_hh", 4))}
    >>> layer = tr.io.from_torch(state)
    >>> type(layer).__name__, layer.input_size, layer.hidden_size, layer.bias
    ('LSTM', 3, 4, False)
    """
    if like is not None:
        return _into(like, _arrays(source))
    if not isinstance(source, (Mapping, str, Path)) and hasattr(source, "state_dict"):
        return _module(source)
    return _single(_arrays(source))


def _arrays(source: Any) -> Arrays:
    """A state dict, that of a module, or that in a file, as arrays."""
    if hasattr(source, "state_dict"):
        source = source.state_dict()
    if not isinstance(source, Mapping):
        try:
            return dict(read_weights(source)[0])
        except LoadError as error:
            raise LoadError(f"{error}. A .pt or .pth file is a pickle, which may run code: "
                            "from_torch(torch.load(file, weights_only=True))") from None
    found = {str(name): value for name, value in source.items()}
    for wrapper in WRAPPERS:
        if found and all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return {name: _array(name, value) for name, value in found.items()}


def _array(name: str, value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise LoadError(f"{name} is {array.dtype}, expected numbers")
    return array


_known: ContextVar[dict[int, Module] | None] = ContextVar("modules", default=None)


def _module(module: Any) -> Module:
    """A module; one that stands in several places becomes one layer."""
    known = _known.get()
    if known is None:
        token = _known.set({})
        try:
            return _module(module)
        finally:
            _known.reset(token)
    if id(module) not in known:
        known[id(module)] = _converted(module)
    return known[id(module)]


def _converted(module: Any) -> Module:
    if hasattr(module, "to_tinyrnn"):
        found: Module = module.to_tinyrnn()
        return found
    kind, own = type(module).__name__, type(module).__module__.startswith("torch.nn.modules.")
    convert = _IN.get(kind) if own else None
    if convert is None:
        why = "is not one of those that are known" if own else "is a class of its own, whose forward may do anything"
        raise ArgumentError(f"{kind} {why}: convert its parts, or give like=, a model of tinyrnn that computes the same")
    found = convert(module)
    for name, t in found.leaves():
        tensor: Any = getattr(module, _own_name(name, kind), None)
        if t.parameter and hasattr(tensor, "requires_grad"):
            t.trainable = bool(tensor.requires_grad)
    found.training = bool(module.training)
    return found


def _own_name(name: str, kind: str) -> str:
    return name.removesuffix("_l0") if kind.endswith("Cell") else name


def _recurrent(module: Any) -> Module:
    kind = type(module).__name__
    own = {"LSTM": ("proj_size",), "RNN": ("nonlinearity",)}.get(kind, ())
    options = {k: getattr(module, k) for k in ("num_layers", "bias", "batch_first", "dropout", "bidirectional", *own)}
    arrays = _arrays(module.state_dict())
    return _filled(kind, module.input_size, module.hidden_size, arrays, **options)


def _cell(module: Any) -> Module:
    kind = type(module).__name__.removesuffix("Cell")
    own = {"nonlinearity": module.nonlinearity} if kind == "RNN" else {}
    arrays = {f"{k}_l0": v for k, v in _arrays(module.state_dict()).items()}
    return _filled(kind, module.input_size, module.hidden_size, arrays, bias=module.bias, **own)


def _filled(kind: str, x: int, h: int, arrays: Arrays, **options: Any) -> Packed:
    """A layer of ours with the weights of an nn.RNN, LSTM or GRU."""
    layer: Packed = getattr(nn, kind)(x, h, dtype=next(iter(arrays.values())).dtype, **options)
    _fill(layer, arrays)
    return layer


def _fill(layer: Packed, arrays: Arrays) -> None:
    for where in places(layer):
        into_layer(layer, where, theirs_of(layer), _of(arrays, where))


def _of(arrays: Arrays, where: str) -> Arrays:
    """The arrays of one layer and direction, without it in their names."""
    return {name.removesuffix(f"_{where}"): a for name, a in arrays.items() if name.endswith(f"_{where}")}


def _embedding(module: Any) -> Module:
    if module.max_norm is not None:
        raise ArgumentError(f"Embedding(max_norm={module.max_norm}) changes its weights while it is used, which has no "
                            "counterpart")
    return _assigned(nn.Embedding(module.num_embeddings, module.embedding_dim, padding_idx=module.padding_idx,
                                  dtype=_array("weight", module.weight).dtype), module)


def _linear(module: Any) -> Module:
    return _assigned(nn.Linear(module.in_features, module.out_features, module.bias is not None,
                               dtype=_array("weight", module.weight).dtype), module)


def _layer_norm(module: Any) -> Module:
    if len(module.normalized_shape) != 1 or module.weight is None:
        raise ArgumentError(f"LayerNorm({list(module.normalized_shape)}, elementwise_affine={module.weight is not None}) has "
                            "no counterpart: ours is along the last axis, with weights")
    return _assigned(nn.LayerNorm(module.normalized_shape[0], module.eps, module.bias is not None,
                                  dtype=_array("weight", module.weight).dtype), module)


def _assigned(layer: Module, module: Any) -> Module:
    layer.load_state_dict(_arrays(module.state_dict()))
    return layer


def _activation(module: Any) -> Module:
    kind = type(module).__name__
    for name, expected in OPTIONS.get(kind, {}).items():
        if getattr(module, name) != expected:
            raise ArgumentError(f"{kind}({name}={getattr(module, name)!r}) has no counterpart; known is {name}={expected!r}")
    return nn.Activation(FUNCTIONS[kind])


_IN: dict[str, Callable[[Any], Module]] = {
    **dict.fromkeys(RECURRENT, _recurrent), **{f"{kind}Cell": _cell for kind in RECURRENT}, "Embedding": _embedding,
    "Linear": _linear, "LayerNorm": _layer_norm, "Dropout": lambda module: nn.Dropout(module.p),
    "Sequential": lambda module: nn.Sequential(*map(_module, module)), **dict.fromkeys(FUNCTIONS, _activation)}


def _single(arrays: Arrays) -> Module:
    """The one layer whose kind follows from names and shapes."""
    prefix = _common_prefix(list(arrays))
    own = {name.removeprefix(prefix): a for name, a in arrays.items()}
    if "weight_ih" in own:
        own = {f"{name}_l0": a for name, a in own.items()}
    if {"weight_ih_l0", "weight_hh_l0"} <= set(own):
        return _from_shapes(own)
    if set(own) == {"weight", "bias"} and own["weight"].ndim == 2:
        layer = nn.Linear(own["weight"].shape[1], own["weight"].shape[0], dtype=own["weight"].dtype)
        layer.load_state_dict(own)
        return layer
    raise ArgumentError(f"a state dict with {', '.join(list(arrays)[:4])}{', ...' * (len(arrays) > 4)} does not say what its "
                        "layers are and what stands between them: give like=, the model of tinyrnn that it belongs to")


def _common_prefix(names: list[str]) -> str:
    heads = {name.rpartition(".")[0] for name in names}
    return f"{heads.pop()}." if len(heads) == 1 and heads != {""} else ""


def _from_shapes(arrays: Arrays) -> Module:
    """An LSTM or a GRU, by what its arrays are called and how large they are."""
    if any(arrays[k].ndim != 2 for k in ("weight_ih_l0", "weight_hh_l0")):
        raise LoadError("weight_ih_l0 and weight_hh_l0 are matrices")
    projected = arrays.get("weight_hr_l0")
    hidden = arrays["weight_hh_l0"].shape[1] if projected is None else projected.shape[-1]
    gates, rest = divmod(arrays["weight_ih_l0"].shape[0], max(hidden, 1))
    if rest or gates not in GATES:
        raise LoadError(f"weight_ih_l0 has {arrays['weight_ih_l0'].shape[0]} rows, which is no RNN, GRU or LSTM of {hidden} "
                        "units")
    if GATES[gates] == "RNN":
        raise ArgumentError("the weights of an nn.RNN do not say whether it is one with tanh or with relu: give "
                            "like=tr.nn.RNN(..., nonlinearity=...)")
    numbers = [int(m[1]) for name in arrays if (m := re.fullmatch(r"\w+_l(\d{1,4})(_reverse)?", name))]
    options = {"num_layers": 1 + max(numbers), "bias": "bias_ih_l0" in arrays,
               "bidirectional": "weight_ih_l0_reverse" in arrays,
               **({} if projected is None else {"proj_size": projected.shape[0]})}
    unknown = [n for n in arrays if not re.fullmatch(r"(weight_(ih|hh|hr)|bias_(ih|hh))_l\d{1,4}(_reverse)?", n)]
    if unknown or len(arrays) != options["num_layers"] * (1 + options["bidirectional"]) * (
            2 + 2 * options["bias"] + (projected is not None)):
        raise LoadError(f"{', '.join(list(arrays)[:4])}, ... are not the weights of one {GATES[gates]}")
    return _filled(GATES[gates], arrays["weight_ih_l0"].shape[1], hidden, arrays, **options)


def _into(like: Module, arrays: Arrays) -> Module:
    """A copy of a model with weights of the same names; those of recurrent layers by proof."""
    model, left = copy.deepcopy(like), dict(arrays)
    given: Arrays = {}
    for name, layer in model.named_modules():
        own, theirs = f"{name}." if name else "", _their_prefix(model, name)
        if isinstance(layer, (Packed, nn.Recurrent)):
            mine = {k.removeprefix(theirs): left.pop(k) for k in list(left) if k.startswith(theirs)}
            _recurrent_into(layer, {f"{k}_l0" if k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") else k: v
                                    for k, v in mine.items()})
            given |= {own + k: t.numpy() for k, t in layer.leaves()}
    for name, _ in model.leaves():
        if name not in given:
            prefix = _their_prefix(model, name.rpartition(".")[0])
            key = prefix + name.rpartition(".")[2]
            if key in left:
                given[name] = left.pop(key)
    for alias, name in model._aliases().items():  # a weight that stands in several places is there as often
        key = _their_prefix(model, alias.rpartition(".")[0]) + alias.rpartition(".")[2]
        if key in left and not np.array_equal(left.pop(key), given[name]):
            raise LoadError(f"{alias} and {name} are one weight of this model, and the given ones differ")
    if left:
        raise LoadError(f"the weights do not belong to this model: unknown {', '.join(list(left)[:5])}")
    Module.load_state_dict(model, given)
    return model


def _their_prefix(model: Module, name: str) -> str:
    """A dotted name without what our Sequential calls its list."""
    found: list[str] = []
    parts = name.split(".") if name else []
    modules = dict(model.named_modules())
    for i, part in enumerate(parts):
        if not (part == "layers" and isinstance(modules.get(".".join(parts[:i])), nn.Sequential)):
            found.append(part)
    return "".join(f"{part}." for part in found)


def _recurrent_into(layer: Packed | nn.Recurrent, arrays: Arrays) -> None:
    if isinstance(layer, Packed):
        expected = {f"{n}_{w}" for w in places(layer) for n in layer.layout}
        if set(arrays) != expected:
            raise LoadError(f"a {type(layer).__name__} takes {', '.join(sorted(expected))}; got {', '.join(sorted(arrays))}")
        _fill(layer, arrays)
        return
    theirs = counterpart(layer)
    given = theirs.layout.apart(_of(arrays, "l0"))
    layer.load_state_dict(carried(layer.cell, theirs.cell, given, "these weights have no place in this layer"))
