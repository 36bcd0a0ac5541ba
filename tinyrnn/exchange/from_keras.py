"""Layers and models from Keras: from its objects, its files, and lists of arrays."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, LoadError
from ..files import read_bytes, shown
from ..nn.module import Module
from .keras_files import Vars, read_archive, read_vars
from .keras_layers import RECURRENT, KerasLayer, layers_of
from .to_keras import Outgoing, records_of

MOST_LAYERS, DEEPEST = 1_000, 8
MODELS = ("Sequential", "Functional")
HDF5 = b"\x89HDF\r\n\x1a\n"
KINDS = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU", "embedding": "Embedding", "dense": "Dense",
         "layer_normalization": "LayerNormalization"}
OPTIONS: dict[str, set[str]] = {
    **{kind: {*named, "go_backwards", "recurrent_dropout"} for kind, named in RECURRENT.items()}, "Embedding": set(),
    "Dense": {"activation"}, "LayerNormalization": {"epsilon", "scale", "center"}}


def from_keras(source: Any, kind: str | None = None, like: Module | None = None, **options: Any) -> Module:
    """A layer or model from Keras 3: from a layer or a model, a `.keras` file, a `.weights.h5` file, or a list of arrays.

    Layers: SimpleRNN, LSTM and GRU with all their options, Bidirectional, Embedding, Dense, LayerNormalization, Dropout,
    activations, and chains of them (Sequential, or a functional model that does not branch).  Files are read with h5py alone;
    Keras need not be installed, and nothing in them is run.  Weights by themselves belong to one layer, whose `kind` is
    `"simple_rnn"`, `"lstm"`, `"gru"`, `"embedding"`, `"dense"` or `"layer_normalization"`, with Keras' `options`
    (`reset_after=False`), or to a model of tinyrnn, `like`, of which a copy with the weights is given.

    A recurrent layer that is proved to be one of ours becomes that one; with other functions it becomes a `Recurrent` of Keras'
    own equations.  Of the same shapes and dtypes. Raises `ArgumentError` for what has no counterpart, `LoadError` for weights
    that do not fit and files that are not sound, `MissingPackageError` for files without h5py; warns (`ConversionWarning`) of
    what Keras does by itself, such as masks of an Embedding.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> kernel, recurrent, bias = np.ones((2, 12)), np.ones((3, 12)), np.zeros(12)
    >>> layer = tr.io.from_keras([kernel, recurrent, bias], kind="lstm")
    >>> layer.input_size, layer.hidden_size
    (2, 3)
    """
    if kind is not None and (like is not None or kind not in KINDS):
        raise ArgumentError(f"kind={kind!r}: expected one of {', '.join(KINDS)}, and no like= beside it")
    if options and kind is None:
        raise ArgumentError(f"{', '.join(options)}: options go with kind=, the layer that the weights belong to")
    file = isinstance(source, (str, Path)) or hasattr(source, "read")
    data, name = (read_bytes(source), shown(source)) if file else (b"", "")
    if file and not (data.startswith(HDF5) or name.endswith(".h5")):
        if kind is not None or like is not None:
            raise ArgumentError("a .keras file says itself what it holds: leave kind= and like= out")
        return _of_archive(data, name)
    weights = read_vars(data, name) if file else source
    if like is not None:
        return _into(like, weights)
    if kind is not None:
        return _one(KINDS[kind], weights, options)
    if file or isinstance(source, (list, tuple)):
        raise ArgumentError("weights by themselves do not say what layer they belong to: give kind='lstm', or like=, a model "
                            "of tinyrnn; a .keras file says it")
    return _of_object(source)


def _of_object(source: Any) -> Module:
    """A living layer or model."""
    if not hasattr(source, "get_config") or not hasattr(source, "get_weights"):
        raise ArgumentError(f"from_keras takes a layer or a model of Keras, a file, or a list of arrays; got "
                            f"{type(source).__name__}")
    model = _is_model(source)
    records = []
    for layer in _chain(source) if model else [source]:
        kind = type(layer)
        if not kind.__module__.startswith("keras."):
            raise ArgumentError(f"{kind.__name__} is a class of its own, whose call may do anything: convert its parts")
        records.append(KerasLayer(kind.__name__, layer.get_config(), layer.get_weights()))
    return _joined(records) if model else _alone(records[0])


def _alone(record: KerasLayer) -> Module:
    """A layer by itself: a recurrent one gives the sequence, and its state beside it, whatever Keras hands out of them."""
    layers = layers_of(record)
    layers = layers[:-1] if isinstance(layers[-1], nn.Last) else layers
    return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)).eval()


def _is_model(layer: Any) -> bool:
    return hasattr(layer, "layers") and hasattr(layer, "get_layer")


def _chain(model: Any) -> list[Any]:
    """The layers of a model that does not branch, those of models inside it too."""
    plain = type(model).__name__ == "Sequential"
    layers = model.layers if plain else [model.get_layer(name) for name in _order(model.get_config())]
    return [m for layer in layers for m in (_chain(layer) if _is_model(layer) else [layer])]


def _order(config: Mapping[str, Any]) -> list[str]:
    """The names of the layers of a functional model, one after the other; raises `ArgumentError` where it branches."""
    layers = config.get("layers")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise LoadError("the description of the model is not sound")
    before: dict[str, str | None] = {}
    for form in layers:
        name = form.get("name") if isinstance(form, dict) else None
        if not isinstance(name, str) or name in before:
            raise LoadError("the description of a layer is not sound")
        found = list(_read(form.get("inbound_nodes")))
        _check_call(name, form.get("inbound_nodes"))
        if len(found) > 1:
            raise ArgumentError(f"the layer {name[:80]!r} reads {len(found)} results: a model that branches has no "
                                "counterpart; convert its parts")
        before[name] = found[0] if found else None
    after: dict[str | None, str] = {}
    for name, source in before.items():
        if source in after:
            raise ArgumentError(f"two layers read {source!r}: a model that branches has no counterpart; convert its parts")
        after[source] = name
    order: list[str] = []
    while (order[-1] if order else None) in after and len(order) <= len(before):
        order.append(after[order[-1] if order else None])
    if len(order) != len(before):
        raise LoadError("the description of the model is not sound: its layers are no chain")
    ends = list(_names(config.get("output_layers")))
    if ends and ends != order[-1:]:
        raise ArgumentError(f"the model gives the results of {', '.join(map(repr, ends))}; one with several results, or whose "
                            "last layer is not used, has no counterpart")
    return order


def _names(tree: object) -> Iterator[str]:
    """The layers that an entry such as `["dense", 0, 0]`, or a structure of them, names."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        if tree and isinstance(tree[0], str):
            yield tree[0]
        else:
            for part in tree:
                yield from _names(part)


