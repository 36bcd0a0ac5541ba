"""What Keras' layers are here: descriptions of them, as their `get_config` gives them, to our layers and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..cells.initial import constant
from ..errors import ArgumentError, ConversionWarning, LoadError, users_line
from ..nn.module import Module
from ..nn.packed import Packed
from .carry import imported
from .frameworks import ACTIVATIONS, Foreign, foreign

Config = Mapping[str, Any]


class KerasLayer(NamedTuple):
    """A layer of Keras: its class, its options, and its weights in Keras' order."""

    kind: str
    config: Config
    arrays: list[Any]


RECURRENT: dict[str, dict[str, Any]] = {
    "SimpleRNN": {"activation": "tanh"},
    "LSTM": {"activation": "tanh", "recurrent_activation": "sigmoid"},
    "GRU": {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}}
"""Recurrent layers with the options that are in their equations, as they are where nothing is said."""

FUNCTIONS = {"tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "softplus": "softplus", "elu": "elu", "silu": "silu",
             "swish": "silu", "exponential": "exp", "hard_sigmoid": "hard_sigmoid", "softmax": "softmax",
             "log_softmax": "log_softmax"}
"""Activations of Keras that are layers here."""

USUAL = {"keepdims": False, "data_format": "channels_last", "noise_shape": None}
"""Options of layers without weights, as they must be."""

MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


def layers_of(record: KerasLayer) -> list[Module]:
    """Our layers that do together what a layer of Keras does.

    Raises `ArgumentError` for what has no counterpart, and `LoadError` for weights that do not fit.
    """
    convert = _IN.get(record.kind)
    if convert is None:
        raise ArgumentError(f"keras.layers.{record.kind} has no counterpart; known are {', '.join(sorted(_IN))}")
    made = convert(record)
    if record.config.get("trainable") is False:
        for layer in made:
            layer.trainable = False
    return made


def theirs_of(kind: str, config: Config, bias: bool = True) -> Foreign:
    """The equations of a recurrent layer with its options; those without biases where there are none, if that is asked for."""
    named = {k: config.get(k, default) for k, default in RECURRENT[kind].items()}
    for k in ("activation", "recurrent_activation"):
        named[k] = "linear" if k in named and named[k] is None else named.get(k, "sigmoid")
        if not isinstance(named[k], str) or named[k] not in ACTIVATIONS:
            raise ArgumentError(f"keras.layers.{kind}({k}={named[k]!r}) cannot be written in equations; known are "
                                f"{', '.join(ACTIVATIONS)}")
    file = {"SimpleRNN": "keras_simple_rnn", "LSTM": "keras_lstm", "GRU": "keras_gru"}[kind]
    file += "_reset_before" if named.get("reset_after") is False else ""
    return foreign(file, named["activation"], named["recurrent_activation"], bias)


def named_arrays(theirs: Foreign, arrays: Sequence[Any], kind: str) -> dict[str, Any]:
    """Weights in Keras' order by their names."""
    names = list(theirs.layout.arrays)
    if not len(names) - len(theirs.layout.optional) <= len(arrays) <= len(names):
        raise LoadError(f"keras.layers.{kind} has the weights {', '.join(names)}; got {len(arrays)} arrays")
    return dict(zip(names, arrays, strict=False))


def _recurrent(record: KerasLayer) -> list[Module]:
    kind, config = record.kind, record.config
    if config.get("return_state"):
        raise ArgumentError(f"keras.layers.{kind}(return_state=True) gives several outputs; ours gives its state anyway: save "
                            "the model with return_state=False")
    if config.get("go_backwards") and config.get("return_sequences"):
        raise ArgumentError(f"keras.layers.{kind}(go_backwards=True, return_sequences=True) gives the sequence turned round; "
                            "reverse=True of ours keeps its order")
    layer = _one_direction(record, reverse=bool(config.get("go_backwards")))
    return [*_dropped_inputs(config), layer, *([] if config.get("return_sequences") else [nn.Last()])]


def _one_direction(record: KerasLayer, reverse: bool = False) -> Packed | nn.Recurrent:
    """One of our stock layers, if it is proved to be the same; else the cell as Keras' equations have it."""
    kind, config = record.kind, record.config
    _warn_of(kind, config)
    theirs = theirs_of(kind, config)
    arrays = named_arrays(theirs, record.arrays, kind)
    sizes = theirs.layout.sizes(arrays)
    if config.get("units", sizes["h"]) != sizes["h"]:
        raise LoadError(f"keras.layers.{kind}(units={config['units']!r}) has weights of {sizes['h']} units")
    options: dict[str, Any] = {"recurrent_dropout": config.get("recurrent_dropout", 0.0), "reverse": reverse}

    def stock(x: int, h: int) -> Packed | None:
        return _stock(kind, config, (x, h), bias="bias" in arrays, dtype=arrays["kernel"].dtype, **options)

    return imported(stock, theirs, arrays, theirs_of(kind, config, bias="bias" in arrays), **options)


