"""Arrays of other libraries, and arrays that are on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError

_GPU = (2, 13)  # DLPack's numbers for CUDA memory, and for managed CUDA memory


def is_device(value: object) -> bool:
    """Whether an array's numbers are on a GPU."""
    if type(value).__module__.partition(".")[0] == "cupy":
        return True
    if isinstance(value, (np.ndarray, np.generic)) or not hasattr(value, "__dlpack_device__"):
        return False
    return value.__dlpack_device__()[0] in _GPU


def speaks_dlpack(value: object) -> bool:
    """Whether this is an array of another library, such as a tensor of PyTorch."""
    return hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")


def taken(value: Any) -> Any:
    """An array of another library, where it is: a NumPy array, or one of CuPy.  Nothing is copied."""
    try:
        if is_device(value):
            cupy = import_module("tinyrnn.backends.cuda.device").require()
            return value if isinstance(value, cupy.ndarray) else cupy.from_dlpack(value)
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"this {type(value).__module__}.{type(value).__name__} cannot be read through DLPack: {error}. "
                            "Detach it from its graph, or give a NumPy array") from None


def _readable(value: Any) -> npt.NDArray[Any]:
    """An array of another library on the host; a dtype that NumPy lacks is refused by its name."""
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError, BufferError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        raise ArgumentError(f"an array of {kind} cannot be read: {error}. Convert it first, for example to float32") from None


def fetched(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, those of a GPU brought to the host."""
    return {k: on_host(v) if is_device(v) else v for k, v in values.items()}


def _unmasked(value: Any) -> Any:
    """The value; masked entries, whose numbers NumPy would use as if they were data, are refused."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    count = sum(int(np.ma.getmaskarray(v).sum()) for v in parts if isinstance(v, np.ma.MaskedArray))
    if count:
        raise ArgumentError(f"a masked array has {count} masked entries, whose numbers are no data: fill them (x.filled(0)), "
                            "and mark the steps that count by mask= or lengths=")
    return value


def on_host(value: Any) -> npt.NDArray[Any]:
    """The numbers as an array of NumPy; masked entries, and dtypes that NumPy lacks, are refused."""
    if not is_device(value):
        if speaks_dlpack(value) and not isinstance(value, (np.ndarray, np.generic)):
            return _readable(value)
        return np.asarray(_unmasked(value))
    cupy = import_module("tinyrnn.backends.cuda.device").require()
    host: npt.NDArray[Any] = cupy.asnumpy(taken(value))
    return host
