"""What a GPU reports, said so that one knows what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import BackendError, OutOfMemoryError
from .device import require

_NO_MEMORY = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY


def is_want_of_memory(error: BaseException) -> bool:
    """Whether memory was the trouble: CuPy's pool, the runtime (graphs, pages of the host) and the driver (modules, launches)
    each say so in their own way."""
    cuda = require().cuda
    if isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)):
        return getattr(error, "status", None) == _NO_MEMORY
    return isinstance(error, cuda.memory.OutOfMemoryError)


def allocated(make: Callable[[], Any], what: str, size: int, plan: str = "") -> Any:
    """Memory; where there is none, an error that names what it was for."""
    cupy = require()
    try:
        return make()
    except Exception as error:  # CuPy's pool, the runtime and the driver have no class in common
        if not is_want_of_memory(error):
            raise
        free, total = cupy.cuda.runtime.memGetInfo()
        there = f"{in_words(free)} of {in_words(total)} are free"
        raise OutOfMemoryError(f"out of memory on the GPU: {what} needs {in_words(size)}, {there}{plan}. Nothing was changed; "
                               "take a smaller batch or fewer steps, or release arrays and call "
                               "cupy.get_default_memory_pool().free_all_blocks()") from None


def in_words(size: int) -> str:
    """A number of bytes."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"


@contextmanager
def unrepeatable() -> Iterator[None]:
    """From here on parameters change, so what fails for want of memory must not be tried again."""
    try:
        yield
    except Exception as error:  # as above
        if not is_want_of_memory(error):
            raise
        raise BackendError(f"out of memory on the GPU in the middle of an update: {error}. Some parameters may have their new "
                           "numbers and others not: load them anew, or go on from a checkpoint") from None


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Errors of CUDA, which may come late, as errors of ours."""
    cupy = require()
    try:
        yield
    except (cupy.cuda.memory.OutOfMemoryError, cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        if is_want_of_memory(error):
            raise OutOfMemoryError(f"out of memory on the GPU while {doing}: {error}. No parameter was changed") from None
        raise BackendError(f"CUDA reported {error} while {doing}; what ran before on this GPU may be the cause. "
                           "CUDA_LAUNCH_BLOCKING=1 shows where") from error
