"""What a GPU costs before any network runs on it: figures that decide how persistent kernels are cut.

    a barrier of the whole grid      how long blocks wait for each other, once a step of a persistent kernel
    a node of a graph                what a kernel costs beyond its work, once or twice a step of a captured graph
    a product in a graph             what cuBLAS needs for the thin products of a step, forward and backward
    reading one array by all blocks  bytes per second out of the second-level cache, once a step, by every block
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..backends.cuda import nvrtc
from ..backends.cuda.cublas import Cublas, matrix
from ..backends.cuda.device import architecture, require
from ..backends.cuda.source import PRELUDE

THREADS = 256
SOURCE = PRELUDE + """
TR_KERNEL(tr_barriers, 3, 256) {
    unsigned* const counter = (unsigned*)tr.w[0];
    for (unsigned t = 1; t <= (unsigned)tr.w[1]; t++) tr_meet(counter, (unsigned)tr.w[2], t);
}
TR_KERNEL(tr_nothing, 1, 256) {
    if (threadIdx.x == 0) ((float*)tr.w[0])[blockIdx.x] += 1.0f;
}
TR_KERNEL(tr_broadcast, 4, 1024) {
    const float4* const x = (const float4*)tr.w[0];
    const int count = (int)tr.w[1], by = blockDim.x;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (tr_i64 turn = 0; turn < tr.w[2]; turn++)
        for (int i = threadIdx.x; i + 3 * by < count; i += 4 * by) {  /* four loads in flight */
            const float4 a = tr_load_l2(x + i), b = tr_load_l2(x + i + by), c = tr_load_l2(x + i + 2 * by),
                         d = tr_load_l2(x + i + 3 * by);
            sum.x += a.x + b.x + c.x + d.x; sum.y += a.y + b.y + c.y + d.y;
            sum.z += a.z + b.z + c.z + d.z; sum.w += a.w + b.w + c.w + d.w;
        }
    ((float*)tr.w[3])[(tr_i64)blockIdx.y * blockDim.x + threadIdx.x] = sum.x + sum.y + sum.z + sum.w;
}
"""


class Clock:
    """Times on the device: events around several calls that wait for one another there, not for Python."""

    def __init__(self) -> None:
        self.cupy = require()

    def several(self, run: Callable[[], Any], calls: int) -> float:
        """Milliseconds of one of several calls.  The one before the first event keeps the device busy while Python gives it
        the others."""
        cuda = self.cupy.cuda
        first, last = cuda.Event(), cuda.Event()
        stream = cuda.get_current_stream()
        run()
        first.record(stream)
        for _ in range(calls):
            run()
        last.record(stream)
        last.synchronize()
        return float(cuda.get_elapsed_time(first, last)) / calls

    def median(self, run: Callable[[], Any], limit: float = 0.25, most: int = 15) -> float:
        """The median of as many such figures as fit into `limit` seconds, after two calls that are not counted (the first
        compiles, the second captures); three at least, and one of what takes longer than a tenth of a second."""
        for _ in range(2):
            run()
        one = self.several(run, 1)
        slow, calls = one > 100.0, max(2, min(16, round(20.0 / max(one, 1e-3))))  # some 20 ms a figure
        times, began = list[float](), time.perf_counter()
        while len(times) < most and (len(times) < (1 if slow else 3) or time.perf_counter() - began < limit):
            times.append(self.several(run, 1 if slow else calls))
        return statistics.median(times)


class Probes:
    """The kernels that measure the GPU itself."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.cupy = clock, clock.cupy
        device = self.cupy.cuda.Device()
        module = self.cupy.cuda.function.Module()
        module.load(nvrtc.cubin(SOURCE, architecture(device.id)))
        self.kernel = module.get_function
        self.blocks = int(device.attributes["MultiProcessorCount"])

    def barrier_us(self, turns: int = 2000) -> float:
        """Microseconds of a barrier among one block a multiprocessor."""
        counter, kernel = self.cupy.zeros(1, np.uint32), self.kernel("tr_barriers")
        argument = words(counter.data.ptr, turns, self.blocks)

        def run() -> None:
            self.cupy.cuda.runtime.memsetAsync(counter.data.ptr, 0, 4, self.cupy.cuda.get_current_stream().ptr)
            kernel((1, self.blocks), (THREADS, 1), (argument,), enable_cooperative_groups=True)

        return 1e3 * self.clock.median(run) / turns

    def node_us(self, nodes: int = 1000) -> float:
        """Microseconds of a kernel that does next to nothing, within a graph."""
        place, kernel = self.cupy.zeros(1, np.float32), self.kernel("tr_nothing")
        graph = captured(lambda stream: kernel((1, 1), (32, 1), (words(place.data.ptr),)), nodes)
        return 1e3 * self.clock.median(graph.launch) / nodes

    def product_us(self, sizes: tuple[int, int, int], precision: str, nodes: int = 1000) -> float:
        """Microseconds of a float32 product `[m, k] @ [k, n]` by cuBLAS, within a graph of nothing else."""
        m, k, n = sizes
        rng = np.random.default_rng(0)
        a, b = (self.cupy.asarray(rng.normal(size=s).astype(np.float32)) for s in ((m, k), (n, k)))  # as layers keep weights
        c, cublas = self.cupy.zeros((m, n), np.float32), Cublas()
        room = cublas.workspace()
        places = [(x.data.ptr, matrix(shape, strides)) for x, shape, strides in (
            (a, (1, m, k), (0, k, 1)), (b, (1, k, n), (0, 1, k)), (c, (1, m, n), (0, n, 1)))]

        def multiply(stream: Any) -> None:
            cublas.use(stream.ptr, room)
            cublas.gemm(np.dtype(np.float32), precision, sizes, 1, *places)

        graph = captured(multiply, nodes)
        return 1e3 * self.clock.median(graph.launch) / nodes

    def broadcast_gb_s(self, size: int = 64 << 10, turns: int = 200) -> float:
        """Gigabytes per second at which all blocks together read one array of `size` bytes."""
        threads = min(1024, size // 64)  # four numbers of 16 bytes each
        x, out = self.cupy.zeros(size // 4, np.float32), self.cupy.zeros(self.blocks * threads, np.float32)
        kernel = self.kernel("tr_broadcast")
        argument = words(x.data.ptr, size // 16, turns, out.data.ptr)
        ms = self.clock.median(lambda: kernel((1, self.blocks), (threads, 1), (argument,)))
        return size * turns * self.blocks / ms / 1e6


def captured(call: Callable[[Any], Any], times: int, warm: bool = True) -> Any:
    """A graph of so many calls, each of which gets the stream; what a library does at its first call is done before."""
    cuda = require().cuda
    stream = cuda.Stream(non_blocking=True)
    cuda.get_current_stream().synchronize()
    with stream:
        if warm:
            call(stream)
            stream.synchronize()
        stream.begin_capture()
        try:
            for _ in range(times):
                call(stream)
        except BaseException:
            with suppress(Exception):  # the first error says what went wrong
                stream.end_capture()
            raise
        return stream.end_capture()


def words(*numbers: int) -> Any:
    """The argument of a kernel."""
    found = np.empty(1, np.dtype([("w", np.int64, (len(numbers),))]))
    found["w"] = numbers
    return found


def described() -> dict[str, Any]:
    """The machine and what runs on it."""
    cupy = require()
    runtime = cupy.cuda.runtime
    gpu = runtime.getDeviceProperties(cupy.cuda.Device().id)
    found = {"gpu": gpu["name"].decode(), "driver": runtime.driverGetVersion(), "cuda": runtime.runtimeGetVersion(),
             "nvrtc": ".".join(map(str, nvrtc.version())), "cupy": cupy.__version__, "python": platform.python_version(),
             "numpy": np.__version__}
    for peer in ("torch", "jax", "tinyrnn"):
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            found[peer] = import_module("tinyrnn").__version__ if peer == "tinyrnn" else "not there"
    return found
