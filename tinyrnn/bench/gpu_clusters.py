"""What a GPU can do for kernels that hold the weights of a layer for a whole sequence: clusters, and blocks that exchange.

    clusters              how many of 2, 4, 8 or 16 blocks fit on the chip at once
    launches              a cluster that is cooperative as well, alone and within a captured graph
    exchange by sentinel  blocks write to the second-level cache, others read until no word is the sentinel any more

CuPy launches no clusters, so kernels go through the driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backends.cuda import device, nvrtc
from ..backends.cuda.device import architecture, require
from ..backends.cuda.source import PRELUDE
from ..errors import BackendError
from .gpu_machine import Clock, captured, words

THREADS = 256
SHARED = 120 << 10  # bytes of a block: as much as weights and partial sums take, and so much that a multiprocessor holds one
SENTINEL = 0xFFFFFFFF
SIZES = (2, 4, 8, 16)
PORTABLE = 8  # blocks of a cluster that every GPU with clusters takes
EXCHANGE = f"#define TR_SENTINEL 0x{SENTINEL:x}u" + """
#ifndef TR_CPU
TR_DEVICE unsigned tr_rank() { unsigned r; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r)); return r; }
TR_DEVICE uint4 tr_peek(const void* p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
    return v;
}
TR_DEVICE void tr_hand_on(void* p, uint4 v) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 : : "l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
#endif
TR_DEVICE bool tr_waits(uint4 v) {
    return v.x == TR_SENTINEL || v.y == TR_SENTINEL || v.z == TR_SENTINEL || v.w == TR_SENTINEL;
}
"""
"""The rank of a block in its cluster, and how blocks hand data on that are their own flag."""

SOURCE = PRELUDE + EXCHANGE + """\
TR_KERNEL(tr_ranks, 3, 256) {
    if (threadIdx.x == 0) ((unsigned*)tr.w[0])[blockIdx.x] = tr_rank();
    tr_meet((unsigned*)tr.w[1], (unsigned)tr.w[2], 1);
}
/* blocks of a group hand `own` packets of 16 bytes each to all of the group, turn after turn */
TR_KERNEL(tr_relay, 5, 256) {
    const unsigned own = (unsigned)tr.w[2], group = (unsigned)tr.w[3], turns = (unsigned)tr.w[4];
    const unsigned rank = blockIdx.x % group, all = own * group;
    uint4* at = (uint4*)tr.w[0] + (tr_i64)(blockIdx.x / group) * turns * all;
    unsigned sum = 0;
    for (unsigned t = 0; t < turns; t++, at += all) {
        for (unsigned i = threadIdx.x; i < own; i += blockDim.x) {
            const unsigned x = t + rank * own + i;
            const uint4 v = {x, x, x, x};
            tr_hand_on(at + rank * own + i, v);
        }
        for (unsigned i = threadIdx.x; i < all; i += blockDim.x) {
            uint4 v;
            do v = tr_peek(at + i); while (tr_waits(v));
            sum += v.x;
        }
        TR_BARRIER();
    }
    ((unsigned*)tr.w[1])[(tr_i64)blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
"""


class Clusters:
    """Kernels launched as clusters."""

    def __init__(self) -> None:
        self.cupy, self.driver = require(), device.driver()
        gpu = self.cupy.cuda.Device()
        self.cupy.zeros(1, np.uint32)  # the context is there from here on
        self.blocks = int(gpu.attributes["MultiProcessorCount"])
        self.module = self._done(self.driver.cuModuleLoadData(nvrtc.cubin(SOURCE, architecture(gpu.id))), "cuModuleLoadData")
        self.kernels = {name: self._done(self.driver.cuModuleGetFunction(self.module, name.encode()), "cuModuleGetFunction")
                        for name in ("tr_ranks", "tr_relay")}
        known = self.driver.CUfunction_attribute
        for kernel in self.kernels.values():
            for attribute, value in ((known.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
                                     (known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SHARED)):
                self._done(self.driver.cuFuncSetAttribute(kernel, attribute, value), "cuFuncSetAttribute")

    def _done(self, answer: Any, call: str) -> Any:
        error, *found = answer
        if int(error):
            raise BackendError(f"{call} failed: {error!r}")
        return found[0] if found else None

    def _how(self, blocks: int, cluster: int, stream: int, cooperative: bool = False) -> Any:
        """The driver's description of a launch."""
        driver, attributes = self.driver, []
        names = driver.CUlaunchAttributeID
        if cluster > 1:
            shape = driver.CUlaunchAttribute()
            shape.id = names.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            shape.value.clusterDim.x, shape.value.clusterDim.y, shape.value.clusterDim.z = cluster, 1, 1
            attributes.append(shape)
        if cooperative:
            together = driver.CUlaunchAttribute()
            together.id = names.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            together.value.cooperative = 1
            attributes.append(together)
        how = driver.CUlaunchConfig()
        how.gridDimX, how.gridDimY, how.gridDimZ = blocks, 1, 1
        how.blockDimX, how.blockDimY, how.blockDimZ = THREADS, 1, 1
        how.sharedMemBytes = SHARED
        how.hStream, how.attrs, how.numAttrs = driver.CUstream(stream), attributes, len(attributes)
        return how

    def launch(self, kernel: str, blocks: int, cluster: int, argument: Any, stream: int, cooperative: bool = False) -> None:
        places = (ctypes.c_void_p * 1)(argument.ctypes.data)
        how = self._how(blocks, cluster, stream, cooperative)
        self._done(self.driver.cuLaunchKernelEx(how, self.kernels[kernel], ctypes.addressof(places), 0), "cuLaunchKernelEx")

    def most(self, size: int) -> int:
        """How many clusters of a size are on the chip at once."""
        answer = self.driver.cuOccupancyMaxActiveClusters(self.kernels["tr_ranks"], self._how(size, size, 0))
        return int(self._done(answer, "cuOccupancyMaxActiveClusters"))

    def launched(self, size: int, cooperative: bool, capture: bool) -> int:
        """Blocks of as many clusters as fit, each of which found its rank and met all others where it may; 0 for none."""
        blocks = size * max(1, min(self.most(size), self.blocks // size))
        ranks, counter = self.cupy.zeros(blocks, np.uint32), self.cupy.zeros(1, np.uint32)
        argument = words(ranks.data.ptr, counter.data.ptr, blocks if cooperative else 0)

        def run(stream: Any) -> None:
            self.launch("tr_ranks", blocks, size, argument, stream.ptr, cooperative)

        if capture:
            captured(run, 1, warm=False).launch()
        else:
            run(self.cupy.cuda.get_current_stream())
        found, met = self.cupy.asnumpy(ranks), int(self.cupy.asnumpy(counter)[0])
        if not np.array_equal(found, np.arange(blocks) % size) or met != blocks:
            raise BackendError(f"clusters of {size}: {blocks} blocks found the ranks {found[:20].tolist()}, {met} of them met")
        return blocks

    def exchange_us(self, clock: Clock, group: int, packets: int, turns: int) -> float:
        """Microseconds in which all blocks of a group have what each of them wrote, all groups of the chip at once."""
        groups = max(1, self.blocks // group)
        blocks, all_packets = groups * group, groups * turns * group * packets
        buffer, sums = self.cupy.empty(4 * all_packets, np.uint32), self.cupy.zeros(blocks * THREADS, np.uint32)
        argument = words(buffer.data.ptr, sums.data.ptr, packets, group, turns)

        def clear() -> int:
            stream: int = self.cupy.cuda.get_current_stream().ptr
            self.cupy.cuda.runtime.memsetAsync(buffer.data.ptr, SENTINEL & 0xFF, buffer.nbytes, stream)
            return stream

        def run() -> None:
            self.launch("tr_relay", blocks, 1, argument, clear(), cooperative=True)

        run()
        found = self.cupy.asnumpy(sums).reshape(blocks, THREADS).sum(1, dtype=np.uint32)
        once = group * packets
        true = np.uint32((turns * once * (once - 1) // 2 + once * turns * (turns - 1) // 2) % 2**32)
        if (found != true).any():
            wrong = int((found != true).sum())
            raise BackendError(f"exchange among {group} blocks: {wrong} of {blocks} blocks read wrong numbers")
        return 1e3 * (clock.median(run) - clock.median(clear)) / turns


def occupancy(clusters: Clusters) -> Mapping[str, int]:
    """The largest number of active clusters by size."""
    return {str(size): clusters.most(size) for size in SIZES}
