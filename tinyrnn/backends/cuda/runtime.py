"""A plan on a GPU, a launch at a time: its kernels, its memory, where the data of leaves are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BackendError, IndexRangeError
from ...ir.node import Node
from ...ir.ops.leaves import box_of
from ..choice import Backend
from ..executable import Planned
from ..plan.memory import ALIGNMENT, arrange
from ..plan.views import Buffer, Call, Plan, View
from .bound import bound, by_cupy, by_library, launch
from .cublas import Cublas
from .device import identity, mark, require
from .errors import allocated, in_words, unrepeatable
from .kernels import library
from .launch import KernelLaunch, kernel_keys, scratch_bytes, work_of
from .mirrors import DeviceMirror, mirror_of

Arrays = dict[str, Any]


class Eager(Planned):
    """A plan that can be run again and again, a launch at a time.

    `updates` are outputs that become the new data of leaves, at the end of a run in which nothing went wrong.
    """

    def __init__(self, plan: Plan, backend: Backend, updates: Mapping[str, Node] | None = None) -> None:
        self._plan, self.backend, self.updates = plan, backend, dict(updates or {})
        self.cupy = require()
        self.leaves = {b: b.source for b in plan.given if b.role == "leaf"}
        self.inputs = [b for b in plan.given if b.role == "input"]
        self.results = [k for k in plan.outputs if k not in self.updates]
        commits = [self._commit(plan.outputs[k], n) for k, n in self.updates.items()]
        calls = [*plan.calls(), *commits]
        self.checks = any(c.family == "check" for c in calls)
        self.work = work_of(plan, commits)
        self.commits = sum(bool(s.jobs) for s in self.work[len(self.work) - len(commits) :])  # the last of what is launched
        self.offsets, self.bytes = arrange(plan)
        self.scratch = -(-self.bytes // ALIGNMENT) * ALIGNMENT
        self.total = self.scratch + scratch_bytes(calls)
        self.device = self.cupy.cuda.Device().id
        keys, kernels = kernel_keys(calls), library(self.device)
        kernels.require(keys)
        names = {job.function for s in self.work for job in s.jobs if isinstance(job, KernelLaunch)}
        self.functions = kernels.functions(keys, sorted(names))
        self._latest: tuple[Any, Any] = None, None
        self.literals = {b: allocated(partial(self.cupy.asarray, np.ascontiguousarray(b.source)), "a constant", b.bytes)
                         for b in plan.buffers if b.role == "literal"}

    def _commit(self, new: View, leaf: Node) -> Call:
        """The end of a run: a leaf's new data take the place of the old."""
        buffer = next((b for b, n in self.leaves.items() if n is leaf), None)
        if buffer is None:
            buffer = Buffer(f"leaf {len(self.leaves)}", new.buffer.size, new.dtype, "leaf", leaf)
            self.leaves[buffer] = leaf
        old = View(buffer, (buffer.size,), (1,))
        note = View(self.plan.note, (3,), (1,))
        return Call("commit", (new.dtype.itemsize,), (View(new.buffer, old.shape, (1,)), note, old), frozenset([2]), (),
                    buffer.size, (1, 0, 1), 1, 0, f"{buffer.name} = {new.buffer.name}")

    # ---- running

    def eager(self, values: Mapping[Node, Any], on_device: bool, stream: object) -> Arrays:
        """Every output that is no update, from the values of inputs (and of leaves that are not to have their own).

        Launches go to the caller's stream and, for what is on the device already, to the caller's own arrays.
        """
        cupy = self.cupy
        given = [*self.inputs, *(b for b, n in self.leaves.items() if n in values)]
        arrays: dict[Buffer, Any] = {b: on_this_device(values[b.source], b, self.said) for b in given}
        outputs = {k: self.room(v.buffer, k) for k, v in self.plan.outputs.items()}
        arrays |= {self.plan.outputs[k].buffer: a for k, a in outputs.items()}
        note = arrays[self.plan.note] = cupy.zeros(3, np.int64)
        memory = self.temporaries()
        address = self.fixed(stream) | {b: a.data.ptr for b, a in arrays.items()} | self.placed(memory)
        work = self._bound(address, memory.data.ptr + self.scratch, stream)
        launch(work[: len(work) - self.commits])
        with unrepeatable():
            launch(work[len(work) - self.commits :])
            self.written(stream)
        if self.checks:
            refuse(cupy.asnumpy(note))
        shaped = {k: outputs[k].reshape(self.plan.outputs[k].shape) for k in self.results}
        return shaped if on_device else {k: cupy.asnumpy(a) for k, a in shaped.items()}

    def _bound(self, address: dict[Buffer, int], scratch: int, stream: Any) -> Any:
        """Launches at these addresses; those of the run before where all is where it was, which is the rule."""
        known = address, scratch, identity(stream), None if self._by_cupy else handle()
        if self._latest[0] != known:
            self._latest = known, bound(self.work, self.functions, address, scratch, self._multiply(stream))
        elif not self._by_cupy:
            handle().use(stream.ptr, workspace_of(stream))
        return self._latest[1]

    @property
    def _by_cupy(self) -> bool:
        return self.backend.eager and not self.backend.precision

    def _multiply(self, stream: Any) -> Any:
        """The products that a graph would hold, so that runs before and after its capture agree bit for bit; for those who
        stay eager CuPy's own, unless a precision is asked for that they do not have."""
        if self._by_cupy:
            return by_cupy
        cublas = handle()
        cublas.use(stream.ptr, workspace_of(stream))
        return by_library(cublas, self.backend.precision)

    # ---- memory

    def room(self, buffer: Buffer, name: str) -> Any:
        return allocated(lambda: self.cupy.empty(buffer.size, buffer.dtype), f"the output {name!r}", buffer.bytes, self.said)

    def temporaries(self) -> Any:
        """Memory for all values on the way."""
        return allocated(lambda: self.cupy.empty(max(self.total, 1), np.uint8), "the memory for values on the way", self.total,
                         self.said)

    @property
    def said(self) -> str:
        """What takes the memory of a run."""
        largest = sorted(self.offsets, key=lambda b: -b.bytes)[:3]
        names = ", ".join(f"{b.name} {in_words(b.bytes)}" for b in largest)
        return f"; the plan needs {in_words(self.total)} for values on the way, of which the largest are {names or 'none'}"

    def placed(self, memory: Any) -> dict[Buffer, int]:
        """Where temporaries lie."""
        return {b: memory.data.ptr + at for b, at in self.offsets.items()}

    def fixed(self, stream: Any) -> dict[Buffer, int]:
        """Where numbers that are part of the plan lie, and the data of leaves, which `stream` waits for."""
        return {b: a.data.ptr for b, a in self.literals.items()} | {
            b: m.array.data.ptr for b, m in self.mirrors(stream).items()}

    def mirrors(self, stream: Any) -> dict[Buffer, DeviceMirror]:
        """The leaves' places on the device, their data uploaded where the host's are newer."""
        updated = set(self.updates.values())
        found = {b: mirror_of(box_of(n), b.name, write=n in updated) for b, n in self.leaves.items()}
        for b, m in found.items():
            m.await_on(stream, write=self.leaves[b] in updated)
        return found

    def written(self, stream: object) -> None:
        """From here on the data of updated leaves are those on the device; others wait for what was read."""
        if not self.leaves:
            return
        event, updated = mark(stream), set(self.updates.values())
        for leaf in self.leaves.values():
            if box_of(leaf).mirror is not None:
                box_of(leaf).mirror.used(stream, event, write=leaf in updated)
        for leaf in updated:
            box_of(leaf).moved()


