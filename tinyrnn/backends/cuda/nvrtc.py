"""CUDA C to machine code by NVRTC, which needs neither a GPU nor a driver."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from ...errors import BackendError

OPTIONS = ("--std=c++17", "--ptxas-options=-v", "--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
_KERNEL = re.compile(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", re.S)
_NUMBERS = {"registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem", "stack": r"(\d+) bytes stack frame",
            "spills": r"(\d+) bytes spill stores"}


class Usage(NamedTuple):
    """What a kernel takes of the hardware."""

    registers: int
    shared: int
    stack: int
    spills: int


def _nvrtc() -> Any:
    return import_module("cuda.bindings.nvrtc")


@cache
def version() -> tuple[int, int]:
    """NVRTC's version."""
    error, major, minor = _nvrtc().nvrtcVersion()
    _checked(error, "nvrtcVersion")
    return int(major), int(minor)


def cubin(source: str, architecture: str) -> bytes:
    """Machine code for a compute capability such as `90`."""
    return compiled(source, architecture)[0]


def compiled(source: str, architecture: str) -> tuple[bytes, dict[str, Usage]]:
    """Machine code, and what each kernel takes."""
    nvrtc = _nvrtc()
    error, program = nvrtc.nvrtcCreateProgram(source.encode(), b"tinyrnn.cu", 0, [], [])
    _checked(error, "nvrtcCreateProgram")
    try:
        options = [o.encode() for o in (f"--gpu-architecture=sm_{architecture}", *OPTIONS)]
        (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = _text(nvrtc, program)
        if failed:
            raise BackendError(f"a generated kernel does not compile for sm_{architecture}; please report this:\n{log}")
        error, size = nvrtc.nvrtcGetCUBINSize(program)
        _checked(error, "nvrtcGetCUBINSize")
        code = b" " * size
        _checked(nvrtc.nvrtcGetCUBIN(program, code)[0], "nvrtcGetCUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return code, usage(log)


def usage(log: str) -> dict[str, Usage]:
    """Registers, shared memory, stack and spills of every kernel, from the assembler's report."""
    def number(pattern: str, text: str) -> int:
        found = re.search(pattern, text)
        return int(found.group(1)) if found else 0

    return {name: Usage(*(number(p, text) for p in _NUMBERS.values())) for name, text in _KERNEL.findall(log)}


def _text(nvrtc: Any, program: Any) -> str:
    error, size = nvrtc.nvrtcGetProgramLogSize(program)
    _checked(error, "nvrtcGetProgramLogSize")
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    text: str = log.decode(errors="replace")
    return text.rstrip("\0 \n")


def _checked(error: Any, call: str) -> None:
    if int(error):
        raise BackendError(f"{call} failed: {error!r}")
