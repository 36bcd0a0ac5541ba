"""Models from files: a closed vocabulary of layers, and the equations that travel with the weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..cells.initial import blank
from ..errors import ArgumentError, LoadError, TinyRNNError
from ..files import File, shown
from ..io.weights import checksum, read_weights, sound_text, texts
from ..version import VERSION
from .module import ALLOWED, FORMAT, Module, build

MOST_SHARED = 2**26  # numbers of shared arrays that may stand in several places while a model is built, or this many times
MOST_PLACES = 256    # the numbers of the file


def tie(model: Module, shared: Any) -> None:
    """Make parameters one that were one when the model was saved."""
    places = dict(model.places())
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


def _freeze(model: Module, fixed: object) -> None:
    """What was not trained when the model was saved is not trained now."""
    own = dict(model.leaves())
    if not isinstance(fixed, list) or not all(isinstance(k, str) and k in own for k in fixed):
        raise LoadError("the description of fixed weights is not sound")
    for k in fixed:
        own[k].trainable = False


def _key(holder: object, part: str) -> Any:
    return int(part) if isinstance(holder, list) else part


def load(file: File, *, allow: Collection[str] = ()) -> Module:
    """The model that `save` wrote, equations and all, from a file's name or a file open in binary mode; ready for use
    (evaluation mode).

    No more numbers are made than the file holds, and once more for each place of weights that are shared.  A file names
    classes of your own by where they are imported from; Python imports the modules in `allow`, and no others.

    Raises `LoadError` for a file that is damaged, of a newer version, or not one of these, and OSError for one that cannot be
    opened.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(Path(folder) / "model.safetensors")
    ...     again = tr.load(Path(folder) / "model.safetensors")
    >>> again.layers[0].weight_hh_l0.shape
    (12, 4)
    """
    allowed = _checked_names(allow)
    (arrays, metadata), path = read_weights(file), shown(file)
    if metadata.get("tinyrnn", FORMAT) != FORMAT:
        raise LoadError(f"{path} has format {metadata['tinyrnn'][:20]!r}, of tinyrnn {metadata.get('version', '?')[:20]}; "
                        f"tinyrnn {VERSION} reads format {FORMAT!r}: install a newer one")
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
        with blank(_entries(arrays, shared)), _importing(allowed):
            model = build(form)
        tie(model, shared)
        _freeze(model, fixed)
        _check_dtypes(model, arrays)
        Module.load_state_dict(model, arrays)
    except TinyRNNError as error:
        raise LoadError(f"{path}: {error}") from None
    return model.eval()


def _checked_names(allow: object) -> frozenset[str]:
    if not isinstance(allow, (list, tuple, set, frozenset)) or not all(isinstance(a, str) for a in allow):
        raise ArgumentError(f"allow={allow!r}: expected a list of names of Python modules, such as ['my_project.layers']")
    return frozenset(allow)


@contextmanager
def _importing(modules: frozenset[str]) -> Iterator[None]:
    """Inside, layers of these Python modules are built as well."""
    token = ALLOWED.set(modules)
    try:
        yield
    finally:
        ALLOWED.reset(token)


def _check_texts(metadata: Mapping[str, str], arrays: Mapping[str, Any], form: object, shared: object) -> None:
    """The file is as it was written (version 0.1 wrote no sum), and what it says can be printed."""
    said = [metadata["model"], metadata.get("shared", ""), *([metadata["fixed"]] if "fixed" in metadata else [])]
    if "sum" in metadata and metadata["sum"] != checksum(arrays, *said):
        raise LoadError("its sum does not agree: a bit was flipped, or it was edited")
    if not all(map(sound_text, texts([form, shared]))):
        raise LoadError("a text in its description has control characters")


def _entries(arrays: Mapping[str, Any], shared: object) -> int:
    """How many numbers the model may be built of: those of the file, and those that stand in several places once for each."""
    named = [v for v in shared.values() if isinstance(v, str)] if isinstance(shared, dict) else []
    again: int = sum(arrays[v].size for v in named if v in arrays)
    own = sum(int(a.size) for a in arrays.values())
    return own + min(again, max(MOST_SHARED, MOST_PLACES * own))


def _check_dtypes(model: Module, arrays: Mapping[str, Any]) -> None:
    """Weights are of the dtypes that the description says: nothing is converted."""
    for k, t in model.leaves():
        if k in arrays and arrays[k].dtype != t.dtype:
            raise LoadError(f"{k} is {arrays[k].dtype} in the file, its layer is {t.dtype}")
