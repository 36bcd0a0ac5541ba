"""Benchmarks against PyTorch and JAX: `tinyrnn bench` on the CPU, `tinyrnn bench --gpu` on a GPU."""

from .report import write, write_page
from .run import measure

__all__ = ["measure", "write", "write_page"]
