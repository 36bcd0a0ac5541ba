"""Models from files: a closed vocabulary of layers, and the equations that travel with the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ..cells import Cell
from ..errors import LoadError, TinyRNNError
from ..files import PathLike
from ..io.weights import read_weights
from .bidirectional import Bidirectional
from .layers import Dropout, Embedding, LayerNorm, Linear, Repeat
from .module import Module
from .packed import GRU, LSTM, RNN, Packed
from .pooling import Last, Pool
from .recurrent import Recurrent
from .seq2seq import EncoderDecoder
from .sequential import Sequential


def _recurrent(text: str, name: str, sizes: dict[str, int], **options: Any) -> Module:
    cell = Cell(text, name)
    shapes = cell.shapes(sizes)
    return Recurrent(cell, sizes, fixed={p: np.zeros(shapes[p]) for p in cell.fixed}, **options)


def _sequential(layers: list[Any]) -> Module:
    return Sequential(*map(build, layers))


def _encoder_decoder(text: str, name: str, **options: Any) -> Module:
    return EncoderDecoder(cell=Cell(text, name), **options)


def _bidirectional(layer: Any, merge: str | None) -> Module:
    inner = build(layer)
    if not isinstance(inner, (Recurrent, Packed)):
        raise LoadError(f"a Bidirectional layer around {type(inner).__name__}: expected a recurrent layer")
    return Bidirectional(inner, merge)


KINDS: dict[str, Callable[..., Module]] = {
    "Bidirectional": _bidirectional, "Dropout": Dropout, "Embedding": Embedding,
    "EncoderDecoder": _encoder_decoder, "GRU": GRU, "LSTM": LSTM, "Last": Last,
    "LayerNorm": LayerNorm, "Linear": Linear, "Pool": Pool, "RNN": RNN, "Recurrent": _recurrent, "Repeat": Repeat,
    "Sequential": _sequential}


def build(form: Any) -> Module:
    """A module from its description."""
    if not isinstance(form, dict) or form.get("kind") not in KINDS:
        raise LoadError(f"unknown layer {form.get('kind') if isinstance(form, dict) else form!r}; "
                        f"known are {', '.join(KINDS)}")
    arguments = {k: v for k, v in form.items() if k != "kind"}
    try:
        return KINDS[form["kind"]](**arguments)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise LoadError(f"the description of a {form['kind']} layer is not sound: {error}") from None


def tie(model: Module, shared: Any) -> None:
    """Make parameters one that were one when the model was saved."""
    places = dict(model._places())
    sound = isinstance(shared, dict) and all(isinstance(v, str) and k in places and v in places
                                             and places[k].shape == places[v].shape for k, v in shared.items())
    if not sound:
        raise LoadError("the description of shared parameters is not sound")
    for alias, name in shared.items():
        holder: Any = model
        *path, last = alias.split(".")
        for part in path:  # each is an attribute, an index or a key: alias is one of the model's own places
            holder = vars(holder)[part] if isinstance(holder, Module) else holder[_key(holder, part)]
        if isinstance(holder, Module):
            setattr(holder, last, places[name])
        else:
            holder[_key(holder, last)] = places[name]


def _key(holder: Any, part: str) -> Any:
    return int(part) if isinstance(holder, list) else part


def load(path: PathLike) -> Module:
    """The model that `save` wrote, equations and all; ready for use (evaluation mode)."""
    arrays, metadata = read_weights(path)
    if not metadata.get("model"):
        raise LoadError(f"{path} holds weights without a description of their model: build the model and use "
                        "model.load_state_dict(tr.io.read_weights(path)[0])")
    try:
        form, shared = json.loads(metadata["model"]), json.loads(metadata.get("shared", "{}"))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path}: the description of the model is not sound ({error})") from None
    try:
        model = build(form)
        tie(model, shared)
        Module.load_state_dict(model, arrays)
    except TinyRNNError as error:
        raise LoadError(f"{path}: {error}") from None
    return model.eval()
