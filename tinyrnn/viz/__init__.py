"""Pictures of cells, graphs and models, and pages one can step through."""

from .drawing import Drawing, draw

__all__ = ["Drawing", "draw"]