def on_this_device(value: object, buffer: Buffer, plan: str = "") -> Any:
    """An input as an array of its own dtype without gaps: the caller's own where it is one already."""
    cupy = require()
    if isinstance(value, cupy.ndarray):
        if value.device.id != cupy.cuda.Device().id:
            raise BackendError(f"the input {buffer.name!r} is on GPU {value.device.id}, the current device is "
                               f"{cupy.cuda.Device().id}: copy it there first")
        return allocated(lambda: cupy.ascontiguousarray(value, buffer.dtype), f"the input {buffer.name!r}", buffer.bytes, plan)
    host = np.ascontiguousarray(value, buffer.dtype)
    return allocated(lambda: cupy.asarray(host), f"the input {buffer.name!r}", host.nbytes, plan)


def refuse(note: npt.NDArray[np.int64]) -> None:
    """An error for what kernels left in the note."""
    if note[0]:
        raise IndexRangeError(f"index {note[1]} is outside an axis of size {note[2]}: expected 0 to {note[2] - 1}")


def views(memory: Any, buffers: Sequence[Buffer], offsets: Mapping[Buffer, int]) -> dict[Buffer, Any]:
    """Arrays within one piece of memory, on the host or on the device."""
    return {b: memory[offsets[b] : offsets[b] + b.bytes].view(b.dtype) for b in buffers}


WORKSPACES = 8  # workspaces that are kept, those used last
_own = threading.local()
_workspaces: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()


def handle() -> Cublas:
    """cuBLAS on the current device; every thread has a handle of its own, since a handle works on one stream at a time."""
    if not hasattr(_own, "handles"):
        _own.handles = {}
    device = require().cuda.Device().id
    if device not in _own.handles:
        _own.handles[device] = Cublas()
    found: Cublas = _own.handles[device]
    return found


def workspace_of(stream: object, captured: bool = False) -> Any:
    """The memory that cuBLAS works in on a stream.

    A product may be several kernels that hand on what is there, so whatever may come between them has memory of its own:
    other streams, other threads that fill the same stream, and graphs, which are launched as one and share theirs.
    """
    key = require().cuda.Device().id, identity(stream), "graphs" if captured else threading.get_ident()
    with _lock:
        found = _workspaces.pop(key, None)
        _workspaces[key] = handle().workspace() if found is None else found  # the last one used comes last
        while len(_workspaces) > WORKSPACES:
            _workspaces.popitem(last=False)
        return _workspaces[key]
