"""Benchmarks against PyTorch and JAX: `tinyrnn bench` on the CPU, `tinyrnn bench --gpu` on a GPU."""

from pathlib import Path
from typing import Any

from . import gpu, gpu_report
from .report import write, write_page
from .run import measure

__all__ = ["measure", "measure_gpu", "write", "write_gpu"]

measure_gpu = gpu.measure


def write_gpu(found: Any, folder: Path) -> list[Path]:
    """`gpu.json` and `gpu.md` in a folder."""
    return write_page(found, gpu_report.page(found), folder, "gpu")
