"""A kernel plan as launches: which kernels run with which grids and words, and which products the library does."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...ir.node import DType
from ..plan.views import Buffer, Call, Loop, Plan, View
from . import lookups, rows
from .cublas import Matrix, matrix
from .source import PRELUDE


class KernelLaunch(NamedTuple):
    """One launch for each turn of a loop."""

    function: str
    grid: tuple[int, int]
    block: tuple[int, int]
    operands: tuple[View, ...]
    numbers: tuple[int, ...]

    def words(self, address: dict[Buffer, int], scratch: int, steps: int) -> npt.NDArray[Any]:
        """The argument of every turn: addresses, whole numbers, the address of scratch memory."""
        count = len(self.operands)
        table = np.empty(steps, np.dtype([("w", np.int64, (count + len(self.numbers) + 1,))]))
        words, turns = table["w"], np.arange(steps)
        for i, v in enumerate(self.operands):
            words[:, i] = address[v.buffer] + v.dtype.itemsize * (v.offset + v.step * turns)
        words[:, count:-1] = self.numbers
        words[:, -1] = scratch
        return table


class Product(NamedTuple):
    """`c = a @ b` for a matrix or a batch of them."""

    dtype: DType
    sizes: tuple[int, int, int]
    batch: int
    operands: tuple[View, View, View]
    matrices: tuple[Matrix, Matrix, Matrix]


class Stretch(NamedTuple):
    """What runs in every turn of a loop, or once."""

    steps: int
    reverse: bool
    jobs: list[KernelLaunch | Product]


def work_of(plan: Plan, commits: Iterable[Call] = ()) -> list[Stretch]:
    """Everything that a run launches, in order; `commits` come last."""
    found = []
    for item in (*plan.items, *commits):
        calls = item.calls if isinstance(item, Loop) else [item]
        steps, reverse = (item.steps, item.reverse) if isinstance(item, Loop) else (1, False)
        found.append(Stretch(steps, reverse, [job for c in calls for job in jobs_of(c)] if steps else []))
    return found


def jobs_of(call: Call) -> Sequence[KernelLaunch | Product]:
    """What one call launches; nothing where there is nothing to do."""
    if call.family == "gemm":
        m, k, n = call.sizes
        a, b, c = call.operands
        if 0 in (m, n, call.extent):
            return []
        matrices = matrix(a.shape, a.strides), matrix(b.shape, b.strides), matrix(c.shape, c.strides)
        return [Product(a.dtype, (m, k, n), call.extent, (a, b, c), matrices)]
    numbers = (*call.sizes, call.extent, *((rows.parts_of(call),) if call.family == "rows" else ()))
    found = rows.launches(call) if call.family == "rows" else lookups.launches(call)
    name = name_of((call.family, *call.key))
    return [KernelLaunch(name + x.suffix, x.grid, x.block, call.operands, numbers) for x in found]


def scratch_bytes(calls: Iterable[Call]) -> int:
    """The scratch memory that the hungriest call needs; calls run one after the other and share it."""
    return max((rows.scratch_bytes(c) if c.family == "rows" else lookups.scratch_bytes(c) for c in calls), default=0)


# ---- code

def kernel_keys(calls: Iterable[Call]) -> list[tuple[Hashable, ...]]:
    """The kernels of a plan by their structure, each once."""
    return list(dict.fromkeys((c.family, *c.key) for c in calls if c.family != "gemm"))


@lru_cache(maxsize=4096)
def name_of(key: tuple[Hashable, ...]) -> str:
    """What a kernel is called: the same in every process."""
    return f"tr_{key[0]}_{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"


def source_of(keys: Iterable[tuple[Hashable, ...]]) -> str:
    """The CUDA C of kernels."""
    return "\n".join([PRELUDE, *map(_emitted, keys)])


def _emitted(key: tuple[Any, ...]) -> str:
    family, *rest = key
    if family == "rows":
        return rows.emit_rows(name_of(key), rest[0])
    return lookups.EMITTERS[family](name_of(key), *[np.dtype(k) if isinstance(k, str) else k for k in rest])
