"""Models in use: programs that a model keeps (`kept`), and streams, one step at a time (`stream`)."""

from .stream import Stream

__all__ = ["Stream"]
