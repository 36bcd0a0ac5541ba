"""Benchmarks on the CPU against PyTorch and JAX: `tinyrnn bench`."""

from .report import write
from .run import measure

__all__ = ["measure", "write"]
