"""Compiled kernels, by their structure: each is compiled once in a process and kept on disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Iterable
from functools import cache
from typing import Any

from ..store import load_object, store_object
from . import nvrtc
from .device import architecture, require
from .launch import name_of, source_of


class Library:
    """The kernels of one device."""

    def __init__(self, device: int) -> None:
        self.device, self.cupy = device, require()
        self._modules: dict[Hashable, Any] = {}
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def require(self, keys: Iterable[tuple[Hashable, ...]]) -> None:
        """Compile what is not there yet, all of it at once."""
        with self._lock:
            missing = [k for k in keys if k not in self._modules]
            if missing:
                module = self.cupy.cuda.function.Module()
                module.load(self._code(source_of(missing)))
                self._modules.update(dict.fromkeys(missing, module))

    def _code(self, source: str) -> bytes:
        found = architecture(self.device)
        identity = hashlib.sha256(repr((source, found, nvrtc.version(), nvrtc.OPTIONS)).encode()).hexdigest()
        code = load_object(identity)
        if code is None:
            code = nvrtc.cubin(source, found)
            store_object(identity, code)
        return code

    def functions(self, keys: Iterable[tuple[Hashable, ...]], names: Iterable[str]) -> dict[str, Any]:
        """Kernels by name; one structure may have several, told apart by their endings."""
        modules = {name_of(k): self._modules[k] for k in keys}
        for name in names:
            if name not in self._functions:
                stem = name if name in modules else name.rpartition("_")[0]
                self._functions[name] = modules[stem].get_function(name)
        return {name: self._functions[name] for name in names}


@cache
def library(device: int) -> Library:
    """The compiled kernels of a device."""
    return Library(device)
