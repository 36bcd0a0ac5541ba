"""Compiled kernels, by their structure: each is compiled once in a process and kept on disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from typing import Any

from ..cache import load_object, store_object
from . import nvrtc
from .device import architecture, require
from .launch import name_of, source_of


class DeviceKernels:
    """The kernels of one device."""

    def __init__(self, device: int) -> None:
        self.device, self.cupy = device, require()
        self._modules: dict[Hashable, Any] = {}
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def require(self, keys: Sequence[tuple[Hashable, ...]]) -> None:
        """Compile the kernels of a plan where one is not there yet: all of them, so that what is kept on disk depends on the
        plan alone, not on what ran before."""
        with self._lock:
            if any(k not in self._modules for k in keys):
                module = self.cupy.cuda.function.Module()
                module.load(code_of(keys, architecture(self.device)))
                for k in keys:
                    self._modules.setdefault(k, module)

    def functions(self, keys: Iterable[tuple[Hashable, ...]], names: Iterable[str]) -> dict[str, Any]:
        """Kernels by name; one structure may have several, told apart by their endings."""
        modules = {name_of(k): self._modules[k] for k in keys}
        for name in names:
            if name not in self._functions:
                stem = name if name in modules else name.rpartition("_")[0]
                self._functions[name] = modules[stem].get_function(name)
        return {name: self._functions[name] for name in names}


def code_of(keys: Iterable[tuple[Hashable, ...]], found: str) -> bytes:
    """The machine code of kernels for a compute capability, compiled once and kept on disk."""
    source = source_of(keys)
    identity = hashlib.sha256(repr((source, found, nvrtc.version(), nvrtc.OPTIONS)).encode()).hexdigest()
    code = load_object(identity)
    if code is None:
        code = nvrtc.cubin(source, found)
        store_object(identity, code)
    return code


@cache
def library(device: int) -> DeviceKernels:
    """The compiled kernels of a device."""
    return DeviceKernels(device)
