"""Data as people hold them: lists of rows, arrays of objects, data frames; whatever cannot be read is refused by its kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host, speaks_dlpack
from ..errors import DTypeError, ShapeError, TinyRNNError

Array = npt.NDArray[Any]


def rows_or_array(data: Any, name: str) -> Any:
    """Rows in an array of objects as the list that they are; what is no array and no list of rows is refused."""
    if isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 1 and data.size and all(
            hasattr(r, "__len__") and not isinstance(r, str) for r in data):
        return list(data)
    known = isinstance(data, (list, tuple, str, bytes)) or hasattr(data, "__array__") or speaks_dlpack(data)
    if isinstance(data, Iterable) and not known:
        kind = type(data).__name__
        if hasattr(data, "__next__"):
            raise DTypeError(f"{name} is a {kind}, which can be read only once: give the rows as a list, list({name})")
        raise DTypeError(f"{name} is a {kind}: give whole arrays or a list of rows, not batches; fit shuffles them and makes "
                         "the batches itself (batch_size=)")
    return data


def full_array(data: Any, name: str) -> Array:
    """Data as an array of numbers, refused by name where they are none; float16 becomes float32."""
    try:
        array = on_host(data)
    except TinyRNNError:
        raise
    except ValueError:
        raise ShapeError(f"the rows of {name} differ in length; pad them and give lengths=, or give a list of rows") from None
    if array.dtype.kind == "O":
        array = _of_objects(data, array, name)
    if array.dtype.kind == "M" or array.dtype.kind == "m":
        raise DTypeError(f"{name} is {array.dtype}: expected numbers; turn times into numbers first, for example hours since "
                         "the first")
    if array.dtype.kind == "c":
        raise DTypeError(f"{name} is {array.dtype}: expected real numbers")
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{name} is {array.dtype}: expected numbers; encode text first (tinyrnn.datasets.Vocabulary)")
    return array.astype(np.float32) if array.dtype == np.float16 else array  # kernels compute in float32 and float64


def _of_objects(data: Any, array: Array, name: str) -> Array:
    """Numbers and bools that stand among each other, as in a data frame with columns of several kinds."""
    for value in array.ravel():
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            raise DTypeError(f"{name} has missing values ({value}): fill or drop them, or mark the steps that count by mask=")
        if isinstance(value, (str, bytes)):
            frame = next((d for d in (data, *data) if hasattr(d, "columns")), None) if np.size(data) else None
            column = "" if frame is None else f" (column {_text_column(frame)!r})"
            raise DTypeError(f"{name} holds text{column}: expected numbers; encode text first (tinyrnn.datasets.Vocabulary)")
        if not isinstance(value, (bool, int, float, np.bool_, np.number)):
            raise DTypeError(f"{name} holds a {type(value).__name__}: expected numbers; rows of different lengths are a list "
                             "of arrays, each [T, ...]")
    whole = all(isinstance(v, (bool, int, np.bool_, np.integer)) for v in array.ravel())
    return array.astype(np.int64 if whole else np.float64)


def _text_column(frame: Any) -> Any:
    return next((c for c in frame.columns if any(isinstance(v, (str, bytes)) for v in frame[c])), frame.columns[0])
