"""What of CUDA this machine has, and how to get what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import cache, partial
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
    cupy, failure = _asked(lambda: import_module("cupy"))
    if failure:
        return f"CuPy is installed but cannot be imported ({failure}): reinstall it, {INSTALL}"
    count, failure = _asked(lambda: cupy.cuda.runtime.getDeviceCount())
    if failure:
        return (f"no usable NVIDIA driver ({failure}): install one (`nvidia-smi` shows it), or use the CuPy that fits yours, "
                f"{INSTALL}")
    if not count:
        return "the driver sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    for part, what in PARTS.items():
        _, failure = _asked(partial(loaded, part))
        if failure:
            return f"{what}, is missing ({failure}): {INSTALL}"
    return None


def _asked(question: Callable[[], Any]) -> tuple[Any, str]:
    """The answer, or the first line of what went wrong."""
    try:
        return question(), ""
    except Exception as error:  # drivers and loaders fail in many ways, and each is to be said, not raised
        return None, (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


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


def driver() -> Any:
    """The driver's own functions, for what CuPy does not offer."""
    return import_module("cuda.bindings.driver")


def identity(stream: Any) -> Hashable:
    """What tells a stream from all others, those included that had its handle before it: the driver's number for it, and for
    each thread's own default stream the thread as well."""
    calls = driver()
    error, number = calls.cuStreamGetId(calls.CUstream(stream.ptr))
    if int(error):  # this thread has asked nothing of the device so far
        require().cuda.Device().use()
        error, number = calls.cuStreamGetId(calls.CUstream(stream.ptr))
    known = stream.ptr if int(error) else ("number", int(number))
    return (known, threading.get_ident()) if stream.ptr == PER_THREAD else known


def mark(stream: Any) -> Any:
    """An event after all that a stream has been given so far."""
    return stream.record(require().cuda.Event(disable_timing=True))


def abilities() -> dict[str, str]:
    """What is there of driver, CUDA, CuPy, NVRTC and cuBLAS, in words."""
    found = {}
    cupy, failure = _asked(lambda: import_module("cupy"))
    if failure:
        found["CuPy"] = f"missing: {INSTALL}" if find_spec("cupy") is None else f"broken: {failure}"
    else:
        runtime = cupy.cuda.runtime
        found |= {"CuPy": cupy.__version__, "CUDA driver": _version(runtime.driverGetVersion),
                  "CUDA runtime": _version(runtime.runtimeGetVersion), "GPU": _gpus(runtime)}
    for part, what in PARTS.items():
        found[what] = f"missing: {INSTALL}" if _asked(partial(loaded, part))[1] else "ready"
    return found


def _version(question: Callable[[], int]) -> str:
    number, failure = _asked(question)
    if failure:
        return f"not there ({failure})"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "not there: install NVIDIA's driver"


def _gpus(runtime: Any) -> str:
    found, failure = _asked(lambda: [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())])
    if failure:
        return f"none ({failure})"
    return ", ".join(f"{p['name'].decode()} (compute capability {p['major']}.{p['minor']})" for p in found) or "none"
