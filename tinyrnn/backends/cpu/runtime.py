"""A plan bound to this machine: compiled kernels, memory, tables for the driver, threads."""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ArgumentError, IndexRangeError
from ...ir.node import Node
from ...locks import ForkSafeLock
from ..executable import Planned
from ..plan.memory import ALIGNMENT, arrange
from ..plan.views import Buffer, Call, Loop, Plan, View
from . import lookups, products
from .driver import CALL, ITEM, MORE, OPERAND, emit_driver, emit_park
from .engine import Code, Target, host, library
from .rows import emit_rows

THREADS = "TINYRNN_THREADS"
MOST_THREADS = 1024
WORTHWHILE = 400_000       # operations below which an item is not shared among threads
ENOUGH = 12_000_000        # operations below which waking other threads costs more than they give
WIDE = 200_000             # operations from which a single call within a turn is shared
PATIENCE = 400_000_000     # operations after which a loop comes up for air, so that Ctrl-C is seen
AWAKE = 2000               # turns that a helper with nothing to do stays awake: a fraction of a millisecond
_PARK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_DRIVE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                          *[ctypes.c_void_p] * 4)

PRODUCTS = ("pack", "product", "matvec", "tall")
_FAMILIES: dict[str, Callable[..., None]] = {
    "pack": products.emit_pack, "product": products.emit_product, "matvec": products.emit_matvec, "tall": products.emit_tall,
    "batch": products.emit_batch, "gather": lookups.emit_gather, "scatter": lookups.emit_scatter, "pick": lookups.emit_pick,
    "one_hot": lookups.emit_one_hot, "argmax": lookups.emit_argmax, "cumsum": lookups.emit_cumsum,
    "random": lookups.emit_random, "check": lookups.emit_check}


def emitter(call: Call, target: Target) -> Callable[[Any, str], None]:
    """The function that emits the code of a call into a module."""
    if call.family == "rows":
        return lambda module, name: emit_rows(module, name, call.key[0], target.vector_bytes)
    if call.family in ("gather", "pick"):
        itemsize, index = call.key
        return lambda module, name: _FAMILIES[call.family](module, name, target, itemsize, np.dtype(index))
    if call.family == "batch":
        return lambda module, name: products.emit_batch(module, name, target, np.dtype(call.key[0]), call.key[1])
    dtypes = [np.dtype(k) for k in call.key]
    return lambda module, name: _FAMILIES[call.family](module, name, target, *dtypes)


def _product_kernels(dtype: str, target: Target) -> dict[Hashable, Callable[[Any, str], None]]:
    """The kernels that share the register tiles of a dtype: compiled together, whichever is needed first."""
    def kernel(family: str) -> Callable[[Any, str], None]:
        return lambda module, name: _FAMILIES[family](module, name, target, np.dtype(dtype))

    return {(family, dtype): kernel(family) for family in PRODUCTS}


def default_threads() -> int:
    """As many threads as there are processors for us, or as TINYRNN_THREADS says."""
    named = os.environ.get(THREADS)
    if named is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return checked_threads(int(named) if named.isascii() and named.isdigit() else named)


def checked_threads(threads: object) -> int:
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"threads={threads!r}: expected a whole number from 1 to {MOST_THREADS} (or set {THREADS})")
    return int(threads)


