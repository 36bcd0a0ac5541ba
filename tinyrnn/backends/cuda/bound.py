"""Launches bound to addresses: what a run does, step by step, and what a captured graph holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..plan.views import Buffer, View
from .cublas import Cublas
from .device import require
from .launch import KernelLaunch, Product, Stretch

Job = Callable[[int], object]


def bound(work: Sequence[Stretch], functions: dict[str, Any], address: dict[Buffer, int], scratch: int,
          multiply: Callable[[Product, dict[Buffer, int]], Job]) -> list[tuple[range, list[Job]]]:
    """Every stretch with its turns in order and its jobs, each of which takes the turn."""
    found = []
    for stretch in work:
        jobs = [_launch(job, functions[job.function], address, scratch, stretch.steps) if isinstance(job, KernelLaunch)
                else multiply(job, address) for job in stretch.jobs]
        turns = range(stretch.steps)
        if jobs:
            found.append((turns[::-1] if stretch.reverse else turns, jobs))
    return found


def launch(work: Sequence[tuple[range, list[Job]]]) -> None:
    """Everything, on the current stream."""
    for turns, jobs in work:
        for t in turns:
            for job in jobs:
                job(t)


def _launch(kernel: KernelLaunch, function: Any, address: dict[Buffer, int], scratch: int, steps: int) -> Job:
    words, grid, block = kernel.words(address, scratch, steps), kernel.grid, kernel.block
    return lambda t: function(grid, block, (words[t : t + 1],))


def by_library(cublas: Cublas, precision: str) -> Callable[[Product, dict[Buffer, int]], Job]:
    """Products by our own handle, which a graph may capture."""
    def multiply(p: Product, address: dict[Buffer, int]) -> Job:
        at = [_places(v, address) for v in p.operands]

        def run(t: int) -> None:
            a, b, c = ((start + by * t, m) for (start, by), m in zip(at, p.matrices, strict=True))
            cublas.gemm(p.dtype, precision, p.sizes, p.batch, a, b, c)

        return run

    return multiply


def by_cupy(p: Product, address: dict[Buffer, int]) -> Job:
    """Products by `cupy.matmul`: the simplest way, and the one that others are compared with."""
    cupy = require()
    device = cupy.cuda.Device().id
    at = [_places(v, address) for v in p.operands]

    def view(i: int, t: int) -> Any:
        v = p.operands[i]
        strides = tuple(s * v.dtype.itemsize for s in v.strides)
        memory = cupy.cuda.UnownedMemory(at[i][0] + at[i][1] * t, v.buffer.bytes, None, device)
        array = cupy.ndarray(v.shape, v.dtype, cupy.cuda.MemoryPointer(memory, 0), strides)
        return array[0] if p.batch == 1 else array

    @cache
    def views(t: int) -> tuple[Any, Any, Any]:  # made once: the same addresses serve many runs
        return view(0, t), view(1, t), view(2, t)

    def run(t: int) -> None:
        a, b, c = views(t)
        cupy.matmul(a, b, out=c)

    return run


def _places(v: View, address: dict[Buffer, int]) -> tuple[int, int]:
    """Where a view begins, and how far a turn moves it, in bytes."""
    size = np.dtype(v.dtype).itemsize
    return address[v.buffer] + size * v.offset, size * v.step
