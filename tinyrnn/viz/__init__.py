"""Pictures of cells and graphs."""

from .drawing import Drawing, draw

__all__ = ["Drawing", "draw"]
