"""Cells and models of tinyrnn inside PyTorch."""

from .layer import Layer

__all__ = ["Layer"]
