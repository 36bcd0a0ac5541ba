"""What a file of weights or of a model is, in words, without running what it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..cells import Cell
from ..errors import LoadError
from ..files import PathLike
from ..io.weights import read_weights
from ..shapes import show
from .load import load
from .module import Module, Text

LONGEST = 200  # characters of a note that is not ours


def inspected(file: PathLike) -> tuple[Text, Module | None]:
    """A description of a safetensors file: of a model its layers and equations, else the names, dtypes and shapes of its
    arrays; and the model, where all its layers are tinyrnn's.

    Raises `LoadError` for a file that is not sound, and OSError for one that cannot be opened.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import tinyrnn as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tr.nn.Linear(2, 3, rng=0).save(Path(folder) / "m.safetensors")
    ...     text, model = tr.nn.inspected.inspected(Path(folder) / "m.safetensors")
    >>> text.splitlines()[0].partition(": ")[2]
    'a model of tinyrnn 0.1.0, format 1'
    """
    arrays, metadata = read_weights(file)
    model, why = _model(file, metadata)
    found = list(_of_model(model)) if model is not None else list(_of_arrays(arrays, metadata))
    return Text("\n".join([f"{file}: {_kind(metadata)}", *why, "", *found])), model


def _model(file: PathLike, metadata: Mapping[str, str]) -> tuple[Module | None, list[str]]:
    if not metadata.get("model"):
        return None, []
    try:
        return load(file), []
    except LoadError as error:
        return None, [f"not built: {error}"]


def _kind(metadata: Mapping[str, str]) -> str:
    version, form = metadata.get("version", "0.1.0"), metadata.get("tinyrnn", "?")
    if metadata.get("model"):
        return f"a model of tinyrnn {version}, format {form}"
    if "run" in metadata:
        return f"where a training run of tinyrnn stood, format {form}"
    return "weights" + (f" of tinyrnn {version}" if "tinyrnn" in metadata else "")


def _of_model(model: Module) -> Iterator[str]:
    """The table of layers, and the equations of each cell once."""
    yield model.summary()
    cells: dict[Cell, list[str]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer.cell, Cell):
            cells.setdefault(layer.cell, []).append(name or "(model)")
    for cell, names in cells.items():
        yield f"\n{', '.join(names)}: {cell.title}"
        yield from (f"  {line}" for line in cell.text.strip().splitlines() if not line.startswith("#"))


def _of_arrays(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, arrays), default=0)
    for name, array in arrays.items():
        yield f"{name:<{width}}  {array.dtype} {show(array.shape)}"
    yield f"{sum(a.size for a in arrays.values()):,} numbers in {len(arrays)} arrays"
    for name, text in metadata.items():
        yield f"{name}: {text[:LONGEST]}{'...' * (len(text) > LONGEST)}"
