"""Threads that work on one run together, and how many there are to be."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ArgumentError
from .driver import emit_park
from .engine import host, library
from .memory import address

THREADS = "TINYRNN_THREADS"
SHARED_WITH = "OMP_NUM_THREADS"  # what joblib, Dask and Ray set in their workers, and people in their shells
MOST_THREADS = 1024
AWAKE = 2000               # turns that a helper with nothing to do stays awake: a fraction of a millisecond
_PARK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

Share = Callable[[int, int, int], None]


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


class _Gang:
    """Helper threads that work on one run together; a second run at the same time does without them.

    A helper that has nothing to do watches a word in memory for a fraction of a millisecond, so that the next step finds
    it awake, and then sleeps.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Threads do not survive a fork: the child starts its own."""
        self._lock = threading.Lock()
        self._queues: list[queue.SimpleQueue[tuple[Share, int, int, Any, Any]]] = []
        self._runs = np.zeros(1, np.int64)

    def run(self, share: Share, threads: int) -> bool:
        """`share(i, threads, control)` in every thread; False where others are using them."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            while len(self._queues) < threads - 1:
                self._start()
            control = np.zeros(2, np.int64)
            done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
            for i in range(1, threads):
                self._queues[i - 1].put((share, i, threads, control, done))
            self._runs += 1
            try:
                _take_part(share, 0, threads, control)
            finally:
                errors = [done.get() for _ in range(1, threads)]
            for error in errors:
                if error is not None:
                    raise error
        finally:
            self._lock.release()
        return True

    def _start(self) -> None:
        tasks: queue.SimpleQueue[tuple[Share, int, int, Any, Any]] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(tasks, self._runs), daemon=True, name=f"tinyrnn-{len(self._queues) + 1}").start()
        self._queues.append(tasks)


def _take_part(share: Share, i: int, threads: int, control: npt.NDArray[np.int64]) -> None:
    """One thread's share; when it fails, the others stop at their next barrier."""
    try:
        share(i, threads, address(control))
    except BaseException:
        control[1] = 1
        raise


def _work(tasks: queue.SimpleQueue[tuple[Share, int, int, Any, Any]], runs: npt.NDArray[np.int64]) -> None:
    code = library(host()).require({"park": emit_park})["park"]
    park = _PARK(code.addresses["park"])
    while True:
        seen = int(runs[0])
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            park(runs.ctypes.data, seen, AWAKE)
            task = tasks.get()
        share, i, threads, control, done = task
        try:
            _take_part(share, i, threads, control)
            done.put(None)
        except BaseException as error:
            done.put(error)
        del task, share, control, done


GANG = _Gang()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GANG.forget)
