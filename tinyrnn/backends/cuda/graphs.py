"""Whole runs as CUDA graphs: captured once, then launched as one.

The first run of a plan is eager: it compiles what is missing, and meets every error where it arises.  From the second run
on the plan is a graph, captured once for each stream, unless it was asked to stay eager.

A graph holds addresses, so everything that it touches keeps its place: temporaries, copies of inputs and outputs, the
data of leaves.  It holds on to all of that memory, and outlives whatever made it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import ref

import numpy as np

from ...errors import BackendError, OutOfMemoryError
from ...ir.node import Node
from ...ir.ops.leaves import box_of
from ..choice import Backend
from ..plan.views import Buffer, Plan
from .bound import bound, by_library, launch
from .device import identity, mark, require
from .errors import allocated, reported, unrepeatable
from .runtime import Arrays, Eager, handle, on_this_device, refuse, views, workspace_of

Done = TypeVar("Done")
MOST = 32         # graphs that are kept; the one that was not launched for the longest time goes first
ALIGNMENT = 256   # bytes, of every input and output
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3  # kinds of copies


class Shelf:
    """Inputs or outputs side by side on the device, and, once the host takes part, in memory that may not be paged."""

    def __init__(self, cupy: Any, buffers: Sequence[Buffer], what: str, plan: str) -> None:
        self.cupy, self.buffers = cupy, buffers
        self.offsets: dict[Buffer, int] = {}
        self.size = 0
        for b in buffers:
            self.offsets[b] = self.size
            self.size += -(-b.bytes // ALIGNMENT) * ALIGNMENT
        size = max(self.size, ALIGNMENT)
        self.memory = allocated(lambda: cupy.zeros(size, np.uint8), what, size, plan)
        self.there = views(self.memory, buffers, self.offsets)
        self.host: Any = None
        self.here: dict[Buffer, Any] = {}

    def pin(self) -> None:
        """Memory of the host, once."""
        if self.host is None:
            size = self.memory.nbytes
            memory = allocated(lambda: self.cupy.cuda.alloc_pinned_memory(size), "memory of the host that is copied from", size)
            self.host = np.frombuffer(memory, np.uint8, size)
            self.here = views(self.host, self.buffers, self.offsets)

    def copy(self, kind: int, stream: Any, first: int = 0, last: int | None = None) -> None:
        """Everything between two offsets, to the device or to the host."""
        last = self.size if last is None else last
        ends = (self.memory.data.ptr, self.host.ctypes.data)
        to, source = ends if kind == TO_DEVICE else ends[::-1]
        if last > first:
            self.cupy.cuda.runtime.memcpyAsync(to + first, source + first, last - first, kind, stream.ptr)


class Captured:
    """One run of a plan as a graph, for one stream."""

    def __init__(self, executable: Eager, stream: Any) -> None:
        self.plan, self.cupy, self.stream = executable.plan, executable.cupy, stream
        self.executable = ref(executable)
        self.given = executable.inputs
        self.inputs = Shelf(self.cupy, self.given, "the copy of the inputs", executable.said)
        out = [self.plan.note, *(self.plan.outputs[k].buffer for k in executable.results)]
        self.outputs = Shelf(self.cupy, out, "room for the outputs", executable.said)
        self.updates = {k: executable.room(self.plan.outputs[k].buffer, k) for k in executable.updates}
        self.memory, self.workspace = executable.temporaries(), workspace_of(stream, captured=True)
        self.addresses: dict[Buffer, int] | None = None
        self.kept: list[Any] = []
        self.graph: Any = None
        self.uploaded: Any = None
        self.launched: Any = None

    def run(self, values: Mapping[Node, Any], on_device: bool) -> Arrays:
        """All memory first: what fails for want of it has changed nothing, and may be tried again."""
        executable, stream = self._executable(), self.stream
        self._capture(executable, executable.fixed(stream))
        room = self._room(executable, on_device)
        self._fill(values)
        self.graph.launch(stream)
        with unrepeatable():
            self.launched = mark(stream)
            executable.written(stream)
        return self._results(executable, room)

    def settle(self) -> None:
        """Wait until nothing reads or writes memory that goes away with this graph."""
        for event in (self.uploaded, self.launched):
            if event is not None:
                event.synchronize()

    def _executable(self) -> Eager:
        found = self.executable()
        assert found is not None
        return found

    def _capture(self, executable: Eager, fixed: dict[Buffer, int]) -> None:
        """The graph, anew where a leaf has moved."""
        if self.graph is not None and fixed == self.addresses:
            return
        arrays = {**self.inputs.there, **self.outputs.there,
                  **{self.plan.outputs[k].buffer: a for k, a in self.updates.items()}}
        address = {b: a.data.ptr for b, a in arrays.items()} | fixed | executable.placed(self.memory)
        own = self.cupy.cuda.Stream(non_blocking=True)
        cublas = handle()
        self.cupy.cuda.get_current_stream().synchronize()
        with LOCK, own:  # cuBLAS's handle serves one stream at a time
            cublas.use(own.ptr, self.workspace)
            work = bound(executable.work, executable.functions, address, self.memory.data.ptr + executable.scratch,
                         by_library(cublas, executable.backend.precision))
            own.begin_capture()
            try:
                self.cupy.cuda.runtime.memsetAsync(address[self.plan.note], 0, self.plan.note.bytes, own.ptr)
                launch(work)
            except BaseException:
                self._abandon(own)
                raise
            self.graph = own.end_capture()
            cublas.use(self.stream.ptr, self.workspace)  # the stream of the capture goes away, the handle stays
        self.addresses = fixed
        self.kept = [executable.literals, executable.functions, [box_of(n).mirror for n in executable.leaves.values()]]

    def _abandon(self, stream: Any) -> None:
        """A capture that was broken off leaves no graph."""
        self.graph = None
        with suppress(Exception):  # the first error says what went wrong
            stream.end_capture()

    def _fill(self, values: Mapping[Node, Any]) -> None:
        """Inputs into their places: from the host in one copy, arrays of the device each by itself."""
        if self.uploaded is not None:
            self.uploaded.synchronize()  # the memory that it was copied from is written anew
        hosts = [b for b in self.given if not isinstance(values[b.source], self.cupy.ndarray)]
        if hosts:
            self.inputs.pin()
        for b in hosts:
            np.copyto(self.inputs.here[b], np.asarray(values[b.source], b.dtype).reshape(-1))
        if hosts:
            first = self.inputs.offsets[hosts[0]]
            last = self.inputs.offsets[hosts[-1]] + hosts[-1].bytes
            self.inputs.copy(TO_DEVICE, self.stream, first, last)
            self.uploaded = mark(self.stream)
        for b in self.given:
            if b not in hosts and b.bytes:
                array = on_this_device(values[b.source], b)
                self.cupy.cuda.runtime.memcpyAsync(self.inputs.there[b].data.ptr, array.data.ptr, b.bytes, ON_DEVICE,
                                                   self.stream.ptr)

    def _room(self, executable: Eager, on_device: bool) -> Arrays | None:
        """Where copies of the outputs will lie, since the next launch overwrites them; None for those of the host."""
        if on_device:
            return {k: executable.room(self.plan.outputs[k].buffer, k) for k in executable.results}
        self.outputs.pin()
        return None

    def _results(self, executable: Eager, room: Arrays | None) -> Arrays:
        """Copies of the outputs."""
        shapes = {k: self.plan.outputs[k] for k in executable.results}
        if room is None:
            self.outputs.copy(TO_HOST, self.stream)
            self.stream.synchronize()
            refuse(self.outputs.here[self.plan.note])
            return {k: self.outputs.here[v.buffer].reshape(v.shape).copy() for k, v in shapes.items()}
        if executable.checks:
            refuse(self.cupy.asnumpy(self.outputs.there[self.plan.note]))
        for k, v in shapes.items():
            if v.buffer.bytes:
                self.cupy.cuda.runtime.memcpyAsync(room[k].data.ptr, self.outputs.there[v.buffer].data.ptr, v.buffer.bytes,
                                                   ON_DEVICE, self.stream.ptr)
        return {k: room[k].reshape(v.shape) for k, v in shapes.items()}


LOCK = threading.RLock()


class _Shelf:
    """The graphs of the process, the latest last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, Hashable], Captured] = OrderedDict()

    def of(self, executable: Eager, stream: Any) -> Captured:
        with LOCK:
            key = id(executable), identity(stream)
            found = self._kept.get(key)
            if found is None or found.executable() is not executable:
                if found is not None:
                    found.settle()
                found = self._kept[key] = Captured(executable, stream)
            self._kept.move_to_end(key)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)[1].settle()
            return found

    def __len__(self) -> int:
        return len(self._kept)

    def drop(self, executable: Eager | None = None) -> bool:
        """Make room: of the graphs of others the one that was not launched for the longest time goes, if there is one; first
        those of programs that are gone."""
        with LOCK:
            others = [k for k, c in self._kept.items() if executable is None or c.executable() is not executable]
            key = next((k for k in others if self._kept[k].executable() is None), others[0] if others else None)
            if key is None:
                return False
            self._kept.pop(key).settle()
        require().get_default_memory_pool().free_all_blocks()
        return True

    def clear(self) -> None:
        with LOCK:
            for captured in self._kept.values():
                captured.settle()
            self._kept.clear()


