"""safetensors files, written atomically and read with suspicion.  No pickle anywhere."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..errors import ArgumentError, LoadError
from ..files import File, read_bytes, shown, write_bytes

MAX_TENSORS = 100_000
MAX_HEADER = 100_000_000
_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"}
_KINDS = {np.dtype("?" if k == "BOOL" else k[0].lower() + str(int(k[1:]) // 8)) for k in _DTYPES}


def write_weights(file: File, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file that is complete or not there: a kill at any moment leaves the old file or the new one.  Into a file that
    is open in binary mode everything is written from where it stands.

    What `read_weights` would refuse is refused here: names and dtypes.

    Raises `ArgumentError` for such names, dtypes and numbers of arrays.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tr.io.write_weights(Path(folder) / "w.safetensors", {"W": np.eye(2)}, {"by": "hand"})
    ...     arrays, metadata = tr.io.read_weights(Path(folder) / "w.safetensors")
    >>> arrays["W"].shape, metadata
    ((2, 2), {'by': 'hand'})
    """
    from safetensors.numpy import save

    kept = {k: np.asarray(on_host(v), order="C") for k, v in arrays.items()}
    if len(kept) > MAX_TENSORS:
        raise ArgumentError(f"{len(kept):,} tensors; at most {MAX_TENSORS:,} are read back")
    for name, array in kept.items():
        if not sound_name(name):
            raise ArgumentError(f"{name[:40]!r} is no name for a tensor in a file: {NAMES}")
        if array.dtype.kind not in "fiubc" or array.dtype.newbyteorder("=") not in _KINDS:
            raise ArgumentError(f"tensor {name!r} is {array.dtype}, which a file cannot hold; convert it with astype")
    write_bytes(file, save(kept, dict(metadata or {})))


NAMES = "names are printable, not empty, at most 1,000 characters, without '/', '\\' and '..'"


def sound_name(name: str) -> bool:
    """Whether a tensor in a file may have this name: one rule for what is written and what is read."""
    return bool(name) and name.isprintable() and len(name) <= 1000 and not any(bad in name for bad in ("..", "/", "\\"))


def texts(tree: object) -> Iterator[str]:
    """Every text in a tree of dicts, lists and tuples, keys included."""
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            stack += [*part, *part.values()]
        elif isinstance(part, (list, tuple)):
            stack += part


def sound_text(text: str) -> bool:
    """Whether a text may be printed as it is: no control characters but the ends of lines and tabs."""
    return text.translate({10: None, 9: None}).isprintable()


def checksum(arrays: Mapping[str, Any], *texts: str) -> str:
    """A number that changes with every bit of the texts and of the arrays, and with their names, dtypes and shapes."""
    found = zlib.crc32(json.dumps(texts).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found = zlib.crc32(repr((name, array.dtype.str, np.shape(arrays[name]))).encode(), found)
        found = zlib.crc32(array.data if array.size else b"", found)
    return f"{found:08x}"


def read_weights(file: File) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The arrays and the metadata of a file, by its name or open in binary mode, or one `LoadError` that says what is wrong.

    Raises `LoadError` for an unsound file, and OSError for one that cannot be opened.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tr.io.write_weights(Path(folder) / "w.safetensors", {"W": np.eye(2)}, {"by": "hand"})
    ...     arrays, metadata = tr.io.read_weights(Path(folder) / "w.safetensors")
    >>> arrays["W"].shape, metadata
    ((2, 2), {'by': 'hand'})
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data, path = read_bytes(file), shown(file)
    metadata = _check_header(data, path)
    try:
        arrays = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise LoadError(f"{path}: not a sound safetensors file ({error})") from None
    return arrays, metadata


def _check_header(data: bytes, path: str) -> dict[str, str]:
    """What the format forbids and readers let pass: duplicate keys, odd names, bools that are neither 0 nor 1."""
    size = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= size <= min(len(data) - 8, MAX_HEADER) or data[8:9] != b"{":
        raise LoadError(f"{path}: not a safetensors file")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path}: the header is not sound ({error})") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise LoadError(f"{path}: the metadata are not text")
    if len(header) > MAX_TENSORS:
        raise LoadError(f"{path}: {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    body = memoryview(data)[8 + size :]
    for name, entry in header.items():
        _check_entry(name, entry, body, path)
    return metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _check_entry(name: str, entry: object, body: memoryview, path: str) -> None:
    if not sound_name(name):
        raise LoadError(f"{path}: {name[:40]!r} is not a name of a tensor")
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in _DTYPES:
        kind = entry.get("dtype") if isinstance(entry, dict) else entry
        raise LoadError(f"{path}: tensor {name!r} has dtype {kind!r}; known are {', '.join(sorted(_DTYPES))}")
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or [type(i) for i in offsets] != [int, int]:
        raise LoadError(f"{path}: tensor {name!r} does not say where its data are")
    if entry["dtype"] == "BOOL" and bytes(body[slice(*offsets)]).strip(b"\x00\x01"):
        raise LoadError(f"{path}: tensor {name!r} holds bools that are neither 0 nor 1")
