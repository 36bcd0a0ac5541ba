"""What of CUDA this machine has, and how to get what is missing."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ...errors import BackendError

INSTALL = "pip install 'tinyrnn[cuda13]' (driver 580 or newer) or 'tinyrnn[cuda12]' (driver 525 or newer)"
PER_THREAD = 2  # the pointer of every thread's own default stream
PARTS = {"nvrtc": "NVRTC, which compiles kernels", "cublas": "cuBLAS, which multiplies matrices"}


@cache
def missing() -> str | None:
    """Why graphs cannot run on a GPU here, and the remedy; None where they can."""
    if find_spec("cupy") is None:
        return f"CuPy is not installed: {INSTALL}"
    try:
        cupy = import_module("cupy")
    except Exception as error:
        return f"CuPy is installed but cannot be imported ({_first(error)}): reinstall it, {INSTALL}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return (f"no usable NVIDIA driver ({_first(error)}): install one (`nvidia-smi` shows it), or use the CuPy that fits "
                f"yours, {INSTALL}")
    if not count:
        return "the driver sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    for part, what in PARTS.items():
        reason = _library(part)
        if reason:
            return f"{what}, is missing ({reason}): {INSTALL}"
    return None


def _library(name: str) -> str:
    """Why one of CUDA's libraries cannot be loaded; empty where it can."""
    try:
        loaded(name)
    except Exception as error:
        return _first(error)
    return ""


@cache
def loaded(name: str) -> str:
    """The path of one of CUDA's libraries, which is loaded."""
    path: str | None = import_module("cuda.pathfinder").load_nvidia_dynamic_lib(name).abs_path
    if path is None:
        raise BackendError(f"lib{name} was found, but not where")
    return path


def require() -> ModuleType:
    """CuPy, on a machine where it works; else the one error that says what to do."""
    reason = missing()
    if reason:
        raise BackendError(f"backend 'cuda' cannot run here: {reason}. `tinyrnn doctor` says more; backend='cpu' needs no GPU")
    return import_module("cupy")


@cache
def architecture(device: int) -> str:
    """The compute capability of a device as compilers write it: `90`."""
    found: str = require().cuda.Device(device).compute_capability
    return found


def identity(stream: Any) -> Hashable:
    """What tells a stream from all others: its pointer, and for each thread's own default stream the thread as well."""
    return (stream.ptr, threading.get_ident()) if stream.ptr == PER_THREAD else stream.ptr


def mark(stream: Any) -> Any:
    """An event after all that a stream has been given so far."""
    return stream.record(require().cuda.Event(disable_timing=True))


def abilities() -> dict[str, str]:
    """What is there of driver, CUDA, CuPy, NVRTC and cuBLAS, in words."""
    found = {}
    cupy: Any = None
    try:
        cupy = import_module("cupy")
        found["CuPy"] = cupy.__version__
    except Exception as error:
        found["CuPy"] = f"missing: {INSTALL}" if find_spec("cupy") is None else f"broken: {_first(error)}"
    if cupy is not None:
        runtime = cupy.cuda.runtime
        found["CUDA driver"] = _version(runtime.driverGetVersion)
        found["CUDA runtime"] = _version(runtime.runtimeGetVersion)
        found["GPU"] = _gpus(cupy)
    for part, what in PARTS.items():
        reason = _library(part)
        found[what] = f"missing: {INSTALL}" if reason else "ready"
    return found


def _version(ask: Any) -> str:
    try:
        number = ask()
    except Exception as error:
        return f"not there ({_first(error)})"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "not there: install NVIDIA's driver"


def _gpus(cupy: Any) -> str:
    try:
        names = [cupy.cuda.runtime.getDeviceProperties(i) for i in range(cupy.cuda.runtime.getDeviceCount())]
    except Exception as error:
        return f"none ({_first(error)})"
    return ", ".join(f"{p['name'].decode()} (compute capability {p['major']}.{p['minor']})" for p in names) or "none"


def _first(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
