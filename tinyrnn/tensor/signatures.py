"""The arguments of a compiled function: their arrays, their signature, and the same tree with something else in its leaves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends import on_host, speaks_dlpack, taken
from ..errors import ArgumentError
from ..ir.node import Bits
from ..trees import is_array
from .tensor import Tensor


def array_of(value: object) -> npt.NDArray[Any] | None:
    """The array behind an argument, on the host or on a GPU; None for what is not one."""
    if isinstance(value, Tensor):
        data: npt.NDArray[Any] = value.held()
        return data
    if isinstance(value, (np.ndarray, np.generic)) or (isinstance(value, list) and is_array(value)):
        return on_host(value)
    if speaks_dlpack(value):
        found: npt.NDArray[Any] = taken(value)
        return found
    return None


Found = list[tuple[str, npt.NDArray[Any]]]


def read(tree: object, path: str, found: Found) -> Hashable:
    """The signature of an argument; its arrays are added to `found`, each with its path."""
    array = array_of(tree)
    if array is not None:
        found.append((path, array))
        return array.shape, array.dtype.str
    if isinstance(tree, Mapping):
        return type(tree), tuple((k, read(v, f"{path}.{k}" if path else str(k), found)) for k, v in tree.items())
    if isinstance(tree, (tuple, list)):
        return type(tree), tuple(read(v, f"{path}.{i}" if path else str(i), found) for i, v in enumerate(tree))
    try:
        hash(tree)
    except TypeError:
        raise ArgumentError(f"argument {path!r} is {type(tree).__name__}: expected arrays, tensors, tuples, lists and dicts "
                            "of them, or values that can be hashed") from None
    return type(tree), Bits(tree) if isinstance(tree, float) else tree


def unique(found: Found) -> dict[str, npt.NDArray[Any]]:
    """The arrays by their paths; a path that two of them share gets a number."""
    values: dict[str, npt.NDArray[Any]] = {}
    for path, array in found:
        name, k = path, 1
        while name in values:
            k += 1
            name = f"{path}#{k}"
        values[name] = array
    return values


def stand_ins(tree: object, inputs: Iterator[Tensor]) -> Any:
    """An argument with the next placeholder for every array, in the order of `read`."""
    if array_of(tree) is not None:
        return next(inputs)
    return mapped(tree, lambda part: stand_ins(part, inputs))


class Spec(NamedTuple):
    """What is kept of an array among the arguments."""

    shape: tuple[int, ...]
    dtype: Any


def specified(tree: object) -> Any:
    """Arguments with a `Spec` in the place of every array."""
    array = array_of(tree)
    return Spec(array.shape, array.dtype) if array is not None else mapped(tree, specified)


def specs(tree: object) -> Iterator[Spec]:
    if isinstance(tree, Spec):
        yield tree
    else:
        for part in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (tuple, list)) else ():
            yield from specs(part)


def resized(tree: object, sizes: Iterator[int]) -> Any:
    """Arguments with zeros of other sizes in the place of every `Spec`."""
    if isinstance(tree, Spec):
        return np.zeros(tuple(next(sizes) for _ in tree.shape), tree.dtype)
    return mapped(tree, lambda part: resized(part, sizes))


def mapped(tree: object, f: Callable[[Any], Any]) -> Any:
    """A tree of dicts, tuples and lists with `f` of each of its parts."""
    if isinstance(tree, Mapping):
        return {k: f(v) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [f(v) for v in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree
