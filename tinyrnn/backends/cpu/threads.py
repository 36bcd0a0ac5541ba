"""Threads that work on one run together, and how many there are to be."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import inf
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from ...errors import ArgumentError
from .engine import host, library
from .gang import BOX, DONE, DRIVE, FRAME, POSTED, WAKE, emit_asleep, emit_join, emit_post, emit_serve
from .memory import Bytes, address, aligned
from .tables import Tables

THREADS = "TINYRNN_THREADS"
SHARED_WITH = "OMP_NUM_THREADS"  # what joblib, Dask and Ray set in their workers, and people in their shells
MOST_THREADS = 1024
SHORTEST_PAUSE, LONGEST_PAUSE = 0.004, 1.0  # seconds for which one thread works, after threads waited on a crowded machine
BURST = 0.0005             # seconds within which small runs follow each other where waking helpers pays
AWAKE = 2000               # turns that a helper with nothing to do stays awake: a fraction of a millisecond
_POST = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def default_threads() -> int:
    """As many threads as TINYRNN_THREADS says, else as OMP_NUM_THREADS, else one in a worker of a process pool, whose
    siblings use the other processors, else as many as there are processors for us: those that the process may run on, and no
    more than the whole ones that its group (a container) may use."""
    named = os.environ.get(THREADS)
    if named is not None:
        return checked_threads(int(named) if named.isascii() and named.isdigit() else named)
    first = os.environ.get(SHARED_WITH, "").partition(",")[0].strip()  # a list has a number for each level of nesting
    if first.isascii() and first.isdigit() and 1 <= int(first) <= MOST_THREADS:
        return int(first)
    if multiprocessing.parent_process() is not None:
        return 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(ours, quota())))


@cache
def quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float:
    """How many processors the control groups of this process may keep busy, from their files; infinite where none says."""
    found = [inf]
    for line in _lines(groups):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers in ("", "cpu", "cpu,cpuacct"):
            own = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath()
            below = root / controllers if controllers else root
            for place in [below, *(below / p for p in (own, *own.parents))]:
                found += _quotas(place)
    return min(found)


def _quotas(place: Path) -> list[float]:
    """What the files of one group say: `cpu.max` in version 2, two numbers in version 1."""
    limits = [line.split() for line in _lines(place / "cpu.max")]
    old = [_lines(place / f"cpu.cfs_{what}_us") for what in ("quota", "period")]
    if all(old):
        limits.append([old[0][0], old[1][0]])
    return [int(a[0]) / int(a[1]) for a in limits if len(a) == 2 and all(n.isdigit() for n in a) and int(a[1])]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split("\n")[:-1]
    except OSError:
        return []


def checked_threads(threads: object) -> int:
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"threads={threads!r}: expected a whole number from 1 to {MOST_THREADS} (or set {THREADS})")
    return int(threads)


class SharedRun(Protocol):
    """What threads work on together."""

    driver: int
    scratch: int  # bytes that each thread needs for itself

    @property
    def tables(self) -> Tables:
        """Whether the run is long enough to wake helpers."""

    @property
    def first_frame(self) -> int:
        """The frame of the first thread."""

    def parts(self, scratch: Sequence[int]) -> list[int]:
        """The frames of all threads but the first, each with room of its own, ready to begin."""

    def alone(self) -> bool:
        """The first thread's parts; whether all was done."""

    def stop(self) -> None:
        """Nobody begins another part."""

    @property
    def crowded(self) -> bool:
        """Whether a thread waited for one that had no processor."""


class Pauses:
    """When runs keep to one thread, since threads waited for each other on a crowded machine: longer and longer."""

    def __init__(self) -> None:
        self._until, self._pause = 0.0, SHORTEST_PAUSE

    @property
    def on(self) -> bool:
        return time.perf_counter() < self._until

    def note(self, crowded: bool) -> None:
        """How a run went."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if crowded else max(0.9 * self._pause, SHORTEST_PAUSE)
        if crowded:
            self._until = time.perf_counter() + self._pause

    def end(self) -> None:
        self._until = 0.0


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
        self._late: SharedRun | None = None        # what a helper has not left yet
        self._unfinished: SharedRun | None = None  # where he may write still
        self.pauses = Pauses()
        self._code: Any = None
        self._latest = 0.0
        self._scratch: list[Bytes] = []
        self._beds: list[threading.Lock] = []  # of helpers: who sleeps waits for his to be released
        self._boxes = aligned(8 * BOX * MOST_THREADS).view(np.int64)
        self._boxes[:] = 0
        self._box, self._at = memoryview(self._boxes.data), address(self._boxes)

    def run(self, frame: SharedRun, count: int) -> bool:
        """A run by so many threads; False where others are using the helpers, where they sleep and the run is not worth waking
        them, or where the machine is crowded."""
        if self.pauses.on or not self._lock.acquire(blocking=False):
            return False
        try:
            helpers = count - 1
            while len(self._beds) < helpers:
                self._start()
            if self._late is not None:
                self._late.stop()
                if self._join(self._at, len(self._beds)):
                    return False
                self._late = self._unfinished = None
            if not frame.tables.long and self._asleep(self._at, helpers) and not self._busy():
                return False
            for i, at in enumerate(frame.parts(self._scratch_for(helpers, frame.scratch))):
                self._box[BOX * i + FRAME], self._box[BOX * i + DRIVE] = at, frame.driver
            self._together(frame, helpers)
        finally:
            self._lock.release()
        return True

    def holds(self, frame: SharedRun) -> bool:
        """Whether a helper may still work on a run: what it reads and writes is nobody else's then."""
        return self._unfinished is frame

    def _together(self, frame: SharedRun, helpers: int) -> None:
        """The run itself: it is over when its parts are done, and helpers who come late find nothing to do."""
        done, self._late, self._unfinished = False, frame, frame  # before anybody is called: Ctrl-C may come at any time
        try:
            if self._post(self._at, helpers):
                self._wake(helpers)
            done = frame.alone()
        finally:
            try:
                self._leave(frame, helpers, done)
            except KeyboardInterrupt:  # and once more
                self._leave(frame, helpers, done)
                raise
        self.pauses.note(frame.crowded)

    def _leave(self, frame: SharedRun, helpers: int, done: bool) -> None:
        """See to it that nobody works on a run any more; late helpers of one that is done are not waited for."""
        frame.stop()
        self._wake(helpers)  # once more: Ctrl-C may have come between
        while late := self._join(self._at, helpers):
            if done:
                break
            time.sleep(0)  # whoever was stopped in the middle of a part must not write any more
        self._unfinished = None
        if not late:
            self._late = None

    def _scratch_for(self, helpers: int, size: int) -> list[int]:
        """The addresses of so many bytes for each helper, who has one run at a time."""
        for i in range(helpers):
            if i == len(self._scratch):
                self._scratch.append(aligned(size))
            if self._scratch[i].nbytes < size:
                self._scratch[i] = aligned(size)
        return [address(room) for room in self._scratch[:helpers]]

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

    def _compiled(self) -> None:
        self._code = library(host()).require({"post": emit_post, "asleep": emit_asleep, "join": emit_join, "serve": emit_serve})
        self._post, self._asleep, self._join = (_POST(self._code[k].addresses[k]) for k in ("post", "asleep", "join"))

    def _start(self) -> None:
        if self._code is None:
            self._compiled()
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
