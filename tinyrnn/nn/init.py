"""Starting values of weights, for layers of one's own."""

from ..cells.initial import constant, normal, orthogonal, uniform, xavier

__all__ = ["constant", "normal", "orthogonal", "uniform", "xavier"]