def _stock(kind: str, config: Config, sizes: tuple[int, int], **options: Any) -> Packed | None:
    """Our layer of that name, with functions and conventions like those of Keras'."""
    if kind == "SimpleRNN":
        activation = FUNCTIONS.get(str(config.get("activation", "tanh")))
        plain = activation is not None and activation not in ("softmax", "log_softmax")
        return nn.RNN(*sizes, nonlinearity=activation, **options) if activation and plain else None
    if any(config.get(k, default) != default for k, default in RECURRENT[kind].items() if k != "reset_after"):
        return None
    if kind == "GRU":
        return nn.GRU(*sizes, reset="after" if config.get("reset_after", True) else "before", **options)
    return nn.LSTM(*sizes, **options)


def _warn_of(kind: str, config: Config) -> None:
    if config.get("stateful"):
        _warn(f"keras.layers.{kind}(stateful=True) goes on where the batch before ended; here give the state: "
              "y, state = layer(x, state), or model.stream()")


def _warn(message: str) -> None:
    warnings.warn(message, ConversionWarning, stacklevel=users_line())


def _dropped_inputs(config: Config) -> list[Module]:
    """`dropout=` of a recurrent layer: one mask of its inputs for all steps."""
    rate = config.get("dropout", 0.0)
    return [nn.Dropout(rate, shared_axes=1)] if rate else []


def _bidirectional(record: KerasLayer) -> list[Module]:
    config = record.config
    inner, other = _inner(config.get("layer")), config.get("backward_layer")
    merge = config.get("merge_mode", "concat")
    if inner.kind not in RECURRENT:
        raise ArgumentError(f"keras.layers.Bidirectional around {inner.kind}; known are {', '.join(RECURRENT)}")
    if merge not in MERGES:
        raise ArgumentError(f"keras.layers.Bidirectional(merge_mode={merge!r}) has no counterpart; known are "
                            f"{', '.join(MERGES)}")
    if other is not None and _shared(_inner(other).config) != _shared(inner.config):
        raise ArgumentError("keras.layers.Bidirectional with a backward_layer of other options has no counterpart")
    if inner.config.get("return_state") or inner.config.get("go_backwards"):
        raise ArgumentError("keras.layers.Bidirectional around a layer with return_state or go_backwards has no counterpart")
    half, rest = divmod(len(record.arrays), 2)
    if rest or not half:
        raise LoadError(f"keras.layers.Bidirectional has as many weights in both directions; got {len(record.arrays)} arrays")
    ahead, back = (_one_direction(inner._replace(arrays=part), reverse) for part, reverse in (
        (record.arrays[:half], False), (record.arrays[half:], True)))
    found = nn.Bidirectional(ahead, MERGES[merge])
    found.backward.load_state_dict(back.state_dict())
    if inner.config.get("dropout"):
        _warn("dropout= of a layer inside Bidirectional: both directions have one mask of their inputs here")
    return [*_dropped_inputs(inner.config), found, *([] if inner.config.get("return_sequences") else [nn.Last()])]


def _inner(form: object) -> KerasLayer:
    """A layer that another one wraps, as its description has it."""
    if isinstance(form, Mapping):
        kind, config = form.get("class_name"), form.get("config")
        if isinstance(kind, str) and isinstance(config, Mapping):
            return KerasLayer(kind, config, [])
    raise LoadError("the description of a layer inside another one is not sound")


def _shared(config: Config) -> dict[str, Any]:
    """The options in which two directions must agree."""
    names = ("units", "use_bias", "dropout", "recurrent_dropout", "return_sequences", "activation", "recurrent_activation",
             "reset_after")
    return {k: config.get(k) for k in names}


def _expected(record: KerasLayer, names: Sequence[str], ranks: Sequence[int]) -> list[Any]:
    """The weights of a layer, if they are as many and of such ranks."""
    shapes = [np.shape(a) for a in record.arrays]
    if [len(s) for s in shapes] != list(ranks):
        raise LoadError(f"keras.layers.{record.kind} has the weights {', '.join(names) or 'none'}; got arrays of the shapes "
                        f"{', '.join(str(list(s)) for s in shapes) or 'none'}")
    return record.arrays


def _embedding(record: KerasLayer) -> list[Module]:
    (table,) = _expected(record, ["embeddings"], [2])
    if record.config.get("mask_zero"):
        _warn("keras.layers.Embedding(mask_zero=True) marks steps where x is 0 as padding; here say so where the model is "
              "called: model(x, mask=x != 0)")
    return [_filled(nn.Embedding(*table.shape, dtype=table.dtype), weight=table)]


