"""The threads of another library's OpenMP at work on our runs.

After each of its own operations PyTorch's threads stay awake for milliseconds, on the processors that ours would need.  Inside
of PyTorch our runs are therefore handed to its threads: `GOMP_parallel(body, data, threads, 0)` calls `body(data)` in each.

    data   driver, omp_get_thread_num, and the frame of each thread
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir

from .codegen import I32, I64, POINTER
from .driver import DRIVER, MORE
from .emit import Emit
from .engine import host, library
from .memory import Bytes, address, aligned
from .threads import MOST_THREADS, Pauses, SharedRun

BODY = ir.FunctionType(I64, [POINTER])
NUMBER = ir.FunctionType(I32, [])
LONGEST = 3_000_000_000  # cycles, about a second: longer runs look for Ctrl-C now and then, which these threads cannot


def emit_body(module: ir.Module, name: str) -> None:
    """What each thread does: its own frame to its end."""
    e = Emit(module, name, BODY)
    b, data = e.b, e.function.args[0]
    drive = b.inttoptr(b.load(e.at(data, 0, I64), typ=I64), DRIVER.as_pointer())
    number = b.inttoptr(b.load(e.at(data, 1, I64), typ=I64), NUMBER.as_pointer())
    mine = b.zext(b.call(number, []), I64)
    frame = b.inttoptr(b.load(e.at(data, e.add(mine, 2), I64), typ=I64), POINTER)
    again, over = b.append_basic_block("again"), b.append_basic_block("over")
    b.branch(again)
    b.position_at_end(again)
    b.cbranch(e.is_(b.call(drive, [frame]), "==", MORE), again, over)
    b.position_at_end(over)
    b.ret(e.whole(0))


class OpenMP:
    """The threads of a GNU OpenMP that is loaded in this process."""

    def __init__(self, file: Path) -> None:
        loaded = ctypes.CDLL(str(file))
        self._parallel = loaded.GOMP_parallel
        self._parallel.argtypes, self._parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        self._number = ctypes.cast(loaded.omp_get_thread_num, ctypes.c_void_p).value or 0
        self._lock, self._pauses, self._process = threading.Lock(), Pauses(), os.getpid()
        self._code: Any = None
        self._data = np.zeros(2 + MOST_THREADS, np.int64)
        self._scratch: list[Bytes] = []

    def run(self, frame: SharedRun, count: int) -> bool:
        """A run by so many threads; False where others are at it, where the machine is crowded, for very long runs, and in a
        process that was forked, which these threads did not follow."""
        if frame.tables.cycles > LONGEST or os.getpid() != self._process or self._pauses.on or not self._lock.acquire(False):
            return False
        try:
            if self._code is None:
                self._code = library(host()).require({"body": emit_body})
            self._data[:2] = frame.driver, self._number
            self._data[2 : 2 + count] = frame.first_frame, *frame.parts(self._scratch_for(count - 1, frame.scratch))
            self._parallel(self._code["body"].addresses["body"], address(self._data), count, 0)
        finally:
            self._lock.release()
        self._pauses.note(frame.crowded)
        return True

    def _scratch_for(self, helpers: int, size: int) -> list[int]:
        while len(self._scratch) < helpers or any(room.nbytes < size for room in self._scratch):
            self._scratch = [aligned(size) for _ in range(max(helpers, len(self._scratch)))]
        return [address(room) for room in self._scratch[:helpers]]


TEAM: ContextVar[OpenMP | None] = ContextVar("team", default=None)
"""Whose threads help, if not our own."""


@contextmanager
def helped_by(team: OpenMP | None) -> Iterator[None]:
    """Inside, runs are shared with the threads of that OpenMP, where there is one."""
    token = TEAM.set(team)
    try:
        yield
    finally:
        TEAM.reset(token)
