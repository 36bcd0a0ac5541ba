"""Layers and models as layers of Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np

from .. import nn
from ..cells import Cell
from ..errors import ArgumentError, MissingPackageError
from ..nn.module import Module
from ..nn.packed import Packed
from .carry import carried, compared, from_layer, into_layer
from .frameworks import ACTIVATIONS
from .keras_layers import FUNCTIONS, MERGES, RECURRENT, named_arrays, theirs_of

Fill = Callable[[list[Any]], None]


@dataclass
class Outgoing:
    """A layer of Keras that does what a layer of ours does, or a part of it: class, options, weights; and `fill`, which puts
    such weights into ours."""

    kind: str
    config: dict[str, Any]
    arrays: list[Any] = field(default_factory=list)
    fill: Fill = lambda arrays: None
    trainable: bool = True


def to_keras(model: Module) -> Any:
    """A `keras.Sequential` that computes what a layer or a model does: SimpleRNN, LSTM and GRU, also for a cell of one's own
    that is proved equal to one of them, Bidirectional, Embedding, Dense, LayerNormalization, Dropout, Activation.

    A recurrent layer gives the whole sequence, or its last step where `Last` follows.  Of the same shapes and dtypes. Raises
    `ArgumentError`, with the term that differs, for what has no counterpart, and `MissingPackageError` without Keras.

    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.LSTM(3, 4, bidirectional=True), tr.nn.Last(), tr.nn.Linear(8, 2))
    >>> [record.kind for record in records_of(model)]
    ['Bidirectional', 'Dense']
    """
    if find_spec("keras") is None:
        raise MissingPackageError("to_keras needs Keras, which is not installed: pip install keras")
    keras, records = import_module("keras"), list(records_of(model))
    dtype = next((a.dtype.name for r in records for a in r.arrays), "float32")
    found = keras.Sequential([_input(keras, records, dtype), *(_layer(keras, r, dtype) for r in records)])
    own = [layer for layer in found.layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer, record in zip(own, records, strict=True):
        layer.set_weights(record.arrays)
        layer.trainable = record.trainable
    return found


def _input(keras: Any, records: Sequence[Outgoing], dtype: str) -> Any:
    """What the first layer with weights takes."""
    first = next((r for r in records if r.arrays), None)
    if first is None:
        raise ArgumentError("no layer of this model has weights, from which the width of its input would follow")
    if first.kind == "Embedding":
        return keras.Input((None,), dtype="int32")
    width = first.arrays[0].shape[0]
    timed = any(r.kind in (*RECURRENT, "Bidirectional") or r.kind.startswith("Global") for r in records)
    return keras.Input((None, width) if timed else (width,), dtype=dtype)


def _layer(keras: Any, record: Outgoing, dtype: str) -> Any:
    config = dict(record.config)
    if isinstance(config.get("layer"), Outgoing):
        config["layer"] = _layer(keras, config["layer"], dtype)
    return getattr(keras.layers, record.kind)(**config, dtype=dtype)


def records_of(model: Module) -> Iterator[Outgoing]:
    """The layers of Keras for a layer or a model, one after the other.

    Raises `ArgumentError` for what has no counterpart.

    >>> import tinyrnn as tr
    >>> [record.kind for record in records_of(tr.nn.GRU(2, 3, num_layers=2))]
    ['GRU', 'GRU']
    """
    flat = list(_single(model))
    for i, layer in enumerate(flat):
        last = _comes(flat[i + 1 :])
        if isinstance(layer, nn.Last):
            before = next((m for m in reversed(flat[:i]) if not isinstance(m, nn.Dropout)), None)
            if not isinstance(before, (Packed, nn.Recurrent, nn.Bidirectional)):
                raise ArgumentError(f"Last of what a {type(before).__name__} gives has no counterpart in Keras: put it right "
                                    "behind the recurrent layer")
            continue
        convert = next((c for kind, c in _OUT.items() if type(layer) is kind), None)
        if convert is None:
            raise ArgumentError(f"{type(layer).__name__} has no counterpart in keras.layers")
        for record in convert(layer, last):
            record.trainable = layer.trainable
            yield record


def _single(layer: Module) -> Iterator[Module]:
    if isinstance(layer, nn.Sequential):
        for inner in layer.layers:
            yield from _single(inner)
    else:
        yield layer


def _comes(rest: Sequence[Module]) -> bool:
    """Whether Last comes next, but for Dropout."""
    return next((isinstance(m, nn.Last) for m in rest if not isinstance(m, nn.Dropout)), False)


# ---- recurrent layers

def _packed(layer: Packed, last: bool) -> Iterator[Outgoing]:
    for k in range(layer.num_layers):
        if k and layer.dropout:
            yield Outgoing("Dropout", {"rate": layer.dropout})
        ends = last and k == layer.num_layers - 1
        parts = [_one(layer, f"l{k}{d}", ends) for d in layer.directions]
        yield parts[0] if len(parts) == 1 else _both(parts, "concat")


def _both(parts: Sequence[Outgoing], merge: str) -> Outgoing:
    """Two directions as one layer."""
    ahead, back = parts
    count = len(ahead.arrays)

    def fill(arrays: list[Any]) -> None:
        ahead.fill(arrays[:count])
        back.fill(arrays[count:])

    return Outgoing("Bidirectional", {"layer": ahead, "merge_mode": merge}, [*ahead.arrays, *back.arrays], fill)


def _one(layer: Any, where: str, ends: bool, turned: bool = False) -> Outgoing:
    """One cell over a sequence."""
    _refuse(layer, ends, turned)
    kind, config, bias = _found(layer)
    theirs = theirs_of(kind, config, bias)
    names = [n for n in theirs.layout.arrays if n != "bias" or not isinstance(layer, Packed) or layer.bias]
    arrays = from_layer(layer, where, theirs, names)
    config |= {"units": theirs.layout.sizes(arrays)["h"], "use_bias": "bias" in names, "return_sequences": not ends,
               "recurrent_dropout": layer.noise.dropout}
    if layer.reverse and not turned:
        config["go_backwards"] = True

    def fill(given: list[Any]) -> None:
        named = named_arrays(theirs, given, kind)
        if isinstance(layer, Packed):
            into_layer(layer, where, theirs, named)
        else:
            values = theirs.layout.apart(named)
            layer.load_state_dict(carried(layer.cell, theirs.cell, values, "these weights have no place in this layer"))

    return Outgoing(kind, config, list(arrays.values()), fill)


def _refuse(layer: Any, ends: bool, turned: bool) -> None:
    if layer.noise.rates:
        raise ArgumentError(f"a {type(layer).__name__} with zoneout has no counterpart in keras.layers")
    if not layer.batch_first:
        raise ArgumentError(f"a {type(layer).__name__} with batch_first=False has no counterpart in keras.layers")
    if layer.reverse and not (ends or turned):
        raise ArgumentError(f"a {type(layer).__name__} with reverse=True has no counterpart in keras.layers, unless Last "
                            "follows: go_backwards=True gives the sequence turned round")


def _found(layer: Packed | nn.Recurrent) -> tuple[str, dict[str, Any], bool]:
    """The layer of Keras with these very equations, or that which is proved to be the same, or else one to compare with; and
    whether it has biases."""
    for (kind, config), bias in product(_forms() if isinstance(layer, nn.Recurrent) else (), (True, False)):
        if theirs_of(kind, config, bias).cell == layer.cell:
            return kind, dict(config), bias
    states = 2 if len(layer.cell.states) == 2 else 1
    plain: list[tuple[str, dict[str, Any]]] = [("LSTM", {})] if states == 2 else [
        ("GRU", {}), ("GRU", {"reset_after": False}),
        *(("SimpleRNN", {"activation": a}) for a in ("tanh", *sorted(
            a for a in set(ACTIVATIONS) - {"tanh"} if FUNCTIONS.get(a, a) in _used(layer.cell))))]
    if isinstance(layer, Packed):  # by its name: what differs is then said of that one
        plain = [f for f in plain if f[0].endswith(type(layer).__name__)]
        if isinstance(layer, nn.GRU):
            plain = [f for f in plain if f[1].get("reset_after", True) == (layer.reset == "after")]
    kind, config = next((f for f in plain if compared(theirs_of(*f).cell, layer.cell).holds), plain[0])
    return kind, config, True


def _used(cell: Cell) -> set[str]:
    return {t.value for e in cell.system.equations for t in e.term.walk() if t.kind == "call"}


@cache
def _forms() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Every recurrent layer of Keras with every pair of functions."""
    found: list[tuple[str, dict[str, Any]]] = [("SimpleRNN", {"activation": a}) for a in ACTIVATIONS]
    for a, r in product(ACTIVATIONS, ACTIVATIONS):
        both = {"activation": a, "recurrent_activation": r}
        found += [("LSTM", both), ("GRU", both), ("GRU", {**both, "reset_after": False})]
    return tuple(found)