CAPTURED = _Shelf()


class CudaExecutable(Eager):
    """A plan that can be run again and again: the first time eagerly, then as a graph."""

    def __init__(self, plan: Plan, backend: Backend, updates: Mapping[str, Node] | None = None) -> None:
        super().__init__(plan, backend, updates)
        self.seen: set[Hashable] = set()  # streams on which it ran
        self.lock = threading.Lock()

    def run(self, values: Mapping[Node, Any], on_device: bool) -> Arrays:
        """Every output that is no update, on the device or on the host, from the values of inputs (and of leaves that are
        not to have their own)."""
        stream = self.cupy.cuda.get_current_stream()
        if stream.is_capturing():
            raise BackendError("this stream is being captured: run tinyrnn's programs outside of a capture, they capture "
                               "themselves")
        current = self.cupy.cuda.Device().id
        if current != self.device:
            raise BackendError(f"this program was made on GPU {self.device}, the current device is {current}: make it anew")
        with self.lock:
            replaced = any(n in values for n in self.leaves.values())
            eager = self.backend.eager or replaced or identity(stream) not in self.seen
            self.seen.add(identity(stream))
            if eager:
                return with_room(lambda: self.eager(values, on_device, stream), "running a plan", self)
            return with_room(lambda: CAPTURED.of(self, stream).run(values, on_device), "running a plan", self)


def with_room(run: Callable[[], Done], doing: str, executable: Eager | None = None) -> Done:
    """What fails for want of memory has changed nothing: it is done once more, with the memory of graphs of others."""
    while True:
        try:
            with reported(doing):
                return run()
        except OutOfMemoryError:
            if not CAPTURED.drop(executable):
                raise
