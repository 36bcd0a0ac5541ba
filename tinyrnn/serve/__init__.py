"""Models in use: programs that a model keeps (`kept`), and streams, one step at a time (`stream`)."""

from .kept import programs_of, served
from .step import by_program
from .stream import Stream

__all__ = ["Stream", "by_program", "programs_of", "served"]
