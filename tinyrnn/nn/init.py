"""Starting values of weights, for layers of one's own."""

from ..cells.initial import orthogonal, uniform, xavier

__all__ = ["orthogonal", "uniform", "xavier"]
