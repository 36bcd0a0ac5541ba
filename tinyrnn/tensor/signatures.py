"""The arguments of a compiled function: their arrays, their signature, and the same tree with something else in its leaves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from traceback import walk_tb
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..backends import on_host, speaks_dlpack, taken
from ..errors import ArgumentError, noting_errors
from ..ir.node import Bits
from ..sizes import AnySize, assuming, symbol
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


class UnhashableError(Exception):
    """An argument holds what is no array and has no hash; `refused` says where."""


def read(tree: object, found: list[Any]) -> Hashable:
    """The signature of an argument, in which arrays have a rank and a dtype; they are added to `found`."""
    if type(tree) is np.ndarray:
        found.append(tree)
        return tree.ndim, tree.dtype
    array = None if type(tree) is dict else array_of(tree)
    if array is not None:
        found.append(array)
        return array.ndim, array.dtype
    if isinstance(tree, Mapping):
        return type(tree), tuple([(k, read(v, found)) for k, v in tree.items()])
    if isinstance(tree, (tuple, list)):
        return type(tree), tuple([read(v, found) for v in tree])
    try:
        hash(tree)
    except TypeError:
        raise UnhashableError from None
    return type(tree), Bits(tree) if isinstance(tree, float) else tree


def names_in(tree: object, path: str) -> Iterator[str]:
    """A name for every array of an argument, in the order of `read`: where it stands."""
    if isinstance(tree, (Mapping, tuple, list)) and array_of(tree) is None:
        for k, v in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from names_in(v, f"{path}.{k}" if path else str(k))
    elif array_of(tree) is not None:
        yield path


def refused(tree: object, path: str) -> None:
    """Raise for the part of an argument that has no signature."""
    if isinstance(tree, (Mapping, tuple, list)) and array_of(tree) is None:
        for k, v in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            refused(v, f"{path}.{k}" if path else str(k))
    elif array_of(tree) is None:
        try:
            hash(tree)
        except TypeError:
            raise ArgumentError(f"argument {path!r} is {type(tree).__name__}: expected arrays, tensors, tuples, lists and "
                                "dicts of them, or values that can be hashed") from None


def unique(names: Iterable[str]) -> list[str]:
    """The names, of which those that come again get a number."""
    found: dict[str, None] = {}
    for path in names:
        name, k = path, 1
        while name in found:
            k += 1
            name = f"{path}#{k}"
        found[name] = None
    return list(found)


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


def reshaped(tree: object, shapes: Iterator[tuple[int, ...]]) -> Any:
    """Arguments with other shapes for every `Spec`."""
    if isinstance(tree, Spec):
        return Spec(next(shapes), tree.dtype)
    return mapped(tree, lambda part: reshaped(part, shapes))


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


# ---- sizes that are known only when a program runs

Shapes = tuple[tuple[int, ...], ...]
Made = TypeVar("Made")
LEADING = 2  # axes, time and batch in either order


def with_open_sizes(arrays: Sequence[npt.NDArray[Any]], make: Callable[[OpenShapes], Made]) -> Made:
    """What is made for any sizes of time and batch, as far as they are not read as numbers; for these alone where that is
    refused: what is wrong with them is then said of numbers, in the words of whoever refuses them."""
    opened = OpenShapes(arrays)
    if opened.values:
        with noting_errors() as refused, assuming(opened.values, generic=True) as assumed:
            try:
                made = make(opened)
            except Exception as error:  # whatever a shape rule makes of a symbol; the function's own errors end the call
                if not refused and not _is_ours(error):
                    raise
                refused.append(type(error))
        if not refused:  # what somebody refused and the function caught may be fine for numbers
            opened.holds = assumed.test()
            return made
    return make(OpenShapes(arrays, closed=True))


def _is_ours(error: BaseException) -> bool:
    """Whether an error came from code that may have been handed a symbol, not from the user's."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] in ("tinyrnn", "numpy")


class OpenShapes:
    """Shapes in which sizes of time and batch are symbols, those that are equal now the same one.

    Open are the first axes of every array, and the second ones of sequences: of arrays of rank 3 and more, of whole numbers and
    masks, and of others where they are as long as an open axis of another array.  Sizes 0 and 1 are numbers, which a trace
    of their own follows where they come first.  `closed` shapes have no symbols.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], closed: bool = False) -> None:
        names: dict[int, str] = {}
        for a in () if closed else arrays:
            for n in a.shape[: LEADING if a.ndim > LEADING or a.dtype.kind in "biu" else 1]:
                if n > 1:
                    names.setdefault(n, f"n{len(names)}")
        symbols = {n: symbol(name) for n, name in names.items()}
        self.values = {name: n for n, name in names.items()}
        self.shapes: list[tuple[Any, ...]] = [
            tuple([symbols.get(n, n) if i < LEADING else n for i, n in enumerate(a.shape)]) for a in arrays]
        self._at = [(i, k, next(iter(n.terms))[0][0]) for i, shape in enumerate(self.shapes) for k, n in enumerate(shape)
                    if isinstance(n, AnySize)]
        self._closed = [[(k, n) for k, n in enumerate(shape) if not isinstance(n, AnySize)] for shape in self.shapes]
        self.holds: Callable[..., bool] = lambda **_: True

    def values_for(self, shapes: Shapes) -> Mapping[str, int] | None:
        """The values of the symbols for other shapes of the same ranks; None where what was traced does not hold for them."""
        for shape, closed in zip(shapes, self._closed, strict=True):
            if any(shape[k] != n for k, n in closed):
                return None
        values: dict[Any, int] = {}
        for i, k, name in self._at:
            if values.setdefault(name, shapes[i][k]) != shapes[i][k]:
                return None
        return values if self.holds(**values) else None