def _check_call(name: str, nodes: object) -> None:
    """A layer is called with a tensor alone: what else was given (a mask, a state, training=True) would be lost."""
    for node in nodes if isinstance(nodes, (list, tuple)) else ():
        keywords = node.get("kwargs") if isinstance(node, dict) else None
        for k, value in keywords.items() if isinstance(keywords, dict) else ():
            if value is not None and value is not False:
                raise ArgumentError(f"the layer {name[:80]!r} is called with {k[:40]}=, which has no counterpart in a chain of "
                                    "layers")


def _read(nodes: object) -> Iterator[str]:
    """The layers whose results the calls in a description read."""
    stack: list[Any] = [nodes]
    while stack:
        part = stack.pop()
        if isinstance(part, (list, tuple)):
            stack += part
        elif isinstance(part, dict):
            history = part["config"].get("keras_history") if isinstance(part.get("config"), dict) else None
            if isinstance(history, (list, tuple)) and history and isinstance(history[0], str):
                yield history[0]
            else:
                stack += part.values()


# ---- files

def _of_archive(data: bytes, file: str) -> Module:
    form, weights = read_archive(data, file)
    try:
        return _joined(list(_records(form, weights)))
    except (ArgumentError, LoadError) as error:
        raise type(error)(f"{file}: {error}") from None
    except Exception as error:  # a constructor may say anything of options that no program of Keras' wrote
        raise LoadError(f"{file}: the description of a layer is not sound: {error}") from None


def _records(form: Mapping[str, Any], weights: Vars, within: str = "", depth: int = 0) -> Iterator[KerasLayer]:
    """The layers of a described model with their weights, those of models inside it too."""
    if depth > DEEPEST:
        raise LoadError(f"models lie in each other more than {DEEPEST} deep")
    config, kind = form.get("config"), form.get("class_name")
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list) or len(config["layers"]) > MOST_LAYERS:
        raise LoadError("the description of the model is not sound")
    if kind not in MODELS:
        raise ArgumentError(f"a model of the class {str(kind)[:80]!r} has no counterpart; known are Sequential and Functional")
    layers = {_checked(layer): layer for layer in config["layers"]}
    if len(layers) < len(config["layers"]):
        raise LoadError("two layers have one name")
    folders = dict(zip(layers, _folders(layer["class_name"] for layer in layers.values()), strict=True))
    for name in _order(config) if kind == "Functional" else list(layers):
        layer, folder = layers[name], within + folders[name]
        if layer["class_name"] in MODELS:
            yield from _records(layer, weights, f"{folder}/", depth + 1)
        else:
            yield KerasLayer(layer["class_name"], layer["config"], _arrays(layer["class_name"], folder, weights))


