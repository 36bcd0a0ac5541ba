"""Models from files: a closed vocabulary of layers, and the equations that travel with the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..cells import Cell
from ..cells.initial import blank, constant
from ..errors import LoadError, TinyRNNError
from ..files import PathLike
from ..io.weights import checksum, read_weights, sound_text, texts
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
    return Recurrent(cell, sizes, fixed={p: constant(shapes[p], 0.0) for p in cell.fixed}, **options)


def _sequential(layers: list[Any]) -> Module:
    return Sequential(*map(build, layers))


def _encoder_decoder(text: str, name: str, **options: Any) -> Module:
    return EncoderDecoder(cell=Cell(text, name), **options)


def _bidirectional(layer: Any, merge: str | None) -> Module:
    inner = build(layer)
    if not isinstance(inner, (Recurrent, Packed)):
        raise LoadError(f"a Bidirectional layer around {type(inner).__name__}: expected a recurrent layer")
    return Bidirectional(inner, merge)


MOST_SHARED = 2**26  # numbers of shared arrays that may stand in several places while a model is built, or this many times
MOST_PLACES = 256    # the numbers of the file

KINDS: dict[str, Callable[..., Module]] = {
    "Bidirectional": _bidirectional, "Dropout": Dropout, "Embedding": Embedding,
    "EncoderDecoder": _encoder_decoder, "GRU": GRU, "LSTM": LSTM, "Last": Last,
    "LayerNorm": LayerNorm, "Linear": Linear, "Pool": Pool, "RNN": RNN, "Recurrent": _recurrent, "Repeat": Repeat,
    "Sequential": _sequential}


def build(form: Any) -> Module:
    """A module from its description."""
    kind = form.get("kind") if isinstance(form, dict) else form
    if not isinstance(form, dict) or not isinstance(kind, str) or kind not in KINDS:
        raise LoadError(f"unknown layer {str(kind)[:40]!r}; known are {', '.join(KINDS)}")
    try:
        return KINDS[kind](**{k: v for k, v in form.items() if k != "kind"})
    except LoadError:
        raise
    except Exception as error:  # a constructor may say anything of arguments that no program of ours wrote
        raise LoadError(f"the description of a {kind} layer is not sound: {error}") from None


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


def _freeze(model: Module, fixed: Any) -> None:
    """What was not trained when the model was saved is not trained now."""
    own = dict(model._leaves())
    if not isinstance(fixed, list) or not all(isinstance(k, str) and k in own for k in fixed):
        raise LoadError("the description of fixed weights is not sound")
    for k in fixed:
        own[k].trainable = False


def _key(holder: Any, part: str) -> Any:
    return int(part) if isinstance(holder, list) else part


def load(path: PathLike) -> Module:
    """The model that `save` wrote, equations and all; ready for use (evaluation mode).

    A file that is damaged, or not one of these, is a `LoadError`.  No more numbers are made than the file holds, and once
    more for each place of weights that are shared; a file that cannot be opened is an OSError.
    """
    arrays, metadata = read_weights(path)
    if not metadata.get("model"):
        raise LoadError(f"{path} holds weights without a description of their model: build the model and use "
                        "model.load_state_dict(tr.io.read_weights(path)[0])")
    try:
        form, shared, fixed = (json.loads(metadata.get(k, none)) for k, none in (
            ("model", ""), ("shared", "{}"), ("fixed", "[]")))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path}: the description of the model is not sound ({error})") from None
    try:
        _check_texts(metadata, arrays, form, shared)
        with blank(_entries(arrays, shared)):
            model = build(form)
        tie(model, shared)
        _freeze(model, fixed)
        _check_dtypes(model, arrays)
        Module.load_state_dict(model, arrays)
    except TinyRNNError as error:
        raise LoadError(f"{path}: {error}") from None
    return model.eval()


def _check_texts(metadata: Mapping[str, str], arrays: Mapping[str, Any], form: Any, shared: Any) -> None:
    """The file is as it was written (version 0.1 wrote no sum), and what it says can be printed."""
    said = [metadata["model"], metadata.get("shared", ""), *([metadata["fixed"]] if "fixed" in metadata else [])]
    if "sum" in metadata and metadata["sum"] != checksum(arrays, *said):
        raise LoadError("its sum does not agree: a bit was flipped, or it was edited")
    if not all(map(sound_text, texts([form, shared]))):
        raise LoadError("a text in its description has control characters")


def _entries(arrays: Mapping[str, Any], shared: Any) -> int:
    """How many numbers the model may be built of: those of the file, and those that stand in several places once for each."""
    named = [v for v in shared.values() if isinstance(v, str)] if isinstance(shared, dict) else []
    again: int = sum(arrays[v].size for v in named if v in arrays)
    own = sum(int(a.size) for a in arrays.values())
    return own + min(again, max(MOST_SHARED, MOST_PLACES * own))


def _check_dtypes(model: Module, arrays: Mapping[str, Any]) -> None:
    """Weights are of the dtypes that the description says: nothing is converted."""
    for k, t in model._leaves():
        if k in arrays and arrays[k].dtype != t.dtype:
            raise LoadError(f"{k} is {arrays[k].dtype} in the file, its layer is {t.dtype}")
