"""Cells and models of tinyrnn inside PyTorch."""

from importlib.util import find_spec

from ..errors import MissingPackageError

if find_spec("torch") is None:
    raise MissingPackageError('tr.torch needs PyTorch, which is not installed: pip install "tinyrnn[torch]"')

from .layer import Layer

__all__ = ["Layer"]
