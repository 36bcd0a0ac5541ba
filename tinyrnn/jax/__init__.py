"""Cells and models of tinyrnn inside JAX."""

from importlib.util import find_spec

from ..errors import MissingPackageError

if find_spec("jax") is None:
    raise MissingPackageError('tr.jax needs JAX, which is not installed: pip install "tinyrnn[jax]"')

from .model import LayerFunction, layer

__all__ = ["LayerFunction", "layer"]
