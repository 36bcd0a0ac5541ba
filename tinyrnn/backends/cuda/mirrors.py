"""Where the data of leaves are on a GPU.

A leaf's data live on the host, on the device, or on both; `Box` knows which of the two is current.  On the device they
keep one place for life, so that a captured graph may write to it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ir.ops.leaves import Box
from .device import identity, mark, require
from .errors import allocated


class DeviceMirror:
    """The data of one leaf on a device."""

    def __init__(self, array: Any, *, borrowed: bool = False) -> None:
        self.array = array
        self.borrowed = borrowed  # somebody else's memory, which is read and never written
        self.ready: Any = None    # an event after which the data are there, and the stream that it was recorded on
        self.stream: Hashable = 0
        self.reads: dict[Hashable, Any] = {}  # by stream, an event after which it reads no more

    def fetch(self) -> npt.NDArray[Any]:
        """The data on the host."""
        if self.ready is not None:
            self.ready.synchronize()
        host: npt.NDArray[Any] = require().asnumpy(self.array)
        return host

    def await_on(self, stream: Any, *, write: bool = False) -> None:
        """What a stream does from here on sees the data; where it writes, nobody else reads them any more."""
        if self.ready is not None and self.stream != identity(stream):
            stream.wait_event(self.ready)
        if write:
            for other, event in self.reads.items():
                if other != identity(stream):
                    stream.wait_event(event)
            self.reads.clear()

    def used(self, stream: Any, event: Any, *, write: bool) -> None:
        """A stream has read the data, or written them, up to an event."""
        if write:
            self.ready, self.stream = event, identity(stream)
        else:
            self.reads[identity(stream)] = event


def here(box: Box, name: str) -> Any:
    """A leaf's data on the current device, for the current stream to read."""
    mirror = mirror_of(box, name)
    mirror.await_on(require().cuda.get_current_stream())
    return mirror.array


def copy_of(box: Box, name: str) -> Any:
    """A copy of a leaf's data on the device; whoever writes to the leaf waits for it."""
    array, stream = here(box, name).copy(), require().cuda.get_current_stream()
    box.mirror.used(stream, mark(stream), write=False)
    return array


class Made:
    """A value that was computed on the device, and when: readers on other streams wait for it."""

    def __init__(self, array: Any) -> None:
        stream = require().cuda.get_current_stream()
        self.array, self.stream, self.ready = array, identity(stream), mark(stream)

    def here(self) -> Any:
        """The array, for the current stream to read."""
        stream = require().cuda.get_current_stream()
        if identity(stream) != self.stream:
            stream.wait_event(self.ready)
        return self.array


def mirror_of(box: Box, name: str, *, write: bool = False) -> DeviceMirror:
    """A leaf's place on the current device, with its data unless all of them are about to be written."""
    cupy = require()
    mirror = box.mirror
    device = cupy.cuda.Device().id
    if mirror is None or mirror.array.device.id != device or (write and mirror.borrowed):
        data = box.data
        mirror = box.mirror = DeviceMirror(allocated(lambda: cupy.empty(data.shape, data.dtype), name, data.nbytes))
        box.mirrored = False
    if not box.mirrored:
        stream = cupy.cuda.get_current_stream()
        mirror.await_on(stream, write=True)
        mirror.array.set(np.asarray(box.data, order="C"))
        stream.synchronize()
        mirror.ready, box.mirrored = None, True
    found: DeviceMirror = mirror
    return found


def mirror_with(array: Any, own: bool) -> DeviceMirror:
    """An array of the device as the place of a leaf: the array itself, or a copy for one that will be written to."""
    whole = array if array.flags.c_contiguous else array.copy()
    mirror = DeviceMirror(array.copy() if own and whole is array else whole, borrowed=not own)
    stream = require().cuda.get_current_stream()
    mirror.ready, mirror.stream = mark(stream), identity(stream)
    return mirror
