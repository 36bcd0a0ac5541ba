"""The catalogue: every op, declared once."""

from . import elementwise, leaves, linear, random, reduce, structure

__all__ = ["elementwise", "leaves", "linear", "random", "reduce", "structure"]
