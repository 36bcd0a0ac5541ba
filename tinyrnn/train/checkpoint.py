"""Checkpoints: everything that a run needs to go on as if nothing had happened, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LoadError
from ..io.weights import read_weights, write_weights

NAME = "checkpoint.safetensors"


def write_checkpoint(folder: Path, tree: Mapping[str, Any]) -> None:
    """Nested dicts, lists and tuples of numbers, texts, None and arrays; atomic."""
    arrays: dict[str, Any] = {}
    text = json.dumps(_encode(tree, "run", arrays))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / NAME, arrays, {"tinyrnn": "1", "run": text})


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What was written, or None where nothing was."""
    path = folder / NAME
    if not path.exists():
        return None
    arrays, metadata = read_weights(path)
    try:
        tree: dict[str, Any] = _decode(json.loads(metadata["run"]), arrays)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise LoadError(f"{path}: not a checkpoint of a run ({error})") from None
    return tree


def _encode(tree: Any, path: str, arrays: dict[str, Any]) -> Any:
    if isinstance(tree, Mapping):
        return {"dict": [[k, _encode(v, f"{path} {i}", arrays)] for i, (k, v) in enumerate(tree.items())]}
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
    if kind in ("list", "tuple"):
        parts = [_decode(v, arrays) for v in inside]
        return parts if kind == "list" else tuple(parts)
    return arrays[inside] if kind == "array" else inside
