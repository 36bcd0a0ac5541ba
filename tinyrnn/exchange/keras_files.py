"""Keras' files, read with h5py and json alone: nothing in them is run, and no more is read than they hold."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np

from ..errors import LoadError, MissingPackageError

MOST_CONFIG = 16 * 2**20  # bytes of a description
MOST_GROWTH = 4           # times as much as the archive has: weights are stored as they are
MOST_ENTRIES = 40_000     # arrays and folders
DEPTH = 12                # of folders

Vars = dict[str, list[Any]]  # the arrays of every folder `.../vars`, in their order


def read_archive(data: bytes, name: str) -> tuple[Mapping[str, Any], Vars]:
    """The description and the weights in a `.keras` file of that name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = json.loads(_member(archive, "config.json", MOST_CONFIG, name))
            weights = _member(archive, "model.weights.h5", MOST_GROWTH * len(data), name)
    except (zipfile.BadZipFile, ValueError, RecursionError, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, LoadError):
            raise
        raise LoadError(f"{name}: not a sound .keras file ({error})") from None
    if not isinstance(config, dict):
        raise LoadError(f"{name}: config.json does not describe a model")
    return config, read_vars(weights, name)


def _member(archive: zipfile.ZipFile, member: str, most: int, name: str) -> bytes:
    """A file of an archive, if it is not larger than it may be."""
    if member not in archive.namelist():
        raise LoadError(f"{name}: there is no {member} in it, so it is not a file of Keras 3")
    with archive.open(member) as stream:
        found = stream.read(most + 1)  # what the archive says of the size is not believed
    if len(found) > most:
        raise LoadError(f"{name}: {member} has more than {most:,} bytes")
    return found


def read_vars(data: bytes, said: str) -> Vars:
    """All weights in a `.weights.h5` file of that name, by the folder that they are in."""
    if find_spec("h5py") is None:
        raise MissingPackageError('Keras\' files are read with h5py, which is not installed: pip install "tinyrnn[keras]"')
    h5py = import_module("h5py")
    found: dict[str, dict[int, Any]] = {}
    try:
        with h5py.File(io.BytesIO(data), "r") as root:
            for path, dataset in _datasets(h5py, root, len(data), said):
                folder, _, number = path.rpartition("/")
                if folder.endswith("vars") and number.isdecimal() and len(number) < 4:
                    found.setdefault(folder, {})[int(number)] = np.asarray(dataset[()])
    except LoadError:
        raise
    except Exception as error:  # HDF5 may say anything of bytes that it did not write
        raise LoadError(f"{said}: not a sound HDF5 file ({type(error).__name__}: {error})") from None
    if not found:
        raise LoadError(f"{said}: no weights of Keras 3 are in it (a file of Keras 2 is laid out otherwise: load it in Keras "
                        "and save it again)")
    for folder, numbered in found.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise LoadError(f"{said}: {folder} holds the arrays {sorted(numbered)}, of which one is missing")
    return {folder: [numbered[i] for i in sorted(numbered)] for folder, numbered in found.items()}


def _datasets(h5py: Any, root: Any, size: int, name: str) -> Iterator[tuple[str, Any]]:
    """Every array of numbers with its path; links to elsewhere, and arrays larger than the file, are refused."""
    stack, count, total = [("", root, 0)], 0, 0
    while stack:
        path, group, depth = stack.pop()
        if depth > DEPTH:
            raise LoadError(f"{name}: folders lie in each other more than {DEPTH} deep")
        for key in group:
            count += 1
            inner = f"{path}/{key}" if path else key
            if count > MOST_ENTRIES:
                raise LoadError(f"{name}: it has more than {MOST_ENTRIES:,} entries")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise LoadError(f"{name}: {inner[:80]!r} is a link to elsewhere")
            item = group[key]
            if isinstance(item, h5py.Group):
                stack.append((inner, item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                total += _checked(item, inner, name)
                if total > size:
                    raise LoadError(f"{name}: its arrays are larger than the file")
                yield inner, item


def _checked(dataset: Any, path: str, name: str) -> int:
    """The bytes of an array that lies in the file as it is."""
    plain = dataset.compression is None and not dataset.is_virtual and not dataset.external and dataset.dtype.kind in "fiub"
    if not plain or len(dataset.shape) > 8:
        raise LoadError(f"{name}: {path[:80]!r} is no plain array of numbers")
    return prod(map(int, dataset.shape)) * int(dataset.dtype.itemsize)