def _two(layer: nn.Bidirectional, last: bool) -> Iterator[Outgoing]:
    merge = next((theirs for theirs, ours in MERGES.items() if ours == layer.merge), None)
    inner = layer.forward
    if merge is None or (isinstance(inner, Packed) and inner.num_layers > 1):
        raise ArgumentError(f"Bidirectional(merge={layer.merge!r}) around a {type(inner).__name__} of "
                            f"{getattr(inner, 'num_layers', 1)} layers has no counterpart in keras.layers")
    if inner.reverse:
        raise ArgumentError("Bidirectional around a layer that reads backwards has no counterpart in keras.layers")
    yield _both([_one(inner, "l0", last), _one(layer.backward, "l0", last, turned=True)], merge)


# ---- layers without memory

def _embedding(layer: nn.Embedding, last: bool) -> Iterator[Outgoing]:
    yield Outgoing("Embedding", {"input_dim": layer.num_embeddings, "output_dim": layer.embedding_dim}, [layer.weight.numpy()],
                   lambda arrays: layer.load_state_dict({"weight": arrays[0]}))


def _linear(layer: nn.Linear, last: bool) -> Iterator[Outgoing]:
    def fill(arrays: list[Any]) -> None:
        layer.load_state_dict(dict(zip(("weight", "bias"), (np.transpose(arrays[0]), *arrays[1:]), strict=False)))

    yield Outgoing("Dense", {"units": layer.out_features, "use_bias": layer.bias is not None},
                   [np.ascontiguousarray(layer.weight.numpy().T), *([] if layer.bias is None else [layer.bias.numpy()])], fill)


