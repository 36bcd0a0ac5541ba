"""Checkpoints: everything that a run needs to go on as if nothing had happened, in one file."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, LoadError
from ..io.weights import checksum, read_weights, sound_text, texts, write_weights
from ..shapes import show
from ..tensor.tensor import Tensor

try:
    import fcntl
except ImportError:  # not on Windows: there two runs in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

NAME = "checkpoint.safetensors"
FORMAT = "2"  # of what is written; another one is not read
KEYS = {"setup", "weights", "optimizer", "sums", "rng", "before", "epoch", "done", "totals", "weight", "carried", "gathered",
        "stopped", "reason", "history", "callbacks"}


class Lock:
    """A folder that one run has for itself; the system lets go of it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ArgumentError(f"resume={str(folder)!r} is a file: give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.file = open(folder / "lock", "w")  # noqa: SIM115  (it stays open as long as the run)
        if fcntl is not None:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.file.close()
                raise ArgumentError(f"another run is at work in {folder}: give each run a folder of its own") from None

    def release(self) -> None:
        """Let others in."""
        self.file.close()


def write_checkpoint(folder: Path, tree: Mapping[str, Any]) -> None:
    """Nested dicts, lists and tuples of numbers, texts, None and arrays; atomic."""
    arrays: dict[str, Any] = {}
    try:
        text = json.dumps(_encode(tree, "run", arrays))
    except TypeError as error:
        raise ArgumentError(f"a checkpoint holds numbers, texts, None, arrays, and lists and dicts of them ({error}): look at "
                            "the state_dict of your callbacks") from None
    write_weights(folder / NAME, arrays, {"tinyrnn": FORMAT, "run": text, "sum": checksum(arrays, text)})


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What was written, or None where nothing was."""
    path = folder / NAME
    if not path.exists():
        return None
    if not path.is_file():
        raise LoadError(f"{path}: not a file")
    arrays, metadata = read_weights(path)
    try:
        if metadata["tinyrnn"] != FORMAT:
            raise LoadError(f"{path}: a checkpoint of another version of tinyrnn; finish the run with that one, or remove the "
                            "file to begin anew")
        text = metadata["run"]
        if metadata["sum"] != checksum(arrays, text):
            raise ValueError("its sum does not agree: a bit was flipped, or it was edited")
        tree: dict[str, Any] = _decode(json.loads(text), arrays)
        if set(tree) != KEYS:
            raise ValueError("it lacks something")
        if not all(sound_text(t) for t in texts(tree)):
            raise ValueError("a text in it has control characters")
    except LoadError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(f"{path}: not a sound checkpoint of a run ({error}); remove it to begin anew") from None
    return tree


def check_arrays(what: str, arrays: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Arrays from a file have the names, shapes and dtypes of the tensors that they will be assigned to."""
    if set(arrays) != set(own):
        raise ValueError(f"it has {', '.join(sorted(arrays)) or 'nothing'} for {', '.join(sorted(own)) or 'nothing'}")
    for k, t in own.items():
        a = arrays[k]
        if not isinstance(a, np.ndarray) or (a.shape, a.dtype) != (t.shape, t.dtype):
            seen = f"{a.dtype}{show(a.shape)}" if isinstance(a, np.ndarray) else type(a).__name__
            raise ValueError(f"its {what} {k} is {seen}, expected {t.dtype}{show(t.shape)}")


def _encode(tree: Any, path: str, arrays: dict[str, Any]) -> Any:
    if isinstance(tree, Mapping):
        return {"dict": [[k, _encode(v, f"{path} {i}", arrays)] for i, (k, v) in enumerate(tree.items())]}
    if hasattr(tree, "_fields"):
        fields = [_encode(v, f"{path} {i}", arrays) for i, v in enumerate(tree)]
        return {"named": [type(tree).__name__, list(tree._fields), fields]}
    if isinstance(tree, (list, tuple)):
        return {type(tree).__name__: [_encode(v, f"{path} {i}", arrays) for i, v in enumerate(tree)]}
    if isinstance(tree, (np.ndarray, np.generic)):
        arrays[path] = np.asarray(tree)
        return {"array": path}
    return {"value": tree}


def _decode(form: Any, arrays: Mapping[str, Any]) -> Any:
    (kind, inside), = form.items()
    if kind == "dict":
        return {k: _decode(v, arrays) for k, v in inside}
    if kind == "named":
        name, fields, parts = inside
        return namedtuple(name, fields)(*(_decode(v, arrays) for v in parts))
    if kind in ("list", "tuple"):
        parts = [_decode(v, arrays) for v in inside]
        return parts if kind == "list" else tuple(parts)
    return arrays[inside] if kind == "array" else inside
