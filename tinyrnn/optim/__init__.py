"""Optimisers: how parameters follow their gradients."""

from .optimisers import SGD, Adam, Optimiser

__all__ = ["SGD", "Adam", "Optimiser"]
