"""What this machine can do at most, and what it is."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..backends.cpu.codegen import POINTER, Lanes, LlvmDomain
from ..backends.cpu.emit import Emit
from ..backends.cpu.engine import host, library

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
SUMS = 24


def _store_total(e: Emit, m: LlvmDomain, sums: list[Any]) -> None:
    """The end of a kernel: all sums are used, so that none is optimised away."""
    f32 = np.dtype(np.float32)
    total = m.add_n(*(Lanes(m, v, f32) for v in sums))
    e.store_first(m, e.across(m, total, lambda a, b: a + b), e.entry(e.function.args[0], 1, POINTER))
    e.b.ret_void()


def _emit_peak(module: Any, name: str) -> None:
    """`n` rounds of 24 independent fused multiply-adds in registers."""
    e = Emit(module, name)
    m = LlvmDomain(e.b, host().vector_bytes // 4)
    f32 = np.dtype(np.float32)
    factor = e.scalar(m, e.entry(e.function.args[0], 0, POINTER), f32)
    start = [m.constant(i / SUMS, f32).value for i in range(SUMS)]
    state = e.carry(0, e.function.args[2], 1, start,
                    lambda _, s: [m.fma(Lanes(m, v, f32), factor, factor).value for v in s])
    _store_total(e, m, state)


def _emit_read(module: Any, name: str) -> None:
    """Sums of `n` numbers, eight vectors at a time, over and over: as fast as memory hands them over."""
    e = Emit(module, name)
    m = LlvmDomain(e.b, host().vector_bytes // 4)
    f32 = np.dtype(np.float32)
    source = e.entry(e.function.args[0], 0, POINTER)
    kind = m.vector(f32).element

    def advance(i: Any, state: list[Any]) -> list[Any]:
        return [(Lanes(m, v, f32) + e.load(m, e.at(source, e.add(i, k * m.lanes), kind), f32)).value
                for k, v in enumerate(state)]

    state = e.carry(0, e.entry(e.function.args[1], 0), 1, [m.constant(0, f32).value] * 8,
                    lambda _, s: e.carry(0, e.function.args[2], 8 * m.lanes, s, advance))
    _store_total(e, m, state)


def _kernel(name: str, emit: Any) -> Any:
    code = library(host()).require({name: emit})[name]
    kernel: Any = _KERNEL(code.addresses[name])
    kernel.code = code  # held for as long as it may be called
    return kernel


def _median(f: Any, repeat: int = 15) -> float:
    times = []
    for _ in range(repeat):
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return statistics.median(times)


def peak_flops(repeat: int = 15) -> float:
    """Fused multiply-adds in registers, one thread: operations a second."""
    kernel, data = _kernel("peak", _emit_peak), np.array([0.999, 0.0], np.float32)
    pointers = np.array([data.ctypes.data, data.ctypes.data + 4], np.int64)
    rounds = 400_000
    took = _median(lambda: kernel(pointers.ctypes.data, None, rounds, None), repeat)
    return 2.0 * rounds * SUMS * (host().vector_bytes // 4) / took


def read_bandwidth(size: int) -> float:
    """Bytes a second that one thread reads from an array of `size` bytes, over and over."""
    kernel, data, out = _kernel("read", _emit_read), np.zeros(size // 4 // 512 * 512, np.float32), np.zeros(1, np.float32)
    pointers = np.array([data.ctypes.data, out.ctypes.data], np.int64)
    repeat = np.array([max(1, 20_000_000 // size)])

    def run() -> None:
        kernel(pointers.ctypes.data, repeat.ctypes.data, data.size, None)

    run()
    return float(repeat[0] * data.nbytes / _median(run))


def described() -> dict[str, Any]:
    """The machine and the versions of everything that is measured."""
    found: dict[str, Any] = {"processor": host().cpu, "vector_bytes": host().vector_bytes, "cores": os.cpu_count(),
                             "python": platform.python_version(), "system": platform.system()}
    for package in ("tinyrnn", "numpy", "llvmlite", "torch", "jax", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


