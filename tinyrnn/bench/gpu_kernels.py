"""The benchmark's kernels, compiled where there is no GPU: they are kept in the folder that TINYRNN_CACHE names, and carried.

    TINYRNN_CACHE=FOLDER python -m tinyrnn.bench.gpu_kernels --arch 90 --nvrtc FOLDER

Kernels are found again by their source, the compute capability, and the version of NVRTC.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backends.cuda import nvrtc
from ..backends.cuda.kernels import code_of
from ..backends.cuda.launch import kernel_keys
from ..backends.plan.matmul import Blas
from ..backends.plan.planner import plan_of
from .cases import STOCK, Point, unusual
from .gpu import ANCHOR, SMOKE, compared, programs
from .sides import layer_of, stock


def plans() -> Iterator[Any]:
    """What the parts of the benchmark run, traced at their sizes."""
    layers = [*(stock(kind, ANCHOR) for kind in STOCK), *(layer_of(case, ANCHOR) for case in unusual().values())]
    for layer in layers:
        x, g = _zeros(ANCHOR, np.float32)
        infer, train = programs(layer, "numpy")
        yield infer.trace(x)
        yield train.trace(x, g)
    for point, dtype in ((SMOKE[0], np.float32), (SMOKE[1], np.float32), (ANCHOR, np.float32), (ANCHOR, np.float64)):
        x, g = _zeros(point, dtype)
        yield compared(nn.LSTM(point.x, point.h, dtype=dtype, rng=0), "numpy").trace(x, g)


def _zeros(point: Point, dtype: Any) -> tuple[Any, Any]:
    """Arrays as inputs and cotangents of a layer."""
    x, g = (np.zeros((point.batch, point.steps, n), dtype) for n in (point.x, point.h))
    return x, g


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser("tinyrnn.bench.gpu_kernels", description=__doc__.splitlines()[0])
    p.add_argument("--arch", default="90", help="compute capability, as in 90")
    p.add_argument("--nvrtc", metavar="FOLDER", help="where another version of NVRTC is installed")
    args = p.parse_args(arguments)
    if args.nvrtc:
        for name in ("libnvrtc-builtins.so*", "libnvrtc.so*"):  # the one that is loaded is the one that is asked
            for file in sorted(Path(args.nvrtc).rglob(name)):
                ctypes.CDLL(str(file.resolve()), mode=ctypes.RTLD_GLOBAL)
    keys = dict.fromkeys(tuple(kernel_keys(plan_of(program.stages[-1][1], Blas()).calls())) for program in plans())
    size = sum(len(code_of(list(k), args.arch)) for k in keys)
    print(f"{len(keys)} modules for sm_{args.arch} by NVRTC {'.'.join(map(str, nvrtc.version()))}, {size >> 10} KiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