def _dense(record: KerasLayer) -> list[Module]:
    bias = bool(record.config.get("use_bias", True))
    kernel, *rest = _expected(record, ["kernel", *["bias"] * bias], [2, *[1] * bias])
    layer = nn.Linear(kernel.shape[0], kernel.shape[1], bias, dtype=kernel.dtype)
    return [_filled(layer, **dict(zip(("weight", "bias"), (kernel.T, *rest), strict=False))),
            *_activation(record.config.get("activation"))]


def _filled(layer: Module, **arrays: Any) -> Module:
    for name, t in layer.leaves():
        if np.shape(arrays[name]) != t.shape:
            raise LoadError(f"{name} of {type(layer).__name__} has shape {list(t.shape)}, got {list(np.shape(arrays[name]))}")
    layer.load_state_dict(arrays)
    return layer


def _activation(name: object) -> list[Module]:
    if name in (None, "linear"):
        return []
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise ArgumentError(f"the activation {name!r} of Keras has no counterpart; known are linear, {', '.join(FUNCTIONS)}")
    return [nn.Activation(FUNCTIONS[name])]


def _layer_norm(record: KerasLayer) -> list[Module]:
    config = record.config
    axis = config.get("axis", -1)
    if axis not in (-1, [-1], (-1,)) or config.get("rms_scaling"):
        raise ArgumentError(f"keras.layers.LayerNormalization(axis={axis}, rms_scaling={bool(config.get('rms_scaling'))}) has "
                            "no counterpart: ours is along the last axis")
    scale, center = bool(config.get("scale", True)), bool(config.get("center", True))
    arrays = _expected(record, ["gamma"] * scale + ["beta"] * center, [1] * (scale + center))
    if not arrays:
        raise ArgumentError("keras.layers.LayerNormalization(scale=False, center=False) has no weights, from which its size "
                            "would follow")
    features, dtype = len(arrays[0]), arrays[0].dtype
    named = {"weight": arrays[0] if scale else constant((features,), 1.0).astype(dtype)}
    named |= {"bias": arrays[-1]} if center else {}
    layer = nn.LayerNorm(features, config.get("epsilon", 1e-3), center, dtype=dtype)
    layer.weight.trainable = scale
    return [_filled(layer, **named)]


def _plain(make: Callable[[Config], Module]) -> Callable[[KerasLayer], list[Module]]:
    def convert(record: KerasLayer) -> list[Module]:
        _expected(record, [], [])
        for option, usual in USUAL.items():
            if record.config.get(option, usual) not in (usual, None):
                raise ArgumentError(f"keras.layers.{record.kind}({option}={record.config[option]!r}) has no counterpart")
        return [make(record.config)]

    return convert


def _relu(record: KerasLayer) -> list[Module]:
    config = record.config
    if config.get("max_value") is not None or config.get("negative_slope") or config.get("threshold"):
        raise ArgumentError("keras.layers.ReLU with max_value, negative_slope or threshold has no counterpart")
    return [nn.Activation("relu")]


def _softmax(record: KerasLayer) -> list[Module]:
    if record.config.get("axis", -1) != -1:
        raise ArgumentError(f"keras.layers.Softmax(axis={record.config['axis']!r}) has no counterpart; known is axis=-1")
    return [nn.Activation("softmax")]


def _masking(record: KerasLayer) -> list[Module]:
    _warn(f"keras.layers.Masking(mask_value={record.config.get('mask_value', 0.0)!r}) marks steps as padding; here say so "
          "where the model is called: model(x, lengths=...) or mask=")
    return []


def _time_distributed(record: KerasLayer) -> list[Module]:
    inner = _inner(record.config.get("layer"))
    if inner.kind not in ("Dense", "LayerNormalization", "Activation", "Dropout", "Embedding"):
        raise ArgumentError(f"keras.layers.TimeDistributed around {inner.kind} has no counterpart")
    return layers_of(inner._replace(arrays=record.arrays))


_IN: dict[str, Callable[[KerasLayer], list[Module]]] = {
    **dict.fromkeys(RECURRENT, _recurrent), "Bidirectional": _bidirectional, "Embedding": _embedding, "Dense": _dense,
    "LayerNormalization": _layer_norm, "Dropout": _plain(lambda c: nn.Dropout(c.get("rate", 0.5))),
    "SpatialDropout1D": _plain(lambda c: nn.Dropout(c.get("rate", 0.5), shared_axes=1)),
    "Activation": lambda record: _activation(record.config.get("activation")), "ReLU": _relu, "Softmax": _softmax,
    "GlobalAveragePooling1D": _plain(lambda c: nn.Pool("mean")), "GlobalMaxPooling1D": _plain(lambda c: nn.Pool("max")),
    "TimeDistributed": _time_distributed, "Masking": _masking, "InputLayer": lambda record: []}
