"""Files: weights with the equations beside them."""

from .weights import read_weights, write_weights

__all__ = ["read_weights", "write_weights"]