def _checked(layer: Any) -> str:
    """The name of a described layer; its class is one of Keras' own."""
    sound = isinstance(layer, dict) and isinstance(layer.get("class_name"), str) and isinstance(layer.get("config"), dict)
    if not sound or not isinstance(layer["config"].get("name"), str):
        raise LoadError("the description of a layer is not sound")
    own = "keras" if layer["class_name"] == "Sequential" else "keras.src.models.functional" if (
        layer["class_name"] == "Functional") else "keras.layers"
    if layer.get("registered_name") not in (None, layer["class_name"]) or layer.get("module") != own:
        raise ArgumentError(f"{layer['class_name'][:80]} of {str(layer.get('module'))[:80]!r} is no layer of Keras itself")
    return str(layer["config"]["name"])


def _folders(kinds: Any) -> Iterator[str]:
    """Where Keras keeps the weights of layers of these classes: `layers/lstm`, `layers/lstm_1`, ..."""
    seen: dict[str, int] = {}
    for kind in kinds:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        seen[name] = seen.get(name, -1) + 1
        yield f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}"


def _arrays(kind: str, folder: str, weights: Vars) -> list[Any]:
    """The weights of one layer, in the order of `get_weights`."""
    if kind == "Bidirectional":
        parts = [f"{folder}/{side}_layer/cell/vars" for side in ("forward", "backward")]
    elif kind == "TimeDistributed":
        parts = [f"{folder}/layer/vars"]
    else:
        parts = [f"{folder}/cell/vars" if kind in RECURRENT else f"{folder}/vars"]
    return [array for part in parts for array in weights.get(part, [])]


def _joined(records: Sequence[KerasLayer]) -> Module:
    """One layer, or a Sequential of them."""
    layers = [layer for record in records for layer in layers_of(record)]
    if not layers:
        raise ArgumentError("there is no layer in this model")
    return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)).eval()


# ---- weights by themselves

def _one(kind: str, weights: Any, options: Mapping[str, Any]) -> Module:
    """One layer of a kind, with options of Keras."""
    unknown = [k for k in options if k not in OPTIONS[kind]]
    if unknown:
        raise ArgumentError(f"keras.layers.{kind} has no option {unknown[0]!r} that its weights need; known are "
                            f"{', '.join(sorted(OPTIONS[kind])) or 'none'}")
    if isinstance(weights, dict):
        if len(weights) != 1:
            raise ArgumentError(f"the file holds the weights of {len(weights)} layers, {', '.join(list(weights)[:4])}: give "
                                "like=, a model of tinyrnn, or the .keras file")
        weights = next(iter(weights.values()))
    arrays = [np.asarray(a) for a in weights]
    if kind == "Dense":
        options = {**options, "use_bias": len(arrays) > 1}
    return _alone(KerasLayer(kind, options, arrays))


def _into(like: Module, weights: Any) -> Module:
    """A copy of a model of ours with the weights of a file, or of a list like that of `get_weights`."""
    model = copy.deepcopy(like)
    records = list(records_of(model))
    if isinstance(weights, dict):
        folders = _folders(r.kind for r in records)
        given = [_arrays(r.kind, folder, weights) for r, folder in zip(records, folders, strict=True)]
        there = sum(map(len, weights.values()))
        if sum(map(len, given)) != there:
            wanted = ", ".join(_folders(r.kind for r in records if r.arrays))
            raise LoadError(f"the weights do not belong to this model: the file has {there} arrays in "
                            f"{', '.join(list(weights)[:6])}; the model takes {sum(len(r.arrays) for r in records)} in "
                            f"{wanted}")
    else:
        given = list(_dealt(records, [np.asarray(a) for a in weights]))
    for record, arrays in zip(records, given, strict=True):
        if [np.shape(a) for a in arrays] != [a.shape for a in record.arrays]:
            raise LoadError(f"keras.layers.{record.kind} of this model takes arrays of the shapes "
                            f"{', '.join(str(list(a.shape)) for a in record.arrays)}; got "
                            f"{', '.join(str(list(np.shape(a))) for a in arrays) or 'none'}")
        record.fill(arrays)
    return model


def _dealt(records: Sequence[Outgoing], arrays: list[Any]) -> Iterator[list[Any]]:
    count = sum(len(r.arrays) for r in records)
    if len(arrays) != count:
        raise LoadError(f"the weights do not belong to this model, which takes {count} arrays; got {len(arrays)}")
    for record in records:
        yield [arrays.pop(0) for _ in record.arrays]