def _layer_norm(layer: nn.LayerNorm, last: bool) -> Iterator[Outgoing]:
    state = layer.state_dict()
    scale = layer.weight.trainable or bool((state["weight"] != 1).any())
    names = [k for k in state if k != "weight" or scale]
    yield Outgoing("LayerNormalization", {"epsilon": layer.eps, "center": layer.bias is not None, "scale": scale},
                   [state[k] for k in names],
                   lambda arrays: layer.load_state_dict({**layer.state_dict(), **dict(zip(names, arrays, strict=True))}))


def _dropout(layer: nn.Dropout, last: bool) -> Iterator[Outgoing]:
    if layer.shared_axes not in ((), (1,)):
        raise ArgumentError(f"Dropout(shared_axes={layer.shared_axes}) has no counterpart in keras.layers")
    yield Outgoing("SpatialDropout1D" if layer.shared_axes else "Dropout", {"rate": layer.p})


def _activation(layer: nn.Activation, last: bool) -> Iterator[Outgoing]:
    name = next((theirs for theirs, ours in FUNCTIONS.items() if ours == layer.name), None)
    if name is None:
        raise ArgumentError(f"Activation({layer.name!r}) has no counterpart in keras.layers")
    yield Outgoing("Activation", {"activation": name})


def _pool(layer: nn.Pool, last: bool) -> Iterator[Outgoing]:
    kinds = {"mean": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D"}
    if layer.reduction not in kinds:
        raise ArgumentError(f"Pool({layer.reduction!r}) has no counterpart in keras.layers")
    yield Outgoing(kinds[layer.reduction], {})


_OUT: dict[type[Module], Callable[[Any, bool], Iterator[Outgoing]]] = {
    nn.RNN: _packed, nn.LSTM: _packed, nn.GRU: _packed,
    nn.Recurrent: lambda layer, last: iter([_one(layer, "", last)]), nn.Bidirectional: _two,
    nn.Embedding: _embedding, nn.Linear: _linear, nn.LayerNorm: _layer_norm, nn.Dropout: _dropout, nn.Activation: _activation,
    nn.Pool: _pool}
