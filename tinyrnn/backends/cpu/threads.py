"""Threads that work on one run together, and how many there are to be."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...errors import ArgumentError
from .engine import host, library
from .gang import BOX, DONE, DRIVE, FRAME, POSTED, WAKE, emit_asleep, emit_join, emit_post, emit_serve
from .memory import address, aligned

THREADS = "TINYRNN_THREADS"
SHARED_WITH = "OMP_NUM_THREADS"  # what joblib, Dask and Ray set in their workers, and people in their shells
MOST_THREADS = 1024
BURST = 0.0005             # seconds within which small runs follow each other where waking helpers pays
AWAKE = 2000               # turns that a helper with nothing to do stays awake: a fraction of a millisecond
_POST = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def default_threads() -> int:
    """As many threads as TINYRNN_THREADS says, else as OMP_NUM_THREADS, else one in a worker of a process pool, whose
    siblings use the other processors, else as many as there are processors for us."""
    named = os.environ.get(THREADS)
    if named is not None:
        return checked_threads(int(named) if named.isascii() and named.isdigit() else named)
    first = os.environ.get(SHARED_WITH, "").partition(",")[0].strip()  # a list has a number for each level of nesting
    if first.isascii() and first.isdigit() and 1 <= int(first) <= MOST_THREADS:
        return int(first)
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked_threads(threads: object) -> int:
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"threads={threads!r}: expected a whole number from 1 to {MOST_THREADS} (or set {THREADS})")
    return int(threads)


class Gang:
    """Helper threads that work on one run together; a second run at the same time does without them.

    A helper that has nothing to do watches its box in memory for a fraction of a millisecond, so that the next run finds it
    awake, and then sleeps.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Threads do not survive a fork: the child starts its own."""
        self._lock = threading.Lock()
        self._code: Any = None
        self._latest = 0.0
        self._beds: list[threading.Lock] = []  # of helpers: who sleeps waits for his to be released
        self._boxes = aligned(8 * BOX * MOST_THREADS).view(np.int64)
        self._boxes[:] = 0
        self._box, self._at = memoryview(self._boxes.data), address(self._boxes)

    def run(self, drive: int, count: int, frames: Callable[[], Sequence[int]], alone: Callable[[], None],
            stop: Callable[[], None], wake: bool) -> bool:
        """`alone()` here and `frames()` in so many helpers; False where others are using them, or they sleep and the run is
        not long enough to `wake` them.  `drive` is the driver, `stop()` makes helpers give up."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            while len(self._beds) < count:
                self._start()
            if not wake and self._asleep(self._at, count) and not self._busy():
                return False
            for i, frame in enumerate(frames()):
                self._box[BOX * i + FRAME], self._box[BOX * i + DRIVE] = frame, drive
            try:
                if self._post(self._at, count):
                    self._wake(count)
                alone()
            except BaseException:
                stop()
                raise
            finally:
                self._wake(count)  # once more: Ctrl-C may have come between
                self._join(self._at, count)
        finally:
            self._lock.release()
        return True

    def ended(self) -> None:
        """A run that was not shared has ended."""
        self._latest = time.perf_counter()

    def _busy(self) -> bool:
        """Whether runs follow each other quickly, so that a helper who is woken is there for the next ones."""
        return time.perf_counter() - self._latest < BURST

    def _wake(self, count: int) -> None:
        for i in range(count):
            if self._box[BOX * i + WAKE]:
                with suppress(RuntimeError):  # released already, where Ctrl-C came right after it
                    self._beds[i].release()
                self._box[BOX * i + WAKE] = 0

    def _start(self) -> None:
        if self._code is None:
            self._code = library(host()).require({"post": emit_post, "asleep": emit_asleep, "join": emit_join,
                                                  "serve": emit_serve})
            self._post, self._asleep, self._join = (_POST(self._code[k].addresses[k]) for k in ("post", "asleep", "join"))
        bed, i = threading.Lock(), len(self._beds)
        bed.acquire()
        self._box[BOX * i + DONE] = self._box[BOX * i + POSTED]
        self._beds.append(bed)
        serve = _POST(self._code["serve"].addresses["serve"])
        threading.Thread(target=_help, args=(serve, self._at + 8 * BOX * i, bed, self._boxes, self._code), daemon=True,
                         name=f"tinyrnn-{i + 1}").start()


def _help(serve: Any, box: int, bed: threading.Lock, *_held: object) -> None:
    """A helper's life; what it works with is held."""
    while True:
        serve(box, AWAKE)
        bed.acquire()


GANG = Gang()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GANG.forget)