class CpuExecutable(Planned):
    """A plan that can be run again and again, from one thread at a time.

    With `keep`, weights stay packed from run to run for as long as they are the same; a program that changes them in
    every run has nothing to keep.
    """

    def __init__(self, plan: Plan, target: Target | None = None, gap: int = 0, keep: bool = True) -> None:
        self.plan, self.target = plan, target or host()
        self.kept = {b: aligned(b.bytes) for b in plan.buffers if b.role == "kept"} if keep else {}
        kernels = library(self.target)
        self._code: dict[Hashable, Code] = {}  # held for as long as this may run
        for dtype in sorted({c.key[0] for c in plan.calls() if c.family in PRODUCTS}):
            self._code |= kernels.require(_product_kernels(dtype, self.target), passes=False)
        self._code |= kernels.require({"driver": emit_driver, **{
            (c.family, *c.key): emitter(c, self.target) for c in plan.calls() if (c.family, *c.key) not in self._code}})
        addresses = {k: code.addresses[k] for k, code in self._code.items()}
        self._drive = _DRIVE(addresses["driver"])
        self.offsets, self.bytes = arrange(plan, gap, self.kept)
        self.scratch = max((c.scratch for c in plan.calls()), default=0) + ALIGNMENT
        self.literals = {b: np.ascontiguousarray(b.source) for b in plan.buffers if b.role == "literal"}
        self.note = np.zeros(3, np.int64)
        self._sources = list(dict.fromkeys(c.operands[0].buffer.source for c in plan.items[: plan.prepared]
                                           if isinstance(c, Call)))
        self._prepared_from: list[Any] = []
        self._tables(addresses)
        self._threads: list[_Own] = []
        self._items_at, self._count, self._note_at = address(self._items), len(self._items), address(self.note)
        self._lock = ForkSafeLock()

    def profile(self, given: Mapping[Node, Any], outputs: Mapping[str, Any],
                repeat: int = 9) -> list[tuple[str, int, int, float]]:
        """The kernels with the median of the seconds that each took by itself, in one thread."""
        self.run(given, outputs, 1)
        own, found = self._own(0), []
        with self._lock, ARENAS.borrow(self.bytes) as arena:
            arena[:] = 0
            self._operands[:, 0] = self._addresses(given, outputs, arena)[self._slots] + self._offsets
            for i, kernel in enumerate(self.kernels):
                times = []
                for _ in range(repeat):
                    own.place[:] = 0
                    began = time.perf_counter()
                    while self._drive(self._items_at + 8 * ITEM * i, 1, own.at[0], 0, 1, _NEVER_STOPPED, self._note_at,
                                      *own.at[1:]) == MORE:
                        pass
                    times.append(time.perf_counter() - began)
                found.append((*kernel, sorted(times)[repeat // 2]))
            self._prepared_from = []
        return found

    # ---- tables

    def _tables(self, kernels: Mapping[Hashable, int]) -> None:
        """Everything that the driver reads; addresses of buffers are filled in by every run."""
        slots = {b: i for i, b in enumerate(self.plan.buffers)}
        operands: list[tuple[int, int, int, int]] = []
        sizes: list[int] = []
        calls: list[tuple[int, ...]] = []
        items: list[list[int]] = []
        for item in self.plan.items:
            inside, split, wide = _calls(item), _split(item), _is_wide(item)
            items.append([int(wide), len(calls), len(inside), *_turns(item), split or 1, _grain(item), 0, 1, _quantum(item)])
            for k, c in enumerate(inside):
                alone = not c.grain and k + 1 < len(inside) and not inside[k + 1].grain
                calls.append((kernels[c.family, *c.key], len(operands), len(c.operands), len(sizes),
                              -1 if split else c.extent, c.extent, c.grain, int(not alone)))
                operands += [_operand(v, s, slots) for v, s in zip(c.operands, c.splits, strict=True)]
                sizes += c.sizes
        fixed = {**self.offsets, self.plan.note: address(self.note)}
        fixed |= {b: address(a) for b, a in (*self.literals.items(), *self.kept.items())}
        self._fixed = np.array([fixed.get(b, 0) for b in slots], np.int64)
        self._movable = np.array([b in self.offsets for b in slots], np.int64)
        self._from = [(slots[b], b.source) for b in self.plan.given]
        self._to = [(slots[v.buffer], k) for k, v in self.plan.outputs.items()]
        self._operands = np.array([(0, s, u) for _, _, s, u in operands], np.int64).reshape(-1, OPERAND)
        self._slots = np.array([b for b, *_ in operands], np.intp)
        self._offsets = np.array([o for _, o, *_ in operands], np.int64)
        self._sizes = np.array([*sizes, 0], np.int64)
        self._calls = np.array(calls, np.int64).reshape(-1, CALL)
        self._calls[:, 1] = self._operands.ctypes.data + 8 * OPERAND * self._calls[:, 1]
        self._calls[:, 3] = self._sizes.ctypes.data + 8 * self._calls[:, 3]
        self._items = np.array(items, np.int64).reshape(-1, ITEM)
        self._items[:, 1] = self._calls.ctypes.data + 8 * CALL * self._items[:, 1]
        self._room = max((c[2] for c in calls), default=0) + 1
        work = np.array([item.flops for item in self.plan.items])
        splits = np.array([_split(item) or 0 for item in self.plan.items])
        self._items[:, 7] = ((work >= WORTHWHILE) & (splits > 1)) | (self._items[:, 0] != 0)
        self.shared = int(work[self._items[:, 7] != 0].sum()) >= ENOUGH
        alone = self._items[:, 7] == 0
        self._items[:-1, 8] = ~(alone[:-1] & alone[1:])

    # ---- running

    def run(self, given: Mapping[Node, npt.NDArray[Any]], outputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        """Compute every output into its array from those of inputs and leaves, all C-ordered and of the plan's dtypes."""
        with self._lock, ARENAS.borrow(self.bytes) as arena:
            addresses = self._addresses(given, outputs, arena)
            self._operands[:, 0] = addresses[self._slots] + self._offsets
            self.note[:] = 0
            self._first = self._prepared(given)
            if threads == 1 or not self.shared or not GANG.run(self._thread, threads):
                self._thread(0, 1, _NEVER_STOPPED)
            self._prepared_from = [given[n] for n in self._sources]
        if self.note[0]:
            raise IndexRangeError(f"index {self.note[1]} is outside an axis of size {self.note[2]}: expected 0 to "
                                  f"{self.note[2] - 1}")

    def _prepared(self, given: Mapping[Node, Any]) -> int:
        """The item to start with: those that pack weights are left out while the weights are the very same arrays."""
        before, self._prepared_from = self._prepared_from, []
        there = self.kept and len(before) == len(self._sources)
        same = there and all(given[n] is a for n, a in zip(self._sources, before, strict=True))
        return self.plan.prepared if same else 0

    def _addresses(self, given: Mapping[Node, Any], outputs: Mapping[str, Any], arena: Any) -> npt.NDArray[np.int64]:
        """Where every buffer lies in this run."""
        found: npt.NDArray[np.int64] = self._fixed + self._movable * address(arena)
        for slot, node in self._from:
            found[slot] = address(given[node])
        for slot, name in self._to:
            found[slot] = address(outputs[name])
        return found

    def _thread(self, thread: int, threads: int, control: int) -> None:
        """One thread's share; `control` is the address of what the threads tell each other."""
        own = self._own(thread)
        own.place[:] = self._first, 0, 0
        while self._drive(self._items_at, self._count, own.at[0], thread, threads, control, self._note_at, *own.at[1:]) == MORE:
            pass

    def _own(self, thread: int) -> _Own:
        """A thread's place, scratch and room, made when it is first here."""
        while len(self._threads) <= thread:
            self._threads.append(_Own(self.scratch, self._room))
        return self._threads[thread]


class _Own:
    """Memory that one thread needs for itself."""

    def __init__(self, scratch: int, room: int) -> None:
        self.place, self.scratch, self.room = np.zeros(3, np.int64), aligned(scratch), np.zeros(room, np.int64)
        self.at = address(self.place), address(self.scratch), address(self.room)


def _calls(item: Call | Loop) -> list[Call]:
    return [item] if isinstance(item, Call) else item.calls


def _is_wide(item: Call | Loop) -> bool:
    """Whether the calls of a loop are shared out one by one: its rows cannot be, and a turn takes long enough."""
    return isinstance(item, Loop) and item.rows is None and any(c.grain and c.extent > c.grain and c.flops >= WIDE
                                                                for c in item.calls)


def _operand(v: View, split: int, slots: Mapping[Buffer, int]) -> tuple[int, int, int, int]:
    size = v.dtype.itemsize
    return slots[v.buffer], v.offset * size, v.step * size, split * size


def _turns(item: Call | Loop) -> tuple[int, int]:
    return (item.steps, int(item.reverse)) if isinstance(item, Loop) else (1, 0)


def _split(item: Call | Loop) -> int | None:
    """The extent along which an item may be shared out."""
    if isinstance(item, Loop):
        return item.rows
    return item.extent if item.grain else None


def _grain(item: Call | Loop) -> int:
    return item.grain if isinstance(item, Call) and item.grain else 1


def _quantum(item: Call | Loop) -> int:
    return max(1, PATIENCE // max(item.flops // max(item.steps, 1), 1)) if isinstance(item, Loop) else 1


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's numbers begin."""
    at: int = array.__array_interface__["data"][0]
    return at


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """Bytes that start at a multiple of a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class _Arenas:
    """Memory for temporaries, kept between runs; runs at the same time get different ones."""

    def __init__(self) -> None:
        self._free: list[npt.NDArray[np.uint8]] = []
        self._lock = ForkSafeLock()

    def borrow(self, size: int) -> _Borrowed:
        with self._lock:
            arena = self._free.pop() if self._free else aligned(0)
        return _Borrowed(self, arena if arena.size >= size else aligned(size))

    def give_back(self, arena: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            self._free.append(arena)


class _Borrowed:
    def __init__(self, owner: _Arenas, arena: npt.NDArray[np.uint8]) -> None:
        self.owner, self.arena = owner, arena

    def __enter__(self) -> npt.NDArray[np.uint8]:
        return self.arena

    def __exit__(self, *_: object) -> None:
        self.owner.give_back(self.arena)


ARENAS = _Arenas()
_CONTROL = np.zeros(2, np.int64)
_NEVER_STOPPED = address(_CONTROL)  # for runs in a single thread, which meets nobody

Share = Callable[[int, int, int], None]


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

