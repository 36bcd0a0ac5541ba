"""A plan bound to this machine: compiled kernels, memory, tables for the driver, threads."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import IndexRangeError
from ...ir.node import Node
from ...ir.ops.leaves import box_of, changes
from ...sizes import evaluated
from ..executable import Planned
from ..plan.memory import ALIGNMENT
from ..plan.views import Buffer, Call, Plan, is_open, literal_array
from . import driver, lookups, memory, products
from .driver import MORE, emit_driver
from .engine import Code, Target, host, library
from .kept import kept_of
from .memory import Bytes, address, aligned
from .openmp import TEAM
from .rows import emit_rows
from .tables import ARENA, TableLayout
from .threads import GANG, default_threads

Array = npt.NDArray[Any]

NO_VALUES: Mapping[str, int] = {}
PRODUCTS = ("pack", "product", "matvec", "tall")
_DRIVE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
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


def product_kernels(dtype: str, target: Target) -> dict[Hashable, Callable[[Any, str], None]]:
    """The kernels that share the register tiles of a dtype: compiled together, whichever is needed first."""
    def kernel(family: str) -> Callable[[Any, str], None]:
        return lambda module, name: _FAMILIES[family](module, name, target, np.dtype(dtype))

    return {(family, dtype): kernel(family) for family in PRODUCTS}


class _Leaves(NamedTuple):
    """The data of the leaves when they were last looked at, what is kept of them, and where all of it lies."""

    when: int
    data: tuple[Array, ...]
    kept: tuple[Bytes, ...]
    addresses: tuple[int, ...]


class Assembled:
    """A plan with its kernels: all that is the same whatever the values of the symbols in its sizes.

    With `keep`, what is made of weights alone stays from run to run for as long as they are the same; a program that
    changes them in every run has nothing to keep.
    """

    def __init__(self, plan: Plan, target: Target | None = None, keep: bool = True, symbols: Sequence[str] = ()) -> None:
        self.plan, self.target = plan, target or host()
        kernels = library(self.target)
        self.code: dict[Hashable, Code] = {}  # held for as long as this may run
        for dtype in sorted({c.key[0] for c in plan.calls() if c.family in PRODUCTS}):
            self.code |= kernels.require(product_kernels(dtype, self.target), passes=False)
        self.code |= kernels.require({"driver": emit_driver, **{
            (c.family, *c.key): emitter(c, self.target) for c in plan.calls() if (c.family, *c.key) not in self.code}})
        addresses = {k: code.addresses[k] for k, code in self.code.items()}
        self.driver = addresses["driver"]
        self.drive = _DRIVE(self.driver)
        kept = kept_of(plan, self.target) if keep else {}
        self.layout = TableLayout(plan, addresses, kept, symbols)
        self.scratch = list(dict.fromkeys(c.scratch for c in plan.calls()))
        slots = self.layout.slots
        self.literals = [(slots[b], literal_array(b, {})) for b in plan.buffers if b.role == "literal" and not is_open(b)]
        self.open = [(slots[b], b) for b in plan.buffers if b.role == "literal" and is_open(b)]
        self.fixed = [(slot, address(a)) for slot, a in self.literals]
        self.inputs = {b.source: slots[b] for b in plan.given if b.role == "input"}
        self.leaves = {b.source: slots[b] for b in plan.given if b.role == "leaf"}
        self.outputs = {k: slots[v.buffer] for k, v in plan.outputs.items()}
        self.results = [(slots[v.buffer], v.shape, v.dtype) for v in plan.outputs.values()]
        self.boxes = [box_of(n) for n in self.leaves]
        self.kept = [(place, [list(self.leaves).index(n) for n in nodes]) for place, nodes in kept.values()]
        self.kept_bytes = [b.bytes for b in kept]
        self.leaf_slots = [*self.leaves.values(), *(slots[b] for b in kept)]
        self.first = plan.prepared if keep else 0  # the item with which a run starts


class CpuExecutable(Planned):
    """A plan for given sizes, that can be run again and again, from any number of threads at once."""

    def __init__(self, assembled: Assembled, values: Mapping[str, int] = NO_VALUES, gap: int = 0) -> None:
        self.assembled, self._values = assembled, values
        self.driver, self.drive, self.first = assembled.driver, assembled.drive, assembled.first
        self.inputs, self.leaves, self.outputs = assembled.inputs, assembled.leaves, assembled.outputs
        self.tables = assembled.layout.at(values, gap)
        self.bytes = self.tables.bytes
        self.scratch = max((evaluated(n, values) for n in assembled.scratch), default=0) + ALIGNMENT
        self.room = self.bytes + self.scratch  # that a run needs for itself
        self._literals = [(slot, literal_array(b, values)) for slot, b in assembled.open]
        self.fixed = [*assembled.fixed, *((slot, address(a)) for slot, a in self._literals)]
        self._results = [(slot, evaluated(shape, values), dtype) for slot, shape, dtype in assembled.results]
        self._input_slots = list(self.inputs.values())
        self._seen: _Leaves | None = None
        self._frames: list[RunFrame] = []

    @cached_property
    def plan(self) -> Plan:
        """What runs, with numbers for all sizes."""
        return self.assembled.plan.at(self._values)

    @property
    def footprint(self) -> int:
        """Bytes that are kept between runs."""
        t = self.tables
        return sum(a.nbytes for a in (t.operands, t.calls, t.items, t.sizes, *(a for _, a in self._literals)))

    @property
    def offsets(self) -> dict[Buffer, int]:
        """Where temporaries lie in the memory of a run."""
        return dict(zip(self.assembled.layout.temporaries, self.tables.offsets, strict=True))

    @property
    def shared(self) -> bool:
        """Whether a run is worth several threads."""
        return self.tables.shared

    # ---- running

    def run(self, given: Mapping[Node, Array], outputs: Mapping[str, Array], threads: int) -> None:
        """Compute every output into its array from those of inputs and leaves, all C-ordered and of the plan's dtypes."""
        data = tuple(given[n] for n in self.leaves)
        seen = self._seen
        if seen is None or any(a is not b for a, b in zip(seen.data, data, strict=True)):
            seen = self._held(data, -1)
        frame = self.frame()
        try:
            self._place(frame, seen, given, outputs)
            frame.touched = (given, outputs)
            frame.run(threads)
        finally:
            self.give_back(frame)

    def _place(self, frame: RunFrame, leaves: _Leaves, given: Mapping[Node, Array], outputs: Mapping[str, Array]) -> None:
        """What a frame reads and fills."""
        frame.load(leaves)
        for n, slot in self.inputs.items():
            frame.at[slot] = address(given[n])
        for k, slot in self.outputs.items():
            frame.at[slot] = address(outputs[k])

    def call(self, inputs: Sequence[Array], threads: int | None = None, last: Sequence[Array] = ()) -> list[Array]:
        """All outputs, in their order, from the inputs, C-ordered and of the plan's dtypes, and from the data that the leaves
        have now; in new arrays, but for the last ones, where arrays are given for them."""
        seen = self.current()
        outputs = []
        frame = self.frame()
        try:
            frame.load(seen)
            at = frame.at
            for slot, x in zip(self._input_slots, inputs):  # noqa: B905  (checked costs more than the rest)
                at[slot] = x.__array_interface__["data"][0]
            new = len(self._results) - len(last)
            for slot, shape, dtype in self._results[:new] if last else self._results:
                y = np.empty(shape, dtype)
                at[slot] = y.__array_interface__["data"][0]
                outputs.append(y)
            for (slot, _, _), y in zip(self._results[new:], last, strict=False):
                at[slot] = y.__array_interface__["data"][0]
                outputs.append(y)
            frame.touched = (inputs, outputs)
            frame.run(threads)
        finally:
            self.give_back(frame)
        return outputs

    def current(self) -> _Leaves:
        """The leaves as they are now."""
        seen = self._seen
        when = changes()
        if seen is None or seen.when != when:
            data = tuple([box.data for box in self.assembled.boxes])
            same = seen is not None and all(a is b for a, b in zip(seen.data, data, strict=True))
            seen = self._seen = seen._replace(when=when) if seen is not None and same else self._held(data, when)
        return seen

    def _held(self, data: tuple[Array, ...], when: int) -> _Leaves:
        """Data of leaves with what is kept of them, which is made where it is not there yet."""
        places = self.assembled.kept
        sources = [[data[i] for i in which] for _, which in places]
        kept = [place.get(s) for (place, _), s in zip(places, sources, strict=True)]
        made = [k for k in kept if k is not None]
        if len(made) < len(kept):
            made = self._prepared(data)
            for (place, _), s, array in zip(places, sources, made, strict=True):
                place.put(s, array)
        return _Leaves(when, data, tuple(made), tuple(map(address, (*data, *made))))

    def _prepared(self, data: tuple[Array, ...]) -> list[Bytes]:
        """What is made of leaves alone, anew: runs that are under way go on with what was made before."""
        made = [aligned(size) for size in self.assembled.kept_bytes]
        frame, room = RunFrame(self), aligned(self.room)
        frame.place_arena((room, address(room)))
        frame.load(_Leaves(-1, data, tuple(made), tuple(map(address, (*data, *made)))))
        thread = frame.threads[0]
        thread.words[driver.COUNT] = self.first
        frame.walk(thread, 0)
        return made

    def frame(self) -> RunFrame:
        """A frame that no other run uses, with memory for temporaries."""
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = RunFrame(self)
        frame.place_arena(memory.ARENAS.borrow(self.room))
        return frame

    def give_back(self, frame: RunFrame) -> None:
        """For the next run, unless Ctrl-C came and came again, and a helper is still at work."""
        if GANG.holds(frame):
            return
        frame.touched = None
        memory.ARENAS.give_back(frame.arena)
        if len(self._frames) < memory.KEPT:
            self._frames.append(frame)

    def profile(self, given: Mapping[Node, Any], outputs: Mapping[str, Any],
                repeat: int = 9) -> list[tuple[str, int, int, float]]:
        """The kernels with the median of the seconds that each took by itself, in one thread."""
        self.run(given, outputs, 1)
        frame, found = self.frame(), []
        try:
            self._place(frame, self._held(tuple(given[n] for n in self.leaves), -1), given, outputs)
            frame.arena[0][:] = 0
            thread = frame.threads[0]
            for i, kernel in enumerate(self.kernels):
                thread.words[driver.COUNT] = i + 1
                times = []
                for _ in range(repeat):
                    began = time.perf_counter()
                    frame.walk(thread, i)
                    times.append(time.perf_counter() - began)
                found.append((*kernel, sorted(times)[repeat // 2]))
            thread.words[driver.COUNT] = len(self.tables.items)
        finally:
            self.give_back(frame)
        return found


class RunFrame:
    """What one run has of its own: where its buffers lie, memory for temporaries, and what each of its threads needs.

    It does not hold the executable, which keeps frames for its next runs, so that both go when nobody runs it any more.
    """

    def __init__(self, executable: CpuExecutable) -> None:
        self.tables, self.scratch, self.first = executable.tables, executable.scratch, executable.first
        self._behind = executable.bytes  # temporaries, where the first thread's own room begins
        self.drive, self.driver, self.leaf_slots = executable.drive, executable.driver, executable.assembled.leaf_slots
        self.bases = np.zeros(self.tables.bases, np.int64)
        self.at = memoryview(self.bases.data)  # quicker to write to than the array
        self.note = np.zeros(3, np.int64)
        self.said = memoryview(self.note.data)
        self.at[self.tables.slots[executable.assembled.plan.note]] = address(self.note)
        for slot, where in executable.fixed:
            self.at[slot] = where
        self.loaded: _Leaves | None = None
        self.touched: object = None  # arrays that helpers read and write, held for as long as they may
        self._set_control(1)
        self.code = executable.assembled.code  # a helper may come late, when nobody else holds it any more
        self.threads = [_Thread(self, 0)]

    def _set_control(self, threads: int) -> None:
        """Room for what so many threads of a run tell each other."""
        self.control = aligned(8 * (driver.CLAIMED + driver.LINE * threads)).view(np.int64)
        self._control = address(self.control)

    def place_arena(self, arena: tuple[Bytes, int]) -> None:
        """Memory for temporaries and for the first thread's own use, and its address."""
        self.arena = arena
        self.at[ARENA] = arena[1]
        self.threads[0].words[driver.SCRATCH_AT] = arena[1] + self._behind

    def load(self, leaves: _Leaves) -> None:
        """The leaves that are read from now on."""
        if self.loaded is not leaves:
            for slot, where in zip(self.leaf_slots, leaves.addresses, strict=True):
                self.at[slot] = where
            self.loaded = leaves

    def run(self, threads: int | None) -> None:
        """All items."""
        self.said[0] = 0
        if self.tables.shared:
            count = default_threads() if threads is None else threads
            if not (count > 1 and (TEAM.get() or GANG).run(self, count)):
                self.walk(self.threads[0], self.first)
                GANG.ended()
        else:
            self.walk(self.threads[0], self.first)
        if self.said[0]:
            seen, size = self.said[1], self.said[2]
            raise IndexRangeError(f"index {seen} is outside an axis of size {size}: expected 0 to {size - 1}")

    @property
    def first_frame(self) -> int:
        """The frame of the first thread."""
        return self.threads[0].at

    def parts(self, scratch: Sequence[int]) -> list[int]:
        """The frames of all threads but the first, each with room of its own, ready to begin."""
        threads = len(scratch) + 1
        while len(self.threads) < threads:
            self.threads.append(_Thread(self, len(self.threads)))
            self._set_control(len(self.threads))
        self.control[:] = 0
        for thread in self.threads[:threads]:
            words = thread.words
            words[driver.THREADS], words[driver.CONTROL_AT] = threads, self._control
            words[driver.EXPECTED] = self.tables.cycles // threads
            thread.begin(self.first)
        for thread, place in zip(self.threads[1:], scratch, strict=False):
            thread.words[driver.SCRATCH_AT] = place
        return [thread.at for thread in self.threads[1:threads]]

    def alone(self) -> bool:
        """The first thread's parts of a run; whether all of it was done."""
        return self._driven(self.threads[0])

    def stop(self) -> None:
        """Nobody waits for others any more."""
        self.control[driver.STOP] = 1

    @property
    def crowded(self) -> bool:
        """Whether a thread of the run waited for one that had no processor."""
        return bool(self.control[driver.CROWDED])

    def walk(self, thread: _Thread, first: int) -> bool:
        """Items from the first on, in one thread; whether all of them were done."""
        thread.words[driver.THREADS], thread.words[driver.CONTROL_AT] = 1, _NEVER_STOPPED
        thread.begin(first)
        return self._driven(thread)

    def _driven(self, thread: _Thread) -> bool:
        while (end := self.drive(thread.at)) == MORE:
            pass
        return bool(end == driver.DONE)


class _Thread:
    """The frame of the driver: one thread's words, and room for the addresses of operands."""

    def __init__(self, frame: RunFrame, thread: int) -> None:
        tables = frame.tables
        self.room = np.zeros(tables.room, np.int64)
        self._words = np.array([
            address(tables.items), len(tables.items), address(frame.bases), thread, 1, _NEVER_STOPPED, address(frame.note),
            0, address(self.room), *[0] * (driver.FRAME - driver.AT_ITEM)], np.int64)
        self.words, self.at = memoryview(self._words.data), address(self._words)

    def begin(self, item: int) -> None:
        """At the beginning of an item."""
        words = self.words
        words[driver.AT_ITEM], words[driver.AT_TURN] = item, 0
        words[driver.BEFORE], words[driver.PART], words[driver.MINE], words[driver.OWN] = 0, 0, 0, 0
        words[driver.BEGAN], words[driver.WAITED] = 0, 0


_CONTROL = np.zeros(driver.CLAIMED, np.int64)
_NEVER_STOPPED = address(_CONTROL)  # for runs in a single thread, which meets nobody
